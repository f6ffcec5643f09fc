r"""A flow seen at 3 % of its points at one time: what was it before, what will it be?

.. math:: \partial_t \omega + v \cdot \nabla \omega = \nu \Delta \omega
          + \tfrac{1}{10}\big(\sin 2\pi(x + y) + \cos 2\pi(x + y)\big), \qquad \nu = 10^{-3},

in the periodic unit box. The vorticity at time 0 is Gaussian, :math:`\omega_0 \sim N(0, C)`,
:math:`C = 2 \tau^{2\alpha - 2} (-\Delta + \tau^2)^{-\alpha}` without the mean, :math:`\alpha = 2.5, \tau = 7`: a
standard deviation of 0.26 per second, so that eddies turn by a fraction of a turn until :math:`T = 1`.

*Inverse*: :math:`\omega(T)` is seen and :math:`\omega_0` asked for. Viscosity has damped waves shorter than an eighth
of the box to less than a tenth, and the flow has moved them. *Forward*: :math:`\omega_0` is seen and
:math:`\omega(T)` asked for; the posterior of :math:`\omega_0` is Gaussian and known (`NavierStokesForward.exact`), that
of :math:`\omega(T)` is its image. In both problems the unknown, and what samplers draw, is :math:`\omega_0`.

Simulated cases come from a grid twice as fine (see `scidiff.problems.navier_stokes`). What it adds at the sensors
counts as noise: the error of the coarse solver at time T, waves that the coarse grid does not hold at time 0.

References:
    DiffusionPDE: Generative PDE-Solving Under Partial Observation (Huang et al., 2024), arXiv:2406.17763 (grid 128x128,
    500 points without noise). Fourier Neural Operator for Parametric Partial Differential Equations (Li et al., 2020),
    arXiv:2010.08895 (equation and law).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.inference import Ensemble
from scidiff.linalg import laplacian_power
from scidiff.metrics import coverage, crps, spread_skill
from scidiff.operators import Mask
from scidiff.operators.pde import NavierStokes
from scidiff.priors import GaussianPrior, Kriging
from scidiff.problems.base import Case, samples_of, stream
from scidiff.problems.flow_baselines import most_probable
from scidiff.problems.imaging import tensor
from scidiff.problems.navier_stokes import COURANT, FINER, NavierStokesInitial, lowered
from scidiff.protocols import Operator, Prior

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["NavierStokesForward", "NavierStokesInverse"]

POINTS = {64: 123, 128: 500}
"""Points of the published settings; other grids take 3 %."""
DRAWS = 64
"""Draws whose images give the best mean of the vorticity at time T."""


def stirring(grid: Sequence[int], amplitude: float = 0.1) -> Tensor:
    r"""The forcing :math:`A (\sin 2\pi(x + y) + \cos 2\pi(x + y))` on a grid of the unit box, (H, W) in float64."""
    y, x = (torch.arange(n, dtype=torch.float64) / n for n in grid)
    phase = 2 * math.pi * (y[:, None] + x)
    return amplitude * (phase.sin() + phase.cos())


class NavierStokesInverse(NavierStokesInitial):
    r"""Initial vorticity (y, x) from the vorticity at a few points at a later time; see the module for the setting.

    An observation is a field (observed_y, observed_x) on the whole grid, NaN where there is no sensor.

    Arguments:
        size: Points along a side of the box, at least 16.
        points: Sensors; by default 123 of 64x64, 500 of 128x128, else 3 %. They are drawn once per problem.
        noise: Standard deviation of the noise over that of the vorticity at time 0, 0 for none; used where the
            observation does not carry ``noise_std``, the standard deviation of all errors.
        model_error: Error of the grid in s-1; None measures it.
        viscosity: :math:`\nu`.
        time: T.
        alpha, tau: Of the law of the vorticity at time 0.
        prior: A prior of fields (1, H, W) in s-1, the name of a bundled one or a file; None takes the law.
        iterations: Of the baseline 4D-Var.
        seed: Of the sensors and of the simulated cases.
    """

    name, side = "navier-stokes-inverse", 1.0
    default_sampler = "mmps"

    def __init__(
        self,
        size: int = 64,
        points: int | None = None,
        noise: float = 1e-3,
        model_error: float | None = None,
        viscosity: float = 1e-3,
        time: float = 1.0,
        alpha: float = 2.5,
        tau: float = 7.0,
        prior: str | os.PathLike[str] | Prior | None = None,
        iterations: int = 60,
        seed: int = 0,
    ) -> None:
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        count = POINTS.get(size, max(1, round(0.03 * size**2))) if points is None else points
        if not 1 <= count <= size**2:
            raise ValueError(f"points must lie between 1 and size^2 = {size**2}, got {count}.")
        if not viscosity > 0:
            raise ValueError(f"viscosity must be positive, got {viscosity}.")
        self.size, self.points, self.alpha, self.tau = size, count, float(alpha), float(tau)
        std = self.law((size, size)).variance.mean().sqrt()
        super().__init__(
            (size, size), 1, noise * float(std), model_error, 1 / viscosity, time, 1, float(std), None, prior,
            iterations, seed,
        )  # fmt: skip
        self.arguments = arguments

    def law(self, shape: Sequence[int]) -> GaussianPrior:
        """The law of the vorticity at time 0; the same, point by point, on every grid."""
        cov = laplacian_power(shape, self.alpha, self.tau, "periodic", channels=1, constant=False)
        return GaussianPrior(torch.zeros(1, *shape), cov.scaled(2 * self.tau ** (2 * self.alpha - 2)))

    def flow(self, grid: Sequence[int], courant: float = COURANT, steps: int | None = None) -> NavierStokes:
        """The flow map on a grid of the unit box."""
        return NavierStokes(
            grid, self.reynolds, self.time, steps, forcing=stirring(grid), side=self.side, courant=courant
        )

    # Data

    def sampled(self, observation: xr.Dataset) -> xr.Dataset:
        """The same at the problem's sensors; NaN elsewhere."""
        values = observation[self.measured]
        count = max(1, round(self.points / self.size**2 * values.size))
        seen = np.zeros(values.size, bool)
        seen[torch.randperm(values.size, generator=stream("sensors", self.seed))[:count].numpy()] = True
        return observation.assign({self.measured: values.where(seen.reshape(values.shape))})

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """An observation of a given field, on its own grid."""
        return self.sampled(super().observe(truth, generator))

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A flow on the fine grid: the truth has ``vorticity`` at time 0 and ``end_vorticity`` at time T."""
        import xarray as xr

        generator = stream(self.name, self.seed, index) if generator is None else generator
        start, later = self.flows(generator)
        fields = {"vorticity": start, "end_vorticity": later}
        y = self.watched(start, later)[0, 0, ::FINER, ::FINER]
        y = y + float(self.noise or 0) * torch.randn(y.shape, generator=generator, dtype=torch.float64)
        observation = self.sampled(self.with_measurement(self._setting(self.shape), y.float().numpy()))
        observation.attrs["simulated"] = f"on a grid of {start.shape[-2]} x {start.shape[-1]}, twice as fine"
        coords = self.field_coords(observation)
        truth = {
            name: (self.dims, lowered(x[0, 0], self.shape).float().numpy(), {"units": self.units, "long_name": text})
            for (name, x), text in zip(fields.items(), (self.long_name, "vorticity at time T"), strict=True)
        }
        return Case(xr.Dataset(truth, coords), observation)

    def watched(self, start: Tensor, later: Tensor) -> Tensor:
        """The field that the sensors are in."""
        return later

    # Comparisons

    def interpolation(self, observation: xr.Dataset) -> Kriging:
        """The posterior of the field that the sensors are in, if the law were its law and not that of time 0."""
        seen, std = self.seen(observation), tensor(observation["noise_std"])
        at = seen.flatten().nonzero()[:, 0]
        std = std.flatten()[at] if std.ndim else std
        return Kriging(self.law(self.grid(observation)), at, std, self.measurement(observation))

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        """``no_dynamics``, the data interpolated (kriging), and ``4dvar``, the most probable field under the law."""
        law = self.law(self.grid(observation))
        return {
            "no_dynamics": self._spread(observation),
            "4dvar": most_probable(law.cov, operator, self.noise_of(observation), y, self.iterations),
        }

    def _spread(self, observation: xr.Dataset) -> Tensor:
        return self.interpolation(observation).mean[None].float()


class NavierStokesForward(NavierStokesInverse):
    """Vorticity at time T from that at a few points at time 0; arguments and setting as of `NavierStokesInverse`.

    Members are vorticity at time 0. Scores are those of their images at time T; those of the members themselves have
    names that end in ``_initial``.
    """

    name = "navier-stokes-forward"
    measured, measured_long_name = "early_vorticity", "vorticity at time 0 where there is a sensor"

    @property
    def model_error(self) -> float:  # type: ignore[override]
        """Waves that the grid does not hold are seen too: the root of their variance."""
        if self._model_error is not None:
            return float(self._model_error)
        fine = self.law((FINER * self.size, FINER * self.size))
        return math.sqrt(float(fine.variance.mean()) - self.std**2)

    def watched(self, start: Tensor, later: Tensor) -> Tensor:
        return start

    def operator(self, observation: xr.Dataset) -> Operator:
        """The values at the sensors, (B, 1, n)."""
        return Mask(self.seen(observation))

    def exact(self, observation: xr.Dataset) -> Kriging:
        """The posterior of the vorticity at time 0 under the law, in closed form."""
        return self.interpolation(observation)

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        """``kriging``, the exact posterior mean of the vorticity at time 0."""
        return {"kriging": self._spread(observation)}

    def later(self, samples: Tensor) -> Tensor:
        """Members (M, 1, 1, H, W) at time T."""
        with torch.no_grad():
            return self.flow(samples.shape[-2:])(samples.flatten(0, 1))[:, None]

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset | None = None) -> xr.Dataset:
        r"""Scores of the images at time T, and ``_initial`` ones of the members.

        With the result of `scidiff.reconstruct` also ``relative_l2_bayes``, the error of the mean image of exact draws.
        """
        scores = super().evaluate(ensemble, truth)
        if truth is None:
            return scores
        scores = scores.rename({k: f"{k}_initial" for k in scores if k != "chi2"})
        start = tensor(self.truth_array(truth))[None, None]
        x = tensor(truth["end_vorticity"])[None, None] if "end_vorticity" in truth else self.later(start[None])[0]
        members = self.later(samples_of(ensemble, self.field, tuple(start.shape[1:])))
        found = self.image_scores(members.mean(0), x)
        if len(members) > 1:
            found["crps"] = float(crps(members, x).mean())
            found["spread_skill"] = float(spread_skill(members, x))
            found["coverage_90"] = float(coverage(members, x, 0.9))
        if not isinstance(ensemble, Ensemble) and self.measured in ensemble:
            draws = self.exact(ensemble).sample(DRAWS, stream("bayes", self.seed))
            best = self.later(draws[:, None]).mean(0)
            found["relative_l2_bayes"] = float((best - x).norm() / x.norm())
        return scores.assign({k: ((), v) for k, v in found.items()})
