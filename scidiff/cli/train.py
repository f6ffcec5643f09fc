"""``scidiff train prior CONFIG.toml``: from a configuration to weights and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["train_prior"]


def train_prior(
    config: Annotated[Path, typer.Argument(help="TOML file with the tables data, network, training and card.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<name of CONFIG>.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder that data.files are relative to.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue a stopped run, to the bit.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Discard an existing run.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    steps: Annotated[int | None, typer.Option(help="Overrides training.steps.")] = None,
    progress: Annotated[bool, typer.Option(help="Show a bar on stderr.")] = True,
) -> None:
    """Trains a prior; writes prior.safetensors and prior.json (the card) into the run's folder.

    Under torchrun the rows of a batch are split over the processes and the result is the same to rounding.
    """
    import os
    import signal

    import torch

    from scidiff.datasets.sources import training_data
    from scidiff.priors.pretrained import NETWORKS, save_pretrained
    from scidiff.training import TrainingConfig, train
    from scidiff.training.registry import make_loss

    tables = _read(config)
    training = _strict(TrainingConfig, tables["training"] | ({"steps": steps} if steps else {}), "training")
    source = training_data(folder=data or config.parent, **tables["data"])
    condition = source.extra.get("condition")
    shapes = {"inputs": source.channels}
    if condition:
        shapes = {"inputs": source.channels + len(condition["loc"]) + 1, "outputs": source.channels}
    network_options = {**shapes, **tables["network"]}
    kind = network_options.get("kind", "UNet")
    if kind not in NETWORKS:
        raise _usage(f"network.kind is '{kind}'; expected one of {', '.join(NETWORKS)}.")
    arguments = {k: v for k, v in network_options.items() if k != "kind"}
    network = _initialised(NETWORKS[kind], arguments, training.seed)
    if hasattr(network, "calibrate"):
        _calibrate(network, source.source, training)
    known = {"members", "steps", "shape"}
    if unknown := sorted(tables["samples"].keys() - known):
        raise _usage(f"[samples] has no '{unknown[0]}'; it has {', '.join(sorted(known))}.")
    try:
        loss = make_loss(**tables["loss"]) if tables["loss"] else None
    except (TypeError, ValueError) as error:
        raise _usage(f"[loss]: {error}") from error
    if any(len(crop) != network.dims for crop in training.crops):
        raise _usage(f"training.crops {training.crops} do not fit network.dims = {network.dims}.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    folder = out or Path("runs") / config.stem

    stopped: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _frame: stopped.append(n)) for number in (signal.SIGINT, signal.SIGTERM)
    }

    def export(averaged: torch.nn.Module, step: int) -> None:
        card = _card(tables, source, training, step, folder / "log.jsonl", config)
        save_pretrained(averaged, folder / "prior.safetensors", card, dtype=torch.float16, modes=source.modes)
        save_pretrained(averaged, folder / "prior.safetensors", card, dtype=getattr(network, "storage", torch.float16))
        if tables["samples"]:
            _picture(folder, step, tables["samples"], training)

    if device == "cpu":
        network = network.to(memory_format=torch.channels_last if network.dims == 2 else torch.contiguous_format)
    try:
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
                **{"network": network_options, "data": tables["data"], "files": source.files},
                **({"loss_table": tables["loss"]} if tables["loss"] else {}),
            },
            loss=loss,
            stop=lambda: bool(stopped),
            on_checkpoint=export,
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _initialised(kind: type, options: dict[str, Any], seed: int):  # noqa: ANN202 - the network
    """A network whose initial weights depend on the seed alone; the global random state is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return kind(**options)
        except TypeError as error:
            raise _usage(f"[network] does not fit: {error}") from error


def _calibrate(network: Any, source: Any, training: Any) -> None:
    """Gives the network windows to take its coordinates from, some 40 million numbers at most."""
    import math

    import torch

    from scidiff.training.batches import stream

    generator, crop = stream(training.seed, -3, 0), (network.window, *training.crop(0)[1:])
    rows = max(64, min(8192, 40_000_000 // math.prod(crop)))
    network.calibrate(torch.stack([source(generator, crop) for _ in range(rows)]))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    from scidiff.cli.config import read_toml

    tables = read_toml(path)
    known = {"data", "network", "training", "loss", "samples", "card"}
    unknown = sorted(tables.keys() - known)
    missing = sorted({"data", "training"} - tables.keys())
    if unknown or missing:
        raise _usage(f"{path}: expected the tables {', '.join(sorted(known))}; unknown {unknown}, missing {missing}.")
    return {"network": {}, "card": {}, "loss": {}, "samples": {}, **tables}


def _picture(folder: Path, step: int, options: dict[str, Any], training: Any) -> None:
    """Draws of the prior just written, as ``samples/<step>.png``: one row a channel, the same noise every time."""
    import torch

    from scidiff.priors.pretrained import load_pretrained
    from scidiff.samplers import DPMSolver
    from scidiff.training.pictures import sheet

    prior = load_pretrained(folder / "prior.safetensors")
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


def _strict(kind: type, values: dict[str, Any], table: str):  # noqa: ANN202 - an instance of kind
    import dataclasses
    import difflib

    names = [f.name for f in dataclasses.fields(kind)]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            raise _usage(
                f"[{table}] has no '{key}'" + (f"; did you mean '{near[0]}'?" if near else f"; it has {names}.")
            )
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise _usage(f"[{table}]: {error}") from error


def _usage(message: str) -> Exception:
    from scidiff.cli.common import ConfigError

    return ConfigError(message)


def _card(tables: dict[str, Any], source: Any, training: Any, step: int, log: Path, config: Path) -> dict[str, Any]:
    import json
    from dataclasses import asdict

    import torch

    import scidiff
    from scidiff.record import source as provenance

    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    thinned = [r for r in lines if "loss" in r][:: max(1, len(lines) // 50)]
    return {
        **tables["card"],
        "channels": source.channels,
        "loc": source.loc,
        "scale": source.scale,
        "complex": source.complex,
        "units": source.units,
        "data": tables["data"],
        "files_sha256": source.files,
        "training": asdict(training) | {"steps_done": step},
        "command": f"scidiff train prior {config.name}",
        "source": provenance(),
        "affine": not any(source.extra.get("transforms") or []),
        **source.extra,
        **({"loss": tables["loss"]} if tables["loss"] else {}),
        "versions": {"scidiff": scidiff.__version__, "torch": torch.__version__},
        "loss_curve": [[r["step"], round(r["loss"], 5)] for r in thinned],
        "validation_by_level": next((r["by_level"] for r in reversed(lines) if "by_level" in r), None),
        "validation_curve": [[r["step"], round(r["validation"], 5)] for r in lines if "validation" in r],
    }
