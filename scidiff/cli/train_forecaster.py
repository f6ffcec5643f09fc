"""``scidiff train forecaster CONFIG.toml``: from a configuration to a forecaster and its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import ConfigError

__all__ = ["train_forecaster"]

TABLES = {"forecaster", "data", "network", "loss", "training", "card"}


def train_forecaster(
    config: Annotated[Path, typer.Argument(help="TOML file with the tables forecaster, data, network, training.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<name of CONFIG>.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder that data.file is relative to.")] = None,
    interpolator: Annotated[Path | None, typer.Option(help="Stage 1, for kind dyffusion; overrides the file.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue a stopped run, to the bit.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Discard an existing run.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    steps: Annotated[int | None, typer.Option(help="Overrides training.steps.")] = None,
    progress: Annotated[bool, typer.Option(help="Show a bar on stderr.")] = True,
) -> None:
    """Trains a forecaster; writes forecaster.safetensors and forecaster.json (the card) into the run's folder.

    DYffusion takes two runs: kind "interpolator", then kind "dyffusion" with the path of the first. What is kept is
    the moving average with the lowest validation loss so far (training.steps only says when to stop).
    """
    import torch

    from scidiff.cli.training import read_tables, stopping, strict
    from scidiff.errors import InputError
    from scidiff.forecast.files import save_forecaster
    from scidiff.forecast.kinds import Setting, make_stage
    from scidiff.forecast.training_data import forecast_data
    from scidiff.training import TrainingConfig, train
    from scidiff.training.validation import validation_loss

    tables = read_tables(config, TABLES, {"forecaster", "data", "training"})
    chosen = dict(tables["forecaster"])
    kind, horizon, window = (chosen.pop(k, v) for k, v in (("kind", None), ("horizon", None), ("window", 1)))
    if kind is None or horizon is None:
        raise ConfigError(f"{config}: [forecaster] needs kind and horizon.")
    if interpolator is not None:
        chosen["interpolator"] = str(interpolator.resolve())
    try:
        length = window + horizon * int(chosen.get("blocks", 1)) + int(chosen.get("future", 0))
        found = forecast_data(length, data or config.parent, **tables["data"])
    except TypeError as error:
        raise ConfigError(f"[data]: {error}") from error
    grid = found.spec.grid.shape
    training = strict(
        TrainingConfig, {"crops": (grid,), **tables["training"]} | ({"steps": steps} if steps else {}), "training"
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(training.seed)
        setting = Setting(
            len(found.spec.channels),
            found.spec.forcing_channels,
            horizon,
            window,
            chosen,
            tables["loss"],
            config.parent,
            found.train,
        )
        try:
            stage = make_stage(kind, lambda i, o: _network(tables["network"], i, o, horizon), setting)
        except InputError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = out or Path("runs") / config.stem
    target, best = folder / "forecaster.safetensors", [float("inf")]
    if resume and target.with_suffix(".json").exists():
        import json

        best[0] = json.loads(target.with_suffix(".json").read_text())["training"].get("validation") or float("inf")

    def export(averaged: torch.nn.Module, step: int) -> None:
        value = None
        if found.validation is not None:
            value = validation_loss(averaged, found.validation, training, stage.loss, rows=256)
            if value >= best[0]:
                return
            best[0] = value
        card = _card(tables, found, training, step, value, folder / "log.jsonl", config)
        save_forecaster(stage.finish(averaged), target, card, found.spec)

    identity = {name: tables[name] for name in ("forecaster", "data", "network")} | {"files": found.files}
    with stopping() as stopped:
        train(
            stage.network,
            found.train,
            training,
            folder,
            validation=found.validation,
            resume=resume,
            overwrite=overwrite,
            device=device,
            progress=progress,
            identity={**identity, "loss_table": tables["loss"]},
            loss=stage.loss,
            stop=lambda: bool(stopped),
            on_checkpoint=export,
        )


def _network(table: dict[str, Any], inputs: int, outputs: int, horizon: int):  # noqa: ANN202 - a network
    from importlib import import_module

    options = {"kind": "TimeUNet", "horizon": horizon, **table}
    kinds = {
        "FNO": "scidiff.nn.fno",
        "MeshCNN": "scidiff.nn.mesh_cnn",
        "TimeUNet": "scidiff.nn.time_unet",
    }
    kind = options.pop("kind")
    if kind not in kinds:
        raise ConfigError(f"network.kind is '{kind}'; expected one of {', '.join(kinds)}.")
    try:
        return getattr(import_module(kinds[kind]), kind)(inputs, outputs, **options)
    except TypeError as error:
        raise ConfigError(f"[network] does not fit: {error}") from error


def _card(
    tables: dict[str, Any], found: Any, training: Any, step: int, value: float | None, log: Path, config: Path
) -> dict[str, Any]:
    import json
    from dataclasses import asdict

    import torch

    import scidiff
    from scidiff.record import source as provenance

    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    losses = [[r["step"], round(r["loss"], 5)] for r in lines if "loss" in r]
    return {
        **tables["card"],
        "forecaster": tables["forecaster"],
        "data": tables["data"],
        "periods": found.periods,
        "files_sha256": found.files,
        "loss": tables["loss"],
        "training": asdict(training) | {"steps_done": step, "validation": value},
        "command": f"scidiff train forecaster {config.name}",
        "source": provenance(),
        "versions": {"scidiff": scidiff.__version__, "torch": torch.__version__},
        "loss_curve": losses[:: max(1, len(losses) // 50)],
        "validation_curve": [[r["step"], round(r["validation"], 5)] for r in lines if "validation" in r],
    }
