r"""Validation: the loss on fixed fields and fixed noise, as one number and by noise level.

A mean over levels hides where a prior is weak. By level we report EDM's weighted error at fixed levels: 1 is the error
of a network that knows nothing but the variance (on white fields nothing better exists); what remains at small levels
is fine texture, at large ones the law of the coarse structure.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from scidiff.training.batches import Batch, Source, draw
from scidiff.training.config import TrainingConfig
from scidiff.training.levels import LogNormal
from scidiff.training.losses import DenoisingLoss, Loss

__all__ = ["LEVELS", "autocast", "validation_by_level", "validation_loss"]

LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def autocast(device: torch.device | str, bf16: bool):  # noqa: ANN201 - a context manager of torch or of the library
    """Computes the network in bfloat16, or as it is."""
    return torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext()


def _groups(source: Source, config: TrainingConfig, loss: Loss, rows: int) -> list[Batch]:
    return [draw(source, -1, range(i, min(i + 8, rows)), config.crop(0), config, loss) for i in range(0, rows, 8)]


@torch.no_grad()
def validation_loss(
    network: nn.Module, source: Source, config: TrainingConfig, loss: Loss | None = None, rows: int = 32
) -> float:
    """The training loss on fixed rows, so that values of different steps can be compared."""
    device = next(network.parameters()).device
    loss = DenoisingLoss(levels=LogNormal(config.noise_mean, config.noise_std)) if loss is None else loss
    total = 0.0
    for batch in _groups(source, config, loss, rows):
        with autocast(device, config.bf16):
            total += batch.to(device).losses(loss, network).sum().item()
    return total / rows


@torch.no_grad()
def validation_by_level(
    network: nn.Module, source: Source, config: TrainingConfig, rows: int = 16, levels: tuple[float, ...] = LEVELS
) -> list[tuple[float, float]]:
    """EDM's weighted error at fixed noise levels: pairs (sigma, error)."""
    device = next(network.parameters()).device
    loss = DenoisingLoss()
    groups = [batch.to(device) for batch in _groups(source, config, loss, rows)]
    found = []
    for sigma in levels:
        total = 0.0
        for batch in groups:
            batch.time = torch.full_like(batch.time, sigma)
            with autocast(device, config.bf16):
                total += batch.losses(loss, network).sum().item()
        found.append((sigma, total / rows))
    return found
