r"""xarray outside, tensors inside: units, complex numbers, provenance and files that are whole or absent.

A field ``x`` (\*X) inside is a `torch.Tensor`; outside it is a `xarray.DataArray` with dimensions, coordinates and a
``units`` attribute. The numbers are the same: complex64 stays complex64, in memory and in NetCDF (h5netcdf engine).

Files are written under a temporary name in the same folder, synchronised to disk and renamed, so that a reader or a
crash meets either the old file or the new one. They hold no time of day: equal content gives equal bytes.

This is the only file of scidiff that imports xarray.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scidiff.errors import InputError

if TYPE_CHECKING:
    import pint

__all__ = [
    "atomic",
    "convert_units",
    "dequantify",
    "digest",
    "from_tensor",
    "merge_complex",
    "open_result",
    "parse_units",
    "split_complex",
    "to_tensor",
    "write_dataset",
    "write_json",
    "write_streamed",
]

ENGINE = "h5netcdf"


# Units


def parse_units(text: str) -> pint.Unit:
    """The pint unit of a CF units string such as ``"m s-1"`` or ``"degC"``; an empty string is dimensionless.

    Raises:
        InputError: the string is no unit.
    """
    from cf_xarray.units import units as registry  # pint with the CF names and the "cf" format

    try:
        return registry.Unit(text or "1") if text not in ("", "1") else registry.dimensionless
    except Exception as error:  # pint raises half a dozen unrelated types for a bad string
        raise InputError(f"units {text!r} are not understood ({error}); write units as 'm s-1' or 'K'.") from error


def _is_quantity(data: Any) -> bool:
    return hasattr(data, "magnitude") and hasattr(data, "units") and hasattr(data, "dimensionality")


def dequantify(data: xr.Dataset) -> xr.Dataset:
    """The same data with every pint quantity replaced by its magnitude and a ``units`` attribute in CF spelling.

    Without this step the units vanish silently when a file is written.
    """
    import cf_xarray.units  # noqa: F401 - registers the "cf" format with pint

    changed: dict[Any, xr.Variable] = {}
    for name, variable in data.variables.items():
        numbers: Any = variable._data  # `.data` would read a lazy variable from its file
        units = variable.attrs.get("units")
        if _is_quantity(numbers):
            attrs = {**variable.attrs, "units": f"{numbers.units:~cf}" or "1"}
            changed[name] = xr.Variable(variable.dims, np.asarray(numbers.magnitude), attrs)
        elif hasattr(units, "dimensionality"):
            changed[name] = xr.Variable(variable.dims, numbers, {**variable.attrs, "units": f"{units:~cf}" or "1"})
    return data.assign(changed) if changed else data


def convert_units(array: xr.DataArray, units: str) -> xr.DataArray:
    """The array in other units; values change, dimensions and coordinates stay.

    Arguments:
        array: With a ``units`` attribute or pint data; without either it is refused.
        units: CF units of the answer.

    Raises:
        InputError: units are absent, unknown or of another dimensionality.
    """
    name = array.name or "the array"
    wanted = parse_units(units)
    array = dequantify(array.to_dataset(name="array"))["array"].rename(array.name)
    if "units" not in array.attrs:
        raise InputError(f"{name} has no units attribute; expected {units!r}. Set array.attrs['units'].")
    found = parse_units(str(array.attrs["units"]))
    if found.dimensionality != wanted.dimensionality:
        raise InputError(f"{name} has units {array.attrs['units']!r}, which do not measure the same as {units!r}.")
    if found == wanted:
        return array.assign_attrs(units=units)
    values = wanted._REGISTRY.Quantity(array.values, found).to(wanted).magnitude
    return array.copy(data=values.astype(array.dtype, copy=False)).assign_attrs(units=units)


# Tensors


def to_tensor(
    array: xr.DataArray,
    dims: Sequence[str] | None = None,
    units: str | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The numbers of an array as a tensor.

    Arguments:
        array: Real or complex field, finite everywhere.
        dims: Order of dimensions of the tensor; None keeps the order of the array.
        units: Units the tensor shall have; None takes the numbers as they are.
        dtype: Type of the tensor; None keeps that of the array.
        device: Where the tensor shall live.

    Raises:
        InputError: dimensions or units differ from the expected ones, or a value is NaN or infinite.
    """
    name = array.name or "the array"
    if dims is not None:
        if set(dims) != set(array.dims):
            raise InputError(f"{name} has dimensions {tuple(array.dims)}, expected {tuple(dims)}.")
        array = array.transpose(*dims)
    if units is not None:
        array = convert_units(array, units)
    values = np.asarray(array.data.magnitude if _is_quantity(array.data) else array.values)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise InputError(f"{name} holds {bad} NaN or infinite values of {values.size}; mask or remove them first.")
    return torch.tensor(np.ascontiguousarray(values), dtype=dtype, device=device)


