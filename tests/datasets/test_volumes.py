"""Head volumes: orientation, voxel sizes, messages."""

import sys

import numpy as np
import pytest

from scidiff.datasets.volumes import read_volume
from scidiff.errors import InputError, MissingPackageError


def test_npz(tmp_path):
    volume = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "v.npz", vol=volume, voxel_mm=np.array([5.0, 1.0, 2.0]))
    read = read_volume(tmp_path / "v.npz")
    assert read.dims == ("z", "y", "x") and read.dtype == np.float32 and np.array_equal(read, volume)
    assert read.z.units == "mm" and read.z.values.tolist() == [-2.5, 2.5] and read.x.values.tolist() == [-3, -1, 1, 3]
    np.savez(tmp_path / "plain.npz", vol=volume)
    assert read_volume(tmp_path / "plain.npz").z.units == "1"


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASR", "PIL"])
def test_nifti_of_any_orientation_comes_out_the_same(tmp_path, orientation):
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    canonical = rng.integers(0, 99, (4, 5, 6)).astype(np.float32)  # to the right, anterior, superior
    image = nibabel.Nifti1Image(canonical, np.diag([1.0, 2.0, 3.0, 1.0]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(orientation)
    )
    nibabel.save(image.as_reoriented(turn), tmp_path / "v.nii.gz")
    read = read_volume(tmp_path / "v.nii.gz")
    assert np.array_equal(read, canonical.transpose(2, 1, 0)[:, ::-1])
    assert read.attrs["voxel_size"] == [3.0, 2.0, 1.0] and float(read.y[1] - read.y[0]) == 2.0
    assert read.attrs["source_file"] == "v.nii.gz" and len(read.attrs["sha256"]) == 64


def test_units_are_understood_by_pint(tmp_path):
    pint = pytest.importorskip("pint")
    np.savez(tmp_path / "v.npz", vol=np.ones((2, 3, 4)), voxel_mm=np.ones(3))
    assert pint.Unit(read_volume(tmp_path / "v.npz").y.units) == pint.Unit("millimeter")


def test_rejects(tmp_path, monkeypatch):
    def fails(name, message, **arrays):
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(InputError, match=message):
            read_volume(tmp_path / name)

    fails("a.npz", "expected an array 'vol', found other", other=np.ones(3))
    fails("b.npz", "wrong dimensions", vol=np.ones((3, 4)))
    fails("c.npz", "real intensities", vol=np.ones((2, 3, 4), complex))
    fails("d.npz", "NaN", vol=np.full((2, 3, 4), np.nan))
    fails("e.npz", "three positive", vol=np.ones((2, 3, 4)), voxel_mm=np.array([1.0, 0.0, 1.0]))
    fails("f.npz", "numbers", vol=np.array([None]))
    with pytest.raises(InputError, match="no such file"):
        read_volume(tmp_path / "gone.nii")
    (tmp_path / "v.nii").write_text("not an image")
    pytest.importorskip("nibabel")
    with pytest.raises(InputError, match="not a readable NIfTI"):
        read_volume(tmp_path / "v.nii")
    (tmp_path / "v.mha").write_text("")
    with pytest.raises(InputError, match="unknown kind"):
        read_volume(tmp_path / "v.mha")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingPackageError, match="nibabel"):
        read_volume(tmp_path / "v.nii")
