"""Withheld weather stations: how well is a value predicted, and is its uncertainty right?

    python benchmarks/stations.py DATA [--every 8] [--members 32] [--sampled 6] [--spacing 1.0] [--threads 1]

The law is fitted to 1990-1992; every n-th day of 1993 is predicted at a fifth of its stations, drawn anew each day,
from the others. Kriging knows the fitted law without a grid; "grid" is the exact posterior on the grid, "mmps" draws
from it (fewer days). Scores are pooled over days; RMSE and CRPS in kelvin.
"""

import argparse
import math
import time

import numpy as np
import torch
from torch import Generator

from scidiff import posterior, problems
from scidiff.datasets.station_law import SEASONS, StationLaw, season_of
from scidiff.problems.station_scores import gaussian_crps, mixture_crps


def withheld(problem, observation):
    mask = observation["held_back_mask"].values
    place = observation["station_lat"].values[mask], observation["station_lon"].values[mask]
    return mask, place, observation["held_back_observation"].values[mask]


def predictions(problem, observation):
    """Mean and standard deviation (None for a single guess) of the withheld values by every method."""
    mask, place, y = withheld(problem, observation)
    season = season_of(observation["time"].values)
    nugget = problem.law.nugget[season]
    guesses = problem.guesses(observation, *place)
    found = {name: (guess, None) for name, guess in guesses.items()}
    found["climatology"] = guesses["climatology"], np.full(len(y), math.hypot(problem.law.std[season], nugget))
    found["kriging"] = guesses["kriging"], np.hypot(problem.kriging(observation, *place)[1], nugget)
    exact, points = problem.exact(observation), problem.sensors(observation, mask)
    rows = points.dense((1, *exact.mean.shape[1:])).matrix
    variance = ((rows @ exact.covariance) * rows).sum(1).numpy()
    mean = (rows @ exact.mean.flatten()).numpy()
    found["grid"] = mean, np.sqrt(variance + observation["noise_std"].values[mask] ** 2)
    return y, found


def pooled(rows):
    y, mean = (np.concatenate([row[i] for row in rows]) for i in (0, 1))
    error = y - mean
    scores = {"n": len(y), "rmse": math.sqrt((error**2).mean())}
    if rows[0][2] is None:
        return scores | {"crps": np.abs(error).mean()}
    std = np.concatenate([row[2] for row in rows])
    crps = np.concatenate([row[3] for row in rows]) if len(rows[0]) > 3 else gaussian_crps(mean, std, y)
    scores |= {"crps": crps.mean(), "coverage": (np.abs(error) <= 1.6449 * std).mean()}
    return scores | {"spread/skill": math.sqrt((std**2).mean()) / scores["rmse"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    for name, default in (("every", 8), ("members", 32), ("sampled", 6), ("threads", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--spacing", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    problem = problems.get("stations", data=options.data, spacing=options.spacing, seed=options.seed)

    years = problem.network.sel(time=slice("1990", "1992"))
    test = problem.network.sel(time="1993").isel(time=slice(0, None, options.every))
    for smoothness in (0.5, 1.5):
        law = problem.law if smoothness == 0.5 else StationLaw.fit(years, smoothness)
        rows = zip(SEASONS, law.std, law.length, law.nugget, strict=True)
        fitted = "; ".join(f"{n} {s:.2f} K, {length:.0f} km, {e:.2f} K" for n, s, length, e in rows)
        value = law.log_likelihood(test)
        print(f"smoothness {smoothness}: {fitted}; log density per value of 1993: {value:.4f}")

    collected = {}
    days = range(0, len(problem.days()), options.every)
    sampled = set(list(days)[:: max(1, len(days) // options.sampled)][: options.sampled]) if options.sampled else set()
    seconds, gap = 0.0, []
    for index in days:
        observation = problem.case(index).observation
        y, found = predictions(problem, observation)
        for name, (mean, std) in found.items():
            collected.setdefault(name, []).append((y, mean, std))
        gap.append(np.square(found["grid"][0] - found["kriging"][0]).mean())
        if index not in sampled:
            continue
        begin = time.perf_counter()
        generator = Generator().manual_seed(options.seed + index)
        ensemble = posterior.get("mmps")(problem.posterior(observation), options.members, generator)
        seconds += time.perf_counter() - begin
        mask = withheld(problem, observation)[0]
        noise = observation["noise_std"].values[mask]
        at = problem.sensors(observation, mask)(ensemble.samples[:, 0].double())[:, 0].numpy()
        std = np.sqrt(at.var(0, ddof=1) * (1 + 1 / len(at)) + noise**2)
        row = (y, at.mean(0), std, mixture_crps(at, y, noise))
        collected.setdefault(f"mmps ({len(sampled)} days)", []).append(row)
        collected.setdefault(f"grid ({len(sampled)} days)", []).append((y, *found["grid"]))

    shape = tuple(map(len, problem.axes))
    print(f"{len(days)} days of 1993, grid {shape} at {options.spacing} degrees, {options.members} members, ", end="")
    print(f"seed {options.seed}, {options.threads} thread(s)")
    columns = ("n", "rmse", "crps", "coverage", "spread/skill")
    print(f"{'method':18s}" + "".join(f"{c:>14s}" for c in columns))
    for name, rows in collected.items():
        scores = pooled(rows)
        print(f"{name:18s}" + "".join(f"{scores[c]:14.3f}" if c in scores else " " * 14 for c in columns))
    print(f"grid and kriging differ by {math.sqrt(np.mean(gap)):.3f} K at withheld stations", end="")
    print(f"; mmps took {seconds / max(1, len(sampled)):.1f} s a day" if sampled else "")


if __name__ == "__main__":
    main()
