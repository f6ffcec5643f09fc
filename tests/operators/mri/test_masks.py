"""Masks: the promised number of points, the calibration region, the distance between points."""

import pytest
import torch

from scidiff.operators.mri import masks


@pytest.mark.parametrize("make", [masks.uniform, masks.random])
@pytest.mark.parametrize("acceleration", [1, 1.5, 2, 3.3, 4, 8])
@pytest.mark.parametrize("axis", [-1, -2])
def test_lines_hit_the_acceleration_and_hold_the_band(make, acceleration, axis):
    shape = (50, 63)
    mask = make(shape, acceleration, axis=axis)
    lines = mask.any(1 + axis)
    assert mask.shape == shape and mask.dtype == torch.bool
    assert int(lines.sum()) == round(shape[axis] / acceleration)
    assert int(mask.sum()) == int(lines.sum()) * shape[-1 - axis - 2]  # whole lines
    band = round(0.08 * shape[axis])
    start = shape[axis] // 2 - band // 2
    assert bool(lines[start : start + band].all())


def test_uniform_is_nearly_equally_spaced():
    lines = masks.uniform((4, 60), 3, calibration=0)[0].nonzero()[:, 0]
    assert set(lines.diff().tolist()) == {3}


def test_random_density_is_uniform_or_falls_outwards(generator):
    count = lambda decay: sum(  # noqa: E731 - one expression, used twice
        masks.random((1, 101), 4, calibration=5, decay=decay, generator=generator)[0].double() for _ in range(400)
    )
    distance = (torch.arange(101) - 50).abs()
    inner, outer = (distance > 3) & (distance <= 20), distance > 35
    flat, steep = count(0.0), count(2.0)
    # (25 - 5) of 96 lines, 400 times: 83 a line; the means over 30 lines scatter by less than 2.
    assert abs(flat[inner].mean() - 400 * 20 / 96) < 6 and abs(flat[outer].mean() - 400 * 20 / 96) < 6
    assert steep[inner].mean() > 5 * steep[outer].mean()


@pytest.mark.parametrize("acceleration", [1, 3, 8.3])
@pytest.mark.parametrize("calibration", [0, 9, (8, 5), 0.1])
def test_poisson_disc_hits_the_acceleration_exactly(acceleration, calibration, generator):
    shape = (45, 52)
    mask = masks.poisson_disc(shape, acceleration, calibration, generator=generator)
    assert int(mask.sum()) == round(45 * 52 / acceleration)
    if calibration != 0:
        high, wide = {9: (9, 9), (8, 5): (8, 5), 0.1: (4, 5)}[calibration]
        assert bool(mask[22 - high // 2 : 22 - high // 2 + high, 26 - wide // 2 : 26 - wide // 2 + wide].all())


def test_poisson_disc_keeps_apart(generator):
    mask = masks.poisson_disc((64, 64), 8, calibration=0, slope=0.0, generator=generator)
    points = mask.nonzero().double()
    distance = torch.cdist(points, points) + 99 * torch.eye(len(points))
    # 512 points at random would have pairs at distance 1; the densest packing allows 3.04.
    assert float(distance.min()) > 1.9


def test_same_generator_same_mask():
    one, two = (masks.poisson_disc((30, 33), 4, 8, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    other = masks.poisson_disc((30, 33), 4, 8, generator=torch.Generator().manual_seed(4))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize("sides", [(4, 5), (5, 4), (1, 1), (12, 9)])
def test_calibration_region_is_found(sides):
    mask = torch.zeros(12, 9, dtype=torch.bool)
    starts = [n // 2 - s // 2 for n, s in zip((12, 9), sides, strict=True)]
    rows, cols = (slice(a, a + s) for a, s in zip(starts, sides, strict=True))
    mask[rows, cols] = True
    assert masks.calibration_region(mask) == (rows, cols)


def test_calibration_region_against_all_rectangles(generator):
    for _ in range(60):
        mask = torch.rand(9, 8, generator=generator) < 0.85
        mask[4, 4] = True
        best = 0
        for a in range(1, 10):
            for b in range(1, 9):
                box = mask[4 - a // 2 : 4 - a // 2 + a, 4 - b // 2 : 4 - b // 2 + b]
                best = max(best, a * b) if box.numel() == a * b and bool(box.all()) else best
        rows, cols = masks.calibration_region(mask)
        assert bool(mask[rows, cols].all())
        assert (rows.stop - rows.start) * (cols.stop - cols.start) == best


@pytest.mark.parametrize("make", [masks.uniform, masks.random, masks.poisson_disc])
def test_rejects(make):
    for bad in (0.5, 0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="at least 1"):
            make((20, 20), bad)
    with pytest.raises(ValueError, match="samples nothing"):
        make((20, 20), 1000.0, 0)
    with pytest.raises(ValueError, match="lower the acceleration"):
        make((20, 20), 4, 0.9)
    with pytest.raises(ValueError, match="fraction in"):
        make((20, 20), 4, 1.5)
    with pytest.raises(ValueError, match="shape"):
        make((20,), 4)


def test_no_centre_no_calibration():
    with pytest.raises(ValueError, match="centre of k-space"):
        masks.calibration_region(torch.zeros(5, 5, dtype=torch.bool))
