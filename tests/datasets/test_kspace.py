"""Readers of raw k-space: what each format gives, and the message for each thing that can be wrong."""

import hashlib
import pickle  # noqa: TID251 - to test that one is refused
import sys

import h5py
import numpy as np
import pytest

from scidiff.datasets.kspace import read_kspace
from scidiff.errors import InputError, MissingPackageError

HEADER = b"""<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace><matrixSize><x>12</x><y>10</y><z>1</z>
</matrixSize><fieldOfView_mm><x>240</x><y>150</y><z>5</z></fieldOfView_mm></encodedSpace></encoding></ismrmrdHeader>"""


@pytest.fixture
def kspace():
    """(3 coils, 12, 10), strongest in the middle, nowhere zero."""
    rng = np.random.default_rng(0)
    k = rng.normal(size=(3, 12, 10)) + 1j * rng.normal(size=(3, 12, 10))
    k[:, 6, 5] += 20
    return k.astype(np.complex64)


def quiet(path, **options):
    """Reads with warnings as errors."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_kspace(path, **options)


def test_npy(tmp_path, kspace):
    path = tmp_path / "scan.npy"
    np.save(path, kspace)
    data = quiet(path)
    assert data.kspace.dims == ("coil", "ky", "kx") and data.kspace.dtype == np.complex64
    assert np.array_equal(data.kspace, kspace) and data.kspace.units == "a.u."
    assert data.mask.dtype == bool and bool(data.mask.all()) and data.mask.dims == ("ky", "kx")
    assert data.attrs["source_file"] == "scan.npy" and data.attrs["fraction_sampled"] == 1.0
    assert data.attrs["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert float(data.kx[5]) == 0 and data.kx.units == "1" and "voxel_size" not in data.attrs


def test_one_channel_and_coils_last(tmp_path, kspace):
    np.save(tmp_path / "one.npy", kspace[0])
    assert quiet(tmp_path / "one.npy").kspace.shape == (1, 12, 10)
    np.save(tmp_path / "last.npy", np.moveaxis(kspace, 0, -1))
    assert np.array_equal(quiet(tmp_path / "last.npy", coil_axis=-1).kspace, kspace)


def test_npz(tmp_path, kspace):
    np.savez(tmp_path / "a.npz", data=kspace, age=3)
    assert np.array_equal(quiet(tmp_path / "a.npz").kspace, kspace)
    np.savez(tmp_path / "b.npz", first=kspace, second=2 * kspace)
    with pytest.raises(InputError, match="first, second are complex.*variable"):
        read_kspace(tmp_path / "b.npz")
    assert np.array_equal(quiet(tmp_path / "b.npz", variable="second").kspace, 2 * kspace)
    with pytest.raises(InputError, match="no variable 'third'.*first"):
        read_kspace(tmp_path / "b.npz", variable="third")


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_mat(tmp_path, kspace, version):
    from scipy.io import savemat

    path = tmp_path / "scan.mat"
    coils_last = np.moveaxis(kspace, 0, -1).astype(np.complex128)
    if version == "5":
        savemat(path, {"data": coils_last, "te": 3.0})
    else:
        with h5py.File(path, "w") as file:  # MATLAB writes axes reversed and complex numbers as pairs
            pairs = np.empty(coils_last.T.shape, [("real", "f8"), ("imag", "f8")])
            pairs["real"], pairs["imag"] = coils_last.T.real, coils_last.T.imag
            file["data"], file["te"] = pairs, 3.0
    assert np.allclose(quiet(path, coil_axis=-1).kspace, kspace)


def test_fastmri(tmp_path, kspace):
    path = tmp_path / "brain.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([kspace, 2 * kspace, 3 * kspace])
        file["ismrmrd_header"] = HEADER
        file["reconstruction_rss"] = np.ones((3, 12, 10))
    middle = quiet(path)
    assert np.array_equal(middle.kspace, 2 * kspace) and middle.attrs["slice"] == 1 and middle.attrs["slices"] == 3
    assert np.array_equal(quiet(path, slice=2).kspace, 3 * kspace)
    # 12 readout points over 240 mm, 10 lines over 150 mm.
    assert middle.attrs["voxel_size"] == [20.0, 15.0] and middle.attrs["voxel_size_units"] == "mm"
    assert middle.kx.units == "1/mm" and float(middle.kx[6] - middle.kx[5]) == pytest.approx(1 / 150)
    with pytest.raises(InputError, match="no slice 3.*holds 3"):
        read_kspace(path, slice=3)


def test_fastmri_single_coil_and_mask(tmp_path, kspace):
    path = tmp_path / "knee.h5"
    keep = np.arange(10) % 3 != 0
    with h5py.File(path, "w") as file:
        file["kspace"], file["ismrmrd_header"], file["mask"] = kspace * keep, HEADER, keep
    data = quiet(path, slice=0)  # the file says which columns are missing: nothing to warn about
    assert data.kspace.shape == (1, 12, 10) and np.array_equal(data.mask, np.broadcast_to(keep, (12, 10)))


def test_ismrmrd(tmp_path, kspace):
    ismrmrd = pytest.importorskip("ismrmrd")
    path, asymmetric = tmp_path / "scan.h5", 2
    header = ismrmrd.xsd.ismrmrdHeader(
        experimentalConditions=ismrmrd.xsd.experimentalConditionsType(H1resonanceFrequency_Hz=128000000),
        encoding=[
            ismrmrd.xsd.encodingType(
                encodedSpace=space(ismrmrd, 10, 12), reconSpace=space(ismrmrd, 10, 12),
                encodingLimits=ismrmrd.xsd.encodingLimitsType(
                    kspace_encoding_step_1=ismrmrd.xsd.limitType(minimum=0, maximum=11, center=6)
                ),
                trajectory=ismrmrd.xsd.trajectoryType("cartesian"),
            )
        ],
    )  # fmt: skip
    dataset = ismrmrd.Dataset(str(path), "dataset", mode="w")
    dataset.write_xml_header(ismrmrd.xsd.ToXML(header))
    for step in [*range(12), 4]:  # line 4 twice, line 3 never, the first samples of every line not acquired
        if step == 3:
            continue
        data = kspace[:, step, asymmetric:] * (1.5 if step == 4 else 1)
        line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data))
        line.center_sample, line.idx.kspace_encode_step_1 = 5 - asymmetric, step
        if step == 7:  # read backwards
            line.data[:] = line.data[:, ::-1].copy()
            line.center_sample = data.shape[1] - 1 - line.center_sample
            line.setFlag(ismrmrd.ACQ_IS_REVERSE)
        dataset.append_acquisition(line)
    noise = ismrmrd.Acquisition.from_array(np.ones((3, 8), np.complex64))
    noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    dataset.append_acquisition(noise)
    dataset.close()
    data = quiet(path)
    expected, mask = kspace.copy(), np.ones((12, 10), bool)
    expected[:, 4] *= 1.5
    mask[3], mask[:, :asymmetric] = False, False
    assert np.array_equal(data.mask, mask)
    assert np.allclose(data.kspace, expected * mask)
    assert data.attrs["voxel_size"] == [20.0, 15.0]


def space(ismrmrd, nx, ny):
    return ismrmrd.xsd.encodingSpaceType(
        matrixSize=ismrmrd.xsd.matrixSizeType(x=nx, y=ny, z=1),
        fieldOfView_mm=ismrmrd.xsd.fieldOfViewMm(x=15.0 * nx, y=20.0 * ny, z=5.0),
    )


def test_ismrmrd_needs_its_package(tmp_path, monkeypatch):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["dataset/data"], file["dataset/xml"] = np.zeros(3), b"<ismrmrdHeader/>"
    monkeypatch.setitem(sys.modules, "ismrmrd", None)
    with pytest.raises(MissingPackageError, match="ismrmrd"):
        read_kspace(path)


def test_zeros_are_missing_unless_said_otherwise(tmp_path, kspace):
    kspace[:, :, ::4] = 0
    np.save(tmp_path / "s.npy", kspace)
    with pytest.warns(UserWarning, match="36 of 120 points.*NOT MEASURED.*zeros='measured'"):
        data = read_kspace(tmp_path / "s.npy")
    assert np.array_equal(data.mask[0], np.arange(10) % 4 != 0) and data.attrs["fraction_sampled"] == pytest.approx(0.7)
    with pytest.warns(UserWarning, match="36 of 120 points.*treated as data"):
        data = read_kspace(tmp_path / "s.npy", zeros="measured")
    assert bool(data.mask.all()) and data.attrs["zeros"] == "measured"
    # Zero in one coil only is a measurement.
    kspace[0, 1, 1] = 0
    np.save(tmp_path / "s.npy", kspace)
    with pytest.warns(UserWarning, match="36 of 120"):
        assert bool(read_kspace(tmp_path / "s.npy").mask[1, 1])


def test_image_or_uncentred_is_suspected(tmp_path, kspace):
    np.save(tmp_path / "s.npy", np.fft.ifftshift(kspace, axes=(1, 2)))
    with pytest.warns(UserWarning, match=r"strongest point is at \(0, 0\).*expected at \(6, 5\)"):
        read_kspace(tmp_path / "s.npy")


def test_missing_file_folder_and_kind(tmp_path):
    with pytest.raises(InputError, match=r"gone\.npy.*no such file"):
        read_kspace(tmp_path / "gone.npy")
    with pytest.raises(InputError, match="it is a folder"):
        read_kspace(tmp_path)
    (tmp_path / "scan.dcm").write_bytes(b"x")
    with pytest.raises(InputError, match=r"unknown kind of file '\.dcm'.*\.npy"):
        read_kspace(tmp_path / "scan.dcm")
    with pytest.raises(InputError, match="'missing' or 'measured'"):
        read_kspace(tmp_path / "scan.dcm", zeros="maybe")


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8, bool])
def test_real_numbers_are_not_kspace(tmp_path, kspace, dtype):
    np.save(tmp_path / "image.npy", np.abs(kspace).astype(dtype))
    with pytest.raises(InputError, match=r"image\.npy: 'array' is not k-space: expected complex.*magnitude image"):
        read_kspace(tmp_path / "image.npy")


def test_text_is_not_kspace(tmp_path):
    np.save(tmp_path / "t.npy", np.array([["a", "b"], ["c", "d"]]))
    with pytest.raises(InputError, match="expected complex numbers, found <U1"):
        read_kspace(tmp_path / "t.npy")
    for kind in (".npy", ".npz", ".mat", ".h5"):
        (tmp_path / f"note{kind}").write_text("these are the notes of the scan\n" * 20)
        with pytest.raises(InputError, match=f"note{kind}"):
            read_kspace(tmp_path / f"note{kind}")
        (tmp_path / f"empty{kind}").write_bytes(b"")
        with pytest.raises(InputError, match=f"empty{kind}"):
            read_kspace(tmp_path / f"empty{kind}")


class Bomb:
    """Would run on loading."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_pickles_are_refused_unopened(tmp_path, kind):
    (tmp_path / f"raw{kind}").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="pickle"):
        read_kspace(tmp_path / f"raw{kind}")
    objects = np.array([[Bomb(), 1], [2, 3]], dtype=object)
    (np.save if kind == ".npy" else np.savez)(tmp_path / f"objects{kind}", objects)
    with pytest.raises(InputError, match="pickle"):
        read_kspace(tmp_path / f"objects{kind}")


