"""Sensors off the grid: exact on linear functions, of second order on smooth ones, equal to their dense twins."""

import math

import numpy as np
import pint
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from scidiff.operators import (
    Footprints,
    LatLonFootprints,
    LatLonPoints,
    Points,
    RegionMeans,
    Subsampling,
)
from scidiff.operators.sensors import (
    BoxFootprint,
    DiscFootprint,
    GaussianFootprint,
    great_circle,
)

F64 = torch.float64
Y, X = np.array([3.0, 2.2, 1.0, 0.5, 0.0]), np.linspace(-1, 2, 8)
Y_S, X_S = np.array([0.1, 2.9, 1.0, 3.0]), np.array([-1.0, 1.93, 0.07, 2.0])


def field(f, y=Y, x=X):
    return torch.from_numpy(f(y[:, None], x[None]))[None, None]


def test_points_are_exact_where_the_field_is_linear_along_each_axis():
    def f(y, x):
        return 3 - 2 * y + 0.5 * x + y * x

    z = Points((Y, X), (Y_S, X_S))(field(f))
    np.testing.assert_allclose(z[0, 0], f(Y_S, X_S), atol=1e-13)
    assert z.shape == (1, 1, 4)


def test_points_are_scipys_interpolator():
    values = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    twin = RegularGridInterpolator((Y[::-1], X), values.numpy()[::-1])
    ours = Points((Y, X), (Y_S, X_S))(values[None])[0]
    np.testing.assert_allclose(ours, twin(np.stack([Y_S, X_S], 1)), atol=1e-13)


def slope(error, sizes):
    return -np.polyfit(np.log(sizes), np.log([error(n) for n in sizes]), 1)[0]


PLACES = np.random.default_rng(0).uniform(0, 1, (2, 400))
SIZES = (12, 24, 48, 96)


def wave(y, x):
    return np.sin(2 * math.pi * (y + 2 * x)) + np.cos(2 * math.pi * x)


def periodic(n):
    return np.arange(n) / n, np.arange(n + 1) / (n + 1)


def test_points_are_of_second_order_across_the_seam_of_a_periodic_box():
    def error(n):
        y, x = periodic(n)
        operator = Points((y, x), PLACES, (1.0, 1.0))
        return float((operator(field(wave, y, x))[0, 0] - torch.from_numpy(wave(*PLACES))).abs().max())

    assert abs(slope(error, SIZES) - 2) < 0.2


def test_a_period_moves_sensors_by_whole_turns():
    y, x = periodic(9)
    one, other = (Points((y, x), (PLACES[0] + k, PLACES[1] - 2 * k), (1.0, 1.0)) for k in (0, 3))
    u = field(wave, y, x)
    assert torch.allclose(one(u), other(u), atol=1e-12)


@pytest.mark.parametrize("lon", [30.0 * np.arange(12), 170 - 30.0 * np.arange(12)], ids=["east", "west"])
def test_on_the_globe_longitudes_count_from_anywhere(lon):
    lat = np.linspace(-75, 75, 6)
    lat_s, lon_s = np.array([0.0, 74.0, -20.0]), np.array([-5.0, 359.9, 185.0])
    u = torch.randn(1, 6, 12, generator=torch.Generator().manual_seed(1), dtype=F64)
    z = LatLonPoints(lat, lon, lat_s, lon_s)(u)
    assert torch.allclose(z, LatLonPoints(lat, lon, lat_s, lon_s + 720)(u), atol=1e-12)
    nodes = LatLonPoints(lat, lon, lat[[0, 3, 5]], lon[[0, 11, 4]] - 360)(u)
    assert torch.allclose(nodes[0], u[0, [0, 3, 5], [0, 11, 4]], atol=1e-12)


def on_sphere(lat, lon):
    """A smooth function on the sphere, also at the poles: a polynomial of the position."""
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    px, py, pz = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    return 1 + px + py * pz + px * py - pz**3 + px * pz**2


def test_on_the_globe_interpolation_is_of_second_order_also_across_the_poles():
    generator = np.random.default_rng(2)
    lat_s = np.concatenate(
        [np.rad2deg(np.arcsin(generator.uniform(-1, 1, 200))), 90 - generator.uniform(0, 3, 60), [90]]
    )
    lon_s = generator.uniform(-180, 180, len(lat_s))

    def error(n):
        lat, lon = -90 + 180 * (np.arange(n) + 0.5) / n, 360 * np.arange(2 * n) / (2 * n)
        z = LatLonPoints(lat, lon, lat_s, lon_s)(field(on_sphere, lat, lon))[0, 0]
        return float((z - torch.from_numpy(on_sphere(lat_s, lon_s))).abs().max())

    assert abs(slope(error, (10, 20, 40, 80)) - 2) < 0.2


