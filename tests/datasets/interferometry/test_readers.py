"""Public tables and UVFITS: the same data from both, one clear error per kind of bad file."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from scidiff.datasets.interferometry import (
    read_array,
    read_eht_csv,
    read_uvfits,
    read_visibilities,
    write_visibilities,
)
from scidiff.errors import InputError

TABLE = """#SRC:M87,DATE(MJD):57854,FREQ:227.0707GHz
#time(UTC),T1,T2,U(lambda),V(lambda),Iamp(Jy),Iphase(d),Isigma(Jy)
00.53472224,AA,PV,-4395897344.0000,-4509549056.0000,0.20000000,90.0000,0.00400000
00.53472224,AA,LM,1072227456.0000,-3800254720.0000,0.03000000,-60.0000,0.00500000
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "SR1_M87_2017_101_lo.csv"
    path.write_text(TABLE)
    return path


def test_a_table_is_read_as_it_says(table: Path) -> None:
    data = read_visibilities(table)
    np.testing.assert_allclose(data["visibility"], [0.2j, 0.03 * np.exp(-1j * np.pi / 3)], atol=1e-15)
    assert data["u"].values.tolist() == [-4395897344.0, 1072227456.0] and data["v"].values[1] == -3800254720.0
    assert data["t2"].values.tolist() == ["PV", "LM"] and data["sigma"].values.tolist() == [0.004, 0.005]
    assert (data["mjd"] == 57854).all() and (data["frequency"] == 227.0707e9).all() and (data["band"] == "lo").all()
    assert data["time"].attrs["units"] == "h" and data.attrs["source"] == "M87" and len(data.attrs["sha256"]) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.replace(",Isigma(Jy)", "").replace(",0.00400000", "").replace(",0.00500000", ""),
            "column 'Isigma'",
        ),
        (lambda t: t[:-30], "line 4 has 6 of 8 columns.*truncated"),
        (lambda t: t[:-5], "line 4 has 8 of 8 columns.*truncated"),
        (lambda t: t.replace(",0.00500000", ",-0.00500000"), "line 4: 'Isigma' must be positive, found -0.005"),
        (lambda t: t.replace("0.20000000", "strong"), "line 3: 'Iamp' is 'strong'"),
        (lambda t: t.replace(",FREQ:227.0707GHz", ""), "must state 'FREQ:'"),
        (lambda t: t.replace("227.0707GHz", "1.3mm"), "'FREQ' is '1.3mm'"),
        (lambda t: t.replace("57854", "today"), r"'DATE\(MJD\)' is 'today'"),
        (lambda t: t.replace("AA,PV", "AA,AA"), "'t2' in row 0 is 'AA'"),
        (lambda t: t.replace("90.0000", "nan"), "'visibility' holds 1 NaN"),
        (lambda t: "\n".join(t.splitlines()[:2]) + "\n", "no rows"),
    ],
)
def test_bad_tables_are_named(table: Path, change, message: str) -> None:
    table.write_text(change(TABLE))
    with pytest.raises(InputError, match=message) as caught:
        read_visibilities(table)
    assert "SR1_M87_2017_101_lo.csv" in str(caught.value)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    for reader in (read_visibilities, read_eht_csv, read_uvfits):
        with pytest.raises(InputError, match="no such file"):
            reader(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="folder"):
        read_visibilities(tmp_path)
    (tmp_path / "a.ms").write_text("x")
    with pytest.raises(InputError, match="unknown kind of file '.ms'"):
        read_visibilities(tmp_path / "a.ms")
    (tmp_path / "b.uvfits").write_text("x" * 3000)
    pytest.importorskip("astropy", reason="UVFITS needs astropy (extra eht)")
    with pytest.raises(InputError, match="b.uvfits: not a whole UVFITS file"):
        read_visibilities(tmp_path / "b.uvfits")


