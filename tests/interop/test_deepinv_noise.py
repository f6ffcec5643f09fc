"""Laws of noise against deepinv's draws: the density integrates to one and its distribution function fits them."""

import math

import pytest
import torch
from torch import Generator

deepinv = pytest.importorskip("deepinv")

from deepinv import physics as P  # noqa: E402

from scidiff.interop.deepinv_laws import UniformGaussianNoise  # noqa: E402
from scidiff.interop.deepinv_noise import noise_from_deepinv, noise_to_deepinv  # noqa: E402
from scidiff.linalg import Dense  # noqa: E402
from scidiff.noise import GaussianNoise, PoissonNoise  # noqa: E402

F64 = torch.float64
N = 20_000
Z = 0.8


def rng():
    return Generator().manual_seed(3)


CONTINUOUS = {
    "gaussian": (P.GaussianNoise(0.3, rng=rng()), (-2.0, 4.0)),
    "poisson and gaussian": (P.PoissonGaussianNoise(gain=0.2, sigma=0.1, rng=rng()), (-2.0, 6.0)),
    "poisson and weak gaussian": (P.PoissonGaussianNoise(gain=0.01, sigma=0.1, rng=rng()), (-2.0, 6.0)),
    "gaussian of unknown strength": (P.UniformGaussianNoise(0.1, 0.5, rng=rng()), (-3.0, 5.0)),
    "rice": (P.RicianNoise(0.4, rng=rng()), (1e-6, 5.0)),
    "laplace": (P.LaplaceNoise(0.2, rng=rng()), (-7.0, 8.0)),
    "uniform": (P.UniformNoise(0.4, rng=rng()), (0.0, 2.0)),
    "gamma": (P.GammaNoise(4.0), (1e-6, 8.0)),
    "fisher-tippett": (P.FisherTippettNoise(3.0), (-7.0, 4.0)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_density_is_that_of_the_draws(name):
    """Largest distance of distribution functions below Kolmogorov's bound of one in ten thousand, both samplers."""
    model, (low, high) = CONTINUOUS[name]
    law = noise_from_deepinv(model)
    grid = torch.linspace(low, high, 20_001, dtype=F64)[:, None]
    density = law.log_prob(grid, torch.full_like(grid, Z)).exp()
    width = (high - low) / 20_000
    cumulative = torch.cat([torch.zeros(1, dtype=F64), ((density[1:] + density[:-1]) / 2 * width).cumsum(0)])
    assert float(cumulative[-1]) == pytest.approx(1, abs=2e-4)
    z = torch.full((N, 1), Z, dtype=F64)
    with torch.random.fork_rng():  # two models of deepinv draw from torch's global generator
        theirs = model(z)
    for draws in (theirs, law.sample(z, Generator().manual_seed(4))):
        y = draws[:, 0].sort().values
        at = ((y - low) / width).clamp(0, 19_999)
        left = at.long()
        expected = cumulative[left] + (at - left) * (cumulative[left + 1] - cumulative[left])
        distance = float((expected - (torch.arange(N, dtype=F64) + 0.5) / N).abs().max())
        assert distance < 2.23 / math.sqrt(N), distance


def test_transmission_counts():
    """Log-Poisson: probabilities of the counts sum to one, and are those of draws."""
    model = P.LogPoissonNoise(N0=20.0, mu=0.5, rng=rng())
    law = noise_from_deepinv(model)
    k = torch.arange(1, 80, dtype=F64)
    y = -(k / 20).log() / 0.5
    p = law.log_prob(y[:, None], torch.full((79, 1), Z, dtype=F64)).exp()
    rate = 20 * math.exp(-0.5 * Z)
    assert float(p.sum()) == pytest.approx(1 - math.exp(-rate), abs=1e-6)
    z = torch.full((N, 1), Z)
    for draws in (model(z), law.sample(z, Generator().manual_seed(4))):
        counts = 20 * (-0.5 * draws).exp()
        assert float(counts.mean()) == pytest.approx(rate, abs=4 * math.sqrt(rate / N))
        assert float(counts.var()) == pytest.approx(rate, rel=0.05)


@pytest.mark.parametrize("name", [*CONTINUOUS, "log-poisson"])
def test_score_is_the_gradient_of_the_density(name):
    model = CONTINUOUS[name][0] if name in CONTINUOUS else P.LogPoissonNoise(20.0, 0.5)
    law = noise_from_deepinv(model)
    z = 0.5 + torch.rand(2, 5, generator=rng(), dtype=F64)
    y = z + 0.1 * torch.rand(2, 5, generator=rng(), dtype=F64)
    h = 1e-5
    d = torch.rand(2, 5, generator=Generator().manual_seed(9), dtype=F64)
    slope = (law.log_prob(y, z + h * d) - law.log_prob(y, z - h * d)) / (2 * h)
    torch.testing.assert_close((law.score(y, z) * d).sum(1), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 1000])
def test_unknown_strength_against_brute_force(n):
    """The integral over strengths on two hundred thousand equal steps."""
    law = UniformGaussianNoise(0.05, 0.6)
    s = 0.05 + 0.55 * (torch.arange(200_000, dtype=F64) + 0.5) / 200_000
    for size in (0.0, 0.02, 0.3, 2.0):
        r = torch.full((1, n), size, dtype=F64)
        logs = -n * s.log() - n * size**2 / (2 * s.square()) - 0.5 * n * math.log(2 * math.pi)
        expected = torch.logsumexp(logs, 0) - math.log(200_000)
        torch.testing.assert_close(law.log_prob(r, 0 * r)[0], expected, rtol=1e-6, atol=1e-6)


def test_what_has_no_density_is_refused():
    for model, words in (
        (P.ZeroNoise(), "adds nothing"),
        (P.SaltPepperNoise(), "no density known"),
        (P.GaussianNoise(0.0), "sigma=0"),
        (P.GaussianNoise(0.1) * P.PoissonNoise(1.0), "NoiseModel has no density"),
    ):
        with pytest.raises(TypeError, match=words):
            noise_from_deepinv(model)
    with pytest.raises(ValueError, match="holds 2 values"):
        noise_from_deepinv(P.GaussianNoise(torch.tensor([0.1, 0.2])))
    with pytest.raises(ValueError, match="normalize=False"):
        noise_from_deepinv(P.PoissonNoise(2.0, normalize=False))
    with pytest.raises(TypeError, match="on complex measurements"):
        noise_from_deepinv(P.UniformNoise(0.1), complex_data=True)


def test_laws_become_noise_models():
    """Moments of deepinv's draws from scidiff's laws: one number, one for each entry, correlated, complex, counts."""
    z = torch.full((N, 2), 3.0, dtype=F64)
    cov = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64)
    for law, expected in (
        (GaussianNoise(0.5), 0.25 * torch.eye(2, dtype=F64)),
        (GaussianNoise(torch.tensor([0.1, 0.4], dtype=F64)), torch.diag(torch.tensor([0.01, 0.16], dtype=F64))),
        (GaussianNoise(Dense(cov)), cov),
        (PoissonNoise(0.5), 1.5 * torch.eye(2, dtype=F64)),
    ):
        y = noise_to_deepinv(law, rng=rng())(z)
        torch.testing.assert_close(y.T.cov(), expected, rtol=0.05, atol=0.03)
        torch.testing.assert_close(y.mean(0), z[0], rtol=0, atol=0.04)
    y = noise_to_deepinv(GaussianNoise(0.5), complex_data=True, rng=rng())(z + 0j)
    assert float(y.real.std()) == pytest.approx(0.5, rel=0.03) and float(y.imag.std()) == pytest.approx(0.5, rel=0.03)
    again = noise_from_deepinv(noise_to_deepinv(GaussianNoise(0.5), complex_data=True), complex_data=True)
    assert again.std == pytest.approx(0.5)
    model = noise_to_deepinv(GaussianNoise(Dense(cov)), rng=rng())
    assert torch.equal(model(z, seed=1), model(z, seed=1)) and not torch.equal(model(z), model(z))
