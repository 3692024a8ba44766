"""Streamed data sets: what is read beforehand, and what comes while training."""

import numpy as np
import pytest
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.data.rows import infer_config, load_dataset_for
from lps_hf.data.streams import first_rows, streamed_splits
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import random_rows, save_dataset


@pytest.fixture(autouse=True)
def _datasets(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    # It waits five seconds for its threads at the end of each shuffled pass.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


@pytest.fixture
def streams(tmp_path):
    folder = save_dataset(tmp_path / "graphs", train=random_rows(30), test=random_rows(9, 1))
    return load_dataset_for("graph-classification", folder, streaming=True)


def test_evaluation_splits_are_read_and_training_rows_come_later(streams):
    splits, known = streamed_splits(streams, 12)
    assert list(known["train"]) == random_rows(30)[:12]
    assert list(splits["test"]) == list(known["test"]) == random_rows(9, 1)
    assert isinstance(splits["train"], IterableDataset)
    assert infer_config("graph-classification", known)["node_categories"] == [3, 2]
    processor = LPSProcessor(8, [3, 2], [2], num_labels=3)
    batches = list(DataLoader(splits["train"], 8, collate_fn=DataCollatorForGraphs(processor)))
    assert [len(batch["labels"]) for batch in batches] == [8, 8, 8, 6]


def test_every_row_comes_once_in_an_order_of_its_own(streams):
    def order(seed, epoch=0, limit=None):
        train = streamed_splits(streams, max_train_rows=limit, seed=seed)[0]["train"]
        train = train.with_format(None)
        train.set_epoch(epoch)
        return [row["edge_index"] for row in train]

    expected = [row["edge_index"] for row in random_rows(30)]
    orders = [order(0), order(1), order(0, epoch=1)]
    assert order(0) == orders[0]
    for number, one in enumerate(orders):
        assert sorted(one) == sorted(expected)
        assert one not in [expected, *orders[:number]]
    assert sorted(order(0, limit=5)) == sorted(expected[:5])


def test_images_stay_images():
    Image = pytest.importorskip("PIL.Image")
    pictures = [Image.new("RGB", (2, 2), (grey,) * 3) for grey in (0, 9)]
    stream = Dataset.from_dict({"image": pictures, "label": [0, 1]}).to_iterable_dataset()
    splits, known = streamed_splits({"train": stream})
    assert [row["label"] for row in known["train"]] == [0, 1]
    assert {np.asarray(row["image"]).max() for row in splits["train"]} == {0, 9}


def test_what_the_first_rows_do_not_tell_is_refused_when_it_comes(streams):
    known = {"train": first_rows(streams["train"], 2)}
    config = LPSConfig(backbone_config={"model_type": "lps_mlp"}, group="S_n", **infer_config("graph-classification", known))
    processor = LPSProcessor.from_config(config)
    with pytest.raises(ValueError, match=r"row 2: y: expected 0 to 1, or -100 for missing, got 2"):
        list(DataLoader(streams["train"], 30, collate_fn=DataCollatorForGraphs(processor)))


def test_a_missing_column_is_refused(tmp_path):
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "train.jsonl").write_text('{"edge_index": [[0], [1]], "y": [0]}\n')
    with pytest.raises(ValueError, match=r"got edge_index, y; 'num_nodes' is missing"):
        load_dataset_for("graph-classification", str(tmp_path / "graphs"), streaming=True)
