"""Readers of tomographic scans: what each format gives, and the one error for each thing that can be wrong."""

import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr
from scipy.io import savemat

from scidiff.datasets.tomography import binned, centre_of_rotation, line_integrals, make_scan, read_scan
from scidiff.datasets.tomography.scan import degrees, photon_transfer
from scidiff.errors import InputError

ROWS, VIEWS, BINS = 2, 9, 13
ANGLES = np.arange(VIEWS) * 20.0


def counts(seed: int = 0) -> np.ndarray:
    """(angle, row, bin), as DXchange stores them."""
    return np.random.default_rng(seed).integers(200, 900, (VIEWS, ROWS, BINS)).astype(np.uint16)


def write(path, data=None, theta=ANGLES, units="deg", white=1000.0, dark=100.0, pixel=None):
    with h5py.File(path, "w") as file:
        group = file.create_group("exchange")
        group["data"] = counts() if data is None else data
        if white is not None:
            group["data_white"] = np.full((5, ROWS, BINS), white)
        group["data_dark"] = np.full((3, ROWS, BINS), dark)
        if theta is not None:
            group["theta"] = theta
            if units is not None:
                group["theta"].attrs["units"] = units
        if pixel is not None:
            item = file.create_dataset("measurement/instrument/detector/x_actual_pixel_size", data=pixel)
            item.attrs["units"] = "micron"
    return path


def test_dxchange(tmp_path) -> None:
    scan = read_scan(write(tmp_path / "a.h5", pixel=2.5))
    assert scan["counts"].dims == ("row", "angle", "bin") and scan["counts"].attrs["units"] == "count"
    np.testing.assert_array_equal(scan["counts"], counts().transpose(1, 0, 2))
    np.testing.assert_allclose(scan["angle"], ANGLES)
    assert scan["angle"].attrs["units"] == "degree" and scan["bin"].attrs["units"] == "mm"
    np.testing.assert_allclose(np.diff(scan["bin"]), 2.5e-3)
    assert float(scan["bin"].mean()) == pytest.approx(0, abs=1e-12)
    assert float(scan["white"].mean()) == 1000 and scan.attrs["white_frames"] == 5
    lines = line_integrals(scan)
    np.testing.assert_allclose(lines["sinogram"], -np.log((scan["counts"] - 100.0) / 900), rtol=1e-5, atol=1e-6)


def test_units_of_angles_that_a_file_states_are_converted(tmp_path) -> None:
    scan = read_scan(write(tmp_path / "a.h5", theta=np.deg2rad(ANGLES), units="rad"))
    np.testing.assert_allclose(scan["angle"], ANGLES)
    np.testing.assert_allclose(degrees(60 * ANGLES, "arcminute", "theta"), ANGLES)
    np.testing.assert_allclose(degrees(np.linspace(-2.0, 2.0, 9), "degree", "theta"), np.linspace(-2, 2, 9))


def test_tiff_mat_and_numpy(tmp_path) -> None:
    data = counts()
    tifffile.imwrite(tmp_path / "sino.tif", data[:, 0])
    tifffile.imwrite(tmp_path / "stack.tif", data)
    (tmp_path / "pages").mkdir()
    for i in range(VIEWS):
        tifffile.imwrite(tmp_path / "pages" / f"p{i}.tif", data[i])  # p10 would sort before p2 as text
    savemat(tmp_path / "sino.mat", {"y": data[:, 0].T.astype(float)})
    savemat(tmp_path / "blank.mat", {"y": np.full((BINS, VIEWS), 1000.0)})
    np.savez(tmp_path / "a.npz", data=data, theta=ANGLES, white=np.full((ROWS, BINS), 1000.0))
    one = {"angles": [0, 160], "white": 1000.0}
    for source, options in (
        ("sino.tif", one),
        ("stack.tif", one),
        ("pages", one),
        ("sino.mat", {**one, "dims": "bin angle"}),
        ("sino.mat", {"angles": ANGLES, "dims": "bin angle", "white": tmp_path / "blank.mat"}),
        ("a.npz", {}),
    ):
        scan = read_scan(tmp_path / source, **options)
        np.testing.assert_array_equal(scan["counts"][0], data[:, 0])
        np.testing.assert_allclose(scan["angle"], ANGLES)
        assert scan["bin"].attrs["units"] == "1" and scan.attrs["source_file"] == source
        assert float(np.asarray(scan["white"]).mean()) == 1000
    sinogram = read_scan(tmp_path / "sino.tif", angles=ANGLES, kind="sinogram")
    assert set(sinogram.data_vars) == {"sinogram"}
    assert bool(np.isnan(line_integrals(sinogram)["noise_std"]).all())


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def negative():
    data = counts().astype(float)
    data[3, 0, 2] = -4
    return data


def tiff(path, data=None):
    tifffile.imwrite(path, counts()[:, 0] if data is None else data)
    return path


