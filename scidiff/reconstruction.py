r"""From a measurement to an ensemble in a file: `reconstruct`.

The members are drawn in batches. Each finished batch is kept on disk (`scidiff.store`) before the next begins, so peak
memory is that of one batch, and a run that was killed goes on where it stopped and ends with the same bytes. Under
`torchrun` the batches are divided among the processes, which share the folder; the bytes are the same again.

``result.nc`` holds the members (member, ...), their mean, spread and chi2, the observation, the truth where it is
known, and in its attributes all that is needed to run it again. It holds no date, wall time or memory, which would make
equal runs different files: those are in ``run.json`` beside it and in the attributes of the Dataset that is returned.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scidiff import team
from scidiff.errors import InputError, Interrupted, NumericalError
from scidiff.plan import Plan, method_name
from scidiff.progress import Progress
from scidiff.protocols import Callback
from scidiff.record import RunLog, dump_toml, largest_cost, peak_memory, provenance, source

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.protocols import PosteriorSampler
    from scidiff.store import MemberStore

__all__ = ["reconstruct"]

RESULT = "result.nc"


def reconstruct(
    problem: Any,
    observation: Any,
    sampler: str | PosteriorSampler = "mmps",
    members: int = 16,
    seed: int = 0,
    output: str | os.PathLike[str] | None = None,
    batch: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    dtype: str | None = None,
    progress: str = "none",
    callback: Callback | None = None,
    truth: xr.Dataset | None = None,
    portable: bool = False,
    figures: bool = True,
) -> xr.Dataset:
    r"""Draws members of the posterior of a problem given an observation.

    Arguments:
        problem: A problem of `scidiff.problems`, or the name of one.
        observation: What ``problem.read`` takes: a path, an array or a Dataset.
        sampler: A posterior sampler of `scidiff.posterior`, or the name of one.
        members: Number of draws M.
        seed: Non-negative integer; the same seed gives the same members.
        output: Folder for ``result.nc``, ``config.toml``, ``metrics.json``, ``run.json``, ``log.jsonl`` and
            ``figures/``. None keeps everything in memory and writes nothing.
        batch: Members drawn together; None takes as many as fit a fixed memory budget. Changes members to rounding.
        resume: Go on with the unfinished run in ``output``; begins one where there is none, and returns the result
            where it is complete.
        overwrite: Replace a result or an unfinished run in ``output``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<n>``.
        dtype: ``float32`` or ``float64``; None keeps the precision of the observation.
        progress: ``none``, ``plain``, ``bar`` or ``auto``, on standard error.
        callback: Called after every step of the sampler with ``(step, steps, sigma, u)``.
        truth: The field that was measured, if known; its metrics are then computed.
        portable: Store complex variables as pairs ``_real``, ``_imag``, for programs that know no complex numbers.
        figures: Draw ``figures/result.png``.

    Returns:
        Dataset with ``<field>`` (member, \*dims), ``<field>_mean``, ``<field>_spread`` (complex fields: per real
        component), ``chi2`` (member), the variables of the observation, and ``truth`` if known. With ``output`` it is
        the file, opened lazily. Members whose forward model failed and that were to be dropped are missing along
        ``member``, and ``attrs["dropped_members"]`` says which and why.

    Raises:
        InputError: the observation is rejected, the output exists, or the run to resume is another one.
        NumericalError: a member is not finite.
        Interrupted: the disk is full; finished members are kept.
        ValueError: an argument is out of range.
    """
    begin = time.monotonic()
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: go on with the run, or replace it.")
    if output is None and (resume or overwrite):
        raise ValueError("resume and overwrite need an output folder.")
    folder = Path(output) if output is not None else None
    rank, size = team.place()
    if size > 1 and folder is None:
        raise ValueError("several processes need an output folder that all of them see.")
    if rank:
        return _share(
            folder, lambda: Plan.prepare(problem, observation, sampler, members, seed, batch, device, dtype, truth)
        )
    with team.joined(), _claimed(folder, members, resume, overwrite) as store:
        plan = Plan.prepare(problem, observation, sampler, members, seed, batch, device, dtype, truth)
        for text in plan.warnings:
            warnings.warn(text, stacklevel=2)
        watch = Progress(progress, plan.members, 0, callback)
        if folder is None:
            return _in_memory(plan, watch, begin)
        if resume and store.exists:
            plan.batch = plan.batch if batch else store.identity()["configuration"]["batch"]
            store.check(plan.identity)
        elif resume and (folder / RESULT).exists():
            team.barrier()
            team.barrier()
            return _finished(folder / RESULT, plan, batch)
        else:
            store.start(plan.identity)
        return _on_disk(plan, watch, begin, folder, store, portable, figures)


@contextlib.contextmanager
def _claimed(folder: Path | None, members: int, resume: bool, overwrite: bool) -> Iterator[Any]:
    """Holds the output folder, before anything is read or computed, and says what was kept if the run is cut."""
    if folder is None:
        yield None
        return
    from scidiff.store import MemberStore, disk_full, locked

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; the output must be a folder.")
    store = MemberStore(folder)
    if not (resume or overwrite):
        if store.exists:
            raise InputError(
                f"{folder} holds an unfinished run with {len(store.done())} finished members; "
                "go on with --resume or start again with --overwrite."
            )
        if (folder / RESULT).exists():
            raise InputError(f"{folder / RESULT} exists; choose another --out, or replace it with --overwrite.")

    def kept() -> str:
        done = len(store.done()) if store.exists else 0
        return f"{done} of {members} members are kept in {folder}; run the same command with --resume to go on."

    new = not folder.exists()
    with _removed_if_empty(folder if new else None), disk_full(kept), locked(folder):
        for leftover in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            leftover.unlink()
        try:
            yield store
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; {kept()}") from None
        except Interrupted as error:
            raise Interrupted(f"{error}; {kept()}") from error


@contextlib.contextmanager
def _removed_if_empty(folder: Path | None) -> Iterator[None]:
    """Leaves no empty folder behind where nothing was written, as when the input is rejected."""
    try:
        yield
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


def _in_memory(plan: Plan, watch: Progress, begin: float) -> xr.Dataset:
    fields: list[np.ndarray] = []
    records: list[dict[str, Any]] = []
    with watch.showing():
        for members in plan.batches:
            watch.start(len(members))
            drawn, its = plan.draw(members, watch)
            fields, records = fields + drawn, records + its
            watch.finish()
    kept = _kept(records)
    result = _summary(plan, fields.__getitem__, records)
    members = np.stack([fields[m] for m in kept])
    result[plan.problem.field] = (("member", *plan.template.dims), members, plan.template.attrs)
    return result.assign_coords(member=kept).assign_attrs(_machine(begin))


def _share(folder: Path | None, prepare: Callable[[], Plan]) -> xr.Dataset:
    """What the second and further processes of a team do: their batches, into the folder that the first one holds."""
    from scidiff.fields import open_result
    from scidiff.store import MemberStore

    assert folder is not None
    with team.joined():
        plan, store = prepare(), MemberStore(folder)
        team.barrier()  # the first process has claimed the folder and begun the run, or found it finished
        if store.exists:
            plan.batch = store.identity()["configuration"]["batch"]
            store.check(plan.identity)
            _draw(plan, Progress("none", plan.members), store, RunLog(folder / "log.jsonl"))
        team.barrier()  # the result is written
        return open_result(folder / RESULT)


def _draw(plan: Plan, watch: Progress, store: MemberStore, log: RunLog) -> None:
    """Draws and keeps the missing batches that are this process's."""
    rank, size = team.place()
    done = set(store.done())
    team.barrier()  # everybody has looked before anybody adds
    todo = [members for members in plan.batches if not done.issuperset(members)][rank::size]
    watch.skip(plan.members - sum(map(len, todo)))
    with watch.showing():
        for members in todo:
            watch.start(len(members))
            fields, records = plan.draw(members, watch)
            for member, field, record in zip(members, fields, records, strict=True):
                store.write(member, field, record)
            log("batch", members=members, chi2=[r["chi2"] for r in records], batch_seconds=records[0]["seconds"])
            watch.finish()
    team.barrier()  # all members are there


