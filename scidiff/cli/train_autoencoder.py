"""``scidiff train autoencoder CONFIG.toml``: an autoencoder of fields, with a card that says what it loses."""

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
    placed,
    read_tables,
    stopping,
    strict,
    unknown_keys,
)

__all__ = ["train_autoencoder"]


def train_autoencoder(
    config: Annotated[Path, typer.Argument(help="TOML file with the tables data, network, loss, training and card.")],
    out: Out = None,
    data: Data = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    steps: Steps = None,
    progress: Progress = True,
) -> None:
    """Trains an autoencoder; writes autoencoder.safetensors and autoencoder.json (the card) into the run's folder.

    The card holds the reconstruction error by band of wavenumber, on held-out fields where the data have some. Beside
    it lies reconstructions.png: fields, what is left of them, and the difference.
    """
    from dataclasses import replace

    import torch

    from scidiff.datasets.sources import training_data
    from scidiff.nn.autoencoder import ConvAutoencoder
    from scidiff.priors.pretrained import save_pretrained
    from scidiff.training import TrainingConfig, train
    from scidiff.training.fidelity import fidelity, triptych
    from scidiff.training.reconstruction import ReconstructionLoss

    tables = read_tables(config, {"data", "network", "training", "loss", "card"}, {"data", "training"})
    training = strict(TrainingConfig, tables["training"] | ({"steps": steps} if steps else {}), "training")
    unknown_keys(tables["loss"], ["power", "gradient", "kl", "commitment"], "loss")
    loss = strict(ReconstructionLoss, tables["loss"], "loss")
    source = training_data(folder=data or config.parent, **tables["data"])
    if source.extra.get("condition"):
        raise ConfigError("[data]: an autoencoder takes no condition; remove data.condition.")
    if any(source.extra.get("transforms") or []):
        raise ConfigError("[data]: an autoencoder takes fields as they are; remove data.transforms.")
    options = {"channels": source.channels, **tables["network"]}
    unknown_keys(options, ["channels", "latent", "width", "blocks", "dims", "patch", "padding", "codebook"], "network")
    network = initialised(ConvAutoencoder, options, training.seed)
    _check_crops(network, training)
    first = torch.Generator().manual_seed(training.seed)
    network.start(torch.stack([source.source(first, training.crop(0)) for _ in range(64)]))
    network, device = placed(network, device)
    folder = out or Path("runs") / config.stem
    loss = replace(loss, codebook=network.codebook is not None)

    def export(averaged: Any, step: int) -> None:
        card = card_of(tables, source, training, step, folder / "log.jsonl", f"scidiff train autoencoder {config.name}")
        held_out = source.validation is not None
        g = torch.Generator().manual_seed(training.seed)
        fields = torch.stack([(source.validation or source.source)(g, training.crop(0)) for _ in range(64)])  # type: ignore[misc]
        fields = fields.to(next(averaged.parameters()).device)
        card |= {
            "stride": averaged.stride,
            "compression": averaged.stride**averaged.dims * averaged.channels / averaged.latent,
            "reconstruction": {"fields": "held out" if held_out else "training", **fidelity(averaged, fields)},
        }
        save_pretrained(averaged, folder / "autoencoder.safetensors", card, dtype=torch.float16)
        (folder / "reconstructions.png").write_bytes(triptych(averaged, fields[:8]))

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
            identity={"network": options, "data": tables["data"], "files": source.files, "loss_table": tables["loss"]},
            loss=loss,
            stop=lambda: bool(stopped),
            on_checkpoint=export,
        )


def _check_crops(network: Any, training: Any) -> None:
    for crop in training.crops:
        if len(crop) != network.dims:
            raise ConfigError(f"training.crops {training.crops} do not fit network.dims = {network.dims}.")
        if any(n % network.stride for n in crop):
            raise ConfigError(
                f"training.crops has {list(crop)}; expected sides that are multiples of the stride {network.stride} "
                "(patch times 2 for every level after the first)."
            )
    cell = network.channels * network.stride**network.dims
    if network.latent > cell:
        raise ConfigError(
            f"network.latent is {network.latent}, but a cell of the field has {cell} numbers only; nothing would be "
            "compressed. Choose fewer."
        )
