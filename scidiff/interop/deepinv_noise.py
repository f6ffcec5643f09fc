"""Noise models of deepinv as laws with a density, and laws as noise models of deepinv.

deepinv's models draw; a likelihood needs the density as well. Standard deviations of deepinv's complex Gaussian noise
are of the complex number, those of scidiff of each real component: they differ by the root of two.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from scidiff.interop import deepinv_laws as laws
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.optional import optional
from scidiff.protocols import Noise

deepinv = optional("deepinv")

__all__ = ["LawNoise", "noise_from_deepinv", "noise_to_deepinv"]


def _number(model: Any, name: str) -> float:
    """A parameter that must be one number."""
    value = torch.as_tensor(getattr(model, name)).detach()
    if value.numel() != 1:
        raise ValueError(
            f"{type(model).__name__}.{name} holds {value.numel()} values, one for each row of a batch; a likelihood "
            "needs one law for all rows. Make one likelihood for each."
        )
    return float(value)


def noise_from_deepinv(model: Any, complex_data: bool = False) -> Noise:
    """The law from which a noise model of deepinv draws.

    Arguments:
        model: A `deepinv.physics.NoiseModel`.
        complex_data: Whether it acts on complex tensors.

    Raises:
        TypeError: if it has no density: no noise, impulse noise, a composition.
        ValueError: if its parameters differ from row to row, or counts are not multiplied by the gain.
    """
    kind = type(model)
    p = deepinv.physics
    if complex_data and kind is not p.GaussianNoise:
        raise TypeError(f"{kind.__name__} on complex measurements is no law known here; give noise= yourself.")
    if kind is p.GaussianNoise:
        sigma = _number(model, "sigma")
        if sigma == 0:
            raise TypeError(
                "the noise has sigma=0, so that no field explains real data; give noise=GaussianNoise(std)."
            )
        return GaussianNoise(sigma / math.sqrt(2) if complex_data else sigma)
    if kind is p.PoissonNoise:
        if not bool(model.normalize):
            raise ValueError(
                "PoissonNoise(normalize=False) measures counts of mean z / gain; `likelihood_from_deepinv` multiplies "
                "them by the gain, or write PoissonNoise(gain) for gain * y yourself."
            )
        return PoissonNoise(_number(model, "gain"))
    table = {
        p.PoissonGaussianNoise: (laws.PoissonGaussianNoise, ("gain", "sigma")),
        p.UniformGaussianNoise: (laws.UniformGaussianNoise, ("sigma_min", "sigma_max")),
        p.LogPoissonNoise: (laws.LogPoissonNoise, ("N0", "mu")),
        p.GammaNoise: (laws.GammaNoise, ("l",)),
        p.FisherTippettNoise: (laws.FisherTippettNoise, ("l",)),
        p.RicianNoise: (laws.RicianNoise, ("sigma",)),
        p.LaplaceNoise: (laws.LaplaceNoise, ("b",)),
        p.UniformNoise: (laws.UniformNoise, ("a",)),
    }
    if kind not in table:
        reason = "adds nothing" if kind is p.ZeroNoise else "has no density known here"
        raise TypeError(f"{kind.__name__} {reason}; give noise= yourself, for example GaussianNoise(std).")
    law, names = table[kind]
    return law(*(_number(model, name) for name in names))


def of_physics(physics: Any, complex_data: bool, sizes: list[int], observed: Tensor | None) -> tuple[Noise, float]:
    """The law of a whole physics and the factor by which its measurements are multiplied first.

    Arguments:
        physics: The physics.
        complex_data: Whether measurements are complex on the side of deepinv.
        sizes: Entries of each part of the measurement.
        observed: Entries that are kept.
    """
    if not isinstance(physics, deepinv.physics.StackedPhysics):
        model = physics.noise_model
        if type(model) is deepinv.physics.PoissonNoise and not bool(model.normalize):
            gain = _number(model, "gain")
            return PoissonNoise(gain), gain
        return noise_from_deepinv(model, complex_data), 1.0
    parts = [of_physics(part, complex_data, sizes[i : i + 1], None)[0] for i, part in enumerate(physics.physics_list)]
    if not all(isinstance(part, GaussianNoise) for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(
            f"a stack of instruments with {kinds} is no single law; make one likelihood for each, "
            "Posterior(prior, (likelihood, likelihood))."
        )
    each = [torch.full((n,), float(part.std)) for part, n in zip(parts, sizes, strict=True)]  # type: ignore[attr-defined]
    std = torch.cat(each)
    return GaussianNoise(std if observed is None else std[observed.flatten().cpu()]), 1.0


class Shifted(deepinv.physics.NoiseModel):
    """Adds a constant, to see where in a physics the noise goes."""

    OFFSET = 0.3

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``input`` and the constant."""
        return input + self.OFFSET


class LawNoise(deepinv.physics.NoiseModel):
    """Any law of scidiff as a noise model of deepinv.

    Arguments:
        law: A noise; complex measurements appear as they are, or as two channels.
        rng: Source of random numbers.
    """

    def __init__(self, law: Noise, rng: torch.Generator | None = None, pack: Any = None, unpack: Any = None) -> None:
        super().__init__(rng=rng)
        self.law = law
        self._pack, self._unpack = pack, unpack

    def forward(self, input: Any, seed: int | None = None, **kwargs: Any) -> Any:
        """A draw given the noiseless ``input``; other words are unused."""
        self.rng_manual_seed(seed)
        z = input if self._pack is None else self._pack(input)
        y = self.law.sample(z, self.rng)
        return y if self._unpack is None else self._unpack(y)


def noise_to_deepinv(
    noise: Noise | None,
    complex_data: bool = False,
    rng: torch.Generator | None = None,
    pack: Any = None,
    unpack: Any = None,
) -> Any:
    """A noise model of deepinv for a law: deepinv's own for one standard deviation or gain, else `LawNoise`.

    Arguments:
        noise: The law; None is no noise.
        complex_data: Whether deepinv sees complex tensors.
        rng: Source of random numbers; None takes fresh ones.
        pack: Turns what deepinv has into a measurement of the law.
        unpack: The way back.
    """
    if noise is None:
        return deepinv.physics.ZeroNoise()
    if isinstance(noise, GaussianNoise) and isinstance(noise.std, float):
        return deepinv.physics.GaussianNoise(noise.std * (math.sqrt(2) if complex_data else 1.0), rng=rng)
    if isinstance(noise, PoissonNoise) and not isinstance(noise.gain, Tensor):
        return deepinv.physics.PoissonNoise(float(noise.gain), rng=rng)
    return LawNoise(noise, rng, pack, unpack)
