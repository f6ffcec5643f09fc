r"""A learned prior: a network with EDM preconditioning is an estimate of ``E[u0 | u0 + sigma eps]``.

With data of unit variance the denoiser is

.. math:: D(u, \sigma) = \frac{u}{1 + \sigma^2} + \frac{\sigma}{\sqrt{1 + \sigma^2}}\,
          F\!\left(\frac{u}{\sqrt{1 + \sigma^2}}, \tfrac14 \ln \sigma\right),

so that the network ``F`` sees and predicts fields of unit variance at every noise level.

References:
    Karras, Aittala, Aila & Laine, Elucidating the design space of diffusion-based generative models, 2022,
    arXiv:2206.00364, table 1 (sigma_data = 1).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scidiff.linalg.modes import SineUnits
from scidiff.nn.conditioned import Conditioned
from scidiff.transforms import Transform

__all__ = ["DiffusionPrior", "Network", "precondition", "precondition_all"]


Network = Callable[[Tensor, Tensor], Tensor]
r"""``F(x, label)``: (B, C, \*grid), (B,) -> (B, C or more, \*grid); channels beyond C say something else."""


def precondition(network: Network, u: Tensor, sigma: Tensor) -> Tensor:
    r"""The denoiser of the module's formula; ``u`` (B, C, \*grid), ``sigma`` () or (B,)."""
    return precondition_all(network, u, sigma)[0]


