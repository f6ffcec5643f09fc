"""The exact problems by name, with the members that a certificate draws for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from scidiff.benchmark.elliptic import elliptic
from scidiff.benchmark.exact import ExactProblem, blur, blurred_sensors, inpainting, linear_latent, modes
from scidiff.benchmark.nonlinear import counts, cube, product, speed

__all__ = ["PROBLEMS", "Entry"]

KELVIN = {"loc": 280.0, "scale": 5.0}


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue.

    Arguments:
        build: ``build(seed=0)`` gives the problem; the seed draws truth, noise and what else varies.
        summary: One line about it.
        members: Members of a full run.
        quick: Members of a quick run; 0 leaves the problem out.
        instances: Draws of the problem per seed of a full run, for problems whose draws differ much.
        slow: Members of methods that cost too much here, see `scidiff.benchmark.certify.SLOW`; 0 for as many as all.
    """

    build: Callable[..., ExactProblem]
    summary: str
    members: int = 512
    quick: int = 0
    instances: int = 1
    slow: int = 0


PROBLEMS: dict[str, Entry] = {
    "inpainting": Entry(
        inpainting, "Gaussian field 8x8, half of the pixels seen, noise a third of the standard deviation", quick=128
    ),
    "inpainting-kelvin": Entry(
        partial(inpainting, **KELVIN), "the inpainting problem around 280 K with a standard deviation of 5 K"
    ),
    "blurred-sensors": Entry(
        blurred_sensors,
        "Gaussian field 8x8 seen by 24 overlapping footprints, noise a tenth of its standard deviation",
        quick=128,
    ),
    "blurred-sensors-kelvin": Entry(
        partial(blurred_sensors, **KELVIN), "the blurred sensors around 280 K with a standard deviation of 5 K"
    ),
    "blur": Entry(blur, "periodic field 64x64 through a blur of 2 pixels, noise 0.05", members=64, quick=8, slow=16),
    "linear-latent": Entry(
        linear_latent,
        "fields 12x16 with a linear code of 32 numbers seen by 24 overlapping footprints, noise a tenth",
        quick=128,
    ),
    "modes-1": Entry(
        partial(modes, 1),
        "25 Gaussians in 8 dimensions, one number seen: about two modes remain, one to five",
        members=256,
        instances=3,
    ),
    "modes-2": Entry(partial(modes, 2), "25 Gaussians in 8 dimensions, two numbers seen", members=256, instances=3),
    "modes-4": Entry(
        partial(modes, 4), "25 Gaussians in 8 dimensions, four numbers seen", quick=64, members=256, instances=3
    ),
    "poisson-inverse": Entry(
        partial(elliptic, "poisson", "inverse"),
        "source of Poisson's equation 64x64 from its solution at 123 points",
        members=64,
        quick=8,
        slow=16,
    ),
    "poisson-forward": Entry(
        partial(elliptic, "poisson", "forward"),
        "solution of Poisson's equation 64x64 from its source at 123 points",
        members=64,
        slow=16,
    ),
    "helmholtz-inverse": Entry(
        partial(elliptic, "helmholtz", "inverse"),
        "source of Helmholtz' equation 64x64 from its solution at 123 points",
        members=64,
        slow=16,
    ),
    "helmholtz-forward": Entry(
        partial(elliptic, "helmholtz", "forward"),
        "solution of Helmholtz' equation 64x64 from its source at 123 points",
        members=64,
        slow=16,
    ),
    "speed": Entry(speed, "two numbers, their speed seen with Gaussian noise: one mode, an arc"),
    "speed-two": Entry(
        partial(speed, two=True), "two numbers of which one is small, their speed seen with Gaussian noise: two modes"
    ),
    "cube": Entry(cube, "two numbers, their cubes seen with Gaussian noise: one mode"),
    "product": Entry(product, "two numbers, their product seen with Gaussian noise: two modes", quick=128),
    "counts": Entry(counts, "two numbers, counts at a rate of four times their speed: Poisson noise, one mode"),
}
