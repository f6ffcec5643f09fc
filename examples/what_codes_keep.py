"""Which scales of a flow survive the way to a code and back?

A latent prior can only draw what its autoencoder decodes. This compares, band by band of wavenumber, turbulent
vorticity with what is left of it behind a learned code, and behind a coarser grid with as many numbers as the code (the
Fourier coefficients of the larger scales, which is the best that a linear map can do for fields that look alike
everywhere).
"""

from pathlib import Path

import torch

from scidiff.datasets.vorticity import VorticityFields
from scidiff.metrics import band_errors
from scidiff.metrics.bands import BANDS
from scidiff.priors import load_autoencoder

AUTOENCODER = "vorticity-autoencoder"  # a bundled one or a .safetensors file
TRAJECTORIES = 4
TIMES = (20.0, 28.0)  # of the first and the last snapshot; other initial fields than those of the training
SEED = 1000
OUTPUT = Path("runs/what_codes_keep.png")


def coarsened(x: torch.Tensor, numbers: int) -> torch.Tensor:
    """The field (B, C, H, W) without its small scales: about ``numbers`` real numbers a field are kept."""
    height, width = x.shape[-2:]
    ky, kx = (torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    radius = torch.hypot(ky[:, None], kx[None])
    kept = radius <= radius.flatten().sort().values[numbers - 1]  # as many coefficients as real numbers
    return torch.fft.ifft2(torch.fft.fft2(x) * kept).real


def main(
    autoencoder: str = AUTOENCODER,
    trajectories: int = TRAJECTORIES,
    times: tuple[float, float] = TIMES,
    output: Path = OUTPUT,
) -> list[dict[str, float]]:
    pair = load_autoencoder(autoencoder)
    flow = VorticityFields(trajectories=trajectories, start=times[0], stop=times[1], every=2.0, seed=SEED)
    x = flow.snapshots[:, None] * flow.scale
    z = pair.encode(x)
    versions = {"code": pair.decode(z), "coarse grid": coarsened(x, z[0].numel())}

    errors = {name: band_errors(x, y, periodic=True) for name, y in versions.items()}
    shares = errors["code"][1]
    rows = []
    print(f"{len(x)} fields of {x[0].numel()} numbers, codes of {z[0].numel()}")
    print("relative error by wavenumber (1 is Nyquist's)")
    print(f"{'band':>15}  {'variance':>9}  {'code':>8}  {'coarse grid':>11}")
    for i, (low, high) in enumerate(zip(BANDS, BANDS[1:], strict=False)):
        if shares[i] < 1e-7:
            continue  # the solver leaves the corners of the Fourier grid empty
        row = {"share": float(shares[i]), **{name: float(e[0][i]) for name, e in errors.items()}}
        rows.append(row)
        print(f"{low:6.3f} to {high:5.3f}  {row['share']:9.2e}  {row['code']:8.4f}  {row['coarse grid']:11.4f}")
    total = {name: sum(row["share"] * row[name] ** 2 for row in rows) ** 0.5 for name in versions}
    print(f"{'all':>14}  {1.0:9.2e}  {total['code']:8.4f}  {total['coarse grid']:11.4f}")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    limit = float(x[0].abs().max())
    panels = figure.subplots(2, 3)
    for axes, (name, y) in zip(panels[0], {"field": x, **versions}.items(), strict=True):
        axes.imshow(y[0, 0].numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(name)
    for axes, (name, y) in zip(panels[1, 1:], versions.items(), strict=True):
        axes.imshow((y - x)[0, 0].numpy(), cmap="RdBu_r", vmin=-limit / 10, vmax=limit / 10)
        axes.set_title(f"error of the {name}, 10 x")
    for axes in [*panels[0], *panels[1, 1:]]:
        axes.set_axis_off()
    for name in versions:
        panels[1, 0].semilogy([row[name] for row in rows], "o-", label=name)
    panels[1, 0].set(xlabel="band, coarse to fine", ylabel="relative error")
    panels[1, 0].legend()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=80)
    print(output)
    return rows


if __name__ == "__main__":
    main()
