r"""The training loop: one process or many, resumable to the bit.

Every number of a step is a function of (seed, step, row): fields, noise levels and noise come from one stream per row
of the global batch. Therefore a killed run resumes exactly, and the batch is the same whether one process holds it or
`torchrun` splits its rows over many (gradients are summed over processes).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from scidiff.errors import InputError, Interrupted, NumericalError
from scidiff.training.checkpoint import load_checkpoint, save_checkpoint
from scidiff.training.ema import PowerEMA
from scidiff.training.losses import edm_loss, log_normal

__all__ = ["Source", "TrainingConfig", "train"]

Source = Callable[[Generator, tuple[int, ...]], Tensor]
"""Draws one field in units of ``u``: a stream and a grid -> (C, \\*grid)."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Arguments:
        steps: Optimiser steps.
        batch: Rows of the global batch at the first crop; larger crops take fewer rows, so that a step keeps its cost.
        crops: Grids to train on, cycled from step to step.
        learning_rate: Peak rate of Adam, reached after ``warmup`` steps, constant to step ``decay``, then falling as
            1/sqrt(step). It does not depend on ``steps``: a finished run can be continued with more of them.
        clip: Largest norm of the gradient.
        ema: Exponent of the power-function average, see `scidiff.training.ema`.
        noise_mean, noise_std: Mean and standard deviation of ln sigma.
        bf16: Compute the network in bfloat16 (weights and loss stay in float32).
        seed: Root of all random numbers, initial weights included.
        log_every, checkpoint_every: In steps.
    """

    steps: int
    batch: int = 16
    crops: Sequence[Sequence[int]] = ((64, 64),)
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: int = 2000
    clip: float = 1.0
    ema: float = 16.97
    noise_mean: float = -1.2
    noise_std: float = 1.2
    bf16: bool = True
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "decay", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}.")
        if self.learning_rate <= 0 or self.clip <= 0 or self.noise_std <= 0:
            raise ValueError("training.learning_rate, clip and noise_std must be positive.")
        if not self.crops or any(min(crop) < 1 for crop in self.crops):
            raise ValueError(f"training.crops must list grids such as [[64, 64]], got {self.crops}.")

    def crop(self, step: int) -> tuple[int, ...]:
        """Grid of a step."""
        return tuple(self.crops[step % len(self.crops)])

    def rows(self, step: int) -> int:
        """Rows of the global batch of a step."""
        return max(1, round(self.batch * math.prod(self.crops[0]) / math.prod(self.crop(step))))

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate / math.sqrt(max(1.0, step / self.decay))


def train(
    network: nn.Module,
    source: Source,
    config: TrainingConfig,
    folder: str | os.PathLike[str],
    validation: Source | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    progress: bool = False,
    identity: dict[str, object] | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_checkpoint: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """Trains in place and returns the averaged network.

    Writes ``checkpoint.safetensors`` and ``log.jsonl`` into ``folder``; with ``torchrun`` only the first process
    writes.

    Arguments:
        network: Freshly initialised network.
        source: Where fields come from, see `Source`.
        config: How to train.
        folder: Where the checkpoint and the log go.
        validation: Fields of other subjects or trajectories; their loss is logged at each checkpoint, on fixed noise.
        resume: Continue from the checkpoint, to the bit; without one, start.
        overwrite: Discard an existing checkpoint.
        device: Where to compute.
        progress: Show a bar on stderr.
        identity: What else the checkpoint must share with this run to be resumed (network, data).
        stop: Asked after each step; True writes a checkpoint and raises `Interrupted`.
        on_checkpoint: Called with the averaged network and the step after each checkpoint, by the first process.

    Raises:
        InputError: A checkpoint exists (neither resume nor overwrite), or belongs to another configuration.
        NumericalError: The loss or the gradient is not finite.
        Interrupted: ``stop`` said so.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / "checkpoint.safetensors", folder / "log.jsonl"
    ends = ("steps", "log_every", "checkpoint_every")  # do not change what a step does
    identity = {**{k: v for k, v in asdict(config).items() if k not in ends}, **(identity or {})}
    network = network.to(device)
    ema = PowerEMA(network, config.ema)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    done = 0
    if path.exists() and resume:
        done = load_checkpoint(path, network, ema, optimizer, identity)
    elif path.exists() and not overwrite:
        raise InputError(f"{path} exists; continue it with --resume, replace it with --overwrite, or choose --out.")

    with (
        _processes(device) as (rank, world),
        ThreadPoolExecutor(1) as loader,
        _bar(config.steps, done, progress, rank) as bar,
    ):
        lead = rank == 0
        if lead:
            _trim(log, done)

        def batch(step: int) -> tuple[Tensor, ...]:
            rows = range(rank, config.rows(step), world)
            return _batch(source, [_stream(config.seed, step, r) for r in rows], config.crop(step), config)

        # A process without rows in this step still takes part in the sum of gradients.
        pending = loader.submit(batch, done)
        clock, losses = time.perf_counter(), []
        for step in range(done, config.steps):
            u, sigma, eps = (t.to(device) for t in pending.result())
            if step + 1 < config.steps:
                pending = loader.submit(batch, step + 1)
            optimizer.zero_grad(set_to_none=False)
            with _autocast(device, config.bf16):
                loss = edm_loss(network, u, sigma, eps).sum() / config.rows(step)
            loss.backward()
            loss = loss.detach()
            if world > 1:
                loss = _sum_over_processes(network, loss)
            norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            for group in optimizer.param_groups:
                group["lr"] = config.rate(step)
            optimizer.step()
            ema.update(network, step + 1)
            losses.append((loss, norm))
            bar.update()

            last = step + 1 == config.steps
            stopping = stop()
            if (step + 1) % config.log_every == 0 or last or stopping:
                values, norms = (torch.stack(v).mean().item() for v in zip(*losses, strict=True))
                if not (math.isfinite(values) and math.isfinite(norms)):
                    raise NumericalError(
                        f"training diverged between steps {step + 1 - len(losses)} and "
                        f"{step + 1} (loss {values}, gradient "
                        f"norm {norms}); resume from {path} with a smaller learning_rate or bf16 = false."
                    )
                seconds = (time.perf_counter() - clock) / len(losses)
                row = {
                    "step": step + 1,
                    "loss": values,
                    "gradient": norms,
                    "rate": config.rate(step),
                    "seconds": seconds,
                }
                if lead:
                    _append(log, row)
                bar.set_postfix(loss=f"{values:.4f}")
                clock, losses = time.perf_counter(), []
            if (step + 1) % config.checkpoint_every == 0 or last or stopping:
                if lead:
                    save_checkpoint(path, step + 1, network, ema, optimizer, identity)
                    if validation is not None:
                        _append(log, {"step": step + 1, "validation": validation_loss(ema.network, validation, config)})
                    if on_checkpoint is not None:
                        on_checkpoint(ema.network, step + 1)
                if stopping and not last:
                    raise Interrupted(f"stopped after step {step + 1} of {config.steps}; continue with --resume.")
                clock = time.perf_counter()
    return ema.network


