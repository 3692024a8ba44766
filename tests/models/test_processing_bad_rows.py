"""What is wrong with a graph row that the processor refuses: which row, which key, expected, got."""

import numpy as np
import pandas
import pytest
import torch

from lps_hf.models.processing_lps import LPSProcessor
from tests.models.processing_cases import (
    DROP,
    LONELY,
    NAN,
    PATH,
    REAL_EDGES,
    REAL_NODES,
    assert_same_batch,
    categorical,
    changed,
    refusal,
)
from tests.tiny import NODE_CATEGORIES, tiny_config

# ------------------------------------------------------------------------------------------------------------- bad graphs

KEYS = "['edge_attr', 'edge_index', 'node_feat', 'num_nodes', 'y']"
BAD_GRAPHS = {
    "no nodes": (
        changed(LONELY, num_nodes=0, node_feat=[]),
        ValueError,
        "num_nodes: expected at least 1, got 0.",
    ),
    "no nodes, not even their number": (
        changed(LONELY, num_nodes=DROP, node_feat=[]),
        ValueError,
        "num_nodes: expected at least 1, got 0.",
    ),
    "negative number of nodes": (changed(PATH, num_nodes=-3), ValueError, "num_nodes: expected at least 1, got -3."),
    "half a node": (changed(PATH, num_nodes=2.5), TypeError, "num_nodes: expected a whole number, got 2.5."),
    "number of nodes is NaN": (changed(PATH, num_nodes=NAN), TypeError, "num_nodes: expected a whole number, got nan."),
    "number of nodes is infinite": (
        changed(PATH, num_nodes=float("inf")),
        TypeError,
        "num_nodes: expected a whole number, got inf.",
    ),
    "number of nodes is a truth value": (
        changed(PATH, num_nodes=True),
        TypeError,
        "num_nodes: expected a whole number, got True.",
    ),
    "number of nodes is a word": (changed(PATH, num_nodes="3"), TypeError, "num_nodes: expected numbers, got <U1."),
    "number of nodes is a list": (changed(PATH, num_nodes=[3]), TypeError, "num_nodes: expected a whole number, got [3]."),
    "too many nodes": (
        changed(PATH, num_nodes=9, node_feat=[[0, 0]] * 9),
        ValueError,
        "num_nodes: expected at most max_nodes=8, got 9. Leave the graph out, or build the model with a larger max_nodes.",
    ),
    "node number too large": (
        changed(PATH, edge_index=[[0, 1, 1, 3], [1, 0, 2, 1]]),
        ValueError,
        "edge_index: expected node numbers 0 to 2 (num_nodes is 3), got 0 to 3.",
    ),
    "negative node number": (
        changed(PATH, edge_index=[[0, 1, 1, -1], [1, 0, 2, 1]]),
        ValueError,
        "edge_index: expected node numbers 0 to 2 (num_nodes is 3), got -1 to 2.",
    ),
    "fewer nodes than edges say": (
        changed(PATH, num_nodes=2, node_feat=[[0, 0]] * 2),
        ValueError,
        "edge_index: expected node numbers 0 to 1 (num_nodes is 2), got 0 to 2.",
    ),
    "pairs in place of two lists": (
        changed(PATH, edge_index=[[0, 1], [1, 0], [1, 2], [2, 1]]),
        ValueError,
        "edge_index: expected two lists of equal length, got shape (4, 2).",
    ),
    "one list of nodes": (
        changed(PATH, edge_index=[0, 1, 1, 2]),
        ValueError,
        "edge_index: expected two lists of equal length, got shape (4,).",
    ),
    "a number for edges": (
        changed(PATH, edge_index=3),
        ValueError,
        "edge_index: expected two lists of equal length, got shape ().",
    ),
    "three axes of edges": (
        changed(PATH, edge_index=[[[0, 1], [1, 0]]]),
        ValueError,
        "edge_index: expected two lists of equal length, got shape (1, 2, 2).",
    ),
    "ragged edges": (
        changed(PATH, edge_index=[[0, 1, 1], [1, 0]]),
        ValueError,
        "edge_index: expected lists of equal length, got ragged ones.",
    ),
    "edges between real numbers": (
        changed(PATH, edge_index=[[0.0, 1.0, 1.0, 2.0], [1.0, 0.0, 2.0, 1.0]]),
        TypeError,
        "edge_index: expected whole numbers, got float64.",
    ),
    "edges as truth values": (
        changed(PATH, edge_index=[[True, False], [False, True]]),
        TypeError,
        "edge_index: expected whole numbers, got bool.",
    ),
    "edges between words": (
        changed(PATH, edge_index=[["a", "b"], ["b", "a"]]),
        TypeError,
        "edge_index: expected numbers, got <U1.",
    ),
    "category too large": (
        changed(PATH, node_feat=[[0, 1], [2, 0], [1, 2]]),
        ValueError,
        "node_feat: feature 1 has categories 0 to 1, got 2 at place 2. Check the data, or build the model with more categories.",
    ),
    "negative category": (
        changed(PATH, edge_attr=[[0], [-1], [1], [1]]),
        ValueError,
        "edge_attr: feature 0 has categories 0 to 1, got -1 at place 1. Check the data, or build the model with more categories.",
    ),
    "category is no whole number": (
        changed(PATH, node_feat=[[0.0, 1.0]] * 3),
        TypeError,
        "node_feat: expected whole numbers (categories), got float64. Make them int64.",
    ),
    "category is missing": (
        changed(PATH, edge_attr=[[0], [None], [1], [1]]),
        TypeError,
        "edge_attr: expected numbers, got None.",
    ),
    "features of too few nodes": (
        changed(PATH, node_feat=[[0, 1], [2, 0]]),
        ValueError,
        "node_feat: expected shape (3, 2), got (2, 2).",
    ),
    "too few features": (
        changed(PATH, node_feat=[[0], [2], [1]]),
        ValueError,
        "node_feat: expected shape (3, 2), got (3, 1).",
    ),
    "a number per node": (changed(PATH, node_feat=[0, 2, 1]), ValueError, "node_feat: expected shape (3, 2), got (3,)."),
    "ragged features": (
        changed(PATH, node_feat=[[0, 1], [2], [1, 1]]),
        ValueError,
        "node_feat: expected lists of equal length, got ragged ones.",
    ),
    "features of too many edges": (
        changed(PATH, edge_attr=[[0]] * 5),
        ValueError,
        "edge_attr: expected shape (4, 1), got (5, 1).",
    ),
    "features of edges that are not there": (
        changed(LONELY, edge_attr=[[0]]),
        ValueError,
        "edge_attr: expected shape (0, 1), got (1, 1).",
    ),
}
MISSING = {
    "edge_index": "expected the key 'edge_index', got only ['edge_attr', 'node_feat', 'num_nodes', 'y'].",
    "node_feat": "expected the key 'node_feat', got only ['edge_attr', 'edge_index', 'num_nodes', 'y'].",
    "edge_attr": "expected the key 'edge_attr', got only ['edge_index', 'node_feat', 'num_nodes', 'y'].",
}


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_an_impossible_graph_is_refused(name):
    row, kind, message = BAD_GRAPHS[name]
    assert refusal(kind, categorical(), [PATH, LONELY, row]) == f"row 2: {message}"


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_key_is_refused(key):
    assert refusal(ValueError, categorical(), [PATH, changed(PATH, **{key: DROP})]) == f"row 1: {MISSING[key]}"


