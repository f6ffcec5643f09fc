r"""Coefficients and solutions of elliptic equations seen at 3 % of the points: which field is behind the few numbers?

====================  ===========================================  ==========================================
problem               equation in the unit box, u = 0 on the walls  law of a
====================  ===========================================  ==========================================
Poisson               :math:`\Delta u = a`                          :math:`N(0, (-\Delta + 9)^{-2})`
Helmholtz             :math:`\Delta u + u = a`                      the same
Darcy                 :math:`-\nabla \cdot (a \nabla u) = 1`        12 where such a field is positive, else 3
====================  ===========================================  ==========================================

*Inverse* problems show u and ask for a, *forward* problems show a and ask for u. Points are drawn once per problem (its
seed), the noise has a thousandth of the root mean square of the numbers seen. Gaussian fields have zero slope at the
walls, mean zero over the box and (by choice of units) mean variance one.

**State.** ``"a"``: the unknown is a, with its law as prior, and the solver is part of the forward model; for Poisson
and Helmholtz everything is Gaussian and the posterior known (`Elliptic.exact`). ``"pair"``: the unknown is the pair
(a, u) with a joint prior, such as a network that was trained on pairs and knows no equation; the forward model selects
points, and `Elliptic.with_residual` adds the equation as a second likelihood.

**Simulated truths** come from a grid with ``finer`` times the cells along each side, read at the centres of the cells
of the coarse one: discretisation errors are in the data.

References:
    DiffusionPDE: Generative PDE-Solving Under Partial Observation (Huang et al., 2024), arXiv:2406.17763 (the laws;
    grid 128x128, 500 points without noise).
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.linalg import laplacian_power
from scidiff.metrics import coverage, crps, spread_skill
from scidiff.noise import GaussianNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.operators.mask import Mask
from scidiff.priors import GaussianPrior, Kriging
from scidiff.problems.base import Case, samples_of, stream
from scidiff.problems.imaging import GridProblem, axes, tensor

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from scidiff.protocols import Operator, Prior

__all__ = ["Elliptic"]

POINTS = {64: 123, 128: 500}
"""Points of the published settings; other grids take 3 %."""
DRAWS = 128
"""Truths that the mean squared error of the exact posterior mean of a solution is averaged over."""


class Elliptic(GridProblem):
    """What the six problems share; see the module for the setting.

    Arguments:
        size: Cells along a side of the unit box.
        points: Points seen; by default 123 of 64x64, 500 of 128x128, else 3 %.
        noise: Standard deviation of the noise over the root mean square of the values seen.
        state: ``"a"`` (the solver is in the forward model) or ``"pair"`` (a joint prior of (a, u)).
        prior: Prior of the state, or its name; by default the law of a, or the bundled joint prior.
        alpha, tau: Of the law of a.
        constant: Whether the mean of the Gaussian field over the box varies; by default only for pairs of Poisson's
            equation, as the bundled prior has it.
        finer: Factor between the grid of simulated truths and this one, odd.
        seed: Of the points and of the simulated cases.
    """

    missing = True
    measured_long_name = "values seen, missing elsewhere"
    seen: ClassVar[Literal["a", "u"]]
    """The quantity that is measured; the other one is asked for."""
    names: ClassVar[dict[str, str]] = {"a": "source", "u": "solution"}
    bundled: ClassVar[str | None] = None
    """Name of a joint prior of pairs that comes with the package."""
    recommended: ClassVar[dict[str, dict[str, Any]]] = {"mmps": {"solver": "direct"}}
    """Parameters by name of the sampler: few numbers of smooth fields, a system that iterations solve slowly."""
    varying: ClassVar[bool] = True
    """Whether the mean over the box varies in the pairs that it was trained on."""

    def __init__(
        self,
        size: int = 64,
        points: int | None = None,
        noise: float = 1e-3,
        state: str = "a",
        prior: str | os.PathLike[str] | Prior | None = None,
        alpha: float = 2.0,
        tau: float = 3.0,
        constant: bool | None = None,
        finer: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), prior, None, seed)  # type: ignore[arg-type]
        count = POINTS.get(size, max(1, round(0.03 * size**2))) if points is None else points
        if size < 2 or not 1 <= count <= size**2:
            raise ValueError(f"expected size of 2 or more and 1 to size^2 points, got {size} and {count}.")
        if not 0 < noise < 1:
            raise ValueError(f"noise is a share of the root mean square of the values seen, in (0, 1), got {noise}.")
        if state not in ("a", "pair"):
            raise ValueError(f"state must be 'a' or 'pair', got {state!r}.")
        if finer < 1 or finer % 2 == 0:
            raise ValueError(f"finer must be odd, so that centres of cells stay centres, got {finer}.")
        self.size, self.points, self.relative, self.state, self.finer = size, count, noise, state, finer
        self.grid = (size, size)
        self.alpha, self.tau = alpha, tau
        self.constant = (state == "pair" and self.varying) if constant is None else constant
        self.asked: Literal["a", "u"] = "u" if self.seen == "a" else "a"
        self.field = state
        self.dims = ("y", "x") if state == "a" else ("quantity", "y", "x")
        self.long_name = self.names["a"] if state == "a" else f"{self.names['a']} and {self.names['u']}"
        self.solver = self.solver_of(self.grid)

    # What an equation says

    def solver_of(self, grid: tuple[int, int]) -> Any:
        """The operator from a to u on a grid, with ``residual``."""
        raise NotImplementedError

    def coefficient(self, g: Tensor) -> Tensor:
        """The field a of a Gaussian field."""
        return g

    def law(self) -> Prior:
        """The prior of a on the grid."""
        return self.gaussian(self.grid)

    # The law and its draws

    def gaussian(self, grid: tuple[int, int]) -> GaussianPrior:
        """The Gaussian field behind a; the same law, point by point, on every grid."""
        whole = laplacian_power(self.grid, self.alpha, self.tau, constant=self.constant)
        cov = laplacian_power(grid, self.alpha, self.tau, channels=1, constant=self.constant)
        return GaussianPrior(torch.zeros(1, *grid), cov.scaled(whole.size / whole.trace))

    @cached_property
    def prior(self) -> Prior:
        """The law of a, or the joint prior of pairs."""
        if self._prior is None:
            if self.state == "a":
                return self.law()
            if self.bundled is None:
                raise InputError(
                    f"there is no bundled joint prior for problem '{self.name}'; give prior=..., or state='a'."
                )
        chosen: Any = self.bundled if self._prior is None else self._prior
        if not isinstance(chosen, (str, os.PathLike)):
            return chosen
        from scidiff.priors.pretrained import load_pretrained

        return load_pretrained(chosen)

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A pair from the finer grid, with both quantities, and its observation."""
        generator = stream(self.name, self.seed, index) if generator is None else generator
        fine = (self.size * self.finer, self.size * self.finer)
        a = self.coefficient(self.gaussian(fine).sample(1, generator).double())
        u = self.solver_of(fine)(a)
        half = slice(self.finer // 2, None, self.finer)
        truth = self.pair_array(a[0, 0, half, half], u[0, 0, half, half])
        return Case(truth, self.observe(truth, generator))

    def pair_array(self, a: Tensor, u: Tensor) -> xr.Dataset:
        """A truth from its two fields (H, W)."""
        import xarray as xr

        coords = axes(("y", "x"), self.grid, 1 / self.size, "1", 0.5 / self.size)
        parts = {
            k: xr.DataArray(
                v.to(torch.float32).numpy(), coords, ("y", "x"), attrs={"units": "1", "long_name": self.names[k]}
            )
            for k, v in (("a", a), ("u", u))
        }
        data = xr.Dataset(parts)
        if self.state == "pair":
            both = np.stack([parts["a"].values, parts["u"].values])
            data = data.assign_coords(quantity=["a", "u"])
            data["pair"] = (self.dims, both, {"units": "1", "long_name": self.long_name})
        return data

    def quantity(self, truth: xr.Dataset, name: str) -> Tensor:
        """A quantity of a truth (1, 1, H, W); the solution is computed where the truth has only a."""
        if name in truth:
            return tensor(truth[name])[None, None].double()
        if "pair" in truth:
            return tensor(truth["pair"].sel(quantity=name))[None, None].double()
        if name == "u" and "a" in truth:
            return self.solver(tensor(truth["a"])[None, None].double())
        raise InputError(f"the truth has neither '{name}' nor 'pair', found {', '.join(map(str, truth.variables))}.")

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """Noisy values of the seen quantity at the problem's points; NaN elsewhere."""
        import xarray as xr

        values = self.quantity(truth, self.seen)[0, 0]
        if tuple(values.shape) != self.grid:
            raise InputError(f"the truth has shape {tuple(values.shape)}, but the problem's grid is {self.grid}.")
        places = torch.randperm(self.size**2, generator=stream("sensors", self.seed))[: self.points]
        std = self.relative * float(values.flatten()[places].square().mean().sqrt())
        seen = torch.full((self.size**2,), torch.nan, dtype=torch.float64)
        noise = torch.randn(self.points, generator=generator, dtype=torch.float64)
        seen[places] = values.flatten()[places] + std * noise
        coords = axes(("y", "x"), self.grid, 1 / self.size, "1", 0.5 / self.size)
        found = self.with_measurement(xr.Dataset(coords=coords), seen.reshape(self.grid).float().numpy())
        return self._with_noise(found, std)

    def _with_noise(self, observation: xr.Dataset, std: float) -> xr.Dataset:
        return observation.assign(noise_std=((), std, {"units": "1", "long_name": "standard deviation of the noise"}))

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        values = np.asarray(observation[self.measured].values)
        if values.shape != self.grid:
            raise InputError(f"{what}: '{self.measured}' has shape {values.shape}, the problem's grid is {self.grid}.")
        if "noise_std" not in observation:
            return self._with_noise(observation, self.relative * float(np.sqrt(np.nanmean(values**2))))
        std = np.asarray(observation["noise_std"].values)
        if std.ndim or not (np.isfinite(std) and std > 0):
            raise InputError(f"{what}: 'noise_std' must be one positive number, found {std}.")
        return observation

    # The posterior

    def places(self, observation: xr.Dataset) -> Tensor:
        """Indices of the points seen, (n,), in the flattened grid."""
        return torch.from_numpy(np.flatnonzero(np.isfinite(observation[self.measured].values)))

    def measurement(self, observation: xr.Dataset) -> Tensor:
        return tensor(observation[self.measured]).flatten()[self.places(observation)][None]

    def _mask(self, observation: xr.Dataset) -> Tensor:
        return torch.isfinite(tensor(observation[self.measured]))

    def operator(self, observation: xr.Dataset) -> Operator:
        """State ``"a"``: a (B, 1, H, W) to the values seen, (B, n). State ``"pair"``: (B, 2, H, W) to them."""
        seen = self._mask(observation)
        if self.state == "pair":
            nothing = torch.zeros_like(seen)
            pair = Mask(torch.stack([seen, nothing] if self.seen == "a" else [nothing, seen]))
            return pair
        return self.measuring(seen)

    def rows(self, places: Tensor) -> Tensor:
        """The measurement of a linear equation's source as a matrix (n, d), float64."""
        rows = torch.nn.functional.one_hot(places, self.size**2).double().reshape(-1, 1, *self.grid)
        return (self.solver.adjoint(rows) if self.seen == "u" else rows).flatten(1)

    def measuring(self, seen: Tensor) -> Operator:
        """From a (B, 1, H, W) to the values at the points of a boolean (H, W), (B, n)."""
        return LinearMap(self.rows(seen.flatten().nonzero()[:, 0]), (1, *self.grid))

    def posterior(self, observation: xr.Dataset) -> Posterior:
        prior, shape = self.prior, (1 if self.state == "a" else 2, *self.grid)
        if prior.shape is not None and tuple(prior.shape) != shape:
            raise InputError(f"the prior's states have shape {tuple(prior.shape)}, but this problem needs {shape}.")
        return Posterior(prior, self.likelihood(observation), shape)

    def with_residual(self, observation: xr.Dataset, std: float = 1e-2) -> Posterior:
        """The posterior of the pair with the equation as a second likelihood, for `DiffusionPDE`.

        Arguments:
            observation: Points seen.
            std: Standard deviation of the residual relative to the root mean square of the equation's right-hand side.
        """
        if self.state != "pair":
            raise ValueError("with state='a' the solver is in the forward model and leaves no residual; state='pair'.")
        found = self.posterior(observation)
        y = torch.zeros(1, 1, *self.grid, dtype=found.dtype)
        equation = Likelihood(self.residual, GaussianNoise(std), y)
        return Posterior(found.prior, (*found.likelihoods, equation), found.shape)

    def with_solver(self, observation: xr.Dataset) -> Posterior:
        """The posterior of the pair whose data are predicted from a alone, by the solver; of members, see `solved`.

        The joint prior then serves as one of a, and what it has not learned of the equation does no harm. For linear
        equations.
        """
        if self.state != "pair":
            raise ValueError("with state='a' the solver is in the forward model already; state='pair'.")
        found = self.posterior(observation)
        rows = self.rows(self.places(observation))
        both = LinearMap(torch.cat([rows, torch.zeros_like(rows)], 1).to(found.dtype), (2, *self.grid))
        part = found.likelihoods[0]
        return Posterior(found.prior, Likelihood(both, part.noise, part.y), found.shape)

    def solved(self, pairs: Tensor) -> Tensor:
        """Pairs (M, 2, H, W) with the solution of their a in the place of u."""
        a = pairs.reshape(-1, 2, *self.grid)[:, :1]
        return torch.cat([a, self.solver(a)], 1)

    def residual(self, pair: Tensor) -> Tensor:
        """Residual (B, 1, H, W) of the equation at pairs (B, 2, H, W), over the size of its right-hand side."""
        return self.solver.residual(pair[:, :1], pair[:, 1:])

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        found = axes(("y", "x"), self.grid, 1 / self.size, "1", 0.5 / self.size)
        return found if self.state == "a" else {"quantity": ["a", "u"], **found}

    def exact(self, observation: xr.Dataset) -> Kriging:
        """The posterior of a in closed form, a system of n equations.

        Raises:
            TypeError: Darcy's equation is not linear.
        """
        law = self.law()
        if not isinstance(law, GaussianPrior):
            raise TypeError(f"the posterior of '{self.name}' is not Gaussian; there is no closed form.")
        at = self.rows(self.places(observation))
        return Kriging(law, at, float(observation["noise_std"]), self.measurement(observation))

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        """The mean of the exact posterior, which nothing can beat."""
        return {"exact": self._member(self.exact(observation).mean[None], observation)}

    def _member(self, a: Tensor, observation: xr.Dataset) -> xr.DataArray:
        """A field a (1, 1, H, W) in the form of a member."""
        member = a if self.state == "a" else torch.cat([a, self.solver(a)], 1)
        template = self.template(observation)
        return template.copy(data=member.reshape(template.shape).float().numpy())

    # Scores

    def both(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Members (M, 1, C, H, W) as their a and their u, (M, 1, H, W) each, float64."""
        x = samples.double().reshape(len(samples), -1, *self.grid)
        if self.state == "pair":
            return x[:, :1], x[:, 1:]
        return x, self.solver(x)

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset | None = None) -> xr.Dataset:
        r"""Relative L2 errors in per cent, of the mean of the quantity asked for and of both; scores of the ensemble.

        With the result of `scidiff.reconstruct`, which carries the observation, also ``relative_l2_bayes``, the error
        of the exact posterior mean, ``gap``, the expected root mean square error of the mean over the least possible
        one, :math:`\sqrt{1 + |\hat m - m|^2 / E|x - m|^2}`, and the misfit ``chi2``.
        """
        import xarray as xr

        shape = (1, *self.grid) if self.state == "a" else (2, *self.grid)
        members = dict(zip("au", self.both(samples_of(ensemble, self.field, shape)), strict=True))
        scores: dict[str, float] = {}
        mine, x = members[self.asked], None
        if truth is not None:
            for name, parts in members.items():
                error = parts.mean(0) - (t := self.quantity(truth, name)[0])
                scores[f"relative_l2_{name}"] = 100 * float(error.norm() / t.norm())
            scores = {"relative_l2": scores[f"relative_l2_{self.asked}"], **scores}
            x = self.quantity(truth, self.asked)
            if len(mine) > 1:
                stacked = mine[:, None]
                scores["crps"] = float(crps(stacked, x).mean())
                scores["spread_skill"] = float(spread_skill(stacked, x))
                scores["coverage_90"] = float(coverage(stacked, x, 0.9))
        observation: Any = ensemble if not isinstance(ensemble, Ensemble) and self.measured in ensemble else None
        if observation is not None:
            part = self.likelihood(observation)
            samples = samples_of(ensemble, self.field, shape)
            with torch.no_grad():
                scores["chi2"] = float(np.mean([float(part.residual(s).square().mean()) for s in samples]))
            scores |= self.against_exact(mine.mean(0), x, observation)
        units = {"relative": "%"}
        return xr.Dataset({k: ((), v, {"units": units.get(k.split("_")[0], "1")}) for k, v in scores.items()})

    def against_exact(self, mean: Tensor, x: Tensor | None, observation: xr.Dataset) -> dict[str, float]:
        """Error of the exact mean and the gap to it; empty where there is no closed form."""
        try:
            exact = self.exact(observation)
        except TypeError:
            return {}
        read = self.solver if self.asked == "u" else (lambda field: field)
        best = read(exact.mean[None])[0]
        if self.asked == "a":
            least = float(exact.variance.sum())
        else:
            truths, guesses = exact.errors(DRAWS, stream("bayes", self.seed))
            least = float(read(truths - guesses).square().sum((1, 2, 3)).mean())
        found = {"gap": (1 + float((mean - best).square().sum()) / least) ** 0.5}
        if x is not None:
            found["relative_l2_bayes"] = 100 * float((best - x[0]).norm() / x.norm())
        return found

    def plot(self, result: xr.Dataset) -> Figure:
        """Of pairs, the quantity asked for."""
        from scidiff.plots import result_figure

        if self.state == "pair":
            drawn = [name for name in result.data_vars if "quantity" in result[name].dims]
            result = result.assign({k: result[k].sel(quantity=self.asked, drop=True) for k in drawn})
            result = result.drop_vars("quantity", errors="ignore")
        return result_figure(result)
