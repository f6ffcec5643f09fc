"""What tests of commands share."""

from __future__ import annotations

import signal
import sys

import pytest


@pytest.fixture
def scidiff(monkeypatch, capsys):
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*words):
        from scidiff.cli.app import main

        monkeypatch.setattr(sys, "argv", ["scidiff", *map(str, words)])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            signal.signal(signal.SIGTERM, handler)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
