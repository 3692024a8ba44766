"""Data sets of rows: loading from a folder, reading off the configuration of each task, labels, cutting folds."""

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from lps_hf.data import atom_clusters, charged_particles, digit_rows, folded_chains, pattern_graphs, shape_clouds
from lps_hf.data.rows import TASK_COLUMNS, fold_splits, infer_config, labels_of, load_dataset_for, with_all_pairs
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import (
    LPSForGraphClassification,
    LPSForImageClassification,
    LPSForLinkPrediction,
    LPSForNodeClassification,
    LPSForParticleDynamics,
    LPSForPointCloudClassification,
)
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import MAX_NODES, random_rows, save_dataset, tiny_classifier, tiny_config, tiny_vit

GRAPHS = "graph-classification"
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
    splits = load_dataset_for(GRAPHS, folder)
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
        load_dataset_for(GRAPHS, folder)
    assert str(caught.value) == (
        f"dataset {folder!r}, split 'train': expected the columns edge_index, num_nodes and y, got "
        "num_nodes, node_feat, y, edges; 'edge_index' is missing. Rename yours with dataset.rename_column."
    )


@pytest.mark.parametrize("column", ["num_nodes", "y"])
def test_every_needed_column_is_asked_for(tmp_path, column):
    rows = [{key: value for key, value in row.items() if key != column} for row in random_rows(2)]
    folder = save_dataset(tmp_path / "graphs", train=rows)
    with pytest.raises(ValueError, match=f"{column!r} is missing"):
        load_dataset_for(GRAPHS, folder)


def test_a_data_set_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_dataset_for(GRAPHS, str(tmp_path / "nowhere"))


# ------------------------------------------------------------------------------------------------------- reading off sizes


def test_whole_numbers_become_categories_over_all_splits():
    rows = random_rows(40)
    rows[-1]["node_feat"][0] = [6, 4]
    splits = DatasetDict(train=Dataset.from_list(rows[:20]), test=Dataset.from_list(rows[20:]))
    assert infer_config(GRAPHS, splits) == {
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
    inferred = infer_config(GRAPHS, splits)
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
        ([[0, 1], None, [1, 1]], MULTI, 2),
    ],
)
def test_the_problem_type_is_read_off_the_labels(labels, problem_type, num_labels):
    splits = splits_of(y=labels)
    inferred = infer_config(GRAPHS, splits)
    assert (inferred["problem_type"], inferred["num_labels"]) == (problem_type, num_labels)
    batch = LPSProcessor(num_labels=num_labels, problem_type=problem_type)(splits["train"])
    expected = labels_of(GRAPHS, splits["train"], problem_type)
    assert expected.shape == ((len(labels),) if problem_type == SINGLE else (len(labels), num_labels))
    np.testing.assert_array_equal(batch["labels"], expected.astype(batch["labels"].dtype))


def test_labels_of_classes_are_minus_100_where_they_are_missing():
    labels = labels_of(GRAPHS, splits_of(y=[[1], [None], [-100], [0]])["train"], SINGLE)
    assert labels.tolist() == [1, -100, -100, 0]
    assert labels.dtype == np.int64


def test_a_split_without_features_stands_beside_one_with_them():
    splits = splits_of(edge_attr=[[[2]], [[1]]])
    splits["test"] = Dataset.from_dict({"edge_index": [[[], []]], "num_nodes": [5], "edge_attr": [[]], "y": [[1]]})
    inferred = infer_config(GRAPHS, splits)
    assert (inferred["edge_categories"], inferred["max_nodes"], inferred["num_labels"]) == ([3], 5, 2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"y": [[0], [0, 1]]}, "column 'y': expected one number of labels for all graphs, got 1 to 2."),
        ({"y": [[None], [None]]}, "column 'y': expected labels, got none in any row."),
        ({"node_feat": [[[0], [0]], [[0, 1], [0, 1]]]}, "column 'node_feat': expected lists of one width, got different ones."),
        ({"edge_attr": [[[0, 1], [0]], [[0, 1]]]}, "column 'edge_attr': expected lists of one width, got different ones."),
        (
            {"node_feat": [[[[0]], [[1]]], [[[0]], [[1]]]]},
            "column 'node_feat': expected a list of features per node or edge, got nested lists.",
        ),
    ],
)
def test_columns_that_no_model_fits_are_refused(columns, message):
    with pytest.raises(ValueError, match="column") as caught:
        infer_config(GRAPHS, splits_of(**columns))
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
    config = tiny_config(**infer_config(GRAPHS, splits))
    assert config.input_representations["node_features"].num_channels == sum(config.node_categories)


