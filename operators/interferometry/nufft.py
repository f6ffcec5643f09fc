r"""Visibilities of large fields by a non-uniform fast Fourier transform, through the optional package finufft.

The same map as `Visibilities`, to a chosen tolerance: with :math:`a_n = 2\pi u_n p_x`, :math:`b_n = 2\pi v_n p_y` and
the pixel numbers :math:`s = w - \lfloor W/2 \rfloor`, :math:`t = h - \lfloor H/2 \rfloor`

.. math:: V_n = R_n\, e^{i (a_n \delta_W + b_n \delta_H)} \sum_{st} I_{st}\, e^{-i (a_n s + b_n t)},
          \qquad \delta_N = (N - 1)/2 - \lfloor N/2 \rfloor

Work grows as :math:`H W \log(H W) + n` instead of :math:`n H W`. Runs on the CPU: tensors on other devices are copied.

References:
    A parallel nonuniform fast Fourier transform library based on an "exponential of semicircle" kernel. Barnett,
    Magland and af Klinteberg, 2019, SIAM J. Sci. Comput. 41.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra
from scidiff.operators.interferometry.visibilities import baselines, pixel_sides
from scidiff.optional import optional

__all__ = ["NUFFTVisibilities"]


class NUFFTVisibilities(Algebra):
    """As `Visibilities`, for large fields; needs ``pip install finufft`` (extra ``nufft``).

    Arguments:
        uv: Baselines in wavelengths, (n, 2).
        shape: Height and width of the field in pixels.
        pixel: Side of a pixel in radians, or a pint angle; two for (height, width).
        square: Whether pixels are rectangles of even brightness; else all light comes from their centres.
        tolerance: Relative error; single precision reaches about 1e-6.

    Raises:
        MissingPackageError: if finufft is not installed.
        ValueError: if shapes or units are wrong.
    """

    def __init__(
        self, uv: Any, shape: Sequence[int], pixel: Any, square: bool = False, tolerance: float = 1e-6
    ) -> None:
        self._finufft: Any = optional("finufft", extra="nufft")
        self.uv = baselines(uv)
        if len(tuple(shape)) != 2 or min(shape) < 1:
            raise ValueError(f"shape must be (height, width) in pixels, got {tuple(shape)}.")
        if not 1e-15 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 1e-15 and 1, got {tolerance}.")
        self.grid = (int(shape[0]), int(shape[1]))
        self.pixel = pixel_sides(pixel)
        self.square, self.tolerance = bool(square), float(tolerance)
        k = self.uv.cpu().numpy()[:, ::-1] * self.pixel  # turns per pixel along rows, columns
        self._points = [np.ascontiguousarray(2 * np.pi * (c - np.round(c))) for c in k.T]
        shift = sum(c * ((n - 1) / 2 - n // 2) for c, n in zip(k.T, self.grid, strict=True))
        self._factor = np.exp(2j * np.pi * shift)
        if self.square:
            self._factor = self._factor * np.sinc(k[:, 0]) * np.sinc(k[:, 1])

    def __repr__(self) -> str:
        return f"NUFFTVisibilities({len(self)} baselines, shape={self.grid}, tolerance={self.tolerance:.1g})"

    def __len__(self) -> int:
        return len(self.uv)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one field, (1, H, W)."""
        return (1, *self.grid)

    def _tolerance(self, real: np.dtype) -> float:
        return max(self.tolerance, 2e-7 if real == np.float32 else 1e-14)

    def _forward(self, x: Tensor) -> Tensor:
        field = x.detach().cpu().squeeze(1).numpy()
        real, cplx = field.dtype, np.result_type(field.dtype, np.complex64)
        points = [p.astype(real) for p in self._points]
        v = self._finufft.nufft2d2(
            *points, field.astype(cplx), isign=-1, eps=self._tolerance(real), nthreads=_threads()
        )
        return torch.as_tensor(v.reshape(len(field), -1) * self._factor.astype(cplx)).to(x.device)

    def _backward(self, y: Tensor) -> Tensor:
        v = y.detach().cpu().resolve_conj().numpy()
        weighted = v * self._factor.conj().astype(v.dtype)
        real = weighted.real.dtype
        points = [p.astype(real) for p in self._points]
        x = self._finufft.nufft2d1(
            *points, weighted, self.grid, isign=1, eps=self._tolerance(real), nthreads=_threads()
        )
        return torch.as_tensor(np.ascontiguousarray(x.reshape(len(v), 1, *self.grid).real)).to(y.device)

    def __call__(self, x: Tensor) -> Tensor:
        """Fields (B, 1, H, W) in Jy per pixel to visibilities (B, n) in Jy."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape or x.is_complex():
            raise ValueError(
                f"x must be a real field (B, 1, {self.grid[0]}, {self.grid[1]}), got {x.dtype} {tuple(x.shape)}."
            )
        return _Apply.apply(x, self, False)  # type: ignore[no-any-return]

    def adjoint(self, y: Tensor) -> Tensor:
        """Visibilities (B, n) to fields (B, 1, H, W); the adjoint to the tolerance."""
        if y.ndim != 2 or y.shape[1] != len(self):
            raise ValueError(f"y must have shape (B, n) = (B, {len(self)}), got {tuple(y.shape)}.")
        return _Apply.apply(y.to(y.dtype.to_complex()), self, True)  # type: ignore[no-any-return]


def _threads() -> int:
    return torch.get_num_threads()


class _Apply(torch.autograd.Function):
    """The map or its adjoint; each is the derivative of the other."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, operator: NUFFTVisibilities, back: bool) -> Tensor:
        ctx.operator, ctx.back = operator, back
        return operator._backward(tensor) if back else operator._forward(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Apply.apply(gradients[0], ctx.operator, not ctx.back), None, None  # type: ignore[return-value]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _Apply.apply(tangent, ctx.operator, ctx.back)  # type: ignore[return-value]
