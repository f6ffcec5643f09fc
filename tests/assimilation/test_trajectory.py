"""Windows composed into long trajectories, against the exact law of the chain."""

import math

import pytest
import torch

from scidiff.assimilation import AtTimes, LinearGaussianChain, Observations, TrajectoryPrior, WindowMixture
from scidiff.inference import Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators import Mask
from scidiff.posterior import MMPS, SDA
from scidiff.priors import GaussianMixturePrior, GaussianPrior
from scidiff.samplers import DPMSolver, PredictorCorrector

SPRING = LinearGaussianChain.damped_spring()


def noised(length: int, sigma: float, generator: torch.Generator) -> tuple[GaussianPrior, torch.Tensor]:
    exact = SPRING.trajectory(length)
    u = exact.encode(SPRING.sample(64, length, generator))
    return exact, u + sigma * torch.randn(u.shape, generator=generator, dtype=u.dtype)


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_composition_error_falls_with_the_window(sigma: float, generator) -> None:
    exact, u = noised(24, sigma, generator)
    level = torch.tensor(sigma)
    truth = exact.denoise(u, level)
    errors = []
    for k in (1, 2, 4, 8):
        found = TrajectoryPrior(SPRING.window(2 * k + 1), k, 24).denoise(u, level)
        errors.append(float((found - truth).norm() / truth.norm()))
    ratio = [b / a for a, b in zip(errors, errors[1:], strict=False)]  # for 1, 2 and 4 states more on either side
    decay = float(torch.linalg.eigvals(SPRING.F).abs().max())
    assert all(r < decay**n for r, n in zip(ratio, (1, 2, 4), strict=True))
    assert errors[-1] < (1e-10 if sigma < 0.5 else 6e-3)


def test_the_whole_record_in_one_window_is_exact(generator) -> None:
    exact, u = noised(7, 0.7, generator)
    sigma = torch.linspace(0.3, 3, 64)
    found = TrajectoryPrior(SPRING.window(7), 3, 7)
    assert torch.allclose(found.denoise(u, sigma), exact.denoise(u, sigma), atol=1e-12)
    assert torch.allclose(found.decode(u), exact.decode(u), atol=1e-12)
    long = TrajectoryPrior(SPRING.window(5), 2, 13)
    x = SPRING.sample(3, 13, generator)
    assert torch.allclose(long.encode(x), SPRING.trajectory(13).encode(x), atol=1e-12)
    assert torch.allclose(long.decode(long.encode(x)), x, atol=1e-12)


class Counting:
    """A window prior that remembers the largest batch it saw."""

    shape, affine = (2, 5), True

    def __init__(self) -> None:
        self.prior, self.largest = SPRING.window(5), 0

    def denoise(self, u, sigma):
        self.largest = max(self.largest, len(u))
        return torch.tanh(self.prior.denoise(u, sigma))


def test_chunks_bound_memory_and_change_nothing(generator) -> None:
    window = Counting()
    u = torch.randn(3, 2, 40, generator=generator, dtype=torch.float64, requires_grad=True)
    sigma, v = torch.tensor([0.3, 1.0, 2.0]), torch.randn(3, 2, 40, generator=generator, dtype=torch.float64)
    whole, split = (TrajectoryPrior(window, 2, 40, chunk=chunk) for chunk in (1000, 7))
    D = whole.denoise(u, sigma)
    (g,) = torch.autograd.grad(D, u, v)
    assert window.largest == 3 * 36
    window.largest = 0
    E = split.denoise(u, sigma)
    (h,) = torch.autograd.grad(E, u, v, retain_graph=True)
    assert window.largest == 6
    assert torch.allclose(D, E, atol=1e-14) and torch.allclose(g, h, atol=1e-14)
    assert torch.allclose(torch.autograd.grad(E, u, 2 * v)[0], 2 * g, atol=1e-14)  # a graph is used many times
    assert torch.allclose(split.denoise(u[:1], sigma[:1]), E[:1], atol=1e-14)


