"""Every example runs on a small setting and its table makes sense."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scidiff.linalg import Stationary
from scidiff.priors import GaussianPrior

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested_here() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert not {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} - tested


def test_combine_instruments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("combine_instruments").main((8, 12), 6, 64, tmp_path / "instruments.safetensors")
    left = {name: row["spread left"] for name, row in table.items()}
    assert left["both"] < min(left["camera"], left["stations"]) < 1
    assert all(row["mean error"] < 2 / 64**0.5 for row in table.values())
    assert abs(table["stations"]["norm"] - 1) < 1e-6
    assert (tmp_path / "instruments.safetensors").is_file() and "spread left" in capsys.readouterr().out


def test_darcy_inverse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("darcy_inverse").main(12, 4, 8, 16, tmp_path / "figure.png")
    assert table["mmps"]["relative_l2"] < table["homogeneous"]["relative_l2"] and "enkg" in table
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "spread_skill" in capsys.readouterr().out


def test_black_hole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = load("black_hole").main(
        None, "generic", 2, 16, 5, tmp_path / "figure.png", shape=(32, 28), fov=128.0, systematic=0.05
    )
    assert scores["ncc_blurred"] > 0.8
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "chi2 phases" in capsys.readouterr().out


def test_latent_posterior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("latent_posterior")
    methods = {name: example.SAMPLERS[name] for name in ("resample", "psld")}
    table = example.main(64, methods, (5, 6), 8, 6, tmp_path / "figure.png")
    assert table["resample"]["mean error"] < 3 / 64**0.5 and 0.75 < table["resample"]["trace ratio"] < 1.25
    assert table["psld"]["decoder"] > 64
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "trace ratio" in capsys.readouterr().out


def test_exact_posterior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("exact_posterior").main(16, ("mmps",), (4, 6), tmp_path / "figure.png")
    assert table["mmps"]["mean_error"] < 4 / 16**0.5
    assert table["exact"]["mean_error"] < 4 / 16**0.5
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "trace_ratio" in capsys.readouterr().out


def test_deepinv_physics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("deepinv_physics").main((6, 8), 24, ("mmps",), tmp_path / "figure.png")
    assert table["mmps"]["mean_error"] < 2 / 24**0.5 and 0.7 < table["mmps"]["trace_ratio"] < 1.3
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "trace_ratio" in capsys.readouterr().out


def test_reconstruct_mri(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = (40, 32)
    ky, kx = torch.fft.fftfreq(shape[0])[:, None], torch.fft.fftfreq(shape[1])[None]
    spectrum = (1 + (ky.square() + kx.square()) / 0.03**2).pow(-1.4).double()
    spectrum = 0.3**2 * spectrum / spectrum.mean()
    prior = GaussianPrior(torch.zeros(1, *shape, dtype=torch.complex64), Stationary(spectrum.repeat(2, 1, 1), dims=2))
    scores = load("reconstruct_mri").main(
        2, prior, tmp_path / "figure.png", acceleration=2, calibration=0.3, shape=shape, coils=4, noise=0.02, map_sets=1
    )
    assert scores["psnr"] > scores["psnr_zero_filled"]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "PSNR" in capsys.readouterr().out


def test_deblur_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = (32 + 4, 40 + 4)
    ky, kx = torch.fft.fftfreq(shape[0])[:, None], torch.fft.fftfreq(shape[1])[None]
    spectrum = (ky.square() + kx.square() + 0.02**2).double() ** -1.5
    prior = GaussianPrior(torch.full((1, *shape), 0.5), Stationary(0.1**2 * spectrum[None] / spectrum.mean(), dims=2))
    scores = load("deblur_photograph").main(3, prior, tmp_path / "figure.png", width=5, shape=(32, 40))
    assert scores["psnr"] > scores["psnr_richardson_lucy"] and 0.8 < scores["chi2"] < 1.2
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "richardson lucy" in capsys.readouterr().out


def test_sparse_view_ct(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    k = torch.fft.fftfreq(32)
    spectrum = (1 + (k[:, None].square() + k.square()) / 0.05**2).pow(-1.6).double()
    spectrum = 0.01**2 * spectrum / spectrum.mean()
    prior = GaussianPrior(torch.full((1, 32, 32), 0.01), Stationary(spectrum, dims=2))
    scores = load("sparse_view_ct").main(8, prior, tmp_path / "figure.png", views=4, size=32, pixel=4.0)
    assert scores["psnr"] > scores["psnr_fbp"]
    assert "SIRT" in capsys.readouterr().out


def test_prior_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = load("prior_samples").main(shape=(32, 24), members=2, steps=8, output=tmp_path / "figure.png")
    assert samples.shape == (2, 1, 1, 32, 24)
    assert (
        0.05 < samples.abs().square().mean().sqrt() < 2
    )  # intensities about 1, whatever the anatomy of so small a grid
    assert "8 network calls" in capsys.readouterr().out


def test_phase_retrieval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = (16, 20)
    cov = Stationary.power_law(shape, exponent=4.0, cutoff=1.0, variance=0.04, channels=1)
    prior = GaussianPrior(torch.full((1, *shape), 0.5), cov)
    counts = load("phase_retrieval").main(2, prior, "prior", shape, 40, tmp_path / "figure.png")
    assert set(counts) == {"error reduction", "hybrid input-output", "DPS"}
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "median misfit" in capsys.readouterr().out


def test_navier_stokes_initial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main, physics = load("navier_stokes_initial").main, {"time": 0.5, "forcing": 2, "std": 1.5, "noise": 0.3}
    table = main((16, 20), 2, 24, 25, 5, tmp_path / "figure.png", iterations=5, model_error=0.1, **physics)
    assert table["DPS, gradient"]["error"] < 0.8 * table["no_dynamics"]["error"]
    assert table["EnKG, black box"]["error"] < table["no_dynamics"]["error"]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "coverage 90 %" in capsys.readouterr().out


def test_widefield_beads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Simulated spheres here; the stack of a real bead is read where it is at hand, by tests/problems."""
    example = load("widefield_beads")
    ratio = example.main(tmp_path, (), (2, 2, 2), 2, 4, tmp_path / "figure.png", shape=(6, 10, 12))
    assert ratio >= 1 and (tmp_path / "figure.png").stat().st_size > 10_000
    assert "Richardson-Lucy" in capsys.readouterr().out


