r"""DDIM written for variance-exploding noise.

.. math:: u_b = D + \sqrt{b^2 - c^2}\,\frac{u_a - D}{a} + c\,z, \qquad
          c = \eta\,b\sqrt{1 - b^2/a^2}, \quad z \sim N(0, I)

With eta = 0 it is Euler's method on the probability-flow ODE (order 1), with eta = 1 it is `DDPM`. The change of
variables from the paper's :math:`x_t` is :math:`x_t = u / \sqrt{1 + \sigma^2}`, exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level
from scidiff.schedules import Schedule, vp_linear

__all__ = ["DDIM"]


@dataclass(frozen=True, repr=False)
class DDIM(Sampler):
    """Denoising diffusion implicit model.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls.
        schedule: Noise levels; the default takes ``steps`` of the 1000 levels of DDPM, evenly spaced in time.
        eta: 0 is deterministic, 1 is DDPM.

    References:
        Denoising Diffusion Implicit Models (Song, Meng and Ermon, 2021), arXiv:2010.02502, equations (12) and (16).
    """

    steps: int = 100
    schedule: Schedule = vp_linear
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, got {self.eta}.")

    def step(self, u: Tensor, D: Tensor, a: float, b: float, streams: Streams) -> Tensor:
        """One step from level ``a`` to level ``b``."""
        c = self.eta * b * (1 - b**2 / a**2) ** 0.5
        u = D + (b**2 - c**2) ** 0.5 / a * (u - D)
        return u + c * streams.randn_like(u) if c > 0 else u

    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        path = self.path(callback, correct)
        for a, b in path:
            D = denoise(u, level(u, a))
            u = path.report(self.step(u, D, a, b, streams))
        return u
