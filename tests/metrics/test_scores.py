"""Scores against closed forms, brute force and scikit-image."""

import math

import numpy as np
import pytest
import torch

from scidiff.metrics import crps, energy_score, nrmse, psnr, rmse, ssim


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brute_crps(x: torch.Tensor, y: torch.Tensor, fair: bool) -> torch.Tensor:
    members = len(x)
    pairs = (x[:, None] - x[None]).abs().sum((0, 1))
    return (x - y).abs().mean(0) - pairs / (2 * members * (members - 1 if fair else members))


@pytest.mark.parametrize("fair", [True, False])
def test_crps_is_its_definition(fair: bool) -> None:
    x = torch.randn(7, 3, 5, 8, generator=gen(0), dtype=torch.float64)
    y = torch.randn(3, 5, 8, generator=gen(1), dtype=torch.float64)
    torch.testing.assert_close(crps(x, y, fair), brute_crps(x, y, fair))
    torch.testing.assert_close(crps(x, y, fair)[:1], crps(x[:, :1], y[:1], fair))


def test_crps_of_a_gaussian() -> None:
    """CRPS(N(m, s), y) = s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)) (Gneiting and Raftery 2007, eq. 21)."""
    y = torch.tensor([[-1.0, 0.3, 2.5]], dtype=torch.float64)
    x = 0.4 + 1.7 * torch.randn(200_000, 1, 3, generator=gen(2), dtype=torch.float64)
    z = (y - 0.4) / 1.7
    phi, cdf = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    expected = 1.7 * (z * (2 * cdf - 1) + 2 * phi - 1 / math.sqrt(math.pi))
    torch.testing.assert_close(crps(x, y), expected, atol=0.015, rtol=0)


def test_fair_crps_does_not_depend_on_the_number_of_members_and_the_other_does() -> None:
    y = torch.randn(200_000, generator=gen(3), dtype=torch.float64)
    expected = 1 / math.sqrt(math.pi)  # E|X - Y| - E|X - X'| / 2 for standard normal numbers
    for members in (2, 5):
        x = torch.randn(members, 200_000, generator=gen(members), dtype=torch.float64)
        assert crps(x, y).mean() == pytest.approx(expected, abs=0.006)
        biased = expected * (1 + 1 / members)
        assert crps(x, y, fair=False).mean() == pytest.approx(biased, abs=0.006)


def test_complex_crps_is_the_mean_over_components() -> None:
    x = torch.randn(4, 2, 6, generator=gen(4), dtype=torch.complex128)
    y = torch.randn(2, 6, generator=gen(5), dtype=torch.complex128)
    expected = (crps(x.real, y.real) + crps(x.imag, y.imag)) / 2
    torch.testing.assert_close(crps(x, y), expected)


@pytest.mark.parametrize("fair", [True, False])
def test_energy_score_is_its_definition_and_the_crps_in_one_dimension(fair: bool) -> None:
    x = torch.randn(6, 3, 4, 2, generator=gen(6), dtype=torch.float64)
    y = torch.randn(3, 4, 2, generator=gen(7), dtype=torch.float64)
    flat = x.flatten(2)
    pairs = (flat[:, None] - flat[None]).norm(dim=-1).sum((0, 1))
    brute = (flat - y.flatten(1)).norm(dim=-1).mean(0) - pairs / (2 * 6 * (5 if fair else 6))
    torch.testing.assert_close(energy_score(x, y, fair), brute)
    torch.testing.assert_close(energy_score(x[..., :1, 0], y[..., :1, 0], fair), crps(x[..., 0, 0], y[..., 0, 0], fair))


def test_rmse_psnr_nrmse_in_closed_form() -> None:
    truth = torch.zeros(2, 3, 5, dtype=torch.float64)
    truth[0, 0, 0], truth[1, 0, 0] = 2.0, 4.0
    estimate = truth + torch.tensor([0.1, 0.2], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(rmse(estimate, truth), torch.tensor([0.1, 0.2], dtype=torch.float64))
    torch.testing.assert_close(psnr(estimate, truth), torch.full((2,), 20 * math.log10(20), dtype=torch.float64))
    torch.testing.assert_close(
        psnr(estimate, truth, data_range=1.0),
        torch.tensor([20.0, 20 - 20 * math.log10(2)], dtype=torch.float64),
    )
    torch.testing.assert_close(nrmse(2 * truth, truth), torch.ones(2, dtype=torch.float64))


def test_where_restricts_the_mean() -> None:
    truth, estimate = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    estimate[:, 0], estimate[:, 1] = 1.0, 3.0
    keep = torch.tensor([[False] * 4, [True] * 4])
    assert rmse(estimate, truth, keep).item() == 3.0
    with pytest.raises(ValueError, match="selects nothing"):
        rmse(estimate, truth, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="does not broadcast"):
        rmse(estimate, truth, torch.ones(3, 4))


def test_ssim_agrees_with_scikit_image() -> None:
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    truth = torch.rand(2, 1, 23, 31, generator=gen(8), dtype=torch.float64)
    truth[1] *= 3
    estimate = truth + 0.1 * torch.randn(2, 1, 23, 31, generator=gen(9), dtype=torch.float64)
    ours = ssim(estimate, truth, data_range=torch.tensor([1.0, 3.0]))
    for i, peak in enumerate((1.0, 3.0)):
        arrays = [np.asarray(a[i, 0]) for a in (estimate, truth)]
        theirs = structural_similarity(
            *arrays, data_range=peak, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(ours[i]) == pytest.approx(theirs, abs=1e-7)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="members come first"):
        crps(torch.zeros(3, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="at least 2 members"):
        crps(torch.zeros(1, 3, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="same shape"):
        rmse(torch.zeros(3, 4), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="real images"):
        ssim(torch.zeros(1, 20, 20, dtype=torch.complex64), torch.zeros(1, 20, 20, dtype=torch.complex64))
