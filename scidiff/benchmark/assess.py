r"""What a learned prior has not learned: its draws beside fields that it has never seen.

For each channel, over N draws and N fields of each kind, in physical units:

==================  =================================================================================================
``spectrum``        power of the draws over that of the fields, in the rings of wavenumber that hold over 0.1 % of the
                    variance of the fields; the ring with the largest deviation from 1, with its standard error
``rings_within``    share of these rings within 10 %
``kolmogorov``      largest difference between the distribution functions of all numbers of all draws and of all
                    fields; ``kolmogorov_floor`` is that of the fields against as many other fields
``mean, std``       of the draws minus, and over, those of the fields
``wiener``          denoising error of the network over that of the best stationary linear filter (Wiener's, fitted to
                    the training fields), on the held-out fields, by noise level: below 1 the network knows more than
                    a power spectrum
==================  =================================================================================================

The fields are of two kinds: the source that the prior was trained on, drawn afresh, and the one that its card holds
out. For a simulator the two have the same law; for a few volumes or pictures they differ, and a prior can only follow
the first. Fields are taken as the training took them: windows of the size of the first crop. Before a Fourier transform
they are multiplied by a Hann window, unless the network treats them as periodic.

A latent prior is compared in fields: its draws are decoded, and what its autoencoder loses shows too. Its denoising
error is that of normalised codes.

Draws start from noise that hides everything: :math:`\sigma_{\max}` is four times the standard deviation of the
strongest pattern of the fields (the largest singular value of N fields over :math:`\sqrt N`), at least 80. A pattern of
standard deviation s that starts from pure noise ends with the variance :math:`s^2 / (1 + s^2/\sigma_{\max}^2)`; smooth
fields of unit variance on a grid of n points have s up to :math:`\sqrt n`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.sources import TrainingData, training_data
from scidiff.errors import InputError
from scidiff.metrics.spectra import power_spectrum
from scidiff.priors.diffusion import DiffusionPrior
from scidiff.priors.latent import LatentPrior
from scidiff.samplers import DPMSolver3M, Sampler
from scidiff.schedules import log_linear

__all__ = ["SHARE", "assess", "fields_of", "kolmogorov", "source_of", "spectrum_ratio"]

SHARE = 1e-3
"""Rings with less of the variance are left out."""
LEVELS = (0.1, 0.3, 1.0, 3.0)
BATCH = 32


def source_of(prior: DiffusionPrior | LatentPrior, folder: str | Path | None = None) -> TrainingData:
    """The source of fields that the card of a prior names.

    Arguments:
        prior: A prior trained by `scidiff train prior`.
        folder: Where the files of its card are; needed only when there are any.

    Raises:
        InputError: No card, a prior with a condition, a missing folder or file.
    """
    options = dict(prior.card.get("data") or {})
    if not options:
        raise InputError("the card of this prior does not say what it was trained on; nothing to compare it with.")
    if "condition" in prior.card:
        raise InputError("this prior needs a condition; its draws cannot be compared with fields of other conditions.")
    if options.get("files") and folder is None:
        names = ", ".join(options["files"])
        raise InputError(f"this prior was trained on {names}: give the folder that holds them (--data FOLDER).")
    return training_data(options.pop("kind"), folder or ".", **options)


def fields_of(
    source: Callable[[Generator, tuple[int, ...]], Any], crop: tuple[int, ...], n: int, generator: Generator
) -> Tensor:
    r"""``n`` fields of a source in units of u, (n, C, \*crop)."""
    return torch.stack([source(generator, crop) for _ in range(n)])


def crop_of(prior: DiffusionPrior | LatentPrior) -> tuple[int, ...]:
    """The window of the field that the prior was trained on first; of a latent prior, the one that was encoded."""
    if isinstance(prior, LatentPrior):
        return tuple(prior.card["codes"]["grid"])
    return tuple(prior.card["training"]["crops"][0])


def spectrum_ratio(draws: Tensor, fields: Tensor, periodic: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Wavenumbers (in waves per window), ratio of power and its standard error, where the fields have power.

    Arguments:
        draws, fields: One channel each, (N, H, W), around zero.
        periodic: Whether no window is needed.
    """
    if not periodic:
        rows, columns = (torch.hann_window(n, periodic=True, dtype=draws.dtype) for n in draws.shape[-2:])
        draws, fields = (x * rows[:, None] * columns for x in (draws, fields))
    mine, truth = (power_spectrum(x.double())[1] for x in (draws, fields))
    kept = truth.mean(0) > SHARE * truth.mean(0).sum()
    mine, truth = mine[:, kept], truth[:, kept]
    ratio = mine.mean(0) / truth.mean(0)
    relative = [x.var(0) / len(x) / x.mean(0).square() for x in (mine, truth)]
    return kept.nonzero().flatten(), ratio, ratio * (relative[0] + relative[1]).sqrt()


