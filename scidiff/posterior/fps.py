r"""Filtering posterior sampling (FPS-SMC): data made noisy along with the state, then a particle filter.

In the singular vectors of the whitened operator (see `spectrum`) the data are :math:`\bar y_i = s_i c_i + n_i`. One
path of forward noise :math:`W` turns them into data of every level, :math:`\bar y_a = \bar y + s\,W_a`, drawn from the
first level down by :math:`W_b = \frac{b^2}{a^2} W_a + b\sqrt{1 - b^2/a^2}\,z` and shared by all particles. They are
potentials of the noised state,

.. math:: g_a(u_a) = \prod_i N(\bar y_{a,i};\; s_i c_i(u_a),\; 1 + \kappa s_i^2 a^2), \qquad g_0 = p(y | u_0) .

With the prior transition :math:`N(m, v)` of `smc` a particle moves by the product of transition and potential, and

.. math:: \log w_b = \log w_a + \sum_i \log N(\bar y_{b,i}; s_i m_i, 1 + \kappa s_i^2 b^2 + s_i^2 v)
          - \log g_a(u_a) .

**Two laws.** As published, :math:`\kappa = 0` and nothing is divided by :math:`g_a` (``published=True``): a filter for
data that were measured anew at every level. That counts the data once per level, so its spread is too small however
many particles there are. By default the potentials are twists that cancel (see `smc`), wide enough
(:math:`\kappa = 3`) to be divided by; then the limit of many particles is the posterior. The path knows nothing of
the prior, so that particles are resampled at every second level; `mcgdiff` and `tds` do the same task better.
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

__all__ = ["FPS"]


@dataclass(frozen=True, repr=False)
class FPS(SMCSampler):
    """Filtering posterior sampling: a path of noisy data guides the particles; exact for many particles.

    Diagnostics as in `TDS`; ``published=True`` gives no evidence. One network call per step, no vector-Jacobian
    products.

    Arguments:
        particles: Number K of particles per population.
        steps: Number of levels, one network call each.
        schedule: Noise levels. Data much less noisy than the last level before zero need a smaller one.
        threshold: Fraction of K below which the effective sample size makes particles be resampled.
        kappa: Variance of the potentials in units of the noise of the path, positive; not used if ``published``.
        published: Whether to run the filter of the paper, which is not the posterior; see above.

    References:
        Diffusion Posterior Sampling for Linear Inverse Problem Solving: A Filtering Perspective (Dou and Song, 2024),
        International Conference on Learning Representations.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "svd"})

    particles: int = 4096
    kappa: float = 3.0
    published: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kappa > 0:
            raise ValueError(f"kappa must be positive, got {self.kappa}; published=True runs the filter of the paper.")

    def draw(self, run: Run) -> Tensor:
        path, center, particles = self.path(run), Center(), Particles(run, self.threshold)
        spectrum, first, shape = Spectrum.of(run.posterior), path.levels[0], tuple(run.posterior.shape or ())
        s, kappa = spectrum.s, 0.0 if self.published else self.kappa

        def place(u: Tensor, c: Tensor) -> Tensor:
            """The state u with the coefficients c."""
            return u + spectrum.synthesise(c - spectrum.analyse(u))

        def shared() -> Tensor:
            """Normal numbers (rows, k), one vector per observation: that of its first particle."""
            z = run.streams.randn((len(s),), run.posterior.device, run.posterior.dtype)
            return z[: particles.B].repeat(particles.K, 1)

        def guide(m: Tensor, v: float, data: Tensor, b: float, z: Tensor) -> tuple[Tensor, Tensor]:
            """Draw from N(m, v) times the potential at level b, and log of the integral, (rows,)."""
            w = 1 + kappa * s**2 * b**2
            total = w + s**2 * v
            c = m + s * v / total * (data - s * m) + (v * w / total).sqrt() * z
            return c, log_normal(data - s * m, total).sum(1)

        W = first * shared()
        data = spectrum.y + s * W
        normal = run.streams.randn(shape, run.posterior.device, run.posterior.dtype)
        c, gain = guide(torch.zeros_like(W), first**2, data, first, spectrum.analyse(normal))
        u, last = place(first * normal, c), torch.zeros_like(normal)
        particles.weigh(gain, first)
        for a, b in path:
            u, last = particles.resample(u, last)
            D = piecewise(run, lambda part, w, a=a: part.denoise(w, level(w, a)), u)
            middle = center(D, last, a, b)
            last, keep = D, b**2 / a**2
            v = b**2 * (1 - keep)
            old = 0.0
            if not self.published:
                old = log_normal(data - s * spectrum.analyse(u), 1 + kappa * s**2 * a**2).sum(1)
            W = keep * W + (v**0.5 * shared() if b > 0 else 0)
            data = spectrum.y + s * W
            normal = run.streams.randn_like(u) if b > 0 else torch.zeros_like(u)
            m = keep * u + (1 - keep) * middle
            c, gain = guide(spectrum.analyse(m), v, data, b, spectrum.analyse(normal))
            particles.weigh(gain - old, a)
            u = path.report(place(m + v**0.5 * normal, c))
        constant = likelihood_constant(run, spectrum.y) + 0.5 * math.log(2 * math.pi) * len(s)
        return particles.finish(u, constant + (torch.nan if self.published else 0.0))
