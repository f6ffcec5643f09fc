r"""From initial states to an ensemble of forecasts in a Zarr store: `forecast`.

A forecaster predicts ``horizon`` steps at a time, a window; longer forecasts feed the last states back. Rows are pairs
(initial time, member). They are computed in tiles: a tile goes through all its windows before the next begins, and
after each window (or several, where windows are small) its states are written and forgotten. Peak memory is that of
one tile, however long the forecast is.

The random numbers of a window are named by (seed, initial time, member, window): a member is the same whatever other
members, initial times or batches are computed with it, and whether or not the run was cut before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scidiff.errors import InputError, Interrupted, NumericalError
from scidiff.forecast.base import Forecaster
from scidiff.forecast.corrections import Correction, make_correct
from scidiff.forecast.inputs import Forcing, Initial, open_dataset, time_of_year
from scidiff.forecast.loading import card_of, fingerprint, place
from scidiff.forecast.state import StateSpec
from scidiff.forecast.store import MemoryStore, ZarrStore
from scidiff.forecast.times import advance, lead_count, lead_values, step_text
from scidiff.placement import NUMBERS_PER_BATCH
from scidiff.progress import Progress
from scidiff.record import references, source, versions
from scidiff.rng import Streams

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["forecast"]

CHUNK_NUMBERS = 1 << 21
"""Numbers in one chunk of the store (8 MB of float32), and so in the buffer of one tile, unless one window has more."""


def forecast(
    model: Forecaster | str | os.PathLike[str],
    initial: xr.Dataset | str | os.PathLike[str],
    lead_times: int | Sequence[Any],
    members: int = 16,
    forcing: xr.Dataset | str | os.PathLike[str] | None = None,
    observations: Any = None,
    seed: int = 0,
    output: str | os.PathLike[str] | None = "run.zarr",
    *,
    spec: StateSpec | None = None,
    corrections: Sequence[Correction] = (),
    init_times: Sequence[Any] | None = None,
    batch_size: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    progress: str = "none",
) -> xr.Dataset:
    r"""Draws an ensemble of futures of every initial state.

    Arguments:
        model: A forecaster, or the name or path of a saved one.
        initial: Initial states: a Dataset or a NetCDF or Zarr path with (time, \*grid), where every time (with as many
            predecessors as the model needs) is an initial time, or with (init_time, [time], \*grid). Units are
            converted, the grid must be that of the model. With a dimension ``member``, members start from their own
            states.
        lead_times: A number of steps, or a sequence of numbers of steps or timedeltas: the leads that are kept.
        members: Number of draws M; a deterministic model needs one.
        forcing: Prescribed variables by valid time, for models that were trained with them. The time of year, where it
            is the only forcing, is made here.
        observations: For forecasters that assimilate (they have a method ``observe``).
        seed: Non-negative integer; the same seed gives the same forecast.
        output: Zarr store to write; None keeps the forecast in memory.
        spec: What turns Datasets into states; None takes ``model.spec``.
        corrections: Applied to every predicted state, in this order: `Conserve`, `Positive`, `Prescribe` or functions.
        init_times: Use these initial times only.
        batch_size: Rows (initial times x members) that go through the network together; None fits a fixed budget.
            Changes results to rounding only.
        resume: Go on with the unfinished forecast in ``output``; begins one where there is none, and returns it where
            it is complete.
        overwrite: Replace what ``output`` holds.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<n>``; None leaves the model where it is.
        progress: ``none``, ``plain``, ``bar`` or ``auto``, on standard error.

    Returns:
        The prognostic variables with dimensions (init_time, member, lead_time, [level], \*grid) and the coordinate
        ``valid_time`` (init_time, lead_time). With ``output`` it is the store, opened lazily.

    Raises:
        InputError: an input is rejected, the output exists, or the run to resume is another one.
        NumericalError: a predicted state is not finite.
        Interrupted: the disk is full; finished windows are kept.
        ValueError: an argument is out of range.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: go on with the forecast, or replace it.")
    if output is None and (resume or overwrite):
        raise ValueError("resume and overwrite need an output.")
    if isinstance(members, bool) or members < 1:
        raise ValueError(f"members must be at least 1, got {members}.")
    if isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed}.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    store = ZarrStore(Path(output)) if output is not None else None
    if store is not None:
        store.claim(resume, overwrite)
    forecaster, spec, where = place(model, spec, device)
    steps = lead_count(lead_times, spec.step)
    start = Initial(open_dataset(initial, "the initial state"), spec, forecaster.window, members, init_times)
    windows = -(-int(steps[-1]) // forecaster.horizon)
    span = np.arange(1 - forecaster.window, windows * forecaster.horizon + 1)
    valid = np.unique(advance(start.times[:, None], span, spec.step))
    given = time_of_year(spec, valid) if forcing is None else open_dataset(forcing, "the forcing")
    prescribed = Forcing(given, spec, valid)
    for correction in corrections:
        check = getattr(correction, "check", None)
        if check is not None:
            check(spec, valid[valid >= start.times.min()])
        elif (name := getattr(correction, "variable", None)) is not None and name not in spec.prognostic:
            raise InputError(f"{correction!r}: the model predicts {', '.join(spec.prognostic)}.")
    if observations is not None:
        observe: Any = getattr(forecaster, "observe", None)
        if observe is None:
            raise TypeError(f"{type(forecaster).__name__} assimilates no observations: it has no method observe.")
        forecaster = observe(observations, start.times, spec)
    known = fingerprint(forecaster)
    numbers = int(np.prod(spec.shape))
    batch = batch_size or max(1, NUMBERS_PER_BATCH[where.type if where.type == "cuda" else "cpu"] // numbers)
    run = _Run(forecaster, spec, start, prescribed, tuple(corrections), steps, windows, members, seed, batch, where)
    identity = run.identity(known)
    coords, variables = run.template(identity)
    watch = Progress(progress, len(start.times) * members * windows, unit="windows of members")
    if store is None:
        return run.fill(MemoryStore(coords, variables), watch)
    return _on_disk(run, store, identity, coords, variables, watch, resume, batch_size)


def _on_disk(
    run: _Run,
    store: ZarrStore,
    identity: dict[str, Any],
    coords: xr.Dataset,
    variables: Any,
    watch: Progress,
    resume: bool,
    batch_size: int | None,
) -> xr.Dataset:
    """Writes the store, and says what was kept if the run is cut."""
    from scidiff.store import disk_full, locked

    def kept() -> str:
        return f"finished windows are kept in {store.path}; run the same command with --resume to go on."

    begun = store.unfinished or (resume and store.path.exists())
    with disk_full(kept), locked(store.folder):
        try:
            if resume and begun:
                if batch_size is None:  # the same batches round in the same way
                    run.batch = identity["batch_size"] = store.identity().get("batch_size", run.batch)
                store.check(identity)
                if not store.unfinished:
                    return store.open()
            else:
                store.start(identity)
            store.create(coords, variables, run.chunks())
            return run.fill(store, watch)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; {kept()}") from None
        except Interrupted as error:
            raise Interrupted(f"{error}; {kept()}") from error
        finally:
            done = not store.unfinished
            if done:
                with contextlib.suppress(OSError):
                    (store.folder / ".lock").unlink(missing_ok=True)
                    store.folder.rmdir()


@dataclass
class _Run:
    """One forecast: everything that decides its numbers."""

    model: Forecaster
    spec: StateSpec
    start: Initial
    forcing: Forcing
    corrections: tuple[Correction, ...]
    steps: np.ndarray
    windows: int
    members: int
    seed: int
    batch: int
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """Of states: that of the network's weights."""
        kinds = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        return next(kinds, torch.float32)

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """What decides the numbers, as JSON."""
        card = json.dumps(self.spec.to_card(), sort_keys=True, default=str).encode()
        tensors = (t.cpu().numpy().tobytes() for _, t in sorted(self.spec.tensors().items()))
        return {
            "model": type(self.model).__name__,
            "model_sha256": fingerprint,
            "spec_sha256": hashlib.sha256(card + b"".join(tensors)).hexdigest(),
            "initial_sha256": self.start.digest(),
            "forcing_sha256": self.forcing.fingerprint(),
            "corrections": [_described(c) for c in self.corrections],
            "init_times": len(self.start.times),
            "members": self.members,
            "lead_steps": self.steps.tolist() if len(self.steps) < 1000 else [int(self.steps[0]), int(self.steps[-1])],
            "seed": self.seed,
            "batch_size": self.batch,
            "device": self.device.type,
            "versions": versions(),
        }

    # The shape of the answer

    def template(self, identity: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Coordinates and attributes of the answer, and its variables."""
        import xarray as xr

        spec, times = self.spec, self.start.times
        leads, attrs = lead_values(self.steps, spec.step)
        valid = advance(times[:, None], self.steps, spec.step)
        levels = {v.level: (v.level, list(v.levels)) for v in spec.variables if v.level}
        named = {"standard_name": "forecast_reference_time", "long_name": "time of the initial state"}
        coords = {
            "init_time": ("init_time", times, named),
            "member": (
                "member",
                np.arange(self.members),
                {"long_name": "ensemble member", "standard_name": "realization"},
            ),
            "lead_time": ("lead_time", leads, attrs),
            "valid_time": (("init_time", "lead_time"), valid, {"standard_name": "time", "long_name": "valid time"}),
        }
        about = {
            "Conventions": "CF-1.11",
            "title": f"ensemble forecast of {', '.join(spec.prognostic)}",
            "source": source(),
            "references": references(self.model),
            "model": card_of(self.model),
            "step": step_text(spec.step),
            "network_calls_per_window": int(self.model.network_calls),
            "seed": self.seed,
            "identity": json.dumps(identity),
            "complete": 0,
        }
        sizes = (len(times), self.members, len(self.steps))
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        variables = {}
        for v in spec.variables:
            level = ((v.level,), (len(v.levels),)) if v.level else ((), ())
            dims = ("init_time", "member", "lead_time", *level[0], *spec.grid.dims)
            variables[v.name] = (dims, (*sizes, *level[1], *spec.grid.shape), v.attrs, kind)
        return xr.Dataset(None, {**coords, **levels, **spec.grid.coords()}, about), variables

    def chunks(self) -> tuple[int, int, int]:
        """Initial times, members and leads of a chunk: all members if they fit, then initial times, then leads."""
        numbers = int(np.prod(self.spec.shape)) * min(self.model.horizon, len(self.steps))
        members = min(self.members, max(1, CHUNK_NUMBERS // numbers))
        times = min(len(self.start.times), max(1, CHUNK_NUMBERS // (numbers * members)))
        windows = max(1, CHUNK_NUMBERS // (numbers * members * times))
        return times, members, min(len(self.steps), windows * self.model.horizon)

    def tiles(self) -> Iterator[tuple[int, slice, slice]]:
        """Number, initial times and members of every tile."""
        times, members, _ = self.chunks()
        corners = [(i, m) for i in range(0, len(self.start.times), times) for m in range(0, self.members, members)]
        for number, (i, m) in enumerate(corners):
            yield number, slice(i, min(i + times, len(self.start.times))), slice(m, min(m + members, self.members))

    # Computing

    def fill(self, store: MemoryStore | ZarrStore, watch: Progress) -> xr.Dataset:
        """Computes what is missing, tile by tile."""
        training = self.model.training
        self.model.eval()
        try:
            with watch.showing(), torch.no_grad():
                for number, times, members in self.tiles():
                    self._tile(store, watch, number, times, members)
        finally:
            self.model.train(training)
        return store.finish()

    def _tile(self, store: MemoryStore | ZarrStore, watch: Progress, number: int, times: slice, members: slice) -> None:
        """Takes one tile from where it stands to its last window."""
        rows = [(i, m) for i in range(times.start, times.stop) for m in range(members.start, members.stop)]
        first = self._initial(rows)
        kept = store.restart(number)
        state, done = (first, 0) if kept is None else (torch.from_numpy(kept[0]).to(first), kept[1])
        watch.skip(watch.done + done * len(rows))
        together = max(1, self.chunks()[2] // self.model.horizon)
        shape = (times.stop - times.start, members.stop - members.start)
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        horizon = self.model.horizon
        buffer = np.empty((len(rows), min(together * horizon, len(self.steps)), *self.spec.shape), kind)  # used again
        while done < self.windows:
            begin, end = done, min(done + together, self.windows)
            low = high = int(np.searchsorted(self.steps, begin * horizon + 1))
            for window in range(begin, end):
                watch.start(len(rows))
                new = self._window(rows, state, first[:, -1], window)
                state = torch.cat([state, new], 1)[:, -self.model.window :]
                leads = self.steps - 1 - window * horizon
                take = leads[(leads >= 0) & (leads < horizon)]
                if len(take):
                    part = self.spec.denormalise(new[:, torch.from_numpy(take)]).cpu().numpy()
                    buffer[:, high - low : high - low + len(take)] = part
                    high += len(take)
                watch.finish(now=False)
            if high > low:
                x = buffer[:, : high - low].reshape(*shape, high - low, *self.spec.shape)
                parts = self.spec.split(x, ("init_time", "member", "lead_time"))
                store.write((times, members, slice(low, high)), {v.name: part for v, _, part in parts})
            done = end
            store.keep(number, state.cpu().numpy(), done)

    def _initial(self, rows: list[tuple[int, int]]) -> Tensor:
        r"""Normalised initial states (rows, window, C, \*grid)."""
        states = {i: self.start.read(i, self.dtype) for i in sorted({i for i, _ in rows})}
        return torch.stack([states[i][m if len(states[i]) > 1 else 0] for i, m in rows]).to(self.device)

    def _window(self, rows: list[tuple[int, int]], state: Tensor, first: Tensor, window: int) -> Tensor:
        """The next states of all rows of a tile, batch by batch."""
        spec, horizon = self.spec, self.model.horizon
        found = []
        for low in range(0, len(rows), self.batch):
            part = rows[low : low + self.batch]
            here = slice(low, low + len(part))
            times = self.start.times[[i for i, _ in part]]
            names = [f"{self.seed}/{t}/{m}/{window}" for t, (_, m) in zip(times, part, strict=True)]
            base = window * horizon
            span = np.arange(base + 1 - self.model.window, base + horizon + 1)
            forcing = self.forcing.read(times, span, self.dtype)
            at = getattr(self.model, "at", None)  # forecasters that know what was measured at which time
            new = (self.model if at is None else at(times, base)).sample(
                state[here],
                None if forcing is None else forcing.to(self.device),
                generator=Streams.named(names),
                correct=make_correct(self.corrections, spec, base, times, first[here]),
            )
            if not bool(torch.isfinite(new).all()):
                row = int((~torch.isfinite(new).flatten(1).all(1)).nonzero()[0])
                i, m = part[row]
                raise NumericalError(
                    f"{type(self.model).__name__}: member {m} from {self.start.times[i]} is not finite within steps "
                    f"{base + 1} to {base + horizon}. The forecast left the states that the model has seen; try "
                    "shorter leads or a correction."
                )
            found.append(new if spec.mask is None else new.where(spec.mask.to(new.device), new.new_zeros(())))
        return torch.cat(found)


def _described(correction: Any) -> str:
    return correction.__qualname__ if hasattr(correction, "__qualname__") else repr(correction)