@pytest.mark.parametrize("column", ["label", "y"])
def test_classes_of_any_row_are_cut_in_their_share(column):
    rows = Dataset.from_dict({column: CLASSES})
    for part in fold_splits(rows, 2, num_folds=5).values():
        np.testing.assert_allclose(np.bincount(part[column], minlength=3) / len(part), [1 / 2, 1 / 3, 1 / 6])


@pytest.mark.parametrize("columns", [{"charges": [[1.0]] * 20}, {"y": [[0, 1], *[[1]] * 19]}])
def test_rows_without_a_class_of_their_own_are_cut_too(columns):
    rows = Dataset.from_dict({"number": list(range(20)), **columns})
    tested = [number for fold in range(4) for number in fold_splits(rows, fold, num_folds=4)["test"]["number"]]
    assert sorted(tested) == list(range(20))


# ------------------------------------------------------------------------------------------------------------ other tasks

PLANE = [[0.0, 0.0], [1.0, 0.5]]
SPACE = [[0.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 1.0, 2.0]]
ROWS = {
    "node-classification": {"edge_index": [[0, 1], [1, 0]], "num_nodes": 3, "node_feat": [[0], [1], [1]], "y": [0, 2, None]},
    "link-prediction": {"edge_index": [[0], [1]], "num_nodes": 3, "edge_label_index": [[0, 2], [2, 1]], "edge_label": [1, 0]},
    "particle-dynamics": {"positions": SPACE, "velocities": SPACE, "charges": [1.0, -1.0, 1.0], "target_positions": SPACE},
    "molecule-regression": {"positions": SPACE, "node_feat": [[4], [0], [1]], "y": [0.5, -2.0]},
    "point-cloud-classification": {"positions": SPACE, "y": [1]},
    "image-classification": {"image": [[0, 1], [1, 0]], "label": 3},
}


def one_split(task, *changes):
    return DatasetDict(train=Dataset.from_list([{**ROWS[task], **change} for change in changes or ({},)]))


@pytest.mark.parametrize(("task", "column"), [(task, column) for task in ROWS for column in TASK_COLUMNS[task]])
def test_every_task_asks_for_its_columns(tmp_path, task, column):
    good = save_dataset(tmp_path / "good", train=[ROWS[task]])
    assert load_dataset_for(task, good)["train"].to_list() == [ROWS[task]]
    bad = save_dataset(tmp_path / "bad", train=[{key: value for key, value in ROWS[task].items() if key != column}])
    with pytest.raises(ValueError, match=f"expected the columns .*{column}.*; {column!r} is missing. Rename"):
        load_dataset_for(task, bad)


@pytest.mark.parametrize("function", [load_dataset_for, infer_config, labels_of])
def test_an_unknown_task_is_refused(function):
    with pytest.raises(ValueError, match="task: expected one of 'graph-classification', .*, got 'sorting'"):
        function("sorting", None)


