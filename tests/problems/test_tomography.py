"""Sparse-view and limited-angle tomography end to end with a Gaussian prior: every number they report is checked."""

import numpy as np
import pytest
import torch
import xarray as xr

import scidiff
from scidiff.datasets.tomography import make_scan
from scidiff.errors import InputError
from scidiff.inference import Ensemble
from scidiff.linalg import Stationary
from scidiff.priors import GaussianPrior
from scidiff.problems import LimitedAngleCT, SparseViewCT
from scidiff.problems.attenuation import attenuation_prior, matched_water, water_attenuation
from scidiff.problems.base import AffinePrior
from scidiff.problems.imaging import tensor
from scidiff.problems.tomography_baselines import sirt
from scidiff.problems.tomography_checks import moments
from scidiff.problems.tomography_scan import projector, sparse
from scidiff.problems.tomography_tv import weighted_tv

SIZE = 32


def hounsfield_prior(size: int = SIZE) -> GaussianPrior:
    k = torch.fft.fftfreq(size)
    spectrum = (1 + (k[:, None].square() + k.square()) / 0.05**2).pow(-1.6).double()
    prior = GaussianPrior(torch.full((1, size, size), -500.0), Stationary(500**2 * spectrum / spectrum.mean(), dims=2))
    prior.units = "HU"  # type: ignore[attr-defined]
    return prior


@pytest.fixture(scope="module")
def problem() -> SparseViewCT:
    return SparseViewCT(views=12, size=SIZE, pixel=4.0, prior=hounsfield_prior(), tv_weight=8.0)


@pytest.fixture(scope="module")
def case(problem):
    return problem.case(0)


def scan(views: int = 60, size: int = SIZE, photons: float = 4e4, shift: float = 1.5, bin_width=1.0) -> xr.Dataset:
    """A scan of a case's truth as files hold it: counts on a detector whose middle is not the axis."""
    source = SparseViewCT(views=views, size=size, pixel=2.0, photons=photons, prior=hounsfield_prior(size)).case(3)
    bins = source.observation.sizes["bin"]
    keep = slice(int(2 * shift), bins)  # dropping bins on one side moves the axis by half as many from the middle
    counts = source.observation["counts"].values[None, :, keep]
    return make_scan(counts, source.observation["angle"].values, photons, bin_width=bin_width)


def test_water_and_hounsfield_units() -> None:
    assert water_attenuation(60) == pytest.approx(0.02059)
    assert water_attenuation(511) == pytest.approx(0.0096, rel=0.01)
    assert 0.0184 < water_attenuation(70) < 0.0206
    prior = hounsfield_prior()
    changed = attenuation_prior(prior, 0.02)
    assert isinstance(changed, AffinePrior) and changed.affine
    u = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(changed.decode(u), 0.02 * (1 + prior.decode(u) / 1000))
    torch.testing.assert_close(changed.encode(changed.decode(u)), u, atol=1e-4, rtol=1e-4)
    plain = GaussianPrior(torch.zeros(1, 4, 4), 1.0)
    assert attenuation_prior(plain, 0.02) is plain
    with pytest.raises(ValueError, match="between 10 and 600 keV"):
        water_attenuation(5)


def test_the_main_material_takes_the_place_of_water() -> None:
    image = torch.zeros(20, 30)
    image[4:16, 5:25] = 0.3
    image[5:8, 6:9] = 0.8
    assert matched_water(image + 1e-3) == pytest.approx(0.301, rel=1e-6)
    with pytest.raises(ValueError, match="no object"):
        matched_water(torch.zeros(4, 4))


def test_cases_are_reproducible_and_come_from_a_finer_grid(problem, case) -> None:
    xr.testing.assert_identical(problem.case(0).observation, case.observation)
    assert float(abs(problem.case(1).truth["attenuation"] - case.truth["attenuation"]).mean()) > 1e-4
    assert "2 mm" in case.observation.attrs["simulated"] and case.truth["attenuation"].attrs["units"] == "1/mm"
    x = tensor(case.truth["attenuation"])[None, None]
    assert float(x.min()) == pytest.approx(0, abs=1e-6) and 0.015 < float(x.max()) < 0.06
    # The mass of every projection is that of the truth; single rays differ by what pixels cannot show.
    projected = problem.operator(case.observation)(x)[0, 0].sum(1)
    measured = tensor(case.observation["sinogram"]).sum(1)
    torch.testing.assert_close(projected, measured, rtol=0.01, atol=0)
    y = tensor(case.observation["sinogram"])
    torch.testing.assert_close(y, -torch.log(tensor(case.observation["counts"]) / 1e5), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tensor(case.observation["noise_std"]), tensor(case.observation["counts"]).rsqrt())


