r"""Denoising diffusion restoration models (DDRM).

Works in the singular vectors of the whitened operator, see `scidiff.posterior.spectrum`: the data say
:math:`\bar y_i = s_i c_i + n_i` with :math:`n_i \sim N(0, 1)`, so :math:`m_i = \bar y_i / s_i` knows :math:`c_i` with
the standard deviation :math:`t_i = 1 / s_i`. With :math:`c_D = V^\top D`, :math:`c_a = V^\top u_a` and fresh normal
numbers z, a step from level a to level b is

.. math::
    c_b = \begin{cases}
        c_D + \sqrt{1 - \eta^2}\,\frac{b}{a}(c_a - c_D) + \eta b z & s = 0, \\
        c_D + \sqrt{1 - \eta^2}\,\frac{b}{t}(m - c_D) + \eta b z & b < t, \\
        (1 - \eta_b)\, c_D + \eta_b\, m + \sqrt{b^2 - \eta_b^2 t^2}\; z & b \ge t,
    \end{cases}

the first line also for what V does not reach. Where the denoised state is right, :math:`D = u_0`, each line gives
:math:`c_b` the law :math:`N(c_0, b^2)`: noise of the data takes the place of noise of the diffusion, whatever the
singular value.

**Not the exact posterior**, for two reasons. The step puts D in the place of :math:`u_0` and ignores the variance of
:math:`u_0` given :math:`u_a`: where the data are silent, draws are too narrow, and a larger ``eta`` forgets more. And
the noise of the data is the same at every step: where :math:`t > b` it is added again and again as if it were fresh,
which moves the mean; this grows with the number of steps and is worst for singular values near the noise. The settings
of the authors' code, 20 steps with ``eta=0.85``, lose a third of the variance on a half-seen Gaussian field; the
defaults here keep more than four fifths of it. See docs/certificate.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import MemberSampler, Run
from scidiff.posterior.spectrum import Spectrum
from scidiff.rng import Streams
from scidiff.samplers.base import Path, level
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["DDRM", "begin", "restore"]


def begin(spectrum: Spectrum, sigma: float, streams: Streams, like: Tensor) -> Tensor:
    r"""The first state (rows, \*S): :math:`c \sim N(m, \sigma^2 - t^2)` where :math:`t \le \sigma`, else
    :math:`N(0, \sigma^2)`.
    """
    z = streams.randn_like(like)
    near = spectrum.s * sigma >= 1
    t = 1 / torch.where(near, spectrum.s, 1)
    c_z = spectrum.analyse(z)
    change = t * spectrum.y + ((sigma**2 - t**2).clamp(min=0).sqrt() - sigma) * c_z
    return sigma * z + spectrum.synthesise(torch.where(near, change, 0))


def restore(
    spectrum: Spectrum, u: Tensor, D: Tensor, a: float, b: float, streams: Streams, eta: float, eta_b: float = 1.0
) -> Tensor:
    r"""One step from level a to level b of states ``u`` with denoised states ``D``, (rows, \*S)."""
    s, y, kept = spectrum.s, spectrum.y, (1 - eta**2) ** 0.5
    e = (u - D) / a
    if b == 0:
        return D
    z = streams.randn_like(u)
    c_D, c_e, c_z = spectrum.analyse(D), spectrum.analyse(e), spectrum.analyse(z)
    near = s * b >= 1
    t = 1 / torch.where(near, s, 1)
    # what the second and third line differ by from the first, which is made for the whole state
    far = kept * b * (y - s * c_D - c_e)
    close = eta_b * (t * y - c_D) + ((b**2 - (eta_b * t) ** 2).clamp(min=0).sqrt() - eta * b) * c_z - kept * b * c_e
    change = torch.where(near, close, torch.where(s > 0, far, 0))
    return D + kept * b * e + eta * b * z + spectrum.synthesise(change)


@dataclass(frozen=True, repr=False)
class DDRM(MemberSampler):
    """Denoising diffusion restoration: data and diffusion noise exchanged in each singular vector.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls. Authors' code: 20.
        eta: Share of fresh noise where the data say less than the level. Authors' code: 0.85.
        eta_b: Weight of the data where they say more than the level.
        schedule: Noise levels.

    References:
        Denoising Diffusion Restoration Models (Kawar et al., 2022), arXiv:2201.11793, equations (7) and (8).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"svd", "gaussian"})

    steps: int = 50
    eta: float = 0.5
    eta_b: float = 1.0
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        Path("DDRM", self.schedule(self.steps).tolist())
        for name in ("eta", "eta_b"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        spectrum, p = Spectrum.of(run.posterior), run.posterior
        path = Path("DDRM", self.schedule(self.steps).tolist(), run.callback)
        like = torch.empty(len(run.streams), *(p.shape or ()), dtype=p.dtype, device=p.device)
        with torch.no_grad():
            u = begin(spectrum, path.levels[0], run.streams, like)
            for a, b in path:
                D = run.denoise(u, level(u, a))
                u = path.report(restore(spectrum, u, D, a, b, run.streams, self.eta, self.eta_b))
        return u
