"""The MRI problem end to end on small phantoms, with a Gaussian prior: every number it reports is checked."""

import numpy as np
import pytest
import torch
import xarray as xr

import scidiff
from scidiff.datasets.phantom import simulate_kspace
from scidiff.errors import InputError
from scidiff.inference import Ensemble
from scidiff.linalg import Stationary
from scidiff.operators.mri import CartesianMRI
from scidiff.priors import GaussianPrior, LatentPrior, load_autoencoder
from scidiff.problems import AcceleratedMRI
from scidiff.problems.mri_observation import combine, operator_of, tensor
from scidiff.problems.mri_scores import data_misfit, head_region, predicted_reference

SHAPE = (48, 40)


def smooth_prior(shape: tuple[int, int] = SHAPE) -> GaussianPrior:
    ky, kx = torch.fft.fftfreq(shape[0])[:, None], torch.fft.fftfreq(shape[1])[None]
    spectrum = (1 + (ky.square() + kx.square()) / 0.03**2).pow(-1.4).double()
    spectrum = 0.3**2 * spectrum / spectrum.mean()
    return GaussianPrior(torch.zeros(1, *shape, dtype=torch.complex64), Stationary(spectrum.repeat(2, 1, 1), dims=2))


def make(**changes) -> AcceleratedMRI:
    settings = {"acceleration": 2, "calibration": 0.3, "coils": 5, "shape": SHAPE, "noise": 0.02, "map_sets": 1}
    return AcceleratedMRI(prior=smooth_prior(), **{**settings, **changes})


@pytest.fixture(scope="module")
def problem() -> AcceleratedMRI:
    return make()


@pytest.fixture(scope="module")
def case(problem):
    return problem.case(0)


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    kspace, _ = simulate_kspace(SHAPE, 5, 0.02, torch.Generator().manual_seed(1))
    return xr.Dataset({"kspace": (("coil", "ky", "kx"), 1e-3 * kspace.numpy())})


def test_cases_are_reproducible_and_differ(problem, case) -> None:
    xr.testing.assert_identical(problem.case(0).observation, case.observation)
    other = problem.case(1)
    assert abs(other.truth["image"] - case.truth["image"]).mean() > 0.05
    kept = case.observation["mask"]
    assert float(kept.mean()) == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(kept, other.observation["mask"])  # the mask belongs to the problem
    assert not (case.observation["mask"] & case.observation["held_back_mask"]).any()
    assert (case.observation["mask"] | case.observation["held_back_mask"]).all()
    assert float(abs(case.observation["kspace"]).where(~kept, 0).max()) == 0


def test_noise_scale_and_truth_are_right(problem, case) -> None:
    """The truth explains the samples given and held back to the noise; noise and scale are estimated within bounds."""
    observation = case.observation
    assert float(observation["noise_std"]) == pytest.approx(0.02, rel=0.15)
    x = tensor(case.truth["image"])[None, None]
    assert float(torch.quantile(x.abs().flatten(), 0.99)) == pytest.approx(float(observation["image_scale"]), rel=0.15)
    given, aside = data_misfit(x, observation), data_misfit(x, observation, held_back=True)
    assert 0.85 < float(given) < 1.4 and 0.85 < float(aside) < 1.4  # 1 and the error of the maps


def test_prewhitening_makes_the_noise_white(problem) -> None:
    covariance = torch.diag(torch.tensor([1.0, 4.0, 1.0, 0.25, 1.0])).to(torch.complex64)
    covariance[0, 1], covariance[1, 0] = 0.8j, -0.8j
    kspace, parts = simulate_kspace(SHAPE, 5, 0.02, torch.Generator().manual_seed(2), covariance=covariance)
    observation = problem.read(kspace.numpy())
    whitening = tensor(observation["whitening"])
    noise = torch.einsum("cr,rhw->chw", whitening, kspace - parts["clean"]).flatten(1)
    found = (noise @ noise.mH / (2 * noise.shape[1])).abs() / float(observation["noise_std"]) ** 2
    torch.testing.assert_close(found, torch.eye(5), atol=0.35, rtol=0)


