"""Parallel and fan beam against exact line integrals: adjoint, derivatives, geometry, order, mass, other libraries."""

import math

import numpy as np
import pytest
import torch

from scidiff.operators import FanBeam, ParallelBeam
from scidiff.operators.tomography import AstraProjector, Ellipse, Projector, ellipse_field, ellipse_sinogram
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

F64 = torch.float64
ANGLES = torch.tensor([0.0, 30.0, 71.0, 90.0, 130.0, -200.0])
TUBE = {"source_distance": 9.0, "detector_distance": 4.0}
SMALL = {"pixel": (0.5, 0.7), "bin_width": 0.6, "bins": 14, "centre": 6.2}


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


OPERATORS = {
    "parallel": lambda: ParallelBeam((5, 8), ANGLES, **SMALL),
    "parallel, three rays a bin": lambda: ParallelBeam((8, 5), ANGLES, **SMALL, rays_per_bin=3),
    "parallel, one view, one pixel": lambda: ParallelBeam((1, 1), [17.0], bins=3, bin_width=0.4),
    "flat fan": lambda: FanBeam((5, 8), ANGLES, **{**SMALL, "bins": 18, "centre": 8.1}, **TUBE),
    "arc": lambda: FanBeam((8, 5), ANGLES, pixel=0.6, detector="arc", rays_per_bin=2, **TUBE),
}


@pytest.mark.parametrize("name", list(OPERATORS))
def test_adjoint_derivatives_batch(name: str) -> None:
    operator: Projector = OPERATORS[name]()
    shape = (2, *operator.shape)
    assert check_adjoint(operator, shape) < 1e-14
    check_adjoint(operator, shape, dtype=torch.complex128)
    assert check_adjoint(operator, shape, dtype=torch.float32) < 1e-6
    x = random(3, *shape, seed=2)
    check_vjp(operator, x)
    check_batch_independence(operator, x)
    check_batch_independence(operator.adjoint, operator(x))
    assert torch.equal(operator.normal(x), operator.adjoint(operator(x)))
    assert operator(x[:0]).shape == (0, 2, operator.views, operator.bins)


def dense(operator: Projector) -> torch.Tensor:
    """The matrix from one field after the other."""
    n = math.prod(operator.shape)
    return operator(torch.eye(n, dtype=F64).reshape(n, 1, *operator.shape)).reshape(n, -1).mT


