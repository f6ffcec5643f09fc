"""Stations on the turning Earth against real tables; beams, dirty images, blurring against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.operators.interferometry import (
    EHT_2017,
    Visibilities,
    dirty_beam,
    dirty_image,
    fit_beam,
    greenwich_hour_angle,
    thermal_noise,
    uv_tracks,
)
from scidiff.operators.interferometry.images import FWHM, Beam

F64 = torch.float64
M87 = (187.7059307575226 / 15, 12.391123)  # hours, degrees


def test_tracks_by_another_way():
    """u and v are components of the baseline along two unit vectors across the line of sight."""
    positions = 6.4e6 * np.random.default_rng(0).normal(size=(4, 3))
    hours = np.array([1.3, 17.0])
    tracks = uv_tracks(positions, -35.0, 8.6e9, hours, min_elevation=-90)
    assert len(tracks) == 2 * 6
    north_pole = np.array([0, 0, 1.0])
    for uv, (i, j), scan in zip(tracks.uv.numpy(), tracks.stations.numpy(), tracks.scans.numpy(), strict=True):
        h, d = math.radians(15 * hours[scan]), math.radians(-35)
        source = np.array([math.cos(d) * math.cos(-h), math.cos(d) * math.sin(-h), math.sin(d)])
        east = np.cross(north_pole, source) / math.cos(d)
        north = np.cross(source, east)
        b = (positions[i] - positions[j]) * 8.6e9 / 299792458.0
        assert uv == pytest.approx([b @ east, b @ north], rel=1e-10)


def test_stations_below_the_horizon_sit_out():
    tracks = uv_tracks(EHT_2017, M87[1], 230e9, np.arange(0, 24, 0.5), min_elevation=15)
    xyz = np.array(list(EHT_2017.values()))
    up = xyz / np.linalg.norm(xyz, axis=1, keepdims=True)
    expected = set()
    for scan in range(48):
        h, d = math.radians(7.5 * scan), math.radians(M87[1])
        source = np.array([math.cos(d) * math.cos(h), -math.cos(d) * math.sin(h), math.sin(d)])
        high = [i for i in range(7) if up[i] @ source >= math.sin(math.radians(15))]
        expected |= {(scan, i, j) for i in high for j in high if i < j}
    found = torch.cat([tracks.scans[:, None], tracks.stations], 1).tolist()
    assert len(expected) == len(found) and {tuple(row) for row in found} == expected
    with pytest.raises(ValueError, match="no two stations see the source"):
        uv_tracks(EHT_2017, -89.0, 230e9, [0.0], min_elevation=60)


def test_tracks_are_those_of_the_published_table(real_data):
    """Baselines of M87* on 11 April 2017: sign, time, frequency, to 1e-4 of the longest."""
    path = real_data / "eht" / "m87" / "SR1_M87_2017_101_lo.csv"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the folder of real data")
    rows = [line.split(",") for line in path.read_text().splitlines() if not line.startswith("#")][::97]
    error = 0.0
    for row in rows:
        hour = greenwich_hour_angle(57854 + float(row[0]) / 24, M87[0])
        track = uv_tracks([EHT_2017[row[1]], EHT_2017[row[2]]], M87[1], 227.0707e9, hour)
        error = max(error, float(np.abs(track.uv[0].numpy() - [float(row[3]), float(row[4])]).max()))
    assert len(rows) > 70 and error < 1e-4 * 8.3e9


def test_units_of_tracks_and_noise():
    pint = pytest.importorskip("pint")
    unit = pint.UnitRegistry()
    xyz = np.array(list(EHT_2017.values()))
    plain = uv_tracks(EHT_2017, M87[1], 230e9, [3.0]).uv
    same = uv_tracks(
        xyz / 1e3 * unit.km,
        math.radians(M87[1]) * unit.radian,
        230 * unit.GHz,
        [180.0] * unit.minute,
        10 * unit.degree,
    ).uv
    assert torch.allclose(plain, same, rtol=1e-12)
    ra = greenwich_hour_angle(57854.3, M87[0])
    assert greenwich_hour_angle(57854.3, M87[0] * 15 * unit.degree) == pytest.approx(ra)
    with pytest.raises(ValueError, match="declination has units .* converts to 'degree'"):
        uv_tracks(EHT_2017, 12 * unit.metre, 230e9, [3.0])
    sigma = thermal_noise([100.0, 400.0], [[0, 1]], 2 * unit.GHz, 10 * unit.second, efficiency=1.0)
    assert float(sigma[0]) == pytest.approx(200 / math.sqrt(2 * 2e9 * 10), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_beam_of_a_gaussian_coverage(seed):
    """Weights that fall as a Gaussian over a fine grid of baselines make a dirty beam that is a Gaussian."""
    random = np.random.default_rng(seed)
    beam = Beam(5e-10 * (1 + random.random()), 3e-10, math.pi * random.random())
    reach = 5 / (2 * math.pi) / math.sqrt(np.linalg.eigvalsh(beam.covariance)[0])
    side = np.linspace(-reach, reach, 61)
    k = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    weights = torch.as_tensor(np.exp(-2 * math.pi**2 * np.einsum("ni,ij,nj->n", k, beam.covariance, k)))
    found = fit_beam(k, weights)
    assert [found.major, found.minor] == pytest.approx([beam.major, beam.minor], rel=1e-5)
    assert abs(math.remainder(found.angle - beam.angle, math.pi)) < 1e-4
    # and the picture of the dirty beam is that Gaussian
    picture = dirty_beam(k, (9, 13), 5e-11, weights)[0, 0]
    y, x = Visibilities(k, (9, 13), 5e-11).grid, 5e-11
    north = ((y[0] - 1) / 2 - np.arange(9)) * x
    east = ((y[1] - 1) / 2 - np.arange(13)) * x
    r = np.stack(np.broadcast_arrays(east[None], north[:, None]), -1)
    expected = np.exp(-0.5 * np.einsum("hwi,ij,hwj->hw", r, np.linalg.inv(beam.covariance), r))
    assert picture.numpy() == pytest.approx(expected, abs=1e-5)


def test_the_beam_of_the_array_is_close_to_the_published_one():
    """EHT 2017 towards M87*: lobes of about 20 microarcseconds, longer than wide."""
    tracks = uv_tracks(EHT_2017, M87[1], 229e9, np.arange(1, 9, 0.25))
    beam = fit_beam(tracks.uv)
    mas = math.radians(1 / 3600) * 1e-6
    assert 15 < beam.minor / mas <= beam.major / mas < 30


def test_blurring_multiplies_visibilities():
    beam = Beam(1.2e-10, 7e-11, 0.7)
    pixel = (2e-11, 1.5e-11)
    x = torch.zeros(2, 1, 40, 48, dtype=F64)
    x[:, :, 14:26, 16:32] = torch.rand(2, 1, 12, 16, dtype=F64, generator=Generator().manual_seed(0))
    uv = 2e9 * torch.randn(30, 2, dtype=F64, generator=Generator().manual_seed(1))
    operator = Visibilities(uv, (40, 48), pixel)
    s = torch.as_tensor(beam.covariance)
    taper = torch.exp(-2 * math.pi**2 * ((uv @ s) * uv).sum(-1))
    blurred = beam.convolve(x, pixel)
    assert torch.allclose(operator(blurred), taper * operator(x), rtol=0, atol=3e-5)
    assert torch.allclose(blurred.sum((-2, -1)), x.sum((-2, -1)), rtol=1e-6)
    assert beam.convolve(x.float(), pixel).dtype == torch.float32


def test_position_angle_runs_from_north_to_east():
    """A point blurred by a long beam at 45 degrees makes a streak from upper left to lower right."""
    x = torch.zeros(1, 1, 33, 33, dtype=F64)
    x[..., 16, 16] = 1
    streak = Beam(10.0, 2.0, math.pi / 4).convolve(x, 1.0)[0, 0]
    assert float(streak[13, 13]) > 100 * float(streak[13, 19])
    r = np.array([3.0, 3.0]) / math.sqrt(2) * math.sqrt(2)
    density = math.exp(-0.5 * r @ np.linalg.inv(Beam(10.0, 2.0, math.pi / 4).covariance) @ r)
    peak = 2 * math.pi * (10 / FWHM) * (2 / FWHM)
    assert float(streak[13, 13]) == pytest.approx(density / peak, rel=1e-3)
    again = Beam.from_covariance(Beam(3.0, 2.0, 2.5).covariance)
    assert [again.major, again.minor, again.angle] == pytest.approx([3.0, 2.0, 2.5])


def test_the_dirty_image_of_a_point_is_the_shifted_dirty_beam():
    uv = 5e9 * torch.randn(40, 2, dtype=F64, generator=Generator().manual_seed(1))
    weights = torch.rand(40, dtype=F64, generator=Generator().manual_seed(2))
    operator = Visibilities(uv, (9, 13), 1e-11)
    x = torch.zeros(1, 1, 9, 13, dtype=F64)
    x[..., 3, 8] = 0.4
    image = dirty_image(operator, operator(x), weights)
    beam = dirty_beam(uv, (9, 13), 1e-11, weights)
    assert float(beam[..., 4, 6]) == pytest.approx(1)
    shifted = 0.4 * beam[..., 1:, : 13 - 2]  # rows one further down, columns two to the left
    assert torch.allclose(image[..., : 9 - 1, 2:], shifted, atol=1e-12)


def test_impossible_beams():
    with pytest.raises(ValueError, match="0 < minor <= major"):
        Beam(1.0, 2.0)
    with pytest.raises(ValueError, match="on a line"):
        fit_beam(torch.tensor([[1.0, 2.0], [2.0, 4.0]]))
    with pytest.raises(ValueError, match="weights must be"):
        dirty_image(Visibilities(torch.ones(2, 2), (4, 4), 1e-11), torch.ones(1, 2) + 0j, torch.zeros(2))
