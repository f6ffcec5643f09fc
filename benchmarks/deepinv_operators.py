"""Every physics of deepinv as an operator: is it linear, is its adjoint one, where does its gradient come from?

A small instance of each class of `deepinv.physics` is wrapped by `scidiff.interop.deepinv_physics.from_deepinv`. The
table is that of docs/deepinv.md. Errors of adjoints are relative to the norms of both vectors, in double precision
where the class works in it; "gradient" means that the wrapper uses the gradient of A because deepinv's adjoint failed.

    python benchmarks/deepinv_operators.py            # a few seconds
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import deepinv
import torch
from deepinv import physics as P
from torch import Generator, Tensor


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


@dataclass
class Case:
    """A small instance.

    Arguments:
        make: Builds it; the same numbers at every call.
        shape: One field on the side of scidiff.
        options: Further arguments of `from_deepinv`.
        note: What a user should know.
        positive: Whether its fields must be positive.
    """

    make: Callable[[], Any]
    shape: tuple
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    positive: bool = False


def seeded() -> Generator:
    return Generator().manual_seed(1)


COMPLEX = {"complex_fields": True}
CHANNELS = {"complex_channels": True}


def mask(*shape: int, seed: int = 1) -> Tensor:
    return (torch.rand(*shape, generator=Generator().manual_seed(seed)) > 0.4).float()


def blur_kernel() -> Tensor:
    k = torch.tensor([[0.0, 0.1, 0.3], [0.2, 0.5, 0.1], [0.1, 0.1, 0.2]])
    return (k / k.sum())[None, None]


def array_of_elements() -> Tensor:
    x = torch.linspace(-2e-3, 2e-3, 5)
    return torch.stack([x, 0 * x], -1)


def scattering() -> Any:
    angle = torch.arange(6) * 2 * torch.pi / 6
    ring = torch.stack([angle.cos(), angle.sin()])
    return P.Scattering(img_width=8, receivers=1.2 * ring, transmitters=1.1 * ring[:, ::3], background_wavenumber=5.0)


def virtual() -> Any:
    shift = deepinv.transform.Shift(shift_max=1.0)
    parameters = {"x_shift": torch.tensor([1]), "y_shift": torch.tensor([2])}
    return P.VirtualLinearPhysics(physics=P.Blur(blur_kernel()), transform=shift, g_params=parameters)


def tiled() -> Any:
    filters = random(1, 1, 9, 3, 3, seed=6).abs()  # 3 x 3 patches
    return P.TiledSpaceVaryingBlur(filters=filters, patch_size=(6, 6), stride=(3, 3), use_fft=False)


def born() -> Any:
    return scattering().born_operator


def coils() -> Tensor:
    return random(1, 3, 6, 8, seed=2, dtype=torch.complex64)


def astra() -> Any:
    if not torch.cuda.is_available():
        raise ImportError("needs a CUDA device")
    return P.TomographyWithAstra(img_size=(10, 10), num_angles=7, num_detectors=12, normalize=False, device="cpu")


def cases() -> dict[str, Case]:
    """One or several instances of every class."""
    k = blur_kernel()
    image = (1, 8, 10)
    return {
        "Denoising": Case(lambda: P.Denoising(P.GaussianNoise(0.1)), image),
        "Inpainting": Case(
            lambda: P.Inpainting((1, 8, 10), mask=mask(1, 8, 10)), image, note="unseen pixels stay in y as zeros"
        ),
        "Demosaicing": Case(lambda: P.Demosaicing((3, 8, 10)), (3, 8, 10), note="unseen pixels stay in y as zeros"),
        "CompressedSensing": Case(lambda: P.CompressedSensing(20, (1, 6, 5), rng=seeded()), (1, 6, 5)),
        "StructuredRandom": Case(
            lambda: P.StructuredRandom((1, 6, 8), (1, 6, 8), rng=seeded()), (1, 6, 8)
        ),
        "SinglePixelCamera": Case(lambda: P.SinglePixelCamera(24, (1, 8, 8), fast=True), (1, 8, 8)),
        "Blur": Case(lambda: P.Blur(k, padding="valid"), image, note="padding='valid'"),
        "Blur, circular": Case(lambda: P.Blur(k, padding="circular"), image, note="padding='circular'"),
        "Blur, replicate": Case(lambda: P.Blur(k, padding="replicate"), image, note="padding='replicate'"),
        "BlurFFT": Case(lambda: P.BlurFFT((1, 8, 10), k), image, note="half spectra: no SVD in real numbers"),
        "SpaceVaryingBlur": Case(
            lambda: P.SpaceVaryingBlur(
                filters=torch.stack([k, k.flip(-1)], 2), multipliers=random(1, 1, 2, 8, 10, seed=3).abs(),
                padding="circular",
            ), image,
        ),
        "TiledSpaceVaryingBlur": Case(tiled, (1, 12, 12)),
        "Downsampling": Case(lambda: P.Downsampling((1, 8, 10), filter="gaussian", factor=2), image),
        "DownsamplingMatlab": Case(lambda: P.DownsamplingMatlab(factor=2, img_size=(1, 8, 12)), (1, 8, 12)),
        "Upsampling": Case(lambda: P.Upsampling((1, 8, 12), filter="bilinear", factor=2), (1, 4, 6)),
        "Decolorize": Case(lambda: P.Decolorize(), (3, 6, 8)),
        "HyperSpectralUnmixing": Case(
            lambda: P.HyperSpectralUnmixing(M=random(3, 7, seed=4).abs()), (3, 6, 5), note="fields are abundances"
        ),
        "CompressiveSpectralImaging": Case(
            lambda: P.CompressiveSpectralImaging((4, 8, 8), mask=mask(1, 4, 8, 8), mode="sd"),
            (4, 8, 8), note="mode='sd', even sides",
        ),
        "CompressiveSpectralImaging, odd": Case(
            lambda: P.CompressiveSpectralImaging((4, 8, 9), mask=mask(1, 4, 8, 9), mode="sd"),
            (4, 8, 9), note="mode='sd', odd width",
        ),
        "CompressiveSpectralImaging, ss": Case(
            lambda: P.CompressiveSpectralImaging((4, 8, 9), mask=mask(1, 4, 8, 9), mode="ss"),
            (4, 8, 9), note="mode='ss', odd width",
        ),
        "Pansharpen": Case(
            lambda: P.Pansharpen((3, 8, 8), factor=4), (3, 8, 8), note="measures a list of two tensors: flat here"
        ),
        "MRI": Case(lambda: P.MRI(mask=mask(6, 8), img_size=(2, 6, 8)), (1, 6, 8), CHANNELS),
        "MRI, channels": Case(lambda: P.MRI(mask=mask(6, 8), img_size=(2, 6, 8)), (2, 6, 8), note="real channels"),
        "MultiCoilMRI": Case(
            lambda: P.MultiCoilMRI(mask=mask(6, 8), coil_maps=coils(), img_size=(2, 6, 8)), (1, 6, 8), CHANNELS
        ),
        "DynamicMRI": Case(lambda: P.DynamicMRI(mask=mask(3, 6, 8), img_size=(2, 3, 6, 8)), (1, 3, 6, 8), CHANNELS),
        "SequentialMRI": Case(
            lambda: P.SequentialMRI(mask=mask(3, 6, 8), img_size=(2, 3, 6, 8)), (1, 6, 8), CHANNELS,
            note="deepinv's adjoint averages over frames",
        ),
        "NonCartesianMRI": Case(
            lambda: P.NonCartesianMRI(img_size=(2, 8, 8), samples=random(9, 2).tanh() / 2), (1, 8, 8), CHANNELS
        ),
        "RadioInterferometry": Case(
            lambda: P.RadioInterferometry(img_size=(8, 8), samples_loc=random(2, 9)), (1, 8, 8)
        ),
        "Tomography": Case(
            lambda: P.Tomography(angles=7, img_width=10, normalize=False), (1, 10, 10), note="the default"
        ),
        "Tomography, back-projection": Case(
            lambda: P.Tomography(angles=7, img_width=10, normalize=False, adjoint_via_backprop=False), (1, 10, 10),
            note="adjoint_via_backprop=False",
        ),
        "TomographyWithAstra": Case(astra, (1, 10, 10)),
        "PET": Case(lambda: P.PET(img_size=(10, 10)), (1, 10, 10), note="background counts are not part of A"),
        "UltrasoundPlaneWave": Case(
            lambda: P.UltrasoundPlaneWave(
                (8, 6), angles=[-0.1, 0.1], element_positions=array_of_elements(), n_samples=32,
                sampling_frequency=5e6,
            ), (1, 8, 6), note="single precision inside",
        ),
        "Scattering": Case(scattering, (1, 8, 8), COMPLEX, note="fields are complex contrasts; solved by iterations"),
        "BornOperator": Case(born, (1, 8, 8), COMPLEX),
        "PhaseRetrieval": Case(
            lambda: P.PhaseRetrieval(P.CompressedSensing(20, (1, 4, 3), dtype=torch.cfloat, rng=seeded())),
            (1, 4, 3), COMPLEX,
        ),
        "RandomPhaseRetrieval": Case(
            lambda: P.RandomPhaseRetrieval(30, (1, 4, 3), rng=seeded()), (1, 4, 3), COMPLEX
        ),
        "StructuredRandomPhaseRetrieval": Case(
            lambda: P.StructuredRandomPhaseRetrieval((1, 6, 5), (1, 8, 7), n_layers=2), (1, 6, 5), COMPLEX
        ),
        "PtychographyLinearOperator": Case(
            lambda: P.PtychographyLinearOperator((1, 10, 10), shifts=torch.tensor([[0, 0], [2, -1], [-2, 3]])),
            (1, 10, 10), COMPLEX,
        ),
        "Ptychography": Case(
            lambda: P.Ptychography((1, 10, 10), shifts=torch.tensor([[0, 0], [2, -1], [-2, 3]])), (1, 10, 10), COMPLEX
        ),
        "SinglePhotonLidar": Case(
            lambda: P.SinglePhotonLidar(sigma=1.0, bins=12), (3, 4, 5), note="fields are depth, intensity, background",
            positive=True,
        ),
        "Haze": Case(
            lambda: P.Haze(), ((3, 4, 5), (1, 4, 5), (1, 1, 1)), note="fields of three parts: flat here", positive=True
        ),
        "SpatialUnwrapping": Case(
            lambda: P.SpatialUnwrapping(threshold=1.0), (1, 4, 5), note="noise comes before A; gradient of the identity"
        ),
        "StackedLinearPhysics": Case(
            lambda: P.stack(P.Blur(k, padding="circular"), P.Downsampling((1, 8, 10), filter="gaussian", factor=2)),
            image, note="measures a list: flat here",
        ),
        "StackedPhysics": Case(
            lambda: P.stack(P.Blur(k, padding="circular"), P.SpatialUnwrapping()), image,
            note="measures a list: flat here",
        ),
        "ComposedLinearPhysics": Case(
            lambda: P.compose(P.Blur(k, padding="circular"), P.Downsampling((1, 8, 10), filter="gaussian", factor=2)),
            image,
        ),
        "ComposedPhysics": Case(lambda: P.compose(P.Blur(k, padding="circular"), P.SpatialUnwrapping()), image),
        "LinearPhysics": Case(
            lambda: P.LinearPhysics(A=lambda x: x.roll(1, -1), A_adjoint=lambda y: y.roll(-1, -1)), image,
            note="functions of your own",
        ),
        "LinearPhysics, no adjoint": Case(
            lambda: P.LinearPhysics(A=lambda x: x.roll(1, -1) - x, img_size=(1, 8, 10)), image,
            note="its automatic adjoint works in single precision",
        ),
        "DecomposablePhysics": Case(
            lambda: P.DecomposablePhysics(mask=random(1, 1, 8, 10, seed=5).abs()), image, note="functions of your own"
        ),
        "Physics": Case(lambda: P.Physics(A=lambda x: x.square()), image, note="a function of your own"),
        "VirtualLinearPhysics": Case(virtual, image),
        "PhysicsMultiScaler": Case(
            lambda: P.PhysicsMultiScaler(P.SpatialUnwrapping(), (1, 8, 8), factors=(2,)), (1, 8, 8), note="scale 0"
        ),
        "LinearPhysicsMultiScaler": Case(
            lambda: P.LinearPhysicsMultiScaler(P.Blur(k, padding="circular"), (1, 8, 8), factors=(2,)), (1, 8, 8),
            note="scale 0",
        ),
        "BlurMultiScaler": Case(
            lambda: P.BlurMultiScaler(P.Blur(k, padding="circular"), (1, 16, 16), "bilinear", (2,)), (1, 16, 16),
            note="scale 0",
        ),
        "BlurFFTMultiScaler": Case(
            lambda: P.BlurFFTMultiScaler(P.BlurFFT((1, 16, 16), k), (1, 16, 16), "bilinear", (2,)), (1, 16, 16),
            note="scale 0",
        ),
        "InpaintingMultiScaler": Case(
            lambda: P.InpaintingMultiScaler(P.Inpainting((1, 8, 8), mask=mask(1, 8, 8)), (1, 8, 8), factors=(2,)),
            (1, 8, 8), note="scale 0",
        ),
        "PhysicsCropper": Case(lambda: P.PhysicsCropper(P.Blur(k, padding="circular"), (2, 1)), image),
    }  # fmt: skip


def classes() -> list[str]:
    """Names of the public physics of deepinv."""
    found = [(n, c) for n, c in vars(P).items() if inspect.isclass(c) and issubclass(c, P.Physics)]
    return sorted(n for n, _ in found)


def wrapped(case: Case) -> tuple[Any, list[str]]:
    """The operator of a case, and what it warned of."""
    from scidiff.interop.deepinv_physics import from_deepinv

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        physics = case.make()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        operator = from_deepinv(physics, case.shape, **case.options)
    return operator, [str(w.message) for w in heard if w.category is UserWarning]


def row(name: str, case: Case) -> str:
    """One line of the table."""
    try:
        operator, _ = wrapped(case)
    except (ImportError, ModuleNotFoundError) as error:
        return f"| `{name}` | | | | | not tried: {str(error).split('.')[0].split(chr(10))[0]} |"
    except ValueError as error:
        found = re.search(r"relative error ([\d.e-]+)", str(error))
        return (
            f"| `{name}` | yes | no, {float(found[1]):.0e}, nor the gradient: refused | | | {case.note} |"
            if found
            else ""
        )
    linear = hasattr(operator, "adjoint")
    error = getattr(operator, "adjoint_error", None)
    exact = "" if error is None else ("yes" if operator.adjoint_from == "deepinv" else f"no, {error:.0e}")
    rows = "; one field at a time" if operator.row_by_row else ""
    svd = "yes" if callable(getattr(operator, "svd", None)) else ""
    digits = "/".join(str(torch.finfo(t).bits) for t in sorted(operator._answers, key=lambda t: torch.finfo(t).bits))
    return f"| `{name}` | {'yes' if linear else 'no'} | {exact} | {svd} | {digits} | {(case.note + rows).strip('; ')} |"


def table() -> str:
    lines = ["| physics | linear | deepinv's adjoint exact | `svd()` | bits | note |", "|---|---|---|---|---|---|"]
    return "\n".join(lines + [row(name, case) for name, case in cases().items()])


def main() -> None:
    torch.set_num_threads(1)
    print(f"deepinv {deepinv.__version__}, torch {torch.__version__.split('+')[0]}\n")
    print(table())


if __name__ == "__main__":
    main()
