r"""What did a field look like at the start, if a few sensors saw it pass? Burgers' equation under sparse observation.

.. math:: \partial_t u + u\, \partial_x u = \nu\, \partial_x^2 u, \qquad x \in (0, 1) \text{ periodic}, \; t \in (0, T]

The unknown is :math:`u(x, 0)`, Gaussian with mean zero and the covariance :math:`s^2 (-\Delta + \tau^2)^{-\gamma}`
without the constant. Sensors at S places see :math:`u(x_s, t_j)` with noise at all times; the solver
(`scidiff.operators.Burgers`) is the forward model, read off between grid points by its Fourier series. Given the
initial field the whole x-t plane follows.

Simulated observations come from the exact solution of Cole and Hopf on a grid four times as fine, so that they owe
nothing to the solver that inverts them.

References:
    DiffusionPDE: Generative PDE-solving under partial observation, Huang et al., 2024, arXiv:2406.17763 (the task, its
    law with gamma 2.5, tau 7, s 49, and five sensors; without noise). Fourier neural operator for parametric partial
    differential equations, Li et al., 2021, arXiv:2010.08895 (laws of this kind).
"""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.linalg.stationary import Stationary
from scidiff.metrics import coverage, crps, rmse, spread_skill
from scidiff.noise import GaussianNoise
from scidiff.operators.algebra import Algebra
from scidiff.operators.pde import Burgers
from scidiff.priors import GaussianPrior
from scidiff.problems.base import Case, parameters, require, samples_of, stream
from scidiff.protocols import Prior
from scidiff.solvers.burgers import cole_hopf

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["BurgersAtSensors", "BurgersSensors", "initial_law"]

FINER = 4


def initial_law(points: int, gamma: float = 2.5, tau: float = 7.0, scale: float = 49.0) -> Stationary:
    r"""The covariance of initial fields (1, points): :math:`s^2 (|2 \pi k|^2 + \tau^2)^{-\gamma}` a wave, none at 0."""
    k = 2 * math.pi * torch.fft.fftfreq(points, 1 / points, dtype=torch.float64)
    variance = scale**2 * (k.square() + tau**2) ** -gamma
    variance[0] = 0
    return Stationary(points * variance, (1, points), 1)


