"""The field itself, for denoising."""

from __future__ import annotations

from torch import Tensor

__all__ = ["Identity"]


class Identity:
    """Observes the whole field, ``A(x) = x``."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def __repr__(self) -> str:
        return "Identity()"
