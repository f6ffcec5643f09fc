"""SIRT against its matrices and its limit; total variation through the projector."""

import numpy as np
import pytest
import torch

from scidiff.operators import ParallelBeam
from scidiff.operators.tomography import Ellipse, ellipse_field, ellipse_sinogram
from scidiff.problems.baselines import total_variation
from scidiff.problems.tomography_baselines import sirt

F64 = torch.float64


def test_sirt_is_its_matrix_iteration() -> None:
    operator = ParallelBeam((5, 7), [0.0, 50.0, 100.0], bins=9, truncation="ignore")
    A = torch.from_numpy(operator.matrix().toarray())
    y = torch.rand(2, 1, 3, 9, dtype=F64, generator=torch.Generator().manual_seed(0))
    R, C = (torch.where(s > 0, 1 / s, 0.0) for s in (A.sum(1), A.sum(0)))
    x = torch.zeros(2, 35, dtype=F64)
    for _ in range(7):
        x = (x + 0.8 * C * ((R * (y.flatten(1) - x @ A.mT)) @ A)).clamp(min=0)
    got = sirt(operator, y, iterations=7, relaxation=0.8, nonnegative=True)
    assert torch.allclose(got.flatten(1), x)
    assert torch.allclose(sirt(operator, y[:1], 7, 0.8, True), got[:1])
    later = sirt(operator, y, 4, 0.8, True, start=sirt(operator, y, 3, 0.8, True))
    assert torch.allclose(later, got)


def test_sirt_converges_to_the_weighted_least_squares_solution() -> None:
    operator = ParallelBeam((2, 4), np.arange(0, 180, 15.0))
    A = torch.from_numpy(operator.matrix().toarray())
    y = torch.rand(1, 1, operator.views, operator.bins, dtype=F64, generator=torch.Generator().manual_seed(1))
    root = torch.where(A.sum(1) > 0, A.sum(1), torch.inf).rsqrt()
    expected = torch.linalg.lstsq(root[:, None] * A, (root * y.flatten())[:, None]).solution[:, 0]
    assert torch.allclose(sirt(operator, y, iterations=300, relaxation=1.9).flatten(), expected, atol=1e-11)


def test_sirt_refuses() -> None:
    class Difference:
        def __call__(self, x):
            return x.roll(-1, -1) - 2 * x

        def adjoint(self, y):
            return y.roll(1, -1) - 2 * y

    with pytest.raises(ValueError, match="relaxation"):
        sirt(ParallelBeam((4, 5), [0.0]), torch.zeros(1, 1, 1, 7), relaxation=2.0)
    with pytest.raises(ValueError, match="negative weights"):
        sirt(Difference(), torch.ones(1, 6))


def test_few_noisy_views(generator) -> None:
    """Data of exact ellipses with noise: total variation beats SIRT, SIRT beats filtered backprojection."""
    operator = ParallelBeam((48, 40), np.arange(0, 180, 12.0), pixel=2.0)
    parts = [
        Ellipse(0.02, (3, -5), (30, 40), 20),
        Ellipse(-0.01, (10, 4), (9, 12), -30),
        Ellipse(0.01, (-9, 8), (5, 7)),
    ]
    truth, z = ellipse_field(operator, parts), ellipse_sinogram(operator, parts)
    y = z + 0.02 * torch.randn(z.shape, generator=generator, dtype=F64)
    found = {
        "fbp": operator.fbp(y, "hann"),
        "sirt": sirt(operator, y, iterations=60, nonnegative=True),
        "tv": total_variation(operator, y, weight=0.3, iterations=60),
    }
    error = {name: float((x - truth).norm() / truth.norm()) for name, x in found.items()}
    assert error["tv"] < 0.8 * error["sirt"] < 0.8 * 0.8 * error["fbp"], error
    assert error["tv"] < 0.06, error
