"""``scidiff inspect FILE``: what a file holds, from its header alone; nothing in it is run.

The kind of a file is read from its first bytes, not from its name. Pickles are refused: opening one runs its code.
"""

from __future__ import annotations

import json as json_module
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import Json, emit
from scidiff.errors import InputError

__all__ = ["describe", "inspect"]

PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
LONGEST_HEADER = 100 << 20  # the limit of the safetensors format


def _refuse(path: Path) -> InputError:
    return InputError(
        f"{path}: this is a pickle or holds one, as torch.save writes. Opening a pickle runs the code inside, so it is "
        "never opened. Ask for safetensors weights, or convert it where you trust it (safetensors.torch.save_file)."
    )


def _numpy(path: Path) -> dict[str, Any]:
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise _refuse(path) from error
        raise InputError(f"{path}: expected a NumPy array, but the file is cut off or damaged ({error}).") from error
    return {"kind": "NumPy array", "shape": list(array.shape), "dtype": str(array.dtype)}


def _zip(path: Path) -> dict[str, Any]:
    import zipfile

    import numpy as np

    try:
        names = zipfile.ZipFile(path).namelist()
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: a damaged zip archive ({error}).") from error
    if not names or not all(name.endswith(".npy") for name in names):
        if any(name.endswith(".pkl") for name in names):
            raise _refuse(path)
        raise InputError(
            f"{path}: a zip archive with {', '.join(names[:3]) or 'nothing'} inside; expected NumPy arrays."
        )
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                arrays[name] = {"shape": list(archive[name].shape), "dtype": str(archive[name].dtype)}
            except ValueError as error:
                raise _refuse(path) from error
    return {"kind": "NumPy archive", "variables": arrays}


def _hdf5(path: Path) -> dict[str, Any]:
    import h5py

    variables: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            variables[name] = {
                "shape": list(item.shape or ()),
                "dtype": str(item.dtype),
                "attributes": _attributes(item),
            }

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
            attributes = _attributes(file)
    except OSError as error:
        raise InputError(f"{path}: expected HDF5, but the file is cut off or damaged ({error}).") from error
    if "ismrmrd_header" in variables and "kspace" in variables:
        kind = "fastMRI k-space (HDF5)"
    elif any(name.endswith("/xml") and f"{name[:-4]}/data" in variables for name in variables):
        kind = "ISMRMRD raw data (HDF5)"
    elif "Conventions" in attributes:
        kind = f"NetCDF ({attributes['Conventions']})"
    else:
        kind = "HDF5"
    return {"kind": kind, "variables": variables, "attributes": attributes}


def _attributes(item: Any) -> dict[str, Any]:
    """Attributes as plain values; JSON inside a string is parsed; what belongs to the file format is left out."""
    hidden = {
        "DIMENSION_LIST",
        "REFERENCE_LIST",
        "CLASS",
        "NAME",
        "_Netcdf4Dimid",
        "_Netcdf4Coordinates",
        "_NCProperties",
    }
    out = {}
    for name in item.attrs:
        if name in hidden:
            continue
        value: Any = item.attrs[name]
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, str) and value[:1] in "{[" and value:
            try:
                value = json_module.loads(value)
            except json_module.JSONDecodeError:
                pass
        out[name] = value
    return out


def _netcdf3(path: Path) -> dict[str, Any]:
    from scipy.io import netcdf_file

    with netcdf_file(path, "r", mmap=False) as file:
        variables = {n: {"shape": list(v.shape), "dtype": str(v.data.dtype)} for n, v in file.variables.items()}
    return {"kind": "NetCDF 3", "variables": variables}


def _matlab(path: Path) -> dict[str, Any]:
    from scipy.io import whosmat

    return {"kind": "MATLAB", "variables": {n: {"shape": list(s), "dtype": d} for n, s, d in whosmat(path)}}


