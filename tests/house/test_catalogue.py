"""Whatever can be named has a page in the documentation: with equation, reference, certificate, cost, explanation."""

import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def catalogue():
    from pathlib import Path

    path = Path(__file__).resolve().parents[2] / "docs" / "site" / "catalogue.py"
    spec = importlib.util.spec_from_file_location("catalogue", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["catalogue"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["catalogue"]


def test_nothing_is_missing(catalogue):
    assert catalogue.missing() == []


def test_every_registered_name_is_an_entry(catalogue):
    from scidiff import forecast, posterior, problems, samplers
    from scidiff.forecast.kinds import KINDS

    found = {(entry.kind, entry.name) for entry in catalogue.entries()}
    assert {("problems", name) for name in problems.names()} <= found
    assert {("samplers", name) for name in posterior.names()} <= found
    assert {("integrators", name) for name in samplers.__all__ if name != "Sampler"} <= found
    kinds = {kind.__name__ for kind in vars(forecast.base).values() if isinstance(kind, type)}
    assert kinds and KINDS and len([1 for kind, _ in found if kind == "forecasters"]) >= 14
    assert len([1 for kind, _ in found if kind == "operators"]) >= 55


def test_what_is_not_described_is_found(catalogue, monkeypatch):
    from scidiff import operators

    class Sharpen:
        """Nobody wrote a page for this."""

    monkeypatch.setattr(operators, "Sharpen", Sharpen, raising=False)
    monkeypatch.setattr(operators, "__all__", [*operators.__all__, "Sharpen"])
    catalogue.entries.cache_clear()
    lines = [line for line in catalogue.missing() if "Sharpen" in line]
    catalogue.entries.cache_clear()
    assert {line.rpartition(" ")[2] for line in lines} == {"equation", "reference", "certificate", "cost", "page"}
