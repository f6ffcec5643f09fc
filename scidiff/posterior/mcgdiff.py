r"""Monte Carlo guided diffusion (MCGDiff): the data as a noiseless observation of a noised state.

In the singular vectors of the whitened operator (see `spectrum`) the data are :math:`\tau_i = \bar y_i / s_i
= c_i + t_i n_i` with the **matched level** :math:`t_i = 1/s_i`: the law of component i of the state at noise level
:math:`t_i`. So :math:`\tau_i` is taken for a noiseless observation of that component of :math:`u_{t_i}`. Above that
level particles carry a potential, below it they are free. The published potential is the forward transition

.. math:: g_a(u_a) = \prod_{i: t_i < a} N(\tau_i; c_i(u_a),\; a^2 - t_i^2) .

With the prior transition :math:`N(m_i, v)` of `smc` from a to b

* :math:`t_i < b`: the optimal kernel, which draws from transition times :math:`g_b` and weighs with its integral over
  :math:`g_a`; for the published potential the weight is :math:`N(\tau_i; m_i, v + b^2 - t_i^2) / g_{a,i}`, the move
  :math:`c_i = K\tau_i + (1 - K) m_i + \sqrt{K (b^2 - t_i^2)}\,z`, :math:`K = v / (v + b^2 - t_i^2)`;
* :math:`b \le t_i < a`: the same transition from a to :math:`t_i` gives mean :math:`m_i'` and variance :math:`v'`, the
  weight is :math:`N(\tau_i; m_i', v') / g_{a,i}`, then :math:`\tau_i` itself moves on to b as the transition says;
* :math:`t_i \ge a`: the transition.

Components matched above the first level say almost nothing; they weigh the particles at the end. The paper takes the
nearest level of the grid for :math:`t_i` and widens the potential by :math:`10^{-4}(1 + t_i^2)`; splitting the step
needs neither.

**Potential.** Any potential gives the same limit of many particles; the published one knows nothing of the prior and
is resampled often where components of the field are correlated. The default (`JointPotential`) is the backward
transition of a Gaussian field with the prior's covariance, which the denoiser reveals at the first level,
:math:`C = s_0^2\,\partial D/\partial u`; on Gaussian fields no resampling is needed. See `potentials`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.posterior.base import Run
from scidiff.posterior.population import piecewise
from scidiff.posterior.potentials import IndependentPotential, JointPotential
from scidiff.posterior.smc import Center, Particles, SMCSampler, likelihood_constant, log_normal
from scidiff.posterior.spectrum import Spectrum
from scidiff.samplers.base import level

__all__ = ["MCGDiff"]


class Potential(Protocol):
    """See `scidiff.posterior.potentials`."""

    def log(self, c: Tensor, s: float) -> Tensor: ...

    def guide(self, m: Tensor, v: Tensor, s: float, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, repr=False)
class MCGDiff(SMCSampler):
    """Monte Carlo guided diffusion: data as observations of noised states, no gradients; exact for many particles.

    Diagnostics as in `TDS`. One network call per step, no vector-Jacobian products.

    Arguments:
        particles: Number K of particles per population; the paper has 64.
        steps: Number of levels, one network call each; the paper has 100. The joint potential takes 2 d / K more.
        schedule: Noise levels. Data much less noisy than the last level before zero need a smaller one.
        threshold: Fraction of K below which the effective sample size makes particles be resampled.
        potential: "joint", "independent" (backward transition of independent components of unit variance) or
            "published".
        largest: Most components for which "joint" is taken, d for small states; above it "independent".

    References:
        Monte Carlo guided Diffusion for Bayesian linear inverse problems (Cardoso et al., 2024), arXiv:2308.07983,
        algorithm 1 and section 3.2 (noisy case).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "svd"})

    particles: int = 1024

    potential: Literal["joint", "independent", "published"] = "joint"
    largest: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.potential not in ("joint", "independent", "published"):
            raise ValueError(f"potential must be 'joint', 'independent' or 'published', got {self.potential!r}.")

    def spectrum(self, run: Run) -> Spectrum:
        """The spectrum, for small states completed by what the operator does not see (s = 0)."""
        spectrum = Spectrum.of(run.posterior)
        shape = tuple(run.posterior.shape or ())
        rows, d, k = len(run.streams), math.prod(shape), len(spectrum.s)
        if self.potential != "joint" or d > self.largest or d == k:
            return spectrum
        eye = torch.eye(k).to(spectrum.y)
        blocks = [spectrum.synthesise(e.expand(rows, k))[:1].flatten(1) for e in eye]
        rest = torch.linalg.svd(torch.cat(blocks).double()).Vh[k:]

        def analyse(u: Tensor) -> Tensor:
            return torch.cat([spectrum.analyse(u), u.flatten(1) @ rest.to(u).mT], 1)

        def synthesise(c: Tensor) -> Tensor:
            return spectrum.synthesise(c[:, :k]) + (c[:, k:] @ rest.to(c)).unflatten(
                1, tuple(run.posterior.shape or ())
            )

        zero = rest.new_zeros(d - k).to(spectrum.y)
        s, y = torch.cat([spectrum.s, zero]), torch.cat([spectrum.y, zero.expand(rows, -1)], 1)
        return Spectrum(s, y, analyse, synthesise)

    def build(self, run: Run, spectrum: Spectrum, t: Tensor, tau: Tensor, first: float) -> Potential:
        """The potential for the problem at hand."""
        if self.potential != "joint" or len(t) > self.largest:
            return IndependentPotential(tau, t, self.potential == "published")
        rows, eye = len(run.streams), torch.eye(len(t)).to(tau)
        columns = []
        for part in torch.cat([eye, -eye]).mul(first).split(rows):  # J by central differences
            u = spectrum.synthesise(torch.cat([part, part.new_zeros(rows - len(part), len(t))]))
            D = piecewise(run, lambda some, w: some.denoise(w, level(w, first)), u)
            columns.append(spectrum.analyse(D)[: len(part)])
        plus, minus = torch.cat(columns).split(len(t))
        C = first * (plus - minus) / 2
        if not bool(torch.isfinite(C).all()):
            raise NumericalError(f"the denoiser is not finite at noise level {first:.4g}.")
        return JointPotential(tau, t, C)

    def draw(self, run: Run) -> Tensor:
        path, center, particles = self.path(run), Center(), Particles(run, self.threshold)
        spectrum, first, shape = self.spectrum(run), path.levels[0], tuple(run.posterior.shape or ())
        early = spectrum.s > 1 / first
        t = torch.where(early, 1 / spectrum.s, math.inf)
        tau = torch.where(early, spectrum.y * t, 0)
        potential = self.build(run, spectrum, t, tau, first)

        def place(u: Tensor, c: Tensor) -> Tensor:
            """The state u with the coefficients c."""
            return u + spectrum.synthesise(c - spectrum.analyse(u))

        def extra() -> Tensor:
            return run.streams.randn(t.shape, run.posterior.device, run.posterior.dtype)

        # the first level: the prior N(0, first^2) times its potential
        normal = run.streams.randn(shape, run.posterior.device, run.posterior.dtype)
        z, v = spectrum.analyse(normal), torch.full_like(t, first**2)
        c, gain = potential.guide(torch.zeros_like(z), v, first, z, extra())
        u, last = place(first * normal, c), torch.zeros_like(normal)
        particles.weigh(gain, first)
        for a, b in path:
            u, last = particles.resample(u, last)
            D = piecewise(run, lambda part, w, a=a: part.denoise(w, level(w, a)), u)
            middle = center(D, last, a, b)
            last, keep = D, b**2 / a**2
            normal = run.streams.randn_like(u) if b > 0 else torch.zeros_like(u)
            free = keep * u + (1 - keep) * middle  # the mean m
            c, D_c, z = spectrum.analyse(u), spectrum.analyse(middle), spectrum.analyse(normal)
            # b <= t < a: from a to t, and from t to b
            now = (t >= b) & (t < a)
            part, on = torch.where(now, t**2 / a**2, 0.5), torch.where(now, b**2 / t**2, 0.5)
            reached = log_normal(tau - part * c - (1 - part) * D_c, a**2 * part * (1 - part))
            crossed = on * tau + (1 - on) * D_c + b * (1 - on).sqrt() * z
            m = torch.where(now, crossed, spectrum.analyse(free))
            # t < b: optimal kernel, given the components that are known by now
            v = torch.where(now, 0, b**2 * (1 - keep))
            new, gain = potential.guide(m, v, b, z, extra())
            particles.weigh(gain + torch.where(now, reached, 0).sum(1) - potential.log(c, a), a)
            u = path.report(place(free + b * (1 - keep) ** 0.5 * normal, new))
        late = log_normal(spectrum.y - spectrum.s * spectrum.analyse(u), 1.0)
        particles.weigh(torch.where(early, 0, late).sum(1), path.levels[-2])
        constant = likelihood_constant(run, spectrum.y) + 0.5 * math.log(2 * math.pi) * len(t)
        return particles.finish(u, constant + torch.where(early, t, 1).double().log().sum())
