"""A solver that fails for one member: it is reported, dropped or drawn again, and the others do not notice."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.errors import NumericalError
from scidiff.failures import Failure, listening
from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators import BlackBox, LinearMap, OverTime
from scidiff.posterior import DPG, DPSGSG, EKI, SCG, EnKG
from scidiff.posterior.base import Run
from scidiff.posterior.ensemble_kalman import centred, increment
from scidiff.posterior.survival import replaced, survivors
from scidiff.priors import GaussianPrior
from scidiff.rng import Streams

F64 = torch.float64
SHAPE = (2, 3)


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=F64)


MATRIX = randn(4, 6, seed=4)


class Solver:
    """One field at a time; the calls of one member fail, in a way and with a probability of choice."""

    def __init__(self, rows=1, row=-1, chance=1.0, calls=(0, 10**9), how="raise"):
        self.rows, self.row, self.chance, self.calls, self.how = rows, row, chance, calls, how
        self.count, self.rng = 0, np.random.default_rng(0)

    def __call__(self, x):
        n, self.count = self.count, self.count + 1
        if n % self.rows == self.row and self.calls[0] <= n < self.calls[1] and self.rng.random() < self.chance:
            if self.how == "raise":
                raise RuntimeError("no convergence at z = 3")
            return np.full(4, np.nan)
        return MATRIX.numpy() @ x.ravel()


def posterior(solver, policy, batch=1):
    root = randn(6, 6, seed=3) / 4 + torch.eye(6, dtype=F64)
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=F64), root @ root.mT)
    y = LinearMap(MATRIX, SHAPE)(prior.sample(batch, Generator().manual_seed(5))) + 0.3 * randn(batch, 4, seed=6)
    return Posterior(prior, Likelihood(BlackBox(solver, batched=False, on_failure=policy), GaussianNoise(0.3), y))


def draw(sampler, solver, policy, members=4, **options):
    return sampler(posterior(solver, policy), members, Generator().manual_seed(7), **options)


HEURISTICS = [SCG(steps=20, draws=4), DPG(steps=20, samples=8), DPSGSG(steps=20, queries=8)]


@pytest.mark.parametrize("how", ["raise", "nan"])
@pytest.mark.parametrize("sampler", HEURISTICS, ids=lambda s: type(s).__name__)
def test_failed_queries_of_one_member_do_not_touch_the_others(sampler, how):
    """A share of the calls for member 2 fails at random; if a step's own state fails, the member is drawn again."""
    clean = draw(sampler, Solver(), "drop")

    solver = Solver(4, 2, 0.3 if isinstance(sampler, SCG) else 0.02, how=how)
    found = draw(sampler, solver, "redraw")
    others = [0, 1, 3]
    assert torch.equal(found.samples[others], clean.samples[others])
    assert found.diagnostics["members"] == [0, 1, 2, 3] and bool(found.samples.isfinite().all())
    assert not torch.equal(found.samples[2], clean.samples[2])
    failures = found.diagnostics["failures"]
    assert failures and {f["member"] for f in failures} == {2} and all(f["call"] >= 0 for f in failures)
    said = "RuntimeError: no convergence at z = 3" if how == "raise" else "NaN or infinite values"
    assert all(said in f["message"] for f in failures)
    assert "failures" not in clean.diagnostics


@pytest.mark.parametrize("sampler", HEURISTICS, ids=lambda s: type(s).__name__)
def test_a_member_without_measurements_is_dropped_or_drawn_again(sampler):
    """All calls for member 1 fail for a while: that member is lost, and its successor has other random numbers."""
    clean = draw(sampler, Solver(), "drop")
    window = (100, 200) if isinstance(sampler, SCG) else (200, 300)
    dropped = draw(sampler, Solver(4, 1, calls=window), "drop")
    assert dropped.diagnostics["members"] == [0, 2, 3] and dropped.diagnostics["dropped"] == [1]
    assert torch.equal(dropped.samples, clean.samples[[0, 2, 3]])
    again = draw(sampler, Solver(4, 1, calls=window), "redraw")
    assert again.diagnostics["members"] == [0, 1, 2, 3] and "dropped" not in again.diagnostics
    assert torch.equal(again.samples[[0, 2, 3]], clean.samples[[0, 2, 3]])
    assert float((again.samples[1] - clean.samples[1]).abs().max()) > 1e-3 and bool(again.samples.isfinite().all())
    with pytest.raises(NumericalError, match=r"(?s)failed for member 1 in each of 11 attempts.*no convergence"):
        draw(sampler, Solver(1, 0, calls=(30, 10**9)), "redraw", members=[1])


POPULATIONS = [
    EKI(particles=64, iterations=2),
    EnKG(particles=64, steps=6),
    EnKG(particles=64, steps=6, form="published"),
]


@pytest.mark.parametrize("sampler", POPULATIONS, ids=str)
def test_a_particle_that_fails_is_dropped_or_replaced(sampler):
    clean = draw(sampler, Solver(), "drop", 64)
    dropped = draw(sampler, Solver(64, 5, calls=(0, 64)), "drop", 64)
    failure = {"member": 5, "call": 1, "message": "Solver: RuntimeError: no convergence at z = 3"}
    assert dropped.diagnostics["failures"] == [failure]
    assert dropped.diagnostics["dropped"] == [5] and 5 not in dropped.diagnostics["members"]
    assert len(dropped.samples) == 63
    again = draw(sampler, Solver(64, 5, calls=(0, 64)), "redraw", 64)
    assert again.diagnostics["members"] == list(range(64)) and bool(again.samples.isfinite().all())
    spread = clean.samples.std(0)
    others = [m for m in range(64) if m != 5]
    for found in (dropped.samples, again.samples[others]):  # they share covariances, no random numbers
        assert float(((found - clean.samples[others]) / spread).square().mean().sqrt()) < 0.35
    parts = draw(sampler, Solver(64, 5, calls=(0, 64)), "redraw", 64, batch_size=10)
    assert torch.allclose(parts.samples, again.samples, atol=1e-8)
    assert parts.diagnostics["failures"][0]["member"] == 5