def test_reference_is_the_image_of_the_full_scan(problem, scan) -> None:
    observation = problem.read(scan)
    full = CartesianMRI(operator_of(observation).maps, torch.ones(SHAPE, dtype=torch.bool))
    kspace = tensor(observation["kspace"] + observation["held_back_kspace"])
    expected = full.adjoint(full.sample(kspace)[None])[0, 0]  # maps of unit norm
    torch.testing.assert_close(tensor(observation["reference"]), expected, rtol=1e-3, atol=1e-6)
    found = problem.check(observation)
    residual = full.sample(kspace) - full(expected[None, None])[0]
    chi2 = residual.abs().square().sum() / (2 * 4 * residual[0].numel() * found["noise_std"] ** 2)
    assert found["reference_chi2"] == pytest.approx(float(chi2), rel=1e-3)


def test_units_of_the_scan_do_not_matter(problem, scan) -> None:
    small, large = problem.read(scan), problem.read(1e4 * scan)
    for name in ("kspace", "noise_std", "image_scale", "reference"):
        xr.testing.assert_allclose(large[name], 1e4 * small[name], rtol=1e-3, atol=1e-4)
    assert problem.check(large)["forward_chi2"] == pytest.approx(problem.check(small)["forward_chi2"], rel=1e-2)


def test_posterior_template_and_baselines_fit_together(problem, case) -> None:
    posterior = problem.posterior(case.observation)
    assert posterior.shape == (2, *SHAPE) and posterior.linear and posterior.batch == 1
    template = problem.template(case.observation)
    assert template.dims == ("y", "x") and template.dtype == np.complex64
    prior_spread = posterior.prior.decode(torch.ones(1, 2, *SHAPE)).abs().mean()
    assert float(prior_spread) == pytest.approx(2**0.5 * 0.3 * float(case.observation["image_scale"]), rel=1e-3)
    found = problem.baselines(case.observation)
    error = {k: float(abs(v - case.truth["image"]).mean()) for k, v in found.items()}
    assert set(found) == {"zero_filled", "tv"} and error["tv"] < error["zero_filled"]
    xr.testing.assert_allclose(found["zero_filled"].drop_attrs(), case.observation["zero_filled"].drop_attrs())


def test_reconstruct_and_evaluate(problem, case) -> None:
    result = scidiff.reconstruct(problem, case.observation, members=4, truth=case.truth)
    assert result["image"].dims == ("member", "y", "x")
    scores = {name: float(value) for name, value in problem.evaluate(result, case.truth).items()}
    assert scores["psnr"] > scores["psnr_zero_filled"]
    assert scores["held_back_chi2_mean"] < scores["held_back_chi2_zero_filled"]
    assert scores["held_back_chi2_mean"] < scores["held_back_chi2"]
    alone = problem.evaluate(Ensemble(torch.as_tensor(result["image"].values)[:, None, None]), case.truth)
    for name in alone:
        assert float(alone[name]) == pytest.approx(scores[name], rel=1e-4)
    assert len(problem.plot(result).axes) >= 5
    xr.testing.assert_identical(problem.read(result), result)  # a result carries its observation


def test_a_measured_reference_is_predicted_with_its_noise(problem, scan) -> None:
    """Members that equal the truth must predict the reference to its noise: no spread of the members, all from n."""
    kspace, parts = simulate_kspace(SHAPE, 5, 0.05, torch.Generator().manual_seed(4))
    observation = problem.read(kspace.numpy())
    maps, noise_std = operator_of(observation).maps, float(observation["noise_std"])
    clean = torch.einsum("cr,rhw->chw", tensor(observation["whitening"]), parts["clean"])
    truth = combine(clean, maps)
    members = truth.expand(200, *truth.shape)
    predicted = predicted_reference(members, observation)
    held = float(observation["held_back_mask"].mean())
    spread = predicted.sub(predicted.mean(0)).abs().square().mean().div(2).sqrt()
    assert float(spread) == pytest.approx(noise_std * held**0.5, rel=0.02)
    reference = observation["reference"].to_dataset()
    result = observation.assign(image=(("member", "y", "x"), members[:40, 0, 0].numpy()))
    assert float(problem.evaluate(result, reference)["coverage_90"]) == pytest.approx(0.9, abs=0.03)


