r"""Darcy's flow: the pressure of a fluid that seeps through a medium of given permeability.

The equation, its finite volumes and its gradient are those of `scidiff.solvers.darcy`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra
from scidiff.solvers.darcy import divergence, pressure
from scidiff.solvers.laplace import BoxLaplacian

__all__ = ["Darcy"]


class Darcy(Algebra):
    r"""Solves :math:`-\nabla \cdot (a \nabla u) = f` in a box, :math:`u = 0` on the walls: maps ``a`` to ``u``.

    Nonlinear; differentiable by the adjoint method, one more solve. Permeability and pressure live at the centres of
    the same cells, (B, \*R, \*grid).

    Arguments:
        grid: Cells along each axis.
        source: :math:`f`, a number or a field (\*grid). Units of a times u over length squared.
        lengths: Sides of the box; 1 by default.
        rtol: Norm of the equation's residual over that of the source, at most; None takes 1e-11 in double and 1e-6 in
            single precision.

    Raises:
        ValueError: In the constructor: a side that is not positive, a source of another shape or not finite. In a
            call: a field of another shape, or one that is not positive.
        NumericalError: In a call: the accuracy is not reached, where the permeability ranges over many decades.
    """

    def __init__(
        self,
        grid: Sequence[int],
        source: float | Tensor = 1.0,
        lengths: Sequence[float] | None = None,
        rtol: float | None = None,
    ) -> None:
        self.grid = tuple(int(n) for n in grid)
        self.lengths = tuple(1.0 for _ in self.grid) if lengths is None else tuple(float(length) for length in lengths)
        if not self.grid or min(self.grid) < 1:
            raise ValueError(f"grid must name at least one cell along every axis, got {self.grid}.")
        if len(self.lengths) != len(self.grid) or not min(self.lengths) > 0:
            raise ValueError(f"lengths must be {len(self.grid)} positive numbers, got {self.lengths}.")
        self.source = torch.as_tensor(source, dtype=torch.float64).detach()
        if self.source.ndim and tuple(self.source.shape) != self.grid:
            raise ValueError(f"the source has shape {tuple(self.source.shape)}, expected a number or {self.grid}.")
        if not bool(torch.isfinite(self.source).all()):
            raise ValueError("the source holds NaN or infinite values.")
        if rtol is not None and not 0 < rtol < 1:
            raise ValueError(f"rtol must lie between 0 and 1, got {rtol}.")
        self.rtol = rtol
        self._laplacian = BoxLaplacian(self.grid, self.lengths)

    def _check(self, x: Tensor, what: str) -> None:
        if x.ndim <= len(self.grid) or tuple(x.shape[-len(self.grid) :]) != self.grid or not x.is_floating_point():
            raise ValueError(
                f"the {what} has shape {tuple(x.shape)} and type {x.dtype}, expected real numbers "
                f"(B, ..., {', '.join(map(str, self.grid))})."
            )

    def __call__(self, a: Tensor) -> Tensor:
        r"""The pressure ``u`` of the permeability ``a``, both (B, \*R, \*grid)."""
        self._check(a, "permeability")
        rtol = self.rtol or (1e-11 if a.dtype == torch.float64 else 1e-6)
        rows = a.reshape(-1, *self.grid)
        source = self.source.to(a).expand(rows.shape)
        return pressure(rows, source, self._laplacian, rtol).reshape(a.shape)

    def residual(self, a: Tensor, u: Tensor) -> Tensor:
        r""":math:`-\nabla \cdot (a \nabla u) - f`, in the units of f; zero for ``u = operator(a)``."""
        self._check(a, "permeability")
        self._check(u, "pressure")
        return divergence(a, u, self.lengths) - self.source.to(u)
