r"""UniPC: a multistep predictor, and a corrector of one order more that costs no call.

Both are exact for denoised states that are polynomials in :math:`\log\sigma`. With :math:`h = \log(a/b)`, the nodes
:math:`s_j = \log(a/\sigma_j)/h` and :math:`\varphi` of `scidiff.samplers.exponential`,

.. math:: u_b = \frac{b}{a} u_a + \sum_j w_j D_j, \qquad \sum_j w_j s_j^k = h\,k!\,\varphi_{k+1}(-h),

over the last p denoised states for the predictor (UniP-p), and over these and :math:`D_b = D(u_b, b)`, with s = 1, for
the corrector (UniC-p). :math:`D_b` is the call that the next step needs anyway and is not repeated at the corrected
state. The order is p without corrector and p + 1 with it.

The paper writes the conditions on :math:`(D_j - D_0)/s_j` and divides them by a function B(h), which cancels. It does
not in the two cases with a single difference (UniP-2 and UniC-1), where the condition is met up to the next order by
the constant 1/2,

.. math:: u_b = \frac{b}{a} u_a + (1 - e^{-h}) D_0 + \frac{B}{2}\,\frac{D_j - D_0}{s_j}, \qquad
          B_1 = h, \quad B_2 = 1 - e^{-h}.

The first steps use the values there are; the last one, to level zero, is :math:`u_0 = D`. Callbacks see the predicted
states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level
from scidiff.samplers.exponential import Past, combine, data_weights
from scidiff.schedules import Schedule, log_linear

__all__ = ["UniPC"]


@dataclass(frozen=True, repr=False)
class UniPC(Sampler):
    """UniPC-p with the denoised state as the extrapolated quantity; one denoiser call per step.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls.
        schedule: Noise levels; evenly spaced in their log by default.
        order: Number p of denoised states that the predictor uses. The paper takes 3, and 2 where guidance is strong.
        corrector: Whether states are corrected; the order of convergence is then p + 1.
        B: The variant of the steps with a single difference, 1 or 2. The paper prefers 2 where guidance is strong, 1
            for unguided sampling in few steps.

    References:
        UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models (Zhao et al., 2023),
        arXiv:2302.04867, equations (3) to (9), algorithms 1 and 2, and appendix A for the denoised state.
    """

    schedule: Schedule = log_linear
    order: int = 3
    corrector: bool = True
    B: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order < 1:
            raise ValueError(f"order must be at least 1, got {self.order}.")
        if self.B not in (1, 2):
            raise ValueError(f"B must be 1 or 2, got {self.B}.")

    def weights(self, a: float, b: float, levels: Sequence[float]) -> list[float]:
        """Weights of the denoised states at ``levels``, the first of which is a, in the step from a to b."""
        if len(levels) != 2:
            return data_weights(a, b, levels)
        h, keep = math.log(a / b), b / a
        half = (h if self.B == 1 else 1 - keep) / 2 * h / math.log(a / levels[1])
        return [1 - keep - half, half]

    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        path, past, change = self.path(callback, correct), Past(self.order), None
        last = math.inf
        for a, b in path:
            D = denoise(u, level(u, a))
            if b == 0:
                return path.report(D)
            if self.corrector and change is not None:
                # The corrected state minus the predicted one; both start from the same (b/a) u_a.
                ahead = D if path.before is None else path.before
                w = self.weights(last, a, [*past.levels, a])
                u = u + combine(w, [*past.values, ahead]) - change
            past.add(a, D, path.before)
            change = combine(self.weights(a, b, past.levels), past.values)
            u = path.report((b / a) * u + change)
            last = a
        return u
