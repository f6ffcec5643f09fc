r"""Operators of scidiff as physics of deepinv, so that its algorithms run on them.

What the operator has the physics has: an adjoint makes it a `LinearPhysics`, a decomposition whose coefficients are as
many as the entries of the field a `DecomposablePhysics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.interop.deepinv_layout import Layout
from scidiff.interop.deepinv_noise import noise_to_deepinv
from scidiff.optional import optional
from scidiff.protocols import Noise, Operator

deepinv = optional("deepinv")

__all__ = ["DecomposedPhysics", "LinearOperatorPhysics", "OperatorPhysics", "to_deepinv"]


class _OfOperator:
    """What physics made of operators share."""

    operator: Any
    field: Layout
    data: Layout

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """The noiseless measurement of fields as deepinv has them."""
        return self.data.unpack(self.operator(self.field.pack(x)))

    def A_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Vector-Jacobian product: the operator's own, its adjoint, or torch's."""
        x, v = self.field.pack(x), self.data.pack(v)
        if callable(getattr(self.operator, "vjp", None)):
            return self.field.unpack(self.operator.vjp(x, v))
        if callable(getattr(self.operator, "adjoint", None)):
            return self.field.unpack(self.operator.adjoint(v))
        if not getattr(self.operator, "differentiable", True):
            raise TypeError(
                f"{type(self.operator).__name__} has no gradient; use methods that need forward calls only."
            )
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return self.field.unpack(torch.autograd.grad(self.operator(leaf), leaf, v)[0])


class OperatorPhysics(_OfOperator, deepinv.physics.Physics):
    """A nonlinear operator as a physics of deepinv; see `to_deepinv`."""


class LinearOperatorPhysics(_OfOperator, deepinv.physics.LinearPhysics):
    """A linear operator as a physics of deepinv; see `to_deepinv`."""

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """The adjoint."""
        return self.field.unpack(self.operator.adjoint(self.data.pack(y)))


class DecomposedPhysics(_OfOperator, deepinv.physics.DecomposablePhysics):
    """A linear operator with a decomposition as a physics of deepinv; see `to_deepinv`."""

    def A_adjoint(self, y: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """The adjoint."""
        return self.field.unpack(self.operator.adjoint(self.data.pack(y)))


def to_deepinv(
    operator: Operator,
    shape: Sequence[int],
    noise: Noise | None = None,
    *,
    complex_fields: bool = False,
    complex_channels: bool = False,
    rng: Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Any:
    r"""A physics of deepinv that measures with an operator.

    Arguments:
        operator: Any operator.
        shape: Shape (\*X) of one field.
        noise: Law of the noise; None for none.
        complex_fields: Whether the operator acts on complex fields.
        complex_channels: Whether deepinv shall see complex fields (1, ...) and measurements (B, 1, ...) as two real
            channels (2, ...), as its denoisers expect; measurements of another form stay complex.
        rng: Source of the noise; None takes fresh numbers.
        dtype: Real type in which the operator is tried once, and in which singular values are kept.
        device: Where it is tried.

    Returns:
        A `deepinv.physics.Physics`; a `LinearPhysics` if the operator has an adjoint.

    Raises:
        ValueError: if the operator does not accept such fields.
    """
    field = Layout.of_field(shape, complex_channels)
    complex_fields = complex_fields or complex_channels
    kind = dtype.to_complex() if complex_fields else dtype
    x = torch.rand(1, *field.shape, dtype=kind, generator=Generator().manual_seed(0)).to(device)
    try:
        with torch.no_grad():
            z = operator(x)
    except Exception as error:
        raise ValueError(
            f"{type(operator).__name__} does not accept {'complex ' if complex_fields else ''}fields of shape "
            f"{tuple(x.shape)}: {type(error).__name__}: {error}. Check shape= and complex_fields=."
        ) from error
    channels = complex_channels and z.is_complex() and z.ndim > 1 and z.shape[1] == 1
    data = Layout((((2, *z.shape[2:]) if channels else tuple(z.shape[1:])),), channels=channels)
    noise_model = noise_to_deepinv(noise, z.is_complex() and not channels, rng, data.pack, data.unpack)
    made: Any
    if not callable(getattr(operator, "adjoint", None)):
        made = OperatorPhysics(noise_model=noise_model)
    else:
        image = field.shapes[0]
        made = None if complex_fields or z.is_complex() else _decomposed(operator, x, image, noise_model)
        if made is None:
            made = LinearOperatorPhysics(img_size=image, noise_model=noise_model)
    made.operator, made.field, made.data = operator, field, data
    made.field_units, made.data_units = (getattr(operator, name, "") for name in ("field_units", "data_units"))
    return made


def _decomposed(operator: Any, x: Tensor, image: tuple[int, ...], noise_model: Any) -> Any:
    """With deepinv's ``U, V`` and singular values, or None where coefficients are fewer than entries of the field."""
    if not callable(getattr(operator, "svd", None)):
        return None
    U, s, V = operator.svd()
    c = V.adjoint(x)
    if c.shape[1:] != x.shape[1:] and math.prod(c.shape[1:]) != math.prod(x.shape[1:]):
        return None
    mask = s.to(x).expand(1, *c.shape[1:]).contiguous()
    return DecomposedPhysics(
        U=U.forward, U_adjoint=U.adjoint, V=V.forward, V_adjoint=V.adjoint, mask=mask, img_size=image,
        noise_model=noise_model,
    )  # fmt: skip
