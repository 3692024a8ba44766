"""Fixtures of the benchmarks: a script as its names, and a run of it with some flags. A test file that uses them has `SCRIPT`."""

import runpy
import sys
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def script(request):
    """What the script defines."""
    return SimpleNamespace(**runpy.run_path(str(request.module.SCRIPT)))


@pytest.fixture
def run(request, script, monkeypatch, capsys):
    """Run the script with the file's `TINY` flags and some more; returns what it prints on standard output."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", [str(request.module.SCRIPT), *request.module.TINY, *flags])
        script.main()
        return capsys.readouterr().out

    return run
