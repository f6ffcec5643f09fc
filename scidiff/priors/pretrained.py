"""Reading and writing learned priors: weights as safetensors, everything else in a JSON card beside them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scidiff.errors import InputError
from scidiff.nn.autoencoder import ConvAutoencoder
from scidiff.nn.frames_unet import FramesUNet
from scidiff.nn.mp_unet import MPUNet
from scidiff.nn.unet import UNet
from scidiff.nn.window_net import WindowNet
from scidiff.priors.autoencoder import FieldAutoencoder
from scidiff.priors.diffusion import DiffusionPrior
from scidiff.transforms import make_transform

if TYPE_CHECKING:
    from scidiff.priors.latent import LatentPrior

__all__ = [
    "NETWORKS",
    "bundled",
    "bundled_autoencoders",
    "load_autoencoder",
    "load_pretrained",
    "read_card",
    "save_pretrained",
]

_FOLDER = Path(__file__).parent.parent / "pretrained"
_FORMER_NAMES = {"head-t1": "head-mri"}
_MODES = "units.modes"
"""Name of the units of waves among the weights."""
NETWORKS = {"UNet": UNet, "MPUNet": MPUNet, "WindowNet": WindowNet, "FramesUNet": FramesUNet}
"""Denoisers by the names that cards and configurations use."""
_AUTOENCODERS = {"ConvAutoencoder": ConvAutoencoder}


def bundled() -> dict[str, Path]:
    """Names and files of the priors that ship with scidiff."""
    return {name: path for name, path in _shipped().items() if not _codes(path)}


def bundled_autoencoders() -> dict[str, Path]:
    """Names and files of the autoencoders that ship with scidiff."""
    return {name: path for name, path in _shipped().items() if _codes(path)}


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def _codes(path: Path) -> bool:
    return _card(path)["network"].get("kind") in _AUTOENCODERS


def _resolve(name_or_path: str | os.PathLike[str], what: str = "prior") -> Path:
    names, name = _shipped(), _FORMER_NAMES.get(str(name_or_path), str(name_or_path))
    if name in names:
        return names[name]
    path = Path(name_or_path)
    if not path.exists():
        known = bundled() if what == "prior" else bundled_autoencoders()
        raise InputError(
            f"no {what} '{name_or_path}': expected one of the bundled {what}s ({', '.join(known) or 'none'}) "
            f"or the path of a .safetensors file; `scidiff list {what}s` shows them."
        )
    return path


def read_card(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON card of a prior or an autoencoder.

    Raises:
        InputError: The weights or the card are missing, or the card is not one of ours.
    """
    return _card(_resolve(name_or_path))


def _card(weights: Path) -> dict[str, Any]:
    path = weights.with_suffix(".json")
    if not path.exists():
        raise InputError(f"{weights}: expected the card {path.name} beside the weights, found none.")
    try:
        card = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: expected a JSON card, but it cannot be parsed ({error}).") from error
    missing = [key for key in ("network", "channels", "loc", "scale", "complex") if key not in card]
    if missing:
        raise InputError(f"{path}: the card lacks {', '.join(missing)}; was it written by `scidiff train`?")
    return card


def load_pretrained(
    name_or_path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> DiffusionPrior | LatentPrior:
    """A learned prior by bundled name or by path of its ``.safetensors`` file.

    A card that names an autoencoder gives a `LatentPrior`: the prior of the codes behind that autoencoder, which is a
    bundled one or a file, its path relative to the card.

    Raises:
        InputError: No such prior, not a safetensors file (pickles are never opened), or weights that do not fit the
            card; an autoencoder, or an autoencoder other than the one the prior was trained behind.
    """
    path = _resolve(name_or_path)
    network, card, modes = _read(path, NETWORKS)
    prior = DiffusionPrior(
        network.to(device),
        channels=card["channels"],
        loc=torch.as_tensor(card["loc"]),
        scale=torch.as_tensor(card["scale"]),
        complex=card["complex"],
        units=card.get("units", "1"),
        card=card,
        transforms=[None if t is None else make_transform(**t) for t in card.get("transforms") or ()],
        modes=modes,
    )
    if "autoencoder" not in card:
        return prior
    from scidiff.priors.latent import LatentPrior

    return LatentPrior(_behind(path, card, device), prior)


def load_autoencoder(name_or_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> FieldAutoencoder:
    """A trained autoencoder by bundled name or by path of its ``.safetensors`` file.

    Raises:
        InputError: As `load_pretrained`; or a prior instead of an autoencoder.
    """
    network, card, _ = _read(_resolve(name_or_path, "autoencoder"), _AUTOENCODERS)
    return FieldAutoencoder(
        network.to(device),
        loc=torch.as_tensor(card["loc"]),
        scale=torch.as_tensor(card["scale"]),
        complex=card["complex"],
        units=card.get("units", "1"),
        card=card,
    )


def _behind(path: Path, card: dict[str, Any], device: torch.device | str) -> FieldAutoencoder:
    """The autoencoder that the card of a latent prior names; checked to have the same weights."""
    name, identity = card.get("autoencoder_file", ""), card["autoencoder"]
    beside = path.parent / name
    found = load_autoencoder(beside if beside.is_file() else name, device)
    if found.identity != identity:
        raise InputError(
            f"{path}: expected the autoencoder '{name}' with the identity {identity}, found {found.identity}; the "
            "codes of another autoencoder mean something else. Restore the one that this prior was trained behind, or "
            "train the prior again."
        )
    return found


def _read(path: Path, kinds: dict[str, Any]) -> tuple[Any, dict[str, Any], Tensor | None]:
    """Network with its weights, card with the checksum of the weights, and units of waves if the prior has them."""
    from safetensors import SafetensorError
    from safetensors.torch import load

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
    card = _card(path)
    modes = state.pop(_MODES, None)
    arguments = dict(card["network"])
    kind = arguments.pop("kind", "UNet")
    if kind not in kinds:
        if kind in _AUTOENCODERS:
            raise InputError(f"{path}: this is an autoencoder, not a prior; read it with load_autoencoder.")
        if kind in NETWORKS:
            raise InputError(f"{path}: this is a prior, not an autoencoder; read it with load_pretrained.")
        raise InputError(f"{path}: the card names the network '{kind}'; this version knows {', '.join(kinds)}.")
    try:
        network = kinds[kind](**arguments)
        network.load_state_dict({k: v.float() for k, v in state.items()})
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: the weights do not fit the network of the card: {error}") from error
    card["sha256"] = hashlib.sha256(data).hexdigest()
    return network, card, modes


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
