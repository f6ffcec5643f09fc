"""Losses against the formulas of their papers, and against a Gaussian whose denoiser is known.

Scalar Gaussian data u ~ N(0, C), noise N(0, 1): every loss is a polynomial of degree two in (u, eps), so nine
Gauss-Hermite nodes in each give its expectation to rounding.
"""

import math

import numpy as np
import pytest
import torch

from scidiff.priors.diffusion import precondition
from scidiff.training.elbo import ELBOLoss, MonotoneSchedule
from scidiff.training.hybrid import HybridLoss, cosine_levels, linear_levels
from scidiff.training.levels import Cosine, LinearVP, LogNormal, LogUniform, Straight, logit_normal
from scidiff.training.losses import DenoisingLoss, Likelihood, MinSNR, edm, simple, velocity
from scidiff.training.registry import make_loss

C = 0.3
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
LEVELS = torch.tensor([0.02, 0.4, 1.7, 30.0], dtype=torch.float64)
LAWS = [LogNormal(), logit_normal(0.3, 0.8, shift=2.0), LogUniform(), Cosine(), LinearVP(), Straight()]


def gaussian():
    """Nodes (u, eps) of the toy, each (81, 1, 1), and their weights (81,)."""
    u, eps = np.meshgrid(C**0.5 * NODES, NODES, indexing="ij")
    both = (torch.from_numpy(v.reshape(-1, 1, 1).copy()) for v in (u, eps))
    return *both, torch.from_numpy(np.outer(WEIGHTS, WEIGHTS).ravel())


class Toy(torch.nn.Module):
    """F(x, label) = a x with one parameter a, and optionally a constant second channel b."""

    def __init__(self, a: float, b: float | None = None) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.b = None if b is None else torch.nn.Parameter(torch.tensor(b, dtype=torch.float64))

    def forward(self, x, label):
        out = self.a * x
        return out if self.b is None else torch.cat([out, self.b.expand_as(out)], dim=1)


def exact(sigma: float) -> float:
    """The a that makes D = C u / (C + sigma^2)."""
    s2 = sigma**2
    return (C / (C + s2) - 1 / (1 + s2)) * (1 + s2) / sigma


def paper(name: str, network, u, sigma, eps):
    """Squared errors as the papers write them, from states and outputs in their own scaling."""
    s = sigma.reshape(-1, 1, 1)
    noisy = u + s * eps
    d = precondition(network, noisy, sigma)
    alpha = 1 / (1 + s**2).sqrt()
    x, spread = alpha * noisy, alpha * s
    eps_hat = (x - alpha * d) / spread
    t = s / (1 + s)  # rectified flow: (1 - t) u + t eps = noisy (1 - t)
    flow = (noisy * (1 - t) - d) / t  # since x_t = d + t (eps_hat - d) on the straight path
    return (
        {
            "simple": (eps_hat - eps) ** 2,
            "v": ((alpha * eps_hat - spread * d) - (alpha * eps - spread * u)) ** 2,
            "velocity": (flow - (eps - u)) ** 2,
            "min-snr": torch.clamp(alpha**2 / spread**2, max=5.0) * (d - u) ** 2,
        }[name]
        .flatten(1)
        .mean(1)
    )


