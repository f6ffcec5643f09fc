r"""Station gains: what receivers and atmosphere do to visibilities, :math:`V_{ij} \mapsto g_i V_{ij} g_j^\ast`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.operators.algebra import Algebra
from scidiff.rng import explicit

__all__ = ["StationGains", "draw_gains"]


class StationGains(Algebra):
    r"""Multiplies visibilities by gains, :math:`A(V)_n = g_{t i} g_{t j}^\ast V_n` for baseline n of i and j in scan t.

    Maps complex visibilities (B, n) to (B, n); apply it after `Visibilities`.

    Arguments:
        gains: Complex gains, (stations,) or (scans, stations).
        stations: The two stations of every visibility, (n, 2) whole numbers.
        scans: Number of the scan of every visibility, (n,) whole numbers; needed for gains that change with it.

    Raises:
        TypeError: if the gains are not complex.
        ValueError: if shapes do not fit, or a station or scan has no gain.
    """

    def __init__(self, gains: Tensor, stations: Any, scans: Any = None) -> None:
        if not gains.is_complex():
            raise TypeError(f"gains must be complex, got {gains.dtype}; write `gains + 0j`.")
        pairs = torch.as_tensor(stations)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
            raise ValueError(
                f"stations must be pairs of whole numbers, (n, 2), got {pairs.dtype} {tuple(pairs.shape)}."
            )
        if gains.ndim not in (1, 2) or (gains.ndim == 2) != (scans is not None):
            raise ValueError("gains must be (stations,), or (scans, stations) together with `scans`.")
        table = gains if gains.ndim == 2 else gains[None]
        times = torch.zeros(len(pairs), dtype=torch.int64) if scans is None else torch.as_tensor(scans)
        if times.shape != (len(pairs),) or times.is_floating_point():
            raise ValueError(f"scans must be whole numbers ({len(pairs)},), got {times.dtype} {tuple(times.shape)}.")
        pairs, times = pairs.to(gains.device).long(), times.to(gains.device).long()
        for name, places, count in (("station", pairs, table.shape[1]), ("scan", times, table.shape[0])):
            if bool((places < 0).any()) or bool((places >= count).any()):
                raise ValueError(f"there are gains of {count} {name}s, but a visibility of {name} {int(places.max())}.")
        self.gains = gains
        self.factors = table[times, pairs[:, 0]] * table[times, pairs[:, 1]].conj()
        """What every visibility is multiplied by, (n,)."""

    def __call__(self, v: Tensor) -> Tensor:
        return v * self.factors.to(v.device, v.dtype.to_complex())

    def adjoint(self, v: Tensor) -> Tensor:
        """Multiplies by the conjugates."""
        return v * self.factors.conj().to(v.device, v.dtype.to_complex())


def draw_gains(
    scans: int,
    stations: int,
    amplitude: float = 0.1,
    phase: float | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""Random gains :math:`g = e^{a + i\theta}`, independent between stations and scans, complex128 (scans, stations).

    Arguments:
        scans: Number of scans.
        stations: Number of stations.
        amplitude: Standard deviation of the log amplitude :math:`a`.
        phase: Standard deviation of :math:`\theta` in radians; by default even over the circle, as the atmosphere
            makes it at millimetre wavelengths.
        generator: Source of the draws.
    """
    generator = explicit(generator)
    a = amplitude * torch.randn(scans, stations, dtype=torch.float64, generator=generator)
    if phase is None:
        theta = 2 * torch.pi * torch.rand(scans, stations, dtype=torch.float64, generator=generator)
    else:
        theta = phase * torch.randn(scans, stations, dtype=torch.float64, generator=generator)
    return torch.polar(a.exp(), theta)
