"""What all problems on a grid share, tried on the smallest one: every second row of a field."""

import numpy as np
import pytest
import torch
import xarray as xr

import scidiff
from scidiff.errors import InputError
from scidiff.operators import Mask
from scidiff.priors import GaussianPrior
from scidiff.problems.imaging import GridProblem, axes


class Rows(GridProblem):
    """Rows 0, 2, 4, ... of a field."""

    name, field, units, measured_units, measured_dims = "rows", "height", "m", "m", ("row", "column")

    def __init__(self, noise: float = 0.5, shape: tuple[int, int] = (6, 11), prior=None, seed: int = 0) -> None:
        law = GaussianPrior(torch.full((1, *shape), 10.0), torch.eye(shape[0] * shape[1]) * 4)
        super().__init__(locals(), prior or law, noise, seed)
        self.shape = shape

    def operator(self, observation):
        seen = torch.zeros(self.shape, dtype=torch.bool)
        seen[::2] = True
        return Mask(seen)

    def setting(self, truth):
        return self.complete(xr.Dataset(coords=axes(("row", "column"), (3, 11), units="km")), "the setting")

    def measurement(self, observation):
        return super().measurement(observation).flatten(-2)

    def to_array(self, z):
        return z[0, 0].reshape(3, 11).numpy()

    def field_coords(self, observation):
        return axes(("y", "x"), self.shape, units="km")

    def simulate(self, index, generator):
        x = self.template(xr.Dataset()).copy(data=self.prior.sample(1, generator)[0, 0].numpy())
        return x, self.observe(x.to_dataset(), generator)

    def classical(self, operator, y, observation):
        return {"back": operator.adjoint(y)}


@pytest.fixture(scope="module")
def problem() -> Rows:
    return Rows()


def test_a_case_is_what_the_operator_and_noise_say(problem: Rows) -> None:
    case = problem.case(3)
    xr.testing.assert_identical(case.observation, problem.case(3).observation)
    noise = case.observation["observation"].values - case.truth["height"].values[::2]
    assert 0.3 < noise.std() < 0.7 and case.observation["observation"].attrs["units"] == "m"
    part = problem.posterior(case.observation).likelihood
    values = torch.as_tensor(case.observation["observation"].values)
    torch.testing.assert_close(part.y[0, 0].reshape(3, 11), values)


def test_read_takes_files_arrays_other_units_and_the_field_s_dimensions(problem: Rows, tmp_path) -> None:
    observation = problem.case(0).observation
    observation.to_netcdf(tmp_path / "rows.nc", engine="h5netcdf")
    xr.testing.assert_allclose(problem.read(tmp_path / "rows.nc"), observation)
    read = problem.read(observation["observation"].values)
    np.testing.assert_array_equal(read["observation"].values, observation["observation"].values)
    assert float(read["noise_std"]) == 0.5
    centimetres = observation.assign(observation=(observation["observation"] * 100).assign_attrs(units="cm"))
    xr.testing.assert_allclose(problem.read(centimetres), observation)
    xr.testing.assert_allclose(problem.read(observation.rename(row="y", column="x")), observation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.rename(observation="data"), "expected a variable 'observation'"),
        (lambda o: o.isel(row=0), r"dimensions \('column',\)"),
        (lambda o: o.assign(observation=o["observation"].assign_attrs(units="K")), "do not measure the same"),
        (lambda o: o.drop_attrs(), "no units attribute, expected 'm'"),
        (lambda o: o.assign(observation=(o["observation"] + 1j).assign_attrs(units="m")), "complex"),
        (lambda o: o.assign(observation=o["observation"].where(o["column"] > 0)), "3 NaN"),
        (lambda o: o.assign(noise_std=((), -1.0)), "'noise_std' must be positive"),
        (lambda o: o["observation"].values[0], r"shape \(11,\)"),
        (lambda o: "nowhere.nc", "nowhere.nc: there is no such file"),
    ],
)
def test_wrong_observations_are_named(problem: Rows, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        problem.read(change(problem.case(0).observation))


def test_scores_come_from_a_result_and_from_its_definition(problem: Rows) -> None:
    case = problem.case(1)
    result = scidiff.reconstruct(problem, case.observation, members=64, truth=case.truth)
    scores = problem.evaluate(result, case.truth)
    mean, truth = result["height"].mean("member").values, case.truth["height"].values
    assert float(scores["rmse"]) == pytest.approx(np.sqrt(((mean - truth) ** 2).mean()), rel=1e-5)
    peak = truth.max() - truth.min()
    assert float(scores["psnr"]) == pytest.approx(20 * np.log10(peak / float(scores["rmse"])), rel=1e-5)
    back = result["observation"].values
    other = np.zeros_like(truth)
    other[::2] = back
    assert float(scores["rmse_back"]) == pytest.approx(np.sqrt(((other - truth) ** 2).mean()), rel=1e-5)
    residual = (result["height"].values[:, ::2] - back) / 0.5
    assert float(scores["chi2"]) == pytest.approx((residual**2).mean(), rel=1e-4)
    assert 0.75 < float(scores["coverage_90"]) <= 1 and 0.7 < float(scores["spread_skill"]) < 1.4
    assert scores["rmse"].attrs["units"] == "m" and scores["psnr_back"].attrs["units"] == "dB"
    assert set(problem.evaluate(result).data_vars) == {"chi2"}
    assert len(problem.plot(result).axes) >= 4


def test_a_prior_of_another_size_is_named(problem: Rows) -> None:
    other = Rows(prior=GaussianPrior(torch.zeros(1, 4, 4), torch.eye(16)))
    with pytest.raises(InputError, match=r"\(1, 4, 4\), but this field needs \(1, 6, 11\)"):
        other.posterior(problem.case(0).observation)


def test_members_that_miss_the_data_are_called_so(problem: Rows) -> None:
    """Two members two noise deviations off warn; two copies of the truth do not."""
    import warnings

    case = problem.case(0)
    truth = case.truth["height"].values
    for offset, misses in ((0.0, False), (1.0, True)):
        members = (("member", "y", "x"), np.stack([truth + offset, truth + offset]))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            scores = problem.evaluate(case.observation.assign(height=members))
        assert (float(scores["chi2"]) > 1.5) == misses == any("members miss the data" in str(w.message) for w in said)