@pytest.mark.parametrize(
    ("weight", "name"), [(edm, "v"), (simple, "simple"), (velocity, "velocity"), (MinSNR(), "min-snr")]
)
def test_gradients_are_those_of_the_papers(weight, name, generator):
    network = Toy(0.7)
    u, eps = (torch.randn(4, 2, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    ours, theirs = DenoisingLoss(weight)(network, u, LEVELS, eps), paper(name, network, u, LEVELS, eps)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    for one, other in zip(ours, theirs, strict=True):
        (g,) = torch.autograd.grad(one, network.a, retain_graph=True)
        (h,) = torch.autograd.grad(other, network.a, retain_graph=True)
        torch.testing.assert_close(g, h, rtol=1e-9, atol=0)


@pytest.mark.parametrize("weight", [edm, simple, velocity, MinSNR(), Likelihood(LogUniform())])
@pytest.mark.parametrize("sigma", [0.05, 0.8, 20.0])
def test_the_exact_denoiser_is_the_minimiser(weight, sigma):
    u, eps, w = gaussian()
    network = Toy(exact(sigma))
    level = torch.full((len(u),), sigma, dtype=torch.float64)
    loss = lambda: (w * DenoisingLoss(weight)(network, u, level, eps)).sum()  # noqa: E731
    (slope,) = torch.autograd.grad(loss(), network.a, create_graph=False)
    network.a.data += 0.1
    (beside,) = torch.autograd.grad(loss(), network.a)
    assert beside > 0
    assert abs(slope) < 1e-10 * beside


@pytest.mark.parametrize("index", [1, 2, 7])
def test_hybrid_learns_mean_and_variance(index):
    """Stationary where D is exact and Sigma is the exact variance of u_b given u_a (at index 1: of u itself)."""
    levels = cosine_levels(8)
    a, b = levels[index - 1], levels[index - 2] if index > 1 else 0.0
    # Var(u_b | u_a) for Gaussian data: C + b^2 - (C + b^2)^2 / (C + a^2)
    best = (C + b**2) - (C + b**2) ** 2 / (C + a**2)
    wide = (1 + b**2) * (a**2 - b**2) / (1 + a**2)
    first, second = levels[0] ** 2, levels[1] ** 2
    narrow = b**2 * (a**2 - b**2) / a**2 if b else first * (second - first) / second
    v = math.log(best / narrow) / math.log(wide / narrow)
    u, eps, w = gaussian()
    network, loss = Toy(exact(a), 2 * v - 1), HybridLoss(levels, weight=0.5)
    time = torch.full((len(u),), float(index))
    total = (w * loss(network, u, time, eps)).sum()
    slopes = torch.autograd.grad(total, [network.a, network.b])
    network.a.data += 0.1
    network.b.data += 0.1
    beside = torch.autograd.grad((w * loss(network, u, time, eps)).sum(), [network.a, network.b])
    for slope, other in zip(slopes, beside, strict=True):
        assert other > 0 and abs(slope) < 1e-9 * other


def test_bound_of_hybrid_is_a_kl_of_gaussians(generator):
    """Against torch.distributions; and the mean gets no gradient from the bound."""
    loss = HybridLoss(linear_levels(10))
    u, eps = (torch.randn(3, 1, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    network = Toy(0.2, -0.3)
    index = torch.tensor([2.0, 5.0, 10.0])
    _, bound = loss.terms(network, u, index, eps)
    for row, i in enumerate(index.long().tolist()):
        a, b = (float(loss.levels[k]) for k in (i, i - 1))
        noisy = u[row] + a * eps[row]
        d = precondition(network, noisy[None], torch.tensor(a, dtype=torch.float64))[0]
        beta, tilde = (1 + b**2) * (a**2 - b**2) / (1 + a**2), b**2 * (a**2 - b**2) / a**2
        spread = math.exp(0.35 * math.log(beta) + 0.65 * math.log(tilde)) ** 0.5
        q = torch.distributions.Normal(u[row] + b**2 / a**2 * (noisy - u[row]), tilde**0.5)
        p = torch.distributions.Normal(d + b**2 / a**2 * (noisy - d), spread)
        expected = torch.distributions.kl_divergence(q, p).mean() / math.log(2)
        torch.testing.assert_close(bound[row], expected, rtol=1e-9, atol=0)
    (slope,) = torch.autograd.grad(bound.sum(), network.a, allow_unused=True)
    assert slope is None or slope == 0


def test_hybrid_says_what_it_needs(generator):
    u = torch.randn(2, 1, 4, generator=generator, dtype=torch.float64)
    with pytest.raises(ValueError, match="network with 2 outputs.*it has 1"):
        HybridLoss(cosine_levels(4))(Toy(0.1), u, torch.ones(2), u)
    with pytest.raises(ValueError, match="smallest first"):
        HybridLoss([1.0, 0.5])


def _schedule(seed: int) -> MonotoneSchedule:
    schedule = MonotoneSchedule(0.01, 50.0, features=16).double()
    g = torch.Generator().manual_seed(seed)
    for p in schedule.parameters():
        p.data = 3 * torch.randn(p.shape, generator=g, dtype=torch.float64)
    return schedule


@pytest.mark.parametrize("seed", [0, 1])
def test_schedule_is_monotone_with_fixed_ends(seed):
    t = torch.linspace(0, 1, 1001, dtype=torch.float64, requires_grad=True)
    gamma, slope = _schedule(seed)(t)
    assert (gamma.diff() > 0).all()
    torch.testing.assert_close(gamma[[0, -1]].detach(), torch.tensor([0.01, 50.0], dtype=torch.float64).log() * 2)
    torch.testing.assert_close(slope, torch.autograd.grad(gamma.sum(), t)[0])


def test_bound_does_not_depend_on_the_schedule():
    """Exact denoiser of N(0, 1): the bound is 1/2 the integral of dgamma / (1 + e^gamma), for any schedule."""
    t, w = np.polynomial.legendre.leggauss(400)
    time, w = torch.from_numpy((t + 1) / 2), torch.from_numpy(w / 2)
    g0, g1 = 2 * math.log(0.01), 2 * math.log(50.0)
    expected = 0.5 * ((g1 - math.log1p(math.exp(g1))) - (g0 - math.log1p(math.exp(g0))))
    nodes = torch.tensor([-1.0, 1.0], dtype=torch.float64)  # exact for squares of Gaussians
    values, spreads = [], []
    for seed in (0, 1):
        loss, rows = ELBOLoss(_schedule(seed)), []
        for u in nodes:
            for eps in nodes:
                field, noise = (torch.full((len(time), 1, 1), float(v), dtype=torch.float64) for v in (u, eps))
                rows.append(loss(Toy(0.0), field, time, noise))
        mean = torch.stack(rows).mean(0)
        values.append((w * mean).sum().item())
        spreads.append((w * mean.square()).sum().item())
    assert values == pytest.approx([expected] * 2, rel=1e-6)
    assert abs(spreads[0] / spreads[1] - 1) > 0.02  # what the schedule does change


def test_schedule_descends_the_variance(generator):
    """The gradient of the schedule is that of the sum of squares, the gradient of the network that of the sum."""
    loss, network = ELBOLoss(_schedule(2)), Toy(0.3)
    u, eps = (torch.randn(5, 1, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    time = torch.rand(5, generator=generator, dtype=torch.float64)
    loss(network, u, time, eps).sum().backward()
    gamma, slope = loss.schedule(time)
    sigma = (gamma / 2).exp()
    error = precondition(network, u + sigma.reshape(-1, 1, 1) * eps, sigma) - u
    plain = 0.5 * slope * (-gamma).exp() * error.square().flatten(1).mean(1)
    parameters = list(loss.schedule.parameters())
    for p, g in zip(parameters, torch.autograd.grad(plain.square().sum(), parameters, retain_graph=True), strict=True):
        torch.testing.assert_close(p.grad, g)
    torch.testing.assert_close(network.a.grad, torch.autograd.grad(plain.sum(), network.a)[0])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_levels_follow_their_density(law):
    """The integral of the density up to a level is the fraction of draws below it (2000 draws)."""
    g = torch.Generator().manual_seed(5)
    drawn = torch.stack([law.draw(g) for _ in range(2000)]).double().log()
    grid = torch.linspace(float(drawn.min()), float(drawn.max()), 4001, dtype=torch.float64)
    mass = torch.cumulative_trapezoid(law.density(grid.exp()), grid)
    assert mass[-1] == pytest.approx(1, abs=5e-3)
    below = torch.searchsorted(drawn.sort().values, grid[1:]) / len(drawn)
    assert (mass - below).abs().max() < 1.63 / 2000**0.5 + 2e-3  # Kolmogorov, 1 % level


def test_likelihood_weight_does_not_depend_on_the_law():
    """Monte Carlo over levels: the same integral of the bound from two laws on the same interval."""
    low, high = math.tan(math.pi / 2 * 1e-3), math.tan(math.pi / 2 * 0.99)
    expected = 0.5 * math.log((high**2 / (1 + high**2)) / (low**2 / (1 + low**2)))
    for law in (Cosine(), LogUniform(low, high)):
        g = torch.Generator().manual_seed(1)
        sigma = torch.stack([law.draw(g) for _ in range(4000)]).double()
        values = Likelihood(law)(sigma) * sigma.square() / (1 + sigma.square())  # Bayes error of N(0, 1)
        assert abs(float(values.mean()) - expected) < 4 * float(values.std()) / 4000**0.5


def test_names_of_a_configuration():
    loss = make_loss("velocity", levels={"kind": "logit-normal", "mean": 0.5, "shift": 3.0})
    assert loss == DenoisingLoss(velocity, LogNormal(0.5 + math.log(3.0), 1.0))
    assert make_loss("min-snr", gamma=3.0).weight == MinSNR(3.0)
    assert len(make_loss("hybrid", steps=20, schedule="linear").levels) == 21
    for wrong, match in [
        ({"kind": "min-srn"}, "did you mean 'min-snr'"),
        ({"kind": "edm", "gamma": 1.0}, "'edm' has no 'gamma'"),
        ({"kind": "elbo", "levels": {}}, "draws its own"),
        ({"levels": {"kind": "cosin"}}, "did you mean 'cosine'"),
    ]:
        with pytest.raises(ValueError, match=match):
            make_loss(**wrong)