def mat(path, **arrays):
    savemat(path, arrays or {"a": counts()[:, 0], "b": counts()[:, 1]})
    return path


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda f: f / "no.h5", {}, "no such file"),
        (lambda f: cut(write(f / "a.h5")), {}, "a.h5: not a whole HDF5 file, perhaps truncated"),
        (lambda f: write(f / "a.h5", theta=None), {}, "a.h5: there are no angles: expected 'exchange/theta'"),
        (lambda f: write(f / "a.h5", theta=ANGLES[:-1]), {}, "a.h5: the number of angles differs.* 8, .* 9 proj"),
        (lambda f: write(f / "a.h5", theta=np.deg2rad(ANGLES)), {}, "a.h5: 'exchange/theta' are in the wrong unit"),
        (lambda f: write(f / "a.h5", theta=np.deg2rad(2 * ANGLES), units=None), {}, "a turn in radians"),
        (lambda f: write(f / "a.h5", units="mm"), {}, "'exchange/theta' has units 'mm', which do not measure angles"),
        (lambda f: write(f / "a.h5", data=negative()), {}, "a.h5: 'exchange/data' holds 1 negative counts"),
        (lambda f: write(f / "a.h5", data=negative() * np.nan), {}, "'exchange/data' holds 234 NaN"),
        (lambda f: write(f / "a.h5", white=None), {}, "a.h5: there is no white field"),
        (lambda f: write(f / "a.h5", data=counts()[:, 0]), {}, "shape .9, 13., expected .angle, row, bin"),
        (lambda f: write(f / "a.h5"), {"white": np.ones(5)}, "'white' has shape .5,., expected"),
        (lambda f: write(f / "a.h5"), {"variable": "dta"}, "expected 'exchange/dta'"),
        (lambda f: write(f / "a.h5"), {"gain": -1.0}, "gain must be positive"),
        (lambda f: cut(tiff(f / "a.tif")), {"angles": ANGLES}, "a.tif: not a whole TIFF file"),
        (lambda f: tiff(f / "a.tif"), {}, "a.tif: there are no angles"),
        (lambda f: tiff(f / "a.tif"), {"angles": ANGLES}, "no white field"),
        (lambda f: tiff(f / "a.tif"), {"angles": ANGLES, "dims": "y x"}, "expected the words angle, bin"),
        (lambda f: tiff(f / "a.tif"), {"angles": "b.txt"}, "b.txt: 'angles' cannot be read"),
        (lambda f: cut(mat(f / "a.mat"), 0.3), {"angles": ANGLES}, "a.mat: not a whole MATLAB file"),
        (lambda f: mat(f / "a.mat"), {"angles": ANGLES}, "a.mat: expected one array of projections"),
        (lambda f: mat(f / "a.mat", y=counts()[:, 0] * 1j), {"variable": "y", "angles": ANGLES}, "'y' holds complex"),
        (lambda f: f / "a.txt", {}, "no such file"),
    ],
)
def test_wrong_files_are_named(tmp_path, make, options, message) -> None:
    with pytest.raises(InputError, match=message):
        read_scan(make(tmp_path), **options)


def photons(seed: int, gain: float = 3.0, views: int = 100) -> xr.Dataset:
    """A detector with a gain and a dark field, and line integrals of 1."""
    rng = np.random.default_rng(seed)
    beam = 400.0
    white = gain * rng.poisson(beam, (20, 1, 256)) + 50 + rng.normal(0, 4, (20, 1, 256))
    dark = 50 + rng.normal(0, 4, (20, 1, 256))
    data = gain * rng.poisson(beam * np.exp(-1.0), (1, views, 256)) + 50 + rng.normal(0, 4, (1, views, 256))
    return make_scan(data, np.linspace(0, 180, views), white, dark)


def test_noise_of_line_integrals_is_what_repeated_photons_show() -> None:
    scan = photons(1)
    assert scan.attrs["gain"] == pytest.approx(3.0, rel=0.15)
    assert scan.attrs["read_noise"] == pytest.approx(4.0, rel=0.15)
    lines = line_integrals(scan)
    # The white field is common to all angles of a bin: within a bin only the noise of the data shows.
    seen = lines["sinogram"].std("angle", ddof=1)
    common = float((scan.attrs["gain"] / (scan["white"] - scan["dark"]) / 20).mean()) ** 0.5
    stated = (lines["noise_std"] ** 2).mean("angle") - common**2
    assert float((seen**2).mean() / stated.mean()) == pytest.approx(1.0, abs=0.08)
    assert float(lines["sinogram"].mean()) == pytest.approx(1.0, abs=0.01)


def test_drift_of_the_beam_is_not_noise() -> None:
    rng = np.random.default_rng(3)
    drift = np.linspace(0.9, 1.1, 30)[:, None, None]
    gain, _ = photon_transfer(2.0 * rng.poisson(500.0 * drift, (30, 2, 200)), None)
    assert gain == pytest.approx(2.0, rel=0.05)


