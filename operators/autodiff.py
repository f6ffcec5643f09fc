r"""Gradients of linear maps by their own adjoints.

The gradient of :math:`\langle v, A x\rangle` is :math:`A^\ast v`. An operator that has a fast adjoint should not be
differentiated step by step: torch's gradient of a real FFT, for one, is a complex FFT of twice the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["linear"]

Map = Callable[[Tensor], Tensor]


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, forward: Map, adjoint: Map) -> Tensor:
        return forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map, Map], output: Tensor) -> None:
        _, ctx.A, ctx.At = inputs

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return linear(v, ctx.At, ctx.A), None, None

    @staticmethod
    def jvp(ctx: Any, t: Tensor, *rest: None) -> Tensor:  # type: ignore[override]
        return linear(t, ctx.A, ctx.At)


def linear(x: Tensor, forward: Map, adjoint: Map) -> Tensor:
    """``forward(x)``, whose gradient is ``adjoint``; both are linear and do not change their argument."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Linear.apply(x, forward, adjoint)
    return forward(x)
