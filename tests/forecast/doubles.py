"""Small networks of forecasters with fixed weights."""

from __future__ import annotations

import torch
from torch import nn

from scidiff.forecast import DYffusion, Interpolator, Predictor
from scidiff.nn import MeshCNN

GRID = (5, 8)


def network(
    inputs: int, outputs: int, dropout: float = 0.0, seed: int = 0, noise: int = 0, horizon: int = 4
) -> nn.Module:
    """One layer, so one mask per call; weights are large enough for every part to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = MeshCNN(inputs, outputs, 6, (3,), embedding=8, dropout=dropout, noise=noise, horizon=horizon)
        nn.init.normal_(net.tail.weight, std=0.3)
    return net.double().eval()


def dyffusion(
    horizon: int = 4, channels: int = 2, window: int = 1, forcings: int = 0, dropout: float = 0.4, **options: object
) -> DYffusion:
    """Both networks with random weights."""
    conditions = 0 if options.get("conditioning", "none") == "none" else window * channels
    inside = network((window + 1) * channels + forcings, channels, dropout, 1, horizon=horizon)
    ahead = network(channels + conditions + forcings, channels, 0.0, 2, horizon=horizon)
    return DYffusion(Predictor(ahead), Interpolator(inside, horizon, window), **options)  # type: ignore[arg-type]
