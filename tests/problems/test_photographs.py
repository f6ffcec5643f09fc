"""Deblurring, super-resolution and inpainting: models against brute force, samplers against exact posteriors, files."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from skimage.io import imsave

import scidiff
from scidiff import problems
from scidiff.datasets.images import picture, read_image
from scidiff.errors import InputError
from scidiff.inference import Likelihood, Posterior
from scidiff.operators import LinearMap, psf
from scidiff.posterior import DDRM, MMPS
from scidiff.priors import GaussianPrior
from scidiff.problems import Deblurring, Inpainting, SuperResolution
from scidiff.problems.image_baselines import richardson_lucy
from scidiff.problems.imaging import tensor
from scidiff.testing import check_posterior

MAKE = {
    "deblurring": lambda **k: Deblurring(**{"width": 0.7, "shape": (8, 11), **k}),
    "super-resolution": lambda **k: SuperResolution(**{"factor": 2, "shape": (8, 9), "boundary": "mirror", **k}),
    "inpainting": lambda **k: Inpainting(**{"shape": (11, 14), **k}),
}


def law(shape: tuple[int, ...]) -> GaussianPrior:
    """The stationary Gaussian of windows of a photograph."""
    image = picture("coins")
    generator = torch.Generator().manual_seed(3)
    windows = []
    for _ in range(200):
        i, j = (int(torch.randint(n - s, (), generator=generator)) for n, s in zip(image.shape, shape, strict=True))
        windows.append(image[i : i + shape[0], j : j + shape[1]])
    return GaussianPrior.fit(torch.stack(windows)[:, None], stationary=True)


def exact_pair(name: str, **settings):
    """A problem whose prior is known exactly, and an observation of a draw from it."""
    size = MAKE[name](**settings)
    observation = size.case(0).observation
    template = size.template(observation)
    problem = MAKE[name](prior=law(template.shape), **settings)
    x = problem.prior.sample(1, torch.Generator().manual_seed(1))[0, 0]
    truth = template.copy(data=x.numpy()).to_dataset()
    return problem, truth, problem.observe(truth, torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", MAKE)
def test_cases_repeat_and_the_truth_explains_them(name: str) -> None:
    """The truth's chi2 is about 1 although the case was made by another scheme than the operator."""
    problem = MAKE[name](shape=(24, 30))
    case, again, other = problem.case(1), problem.case(1), problem.case(2)
    xr.testing.assert_identical(case.observation, again.observation)
    xr.testing.assert_identical(case.truth, again.truth)
    assert abs(case.truth["image"].values - other.truth["image"].values).mean() > 0.02
    part = problem.likelihood(case.observation)
    chi2 = float(part.chi2(tensor(case.truth["image"])[None, None].to(part.y.dtype)))
    assert abs(chi2 - 1) < 4 * (2 / part.y.numel()) ** 0.5 + (0.3 if name == "super-resolution" else 0), chi2
    assert 0 <= float(case.truth["image"].min()) and float(case.truth["image"].max()) <= 1
    assert problem.check(case.observation)["warnings"] == []
    assert problem.read(case.observation).equals(case.observation)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("deblurring", {}),
        ("deblurring", {"kernel": "walk", "width": 5, "boundary": "reflective"}),
        ("super-resolution", {"antialias": "gaussian"}),
        ("inpainting", {"observed": 0.4}),
    ],
)
def test_mmps_agrees_with_the_exact_posterior(name: str, settings: dict) -> None:
    problem, _, observation = exact_pair(name, **settings)
    posterior = problem.posterior(observation)
    part = posterior.likelihood
    exact = problem.prior.condition(part.operator, part.noise, part.y)
    check_posterior(
        MMPS(), posterior, exact, members=100, mean_error=0.14, trace_ratio=(0.93, 1.07), coverage=(0.88, 0.92)
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("deblurring", {"boundary": "periodic", "kernel": "line", "width": 4}),
        ("deblurring", {"boundary": "reflective"}),
        ("super-resolution", {}),
        ("inpainting", {"observed": 0.4}),
    ],
)
def test_decompositions_serve_ddrm_as_matrices_do(name: str, settings: dict) -> None:
    """DDRM draws the same members through a transform and through the dense decomposition of the same operator."""
    problem, _, observation = exact_pair(name, **settings)
    posterior = problem.posterior(observation)
    part = posterior.likelihood
    dense = LinearMap.dense(part.operator, posterior.shape)
    same = Posterior(problem.prior, Likelihood(dense, part.noise, part.y.flatten(1)), posterior.shape)
    a, b = (DDRM()(p, members=3, generator=torch.Generator().manual_seed(5)).samples for p in (posterior, same))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_fields_stand_where_the_photograph_says() -> None:
    """Coordinates: a point of the field shows up at its own place in the measurement, in physical units too."""
    problem = Deblurring(kernel=torch.tensor([[0.0, 0.2, 0.0, 0.0, 0.0], [0.0, 0.1, 0.4, 0.2, 0.1]]), shape=(9, 13))
    observation = problem.case(0).observation
    scaled = observation.assign_coords(
        row=("row", 5 + 0.5 * np.arange(9), {"units": "mm"}), column=("column", 0.5 * np.arange(13), {"units": "mm"})
    )
    template = problem.template(scaled)
    assert template["y"].attrs["units"] == "mm" and np.allclose(np.diff(template["x"]), 0.5)
    inside = problem.compared(tensor(template["y"])[:, None].expand(template.shape), scaled)
    np.testing.assert_allclose(inside[:, 0], scaled["row"].values)

    fine = SuperResolution(factor=3, antialias="box", shape=(8, 9))
    observation = fine.case(0).observation
    template = fine.template(observation)
    ramp = tensor(template["y"])[:, None].expand(template.shape).contiguous()
    coarse = fine.operator(observation)(ramp[None, None])[0, 0]
    np.testing.assert_allclose(coarse[:, 0], observation["row"].values)
    truth = template.copy(data=ramp.numpy()).to_dataset()
    np.testing.assert_allclose(fine.observe(truth)["row"].values, observation["row"].values)


