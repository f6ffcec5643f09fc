"""Visibilities of radio interferometers: readers, editing, coverage of the plane of baselines."""

from scidiff.datasets.interferometry.coverage import EHT2017, Station, coverage, read_array
from scidiff.datasets.interferometry.editing import add_systematic, average, flag, scans, stack
from scidiff.datasets.interferometry.eht_csv import read_eht_csv
from scidiff.datasets.interferometry.uvfits import read_uvfits
from scidiff.datasets.interferometry.visibilities import (
    make_visibilities,
    read_visibilities,
    validate_visibilities,
    write_visibilities,
)

__all__ = [
    "EHT2017",
    "Station",
    "add_systematic",
    "average",
    "coverage",
    "flag",
    "make_visibilities",
    "read_array",
    "read_eht_csv",
    "read_uvfits",
    "read_visibilities",
    "scans",
    "stack",
    "validate_visibilities",
    "write_visibilities",
]
