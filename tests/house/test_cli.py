"""The command line: help, exit codes, what goes to which stream, listing, doctor."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from scidiff.cli import app as app_module
from scidiff.cli import doctor as doctor_module
from scidiff.cli.app import COMMANDS, Entry
from scidiff.cli.common import Json, emit, guarded, say
from scidiff.errors import InputError, Interrupted, MissingPackageError, NumericalError


def invoke(command, *arguments):
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(guarded(command))
    return CliRunner().invoke(app, list(arguments))


def test_help_is_quick_and_lists_the_commands():
    times = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "scidiff", "--help"], capture_output=True, text=True, timeout=120)
        after = os.times()
        # Processor time of the child: the same on a busy machine.
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert done.returncode == 0 and done.stderr == ""
    assert min(times) < 0.5
    for name in ("inspect", "list", "doctor"):
        assert f"  {name} " in done.stdout


def test_help_imports_no_command():
    program = (
        "import sys\nfrom scidiff.cli.app import main\nsys.argv = ['scidiff', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = [m for m in sys.modules if m in ('torch', 'numpy') or m.startswith('scidiff.cli.')]\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stderr.strip() == "['scidiff.cli.app', 'scidiff.cli.common']"


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the program in this process: call("list", "--json") -> exit code, stdout, stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scidiff", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app_module.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def test_every_existing_command_has_a_help_page(call):
    def pages(table, path=()):
        for name, entry in table.items():
            if app_module._exists(entry):
                yield (*path, name)
                if not isinstance(entry.target, str):
                    yield from pages(entry.target, (*path, name))

    for path in pages(COMMANDS):
        code, out, err = call(*path, "--help")
        assert (code, err) == (0, "") and out.startswith(f"Usage: scidiff {' '.join(path)} ")


def test_a_command_that_does_not_exist_yet_is_no_trouble(call, monkeypatch):
    table = {"ghost": Entry("scidiff.cli.no_such_file:ghost", "A ghost."), "list": COMMANDS["list"]}
    monkeypatch.setattr(app_module, "COMMANDS", table)
    code, out, _ = call("--help")
    assert code == 0 and "ghost" not in out and "  list " in out
    code, _, err = call("ghost")
    assert code == 2 and "No such command 'ghost'" in err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--version"], 0, "scidiff "),
        (["lst"], 2, "Did you mean 'list'?"),
        (["list", "--colour"], 2, "No such option"),
        (["list", "spoons"], 2, "spoons"),
        (["inspect"], 2, "Missing argument"),
        (["inspect", "no-such-file.nc"], 3, "no-such-file.nc: no such file"),
    ],
)
def test_exit_codes_of_the_program(call, arguments, code, text):
    ended, out, err = call(*arguments)
    assert ended == code, err
    assert text in (out if code == 0 else err)
    assert "Traceback" not in err
    assert code == 0 or out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("kspace has 2 dims"), 3),
        (MissingPackageError("ismrmrd is not installed"), 4),
        (NumericalError("mmps at sigma 3"), 5),
        (Interrupted("stopped after member 3"), 75),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("a bug"), 1),
        (ValueError("a bug"), 1),
        (typer.BadParameter("no such sampler"), 2),
        (typer.Exit(6), 6),
    ],
)
def test_errors_become_exit_codes(error, code):
    def command() -> None:
        raise error

    quiet = invoke(command)
    assert quiet.exit_code == code
    assert quiet.stdout == "" and "Traceback" not in quiet.stderr
    if str(error) and code != 6:
        assert str(error) in quiet.stderr
    if code in (1, 3, 4, 5, 75):
        loud = invoke(command, "-v")
        assert loud.exit_code == code
        assert "Traceback" in loud.stderr and loud.stdout == ""


def test_json_goes_to_stdout_and_the_rest_to_stderr():
    def command(json: Json = False) -> None:
        say("working")
        warnings.warn("chi2 is 2.1", stacklevel=1)
        emit({"chi2": float("nan"), "names": {"b", "a"}, "path": Path("a/b"), "n": 3, "json": json})

    done = invoke(command, "--json")
    assert json.loads(done.stdout) == {"chi2": None, "names": ["a", "b"], "path": "a/b", "n": 3, "json": True}
    assert done.stderr == "working\nwarning: chi2 is 2.1\n"


def test_ctrl_c_ends_with_130(tmp_path):
    """A real signal to a real process."""
    (tmp_path / "slow.py").write_text(
        "import signal, sys, time, typer\nfrom scidiff.cli.common import guarded\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in background jobs of a shell
        "def slow() -> None:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "app = typer.Typer()\napp.command()(guarded(slow))\napp()\n"
    )
    process = subprocess.Popen([sys.executable, tmp_path / "slow.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"ready"
    time.sleep(0.1)
    process.send_signal(2)
    _, messages = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in messages and b"Traceback" not in messages


def test_list_shows_what_the_registries_hold(call):
    code, out, err = call("list", "--json")
    assert code == 0, err
    tables = json.loads(out)
    assert list(tables) == ["samplers", "problems", "priors", "autoencoders", "forecasters", "operators", "datasets"]
    shipped = {row["name"]: row for row in tables["autoencoders"]}
    assert shipped["ct-autoencoder"]["kind"] == "stride 4, 2 : 1" and "FieldAutoencoder" in shipped
    assert not {row["name"] for row in tables["priors"]} & set(shipped)
    for row in tables["samplers"]:
        assert row["name"] and row["summary"] and isinstance(row["requires"], list)
    code, shown, _ = call("list")
    assert code == 0
    for rows in tables.values():
        assert all(row["name"] in shown for row in rows)
    code, one, _ = call("list", "samplers", "--json")
    assert json.loads(one) == {"samplers": tables["samplers"]}


def test_doctor_knows_versions_states_and_pip_lines(call, monkeypatch, tmp_path):
    real = doctor_module.requirements()
    assert {"nufft", "ct", "eht", "io", "dask", "test"} <= {
        m for line in real for m in re.findall(r"extra == .(\w+)", line)
    }
    (tmp_path / "h5netcdf_broken.py").write_text("raise OSError('libhdf5.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor_module, "IMPORT_NAMES", {"rich": "h5netcdf_broken"})
    chosen = [
        next(line for line in real if re.match(r"torch\s*\(?[<>=]", line)),
        "numpy<1.0",
        "rich>=1; extra == 'ct'",
        "no-such-package>=2; sys_platform != 'nowhere' and extra == \"io\"",
        "not-for-here; sys_platform == 'nowhere'",
    ]
    monkeypatch.setattr(doctor_module, "requirements", lambda: chosen)
    code, out, err = call("doctor", "--json")
    assert code == 0, err
    report = json.loads(out)
    rows = {row["package"]: row for row in report["packages"]}
    assert list(rows) == ["torch", "numpy", "rich", "no-such-package"]
    assert [row["state"] for row in rows.values()] == ["ok", "other version", "broken", "missing"]
    assert rows["torch"]["installed"] == importlib.metadata.version("torch")
    assert rows["torch"]["install"] == "" and "libhdf5.so" in rows["rich"]["why"]
    assert rows["no-such-package"]["install"].endswith('".[io]"')
    code, shown, _ = call("doctor")
    assert code == 0 and rows["no-such-package"]["install"] in shown

    monkeypatch.setattr(doctor_module, "requirements", lambda: ["no-such-package"])
    code, _, err = call("doctor")
    assert code == 4 and "needed but not usable: no-such-package" in err
