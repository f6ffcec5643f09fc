r"""A turbulent flow seen through coarse averages of some of its frames.

The vorticity of Kolmogorov flow in a periodic square,
:math:`\partial_t \omega + v \cdot \nabla \omega = \nu \Delta \omega - \mu\,\omega - m \cos(m y)` in
:math:`[0, 2\pi]^2` with :math:`m = 4, \mu = 0.1`, at L times 0.2 apart. Every 4th frame is observed with independent
noise, as

- ``coarse``: means over squares of ``coarse`` points;
- ``subsampled``: values at every ``coarse``-th point along both axes;
- ``saturating``: :math:`s\,\omega / (|\omega| + s)` at every point, with s the ``saturation``.

Cases are computed on a grid twice as fine with a shorter step and then truncated to the grid of the answer, whose model
(for the baselines) resolves less: no inverse crime. The prior is one of windows of 2k + 1 frames (1, T, H, W), learned
from such flows by `scidiff.datasets.kolmogorov`; "kolmogorov" is bundled for 32x32 points and the other defaults. The
`baselines` need only the equations.

References:
    Score-based Data Assimilation (Rozet and Louppe, 2023), arXiv:2306.10574, section 4.2 (frames 0.2 apart, every 4th
    observed coarsely, noise 0.1; there Re = 1000 on a 64x64 grid, velocities).
"""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scidiff.assimilation import (
    EnKF,
    FourDVar,
    Observations,
    StateSpace,
    TrajectoryPrior,
    gaspari_cohn,
    on_grid,
    periodic_distance,
)
from scidiff.datasets.kolmogorov import truncated
from scidiff.errors import InputError
from scidiff.inference import Ensemble, Posterior
from scidiff.linalg.stationary import Stationary
from scidiff.metrics import coverage, crps, rmse, spread_skill
from scidiff.noise import GaussianNoise
from scidiff.operators.linear import Linear
from scidiff.operators.sensors import Saturating, Subsampling
from scidiff.problems.base import Case, parameters, require, samples_of, stream
from scidiff.problems.flow_baselines import interpolated
from scidiff.protocols import Prior
from scidiff.solvers import NavierStokes, advance, ifrk4

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["KolmogorovAssimilation"]


