r"""Variational analysis: the most probable state or trajectory, by minimisation with gradients through the model.

With the background :math:`x_b, P_b`, whitened residuals and the transition noise Q:

- `ThreeDVar`: at each observation :math:`J(x) = |x - x_b|^2_{P_b} + |y - A(x)|^2_R`; the forecast from the
  analysis before is the next background, with the same :math:`P_b` always.
- `FourDVar`, strong: :math:`J(x_0) = |x_0 - x_b|^2_{P_b} + \sum_k |y_k - A(M^{t_k}(x_0))|^2_R`, a
  perfect model.
- `FourDVar`, weak: over all states, with :math:`\sum_t |x_{t+1} - M(x_t)|^2_Q` added; the mode of the
  posterior, which for linear Gaussian chains is the mean of the Kalman smoother.

:math:`|v|^2_C = v^\top C^{-1} v / 2`. One best guess, **no uncertainty**. Chaotic models over long windows have many
minima; the one found depends on the start.

References:
    Variational data assimilation with an adiabatic formulation, Courtier and Talagrand, 1987. Accounting for an
    imperfect model in 4D-Var, Trémolet, 2006.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scidiff.assimilation.ensemble import noise_root
from scidiff.assimilation.observations import Observations
from scidiff.assimilation.state_space import StateSpace
from scidiff.errors import NumericalError

__all__ = ["FourDVar", "ThreeDVar"]


def _minimise(cost: Callable[[Tensor], Tensor], v: Tensor, iterations: int, what: str) -> Tensor:
    """The minimiser of a function of one tensor, by L-BFGS with a strong Wolfe line search."""
    with torch.enable_grad():
        v = v.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        optimiser = torch.optim.LBFGS(
            [v], max_iter=iterations, tolerance_grad=1e-8, tolerance_change=1e-13, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            value = cost(v)
            value.backward()
            return value

        optimiser.step(closure)  # type: ignore[arg-type]
    if not bool(v.isfinite().all()):
        raise NumericalError(
            f"{what}: the minimisation left the finite numbers; shorten the window or the model's step."
        )
    return v.detach()


def _lower(P: Tensor, d: int) -> Tensor:
    lower, failed = torch.linalg.cholesky_ex(P.to(torch.float64))
    if tuple(P.shape) != (d, d) or bool(failed):
        raise ValueError(f"the background needs a positive definite covariance ({d}, {d}), got {tuple(P.shape)}.")
    return lower


def _misfit(model: StateSpace, observations: Observations, colour: Tensor, x: Tensor, rows: slice) -> Tensor:
    """Half the squared whitened misfit of the observed states ``x`` (K, d) to some of the observations."""
    r = observations.y[0, rows].flatten(1).to(x) - model.observed(observations.operator, x)
    return torch.linalg.solve(colour.mT, r.mT).square().sum() / 2


@dataclass(frozen=True)
class ThreeDVar:
    """One state at a time, with a fixed background covariance.

    Arguments:
        mean: Background of the first state (d,).
        cov: Background covariance of every analysis, (d, d); the climate's is a usual choice.
        iterations: Largest number of L-BFGS iterations per analysis.
    """

    mean: Tensor
    cov: Tensor
    iterations: int = 50

    def __call__(self, model: StateSpace, observations: Observations, length: int) -> Tensor:
        r"""One trajectory (1, C, L, \*grid), float64, given one observed trajectory (B = 1)."""
        lower, colour = _lower(self.cov, model.dim), noise_root(observations)
        x, found = self.mean.to(torch.float64), []
        for t in range(length):
            if t:
                x = model.step(x[None])[0].detach()
            if t in observations.steps:
                row = observations.steps.index(t)
                x = self._analysis(model, observations, x, slice(row, row + 1), lower, colour)
            found.append(x)
        return model.fields(torch.stack(found)[None])

    def _analysis(
        self, model: StateSpace, observations: Observations, x: Tensor, row: slice, lower: Tensor, colour: Tensor
    ) -> Tensor:
        """The state (d,) after one observation, from the background ``x``."""

        def cost(v: Tensor) -> Tensor:
            misfit = _misfit(model, observations, colour, (x + lower @ v)[None], row)
            return v.square().sum() / 2 + misfit

        return x + lower @ _minimise(cost, torch.zeros_like(x), self.iterations, f"3D-Var, observation {row.start}")


@dataclass(frozen=True)
class FourDVar:
    """A whole trajectory at once.

    Arguments:
        mean: Background of the first state (d,).
        cov: Its covariance (d, d).
        constraint: "strong" (perfect model) or "weak" (transition noise Q of the model).
        iterations: Largest number of L-BFGS iterations.
    """

    mean: Tensor
    cov: Tensor
    constraint: Literal["strong", "weak"] = "strong"
    iterations: int = 200

    def __post_init__(self) -> None:
        if self.constraint not in ("strong", "weak"):
            raise ValueError(f"constraint must be 'strong' or 'weak', got {self.constraint!r}.")

    def __call__(
        self, model: StateSpace, observations: Observations, length: int, start: Tensor | None = None
    ) -> Tensor:
        r"""One trajectory (1, C, L, \*grid), float64, given one observed trajectory (B = 1).

        Arguments:
            model: Its step must be differentiable.
            observations: One observed trajectory.
            length: Number L of states.
            start: Trajectory (1, C, L, \*grid) where the minimisation starts, for example that of `ThreeDVar`; by
                default the model's run from the background.

        Raises:
            InputError: weak constraint for a perfect model.
            NumericalError: the minimisation left the finite numbers.
        """
        lower, colour = _lower(self.cov, model.dim), noise_root(observations)
        mean = self.mean.to(torch.float64)
        guess = None if start is None else model.vectors(start.to(torch.float64))[0]

        def run(x: Tensor) -> Tensor:
            states = [x]
            for _ in range(length - 1):
                states.append(model.step(states[-1][None])[0])
            return torch.stack(states)

        def data(x: Tensor) -> Tensor:
            return _misfit(model, observations, colour, x[list(observations.steps)], slice(None))

        def background(x: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(lower, (x - mean)[:, None], upper=False).square().sum() / 2

        if self.constraint == "strong":
            v = torch.zeros_like(mean) if guess is None else torch.linalg.solve(lower, guess[0] - mean)
            v = _minimise(
                lambda v: v.square().sum() / 2 + data(run(mean + lower @ v)), v, self.iterations, "strong 4D-Var"
            )
            with torch.no_grad():
                return model.fields(run(mean + lower @ v)[None])

        def cost(x: Tensor) -> Tensor:
            return background(x[0]) + model.whiten(x[1:] - model.step(x[:-1])).square().sum() / 2 + data(x)

        with torch.no_grad():
            first = run(mean) if guess is None else guess
        return model.fields(_minimise(cost, first, self.iterations, "weak 4D-Var")[None])
