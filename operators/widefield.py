r"""Widefield fluorescence: every plane of a stack sees the light of all others, out of focus.

.. math:: z_i = \sum_j k_{i-j}\, x_j + b, \qquad i \in \text{stack}, \; j \in \text{stack and margin}

with the point-spread function :math:`k`, whose centre is the entry ``side // 2``, and a uniform background :math:`b`.
The light of fluorophores outside of the stack reaches it. So the field is larger than the stack by a margin on each
side, beyond which it is dark; without a margin all light must come from inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scidiff.operators.algebra import Algebra
from scidiff.operators.convolution import Convolution

__all__ = ["Background", "WidefieldBlur"]


class WidefieldBlur(Algebra):
    r"""Convolution of a field with margins, seen in the stack: the linear part of the model.

    Fields are (B, \*R, \*grid) with the sides of the stack plus twice the margin; measurements (B, \*R, \*shape).

    Arguments:
        kernel: :math:`k`, real, with as many dimensions as the stack.
        shape: Sides of the stack.
        margin: Voxels on each side, one number or one per axis.
        periodic: Whether the field continues periodically (without margin) instead of being dark outside.

    Raises:
        ValueError: if sizes do not fit.
    """

    def __init__(
        self, kernel: Tensor, shape: Sequence[int], margin: int | Sequence[int] = 0, periodic: bool = False
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        d = len(self.shape)
        self.margin = (int(margin),) * d if isinstance(margin, int) else tuple(int(m) for m in margin)
        if len(self.margin) != d or min(self.margin) < 0:
            raise ValueError(f"margin is one number of voxels or one for each of {d} axes, got {margin}.")
        if kernel.ndim != d:
            raise ValueError(f"the kernel has shape {tuple(kernel.shape)}, but the stack has {d} dimensions.")
        if periodic and any(self.margin):
            raise ValueError("a periodic field has no outside: set margin to 0.")
        self.grid = tuple(n + 2 * m for n, m in zip(self.shape, self.margin, strict=True))
        """Sides of the field."""
        sides = zip(self.grid, self.shape, self.margin, kernel.shape, strict=True)
        self.periodic = periodic
        # Large enough that what wraps around does not reach the stack.
        wide = self.grid if periodic else [max(g, n + m + k // 2, k) for g, n, m, k in sides]
        self._blur = Convolution(kernel, [n if periodic else _fast(n) for n in wide])

    def __repr__(self) -> str:
        return f"WidefieldBlur(kernel {tuple(self.kernel.shape)}, {self.shape}, margin={self.margin})"

    @property
    def kernel(self) -> Tensor:
        """The point-spread function."""
        return self._blur.kernel

    def _place(self, x: Tensor, before: Sequence[int]) -> Tensor:
        """Zeros around the last dimensions up to the sides of the transform."""
        pads = []
        for n, b, whole in reversed([*zip(x.shape[-len(before) :], before, self._blur.grid, strict=True)]):
            pads += [b, whole - n - b]
        return F.pad(x, pads)

    def _take(self, x: Tensor, first: Sequence[int], sides: Sequence[int]) -> Tensor:
        return x[(..., *(slice(a, a + n) for a, n in zip(first, sides, strict=True)))]

    def _check(self, x: Tensor, sides: tuple[int, ...], what: str) -> None:
        if x.ndim <= len(sides) or tuple(x.shape[-len(sides) :]) != sides:
            raise ValueError(f"expected {what} (B, ..., {str(sides)[1:-1]}), got {tuple(x.shape)}.")

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, self.grid, "fields")
        return self._take(self._blur(self._place(x, [0] * len(self.grid))), self.margin, self.shape)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Correlation with the kernel, (B, \*R, \*grid)."""
        self._check(y, self.shape, "stacks")
        return self._take(self._blur.adjoint(self._place(y, self.margin)), [0] * len(self.grid), self.grid)


class Background(Algebra):
    r"""An operator plus light that is there without a field, :math:`A(x) + b`; affine, hence without adjoint.

    Arguments:
        operator: :math:`A`.
        level: :math:`b`, a number or a tensor that broadcasts to the measurements.
    """

    def __init__(self, operator: Any, level: float | Tensor) -> None:
        self.operator, self.level = operator, level

    def __repr__(self) -> str:
        return f"Background({self.operator!r})"

    def __call__(self, x: Tensor) -> Tensor:
        return self.operator(x) + (self.level.to(x.device, x.dtype) if isinstance(self.level, Tensor) else self.level)


def _fast(n: int) -> int:
    """The smallest size from ``n`` on whose transform is fast: products of 2, 3 and 5."""
    while True:
        m = n
        for p in (2, 3, 5):
            while m % p == 0:
                m //= p
        if m == 1:
            return n
        n += 1


def flux(operator: WidefieldBlur, dtype: torch.dtype = torch.float32) -> Tensor:
    r"""Light of one unit at each voxel that the stack catches, :math:`A^T 1`, (1, 1, \*grid)."""
    return operator.adjoint(torch.ones(1, 1, *operator.shape, dtype=dtype))
