"""The linear Gaussian chain: Kalman's answers against the dense posterior of the whole trajectory."""

import math

import pytest
import torch

from scidiff.assimilation import AtTimes, LinearGaussianChain, Observations, kalman_smoother, on_grid
from scidiff.errors import InputError
from scidiff.noise import GaussianNoise
from scidiff.operators import LinearMap

L, STEPS = 9, (1, 4, 5, 8)


def chain() -> LinearGaussianChain:
    """Three numbers, not symmetric, with an offset."""
    F = torch.tensor([[0.8, 0.3, 0.0], [-0.3, 0.7, 0.1], [0.0, 0.2, 0.5]])
    Q = torch.tensor([[0.5, 0.1, 0.0], [0.1, 0.3, 0.05], [0.0, 0.05, 0.4]])
    return LinearGaussianChain(F, Q, torch.tensor([0.2, -0.1, 1.0]))


def record(law: LinearGaussianChain, generator: torch.Generator, rows: int = 2) -> Observations:
    operator = LinearMap(torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]], dtype=torch.float64))
    noise = GaussianNoise(torch.tensor([0.3, 0.5], dtype=torch.float64))
    y = noise.sample(AtTimes(operator, STEPS, L)(law.sample(rows, L, generator)), generator)
    return Observations(STEPS, operator, noise, y)


def test_smoother_is_the_dense_posterior(generator) -> None:
    law, d = chain(), 3
    obs = record(law, generator)
    found, prior, likelihood = law.posterior(obs, L), law.trajectory(L), obs.likelihood(L)
    for b in range(2):
        exact = prior.condition(likelihood.operator, obs.noise, obs.y[b])
        blocks = exact.covariance.reshape(d, L, d, L).permute(1, 3, 0, 2)
        assert torch.allclose(found.mean[b], exact.mean.mT, atol=1e-12)
        assert torch.allclose(found.cov[b], blocks[range(L), range(L)], atol=1e-12)
        assert torch.allclose(found.cross[b], blocks[range(L - 1), range(1, L)], atol=1e-12)
        z = AtTimes(obs.operator, STEPS, L)
        matrix = z(torch.eye(d * L, dtype=torch.float64).reshape(-1, d, L)).flatten(1).mT
        cov = matrix @ prior.covariance @ matrix.mT + torch.diag(
            torch.tensor([0.09, 0.25], dtype=torch.float64).repeat(len(STEPS))
        )
        law_of_y = torch.distributions.MultivariateNormal(matrix @ prior.mean.flatten(), cov)
        assert math.isclose(float(found.log_evidence[b]), float(law_of_y.log_prob(obs.y[b].flatten())), rel_tol=1e-11)


def test_the_filter_at_the_last_state_is_the_smoother_and_knows_no_future(generator) -> None:
    law = chain()
    obs = record(law, generator)
    found, short = law.posterior(obs, L), law.posterior(obs.between(0, 5), L)
    assert torch.equal(found.filter_mean[:, -1], found.mean[:, -1])
    assert torch.equal(found.filter_mean[:, :5], short.filter_mean[:, :5])
    assert not torch.allclose(found.mean[:, :5], short.mean[:, :5], atol=1e-3)


def test_draws_have_the_joint_law(generator) -> None:
    law = chain()
    obs, n = record(law, generator, 1), 20_000
    found = law.posterior(obs, L)
    x = found.sample(n, generator)[:, 0]
    cov = law.trajectory(L).condition(obs.likelihood(L).operator, obs.noise, obs.y).covariance
    drawn = torch.cov(x.movedim(1, 2).flatten(1).mT)
    size = cov.diagonal().sqrt()
    assert float(((drawn - cov) / (size[:, None] * size)).abs().max()) < 5 / math.sqrt(n)
    assert float(((x.mean(0) - found.mean[0]) / size.reshape(3, L).mT).abs().max()) < 4.5 / math.sqrt(n)


def test_a_number_that_is_nan_is_as_if_never_observed(generator) -> None:
    law = chain()
    H, R = torch.eye(3).double()[:2], torch.tensor([[0.5, 0.2], [0.2, 0.4]]).double()
    y = torch.randn(2, L, 2, generator=generator, dtype=torch.float64)
    y[0, 2, 1] = y[1, 3] = torch.nan
    found = kalman_smoother(law, H, R, y)
    for b in range(2):
        seen = y[b].isfinite().flatten()
        prior = law.trajectory(L)
        matrix = torch.einsum("mi,ts->tmis", H, torch.eye(L).double()).reshape(2 * L, 3 * L)[seen]
        cov = torch.block_diag(*[R] * L)[seen][:, seen]
        S = matrix @ prior.covariance @ matrix.mT + cov
        r = y[b].flatten()[seen] - matrix @ prior.mean.flatten()
        mean = prior.mean.flatten() + prior.covariance @ matrix.mT @ torch.linalg.solve(S, r)
        assert torch.allclose(found.mean[b].mT.flatten(), mean, atol=1e-12)
        log = torch.distributions.MultivariateNormal(torch.zeros(len(r)).double(), S).log_prob(r)
        assert math.isclose(float(found.log_evidence[b]), float(log), rel_tol=1e-11)
    assert torch.allclose(kalman_smoother(law, H, R, y[1:]).mean[0], found.mean[1], atol=1e-14)


def test_stationary_windows_have_one_law() -> None:
    law = chain()
    long, window = law.trajectory(7), law.window(3)
    inner = long.covariance.reshape(3, 7, 3, 7)[:, 2:5, :, 2:5].reshape(9, 9)
    assert torch.allclose(inner, window.covariance, atol=1e-13)
    assert math.isclose(long.scale, window.scale, rel_tol=1e-13)


def test_bad_chains_are_refused() -> None:
    F, Q = 0.5 * torch.eye(2), torch.eye(2)
    with pytest.raises(ValueError, match="Q is a singular covariance"):
        LinearGaussianChain(F, torch.ones(2, 2))
    with pytest.raises(ValueError, match="spectral radius 1.2"):
        LinearGaussianChain(1.2 * torch.eye(2), Q)
    started = LinearGaussianChain(1.2 * torch.eye(2), Q, mean0=torch.zeros(2), cov0=Q)
    with pytest.raises(ValueError, match="stationary law"):
        started.window(3)
    with pytest.raises(FloatingPointError, match="observation noise .*singular"):
        kalman_smoother(LinearGaussianChain(F, Q), torch.eye(2), torch.ones(2, 2), torch.zeros(1, 4, 2))


def test_times_off_the_grid_are_named() -> None:
    assert on_grid([0.0, 0.05, 0.2], 0.025, 9) == (0, 2, 8)
    with pytest.raises(InputError, match="observation time 0.06 is off the grid.*0.05 and 0.075"):
        on_grid([0.0, 0.06], 0.025, 9)
    with pytest.raises(InputError, match="steps 0 to 8"):
        on_grid([0.225], 0.025, 9)
    with pytest.raises(InputError, match="must increase"):
        on_grid([0.05, 0.05], 0.025, 9)


def test_the_trajectory_operator_has_an_exact_adjoint(generator) -> None:
    from scidiff.testing import check_adjoint

    operator = AtTimes(LinearMap(torch.randn(2, 12, generator=generator), (3, 4)), (0, 3), 5)
    check_adjoint(operator, (3, 5, 4), generator=generator)