def test_a_missing_number_of_nodes_is_refused():
    # What is left of a row where Trainer has dropped the columns that forward() does not name.
    message = refusal(ValueError, categorical(), [{"edge_index": PATH["edge_index"]}])
    assert message == (
        "row 0: expected the key 'num_nodes' or 'node_feat', got only ['edge_index']. If a Trainer dropped it, set "
        "remove_unused_columns=False."
    )


@pytest.mark.parametrize("row", [[0, 1], None, "CCO", 3])
def test_a_row_that_is_no_dictionary_is_refused(row):
    message = refusal(TypeError, categorical(), [PATH, row])
    assert message == (
        f"row 1: expected a dictionary with 'edge_index' and 'num_nodes', got {type(row).__name__}. Tables, graphs of libraries, "
        "SMILES strings and pictures become such rows by lps_hf.data.to_rows."
    )


def test_what_holds_no_rows_is_refused():
    for empty in ([], (), {"edge_index": [], "num_nodes": []}, iter([])):
        message = refusal(ValueError, categorical(), empty)
        assert message == "rows: expected at least one row, got an empty batch."
    for value in (None, 3):
        message = refusal(TypeError, categorical(), value)
        assert message == f"rows: expected a list of rows, one row or a dictionary of columns, got {type(value).__name__}."
    message = refusal(ValueError, categorical(), {"edge_index": [PATH["edge_index"]], "num_nodes": [3, 3], "y": 0})
    assert message == "rows: expected columns of one length, got {'edge_index': 1, 'num_nodes': 2, 'y': 0}."