def test_wrong_dimensions(tmp_path, kspace):
    for array in (kspace[0, 0], kspace[None], kspace[:, :1]):
        np.save(tmp_path / "s.npy", array)
        with pytest.raises(InputError, match=r"expected \(coil, ky, kx\) or \(ky, kx\), found shape"):
            read_kspace(tmp_path / "s.npy")
    np.save(tmp_path / "s.npy", np.swapaxes(kspace, 0, 1)[:, :, :5])
    with pytest.raises(InputError, match="more coils than points.*coil_axis"):
        read_kspace(tmp_path / "s.npy")
    np.save(tmp_path / "s.npy", kspace)
    with pytest.raises(InputError, match="between -3 and 2"):
        read_kspace(tmp_path / "s.npy", coil_axis=3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, np.nan)])
def test_not_finite(tmp_path, kspace, bad):
    kspace[1, 2, 3] = bad
    np.save(tmp_path / "s.npy", kspace)
    with pytest.raises(InputError, match=r"s\.npy: 'array' holds 1 NaN or infinite values of 360"):
        read_kspace(tmp_path / "s.npy")


def test_only_zeros_and_out_of_range(tmp_path, kspace):
    np.save(tmp_path / "s.npy", 0 * kspace)
    with pytest.raises(InputError, match="only zeros"):
        read_kspace(tmp_path / "s.npy")
    np.save(tmp_path / "s.npy", kspace.astype(np.complex128) * 1e60)
    with pytest.raises(InputError, match="range of complex64"):
        read_kspace(tmp_path / "s.npy")


def test_mask_of_the_file(tmp_path, kspace):
    for mask, message in ((np.ones(7), r"mask has shape \(7,\)"), (np.zeros(10), "samples nothing")):
        path = tmp_path / f"m{len(mask)}.h5"
        with h5py.File(path, "w") as file:
            file["kspace"], file["mask"] = kspace, mask
        with pytest.raises(InputError, match=message):
            read_kspace(path)


def test_header_with_entities_is_refused(tmp_path, kspace):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["kspace"], file["ismrmrd_header"] = kspace[None], b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'
    with pytest.raises(InputError, match="entities"):
        read_kspace(tmp_path / "x.h5")


def test_real_scan(real_data):
    path = real_data / "mri" / "raw" / "brain8ch_cartesian_ksp.npy"
    if not path.is_file():
        pytest.skip(f"no file {path}")
    with pytest.warns(UserWarning, match="36252 of 41400 points"):
        data = read_kspace(path)
    assert dict(data.sizes) == {"coil": 8, "ky": 230, "kx": 180} and int(data.mask.sum()) == 5148
