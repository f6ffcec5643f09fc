"""Small helpers of the metrics: complex to real, masked means, checks of shape."""

from __future__ import annotations

import torch
from torch import Tensor


def check_ensemble(samples: Tensor, truth: Tensor, least: int = 2) -> None:
    r"""Refuses ensembles that are not (M, \*truth.shape) or have too few members."""
    if samples.ndim != truth.ndim + 1 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"samples must have shape (members, *{tuple(truth.shape)}) like the truth, got {tuple(samples.shape)}; "
            "members come first."
        )
    if truth.ndim < 1:
        raise ValueError("truth must have a batch dimension first, got a single number; write truth[None].")
    if len(samples) < least:
        raise ValueError(f"this score needs at least {least} members, got {len(samples)}.")
    if samples.is_complex() != truth.is_complex():
        raise ValueError("samples and truth must both be real or both be complex; `.abs()` of both compares sizes.")


def check_pair(estimate: Tensor, truth: Tensor) -> None:
    """Refuses two fields of different shape."""
    if estimate.shape != truth.shape:
        raise ValueError(f"both fields must have the same shape, got {tuple(estimate.shape)} and {tuple(truth.shape)}.")
    if truth.ndim < 1:
        raise ValueError("fields must have a batch dimension first, got a single number.")


def real_view(x: Tensor) -> Tensor:
    """Complex (..., ) to real (..., 2); a real tensor gains a last dimension of one."""
    return torch.view_as_real(x) if x.is_complex() else x[..., None]


def mean_over_field(value: Tensor, where: Tensor | None = None) -> Tensor:
    r"""Mean of ``value`` (B, \*X) over all but the first dimension; ``where`` weights it and broadcasts against it."""
    value = value.flatten(1) if where is None else value
    if where is None:
        return value.mean(1)
    try:
        weight = where.to(value.dtype).expand_as(value)
    except RuntimeError:
        raise ValueError(
            f"where has shape {tuple(where.shape)}, which does not broadcast to the field {tuple(value.shape)}."
        ) from None
    total = weight.flatten(1).sum(1)
    if bool((total <= 0).any()):
        raise ValueError("where selects nothing.")
    return (value * weight).flatten(1).sum(1) / total
