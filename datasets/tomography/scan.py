r"""A tomographic scan as one `xarray.Dataset`, whatever file it came from, validated before anything is computed.

=============  ======================================================================================================
``counts``     (row, angle, bin), what the detector read behind the object; or else
``sinogram``   (row, angle, bin), line integrals of the attenuation, dimensionless: the file holds logarithms already
``white``      (row, bin) or (row, angle, bin): the same without an object (flat field, blank scan)
``dark``       (row, bin): the same without a beam; absent where it is zero
=============  ======================================================================================================

Coordinates: ``angle`` in degrees, ``bin`` the middle of each detector bin in mm from the middle of the detector, or in
units of a bin (``"1"``) where nobody says how wide one is. Attributes: ``gain`` (variance of the counts over their
mean; 1 for counts of single photons), ``read_noise`` (standard deviation of the dark field, counts), ``white_frames``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["degrees", "finite", "make_scan", "photon_transfer"]

TURN = {np.pi: "half a turn", 2 * np.pi: "a turn"}


def make_scan(
    data: np.ndarray,
    angles: np.ndarray,
    white: np.ndarray | float | None = None,
    dark: np.ndarray | float | None = None,
    *,
    kind: str = "counts",
    bin_width: float | None = None,
    gain: float | None = None,
    name: str = "the scan",
    field: str = "data",
    attrs: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Checks the parts of a scan and joins them.

    Arguments:
        data: Counts or line integrals, (row, angle, bin).
        angles: In degrees, one per projection.
        white: Beam without object: one number, (frame, row, bin), (row, bin), or as the data (one for each angle).
        dark: Detector without beam: one number, (frame, row, bin) or (row, bin).
        kind: ``"counts"`` or ``"sinogram"``.
        bin_width: Width of a detector bin in mm, if known.
        gain: Variance of the counts over their mean; estimated from white frames where there are several, else 1.
        name: How messages call the scan: the file.
        field: How messages call the data.
        attrs: What else is known.

    Raises:
        InputError: naming the scan and the field, what was expected and what was found.
    """
    import xarray as xr

    if kind not in ("counts", "sinogram"):
        raise InputError(f"{name}: kind must be 'counts' or 'sinogram', got {kind!r}.")
    data = finite(np.asarray(data), f"{name}: '{field}'")
    if data.ndim != 3:
        raise InputError(f"{name}: '{field}' has shape {data.shape}, expected (row, angle, bin).")
    rows, views, bins = data.shape
    angles = np.asarray(angles, dtype=np.float64)
    if angles.ndim != 1 or len(angles) != views:
        raise InputError(
            f"{name}: the number of angles differs: 'theta' has {angles.size}, but '{field}' holds {views} projections."
        )
    if views < 2 or bins < 4:
        raise InputError(f"{name}: '{field}' has {views} projections of {bins} bins; expected at least 2 of 4.")
    width = {"units": "1", "long_name": "detector bin"}
    step = 1.0
    if bin_width is not None:
        if not bin_width > 0:
            raise InputError(f"{name}: the width of a detector bin must be positive, found {bin_width} mm.")
        step, width = float(bin_width), {"units": "mm", "long_name": "position on the detector"}
    coords = {
        "angle": ("angle", angles, {"units": "degree", "long_name": "angle of projection"}),
        "bin": ("bin", (np.arange(bins) - (bins - 1) / 2) * step, width),
    }
    dims = ("row", "angle", "bin")
    about: dict[str, Any] = {"bin_width": step, **(attrs or {})}
    if kind == "sinogram":
        what = {"units": "1", "long_name": "line integral of the attenuation"}
        return xr.Dataset({"sinogram": (dims, data.astype(np.float32), what)}, coords, about)
    _not_negative(data, f"{name}: '{field}'")
    if white is None:
        raise InputError(
            f"{name}: there is no white field ('data_white'): counts need the beam without the object. Give white=... "
            "(a number, an array or a file), or kind='sinogram' if the file holds line integrals already."
        )
    white = np.asarray(white, dtype=np.float64)
    dark = None if dark is None else np.asarray(dark, dtype=np.float64)
    for label, part in (("white", white), ("dark", dark)):
        if part is not None:
            _not_negative(finite(part, f"{name}: '{label}'"), f"{name}: '{label}'")
    repeated = white.ndim == 3 and white.shape[1:] == (rows, bins) and white.shape != data.shape
    frames = len(white) if repeated else 1
    found = (
        photon_transfer(white, dark) if gain is None and repeated else (1.0 if gain is None else gain, _spread(dark))
    )
    if not found[0] > 0:
        raise InputError(f"{name}: the gain must be positive, found {found[0]}.")
    about |= {"gain": float(found[0]), "read_noise": found[1], "white_frames": frames}
    parts: dict[str, Any] = {"counts": (dims, data.astype(np.float32), {"units": "count", "long_name": "counts"})}
    for label, part in (("white", white), ("dark", dark)):
        if part is not None:
            parts[label] = _field(part, data.shape, f"{name}: '{label}'", each_angle=label == "white")
    return xr.Dataset(parts, coords, about)


