"""The forecaster of a run: found, placed on a device, and known by a fingerprint."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from typing import Any

import torch

from scidiff.errors import InputError
from scidiff.forecast.base import Forecaster
from scidiff.forecast.files import load_forecaster
from scidiff.forecast.state import StateSpec
from scidiff.placement import resolve_device

__all__ = ["card_of", "fingerprint", "load_model", "place"]

LONGEST_ENTRY = 1000


def card_of(model: Forecaster) -> str:
    """What a model says of itself, as JSON; long entries, such as loss curves, stay in the card's file."""
    card = {"class": type(model).__name__, "horizon": model.horizon, "window": model.window}
    card |= getattr(model, "card", None) or {}
    long = "(long; see the card of the weights)"
    text = {name: json.dumps(value, default=str) for name, value in card.items()}
    return json.dumps({n: card[n] if len(t) <= LONGEST_ENTRY else long for n, t in text.items()}, default=str)


def load_model(name: str | os.PathLike[str]) -> tuple[Forecaster, StateSpec]:
    """A saved forecaster, and what turns Datasets into its states.

    Raises:
        InputError: no such forecaster, or one that knows tensors only.
    """
    model: Any = load_forecaster(name)
    if model.spec is None:
        raise InputError(f"{name} was saved without a description of its states; give spec when saving it.")
    return model, model.spec


def place(model: Any, spec: StateSpec | None, device: str | None) -> tuple[Forecaster, StateSpec, torch.device]:
    """Forecaster, specification and device; a model that must move is copied."""
    if isinstance(model, (str, os.PathLike)):
        model, own = load_model(model)
        spec, device = spec or own, device or "auto"
    spec = spec if spec is not None else getattr(model, "spec", None)
    if not callable(getattr(model, "sample", None)):
        raise TypeError(f"model must be a Forecaster or the name of one, got {type(model).__name__}.")
    if spec is None:
        raise TypeError(f"{type(model).__name__} has no spec; give spec=StateSpec.fit(training_data, variables).")
    found = next((p.device for p in model.parameters()), torch.device("cpu"))
    wanted = found if device is None else resolve_device(device)
    if wanted != found and not (wanted.type == found.type and wanted.index is None):
        model = copy.deepcopy(model).to(wanted)
    return model, spec, wanted


def fingerprint(model: Forecaster) -> str:
    """The sha256 of kind, settings (attributes that are numbers, words or yes and no), weights and buffers."""
    plain = {k: v for k, v in sorted(vars(model).items()) if isinstance(v, (bool, int, float, str)) and k != "training"}
    about = f"{type(model).__qualname__} {model.horizon} {model.window} {model.network_calls} {plain}"
    total = hashlib.sha256(about.encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
