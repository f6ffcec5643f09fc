r"""Pseudo-inverse guided diffusion (PiGDM).

The law of :math:`u_0` given :math:`u_\sigma` is taken as :math:`N(D, \hat C)`, which gives the posterior denoiser

.. math:: D_y = D + \sigma^2 J^T g, \qquad g = \tilde A^T (\tilde A \hat C \tilde A^T + I)^{-1} r(D).

- ``covariance="published"``: :math:`\hat C = r^2 I`, :math:`r^2 = \sigma^2/(1 + \sigma^2)`, the posterior variance of
  white fields of unit variance. For smooth fields it is too narrow at large :math:`\sigma`, and the data pull too much.
- ``covariance="prior"``: :math:`\hat C = \sigma^2 K (K + \sigma^2 I)^{-1}` with the prior's own covariance :math:`K`.
  For Gaussian priors this is exact. Priors that have one offer ``cov`` (of `scidiff.linalg`, physical units) and
  ``scale``, as `GaussianPrior` does.

The system is solved in measurement space by conjugate gradients, which never pass through the network, or, for
:math:`r^2 I` and operators with a decomposition (``solver="svd"``), component by component.

**Pseudo-inverse.** Operators that are not differentiable, such as `JPEG`, state ``pinv(y)`` with
:math:`h(h^+(h(x))) = h(x)`. The paper's noiseless form :math:`r^2 g = h^+(y) - h^+(h(D))` needs no gradient of them.
Where :math:`h` rounds, :math:`D_y` jumps; multi-step integrators extrapolate jumps, so take a one-step one, such as
``DDIM(100, eta=1.0)``. Each member then agrees with the data, and their mean is what restores.

`PublishedPiGDM` is the paper's algorithm: an additive kick after a DDIM step, for :math:`x_t = u / \sqrt{1 + \sigma^2}`

.. math:: u_b = \mathrm{DDIM}_\eta(u_a, D) + \sqrt{1 + b^2}\; r_a^2 J^T g.

The strength of kicks depends on the number of steps: with many steps small levels are guided far too much. The
posterior denoiser does not have this fault and is the recommended form. See docs/certificate.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scidiff.inference import Posterior
from scidiff.posterior.base import GuidedSampler, MemberSampler, Run, differentiate
from scidiff.posterior.guidance import gain, pull
from scidiff.posterior.spectrum import Spectrum
from scidiff.protocols import Denoiser
from scidiff.samplers import DDIM, DPMSolver, Sampler
from scidiff.samplers.base import level
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["PiGDM", "PublishedPiGDM"]

Guidance = Callable[[Tensor, Tensor], Tensor]
"""``g(D, sigma)``, counted, without graph."""


def by_pinv(posterior: Posterior) -> bool:
    """Whether the pseudo-inverse stands for the gradient of an operator that has none."""
    parts = posterior.likelihoods
    given = all(callable(getattr(part.operator, "pinv", None)) for part in parts)
    return given and len(parts) == 1 and not all(part.differentiable or part.linear for part in parts)


def r2(sigma: Tensor) -> Tensor:
    """Posterior variance of white fields of unit variance."""
    return sigma**2 / (1 + sigma**2)


def pseudo_inverse(run: Run) -> Guidance:
    """The noiseless form, by the operator's ``pinv``."""
    part, prior = run.posterior.likelihoods[0], run.posterior.prior
    target = prior.encode(part.operator.pinv(part.y))  # type: ignore[attr-defined]

    def g(D: Tensor, sigma: Tensor) -> Tensor:
        run.cost.operator += 1
        seen = part.matching(part.operator(prior.decode(D)))
        return (target - prior.encode(part.operator.pinv(seen))) / r2(sigma)  # type: ignore[attr-defined]

    return g


def spectral(run: Run) -> Guidance:
    r"""With :math:`r^2 I`, in the singular vectors."""
    spectrum = Spectrum.of(run.posterior)

    def g(D: Tensor, sigma: Tensor) -> Tensor:
        r = spectrum.y - spectrum.s * spectrum.analyse(D)
        return spectrum.synthesise(spectrum.s * r / (1 + r2(sigma) * spectrum.s**2))

    return g


