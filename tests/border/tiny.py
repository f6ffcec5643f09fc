"""A small problem of a user's own, with exact parts: blurred temperatures on a grid of unequal sides, in kelvin.

Importable by the subprocesses of the tests: ``python -c "import tiny"`` with this folder on the path.
"""

import os

import numpy as np
import torch
import xarray as xr

from scidiff.errors import InputError
from scidiff.inference import Likelihood, Posterior
from scidiff.linalg import Stationary
from scidiff.noise import GaussianNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.operators.mask import Mask
from scidiff.priors import GaussianPrior


class Temperature:
    """``y = A x + n`` with a fixed random ``A``; ``x`` a (1, 5, 8) field in kelvin, 280 +- 5."""

    name, field, default_sampler = "temperature", "temperature", "mmps"

    def __init__(self, std=0.5, shape=(1, 5, 8)):
        self.std, self.shape = std, tuple(shape)
        d = int(np.prod(shape))
        g = torch.Generator().manual_seed(3)
        self.matrix = torch.randn(d // 2, d, generator=g) / d**0.5
        self.mean = torch.full(self.shape, 280.0)
        distance = (torch.arange(d)[:, None] - torch.arange(d)).abs()
        self.cov = 25 * torch.exp(-distance / 3.0)
        self.prior = GaussianPrior(self.mean, self.cov)

    def config(self):
        return {"std": self.std, "shape": list(self.shape)}

    def case(self):
        x = self.prior.sample(1, torch.Generator().manual_seed(1))
        x = x.reshape(1, *self.shape).float()
        y = LinearMap(self.matrix, self.shape)(x)
        y = y + self.std * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        truth = self.template(None).copy(data=x[0, 0].numpy()).to_dataset()
        return truth, xr.Dataset({"radiance": ("sensor", y[0].numpy(), {"units": "K"})})

    def read(self, source):
        if isinstance(source, (str, os.PathLike)):
            if not os.path.exists(source):
                raise InputError(f"{source}: no such file.")
            source = xr.load_dataset(source)
        if "radiance" not in source:
            raise InputError("expected a variable 'radiance'.")
        return source

    def posterior(self, observation):
        y = torch.as_tensor(observation["radiance"].values)[None]
        return Posterior(self.prior, Likelihood(LinearMap(self.matrix, self.shape), GaussianNoise(self.std), y))

    def template(self, observation):
        _, ny, nx = self.shape
        coords = {
            "y": ("y", 0.5 + 2.0 * np.arange(ny), {"units": "km"}),
            "x": ("x", 2.0 * np.arange(nx), {"units": "km"}),
        }
        attrs = {"units": "K", "long_name": "temperature", "standard_name": "air_temperature"}
        return xr.DataArray(np.zeros((ny, nx), np.float32), coords, ("y", "x"), "temperature", attrs)

    def check(self, observation):
        return {"noise_std": self.std}

    def evaluate(self, result, truth):
        error = result["temperature"].mean("member") - truth["temperature"]
        return xr.Dataset({"rmse": np.sqrt((error**2).mean())})

    def plot(self, result):
        from scidiff.plots import result_figure

        return result_figure(result)


class Waves(Temperature):
    """A sea surface of 640 x 512 points, stationary waves, seen through a mask: large fields, cheap steps."""

    name, field = "waves", "height"

    def __init__(self):
        ky, kx = torch.meshgrid(torch.fft.fftfreq(640), torch.fft.fftfreq(512), indexing="ij")
        spectrum = torch.exp(-((ky**2 + kx**2) / 0.02)).double()
        self.prior = GaussianPrior(torch.zeros(1, 640, 512), Stationary(spectrum / spectrum.mean(), (1, 640, 512), 2))
        self.mask = torch.rand(1, 640, 512, generator=torch.Generator().manual_seed(4)) < 0.1

    def config(self):
        return {}

    def data(self):
        y = torch.randn(int(self.mask.sum()), generator=torch.Generator().manual_seed(5))
        return xr.Dataset({"radiance": ("sensor", y.numpy(), {"units": "m"})})

    def posterior(self, observation):
        y = torch.as_tensor(observation["radiance"].values)[None]
        return Posterior(self.prior, Likelihood(Mask(self.mask), GaussianNoise(0.1), y))

    def template(self, observation):
        return xr.DataArray(np.zeros((640, 512), np.float32), dims=("y", "x"), name="height", attrs={"units": "m"})

    def check(self, observation):
        return {}
