r"""Samplers of deepinv on our posteriors: the same prior, operator, data and number of network calls.

deepinv's denoisers act on fields, ours on states u of unit variance. Fields go in as u, so that no default suffers from
units; the operator is that of the states, :math:`u \mapsto A(\mathrm{decode}(u)) - A(\mathrm{decode}(0))`. Weights are
deepinv's defaults, with three exceptions that favour it: DPS runs without its clip to [-1, 1], which would cut the
field; DiffPIR, made for images in [0, 1], gets ``0.5 + 0.15 u``; and DDRM gets as many levels as are asked for.

References:
    DeepInverse: a Python package for solving imaging inverse problems with deep learning (Tachella et al., 2025),
    arXiv:2505.20160.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.inference import Cost, Ensemble, Posterior
from scidiff.interop.deepinv_export import to_deepinv
from scidiff.noise import GaussianNoise
from scidiff.optional import optional
from scidiff.rng import root_seed

deepinv = optional("deepinv")

__all__ = ["METHODS", "draw"]

DENSE = 1024
"""Numbers of a field up to which the decomposition is computed where the operator has none."""

METHODS = ("dps", "pigdm", "mmps", "ddrm", "diffpir")
CALLS = {"dps": 1000, "ddrm": 64, "mmps": 64}
IMAGE = {"diffpir": (0.5, 0.15)}
"""Offset and factor of the field that a method is shown."""


def draw(method: str, posterior: Posterior, members: int, generator: Generator, calls: int | None = None) -> Ensemble:
    """Members drawn by a sampler of deepinv.

    Arguments:
        method: One of `METHODS`.
        posterior: One observation, one linear operator, white Gaussian noise, an affine prior; all real.
        members: Members.
        generator: Its state seeds deepinv's own; it is not advanced.
        calls: Steps; 1000 for DPS, 64 for DDRM and MMPS, 100 for the others by default.

    Raises:
        TypeError: the posterior has another form, or DDRM gets an operator without a square decomposition on a field
            of more than 1024 numbers.
    """
    part = posterior.likelihoods[0]
    std = part.noise.std if isinstance(part.noise, GaussianNoise) else None
    if len(posterior.likelihoods) > 1 or posterior.batch > 1 or not posterior.linear or part.y.is_complex():
        raise TypeError(f"deepinv's {method} needs one real observation through one linear operator, an affine prior.")
    if not isinstance(std, float | Tensor) or torch.as_tensor(std).numel() != 1:
        raise TypeError(f"deepinv's {method} needs Gaussian noise of one standard deviation.")
    offset, factor = IMAGE.get(method, (0.0, 1.0))
    shape, width = tuple(posterior.shape or ()), float(std) * factor
    operator: Any = _OnStates(posterior, factor)
    data = part.y - operator.at_zero
    physics = to_deepinv(operator, shape, GaussianNoise(width), dtype=posterior.dtype)
    if method == "ddrm" and not isinstance(physics, deepinv.physics.DecomposablePhysics):
        operator = _Rotated(operator, shape, posterior.dtype)
        data = operator.rotate(data)
        physics = to_deepinv(operator, shape, GaussianNoise(width), dtype=posterior.dtype)
    seed, steps = root_seed(generator) % (2**31), calls or CALLS.get(method, 100)
    denoiser = _Denoiser(posterior, offset, factor)
    image = torch.full((1, *shape), offset, dtype=posterior.dtype)
    y = data * factor + operator(image)
    y = y.expand(members, *y.shape[1:]).contiguous()
    operator.calls = 0
    x = _run(method, denoiser, physics, physics.data.unpack(y), (members, *shape), steps, seed, width)
    u = ((x.detach() - offset) / factor).to(posterior.dtype).reshape(members, *shape)
    with torch.no_grad():
        fields = posterior.prior.decode(u)
    cost = Cost(denoiser=denoiser.calls, denoiser_vjp=denoiser.products, operator=operator.calls)
    return Ensemble(fields[:, None], cost, {"library": f"deepinv {deepinv.__version__}", "steps": steps})


class _OnStates:
    r"""The linear part of ``u -> A(decode(u))``, in units of ``factor``; counts forward calls."""

    def __init__(self, posterior: Posterior, factor: float) -> None:
        zero = torch.zeros(1, *(posterior.shape or ()), dtype=posterior.dtype)
        with torch.no_grad():
            base = posterior.prior.decode(zero)
            self.slope = posterior.prior.decode(torch.ones_like(zero)) - base
            self.operator: Any = posterior.likelihoods[0].operator
            self.at_zero = self.operator(base)
            self.origin = self.operator(torch.zeros_like(base))
        self.calls = 0
        if callable(getattr(self.operator, "svd", None)) and bool((self.slope == self.slope.flatten()[0]).all()):
            self.svd = self._svd

    def __call__(self, u: Tensor) -> Tensor:
        self.calls += 1
        return self.operator(self.slope * u) - self.origin

    def adjoint(self, y: Tensor) -> Tensor:
        """Its adjoint."""
        return self.slope * self.operator.adjoint(y)

    def _svd(self) -> tuple[Any, Tensor, Any]:
        U, s, V = self.operator.svd()
        return U, s * self.slope.flatten()[0], V


class _Rotated:
    r"""The same measurement after :math:`U^\top`, padded with zeros to as many numbers as the field has.

    With :math:`A = U S V^\top` this is :math:`S V^\top`; the noise stays white, the padding says nothing.
    """

    def __init__(self, operator: _OnStates, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        n = math.prod(shape)
        if n > DENSE:
            raise TypeError(f"deepinv's ddrm needs an operator with {n} singular values, one per entry of the field.")
        with torch.no_grad():
            rows = operator(torch.eye(n, dtype=dtype).reshape(n, *shape)).flatten(1)
        U, s, Vh = torch.linalg.svd(rows.mT.double(), full_matrices=True)
        self.U, self.Vh, self.shape, self.calls = U.to(dtype), Vh.to(dtype), shape, 0
        self.s = torch.zeros(n, dtype=dtype)
        self.s[: len(s)] = s.to(dtype)

    def rotate(self, y: Tensor) -> Tensor:
        """Measurements in the basis of the singular vectors, (B, *shape)."""
        c = y.flatten(1) @ self.U
        rest = max(0, len(self.s) - c.shape[1])
        c = torch.nn.functional.pad(c, (0, rest))[:, : len(self.s)]  # beyond the field's entries there is noise only
        return c.reshape(-1, *self.shape)

    def __call__(self, u: Tensor) -> Tensor:
        self.calls += 1
        return (self.s * (u.flatten(1) @ self.Vh.mT)).reshape(u.shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """Its adjoint."""
        return ((self.s * y.flatten(1)) @ self.Vh).reshape(y.shape)

    def svd(self) -> tuple[Any, Tensor, Any]:
        """Identity, singular values and the right singular vectors."""
        return _Basis(None, self.shape), self.s.reshape(self.shape), _Basis(self.Vh, self.shape)


class _Basis:
    """Coefficients to fields and back."""

    def __init__(self, rows: Tensor | None, shape: tuple[int, ...]) -> None:
        self.rows, self.shape = rows, shape

    def forward(self, c: Tensor) -> Tensor:
        """Coefficients to a field."""
        return c if self.rows is None else (c.flatten(1) @ self.rows).reshape(c.shape)

    def adjoint(self, x: Tensor) -> Tensor:
        """A field to its coefficients."""
        return x if self.rows is None else (x.flatten(1) @ self.rows.mT).reshape(x.shape)


class _Denoiser(torch.nn.Module):
    """The denoiser of a prior in deepinv's interface, for fields ``offset + factor * u``; counts calls and products."""

    def __init__(self, posterior: Posterior, offset: float, factor: float) -> None:
        super().__init__()
        self.prior, self.offset, self.factor = posterior.prior, offset, factor
        self.calls = self.products = 0

    def forward(self, x: Tensor, sigma: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The denoised field."""
        self.calls += 1
        u = (x - self.offset) / self.factor
        level = torch.as_tensor(sigma, dtype=u.dtype).flatten() / self.factor
        out = self.offset + self.factor * self.prior.denoise(u, level[0] if level.numel() == 1 else level)
        if out.requires_grad:
            out.register_hook(self._count)
        return out

    def _count(self, gradient: Tensor) -> None:
        self.products += 1


def _run(
    method: str, denoiser: Any, physics: Any, y: Tensor, shape: tuple[int, ...], steps: int, seed: int, std: float
) -> Tensor:
    sampling = deepinv.sampling
    if method == "ddrm":
        return sampling.DDRM(denoiser, sigmas=torch.logspace(1.9, -2, steps).tolist())(y, physics, seed=seed)
    if method == "diffpir":
        fidelity = deepinv.optim.data_fidelity.L2()
        return sampling.DiffPIR(denoiser, fidelity, sigma=std, max_iter=steps)(y, physics, seed=seed)
    fidelities: dict[str, Callable[..., Any]] = {
        "dps": sampling.DPSDataFidelity,
        "pigdm": sampling.PiGDMDataFidelity,
        "mmps": sampling.MomentMatchingDataFidelity,
    }
    solver = sampling.DDPMSolver(timesteps=torch.linspace(1, 0.0, steps + 1, dtype=torch.float64), rng=Generator())
    run = sampling.PosteriorDiffusion(
        data_fidelity=fidelities[method](denoiser=denoiser),
        denoiser=denoiser,
        sde=sampling.VariancePreservingDiffusion(alpha=1.0, dtype=torch.float64),
        solver=solver,
        minus_one_one=False,
    )
    return run(y, physics, x_init=shape, seed=seed, denoise_output=False)
