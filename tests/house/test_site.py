"""The documentation site builds without a network and without a warning, and holds every page, example and package."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.timeout(600)
def test_the_site_builds(root, tmp_path):
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    pytest.importorskip("myst_parser", reason="the extra `docs` is not installed")
    pytest.importorskip("furo", reason="the extra `docs` is not installed")
    command = [sys.executable, str(root / "docs" / "site" / "build.py"), str(tmp_path)]
    offline = {**os.environ, "http_proxy": "localhost:9", "https_proxy": "localhost:9"}
    done = subprocess.run(command, capture_output=True, text=True, env=offline, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    html = tmp_path / "html"
    for page in (root / "docs").glob("*.md"):
        assert page.name == "README.md" or (html / f"{page.stem}.html").is_file()
    for example in (root / "examples").glob("*.py"):
        assert example.read_text().split('"""')[1].split("\n")[0].strip("? ") in (
            (html / "gallery" / f"{example.stem}.html").read_text().replace("&#39;", "'").replace("’", "'")
        )
    for page in ("operators-Mask", "problems-mri", "samplers-mmps", "integrators-Heun", "forecasters-DYffusion"):
        text = (html / "catalogue" / f"{page}.html").read_text()
        assert all(f">{head}<" in text for head in ("Reference", "Certificate", "Cost", "Class")), page
    text = (html / "api" / "scidiff.posterior.html").read_text()
    from scidiff import posterior

    missing = [name for name in posterior.__all__ if f">{name}<" not in text and name[0].isupper()]
    assert not missing