def test_readings_without_logarithm_and_zingers_are_left_out() -> None:
    scan = photons(2, views=40)
    scan["counts"][0, 5, 6] = 30.0  # below the dark field
    scan["counts"][0, 9, 20] = 9000.0
    with pytest.warns(UserWarning, match="1 of 10240 readings"):
        lines = line_integrals(scan, zinger_limit=12)
    left_out = np.argwhere(~lines["valid"].values[0])
    np.testing.assert_array_equal(left_out, [[5, 6], [9, 20]])
    assert float(lines["sinogram"][0, 5, 6]) == 0
    with pytest.raises(InputError, match="1 of 10240 readings.*no logarithm"):
        line_integrals(scan, nonpositive="error")


def disc_sinogram(angles, centre: float, bins: int = 64, rows: int = 1) -> xr.DataArray:
    """Exact line integrals of three discs, the axis at ``centre``."""
    s = np.arange(bins) - centre
    values = np.zeros((len(angles), bins))
    for x, y, r in ((5.0, 3.0, 9.0), (-8.0, 6.0, 5.0), (2.0, -11.0, 4.0)):
        offset = x * np.cos(np.deg2rad(angles)) + y * np.sin(np.deg2rad(angles))
        values += 2 * np.sqrt(np.clip(r**2 - (s - offset[:, None]) ** 2, 0, None))
    coords = {"angle": ("angle", angles), "bin": ("bin", np.arange(bins, dtype=float))}
    return xr.DataArray(np.repeat(values[None], rows, 0), coords, ("row", "angle", "bin"))


@pytest.mark.parametrize("centre", [31.5, 28.0, 37.3])
@pytest.mark.parametrize("angles", [np.arange(181) * 180 / 181, np.linspace(0, 360, 91), np.linspace(-90, 90, 60)])
def test_centre_of_rotation(centre, angles) -> None:
    assert centre_of_rotation(disc_sinogram(angles, centre, rows=2)) == pytest.approx(centre, abs=0.1)


def test_a_scan_without_opposite_projections_has_no_centre() -> None:
    with pytest.raises(InputError, match="spans 120 degrees: no two projections are opposite"):
        centre_of_rotation(disc_sinogram(np.linspace(0, 120, 30), 31.5))


def test_wider_bins_count_what_narrow_ones_counted_together() -> None:
    scan = make_scan(counts().transpose(1, 0, 2), ANGLES, 1000.0, 10.0, bin_width=0.5)
    joined = binned(scan, 3)
    np.testing.assert_allclose(joined["counts"][:, :, 1], scan["counts"][:, :, 3:6].sum("bin"))
    assert float(joined["white"][0, 0]) == 3000 and joined.sizes["bin"] == 4
    np.testing.assert_allclose(joined["bin"], [float(scan["bin"][3 * i + 1]) for i in range(4)])
    assert joined.attrs["bin_width"] == 1.5 and joined.attrs["binning"] == 3
    with pytest.raises(InputError, match="13 bins cannot be joined by 4"):
        binned(scan, 4)


def test_real_scans(real_data) -> None:
    """Counts, angles and the centre of rotation of three real scans; centres as listed beside the data."""
    folder = real_data / "ct" / "raw"
    tooth = read_scan(folder / "tooth.h5")
    assert dict(tooth.sizes) == {"row": 2, "angle": 181, "bin": 640}
    assert float(tooth["angle"][-1]) == pytest.approx(179.0055, abs=1e-3)
    assert 0.5 < tooth.attrs["gain"] < 0.8
    lines = line_integrals(tooth)
    assert bool(lines["valid"].all())
    assert centre_of_rotation(lines["sinogram"]) == pytest.approx(295.5, abs=0.5)
    neutron = read_scan(folder / "neutron_360_sinogram.tif", angles=[0, 360], white=47620.0)
    assert dict(neutron.sizes) == {"row": 1, "angle": 459, "bin": 503}
    with pytest.warns(UserWarning, match="214 of 230877 readings"):
        lines = line_integrals(neutron)
    assert centre_of_rotation(lines["sinogram"]) == pytest.approx(245.0, abs=0.25)
    pet = read_scan(
        folder / "pet_transmission_trans.mat",
        angles=[0, 180 - 180 / 192],
        dims="bin angle",
        white=folder / "pet_transmission_blank.mat",
    )
    assert dict(pet.sizes) == {"row": 1, "angle": 192, "bin": 160} and "angle" in pet["white"].dims
    assert float(pet["counts"].sum()) == pytest.approx(0.92e6, rel=0.01)
    with pytest.warns(UserWarning, match="134 of 30720"):
        lines = line_integrals(pet)
    assert centre_of_rotation(lines["sinogram"]) == pytest.approx(79.5, abs=1.0)
