"""Classical methods against the Kalman smoother, and closed forms."""

import math

import pytest
import torch

from scidiff.assimilation import (
    ETKF,
    AtTimes,
    EnKF,
    FourDVar,
    LinearGaussianChain,
    Observations,
    ParticleSmoother,
    StateSpace,
    ThreeDVar,
    gaspari_cohn,
    periodic_distance,
)
from scidiff.errors import InputError, NumericalError
from scidiff.noise import GaussianNoise
from scidiff.operators import LinearMap

SPRING, L, STEPS = LinearGaussianChain.damped_spring(), 12, (2, 5, 8, 10)


@pytest.fixture
def record(generator) -> Observations:
    operator = LinearMap(torch.tensor([[1.0, 0.4]], dtype=torch.float64))
    noise = GaussianNoise(0.1)
    y = noise.sample(AtTimes(operator, STEPS, L)(SPRING.sample(1, L, generator)), generator)
    return Observations(STEPS, operator, noise, y)


def compare(x: torch.Tensor, mean: torch.Tensor, cov: torch.Tensor, factor: float = 1.0) -> None:
    """Draws (N, d, L) against means (L, d) and covariances (L, d, d), to 4.5 standard errors of independent draws."""
    x, n = x.movedim(1, 2), len(x)
    size = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    r = x - x.mean(0)
    drawn = torch.einsum("nti,ntj->tij", r, r) / (n - 1)
    assert float(((x.mean(0) - mean) / size).abs().max()) < factor * 4.5 / math.sqrt(n)
    assert float(((drawn - cov) / (size[:, :, None] * size[:, None])).abs().max()) < factor * 4.5 * math.sqrt(2 / n)


@pytest.mark.parametrize(("method", "members"), [(EnKF, 2000), (ETKF, 500)])
@pytest.mark.parametrize("smooth", [False, True])
def test_ensemble_filters_meet_kalman(method, members: int, smooth: bool, record, generator) -> None:
    exact = SPRING.posterior(record, L)
    x = method(members, smooth=smooth)(SPRING.state_space(), record, L, generator)
    mean, cov = (exact.mean, exact.cov) if smooth else (exact.filter_mean, exact.filter_cov)
    compare(x, mean[0], cov[0], 1.5)  # the gain is estimated from the same members


def test_particle_smoother_meets_kalman(record, generator) -> None:
    exact = SPRING.posterior(record, L)
    found = ParticleSmoother(4000)(SPRING.state_space(), record, L, 1000, generator)
    compare(found.samples, exact.mean[0], exact.cov[0], 1.5)
    assert abs(found.log_evidence - float(exact.log_evidence[0])) < 0.15
    x = found.samples.movedim(1, 2) - found.samples.movedim(1, 2).mean(0)
    cross = torch.einsum("nti,ntj->tij", x[:, :-1], x[:, 1:]) / len(x)
    assert float((cross - exact.cross[0]).norm() / exact.cross[0].norm()) < 0.15


def test_weak_constraint_finds_the_mode(record) -> None:
    exact = SPRING.posterior(record, L)
    found = FourDVar(SPRING.mean0, SPRING.cov0, "weak", 80)(SPRING.state_space(), record, L)
    assert torch.allclose(found[0].mT, exact.mean[0], atol=1e-6)


def test_strong_constraint_and_single_analyses_have_closed_forms(record) -> None:
    H, R, P, F = record.operator.matrix, torch.tensor([[0.01]]).double(), SPRING.cov0, SPRING.F
    perfect = StateSpace(lambda x: x @ F.mT, 0.0, lambda n, g: torch.zeros(n, 2), (2,))
    rows = torch.cat([H @ torch.linalg.matrix_power(F, t) for t in STEPS])
    S = rows @ P @ rows.mT + 0.01 * torch.eye(len(STEPS))
    x0 = P @ rows.mT @ torch.linalg.solve(S, record.y[0, :, 0])
    found = FourDVar(0 * x0, P)(perfect, record, L)
    truth = torch.stack([torch.linalg.matrix_power(F, t) @ x0 for t in range(L)], 1)
    assert torch.allclose(found[0], truth, atol=1e-6)

    x, states = 0 * x0, []
    for t in range(L):
        x = F @ x if t else x
        if t in STEPS:
            innovation = record.y[0, STEPS.index(t)] - H @ x
            x = x + P @ H.mT @ torch.linalg.solve(H @ P @ H.mT + R, innovation)
        states.append(x)
    assert torch.allclose(ThreeDVar(0 * x0, P)(perfect, record, L)[0], torch.stack(states, 1), atol=1e-6)


def test_localisation_tapers_and_inflation_widens(record, generator) -> None:
    model, none = SPRING.state_space(), torch.zeros(2, 1)
    free = EnKF(50, smooth=False, localisation=(none, torch.ones(1, 1)))(model, record, L, generator)
    assert float(free.var(0)[:, -1].sum()) > 0.5 * float(SPRING.cov0.trace())  # data change nothing
    narrow, wide = (ETKF(50, f, smooth=False)(model, record, L, torch.Generator().manual_seed(1)) for f in (1.0, 1.3))
    assert torch.allclose(wide[:, :, 2].var(0), 1.69 * narrow[:, :, 2].var(0))
    r = torch.linspace(0, 3, 301, dtype=torch.float64)
    taper = gaspari_cohn(r, 1.0)
    assert taper[0] == 1 and float(taper[200:].abs().max()) < 1e-12 and bool((taper.diff() <= 1e-12).all())
    assert float(torch.linalg.eigvalsh(gaspari_cohn(r[:, None] - r, 1.0)).min()) > -1e-9
    assert math.isclose(float(taper[100]), 5 / 24, rel_tol=1e-12)


