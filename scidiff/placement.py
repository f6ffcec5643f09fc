"""Where a posterior computes and in which precision, and a fingerprint of what it is made of."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scidiff.inference import Posterior

__all__ = ["default_batch", "fingerprint", "place", "resolve_device", "resolve_dtype"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}

# Numbers of one state times members that are drawn together. A U-Net keeps some thousand floats per number of its
# state while it is differentiated: 2**17 numbers are then about 1 GB. Processors gain nothing from more; GPUs do.
NUMBERS_PER_BATCH = {"cpu": 2**17, "cuda": 2**20}


_GIVEN = "_given"
"""Where operators keep the arguments of their constructors: what they are made of, whatever they derived from it."""


def resolve_device(name: str) -> torch.device:
    """``"auto"`` is the GPU where torch sees one, else the processor; any other name is torch's.

    Raises:
        ValueError: the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:<n>, got {name!r}.") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"device {name!r}: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs; use cpu.")
    return device


def resolve_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """``"float32"`` or ``"float64"``; None keeps the precision of the observation.

    Raises:
        ValueError: any other name.
    """
    if name is None or name in DTYPES.values():
        return name  # type: ignore[return-value]
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}.")
    return DTYPES[str(name)]


def default_batch(posterior: Posterior, members: int) -> int:
    """Members drawn together: as many as fit a fixed budget of numbers, at least one; no matter which machine."""
    numbers = posterior.batch * int(np.prod(posterior.shape or (1,)))
    return max(1, min(members, NUMBERS_PER_BATCH.get(posterior.device.type, 2**17) // numbers))


def place(posterior: Posterior, device: torch.device, dtype: torch.dtype | None = None) -> Posterior:
    """A copy of the posterior whose tensors live on a device, in a precision; the original is not changed.

    Integer and boolean tensors keep their type, complex ones get the matching complex type. Parts of the prior are
    widened to a precision but never narrowed: exact priors keep double precision inside, and answer in the state's.
    """
    prior = _move(posterior.prior, device, dtype if dtype == torch.float64 else None, {})
    return Posterior(prior, _move(posterior.likelihood, device, dtype, {}), posterior.shape)


def _cast(tensor: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor.to(device)
    return tensor.to(device, dtype.to_complex() if tensor.is_complex() else dtype)


def _move(value: Any, device: torch.device, dtype: torch.dtype | None, seen: dict[int, Any]) -> Any:
    """Copies what holds tensors; ``seen`` keeps shared and circular references what they were."""
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, nn.Module):
        moved: Any = copy.deepcopy(value).to(device)
        moved = moved.to(dtype) if dtype is not None else moved  # torch leaves integers alone and keeps complex complex
    elif isinstance(value, Tensor):
        moved = _cast(value, device, dtype)
    elif isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        moved = type(value)(_move(part, device, dtype, seen) for part in value)
    elif isinstance(value, dict):
        moved = {key: _move(part, device, dtype, seen) for key, part in value.items()}
    elif type(value).__module__.startswith("scidiff.") and hasattr(value, "__dict__"):
        moved = copy.copy(value)
        seen[id(value)] = moved
        for key, part in vars(value).items():
            if key != _GIVEN:
                object.__setattr__(moved, key, _move(part, device, dtype, seen))
    elif callable(getattr(value, "to", None)) and not hasattr(value, "units"):  # quantities have another `to`
        moved = value.to(device)  # type: ignore[union-attr]
    else:
        moved = value
    seen[id(value)] = moved
    return moved


def fingerprint(value: Any) -> str:
    """The sha256 of everything an object is made of: type names, settings, tensors and weights.

    Two objects built in the same way have equal fingerprints, used or not: what an object derives and keeps for
    itself, private attributes and `functools.cached_property`, does not enter (unless it has nothing else).
    """
    total = hashlib.sha256()
    _feed(value, total, set())
    return total.hexdigest()


def _cached(kind: type, name: str) -> bool:
    return isinstance(getattr(kind, name, None), functools.cached_property)


def _feed(value: Any, total: Any, seen: set[int]) -> None:
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    elif isinstance(value, (str, bytes, int, float, complex, type(None), torch.dtype, torch.device, range)):
        total.update(f"{type(value).__name__}:{value!r};".encode())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            total.update(f"{key}=".encode())
            _feed(value[key], total, seen)
    elif isinstance(value, (list, tuple)):
        total.update(f"[{len(value)}".encode())
        for part in value:
            _feed(part, total, seen)
    elif isinstance(value, (set, frozenset)):
        total.update(repr(sorted(map(str, value))).encode())
    elif id(value) not in seen:
        seen.add(id(value))
        kind = type(value)
        total.update(f"{kind.__module__}.{kind.__qualname__}".encode())
        if isinstance(value, nn.Module):
            _feed(value.state_dict(), total, seen)
            total.update(repr(value).encode())
        elif hasattr(value, "magnitude") and hasattr(value, "units"):
            _feed([value.magnitude, str(value.units)], total, seen)
        elif _GIVEN in getattr(value, "__dict__", {}):
            _feed(vars(value)[_GIVEN], total, seen)
        elif dataclasses.is_dataclass(value):
            _feed({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, total, seen)
        elif hasattr(value, "__dict__") and not callable(value):
            public = {k: v for k, v in vars(value).items() if not k.startswith("_") and not _cached(kind, k)}
            _feed(public or vars(value), total, seen)
        elif callable(value):
            total.update(getattr(value, "__qualname__", kind.__qualname__).encode())
            _feed({k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("__")}, total, seen)
