r"""Running means of metrics over cases; see `scidiff.metrics.verification`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.metrics._shared import check_ensemble
from scidiff.metrics.verification import Case, Metric

__all__ = ["Accumulator"]


class Accumulator:
    r"""Running means of metrics over cases: memory does not grow with their number.

    Arguments:
        metrics: What to compute.
        series: Also keep the parts of every case, in the order they came, for intervals.
    """

    def __init__(self, metrics: Sequence[Metric], series: bool = False) -> None:
        self.metrics = tuple(metrics)
        self.cases = 0
        self._sums: list[dict[str, Tensor]] = [{} for _ in self.metrics]
        self._series: list[list[dict[str, Tensor]]] | None = [[] for _ in self.metrics] if series else None

    def update(
        self, samples: Tensor, truth: Tensor, weight: Tensor | None = None, climatology: Tensor | None = None
    ) -> None:
        r"""Adds a batch of cases.

        Arguments:
            samples: (M, B, \*X), members first, real. NaN where the field does not exist.
            truth: (B, \*X); points that are NaN in the truth or in a member are left out.
            weight: Areas, broadcast against (B, \*X); None weighs all points alike.
            climatology: Broadcast against (B, \*X).

        Raises:
            ValueError: shapes differ, the fields are complex, or a case has no point at all.
        """
        least = max((metric.least for metric in self.metrics), default=1)
        check_ensemble(samples, truth, least)
        if truth.is_complex():
            raise ValueError("these scores are of real fields; take components or moduli.")
        keep = truth.isfinite() & samples.isfinite().all(0)
        if climatology is not None:
            climatology = climatology.to(truth).expand_as(truth)
            keep &= climatology.isfinite()
        full = keep.double() if weight is None else keep * weight.to(truth.device).double()
        total = full.flatten(1).sum(1)
        if bool((total <= 0).any()):
            raise ValueError("a case has no point where forecast and truth exist and the weight is positive.")
        full = full / total.reshape(-1, *[1] * (truth.ndim - 1))
        zero = truth.new_zeros(())
        samples, truth = samples.where(keep, zero.to(samples)), truth.where(keep, zero)
        climatology = None if climatology is None else climatology.where(keep, zero)
        case = Case(samples, truth, full, climatology, self.cases)
        for index, metric in enumerate(self.metrics):
            parts = metric.parts(case)
            for name, value in parts.items():
                total = value.double().sum(0)
                self._sums[index][name] = self._sums[index].get(name, 0) + total  # type: ignore[operator]
            if self._series is not None:
                self._series[index].append({name: value.detach().cpu() for name, value in parts.items()})
        self.cases += len(truth)

    def means(self, metric: Metric) -> dict[str, Tensor]:
        """Means of a metric's parts over all cases."""
        if not self.cases:
            raise ValueError("no case was added.")
        return {name: value / self.cases for name, value in self._sums[self.metrics.index(metric)].items()}

    def value(self, metric: Metric) -> Tensor:
        """A score over all cases."""
        return metric.value(self.means(metric))

    def series(self, metric: Metric) -> dict[str, Tensor]:
        r"""Parts of every case, (cases, \*K) each."""
        if self._series is None:
            raise ValueError("the parts of the cases were not kept; make the accumulator with series=True.")
        kept = self._series[self.metrics.index(metric)]
        return {name: torch.cat([parts[name] for parts in kept]) for name in kept[0]}
