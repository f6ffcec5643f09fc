"""``scidiff train latent CONFIG.toml``: a prior of the codes of a trained autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import ConfigError
from scidiff.cli.train import make_loss_of, network_of, picture
from scidiff.cli.training import (
    Data,
    Device,
    Out,
    Overwrite,
    Progress,
    Resume,
    Steps,
    card_of,
    last_of,
    placed,
    read_tables,
    stopping,
    strict,
    unknown_keys,
)
from scidiff.errors import InputError

__all__ = ["train_latent"]

CODES = {"autoencoder": "", "fields": 2048, "held_out": 256, "grid": None}
"""Keys of the table ``[codes]`` and their defaults."""


def train_latent(
    config: Annotated[Path, typer.Argument(help="TOML file with the tables data, codes, network, training and card.")],
    out: Out = None,
    data: Data = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    steps: Steps = None,
    progress: Progress = True,
) -> None:
    """Trains a prior of codes; writes prior.safetensors and prior.json (the card) into the run's folder.

    Fields are drawn and encoded once; an autoencoder that does not ship with scidiff is copied beside the prior, so
    that `load_pretrained` finds both. Sides in training.crops and samples.shape count codes, those in codes.grid points
    of the field.
    """
    import torch

    from scidiff.datasets.sources import TrainingData, training_data
    from scidiff.priors.pretrained import load_autoencoder, save_pretrained
    from scidiff.training import TrainingConfig, train
    from scidiff.training.codes import CodeWindows, encoded, make_codes

    known = {"data", "codes", "network", "training", "loss", "samples", "card"}
    tables = read_tables(config, known, {"data", "codes", "training"})
    training = strict(TrainingConfig, tables["training"] | ({"steps": steps} if steps else {}), "training")
    unknown_keys(tables["codes"], [*CODES], "codes")
    unknown_keys(tables["samples"], ["members", "shape", "steps"], "samples")
    options = {**CODES, **tables["codes"]}
    if not options["autoencoder"]:
        raise ConfigError("[codes] lacks 'autoencoder': the name of a bundled one, or the path of its .safetensors.")
    if not all(isinstance(options[key], int) and options[key] > 1 for key in ("fields", "held_out")):
        raise ConfigError(f"[codes]: fields and held_out must be whole numbers above 1, got {tables['codes']}.")
    loss = make_loss_of(tables["loss"])
    autoencoder = load_autoencoder(_found(options["autoencoder"], config.parent))
    network_options = {
        **{"inputs": autoencoder.latent, "dims": autoencoder.network.dims, "padding": autoencoder.network.padding},
        **tables["network"],
    }
    network, device = placed(network_of(network_options, training), device)
    if network_options["inputs"] != autoencoder.latent:
        raise ConfigError(
            f"network.inputs is {network_options['inputs']}; the codes have {autoencoder.latent} channels."
        )
    grid = options["grid"] or [n * autoencoder.stride for n in training.crop(0)]
    try:
        codes_shape = autoencoder.latent_shape((autoencoder.channels, *grid))
    except ValueError as error:
        raise ConfigError(f"codes.grid {list(grid)}: {error}") from error
    if any(c > n for crop in training.crops for c, n in zip(crop, codes_shape[1:], strict=True)):
        raise ConfigError(
            f"training.crops {training.crops} exceed the codes {codes_shape[1:]} of codes.grid {list(grid)}; "
            "crops count codes."
        )
    fields = training_data(folder=data or config.parent, **tables["data"])
    _check_fields(fields, autoencoder, options["autoencoder"])
    folder = out or Path("runs") / config.stem
    autoencoder = autoencoder.to(device)
    origin: dict[str, Any] = {
        "autoencoder": autoencoder.identity,
        "data": tables["data"],
        "files": fields.files,
        "codes": {**options, "grid": list(grid), "autoencoder": None, "seed": training.seed},
    }

    def encode(u: torch.Tensor) -> torch.Tensor:
        return autoencoder.encode(_physical(u, fields))

    def draw(part: str, count: int) -> torch.Tensor:
        source = fields.source if part == "train" else fields.validation
        assert source is not None
        return encoded(source, encode, count, grid, training.seed, part, device, progress)

    held_out = options["held_out"] if fields.validation else 0
    codes = make_codes(folder / "codes.safetensors", origin, draw, options["fields"], held_out)
    of_codes = TrainingData(
        CodeWindows(codes.train),
        None if codes.held_out is None else CodeWindows(codes.held_out),
        channels=autoencoder.latent,
        loc=codes.loc,
        scale=codes.scale,
        files=fields.files,
        extra=fields.extra,
    )
    name = _kept(options["autoencoder"], config.parent, folder)

    def export(averaged: torch.nn.Module, step: int) -> None:
        log = folder / "log.jsonl"
        card = card_of(tables, of_codes, training, step, log, f"scidiff train latent {config.name}")
        card |= {
            "affine": False,
            "autoencoder": autoencoder.identity,
            "autoencoder_file": name,
            "stride": autoencoder.stride,
            "codes": {"fields": options["fields"], "held_out": held_out, "grid": list(grid)},
            "field": {"channels": autoencoder.channels, "units": autoencoder.units, "complex": autoencoder.complex},
            "validation_by_level": last_of(log, "by_level"),
        }
        save_pretrained(averaged, folder / "prior.safetensors", card, dtype=torch.float16)
        if tables["samples"]:
            picture(folder, step, tables["samples"], training)

    with stopping() as stopped:
        train(
            network,
            of_codes.source,
            training,
            folder,
            validation=of_codes.validation,
            resume=resume,
            overwrite=overwrite,
            device=device,
            progress=progress,
            identity={
                **{"network": network_options, **origin},
                **({"loss_table": tables["loss"]} if tables["loss"] else {}),
            },
            loss=loss,
            stop=lambda: bool(stopped),
            on_checkpoint=export,
        )


def _physical(u: Any, fields: Any) -> Any:
    """Fields of a source in physical units."""
    import torch

    x = torch.complex(u[:, 0::2], u[:, 1::2]) if fields.complex else u
    loc, scale = (torch.as_tensor(v, dtype=u.dtype, device=u.device) for v in (fields.loc, fields.scale))
    shape = (-1, *(1,) * (u.ndim - 2))
    return loc.reshape(shape) + scale.reshape(shape) * x


def _check_fields(fields: Any, autoencoder: Any, name: str) -> None:
    """InputError for an autoencoder of other fields than those of the configuration."""
    if fields.extra.get("condition") or any(fields.extra.get("transforms") or []):
        raise ConfigError("[data]: codes are those of fields as they are; remove data.condition and data.transforms.")
    found = (fields.channels, fields.complex, fields.units)
    wanted = (autoencoder.network.channels, autoencoder.complex, autoencoder.units)
    if found != wanted:
        raise InputError(
            f"the autoencoder '{name}' does not belong to these data: expected {wanted[0]} real channels in units of "
            f"{wanted[2]}{' (complex)' if wanted[1] else ''}, found {found[0]} in units of {found[2]}"
            f"{' (complex)' if found[1] else ''}; train an autoencoder on them, or name another in codes.autoencoder."
        )


def _found(name: str, folder: Path) -> str | Path:
    """A bundled name as it is; a path relative to the configuration where such a file is there."""
    beside = folder / name
    return beside if beside.is_file() else name


def _kept(name: str, config: Path, folder: Path) -> str:
    """What the card calls the autoencoder: its bundled name, or the copy that is made beside the prior."""
    import shutil

    from scidiff.priors.pretrained import bundled_autoencoders

    if name in bundled_autoencoders():
        return name
    source = Path(_found(name, config))
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".safetensors", ".json"):
        target = folder / f"autoencoder{suffix}"
        if not (target.exists() and target.samefile(source.with_suffix(suffix))):
            shutil.copyfile(source.with_suffix(suffix), target)
    return "autoencoder.safetensors"
