r"""Scores of many forecasts, with constant memory: each is a function of means over cases.

A metric turns every case into a few numbers, `parts`, each a weighted mean over the field; the cases are averaged; the
score is a `value` of the averages. Ratios and roots come last: the root mean square error of a year is not the mean of
365 root mean squares. A `scidiff.metrics.Accumulator` holds the running sums, so the forecasts can come in any batches;
with ``series=True`` also the numbers of every case, from which `scidiff.metrics.block_bootstrap` makes intervals.

Letters: M members :math:`x_m` with mean :math:`\bar x` and variance :math:`s^2` (divisor M - 1), truth :math:`y`,
climatology :math:`c`, :math:`\langle \cdot \rangle` the mean over the field and over cases.

References:
    Why Should Ensemble Spread Match the RMSE of the Ensemble Mean? (Fortin et al., 2014), for the factor (M + 1) / M.
    WeatherBench 2: A benchmark for the next generation of data-driven global weather models (Rasp et al., 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from scidiff.metrics.scores import brier_score, crps
from scidiff.metrics.spectra import power_spectrum

__all__ = [
    "ACC",
    "CRPS",
    "RMSE",
    "Bias",
    "Brier",
    "Case",
    "Energy",
    "Metric",
    "Ranks",
    "Reliability",
    "Spectrum",
    "Spread",
    "SpreadSkill",
]


@dataclass(frozen=True, eq=False)
class Case:
    r"""What a metric sees of a batch of cases.

    Arguments:
        samples: (M, B, \*X), finite; zero where the weight is.
        truth: (B, \*X), likewise.
        weight: (B, \*X), not negative, of sum one over the field.
        climatology: (B, \*X), or None.
        first: Number of cases seen before, for metrics that draw random numbers.
    """

    samples: Tensor
    truth: Tensor
    weight: Tensor
    climatology: Tensor | None
    first: int

    def mean(self, value: Tensor) -> Tensor:
        r"""Weighted mean over the field of (B, \*X): (B,), float64."""
        return (value.double() * self.weight).flatten(1).sum(1)


@dataclass(frozen=True)
class Metric:
    """A score that is a function of means over cases."""

    name: ClassVar[str] = ""
    least: ClassVar[int] = 1

    def parts(self, case: Case) -> dict[str, Tensor]:
        r"""Numbers of every case: (B, \*K) each."""
        raise NotImplementedError

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """The score, from the means of the parts over cases."""
        raise NotImplementedError


@dataclass(frozen=True)
class CRPS(Metric):
    """Mean CRPS, see `scidiff.metrics.crps`; of one member, the mean absolute error.

    Arguments:
        fair: True, False, or a share between 0 and 1 (almost fair); ignored for one member.
    """

    name: ClassVar[str] = "crps"
    fair: float = True

    def parts(self, case: Case) -> dict[str, Tensor]:
        return {"crps": case.mean(crps(case.samples, case.truth, self.fair if len(case.samples) > 1 else False))}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return means["crps"]


@dataclass(frozen=True)
class RMSE(Metric):
    r"""Error of the ensemble mean, :math:`\sqrt{\langle (\bar x - y)^2 \rangle}`."""

    name: ClassVar[str] = "rmse"

    def parts(self, case: Case) -> dict[str, Tensor]:
        return {"error": case.mean((case.samples.mean(0) - case.truth).square())}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return means["error"].sqrt()


@dataclass(frozen=True)
class Bias(Metric):
    r"""Mean error :math:`\langle \bar x - y \rangle`."""

    name: ClassVar[str] = "bias"

    def parts(self, case: Case) -> dict[str, Tensor]:
        return {"bias": case.mean(case.samples.mean(0) - case.truth)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return means["bias"]


@dataclass(frozen=True)
class Spread(Metric):
    r"""Spread of the members, :math:`\sqrt{\langle s^2 \rangle}`."""

    name: ClassVar[str] = "spread"
    least: ClassVar[int] = 2

    def parts(self, case: Case) -> dict[str, Tensor]:
        return {"variance": case.mean(case.samples.var(0))}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return means["variance"].sqrt()


@dataclass(frozen=True)
class SpreadSkill(Metric):
    r"""Predicted over actual error of the ensemble mean: 1 for an exact ensemble, below 1 if it is too sure.

    .. math:: \text{inflated: } \sqrt{\frac{\frac{M + 1}{M} \langle s^2 \rangle}{\langle (\bar x - y)^2 \rangle}},
        \qquad \text{debiased: } \sqrt{\frac{\langle s^2 \rangle}{\langle (\bar x - y)^2 - s^2 / M \rangle}}

    Both have expectation one (before the root) for an exact ensemble of any size. The plain ratio of spread and error
    does not: it is :math:`\sqrt{M / (M + 1)}`.

    Arguments:
        form: ``inflated``, as `scidiff.metrics.spread_skill`, or ``debiased``, as WeatherBench-X and ACE use.
    """

    name: ClassVar[str] = "spread_skill"
    least: ClassVar[int] = 2
    form: Literal["inflated", "debiased"] = "inflated"

    def parts(self, case: Case) -> dict[str, Tensor]:
        members = len(case.samples)
        variance = case.mean(case.samples.var(0))
        error = case.mean((case.samples.mean(0) - case.truth).square())
        if self.form == "inflated":
            return {"predicted": variance * (members + 1) / members, "actual": error}
        return {"predicted": variance, "actual": error - variance / members}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return (means["predicted"] / means["actual"]).sqrt()


@dataclass(frozen=True)
class ACC(Metric):
    r"""Anomaly correlation of the ensemble mean,

    .. math:: \frac{\langle (\bar x - c)(y - c) \rangle}
        {\sqrt{\langle (\bar x - c)^2 \rangle \langle (y - c)^2 \rangle}},

    not centred, averaged over cases before the ratio. Needs a climatology.
    """

    name: ClassVar[str] = "acc"

    def parts(self, case: Case) -> dict[str, Tensor]:
        if case.climatology is None:
            raise ValueError("the anomaly correlation needs a climatology.")
        x, y = case.samples.mean(0) - case.climatology, case.truth - case.climatology
        return {"xy": case.mean(x * y), "xx": case.mean(x * x), "yy": case.mean(y * y)}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return means["xy"] / (means["xx"] * means["yy"]).sqrt()


@dataclass(frozen=True)
class Brier(Metric):
    """Brier score of the event that the field is at least a threshold, see `scidiff.metrics.brier_score`.

    Arguments:
        threshold: In the units of the field.
        fair: Ignored for one member.
    """

    name: ClassVar[str] = "brier"
    threshold: float = 0.0
    fair: bool = True

    def parts(self, case: Case) -> dict[str, Tensor]:
        fair = self.fair and len(case.samples) > 1
        return {"brier": case.mean(brier_score(case.samples, case.truth, self.threshold, fair))}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return means["brier"]


@dataclass(frozen=True)
class Reliability(Metric):
    r"""How often an event happened when it was forecast with a probability: (3, bins).

    Rows: weight of the forecasts in a bin, their mean probability, and the frequency of the event. For a reliable
    ensemble the last two agree.

    Arguments:
        threshold: The event is a field of at least this.
        bins: Of probability, equal in width, the last one closed.
    """

    name: ClassVar[str] = "reliability"
    threshold: float = 0.0
    bins: int = 10

    def parts(self, case: Case) -> dict[str, Tensor]:
        share = (case.samples >= self.threshold).double().mean(0).flatten(1)
        event = (case.truth >= self.threshold).double().flatten(1)
        weight = case.weight.flatten(1)
        index = (share * self.bins + 1e-9).long().clamp(max=self.bins - 1)
        zero = share.new_zeros(len(share), self.bins)
        return {
            "weight": zero.scatter_add(1, index, weight),
            "share": zero.scatter_add(1, index, weight * share),
            "event": zero.scatter_add(1, index, weight * event),
        }

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([means["weight"], means["share"] / means["weight"], means["event"] / means["weight"]], -2)


@dataclass(frozen=True)
class Ranks(Metric):
    r"""Rank histogram: share of the field where the truth has rank 0 to M, (M + 1,); flat for an exact ensemble.

    Ties are broken at random. The random numbers of a case depend on its number, not on the batch it came in.

    Arguments:
        seed: Of the random numbers.
    """

    name: ClassVar[str] = "ranks"
    seed: int = 0

    def parts(self, case: Case) -> dict[str, Tensor]:
        x, y = case.samples, case.truth
        below, equal = (x < y).sum(0), (x == y).sum(0)
        noise = torch.empty(y.shape)
        for number, row in enumerate(noise):
            seed = (self.seed * 1_000_003 + case.first + number) % 2**63
            row.copy_(torch.rand(row.shape, generator=Generator().manual_seed(seed)))
        rank = below + (noise.to(y.device) * (equal + 1)).long().clamp(max=equal)
        zero = case.weight.new_zeros(len(y), len(x) + 1)
        return {"ranks": zero.scatter_add(1, rank.flatten(1), case.weight.flatten(1))}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return means["ranks"]


@dataclass(frozen=True)
class Energy(Metric):
    r"""Energy score with the norm :math:`\|x\|^2 = \langle x^2 \rangle` weighted over the field; fair.

    .. math:: \frac1M \sum_m \|x_m - y\| - \frac{1}{2 M (M - 1)} \sum_{m, n} \|x_m - x_n\|

    The norm is a mean, not a sum, so that the score has the size of an error and does not grow with the grid.
    """

    name: ClassVar[str] = "energy"

    def parts(self, case: Case) -> dict[str, Tensor]:
        root = case.weight.sqrt()
        x, y = (case.samples * root).flatten(2).transpose(0, 1), (case.truth * root).flatten(1)[:, None]
        members = x.shape[1]
        error = (x - y).norm(dim=-1).mean(1)
        exact = "donot_use_mm_for_euclid_dist"
        pairs = torch.stack([torch.cdist(row, row, compute_mode=exact).sum() for row in x])
        return {"energy": error - pairs / (2 * members * max(members - 1, 1))}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return means["energy"]


@dataclass(frozen=True)
class Spectrum(Metric):
    """Isotropic power spectra of members and of the truth: (2, K), see `scidiff.metrics.power_spectrum`.

    Arguments:
        spacing: Grid spacing, one number or (dy, dx); the field is taken as periodic, or windowed by ``window``.
        window: ``hann`` removes what the edges of a field that is not periodic add.
    """

    name: ClassVar[str] = "spectrum"
    spacing: float | tuple[float, float] = 1.0
    window: Literal["none", "hann"] = "none"

    def parts(self, case: Case) -> dict[str, Tensor]:
        members = torch.stack([self._power(x) for x in case.samples]).mean(0)
        return {"members": members, "truth": self._power(case.truth)}

    def _power(self, x: Tensor) -> Tensor:
        x = x.double()
        if self.window == "hann":
            x = x - x.mean((-2, -1), keepdim=True)
            for dim in (-2, -1):
                taper = torch.hann_window(x.shape[dim], periodic=False, dtype=x.dtype, device=x.device)
                taper = taper / taper.square().mean().sqrt()
                x = x * (taper[:, None] if dim == -2 else taper)
        power = power_spectrum(x, self.spacing)[1]
        return power.mean(tuple(range(1, power.ndim - 1))) if power.ndim > 2 else power

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([means["members"], means["truth"]], -2)
