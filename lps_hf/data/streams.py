"""Data sets that are read while training goes on, because they are too large to be copied or to be held."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from datasets import Dataset, IterableDataset

from .arrow_rows import is_plain

# Rows that are mixed at a time: a stream has no other order than that of its files.
BUFFER_SIZE = 1000


def streamed_splits(
    streams: Mapping[str, IterableDataset], num_first_rows: int = 1000, max_train_rows: int | None = None, *, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Dataset]]:
    """Splits for a training run on a stream: `train` stays one; the others are read whole, as metrics are those of a whole split.

    Args:
        streams: The splits, from `load_dataset_for(..., streaming=True)`.
        num_first_rows: How many rows of `train` to read beforehand.
        max_train_rows: End `train` after so many rows, the first ones.
        seed: Seed of the order of `train`; `Trainer` gives each epoch another.

    Returns:
        `tuple[dict, dict]`: The splits; and what is known of each beforehand, for `infer_config` and baselines: of `train` its
        first rows only. What these do not tell, such as a category that comes later, has to be given: the processor refuses it.
    """
    known = {split: first_rows(stream, num_first_rows if split == "train" else None) for split, stream in streams.items()}
    train = streams["train"] if max_train_rows is None else streams["train"].take(max_train_rows)
    if train.features is not None and all(map(is_plain, train.features.values())):
        train = train.with_format("arrow")  # see `ArrowRows`
    return {**known, "train": train.shuffle(seed=seed, buffer_size=BUFFER_SIZE)}, known


def first_rows(stream: IterableDataset, count: int | None = None) -> Dataset:
    """Read the first rows of a stream.

    Args:
        stream: The stream.
        count: How many; all by default.

    Returns:
        `datasets.Dataset`: The rows, in memory.
    """
    return Dataset.from_list(list(islice(stream, count)), features=stream.features)
