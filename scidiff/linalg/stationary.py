r"""Covariances of statistically homogeneous periodic fields, diagonal in the Fourier basis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg.covariance import Spectral

__all__ = ["Stationary"]


class Stationary(Spectral):
    r"""Circulant covariance, :math:`C = F^H \,\mathrm{diag}(\lambda)\, F` with the orthonormal FFT :math:`F`.

    Entries at ``i`` and ``j`` have the covariance :math:`k(i - j)`, periodic on the grid, and
    :math:`\lambda = \mathrm{fftn}(k)` is real. Leading dimensions of the field (channels) are independent.

    Arguments:
        spectrum: :math:`\lambda \ge 0` in the order of `torch.fft.fftn`. A real field needs
            :math:`\lambda(-k) = \lambda(k)`; otherwise the covariance acts on complex fields only.
        shape: Shape of one field; ``spectrum`` is broadcast to it. Default: the shape of the spectrum.
        dims: Number of last dimensions that are transformed; default: all dimensions of the spectrum.
    """

    def __init__(self, spectrum: Tensor, shape: Sequence[int] | None = None, dims: int | None = None) -> None:
        shape = tuple(spectrum.shape) if shape is None else tuple(shape)
        dims = spectrum.ndim if dims is None else dims
        if not 1 <= dims <= len(shape):
            raise ValueError(f"dims must be between 1 and {len(shape)} for fields of shape {shape}, got {dims}.")
        if spectrum.ndim < dims or tuple(spectrum.shape[-dims:]) != shape[-dims:]:
            raise ValueError(f"the spectrum has shape {tuple(spectrum.shape)}, but must end with {shape[-dims:]}.")
        self._dims = tuple(range(-dims, 0))
        super().__init__(spectrum.detach(), shape, spectrum.dtype)
        mirrored = self.eigenvalues
        for dim in self._dims:
            mirrored = mirrored.roll(-1, dim).flip(dim)
        rounding = 100 * torch.finfo(spectrum.dtype).eps * float(self.eigenvalues.max())
        self._symmetric = bool((mirrored - self.eigenvalues).abs().max() <= rounding)
        if self._symmetric:
            self.eigenvalues = (mirrored + self.eigenvalues) / 2
        self.half = self.eigenvalues[..., : shape[-1] // 2 + 1]

    @classmethod
    def from_kernel(cls, kernel: Tensor, shape: Sequence[int] | None = None, dims: int | None = None) -> Stationary:
        """From the covariance of the first entry with all others, of the shape a spectrum would have."""
        over = tuple(range(-(kernel.ndim if dims is None else dims), 0))
        return cls(torch.fft.fftn(kernel, dim=over).real, shape, dims)

    @classmethod
    def power_law(
        cls,
        grid: Sequence[int],
        exponent: float = 4.0,
        cutoff: float = 3.0,
        variance: float = 1.0,
        channels: int | None = None,
    ) -> Stationary:
        r"""Random fields with :math:`\lambda(k) \propto (\kappa^2 + |k|^2)^{-\alpha/2}`, ``k`` in cycles per domain.

        Arguments:
            grid: Sides of the periodic grid.
            exponent: :math:`\alpha`, the decay of the power spectrum.
            cutoff: :math:`\kappa`, the wavenumber below which the spectrum is flat.
            variance: Variance of every entry.
            channels: Number of independent channels; None for fields without a channel dimension.
        """
        waves = torch.meshgrid(*[torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in grid], indexing="ij")
        spectrum = (cutoff**2 + torch.stack(waves).square().sum(0)) ** (-exponent / 2)
        spectrum = spectrum * variance / spectrum.mean()
        return cls(spectrum, None if channels is None else (channels, *grid), len(spectrum.shape))

    @property
    def complex(self) -> bool:
        return not self._symmetric

    def _forward(self, x: Tensor) -> Tensor:
        fft = torch.fft.fftn if x.is_complex() else torch.fft.rfftn
        return fft(x, dim=self._dims, norm="ortho")

    def _backward(self, c: Tensor, like: Tensor) -> Tensor:
        if like.is_complex():
            return torch.fft.ifftn(c, dim=self._dims, norm="ortho")
        return torch.fft.irfftn(c, s=self.shape[self._dims[0] :], dim=self._dims, norm="ortho")

    def _lam(self, x: Tensor) -> Tensor:
        return self._cast("eigenvalues" if x.is_complex() else "half", x)

    def diagonal(self) -> Tensor:
        return self.eigenvalues.mean(self._dims, keepdim=True).expand(self.shape).clone()

    def scaled(self, factor: float) -> Stationary:
        return Stationary(self.eigenvalues * factor, self.shape, len(self._dims))
