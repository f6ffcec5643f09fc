r"""ReSample: hard data consistency for codes, and stochastic resampling.

Between steps of a diffusion sampler the estimate :math:`\hat z` of the clean code is moved until its field explains the
data, :math:`\hat z(y)`, and the result is carried back to the noise level b of the run.

**Resampling in one notation.** The paper multiplies two Gaussians: :math:`N(\hat z(y), b^2)`, the consistent code with
noise of the level, and :math:`N(z', s^2)` around the state :math:`z'` of the unconditional step. With levels
:math:`\sigma` instead of :math:`\bar\alpha` its variance :math:`\gamma\frac{1-\bar\alpha_b}{1-\bar\alpha_a} (1 -
\bar\alpha_a/\bar\alpha_b)` is, exactly, :math:`s^2 = \gamma\,b^2 t` with :math:`t = 1 - b^2/a^2`: :math:`\gamma` times
the variance of a DDPM step. So

.. math:: z_b = (1 - w)\,z' + w\,\hat z(y) + \sqrt{w}\,b\,\epsilon, \qquad w = \frac{\gamma t}{1 + \gamma t},

for any levels. If :math:`z' = \hat z + b e` the result has noise of variance :math:`b^2(1 - w + w^2)` and not
:math:`b^2`: up to a quarter is missing, and the denoiser is asked at a level that the state does not have. The Tweedie
estimate :math:`\hat z = z - \sigma\,\hat\epsilon` is ``prior.denoise`` here; the authors' code has :math:`1 -
\bar\alpha` where its root belongs.

``form="published"``: DDIM steps with kicks of DPS; in the last two thirds of the run, every tenth step, a few DDIM
steps ahead (time travel) for a better :math:`\hat z`, then consistency, in the middle third of the *field* (:math:`\hat
z(y) = E(x)`; the decoder takes no part) and in the last third of the *code*, and resampling. Consistency ends at the
noise level, :math:`\chi^2 = 1`, where the authors go on to a mean square of 1e-6 or the largest number of iterations.
Its :math:`\hat z(y)` is one point, so that the ensemble is no posterior.

``form="derived"`` (the default): what the resampled state must be for the next denoiser call to make sense is
:math:`z_b = z_0 + b\,\epsilon` with a draw :math:`z_0` of :math:`p(z_0 | z_a, y)`. Consistency is made a draw by
randomising what is optimised: with :math:`c \sim N(m, C)`, the law of the clean code given the noisy one, and
:math:`n \sim N(0, I)`,

.. math:: \hat z(y) = \arg\min_u\; \tfrac12\|r(u) + n\|^2 + \tfrac12 (u - c)^\top C^{-1} (u - c),

at every step, with all noise fresh (:math:`w = 1`), without kicks and time travel, which would use data or steps twice.
**Exact for Gaussian codes and linear decoders**; elsewhere the draw of a linearised decoder ("randomise, then
optimise"). A draw misfits the data as the truth does, :math:`\chi^2 = 1` on average: hard consistency at the noise
level is a property, not a stopping rule. Where decoder and operator are linear the method is that of `LatentDAPS`;
where they are not, a few Gauss-Newton steps take the place of a Markov chain.

``width="exact"`` takes :math:`C = a^2 J` (products with the Jacobian of the denoiser, cheap beside a large decoder),
``width="white"`` :math:`C = a^2/(1 + a^2)`, which is exact for independent codes of unit variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scidiff.posterior.base import Run, differentiate
from scidiff.posterior.consistency import Objective, adamw, conjugate_gradients, lbfgs
from scidiff.posterior.daps import DAPS
from scidiff.posterior.dps import kick_length
from scidiff.posterior.latent import LatentSampler, pixels, row
from scidiff.posterior.local import Product, closed_form, perturb_and_solve, randomised
from scidiff.samplers.base import Path, level
from scidiff.samplers.euler import Euler
from scidiff.schedules import log_linear, vp_linear

__all__ = ["ReSample", "resampled"]

REACHED = 1.1
"""A published run whose final chi2 is above this did not reach the noise level."""


def largest_chi2(n: int) -> float:
    """What a mean of n squared standard normal numbers exceeds once in three million draws.

    References:
        The distribution of chi-square (Wilson and Hilferty, 1931), whose cube root is nearly normal.
    """
    return (1 - 2 / (9 * n) + 5 * (2 / (9 * n)) ** 0.5) ** 3


def resampled(u: Tensor, z: Tensor, noise: Tensor, a: float, b: float, gamma: float) -> Tensor:
    """The paper's stochastic resampling from level a to level b, see above."""
    t = gamma * (1 - b**2 / a**2)
    w = t / (1 + t)
    return (1 - w) * u + w * z + w**0.5 * b * noise


