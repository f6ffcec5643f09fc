"""Phase retrieval: ambiguities, projections, a posterior by brute force, and the problem from case to scores."""

import numpy as np
import pytest
import torch

import scidiff
from scidiff import Likelihood, Posterior
from scidiff.errors import InputError
from scidiff.linalg import Stationary
from scidiff.noise import GaussianNoise
from scidiff.operators import CodedDiffraction, FourierMagnitude
from scidiff.posterior import DAPS, DPS, TDS
from scidiff.priors import GaussianPrior
from scidiff.problems.alignment import align, point_reflected
from scidiff.problems.imaging import tensor
from scidiff.problems.phase_baselines import alternating_projections, amplitude_flow, misfit, spectral_start
from scidiff.problems.phase_retrieval import PhaseRetrieval, diffract

SHAPE = (12, 16)


def prior(shape=SHAPE) -> GaussianPrior:
    cov = Stationary.power_law(shape, exponent=4.0, cutoff=1.0, variance=0.04, channels=1)
    return GaussianPrior(torch.full((1, *shape), 0.5), cov)


def problem(**arguments) -> PhaseRetrieval:
    return PhaseRetrieval(**{"shape": SHAPE, "prior": prior(), "source": "prior", "starts": 4, **arguments})


# Alignment


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_alignment_undoes_every_ambiguity(kind, generator) -> None:
    dtype = torch.complex128 if kind == "complex" else torch.float64
    x = torch.randn(1, 1, 7, 10, generator=generator, dtype=dtype)
    turn = torch.tensor(1j**0.6 if kind == "complex" else -1.0, dtype=dtype)
    variants = torch.cat(
        [x, turn * x.roll((2, -3), (-2, -1)), point_reflected(x), turn * point_reflected(x).roll(4, -1)]
    )
    torch.testing.assert_close(align(variants, x), x.expand(4, -1, -1, -1), rtol=1e-10, atol=1e-12)
    kept = align(variants, x, phase=False, shift=False, flip=False)
    torch.testing.assert_close(kept, variants)


def test_alignment_is_the_nearest_of_all(generator) -> None:
    x, truth = torch.randn(2, 1, 1, 4, 5, generator=generator, dtype=torch.float64)
    found = float((align(x[None][0], truth[None][0]) - truth).norm())
    distances = [
        float((sign * other.roll((i, j), (-2, -1)) - truth).norm())
        for other in (x, point_reflected(x))
        for sign in (1, -1)
        for i in range(4)
        for j in range(5)
    ]
    assert found == pytest.approx(min(distances), rel=1e-12)


# Classical methods


def test_hybrid_input_output_finds_a_small_object_and_error_reduction_descends(generator) -> None:
    x = torch.zeros(1, 1, 10, 9, dtype=torch.float64)
    x[..., 1:8, 2:8] = torch.rand(7, 6, generator=generator, dtype=torch.float64)
    operator = FourierMagnitude((10, 9))
    y = operator(x)
    found = alternating_projections(operator, y, 8, 600, 200, positive=True, generator=generator)
    assert float(found.misfit.min()) < 1e-3
    assert float((align(found.best, x) - x).norm() / x.norm()) < 5e-3
    values = []
    for steps in (1, 5, 20, 80):
        start = torch.Generator().manual_seed(5)
        values.append(alternating_projections(operator, y, 1, 0, steps, positive=True, generator=start).misfit)
    assert all(bool(b <= a) for a, b in zip(values, values[1:], strict=False))


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("power", [1, 2])
def test_coded_patterns_are_solved_from_the_spectral_start(real, power, generator) -> None:
    dtype = torch.float64 if real else torch.complex128
    x = torch.randn(1, 1, 8, 9, generator=generator, dtype=dtype)
    operator = CodedDiffraction.random((8, 9), 6, generator, power=power)
    y = operator(x)
    start = spectral_start(operator, y, real=real, generator=generator)
    overlap = (start.conj() * x).sum().abs() / start.norm() / x.norm()
    assert float(overlap) > 0.6 and float(start.norm()) == pytest.approx(float(x.norm()), rel=1e-6)
    found = amplitude_flow(operator, y, 600, real=real, generator=generator)
    assert float(found.misfit) < 1e-4
    near = align(found.best, x, shift=False, flip=False)
    assert float((near - x).norm() / x.norm()) < 1e-3


# The posterior by brute force: three unknowns on a grid of 90^3 points


def test_samplers_against_quadrature() -> None:
    seed = torch.Generator().manual_seed
    cov = torch.tensor([[1.0, 0.4, 0.1], [0.4, 0.8, 0.3], [0.1, 0.3, 1.2]]).double()
    law = GaussianPrior(torch.tensor([[0.6, 0.3, -0.2]]).double(), cov)
    operator, noise = FourierMagnitude((3,)), GaussianNoise(0.3)
    y = noise.sample(operator(law.sample(1, seed(3))), seed(4))
    axis = torch.linspace(-4.5, 4.5, 90).double()
    grid = torch.cartesian_prod(axis, axis, axis).reshape(-1, 1, 3)
    log = torch.cat([law.log_prob(x) + noise.log_prob(y, operator(x)) for x in grid.chunk(16)])
    weights = torch.softmax(log, 0)
    mean = (weights[:, None] * grid[:, 0]).sum(0)
    std = (weights[:, None] * (grid[:, 0] - mean).square()).sum(0).sqrt()
    posterior = Posterior(law, Likelihood(operator, noise, y))
    for sampler, members, off, ratio in (
        (TDS(particles=4096, steps=200), 4096, 0.2, 0.12),
        (DAPS(steps=16, moves=4, lanczos=3, tolerance=0.0), 64, 0.45, 0.3),
    ):
        x = sampler(posterior, members=members, generator=seed(1)).samples[:, 0, 0]
        assert float(((x.mean(0) - mean) / std).abs().max()) < off, sampler
        assert float((x.std(0) / std - 1).abs().max()) < ratio, sampler


