r"""Records of any length in constant memory: a trajectory drawn block by block, each given the one before.

For a Markov chain :math:`p(x_{1:L} | y) = \prod_b p(x_b | x_{b-1}, y_{\ge b})`, where of the block before only the last
states matter, and of the observations only those not far ahead. A segment

    | overlap (known) | block (kept) | lookahead (thrown away) |

is drawn with the observations of all three parts and with the overlap tied to the states already drawn, by a likelihood
of standard deviation ``tie`` in units of ``u``. The block is written to Zarr, and the next segment begins.

**Exact** as the lookahead grows beyond the memory of the chain and the tie becomes short against the noise of a
transition. A lookahead of zero is a filter over blocks: no block then knows the observations after it.

A run that was stopped goes on after the last block that was written whole, with the same numbers to the bit: the random
numbers of a block depend on the seed, the block and the member alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.assimilation.observations import AtTimes, Observations
from scidiff.assimilation.trajectory import TrajectoryPrior
from scidiff.errors import InputError
from scidiff.inference import Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators.identity import Identity
from scidiff.protocols import PosteriorSampler
from scidiff.rng import root_seed
from scidiff.store import differences, locked

if TYPE_CHECKING:
    import zarr

__all__ = ["StreamingAssimilation"]


@dataclass(frozen=True)
class StreamingAssimilation:
    """Draws long trajectories segment by segment.

    Arguments:
        prior: Composed prior; its own length does not matter. Its decode must be affine.
        sampler: Any sampler of `scidiff.posterior` that the observations allow.
        block: States kept of a segment.
        overlap: States of the block before that a segment is tied to, at least 1; k of the prior is a good choice.
        lookahead: States beyond the block that are drawn and thrown away.
        tie: Standard deviation of the tie in units of ``u``; short against the noise of a transition.

    Raises:
        ValueError: a size out of range, a segment shorter than the window.
    """

    prior: TrajectoryPrior
    sampler: PosteriorSampler
    block: int = 64
    overlap: int = 2
    lookahead: int = 16
    tie: float = 1e-2

    def __post_init__(self) -> None:
        if self.block < 1 or self.overlap < 1 or self.lookahead < 0 or not self.tie > 0:
            raise ValueError(
                "expected block >= 1, overlap >= 1, lookahead >= 0 and tie > 0, got "
                f"{self.block}, {self.overlap}, {self.lookahead} and {self.tie}."
            )
        if self.overlap > self.block:
            raise ValueError(f"overlap {self.overlap} reaches beyond the block before ({self.block} states).")
        if self.block + self.overlap < self.prior.size:
            raise ValueError(
                f"block + overlap = {self.block + self.overlap} states, fewer than the window's "
                f"{self.prior.size}; take longer blocks."
            )
        if not self.prior.affine:
            raise ValueError("the tie between blocks is Gaussian in physical units: the prior's decode must be affine.")

    def segments(self, length: int) -> list[tuple[int, int, int, int]]:
        """First state, first and last (exclusive) state kept, and end, of every segment.

        A last block too short for a window begins earlier and is tied to more states.
        """
        size, found = self.prior.size, []
        if length < size:
            raise InputError(f"the record has {length} states, fewer than the window's {size}.")
        for first in range(0, length, self.block):
            last = min(first + self.block, length)
            end = min(last + self.lookahead, length)
            found.append((max(0, min(first - self.overlap, end - size)), first, last, max(end, min(size, length))))
        return found

    def draw(
        self, observations: Observations, segment: tuple[int, int, int, int], before: Tensor | None, root: int
    ) -> Tensor:
        r"""The states kept of one segment, (M, C, block, \*grid).

        Arguments:
            observations: Of the whole record, one row per member (the same for all).
            segment: From `segments`.
            before: The states of the segment before ``segment[1]``, (M, C, n, \*grid), or None for the first segment.
            root: Integer that stands for the run and this block.
        """
        begin, first, last, end = segment
        prior = self.prior.of_length(end - begin)
        seen, parts = observations.between(first, end), []
        if seen is not None:
            steps = tuple(step + first - begin for step in seen.steps)
            parts.append(Likelihood(AtTimes(seen.operator, steps, end - begin), seen.noise, seen.y))
        if before is not None:
            unit = torch.ones(1, *prior.shape, dtype=before.dtype)
            scale = (prior.decode(unit) - prior.decode(0 * unit)).abs()[0, :, : first - begin]
            noise = GaussianNoise(self.tie * scale.movedim(1, 0))
            parts.append(
                Likelihood(AtTimes(Identity(), range(first - begin), end - begin), noise, before.movedim(2, 1))
            )
        if not parts:
            raise InputError(f"the first {end} states hold no observation; take longer blocks or a longer lookahead.")
        ensemble = self.sampler(Posterior(prior, tuple(parts)), 1, Generator().manual_seed(root))
        return ensemble.samples[0][:, :, first - begin : last - begin]

    def __call__(
        self,
        observations: Observations,
        length: int,
        output: str | os.PathLike[str],
        members: int = 16,
        generator: Generator | None = None,
        resume: bool = False,
        overwrite: bool = False,
        callback: Callable[[int, int], Any] | None = None,
    ) -> zarr.Array:
        r"""Draws ``members`` trajectories of ``length`` states and writes them block by block.

        Arguments:
            observations: Of one trajectory (B = 1).
            length: Number of states L.
            output: Folder of the run. The Zarr group ``trajectory.zarr`` in it holds ``state`` (member, time, C,
                \*grid) and opens with ``xarray.open_zarr(..., consolidated=False)``.
            members: Number of trajectories M.
            generator: Its state seeds the run and is not advanced.
            resume: Go on with the run that stands there.
            overwrite: Discard it.
            callback: Called as ``callback(done, blocks)`` after each block is on disk.

        Raises:
            InputError: another run stands there; an observation beyond the record; several trajectories.
        """
        path = Path(output)
        if len(observations.y) != 1:
            raise InputError(f"one observed trajectory at a time, got {len(observations.y)}; use observations.row(b).")
        if max(observations.steps) >= length:
            raise InputError(f"step {max(observations.steps)} is observed, but the record has {length} states.")
        if members < 1:
            raise ValueError(f"members must be at least 1, got {members}.")
        segments = self.segments(length)
        if (path / "run.json").exists() and resume:
            root = int(json.loads((path / "run.json").read_text())["seed"])
            if generator is not None and root_seed(generator) != root:
                raise InputError(f"{path}: cannot resume, the run was started with another generator.")
        else:
            root = root_seed(generator)
        identity = self._identity(observations, length, members, root)
        rows = observations.y.expand(members, *observations.y.shape[1:])
        several = Observations(observations.steps, observations.operator, observations.noise, rows)
        with locked(path):
            array, done = self._open(path, identity, (members, length), observations.y.dtype, resume, overwrite)
            for number, segment in enumerate(segments):
                if number < done:
                    continue
                begin, first, last, _ = segment
                before = None
                if first:
                    before = torch.from_numpy(np.asarray(array[:, begin:first])).movedim(1, 2)
                seed = hashlib.blake2b(f"{root}/{number}".encode(), digest_size=8).digest()
                states = self.draw(several, segment, before, int.from_bytes(seed, "little") >> 1)
                array[:, first:last] = states.movedim(2, 1).numpy()
                self._note(path, {**identity, "blocks": number + 1})
                if callback is not None:
                    callback(number + 1, len(segments))
        return array

    def _identity(self, observations: Observations, length: int, members: int, root: int) -> dict[str, Any]:
        from scidiff.fields import digest
        from scidiff.placement import fingerprint

        return {
            "length": length,
            "members": members,
            "seed": root,
            **{name: getattr(self, name) for name in ("block", "overlap", "lookahead", "tie")},
            "k": self.prior.k,
            **({"stride": self.prior.stride} if self.prior.stride > 1 else {}),
            "sampler": repr(self.sampler),
            "prior": fingerprint(self.prior.window),
            "observations": digest(observations.y),
            "noise": repr(observations.noise),
            "steps": digest(np.asarray(observations.steps)),
        }

    def _open(
        self, path: Path, identity: dict[str, Any], sizes: tuple[int, int], dtype: torch.dtype, resume: bool, new: bool
    ) -> tuple[zarr.Array, int]:
        """The array and the number of finished blocks."""
        import zarr

        note = path / "run.json"
        if note.exists() and not new:
            if not resume:
                raise InputError(
                    f"{path}: a run stands here; pass resume=True to go on or overwrite=True to discard it."
                )
            found = json.loads(note.read_text())
            done = int(found.pop("blocks"))
            if other := differences(found, identity):
                raise InputError(f"{path}: cannot resume, this is another run: {'; '.join(other)}.")
            return zarr.open_group(path / "trajectory.zarr", mode="r+")["state"], done  # type: ignore[return-value]
        note.unlink(missing_ok=True)
        shape = (self.prior.channels, *self.prior.grid)
        with torch.no_grad():
            size = self.prior.size
            one = self.prior.of_length(size).decode(torch.zeros(1, shape[0], size, *shape[1:], dtype=dtype))
        shape = (one.shape[1], *one.shape[3:])
        group = zarr.open_group(path / "trajectory.zarr", mode="w")
        names = ["member", "time", "channel", *(f"grid_{i}" for i in range(len(shape) - 1))]
        array = group.create_array(
            "state",
            shape=(*sizes, *shape),
            chunks=(sizes[0], min(self.block, sizes[1]), *shape),
            dtype=str(dtype).removeprefix("torch."),
            dimension_names=names,
            fill_value=float("nan"),
        )
        self._note(path, {**identity, "blocks": 0})
        return array, 0

    @staticmethod
    def _note(path: Path, content: dict[str, Any]) -> None:
        from scidiff.fields import write_json

        write_json(path / "run.json", content)
