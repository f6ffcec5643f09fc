r"""Every n-th point of a grid, :math:`A(x)_i = x_{o + n i}` along each axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra

__all__ = ["Subsampling"]


class Subsampling(Algebra):
    r"""Observes every n-th point along the last axes, (B, \*R, \*grid) to (B, \*R, \*coarse).

    Arguments:
        step: :math:`n`, for all axes or one per axis.
        grid: Sides of the grid, the last axes of a field; they need not be multiples of the step.
        offset: First observed point :math:`o` along each axis, 0 to n - 1.

    Raises:
        ValueError: a step below 1 or beyond a side, an offset that is not below its step.
    """

    rows_orthonormal = True

    def __init__(self, step: int | Sequence[int], grid: Sequence[int], offset: int | Sequence[int] = 0) -> None:
        self.grid = tuple(int(n) for n in grid)
        self.step, self.offset = _each(step, self.grid, "step"), _each(offset, self.grid, "offset")
        for n, o, side in zip(self.step, self.offset, self.grid, strict=True):
            if not (1 <= n <= side and 0 <= o < n):
                raise ValueError(
                    f"step {self.step} and offset {self.offset} do not fit the grid {self.grid}: steps run from 1 to a "
                    "side, offsets from 0 to below their step."
                )
        self._place = (..., *(slice(o, None, n) for n, o in zip(self.step, self.offset, strict=True)))

    @property
    def coarse(self) -> tuple[int, ...]:
        """Observed points along each axis."""
        return tuple(-(-(side - o) // n) for side, n, o in zip(self.grid, self.step, self.offset, strict=True))

    def __call__(self, x: Tensor) -> Tensor:
        self._expect(x, self.grid, "a field")
        return x[self._place].clone()

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Zero between the observed points, (B, \*R, \*grid)."""
        self._expect(y, self.coarse, "a measurement")
        x = y.new_zeros(*y.shape[: y.ndim - len(self.grid)], *self.grid)
        x[self._place] = y
        return x

    def svd(self) -> SVD:
        """Observed entries are their own coefficients; all singular values are 1."""
        same = Frame(lambda c: c, lambda y: y)
        return SVD(same, torch.ones(()), Frame(self.adjoint, self.__call__))

    @staticmethod
    def _expect(x: Tensor, sides: tuple[int, ...], what: str) -> None:
        if x.ndim <= len(sides) or tuple(x.shape[-len(sides) :]) != sides:
            raise ValueError(f"expected {what} (B, ..., {', '.join(map(str, sides))}), got {tuple(x.shape)}.")


def _each(value: int | Sequence[int], grid: tuple[int, ...], name: str) -> tuple[int, ...]:
    found = (int(value),) * len(grid) if isinstance(value, int) else tuple(int(v) for v in value)
    if len(found) != len(grid):
        raise ValueError(f"{name} must be one number or one per axis, {len(grid)}, got {len(found)}.")
    return found
