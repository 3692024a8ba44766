"""A checkpoint folder, labelled rows in a file and as a data set, and a command line that is run in this process."""

import json

import datasets
import pytest

from lps_hf import cli
from lps_hf.hub import save_checkpoint
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import random_rows, save_dataset, tiny_classifier


@pytest.fixture(autouse=True)
def _caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def checkpoint(tmp_path):
    model = tiny_classifier()
    return str(save_checkpoint(model, LPSProcessor.from_config(model.config), tmp_path / "checkpoint"))


@pytest.fixture
def rows_file(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in random_rows(6)))
    return str(file)


@pytest.fixture
def dataset(tmp_path):
    return save_dataset(tmp_path / "graphs", train=random_rows(8), test=random_rows(6, seed=1))


@pytest.fixture
def run(capsys):
    """Runs a command; returns what it printed on stdout, from JSON where that was asked for."""

    def run(*arguments, code=0):
        assert cli.main([str(argument) for argument in arguments]) == code, capsys.readouterr().err
        output = capsys.readouterr().out
        return json.loads(output) if "--json" in arguments else output

    return run


@pytest.fixture
def refusal(capsys):
    """Runs a command that has to fail; returns the one line on stderr that says why."""

    def refusal(*arguments):
        assert cli.main([str(argument) for argument in arguments]) == 1
        output = capsys.readouterr()
        assert not output.out
        (line,) = (line for line in output.err.splitlines() if line.startswith("lps-hf: "))
        return line

    return refusal
