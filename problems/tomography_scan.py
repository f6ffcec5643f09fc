r"""From a scan to an observation: one row, line integrals with their noise, the views that are used, those set aside.

====================  ===============================================================================================
``sinogram``          (angle, bin) line integrals of the views that are used; 0 where not ``valid``
``noise_std``         (angle, bin) standard deviation of the noise; 1 where not ``valid``
``valid``             (angle, bin) readings that count
``counts, blank``     (angle, bin) what was counted and what would be without an object, in photons; ``blank`` is 0
                      where not ``valid``. Only where the file holds counts
``background``        (angle, bin) photons that are counted without a beam
``held_...``          the same of the views set aside (held_angle, bin)
``reference``         (y, x) filtered backprojection of all views, where some were set aside
``centre, water``     detector coordinate of the axis in bins; attenuation that stands for 0 HU
====================  ===============================================================================================

Coordinates ``y, x`` are those of the field. Lengths are in mm, or in detector bins where nobody says how wide one is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scidiff.datasets.tomography import binned, centre_of_rotation, line_integrals
from scidiff.errors import InputError
from scidiff.operators.tomography import ParallelBeam
from scidiff.problems.attenuation import matched_water

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ALL_VIEWS", "Seen", "choose_views", "field_axes", "numbers", "observation_of", "projector", "sparse"]

ALL_VIEWS = "filtered backprojection of all views"
"""What is written on a reference that is itself computed from the scan."""


def numbers(array: xr.DataArray) -> Tensor:
    """A copy of the numbers of an array, float32."""
    return torch.from_numpy(np.array(array.values, dtype=np.float32))


class Seen:
    """A projector whose readings without information are zero: ``x -> valid * A(x)``.

    Arguments:
        operator: Projector to (B, 1, views, bins).
        valid: Readings that count, boolean (views, bins).
    """

    def __init__(self, operator: ParallelBeam, valid: Tensor) -> None:
        self.operator, self.valid = operator, valid

    def __call__(self, x: Tensor) -> Tensor:
        """Fields (B, 1, H, W) to line integrals (B, 1, views, bins)."""
        return self.operator(x) * self.valid

    def adjoint(self, y: Tensor) -> Tensor:
        """Transpose of the call."""
        return self.operator.adjoint(y * self.valid)

    def fbp(self, y: Tensor, **options: Any) -> Tensor:
        """Filtered backprojection; readings without information are interpolated along the detector first."""
        return self.operator.fbp(_filled(y, self.valid), **options)


def _filled(y: Tensor, valid: Tensor) -> Tensor:
    """Sinograms (B, 1, views, bins) with linear interpolation along the detector where not valid."""
    if bool(valid.all()):
        return y
    values, good = y.detach().cpu().double().numpy().copy(), valid.cpu().numpy()
    place = np.arange(y.shape[-1])
    for view in np.flatnonzero(~good.all(1) & good.any(1)):
        bad = ~good[view]
        for row in values.reshape(-1, *values.shape[-2:]):
            row[view, bad] = np.interp(place[bad], place[good[view]], row[view, good[view]])
    return torch.from_numpy(values).to(y)


def projector(observation: xr.Dataset, prefix: str = "") -> ParallelBeam:
    """The forward model of an observation's views; with the prefix ``held_``, of those set aside."""
    from scidiff.fields import parse_units

    degree = parse_units("degree")._REGISTRY.Quantity  # plain numbers within a turn would be taken for radians
    width, pixel = (abs(float(observation[name][1] - observation[name][0])) for name in ("bin", "x"))
    return ParallelBeam(
        (observation.sizes["y"], observation.sizes["x"]),
        degree(observation[f"{prefix}angle"].values.astype(float), "degree"),
        pixel=pixel,
        bins=observation.sizes["bin"],
        bin_width=width,
        centre=float(observation["centre"]),
        truncation="ignore",  # said by the problem, in terms of the file
    )


def field_axes(size: int, pixel: float, units: str) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
    """Coordinates y (downwards) and x of a square field about the axis of rotation."""
    place = (np.arange(size) - (size - 1) / 2) * pixel
    return {dim: (dim, place, {"units": units}) for dim in ("y", "x")}


