"""What does the algebra cost: a call of A @ B, A + B, c * A beside the same arithmetic written by hand?

Microseconds added per call are measured with parts that do nothing, so that only bookkeeping is left: the least of
many repeats, which other processes disturb least. The ratio is that of processor times of blur and mask on 256 x 256
numbers: a hidden copy would show there. One process, one thread, the two sides take turns.

    python benchmarks/operator_algebra.py
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from scidiff.operators import Convolution, Mask
from scidiff.operators.algebra import Algebra

GRID = (256, 256)
CALLS, REPEATS = 200, 200

Pair = tuple[Callable[[], object], Callable[[], object]]


class Nothing(Algebra):
    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y


def pairs(A: Algebra, B: Algebra, C: Algebra, x: Tensor) -> dict[str, Pair]:
    """Name -> (with the algebra, by hand), for linear A, B and C, where A @ B and B + C make sense."""
    a, b, c = A, B, C
    chain, total, double, back = A @ B, B + C, 2.0 * B, (A @ B).H
    y = chain(x)
    return {
        "A @ B": (lambda: chain(x), lambda: a(b(x))),
        "(A @ B).adjoint": (lambda: chain.adjoint(y), lambda: b.adjoint(a.adjoint(y))),  # type: ignore[attr-defined]
        "(A @ B).H": (lambda: back(y), lambda: b.adjoint(a.adjoint(y))),  # type: ignore[attr-defined]
        "(A @ B).normal": (lambda: chain.normal(x), lambda: b.adjoint(a.adjoint(a(b(x))))),  # type: ignore[attr-defined]
        "B + C": (lambda: total(x), lambda: b(x) + c(x)),
        "c * B": (lambda: double(x), lambda: 2.0 * b(x)),
    }


def times(pair: Pair, calls: int, repeats: int) -> list[tuple[float, float]]:
    """Processor seconds per call of both, ``repeats`` times in turns."""
    found = []
    for _ in range(repeats):
        both = []
        for function in pair:
            start = time.process_time()
            for _ in range(calls):
                function()
            both.append((time.process_time() - start) / calls)
        found.append((both[0], both[1]))
    return found


def main() -> dict[str, tuple[float, float]]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    blur, other = (Convolution(torch.rand(3, 5, generator=generator), GRID) for _ in range(2))
    mask = Mask(torch.rand(GRID, generator=generator) > 0.5)
    empty = pairs(Nothing(), Nothing(), Nothing(), torch.zeros(1, 1))
    full = pairs(mask, blur, other, torch.randn(1, 1, *GRID, generator=generator))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread, seed 0")
    print(f"{'':18}{'added us per call':>18}{f'ratio at {GRID}':>24}")
    table = {}
    with torch.no_grad():
        for name in empty:
            least = [min(side) for side in zip(*times(empty[name], CALLS, REPEATS), strict=True)]
            ratio = statistics.median(a / b for a, b in times(full[name], 4, REPEATS // 4))
            table[name] = (1e6 * (least[0] - least[1]), ratio)
            print(f"{name:18}{table[name][0]:18.2f}{table[name][1]:24.3f}")
    return table


if __name__ == "__main__":
    main()
