r"""A prior of windows composed into a prior of long trajectories (score-based data assimilation).

A chain :math:`x_1, \dots, x_L` is noised, :math:`u_\sigma = u + \sigma\epsilon`. The score of state i depends mostly on
its neighbours, so it is taken from the window of 2k + 1 states around it:

.. math:: D_i(u, \sigma) = E[u_i | u_\sigma] \approx E[u_i | u_{\sigma, i-k}, \dots, u_{\sigma, i+k}],

and the first and last k states from the first and the last window. Every window has the same law, which is what the
window prior knows. States are (C, L, \*grid).

**Error.** The noised chain is no Markov chain, so the window misses what states beyond it say. For a chain whose
correlations fall like :math:`\rho^{|j|}` this falls at least as fast, like :math:`\rho^k` for large noise and faster
for small noise, where neighbours tell all; for :math:`2k + 1 \ge L` nothing is missing. The composed Jacobian is not
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

from scidiff.protocols import Prior

__all__ = ["TrajectoryPrior"]


class TrajectoryPrior:
    r"""The prior of trajectories of ``length`` states that a prior of windows implies.

    Arguments:
        window: Prior of windows of 2k + 1 states, ``u`` of shape (C, 2k + 1, \*grid). Its ``decode`` must treat every
            state alike.
        k: Half width, at least 1 (0 for states that are independent).
        length: Number L of states, at least 2k + 1.
        grid: Grid of one state; needed when the window prior takes any size and states are fields.
        channels: Channels of ``u``, if the window prior does not say.
        chunk: Windows in the network at once; by default as many as hold four million numbers.

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
    ) -> None:
        self.window, self.k, self.length = window, int(k), int(length)
        size = 2 * self.k + 1
        if k < 0:
            raise ValueError(f"k must not be negative, got {k}.")
        if window.shape is not None:
            if len(window.shape) < 2 or window.shape[1] != size:
                found = window.shape[1] if len(window.shape) > 1 else "none"
                raise ValueError(
                    f"the window prior has windows of {found} states (shape {tuple(window.shape)}), but k = {k} needs "
                    f"2k + 1 = {size}; states are (channels, time, *grid)."
                )
            own, grid = window.shape[0], tuple(window.shape[2:])
        else:
            own = channels if channels is not None else getattr(window, "channels", None)
            if own is None:
                raise ValueError("the window prior does not say its channels; give channels=...")
        if self.length < size:
            raise ValueError(f"the record has {length} states, fewer than the window's 2k + 1 = {size}.")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}.")
        self.channels, self.grid, self.affine = int(own), tuple(int(n) for n in grid), window.affine
        self.chunk = chunk or max(1, 2**22 // (self.channels * size * math.prod(self.grid)))
        self.card: dict[str, Any] = getattr(window, "card", {})

    def __repr__(self) -> str:
        return f"TrajectoryPrior({self.window!r}, k={self.k}, length={self.length})"

    def of_length(self, length: int) -> TrajectoryPrior:
        """The same law for trajectories of another length."""
        return TrajectoryPrior(self.window, self.k, length, self.grid, self.channels, self.chunk)

    @property
    def shape(self) -> tuple[int, ...]:
        r"""(C, L, \*grid)."""
        return (self.channels, self.length, *self.grid)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r"""The composed denoiser; ``u`` (B, C, L, \*grid), ``sigma`` () or (B,)."""
        k, count = self.k, self.length - 2 * self.k
        sigma = torch.as_tensor(sigma, dtype=u.dtype, device=u.device)
        each = max(1, self.chunk // len(u))
        recompute = each < count and torch.is_grad_enabled() and u.requires_grad
        parts: list[Tensor] = []
        for first in range(0, count, each):
            last = min(first + each, count)
            piece = u[:, :, first : last + 2 * k]
            ends = (first == 0, last == count)
            if recompute:
                part = _Recomputed.apply(piece, lambda u, ends=ends: self._piece(u, sigma, ends))
            else:
                part = self._piece(piece, sigma, ends)
            parts.append(part)  # type: ignore[arg-type]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def _piece(self, u: Tensor, sigma: Tensor, ends: tuple[bool, bool]) -> Tensor:
        """Centres of all windows of a piece (B, C, n + 2k, ...), and the outer states at the ends of the record."""
        k, size = self.k, 2 * self.k + 1
        windows = u.unfold(2, size, 1).movedim(-1, 3).movedim(2, 1)  # (B, n, C, 2k + 1, *grid)
        count = windows.shape[1]
        level = sigma if sigma.ndim == 0 else sigma.repeat_interleave(count)
        D = self.window.denoise(windows.flatten(0, 1), level).unflatten(0, windows.shape[:2])
        found = D[:, :, :, k].movedim(1, 2)
        if ends[0] and k:
            found = torch.cat([D[:, 0, :, :k], found], 2)
        if ends[1] and k:
            found = torch.cat([found, D[:, -1, :, k + 1 :]], 2)
        return found

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
        size, length = 2 * self.k + 1, x.shape[2]
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
