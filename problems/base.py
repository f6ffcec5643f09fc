"""What a problem promises, and what all problems share.

A problem is the border between people and methods: it reads a measurement into an `xarray.Dataset`, states prior,
forward model and noise as a `scidiff.Posterior`, and scores and draws the answer. Its constructor's arguments are all
there is to know about it: ``config()`` gives them back, ready for JSON.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.inference import Ensemble, Posterior
from scidiff.protocols import Prior

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["AffinePrior", "Case", "Problem", "parameters", "require", "rescaled", "samples_of", "states_for", "stream"]


@dataclass(frozen=True)
class Case:
    """One question with its answer: a truth (None if nobody knows it) and what was measured of it."""

    truth: xr.Dataset | None
    observation: xr.Dataset


class Problem(Protocol):
    """Prior, forward model, noise, data and metrics of one scientific question."""

    name: str
    """Name in the registry, ``"mri"``."""
    field: str
    """Name of the variable that is reconstructed, ``"image"``."""
    default_sampler: str
    """Name in the registry of posterior samplers."""

    @property
    def prior(self) -> Prior:
        """The prior, loaded when first asked for."""
        ...

    def read(self, source: str | os.PathLike[str] | np.ndarray | xr.Dataset) -> xr.Dataset:
        """A validated observation. Raises `InputError`; an observation that was read before comes back as it is."""
        ...

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A simulated or stored case; equal indices (or generators) give equal cases."""
        ...

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """Simulates an observation of a given truth."""
        ...

    def posterior(self, observation: xr.Dataset) -> Posterior:
        """The posterior given one observation, B = 1."""
        ...

    def template(self, observation: xr.Dataset) -> xr.DataArray:
        """Dimensions, coordinates, units and type of one member; ``samples[m, 0]`` fits it after ``reshape``."""
        ...

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        """Classical answers by name, like `template`."""
        ...

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Numbers that tell whether the forward model fits the data; ``"warnings"`` is a list of sentences."""
        ...

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
        """Scores. Given the result of `scidiff.reconstruct`, also those that need the observation."""
        ...

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able."""
        ...

    def plot(self, result: xr.Dataset) -> Figure:
        """The picture of a result."""
        ...


class AffinePrior:
    """The law of ``offset + factor * x`` for a prior of ``x``: the same state ``u``, other physical units.

    Arguments:
        prior: Any prior.
        factor: Positive number.
        offset: Number.
    """

    def __init__(self, prior: Prior, factor: float, offset: float = 0.0) -> None:
        if not factor > 0:
            raise ValueError(f"factor must be positive, got {factor}.")
        self.prior, self.factor, self.offset = prior, float(factor), float(offset)
        self.affine = prior.affine
        channels = getattr(prior, "channels", None)
        if channels is not None:
            self.channels = channels
        self.card = getattr(prior, "card", {})

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of ``u``."""
        return self.prior.shape

    def on(self, grid: tuple[int, ...]) -> AffinePrior:
        """That of the prior, if it has one: the same for fields of one grid."""
        bind: Any = getattr(self.prior, "on", None)
        return self if bind is None else AffinePrior(bind(grid), self.factor, self.offset)

    def state_shape(self, field: tuple[int, ...]) -> tuple[int, ...]:
        r"""Shape of ``u`` for fields (\*X) of shape ``field``."""
        own: Any = getattr(self.prior, "state_shape", None)
        return tuple(field) if own is None else own(tuple(field))

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        """That of the prior: ``u`` has not changed."""
        return self.prior.denoise(u, sigma)

    def decode(self, u: Tensor) -> Tensor:
        """``offset + factor`` times that of the prior."""
        return self.offset + self.factor * self.prior.decode(u)

    def encode(self, x: Tensor) -> Tensor:
        """Inverse of `decode`."""
        return self.prior.encode((x - self.offset) / self.factor)


def states_for(prior: Prior, field: tuple[int, ...]) -> tuple[Prior, tuple[int, ...]]:
    r"""The prior for fields (\*X) of this shape, and the shape of its states: another one behind an autoencoder."""
    bind: Any = getattr(prior, "on", None)
    prior = prior if bind is None else bind(tuple(field[1:]))
    own: Any = getattr(prior, "state_shape", None)
    return prior, tuple(field) if own is None else own(tuple(field))


def rescaled(prior: Prior, factor: float) -> Prior:
    """The prior of ``factor * x``, by the prior's own ``rescaled`` where it has one."""
    own: Any = getattr(prior, "rescaled", None)
    return AffinePrior(prior, factor) if own is None else own(factor)


def parameters(problem: Any) -> dict[str, Any]:
    """The constructor's arguments of a problem that keeps each under its own name; a prior by its name or class."""
    found = {}
    for name in inspect.signature(type(problem)).parameters:
        value = problem.arguments[name]
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif value is not None and not isinstance(value, (str, int, float, bool, list)):
            value = getattr(value, "card", {}).get("name", type(value).__name__)
        found[name] = value
    return found


def stream(*key: int | str) -> Generator:
    """A generator whose seed is a hash of the key, so that cases with neighbouring indices have nothing in common."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def require(data: xr.Dataset, name: str, dims: tuple[str, ...], what: str) -> xr.DataArray:
    """A variable with the given dimensions, in that order.

    Raises:
        InputError: naming the variable, what was expected and what was found.
    """
    if name not in data:
        found = ", ".join(map(str, data.variables)) or "nothing"
        raise InputError(f"{what}: expected a variable '{name}' with dimensions {dims}, found {found}.")
    array = data[name]
    if set(array.dims) != set(dims):
        raise InputError(f"{what}: '{name}' has dimensions {tuple(array.dims)}, expected {dims}.")
    return array.transpose(*dims)


def samples_of(ensemble: Ensemble | xr.Dataset, field: str, shape: tuple[int, ...]) -> Tensor:
    r"""Members as a tensor (M, 1, \*shape), from an ensemble or from the result of `scidiff.reconstruct`."""
    if isinstance(ensemble, Ensemble):
        samples = ensemble.samples
    elif field in ensemble and "member" in ensemble[field].dims:
        array = ensemble[field]
        samples = torch.as_tensor(np.asarray(array.transpose("member", ...).values))
    else:
        kind = type(ensemble).__name__
        raise InputError(f"expected an Ensemble or a Dataset with '{field}' (member, ...), got {kind}.")
    if samples[0].numel() != int(np.prod(shape)):
        raise InputError(f"members have {samples[0].numel()} numbers, the truth has shape {shape}; they do not match.")
    return samples.reshape(len(samples), 1, *shape)
