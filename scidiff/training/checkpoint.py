"""Checkpoints as safetensors: network, moving average and optimiser in one file, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scidiff.errors import InputError
from scidiff.training.ema import PowerEMA

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    path: Path,
    step: int,
    network: nn.Module,
    ema: PowerEMA,
    optimizer: Optimizer,
    identity: dict[str, object],
    others: Mapping[str, nn.Module] | None = None,
) -> None:
    """Writes the state after ``step`` optimiser steps.

    ``identity`` says which run this is; ``others`` are further modules by name (more averages, a loss with parameters).
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.network.state_dict().items()}
    for name, module in (others or {}).items():
        tensors |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    content = save(tensors, metadata={"step": str(step), "identity": json.dumps(identity, sort_keys=True)})
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@torch.no_grad()
def load_checkpoint(
    path: Path,
    network: nn.Module,
    ema: PowerEMA,
    optimizer: Optimizer,
    identity: dict[str, object],
    others: Mapping[str, nn.Module] | None = None,
) -> int:
    """Restores everything in place and returns the number of steps done.

    Raises:
        InputError: The checkpoint belongs to a run with another configuration.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    found = json.loads(metadata["identity"])
    wanted = json.loads(json.dumps(identity))
    differing = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    if differing:
        key = differing[0]
        raise InputError(
            f"{path}: the checkpoint was trained with {key}={found.get(key)!r}, this run asks for {wanted.get(key)!r}; "
            "restore the configuration, choose another output, or start over with --overwrite."
        )
    network.load_state_dict(_under("network.", tensors))
    ema.network.load_state_dict(_under("ema.", tensors))
    for name, module in (others or {}).items():
        module.load_state_dict(_under(f"{name}.", tensors))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _under("optimizer.", tensors).items():
        index, name = key.split(".", 1)
        p = parameters[int(index)]
        # The fused optimiser pairs numbers by address: moments must lie in memory as their parameter does.
        state.setdefault(int(index), {})[name] = torch.empty_like(p).copy_(value) if value.shape == p.shape else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
