"""A product of priors answers as its parts do."""

import pytest
import torch
from torch import Generator, Tensor

from scidiff.linalg import Stationary
from scidiff.priors import GaussianPrior, ProductPrior
from scidiff.protocols import Prior

F64, C128 = torch.float64, torch.complex128


class AnySize:
    """A denoiser for any size, with a scale of its own; complex fields."""

    affine, shape, channels = True, None, 2

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        return u / (1 + sigma.reshape(-1, *[1] * (u.ndim - 1)) ** 2)

    def decode(self, u: Tensor) -> Tensor:
        return 3 * torch.complex(u[:, :1], u[:, 1:])

    def encode(self, x: Tensor) -> Tensor:
        return torch.cat([x.real, x.imag], 1) / 3


def second() -> GaussianPrior:
    mean = torch.zeros(1, 4, 5, dtype=C128)
    return GaussianPrior(mean, Stationary.power_law((4, 5), variance=0.25, channels=2))


def test_product_is_its_parts() -> None:
    prior = ProductPrior([AnySize(), second()])
    assert isinstance(prior, Prior) and prior.shape == (4, 4, 5) and prior.channels == 4 and prior.affine
    u = torch.randn(3, 4, 4, 5, generator=Generator().manual_seed(0), dtype=F64)
    sigma = torch.tensor([0.1, 1.0, 20.0], dtype=F64)
    parts = [AnySize().denoise(u[:, :2], sigma), second().denoise(u[:, 2:], sigma)]
    assert torch.equal(prior.denoise(u, sigma), torch.cat(parts, 1))
    x = prior.decode(u)
    assert x.shape == (3, 2, 4, 5) and x.dtype == C128
    assert torch.allclose(x[:, 1:], second().decode(u[:, 2:])) and torch.allclose(prior.encode(x), u)


def test_product_of_gaussians_is_a_gaussian() -> None:
    a, b = (torch.randn(6, 6, generator=Generator().manual_seed(k), dtype=F64) for k in (0, 1))
    one = GaussianPrior(torch.zeros(1, 2, 3, dtype=F64), a @ a.mT)
    two = GaussianPrior(torch.ones(1, 2, 3, dtype=F64), b @ b.mT)
    prior = ProductPrior([one, two])
    u, sigma = torch.randn(2, 2, 2, 3, generator=Generator().manual_seed(2), dtype=F64), torch.tensor(0.7, dtype=F64)
    joint = torch.block_diag(one.covariance / one.scale**2, two.covariance / two.scale**2)
    truth = u.flatten(1) @ (joint @ torch.linalg.inv(joint + 0.49 * torch.eye(12))).mT
    assert torch.allclose(prior.denoise(u, sigma).flatten(1), truth, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: ProductPrior([]), ValueError, "at least one"),
        (lambda: ProductPrior([second(), GaussianPrior(torch.zeros(1, 4, 6), 1.0)]), ValueError, "one grid"),
        (lambda: ProductPrior([second()]).decode(torch.ones(1, 3, 4, 5)), ValueError, "2 channels"),
        (lambda: ProductPrior([second()]).encode(torch.ones(1, 2, 4, 5, dtype=C128)), ValueError, "1 channels"),
        (
            lambda: ProductPrior([second(), GaussianPrior(torch.zeros(1, 4, 5), 1.0)]).decode(torch.ones(1, 3, 4, 5)),
            TypeError,
            "complex",
        ),
    ],
)
def test_wrong_input_is_explained(make, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()
