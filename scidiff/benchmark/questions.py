r"""What samplers are asked: one case of a problem as a posterior, with its truth and its scores.

A name is that of a problem of `scidiff.problems`, ``mri`` or ``mri:acceleration=8,noise=0.02``, or of a problem whose
posterior is known exactly, ``exact-inpainting`` (`scidiff.benchmark.catalogue`). A seed is a case: truth, noise and
whatever else a problem draws. Equal names and seeds are equal questions, observation and noise included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.arguments import near
from scidiff.benchmark.catalogue import PROBLEMS
from scidiff.benchmark.certify import parse
from scidiff.inference import Ensemble, Posterior

__all__ = ["EXACT_PREFIX", "Question", "known", "question"]

EXACT_PREFIX = "exact-"


@dataclass(frozen=True)
class Question:
    r"""One case of one problem.

    Arguments:
        name: As given.
        seed: The case.
        posterior: Of one observation.
        truth: The field behind it, (1, \*X), or None.
        exact: The exact posterior, an object with ``mean``, ``variance`` and ``sample``, or None.
        own: Scores that the problem itself defines.
        estimates: Classical answers by name, computed when called: (1, \*X) each.
    """

    name: str
    seed: int
    posterior: Posterior
    truth: Tensor | None = None
    exact: Any = None
    own: Callable[[Ensemble], dict[str, float]] = field(default=lambda ensemble: {})
    estimates: Callable[[], dict[str, Tensor]] = field(default=dict)

    @property
    def fingerprint(self) -> str:
        """Of the observation: rows of a table that were measured on the same data share it."""
        digest = hashlib.blake2b(digest_size=6)
        for part in self.posterior.likelihoods:
            digest.update(part.y.detach().cpu().contiguous().resolve_conj().numpy().tobytes())
        return digest.hexdigest()


def known() -> list[str]:
    """Names without parameters that `question` takes."""
    from scidiff.problems import names

    return [*names(), *(EXACT_PREFIX + name for name in PROBLEMS)]


def question(name: str, seed: int, problem: Any = None) -> Question:
    """The case ``seed`` of a problem.

    Arguments:
        name: See above; any label where a problem is given.
        seed: Non-negative.
        problem: A problem object that takes the place of the name's.

    Raises:
        ValueError: unknown problem or parameter.
    """
    if problem is None and name.startswith(EXACT_PREFIX):
        return _exact(name, seed)
    from scidiff.problems import get

    if problem is None:
        plain, parameters = parse(name)
        if plain not in known():
            raise ValueError(f"unknown problem {plain!r};{near(plain, known())} problems are {', '.join(known())}.")
        problem = get(plain, **(parameters or {}))
    case = problem.case(seed)
    posterior = problem.posterior(case.observation)

    def own(ensemble: Ensemble) -> dict[str, float]:
        return _own(problem, case, ensemble)

    def estimates() -> dict[str, Tensor]:
        with torch.no_grad():
            shape = _decoded(posterior)
        arrays = problem.baselines(case.observation)
        found = {k: torch.as_tensor(np.asarray(v.values)) for k, v in arrays.items()}
        return {k: v.reshape(1, *shape) for k, v in found.items() if v.numel() == int(np.prod(shape))}

    return Question(name, seed, posterior, _truth(problem, case, posterior), None, own, estimates)


def _exact(name: str, seed: int) -> Question:
    plain = name.removeprefix(EXACT_PREFIX)
    if plain not in PROBLEMS:
        raise ValueError(f"unknown problem {name!r};{near(name, known())} problems are {', '.join(known())}.")
    built = PROBLEMS[plain].build(seed=seed)

    def own(ensemble: Ensemble) -> dict[str, float]:
        from scidiff.benchmark.scores import scores

        found = scores(built, ensemble.samples[:, 0], torch.Generator().manual_seed(seed + 1_000_003))
        return {key: value for key, (value, _) in found.items() if value == value}

    return Question(name, seed, built.posterior, built.truth, built.exact, own)


def _decoded(posterior: Posterior) -> tuple[int, ...]:
    zero = torch.zeros(1, *(posterior.shape or ()), dtype=posterior.dtype, device=posterior.device)
    return tuple(posterior.prior.decode(zero).shape[1:])


def _truth(problem: Any, case: Any, posterior: Posterior) -> Tensor | None:
    """The truth in the shape of a member, where it has one: some are on a finer grid than the members."""
    if case.truth is None or problem.field not in case.truth:
        return None
    with torch.no_grad():
        shape = _decoded(posterior)
    values = torch.as_tensor(np.asarray(case.truth[problem.field].values))
    return values.reshape(1, *shape) if values.numel() == int(np.prod(shape)) else None


def _own(problem: Any, case: Any, ensemble: Ensemble) -> dict[str, float]:
    """The problem's scores that are single numbers; those that need the observation where it has an exact answer."""
    if case.truth is None:
        return {}
    given: Any = ensemble
    if hasattr(problem, "exact"):
        template = problem.template(case.observation)
        values = ensemble.samples[:, 0].cpu().numpy().reshape(len(ensemble.samples), *template.shape)
        given = case.observation.assign({problem.field: (("member", *template.dims), values)})
    found = problem.evaluate(given, case.truth)
    return {str(k): float(v) for k, v in found.data_vars.items() if v.size == 1 and np.isrealobj(v.values)}
