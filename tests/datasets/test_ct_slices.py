"""CT windows: values keep their meaning, pixels their size, subjects are kept apart."""

import numpy as np
import pytest
import torch

from scidiff.datasets.ct_slices import CTSlices
from scidiff.datasets.sources import training_data
from scidiff.errors import InputError


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def body(slices: int, h: int, w: int, size: tuple[float, float], value: float = 40.0) -> torch.Tensor:
    """An ellipse of 60 by 40 mm at the centre, in air."""
    y = ((torch.arange(h) - (h - 1) / 2) * size[0])[:, None]
    x = ((torch.arange(w) - (w - 1) / 2) * size[1])[None, :]
    inside = (y / 20).square() + (x / 30).square() < 1
    return torch.where(inside, value, -1000.0).expand(slices, h, w).clone()


def test_windows_have_the_pixel_size_asked_for_whatever_that_of_the_volume() -> None:
    """The area of the ellipse in mm^2, from volumes with other pixels, unequal along y and x."""
    area = np.pi * 20 * 30
    for size, shape in (((1.0, 1.0), (80, 100)), ((1.5, 0.8), (60, 130))):
        source = CTSlices([body(3, *shape, size)], [size], pixel=2.0, rotation=30.0, zoom=1.0, loc=0.0, scale=1.0)
        g = gen(0)
        for _ in range(8):
            window = source(g, (90, 110))[0]
            assert float((window + 1000).sum() / 1040 * 4) == pytest.approx(area, rel=0.03)
            assert float(window.min()) >= -1000.001 and float(window.max()) <= 40.001
            assert float((window - 40).abs().min()) < 0.01, "the values of the body are kept"


def test_standardised_by_its_own_windows_and_reproducible() -> None:
    volumes = [body(4, 70, 60, (1.0, 1.0)), body(2, 50, 50, (2.0, 2.0), 300.0) - 200]
    source = CTSlices(volumes, [(1.0, 1.0), (2.0, 2.0)], weights=[1.0, 3.0])
    g = gen(5)
    u = torch.stack([source(g, (64, 64)) for _ in range(400)])
    assert abs(float(u.mean())) < 0.1 and float(u.std()) == pytest.approx(1, abs=0.1)
    assert torch.equal(source(gen(1), (20, 30)), source(gen(1), (20, 30)))
    assert not torch.equal(source(gen(1), (20, 30)), source(gen(2), (20, 30)))
    x = u * source.scale + source.loc
    assert float(x.min()) == pytest.approx(-1000, abs=0.01), "air is the least"
    second = (x.flatten(1).max(1).values > 60).double().mean()  # 300 - 200 against 40
    assert 0.6 < float(second) < 0.85


def test_the_kind_ct_reads_volumes_with_their_voxels(tmp_path) -> None:
    for name, value in (("a", 40.0), ("b", 90.0)):
        volume = body(3, 50, 60, (1.0, 1.0), value).numpy().astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", vol=volume, voxel_mm=np.array([3.0, 1.0, 1.0]))
    data = training_data("ct", tmp_path, files=["a.npz"], validation=["b.npz"], pixel=1.0, zoom=1.0, rotation=0.0)
    assert data.units == "HU" and data.extra["pixel_size"] == 1.0 and {*data.files} == {"a.npz", "b.npz"}
    assert data.validation is not None and isinstance(data.loc, float) and isinstance(data.scale, float)
    for source, value in ((data.source, 40.0), (data.validation, 90.0)):
        u = source(gen(0), (50, 60))
        assert isinstance(u, torch.Tensor) and u.shape == (1, 50, 60)
        assert float((u * data.scale + data.loc).max()) == pytest.approx(value, abs=0.01)
    np.savez(tmp_path / "c.npz", vol=np.zeros((2, 8, 8)))
    with pytest.raises(InputError, match=r"c\.npz: a CT volume needs the size"):
        training_data("ct", tmp_path, files=["c.npz"])
    with pytest.raises(InputError, match="has no 'gamma'"):
        training_data("ct", tmp_path, files=["a.npz"], gamma=1.0)
    with pytest.raises(InputError, match="one weight per volume"):
        training_data("ct", tmp_path, files=["a.npz"], weights=[1.0, 2.0])
