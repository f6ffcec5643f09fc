"""What every sampler must do, whatever its method: one suite over the registry.

Fields of one to three dimensions and several channels, float32 and float64, a batch of observations times members,
members one by one or all at once, units, seeds, counters, a compiled denoiser, and one clear error for bad use.
Whether a method draws from the right law is tested in the files of the methods.
"""

import dataclasses

import pytest
import torch
from torch import Generator

from scidiff.errors import NumericalError
from scidiff.inference import Likelihood, Posterior
from scidiff.linalg import Diagonal
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import LinearMap, Mask
from scidiff.posterior import get, names
from scidiff.posterior.registry import SAMPLERS
from scidiff.posterior.spectrum import Spectrum

FEW = {"steps": 6, "levels": 4, "iterations": 4, "particles": 8, "queries": 8, "samples": 4, "draws": 3, "inner": 2}
"""Small settings, for the fields that a method has."""
SHAPES = {"1-D": (1, 9), "2-D": (2, 3, 4), "3-D": (1, 2, 3, 4)}


def fast(name):
    """The method at a small setting: its own fields first, then those of its integrator."""
    method = get(name)
    own = {f.name for f in dataclasses.fields(method)}
    method = dataclasses.replace(method, **{key: value for key, value in FEW.items() if key in own})
    if "sampler" in own:
        inner = {f.name for f in dataclasses.fields(method.sampler)}
        if "steps" in inner:
            method = dataclasses.replace(method, sampler=dataclasses.replace(method.sampler, steps=6))
    return method


class Field:
    """Independent pixels with an exact denoiser, in any type and on any device."""

    affine = True

    def __init__(self, shape, loc=0.0, scale=1.0):
        self.shape, self.loc, self.scale, self.rows = shape, loc, scale, 0
        self.k = 0.5 + torch.rand(shape, generator=Generator().manual_seed(5), dtype=torch.float64)

    def denoise(self, u, sigma):
        self.rows += len(u)
        k = self.k.to(u)
        return u * k / (k + torch.as_tensor(sigma).to(u).reshape(-1, *[1] * len(self.shape)) ** 2)

    def decode(self, u):
        return self.loc + self.scale * u

    def encode(self, x):
        return (x - self.loc) / self.scale


def matrix(shape):
    d = torch.Size(shape).numel()
    return LinearMap(torch.randn(5, d, generator=Generator().manual_seed(1), dtype=torch.float64) / d**0.5, shape)


class Counting:
    """An operator that counts rows."""

    def __init__(self, operator):
        self.operator, self.rows = operator, 0
        self.svd, self.adjoint, self.matrix = operator.svd, operator.adjoint, operator.matrix

    def __call__(self, x):
        self.rows += len(x)
        return self.operator(x)


def problem(shape=(2, 3, 4), dtype=torch.float32, batch=1, loc=0.0, scale=1.0, device="cpu", prior=None, gain=1.0):
    operator = LinearMap(gain * matrix(shape).matrix, shape)
    white = torch.randn(batch, 5, generator=Generator().manual_seed(2), dtype=torch.float64)
    y = operator(torch.full((batch, *shape), loc, dtype=torch.float64)) + gain * scale * white
    prior = prior or Field(shape, loc, scale)
    return Posterior(prior, Likelihood(operator, GaussianNoise(0.3 * scale * gain), y.to(device, dtype)))