def test_statistics_are_those_of_the_living():
    """Covariances with a lost particle equal those without it; its successor has their mean and covariance."""
    run = Run(posterior(Solver(), "redraw").tile(9), Streams(7, range(9), 1), Cost())
    run.measurement.failed[4] = Failure(4, 9, "lost", "redraw")
    w = survivors(run)
    assert not run.measurement.failed and survivors(run) is None
    alive = [k for k in range(9) if k != 4]
    u, z, r = randn(1, 9, 6), randn(1, 9, 4, seed=2), randn(1, 9, 4, seed=3)
    ours = increment(centred(u, w), centred(z, w), r)[:, alive]
    twin = increment(centred(u[:, alive]), centred(z[:, alive]), r[:, alive])
    assert torch.allclose(ours, twin, atol=1e-12)
    draws = []
    for call in range(4000):
        run.cost.operator = call
        draws.append(replaced(run, u, w)[0, 4])
    draws = torch.stack(draws)
    assert torch.allclose(draws.mean(0), u[0, alive].mean(0), atol=4 * float(u.std()) / math.sqrt(4000))
    assert torch.allclose(draws.T.cov(), u[0, alive].T.cov(), atol=0.15)
    assert torch.equal(replaced(run, u, w)[:, alive], u[:, alive])


def test_with_failures_an_ensemble_still_draws_the_posterior():
    """Two of a hundred solves fail at random, anywhere: mean and variance stay those of the exact posterior."""

    class Rare(Solver):
        def __call__(self, x):
            self.row = self.count % self.rows
            return super().__call__(x)

    for policy in ("drop", "redraw"):
        sampler = EnKG(particles=512, steps=10)
        found = sampler(posterior(Rare(1, 0, 0.02), policy), 512, Generator().manual_seed(1))
        p = posterior(Solver(), "raise")
        exact = p.prior.condition(LinearMap(MATRIX, SHAPE), GaussianNoise(0.3), p.likelihoods[0].y)
        z = (found.mean[0] - exact.mean) / exact.variance.reshape(SHAPE).sqrt()
        assert len(found.diagnostics["failures"]) > 50 and float(z.square().mean().sqrt()) < 0.2
        assert float(found.samples.var(0).sum() / exact.variance.sum()) == pytest.approx(1, abs=0.2)
        assert (len(found.samples) == 512) == (policy == "redraw")


@pytest.mark.parametrize("batched", [True, False])
def test_black_box_marks_the_fields_that_failed(batched):
    def solve(x):
        if bool((x > 1e3).any()):
            raise ArithmeticError("blew up")
        return np.log(x.reshape(len(x), -1)[:, :2] if batched else x.ravel()[:2])

    x = torch.rand(4, 2, 3, generator=Generator().manual_seed(0), dtype=F64) + 0.1
    good = BlackBox(solve, batched)(x)
    x[1], x[3, 0, 0] = 1e4, -1.0
    operator = BlackBox(solve, batched, on_failure="drop")
    with np.errstate(invalid="ignore"), listening() as found:
        z = operator(x)
    assert torch.equal(z[[0, 2]], good[[0, 2]]) and bool(z[[1, 3]].isnan().all())
    assert {(f.field, f.fields, f.policy) for f in found} == {(1, 4, "drop"), (3, 4, "drop")}
    said = {f.field: f.message for f in found}
    assert "ArithmeticError: blew up" in said[1] and "NaN or infinite" in said[3]
    with pytest.warns(UserWarning, match="has no measurement") as heard, np.errstate(invalid="ignore"):
        operator(x)
    assert len(heard) == 2
    with pytest.raises(ArithmeticError, match="blew up") as caught:
        BlackBox(solve, batched)(x)
    assert batched or "called for field 1 of 4" in caught.value.__notes__[0]


def test_frames_of_a_member_fail_with_it():
    solver = Solver(3, 1, calls=(3, 9))
    p = posterior(Solver(), "drop")
    operator = OverTime(BlackBox(solver, False, "drop"), 3)
    operator(randn(1, 3, *SHAPE))
    run = Run(Posterior(p.prior, Likelihood(operator, GaussianNoise(0.3), torch.zeros(2, 3, 4, dtype=F64))),
              Streams(0, range(2), 1), Cost())  # fmt: skip
    run.measurement._apply(run.posterior.likelihoods[0], randn(2, 3, *SHAPE))
    assert set(run.measurement.failed) == {0, 1} and len(run.failures) == 2


def test_what_cannot_go_on_says_so():
    with pytest.raises(ValueError, match="on_failure must be one of raise, drop, redraw, got 'ignore'"):
        BlackBox(np.abs, on_failure="ignore")
    with pytest.raises(NumericalError, match="failed for all 64 fields of its first call: RuntimeError: no conv"):
        draw(EKI(particles=64), Solver(1, 0), "drop")
    with pytest.raises(NumericalError, match="failed for all but 0 of 64 particles"):
        draw(EKI(particles=64, iterations=2), Solver(1, 0, calls=(64, 10**9)), "drop")
    with pytest.raises(NumericalError, match="all members were dropped.*no convergence"):
        draw(SCG(steps=10, draws=2), Solver(1, 0, calls=(20, 10**9)), "drop", members=2)
