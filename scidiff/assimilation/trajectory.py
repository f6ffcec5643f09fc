r"""A prior of windows composed into a prior of long trajectories (score-based data assimilation).

A chain :math:`x_1, \dots, x_L` is noised, :math:`u_\sigma = u + \sigma\epsilon`. The score of state i depends mostly on
its neighbours, so it is taken from the window of 2k + 1 states around it:

.. math:: D_i(u, \sigma) = E[u_i | u_\sigma] \approx E[u_i | u_{\sigma, i-k}, \dots, u_{\sigma, i+k}],

and the first and last k states from the first and the last window. Every window has the same law, which is what the
window prior knows. States are (C, L, \*grid). Longer windows, of 2k + s states, answer for the s states in their
middle, which still have at least k states on either side: with the same k at an s-th of the windows.

**Error.** The noised chain is no Markov chain, so the window misses what states beyond it say. For a chain whose
correlations fall like :math:`\rho^{|j|}` this falls at least as fast, like :math:`\rho^k` for large noise and faster
for small noise, where neighbours tell all; for :math:`2k + s \ge L` nothing is missing. In a chain whose transitions
have noise of standard deviation q, a state noised by :math:`\sigma` is told by about :math:`\sigma / q` neighbours on
either side. Shorter windows leave tensions between neighbouring windows at that level, which smaller levels relax
slowly: hence Langevin corrections, or wide windows. The composed Jacobian is not
quite symmetric; methods that solve with it take GMRES (the default of `MMPS`). And where guidance uses it, an
observation moves states at most k away at one noise level: farther ones follow over several levels.

**Memory.** Windows go through the network in chunks; where a gradient is taken, a chunk's interior is computed again
on the way back. So memory grows with L as the trajectory itself does, not as L times the network.

References:
    Score-based Data Assimilation (Rozet and Louppe, 2023), arXiv:2306.10574, section 3.1 and algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scidiff.nn.window_net import layout
from scidiff.protocols import Prior

__all__ = ["TrajectoryPrior"]


class TrajectoryPrior:
    r"""The prior of trajectories of ``length`` states that a prior of windows implies.

    Arguments:
        window: Prior of windows of 2k + s states, ``u`` of shape (C, 2k + s, \*grid). Its ``decode`` must treat every
            state alike.
        k: Half width, at least 1 (0 for states that are independent).
        length: Number L of states, at least 2k + s.
        grid: Grid of one state; needed when the window prior takes any size and states are fields.
        channels: Channels of ``u``, if the window prior does not say.
        chunk: Windows in the network at once; by default as many as hold four million numbers.
        stride: States s that a window answers for.

    Raises:
        ValueError: the window prior has windows of another length, or the record is shorter than the window.
    """

    def __init__(
        self,
        window: Prior,
        k: int,
        length: int,
        grid: tuple[int, ...] = (),
        channels: int | None = None,
        chunk: int | None = None,
        stride: int = 1,
    ) -> None:
        self.window, self.k, self.length, self.stride = window, int(k), int(length), int(stride)
        if k < 0 or stride < 1:
            raise ValueError(f"k must not be negative and stride at least 1, got {k} and {stride}.")
        size = self.size = 2 * self.k + self.stride
        """States of a window, 2k + s."""
        named = "2k + 1" if stride == 1 else f"2k + stride (stride = {stride})"
        if window.shape is not None:
            if len(window.shape) < 2 or window.shape[1] != size:
                found = window.shape[1] if len(window.shape) > 1 else "none"
                raise ValueError(
                    f"the window prior has windows of {found} states (shape {tuple(window.shape)}), but k = {k} needs "
                    f"{named} = {size}; states are (channels, time, *grid)."
                )
            own, grid = window.shape[0], tuple(window.shape[2:])
        else:
            own = channels if channels is not None else getattr(window, "channels", None)
            if own is None:
                raise ValueError("the window prior does not say its channels; give channels=...")
        if self.length < size:
            raise ValueError(f"the record has {length} states, fewer than the window's {named} = {size}.")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}.")
        self.channels, self.grid, self.affine = int(own), tuple(int(n) for n in grid), window.affine
        self.chunk = chunk or max(1, 2**22 // (self.channels * size * math.prod(self.grid)))
        self.card: dict[str, Any] = getattr(window, "card", {})

    def __repr__(self) -> str:
        wide = f", stride={self.stride}" if self.stride > 1 else ""
        return f"TrajectoryPrior({self.window!r}, k={self.k}, length={self.length}{wide})"

    def of_length(self, length: int) -> TrajectoryPrior:
        """The same law for trajectories of another length."""
        return TrajectoryPrior(self.window, self.k, length, self.grid, self.channels, self.chunk, self.stride)

    @property
    def shape(self) -> tuple[int, ...]:
        r"""(C, L, \*grid)."""
        return (self.channels, self.length, *self.grid)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r"""The composed denoiser; ``u`` (B, C, L, \*grid), ``sigma`` () or (B,)."""
        sigma = torch.as_tensor(sigma, dtype=u.dtype, device=u.device)
        starts, windows, places = layout(self.length, self.size, self.k)
        count, each = len(starts), max(1, self.chunk // len(u))
        recompute = each < count and torch.is_grad_enabled() and u.requires_grad
        parts: list[Tensor] = []
        for first in range(0, count, each):
            last = min(first + each, count)
            begin, end = starts[first], starts[last - 1] + self.size
            here = (windows >= first) & (windows < last)
            at = (torch.tensor(starts[first:last]) - begin, windows[here] - first, places[here])
            if recompute:
                part = _Recomputed.apply(u[:, :, begin:end], lambda u, at=at: self._piece(u, sigma, *at))
            else:
                part = self._piece(u[:, :, begin:end], sigma, *at)
            parts.append(part)  # type: ignore[arg-type]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def _piece(self, u: Tensor, sigma: Tensor, starts: Tensor, windows: Tensor, places: Tensor) -> Tensor:
        """The states (B, C, len(places), ...) that windows beginning at ``starts`` answer for."""
        index = starts[:, None] + torch.arange(self.size)
        parts = u.index_select(2, index.flatten().to(u.device)).unflatten(2, tuple(index.shape)).movedim(2, 1)
        level = sigma if sigma.ndim == 0 else sigma.repeat_interleave(len(starts))
        D = self.window.denoise(parts.flatten(0, 1), level).unflatten(0, parts.shape[:2])
        D = D.movedim(1, 2).flatten(2, 3)  # (B, C, windows * size, *grid)
        return D.index_select(2, (windows * self.size + places).to(u.device))

    def decode(self, u: Tensor) -> Tensor:
        r"""The field in physical units, state by state: (B, C, L, \*grid) -> the same with the field's channels."""
        return self._by_windows(self.window.decode, u)

    def encode(self, x: Tensor) -> Tensor:
        """Inverse of `decode`."""
        return self._by_windows(self.window.encode, x)

    def _by_windows(self, function: Any, x: Tensor) -> Tensor:
        """Windows side by side; the last one reaches back over the one before."""
        if self.window.shape is None:
            return function(x)
        size, length = self.size, x.shape[2]
        full = length // size
        front = x[:, :, : full * size].unflatten(2, (full, size)).movedim(2, 1)
        done = function(front.flatten(0, 1)).unflatten(0, (len(x), full)).movedim(1, 2).flatten(2, 3)
        rest = length - full * size
        return done if rest == 0 else torch.cat([done, function(x[:, :, -size:])[:, :, size - rest :]], 2)


class _Recomputed(torch.autograd.Function):
    """A function of one tensor that keeps nothing inside: on the way back it is computed again."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(u)
        ctx.function = function
        return function(u)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (u,) = ctx.saved_tensors
        again = torch.is_grad_enabled()  # the gradient itself will be differentiated
        with torch.enable_grad():
            u = u.view_as(u) if again else u.detach().requires_grad_()
            return torch.autograd.grad(ctx.function(u), u, gradient, create_graph=again)[0], None
