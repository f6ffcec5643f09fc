r"""Cartesian multi-coil MRI: what the receive coils of a scanner measure of a complex image.

.. math:: y_j = P F (S_j x) \qquad j = 1 \dots J

=========  ============================================================================
``x``      complex image, (B, C, H, W); C sets of coil maps need C images, usually one
``S_j``    coil sensitivities ("maps"), (J, H, W) or (J, C, H, W), unitless
``F``      centred orthonormal Fourier transform: zero frequency at index (H // 2, W // 2)
``P``      keeps the n sampled points of k-space, a boolean mask (H, W), in C order
``y``      measurement, (B, J, n) complex: only what was measured, so noise stays white
=========  ============================================================================

The shifts of ``F`` are folded into the maps when the operator is made. Lines of k-space without a sample are never
transformed; where whole columns (or rows) are sampled, ``A'A`` needs transforms along one axis only.

References:
    SENSE: Sensitivity encoding for fast MRI. Pruessmann, Weiger, Scheidegger, Boesiger, 1999, Magn. Reson. Med. 42.
    ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI. Uecker et al., 2014, Magn. Reson. Med. 71.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fft import fft, fft2, fftshift, ifft, ifft2, ifftshift

from scidiff.operators.algebra import Algebra

__all__ = ["CartesianMRI", "fft2c", "ifft2c"]

_HW = (-2, -1)


def fft2c(x: Tensor) -> Tensor:
    """Centred orthonormal Fourier transform of the last two dimensions: image (..., H, W) to k-space (..., H, W)."""
    return fftshift(fft2(ifftshift(x, dim=_HW), norm="ortho"), dim=_HW)


def ifft2c(k: Tensor) -> Tensor:
    """Inverse of `fft2c`, which is its adjoint: k-space (..., H, W) to image (..., H, W)."""
    return fftshift(ifft2(ifftshift(k, dim=_HW), norm="ortho"), dim=_HW)


def _shift_phase(size: int, like: Tensor) -> Tensor:
    """The phase e with ``fft(x * e) = fftshift(fft(x))`` for one axis of ``size``."""
    turns = (torch.arange(size, device=like.device) * (size // 2) % size).double() / size
    return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)


class CartesianMRI(Algebra):
    r"""Sampled Fourier transform of coil-weighted images, :math:`A(x)_j = P F \sum_c S_{jc} x_c`.

    Arguments:
        maps: Coil sensitivities, complex, (J, H, W) for one image or (J, C, H, W) for C sets of maps.
        mask: Sampled points of centred k-space, boolean, (H, W).

    Raises:
        TypeError: If the mask is not boolean or the maps are not complex.
        ValueError: If shapes disagree or the mask samples nothing.
    """

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        if not maps.is_complex():
            raise TypeError(f"coil maps must be complex, got {maps.dtype}; write `torch.complex(maps, 0 * maps)`.")
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be boolean, got {mask.dtype}; write `mask > 0`.")
        if maps.ndim not in (3, 4):
            raise ValueError(f"maps must be (coils, H, W) or (coils, sets, H, W), got shape {tuple(maps.shape)}.")
        if mask.ndim != 2 or mask.shape != maps.shape[-2:]:
            raise ValueError(
                f"mask must have shape (H, W) = {tuple(maps.shape[-2:])} of the maps, got {tuple(mask.shape)}."
            )
        if not bool(mask.any()):
            raise ValueError("the mask samples nothing; give at least one True point.")
        maps = maps[:, None] if maps.ndim == 3 else maps
        mask = mask.to(maps.device)
        self.maps = maps
        """Coil sensitivities, (J, C, H, W)."""
        self.mask = mask
        """Sampled points of centred k-space, (H, W)."""
        height, width = mask.shape
        # Transform only columns with a sample; or rows, when that leaves less to do.
        columns, rows = mask.any(0), mask.any(1)
        self._along, self._across = (-1, -2) if columns.sum() * height <= rows.sum() * width else (-2, -1)
        lines = columns if self._along == -1 else rows
        self._lines = None if bool(lines.all()) else lines.nonzero()[:, 0]
        kept = mask if self._lines is None else mask.index_select(self._along, self._lines)
        self._kept = kept.shape
        self._index = None if bool(kept.all()) else kept.flatten().nonzero()[:, 0]
        self._samples = int(mask.sum())
        self.field_shape = self.shape
        # The input shift becomes a shift of the maps, the output shift a phase: fft(x e)[k] = fft(x)[k - n // 2].
        phase = _shift_phase(height, maps)[:, None] * _shift_phase(width, maps)[None, :]
        self._maps = (ifftshift(maps, dim=_HW) * phase).to(maps.dtype)
        self._conj = self._maps.conj().resolve_conj()

    @property
    def coils(self) -> int:
        """Number of receive coils J."""
        return self.maps.shape[0]

    @property
    def sets(self) -> int:
        """Number of sets of maps C, hence of images."""
        return self.maps.shape[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""
        height, width = self.mask.shape
        return (self.sets, height, width)

    @property
    def samples(self) -> int:
        """Number n of sampled points of k-space."""
        return self._samples

    def to(self, target: torch.device | str | torch.dtype) -> CartesianMRI:
        """The same operator on another device or in another complex type, as `torch.Tensor.to`."""
        dtype = isinstance(target, torch.dtype)
        maps = self.maps.to(dtype=target) if dtype else self.maps.to(device=target)
        return CartesianMRI(maps, self.mask.to(maps.device))

    def __call__(self, x: Tensor) -> Tensor:
        """Image (B, C, H, W) to the sampled points of every coil (B, J, n)."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x must have shape (B, C, H, W) = (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}."
            )
        k = self._weight(ifftshift(x, dim=_HW))
        k = fft2(k, norm="ortho") if self._lines is None else fft(self._to_lines(k), dim=self._across, norm="ortho")
        return k.flatten(-2) if self._index is None else k.flatten(-2).index_select(-1, self._index.to(k.device))

    def adjoint(self, y: Tensor) -> Tensor:
        """Sampled points of every coil (B, J, n) to the coil-combined image (B, C, H, W)."""
        self._check(y)
        k = (
            y
            if self._index is None
            else y.new_zeros(*y.shape[:-1], self._kept.numel()).index_copy(-1, self._index.to(y.device), y)
        )
        k = k.unflatten(-1, self._kept)
        k = ifft2(k, norm="ortho") if self._lines is None else self._from_lines(ifft(k, dim=self._across, norm="ortho"))
        return fftshift(self._combine(k), dim=_HW)

    def _normal(self, x: Tensor) -> Tensor:
        """``A'A x``, exactly `adjoint` of the call but cheaper: (B, C, H, W) to (B, C, H, W)."""
        if self._index is not None:
            return self.adjoint(self(x))
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x must have shape (B, C, H, W) = (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}."
            )
        weighted = self._weight(ifftshift(x, dim=_HW))
        if self._lines is not None:
            weighted = self._from_lines(self._to_lines(weighted))
        return fftshift(self._combine(weighted), dim=_HW)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Vector-Jacobian product at any ``x``: the adjoint of ``v`` (B, J, n)."""
        return self.adjoint(v)

    def grid(self, y: Tensor) -> Tensor:
        """Puts measurements (B, J, n) at their place in centred k-space (B, J, H, W), zero elsewhere."""
        self._check(y)
        k = y.new_zeros(*y.shape[:-1], *self.mask.shape)
        k[..., self.mask] = y
        return k

    def sample(self, kspace: Tensor) -> Tensor:
        """The sampled points (..., J, n) of a full centred k-space (..., J, H, W); left inverse of `grid`."""
        return kspace[..., self.mask]

    def _check(self, y: Tensor) -> None:
        if y.ndim != 3 or tuple(y.shape[1:]) != (self.coils, self.samples):
            raise ValueError(
                f"y must have shape (B, coils, n) = (B, {self.coils}, {self.samples}), got {tuple(y.shape)}."
            )

    def _weight(self, x: Tensor) -> Tensor:
        """Shifted images (B, C, H, W) to shifted coil images (B, J, H, W)."""
        maps = self._maps.to(x.device, x.dtype.to_complex())  # a copy only where they differ, see `to`
        return x * maps[:, 0] if self.sets == 1 else (x[:, None] * maps).sum(2)

    def _combine(self, coil_images: Tensor) -> Tensor:
        """Adjoint of `_weight`."""
        return (coil_images[:, :, None] * self._conj.to(coil_images)).sum(1)

    def _to_lines(self, coil_images: Tensor) -> Tensor:
        """Transforms along the undersampled axis and keeps the lines that hold a sample."""
        k = fft(coil_images, dim=self._along, norm="ortho")
        return k if self._lines is None else k.index_select(self._along, self._lines.to(k.device))

    def _from_lines(self, k: Tensor) -> Tensor:
        """Adjoint of `_to_lines`."""
        if self._lines is not None:
            full = list(k.shape)
            full[self._along] = self.mask.shape[self._along]
            k = k.new_zeros(full).index_copy(self._along, self._lines.to(k.device), k)
        return ifft(k, dim=self._along, norm="ortho")