def test_written_visibilities_come_back(table: Path, tmp_path: Path) -> None:
    data = read_visibilities(table)
    write_visibilities(data, tmp_path / "kept.nc")
    xr.testing.assert_identical(read_visibilities(tmp_path / "kept.nc"), data)
    wrong = data.drop_vars("sigma")
    with pytest.raises(InputError, match="expected a variable 'sigma'"):
        write_visibilities(wrong, tmp_path / "other.nc")
    assert not (tmp_path / "other.nc").exists()


def test_tables_of_stations(tmp_path: Path) -> None:
    path = tmp_path / "array.txt"
    path.write_text(
        "#NAME X Y Z SEFD\nPV 5088967.9 -301681.6 3825015.8 1400 1400\nAA 2225061.2 -5440057.4 -2481681.1 90\n"
    )
    first, second = read_array(path)
    assert (first.name, first.sefd, second.xyz) == ("PV", 1400.0, (2225061.2, -5440057.4, -2481681.1))
    path.write_text("PV 5088967.9 -301681.6 south 1400\n")
    with pytest.raises(InputError, match="array.txt: line 1: expected 'name X Y Z SEFD'"):
        read_array(path)
    path.write_text("PV 1 2 3 -5\n")
    with pytest.raises(InputError, match="'SEFD' must be positive"):
        read_array(path)


# UVFITS


@pytest.fixture(scope="module")
def fits():
    return pytest.importorskip("astropy.io.fits", reason="UVFITS needs astropy (extra eht)")


def uvfits(fits, path: Path, weights=((4.0, 16.0), (4.0, -1.0), (0.0, 0.0)), stokes=-1.0, antennas=True, names=None):
    """Three baselines, RR and LL: 1 + 2i and 3 - 1i; two days' worth of precision in two dates."""
    rows = len(weights)
    data = np.zeros((rows, 1, 1, 1, 1, 2, 3), np.float32)
    data[..., 0, :2], data[..., 1, :2] = (1, 2), (3, -1)
    data[..., 2] = np.array(weights).reshape(rows, 1, 1, 1, 1, 2)
    frequency = 2e11
    columns = [
        np.array([1.0, 2.0, 3.0])[:rows] / frequency * 1e9,
        np.array([-4.0, 5.0, 6.0])[:rows] / frequency * 1e9,
        np.array([258.0, 259.0, 515.0])[:rows],
        np.full(rows, 2457854.5),
        np.array([0.25, 0.25, 0.5])[:rows],
    ]
    names = names or ["UU---SIN", "VV---SIN", "BASELINE", "DATE", "DATE"]
    groups = fits.GroupData(data, bitpix=-32, parnames=names, pardata=columns, parbzeros=[0.0] * 5)
    primary = fits.GroupsHDU(groups)
    axes = [("COMPLEX", 1, 1), ("STOKES", stokes, -1), ("FREQ", frequency, 1e9), ("IF", 1, 1), ("RA", 187.7, 1)]
    for k, (name, value, step) in enumerate([*axes, ("DEC", 12.4, 1)], 2):
        primary.header.update({f"CTYPE{k}": name, f"CRVAL{k}": value, f"CDELT{k}": step, f"CRPIX{k}": 1.0})
    primary.header.update({"OBJECT": "TEST", "OBSRA": 187.7, "OBSDEC": 12.4})
    columns = [
        fits.Column("ANNAME", "8A", array=["AA", "BB", "CC"]),
        fits.Column("STABXYZ", "3D", array=np.arange(9.0).reshape(3, 3)),
        fits.Column("NOSTA", "1J", array=[1, 2, 3]),
    ]
    table = [fits.BinTableHDU.from_columns(columns, name="AIPS AN")] if antennas else []
    fits.HDUList([primary, *table]).writeto(path)
    return path


