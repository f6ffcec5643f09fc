"""The page of a benchmark in a real browser: tables are there, pictures load, a click on a column sorts it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from scidiff.benchmark.grid import benchmark

BROWSE = """
import json, sys
from PyQt6.QtCore import QTimer, QUrl
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

application = QApplication(sys.argv)
view = QWebEngineView()
view.resize(900, 700)
view.show()

def told(answer):
    print("answer", answer)
    application.quit()

def loaded(fine):
    if not fine:
        sys.exit("the page does not load")
    QTimer.singleShot(1500, lambda: view.page().runJavaScript(sys.argv[2], told))

view.loadFinished.connect(loaded)
view.load(QUrl.fromLocalFile(sys.argv[1]))
QTimer.singleShot(60000, lambda: sys.exit("no answer"))
application.exec()
"""

SCRIPT = """
(() => {
  const table = document.querySelectorAll("table")[2];
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex(h => h.textContent === "CRPS");
  const values = () => [...table.tBodies[0].rows].map(r => parseFloat(r.cells[column].dataset.value));
  heads[column].click();
  const up = values();
  heads[column].click();
  const down = values();
  document.querySelectorAll("img").forEach(i => i.loading = "eager");
  const images = [...document.images];
  return JSON.stringify({
    up, down, images: images.length, tables: document.querySelectorAll("table").length,
    broken: images.filter(i => i.complete && i.naturalWidth === 0).length,
    wide: document.documentElement.scrollWidth - innerWidth,
  });
})()
"""


def test_the_page_works_in_a_browser(tmp_path):
    if importlib.util.find_spec("PyQt6.QtWebEngineWidgets" if importlib.util.find_spec("PyQt6") else "PyQt6") is None:
        pytest.skip("no browser: the extra `browser` is not installed")
    benchmark(["exact-inpainting"], ["ddrm:steps=5", "mmps:steps=5"], seeds=[0, 1], members=4, output=tmp_path)
    quiet = {"QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_DISABLE_SANDBOX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BROWSE, str(tmp_path / "index.html"), SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, **quiet, "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu"},
        timeout=120,
    )
    if "libnss3" in done.stderr or "cannot open shared object" in done.stderr:
        pytest.skip("no browser: the system lacks a library that it needs")
    answer = next(line for line in done.stdout.splitlines() if line.startswith("answer"))
    found = json.loads(answer.removeprefix("answer "))
    assert found["tables"] == 4 and found["images"] == 7 and found["broken"] == 0
    assert len(found["up"]) == 3 and found["up"] == sorted(found["up"]) and found["down"] == found["up"][::-1]
    assert found["wide"] <= 0  # tables scroll by themselves