def test_reconstruct_and_evaluate(problem, case) -> None:
    result = scidiff.reconstruct(
        problem, case.observation, scidiff.posterior.get("mmps", steps=16), members=4, truth=case.truth
    )
    assert result["attenuation"].dims == ("member", "y", "x") and result["attenuation"].attrs["units"] == "1/mm"
    scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}
    assert scores["psnr"] > 22 and scores["psnr_tv"] > scores["psnr_fbp"]
    assert 0.8 < scores["coverage_90"] <= 1 and scores["chi2"] < 4  # pixels twice as wide add to the noise
    assert {"ssim", "crps", "spread_skill", "chi2", "psnr_sirt", "psnr_tv"} <= set(scores)
    alone = problem.evaluate(Ensemble(torch.as_tensor(result["attenuation"].values)[:, None, None]), case.truth)
    for name in alone:
        assert float(alone[name]) == pytest.approx(scores[name], rel=1e-4)
    assert len(problem.plot(result).axes) >= 5
    xr.testing.assert_identical(problem.read(result), result)


def test_the_exact_posterior_covers_the_truth() -> None:
    """A field drawn from the prior, observed on its own grid: intervals and spread are right."""
    prior = hounsfield_prior()
    problem = SparseViewCT(views=6, pixel=2.0, photons=1e5, prior=prior, energy=70)
    water = water_attenuation(70)
    scores = []
    for i in range(3):
        g = torch.Generator().manual_seed(i)
        x = 0.3 * water * (1 + prior.sample(1, g)[0, 0].float() / 1000)  # thin: enough photons everywhere
        coords = {d: 2.0 * np.arange(SIZE) for d in ("y", "x")}
        truth = xr.Dataset({"attenuation": (("y", "x"), x.numpy(), {"units": "1/mm"})}, coords)
        observation = problem.observe(truth, g)
        assert float(problem.likelihood(observation).chi2(x[None, None])) == pytest.approx(1, abs=0.15)
        thin = SparseViewCT(views=6, pixel=2.0, prior=AffinePrior(prior, 0.3 * water / 1000, 0.3 * water))
        draws = scidiff.posterior.get("mmps", steps=24)(thin.posterior(observation), 16, g)
        found = thin.evaluate(draws, truth)
        scores.append([float(found["coverage_90"]), float(found["spread_skill"])])
    coverage, spread = np.mean(scores, 0)
    assert coverage == pytest.approx(0.9, abs=0.05) and spread == pytest.approx(1, abs=0.15)


def test_a_scan_keeps_some_views_and_sets_the_others_aside() -> None:
    whole = scan()
    problem = SparseViewCT(views=10, prior=hounsfield_prior(), pixel=1.0)
    observation = problem.read(whole)
    assert observation.sizes["angle"] == 10 and observation.sizes["held_angle"] == 50
    np.testing.assert_allclose(observation["angle"], np.arange(10) * 18.0)
    bins = whole.sizes["bin"]
    # Three of the 47 bins were cut off on one side: the axis is in the middle of the 47.
    assert float(observation["centre"]) == pytest.approx((bins + 3 - 1) / 2 - 3, abs=0.1)
    assert observation.sizes["x"] == int(2 * (float(observation["centre"]) + 0.5))
    for prefix in ("", "held_"):
        assert observation[f"{prefix}noise_std"].dims == (f"{prefix}angle", "bin")
    assert observation["reference"].dims == ("y", "x") and observation["reference"].attrs["units"] == "1/mm"
    np.testing.assert_allclose(
        observation["noise_std"], observation["counts"] ** -0.5 * (1 + observation["counts"] / 4e4) ** 0.5, rtol=1e-3
    )
    found = problem.check(observation)
    assert found["warnings"] == [] and found["mass_centre"] == pytest.approx(found["centre"], abs=0.2)
    given = SparseViewCT(views=10, prior=hounsfield_prior(), centre=float(observation["centre"]))
    nine = given.observation(whole.isel(angle=slice(0, 45)))
    assert np.ptp(nine["angle"].values) > 110  # a shorter range is divided evenly too


