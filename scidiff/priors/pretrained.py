"""Reading and writing learned priors: weights as safetensors, everything else in a JSON card beside them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scidiff.errors import InputError
from scidiff.nn.frames_unet import FramesUNet
from scidiff.nn.mp_unet import MPUNet
from scidiff.nn.unet import UNet
from scidiff.nn.window_net import WindowNet
from scidiff.priors.diffusion import DiffusionPrior
from scidiff.transforms import make_transform

__all__ = ["NETWORKS", "bundled", "load_pretrained", "read_card", "save_pretrained"]

_FOLDER = Path(__file__).parent.parent / "pretrained"
_FORMER_NAMES = {"head-t1": "head-mri"}
_MODES = "units.modes"
"""Name of the units of waves among the weights."""
_NETWORKS = {"UNet": UNet, "MPUNet": MPUNet}
NETWORKS = {"UNet": UNet, "MPUNet": MPUNet, "WindowNet": WindowNet, "FramesUNet": FramesUNet}
"""Networks by the names that cards and configurations use."""


def bundled() -> dict[str, Path]:
    """Names and files of the priors that ship with scidiff."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def _resolve(name_or_path: str | os.PathLike[str]) -> Path:
    names, name = bundled(), _FORMER_NAMES.get(str(name_or_path), str(name_or_path))
    if name in names:
        return names[name]
    path = Path(name_or_path)
    if not path.exists():
        raise InputError(
            f"no prior '{name_or_path}': expected one of the bundled priors ({', '.join(names) or 'none'}) "
            "or the path of a .safetensors file; `scidiff list priors` shows them."
        )
    return path


def read_card(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON card of a prior.

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
    missing = [key for key in ("network", "channels", "loc", "scale", "complex") if key not in card]
    if missing:
        raise InputError(f"{path}: the card lacks {', '.join(missing)}; was it written by `scidiff train prior`?")
    return card


def load_pretrained(name_or_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> DiffusionPrior:
    """A learned prior by bundled name or by path of its ``.safetensors`` file.

    Raises:
        InputError: No such prior, not a safetensors file (pickles are never opened), or weights that do not fit the
        card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = _resolve(name_or_path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: the weights cannot be read ({error.strerror}); expected a .safetensors file."
        ) from error
    if data[:2] == b"PK" or data[:1] == b"\x80" or path.suffix in {".pt", ".pth", ".pkl", ".ckpt", ".bin"}:
        raise InputError(
            f"{path}: this is a pickle or a torch archive, which can run code when opened and is never loaded; "
            "convert it to safetensors where you trust it (safetensors.torch.save_file) and write a card."
        )
    try:
        state = load(data)
    except SafetensorError as error:
        raise InputError(f"{path}: expected safetensors weights, but the file cannot be read ({error}).") from error
    card = read_card(path)
    modes = state.pop(_MODES, None)
    arguments = dict(card["network"])
    kind = arguments.pop("kind", "UNet")
    if kind not in NETWORKS:
        raise InputError(f"{path}: the card names the network '{kind}'; this version knows {', '.join(NETWORKS)}.")
    try:
        network = NETWORKS[kind](**arguments)
        network.load_state_dict({k: v.float() for k, v in state.items()})
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: the weights do not fit the network of the card: {error}") from error
    network = network.to(device)
    card["sha256"] = hashlib.sha256(data).hexdigest()
    return DiffusionPrior(
        network,
        channels=card["channels"],
        loc=torch.as_tensor(card["loc"]),
        scale=torch.as_tensor(card["scale"]),
        complex=card["complex"],
        units=card.get("units", "1"),
        card=card,
        transforms=[None if t is None else make_transform(**t) for t in card.get("transforms") or ()],
        modes=modes,
    )


def save_pretrained(
    network: nn.Module,
    path: str | os.PathLike[str],
    card: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    modes: Tensor | None = None,
) -> None:
    """Writes weights (in ``dtype``), units of waves (float32) and card; each to a temporary name, then renamed."""
    from safetensors.torch import save

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to("cpu", dtype).contiguous() for k, v in network.state_dict().items()}
    if modes is not None:
        state[_MODES] = modes.detach().to("cpu", torch.float32).contiguous()
    kind = type(network).__name__
    card = {"network": {"kind": kind, **network.config}, **card}  # type: ignore[arg-type]
    for target, content in (
        (path, save(state)),
        (path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode()),
    ):
        temporary = target.with_name(target.name + ".part")
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
