"""A forward model that fails for some members: they are named and left out of the result, in memory and on disk."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scidiff import reconstruct
from scidiff.errors import NumericalError
from scidiff.fields import open_result
from scidiff.inference import Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators import BlackBox
from scidiff.posterior import SCG, EnKG

sys.path.insert(0, str(Path(__file__).parent))
from tiny import Temperature  # noqa: E402


class Fragile(Temperature):
    """Its solver gives up on calls of a window; fields are solved one by one, member after member."""

    def __init__(self, calls=(), policy="drop"):
        super().__init__()
        self.calls, self.policy, self.count = calls, policy, 0

    def solve(self, x):
        self.count += 1
        if self.count - 1 in self.calls:
            raise RuntimeError("no convergence")
        return self.matrix.numpy() @ x.ravel()

    def posterior(self, observation):
        self.count = 0
        y = torch.as_tensor(observation["radiance"].values)[None]
        operator = BlackBox(self.solve, batched=False, on_failure=self.policy)
        return Posterior(self.prior, Likelihood(operator, GaussianNoise(self.std), y))


FEW = SCG(steps=4, draws=2)


def run(calls=(), members=4, sampler=FEW, **options):
    truth, observation = Temperature().case()
    return reconstruct(Fragile(calls), observation, sampler, members=members, seed=5, truth=truth, **options)


def calls_of(batch):
    """Solver calls for one batch of members."""
    probe = Fragile()
    _, observation = probe.case()
    posterior = probe.posterior(observation)
    FEW(posterior, batch, torch.Generator().manual_seed(5))
    return probe.count


def test_dropped_members_are_named_and_the_others_are_those_of_a_run_without_failures(tmp_path):
    clean = run(batch=2)
    n = calls_of(2)  # and two more for chi2 of its members
    assert "dropped_members" not in clean.attrs and clean.sizes["member"] == 4
    with pytest.warns(UserWarning, match=r"2 of 4 members were dropped .* 2, 3 \(member 2: solve.*no convergence"):
        found = run(range(n + 2, 2 * n + 2), batch=2, output=tmp_path / "run")
    assert found["member"].values.tolist() == [0, 1]
    kept = clean.sel(member=[0, 1])
    assert np.array_equal(found["temperature"], kept["temperature"]) and np.array_equal(found["chi2"], kept["chi2"])
    assert np.allclose(found["temperature_mean"], kept["temperature"].mean("member"), atol=1e-4)
    stored = open_result(tmp_path / "run" / "result.nc")
    gone = json.loads(stored.attrs["dropped_members"])
    assert [entry["member"] for entry in gone] == [2, 3] and "no convergence" in gone[0]["message"]
    assert "dropped" in json.loads(stored.attrs["warnings"])[0]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["chi2_of_members"]) == 2 and np.isfinite(metrics["chi2"]) and "rmse" in metrics["scores"]
    assert "dropped" in (tmp_path / "run" / "log.jsonl").read_text()


def test_one_particle_of_a_population_is_dropped():
    with pytest.warns(UserWarning, match="1 of 12 members were dropped"):
        found = run([5], 12, EnKG(particles=12, steps=4))
    assert found["member"].values.tolist() == [m for m in range(12) if m != 5]
    assert bool(np.isfinite(found["temperature"]).all())


def test_a_run_without_any_member_left_fails_with_the_reason():
    with pytest.raises(NumericalError, match=r"all 2 members were dropped; the last failure: .*no convergence"):
        run(range(4, 10**6), 2)