def test_intensities_are_matched_or_stated() -> None:
    whole = scan()
    matched = SparseViewCT(views=30, prior=hounsfield_prior()).read(whole)
    stated = SparseViewCT(views=30, prior=hounsfield_prior(), energy=100).read(whole)
    assert float(stated["water"]) == pytest.approx(0.01707)
    assert float(matched["water"]) == pytest.approx(2 * water_attenuation(70), rel=0.15)  # bins of 2 mm said to be 1


def test_views_set_aside_score_the_members() -> None:
    """Members that equal the truth predict the views set aside to their noise; wrong ones do not."""
    whole = scan(photons=2e3)
    problem = SparseViewCT(views=20, prior=hounsfield_prior())
    observation = problem.read(whole)
    best = weighted_tv(
        problem.operator(observation), problem.measurement(observation), tensor(observation["noise_std"]), 1e3
    )
    held = projector(observation, "held_")(best)
    g = torch.Generator().manual_seed(0)
    std = tensor(observation["held_noise_std"])
    observation["held_sinogram"].values[:] = (held[0, 0] + std * torch.randn(std.shape, generator=g)).numpy()
    members = best.expand(12, -1, -1, -1).numpy()[:, 0]
    result = observation.assign(attenuation=(("member", "y", "x"), members))
    scores = problem.evaluate(result)
    assert float(scores["held_back_chi2_mean"]) == pytest.approx(1, abs=0.1)
    assert float(scores["held_back_coverage_90"]) == pytest.approx(0.9, abs=0.02)
    worse = problem.evaluate(result.assign(attenuation=1.2 * result["attenuation"]))
    assert float(worse["held_back_chi2_mean"]) > 2


def test_what_members_predict_the_picture_of_all_views_to_be(problem) -> None:
    """The reference is one more draw of what a perfect member predicts: 90 % intervals cover 90 % of it."""
    whole = scan(photons=2e3)
    problem = SparseViewCT(views=20, prior=hounsfield_prior())
    observation = problem.read(whole)
    best = weighted_tv(
        problem.operator(observation), problem.measurement(observation), tensor(observation["noise_std"]), 1e3
    )
    g = torch.Generator().manual_seed(1)
    std = tensor(observation["held_noise_std"])
    held = (projector(observation, "held_")(best)[0, 0] + std * torch.randn(std.shape, generator=g)).numpy()
    lines = np.concatenate([observation["sinogram"].values, held])
    angles = np.concatenate([observation["angle"].values, observation["held_angle"].values])
    order = np.argsort(angles)
    setting = observation.drop_dims("held_angle").drop_dims("angle").assign_coords(angle=("angle", angles[order]))
    picture = projector(setting).fbp(torch.from_numpy(lines[order])[None, None])[0, 0].numpy()
    result = observation.assign(
        attenuation=(("member", "y", "x"), best.expand(60, -1, -1, -1).numpy()[:, 0]),
        reference=(("y", "x"), picture, observation["reference"].attrs),
        held_sinogram=(("held_angle", "bin"), held),
    )
    scores = problem.evaluate(result, result)
    assert float(scores["coverage_90"]) == pytest.approx(0.9, abs=0.04)
    assert float(scores["coverage_90_members"]) < 0.05  # members themselves know nothing of the reference's noise