@pytest.mark.parametrize("name", list(OPERATORS))
def test_brute_force_twin(name: str) -> None:
    """Every ray, line by line of pixels, by interpolation between two neighbours."""
    operator: Projector = OPERATORS[name]()
    (height, width), (dy, dx) = operator.shape, operator.pixel
    expected = np.zeros((operator.views * operator.bins, height * width))
    for ray, (p, d) in enumerate(zip(*operator.rays(), strict=True)):
        column, row = p[0] / dx + (width - 1) / 2, (height - 1) / 2 - p[1] / dy
        steep = abs(d[1] / dy) >= abs(d[0] / dx)
        for line in range(height if steep else width):
            t = (row - line) * dy / d[1] if steep else (line - column) * dx / d[0]
            place = column + t * d[0] / dx if steep else row - t * d[1] / dy
            length = dy / abs(d[1]) if steep else dx / abs(d[0])
            low = math.floor(place)
            for neighbour, weight in ((low, 1 - (place - low)), (low + 1, place - low)):
                if 0 <= neighbour < (width if steep else height):
                    pixel = line * width + neighbour if steep else neighbour * width + line
                    expected[ray // operator.rays_per_bin, pixel] += weight * length / operator.rays_per_bin
    assert np.allclose(dense(operator).numpy(), expected, atol=1e-13)
    assert np.allclose(operator.matrix().toarray(), expected, atol=1e-13)


def test_gradient_of_gradient_and_forward_mode() -> None:
    operator = OPERATORS["parallel"]()
    x = random(1, 1, 5, 8).requires_grad_()
    assert torch.autograd.gradcheck(operator, (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(operator, (x,))
    assert torch.autograd.gradcheck(operator.adjoint, (operator(x).detach().requires_grad_(),))
    stack = random(3, 2, 1, 5, 8)
    assert torch.allclose(torch.func.vmap(operator)(stack), torch.stack([operator(s) for s in stack]))


def bump(operator: Projector, width: float, centre: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """A Gaussian bump at the pixel centres and its exact line integrals."""
    (height, wide), (dy, dx) = operator.shape, operator.pixel
    u = (np.arange(wide) - (wide - 1) / 2) * dx
    v = ((height - 1) / 2 - np.arange(height)[:, None]) * dy
    field = np.exp(-((u - centre[0]) ** 2 + (v - centre[1]) ** 2) / (2 * width**2))
    point, direction = operator.rays()
    normal = np.stack([direction[:, 1], -direction[:, 0]], -1)
    s = (point * normal).sum(-1) - normal @ np.array(centre)
    z = width * math.sqrt(2 * math.pi) * np.exp(-(s**2) / (2 * width**2))
    z = z.reshape(1, 1, operator.views, operator.bins, operator.rays_per_bin).mean(-1)
    return torch.from_numpy(field)[None, None], torch.from_numpy(z)


@pytest.mark.parametrize("kind", ["parallel", "flat", "arc"])
def test_second_order_on_smooth_fields(kind: str) -> None:
    """Error against exact integrals of a bump off the axis, detector off the middle, unequal sides and pixels."""
    errors, sizes = [], (24, 48, 96)
    for n in sizes:
        common = {"pixel": (60 / n, 80 / n), "bins": 61, "bin_width": 2.0, "centre": 27.3, "rays_per_bin": 1}
        grid, angles = (n, n // 2), np.linspace(0, 180, 13)[:-1]
        if kind == "parallel":
            operator: Projector = ParallelBeam(grid, angles, **common)
        else:
            operator = FanBeam(grid, angles, **common, source_distance=90, detector_distance=10, detector=kind)
        x, z = bump(operator, 4.5, (3.0, -7.0))
        errors.append(float((operator(x) - z).norm() / z.norm()))
    order = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -2.3 < order < -1.8, errors
    assert errors[-1] < 3e-3


def test_mass_is_the_same_in_every_view() -> None:
    operator = ParallelBeam((60, 44), np.arange(0, 180, 7.0), pixel=(0.5, 0.8), bin_width=0.9)
    x, _ = bump(operator, 3.0, (2.0, -3.0))
    mass = operator(x).sum(-1) * operator.bin_width
    assert torch.allclose(mass, x.sum() * 0.5 * 0.8, rtol=1e-4)


def test_orientation_centre_and_offset() -> None:
    """A pixel up and to the right is seen to the right at 0 degrees, up at 90; the centre moves the picture along."""
    x = torch.zeros(1, 1, 9, 11, dtype=F64)
    x[0, 0, 1, 8] = 1.0  # u = +3, v = +3
    z = ParallelBeam((9, 11), [0.0, 45.0, 90.0, 180.0], bins=21)(x)[0, 0]
    assert [int(row.argmax()) for row in z] == [13, 14, 13, 7]
    assert torch.allclose(z[[0, 2, 3]].amax(1), torch.ones(3, dtype=F64))
    moved = ParallelBeam((9, 11), [0.0, 45.0, 90.0, 180.0], bins=21, centre=12.0)(x)[0, 0]
    assert torch.allclose(moved[:, 2:], z[:, :-2])
    far = FanBeam((9, 11), [0.0, 45.0, 90.0, 180.0], bins=21, bin_width=1.0, source_distance=1e9, detector_distance=1)
    assert torch.allclose(far(x)[0, 0], z, atol=1e-6)


def test_ellipses_agree_with_their_pixels() -> None:
    """Exact chords against the projector of fine pixels, in the mean over bins, for both geometries."""
    parts = [Ellipse(0.02, (12, -9), (25, 14), 30), Ellipse(-0.01, (15, -5), (6, 4), -50)]
    angles = np.arange(0, 360, 36.0)
    for operator in (
        ParallelBeam((120, 160), angles, pixel=0.5, bins=50, bin_width=2.0, centre=22.4),
        FanBeam((120, 160), angles, pixel=0.5, source_distance=120, detector_distance=50, bin_width=2.5),
    ):
        exact = ellipse_sinogram(operator, parts)
        assert float((operator(ellipse_field(operator, parts)) - exact).norm() / exact.norm()) < 4e-3


def test_same_numbers_as_deepinv() -> None:
    """deepinv turns the picture by bilinear interpolation and sums: the same integrals to second order, and to
    rounding at multiples of 90 degrees. Sides of 61 and 87 put its axis on the middle of the field."""
    physics = pytest.importorskip("deepinv.physics")
    size, angles = 61, torch.tensor([0.0, 90.0, 180.0, 20.0, 57.0, 111.0])
    theirs = physics.Tomography(angles=angles, img_width=size, normalize=False, circle=False)
    ours = ParallelBeam((size, size), angles, bins=87)
    x, _ = bump(ours, 6.0, (4.0, -9.0))
    z, reference = ours(x.float()), theirs.A(x.float()).mT
    assert torch.allclose(z[..., :3, :], reference[..., :3, :], atol=2e-4)
    assert float((z - reference).norm() / reference.norm()) < 4e-3


def test_same_weights_as_astra() -> None:
    pytest.importorskip(
        "astra", reason="astra-toolbox is missing or broken: install the extra [ct]", exc_type=ImportError
    )
    operator = ParallelBeam((13, 18), ANGLES[:5], pixel=0.7, bin_width=0.6, bins=32, centre=17.3, rays_per_bin=1)
    astra = AstraProjector(operator)
    weights = operator.matrix()
    assert abs(astra.matrix() - weights).max() < 1e-5 * weights.max()  # ASTRA's are of single precision
    assert check_adjoint(astra, (1, 13, 18), dtype=torch.float32) < 1e-6
    assert torch.allclose(astra(random(2, 1, 13, 18, seed=1)), operator(random(2, 1, 13, 18, seed=1)), atol=1e-4)
    # Other models and the fan: different interpolation, so close only on smooth fields.
    fan = FanBeam((40, 50), np.arange(0, 360, 24.0), source_distance=90, detector_distance=30, centre=40.0, bins=90)
    parallel = ParallelBeam((40, 50), np.arange(0, 180, 12.0), centre=30.0, bins=70)
    for geometry, models in ((parallel, ("line", "strip")), (fan, ("line",))):
        x, exact = bump(geometry, 5.0, (4.0, -6.0))
        for model in models:
            assert float((AstraProjector(geometry, model)(x) - exact).norm() / exact.norm()) < 2e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", list(OPERATORS))
def test_same_numbers_on_a_gpu(name: str) -> None:
    operator: Projector = OPERATORS[name]()
    for dtype, tolerance in ((torch.float32, 1e-5), (F64, 1e-13)):
        for batch in (1, 3):
            x = random(batch, 2, *operator.shape, seed=4, dtype=dtype)
            z = operator(x)
            assert torch.allclose(operator(x.cuda()).cpu(), z, atol=tolerance * float(z.abs().max()))
            back = operator.adjoint(z)
            assert torch.allclose(operator.adjoint(z.cuda()).cpu(), back, atol=tolerance * float(back.abs().max()))
            x_fbp = operator.fbp(z)  # type: ignore[attr-defined]
            on_gpu = operator.fbp(z.cuda()).cpu()  # type: ignore[attr-defined]
            assert torch.allclose(on_gpu, x_fbp, atol=1e2 * tolerance * float(x_fbp.abs().max()))
