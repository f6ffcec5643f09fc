r"""The measurement as the methods see it: whitened, in the coordinates of the state, with counted calls.

With :math:`W = S_y^{-1/2}` the whitened residual of a state is :math:`r(u) = W(y - A(\mathrm{decode}(u)))`, n real
numbers per row. For linear operators and an affine prior :math:`r(u) = r(0) - \tilde A u`, and `Measurement` offers
:math:`\tilde A` and :math:`\tilde A^T`. For others `Measurement.linearise` offers the same products at a state, with
:math:`\tilde A = -\partial r/\partial u`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scidiff.failures import Failure, listening
from scidiff.inference import Cost, Likelihood, Posterior

__all__ = ["Linearisation", "Measurement", "weigh"]


class _ByAdjoint(torch.autograd.Function):
    """A linear operator whose gradient is its declared adjoint, for operators that torch cannot differentiate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Any) -> Tensor:  # type: ignore[override]
        ctx.operator = operator
        return operator(x)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _ByAdjoint.apply(v, _Transposed(ctx.operator)), None  # type: ignore[return-value]


class _Transposed:
    """The adjoint as an operator, so that `_ByAdjoint` can be differentiated twice."""

    def __init__(self, operator: Any) -> None:
        self.operator, self.adjoint = operator, operator

    def __call__(self, v: Tensor) -> Tensor:
        return self.operator.adjoint(v)


@dataclass(frozen=True)
class Linearisation:
    r"""The measurement around a state m: :math:`r(m + w) \approx r - \tilde A w`.

    Arguments:
        residual: Whitened residual r at m, (rows, n), without graph.
        forward: :math:`\tilde A w`, (rows, \*S) -> (rows, n).
        adjoint: :math:`\tilde A^T v`, (rows, n) -> (rows, \*S).
    """

    residual: Tensor
    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]


def weigh(part: Likelihood, r: Tensor, at: Tensor | None = None) -> Tensor:
    r"""Whitens a difference of measurements, (rows, \*Y) -> (rows, n) real.

    Gaussian noise: exact. Noise with a ``variance(z)``, such as `PoissonNoise`: divided by the standard deviation at
    :math:`z = \max(y, v(1))`, :math:`v(1)` being the variance of one unit of signal (for counts: at least one count).

    Arguments:
        part: The likelihood.
        r: Difference of measurements.
        at: Noiseless measurement to take instead of y for the variance, (rows, \*Y).
    """
    if part.whitens:
        return part.whiten(r)
    variance = getattr(part.noise, "variance", None)
    if variance is None:
        return part.whiten(r)  # raises with the explanation
    floor = variance(torch.ones_like(part.y))
    return (r / variance(torch.maximum(part.y if at is None else at, floor)).sqrt()).flatten(1)


