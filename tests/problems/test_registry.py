"""Problems by name, and messages for what does not exist."""

import json

import pytest

from scidiff import problems


def test_every_name_makes_a_problem_with_json_configuration() -> None:
    assert problems.names() == sorted(problems.names())
    for name in problems.names():
        problem = problems.get(name)
        assert problem.name == name
        configuration = json.loads(json.dumps(problem.config()))
        assert problems.get(name, **configuration).config() == problem.config()


def test_unknown_names_and_parameters_are_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'mri'.*gaussian.*mri"):
        problems.get("mrii")
    with pytest.raises(ValueError, match="no parameter 'acceleratoin'.*did you mean 'acceleration'"):
        problems.get("mri", acceleratoin=4)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("mri", {"acceleration": 0.5}, "at least 1"),
        ("mri", {"pattern": "spiral"}, "random, uniform, poisson"),
        ("mri", {"calibration": 0}, "share of the lines"),
        ("mri", {"zeros": "maybe"}, "'missing' or 'measured'"),
        ("mri", {"map_sets": 3}, "1, 2 or 'auto'"),
        ("mri", {"noise": 0}, "positive"),
        ("mri", {"shape": (8, 8)}, "32 or more"),
        ("mri", {"tv_weight": -1}, "negative"),
        ("gaussian", {"observed": 0}, "share in"),
        ("gaussian", {"std": -1}, "std must be positive"),
        ("gaussian", {"shape": (100, 100)}, "at most 1024"),
    ],
)
def test_bad_parameters_are_refused(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problems.get(name, **parameters)
