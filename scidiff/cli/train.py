"""``scidiff train prior CONFIG.toml``: from a configuration to weights and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import ConfigError
from scidiff.cli.training import (
    Data,
    Device,
    Out,
    Overwrite,
    Progress,
    Resume,
    Steps,
    card_of,
    initialised,
    last_of,
    placed,
    read_tables,
    stopping,
    strict,
    unknown_keys,
)

__all__ = ["make_loss_of", "network_of", "picture", "train_prior"]


def train_prior(
    config: Annotated[Path, typer.Argument(help="TOML file with the tables data, network, training and card.")],
    out: Out = None,
    data: Data = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    steps: Steps = None,
    progress: Progress = True,
) -> None:
    """Trains a prior; writes prior.safetensors and prior.json (the card) into the run's folder.

    Under torchrun the rows of a batch are split over the processes and the result is the same to rounding.
    """
    import torch

    from scidiff.datasets.sources import training_data
    from scidiff.priors.pretrained import save_pretrained
    from scidiff.training import TrainingConfig, train

    tables = read_tables(config, {"data", "network", "training", "loss", "samples", "card"}, {"data", "training"})
    training = strict(TrainingConfig, tables["training"] | ({"steps": steps} if steps else {}), "training")
    source = training_data(folder=data or config.parent, **tables["data"])
    condition = source.extra.get("condition")
    shapes = {"inputs": source.channels}
    if condition:
        shapes = {"inputs": source.channels + len(condition["loc"]) + 1, "outputs": source.channels}
    options = {**shapes, **tables["network"]}
    network = network_of(options, training)
    if hasattr(network, "calibrate"):
        _calibrate(network, source.source, training)
    unknown_keys(tables["samples"], ["members", "shape", "steps"], "samples")
    loss = make_loss_of(tables["loss"])
    network, device = placed(network, device)
    folder = out or Path("runs") / config.stem

    def export(averaged: torch.nn.Module, step: int) -> None:
        card = card_of(tables, source, training, step, folder / "log.jsonl", f"scidiff train prior {config.name}")
        card["affine"] = not any(source.extra.get("transforms") or [])
        card["validation_by_level"] = last_of(folder / "log.jsonl", "by_level")
        dtype = getattr(network, "storage", torch.float16)
        save_pretrained(averaged, folder / "prior.safetensors", card, dtype=dtype, modes=source.modes)
        if tables["samples"]:
            picture(folder, step, tables["samples"], training)

    with stopping() as stopped:
        train(
            network,
            source.source,
            training,
            folder,
            validation=source.validation,
            resume=resume,
            overwrite=overwrite,
            device=device,
            progress=progress,
            identity={
                **{"network": options, "data": tables["data"], "files": source.files},
                **({"loss_table": tables["loss"]} if tables["loss"] else {}),
            },
            loss=loss,
            stop=lambda: bool(stopped),
            on_checkpoint=export,
        )


def network_of(options: dict[str, Any], training: Any):  # noqa: ANN201 - the network
    """The denoising network of the table ``[network]``, freshly initialised."""
    from scidiff.priors.pretrained import NETWORKS

    kind = options.get("kind", "UNet")
    if kind not in NETWORKS:
        raise ConfigError(f"network.kind is '{kind}'; expected one of {', '.join(NETWORKS)}.")
    network = initialised(NETWORKS[kind], {k: v for k, v in options.items() if k != "kind"}, training.seed)
    if any(len(crop) != network.dims for crop in training.crops):
        raise ConfigError(f"training.crops {training.crops} do not fit network.dims = {network.dims}.")
    return network


def _calibrate(network: Any, source: Any, training: Any) -> None:
    """Gives the network windows to take its coordinates from, some 40 million numbers at most."""
    import math

    import torch

    from scidiff.training.batches import stream

    generator, crop = stream(training.seed, -3, 0), (network.window, *training.crop(0)[1:])
    rows = max(64, min(8192, 40_000_000 // math.prod(crop)))
    network.calibrate(torch.stack([source(generator, crop) for _ in range(rows)]))


def make_loss_of(table: dict[str, Any]):  # noqa: ANN201 - a loss, or None
    """The denoising loss of the table ``[loss]``, if there is one."""
    from scidiff.training.registry import make_loss

    try:
        return make_loss(**table) if table else None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[loss]: {error}") from error


def picture(folder: Path, step: int, options: dict[str, Any], training: Any) -> None:
    """Draws of the prior just written, as ``samples/<step>.png``: one row a channel, the same noise every time."""
    import torch

    from scidiff.priors.pretrained import load_pretrained
    from scidiff.samplers import DPMSolver
    from scidiff.training.pictures import sheet

    prior: Any = load_pretrained(folder / "prior.safetensors")
    if "condition" in prior.card:
        shape = tuple(options.get("shape", training.crop(0)))
        prior = prior.given(torch.zeros(len(prior.card["condition"]["loc"]), *shape), guidance=0.0)
    shape = (prior.channels, *options.get("shape", training.crop(0)))
    sampler = DPMSolver(steps=int(options.get("steps", 16)))
    generator = torch.Generator().manual_seed(training.seed)
    draws = sampler(prior, shape=shape, members=int(options.get("members", 8)), generator=generator).samples[:, 0]
    target = folder / "samples" / f"{step:08d}.png"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(sheet(draws))
