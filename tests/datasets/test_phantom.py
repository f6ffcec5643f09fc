"""The phantom: reproducible, the same anatomy on every grid, k-space that its own maps and image explain."""

import pytest
import torch

from scidiff.datasets.phantom import coil_maps, head_phantom, simulate_kspace, smooth_phase


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_equal_generators_give_equal_heads_and_others_differ() -> None:
    a, b, c = (head_phantom((60, 48), gen(seed)) for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert (a - c).abs().mean() > 0.05
    generator = gen(0)
    assert not torch.equal(head_phantom((60, 48), generator), head_phantom((60, 48), generator))


def test_intensities() -> None:
    for seed in range(6):
        image = head_phantom((80, 64), gen(seed))
        assert image.dtype == torch.float32 and bool((image >= 0).all())
        assert float(torch.quantile(image.flatten(), 0.99)) == pytest.approx(1, abs=1e-5)
        corners = torch.stack([image[:4, :4], image[-4:, :4], image[:4, -4:], image[-4:, -4:]])
        assert corners.max() == 0
        assert 0.2 < (image > 0.1).float().mean() < 0.8


@pytest.mark.parametrize("shape", [(120, 96), (96, 120), (90, 90)])
def test_the_same_anatomy_on_a_finer_grid(shape: tuple[int, int]) -> None:
    coarse = head_phantom(shape, gen(7), oversample=4)
    fine = head_phantom((2 * shape[0], 2 * shape[1]), gen(7), oversample=2)
    averaged = torch.nn.functional.avg_pool2d(fine[None, None], 2)[0, 0]
    assert (coarse - averaged).abs().mean() < 0.01


def test_phase_keeps_the_magnitude_and_is_smooth() -> None:
    real, cplx = head_phantom((80, 64), gen(5)), head_phantom((80, 64), gen(5), phase=True)
    torch.testing.assert_close(cplx.abs(), real)
    phi = smooth_phase((80, 64), gen(1))
    assert phi.diff(dim=0).abs().max() < 0.3 and phi.diff(dim=1).abs().max() < 0.3


def test_coils_are_normalised_smooth_and_different() -> None:
    maps = coil_maps((80, 64), 8, gen(2))
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(80, 64))
    assert maps.diff(dim=-1).abs().max() < 0.15
    flat = torch.nn.functional.normalize(maps.flatten(1), dim=1)
    overlap = (flat @ flat.mH).abs() - torch.eye(8)
    assert overlap.max() < 0.95
    assert torch.equal(maps, coil_maps((80, 64), 8, gen(2)))


def test_kspace_is_explained_by_its_image_and_maps_to_the_noise() -> None:
    noise = 0.03
    kspace, truth = simulate_kspace((80, 64), 6, noise, gen(9))
    assert kspace.shape == (6, 80, 64) and kspace.dtype == torch.complex64
    model = torch.fft.fftshift(
        torch.fft.fft2(torch.fft.ifftshift(truth["maps"] * truth["image"], dim=(-2, -1)), norm="ortho"), dim=(-2, -1)
    )
    error = (model - truth["clean"]).abs().square().mean().sqrt()
    assert 0 < error < 0.2 * noise, "finer grid: small but not zero"
    residual = (kspace - truth["clean"]).flatten(1)
    covariance = residual @ residual.mH / (2 * residual.shape[1])
    assert (covariance - truth["covariance"]).abs().max() < 0.06 * noise**2
    assert float(truth["covariance"].diagonal().real.mean()) == pytest.approx(noise**2, rel=1e-4)


def test_a_given_covariance_is_used_and_wrong_arguments_are_named() -> None:
    covariance = torch.diag(torch.tensor([1.0, 4.0])).to(torch.complex64)
    kspace, truth = simulate_kspace((80, 64), 2, 0.05, gen(1), covariance=covariance)
    spread = (kspace - truth["clean"]).abs().square().mean((1, 2)).div(2).sqrt()
    torch.testing.assert_close(spread, torch.tensor([0.05, 0.1]), rtol=0.05, atol=0)
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        simulate_kspace((80, 64), 2, covariance=torch.eye(3))
    with pytest.raises(ValueError, match="at least 16"):
        head_phantom((8, 8))
    with pytest.raises(ValueError, match="oversample"):
        head_phantom((32, 32), oversample=0)
    with pytest.raises(ValueError, match="negative"):
        simulate_kspace((32, 32), noise=-1.0)
