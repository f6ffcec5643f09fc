r"""Decoupled annealing with codes (latent DAPS).

`DAPS` with :math:`x = G(u)`: from level a to level b a clean code is drawn given the noisy one and the data, and fresh
noise of level b is put on it,

.. math:: u_0 \sim N(u_0;\, m, C)\; p(y | G(u_0)), \qquad u_b = u_0 + b\,z .

For a linear decoder, linear operators and Gaussian noise the draw has a closed form; otherwise `langevin` moves the
code of the level before, each move one pass through the decoder and back. The paper moves by Hamiltonian Monte Carlo.

``width`` says what stands for the law of the clean code given the noisy one, see `scidiff.posterior.daps`: "exact"
takes mean and covariance :math:`a^2 J` of the denoiser, and **is exact for Gaussian codes and linear decoders**;
"white" replaces the covariance by :math:`a^2/(1 + a^2)`, that of independent codes of unit variance, which a
KL-regularised autoencoder aims at, and needs no Jacobian of the network; "published" is the paper's, too wide.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from scidiff.posterior.base import Run
from scidiff.posterior.daps import DAPS
from scidiff.posterior.latent import LatentSampler
from scidiff.schedules import Schedule, describe, log_linear

__all__ = ["LatentDAPS"]


@dataclass(frozen=True, repr=False)
class LatentDAPS(LatentSampler):
    """Decoupled annealing of codes: draws a clean code given noisy one and data, then adds noise of the next level.

    Diagnostics: those of `DAPS`.

    Arguments:
        steps: Number of noise levels; the paper's latent experiments take 50.
        schedule: Noise levels.
        width: "exact", "white" or "published".
        iterations: Largest number of products with C in the solver (linear decoders).
        lanczos: Largest number of products with C in a draw of N(0, C).
        tolerance: Relative tolerance of both.
        moves: Langevin moves per level, one pass through the decoder and back each (other decoders).
        ode_steps: Euler steps of the published centre; the paper's latent experiments take 2.

    References:
        Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing (Zhang et al., 2024),
        arXiv:2407.01521.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient"})

    steps: int = 50
    schedule: Schedule = functools.partial(log_linear, sigma_min=0.02)
    width: Literal["exact", "white", "published"] = "exact"
    iterations: int = 12
    lanczos: int = 12
    tolerance: float = 1e-2
    moves: int = 10
    ode_steps: int = 2

    def __post_init__(self) -> None:
        self._method()  # validates

    def __repr__(self) -> str:
        return describe(self)

    def _method(self) -> DAPS:
        return DAPS(
            self.steps,
            self.schedule,
            self.width,
            self.iterations,
            self.lanczos,
            self.tolerance,
            self.moves,
            self.ode_steps,
        )

    def draw(self, run: Run) -> Tensor:
        return self._method().draw(run)
