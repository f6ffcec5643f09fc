"""Wheel, sdist and editable install are built and used; the list of packages equals the tree on disk."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("packaging")  # one worker builds once

FOLDERS = ("operators", "problems", "datasets")
USE = """
import importlib.util, pathlib, sys
import scidiff, scidiff.operators, scidiff.problems, scidiff.datasets, scidiff.cli.app
home = pathlib.Path(sys.argv[1]).resolve()
for module in (scidiff, scidiff.operators, scidiff.problems, scidiff.datasets, scidiff.cli.app):
    assert home in pathlib.Path(module.__file__).resolve().parents, f"{module.__name__} from {module.__file__}"
for name in ("operators", "problems"):
    assert importlib.util.find_spec(name) is None, f"{name} is importable at the top level"
found = importlib.util.find_spec("datasets")
assert found is None or home not in pathlib.Path(found.origin).resolve().parents
import importlib.metadata
print(importlib.metadata.version("scidiff-toolkit"), scidiff.__version__)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory, root) -> Path:
    """The tracked and new files of the repository, links kept, so that builds leave no traces in it."""
    target = tmp_path_factory.mktemp("source") / "scidiff"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if names.returncode:
        shutil.copytree(
            root, target, symlinks=True, ignore=shutil.ignore_patterns(".venv", "runs", ".git", "__pycache__")
        )
        return target
    for name in filter(None, names.stdout.decode().split("\0")):
        source = root / name
        if source.is_symlink() or source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    return target


@pytest.fixture(scope="module")
def built(copy, tmp_path_factory) -> Path:
    """Folder with the sdist, and with the wheel made from that sdist: what `python -m build` does."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy)
    return out


def run(*command, **environment) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")} | environment
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=env, timeout=250, cwd="/"
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def install(target: Path, *what) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "install", *options, "--target", target, *what)


def versions(path: Path, home: Path) -> list[str]:
    """Version of the distribution and of the package in a process that finds `path` before anything installed."""
    # PYTHONPATH alone does not read the .pth file of an editable install.
    program = f"import site; site.addsitedir({str(path)!r})\n{USE}"
    return run(sys.executable, "-c", program, home, PYTHONPATH=str(path)).split()


def test_list_of_packages_equals_the_tree(root):
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = ["scidiff"]
    for folder in ("scidiff", *FOLDERS):
        base = root / folder
        home = folder if folder == "scidiff" else f"scidiff.{folder}"
        for current, _, files in os.walk(base, followlinks=False):
            inner = Path(current).relative_to(base)
            if "__init__.py" in files and home != ".".join(("scidiff", *inner.parts)):
                found.append(".".join((home, *inner.parts)))
            elif any(name.endswith(".py") for name in files):
                assert "__init__.py" in files, f"{current} holds modules but no __init__.py"
    assert sorted(listed) == sorted(set(found))


def test_links_lead_to_the_folders(root):
    for name in FOLDERS:
        link = root / "scidiff" / name
        assert link.is_symlink() and os.readlink(link) == f"../{name}"


def test_wheel_holds_every_module_and_the_bundled_data(built, copy):
    (wheel,) = built.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        (path.relative_to(copy) if folder == "scidiff" else Path("scidiff") / path.relative_to(copy)).as_posix()
        for folder in ("scidiff", *FOLDERS)
        for path in (copy / folder).rglob("*")
        if path.suffix in (".py", ".safetensors", ".json") and path.is_file()
    }
    assert expected | {"scidiff/py.typed"} <= held
    assert not [name for name in held if not name.startswith(("scidiff/", "scidiff_toolkit-"))]


def test_installed_wheel_works(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    install(tmp_path, wheel)
    name, own = versions(tmp_path, tmp_path)
    assert name == own
    page = run(tmp_path / "bin" / "scidiff", "--help", PYTHONPATH=str(tmp_path))
    assert "doctor" in page


def test_installed_sdist_works(built, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    names = tarfile.open(sdist).getnames()
    assert any(name.endswith("/operators/__init__.py") for name in names)
    assert any(name.endswith("/LICENSE") for name in names)
    install(tmp_path, sdist)
    name, own = versions(tmp_path, tmp_path)
    assert name == own


def test_editable_install_works(copy, tmp_path):
    install(tmp_path, "--editable", copy)
    name, own = versions(tmp_path, copy)
    assert name == own
