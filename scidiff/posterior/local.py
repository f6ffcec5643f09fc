r"""Draws from :math:`p(x) \propto N(x; m, C)\, p(y | x)`: the inner step of samplers that split prior and data.

`perturb_and_solve` is exact for linear operators, an affine prior and Gaussian noise. `randomised` is the same with a
linearisation where they are not linear. `langevin` is a Markov chain for
all other log likelihoods with a gradient: nonlinear operators, Poisson counts. Both know C through products alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scidiff.posterior.base import Run, offers
from scidiff.posterior.gauss_newton import Point
from scidiff.posterior.krylov import Solution, conjugate_gradients, dot, gmres
from scidiff.posterior.measurement import Linearisation

__all__ = ["Product", "closed_form", "langevin", "perturb_and_solve", "randomised", "ridge"]

Product = Callable[[Tensor], Tensor]
r"""Rows g (rows, \*S) to rows :math:`C g`."""


def closed_form(run: Run) -> bool:
    """Whether `perturb_and_solve` is exact: linear operators, an affine prior, Gaussian noise."""
    return {"linear", "gaussian"} <= offers(run.posterior)


def perturb_and_solve(
    run: Run, x: Tensor, C: Product, iterations: int, tolerance: float, symmetric: bool = False
) -> Tensor:
    r"""Turns draws x of :math:`N(m, C)` into draws of :math:`N(m, C)\,p(y|x)` (Matheron's rule).

    .. math:: x + C\tilde A^T (I + \tilde A C \tilde A^T)^{-1} (r(x) + n), \qquad n \sim N(0, I),

    with the whitened residual r and operator :math:`\tilde A`. No root of the posterior covariance is needed.

    Arguments:
        run: Rows at hand.
        x: Draws of the Gaussian, (rows, \*S).
        C: Its covariance.
        iterations: Largest number of solver iterations, one product with C each.
        tolerance: A row stops at a residual of ``tolerance`` times the right side.
        symmetric: True solves by conjugate gradients, False by GMRES, which survives a C that is not quite symmetric.
    """
    measurement = run.measurement

    def product(p: Tensor) -> tuple[Tensor, Tensor]:
        g = C(measurement.adjoint(p))
        return p + measurement.forward(g), g

    r = measurement.residual(x)
    r = r + run.streams.randn_like(r)
    solution = Solution.zero(r, x.shape[1:])
    size = dot(r, r).sqrt()
    (conjugate_gradients if symmetric else gmres)(solution, product, tolerance * size, iterations)
    run.note("iterations", solution.used.double().mean())
    run.note("residual", (dot(solution.r, solution.r).sqrt() / size.clamp(min=torch.finfo(r.dtype).tiny)).mean())
    return x + solution.image


def randomised(run: Run, c: Tensor, C: Product, x: Tensor, newton: int, iterations: int, tolerance: float) -> Tensor:
    r"""Draws by optimisation where the measurement is not linear ("randomise, then optimise").

    With draws c of :math:`N(m, C)` and :math:`n \sim N(0, I)` it moves towards

    .. math:: \arg\min_u\; \|r(u) + n\|^2 + (u - c)^\top C^{-1} (u - c)

    by Gauss-Newton steps :math:`u = c + C\tilde A^T v`, linearised at x,
    :math:`(I + \tilde A C\tilde A^T) v = r(x) + n + \tilde A(x - c)`; for linear measurements
    that is `perturb_and_solve`. Steps that would raise it are halved.

    Arguments:
        run: Rows at hand.
        c: Draws of the Gaussian, (rows, \*S).
        C: Its covariance.
        x: Where to linearise first, (rows, \*S).
        newton: Number of steps.
        iterations: Largest number of solver iterations of each, one product with C each.
        tolerance: Relative tolerance of the solver.
    """
    measurement, zero = run.measurement, torch.zeros_like(c)
    near = measurement.linearise(x)
    n = run.streams.randn_like(near.residual)
    point = Point.at(run, c, zero, zero, n)
    for k in range(newton):
        if k:
            near = measurement.linearise(x)

        def product(p: Tensor, near: Linearisation = near) -> tuple[Tensor, Tensor]:
            g = C(near.adjoint(p))
            return p + near.forward(g), g

        r = near.residual + n + near.forward(x - c)
        solution, size = Solution.zero(r, c.shape[1:]), dot(r, r).sqrt()
        gmres(solution, product, tolerance * size, iterations)
        run.note("iterations", solution.used.double().mean())
        run.note("residual", (dot(solution.r, solution.r).sqrt() / size.clamp(min=torch.finfo(r.dtype).tiny)).mean())
        point = point.towards(run, c, near.adjoint(solution.v), solution.image, n)
        x = c + point.image
    return x


def ridge(run: Run, r: Tensor, iterations: int = 50, tolerance: float = 1e-3) -> Tensor:
    r""":math:`\tilde A^T (I + \tilde A \tilde A^T)^{-1} r`: the field that explains r, as if u were white."""

    def product(p: Tensor) -> tuple[Tensor, Tensor]:
        g = run.measurement.adjoint(p)
        return p + run.measurement.forward(g), g

    solution = Solution.zero(r, tuple(run.posterior.shape or ()))
    conjugate_gradients(solution, product, tolerance * dot(r, r).sqrt(), iterations)
    return solution.image


def langevin(
    run: Run, m: Tensor, C: Product, draw: Callable[[], Tensor], x: Tensor, delta: Tensor, moves: int
) -> tuple[Tensor, Tensor]:
    r"""Moves x by Metropolis-adjusted Langevin steps preconditioned with C; leaves :math:`N(m, C)\,p(y|x)` invariant.

    With :math:`\Phi = -\log p(y|x)`, :math:`\xi = x - m` and a draw :math:`w \sim N(0, C)` the proposal is

    .. math:: (2 + \delta)\,\xi' = (2 - \delta)\,\xi - 2\delta\, C\nabla\Phi(x) + \sqrt{8\delta}\,w,

    accepted with probability :math:`\min(1, e^{\rho(x, x') - \rho(x', x)})`,

    .. math:: \rho(x, x') = \Phi(x) + \tfrac12\langle x' - x, \nabla\Phi(x)\rangle
              + \tfrac\delta4\langle \xi + \xi', \nabla\Phi(x)\rangle
              + \tfrac\delta4\langle\nabla\Phi(x), C\nabla\Phi(x)\rangle.

    The acceptance holds likelihoods alone, so that nothing degrades as the grid is refined, and C is never inverted.
    Each row has its own :math:`\delta \in (0, 2]`, led towards an acceptance of 0.6. It has no unit: the same chain
    runs in kelvin. Where the likelihood is zero every proposal is accepted, so that a chain finds its support; where
    it is NaN the state becomes NaN, which the caller's `Path` reports.

    Arguments:
        run: Rows at hand.
        m: Mean, (rows, \*S).
        C: Products with the covariance.
        draw: Fresh draws of :math:`N(0, C)`, (rows, \*S).
        x: States to move, (rows, \*S).
        delta: Step sizes from the call before, (rows,).
        moves: Number of proposals; each is one call and one gradient of the operator, one product and one draw.

    Returns:
        The states and the step sizes.

    References:
        MCMC Methods for Functions: Modifying Old Algorithms to Make Them Faster (Cotter et al., 2013),
        arXiv:1202.0709, section 4.3.
    """
    like = (-1, *[1] * (x.ndim - 1))

    def potential(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient = run.measurement.gradient(x)
        return -value, -gradient, C(-gradient)

    def rho(x: Tensor, other: Tensor, phi: Tensor, g: Tensor, Cg: Tensor) -> Tensor:
        way = (other - x) / 2 + (x + other - 2 * m + Cg) * delta.reshape(like) / 4
        return phi + (way * g).flatten(1).sum(1)

    phi, g, Cg = potential(x)
    for _ in range(moves):
        d = delta.reshape(like)
        new = m + ((2 - d) * (x - m) - 2 * d * Cg + (8 * d).sqrt() * draw()) / (2 + d)
        phi_new, g_new, Cg_new = potential(new)
        log_ratio = rho(x, new, phi, g, Cg) - rho(new, x, phi_new, g_new, Cg_new)
        chance = torch.where(phi == torch.inf, 1.0, log_ratio.clamp(max=0).exp())
        accept = run.streams.rand((), x.device, x.dtype) < chance
        here = accept.reshape(like)
        x = torch.where(here, new, x)
        x = torch.where((phi_new.isnan() | phi.isnan()).reshape(like), torch.nan, x)
        phi, g, Cg = torch.where(accept, phi_new, phi), torch.where(here, g_new, g), torch.where(here, Cg_new, Cg)
        delta = torch.where(chance.isnan(), delta / 2, delta * (chance - 0.6).exp()).clamp(1e-6, 2)
        run.note("acceptance", chance.mean())
    return x, delta
