r"""Covariances of fields, applied without forming a matrix where their structure allows it.

Every covariance :math:`C` acts on batches ``x`` of fields, (B, \*shape) or flattened, (B, d), and returns the shape it
was given. :math:`S` is a square root, :math:`S S^H = C`. A ``shift`` :math:`s` is one number or one per row, (B,).

====================  ==============================  ================================================
``matmul(x)``         :math:`C x`                     ``sqrt_matmul(x)``  :math:`S x`
``solve(x, s)``       :math:`(C + s I)^{-1} x`        ``whiten(x)``       :math:`S^{-1} x`
``shrink(x, s)``      :math:`C (C + s I)^{-1} x`      ``logdet(s)``       :math:`\log\det(C + s I)`
====================  ==============================  ================================================

Complex fields: :math:`C` is the covariance per real component, :math:`E[x x^H] = 2 C`, as everywhere in scidiff.
Numbers are kept in float64 and cast to the type and device of ``x``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from scidiff.rng import Streams

__all__ = ["Covariance", "Dense", "Diagonal", "Isotropic", "Spectral", "as_covariance"]

Shift = float | Tensor


def _wide(x: Tensor) -> Tensor:
    """The same numbers in double precision."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


class Covariance(ABC):
    r"""A positive semi-definite map :math:`C` of fields of shape ``shape``.

    Arguments:
        shape: Shape of one field.
        dtype: Real type in which `sample` answers unless told otherwise.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self._casts: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    @property
    def size(self) -> int:
        """Number of entries d of one field."""
        return math.prod(self.shape)

    @property
    def complex(self) -> bool:
        """Whether the map mixes real and imaginary parts, so that it acts on complex fields only."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape})"

    @abstractmethod
    def _matmul(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _solve(self, x: Tensor, shift: Shift) -> Tensor: ...

    @abstractmethod
    def _shrink(self, x: Tensor, shift: Shift) -> Tensor: ...

    @abstractmethod
    def _root(self, x: Tensor, inverse: bool, adjoint: bool) -> Tensor: ...

    @abstractmethod
    def logdet(self, shift: Shift = 0.0) -> Tensor:
        r""":math:`\log\det(C + s I)`, float64: () for one shift, (B,) for one per row."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Variance of every entry, (``*shape``), float64."""

    @abstractmethod
    def scaled(self, factor: float) -> Covariance:
        """The covariance ``factor * C``."""

    def matmul(self, x: Tensor) -> Tensor:
        """``C x``."""
        return self._matmul(self._fields(x)).reshape(x.shape)

    def solve(self, x: Tensor, shift: Shift = 0.0) -> Tensor:
        """``(C + shift I)^-1 x``; a singular covariance needs a positive shift."""
        self._refuse_singular(shift)
        return self._solve(self._fields(x), shift).reshape(x.shape)

    def shrink(self, x: Tensor, shift: Shift) -> Tensor:
        """``C (C + shift I)^-1 x``, the posterior mean of a centred field seen with noise of variance ``shift``.

        For a shift that tends to zero this is the identity on the range of ``C`` and zero elsewhere.
        """
        return self._shrink(self._fields(x), shift).reshape(x.shape)

    def sqrt_matmul(self, x: Tensor) -> Tensor:
        """``S x``."""
        return self._root(self._fields(x), inverse=False, adjoint=False).reshape(x.shape)

    def whiten(self, x: Tensor) -> Tensor:
        """``S^-1 x``."""
        self._refuse_singular(0.0)
        return self._root(self._fields(x), inverse=True, adjoint=False).reshape(x.shape)

    def whiten_adjoint(self, x: Tensor) -> Tensor:
        """``S^-H x``, so that ``whiten_adjoint(whiten(x)) = solve(x)``."""
        self._refuse_singular(0.0)
        return self._root(self._fields(x), inverse=True, adjoint=True).reshape(x.shape)

    def sample(self, source: Streams | Generator | None, n: int = 1, dtype: torch.dtype | None = None) -> Tensor:
        """Centred Gaussian fields (n, ``*shape``).

        Arguments:
            source: A generator, or the streams of the rows (then ``n`` is their number).
            n: Number of fields.
            dtype: Type of the fields, a complex one for complex fields; default ``self.dtype``.
        """
        dtype = dtype or self.dtype
        real = dtype.to_real()
        parts = (*self.shape, 2) if dtype.is_complex else self.shape
        if source is None:  # fresh entropy, never torch's global generator
            source = Generator()
            source.seed()
        if isinstance(source, Generator):
            device = source.device
            e = torch.randn(n, *parts, generator=source, dtype=real, device=device)
        else:
            e = source.randn(parts, dtype=real)
        return self.sqrt_matmul(torch.view_as_complex(e) if dtype.is_complex else e)

    @property
    def trace(self) -> float:
        """Sum of the variances."""
        return float(self.diagonal().sum())

    def dense(self) -> Tensor:
        """The matrix (d, d), float64 (complex128 if complex)."""
        eye = torch.eye(self.size, dtype=torch.complex128 if self.complex else torch.float64)
        return self.matmul(eye).mT.contiguous()

    def _singular(self) -> bool:
        return False

    def _refuse_singular(self, shift: Shift) -> None:
        if not isinstance(shift, Tensor) and shift == 0 and self._singular():
            raise ValueError(
                f"{self} is singular, so it has no inverse and no density; add a small variance to its diagonal, "
                "or shrink it when fitting."
            )

    def _fields(self, x: Tensor) -> Tensor:
        if self.complex and not x.is_complex():
            raise TypeError(f"{self} mixes real and imaginary parts and acts on complex fields, got {x.dtype}.")
        if x.ndim < 1 or math.prod(x.shape[1:]) != self.size:
            raise ValueError(f"{self} acts on (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}.")
        return x.reshape(x.shape[0], *self.shape)

    def _cast(self, name: str, x: Tensor) -> Tensor:
        """The float64 attribute ``name`` in the type and device of ``x``; the copy is kept."""
        tensor: Tensor = getattr(self, name)
        dtype = x.dtype.to_complex() if tensor.is_complex() else x.dtype.to_real()
        key = (name, x.device, dtype)
        if key not in self._casts:
            self._casts[key] = tensor.to(x.device, dtype)
        return self._casts[key]

    def _rows(self, shift: Shift, x: Tensor) -> Shift:
        """The shift shaped so that it multiplies the rows of ``x``."""
        if isinstance(shift, Tensor):
            shift = shift.to(x.device, x.dtype.to_real())
            if shift.ndim > 0:
                return shift.reshape(-1, *[1] * (x.ndim - 1))
        return shift


class Spectral(Covariance):
    r"""A covariance with a known eigenbasis, :math:`C = F^H \Lambda F` with :math:`F` unitary.

    All functions of it are functions of the eigenvalues; the square root is the Hermitian one.

    Arguments:
        eigenvalues: :math:`\Lambda`, non-negative, broadcastable to the coefficients of one field.
        shape: Shape of one field.
        dtype: Real type in which `sample` answers unless told otherwise.
    """

    def __init__(self, eigenvalues: Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> None:
        super().__init__(shape, dtype)
        if not bool(torch.isfinite(eigenvalues).all()) or bool((eigenvalues < 0).any()):
            raise ValueError(f"variances must be finite and not negative, got a minimum of {eigenvalues.min():.3g}.")
        self.eigenvalues = eigenvalues.detach().to(torch.float64)
        self._zeros = bool((self.eigenvalues == 0).any())

    def _forward(self, x: Tensor) -> Tensor:
        return x

    def _backward(self, c: Tensor, like: Tensor) -> Tensor:
        return c

    def _lam(self, x: Tensor) -> Tensor:
        return self._cast("eigenvalues", x)

    def _function(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        return self._backward(f(self._lam(x)) * self._forward(x), x)

    def _matmul(self, x: Tensor) -> Tensor:
        return self._function(x, lambda lam: lam)

    def _solve(self, x: Tensor, shift: Shift) -> Tensor:
        s = self._rows(shift, x)
        return self._function(x, lambda lam: 1 / (lam + s))

    def _shrink(self, x: Tensor, shift: Shift) -> Tensor:
        s = self._rows(shift, x)
        return self._function(x, lambda lam: lam / torch.where(lam > 0, lam + s, 1))

    def _root(self, x: Tensor, inverse: bool, adjoint: bool) -> Tensor:
        return self._function(x, torch.rsqrt if inverse else torch.sqrt)

    def _singular(self) -> bool:
        return self._zeros

    def _all_eigenvalues(self) -> Tensor:
        return self.eigenvalues.expand(self.shape).flatten()

    def logdet(self, shift: Shift = 0.0) -> Tensor:
        self._refuse_singular(shift)
        lam = self._all_eigenvalues()
        s = shift.to(lam)[..., None] if isinstance(shift, Tensor) else shift
        return (lam + s).log().sum(-1)

    @property
    def trace(self) -> float:
        return float(self._all_eigenvalues().sum())


class Diagonal(Spectral):
    """Independent entries, each with its own variance.

    Arguments:
        variance: Variance of every entry; its shape is the shape of a field unless ``shape`` is given.
        shape: Shape of one field, to which ``variance`` is broadcast.
    """

    def __init__(self, variance: Tensor, shape: Sequence[int] | None = None) -> None:
        shape = tuple(variance.shape) if shape is None else tuple(shape)
        super().__init__(variance.expand(shape), shape, variance.dtype)

    def diagonal(self) -> Tensor:
        return self.eigenvalues.clone()

    def scaled(self, factor: float) -> Diagonal:
        return Diagonal((self.eigenvalues * factor).to(torch.float64))


class Isotropic(Spectral):
    r"""One variance for all entries, :math:`C = v I`.

    Arguments:
        variance: :math:`v`.
        shape: Shape of one field.
    """

    def __init__(self, variance: float, shape: Sequence[int]) -> None:
        super().__init__(torch.tensor(float(variance), dtype=torch.float64), shape)
        self.variance = float(variance)

    def diagonal(self) -> Tensor:
        return self.eigenvalues.expand(self.shape).clone()

    def scaled(self, factor: float) -> Isotropic:
        return Isotropic(self.variance * factor, self.shape)


class Dense(Spectral):
    """A covariance given as a matrix; one eigendecomposition in float64, then every call is two products.

    Arguments:
        matrix: Symmetric or Hermitian positive semi-definite matrix (d, d). A Hermitian one acts on complex fields.
        shape: Shape of one field with d entries; default (d,).

    Raises:
        ValueError: if the matrix is not square, not Hermitian, or has an eigenvalue below minus rounding.
    """

    def __init__(self, matrix: Tensor, shape: Sequence[int] | None = None) -> None:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"a dense covariance is a square matrix, got shape {tuple(matrix.shape)}.")
        shape = (len(matrix),) if shape is None else tuple(shape)
        if math.prod(shape) != len(matrix):
            raise ValueError(f"a field of shape {shape} has {math.prod(shape)} entries, the covariance {len(matrix)}.")
        precision = torch.finfo(matrix.dtype).eps if matrix.dtype.is_floating_point or matrix.is_complex() else 0.0
        self.matrix = _wide(matrix.detach())
        if not bool(torch.isfinite(torch.view_as_real(self.matrix) if matrix.is_complex() else self.matrix).all()):
            raise ValueError("the covariance holds NaN or infinite values.")
        largest = float(self.matrix.abs().max())
        skew = float((self.matrix - self.matrix.mH).abs().max())
        if skew > 100 * precision * largest:
            raise ValueError(f"a covariance is symmetric; this one differs from its transpose by {skew:.3g}.")
        self.matrix = (self.matrix + self.matrix.mH) / 2
        lam, q = torch.linalg.eigh(self.matrix)
        rounding = len(lam) * precision * float(lam[-1].abs())
        if float(lam[0]) < -10 * rounding:
            raise ValueError(f"a covariance has no negative eigenvalue; the smallest of this one is {lam[0]:.3g}.")
        self.eigenvectors = q
        # eigenvalues that are zero to the rounding of float64 carry no direction: make them exactly zero
        floor = len(lam) * torch.finfo(torch.float64).eps * float(lam[-1])
        super().__init__(torch.where(lam > floor, lam, 0.0), shape, matrix.dtype.to_real())

    @property
    def complex(self) -> bool:
        return self.matrix.is_complex()

    def _forward(self, x: Tensor) -> Tensor:
        q = self._cast("eigenvectors", x).conj()
        return x.flatten(1) @ q.to(x.dtype) if x.is_complex() else x.flatten(1) @ q

    def _backward(self, c: Tensor, like: Tensor) -> Tensor:
        q = self._cast("eigenvectors", like)
        return (c @ q.to(c.dtype).mT).reshape(like.shape)

    def _rows(self, shift: Shift, x: Tensor) -> Shift:
        return super()._rows(shift, x.flatten(1))

    def _all_eigenvalues(self) -> Tensor:
        return self.eigenvalues

    def diagonal(self) -> Tensor:
        return self.matrix.diagonal().real.reshape(self.shape).clone()

    def dense(self) -> Tensor:
        return self.matrix.clone()

    def scaled(self, factor: float) -> Dense:
        new = object.__new__(Dense)
        new.matrix, new.eigenvectors = self.matrix * factor, self.eigenvectors
        Spectral.__init__(new, self.eigenvalues * factor, self.shape, self.dtype)
        return new


def as_covariance(cov: Covariance | Tensor | float, shape: Sequence[int]) -> Covariance:
    """Reads a dense matrix (d, d) or one variance as the covariance of fields of shape ``shape``.

    Raises:
        ValueError: if the sizes differ.
    """
    if isinstance(cov, Covariance):
        if cov.size != math.prod(shape):
            raise ValueError(f"the covariance acts on fields of shape {cov.shape}, but the field has {tuple(shape)}.")
        return cov
    if isinstance(cov, Tensor) and cov.ndim == 2:
        return Dense(cov, shape)
    if not isinstance(cov, Tensor) or cov.ndim == 0:
        return Isotropic(float(cov), shape)
    raise ValueError(
        f"cov must be a (d, d) matrix, one variance, or a covariance of scidiff.linalg, got shape {tuple(cov.shape)}; "
        "write Diagonal(variance) for independent entries."
    )
