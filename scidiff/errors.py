"""The kinds of failure a caller can tell apart; the command line maps each to an exit code.

Messages say what was expected, what was found and what to do.
"""

__all__ = ["InputError", "Interrupted", "MissingPackageError", "NumericalError"]


class InputError(ValueError):
    """A file or array was rejected: missing, wrong dimensions, units or values (exit code 3)."""


class MissingPackageError(ImportError):
    """An optional package is absent or broken; the message holds the pip line (exit code 4)."""


class NumericalError(FloatingPointError):
    """A computation left the finite numbers; the message names method and noise level (exit code 5)."""


class Interrupted(RuntimeError):  # noqa: N818 - an event, not a fault
    """Work stopped after a checkpoint; running the same command with `--resume` continues it (exit code 75)."""