def from_tensor(tensor: Tensor, template: xr.DataArray) -> xr.DataArray:
    """The tensor with the dimensions, coordinates, name and attributes of a template of as many numbers.

    Raises:
        InputError: the numbers do not fit the template, or complex numbers would lose their imaginary part.
    """
    name = template.name or "the field"
    if tensor.numel() != template.size:
        sizes = dict(zip(template.dims, template.shape, strict=True))
        raise InputError(f"{name} has {sizes}, {template.size} numbers; the tensor has shape {tuple(tensor.shape)}.")
    if tensor.is_complex() and not np.issubdtype(template.dtype, np.complexfloating):
        raise InputError(f"{name} is real ({template.dtype}), the tensor is complex; take its real part or magnitude.")
    values = tensor.detach().cpu().numpy().reshape(template.shape)
    return template.copy(data=values)


# Complex numbers for programs that know none


def split_complex(data: xr.Dataset) -> xr.Dataset:
    """Every complex variable ``v`` as two real ones, ``v_real`` and ``v_imag``."""
    parts: dict[str, xr.Variable] = {}
    split = [name for name in data.data_vars if np.issubdtype(data[name].dtype, np.complexfloating)]
    for name in split:
        variable = data[name].variable
        parts[f"{name}_real"] = xr.Variable(variable.dims, np.real(variable.values), variable.attrs)
        parts[f"{name}_imag"] = xr.Variable(variable.dims, np.imag(variable.values), variable.attrs)
    return data.drop_vars(split).assign(parts)


def merge_complex(data: xr.Dataset) -> xr.Dataset:
    """Undoes `split_complex`; loads the pairs ``v_real``, ``v_imag`` into memory."""
    names = [str(n).removesuffix("_real") for n in data.data_vars if str(n).endswith("_real")]
    for name in [n for n in names if f"{n}_imag" in data]:
        real, imag = data[f"{name}_real"].variable, data[f"{name}_imag"].variable
        data = data.drop_vars([f"{name}_real", f"{name}_imag"])
        data[name] = xr.Variable(real.dims, real.values + 1j * imag.values, real.attrs)
    return data


# Fingerprints


def digest(source: str | os.PathLike[str] | np.ndarray | Tensor | xr.Dataset | bytes) -> str:
    """The sha256 of a file's bytes, or of the type, shape and numbers of an array, or of the variables of a dataset."""
    total = hashlib.sha256()
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    elif isinstance(source, bytes):
        total.update(source)
    elif isinstance(source, xr.Dataset):
        for name in sorted(source.variables, key=str):
            variable = source.variables[name]
            total.update(f"{name}{variable.dims}{digest(np.asarray(variable.values))}".encode())
            total.update(str(sorted((k, str(v)) for k, v in variable.attrs.items())).encode())
    else:
        array = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
        total.update(f"{array.dtype.str}{array.shape}".encode())
        kind = array.dtype.kind
        total.update(np.ascontiguousarray(array).tobytes() if kind not in "OUT" else repr(array.tolist()).encode())
    return total.hexdigest()


