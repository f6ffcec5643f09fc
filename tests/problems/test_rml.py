"""Regularised maximum likelihood: a ring from closures alone, what it becomes without data, its regularisers."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.operators.interferometry import (
    EHT_2017,
    StationGains,
    Visibilities,
    VisibilityData,
    angles,
    chi2,
    closure_likelihoods,
    draw_gains,
    of_flux,
    uv_tracks,
)
from scidiff.operators.interferometry.images import Beam
from scidiff.problems.rml import gaussian_source, regularised_maximum_likelihood

F64 = torch.float64
UAS = math.radians(1 / 3600) * 1e-6
SHAPE, PIXEL = (24, 26), 5 * UAS


def ring(shape, pixel, diameter=42 * UAS, thickness=12 * UAS, flux=0.6):
    y, x = angles(shape, pixel)
    r = (x**2 + y[:, None] ** 2).sqrt()
    profile = torch.exp(-0.5 * ((r - diameter / 2) / (thickness / 2.355)) ** 2)
    image = profile * (1 - 0.6 * y[:, None] / r.clamp_min(1e-3 * UAS))
    return (flux * image / image.sum())[None, None]


def correlation(a, b):
    """Largest normalised correlation over all shifts: closures do not see where the source is."""
    a, b = (z[0, 0] - z.mean() for z in (a, b))
    c = torch.fft.irfft2(torch.fft.rfft2(a) * torch.fft.rfft2(b).conj(), s=a.shape)
    return float(c.max() / (a.norm() * b.norm()))


def test_a_ring_from_closures_alone():
    """Data from pixels a fifth as wide, random gains, noise: chi2 about 1, and the ring, not the disc of the start."""
    generator = Generator().manual_seed(0)
    tracks = uv_tracks(EHT_2017, 12.391, 229e9, np.arange(1, 9, 0.5))
    vis = Visibilities(tracks.uv, (120, 130), UAS, square=True)(ring((120, 130), UAS))[0]
    gains = draw_gains(int(tracks.scans.max()) + 1, 7, generator=generator)
    vis = StationGains(gains, tracks.stations, tracks.scans)(vis)
    sigma = torch.full((len(vis),), 4e-3, dtype=F64)
    vis = vis + sigma * torch.view_as_complex(torch.randn(len(vis), 2, dtype=F64, generator=generator))
    data = VisibilityData(tracks.uv, tracks.stations, tracks.scans, vis, sigma)
    parts = closure_likelihoods(data, SHAPE, PIXEL)
    found = regularised_maximum_likelihood(parts, SHAPE, PIXEL, 0.6, 45 * UAS, rounds=2, iterations=80)
    start, truth, beam = gaussian_source(SHAPE, PIXEL, 45 * UAS, 0.6), ring(SHAPE, PIXEL), Beam(12 * UAS)
    seen, before, goal = (beam.convolve(z, PIXEL) for z in (found, start, truth))
    assert all(0.5 < float(value) < 1.3 for value in chi2(parts, found).values())
    assert all(float(value) > 20 for value in chi2(parts, start).values())
    assert correlation(before, goal) < 0.85 and correlation(seen, goal) > 0.97
    assert bool((found > 0).all()) and float(found.sum()) == pytest.approx(0.6, rel=0.05)


def test_without_information_the_answer_is_the_gaussian():
    part = of_flux(0.6, 1e3, SHAPE, like=torch.zeros(1, dtype=F64))
    found = regularised_maximum_likelihood(part, SHAPE, PIXEL, 0.6, 45 * UAS, variation=0.0, rounds=2)
    expected = gaussian_source(SHAPE, PIXEL, 45 * UAS, 0.6)
    assert float((found - expected).abs().max()) < 5e-3 * float(expected.max())


def test_total_variation_flattens():
    part = of_flux(0.6, 0.01, SHAPE, like=torch.zeros(1, dtype=F64))
    peaks = [
        float(regularised_maximum_likelihood(part, SHAPE, PIXEL, 0.6, 45 * UAS, variation=v, rounds=1).max())
        for v in (0.0, 3.0)
    ]
    assert peaks[1] < 0.8 * peaks[0]


def test_wrong_arguments():
    part = of_flux(0.6, 0.01, SHAPE)
    with pytest.raises(ValueError, match="2 weights for 1 data products"):
        regularised_maximum_likelihood(part, SHAPE, PIXEL, 0.6, 45 * UAS, weights=[1, 2])
    with pytest.raises(ValueError, match="flux must be positive"):
        regularised_maximum_likelihood(part, SHAPE, PIXEL, 0.0, 45 * UAS)
