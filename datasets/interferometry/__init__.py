"""Visibilities of radio interferometers: readers, averaging, flagging, systematic errors, tables of stations."""

from scidiff.datasets.interferometry.editing import add_systematic, average, flag, scans, stack
from scidiff.datasets.interferometry.eht_csv import read_eht_csv
from scidiff.datasets.interferometry.stations import EHT2017_SEFD, Station, read_array
from scidiff.datasets.interferometry.uvfits import read_uvfits
from scidiff.datasets.interferometry.visibilities import (
    make_visibilities,
    read_visibilities,
    validate_visibilities,
    write_visibilities,
)

__all__ = [
    "EHT2017_SEFD",
    "Station",
    "add_systematic",
    "average",
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
