r"""Reads DDPM U-Nets from folders in the format of diffusers, without that package and without pickles.

A folder holds ``config.json`` and ``diffusion_pytorch_model.safetensors``, alone or in ``unet/`` beside
``scheduler/scheduler_config.json``, which names the noise levels and what the network predicts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scidiff.errors import InputError
from scidiff.interop.ddpm_unet import DDPMUNet, UNetConfig
from scidiff.priors.conversions import ConvertedPrior, Discrete, Prediction, Process

__all__ = ["load_diffusers", "load_unet", "scheduler_process"]

WEIGHTS = "diffusion_pytorch_model.safetensors"
_PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load_diffusers(
    folder: str | os.PathLike[str],
    process: Process | None = None,
    prediction: Prediction | None = None,
    data_mean: float | Tensor = 0.0,
    data_std: float = 0.5,
    loc: float | Tensor = 0.0,
    scale: float | Tensor = 1.0,
    units: str = "1",
    device: torch.device | str = "cpu",
) -> ConvertedPrior:
    r"""The prior of a DDPM U-Net.

    Nothing is clipped: settings of the scheduler that belong to its sampler (``clip_sample``, ``thresholding``,
    ``variance_type``, ``timestep_spacing``) are not used.

    Arguments:
        folder: Folder of the network or of the whole pipeline.
        process: Forward process; None takes it from the scheduler's file.
        prediction: What the network returns; None takes it from the scheduler's file.
        data_mean: Mean of the training fields as the network saw them. Images are usually scaled to [-1, 1].
        data_std: Standard deviation of the training fields as the network saw them; 0.5 is EDM's figure for images.
        loc: Mean of the field in physical units.
        scale: Standard deviation of the field in physical units.
        units: Physical units of the field.
        device: Where the weights go.

    Raises:
        InputError: Files are missing, weights do not fit, or keys of a configuration are not supported; all such keys
            are named.
    """
    folder = Path(folder)
    home = folder / "unet" if (folder / "unet").is_dir() else folder
    network = load_unet(home).to(device)
    if process is None or prediction is None:
        found = [f for f in (folder / "scheduler", home.parent / "scheduler", home) if (f / _SCHEDULER).exists()]
        if not found:
            raise InputError(
                f"{folder}: found no scheduler/{_SCHEDULER}; give process= and prediction=, "
                'for example Discrete.linear() and "eps" for the first DDPM.'
            )
        own_process, own_prediction = scheduler_process(found[0] / _SCHEDULER)
        process, prediction = process or own_process, prediction or own_prediction
    channels, outputs = network.config.in_channels, network.config.out_channels
    if outputs not in (channels, 2 * channels):
        raise InputError(f"{home}: in_channels={channels} and out_channels={outputs}; expected as many or twice them.")
    card = {"name": folder.name, "network": {"kind": "DDPMUNet"}, "source": "diffusers folder"}
    return ConvertedPrior(
        network, process, prediction, channels, data_mean=data_mean, data_std=data_std,
        loc=loc, scale=scale, units=units, card=card,
    )  # fmt: skip


_SCHEDULER = "scheduler_config.json"


def load_unet(folder: str | os.PathLike[str]) -> DDPMUNet:
    """The network of a folder with ``config.json`` and weights as safetensors.

    Raises:
        InputError: see `load_diffusers`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    config = _json(folder / "config.json")
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise InputError(f"{folder / 'config.json'}: the network is a {kind}; only UNet2DModel can be read.")
    if not (folder / WEIGHTS).exists():
        others = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.safetensors"))
        raise InputError(
            f"{folder}: expected {WEIGHTS}, found {', '.join(others) or 'no weights'}; pickles (.bin) are never "
            "opened, convert them to safetensors where you trust them."
        )
    try:
        network = DDPMUNet(UNetConfig.read(config))
        state = load((folder / WEIGHTS).read_bytes())
        network.load_state_dict({_renamed(k): v.float() for k, v in state.items()})
    except SafetensorError as error:
        raise InputError(f"{folder / WEIGHTS}: expected safetensors weights, cannot be read ({error}).") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'}: {error}") from error
    except RuntimeError as error:
        raise InputError(f"{folder / WEIGHTS}: the weights do not fit config.json: {error}") from error
    return network


def scheduler_process(path: str | os.PathLike[str]) -> tuple[Discrete, Prediction]:
    """Noise levels and prediction of a scheduler's file.

    Raises:
        InputError: The file is missing or broken, or names levels or a prediction that are not known here.
    """
    path = Path(path)
    config = _json(path)
    steps, low, high = (
        config.get(k, default)
        for k, default in (("num_train_timesteps", 1000), ("beta_start", 1e-4), ("beta_end", 0.02))
    )
    kind, prediction = config.get("beta_schedule", "linear"), config.get("prediction_type", "epsilon")
    wrong = []
    if prediction not in _PREDICTIONS:
        wrong.append(f"prediction_type={prediction!r} (only {', '.join(_PREDICTIONS)})")
    if config.get("rescale_betas_zero_snr"):
        wrong.append("rescale_betas_zero_snr=true (its last level holds no data)")
    known = {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"}
    if config.get("trained_betas") is None and kind not in known:
        wrong.append(f"beta_schedule={kind!r} (only {', '.join(sorted(known))})")
    if wrong:
        raise InputError(f"{path}: not supported: {'; '.join(wrong)}.")
    if config.get("trained_betas") is not None:
        process = Discrete(torch.tensor(config["trained_betas"], dtype=torch.float64))
    elif kind == "linear":
        process = Discrete.linear(steps, low, high)
    elif kind == "scaled_linear":
        process = Discrete(torch.linspace(low**0.5, high**0.5, steps, dtype=torch.float64).square())
    elif kind == "sigmoid":
        ramp = torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64))
        process = Discrete(low + ramp * (high - low))
    else:
        process = Discrete.cosine(steps)
    return process, _PREDICTIONS[prediction]


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path}: expected this file of the diffusers format, found none.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: expected JSON, but it cannot be parsed ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found a {type(value).__name__}.")
    return value


def _renamed(name: str) -> str:
    """Names of attention weights in files before 2023 to those of today."""
    parts = name.split(".")
    if "attentions" in parts and parts[-2] in _OLD_NAMES:
        parts[-2] = _OLD_NAMES[parts[-2]]
    return ".".join(parts)
