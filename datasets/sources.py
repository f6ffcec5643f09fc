r"""Where training fields come from: a table of a configuration file becomes a function that draws fields.

========== =============================================================================================
``kind``   fields
========== =============================================================================================
slices     complex crops of magnitude volumes (`scidiff.datasets.slices`); channels real, imaginary
phantom    complex head phantoms, drawn afresh each time (`scidiff.datasets.phantom`); no files
arrays     windows of stored fields, (N, \*grid), or (N, C, \*grid) with ``channels = true``; .npy, .npz, .h5;
           standardised per channel
ct         windows of CT volumes in Hounsfield units (`scidiff.datasets.ct_slices`)
fields     windows of variables of NetCDF, HDF5 or Zarr archives, read while training, standardised per variable
           (`scidiff.datasets.stored_fields`)
========== =============================================================================================

Simulators, which need no files (`SIMULATORS`): gaussian-field, poisson-pairs, darcy-pairs, kolmogorov, lorenz63,
lorenz96, vorticity, rings, compact-sources, patches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from scidiff.errors import InputError

if TYPE_CHECKING:
    from scidiff.datasets.simulator import Simulator

__all__ = ["SIMULATORS", "TrainingData", "training_data"]

Source = Callable[[Generator, tuple[int, ...]], "Tensor | tuple[Tensor, Tensor]"]


SIMULATORS = {
    "gaussian-field": "scidiff.datasets.gaussian_field:GaussianFields",
    "poisson-pairs": "scidiff.datasets.poisson_pairs:PoissonPairs",
    "darcy-pairs": "scidiff.datasets.darcy_pairs:DarcyPairs",
    "kolmogorov": "scidiff.datasets.kolmogorov:KolmogorovWindows",
    "lorenz63": "scidiff.datasets.lorenz:Lorenz63Windows",
    "lorenz96": "scidiff.datasets.lorenz:Lorenz96Windows",
    "vorticity": "scidiff.datasets.vorticity:VorticityFields",
    "rings": "scidiff.datasets.rings:Rings",
    "compact-sources": "scidiff.datasets.compact_sources:CompactSources",
    "patches": "scidiff.datasets.patches:Patches",
}
"""Kind -> class; the keys of ``[data]`` are the arguments of the class."""


@dataclass
class TrainingData:
    """A source of fields in units of ``u``, and what is needed to come back to physical units."""

    source: Source
    validation: Source | None
    channels: int
    loc: list[float] | float = 0.0
    scale: list[float] | float = 1.0
    complex: bool = False
    units: str = "1"
    files: dict[str, str] = field(default_factory=dict)
    """File name -> sha256; for stores that are folders, and large archives, a digest of names, sizes and metadata."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else the prior's card keeps: variables, units, transforms, condition."""
    modes: Tensor | None = None
    """Units of the sines of each channel, kept beside the weights."""


def training_data(kind: str, folder: str | Path = ".", **options: Any) -> TrainingData:
    """The source named by ``kind``; files are relative to ``folder``.

    Raises:
        InputError: Unknown kind or option, missing file, or fields that are not finite.
    """
    kinds: Mapping[str, Callable[..., TrainingData]] = {
        "slices": _slices,
        "phantom": _phantom,
        "arrays": _arrays,
        "fields": _stored,
        "ct": _ct,
        **{name: partial(_simulated, name) for name in SIMULATORS},
    }
    if kind not in kinds:
        raise InputError(f"data.kind is '{kind}'; expected one of {', '.join(kinds)}.")
    known = _options(kind)
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known)}."
            raise InputError(f"[data] of kind '{kind}' has no '{name}'; {hint}")
    try:
        return kinds[kind](Path(folder), **options)
    except TypeError as error:
        raise InputError(f"[data] of kind '{kind}' does not fit: {error}.") from error


def _options(kind: str) -> list[str]:
    """Names that the table may hold, besides ``kind``."""
    from scidiff.datasets.ct_slices import CTSlices
    from scidiff.datasets.slices import ComplexSlices, PhantomCrops

    makers: Mapping[str, tuple[Callable[..., Any], ...]] = {
        "slices": (_slices, ComplexSlices.__init__),
        "phantom": (_phantom, PhantomCrops.__init__),
        "arrays": (_arrays,),
        "fields": (_stored,),
        "ct": (_ct, CTSlices.__init__),
        **({kind: (_simulator(kind),)} if kind in SIMULATORS else {}),
    }
    names = [name for maker in makers[kind] for name in signature(maker).parameters]
    return [
        n for n in dict.fromkeys(names) if n not in ("self", "folder", "volumes", "sizes", "augmentation", "options")
    ]


