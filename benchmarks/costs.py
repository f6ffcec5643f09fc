"""What does one call of every operator, problem, posterior sampler and integrator cost?

    python benchmarks/costs.py                    # all four tables of docs/costs.md, about two minutes
    python benchmarks/costs.py operators problems # some of them

Operators and problems: processor time of one field in float32, on one thread, median of several calls; a gradient is
one forward call and one vector-Jacobian product. Times of less than 0.1 ms are those of Python. Samplers: calls per
member at the defaults, on the 8x8 inpainting problem of the certificate (for what needs an autoencoder: its linear
one). Integrators: calls of the denoiser for ``steps=20``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Generator, Tensor

REPEATS = 5
SIDE = (96, 80)


def clock(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Processor time of a call in ms, median; the first call is not counted."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return 1e3 * sorted(times)[len(times) // 2]


def gradient(operator: Any, x: Tensor) -> float | None:
    """Processor time of a forward call and a product, ms; None where there is no gradient."""
    if getattr(operator, "differentiable", True) is False:
        return None

    def call() -> None:
        leaf = x.detach().requires_grad_()
        z = operator(leaf)
        torch.autograd.grad((z.real if z.is_complex() else z).sum(), leaf)

    return clock(call)


def instances() -> dict[str, tuple[Callable[[], Any], tuple[int, ...]]]:
    """Every operator at a usual size, and the shape of its field."""
    from scidiff import operators as o
    from scidiff.operators import interferometry as i

    g, (h, w) = Generator().manual_seed(0), SIDE
    seen = torch.rand(SIDE, generator=g) > 0.5
    kernel = torch.outer(torch.hann_window(9), torch.hann_window(9))
    even = torch.outer(torch.hann_window(9, periodic=False), torch.hann_window(9, periodic=False))
    angles = [2.0 * k for k in range(90)]
    places = (h * torch.rand(200, generator=g), w * torch.rand(200, generator=g))
    axes = ([float(k) for k in range(h + 1)], [float(k) for k in range(w + 1)])
    globe = ([90 - 180 * (k + 0.5) / h for k in range(h)], [360 * k / w for k in range(w)])
    where = ([80 - 160 * k / 200 for k in range(200)], [1.7 * k for k in range(200)])
    stations = torch.tensor([[a, b] for a in range(8) for b in range(a + 1, 8)])
    uv, zero = 4e9 * torch.randn(len(stations), 2, generator=g), torch.zeros(len(stations), dtype=torch.int64)
    maps = torch.randn(8, *SIDE, generator=g, dtype=torch.complex64)

    def sky() -> Any:
        return i.Visibilities(uv, (64, 60), 1e-11)

    def beam() -> Any:
        return o.ParallelBeam(SIDE, angles, pixel=0.01, truncation="ignore")

    one, two = (1, *SIDE), (2, *SIDE)
    return {
        "AdvectionDiffusion": (lambda: o.AdvectionDiffusion(SIDE, 0.01, (0.3, -1.2), 0.5), one),
        "AllenCahn": (lambda: o.AllenCahn(SIDE, 1e-2, 2.0, 0.1), one),
        "Background": (lambda: o.Background(o.Convolution(kernel, SIDE), 0.3), one),
        "BlackBox": (lambda: o.BlackBox(abs), one),
        "Burgers": (lambda: o.Burgers((128,), 0.05, 0.5), (1, 128)),
        "CartesianMRI": (lambda: o.CartesianMRI(maps, seen), one),
        "Clipped": (lambda: o.Clipped(-1.0, 1.0), one),
        "ClosurePhases": (lambda: i.ClosurePhases(sky(), i.triangles(stations, zero)), (1, 64, 60)),
        "CodedDiffraction": (lambda: o.CodedDiffraction(maps[:3]), one),
        "Convolution": (lambda: o.Convolution(kernel, SIDE), one),
        "Darcy": (lambda: o.Darcy((64, 60)), (1, 64, 60)),
        "Downsampling": (lambda: o.Downsampling(4, SIDE), one),
        "Exceeds": (lambda: o.Exceeds(0.3), one),
        "FanBeam": (lambda: o.FanBeam(SIDE, angles, source_distance=200.0, detector_distance=100.0), one),
        "Footprints": (lambda: o.Footprints(axes, places, _gaussian(2.0)), (1, h + 1, w + 1)),
        "FourierMagnitude": (lambda: o.FourierMagnitude(SIDE, 2.0), one),
        "Frozen": (lambda: o.Frozen(o.Convolution(kernel, SIDE)), one),
        "GrayScott": (lambda: o.GrayScott(SIDE, times=10.0), two),
        "Heat": (lambda: o.Heat(SIDE, 0.02, 0.3), one),
        "Helmholtz": (lambda: o.Helmholtz(SIDE, 2.0), one),
        "Identity": (lambda: o.Identity(), one),
        "JPEG": (lambda: o.JPEG(50, 100.0), one),
        "KuramotoSivashinsky": (lambda: o.KuramotoSivashinsky(128, 22.0, 1.0), (1, 128)),
        "LatLonFootprints": (lambda: o.LatLonFootprints(*globe, *where, _disc(800.0)), one),
        "LatLonPoints": (lambda: o.LatLonPoints(*globe, *where), one),
        "Linear": (lambda: o.Linear(lambda x: x[..., 1:] - x[..., :-1], one), one),
        "LinearMap": (lambda: o.LinearMap(torch.randn(200, h * w, generator=g), one), one),
        "LogClosureAmplitudes": (lambda: i.LogClosureAmplitudes(sky(), i.quadrangles(stations, zero)), (1, 64, 60)),
        "Lorenz63": (lambda: o.Lorenz63(0.5), (3,)),
        "Lorenz96": (lambda: o.Lorenz96(40, 0.5), (40,)),
        "Mask": (lambda: o.Mask(seen), one),
        "NavierStokes": (lambda: o.NavierStokes((64, 60), reynolds=200.0, times=1.0), (1, 64, 60)),
        "OverTime": (lambda: o.OverTime(o.Mask(seen), 8), (8, *SIDE)),
        "ParallelBeam": (beam, one),
        "Points": (lambda: o.Points(axes, places), (1, h + 1, w + 1)),
        "Poisson": (lambda: o.Poisson(SIDE), one),
        "ReactionDiffusion": (lambda: o.ReactionDiffusion(SIDE, (0.1,), torch.sin, 50.0, 0.3), one),
        "RealField": (lambda: o.RealField(o.CartesianMRI(maps, seen)), one),
        "ReflectiveConvolution": (lambda: o.ReflectiveConvolution(even, SIDE), one),
        "RegionMeans": (lambda: o.RegionMeans((torch.arange(h)[:, None] // 8).expand(h, w).contiguous()), one),
        "Saturating": (lambda: o.Saturating(2.0), one),
        "ShallowWater": (lambda: o.ShallowWater((64, 60), 100.0, times=0.1), (3, 64, 60)),
        "Speed": (lambda: o.Speed(), two),
        "Squared": (lambda: o.Squared(), one),
        "Stack": (lambda: o.stack([o.Convolution(kernel, SIDE), o.Mask(seen)], one), one),
        "StationGains": (lambda: i.StationGains(torch.ones(8, dtype=torch.complex64), stations), (len(stations),)),
        "StationSeries": (lambda: o.StationSeries(o.Points(axes, places), _some(8, 200)), (8, h + 1, w + 1)),
        "Subprocess": (
            lambda: o.Subprocess([sys.executable, "-c", "import shutil, sys; shutil.copy(*sys.argv[1:])", *_FILES]),
            one,
        ),
        "Subsampling": (lambda: o.Subsampling(4, SIDE), one),
        "TotalFlux": (lambda: i.TotalFlux(SIDE), one),
        "Transmission": (lambda: o.Transmission(1000.0, 0.0, beam()), one),
        "ValidConvolution": (lambda: o.ValidConvolution(kernel, SIDE), one),
        "VariableWave": (lambda: o.VariableWave(1 + seen.float(), 0.1), two),
        "Visibilities": (sky, (1, 64, 60)),
        "VisibilityAmplitudes": (lambda: i.VisibilityAmplitudes(sky()), (1, 64, 60)),
        "Wave": (lambda: o.Wave(SIDE, 0.7, 0.3), two),
        "WidefieldBlur": (lambda: o.WidefieldBlur(kernel, (88, 72), 4), one),
        "ZeroConvolution": (lambda: o.ZeroConvolution(kernel, SIDE), one),
    }


_FILES = ("{input}", "{output}")


def _gaussian(width: float) -> Any:
    from scidiff.operators.sensors import GaussianFootprint

    return GaussianFootprint(width)


def _disc(radius: float) -> Any:
    from scidiff.operators.sensors import DiscFootprint

    return DiscFootprint(radius)


def _some(*shape: int) -> Tensor:
    return torch.rand(shape, generator=Generator().manual_seed(3)) > 0.2


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def operators() -> None:
    """A line per operator."""
    print("\n## Operators\n\n| operator | field | forward, ms | gradient, ms |\n|---|---|---:|---:|")
    for name, (make, shape) in instances().items():
        operator = make()
        complex_ = name in ("CartesianMRI", "StationGains", "CodedDiffraction")
        x = torch.rand(1, *shape, generator=Generator().manual_seed(1)) + 0.1
        x = x.to(torch.complex64) if complex_ else x
        with torch.no_grad():
            forward = clock(lambda o=operator, x=x: o(x))
        size = " x ".join(map(str, shape))
        print(f"| `{name}` | {size} | {_ms(forward)} | {_ms(gradient(operator, x))} |", flush=True)


def problems() -> None:
    """A line per problem."""
    from scidiff.problems import get, names

    print("\n## Problems\n\n| problem | state | data | denoiser, ms | operator, ms | gradient, ms |")
    print("|---|---|---:|---:|---:|---:|")
    for name in names():
        problem = get(name)
        posterior = problem.posterior(problem.case(0).observation)
        u = torch.randn(1, *posterior.shape, generator=Generator().manual_seed(0), dtype=posterior.dtype)
        numbers = sum(part.y.numel() * (1 + part.y.is_complex()) for part in posterior.likelihoods)
        with torch.no_grad():
            x = posterior.prior.decode(u)
            denoise = clock(lambda p=posterior, u=u: p.prior.denoise(u, torch.ones((), dtype=u.real.dtype)), 3)
            forward = clock(lambda p=posterior, x=x: [part.operator(x) for part in p.likelihoods], 3)
        slopes = [gradient(part.operator, x) for part in posterior.likelihoods]
        slope = None if any(s is None for s in slopes) else sum(s or 0.0 for s in slopes)
        size = " x ".join(map(str, u.shape[1:]))
        print(
            f"| `{name}` | {size} | {numbers} | {_ms(denoise)} | {_ms(forward)} | {_ms(slope)} |",
            flush=True,
        )


def samplers() -> None:
    """Calls per member of every posterior sampler at its defaults."""
    from scidiff.benchmark.catalogue import PROBLEMS
    from scidiff.posterior import get, names

    print("\n## Posterior samplers\n\n| sampler | problem | denoiser | vjp | operator | op. vjp |")
    print("|---|---|---:|---:|---:|---:|")
    for name in names():
        for problem in ("inpainting", "linear-latent"):
            method, posterior = get(name), PROBLEMS[problem].build(seed=0).posterior
            try:  # particles are computed together: as many members share their cost
                ensemble = method(posterior, getattr(method, "particles", 2), Generator().manual_seed(0))
            except TypeError:
                continue
            cost = ensemble.cost
            calls = (cost.denoiser, cost.denoiser_vjp, cost.operator, cost.operator_vjp)
            print(f"| `{name}` | {problem} | {' | '.join(map(str, calls))} |", flush=True)
            break


def integrators() -> None:
    """Denoiser calls of the integrators."""
    from scidiff import samplers as s
    from scidiff.benchmark.catalogue import PROBLEMS

    prior = PROBLEMS["inpainting"].build(seed=0).posterior.prior
    print("\n## Integrators\n\n| integrator | denoiser calls for `steps=20` |\n|---|---:|")
    for name in s.__all__:
        if name == "Sampler":
            continue
        kind: Any = getattr(s, name)
        method = kind(s.Euler(20)) if name == "PredictorCorrector" else kind(20)
        ensemble = method(prior, members=1, generator=Generator().manual_seed(0))
        print(f"| `{name}` | {ensemble.cost.denoiser} |", flush=True)


TABLES = {"operators": operators, "problems": problems, "samplers": samplers, "integrators": integrators}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=list(TABLES))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__.partition('+')[0]}, {torch.get_num_threads()} thread")
    for name in parser.parse_args().tables:
        TABLES[name]()


if __name__ == "__main__":
    main()
