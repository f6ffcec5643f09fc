r"""A model of states in time with additive Gaussian noise: what filters and variational methods are given.

.. math:: x_0 \sim p_0, \qquad x_{t+1} = M(x_t) + N(0, Q)

States are vectors (..., d): fields (C, \*grid) flattened. Observation operators see the fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from scidiff.errors import InputError, NumericalError

__all__ = ["StateSpace"]


class StateSpace:
    r"""The model of the module's formula.

    Arguments:
        step: :math:`M` on states (..., d); differentiable for 4D-Var.
        noise: :math:`Q`: a variance (0 for a perfect model), or a positive definite matrix (d, d).
        start: ``start(n, generator)`` draws n first states (n, d) from :math:`p_0`.
        shape: Shape (C, \*grid) of a state as a field.

    Raises:
        ValueError: a negative variance, or a singular covariance.
    """

    def __init__(
        self,
        step: Callable[[Tensor], Tensor],
        noise: float | Tensor,
        start: Callable[[int, Generator], Tensor],
        shape: Sequence[int],
    ) -> None:
        self.step, self.start, self.shape = step, start, tuple(int(n) for n in shape)
        self.root: float | Tensor
        if isinstance(noise, Tensor) and noise.ndim == 2:
            lower, failed = torch.linalg.cholesky_ex(noise.to(torch.float64))
            if int(failed) or noise.shape[0] != self.dim:
                raise ValueError(
                    f"the noise of a transition needs a variance or a positive definite matrix ({self.dim}, "
                    f"{self.dim}), got {tuple(noise.shape)}, singular: {bool(failed)}."
                )
            self.root = lower
        else:
            if not float(noise) >= 0:
                raise ValueError(f"the variance of a transition must not be negative, got {float(noise)}.")
            self.root = math.sqrt(float(noise))

    @property
    def dim(self) -> int:
        """Numbers d in a state."""
        return math.prod(self.shape)

    @property
    def perfect(self) -> bool:
        """Whether transitions have no noise."""
        return not isinstance(self.root, Tensor) and self.root == 0

    def color(self, e: Tensor) -> Tensor:
        """Gives standard normal numbers (..., d) the covariance of the transition."""
        return e @ self.root.to(e).mT if isinstance(self.root, Tensor) else self.root * e

    def whiten(self, r: Tensor) -> Tensor:
        """Inverse of `color`."""
        if isinstance(self.root, Tensor):
            return torch.linalg.solve_triangular(self.root.to(r).mT, r, upper=True, left=False)
        if self.perfect:
            raise InputError("this method needs noise in the transitions; the model is perfect (variance 0).")
        return r / self.root

    @property
    def logdet(self) -> float:
        """Half the log determinant of Q."""
        if isinstance(self.root, Tensor):
            return float(self.root.diagonal().log().sum())
        return self.dim * math.log(self.root) if self.root > 0 else -math.inf

    def advance(self, x: Tensor, generator: Generator, step: int = 0) -> Tensor:
        """The next state of each in ``x`` (n, d), drawn.

        Raises:
            NumericalError: a state is not finite; the message names the member.
        """
        after = self.step(x)
        bad = (~after.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        if bad:
            raise NumericalError(
                f"the model gave values that are not finite at step {step} for members {bad[:5]}; shorten its step."
            )
        if self.perfect:
            return after
        return after + self.color(torch.randn(x.shape, generator=generator, dtype=x.dtype))

    def simulate(self, n: int, length: int, generator: Generator) -> Tensor:
        """Trajectories (n, length, d)."""
        x = [self.start(n, generator)]
        for t in range(length - 1):
            x.append(self.advance(x[-1], generator, t))
        return torch.stack(x, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of trajectories (..., L, d) given their first states: (...)."""
        r = self.whiten(x[..., 1:, :] - self.step(x[..., :-1, :]))
        each = -0.5 * r.square().sum(-1) - self.logdet - self.dim * math.log(2 * math.pi) / 2
        return each.sum(-1)

    def fields(self, x: Tensor) -> Tensor:
        r"""Trajectories of vectors (n, L, d) as (n, C, L, \*grid)."""
        return x.unflatten(-1, self.shape).movedim(1, 2)

    def vectors(self, x: Tensor) -> Tensor:
        r"""Inverse of `fields`."""
        return x.movedim(2, 1).flatten(2)

    def observed(self, operator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """What an operator on fields gives for states (n, d), flattened: (n, m)."""
        return operator(x.unflatten(-1, self.shape)).flatten(1)
