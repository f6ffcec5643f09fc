"""What a machine can see of the house rules: lint, floors, no pickles, no hosts or private paths, short files."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SOURCES = ("scidiff", "operators", "problems", "datasets")
CODE = (*SOURCES, "tests", "examples", "benchmarks")


def program(name: str) -> str:
    """A console script of the environment that runs the tests."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is not installed; it belongs to the extra [test]"
    return found


def lines_of(command: list[str], root: Path) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, "\n" + done.stdout + done.stderr
    return done.stdout


def python_files(root: Path, folders=CODE) -> list[Path]:
    files = [p for folder in folders for p in (root / folder).rglob("*.py") if not _through_link(p, root)]
    assert len(files) > 20
    return files


def _through_link(path: Path, root: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents if parent != root and root in parent.parents)


def tracked(root: Path) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [
        p for name in done.stdout.decode().split("\0") if name and (p := root / name).is_file() and not p.is_symlink()
    ]


def test_ruff(root):
    lines_of([program("ruff"), "check", "--no-cache", "--output-format=concise", "."], root)


def test_floors(root):
    assert "0 broken" in lines_of([program("lint-imports"), "--no-cache"], root)


def test_floors_are_seen_through_the_links(root, tmp_path):
    """A forbidden import in operators/ breaks the contract: the check looks there."""
    for name in ("pyproject.toml", *SOURCES):
        source = root / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tmp_path / name)
    (tmp_path / "operators" / "wrong.py").write_text("import scidiff.posterior\n")
    command = [program("lint-imports"), "--no-cache"]
    # The copy must be the package that is analysed, also where another is installed.
    environment = {"PYTHONPATH": str(tmp_path), "PATH": str(Path(sys.executable).parent)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 1
    assert "scidiff.operators.wrong -> scidiff.posterior" in done.stdout


def test_nothing_reads_or_writes_pickles(root):
    found = []
    for path in python_files(root, (*SOURCES, "examples", "benchmarks")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                bad = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"} & set(names)
            elif isinstance(node, ast.Attribute):
                bad = {ast.unparse(node)} & {"torch.load", "torch.save", "numpy.load_pickle"}
            elif isinstance(node, ast.keyword):
                allows = isinstance(node.value, ast.Constant) and node.value.value
                bad = {node.arg} if (node.arg == "allow_pickle" and allows) else set()
                bad |= {node.arg} if (node.arg == "weights_only" and not allows) else set()
            else:
                continue
            found += [f"{path.relative_to(root)}:{getattr(node, 'lineno', '?')} {name}" for name in bad]
    assert not found, found


def test_no_hosts_and_no_private_paths(root):
    """Nothing depends on a place: installation names no index, texts name no home or scratch folder."""
    private = re.compile(r"(?<![\w.~-])/(?:home|Users|root|work|tmp|mnt|opt|scratch|data)/[\w.-]+")
    install = re.compile(
        r"index-url|find-links|trusted-host|--index|https?://(?:\d|localhost|[\w.-]*pypi)", re.IGNORECASE
    )
    found = []
    for path in tracked(root):
        if path == Path(__file__).resolve() or path.stat().st_size > 2**20 or b"\0" in path.read_bytes()[:1024]:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := private.search(line) or install.search(line):
                found.append(f"{path.relative_to(root)}:{number} {match.group(0)}")
    assert not found, found


def test_readme_names_the_right_distribution(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"pip install (-U |--upgrade )?[\"']?scidiff(?!-toolkit)\b", text)


def test_files_are_short(root):
    long = {
        p.relative_to(root).as_posix(): n for p in python_files(root) if (n := len(p.read_text().splitlines())) > 400
    }
    assert not long, f"a file is one idea, at most 400 lines: {long}"


def test_pins_hold_the_bounds(root):
    """Every requirement has a pin, and the pin lies inside its bounds."""
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(
        line.split("==")
        for line in (root / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins.values()), "plain versions only"
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for group in project["optional-dependencies"].values() for line in group),
    ]
    for line in wanted:
        need = Requirement(line)
        assert need.specifier.contains(pins[canonicalize_name(need.name)], prereleases=True), line


def test_pins_can_be_installed_on_the_oldest_python(root):
    """What is installed here at its pin says that it runs on every Python that the project promises."""
    import tomllib
    from importlib.metadata import distributions

    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    pins = dict(line.split("==") for line in (root / "constraints.txt").read_text().splitlines() if "==" in line)
    promised = tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = promised.removeprefix(">=") + ".0"
    pinned = [d for d in distributions() if pins.get(canonicalize_name(d.metadata["Name"])) == d.version]
    assert len(pinned) > 30
    refused = [
        f"{d.metadata['Name']} {d.version}"
        for d in pinned
        if oldest not in SpecifierSet(d.metadata.get("Requires-Python") or "")
    ]
    assert not refused, f"{refused} need a newer Python than {oldest}"
