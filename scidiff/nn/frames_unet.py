r"""A two-dimensional U-Net for windows of a few frames of a periodic field: the frames are its channels.

For windows of few frames this costs a T-th of a network in three dimensions and lets every frame speak to every
other in the first layer. Frames stand in a fixed order, so a window has one length. Where the law of the flow depends
on the place (a forcing along the rows), two more channels, :math:`\cos(m y)` and :math:`\sin(m y)` of the row
:math:`y \in [0, 2\pi)`, tell it.

**What linear estimation knows is not learned.** For each wave vector the frames have a covariance :math:`C` (T, T).
With Fourier coefficients v of the deviation from the mean frames, the network G corrects the best estimate of a
stationary Gaussian field, in units of what that one leaves open:

.. math:: D = \bar u + C (C + \sigma^2)^{-1} v + \big(\sigma^2 C (C + \sigma^2)^{-1}\big)^{1/2}
          G\big((C + \sigma^2)^{-1/2} v,\ u\big).

With :math:`G = 0` it is optimal interpolation in space and time; small scales keep their size whatever G says. The
covariance comes from training windows (`FramesUNet.calibrate`); before, :math:`\bar u = 0, C = 1`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scidiff.nn.unet import UNet

__all__ = ["FramesUNet"]


class FramesUNet(nn.Module):
    r"""Maps noisy windows of frames and their noise label to windows, as `scidiff.priors.DiffusionPrior` wants it.

    Arguments:
        inputs: Channels of a frame, C.
        window: Frames of a window, T.
        grid: Points (H, W) of a frame.
        rows: Wavenumber m of the place along the rows, 0 for a law that is the same everywhere.
        width, blocks, patch, embedding, attention: Of the `UNet`.

    Shapes: ``x`` (B, C, T, H, W), ``label`` (B,) holding :math:`\tfrac14 \ln\sigma`; returns (B, C, T, H, W).
    """

    dims = 3
    storage = torch.float32
    """Weights are kept in this type: half precision would blur the smallest scales."""

    def __init__(
        self,
        inputs: int,
        window: int,
        grid: Sequence[int],
        rows: int = 0,
        width: Sequence[int] = (48, 64),
        blocks: int = 2,
        patch: int = 1,
        embedding: int = 128,
        attention: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if window < 1 or rows < 0 or len(grid) != 2:
            raise ValueError(f"expected window >= 1, rows >= 0 and a grid (H, W), got {window}, {rows} and {grid}.")
        self.inputs, self.window, self.rows, self.grid = inputs, window, rows, (int(grid[0]), int(grid[1]))
        own = inputs * window
        self.frames = UNet(2 * own + (2 if rows else 0), own, width, blocks, 2, patch, embedding, "periodic", attention)
        self.mean: Tensor
        self.basis: Tensor
        self.values: Tensor
        half = (self.grid[0], self.grid[1] // 2 + 1)
        self.register_buffer("mean", torch.zeros(own, *self.grid))
        self.register_buffer("basis", torch.stack([torch.eye(own), torch.zeros(own, own)], -1).repeat(*half, 1, 1, 1))
        self.register_buffer("values", torch.ones(*half, own))

    @property
    def config(self) -> dict[str, int | str | tuple[int, ...]]:
        """The constructor's arguments, for the card of a trained network."""
        names = ("width", "blocks", "patch", "embedding", "attention")
        inner = {name: getattr(self.frames, name) for name in names}
        return {"inputs": self.inputs, "window": self.window, "grid": self.grid, "rows": self.rows, **inner}

    @torch.no_grad()
    def calibrate(self, windows: Tensor) -> None:
        """Sets mean and covariances from windows (N, C, T, H, W), more than C T of them.

        Raises:
            ValueError: windows of another shape, or too few.
        """
        own = self.inputs * self.window
        if tuple(windows.shape[1:]) != (self.inputs, self.window, *self.grid) or len(windows) <= own:
            raise ValueError(
                f"expected more than {own} windows of shape {(self.inputs, self.window, *self.grid)}, "
                f"got {tuple(windows.shape)}."
            )
        x = windows.flatten(1, 2).to(torch.float64)
        mean = x.mean(0)
        v = torch.fft.rfft2(x - mean, norm="ortho")
        C = torch.einsum("nihw,njhw->hwij", v, v.conj()) / (len(x) - 1)
        values, basis = torch.linalg.eigh(C)
        self.mean.copy_(mean)
        self.basis.copy_(torch.view_as_real(basis))
        self.values.copy_(values.clamp_min(1e-9 * float(values.max())))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, C, T, H, W), (B,) -> (B, C, T, H, W)."""
        if x.ndim != 5 or tuple(x.shape[1:]) != (self.inputs, self.window, *self.grid):
            raise ValueError(
                f"expected (B, {self.inputs}, {self.window}, {self.grid[0]}, {self.grid[1]}), got {tuple(x.shape)}."
            )
        # The linear part in the type of the weights, also under autocast.
        with torch.autocast(x.device.type, enabled=False):
            flat = x.flatten(1, 2).to(self.values.dtype)
            sigma = (4 * label.to(flat.dtype)).exp()[:, None, None, None]
            variance, root = sigma.square(), (1 + sigma.square()).sqrt()
            basis, lam = torch.view_as_complex(self.basis), self.values
            v = torch.fft.rfft2(root * flat - self.mean, norm="ortho")
            c = torch.einsum("hwij,bihw->bhwj", basis.conj(), v)  # (B, H, W/2+1, T)
            wide = lam + variance
            parts = [flat, self._field(c / wide.sqrt(), basis)]
            if self.rows:
                y = torch.arange(self.grid[0], dtype=flat.dtype, device=x.device) * (
                    2 * math.pi * self.rows / self.grid[0]
                )
                places = math.sqrt(2) * torch.stack([y.cos(), y.sin()])[None, :, :, None]
                parts.append(places.expand(len(x), 2, *self.grid))
        g = self.frames(torch.cat(parts, 1).to(x.dtype), label)
        with torch.autocast(x.device.type, enabled=False):
            g = torch.einsum("hwij,bihw->bhwj", basis.conj(), torch.fft.rfft2(g.to(flat.dtype), norm="ortho"))
            # (D - u / (1 + sigma^2)) sqrt(1 + sigma^2) / sigma, written without differences of near numbers.
            whole = c * (sigma * (lam - 1) / (wide * root)) + g * (root * (lam / wide).sqrt())
            return (self._field(whole, basis) + sigma / root * self.mean).reshape(x.shape).to(x.dtype)

    def _field(self, c: Tensor, basis: Tensor) -> Tensor:
        """Coefficients (B, H, W/2+1, T) -> fields (B, T, H, W)."""
        return torch.fft.irfft2(torch.einsum("hwij,bhwj->bihw", basis, c), s=self.grid, norm="ortho")
