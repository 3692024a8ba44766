"""Data sets of graph rows: loading from a folder, reading off the configuration, cutting folds."""

import datasets
import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from lps_hf.data.graph_rows import fold_splits, infer_graph_config, labels_of, load_graph_dataset
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import MAX_NODES, random_rows, save_dataset, tiny_classifier, tiny_config

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
NAN = float("nan")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def splits_of(**columns):
    """One split of two-node graphs with these columns."""
    length = len(next(iter(columns.values())))
    graphs = {"edge_index": [[[0], [1]]] * length, "num_nodes": [2] * length}
    return DatasetDict(train=Dataset.from_dict({**graphs, "y": [[0]] * length, **columns}))


# --------------------------------------------------------------------------------------------------------------- loading


def test_a_folder_of_parquet_files_is_a_data_set(tmp_path):
    rows = random_rows(6)
    folder = save_dataset(tmp_path / "graphs", train=rows[:3], validation=rows[3:4], test=rows[4:])
    splits = load_graph_dataset(folder)
    assert {split: len(part) for split, part in splits.items()} == {"train": 3, "validation": 1, "test": 2}
    assert [*splits["train"], *splits["validation"], *splits["test"]] == rows


def test_a_missing_column_is_named_beside_those_that_are_there(tmp_path):
    good, bad = random_rows(2), random_rows(2)
    for row in bad:
        row["edges"] = row.pop("edge_index")
    for row in (*good, *bad):
        del row["edge_attr"]
    good[0]["edges"] = good[1]["edges"] = bad[0]["edge_index"] = None
    del bad[0]["edge_index"]
    folder = save_dataset(tmp_path / "graphs", train=bad)
    with pytest.raises(ValueError, match="dataset") as caught:
        load_graph_dataset(folder)
    assert str(caught.value) == (
        f"dataset {folder!r}, split 'train': expected the columns edge_index, num_nodes and y, got "
        "num_nodes, node_feat, y, edges; 'edge_index' is missing. Rename yours with dataset.rename_column."
    )


@pytest.mark.parametrize("column", ["num_nodes", "y"])
def test_every_needed_column_is_asked_for(tmp_path, column):
    rows = [{key: value for key, value in row.items() if key != column} for row in random_rows(2)]
    folder = save_dataset(tmp_path / "graphs", train=rows)
    with pytest.raises(ValueError, match=f"{column!r} is missing"):
        load_graph_dataset(folder)


def test_a_data_set_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_graph_dataset(str(tmp_path / "nowhere"))


# ------------------------------------------------------------------------------------------------------- reading off sizes


def test_whole_numbers_become_categories_over_all_splits():
    rows = random_rows(40)
    rows[-1]["node_feat"][0] = [6, 4]
    splits = DatasetDict(train=Dataset.from_list(rows[:20]), test=Dataset.from_list(rows[20:]))
    assert infer_graph_config(splits) == {
        "max_nodes": MAX_NODES,
        "node_categories": [7, 5],
        "edge_categories": [2],
        "num_labels": 3,
        "problem_type": SINGLE,
    }


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, {}),
        ({"node_feat": [[[0], [0]], [[0], [0]]]}, {"node_categories": [1]}),
        ({"node_feat": [[[True], [False]], [[False], [False]]]}, {"node_categories": [2]}),
        ({"node_feat": [[], []], "edge_attr": [None, None]}, {}),
        ({"edge_attr": [[[3, 0]], []], "edge_index": [[[0], [1]], [[], []]]}, {"edge_categories": [4, 1]}),
        ({"node_feat": [[[0.5], [1.0]], [[0.0], [0.0]]]}, {"inputs": {"node_features": "n 1", "edge_features": "n n 1"}}),
        (
            {"node_feat": [[[0.5, 2.0, 3.0]] * 2] * 2, "edge_attr": [[[1, 2]], [[0, 0]]]},
            {"edge_categories": [2, 3], "inputs": {"node_features": "n 3", "edge_features": "n n 6"}},
        ),
        (
            {"node_feat": [[[1, 2]] * 2] * 2, "edge_attr": [[[0.1, 0.2]], []], "edge_index": [[[0], [1]], [[], []]]},
            {"node_categories": [2, 3], "inputs": {"node_features": "n 5", "edge_features": "n n 2"}},
        ),
        (
            {"node_feat": [[[0.0, 1.0]] * 2] * 2, "edge_attr": [[[2.0]], [[1.0]]]},
            {"inputs": {"node_features": "n 2", "edge_features": "n n 1"}},
        ),
    ],
)
def test_features_are_categories_or_real_numbers_or_missing(columns, expected):
    splits = splits_of(y=[[0], [1]], **columns)
    inferred = infer_graph_config(splits)
    assert inferred == {"max_nodes": 2, "num_labels": 2, "problem_type": SINGLE, **expected}
    # What was read off is a configuration, and its model takes the rows it was read off.
    model = tiny_classifier(**{"node_categories": None, "edge_categories": None, **inferred})
    batch = LPSProcessor.from_config(model.config)(splits["train"], return_tensors="pt")
    assert model(**batch).loss.isfinite()


