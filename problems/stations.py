r"""Temperature of one day on a grid, from the weather stations that reported; others are withheld as the check.

.. math:: y_i = (W T)_i + n_i, \qquad T \sim N(m, C), \qquad n_i \sim N(0, \eta^2 + r_i^2)

with bilinear interpolation W from the grid to the stations and the law of `scidiff.datasets.StationLaw` (mean m by day
of the year, latitude and longitude; covariance C of the season; nugget :math:`\eta`), fitted to training years. Between
grid points the law varies more than its interpolant; that variance,
:math:`r_i^2 = \mathrm{Var}(T(s_i) - (W T)_i)`, is part of the noise. Prior and noise are Gaussian, so the posterior is
known exactly (kriging), and samplers can be compared with it.
"""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.datasets.station_law import StationLaw, season_of
from scidiff.datasets.stations import read_stations, simulate_stations
from scidiff.errors import InputError
from scidiff.inference import Ensemble
from scidiff.noise import GaussianNoise
from scidiff.operators.sensors import LatLonPoints
from scidiff.priors import GaussianPrior
from scidiff.problems.base import Case, require, samples_of, stream
from scidiff.problems.imaging import GridProblem, tensor
from scidiff.problems.station_scores import gaussian_scores, inverse_distance, nearest, sample_scores
from scidiff.protocols import Noise, Prior

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["StationTemperature"]

PLACES = ("station_lat", "station_lon")


