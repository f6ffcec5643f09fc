r"""The log density of a field under any prior: probability-flow ODE, evidence lower bound, bits per dimension.

Along the probability-flow ODE in :math:`\tau = \ln\sigma` the density of the noised state changes by the divergence,

.. math:: \frac{du}{d\tau} = u - D(u, \sigma), \qquad
          \ln p_{\sigma_{min}}(u) = \ln p_{\sigma_{max}}(u_{\sigma_{max}})
          + \int \bigl(d - \mathrm{tr}\,\partial D/\partial u\bigr)\,d\tau ,

from the field at :math:`\sigma_{min}` to :math:`\sigma_{max}`, where the state is taken for Gaussian with variance
:math:`1 + \sigma_{max}^2`. The trace is exact (one vector-Jacobian product per number of the field) or Hutchinson's
estimate :math:`e^\top (\partial D/\partial u)\,e` with random signs e, unbiased and with a standard error.

The evidence lower bound needs no derivatives. With a Gaussian of deviation :math:`\sigma_{min}` around the last state,

.. math:: \ln p(u_0) \ge -\tfrac d2 \ln(2\pi e\,\sigma_{min}^2)
          - \mathrm{KL}\bigl(\mathcal{N}(u_0, \sigma_{max}^2)\,\|\,\mathcal{N}(0, 1 + \sigma_{max}^2)\bigr)
          - \int E\,\| u_0 - D(u_0 + \sigma\epsilon, \sigma) \|^2 \,\frac{d\tau}{\sigma^2} .

Both are densities of the field plus noise of about :math:`\sigma_{min}`, in physical units: decoding adds
:math:`-\ln|\det \partial x/\partial u|`. With the denoiser of a law whose numbers have variances well above
:math:`\sigma_{min}^2`, the first equals the law's density and the second stays below it by :math:`\sigma_{min}^2/2` in
mean over the law, for each number and unit of its precision (inverse variance).

References:
    FFJORD (Grathwohl et al., 2019), arXiv:1810.01367 (Hutchinson's estimate along an ODE). Score-based generative
    modeling through stochastic differential equations (Song et al., 2021), arXiv:2011.13456, section 4.3. Variational
    diffusion models (Kingma et al., 2021), arXiv:2107.00630, equation 15. Improved techniques for maximum likelihood
    estimation for diffusion ODEs (Zheng et al., 2023), arXiv:2305.03935 (truncated-normal dequantisation). A family of
    embedded Runge-Kutta formulae (Dormand and Prince, 1980), doi:10.1016/0771-050X(80)90013-3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from scidiff.errors import NumericalError
from scidiff.priors.gaussian import to_real
from scidiff.protocols import Prior
from scidiff.rng import Streams, root_seed

__all__ = ["Dequantiser", "LogProb", "TruncatedNormal", "Uniform", "bits_per_dimension", "elbo", "log_prob"]

EXACT = 256
"""Largest number of reals in a field for which the exact trace is the default."""

# Dormand and Prince, 1980, table 2: nodes are not needed beside the sums of the rows; the last row is the step.
_ROWS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True)
class LogProb:
    """Log densities or bits per dimension, one per field.

    Arguments:
        value: The estimate, (B,).
        standard_error: Of its random part, (B,); zero where nothing is random.
        calls: Denoiser calls spent on each field, (B,).
    """

    value: Tensor
    standard_error: Tensor
    calls: Tensor


def log_prob(
    prior: Prior,
    x: Tensor,
    probes: int | None = None,
    generator: Generator | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 1000,
) -> LogProb:
    r"""Log density of the fields ``x`` in physical units by the probability-flow ODE.

    Every field has steps of its own: its result does not depend on the others in the batch.

    Arguments:
        prior: Law whose ``decode`` works number by number.
        x: Fields (B, \*X).
        probes: Random vectors of Hutchinson's estimate, at least 2; 0 for the exact trace. None takes the exact trace
            up to `EXACT` numbers and 16 vectors beyond.
        generator: Source of the random vectors.
        sigma_min: Noise level of the field.
        sigma_max: Noise level where the state is taken for Gaussian.
        rtol: Relative tolerance of the solver, for the state and for the density per dimension.
        atol: Absolute tolerance of the solver, in units of ``u`` and of nats per dimension.
        max_steps: Largest number of steps, rejected ones included.

    Raises:
        NumericalError: the state left the finite numbers or the steps did not suffice; names the noise level.
    """
    _check_levels(sigma_min, sigma_max)
    u = prior.encode(x).detach()
    d = u[0].numel()
    probes = (0 if d <= EXACT else 16) if probes is None else probes
    if probes < 0 or probes == 1:
        raise ValueError(f"probes must be 0 (exact) or at least 2, for a standard error; got {probes}.")
    signs = None
    if probes:
        rand = Streams(root_seed(generator), (0,), len(u)).rand((probes, *u.shape[1:]))
        signs = torch.where(rand < 0.5, -1.0, 1.0).to(u)

    def rate(rows: Tensor, u: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        denoised, trace = _traced(prior.denoise, u, tau.exp().to(u.dtype), None if signs is None else signs[rows])
        return u - denoised, d - trace

    end, change, calls = _integrate(rate, u, max(probes, 1), math.log(sigma_min), math.log(sigma_max), rtol, atol,
                                    max_steps)  # fmt: skip
    variance = 1 + sigma_max**2
    last = -0.5 * (end.double().flatten(1).square().sum(1) / variance + d * math.log(2 * math.pi * variance))
    error = change.std(1) / math.sqrt(probes) if probes else torch.zeros_like(last)
    return LogProb(last + change.mean(1) - _log_volume(prior, u), error, calls)


def _check_levels(low: float, high: float) -> None:
    if not 0 < low < high < math.inf:
        raise ValueError(f"noise levels must satisfy 0 < sigma_min < sigma_max, got {low} and {high}.")


def _traced(
    denoise: Callable[[Tensor, Tensor], Tensor], u: Tensor, sigma: Tensor, signs: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The denoiser and the trace of its Jacobian, exact (B, 1) or one estimate per vector of signs (B, K)."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        out = denoise(u, sigma)
    if signs is None:
        flat = out.flatten(1)
        total = torch.zeros(len(u), dtype=torch.float64, device=u.device)
        for i in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, i].sum(), u, retain_graph=True)
            total = total + row.flatten(1)[:, i]
        return out.detach(), total[:, None]
    traces = []
    for e in signs.unbind(1):
        (row,) = torch.autograd.grad(out, u, e, retain_graph=True)
        traces.append((row * e).flatten(1).double().sum(1))
    return out.detach(), torch.stack(traces, 1)


def _integrate(
    rate: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    u: Tensor,
    width: int,
    start: float,
    end: float,
    rtol: float,
    atol: float,
    max_steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runge-Kutta 5(4) of (u, change) from ``start`` to ``end`` with a step for every row; rows that arrived rest.

    Returns the states, the changes (B, width) and the number of calls (B,).
    """
    d, count = u[0].numel(), len(u)
    u = u.clone()
    change = torch.zeros(count, width, dtype=torch.float64, device=u.device)
    calls = torch.zeros(count, dtype=torch.long, device=u.device)
    tau = torch.full((count,), start, dtype=torch.float64, device=u.device)
    h = torch.full_like(tau, (end - start) / 100)
    rows = torch.arange(count, device=u.device)
    first_u, first_c = rate(rows, u, tau)
    calls += 1
    for _ in range(max_steps):
        rows = (tau < end).nonzero()[:, 0]
        if not len(rows):
            return u, change, calls
        at, step = tau[rows], torch.minimum(h[rows], end - tau[rows])
        us, cs = [first_u[rows]], [first_c[rows]]
        new_u, new_c = _step(functools.partial(rate, rows), u[rows], change[rows], at, step, us, cs)
        calls[rows] += len(_ROWS)
        off_u, off_c = _beside(step, u) * _sum(_ERROR, us), step[:, None] * _sum(_ERROR, cs) / d
        scale_u = atol + rtol * torch.maximum(u[rows].abs(), new_u.abs())
        scale_c = atol + rtol * new_c.abs() / d
        error = torch.maximum(
            (off_u / scale_u).flatten(1).double().square().mean(1), (off_c / scale_c).square().amax(1)
        ).sqrt()
        bad = ~torch.isfinite(error)
        if bool(bad.any()):
            raise NumericalError(
                f"log_prob: the state is not finite at noise level {float(at[bad][0].exp()):.4g}; check the prior."
            )
        good = error <= 1
        done = rows[good]
        u[done], change[done] = new_u[good], new_c[good]
        first_u[done], first_c[done] = us[-1][good], cs[-1][good]
        tau[done] = torch.where(step[good] >= end - at[good], end, at[good] + step[good])
        h[rows] = step * (0.9 * error.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0)
    raise NumericalError(
        f"log_prob: {max_steps} steps reached noise level {float(tau.min().exp()):.4g} only; raise rtol and atol, "
        "use double precision, or check that the denoiser is smooth."
    )


