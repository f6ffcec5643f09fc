r"""Time steps of semilinear equations :math:`\dot w = L w + N(w)` with a diagonal :math:`L`, all of fourth order.

``ifrk4`` is the classical Runge-Kutta method for :math:`e^{-L t} w`: with :math:`E = e^{L \Delta t / 2}`,

.. math:: k_1 = N(w), \quad k_2 = N\big(E (w + \tfrac{\Delta t}{2} k_1)\big), \quad
          k_3 = N\big(E w + \tfrac{\Delta t}{2} k_2\big), \quad k_4 = N\big(E^2 w + \Delta t\, E k_3\big),

.. math:: w' = E^2 w + \tfrac{\Delta t}{6} \big(E^2 k_1 + 2 E (k_2 + k_3) + k_4\big).

``etdrk4`` integrates :math:`L` exactly beside a polynomial in time for :math:`N`, which keeps fixed points and is more
accurate where :math:`|L| \Delta t` is large. Its coefficients
:math:`\varphi_j(z) = (\varphi_{j-1}(z) - 1/(j-1)!)/z` cancel badly for small :math:`z`; they are means over a circle
of radius 1 around :math:`z`. ``rk4`` is for equations that are not split.

References:
    Cox and Matthews, Exponential time differencing for stiff systems, Journal of Computational Physics 176, 2002.
    Kassam and Trefethen, Fourth-order time-stepping for stiff PDEs, SIAM Journal on Scientific Computing 26, 2005 (the
    circle).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Semilinear", "Step", "advance", "etdrk4", "ifrk4", "rk4"]

Step = Callable[[Tensor], Tensor]
CIRCLE = 32
KEPT = 32
"""States that one fourth-order step of a nonlinear equation keeps for its gradient, about."""
MEMORY = 2**31


class Semilinear(Protocol):
    """What the steps need to know of an equation."""

    linear: Tensor
    """The diagonal :math:`L`, real or complex, broadcasting against the state."""

    def change(self, w: Tensor) -> Tensor:
        """:math:`N(w)`. An equation may add ``recorded(w)``: N(w) and the function that takes the gradient with respect
        to it to the gradient with respect to w; then no graph is built.
        """
        ...


@dataclass(frozen=True)
class _Integrating:
    """A step of `ifrk4`."""

    equation: Any
    dt: float
    half: Step
    half_adjoint: Step

    def __call__(self, w: Tensor) -> Tensor:
        change, half, dt = self.equation.change, self.half, self.dt
        k1 = change(w)
        half_w = half(w)
        k2 = change(half(w.add(k1, alpha=dt / 2)))
        k3 = change(half_w.add(k2, alpha=dt / 2))
        k4 = change(half(half_w.add(k3, alpha=dt)))
        middle = half(w.add(k1, alpha=dt / 6)).add(k2 + k3, alpha=dt / 3)
        return half(middle).add(k4, alpha=dt / 6)

    def recorded(self, w: Tensor) -> tuple[Tensor, Step]:
        """The same, and its gradient: from that with respect to the new state to that with respect to w."""
        change, half, dt = self.equation.recorded, self.half, self.dt
        k1, pull1 = change(w)
        half_w = half(w)
        k2, pull2 = change(half(w.add(k1, alpha=dt / 2)))
        k3, pull3 = change(half_w.add(k2, alpha=dt / 2))
        k4, pull4 = change(half(half_w.add(k3, alpha=dt)))
        middle = half(w.add(k1, alpha=dt / 6)).add(k2 + k3, alpha=dt / 3)

        def pull(g: Tensor) -> Tensor:
            half = self.half_adjoint
            to_middle = half(g)
            to_w, to_k = half(to_middle), dt / 3 * to_middle
            g4 = half(pull4(dt / 6 * g))  # what half_w + dt k3 receives, and so on
            g3 = pull3(to_k.add(g4, alpha=dt))
            g2 = half(pull2(to_k.add(g3, alpha=dt / 2)))
            g1 = pull1((dt / 6 * to_w).add(g2, alpha=dt / 2))
            return to_w + g2 + g1 + half(g3 + g4)

        return half(middle).add(k4, alpha=dt / 6), pull


def ifrk4(equation: Semilinear, dt: float) -> Step:
    """A step of ``dt`` with the integrating factor."""
    factor = torch.exp(equation.linear * (dt / 2))
    return _Integrating(equation, dt, _diagonal(factor), _diagonal(factor.conj().resolve_conj()))


def _diagonal(factor: Tensor) -> Step:
    """Multiplies states with a factor. Real times complex is done on pairs of reals, some times faster."""
    if factor.is_complex():
        return lambda w: factor * w
    pairs = factor[..., None].expand(*factor.shape, 2).contiguous()

    def multiply(w: Tensor) -> Tensor:
        return torch.view_as_complex(torch.view_as_real(w) * pairs) if w.is_complex() else factor * w

    return multiply


def etdrk4(equation: Semilinear, dt: float) -> Step:
    """A step of ``dt`` with exponential time differences."""
    L = equation.linear.to(torch.complex128) * dt
    angles = math.pi * (torch.arange(CIRCLE, dtype=torch.float64, device=L.device) + 0.5) / (CIRCLE / 2)
    z = L[..., None] + torch.polar(torch.ones_like(angles), angles)
    e = torch.exp(z)

    def like(values: Tensor) -> Tensor:
        mean = values.mean(-1)
        return mean.to(equation.linear.dtype) if equation.linear.is_complex() else mean.real.to(equation.linear.dtype)

    half, full = torch.exp(equation.linear * (dt / 2)), torch.exp(equation.linear * dt)
    q = dt * like((torch.exp(z / 2) - 1) / z)
    f1 = dt * like((-4 - z + e * (4 - 3 * z + z**2)) / z**3)
    f2 = dt * like((2 + z + e * (z - 2)) / z**3)
    f3 = dt * like((-4 - 3 * z - z**2 + e * (4 - z)) / z**3)

    def step(w: Tensor) -> Tensor:
        n = equation.change(w)
        a = half * w + q * n
        na = equation.change(a)
        nb = equation.change(half * w + q * na)
        nc = equation.change(half * a + q * (2 * nb - n))
        return full * w + f1 * n + 2 * f2 * (na + nb) + f3 * nc

    return step


def rk4(change: Step, dt: float) -> Step:
    r"""A step of ``dt`` of the classical Runge-Kutta method for :math:`\dot w = N(w)`."""

    def step(w: Tensor) -> Tensor:
        k1 = change(w)
        k2 = change(w + dt / 2 * k1)
        k3 = change(w + dt / 2 * k2)
        k4 = change(w + dt * k3)
        return w + dt / 6 * (k1 + 2 * (k2 + k3) + k4)

    return step


def advance(step: Step, w: Tensor, steps: int, segments: int | None = None) -> Tensor:
    """The state after ``steps`` steps.

    Where a gradient will be taken and everything it needs would not fit, only the states at the ends of segments are
    kept, and one segment at a time is computed again on the way back: memory grows as the root of the number of
    steps, and the forward run is paid twice.

    Arguments:
        step: One step; gradients are taken with respect to the state alone.
        w: State.
        steps: Number of steps, not negative.
        segments: How many. 1 keeps everything; by default 1 where that is at most about 2 GB, else the root of
            ``steps``.
    """
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}.")
    if segments is None:
        segments = 1 if steps * w.numel() * w.element_size() * KEPT <= MEMORY else math.isqrt(steps)
    if not (torch.is_grad_enabled() and w.requires_grad):
        return _repeated(step, w, steps)
    if segments > 1:
        size = -(-steps // min(segments, steps))
        for first in range(0, steps, size):
            w = _Segment.apply(w, step, min(size, steps - first), False)  # type: ignore[assignment]
        return w
    if steps > 0 and _recordable(step) and not _transformed():
        return _Segment.apply(w, step, steps, True)  # type: ignore[return-value]
    return _repeated(step, w, steps)


def _repeated(step: Step, w: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        w = step(w)
    return w


def _recordable(step: Step) -> bool:
    """Whether the step knows its own gradient."""
    return isinstance(step, _Integrating) and hasattr(step.equation, "recorded")


def _transformed() -> bool:
    """Whether torch.func is at work, which wants plain functions."""
    return getattr(torch._C, "_are_functorch_transforms_active", lambda: False)()


def _record(step: Any, w: Tensor, steps: int) -> tuple[Tensor, list[Step]]:
    """The state after the steps, and the gradient of each."""
    pulls = []
    with torch.no_grad():
        for _ in range(steps):
            w, pull = step.recorded(w)
            pulls.append(pull)
    return w, pulls


class _Segment(torch.autograd.Function):
    """Some steps, of which only the first state is kept, or where ``record`` what the steps' own gradients need; can
    be differentiated twice with respect to the state.
    """

    @staticmethod
    def forward(ctx, w: Tensor, step: Step, length: int, record: bool) -> Tensor:  # noqa: ANN001 - torch's context
        ctx.save_for_backward(w)
        ctx.step, ctx.length, ctx.pulls = step, length, None
        if record:
            w, ctx.pulls = _record(step, w, length)
            return w
        return _repeated(step, w, length)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN001
        (w,) = ctx.saved_tensors
        again = torch.is_grad_enabled()  # the gradient itself will be differentiated
        if not again and _recordable(ctx.step):
            for pull in reversed(ctx.pulls or _record(ctx.step, w, ctx.length)[1]):
                gradient = pull(gradient)
            return gradient, None, None, None
        with torch.enable_grad():
            w = w.view_as(w) if again else w.detach().requires_grad_()
            end = _repeated(ctx.step, w, ctx.length)
            return (*torch.autograd.grad(end, w, gradient, create_graph=again), None, None, None)
