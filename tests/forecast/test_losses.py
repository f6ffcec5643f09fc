"""Training losses against hand computations, scores against quadrature and another library."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from scidiff.forecast import DYffusion, Interpolator, Predictor
from scidiff.forecast.losses import BlockLoss, DYffusionLoss, InterpolationLoss, LeadLoss
from scidiff.forecast.scores import CRPS, almost_fair_crps, make_score
from scidiff.nn.stochastic import Draws
from tests.forecast.doubles import GRID, dyffusion, network


class Affine(nn.Module):
    """w (first channel) + v (last channel) + b time: every loss can be worked out on paper."""

    def __init__(self, w: float, v: float, b: float) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([w, v, b], dtype=torch.float64))

    def forward(self, x: Tensor, time: Tensor, streams: Draws | None = None) -> Tensor:
        return self.p[0] * x[:, :1] + self.p[1] * x[:, -1:] + self.p[2] * time.reshape(-1, 1, 1, 1)


def windows(values: list[list[float]]) -> Tensor:
    """Constant fields: (B, T) numbers -> (B, T, 1, 3, 2)."""
    return torch.tensor(values, dtype=torch.float64)[..., None, None, None].expand(-1, -1, 1, 3, 2)


def times(places: list[int]) -> Tensor:
    return torch.tensor([[p, 7 + k] for k, p in enumerate(places)], dtype=torch.float64)


def test_stage_one_by_hand() -> None:
    u = windows([[1, 2, 4, 7], [0, 3, 5, -1]])
    module = Interpolator(Affine(0.5, 0.25, 0.1), 3, residual=False)
    value = InterpolationLoss(1, 3)(module, u, times([1, 2]))
    # 0.5 + 1.75 + 0.1 against 2, and 0 - 0.25 + 0.2 against 5
    torch.testing.assert_close(value, torch.tensor([0.35**2, 5.05**2]).double())


def test_stage_two_by_hand() -> None:
    """h = 3, N = 3; F(x, i) = 0.5 x + 0.1 i; I(a, b, i) = 0.4 a + 0.2 b + 0.3 i."""
    u = windows([[1, 2, 4, 7], [2, 3, 5, -1], [0, 1, 1, 2]])
    f = Predictor(Affine(0.5, 0.0, 0.1), residual=False)
    model = DYffusion(f, Interpolator(Affine(0.4, 0.2, 0.3), 3, residual=False))
    value = DYffusionLoss(model, 1, reconstruction=0.7, lookahead=0.3)(f, u, times([0, 1, 2]))
    # n = 0: x = 1, e = 0.5; I(1, 0.5, 1) = 0.8; F(0.8, 1) = 0.5, both against 7
    first = 0.7 * 6.5**2 + 0.3 * 1.5 * 6.5**2
    # n = 1: I(2, -1, 1) = 0.9; e = 0.45 + 0.1 = 0.55; I(2, 0.55, 2) = 1.51; F(1.51, 2) = 0.955, both against -1
    second = 0.7 * 1.55**2 + 0.3 * 1.5 * 1.955**2
    # n = 2: I(0, 2, 2) = 1; e = 0.5 + 0.2 = 0.7 against 2; the last step has no look-ahead
    third = 0.7 * 1.3**2
    torch.testing.assert_close(value, torch.tensor([first, second, third]).double())


def test_a_roll_out_of_three_calls_by_hand() -> None:
    """Calls of h = 2 steps from x = 2: both states of a call are w x (+ the forcing), the last one is fed back."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, x: Tensor, time: Tensor, streams: Draws | None = None) -> Tensor:
            return torch.cat([self.w * x[:, :1], self.w * x[:, :1] + x[:, 1:].sum(1, keepdim=True)], 1)

    u, net = windows([[2, 1, 1, 0, 3, 0, 1]]), Two()
    value = BlockLoss(1, 2, score=make_score("squared"), blocks=3)(Predictor(net, residual=False), u, times([0]))
    # 2 -> 1, 1 -> 0.5, 0.5 -> 0.25, 0.25 against 1, 1, 0, 3, 0, 1
    torch.testing.assert_close(value, torch.tensor([(0.5**2 + 2.5**2 + 0.25**2 + 0.75**2) / 6]).double())
    value.sum().backward()
    slope = 2 * 2 * (2 * 0.5) * (0.5 + 0.5 - 0 - 3) + 2 * 2 * (3 * 0.5**2) * (0.25 + 0.25 - 0 - 1)  # of 2 w^2, 2 w^3
    torch.testing.assert_close(net.w.grad, torch.tensor(slope / 6).double())
    forced = torch.cat([u, torch.arange(7.0).double()[None, :, None, None, None].expand_as(u)], 2)
    value = BlockLoss(1, 2, score=make_score("squared"), blocks=3)(Predictor(net, residual=False), forced, times([0]))
    # forcings of the windows 0-2, 2-4, 4-6: 3, 9, 15 are added to the second states: 1, 4; 2, 11; 5.5, 20.5
    errors = [1 - 1, 4 - 1, 2 - 0, 11 - 3, 5.5 - 0, 20.5 - 1]
    torch.testing.assert_close(value, torch.tensor([sum(e**2 for e in errors) / 6]).double())
    with pytest.raises(ValueError, match="blocks"):
        BlockLoss(1, 2, blocks=0)


