r"""Flow maps of reaction and diffusion: species at time 0 to species at later times.

The equations and their Fourier series are those of `scidiff.solvers.reaction_diffusion`. Diffusion is exact; reactions
are stepped with exponential time differences of fourth order, which keep states at rest, stable up to a fastest rate
times the step of about 2.7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from scidiff.operators.pde.flow_map import FlowMap
from scidiff.operators.units import magnitude
from scidiff.solvers.reaction_diffusion import ReactionDiffusion as Equation
from scidiff.solvers.reaction_diffusion import allen_cahn, gray_scott

__all__ = ["AllenCahn", "GrayScott", "ReactionDiffusion"]


class ReactionDiffusion(FlowMap):
    r"""Maps species (B, S, \*grid) at time 0 to (B, T, S, \*grid) at T later times; one species to (B, T, \*grid).

    .. math:: \partial_t u_i = D_i \Delta u_i + R_i(u_1, \dots, u_S)

    Arguments:
        grid: Points along each axis of the periodic box, at least 8.
        diffusivities: :math:`D_i` in m2/s, or pint; not negative.
        reaction: :math:`R`, a differentiable function of torch tensors (B, S, \*grid), or (B, \*grid) for one species.
        rate: Its fastest rate in a state, in 1/s: a function of the same tensors to (B,), or a number.
        times: Observation times in s, increasing, positive; a number stands for one time.
        lengths: Sides of the box in m; 1 by default.
        steps: As in `FlowMap`: by default each field gets as many time steps as it needs.
        courant: Fastest rate times the step, at most 2; the error falls with its fourth power.
        scheme: ``"etdrk4"`` or ``"ifrk4"``.
        segments: Of gradient checkpointing, see `scidiff.solvers.advance`.

    Raises:
        ValueError: times that do not increase, too few steps, a negative diffusivity or rate.
        NumericalError: in a call, if the fixed time step is too long for the reaction (rate times step above 2.7).
    """

    limit, longest = 2.7, 2.0
    crossed = "the reaction has {:.3g} times its fastest time"
    fields = "species"

    def __init__(
        self,
        grid: Sequence[int],
        diffusivities: Sequence[Any],
        reaction: Callable[[Tensor], Tensor],
        rate: Callable[[Tensor], Tensor] | float,
        times: Any = 1.0,
        lengths: Sequence[Any] | None = None,
        steps: int | None = None,
        courant: float = 0.25,
        scheme: str = "etdrk4",
        segments: int | None = None,
    ) -> None:
        self.diffusivities = tuple(float(magnitude(D, "m**2/s", "diffusivities")) for D in diffusivities)
        self.components = len(self.diffusivities)
        self.lengths = tuple(
            float(magnitude(v, "m", "lengths")) for v in ([1.0] * len(grid) if lengths is None else lengths)
        )
        self.reaction = reaction
        self.rate = rate if callable(rate) else lambda x: x.new_full((len(x),), float(rate))  # type: ignore[arg-type]
        super().__init__(grid, times, steps, courant, scheme, segments)

    def _equation(self, dtype: torch.dtype, device: torch.device | str) -> Equation:
        return Equation(self.grid, self.diffusivities, self.reaction, self.rate, self.lengths, dtype, device)


class AllenCahn(ReactionDiffusion):
    r"""Maps the phase (B, 1, \*grid) at time 0 to (B, T, \*grid): :math:`\partial_t u = D \Delta u + r (u - u^3)`.

    Arguments:
        grid: Points along each axis of the periodic box, at least 8.
        diffusivity: :math:`D` in m2/s; interfaces are :math:`\sqrt{2 D / r}` wide.
        rate: :math:`r` in 1/s, positive.
        times, lengths, steps, courant, scheme, segments: As in `ReactionDiffusion`.
    """

    fields = "phases"

    def __init__(
        self,
        grid: Sequence[int],
        diffusivity: Any = 1e-3,
        rate: Any = 1.0,
        times: Any = 1.0,
        lengths: Sequence[Any] | None = None,
        steps: int | None = None,
        courant: float = 0.25,
        scheme: str = "etdrk4",
        segments: int | None = None,
    ) -> None:
        r = float(magnitude(rate, "1/s", "rate"))
        if not r > 0:
            raise ValueError(f"rate must be positive, got {r}.")
        super().__init__(
            grid, (diffusivity,), *allen_cahn(r, len(grid)), times, lengths, steps, courant, scheme, segments
        )


class GrayScott(ReactionDiffusion):
    r"""Maps two species (B, 2, \*grid) at time 0 to (B, T, 2, \*grid).

    .. math:: \partial_t u = D_u \Delta u - u v^2 + f (1 - u), \qquad \partial_t v = D_v \Delta v + u v^2 - (f + k) v

    Arguments:
        grid: Points along each axis of the periodic box, at least 8.
        diffusivities: :math:`(D_u, D_v)`.
        feed: :math:`f`, not negative.
        kill: :math:`k`, not negative.
        times, lengths, steps, courant, scheme, segments: As in `ReactionDiffusion`; sides are 2.5 by default.
    """

    def __init__(
        self,
        grid: Sequence[int],
        diffusivities: tuple[Any, Any] = (2e-5, 1e-5),
        feed: Any = 0.04,
        kill: Any = 0.06,
        times: Any = 1000.0,
        lengths: Sequence[Any] | None = None,
        steps: int | None = None,
        courant: float = 0.25,
        scheme: str = "etdrk4",
        segments: int | None = None,
    ) -> None:
        f, k = float(magnitude(feed, "1/s", "feed")), float(magnitude(kill, "1/s", "kill"))
        if not (f >= 0 and k >= 0) or len(diffusivities) != 2:
            raise ValueError(f"expected two diffusivities, feed and kill >= 0, got {diffusivities}, {f} and {k}.")
        lengths = [2.5] * len(grid) if lengths is None else lengths
        super().__init__(
            grid, diffusivities, *gray_scott(f, k, len(grid)), times, lengths, steps, courant, scheme, segments
        )
