"""How often is a field found from its Fourier modulus? Starts that succeed, for samplers and for projections in turn.

Every method sees the same pattern of the same field. A start succeeds if its PSNR after alignment (sign, place,
rotation by 180 degrees) is at least that of `scidiff.problems.phase_retrieval.SUCCESS`. The misfit is the relative
difference of amplitudes, beside that of the truth.

    python benchmarks/phase_retrieval.py --prior rings --source rings --starts 20
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Generator, Tensor

from scidiff import posterior as samplers
from scidiff.problems.base import stream
from scidiff.problems.imaging import tensor
from scidiff.problems.phase_baselines import alternating_projections, amplitude_flow, misfit
from scidiff.problems.phase_retrieval import SUCCESS, PhaseRetrieval

METHODS = ("dps", "daps", "hio", "error_reduction")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="rings")
    parser.add_argument("--source", default="rings", choices=("rings", "picture", "prior"))
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--masks", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--case", type=int, default=0)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="sampler[:key=value,...], hio, error_reduction")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    problem = PhaseRetrieval(
        (arguments.side, arguments.side),
        arguments.masks,
        noise=arguments.noise,
        source=arguments.source,
        prior=arguments.prior,
    )
    case = problem.case(arguments.case)
    observation, truth = problem.read(case.observation), tensor(case.truth["image"])[None, None]
    operator, y = problem.operator(observation), problem.measurement(observation)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s); {arguments.side}x{arguments.side}, "
        f"{arguments.masks or 'no'} masks, noise {arguments.noise} of the rms amplitude, {arguments.source} case "
        f"{arguments.case}, prior {arguments.prior}, {arguments.starts} starts, seed {arguments.seed}; success from "
        f"{SUCCESS:g} dB; misfit of the truth {float(misfit(operator, truth, y)):.4f}\n"
    )
    print("| method | successes | median PSNR | best PSNR | PSNR of least misfit | median misfit | seconds a start |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for method in arguments.methods:
        begin = time.perf_counter()
        fields = draw(problem, observation, operator, y, method, arguments)
        seconds = (time.perf_counter() - begin) / len(fields)
        each = problem.member_psnr(fields[:, None], truth)
        wrong = misfit(operator, fields, y)
        numbers = float(each.median()), float(each.max()), float(each[wrong.argmin()])
        row = [method, f"{int((each >= SUCCESS).sum())} of {len(fields)}", *(f"{v:.1f}" for v in numbers)]
        print("| " + " | ".join([*row, f"{float(wrong.median()):.4f}", f"{seconds:.1f}"]) + " |", flush=True)


def draw(problem: PhaseRetrieval, observation, operator, y: Tensor, method: str, arguments) -> Tensor:
    """Fields (starts, 1, H, W)."""
    name, _, settings = method.partition(":")
    if name in ("hio", "error_reduction"):
        if problem.masks:
            flows = [amplitude_flow(operator, y, real=True, positive=True, generator=stream("s", i)) for i in range(1)]
            return torch.cat([flow.fields for flow in flows])
        hybrid, generator = 400 if name == "hio" else 0, stream("starts", arguments.seed)
        return alternating_projections(operator, y, arguments.starts, hybrid, positive=True, generator=generator).fields
    options = {}
    for pair in filter(None, settings.split(",")):
        key, _, value = pair.partition("=")
        options[key] = int(value) if value.isdigit() else float(value) if value[0].isdigit() else value
    sampler = samplers.get(name, **options)
    generator = Generator().manual_seed(arguments.seed)
    with_prior = problem.posterior(observation)
    return sampler(with_prior, members=arguments.starts, generator=generator, batch_size=4).samples[:, 0].detach()


if __name__ == "__main__":
    main()
