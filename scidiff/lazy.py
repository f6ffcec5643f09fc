"""Names of a package that are imported when first used (PEP 562), so that importing the package stays cheap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ["CallablePackage", "as_package", "callable_package", "lazy_exports"]

P = ParamSpec("P")
R = TypeVar("R")


def lazy_exports(package: str, exports: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package.

    Arguments:
        package: ``__name__`` of the package.
        exports: Where each public name lives. A target ``package.name`` that is itself a module is imported; any other
            target is the module that holds an attribute of that name.

    Raises:
        AttributeError: On first use of a name that is not in the table.
    """

    def load(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        target = exports[name]
        module = import_module(target)
        value = module if target == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *exports})

    return load, names


class CallablePackage(ModuleType, Generic[P, R]):
    """A package that is also a function: ``scidiff.forecast(...)`` beside ``scidiff.forecast.Forecaster``."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function that the package stands for, imported when it is first called."""
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Callable[P, R]:
        """The function, where `inspect.signature` and `help` look for it."""
        module, _, name = self.__dict__["_function"].partition(":")
        return getattr(import_module(module), name)


def callable_package(package: str, function: str) -> None:
    """Makes a package callable. Importing it stays cheap, and so does every other use of it.

    A package and a function of one name cannot both be attributes of ``scidiff``: importing the package, or anything in
    it, sets the attribute to the package. So the package itself is called.

    Arguments:
        package: ``__name__`` of the package.
        function: ``module:name`` of what a call of the package calls.
    """
    module = sys.modules[package]
    module.__dict__["_function"] = function
    module.__class__ = CallablePackage


def as_package(function: Callable[P, R]) -> CallablePackage[P, R]:
    """For type checkers only: what a callable package looks like from outside."""
    raise TypeError("as_package is for `if TYPE_CHECKING:` blocks.")
