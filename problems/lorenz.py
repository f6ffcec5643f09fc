r"""Chaos seen through one coordinate: the states of a Lorenz system from noisy observations of some of them.

.. math:: x_{n+1} = \mathrm{RK4}_{\Delta t}(x_n) + \sqrt{\Delta t}\,\epsilon_n, \qquad
          y_k = a(x_{n_k}) + s\,\eta_k, \qquad \Delta t = 0.025

The law of the states *is* this chain, so that simulating with it commits no inverse crime; the prior is learned from
windows of other chains. Two published protocols, 65 states each: ``lo`` observes every 8th state with
:math:`s = 0.05`, ``hi`` every state with :math:`s = 0.25`, in units of the standardised coordinate (8 for the first
coordinate of Lorenz-63). Lorenz-63 shows its first coordinate. For Lorenz-96 we carry times and noise over and observe
every second place.

The truth to compare with is a particle smoother, which knows the equations. A draw of the exact posterior has the same
law as the state that was observed; so over many cases the mean of :math:`\log p(x)` (transitions) is
:math:`-\tfrac{d}{2}(L-1)(\ln 2\pi\Delta t + 1)` and that of :math:`\log p(y|x)` is
:math:`-\tfrac{K}{2}(\ln 2\pi s^2 + 1)`, see `LorenzAssimilation.levels`.

References:
    Score-based Data Assimilation (Rozet and Louppe, 2023), arXiv:2306.10574, section 4.1 (Lorenz-63, lo and hi).
"""

from __future__ import annotations

import math
import os
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.assimilation import (
    EnKF,
    FourDVar,
    Observations,
    ParticleSmoother,
    StateSpace,
    TrajectoryPrior,
    WindowMixture,
    on_grid,
)
from scidiff.datasets.lorenz import Lorenz63Windows, Lorenz96Windows
from scidiff.errors import InputError
from scidiff.inference import Ensemble, Posterior
from scidiff.metrics import coverage, crps, rmse, spread_skill
from scidiff.noise import GaussianNoise
from scidiff.operators.mask import Mask
from scidiff.priors import GaussianMixturePrior
from scidiff.problems.base import Case, parameters, require, samples_of, stream
from scidiff.protocols import Prior
from scidiff.samplers import DPMSolver
from scidiff.schedules import karras

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["LorenzAssimilation"]

PROTOCOLS = {"lo": (8, 0.05), "hi": (1, 0.25)}
BUNDLED = 33
"""States of a window of the bundled prior."""