def test_nodes_are_classified_by_the_classes_of_all_splits():
    splits = one_split("node-classification")
    splits["test"] = Dataset.from_list([{**ROWS["node-classification"], "num_nodes": 2, "y": [3, -100]}])
    inferred = infer_config("node-classification", splits)
    labels = {"num_labels": 4, "problem_type": SINGLE, "output": "n 4"}
    assert inferred == {"max_nodes": 3, "node_categories": [2], **labels}
    model = LPSForNodeClassification(LPSConfig(backbone_config=tiny_vit(), **inferred))
    edges = torch.tensor(ROWS["node-classification"]["edge_index"])[None]
    logits = model(node_categories=torch.tensor([[[0], [1], [1]]]), edge_index=edges).logits
    assert logits.shape == (1, 3, 4)


@pytest.mark.parametrize("y", [[0.5, 1.0, 2.0], [0, -1, 2]])
def test_node_labels_that_are_no_classes_are_refused(y):
    with pytest.raises(ValueError, match="column 'y': expected class numbers from 0, got "):
        infer_config("node-classification", one_split("node-classification", {"y": y}))


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("node-classification", {"y": [-100, None]}),
        ("point-cloud-classification", {"y": [-100]}),
        ("image-classification", {"label": -100}),
    ],
)
def test_classes_that_are_all_missing_are_refused(task, change):
    with pytest.raises(ValueError, match=r"^column '(y|label)': expected labels, got none in any row\.$"):
        infer_config(task, one_split(task, change))


def test_links_are_one_number_per_pair():
    inferred = infer_config("link-prediction", one_split("link-prediction"))
    assert inferred == {"max_nodes": 3, "num_labels": 1, "output": "n n 1"}
    model = LPSForLinkPrediction(LPSConfig(backbone_config=tiny_vit(), **inferred))
    pairs = torch.tensor([[[0, 2], [2, 1]]])
    edges, mask = torch.tensor([[[0], [1]]]), torch.ones(1, 3, dtype=torch.bool)
    assert model(edge_index=edges, node_mask=mask, pair_index=pairs).logits.shape == (1, 2)


@pytest.mark.parametrize("dimension", [2, 3])
def test_particles_have_the_group_of_their_space(dimension):
    points = PLANE if dimension == 2 else SPACE
    change = dict.fromkeys(("positions", "velocities", "target_positions"), points)
    inferred = infer_config("particle-dynamics", one_split("particle-dynamics", change))
    assert (inferred["max_nodes"], inferred["group"]) == (len(points), f"S_n x E({dimension})")
    assert (inferred["output"], inferred["residual"]) == ("n p", "positions")
    model = LPSForParticleDynamics(LPSConfig(backbone_config=tiny_vit(), **inferred))
    positions = torch.tensor(points)[None]
    charges = torch.ones(1, len(points), 1)
    assert model(positions=positions, velocities=positions, charges=charges).logits.shape == positions.shape


def test_an_inferred_configuration_can_be_changed_without_changing_the_next():
    infer_config("particle-dynamics", one_split("particle-dynamics"))["inputs"].clear()
    assert infer_config("particle-dynamics", one_split("particle-dynamics"))["inputs"]["velocities"] == "n v"


def test_molecules_are_normalised_by_the_training_split_alone():
    splits = one_split("molecule-regression", {"y": [1.0, 5.0]}, {"y": [4.0, 5.0]}, {"y": [None, 5.0]})
    splits["test"] = Dataset.from_list(
        [{"positions": SPACE * 2, "node_feat": [[5]] * 6, "y": [1000.0, 1000.0]}],
    )
    inferred = infer_config("molecule-regression", splits)
    assert inferred == {
        "max_nodes": 6,
        "node_categories": [6],
        "group": "S_n x E(3)",
        "inputs": {"positions": "n p", "node_features": "n 6"},
        "num_labels": 2,
        "problem_type": REGRESSION,
        "label_mean": [2.5, 5.0],
        "label_std": [1.5, 1.0],
    }
    model = LPSForGraphClassification(LPSConfig(backbone_config=tiny_vit(), **inferred))
    atoms = torch.tensor(ROWS["molecule-regression"]["node_feat"])[None]
    assert model(positions=torch.tensor(SPACE)[None], node_categories=atoms).logits.shape == (1, 2)


