"""Log densities by ODE, bounds and bits per dimension against laws whose answers are formulas."""

import functools
import math

import pytest
import torch

from scidiff.errors import NumericalError
from scidiff.priors import DiffusionPrior, GaussianMixturePrior, GaussianPrior
from scidiff.priors import likelihood as part
from scidiff.priors.likelihood import LogProb, TruncatedNormal, Uniform, bits_per_dimension, elbo, log_prob

F64 = torch.float64


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def field(size=8, dtype=F64):
    """A field with covariance exp(-distance / 2) in kelvin: its eigenvalues span two decades."""
    axis = torch.arange(size, dtype=F64)
    points = torch.cartesian_prod(axis, axis)
    return GaussianPrior(
        torch.full((1, size, size), 280.0, dtype=dtype), 25 * torch.exp(-torch.cdist(points, points) / 2)
    )


def modes():
    means = torch.tensor([[-3.0, 0.0, 1.0], [2.0, 1.0, -1.0]], dtype=F64).reshape(2, 3, 1)
    root = torch.randn(2, 3, 3, generator=rng(4), dtype=F64) / 2
    return GaussianMixturePrior(torch.tensor([0.3, 0.7]), means, root @ root.mT + 0.1 * torch.eye(3, dtype=F64))


def test_gaussian_field_to_a_thousandth():
    law = field()
    x = law.sample(2, rng())
    found, exact = log_prob(law, x), law.log_prob(x)
    torch.testing.assert_close(found.value, exact, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.value, exact, rtol=0, atol=1e-2)  # nats, of 64 numbers
    assert (found.standard_error == 0).all() and (found.calls > 50).all() and (found.calls < 1000).all()


def test_mixture_against_its_density():
    """Fields of both modes, between them and far out."""
    law = modes()
    x = torch.cat([law.sample(5, rng(1)), torch.tensor([[-0.5, 0.5, 0.0], [8.0, 8.0, 8.0]], dtype=F64)[..., None]])
    found = log_prob(law, x, sigma_max=300.0)
    noised = law.noised_log_prob(law.encode(x), torch.tensor(0.002)) - 3 * math.log(law.scale)
    torch.testing.assert_close(found.value, noised, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.value, law.log_prob(x), rtol=2e-3, atol=2e-3)


def test_the_error_follows_the_tolerance():
    """Against the density of the noised field: the solver's error alone, which falls with the tolerance."""
    law = modes()
    x = law.sample(2, rng(2))
    exact = log_prob(law, x, rtol=1e-9, atol=1e-9).value
    errors, calls = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = log_prob(law, x, rtol=tolerance, atol=tolerance)
        errors.append(float((found.value - exact).abs().max()))
        calls.append(float(found.calls.double().mean()))
    assert errors[0] < 0.1 and errors[1] < 1e-3 and errors[2] < 1e-5
    # Order 5: a hundred times the accuracy costs 100^(1/5) = 2.5 times the calls.
    assert 1.4 < calls[2] / calls[1] < 3.5


def test_the_step_has_order_five_and_its_error_estimate_order_four():
    """On logistic growth towards a moving bound: the error falls as h^5, the estimate of one step's error as h^5."""

    def rate(u, tau):
        return 3 * u * (1 + tau[:, None] - u), u.square()

    def step(u, change, tau, h):
        us, cs = [rate(u, tau)[0]], [rate(u, tau)[1]]
        return *part._step(rate, u, change, tau, h, us, cs), h * part._sum(part._ERROR, us)

    ends = {}
    for count in (64, 128, 1024):
        u, change = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
        h = torch.full((1,), 2 / count, dtype=F64)
        for k in range(count):
            u, change, _ = step(u, change, k * h, h)
        ends[count] = torch.cat([u, change]).flatten()
    errors = [(ends[count] - ends[1024]).abs() for count in (64, 128)]
    slopes = (errors[0] / errors[1]).log2()
    assert float(slopes[0]) == pytest.approx(5, abs=0.3) and float(slopes[1]) > 4.7, (errors, slopes)

    start = torch.full((1, 1), 0.3, dtype=F64), torch.zeros(1, 1, dtype=F64), torch.zeros(1, dtype=F64)
    estimates = [float(step(*start, torch.full((1,), h, dtype=F64))[2].abs()) for h in (0.02, 0.01)]
    assert math.log2(estimates[0] / estimates[1]) == pytest.approx(5, abs=0.3)


def test_hutchinson_is_unbiased_with_an_honest_standard_error():
    law = field(5)
    x = law.sample(1, rng(3)).expand(40, -1, -1, -1)
    exact = log_prob(law, x[:1], probes=0, rtol=1e-4, atol=1e-4).value
    found = log_prob(law, x, probes=4, generator=rng(5), rtol=1e-4, atol=1e-4)
    mean = float((found.value - exact).mean())
    spread = float(found.value.std())
    assert abs(mean) < 3.5 * spread / math.sqrt(40)
    # 40 standard errors from 4 probes each, averaged as variances: 13 % of scatter.
    assert float(found.standard_error.square().mean().sqrt()) == pytest.approx(spread, rel=0.45)
    assert spread > 0.1


