"""TIFF stacks: sizes that files state, and what is wrong with a file."""

import numpy as np
import pytest

from scidiff.datasets import read_stack
from scidiff.errors import InputError

tifffile = pytest.importorskip("tifffile", reason="tifffile reads TIFF stacks")
STACK = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


def test_plain_files_have_voxels_and_sizes_can_be_given(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    stack = read_stack(tmp_path / "a.tif")
    np.testing.assert_array_equal(stack.values, STACK)
    assert stack.dims == ("z", "y", "x") and stack["z"].attrs["units"] == "1" and "voxel_size" not in stack.attrs
    sized = read_stack(tmp_path / "a.tif", voxel=(0.5, 0.1, 0.2))
    assert sized["z"].attrs["units"] == "um" and float(sized["z"][2]) == 1.0 and float(sized["x"][1]) == 0.2


def test_imagej_and_ome_sizes_are_read(tmp_path) -> None:
    tifffile.imwrite(
        tmp_path / "j.tif",
        STACK,
        imagej=True,
        resolution=(1 / 0.2, 1 / 0.1),
        metadata={"spacing": 0.5, "unit": "um", "axes": "ZYX"},
    )
    assert read_stack(tmp_path / "j.tif").attrs["voxel_size"] == pytest.approx([0.5, 0.1, 0.2], rel=1e-4)
    about = {
        "axes": "ZYX",
        "PhysicalSizeZ": 500.0,
        "PhysicalSizeZUnit": "nm",
        "PhysicalSizeY": 0.1,
        "PhysicalSizeX": 0.2,
    }
    tifffile.imwrite(tmp_path / "o.ome.tif", STACK, ome=True, metadata=about)
    assert read_stack(tmp_path / "o.ome.tif").attrs["voxel_size"] == pytest.approx([0.5, 0.1, 0.2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (STACK[0], r"shape \(5, 6\)"),
        (STACK - 7, "negative"),
        (np.where(STACK == 3, np.nan, STACK).astype(np.float32), "1 NaN"),
        (STACK.astype(np.complex64), "real intensities"),
    ],
)
def test_wrong_stacks_are_named(tmp_path, values, message) -> None:
    tifffile.imwrite(tmp_path / "bad.tif", values, photometric="minisblack")
    with pytest.raises(InputError, match=f"bad.tif.*{message}"):
        read_stack(tmp_path / "bad.tif")


def test_wrong_files_are_named(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_stack(tmp_path / "none.tif")
    tifffile.imwrite(tmp_path / "cut.tif", STACK, photometric="minisblack")
    whole = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:300])
    (tmp_path / "text.tif").write_text("no picture")
    for name in ("cut.tif", "text.tif"):
        with pytest.raises(InputError, match=f"{name}: (not a readable|expected)"):
            read_stack(tmp_path / name)
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    with pytest.raises(InputError, match="three positive"):
        read_stack(tmp_path / "a.tif", voxel=(1.0, -1.0, 1.0))
