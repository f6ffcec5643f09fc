r"""Denoising diffusion null-space model, for noiseless (DDNM) and noisy data (DDNM+).

The part of the denoised state that the data decide is replaced by the data, the rest is kept. In the singular vectors
of the whitened operator (`scidiff.posterior.spectrum`; :math:`c = V^\top u`, :math:`m = \bar y / s`, known with the
standard deviation :math:`t = 1/s`),

.. math:: u_{0|y} = D - V \Lambda\, (c_D - m), \qquad
          u_b = u_{0|y} + V\Phi_1 z + V \Phi_2\, \frac{c_a - c_D}{a},

over the singular vectors with s > 0; elsewhere :math:`u_{0|y} = D` with :math:`\Phi_1 = \eta b`,
:math:`\Phi_2 = \sqrt{1 - \eta^2}\, b`.

- DDNM, ``noisy=False``: :math:`\Lambda = 1` and the same :math:`\Phi_1, \Phi_2` everywhere. The draws satisfy
  :math:`A(x) = y` exactly, noise included.
- DDNM+, ``noisy=True``: :math:`\Lambda` and :math:`\Phi` so that noise of the data and fresh noise together have the
  standard deviation b: where :math:`b \ge t`, :math:`\Lambda = 1`, :math:`\Phi_1 = \sqrt{b^2 - t^2}`; where
  :math:`b < t`, :math:`\Lambda = \sqrt{1 - \eta^2}\, b / t`, :math:`\Phi_1 = \eta b`; :math:`\Phi_2 = 0` in both.
  Without time travel this is DDRM with ``eta_b=1``.

**Time travel** goes back from a level to a noisier one, :math:`u_{a'} = u_b + \sqrt{a'^2 - b^2}\, z`, and comes down
again, ``repeats`` times for each stretch of ``stretch`` levels, so that data and prior can agree.

**Not the exact posterior**, for the reasons `scidiff.posterior.ddrm` gives; DDNM moreover takes the noise of the data
for truth. See docs/certificate.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import MemberSampler, Run
from scidiff.posterior.ddrm import begin, restore
from scidiff.posterior.spectrum import Spectrum
from scidiff.rng import Streams
from scidiff.samplers.base import Path, level
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["DDNM"]


def project(spectrum: Spectrum, D: Tensor) -> Tensor:
    r"""The state nearest to ``D`` that explains the data exactly, (rows, \*S)."""
    seen = spectrum.s > 0
    m = spectrum.y / torch.where(seen, spectrum.s, 1)
    return D + spectrum.synthesise(torch.where(seen, m - spectrum.analyse(D), 0))


def replace(spectrum: Spectrum, u: Tensor, D: Tensor, a: float, b: float, streams: Streams, eta: float) -> Tensor:
    r"""One step of DDNM from level a to level b, (rows, \*S)."""
    u_b = project(spectrum, D)
    if b == 0:
        return u_b
    return u_b + eta * b * streams.randn_like(u) + (1 - eta**2) ** 0.5 * b / a * (u - D)


@dataclass(frozen=True, repr=False)
class DDNM(MemberSampler):
    """Denoising diffusion null-space model (DDNM+): the data replace what they decide; time travel as an option.

    Arguments:
        steps: Number of noise levels.
        eta: Share of fresh noise. Authors' code: 0.85.
        noisy: False takes the data as exact (DDNM), True weighs them with their noise (DDNM+).
        stretch: Levels that time travel goes back.
        repeats: How often each stretch is passed; 1 is no time travel, and ``steps`` denoiser calls.
        schedule: Noise levels.

    References:
        Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model (Wang, Yu and Zhang, 2023),
        arXiv:2212.00490, algorithms 1 and 2; eta and the general Lambda, Phi as in the authors' code.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"svd", "gaussian"})

    steps: int = 100
    eta: float = 0.85
    noisy: bool = True
    stretch: int = 1
    repeats: int = 1
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        Path("DDNM", self.schedule(self.steps).tolist())
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, got {self.eta}.")
        if self.stretch < 1 or self.repeats < 1:
            raise ValueError(f"stretch and repeats must be at least 1, got {self.stretch} and {self.repeats}.")

    def __repr__(self) -> str:
        return describe(self)

    def levels(self) -> list[float]:
        """The levels in the order in which they are visited, travels back included."""
        levels = self.schedule(self.steps).tolist()
        last = self.steps - 1
        # a stretch ends at the level with 0, stretch, 2 stretch, ... levels below it, where one above is left
        left = dict.fromkeys(range(0, self.steps - self.stretch, self.stretch), self.repeats - 1)
        order, below = [last], last
        while below > 0:
            below -= 1
            order.append(below)
            if left.get(below, 0) > 0:
                left[below] -= 1
                below += self.stretch
                order.append(below)
        return [levels[last - below] for below in order] + [0.0]

    def draw(self, run: Run) -> Tensor:
        spectrum, p = Spectrum.of(run.posterior), run.posterior
        path = Path("DDNM", self.levels(), run.callback)
        like = torch.empty(len(run.streams), *(p.shape or ()), dtype=p.dtype, device=p.device)
        with torch.no_grad():
            first = path.levels[0]
            u = begin(spectrum, first, run.streams, like) if self.noisy else first * run.streams.randn_like(like)
            for a, b in path:
                if b > a:
                    u = u + (b**2 - a**2) ** 0.5 * run.streams.randn_like(u)
                else:
                    D = run.denoise(u, level(u, a))
                    step = restore if self.noisy else replace
                    u = step(spectrum, u, D, a, b, run.streams, self.eta)
                path.report(u)
        return u