def test_rows_and_generators(generator):
    law = field(4)
    x = law.sample(3, generator)
    for estimate in (functools.partial(log_prob, probes=2, rtol=1e-4, atol=1e-4), functools.partial(elbo, draws=8)):
        whole = estimate(law, x, generator=rng(7))
        torch.testing.assert_close(estimate(law, x[:1], generator=rng(7)).value, whole.value[:1], rtol=1e-9, atol=1e-9)
        assert torch.equal(estimate(law, x, generator=rng(7)).value, whole.value)
        assert not torch.equal(estimate(law, x, generator=rng(8)).value, whole.value)


def test_units_and_single_precision():
    """A field in other units has another density by the Jacobian alone; float32 fields give the same number."""
    law, x = field(4), field(4).sample(2, rng(9))
    big = GaussianPrior(1000 * law.mean, 1e6 * law.covariance)
    for estimate in (log_prob, functools.partial(elbo, generator=rng(1), draws=16)):
        shift = 16 * math.log(1000)
        torch.testing.assert_close(estimate(big, 1000 * x).value + shift, estimate(law, x).value, rtol=1e-7, atol=1e-7)
    single = field(4, torch.float32)
    assert single.encode(x.float()).dtype == torch.float32
    torch.testing.assert_close(log_prob(single, x.float()).value, log_prob(law, x).value, rtol=1e-3, atol=1e-2)


def test_complex_fields_count_both_parts():
    law = GaussianPrior(torch.zeros(1, 2, 3, dtype=torch.complex128), torch.diag(torch.linspace(0.5, 2, 12, dtype=F64)))
    x = law.sample(2, rng(2))
    torch.testing.assert_close(log_prob(law, x).value, law.log_prob(x), rtol=1e-3, atol=1e-3)

    class Zero(torch.nn.Module):
        def forward(self, x, label):
            return 0 * x

    white = DiffusionPrior(Zero(), 2, scale=torch.tensor([3.0]), complex=True)  # white noise, deviation 3 per part
    z = 3 * torch.complex(*torch.randn(2, 2, 1, 2, 3, generator=rng(3), dtype=F64).unbind(0))
    exact = -0.5 * (z.abs().square() / 9).flatten(1).sum(1) - 12 / 2 * math.log(2 * math.pi * 9)
    torch.testing.assert_close(log_prob(white, z).value, exact, rtol=1e-4, atol=1e-3)


def gaussian_elbo(k, u, low, high):
    """Closed form for one number of variance k: the integral over ln sigma by a fine rule."""
    tau = torch.linspace(math.log(low), math.log(high), 20001, dtype=F64)
    s = (2 * tau).exp()
    loss = torch.trapezoid((s.square() * u**2 + k**2 * s) / (k + s).square() / s, tau)
    kl = 0.5 * (math.log((1 + high**2) / high**2) + (high**2 + u**2) / (1 + high**2) - 1)
    return -0.5 * math.log(2 * math.pi * math.e * low**2) - kl - float(loss)


def test_elbo_is_what_its_formula_says():
    """Estimates against the exact value of the bound for each field, and the standard error against their scatter."""
    k = torch.linspace(0.2, 1.8, 9, dtype=F64)
    law = GaussianPrior(torch.zeros(1, 3, 3, dtype=F64), torch.diag(k))
    x = law.sample(1, rng(4))
    exact = sum(gaussian_elbo(float(a), float(b), 0.05, 20.0) for a, b in zip(k, x.flatten(), strict=True))
    found = elbo(law, x.expand(100, -1, -1, -1), draws=64, generator=rng(5), sigma_min=0.05, sigma_max=20.0)
    spread = float(found.value.std())
    assert abs(float(found.value.mean()) - exact) < 3.5 * spread / 10
    assert float(found.standard_error.square().mean().sqrt()) == pytest.approx(spread, rel=0.3)


def test_elbo_is_below_the_density_by_its_known_gap():
    """Mean over the law: ELBO = -entropy - sum ln(1 + sigma_min^2 / k) / 2 for exact denoisers (sigma_max large)."""
    k = torch.linspace(0.2, 1.8, 9, dtype=F64)
    law = GaussianPrior(torch.zeros(1, 3, 3, dtype=F64), torch.diag(k))
    x = law.sample(300, rng(6))
    for low in (0.3, 0.02):
        found = elbo(law, x, draws=128, generator=rng(7), sigma_min=low)
        gap = law.log_prob(x) - found.value
        known = 0.5 * torch.log1p(low**2 / k).sum()
        error = float(gap.std()) / 300**0.5
        assert float(gap.mean()) == pytest.approx(float(known), abs=3.5 * error), (low, error)
    assert known < 0.01 and error < 0.15
    # A denoiser that is wrong loses: white noise of unit variance for the same fields.
    wrong = GaussianPrior(torch.zeros(1, 3, 3, dtype=F64), 1.0)
    worse = elbo(wrong, x, draws=32, generator=rng(7))
    assert float((found.value - worse.value).mean()) > 0.5


