"""The learned prior: preconditioning against the exact denoiser of white noise, units, complex fields, weight files."""

import json
import pickle  # noqa: TID251 - what must be refused

import pytest
import torch

from scidiff.errors import InputError
from scidiff.nn import UNet
from scidiff.priors.diffusion import DiffusionPrior
from scidiff.priors.pretrained import load_pretrained, save_pretrained


class _Zero(torch.nn.Module):
    def forward(self, x, label):
        return torch.zeros_like(x)


class _Record(torch.nn.Module):
    def forward(self, x, label):
        self.x, self.label = x, label
        return x


def test_a_silent_network_is_the_denoiser_of_white_noise(generator):
    """E[u0 | u] = u / (1 + sigma^2) for white u0 of unit variance: the network's part is the deviation from it."""
    prior = DiffusionPrior(_Zero(), channels=1)
    u = torch.randn(4, 1, 3, 5, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.01, 0.3, 2.0, 80.0], dtype=torch.float64)
    expected = u / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)
    torch.testing.assert_close(prior.denoise(u, sigma), expected)
    torch.testing.assert_close(prior.denoise(u, torch.tensor(0.3))[1], expected[1], rtol=1e-6, atol=1e-7)


def test_the_network_sees_unit_variance_at_every_level(generator):
    network = _Record()
    prior = DiffusionPrior(network, channels=1)
    for sigma in (0.01, 1.0, 80.0):
        u0 = torch.randn(64, 1, 16, 16, generator=generator)
        prior.denoise(u0 + sigma * torch.randn(u0.shape, generator=generator), torch.tensor(sigma))
        assert network.x.std().item() == pytest.approx(1, abs=0.03)
        torch.testing.assert_close(network.label, torch.full((64,), sigma).log() / 4)


@pytest.mark.parametrize("complex_", [False, True])
def test_decode_and_encode_are_inverse(complex_, generator):
    prior = DiffusionPrior(_Zero(), 4, loc=torch.tensor([3.0, -1.0]), scale=torch.tensor([5.0, 0.5]), complex=True)
    if not complex_:
        prior = DiffusionPrior(_Zero(), 4, loc=280.0, scale=5.0)
    u = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    x = prior.decode(u)
    assert x.shape == ((2, 2, 3, 5) if complex_ else u.shape)
    torch.testing.assert_close(prior.encode(x), u)
    torch.testing.assert_close(prior.rescaled(7.0).decode(u), 7 * x)
    if complex_:
        torch.testing.assert_close(x[:, 1], -1 + 0.5 * torch.complex(u[:, 2], u[:, 3]))


def test_guidance_never_asks_for_gradients_of_weights():
    prior = DiffusionPrior(UNet(2, width=(8,), blocks=1, embedding=8), channels=2)
    assert not any(p.requires_grad for p in prior.network.parameters())


@pytest.fixture
def weights(tmp_path):
    card = {"channels": 2, "loc": 0.0, "scale": 0.25, "complex": True, "units": "1"}
    save_pretrained(UNet(2, width=(8, 8), blocks=1, embedding=8, patch=2), tmp_path / "p.safetensors", card)
    return tmp_path / "p.safetensors"


def test_weights_and_card_come_back(weights, generator):
    prior = load_pretrained(weights)
    assert (prior.channels, prior.complex, float(prior.scale)) == (2, True, 0.25)
    assert prior.network.config["width"] == (8, 8)
    u = torch.randn(1, 2, 6, 7, generator=generator)
    torch.testing.assert_close(
        prior.denoise(u, torch.tensor(0.5)), load_pretrained(weights).denoise(u, torch.tensor(0.5))
    )
    assert len(prior.card["sha256"]) == 64


def test_a_missing_prior_names_the_choices():
    with pytest.raises(InputError, match="no prior 'nonsense'.*scidiff list priors"):
        load_pretrained("nonsense")


def test_a_pickle_is_refused_unopened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    for name in ("w.pt", "w.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(InputError, match="never loaded"):
            load_pretrained(tmp_path / name)
    torch.save({"a": torch.zeros(1)}, tmp_path / "archive.safetensors")
    with pytest.raises(InputError, match="never loaded"):
        load_pretrained(tmp_path / "archive.safetensors")
    assert not (tmp_path / "opened").exists()


def test_broken_weights_are_named(weights):
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="expected safetensors weights"):
        load_pretrained(weights)


def test_weights_that_do_not_fit_the_card(weights):
    card = json.loads(weights.with_suffix(".json").read_text())
    card["network"]["width"] = [8, 16]
    weights.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="do not fit the network of the card"):
        load_pretrained(weights)
    weights.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"expected the card p\.json"):
        load_pretrained(weights)
