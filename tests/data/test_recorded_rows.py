"""The test rows of a run, found again by what its results file says."""

import datasets
import pytest
from datasets import Dataset

from lps_hf.data.dataset_folders import make_splits
from lps_hf.data.recorded_rows import evaluated_rows, recorded_rows
from lps_hf.data.rows import fold_splits
from tests.tiny import random_rows, save_dataset

TASK = "graph-classification"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_rows_of_a_folder_in_the_order_of_evaluation(tmp_path):
    rows = random_rows(20)
    folder = save_dataset(tmp_path / "graphs", train=rows[:12], test=rows[12:])
    facts = {"name": "graphs", "local": True, "split": "test", "seed": 3}
    plain = recorded_rows(TASK, facts, folder)
    assert plain["edge_index"][:] == [row["edge_index"] for row in rows[12:]]
    few = recorded_rows(TASK, {**facts, "max_eval_samples": 5}, folder)
    assert few["edge_index"][:] == plain.shuffle(seed=3).select(range(5))["edge_index"][:]
    fold = recorded_rows(TASK, {**facts, "fold": 1, "num_folds": 4}, folder)
    train = Dataset.from_list(rows[:12])
    assert fold["edge_index"][:] == fold_splits(train, 1, 4, 3)["test"]["edge_index"][:]
    with pytest.raises(ValueError, match=r"expected a split 'dev', got train, test\."):
        recorded_rows(TASK, {**facts, "split": "dev"}, folder)


def test_generated_rows_are_drawn_again():
    facts = {"name": "links", "generated": True, "kind": "circular-skip-links", "num_rows": 4, "seed": 9}
    facts["options"] = {"num_nodes": 13, "skips": [2, 3, 5]}
    sizes = {"train": 3, "test": 4}
    assert recorded_rows(TASK, facts) == make_splits("circular-skip-links", sizes, 9, options=facts["options"])["test"]


def test_links_are_evaluated_on_every_pair():
    rows = Dataset.from_list(make_splits("contacts", {"test": 2}, options={"num_nodes": [5, 6]})["test"])
    for row in evaluated_rows("link-prediction", rows):
        assert len(row["edge_label"]) == row["num_nodes"] ** 2
    assert evaluated_rows(TASK, rows) is rows
    assert evaluated_rows("link-prediction", list(rows)) == list(evaluated_rows("link-prediction", rows))


def test_a_name_of_the_hub_is_no_folder_that_happens_to_be_here(tmp_path, monkeypatch):
    save_dataset(tmp_path / "graphs", test=random_rows(2))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="^dataset: 'graphs' was one of the Hub, and is a folder here"):
        recorded_rows(TASK, {"name": "graphs"})
    assert len(recorded_rows(TASK, {"name": "graphs"}, "graphs")) == 2


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"name": "graphs", "local": True}, r"^dataset: 'graphs' was a folder where the model was made\. Say where it is now\.$"),
        ({}, "^dataset: None was a folder"),
        ({"name": "/etc"}, "Repo id must"),
        ({"generated": True, "kind": "qm9", "num_rows": 3}, "expected a generated kind for graph-classification, got 'qm9'"),
        ({"generated": True, "kind": "cycle-pairs", "num_rows": 1e9}, "expected 1 to 100000 rows, got 1000000000.0"),
        ({"generated": True, "kind": "cycle-pairs", "num_rows": 3, "options": {"x": 1}}, "^options: 'cycle-pairs' expects"),
        (
            {"generated": True, "kind": "cycle-pairs", "num_rows": 3, "options": {"cycle_lengths": [3, 10**9]}},
            "^dataset: expected options of at most 10000, got ",
        ),
    ],
)
def test_facts_that_do_not_tell_where_the_rows_are(facts, message):
    with pytest.raises(ValueError, match=message):
        recorded_rows(TASK, facts)
