r"""Posterior sampling with latent diffusion (PSLD): the likelihood through the decoder, and a gluing term.

Many codes decode to fields that explain the data; PSLD prefers those that stay their own code when what was measured is
put into their field. With :math:`x = G(D)`, the whitened residual r of x, and the pseudo-inverse,

.. math:: x_g = x + \tilde A^+ r, \qquad e = D - E(x_g).

:math:`A^T y + (I - A^T A) x` of the paper is :math:`x_g` where :math:`A A^T = I`. Here A is any operator with a
gradient, linearised at x where it is not linear, and

.. math:: \tilde A^+ r = \tilde A^T (\tilde A \tilde A^T + s^{-2})^{-1} r,

by conjugate gradients, with the variance :math:`s^2` of decoded white codes about the decoded zero: the pseudo-inverse
where the noise is small beside the field, and no amplified noise where it is not. The projector :math:`\tilde A^+\tilde
A` is symmetric, so the gradient through :math:`x_g` costs one more solve, and no differentiation of the solver.

``form="published"``: a DDPM step and the kick :math:`\nabla_u(\|r\|/c + \gamma\|e\|)` in the length and units of
`scidiff.posterior.dps`.

``form="annealed"`` (the default): the same two terms as a posterior denoiser for any integrator,

.. math:: D_y = D - \sigma^2\, \nabla_u \Big( \frac{\|r\|^2}{2\tau^2} + \frac{\gamma}{2\rho^2}\|e\|^2 \Big), \qquad
          \rho^2 = \frac{\sigma^2}{1 + \sigma^2},

with :math:`\tau` of `AnnealedDPS` and e weighed by the variance of white codes given noisy ones. An encoder may stretch
what codes do not hold; where e is steep the step is no longer than one that comes nearest to a code that stays its own.

**A heuristic.** On a linear autoencoder e is the residual again, seen through :math:`A^+`: gluing tells nothing new and
counts the data a second time. What it is good for are decoders for which many codes make nearly the same field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scidiff.posterior.base import Run, differentiate
from scidiff.posterior.dps import kick_length
from scidiff.posterior.krylov import Solution, conjugate_gradients, dot
from scidiff.posterior.latent import LatentSampler, pixels, row
from scidiff.posterior.measurement import Linearisation, Measurement
from scidiff.samplers import DPMSolver
from scidiff.samplers.base import level
from scidiff.samplers.ddpm import DDPM, ancestral

__all__ = ["PSLD"]


def norm(r: Tensor) -> Tensor:
    """Euclidean norm of each row, not zero, (rows,)."""
    return torch.linalg.vector_norm(r.flatten(1), dim=1).clamp(min=torch.finfo(r.dtype).tiny ** 0.5)


def bounded(gamma: float, e: Tensor, gradient: Tensor) -> Tensor:
    r""":math:`\min(\gamma, \|e\|^2 / \|\nabla \tfrac12\|e\|^2\|^2)`, (rows,).

    The second is Polyak's step: where e is linear, it is the one along the gradient that comes nearest to e = 0.
    """
    least = e.flatten(1).square().sum(1) / gradient.flatten(1).square().sum(1).clamp(min=torch.finfo(e.dtype).tiny)
    return least.clamp(max=gamma)


@dataclass(frozen=True)
class PSLD(LatentSampler):
    r"""DPS with codes, and a pull to codes that stay their own when the data are put into their field; a heuristic.

    Diagnostics, means over steps and members: ``iterations`` and relative ``residual`` of the pseudo-inverse.

    Arguments:
        form: "annealed" or "published", see above.
        steps: Number of steps, each one denoiser, decoder and encoder call forward and back; None takes 64 (annealed)
            or 1000 (published).
        zeta: Length of the kick (published); None takes `scidiff.posterior.dps.kick_length`.
        gamma: Weight of gluing beside the likelihood; None takes 0.3 (annealed; best of 0.1, 0.3 and 1 on the problem
            ``linear-latent`` with seed 0) or the paper's 0.1 (published).
        iterations: Largest number of conjugate gradient iterations of the pseudo-inverse, two operator passes each and
            no network; twice per step.
        tolerance: Their relative tolerance.

    References:
        Solving Linear Inverse Problems Provably via Posterior Sampling with Latent Diffusion Models (Rout et al.,
        2023), arXiv:2307.00619, algorithm 2.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    form: Literal["annealed", "published"] = "annealed"
    steps: int | None = None
    zeta: float | None = None
    gamma: float | None = None
    iterations: int = 30
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.form not in ("annealed", "published"):
            raise ValueError(f"form must be 'annealed' or 'published', got {self.form!r}.")
        if self.form == "annealed" and self.zeta is not None:
            raise ValueError("zeta belongs to form='published'; the annealed form has no such length.")
        self._integrator()  # validates the steps
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must lie in [0, 1), got {self.tolerance}.")
        if self.weight < 0 or (self.zeta is not None and self.zeta < 0):
            raise ValueError(f"zeta and gamma must not be negative, got {self.zeta} and {self.gamma}.")

    @property
    def weight(self) -> float:
        """The weight of gluing."""
        if self.gamma is not None:
            return self.gamma
        return 0.1 if self.form == "published" else 0.3

    def _integrator(self) -> DDPM | DPMSolver:
        if self.form == "published":
            return DDPM(1000 if self.steps is None else self.steps)
        return DPMSolver(64 if self.steps is None else self.steps, stochastic=True)

    def draw(self, run: Run) -> Tensor:
        base, p = self._integrator(), run.posterior
        with torch.no_grad():
            u = base.start(run.streams, p.shape or (), p.device, p.dtype)
            zero = p.prior.decode(torch.zeros_like(u))
            seen = pixels(run, p.prior.decode(run.streams.randn_like(u)), zero)
            if isinstance(base, DPMSolver):
                return base.integrate(lambda u, sigma: self.denoise(run, seen, u, sigma), u, run.streams, run.callback)
            r = seen.residual(torch.zeros_like(seen.prior.encode(zero)))
            c = r.square().mean(1).sqrt().clamp(min=1)
            zeta = kick_length(r.shape[1], base.steps) if self.zeta is None else self.zeta
            path = base.path(run.callback)
            for a, b in path:
                D, gradient = self.kick(run, seen, u, a, c)
                length = zeta * ((1 + a**2) * (1 + b**2)) ** 0.5
                u = path.report(ancestral(u, D, a, b, run.streams) - length * gradient)
        return u

    def denoise(self, run: Run, seen: Measurement, u: Tensor, sigma: Tensor) -> Tensor:
        """The posterior denoiser of the annealed form."""
        u, D, w, near = self.forward(run, seen, u, sigma)
        g = self.through_decoder(w, D, near.adjoint(near.residual))  # the residual's gradient in D
        lam = g.flatten(1).square().sum(1) / near.residual.square().sum(1).clamp(min=torch.finfo(u.dtype).tiny)
        rho2 = sigma**2 / (1 + sigma**2)
        pull = row(1 / (1 + rho2 * lam), g) * g
        if self.weight > 0:
            e, back = self.glue(run, seen, D, w, near)
            glued = self.through_decoder(w, D, back(e)) + e
            pull = pull - row(bounded(self.weight, e, glued) / rho2, glued) * glued
        run.cost.denoiser_vjp += 1
        return D.detach() + sigma**2 * torch.autograd.grad(D, u, pull)[0]

    def kick(self, run: Run, seen: Measurement, u: Tensor, a: float, c: Tensor) -> tuple[Tensor, Tensor]:
        """The denoised state and the gradient of the published form."""
        u, D, w, near = self.forward(run, seen, u, level(u, a))
        r = near.residual
        slope = -near.adjoint(r / (norm(r) * c)[:, None])
        direct = torch.zeros_like(D)
        if self.weight > 0:
            e, back = self.glue(run, seen, D, w, near)
            direct = self.weight * e / row(norm(e), e)
            slope = slope + back(direct)
        gradient = self.through_decoder(w, D, slope) + direct
        run.cost.denoiser_vjp += 1
        return D.detach(), torch.autograd.grad(D, u, gradient)[0]

    def forward(
        self, run: Run, seen: Measurement, u: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Linearisation]:
        """State and denoised state with the graph of the network, its field with that of the decoder, the residual."""
        u, D = differentiate(run, u, sigma)
        with torch.enable_grad():
            w = seen.prior.encode(run.posterior.prior.decode(D))
        return u, D, w, seen.linearise(w.detach())

    @staticmethod
    def through_decoder(w: Tensor, D: Tensor, g: Tensor) -> Tensor:
        """A gradient in the field, carried to the code."""
        return torch.autograd.grad(w, D, g, retain_graph=True)[0]

    def glue(
        self, run: Run, seen: Measurement, D: Tensor, w: Tensor, near: Linearisation
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """What gluing changes in the code, e, and the map from a gradient in e to one in the field."""
        with torch.enable_grad():
            glued = (w.detach() + self.explain(run, near, near.residual, w.shape[1:])).requires_grad_()
            z = run.posterior.prior.encode(seen.prior.decode(glued))
        if not z.requires_grad:
            name = type(run.posterior.prior).__name__
            raise TypeError(f"no gradient flows through {name}.encode; PSLD needs it (remove torch.no_grad).")

        def back(v: Tensor) -> Tensor:
            g = -torch.autograd.grad(z, glued, v)[0]
            return g - self.explain(run, near, near.forward(g), g.shape[1:])

        return D.detach() - z.detach(), back

    def explain(self, run: Run, near: Linearisation, r: Tensor, shape: torch.Size) -> Tensor:
        r""":math:`\tilde A^T(\tilde A\tilde A^T + I)^{-1} r`: the change of a field, in units of s, that explains r."""

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            g = near.adjoint(p)
            return p + near.forward(g), g

        size, floor = dot(r, r).sqrt(), torch.finfo(r.dtype).tiny
        solution = Solution.zero(r, tuple(shape))
        conjugate_gradients(solution, product, self.tolerance * size, self.iterations)
        run.note("iterations", solution.used.double().mean())
        run.note("residual", (dot(solution.r, solution.r).sqrt() / size.clamp(min=floor)).mean())
        return solution.image
