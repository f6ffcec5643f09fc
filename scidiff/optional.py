"""The one door for optional packages.

A package counts as missing when importing it fails in any way: absent, or installed but broken (an undefined symbol
after an upgrade of torch, a missing shared library).
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from scidiff.errors import MissingPackageError

__all__ = ["optional", "pip_line"]


def pip_line(package: str, extra: str | None = None) -> str:
    """The command that installs what is missing, run from a clone of the repository.

    Arguments:
        package: Name on the package index.
        extra: Group of optional dependencies in ``pyproject.toml`` that holds it, if any.
    """
    return f'python -m pip install -c constraints.txt -e ".[{extra}]"' if extra else f"python -m pip install {package}"


def optional(module: str, extra: str | None = None, package: str | None = None) -> ModuleType:
    """Imports an optional package.

    Arguments:
        module: Import name, which may have dots.
        extra: Group of optional dependencies in ``pyproject.toml`` that holds it.
        package: Name on the package index when it differs from the import name.

    Returns:
        The module.

    Raises:
        MissingPackageError: If importing fails for any reason; the message holds the reason and one pip line.
    """
    package = package or module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        found = f"{package} is not installed" if error.name == module.partition(".")[0] else f"{package} fails: {error}"
        reason = error
    except Exception as error:
        # A broken binary raises OSError or ImportError; a package that clashes with another raises anything.
        found = f"{package} is installed, but importing it fails ({type(error).__name__}: {error})"
        reason = error
    raise MissingPackageError(f"{found}. Install it with\n    {pip_line(package, extra)}") from reason
