"""The script that writes data sets: what it takes from its flags, prints and refuses."""

import runpy
import sys
from pathlib import Path

import datasets
import pytest
from datasets import load_dataset

from lps_hf.data.dataset_folders import DATASET_KINDS, make_splits

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_dataset.py"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the script in this process."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["make_dataset.py", *map(str, flags)])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        finally:
            datasets.enable_progress_bars()

    return run


def test_flags_reach_the_rows(run, tmp_path, capsys):
    flags = ("--num_train", 6, "--num_validation", 0, "--num_test", 3, "--seed", 5, "--option", "sizes=[2, 4]")
    run("pattern", "--output_dir", tmp_path / "pattern", *flags, "--option", "num_colors=2")
    assert capsys.readouterr().out == f"{tmp_path / 'pattern'}: train 6, test 3; for node-classification\n"
    expected = make_splits("pattern", {"train": 6, "test": 3}, 5, options={"sizes": [2, 4], "num_colors": 2})
    loaded = load_dataset(str(tmp_path / "pattern"))
    assert {split: list(rows) for split, rows in loaded.items()} == expected


def test_images_have_named_classes(run, tmp_path):
    run("digits", "--output_dir", tmp_path / "digits", "--num_train", 3, "--num_validation", 2, "--num_test", 2)
    assert load_dataset(str(tmp_path / "digits"))["train"].features["label"].names == list("0123456789")


def test_help_names_every_kind_with_its_options(run, capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    for name, kind in DATASET_KINDS.items():
        assert f"  {name:<22}{kind.task}; options: {', '.join(kind.option_names()) or 'none'}\n" in text


def test_wrong_flags_are_refused(run, tmp_path, monkeypatch, capsys):
    out = ("--output_dir", tmp_path / "out")
    with pytest.raises(ValueError, match="option: expected name=value, got 'num_points'"):
        run("shapes", *out, "--option", "num_points")
    with pytest.raises(ValueError, match="'shapes' expects num_points, shapes, rotate, got 'points'"):
        run("shapes", *out, "--option", "points=3")
    with pytest.raises(SystemExit):
        run("cats", *out)
    assert "invalid choice: 'cats'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    # Before any row is drawn: a number of rows that would take hours.
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        run("nbody", "--output_dir", SCRIPT.parent, "--num_train", 10**9)
