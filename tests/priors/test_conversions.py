"""Networks of every process and prediction, made from an analytic law, must give back its denoiser."""

import itertools

import pytest
import torch

from scidiff.priors import GaussianMixturePrior, GaussianPrior
from scidiff.priors.conversions import (
    EDM,
    VE,
    ConvertedPrior,
    Cosine,
    Discrete,
    Flow,
    SubVP,
    Trigonometric,
    VPLinear,
)

F64 = torch.float64
PROCESSES = [
    VPLinear(),
    Cosine(),
    SubVP(),
    VE(),
    EDM(),
    Flow(),
    Flow(data_at=1),
    Trigonometric(),
    Trigonometric(data_at=1),
    Discrete.linear(),
    Discrete.cosine(),
]
PREDICTIONS = ["x0", "eps", "score", "v", "velocity"]
MEAN, STD = 0.3, 0.5  # of the network's coordinates: it was trained on w = MEAN + STD u


def laws():
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(2, 6, 6, generator=generator, dtype=F64)
    covs = root @ root.mT / 6 + 0.05 * torch.eye(6, dtype=F64)
    means = torch.randn(2, 1, 2, 3, generator=generator, dtype=F64)
    return [GaussianPrior(torch.zeros(1, 2, 3, dtype=F64), covs[0]),
            GaussianMixturePrior(torch.tensor([0.3, 0.7]), 2 * means, covs)]  # fmt: skip


class Analytic(torch.nn.Module):
    """What a perfectly trained network returns: E[target | x_t] from the definition of its target."""

    def __init__(self, law, process, prediction, time=lambda label: label):
        super().__init__()
        self.law, self.process, self.prediction, self.time = law, process, prediction, time

    def forward(self, x, label):
        t = self.time(label).reshape(-1, 1, 1, 1)
        alpha, s = self.process.alpha(t), self.process.std(t)
        w0 = MEAN + STD * self.law.denoise((x / alpha - MEAN) / STD, (s / alpha).flatten() / STD)
        eps = (x - alpha * w0) / s
        if self.prediction == "velocity":  # by differentiating the process, not by its own rates
            one = torch.ones_like(t)
            alpha_rate, s_rate = (torch.func.jvp(f, (t,), (one,))[1] for f in (self.process.alpha, self.process.std))
            return alpha_rate * w0 + s_rate * eps
        return {"x0": w0, "eps": eps, "score": -eps / s, "v": alpha * eps - s * w0}[self.prediction]


def grid(prior, n=9):
    low, high = prior.sigma_range
    sigma = low * (high / low) ** torch.linspace(0, 1, n, dtype=F64)
    return torch.cat([sigma[:-1], torch.tensor([high], dtype=F64)])


