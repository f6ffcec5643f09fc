"""Problems by name: what the command line and `scidiff.reconstruct` look up."""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module
from typing import Any

__all__ = ["get", "names"]

_PROBLEMS = {
    "gaussian": ("scidiff.problems.gaussian", "GaussianInpainting"),
    "mri": ("scidiff.problems.mri", "AcceleratedMRI"),
}


def names() -> list[str]:
    """Names of all problems."""
    return sorted(_PROBLEMS)


def get(name: str, **parameters: Any) -> Any:
    """The problem of that name.

    Arguments:
        name: One of `names`.
        parameters: Arguments of its constructor.

    Raises:
        ValueError: for an unknown name or parameter; the message lists what there is.
    """
    if name not in _PROBLEMS:
        raise ValueError(f"there is no problem {name!r};{_near(name, names())} problems are {', '.join(names())}.")
    module, cls = _PROBLEMS[name]
    problem = getattr(import_module(module), cls)
    known = list(inspect.signature(problem).parameters)
    for parameter in parameters:
        if parameter not in known:
            near = _near(parameter, known)
            raise ValueError(f"problem {name!r} has no parameter {parameter!r};{near} it takes {', '.join(known)}.")
    return problem(**parameters)


def _near(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word, words, 1)
    return f" did you mean {close[0]!r}?" if close else ""
