"""What instruments make of a field: points off the grid, footprints, time series, averages, saturation."""

from scidiff.operators.sensors.footprints import (
    BoxFootprint,
    DiscFootprint,
    Footprints,
    GaussianFootprint,
    LatLonFootprints,
)
from scidiff.operators.sensors.nonlinear import Clipped, Exceeds, Saturating, Speed, Squared
from scidiff.operators.sensors.points import Points
from scidiff.operators.sensors.regions import RegionMeans
from scidiff.operators.sensors.series import OverTime, StationSeries, frames_at
from scidiff.operators.sensors.sphere import LatLonPoints, great_circle
from scidiff.operators.sensors.subsampling import Subsampling

__all__ = [
    "BoxFootprint",
    "Clipped",
    "DiscFootprint",
    "Exceeds",
    "Footprints",
    "GaussianFootprint",
    "LatLonFootprints",
    "LatLonPoints",
    "OverTime",
    "Points",
    "RegionMeans",
    "Saturating",
    "Speed",
    "Squared",
    "StationSeries",
    "Subsampling",
    "frames_at",
    "great_circle",
]
