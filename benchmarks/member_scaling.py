"""Strong scaling of one ensemble over processes: the same members, drawn by 1, 2, ... processes of one thread each.

Every run is `scidiff reconstruct` on the same simulated photograph, started by `torchrun` when there are several
processes. Measured is the member loop: from the moment the run has begun until the last batch of the slowest process is
kept, as the run's log.jsonl says; imports and the writing of the result are not in it. Members must be equal.

    python benchmarks/member_scaling.py                       # 1 and 2 processes, a minute or two
    python benchmarks/member_scaling.py --processes 1 2 4 --members 32
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from scidiff import problems
from scidiff.fields import open_result, write_dataset


def run(folder: Path, source: Path, processes: int, arguments: argparse.Namespace) -> float:
    """Seconds of the member loop."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "scidiff", "reconstruct", "deblurring", str(source)]
    options = ["--members", arguments.members, "--batch", arguments.batch, "--steps", arguments.steps, "--seed", 0]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    subprocess.run(
        [*command, *map(str, options), "--progress", "none", "--out", str(folder)],
        check=True,
        capture_output=True,
        env={**os.environ, **threads},
    )
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return max(line["seconds"] for line in lines if line["event"] == "batch")


def main() -> None:
    """Runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_dataset(problems.get("deblurring", shape=(64, 64)).case(0).observation, folder / "seen.nc")
        print(f"{arguments.members} members, {arguments.batch} a batch; one thread a process, {os.cpu_count()} cores")
        print("| processes | member loop s | speed-up | members equal |\n|---:|---:|---:|---|")
        first, fields = None, None
        for processes in arguments.processes:
            seconds = []
            for repeat in range(arguments.repeats):
                out = folder / f"{processes}-{repeat}"
                seconds.append(run(out, folder / "seen.nc", processes, arguments))
            best = min(seconds)
            with open_result(out / "result.nc") as result:
                found = np.asarray(result["image"].values) if "image" in result else None
            first, fields = first or best, found if fields is None else fields
            same = "-" if found is None else "yes" if np.array_equal(found, fields) else "NO"
            print(f"| {processes} | {best:.1f} | {first / best:.2f} | {same} |", flush=True)


if __name__ == "__main__":
    main()
