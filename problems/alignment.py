r"""Comparison of fields up to what phaseless data cannot tell: phase, place, and rotation by 180 degrees.

Of all fields :math:`e^{i\varphi}\, T_s x` and :math:`e^{i\varphi}\, T_s \bar x(-r)`, with :math:`T_s` a shift on the
periodic grid, the one nearest to the truth :math:`x^*` has the largest correlation :math:`|\langle x^*, T_s x\rangle|`;
all shifts come from one product of Fourier transforms, and the phase from that of the correlation.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["align", "point_reflected"]

_HW = (-2, -1)


def point_reflected(x: Tensor) -> Tensor:
    r"""The field (..., H, W) rotated by 180 degrees, conjugated if it is complex: the same Fourier modulus."""
    return x.flip(_HW).conj().resolve_conj() if x.is_complex() else x.flip(_HW)


def align(x: Tensor, truth: Tensor, phase: bool = True, shift: bool = True, flip: bool = True) -> Tensor:
    """Each field brought as close to the truth as the ambiguities allow.

    Arguments:
        x: Fields (M, C, H, W), real or complex.
        truth: (1, C, H, W) or (M, C, H, W).
        phase: Whether the global phase (of real fields the sign) is unknown.
        shift: Whether the place is unknown: whole pixels, periodic.
        flip: Whether fields may be rotated by 180 degrees (and conjugated).

    Returns:
        The aligned fields, (M, C, H, W).
    """
    truth = truth.to(x.dtype).expand_as(x)
    candidates = [x, point_reflected(x)] if flip else [x]
    best, value = x, torch.full((len(x),), -torch.inf, dtype=x.real.dtype, device=x.device)
    for candidate in candidates:
        if shift:
            spectrum = torch.fft.fft2(truth) * torch.fft.fft2(candidate).conj()
            correlation = torch.fft.ifft2(spectrum).sum(1)  # (M, H, W): <candidate shifted by s, truth>
            correlation = correlation if x.is_complex() else correlation.real
        else:
            correlation = (truth * candidate.conj()).sum((1, 2, 3)).reshape(-1, 1, 1)
        strength = (correlation.abs() if phase else correlation.real).flatten(1)
        top, place = strength.max(1)
        width = correlation.shape[-1]
        moved = torch.stack(
            [f.roll((int(p) // width, int(p) % width), _HW) for f, p in zip(candidate, place.tolist(), strict=True)]
        )
        if phase:
            turn = correlation.flatten(1).gather(1, place[:, None]).sgn()
            turn = torch.where(turn == 0, 1, turn)
            moved = moved * turn.reshape(-1, 1, 1, 1)
        better = top > value
        best = torch.where(better.reshape(-1, 1, 1, 1), moved, best)
        value = torch.maximum(top, value)
    return best
