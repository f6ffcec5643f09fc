"""Conditional diffusion: with the exact denoiser, the exact predictive law."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from scidiff.forecast import ConditionalDenoiser, ConditionalDiffusion
from scidiff.forecast.sampler_card import describe_sampler, make_sampler
from scidiff.rng import Streams
from scidiff.samplers import DDPM, DPMSolver, Heun, UniPC
from scidiff.schedules import cosine, karras, vp_linear
from tests.forecast.doubles import network
from tests.forecast.exact_block import GRID, ExactDenoiser, block_covariance, block_mean

H, ROWS = 3, 4000
SCALE = torch.tensor([[0.5], [0.8], [1.2]])


def exact(target: str = "residual", scale: torch.Tensor = SCALE, **options: object) -> ConditionalDiffusion:
    return ConditionalDiffusion(ExactDenoiser(H, target, scale), H, target=target, scale=scale, **options)  # type: ignore[arg-type]


@pytest.fixture
def state(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(1, 1, 1, *GRID, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("target", "sampler"),
    [("residual", UniPC(20)), ("state", UniPC(20)), ("residual", DPMSolver(40)), ("residual", Heun(99))],
    ids=["residual", "state", "dpm", "heun"],
)
def test_draws_have_the_exact_predictive_law(target: str, sampler, state: torch.Tensor) -> None:
    states, streams = state.expand(ROWS, -1, -1, -1, -1), Streams(3, range(ROWS))
    drawn = exact(target, sampler=sampler).sample(states, generator=streams)
    assert drawn.shape == (ROWS, H, 1, *GRID)
    x, mean, cov = drawn.flatten(1), block_mean(state[:, 0, 0], H).flatten(), block_covariance(H)
    std = cov.diagonal().sqrt()
    # Starting from pure noise of level 80 forgets 1/80 of the mean of z; the rest is Monte-Carlo error.
    forgotten = block_mean(state[:, 0, 0], H).abs().max() / 80
    assert ((x.mean(0) - mean).abs() - 2 * forgotten).div(std).max() < 4 / math.sqrt(ROWS)
    error = (torch.cov(x.mT) - cov) / torch.outer(std, std)  # all covariances, over space and leads
    assert error.abs().max() < 5 * math.sqrt(2 / ROWS)


def test_five_ancestral_steps_are_too_narrow_whatever_the_network(state: torch.Tensor) -> None:
    """The exact denoiser does not help: most of the variance is lost between five levels."""
    states, streams = state.expand(500, -1, -1, -1, -1), Streams(3, range(500))
    drawn = exact(sampler=DDPM(5)).sample(states, generator=streams)
    ratio = drawn.flatten(1).var(0) / block_covariance(H).diagonal()
    assert 0.2 < ratio.mean() < 0.4


def test_both_targets_carry_a_draw_to_the_same_states(state: torch.Tensor) -> None:
    one = torch.ones(H, 1)
    both = [exact(t, one, sampler=Heun(59)).sample(state, generator=Streams(0, [4])) for t in ("residual", "state")]
    # The same noise at the first level 80 starts them x / 80 apart, which is all that is left of a difference.
    assert (both[0] - both[1]).abs().max() < 0.02 * state.abs().max()
    assert both[0].std() > 0.3


def test_rows_do_not_depend_on_each_other_and_seeds_decide(state: torch.Tensor) -> None:
    states = torch.cat([state, 2 * state, -state])
    model = exact()
    together = model.sample(states, generator=Streams(5, [1, 2, 6]))
    torch.testing.assert_close(together[1:2], model.sample(states[1:2], generator=Streams(5, [2])))
    again = model.sample(states, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again, model.sample(states, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(again, model.sample(states, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize(("sampler", "calls"), [(Heun(20), 19), (Heun(39), 39), (DPMSolver(25), 25), (DDPM(5), 5)])
def test_network_calls_are_exact(sampler, calls: int, state: torch.Tensor) -> None:
    model = exact(sampler=sampler)
    model.sample(state, generator=Streams(0, [0]))
    assert model.network_calls == model.denoiser.calls == calls


def test_the_network_sees_past_forcings_and_label(generator: torch.Generator) -> None:
    """Window 2, two channels, one forcing: z (6), past (4), forcing at 5 times; the label is ln(sigma) / 4."""
    net = network(6 + 4 + 5, 6, horizon=3)
    model = ConditionalDiffusion(ConditionalDenoiser(net), 3, 2, sampler=Heun(3))
    assert model.inputs(2, 1) == 15
    state = torch.randn(2, 2, 2, 5, 8, generator=generator, dtype=torch.float64)
    forcing = torch.randn(2, 5, 1, 5, 8, generator=generator, dtype=torch.float64)
    z = torch.randn(2, 6, 5, 8, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    condition = model.condition(state, None, forcing, torch.ones(2, 2))
    s = sigma.reshape(2, 1, 1, 1)
    inside = torch.cat([z / (1 + s**2).sqrt(), state.flatten(1, 2), forcing.flatten(1, 2)], 1)
    told = sigma.log() / 4 * 3  # the network divides by its horizon
    expected = z / (1 + s**2) + s / (1 + s**2).sqrt() * net(inside, told)
    torch.testing.assert_close(model.denoiser(z, sigma, condition), expected)
    leads: list[float] = []
    drawn = model.sample(state, forcing, correct=lambda x, lead: (leads.append(lead), 0 * x + lead)[1])
    assert leads == [1, 2, 3] and drawn[1, :, 1, 2, 3].tolist() == leads


def test_encoding_is_undone(generator: torch.Generator) -> None:
    block, last = torch.randn(2, H, 2, 3, 4, generator=generator), torch.randn(2, 2, 3, 4, generator=generator)
    scale = [[0.5, 1.0], [0.8, 2.0], [1.2, 3.0]]
    for target in ("residual", "state"):
        model = ConditionalDiffusion(torch.nn.Identity(), H, target=target, scale=scale)
        z = model.encode(block, last)
        shift = last[:, 1] if target == "residual" else 0
        torch.testing.assert_close(z[:, 3], (block[:, 1, 1] - shift) / 2)  # lead 2, channel 1
        torch.testing.assert_close(model.decode(z, last), block)


def test_a_masked_model_predicts_interpolates_and_generates(generator: torch.Generator) -> None:
    model = ConditionalDiffusion(torch.nn.Identity(), 2, 2, sampler=Heun(3), target="state", future=1, masked=True)
    channels = model.inputs(2)
    assert channels == (2 + 2 + 1) * 2 + 2
    model.denoiser = ConditionalDenoiser(network(channels, 4, horizon=2))
    past, other = torch.randn(2, 3, 2, 2, 5, 8, generator=generator, dtype=torch.float64)
    future = torch.randn(3, 1, 2, 5, 8, generator=generator, dtype=torch.float64)

    given = model.condition(past, future, None, torch.tensor([[1, 1], [1, 0], [0, 1]]))
    assert torch.equal(given[:2, :4], past[:2].flatten(1, 2)) and given[2, :4].abs().max() == 0
    assert torch.equal(given[[0, 2], 4:6], future[[0, 2], 0]) and given[1, 4:6].abs().max() == 0
    assert given[:, 6:, 0, 0].tolist() == [[1, 1], [1, 0], [0, 1]]

    def draw(past, future=None, **options):  # noqa: ANN001, ANN202
        return model.draw(past, future, generator=Streams(0, range(3)), **options)

    assert torch.equal(draw(past), model.sample(past, generator=Streams(0, range(3))))
    for one, two in ((draw(past), draw(other)), (draw(past), draw(past, future)), (draw(None, future), draw(past))):
        assert (one - two).abs().max() > 1e-3
    model.float()
    free = draw(None, shape=(3, 2, 5, 8))
    assert free.shape == (3, 2, 2, 5, 8) and free.dtype == torch.float32 and free.std() > 0


def test_samplers_survive_a_card() -> None:
    for sampler in (
        Heun(39),
        Heun(21, schedule=functools.partial(karras, sigma_max=20.0), S_churn=1.0),
        DDPM(5, schedule=vp_linear),
        DPMSolver(30, schedule=cosine, stochastic=True),
    ):
        again = make_sampler(describe_sampler(sampler))
        assert repr(again) == repr(sampler) and again.levels() == sampler.levels()
    with pytest.raises(TypeError, match="cannot be kept"):
        describe_sampler(Heun(9, schedule=lambda n: karras(n)))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ConditionalDiffusion(torch.nn.Identity(), 0), "horizon and window"),
        (lambda: ConditionalDiffusion(torch.nn.Identity(), 2, target="noise"), "target must be"),
        (lambda: ConditionalDiffusion(torch.nn.Identity(), 2, masked=True), 'target="state"'),
        (lambda: ConditionalDiffusion(torch.nn.Identity(), 2, future=1), "masked=True"),
        (lambda: ConditionalDiffusion(torch.nn.Identity(), 2, scale=[[1.0]]), r"\(2, channels\)"),
        (lambda: ConditionalDiffusion(torch.nn.Identity(), 2, scale=-1.0), "positive"),
        (lambda: exact().draw(None, shape=(1, 1, 3, 4)), "kind mcvd"),
        (lambda: make_sampler({"kind": "heun"}), "expected one of DDIM"),
        (lambda: make_sampler({"kind": "Heun", "stages": 3}), "stages"),
        (lambda: make_sampler({"kind": "Heun", "schedule": "edm"}), "expected one of cosine"),
    ],
)
def test_bad_arguments(make, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()
