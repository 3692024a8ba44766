"""Batches of similar lengths: every row once, little padding, another order in every epoch, the same one for the same seed."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from lps_hf.data.arrow_rows import ArrowRows
from lps_hf.data.similar_lengths import SimilarLengthSampler, row_lengths
from tests.tiny import random_rows

LENGTHS = np.random.default_rng(0).integers(1, 500, size=1003)


def padding(lengths, order, batch_size):
    batches = [lengths[order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)


def test_every_row_comes_once_and_little_is_padding():
    sampler = SimilarLengthSampler(LENGTHS, batch_size=8, pool_size=20)
    order = list(sampler)
    assert len(sampler) == 1003
    assert sorted(order) == list(range(1003))
    assert padding(LENGTHS, np.arange(1003), 8) > 0.35  # as the rows come
    assert padding(LENGTHS, order, 8) < 0.06
    assert padding(LENGTHS, list(SimilarLengthSampler(LENGTHS, 8, pool_size=1)), 8) > 0.35


def test_a_batch_that_is_not_full_comes_last_and_is_not_chosen_by_length():
    last = set()
    for seed in range(40):
        order = list(SimilarLengthSampler(np.arange(19), batch_size=4, seed=seed))
        full, rest = order[:16], order[16:]
        batches = {frozenset(full[start : start + 4]) for start in range(0, 16, 4)}
        assert batches == {frozenset(sorted(full)[start : start + 4]) for start in range(0, 16, 4)}
        last.update(rest)
    assert last == set(range(19))


def test_long_batches_come_at_any_time():
    sampler = SimilarLengthSampler(np.arange(400), batch_size=4)
    places = []
    for _ in range(200):
        places.append(list(sampler).index(399) // 4)
    # Uniform on 0 … 99: mean 49.5, and 2.04 is the standard error.
    assert abs(np.mean(places) - 49.5) < 4 * 2.04
    assert min(places) < 10
    assert max(places) >= 90


def test_the_order_is_that_of_seed_and_epoch():
    sampler, again = (SimilarLengthSampler(LENGTHS, 8, seed=5) for _ in range(2))
    torch.manual_seed(1)
    first, second = list(sampler), list(sampler)
    assert first != second
    # Batches differ too, not only their order.
    assert (
        len({frozenset(first[i : i + 8]) for i in range(0, 1000, 8)} & {frozenset(second[i : i + 8]) for i in range(0, 1000, 8)})
        < 5
    )
    torch.manual_seed(2)
    again.set_epoch(1)
    assert list(again) == second
    again.set_epoch(0)
    assert list(again) == first
    assert list(SimilarLengthSampler(LENGTHS, 8, seed=6)) not in (first, second)


def test_it_serves_a_data_loader():
    loader = DataLoader(LENGTHS, 8, sampler=SimilarLengthSampler(LENGTHS, 8))
    spans = [float((batch.max() - batch.min()).item()) for batch in loader]
    assert np.median(spans) < 20


@pytest.mark.parametrize(("rows", "expected"), [([], []), ([7], [0])])
def test_few_rows_will_do(rows, expected):
    assert list(SimilarLengthSampler(rows, 4)) == expected


@pytest.mark.parametrize("name", ["batch_size", "pool_size"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=rf"^{name}: expected at least 1, got 0\.$"):
        SimilarLengthSampler([1, 2], **{"batch_size": 2, name: 0})


# --------------------------------------------------------------------------------------------------------------- lengths


def test_the_length_of_a_graph_is_its_number_of_edges_in_every_kind_of_rows():
    rows = random_rows(30)
    rows[3].update(edge_index=[[], []], edge_attr=[])
    expected = [len(row["edge_index"][0]) for row in rows]
    assert len(set(expected)) > 3
    dataset = Dataset.from_list(rows)
    numpy_rows = [{**row, "edge_index": np.array(row["edge_index"])} for row in rows]
    for kind in (rows, numpy_rows, dataset, dataset.with_format("torch"), ArrowRows(dataset)):
        lengths = row_lengths(kind)
        assert lengths.dtype == np.int64
        assert lengths.tolist() == expected
    order = [4, 3, 0, 9]
    assert row_lengths(dataset.select(order)).tolist() == [expected[number] for number in order]


def test_a_column_of_lengths_is_used_where_there_is_one():
    rows = [{**row, "length": number, "cost": 2 * number} for number, row in enumerate(random_rows(5))]
    for kind in (rows, Dataset.from_list(rows)):
        assert row_lengths(kind).tolist() == [0, 1, 2, 3, 4]
        assert row_lengths(kind, "cost").tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    "row", [{"positions": [[0.0, 1.0, 2.0]] * 4}, {"num_nodes": 4}, {"node_feat": [[0]] * 4}, {"num_nodes": 4, "y": [1]}]
)
def test_without_edges_it_is_the_number_of_nodes(row):
    assert row_lengths([row, row]).tolist() == [4, 4]
    assert row_lengths(Dataset.from_list([row, row])).tolist() == [4, 4]


def test_a_missing_edge_list_is_left_to_the_processor():
    rows = [{"edge_index": [[0], [0]]}, {"edge_index": None}, {"edge_index": []}, {}]
    assert row_lengths(rows).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(("rows", "got"), [([{"image": 0, "label": 1}], "image, label"), ([], "no row")])
def test_rows_without_a_length_are_refused(rows, got):
    message = rf"^rows: expected one of the columns 'length', 'edge_index', .* to tell their length, got {got}\.$"
    with pytest.raises(ValueError, match=message):
        row_lengths(rows)
