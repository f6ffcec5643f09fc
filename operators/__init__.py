"""Forward models: what an instrument measures of a field. They see neither methods nor data.

Import as ``scidiff.operators``. Names are imported when first used.
"""

if __name__ != "scidiff.operators":
    raise ImportError(
        f"this folder is the package scidiff.operators, but it was imported as {__name__!r}; "
        "write `import scidiff.operators`, or start python outside this source folder if another package was meant."
    )

from scidiff.lazy import lazy_exports  # noqa: E402 - the check above must come first

_EXPORTS: dict[str, str] = {
    "AdvectionDiffusion": "scidiff.operators.pde",
    "AllenCahn": "scidiff.operators.pde",
    "Background": "scidiff.operators.widefield",
    "BlackBox": "scidiff.operators.black_box",
    "Burgers": "scidiff.operators.pde",
    "CartesianMRI": "scidiff.operators.mri",
    "Clipped": "scidiff.operators.sensors",
    "CodedDiffraction": "scidiff.operators.phase_retrieval",
    "Convolution": "scidiff.operators.convolution",
    "Darcy": "scidiff.operators.pde",
    "Downsampling": "scidiff.operators.downsampling",
    "Exceeds": "scidiff.operators.sensors",
    "FanBeam": "scidiff.operators.tomography",
    "Footprints": "scidiff.operators.sensors",
    "FourierMagnitude": "scidiff.operators.phase_retrieval",
    "Frozen": "scidiff.operators.black_box",
    "GrayScott": "scidiff.operators.pde",
    "Heat": "scidiff.operators.pde",
    "Helmholtz": "scidiff.operators.pde",
    "Identity": "scidiff.operators.identity",
    "JPEG": "scidiff.operators.jpeg",
    "KuramotoSivashinsky": "scidiff.operators.pde",
    "LatLonFootprints": "scidiff.operators.sensors",
    "LatLonPoints": "scidiff.operators.sensors",
    "Linear": "scidiff.operators.linear",
    "LinearMap": "scidiff.operators.linear_map",
    "Lorenz63": "scidiff.operators.pde",
    "Lorenz96": "scidiff.operators.pde",
    "Mask": "scidiff.operators.mask",
    "NavierStokes": "scidiff.operators.pde",
    "OverTime": "scidiff.operators.sensors",
    "ParallelBeam": "scidiff.operators.tomography",
    "Points": "scidiff.operators.sensors",
    "Poisson": "scidiff.operators.pde",
    "ReactionDiffusion": "scidiff.operators.pde",
    "RealField": "scidiff.operators.real_field",
    "ReflectiveConvolution": "scidiff.operators.blur",
    "RegionMeans": "scidiff.operators.sensors",
    "Saturating": "scidiff.operators.sensors",
    "ShallowWater": "scidiff.operators.pde",
    "Speed": "scidiff.operators.sensors",
    "Squared": "scidiff.operators.sensors",
    "Stack": "scidiff.operators.stacked",
    "StationSeries": "scidiff.operators.sensors",
    "Subprocess": "scidiff.operators.black_box",
    "Subsampling": "scidiff.operators.sensors",
    "Transmission": "scidiff.operators.tomography",
    "ValidConvolution": "scidiff.operators.blur",
    "VariableWave": "scidiff.operators.pde",
    "Visibilities": "scidiff.operators.interferometry",
    "Wave": "scidiff.operators.pde",
    "WidefieldBlur": "scidiff.operators.widefield",
    "ZeroConvolution": "scidiff.operators.blur",
    "antialias": "scidiff.operators.antialias",
    "blur": "scidiff.operators.blur",
    "born_wolf": "scidiff.operators.psf_widefield",
    "inpainting": "scidiff.operators.inpainting",
    "interferometry": "scidiff.operators.interferometry",
    "load": "scidiff.operators.files",
    "mri": "scidiff.operators.mri",
    "pde": "scidiff.operators.pde",
    "photon_transfer": "scidiff.operators.camera",
    "psf": "scidiff.operators.psf",
    "save": "scidiff.operators.files",
    "sensors": "scidiff.operators.sensors",
    "stack": "scidiff.operators.stacked",
    "tomography": "scidiff.operators.tomography",
}
__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
