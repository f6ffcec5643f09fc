r"""Coarse observation of a fine field (super-resolution), one small matrix per axis.

:math:`A = M_1 \otimes \dots \otimes M_d`. With :math:`M_i = U_i\,\mathrm{diag}(s_i)\,V_i^\top` its decomposition is
:math:`U = \bigotimes U_i`, :math:`s = \bigotimes s_i`, :math:`V = \bigotimes V_i`: no matrix is larger than a side of
the grid.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra
from scidiff.operators.antialias import FILTERS, antialias

__all__ = ["Downsampling"]

Kernel = Literal["box", "bicubic", "lanczos", "gaussian"]
Boundary = Literal["mirror", "periodic", "valid"]


class Downsampling(Algebra):
    r"""Weighted means over blocks of ``factor`` entries along each axis.

    Coarse entry j of an axis sees the fine entries under the kernel, whose centre lies on the centre of block j. With
    weights that sum to 1, constant fields keep their value whatever the boundary.

    Fields are (B, \*R, \*grid), measurements (B, \*R, \*coarse).

    Arguments:
        factor: How many fine entries make a coarse one; one number or one per axis.
        grid: Sides n of the fine grid, each divisible by its factor f (n minus the overhang, for "valid").
        kernel: "box" is the mean over the block; "bicubic", "lanczos" and "gaussian" are antialiasing filters, see
            `scidiff.operators.antialias`. A vector of weights, the same along every axis, is a filter of your own:
            used as given (let it sum to 1), of a length with the parity of every factor.
        boundary: What filters wider than a block see beyond the border: the "mirror" image of the field, its
            "periodic" continuation, or, for "valid", more of the field: with k weights the grid overhangs the blocks
            by (k - f) / 2 on each side, and coarse sides are (n - k) / f + 1.

    Raises:
        ValueError: if sizes do not fit; the message says which.
    """

    def __init__(
        self,
        factor: int | Sequence[int],
        grid: Sequence[int],
        kernel: Kernel | Tensor = "box",
        boundary: Boundary = "mirror",
    ) -> None:
        self.grid = tuple(int(n) for n in grid)
        self.factor = (factor,) * len(self.grid) if isinstance(factor, int) else tuple(factor)
        if not self.grid or len(self.factor) != len(self.grid):
            raise ValueError(f"got {len(self.factor)} factors for a grid {self.grid}; give one per axis.")
        for f, n in zip(self.factor, self.grid, strict=True):
            if f < 1 or (boundary != "valid" and n % f):
                raise ValueError(f"a side of {n} entries cannot be divided into blocks of {f}; crop or pad the field.")
        self.kernel, self.boundary = kernel, boundary
        self.matrices = [axis_matrix(f, n, kernel, boundary) for f, n in zip(self.factor, self.grid, strict=True)]

    def __repr__(self) -> str:
        kernel = repr(self.kernel) if isinstance(self.kernel, str) else f"{len(self.kernel)} weights"
        return f"Downsampling({self.factor}, grid={self.grid}, kernel={kernel})"

    @property
    def coarse(self) -> tuple[int, ...]:
        """Sides of the coarse grid."""
        return tuple(len(m) for m in self.matrices)

    def __call__(self, x: Tensor) -> Tensor:
        return along(x, self.matrices, "a field")

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Spreads each coarse entry over what it sees, (B, \*R, \*grid)."""
        return along(y, [m.mT for m in self.matrices], "a measurement")

    def svd(self) -> SVD:
        r"""Coefficients (B, \*R, \*coarse); singular values are products over axes."""
        factors = [torch.linalg.svd(m, full_matrices=False) for m in self.matrices]
        s = functools.reduce(lambda a, b: a[..., None] * b, [f.S for f in factors])
        u, vt = [f.U for f in factors], [f.Vh for f in factors]

        def frame(columns: list[Tensor]) -> Frame:
            rows = [c.mT for c in columns]
            return Frame(lambda c: along(c, columns, "a coefficient"), lambda x: along(x, rows, "a field"))

        return SVD(frame(u), s, frame([v.mT for v in vt]))


def axis_matrix(factor: int, side: int, kernel: Kernel | Tensor, boundary: Boundary = "mirror") -> Tensor:
    """The matrix (coarse side, side) of one axis, in float64."""
    if boundary not in ("mirror", "periodic", "valid"):
        raise ValueError(f"boundary must be 'mirror', 'periodic' or 'valid', got {boundary!r}.")
    if isinstance(kernel, str):
        if kernel not in FILTERS:
            raise ValueError(f"kernel must be one of {', '.join(FILTERS)} or a vector of weights, got {kernel!r}.")
        kernel = antialias(factor, kernel)
    if kernel.ndim != 1 or kernel.is_complex() or not 1 <= len(kernel) <= side:
        raise ValueError(f"kernel must be a real vector of 1 to {side} weights, got shape {tuple(kernel.shape)}.")
    if (len(kernel) - factor) % 2:
        raise ValueError(
            f"a kernel of {len(kernel)} weights has no centre on blocks of {factor}: both must be odd or both even."
        )
    weights = kernel.detach().to(torch.float64)
    reach = (len(kernel) - factor) // 2
    if boundary == "valid":
        if (side - len(kernel)) % factor:
            raise ValueError(
                f"with {len(kernel)} weights and boundary='valid' a side is a multiple of {factor} plus {2 * reach}, "
                f"got {side}."
            )
        n, reach = (side - len(kernel)) // factor + 1, 0
    else:
        n = side // factor
    i = torch.arange(n, device=weights.device)[:, None] * factor - reach + torch.arange(len(kernel)).to(weights.device)
    if boundary == "periodic":
        i = i % side
    else:
        i = i % (2 * side)
        i = torch.minimum(i, 2 * side - 1 - i)  # mirror, the border entry repeated
    return weights.new_zeros(n, side).scatter_add_(1, i, weights.expand(n, -1))


def along(x: Tensor, matrices: Sequence[Tensor], what: str) -> Tensor:
    """Applies one matrix along each of the last axes."""
    expected = tuple(m.shape[1] for m in matrices)
    if x.ndim <= len(matrices) or tuple(x.shape[-len(matrices) :]) != expected:
        raise ValueError(f"expected {what} (B, ..., {', '.join(map(str, expected))}), got {tuple(x.shape)}.")
    for axis, m in zip(range(-len(matrices), 0), matrices, strict=True):
        x = (x.movedim(axis, -1) @ m.to(x.device, x.dtype).mT).movedim(-1, axis)
    return x