def precondition_all(network: Network, u: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The denoiser, and what the network says beyond the channels of ``u`` (a learned reverse variance)."""
    sigma = sigma.to(u).expand(u.shape[0])
    s = sigma.reshape(-1, *(1,) * (u.ndim - 1))
    root = (1 + s.square()).sqrt()
    out = network(u / root, sigma.log() / 4).to(u.dtype)
    out, rest = (out, out[:, :0]) if out.shape[1] == u.shape[1] else (out[:, : u.shape[1]], out[:, u.shape[1] :])
    return u / root.square() + s / root * out, rest


class DiffusionPrior:
    r"""Law of fields learned by a network.

    Arguments:
        network: Maps (B, channels, \*grid) and a label (B,) to (B, channels, \*grid). Its weights are frozen: guidance
            never computes gradients with respect to them.
        channels: Real channels of ``u``.
        loc: Mean of the field in physical units, a scalar or one per field channel; of the transformed field, if any.
        scale: Standard deviation of the field in physical units (per real component if complex), likewise.
        complex: The field is complex: channels 2k and 2k + 1 of ``u`` are real and imaginary part of channel k of
            ``x``.
        units: Physical units of the field.
        card: What is known of the training.
        autocast: Compute type of the network, for example ``torch.bfloat16``; None keeps the type of the weights.
        transforms: For positive or bounded real fields: ``x = T(loc + scale * u)``, one transform for all channels or
            a list with one (or None) per channel. The prior is then not affine.
        modes: For smooth real fields on one grid: units of the sines of each channel, (channels, \*grid), by which
            the above gets another u: ``x = T(loc + scale * SineUnits(modes).decode(u))``, see `scidiff.linalg.modes`.
    """

    shape = None

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        complex: bool = False,  # noqa: A002 - the field's own word
        units: str = "1",
        card: dict[str, Any] | None = None,
        autocast: torch.dtype | None = None,
        transforms: Transform | Sequence[Transform | None] | None = None,
        modes: Tensor | None = None,
    ) -> None:
        if complex and channels % 2:
            raise ValueError(f"a complex field needs an even number of real channels, got {channels}.")
        if not bool((torch.as_tensor(scale) > 0).all()):
            raise ValueError(f"scale must be positive, got {scale}.")
        self.network = network.eval().requires_grad_(False)
        self.channels, self.complex, self.units = channels, complex, units
        self.loc, self.scale = torch.as_tensor(loc), torch.as_tensor(scale)
        self.card = dict(card or {})
        self.autocast = autocast
        self.transforms: list[Transform | None] = []
        if isinstance(transforms, Transform):
            self.transforms = [transforms for _ in range(channels)]
        elif transforms is not None and any(transforms):
            self.transforms = [*transforms]
        if self.transforms and (complex or len(self.transforms) != channels):
            raise ValueError(f"transforms need a real field and one entry per channel ({channels}), got {transforms}.")
        self.affine = not self.transforms
        self.modes = None if modes is None else SineUnits(modes)
        if modes is not None and (complex or len(modes) != channels):
            raise ValueError(f"modes need a real field and one table per channel ({channels}), got {len(modes)}.")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((w.device for w in self.network.parameters()), self.loc.device)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r"""Estimate of E[u0 | u]; ``u`` (B, channels, \*grid), ``sigma`` () or (B,). Same type as ``u``."""
        return self.denoise_all(u, sigma)[0]

    def denoise_all(self, u: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        r"""The estimate, and what the network says beyond it: (B, channels, \*grid) and (B, more or 0, \*grid).

        Networks trained with `scidiff.training.hybrid.HybridLoss` say there how large the reverse variance is.
        """
        weights = next(self.network.parameters(), None)
        inside = u if weights is None else u.to(weights.dtype)
        with torch.autocast(u.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            D, rest = precondition_all(self.network, inside, torch.as_tensor(sigma, device=u.device))
        return D.to(u.dtype), rest.to(u.dtype)

    def decode(self, u: Tensor) -> Tensor:
        r"""The field in physical units; complex fields come out as (B, channels / 2, \*grid)."""
        if self.complex:
            u = torch.complex(u[:, 0::2], u[:, 1::2])
        u = u if self.modes is None else self.modes.decode(u)
        z = self._channelwise(self.loc, u) + self._channelwise(self.scale, u) * u
        return self._through(z, "decode")

    def encode(self, x: Tensor) -> Tensor:
        """Inverse of `decode`."""
        x = self._through(x, "encode")
        u = (x - self._channelwise(self.loc, x)) / self._channelwise(self.scale, x)
        if not self.complex:
            return u if self.modes is None else self.modes.encode(u)
        return torch.stack([u.real, u.imag], dim=2).flatten(1, 2)

    def rescaled(self, factor: float | Tensor) -> DiffusionPrior:
        """The prior of ``factor * x``: the same ``u``, other physical units."""
        other = copy.copy(self)
        if not self.transforms:
            other.loc, other.scale = self.loc * factor, self.scale * factor
            return other
        f = torch.as_tensor(factor)
        if f.ndim or not f > 0:
            raise ValueError(f"a prior with transforms is rescaled by one positive number, got {factor}.")
        plain = torch.tensor([t is None for t in self.transforms], device=self.loc.device)
        other.transforms = [None if t is None else t.rescaled(float(f)) for t in self.transforms]
        other.loc, other.scale = (torch.where(plain, v * f.to(v), v) for v in (self.loc, self.scale))
        return other

    def given(self, condition: Tensor, guidance: float = 1.0) -> DiffusionPrior:
        r"""The law of fields given a condition, for networks trained with one.

        Arguments:
            condition: (K, \*grid), standardised with ``loc`` and ``scale`` of ``card["condition"]`` if it is there.
            guidance: Weight of the condition: 1 is the conditional law, 0 the law without it; see
                `scidiff.nn.conditioned`.
        """
        wanted = self.channels + condition.shape[-1 - self._rank(condition)] + 1
        inputs = getattr(self.network, "inputs", wanted)
        if inputs != wanted:
            raise ValueError(
                f"the network takes {inputs} channels, but {self.channels} of the field, "
                f"{wanted - self.channels - 1} of the condition and its flag are {wanted}."
            )
        statistics = self.card.get("condition")
        if statistics:
            loc, scale = (torch.as_tensor(statistics[key]) for key in ("loc", "scale"))
            batched = condition if condition.ndim == self._rank(condition) + 2 else condition[None]
            condition = (batched - self._channelwise(loc, batched)) / self._channelwise(scale, batched)
        other = copy.copy(self)
        other.network = Conditioned(self.network, condition, guidance).eval().requires_grad_(False)
        return other

    def _rank(self, condition: Tensor) -> int:
        """Dimensions of the grid: the network's word, else a condition without a batch is assumed."""
        return int(getattr(self.network, "dims", condition.ndim - 1))

    def _through(self, x: Tensor, direction: str) -> Tensor:
        if not self.transforms:
            return x
        parts = [
            part if t is None else getattr(t, direction)(part)
            for t, part in zip(self.transforms, x.unbind(1), strict=True)
        ]
        return torch.stack(parts, dim=1)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> DiffusionPrior:
        """Moves the network; a type other than float32 or float64 belongs in ``autocast``."""
        other = copy.copy(self)
        other.network = copy.deepcopy(self.network).to(device=device, dtype=dtype)
        return other

    @staticmethod
    def _channelwise(value: Tensor, like: Tensor) -> Tensor:
        real = like.real.dtype if like.is_complex() else like.dtype
        if value.is_complex():
            real = like.dtype
        value = value.to(device=like.device, dtype=real)
        return value.reshape(-1, *(1,) * (like.ndim - 2)) if value.ndim else value
