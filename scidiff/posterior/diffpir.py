r"""Plug-and-play image restoration with a diffusion denoiser (DiffPIR): a proximal step per noise level.

.. math:: x_0 = \arg\min_x \tfrac12 \|r(x)\|^2 + \tfrac{\lambda}{2 a^2}\,\|x - D\|^2, \qquad
          e = \frac{u_a - x_0}{a}, \qquad u_b = x_0 + b\,\big(\sqrt{1 - \zeta}\, e + \sqrt{\zeta}\, z\big),

with the whitened residual r, so that the paper's :math:`\sigma_n` is 1 here.

**Units.** :math:`\lambda` is a pure number: with 1 the state is taken to be :math:`u_0 \sim N(D, a^2 I)`, with more the
denoiser is trusted more than that. The paper's values (:math:`\sigma_n` and :math:`a` in one unit) carry over as they
are.

**The proximal step.** Linear operators with a structured decomposition (`scidiff.posterior.spectrum`): in closed form,
:math:`x_0 = D + V\,\frac{s(\bar y - s c_D)}{s^2 + \lambda / a^2}`. Other linear operators: conjugate gradients on
:math:`(I + \frac{a^2}{\lambda}\tilde A^\top\tilde A)(x_0 - D) = \frac{a^2}{\lambda}\tilde A^\top r(D)`, at most
``iterations``. Nonlinear ones: ``newton`` Gauss-Newton steps from D, each solved by conjugate gradients and damped
after a step that did not descend; torch must be able to differentiate the operator twice. (The paper's single gradient
step of the length :math:`a^2 / \lambda` diverges while a is large.)

**More a point estimator than a sampler.** The law :math:`N(D, a^2 I)` is wider than that of :math:`u_0` given
:math:`u_a`, :math:`x_0` is an optimum where a draw would be needed, and neither :math:`\lambda` nor :math:`\zeta` knows
how certain the data are. The spread of an ensemble is that of the recipe: with :math:`\lambda = 1` on Gaussian fields
it is about half the exact variance at :math:`\zeta = 1` and near the exact one at the default 0.3, which is a
coincidence to be checked for each problem. Larger :math:`\lambda` moves the mean away from the data. See
docs/certificate.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.linalg.solvers import cg
from scidiff.posterior.base import MemberSampler, Run
from scidiff.posterior.spectrum import Spectrum
from scidiff.samplers.base import Path, level
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["DiffPIR"]

Proximal = Callable[[Tensor, float], Tensor]
r"""``proximal(D, w)``: the minimiser of :math:`\|r(x)\|^2 / 2 + w\,\|x - D\|^2 / 2`, (rows, \*S)."""


@dataclass(frozen=True, repr=False)
class DiffPIR(MemberSampler):
    """Plug-and-play restoration: a proximal step per noise level; more a point estimator than a sampler.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls. Authors' code: 100, 20 for inpainting.
        lam: Trust in the denoiser, see above. Authors' code: 1 to 8; the default had the smallest errors.
        zeta: Share of fresh noise. Authors' code: 0.1 to 1; the default had the best spread.
        iterations: Largest number of conjugate gradient steps where no closed form is known.
        newton: Gauss-Newton steps per level for nonlinear operators, each with up to ``iterations`` of them.
        tolerance: Conjugate gradients stop a row at a residual of ``tolerance`` times the first.
        schedule: Noise levels.

    References:
        Denoising Diffusion Models for Plug-and-Play Image Restoration (Zhu et al., 2023), arXiv:2305.08995,
        algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    steps: int = 100
    lam: float = 1.0
    zeta: float = 0.3
    iterations: int = 20
    newton: int = 8
    tolerance: float = 1e-4
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        Path("DiffPIR", self.schedule(self.steps).tolist())
        if self.lam <= 0:
            raise ValueError(f"lam must be positive, got {self.lam}.")
        if self.iterations < 1 or self.newton < 1:
            raise ValueError(f"iterations and newton must be at least 1, got {self.iterations} and {self.newton}.")
        if not 0 <= self.zeta <= 1:
            raise ValueError(f"zeta must lie between 0 and 1, got {self.zeta}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must lie in [0, 1), got {self.tolerance}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        p = run.posterior
        path = Path("DiffPIR", self.schedule(self.steps).tolist(), run.callback)
        proximal = self.proximal(run)
        with torch.no_grad():
            u = path.levels[0] * run.streams.randn(p.shape or (), p.device, p.dtype)
            for a, b in path:
                x = proximal(run.denoise(u, level(u, a)), self.lam / a**2)
                e = (u - x) / a
                u = x + b * (1 - self.zeta) ** 0.5 * e
                if b > 0 and self.zeta > 0:
                    u = u + b * self.zeta**0.5 * run.streams.randn_like(u)
                path.report(u)
        return u

    def proximal(self, run: Run) -> Proximal:
        """The way to solve the proximal step of the rows at hand."""
        spectrum = Spectrum.structured(run.posterior)
        if spectrum is not None:
            return lambda D, w: closed_form(spectrum, D, w)
        if run.posterior.linear:
            return lambda D, w: solve(run, D, w, self.iterations, self.tolerance)
        return lambda D, w: descend(run, D, w, self.newton, self.iterations, self.tolerance)


def closed_form(spectrum: Spectrum, D: Tensor, w: float) -> Tensor:
    r"""The minimiser in singular vectors, (rows, \*S)."""
    s = spectrum.s
    return D + spectrum.synthesise(s * (spectrum.y - s * spectrum.analyse(D)) / (s**2 + w))


def solve(run: Run, D: Tensor, w: float, iterations: int, tolerance: float) -> Tensor:
    r"""The minimiser by conjugate gradients, (rows, \*S)."""
    measurement = run.measurement

    def system(v: Tensor) -> Tensor:
        return v + measurement.adjoint(measurement.forward(v)) / w

    right = measurement.adjoint(measurement.residual(D)) / w
    change, info = cg(system, right, iterations=iterations, tolerance=tolerance)
    run.note("residual", info.relative.mean())
    return D + change


def descend(run: Run, D: Tensor, w: float, newton: int, iterations: int, tolerance: float) -> Tensor:
    r"""Gauss-Newton steps from ``D``, damped in rows where they do not descend, (rows, \*S)."""
    measurement, cost = run.measurement, run.cost

    def objective(x: Tensor, r: Tensor) -> Tensor:
        return (r.square().sum(1) + w * (x - D).flatten(1).square().sum(1)) / 2

    def row(scalar: Tensor) -> Tensor:
        return scalar.reshape(-1, *[1] * (D.ndim - 1))

    x, damping = D, torch.zeros_like(D.flatten(1)[:, 0])
    for _ in range(newton):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            r = measurement.residual(x)
            v = torch.zeros_like(r, requires_grad=True)
            (pulled,) = torch.autograd.grad(r, x, v, create_graph=True)  # K'v with K = dr/dx; its gradient in v is K

        def system(p: Tensor, graphs: tuple[Tensor, ...] = (r, x, pulled, v), damping: Tensor = damping) -> Tensor:
            r, x, pulled, v = graphs
            cost.operator_vjp += 2
            (q,) = torch.autograd.grad(pulled, v, p, retain_graph=True)
            (back,) = torch.autograd.grad(r, x, q, retain_graph=True)
            return back + (w + row(damping)) * p

        (slope,) = torch.autograd.grad(r, x, r.detach(), retain_graph=True)
        cost.operator_vjp += 2
        x, r = x.detach(), r.detach()
        down = -slope - w * (x - D)
        step, _ = cg(system, down, iterations=iterations, tolerance=tolerance)
        curvature = (down * system(down)).flatten(1).sum(1) / down.flatten(1).square().sum(1).clamp(min=1e-30)
        trial = x + step
        better = objective(trial, measurement.residual(trial)) < objective(x, r)
        x = torch.where(row(better), trial, x)
        damping = torch.where(better, damping / 10, torch.maximum(10 * damping, curvature / 100))
    return x
