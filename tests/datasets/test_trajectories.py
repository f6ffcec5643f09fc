"""Trajectories by name: coordinates, units, split, and that the attributes make them again."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scidiff.datasets import part_of, trajectories
from scidiff.datasets.stochastic_transport import law_of
from scidiff.errors import InputError

SMALL = {"grid": (4, 6), "times": 5, "train": 3, "validation": 1, "test": 2, "seed": 3}


COUNTS = {"times": 3, "train": 2, "validation": 1, "test": 1, "seed": 3}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("stochastic-transport", {**SMALL, "drag": 0.1}),
        ("spring-mesh", {**COUNTS, "grid": (3, 4), "radius": (0.1, 0.2)}),
        ("obstacles", {**COUNTS, "rows": 6, "discs_each": 1}),
        ("kolmogorov", {**COUNTS, "grid": (16, 20), "start": 0.5, "dt": 1 / 32, "forcing": 2}),
        ("lorenz96", {**COUNTS, "size": 6, "burn_in": 0.2, "noise": 0.1}),
    ],
)
def test_the_attributes_make_the_dataset_again(name: str, options: dict) -> None:
    data = trajectories(name, **options)
    assert all("units" in array.attrs for array in data.data_vars.values())
    options = {k: v for k, v in data.attrs.items() if k != "simulator"}
    xr.testing.assert_identical(trajectories(data.attrs["simulator"], **options), data)


def test_coordinates_units_and_split() -> None:
    data = trajectories("stochastic-transport", **SMALL)
    assert data.tracer.dims == ("trajectory", "time", "y", "x") and data.tracer.attrs["units"] == "1"
    assert (np.diff(data.time) == np.timedelta64(1, "s")).all()
    assert [part_of(data, p).sizes["trajectory"] for p in ("train", "validation", "test")] == [3, 1, 2]
    with pytest.raises(InputError, match="kept for 'validation'"):
        part_of(trajectories("stochastic-transport", **{**SMALL, "validation": 0}), "validation")


def test_a_trajectory_is_the_same_however_many_there_are() -> None:
    few, many = (trajectories("stochastic-transport", **{**SMALL, "train": n}).tracer.values for n in (1, 7))
    np.testing.assert_allclose(few[0], many[0], rtol=0, atol=1e-6)


def test_steps_have_the_law_that_the_attributes_tell() -> None:
    """One-step errors of 8000 numbers: their variance is that of the law within 10 %."""
    import torch

    data = trajectories("stochastic-transport", **{**SMALL, "train": 80})
    law, x = law_of(data), torch.from_numpy(part_of(data, "train").tracer.values).double()
    error = x[:, 1:] - law.mean(x[:, :-1])
    assert float(error.square().mean()) == pytest.approx(law.std(1) ** 2, rel=0.1)


def test_says_what_is_wrong() -> None:
    with pytest.raises(InputError, match="did you mean 'stochastic-transport'"):
        trajectories("stochastic-transprt")
    with pytest.raises(InputError, match="no option 'drga'; did you mean 'drag'"):
        trajectories("stochastic-transport", drga=1)
    with pytest.raises(InputError, match="drag > 0"):
        trajectories("stochastic-transport", **{**SMALL, "drag": -1.0})
