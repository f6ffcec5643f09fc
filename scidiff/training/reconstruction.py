r"""Losses of autoencoders: what is lost on the way to the code and back, and what a simple code costs.

.. math:: L = \frac{1}{n}\|x - \hat x\|_p^p + \lambda \frac{1}{n}\|\nabla (x - \hat x)\|_p^p + P

with n numbers a field, p = 2 or 1, differences between neighbouring points for :math:`\nabla`, and the price P of the
code:

================  ===================================================================================================
normal law        :math:`P = \frac{\beta}{n} \sum_i \frac12 (m_i^2 + s_i^2 - 1 - \ln s_i^2)`, its Kullback-Leibler
                  divergence from N(0, 1) in nats
codebook          :math:`P = \frac{1}{k}\|\mathrm{sg}(z) - e\|^2 + \frac{\beta}{k}\|z - \mathrm{sg}(e)\|^2`, k numbers a
                  code: the codebook follows the codes, and the encoder keeps close to the codebook
================  ===================================================================================================

References:
    Kingma & Welling, Auto-encoding variational Bayes, 2014, arXiv:1312.6114, appendix B. van den Oord, Vinyals &
    Kavukcuoglu, Neural discrete representation learning, 2017, arXiv:1711.00937, eq. 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.nn.autoencoder import ConvAutoencoder
from scidiff.training.batches import Source, draw
from scidiff.training.config import TrainingConfig
from scidiff.training.fidelity import fidelity

__all__ = ["ReconstructionLoss", "kl_divergence"]


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of independent normal laws from N(0, 1), in nats, one number per row: (B, ...) twice -> (B,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


@dataclass(frozen=True)
class ReconstructionLoss:
    r"""The loss of the module's formulas.

    Arguments:
        power: p: 2 for squared errors, 1 for absolute ones.
        gradient: :math:`\lambda`.
        kl: :math:`\beta` of a normal law.
        commitment: :math:`\beta` of a codebook.
        codebook: Which of the two prices is paid.
    """

    power: int = 2
    gradient: float = 0.0
    kl: float = 1e-5
    commitment: float = 0.25
    codebook: bool = False

    def __post_init__(self) -> None:
        if self.power not in (1, 2):
            raise ValueError(f"loss.power is 1 (absolute errors) or 2 (squared errors), got {self.power}.")
        if min(self.gradient, self.kl, self.commitment) < 0:
            raise ValueError("loss.gradient, kl and commitment must not be negative.")

    def draw(self, generator: Generator) -> Tensor:
        """Nothing to draw: an autoencoder has no time."""
        return torch.zeros(())

    def __call__(self, network: Any, u: Tensor, time: Tensor, eps: Tensor) -> Tensor:
        kept = torch.promote_types(u.dtype, torch.float32)
        estimate, a, b = (part.to(kept) for part in network(u, eps))
        error = estimate - u
        loss = self._size(error)
        if self.gradient:
            steps = [self._size(error.diff(dim=d)) for d in range(2, error.ndim) if error.shape[d] > 1]
            loss = loss + self.gradient * sum(steps)
        if self.codebook:
            apart = (a.detach() - b).square() + self.commitment * (a - b.detach()).square()
            return loss + apart.flatten(1).mean(1)
        return loss + self.kl / u[0].numel() * kl_divergence(a, b)

    def _size(self, error: Tensor) -> Tensor:
        return (error.abs() if self.power == 1 else error.square()).flatten(1).mean(1)

    def validate(self, network: ConvAutoencoder, source: Source, config: TrainingConfig) -> dict[str, Any]:
        """The fidelity on fixed fields; the training loop logs it at each checkpoint."""
        device = next(network.parameters()).device
        return {"fidelity": fidelity(network, draw(source, -1, range(32), config.crop(0), config, self).u.to(device))}
