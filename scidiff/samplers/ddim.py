r"""DDIM written for variance-exploding noise.

.. math:: u_b = D + \sqrt{b^2 - c^2}\,\frac{u_a - D}{a} + c\,z, \qquad
          c = \eta\,b\sqrt{1 - b^2/a^2}, \quad z \sim N(0, I)

With eta = 0 it is Euler's method on the probability-flow ODE (order 1), with eta = 1 it is `DDPM`. The change of
variables from the paper's :math:`x_t` is :math:`x_t = u / \sqrt{1 + \sigma^2}`, exact.

**Inversion** (eta = 0) carries a field up to the noise from which DDIM draws it. The step down from a to b, solved for
the state at a, is :math:`u_a = D(u_a, a) + (a/b)(u_b - D(u_a, a))`. The usual inversion puts :math:`D(u_b, b)` in its
place, which is Euler's method on the way up; the way up and down is then exact to first order. Each fixed-point
iteration on the equation makes it exact to one order more (it converges where :math:`a/b < 2`). The field is taken as
the state at the smallest level :math:`\sigma_{min}`, which leaves an error of :math:`\sigma_{min}^2` times the score.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scidiff.protocols import Callback, Denoiser, Prior
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Path, Sampler, level
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

    def encode(self, prior: Prior, x: Tensor, iterations: int = 0) -> Tensor:
        r"""The state at the largest noise level from which `decode` gives ``x``.

        Arguments:
            prior: Prior whose denoiser carries the field.
            x: Fields in physical units, (B, \*X).
            iterations: Fixed-point iterations per step, one denoiser call each, after the first one.

        Returns:
            (B, \*S); divided by the largest noise level about standard normal where the prior knows the field.
        """
        self._deterministic()
        if iterations < 0:
            raise ValueError(f"iterations must not be negative, got {iterations}.")
        path = Path("DDIM inversion", self.levels()[-2::-1])
        with torch.no_grad():
            u = prior.encode(x)
            for b, a in path:
                D = prior.denoise(u, level(u, b))
                above = D + (a / b) * (u - D)
                for _ in range(iterations):
                    D = prior.denoise(above, level(u, a))
                    above = D + (a / b) * (u - D)
                u = path.report(above)
        return u

    def decode(self, prior: Prior, u: Tensor) -> Tensor:
        r"""The fields (B, \*X) that DDIM draws from states (B, \*S) at the largest noise level."""
        self._deterministic()
        with torch.no_grad():
            return prior.decode(self.integrate(prior.denoise, u, Streams(0, [])))

    def _deterministic(self) -> None:
        if self.eta > 0:
            raise ValueError(f"only the deterministic DDIM has an inverse: take eta=0, got {self.eta}.")

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
