"""Parameters that come by name from a command line or a file: names and kinds are checked before they are used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["near", "require_kinds"]

# What a number or a switch is taken for when it was mistyped; other kinds are left to whoever uses the value.
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def near(word: str, words: Iterable[str]) -> str:
    """`` did you mean 'steps'?``, or nothing where no word is close."""
    close = difflib.get_close_matches(word, list(words), 1)
    return f" did you mean {close[0]!r}?" if close else ""


def require_kinds(owner: str, values: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Checks values that should be numbers or switches.

    Arguments:
        owner: Whose parameters they are, for the message.
        values: Parameters by name.
        annotations: Their types as written in the source, ``"float"`` or ``"int | None"``.

    Raises:
        TypeError: Text, a list or a table stands where a number belongs, a switch where a number does or the other
            way round, or a fraction where a whole number belongs.
    """
    for name, value in values.items():
        kinds = {part.strip() for part in str(annotations.get(name, "")).split("|")}
        if not kinds <= {*_KINDS, "None"} or (value is None and "None" in kinds):
            continue
        wrong = isinstance(value, (str, list, tuple, dict)) or isinstance(value, bool) is not ("bool" in kinds)
        if wrong or (kinds <= {"int", "None"} and isinstance(value, float) and not value.is_integer()):
            expected = " or ".join(_KINDS[kind] for kind in sorted(kinds - {"None"}))
            raise TypeError(f"{owner}: {name} must be {expected}, got {value!r}.")
