r"""Codes of an autoencoder as training data for a prior of codes.

Fields are drawn once, each from its own stream, encoded, and normalised per channel: :math:`u = (z - m_c) / s_c`. They
are kept in a file, so that a resumed run does not encode again; what they are is a function of the seed, so that a run
without the file draws the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.training.batches import Source, stream

__all__ = ["Codes", "CodeWindows", "encoded", "make_codes"]

_STEP = {"train": -3, "held_out": -4}
"""For each part the number of a step that no training has: its streams are those of the fields to encode."""


class CodeWindows:
    r"""Random windows of stored codes (N, C, \*grid), a source of `scidiff.training.train`."""

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        grid = tuple(self.codes.shape[2:])
        if len(grid) != len(crop) or any(n < c for n, c in zip(grid, crop, strict=True)):
            raise InputError(
                f"codes have the grid {grid}, training.crops asks for {crop}; choose a smaller crop or a larger "
                "codes.grid (crops count codes, codes.grid counts points of the field)."
            )
        item = int(torch.randint(len(self.codes), (), generator=generator))
        corner = [int(torch.randint(n - c + 1, (), generator=generator)) for n, c in zip(grid, crop, strict=True)]
        return self.codes[(item, slice(None), *(slice(k, k + c) for k, c in zip(corner, crop, strict=True)))].float()


@dataclass(frozen=True)
class Codes:
    """Normalised codes for training and, where fields were held out, for validation; mean and spread per channel."""

    train: Tensor
    held_out: Tensor | None
    loc: list[float]
    scale: list[float]


@torch.no_grad()
def encoded(
    source: Source,
    encode: Callable[[Tensor], Tensor],
    count: int,
    grid: Sequence[int],
    seed: int,
    part: str = "train",
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Tensor:
    r"""Codes (count, C, \*grid / stride) of ``count`` fields of a source.

    Arguments:
        source: Draws one field on a grid.
        encode: Maps a batch of such fields to codes.
        count: Number of fields.
        grid: Their grid.
        seed, part: Name the streams, one a field; the part is train or held_out.
        device: Where to compute.
        progress: Show a bar on stderr.
    """
    from tqdm import tqdm

    parts = []
    for first in tqdm(range(0, count, 8), disable=not progress, unit="batch", desc="encoding"):
        fields = []
        for row in range(first, min(first + 8, count)):
            drawn = source(stream(seed, _STEP[part], row), tuple(grid))
            assert isinstance(drawn, Tensor)  # no condition
            fields.append(drawn.float())
        parts.append(encode(torch.stack(fields).to(device)).float().cpu())
    return torch.cat(parts)


def make_codes(
    path: Path, identity: dict[str, object], draw: Callable[[str, int], Tensor], fields: int, held_out: int
) -> Codes:
    """The codes of a run, from the file if it holds the same, else computed and written there.

    Arguments:
        path: Where they are kept.
        identity: What they depend on: autoencoder, data, seed, grid, number.
        draw: Called with the name of a part and a number of fields, see `encoded`.
        fields, held_out: Numbers of fields for training and for validation (0 where none are held out).

    Raises:
        InputError: A channel of the code is the same for all fields.
    """
    from safetensors import safe_open
    from safetensors.torch import save

    text = json.dumps(identity, sort_keys=True)
    if path.exists():
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("identity") == text:
                kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
                return _normalised(kept["train"], kept.get("held_out"))
    found = {"train": draw("train", fields)}
    if held_out:
        found["held_out"] = draw("held_out", held_out)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(save(found, metadata={"identity": text}))
    os.replace(part, path)
    return _normalised(found["train"], found.get("held_out"))


def _normalised(train: Tensor, held_out: Tensor | None) -> Codes:
    values = train.transpose(0, 1).flatten(1).double()
    loc, scale = values.mean(1), values.std(1)
    if not bool((scale > 0).all()):
        raise InputError(
            f"channel {int(scale.argmin())} of the code is the same for all fields; train the autoencoder."
        )
    shape = (-1, *(1,) * (train.ndim - 2))

    def standard(z: Tensor | None) -> Tensor | None:
        return None if z is None else ((z - loc.reshape(shape)) / scale.reshape(shape)).float()

    normalised = standard(train)
    assert normalised is not None
    return Codes(normalised, standard(held_out), loc.tolist(), scale.tolist())
