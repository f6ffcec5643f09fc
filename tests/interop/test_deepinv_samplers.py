"""Samplers of deepinv on our posteriors: the operator they see is ours, their answers are near the exact ones."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from scidiff.benchmark.exact import blur, inpainting
from scidiff.benchmark.nonlinear import speed
from scidiff.benchmark.scores import scores
from scidiff.inference import Likelihood, Posterior
from scidiff.interop.deepinv_samplers import METHODS, _OnStates, _Rotated, draw


@pytest.mark.parametrize("loc", [0.0, 280.0])
def test_the_operator_of_states_and_its_rotation_are_the_same_measurement(loc):
    posterior = inpainting(0, loc=loc, scale=5.0, dtype=torch.float64).posterior
    states = _OnStates(posterior, 1.0)
    rotated = _Rotated(states, posterior.shape, torch.float64)
    u = torch.randn(3, *posterior.shape, generator=Generator().manual_seed(0), dtype=torch.float64)
    part = posterior.likelihoods[0]
    torch.testing.assert_close(states(u), part.operator(posterior.prior.decode(u)) - states.at_zero)
    torch.testing.assert_close(rotated.adjoint(rotated(u)), states.adjoint(states(u)))
    data = part.y - states.at_zero
    torch.testing.assert_close(rotated.adjoint(rotated.rotate(data)), states.adjoint(data))
    U, s, V = rotated.svd()
    torch.testing.assert_close(U.forward(s * V.adjoint(u)), rotated(u))


@pytest.mark.parametrize(("method", "most"), [("pigdm", 0.2), ("mmps", 0.2), ("ddrm", 0.5), ("diffpir", 0.7)])
def test_answers_near_the_exact_posterior(method, most):
    problem = inpainting(0)
    found = draw(method, problem.posterior, 128, Generator().manual_seed(0))
    value = scores(problem, found.samples[:, 0], Generator().manual_seed(1))
    assert value["mean_error"][0] < most  # prior draws have 1.9
    assert found.cost.denoiser == {"pigdm": 100, "mmps": 64, "ddrm": 64, "diffpir": 100}[method]


def test_the_units_of_the_field_do_not_matter():
    plain = draw("pigdm", inpainting(0, dtype=torch.float64).posterior, 4, Generator().manual_seed(0), calls=10)
    kelvin = inpainting(0, loc=280.0, scale=5.0, dtype=torch.float64).posterior
    scaled = draw("pigdm", kelvin, 4, Generator().manual_seed(0), calls=10)
    torch.testing.assert_close(scaled.samples, 280 + 5 * plain.samples, rtol=1e-6, atol=1e-6)


def test_calls_and_seeds():
    posterior = inpainting(0).posterior
    a, b = (draw("dps", posterior, 2, Generator().manual_seed(3), calls=20) for _ in range(2))
    other = draw("dps", posterior, 2, Generator().manual_seed(4), calls=20)
    assert torch.equal(a.samples, b.samples) and not torch.equal(a.samples, other.samples)
    assert (a.cost.denoiser, a.cost.denoiser_vjp) == (20, 20)


def test_refusals():
    with pytest.raises(TypeError, match="one linear operator"):
        draw(METHODS[0], speed().posterior, 2, Generator())
    with pytest.raises(TypeError, match="4096 singular values"):
        posterior = blur().posterior
        part = posterior.likelihoods[0]

        class Plain:
            def __call__(self, x):
                return part.operator(x)[..., :40]

            def adjoint(self, y):
                return part.operator.adjoint(torch.nn.functional.pad(y, (0, 24)))

        cut = Likelihood(Plain(), part.noise, part.y[..., :40])
        draw("ddrm", Posterior(posterior.prior, cut), 2, Generator())
