"""Ring-like images and windows of photographs: positive, of unit flux, one sky on every grid; pictures kept apart."""

import math
from pathlib import Path

import pytest
import torch

from scidiff.datasets.patches import PICTURES, Patches
from scidiff.datasets.rings import ring_image
from scidiff.datasets.sources import training_data
from scidiff.errors import InputError
from scidiff.nn import UNet
from scidiff.priors.pretrained import load_pretrained, save_pretrained


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_are_positive_and_add_up_to_one_jansky() -> None:
    for seed in range(30):
        image = ring_image((40, 48), gen(seed))
        assert image.dtype == torch.float64 and image.shape == (40, 48)
        assert float(image.min()) > 0 and float(image.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shape", [(64, 64), (48, 64)])
def test_the_same_sky_on_a_finer_grid(shape: tuple[int, int]) -> None:
    for seed in range(5):
        coarse = ring_image(shape, gen(seed))
        fine = ring_image((4 * shape[0], 4 * shape[1]), gen(seed))
        summed = 16 * torch.nn.functional.avg_pool2d(fine[None, None], 4)[0, 0]
        assert float((coarse - summed).abs().sum()) < 0.03  # pixel centres against pixel means


def test_they_are_rings_of_the_sizes_they_claim() -> None:
    """Brightness peaks between the radii 10 and 36 in every direction that is bright, with a darker centre."""
    darker, angles = 0, []
    for seed in range(60):
        image = ring_image((64, 64), gen(seed))
        y, x = torch.meshgrid(*(31.5 - torch.arange(64.0).double(),) * 2, indexing="ij")
        cy, cx = (float((image * v).sum()) for v in (y, x))
        brightest = divmod(int(image.argmax()), 64)
        py, px = 31.5 - brightest[0], 31.5 - brightest[1]
        assert math.hypot(py, px) * 2.5 < 55
        angles.append(math.atan2(px, py))
        centre = image[int(31.5 - cy) - 1 : int(31.5 - cy) + 2, int(31.5 - cx) - 1 : int(31.5 - cx) + 2].mean()
        darker += float(centre) < 0.7 * float(image.max())
    assert darker > 45
    resultant = math.hypot(sum(map(math.cos, angles)), sum(map(math.sin, angles))) / 60
    assert resultant < 0.35, "no preferred position angle"


def test_the_transform_keeps_draws_positive_and_is_on_the_card(tmp_path: Path) -> None:
    table = {"kind": "softplus", "scale": 1e-3}
    data = training_data("rings", shape=[20, 24], transform=table)
    assert data.units == "Jy/pixel" and data.extra["transforms"] == [table]
    card = {"channels": 1, "loc": data.loc, "scale": data.scale, "complex": False, "units": data.units, **data.extra}
    save_pretrained(UNet(1, width=(4,), blocks=1), tmp_path / "rings.safetensors", card)
    prior = load_pretrained(tmp_path / "rings.safetensors")
    u = data.source(gen(0), (20, 24))
    assert isinstance(u, torch.Tensor)
    torch.testing.assert_close(
        prior.decode(u[None]), ring_image((20, 24), gen(0)).float()[None, None], rtol=1e-4, atol=0
    )
    assert float(prior.decode(torch.full((1, 1, 2, 2), -30.0)).min()) >= 0 and not prior.affine
    plain = training_data("rings", shape=[20, 24])
    assert "transforms" not in plain.extra
    v = plain.source(gen(0), (20, 24))
    assert isinstance(v, torch.Tensor) and isinstance(plain.scale, float) and isinstance(plain.loc, float)
    torch.testing.assert_close(v * plain.scale + plain.loc, ring_image((20, 24), gen(0)).float()[None])
    for source in (data.source, plain.source):
        g = gen(1)
        drawn = torch.stack([source(g, (20, 24)) for _ in range(300)])  # type: ignore[misc]
        assert abs(float(drawn.mean())) < 0.15 and float(drawn.std()) == pytest.approx(1, abs=0.15)
    with pytest.raises(InputError, match="whole images"):
        data.source(gen(0), (20, 20))


def test_patches_are_windows_of_the_pictures() -> None:
    skimage = pytest.importorskip("skimage.data")
    source = Patches(["camera"], validation=["coffee"], halvings=0)
    picture = torch.from_numpy(skimage.camera().copy()).double() / 255
    assert source.loc == pytest.approx(float(picture.mean())) and source.scale == pytest.approx(float(picture.std()))
    windows = picture.unfold(0, 9, 1).unfold(1, 12, 1)
    mirrored = 0
    g = gen(0)
    for _ in range(12):
        patch = source(g, (9, 12))[0].double() * source.scale + source.loc
        found = [((windows[..., 0, 0] - p[0, 0]).abs() < 1e-5).nonzero() for p in (patch, patch.flip(1))]
        hits = [
            any((windows[i, j] - p).abs().max() < 1e-5 for i, j in f)
            for f, p in zip(found, (patch, patch.flip(1)), strict=True)
        ]
        assert any(hits)
        mirrored += hits[1] and not hits[0]
    assert 1 <= mirrored <= 11
    grey = torch.from_numpy(skimage.coffee().copy()).double() @ torch.tensor([0.2125, 0.7154, 0.0721]).double() / 255
    whole = source.held_out(gen(0), tuple(grey.shape))[0].double() * source.scale + source.loc
    assert min(float((whole - w).abs().max()) for w in (grey, grey.flip(1))) < 1e-5


def test_all_pictures_are_there_and_kept_apart() -> None:
    source = Patches()
    assert "chelsea" not in source.pictures and {*source.pictures, "chelsea"} == {*PICTURES}
    assert source(gen(0), (64, 48)).shape == (1, 64, 48)
    g = gen(1)
    drawn = torch.stack([source(g, (64, 64)) for _ in range(300)])
    assert abs(float(drawn.mean())) < 0.3 and 0.7 < float(drawn.std()) < 1.3
    with pytest.raises(ValueError, match="no picture 'lena'"):
        Patches(["lena"])
    with pytest.raises(ValueError, match="'camera' is a picture for training and held out"):
        Patches(["camera"], validation=["camera"])
