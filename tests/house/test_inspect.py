"""`scidiff inspect`: every kind of file by its content; damaged files and pickles are refused."""

import json
import pickle  # noqa: TID251 - what we refuse to open
import zipfile

import h5py
import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import save_file
from scipy.io import netcdf_file, savemat

from scidiff.cli.inspect import describe
from scidiff.errors import InputError


def test_numpy_and_archive(tmp_path):
    np.save(tmp_path / "k.npy", np.zeros((8, 5, 3), np.complex64))
    found = describe(tmp_path / "k.npy")
    assert (found["kind"], found["shape"], found["dtype"]) == ("NumPy array", [8, 5, 3], "complex64")
    np.savez(tmp_path / "k.npz", a=np.zeros((2, 3)), b=np.int16(1))
    assert describe(tmp_path / "k.npz")["variables"]["a"] == {"shape": [2, 3], "dtype": "float64"}


def test_bundled_prior_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = describe("gaussian-field")
    assert found["kind"] == "safetensors weights" and found["card"]["name"] == "gaussian-field"
    with pytest.raises(InputError, match="nor a bundled prior .*gaussian-field"):
        describe("gaussian-fields")


def test_weights_with_their_card(tmp_path):
    save_file(
        {"w": torch.zeros(3, 4), "b": torch.zeros(4, dtype=torch.float16)}, tmp_path / "p.safetensors", {"who": "me"}
    )
    (tmp_path / "p.json").write_text('{"licence": "MIT"}')
    found = describe(tmp_path / "p.safetensors")
    assert found["parameters"] == 16 and found["metadata"] == {"who": "me"} and found["card"] == {"licence": "MIT"}
    assert found["variables"]["b"] == {"shape": [4], "dtype": "F16"}
    assert describe(tmp_path / "p.json")["content"] == {"licence": "MIT"}
    whole = (tmp_path / "p.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-3])
    with pytest.raises(InputError, match=rf"expected {len(whole)} bytes .* found {len(whole) - 3}"):
        describe(tmp_path / "cut.safetensors")


def test_hdf5_kinds(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = np.zeros((2, 8, 5, 3), np.complex64)
        file["ismrmrd_header"] = "<xml/>"
    assert describe(tmp_path / "scan.h5")["kind"] == "fastMRI k-space (HDF5)"
    with h5py.File(tmp_path / "result.nc", "w") as file:
        file["image"] = np.zeros((4, 5, 3), np.complex64)
        file["image"].attrs["units"] = "1"
        file.attrs["Conventions"] = "CF-1.11"
        file.attrs["prior_card"] = json.dumps({"name": "head"})
    found = describe(tmp_path / "result.nc")
    assert found["kind"] == "NetCDF (CF-1.11)"
    assert found["attributes"]["prior_card"] == {"name": "head"}
    assert found["variables"]["image"]["attributes"] == {"units": "1"}
    (tmp_path / "cut.nc").write_bytes((tmp_path / "result.nc").read_bytes()[:100])
    with pytest.raises(InputError, match="cut off or damaged"):
        describe(tmp_path / "cut.nc")


def test_matlab_netcdf3_zarr(tmp_path):
    savemat(tmp_path / "m.mat", {"kspace": np.zeros((3, 4))})
    assert describe(tmp_path / "m.mat")["variables"] == {"kspace": {"shape": [3, 4], "dtype": "double"}}
    with netcdf_file(tmp_path / "old.nc", "w") as file:
        file.createDimension("x", 3)
        file.createVariable("t", "f4", ("x",))
    assert describe(tmp_path / "old.nc")["variables"]["t"]["shape"] == [3]
    group = zarr.open_group(tmp_path / "r.zarr", mode="w")
    group.create_array("field", shape=(2, 3), dtype="f4")
    assert describe(tmp_path / "r.zarr")["variables"]["field"]["shape"] == [2, 3]


class Bomb:
    """Its unpickling would leave a trace."""

    def __reduce__(self):
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("disguise", ["w.pt", "w.safetensors", "w.npy", "w.nc"])
@pytest.mark.parametrize("writer", ["pickle", "torch", "torch-old", "numpy", "npz"])
def test_pickles_are_refused_whatever_their_name(tmp_path, monkeypatch, writer, disguise):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / disguise
    with open(path, "wb") as file:
        if writer == "pickle":
            pickle.dump(Bomb(), file)
        elif writer == "numpy":
            np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
        elif writer == "npz":
            with zipfile.ZipFile(file, "w") as archive, archive.open("a.npy", "w") as member:
                np.save(member, np.array([Bomb()], dtype=object), allow_pickle=True)
        else:
            torch.save({"w": Bomb()}, file, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(InputError, match="pickle"):
        describe(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.txt", b"hello, this is only text", "unknown kind"),
        ("empty.nc", b"", "unknown kind"),
        ("bad.json", b'{"a": ', "cannot be parsed"),
        ("cut.npy", b"\x93NUMPY\x01", "cut off or damaged"),
        ("cut.zip", b"PK\x03\x04", "damaged zip"),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        describe(tmp_path / name)
    with pytest.raises(InputError, match="not a Zarr store"):
        describe(tmp_path)


def test_real_scan(real_data):
    found = describe(real_data / "mri" / "raw" / "brain8ch_cartesian_ksp.npy")
    assert found["shape"][0] == 8 and found["dtype"].startswith("complex")
