r"""The training loop: one process or many, resumable to the bit.

Every number of a step is a function of (seed, step, row), see `scidiff.training.batches`. Therefore a killed run
resumes exactly, and the batch is the same whether one process holds it or `torchrun` splits its rows over many
(gradients are summed over processes).

What goes wrong stops the run with the last good state on disk: numbers that are not finite and spikes of the loss are
found before a checkpoint is written; data that cannot be read are reported after one was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scidiff.errors import InputError, Interrupted
from scidiff.team import joined
from scidiff.training.batches import Batch, Source, draw
from scidiff.training.checkpoint import load_checkpoint, save_checkpoint
from scidiff.training.config import TrainingConfig
from scidiff.training.ema import PowerEMA
from scidiff.training.levels import LogNormal
from scidiff.training.losses import DenoisingLoss, Loss
from scidiff.training.posthoc import save_snapshots
from scidiff.training.record import Record
from scidiff.training.validation import autocast, validation_by_level, validation_loss

__all__ = ["Source", "TrainingConfig", "train", "validation_loss"]


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
    loss: Loss | None = None,
) -> nn.Module:
    """Trains in place and returns the averaged network.

    Writes ``checkpoint.safetensors`` and ``log.jsonl`` into ``folder``; with ``torchrun`` only the first process
    writes.

    Arguments:
        network: Freshly initialised network. If it has a method ``constrain()``, it is called after every step.
        source: Where fields come from, see `Source`.
        config: How to train.
        folder: Where the checkpoint, the log and the snapshots go.
        validation: Fields of other subjects or trajectories; their loss is logged at each checkpoint, on fixed noise,
            as one number and by noise level.
        resume: Continue from the checkpoint, to the bit; without one, start.
        overwrite: Discard an existing checkpoint.
        device: Where to compute.
        progress: Show a bar on stderr.
        identity: What else the checkpoint must share with this run to be resumed (network, data, loss).
        stop: Asked after each step; True writes a checkpoint and raises `Interrupted`.
        on_checkpoint: Called with the averaged network and the step after each checkpoint, by the first process.
        loss: What is minimised; EDM's loss by default. Parameters of a loss are trained with those of the network. Its
            method ``validate(network, source, config)``, if any, replaces the errors by noise level in the log.

    Raises:
        InputError: A checkpoint exists (neither resume nor overwrite), or belongs to another configuration, or the
            source cannot read its data (the state before that step is written first).
        NumericalError: The loss or the gradient is not finite, or the loss has jumped; the checkpoint is the last good
            one.
        Interrupted: ``stop`` said so.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "checkpoint.safetensors"
    identity = {**config.identity, **(identity or {})}
    loss = DenoisingLoss(levels=LogNormal(config.noise_mean, config.noise_std)) if loss is None else loss
    network = network.to(device)
    if config.channels_last:
        network = network.to(memory_format=_last(config))  # type: ignore[call-overload]
    modules = [network] + ([loss.to(device)] if isinstance(loss, nn.Module) else [])
    parameters = [p for module in modules for p in module.parameters()]
    ema = PowerEMA(network, config.ema)
    averages = [PowerEMA(network, gamma) for gamma in config.averages]
    state = {f"average{i}": average.network for i, average in enumerate(averages)}
    if modules[1:]:
        state["loss"] = modules[1]
    optimizer = torch.optim.Adam(
        parameters,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        decoupled_weight_decay=True,
        fused=True,
    )
    forward = torch.compile(network) if config.compile else network
    done = 0
    if path.exists() and resume:
        done = load_checkpoint(path, network, ema, optimizer, identity, state)
    elif path.exists() and not overwrite:
        raise InputError(f"{path} exists; continue it with --resume, replace it with --overwrite, or choose --out.")

    with (
        joined(device) as (rank, world),
        ThreadPoolExecutor(1) as loader,
        _bar(config.steps, done, progress, rank) as bar,
    ):
        lead = rank == 0
        record = Record(folder / "log.jsonl", done, config, lead)

        def batch(step: int) -> Batch:
            # A process without rows in this step still takes part in the sum of gradients.
            return draw(source, step, range(rank, config.rows(step), world), config.crop(step), config, loss)

        def save(step: int) -> None:
            record.check(step, path)
            if lead:
                save_checkpoint(path, step, network, ema, optimizer, identity, state)

        pending = loader.submit(batch, done)
        for step in range(done, config.steps):
            rows = _fields(pending, step, done, save, path).to(device)
            if step + 1 < config.steps:
                pending = loader.submit(batch, step + 1)
            optimizer.zero_grad(set_to_none=False)
            total = torch.zeros((), device=device)
            for part in rows.split(config.accumulate):
                if config.channels_last and part.u.ndim == len(config.crop(0)) + 2:
                    part.u = part.u.contiguous(memory_format=_last(config))
                with autocast(device, config.bf16):
                    value = part.losses(loss, forward).sum() / config.rows(step)
                value.backward()
                total = total + value.detach()
            if world > 1:
                total = _sum_over_processes(parameters, total)
            norm = nn.utils.clip_grad_norm_(parameters, config.clip)
            for group in optimizer.param_groups:
                group["lr"] = config.rate(step)
            optimizer.step()
            if hasattr(network, "constrain"):
                network.constrain()  # type: ignore[operator]
            for average in (ema, *averages):
                average.update(network, step + 1)
            record.note(total, norm)
            bar.update()

            last = step + 1 == config.steps
            stopping = stop()
            saving = (step + 1) % config.checkpoint_every == 0 or last or stopping
            if (step + 1) % config.log_every == 0 or last or stopping:
                bar.set_postfix(loss=f"{record.line(step + 1, path):.4f}")
            if averages and lead and config.snapshots and ((step + 1) % config.snapshots == 0 or last):
                save_snapshots(folder, step + 1, averages)
            if saving:
                save(step + 1)
                if lead and validation is not None:
                    for row in _validated(ema.network, validation, config, loss):
                        record.append({"step": step + 1, **row})
                if lead and on_checkpoint is not None:
                    on_checkpoint(ema.network, step + 1)
                if stopping and not last:
                    raise Interrupted(f"stopped after step {step + 1} of {config.steps}; continue with --resume.")
                record.restart()
    return ema.network


