r"""Moment matching posterior sampling (MMPS).

The law of :math:`u_0` given :math:`u_\sigma` is taken as a Gaussian with the mean :math:`D` and the covariance
:math:`C = \sigma^2 J`, :math:`J = \partial D/\partial u`, both exact moments. Then

.. math:: D_y = E[u_0 | u, y] = D + C\tilde A^T v, \qquad M v = r, \qquad M = I + \tilde A C \tilde A^T,

with the whitened residual :math:`r = r(D)` and :math:`\tilde A = S_y^{-1/2} A\,\partial\mathrm{decode}/\partial u`. The
system is solved in measurement space without matrices. Each iteration is one vector-Jacobian product
:math:`J^T\tilde A^T p` of network and operator, and one operator call; :math:`J` is symmetric for a true denoiser and
:math:`J^T` stands for it. As :math:`C\tilde A^T v` is a sum of the products already made, it costs no further call.

**Warm start.** From one noise level to the next v changes little, so the first iteration goes along the v of the call
before, as far as is best, and the others start from there. Truncated solutions thus improve over the run. On a smooth
8x8 Gaussian field measured with 1 % noise (condition number 1e5), 3 warm iterations of conjugate gradients reach a mean
error of 0.063 posterior standard deviations (0.0625 for exact draws) and 3 cold ones 0.164; the total variance, 1.29 of
the exact one after 3 and 1.05 after 8, needs the iterations. The paper starts from zero: ``warm=False``.

**Exact** for Gaussian priors, up to the integrator and the iterations. For other priors an approximation where
:math:`u_0` given :math:`u_\sigma` is far from Gaussian: if the data leave several modes possible, their weights are
not exact; see the rows ``modes-1`` and ``modes-2`` of docs/certificate.md.

**Learned priors** have Jacobians that are neither quite symmetric nor positive, worst at noise levels that training saw
rarely. Conjugate gradients then run away: on undersampled MRI with a learned prior one member in a few was destroyed,
its residual growing instead of falling. So GMRES is the default: it needs no symmetry and never lets the residual grow.
``solver="cg"`` is for exact priors. M has no eigenvalue below 1; CG stops a row at a direction p with
:math:`p^T M p < p^T p / 2`, and ``diagnostics["breakdowns"]`` is the fraction of solves that ended so.

**Few numbers** (`scidiff.posterior.dense`). ``solver="direct"`` makes the matrix M where the prior is Gaussian and at
most 2048 numbers were measured: J is then the same for all members, one factorisation per noise level serves all, and
nothing is left of the solver's error. Where that does not apply, and with ``solver="scaled"``, GMRES works on
:math:`M P^{-1}` with the P that a white state would have; the residual stays that of M.

**Nonlinear measurements** (also: a prior whose ``decode`` is not affine, or noise that states its variance, such as
counts) are linearised: at a state m with slope :math:`\tilde A`,

.. math:: M v = r(m) + \tilde A (m - D), \qquad m \leftarrow D + C\tilde A^T v,

is a Gauss-Newton step towards the most probable state, which stands for the mean :math:`D_y`. Steps that would lower
the probability are halved, see `scidiff.posterior.gauss_newton`. The first m is :math:`D + C g` with the
:math:`g = \tilde A^T v` of the call before, so that the linearisation also improves over the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scidiff.posterior.base import GuidedSampler, Run, differentiate
from scidiff.posterior.dense import Scaled, factorised, scaled
from scidiff.posterior.gauss_newton import Point
from scidiff.posterior.guidance import pull
from scidiff.posterior.krylov import Solution, conjugate_gradients, dot, gmres
from scidiff.protocols import Denoiser
from scidiff.samplers import DPMSolver, Sampler

__all__ = ["MMPS"]

SOLVERS = ("gmres", "cg", "scaled", "direct")


@dataclass(frozen=True)
class MMPS(GuidedSampler):
    """Moment matching posterior sampling: the covariance of the denoiser weighs data against prior.

    Diagnostics, means over guided calls and members: ``iterations`` made, ``residual`` of the solver relative to |r|,
    ``breakdowns`` (fraction of solves).

    Arguments:
        sampler: Integrator; its ``calls`` is the number of guided network calls. The default is stochastic because
            fresh noise forgets what was wrong at large noise levels, where a law of several modes is no Gaussian.
        iterations: Largest number of solver iterations per guided call, one vector-Jacobian product each. Where 5
            suffice the tolerance stops earlier; smooth fields with little noise use all 8.
        solver: "gmres", or "cg" (conjugate gradients) for exact priors; for few numbers "scaled" (GMRES with a
            preconditioner) and "direct" (exact for Gaussian priors, else "scaled").
        tolerance: A row stops at a residual of ``tolerance * |r|``; at small noise levels one iteration reaches it.
        warm: Whether a solve starts from the one before; needs at least 2 iterations.
        linearisations: Gauss-Newton steps per guided call where the measurement is not linear, a solve each.

    References:
        Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024),
        arXiv:2405.13712, section 4.2.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    sampler: Sampler = field(default_factory=lambda: DPMSolver(64, stochastic=True))
    iterations: int = 8
    solver: Literal["cg", "gmres", "scaled", "direct"] = "gmres"
    tolerance: float = 1e-2
    warm: bool = True
    linearisations: int = 2

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}.")
        if self.linearisations < 1:
            raise ValueError(f"linearisations must be at least 1, got {self.linearisations}.")
        if self.solver not in SOLVERS:
            raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {self.solver!r}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must lie in [0, 1), got {self.tolerance}.")

    def condition(self, run: Run) -> Denoiser:
        measurement = run.measurement
        last: Tensor | None = None
        g: Tensor | None = None
        exactly = factorised(run) if self.solver == "direct" else None
        scaling = scaled(run) if self.solver in ("direct", "scaled") and exactly is None else None

        def denoise(u: Tensor, sigma: Tensor) -> Tensor:
            nonlocal last, g
            if exactly is not None:
                D = run.denoise(u, sigma)
                return D + exactly(measurement.residual(D), sigma)[1]
            u, D = differentiate(run, u, sigma)
            center = D.detach()
            if measurement.affine:  # one graph from the state to its residual: each product is one pass backward
                with torch.enable_grad():
                    r = measurement.residual(D)

                def transpose(p: Tensor) -> Tensor:
                    run.cost.denoiser_vjp += 1
                    run.cost.operator_vjp += 1
                    return -torch.autograd.grad(r, u, p, retain_graph=True)[0]

                x = self.solve(run, sigma, transpose, measurement.forward, r.detach(), last, scaling)
                last = self.kept(x)
                return center + x.image

            zero = torch.zeros_like(center)
            point = Point.at(run, center, zero, zero)
            if g is not None and self.warm:
                point = point.towards(run, center, g, sigma**2 * pull(run, u, D, g))
            for _ in range(self.linearisations):
                near = measurement.linearise(center + point.image)
                r = near.residual + near.forward(point.image)
                x = self.solve(run, sigma, lambda p, near=near: pull(run, u, D, near.adjoint(p)), near.forward, r, last)
                last = self.kept(x)
                point = point.towards(run, center, near.adjoint(x.v), x.image)
            g = point.g
            return center + point.image

        return denoise

    def solve(
        self,
        run: Run,
        sigma: Tensor,
        transpose: Callable[[Tensor], Tensor],
        forward: Callable[[Tensor], Tensor],
        r: Tensor,
        last: Tensor | None,
        scaling: Scaled | None = None,
    ) -> Solution:
        r"""Solves :math:`M v = r`, first along the solution ``last`` of the call before.

        Arguments:
            run: The run.
            sigma: Noise level.
            transpose: :math:`J^T\tilde A^T p`, (rows, n) -> (rows, \*S), counted.
            forward: :math:`\tilde A g`, (rows, \*S) -> (rows, n), counted.
            r: Right-hand side, (rows, n).
            last: Where to start, (rows, n).
            scaling: Preconditioner; the solver then looks for :math:`P v`.
        """

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            p = p if scaling is None else scaling.apply(p, sigma, -1)
            g = sigma**2 * transpose(p)  # C A' p
            return p + forward(g), g

        x = Solution.zero(r, tuple(run.posterior.shape or ()))
        size, left = dot(r, r).sqrt(), self.iterations
        if last is not None and scaling is not None:
            last = scaling.apply(last, sigma, 1)
            q, image = product(last)  # as far as lowers the residual most: M / P is not symmetric
            x.used = x.used + (size > 0)
            x.step(dot(q, r) / dot(q, q).clamp(min=torch.finfo(r.dtype).tiny), last, q, image)
            left -= 1
        elif last is not None:
            x.along(last, dot(last, r), product, size > 0)
            left -= 1
        (conjugate_gradients if self.solver == "cg" else gmres)(x, product, self.tolerance * size, left)
        if scaling is not None:
            x.v = scaling.apply(x.v, sigma, -1)
        run.note("iterations", x.used.double().mean())
        run.note("residual", (dot(x.r, x.r).sqrt() / size.clamp(min=torch.finfo(r.dtype).tiny)).mean())
        run.note("breakdowns", x.broken.double().mean())
        return x

    def kept(self, x: Solution) -> Tensor | None:
        """What the next solve starts from."""
        return x.v if self.warm and self.iterations > 1 else None
