"""What DYffusion costs beyond its networks, and what one call of twice the rows saves over two calls.

    python benchmarks/dyffusion_speed.py [--rows 8] [--side 32] [--repeat 15] [--threads 1]

Both ratios are of processor time in this process, medians over rounds in which the candidates take turns. "bare" is
the same network calls in the same order on ready inputs, the interpolator's in pairs; masks are drawn in both. Rows are
members. The last line is the fastest forecast of all rounds by the clock on the wall, which other work makes
slower: compare it between --threads 1 and 2.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from scidiff.forecast import DYffusion, Interpolator, Predictor
from scidiff.forecast.draws import Twice
from scidiff.nn import TimeUNet
from scidiff.rng import Streams

HORIZON = 6


def clock(task: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall seconds."""
    start, wall = time.process_time(), time.perf_counter()
    task()
    return time.process_time() - start, time.perf_counter() - wall


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rows", 8), ("side", 32), ("repeat", 15), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        inside = TimeUNet(2, 1, width=(32, 64), horizon=HORIZON, dropout=0.15).eval()
        ahead = TimeUNet(1, 1, width=(32, 64), horizon=HORIZON).eval()
    model = DYffusion(Predictor(ahead), Interpolator(inside, HORIZON))
    one = torch.randn(a.rows, 1, a.side, a.side, generator=torch.Generator().manual_seed(1))
    two, time_of = torch.cat([one, one], 1), one.new_ones(a.rows)
    four, time_of_both = torch.cat([two, two]), one.new_ones(2 * a.rows)

    def sample() -> None:
        model.sample(one[:, None], generator=Streams(0, range(a.rows)))

    def bare() -> None:
        streams = Streams(0, range(a.rows))
        ahead(one, time_of)
        inside(two, time_of, streams)
        for _ in range(HORIZON - 2):
            ahead(one, time_of)
            inside(four, time_of_both, Twice(streams))
        ahead(one, time_of)

    def apart() -> None:
        streams = Streams(0, range(a.rows))
        for _ in range(2 * HORIZON):
            inside(two, time_of, streams)

    def paired() -> None:
        streams = Streams(0, range(a.rows))
        for _ in range(HORIZON):
            inside(four, time_of_both, Twice(streams))

    tasks = (sample, bare, apart, paired)
    for task in tasks:
        task()
    rounds = [[clock(task) for task in tasks] for _ in range(a.repeat)]
    print(f"rows {a.rows}, side {a.side}, h {HORIZON}, {model.network_calls} calls a row, threads {a.threads}")
    print(f"forecast / bare network calls       {statistics.median(r[0][0] / r[1][0] for r in rounds):.3f}")
    print(f"two interpolations apart / together {statistics.median(r[2][0] / r[3][0] for r in rounds):.3f}")
    print(f"fastest forecast, wall              {1000 * min(r[0][1] for r in rounds):.1f} ms")


if __name__ == "__main__":
    main()
