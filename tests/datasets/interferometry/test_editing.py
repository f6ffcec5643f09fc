"""Averages, flags, systematic errors and stacks against their formulas."""

import numpy as np
import pytest
import xarray as xr

from scidiff.datasets.interferometry import add_systematic, average, flag, make_visibilities, scans, stack
from scidiff.errors import InputError


def visibilities(rows: int = 60, seed: int = 0, mjd: float = 57854.0, frequency: float = 227e9) -> xr.Dataset:
    """Three baselines of three stations, 20 times 10 s apart with a pause of 5 minutes in the middle."""
    g = np.random.default_rng(seed)
    k = np.arange(rows) // 3
    pair = np.arange(rows) % 3
    columns = {
        "u": 1e9 * (pair + 1) + 1e6 * k,
        "v": -2e9 * (pair + 1) + 3e6 * k,
        "visibility": (pair + 1) * np.exp(1j * pair) + 0.1 * (g.standard_normal(rows) + 1j * g.standard_normal(rows)),
        "sigma": g.uniform(0.05, 0.2, rows),
        "time": 1 + (10 * k + 300 * (k >= 10)) / 3600,
        "t1": np.array(["AA", "AA", "LM"])[pair],
        "t2": np.array(["LM", "PV", "PV"])[pair],
        "mjd": mjd,
        "frequency": frequency,
        "band": "lo",
    }
    return make_visibilities(columns, {"source": "M87", "source_file": f"{mjd:g}.csv"}, "test")


def test_scans_are_separated_by_pauses() -> None:
    data = visibilities()
    assert scans(data).tolist() == [0] * 30 + [1] * 30
    assert set(scans(data, gap=400)) == {0} and len(set(scans(data, gap=5))) == 20
    two = stack(data, visibilities(mjd=57855.0))
    assert len(set(scans(two))) == 4  # equal hours of two days are different scans


@pytest.mark.parametrize("seconds", [None, 50.0])
def test_averages_are_weighted_means(seconds: float | None) -> None:
    data = visibilities()
    shuffled = data.isel(row=np.random.default_rng(1).permutation(60))
    mean = average(shuffled, seconds)
    count = 10 if seconds is None else 5
    assert mean.sizes["row"] == 60 // count
    for row in range(mean.sizes["row"]):
        one = mean.isel(row=row)
        same = (data["t1"] == one["t1"]) & (data["t2"] == one["t2"])
        near = abs(data["time"] - one["time"]) * 3600 < count * 5
        part = data.isel(row=np.flatnonzero(same & near))
        assert part.sizes["row"] == count
        w = part["sigma"].values ** -2.0
        assert complex(one["visibility"]) == pytest.approx((w * part["visibility"].values).sum() / w.sum(), rel=1e-12)
        assert float(one["sigma"]) == pytest.approx(w.sum() ** -0.5, rel=1e-12)
        assert float(one["u"]) == pytest.approx((w * part["u"].values).sum() / w.sum(), rel=1e-12)
        assert float(one["time"]) == pytest.approx(float(part["time"].mean()), rel=1e-12)
    assert len(np.unique(mean["time"])) == 60 // count // 3  # the three baselines of an average share their time


def test_the_error_of_an_average_is_its_sigma() -> None:
    """Of 400 averages of noise alone, the mean squared error over sigma is one per real component."""
    g = np.random.default_rng(2)
    data = visibilities()
    total = []
    for _ in range(100):
        noise = data["sigma"].values * (g.standard_normal(60) + 1j * g.standard_normal(60))
        mean = average(data.assign(visibility=(("row",), noise)))
        total.append((np.abs(mean["visibility"]) ** 2 / (2 * mean["sigma"] ** 2)).values)
    assert np.mean(total) == pytest.approx(1, abs=4 / np.sqrt(600))


def test_averaging_twice_is_averaging_once() -> None:
    data = visibilities()
    a, b = average(average(data, 50.0)), average(data)
    np.testing.assert_allclose(a["visibility"], b["visibility"], rtol=1e-12)
    np.testing.assert_allclose(a["sigma"], b["sigma"], rtol=1e-12)


def test_systematic_errors_add_in_squares() -> None:
    data = visibilities()
    more = add_systematic(add_systematic(data, 0.03), 0.04)
    amplitude = np.abs(data["visibility"].values)
    np.testing.assert_allclose(more["sigma"] ** 2, data["sigma"] ** 2 + (0.05 * amplitude) ** 2, rtol=1e-12)
    assert more.attrs["systematic"] == pytest.approx(0.05) and "0.04 systematic" in more.attrs["history"]
    with pytest.raises(InputError, match="'fraction' must not be negative"):
        add_systematic(data, -0.1)


def test_flags() -> None:
    data = visibilities()
    assert set(flag(data, stations=["PV"])["t2"].values) == {"LM"}
    assert set(
        flag(data, baselines=[("PV", "AA")])["t1"].values + flag(data, baselines=[("PV", "AA")])["t2"].values
    ) == {
        "AALM",
        "LMPV",
    }
    length = np.hypot(data["u"], data["v"])
    assert flag(data, shortest=4e9)["u"].size == int((length >= 4e9).sum())
    assert flag(data, longest=4e9)["u"].size == int((length <= 4e9).sum())
    kept = flag(data, snr=12.0)
    assert 0 < kept.sizes["row"] < 60 and bool((abs(kept["visibility"]) >= 12 * kept["sigma"]).all())
    with pytest.raises(InputError, match="no station 'XX'"):
        flag(data, stations=["XX"])
    with pytest.raises(InputError, match="the flagged data: there are no rows"):
        flag(data, keep_mjd=[1.0])


def test_stacks_hold_all_rows_and_refuse_repeats() -> None:
    first, second = visibilities(), visibilities(seed=3, frequency=229e9)
    both = stack(first, second)
    assert both.sizes["row"] == 120 and both.attrs["source"] == "M87"
    np.testing.assert_array_equal(both["visibility"][60:], second["visibility"])
    assert both.attrs["source_file"] == "57854.csv"
    assert stack(first, visibilities(mjd=57855.0)).attrs["source_file"] == "57854.csv; 57855.csv"
    with pytest.raises(InputError, match="MJD 57854 at 227 GHz is there already"):
        stack(first, second, first)
    with pytest.raises(InputError, match="'source' differs: M87, Sgr A"):
        stack(first, second.assign_attrs(source="Sgr A*"))
    with pytest.raises(InputError, match="nothing to stack"):
        stack()
