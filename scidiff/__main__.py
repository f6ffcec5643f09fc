"""``python -m scidiff`` is the command ``scidiff``."""

from scidiff.cli.app import main

if __name__ == "__main__":
    main()
