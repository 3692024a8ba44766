"""The collator hands rows to the processor and gives a batch that a model takes as it is."""

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from lps_hf.data import DataCollatorForGraphs
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import random_rows, tiny_classifier, tiny_config


@pytest.fixture
def processor():
    return LPSProcessor.from_config(tiny_config())


def test_a_batch_is_the_processor_s_as_tensors(processor):
    rows = random_rows(4)
    batch, expected = DataCollatorForGraphs(processor)(rows), processor(rows, return_tensors="pt")
    assert batch.keys() == expected.keys()
    for key in expected:
        assert torch.equal(batch[key], expected[key])
        assert batch[key].dtype == expected[key].dtype


def test_any_sequence_of_rows_will_do(processor):
    collate, rows = DataCollatorForGraphs(processor), random_rows(3)
    assert torch.equal(collate(tuple(rows))["edge_index"], collate(rows)["edge_index"])


@pytest.mark.parametrize("multiple", [4, 16])
def test_lengths_are_padded_to_a_multiple(processor, multiple):
    batch = DataCollatorForGraphs(processor, pad_to_multiple_of=multiple)(random_rows(5))
    assert batch["node_mask"].shape[1] % multiple == 0
    assert batch["edge_mask"].shape[1] % multiple == 0
    assert torch.equal(batch["node_mask"].sum(1), torch.tensor([row["num_nodes"] for row in random_rows(5)]))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_data_loader_feeds_the_model(processor, num_workers):
    rows = random_rows(7)
    context = "fork" if num_workers else None
    loader = DataLoader(
        rows, 3, collate_fn=DataCollatorForGraphs(processor), num_workers=num_workers, multiprocessing_context=context
    )
    model, batches = tiny_classifier(), list(loader)
    assert [len(batch["labels"]) for batch in batches] == [3, 3, 1]
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == [row["y"][0] for row in rows]
    for batch in batches:
        outputs = model(**batch)
        assert outputs.loss.isfinite()
        assert outputs.logits.shape == (len(batch["labels"]), 3)


def test_an_empty_batch_is_refused(processor):
    with pytest.raises(ValueError, match=r"^rows: expected at least one row, got an empty batch\.$"):
        DataCollatorForGraphs(processor)([])


@pytest.mark.parametrize("power", [2, 1.5])
def test_lengths_are_padded_to_a_power(processor, power):
    rows = random_rows(40)
    collate = DataCollatorForGraphs(processor, pad_to_power_of=power)
    batches = [collate(rows[start : start + 2]) for start in range(0, 40, 2)]
    tight = [processor(rows[start : start + 2], return_tensors="pt") for start in range(0, 40, 2)]
    sizes = {2: {2, 4, 8, 16}, 1.5: {2, 3, 4, 6, 8, 12, 18}}[power]
    for key in ("node_mask", "edge_mask"):
        lengths, least = ([batch[key].shape[1] for batch in kind] for kind in (batches, tight))
        assert lengths == [min(size for size in sizes if size >= length) for length in least]
    for batch, expected in zip(batches, tight, strict=True):
        for key, mask in (("node_categories", "node_mask"), ("edge_categories", "edge_mask")):
            assert torch.equal(batch[key][batch[mask]], expected[key][expected[mask]])
            assert not batch[key][~batch[mask]].any()


def test_a_multiple_of_the_power_is_both(processor):
    row = random_rows(1)[0]
    nodes = row["num_nodes"]
    assert 4 < nodes <= 8
    batch = DataCollatorForGraphs(processor, pad_to_multiple_of=5, pad_to_power_of=2)([row])
    assert batch["node_mask"].shape == (1, 10)


def test_a_streamed_data_set_gives_arrow_tables(processor):
    rows = random_rows(7)
    stream = Dataset.from_list(rows).to_iterable_dataset().with_format("arrow")
    batches = list(DataLoader(stream, 3, collate_fn=DataCollatorForGraphs(processor)))
    assert len(batches) == 3
    for start, batch in zip((0, 3, 6), batches, strict=True):
        expected = processor(rows[start : start + 3], return_tensors="pt")
        assert batch.keys() == expected.keys()
        for key in expected:
            assert torch.equal(batch[key], expected[key])