def test_counts_of_few_photons() -> None:
    """The Poisson likelihood is that of the counts; the Gaussian one warns."""
    few = {"views": 8, "size": SIZE, "pixel": 4.0, "photons": 60.0, "prior": hounsfield_prior()}
    poisson, gaussian = SparseViewCT(likelihood="poisson", **few), SparseViewCT(**few)
    case = gaussian.case(0)
    assert any("likelihood='poisson'" in text for text in gaussian.check(case.observation)["warnings"])
    part = poisson.posterior(case.observation).likelihoods[0]
    x = tensor(case.truth["attenuation"])[None, None]
    rate = 60 * torch.exp(-projector(case.observation)(x))
    expected = torch.distributions.Poisson(rate.double()).log_prob(tensor(case.observation["counts"]).double()).sum()
    assert float(part.log_prob(x)) == pytest.approx(float(expected), rel=1e-4)
    draws = scidiff.posterior.get("mmps", steps=8)(
        poisson.posterior(case.observation), 2, torch.Generator().manual_seed(0)
    )
    truth = np.asarray(case.truth["attenuation"])
    assert float(np.abs(draws.mean[0, 0].numpy() - truth).mean()) < 0.7 * np.abs(truth - truth.mean()).mean()


def test_limited_angles() -> None:
    problem = LimitedAngleCT(first=10, last=100, prior=hounsfield_prior(), size=SIZE)
    angles = problem.case(0).observation["angle"]
    assert float(angles.min()) == 10 and float(angles.max()) == 100
    observation = problem.read(scan())
    np.testing.assert_allclose(observation["angle"], np.arange(12, 101, 3.0))
    assert observation.sizes["held_angle"] == 30
    with pytest.raises(InputError, match="0 projections lie between 10 and 100"):
        problem.read(scan().isel(angle=slice(0, 3)).assign_coords(angle=[0.0, 120.0, 170.0]).assign_attrs())


def test_baselines_solve_what_they_say(problem, case) -> None:
    operator, y = problem.operator(case.observation), problem.measurement(case.observation)
    x = sirt(operator, y, 300, nonnegative=True)
    assert float(x.min()) >= 0
    # Without the constraint active a fixed point has no weighted residual; it shrinks with the iterations.
    early = sirt(operator, y, 10, nonnegative=True)
    assert float((operator(x) - y).square().sum()) < 0.3 * float((operator(early) - y).square().sum())
    std = tensor(case.observation["noise_std"])

    def objective(x: torch.Tensor, weight: float) -> float:
        from scidiff.problems.baselines import differences

        fit = ((operator(x) - y) / std).square().sum() / 2
        return float(fit + weight * differences(x).square().sum(0).sqrt().sum())

    best = weighted_tv(operator, y, std, 400.0)
    g = torch.Generator().manual_seed(0)
    for _ in range(4):
        assert objective(best, 400) < objective(best + 2e-4 * torch.randn(best.shape, generator=g), 400)
    assert problem.tuned_tv_weight(case.observation, case.truth, (8, 4000)) == 8


def test_moments() -> None:
    theta = np.deg2rad(np.arange(0, 180, 10.0))
    place = np.arange(50)
    bumps = np.exp(-0.5 * ((place - 20.3 - 6 * np.cos(theta)[:, None]) / 3) ** 2)
    spread, axis = moments(bumps, np.rad2deg(theta))
    assert spread < 1e-3 and axis == pytest.approx(20.3, abs=1e-2)
    assert moments(bumps * np.linspace(1, 1.2, 18)[:, None], np.rad2deg(theta))[0] > 0.05


def test_check_warns_of_what_is_wrong(problem) -> None:
    whole = scan()
    sparse_views = SparseViewCT(views=30, prior=hounsfield_prior())
    wrong = SparseViewCT(views=30, prior=hounsfield_prior(), centre=18.0)
    assert any("centre" in text for text in wrong.check(wrong.read(whole))["warnings"])
    cut = sparse_views.check(
        SparseViewCT(views=30, prior=hounsfield_prior(), centre=10.0).read(whole.isel(bin=slice(12, 33)))
    )
    assert any("truncated" in text for text in cut["warnings"])
    drifting = whole.assign(counts=whole["counts"] * xr.DataArray(np.linspace(1, 1.3, 60), dims="angle"))
    assert any("drifts" in text for text in sparse_views.check(sparse_views.read(drifting))["warnings"])


