"""The command line: one thin file a command, registered in `scidiff.cli.app`."""