def places(data: xr.Dataset, kept: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of stations."""
    lat, lon = (np.asarray(data[name].values)[kept] for name in PLACES)
    return lat, lon


class StationTemperature(GridProblem):
    """Fields (lat, lon) in kelvin from stations; 137 of NOAA in the Midwest, or a simulated network.

    With a file, cases are days of the test year and nobody knows the field: `evaluate` scores withheld stations.
    Without one, cases are drawn from a known law, at the grid and the stations jointly (no interpolation).

    Arguments:
        data: File of `scidiff.datasets.read_stations`; None simulates.
        spacing: Of the grid in degrees.
        smoothness: 0.5 (exponential covariance) or 1.5 (Matern 3/2).
        first, last: Years the law is fitted to.
        test: Year of the cases, another one.
        withheld: Share of the stations set aside in simulated and stored cases.
        day: Day (1993-07-01) that is taken from a file with several; None takes the first of the test year.
        prior: Another prior of fields (1, lat, lon) in kelvin; None takes the fitted law.
        seed: Of the withheld stations and of simulated cases.
    """

    name, field, long_name, units = "stations", "temperature", "air temperature", "K"
    dims = ("lat", "lon")
    measured_long_name, measured_units, measured_dims = "observed air temperature", "K", ("station",)
    missing = True
    default_sampler = "mmps"

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        spacing: float = 1.0,
        smoothness: float = 0.5,
        first: int = 1990,
        last: int = 1992,
        test: int = 1993,
        withheld: float = 0.2,
        day: str | None = None,
        prior: str | os.PathLike[str] | Prior | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), prior, None, seed)  # type: ignore[arg-type]
        if not 0 < spacing <= 5:
            raise ValueError(f"spacing is in degrees, in (0, 5], got {spacing}.")
        if smoothness not in (0.5, 1.5):
            raise ValueError(f"smoothness must be 0.5 (exponential) or 1.5, got {smoothness}.")
        if not first <= last or first <= test <= last:
            raise ValueError(f"the test year {test} must not be one of the training years {first} to {last}.")
        if not 0 <= withheld < 1:
            raise ValueError(f"withheld is a share in [0, 1), got {withheld}.")
        self.data, self.spacing, self.smoothness, self.withheld = data, spacing, smoothness, withheld
        self.years, self.test = (first, last), test
        self.day = None if day is None else np.datetime64(day, "ns")
        self._covariances: dict[int, np.ndarray] = {}

    # The law

    @cached_property
    def network(self) -> xr.Dataset:
        """All values of all stations, read or simulated."""
        if self.data is not None:
            return read_stations(self.data)
        return simulate_stations(stream("stations", "network", self.seed), law=StationLaw.typical(self.smoothness))

    @cached_property
    def law(self) -> StationLaw:
        """Fitted to the training years; of the simulated network the one it was drawn from."""
        if self.data is None:
            return StationLaw.typical(self.smoothness)
        years = self.network.sel(time=slice(str(self.years[0]), str(self.years[1])))
        if years.sizes["time"] == 0:
            raise InputError(f"{self.data}: no day of the training years {self.years[0]} to {self.years[1]}.")
        return StationLaw.fit(years, self.smoothness)

    @cached_property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitudes and longitudes of the grid: the box of all stations, widened to multiples of the spacing."""
        found = []
        for name in PLACES:
            values = self.network[name].values / self.spacing
            low, high = math.floor(values.min() - 1e-9), math.ceil(values.max() + 1e-9)
            found.append(self.spacing * np.arange(low, max(high, low + 1) + 1))
        return found[0], found[1]

    @property
    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of every grid point, flattened."""
        lat, lon = np.meshgrid(*self.axes, indexing="ij")
        return lat.ravel(), lon.ravel()

    def covariance(self, season: int) -> np.ndarray:
        """Of the field on the flattened grid, in squared kelvin."""
        if season not in self._covariances:
            self._covariances[season] = self.law.covariance(*self.mesh, *self.mesh, season)
        return self._covariances[season]

    def gaussian(self, time: Any) -> GaussianPrior:
        """The law of the field on one day."""
        shape = tuple(map(len, self.axes))
        mean = self.law.climatology(*self.mesh, time)[0].reshape(1, *shape)
        return GaussianPrior(torch.from_numpy(mean), torch.from_numpy(self.covariance(season_of(time))))

    @cached_property
    def prior(self) -> Prior:
        """The prior that was given, else the law of the problem's day."""
        return self.gaussian(self._day()) if self._prior is None else super().prior

    def prior_for(self, observation: xr.Dataset) -> Prior:
        return self.gaussian(observation["time"].values) if self._prior is None else self.prior

    def _day(self) -> Any:
        if self.day is not None:
            return self.day
        days = self.network["time"].values
        year = days[days.astype("datetime64[Y]") == np.datetime64(str(self.test))]
        return year[0] if len(year) else days[0]

    # The measurement

    def sensors(self, observation: xr.Dataset, kept: np.ndarray) -> LatLonPoints:
        """Interpolation from the grid to some of the stations."""
        return LatLonPoints(*self.axes, *places(observation, kept))

    def operator(self, observation: xr.Dataset) -> LatLonPoints:
        return self.sensors(observation, self._seen(observation))

    def _seen(self, observation: xr.Dataset) -> np.ndarray:
        if self.measured not in observation:
            return np.ones(observation.sizes["station"], dtype=bool)
        return np.isfinite(observation[self.measured].values)

    def measurement(self, observation: xr.Dataset) -> Tensor:
        return tensor(observation[self.measured])[self._seen(observation)][None, None]

    def noise_of(self, observation: xr.Dataset) -> Noise:
        return GaussianNoise(tensor(observation["noise_std"])[self._seen(observation)][None])

    def noise_std(self, lat: np.ndarray, lon: np.ndarray, time: Any) -> np.ndarray:
        """Nugget and the variance that interpolation misses, as one standard deviation per station."""
        season, points = season_of(time), LatLonPoints(*self.axes, lat, lon)
        rows = np.zeros((len(lat), len(self.mesh[0])))
        np.add.at(rows, (np.arange(len(lat))[:, None], points.index.numpy()), points.weight.numpy())
        with_grid = self.law.covariance(lat, lon, *self.mesh, season)
        missed = self.law.std[season] ** 2 + ((rows @ self.covariance(season) - 2 * with_grid) * rows).sum(1)
        return np.sqrt(self.law.nugget[season] ** 2 + np.maximum(missed, 0))

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        for name, axis in zip(PLACES, self.axes, strict=True):
            values = np.asarray(require(observation, name, ("station",), what).values)
            bad = np.flatnonzero(~((values >= axis[0]) & (values <= axis[-1])))
            if len(bad):
                raise InputError(
                    f"{what}: '{name}' of {len(bad)} stations lies outside the domain, {axis[0]:g} to {axis[-1]:g} "
                    f"degrees: station {bad[0]} at {values[bad[0]]:g}. Leave them out."
                )
        if "time" not in observation or observation["time"].ndim or observation["time"].dtype.kind != "M":
            raise InputError(f"{what}: expected a scalar 'time', the day of the observation (datetime64).")
        if "noise_std" not in observation:
            std = self.noise_std(*places(observation), observation["time"].values)
            attrs = {"units": "K", "long_name": "standard deviation of nugget and interpolation"}
            return observation.assign(noise_std=("station", std, attrs))
        std = np.asarray(require(observation, "noise_std", ("station",), what).values)
        if not (np.isfinite(std).all() and (std > 0).all()):
            raise InputError(f"{what}: 'noise_std' must be positive and finite, found a minimum of {std.min()}.")
        return observation

    def load(self, path: str) -> xr.Dataset:
        """One day of an ``.npz`` file of stations: the problem's."""
        if self.data is None:
            raise InputError(
                f"{path}: the law must be fitted before a day is reconstructed; give the file as data= too "
                "(scidiff reconstruct stations FILE --set problem.data=FILE --set problem.day=1993-07-01)."
            )
        found = read_stations(path)
        day = self._day()
        if day not in found["time"].values:
            raise InputError(f"{path}: holds no values of {np.datetime64(day, 'D')}; give another day=.")
        return self._one_day(found, day)

    def _one_day(self, data: xr.Dataset, day: Any) -> xr.Dataset:
        one = data.sel(time=day)
        return one.rename({"temperature": self.measured})

    # Cases

    def days(self) -> np.ndarray:
        """Days of the test year, or of the simulated network."""
        time = self.network["time"].values
        return time if self.data is None else time[time.astype("datetime64[Y]") == np.datetime64(str(self.test))]

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A day of the test year with withheld stations, or a simulated one with its field."""
        if self.data is None:
            return super().case(index, generator)
        days = self.days()
        if not 0 <= index < len(days):
            raise InputError(f"{self.data}: case {index} of {len(days)} days of the test year {self.test}.")
        generator = generator or stream(self.name, "withheld", self.seed, index)
        one = self.complete(self._one_day(self.network, days[index]), "the case")
        return Case(None, self.set_aside(one, generator))

    def simulate(self, index: int, generator: Generator) -> tuple[xr.DataArray, xr.Dataset]:
        import xarray as xr

        day = self.day if self.day is not None else self.days()[(37 * index) % len(self.days())]
        (lat, lon), (lat_s, lon_s) = self.mesh, places(self.network)
        everywhere = np.concatenate([lat, lat_s]), np.concatenate([lon, lon_s])
        season, n = season_of(day), len(self.mesh[0])
        cov = self.law.covariance(*everywhere, *everywhere, season)
        root = np.linalg.cholesky(cov + 1e-9 * np.eye(len(cov)))
        e = torch.randn(2, len(cov), generator=generator, dtype=torch.float64).numpy()
        values = self.law.climatology(*everywhere, day)[0] + root @ e[0]
        truth = self.template(xr.Dataset()).copy(data=values[:n].reshape(tuple(map(len, self.axes))).astype(np.float32))
        setting = self.setting(truth.assign_coords(time=day))
        measured = values[n:] + self.law.nugget[season] * e[1, n:]
        return truth, self.set_aside(self.with_measurement(setting, measured), generator)

    def setting(self, truth: xr.DataArray) -> xr.Dataset:
        day = truth["time"].values if "time" in truth.coords else self._day()
        stations = self.network.drop_vars("temperature").drop_vars("time").assign_coords(time=day)
        return self.complete(stations, "the setting")

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        return self.set_aside(super().observe(truth, generator), generator or stream(self.name, "withheld", self.seed))

    def set_aside(self, observation: xr.Dataset, generator: Generator) -> xr.Dataset:
        """Hides a share of the stations that reported: their values move to ``held_back_observation``."""
        y = observation[self.measured]
        seen = np.flatnonzero(np.isfinite(y.values))
        order = torch.randperm(len(seen), generator=generator).numpy()
        mask = np.zeros(len(y), dtype=bool)
        mask[seen[order[: round(self.withheld * len(seen))]]] = True
        about = {"long_name": "whether a station is set aside"}
        return observation.assign(
            {
                self.measured: y.where(~mask),
                "held_back_observation": y.where(mask).assign_attrs(y.attrs),
                "held_back_mask": ("station", mask, about),
            }
        )

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        lat, lon = self.axes
        attrs = [
            {"units": f"degrees_{d}", "standard_name": s} for d, s in (("north", "latitude"), ("east", "longitude"))
        ]
        return {"lat": ("lat", lat, attrs[0]), "lon": ("lon", lon, attrs[1])}

    # Answers

    def exact(self, observation: xr.Dataset) -> GaussianPrior:
        """The posterior in closed form, again a Gaussian with ``mean``, ``variance`` and ``sample``."""
        part, prior = self.likelihood(observation), self.gaussian(observation["time"].values)
        return prior.condition(part.operator, part.noise, part.y)

    def kriging(self, observation: xr.Dataset, lat: np.ndarray, lon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (k,) of the field at any places, without a grid or its interpolation."""
        seen, time = self._seen(observation), observation["time"].values
        place = places(observation, seen)
        season = season_of(time)
        y = observation[self.measured].values[seen] - self.law.climatology(*place, time)[0]
        cov = self.law.covariance(*place, *place, season) + self.law.nugget[season] ** 2 * np.eye(len(y))
        cross = self.law.covariance(lat, lon, *place, season)
        gain = np.linalg.solve(cov, cross.T).T
        variance = self.law.std[season] ** 2 - (gain * cross).sum(1)
        return self.law.climatology(lat, lon, time)[0] + gain @ y, np.sqrt(np.maximum(variance, 0))

    def guesses(self, observation: xr.Dataset, lat: np.ndarray, lon: np.ndarray) -> dict[str, np.ndarray]:
        """Classical estimates (k,) at any places."""
        seen, time = self._seen(observation), observation["time"].values
        place = places(observation, seen)
        y = observation[self.measured].values[seen]
        return {
            "climatology": self.law.climatology(lat, lon, time)[0],
            "nearest": nearest(*place, y, lat, lon),
            "inverse_distance": inverse_distance(*place, y, lat, lon),
            "kriging": self.kriging(observation, lat, lon)[0],
        }

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        """Climatology, the nearest station, inverse squared distances, and kriging, which is exact under the law."""
        found = self.guesses(observation, *self.mesh)
        return {name: torch.from_numpy(v.astype(np.float32)) for name, v in found.items()}

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """The misfit of the data under prior and noise per observation, about 1, beside their range."""
        found = super().check(observation)
        seen, time = self._seen(observation), observation["time"].values
        place = places(observation, seen)
        season = season_of(time)
        r = observation[self.measured].values[seen] - self.law.climatology(*place, time)[0]
        cov = self.law.covariance(*place, *place, season) + self.law.nugget[season] ** 2 * np.eye(len(r))
        found["prior_chi2"] = chi2 = float(r @ np.linalg.solve(cov, r) / len(r))
        scatter = math.sqrt(2 / len(r))
        if abs(chi2 - 1) > 5 * scatter:
            found["warnings"].append(
                f"the observations have chi2 {chi2:.2f} each under the fitted law, expected 1 +- {scatter:.2f}: "
                "an unusual day, wrong units, or a station out of order."
            )
        return found

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset | None = None) -> xr.Dataset:
        """Scores of `GridProblem`, and of the values at withheld stations where the observation carries them.

        ``held_back_...``: RMSE of the mean, CRPS, coverage of the central 90 %, spread-skill ratio; with
        ``_climatology``, ``_nearest``, ``_inverse_distance`` and ``_kriging`` those of the baselines. A value is
        predicted with its noise. The CRPS of a single guess is its mean absolute error.
        """
        scores = super().evaluate(ensemble, truth)
        if isinstance(ensemble, Ensemble) or "held_back_mask" not in ensemble:
            return scores
        mask = np.asarray(ensemble["held_back_mask"].values, dtype=bool)
        if not mask.any():
            return scores
        aside, time = ensemble["held_back_observation"].values[mask], ensemble["time"].values
        shape = tuple(map(len, self.axes))
        samples = samples_of(ensemble, self.field, (1, *shape)).to(torch.float64)
        points, std = self.sensors(ensemble, mask), ensemble["noise_std"].values[mask]
        found = sample_scores(points(samples[:, 0])[:, 0].numpy(), aside, std)
        place = places(ensemble, mask)
        season = season_of(time)
        spreads = {
            "climatology": np.full(len(aside), math.hypot(self.law.std[season], self.law.nugget[season])),
            "kriging": np.hypot(self.kriging(ensemble, *place)[1], self.law.nugget[season]),
        }
        for name, guess in self.guesses(ensemble, *place).items():
            its = gaussian_scores(guess, spreads.get(name), aside)
            found |= {f"{key}_{name}": value for key, value in its.items()}
        units = {"rmse": "K", "crps": "K"}
        return scores.assign(
            {f"held_back_{k}": ((), v, {"units": units.get(k.split("_")[0], "1")}) for k, v in found.items()}
        )
