"""Do forecasts of a stirred field know how little they know, and how far are they from the best possible?

A tracer is carried by a wind, decays and is stirred anew by noise. Its predictive law is known, so no forecast can have
a lower expected CRPS than a computed number. The exact law, a linear inverse model and damped persistence forecast the
same states; the table compares their scores with that number by lead, the picture shows the linear model's scores.
"""

from pathlib import Path

import scidiff
from scidiff.datasets.stochastic_transport import law_of
from scidiff.datasets.time_series import trajectories
from scidiff.forecast import DampedPersistence, ExactForecaster, LinearInverseModel, StateSpec, verify
from scidiff.forecast.plots import score_figure

GRID, TIMES, TRAIN = (16, 16), 400, 64
LEADS, MEMBERS, BLOCK = 8, 24, 8
OUTPUT = Path("runs/forecast_scores.png")


def main(
    grid: tuple[int, int] = GRID,
    times: int = TIMES,
    train: int = TRAIN,
    leads: int = LEADS,
    members: int = MEMBERS,
    output: Path = OUTPUT,
) -> dict[str, dict[int, tuple[float, float]]]:
    data = trajectories("stochastic-transport", grid=grid, times=times, train=train, validation=1, test=1, seed=0)
    past, test = data.isel(trajectory=data.split.values == "train"), data.isel(trajectory=-1, drop=True)
    spec, law = StateSpec.fit(past, "tracer"), law_of(data)
    models = {
        "exact law": ExactForecaster(law, leads, spec.loc, spec.scale),
        "linear inverse model": LinearInverseModel.fit(past, spec, leads),
        "damped persistence": DampedPersistence.fit(past, spec, leads),
    }
    start = test.isel(time=slice(0, times - leads, 2))
    forecasts = {
        name: scidiff.forecast(model, start, leads, members=members, spec=spec, output=None)
        for name, model in models.items()
    }
    worst, table = forecasts["damped persistence"], {}
    metrics = ("crps", "spread_skill", "rmse", "ranks", "spectrum")
    scores = {name: verify(one, test, metrics, baseline=worst, block=BLOCK) for name, one in forecasts.items()}
    print("CRPS over that of the exact law, with spread-skill in brackets")
    print(f"{'lead':22s}" + "".join(f"{lead:>14d}" for lead in range(1, leads + 1)))
    for name, found in scores.items():
        best = [law.expected_crps(lead) for lead in range(1, leads + 1)]
        rows = zip(found.tracer_crps.values / best, found.tracer_spread_skill.values, strict=True)
        table[name] = {lead: (float(ratio), float(skill)) for lead, (ratio, skill) in enumerate(rows, 1)}
        print(f"{name:22s}" + "".join(f"{ratio:8.3f} ({skill:.2f})" for ratio, skill in table[name].values()))
    output.parent.mkdir(parents=True, exist_ok=True)
    score_figure(scores["linear inverse model"]).savefig(output)
    print(f"scores of the linear inverse model, damped persistence as baseline: {output}")
    return table


if __name__ == "__main__":
    main()
