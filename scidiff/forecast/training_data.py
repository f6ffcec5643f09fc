r"""The table ``[data]`` of a forecaster's configuration: from a simulator or a file to windows and a `StateSpec`.

Time is what separates training from test. A simulator keeps whole trajectories apart; a file is split by the periods
that the table names, and nothing of the normalisation or of the training comes from outside ``train``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scidiff.errors import InputError
from scidiff.forecast.state import StateSpec
from scidiff.forecast.windows import WindowSource

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ForecastData", "forecast_data"]

ANNUAL = ("annual_cos", "annual_sin")


@dataclass
class ForecastData:
    """What a forecaster is trained on.

    Arguments:
        spec: Variables, grid and normalisation, from the training period alone.
        train: Draws windows of the training period.
        validation: Draws windows of the validation period, or None.
        periods: The periods as the card names them.
        files: sha256 by file name.
    """

    spec: StateSpec
    train: WindowSource
    validation: WindowSource | None
    periods: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def _opened(path: Path, names: Sequence[str]) -> xr.Dataset:
    """NetCDF and Zarr as they are, on any grid; npz and GRIB as `scidiff.datasets.read_series` reads them."""
    import xarray as xr

    if not path.exists():
        raise InputError(f"{path}: no such file; data.file is relative to --data, or to the configuration.")
    if path.suffix not in (".nc", ".h5", ".zarr") and not path.is_dir():
        from scidiff.datasets.series import read_series

        return read_series(path, names)
    try:
        return xr.open_zarr(path) if path.is_dir() else xr.open_dataset(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: expected NetCDF, Zarr, GRIB or npz ({error}).") from error


def forecast_data(
    length: int,
    folder: Path,
    *,
    trajectories: str | None = None,
    file: str | None = None,
    variables: Sequence[str] | str,
    forcing: Sequence[str] = (),
    static: Sequence[str] = (),
    per: str = "channel",
    mask: str | None = None,
    annual: bool = False,
    train: Sequence[str] = (),
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    options: dict[str, Any] | None = None,
) -> ForecastData:
    """Reads or simulates the states and splits them by time.

    Arguments:
        length: Times of a window.
        folder: That ``file`` is relative to.
        trajectories: Name of a simulator or of a series, see `scidiff.datasets.time_series.trajectories`, or
        file: NetCDF, Zarr or npz.
        variables, forcing, static, per, mask: As in `StateSpec.fit`.
        annual: Add the time of year as forcings (`scidiff.datasets.with_season`).
        train, validation, test: First and last date of the periods, for files. ``test`` is only named in the card.
        options: Of the simulator or the series; the paths ``file`` and ``folder`` are relative to ``folder``.

    Raises:
        InputError: Files, variables or periods that do not exist or overlap.
    """
    names = [variables] if isinstance(variables, str) else list(variables)
    if (trajectories is None) == (file is None):
        raise InputError("[data] needs either 'trajectories', the name of a simulator, or 'file'.")
    files: dict[str, str] = {}
    if trajectories is not None:
        from scidiff.datasets.time_series import part_of
        from scidiff.datasets.time_series import trajectories as simulate

        where = {name: folder / str(options[name]) for name in ("file", "folder") if options and name in options}
        ds = simulate(trajectories, **{**(options or {}), **where})
        if "split" not in ds.coords:
            raise InputError(f"[data.options] of '{trajectories}' need validation or test, a first and a last date.")
        kept = [part_of(ds, part) for part in ("train", "validation") if (ds["split"] == part).any()]
        periods: dict[str, Any] = {"trajectories": dict(ds.attrs)}
        if "file" in where:
            files[where["file"].name] = _checksum(where["file"])
        if ds["split"].dims == ("time",):
            periods = {part: _ends(ds, part) for part in ("train", "validation", "test") if (ds.split == part).any()}
    else:
        path = folder / str(file)
        ds = _opened(path, [*names, *forcing])
        if path.is_file():
            files[path.name] = _checksum(path)
        periods = {"train": list(train), "validation": list(validation), "test": list(test)}
        _no_overlap(periods)
        kept = [_period(ds, p, path) for p in (train, validation) if p]
    if missing := [name for name in names if name not in ds]:
        raise InputError(f"the data have no variable '{missing[0]}'; they have {', '.join(map(str, ds.data_vars))}.")
    if annual:
        from scidiff.datasets.seasons import with_season

        kept = [with_season(part[[*names, *forcing, *static]]) for part in kept]
        forcing = [*forcing, *ANNUAL]
    spec = StateSpec.fit(kept[0], names, forcing, static, per=per, mask=mask)  # type: ignore[arg-type]
    sources = [WindowSource(_stretches(part, spec), length) for part in kept]
    return ForecastData(spec, sources[0], sources[1] if len(sources) > 1 else None, periods, files)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _ends(ds: xr.Dataset, part: str) -> list[str]:
    """First and last date of a part."""
    times = ds["time"].values[(ds["split"] == part).values]
    return [str(times[i].astype("datetime64[D]")) for i in (0, -1)]


def _period(ds: xr.Dataset, period: Sequence[str], path: Path) -> xr.Dataset:
    if len(period) != 2:
        raise InputError(f"[data] a period is a first and a last date, got {list(period)}.")
    part = ds.sel(time=slice(*period))
    if not part.sizes["time"]:
        raise InputError(f"{path}: no times between {period[0]} and {period[1]}.")
    return part


def _no_overlap(periods: dict[str, Any]) -> None:
    used = sorted((p[0], p[1], name) for name, p in periods.items() if p)
    for (_, end, one), (start, _, other) in zip(used, used[1:], strict=False):
        if start <= end:
            raise InputError(
                f"[data] the periods {one} and {other} overlap: {other} begins at {start}, {one} ends {end}."
            )


def _stretches(ds: xr.Dataset, spec: StateSpec) -> list[Tensor]:
    """Normalised states, then forcings, of every trajectory."""
    x, rank = spec.to_tensor(ds), len(spec.shape)
    if spec.forcing_channels:
        f = spec.forcing_tensor(ds)
        x = torch.cat([x, f.expand(*x.shape[:-rank], *f.shape[-rank:])], -rank)
    return list(x) if x.ndim == rank + 2 else [x]