def beside(parts: list[Tensor]) -> Tensor:
    """Measurements (rows, n) of several instruments side by side; of one without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class Measurement:
    """The likelihoods of a posterior with calls counted in ``cost``; one call covers all instruments.

    Arguments:
        posterior: Posterior of the rows at hand (see `Posterior.tile`).
        cost: Counters to add to.
        tell: Called with each row whose field has no measurement and its `Failure`.
    """

    def __init__(self, posterior: Posterior, cost: Cost, tell: Callable[[int, Failure], None] | None = None) -> None:
        self.tell = tell or (lambda row, failure: None)
        self.posterior, self.prior, self.cost = posterior, posterior.prior, cost
        self.affine = posterior.linear and all(part.whitens for part in posterior.likelihoods)
        self.graph: tuple[Tensor, Tensor] | None = None
        self.forward_mode = False  # set by samplers that know their decoder; see `_tangent`
        self.origin: tuple[Tensor, bool] | None = None  # decode(0), and whether it is not zero
        self.failed: dict[int, Failure] = {}  # rows whose field has no measurement; they hold zero
        self.sums: list[Tensor] = []  # of each call's values, finite if they are; left on the device, read by `Watch`

    def _apply(self, part: Likelihood, x: Tensor) -> Tensor:
        by_adjoint = not part.differentiable and part.linear
        with listening() as failures:
            z: Tensor = _ByAdjoint.apply(x, part.operator) if by_adjoint else part.operator(x)  # type: ignore[assignment]
        if failures:
            found = {failure.row(len(z)): failure for failure in failures}
            self.failed.update(found)
            for row, failure in found.items():
                self.tell(row, failure)
            z = z.index_fill(0, torch.tensor(sorted(found), device=z.device), 0)
        if x.requires_grad and torch.is_grad_enabled() and not z.requires_grad:
            name = type(part.operator).__name__
            raise TypeError(
                f"no gradient flows through {name} (does it run under torch.no_grad or numpy?); "
                "set `differentiable = False` on it, and give it an `adjoint` if it is linear."
            )
        self.sums.append((torch.view_as_real(z) if z.is_complex() else z).detach().sum())
        return z

    def residual(self, u: Tensor) -> Tensor:
        r"""Whitened residuals (rows, n) of the states ``u`` (rows, \*S); differentiable where ``u`` is.

        Noise that is not Gaussian but states its variance is weighed with the variance at the data, see `weigh`.
        """
        self.cost.operator += 1
        x = self.prior.decode(u)
        return beside([weigh(p, p.difference(self._apply(p, x))) for p in self.posterior.likelihoods])

    def log_prob(self, u: Tensor) -> Tensor:
        r"""Log likelihood of the states ``u`` (rows, \*S), summed over instruments: (rows,); differentiable."""
        self.cost.operator += 1
        x = self.prior.decode(u)
        terms = [p.noise.log_prob(p.y, p.matching(self._apply(p, x))) for p in self.posterior.likelihoods]
        return torch.stack(terms).sum(0)

    def gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""Log likelihood (rows,) of the states and its gradient in ``u`` (rows, \*S), without graph."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            value = self.log_prob(u)
        self.cost.operator_vjp += 1
        (gradient,) = torch.autograd.grad(value, u, torch.ones_like(value))
        return value.detach(), gradient

    def forward(self, w: Tensor) -> Tensor:
        r""":math:`\tilde A w`, (rows, \*S) -> (rows, n), without graph.

        Rows are scaled to a large amplitude inside, so that the offset of ``decode`` (280 K, say) costs no digits.
        """
        self.cost.operator += 1
        with torch.no_grad():
            if self.origin is None:
                origin = self.prior.decode(torch.zeros_like(w[:1]))
                self.origin = origin, bool((origin != 0).any())
            origin, shifted = self.origin
            if not shifted:
                x = self.prior.decode(w)
                return beside([weigh(p, p.operator(x)) for p in self.posterior.likelihoods])
            size = w.flatten(1).abs().amax(1)
            size = torch.where(size > 0, size, 1.0).reshape(-1, *[1] * (w.ndim - 1)) / 4096
            x = self.prior.decode(w / size) - origin
            return beside([weigh(p, p.operator(x)) for p in self.posterior.likelihoods]) * size.reshape(-1, 1)

    def adjoint(self, v: Tensor) -> Tensor:
        r""":math:`\tilde A^T v`, (rows, n) -> (rows, \*S), through one graph that is kept for the run."""
        if self.graph is None:
            self.cost.operator += 1
            with torch.enable_grad():
                u = v.new_zeros(v.shape[0], *(self.posterior.shape or ())).requires_grad_()
                x = self.prior.decode(u)
                z = beside([weigh(p, self._apply(p, x)) for p in self.posterior.likelihoods])
            self.graph = u, z
        u, z = self.graph
        self.cost.operator_vjp += 1
        return torch.autograd.grad(z, u, v, retain_graph=True)[0]

    def _tangent(self, m: Tensor, weights: list[Tensor]) -> Callable[[Tensor], Tensor] | None:
        r"""The product with :math:`\tilde A` at m as one pass forward through the decoder, for linear operators.

        No graph is kept, where the other way keeps that of a pass back through the decoder. None where an operator is
        not linear; a decoder without derivatives in forward mode is noticed when it is first called.
        """
        parts = self.posterior.likelihoods
        if not all(part.linear for part in parts):
            return None

        def tangent(w: Tensor) -> Tensor:
            with torch.no_grad():
                t = torch.func.jvp(self.prior.decode, (m,), (w,))[1]
                return beside([weigh(p, p.operator(t), z) for p, z in zip(parts, weights, strict=True)])

        return tangent

    def linearise(self, u: Tensor) -> Linearisation:
        r"""The measurement around the states ``u`` (rows, \*S).

        Linear measurements with Gaussian noise: the products of this object, with one graph for the whole run. Others:
        a graph at ``u``; noise that states its variance is weighed with the variance at :math:`A(\mathrm{decode}(u))`,
        so that :math:`\tilde A^T r` is the gradient of its log likelihood. Both products are then passes backward
        through that graph (the product with :math:`\tilde A` differentiates :math:`\tilde A^T v` in v), and count so.
        """
        if self.affine:
            return Linearisation(self.residual(u), self.forward, self.adjoint)
        self.cost.operator += 1
        parts = self.posterior.likelihoods
        with torch.enable_grad():
            m = u.detach().requires_grad_()
            x = self.prior.decode(m)
            clean = [self._apply(p, x) for p in parts]
            weights = [z.detach() for z in clean]
            z = beside([weigh(p, p.matching(c), w) for p, c, w in zip(parts, clean, weights, strict=True)])
        tangent = self._tangent(m.detach(), weights) if self.forward_mode else None
        pairs = zip(parts, weights, strict=True)
        r = beside([weigh(p, p.difference(w), w) for p, w in pairs])
        transpose: list[tuple[Tensor, Tensor]] = []

        def adjoint(v: Tensor) -> Tensor:
            self.cost.operator_vjp += 1
            return torch.autograd.grad(z, m, v, retain_graph=True)[0]

        def forward(w: Tensor) -> Tensor:
            if tangent is not None and self.forward_mode:
                try:
                    found = tangent(w)
                except (NotImplementedError, RuntimeError):  # this decoder has none
                    self.forward_mode = False
                else:
                    self.cost.operator += 1
                    return found
            if not transpose:
                self.cost.operator_vjp += 1
                with torch.enable_grad():
                    v = torch.zeros_like(z).requires_grad_()
                    transpose.append((v, torch.autograd.grad(z, m, v, create_graph=True)[0]))
            v, g = transpose[0]
            if not g.requires_grad:
                names = ", ".join(type(part.operator).__name__ for part in parts)
                raise TypeError(f"{names}: the gradient cannot be differentiated again; write it with torch functions.")
            self.cost.operator_vjp += 1
            return torch.autograd.grad(g, v, w, retain_graph=True)[0]

        return Linearisation(r, forward, adjoint)
