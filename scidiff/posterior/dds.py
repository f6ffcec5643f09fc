r"""Decomposed diffusion sampling (DDS): a few conjugate gradient steps pull each denoised state towards the data.

.. math:: x_0 \approx \arg\min_x \tfrac{\gamma}{2}\, \|r(x)\|^2 + \tfrac12 \|x - D\|^2, \qquad
          u_b = x_0 + \sqrt{b^2 - c^2}\,\frac{u_a - D}{a} + c\,z, \quad c = \eta\, b\sqrt{1 - b^2/a^2},

with n steps of conjugate gradients on :math:`(I + \gamma\tilde A^\top\tilde A)\,(x_0 - D)
= \gamma\tilde A^\top r(D)`, from zero, and DDIM's transition.

**Units.** The residual r is whitened, so :math:`\gamma` is a pure number: a step weighs data against D as if
:math:`u_0` had the variance :math:`\gamma` about D, in units of the prior's variance. The paper's residual is not
whitened and its operators have norm 1 or so: its :math:`\gamma` is ours times the squared ratio of the field's standard
deviation to that of the noise, 10 there being 0.1 here where the noise is a tenth of the field.

**Not the exact posterior.** One :math:`\gamma` serves all noise levels, and the data are used again at each of them:
their noise is fitted, and draws are too narrow where they are seen. Close to a point estimator with fresh noise where
the data are silent. See docs/certificate.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.linalg.solvers import cg
from scidiff.posterior.base import MemberSampler, Run
from scidiff.samplers.base import Path, level
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["DDS"]


@dataclass(frozen=True, repr=False)
class DDS(MemberSampler):
    """Decomposed diffusion sampling: a few conjugate gradient steps per level; close to a point estimator.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls.
        gamma: Weight of the data, see above. Authors' code: 10 in the units of their data. The default balances
            spread and mean on Gaussian fields; below 0.01 the data are not reached.
        iterations: Conjugate gradient steps per level. Authors' code: 3 to 5.
        eta: DDIM's share of fresh noise.
        schedule: Noise levels.

    References:
        Decomposed Diffusion Sampler for Accelerating Large-Scale Inverse Problems (Chung, Lee and Ye, 2024),
        arXiv:2303.05754, algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"linear", "gradient", "variance"})

    steps: int = 100
    gamma: float = 0.03
    iterations: int = 5
    eta: float = 0.85
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        Path("DDS", self.schedule(self.steps).tolist())
        if self.gamma <= 0 or self.iterations < 1:
            raise ValueError(f"gamma and iterations must be positive, got {self.gamma} and {self.iterations}.")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, got {self.eta}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        p, measurement = run.posterior, run.measurement
        path = Path("DDS", self.schedule(self.steps).tolist(), run.callback)
        with torch.no_grad():

            def system(v: Tensor) -> Tensor:
                return v + self.gamma * measurement.adjoint(measurement.forward(v))

            u = path.levels[0] * run.streams.randn(p.shape or (), p.device, p.dtype)
            for a, b in path:
                D = run.denoise(u, level(u, a))
                right = self.gamma * measurement.adjoint(measurement.residual(D))
                change, info = cg(system, right, iterations=self.iterations)
                run.note("residual", info.relative.mean())
                c = self.eta * b * (1 - b**2 / a**2) ** 0.5
                u = D + change + (b**2 - c**2) ** 0.5 / a * (u - D)
                if c > 0:
                    u = u + c * run.streams.randn_like(u)
                path.report(u)
        return u
