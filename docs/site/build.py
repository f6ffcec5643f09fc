"""Builds the documentation as a site: pages, gallery and reference. `make docs` calls it.

Pages are those of docs/, the gallery is made of the examples (their question, their text, their code), the catalogue of
everything that has a name (`catalogue.py`: equation, reference, certificate, cost), the reference of the docstrings of
everything that packages export. Nothing is fetched. A page
that cannot be read, a link to a page that is not there and a docstring that is not valid end the build.

    python docs/site/build.py [FOLDER]        # default build/site
"""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import catalogue  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "scidiff": "Top level",
    "scidiff.problems": "Problems",
    "scidiff.operators": "Operators",
    "scidiff.posterior": "Posterior samplers",
    "scidiff.samplers": "Samplers of priors",
    "scidiff.priors": "Priors",
    "scidiff.forecast": "Forecasters",
    "scidiff.assimilation": "Assimilation",
    "scidiff.benchmark": "Benchmark",
    "scidiff.metrics": "Metrics",
    "scidiff.linalg": "Linear algebra",
    "scidiff.noise": "Noise",
    "scidiff.datasets": "Datasets",
    "scidiff.training": "Training",
    "scidiff.nn": "Networks",
    "scidiff.testing": "Tests of your own parts",
}


def pages(folder: Path) -> list[str]:
    """Copies docs/*.md; links that leave docs/ point to the repository's text instead. Returns their names.

    docs/README.md, the questions that pages answer and the words they use, becomes the page ``overview``.
    """
    names = []
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = re.sub(r"\]\((?:\.\./)+([\w./-]+)\)", r"] (`\1`)", path.read_text(encoding="utf-8"))
        text = re.sub(r"^```(bash|sh)$", "```shell", text, flags=re.MULTILINE)
        name = "overview" if path.name == "README.md" else path.stem
        (folder / f"{name}.md").write_text(text.replace("](README.md)", "](overview.md)"), encoding="utf-8")
        names.append(name)
    if (ROOT / "docs" / "figures").is_dir():
        shutil.copytree(ROOT / "docs" / "figures", folder / "figures")
    return names


def gallery(folder: Path) -> list[str]:
    """A page per example: its question, its text, its code."""
    (folder / "gallery").mkdir()
    names = []
    for path in sorted((ROOT / "examples").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        title, _, rest = (ast.get_docstring(ast.parse(source)) or path.stem).partition("\n")
        code = source.split('"""', 2)[2].strip()
        text = f"# {title.strip()}\n\n{rest.strip()}\n\n```shell\npython examples/{path.name}\n```\n"
        text += f"\n```python\n{code}\n```\n"
        (folder / "gallery" / f"{path.stem}.md").write_text(text, encoding="utf-8")
        names.append(f"gallery/{path.stem}")
    return names


def reference(folder: Path) -> list[str]:
    """A page per package with the docstrings of what it exports."""
    (folder / "api").mkdir()
    names = []
    for package, title in PACKAGES.items():
        module = importlib.import_module(package)
        exported = [name for name in module.__all__ if not name.startswith("_")]
        lines = [title, "=" * len(title), "", f"``{package}``", "", (module.__doc__ or "").strip(), ""]
        for name in sorted(exported, key=str.lower):
            thing = getattr(module, name)
            if isinstance(thing, type):
                lines += [f".. autoclass:: {package}.{name}", "   :no-index:", ""]
            elif callable(thing) and hasattr(thing, "__module__") and not isinstance(thing, type(sys)):
                lines += [f".. autofunction:: {package}.{name}", "   :no-index:", ""]
        (folder / "api" / f"{package}.rst").write_text("\n".join(lines), encoding="utf-8")
        names.append(f"api/{package}")
    return names


def index(folder: Path, parts: dict[str, list[str]]) -> None:
    """The first page: the README, then tables of contents."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = re.sub(r"\]\(docs/([\w.-]+\.md)(#[\w-]+)?\)", r"](\1\2)", readme)
    readme = re.sub(r"\(docs/figures/", "(figures/", readme)
    readme = re.sub(r"\]\((?!figures/|https?:|#|[\w-]+\.md)([\w./-]+)\)", r"] (`\1`)", readme)
    lines = [readme.replace("](README.md)", "](overview.md)")]
    for title, names in parts.items():
        lines += ["", "```{toctree}", ":caption: " + title, ":maxdepth: 1", ":hidden:", "", *names, "```"]
    (folder / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(target: str | Path = ROOT / "build" / "site") -> int:
    """Prepares the sources in TARGET/source and builds TARGET/html; the exit code of sphinx."""
    from sphinx.cmd.build import build_main

    target = Path(target)
    source = target / "source"
    if source.exists():
        shutil.rmtree(source)
    source.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("conf.py"), source)
    parts = {"Pages": pages(source), "Gallery": gallery(source), "Catalogue": catalogue.pages(source)}
    index(source, {**parts, "Reference": reference(source)})
    return build_main(["-q", "-W", "--keep-going", "-b", "html", str(source), str(target / "html")])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
