"""Forecasters without a chain."""

from __future__ import annotations

import pytest
import torch

from scidiff.forecast import Deterministic, DropoutEnsemble, NoiseEnsemble, PerturbedEnsemble, Predictor
from scidiff.rng import Streams
from tests.forecast.doubles import GRID, network


@pytest.fixture
def state(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(3, 2, 2, *GRID, generator=generator, dtype=torch.float64)


def test_deterministic_is_the_network_at_every_lead(state: torch.Tensor) -> None:
    net = network(4 + 1, 2, dropout=0.5)
    forcing = torch.randn(3, 2 + 4, 1, *GRID, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = Deterministic(Predictor(net), 4, window=2).sample(state, forcing)
    for lead in (1, 4):
        x = torch.cat([state[:, 1], state[:, 0], forcing[:, 1 + lead]], 1)
        expected = state[:, 1] + net(x, torch.full((3,), float(lead), dtype=torch.float64))
        torch.testing.assert_close(drawn[:, lead - 1], expected)


@pytest.mark.parametrize("kind", ["dropout", "perturbed", "noise"])
def test_members_differ_and_do_not_depend_on_their_neighbours(kind: str, state: torch.Tensor) -> None:
    models = {
        "dropout": lambda: DropoutEnsemble(Predictor(network(4, 2, dropout=0.5)), 3, 2),
        "perturbed": lambda: PerturbedEnsemble(Predictor(network(4, 2)), 3, 2, scale=0.2),
        "noise": lambda: NoiseEnsemble(Predictor(network(4, 6, noise=2)), 3, 2),
    }
    model = models[kind]()
    assert model.stochastic and model.network_calls == (1 if kind == "noise" else 3)
    together = model.sample(state, generator=Streams(5, [1, 2, 6]))
    assert together.shape == (3, 3, 2, *GRID)
    torch.testing.assert_close(together[1:2], model.sample(state[1:2], generator=Streams(5, [2])))
    same = model.sample(state[:1].expand(4, -1, -1, -1, -1), generator=Streams(5, range(4)))
    assert same.std(0).amin() > 0


def test_perturbations_have_the_stated_size() -> None:
    class Keep(torch.nn.Module):
        def forward(self, x: torch.Tensor, time: torch.Tensor, streams: object = None) -> torch.Tensor:
            assert streams is None
            return 0 * x

    drawn = PerturbedEnsemble(Predictor(Keep()), 2, scale=0.3).sample(torch.zeros(50, 1, 1, 20, 20))
    assert drawn.std().item() == pytest.approx(0.3, rel=0.05) and torch.equal(drawn[:, 0], drawn[:, 1])


def test_corrections_and_forcings_of_the_block_forecaster(state: torch.Tensor) -> None:
    forcing = torch.ones(3, 5, 1, *GRID, dtype=torch.float64)
    model = NoiseEnsemble(Predictor(network(4 + 5, 6, noise=1)), 3, 2)
    leads: list[float] = []
    drawn = model.sample(state, forcing, correct=lambda x, lead: (leads.append(lead), 0 * x + lead)[1])
    assert leads == [1, 2, 3] and drawn[0, :, 0, 0, 0].tolist() == leads


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="horizon and window"):
        Deterministic(Predictor(network(2, 2)), 0)
    with pytest.raises(ValueError, match="scale"):
        PerturbedEnsemble(Predictor(network(2, 2)), 1, scale=-1)
