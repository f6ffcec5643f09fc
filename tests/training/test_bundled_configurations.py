"""Every configuration in examples/priors: valid tables, a network of a size that can be bundled, an honest card."""

import tomllib

import pytest
import torch

from scidiff.datasets.sources import SIMULATORS, training_data
from scidiff.nn import UNet
from scidiff.training import TrainingConfig

NAMES = ("gaussian-field", "vorticity", "poisson-pairs", "darcy-pairs", "rings", "patches", "ct-slices")
LESS = {"vorticity": {"trajectories": 2, "start": 0.0, "stop": 0.25, "every": 0.25}}
LIMIT = 8 * 2**20
"""Bytes of the weights, two a number."""


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_fits_its_data_and_can_be_bundled(name: str, root) -> None:
    tables = tomllib.loads((root / "examples/priors" / f"{name}.toml").read_text())
    card, training = tables["card"], TrainingConfig(**tables["training"])
    assert card["name"] == name
    assert all(card[key] for key in ("title", "intended_use", "licence", "sources", "limits"))
    channels = 1
    if tables["data"]["kind"] in SIMULATORS:
        data = training_data(folder=root, **{**tables["data"], **LESS.get(name, {})})
        crop = training.crop(0)
        u = data.source(torch.Generator().manual_seed(0), crop)
        assert isinstance(u, torch.Tensor) and u.shape == (data.channels, *crop)
        channels = data.channels
    else:
        assert len(card["sources"]) >= 2 and "CC BY" in card["licence"]
    network = UNet(channels, **tables["network"])
    numbers = sum(p.numel() for p in network.parameters())
    assert 3e5 < numbers < 1.5e6 and 2 * numbers < LIMIT
    assert all(n % network.multiple == 0 for crop in training.crops for n in crop)


def test_the_pictures_of_the_patches_are_named_with_their_rights(root) -> None:
    from scidiff.datasets.patches import PICTURES

    card = tomllib.loads((root / "examples/priors/patches.toml").read_text())["card"]
    text = " ".join([*card["sources"], card["held_out"]])
    assert all(name in text for name in PICTURES)