@pytest.mark.parametrize(
    ("labels", "problem_type", "num_labels"),
    [
        ([[0], [4]], SINGLE, 5),
        ([0, 4], SINGLE, 5),
        ([[0.0], [2.0]], SINGLE, 3),
        ([[0], [None], [2]], SINGLE, 3),
        ([[0], [-100], [2]], SINGLE, 3),
        ([[0.5], [2.0]], REGRESSION, 1),
        ([[-1], [2]], REGRESSION, 1),
        ([[0.5], [None], [2.0]], REGRESSION, 1),
        ([[0.5], [NAN]], REGRESSION, 1),
        ([[0, 1, 0], [1, 1, 1]], MULTI, 3),
        ([[0, None, 0], [1, 1, None]], MULTI, 3),
        ([[[0, 1]], [[1, 1]]], MULTI, 2),
        ([[0.0, 1.0], [0.0, NAN]], MULTI, 2),
        ([[0.0, 2.0], [0.0, 1.0]], REGRESSION, 2),
        ([[0.5, None], [None, 1.0]], REGRESSION, 2),
    ],
)
def test_the_problem_type_is_read_off_the_labels(labels, problem_type, num_labels):
    splits = splits_of(y=labels)
    inferred = infer_graph_config(splits)
    assert (inferred["problem_type"], inferred["num_labels"]) == (problem_type, num_labels)
    batch = LPSProcessor(num_labels=num_labels, problem_type=problem_type)(splits["train"])
    expected = labels_of(splits["train"], problem_type)
    assert expected.shape == ((len(labels),) if problem_type == SINGLE else (len(labels), num_labels))
    np.testing.assert_array_equal(batch["labels"], expected.astype(batch["labels"].dtype))


def test_labels_of_classes_are_minus_100_where_they_are_missing():
    labels = labels_of(splits_of(y=[[1], [None], [-100], [0]])["train"], SINGLE)
    assert labels.tolist() == [1, -100, -100, 0]
    assert labels.dtype == np.int64


def test_a_split_without_features_stands_beside_one_with_them():
    splits = splits_of(edge_attr=[[[2]], [[1]]])
    splits["test"] = Dataset.from_dict({"edge_index": [[[], []]], "num_nodes": [5], "edge_attr": [[]], "y": [[1]]})
    inferred = infer_graph_config(splits)
    assert (inferred["edge_categories"], inferred["max_nodes"], inferred["num_labels"]) == ([3], 5, 2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"y": [[0], [0, 1]]}, "column 'y': expected one number of labels for all graphs, got 1 to 2."),
        ({"y": [[None], [None]]}, "column 'y': expected labels, got none in any row."),
        ({"node_feat": [[[0], [0]], [[0, 1], [0, 1]]]}, "column 'node_feat': expected lists of one width, got different ones."),
        ({"edge_attr": [[[0, 1], [0]], [[0, 1]]]}, "column 'edge_attr': expected lists of one width, got different ones."),
        (
            {"node_feat": [[0, 1], [1, 1]]},
            "column 'node_feat': expected a list of features per node or edge, got a single number.",
        ),
    ],
)
def test_columns_that_no_model_fits_are_refused(columns, message):
    with pytest.raises(ValueError, match="column") as caught:
        infer_graph_config(splits_of(**columns))
    assert str(caught.value) == message


# ----------------------------------------------------------------------------------------------------------------- folds


def labelled_rows(labels):
    return Dataset.from_dict({"number": list(range(len(labels))), "y": [[label] for label in labels]})


CLASSES = [0] * 30 + [1] * 20 + [2] * 10


def test_folds_are_disjoint_and_cover_everything():
    rows, tested = labelled_rows(CLASSES), []
    for fold in range(5):
        parts = fold_splits(rows, fold, num_folds=5)
        assert list(parts) == ["train", "validation", "test"]
        numbers = [number for part in parts.values() for number in part["number"]]
        assert sorted(numbers) == list(range(60))
        assert [len(part) for part in parts.values()] == [36, 12, 12]
        tested += parts["test"]["number"]
    assert sorted(tested) == list(range(60))


def test_the_next_fold_validates():
    rows = labelled_rows(CLASSES)
    tests = [list(fold_splits(rows, fold, num_folds=5)["test"]["number"]) for fold in range(5)]
    for fold in range(5):
        assert list(fold_splits(rows, fold, num_folds=5)["validation"]["number"]) == tests[(fold + 1) % 5]


def test_every_part_has_the_classes_in_their_share():
    for fold in range(10):
        for part in fold_splits(labelled_rows(CLASSES), fold).values():
            counts = np.bincount(np.ravel(part["y"]), minlength=3)
            np.testing.assert_allclose(counts / len(part), [1 / 2, 1 / 3, 1 / 6])


def test_folds_depend_on_the_seed_and_on_nothing_else():
    rows = labelled_rows(CLASSES)
    first, again, other = (list(fold_splits(rows, 3, seed=seed)["train"]["number"]) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first == sorted(first)


@pytest.mark.parametrize("labels", [np.linspace(-1, 2, 60).tolist(), [*CLASSES[:-5], None, None, None, None, None]])
def test_rows_of_regression_and_with_missing_labels_are_cut_too(labels):
    rows = labelled_rows(labels)
    tested = [number for fold in range(5) for number in fold_splits(rows, fold, num_folds=5)["test"]["number"]]
    assert sorted(tested) == list(range(60))


@pytest.mark.parametrize(("fold", "num_folds"), [(-1, 10), (10, 10), (5, 5), (0, 2), (0, 0)])
def test_an_unknown_fold_is_refused(fold, num_folds):
    with pytest.raises(ValueError, match="fold") as caught:
        fold_splits(labelled_rows(CLASSES), fold, num_folds)
    expected = f"fold: expected 0 to num_folds - 1 with num_folds at least 3, got {fold} of {num_folds}."
    assert str(caught.value) == expected


def test_a_configuration_read_off_a_data_set_is_a_configuration():
    splits = DatasetDict(train=Dataset.from_list(random_rows(10)))
    config = tiny_config(**infer_graph_config(splits))
    assert config.input_representations["node_features"].num_channels == sum(config.node_categories)
