"""Times of DYffusion against lists written by hand."""

from __future__ import annotations

import pytest

from scidiff.forecast.schedule import position, sampling_times, training_times


@pytest.mark.parametrize(
    ("horizon", "auxiliary", "schedule", "expected"),
    [
        (4, 0, "before_t1_only", [0, 1, 2, 3]),
        (3, 3, "before_t1_only", [0, 0.25, 0.5, 0.75, 1, 2]),
        (3, 1, "linear", [0, 0.5, 1, 1.5, 2]),
        (4, 2, "linear", [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2, 7 / 3, 8 / 3, 3]),
        (1, 0, "before_t1_only", [0]),
    ],
)
def test_training_times(horizon: int, auxiliary: int, schedule: str, expected: list[float]) -> None:
    assert training_times(horizon, auxiliary, schedule) == pytest.approx(expected)


@pytest.mark.parametrize(("horizon", "k", "n"), [(7, 25, 32), (16, 0, 16), (134, 0, 134)])
def test_published_settings_have_the_published_number_of_steps(horizon: int, k: int, n: int) -> None:
    assert len(training_times(horizon, k)) == n == horizon + k


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (None, [0, 0.2, 0.4, 0.6, 0.8, 1, 2]),
        ("only_dynamics", [0, 1, 2]),
        ("only_dynamics_plus1", [0, 0.5, 1, 2]),
        ("only_dynamics_plus2", [0, 1 / 3, 2 / 3, 1, 2]),
        ("only_dynamics_plus2_discrete", [0, 0.2, 0.6, 1, 2]),
        ("every2", [0, 0.2, 0.6, 1, 2]),
        ("every3rd", [0, 0.2, 0.8, 1, 2]),
        ("first1", [0, 0.2, 1, 2]),
        ("first0.5", [0, 0.2, 0.4, 1, 2]),
        ([0, 0.7, 1, 1.3, 2], [0, 0.7, 1, 1.3, 2]),
    ],
)
def test_sampling_times(select: str | list[float] | None, expected: list[float]) -> None:
    assert sampling_times(training_times(3, 4), select) == pytest.approx(expected)


@pytest.mark.parametrize("select", ["odd", "every0", "first2.5", [0, 2], [0, 1, 2, 3]])
def test_other_selections_are_refused(select: str | list[float]) -> None:
    with pytest.raises(ValueError, match="sampling"):
        sampling_times(training_times(3, 4), select)


def test_a_position_is_the_number_of_the_step_also_between_steps() -> None:
    times = training_times(3, 3)
    assert [position(times, t) for t in times] == pytest.approx(list(range(6)))
    assert position(times, 0.125) == pytest.approx(0.5) and position(times, 1.5) == pytest.approx(4.5)
    with pytest.raises(ValueError, match="outside"):
        position(times, 2.5)


@pytest.mark.parametrize(("horizon", "k", "name"), [(0, 0, "linear"), (2, -1, "linear"), (2, 0, "cosine")])
def test_bad_schedules(horizon: int, k: int, name: str) -> None:
    with pytest.raises(ValueError, match=r"horizon|schedule"):
        training_times(horizon, k, name)
