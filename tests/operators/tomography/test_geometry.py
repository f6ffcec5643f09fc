"""What constructors accept, refuse and say."""

import numpy as np
import pint
import pytest
import torch

from scidiff.operators import FanBeam, ParallelBeam
from scidiff.operators.tomography import AstraProjector, Ellipse, ellipse_sinogram

UNITS = pint.UnitRegistry()
VIEWS = np.arange(0, 180, 12.0)


def test_units_are_converted() -> None:
    plain = ParallelBeam((6, 9), VIEWS, pixel=(0.5, 0.7), bin_width=0.6)
    mixed = ParallelBeam(
        (6, 9), np.deg2rad(VIEWS) * UNITS.radian, pixel=[0.05, 0.07] * UNITS.cm, bin_width=600 * UNITS.micrometer
    )
    assert abs(plain.matrix() - mixed.matrix()).max() < 1e-14
    assert plain.bins == mixed.bins and torch.allclose(plain.angles, mixed.angles)
    tube = FanBeam((6, 9), VIEWS, source_distance=0.2 * UNITS.m, detector_distance=10 * UNITS.cm, pixel=500 * UNITS.um)
    same = FanBeam((6, 9), VIEWS, source_distance=200, detector_distance=100, pixel=0.5)
    assert abs(tube.matrix() - same.matrix()).max() < 1e-14
    metres = Ellipse(20 / UNITS.m, (1 * UNITS.mm, 0), (0.2 * UNITS.cm, 1.0), 0.5 * UNITS.radian)
    other = Ellipse(0.02, (1, 0), (2.0, 1.0), np.rad2deg(0.5))
    assert torch.allclose(ellipse_sinogram(plain, [metres]), ellipse_sinogram(plain, [other]))


def test_lengths_change_the_units_of_the_answer_only() -> None:
    x = torch.rand(1, 1, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near, far = (ParallelBeam((6, 9), VIEWS, pixel=p) for p in (1.0, 0.01))
    assert torch.allclose(far(x), 0.01 * near(x))
    assert torch.allclose(far.fbp(far(x)), near.fbp(near(x)))


REFUSED = {
    "radians": (lambda: ParallelBeam((8, 8), np.linspace(0, np.pi, 30)), "look like radians.*rad2deg"),
    "bare ratio as angle": (
        lambda: ParallelBeam((8, 8), UNITS.Quantity(VIEWS, "dimensionless")), "angles has units.*degree"
    ),
    "length as angle": (lambda: ParallelBeam((8, 8), VIEWS * UNITS.mm), "angles has units 'millimeter'"),
    "angle as length": (lambda: ParallelBeam((8, 8), VIEWS, pixel=1 * UNITS.degree), "pixel has units 'degree'"),
    "no pixel": (lambda: ParallelBeam((8, 8), VIEWS, pixel=0.0), "pixel must be a positive length"),
    "three pixels": (lambda: ParallelBeam((8, 8), VIEWS, pixel=(1, 1, 1)), "one length or"),
    "unknown angle": (lambda: ParallelBeam((8, 8), [0.0, float("nan")]), "angles must be finite"),
    "no angles": (lambda: ParallelBeam((8, 8), []), "one dimension"),
    "volume": (lambda: ParallelBeam((8, 8, 8), VIEWS), "shape must be"),
    "half a bin": (lambda: ParallelBeam((8, 8), VIEWS, bins=8.5), "bins must be a positive whole number"),
    "field too wide": (lambda: ParallelBeam((8, 8), VIEWS, bins=5), "field is wider than the detector"),
    "axis too far": (lambda: ParallelBeam((8, 8), VIEWS, bins=9, centre=1.0), "inscribed ellipse.*up to 4 mm"),
    "no such word": (lambda: ParallelBeam((8, 8), VIEWS, truncation="no"), "truncation must be"),  # type: ignore
    "source inside": (
        lambda: FanBeam((8, 8), VIEWS, source_distance=5, detector_distance=5), "the source is 5 mm.*inside the field"
    ),
    "fan too wide": (
        lambda: FanBeam((8, 8), VIEWS, source_distance=20, detector_distance=20, bins=5), "wider than the detector"
    ),
    "no such detector": (
        lambda: FanBeam((8, 8), VIEWS, source_distance=9, detector_distance=5, detector="round"),  # type: ignore
        "'flat' or 'arc'",
    ),
    "ASTRA's arc": (
        lambda: AstraProjector(FanBeam((8, 8), VIEWS, source_distance=9, detector_distance=5, detector="arc"), "line"),
        "flat detector",
    ),
    "ASTRA's pixels": (lambda: AstraProjector(ParallelBeam((8, 8), VIEWS, pixel=(1, 2))), "square pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_few_or_named_angles_are_no_radians() -> None:
    assert ParallelBeam((8, 8), [0.0, 1.5, 3.0]).views == 3
    assert ParallelBeam((8, 8), np.linspace(0, 3, 30) * UNITS.degree).views == 30
    assert ParallelBeam((8, 8), [0.0] * 20).views == 20


def test_truncation_as_the_user_likes() -> None:
    with pytest.warns(UserWarning, match="wider than the detector"):
        warned = ParallelBeam((8, 8), VIEWS, bins=5, truncation="warn")
    silent = ParallelBeam((8, 8), VIEWS, bins=5, truncation="ignore")
    assert abs(warned.matrix() - silent.matrix()).max() == 0
    # Only what views miss counts: a flat field seen from above, an axis off the middle in a full turn.
    assert ParallelBeam((20, 6), [0.0, 10.0], bins=9).bins == 9
    assert ParallelBeam((8, 8), np.arange(0, 360, 9.0), bins=7, centre=1.5).bins == 7


def test_wrong_shapes_say_what_was_expected() -> None:
    operator = ParallelBeam((6, 9), VIEWS, bins=12)
    with pytest.raises(ValueError, match=r"\(B, C, 6, 9\)"):
        operator(torch.zeros(1, 6, 9))
    for call in (operator.adjoint, operator.fbp):
        with pytest.raises(ValueError, match=r"\(B, C, 15, 12\)"):
            call(torch.zeros(1, 1, 12, 15))
    assert "6, 9" in repr(operator) and "12 bins" in repr(operator)
