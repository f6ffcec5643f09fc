r"""Decoupled annealing posterior sampling (DAPS).

From level :math:`a` to level :math:`b` the method draws a clean state and puts fresh noise on it,

.. math:: x \sim N(x;\, m, C)\; p(y | x), \qquad u_b = x + b\,z,

where :math:`N(m, C)` stands for the law of :math:`u_0` given :math:`u_a`. If it were that law, :math:`x` would be a
draw of :math:`p(u_0 | u_a, y)` and :math:`u_b` one of :math:`p(u_b | y)`, whatever the levels: steps do not
accumulate errors of an integrator, there is none.

``width="exact"``: :math:`m = D(u_a, a)` and :math:`C = a^2 J`, :math:`J = \partial D/\partial u`: the two exact
moments. **Exact for Gaussian priors and linear operators**, up to the solvers, with any number of levels; other priors
need enough levels. C is known through vector-Jacobian products: `sqrt_draw` draws :math:`w \sim N(0, C)`, and
`perturb_and_solve` adds the data. For other likelihoods (nonlinear, Poisson) `langevin` moves the x of the level
before; (x, u_a) is then a pair of the joint law already, so that few moves a level suffice.

``width="published"``: m is the end of the probability-flow ODE from :math:`u_a` in ``ode_steps`` Euler steps, and
:math:`C = a^2 I`. No gradient of the network. Its ensemble is **too wide** (by how much: `docs/certificate.md`). Why is
seen on a Gaussian prior of variance :math:`\lambda`. Given :math:`u_a`, the variance of :math:`u_0` is
:math:`\lambda a^2 / (\lambda + a^2)`, never more than :math:`\lambda`, but :math:`a^2` is taken. And the ODE ends at
:math:`u_a\sqrt{\lambda/(\lambda + a^2)}`, which has the full variance of the prior before the width is added, where the
mean is :math:`u_a\lambda/(\lambda + a^2)`. Without data the variance V of x thus goes from level to level as

.. math:: V \leftarrow (V + a^2)\frac{\lambda}{\lambda + a^2} + a^2, \qquad\text{at rest at } V = 2\lambda + a^2,

and freezes near :math:`2\lambda` when :math:`a \ll \sqrt\lambda`. The paper runs Langevin steps with a constant
:math:`\tau = 0.01` in place of the noise; here the noise of the likelihood counts, and for linear operators the law
that those steps aim at is drawn exactly.

``width="white"``: :math:`m = D(u_a, a)` and :math:`C = a^2/(1 + a^2) I`, exact for states of independent numbers of
unit variance. No gradient of the network; meant for codes of autoencoders, see `scidiff.posterior.latent_daps`.

On learned priors :math:`J` is not quite symmetric nor positive: GMRES, and `sqrt_draw` cuts negative Ritz values
(``diagnostics["cut"]``: mean ratio of the most negative to the largest).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scidiff.posterior.base import MemberSampler, Run, differentiate
from scidiff.posterior.lanczos import sqrt_draw
from scidiff.posterior.local import Product, closed_form, langevin, perturb_and_solve
from scidiff.samplers.base import Path, level
from scidiff.samplers.euler import Euler
from scidiff.schedules import Schedule, describe, karras, log_linear

__all__ = ["DAPS"]


@dataclass(frozen=True, repr=False)
class DAPS(MemberSampler):
    """Decoupled annealing: draws a clean state given noisy one and data, then adds noise of the next level.

    Diagnostics, means over levels and members: ``iterations`` and relative ``residual`` of the solver, ``cut``;
    ``acceptance`` of Langevin moves.

    Arguments:
        steps: Number of noise levels. The paper takes 200 from 100 to 0.1.
        schedule: Noise levels; evenly spaced in their log. The last draw is returned with its own width, so nothing is
            gained by levels far below the noise of the posterior.
        width: "exact", "white" or "published", see above.
        iterations: Largest number of products with C in the solver, one vector-Jacobian product each.
        lanczos: Largest number of products with C in a draw of N(0, C).
        tolerance: Relative tolerance of both.
        moves: Langevin moves per level where the draw has no closed form; with the exact width each costs up to
            ``lanczos + 1`` vector-Jacobian products. The paper makes 100.
        ode_steps: Euler steps of the published centre.

    References:
        Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing (Zhang et al., 2024),
        arXiv:2407.01521, algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient"})

    steps: int = 50
    schedule: Schedule = functools.partial(log_linear, sigma_min=0.02)
    width: Literal["exact", "white", "published"] = "exact"
    iterations: int = 12
    lanczos: int = 12
    tolerance: float = 1e-2
    moves: int = 10
    ode_steps: int = 5

    def __post_init__(self) -> None:
        Euler(self.steps, self.schedule)  # validates both
        if self.width not in ("exact", "white", "published"):
            raise ValueError(f"width must be 'exact', 'white' or 'published', got {self.width!r}.")
        for name in ("iterations", "lanczos", "moves", "ode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must lie in [0, 1), got {self.tolerance}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        base, p = Euler(self.steps, self.schedule), run.posterior
        path = Path("DAPS", base.levels(), run.callback)
        local = {"exact": self.moments, "white": self.white, "published": self.published}[self.width]
        exact = closed_form(run)
        with torch.no_grad():
            u = base.start(run.streams, p.shape or (), p.device, p.dtype)
            x, delta = None, u.new_ones(len(u))
            for a, b in path:
                m, C, noise = local(run, u, a)
                if exact:
                    x = perturb_and_solve(run, m + noise(), C, self.iterations, self.tolerance)
                else:
                    x, delta = langevin(run, m, C, noise, m + noise() if x is None else x, delta, self.moves)
                u = x + b * run.streams.randn_like(x) if b > 0 else x
                path.report(u)
        return u

    def moments(self, run: Run, u: Tensor, a: float) -> tuple[Tensor, Product, Callable[[], Tensor]]:
        """Mean, products with the covariance, and draws of N(0, C), of the law of the clean state: exact moments."""
        u, D = differentiate(run, u, level(u, a))

        def C(g: Tensor) -> Tensor:
            run.cost.denoiser_vjp += 1
            return a**2 * torch.autograd.grad(D, u, g, retain_graph=True)[0]

        def noise() -> Tensor:
            w, cut = sqrt_draw(C, run.streams.randn_like(u), self.lanczos, self.tolerance)
            run.note("cut", cut.mean())
            return w

        return D.detach(), C, noise

    def white(self, run: Run, u: Tensor, a: float) -> tuple[Tensor, Product, Callable[[], Tensor]]:
        """The same with the covariance of white states."""
        v = a**2 / (1 + a**2)
        return run.denoise(u, level(u, a)), lambda g: v * g, lambda: v**0.5 * run.streams.randn_like(u)

    def published(self, run: Run, u: Tensor, a: float) -> tuple[Tensor, Product, Callable[[], Tensor]]:
        """The same of the paper: the end of the ODE, and a white covariance."""
        levels = functools.partial(karras, sigma_max=a, sigma_min=min(0.01, a / 2))
        m = Euler(self.ode_steps, levels).integrate(run.denoise, u, run.streams)
        return m, lambda g: a**2 * g, lambda: a * run.streams.randn_like(u)
