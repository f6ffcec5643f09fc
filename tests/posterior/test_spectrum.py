"""The spectral form of a measurement against the whitened operator itself."""

import pytest
import torch
from torch import Generator

from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.linalg import Dense
from scidiff.noise import GaussianNoise
from scidiff.operators import Convolution, Downsampling, LinearMap, Mask
from scidiff.posterior.measurement import Measurement
from scidiff.posterior.spectrum import Spectrum
from scidiff.priors import GaussianPrior

F64 = torch.float64
MASK = Mask(torch.arange(20).reshape(4, 5) % 3 > 0)


def noise_of(kind: str, n: int) -> GaussianNoise:
    g = Generator().manual_seed(1)
    if kind == "scalar":
        return GaussianNoise(0.3)
    if kind == "diagonal":
        return GaussianNoise(0.1 + torch.rand(n, generator=g, dtype=F64))
    a = torch.randn(n, n, generator=g, dtype=F64)
    return GaussianNoise(Dense(a @ a.mT + torch.eye(n, dtype=F64)))


def build(operator: object, noise: GaussianNoise, complex: bool = False, n: int = 13) -> Posterior:
    g = Generator().manual_seed(0)
    mean = torch.full((1, 4, 5), 280 + 3j if complex else 280.0, dtype=torch.complex128 if complex else F64)
    prior = GaussianPrior(mean, 25.0)
    y = torch.randn(2, 1, n, generator=g, dtype=mean.dtype) + 280
    return Posterior(prior, Likelihood(operator, noise, y if not isinstance(operator, LinearMap) else y[:, 0]))


BLUR = Convolution(torch.tensor([[0.5, 0.2, 0.0], [0.1, 0.0, 0.2]], dtype=F64), (4, 5))


def observed(operator: Convolution | Downsampling, complex: bool = False) -> Posterior:
    """Two fields near 280 seen through an operator that keeps their dimensions."""
    p = build(MASK, noise_of("scalar", 13), complex)
    x = p.prior.sample(2, Generator().manual_seed(2))
    return Posterior(p.prior, Likelihood(operator, noise_of("scalar", 1), operator(x)))


CASES = {
    "mask": lambda: build(MASK, noise_of("scalar", 13)),
    "mask, complex": lambda: build(MASK, noise_of("scalar", 13), complex=True),
    "blur": lambda: observed(BLUR),
    "blur, complex": lambda: observed(BLUR, complex=True),
    "coarse": lambda: observed(Downsampling((2, 1), (4, 5))),
    "coarse, complex": lambda: observed(Downsampling((2, 1), (4, 5)), complex=True),
    "matrix, diagonal": lambda: build(LinearMap.dense(MASK, (1, 4, 5)), noise_of("diagonal", 13)),
    "matrix, correlated": lambda: build(LinearMap.dense(MASK, (1, 4, 5)), noise_of("correlated", 13)),
}


@pytest.mark.parametrize("name", list(CASES))
def test_spectrum_is_the_whitened_operator(name: str) -> None:
    """Same Gram matrix, same data term up to what the operator does not see."""
    posterior = CASES[name]()
    spectrum = Spectrum.of(posterior)
    g = Generator().manual_seed(3)
    u = torch.randn(2, *posterior.shape, generator=g, dtype=F64)
    measurement = Measurement(posterior, Cost())
    forward = measurement.forward(u)
    seen = spectrum.s * spectrum.analyse(u)
    assert torch.allclose(seen.square().sum(1), forward.square().sum(1), rtol=1e-8)
    back = spectrum.synthesise(spectrum.s * spectrum.y)
    assert torch.allclose(back, measurement.adjoint(measurement.residual(torch.zeros_like(u))), rtol=1e-8, atol=1e-6)
    c = spectrum.analyse(u)
    assert torch.allclose(spectrum.analyse(spectrum.synthesise(c)), c, atol=1e-10)


def test_structure_is_found_where_it_is_cheap() -> None:
    cheap = {name for name in CASES if Spectrum.structured(CASES[name]()) is not None}
    assert cheap == {"mask", "mask, complex", "blur", "blur, complex", "coarse", "coarse, complex"}
    part = CASES["mask"]().likelihoods[0]
    weighed = Posterior(CASES["mask"]().prior, Likelihood(MASK, noise_of("diagonal", 13), part.y))
    assert Spectrum.structured(weighed) is None


def test_what_keeps_no_structure_is_refused() -> None:
    with pytest.raises(TypeError, match=r"LinearMap\.dense"):
        Spectrum.of(build(MASK, noise_of("diagonal", 13)))
    posterior = CASES["mask"]()
    two = Posterior(posterior.prior, posterior.likelihoods * 2)
    with pytest.raises(TypeError, match="several instruments"):
        Spectrum.of(two)
