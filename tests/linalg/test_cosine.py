"""Fields in a box: the Whittle-Matern spectrum against the eigenvalues of the Laplacian, the denoiser mode by mode."""

import math

import pytest
import torch
from torch import Generator

from scidiff.linalg import Cosine
from scidiff.linalg.cosine import cosine_basis
from scidiff.priors import GaussianPrior

F64 = torch.float64


def test_basis_is_orthonormal():
    basis = cosine_basis(7)
    assert torch.allclose(basis @ basis.mT, torch.eye(7, dtype=F64), atol=1e-14)


def test_matern_inverts_the_operator_it_is_named_after():
    r"""A tall cosine is multiplied by :math:`(\pi^2 |k|^2 + \tau^2)^{-\alpha}`, up to one factor for all."""
    cov = Cosine.matern((6, 9), alpha=1.5, tau=2.0, variance=3.0)
    assert cov.trace / 54 == pytest.approx(3.0, rel=1e-12)
    factors = []
    for k, q in ((0, 0), (1, 0), (2, 5)):
        mode = torch.outer(cosine_basis(6)[k], cosine_basis(9)[q])
        factor = float((cov.matmul(mode[None])[0] * mode).sum())
        assert torch.allclose(cov.matmul(mode[None])[0], factor * mode, atol=1e-12)
        factors.append(factor * (math.pi**2 * (k**2 + q**2) + 4.0) ** 1.5)
    assert factors[1:] == pytest.approx([factors[0]] * 2, rel=1e-12)


def test_without_constant_every_field_has_mean_zero():
    cov = Cosine.matern((5, 8), channels=2, constant=False)
    fields = cov.sample(Generator().manual_seed(0), 3, F64)
    assert fields.shape == (3, 2, 5, 8)
    assert float(fields.mean((-1, -2)).abs().max()) < 1e-14 < float(fields.abs().max())
    with pytest.raises(ValueError, match="singular"):
        cov.solve(fields)


def test_denoiser_shrinks_each_mode():
    cov = Cosine.matern((5, 8), variance=1.0, channels=1)
    prior = GaussianPrior(torch.zeros(1, 5, 8, dtype=F64), cov)
    mode = torch.outer(cosine_basis(5)[2], cosine_basis(8)[3])[None, None]
    lam = float(cov.eigenvalues[2, 3]) / prior.scale**2
    got = prior.denoise(mode, torch.tensor(0.3, dtype=F64))
    assert torch.allclose(got, lam / (lam + 0.09) * mode, atol=1e-13)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="must end with"):
        Cosine(torch.ones(3, 4), (2, 4, 3), 2)
    with pytest.raises(ValueError, match="dims must be between 1 and 2"):
        Cosine(torch.ones(3, 4), dims=3)