def _simulator(kind: str) -> type[Simulator]:
    module, name = SIMULATORS[kind].split(":")
    return getattr(import_module(module), name)


def _simulated(kind: str, folder: Path, **options: Any) -> TrainingData:
    if options.get("cache"):
        options["cache"] = folder / options["cache"]
    try:
        source = _simulator(kind)(**options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"[data] of kind '{kind}': {error}") from error
    return TrainingData(
        source,
        source.held_out,
        channels=source.channels,
        loc=source.loc,
        scale=source.scale,
        units=source.units,
        extra=source.card,
        modes=source.modes,
    )


def _slices(
    folder: Path,
    files: Sequence[str],
    weights: Sequence[float] | None = None,
    validation: Sequence[str] = (),
    scale: float = 0.25,
    **augmentation: Any,
) -> TrainingData:
    from scidiff.datasets.slices import ComplexSlices

    def volumes(names: Sequence[str]) -> list[Tensor]:
        return [_volume(_existing(folder, name)) for name in names]

    return TrainingData(
        ComplexSlices(volumes(files), scale=scale, weights=weights, **augmentation),
        ComplexSlices(volumes(validation), scale=scale, **augmentation) if validation else None,
        channels=2,
        scale=scale,
        complex=True,
        units="1",
        files=_checksums(folder, files),
    )


def _ct(folder: Path, files: Sequence[str], validation: Sequence[str] = (), **augmentation: Any) -> TrainingData:
    from scidiff.datasets.ct_slices import CTSlices
    from scidiff.datasets.volumes import read_volume

    def source(names: Sequence[str], **more: Any) -> CTSlices:
        arrays = [read_volume(_existing(folder, name)) for name in names]
        for array in arrays:
            if "voxel_size" not in array.attrs:
                raise InputError(f"{array.attrs['source_file']}: a CT volume needs the size of its voxels.")
        values = [torch.from_numpy(array.values.copy()) for array in arrays]
        try:
            return CTSlices(values, [tuple(array.attrs["voxel_size"][1:]) for array in arrays], **more)
        except ValueError as error:
            raise InputError(f"[data] of kind 'ct': {error}") from error

    train = source(files, **augmentation)
    shared = {k: v for k, v in augmentation.items() if k != "weights"} | {"loc": train.loc, "scale": train.scale}
    return TrainingData(
        train,
        source(validation, **shared) if validation else None,
        channels=1,
        loc=train.loc,
        scale=train.scale,
        units="HU",
        files=_checksums(folder, [*files, *validation]),
        extra={"variables": ["CT number"], "pixel_size": train.pixel, "pixel_size_units": "mm"},
    )


def _volume(path: Path) -> Tensor:
    from scidiff.datasets.volumes import read_volume

    return torch.from_numpy(read_volume(path).values.copy()).float()


def _phantom(folder: Path, scale: float = 0.25, **options: Any) -> TrainingData:
    from scidiff.datasets.slices import PhantomCrops

    source = PhantomCrops(scale=scale, **options)
    return TrainingData(source, source, channels=2, scale=scale, complex=True)


def _arrays(
    folder: Path,
    files: Sequence[str],
    variable: str | None = None,
    channels: bool = False,
    validation: Sequence[str] = (),
    units: str = "1",
) -> TrainingData:
    fields = [_fields(_existing(folder, name), variable, channels) for name in files]
    if len({f.shape[1] for f in fields}) != 1:
        raise InputError(f"all files must have the same channels, got {[tuple(f.shape) for f in fields]}.")
    values = torch.cat([f.transpose(0, 1).flatten(1) for f in fields], dim=1).double()
    loc, scale = values.mean(1), values.std(1)
    if not bool((scale > 0).all()):
        raise InputError(f"channel {int(scale.argmin())} is constant; a prior needs fields that vary.")

    def windows(parts: Sequence[Tensor]) -> Source:
        return _Windows([((f - _per_channel(loc, f)) / _per_channel(scale, f)).float() for f in parts])

    held_out = [_fields(_existing(folder, name), variable, channels) for name in validation]
    return TrainingData(
        windows(fields),
        windows(held_out) if held_out else None,
        channels=fields[0].shape[1],
        loc=loc.tolist(),
        scale=scale.tolist(),
        units=units,
        files=_checksums(folder, files),
    )