def test_great_circles():
    quarter = 6371.0088 * math.pi / 2
    d = great_circle(
        [0.0, 90.0, 10.0, -30.0], [0.0, 17.0, 20.0, 0.0], [0.0, 0.0, -10.0, -30.0], [90.0, 0.0, 200.0, 0.0]
    )
    np.testing.assert_allclose(d, [quarter, quarter, 2 * quarter, 0], rtol=1e-9, atol=1e-6)
    near = float(great_circle(45.0, 7.0, 45.0, 7.0 + 1e-7))
    assert near == pytest.approx(6371.0088 * math.radians(1e-7) * math.cos(math.radians(45)), rel=1e-6)
    # Paris to New York by the spherical law of cosines
    a, b = np.deg2rad([48.8566, 2.3522]), np.deg2rad([40.7128, -74.0060])
    cosine = np.sin(a[0]) * np.sin(b[0]) + np.cos(a[0]) * np.cos(b[0]) * np.cos(b[1] - a[1])
    assert float(great_circle(48.8566, 2.3522, 40.7128, -74.0060)) == pytest.approx(6371.0088 * np.arccos(cosine))


FOOTPRINTS = [GaussianFootprint(0.15), DiscFootprint(0.3), BoxFootprint([0.5, 0.2]), DiscFootprint(0.01)]


@pytest.mark.parametrize("footprint", FOOTPRINTS, ids=str)
def test_footprints_are_exact_on_linear_functions_and_keep_constants(footprint):
    operator = Footprints((Y, X), ([1.1, 1.8], [0.3, 0.9]), footprint)
    z = operator(field(lambda y, x: 3 - 2 * y + 0.5 * x))[0, 0]
    np.testing.assert_allclose(z, [3 - 2.2 + 0.15, 3 - 3.6 + 0.45], atol=1e-12)
    corner = Footprints((Y, X), ([0.0], [2.0]), footprint)
    assert float(corner(torch.ones(1, 5, 8, dtype=F64))) == pytest.approx(1, abs=1e-13)


def test_wide_footprints_are_the_integrals_they_stand_for():
    """Means of cos(k y) and of the radius' square in closed form, on a fine grid."""
    y, x = np.linspace(-2, 2, 161), np.linspace(-2, 2, 161)
    k, centre = 2.0, ([0.1], [0.0])
    waves = field(lambda y, x: np.cos(k * (y - 0.1)) + 0 * x, y, x)
    gauss = float(Footprints((y, x), centre, GaussianFootprint(0.4))(waves))
    assert gauss == pytest.approx(math.exp(-((0.4 * k) ** 2) / 2), abs=2e-3)  # cut at 4 sd
    box = float(Footprints((y, x), centre, BoxFootprint([1.2, 0.5]))(waves))
    assert box == pytest.approx(math.sin(0.6 * k) / (0.6 * k), abs=5e-4)
    radius = field(lambda y, x: (y - 0.1) ** 2 + x**2, y, x)
    disc = float(Footprints((y, x), centre, DiscFootprint(0.8))(radius))
    assert disc == pytest.approx(0.8**2 / 2, rel=5e-3)


def test_a_footprint_on_the_globe_is_a_disc_in_km():
    """The mean over a cap of the cosine of the distance from its centre, in closed form."""
    lat, lon, r = np.arange(-89.5, 90), np.arange(0.0, 360), 600.0
    for phi, lam in ((40.0, 10.0), (-75.0, 359.5)):
        f = lambda a, b: np.cos(great_circle(a, b, phi, lam).numpy() / 6371.0088)  # noqa: B023, E731
        z = float(LatLonFootprints(lat, lon, [phi], [lam], DiscFootprint(r))(field(f, lat, lon)))
        assert 1 - z == pytest.approx((1 - math.cos(r / 6371.0088)) / 2, rel=0.05)


def test_regions_and_subsampling_are_their_dense_twins():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(3), dtype=F64)
    labels = torch.tensor([[0, 0, 1, 1, -1]] * 2 + [[2, 0, 0, 1, 3]] * 2)
    area = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=F64)[:, None].expand(4, 5)
    twin = torch.stack([(x * area)[..., labels == r].sum(-1) / area[labels == r].sum() for r in range(4)], -1)
    assert torch.allclose(RegionMeans(labels, area)(x), twin, atol=1e-14)
    operator = Subsampling((2, 3), (4, 5), (1, 2))
    assert torch.equal(operator(x), x[..., 1::2, 2::3]) and operator.coarse == (2, 1)


