"""How far ahead can a stirred field be forecast, and does the ensemble know how wrong it is?

A field is carried along, decays and is stirred at random, so even a perfect forecast is uncertain. Its exact law is
known: the table compares a bundled forecaster with the best forecast there is. Fair CRPS of 1.00 times the floor cannot
be improved; a spread equal to the error says that the members differ from each other as they do from the truth.
"""

from pathlib import Path

import numpy as np
import torch

import scidiff
from scidiff.datasets import part_of, trajectories
from scidiff.datasets.stochastic_transport import law_of
from scidiff.metrics import crps, spread_skill

FORECASTER = "stochastic-transport"  # a bundled forecaster or a .safetensors file
CASES = 16
MEMBERS = 30
LEADS = 8
SEED = 1  # of trajectories the forecaster has not seen
OUTPUT = Path("runs/forecast_ensemble.png")


def main(
    forecaster: str = FORECASTER,
    cases: int = CASES,
    members: int = MEMBERS,
    leads: int = LEADS,
    output: Path = OUTPUT,
) -> list[dict[str, float]]:
    data = part_of(
        trajectories("stochastic-transport", times=leads + 1, train=1, validation=0, test=cases, seed=SEED), "test"
    )
    law, fields = law_of(data), torch.from_numpy(data["tracer"].values)
    initial = data.isel(time=slice(0, 1)).drop_vars("split").rename(trajectory="init_time")
    initial = initial.isel(time=0, drop=True).assign_coords(
        init_time=np.datetime64("2000-01-01", "ns") + np.arange(cases) * np.timedelta64(1, "h")
    )
    found = scidiff.forecast(forecaster, initial, leads, members, output=None)
    drawn = torch.from_numpy(found["tracer"].values).movedim(1, 0)  # (member, case, lead, y, x)

    table = []
    print(f"{cases} forecasts, {members} members\nlead  CRPS   x floor  persistence x floor  spread/error")
    for lead in range(1, leads + 1):
        truth, ahead = fields[:, lead], drawn[:, :, lead - 1]
        floor = float(law.crps(fields[:, 0].double(), truth.double(), lead).mean())
        score = float(crps(ahead, truth).mean())
        still = float((fields[:, 0] - truth).abs().mean())
        ratio = float(spread_skill(ahead[:, None], truth[None]))  # one error over all cases
        table.append({"lead": lead, "crps": score, "floor": floor, "persistence": still, "spread_skill": ratio})
        print(f"{lead:4d}  {score:.3f}  {score / floor:7.3f}  {still / floor:19.2f}  {ratio:12.2f}")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    shown = [lead for lead in (1, leads // 2, leads) if lead]
    columns = ("truth", "mean", "member 1", "member 2", "spread")
    for axes, lead in zip(figure.subplots(len(shown), len(columns)), shown, strict=True):
        ahead = drawn[:, 0, lead - 1]
        pictures = (fields[0, lead], ahead.mean(0), ahead[0], ahead[1], ahead.std(0))
        for place, name, picture in zip(axes, columns, pictures, strict=True):
            limits = {"vmin": 0, "vmax": 1, "cmap": "viridis"} if name == "spread" else {"vmin": -2.5, "vmax": 2.5}
            place.imshow(picture.numpy(), **({"cmap": "RdBu_r"} | limits))
            place.set_xticks([])
            place.set_yticks([])
            place.set_title(name if lead == shown[0] else "")
        axes[0].set_ylabel(f"lead {lead}")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=90)
    print(output)
    return table


if __name__ == "__main__":
    main()
