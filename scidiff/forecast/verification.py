r"""Scores of a forecast against what happened: `verify`.

A case is an initial time; forecast and truth meet at the valid time, exactly. Cases are read in blocks and forgotten,
so a forecast of any size is scored in constant memory. Every score is a function of means over cases
(`scidiff.metrics.Accumulator`); its interval comes from a bootstrap of blocks of neighbouring cases.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

import xarray as xr

from scidiff.errors import InputError
from scidiff.forecast.inputs import open_dataset
from scidiff.forecast.score_table import METRICS, score_table
from scidiff.forecast.scorer import Scorer, open_forecast

__all__ = ["METRICS", "verify"]


def verify(
    forecast: xr.Dataset | str | os.PathLike[str],
    truth: xr.Dataset | str | os.PathLike[str],
    metrics: Sequence[str] = ("crps", "rmse", "bias", "spread_skill"),
    *,
    variables: Sequence[str] | None = None,
    by: Sequence[str] = ("lead_time",),
    baseline: xr.Dataset | str | os.PathLike[str] | None = None,
    climatology: xr.Dataset | str | os.PathLike[str] | None = None,
    thresholds: Sequence[float] = (),
    weights: str | xr.DataArray | None = "area",
    fair: float = True,
    block: int | None = None,
    level: float = 0.95,
    seed: int = 0,
    executor: Executor | None = None,
) -> xr.Dataset:
    r"""Scores a forecast by lead time.

    Arguments:
        forecast: As `scidiff.forecast` writes it: (init_time, member, lead_time, [level], \*grid); other names of these
            dimensions (number, prediction_timedelta, ...) are understood. Without ``member`` it is deterministic.
        truth: (time, [level], \*grid) on the same grid; units are converted to those of the forecast. Cases whose valid
            time it does not hold are left out.
        metrics: Some of `METRICS`. ``acc`` needs ``climatology``, ``brier`` and ``reliability`` need ``thresholds``.
        variables: To score; None takes those of both.
        by: ``("lead_time",)``, or ``()`` for all leads together. Levels are always scored apart.
        baseline: A forecast of the same cases to compare with; ``"persistence"``, the truth at the initial time; or
            ``"climatology"``, the mean of ``climatology``. Both forecasts are scored on the cases that both have.
        climatology: (\*grid) with ``dayofyear``, ``month``, ``time`` (exact valid times) or without time.
        thresholds: Of events "at least so much", in the units of the forecast.
        weights: ``"area"`` of the cells, None for equal weights, or an array on the grid.
        fair: See `scidiff.metrics.crps`.
        block: Neighbouring cases in a block of the bootstrap; None takes the cube root of their number. Daily starts
            of a forecast of many days overlap: then give at least the longest lead.
        level: Probability of the intervals.
        seed: Of the bootstrap and of broken ties.
        executor: Who scores; None scores here. Any `concurrent.futures.Executor`: processes, or a Dask cluster
            (``distributed.Client(...).get_executor()``). Each lead (those of one chunk of the store together) is read
            and scored where it is computed, so give stores by their paths, on a file system that all see.

    Returns:
        ``<variable>_<metric>`` (lead_time, [level]) with ``_low`` and ``_high``; ``_ranks`` (..., rank), ``_spectrum``
        (..., spectrum_of, wavenumber), ``_brier_<threshold>``, ``_reliability_<threshold>`` (..., reliability_row,
        bin); ``_cases``. With a baseline also ``_baseline``, and for crps, rmse, energy and brier ``_skill``, 1 minus
        the ratio of both, with interval.

    Raises:
        InputError: variables, grids, units or times that do not fit; an unfinished forecast.
        ValueError: unknown metrics, or arguments out of range; an executor for all leads together.
    """
    unknown = set(metrics) - set(METRICS)
    if unknown or not metrics:
        raise ValueError(f"metrics must be some of {', '.join(METRICS)}; got {', '.join(sorted(unknown)) or 'none'}.")
    if set(by) - {"lead_time"}:
        raise ValueError(f"by must be ('lead_time',) or (), got {tuple(by)}.")
    if ("brier" in metrics or "reliability" in metrics) and not thresholds:
        raise ValueError("brier and reliability need thresholds.")
    if "acc" in metrics and climatology is None:
        raise ValueError("acc needs a climatology.")
    named = isinstance(baseline, str) and baseline in ("persistence", "climatology")
    if named and baseline == "climatology" and climatology is None:
        raise ValueError("the baseline 'climatology' needs a climatology.")
    fc, tr = open_forecast(forecast, "the forecast"), open_dataset(truth, "the truth")
    cl = None if climatology is None else open_dataset(climatology, "the climatology")
    other = baseline if named or baseline is None else open_forecast(baseline, "the baseline")
    names = (
        [str(n) for n in fc.data_vars if n in tr and "lead_time" in fc[n].dims]
        if variables is None
        else list(variables)
    )
    if not names:
        raise InputError(f"forecast ({', '.join(map(str, fc.data_vars))}) and truth share no variable.")
    found = xr.Dataset(attrs={"title": "scores of a forecast", "level_of_intervals": level, "fair": float(fair)})
    if executor is not None and not by:
        raise ValueError("an executor divides the leads; score by ('lead_time',), or without it.")
    for name in names:
        scorer = Scorer.make(name, fc, tr, cl, other, metrics, thresholds, weights, fair, by, seed)
        if executor is None:
            scorer.run()
            found = found.assign(score_table(scorer, level, block, seed))
        else:
            task = partial(
                _part,
                name,
                forecast,
                truth,
                climatology,
                baseline,
                metrics,
                thresholds,
                weights,
                fair,
                seed,
                level,
                block,
            )
            found = found.assign(_gathered([executor.submit(task, leads) for leads in scorer.groups()]))
    return found


def _part(
    name: str,
    forecast: Any,
    truth: Any,
    climatology: Any,
    baseline: Any,
    metrics: Sequence[str],
    thresholds: Sequence[float],
    weights: Any,
    fair: float,
    seed: int,
    level: float,
    block: int | None,
    leads: range,
) -> tuple[range, xr.Dataset | None]:
    """Scores of some leads, NaN for the others; None if these leads have no case. Runs on a worker."""
    fc, tr = open_forecast(forecast, "the forecast"), open_dataset(truth, "the truth")
    cl = None if climatology is None else open_dataset(climatology, "the climatology")
    named = baseline is None or (isinstance(baseline, str) and baseline in ("persistence", "climatology"))
    other = baseline if named else open_forecast(baseline, "the baseline")
    scorer = Scorer.make(name, fc, tr, cl, other, metrics, thresholds, weights, fair, ("lead_time",), seed)
    scorer.run(leads)
    return leads, score_table(scorer, level, block, seed) if scorer.model else None


def _gathered(tasks: Sequence[Future[tuple[range, xr.Dataset | None]]]) -> xr.Dataset:
    """The scores of all leads from those of the parts."""
    try:
        parts = [task.result() for task in tasks]
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
    blank = next(part for _, part in parts if part is not None)
    rows = [(blank if part is None else part).isel(lead_time=list(leads)) for leads, part in parts]
    return xr.concat(rows, "lead_time", data_vars="all", coords="minimal", compat="override", join="override")