@dataclass(frozen=True)
class ReSample(LatentSampler):
    r"""Hard data consistency by optimisation, then noise of the next level; derived form exact for linear decoders.

    Diagnostics: ``chi2``, of the returned states, mean over rows; ``unreached``, fraction of rows whose optimisation
    ended above the noise level (a warning is given); ``iterations`` and ``residual`` of the solver (derived form).

    Arguments:
        form: "derived" or "published", see above.
        steps: Noise levels; None takes 50 (derived, 80 to 0.02) or 500 (published, those of DDPM).
        width: Of the clean code given the noisy one, "exact" or "white"; derived form.
        optimiser: "cg": conjugate gradients, with Gauss-Newton steps where decoder or operator are not linear;
            "lbfgs"; "adamw", the paper's. In the derived form the last two need ``width="white"``.
        iterations: Largest number of conjugate gradient iterations, each a pass through the decoder and back.
        newton: Gauss-Newton steps per consistency.
        moves: Largest number of iterations of "lbfgs" and "adamw"; the paper takes 2000 for fields, 500 for codes.
        rate: Step length of "adamw" in units of the code, or of the field's standard deviation; the paper's 5e-3 and
            1e-2.
        lanczos: Largest number of products with C in a draw of N(0, C).
        tolerance: Relative tolerance of the solvers.
        every: Steps from one consistency to the next; this and all below: published form.
        travel: DDIM steps ahead before a consistency.
        pixel: Fraction of the run after which fields are made consistent.
        latent: Fraction of the run after which codes are made consistent; the last step always is.
        gamma: Weight of resampling.
        zeta: Length of the kick, times :math:`\bar\alpha`; None takes `scidiff.posterior.dps.kick_length`. The
            authors' code has 0.5 for images of 256x256 pixels.

    References:
        Solving Inverse Problems with Latent Diffusion Models via Hard Data Consistency (Song et al., 2024),
        arXiv:2307.08123, algorithm 1.
        Randomize-Then-Optimize: A Method for Sampling from Posterior Distributions in Nonlinear Inverse Problems
        (Bardsley et al., 2014), SIAM Journal on Scientific Computing 36.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    form: Literal["derived", "published"] = "derived"
    steps: int | None = None
    width: Literal["exact", "white"] = "exact"
    optimiser: Literal["cg", "lbfgs", "adamw"] = "cg"
    iterations: int = 12
    newton: int = 3
    moves: int = 100
    rate: float = 5e-3
    lanczos: int = 12
    tolerance: float = 1e-2
    every: int = 10
    travel: int = 5
    pixel: float = 1 / 3
    latent: float = 2 / 3
    gamma: float = 40.0
    zeta: float | None = None

    def __post_init__(self) -> None:
        if self.form not in ("derived", "published"):
            raise ValueError(f"form must be 'derived' or 'published', got {self.form!r}.")
        if self.optimiser not in ("cg", "lbfgs", "adamw"):
            raise ValueError(f"optimiser must be 'cg', 'lbfgs' or 'adamw', got {self.optimiser!r}.")
        if self.width not in ("exact", "white"):
            raise ValueError(f"width must be 'exact' or 'white', got {self.width!r}.")
        if self.form == "derived" and self.width == "exact" and self.optimiser != "cg":
            raise ValueError(f"{self.optimiser} needs the inverse of C: take width='white', or optimiser='cg'.")
        for name in ("iterations", "newton", "moves", "lanczos", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.pixel <= self.latent <= 1:
            raise ValueError(f"0 <= pixel <= latent <= 1 is needed, got {self.pixel} and {self.latent}.")
        if self.travel < 0 or self.gamma <= 0 or self.rate <= 0 or (self.zeta is not None and self.zeta < 0):
            raise ValueError("travel and zeta must not be negative, gamma and rate must be positive.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must lie in [0, 1), got {self.tolerance}.")
        self._levels()  # validates the steps

    def _levels(self) -> list[float]:
        if self.form == "derived":
            return Euler(50 if self.steps is None else self.steps, lambda n: log_linear(n, sigma_min=0.02)).levels()
        return Euler(500 if self.steps is None else self.steps, vp_linear).levels()

    def draw(self, run: Run) -> Tensor:
        run.measurement.forward_mode = True
        with torch.no_grad():
            u = self.derived(run) if self.form == "derived" else self.published(run)
            r = run.measurement.residual(u)
            chi2 = r.square().mean(1)
            run.note("chi2", chi2.mean())
            bound = REACHED if self.form == "published" else largest_chi2(r.shape[1])
            run.note("unreached", (chi2 > bound).double().mean())
        return u

    def start(self, run: Run, sigma: float) -> Tensor:
        """White noise of the first level."""
        p = run.posterior
        return sigma * run.streams.randn(p.shape or (), p.device, p.dtype)

    # Derived form

    def derived(self, run: Run) -> Tensor:
        """Draws of p(z_0 | z_a, y) and noise of the next level, in turn."""
        path, linear = Path("ReSample", self._levels(), run.callback), closed_form(run)
        daps = DAPS(lanczos=self.lanczos, tolerance=self.tolerance)
        u, x = self.start(run, path.levels[0]), None
        for a, b in path:
            m, C, noise = (daps.moments if self.width == "exact" else daps.white)(run, u, a)
            c = m + noise()
            if self.optimiser != "cg":
                x = self.descend(run, c, a)
            elif linear:
                x = perturb_and_solve(run, c, C, self.iterations, self.tolerance)
            else:
                x = self.gauss_newton(run, c, C, c if x is None else x)
            u = path.report(x + b * run.streams.randn_like(x) if b > 0 else x)
        return u

    def gauss_newton(self, run: Run, c: Tensor, C: Product, x: Tensor) -> Tensor:
        """The minimiser, linearised first at the x of the level before."""
        return randomised(run, c, C, x, self.newton, self.iterations, self.tolerance)

    def descend(self, run: Run, c: Tensor, a: float) -> Tensor:
        """The minimiser for white C, by descent from c."""
        n = run.streams.randn_like(run.measurement.residual(c))
        f = Objective(run.measurement, None, n, c, a**2 / (1 + a**2), self.tolerance)
        return lbfgs(f, c, self.moves) if self.optimiser == "lbfgs" else adamw(f, c, self.moves, self.rate, 0.0)

    # Published form

    def published(self, run: Run) -> Tensor:
        """DDIM with kicks; consistency and resampling every few steps."""
        levels = self._levels()
        path, N = Path("ReSample", levels, run.callback), len(levels) - 1
        u = self.start(run, levels[0])
        r = run.measurement.residual(torch.zeros_like(u))
        c = r.square().mean(1).sqrt().clamp(min=1)
        zeta = kick_length(r.shape[1], N) if self.zeta is None else self.zeta

        def step(u: Tensor, a: float, b: float) -> Tensor:
            u, D = differentiate(run, u, level(u, a))
            with torch.enable_grad():
                r = run.measurement.residual(D)
                norm = torch.linalg.vector_norm(r, dim=1) / c
            run.cost.operator_vjp += 1
            run.cost.denoiser_vjp += 1
            (gradient,) = torch.autograd.grad(norm, u, torch.ones_like(norm))
            kick = zeta * ((1 + b**2) / (1 + a**2)) ** 0.5  # alpha-bar times the change of variables of DPS
            kick = kick * (1 - 1 / r.detach().square().mean(1)).clamp(min=0)  # ends at the noise level as well
            D = D.detach()
            return D + (b / a) * (u.detach() - D) - row(kick, D) * gradient

        for i, (a, b) in enumerate(path):
            u = step(u, a, b)
            if b == 0:
                u = self.codes(run, u)
            elif i >= self.pixel * N and i % self.every == 0:
                z = u
                for k in range(i + 1, min(i + 1 + self.travel, N - 1)):
                    z = step(z, levels[k], levels[k + 1])
                last = levels[min(i + 1 + self.travel, N - 1)]
                z = run.denoise(z, level(z, last))
                z = self.codes(run, z) if i >= self.latent * N else self.fields(run, z)
                u = resampled(u, z, run.streams.randn_like(u), a, b, self.gamma)
            path.report(u)
        return u

    def codes(self, run: Run, z: Tensor) -> Tensor:
        """Codes whose fields explain the data to the noise."""
        return self.optimise(Objective(run.measurement), z, self.rate)

    def fields(self, run: Run, z: Tensor) -> Tensor:
        """Codes of fields that explain the data to the noise; the decoder is not differentiated."""
        prior = run.posterior.prior
        x = prior.decode(z)
        seen = pixels(run, x)
        return prior.encode(seen.prior.decode(self.optimise(Objective(seen), seen.prior.encode(x), 2 * self.rate)))

    def optimise(self, f: Objective, u: Tensor, rate: float) -> Tensor:
        """Rows moved to the noise level by the chosen optimiser."""
        if self.optimiser == "cg":
            return conjugate_gradients(f, u, self.iterations, self.newton)
        if self.optimiser == "lbfgs":
            return lbfgs(f, u, self.moves)
        return adamw(f, u, self.moves, rate)
