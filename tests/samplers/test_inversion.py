"""DDIM there and back: the order of the round trip, and the noise that a known law has."""

import functools
import math

import pytest
import torch

from scidiff.priors import GaussianMixturePrior, GaussianPrior
from scidiff.samplers import DDIM
from scidiff.schedules import log_linear

MEANS = torch.tensor([[-1.0, 0.4], [1.0, 0.8]], dtype=torch.float64)
COVS = torch.tensor([[[0.15, 0.05], [0.05, 0.1]], [[0.1, -0.03], [-0.03, 0.2]]], dtype=torch.float64)
MIXTURE = GaussianMixturePrior(torch.tensor([0.6, 0.4]), MEANS, COVS)
SCHEDULE = functools.partial(log_linear, sigma_min=1e-5, sigma_max=50.0)


def slope(errors, sizes):
    x, y = torch.tensor(sizes).double().log(), torch.tensor(errors).double().log()
    x, y = x - x.mean(), y - y.mean()
    return -(x @ y / (x @ x)).item()


@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_round_trip_gains_an_order_with_each_iteration(iterations):
    x, sizes, errors = MIXTURE.sample(8, torch.Generator().manual_seed(0)), [120, 240, 480], []
    for n in sizes:
        ddim = DDIM(n, SCHEDULE)
        back = ddim.decode(MIXTURE, ddim.encode(MIXTURE, x, iterations))
        errors.append((back - x).square().mean().sqrt().item())
    assert slope(errors, sizes) == pytest.approx(1 + iterations, abs=0.15), errors


def test_noise_of_a_gaussian_field_is_the_flow():
    """Up: u -> mean + sqrt((v + sigma^2) / v) (u - mean), per component; first order in the step."""
    v = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    prior = GaussianPrior(torch.tensor([280.0, 1.0, -3.0], dtype=torch.float64), v.diag())
    x = prior.sample(5, torch.Generator().manual_seed(0)).double()
    u, v = prior.encode(x), v / prior.scale**2
    truth, sizes = ((v + 50.0**2) / v).sqrt() * u, [100, 200, 400]
    errors = [((DDIM(n, SCHEDULE).encode(prior, x) - truth) / 50).abs().max().item() for n in sizes]
    assert slope(errors, sizes) == pytest.approx(1, abs=0.15), errors
    assert errors[-1] < 0.05


def test_draws_come_back_as_their_noise():
    noise = 50 * torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ddim = DDIM(200, SCHEDULE)
    again = ddim.encode(MIXTURE, ddim.decode(MIXTURE, noise), iterations=3)
    assert torch.allclose(again, noise, atol=50 * 1e-3)


def test_calls():
    seen = []

    class Counted(GaussianPrior):
        def denoise(self, u, sigma):
            seen.append(float(sigma))
            return super().denoise(u, sigma)

    prior = Counted(torch.zeros(2), torch.eye(2))
    DDIM(10, SCHEDULE).encode(prior, torch.ones(1, 2))
    assert len(seen) == 9 and math.isclose(seen[0], 1e-5, rel_tol=1e-6) and seen == sorted(seen)
    seen.clear()
    DDIM(10, SCHEDULE).encode(prior, torch.ones(1, 2), iterations=2)
    assert len(seen) == 27