def test_which_sampler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With several modes left a heuristic fails and Monte Carlo does not; with one mode both are right."""
    example, figure = load("which_sampler"), tmp_path / "figure.png"
    table = example.main(("mmps", "mcgdiff"), members=128, output=figure)
    assert not example.trusted(table["mmps"]) and example.trusted(table["mcgdiff"])
    assert figure.stat().st_size > 5_000
    assert "can be trusted here: mcgdiff" in capsys.readouterr().out

    table = example.main(("mmps",), *example.ONE_MODE, members=128, output=figure)
    assert example.trusted(table["mmps"])


def test_assimilate_lorenz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("assimilate_lorenz").main(17, 4, 256, 4, 6, tmp_path / "figure.png")
    assert table["particle smoother"]["w1"] < table["SDA"]["w1"]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "particle smoother" in capsys.readouterr().out


def test_forecast_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("forecast_scores").main((10, 12), 120, 24, 3, 10, tmp_path / "figure.png")
    assert all(abs(ratio - 1) < 0.1 and abs(skill - 1) < 0.1 for ratio, skill in table["exact law"].values())
    assert table["linear inverse model"][2][0] < table["damped persistence"][2][0]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "damped persistence" in capsys.readouterr().out


def test_station_temperature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a simulated network: samples are as good as kriging at hidden stations, and better than climatology."""
    table = load("station_temperature").main(tmp_path / "none.npz", 3, 16, 4.0, tmp_path / "figure.png")
    assert table["samples"]["crps"] < 1.15 * table["kriging"]["crps"] < table["climatology"]["crps"]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "a simulated network" in capsys.readouterr().out


def test_burgers_sensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("burgers_sensors").main(6, 16, 4, 4, 6, tmp_path / "figure.png")
    errors = {name: row["plane_relative_l2"] for name, row in table.items()}
    assert max(errors["posterior"], errors["most probable"]) < 0.7 * errors["prior"]
    assert "coverage_90" in capsys.readouterr().out


def test_what_codes_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = load("what_codes_keep").main(trajectories=2, times=(2.0, 2.0), output=tmp_path / "figure.png")
    assert sum(row["share"] for row in rows) == pytest.approx(1.0, abs=1e-6)
    assert rows[0]["code"] < 0.1 and rows[1]["coarse grid"] < 1e-4 and rows[4]["coarse grid"] > 0.3
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "coarse grid" in capsys.readouterr().out


def test_exact_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("exact_forecast").main((4, 6), 24, 24, 4, 12, tmp_path / "figure.png")
    assert all(abs(ratio - 1) < 0.1 for ratio in table["exact law"]["crps"])
    assert all(a > b for a, b in zip(table["persistence"]["crps"], table["linear model"]["crps"], strict=True))
    assert table["linear model"]["crps"][0] < 1.15 and table["persistence"]["spread_skill"][-1] == 0
    assert "spread/skill" in capsys.readouterr().out


def test_forecast_ensemble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load("forecast_ensemble").main("stochastic-transport", 6, 10, 5, tmp_path / "figure.png")
    assert all(0.95 < row["crps"] / row["floor"] < 1.15 and row["crps"] < row["persistence"] for row in table)
    assert all(0.85 < row["spread_skill"] < 1.2 for row in table)
    assert "x floor" in capsys.readouterr().out
