r"""How large is a ring, and is it one? Diameter, width and orientation of the brightness in an image.

Rays start at a centre :math:`c` under position angles :math:`\phi_j`. Along each the brightness is interpolated
(cubic splines); its maximum lies at the distance :math:`r_j(c)`, found on a fine grid and refined by a parabola. The
centre is the point for which these distances differ least,

.. math:: c = \arg\min_c \frac{\operatorname{std}_j r_j(c)}{\operatorname{mean}_j r_j(c)},

with distances weighted by the brightness of the maximum, so that the dark side of a crescent decides little. A ray
whose brightness only rises or falls within the range of radii that is searched counts as a deviation of 1, and the
centre is looked for within half the largest radius of the centre of brightness. Then

==============  ==================================================================================================
diameter        :math:`d = 2 \operatorname{mean}_j r_j`
dispersion      :math:`\operatorname{std}_j r_j / \operatorname{mean}_j r_j`: 0 for a circle
width           mean full width at half maximum along the rays, weighted in the same way
hollow          brightness at the centre over the mean brightness of the maxima: 0 for a ring, 1 for a disc
angle           position angle of the first harmonic of the maxima: where the ring is brightest, degrees
asymmetry       amplitude of that harmonic over the mean: :math:`A / 2` for :math:`1 + A \cos(\phi - \phi_0)`
gap             share of the rays whose maximum is less than a quarter of the mean one: large for separate spots
==============  ==================================================================================================

A thin ring seen with a Gaussian beam of standard deviation s has its maximum at a smaller radius: the diameter comes
out as :math:`d - 2 s^2 / d`, to first order.

References:
    First M87 Event Horizon Telescope Results IV, The EHT Collaboration, 2019, doi:10.3847/2041-8213/ab0e85, section 9
    (the same idea: the centre with the least scatter of the radii of maxima).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["DISPERSION_LIMIT", "GAP_LIMIT", "HOLLOW_LIMIT", "RingShape", "measure_ring"]

# Beyond these we do not call it a ring. All of 200 draws of `scidiff.datasets.rings` are below.
HOLLOW_LIMIT, DISPERSION_LIMIT, GAP_LIMIT = 0.7, 0.3, 0.35


@dataclass(frozen=True)
class RingShape:
    """Lengths in the units of ``pixel``, angles in degrees; see the module."""

    diameter: float
    width: float
    dispersion: float
    hollow: float
    angle: float
    asymmetry: float
    gap: float
    north: float
    east: float

    @property
    def is_ring(self) -> bool:
        """Dark enough inside, round enough, and no two spots."""
        return self.hollow < HOLLOW_LIMIT and self.dispersion < DISPERSION_LIMIT and self.gap < GAP_LIMIT


def measure_ring(
    image: np.ndarray, pixel: float, smallest: float = 10.0, largest: float = 40.0, rays: int = 72
) -> RingShape:
    """Measures one image (H, W), rows from north to south and columns from east to west.

    Arguments:
        image: Brightness.
        pixel: Side of a pixel (microarcseconds).
        smallest, largest: Radii between which the maximum of a ray is looked for, same units.
        rays: Number of rays.

    Raises:
        ValueError: not a picture, or nothing in it.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter
    from scipy.optimize import minimize

    image = np.asarray(image, float)
    if image.ndim != 2 or not np.isfinite(image).all() or image.max() <= 0:
        raise ValueError(f"expected a finite picture (H, W) with some brightness, got shape {image.shape}.")
    height, width = image.shape
    middle = (height - 1) / 2, (width - 1) / 2
    angles = np.arange(rays) * 2 * np.pi / rays
    radii = np.arange(0.0, 1.6 * largest, min(pixel, 2.5) / 4)

    def profiles(smooth: np.ndarray, centre: np.ndarray, every: int) -> np.ndarray:
        towards = angles[::every]
        rows = middle[0] - (centre[0] + np.outer(np.cos(towards), radii[::every])) / pixel
        columns = middle[1] - (centre[1] + np.outer(np.sin(towards), radii[::every])) / pixel
        return map_coordinates(smooth, [rows, columns], order=3, mode="constant", prefilter=False)

    def peaks(smooth: np.ndarray, centre: np.ndarray, every: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, r = profiles(smooth, centre, every), radii[::every]
        inside = (r >= smallest) & (r <= largest)
        ends = np.flatnonzero(inside)[[0, -1]]
        k = np.where(inside, rows, -np.inf).argmax(1)
        none = (k == ends[0]) | (k == ends[1])  # it rises towards an end of the range
        low, mid, high = (rows[np.arange(len(rows)), k + d] for d in (-1, 0, 1))
        bend = low - 2 * mid + high
        shift = np.where(bend < 0, 0.5 * (low - high) / np.where(bend < 0, bend, 1), 0)
        return r[k] + np.clip(shift, -1, 1) * (r[1] - r[0]), mid, none

    def scatter(centre: np.ndarray, smooth: np.ndarray, every: int = 1) -> float:
        if np.hypot(*(centre - start)) > largest / 2:
            return 2.0
        r, top, none = peaks(smooth, centre, every)
        weight = np.clip(top, 0, None) + 1e-12 * image.max()
        mean = np.average(r, weights=weight)
        return float(np.sqrt(np.average(np.where(none, mean, r - mean) ** 2, weights=weight)) / mean)

    # From coarse to fine: a blurred image has few local minima.
    north, east = middle[0] - np.arange(height), middle[1] - np.arange(width)
    flux = np.clip(image, 0, None)
    start = np.array([(flux.sum(1) @ north), (flux.sum(0) @ east)]) * pixel / flux.sum()
    coarse = spline_filter(gaussian_filter(image, 1.5, mode="constant"), order=3)
    offsets = np.linspace(-largest / 2, largest / 2, 13)
    places = [start + np.array([dy, dx]) for dy in offsets for dx in offsets]
    places.sort(key=lambda c: scatter(c, coarse, 3))
    sharp = spline_filter(image, order=3)
    best = min(places[:8], key=lambda c: scatter(c, sharp))
    corners = best + pixel * np.array([[0, 0], [1.5, 0], [0, 1.5]])
    found = minimize(
        scatter, best, (sharp,), method="Nelder-Mead",
        options={"initial_simplex": corners, "xatol": 1e-3, "fatol": 1e-6},
    ).x  # fmt: skip
    r, top, _ = peaks(sharp, found, 1)
    weight = np.clip(top, 0, None) + 1e-12 * image.max()
    mean = float(np.average(r, weights=weight))
    rows = profiles(sharp, found, 1)
    base = float(rows[:, 0].mean())
    harmonic = (top * np.exp(1j * angles)).sum() / top.sum()
    return RingShape(
        diameter=2 * mean,
        width=_full_width(rows, radii, r, top, weight),
        dispersion=scatter(found, sharp),
        hollow=base / float(top.mean()),
        angle=float(np.rad2deg(np.angle(harmonic))),
        asymmetry=float(np.abs(harmonic)),
        gap=float((top < top.mean() / 4).mean()),
        north=float(found[0]),
        east=float(found[1]),
    )


def _full_width(rows: np.ndarray, radii: np.ndarray, r: np.ndarray, top: np.ndarray, weight: np.ndarray) -> float:
    """Mean full width at half maximum; a side that never falls so low (a disc's inside) ends where the ray does."""
    widths = []
    for profile, peak, height in zip(rows, r, top, strict=True):
        k = int(np.abs(radii - peak).argmin())
        edges = []
        for step in (-1, 1):
            j = k
            while 0 < j < len(radii) - 1 and profile[j] > height / 2:
                j += step
            a, b = profile[j - step], profile[j]
            part = (a - height / 2) / (a - b) if a > height / 2 >= b else 1.0
            edges.append(radii[j - step] + step * part * (radii[1] - radii[0]))
        widths.append(edges[1] - edges[0])
    return float(np.average(widths, weights=weight))