@torch.no_grad()
def validation_loss(network: nn.Module, source: Source, config: TrainingConfig, rows: int = 32) -> float:
    """Loss on fixed fields and fixed noise, so that values of different steps can be compared."""
    device = next(network.parameters()).device
    total = 0.0
    for start in range(0, rows, 8):
        streams = [_stream(config.seed, -1, start + i) for i in range(8)]
        u, sigma, eps = (t.to(device) for t in _batch(source, streams, config.crop(0), config))
        with _autocast(device, config.bf16):
            total += edm_loss(network, u, sigma, eps).sum().item()
    return total / rows


def _stream(seed: int, step: int, row: int) -> Generator:
    digest = hashlib.blake2b(f"training/{seed}/{step}/{row}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _batch(
    source: Source, streams: Sequence[Generator], crop: tuple[int, ...], config: TrainingConfig
) -> tuple[Tensor, ...]:
    rows = []
    for g in streams:
        u = source(g, crop).float()
        sigma = log_normal(torch.randn((), generator=g), config.noise_mean, config.noise_std)
        rows.append((u, sigma, torch.randn(u.shape, generator=g)))
    if not rows:
        u = source(_stream(config.seed, -2, 0), crop).float()[None]
        return u[:0], u.new_zeros(0), u[:0]
    return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))


def _sum_over_processes(network: nn.Module, loss: Tensor) -> Tensor:
    """Adds gradients and losses of all processes, in one message."""
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in network.parameters()]
    flat = torch.cat([*(g.flatten() for g in grads), loss.float().reshape(1)])
    dist.all_reduce(flat)
    for p, g, piece in zip(network.parameters(), grads, flat[:-1].split([g.numel() for g in grads]), strict=True):
        p.grad = g.copy_(piece.view(g.shape))
    return flat[-1]


@contextmanager
def _processes(device: torch.device | str) -> Iterator[tuple[int, int]]:
    """Rank and number of processes; joins and leaves the group that `torchrun` announces."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def _autocast(device: torch.device | str, bf16: bool):  # noqa: ANN202 - a context manager of torch or of the library
    return torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext()


def _bar(total: int, done: int, show: bool, rank: int):  # noqa: ANN202
    from tqdm import tqdm

    return tqdm(total=total, initial=done, disable=not show or rank > 0, unit="step", desc="training")


def _append(log: Path, row: dict[str, object]) -> None:
    with open(log, "a") as file:
        file.write(json.dumps(row) + "\n")


def _trim(log: Path, done: int) -> None:
    """Drops lines of steps that the checkpoint does not hold, so that a resumed log reads like an unbroken one."""
    if not log.exists():
        return
    kept = [line for line in log.read_text().splitlines() if _step(line) is not None and _step(line) <= done]  # type: ignore[operator]
    log.write_text("".join(line + "\n" for line in kept) if done else "")


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return None  # the last line of a killed run may be cut