def sparse(angles: np.ndarray, views: int) -> np.ndarray:
    """Indices of ``views`` projections spread evenly over half a turn (over the range, where that is less)."""
    order = np.argsort(angles, kind="stable")
    place = angles[order] - angles[order][0]
    inside = place < 180 - 1e-6
    count = int(inside.sum())
    if views > count:
        raise InputError(f"'angle': {views} views were asked for, but the scan has {count} within half a turn.")
    step = place[inside][-1] / max(count - 1, 1)
    span = min(180.0, place[inside][-1] + step)
    wanted = np.arange(views) * span / views
    chosen = np.abs(place[inside][None] - wanted[:, None]).argmin(1)
    if len(np.unique(chosen)) < views:
        chosen = np.linspace(0, count - 1, views).round().astype(int)
    return np.sort(order[:count][chosen])


def choose_views(angles: np.ndarray, low: float, high: float) -> np.ndarray:
    """Indices of the projections whose angle lies in [low, high], from the first angle of the scan on."""
    place = angles - angles.min()
    chosen = np.flatnonzero((place >= low - 1e-6) & (place <= high + 1e-6))
    if len(chosen) < 2:
        raise InputError(
            f"'angle': {len(chosen)} projections lie between {low:g} and {high:g} degrees after the first; the scan "
            f"spans {np.ptp(angles):.4g} degrees."
        )
    return chosen


