"""Filtered backprojection of exact sinograms: absolute values, convergence, scans of every kind."""

import math

import numpy as np
import pytest
import torch

from scidiff.operators import FanBeam, ParallelBeam
from scidiff.operators.tomography import Ellipse, Projector, ellipse_field, ellipse_sinogram
from scidiff.operators.tomography.filters import ramp_filtered

ELLIPSE = Ellipse(0.02, (12.0, -9.0), (30.0, 18.0), 30.0)


def errors(operator: Projector, inner: float = 0.8, outer: float = 1.25) -> tuple[float, float, float]:
    """Error of the mean inside, of single pixels inside, and of pixels outside, relative to the ellipse's value."""
    x = operator.fbp(ellipse_sinogram(operator, [ELLIPSE]))  # type: ignore[attr-defined]
    mu, centre, (a, b), turn = ELLIPSE.attenuation, ELLIPSE.centre, ELLIPSE.axes, ELLIPSE.turn
    part = lambda f: ellipse_field(operator, [Ellipse(1.0, centre, (f * a, f * b), turn)], points=1) > 0  # noqa: E731
    inside, outside = part(inner), ~part(outer)
    rms = lambda e: float(e.square().mean().sqrt()) / mu  # noqa: E731
    return abs(float(x[inside].mean()) / mu - 1), rms(x[inside] - mu), rms(x[outside])


def parallel(n: int, **more) -> ParallelBeam:
    return ParallelBeam((n, n + n // 8), np.arange(int(1.5 * n)) * 120.0 / n, **{"pixel": 100 / n, **more})


def fan(n: int, turn: float = 360.0, **more) -> FanBeam:
    angles = np.arange(int(1.5 * n * turn / 180)) * 120.0 / n - 75
    return FanBeam((n, n), angles, pixel=100 / n, source_distance=200, detector_distance=100, **more)


SCANS = {
    "parallel": parallel,
    "parallel, off-centre axis": lambda n: parallel(n, centre=0.53 * 1.6 * n),
    "parallel, wide bins, flat pixels": lambda n: parallel(n, bin_width=75 / n, pixel=(100 / n, 80 / n)),
    "flat fan": fan,
    "arc": lambda n: fan(n, detector="arc"),
    "flat fan, short scan": lambda n: fan(n, 230.0),
    "arc, short scan": lambda n: fan(n, 250.0, detector="arc"),
    "fan, off-centre axis": lambda n: fan(n, centre=0.8 * n, bins=int(1.5 * n)),
}


@pytest.mark.parametrize("name", list(SCANS))
def test_an_off_centre_ellipse_comes_back(name: str) -> None:
    coarse, fine = errors(SCANS[name](40)), errors(SCANS[name](80))
    assert fine[0] < 2e-3  # the absolute value in 1/mm
    assert fine[1] < 6e-3 and fine[1] < 0.5 * coarse[1]
    assert fine[2] < 0.025 and fine[2] < 0.85 * coarse[2]


def test_axis_far_off_the_middle_of_a_full_turn() -> None:
    """What only the longer side of the detector sees is reconstructed too."""
    n = 80
    for operator in (
        ParallelBeam((n, n), np.arange(240) * 1.5, pixel=1.25, bins=70, centre=14.0),
        FanBeam(
            (n, n), np.arange(480) * 0.75, pixel=1.25, bins=72, centre=14.0, source_distance=300, detector_distance=30
        ),
    ):
        assert errors(operator)[0] < 5e-3
        assert errors(operator)[1] < 0.02


def test_unequal_steps_and_opposite_views() -> None:
    """Views weigh what they stand for: twice as dense on one side, some from behind, in any order."""
    angles = np.concatenate([np.arange(0, 90, 1.0), np.arange(90, 180, 2.0)])
    angles[::3] += 180
    operator = ParallelBeam((64, 64), np.random.default_rng(0).permutation(angles), pixel=100 / 64)
    assert errors(operator)[0] < 2e-3
    assert errors(operator)[1] < 0.02


def test_missing_wedge_is_not_filled_with_weight() -> None:
    """Beyond a gap views keep the weight of their usual step, so that a limited angle shows as streaks, not blobs."""
    from scidiff.operators.tomography.backprojection import view_weights

    theta = torch.deg2rad(torch.arange(0, 120, 2.0, dtype=torch.float64))
    assert torch.allclose(view_weights(theta, math.pi), torch.full((60,), math.radians(2.0), dtype=torch.float64))
    whole = view_weights(torch.rand(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 9, math.pi)
    assert float(whole.sum()) <= math.pi + 1e-12


def test_ramp_against_its_spectrum_and_windows() -> None:
    """A cosine well below the highest frequency is multiplied by its frequency, a constant vanishes in the middle."""
    width, bins = 0.3, 2000
    s = (torch.arange(bins, dtype=torch.float64) - bins / 2) * width
    f = 0.35
    wave = torch.cos(2 * math.pi * f * s)
    middle = slice(900, 1100)
    got = ramp_filtered(wave[None], width)[0]
    assert torch.allclose(got[middle], f * wave[middle], atol=2e-3 * f)
    highest = 1 / (2 * width)
    expected = {
        "shepp-logan": math.sin(math.pi * f / highest / 2) / (math.pi * f / highest / 2),
        "cosine": math.cos(math.pi * f / highest / 2),
        "hamming": 0.54 + 0.46 * math.cos(math.pi * f / highest),
        "hann": 0.5 + 0.5 * math.cos(math.pi * f / highest),
    }
    for name, factor in expected.items():
        assert torch.allclose(ramp_filtered(wave[None], width, name)[0, middle], factor * got[middle], atol=2e-3)
    assert float(ramp_filtered(wave[None], width, cutoff=0.15)[0, middle].abs().max()) < 0.02 * f
    with pytest.raises(ValueError, match="filter must be one of ramp"):
        ramp_filtered(wave[None], width, "hanning")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cutoff"):
        ramp_filtered(wave[None], width, cutoff=0.0)


def test_batch_type_and_gradient() -> None:
    operator = parallel(16)
    y = torch.randn(3, 2, operator.views, operator.bins, generator=torch.Generator().manual_seed(3))
    x = operator.fbp(y, "hann")
    assert x.shape == (3, 2, 16, 18) and x.dtype == torch.float32
    assert torch.allclose(operator.fbp(y[:1], "hann"), x[:1], atol=1e-6)
    assert torch.allclose(operator.fbp(y.double(), "hann").float(), x, atol=1e-5)
    y = y.double().requires_grad_()
    (gradient,) = torch.autograd.grad(operator.fbp(y).sum(), y)
    assert torch.allclose((gradient * y).sum(), operator.fbp(y).sum())  # linear
