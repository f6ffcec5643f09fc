r"""Moment matching posterior sampling (MMPS).

The law of :math:`u_0` given :math:`u_\sigma` is taken as a Gaussian with the mean :math:`D` and the covariance
:math:`C = \sigma^2 J`, :math:`J = \partial D/\partial u`, both exact moments. Then

.. math:: D_y = E[u_0 | u, y] = D + C\tilde A^T v, \qquad M v = r, \qquad M = I + \tilde A C \tilde A^T,

with the whitened residual :math:`r = r(D)` and :math:`\tilde A = S_y^{-1/2} A\,\partial\mathrm{decode}/\partial u`. The
system is solved in measurement space without matrices. Each iteration is one vector-Jacobian product
:math:`J^T\tilde A^T p` of network and operator, and one operator call; :math:`J` is symmetric for a true denoiser and
:math:`J^T` stands for it. As :math:`C\tilde A^T v` is a sum of the products already made, it costs no further call.

**Exact** for Gaussian priors, up to the integrator and the iterations. For other priors exact at small noise levels,
and an approximation where :math:`u_0` given :math:`u_\sigma` has several modes: if the data leave several modes
possible, their weights are wrong (see `benchmarks/exact_posteriors.py`).

**Learned priors** have Jacobians that are not quite symmetric nor positive. M has no eigenvalue below 1, so a direction
p with :math:`p^T M p < p^T p / 2` is the network's fault: conjugate gradients stop there for that row, with what they
have, and ``diagnostics["breakdowns"]`` counts such rows. GMRES needs no symmetry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scidiff.posterior.base import GuidedSampler, Run, differentiate
from scidiff.protocols import Denoiser

__all__ = ["MMPS"]

Product = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``p -> (M p, C A' p)`` for rows p (rows, n)."""


@dataclass(frozen=True)
class MMPS(GuidedSampler):
    """Moment matching posterior sampling: the covariance of the denoiser weighs data against prior.

    Arguments:
        sampler: Integrator; its ``calls`` is the number of guided network calls.
        iterations: Largest number of solver iterations per guided call, one vector-Jacobian product each.
        solver: "cg" (conjugate gradients) or "gmres".
        tolerance: A row stops at a residual of ``tolerance * |r|``; at small noise levels one iteration reaches it.

    References:
        Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024),
        arXiv:2405.13712, section 4.2 and algorithm 3.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"linear", "gradient", "gaussian"})

    iterations: int = 5
    solver: Literal["cg", "gmres"] = "cg"
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}.")
        if self.solver not in ("cg", "gmres"):
            raise ValueError(f"solver must be 'cg' or 'gmres', got {self.solver!r}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must lie in [0, 1), got {self.tolerance}.")

    def condition(self, run: Run) -> Denoiser:
        solve = conjugate_gradients if self.solver == "cg" else gmres
        measurement = run.measurement

        def denoise(u: Tensor, sigma: Tensor) -> Tensor:
            u, D = differentiate(run, u, sigma)

            def product(p: Tensor) -> tuple[Tensor, Tensor]:
                run.cost.denoiser_vjp += 1
                (g,) = torch.autograd.grad(D, u, measurement.adjoint(p), retain_graph=True)
                g = sigma**2 * g
                return p + measurement.forward(g), g

            mean = D.detach()
            shift, used, residual, broken = solve(
                product, measurement.residual(mean), mean, self.iterations, self.tolerance
            )
            run.note("iterations", used.double().mean().item())
            run.note("residual", residual.double().mean().item())
            run.note("breakdowns", broken.double().mean().item())
            return mean + shift

        return denoise


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def _like(row: Tensor, u: Tensor) -> Tensor:
    return row.reshape(-1, *[1] * (u.ndim - 1))


def conjugate_gradients(
    product: Product, r: Tensor, u: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Conjugate gradients per row: (C A' v, iterations used, relative residual, whether the row broke down)."""
    shift, p, rho = torch.zeros_like(u), r, _dot(r, r)
    first = rho.clamp(min=torch.finfo(r.dtype).tiny)
    active, broken, used = rho > 0, torch.zeros_like(rho, dtype=torch.bool), torch.zeros_like(rho)
    for _ in range(iterations):
        q, g = product(p)
        curvature, length = _dot(p, q), _dot(p, p)
        fault = active & ~(curvature >= length / 2)
        broken, active, used = broken | fault, active & ~fault, used + active
        alpha = torch.where(active, rho / curvature, 0)
        shift, r = shift + _like(alpha, u) * g, r - alpha * q
        new = _dot(r, r)
        active = active & (new > tolerance**2 * first)
        if not bool(active.any()):
            rho = new
            break
        p = torch.where(active, r + new / rho * p, p)
        rho = new
    return shift, used[:, 0], (rho / first).sqrt()[:, 0], broken[:, 0]


def gmres(
    product: Product, r: Tensor, u: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """GMRES per row without restart; returns the same four as `conjugate_gradients`, and never breaks down."""
    beta = _dot(r, r).sqrt()
    tiny = torch.finfo(r.dtype).tiny
    active, used = beta > 0, torch.zeros_like(beta)
    residual = active.to(r.dtype)
    basis, images = [r / beta.clamp(min=tiny)], []
    H = r.new_zeros(r.shape[0], iterations + 1, iterations)
    y = r.new_zeros(r.shape[0], iterations)
    for j in range(iterations):
        w, g = product(basis[j])
        images.append(g)
        used = used + active
        for i, q in enumerate(basis):  # modified Gram-Schmidt
            H[:, i, j] = _dot(q, w)[:, 0]
            w = w - H[:, i, j, None] * q
        H[:, j + 1, j] = torch.linalg.vector_norm(w, dim=1)
        basis.append(w / H[:, j + 1, j, None].clamp(min=tiny))
        h = H[:, : j + 2, : j + 1]
        right = torch.zeros_like(h[:, :, :1])
        right[:, 0, 0] = 1
        best = torch.linalg.pinv(h) @ right
        y[:, : j + 1] = torch.where(active, beta * best[:, :, 0], y[:, : j + 1])
        residual = torch.where(active, torch.linalg.vector_norm(right - h @ best, dim=1), residual)
        active = active & (residual > tolerance)
        if not bool(active.any()):
            break
    shift = torch.zeros_like(u)
    for j, g in enumerate(images):
        shift = shift + _like(y[:, j : j + 1], u) * g
    return shift, used[:, 0], residual[:, 0], torch.zeros_like(residual[:, 0], dtype=torch.bool)