class KolmogorovAssimilation:
    r"""Trajectories of vorticity from coarse averages of every 4th frame.

    Arguments:
        prior: Prior of windows (1, 2k + 1, H, W): a bundled name, a path, or an object.
        grid: Points (H, W) of a frame, even.
        length: Number L of frames.
        every: Every how many frames one is observed.
        coarse: Side of the squares that are averaged, or distance of observed points; divides the grid.
        noise: Standard deviation of an observation, in units of vorticity.
        k: Half width of the windows.
        reynolds: :math:`1/\nu`.
        spacing: Time between two frames.
        members: Of the ensemble in `baselines`.
        seed: Of cases.
        observed: "coarse", "subsampled" or "saturating".
        saturation: Vorticity at which a saturating sensor shows half of its largest value.
        radius: Of the taper of the localised ensemble smoother in `baselines`, in grid spacings.
    """

    name, field, default_sampler = "kolmogorov", "vorticity", "mmps"

    def __init__(
        self,
        prior: str | Prior = "kolmogorov",
        grid: tuple[int, int] = (32, 32),
        length: int = 33,
        every: int = 4,
        coarse: int = 4,
        noise: float = 0.1,
        k: int = 2,
        reynolds: float = 200.0,
        spacing: float = 0.2,
        members: int = 64,
        seed: int = 0,
        observed: Literal["coarse", "subsampled", "saturating"] = "coarse",
        saturation: float = 1.0,
        radius: float = 6.0,
    ) -> None:
        self.arguments = {k: v for k, v in locals().items() if k != "self"}
        grid = (int(grid[0]), int(grid[1]))
        if any(n % 2 or n % coarse for n in grid) or min(grid) < 16:
            raise ValueError(f"grid must be even, at least 16 and a multiple of coarse = {coarse}, got {grid}.")
        if observed not in ("coarse", "subsampled", "saturating"):
            raise ValueError(f"observed must be 'coarse', 'subsampled' or 'saturating', got {observed!r}.")
        if not (saturation > 0 and radius > 0):
            raise ValueError(f"saturation and radius must be positive, got {saturation} and {radius}.")
        if length < 2 * k + 1:
            raise ValueError(f"the record has {length} frames, fewer than the window's 2k + 1 = {2 * k + 1}.")
        if not (noise > 0 and reynolds > 0 and spacing > 0 and every >= 1 and members >= 2 and k >= 0):
            raise ValueError("noise, reynolds and spacing must be positive, every at least 1, members at least 2.")
        self.grid, self.length, self.every, self.coarse, self.noise = grid, length, every, coarse, noise
        self.k, self.reynolds, self.spacing, self.members, self.seed = k, reynolds, spacing, members, seed
        self.observed, self.saturation, self.radius = observed, saturation, radius
        fine = min(grid) * 2
        # Kolmogorov flow with drag 0.1 stays below a speed of about 8: a Courant number below 1.2 on either grid.
        self.fine_steps = math.ceil(spacing * 8 * fine / (2 * math.pi) / 1.2)
        self.steps = math.ceil(spacing * 8 * min(grid) / (2 * math.pi) / 1.2)

    def config(self) -> dict[str, Any]:
        return parameters(self)

    @cached_property
    def window_prior(self) -> Any:
        """The prior of windows."""
        given = self.arguments["prior"]
        if isinstance(given, (str, os.PathLike)):
            from scidiff.priors import load_pretrained

            prior = load_pretrained(given)
            network = prior.card.get("network", {})
            own = (network.get("window"), *network.get("grid", ()))
            if "grid" in network and own != (2 * self.k + 1, *self.grid):
                raise InputError(
                    f"the prior '{given}' is one of {own[0]} frames of {own[1]}x{own[2]} points, but k = {self.k} and "
                    f"grid = {self.grid} need {2 * self.k + 1} frames of {self.grid[0]}x{self.grid[1]}; give "
                    "KolmogorovAssimilation(prior=...), or train one: examples/priors/kolmogorov.toml."
                )
            return prior
        return given

    @cached_property
    def prior(self) -> TrajectoryPrior:
        """The windows composed: states (1, L, H, W)."""
        prior = self.window_prior
        if isinstance(prior, TrajectoryPrior):
            return prior.of_length(self.length)
        return TrajectoryPrior(prior, self.k, self.length, self.grid, 1)

    @cached_property
    def model(self) -> StateSpace:
        """The equations on the grid of the answer, as the baselines know them; first frames are spun-up flows."""
        equation = NavierStokes(self.grid, 1 / self.reynolds, 0.1, 4, dtype=torch.float64)
        step = ifrk4(equation, self.spacing / self.steps)

        def frame(x: Tensor) -> Tensor:
            w = equation.transform(x.unflatten(-1, self.grid))
            return equation.field(advance(step, w, self.steps)).flatten(-2)

        def start(n: int, generator: Generator) -> Tensor:
            x = self._spun_up(equation, step, n, generator, self.steps)
            return x.flatten(1)

        return StateSpace(frame, 0.0, start, (1, *self.grid))

    def _spun_up(self, equation: NavierStokes, step: Any, n: int, generator: Generator, steps: int) -> Tensor:
        """Frames (n, H, W) after a time of 8, from smooth random vorticity."""
        law = Stationary.power_law(equation.grid, exponent=6.0, cutoff=5.0, variance=9.0)
        w = equation.transform(law.sample(generator, n, torch.float64))
        w[..., 0, 0] = 0
        return equation.field(advance(step, w, round(8 / self.spacing) * steps))

    def _array(self, x: np.ndarray, times: np.ndarray | None = None) -> xr.DataArray:
        import xarray as xr

        times = np.arange(self.length) if times is None else times
        attrs = {"units": "1", "long_name": "model time"}
        space = {}
        for dim, n, whole in zip(("y", "x"), x.shape[1:], self.grid, strict=True):
            middle = (self.coarse - 1) / 2 if n != whole and self.observed == "coarse" else 0.0
            space[dim] = (dim, 2 * np.pi * (np.arange(n) * (whole // n) + middle) / whole, {"units": "1"})
        coords = {"time": ("time", self.spacing * times, attrs), **space}
        return xr.DataArray(x, coords, ("time", "y", "x"), self.field, {"units": "s-1", "long_name": "vorticity"})

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A flow computed on the fine grid, truncated to the grid of the answer, and its observation."""
        generator = stream("kolmogorov", self.seed, index) if generator is None else generator
        fine = NavierStokes([2 * n for n in self.grid], 1 / self.reynolds, 0.1, 4, dtype=torch.float64)
        step = ifrk4(fine, self.spacing / self.fine_steps)
        frames = [self._spun_up(fine, step, 1, generator, self.fine_steps)]
        for _ in range(self.length - 1):
            w = advance(step, fine.transform(frames[-1]), self.fine_steps)
            frames.append(fine.field(w))
        truth = self._array(truncated(torch.cat(frames), self.grid).float().numpy()).to_dataset()
        return Case(truth, self.observe(truth, generator))

    @cached_property
    def operator(self) -> Any:
        """Of one frame: (B, 1, H, W) -> (B, 1, H / coarse, W / coarse), or of the same size where sensors saturate."""
        if self.observed == "subsampled":
            return Subsampling(self.coarse, self.grid)
        if self.observed == "saturating":
            return Saturating(self.saturation)
        return Linear(lambda x: F.avg_pool2d(x, self.coarse), (1, *self.grid))

    @property
    def frame(self) -> tuple[int, int]:
        """Size of an observed frame."""
        side = 1 if self.observed == "saturating" else self.coarse
        return (self.grid[0] // side, self.grid[1] // side)

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """Every 4th frame as the instrument sees it, with noise, (observed time, y, x)."""
        from scidiff.rng import explicit

        x = torch.as_tensor(np.asarray(require(truth, self.field, ("time", "y", "x"), "the truth").values))
        if tuple(x.shape) != (self.length, *self.grid):
            raise InputError(f"the truth has shape {tuple(x.shape)}, expected {(self.length, *self.grid)}.")
        z = self.operator(x[:: self.every, None])[:, 0]
        y = z + self.noise * torch.randn(z.shape, generator=explicit(generator), dtype=z.dtype)
        array = self._array(y.numpy(), np.arange(0, self.length, self.every)).rename("observation")
        array = array.rename(y="coarse_y", x="coarse_x").rename(time="observed_time")
        return array.assign_attrs(noise_std=self.noise).to_dataset()

    def read(self, source: str | os.PathLike[str] | np.ndarray | xr.Dataset) -> xr.Dataset:
        """Observations (observed_time, coarse_y, coarse_x) whose times are frames.

        Raises:
            InputError: missing file, wrong dimensions or sizes, times off the grid, values that are not finite.
        """
        import xarray as xr

        what = "the observation"
        if isinstance(source, (str, os.PathLike)):
            what = os.fspath(source)
            if not os.path.isfile(source):
                raise InputError(f"{what}: there is no such file; expected a NetCDF file with 'observation'.")
            source = xr.load_dataset(source, engine="h5netcdf")
        if isinstance(source, np.ndarray):
            raise InputError(f"{what}: an array has no observation times; give a Dataset with 'observed_time'.")
        array = require(source, "observation", ("observed_time", "coarse_y", "coarse_x"), what)
        expected = self.frame
        if tuple(array.shape[1:]) != expected or "observed_time" not in array.coords:
            raise InputError(f"{what}: expected frames {expected} with coordinate 'observed_time', got {array.shape}.")
        if not np.isfinite(np.asarray(array.values)).all():
            raise InputError(f"{what}: 'observation' holds values that are not finite.")
        on_grid(np.asarray(array["observed_time"].values).tolist(), self.spacing, self.length)
        return source

    def observations(self, observation: xr.Dataset) -> Observations:
        """The record as `scidiff.assimilation` takes it."""
        array = observation["observation"].transpose("observed_time", "coarse_y", "coarse_x")
        steps = on_grid(np.asarray(array["observed_time"].values).tolist(), self.spacing, self.length)
        y = torch.as_tensor(np.asarray(array.values))[None, :, None]
        return Observations(steps, self.operator, GaussianNoise(self.noise), y)

    def posterior(self, observation: xr.Dataset) -> Posterior:
        return Posterior(self.prior, self.observations(observation).likelihood(self.length))

    def template(self, observation: xr.Dataset) -> xr.DataArray:
        return self._array(np.zeros((self.length, *self.grid), np.float32))

    def baselines(self, observation: xr.Dataset, iterations: int = 40) -> dict[str, xr.DataArray]:
        """Means of the ensemble Kalman smoother without and with localisation (Gaspari and Cohn's taper), of
        strong-constraint 4D-Var with the climate as background (mean and variance of the first frame, no covariances),
        and interpolation of the data in space and time.

        All but the interpolation know the equations (on the grid of the answer).
        """
        obs, template = self.observations(observation), self.template(observation)
        double = Observations(obs.steps, obs.operator, obs.noise, obs.y.double())
        smoother = EnKF(self.members, inflation=1.2)
        kalman = smoother(self.model, double, self.length, stream("kolmogorov-enkf", self.seed))
        local = EnKF(self.members, inflation=1.05, localisation=self._tapers())
        nearby = local(self.model, double, self.length, stream("kolmogorov-enkf", self.seed)).mean(0, keepdim=True)
        first = self.model.start(self.members, stream("kolmogorov-background", self.seed))
        cov = torch.diag(first.var(0) + 1e-2)
        best = FourDVar(first.mean(0), cov, "strong", iterations)(self.model, double, self.length)
        found = {"enks": kalman.mean(0, keepdim=True), "local_enks": nearby, "strong_4dvar": best}
        found["interpolation"] = self.interpolated(obs)[None, None]
        return {name: template.copy(data=x[0, 0].float().numpy()) for name, x in found.items()}

    def _tapers(self) -> tuple[Tensor, Tensor]:
        """Between points and measurements, and between measurements."""
        side, middle = self.grid[0] // self.frame[0], (self.coarse - 1) / 2 if self.observed == "coarse" else 0.0
        axes = [torch.arange(n, dtype=torch.float64) * side + middle for n in self.frame]
        points = torch.cartesian_prod(*axes)
        taper = gaspari_cohn(periodic_distance(self.grid, points), self.radius)
        sides = torch.tensor(self.grid, dtype=torch.float64)
        apart = (points[:, None] - points).abs()
        return taper, gaspari_cohn(torch.minimum(apart, sides - apart).norm(dim=-1), self.radius)

    def interpolated(self, obs: Observations) -> Tensor:
        """The data taken for the answer, (L, H, W): Fourier series in space, straight lines in time, constant after the
        last frame; saturated values are taken back where noise allows.
        """
        frames = obs.y[0, :, 0].double()
        if self.observed == "saturating":
            r = (frames / self.saturation).clamp(-0.9, 0.9)
            frames = self.saturation * r / (1 - r.abs())
        elif self.observed == "coarse":  # the means stand for the middles of their squares
            shift = (self.coarse - 1) / 2
            frames = interpolated(frames, self.grid)
            k = [torch.fft.fftfreq(n).double() for n in self.grid]
            phase = -2 * math.pi * shift * (k[0][:, None] + k[1])
            frames = torch.fft.ifft2(torch.fft.fft2(frames) * torch.polar(torch.ones_like(phase), phase)).real
        else:
            frames = interpolated(frames, self.grid)
        steps, whole = torch.tensor(obs.steps), []
        for t in range(self.length):
            after = int(torch.searchsorted(steps, t))
            b = min(after, len(steps) - 1)
            a = b if after > b or int(steps[b]) == t or after == 0 else after - 1
            part = 0.0 if a == b else (t - int(steps[a])) / (int(steps[b]) - int(steps[a]))
            whole.append((1 - part) * frames[a] + part * frames[b])
        return torch.stack(whole)

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Size of the observations against the climate, whose coarse means have a standard deviation of order 1."""
        largest = float(np.abs(observation["observation"].values).max())
        warnings = (
            [f"an observation of {largest:.3g} is far from Kolmogorov flow; check units."] if largest > 50 else []
        )
        return {"observations": int(observation["observation"].size), "noise_std": self.noise, "warnings": warnings}

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
        """Scores against the truth; given the observation also ``residual``, the root mean square misfit of the members
        to the data, which should be the noise.
        """
        import xarray as xr

        x = torch.as_tensor(np.asarray(require(truth, self.field, ("time", "y", "x"), "the truth").values))[None]
        samples = samples_of(ensemble, self.field, (self.length, *self.grid)).to(x.dtype)
        scores: dict[str, Any] = {"rmse": rmse(samples.mean(0), x)}
        scores["relative_l2"] = (samples.mean(0) - x).norm() / x.norm()
        if len(samples) > 1:
            scores |= {"crps": crps(samples, x).mean(), "spread_skill": spread_skill(samples, x)}
            scores["coverage_90"] = coverage(samples, x, 0.9)
        if not isinstance(ensemble, Ensemble) and "observation" in ensemble:
            part = self.observations(ensemble).likelihood(self.length).tile(len(samples))
            scores["residual"] = part.difference(part.operator(samples)).square().mean().sqrt()
        units = {name: "s-1" for name in ("rmse", "crps", "residual")}
        return xr.Dataset({k: ((), float(v), {"units": units.get(k, "1")}) for k, v in scores.items()})

    def plot(self, result: xr.Dataset) -> Figure:
        """First, middle and last frame: mean of the members and, where it is known, the truth."""
        from matplotlib.figure import Figure

        field = result[self.field]
        rows = [("mean", field.mean("member") if "member" in field.dims else field)]
        rows += [("truth", result["truth"])] if "truth" in result else []
        figure = Figure(figsize=(9, 3 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 3, squeeze=False)
        for (label, array), line in zip(rows, axes, strict=True):
            for frame, axis in zip((0, self.length // 2, self.length - 1), line, strict=True):
                axis.imshow(array.isel(time=frame).values, cmap="RdBu_r", origin="lower")
                axis.set_title(f"{label}, time {self.spacing * frame:g}", fontsize="small")
                axis.set_axis_off()
        return figure