def test_atoms_may_have_real_features():
    inferred = infer_config("molecule-regression", one_split("molecule-regression", {"node_feat": [[0.5, 1.5]] * 3}))
    assert inferred["inputs"] == {"positions": "n p", "node_features": "n 2"}
    assert "node_categories" not in inferred


def test_molecules_need_a_training_split_with_every_target():
    splits = one_split("molecule-regression", {"y": [1.0, None]})
    with pytest.raises(ValueError, match="expected every target to be known somewhere in 'train'"):
        infer_config("molecule-regression", splits)
    with pytest.raises(ValueError, match="splits: expected 'train', whose targets are normalised, got test"):
        infer_config("molecule-regression", DatasetDict(test=splits["train"]))


def test_clouds_have_as_many_nodes_as_the_largest_has_points():
    splits = one_split("point-cloud-classification", {"y": [4]}, {"positions": SPACE[:2]})
    inferred = infer_config("point-cloud-classification", splits)
    group = {"group": "S_n x SO(3)", "inputs": {"positions": "n p"}}
    assert inferred == {"max_nodes": 3, **group, "num_labels": 5, "problem_type": SINGLE}
    model = LPSForPointCloudClassification(LPSConfig(backbone_config=tiny_vit(), **inferred))
    assert model(positions=torch.tensor(SPACE)[None]).logits.shape == (1, 5)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([SPACE, PLANE], "column 'positions': expected points of one dimension in all rows, got 2, 3."),
        ([[[0.0], [1.0, 2.0]]], "column 'positions': expected points of one dimension in all rows, got 1, 2."),
        ([[]], "column 'positions': expected points of one dimension in all rows, got no points."),
    ],
)
def test_points_of_different_dimensions_are_refused(positions, message):
    splits = one_split("point-cloud-classification", *({"positions": points} for points in positions))
    with pytest.raises(ValueError, match="column") as caught:
        infer_config("point-cloud-classification", splits)
    assert str(caught.value) == message


def test_images_say_their_classes_by_name_or_by_number():
    assert infer_config("image-classification", one_split("image-classification", {"label": 1}, {})) == {"num_labels": 4}
    names = ["cat", "dog", "owl"]
    features = Features({"image": List(Value("int64")), "label": ClassLabel(names=names)})
    named = DatasetDict(train=Dataset.from_dict({"image": [[0]], "label": [0]}, features=features))
    inferred = infer_config("image-classification", named)
    assert inferred == {"num_labels": 3, "id2label": dict(enumerate(names)), "label2id": {"cat": 0, "dog": 1, "owl": 2}}
    assert LPSConfig(**inferred).id2label[2] == "owl"


@pytest.mark.parametrize(
    ("task", "changes", "expected"),
    [
        ("node-classification", ({}, {"y": [1]}), [[0, 2, -100], [1, -100, -100]]),
        ("link-prediction", ({}, {"edge_label": [0, 1, None]}), [[1, 0, NAN], [0, 1, NAN]]),
        ("particle-dynamics", ({}, {"target_positions": SPACE[:1]}), [SPACE, [SPACE[0], [NAN] * 3, [NAN] * 3]]),
        ("node-classification", ({}, {"y": None}), [[0, 2, -100], [-100] * 3]),
        ("link-prediction", ({}, {"edge_label": None}), [[1, 0], [NAN] * 2]),
        ("particle-dynamics", ({}, {"target_positions": None}), [SPACE, [[NAN] * 3] * 3]),
        ("molecule-regression", ({}, {"y": [None, 1.0]}), [[0.5, -2.0], [NAN, 1.0]]),
        ("point-cloud-classification", ({}, {"y": [None]}), [1, -100]),
        ("image-classification", ({}, {"label": None}), [3, -100]),
    ],
)
def test_labels_are_filled_up_as_missing(task, changes, expected):
    labels = labels_of(task, one_split(task, *changes)["train"])
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == (np.int64 if "classification" in task else np.float64)


