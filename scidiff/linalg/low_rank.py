r"""Covariances that are diagonal except for a few directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg.covariance import Covariance, Shift

__all__ = ["LowRank"]


class LowRank(Covariance):
    r"""Factor form, :math:`C = U U^\top + D` with few columns in :math:`U` and :math:`D` diagonal, positive.

    With :math:`V = D^{-1/2} U` and :math:`V^\top V = R\,\Theta R^\top`, :math:`Q = V R\,\Theta^{-1/2}`:
    :math:`S = D^{1/2} (I + Q[(1 + \Theta)^{1/2} - 1]Q^\top)`, and the inverse is Woodbury's.

    Arguments:
        factor: :math:`U`, columns of fields: (r, \*shape), real.
        variance: :math:`D`: one number, or a tensor that broadcasts to ``shape``.
        shape: Shape of one field; default: that of ``factor`` without its first dimension.
    """

    def __init__(self, factor: Tensor, variance: float | Tensor, shape: Sequence[int] | None = None) -> None:
        if factor.ndim < 2 or factor.is_complex():
            raise ValueError(f"factor must be real of shape (r, *shape), got {tuple(factor.shape)}, {factor.dtype}.")
        super().__init__(factor.shape[1:] if shape is None else shape, factor.dtype)
        u = factor.detach().to(torch.float64).flatten(1)
        if u.shape[1] != self.size:
            raise ValueError(f"factor has {u.shape[1]} entries a column, a field of shape {self.shape} {self.size}.")
        d = torch.as_tensor(variance, dtype=torch.float64, device=u.device).detach()
        self.isotropic = d.numel() == 1
        d = d.reshape(1) if self.isotropic else d.expand(self.shape).flatten()
        if not bool((d > 0).all()) or not bool(torch.isfinite(d).all()):
            raise ValueError(f"the diagonal part must be positive and finite, got a minimum of {d.min():.3g}.")
        self.factor, self.variance = u, d
        theta, r = torch.linalg.eigh((u / d) @ u.mT)
        keep = theta > len(theta) * torch.finfo(torch.float64).eps * theta[-1:]
        self.theta = theta[keep]
        self.basis = (r[:, keep] / self.theta.sqrt()).mT @ (u * d.rsqrt())

    @property
    def rank(self) -> int:
        """Number of columns of the factor."""
        return len(self.factor)

    def _function(self, x: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """``f x + Q (g - f) Q' x`` on flat rows: the function that is f off the basis and g on it."""
        q = self._cast("basis", x).to(x.dtype)
        return f * x + (x @ q.mT * (g - f)) @ q

    def _matmul(self, x: Tensor) -> Tensor:
        u, flat = self._cast("factor", x).to(x.dtype), x.flatten(1)
        return (self._cast("variance", x) * flat + (flat @ u.mT) @ u).reshape(x.shape)

    def _eigen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        d = self._cast("variance", x)
        return d, d * (1 + self._cast("theta", x))

    def _solve(self, x: Tensor, shift: Shift) -> Tensor:
        flat = x.flatten(1)
        s = self._rows(shift, flat)
        if self.isotropic:
            d, on = self._eigen(x)
            return self._function(flat, 1 / (d + s), 1 / (on + s)).reshape(x.shape)
        u = self._cast("factor", x)
        inverse = 1 / (self._cast("variance", x) + s)  # (d,) or (B, d)
        weighted = inverse.unsqueeze(-2) * u  # (r, d) or (B, r, d)
        capacity = weighted @ u.mT + torch.eye(len(u), dtype=u.dtype, device=u.device)
        r = inverse * flat
        c = torch.cholesky_solve((r @ u.mT.to(x.dtype)).unsqueeze(-1), torch.linalg.cholesky(capacity).to(x.dtype))
        return (r - (c.mT @ weighted.to(x.dtype)).squeeze(-2)).reshape(x.shape)

    def _shrink(self, x: Tensor, shift: Shift) -> Tensor:
        if not self.isotropic:
            return self._matmul(self._solve(x, shift))
        flat = x.flatten(1)
        s = self._rows(shift, flat)
        d, on = self._eigen(x)
        return self._function(flat, d / (d + s), on / (on + s)).reshape(x.shape)

    def _root(self, x: Tensor, inverse: bool, adjoint: bool) -> Tensor:
        d = self._cast("variance", x)
        on = (1 + self._cast("theta", x)).sqrt()
        outer, on = (d.rsqrt(), 1 / on) if inverse else (d.sqrt(), on)
        flat, one = x.flatten(1), torch.ones_like(on[:1]) if len(on) else torch.ones_like(d[:1])
        if inverse is adjoint:  # S and S^-H: the diagonal comes last
            return (outer * self._function(flat, one, on)).reshape(x.shape)
        return self._function(outer * flat, one, on).reshape(x.shape)

    def logdet(self, shift: Shift = 0.0) -> Tensor:
        s = shift.to(self.factor)[..., None] if isinstance(shift, Tensor) else shift
        if self.isotropic:
            on = (self.variance * (1 + self.theta) + s).log().sum(-1)
            return on + (self.size - len(self.theta)) * (self.variance + s).log().squeeze(-1)
        d = self.variance + s  # (d,) or (B, d)
        capacity = (self.factor / d.unsqueeze(-2)) @ self.factor.mT
        eye = torch.eye(self.rank, dtype=torch.float64, device=capacity.device)
        return d.log().sum(-1) + torch.logdet(capacity + eye)

    def diagonal(self) -> Tensor:
        return (self.variance + self.factor.square().sum(0)).reshape(self.shape)

    def dense(self) -> Tensor:
        return self.factor.mT @ self.factor + torch.diag(self.variance.expand(self.size))

    def scaled(self, factor: float) -> LowRank:
        d = self.variance[0] if self.isotropic else self.variance.reshape(self.shape)
        return LowRank((self.factor * factor**0.5).reshape(-1, *self.shape), d * factor)
