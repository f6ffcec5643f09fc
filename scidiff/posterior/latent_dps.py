r"""Diffusion posterior sampling through a decoder (latent DPS).

The field that a noisy code stands for is :math:`G(D)`, :math:`D = E[u_0 | u]`, and the likelihood of the noisy code is
taken as that of this one field. The formulas are those of `scidiff.posterior.dps` with :math:`\mathrm{decode} = G`: one
pass back through decoder and denoiser per step.

``form="published"`` (the default) is a DDPM step and a kick of fixed length along the gradient of the residual's norm
(`DPS`), the baseline that PSLD and ReSample are compared with in their papers; ``form="annealed"`` is a posterior
denoiser, the likelihood widened by one number per row (`AnnealedDPS`), for a tenth of the steps. Both are heuristics:
neither knows how uncertain :math:`D` is along the data, which is what `MMPS` adds and `LatentDAPS` draws from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from scidiff.posterior.base import Run
from scidiff.posterior.dps import DPS, AnnealedDPS
from scidiff.posterior.latent import LatentSampler
from scidiff.samplers import DPMSolver

__all__ = ["LatentDPS"]


@dataclass(frozen=True)
class LatentDPS(LatentSampler):
    """DPS with codes: the gradient of the misfit passes through decoder and denoiser; a heuristic.

    Arguments:
        form: "published" or "annealed", see above.
        steps: Number of steps; each is one denoiser call, one vector-Jacobian product of it, and one pass through the
            decoder and back. None takes 64 (annealed) or 1000 (published).
        zeta: Length of the kick of the published form; None takes `scidiff.posterior.dps.kick_length`.

    References:
        Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al., 2023), arXiv:2209.14687.
        Solving Linear Inverse Problems Provably via Posterior Sampling with Latent Diffusion Models (Rout et al.,
        2023), arXiv:2307.00619, where it is the baseline.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    form: Literal["annealed", "published"] = "published"
    steps: int | None = None
    zeta: float | None = None

    def __post_init__(self) -> None:
        if self.form not in ("annealed", "published"):
            raise ValueError(f"form must be 'annealed' or 'published', got {self.form!r}.")
        if self.form == "annealed" and self.zeta is not None:
            raise ValueError("zeta belongs to form='published'; the annealed form has no such length.")
        self._method()  # validates the rest

    def _method(self) -> DPS | AnnealedDPS:
        if self.form == "published":
            return DPS(1000 if self.steps is None else self.steps, self.zeta)
        return AnnealedDPS(DPMSolver(64 if self.steps is None else self.steps, stochastic=True))

    def draw(self, run: Run) -> Tensor:
        return self._method().draw(run)
