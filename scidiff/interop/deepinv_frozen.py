"""Copies of deepinv's physics that a call cannot change, in any precision, without noise.

A physics of deepinv is a mutable module: parameters can be replaced during a call, some classes keep the last total
field, noise models hold generators. A `Frozen` physics copies all that once, answers from the copy, and puts every
attribute back after each call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from scidiff.optional import optional

deepinv = optional("deepinv")

__all__ = ["Frozen"]


def _ours_to_walk(value: Any) -> bool:
    """Whether the attributes of an object may hold tensors of a physics."""
    return isinstance(value, nn.Module) or (
        type(value).__module__.partition(".")[0] == "deepinv" and hasattr(value, "__dict__")
    )


def _mapped(value: Any, change: Callable[[Any], Any], seen: set[int]) -> Any:
    """Replaces, in place, whatever hangs on a physics; ``change`` sees everything that holds nothing else."""
    if isinstance(value, tuple) and type(value) in (tuple, torch.Size):
        return value if type(value) is torch.Size else tuple(_mapped(v, change, seen) for v in value)
    holds = isinstance(value, dict | list) or _ours_to_walk(value)
    if not holds or isinstance(value, type):
        return change(value)
    if id(value) in seen:
        return value
    seen.add(id(value))
    if isinstance(value, list):
        value[:] = [_mapped(v, change, seen) for v in value]
        return value
    table = value if isinstance(value, dict) else vars(value)
    for key in list(table):
        table[key] = _mapped(table[key], change, seen)
    return value


def _copied(physics: Any) -> Any:
    """A deep copy; generators and results of earlier computations, which Python cannot copy, included."""
    memo: dict[int, Any] = {}

    def remember(leaf: Any) -> Any:
        if isinstance(leaf, Generator):
            fresh = Generator(leaf.device)
            memo[id(leaf)] = fresh.set_state(leaf.get_state())
        elif isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter):
            memo[id(leaf)] = leaf.detach().clone()
        return leaf

    _mapped(physics, remember, set())  # puts back what was there
    return copy.deepcopy(physics, memo)


_WIDER = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_NARROWER = {wide: narrow for narrow, wide in _WIDER.items()}


def _cast(physics: Any, real: torch.dtype, device: torch.device) -> Any:
    """The same physics with every floating-point number in the given precision; changes ``physics``."""
    table = _WIDER if real == torch.float64 else _NARROWER

    def change(leaf: Any) -> Any:
        if isinstance(leaf, torch.dtype):
            return table.get(leaf, leaf)
        if not isinstance(leaf, Tensor):
            return leaf
        moved = leaf.detach().to(device, table.get(leaf.dtype, leaf.dtype))
        return nn.Parameter(moved, requires_grad=False) if isinstance(leaf, nn.Parameter) else moved

    return _mapped(physics, change, set())


def _home(physics: Any) -> tuple[torch.dtype, torch.device]:
    """The precision of a physics (double if any of its numbers is) and where it lives."""
    found: list[Tensor] = []

    def look(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
            found.append(leaf)
        return leaf

    _mapped(physics, look, set())
    double = any(t.dtype in (torch.float64, torch.complex128) for t in found)
    devices = {t.device for t in found} - {torch.device("cpu")}
    return torch.float64 if double else torch.float32, devices.pop() if devices else torch.device("cpu")


class Frozen:
    """A physics at one moment, without any noise.

    Arguments:
        physics: A physics of deepinv; copied.
        noise: Noise model of the physics, or of every part of a stack; default none.
    """

    def __init__(self, physics: Any, noise: Any = None) -> None:
        self._source = _copied(physics)
        for module in _parts(self._source):
            # Phase retrieval measures with the noisy forward of the linear physics inside it.
            if hasattr(module, "noise_model") and not isinstance(module, deepinv.physics.NoiseModel):
                module.noise_model = deepinv.physics.ZeroNoise()
        if noise is not None:
            stacked = isinstance(physics, deepinv.physics.StackedPhysics)
            for part in self._source.physics_list if stacked else [self._source]:
                part.noise_model = noise
        self._source.eval()
        self.precision, self.device = _home(self._source)
        """Of the physics itself; other precisions and devices get copies when they are first asked for."""
        self._copies: dict[tuple[torch.dtype, torch.device], tuple[Any, list[Any]]] = {}
        made = _cast(self._source, self.precision, self.device)
        self._copies[self.precision, self.device] = made, _parts(made)

    def at(self, real: torch.dtype, device: torch.device) -> Any:
        """The physics with numbers of type ``real`` on a device; made once for each."""
        return self._at(real, device)[0]

    def _at(self, real: torch.dtype, device: torch.device) -> tuple[Any, list[Any]]:
        key = real, device
        if key not in self._copies:
            made = _cast(_copied(self._source), real, device)
            self._copies[key] = made, _parts(made)
        return self._copies[key]

    def call(self, method: str, value: Any, real: torch.dtype, device: torch.device) -> Any:
        """``physics.method(value)``; whatever the call changes in the physics is put back."""
        physics, parts = self._at(real, device)
        before = [(vars(part), _tables(part)) for part in parts]
        try:
            return getattr(physics, method)(value)
        finally:
            for now, then in before:
                now.clear()
                now.update(then)


def _tables(part: Any) -> dict[str, Any]:
    """Attributes of an object; its tables (buffers, submodules) and lists copied one level deep."""
    return {k: v.copy() if type(v) in (dict, list) else v for k, v in vars(part).items()}


def _parts(physics: Any) -> list[Any]:
    """The physics and all objects of deepinv that hang on it."""
    found: list[Any] = []
    seen: set[int] = set()

    def visit(value: Any) -> None:
        if id(value) in seen or isinstance(value, type):
            return
        seen.add(id(value))
        if isinstance(value, list | tuple):
            children = list(value)
        elif isinstance(value, dict):
            children = list(value.values())
        elif _ours_to_walk(value):
            found.append(value)
            children = list(vars(value).values())
        else:
            return
        for child in children:
            visit(child)

    visit(physics)
    return found