def kolmogorov(a: Tensor, b: Tensor) -> float:
    """Largest difference between the empirical distribution functions of two sets of numbers."""
    a, b = a.flatten().sort().values, b.flatten().sort().values
    points = torch.cat([a, b])
    low, high = (torch.searchsorted(x, points, right=True).double() / len(x) for x in (a, b))
    return float((low - high).abs().max())


def strongest(fields: Tensor) -> float:
    """Standard deviation of the pattern of unit norm that varies most among fields (N, ...)."""
    return float(torch.linalg.matrix_norm(fields.flatten(1).double(), 2)) / math.sqrt(len(fields))


def assess(
    prior: DiffusionPrior | LatentPrior,
    folder: str | Path | None = None,
    draws: int = 256,
    seed: int = 0,
    steps: int = 30,
    progress: Callable[[int, int], Any] | None = None,
) -> dict[str, Any]:
    """The comparison of the module's table, ready for JSON.

    Arguments:
        prior: A prior trained by `scidiff train prior` on fields of two dimensions.
        folder: Where the files of its card are; needed only when there are any.
        draws: N; also the number of fields of each kind.
        seed: Seed of draws and fields.
        steps: Network calls per draw, by `DPMSolver3M`.
        progress: Called with (draws done, draws in all).

    Raises:
        InputError: see `source_of`; fields that are not two-dimensional.
    """
    data, crop = source_of(prior, folder), crop_of(prior)
    if len(crop) != 2:
        raise InputError(f"spectra are compared on fields of two dimensions; this prior has windows {crop}.")
    generator = Generator().manual_seed(seed)
    own = _own_units(prior, data)
    known = fields_of(data.source, crop, draws, generator)
    kinds = {"training": (known, fields_of(data.source, crop, draws, generator))}
    if data.validation is not None:
        held = [fields_of(data.validation, crop, draws, generator) for _ in range(2)]
        kinds["held out"] = (held[0], held[1])
    states = _states(prior, own, known)
    sampler = DPMSolver3M(steps, partial(log_linear, sigma_max=max(80.0, round(4 * strongest(states)))))
    found = torch.cat([*_draw(prior, sampler, tuple(states.shape[1:]), draws, seed, progress)])
    periodic = (prior.card.get("network") or {}).get("padding") == "periodic"
    names = prior.card.get("variables") or [f"channel {c}" for c in range(data.channels)]
    rows = []
    for kind, (fields, others) in kinds.items():
        for c, name in enumerate(names if len(names) == data.channels else range(data.channels)):
            mine = _physical(None if isinstance(prior, LatentPrior) else prior, found)[:, c].double()
            truth, more = (_physical(own, x)[:, c].double() for x in (fields, others))
            rows.append({"fields": kind, "channel": str(name), **_compare(mine, truth, more, periodic)})
    target = kinds.get("held out", kinds["training"])[0]
    aims = _states(prior, own, target)
    wiener = [{"sigma": s, **_against_wiener(prior, states, aims, s, generator)} for s in LEVELS]
    return {
        "prior": prior.card.get("name", ""),
        "draws": draws,
        "seed": seed,
        "sampler": repr(sampler),
        "crop": list(crop),
        "rows": rows,
        "wiener": wiener,
    }


