"""Rows read straight from Arrow columns are those that `datasets` gives, with arrays in place of lists of numbers."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Array2D, Dataset, Features, LargeList, List, Value
from torch.utils.data import DataLoader

from lps_hf.data import DataCollatorForGraphs
from lps_hf.data.arrow_rows import ArrowRows, rows_of_table, with_fast_rows
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import random_rows, tiny_config

ROWS = [{**row, "smiles": "C" * number, "weight": number / 2} for number, row in enumerate(random_rows(9))]


def plain(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


def assert_same_rows(rows, expected):
    assert [{key: plain(value) for key, value in row.items()} for row in rows] == list(expected)


@pytest.mark.parametrize("writer_batch_size", [1000, 2])
def test_rows_hold_what_the_data_set_s_rows_hold(writer_batch_size):
    dataset = Dataset.from_list(ROWS).map(lambda row: row, writer_batch_size=writer_batch_size)
    rows = ArrowRows(dataset)
    assert len(rows) == 9
    for numbers in ([0], [8, 0, 3, 3], list(range(9))):
        assert_same_rows(rows.__getitems__(numbers), [ROWS[number] for number in numbers])
    assert_same_rows([rows[5], rows[-1]], [ROWS[5], ROWS[-1]])
    with pytest.raises(IndexError):
        rows[9]


def test_lists_of_numbers_are_arrays_and_all_else_is_as_it_was():
    row = ArrowRows(Dataset.from_list(ROWS))[4]
    nodes = ROWS[4]["num_nodes"]
    shapes = {key: value.shape for key, value in row.items() if isinstance(value, np.ndarray)}
    assert shapes == {"edge_index": (2, 2 * nodes), "node_feat": (nodes, 2), "edge_attr": (2 * nodes, 1), "y": (1,)}
    assert (row["num_nodes"], row["smiles"], row["weight"]) == (nodes, "CCCC", 2.0)
    assert type(row["num_nodes"]) is int


def test_the_order_of_a_shuffled_data_set_is_kept():
    dataset = Dataset.from_list(ROWS).shuffle(seed=3).select(range(2, 8))
    assert_same_rows(ArrowRows(dataset).__getitems__([4, 1]), [dataset[4], dataset[1]])


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64", "float32", "float64"])
@pytest.mark.parametrize("table", [[[[1, 2], [3, 4]], [[5, 6]]], [[[], []], [[1], [2]]], [[], [[1, 2]]], [[], []], [[[]]]])
def test_matrices_keep_their_type_and_shape(kind, table):
    rows = rows_of_table(pa.table({"matrix": pa.array(table, pa.list_(pa.list_(getattr(pa, kind)())))}))
    for row, expected in zip(rows, table, strict=True):
        assert row["matrix"].dtype == kind
        assert row["matrix"].shape == np.array(expected).shape
        assert row["matrix"].tolist() == expected


@pytest.mark.parametrize(
    "column",
    [
        [[[1, 2], [3]], [[4]], [[], [1]]],  # ragged
        [[[1, None], [3, 4]], [[5, 6]]],  # a missing number
        [None, [[1]]],  # a missing list
        [[None, [1]]],
        [[1, None], [2, 3]],
        [["a", "b"], []],
        [[True, False], [True]],
        [[[[1, 2]]], [[[3, 4]]]],  # three axes
        [{"a": [1]}],
        [None, None],
    ],
)
def test_what_is_no_matrix_is_as_python_has_it(column):
    rows = rows_of_table(pa.table({"column": column}))
    assert_same_rows(rows, [{"column": value} for value in column])
    # And again as a part of a longer column, where places are counted from its start.
    longer = pa.concat_tables([pa.table({"column": [column[-1], *column]})]).slice(1)
    assert_same_rows(rows_of_table(longer), [{"column": value} for value in column])


def test_only_data_sets_with_nothing_to_decode_or_transform_are_read_so():
    dataset = Dataset.from_list(ROWS)
    assert isinstance(with_fast_rows(dataset), ArrowRows)
    matrices = Features({"matrix": Array2D((2, 2), "int64")})
    large = Features({"numbers": LargeList(Value("int64"))})
    for other in (
        ROWS,
        dataset.with_format("numpy"),
        dataset.with_transform(lambda rows: rows),
        dataset.to_iterable_dataset(),
        Dataset.from_dict({"matrix": [[[1, 2], [3, 4]]]}, features=matrices),
        Dataset.from_dict({"numbers": [[1, 2]]}, features=large),
    ):
        assert with_fast_rows(other) is other
    fixed = Features({"numbers": List(List(Value("int64"), length=2))})
    assert_same_rows([with_fast_rows(Dataset.from_dict({"numbers": [[[1, 2]]]}, features=fixed))[0]], [{"numbers": [[1, 2]]}])


def test_columns_that_the_format_leaves_out_are_not_read():
    dataset = Dataset.from_list(ROWS).with_format(None, columns=["y", "num_nodes"])
    assert_same_rows([with_fast_rows(dataset)[1]], [dataset[1]])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_data_loader_makes_the_batches_of_lists(num_workers):
    dataset = Dataset.from_list(ROWS).remove_columns("weight")  # which the model does not read
    collator = DataCollatorForGraphs(LPSProcessor.from_config(tiny_config()))
    settings = {"batch_size": 4, "collate_fn": collator}
    expected = list(DataLoader(dataset, **settings))
    context = "fork" if num_workers else None
    batches = list(DataLoader(ArrowRows(dataset), num_workers=num_workers, multiprocessing_context=context, **settings))
    assert len(batches) == len(expected) == 3
    for batch, same in zip(batches, expected, strict=True):
        assert batch.keys() == same.keys()
        for key in batch:
            assert torch.equal(batch[key], same[key])
            assert batch[key].dtype == same[key].dtype


def test_a_view_can_be_sent_to_another_process():
    rows = pickle.loads(pickle.dumps(ArrowRows(Dataset.from_list(ROWS))))
    assert_same_rows([rows[2]], [ROWS[2]])
