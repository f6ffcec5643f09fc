"""How fast is the flow map of Navier-Stokes, beside the usual second-order solver, in a batch, and with its gradient?

The same initial vorticity (standard deviation 5, Re 200, forcing -4 cos(4 y), T = 1) is solved in float32 by

- ``Heun``: pseudo-spectral, five transforms an evaluation, viscosity by Crank and Nicolson, Heun's method for the rest,
  with a step that follows the flow (``adaptive``, Courant number 0.1) or of 2e-3 (``fixed``);
- ``NavierStokes``, fourth order with an integrating factor: at its defaults, at other Courant numbers, and with a fixed
  number of the longest steps that it lets through.

Errors are relative L2 distances to a solution in float64 with 800 fourth-order steps. Seconds are those of one
processor, the shortest of ``--repeats`` runs.

    python benchmarks/navier_stokes_solver.py --side 128
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.operators.pde import NavierStokes
from scidiff.problems.navier_stokes import initial_law

REYNOLDS, FORCING, TIME = 200.0, 4, 1.0


def heun(w0: Tensor, courant: float | None = 0.1, fixed: float = 2e-3) -> tuple[Tensor, int]:
    """Vorticity (B, H, W) at T and the number of steps; the whole batch takes the step of its fastest flow."""
    n = w0.shape[-1]
    ky, kx = torch.fft.fftfreq(n, 1 / n)[:, None], torch.fft.rfftfreq(n, 1 / n)
    square = ky.square() + kx.square()
    inverse = torch.where(square > 0, 1 / square.clamp_min(1), 0.0)
    kept = (3 * ky.abs() < n) & (3 * kx.abs() < n)
    y = 2 * math.pi * torch.arange(n)[:, None] / n
    force = torch.fft.rfft2((-FORCING * torch.cos(FORCING * y)).expand(n, n))

    def back(series: Tensor) -> Tensor:
        return torch.fft.irfft2(series, s=(n, n))

    def change(w: Tensor) -> tuple[Tensor, float]:
        u, v = back(1j * ky * inverse * w), back(-1j * kx * inverse * w)
        advected = torch.fft.rfft2(u * back(1j * kx * w) + v * back(1j * ky * w))
        speed = 0.0 if courant is None else float((u.abs() + v.abs()).max())
        return kept * (force - advected), speed

    w, t, steps = torch.fft.rfft2(w0) * kept, 0.0, 0
    while t < TIME - 1e-9:
        k1, speed = change(w)
        dt = min(TIME - t, fixed if courant is None else courant * 2 * math.pi / n / speed)
        half = dt / 2 * square / REYNOLDS
        k2, _ = change(((1 - half) * w + dt * k1) / (1 + half))
        w = ((1 - half) * w + dt / 2 * (k1 + k2)) / (1 + half)
        t, steps = t + dt, steps + 1
    return back(w), steps


def solver(grid: tuple[int, int], options: dict[str, Any]) -> NavierStokes:
    """The flow map with these options."""
    return NavierStokes(grid, REYNOLDS, TIME, forcing=FORCING, **options)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The shortest of several runs, in time of the processor, which other programs disturb least."""
    best = math.inf
    for _ in range(repeats):
        begin = time.process_time()
        call()
        best = min(best, time.process_time() - begin)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    grid = (arguments.side,) * 2
    generator = torch.Generator().manual_seed(arguments.seed)
    x = initial_law(grid).cov.sample(generator, arguments.batch, torch.float64)
    one = x[:1].float()
    truth = NavierStokes(grid, REYNOLDS, TIME, 800, forcing=FORCING)(x[:1])[0, 0]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {grid[0]}x{grid[1]}, T = 1, Re 200, float32\n"
    )

    def error(z: Tensor) -> float:
        return float((z.double() - truth).norm() / truth.norm())

    print("| solver | steps | relative error | seconds | times faster than adaptive Heun |\n|---|---|---|---|---|")
    base = math.inf
    with torch.no_grad():
        for label, courant in (("Heun, adaptive", 0.1), ("Heun, fixed 2e-3", None)):
            found, steps = heun(one[:, 0], courant)
            took = seconds(lambda c=courant: heun(one[:, 0], c), max(1, arguments.repeats // 2))
            base = min(base, took) if courant is not None else base
            print(f"| {label} | {steps} | {error(found[0]):.1e} | {took:.3f} | {base / took:.1f} |", flush=True)
        equation = solver(grid, {}).equation(torch.float32)
        speed = float(equation.courant(equation.transform(one[:, 0]), TIME))
        options: list[dict[str, Any]] = [{}, *({"courant": c} for c in (0.4, 0.8))]
        options += [{"steps": math.ceil(speed / c)} for c in (1.4, 1.6)]
        alone = math.inf
        for option in options:
            flow = solver(grid, option)
            label = ", ".join(f"{name} {number}" for name, number in option.items()) or f"default ({flow.courant:g})"
            try:
                off = error(flow(one)[0, 0])
            except NumericalError as failure:  # the flow becomes faster than it was at time 0
                print(f"| NavierStokes, {label} | {failure} | | | |")
                continue
            took = seconds(lambda f=flow: f(one), arguments.repeats)
            print(f"| NavierStokes, {label} | | {off:.1e} | {took:.3f} | {base / took:.1f} |", flush=True)
            alone = alone if option else took
        flow, off = solver(grid, {}), []
        for field in x[:4]:
            fine = NavierStokes(grid, REYNOLDS, TIME, 800, forcing=FORCING)(field[None])
            off.append(float((flow(field[None].float()).double() - fine).norm() / fine.norm()))
        print("\nat the defaults:\nerrors of four fields: " + ", ".join(f"{v:.1e}" for v in off))
        for count in (2, 4, arguments.batch):
            batch = one.expand(count, -1, -1, -1).contiguous()
            took = seconds(lambda b=batch: flow(b), arguments.repeats)
            print(f"batch of {count}: {took:.3f} s, {took / count / alone:.2f} of the time of one field each")
    for segments, label in ((None, "default"), (1, "everything kept"), (8, "8 segments")):
        flow = solver(grid, {"segments": segments})

        def both(flow: NavierStokes = flow) -> None:
            leaf = one.clone().requires_grad_()
            torch.autograd.grad(flow(leaf).square().sum(), leaf)

        took = seconds(both, arguments.repeats)
        print(f"gradient, {label}: {took:.3f} s with the forward run, {took / alone:.2f} forward runs, "
              f"{took / alone - 1:.2f} without it")  # fmt: skip


if __name__ == "__main__":
    main()
