import os
import signal

import numpy as np
import pint
import pytest
import torch
import xarray as xr

from scidiff import fields
from scidiff.errors import InputError


def image(dtype=np.complex64):
    rng = np.random.default_rng(5)
    values = (rng.normal(size=(5, 8)) + 1j * rng.normal(size=(5, 8))).astype(dtype)
    coords = {"y": ("y", np.arange(5) * 2.0, {"units": "mm"}), "x": ("x", np.arange(8) * 1.5, {"units": "mm"})}
    return xr.DataArray(values, coords, ("y", "x"), "image", {"units": "mV", "long_name": "image"})


def test_complex64_round_trip_through_tensor_and_file(tmp_path):
    array = image()
    tensor = fields.to_tensor(array)
    assert tensor.dtype == torch.complex64
    back = fields.from_tensor(tensor[None], array)
    xr.testing.assert_identical(back, array)
    fields.write_dataset(back.to_dataset(), tmp_path / "a.nc")
    with fields.open_result(tmp_path / "a.nc") as opened:
        assert opened["image"].dtype == np.complex64
        xr.testing.assert_identical(opened["image"].load(), array)
        assert "_FillValue" not in opened["image"].encoding and "_FillValue" not in opened["y"].encoding


def test_portable_files_hold_real_numbers_only_and_merge_to_the_same(tmp_path):
    import h5py

    array = image()
    fields.write_dataset(array.to_dataset(), tmp_path / "a.nc", portable=True)
    with h5py.File(tmp_path / "a.nc") as file:
        assert {"image_real", "image_imag"} <= set(file) and "image" not in file
        assert file["image_real"].dtype == np.float32
    with fields.open_result(tmp_path / "a.nc") as opened:
        xr.testing.assert_identical(fields.merge_complex(opened)["image"], array)


def test_pint_units_survive_writing(tmp_path):
    registry = pint.UnitRegistry()
    data = xr.Dataset({"wind": ("x", registry.Quantity(np.arange(3.0), "m / s ** 2")), "plain": ("x", np.arange(3))})
    fields.write_dataset(data, tmp_path / "a.nc")
    with fields.open_result(tmp_path / "a.nc") as opened:
        assert opened["wind"].attrs["units"] == "m s-2"
        assert opened["wind"].values.tolist() == [0, 1, 2]
    assert isinstance(data["wind"].data, registry.Quantity)  # the caller's data are as they were


def test_units_convert_by_value_and_refuse_another_dimensionality():
    celsius = xr.DataArray(np.array([0.0, 20.0], np.float32), dims="x", name="t", attrs={"units": "degC"})
    kelvin = fields.convert_units(celsius, "K")
    np.testing.assert_allclose(kelvin.values, [273.15, 293.15], rtol=1e-6)
    assert kelvin.dtype == np.float32 and kelvin.attrs["units"] == "K"
    with pytest.raises(InputError, match="t has units 'degC', which do not measure the same as 'm s-1'"):
        fields.to_tensor(celsius, units="m s-1")
    with pytest.raises(InputError, match="no units attribute"):
        fields.convert_units(celsius.drop_attrs(), "K")
    with pytest.raises(InputError, match="'furlonks' are not understood"):
        fields.parse_units("furlonks")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name_and_number(bad):
    array = image()
    array[1, 2] = bad
    with pytest.raises(InputError, match="image holds 1 NaN or infinite values of 40"):
        fields.to_tensor(array)


def test_dimensions_are_reordered_or_refused():
    array = image()
    assert fields.to_tensor(array, dims=("x", "y")).shape == (8, 5)
    assert torch.equal(fields.to_tensor(array, dims=("x", "y")), fields.to_tensor(array).T)
    with pytest.raises(InputError, match=r"dimensions \('y', 'x'\), expected \('time', 'x'\)"):
        fields.to_tensor(array, dims=("time", "x"))
    with pytest.raises(InputError, match="40 numbers; the tensor has shape"):
        fields.from_tensor(torch.zeros(5, 7), array)
    with pytest.raises(InputError, match="the tensor is complex"):
        fields.from_tensor(torch.zeros(5, 8, dtype=torch.complex64), array.real)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="cut"), fields.atomic(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("cut")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    child = os.fork()
    if child == 0:
        with fields.atomic(target) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert target.read_text() == "old"


@pytest.mark.parametrize("portable", [False, True])
def test_streamed_file_equals_the_file_written_at_once(tmp_path, portable):
    array = image().expand_dims(slice=["left"], axis=0).assign_coords(depth=("slice", [3.0], {"units": "mm"}))
    members = [np.asarray(array.values * (m + 1j)) for m in range(3)]
    rest = xr.Dataset({"chi2": ("member", np.arange(3.0))}, attrs={"title": "t"})
    fields.write_streamed(tmp_path / "s.nc", rest, array, members.__getitem__, range(3), portable)
    whole = rest.assign(image=(("member", "slice", "y", "x"), np.stack(members), array.attrs))
    whole = whole.assign_coords(array.coords).assign_coords(member=range(3))
    with fields.open_result(tmp_path / "s.nc") as opened:
        found = fields.merge_complex(opened).load()
    assert found["member"].attrs == {"long_name": "ensemble member"}
    found["member"].attrs.clear()
    xr.testing.assert_identical(found[sorted(found)], whole[sorted(whole)])


def test_digest_sees_values_types_and_attributes():
    data = image().to_dataset()
    other = data.copy(deep=True)
    assert fields.digest(data) == fields.digest(other)
    other["image"][0, 0] += 1
    assert fields.digest(data) != fields.digest(other)
    assert fields.digest(data) != fields.digest(data.assign_attrs(x=1).assign(image=data.image.assign_attrs(units="V")))
    assert fields.digest(np.zeros(4, np.float32)) != fields.digest(np.zeros(2, np.float64))
    assert fields.digest(torch.zeros(4)) == fields.digest(np.zeros(4, np.float32))


def test_a_file_that_is_no_netcdf_is_refused(tmp_path):
    (tmp_path / "a.nc").write_text("hello")
    with pytest.raises(InputError, match="is not a NetCDF-4 file"):
        fields.open_result(tmp_path / "a.nc")
    with pytest.raises(InputError, match="no such file"):
        fields.open_result(tmp_path / "b.nc")
