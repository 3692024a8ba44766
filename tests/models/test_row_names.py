"""Keys of rows under other names, masks of splits, and that nothing a row holds vanishes without a word."""

import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from lps_hf.data import DataCollatorForGraphs, to_rows
from lps_hf.data.arrow_rows import ArrowRows
from lps_hf.models import processing_lps
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.models.row_names import labels_of_split, unread_keys
from tests.models.processing_cases import DROP, PATH, REAL_NODES, assert_same_batch, categorical, changed, refusal
from tests.tiny import tiny_config

POINTS = {"positions": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]}
PLAIN = changed(PATH, node_feat=DROP, edge_attr=DROP)
ONE_CHANNEL = {"num_node_channels": 1, "num_edge_channels": 1, "num_labels": 3}


def warned(call):
    """What a call warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


# ------------------------------------------------------------------------------------------------------------ other names


def test_names_of_pytorch_geometric_are_read():
    renamed = changed(PATH, node_feat=DROP, num_nodes=DROP, x=PATH["node_feat"])
    assert_same_batch(categorical()([renamed]), categorical()([PATH]))
    points = LPSProcessor(inputs={"positions": "n p", "velocities": "n v"}, output="3")
    row = {**POINTS, "velocities": POINTS["positions"]}
    renamed = {"pos": row["positions"], "vel": row["velocities"], "positions": None}
    assert_same_batch(points([renamed, renamed]), points([row, row]))
    columns = {key: [value, value] for key, value in renamed.items() if value is not None}
    assert_same_batch(points(columns), points([row, row]))
    assert_same_batch(points({"pos": row["positions"], "vel": row["velocities"]}), points(row))


@pytest.mark.parametrize("weights", [[1, 2, 2, 1], [[1.0], [2.0], [2.0], [1.0]], np.array([1, 2, 2, 1])])
def test_weights_of_edges_are_real_numbers(weights):
    batch = LPSProcessor(**ONE_CHANNEL)([{**PLAIN, "edge_weight": weights}])
    assert batch["edge_features"].dtype == np.float32
    np.testing.assert_array_equal(batch["edge_features"][0, :, 0], [1, 2, 2, 1])
    with pytest.raises(TypeError, match="row 0: edge_weight: expected numbers"):
        LPSProcessor(**ONE_CHANNEL)([{**PLAIN, "edge_weight": ["a", "b", "c", "d"]}])
    # Weights are no categories.
    message = re.escape("expected the key 'edge_attr', got only ['edge_index', 'edge_weight'")
    with pytest.warns(UserWarning, match="does not read 'edge_weight'"), pytest.raises(ValueError, match=message):
        categorical()([{**changed(PATH, edge_attr=DROP), "edge_weight": weights}])


# ------------------------------------------------------------------------------------------------------ what is not read

UNREAD = {
    "node feature under another name": ({"x": [[1, 0]] * 3}, ["x"]),
    "weights beside features": ({"edge_weight": [0.5] * 4}, ["edge_weight"]),
    "atomic numbers": ({"z": [6, 1, 1]}, ["z"]),
    "an array": ({"z": np.array([6, 1, 1])}, ["z"]),
    "a tensor": ({"face": torch.zeros(3, 2, dtype=torch.long)}, ["face"]),
    "a real number": ({"gap": 0.5, "mu": np.float32(1)}, ["gap", "mu"]),
    "fields of another task": ({**POINTS, "charges": [0, 1, 2]}, ["positions", "charges"]),
    "labels of another task": ({"edge_label": [1], "edge_label_index": [[0], [1]]}, ["edge_label", "edge_label_index"]),
    "an image": ({"image": np.zeros((2, 2, 3), np.uint8)}, ["image"]),
    "masks of nodes": ({"train_mask": [True, False, True]}, ["train_mask"]),
    "nothing": ({"z": [], "positions": None, "charges": np.zeros((0, 1)), "edge_weight": [[]], "gap": float("nan")}, []),
    "names and numbers": (
        {
            "id": 3,
            "idx": [3],
            "name": "benzene",
            "smiles": "C",
            "fold": 2,
            "atoms": ["C", "C", "O"],
            "done": True,
            "meta": {"a": 1},
        },
        [],
    ),
    "made of the graph": ({"num_edges": 4, "frame_ranks": [0, 1, 2]}, []),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_read_is_named_once(name):
    columns, unread = UNREAD[name]
    processor, rows = categorical(), [{**PATH, **columns}] * 2
    said = warned(lambda: processor(rows))
    if unread:
        assert len(said) == 1
        assert said[0].startswith(f"row 0: this model does not read {', '.join(map(repr, unread))}. It reads 'edge_attr', ")
    else:
        assert not said
    assert not warned(lambda: processor(rows))
    assert warned(lambda: processor([{**PATH, **columns, "other": [1.0]}]))  # what comes later is named too
    assert len(warned(lambda: categorical()(rows))) == len(said)


def test_arrow_rows_and_lists_name_the_same():
    dataset = Dataset.from_list([{**PATH, "z": [6, 1, 1], "smiles": "C", "gap": 0.5, "idx": 3}] * 2)
    said = [
        warned(lambda rows=rows: DataCollatorForGraphs(categorical())(rows)) for rows in (list(dataset), list(ArrowRows(dataset)))
    ]
    assert said[0] == said[1]
    assert len(said[0]) == 1
    assert "'z', 'gap'." in said[0][0]


def test_points_name_the_edges_that_they_do_not_read():
    points = LPSProcessor(inputs={"positions": "n p"}, num_labels=3, problem_type="single_label_classification")
    row = {**POINTS, "edge_index": [[0], [1]], "edge_attr": [[1]], "velocities": [[0.0] * 3] * 2, "y": 1}
    (said,) = warned(lambda: points([row]))
    assert "does not read 'edge_index', 'edge_attr', 'velocities'." in said


def test_of_the_workers_of_a_data_loader_the_first_one_speaks(monkeypatch):
    for number, count in ((0, 1), (1, 0), (5, 0)):
        monkeypatch.setattr(processing_lps, "get_worker_info", lambda number=number: SimpleNamespace(id=number))
        assert len(warned(lambda: categorical()([{**PATH, "z": [6, 1, 1]}]))) == count


def test_a_backbone_that_sees_no_edges_says_so():
    alone = {"node_categories": None, "edge_categories": None, "inputs": {"node_features": "n 3"}}
    processor = LPSProcessor.from_config(tiny_config(**alone))
    row = changed(PATH, node_feat=REAL_NODES, edge_attr=DROP)
    (said,) = warned(lambda: processor([row, row]))
    assert said.startswith("row 0: edge_index: the backbone of this model does not see edges, as its inputs are node_features.")
    assert not warned(lambda: processor([row]))
    without_edges = LPSProcessor.from_config(tiny_config(**alone))
    assert not warned(lambda: without_edges([changed(row, edge_index=[[], []])]))


def test_categories_that_are_read_as_quantities_are_named():
    row = {**PLAIN, "node_feat": [[1.0], [2.0], [3.0]], "edge_attr": [[0.5]] * 4}
    processor = LPSProcessor(**ONE_CHANNEL)
    (said,) = warned(lambda: processor([row, row]))
    assert said.startswith("row 0: node_feat: whole numbers that are given as real ones are read as one quantity.")
    assert "node_categories" in said
    for quantities in ([[1.0], [2.5], [3.0]], [[2.0], [2.0], [2.0]]):
        assert not warned(lambda quantities=quantities: LPSProcessor(**ONE_CHANNEL)([{**row, "node_feat": quantities}]))


def test_images_name_what_they_do_not_read():
    images = LPSProcessor(inputs={"pixel_values": "3 h w"}, num_labels=2)
    row = {"image": np.zeros((4, 4, 3), np.uint8), "label": 1, "caption": "a cat", "image_id": 3}
    assert not warned(lambda: images([row]))
    (said,) = warned(lambda: images([{**row, "bbox": [0.0, 1.0], "x": [1]}]))
    assert "does not read 'bbox', 'x'." in said


def test_the_order_of_the_row_is_kept():
    row = {"b": [1.0], "a": [2], "y": [1], "c": 0.5}
    assert unread_keys(row, {"y"}) == ["b", "a", "c"]


# ----------------------------------------------------------------------------------------------------------------- splits

NODES = {
    **PLAIN,
    "y": [0, 2, 1],
    "train_mask": [True, False, False],
    "val_mask": [False, True, False],
    "test_mask": [False, False, True],
}
SPLITS = {"train": [0, -100, -100], "validation": [-100, 2, -100], "test": [-100, -100, 1]}


def nodes():
    return LPSProcessor(**ONE_CHANNEL, output="n 3")


@pytest.mark.parametrize("split", SPLITS)
def test_the_labels_of_one_split_are_kept(split):
    for source in (NODES, [NODES], Dataset.from_list([NODES]), {key: np.array(value) for key, value in NODES.items()}):
        (row,) = to_rows(source, split=split)
        assert set(row) == {"edge_index", "num_nodes", "y"}
        np.testing.assert_array_equal(nodes()([row])["labels"], [SPLITS[split]])
    named = {**changed(NODES, y=DROP), "label": ["a", "c", "b"]}
    processor = LPSProcessor(**ONE_CHANNEL, output="n 3", label2id={"a": 0, "b": 1, "c": 2})
    np.testing.assert_array_equal(processor(to_rows(named, split=split))["labels"], [SPLITS[split]])


def test_masks_of_pytorch_geometric_are_read():
    data = pytest.importorskip("torch_geometric.data").Data(
        edge_index=torch.tensor(PLAIN["edge_index"]), num_nodes=3, y=torch.tensor(NODES["y"])
    )
    for key in ("train_mask", "val_mask", "test_mask"):
        data[key] = torch.tensor(NODES[key])
    for split, labels in SPLITS.items():
        assert to_rows(data, split=split)[0]["y"] == labels
    assert to_rows(data)[0]["train_mask"] == NODES["train_mask"]
    message = refusal(ValueError, nodes(), to_rows(data))
    assert message.startswith("row 0: train_mask: expected the labels of one split, got masks")
    assert "to_rows(data, split='train')" in message


def test_masks_without_labels_say_nothing():
    assert "labels" not in nodes()([changed(NODES, y=DROP)])
    assert set(nodes()([changed(NODES, y=None)])["labels"][0]) == {-100}
    assert nodes()([changed(NODES, train_mask=None, val_mask=None, test_mask=None)])["labels"].tolist() == [[0, 2, 1]]


BAD_SPLITS = {
    "unknown": ("val", {}, "split: expected one of 'train', 'validation', 'test' or None, got 'val'."),
    "no mask": (
        "train",
        {"train_mask": None},
        "split: expected the key 'train_mask' for the split 'train', got only",
    ),
    "several ways": (
        "test",
        {"test_mask": [[True, False]] * 3},
        "test_mask: expected one truth value per node, got shape (3, 2),",
    ),
    "numbers of nodes": ("test", {"test_mask": [0, 2]}, "test_mask: expected one truth value per node, got int64 of shape (2,)."),
    "of other nodes": (
        "test",
        {"test_mask": [True]},
        "test_mask: expected one truth value for each label in 'y', got 1 for 3",
    ),
    "of a graph": ("test", {"y": 1}, "test_mask: expected one truth value for each label in 'y', got 3 for one label."),
}


@pytest.mark.parametrize("name", BAD_SPLITS)
def test_a_split_that_is_not_there_is_refused(name):
    split, changes, message = BAD_SPLITS[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        labels_of_split(changed(NODES, **changes), split)
    where = "" if name == "unknown" else "row 1: "
    with pytest.raises(ValueError, match=f"^{where}{re.escape(message)}"):
        to_rows([NODES, changed(NODES, **changes)], split=split)
