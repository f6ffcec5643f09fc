"""Bundled autoencoders and latent priors: cards that say what is lost, pairs that belong together, held-out fields."""

import tomllib

import pytest
import torch

from scidiff.datasets.sources import training_data
from scidiff.priors import LatentPrior, load_autoencoder, load_pretrained
from scidiff.priors.pretrained import bundled, bundled_autoencoders, read_card
from scidiff.training.fidelity import fidelity

REQUIRED = ("name", "title", "licence", "sources", "limits", "command", "source", "training", "loss_curve", "samples")


def test_cards_say_what_is_lost_and_which_pairs_belong_together(root):
    assert "ct-autoencoder" in bundled_autoencoders()
    for name, path in bundled_autoencoders().items():
        card = read_card(name)
        assert all(card.get(key) for key in REQUIRED) and card["name"] == name and (root / card["samples"]).exists()
        assert path.stat().st_size <= 8e6
        found = card["reconstruction"]
        assert found["fields"] == "held out" and found["psnr"] > 38
        errors = [row[2] for row in found["bands"]]
        assert max(errors[:3]) < 0.02 and errors[2:] == sorted(errors[2:])  # what is lost is lost from the fine end
        assert card["compression"] == card["stride"] ** 2 * card["channels"] / card["network"]["latent"] > 1
        tables = tomllib.loads((root / f"examples/autoencoders/{name}.toml").read_text())
        assert tables["data"] == card["data"] and all(card[k] == v for k, v in tables["card"].items())
    for name in bundled():
        card = read_card(name)
        if "autoencoder" in card:
            prior = load_pretrained(name)  # checks the identity
            assert isinstance(prior, LatentPrior) and card["autoencoder_file"] in bundled_autoencoders()
            tables = tomllib.loads((root / f"examples/autoencoders/{name}.toml").read_text())
            assert tables["codes"]["autoencoder"] == card["autoencoder_file"] and tables["data"] == card["data"]


@pytest.fixture(scope="module")
def held_out(real_data):
    pytest.importorskip("nibabel")
    card = read_card("ct-autoencoder")
    options = {**card["data"], "files": ["sts_051_ct.nii.gz"], "validation": []}
    source = training_data(folder=real_data / "ct/vol", **options)
    g = torch.Generator().manual_seed(7)
    u = torch.stack([source.source(g, (64, 64)) for _ in range(24)])
    return source.loc + source.scale * u  # Hounsfield units


def test_the_held_out_patient_comes_through_as_the_card_says(held_out):
    autoencoder = load_autoencoder("ct-autoencoder")
    u = (held_out - autoencoder.loc) / autoencoder.scale
    found, said = fidelity(autoencoder.network, u), autoencoder.card["reconstruction"]
    assert found["psnr"] > 39 and abs(found["rmse"] / said["rmse"] - 1) < 0.35
    for mine, theirs in zip(found["bands"], said["bands"], strict=True):
        assert mine[2] == pytest.approx(theirs[2], rel=0.5)
    hu = (autoencoder.decode(autoencoder.encode(held_out)) - held_out).square().mean().sqrt()
    assert hu == pytest.approx(found["rmse"] * float(autoencoder.scale), rel=1e-3)


def test_the_prior_of_codes_denoises_better_than_a_wiener_filter(held_out):
    """Codes of the held-out patient in white noise; the filter is fitted to other windows of the same patient."""
    prior = load_pretrained("ct-latent")
    z = prior.encode(held_out).double()
    known, new = z[:16], z[16:]
    mean = known.mean((0, 2, 3), keepdim=True)
    power = torch.fft.fft2(known - mean, norm="ortho").abs().square().mean(0)
    g = torch.Generator().manual_seed(1)
    for sigma in (0.2, 0.5, 1.0):
        noisy = new + sigma * torch.randn(new.shape, generator=g, dtype=torch.float64)
        linear = mean + torch.fft.ifft2(torch.fft.fft2(noisy - mean) * power / (power + sigma**2)).real
        errors = [(x - new).square().mean() for x in (prior.denoise(noisy, torch.tensor(sigma)), linear)]
        assert errors[0] < 0.9 * errors[1], f"sigma {sigma}: {errors[0] / errors[1]:.3f}"
