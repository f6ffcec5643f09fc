r"""Averages of any length after training, from snapshots of a few.

The average with exponent :math:`\gamma` after :math:`t` steps weighs the weights of step :math:`k` by

.. math:: p_{t,\gamma}(k) = \frac{k^{\gamma+1} - (k-1)^{\gamma+1}}{t^{\gamma+1}}, \qquad 1 \le k \le t,

which is the recursion of `scidiff.training.ema` written out. Stored averages :math:`\hat\theta_i` with profiles
:math:`p_i` give any other as :math:`\sum_i x_i\hat\theta_i`, where :math:`x` minimises :math:`\|\sum_i x_i p_i -
p_{t,\gamma}\|`. What is missed is :math:`\sum_k r(k)\theta_k` with the residual profile :math:`r`; `reconstruct`
returns :math:`\|r\|/\|p\|` with the weights.

References:
    Karras et al., Analyzing and improving the training dynamics of diffusion models, 2024, arXiv:2312.02696, section
    3.2 and appendix C. The paper integrates continuous profiles; ours are those of the steps, so that a stored average
    is reconstructed exactly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scidiff.errors import InputError
from scidiff.training.ema import PowerEMA

__all__ = ["exponent", "profile", "reconstruct", "save_snapshots", "snapshots", "solve"]

_NAME = re.compile(r"(\d+)-([\d.]+)\.safetensors")


def exponent(length: float) -> float:
    r"""The exponent whose profile has the standard deviation ``length``, a fraction of the training.

    The mean of :math:`k/t` under the profile is :math:`(\gamma+1)/(\gamma+2)`, its variance
    :math:`(\gamma+1)/((\gamma+2)^2(\gamma+3))`.
    """
    if not 0 < length < 12**-0.5:
        raise ValueError(f"length must lie between 0 and {12**-0.5:.3f} (a fraction of the training), got {length}.")
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    return float(roots.real.max())


def profile(step: int, gamma: float, steps: int) -> np.ndarray:
    """The weights that the average after ``step`` gives to the steps 1 to ``steps``, float64."""
    edges = np.clip(np.arange(steps + 1) / step, 0, 1) ** (gamma + 1)
    return np.diff(edges)


def solve(stored: Sequence[tuple[int, float]], step: int, gamma: float) -> tuple[np.ndarray, float]:
    r"""The coefficients of the stored averages (step, exponent), and what they miss, :math:`\|r\|/\|p\|`."""
    steps = max(step, *(s for s, _ in stored))
    basis = np.stack([profile(s, g, steps) for s, g in stored], axis=1)
    wanted = profile(step, gamma, steps)
    x = np.linalg.lstsq(basis, wanted, rcond=1e-12)[0]
    return x, float(np.linalg.norm(basis @ x - wanted) / np.linalg.norm(wanted))


def save_snapshots(folder: Path, step: int, averages: Sequence[PowerEMA]) -> None:
    """Writes each average as ``snapshots/<step>-<exponent>.safetensors``."""
    from safetensors.torch import save

    target = folder / "snapshots"
    target.mkdir(parents=True, exist_ok=True)
    for average in averages:
        state = {k: v.detach().cpu().contiguous().clone() for k, v in average.network.state_dict().items()}
        path = target / f"{step:08d}-{average.gamma:g}.safetensors"
        part = path.with_name(path.name + ".part")
        part.write_bytes(save(state))
        os.replace(part, path)


def snapshots(folder: str | os.PathLike[str]) -> dict[tuple[int, float], Path]:
    """The stored averages of a run: (step, exponent) -> file, in order of steps."""
    found = {}
    for path in sorted((Path(folder) / "snapshots").glob("*.safetensors")):
        if match := _NAME.fullmatch(path.name):
            found[int(match[1]), float(match[2])] = path
    return found


def reconstruct(
    folder: str | os.PathLike[str], length: float | None = None, gamma: float | None = None, step: int | None = None
) -> tuple[dict[str, Tensor], float]:
    """The weights of an average that nobody tracked.

    Arguments:
        folder: Folder of a run with snapshots.
        length: Standard deviation of the profile as a fraction of the training, 0.05 for example; or
        gamma: The exponent itself.
        step: Step at which the average ends; the last snapshot by default.

    Returns:
        The state of the network, and the part of the profile that the snapshots cannot express (0 is exact).

    Raises:
        InputError: There are no snapshots, or the step lies beyond the last.
        ValueError: Neither or both of ``length`` and ``gamma``.
    """
    from safetensors.torch import load_file

    if (length is None) == (gamma is None):
        raise ValueError("give length (for example 0.05) or gamma (for example 16.97).")
    exponent_ = exponent(length) if length is not None else float(gamma)  # type: ignore[arg-type]
    stored = snapshots(folder)
    if not stored:
        raise InputError(f"{folder}: no snapshots; train with training.averages = [16.97, 6.94] and snapshots = 100.")
    last = max(s for s, _ in stored)
    step = last if step is None else step
    if not 0 < step <= last:
        raise InputError(f"{folder}: snapshots end at step {last}, the average was asked for at step {step}.")
    used = {key: path for key, path in stored.items() if key[0] <= step} or stored
    x, missed = solve([*used], step, exponent_)
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for weight, path in zip(x.tolist(), used.values(), strict=True):
        for key, value in load_file(path).items():
            kinds[key] = value.dtype
            total[key] = total.get(key, 0) + weight * value.double()
    return {key: value.to(kinds[key]) for key, value in total.items()}, missed