def _on_disk(
    plan: Plan, watch: Progress, begin: float, folder: Path, store: MemberStore, portable: bool, figures: bool
) -> xr.Dataset:
    """Draws what is missing, keeps it, and writes the result and what stands beside it."""
    from scidiff.fields import atomic, open_result, write_json, write_streamed

    with atomic(folder / "config.toml") as temporary:
        temporary.write_text(dump_toml(plan.configuration), encoding="utf-8")
    log = RunLog(folder / "log.jsonl")
    log("start", **plan.configuration, source=source(), kept_members=store.done())
    for text in plan.warnings:
        log("warning", text=text)
    team.barrier()  # the run has begun: the others may look
    _draw(plan, watch, store, log)

    records = [store.record(m) for m in range(plan.members)]
    kept = _kept(records)
    for text in _losses(records):
        log("warning", text=text)
    template = plan.template.astype(store.read(kept[0]).dtype, copy=False)
    summary = _summary(plan, store.read, records)
    write_streamed(folder / RESULT, summary, template, store.read, kept, portable)
    result = open_result(folder / RESULT)
    write_json(folder / "metrics.json", _metrics(plan, result, records))
    if figures:
        (folder / "figures").mkdir(exist_ok=True)
        figure = plan.problem.plot(_shown(result, plan.problem.field))
        with atomic(folder / "figures" / "result.png") as temporary:
            figure.savefig(temporary, format="png")
    seconds = sum(records[members[0]]["seconds"] for members in plan.batches)
    machine = _machine(begin) | {"sampling_seconds": round(seconds, 3)}
    told = plan.warnings + _losses(records)
    write_json(folder / "run.json", {**machine, "configuration": plan.configuration, "warnings": told})
    store.remove()
    log("done", **machine)
    team.barrier()  # the result is written
    return result.assign_attrs(machine)