def test_uvfits_intensity_and_noise(fits, tmp_path: Path) -> None:
    data = read_visibilities(uvfits(fits, tmp_path / "a.uvfits"))
    assert data.sizes["row"] == 2  # the third has no weight
    np.testing.assert_allclose(data["visibility"], [2 + 0.5j, 1 + 2j])  # (RR + LL) / 2, and RR alone
    np.testing.assert_allclose(data["sigma"], [0.5 * np.hypot(0.5, 0.25), 0.5], rtol=1e-6)
    np.testing.assert_allclose(data["u"], [1e9, 2e9], rtol=1e-6)
    np.testing.assert_allclose(data["v"], [-4e9, 5e9], rtol=1e-6)
    assert list(zip(data["t1"].values, data["t2"].values, strict=True)) == [("AA", "BB"), ("AA", "CC")]
    np.testing.assert_allclose(data["time"], 6.0, atol=1e-6)
    assert set(data["mjd"].values) == {57854.0} and data.attrs["source"] == "TEST" and data.attrs["ra"] == 187.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"antennas": False}, "no antenna table 'AIPS AN'"),
        ({"stokes": -3.0}, r"axis 'STOKES' holds \[-3, -4\]"),
        ({"names": ["UU---SIN", "WW---SIN", "BASELINE", "DATE", "DATE"]}, "no group parameter 'VV'"),
        ({"weights": ((0.0, 0.0),) * 3}, "all weights are zero or negative"),
    ],
)
def test_bad_uvfits_are_named(fits, tmp_path: Path, options: dict, message: str) -> None:
    path = uvfits(fits, tmp_path / "bad.uvfits", **options)
    with pytest.raises(InputError, match=message) as caught:
        read_uvfits(path)
    assert "bad.uvfits" in str(caught.value)


def test_fits_without_visibilities_and_cut_files(fits, tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(InputError, match="image.fits: no random groups"):
        read_uvfits(tmp_path / "image.fits")
    whole = uvfits(fits, tmp_path / "whole.uvfits", antennas=False)
    cut = tmp_path / "cut.uvfits"
    with fits.open(whole) as hdus:
        begin = hdus[0].fileinfo()["datLoc"]
    cut.write_bytes(whole.read_bytes()[: begin + 40])
    with pytest.raises(InputError, match="cut.uvfits.*truncated|cut.uvfits: not a whole"):
        read_uvfits(cut)


# Real data


@pytest.fixture(scope="module")
def m87(real_data: Path) -> Path:
    folder = real_data / "eht" / "m87"
    if not folder.is_dir():
        pytest.skip(f"no EHT data at {folder}")
    return folder


def test_table_and_uvfits_of_one_day_agree(fits, m87: Path) -> None:
    table = read_visibilities(m87 / "SR1_M87_2017_101_lo.csv")
    groups = read_visibilities(m87 / "SR1_M87_2017_101_lo.uvfits")
    assert table.sizes["row"] == groups.sizes["row"] == 7447
    assert (table["t1"] == groups["t1"]).all() and (table["t2"] == groups["t2"]).all()
    assert float(abs(table["visibility"] - groups["visibility"]).max()) < 2e-6  # printed digits
    np.testing.assert_allclose(table["sigma"], groups["sigma"], rtol=1e-5)
    np.testing.assert_allclose(table["u"], groups["u"], atol=1e-3)
    np.testing.assert_allclose(table["v"], groups["v"], atol=1e-3)
    np.testing.assert_allclose(table["time"], groups["time"], atol=1e-7)


def test_all_days_and_bands_are_read(m87: Path) -> None:
    rows = {path.stem[-6:]: read_visibilities(path).sizes["row"] for path in sorted(m87.glob("*_100_*.csv"))}
    assert rows == {"100_hi": 2610, "100_lo": 2367}


def test_noise_gives_the_sensitivities_we_state(m87: Path) -> None:
    from scidiff.datasets.interferometry import EHT2017_SEFD

    data = read_visibilities(m87 / "SR1_M87_2017_101_lo.csv")
    names = list(EHT2017_SEFD)
    design = np.array([(data["t1"] == n).astype(int) + (data["t2"] == n).astype(int) for n in names]).T / 2
    logs = np.log(data["sigma"].values * 0.88 * np.sqrt(2 * 1.856e9 * 10))
    found = np.exp(np.linalg.lstsq(design, logs, rcond=None)[0])
    np.testing.assert_allclose(found, list(EHT2017_SEFD.values()), rtol=0.02)
