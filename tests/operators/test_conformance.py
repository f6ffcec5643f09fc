"""Every operator keeps all that `scidiff.testing.check_operator` asks for. One line per operator in CASES."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pint
import pytest
import torch
from torch import Generator

import scidiff.operators as operators
from scidiff.operators import combined, interferometry, sensors, tomography
from scidiff.operators.algebra import Algebra
from scidiff.testing import check_operator

F64, C128 = torch.float64, torch.complex128


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def randn(*shape: int, dtype: torch.dtype = F64, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


def seen(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=rng(2)) > 0.5


@dataclass(frozen=True)
class Case:
    """An operator, made anew for each test, and what `check_operator` must know of it.

    `lazy` holds keyword arguments of `check_operator` that are made when the test runs (`at`, `same`, ...); `lacks` the
    numbers of the report that this operator has not ("vjp" for a black box); all others must have been measured.
    """

    name: str
    factory: Callable[[], Any]
    shape: tuple[int, ...]
    lacks: tuple[str, ...] = ()
    flags: dict[str, Any] = field(default_factory=dict)
    lazy: Callable[[], dict[str, Any]] = dict


NONLINEAR = ("adjoint32", "adjoint64", "normal", "svd", "units")
FLOW = (*NONLINEAR, "pinv")
TRANSMITS = (*NONLINEAR, "pinv")
NO_SVD, NO_PINV = ("svd", "pinv"), ("pinv",)
BLUR = (5, 6)


def blur() -> Any:
    return operators.Convolution(randn(3, 2), BLUR)


def even() -> torch.Tensor:
    return torch.outer(torch.tensor([1.0, -3.0, 1.0]), torch.tensor([1.0, 2.0, 5.0, 2.0, 1.0])).to(F64)


def coded() -> Any:
    return operators.CodedDiffraction(randn(3, *BLUR, dtype=C128), power=2)


def mri(**options: Any) -> Any:
    return operators.CartesianMRI(randn(3, 6, 5, dtype=C128), seen(6, 5), **options)


def flow() -> Any:
    return operators.NavierStokes((10, 12), reynolds=20.0, times=(0.1, 0.3), forcing=2)


PLACES = ([0.3, 1.0, 2.9, 0.0], [10.0, 22.5, 39.0, 14.1])
AXES = ([0.0, 0.5, 1.5, 2.0, 3.0], [40.0, 35.0, 30.0, 24.0, 20.0, 15.0, 10.0])


def points() -> Any:
    return operators.Points(AXES, PLACES)


def points_in_other_units() -> list[Any]:
    units = pint.get_application_registry()
    axes = (np.array(AXES[0]) * units.km, np.array(AXES[1]) * units.s)
    return [operators.Points(axes, (1000 * np.array(PLACES[0]) * units.m, np.array(PLACES[1]) * units.s))]


def periodic_points() -> Any:
    return operators.Points([np.arange(7) / 7], [[0.05, 0.99, -0.3, 2.5]], [1.0])


GLOBE = ([75.0, 45.0, 15.0, -15.0, -45.0, -75.0], 45.0 * np.arange(8))
ON_GLOBE = ([88.0, -80.0, 10.0, 45.0], [-10.0, 359.0, 100.0, 45.0])


def globe() -> Any:
    return operators.LatLonPoints(*GLOBE, *ON_GLOBE)


def globe_footprints() -> Any:
    return operators.LatLonFootprints(*GLOBE, *ON_GLOBE, sensors.DiscFootprint(800.0))


def footprints(footprint: Any) -> Any:
    return operators.Footprints((0.5 * np.arange(5), 0.3 * np.arange(7)), ([0.3, 1.9], [0.2, 1.0]), footprint)


def regions() -> Any:
    labels = torch.tensor([[0, 0, 1, 1, -1]] * 2 + [[2, 0, 0, 1, 3]] * 2)
    return operators.RegionMeans(labels, torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None])


def series() -> Any:
    return operators.StationSeries(points(), seen(3, 4))


STATIONS = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])
SKY = (1, 5, 6)


def sky(square: bool = False) -> Any:
    return operators.Visibilities(4e9 * randn(6, 2, seed=5), SKY[1:], 1e-10, square=square)


def phases() -> Any:
    return interferometry.ClosurePhases(sky(), interferometry.triangles(STATIONS, torch.zeros(6, dtype=torch.int64)))


def amplitudes() -> Any:
    closures = interferometry.quadrangles(STATIONS, torch.zeros(6, dtype=torch.int64))
    return interferometry.LogClosureAmplitudes(sky(), closures)


def gains() -> Any:
    return interferometry.StationGains(randn(4, dtype=C128), STATIONS)


def positive() -> dict[str, Any]:
    return {"at": torch.rand(2, *SKY, generator=rng(7), dtype=F64) + 0.2}


def rock() -> dict[str, Any]:
    return {"at": (0.3 * randn(3, 1, 6, 5)).exp()}


def rotated() -> Any:
    left, right = operators.Mask(seen(*BLUR)), operators.Mask(seen(4, 5))
    return left.H @ operators.LinearMap(randn(int(left.mask.sum()), int(right.mask.sum()))) @ right


def parallel(pixel: Any) -> Any:
    return operators.ParallelBeam((5, 8), [0.0, 30.0, 100.0], pixel=pixel, bins=7, truncation="ignore")


def in_other_units() -> list[Any]:
    units = pint.get_application_registry()
    angles = np.deg2rad([0.0, 30.0, 100.0]) * units.radian
    return [operators.ParallelBeam((5, 8), angles, pixel=1000 * units.um, bins=7, truncation="ignore")]


def fan() -> Any:
    return operators.FanBeam((6, 4), [0.0, 130.0], source_distance=9.0, detector_distance=2.0, detector="arc")


def squared(x: torch.Tensor) -> torch.Tensor:
    return x**2


def difference(x: torch.Tensor) -> torch.Tensor:
    return x[..., 1:] - 2 * x[..., :-1]


CASES = [
    Case("identity", lambda: operators.Identity(), (1, 4, 5), NO_PINV),
    Case("mask", lambda: operators.Mask(seen(4, 5)), (2, 4, 5), NO_PINV),
    Case("matrix", lambda: operators.LinearMap(randn(7, 20), (1, 4, 5)), (1, 4, 5), NO_PINV),
    Case("convolution", blur, (2, *BLUR), NO_PINV),
    Case("convolution of complex fields", blur, BLUR, NO_PINV, {"complex_fields": True}),
    Case("downsampling", lambda: operators.Downsampling((2, 3), (6, 9)), (2, 6, 9), NO_PINV),
    Case("Poisson's equation", lambda: operators.Poisson((6, 5), (1.0, 2.0)), (2, 6, 5), NO_PINV),
    Case("Helmholtz' equation", lambda: operators.Helmholtz((6, 5), 2.0), (1, 6, 5), NO_PINV),
    Case("Navier-Stokes", flow, (1, 10, 12), (*NONLINEAR, "pinv")),
    Case("visibilities", sky, SKY, NO_SVD),
    Case("visibilities of square pixels", lambda: sky(True), SKY, NO_SVD),
    Case("gains of stations", gains, (6,), NO_SVD, {"complex_fields": True}),
    Case("total flux", lambda: interferometry.TotalFlux(SKY[1:]), SKY, NO_SVD),
    Case("closure phases", phases, SKY, (*NONLINEAR, "pinv"), {}, positive),
    Case("log closure amplitudes", amplitudes, SKY, (*NONLINEAR, "pinv"), {}, positive),
    Case("amplitudes", lambda: interferometry.VisibilityAmplitudes(sky()), SKY, (*NONLINEAR, "pinv"), {}, positive),
    Case("Darcy's flow", lambda: operators.Darcy((6, 5), 2.0, (1.0, 2.0)), (1, 6, 5), (*NONLINEAR, "pinv"), lazy=rock),
    Case("heat", lambda: operators.Heat((5, 6), 0.02, (0.3, 0.7), (1.0, 2.0)), (1, 5, 6), NO_PINV),
    Case(
        "advection and diffusion",
        lambda: operators.AdvectionDiffusion((5, 6), 0.01, (0.3, -1.2), (0.3, 0.7), 0.5),
        (1, 5, 6),
        NO_PINV,
    ),
    Case("wave", lambda: operators.Wave((5, 6), 0.7, (0.3, 0.8), (1.0, 2.0)), (2, 5, 6), NO_PINV),
    Case(
        "wave of varying speed", lambda: operators.VariableWave(1 + seen(5, 6).double(), (0.1, 0.3)), (2, 5, 6), NO_SVD
    ),
    Case("Burgers", lambda: operators.Burgers((12,), 0.05, (0.02, 0.05)), (1, 12), FLOW),
    Case("Burgers in the plane", lambda: operators.Burgers((8, 9), 0.05, 0.03), (2, 8, 9), FLOW, {"contrast": 3.0}),
    Case("Kuramoto-Sivashinsky", lambda: operators.KuramotoSivashinsky(12, 20.0, 0.5), (1, 12), FLOW),
    Case("Allen-Cahn", lambda: operators.AllenCahn((8, 9), 1e-2, 2.0, (0.05, 0.1)), (1, 8, 9), FLOW, {"contrast": 3.0}),
    Case("Gray-Scott", lambda: operators.GrayScott((12,), times=(0.2, 0.5)), (2, 12), FLOW, {"contrast": 3.0}),
    Case(
        "reaction and diffusion",
        lambda: operators.ReactionDiffusion((12,), (0.1, 0.2), torch.sin, 1.0, 0.3),
        (2, 12),
        FLOW,
        {"storable": False},
    ),
    Case(
        "shallow water", lambda: operators.ShallowWater((8, 9), 100.0, times=0.02), (3, 8, 9), FLOW, {"contrast": 3.0}
    ),
    Case("Lorenz-63", lambda: operators.Lorenz63((0.1, 0.2)), (3,), FLOW, {"contrast": 3.0}),
    Case("Lorenz-96", lambda: operators.Lorenz96(7, (0.1, 0.2)), (7,), FLOW, {"contrast": 3.0}),
    Case("MRI", mri, (1, 6, 5), NO_SVD, {"complex_fields": True}),
    Case("MRI of real fields", lambda: operators.RealField(mri()), (1, 6, 5), NO_SVD),
    Case("blur of what is inside", lambda: operators.ValidConvolution(randn(3, 2), BLUR), (2, *BLUR), NO_SVD),
    Case("blur with zeros outside", lambda: operators.ZeroConvolution(randn(3, 2), BLUR), (2, *BLUR), NO_SVD),
    Case("blur with mirrors", lambda: operators.ReflectiveConvolution(even(), BLUR), (2, *BLUR), NO_PINV),
    Case("widefield blur", lambda: operators.WidefieldBlur(randn(3, 2), (4, 5), 1), (2, 6, 7), NO_SVD),
    Case("background", lambda: operators.Background(blur(), 0.3), BLUR, (*NONLINEAR, "pinv")),
    Case("Fourier magnitude", lambda: operators.FourierMagnitude(BLUR, 1.5), (2, *BLUR), (*NONLINEAR, "pinv")),
    Case("coded diffraction", coded, BLUR, (*NONLINEAR, "pinv"), {"complex_fields": True}),
    Case("parallel beam", lambda: parallel(1.0), (2, 5, 8), NO_SVD, lazy=lambda: {"same": in_other_units()}),
    Case("fan beam", fan, (1, 6, 4), NO_SVD),
    Case("transmission", lambda: operators.Transmission(9.0, randn(7).square(), parallel(0.1)), (1, 5, 8), TRANSMITS),
    Case("points off the grid", points, (2, 5, 7), NO_SVD, lazy=lambda: {"same": points_in_other_units()}),
    Case("points of a periodic line", periodic_points, (2, 7), NO_SVD),
    Case("stations on the globe", globe, (2, 6, 8), NO_SVD),
    Case("footprints", lambda: footprints(sensors.GaussianFootprint(0.4)), (1, 5, 7), NO_SVD),
    Case("footprints on the globe", globe_footprints, (1, 6, 8), NO_SVD),
    Case("means of regions", regions, (2, 4, 5), NO_SVD),
    Case("every n-th point", lambda: operators.Subsampling((2, 3), (5, 8), (1, 2)), (2, 5, 8), NO_PINV),
    Case("time series with gaps", series, (3, 5, 7), NO_SVD),
    Case("an operator over time", lambda: operators.OverTime(blur(), 4, [1, 3]), (4, *BLUR), NO_SVD),
    Case("a simulation over time", lambda: operators.OverTime(operators.Squared(), 3), (3, 4, 5), TRANSMITS),
    Case("speed", lambda: operators.Speed(), (2, 4, 5), TRANSMITS),
    Case("saturating", lambda: operators.Saturating(2.0), (1, 4, 5), TRANSMITS),
    Case("squared", lambda: operators.Squared(), (1, 4, 5), TRANSMITS),
    Case("clipped", lambda: operators.Clipped(-4.0, 5.0), (1, 4, 5), TRANSMITS),
    Case("exceeds", lambda: operators.Exceeds(0.3), (1, 4, 5), (*TRANSMITS, "vjp")),
    Case("JPEG", lambda: operators.JPEG(50, 8.0, 0.5), (1, 16, 8), (*NONLINEAR, "vjp")),
    Case(
        "numpy function",
        lambda: operators.BlackBox(np.abs),
        (1, 4, 5),
        (*NONLINEAR, "pinv", "vjp"),
        {"storable": False},
    ),
    Case("frozen", lambda: operators.Frozen(blur()), BLUR, (*NONLINEAR, "pinv", "vjp")),
    Case("linear function", lambda: operators.Linear(difference, (4, 5)), (4, 5), NO_SVD, {"storable": False}),
    Case("linear operator by autograd", lambda: operators.Linear(blur(), BLUR), BLUR, NO_SVD),
    Case("stack", lambda: operators.stack([blur(), operators.Mask(seen(*BLUR))], BLUR), BLUR, NO_SVD),
    Case("composition", lambda: operators.Mask(seen(*BLUR)) @ blur() @ blur(), BLUR, NO_SVD),
    Case("composition with an svd", rotated, (4, 5), NO_PINV),
    Case("function of a measurement", lambda: squared @ blur(), BLUR, (*NONLINEAR, "pinv"), {"storable": False}),
    Case("sum", lambda: blur() - 0.5 * operators.Identity(), BLUR, NO_SVD),
    Case("multiple", lambda: -2.5 * blur(), BLUR, NO_PINV),
    Case("complex multiple", lambda: (1 - 2j) * blur(), BLUR, NO_SVD, {"complex_fields": True}),
    Case("adjoint", lambda: operators.Downsampling(2, (6, 8)).H, (3, 4), NO_PINV),
    Case("normal operator", lambda: blur().normal(), BLUR, NO_PINV),
]
# Checked elsewhere: Subprocess starts programs (tests/operators/test_black_box.py).
# Projector is what beams inherit; finufft may be missing (tests/operators/interferometry/test_nufft.py), ASTRA too.
ELSEWHERE = {"Subprocess", "NUFFTVisibilities", "AstraProjector", "Projector"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_conformance(case: Case) -> None:
    operator = case.factory()
    sides = [n for n in case.shape if n > 1]
    assert len(set(sides)) == len(sides), f"take unequal sides, not {case.shape}: symmetry hides mistakes"
    report = check_operator(operator, case.shape, generator=rng(), **case.flags, **case.lazy())
    missing = {name for name, value in report.as_dict().items() if value is None}
    assert missing == set(case.lacks)
    assert isinstance(operator, Algebra) and repr(operator)
    if "adjoint64" not in case.lacks:
        x = torch.ones(2, *case.shape, dtype=C128 if case.flags.get("complex_fields") else F64)
        y = operator(x)
        assert torch.equal(operator.H(y), operator.adjoint(y)) and torch.equal(operator.H.H(x), y)
        assert type(operator.normal()).__name__ == "Normal", "override `_normal(x)`, not `normal`"


def test_every_exported_operator_has_a_case() -> None:
    exported = {
        thing
        for module in (operators, combined, interferometry, sensors, tomography)
        for name in module.__all__
        if inspect.isclass(thing := getattr(module, name)) and issubclass(thing, Algebra)
    }
    covered = {type(case.factory()) for case in CASES}
    missing = {kind.__name__ for kind in exported - covered} - ELSEWHERE
    assert not missing, f"add a line to CASES for {sorted(missing)}"
