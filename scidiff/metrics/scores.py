r"""Scores of an estimate (rmse, psnr, ssim) and proper scores of an ensemble (crps, energy score).

References:
    Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting and Raftery, 2007).
    Fair scores for ensemble forecasts (Ferro, 2014), for the factor :math:`M (M - 1)` in place of :math:`M^2`.
    AIFS-CRPS: ensemble forecasting using a model trained with a loss function based on the continuous ranked
    probability score (Lang et al., 2024; arXiv 2412.15832), for the almost fair mixture.
    Image quality assessment: from error visibility to structural similarity (Wang et al., 2004).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scidiff.metrics._shared import check_ensemble, check_pair, mean_over_field, real_view

__all__ = ["brier_score", "crps", "energy_score", "gaussian_crps", "nrmse", "psnr", "rmse", "ssim"]


def rmse(estimate: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    r"""Root mean squared error :math:`\sqrt{\langle |x - x^*|^2 \rangle}` of (B, \*X): (B,).

    Complex fields: the mean of the squared modulus, so a complex error counts both components.
    """
    check_pair(estimate, truth)
    return mean_over_field((estimate - truth).abs().square(), where).sqrt()


def nrmse(estimate: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    r"""Relative error :math:`\|x - x^*\| / \|x^*\|` of (B, \*X): (B,)."""
    return rmse(estimate, truth, where) / mean_over_field(truth.abs().square(), where).sqrt()


def psnr(
    estimate: Tensor, truth: Tensor, data_range: float | Tensor | None = None, where: Tensor | None = None
) -> Tensor:
    r"""Peak signal-to-noise ratio :math:`20 \log_{10}(\text{range} / \text{rmse})` in dB: (B,).

    Arguments:
        estimate: (B, \*X).
        truth: (B, \*X).
        data_range: A number or (B,); by default the largest modulus of each truth (as in fastMRI).
        where: Weights of the mean, broadcast against the field.
    """
    error = rmse(estimate, truth, where)
    peak = truth.abs().flatten(1).amax(1) if data_range is None else data_range
    return 20 * torch.log10(peak / error)


def ssim(estimate: Tensor, truth: Tensor, data_range: float | Tensor | None = None) -> Tensor:
    r"""Structural similarity of real images (B, ..., H, W) with the Gaussian window of the paper (11, 1.5): (B,).

    Means over all windows inside the image and over all dimensions between the first and the last two.
    ``data_range`` as in `psnr`.
    """
    check_pair(estimate, truth)
    if truth.is_complex():
        raise ValueError("ssim compares real images; take `.abs()` of both.")
    if truth.ndim < 3 or min(truth.shape[-2:]) < 11:
        raise ValueError(f"ssim needs (B, ..., H, W) with H and W of at least 11, got {tuple(truth.shape)}.")
    shape = truth.shape
    peak = truth.abs().flatten(1).amax(1) if data_range is None else torch.as_tensor(data_range, dtype=truth.dtype)
    peak = peak.expand(shape[0]).repeat_interleave(truth[0].numel() // (shape[-2] * shape[-1]))
    c1, c2 = ((k * peak).square()[:, None, None] for k in (0.01, 0.03))
    t = torch.arange(-5, 6, dtype=truth.dtype, device=truth.device)
    window = torch.exp(-0.5 * (t / 1.5).square())
    window = window / window.sum()

    def smooth(x: Tensor) -> Tensor:
        x = torch.nn.functional.conv2d(x[:, None], window[None, None, :, None])
        return torch.nn.functional.conv2d(x, window[None, None, None, :])[:, 0]

    a, b = (x.reshape(-1, *shape[-2:]) for x in (estimate, truth))
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    cov = smooth(a * b) - mean_a * mean_b
    index = ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return index.reshape(shape[0], -1).mean(1)


def crps(samples: Tensor, truth: Tensor, fair: float = True) -> Tensor:
    r"""Continuous ranked probability score at every point: (\*truth.shape), real, in :math:`O(M \log M)` by sorting.

    .. math:: \frac1M \sum_m |x_m - x^*| - \frac{1}{2 M (M - 1)} \sum_{m, n} |x_m - x_n|

    Arguments:
        samples: (M, B, \*X), members first.
        truth: (B, \*X).
        fair: True or 1 divides the second sum by :math:`2 M (M - 1)`, so that the expected score does not depend on the
            number of members; False or 0 by :math:`2 M^2`, the score of the ensemble taken as a discrete law (biased,
            called "ecdf" elsewhere). A number :math:`\alpha` between is the mixture :math:`\alpha\,\text{fair} +
            (1 - \alpha)\,\text{biased}`, the almost fair score, used as a loss with 0.95.

    Complex fields: the mean of the scores of the two components.
    """
    if not 0 <= fair <= 1:
        raise ValueError(f"fair must be a bool or a share between 0 and 1, got {fair}.")
    check_ensemble(samples, truth, 2 if fair else 1)
    x, y = real_view(samples), real_view(truth)
    members = len(x)
    error = (x - y).abs().mean(0)
    order = 2 * torch.arange(members, dtype=x.dtype, device=x.device) - members + 1
    pairs = 2 * torch.tensordot(order, x.sort(0).values, dims=1)  # sum over m, n of |x_m - x_n|
    share = fair / (members - 1) if fair else 0.0
    score = error - pairs / (2 * members) * (share + (1 - fair) / members)
    return score.mean(-1)


def gaussian_crps(mean: Tensor, std: Tensor, truth: Tensor) -> Tensor:
    r"""CRPS of a normal law at every point, in closed form, for exact predictive laws and Gaussian baselines.

    .. math:: \sigma \left[ z (2 \Phi(z) - 1) + 2 \varphi(z) - \pi^{-1/2} \right], \qquad z = (x^* - \mu) / \sigma

    Arguments:
        mean: :math:`\mu`, broadcasts against the truth.
        std: :math:`\sigma`, positive.
        truth: Real.
    """
    z = (truth - mean) / std
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


def brier_score(samples: Tensor, truth: Tensor, threshold: float, fair: bool = True) -> Tensor:
    r"""Brier score of the event :math:`x \ge t` at every point: (\*truth.shape).

    .. math:: (k / M - o)^2 - \frac{k (M - k)}{M^2 (M - 1)}

    for k of M members in the event and o = 1 if it happened; the second term, left out if not ``fair``, removes what
    the score of a small ensemble loses by chance.

    Arguments:
        samples: (M, B, \*X), members first, real.
        truth: (B, \*X).
        threshold: t, in the units of the field.
        fair: See above.
    """
    check_ensemble(samples, truth, 2 if fair else 1)
    members = len(samples)
    share = (samples >= threshold).to(samples.dtype).mean(0)
    score = (share - (truth >= threshold).to(samples.dtype)).square()
    return score - share * (1 - share) / (members - 1) if fair else score


def energy_score(samples: Tensor, truth: Tensor, fair: bool = True) -> Tensor:
    r"""Energy score, the CRPS of whole fields with the Euclidean norm: (B,).

    .. math:: \frac1M \sum_m \|x_m - x^*\| - \frac{1}{2 M (M - 1)} \sum_{m, n} \|x_m - x_n\|

    Arguments:
        samples: (M, B, \*X), members first.
        truth: (B, \*X).
        fair: As in `crps`.
    """
    check_ensemble(samples, truth, 2 if fair else 1)
    x = real_view(samples).flatten(2).transpose(0, 1)  # (B, M, n)
    y = real_view(truth).flatten(1)[:, None]
    members = x.shape[1]
    error = (x - y).norm(dim=-1).mean(1)
    exact = "donot_use_mm_for_euclid_dist"
    pairs = torch.stack([torch.cdist(row, row, compute_mode=exact).sum() for row in x])
    return error - pairs / (2 * members * (members - 1 if fair else members))