# The problem


def test_the_fine_simulation_converges_to_the_operator(generator) -> None:
    """A smooth object inside the frame: the detector sees of the fine grid what the operator says of the truth."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, 2 * n).double() for n in (24, 32)), indexing="ij")
    fine = torch.exp(-8 * ((y - 0.1).square() + 1.5 * (x + 0.05).square())) * (1 + 0.5 * x)
    wave, truth = diffract(fine[None, None], (24, 32), 2.0)
    torch.testing.assert_close(
        FourierMagnitude((24, 32))(truth), wave.abs(), rtol=0, atol=2e-3 * float(wave.abs().max())
    )
    assert float((FourierMagnitude((24, 32))(truth) - wave.abs()).norm() / wave.norm()) < 1e-3
    phases = 6.28 * torch.rand(2, 24, 32, generator=generator, dtype=torch.float64)
    wave, truth = diffract(fine[None, None], (24, 32), 1.0, phases)
    operator = CodedDiffraction(torch.polar(torch.ones_like(phases), phases), fill=1.0)
    assert float((operator(truth) - wave.abs()).norm() / wave.norm()) < 0.03


@pytest.mark.parametrize(
    "arguments", [{"noise": 0.15}, {"masks": 3}, {"photons": 300.0}, {"masks": 2, "photons": 300.0}]
)
def test_cases_fit_their_posterior(arguments) -> None:
    p = problem(**arguments)
    case = p.case(2)
    assert case.truth.identical(p.case(2).truth) and not case.truth.equals(p.case(3).truth)
    observation = p.read(case.observation)
    part = p.posterior(observation).likelihood
    x = tensor(case.truth["image"])[None, None]
    z = part.operator(x)
    variance = part.noise.std**2 if part.whitens else part.noise.variance(z)
    assert 0.8 < float(((part.y - z).square() / variance).mean()) < 1.6
    found = p.check(observation)
    assert found["warnings"] == [] and found["residual"] < 0.2
    assert p.read(observation).equals(observation)


def test_members_are_scored_up_to_the_ambiguities() -> None:
    p = problem()
    case = p.case(0)
    x = tensor(case.truth["image"])[None, None]
    noisy = x + 0.02 * torch.randn(6, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    moved = torch.stack([point_reflected(f).roll(i, -1) if i % 2 else f.roll(i, -2) for i, f in enumerate(noisy)])
    scores = p.evaluate(scidiff.Ensemble(moved[:, None]), case.truth)
    assert float(scores["success_rate"]) == 1
    assert float(scores["rmse"]) == pytest.approx(0.02 / 6**0.5, rel=0.2)
    coded = problem(masks=2)
    assert float(coded.evaluate(scidiff.Ensemble(moved[:, None]), case.truth)["success_rate"]) < 0.5


def test_reconstruct_beats_the_classical_answer_behind_masks() -> None:
    p = problem(masks=2, noise=0.2)
    case = p.case(1)
    result = scidiff.reconstruct(p, case.observation, sampler=DPS(steps=60, zeta=1.0), members=4, truth=case.truth)
    scores = p.evaluate(result, case.truth)
    assert float(scores["psnr"]) > float(scores["psnr_amplitude_flow"])
    assert 0 < float(scores["chi2"]) < 2
    assert result["image"].dims == ("member", "y", "x")
    assert p.plot(result) is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.isel(fy=slice(3)), "needs"),
        (lambda o: o.drop_vars("pattern"), "expected a variable 'pattern'"),
        (lambda o: o.assign(pattern=o["pattern"] * np.nan), "units|no number"),
        (lambda o: np.zeros((2, 3, 4)), "expected dimensions"),
    ],
)
def test_wrong_observations_are_named(change, message) -> None:
    p = problem()
    with pytest.raises(InputError, match=message):
        p.read(change(p.case(0).observation))


def test_missing_masks_and_scales_are_named() -> None:
    for arguments, name in (({"masks": 2}, "mask_phase"), ({"photons": 9.0}, "photon_scale")):
        p = problem(**arguments)
        with pytest.raises(InputError, match=name):
            p.read(p.case(0).observation.drop_vars(name))
    for arguments in ({"source": "moon"}, {"masks": -1}, {"photons": 0.0}, {"noise": 0.0}, {"shape": (2, 2)}):
        with pytest.raises(ValueError):
            problem(**arguments)


def test_an_array_is_enough_for_one_pattern() -> None:
    p = problem()
    case = p.case(0)
    read = p.read(case.observation["pattern"].values)
    assert float(read["noise_std"]) == pytest.approx(float(case.observation["noise_std"]), rel=0.02)
    x = tensor(case.truth["image"])[None, None]
    assert float(misfit(p.operator(read), x, p.measurement(read))) < 0.1
