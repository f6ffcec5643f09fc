r"""The measurement as the methods see it: whitened, in the coordinates of the state, with counted calls.

With :math:`W = S_y^{-1/2}` the whitened residual of a state is :math:`r(u) = W(y - A(\mathrm{decode}(u)))`, n real
numbers per row. For linear operators and an affine prior :math:`r(u) = r(0) - \tilde A u`, and `Measurement` offers
:math:`\tilde A` and :math:`\tilde A^T`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scidiff.inference import Cost, Likelihood, Posterior

__all__ = ["Measurement"]


class _ByAdjoint(torch.autograd.Function):
    """A linear operator whose gradient is its declared adjoint, for operators that torch cannot differentiate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Any) -> Tensor:  # type: ignore[override]
        ctx.operator = operator
        return operator(x)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.operator.adjoint(v), None


class Measurement:
    """The likelihoods of a posterior with calls counted in ``cost``; one call covers all instruments.

    Arguments:
        posterior: Posterior of the rows at hand (see `Posterior.tile`).
        cost: Counters to add to.
    """

    def __init__(self, posterior: Posterior, cost: Cost) -> None:
        self.posterior, self.prior, self.cost = posterior, posterior.prior, cost
        self.graph: tuple[Tensor, Tensor] | None = None

    def _apply(self, part: Likelihood, x: Tensor) -> Tensor:
        if not part.differentiable and part.linear:
            return _ByAdjoint.apply(x, part.operator)  # type: ignore[return-value]
        z = part.operator(x)
        if x.requires_grad and torch.is_grad_enabled() and not z.requires_grad:
            name = type(part.operator).__name__
            raise TypeError(
                f"no gradient flows through {name} (does it run under torch.no_grad or numpy?); "
                "set `differentiable = False` on it, and give it an `adjoint` if it is linear."
            )
        return z

    def residual(self, u: Tensor) -> Tensor:
        r"""Whitened residuals (rows, n) of the states ``u`` (rows, \*S); differentiable where ``u`` is."""
        self.cost.operator += 1
        x = self.prior.decode(u)
        return torch.cat([p.misfit(self._apply(p, x)) for p in self.posterior.likelihoods], dim=1)

    def forward(self, w: Tensor) -> Tensor:
        r""":math:`\tilde A w`, (rows, \*S) -> (rows, n), without graph.

        Rows are scaled to a large amplitude inside, so that the offset of ``decode`` (280 K, say) costs no digits.
        """
        self.cost.operator += 1
        with torch.no_grad():
            size = w.flatten(1).abs().amax(1)
            size = torch.where(size > 0, size, 1.0).reshape(-1, *[1] * (w.ndim - 1)) / 4096
            x = self.prior.decode(w / size) - self.prior.decode(torch.zeros_like(w))
            out = torch.cat([p.whiten(p.operator(x)) for p in self.posterior.likelihoods], dim=1)
            return out * size.reshape(-1, 1)

    def adjoint(self, v: Tensor) -> Tensor:
        r""":math:`\tilde A^T v`, (rows, n) -> (rows, \*S), through one graph that is kept for the run."""
        if self.graph is None:
            self.cost.operator += 1
            with torch.enable_grad():
                u = v.new_zeros(v.shape[0], *(self.posterior.shape or ())).requires_grad_()
                x = self.prior.decode(u)
                z = torch.cat([p.whiten(self._apply(p, x)) for p in self.posterior.likelihoods], dim=1)
            self.graph = u, z
        u, z = self.graph
        self.cost.operator_vjp += 1
        return torch.autograd.grad(z, u, v, retain_graph=True)[0]