@pytest.mark.parametrize("name", MAKE)
def test_reconstruct_scores_and_draws(name: str) -> None:
    settings = {"shape": (12, 15)} if name != "super-resolution" else {"shape": (8, 10)}
    problem, truth, observation = exact_pair(name, **settings)
    result = scidiff.reconstruct(problem, observation, members=12, truth=truth)
    scores = problem.evaluate(result, truth)
    assert 0.8 < float(scores["chi2"]) < 1.25
    assert 0.8 < float(scores["coverage_90"]) < 0.97 and 0.7 < float(scores["spread_skill"]) < 1.4
    for label in problem.baselines(observation):
        assert float(scores["rmse"]) < 1.06 * float(scores[f"rmse_{label}"])  # 12 draws of the best
    alone = problem.evaluate(scidiff.Ensemble(tensor(result["image"])[:, None, None]), truth)
    assert float(alone["psnr"]) == pytest.approx(float(scores["psnr"]), rel=1e-6)
    assert len(problem.plot(result).axes) >= 6
    rebuilt = problems.get(name, **{k: v for k, v in json.loads(json.dumps(problem.config())).items() if k != "prior"})
    assert rebuilt.config() == {**problem.config(), "prior": "patches"}


def test_baselines_sharpen_a_photograph() -> None:
    problem = Deblurring(kernel="line", width=7, noise=0.005)
    case = problem.case(0)
    truth = problem.compared(tensor(case.truth["image"])[None, None], case.observation)
    blurred = problem.measurement(case.observation)
    before = problem.image_scores(blurred, truth)["psnr"]
    for label, image in problem.baselines(case.observation).items():
        after = problem.image_scores(problem.compared(tensor(image)[None, None], case.observation), truth)["psnr"]
        assert after > before + 2, label
    operator, y = problem.operator(case.observation), blurred
    grid = (1, *problem.template(case.observation).shape)
    few, many = (richardson_lucy(operator, y, grid, n) for n in (5, 60))
    assert float((operator(many) - y).norm()) < float((operator(few) - y).norm())
    torch.testing.assert_close(operator(many).sum(), y.sum(), rtol=5e-3, atol=0)  # it keeps the light


def test_pictures_kernels_and_masks_from_files(tmp_path, real_data) -> None:
    image = np.round(255 * picture("chelsea")[:40, :50].numpy()).astype(np.uint8)
    imsave(tmp_path / "a.png", image, check_contrast=False)
    imsave(tmp_path / "b.tif", (image.astype(np.uint16) * 257), check_contrast=False)
    np.save(tmp_path / "c.npy", (image / 255).astype(np.float32))
    imsave(tmp_path / "colour.png", np.repeat(image[..., None], 3, 2), check_contrast=False)
    for name in ("a.png", "b.tif", "c.npy", "colour.png"):
        np.testing.assert_allclose(read_image(tmp_path / name).values, image / 255, atol=2e-6)
    kernels = real_data / "imaging" / "levin09_kernels.npz"
    problem = Deblurring(kernel=kernels, index=4)
    assert problem.kernel.shape == (11, 11) and float(problem.kernel.sum()) == pytest.approx(1)
    observation = problem.read(tmp_path / "a.png")
    assert problem.template(observation).shape == (50, 60)
    psf_in_file = observation.assign(kernel=(("kernel_y", "kernel_x"), psf.disc(2.0).numpy()))
    psf_in_file.to_netcdf(tmp_path / "photo.nc", engine="h5netcdf")
    assert problem.operator(problem.read(tmp_path / "photo.nc")).kernel.shape == (5, 5)
    holes = observation["observation"].where(observation["row"] % 2 == 0).rename(row="y", column="x")
    inpainting = Inpainting()
    read = inpainting.read(holes.to_dataset(name="observation"))
    assert inpainting.measurement(read).shape == (1, 1, 20 * 50)
    masked = holes.fillna(0).to_dataset(name="observation").assign(mask=holes.notnull())
    xr.testing.assert_allclose(inpainting.read(masked)["observation"], read["observation"])


