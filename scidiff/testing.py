r"""Checks for your own parts: operators, priors, noises and samplers.

Each check raises an AssertionError that holds the numbers when the part is wrong, and returns what it measured when it
is right. All are deterministic for a given generator.

- `check_adjoint`: :math:`\mathrm{Re}\langle A x, y\rangle = \mathrm{Re}\langle x, A^\ast y\rangle`, and linearity.
- `check_vjp`: gradients against finite differences; finds forward models whose gradient is silently zero.
- `check_batch_independence`: a row's answer does not depend on the other rows.
- `check_unit_independence`: the same problem in other units gives the same ensemble in those units.
- `check_posterior`: an ensemble against the exact posterior: mean, total variance, coverage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from scidiff.inference import Ensemble, Posterior
from scidiff.protocols import LinearOperator, Operator, PosteriorSampler

__all__ = [
    "ExactPosterior",
    "PosteriorReport",
    "check_adjoint",
    "check_batch_independence",
    "check_posterior",
    "check_unit_independence",
    "check_vjp",
    "compare_with_exact",
]


def _randn(shape: Sequence[int], dtype: torch.dtype, generator: Generator | None) -> Tensor:
    generator = generator if generator is not None else Generator().manual_seed(0)
    return torch.randn(tuple(shape), generator=generator, dtype=dtype, device=generator.device)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of every row, in double precision."""
    return (a.flatten(1).to(torch.complex128).conj() * b.flatten(1)).sum(-1).real


def _norm(a: Tensor) -> Tensor:
    return _inner(a, a).sqrt()