def test_the_gradient_flows_through_the_frozen_interpolator() -> None:
    """d/dw of L2 by hand: F(x, i) = w x at x = 1, I(a, b, i) = b, so the second F gives w^2 x."""
    f = Predictor(Affine(0.5, 0.0, 0.0), residual=False)
    inside = Affine(0.0, 1.0, 0.0)
    model = DYffusion(f, Interpolator(inside, 3, residual=False))
    DYffusionLoss(model, 1, reconstruction=0.0, lookahead=2 / 3)(f, windows([[1, 0, 0, 2]]), times([0])).backward()
    assert f.network.p.grad is not None
    assert f.network.p.grad[0].item() == pytest.approx(2 * (0.5**2 - 2) * 2 * 0.5)
    assert inside.p.grad is None


def test_places_are_drawn_from_their_range_uniformly() -> None:
    g = torch.Generator().manual_seed(0)
    for loss, low, high in (
        (InterpolationLoss(1, 4), 1, 3),
        (DYffusionLoss(dyffusion(auxiliary_steps=2), 2), 0, 5),
        (LeadLoss(1, 4), 1, 4),
    ):
        places = torch.stack([loss.draw(g)[0] for _ in range(1200)]).long()
        count = torch.bincount(places, minlength=high + 1)[low:]
        assert int(places.min()) == low and int(places.max()) == high
        expected = 1200 / (high - low + 1)
        assert (count - expected).abs().max() < 5 * math.sqrt(expected)


