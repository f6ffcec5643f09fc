"""What all commands share: messages on stderr, results on stdout, exit codes, `--json` and `--verbose`.

====  ==============================================================================
code  meaning
====  ==============================================================================
0     done
1     a bug: an error nobody foresaw (traceback with ``--verbose``)
2     usage or configuration
3     input rejected: missing file, wrong dimensions, units, values
4     optional package missing or broken
5     numerical failure
6     quality gate failed
75    interrupted after a checkpoint; the same command with ``--resume`` goes on
130   Ctrl-C
====  ==============================================================================
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from scidiff.errors import InputError, Interrupted, MissingPackageError, NumericalError

__all__ = ["QUALITY_GATE", "ConfigError", "Json", "emit", "exit_code", "guarded", "say"]

QUALITY_GATE = 6
"""For commands whose check failed: ``raise typer.Exit(QUALITY_GATE)`` after saying what failed."""

Json = Annotated[bool, typer.Option("--json", help="Write one JSON object to stdout, everything else to stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")]


class ConfigError(ValueError):
    """A wrong option, configuration file or ``-s key=value`` (exit code 2)."""


CODES: dict[type[BaseException], int] = {
    ConfigError: 2,
    InputError: 3,
    MissingPackageError: 4,
    NumericalError: 5,
    Interrupted: 75,
    KeyboardInterrupt: 130,
}


def exit_code(error: BaseException) -> int:
    """The exit code that stands for an error; 1 for one that nobody foresaw."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), 1)


def say(message: str) -> None:
    """A message to the person who typed the command: stderr."""
    typer.echo(message, err=True)


def emit(record: Mapping[str, Any]) -> None:
    """A result as one JSON object on stdout. Numbers that JSON does not know (NaN, infinity) become null."""
    typer.echo(json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence | set | frozenset):
        return [_plain(part) for part in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and torch numbers and arrays
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def guarded(command: Callable[..., Any]) -> Callable[..., None]:
    """A command that turns errors into a message and an exit code, and knows ``--verbose``.

    Usage errors of typer pass through: it prints the usage and ends with 2.
    """

    @functools.wraps(command)
    def run(*args: Any, verbose: bool = False, **options: Any) -> None:
        try:
            with warnings.catch_warnings():
                if not verbose:
                    warnings.showwarning = lambda message, *_: say(f"warning: {message}")  # type: ignore[assignment]
                command(*args, **options)
        except (typer.TyperException, typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            raise  # the reader of stdout has left; typer ends quietly
        except (Exception, KeyboardInterrupt) as error:
            code = exit_code(error)
            if verbose:
                say("".join(traceback.format_exception(error)).rstrip())
            elif code == 1:
                say(f"error: {type(error).__name__}: {error}\nThis was not foreseen; --verbose shows the traceback.")
            else:
                say(f"error: {error}" if str(error) else "interrupted")
            raise typer.Exit(code) from error

    signature = inspect.signature(command, eval_str=True)
    flag = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), flag])  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()} | {"verbose": Verbose}
    return run
