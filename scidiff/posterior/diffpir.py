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
``iterations``. Nonlinear ones: as many gradient steps of Barzilai and Borwein's length from D, one row at a time taken
back where they do not descend; the paper's single step of the length :math:`a^2 / \lambda` diverges while a is large.

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
        iterations: Largest number of inner steps where no closed form is known.
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
    tolerance: float = 1e-4
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        Path("DiffPIR", self.schedule(self.steps).tolist())
        if self.lam <= 0 or self.iterations < 1:
            raise ValueError(f"lam and iterations must be positive, got {self.lam} and {self.iterations}.")
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
        return lambda D, w: descend(run, D, w, self.iterations)


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


def descend(run: Run, D: Tensor, w: float, iterations: int) -> Tensor:
    r"""Goes downhill from ``D``, at most ``iterations`` steps and rows alone, (rows, \*S)."""

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = (run.measurement.residual(x).square().sum(1) + w * (x - D).flatten(1).square().sum(1)) / 2
        run.cost.operator_vjp += 1
        (gradient,) = torch.autograd.grad(value, x, torch.ones_like(value))
        return value.detach(), gradient

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1)

    def row(scalar: Tensor) -> Tensor:
        return scalar.reshape(-1, *[1] * (D.ndim - 1))

    x, (f, g) = D, objective(D)
    tiny = torch.finfo(D.dtype).tiny
    # first length: a hundredth of the field's standard deviation, or to the end if the prior alone would go less far
    length = torch.minimum(0.01 * (D[0].numel() / dot(g, g).clamp(min=tiny)).sqrt(), torch.full_like(f, 1 / w))
    for _ in range(iterations):
        trial = x - row(length) * g
        f_new, g_new = objective(trial)
        better = f_new < f
        step, turn = trial - x, g_new - g
        curvature = dot(step, turn)
        best = torch.where(curvature > 0, dot(step, step) / curvature.clamp(min=tiny), 4 * length)
        length = torch.where(better, best, length / 4)
        x, g, f = torch.where(row(better), trial, x), torch.where(row(better), g_new, g), torch.where(better, f_new, f)
    return x
