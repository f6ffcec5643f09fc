r"""How tensors of scidiff stand for what deepinv's physics take and give.

==========================  ============================  ==============================================
deepinv                     here                          when
==========================  ============================  ==============================================
tensor (B, \*X)             the same                      as a rule
(B, 2, \*X) real            (B, 1, \*X) complex           real and imaginary parts kept as two channels
`TensorList`, list, tuple   (B, n), the parts flattened   several instruments, or a field of several parts
==========================  ============================  ==============================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scidiff.optional import optional
from scidiff.priors.gaussian import from_real, to_real

deepinv = optional("deepinv")

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Shapes of one field or measurement on the side of deepinv, without the batch.

    Arguments:
        shapes: Shape of every part; one for a plain tensor.
        several: Whether deepinv has a list of tensors.
        channels: Whether real and imaginary parts are channels there, and complex numbers here.
    """

    shapes: tuple[tuple[int, ...], ...]
    several: bool = False
    channels: bool = False

    @classmethod
    def of_field(cls, shape: Sequence[Any], channels: bool) -> Layout:
        """From a shape as users write it: numbers, or shapes of several parts.

        Raises:
            ValueError: if it is no shape, or complex numbers do not fit it.
        """
        several = bool(shape) and not isinstance(shape[0], int)
        shapes = tuple(tuple(int(n) for n in part) for part in (shape if several else (shape,)))
        if any(n < 1 for part in shapes for n in part) or not all(shapes):
            raise ValueError(f"shape must hold positive sides of one field without the batch, got {tuple(shape)}.")
        if channels:
            if several or shapes[0][0] != 1:
                raise ValueError(
                    f"complex_channels needs fields (1, ...) for deepinv's (2, ...), got shape={tuple(shape)}."
                )
            shapes = ((2, *shapes[0][1:]),)
        return cls(shapes, several, channels)

    @classmethod
    def of_answer(cls, z: Any, channels: bool) -> Layout:
        """From what a physics gives."""
        several = not isinstance(z, Tensor)
        parts = list(z) if several else [z]
        shapes = tuple(tuple(part.shape[1:]) for part in parts)
        channels = channels and not several and not parts[0].is_complex() and shapes[0][:1] == (2,)
        return cls(shapes, several, channels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape on the side of scidiff."""
        if self.several:
            return (sum(math.prod(s) for s in self.shapes),)
        return (1, *self.shapes[0][1:]) if self.channels else self.shapes[0]

    def pack(self, value: Any) -> Tensor:
        """From deepinv to scidiff."""
        if self.several:
            parts = [part.reshape(len(part), -1) for part in value]
            return torch.cat(parts, dim=1)
        return from_real(value) if self.channels else value

    def unpack(self, x: Tensor) -> Any:
        """From scidiff to deepinv."""
        if self.several:
            parts = x.split([math.prod(s) for s in self.shapes], dim=1)
            return deepinv.utils.TensorList(
                [part.reshape(len(x), *s) for part, s in zip(parts, self.shapes, strict=True)]
            )
        return to_real(x) if self.channels else x

    def matches(self, value: Any) -> bool:
        """Whether a value of deepinv has these shapes."""
        several = not isinstance(value, Tensor)
        parts = list(value) if several else [value]
        return several == self.several and tuple(tuple(p.shape[1:]) for p in parts) == self.shapes
