r"""Forecasters as files: weights and normalisation as safetensors, everything else in a JSON card beside them.

The card's entry ``model`` is a tree: every object with its class, its arguments and its parts,

.. code-block:: json

    {"class": "DYffusion", "sampling": "cold", "parts": {
        "forecaster": {"class": "Predictor", "residual": true, "parts": {"network": {"class": "TimeUNet"}}},
        "interpolator": {"class": "Interpolator", "horizon": 5, "parts": {"network": {"class": "TimeUNet"}}}}}

Only classes of `CLASSES` are made, from numbers and names; nothing in a file is code.
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scidiff.errors import InputError
from scidiff.forecast.base import Forecaster

if TYPE_CHECKING:
    from scidiff.forecast.state import StateSpec

__all__ = ["CLASSES", "bundled_forecasters", "load_forecaster", "load_model", "read_forecaster_card", "save_forecaster"]

CLASSES = {
    "ConditionalDenoiser": "scidiff.forecast.conditional",
    "ConditionalDiffusion": "scidiff.forecast.conditional",
    "DYffusion": "scidiff.forecast.dyffusion",
    "Deterministic": "scidiff.forecast.direct",
    "DropoutEnsemble": "scidiff.forecast.direct",
    "Interpolator": "scidiff.forecast.interpolator",
    "NoiseEnsemble": "scidiff.forecast.direct",
    "PerturbedEnsemble": "scidiff.forecast.direct",
    "Predictor": "scidiff.forecast.interpolator",
    "FNO": "scidiff.nn.fno",
    "MeshCNN": "scidiff.nn.mesh_cnn",
    "TimeUNet": "scidiff.nn.time_unet",
}
"""What a card may name, and where it lives. A class has ``config``, its arguments as JSON, and ``parts``, the names of
those that are modules; networks have no parts."""

_FOLDER = Path(__file__).parent.parent / "pretrained" / "forecasters"
STATE = "state."


def bundled_forecasters() -> dict[str, Path]:
    """Names and files of the forecasters that ship with scidiff."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def describe(module: nn.Module) -> dict[str, Any]:
    """The tree of a model."""
    name = type(module).__name__
    if name == "PosteriorForecaster":
        raise TypeError(
            "a PosteriorForecaster cannot be kept in a file: it is a prior and a sampler. Save its prior "
            "(scidiff.priors.pretrained.save_pretrained) and make the forecaster anew from the loaded one."
        )
    if name not in CLASSES:
        raise TypeError(f"a {name} cannot be kept in a file: it is not in the table scidiff.forecast.files.CLASSES.")
    parts = {part: describe(getattr(module, part)) for part in getattr(module, "parts", ())}
    return {"class": name, **module.config, **({"parts": parts} if parts else {})}  # type: ignore[dict-item]


def build(tree: dict[str, Any]) -> nn.Module:
    """The model of a tree, with fresh weights.

    Raises:
        ValueError: A class that is not known, or arguments that do not fit it.
    """
    tree = dict(tree)
    name, parts = tree.pop("class", None), tree.pop("parts", {})
    if name not in CLASSES:
        raise ValueError(f"the card names the class '{name}'; this version knows {', '.join(sorted(CLASSES))}.")
    kind = getattr(import_module(CLASSES[name]), name)
    return kind(**{part: build(sub) for part, sub in parts.items()}, **tree)


def save_forecaster(
    model: nn.Module,
    path: str | os.PathLike[str],
    card: dict[str, Any] | None = None,
    spec: StateSpec | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes weights (in ``dtype``), normalisation and card; each to a temporary name that is then renamed.

    Arguments:
        model: A forecaster, or an interpolator.
        path: Of the weights, ``.safetensors``; the card lies beside it as ``.json``.
        card: Title, licence, data, training: whatever belongs to it.
        spec: What turns a Dataset into its states; without it the model works on tensors only.
        dtype: Of the weights.
    """
    from safetensors.torch import save

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to("cpu", dtype if v.is_floating_point() else v.dtype) for k, v in _weights(model).items()}
    if spec is not None:
        state |= {STATE + k: v.detach().cpu() for k, v in spec.tensors().items()}
    content = {"model": describe(model), **({"state": spec.to_card()} if spec is not None else {}), **(card or {})}
    for target, data in (
        (path, save({k: v.contiguous() for k, v in state.items()})),
        (path.with_suffix(".json"), (json.dumps(content, indent=2) + "\n").encode()),
    ):
        temporary = target.with_name(target.name + ".part")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.startswith(STATE)}


def _resolve(name_or_path: str | os.PathLike[str]) -> Path:
    names = bundled_forecasters()
    if str(name_or_path) in names:
        return names[str(name_or_path)]
    path = Path(name_or_path)
    if not path.exists():
        raise InputError(
            f"no forecaster '{name_or_path}': expected one of the bundled ones ({', '.join(names) or 'none'}) or the "
            "path of a .safetensors file; `scidiff list forecasters` shows them."
        )
    return path


def read_forecaster_card(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON card of a forecaster.

    Raises:
        InputError: The weights or the card are missing, or the card is not one of ours.
    """
    weights = _resolve(name_or_path)
    path = weights.with_suffix(".json")
    if not path.exists():
        raise InputError(f"{weights}: expected the card {path.name} beside the weights, found none.")
    try:
        card = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: expected a JSON card, but it cannot be parsed ({error}).") from error
    if "model" not in card:
        raise InputError(f"{path}: the card lacks 'model'; was it written by `scidiff train forecaster`?")
    return card


def load_model(name_or_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """A forecaster or an interpolator with its ``card`` and ``spec`` (None if it was saved without).

    Raises:
        InputError: No such file, not a safetensors file (pickles are never opened), or weights that do not fit the
            card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = _resolve(name_or_path)
    try:
        data = path.read_bytes()
        state = load(data)
    except OSError as error:
        raise InputError(f"{path}: the weights cannot be read ({error.strerror}).") from error
    except SafetensorError as error:
        raise InputError(
            f"{path}: expected safetensors weights ({error}); pickles are never opened, because they can run code."
        ) from error
    card = read_forecaster_card(path)
    spec_tensors = {k.removeprefix(STATE): v for k, v in state.items() if k.startswith(STATE)}
    weights = {k: v.float() if v.is_floating_point() else v for k, v in state.items() if not k.startswith(STATE)}
    try:
        model = build(card["model"])
        model.load_state_dict(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: the weights do not fit the model of the card: {error}") from error
    spec = None
    if "state" in card:
        from scidiff.forecast.state import StateSpec

        spec = StateSpec.from_card(card["state"], spec_tensors)
    card["sha256"] = hashlib.sha256(data).hexdigest()
    model.card, model.spec = card, spec  # type: ignore[assignment]
    return model.to(device).eval()


def load_forecaster(name_or_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Forecaster:
    """A forecaster by bundled name or by path, with its ``card`` and ``spec``; see `load_model`.

    Raises:
        InputError: As `load_model`, or the file holds an interpolator, which cannot forecast.
    """
    model = load_model(name_or_path, device)
    if not isinstance(model, Forecaster):
        raise InputError(
            f"{name_or_path}: this is an {type(model).__name__}, stage 1 of DYffusion; train stage 2 with "
            'forecaster.kind = "dyffusion" and forecaster.interpolator = its path.'
        )
    return model
