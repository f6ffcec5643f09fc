"""What was the temperature between the weather stations, and how sure can we be?

The file DATA holds daily maxima of 137 stations of NOAA in the central United States (`scidiff.datasets.read_stations`
tells what such a file looks like). A law of the weather is fitted to 1990-1992; on one day of 1993 a fifth of the
stations is hidden, the field is reconstructed from the others, and the hidden ones tell whether field and error bars
were right. Without the file a simulated network takes its place.
"""

from pathlib import Path

import scidiff
from scidiff import problems

DATA = Path("data/noaa_stations_tmax_daily_1990_1993.npz")
DAY = 130
MEMBERS = 32
SPACING = 1.0
OUTPUT = Path("runs/station_temperature.png")


def main(
    data: Path = DATA, day: int = DAY, members: int = MEMBERS, spacing: float = SPACING, output: Path = OUTPUT
) -> dict[str, dict[str, float]]:
    real = data.is_file()
    problem = problems.get("stations", data=str(data) if real else None, spacing=spacing)
    case = problem.case(day)
    print(f"{'stations of ' + str(data) if real else 'a simulated network'}, {str(case.observation.time.values)[:10]}")
    result = scidiff.reconstruct(problem, case.observation, members=members, truth=case.truth)
    scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}

    table = {}
    for name in ("", "_kriging", "_nearest", "_inverse_distance", "_climatology"):
        keys = ("rmse", "crps", "coverage_90", "spread_skill")
        row = {key: scores[f"held_back_{key}{name}"] for key in keys if f"held_back_{key}{name}" in scores}
        table[name.lstrip("_") or "samples"] = row
    print(f"{'at hidden stations':20s}{'rmse [K]':>12s}{'crps [K]':>12s}{'coverage 90 %':>15s}{'spread/skill':>14s}")
    for name, row in table.items():
        tail = f"{row['coverage_90']:15.2f}{row['spread_skill']:14.2f}" if "coverage_90" in row else ""
        print(f"{name:20s}{row['rmse']:12.2f}{row['crps']:12.2f}{tail}")
    output.parent.mkdir(parents=True, exist_ok=True)
    problem.plot(result).savefig(output)
    print(f"the picture is in {output}")
    return table


if __name__ == "__main__":
    main()
