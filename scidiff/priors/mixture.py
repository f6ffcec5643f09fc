r"""The Gaussian mixture prior: several modes, and still every answer in closed form.

:math:`x \sim \sum_k w_k\,\mathcal{N}(m_k, C_k)` in physical units. The state is :math:`u = (x - m)/c` with the mean
:math:`m` of the mixture and one scale :math:`c = \sqrt{\mathrm{tr}\,\mathrm{Cov}[x] / d}`. A noised state has the
responsibilities :math:`r_k(u, \sigma) \propto w_k\,\mathcal{N}(u; \mu_k, K_k + \sigma^2 I)`, with
:math:`\mu_k = (m_k - m)/c`, :math:`K_k = C_k / c^2`, and

.. math:: D(u, \sigma) = \sum_k r_k \bigl(\mu_k + K_k (K_k + \sigma^2 I)^{-1}(u - \mu_k)\bigr).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scidiff.linalg import Covariance, as_covariance
from scidiff.priors.gaussian import Standardised, condition_gaussian, measurement_matrix, to_real
from scidiff.priors.mixture_fit import fit_mixture
from scidiff.protocols import Noise, Operator
from scidiff.rng import Streams, explicit

__all__ = ["GaussianMixturePrior"]


class GaussianMixturePrior(Standardised):
    r"""Mixture of Gaussian fields with an exact denoiser, density and conditioning.

    Arguments:
        weights: Probabilities :math:`w_k` of the components, (K,); positive, divided by their sum.
        means: Means :math:`m_k` in physical units, (K, \*X). Complex means make a prior of complex fields.
        covs: Covariances :math:`C_k`: a tensor (K, d, d), one matrix (d, d) or one covariance for all components, or a
            sequence of K covariances of `scidiff.linalg`. For complex fields d counts real numbers, in the order of
            the state.

    Raises:
        ValueError: if sizes differ, a weight is not positive, or a covariance is not positive semi-definite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor | Covariance | Sequence[Covariance]) -> None:
        count = len(means)
        weights = torch.as_tensor(weights, dtype=torch.float64).detach().to(means.device)
        if weights.shape != (count,) or not bool((weights > 0).all()) or not bool(torch.isfinite(weights).all()):
            raise ValueError(f"weights must be {count} positive numbers, one for each mean, got {weights.tolist()}.")
        real = to_real(means).detach().to(torch.float64)
        shape = tuple(real.shape[1:])
        if isinstance(covs, Covariance) or (isinstance(covs, Tensor) and covs.ndim == 2):
            shared = as_covariance(covs, shape)
            self.covs = [shared] * count
        else:
            self.covs = [as_covariance(c, shape) for c in covs]
        if len(self.covs) != count:
            raise ValueError(f"there are {count} means but {len(self.covs)} covariances.")
        self.weights = weights / weights.sum()
        self.means = means.detach()
        loc = torch.einsum("k,k...->...", self.weights, real)
        apart = (real - loc).flatten(1).square().sum(-1)
        traces = torch.tensor([c.trace for c in self.covs], dtype=torch.float64, device=means.device)
        mean = self._as_field(loc[None].to(means.dtype.to_real()), means.is_complex())[0]
        super().__init__(mean, math.sqrt(float((self.weights * (traces + apart)).sum()) / math.prod(shape)))
        self.loc = loc
        self._mu = (real - loc) / self.scale
        units = {id(c): c.scaled(1 / self.scale**2) for c in self.covs}
        self._units = [units[id(c)] for c in self.covs]

    def __repr__(self) -> str:
        return f"GaussianMixturePrior(components={len(self.weights)}, shape={self.field_shape})"

    @property
    def covariance(self) -> Tensor:
        """Covariance of the whole mixture, (d, d), in the order of the state."""
        mu = self._mu.flatten(1) * self.scale
        total = (mu.mT * self.weights) @ mu
        for w, cov in zip(self.weights, self.covs, strict=True):
            total = total + w * cov.dense().to(total.device)
        return total.to(self.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance of every real number of the state's layout, in physical units, (``*shape``)."""
        inside = torch.stack([c.diagonal().reshape(self.shape).to(self._mu.device) for c in self.covs])
        total = torch.einsum("k,k...->...", self.weights, inside + (self._mu * self.scale).square())
        return total.to(self.dtype)

    def _terms(self, u: Tensor, variance: Tensor | float) -> Tensor:
        r""":math:`\log w_k\,\mathcal{N}(u; \mu_k, K_k + s I)` of states (B, ``*S``): (B, K)."""
        logs = []
        for w, mu, cov in zip(self.weights, self._mu, self._units, strict=True):
            r = u - mu.to(u)
            quadratic = (r * cov.solve(r, variance)).flatten(1).sum(-1)
            constant = cov.logdet(variance).to(u) + self.size * math.log(2 * math.pi) - 2 * w.log().to(u)
            logs.append(-0.5 * (quadratic + constant))
        return torch.stack(logs, -1)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r""":math:`E[u_0 | u_0 + \sigma\epsilon = u]`, exact; ``u`` (B, \*S), ``sigma`` () or (B,), positive."""
        variance = torch.as_tensor(sigma, dtype=u.dtype, device=u.device).square()
        r = torch.softmax(self._terms(u, variance), -1)
        out = torch.zeros_like(u)
        for k, (mu, cov) in enumerate(zip(self._mu, self._units, strict=True)):
            mu = mu.to(u)
            out = out + r[:, k].reshape(-1, *[1] * (u.ndim - 1)) * (mu + cov.shrink(u - mu, variance))
        return out

    def noised_log_prob(self, u: Tensor, sigma: Tensor) -> Tensor:
        r"""Log density of the noised state :math:`u_0 + \sigma\epsilon` at ``u``, (B,)."""
        variance = torch.as_tensor(sigma, dtype=u.dtype, device=u.device).square()
        return torch.logsumexp(self._terms(u, variance), -1)

    def responsibilities(self, x: Tensor) -> Tensor:
        r"""Probabilities that the fields ``x`` (B, \*X) come from each component: (B, K)."""
        return torch.softmax(self._terms(self.encode(x), 0.0), -1)

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log density of the fields ``x`` (B, \*X) in physical units, per real number: (B,)."""
        return torch.logsumexp(self._terms(self.encode(x), 0.0), -1) - self.size * math.log(self.scale)

    def sample(self, n: int, generator: Generator | Streams | None = None) -> Tensor:
        r"""Independent fields (n, \*X) in physical units."""
        device = generator.device if isinstance(generator, Generator) else "cpu"
        if isinstance(generator, Streams):
            uniform = generator.rand((), dtype=torch.float64)
            n = len(generator)
        else:
            uniform = torch.rand(n, generator=explicit(generator), dtype=torch.float64, device=device).cpu()
        edges = self.weights.cumsum(0).cpu()
        which = torch.searchsorted(edges, uniform, right=True).clamp_max(len(edges) - 1)
        if isinstance(generator, Streams):
            e = generator.randn(self.shape, dtype=self.dtype)
        else:
            e = torch.randn(n, *self.shape, generator=explicit(generator), dtype=self.dtype, device=device)
        u = torch.empty(n, *self.shape, dtype=self.dtype, device=self.mean.device)
        for k, (mu, cov) in enumerate(zip(self._mu, self._units, strict=True)):
            rows = which == k
            u[rows.to(u.device)] = (mu.to(u) + cov.sqrt_matmul(e[rows.to(e.device)].to(u.device))).to(u)
        return self.decode(u)

    def marginal_cdf(self, x: Tensor) -> Tensor:
        r"""Probability that an entry is below the one in ``x`` (B, \*X), entry by entry, in the state's layout."""
        u = self.encode(x)
        out = torch.zeros_like(u)
        for w, mu, cov in zip(self.weights, self._mu, self._units, strict=True):
            sd = cov.diagonal().reshape(self.shape).to(u).sqrt()
            out = out + w.to(u) * torch.special.ndtr((u - mu.to(u)) / sd)
        return out

    def condition(self, operator: Operator, noise: Noise, y: Tensor) -> GaussianMixturePrior:
        r"""The exact posterior given ``y = A x + n``, again a mixture.

        Component k is conditioned as in `GaussianPrior.condition`; its weight is multiplied by its evidence
        :math:`\mathcal{N}(y; A m_k, A C_k A^\top + \Sigma)`. Components whose weight beside the largest one is below
        1e-300, where double precision ends, are dropped.

        Arguments:
            operator: Linear (or affine) operator on fields (B, \*X).
            noise: Gaussian noise, one that has ``whiten``.
            y: One measurement, (\*Y) or (1, \*Y), real or complex.

        Raises:
            TypeError: if the noise is not Gaussian.
            ValueError: if ``y`` has another shape or the operator is not linear.
        """
        matrix, r = measurement_matrix(self, operator, noise, y)
        eye = torch.eye(self.size, dtype=torch.float64, device=matrix.device).reshape(-1, *self.shape)
        means, covs, logs = [], [], []
        for w, mu, cov in zip(self.weights, self._mu, self._units, strict=True):
            root = cov.sqrt_matmul(eye).flatten(1).mT * self.scale
            prior_mean = (self.loc + self.scale * mu).flatten().to(matrix)
            mean, posterior, evidence = condition_gaussian(prior_mean, root, matrix, r)
            means.append(mean)
            covs.append(posterior)
            logs.append(w.log() + evidence)
        log = torch.stack(logs)
        keep = (log - log.max() > math.log(1e-300)).nonzero()[:, 0].tolist()
        weights = torch.softmax(log[keep], 0)
        fields = self._fields(torch.stack([means[k] for k in keep]).to(self.dtype))
        return GaussianMixturePrior(weights, fields, torch.stack([covs[k] for k in keep]))

    @classmethod
    def fit(
        cls,
        data: Tensor,
        components: int = 4,
        rank: int | None = None,
        *,
        iterations: int = 100,
        tolerance: float = 1e-5,
        floor: float = 1e-6,
        generator: Generator | None = None,
        history: list[float] | None = None,
    ) -> GaussianMixturePrior:
        r"""Fits a mixture of Gaussians of low rank by expectation maximisation.

        Each component is :math:`C_k = U_k U_k^\top + v_k I` (probabilistic PCA). Starts from k-means++ centres.

        Arguments:
            data: Independent fields, or patches of fields (`scidiff.priors.patches`), (N, \*X), real or complex.
            components: Number of components K.
            rank: Columns of :math:`U_k`; None for full covariances (d - 1).
            iterations: Largest number of EM steps.
            tolerance: Stops when the mean log-likelihood per real number rises by less than this.
            floor: Smallest accepted :math:`v_k` in units of the mean variance of the data, against collapse on one
                field; where it acts the likelihood may fall.
            generator: Source of randomness of the start; a fixed one if None.
            history: A list that receives the mean log-likelihood before each step.

        References:
            Mixtures of probabilistic principal component analysers, Tipping and Bishop, 1999, Neural Computation 11.
            k-means++: the advantages of careful seeding, Arthur and Vassilvitskii, 2007.
        """
        weights, means, covs = fit_mixture(
            to_real(data), components, rank, iterations, tolerance, floor, generator, history
        )
        fields = cls._as_field(means.to(data.dtype.to_real()), data.is_complex())
        return cls(weights, fields, covs)
