r"""Classical answers of photography: Wiener, Richardson-Lucy, bicubic and biharmonic interpolation.

Fields are (B, C, H, W), grey values about 0 to 1.

References:
    Bayesian-based iterative method of image restoration (Richardson, 1972).
    An iterative technique for the rectification of observed distributions (Lucy, 1974).
    Relations between the statistics of natural images and the response properties of cortical cells (Field, 1987),
    for the power spectrum of photographs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scidiff.operators.convolution import Convolution
from scidiff.optional import optional

__all__ = ["bicubic_upsampling", "biharmonic", "edge_padded", "richardson_lucy", "wiener"]


def edge_padded(y: Tensor, before: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """Continues a picture by its border entries until it fills a grid, ``before`` entries from its beginning."""
    pad: list[int] = []
    for n, b, full in zip(y.shape[-2:], before, grid, strict=True):
        pad = [b, full - n - b, *pad]
    return F.pad(y, pad, mode="replicate")


def wiener(picture: Tensor, kernel: Tensor, noise_std: float, taper: int | None = None) -> Tensor:
    r"""The linear estimate for periodic pictures with the spectrum of photographs, :math:`S(q) \propto |q|^{-2}`.

    .. math:: \hat x = m + F^{-1} \frac{\bar h\, S}{|h|^2 S + s^2} F\, (y - m)

    S is scaled to the variance of the picture. Before the transform the picture is blended, near its border, with a
    blurred periodic copy, since photographs are not periodic.

    Arguments:
        picture: y on the grid of the field.
        kernel: Point-spread function.
        noise_std: Standard deviation s of the noise.
        taper: Width of the blended border in pixels; default: the longer side of the kernel.
    """
    grid = tuple(picture.shape[-2:])
    blur = Convolution(kernel, grid)
    width = max(kernel.shape) if taper is None else taper
    if width > 1:
        ramp = [((torch.arange(n).minimum(n - 1 - torch.arange(n)) + 0.5) / width).clamp(max=1) for n in grid]
        inside = (ramp[0][:, None] * ramp[1]).to(picture)
        picture = inside * picture + (1 - inside) * blur(picture)
    mean = picture.mean((-2, -1), keepdim=True)
    q = torch.stack(torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) for n in grid), indexing="ij"))
    square = q.square().sum(0)
    square[0, 0] = square[0, 1]
    variance = (picture.var((-2, -1), keepdim=True) - noise_std**2).clamp(min=1e-6)
    S = variance.double() / square / (1 / square).mean()
    h = blur.spectrum
    gain = h.conj() * S / (h.abs().square() * S + noise_std**2)
    return mean + torch.fft.ifft2(torch.fft.fft2((picture - mean).double()) * gain).real.to(picture)


def richardson_lucy(operator: Any, y: Tensor, shape: tuple[int, ...], iterations: int = 30) -> Tensor:
    r"""Maximum likelihood for Poisson noise, stopped early: :math:`x \leftarrow x\, A^\top(y / A x) / A^\top 1`.

    Arguments:
        operator: Linear, with entries that are not negative, and ``adjoint``.
        y: Measurement; negative values count as zero.
        shape: Shape (C, H, W) of a field.
        iterations: Number of iterations; more sharpen and amplify noise.
    """
    y = y.clamp(min=0)
    sensitivity = operator.adjoint(torch.ones_like(y)).clamp(min=1e-6)
    x = torch.ones(len(y), *shape, dtype=y.dtype, device=y.device) * y.mean()
    floor = 1e-6 * float(y.abs().max()) + torch.finfo(y.dtype).tiny
    for _ in range(iterations):
        x = x * operator.adjoint(y / operator(x).clamp(min=floor)).clamp(min=0) / sensitivity
    return x


def bicubic_upsampling(y: Tensor, factor: int, before: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """A coarse picture interpolated by cubic convolution, with border entries repeated where the field overhangs."""
    fine = F.interpolate(y, scale_factor=factor, mode="bicubic", align_corners=False)
    return edge_padded(fine, before, grid)


def biharmonic(picture: Tensor, seen: Tensor) -> Tensor:
    """What was not seen solves the biharmonic equation, a thin plate held by what was.

    Arguments:
        picture: (1, 1, H, W), anything where it was not seen.
        seen: Boolean (H, W).
    """
    if bool(seen.all()):
        return picture
    image = np.where(seen.numpy(), picture[0, 0].numpy(), 0).astype(np.float64)
    filled = optional("skimage.restoration").inpaint_biharmonic(image, ~seen.numpy(), split_into_regions=False)
    return torch.from_numpy(np.asarray(filled)).to(picture)[None, None]
