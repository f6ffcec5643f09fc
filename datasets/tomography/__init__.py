"""Readers of tomographic scans: projections with white and dark fields, sinograms, and reconstructed CT series.

Import as ``scidiff.datasets.tomography``. Names are imported when first used.
"""

from scidiff.lazy import lazy_exports

_EXPORTS: dict[str, str] = {
    "binned": "scidiff.datasets.tomography.binning",
    "centre_of_rotation": "scidiff.datasets.tomography.centre",
    "line_integrals": "scidiff.datasets.tomography.lines",
    "make_scan": "scidiff.datasets.tomography.scan",
    "read_dicom_series": "scidiff.datasets.tomography.dicom",
    "read_scan": "scidiff.datasets.tomography.files",
}
__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