@pytest.mark.parametrize("kind", ["interpolation", "dyffusion", "lead", "block"])
def test_a_row_has_the_same_loss_alone_and_in_a_batch(kind: str) -> None:
    u = torch.randn(3, 5, 3, *GRID, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = CRPS(members=3)
    if kind == "interpolation":
        loss, net = InterpolationLoss(2, 4, score=score), Interpolator(network(5, 2, 0.5), 4)
    elif kind == "dyffusion":
        model = dyffusion(forcings=1, conditioning="data+noise")
        loss, net = DYffusionLoss(model, 2, score), model.forecaster
    elif kind == "lead":
        loss, net = LeadLoss(2, 4, score=score), Predictor(network(3, 2, 0.5))
    else:
        loss, net = BlockLoss(2, 4, score=score), Predictor(network(2 + 5, 8, noise=2))
    place = times([0, 0, 0] if kind == "block" else [1, 2, 3])
    with torch.no_grad():
        together, alone = loss(net, u, place), loss(net, u[1:2], place[1:2])
        other = loss(net, u, place + torch.tensor([0, 5]))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(together, other)


def test_fair_crps_of_gaussian_members_has_the_expectation_of_their_law_whatever_their_number() -> None:
    g = torch.Generator().manual_seed(1)
    s, y, cases = 0.7, 0.4, 40_000
    phi = math.exp(-((y / s) ** 2) / 2) / math.sqrt(2 * math.pi)
    exact = s * (y / s * math.erf(y / s / 2**0.5) + 2 * phi - 1 / math.pi**0.5)
    for members in (2, 3, 7):
        x = s * torch.randn(cases, members, generator=g, dtype=torch.float64)
        values = almost_fair_crps(x, torch.full((cases,), y, dtype=torch.float64))
        assert values.mean().item() == pytest.approx(exact, abs=5 * values.std().item() / cases**0.5)


@pytest.mark.parametrize(("alpha", "method"), [(1.0, "fair"), (0.0, "nrg")])
def test_crps_agrees_with_another_library(alpha: float, method: str) -> None:
    scoringrules = pytest.importorskip("scoringrules")
    g = torch.Generator().manual_seed(2)
    x, y = torch.randn(4, 5, 3, generator=g, dtype=torch.float64), torch.randn(4, 3, generator=g, dtype=torch.float64)
    theirs = scoringrules.crps_ensemble(y.numpy(), x.numpy(), m_axis=1, estimator=method)
    torch.testing.assert_close(almost_fair_crps(x, y, alpha), torch.from_numpy(theirs))


@pytest.mark.parametrize("alpha", [1.0, 0.95, 0.0])
def test_the_spread_that_almost_fair_crps_asks_for(alpha: float) -> None:
    """Two Gaussian members: the minimum over s of the expected score is at the module's formula."""
    q = (1 - (1 - alpha) / 2) / 2**0.5
    best = math.sqrt(q**2 / (1 - q**2))
    expected = lambda s: math.sqrt(1 + s**2) - q * s  # noqa: E731 - times sqrt(2 / pi)
    assert expected(best) < min(expected(best * 0.99), expected(best * 1.01))
    n = 200_000
    z, t = (torch.randn(*k, generator=torch.Generator().manual_seed(3), dtype=torch.float64) for k in ((n, 2), (n, 3)))
    value = almost_fair_crps(best * z, t[:, 2], alpha).mean().item()
    assert value == pytest.approx(math.sqrt(2 / math.pi) * expected(best), rel=0.01)
    assert best == pytest.approx({1.0: 1.0, 0.95: 0.952, 0.0: 0.378}[alpha], abs=1e-3)


def test_spectral_score_tells_smooth_noise_from_white() -> None:
    """Same variance at every point: the score of points is equal, that of coefficients is not."""
    g = torch.Generator().manual_seed(4)
    wave = torch.cos(2 * math.pi * torch.arange(8.0) / 8)
    smooth = lambda n: (  # noqa: E731
        torch.randn(n, 1, 1, 1, generator=g) * wave + torch.randn(n, 1, 1, 1, generator=g) * wave.roll(2)
    ).expand(n, 1, 6, 8)
    truth, right = smooth(2000), torch.stack([smooth(2000), smooth(2000)], 1)
    white = torch.randn(2000, 2, 1, 6, 8, generator=g)
    points, modes = CRPS(), CRPS(spectral=1.0)
    assert points(white, truth).mean().item() == pytest.approx(points(right, truth).mean().item(), rel=0.06)
    extra = [(modes(x, truth) - points(x, truth)).mean().item() for x in (white, right)]
    assert extra[0] > 1.3 * extra[1]
    blocks = [(CRPS(scales=1.0)(x, truth) - points(x, truth)).mean().item() for x in (white, right)]
    assert blocks[0] > 1.05 * blocks[1]


def test_scores_by_name() -> None:
    assert make_score("crps", members=4) == CRPS(members=4)
    x, y = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[0.0, 1.0]])
    assert make_score("squared")(x, y).item() == 2.5 and make_score("absolute")(x, y).item() == 1.5
    for arguments in ({"kind": "mse"}, {"kind": "crps", "members": 1}, {"kind": "squared", "alpha": 1}):
        with pytest.raises(ValueError, match=r"score|CRPS"):
            make_score(**arguments)  # type: ignore[arg-type]
