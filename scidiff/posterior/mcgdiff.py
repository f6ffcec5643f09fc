r"""Monte Carlo guided diffusion (MCGDiff): the data as a noiseless observation of a noised state.

In the singular vectors of the whitened operator (see `spectrum`) the data are :math:`\tau_i = \bar y_i / s_i
= c_i + t_i n_i` with the **matched level** :math:`t_i = 1/s_i`: the law of component i of the state at noise level
:math:`t_i`. So :math:`\tau_i` is taken for a noiseless observation of that component of :math:`u_{t_i}`. Above that
level particles carry the potential

.. math:: g_a(u_a) = \prod_{i: t_i < a} N(\tau_i; c_i(u_a),\; a^2 - t_i^2),

below it they are free. With the prior transition :math:`N(m_i, v)` of `smc` from a to b and :math:`z \sim N(0, 1)`

* :math:`t_i < b`: weight :math:`N(\tau_i; m_i, v + b^2 - t_i^2) / g_{a,i}`, move :math:`c_i = K\tau_i + (1 - K) m_i
  + \sqrt{K (b^2 - t_i^2)}\,z`, :math:`K = v / (v + b^2 - t_i^2)`: the optimal kernel;
* :math:`b \le t_i < a`: the same transition from a to :math:`t_i` gives mean :math:`m_i'` and variance :math:`v'`, the
  weight is :math:`N(\tau_i; m_i', v') / g_{a,i}`, then :math:`\tau_i` itself moves on to b as the transition says;
* :math:`t_i \ge a`: the transition.

Components matched above the first level say almost nothing; they weigh the particles at the end. The paper takes the
nearest level of the grid for :math:`t_i` and widens the potential by :math:`10^{-4}(1 + t_i^2)`; splitting the step
needs neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import Run
from scidiff.posterior.population import piecewise
from scidiff.posterior.smc import Center, Particles, SMCSampler, likelihood_constant, log_normal
from scidiff.posterior.spectrum import Spectrum
from scidiff.samplers.base import level

__all__ = ["MCGDiff"]


@dataclass(frozen=True, repr=False)
class MCGDiff(SMCSampler):
    """Monte Carlo guided diffusion: data as observations of noised states, no gradients; exact for many particles.

    Diagnostics as in `TDS`. One network call per step, no vector-Jacobian products.

    Arguments:
        particles: Number K of particles per population; the paper has 64.
        steps: Number of levels, one network call each; the paper has 100.
        schedule: Noise levels. Data much less noisy than the last level before zero need a smaller one.
        threshold: Fraction of K below which the effective sample size makes particles be resampled.

    References:
        Monte Carlo guided Diffusion for Bayesian linear inverse problems (Cardoso et al., 2024), arXiv:2308.07983,
        algorithm 1 and section 3.2 (noisy case).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "svd"})

    particles: int = 512
    steps: int = 200

    published: bool = False

    def draw(self, run: Run) -> Tensor:
        path, center, particles = self.path(run), Center(), Particles(run, self.threshold)
        spectrum, first, shape = Spectrum.of(run.posterior), path.levels[0], tuple(run.posterior.shape or ())
        early = spectrum.s > 1 / first
        t = torch.where(early, 1 / spectrum.s, math.inf)
        tau = torch.where(early, spectrum.y * t, 0)

        def potential(s: float) -> tuple[Tensor, Tensor]:
            """Slope rho and variance w of the potential N(tau; rho c, w) at level s; flat where t >= s."""
            t2 = torch.where(t < s, t**2, 0)
            rho = torch.ones_like(t2) if self.published else (1 + t2) / (1 + s**2)
            return rho, torch.where(t < s, rho * (s**2 - t2), 1)

        def guide(m: Tensor, v: float, s: float, z: Tensor) -> tuple[Tensor, Tensor]:
            """Draw from N(m, v) times the potential at level s, and log of the integral, by component."""
            rho, w = potential(s)
            total = w + rho**2 * v
            c = m + rho * v / total * (tau - rho * m) + (v * w / total).sqrt() * z
            return c, log_normal(tau - rho * m, total)

        def place(u: Tensor, c: Tensor) -> Tensor:
            """The state u with the coefficients c."""
            return u + spectrum.synthesise(c - spectrum.analyse(u))

        # the first level: the prior N(0, first^2) times its potential
        normal = run.streams.randn(shape, run.posterior.device, run.posterior.dtype)
        z = spectrum.analyse(normal)
        c, gain = guide(torch.zeros_like(z), first**2, first, z)
        u, last = place(first * normal, torch.where(early, c, first * z)), torch.zeros_like(normal)
        particles.weigh(torch.where(early, gain, 0).sum(1), first)
        for a, b in path:
            u, last = particles.resample(u, last)
            D = piecewise(run, lambda part, w, a=a: part.denoise(w, level(w, a)), u)
            middle = center(D, last, a, b)
            last, keep = D, b**2 / a**2
            v = b**2 * (1 - keep)
            normal = run.streams.randn_like(u) if b > 0 else torch.zeros_like(u)
            free = keep * u + (1 - keep) * middle + v**0.5 * normal
            c, D_c, z = spectrum.analyse(u), spectrum.analyse(middle), spectrum.analyse(normal)
            # t < b: optimal kernel
            rho, w = potential(a)
            old = log_normal(tau - rho * c, w)
            guided, gain = guide(keep * c + (1 - keep) * D_c, v, b, z)
            # b <= t < a: from a to t, and from t to b
            now = (t >= b) & (t < a)
            part, on = torch.where(now, t**2 / a**2, 0.5), torch.where(now, b**2 / t**2, 0.5)
            reached = log_normal(tau - part * c - (1 - part) * D_c, t**2 * (1 - part))
            crossed = on * tau + (1 - on) * D_c + b * (1 - on).sqrt() * z
            new = torch.where(t < b, guided, torch.where(now, crossed, spectrum.analyse(free)))
            gain = torch.where(t < b, gain, torch.where(now, reached, old))
            particles.weigh((gain - old).sum(1), a)
            u = path.report(place(free, new))
        late = log_normal(spectrum.y - spectrum.s * spectrum.analyse(u), 1.0)
        particles.weigh(torch.where(early, 0, late).sum(1), path.levels[-2])
        constant = likelihood_constant(run, spectrum.y) + 0.5 * math.log(2 * math.pi) * len(t)
        return particles.finish(u, constant + torch.where(early, t, 1).double().log().sum())