def test_all_pairs_keep_the_links_and_add_what_was_not_asked_for():
    row = {**ROWS["link-prediction"], "edge_label_index": [[0, 2, 1], [2, 1, 0]], "edge_label": [1, 0, None], "id": "a"}
    full = with_all_pairs(row)
    assert full["edge_label_index"] == [[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2, 0, 1, 2]]
    assert full["edge_label"] == [None, None, 1, None, None, None, None, 0, None]
    assert full["id"] == "a"
    rows = Dataset.from_list([row]).map(with_all_pairs)
    assert rows[0]["edge_label"] == full["edge_label"]
    assert with_all_pairs({**row, "edge_label": None})["edge_label"] == [None] * 9


GENERATED = [
    ("node-classification", pattern_graphs(4, sizes=(2, 4)), LPSForNodeClassification),
    ("link-prediction", folded_chains(4), LPSForLinkPrediction),
    ("particle-dynamics", charged_particles(4, first_step=5, num_steps=5), LPSForParticleDynamics),
    ("molecule-regression", atom_clusters(4), LPSForGraphClassification),
    ("point-cloud-classification", shape_clouds(4, 20), LPSForPointCloudClassification),
    ("image-classification", digit_rows(4)[:20], LPSForImageClassification),
]


@pytest.mark.parametrize(("task", "rows", "head"), GENERATED, ids=[task for task, *_ in GENERATED])
def test_generated_rows_fit_the_model_that_is_inferred_from_them(task, rows, head):
    splits = DatasetDict(train=Dataset.from_list(rows))
    inferred = infer_config(task, splits)
    backbone = tiny_vit()
    model = head(LPSConfig(backbone_config=backbone, **head.config_defaults(backbone, inferred)))
    batch = LPSProcessor.from_config(model.config)(rows, return_tensors="pt")
    assert model(**batch).loss.isfinite()
    # Baselines and metrics see the labels that the model is trained on.
    np.testing.assert_allclose(labels_of(task, splits["train"]), batch["labels"], rtol=1e-6)


def test_plain_lists_are_one_feature_of_each_node_and_edge():
    nested, plain = splits_of(node_feat=[[[0], [2]], [[1], [1]]]), splits_of(node_feat=[[0, 2], [1, 1]])
    assert infer_config(GRAPHS, plain) == infer_config(GRAPHS, nested)
    assert infer_config(GRAPHS, plain)["node_categories"] == [3]


@pytest.mark.parametrize("labels", [["toxic", "harmless", "toxic"], [["toxic"], ["harmless"], ["toxic"]]])
def test_labels_that_are_texts_are_names_of_classes_from_loading_on(tmp_path, labels):
    rows = [{"edge_index": [[0], [1]], "num_nodes": 2, "y": label} for label in labels]
    splits = load_dataset_for(GRAPHS, save_dataset(tmp_path / "names", train=rows, test=rows))
    inferred = infer_config(GRAPHS, splits)
    assert inferred["id2label"] == {0: "harmless", 1: "toxic"}
    if isinstance(labels[0], str):
        assert labels_of(GRAPHS, splits["test"], SINGLE).tolist() == [1, 0, 1]


def test_names_of_pytorch_geometric_are_read_as_the_processor_reads_them():
    edges = {"edge_index": [[0, 1], [1, 0]], "num_nodes": 2}
    rows = [{**edges, "x": [[1], [2]], "edge_weight": [0.5, 0.7], "y": label} for label in (0, 1)]
    inferred = infer_config(GRAPHS, rows)
    assert inferred["node_categories"] == [3]
    assert inferred["inputs"] == {"node_features": "n 3", "edge_features": "n n 1"}
    batch = LPSProcessor(node_categories=[3], **{key: inferred[key] for key in ("inputs", "num_labels", "problem_type")})(rows)
    assert batch["node_categories"].tolist() == [[[1], [2]]] * 2
    assert batch["edge_features"].shape == (2, 2, 1)
