"""Closures do not care for gains and shifts, simulated data fit their truth, and members are scored after alignment."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr

import scidiff
from scidiff import posterior, problems
from scidiff.datasets.compact_sources import ring_profile
from scidiff.datasets.interferometry import flag, write_visibilities
from scidiff.errors import InputError
from scidiff.inference import Ensemble
from scidiff.operators.interferometry.likelihoods import chi2
from scidiff.problems import BlackHoleImaging
from scidiff.problems import black_hole_scores as scoring
from scidiff.problems.black_hole_observation import prepare, trivial_closures, visibility_data
from scidiff.problems.positive import generic_sky

SHAPE = (32, 28)


@pytest.fixture(scope="module")
def problem() -> BlackHoleImaging:
    return problems.get("black-hole", prior="generic", shape=SHAPE, fov=128.0, source="crescent", systematic=0.0)


@pytest.fixture(scope="module")
def case(problem):
    return problem.case(1)


def misfits(problem, observation, image) -> dict[str, float]:
    x = torch.as_tensor(np.asarray(image), dtype=torch.float32).reshape(1, 1, *np.shape(image)[-2:])
    return {k: float(v) for k, v in chi2(problem.likelihoods(observation), x).items()}


def test_cases_are_reproducible_and_their_truth_explains_them(problem, case) -> None:
    again = problem.case(1)
    xr.testing.assert_identical(case.truth, again.truth)
    xr.testing.assert_identical(case.observation, again.observation)
    assert abs(problem.case(2).truth["image"] - case.truth["image"]).max() > 1e-4
    assert float(case.truth["image"].sum()) == pytest.approx(0.6, rel=1e-6)
    # The truth on pixels of 4 microarcseconds, the data from a grid four times as fine.
    found = misfits(problem, case.observation, case.truth["image"].values)
    count = problem.check(case.observation)
    assert count["closure_phases"] > 100 and count["log_closure_amplitudes"] > 100
    assert 0.5 < found["closure_phase"] < 1.6 and 0.5 < found["log_closure_amplitude"] < 1.6
    wrong = misfits(problem, case.observation, case.truth["image"].values[::-1].copy())
    assert wrong["closure_phase"] > 10 * found["closure_phase"]


def test_the_finer_truth_fits_as_noise_says() -> None:
    """With pixels as fine as those the data were made from, chi2 is that of pure noise."""
    problem = BlackHoleImaging(prior="generic", shape=(48, 40), fov=120.0, systematic=0.0, snr=8.0)
    fine = 0.6 * ring_profile((48, 40), 120.0, 21.0, 5.0, 0.7, 2.5)
    truth = problem._image(fine.numpy()).to_dataset()
    values = [misfits(problem, problem.observe(truth, torch.Generator().manual_seed(s)), fine) for s in range(6)]
    n = problem.check(problem.observe(truth))["closure_phases"]
    for name in ("closure_phase", "log_closure_amplitude"):
        assert np.mean([v[name] for v in values]) == pytest.approx(1, abs=5 * np.sqrt(2 / (6 * n)) + 0.03), name


def test_gains_and_the_place_on_the_sky_change_nothing(problem, case) -> None:
    plain = misfits(problem, case.observation, case.truth["image"].values)
    rows = visibility_data(case.observation)
    g = torch.Generator().manual_seed(0)
    gains = torch.polar(torch.rand(50, 8, generator=g) + 0.5, 6.28 * torch.rand(50, 8, generator=g)).to(
        torch.complex128
    )
    scan = rows.scans % 50
    factor = (gains[scan, rows.stations[:, 0]] * gains[scan, rows.stations[:, 1]].conj()).numpy()
    other = case.observation.copy()
    other["visibility"] = other["visibility"] * factor
    other["sigma"] = other["sigma"] * np.abs(factor)
    for name, value in misfits(problem, other, case.truth["image"].values).items():
        assert value == pytest.approx(plain[name], rel=2e-3, abs=1e-5), name
    moved = np.roll(case.truth["image"].values, (2, -1), (0, 1))  # the border is dark
    for name, value in misfits(problem, case.observation, moved).items():
        assert value == pytest.approx(plain[name], rel=2e-2, abs=1e-5), name


def test_trivial_closures_are_those_of_noise(problem) -> None:
    from scidiff.problems.black_hole_observation import coverage, observed

    sky = 0.6 * ring_profile((96, 96), 128.0, 20.0, 5.0, 0.8, 1.0)
    data = observed(sky, 128 / 96, coverage("eht2017"), 0.3, torch.Generator().manual_seed(4))
    phase, amplitude, count = trivial_closures(data)
    assert count > 100
    assert phase == pytest.approx(1, abs=5 * np.sqrt(2 / count)) and amplitude == pytest.approx(
        1, abs=5 * np.sqrt(2 / count)
    )
    doubted = data.assign(sigma=data["sigma"] / 3)
    found = problem.check(prepare(doubted, problem.editing))
    assert found["trivial_phase_chi2"] > 2.5 and "raise `systematic`" in found["warnings"][0]
    assert np.isnan(trivial_closures(flag(data, ["AP", "JC"]))[0])


def test_reading_prepares_once_and_names_what_is_wrong(problem, case, tmp_path) -> None:
    assert problem.read(case.observation) is case.observation
    from scidiff.problems.black_hole_observation import coverage, observed

    raw = observed(torch.ones(8, 8) / 64, 4.0, coverage("eht2017"), 0.1, torch.Generator().manual_seed(0))
    write_visibilities(raw, tmp_path / "sky.nc")
    read = problem.read(tmp_path / "sky.nc")
    assert read.attrs["prepared"] == 1 and float(np.hypot(read["u"], read["v"]).min()) >= 1e8
    assert "systematic" in read.attrs["history"] and read.sizes["row"] < raw.sizes["row"]
    other = raw.assign(mjd=raw["mjd"] + 1)
    assert problem.read([raw, other]).sizes["row"] == 2 * read.sizes["row"]
    with pytest.raises(InputError, match="no plain array"):
        problem.read(np.ones(3))
    with pytest.raises(InputError, match="'sigma'"):
        problem.read(raw.drop_vars("sigma"))
    lonely = flag(raw, ["AP", "AZ", "LM", "PV", "SM"])
    with pytest.raises(InputError, match="no rows"):
        problem.read(lonely.isel(row=slice(0)))
    two = flag(raw, ["AP", "AZ", "LM", "PV", "SM"], snr=0.0)
    with pytest.raises(InputError, match="the observation: no"):
        problem.posterior(problem.read(two))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (4, 4)}, "at least 8 pixels"),
        ({"fov": -1.0}, "fov must be positive"),
        ({"systematic": -0.1}, "systematic must not be negative"),
        ({"products": "phases"}, "products must be one of closures"),
        ({"source": "star"}, "source must be one of rings"),
        ({"average": -5.0}, "average is a time in seconds"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlackHoleImaging(**arguments)


def test_the_generic_prior_is_the_law_it_states() -> None:
    prior = generic_sky((24, 20), 96.0, size=25.0, deviation=0.8)
    u = torch.randn(2, 1, 24, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = prior.prior.sample(4000, torch.Generator().manual_seed(0)).double().exp()
    assert float(x.mean(0).sum()) == pytest.approx(1, rel=0.02)
    assert float(x.log().std(0).mean()) == pytest.approx(0.8, rel=0.02)
    np.testing.assert_allclose(prior.encode(prior.decode(u)), u, atol=1e-6)
    assert float(prior.decode(u).min()) > 0 and not prior.affine
    torch.testing.assert_close(prior.rescaled(3.0).decode(u), 3 * prior.decode(u))


def test_alignment_undoes_shifts() -> None:
    ring = ring_profile((64, 60), 160.0, 20.0, 5.0, 0.5, 1.0, (4.0, -6.0)).numpy()
    for north, east in ((7.5, -5.0), (-12.3, 8.1), (0.0, 0.0)):
        moved = ring_profile((64, 60), 160.0, 20.0, 5.0, 0.5, 1.0, (4.0 + north, -6.0 + east)).numpy()
        (back,), (shift,) = scoring.align(moved[None], ring)
        assert shift == pytest.approx((north / 2.5, east / 2.5), abs=0.03)
        assert scoring.correlation(back, ring) > 0.9999
    assert scoring.correlation(2 * ring + 1, ring) == pytest.approx(1)
    blurred = scoring.blurred(np.pad(np.ones((1, 1)), 40), 1.0, 20.0)
    assert blurred.sum() == pytest.approx(1, rel=1e-4)
    assert blurred[40, 50] / blurred[40, 40] == pytest.approx(0.5, rel=1e-3)  # half at half of the full width


def test_members_are_kept_by_their_misfit_and_reported(problem, case) -> None:
    truth = torch.as_tensor(case.truth["image"].values, dtype=torch.float32)
    wrong = truth.flip(0)
    few = Ensemble(torch.stack([truth, truth.roll(1, 1), wrong])[:, None, None])
    table = problem.members(few, case.observation)
    assert table["kept"].values.tolist() == [True, True, False] and table["is_ring"].values[:2].all()
    left, rejected = scoring.select(case.observation.assign(image=(("member", "y", "x"), few.samples[:, 0, 0])), table)
    assert left.sizes["member"] == 2 and rejected == 1
    assert scoring.verdict(table) == []
    many = problem.members(Ensemble(torch.stack([truth, wrong, wrong])[:, None, None]), case.observation)
    assert "the prior cannot explain the data" in scoring.verdict(many)[0]


def test_perfect_members_score_perfectly_wherever_they_are(problem, case) -> None:
    truth = torch.as_tensor(case.truth["image"].values, dtype=torch.float32)
    ensemble = Ensemble(torch.stack([truth.roll(k, 0) for k in (-2, 0, 1)])[:, None, None])
    scores = problem.evaluate(ensemble, case.truth)
    assert float(scores["ncc"]) > 0.999 and float(scores["psnr"]) > 40
    assert problem.aligned(ensemble).std(0).max() < 0.02 * float(truth.max())


def test_reconstruct_reaches_the_noise_with_the_generic_prior(tmp_path) -> None:
    problem = problems.get("black-hole", prior="generic", shape=SHAPE, fov=128.0, source="crescent", systematic=0.05)
    case = problem.case(1)
    sampler = posterior.get("mmps", steps=16, iterations=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = scidiff.reconstruct(
            problem, case.observation, sampler, members=2, truth=case.truth, output=tmp_path / "run", figures=True
        )
        scores = problem.evaluate(result, case.truth)
    assert result["image"].dims == ("member", "y", "x") and result["image"].attrs["units"] == "Jy/pixel"
    assert result["x"].attrs["units"] == "microarcsecond" and float(result["x"][0]) > 0  # east is left
    assert float(result["image"].min()) > 0
    assert float(scores["chi2_closure_phase"]) < 2 and float(scores["chi2_log_closure_amplitude"]) < 2
    assert float(scores["ncc_blurred"]) > 0.9
    assert (tmp_path / "run" / "figures" / "result.png").stat().st_size > 20_000


def test_baselines_explain_the_data(problem, case) -> None:
    found = problem.baselines(case.observation)
    fit = misfits(problem, case.observation, found["rml"].values)
    assert fit["closure_phase"] < 1.6 and fit["log_closure_amplitude"] < 1.6
    assert (
        scoring.similarity(found["rml"].values[None].astype(float), case.truth["image"].values, problem.pixel)["ncc"]
        > 0.85
    )
    assert found["dirty"].attrs["units"] == "Jy/beam"


def test_m87_is_read_and_its_errors_are_right(real_data) -> None:
    path = real_data / "eht" / "m87" / "SR1_M87_2017_101_lo.csv"
    if not path.is_file():
        pytest.skip(f"no EHT data at {path}")
    problem = BlackHoleImaging(prior="generic")
    found = problem.check(problem.read(path))
    assert found["closure_phases"] == 89 and found["log_closure_amplitudes"] == 74
    assert 0.6 < found["trivial_phase_chi2"] < 1.5 and 0.6 < found["trivial_amplitude_chi2"] < 1.5
    assert found["warnings"] == []
