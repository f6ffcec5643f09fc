"""K-space in HDF5 and MATLAB files: fastMRI, ISMRMRD, version 7.3 and version 5. Used by `scidiff.datasets.kspace`.

References:
    fastMRI: An Open Dataset and Benchmarks for Accelerated MRI. Zbontar et al., 2018, arXiv 1811.08839.
    ISMRM Raw data format: a proposed standard for MRI raw datasets. Inati et al., 2017, Magn. Reson. Med. 77.
"""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.datasets.kspace_raw import Raw, choose_variable
from scidiff.errors import InputError

if TYPE_CHECKING:
    import h5py

__all__ = ["read_hdf5", "read_mat"]


def read_mat(path: Path, variable: str | None) -> Raw:
    """MATLAB files; arrays come in MATLAB's order of axes."""
    import h5py
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            found = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
            name = choose_variable(
                path, {n: (d.shape[::-1], _complex_type(d.dtype)) for n, d in found.items()}, variable
            )
            return Raw(_complex(found[name][()]).T, name)
    try:
        loaded = loadmat(path, struct_as_record=True)
    except (ValueError, TypeError, MatReadError, NotImplementedError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a MATLAB file ({error}).") from error
    arrays = {n: a for n, a in loaded.items() if not n.startswith("__") and isinstance(a, np.ndarray)}
    name = choose_variable(path, {n: (a.shape, a.dtype) for n, a in arrays.items()}, variable)
    return Raw(arrays[name], name)


def read_hdf5(path: Path, slice: int | None, variable: str | None) -> Raw:
    """An ISMRMRD or fastMRI file, or HDF5 with one complex array."""
    import h5py

    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: not an HDF5 file, although its name ends in '{path.suffix}'.")
    with h5py.File(path, "r") as file:
        group = file.get("dataset")
        ismrmrd = isinstance(group, h5py.Group) and "data" in group and "xml" in group
        if not ismrmrd:
            return _arrays(path, file, slice, variable)
    return _ismrmrd(path, slice)


def _arrays(path: Path, file: h5py.File, slice: int | None, variable: str | None) -> Raw:
    import h5py

    found = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
    name = choose_variable(path, {n: (d.shape, _complex_type(d.dtype)) for n, d in found.items()}, variable)
    data = found[name]
    # fastMRI: (slice, coil, ky, kx), or (slice, ky, kx) of one coil in a file that has its header.
    single = data.ndim == 3 and "ismrmrd_header" in found
    if data.ndim == 4 or single:
        index = _slice_index(path, slice, data.shape[0])
        array = _complex(data[index])
        attrs = {"slice": index, "slices": int(data.shape[0]), "phase_encoding": "kx"}  # fastMRI reads out along rows
    else:
        array, attrs = _complex(data[()]), {}
    mask = found["mask"][()] if "mask" in found else None
    voxel = None
    if "ismrmrd_header" in found:
        text = found["ismrmrd_header"][()]
        voxel = _voxel(path, text if isinstance(text, bytes) else str(text).encode(), readout_first=True)
    return Raw(array, name, "ky kx" if single else "coil ky kx", mask, voxel, attrs)


def _ismrmrd(path: Path, slice: int | None) -> Raw:
    from scidiff.optional import optional

    ismrmrd = optional("ismrmrd", extra="io")
    dataset = ismrmrd.Dataset(str(path), "dataset", mode="r")
    try:
        header = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
        encoding = header.encoding[0]
        kind = encoding.trajectory.value
        if kind != "cartesian":
            raise InputError(f"{path}: expected a Cartesian trajectory, found '{kind}'.")
        size = encoding.encodedSpace.matrixSize
        if size.z > 1:
            raise InputError(f"{path}: expected two-dimensional encoding, found {size.z} steps along the third axis.")
        skip = (
            ismrmrd.ACQ_IS_NOISE_MEASUREMENT, ismrmrd.ACQ_IS_NAVIGATION_DATA, ismrmrd.ACQ_IS_PHASECORR_DATA,
            ismrmrd.ACQ_IS_DUMMYSCAN_DATA, ismrmrd.ACQ_IS_RTFEEDBACK_DATA, ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
        )  # fmt: skip
        lines = [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]
    finally:
        dataset.close()
    lines = [line for line in lines if not any(line.isFlagSet(flag) for flag in skip)]
    if not lines:
        raise InputError(f"{path}: the file holds no imaging lines.")
    slices = sorted({line.idx.slice for line in lines})
    index = _slice_index(path, slice, len(slices))
    lines = [line for line in lines if line.idx.slice == slices[index]]
    first = [line for line in lines if not any((line.idx.contrast, line.idx.repetition, line.idx.phase, line.idx.set))]
    if len(first) < len(lines):
        warnings.warn(f"{path}: several contrasts, repetitions, phases or sets; only the first is read.", stacklevel=4)
    limits = encoding.encodingLimits.kspace_encoding_step_1
    centre = limits.center if limits is not None else size.y // 2
    total = np.zeros((first[0].active_channels, size.y, size.x), np.complex128)
    count = np.zeros((size.y, size.x), int)
    for line in first:
        _place(path, line, line.isFlagSet(ismrmrd.ACQ_IS_REVERSE), centre, total, count)
    space = encoding.encodedSpace.fieldOfView_mm
    voxel = (space.y / size.y, space.x / size.x) if space.x > 0 and space.y > 0 else None
    attrs = {"slice": index, "slices": len(slices)}
    return Raw(total / np.maximum(count, 1), "dataset/data", "coil ky kx", count > 0, voxel, attrs)


def _place(path: Path, line: Any, reverse: bool, centre: int, total: np.ndarray, count: np.ndarray) -> None:
    """Adds one acquired line (ISMRMRD acquisition) at its place in k-space; repeated lines are averaged."""
    data = line.data[:, ::-1] if reverse else line.data
    samples = data.shape[1]
    middle = samples - 1 - line.center_sample if reverse else line.center_sample
    row, start = line.idx.kspace_encode_step_1 - centre + total.shape[1] // 2, total.shape[2] // 2 - middle
    if (
        data.shape[0] != total.shape[0]
        or not 0 <= row < total.shape[1]
        or start < 0
        or start + samples > total.shape[2]
    ):
        raise InputError(
            f"{path}: a line of {data.shape[0]} coils and {samples} samples at step {line.idx.kspace_encode_step_1} "
            f"does not fit k-space of shape {total.shape} (coil, ky, kx) that the header states."
        )
    total[:, row, start : start + samples] += data
    count[row, start : start + samples] += 1


def _slice_index(path: Path, slice: int | None, slices: int) -> int:
    if slices < 1:
        raise InputError(f"{path}: the file holds no slices.")
    index = slices // 2 if slice is None else slice
    if not -slices <= index < slices:
        raise InputError(f"{path}: there is no slice {slice}; the file holds {slices}, counted from 0.")
    return index % slices


def _complex_type(dtype: np.dtype) -> np.dtype:
    """MATLAB stores complex numbers as pairs (real, imag)."""
    return np.dtype(np.complex128) if dtype.names == ("real", "imag") else dtype


def _complex(array: np.ndarray) -> np.ndarray:
    return array["real"] + 1j * array["imag"] if array.dtype.names == ("real", "imag") else array


def _voxel(path: Path, text: bytes, readout_first: bool) -> tuple[float, float] | None:
    """Pixel size in mm along the two axes of k-space, from an ISMRMRD header; fastMRI stores the readout first."""
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise InputError(f"{path}: the ismrmrd_header declares XML entities, which a header never does.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: the ismrmrd_header is not XML ({error}).") from error
    space = root.find("{*}encoding/{*}encodedSpace")
    if space is None:
        return None
    sizes = {}
    for axis in "xy":
        points = space.findtext(f"{{*}}matrixSize/{{*}}{axis}")
        extent = space.findtext(f"{{*}}fieldOfView_mm/{{*}}{axis}")
        if points is None or extent is None or float(points) <= 0 or float(extent) <= 0:
            return None
        sizes[axis] = float(extent) / float(points)
    return (sizes["x"], sizes["y"]) if readout_first else (sizes["y"], sizes["x"])