def _field(part: np.ndarray, shape: tuple[int, ...], where: str, each_angle: bool) -> tuple[Any, ...]:
    """A white or dark field as (dims, values, attributes); several frames become their mean."""
    rows, _, bins = shape
    attrs = {"units": "count"}
    if part.shape == shape and each_angle:
        return ("row", "angle", "bin"), part.astype(np.float32), attrs
    if part.ndim == 3 and part.shape[1:] == (rows, bins):
        part = part.mean(0)
    try:
        return ("row", "bin"), np.broadcast_to(part, (rows, bins)).astype(np.float32), attrs
    except ValueError:
        raise InputError(
            f"{where} has shape {part.shape}, expected (frame, row, bin) with {rows} rows of {bins} bins, "
            f"or {shape} with one for each angle."
        ) from None


def photon_transfer(white: np.ndarray, dark: np.ndarray | None) -> tuple[float, float]:
    """Gain and read noise from repeated frames (frame, row, bin): the beam's drift, common to all bins, is divided out.

    With fewer than 4 white frames the gain is 1: counts are taken for photons.
    """
    noise = _spread(dark)
    if white.ndim != 3 or len(white) < 4:
        return 1.0, noise
    level = 0.0 if dark is None else (dark.mean(0) if dark.ndim == 3 else dark)
    signal = white - level
    mean = signal.mean(0)
    drift = signal.mean((1, 2), keepdims=True) / signal.mean()
    if not (mean > 0).any() or not (drift > 0).all():
        return 1.0, noise
    variance = (signal / drift).var(0, ddof=1)
    lit = mean > 0.1 * np.median(mean)
    gain = float(((variance - noise**2)[lit] / mean[lit]).mean())
    return (gain if gain > 0 else 1.0), noise


def _spread(dark: np.ndarray | None) -> float:
    """Standard deviation over repeated dark frames."""
    if dark is None or dark.ndim != 3 or len(dark) < 2:
        return 0.0
    return float(np.sqrt(dark.var(0, ddof=1).mean()))


def finite(array: np.ndarray, where: str) -> np.ndarray:
    """The array, if it holds real and finite numbers."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{where} holds {array.dtype}, expected real numbers.")
    bad = int(np.count_nonzero(~np.isfinite(array))) if array.dtype.kind == "f" else 0
    if bad:
        raise InputError(f"{where} holds {bad} NaN or infinite values of {array.size}.")
    return array


def _not_negative(array: np.ndarray, where: str) -> None:
    bad = int(np.count_nonzero(array < 0))
    if bad:
        raise InputError(
            f"{where} holds {bad} negative counts of {array.size} (smallest {array.min():.4g}); counts cannot be "
            "negative. Are these line integrals (kind='sinogram'), or was the dark field subtracted already?"
        )


def degrees(angles: np.ndarray, units: str | None, where: str) -> np.ndarray:
    """Angles of projection in degrees.

    Arguments:
        angles: Numbers.
        units: What the file or the caller says they are; None if nobody says, which means degrees.
        where: How messages call them.

    Raises:
        InputError: units that do not measure angles, numbers that are not finite, or numbers that look like radians
            although they are said (or taken) to be degrees.
    """
    from scidiff.fields import parse_units

    angles = finite(np.asarray(angles), where).astype(np.float64).ravel()
    if units is not None and units.strip() not in ("", "1", "none"):
        text = units.strip().rstrip(".").lower()
        text = {"deg": "degree", "degs": "degree", "rad": "radian", "rads": "radian"}.get(text, text)
        try:
            unit = parse_units(text)
            factor = float(unit._REGISTRY.Quantity(1.0, unit).to("degree").magnitude)
        except Exception as error:  # pint raises unrelated types for what is no unit and for what is no angle
            raise InputError(f"{where} has units {units!r}, which do not measure angles; expected 'degree'.") from error
        if text.startswith(("radian", "mrad", "milliradian")):
            return angles * factor
        angles = angles * factor
    if len(angles) < 4:
        return angles
    step = float(np.abs(np.diff(angles)).mean())
    span = float(np.ptp(angles))
    for turn, words in TURN.items():
        # Without or with the last angle: the span is one step short of the turn, or the whole of it.
        if abs(span - turn) < 0.02 * turn or abs(span + step - turn) < 0.02 * turn:
            raise InputError(
                f"{where} are in the wrong unit: {len(angles)} angles from {angles.min():.4g} to {angles.max():.4g} "
                f"are {words} in radians, expected degrees. If they are radians, say so: angle_units='radian'."
            )
    return angles