@dataclass(frozen=True)
class PiGDM(GuidedSampler):
    """Pseudo-inverse guided diffusion: one assumed covariance of the field weighs data against prior; one product.

    Diagnostics with "cg": ``iterations`` and ``residual`` of the solver relative to the misfit.

    Arguments:
        sampler: Integrator.
        covariance: "published" or "prior", see above.
        solver: "cg" or "svd".
        iterations: Largest number of solver iterations per call; they do not pass through the network.
        tolerance: A row's solver stops at this residual relative to the misfit.

    References:
        Pseudoinverse-Guided Diffusion Models for Inverse Problems (Song et al., 2023), ICLR,
        openreview.net/forum?id=9_gsMA8MRKQ, equations (7) to (9).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    sampler: Sampler = field(default_factory=lambda: DPMSolver(64, stochastic=True))
    covariance: Literal["published", "prior"] = "published"
    solver: Literal["cg", "svd"] = "cg"
    iterations: int = 64
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.covariance not in ("published", "prior"):
            raise ValueError(f"covariance must be 'published' or 'prior', got {self.covariance!r}.")
        if self.solver not in ("cg", "svd"):
            raise ValueError(f"solver must be 'cg' or 'svd', got {self.solver!r}.")
        if self.solver == "svd" and self.covariance == "prior":
            raise ValueError("solver='svd' solves with the published covariance; take solver='cg' with 'prior'.")
        if self.iterations < 1 or not 0 <= self.tolerance < 1:
            raise ValueError(f"need iterations >= 1 and tolerance in [0, 1), got {self.iterations}, {self.tolerance}.")

    def check(self, posterior: Posterior) -> None:
        if not by_pinv(posterior):
            super().check(posterior)

    def guidance(self, run: Run) -> Guidance:
        """The g of the rows at hand."""
        if by_pinv(run.posterior):
            return pseudo_inverse(run)
        if self.solver == "svd":
            return spectral(run)
        prior = run.posterior.prior
        cov, scale = getattr(prior, "cov", None), getattr(prior, "scale", None)
        if self.covariance == "prior" and (cov is None or scale is None):
            raise TypeError(
                f"{type(prior).__name__} has no covariance (attributes cov and scale); take covariance='published'."
            )

        def g(D: Tensor, sigma: Tensor) -> Tensor:
            def product(w: Tensor) -> Tensor:
                if self.covariance == "published":
                    return r2(sigma) * w
                return sigma**2 * cov.shrink(w, (sigma * scale) ** 2)  # type: ignore[union-attr]

            return gain(run, run.measurement.linearise(D), product, self.iterations, self.tolerance)

        return g

    def condition(self, run: Run) -> Denoiser:
        g = self.guidance(run)

        def denoise(u: Tensor, sigma: Tensor) -> Tensor:
            u, D = differentiate(run, u, sigma)
            center = D.detach()
            return center + sigma**2 * pull(run, u, D, g(center, sigma))

        return denoise


@dataclass(frozen=True, repr=False)
class PublishedPiGDM(MemberSampler):
    """PiGDM as published: a DDIM step, then an additive kick whose strength depends on the number of steps.

    Arguments:
        steps: Number of steps; each is one denoiser call and one vector-Jacobian product.
        eta: Fraction of fresh noise, 1 in the paper.
        schedule: Noise levels.
        iterations: See `PiGDM`.
        tolerance: See `PiGDM`.

    References:
        Pseudoinverse-Guided Diffusion Models for Inverse Problems (Song et al., 2023), ICLR,
        openreview.net/forum?id=9_gsMA8MRKQ, algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    steps: int = 100
    eta: float = 1.0
    schedule: Schedule = vp_linear
    iterations: int = 64
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        DDIM(self.steps, self.schedule, self.eta)  # validates
        PiGDM(iterations=self.iterations, tolerance=self.tolerance)

    def __repr__(self) -> str:
        return describe(self)

    def check(self, posterior: Posterior) -> None:
        if not by_pinv(posterior):
            super().check(posterior)

    def draw(self, run: Run) -> Tensor:
        base, p = DDIM(self.steps, self.schedule, self.eta), run.posterior
        g = PiGDM(iterations=self.iterations, tolerance=self.tolerance).guidance(run)
        u = base.start(run.streams, p.shape or (), p.device, p.dtype)
        path = base.path(run.callback)
        with torch.no_grad():
            for a, b in path:
                sigma = level(u, a)
                leaf, D = differentiate(run, u, sigma)
                center = D.detach()
                kick = (1 + b**2) ** 0.5 * r2(sigma) * pull(run, leaf, D, g(center, sigma))
                u = path.report(base.step(u, center, a, b, run.streams) + kick)
        return u