def _step(
    rate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    u: Tensor,
    change: Tensor,
    tau: Tensor,
    h: Tensor,
    us: list[Tensor],
    cs: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """One step of Dormand and Prince; ``us`` and ``cs`` hold the rates at its start and receive the six others."""
    new_u, new_c = u, change
    for row in _ROWS:
        new_u = u + _beside(h, u) * _sum(row, us)
        new_c = change + h[:, None] * _sum(row, cs)
        du, dc = rate(new_u, tau + h * sum(row))
        us.append(du)
        cs.append(dc)
    return new_u, new_c


def _beside(value: Tensor, u: Tensor) -> Tensor:
    return value.to(u.dtype).reshape(-1, *(1,) * (u.ndim - 1))


def _sum(weights: tuple[float, ...], parts: list[Tensor]) -> Tensor:
    total = weights[0] * parts[0]
    for w, part in zip(weights[1:], parts[1:], strict=True):
        total = total + w * part
    return total


def _log_volume(prior: Prior, u: Tensor) -> Tensor:
    r""":math:`\ln|\det \partial x / \partial u|` of a ``decode`` that works number by number, (B,)."""
    one = torch.ones_like(u)
    signs = one.flatten(1).clone()
    signs[:, 1::2] = -1  # a second direction tells whether numbers mix
    signs = signs.reshape(u.shape)
    along, other = (to_real(torch.func.jvp(prior.decode, (u,), (e,))[1]) for e in (one, signs))
    if along.shape != u.shape or not bool(torch.isclose(other * signs, along, rtol=1e-4, atol=0).all()):
        raise ValueError("decode mixes the numbers of the state (a latent prior?), so its volume is not known here.")
    return along.double().abs().log().flatten(1).sum(1)


@torch.no_grad()
def elbo(
    prior: Prior,
    x: Tensor,
    draws: int = 128,
    generator: Generator | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> LogProb:
    r"""Evidence lower bound on the log density of the fields ``x`` in physical units, an unbiased estimate.

    The range of :math:`\ln\sigma` is cut into ``draws / 2`` equal strata with two draws each, whose difference gives
    the standard error.

    Arguments:
        prior: Law whose ``decode`` works number by number.
        x: Fields (B, \*X).
        draws: Denoiser calls per field, an even number.
        generator: Source of noise levels and noise.
        sigma_min: Smallest noise level, and deviation of the field around the last state.
        sigma_max: Largest noise level.
    """
    _check_levels(sigma_min, sigma_max)
    if draws < 2 or draws % 2:
        raise ValueError(f"draws must be even and at least 2, for a standard error; got {draws}.")
    u = prior.encode(x)
    d, strata, streams = u[0].numel(), draws // 2, Streams(root_seed(generator), (0,), len(u))
    low, width = math.log(sigma_min), math.log(sigma_max / sigma_min)
    total = torch.zeros(len(u), dtype=torch.float64, device=u.device)
    variance = torch.zeros_like(total)
    for k in range(strata):
        pair = []
        for _ in range(2):
            place = streams.rand((), u.device, torch.float64)
            sigma = torch.exp(low + (k + place) / strata * width).to(u.dtype)
            level = _beside(sigma, u)
            error = (u - prior.denoise(u + level * streams.randn_like(u), sigma)) / level
            pair.append(width * error.double().flatten(1).square().sum(1))
        total += (pair[0] + pair[1]) / 2 / strata
        variance += (pair[0] - pair[1]).square() / 4 / strata**2
    prior_variance = 1 + sigma_max**2
    size = u.double().flatten(1).square().sum(1)
    kl = 0.5 * (d * math.log(prior_variance / sigma_max**2) + (d * sigma_max**2 + size) / prior_variance - d)
    value = -0.5 * d * math.log(2 * math.pi * math.e * sigma_min**2) - kl - total
    return LogProb(value - _log_volume(prior, u), variance.sqrt(), torch.full_like(total, draws, dtype=torch.long))


class Dequantiser(Protocol):
    """Spreads a quantised field over its cell; returns the noise (B, ``*X``) and its log density (B,)."""

    def __call__(self, x: Tensor, streams: Streams) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Uniform:
    """Uniform noise in the cell of width ``width`` (physical units) around each quantised number."""

    width: float

    def __call__(self, x: Tensor, streams: Streams) -> tuple[Tensor, Tensor]:
        r"""Noise (B, \*X) and its log density (B,)."""
        shape, rows = _real(x).shape, len(x)
        noise = (streams.rand(shape[1:], x.device, torch.float64) - 0.5) * self.width
        log = -math.prod(shape[1:]) * math.log(self.width)
        return _like(noise, x), torch.full((rows,), log, dtype=torch.float64, device=x.device)


@dataclass(frozen=True)
class TruncatedNormal:
    """Gaussian noise of deviation ``std`` cut to the cell of width ``width``, both in physical units.

    With ``std`` the smallest noise level (times the field's standard deviation) it is the noise that the prior knows.
    """

    width: float
    std: float

    def __call__(self, x: Tensor, streams: Streams) -> tuple[Tensor, Tensor]:
        r"""Noise (B, \*X) and its log density (B,)."""
        reach = self.width / self.std / 2
        inside = math.erf(reach / math.sqrt(2))
        rand = streams.rand(_real(x).shape[1:], x.device, torch.float64)
        z = torch.special.ndtri((1 - inside) / 2 + inside * rand).clamp(-reach, reach)  # rounding may leave the cell
        log = -0.5 * z.square() - math.log(self.std * math.sqrt(2 * math.pi) * inside)
        return _like(z * self.std, x), log.flatten(1).sum(1)


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def _like(noise: Tensor, x: Tensor) -> Tensor:
    noise = noise.to(_real(x).dtype)
    return torch.view_as_complex(noise) if x.is_complex() else noise


def bits_per_dimension(
    prior: Prior,
    x: Tensor,
    dequantise: Dequantiser,
    draws: int = 8,
    generator: Generator | None = None,
    estimate: Callable[[Prior, Tensor, Generator], LogProb] | None = None,
) -> LogProb:
    r"""Bits per real number that a code built on the prior spends on quantised fields; an upper bound.

    .. math:: -\frac{1}{d \ln 2}\, E_{\delta \sim q}\,\bigl[\ln p(x + \delta) - \ln q(\delta)\bigr]
              \;\ge\; -\frac{1}{d} \log_2 P(\text{cell of } x)

    Arguments:
        prior: Law of the fields.
        x: Quantised fields (B, \*X), in the centres of their cells.
        dequantise: `Uniform` or `TruncatedNormal`.
        draws: Draws of :math:`\delta`, at least 2.
        generator: Source of all random numbers.
        estimate: ``estimate(prior, x, generator)``; None takes `log_prob` with its defaults. Pass `elbo` with
            `functools.partial` for large networks.
    """
    if draws < 2:
        raise ValueError(f"draws must be at least 2, for a standard error; got {draws}.")
    root = root_seed(generator)
    streams = Streams(root, (0,), len(x))
    seeds = Generator().manual_seed(root)
    values, calls = [], torch.zeros(len(x), dtype=torch.long, device=x.device)
    for _ in range(draws):
        noise, log_q = dequantise(x, streams)
        inner = Generator().manual_seed(int(torch.randint(2**62, (), generator=seeds)))
        found = log_prob(prior, x + noise, generator=inner) if estimate is None else estimate(prior, x + noise, inner)
        values.append((log_q - found.value) / (_real(x)[0].numel() * math.log(2)))
        calls = calls + found.calls
    bits = torch.stack(values)
    return LogProb(bits.mean(0), bits.std(0) / math.sqrt(draws), calls)
