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
    "Case": "scidiff.problems.base",
    "Deblurring": "scidiff.problems.deblurring",
    "GaussianInpainting": "scidiff.problems.gaussian",
    "GridProblem": "scidiff.problems.imaging",
    "Inpainting": "scidiff.problems.inpainting",
    "PhaseRetrieval": "scidiff.problems.phase_retrieval",
    "KolmogorovAssimilation": "scidiff.problems.kolmogorov",
    "LorenzAssimilation": "scidiff.problems.lorenz",
    "Problem": "scidiff.problems.base",
    "SuperResolution": "scidiff.problems.super_resolution",
    "WidefieldDeconvolution": "scidiff.problems.widefield",
    "get": "scidiff.problems.registry",
    "names": "scidiff.problems.registry",
}
__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
