r"""Reaction and diffusion of one or several species in a periodic box.

.. math:: \partial_t u_i = D_i \Delta u_i + R_i(u_1, \dots, u_S)

``allen_cahn``, one species in two phases, :math:`R = r (u - u^3)`: :math:`u = \pm 1` are at rest, and so is the
interface :math:`\tanh(x / \sqrt{2 D / r})` between them on an infinite line. The equation descends the free energy
:math:`\int \frac{D}{2} |\nabla u|^2 + \frac{r}{4} (1 - u^2)^2`.

``gray_scott``, two species, u feeds v: :math:`R_u = -u v^2 + f (1 - u)`, :math:`R_v = u v^2 - (f + k) v`.

Reactions with products of three factors need more room than the 2/3 rule: series are kept for :math:`|m| < n/4`, so
that cubic reactions are free of aliasing.

References:
    Allen and Cahn, A microscopic theory for antiphase boundary motion, Acta Metallurgica 27, 1979. Pearson, Complex
    patterns in a simple system, Science 261, 1993 (Gray and Scott's model and its parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scidiff.solvers.periodic import Periodic

__all__ = ["ReactionDiffusion", "allen_cahn", "gray_scott"]

Reaction = Callable[[Tensor], Tensor]


class ReactionDiffusion(Periodic):
    r"""The equation for truncated Fourier series ``w``: (..., \*series) for one species, (..., S, \*series) for S.

    Arguments:
        grid: Points along each axis, at least 8.
        diffusivities: :math:`D_i`, one for each species; not negative.
        reaction: :math:`R`, fields (B, S, \*grid) to the same shape, point by point; without the axis of species if
            there is one.
        rate: The fastest rate of the reaction in a state: fields to numbers (B,); a bound on :math:`|\partial R|`.
        lengths: Sides of the box; by default :math:`2 \pi`.
        dtype: Real type.
        device: Where constants are kept.
    """

    def __init__(
        self,
        grid: Sequence[int],
        diffusivities: Sequence[float],
        reaction: Reaction,
        rate: Reaction,
        lengths: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not grid or min(grid) < 8:
            raise ValueError(f"grid must have at least 8 points along every axis, got {tuple(grid)}.")
        if not diffusivities or not min(diffusivities) >= 0:
            raise ValueError(f"diffusivities must not be negative, got {tuple(diffusivities)}.")
        super().__init__(grid, lengths, dtype, device)
        for axis, n in enumerate(self.grid):
            number = self.k[axis] * (self.lengths[axis] / (2 * torch.pi))
            self.kept = self.kept * (4 * number.abs().round() < n).to(dtype)
        D = torch.tensor(list(diffusivities), dtype=dtype, device=device)
        self.linear = -D[0] * self.square if len(D) == 1 else -D.reshape(-1, *(1,) * len(self.grid)) * self.square
        self.reaction, self.rate = reaction, rate

    def change(self, w: Tensor) -> Tensor:
        """The reaction, truncated."""
        return self.transform(self.reaction(self.field(w)))

    def courant(self, w: Tensor, dt: float) -> Tensor:
        """The fastest rate of the reaction times the step, one per state."""
        return self.rate(self.field(w)) * dt


def allen_cahn(rate: float, dims: int) -> tuple[Reaction, Reaction]:
    r"""Reaction :math:`r (u - u^3)` and its fastest rate, for fields (..., \*grid) with ``dims`` axes."""
    over = tuple(range(-dims, 0))
    return lambda u: rate * (u - u**3), lambda u: rate * (3 * u.square() - 1).abs().clamp_min(1).amax(over)


def gray_scott(feed: float, kill: float, dims: int) -> tuple[Reaction, Reaction]:
    r"""Reaction of Gray and Scott and a bound on its fastest rate, for fields (..., 2, \*grid)."""
    over = tuple(range(-dims, 0))

    def reaction(x: Tensor) -> Tensor:
        u, v = x.unbind(-dims - 1)
        made = u * v.square()
        return torch.stack([feed * (1 - u) - made, made - (feed + kill) * v], -dims - 1)

    def rate(x: Tensor) -> Tensor:
        u, v = x.unbind(-dims - 1)
        first = v.square() + feed + 2 * (u * v).abs()
        second = v.square() + (2 * u * v - feed - kill).abs()
        return torch.maximum(first, second).amax(over)

    return reaction, rate