def _kept(records: list[dict[str, Any]]) -> list[int]:
    """Members that were not dropped.

    Raises:
        NumericalError: none is left.
    """
    kept = [m for m, record in enumerate(records) if "dropped" not in record]
    if not kept:
        raise NumericalError(f"all {len(records)} members were dropped; the last failure: {records[-1]['dropped']}")
    return kept


def _losses(records: list[dict[str, Any]]) -> list[str]:
    """One sentence about the members that were dropped, if any."""
    gone = {m: record["dropped"] for m, record in enumerate(records) if "dropped" in record}
    if not gone:
        return []
    first, why = next(iter(gone.items()))
    return [
        f"{len(gone)} of {len(records)} members were dropped because the forward model failed, and the result holds "
        f"the others: {', '.join(map(str, gone))} (member {first}: {why}). If failing depends on the field, what is "
        "left is not the whole posterior."
    ]


def _shown(result: xr.Dataset, field: str) -> xr.Dataset:
    """The result as it is drawn: of a portable one, pairs are joined, but not those of the members, which are many."""
    from scidiff.fields import merge_complex

    members = [name for name in (f"{field}_real", f"{field}_imag") if name in result]
    return merge_complex(result.drop_vars(members)).assign({name: result[name] for name in members})


def _finished(path: Path, plan: Plan, batch: int | None) -> xr.Dataset:
    """The result is complete: give it back if it is the one that was asked for."""
    from scidiff.fields import open_result
    from scidiff.store import differences

    result = open_result(path)
    kept = json.loads(result.attrs.get("configuration", "{}"))
    plan.batch = plan.batch if batch else kept.get("batch", plan.batch)
    names = [f"{name}_sha256" for name in plan.fingerprints]
    old = {"configuration": kept, **{name: result.attrs.get(name) for name in names}}
    new = {"configuration": plan.configuration, **dict(zip(names, map(_text, plan.fingerprints.values()), strict=True))}
    old["configuration"].pop("observation", None)
    new["configuration"].pop("observation")
    found = differences(old, new)
    if found:
        result.close()
        raise InputError(f"{path} is the result of another run: {'; '.join(found)}. Replace it with --overwrite.")
    return result