def test_scans_that_are_not_fully_sampled(problem, scan) -> None:
    half = scan.copy(deep=True)
    half["kspace"][:, :, 1:10:2] = 0
    with pytest.warns(UserWarning, match="zero"):
        observation = problem.read(half)
    assert "reference" not in observation and "not fully sampled" in problem.check(observation)["warnings"][0]
    assert not observation["mask"][:, 1:10:2].any()
    every = make(acceleration=1).read(scan)
    assert bool(every["mask"].all()) and "held_back_mask" not in every and "reference" not in every
    third = scan.copy(deep=True)
    third["kspace"][:, :, [c for c in range(40) if not 14 <= c < 26 and c not in (0, 4, 8, 30, 36)]] = 0
    with pytest.warns(UserWarning):
        kept = problem.read(third)
    points, aside = 17 * 48, round(0.05 * 17 * 48)
    assert bool(kept["mask"][:, 14:26].all())
    assert int(kept["mask"].sum()) == points - aside and int(kept["held_back_mask"].sum()) == aside
    assert "all but 5%" in kept.attrs["remark"] and "reference" not in kept
    with pytest.warns(UserWarning):
        everything = make(validation=0).read(third)
    assert int(everything["mask"].sum()) == points and "held_back_mask" not in everything


def test_two_sets_of_maps(scan) -> None:
    problem = make(map_sets=2)
    observation = problem.read(scan)
    posterior = problem.posterior(observation)
    assert posterior.shape == (4, *SHAPE)
    assert problem.template(observation).dims == ("set", "y", "x")
    assert problem.baselines(observation)["tv"].shape == (2, *SHAPE)
    # The image of the full scan, in two parts, explains its samples: 5 receivers leave at most 4/5 of the noise.
    reference = tensor(observation["reference"])[None]
    assert 0.6 < float(data_misfit(reference, observation)) < 1.1
    assert 0.6 < float(data_misfit(reference, observation, held_back=True)) < 1.1


def test_observe_and_tune(problem, case) -> None:
    seen = problem.observe(case.truth, torch.Generator().manual_seed(0))
    xr.testing.assert_identical(seen, problem.observe(case.truth, torch.Generator().manual_seed(0)))
    assert problem.tuned_tv_weight(case.observation, (0.2, 50.0)) == 0.2


def test_head_region() -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    ring = torch.hypot(y - 20, x - 25)
    image = ((ring < 15) & (ring > 10)).float()
    image[2, 2] = 1.0
    region = head_region(image)
    assert bool(region[20, 25]) and not bool(region[2, 2]) and not bool(region[0].any())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: "missing.npy", "there is no such file"),
        (lambda s: np.ones((5, 48, 40)), "not k-space"),
        (lambda s: np.ones((2, 5, 48, 40), complex), "dimensions"),
        (lambda s: s.rename(kspace="k"), "expected a variable 'kspace'"),
        (lambda s: s * np.nan, "NaN"),
        (lambda s: s.isel(coil=0), "dimensions"),
        (lambda s: s * 0, "only zeros"),
    ],
)
def test_wrong_input_is_named(problem, scan, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        problem.read(change(scan))


def test_a_prior_of_other_channels_or_size_is_refused(scan, case) -> None:
    three = GaussianPrior(torch.zeros(3, *SHAPE), 1.0)
    with pytest.raises(InputError, match="3 channels.*2"):
        AcceleratedMRI(prior=three).posterior(case.observation)
    with pytest.raises(InputError, match="shape"):
        AcceleratedMRI(prior=smooth_prior((32, 32))).posterior(case.observation)
    with pytest.raises(InputError, match="lower the acceleration|calibration"):
        make(acceleration=8, calibration=0.5).read(scan)


def test_a_prior_of_codes_is_seen_through_its_decoder_in_the_units_of_the_scan() -> None:
    """Sides that are no multiples of the stride, and a scan in units of its own."""
    codes = GaussianPrior(torch.zeros(16, 12, 11), Stationary(torch.ones(16, 12, 11), dims=2))
    prior = LatentPrior(load_autoencoder("head-mri-autoencoder"), codes)
    kspace, parts = simulate_kspace((46, 42), 5, 0.02, torch.Generator().manual_seed(1))
    scan = xr.Dataset({"kspace": (("coil", "ky", "kx"), 1e-3 * kspace.numpy())})
    problem = AcceleratedMRI(acceleration=2, calibration=0.3, map_sets=1, prior=prior)
    observation = problem.read(scan)
    posterior = problem.posterior(observation)
    assert posterior.shape == (16, 12, 11) and float(observation["image_scale"]) < 0.1
    x = combine(1e-3 * parts["clean"], operator_of(observation).maps)  # the head itself, phases and all
    back = posterior.prior.decode(posterior.prior.encode(x))
    assert back.shape == x.shape and (back - x).norm() < 0.25 * x.norm()
    two = AcceleratedMRI(acceleration=2, calibration=0.3, map_sets=2, prior=prior)
    with pytest.raises(InputError, match="one set of coil maps"):
        two.posterior(two.read(scan))