def states(law, sigma, generator):
    shape = (len(sigma), *law.shape)
    clean = law.encode(law.sample(len(sigma), generator))
    return clean + sigma.reshape(-1, 1, 1, 1) * torch.randn(shape, generator=generator, dtype=F64)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_every_prediction_gives_the_exact_denoiser(process, generator):
    for law, prediction in itertools.product(laws(), PREDICTIONS):
        prior = ConvertedPrior(
            Analytic(law, process, prediction), process, prediction, channels=1, data_mean=MEAN, data_std=STD
        )
        sigma = grid(prior)
        u = states(law, sigma, generator)
        found, exact = prior.denoise(u, sigma), law.denoise(u, sigma)
        torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8, msg=lambda m: f"{prediction}: {m}")  # noqa: B023
        one = prior.denoise(u[4:5], sigma[4])
        torch.testing.assert_close(one, found[4:5], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_clock_scale_and_rates_belong_together(process):
    low, high = process.sigma_range
    sigma = low * (high / low) ** torch.linspace(0, 1, 41, dtype=F64)
    t = process.time(sigma)
    torch.testing.assert_close(process.std(t) / process.alpha(t), sigma, rtol=1e-9, atol=0)
    torch.testing.assert_close(process.scaling(sigma), process.alpha(t), rtol=1e-9, atol=0)
    one = torch.ones_like(t)
    for rate, function in zip(process.rates(t), (process.alpha, process.std), strict=True):
        torch.testing.assert_close(rate, torch.func.jvp(function, (t,), (one,))[1], rtol=1e-7, atol=1e-9)


def test_published_numbers():
    """Song's VP ends at alpha = exp(-5.025); DDPM's levels are 0.0100 ... 157.4; the cosine process starts at 1."""
    one = torch.ones(1, dtype=F64)
    torch.testing.assert_close(VPLinear().alpha(one), torch.exp(-5.025 * one))
    torch.testing.assert_close(SubVP().std(one), 1 - torch.exp(-10.05 * one))
    assert Discrete.linear().sigma_range == pytest.approx((0.0100, 157.4), rel=1e-3)
    assert float(Cosine().alpha(0 * one)) == pytest.approx(1) and float(Cosine().std(0 * one)) == 0
    half = torch.tensor([0.5], dtype=F64)
    angle = torch.tensor(0.508 / 1.008 * torch.pi / 2, dtype=F64)
    torch.testing.assert_close(Cosine().alpha(half)[0], angle.cos() / torch.tensor(0.008 / 1.008 * torch.pi / 2).cos())
    torch.testing.assert_close(Trigonometric().alpha(half), half.sqrt())
    beta = Discrete.cosine().beta
    assert float(beta[-1]) == 0.999 and float(beta[0]) == pytest.approx(4.13e-5, rel=1e-2)


def test_whole_timesteps_are_exact_at_the_levels_and_first_order_between(generator):
    """A network that knows whole timesteps only: the error between them falls with their distance."""
    law = laws()[1]
    errors = []
    for steps in (250, 500, 1000, 2000):
        process = Discrete.linear(steps, 0.1 / steps, 20 / steps)
        network = Analytic(law, process, "eps", time=torch.round)
        prior = ConvertedPrior(network, process, "eps", 1, label=torch.round, data_mean=MEAN, data_std=STD)
        at = process.log_sigma[[0, 7, steps // 2, steps - 1]].exp() / STD
        u = states(law, at, torch.Generator().manual_seed(0))
        torch.testing.assert_close(prior.denoise(u, at), law.denoise(u, at), rtol=1e-9, atol=1e-9)
        k = torch.arange(steps // 10, steps - 1, steps // 40)
        between = ((process.log_sigma[k] + process.log_sigma[k + 1]) / 2).exp() / STD
        u = states(law, between, torch.Generator().manual_seed(0))
        errors.append(float((prior.denoise(u, between) - law.denoise(u, between)).square().mean().sqrt()))
        exact = ConvertedPrior(Analytic(law, process, "eps"), process, "eps", 1, data_mean=MEAN, data_std=STD)
        torch.testing.assert_close(exact.denoise(u, between), law.denoise(u, between), rtol=1e-9, atol=1e-9)
    assert errors[2] < 0.01
    slopes = [torch.tensor(a / b).log2().item() for a, b in itertools.pairwise(errors)]
    assert all(0.7 < slope < 1.4 for slope in slopes), (errors, slopes)


def test_outside_the_trained_range_the_denoiser_goes_on_smoothly(generator):
    law = GaussianPrior(torch.zeros(1, 2, 3, dtype=F64), 1.0)
    process = VE(sigma_min=0.05, sigma_max=20.0)
    prior = ConvertedPrior(Analytic(law, process, "eps"), process, "eps", 1, data_mean=MEAN, data_std=STD)
    low, high = prior.sigma_range
    assert (low, high) == pytest.approx((0.1, 40.0))
    u = torch.randn(1, 1, 2, 3, generator=generator, dtype=F64)
    # Below: the score of the smallest level. For white noise it is -u / (1 + low^2).
    for sigma in (1e-6, 0.03, 0.0999999):
        expected = u - sigma**2 * u / (1 + low**2)
        torch.testing.assert_close(prior.denoise(u, torch.tensor(sigma, dtype=F64)), expected, rtol=1e-12, atol=1e-12)
    # Above: the state brought back to the largest level; the mean in the limit.
    for sigma in (40.0000001, 80.0, 1e6):
        expected = u * high / (1 + high**2)
        w = MEAN + STD * sigma * u
        shrunk = (w * high / sigma - MEAN) / STD  # in u: the mean shrinks with the state
        torch.testing.assert_close(
            prior.denoise(sigma * u, torch.tensor(sigma, dtype=F64)), shrunk / (1 + high**2), rtol=1e-12, atol=1e-12
        )
        assert (prior.denoise(sigma * u, torch.tensor(sigma)) - expected).abs().max() < 1e-3


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("process", [SubVP(), Discrete.linear(), Flow(data_at=1), EDM()], ids=repr)
def test_derivatives_flow_through(process, prediction, generator):
    """Jacobian-vector products, forward and reverse, are those of the exact denoiser."""
    law = laws()[1]
    prior = ConvertedPrior(Analytic(law, process, prediction), process, prediction, 1, data_mean=MEAN, data_std=STD)
    sigma = torch.tensor([0.1, 3.0], dtype=F64)
    u, v = states(law, sigma, generator), torch.randn(2, 1, 2, 3, generator=generator, dtype=F64)
    for transform in (torch.func.jvp, None):
        products = []
        for denoise in (prior.denoise, law.denoise):
            if transform is not None:
                products.append(torch.func.jvp(lambda a: denoise(a, sigma), (u,), (v,))[1])  # noqa: B023
            else:
                a = u.clone().requires_grad_()
                products.append(torch.autograd.grad(denoise(a, sigma), a, v)[0])
        torch.testing.assert_close(*products, rtol=1e-6, atol=1e-6)


def test_single_precision_and_learned_variance(generator):
    """float32 states stay float32 and accurate; the second half of 2C channels (a learned variance) is dropped."""
    law = laws()[0]
    process = Discrete.linear()

    class WithVariance(Analytic):
        def forward(self, x, label):
            return torch.cat([super().forward(x, label), torch.full_like(x, torch.nan)], 1)

    prior = ConvertedPrior(WithVariance(law, process, "eps"), process, "eps", 1, data_mean=MEAN, data_std=STD)
    sigma = grid(prior, 5).float()
    u = states(law, sigma.double(), generator)
    found = prior.denoise(u.float(), sigma)
    assert found.dtype == torch.float32
    tolerance = 1e-6 * sigma.double().clamp_min(1).reshape(-1, 1, 1, 1) * 10
    assert ((found - law.denoise(u, sigma.double())).abs() < tolerance).all()


def test_physical_units_and_complex_fields(generator):
    """decode and encode are those of DiffusionPrior, in the field's units; the label function is applied."""
    seen = []

    class Record(torch.nn.Module):
        def forward(self, x, label):
            seen.append(label)
            return x

    prior = ConvertedPrior(
        Record(), VPLinear(), "x0", 2, label=lambda t: 999 * t, loc=280.0, scale=5.0, complex=True, units="K"
    )
    u = torch.randn(3, 2, 4, 5, generator=generator, dtype=F64)
    x = prior.decode(u)
    torch.testing.assert_close(x[:, 0], 280 + 5 * torch.complex(u[:, 0], u[:, 1]))
    torch.testing.assert_close(prior.encode(x), u)
    prior.denoise(u, torch.tensor(1.0))
    torch.testing.assert_close(VPLinear().std(seen[0] / 999) / VPLinear().alpha(seen[0] / 999), torch.ones(3).double())


def test_bad_use_is_named():
    network = torch.nn.Identity()
    with pytest.raises(ValueError, match="x0, eps, score, v, velocity, got 'epsilon'"):
        ConvertedPrior(network, EDM(), "epsilon", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="data_std must be positive"):
        ConvertedPrior(network, EDM(), "eps", 1, data_std=0.0)
    with pytest.raises(ValueError, match="smallest < largest"):
        ConvertedPrior(network, EDM(sigma_min=2.0, sigma_max=1.0), "eps", 1)
    with pytest.raises(ValueError, match="beta must hold"):
        Discrete(torch.tensor([0.1, 1.0]))
    with pytest.raises(ValueError, match="data_at must be 0 or 1"):
        Flow(data_at=2)

    class Wrong(torch.nn.Module):
        def forward(self, x, label):
            return x[..., :1]

    with pytest.raises(ValueError, match="expected that shape"):
        ConvertedPrior(Wrong(), EDM(), "x0", 1).denoise(torch.zeros(1, 1, 2, 3), torch.tensor(1.0))
