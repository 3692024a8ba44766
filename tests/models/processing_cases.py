"""Rows and processors that the tests of the processor share."""

import copy

import numpy as np
import pytest

from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import EDGE_CATEGORIES, MAX_NODES, NODE_CATEGORIES

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
PATH = {
    "edge_index": [[0, 1, 1, 2], [1, 0, 2, 1]],
    "num_nodes": 3,
    "node_feat": [[0, 1], [2, 0], [1, 1]],
    "edge_attr": [[0], [0], [1], [1]],
    "y": [2],
}
LONELY = {"edge_index": [[], []], "num_nodes": 1, "node_feat": [[2, 1]], "edge_attr": [], "y": [0]}
DROP = object()
REAL_NODES = [[0.5, -1.0, 2.0], [0.0, 0.25, 1.0], [1.0, 1.0, 1.0]]
REAL_EDGES = [[0.5, 1.5], [0.5, 1.5], [2.0, -1.0], [2.0, -1.0]]
NAN = float("nan")


def categorical(**options):
    defaults = {
        "max_nodes": MAX_NODES,
        "node_categories": NODE_CATEGORIES,
        "edge_categories": EDGE_CATEGORIES,
        "num_labels": 3,
        "problem_type": SINGLE,
    }
    return LPSProcessor(**{**defaults, **options})


def changed(row, **changes):
    """The row with some keys replaced, or left out where the value is `DROP`."""
    return {key: value for key, value in {**copy.deepcopy(row), **changes}.items() if value is not DROP}


def refusal(kind, processor, rows, **options):
    """What the processor says when it refuses rows."""
    with pytest.raises(kind) as caught:
        processor(rows, **options)
    assert type(caught.value) is kind
    return str(caught.value)


def assert_same_batch(left, right):
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype, key
        np.testing.assert_array_equal(left[key], right[key], err_msg=key)