def test_fields_on_a_grid_are_composed(generator) -> None:
    window = GaussianPrior(torch.zeros(2, 3, 4, 5), 1.0)
    prior = TrajectoryPrior(window, 1, 6)
    u = torch.randn(2, 2, 6, 4, 5, generator=generator)
    assert prior.shape == (2, 6, 4, 5)
    assert torch.allclose(prior.denoise(u, torch.tensor(2.0)), u / 5, atol=1e-6)
    moving = torch.arange(6.0).reshape(1, 1, 6, 1, 1).expand(2, 2, 6, 4, 5)
    assert torch.equal(prior.decode(moving), moving)


def test_mixture_of_windows_is_the_mixture_prior(generator) -> None:
    x = torch.randn(200, 2, 3, generator=generator).cumsum(-1) ** 3
    mixture = GaussianMixturePrior.fit(x, 3, generator=generator)
    fast = WindowMixture(mixture, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    u = torch.randn(5, 2, 3, generator=generator, dtype=torch.float64)
    sigma = torch.linspace(0.1, 3, 5, dtype=torch.float64)
    # The mixture prior's state is (x - mean) / scale; that of the windows is x.
    loc, c = mixture.loc, mixture.scale
    assert torch.allclose(fast.denoise(u, sigma), loc + c * mixture.denoise((u - loc) / c, sigma / c), atol=1e-9)
    assert torch.allclose(fast.denoise(u, sigma)[:1], fast.denoise(u[:1], sigma[:1]), atol=1e-13)
    assert torch.allclose(fast.encode(fast.decode(u)), u, atol=1e-13)


def record(length: int, generator: torch.Generator) -> Observations:
    operator, noise, steps = Mask(torch.tensor([True, False])), GaussianNoise(0.1), tuple(range(0, length, 6))
    y = noise.sample(AtTimes(operator, steps, length)(SPRING.sample(1, length, generator)), generator)
    return Observations(steps, operator, noise, y)


def distance(samples: torch.Tensor, exact) -> tuple[float, float]:
    """Root mean square error of the mean in posterior standard deviations; total variance over the exact one."""
    x, variance = samples.movedim(1, 2), exact.cov[0].diagonal(dim1=-2, dim2=-1)
    error = ((x.mean(0) - exact.mean[0]).square() / variance).mean().sqrt()
    return float(error), float(x.var(0).sum() / variance.sum())


def test_moment_matching_meets_the_kalman_smoother(generator) -> None:
    length, members = 16, 800
    obs = record(length, generator)
    exact = SPRING.posterior(obs, length)
    prior = TrajectoryPrior(SPRING.window(13), 6, length)
    ensemble = MMPS()(Posterior(prior, obs.likelihood(length)), members, generator)
    error, ratio = distance(ensemble.samples[:, 0], exact)
    assert error < 0.05 + 1.5 / math.sqrt(members)
    assert abs(ratio - 1) < 0.05


def test_gamma_guidance_and_langevin_corrections_run_and_come_near(generator) -> None:
    length = 16
    obs = record(length, generator)
    exact = SPRING.posterior(obs, length)
    posterior = Posterior(TrajectoryPrior(SPRING.window(9), 4, length), obs.likelihood(length))
    predictor = DPMSolver(32, stochastic=True)
    for sampler in (predictor, PredictorCorrector(predictor=predictor, corrections=2)):
        error, ratio = distance(SDA(sampler)(posterior, 128, generator).samples[:, 0], exact)
        assert error < 0.8 and 0.8 < ratio < 1.5  # the paper's guidance is not exact for smooth chains


def test_wrong_windows_and_short_records_are_refused() -> None:
    window = SPRING.window(5)
    with pytest.raises(ValueError, match="windows of 5 states.*2k \\+ 1 = 7"):
        TrajectoryPrior(window, 3, 20)
    with pytest.raises(ValueError, match="record has 4 states, fewer than the window's 2k \\+ 1 = 5"):
        TrajectoryPrior(window, 2, 4)
