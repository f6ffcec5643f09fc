"""Prior, operator, noise, data and metrics of one scientific question; what a user starts from.

Import as ``scidiff.problems``. Names are imported when first used.
"""

if __name__ != "scidiff.problems":
    raise ImportError(
        f"this folder is the package scidiff.problems, but it was imported as {__name__!r}; "
        "write `import scidiff.problems`, or start python outside this source folder if another package was meant."
    )

from scidiff.lazy import lazy_exports  # noqa: E402 - the check above must come first

_EXPORTS: dict[str, str] = {
    "AcceleratedMRI": "scidiff.problems.mri",
    "BlackHoleImaging": "scidiff.problems.black_hole",
    "BurgersSensors": "scidiff.problems.burgers",
    "Case": "scidiff.problems.base",
    "DarcyForward": "scidiff.problems.darcy",
    "DarcyInverse": "scidiff.problems.darcy",
    "Deblurring": "scidiff.problems.deblurring",
    "GaussianInpainting": "scidiff.problems.gaussian",
    "GridProblem": "scidiff.problems.imaging",
    "HelmholtzForward": "scidiff.problems.poisson",
    "HelmholtzInverse": "scidiff.problems.poisson",
    "Inpainting": "scidiff.problems.inpainting",
    "KolmogorovAssimilation": "scidiff.problems.kolmogorov",
    "LimitedAngleCT": "scidiff.problems.tomography",
    "LorenzAssimilation": "scidiff.problems.lorenz",
    "NavierStokesForward": "scidiff.problems.navier_stokes_points",
    "NavierStokesInverse": "scidiff.problems.navier_stokes_points",
    "PhaseRetrieval": "scidiff.problems.phase_retrieval",
    "PoissonForward": "scidiff.problems.poisson",
    "PoissonInverse": "scidiff.problems.poisson",
    "Problem": "scidiff.problems.base",
    "SparseViewCT": "scidiff.problems.tomography",
    "StationTemperature": "scidiff.problems.stations",
    "SuperResolution": "scidiff.problems.super_resolution",
    "WidefieldDeconvolution": "scidiff.problems.widefield",
    "get": "scidiff.problems.registry",
    "names": "scidiff.problems.registry",
}
__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
