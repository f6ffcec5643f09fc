r"""Poisson's and Helmholtz' equation in a box, :math:`\Delta u + k^2 u = a` with :math:`u = 0` on the walls.

The field ``a`` and the solution ``u`` live at the centres of the same :math:`n_1 \times n_2 \times \dots` cells.
Second differences with :math:`u` mirrored with opposite sign at the walls have the eigenvectors

.. math:: \psi_k(i) \propto \sin\big(\pi k (i + 1/2) / n\big), \qquad
          \Delta_h \psi_k = -\Big(\frac{2}{h} \sin\frac{\pi k}{2 n}\Big)^2 \psi_k, \qquad k = 1, \dots, n,

per axis of n cells of width :math:`h = L/n`, so the discrete equation is solved exactly, to rounding, by one sine
transform (DST-II) there and one back. The solution is accurate to second order in h. The map from ``a`` to ``u`` is
symmetric: it is its own adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg.sine import sine_basis
from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra

__all__ = ["Helmholtz", "Poisson", "sine_basis"]


class Helmholtz(Algebra):
    r"""Solves :math:`\Delta u + k^2 u = a`, :math:`u = 0` on the walls of a box: maps ``a`` to ``u``.

    Arguments:
        grid: Cells :math:`n_i` along each axis; the last dimensions of a field (B, \*R, \*grid).
        wavenumber: :math:`k` in radians per unit of length; no eigenvalue of the Laplacian may be :math:`-k^2`.
        lengths: Sides :math:`L_i` of the box; 1 by default. ``a`` is in units of u over length squared.

    Raises:
        ValueError: if a side is not positive, or the wavenumber is that of a standing wave of the box.
    """

    def __init__(self, grid: Sequence[int], wavenumber: float = 1.0, lengths: Sequence[float] | None = None) -> None:
        self.grid = tuple(grid)
        self.lengths = tuple(1.0 for _ in self.grid) if lengths is None else tuple(lengths)
        self.wavenumber = float(wavenumber)
        if not self.grid or min(self.grid) < 1:
            raise ValueError(f"grid must name at least one cell along every axis, got {self.grid}.")
        if len(self.lengths) != len(self.grid) or not min(self.lengths) > 0:
            raise ValueError(f"lengths must be {len(self.grid)} positive numbers, got {self.lengths}.")
        axes = [
            -((2 * n / L * torch.sin(math.pi * torch.arange(1, n + 1, dtype=torch.float64) / (2 * n))) ** 2)
            for n, L in zip(self.grid, self.lengths, strict=True)
        ]
        laplace = torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0)
        self.eigenvalues = laplace + self.wavenumber**2
        """Of :math:`\\Delta + k^2`, (``*grid``), float64."""
        nearest = self.eigenvalues.flatten()[self.eigenvalues.abs().argmin()]
        if float(nearest.abs()) < 1e-9 * float(laplace.abs().max()):
            raise ValueError(
                f"the box has a standing wave of wavenumber {self.wavenumber}, so the equation has no unique solution; "
                "change the wavenumber or the sides."
            )
        self._bases = [sine_basis(n) for n in self.grid]

    def _check(self, a: Tensor) -> None:
        if a.ndim <= len(self.grid) or tuple(a.shape[-len(self.grid) :]) != self.grid:
            raise ValueError(f"the field has shape {tuple(a.shape)}, expected (B, ..., {str(self.grid)[1:-1]}).")

    def _transform(self, x: Tensor, transposed: bool) -> Tensor:
        for dim, basis in enumerate(self._bases, start=-len(self.grid)):
            matrix = basis.to(x.device, x.dtype)
            x = (x.movedim(dim, -1) @ (matrix if transposed else matrix.mT)).movedim(-1, dim)
        return x

    def _function(self, x: Tensor, values: Tensor) -> Tensor:
        self._check(x)
        return self._transform(values.to(x.device, x.dtype.to_real()) * self._transform(x, False), True)

    def __call__(self, a: Tensor) -> Tensor:
        r"""The solution ``u`` of the right-hand side ``a``, both (B, \*R, \*grid)."""
        return self._function(a, 1 / self.eigenvalues)

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def inverse(self, u: Tensor) -> Tensor:
        r""":math:`\Delta_h u + k^2 u`, by second differences: the right-hand side whose solution is ``u``."""
        self._check(u)
        total = self.wavenumber**2 * u
        for dim, (n, length) in enumerate(zip(self.grid, self.lengths, strict=True), start=-len(self.grid)):
            before = torch.cat([-u.narrow(dim, 0, 1), u.narrow(dim, 0, n - 1)], dim)
            after = torch.cat([u.narrow(dim, 1, n - 1), -u.narrow(dim, n - 1, 1)], dim)
            total = total + (before - 2 * u + after) * (n / length) ** 2
        return total

    def residual(self, a: Tensor, u: Tensor) -> Tensor:
        r""":math:`\Delta_h u + k^2 u - a`, in the units of ``a``; zero for ``u = operator(a)``."""
        return self.inverse(u) - a

    def svd(self) -> SVD:
        """Sines are the singular vectors; those of a negative eigenvalue change sign."""
        sign = self.eigenvalues.sign()

        def solution(c: Tensor) -> Tensor:
            return self._transform(sign.to(c) * c, True)

        def coefficients(u: Tensor) -> Tensor:
            return sign.to(u) * self._transform(u, False)

        V = Frame(lambda c: self._transform(c, True), lambda a: self._transform(a, False))
        return SVD(Frame(solution, coefficients), 1 / self.eigenvalues.abs(), V)


class Poisson(Helmholtz):
    r"""Solves :math:`\Delta u = a`, :math:`u = 0` on the walls of a box: maps ``a`` to ``u``.

    Arguments:
        grid: Cells along each axis; the last dimensions of a field (B, \*R, \*grid).
        lengths: Sides of the box; 1 by default. ``a`` is in units of u over length squared.
    """

    def __init__(self, grid: Sequence[int], lengths: Sequence[float] | None = None) -> None:
        super().__init__(grid, 0.0, lengths)
