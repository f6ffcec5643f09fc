r"""Real series of fields as Datasets: time, lat, lon, units and a land mask, checked; split by time.

==================== ============================================================================================
file                 what it is
==================== ============================================================================================
.nc, .h5             NetCDF
.zarr                a Zarr store
.grib, .grb, .grib2  GRIB, with the optional package cfgrib
.npz                 arrays (time, lat, lon) beside ``lat``, ``lon``, ``time`` and ``units``; radar: `radar_series`
==================== ============================================================================================

Dimensions come out as (time, [level], lat, lon), latitudes and longitudes ascending, numbers as float32. A point that
is NaN at all times is land: ``land`` (lat, lon) is true there. NaN elsewhere is refused. Variables are loaded.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from scidiff.errors import InputError
from scidiff.fields import parse_units
from scidiff.optional import optional

__all__ = ["GRIB", "oisst_boxes", "read_series", "split_times"]

RENAMED = {
    "time": ("time", "valid_time", "date"),
    "lat": ("lat", "latitude", "nav_lat", "y_lat"),
    "lon": ("lon", "longitude", "nav_lon", "x_lon"),
    "level": ("level", "plev", "lev", "pressure_level", "isobaricInhPa"),
}
GRIB = {".grib", ".grb", ".grib2", ".grb2"}


def read_series(
    path: str | os.PathLike[str],
    variables: Sequence[str] | str | None = None,
    units: Mapping[str, str] | None = None,
    validation: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
) -> xr.Dataset:
    """A series of fields from one file.

    Arguments:
        path: See the table of the module.
        variables: Which; by default all that have time, lat and lon.
        units: Of variables whose file does not tell.
        validation, test: First and last time of the stretches kept apart, see `split_times`; with neither, the
            Dataset has no coordinate ``split``.

    Returns:
        Dataset (time, [level], lat, lon) in float32, with ``land`` (lat, lon).

    Raises:
        InputError: naming file and field: nothing there, not readable, a variable or unit is missing, dimensions are
            others, times are not dates that increase, NaN at some times but not at all.
        MissingPackageError: GRIB without cfgrib.
    """
    what = Path(path)
    raw = _open(what)
    raw = raw.rename({n: k for k, v in RENAMED.items() for n in v if n in raw.variables and k not in raw.variables})
    raw = raw.swap_dims({d: "time" for d in raw["time"].dims if d != "time"} if "time" in raw.variables else {})
    wanted = [variables] if isinstance(variables, str) else variables
    if wanted is None:
        wanted = [str(n) for n, a in raw.data_vars.items() if {"time", "lat", "lon"} <= set(a.dims)]
    if not wanted:
        raise InputError(f"{what}: no variable has the dimensions time, lat and lon; found {_listed(raw)}.")
    for name in wanted:
        if name not in raw.data_vars:
            raise InputError(f"{what}: there is no variable '{name}'; found {_listed(raw)}.")
    found = _checked(raw, list(wanted), dict(units or {}), what)
    found.attrs = {"source_file": what.name}
    return found if validation is None and test is None else split_times(found, validation, test)


def _listed(raw: xr.Dataset) -> str:
    return ", ".join(f"{n} {a.dims}" for n, a in raw.data_vars.items()) or "nothing"


def _open(what: Path) -> xr.Dataset:
    suffix = what.suffix.lower()
    if not what.exists():
        raise InputError(f"{what}: there is no such file; expected a series of fields (.nc, .zarr, .grib or .npz).")
    if suffix in GRIB:
        optional("cfgrib", "io")
    try:
        if suffix == ".npz":
            return _npz(what)
        if what.is_dir():
            return xr.open_zarr(what)
        if suffix in GRIB:
            return xr.open_dataset(what, engine="cfgrib", backend_kwargs={"indexpath": ""})
        return xr.open_dataset(what)
    except InputError:
        raise
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, ImportError) as error:
        raise InputError(f"{what}: cannot be read as {suffix or 'a Zarr store'} ({error}).") from error


def _npz(what: Path) -> xr.Dataset:
    with np.load(what, allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files}
    for name in ("lat", "lon", "time"):
        if name not in parts or parts[name].ndim != 1:
            raise InputError(f"{what}: expected '{name}', one number or date each, found {', '.join(parts)}.")
    time, shape = parts["time"], tuple(len(parts[n]) for n in ("time", "lat", "lon"))
    units = _npz_units(str(np.atleast_1d(parts.get("units", np.array("")))[0]))
    time = time.astype("datetime64[ns]") if time.dtype.kind == "M" else time
    data = xr.Dataset(coords={"time": time, "lat": parts["lat"], "lon": parts["lon"]})
    for name, array in parts.items():
        if array.ndim == 3:
            if array.shape != shape:
                raise InputError(f"{what}: '{name}' has shape {array.shape}, expected (time, lat, lon) = {shape}.")
            unit = units.get(name, units.get(""))
            data[name] = (("time", "lat", "lon"), array, {} if not unit else {"units": unit})
    land = parts.get("land")
    if land is not None:
        if land.shape != shape[1:] or land.dtype != bool:
            raise InputError(f"{what}: 'land' must be boolean (lat, lon) = {shape[1:]}, got {land.dtype} {land.shape}.")
        for name, array in data.data_vars.items():
            data[name] = array.copy(data=np.where(land, np.nan, array.values))
    return data


def _npz_units(text: str) -> dict[str, str]:
    """``"K"``, or ``"t: K; p: kg m-2 s-1"``; the key "" holds for all."""
    if ":" not in text:
        return {"": text.strip()}
    return {k.strip(): v.strip() for k, _, v in (part.partition(":") for part in text.split(";"))}


def _checked(raw: xr.Dataset, names: list[str], units: dict[str, str], what: Path) -> xr.Dataset:
    arrays, land = {}, []
    for name in names:
        array = raw[name]
        if not {"time", "lat", "lon"} <= set(array.dims) or not set(array.dims) <= {"time", "level", "lat", "lon"}:
            raise InputError(f"{what}: '{name}' has dimensions {array.dims}, expected (time, [level], lat, lon).")
        unit = units.get(name, array.attrs.get("units", ""))
        if not unit:
            raise InputError(f"{what}: '{name}' has no units; pass units={{'{name}': 'K'}}, or what they are.")
        try:
            parse_units(unit)
        except InputError as error:
            raise InputError(f"{what}: '{name}': {error}") from error
        values = array.transpose("time", ..., "lat", "lon").astype(np.float32).load()
        about = {k: str(v) for k, v in array.attrs.items() if k in ("long_name", "standard_name")}
        arrays[name] = values.drop_vars([c for c in values.coords if c not in values.dims])
        arrays[name].attrs = {**about, "units": unit}
        gone = np.isnan(arrays[name].values)
        never = gone.all(axis=tuple(range(gone.ndim - 2)))
        if (gone & ~never).any() or np.isinf(arrays[name].values).any():
            count = int((gone & ~never).sum() + np.isinf(arrays[name].values).sum())
            raise InputError(
                f"{what}: '{name}' has {count} values that are missing at some times only, or infinite; fill them "
                "first (points missing at all times are taken as land)."
            )
        land.append(never)
    if any((one != land[0]).any() for one in land):
        raise InputError(f"{what}: {', '.join(names)} are missing at different points; read them one by one.")
    if land[0].all():
        raise InputError(f"{what}: '{names[0]}' holds no number.")
    data = xr.Dataset(arrays)
    _check_coordinates(data, what)
    about = {"units": "1", "long_name": "points without values at any time"}
    data["land"] = (("lat", "lon"), land[0], about)
    data["lat"].attrs = {"units": "degrees_north", "standard_name": "latitude"}
    data["lon"].attrs = {"units": "degrees_east", "standard_name": "longitude"}
    return data.sortby(["lat", "lon"])


def _check_coordinates(data: xr.Dataset, what: Path) -> None:
    for name, limit in (("lat", 90.0), ("lon", 360.0)):
        if name not in data.coords:
            raise InputError(f"{what}: expected a coordinate '{name}' in degrees.")
        values = np.asarray(data[name].values, np.float64)
        if not np.isfinite(values).all() or np.abs(values).max() > limit + 1e-6 or len(np.unique(values)) < len(values):
            raise InputError(f"{what}: '{name}' must hold different degrees between {-limit:g} and {limit:g}.")
    time = data["time"].values if "time" in data.coords else np.empty(0)
    if time.dtype.kind != "M" or (np.diff(time) <= np.timedelta64(0)).any() or np.isnat(time).any():
        raise InputError(f"{what}: 'time' must hold dates that increase, found {time.dtype}.")


def split_times(
    data: xr.Dataset, validation: Sequence[str] | None = None, test: Sequence[str] | None = None
) -> xr.Dataset:
    """Adds the coordinate ``split`` (time): stretches kept apart, the rest for training.

    Arguments:
        data: With ``time``.
        validation, test: First and last date, inclusive, as ``("2006", "2006-06")``.

    Raises:
        InputError: a stretch that holds no time, or two that overlap.
    """
    split = np.full(data.sizes["time"], "train", dtype="<U10")
    for part, stretch in (("validation", validation), ("test", test)):
        if stretch is None:
            continue
        if isinstance(stretch, str) or len(stretch) != 2:
            raise InputError(f"{part} is the first and the last date, as ['2007', '2008']; got {stretch!r}.")
        index = data["time"].to_index()
        chosen = np.zeros(len(split), bool)
        chosen[index.slice_indexer(str(stretch[0]), str(stretch[1]))] = True
        if not chosen.any():
            raise InputError(f"no time lies in {part} = {list(stretch)}; the data go from {index[0]} to {index[-1]}.")
        if (split[chosen] != "train").any():
            raise InputError("validation and test overlap; choose separate stretches.")
        split[chosen] = part
    if not (split == "train").any():
        raise InputError("validation and test leave no time for training.")
    return data.assign_coords(split=("time", split))


def oisst_boxes(
    folder: str | os.PathLike[str],
    boxes: Sequence[int],
    variable: str = "sst",
    validation: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
) -> xr.Dataset:
    """Sea surface temperature in the layout of the DYffusion paper: one file ``sst.day.mean.box{b}.nc`` a box.

    Boxes lie apart, so they become the dimension ``trajectory``, with points counted along y and x; the places of a box
    are kept as ``box_lat`` (trajectory, y) and ``box_lon`` (trajectory, x).

    Arguments:
        folder: Holds the files.
        boxes: Numbers of the boxes; all have the same number of points and the same times.
        variable: Name in the files.
        validation, test: As in `read_series`.

    Raises:
        InputError: naming file and field.

    References:
        DYffusion: a dynamics-informed diffusion model for spatiotemporal forecasting, Ruehling Cachay, Zhao, Joren and
        Yu, 2023, arXiv:2306.01984 (11 boxes of 60 x 60 points of NOAA OISSTv2).
    """
    if not boxes:
        raise InputError("name at least one box.")
    paths = [Path(folder) / f"sst.day.mean.box{box}.nc" for box in boxes]
    parts = [read_series(path, variable, {variable: "degC"}, validation, test) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part[variable].shape != parts[0][variable].shape or (part["time"].values != parts[0]["time"].values).any():
            raise InputError(f"{path}: grid or times are not those of {paths[0]}.")
        if bool(part["land"].any()):
            raise InputError(f"{path}: the box holds land; the boxes of the paper are all sea.")
    values = np.stack([part[variable].values for part in parts])
    coords = {
        "trajectory": list(boxes),
        "time": parts[0]["time"],
        "box_lat": (("trajectory", "y"), np.stack([p["lat"].values for p in parts]), parts[0]["lat"].attrs),
        "box_lon": (("trajectory", "x"), np.stack([p["lon"].values for p in parts]), parts[0]["lon"].attrs),
        **({"split": parts[0]["split"]} if "split" in parts[0].coords else {}),
    }
    attrs = {"units": "degC", "long_name": "sea surface temperature"}
    return xr.Dataset({variable: (("trajectory", "time", "y", "x"), values, attrs)}, coords)
