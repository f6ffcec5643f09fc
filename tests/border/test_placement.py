"""Operators that remember how they were made: moved without their memory, recognised by it."""

import pint
import torch

from scidiff.inference import Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators import Convolution, NavierStokes, ParallelBeam
from scidiff.placement import fingerprint, place
from scidiff.priors import GaussianPrior


def test_quantities_among_the_arguments_do_not_hinder() -> None:
    mm = pint.UnitRegistry().mm
    beam = ParallelBeam((5, 7), [0.0, 30.0, 80.0], pixel=0.5 * mm, bins=20)
    y = torch.zeros(1, 1, 3, 20, dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(1, 5, 7, dtype=torch.float64), 1.0)
    moved = place(Posterior(prior, Likelihood(beam, GaussianNoise(1.0), y)), torch.device("cpu"), torch.float32)
    x = torch.ones(1, 1, 5, 7)
    assert torch.allclose(moved.likelihoods[0].operator(x), beam(x))
    assert fingerprint(beam) == fingerprint(ParallelBeam((5, 7), [0.0, 30.0, 80.0], pixel=0.5 * mm, bins=20))
    assert fingerprint(beam) != fingerprint(ParallelBeam((5, 7), [0.0, 30.0, 80.0], pixel=0.6 * mm, bins=20))


def test_use_changes_no_fingerprint() -> None:
    for used, other in (
        (NavierStokes((8, 10), forcing=2), NavierStokes((8, 10), forcing=1)),
        (Convolution(torch.ones(3, 3), (8, 10)), Convolution(torch.ones(3, 2), (8, 10))),
    ):
        before = fingerprint(used)
        used(torch.ones(1, 1, 8, 10))
        assert fingerprint(used) == before != fingerprint(other)
