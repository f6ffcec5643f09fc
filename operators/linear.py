r"""A linear function without an adjoint: autograd gives it one.

For linear f and any x the gradient of :math:`\mathrm{Re}\langle f(x), y\rangle` is :math:`A^\ast y`; it is taken at
x = 0, and costs one call and one pass backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.operators.algebra import Algebra
from scidiff.operators.recorded import known_as

__all__ = ["Linear"]


class Linear(Algebra):
    r"""A linear function of torch tensors as a linear operator.

    Arguments:
        function: Linear, maps fields (B, \*X) to measurements (B, \*Y), row by row. `verify` tests it.
        shape: Shape (\*X) of a field.
        adjoint: Maps measurements to fields, where a faster way than autograd's is known.
        complex_fields: Whether fields are complex; the adjoint on real fields is real.

    Raises:
        TypeError: if the function declares ``differentiable = False`` and no adjoint is given.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        shape: Sequence[int],
        adjoint: Callable[[Tensor], Tensor] | None = None,
        complex_fields: bool = False,
    ) -> None:
        if not callable(function):
            raise TypeError(f"function must be callable, got {type(function).__name__}; a matrix becomes a LinearMap.")
        self.differentiable = bool(getattr(function, "differentiable", True))
        if adjoint is None and not self.differentiable:
            raise TypeError(f"{known_as(function)} cannot be differentiated, so give its `adjoint`.")
        self.function, self.transposed, self.complex_fields = function, adjoint, complex_fields
        self.field_shape = tuple(int(n) for n in shape)

    def __call__(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.field_shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, {str(self.field_shape)[1:-1]}).")
        return self.function(x)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Maps measurements (B, \*Y) to fields (B, \*X)."""
        if self.transposed is not None:
            return self.transposed(y)
        real = y.dtype.to_real()
        again = torch.is_grad_enabled() and y.requires_grad  # the adjoint may be differentiated, too
        with torch.enable_grad():
            x = y.new_zeros(len(y), *(self.field_shape or ()), dtype=real.to_complex() if self.complex_fields else real)
            z = self.function(x.requires_grad_())
            if z.shape != y.shape:
                raise ValueError(f"y has shape {tuple(y.shape)}, but {known_as(self.function)} gives {tuple(z.shape)}.")
            if not z.requires_grad:
                raise TypeError(
                    f"no gradient flows through {known_as(self.function)} (does it run under torch.no_grad or numpy?), "
                    "so it has no adjoint by autograd; give `adjoint`."
                )
            return torch.autograd.grad(z, x, y.to(z.dtype), create_graph=again)[0]

    def verify(self, generator: Generator | None = None, tolerance: float = 1e-10) -> Linear:
        r"""Tests in double precision that the function is linear and the adjoint is its adjoint; returns the operator.

        Arguments:
            generator: Source of two random fields; a fixed one by default.
            tolerance: Largest accepted error, relative to the norms.

        Raises:
            ValueError: if it is not; with the error.
        """
        generator = Generator().manual_seed(0) if generator is None else generator
        kind: dict[str, Any] = {
            "dtype": torch.complex128 if self.complex_fields else torch.float64,
            "device": generator.device,
        }
        x, w = (torch.randn(2, *(self.field_shape or ()), generator=generator, **kind) for _ in range(2))
        a = (0.3 - 1.9j) if self.complex_fields else -1.9
        ax, aw = self(x), self(w)
        size = torch.linalg.vector_norm
        error = float(size(self(a * x + w) - (a * ax + aw)) / (size(ax) + size(aw)).clamp_min(1e-300))
        if not error <= tolerance:
            raise ValueError(
                f"{known_as(self.function)} is not linear: f(ax + w) differs from a f(x) + f(w) by {error:.3g}."
            )
        y = torch.randn(ax.shape, generator=generator, dtype=ax.dtype, device=ax.device)
        left, right = (ax.conj() * y).sum(), (x.conj() * self.adjoint(y)).sum()
        error = float((left - right).real.abs() / (size(ax) * size(y)).clamp_min(1e-300))
        if not error <= tolerance:
            raise ValueError(
                f"the adjoint of {known_as(self.function)} is wrong: <Ax, y> and <x, A'y> differ by {error:.3g}."
            )
        return self
