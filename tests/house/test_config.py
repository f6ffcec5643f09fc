"""Configuration: TOML, then -s key=value, checked by a model that knows every key."""

import pytest

from scidiff.cli.common import ConfigError, exit_code
from scidiff.cli.config import Config, load_config, parse_setting


class Solver(Config):
    steps: int = 64
    tolerance: float = 1e-3


class Run(Config):
    sampler: str
    members: int = 16
    solver: Solver = Solver()
    note: Solver | None = None


def test_later_sources_win(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('sampler = "dps"\nmembers = 4\n[solver]\nsteps = 8\n')
    run = load_config(Run, file, ["members=2", "solver.tolerance = 1e-5"], base={"members": 99, "sampler": "mmps"})
    assert run == Run(sampler="dps", members=2, solver=Solver(steps=8, tolerance=1e-5))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=3", 3), ("a=3.5", 3.5), ("a=true", True), ("a=mmps", "mmps"), ("a='1'", "1"), ("a=[1, 2]", [1, 2]),
        ("a=x=y", "x=y"), ("a=", ""), ("a=1\nb=2", "1\nb=2"),
    ],
)  # fmt: skip
def test_settings_are_toml_or_strings(text, value):
    assert parse_setting(text) == (("a",), value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["sampler=dps", "member=3"], "unknown key 'member'; did you mean 'members'?"),
        (["sampler=dps", "solver.step=3"], "unknown key 'solver.step'; did you mean 'solver.steps'?"),
        (["sampler=dps", "note.stps=3"], "did you mean 'note.steps'?"),
        (["sampler=dps", "zzz=3"], "known keys: sampler, members, solver, note"),
        (["sampler=dps", "members=many"], "'members': .*integer.*got 'many'"),
        (["members=3"], "'sampler' is required"),
        (["members"], "expected -s key=value"),
        (["a..b=1"], "expected -s key=value"),
    ],
)
def test_mistakes_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Run, settings=settings)
    assert exit_code(caught.value) == 2


def test_bad_files_are_named(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text("members = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml is not TOML"):
        load_config(Run, bad)
    with pytest.raises(ConfigError, match=r"none\.toml does not exist"):
        load_config(Run, tmp_path / "none.toml")
    bad.write_text('sampler = "dps"\nmebers = 3')
    with pytest.raises(ConfigError, match=r"bad\.toml: unknown key 'mebers'"):
        load_config(Run, bad)