def _own_units(prior: DiffusionPrior | LatentPrior, data: TrainingData) -> DiffusionPrior:
    """What turns fields of the source into physical units: the prior itself, unless its states are codes."""
    if not isinstance(prior, LatentPrior):
        return prior
    loc, scale = torch.as_tensor(data.loc), torch.as_tensor(data.scale)
    return DiffusionPrior(torch.nn.Identity(), data.channels, loc, scale, complex=data.complex)


@torch.no_grad()
def _states(prior: DiffusionPrior | LatentPrior, own: DiffusionPrior, fields: Tensor) -> Tensor:
    """The states of fields of the source: these themselves, or their normalised codes."""
    if prior is own:
        return fields
    parts = (prior.encode(own.decode(part.to(prior.device))).cpu() for part in fields.split(BATCH))
    return torch.cat([*parts])


def _draw(
    prior: DiffusionPrior | LatentPrior,
    sampler: Sampler,
    shape: tuple[int, ...],
    draws: int,
    seed: int,
    progress: Callable[[int, int], Any] | None,
) -> Iterator[Tensor]:
    """States in batches: the activations of a network for hundreds of fields would not fit into a cache."""
    generator = Generator().manual_seed(seed + 1)
    for first in range(0, draws, BATCH):
        members = range(first, min(first + BATCH, draws))
        x = sampler(prior, shape=shape, members=members, generator=generator).samples[:, 0]
        # The codes of a decoded draw are not quite the draw: latent priors compare fields, and keep them.
        yield x.cpu() if isinstance(prior, LatentPrior) else prior.encode(x).cpu()
        if progress is not None:
            progress(members[-1] + 1, draws)


def _physical(prior: DiffusionPrior | None, u: Tensor) -> Tensor:
    """Fields of states (without a prior: these themselves); channels of a complex field as real, imaginary part."""
    x = u if prior is None else prior.decode(u.to(prior.device)).cpu()
    return torch.view_as_real(x).movedim(-1, 2).flatten(1, 2) if x.is_complex() else x


def _compare(mine: Tensor, truth: Tensor, more: Tensor, periodic: bool) -> dict[str, Any]:
    mean = truth.mean()
    rings, ratio, error = spectrum_ratio(mine - mean, truth - mean, periodic)
    floor = spectrum_ratio(more - mean, truth - mean, periodic)[1]
    worst = int((ratio - 1).abs().argmax())
    return {
        "rings": len(rings),
        "rings_within": float(((ratio - 1).abs() <= 0.1).double().mean()),
        "worst_ring": int(rings[worst]),
        "spectrum": float(ratio[worst]),
        "spectrum_error": float(error[worst]),
        "spectrum_floor": float(floor[(floor - 1).abs().argmax()]) if len(floor) else math.nan,
        "kolmogorov": kolmogorov(mine, truth),
        "kolmogorov_floor": kolmogorov(more, truth),
        "mean": float(mine.mean() - mean),
        "std": float(mine.std() / truth.std()),
    }


def _against_wiener(
    prior: DiffusionPrior | LatentPrior, known: Tensor, fields: Tensor, sigma: float, generator: Generator
) -> dict[str, float]:
    noisy = fields + sigma * torch.randn(fields.shape, generator=generator)
    mean = known.mean((0, 2, 3), keepdim=True)
    power = torch.fft.fft2(known - mean, norm="ortho").abs().square().mean(0)
    filtered = mean + torch.fft.ifft2(torch.fft.fft2(noisy - mean) * power / (power + sigma**2)).real
    level = torch.tensor(sigma, device=prior.device)
    with torch.no_grad():
        learned = torch.cat([prior.denoise(part.to(prior.device), level).cpu() for part in noisy.split(BATCH)])
    mine, best = ((x - fields).square().flatten(1).mean(1).double() for x in (learned, filtered))
    ratio = mine.mean() / best.mean()
    return {"ratio": float(ratio), "error": float((mine - ratio * best).std() / best.mean() / math.sqrt(len(fields)))}
