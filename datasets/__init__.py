"""Readers of real files and simulators of fields; they return xarray objects with coordinates and units.

Import as ``scidiff.datasets``. Names are imported when first used.
"""

if __name__ != "scidiff.datasets":
    raise ImportError(
        f"this folder is the package scidiff.datasets, but it was imported as {__name__!r}; "
        "write `import scidiff.datasets`, or start python outside this source folder if another package was meant."
    )

from scidiff.lazy import lazy_exports  # noqa: E402 - the check above must come first

_EXPORTS: dict[str, str] = {
    "CTSlices": "scidiff.datasets.ct_slices",
    "CompactSources": "scidiff.datasets.compact_sources",
    "ComplexSlices": "scidiff.datasets.slices",
    "DarcyPairs": "scidiff.datasets.darcy_pairs",
    "GaussianFields": "scidiff.datasets.gaussian_field",
    "Lorenz63Windows": "scidiff.datasets.lorenz",
    "Lorenz96Windows": "scidiff.datasets.lorenz",
    "Patches": "scidiff.datasets.patches",
    "PhantomCrops": "scidiff.datasets.slices",
    "PoissonPairs": "scidiff.datasets.poisson_pairs",
    "Rings": "scidiff.datasets.rings",
    "StationLaw": "scidiff.datasets.station_law",
    "StoredFields": "scidiff.datasets.stored_fields",
    "TrainingData": "scidiff.datasets.sources",
    "VorticityFields": "scidiff.datasets.vorticity",
    "anomalies": "scidiff.datasets.seasons",
    "coil_maps": "scidiff.datasets.phantom",
    "head_phantom": "scidiff.datasets.phantom",
    "oisst_boxes": "scidiff.datasets.series",
    "part_of": "scidiff.datasets.time_series",
    "radar_series": "scidiff.datasets.radar",
    "read_eht_csv": "scidiff.datasets.interferometry.eht_csv",
    "read_image": "scidiff.datasets.images",
    "read_kernel": "scidiff.datasets.blur_kernels",
    "read_kspace": "scidiff.datasets.kspace",
    "read_series": "scidiff.datasets.series",
    "read_stack": "scidiff.datasets.tiff_stack",
    "read_stations": "scidiff.datasets.stations",
    "read_uvfits": "scidiff.datasets.interferometry.uvfits",
    "read_visibilities": "scidiff.datasets.interferometry.visibilities",
    "read_volume": "scidiff.datasets.volumes",
    "seasonal_cycle": "scidiff.datasets.seasons",
    "simulate_kspace": "scidiff.datasets.phantom",
    "simulate_stations": "scidiff.datasets.stations",
    "smooth_phase": "scidiff.datasets.phantom",
    "split_times": "scidiff.datasets.series",
    "training_data": "scidiff.datasets.sources",
    "trajectories": "scidiff.datasets.time_series",
    "validate_kspace": "scidiff.datasets.kspace",
    "with_season": "scidiff.datasets.seasons",
}
__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