def ring(n: int = 24) -> tuple[StateSpace, LinearGaussianChain, Observations, torch.Tensor, torch.Tensor]:
    """A field that is carried around a ring, observed at every third place."""
    distance = periodic_distance((n,), torch.arange(n)[:, None])
    smooth = torch.exp(-(distance**2) / 8)
    Q = 0.1 * smooth + 1e-3 * torch.eye(n)
    chain = LinearGaussianChain(0.9 * torch.eye(n, dtype=torch.float64).roll(1, 0), Q)
    H, noise = torch.eye(n, dtype=torch.float64)[::3], GaussianNoise(0.2)
    generator = torch.Generator().manual_seed(5)
    y = noise.sample(AtTimes(LinearMap(H), (1, 3, 5, 7), 8)(chain.sample(1, 8, generator)), generator)
    taper = gaspari_cohn(distance, 6.0)
    return chain.state_space(), chain, Observations((1, 3, 5, 7), LinearMap(H), noise, y), taper, H


@pytest.mark.parametrize("smooth", [False, True])
def test_localisation_that_cuts_nothing_is_no_localisation(smooth: bool) -> None:
    model, _, record, taper, H = ring()
    ones = torch.ones_like(taper)
    for method, local in ((EnKF, (ones @ H.mT, H @ ones @ H.mT)), (ETKF, ones @ H.mT)):
        free, cut = (
            method(30, smooth=smooth, **extra)(model, record, 8, torch.Generator().manual_seed(3))
            for extra in ({}, {"localisation": local})
        )
        assert torch.allclose(free, cut, atol=1e-9), method.__name__


def test_localisation_brings_small_ensembles_near_kalman() -> None:
    model, chain, record, taper, H = ring()
    exact = chain.posterior(record, 8)
    for method, local in ((EnKF, (taper @ H.mT, H @ taper @ H.mT)), (ETKF, taper @ H.mT)):
        errors, spreads = [], []
        for extra in ({}, {"localisation": local}):
            runs = [method(16, **extra)(model, record, 8, torch.Generator().manual_seed(s)) for s in range(12)]
            error = torch.stack([(x.mean(0).mT - exact.mean[0]).square().mean() for x in runs]).mean()
            errors.append(float(error))
            variance = torch.stack([x.var(0).mT.mean() for x in runs]).mean()
            spreads.append(float(variance / exact.cov[0].diagonal(dim1=-2, dim2=-1).mean()))
        assert errors[1] < 0.5 * errors[0], (method.__name__, errors)
        assert spreads[0] < 0.75 and spreads[0] < spreads[1] < 1.3, (method.__name__, spreads)


def test_blocks_cut_apart_are_filtered_apart() -> None:
    """Two independent halves: with the taper between them zero, many members meet the Kalman filter of each."""
    F = torch.diag(torch.tensor([0.9, 0.5], dtype=torch.float64))
    chain = LinearGaussianChain(F, torch.diag(torch.tensor([0.3, 1.0], dtype=torch.float64)))
    noise, H = GaussianNoise(0.5), torch.eye(2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    y = noise.sample(AtTimes(LinearMap(H), (1, 2, 4), 6)(chain.sample(1, 6, generator)), generator)
    record, eye = Observations((1, 2, 4), LinearMap(H), noise, y), torch.eye(2)
    exact = chain.posterior(record, 6)
    for method, local, members in ((EnKF, (eye, eye), 3000), (ETKF, eye, 600)):
        x = method(members, localisation=local)(chain.state_space(), record, 6, generator)
        compare(x, exact.mean[0], exact.cov[0], 1.5)


def test_distances_on_a_periodic_grid() -> None:
    found = periodic_distance((4, 6), torch.tensor([[0, 0], [3, 5]])).reshape(4, 6, 2)
    assert found[0, 0, 0] == 0 and found[3, 5, 1] == 0
    assert math.isclose(float(found[3, 5, 0]), math.sqrt(2)) and math.isclose(float(found[2, 3, 0]), math.sqrt(13))


def test_density_of_a_trajectory_is_that_of_its_transitions(generator) -> None:
    model = SPRING.state_space()
    x = model.simulate(3, 5, generator)
    law = torch.distributions.MultivariateNormal(x[:, :-1] @ SPRING.F.mT, SPRING.Q)
    assert torch.allclose(model.log_prob(x), law.log_prob(x[:, 1:]).sum(1))


def test_what_cannot_work_is_refused(record, generator) -> None:
    perfect = StateSpace(lambda x: x, 0.0, lambda n, g: torch.zeros(n, 2).double(), (2,))
    with pytest.raises(InputError, match="needs noise in the transitions"):
        ParticleSmoother(10)(perfect, record, L, 5, generator)
    with pytest.raises(ValueError, match="singular"):
        StateSpace(lambda x: x, torch.ones(2, 2), perfect.start, (2,))
    with pytest.raises(ValueError, match="localisation must be \\(2, 1\\)"):
        EnKF(10, localisation=(torch.ones(3, 1), torch.ones(1, 1)))(SPRING.state_space(), record, L, generator)
    with pytest.raises(ValueError, match="localisation must be \\(2, 1\\)"):
        ETKF(10, localisation=torch.ones(3, 1))(SPRING.state_space(), record, L, generator)
    blown = StateSpace(lambda x: x / 0, 1.0, lambda n, g: torch.ones(n, 2).double(), (2,))
    with pytest.raises(NumericalError, match="step 1 for members"):
        EnKF(4)(blown, record, L, generator)
    two = Observations(STEPS, record.operator, record.noise, record.y.expand(2, -1, -1))
    with pytest.raises(ValueError, match="one observed trajectory at a time, got 2"):
        ETKF(4)(perfect, two, L, generator)
