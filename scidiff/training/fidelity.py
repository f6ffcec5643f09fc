"""What an autoencoder loses, and what its codes look like: the numbers and the picture of its card."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from scidiff.metrics.bands import BANDS, band_errors
from scidiff.nn.autoencoder import ConvAutoencoder
from scidiff.training.pictures import sheet

__all__ = ["fidelity", "triptych"]

_EMPTY = 1e-7
"""Bands that hold less of the variance are left out: nothing is there that could be lost."""


@torch.no_grad()
def _passed(network: ConvAutoencoder, fields: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Reconstructions, codes and log variances, eight fields at a time."""
    parts = []
    for part in fields.split(8):
        z, logvar = network.encode(part)
        parts.append((network.decode(z), z, logvar))
    estimate, z = (torch.cat([p[i] for p in parts]) for i in (0, 1))
    return estimate, z, None if parts[0][2] is None else torch.cat([p[2] for p in parts])


def fidelity(network: ConvAutoencoder, fields: Tensor) -> dict[str, Any]:
    r"""Reconstruction of standardised fields (N, C, \*grid) through the mean of the code, ready for JSON.

    Returns:
        ``rmse`` in units of the field's standard deviation; ``psnr`` in dB, of the range of all these fields;
        ``bands``, a list of [from, to, relative error, share of the variance], wavenumbers in units of Nyquist's;
        ``codes`` with mean and standard deviation per channel, and either the standard deviation that the encoder gives
        its codes (``noise``) or the number of vectors in use (``used``, the exponential of the entropy).
    """
    estimate, z, logvar = _passed(network, fields)
    mse = float((estimate - fields).double().square().mean())
    width = float(fields.max() - fields.min())
    errors, shares = band_errors(fields, estimate, network.dims, periodic=network.padding == "periodic")
    bands = [
        [a, b if math.isfinite(b) else None, round(e, 5), round(s, 7)]
        for a, b, e, s in zip(BANDS, BANDS[1:], errors.tolist(), shares.tolist(), strict=False)
        if s > _EMPTY
    ]
    flat = z.transpose(0, 1).flatten(1).double()
    codes: dict[str, Any] = {"mean": _rounded(flat.mean(1)), "std": _rounded(flat.std(1))}
    if logvar is not None:
        codes["noise"] = _rounded(logvar.double().exp().transpose(0, 1).flatten(1).mean(1).sqrt())
    if network.codebook is not None:
        share = torch.bincount(network.codebook.index(z).flatten(), minlength=len(network.codebook.vectors)).double()
        share = share / share.sum()
        codes["used"] = round(float((-torch.xlogy(share, share).sum()).exp()), 1)
    return {
        "rmse": round(math.sqrt(mse), 6),
        "psnr": round(20 * math.log10(width) - 10 * math.log10(max(mse, 1e-30)), 2) if width > 0 else None,
        "bands": bands,
        "codes": codes,
    }


def triptych(network: ConvAutoencoder, fields: Tensor) -> bytes:
    """A PNG: fields, what is left of them, and the difference five times enlarged, one above the other."""
    estimate, _, _ = _passed(network, fields)
    shown = torch.cat([fields[:, :1], estimate[:, :1], 5 * (estimate - fields)[:, :1]], dim=1)
    low, high = fields[:, :1].min(), fields[:, :1].max()
    shown = torch.cat([shown[:, :2].clamp(low, high), (shown[:, 2:] + (low + high) / 2).clamp(low, high)], dim=1)
    return sheet(shown)


def _rounded(v: Tensor) -> list[float]:
    return [round(float(x), 5) for x in v]
