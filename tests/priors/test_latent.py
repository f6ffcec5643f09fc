"""Priors behind autoencoders: closed forms of the linear one, and pairs that do not belong together."""

import pytest
import torch
from torch import Generator

from scidiff.errors import InputError
from scidiff.inference import Likelihood, Posterior
from scidiff.linalg import Diagonal
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import LinearMap
from scidiff.priors import GaussianMixturePrior, GaussianPrior, LatentPrior, LinearAutoencoder
from scidiff.protocols import Autoencoder, Prior
from scidiff.samplers import Heun

F64 = torch.float64
SHAPE, D, K = (1, 3, 4), 12, 3


def random(*shape, seed=0):
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=F64)


def autoencoder(variance=True, seed=0):
    return LinearAutoencoder(
        280 + random(*SHAPE, seed=seed + 1),
        random(K, *SHAPE, seed=seed),
        torch.tensor([4.0, 1.0, 0.25], dtype=F64) if variance else None,
    )


def test_it_keeps_the_protocols():
    ae = autoencoder()
    prior = LatentPrior(ae, ae.code_prior())
    assert isinstance(ae, Autoencoder) and isinstance(prior, Prior)
    assert prior.affine and prior.shape == (K,) and prior.state_shape(SHAPE) == (K,)
    z = random(5, K, seed=3)
    assert torch.allclose(ae.encode(ae.decode(z)), z)  # columns are neither orthogonal nor of length one
    u = random(5, K, seed=4)
    assert torch.allclose(prior.encode(prior.decode(u)), u)
    x = 280 + random(2, *SHAPE, seed=5)
    back = ae.decode(ae.encode(x)) - x
    assert torch.allclose(back.flatten(1) @ ae.factor.mT, torch.zeros(2, K, dtype=F64), atol=1e-10)  # least squares


def test_principal_components_are_those_of_the_covariance():
    data = 5 + random(200, *SHAPE, seed=6) @ torch.diag(torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=F64))
    ae = LinearAutoencoder.fit(data, 4)
    covariance = torch.cov(data.flatten(1).mT)
    values, vectors = torch.linalg.eigh(covariance)
    assert torch.allclose(ae.variance, values[-4:].flip(0))
    overlap = ae.factor @ vectors[:, -4:].flip(1)
    assert torch.allclose(overlap.abs(), torch.eye(4, dtype=F64), atol=1e-8)
    codes = ae.encode(data)
    assert torch.allclose(torch.cov(codes.mT), torch.diag(ae.variance), atol=1e-10)
    white = LinearAutoencoder.fit(data, 4, whiten=True)
    assert torch.allclose(torch.cov(white.encode(data).mT), torch.eye(4, dtype=F64), atol=1e-10)
    assert torch.allclose(white.decode(white.encode(data)), ae.decode(codes))
    assert white.identity != ae.identity == LinearAutoencoder.fit(data, 4).identity


def test_complex_fields_have_real_codes():
    data = torch.complex(random(20, *SHAPE, seed=7), 2 * random(20, *SHAPE, seed=8))
    ae = LinearAutoencoder.fit(data, 19)
    assert ae.encode(data).dtype == F64
    assert torch.allclose(ae.decode(ae.encode(data)), data)  # 19 components hold 20 fields


def test_posterior_of_fields_is_the_textbook_formula():
    ae = autoencoder()
    prior = LatentPrior(ae, ae.code_prior())
    A, std = random(5, D, seed=9), torch.linspace(0.1, 0.5, 5, dtype=F64)
    y = random(5, seed=10) + A @ ae.loc.flatten()
    exact = prior.condition(LinearMap(A, SHAPE), GaussianNoise(std), y)
    W, S = ae.factor.mT, torch.diag(ae.variance)
    AW = A @ W
    gain = S @ AW.mT @ torch.linalg.inv(AW @ S @ AW.mT + torch.diag(std**2))
    mean = ae.loc.flatten() + W @ gain @ (y - A @ ae.loc.flatten())
    assert torch.allclose(exact.mean.flatten(), mean)
    assert torch.allclose(exact.covariance, W @ (S - gain @ AW @ S) @ W.mT, atol=1e-9)


def test_mixture_of_codes_is_a_mixture_of_fields():
    ae = autoencoder()
    covs = torch.stack([torch.eye(K, dtype=F64), 0.2 * torch.eye(K, dtype=F64)])
    codes = GaussianMixturePrior(torch.tensor([0.3, 0.7]), random(2, K, seed=11), covs)
    prior = LatentPrior(ae, codes)
    assert prior.affine
    operator, noise = LinearMap(random(2, D, seed=12), SHAPE), GaussianNoise(0.7)
    y = operator(prior.sample(1, Generator().manual_seed(0)))
    exact = prior.condition(operator, noise, y)
    composed = codes.condition(lambda z: operator(ae.decode(z)), noise, y)
    draws = ae.decode(composed.sample(4000, Generator().manual_seed(1)))
    assert torch.allclose(exact.weights, composed.weights)
    assert torch.allclose(exact.mean, draws.mean(0), atol=4 * float(exact.variance.max()) ** 0.5 / 4000**0.5)
    assert torch.allclose(exact.variance, draws.var(0), rtol=0.15)
    cdf = exact.marginal_cdf(draws)
    assert abs(float((cdf < 0.25).to(F64).mean()) - 0.25) < 0.02


