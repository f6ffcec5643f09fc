"""DYffusion against an independent reading of its algorithm, and what it promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from scidiff.forecast import DYffusion, Interpolator, Predictor
from scidiff.rng import Streams
from tests.forecast.doubles import GRID, dyffusion, network


class Given:
    """Hands out one mask."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def rand(self, shape: tuple[int, ...], device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        assert tuple(shape) == tuple(self.mask.shape[1:])
        return self.mask


def reading(
    model: DYffusion, x_t: Tensor, draws: Streams, times: list[float], shared: bool, noisy: bool
) -> list[Tensor]:
    """The algorithm as in the paper, one row, one network call at a time, on the networks' weights."""
    h, I, F = model.horizon, model.interpolator.network, model.forecaster.network  # noqa: E741, N806
    mask: Callable[[], Given] = lambda: Given(draws.rand((6, *GRID)))  # noqa: E731
    t: Callable[[float], Tensor] = lambda v: torch.tensor([v], dtype=torch.float64)  # noqa: E731

    def inter(e: Tensor, i: float, xi: Given) -> Tensor:
        return (1 - i / h) * x_t + i / h * e + I(torch.cat([x_t, e], 1), t(i), xi)

    def ahead(x: Tensor, n: int) -> Tensor:
        c = {"none": [], "data": [x_t]}.get(model.conditioning)
        if c is None:
            w = n / (len(times) - 1)
            c = [w * x_t + (1 - w) * draws.randn(x_t.shape[1:], dtype=torch.float64)]
        return x + F(torch.cat([x, *c], 1), t(times[n]))

    x, out = x_t, {}
    for n in range(len(times)):
        e = ahead(x, n)
        if n + 1 == len(times):
            break
        one = mask()
        if model.sampling == "naive" or n == 0:
            x = inter(e, times[n + 1], one)
        else:
            x = x + inter(e, times[n + 1], one) - inter(e, times[n], one if shared else mask())
        out[times[n + 1]] = x
    out[h] = x + e - inter(e, times[-1], mask()) if model.cold_last_step else e
    if model.refine:
        out |= {j: inter(out[h], j, mask()) for j in range(1, h)}
    return [out[j] for j in range(1, h + 1)]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("conditioning", ["none", "data", "data+noise"])
