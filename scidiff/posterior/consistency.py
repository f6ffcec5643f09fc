r"""Optimisation of fields or codes until they explain the data to the noise, and no further: hard data consistency.

With n whitened residuals r a field explains the data when :math:`\chi^2 = \|r\|^2/n = 1`; smaller values fit the noise
(the discrepancy principle). Every row has its own step lengths and its own end: where a step would lead below the
target it is shortened so that it ends there. A row that does not arrive keeps the best it has.

Three ways, all with the same end: `conjugate_gradients` (Gauss-Newton steps where the measurement is not linear; exact
line searches, few passes), `lbfgs`, and `adamw` (many cheap steps; the published one).

The same optimisers minimise :math:`\tfrac12\|r(u) + n\|^2 + \tfrac12\|u - c\|^2/\lambda`, a draw by optimisation
(`Objective` with a shift and a centre); they then end where the gradient has fallen enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scidiff.posterior.krylov import dot
from scidiff.posterior.latent import row
from scidiff.posterior.measurement import Linearisation, Measurement

__all__ = ["Objective", "Optimiser", "adamw", "conjugate_gradients", "least_squares", "lbfgs"]

Optimiser = Literal["cg", "lbfgs", "adamw"]
HALVINGS = 12
LANDINGS = 10
CLOSE = 0.97
"""Rows that end between this share of the target and the target are left there."""


@dataclass(frozen=True)
class Objective:
    r""":math:`f(u) = \tfrac12\|r(u) + n\|^2 + \tfrac12\|u - c\|^2/\lambda`, row by row.

    Arguments:
        measurement: Where r comes from; the rows' states or fields.
        target: :math:`\chi^2` at which a row ends; None: where its gradient is ``tolerance`` times the first one.
        shift: n, (rows, n); None for none.
        centre: c, (rows, \*S); None for no second term.
        width: :math:`\lambda`.
        tolerance: See target.
    """

    measurement: Measurement
    target: float | None = 1.0
    shift: Tensor | None = None
    centre: Tensor | None = None
    width: float = 1.0
    tolerance: float = 1e-2

    def _terms(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r = self.measurement.residual(u)
        if self.shift is not None:
            r = r + self.shift
        squares = r.square().sum(1)
        value = squares / 2
        if self.centre is not None:
            value = value + (u - self.centre).flatten(1).square().sum(1) / (2 * self.width)
        return value, squares / r.shape[1]

    def value(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`f` and :math:`\chi^2` (rows,) without graph; one operator call."""
        with torch.no_grad():
            return self._terms(u)

    def gradient(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r""":math:`f`, :math:`\chi^2` (rows,) and the gradient (rows, \*S); one operator call and one product."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            value, chi2 = self._terms(u)
        self.measurement.cost.operator_vjp += 1
        (g,) = torch.autograd.grad(value, u, torch.ones_like(value))
        return value.detach(), chi2.detach(), g

    def land(self, old: Tensor, new: Tensor, chi2: Tensor) -> Tensor:
        """Between ``old`` and ``new``, where ``chi2`` is that of new: rows clearly below the target go back to it."""
        if self.target is None:
            return new
        over = chi2 < CLOSE * self.target
        if not bool(over.any()):
            return new
        low, high = torch.zeros_like(chi2), torch.ones_like(chi2)
        for _ in range(LANDINGS):
            t = (low + high) / 2
            below = self.value(old + row(t, old) * (new - old))[1] < self.target
            low, high = torch.where(below, low, t), torch.where(below, t, high)
        t = torch.where(over, (low + high) / 2, 1.0)
        return torch.where(row(over, old), old + row(t, old) * (new - old), new)

    def ended(self, chi2: Tensor, g: Tensor, first: Tensor) -> Tensor:
        """Rows that are done, (rows,)."""
        if self.target is not None:
            return chi2 <= self.target
        return torch.linalg.vector_norm(g.flatten(1), dim=1) <= self.tolerance * first


def adamw(f: Objective, u: Tensor, iterations: int, rate: float, decay: float = 0.01) -> Tensor:
    """Minimises with AdamW (every number has its own step, so rows do not mix).

    References:
        Decoupled Weight Decay Regularization (Loshchilov and Hutter, 2019), arXiv:1711.05101.
    """
    m, v = torch.zeros_like(u), torch.zeros_like(u)
    active, first = torch.ones(len(u), dtype=torch.bool, device=u.device), None
    for k in range(1, iterations + 1):
        _, chi2, g = f.gradient(u)
        first = torch.linalg.vector_norm(g.flatten(1), dim=1) if first is None else first
        active = active & ~f.ended(chi2, g, first)
        if not bool(active.any()):
            break
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square()
        step = (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
        new = torch.where(row(active, u), (1 - rate * decay) * u - rate * step, u)
        new = f.land(u, new, torch.where(active, f.value(new)[1], torch.inf)) if f.target is not None else new
        u = new
    return u


def lbfgs(f: Objective, u: Tensor, iterations: int, memory: int = 8) -> Tensor:
    """Minimises with limited-memory BFGS and a backtracking line search, one of each per row.

    References:
        On the limited memory BFGS method for large scale optimization (Liu and Nocedal, 1989).
    """
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    value, chi2, g = f.gradient(u)
    first = torch.linalg.vector_norm(g.flatten(1), dim=1)
    active = ~f.ended(chi2, g, first)
    for _ in range(iterations):
        if not bool(active.any()):
            break
        down = -_two_loops(g, pairs, first)
        slope = (g * down).flatten(1).sum(1)
        down = torch.where(row(slope < 0, u), down, -g)
        slope = torch.where(slope < 0, slope, -g.flatten(1).square().sum(1))
        t = active.to(u)
        for k in range(HALVINGS):
            trial = u + row(t, u) * down
            worse = ~(f.value(trial)[0] <= value + 1e-4 * t * slope) & active
            if not bool(worse.any()):
                break
            t = torch.where(worse, torch.zeros_like(t) if k == HALVINGS - 1 else t / 2, t)
        new = u + row(t, u) * down
        value_new, chi2, g_new = f.gradient(new)
        landed = f.land(u, new, torch.where(active, chi2, torch.inf))
        s, y = new - u, g_new - g
        pairs = [*pairs[-(memory - 1) :], (s, y, (s * y).flatten(1).sum(1))]
        active = active & (t > 0) & ~f.ended(chi2, g_new, first)
        u, value, g = landed, value_new, g_new
    return u


def _two_loops(g: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]], first: Tensor) -> Tensor:
    """The inverse Hessian's estimate times g; pairs without positive curvature are left out row by row."""
    q, alphas = g, []
    scale = 1 / first.clamp(min=torch.finfo(g.dtype).tiny)
    for s, y, sy in reversed(pairs):
        good = sy > 0
        alpha = torch.where(good, (s * q).flatten(1).sum(1) / torch.where(good, sy, 1.0), 0.0)
        q = q - row(alpha, g) * y
        alphas.append(alpha)
    for _, y, sy in pairs:  # the latest good pair gives the scale
        yy = y.flatten(1).square().sum(1)
        scale = torch.where(sy > 0, sy / yy.clamp(min=torch.finfo(g.dtype).tiny), scale)
    q = row(scale, g) * q
    for (s, y, sy), alpha in zip(pairs, reversed(alphas), strict=True):
        good = sy > 0
        beta = torch.where(good, (y * q).flatten(1).sum(1) / torch.where(good, sy, 1.0), 0.0)
        q = q + row(torch.where(good, alpha - beta, 0.0), g) * s
    return q


def least_squares(near: Linearisation, stop: Tensor, iterations: int) -> Tensor:
    r"""A change w with :math:`\|r - \tilde A w\| =` stop (rows, 1), by conjugate gradients (CGLS); (rows, \*S).

    The residual falls with every iteration; the last one is cut short where it would fall below ``stop``.
    """
    r = near.residual
    p = near.adjoint(r)
    w, gamma = torch.zeros_like(p), p.flatten(1).square().sum(1, keepdim=True)
    active = (dot(r, r) > stop**2) & (gamma > 0)
    for _ in range(iterations):
        if not bool(active.any()):
            break
        q = near.forward(p)
        qq, rq, excess = dot(q, q), dot(r, q), dot(r, r) - stop**2
        alpha = torch.where(active, gamma / qq.clamp(min=torch.finfo(r.dtype).tiny), 0.0)
        crossed = dot(r - alpha * q, r - alpha * q) < stop**2
        root = (rq.square() - qq * excess).clamp(min=0).sqrt()  # |r - a q| = stop, the smaller a
        alpha = torch.where(active & crossed, excess / (rq + root).clamp(min=torch.finfo(r.dtype).tiny), alpha)
        w, r = w + row(alpha, w) * p, r - alpha * q
        active = active & ~crossed
        if not bool(active.any()):
            break
        s = near.adjoint(r)
        new = s.flatten(1).square().sum(1, keepdim=True)
        p = s + row(new / gamma.clamp(min=torch.finfo(r.dtype).tiny), s) * p
        gamma = new
        active = active & (gamma > 0)
    return w


def conjugate_gradients(f: Objective, u: Tensor, iterations: int, newton: int) -> Tensor:
    """Moves rows to the target by Gauss-Newton steps, each solved by `least_squares`; one step if linear."""
    assert f.target is not None and f.shift is None and f.centre is None
    measurement = f.measurement
    value, chi2 = f.value(u)
    for _ in range(1 if measurement.affine else newton):
        active = chi2 > f.target * (1 + 1e-3)
        if not bool(active.any()):
            break
        near = measurement.linearise(u)
        stop = torch.full_like(near.residual[:, :1], (f.target * near.residual.shape[1]) ** 0.5)
        w = least_squares(near, stop, iterations)
        t = active.to(u)
        new, new_value, new_chi2 = u, value, chi2
        for k in range(HALVINGS):
            new = u + row(t, u) * w
            new_value, new_chi2 = f.value(new)
            worse = ~(new_value <= value) & active & (t > 0)
            if not bool(worse.any()):
                break
            t = torch.where(worse, torch.zeros_like(t) if k == HALVINGS - 2 else t / 2, t)
        landed = f.land(u, new, torch.where(active, new_chi2, torch.inf))
        u, value, chi2 = landed, new_value, new_chi2
    return u
