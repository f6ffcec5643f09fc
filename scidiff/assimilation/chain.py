r"""A linear Gaussian chain: the law of trajectories whose posterior is known exactly.

.. math:: x_0 \sim N(m_0, P_0), \qquad x_{t+1} = F x_t + b + N(0, Q)

Started from its stationary law (:math:`m = F m + b`, :math:`P = F P F^\top + Q`) every window of w states has the same
Gaussian law with :math:`\mathrm{Cov}(x_t, x_{t+j}) = P (F^\top)^j`, whose denoiser is exact. So the chain is the
truth for `TrajectoryPrior` (windows against the whole), for samplers (against `posterior`) and for filters.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from scidiff.assimilation.kalman import KalmanAnswer, kalman_smoother
from scidiff.assimilation.observations import Observations
from scidiff.assimilation.state_space import StateSpace
from scidiff.noise import GaussianNoise
from scidiff.priors.gaussian import GaussianPrior

__all__ = ["LinearGaussianChain"]


def _positive(name: str, P: Tensor, d: int) -> Tensor:
    P = P.detach().to(torch.float64)
    if tuple(P.shape) != (d, d):
        raise ValueError(f"{name} must be ({d}, {d}), got {tuple(P.shape)}.")
    if not torch.allclose(P, P.mT):
        raise ValueError(f"{name} must be symmetric.")
    smallest = torch.linalg.eigvalsh(P)[[0, -1]].tolist()
    if not smallest[0] > 1e-12 * smallest[1]:
        raise ValueError(
            f"{name} is a singular covariance (eigenvalues from {smallest[0]:.3g} to {smallest[1]:.3g}); "
            "every direction needs a positive variance."
        )
    return P


class LinearGaussianChain:
    r"""The chain of the module's formula, states of d numbers.

    Arguments:
        F: Transition matrix :math:`F`, (d, d).
        Q: Covariance of the noise of a transition, (d, d), positive definite.
        offset: :math:`b`, (d,).
        mean0, cov0: Law of the first state; by default the stationary law, for which F must be stable.

    Raises:
        ValueError: sizes that do not fit, a singular covariance, no stationary law.
    """

    def __init__(
        self,
        F: Tensor,
        Q: Tensor,
        offset: Tensor | None = None,
        mean0: Tensor | None = None,
        cov0: Tensor | None = None,
    ) -> None:
        if F.ndim != 2 or F.shape[0] != F.shape[1]:
            raise ValueError(f"F must be a square matrix, got {tuple(F.shape)}.")
        self.F, d = F.detach().to(torch.float64), len(F)
        self.Q = _positive("Q", Q, d)
        self.offset = torch.zeros(d, dtype=torch.float64) if offset is None else offset.to(torch.float64)
        self.stationary = mean0 is None and cov0 is None
        radius = float(torch.linalg.eigvals(self.F).abs().max())
        eye = torch.eye(d, dtype=torch.float64)
        if (mean0 is None or cov0 is None) and not radius < 1:
            raise ValueError(f"F has spectral radius {radius:.3g}, so no stationary law; give mean0 and cov0.")
        mean = torch.linalg.solve(eye - self.F, self.offset) if mean0 is None else mean0.to(torch.float64)
        if cov0 is None:
            lifted = torch.eye(d * d, dtype=torch.float64) - torch.kron(self.F, self.F)
            cov = torch.linalg.solve(lifted, self.Q.flatten()).reshape(d, d)
            cov = (cov + cov.mT) / 2
        else:
            cov = cov0
        self.mean0, self.cov0 = mean, _positive("cov0", cov, d)

    @classmethod
    def damped_spring(
        cls, frequency: float = 1.0, damping: float = 0.5, dt: float = 0.25, noise: float = 0.3
    ) -> LinearGaussianChain:
        r"""Position and velocity of a spring driven by noise, :math:`\ddot x = -\omega^2 x - 2 c \omega \dot x + e`.

        The transition is the exact flow over ``dt``; its noise is the same in both numbers, ``noise`` squared per unit
        of time.
        """
        A = torch.tensor([[0.0, 1.0], [-(frequency**2), -2 * damping * frequency]], dtype=torch.float64)
        return cls(torch.linalg.matrix_exp(dt * A), noise**2 * dt * torch.eye(2, dtype=torch.float64))

    @property
    def dim(self) -> int:
        """Numbers d in a state."""
        return len(self.F)

    def moments(self, length: int) -> tuple[Tensor, Tensor]:
        """Mean (L, d) and covariance (L, d, L, d) of the first ``length`` states."""
        means, cov = [self.mean0], self.cov0.new_zeros(length, self.dim, length, self.dim)
        P = self.cov0
        for t in range(length):
            if t:
                means.append(means[-1] @ self.F.mT + self.offset)
                P = self.F @ P @ self.F.mT + self.Q
            block = P
            for later in range(t, length):
                cov[t, :, later], cov[later, :, t] = block, block.mT
                block = block @ self.F.mT
        return torch.stack(means), cov

    def window(self, length: int) -> GaussianPrior:
        """The exact prior of ``length`` states in a row, fields (d, length).

        Raises:
            ValueError: a chain that is not stationary, whose windows differ.
        """
        if not self.stationary:
            raise ValueError("windows have one law only if the chain starts from its stationary law.")
        return self.trajectory(length)

    def trajectory(self, length: int) -> GaussianPrior:
        """The exact prior of the first ``length`` states, fields (d, length)."""
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}.")
        mean, cov = self.moments(length)
        size = length * self.dim
        return GaussianPrior(mean.mT.contiguous(), cov.permute(1, 0, 3, 2).reshape(size, size))

    def sample(self, n: int, length: int, generator: Generator) -> Tensor:
        """Trajectories (n, d, length), float64."""
        return self.state_space().simulate(n, length, generator).movedim(1, 2)

    def state_space(self) -> StateSpace:
        """The chain as a model for filters."""
        root = torch.linalg.cholesky(self.cov0)

        def start(n: int, generator: Generator) -> Tensor:
            e = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
            return self.mean0 + e @ root.mT

        return StateSpace(lambda x: x @ self.F.to(x).mT + self.offset.to(x), self.Q, start, (self.dim,))

    def posterior(self, observations: Observations, length: int) -> KalmanAnswer:
        """The exact posterior of ``length`` states, by `kalman_smoother`.

        Raises:
            TypeError: the noise is not a `GaussianNoise` with standard deviations.
            ValueError: an observation beyond the last state, an operator that is not linear.
        """
        H, R = self.observation(observations)
        y = torch.full((len(observations.y), length, len(H)), torch.nan, dtype=torch.float64)
        if max(observations.steps) >= length:
            raise ValueError(f"step {max(observations.steps)} is observed, but the trajectory has {length} states.")
        y[:, list(observations.steps)] = observations.y.flatten(2).to(torch.float64)
        return kalman_smoother(self, H, R, y)

    def observation(self, observations: Observations) -> tuple[Tensor, Tensor]:
        """Observation matrix (m, d) and covariance (m, m) of the noise."""
        if not isinstance(observations.noise, GaussianNoise):
            raise TypeError(f"the exact answer needs GaussianNoise, got {type(observations.noise).__name__}.")
        eye = torch.eye(self.dim, dtype=torch.float64)
        H = observations.operator(eye).flatten(1).mT
        if float(observations.operator(0 * eye).abs().max()) > 0 or not torch.allclose(
            observations.operator(2 * eye + eye.roll(1, 0)).flatten(1).mT, 2 * H + H.roll(1, 1)
        ):
            raise ValueError("the operator is not linear, so the exact answer is not known.")
        colour = observations.noise.color(torch.eye(len(H), dtype=torch.float64).reshape(-1, *observations.y.shape[2:]))
        root = colour.flatten(1)
        return H, root.mT @ root
