"""Covariances of fields in a box that are zero on its walls, diagonal in the sine basis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scidiff.linalg.cosine import Separable

__all__ = ["Sine", "sine_basis"]


def sine_basis(n: int) -> Tensor:
    r"""Orthonormal sines at cell centres, row k - 1 is :math:`c_k \sin(\pi k (i + 1/2) / n)`: (n, n), float64.

    :math:`c_n = \sqrt{1/n}`, the others :math:`\sqrt{2/n}`; known as the discrete sine transform of type II.
    """
    k, i = torch.arange(1, n + 1, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    basis = math.sqrt(2 / n) * torch.sin(math.pi * k * (i + 0.5) / n)
    basis[-1] /= math.sqrt(2)
    return basis


class Sine(Separable):
    r"""Covariance of fields that are zero on the walls of a box (Dirichlet), diagonal in sines of the cell centres.

    Arguments are those of `scidiff.linalg.cosine.Separable`; entry k of the spectrum belongs to the sines number k + 1.
    """

    basis = staticmethod(sine_basis)