def test_wrong_files_are_named(tmp_path) -> None:
    np.save(tmp_path / "three.npy", np.zeros((4, 5, 6)))
    np.save(tmp_path / "nan.npy", np.full((20, 20), np.nan))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    np.savez(tmp_path / "two.npz", a=np.ones((3, 3)), b=np.ones((3, 3)))
    np.save(tmp_path / "negative.npy", -np.ones((3, 3)))
    problem = Deblurring()
    for name, message in (
        ("three.npy", r"three.npy: has shape \(4, 5, 6\)"),
        ("nan.npy", "nan.npy: holds 400 NaN"),
        ("broken.png", "broken.png: not a readable picture"),
        ("photo.gif", "photo.gif: there is no such file"),
    ):
        with pytest.raises(InputError, match=message):
            problem.read(tmp_path / name)
    for name, message in (
        ("two.npz", "two.npz: expected an array 'kernels', found a, b"),
        ("negative.npy", "negative.npy: .*negative values, down to -1"),
    ):
        with pytest.raises(InputError, match=message):
            Deblurring(kernel=tmp_path / name)
    observation = problem.case(0).observation
    with pytest.raises(InputError, match="'kernel' sums to 2, expected 1"):
        problem.read(observation.assign(kernel=2 * observation["kernel"]))
    with pytest.raises(InputError, match="coordinate 'row' must be evenly spaced"):
        problem.read(observation.assign_coords(row=np.arange(64.0) ** 2))
    assert "rescale" in problem.check(problem.read(observation["observation"].values * 255))["warnings"][0]
    truth = SuperResolution().case(0).truth.isel(x=slice(0, -1))
    with pytest.raises(InputError, match="expected a multiple of 4 plus 12"):
        SuperResolution().observe(truth)
    with pytest.raises(InputError, match="leaves no observed pixel"):
        case = Inpainting().case(0).observation
        Inpainting().read(case.assign(mask=case["mask"] & False))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("deblurring", {"boundary": "mirror"}, "valid, periodic, reflective, zero"),
        ("deblurring", {"kernel": "nowhere.npy"}, "there is no file 'nowhere.npy'"),
        ("deblurring", {"noise": 0}, "must be positive"),
        ("deblurring", {"shape": (4, 4)}, "at least 8"),
        ("deblurring", {"tv_weight": -1}, "not be negative"),
        ("super-resolution", {"factor": 1}, "at least 2"),
        ("super-resolution", {"antialias": "cubic"}, "box, gaussian, bicubic, lanczos"),
        ("super-resolution", {"boundary": "zero"}, "valid, mirror, periodic"),
        ("inpainting", {"observed": 0}, "share in"),
        ("inpainting", {"mask": "circle"}, "random, lines, box, centre"),
        ("inpainting", {"mask": "box", "observed": 1}, "hides nothing"),
    ],
)
def test_bad_parameters_are_refused(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problems.get(name, **parameters)


def test_masks_see_what_they_say() -> None:
    from scidiff.operators import inpainting

    generator = torch.Generator().manual_seed(0)
    assert int(inpainting.random_pixels((7, 11), 0.3, generator).sum()) == 23
    rows = inpainting.lines((8, 5), 0.5, generator)
    assert torch.equal(rows.sum(1).sort().values, torch.tensor([0] * 4 + [5] * 4))
    columns = inpainting.lines((8, 5), 0.4, generator, dim=0)
    assert torch.equal(columns.sum(0).sort().values, torch.tensor([0, 0, 0, 8, 8]))
    hole = inpainting.box((6, 9), (2, 3), (1, 5))
    assert int((~hole).sum()) == 6 and not hole[1:3, 5:8].any()
    assert int((~inpainting.box((6, 9), (2, 3), generator)).sum()) == 6
    middle = ~inpainting.centre((12, 8), 0.5)
    assert int(middle.sum()) == 24 and torch.equal(middle, middle.flip(0)) and torch.equal(middle, middle.flip(1))
    with pytest.raises(ValueError, match="reaches beyond"):
        inpainting.box((6, 9), (2, 3), (5, 0))
    same = [Inpainting().draw_mask((9, 9), torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(*same)
