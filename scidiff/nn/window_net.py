r"""A network for short windows of states of few numbers each: a few coordinates along time, no grid.

Windows of a smooth motion lie close to a thin set: their differences along time are far smaller than the states, and
what a window says about the law of motion is in the smallest of them. So the network looks at each window in the
coordinates of its own covariance :math:`C = Q \Lambda Q^\top`, each divided by its size at the noise level, and
corrects the best linear denoiser in units of what that one leaves open. With :math:`v = Q^\top (u - \mu)`,

.. math:: z = \frac{v}{\sqrt{\Lambda + \sigma^2}}, \qquad
          Q^\top (D - \mu) = \frac{\Lambda}{\Lambda + \sigma^2} v + \sqrt{\frac{\Lambda \sigma^2}{\Lambda + \sigma^2}}
          \, G(z, \tfrac14 \ln\sigma),

with a residual network ``G`` of gated layers, :math:`h + W (\mathrm{silu}(a) \odot b)`; products of two linear maps of
its input are what equations of motion like Lorenz' consist of. For Gaussian windows ``G = 0`` is exact.

**Two networks.** At small noise levels a state is told by its nearest neighbours, wherever it stands; so there a second
network looks at shorter windows, of 2k + s states, and answers for the s states in their middle, all along the window.
It sees many windows where the first sees one, and therefore learns faster what matters most: how neighbours fit.

Until `calibrate` is called, :math:`\mu = 0, C = I`.

References:
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), arXiv:2206.00364, table 1
    (the same with one number for the covariance). GLU variants improve transformer (Shazeer, 2020), arXiv:2002.05202.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["WindowNet", "layout"]


class _Block(nn.Module):
    """Gated residual layer, modulated by the embedding of the noise level."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.rise, self.fall = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.modulate = nn.Linear(embedding, 2 * width)
        for layer in (self.fall, self.modulate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """(B, width), (B, embedding) -> (B, width)."""
        gain, bias = self.modulate(e).chunk(2, -1)
        a, b = self.rise(torch.addcmul(bias, self.norm(h), 1 + gain)).chunk(2, -1)
        return h + self.fall(F.silu(a) * b)


def layout(length: int, size: int, k: int) -> tuple[list[int], Tensor, Tensor]:
    """How windows of ``size`` states cover ``length`` states, each answering for those with k states on either side.

    Returns:
        First states of the windows; for each state the window that answers for it, and its place there. The first and
        the last window answer for the ends too; the last one begins earlier where it would not fit.
    """
    stride, rest = size - 2 * k, length - size
    starts = [min(i * stride, rest) for i in range(-(-rest // stride) + 1)]
    states = torch.arange(length)
    windows = ((states - k) // stride).clamp(0, len(starts) - 1)
    return starts, windows, states - torch.tensor(starts)[windows]


class _Expert(nn.Module):
    """The formulas of the module for windows of d numbers."""

    def __init__(self, d: int, width: int, blocks: int, embedding: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.basis: Tensor
        self.values: Tensor
        self.frequencies: Tensor
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("basis", torch.eye(d))
        self.register_buffer("values", torch.ones(d))
        frequencies = torch.exp(torch.linspace(math.log(0.25), math.log(16.0), embedding // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.embed = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.head = nn.Linear(d, width)
        self.layers = nn.ModuleList(_Block(width, embedding) for _ in range(blocks))
        self.tail = nn.Linear(width, d)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    @torch.no_grad()
    def calibrate(self, rows: Tensor) -> None:
        """Mean and covariance of windows (N, d)."""
        rows = rows.to(torch.float64)
        values, basis = torch.linalg.eigh(torch.cov(rows.T).reshape(rows.shape[1], -1))
        self.mean.copy_(rows.mean(0))
        self.basis.copy_(basis)
        self.values.copy_(values.clamp_min(1e-12 * float(values[-1])))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, d), (B,) -> (B, d)."""
        sigma = (4 * label.to(x.dtype)).exp()[:, None]
        variance, root = sigma.square(), (1 + sigma.square()).sqrt()
        lam = self.values
        v = (root * x - self.mean) @ self.basis
        wide = (lam + variance).sqrt()
        phase = label.to(x.dtype)[:, None] * self.frequencies
        e = F.silu(self.embed(torch.cat([phase.cos(), phase.sin()], 1)))
        h = self.head(v / wide)
        for layer in self.layers:
            h = layer(h, e)
        # (D - u / (1 + sigma^2)) sqrt(1 + sigma^2) / sigma, written without differences of near numbers.
        linear = v * sigma * (lam - 1) / (wide.square() * root)
        inside = (linear + root * lam.sqrt() / wide * self.tail(h)) @ self.basis.T
        return inside + sigma / root * self.mean


class WindowNet(nn.Module):
    r"""Maps noisy windows and their noise label to windows, as `scidiff.priors.DiffusionPrior` wants it.

    Arguments:
        inputs: Numbers of a state, C.
        window: States of a window, T.
        near: States of the short windows of the second network; 0 for none.
        near_k: Their k: states on either side that are not answered for.
        switch: Noise level below which the second network takes over.
        width: Features.
        blocks: Gated layers.
        embedding: Features of the noise label.
        near_width: Features of the second network; by default ``width``.

    Shapes: ``x`` (B, C, T), ``label`` (B,) holding :math:`\tfrac14 \ln\sigma`; returns (B, C, T). A length that is a
    multiple of T is taken as windows side by side, which saves time while training.
    """

    dims = 1
    storage = torch.float32
    """Weights are kept in this type: half precision would blur the smallest coordinates."""

    def __init__(
        self,
        inputs: int,
        window: int,
        near: int = 0,
        near_k: int = 0,
        switch: float = 0.05,
        width: int = 256,
        blocks: int = 4,
        embedding: int = 64,
        near_width: int | None = None,
    ) -> None:
        super().__init__()
        if min(inputs, window, width, blocks) < 1 or embedding < 2 or embedding % 2:
            raise ValueError(
                "expected inputs, window, width and blocks of at least 1 and an even embedding, got "
                f"{inputs}, {window}, {width}, {blocks} and {embedding}."
            )
        if near and not (0 <= 2 * near_k < near <= window and switch > 0):
            raise ValueError(
                f"short windows need 2 near_k < near <= window and switch > 0, got near = {near}, near_k = {near_k}, "
                f"window = {window}, switch = {switch}."
            )
        self.inputs, self.window, self.near, self.near_k, self.switch = inputs, window, near, near_k, float(switch)
        self.width, self.blocks, self.embedding = width, blocks, embedding
        self.near_width = near_width or width
        self.wide = _Expert(inputs * window, width, blocks, embedding)
        self.short = _Expert(inputs * near, self.near_width, blocks, embedding) if near else None
        if near:
            starts, windows, places = layout(window, near, near_k)
            self._index = (torch.tensor(starts)[:, None] + torch.arange(near)).flatten()
            self._answers = windows * near + places

    @property
    def config(self) -> dict[str, int | float]:
        """The constructor's arguments, for the card of a trained network."""
        names = ("inputs", "window", "near", "near_k", "switch", "width", "blocks", "embedding", "near_width")
        return {name: getattr(self, name) for name in names}

    def calibrate(self, windows: Tensor) -> None:
        """Sets mean and covariance from windows (N, C, T), more than C T of them.

        Raises:
            ValueError: windows of another shape, or too few.
        """
        d = self.inputs * self.window
        if tuple(windows.shape[1:]) != (self.inputs, self.window) or len(windows) <= d:
            raise ValueError(
                f"expected more than {d} windows of shape {(self.inputs, self.window)}, got {tuple(windows.shape)}."
            )
        self.wide.calibrate(windows.flatten(1))
        if self.short is not None:
            self.short.calibrate(windows[:, :, : self.near].flatten(1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, C, m T), (B,) -> (B, C, m T)."""
        if x.ndim != 3 or x.shape[1] != self.inputs or x.shape[2] % self.window or not x.shape[2]:
            raise ValueError(
                f"expected (B, {self.inputs}, T) with T = {self.window} states (or a multiple), got {tuple(x.shape)}."
            )
        count = x.shape[2] // self.window
        if count > 1:
            x = x.unflatten(2, (count, self.window)).movedim(2, 1).flatten(0, 1)
            label = label.repeat_interleave(count)
        found = self._windows(x, label)
        return found if count == 1 else found.unflatten(0, (-1, count)).movedim(1, 2).flatten(2)

    def _windows(self, x: Tensor, label: Tensor) -> Tensor:
        if self.short is None:
            return self.wide(x.flatten(1), label).reshape(x.shape)
        low = label < math.log(self.switch) / 4
        if not bool(low.any()):
            return self.wide(x.flatten(1), label).reshape(x.shape)
        if bool(low.all()):
            return self._composed(x, label)
        found = torch.empty_like(x)
        found[low] = self._composed(x[low], label[low])
        found[~low] = self.wide(x[~low].flatten(1), label[~low]).reshape(-1, *x.shape[1:])
        return found

    def _composed(self, x: Tensor, label: Tensor) -> Tensor:
        """The short windows along the window, each for the states in its middle."""
        count = len(self._index) // self.near
        parts = x.index_select(2, self._index.to(x.device)).unflatten(2, (count, self.near)).movedim(2, 1)
        found = self.short(parts.reshape(len(x) * count, -1), label.repeat_interleave(count))  # type: ignore[misc]
        found = found.reshape(len(x), count, self.inputs, self.near).movedim(1, 2).flatten(2)
        return found.index_select(2, self._answers.to(x.device))