def test_units_are_converted_and_checked():
    units = pint.get_application_registry()
    km = Points((Y * units.km, X * units.km), (1000 * Y_S * units.m, X_S * units.km), (None, 4000 * units.m))
    assert torch.equal(km.weight, Points((Y, X), (Y_S, X_S), (None, 4.0)).weight)
    wide = Footprints((Y * units.km, X * units.km), ([1.0], [1.0]), DiscFootprint(300 * units.m))
    assert torch.allclose(wide.weight, Footprints((Y, X), ([1.0], [1.0]), DiscFootprint(0.3)).weight)
    radians = LatLonPoints(np.deg2rad([10.0, 20.0]) * units.rad, [0.0, 9.0], np.deg2rad([13.0]) * units.rad, [4.5])
    assert torch.allclose(radians.weight, LatLonPoints([10.0, 20.0], [0.0, 9.0], [13.0], [4.5]).weight)
    with pytest.raises(ValueError, match=r"sensors\[0\] has units 'second', expected .*kilometer"):
        Points((Y * units.km, X * units.km), (Y_S * units.s, X_S))
    with pytest.raises(ValueError, match="its axis is plain numbers"):
        Points((Y, X), (Y_S * units.m, X_S))
    with pytest.raises(ValueError, match="lat has units 'kilometer'"):
        LatLonPoints(Y * units.km, X, Y_S, X_S)


OUTSIDE = (
    "2 of 3 sensors lie outside the domain in axis 0, which reaches from 0 to 3: sensor 0 at -0.1, 2 at 3.2.*Leave"
)


@pytest.mark.parametrize("make, message", [
    (lambda: Points((Y, X), ([-0.1, 1.0, 3.2], [0.0, 0.0, 0.0])), OUTSIDE),
    (lambda: Footprints((Y, X), ([-0.1, 1.0, 3.2], [0.0, 0.0, 0.0]), DiscFootprint(1.0)), OUTSIDE),
    (lambda: LatLonPoints([30.0, 40.0], [-10.0, 5.0], [35.0], [8.0]), "domain in longitude.*-10 to 5 degree"),
    (lambda: LatLonPoints([30.0, 40.0], 90 * np.arange(4), [45.0], [8.0]), "outside the domain in latitude"),
    (lambda: LatLonPoints([30.0, 100.0], [0.0, 5.0], [35.0], [1.0]), "between -90 and 90"),
    (lambda: LatLonPoints([30.0, 40.0], 90 * np.arange(5), [35.0], [1.0]), "first meridian twice"),
    (lambda: Points((Y, X), ([[0.1, 0.2]] * 3)), "one array of coordinates per axis, 2, got 3"),
    (lambda: Points((Y, X), ([0.1], [0.2, 0.3])), r"one coordinate per axis, got \[1, 2\]"),
    (lambda: Points((np.array([0.0, 1.0, 1.0]), X), ([0.1], [0.2])), "axis 0 must increase or decrease"),
    (lambda: Points((Y, X), ([math.nan], [0.2])), "finite number per sensor"),
    (lambda: Points((Y, X), ([0.1], [0.2]), (None, 2.5)), "period 2.5 of axis 1 must be longer"),
    (lambda: Footprints((Y, X), ([0.1], [0.2]), DiscFootprint(0.0)), "radius of a footprint must be positive"),
    (lambda: Footprints((Y, X), ([0.1], [0.2]), BoxFootprint([1.0])), "one side per axis, 2, got 1"),
    (lambda: RegionMeans(torch.tensor([0, 2])), "region 1 is empty"),
    (lambda: RegionMeans(torch.tensor([0, 1]), torch.tensor([1.0, 0.0])), "areas must be positive"),
    (lambda: Subsampling(2, (4, 5), 2), "offsets from 0 to below their step"),
    (lambda: Subsampling((2, 2), (4, 5, 6)), "one per axis, 3, got 2"),
    (lambda: Points((Y, X), (Y_S, X_S))(torch.ones(1, 8, 5)), r"expected a field \(B, ..., 5, 8\)"),
    (lambda: Points((Y, X), (Y_S, X_S)).adjoint(torch.ones(1, 3)), r"expected a measurement \(B, ..., 4\)"),
])  # fmt: skip
def test_one_clear_error_each(make, message):
    with pytest.raises(ValueError, match=message):
        make()
