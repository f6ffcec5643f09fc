"""What the README shows works."""

import re


def test_the_exact_example_runs_and_agrees_with_the_truth(root):
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "prior.condition" in block]
    names: dict = {}
    exec(example, names)
    ensemble, exact = names["ensemble"], names["exact"]
    assert ensemble.samples.shape == (512, 1, 8)
    deviation = exact.covariance.diagonal().sqrt()
    error = (ensemble.mean[0] - exact.mean).abs() / deviation
    assert float(error.max()) < 0.25  # 512 members: standard error 0.044
    assert float((ensemble.spread[0] / deviation - 1).abs().max()) < 0.15  # standard error 0.03


def test_commands_are_those_of_the_makefile(root):
    """The plain lines behind `make` are the lines of the Makefile."""
    readme, makefile = ((root / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile"))
    for line in ("scidiff demo --out runs/demo", '-c constraints.txt -e ".[test]"', "--dist loadgroup"):
        assert line in readme and line in makefile


def test_commands_shown_exist(root):
    from scidiff.cli.app import COMMANDS

    shown = set(re.findall(r"^scidiff ([a-z]+)", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert shown and shown <= set(COMMANDS)


def test_every_sampler_problem_and_forecaster_is_named(root):
    from scidiff import forecast, posterior, problems

    text = (root / "README.md").read_text(encoding="utf-8")
    words = set(re.findall(r"`([^`\n]+)`", text))
    patterns = [re.escape(word).replace(r"\*", "[a-z-]+") for word in words if word.endswith("-*")]
    kinds = [k for n in forecast.__all__ if isinstance(k := getattr(forecast, n), type)]
    named = [*posterior.names(), *problems.names()]
    named += [k.__name__ for k in kinds if issubclass(k, forecast.Forecaster) and k is not forecast.Forecaster]
    missing = [n for n in named if n not in words and not any(re.fullmatch(p, n) for p in patterns)]
    assert missing == []
