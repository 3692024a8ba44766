"""The card of a made data set: a header that the Hub reads, and figures that are those of the rows."""

import re
import runpy
import shlex
import sys
from functools import partial
from pathlib import Path

import datasets
import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import DatasetCard

from lps_hf.data.dataset_folders import DATASET_KINDS, make_splits, save_splits
from lps_hf.hub.dataset_card import make_dataset_card
from lps_hf.hub.dataset_texts import KIND_TEXTS

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_dataset.py"
OPTIONS = {
    "pattern": {"sizes": [2, 4], "num_communities": 2},
    "nbody": {"first_step": 4, "num_steps": 3},
    "circular-skip-links": {"num_nodes": 13, "skips": [2, 3, 5]},
    "shapes": {"num_points": 8},
    "digits": {"scale": 1},
}
GENERATED = [name for name, kind in DATASET_KINDS.items() if kind.source is None]


@pytest.fixture(autouse=True)
def _datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def save(kind, folder, sizes, seed=0, **given):
    options, definition = OPTIONS.get(kind, {}), DATASET_KINDS[kind]
    make_card = partial(make_dataset_card, kind, seed=seed, options=options, **given)
    rows = make_splits(kind, sizes, seed, options=options)
    return save_splits(rows, folder, definition.class_names, definition.task, make_card)


def test_every_kind_has_a_text():
    assert set(KIND_TEXTS) == set(DATASET_KINDS)


@pytest.mark.parametrize("kind", GENERATED)
def test_header_and_tables_are_those_of_the_folder(kind, tmp_path):
    folder = save(kind, tmp_path / "set", {"train": 12, "test": 6})
    card = DatasetCard.load(folder / "README.md")
    loaded = load_dataset(str(folder))  # which takes splits and types from the header
    header = card.data.to_dict()
    assert header["license"] == ("cc-by-4.0" if kind == "digits" else "cc0-1.0")
    assert header["size_categories"] == ["n<1K"]
    assert [split["num_examples"] for split in header["dataset_info"]["splits"]] == [12, 6]
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 12, "test": 6}
    assert [column["name"] for column in header["dataset_info"]["features"]] == loaded["train"].column_names
    for column in loaded["train"].column_names:
        assert re.search(rf"^\| `{column}` \| .+ \| \S.+ \|$", card.text, re.MULTILINE), column
    assert f"run_{DATASET_KINDS[kind].task.replace('-', '_')}.py" in card.text


def test_the_command_on_the_card_makes_the_same_rows(tmp_path, monkeypatch):
    folder = save("circular-skip-links", tmp_path / "set", {"train": 6, "test": 3}, seed=5, license="mit")
    text = (folder / "README.md").read_text()
    assert "\nlicense: mit\n" in text
    (command,) = re.findall(r"^python scripts/make_dataset\.py .*$", text, re.MULTILINE)
    words = shlex.split(command.replace("FOLDER", str(tmp_path / "again")))
    monkeypatch.setattr(sys, "argv", words[1:])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    first, again = load_dataset(str(folder)), load_dataset(str(tmp_path / "again"))
    assert {split: list(rows) for split, rows in first.items()} == {split: list(rows) for split, rows in again.items()}
    expected = text.replace("\nlicense: mit\n", "\nlicense: cc0-1.0\n")
    assert (tmp_path / "again" / "README.md").read_text() == expected


def test_what_1_wl_can_do_is_computed(tmp_path):
    text = (save("circular-skip-links", tmp_path / "set", {"train": 6, "test": 4}) / "README.md").read_text()
    assert "computed on these very rows: 33.3 % on train, 50.0 % on test." in text  # classes 0, 1, 2, 0
    assert "| test | 4 | 13 nodes | 0: 50.0 %, 1: 25.0 %, 2: 25.0 % |" in text
    assert "1-WL" not in (save("clusters", tmp_path / "clusters", {"train": 2}) / "README.md").read_text()


def test_rows_of_others_have_the_licence_of_their_source():
    rows = datasets.Dataset.from_dict({"positions": [[[0.0, 0.0, 0.0]]], "node_feat": [[[1]]], "y": [[0.5]]})
    card = make_dataset_card("qm9", {"train": rows}, options={"targets": "HOMO_LUMO_gap_au"})
    assert card.data.license == "unknown"
    assert "--source SOURCE" in card.text
    assert "SOURCE is the .npz file that qm9_rows describes" in card.text
    assert "What can be reached" not in card.text
    assert yaml.safe_load(str(card).split("---")[1])["task_categories"] == ["graph-ml"]


def test_nothing_is_left_when_the_card_fails(tmp_path):
    def fail(splits):
        raise ValueError("no card")

    with pytest.raises(ValueError, match="no card"):
        save_splits({"train": [{"y": [1]}]}, tmp_path / "set", make_card=fail)
    assert not (tmp_path / "set").exists()
