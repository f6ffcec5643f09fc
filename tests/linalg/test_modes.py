"""Units for each sine: against sums of sines, and what they do to the spectrum of pairs."""

import pytest
import torch

from scidiff.datasets.poisson_pairs import PoissonPairs
from scidiff.linalg.modes import SineUnits, tempered
from scidiff.linalg.sine import sine_basis
from scidiff.priors import DiffusionPrior
from scidiff.priors.pretrained import load_pretrained, save_pretrained
from scidiff.solvers.laplace import BoxLaplacian

F64 = torch.float64


def units(channels=2, grid=(6, 9)):
    return SineUnits(torch.rand(channels, *grid, generator=torch.Generator().manual_seed(0), dtype=F64) + 0.5)


def test_the_map_is_a_sum_of_sines_with_their_units():
    own = units()
    one = torch.zeros(1, 2, 6, 9, dtype=F64)
    wave = torch.outer(sine_basis(6)[2], sine_basis(9)[4])
    one[0, 1] = wave
    assert torch.allclose(own.decode(one)[0, 1], wave * own.deviations[1, 2, 4])
    u = torch.randn(3, 2, 6, 9, generator=torch.Generator().manual_seed(1), dtype=F64)
    assert torch.allclose(own.encode(own.decode(u)), u)
    assert torch.equal(own.decode(u)[:1], own.decode(u[:1]))
    flat = SineUnits(torch.full((2, 6, 9), 2.0, dtype=F64))
    assert torch.allclose(flat.decode(u), 2 * u), "all sines of a grid span all fields"


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="must be positive"):
        SineUnits(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"fields \(2, 6, 9\), got \(2, 6, 8\); take that grid"):
        units().decode(torch.zeros(1, 2, 6, 8))
    with pytest.raises(ValueError, match="one table per channel"):
        DiffusionPrior(torch.nn.Identity(), 3, modes=units().deviations)


def test_pairs_in_units_of_sines():
    """The state has the spectrum asked for, source and solution differ in sign, and decoding gives the pair."""
    grid = (16, 12)
    law, plain = PoissonPairs(shape=grid, modes=True), PoissonPairs(shape=grid)
    draws = [source(torch.Generator().manual_seed(k), grid) for source in (law, plain) for k in range(400)]
    u, pairs = torch.stack(draws[:400]).double(), torch.stack(draws[400:]).double()
    assert float((u[:, 0] + u[:, 1]).abs().max()) < 1e-5
    assert torch.allclose(SineUnits(law.modes).decode(u), pairs, atol=1e-5)
    found = (sine_basis(16) @ u[:, 0] @ sine_basis(12).mT).square().mean(0)
    wanted = 1 / (9 - BoxLaplacian(grid).eigenvalues)
    ratio = found / (wanted / wanted.mean())
    assert float(ratio.mean()) == pytest.approx(1, abs=0.02) and float(ratio.min()) > 0.7 and float(ratio.max()) < 1.4
    assert float(u.var()) == pytest.approx(1, abs=0.1)
    flat = tempered([torch.ones(3, 3, dtype=F64)], torch.zeros(3, 3, dtype=F64), 1.0)
    assert torch.allclose(flat, torch.ones(1, 3, 3, dtype=F64))


def test_a_prior_carries_its_units_through_a_file(tmp_path):
    from scidiff.nn import UNet

    network = UNet(inputs=2, outputs=2, width=[4], blocks=1)
    law = PoissonPairs(shape=(8, 12), modes=True)
    card = {"channels": 2, "loc": law.loc, "scale": law.scale, "complex": False}
    save_pretrained(network, tmp_path / "prior.safetensors", card, modes=law.modes)
    prior = load_pretrained(tmp_path / "prior.safetensors")
    pair = PoissonPairs(shape=(8, 12))(torch.Generator().manual_seed(0), (8, 12))[None]
    x = pair * torch.tensor(law.scale).reshape(1, 2, 1, 1)
    u = law(torch.Generator().manual_seed(0), (8, 12))[None]
    assert prior.affine and torch.allclose(prior.encode(x), u, atol=1e-5)
    assert torch.allclose(prior.decode(u), x, atol=1e-5)
    assert torch.allclose(prior.rescaled(3.0).decode(u), 3 * x, atol=1e-5)
    assert prior.denoise(u, torch.tensor(1.0)).shape == u.shape
