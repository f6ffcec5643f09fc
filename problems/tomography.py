r"""Computed tomography from few views or a limited range of angles, parallel beam.

.. math:: p = A \mu + n, \qquad n \sim N(0, \operatorname{diag} s^2), \qquad \mu \sim \text{prior}

with line integrals :math:`p = -\ln T` whose variance follows from the counts (`scidiff.datasets.tomography.lines`), or,
with ``likelihood="poisson"``, the counts themselves, :math:`N \sim \mathrm{Poisson}(b\, e^{-A\mu} + r)`, which is right
for a handful of photons too.

The field is attenuation in 1/mm, or in 1/pixel where nobody says how wide a detector bin is. A prior in Hounsfield
units is converted (`scidiff.problems.attenuation`); its texture is that of tissue in pixels of its own size, whatever
the size of the pixels here.
"""

from __future__ import annotations

import os

import numpy as np

from scidiff.problems.tomography_base import Tomography
from scidiff.problems.tomography_scan import choose_views, sparse
from scidiff.protocols import Prior

__all__ = ["LimitedAngleCT", "SparseViewCT"]

Source = str | os.PathLike[str]


class SparseViewCT(Tomography):
    """Computed tomography from few views, spread evenly over half a turn.

    Arguments:
        views: Views that are used; of a scan that has more, the others are set aside to check the answer with.
        prior: A prior of fields (1, H, W): one with ``units = "HU"`` is converted, any other is taken to be in the
            units of the field; the name of a bundled one, or a ``.safetensors`` file. Loaded when first needed.
        energy: Effective photon energy in keV, which fixes the Hounsfield scale; by default the scale is matched to the
            picture (`matched_water`), and 70 in simulated cases.
        likelihood: ``"gaussian"`` for line integrals with the variance that the counts imply, ``"poisson"`` for counts.
        row: Detector row of a file that holds several; the middle one by default.
        binning: Detector bins that are joined to one.
        pixel: Side of a pixel of the field in mm (in joined bins, where their width is unknown); by default one joined
            bin, and 2 in simulated cases.
        size: Pixels of the field along both axes; by default what the detector sees from all sides, and 96 in simulated
            cases.
        centre: Detector coordinate of the axis of rotation in bins of the file; by default found.
        air: Bins at both ends of the detector that see no object, used to correct a drifting beam.
        zinger_limit: Leave out readings that are so many standard deviations above their neighbours.
        noise: Standard deviation of the line integrals, for files that hold no counts.
        model_error: Standard deviation of what is wrong with the line integrals besides photon noise (drift, rings,
            pixels that are not small), added to it in quadrature. Simulated cases are drawn without it, only their
            stated noise holds it: what their finer grid does is of this kind.
        angles, angle_units, white, dark, kind, dims, bin_width, gain: See `scidiff.datasets.tomography.read_scan`.
        photons: Photons per bin without an object in simulated cases.
        data: File or folder of CT volumes from which simulated cases are taken; a random limb by default.
        tv_weight: Weight of the total-variation baseline: one over the difference between neighbouring pixels that is
            usual, in units of the attenuation of water.
        seed: Seed of the simulated cases.
    """

    name = "ct"

    def __init__(
        self,
        views: int = 30,
        prior: Source | Prior = "ct-slices",
        energy: float | None = None,
        likelihood: str = "gaussian",
        row: int | None = None,
        binning: int = 1,
        pixel: float | None = None,
        size: int | None = None,
        centre: float | None = None,
        air: int = 0,
        zinger_limit: float | None = None,
        noise: float | None = None,
        model_error: float = 0.0,
        angles: list[float] | Source | None = None,
        angle_units: str | None = None,
        white: float | Source | None = None,
        dark: float | Source | None = None,
        kind: str = "counts",
        dims: str | None = None,
        bin_width: float | None = None,
        gain: float | None = None,
        photons: float = 1e5,
        data: Source | None = None,
        tv_weight: float = 16.0,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())
        if views < 2:
            raise ValueError(f"views must be at least 2, got {views}.")
        self.views = int(views)

    def chosen(self, angles: np.ndarray) -> np.ndarray:
        return sparse(angles, self.views)

    def case_angles(self) -> np.ndarray:
        return np.arange(self.views) * 180 / self.views


class LimitedAngleCT(Tomography):
    """Computed tomography from a range of angles, such as 0 to 120 degrees of a half turn.

    Arguments:
        first, last: Range of angles in degrees, counted from the first projection of the scan.
        step: Degrees between views of simulated cases.
        prior, energy, likelihood, ...: As in `SparseViewCT`.
    """

    name = "ct-limited"

    def __init__(
        self,
        first: float = 0.0,
        last: float = 120.0,
        step: float = 2.0,
        prior: Source | Prior = "ct-slices",
        energy: float | None = None,
        likelihood: str = "gaussian",
        row: int | None = None,
        binning: int = 1,
        pixel: float | None = None,
        size: int | None = None,
        centre: float | None = None,
        air: int = 0,
        zinger_limit: float | None = None,
        noise: float | None = None,
        model_error: float = 0.0,
        angles: list[float] | Source | None = None,
        angle_units: str | None = None,
        white: float | Source | None = None,
        dark: float | Source | None = None,
        kind: str = "counts",
        dims: str | None = None,
        bin_width: float | None = None,
        gain: float | None = None,
        photons: float = 1e5,
        data: Source | None = None,
        tv_weight: float = 16.0,
        seed: int = 0,
    ) -> None:
        super().__init__(locals())
        if not 0 <= first < last <= 180:
            raise ValueError(f"the range of angles must satisfy 0 <= first < last <= 180, got {first} and {last}.")
        if not step > 0 or last - first < step:
            raise ValueError(f"step must be positive and at most the range, got {step}.")
        self.first, self.last, self.step = float(first), float(last), float(step)

    def chosen(self, angles: np.ndarray) -> np.ndarray:
        return choose_views(angles, self.first, self.last)

    def case_angles(self) -> np.ndarray:
        return np.arange(self.first, self.last + 1e-9, self.step)
