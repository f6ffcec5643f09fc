"""The learned prior: preconditioning against the exact denoiser of white noise, units, complex fields, weight files."""

import json
import pickle  # noqa: TID251 - what must be refused
from dataclasses import dataclass

import pytest
import torch

from scidiff import Likelihood, Posterior
from scidiff.errors import InputError
from scidiff.nn import MPUNet, UNet
from scidiff.noise import GaussianNoise
from scidiff.operators import Mask
from scidiff.posterior import DPS
from scidiff.priors.diffusion import DiffusionPrior, precondition
from scidiff.priors.pretrained import load_pretrained, save_pretrained
from scidiff.transforms import Log, Logit, Softplus


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


TRANSFORMS = [Log(2.0), Softplus(0.3), Logit(-1.0, 4.0)]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.kind)
def test_bounded_fields_obey_their_bounds(transform, generator):
    prior = DiffusionPrior(
        _Zero(), 2, loc=torch.tensor([0.3, -1.0]), scale=torch.tensor([1.5, 0.5]), transforms=transform
    )
    u = 3 * torch.randn(2, 2, 3, 5, generator=generator, dtype=torch.float64)
    x = prior.decode(u)
    low, high = transform.bounds
    assert (x > low).all() and (x < high).all()
    torch.testing.assert_close(prior.encode(x), u, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(prior.rescaled(7.0).decode(u), 7 * x)
    torch.testing.assert_close(prior.rescaled(7.0).encode(7 * x), u, rtol=1e-8, atol=1e-8)
    with pytest.raises(InputError, match=f"for the transform '{transform.kind}'"):
        prior.encode(x - 100)


def test_channels_have_their_own_transforms(generator):
    prior = DiffusionPrior(
        _Zero(), 2, loc=torch.tensor([280.0, -1.0]), scale=torch.tensor([5.0, 0.5]), transforms=[None, Log()]
    )
    u = torch.randn(2, 2, 7, generator=generator, dtype=torch.float64)
    x = prior.decode(u)
    torch.testing.assert_close(x, torch.stack([280 + 5 * u[:, 0], (0.5 * u[:, 1] - 1).exp()], 1))
    torch.testing.assert_close(prior.rescaled(3.0).decode(u), 3 * x)
    with pytest.raises(ValueError, match="one entry per channel"):
        DiffusionPrior(_Zero(), 2, transforms=[Log()])


def test_samplers_of_linear_problems_refuse_a_transform():
    prior = DiffusionPrior(_Zero(), 1, transforms=Log())
    assert not prior.affine and DiffusionPrior(_Zero(), 1, transforms=[None]).affine
    likelihood = Likelihood(Mask(torch.tensor([True, False, True])), GaussianNoise(0.1), torch.ones(1, 1, 2))
    posterior = Posterior(prior, likelihood, shape=(1, 3))
    assert not posterior.linear
    with pytest.raises(TypeError, match="decode is affine"):
        _NeedsLinear()(posterior, members=1, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class _NeedsLinear(DPS):
    requires = frozenset({"linear"})


def test_a_condition_is_filled_in(generator):
    """The network sees field, condition and flag; guidance extrapolates from the answer without the condition."""
    network = UNet(4, 1, width=(8,), blocks=1, dims=1, embedding=8).double()
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=generator)
    prior = DiffusionPrior(network, 1, card={"condition": {"loc": [1.0, 2.0], "scale": [2.0, 4.0]}})
    u, c = (torch.randn(3, k, 6, generator=generator, dtype=torch.float64) for k in (1, 2))
    sigma = torch.tensor(0.7, dtype=torch.float64)
    z = (c - torch.tensor([1.0, 2.0]).reshape(2, 1)) / torch.tensor([2.0, 4.0]).reshape(2, 1)
    inner = lambda x, label: network(torch.cat([x, z, torch.ones_like(x)], 1), label)  # noqa: E731
    bare = lambda x, label: network(torch.cat([x, 0 * z, torch.zeros_like(x)], 1), label)  # noqa: E731
    with_it, without = precondition(inner, u, sigma), precondition(bare, u, sigma)
    torch.testing.assert_close(prior.given(c).denoise(u, sigma), with_it)
    torch.testing.assert_close(prior.given(c, 0.0).denoise(u, sigma), without)
    torch.testing.assert_close(prior.given(c, 1.7).denoise(u, sigma), without + 1.7 * (with_it - without))
    torch.testing.assert_close(prior.given(c[0]).denoise(u, sigma)[:1], with_it[:1])
    with pytest.raises(ValueError, match="takes 4 channels"):
        prior.given(c[:, :1])


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


def test_every_network_and_transform_comes_back_from_its_card(tmp_path, generator):
    network = MPUNet(2, width=(8, 8), blocks=1, dims=1, embedding=8, padding="periodic", attention=(1,))
    network.gain.data.fill_(0.5)
    transforms = [Log(3.0), None]
    card = {"channels": 2, "loc": 0.0, "scale": 1.0, "complex": False, "transforms": [Log(3.0).card, None]}
    save_pretrained(network, tmp_path / "m.safetensors", card)
    loaded, prior = load_pretrained(tmp_path / "m.safetensors"), DiffusionPrior(network, 2, transforms=transforms)
    u = torch.randn(2, 2, 8, generator=generator)
    assert torch.equal(loaded.denoise(u, torch.tensor(0.5)), prior.denoise(u, torch.tensor(0.5)))
    assert torch.equal(loaded.decode(u), prior.decode(u)) and not loaded.affine
    card["transforms"] = [{"kind": "sqrt"}, None]
    save_pretrained(network, tmp_path / "m.safetensors", card)
    with pytest.raises(InputError, match="no transform 'sqrt'"):
        load_pretrained(tmp_path / "m.safetensors")


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
