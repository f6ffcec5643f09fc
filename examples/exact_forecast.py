"""How far is a forecaster from the best that can be done?

A tracer is carried round a periodic square, spreads, fades and is stirred at random. What will become of a given state
is known exactly: a Gaussian law, whose CRPS no forecast undercuts on average. Forecasters that learn from trajectories
are measured against it: the table gives their CRPS in units of the exact law's, by lead, and whether their spread tells
their error; the picture shows one forecast of each. Put a forecaster of your own in the dictionary to see where it
stands.
"""

from pathlib import Path

import torch

from scidiff.datasets import part_of, trajectories
from scidiff.datasets.stochastic_transport import law_of
from scidiff.forecast import (
    Analogues,
    Climatology,
    DampedPersistence,
    ExactForecaster,
    Forecaster,
    LinearInverseModel,
    Persistence,
    StateSpec,
)
from scidiff.metrics import crps, spread_skill
from scidiff.rng import Streams

GRID, TRAIN, TEST, TIMES = (16, 16), 128, 32, 48
HORIZON, MEMBERS, SEED = 8, 32, 0
OUTPUT = Path("runs/exact_forecast.png")


def main(
    grid: tuple[int, int] = GRID,
    train: int = TRAIN,
    test: int = TEST,
    horizon: int = HORIZON,
    members: int = MEMBERS,
    output: Path = OUTPUT,
) -> dict[str, dict[str, list[float]]]:
    data = trajectories("stochastic-transport", grid=grid, times=TIMES, train=train, validation=0, test=test, seed=SEED)
    law, known = law_of(data), part_of(data, "train")
    spec = StateSpec.fit(known, "tracer")
    forecasters: dict[str, Forecaster] = {
        "exact law": ExactForecaster(law, horizon, spec.loc.float(), spec.scale.float()),
        "persistence": Persistence(horizon),
        "damped persistence": DampedPersistence.fit(known, spec, horizon),
        "climate": Climatology.fit(known, spec, horizon),
        "analogues": Analogues.fit(known, spec, horizon),
        "linear model": LinearInverseModel.fit(known, spec, horizon, components=1.0),
    }

    # Forecasts begin at the middle of every test trajectory; rows are (member, trajectory).
    states = spec.to_tensor(part_of(data, "test"))  # (test, times, 1, *grid)
    now = TIMES // 2
    start, truth = states[:, now - 1 : now], states[:, now : now + horizon]
    scale = float(spec.scale)
    floor = torch.stack(
        [
            law.crps(spec.denormalise(start)[:, 0], spec.denormalise(truth)[:, j], j + 1).mean() / scale
            for j in range(horizon)
        ]
    )
    table, drawn = {}, {}
    for name, model in forecasters.items():
        rows = start.expand(members, *start.shape).flatten(0, 1)
        ensemble = model.sample(rows, generator=Streams(SEED, range(len(rows)))).unflatten(0, (members, len(start)))
        ratio = crps(ensemble, truth).mean((0, *range(2, truth.ndim))) / floor
        skill = [
            float(spread_skill(ensemble[:, :, j].flatten(1, 2)[:, None], truth[:, j].flatten(0, 1)[None]))
            for j in range(horizon)
        ]
        table[name], drawn[name] = {"crps": ratio.tolist(), "spread_skill": skill}, ensemble[0, 0, :, 0]

    leads = sorted({1, 2, horizon // 2, horizon})
    print(f"{'':20s}" + "".join(f"{f'CRPS, lead {j}':>15s}" for j in leads) + f"{'spread/skill':>15s}")
    for name, row in table.items():
        print(
            f"{name:20s}" + "".join(f"{row['crps'][j - 1]:15.3f}" for j in leads) + f"{row['spread_skill'][-1]:15.2f}"
        )
    picture(truth[0, :, 0], drawn, output)
    print(f"CRPS in units of the exact law's; one member of each, and what happened: {output}")
    return table


def picture(truth: torch.Tensor, drawn: dict[str, torch.Tensor], output: Path) -> None:
    from matplotlib.figure import Figure

    shown = {"what happened": truth, **drawn}
    leads = sorted({1, len(truth) // 2, len(truth)})
    figure = Figure(figsize=(1.7 * len(shown), 1.8 * len(leads)), layout="constrained")
    panels = figure.subplots(len(leads), len(shown), squeeze=False)
    for column, (name, fields) in zip(panels.T, shown.items(), strict=True):
        for axes, lead in zip(column, leads, strict=True):
            axes.imshow(fields[lead - 1].numpy(), cmap="RdBu_r", vmin=-3, vmax=3)
            axes.set_xticks([])
            axes.set_yticks([])
        column[0].set_title(name, fontsize=9)
    for axes, lead in zip(panels[:, 0], leads, strict=True):
        axes.set_ylabel(f"lead {lead}")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    main()
