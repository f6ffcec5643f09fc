r"""What networks predict, in one place: networks trained elsewhere become priors.

A network was trained on :math:`w`, its own normalisation of the field, and sees
:math:`x_t = \alpha w_0 + s\epsilon` (see `scidiff.priors.processes`). With ``n`` its output,
:math:`w = x_t / \alpha` and :math:`\sigma = s / \alpha`:

===========  ============================================  ============================================================
prediction   trained to equal                              denoiser :math:`D = E[w_0 | x_t]`
===========  ============================================  ============================================================
``x0``       :math:`w_0`                                   :math:`n`
``eps``      :math:`\epsilon`                              :math:`w - \sigma n`
``score``    :math:`\nabla_x \log p_t = -\epsilon / s`     :math:`w + \sigma s\,n`
``v``        :math:`\alpha\epsilon - s w_0`                :math:`(\alpha^2 w - s n) / (\alpha^2 + s^2)`
``velocity`` :math:`\dot\alpha w_0 + \dot s\epsilon`       :math:`(\dot s\alpha w - s n)/(\dot s\alpha - \dot\alpha s)`
===========  ============================================  ============================================================

Two that need no row: the raw network F of EDM with :math:`\sigma_{data} = 1` is ``-v`` of a variance-preserving process
(`scidiff.priors.DiffusionPrior` computes it), and EDM's preconditioned D has the process `EDM` and the prediction
``x0``. Flows whose data lie at t = 1, as in Lipman's and Liu's papers, are ``Flow(data_at=1)``.

References:
    Progressive distillation for fast sampling of diffusion models (Salimans and Ho, 2022), arXiv:2202.00512 (v). Flow
    matching for generative modeling (Lipman et al., 2023), arXiv:2210.02747 (velocity). For processes see
    `scidiff.priors.processes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from scidiff.priors.diffusion import DiffusionPrior
from scidiff.priors.processes import EDM, VE, Cosine, Discrete, Flow, Process, SubVP, Trigonometric, VPLinear

__all__ = [
    "EDM", "VE", "ConvertedPrior", "Cosine", "Discrete", "Flow", "Prediction", "Process", "SubVP", "Trigonometric",
    "VPLinear",
]  # fmt: skip

Prediction = Literal["x0", "eps", "score", "v", "velocity"]
"""What a network was trained to return; see the table of the module."""


class ConvertedPrior(DiffusionPrior):
    r"""A network trained with any process and prediction, as a prior.

    The network's own coordinates are :math:`w = m + c\,u`, where ``u`` has about zero mean and unit variance; the
    noise level :math:`\sigma` of ``u`` is :math:`c\sigma` in them. Inside the range of noise levels of the process the
    denoiser is an exact change of variables. Outside it is continued: below the smallest level :math:`\sigma_m` with
    the score of that level, :math:`D = w + (\sigma/\sigma_m)^2 (D_m(w) - w)`; above the largest with the state brought
    back to it, :math:`D = D_m(w\,\sigma_m/\sigma)`. `sigma_range` tells where that begins.

    Arguments:
        network: Maps :math:`x_t` (B, channels, \*grid) and a label (B,) to a tensor of the same shape. Twice as many
            channels mean a learned reverse variance in the second half, which is not used.
        process: The forward process of training.
        prediction: What the network returns, one of `Prediction`.
        channels: Real channels of ``u``.
        label: What the network sees of the time, a function of t (B,); None for t itself. For example
            ``lambda t: 999 * t``, or ``lambda t: t.log() / 4`` for EDM.
        data_mean: Mean :math:`m` of the fields in the network's coordinates, a scalar or one per channel of ``u``.
        data_std: Standard deviation :math:`c` in the network's coordinates, one number.
        loc: Mean of the field in physical units, as in `DiffusionPrior`.
        scale: Standard deviation of the field in physical units, as in `DiffusionPrior`.
        complex: The field is complex, as in `DiffusionPrior`.
        units: Physical units of the field.
        card: What is known of the training.
        autocast: Compute type of the network; None keeps the type of the weights.

    Raises:
        ValueError: for an unknown prediction or a standard deviation that is not positive.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        prediction: Prediction,
        channels: int,
        label: Callable[[Tensor], Tensor] | None = None,
        data_mean: float | Tensor = 0.0,
        data_std: float = 1.0,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        complex: bool = False,  # noqa: A002 - the field's own word
        units: str = "1",
        card: dict[str, Any] | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(network, channels, _double(loc), _double(scale), complex, units, card, autocast)
        if prediction not in get_args(Prediction):
            raise ValueError(f"prediction must be one of {', '.join(get_args(Prediction))}, got {prediction!r}.")
        if not data_std > 0:
            raise ValueError(f"data_std must be positive, got {data_std}.")
        self.process, self.prediction, self.label = process, prediction, label
        self.data_mean, self.data_std = _double(data_mean), data_std
        self._low, self._high = process.sigma_range

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest noise level of ``u`` at which the network was trained."""
        return self._low / self.data_std, self._high / self.data_std

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r"""Estimate of E[u0 | u]; ``u`` (B, channels, \*grid), ``sigma`` () or (B,), positive. Same type as ``u``."""
        mean = self._channelwise(self.data_mean, u)
        # Clocks and scales are few numbers: in double precision they cost nothing and are exact for single.
        wanted = torch.as_tensor(sigma, device=u.device).to(torch.float64).expand(len(u)) * self.data_std
        known = wanted.clamp(self._low, self._high)
        w = mean + self.data_std * u
        w = w * _rows(known / wanted, w).clamp_max(1)
        d = self._denoised(w, known)
        d = d + _rows(1 - (wanted / known).square(), w).clamp_min(0) * (w - d)
        return (d - mean) / self.data_std

    def denoise_all(self, u: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The denoiser, and nothing: a learned variance of another process is not used."""
        return self.denoise(u, sigma), u[:, :0]

    def _denoised(self, w: Tensor, sigma: Tensor) -> Tensor:
        """The denoiser in the network's coordinates, at levels in its range: the table of the module."""
        t, alpha = self.process.time(sigma), self.process.scaling(sigma)
        s = alpha * sigma
        n = self._output(_rows(alpha, w) * w, t)
        if self.prediction == "x0":
            return n
        if self.prediction == "eps":
            return w - _rows(sigma, w) * n
        if self.prediction == "score":
            return w + _rows(sigma * s, w) * n
        if self.prediction == "v":
            total = alpha.square() + s.square()
            return _rows(alpha.square() / total, w) * w - _rows(s / total, w) * n
        alpha_rate, s_rate = self.process.rates(t)
        total = s_rate * alpha - alpha_rate * s
        return _rows(s_rate * alpha / total, w) * w - _rows(s / total, w) * n

    def _output(self, x: Tensor, t: Tensor) -> Tensor:
        weights = next(self.network.parameters(), None)
        kind = x.dtype if weights is None else weights.dtype
        label = (t if self.label is None else self.label(t)).to(kind)
        with torch.autocast(x.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            n = self.network(x.to(kind), label).to(x.dtype)
        if n.shape != x.shape and n.shape == (len(x), 2 * x.shape[1], *x.shape[2:]):
            n = n[:, : x.shape[1]]
        if n.shape != x.shape:
            raise ValueError(
                f"the network maps {tuple(x.shape)} to {tuple(n.shape)}; expected that shape or twice the channels."
            )
        return n


def _double(value: float | Tensor) -> Tensor:
    """Constants in double precision, so that 0.3 is as exact as the state it meets."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _rows(value: Tensor, like: Tensor) -> Tensor:
    """Numbers (B,) beside states (B, ...), in their type."""
    return value.to(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))
