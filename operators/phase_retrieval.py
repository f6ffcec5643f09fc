r"""Diffraction without phase: what a detector far behind an object records of the light that it lets through.

The field :math:`x`, real or complex, is multiplied by a mask :math:`m_k` where there is one, surrounded with zeros, and
transformed. The detector counts photons, so that only the modulus remains:

.. math:: A(x)_k = \big(|F P\, (m_k x)|^2 + b\big)^{p/2} .

=========  ==================================================================================
``P``      puts the field into the first entries of a larger grid of zeros (oversampling)
``F``      orthonormal Fourier transform of that grid, zero frequency first
``b``      intensity that is there without an object (stray light), 0 by default
``p``      2 for the intensity, 1 for its root, the amplitude
=========  ==================================================================================

**Gradient.** The intensity is smooth. The amplitude with :math:`b = 0` has a corner where the transform is zero; there
the gradient is set to zero, the smallest element of its subdifferential, so that it is finite everywhere.

**What no data can tell.** With one unmasked transform of a real or complex field: its sign or global phase, its place
inside the frame, and whether it is rotated by 180 degrees (and conjugated). With masks: the global phase alone.

References:
    Phase retrieval algorithms: a comparison. Fienup, 1982, Applied Optics 21.
    Phase Retrieval via Wirtinger Flow: Theory and Algorithms. Candes, Li and Soltanolkotabi, 2014, arXiv:1407.1065
    (coded diffraction patterns).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from scidiff.operators.algebra import Algebra
from scidiff.rng import explicit

__all__ = ["CodedDiffraction", "FourierMagnitude"]


class _Diffraction(Algebra):
    """Masks, zeros, transform, modulus: what `FourierMagnitude` and `CodedDiffraction` share."""

    fill: float = 0.0

    def __init__(
        self,
        shape: Sequence[int],
        masks: Tensor | None,
        oversampling: float | Sequence[float],
        power: int,
        background: float,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape holds the sides of the field, got {self.shape}.")
        factors = [oversampling] * len(self.shape) if isinstance(oversampling, (int, float)) else list(oversampling)
        if len(factors) != len(self.shape) or not all(1 <= f < math.inf for f in factors):
            raise ValueError(
                f"oversampling is 1 or more, one number or one for each of {len(self.shape)} sides; got {oversampling}."
            )
        if power not in (1, 2):
            raise ValueError(f"power must be 1 (amplitude) or 2 (intensity), got {power}.")
        if not 0 <= background < math.inf:
            raise ValueError(f"background is an intensity, 0 or more, got {background}.")
        self.masks, self.power, self.background = masks, power, float(background)
        self.oversampling = tuple(float(f) for f in factors)
        self.padded = tuple(math.ceil(round(f * n, 9)) for f, n in zip(factors, self.shape, strict=True))
        """Sides of the detector."""
        self._dims = tuple(range(-len(self.shape), 0))

    def _masks(self, like: Tensor) -> Tensor:
        assert self.masks is not None
        return self.masks.to(like.device, like.dtype.to_complex())

    def _envelope(self, like: Tensor) -> Tensor:
        """Transform of one pixel of width ``fill``: a product of sinc functions of the frequencies."""
        total = torch.ones((), device=like.device, dtype=like.dtype.to_real())
        for n in self.padded:
            frequency = torch.fft.fftfreq(n, device=like.device, dtype=like.dtype.to_real())
            total = total[..., None] * torch.sinc(self.fill * frequency)
        return total

    def _check(self, x: Tensor) -> None:
        if x.ndim <= len(self.shape) or tuple(x.shape[-len(self.shape) :]) != self.shape:
            raise ValueError(f"expected fields (B, ..., {str(self.shape)[1:-1]}), got {tuple(x.shape)}.")

    def wave(self, x: Tensor) -> Tensor:
        r"""The complex amplitude at the detector, :math:`F P (m_k x)`, linear in ``x``."""
        self._check(x)
        if self.masks is not None:
            x = x.unsqueeze(-len(self.shape) - 1) * self._masks(x)
        if x.is_complex() or self.padded[-1] < 2:
            w = torch.fft.fftn(x, s=self.padded, dim=self._dims, norm="ortho")
            return w if self.fill == 0 else w * self._envelope(x)
        half = torch.fft.rfftn(x, s=self.padded, dim=self._dims, norm="ortho")
        return torch.cat([half, self._mirror(half).conj()], -1)

    def _mirror(self, half: Tensor) -> Tensor:
        """The entries at minus those frequencies of the half grid of a real field that the other half lacks."""
        n = self.padded[-1]
        rest = half[..., 1 : n - n // 2].flip(-1)
        for dim in self._dims[:-1]:
            rest = rest.flip(dim).roll(1, dim)
        return rest

    def wave_adjoint(self, w: Tensor, real: bool = False) -> Tensor:
        r"""Adjoint of `wave`, :math:`\sum_k \bar m_k P^T F^{-1} w_k`; its real part for real fields."""
        w = w if self.fill == 0 else w * self._envelope(w.real)
        back = torch.fft.ifftn(w, dim=self._dims, norm="ortho")[(..., *(slice(n) for n in self.shape))]
        if self.masks is not None:
            back = (back * self._masks(w).conj()).sum(-len(self.shape) - 1)
        return back.real.contiguous() if real else back

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x)
        if not x.is_complex() and self.masks is None and self.padded[-1] > 1:
            half = self._modulus(torch.fft.rfftn(x, s=self.padded, dim=self._dims, norm="ortho"))
            return torch.cat([half, self._mirror(half)], -1)
        return self._modulus(self.wave(x))

    def _modulus(self, w: Tensor) -> Tensor:
        if self.power == 1 and self.background == 0:
            return w.abs()  # its gradient in torch is 0 at 0
        intensity = w.real.square() + w.imag.square() + self.background
        return intensity if self.power == 2 else intensity.sqrt()

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        r"""Gradient of :math:`\langle v, A(x) \rangle` with respect to ``x``, in one transform and one back."""
        w = self.wave(x)
        if self.power == 2:
            slope = 2 * w
        elif self.background:
            slope = w / self._modulus(w)
        else:
            slope = w.sgn()
        return self.wave_adjoint(v * slope, real=not x.is_complex())

    def project(self, w: Tensor, y: Tensor) -> Tensor:
        """The wave nearest to ``w`` that has the measured moduli ``y``: phases of ``w``, 1 where it is zero."""
        intensity = y.clamp(min=0) ** (2 / self.power) - self.background
        return torch.where(w == 0, 1.0, w.sgn()) * intensity.clamp(min=0).sqrt()


class FourierMagnitude(_Diffraction):
    r"""Modulus of the Fourier transform of a field surrounded by zeros.

    Fields are (B, \*R, \*shape), real or complex; measurements (B, \*R, \*padded), real and not negative. A real field
    gives every number twice, at plus and minus the frequency; a detector measures both, with independent noise.

    Arguments:
        shape: Sides of the field.
        oversampling: Sides of the detector in units of those of the field, at least 1; one number or one per side. At 2
            the intensity determines the autocorrelation of the field, and more adds nothing.
        power: 1 for the amplitude, 2 for the intensity.
        background: :math:`b`, intensity without an object.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        oversampling: float | Sequence[float] = 2.0,
        power: Literal[1, 2] = 1,
        background: float = 0.0,
    ) -> None:
        super().__init__(shape, None, oversampling, power, background)

    def __repr__(self) -> str:
        return f"FourierMagnitude({self.shape}, oversampling={self.oversampling}, power={self.power})"


