"""Trained forecasters of the stirred field against its exact law.

    python benchmarks/dyffusion_transport.py [NAME=PATH ...] [--cases 24] [--members 50] [--seed 99] [--threads 1]

Fair CRPS at every lead, divided by that of the exact law on the same forecasts (no forecast can do better on average),
and spread over error. Forecasts start at the first state of trajectories of another seed than those of the training;
member m of case k has its own stream.
"""

import argparse
from typing import Any

import torch

from scidiff.datasets import part_of, trajectories
from scidiff.datasets.stochastic_transport import law_of
from scidiff.forecast import load_forecaster
from scidiff.metrics import crps, spread_skill


def scored(model: Any, cases: int, members: int, seed: int) -> tuple[list[float], list[float]]:
    """CRPS over that of the exact law, and spread over error, at every lead of a forecaster with a ``spec``."""
    data = part_of(
        trajectories(
            "stochastic-transport",
            grid=model.spec.grid.shape,
            times=model.horizon + 1,
            train=1,
            validation=0,
            test=cases,
            seed=seed,
        ),
        "test",
    )
    law, x = law_of(data), torch.from_numpy(data["tracer"].values).double()
    state = model.spec.to_tensor(data)[:, :1]
    members = members if model.stochastic else 2
    drawn = torch.stack(
        [
            model.sample(
                state[k : k + 1].repeat_interleave(members, 0),
                generator=torch.Generator().manual_seed(1000 * seed + k),
            )
            for k in range(len(state))
        ],
        1,
    )
    drawn = model.spec.denormalise(drawn)[:, :, :, 0].double()  # (member, case, lead, y, x)
    ratios, spreads = [], []
    for lead in range(1, model.horizon + 1):
        ahead, truth = drawn[:, :, lead - 1], x[:, lead]
        ratios.append(float(crps(ahead, truth).mean() / law.crps(x[:, 0], truth, lead).mean()))
        spreads.append(float(spread_skill(ahead[:, None], truth[None])))
    return ratios, spreads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["noise=stochastic-transport"], metavar="NAME=PATH")
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.cases} cases, {arguments.members} members, seed {arguments.seed}, threads {arguments.threads}\n")
    print("| forecaster | CRPS / floor by lead | spread / error by lead | network calls |\n|---|---|---|---|")
    for entry in arguments.models:
        name, _, path = entry.rpartition("=")
        model = load_forecaster(path)
        ratios, spreads = scored(model, arguments.cases, arguments.members, arguments.seed)
        rows = (" ".join(f"{v:.3f}" for v in ratios), " ".join(f"{v:.2f}" for v in spreads))
        print(f"| {name or path} | {rows[0]} | {rows[1]} | {model.network_calls} |", flush=True)


if __name__ == "__main__":
    main()
