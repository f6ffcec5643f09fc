r"""Attenuation coefficients, Hounsfield units, and how a prior in one is used for the other.

Hounsfield units measure attenuation against water and air, :math:`\mu = \mu_w (1 + \mathrm{HU} / 1000)`: air is
-1000, water 0 at every photon energy. A prior in Hounsfield units becomes one of attenuation by this affine change once
:math:`\mu_w` is known: from a table for a stated photon energy, or, for objects that are not patients, from the picture
itself (the main material takes the place of water, see `matched_water`).

References:
    Tables of X-Ray Mass Attenuation Coefficients and Mass Energy-Absorption Coefficients. Hubbell and Seltzer, NISTIR
    5632, 1995 (liquid water).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.problems.base import AffinePrior
from scidiff.protocols import Prior

__all__ = ["attenuation_prior", "from_hounsfield", "matched_water", "water_attenuation"]

# Photon energy in keV and mass attenuation of liquid water in cm2/g, which is its attenuation in 1/cm at 1 g/cm3.
_WATER = (
    (10, 5.329), (15, 1.673), (20, 0.8096), (30, 0.3756), (40, 0.2683), (50, 0.2269), (60, 0.2059), (80, 0.1837),
    (100, 0.1707), (150, 0.1505), (200, 0.1370), (300, 0.1186), (400, 0.1061), (500, 0.09687), (600, 0.08956),
)  # fmt: skip


def water_attenuation(energy: float) -> float:
    """Attenuation of water in 1/mm at a photon energy in keV, between 10 and 600; log-log interpolation of the table.

    Polychromatic sources are described by an effective energy: about 70 keV for a tube at 120 kV.

    Raises:
        ValueError: the energy is outside of the table.
    """
    energies, values = np.array(_WATER).T
    if not energies[0] <= energy <= energies[-1]:
        raise ValueError(f"energy must lie between {energies[0]:g} and {energies[-1]:g} keV, got {energy}.")
    return float(np.exp(np.interp(np.log(energy), np.log(energies), np.log(values)))) / 10


def from_hounsfield(hu: Any, water: float) -> Any:
    """Attenuation of numbers in Hounsfield units, in the units of ``water``."""
    return water * (1 + hu / 1000)


def attenuation_prior(prior: Prior, water: float) -> Prior:
    """A prior of attenuation: one whose ``units`` are ``"HU"`` is converted, any other is taken as it is."""
    return AffinePrior(prior, water / 1000, water) if getattr(prior, "units", None) == "HU" else prior


def matched_water(image: Tensor) -> float:
    """What takes the place of water in an object of unknown energy: the median attenuation inside of it.

    The object is what lies above the threshold that splits the pixels into two classes of least variance (Otsu). A
    prior of soft tissue then sees the main material as tissue, voids as air, and denser parts as bone.

    Arguments:
        image: A first picture, (..., H, W).

    Raises:
        ValueError: the picture holds no object.
    """
    from skimage.filters import threshold_otsu

    values = np.asarray(image.to(torch.float64)).ravel()
    inside = values[values > threshold_otsu(values)] if np.ptp(values) > 0 else values[:0]
    if len(inside) == 0 or not np.median(inside) > 0:
        raise ValueError("the first picture holds no object that attenuates; state the energy in keV instead.")
    return float(np.median(inside))
