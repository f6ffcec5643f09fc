"""Bundled priors: cards that say what they are, sizes, and denoisers that know more than a power spectrum."""

import copy

import torch

from scidiff.datasets import head_phantom
from scidiff.datasets.gaussian_field import GaussianFields
from scidiff.datasets.kolmogorov import KolmogorovWindows
from scidiff.datasets.slices import PhantomCrops
from scidiff.priors import DiffusionPrior, GaussianPrior, load_pretrained
from scidiff.priors.pretrained import bundled, read_card

REQUIRED = ("name", "title", "licence", "sources", "limits", "command", "source", "training", "loss_curve", "samples")


def test_cards_say_what_a_prior_is(root):
    assert {"head-mri", "head-phantom", "gaussian-field"} <= set(bundled())
    for name in bundled():
        card = read_card(name)
        missing = [key for key in REQUIRED if not card.get(key)]
        assert not missing, f"the card of {name} lacks {missing}"
        assert card["name"] == name
        assert (root / card["samples"]).exists()
        if card["network"]["kind"] == "FramesUNet":
            continue  # starts at the best linear estimate, and is compared with that below
        # Of a known random law even the exact denoiser leaves most; codes have little redundancy left.
        floor = 0.8 if "law" in card or "autoencoder" in card else 0.5
        assert card["loss_curve"][-1][1] < floor * card["loss_curve"][0][1]


def test_weights_stay_small():
    sizes = [path.stat().st_size for path in bundled().values()]
    assert max(sizes) <= 8e6 and sum(sizes) <= 60e6


def test_phantom_prior_denoises_better_than_a_wiener_filter():
    """New heads in white noise: the error of the best linear filter, fitted to 64 other heads, is at least halved."""
    prior = load_pretrained("head-phantom")
    source = PhantomCrops((128, 112), scale=float(prior.scale))
    g = torch.Generator().manual_seed(1000)
    fields = torch.stack([source(g, (64, 64)) for _ in range(72)]).double()
    known, new = fields[:64], fields[64:]
    power = torch.fft.fft2(known, norm="ortho").abs().square().mean((0, 1))
    for sigma in (0.1, 0.3, 0.5):
        noisy = new + sigma * torch.randn(new.shape, generator=g, dtype=torch.float64)
        linear = torch.fft.ifft2(torch.fft.fft2(noisy) * power / (power + sigma**2)).real
        learned = prior.denoise(noisy, torch.tensor(sigma))
        ratio = (learned - new).square().mean() / (linear - new).square().mean()
        assert ratio < 0.5, f"sigma {sigma}: {ratio:.2f}"


def test_a_phantom_is_what_the_prior_was_trained_on():
    """Fields of the source have about unit variance in the units of the prior."""
    prior = load_pretrained("head-phantom")
    image = head_phantom((128, 112), generator=torch.Generator().manual_seed(3))
    u = prior.encode(image[None, None].to(torch.complex64))
    assert 0.5 < u.square().mean().sqrt() * 2**0.5 < 2


def test_gaussian_prior_denoises_as_well_as_the_law_allows():
    """Within 1 % of the exact denoiser's error at levels from a tenth to ten times the field (3 % were aimed at)."""
    prior, source = load_pretrained("gaussian-field"), GaussianFields(alpha=1.5, tau=10.0, boundary="periodic")
    covariance = source.covariance((32, 32))
    covariance.dtype = torch.float32
    exact = GaussianPrior(torch.zeros(1, 32, 32), covariance)
    g = torch.Generator().manual_seed(2000)
    fields = exact.sample(32, g)
    for sigma in (0.1, 0.5, 2.0, 10.0):
        noisy = fields + sigma * torch.randn(fields.shape, generator=g)
        learned, best = ((p.denoise(noisy, torch.tensor(sigma)) - fields).square().mean() for p in (prior, exact))
        assert learned < 1.01 * best, f"sigma {sigma}: {learned / best:.4f}"


def test_frames_are_denoised_better_than_by_linear_estimation():
    """Held-out frames of a flow: the bundled prior is ahead of optimal interpolation, which its network starts from."""
    prior = load_pretrained("kolmogorov")
    flow = KolmogorovWindows((32, 32), trajectories=2, start=4.0, stop=6.0, seed=99)
    g = torch.Generator().manual_seed(0)
    windows = torch.stack([flow(g, (5, 32, 32)) for _ in range(32)]) * flow.scale / prior.scale
    linear = copy.deepcopy(prior.network)
    torch.nn.init.zeros_(linear.frames.tail.weight)
    torch.nn.init.zeros_(linear.frames.tail.bias)
    optimal = DiffusionPrior(linear, 1)
    for sigma, share in ((0.1, 1.0), (0.5, 0.85), (1.0, 0.8), (2.0, 0.85)):
        noisy = windows + sigma * torch.randn(windows.shape, generator=g)
        learned, best = ((p.denoise(noisy, torch.tensor(sigma)) - windows).square().mean() for p in (prior, optimal))
        assert learned < share * best < 0.6 * sigma**2, f"sigma {sigma}: {learned / best:.4f}"