def _stored(
    folder: Path,
    files: Sequence[str],
    variables: Sequence[str],
    dims: Sequence[str],
    split: float = 0.1,
    validation: Sequence[str] = (),
    condition: Sequence[str] = (),
    transforms: Mapping[str, Mapping[str, Any]] | None = None,
    units: Mapping[str, str] | None = None,
) -> TrainingData:
    from scidiff.datasets.stored_fields import StoredFields

    def archive(names: Sequence[str], known: Mapping[str, str]) -> StoredFields:
        parts = StoredFields.transforms_of(transforms or {}, variables)
        return StoredFields([folder / n for n in names], variables, dims, condition, parts, dict(known))

    if not 0 <= split < 1:
        raise InputError(f"data.split is the fraction held out for validation, in [0, 1); got {split}.")
    whole = archive(files, units or {})
    held_out: StoredFields | None = None
    if validation:
        held_out = archive(validation, whole.units)
    elif split:
        whole, held_out = whole.split(split)
    if not len(whole) or (held_out is not None and not len(held_out)):
        raise InputError("[data]: the archives hold no fields for training or validation.")
    whole.measure()
    if held_out is not None:
        held_out.loc, held_out.scale = whole.loc, whole.scale
    own = [whole.units[name] for name in variables]
    return TrainingData(
        whole,
        held_out,
        channels=len(variables),
        loc=[whole.loc[name] for name in variables],
        scale=[whole.scale[name] for name in variables],
        units=own[0] if len(set(own)) == 1 else "mixed",
        files={name: _fingerprint(folder / name) for name in [*files, *validation]},
        extra=whole.card,
    )


_WHOLE = 2**30
"""Archives beyond this size are not read for their checksum."""


def _fingerprint(path: Path) -> str:
    if path.is_file() and path.stat().st_size <= _WHOLE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for part in parts:
        digest.update(f"{part.relative_to(path).as_posix()} {part.stat().st_size}\n".encode())
        if part.name in {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}:
            digest.update(part.read_bytes())
    return digest.hexdigest()


class _Windows:
    """Random windows of stored fields, each field drawn with equal probability."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts, self.counts = list(parts), torch.tensor([float(len(p)) for p in parts])

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        part = self.parts[int(torch.multinomial(self.counts, 1, generator=generator))]
        field = part[int(torch.randint(len(part), (), generator=generator))]
        grid = field.shape[1:]
        if len(grid) != len(crop) or any(n < c for n, c in zip(grid, crop, strict=True)):
            raise InputError(
                f"fields have the grid {tuple(grid)}, training.crops asks for {crop}; choose a smaller crop."
            )
        corner = [int(torch.randint(n - c + 1, (), generator=generator)) for n, c in zip(grid, crop, strict=True)]
        return field[(slice(None), *(slice(k, k + c) for k, c in zip(corner, crop, strict=True)))]


def _per_channel(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(1, -1, *(1,) * (like.ndim - 2)).to(like.dtype)


def _fields(path: Path, variable: str | None, channels: bool) -> Tensor:
    import numpy as np

    if path.suffix in {".h5", ".hdf5"}:
        import h5py

        with h5py.File(path) as file:
            array = np.asarray(file[_pick(path, list(file.keys()), variable)])
    else:
        loaded = np.load(path, allow_pickle=False)
        array = loaded[_pick(path, loaded.files, variable)] if path.suffix == ".npz" else loaded
    fields = torch.from_numpy(np.ascontiguousarray(array)).float()
    least, form = (3, "(N, C, *grid)") if channels else (2, "(N, *grid)")
    if fields.ndim < least:
        raise InputError(f"{path}: expected fields {form}, found shape {tuple(fields.shape)}; see data.channels.")
    if not bool(torch.isfinite(fields).all()):
        raise InputError(f"{path}: expected finite fields, found NaN or infinite values.")
    return fields if channels else fields[:, None]


def _pick(path: Path, names: Sequence[str], variable: str | None) -> str:
    if variable is None and len(names) == 1:
        return names[0]
    if variable not in names:
        raise InputError(f"{path}: data.variable is {variable!r}; the file holds {', '.join(names)}.")
    return variable  # type: ignore[return-value]


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise InputError(f"{path}: no such file; data files are relative to --data or the folder of the configuration.")
    return path


def _checksums(folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