def _fields(pending: Future[Batch], step: int, done: int, save: Callable[[int], None], path: Path) -> Batch:
    """The rows of a step; if they cannot be read, the state before the step is written and the error raised."""
    try:
        return pending.result()
    except (InputError, OSError) as error:
        if step == done:
            raise
        save(step)
        raise InputError(f"{error} The state after step {step} is kept in {path}; continue with --resume.") from error


def _validated(network: nn.Module, source: Source, config: TrainingConfig, loss: Loss) -> list[dict[str, object]]:
    """Lines of the log: the loss on fixed fields, and what the loss says of them (by default, by noise level)."""
    more = getattr(loss, "validate", None)
    if getattr(loss, "windows", False):
        row: dict[str, object] = {}  # steps in time have no noise level
    elif more is None:
        row = {"by_level": validation_by_level(network, source, config)}
    else:
        row = more(network, source, config)
    return [{"validation": validation_loss(network, source, config, loss)}, *([row] if row else [])]


def _sum_over_processes(parameters: list[nn.Parameter], loss: Tensor) -> Tensor:
    """Adds gradients and losses of all processes, in one message."""
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([*(g.flatten() for g in grads), loss.float().reshape(1)])
    dist.all_reduce(flat)
    for p, g, piece in zip(parameters, grads, flat[:-1].split([g.numel() for g in grads]), strict=True):
        p.grad = g.copy_(piece.view(g.shape))
    return flat[-1]


def _bar(total: int, done: int, show: bool, rank: int):  # noqa: ANN202
    from tqdm import tqdm

    return tqdm(total=total, initial=done, disable=not show or rank > 0, unit="step", desc="training")


def _last(config: TrainingConfig) -> torch.memory_format:
    ranks = {2: torch.channels_last, 3: torch.channels_last_3d}
    return ranks.get(len(config.crop(0)), torch.contiguous_format)