def _safetensors(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json_module.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    tensors = {name: {"shape": entry["shape"], "dtype": entry["dtype"]} for name, entry in header.items()}
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != path.stat().st_size:
        raise InputError(
            f"{path}: expected {end} bytes of safetensors weights, found {path.stat().st_size}; download again."
        )
    numbers = sum(_product(entry["shape"]) for entry in tensors.values())
    card = path.with_suffix(".json")
    return {
        "kind": "safetensors weights",
        "parameters": numbers,
        "metadata": metadata,
        "card": _json(card)["content"] if card.is_file() else None,
        "variables": tensors,
    }


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _json(path: Path) -> dict[str, Any]:
    try:
        return {"kind": "JSON", "content": json_module.loads(path.read_text(encoding="utf-8"))}
    except (json_module.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected JSON, but it cannot be parsed ({error}).") from error


def _nifti(path: Path) -> dict[str, Any]:
    from scidiff.optional import optional

    nibabel = optional("nibabel", extra="io")
    image = nibabel.load(path)
    return {"kind": "NIfTI volume", "shape": list(image.shape), "dtype": str(image.get_data_dtype())}


def _zarr(path: Path) -> dict[str, Any]:
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path}: a folder, but not a Zarr store ({error}).") from error
    arrays = {
        n: {"shape": list(a.shape), "dtype": str(a.dtype), "attributes": dict(a.attrs)} for n, a in group.arrays()
    }
    return {"kind": "Zarr", "variables": arrays, "attributes": dict(group.attrs)}


def _reader(path: Path) -> Callable[[Path], dict[str, Any]]:
    with open(path, "rb") as file:
        head = file.read(16)
    starts = {
        b"\x89HDF\r\n\x1a\n": _hdf5,
        b"\x93NUMPY": _numpy,
        b"PK": _zip,
        b"MATLAB 5.0 MAT-": _matlab,
        b"CDF": _netcdf3,
    }
    for start, reader in starts.items():
        if head.startswith(start):
            return reader
    if path.name.endswith((".nii", ".nii.gz")):
        return _nifti
    if head[:1] == b"\x80" or path.suffix in PICKLE_SUFFIXES:
        raise _refuse(path)
    if (
        len(head) > 8
        and head[8:9] == b"{"
        and struct.unpack("<Q", head[:8])[0] <= min(LONGEST_HEADER, path.stat().st_size - 8)
    ):
        return _safetensors
    if head.lstrip()[:1] in (b"{", b"["):
        return _json
    with open(path, "rb") as file:
        if file.read(1024).startswith(b"MATLAB 7.3"):
            return _hdf5
    raise InputError(
        f"{path}: a file of unknown kind; expected NetCDF, HDF5 (fastMRI, ISMRMRD), Zarr, .npy, .npz, .mat, NIfTI, "
        "safetensors or JSON."
    )


def _bundled(path: Path) -> Path:
    folder = Path(__file__).parent.parent / "pretrained"
    priors, forecasters = (
        {p.stem: p for p in sorted(place.glob("*.safetensors"))} for place in (folder, folder / "forecasters")
    )
    if str(path) not in priors | forecasters:
        raise InputError(
            f"{path}: no such file, nor a bundled prior or autoencoder ({', '.join(priors)}) "
            f"or forecaster ({', '.join(forecasters)})."
        )
    return (priors | forecasters)[str(path)]


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Kind, shapes, types and attributes of what a file, or a bundled prior or autoencoder of that name, holds.

    Raises:
        InputError: Missing, damaged or of unknown kind, or a pickle.
        MissingPackageError: NIfTI without nibabel.
    """
    path = Path(path)
    if not path.exists():
        path = _bundled(path)
    try:
        found = _zarr(path) if path.is_dir() else _reader(path)(path)
    except PermissionError as error:
        raise InputError(f"{path}: may not be read ({error.strerror}).") from error
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
    return {"file": path, "bytes": size, **found}


def inspect(
    file: Annotated[
        Path,
        typer.Argument(help="A result, weights (or the name of bundled ones), a card, or a measurement."),
    ],
    json: Json = False,
) -> None:
    """Shows what a result, weights, a card or a k-space file holds, from its header; a pickle is refused."""
    record = describe(file)
    if json:
        emit(record)
        return
    variables = record.pop("variables", {})
    for name, value in record.items():
        _print(name, value)
    for name, value in variables.items():
        shape = " x ".join(map(str, value["shape"])) or "scalar"
        units = value.get("attributes", {}).get("units", "")
        typer.echo(f"  {name:<40} {shape:<20} {value['dtype']} {units}".rstrip())


def _print(name: str, value: Any, indent: str = "") -> None:
    if isinstance(value, dict) and value:
        typer.echo(f"{indent}{name}:")
        for key, part in value.items():
            _print(key, part, indent + "  ")
    else:
        text = str(value)
        typer.echo(f"{indent}{name}: {text if len(text) <= 200 else text[:200] + ' ... (--json shows all)'}")