def test_draws_of_fields_have_the_law():
    ae = autoencoder()
    prior = LatentPrior(ae, ae.code_prior())
    law = ae.law(ae.code_prior())
    ours = Heun(40)(prior, members=400, generator=Generator().manual_seed(2)).samples[:, 0]
    assert torch.allclose(ours.mean(0), law.mean, atol=4 * float(law.variance.max()) ** 0.5 / 20)
    assert torch.allclose(prior.sample(4000, Generator().manual_seed(3)).var(0), law.variance, rtol=0.15)


class Card:
    """A prior of codes that says what it was trained behind."""

    affine, shape, channels = True, None, 4

    def __init__(self, **card):
        self.card = card

    def denoise(self, u, sigma):
        return u

    def decode(self, u):
        return u

    encode = decode


class Strided:
    """Averages over squares of four pixels: an autoencoder that is not linear in name, and has a stride."""

    stride, identity = 4, "weights-a"

    def latent_shape(self, shape, /):
        if any(n < 4 or n % 4 for n in shape[1:]):
            raise ValueError(f"fields of sides {tuple(shape[1:])} do not fit the stride 4; pad or crop them.")
        return (4, *[n // 4 for n in shape[1:]])

    def encode(self, x):
        return torch.nn.functional.avg_pool2d(x, 4).repeat(1, 4, 1, 1)

    def decode(self, z):
        return z[:, :1].repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_pairs_that_do_not_belong_together():
    assert LatentPrior(Strided(), Card(autoencoder="weights-a")).state_shape((1, 8, 12)) == (4, 2, 3)
    assert LatentPrior(Strided(), Card()).card == {}  # a prior that says nothing is believed
    with pytest.raises(InputError, match=r"do not belong together.*weights-b.*weights-a"):
        LatentPrior(Strided(), Card(autoencoder="weights-b"))
    with pytest.raises(InputError, match="do not belong together"):
        LatentPrior(autoencoder(), GaussianPrior(torch.zeros(K + 1), Diagonal(torch.ones(K + 1))))
    wrong = Card()
    wrong.channels = 8
    with pytest.raises(InputError, match=r"\(4, 2, 3\).*8 channels"):
        LatentPrior(Strided(), wrong).state_shape((1, 8, 12))
    with pytest.raises(ValueError, match="stride 4"):
        LatentPrior(Strided(), Card()).state_shape((1, 3, 12))
    with pytest.raises(TypeError, match=r"LatentPrior\(autoencoder, prior\)"):
        LatentPrior(Card(), Strided())


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: LinearAutoencoder(torch.zeros(SHAPE), torch.zeros(2, 3, 4)), ValueError, "factor must hold fields"),
        (lambda: LinearAutoencoder(torch.zeros(SHAPE), torch.ones(2, *SHAPE)), ValueError, "linearly dependent"),
        (lambda: LinearAutoencoder.fit(random(5, *SHAPE), 5), ValueError, "need more fields"),
        (lambda: autoencoder().latent_shape((1, 4, 3)), ValueError, r"\(1, 3, 4\), got \(1, 4, 3\)"),
        (lambda: autoencoder().encode(torch.zeros(1, 1, 4, 3)), ValueError, "expected fields"),
        (
            lambda: LatentPrior(Strided(), Card()).condition(lambda x: x, GaussianNoise(1.0), torch.zeros(3)),
            TypeError,
            "LinearAutoencoder",
        ),
        (
            lambda: LatentPrior(autoencoder(), autoencoder().code_prior()).condition(
                LinearMap(random(2, D), SHAPE), PoissonNoise(1.0), torch.ones(2)
            ),
            TypeError,
            "Gaussian noise",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_posterior_takes_the_shape_of_states():
    prior = LatentPrior(Strided(), Card())
    likelihood = Likelihood(lambda x: x.flatten(1), GaussianNoise(1.0), torch.zeros(2, 96))
    posterior = Posterior(prior, likelihood, prior.state_shape((1, 8, 12)))
    assert not posterior.linear and posterior.residual(torch.zeros(2, 4, 2, 3)).shape == (2, 96)
    with pytest.raises(ValueError, match="channels"):
        Posterior(prior, likelihood, (1, 8, 12))
