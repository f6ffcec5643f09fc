"""Objects that remember what they were made of, so that they can be shown, compared and written to a file."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any, ClassVar

from torch import Tensor

__all__ = ["Recorded", "known_as"]


class Recorded:
    """Keeps the arguments of its constructor; subclasses need to do nothing for it.

    What counts is the outermost constructor: of ``Poisson(grid)``, which calls that of ``Helmholtz``, the grid.
    """

    _kinds: ClassVar[dict[str, type[Recorded]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Recorded._kinds[f"{cls.__module__}.{cls.__qualname__}"] = cls
        own = cls.__dict__.get("__init__")
        if own is not None:
            cls.__init__ = _recording(own)  # type: ignore[method-assign]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the constructor by name, as they were given; defaults are left out."""
        given = vars(self).get("_given")
        if given is None:
            if dataclasses.is_dataclass(self):
                return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
            return {}
        return dict(inspect.signature(type(self)).bind(*given[0], **given[1]).arguments)

    def __repr__(self) -> str:
        kinds = inspect.signature(type(self)).parameters
        shown = []
        for name, value in self.arguments.items():
            if kinds[name].kind is inspect.Parameter.VAR_POSITIONAL:
                shown += [_brief(part) for part in value]
            else:
                shown.append(f"{name}={_brief(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _recording(constructor: Any) -> Any:
    @functools.wraps(constructor)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if "_given" not in vars(self):
            object.__setattr__(self, "_given", (args, kwargs))  # also where attributes are frozen
        constructor(self, *args, **kwargs)

    return __init__


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>" if value.ndim else f"{value.item()}"
    if hasattr(value, "dtype") and hasattr(value, "shape") and value.shape:
        return f"<{value.dtype} {value.shape}>"
    if isinstance(value, (list, tuple)) and len(value) > 8:
        return f"<{len(value)} of {type(value[0]).__name__}>"
    return getattr(value, "__name__", None) or repr(value)


def known_as(operator: Any) -> str:
    """What errors call an operator or a plain function."""
    return getattr(operator, "__name__", None) or type(operator).__name__