def observation_of(
    scan: xr.Dataset,
    chosen: Any,
    *,
    row: int | None = None,
    binning: int = 1,
    pixel: float | None = None,
    size: int | None = None,
    centre: float | None = None,
    water: float | None = None,
    noise: float | None = None,
    model_error: float = 0.0,
    air: int = 0,
    zinger_limit: float | None = None,
) -> xr.Dataset:
    """The observation of a scan; see the module.

    Arguments:
        scan: Of `scidiff.datasets.tomography`.
        chosen: ``chosen(angles)`` gives the indices of the views that are used.
        row: Detector row; the middle one by default.
        binning: Detector bins that are joined.
        pixel: Side of a pixel of the field; by default a (joined) bin.
        size: Pixels of the field along both axes; by default what the detector sees from all sides.
        centre: Of rotation, in bins of the file; by default found from opposite projections.
        water: Attenuation that stands for 0 HU; by default matched to a first picture from the chosen views.
        noise: Standard deviation of the line integrals, where the file holds no counts.
        model_error: Standard deviation of what is wrong with line integrals besides photon noise, added in quadrature.
        air: Bins at both ends that see air alone, see `line_integrals`.
        zinger_limit: See `line_integrals`.
    """
    import xarray as xr

    name = str(scan.attrs.get("source_file", "the scan"))
    rows = scan.sizes["row"]
    row = rows // 2 if row is None else row
    if not 0 <= row < rows:
        raise InputError(f"{name}: 'row' {row} does not exist; the scan has {rows}.")
    fine = line_integrals(scan, zinger_limit=zinger_limit, air=air, name=name)
    axis = centre_of_rotation(fine["sinogram"].isel(row=row), name=name) if centre is None else float(centre)
    if not 0 <= axis <= scan.sizes["bin"] - 1:
        raise InputError(f"{name}: the centre {axis:g} lies beside the detector of {scan.sizes['bin']} bins.")
    scan = binned(scan.isel(row=[row]), binning)
    lines = line_integrals(scan, zinger_limit=zinger_limit, air=-(-air // binning), name=name).isel(row=0)
    axis = (axis - (binning - 1) / 2) / binning
    bins, width = scan.sizes["bin"], float(scan.attrs["bin_width"])
    pixel = width if pixel is None else float(pixel)
    reach = min(axis + 0.5, bins - 0.5 - axis) * width
    size = int(2 * reach / pixel + 1e-6) if size is None else int(size)
    if size * pixel > bins * width * (1 + 1e-6):
        raise InputError(
            f"{name}: the field is wider than the detector: {size} pixels of {pixel:g} are {size * pixel:g}, "
            f"'bin' spans {bins * width:g}. Lower size (at most {int(bins * width / pixel)}) or pixel."
        )
    std = lines["noise_std"]
    if bool(np.isnan(std).any()):
        if noise is None:
            raise InputError(
                f"{name}: the file holds line integrals and does not say how noisy they are; give noise=..., their "
                "standard deviation."
            )
        std = xr.full_like(std, noise)
    std = (std**2 + model_error**2) ** 0.5
    std = std.assign_attrs(units="1", long_name="standard deviation of noise and model error")
    parts = {"sinogram": lines["sinogram"], "noise_std": std.where(lines["valid"], 1.0), "valid": lines["valid"]}
    parts |= _photons(scan, lines["valid"]) if "counts" in scan else {}
    angles = np.asarray(scan["angle"].values, dtype=float)
    given = np.asarray(chosen(angles))
    aside = np.setdiff1d(np.arange(len(angles)), given)
    everything = xr.Dataset(parts).drop_vars("row", errors="ignore").transpose("angle", "bin")
    everything["sinogram"] = everything["sinogram"].assign_attrs(
        units="1", long_name="line integrals of the attenuation"
    )
    units = "mm" if scan["bin"].attrs.get("units") == "mm" else "pixel"
    setting = {"centre": ((), axis, {"units": "1", "long_name": "axis of rotation on the detector, in bins"})}
    everything = everything.assign(setting).assign_coords(field_axes(size, pixel, units))
    everything.attrs = {**scan.attrs, "row": row}
    observation = everything.isel(angle=given)
    if len(aside):
        held = everything.drop_vars("centre").isel(angle=aside)
        names = {str(n): f"held_{n}" for n in (*held.data_vars, "angle")}
        observation = observation.merge(held.rename(names), combine_attrs="override")
        observation["reference"] = _picture(everything, units)
    first = _picture(observation, units, cutoff=0.5)
    if water is None:
        try:
            water = matched_water(numbers(first))
        except ValueError as error:
            raise InputError(f"{name}: {error}") from error
        observation.attrs["intensity"] = "matched: the main material of the object takes the place of water"
    else:
        observation.attrs["intensity"] = "Hounsfield scale from the stated photon energy"
    about = {"units": f"1/{units}", "long_name": "attenuation that stands for 0 HU"}
    return observation.assign(water=((), float(water), about))


def _picture(observation: xr.Dataset, units: str, cutoff: float = 1.0) -> xr.DataArray:
    """Filtered backprojection on the grid of the field; smoothed (Hann) where a cutoff is given."""
    import xarray as xr

    operator = Seen(projector(observation), torch.from_numpy(np.array(observation["valid"].values)))
    window = {} if cutoff == 1 else {"filter": "hann", "cutoff": cutoff}
    image = operator.fbp(numbers(observation["sinogram"])[None, None], **window)[0, 0].numpy()
    attrs = {"units": f"1/{units}", "long_name": ALL_VIEWS, "measured": ALL_VIEWS}
    return xr.DataArray(image, {d: observation[d] for d in ("y", "x")}, ("y", "x"), attrs=attrs)


def _photons(scan: xr.Dataset, valid: xr.DataArray) -> dict[str, xr.DataArray]:
    """Counts, blank and background in photons: divided by the gain; read noise counts as that many photons."""
    gain, read = float(scan.attrs.get("gain", 1)), float(scan.attrs.get("read_noise", 0))
    counts = scan["counts"].isel(row=0)
    dark = scan["dark"].isel(row=0) if "dark" in scan else 0.0
    white = scan["white"].isel(row=0)
    extra = (read / gain) ** 2  # a count of Poisson law with this mean has the variance of the read noise
    beam = ((white - dark) / gain).broadcast_like(counts)
    lit = beam > 0
    photons = {
        "counts": (((counts - dark) / gain) + extra).clip(min=0.0),
        "blank": beam.where(lit, 0.0),
        "background": (extra + 0 * counts),
    }
    return {k: v.astype(np.float32).assign_attrs(units="count") for k, v in photons.items()}
