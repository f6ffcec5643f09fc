"""The reverse variance of a network in ancestral steps, against the one that is exact for unit Gaussians."""

import pytest
import torch
from torch import nn

from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators.mask import Mask
from scidiff.posterior import SDA
from scidiff.priors import DiffusionPrior, GaussianPrior
from scidiff.rng import Streams
from scidiff.samplers import DDIM, DDPM, PredictorCorrector
from scidiff.samplers.ddpm import LearnedVariance
from scidiff.schedules import karras
from scidiff.training.hybrid import log_variance


class Says(nn.Module):
    """Knows unit Gaussians: the denoiser is u / (1 + sigma^2), F = 0; ``v`` as the further outputs."""

    def __init__(self, v, outputs=2):
        super().__init__()
        self.v, self.outputs = v, outputs

    def forward(self, x, label):
        rest = torch.full_like(x, 2 * self.v - 1)
        return torch.cat([torch.zeros_like(x), rest], 1)[:, : self.outputs]


class Fixed:
    """Stands for `Streams`: row 1 + i gets 1 in draw i, all else is 0."""

    def __init__(self):
        self.draws = 0

    def randn_like(self, u):
        z = torch.zeros_like(u)
        self.draws += 1
        z[self.draws] = 1
        return z


def exact_variance(sampler, v):
    """Variance of the draws without Monte Carlo: the run is linear in all its noises."""
    u = torch.zeros(sampler.steps + 1, 1, 1, dtype=torch.float64)
    u[0] = (1 + sampler.levels()[0] ** 2) ** 0.5
    denoise = sampler.denoiser(DiffusionPrior(Says(v), channels=1), Cost())
    return sampler.integrate(denoise, u, Fixed()).square().sum().item()


@pytest.mark.parametrize("steps", [5, 20, 100])
def test_the_wide_variance_is_exact_for_unit_gaussians(steps):
    """Whatever the number of steps; the narrow one of DDPM loses 40 % in 20 of them."""
    sampler = DDPM(steps, karras, learned=True)
    assert exact_variance(sampler, 1.0) == pytest.approx(1, abs=1e-5)
    assert exact_variance(DDPM(steps, karras), 1.0) < 0.9


def test_the_narrow_variance_is_ddpm():
    for steps in (5, 20):
        learned, plain = (exact_variance(DDPM(steps, karras, learned=on), 0.0) for on in (True, False))
        assert learned == pytest.approx(plain, rel=1e-12)


def test_one_step_has_the_variance_of_the_loss():
    """The deviation of the noise is that of `HybridLoss`, between 3 and 1.2, for v = 0.3."""

    class One:
        def randn_like(self, u):
            return torch.ones_like(u)

    levels = torch.tensor([3.0, 1.2, 0.0], dtype=torch.float64)
    sampler, seen = DDPM(2, lambda n: levels, learned=True), []
    prior = DiffusionPrior(Says(0.3), channels=1)
    u = torch.full((1, 1, 4), 0.7, dtype=torch.float64)
    sampler.integrate(sampler.denoiser(prior, Cost()), u, One(), lambda i, n, s, x: seen.append(x))
    a, b = levels[:2]
    mean = u - (1 - b**2 / a**2) * (u - u / (1 + a**2))
    expected = mean + (log_variance(torch.tensor(0.3), a, b, b) / 2).exp()
    assert torch.allclose(seen[0], expected, rtol=1e-6)


def test_counts_and_members():
    prior, g = DiffusionPrior(Says(0.5), channels=1), torch.Generator().manual_seed(0)
    sampler = DDPM(12, karras, learned=True)
    four = sampler(prior, (1, 3), 4, g)
    assert four.cost.denoiser == 12
    alone = sampler(prior, (1, 3), [2], g)
    assert torch.allclose(alone.samples, four.samples[2:3], atol=1e-5)
    corrected = PredictorCorrector(predictor=sampler)(prior, (1, 3), 2, g)
    assert corrected.cost.denoiser == 12 + 11


@pytest.mark.parametrize("prior", [
    DiffusionPrior(Says(0.5, outputs=1), channels=1), GaussianPrior(torch.zeros(1, 3), torch.eye(3)),
])  # fmt: skip
def test_a_prior_without_it_is_an_error(prior):
    with pytest.raises(TypeError, match="learned"):
        DDPM(4, karras, learned=True)(prior, (1, 3), 2)


def test_posterior_samplers_have_none():
    prior = GaussianPrior(torch.zeros(1, 3), torch.eye(3))
    data = Likelihood(Mask(torch.tensor([True, False, True])), GaussianNoise(0.1), torch.zeros(1, 1, 2))
    with pytest.raises(TypeError, match="learned"):
        SDA(DDPM(4, karras, learned=True))(Posterior(prior, data), 2)


def test_denoiser_of_other_samplers_is_plain():
    prior, cost = DiffusionPrior(Says(0.5), channels=1), Cost()
    assert not isinstance(DDIM(4).denoiser(prior, cost), LearnedVariance)
    u = DDIM(4).integrate(DDIM(4).denoiser(prior, cost), torch.ones(1, 1, 3), Streams(0, [0]))
    assert cost.denoiser == 4 and u.shape == (1, 1, 3)