def _require(condition: bool, message: str) -> None:
    """Raises AssertionError, also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


def _precision(dtype: torch.dtype, factor: float) -> float:
    return factor * torch.finfo(dtype).eps ** 0.9


def check_adjoint(
    operator: LinearOperator,
    x_shape: Sequence[int],
    *,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    tolerance: float | None = None,
    generator: Generator | None = None,
) -> float:
    r"""Checks that ``operator.adjoint`` is the adjoint, and that the operator is linear and repeatable.

    Arguments:
        operator: The operator.
        x_shape: Shape of one field (\*X).
        batch: Number of random fields.
        dtype: Type of the fields, complex for complex fields.
        tolerance: Largest accepted error relative to :math:`\|Ax\|\|y\|`; default a few roundings of ``dtype``.
        generator: Source of the random fields; a fixed one by default.

    Returns:
        The largest relative error of the inner products.

    Raises:
        AssertionError: if the adjoint is wrong, answers in another shape, or the operator is not linear.
    """
    name = type(operator).__name__
    generator = generator if generator is not None else Generator().manual_seed(0)
    tolerance = _precision(dtype, 1e3) if tolerance is None else tolerance
    x = _randn((batch, *x_shape), dtype, generator)
    other = _randn((batch, *x_shape), dtype, generator)
    z = operator(x)
    _require(torch.equal(z, operator(x)), f"{name} gives two answers for the same field: the call changes its state.")
    combined = operator(other - 0.7 * x)
    error = _norm(combined - (operator(other) - 0.7 * z)) / _norm(combined).clamp_min(1e-300)
    _require(float(error.max()) <= tolerance, f"{name} is not linear: relative error {float(error.max()):.3g}.")

    y = _randn(z.shape, z.dtype, generator)
    back = operator.adjoint(y)
    _require(back.shape == x.shape, f"{name}.adjoint gives shape {tuple(back.shape)}, fields are {tuple(x.shape)}.")
    _require(
        back.is_complex() == x.is_complex(),
        f"{name}.adjoint gives {back.dtype} for fields of {x.dtype}; the adjoint on real fields is the real part.",
    )
    scale = _norm(z) * _norm(y)
    _require(bool((scale > 0).all()), f"{name} maps random fields to zero.")
    relative = float(((_inner(z, y) - _inner(x, back)).abs() / scale).max())
    _require(
        relative <= tolerance,
        f"{name}.adjoint is not the adjoint: Re<Ax, y> = {_inner(z, y).tolist()}, "
        f"Re<x, A'y> = {_inner(x, back).tolist()}, relative error {relative:.3g} > {tolerance:.3g}.",
    )
    return relative


def check_vjp(
    operator: Operator,
    x: Tensor,
    *,
    probes: int = 3,
    tolerance: float = 1e-6,
    generator: Generator | None = None,
) -> float:
    r"""Checks gradients of an operator at ``x`` against central differences of fourth order, in double precision.

    Both autograd's vector-Jacobian product and, if present, ``operator.vjp(x, v)`` must satisfy
    :math:`\mathrm{Re}\langle v, J d\rangle = \mathrm{Re}\langle J^\ast v, d\rangle` for random ``v`` and ``d``.

    Arguments:
        operator: A differentiable operator.
        x: Fields (B, \*X) at which to check; made float64 or complex128.
        probes: Number of random pairs.
        tolerance: Largest accepted error relative to :math:`\|v\|\|J d\|`.
        generator: Source of the random pairs; a fixed one by default.

    Returns:
        The largest relative error.

    Raises:
        TypeError: if the operator declares ``differentiable = False``.
        AssertionError: if no gradient arrives (a forward model under ``no_grad``), or a wrong one.
    """
    name = getattr(operator, "__name__", type(operator).__name__)
    if not getattr(operator, "differentiable", True):
        raise TypeError(f"{name} declares differentiable = False, so it has no gradient to check.")
    generator = generator if generator is not None else Generator().manual_seed(0)
    x = x.detach().to(torch.complex128 if x.is_complex() else torch.float64)
    size = float((torch.view_as_real(x) if x.is_complex() else x).square().mean().sqrt()) or 1.0
    h = size * torch.finfo(torch.float64).eps ** 0.2
    worst = 0.0
    for _ in range(probes):
        d = _randn(x.shape, x.dtype, generator)
        with torch.no_grad():
            near = operator(x + h * d) - operator(x - h * d)
            far = operator(x + 2 * h * d) - operator(x - 2 * h * d)
        jd = (8 * near - far) / (12 * h)
        v = _randn(jd.shape, jd.dtype, generator)
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            z = operator(leaf)
            _require(
                z.requires_grad,
                f"no gradient flows through {name}: its output does not depend on its input for autograd. "
                "It runs under no_grad, or detaches; remove that, or declare `differentiable = False`.",
            )
            found = {"autograd": torch.autograd.grad(z, leaf, v)[0]}
        if callable(getattr(operator, "vjp", None)):
            found["vjp"] = operator.vjp(x, v)  # type: ignore[attr-defined]
        scale = (_norm(v) * _norm(jd)).clamp_min(1e-300)
        for source, gradient in found.items():
            _require(gradient.shape == x.shape, f"{source} of {name} has shape {tuple(gradient.shape)}.")
            expected, got = _inner(v, jd), _inner(gradient, d)
            relative = float(((expected - got).abs() / scale).max())
            _require(
                relative <= tolerance,
                f"{source} of {name} is wrong: finite differences {expected.tolist()}, gradient {got.tolist()}, "
                f"relative error {relative:.3g} > {tolerance:.3g}.",
            )
            worst = max(worst, relative)
    return worst


def check_batch_independence(
    f: Callable[..., Tensor], *inputs: Tensor, tolerance: float | None = None, contrast: float = 30.0
) -> float:
    r"""Checks that each row of ``f(*inputs)`` is the same alone, in the batch, and beside much larger rows.

    Arguments:
        f: Function of tensors whose first dimension is the batch: an operator, a denoiser, one step of a sampler.
        inputs: Tensors (B, ...) with B >= 2, rows different from each other.
        tolerance: Largest accepted difference relative to the row's norm; default a few roundings of the type.
        contrast: Factor by which the other rows are multiplied in the last comparison; 1 leaves it out, for functions
            that do not accept such values.

    Returns:
        The largest relative difference.

    Raises:
        AssertionError: if rows influence each other.
    """
    batches = {len(x) for x in inputs}
    if len(batches) != 1 or max(batches) < 2:
        raise ValueError(f"all inputs need the same batch of at least 2 rows, got {sorted(batches)}.")
    batch, together = batches.pop(), f(*inputs)
    _require(len(together) == batch, f"f maps {batch} rows to {len(together)}.")
    tolerance = _precision(together.dtype, 1e3) if tolerance is None else tolerance
    worst = 0.0
    for row in range(batch):
        alone = f(*[x[row : row + 1] for x in inputs])
        others = torch.arange(batch) != row
        beside = []
        for x in inputs:
            scaled = x.clone()
            scaled[others.to(x.device)] *= contrast
            beside.append(scaled)
        for what, got in (("alone", alone), ("beside larger rows", f(*beside)[row : row + 1])):
            reference = together[row : row + 1]
            difference = float((_norm(got - reference) / _norm(reference).clamp_min(1e-300)).max())
            _require(
                difference <= tolerance,
                f"row {row} changes by {difference:.3g} of its norm when computed {what}: rows are coupled. "
                "Reduce over all but the first dimension: `e.flatten(1).square().sum(-1)`.",
            )
            worst = max(worst, difference)
    return worst


def check_unit_independence(
    sampler: PosteriorSampler,
    build: Callable[[float], Posterior],
    *,
    factors: Sequence[float] = (1e-6, 1e3),
    members: int = 4,
    tolerance: float = 1e-3,
    convert: Callable[[Tensor, float], Tensor] = lambda samples, factor: samples / factor,
    generator: Generator | None = None,
) -> float:
    r"""Checks that a problem written in other units gives the same ensemble in those units.

    Arguments:
        sampler: The sampler, or any function of (posterior, members, generator=...) that returns an ensemble.
        build: ``build(factor)`` is one problem whose field, operator, noise and measurement are in units in which
            all values of the field are ``factor`` times those of ``build(1.0)``.
        factors: Changes of units to try.
        members: Members to draw.
        tolerance: Largest accepted difference relative to the root mean square deviation from the ensemble mean.
        convert: Takes samples of ``build(factor)`` back to the units of ``build(1.0)``; give your own for units with
            an offset (kelvin and degrees Celsius).
        generator: Source of randomness, equal for all draws; a fixed one by default.

    Returns:
        The largest relative difference.

    Raises:
        AssertionError: if the ensembles differ.
    """
    state = (generator if generator is not None else Generator().manual_seed(0)).get_state()

    def draw(factor: float) -> Tensor:
        fresh = Generator().set_state(state)
        return sampler(build(factor), members=members, generator=fresh).samples

    reference = draw(1.0)
    spread = float(_norm((reference - reference.mean(0)).flatten()[None]))
    _require(spread > 0, "all members are equal, so the ensemble has no scale to compare with.")
    worst = 0.0
    for factor in factors:
        difference = float(_norm((convert(draw(factor), factor) - reference).flatten()[None])) / spread
        _require(
            difference <= tolerance,
            f"in units {factor:g} times as fine the ensemble differs by {difference:.3g} of its spread (accepted "
            f"{tolerance:.3g}): a step size, clipping or constant depends on the units.",
        )
        worst = max(worst, difference)
    return worst


class ExactPosterior(Protocol):
    """What `check_posterior` needs of the truth; `GaussianPrior` and `GaussianMixturePrior` have it."""

    scale: float

    @property
    def variance(self) -> Tensor: ...

    @property
    def covariance(self) -> Tensor: ...

    def encode(self, x: Tensor) -> Tensor: ...

    def marginal_cdf(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PosteriorReport:
    r"""How an ensemble compares with the exact posterior.

    Arguments:
        mean_error: Root mean square over entries of (ensemble mean - exact mean) / exact standard deviation.
        mean_floor: What ``members`` exact draws have on average, :math:`1/\sqrt{M}`.
        trace_ratio: Trace of the ensemble covariance (factor 1/(M-1)) over the exact trace.
        trace_floor: Standard deviation of the trace ratio of ``members`` exact draws of a Gaussian.
        coverage: Fraction of all entries of all members inside the exact central interval of their marginal; exact
            draws have ``level`` on average.
        level: Probability of that interval.
        members: Number of members.
    """

    mean_error: float
    mean_floor: float
    trace_ratio: float
    trace_floor: float
    coverage: float
    level: float
    members: int

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"mean error {self.mean_error:.4f} (floor {self.mean_floor:.4f}), trace ratio {self.trace_ratio:.4f} "
            f"(+- {self.trace_floor:.4f}), {self.level:.0%} coverage {self.coverage:.4f}, {self.members} members"
        )


def compare_with_exact(samples: Tensor, exact: ExactPosterior, level: float = 0.9) -> PosteriorReport:
    r"""Compares draws (M, \*X) with the exact posterior; complex entries count as two real ones."""
    members = len(samples)
    if members < 2:
        raise ValueError("a comparison needs at least two members.")
    samples = samples.to(torch.complex128 if samples.is_complex() else torch.float64)
    u = exact.encode(samples)  # centred and scaled: exact mean 0, no loss of digits far from zero
    variance = exact.variance.to(u) / exact.scale**2
    mean = u.mean(0)
    trace = variance.sum()
    eigenvalues = exact.covariance.to(u).square().sum() / exact.scale**4
    cdf = exact.marginal_cdf(samples)
    tail = (1 - level) / 2
    return PosteriorReport(
        mean_error=float((mean.square() / variance).mean().sqrt()),
        mean_floor=members**-0.5,
        trace_ratio=float((u - mean).square().sum() / (members - 1) / trace),
        trace_floor=math.sqrt(2 * float(eigenvalues) / (members - 1)) / float(trace),
        coverage=float(((cdf >= tail) & (cdf <= 1 - tail)).to(torch.float64).mean()),
        level=level,
        members=members,
    )


def check_posterior(
    sampler: PosteriorSampler,
    posterior: Posterior,
    exact: ExactPosterior | Sequence[ExactPosterior],
    *,
    members: int = 512,
    mean_error: float = 0.06,
    trace_ratio: tuple[float, float] = (0.97, 1.03),
    coverage: tuple[float, float] = (0.885, 0.915),
    level: float = 0.9,
    generator: Generator | None = None,
) -> PosteriorReport:
    r"""Draws an ensemble and compares it with the exact posterior.

    Arguments:
        sampler: The sampler, or any function of (posterior, members, generator=...) that returns an ensemble.
        posterior: The problem, B fields.
        exact: Its exact posterior, ``prior.condition(operator, noise, y)``; a sequence of B of them if B > 1.
        members: Members to draw.
        mean_error: Largest accepted error of the mean in posterior standard deviations (root mean square).
        trace_ratio: Accepted range of the ratio of total variances.
        coverage: Accepted range of the fraction of entries in the central interval.
        level: Probability of the central interval.
        generator: Source of randomness; a fixed one by default.

    Returns:
        The report; of B fields the average.

    Raises:
        AssertionError: if a number is outside its range.
    """
    generator = generator if generator is not None else Generator().manual_seed(0)
    truths = list(exact) if isinstance(exact, Sequence) else [exact]
    if len(truths) != posterior.batch:
        raise ValueError(f"the problem has {posterior.batch} fields, but {len(truths)} exact posteriors were given.")
    ensemble: Ensemble = sampler(posterior, members=members, generator=generator)
    _require(len(ensemble.samples) == members, f"{members} members were asked for, {len(ensemble.samples)} came.")
    reports = [compare_with_exact(ensemble.samples[:, b], truth, level) for b, truth in enumerate(truths)]
    averages = {name: sum(r.as_dict()[name] for r in reports) / len(reports) for name in reports[0].as_dict()}
    report = PosteriorReport(**{**averages, "members": members})
    wrong = []
    if not report.mean_error <= mean_error:
        wrong.append(f"mean error {report.mean_error:.4f} > {mean_error}")
    if not trace_ratio[0] <= report.trace_ratio <= trace_ratio[1]:
        wrong.append(f"trace ratio {report.trace_ratio:.4f} outside {list(trace_ratio)}")
    if not coverage[0] <= report.coverage <= coverage[1]:
        wrong.append(f"coverage {report.coverage:.4f} outside {list(coverage)}")
    _require(not wrong, f"not the exact posterior: {'; '.join(wrong)}. All numbers: {report}.")
    return report
