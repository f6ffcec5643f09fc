import json

import numpy as np
import pytest
import xarray as xr

from scidiff.plots import result_figure


def result(members=6, truth=True, dtype=np.complex64, seed=0):
    """Truth and members drawn from one Gaussian law, so that the picture's z-scores have a known law."""
    rng = np.random.default_rng(seed)

    def draw(n):
        noise = rng.normal(size=(n, 1, 60, 80))
        return (noise + 1j * rng.normal(size=noise.shape) if np.issubdtype(dtype, np.complexfloating) else noise) * 2

    centre = 30 * np.hypot(*np.mgrid[-1:1:60j, -1:1:80j])[None]
    fields = (centre + draw(members)).astype(dtype)
    numbers = (members - 1) * (2 if fields.dtype.kind == "c" else 1)
    spread = np.sqrt((np.abs(fields - fields.mean(0)) ** 2).sum(0) / numbers)
    coords = {"y": ("y", np.arange(60) * 2.0, {"units": "mm"}), "x": ("x", np.arange(80.0), {"units": "mm"})}
    dims = ("set", "y", "x")
    data = xr.Dataset({"image": (("member", *dims), fields)}, coords)
    data["image_mean"] = (dims, fields.mean(0), {"units": "mV"})
    data["image_spread"], data["zero_filled"] = (dims, spread), (dims, np.abs(fields[0]))
    data["chi2"] = ("member", np.ones(members))
    data.attrs["configuration"] = json.dumps({"problem": {"name": "mri"}, "sampler": {"name": "mmps"}})
    return data.assign(truth=(dims, (centre + draw(1)[0]).astype(dtype))) if truth else data


def titles(figure):
    return [axis.get_title(loc="left") for axis in figure.axes if axis.get_title(loc="left")]


def test_panels_units_and_physical_aspect():
    figure = result_figure(result(), "zero_filled")
    assert titles(figure)[:7] == [
        "Truth", "Zero filled", "Mean", "One sample", "Spread (standard deviation)", "Error of the mean", "z-score",
    ]  # fmt: skip
    image = figure.axes[0].images[0]
    assert image.get_extent() == [-0.5, 79.5, 119.0, -1.0] and figure.axes[0].get_aspect() == 1
    assert figure.axes[0].get_ylabel() == "y (mm)" and figure.axes[0].child_axes[0].get_ylabel() == "mV"
    assert "χ² 1.00" in figure.get_suptitle()


def test_temperatures_are_not_drawn_around_zero():
    """A field far from zero spans the colours, with holes in the direct image too; one of both signs is symmetric."""
    warm = result(dtype=np.float64)
    names = [n for n in warm.data_vars if n not in ("chi2", "image_spread")]
    warm = warm.assign({n: (warm[n] + 280.0).assign_attrs(warm[n].attrs) for n in names})
    warm["zero_filled"] = warm["zero_filled"].where(warm["x"] > 5).assign_attrs(long_name="observed, missing elsewhere")
    figure = result_figure(warm, "zero_filled")
    assert titles(figure)[1] == "Observed"
    for axis in figure.axes[:4]:
        low, high = axis.images[0].get_clim()
        assert 275 < low < 285 and 300 < high < 340 and axis.images[0].get_cmap().name == "viridis"
    signed = result(dtype=np.float64)
    signed = signed.assign({n: (signed[n] - 15.0) for n in names})
    low, high = result_figure(signed, "zero_filled").axes[0].images[0].get_clim()
    assert low == -high


def test_without_the_truth_no_error_is_drawn():
    found = titles(result_figure(result(truth=False)))
    assert found == ["Zero filled", "Mean", "One sample", "Spread (standard deviation)"]


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("members", [2, 6])
def test_z_scores_of_exact_draws_have_the_law_that_is_drawn(dtype, members):
    figure = result_figure(result(members, dtype=dtype), "zero_filled")
    (text,) = (t.get_text() for axis in figure.axes for t in axis.texts)
    share = float(text.split(" %")[0])
    assert abs(share - 90) < 4 * 100 * (0.9 * 0.1 / 4800) ** 0.5, text  # four standard errors of 4800 pixels


def test_a_field_on_a_line_is_a_fan():
    data = result(dtype=np.float32).isel(set=0, y=30)
    figure = result_figure(data)
    assert [line.get_label() for line in figure.axes[0].lines][-2:] == ["mean", "truth"]


def test_a_dataset_without_mean_is_refused():
    with pytest.raises(ValueError, match="holds no '<field>_mean'"):
        result_figure(xr.Dataset({"a": ("x", [1.0])}))