def seeded():
    return Generator().manual_seed(3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("name", names())
def test_any_field_any_type(name, shape, dtype):
    ensemble = fast(name)(problem(shape, dtype, batch=2), 3, seeded())
    assert ensemble.samples.shape == (3, 2, *shape) and ensemble.samples.dtype == dtype
    assert bool(torch.isfinite(ensemble.samples).all())
    assert not ensemble.samples.requires_grad


@pytest.mark.parametrize("name", names())
def test_members_are_the_same_alone_and_together(name):
    """To rounding, in float64; the same call twice to the last bit; another seed is another ensemble."""
    method, posterior = fast(name), problem(dtype=torch.float64, batch=2)
    together = method(posterior, 9, seeded())
    close = {"rtol": 1e-6, "atol": 1e-8}
    assert torch.equal(method(posterior, 9, seeded()).samples, together.samples)
    for m in (0, 4, 8):
        assert torch.allclose(method(posterior, [m], seeded()).samples[0], together.samples[m], **close)
    for size in (2, 7):
        assert torch.allclose(method(posterior, 9, seeded(), batch_size=size).samples, together.samples, **close)
    point = getattr(method, "point_estimate", False)
    assert point or not torch.allclose(method(posterior, 9, Generator().manual_seed(4)).samples, together.samples)


@pytest.mark.parametrize("name", names())
def test_observations_do_not_influence_each_other(name):
    method, posterior = fast(name), problem(dtype=torch.float64, batch=2)
    part = posterior.likelihoods[0]

    def first(y):
        return method(Posterior(posterior.prior, Likelihood(part.operator, part.noise, y)), 5, seeded()).samples[:, 0]

    ours = first(part.y)
    loud = torch.cat([part.y[:1], 100 * part.y[1:]])
    assert torch.allclose(first(part.y[:1]), ours, rtol=1e-6, atol=1e-8)
    assert torch.allclose(first(loud), ours, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", names())
def test_units_do_not_matter(name):
    """Field in kelvin, and measurement in other units, give the same ensemble."""
    method = fast(name)
    ours = method(problem(dtype=torch.float64), 5, seeded()).samples
    kelvin = method(problem(dtype=torch.float64, loc=280.0, scale=5.0), 5, seeded()).samples
    assert torch.allclose((kelvin - 280) / 5, ours, rtol=1e-5, atol=1e-6)
    volts = method(problem(dtype=torch.float64, gain=1e4), 5, seeded()).samples
    assert torch.allclose(volts, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", names())
def test_counters_are_the_calls_made(name):
    """Rows that passed through the network and the operator, per member."""
    method = fast(name)
    particles = getattr(method, "particles", 3)
    posterior = problem()
    part = posterior.likelihoods[0]
    prior, operator = posterior.prior, Counting(part.operator)
    counted = Posterior(prior, Likelihood(operator, part.noise, part.y))
    decomposition = 0
    if "svd" in method.requires:
        Spectrum.of(counted.tile(particles))
        decomposition = operator.rows
    prior.rows = operator.rows = 0
    cost = method(counted, particles, seeded()).cost
    assert cost.denoiser * particles == prior.rows > 0
    probes = operator.rows - decomposition - cost.operator * particles  # of one row, before the first step
    assert 0 <= probes <= 2


@pytest.mark.parametrize("name", names())
def test_callback_sees_every_step_down_to_zero(name):
    seen = []
    fast(name)(problem(), 2, seeded(), callback=lambda step, steps, sigma, u: seen.append((step, steps, sigma)))
    steps = [step for step, _, _ in seen]
    assert steps == list(range(1, seen[-1][1] + 1))
    sigmas = [sigma for _, _, sigma in seen]
    assert all(b <= a for a, b in zip(sigmas, sigmas[1:], strict=False))


@pytest.mark.parametrize("name", names())
def test_compiled_denoiser(name):
    """`torch.compile` of the network changes nothing but speed (the eager backend needs no compiler)."""
    posterior = problem(dtype=torch.float64)
    ours = fast(name)(posterior, 2, seeded()).samples
    compiled = Field((2, 3, 4))
    compiled.denoise = torch.compile(lambda u, sigma: Field.denoise(compiled, u, sigma), backend="eager")
    theirs = fast(name)(problem(dtype=torch.float64, prior=compiled), 2, seeded()).samples
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", names())
def test_on_a_gpu(name):
    ours = fast(name)(problem(dtype=torch.float64), 3, seeded()).samples
    theirs = fast(name)(problem(dtype=torch.float64, device="cuda"), 3, seeded()).samples
    assert theirs.is_cuda and torch.allclose(theirs.cpu(), ours, rtol=1e-4, atol=1e-5)


class Square:
    """A nonlinear operator with a gradient."""

    def __call__(self, x):
        return x.square().flatten(1)[:, :5] + 1


class Hidden(Square):
    """The same as a black box."""

    differentiable = False


def nonlinear(operator, noise, shape=(2, 3, 4)):
    return Posterior(Field(shape), Likelihood(operator, noise, torch.ones(1, 5)))


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("noise", [GaussianNoise(0.3), PoissonNoise(1.0)], ids=repr)
@pytest.mark.parametrize("operator", [Square(), Hidden()], ids=["nonlinear", "black box"])
def test_what_a_method_does_not_require_it_does_without(name, operator, noise):
    """A method either runs on nonlinear operators, black boxes and counts, or says what it lacks and what to do."""
    posterior, method = nonlinear(operator, noise), fast(name)
    row = SAMPLERS[name].requires
    lacks = {"linear", "svd"} & row
    lacks |= {"gradient"} & row if isinstance(operator, Hidden) else set()
    lacks |= {"gaussian"} & row if isinstance(noise, PoissonNoise) else set()
    if lacks:
        with pytest.raises(TypeError, match=r"Samplers that would work: .*\. Or: "):
            method(posterior, 2, seeded())
    else:
        samples = method(posterior, 2, seeded()).samples
        assert bool(torch.isfinite(samples).all())


@pytest.mark.parametrize("name", names())
def test_y_of_another_shape(name):
    posterior = problem()
    part = posterior.likelihoods[0]
    for y in (part.y[0], part.y[:, :3]):
        wrong = Posterior(posterior.prior, Likelihood(part.operator, part.noise, y))
        with pytest.raises(ValueError, match="shape"):
            fast(name)(wrong, 2, seeded())


class Fragile:
    """A linear operator that answers NaN to large fields, as a solver that blew up."""

    def __init__(self, operator, bound):
        self.operator, self.bound, self.broke = operator, bound, False
        self.adjoint = operator.adjoint

    def __call__(self, x):
        z = self.operator(x)
        large = x.flatten(1).abs().amax(1, keepdim=True) > self.bound
        self.broke |= bool(large.any())
        return torch.where(large, torch.nan, z)


@pytest.mark.parametrize("name", [n for n in names() if "svd" not in SAMPLERS[n].requires])
def test_nan_from_the_operator_names_the_level(name):
    posterior = problem()
    part = posterior.likelihoods[0]
    operator = Fragile(part.operator, 1e-3)
    broken = Posterior(posterior.prior, Likelihood(operator, part.noise, part.y))
    try:
        fast(name)(broken, 2, seeded())
    except NumericalError as error:
        assert "noise level" in str(error)
    else:
        assert not operator.broke  # a method that works with the operator's matrix never asked


@pytest.mark.parametrize("name", [n for n in names() if "svd" in SAMPLERS[n].requires])
def test_svd_samplers_without_svd(name):
    posterior = problem()
    part = posterior.likelihoods[0]
    plain = Posterior(posterior.prior, Likelihood(Fragile(part.operator, 1e3), part.noise, part.y))
    with pytest.raises(TypeError, match=r"needs svd.*LinearMap\.dense"):
        fast(name)(plain, 2, seeded())


class ComplexMask(Mask):
    """Sees complex fields alone, as an MRI scanner does."""

    def __call__(self, x):
        return super().__call__(x) + 0j

    svd = None  # type: ignore[assignment]


def test_complex_operator_with_a_real_prior():
    mask = ComplexMask(torch.arange(12).reshape(3, 4) % 2 == 0)
    posterior = Posterior(Field((2, 3, 4)), Likelihood(mask, GaussianNoise(0.1), torch.ones(1, 2, 6) + 1j))
    with pytest.raises(TypeError, match="maps complex fields.*RealField"):
        get("mmps")(posterior, 2, seeded())


@pytest.mark.parametrize("std", [0.0, -1.0, torch.tensor([1.0, 0.0])])
def test_noise_must_be_positive(std):
    with pytest.raises(ValueError, match="std must be positive"):
        GaussianNoise(std)


def test_unequal_noise_and_covariances_are_whitened():
    """A method of the spectrum refuses what it cannot keep, a matrix always works."""
    posterior = problem()
    part = posterior.likelihoods[0]
    for noise in (GaussianNoise(torch.linspace(0.1, 1.0, 5)), GaussianNoise(Diagonal(torch.linspace(0.1, 1.0, 5)))):
        for name in names():
            ensemble = fast(name)(Posterior(posterior.prior, Likelihood(part.operator, noise, part.y)), 2, seeded())
            assert bool(torch.isfinite(ensemble.samples).all()), name