class CodedDiffraction(_Diffraction):
    r"""Moduli of the Fourier transforms of a field behind several known masks.

    Fields are (B, \*R, \*shape), measurements (B, \*R, K, \*padded).

    Arguments:
        masks: :math:`m_k`, real or complex, (K, \*shape).
        oversampling: As in `FourierMagnitude`; with several masks 1 is enough.
        power: 1 for the amplitude, 2 for the intensity.
        background: :math:`b`, intensity without an object.
        fill: Side :math:`l` of a pixel of the masks in units of their spacing, from 0 (points) to 1 (no gaps). Square
            pixels dim the pattern by :math:`\mathrm{sinc}(l f_y)\,\mathrm{sinc}(l f_x)`, f in cycles per pixel.

    Raises:
        ValueError: if an argument is out of range.
    """

    masks: Tensor

    def __init__(
        self,
        masks: Tensor,
        oversampling: float | Sequence[float] = 1.0,
        power: Literal[1, 2] = 1,
        background: float = 0.0,
        fill: float = 0.0,
    ) -> None:
        if not 0 <= fill <= 1:
            raise ValueError(f"fill is the side of a mask pixel over its spacing, from 0 to 1; got {fill}.")
        if masks.ndim < 2 or len(masks) < 1:
            raise ValueError(f"masks must be (K, *shape) with K >= 1, got {tuple(masks.shape)}; write mask[None].")
        if not bool(torch.isfinite(torch.view_as_real(masks) if masks.is_complex() else masks).all()):
            raise ValueError("masks hold NaN or infinite values.")
        super().__init__(masks.shape[1:], masks.detach(), oversampling, power, background)
        self.fill = float(fill)

    def __repr__(self) -> str:
        return f"CodedDiffraction({len(self.masks)} masks, {self.shape}, power={self.power})"

    @classmethod
    def random(
        cls,
        shape: Sequence[int],
        count: int = 4,
        generator: Generator | None = None,
        levels: int | None = None,
        oversampling: float | Sequence[float] = 1.0,
        power: Literal[1, 2] = 1,
        background: float = 0.0,
        fill: float = 0.0,
    ) -> CodedDiffraction:
        r"""With masks that shift the phase of every pixel at random, :math:`|m_k| = 1`.

        Arguments:
            shape: Sides of the field.
            count: Number K of masks.
            generator: Source of the phases.
            levels: Number of equally spaced phases that a mask can take; None for any phase in [0, 2 pi).
            oversampling, power, background, fill: See the class.
        """
        if count < 1 or (levels is not None and levels < 2):
            raise ValueError(f"expected at least 1 mask and 2 levels, got {count} and {levels}.")
        turns = torch.rand(count, *shape, generator=explicit(generator), dtype=torch.float64)
        if levels is not None:
            turns = (turns * levels).floor() / levels
        return cls(torch.polar(torch.ones_like(turns), 2 * torch.pi * turns), oversampling, power, background, fill)
