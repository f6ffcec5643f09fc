"""Rings whose size is known, the shrinking of a blurred ring, and sources that are none."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from scidiff.datasets.compact_sources import KINDS, CompactSources, compact_source, ring_profile
from scidiff.datasets.rings import ring_image
from scidiff.problems.ring_shape import measure_ring


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("radius", "width", "asymmetry", "angle", "centre"),
    [(20, 4, 0.0, 0.0, (0, 0)), (20, 4, 0.9, 2.0, (6, -9)), (25, 3, 0.5, -1.0, (-11, 3)), (15, 6, 0.3, 0.5, (2, 2))],
)
def test_known_rings(radius, width, asymmetry, angle, centre) -> None:
    shape = measure_ring(ring_profile((64, 72), 180.0, radius, width, asymmetry, angle, centre).numpy(), 2.5)
    assert shape.diameter == pytest.approx(2 * radius, abs=0.05)
    assert shape.width == pytest.approx(2 * math.sqrt(2 * math.log(2)) * width, rel=0.02)
    assert (shape.north, shape.east) == pytest.approx(centre, abs=0.05)
    assert shape.asymmetry == pytest.approx(asymmetry / 2, abs=0.01)
    if asymmetry:
        assert shape.angle == pytest.approx(math.degrees(angle), abs=0.5)
    assert shape.is_ring and shape.dispersion < 0.01


def test_a_blurred_ring_looks_smaller_by_twice_the_variance_over_its_diameter() -> None:
    ring = ring_profile((256, 256), 160.0, 20, 1.5).numpy()
    blurred = measure_ring(gaussian_filter(ring, 6 / 0.625), 0.625)
    assert blurred.diameter == pytest.approx(40 - 2 * (6**2 + 1.5**2) / 40, abs=0.1)


def test_the_measure_follows_the_sky_not_the_pixels() -> None:
    """The same ring on twice as fine a grid, and shifted by whole pixels."""
    coarse = measure_ring(ring_image((64, 64), gen(3)).numpy(), 2.5)
    fine = measure_ring(ring_image((128, 128), gen(3)).numpy(), 1.25)
    assert fine.diameter == pytest.approx(coarse.diameter, abs=0.5)
    moved = measure_ring(np.roll(ring_image((64, 64), gen(3)).numpy(), (3, -2), (0, 1)), 2.5)
    assert moved.diameter == pytest.approx(coarse.diameter, abs=0.1)
    assert (moved.north - coarse.north, moved.east - coarse.east) == pytest.approx((-7.5, 5.0), abs=0.2)


def test_rings_are_rings_and_discs_and_pairs_are_none() -> None:
    g = gen(5)
    assert all(measure_ring(ring_image((64, 64), g).numpy(), 2.5).is_ring for _ in range(8))
    for kind in KINDS:
        found = [measure_ring(compact_source(kind, (64, 64), gen(s)).numpy(), 2.5).is_ring for s in range(3)]
        assert found == [kind in ("crescent", "ring")] * 3, kind


def test_no_picture_is_refused() -> None:
    for wrong in (np.zeros((8, 8)), np.ones(5), np.full((8, 8), np.nan)):
        with pytest.raises(ValueError, match="expected a finite picture"):
            measure_ring(wrong, 2.5)


# The simulator


@pytest.mark.parametrize("kind", KINDS)
def test_sources_are_positive_of_unit_flux_and_one_sky_on_every_grid(kind: str) -> None:
    for seed in range(4):
        coarse, fine = (compact_source(kind, shape, gen(seed)) for shape in ((48, 64), (192, 256)))
        assert float(coarse.min()) > 0 and float(coarse.sum()) == pytest.approx(1, abs=1e-12)
        summed = 16 * torch.nn.functional.avg_pool2d(fine[None, None], 4)[0, 0]
        assert float((coarse - summed).abs().sum()) < 0.03


def test_a_disc_is_flat_and_a_pair_has_two_maxima() -> None:
    disc = compact_source("disc", (128, 128), gen(1))
    y, x = (int(v) for v in np.round(np.array([(disc.sum(1 - k) * torch.arange(128)).sum() for k in (0, 1)])))
    assert float(disc[y - 5 : y + 6, x - 5 : x + 6].min()) > 0.98 * float(disc.max())
    assert float(disc[y, :5].max()) < 0.01 * float(disc.max())
    pair = compact_source("double", (128, 128), gen(2))
    peaks = (pair == torch.nn.functional.max_pool2d(pair[None, None], 9, 1, 4)[0, 0]) & (pair > 0.05 * pair.max())
    assert int(peaks.sum()) == 2


def test_the_simulator_draws_all_kinds_with_unit_variance() -> None:
    source = CompactSources((24, 32))
    u = torch.stack([source(gen(s), (24, 32)) for s in range(60)])
    assert u.shape == (60, 1, 24, 32) and abs(float(u.mean())) < 0.1 and 0.8 < float(u.std()) < 1.2
    with pytest.raises(ValueError, match="kinds must be some of crescent"):
        CompactSources((24, 32), kinds=["triangle"])
    with pytest.raises(ValueError, match="kind must be one of"):
        compact_source("triangle", (8, 8), gen(0))