def test_sparse_views_do_not_count_opposite_ones_twice() -> None:
    np.testing.assert_array_equal(sparse(np.linspace(0, 360, 73), 6), np.arange(6) * 6)
    np.testing.assert_array_equal(sparse(np.linspace(350, 170, 37), 4), [9, 18, 27, 36])


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"size": 80}, lambda s: s, "wider than the detector: 80 pixels of 1 are 80, 'bin' spans 44"),
        ({"row": 3}, lambda s: s, "'row' 3 does not exist"),
        ({"views": 61}, lambda s: s, "61 views were asked for, but the scan has 60"),
        ({"centre": 300.0}, lambda s: s, "lies beside the detector of 44"),
        ({}, lambda s: s.isel(angle=slice(0, 20)), "no two projections are opposite"),
        ({"kind": "sinogram"}, lambda s: s.rename(counts="sinogram"), "does not say how noisy"),
        ({}, lambda s: "nowhere.h5", "no such file"),
        ({}, lambda s: np.zeros((3, 4)), "angles=..."),
        ({}, lambda s: s.rename(counts="data"), "expected a variable 'counts'"),
    ],
)
def test_wrong_scans_are_named(settings, change, message) -> None:
    problem = SparseViewCT(**{"views": 10, "prior": hounsfield_prior(), **settings})
    with pytest.raises(InputError, match=message):
        problem.read(change(scan()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 1}, "at least 2"),
        ({"likelihood": "cauchy"}, "'gaussian' or 'poisson'"),
        ({"energy": 2.0}, "between 10 and 600"),
        ({"pixel": -1.0}, "pixel must be positive"),
        ({"binning": 0}, "binning must be at least 1"),
        ({"tv_weight": -1}, "negative"),
    ],
)
def test_bad_parameters_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        SparseViewCT(**settings)
    with pytest.raises(ValueError, match="0 <= first < last"):
        LimitedAngleCT(first=50, last=40)


def test_the_real_tooth(real_data) -> None:
    """From 30 of 181 views, four bins joined: geometry, units, and classical answers in the known order."""
    problem = SparseViewCT(views=30, binning=4, prior=hounsfield_prior(148))
    observation = problem.read(real_data / "ct" / "raw" / "tooth.h5")
    assert float(observation["centre"]) == pytest.approx((295.5 - 1.5) / 4, abs=0.15)
    assert observation.sizes["x"] == 148 and problem.template(observation).attrs["units"] == "1/pixel"
    found = problem.check(observation)
    assert found["warnings"] == [] and found["mass_centre"] == pytest.approx(found["centre"], abs=0.3)
    reference = tensor(observation["reference"])[None, None]
    where = problem.region(reference, observation)
    scores = {
        k: problem.image_scores(tensor(v)[None, None], reference, where)["psnr"]
        for k, v in problem.baselines(observation).items()
    }
    assert scores["tv"] > scores["sirt"] - 1 > scores["fbp"] + 5


def test_a_prior_of_codes_behind_an_autoencoder():
    """States are codes, padded to the stride; fields are converted from Hounsfield units like those of any prior."""
    from scidiff.nn.autoencoder import ConvAutoencoder
    from scidiff.priors import GaussianPrior, LatentPrior
    from scidiff.priors.autoencoder import FieldAutoencoder
    from scidiff.priors.linear_autoencoder import LinearAutoencoder

    autoencoder = FieldAutoencoder(ConvAutoencoder(1, 2, (4, 8), blocks=1), -300.0, 400.0, units="HU")
    prior = LatentPrior(autoencoder, GaussianPrior(torch.zeros(2, 5, 5), 1.0))
    problem = SparseViewCT(views=6, size=18, prior=prior)
    observation = problem.case(0).observation
    posterior = problem.posterior(observation)
    assert posterior.shape == (2, 5, 5)  # 18 pixels padded to 20, stride 4
    u = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    x, hu = posterior.prior.decode(u), autoencoder.decode(u)[..., :18, :18]
    assert x.shape == (2, 1, 18, 18)
    assert torch.allclose(x, float(observation["water"]) * (1 + hu / 1000), atol=1e-6)
    linear = LinearAutoencoder(torch.zeros(1, 18, 18), torch.eye(324)[:3].reshape(3, 1, 18, 18))
    fixed = SparseViewCT(views=6, size=18, prior=LatentPrior(linear, linear.code_prior()))
    assert fixed.posterior(observation).shape == (3,)