class LorenzAssimilation:
    r"""Trajectories of a Lorenz system from partial, noisy observations.

    Arguments:
        protocol: "lo" (every 8th state, noise 0.05) or "hi" (every state, noise 0.25).
        system: "63" (three numbers, the first is observed) or "96" (a ring, every second place is observed).
        prior: Prior of windows of 2k + stride standardised states, (3, T) or (1, T, N): a bundled name, the path of a
            prior trained on data of kind lorenz63 or lorenz96, an object, or "mixture": Gaussians fitted by expectation
            maximisation to simulated windows, which takes seconds: locally linear dynamics. By default "lorenz63",
            a network for windows of 33 states, and for Lorenz-96 or shorter records the mixture.
        k: Half width of the windows, see `scidiff.assimilation.TrajectoryPrior`; 8 for "lorenz63", else 2.
        length: Number L of states.
        components: Of the mixture.
        particles: Of the particle smoother in `baselines` and `evaluate`.
        size: Places of Lorenz-96.
        seed: Of cases and of the mixture.
        stride: States a window answers for; 33 - 2k for "lorenz63", else 1.
    """

    name, field = "lorenz", "state"

    def __init__(
        self,
        protocol: Literal["lo", "hi"] = "lo",
        system: Literal["63", "96"] = "63",
        prior: str | Prior | None = None,
        k: int | None = None,
        length: int = 65,
        components: int = 16,
        particles: int = 4096,
        size: int = 40,
        seed: int = 0,
        stride: int | None = None,
    ) -> None:
        self.arguments = {k: v for k, v in locals().items() if k != "self"}
        system = str(system)  # type: ignore[assignment]
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be 'lo' or 'hi', got {protocol!r}.")
        if system not in ("63", "96"):
            raise ValueError(f"system must be '63' or '96', got {system!r}.")
        if prior is None:
            prior = "lorenz63" if system == "63" and length >= BUNDLED else "mixture"
        network = isinstance(prior, str) and prior == "lorenz63"
        k = k if k is not None else (8 if network else 2)
        stride = stride if stride is not None else max(1, BUNDLED - 2 * k) if network else 1
        if k < 1 or stride < 1 or components < 1 or particles < 2:
            raise ValueError(
                f"expected k >= 1, stride >= 1, components >= 1, particles >= 2, got {k}, {stride}, {components} and "
                f"{particles}."
            )
        if length < 2 * k + stride:
            raise ValueError(f"the record has {length} states, fewer than the window's 2k + stride = {2 * k + stride}.")
        self.protocol, self.system, self.k, self.stride, self.length = protocol, system, k, stride, length
        self.given, self.learned = prior, isinstance(prior, (str, os.PathLike)) and prior != "mixture"
        self.default_sampler = "sda" if self.learned else "mmps"
        self.components, self.particles, self.seed = components, particles, seed
        self.simulator = Lorenz63Windows() if system == "63" else Lorenz96Windows(size=size)
        self.dt = self.simulator.dt
        self.every, self.relative_noise = PROTOCOLS[protocol]
        self.shape = (3,) if system == "63" else (1, size)
        """Shape (C, grid) of a state."""
        self.scale = torch.as_tensor(self.simulator.scale, dtype=torch.float64).expand(math.prod(self.shape))
        self.loc = torch.as_tensor(self.simulator.loc, dtype=torch.float64).expand(math.prod(self.shape))
        self.seen = torch.zeros(math.prod(self.shape), dtype=torch.bool)
        self.seen[:1] = True
        if system == "96":
            self.seen[::2] = True
        self.noise = self.relative_noise * float(self.scale[0])
        """Standard deviation of an observation in the units of the state."""

    # Laws

    @cached_property
    def window_prior(self) -> Any:
        """The prior of windows."""
        given = self.given
        if isinstance(given, str) and given == "mixture":
            return self._mixture()
        if isinstance(given, (str, os.PathLike)):
            from scidiff.priors import load_pretrained

            return load_pretrained(given)
        return given

    def _mixture(self) -> Prior:
        """Gaussians fitted to windows of simulated chains; in the coordinates of physical units."""
        generator, size = stream("lorenz-windows", self.seed), 2 * self.k + self.stride
        windows = self.simulator.simulate(32 * self.components, 8 * size, generator)
        x = windows.unflatten(1, (8, size)).flatten(0, 1)
        x = ((x - self.loc) / self.scale).to(torch.float32)
        x = x.unflatten(-1, self.shape).movedim(1, 2)
        fitted = GaussianMixturePrior.fit(x, self.components, iterations=15, generator=generator)
        return WindowMixture(fitted, self.loc.reshape(self.shape), self.scale.reshape(self.shape))

    @cached_property
    def prior(self) -> TrajectoryPrior:
        r"""The windows composed: states (C, L, \*grid)."""
        prior = self.window_prior
        if isinstance(prior, TrajectoryPrior):
            return prior.of_length(self.length)
        return TrajectoryPrior(prior, self.k, self.length, self.shape[1:], self.shape[0], stride=self.stride)

    @cached_property
    def model(self) -> StateSpace:
        """The equations, which the baselines know: first states are draws of the climate."""
        pool = self.simulator.simulate(512, 64, stream("lorenz-climate", self.system))[:, ::8].flatten(0, 1)

        def start(n: int, generator: Generator) -> Tensor:
            return pool[torch.randint(len(pool), (n,), generator=generator)]

        self._pool = pool
        return StateSpace(self.simulator.transition.mean, self.simulator.transition.variance, start, self.shape)

    @property
    def levels(self) -> dict[str, float]:
        """Expected log p(x) and log p(y|x) of exact draws, over cases; data in standardised units."""
        d, count = len(self.seen), len(range(0, self.length, self.every)) * int(self.seen.sum())
        return {
            "log_px": -d / 2 * (self.length - 1) * (math.log(2 * math.pi * self.simulator.transition.variance) + 1),
            "log_py": -count / 2 * (math.log(2 * math.pi * self.relative_noise**2) + 1),
        }

    def config(self) -> dict[str, Any]:
        return parameters(self)

    @property
    def recommended(self) -> dict[str, dict[str, Any]]:
        """Parameters by name of the sampler, for learned windows; chosen on cases from 100 on."""
        levels = DPMSolver(128, partial(karras, sigma_min=2e-3, sigma_max=20.0), stochastic=True)
        found = {"mmps": {"sampler": levels, "iterations": 2}, "sda": {"sampler": levels, "gamma": 0.01}}
        return found if self.learned else {}

    # Data

    @property
    def dims(self) -> tuple[str, str]:
        """Dimensions of a trajectory."""
        return ("component", "time") if self.system == "63" else ("time", "place")

    def _array(self, x: np.ndarray, name: str = "state") -> xr.DataArray:
        import xarray as xr

        along = np.array(["x", "y", "z"]) if self.system == "63" else np.arange(len(self.seen))
        space = [dim for dim in self.dims if dim != "time"][0]
        times = ("time", self.dt * np.arange(self.length), {"units": "1", "long_name": "model time"})
        coords = {"time": times, space: (space, along)}
        return xr.DataArray(x, coords, self.dims, name, {"units": "1", "long_name": f"Lorenz-{self.system} {name}"})

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A chain of the climate and its observation."""
        generator = stream("lorenz", self.system, self.protocol, self.seed, index) if generator is None else generator
        x = self.simulator.simulate(1, self.length, generator)[0]
        x = x.mT if self.system == "63" else x
        truth = self._array(x.to(torch.float32).numpy()).to_dataset()
        return Case(truth, self.observe(truth, generator))

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """Noisy values of the observed numbers at the observed times, NaN elsewhere."""
        from scidiff.rng import explicit

        x = np.asarray(require(truth, self.field, self.dims, "the truth").values, dtype=np.float64)
        if x.shape != self._array(np.zeros(self._sizes)).shape:
            raise InputError(f"the truth has shape {x.shape}, expected {self._sizes}.")
        e = torch.randn(x.shape, generator=explicit(generator), dtype=torch.float64).numpy()
        y = np.where(self._observed, x + self.noise * e, np.nan)
        array = self._array(y.astype(np.float32), "observation").assign_attrs(noise_std=self.noise)
        return array.to_dataset()

    @property
    def _sizes(self) -> tuple[int, int]:
        return (3, self.length) if self.system == "63" else (self.length, len(self.seen))

    @property
    def _observed(self) -> np.ndarray:
        times = np.arange(self.length) % self.every == 0
        seen = self.seen.numpy()
        return seen[:, None] & times if self.system == "63" else times[:, None] & seen

    def read(self, source: str | os.PathLike[str] | np.ndarray | xr.Dataset) -> xr.Dataset:
        """Observations with a coordinate ``time`` on the grid of states, NaN where there are none.

        Raises:
            InputError: missing file, wrong dimensions, times off the grid, infinite values or no observation.
        """
        import xarray as xr

        what = "the observation"
        if isinstance(source, (str, os.PathLike)):
            what = os.fspath(source)
            if not os.path.isfile(source):
                raise InputError(
                    f"{what}: there is no such file; expected a NetCDF file with 'observation' {self.dims}."
                )
            source = xr.load_dataset(source, engine="h5netcdf")
        if isinstance(source, np.ndarray):
            if source.shape != self._sizes:
                raise InputError(f"{what} has shape {source.shape}, expected {self._sizes} for {self.dims}.")
            source = self._array(source, "observation").to_dataset()
        array = require(source, "observation", self.dims, what)
        values = np.asarray(array.values)
        if values.dtype.kind != "f" or np.isinf(values).any():
            raise InputError(f"{what}: 'observation' must hold floating-point numbers, NaN where nothing was observed.")
        if np.isnan(values).all():
            raise InputError(f"{what}: 'observation' is NaN everywhere: nothing was observed.")
        if "time" in array.coords:
            on_grid(np.asarray(array["time"].values).tolist(), self.dt, self.length)
        axis = self.dims.index("time")
        if array.sizes["time"] != self.length:
            if "time" not in array.coords:
                raise InputError(
                    f"{what}: {array.sizes['time']} times without coordinate 'time', expected {self.length}."
                )
            steps = on_grid(np.asarray(array["time"].values).tolist(), self.dt, self.length)
            full = np.full(self._sizes, np.nan, values.dtype)
            full[(slice(None),) * axis + (list(steps),)] = values
            values = full
        if values.shape != self._sizes:
            raise InputError(f"{what}: 'observation' has shape {values.shape}, expected {self._sizes}.")
        rest = {name: source[name] for name in source.data_vars if "time" not in source[name].dims}
        truth = {self.field: source[self.field]} if self.field in source else {}
        return xr.Dataset({"observation": self._array(values, "observation"), **rest, **truth}, attrs=source.attrs)

    def observations(self, observation: xr.Dataset) -> Observations:
        """The record as `scidiff.assimilation` takes it; the same numbers must be observed at every observed time."""
        values = torch.as_tensor(np.asarray(require(observation, "observation", self.dims, "the observation").values))
        states = values.mT if self.system == "63" else values  # (L, d)
        finite = states.isfinite()
        steps = finite.any(1).nonzero().flatten().tolist()
        seen = finite[steps[0]]
        if bool((finite[steps] != seen).any()):
            raise InputError(
                "the observed numbers differ from time to time; this problem observes the same ones always."
            )
        y = states[steps][:, seen][None]
        return Observations(tuple(steps), Mask(seen.reshape(self.shape)), GaussianNoise(self.noise), y)

    def posterior(self, observation: xr.Dataset) -> Posterior:
        return Posterior(self.prior, self.observations(observation).likelihood(self.length))

    def template(self, observation: xr.Dataset) -> xr.DataArray:
        return self._array(np.zeros(self._sizes, np.float32))

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Whether the observed numbers lie within the climate: the largest distance, in standard deviations."""
        obs = self.observations(observation)
        seen = obs.operator.mask.flatten()  # type: ignore[attr-defined]
        far = float(((obs.y[0].double() - self.loc[seen]) / self.scale[seen]).abs().max())
        warnings = [f"an observation lies {far:.1f} standard deviations from the climate."] if far > 5 else []
        return {"observations": obs.y.numel(), "noise_std": self.noise, "largest_anomaly": far, "warnings": warnings}

    # Answers

    def smoother(self, observation: xr.Dataset, members: int = 256, seed: int = 0) -> Tensor:
        r"""Trajectories of the particle smoother, (M, C, L, \*grid): the truth where particles suffice."""
        smoother = ParticleSmoother(self.particles)
        obs = self.observations(observation)
        return smoother(self.model, obs, self.length, members, stream("lorenz-smoother", self.seed, seed)).samples

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        """Means of the particle smoother and of the ensemble Kalman smoother, and weak-constraint 4D-Var started there.

        All know the equations; the prior of this problem knows simulated windows only.
        """
        obs, model, template = self.observations(observation), self.model, self.template(observation)
        kalman = EnKF(256)(model, obs, self.length, stream("lorenz-enkf", self.seed)).mean(0, keepdim=True)
        best = FourDVar(self.loc, torch.diag(self.scale.square()), "weak", 60)(model, obs, self.length, kalman)
        found = {
            "particle_smoother": self.smoother(observation).mean(0, keepdim=True),
            "enks": kalman,
            "weak_4dvar": best,
        }
        return {k: template.copy(data=v.to(torch.float32).numpy().reshape(self._sizes)) for k, v in found.items()}

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
        """Scores against the truth; given the observation also ``log_py`` and ``w1``.

        ``log_px``: mean log density of the transitions of the members; ``log_py``: of the data given the members (noise
        in units of the standardised coordinate), with `levels` as ``log_px_exact`` and ``log_py_exact``; ``w1``:
        Wasserstein distance (units of the state, at most 256 members) to as many draws of the particle smoother, and
        ``w1_floor`` that between two sets of such draws.
        """
        import xarray as xr

        x = torch.as_tensor(np.asarray(require(truth, self.field, self.dims, "the truth").values, dtype=np.float64))
        samples = samples_of(ensemble, self.field, self._sizes).to(torch.float64)
        scores: dict[str, Any] = {"rmse": rmse(samples.mean(0), x[None])}
        if len(samples) > 1:
            scores |= {"crps": crps(samples, x[None]).mean(), "spread_skill": spread_skill(samples, x[None])}
            scores["coverage_90"] = coverage(samples, x[None], 0.9)
        fields = samples.reshape(len(samples), self.shape[0], self.length, *self.shape[1:])
        scores["log_px"] = self.model.log_prob(self.model.vectors(fields)).mean()
        scores["log_px_exact"] = self.levels["log_px"]
        if not isinstance(ensemble, Ensemble) and "observation" in ensemble:
            part = self.observations(ensemble)
            whole, count = part.likelihood(self.length).tile(len(fields)), part.y.numel()
            # The density of standardised numbers is larger by their scale.
            scores["log_py"] = whole.log_prob(fields).mean() + count * math.log(self.noise / self.relative_noise)
            scores["log_py_exact"] = self.levels["log_py"]
            few = fields[:256]
            a, b = (self.smoother(ensemble, len(few), seed) for seed in (0, 1))
            scores["w1"], scores["w1_floor"] = self.wasserstein(few, a), self.wasserstein(b, a)
        return xr.Dataset({k: ((), float(v), {"units": "1"}) for k, v in scores.items()})

    def wasserstein(self, a: Tensor, b: Tensor) -> float:
        r"""Wasserstein distance of order 1 between as many trajectories (M, C, L, \*grid), in their units."""
        from scipy.optimize import linear_sum_assignment

        a, b = (x.double().flatten(1) for x in (a, b))
        cost = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        rows, columns = linear_sum_assignment(cost)
        return float(cost[rows, columns].mean())

    def plot(self, result: xr.Dataset) -> Figure:
        """The members, the truth where it is known, and the observations, for the first three numbers of the state."""
        from matplotlib.figure import Figure

        space = [dim for dim in self.dims if dim != "time"][0]
        figure = Figure(figsize=(8, 6), layout="constrained")
        axes = figure.subplots(3, 1, sharex=True)
        for row, axis in enumerate(axes):
            part = result.isel({space: row})
            time = part["time"].values
            if "member" in part[self.field].dims:
                axis.plot(
                    time, part[self.field].transpose("time", "member").values[:, :32], color="C0", alpha=0.25, lw=0.7
                )
            else:
                axis.plot(time, part[self.field].values, color="C0")
            if "truth" in part:
                axis.plot(time, part["truth"].values, color="black", lw=1.2, label="truth")
            if "observation" in part:
                axis.plot(time, part["observation"].values, "x", color="C3", label="observed")
            axis.set_ylabel(str(part[space].values))
        axes[0].legend(loc="upper right", fontsize="small") if axes[0].get_legend_handles_labels()[0] else None
        axes[-1].set_xlabel("model time")
        return figure