def _text(value: str | None) -> str:
    return value or ""


def _summary(plan: Plan, read: Callable[[int], np.ndarray], records: list[dict[str, Any]]) -> xr.Dataset:
    """Everything of the result but the members."""
    from scidiff.store import moments

    field, template, dims = plan.problem.field, plan.template, plan.template.dims
    kept, losses = _kept(records), _losses(records)
    for text in losses:
        warnings.warn(text, stacklevel=4)
    mean, spread = moments(read, kept)
    units = {"units": template.attrs.get("units", "1")}
    long_name = template.attrs.get("long_name", field)
    spread_name = f"standard deviation over members of {long_name}"
    spread_name += ", per real component" if np.iscomplexobj(mean) else ""
    result = plan.observation.drop_attrs(deep=False).drop_vars([field, "truth", "reference", "chi2"], errors="ignore")
    result = result.assign_coords(template.coords)
    result[f"{field}_mean"] = (dims, mean, {**units, "long_name": f"mean over members of {long_name}"})
    result[f"{field}_spread"] = (dims, spread, {**units, "long_name": spread_name})
    chi2 = np.array([records[m]["chi2"] for m in kept], dtype=np.float64)
    about = "misfit of the data: mean squared residual over noise variance, per degree of freedom"
    result["chi2"] = ("member", chi2, {"units": "1", "long_name": about})
    if plan.truth is not None:
        truth = plan.truth[field]
        truth = truth.transpose(*dims) if set(truth.dims) == set(dims) else truth
        result["truth"] = (truth.dims, truth.values, {**units, **truth.attrs})
    words = f"{plan.members} members, sampler {method_name(plan.sampler)}, seed {plan.seed}"
    attrs = provenance(
        title=f"{long_name}: samples of the posterior given the observation",
        history=f"{source()}: reconstruct {plan.problem.name} from {plan.input or 'an array'}, {words}",
        configuration=plan.configuration,
        method=plan.sampler,
        prior_card=getattr(plan.posterior.prior, "card", None),
        fingerprints=plan.fingerprints,
        cost=largest_cost(record["cost"] for record in records),
        checks=plan.checks,
        warnings=plan.warnings + losses,
    )
    if losses:
        gone = [{"member": m, "message": r["dropped"]} for m, r in enumerate(records) if "dropped" in r]
        attrs["dropped_members"] = json.dumps(gone)
    return result.assign_attrs(attrs)


def _metrics(plan: Plan, result: xr.Dataset, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit of the data always, and scores against the truth or the samples set aside, where there are any."""
    chi2 = [record["chi2"] for record in records if "dropped" not in record]
    cost = largest_cost(record["cost"] for record in records)
    found = {"chi2": float(np.mean(chi2)), "chi2_of_members": chi2, "cost": cost, "checks": plan.checks}
    own = getattr(plan.problem, "scores_data", False)  # the problem has something to say without a truth
    if plan.truth is not None or own or "held_back_mask" in result:
        from scidiff.fields import merge_complex

        scores = plan.problem.evaluate(merge_complex(result), plan.truth)
        found["scores"] = {str(name): score.values.tolist() for name, score in scores.data_vars.items()}
    return found


def _machine(begin: float) -> dict[str, Any]:
    """What differs between equal runs."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    wall = round(time.monotonic() - begin, 3)
    return {"date_created": now, "wall_time_seconds": wall, "threads": torch.get_num_threads(), **peak_memory()}
