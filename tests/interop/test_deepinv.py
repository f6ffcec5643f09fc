"""deepinv's denoisers as priors and back: the same numbers in both libraries' units."""

import pytest
import torch

deepinv = pytest.importorskip("deepinv")

from scidiff.interop.deepinv import PriorDenoiser, from_deepinv  # noqa: E402
from scidiff.priors import GaussianPrior  # noqa: E402

F64 = torch.float64


def exact():
    root = torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=F64)
    return GaussianPrior(torch.zeros(1, 3, 4, dtype=F64), root @ root.T + torch.eye(12, dtype=F64))


def test_there_and_back_is_the_same_denoiser(generator):
    law = exact()
    prior = from_deepinv(PriorDenoiser(law, 0.5, 0.25), channels=1, loc=280.0, scale=5.0, units="K")
    u = torch.randn(4, 1, 3, 4, generator=generator, dtype=F64)
    sigma = torch.tensor([0.01, 0.3, 2.0, 80.0], dtype=F64)
    torch.testing.assert_close(prior.denoise(u, sigma), law.denoise(u, sigma))
    torch.testing.assert_close(prior.denoise(u, torch.tensor(0.3))[1], law.denoise(u, sigma)[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(prior.decode(u), 280 + 5 * u)
    assert prior.sigma_range == pytest.approx((0.008, 320.0))


def test_a_denoiser_of_deepinv_sees_images_and_their_noise(generator):
    """DRUNet called by hand on images and levels in its own units."""
    torch_state = torch.get_rng_state()
    network = deepinv.models.DRUNet(in_channels=1, out_channels=1, nc=(4, 4, 4, 4), nb=1, pretrained=None)
    torch.set_rng_state(torch_state)
    prior = from_deepinv(network, channels=1, sigma_max=0.2)
    u = torch.randn(2, 1, 16, 8, generator=generator)
    sigma = torch.tensor([0.1, 0.6])
    expected = torch.cat(
        [(network(0.5 + 0.25 * v[None], 0.25 * float(s)) - 0.5) / 0.25 for v, s in zip(u, sigma, strict=True)]
    )
    torch.testing.assert_close(prior.denoise(u, sigma), expected, rtol=1e-4, atol=1e-5)
    assert prior.sigma_range == pytest.approx((0.008, 0.8))


@pytest.mark.parametrize("sigma", [0.3, torch.tensor(0.3), torch.tensor([0.3]), torch.tensor([0.3, 0.3])], ids=str)
def test_every_form_of_noise_level_that_deepinv_passes(sigma, generator):
    law = exact()
    x = torch.randn(2, 1, 3, 4, generator=generator, dtype=F64)
    found = PriorDenoiser(law, 0.5, 0.25)(x, sigma)
    expected = 0.5 + 0.25 * law.denoise((x - 0.5) / 0.25, torch.tensor(1.2, dtype=F64))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_deepinv_restores_with_a_prior_of_ours(generator):
    """One step of proximal gradient descent of deepinv with our denoiser against the same step written by hand."""
    law = exact()
    mask = (torch.arange(12) % 3 != 1).reshape(1, 3, 4).to(F64)
    physics = deepinv.physics.Inpainting(img_size=(1, 3, 4), mask=mask)
    x = torch.randn(2, 1, 3, 4, generator=generator, dtype=F64)
    y = physics.A(x)
    step = deepinv.optim.PnP(denoiser=PriorDenoiser(law)).prox(x - 0.5 * physics.A_adjoint(physics.A(x) - y), 0.7)
    torch.testing.assert_close(step, law.denoise(x, torch.tensor(0.7)), rtol=1e-6, atol=1e-6)


def test_bad_use_is_named():
    with pytest.raises(TypeError, match="expected a deepinv.models.Denoiser, got Identity"):
        from_deepinv(torch.nn.Identity(), channels=1)
    with pytest.raises(ValueError, match="image_std must be positive"):
        PriorDenoiser(exact(), image_std=-1.0)