# Writing


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path``: synchronised and renamed to it on success, removed on failure."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there; the rename itself is durable
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a JSON object, whole or not at all; keys keep their order."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def _reserve(path: Path, data: xr.Dataset, more: int = 0) -> None:
    """Raises OSError if the disk cannot take the file.

    HDF5 may crash the process (a segmentation fault while it closes) when a write fails, so the room is asked for
    before it begins: the numbers, and more than enough for headers and attributes.
    """
    headers = (1 << 16) + (1 << 13) * len(data.variables) + len(str(data.attrs))
    size = sum(v.nbytes for v in data.variables.values()) + more + headers
    with open(path, "wb") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except (AttributeError, OSError) as error:  # absent on this system, or not offered by this file system
            if getattr(error, "errno", errno.EOPNOTSUPP) not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
                raise
            for _ in range(0, size, 1 << 20):
                stream.write(bytes(1 << 20))
    path.unlink()


def _encoding(data: xr.Dataset) -> dict[str, dict[str, Any]]:
    # xarray would add a _FillValue of NaN to every float: a coordinate must not have one (CF 2.5.1), a field need not.
    floats = [n for n, v in data.variables.items() if np.issubdtype(v.dtype, np.inexact)]
    return {str(name): {"_FillValue": None} for name in floats}


def write_dataset(data: xr.Dataset, path: str | os.PathLike[str], portable: bool = False) -> None:
    """Writes NetCDF: atomically, units in words, complex numbers as complex64 or (portable) as two real variables."""
    data = dequantify(data)
    data = split_complex(data) if portable else data
    with atomic(path) as temporary:
        _reserve(temporary, data)
        data.drop_encoding().to_netcdf(temporary, engine=ENGINE, encoding=_encoding(data))


def write_streamed(
    path: str | os.PathLike[str],
    rest: xr.Dataset,
    template: xr.DataArray,
    read: Callable[[int], np.ndarray],
    members: Sequence[int],
    portable: bool = False,
) -> None:
    r"""Writes a dataset whose largest variable never stands in memory: one member at a time is read and written.

    Arguments:
        path: NetCDF file to write, atomically.
        rest: Everything but the members: statistics, observation, attributes.
        template: Dimensions, coordinates, name, attributes and type of one member.
        read: ``read(m)`` gives the numbers of member ``m`` in the shape of the template.
        members: Indices of the members, which become the coordinate ``member``.
        portable: Store complex numbers as ``_real`` and ``_imag``.
    """
    import h5netcdf

    template = dequantify(template.to_dataset(name="field"))["field"].rename(template.name)
    rest = rest.assign_coords({"member": ("member", np.asarray(members), {"long_name": "ensemble member"})})
    rest = rest.assign_coords(template.coords)
    rest = dequantify(rest)
    rest = split_complex(rest) if portable else rest
    is_complex = np.issubdtype(template.dtype, np.complexfloating)
    take = {"_real": np.real, "_imag": np.imag} if portable and is_complex else {"": np.asarray}
    with atomic(path) as temporary:
        _reserve(temporary, rest, len(members) * template.nbytes)
        rest.drop_encoding().to_netcdf(temporary, engine=ENGINE, encoding=_encoding(rest))
        with h5netcdf.File(temporary, "a") as file:
            for size, dim in zip(template.shape, template.dims, strict=True):
                if dim not in file.dimensions:
                    file.dimensions[dim] = size
            for suffix, part in take.items():
                kind = part(np.zeros((), template.dtype)).dtype
                variable = file.create_variable(f"{template.name}{suffix}", ("member", *template.dims), kind)
                # Names of coordinates that are no dimensions, as CF and xarray spell them.
                extra = sorted(str(c) for c in template.coords if c not in template.dims)
                variable.attrs.update(template.attrs | ({"coordinates": " ".join(extra)} if extra else {}))
                for row, member in enumerate(members):
                    variable[row] = part(read(member).reshape(template.shape))


def open_result(path: str | os.PathLike[str]) -> xr.Dataset:
    """Opens a result lazily: members are read when they are used.

    Raises:
        InputError: the file is absent or no NetCDF.
    """
    if not Path(path).is_file():
        raise InputError(f"{os.fspath(path)}: no such file.")
    try:
        return xr.open_dataset(path, engine=ENGINE)
    except OSError as error:
        raise InputError(f"{os.fspath(path)} is not a NetCDF-4 file: {error}") from error
