"""Imports: cheap, lazy, complete, under the right name, and one door for optional packages."""

import subprocess
import sys
from importlib import import_module

import pytest

import scidiff
from scidiff.errors import MissingPackageError
from scidiff.optional import optional

PACKAGES = ("scidiff", "scidiff.operators", "scidiff.problems", "scidiff.datasets")
HEAVY = ("xarray", "deepinv", "matplotlib", "torch_harmonics", "h5py", "pandas", "scipy", "torchvision", "zarr", "pint")


def run(program: str, cwd=None) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "program",
    [
        "import scidiff",
        "import scidiff.cli.app",
        "import scidiff, scidiff.operators, scidiff.problems, scidiff.datasets",
    ],
)
def test_importing_packages_loads_neither_torch_nor_anything_heavy(program):
    assert (
        run(f"{program}\nimport sys; print(*[n for n in ('torch', 'numpy', *{HEAVY}) if n in sys.modules])").split()
        == []
    )


def test_methods_load_nothing_heavy_and_add_little_to_torch():
    """Target: 0.5 s beyond torch. Processor time, which other processes do not change."""
    program = f"""
import sys, time, torch
before, clock = set(sys.modules), time.process_time()
import scidiff
scidiff.Posterior, scidiff.Likelihood, scidiff.Ensemble, scidiff.Cost
scidiff.priors, scidiff.samplers, scidiff.posterior, scidiff.linalg, scidiff.metrics
print(time.process_time() - clock, *[name for name in {HEAVY} if name in sys.modules and name not in before])
"""
    seconds, *heavy = run(program).split()
    assert heavy == []
    assert float(seconds) < 0.5


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_can_be_imported(package):
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def test_star_import_and_version():
    assert scidiff.__version__.count(".") == 2
    names: dict = {}
    exec("from scidiff import *", names)
    assert names["Ensemble"] is scidiff.Ensemble and names["operators"] is scidiff.operators


@pytest.mark.parametrize("name", ["operators", "problems", "datasets"])
def test_plain_names_explain_themselves(name, root):
    program = f"try:\n    import {name}\nexcept ImportError as error:\n    print(error)"
    message = run(program, cwd=root)
    assert f"import scidiff.{name}" in message


def test_tests_cannot_shadow_other_packages(root):
    assert sys.path[-1] == str(root) or str(root) not in sys.path


def test_optional_returns_the_module():
    assert optional("numpy.linalg").__name__ == "numpy.linalg"


def test_missing_package_gives_one_pip_line():
    with pytest.raises(MissingPackageError, match="no_such_package is not installed") as caught:
        optional("no_such_package.part", extra="io")
    assert [line for line in str(caught.value).splitlines() if "pip install" in line] == [
        '    python -m pip install -c constraints.txt -e ".[io]"'
    ]
    with pytest.raises(MissingPackageError, match="pip install other-name"):
        optional("no_such_package", package="other-name")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ImportError('undefined symbol: _ZN3c10')", "undefined symbol"),
        ("raise OSError('libcuda.so: cannot open shared object file')", "libcuda.so"),
        ("raise RuntimeError('operator already registered')", "already registered"),
        ("import not_there_either", "not_there_either"),
    ],
)
def test_broken_package_counts_as_missing(tmp_path, monkeypatch, body, reason):
    (tmp_path / "scidiff_broken_example.py").write_text(body + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match=reason) as caught:
        optional("scidiff_broken_example", extra="ct")
    assert ".[ct]" in str(caught.value)