class BurgersAtSensors(Algebra):
    """Maps initial fields (B, 1, N) to what sensors see, (B, m): the flow map, its series at the sensors, and of these
    the entries that were recorded.

    Arguments:
        flow: The flow map, to T times.
        positions: Places of S sensors on the line, as fractions of its length.
        seen: Which of the T x S numbers were recorded, boolean (T, S).
    """

    def __init__(self, flow: Burgers, positions: Tensor, seen: Tensor) -> None:
        self.flow, self.positions, self.seen = flow, positions, seen
        n = flow.grid[0]
        waves = torch.arange(n // 2 + 1, dtype=torch.float64)
        shift = torch.polar(torch.ones_like(waves), -2 * math.pi * waves * positions.to(torch.float64)[:, None])
        self.weights = torch.fft.irfft(shift, n=n)
        """Of every grid point for every sensor, (S, N)."""

    def __call__(self, x: Tensor) -> Tensor:
        return (self.flow(x) @ self.weights.to(x.device, x.dtype).mT)[:, self.seen.to(x.device)]


class BurgersSensors:
    r"""The initial field of Burgers' equation from time series at a few places.

    Arguments:
        points: Grid points of the unknown field and of the solver, at least 16.
        sensors: Number of sensors; drawn with the problem's seed, the same for all cases.
        frames: Observation times, evenly spaced up to the last.
        noise: Standard deviation of the observations; the field has about 0.27. The published task has none.
        viscosity: :math:`\nu`.
        duration: Last time T.
        gamma, tau, scale: The law of the initial field, see `initial_law`.
        courant: Of the solver's steps; 1 is accurate to about 1e-5 of the field.
        prior: ``"law"``, the exact Gaussian; a bundled prior of fields (1, points) by name, or a prior.
        seed: Of sensors and simulated cases.
    """

    name, field, default_sampler = "burgers", "velocity", "mmps"

    def __init__(
        self,
        points: int = 128,
        sensors: int = 5,
        frames: int = 128,
        noise: float = 0.01,
        viscosity: float = 0.01,
        duration: float = 1.0,
        gamma: float = 2.5,
        tau: float = 7.0,
        scale: float = 49.0,
        courant: float = 1.0,
        prior: str | os.PathLike[str] | Prior = "law",
        seed: int = 0,
    ) -> None:
        self.arguments = {k: v for k, v in locals().items() if k != "self"}
        if points < 16 or sensors < 1 or frames < 1:
            raise ValueError(
                f"expected at least 16 points, 1 sensor and 1 frame, got {points}, {sensors} and {frames}."
            )
        given = {"noise": noise, "viscosity": viscosity, "duration": duration, "gamma": gamma, "scale": scale}
        for label, value in given.items():
            if not value > 0:
                raise ValueError(f"{label} must be positive, got {value}.")
        self.points, self.sensors, self.frames, self.noise = int(points), int(sensors), int(frames), float(noise)
        self.viscosity, self.duration, self.courant, self.seed = float(viscosity), float(duration), courant, seed
        self.law = (float(gamma), float(tau), float(scale))
        self._prior = prior
        self._flow([self.duration])  # refuses a Courant number that is too large

    @cached_property
    def prior(self) -> Prior:
        """The prior of initial fields (1, points)."""
        if not isinstance(self._prior, (str, os.PathLike)):
            return self._prior
        if self._prior == "law":
            return GaussianPrior(torch.zeros(1, self.points), initial_law(self.points, *self.law))
        from scidiff.priors.pretrained import load_pretrained

        return load_pretrained(self._prior)

    def config(self) -> dict[str, Any]:
        return parameters(self)

    def _flow(self, times: Any) -> Burgers:
        return Burgers((self.points,), self.viscosity, [float(t) for t in times], courant=self.courant)

    # Observations

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A field drawn from the law on a grid four times as fine, and what sensors saw of it; the truth also holds the
        x-t plane (``plane``).
        """
        generator = stream("burgers", self.seed, index) if generator is None else generator
        fine = initial_law(FINER * self.points, *self.law).sample(generator, 1)[0, 0]
        return self._case(fine, generator)

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """Noisy series at the problem's sensors of a given initial field (x), evolved exactly."""
        values = torch.as_tensor(np.asarray(require(truth, self.field, ("x",), "the truth").values)).double()
        if len(values) != self.points:
            raise InputError(f"the truth has {len(values)} points, but the problem's grid has {self.points}.")
        fine = torch.fft.irfft(torch.fft.rfft(values), n=FINER * self.points) * FINER
        return self._case(fine, generator).observation

    def _case(self, fine: Tensor, generator: Generator | None) -> Case:
        import xarray as xr

        times = self.duration * torch.arange(1, self.frames + 1, dtype=torch.float64) / self.frames
        plane, how = self._evolve(fine, times.tolist())
        places = stream("burgers sensors", self.seed)
        positions = torch.rand(self.sensors, generator=places, dtype=torch.float64).sort().values
        seen = torch.ones(self.frames, self.sensors, dtype=torch.bool)
        reader = BurgersAtSensors(Burgers((len(fine),), self.viscosity, times.tolist()), positions, seen)
        clean = plane @ reader.weights.mT
        noisy = clean + self.noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        x = ("x", np.arange(self.points) / self.points, {"units": "1"})
        t = ("t", times.numpy(), {"units": "1"})
        attrs = {"units": "1", "long_name": "velocity"}
        coarse = fine[::FINER].numpy().astype(np.float32), plane[:, ::FINER].numpy().astype(np.float32)
        truth = xr.Dataset(
            {self.field: ("x", coarse[0], attrs), "plane": (("t", "x"), coarse[1], attrs)}, {"x": x, "t": t}
        )
        observation = xr.Dataset(
            {"observation": (("t", "sensor"), noisy.numpy().astype(np.float32), attrs)},
            {"t": t, "position": ("sensor", positions.numpy(), {"units": "1"})},
            {"simulated": how},
        )
        return Case(truth, observation)

    def _evolve(self, fine: Tensor, times: list[float]) -> tuple[Tensor, str]:
        """The plane (T, N) of a fine initial field, and how it was found."""
        try:
            exact = [cole_hopf(fine, self.viscosity, t, 1.0) for t in times]
            return torch.stack(exact), f"exact solution of Cole and Hopf on a grid {FINER} times as fine"
        except ValueError:  # too strong a field for the viscosity
            flow = Burgers((len(fine),), self.viscosity, times, courant=0.5, scheme="etdrk4")
            return flow(fine[None, None])[0], f"exponential time differences on a grid {FINER} times as fine"

    def read(self, source: str | os.PathLike[str] | np.ndarray | xr.Dataset) -> xr.Dataset:
        """Series ``observation`` (t, sensor) with coordinates ``t`` and ``position``, NaN where nothing was seen.

        From a NetCDF file or a Dataset; an array (frames, sensors) is taken at the problem's own times and places.

        Raises:
            InputError: missing file or coordinates, places outside [0, 1), times that do not increase from above 0 to
                at most the duration, infinite values, or no observation at all.
        """
        import xarray as xr

        what = "the observation"
        if isinstance(source, (str, os.PathLike)):
            what = os.fspath(source)
            if not os.path.isfile(source):
                raise InputError(
                    f"{what}: there is no such file; expected a NetCDF file with 'observation' (t, sensor)."
                )
            try:
                source = xr.load_dataset(source, engine="h5netcdf")
            except (OSError, ValueError) as error:
                raise InputError(f"{what}: not a NetCDF4 file ({error}).") from error
        if isinstance(source, np.ndarray):
            if source.shape != (self.frames, self.sensors):
                raise InputError(f"{what} has shape {source.shape}, expected {(self.frames, self.sensors)}.")
            own = self.case(0).observation
            source = own.assign(observation=own["observation"].copy(data=source))
        array = require(source, "observation", ("t", "sensor"), what)
        places, times = require(source, "position", ("sensor",), what).values, require(source, "t", ("t",), what).values
        outside = places[~((places >= 0) & (places < 1))]
        if len(outside):
            raise InputError(f"{what}: a sensor at position {outside[0]:g} lies outside the line [0, 1).")
        if not (len(times) and times[0] > 0 and (np.diff(times) > 0).all() and times[-1] <= self.duration * (1 + 1e-9)):
            raise InputError(
                f"{what}: times 't' must increase from above 0 to at most {self.duration:g}, found {times[:3]} ... "
                f"{times[-1:]}."
            )
        values = np.asarray(array.values)
        if values.dtype.kind != "f":
            raise InputError(f"{what}: 'observation' holds {values.dtype}, expected floating-point numbers.")
        if np.isinf(values).any():
            raise InputError(f"{what}: 'observation' holds infinite values; write NaN where nothing was observed.")
        if np.isnan(values).all():
            raise InputError(f"{what}: 'observation' is NaN everywhere: nothing was observed.")
        return source.assign(observation=array)

    def _likelihood(self, observation: xr.Dataset) -> Likelihood:
        values = torch.as_tensor(np.asarray(observation["observation"].values))
        seen = torch.isfinite(values)
        positions = torch.as_tensor(np.asarray(observation["position"].values))
        operator = BurgersAtSensors(self._flow(observation["t"].values), positions, seen)
        return Likelihood(operator, GaussianNoise(self.noise), values[seen][None])

    def posterior(self, observation: xr.Dataset) -> Posterior:
        shape = self.prior.shape
        if shape is not None and tuple(shape) != (1, self.points):
            raise InputError(f"the prior's states have shape {tuple(shape)}, the problem needs {(1, self.points)}.")
        return Posterior(self.prior, self._likelihood(observation), (1, self.points))

    def plane(self, fields: Tensor, times: Any) -> Tensor:
        """The x-t planes (M, T, points) of initial fields (M, 1, points)."""
        return self._flow(times)(fields)

    def template(self, observation: xr.Dataset) -> xr.DataArray:
        import xarray as xr

        x = ("x", np.arange(self.points) / self.points, {"units": "1"})
        attrs = {"units": "1", "long_name": "velocity at time 0"}
        return xr.DataArray(np.zeros(self.points, np.float32), {"x": x}, ("x",), self.field, attrs)

    # Answers

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        """The first frame taken for time 0, interpolated by the law; and the most probable field (4D-Var)."""
        part, template = self._likelihood(observation), self.template(observation)
        operator: Any = part.operator
        law = initial_law(self.points, *self.law)
        seen = operator.seen[0]
        found = {}
        if bool(seen.any()):
            weights = operator.weights[seen]
            gain = law.matmul(weights[:, None]).squeeze(1)  # C P', (S, N)
            gram = gain @ weights.mT + self.noise**2 * torch.eye(len(weights), dtype=torch.float64)
            first = part.y[0, : len(weights)].double()
            found["first_frame"] = gain.mT @ torch.linalg.solve(gram, first)
        found["most_probable"] = self._most_probable(part, law)
        return {k: template.copy(data=v.to(torch.float32).numpy()) for k, v in found.items()}

    def _most_probable(self, part: Likelihood, law: Stationary, iterations: int = 25) -> Tensor:
        """The mode of the posterior under the law, by quasi-Newton steps in coordinates that the law makes white."""
        e = torch.zeros(1, 1, self.points, dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([e], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")
        y = part.y.double()

        def loss() -> Tensor:
            search.zero_grad()
            r = (y - part.operator(law.sqrt_matmul(e))) / self.noise
            value = (r.square().sum() + e.square().sum()) / 2
            value.backward()
            return value

        with torch.enable_grad():
            search.step(loss)  # type: ignore[arg-type]
        return law.sqrt_matmul(e.detach())[0, 0]

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Fields only become weaker with time: observations above what the law gives say that units are wrong."""
        values = np.asarray(observation["observation"].values)
        std = math.sqrt(initial_law(self.points, *self.law).trace / self.points)
        largest = float(np.nanmax(np.abs(values)))
        warnings = []
        if largest > 6 * std + 4 * self.noise:
            warnings.append(
                f"the largest observation is {largest:.3g}, but initial fields have the standard deviation {std:.3g} "
                "and viscosity only weakens them; check the units of the observations and the law."
            )
        return {
            "observations": int(np.isfinite(values).sum()),
            "noise_std": self.noise,
            "largest_over_std": largest / std,
            "warnings": warnings,
        }

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
        """Scores of the initial field, and of the x-t plane that follows from it (``plane_...``).

        ``relative_l2``: norm of the error of the mean over that of the truth.
        """
        import xarray as xr

        x = torch.as_tensor(np.asarray(require(truth, self.field, ("x",), "the truth").values)).double()[None]
        samples = samples_of(ensemble, self.field, (self.points,)).double()
        scores: dict[str, Any] = {"rmse": rmse(samples.mean(0), x)}
        scores["relative_l2"] = (samples.mean(0) - x).norm() / x.norm()
        if len(samples) > 1:
            scores["crps"] = crps(samples, x).mean()
            scores["spread_skill"] = spread_skill(samples, x)
            scores["coverage_90"] = coverage(samples, x, 0.9)
        if "plane" in truth:
            exact = torch.as_tensor(np.asarray(truth["plane"].transpose("t", "x").values)).double()
            planes = self.plane(samples, truth["t"].values)
            scores["plane_relative_l2"] = (planes.mean(0) - exact).norm() / exact.norm()
            if len(samples) > 1:
                scores["plane_coverage_90"] = coverage(planes[:, None], exact[None], 0.9)
        return xr.Dataset({k: ((), float(v), {"units": "1"}) for k, v in scores.items()})

    def plot(self, result: xr.Dataset) -> Figure:
        from scidiff.problems.burgers_plot import sensors_figure

        members = samples_of(result, self.field, (self.points,)).float()
        return sensors_figure(result, self.field, self.plane(members, result["t"].values).numpy())
