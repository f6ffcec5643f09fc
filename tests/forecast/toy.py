"""A forecaster that is a formula: x' = a x + b f + q e, so that every forecast is known."""

import time

import numpy as np
import torch
import xarray as xr
from torch import nn

from scidiff.forecast import Forecaster, StateSpec
from scidiff.forecast.base import streams_of

LAT, LON = np.array([45.0, 15.0, -15.0, -45.0]), np.arange(0.0, 50.0, 10.0)
DAY = np.timedelta64(1, "D")
PAUSE = 0.0  # seconds per call, for tests that kill a run


class AR(Forecaster):
    """x' = a x + b (sum of the forcings) + q e in normalised units, window and horizon as given."""

    def __init__(self, a=0.8, q=0.5, horizon=2, window=1, b=0.0):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(float(a)))
        self.q, self.horizon, self.window, self.b = q, horizon, window, b

    @property
    def config(self):
        return {"q": self.q, "horizon": self.horizon, "window": self.window, "b": self.b}

    @property
    def network_calls(self):
        return self.horizon

    def sample(self, state, forcing=None, *, generator=None, correct=None):
        time.sleep(PAUSE)
        streams, x, found = streams_of(generator, len(state)), state[:, -1], []
        if self.window > 1:
            x = state.mean(1)
        for lead in range(1, self.horizon + 1):
            x = self.a * x + self.q * streams.randn_like(x)
            if forcing is not None:
                x = x + self.b * forcing[:, self.window - 1 + lead].sum(1, keepdim=True)
            x = x if correct is None else correct(x, float(lead))
            found.append(x)
        return torch.stack(found, 1)


def fields(times=12, land=False, seed=0, start="2001-01-01"):
    """Pressure (Pa), temperature (K) at two levels and sunshine, days apart."""
    rng = np.random.default_rng(seed)
    slp = 101300 + 800 * rng.standard_normal((times, 4, 5))
    temperature = 250 + 5 * rng.standard_normal((times, 2, 4, 5)) + np.array([0.0, 30.0])[:, None, None]
    if land:
        slp[:, 1, 2:4] = np.nan
    coords = {
        "time": np.datetime64(start, "ns") + np.arange(times) * DAY,
        "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"}),
        "level": ("level", [500.0, 850.0]),
    }
    return xr.Dataset(
        {
            "slp": (("time", "lat", "lon"), slp.astype("f4"), {"units": "Pa", "long_name": "pressure"}),
            "t": (("time", "level", "lat", "lon"), temperature.astype("f4"), {"units": "K"}),
            "sun": (("time", "lat", "lon"), rng.uniform(0, 400, (times, 4, 5)).astype("f4"), {"units": "W m-2"}),
            "height": (("lat", "lon"), rng.uniform(0, 3000, (4, 5)).astype("f4"), {"units": "m"}),
        },
        coords,
    )


def spec_of(ds, names=("slp", "t"), **options):
    return StateSpec.fit(ds, names, **options)