@pytest.mark.parametrize("multiple", [0, -8])
def test_padding_to_a_multiple_of_nothing_is_refused(multiple):
    message = refusal(ValueError, categorical(), [PATH], pad_to_multiple_of=multiple)
    assert message == f"pad_to_multiple_of: expected at least 1, got {multiple}."


@pytest.mark.parametrize("power", [1, 0.5, 0, -2, NAN, float("inf")])
def test_padding_to_a_power_of_no_growth_is_refused(power):
    message = refusal(ValueError, categorical(), [PATH], pad_to_power_of=power)
    assert message == f"pad_to_power_of: expected a number above 1, such as 2 or 1.25, got {power}."


def real(**options):
    return LPSProcessor(**{"max_nodes": 8, "num_node_channels": 3, "num_edge_channels": 2, "num_labels": 3, **options})


REAL = changed(PATH, node_feat=REAL_NODES, edge_attr=REAL_EDGES)


@pytest.mark.parametrize("number", [NAN, float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("key", ["node_feat", "edge_attr"])
def test_a_feature_that_is_no_finite_number_is_refused(key, number):
    row = changed(REAL)
    row[key][2][1] = number
    message = refusal(ValueError, real(), [REAL, row])
    assert message == f"row 1: {key}: expected finite float32 numbers, got NaN, infinity or larger ones."


def test_a_wrong_number_of_real_features_is_refused():
    message = refusal(ValueError, real(num_node_channels=4), [REAL])
    assert message == "row 0: node_feat: expected shape (3, 4), got (3, 3)."
    message = refusal(ValueError, real(num_edge_channels=1), [REAL])
    assert message == "row 0: edge_attr: expected shape (4, 1), got (4, 2)."


def test_whole_numbers_may_stand_for_real_features():
    batch = real()([changed(REAL, node_feat=[[1, 2, 3]] * 3)])
    np.testing.assert_array_equal(batch["node_features"], np.float32([[[1, 2, 3]] * 3]))


def test_features_that_the_model_does_not_read_are_refused():
    plain = LPSProcessor.from_config(tiny_config(node_categories=None, edge_categories=None))
    message = refusal(ValueError, plain, changed(PATH, edge_attr=DROP))
    assert message == (
        "row 0: node_feat: this model reads no such categories. Remove the column, or build the model with node_categories."
    )
    nodes_alone = LPSProcessor.from_config(tiny_config(edge_categories=None))
    message = refusal(ValueError, nodes_alone, PATH)
    assert message == (
        "row 0: edge_attr: this model reads no such categories. Remove the column, or build the model with edge_categories."
    )
    message = refusal(ValueError, LPSProcessor(node_categories=NODE_CATEGORIES), changed(PATH, edge_attr=REAL_EDGES))
    assert message == (
        "row 0: edge_attr: this model reads no such features. Remove the column, or build the model with edge_categories."
    )


def test_real_features_in_some_rows_only_are_refused():
    processor = LPSProcessor(num_node_channels=1, num_edge_channels=1, num_labels=3)
    row = changed(PATH, node_feat=[[0.5]] * 3, edge_attr=DROP)
    message = refusal(ValueError, processor, [row, row, changed(row, node_feat=DROP)])
    assert message == "row 2: expected real features 'node_features' as the other rows have, got none."


@pytest.mark.parametrize("key", MISSING)
def test_none_in_a_column_is_said_to_be_none(key):
    # Data sets put None where a row has nothing; the key is no one of those that are there.
    present = MISSING[key].split("got only ")[1]
    message = refusal(ValueError, categorical(), [PATH, changed(PATH, **{key: None})])
    assert message == f"row 1: expected the key {key!r}, got {key}=None beside {present}"
    message = refusal(ValueError, LPSProcessor(), [{"edge_index": [[0], [1]], "num_nodes": None, "y": None}])
    assert message.startswith("row 0: expected the key 'num_nodes' or 'node_feat', got only ['edge_index'].")


@pytest.mark.parametrize("num_nodes", [[3], (3,), np.array([3])])
def test_a_list_of_one_number_of_nodes_makes_no_columns_of_one_row(num_nodes):
    message = refusal(TypeError, categorical(), changed(PATH, num_nodes=num_nodes))
    assert message == f"row 0: num_nodes: expected a whole number, got {num_nodes!r}."


@pytest.mark.parametrize(
    "masked",
    [np.ma.array(REAL_NODES, mask=np.eye(3)), list(np.ma.array(REAL_NODES, mask=np.eye(3))), [np.ma.masked, 1.0, 2.0]],
    ids=["array", "list of arrays", "list of numbers"],
)
def test_masked_numbers_are_refused(masked):
    message = refusal(ValueError, real(), [REAL, changed(REAL, node_feat=masked)])
    assert message == "row 1: node_feat: expected numbers, got a masked array in which some are missing. Fill or remove them."


def test_what_is_no_array_says_which_row():
    message = refusal(TypeError, real(), [REAL, changed(REAL, node_feat=torch.ones(3, 3, requires_grad=True))])
    assert message.startswith("row 1: node_feat: expected numbers, got what is no array: Can't call numpy() on Tensor that")
    message = refusal(TypeError, real(), [REAL, changed(REAL, node_feat=[[2**70] * 3] * 3)])
    assert message == "row 1: node_feat: expected numbers, got whole numbers beyond 64 bits."
    assert real()([changed(REAL, node_feat=np.ma.array(REAL_NODES))])["node_features"].shape == (1, 3, 3)  # nothing is masked
    message = refusal(TypeError, real(), [changed(REAL, node_feat=[[1.0, pandas.NA, 0.0]] * 3)])
    assert message == "row 0: node_feat: expected numbers, got NA."


def test_a_plain_list_is_one_feature_of_each():
    rows = {
        "categories": (
            LPSProcessor(max_nodes=8, node_categories=[3], edge_categories=[2], num_labels=3),
            {"node_feat": [0, 2, 1], "edge_attr": np.array([0, 1, 1, 0])},
        ),
        "real numbers": (
            LPSProcessor(max_nodes=8, num_node_channels=1, num_edge_channels=1, num_labels=3),
            {"node_feat": [0.5, 2.0, 1.0], "edge_attr": torch.tensor([0.5, 1.5, 1.0, 0.0])},
        ),
    }
    for processor, flat in rows.values():
        columns = {key: np.asarray(value)[:, None].tolist() for key, value in flat.items()}
        assert_same_batch(processor([changed(PATH, **flat)]), processor([changed(PATH, **columns)]))


@pytest.mark.parametrize("kind", [int, float, bool])
def test_categories_may_be_one_hot_encoded(kind):
    encoded = np.concatenate(
        [np.eye(size, dtype=kind)[np.array(PATH["node_feat"])[:, i]] for i, size in enumerate([3, 2])], axis=1
    )
    edges = np.eye(2, dtype=kind)[np.array(PATH["edge_attr"])[:, 0]]
    batch = categorical()([changed(PATH, node_feat=encoded.tolist(), edge_attr=edges), PATH])
    assert_same_batch(batch, categorical()([PATH, PATH]))


@pytest.mark.parametrize("wrong", [[1, 0, 0, 0, 0], [1, 1, 0, 1, 0], [0.5, 0.5, 0, 1, 0]])
def test_what_is_no_one_hot_encoding_is_refused(wrong):
    message = refusal(ValueError, categorical(), [changed(PATH, node_feat=[[1, 0, 0, 1, 0], wrong, [0, 1, 0, 0, 1]])])
    assert message.startswith("row 0: node_feat: expected shape (3, 2), a category per feature, or their one-hot encoding, got")
    assert "at place 1, which is none." in message


def test_numbers_that_tables_keep_as_objects_are_read():
    ends = np.array([np.array([0, 1]), np.array([1, 2])], dtype=object)
    assert categorical()(changed(PATH, edge_index=ends, edge_attr=[[0], [0]]))["edge_index"].tolist() == [[[0, 1], [1, 2]]]
