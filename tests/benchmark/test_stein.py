"""The score of a posterior against its closed form, and what it says of members."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from scidiff.benchmark.exact import exponential
from scidiff.benchmark.stein import posterior_score, stein_test
from scidiff.inference import Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators import BlackBox, Mask
from scidiff.posterior import MMPS
from scidiff.priors import GaussianPrior

F64 = torch.float64
PRIOR = GaussianPrior(torch.full((1, 4, 4), 280.0, dtype=F64), 25 * exponential(4))
OPERATOR, NOISE = Mask(torch.arange(16).reshape(4, 4) % 2 == 0), GaussianNoise(2.0)
Y = NOISE.sample(OPERATOR(PRIOR.sample(1, Generator().manual_seed(0))), Generator().manual_seed(1))
POSTERIOR, EXACT = Posterior(PRIOR, Likelihood(OPERATOR, NOISE, Y)), PRIOR.condition(OPERATOR, NOISE, Y)


def test_score_of_a_gaussian_posterior():
    u = torch.randn(70, 1, 4, 4, generator=Generator().manual_seed(2), dtype=F64)
    x = PRIOR.decode(u).requires_grad_()
    (exact,) = torch.autograd.grad(EXACT.log_prob(x).sum(), x)
    scale = PRIOR.decode(torch.ones_like(u)) - PRIOR.decode(torch.zeros_like(u))
    found = posterior_score(POSTERIOR, u, sigma=1e-4)
    torch.testing.assert_close(found, exact * scale, rtol=1e-5, atol=1e-5)


def test_exact_and_sampled_members_pass_and_a_halved_spread_does_not():
    exact = EXACT.sample(300, Generator().manual_seed(3))
    assert stein_test(POSTERIOR, exact, 1e-3).p_value > 0.05
    drawn = MMPS()(POSTERIOR, 300, Generator().manual_seed(4)).samples
    assert stein_test(POSTERIOR, drawn, 1e-3).p_value > 0.05
    assert stein_test(POSTERIOR, exact.mean(0) + 0.5 * (exact - exact.mean(0)), 1e-3).p_value < 0.01
    assert stein_test(POSTERIOR, PRIOR.sample(300, Generator().manual_seed(5)), 1e-3).p_value < 0.01


def test_refusals():
    u = torch.zeros(4, 1, 4, 4, dtype=F64)
    with pytest.raises(ValueError, match="one observation"):
        posterior_score(Posterior(PRIOR, Likelihood(OPERATOR, NOISE, Y.expand(2, -1, -1))), u)
    box = Posterior(PRIOR, Likelihood(BlackBox(OPERATOR), NOISE, Y))
    with pytest.raises(TypeError, match="black box"):
        posterior_score(box, u)