@pytest.mark.parametrize(
    ("sampling", "auxiliary", "schedule", "refine", "last"),
    [
        ("cold", 0, "before_t1_only", False, False),
        ("cold", 3, "before_t1_only", True, False),
        ("cold", 1, "linear", False, True),
        ("naive", 2, "before_t1_only", False, False),
    ],
)
def test_agrees_with_an_independent_reading(
    conditioning: str, sampling: str, auxiliary: int, schedule: str, refine: bool, last: bool, shared: bool
) -> None:
    model = dyffusion(
        conditioning=conditioning,
        sampling=sampling,
        auxiliary_steps=auxiliary,
        schedule=schedule,
        refine=refine,
        cold_last_step=last,
        shared_masks=shared,
    )
    state = torch.randn(3, 1, 2, *GRID, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    drawn = model.sample(state, generator=Streams(11, range(3)))
    assert drawn.shape == (3, 4, 2, *GRID)
    with torch.no_grad():
        for row in range(3):
            parts = reading(model, state[row], Streams(11, [row]), model.times, shared, conditioning == "data+noise")
            torch.testing.assert_close(drawn[row], torch.cat(parts), rtol=1e-12, atol=1e-12)


class Counting(nn.Module):
    """Counts rows that go through a network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.rows, self.calls = channels, 0, 0

    def forward(self, x: Tensor, time: Tensor, streams: object = None) -> Tensor:
        self.rows, self.calls = self.rows + len(x), self.calls + 1
        return 0.1 * x[:, : self.channels]


@pytest.mark.parametrize(
    ("horizon", "auxiliary", "refine", "calls"), [(16, 0, True, 60), (7, 25, False, 93), (134, 0, True, 532)]
)
def test_network_calls_of_the_published_settings(horizon: int, auxiliary: int, refine: bool, calls: int) -> None:
    f, i = Counting(1), Counting(1)
    model = DYffusion(Predictor(f), Interpolator(i, horizon), auxiliary_steps=auxiliary, refine=refine)
    n = horizon + auxiliary
    assert model.network_calls == calls == 3 * (n - 1) + (horizon - 1) * refine
    model.sample(torch.ones(2, 1, 1, 3, 2))
    assert f.rows + i.rows == 2 * calls
    assert f.calls == n
    assert i.calls == n - 1 + (horizon - 1) * refine  # two interpolations are one call of twice the rows


@pytest.mark.parametrize("options", [{"sampling": "naive"}, {"cold_last_step": True}, {"sampling_schedule": "every2"}])
def test_network_calls_of_the_options(options: dict[str, object]) -> None:
    f, i = Counting(1), Counting(1)
    model = DYffusion(Predictor(f), Interpolator(i, 3), auxiliary_steps=4, **options)  # type: ignore[arg-type]
    model.sample(torch.ones(1, 1, 1, 3, 2))
    assert model.network_calls == f.rows + i.rows


@pytest.mark.parametrize("conditioning", ["none", "data+noise"])
def test_a_row_is_the_same_alone_and_in_a_batch(conditioning: str) -> None:
    model = dyffusion(conditioning=conditioning, auxiliary_steps=1)
    state = torch.randn(3, 1, 2, *GRID, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    together = model.sample(state, generator=Streams(3, [0, 4, 7]))
    alone = model.sample(state[1:2], generator=Streams(3, [4]))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-12, atol=1e-12)
    members = model.sample(state[:1].expand(3, -1, -1, -1, -1), generator=Streams(3, range(3)))
    assert members.std(0).amin() > 0


def test_the_interpolator_is_frozen_whatever_happens() -> None:
    model = dyffusion()
    before = {k: v.clone() for k, v in model.interpolator.state_dict().items()}
    assert any("running_mean" in k for k in before)
    model.train()
    model.interpolator.train(True)
    assert not any(m.training for m in model.interpolator.modules()) and model.forecaster.training
    state = 5 + torch.randn(4, 1, 2, *GRID, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    model.sample(state)
    assert all(torch.equal(v, before[k]) for k, v in model.interpolator.state_dict().items())
    assert not any(p.requires_grad for p in model.interpolator.parameters())
    free = Interpolator(network(4, 2), 4).train()
    assert free.network.norms[0].training  # before it is frozen, it trains


def test_masks_of_the_frozen_interpolator_stay_on() -> None:
    model = dyffusion(dropout=0.5).eval()
    state = torch.ones(2, 1, 2, *GRID, dtype=torch.float64)
    one, two = model.sample(state, generator=torch.Generator().manual_seed(0))
    assert (one - two)[0].abs().amax() > 1e-3


def test_fractional_lead_times_lie_on_the_interpolator() -> None:
    model = dyffusion(dropout=0.0)
    state = torch.randn(2, 1, 2, *GRID, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    whole = model.sample(state)
    some = model.sample(state, lead_times=[0.5, 2, 2.75, 4])
    torch.testing.assert_close(some[:, [1, 3]], whole[:, [1, 3]])
    past, end = state[:, 0], whole[:, -1]
    with torch.no_grad():
        expected = model.interpolator(past, end, torch.full((2,), 2.75, dtype=torch.float64))
    torch.testing.assert_close(some[:, 2], expected)
    with pytest.raises(ValueError, match="lead_times"):
        model.sample(state, lead_times=[4.5])


def test_a_correction_reaches_every_predicted_state_with_its_lead() -> None:
    model, seen = dyffusion(auxiliary_steps=1), []

    def pin(x: Tensor, lead: float) -> Tensor:
        seen.append(lead)
        return torch.cat([torch.full_like(x[..., :1], lead), x[..., 1:]], -1)

    out = model.sample(torch.ones(1, 1, 2, *GRID, dtype=torch.float64), correct=pin)
    assert torch.equal(out[0, :, 0, 0, 0], torch.arange(1.0, 5.0, dtype=torch.float64))
    assert seen == [4, 0.5, 4, 1, 4, 2, 4, 3, 4]


class Echo(nn.Module):
    """Returns the last channel it is given: the forcing."""

    def forward(self, x: Tensor, time: Tensor, streams: object = None) -> Tensor:
        return x[:, -1:]


@pytest.mark.parametrize(("at", "expected"), [("target", [1, 2, 3]), ("start", [0, 0, 2])])
def test_forcings_are_taken_at_the_stated_times(at: str, expected: list[float]) -> None:
    model = DYffusion(
        Predictor(Echo(), residual=False), Interpolator(Echo(), 3, residual=False), sampling="naive", forcing_at=at
    )
    forcing = torch.arange(4.0).reshape(1, 4, 1, 1, 1).expand(1, 4, 1, 3, 2)
    out = model.sample(torch.full((1, 1, 1, 3, 2), 9.0), forcing)
    # I at "target" sees the forcing of its own lead, F that of lead 3; at "start" 0, and that of its input (lead 2).
    assert out[0, :, 0, 0, 0].tolist() == expected


def test_naive_sampling_of_exact_networks_has_the_exact_law_and_cold_is_narrower() -> None:
    """Brownian motion: F draws from N(x, h - i), I from the bridge; see the module's text."""

    class Bridge(nn.Module):
        def forward(self, x: Tensor, time: Tensor, streams: Streams | None = None) -> Tensor:
            i = time.reshape(-1, 1, 1, 1)
            assert streams is not None
            return (i * (4 - i) / 4).clamp_min(0).sqrt() * streams.randn(x[:, :1].shape[1:])

    class End(nn.Module):
        def forward(self, x: Tensor, time: Tensor, streams: Streams | None = None) -> Tensor:
            assert streams is not None
            return (4 - time.reshape(-1, 1, 1, 1)).sqrt() * streams.randn(x.shape[1:])

    options = {"forecaster_noise": True, "shared_masks": True}
    variances = {}
    for sampling in ("naive", "cold"):
        model = DYffusion(Predictor(End()), Interpolator(Bridge(), 4), sampling=sampling, **options)
        drawn = model.sample(torch.zeros(64, 1, 1, 20, 20), generator=torch.Generator().manual_seed(0))
        variances[sampling] = drawn.var((0, 2, 3, 4)).tolist()
    n = 64 * 400
    assert variances["naive"] == pytest.approx([1, 2, 3, 4], rel=5 * (2 / n) ** 0.5)
    second = (1 + 1 / 4) ** 2 + 3 / 16 + (1 - 0.75**0.5) ** 2
    assert variances["cold"][1] == pytest.approx(second, rel=5 * (2 / n) ** 0.5) and second < 1.8


@pytest.mark.parametrize("options", [{"sampling": "warm"}, {"conditioning": "noise"}, {"forcing_at": "end"}])
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be one of"):
        dyffusion(**options)