def test_bits_per_dimension_of_smooth_and_of_discrete_fields():
    """Uniform noise suits a density that is flat in a cell; the truncated normal one of narrow peaks."""

    def exact(prior, x, generator):
        zero = torch.zeros(len(x), dtype=F64)
        return LogProb(prior.log_prob(x), zero, zero.long())

    smooth = GaussianPrior(torch.zeros(4, dtype=F64), torch.diag(torch.tensor([1.0, 4.0, 9.0, 2.0], dtype=F64)))
    x = (smooth.sample(3, rng(1)) / 0.1).round() * 0.1
    std = smooth.variance.sqrt()
    cell = torch.special.ndtr((x + 0.05) / std) - torch.special.ndtr((x - 0.05) / std)
    truth = -cell.log2().mean(1)
    found = bits_per_dimension(smooth, x, Uniform(0.1), draws=64, generator=rng(2), estimate=exact)
    assert ((found.value - truth).abs() < 4 * found.standard_error + 1e-3).all()
    assert (found.standard_error < 0.02).all()

    weights = torch.tensor([0.5, 0.25, 0.25])
    peaks = GaussianMixturePrior(weights, torch.tensor([[-1.0], [0.0], [1.0]], dtype=F64), 0.01**2 * torch.eye(1))
    x = torch.tensor([[-1.0], [0.0]], dtype=F64)
    found = bits_per_dimension(peaks, x, TruncatedNormal(1.0, 0.01), generator=rng(3), estimate=exact)
    torch.testing.assert_close(found.value, torch.tensor([1.0, 2.0], dtype=F64), rtol=1e-6, atol=1e-6)
    assert (found.standard_error < 1e-6).all()
    loose = bits_per_dimension(peaks, x, Uniform(1.0), draws=64, generator=rng(3), estimate=exact)
    assert (loose.value > found.value + 10).all()


def test_truncated_normal_noise_has_the_density_it_reports():
    """Integral of q over the cell is one: E_q[1 / q] equals the cell's width; complex cells are squares."""
    from scidiff.rng import Streams

    rule = TruncatedNormal(width=0.6, std=0.2)
    x = torch.zeros(20000, 1, dtype=F64)
    noise, log_q = rule(x, Streams(0, (0,), len(x)))
    assert (noise.abs() <= 0.3).all()
    inverse = (-log_q).exp()
    assert float(inverse.mean()) == pytest.approx(0.6, abs=4 * float(inverse.std()) / 141)
    z = torch.zeros(5, 1, 2, dtype=torch.complex128)
    noise, log_q = Uniform(0.5)(z, Streams(0, (0,), len(z)))
    assert noise.is_complex() and noise.imag.abs().min() > 0
    torch.testing.assert_close(log_q, torch.full((5,), -4 * math.log(0.5), dtype=F64))


def test_bits_by_the_ode_with_its_defaults():
    law = GaussianPrior(torch.zeros(2, dtype=F64), torch.diag(torch.tensor([1.0, 4.0], dtype=F64)))
    x = torch.tensor([[0.5, -1.0]], dtype=F64)
    cell = torch.special.ndtr((x + 0.25) / law.variance.sqrt()) - torch.special.ndtr((x - 0.25) / law.variance.sqrt())
    found = bits_per_dimension(law, x, Uniform(0.5), draws=8, generator=rng(1))
    assert float(found.value) == pytest.approx(float(-cell.log2().mean()), abs=4 * float(found.standard_error) + 0.01)


def test_trouble_is_loud():
    law = GaussianPrior(torch.zeros(1, 4, 4, dtype=F64), 2.0)
    x = torch.zeros(2, 1, 4, 4, dtype=F64)
    with pytest.raises(ValueError, match="at least 2, for a standard error; got 1"):
        log_prob(law, x, probes=1)
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        log_prob(law, x, sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="draws must be even"):
        elbo(law, x, draws=3)
    with pytest.raises(NumericalError, match="3 steps reached noise level 0.00"):
        log_prob(law, x + 1, max_steps=3)

    class Mixed(GaussianPrior):
        def decode(self, u):
            return super().decode(u + u.roll(1, -1))

    with pytest.raises(ValueError, match="decode mixes the numbers"):
        elbo(Mixed(law.mean, 1.0), x, draws=2)

    class Broken(GaussianPrior):
        def denoise(self, u, sigma):
            return u / (sigma.reshape(-1, 1, 1, 1) < 1)

    with pytest.raises(NumericalError, match="not finite at noise level"):
        log_prob(Broken(law.mean, 1.0), x + 1)
