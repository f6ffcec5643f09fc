r"""What all posterior samplers share: requirements, batches of members, streams, counters.

`GuidedSampler` turns a posterior into a conditional denoiser :math:`D_y(u, \sigma) = E[u_0 | u, y]` and hands it to an
integrator of `scidiff.samplers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from scidiff.errors import NumericalError
from scidiff.failures import AllDropped, Failure
from scidiff.inference import Cost, Ensemble, Posterior
from scidiff.posterior.measurement import Measurement
from scidiff.posterior.survival import ATTEMPTS, spare_root
from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams, member_indices, root_seed
from scidiff.samplers import DPMSolver, Sampler
from scidiff.samplers.base import batches

__all__ = ["GuidedSampler", "MemberSampler", "Run", "differentiate", "largest", "offers", "summary"]


def offers(posterior: Posterior) -> frozenset[str]:
    """What a posterior gives a sampler to work with.

    ``gaussian``: all noises are Gaussian (they whiten); ``linear``: linear operators and an affine prior;
    ``gradient``: gradients flow through the operators, or their adjoint stands in; ``svd``: all operators have one;
    ``variance``: the noise is Gaussian or states its variance, so that residuals can be weighed.
    """
    parts = posterior.likelihoods
    given = {
        "gaussian": all(part.whitens for part in parts),
        "linear": posterior.linear,
        "gradient": all(part.differentiable or part.linear for part in parts),
        "variance": all(part.whitens or callable(getattr(part.noise, "variance", None)) for part in parts),
        "svd": posterior.linear and all(callable(getattr(part.operator, "svd", None)) for part in parts),
    }
    return frozenset(name for name, present in given.items() if present)


WAYS_OUT = {
    "linear": "give the operator an `adjoint` if it is linear, and take a prior whose decode is affine",
    "gradient": "let torch differentiate the operator, or give it an `adjoint` if it is linear",
    "gaussian": "describe the noise by GaussianNoise if it is close to it",
    "variance": "give the noise a method variance(z)",
    "svd": "make a linear operator on a small grid a matrix with LinearMap.dense(operator, shape)",
}


def require_same_numbers(posterior: Posterior) -> None:
    """Raises TypeError where the operator maps complex fields and the prior's fields are real.

    By `scidiff.protocols.LinearOperator` the adjoint of an operator on real fields is real.
    """
    shape, complex = posterior.shape or (), [part for part in posterior.likelihoods if part.y.is_complex()]
    for part in complex:
        if not part.linear:
            continue
        with torch.no_grad():
            zero = torch.zeros(1, *shape, dtype=posterior.dtype, device=posterior.device)
            field = posterior.prior.decode(zero)
            back = field if field.is_complex() else part.operator.adjoint(part.y[:1])  # type: ignore[attr-defined]
        if back.is_complex() and not field.is_complex():
            raise TypeError(
                f"{type(part.operator).__name__} maps complex fields (its adjoint is complex), but the prior's fields "
                "are real; take a prior of complex fields (DiffusionPrior(..., complex=True), say), or wrap "
                "the operator in RealField if the field is known to be real."
            )


class Watch:
    """A callback that raises when the operator gave values that are not finite, then calls the user's callback.

    A solver that blew up may leave the state finite (its gradient can be zero, and a linear solver with NaN on the
    right does nothing), so that the data would be ignored without a word. Sums of the values stay on their device and
    are read every 16 steps.
    """

    def __init__(self, measurement: Measurement, callback: Callback | None) -> None:
        self.measurement, self.callback = measurement, callback
        self.sums: list[tuple[float, Tensor]] = []
        self.level = float("inf")

    def __call__(self, step: int, steps: int, sigma: float, u: Tensor) -> None:
        """Reads the flags where it is time, then passes the call on."""
        found = self.measurement.sums
        self.sums.extend((self.level, total) for total in found)
        found.clear()
        self.level = sigma
        if self.sums and (step % 16 == 0 or step == steps):
            finite = torch.stack([total for _, total in self.sums]).isfinite().tolist()
            for (level, _), good in zip(self.sums, finite, strict=True):
                if not good:
                    where = "the first noise level" if level == float("inf") else f"noise level {level:.4g}"
                    raise NumericalError(
                        f"the operator gives values that are not finite at {where}; check it on fields such as the "
                        "prior's draws, bound what it is given, or start at a smaller noise level."
                    )
            self.sums.clear()
        if self.callback is not None:
            self.callback(step, steps, sigma, u)


@dataclass
class Run:
    """One batch of members at work.

    Arguments:
        posterior: Posterior of the rows, member slowest.
        streams: Random numbers of the rows.
        cost: Counters.
        callback: To be called after each step.
        batch_size: Members at once in the network and the operator, for methods whose members interact and therefore
            come all in one run; see `scidiff.posterior.population.piecewise`.
    """

    posterior: Posterior
    streams: Streams
    cost: Cost
    callback: Callback | None = None
    batch_size: int | None = None
    notes: dict[str, list[Tensor]] = field(default_factory=dict)
    traces: dict[str, list[Tensor]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    lost: dict[int, Failure] = field(default_factory=dict)  # last failed query of each row, if any
    dropped: set[int] = field(default_factory=set)  # rows of a population that take part no longer

    def __post_init__(self) -> None:
        self.measurement = Measurement(self.posterior, self.cost, self.failed)
        self.callback = Watch(self.measurement, self.callback)

    def failed(self, row: int, failure: Failure) -> None:
        """Writes down that the operator failed for a row of the run."""
        member, observation = divmod(row, self.streams.batch)
        about = {"member": self.streams.members[member], "call": self.cost.operator, "message": failure.message}
        self.failures.append(about | ({"observation": observation} if self.streams.batch > 1 else {}))

    def note(self, name: str, value: Tensor) -> None:
        """Remembers a number, left on its device until the run ends; the mean over the run goes to the diagnostics."""
        self.notes.setdefault(name, []).append(value)

    def trace(self, name: str, value: Tensor) -> None:
        """Remembers a number per step, left on its device; the diagnostics hold the list, one entry per call."""
        self.traces.setdefault(name, []).append(value)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        """The denoised state, counted, without graph."""
        self.cost.denoiser += 1
        with torch.no_grad():
            return self.posterior.prior.denoise(u, sigma)


def located(name: str, run: Run, error: NumericalError) -> NumericalError:
    """The error with the method and, where it does not name one (an operator does not know it), the noise level."""
    level = run.callback.level if isinstance(run.callback, Watch) else float("inf")
    where = "the first noise level" if level == float("inf") else f"noise level {level:.4g}"
    return NumericalError(f"{name}: {error}" + ("" if "noise level" in str(error) else f" (at {where})"))


def differentiate(run: Run, u: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    r"""The state as a leaf of a graph, and its denoised state ``D`` with the graph of the network.

    Gradients are taken with respect to ``u`` alone (`torch.autograd.grad`), so none is computed for weights.
    """
    run.cost.denoiser += 1
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        D = run.posterior.prior.denoise(u, sigma)
    if not D.requires_grad:
        name = type(run.posterior.prior).__name__
        raise TypeError(f"no gradient flows through {name}.denoise; this sampler needs it (remove torch.no_grad).")
    return u, D


def largest(runs: Sequence[Run]) -> Cost:
    """Calls per member; of runs that differ the largest."""
    return Cost(**{name: max(run.cost.as_dict()[name] for run in runs) for name in Cost().as_dict()})


def remaining(indices: Sequence[int], dropped: set[int], runs: Sequence[Run]) -> list[int]:
    """Members that were not dropped.

    Raises:
        AllDropped: if there is none.
    """
    kept = [m for m in indices if m not in dropped]
    if not kept:
        raise AllDropped(runs[-1].failures[-1]["message"])
    return kept


def losses(runs: Sequence[Run], indices: Sequence[int]) -> dict[str, Any]:
    """Diagnostics of failures, where there were any: all of them, and the members that were asked for and dropped."""
    failures = [failure for run in runs for failure in run.failures]
    dropped = {run.streams.members[row // run.streams.batch] for run in runs for row in run.dropped}
    found: dict[str, Any] = {"failures": failures} if failures else {}
    return found | ({"dropped": [m for m in indices if m in dropped]} if dropped else {})


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """What the runs noted: the mean of each note, and each trace as a list with the mean over runs."""
    found: dict[str, Any] = {}
    for name in runs[0].notes:
        found[name] = torch.stack([value.double() for run in runs for value in run.notes[name]]).mean().item()
    for name in runs[0].traces:
        lists = [torch.stack([value.double() for value in run.traces[name]]) for run in runs]
        found[name] = torch.stack(lists).mean(0).tolist()
    return found


class MemberSampler(ABC):
    """A posterior sampler that draws members independently of each other.

    Methods that return one best guess instead of draws set ``point_estimate``; it is repeated in the diagnostics.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    point_estimate: ClassVar[bool] = False

    @abstractmethod
    def draw(self, run: Run) -> Tensor:
        r"""Draws one state per row: (rows, \*S)."""

    def __call__(
        self,
        posterior: Posterior,
        members: int | Sequence[int] = 16,
        generator: Generator | None = None,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Ensemble:
        r"""Draws an ensemble.

        Arguments:
            posterior: Law to draw from.
            members: Number of members, or their indices, so that a run can be split or resumed.
            generator: Its state seeds the run and is not advanced; None takes fresh entropy.
            batch_size: Members computed at once (each of them for all B observations); None takes all.
            callback: Called as ``callback(step, steps, sigma, u)`` after each step of each batch.

        Returns:
            Ensemble with samples (M, B, \*X). Counters are calls per member; where inner iterations differ between
            batches, the largest.

        Raises:
            TypeError: The posterior lacks what the method needs; the message lists the methods that would work.
            NumericalError: The state left the finite numbers.
        """
        self.check(posterior)
        root, indices, parts, runs = root_seed(generator), member_indices(members), [], []
        for group in batches(indices, batch_size):
            run = Run(posterior.tile(len(group)), Streams(root, group, posterior.batch), Cost(), callback)
            u = self._again(posterior, run, self._drawn(run))
            with torch.no_grad():
                parts.append(posterior.prior.decode(u.detach()).unflatten(0, (len(group), posterior.batch)))
            runs.append(run)
        samples, kept = torch.cat(parts), indices
        dropped = {run.streams.members[row // posterior.batch] for run in runs for row in run.dropped}
        if dropped:
            kept = remaining(indices, dropped, runs)
            samples = samples[[indices.index(m) for m in kept]]
        diagnostics = {"seed": root, "members": kept, "sampler": repr(self), **summary(runs), **losses(runs, indices)}
        if self.point_estimate:
            diagnostics["point_estimate"] = True
        return Ensemble(samples, largest(runs), diagnostics)

    def _drawn(self, run: Run) -> Tensor:
        try:
            return self.draw(run)
        except NumericalError as error:
            raise located(type(self).__name__, run, error) from None

    def _again(self, posterior: Posterior, run: Run, u: Tensor) -> Tensor:
        """Draws rows again for which the operator failed, with other random numbers, or marks them as dropped."""
        marked, attempt = run.measurement.failed, 0
        run.dropped.update(row for row, failure in marked.items() if failure.policy == "drop")
        todo = {row: failure for row, failure in marked.items() if failure.policy == "redraw"}
        u = u.detach().clone() if todo else u
        while todo:
            attempt += 1
            if attempt > ATTEMPTS:
                row, failure = next(iter(todo.items()))
                member = run.streams.members[row // posterior.batch]
                raise NumericalError(
                    f"{type(self).__name__}: the forward model failed for member {member} in each of {ATTEMPTS + 1} "
                    f"attempts; in the first, {failure.message}"
                )
            for member in sorted({row // posterior.batch for row in todo}):
                index = run.streams.members[member]
                streams = Streams(spare_root(run.streams.root, attempt), [index], posterior.batch)
                one = Run(posterior, streams, Cost(), None, run.batch_size)
                found = self._drawn(one)
                run.failures.extend(one.failures)
                for b in range(posterior.batch):
                    row = member * posterior.batch + b
                    if row in todo and b not in one.measurement.failed:
                        u[row] = found[b]
                        del todo[row]
        return u

    def check(self, posterior: Posterior) -> None:
        """Raises TypeError if the posterior lacks what the method requires."""
        given = offers(posterior)
        if missing := sorted(self.requires - given):
            from scidiff.posterior.registry import suitable

            works = ", ".join(suitable(given)) or "none"
            raise TypeError(
                f"{type(self).__name__} needs {', '.join(missing)}; this posterior offers "
                f"{', '.join(sorted(given)) or 'forward calls only'}. Samplers that would work: {works}. "
                f"Or: {'; '.join(WAYS_OUT[name] for name in missing)}."
            )
        require_same_numbers(posterior)


@dataclass(frozen=True)
class GuidedSampler(MemberSampler):
    """A conditional denoiser plus an integrator.

    Arguments:
        sampler: Integrator of `scidiff.samplers`.
    """

    sampler: Sampler = field(default_factory=DPMSolver)

    @abstractmethod
    def condition(self, run: Run) -> Denoiser:
        """The conditional denoiser of the rows at hand."""

    def draw(self, run: Run) -> Tensor:
        p = run.posterior
        u = self.sampler.start(run.streams, p.shape or (), p.device, p.dtype)
        with torch.no_grad():
            return self.sampler.integrate(self.condition(run), u, run.streams, run.callback)
