r"""SIRT, the simultaneous algebraic reconstruction of tomography.

.. math:: x \leftarrow x + \lambda\, C A' R\, (y - A x), \qquad R = 1 / (A 1), \quad C = 1 / (A' 1)

with row and column sums of the (nonnegative) operator. The iteration descends on :math:`\|R^{1/2}(y - A x)\|^2` for
:math:`0 < \lambda < 2`; stopped early, it regularises. Filtered backprojection is a method of the operators, total
variation `scidiff.problems.baselines.total_variation`.

References:
    Simultaneous iterative methods for large problems: on convergence of SIRT, see Convergence studies on iterative
    algorithms for image reconstruction. Jiang and Wang, 2003, IEEE Trans. Med. Imaging 22.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scidiff.protocols import LinearOperator

__all__ = ["sirt"]


def sirt(
    operator: LinearOperator,
    y: Tensor,
    iterations: int = 200,
    relaxation: float = 1.0,
    nonnegative: bool = False,
    start: Tensor | None = None,
) -> Tensor:
    r"""Simultaneous algebraic reconstruction, (B, \*X); rows of the batch are independent.

    Arguments:
        operator: Linear, with ``adjoint``, and without negative weights.
        y: Measurement (B, \*Y).
        iterations: Number of iterations.
        relaxation: :math:`\lambda`, in (0, 2).
        nonnegative: Whether negative entries are set to zero after every iteration.
        start: First guess (B, \*X); zero by default.

    Raises:
        ValueError: if the relaxation is out of range, or the operator has negative row or column sums.
    """
    if not 0 < relaxation < 2:
        raise ValueError(f"relaxation must lie in (0, 2) for SIRT to converge, got {relaxation}.")
    columns = operator.adjoint(torch.ones_like(y[:1]))
    rows = operator(torch.ones_like(columns))
    if bool((rows < 0).any()) or bool((columns < 0).any()):
        raise ValueError("SIRT needs an operator without negative weights; use least_squares instead.")
    # Rays beside the field and pixels that no ray meets say nothing: leave them alone.
    R, C = (torch.where(sums > 0, 1 / sums, 0.0) for sums in (rows, columns))
    x = torch.zeros_like(columns).expand(len(y), *columns.shape[1:]) if start is None else start
    for _ in range(iterations):
        x = x + relaxation * C * operator.adjoint(R * (y - operator(x)))
        x = x.clamp(min=0) if nonnegative else x
    return x
