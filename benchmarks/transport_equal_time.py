"""Forecasters of the stirred field, all trained for the same processor time on the same samples, against its exact law.

    python benchmarks/transport_equal_time.py [--sides 16 32] [--horizons 4 8] [--methods noise dyffusion edm]
                                              [--seconds 80] [--cases 24] [--members 50] [--seed 99] [--threads 1]
                                              [--out runs/transport_equal_time]

Every method gets the same processor seconds of optimiser steps: --seconds for 16 x 16 points, twice that for 32 x 32.
The two stages of DYffusion share them equally. Processor seconds per step are measured just before a training, over
steps that are thrown away, and decide the number of its steps. All see windows of the same 256 trajectories (seed 0).

Printed per grid and horizon: fair CRPS at every lead divided by that of the exact law on the same forecasts, spread
over error, network calls of a block, steps, and the processor seconds that the whole training took (start, simulation
of the data and validation included; of a training that was killed only what came after its last checkpoint). Half as
many cases for 32 x 32. Forecasts start at the first state of trajectories of another seed than those of the training.

One command, resumable: trainings go on from their checkpoints, finished scores are read from --out.

Methods: noise (one call, CRPS), dyffusion (as published: dropout, squared error, cold), dyffusion-noise (noise and CRPS
in both networks, naive), edm, ddpm (5 levels), mcvd (100 steps); climatology and persistence need no training.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from dyffusion_transport import scored

from scidiff.cli.train_forecaster import _network
from scidiff.cli.training import read_tables
from scidiff.datasets import part_of, trajectories
from scidiff.fields import write_json
from scidiff.forecast import Climatology, Persistence, StateSpec, load_forecaster
from scidiff.forecast.kinds import Setting, make_stage
from scidiff.forecast.training_data import forecast_data

WIDTH, BATCH = {16: [32, 48], 32: [24, 48, 64]}, {16: 16, 32: 8}
STAGES: dict[str, tuple[dict[str, Any], ...]] = {
    "noise": ({"kind": "noise", "noise": 2, "loss": "crps"},),
    "dyffusion": (
        {"kind": "interpolator", "residual": False, "dropout": 0.15, "loss": "squared"},
        {"kind": "dyffusion", "residual": False, "sampling": "cold", "dropout": 0.15, "loss": "squared"},
    ),
    "dyffusion-noise": (
        {"kind": "interpolator", "noise": 2, "loss": "crps"},
        {
            "kind": "dyffusion", "sampling": "naive", "conditioning": "data", "forecaster_noise": True, "noise": 2,
            "loss": "crps",
        },
    ),
    "edm": ({"kind": "edm", "level_mean": 0.0, "level_std": 1.4},),
    "ddpm": ({"kind": "ddpm"},),
    "mcvd": ({"kind": "mcvd"},),
}  # fmt: skip
OF_NETWORK = ("noise", "dropout")
WARM, TIMED = 3, 12
"""Steps before the clock starts, and timed ones."""


def configuration(side: int, horizon: int, stage: dict[str, Any], steps: int, first: Path | None) -> str:
    """The TOML file of one training."""
    stage = dict(stage)
    loss, network = stage.pop("loss", None), {name: stage.pop(name) for name in OF_NETWORK if name in stage}
    if first is not None:
        stage["interpolator"] = str((first / "forecaster.safetensors").resolve())
    options = {"grid": [side, side], "times": 64, "train": 256, "validation": 8, "test": 32, "seed": 0}
    tables = {
        "forecaster": {"horizon": horizon, **stage},
        "data": {"trajectories": "stochastic-transport", "variables": ["tracer"]},
        "data.options": options,
        "network": {"width": WIDTH[side], "embedding": 64, "padding": "periodic", **network},
        **({"loss": {"kind": loss}} if loss else {}),
        "training": {
            "steps": steps, "batch": BATCH[side], "learning_rate": 2e-3, "warmup": 50, "decay": max(50, steps // 5),
            "weight_decay": 0.01, "ema": 6.94, "bf16": False, "log_every": 10,
            "checkpoint_every": max(25, steps // 10),
        },
    }  # fmt: skip
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def step_seconds(config: Path) -> float:
    """Processor seconds of one optimiser step of a configuration."""
    tables = read_tables(config, {"forecaster", "data", "network", "loss", "training", "card"}, set())
    chosen = dict(tables["forecaster"])
    kind, horizon = chosen.pop("kind"), chosen.pop("horizon")
    found = forecast_data(1 + horizon, config.parent, **tables["data"])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        setting = Setting(1, 0, horizon, 1, chosen, tables["loss"], config.parent, found.train)
        stage = make_stage(kind, lambda i, o: _network(tables["network"], i, o, horizon), setting)
    parameters = list(stage.network.parameters())
    optimizer, generator = torch.optim.Adam(parameters, fused=True), torch.Generator().manual_seed(0)
    began = 0.0
    for step in range(WARM + TIMED):
        if step == WARM:
            began = time.process_time()
        rows = torch.stack([found.train(generator, ()) for _ in range(tables["training"]["batch"])])
        drawn = torch.stack([stage.loss.draw(generator) for _ in rows])
        optimizer.zero_grad()
        stage.loss(stage.network, rows, drawn).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return (time.process_time() - began) / TIMED


def trained(method: str, side: int, horizon: int, seconds: float, folder: Path) -> tuple[Path, list[int], float]:
    """Weights, steps of the stages and processor seconds of a training, gone on with where it stands."""
    stages, first, steps, used = STAGES[method], None, [], 0.0
    for number, stage in enumerate(stages):
        run = folder / f"{method}-{side}-{horizon}-{number + 1}"
        run.mkdir(parents=True, exist_ok=True)
        config, plan = run / "config.toml", run / "plan.json"
        if not plan.exists():
            config.write_text(configuration(side, horizon, stage, 1, first))
            each = step_seconds(config)
            count = max(1, round(seconds / len(stages) / each))
            config.write_text(configuration(side, horizon, stage, count, first))
            write_json(plan, {"seconds_per_step": each, "steps": count, "used": 0.0, "done": False})
        kept = json.loads(plan.read_text())
        if not kept["done"]:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = ["-m", "scidiff", "train", "forecaster", str(config), "--out", str(run), "--resume"]
            subprocess.run([sys.executable, *command, "--no-progress"], check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            kept["used"] += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            write_json(plan, {**kept, "done": True})
        first, used = run, used + kept["used"]
        steps.append(kept["steps"])
    assert first is not None
    return first / "forecaster.safetensors", steps, used


def untrained(method: str, side: int, horizon: int) -> Any:
    """A baseline fitted to the same training samples."""
    data = part_of(
        trajectories("stochastic-transport", grid=(side, side), times=64, train=256, validation=0, test=0, seed=0),
        "train",
    )
    spec = StateSpec.fit(data, "tracer")
    model: Any = {"climatology": Climatology, "persistence": Persistence}[method].fit(data, spec, horizon)
    model.spec = spec
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", choices=sorted(WIDTH), default=[16, 32])
    parser.add_argument("--horizons", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--methods", nargs="+", choices=sorted(STAGES), default=["noise", "dyffusion", "edm"])
    parser.add_argument("--seconds", type=float, default=80.0)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/transport_equal_time"))
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    for side in a.sides:
        for horizon in a.horizons:
            cases, seconds = a.cases * 16 // side, a.seconds * side / 16
            print(
                f"\n{side} x {side}, {horizon} steps: {cases} cases of seed {a.seed}, {a.members} members, "
                f"{seconds:.0f} s of optimiser steps, threads {a.threads}\n\n"
                "| forecaster | CRPS / floor by lead | spread / error by lead | network calls | steps | seconds |\n"
                "|---|---|---|---|---|---|",
                flush=True,
            )
            for method in (*a.methods, "climatology", "persistence"):
                kept = a.out / f"{method}-{side}-{horizon}.json"
                settings = {"cases": cases, "members": a.members, "seed": a.seed, "seconds": seconds}
                row = json.loads(kept.read_text()) if kept.exists() else {}
                if row.get("settings") != settings:
                    if method in STAGES:
                        path, steps, used = trained(method, side, horizon, seconds, a.out)
                        model = load_forecaster(path)
                    else:
                        model, steps, used = untrained(method, side, horizon), [], 0.0
                    ratios, spreads = scored(model, cases, a.members, a.seed)
                    row = {"settings": settings, "ratios": ratios, "spreads": spreads, "steps": steps, "used": used}
                    row["calls"] = model.network_calls
                    a.out.mkdir(parents=True, exist_ok=True)
                    write_json(kept, row)
                print(
                    f"| {method} | {' '.join(f'{v:.3f}' for v in row['ratios'])} "
                    f"| {' '.join(f'{v:.2f}' for v in row['spreads'])} | {row['calls']} "
                    f"| {' + '.join(map(str, row['steps'])) or '-'} | {row['used']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
