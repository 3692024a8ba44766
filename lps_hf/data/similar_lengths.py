"""Batches of rows of similar length, so that little of a batch is padding."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from .arrow_rows import ArrowRows, with_fast_rows

# What tells the length of a row, the first that is there: edges cost more than nodes, and mostly grow with them.
_LENGTH_COLUMNS = ("edge_index", "positions", "num_nodes", "node_feat")


def row_lengths(rows: Any, length_column: str = "length") -> np.ndarray:
    """How long each row is: its number of edges, or of nodes where a row has no edges.

    Args:
        rows: A `datasets.Dataset` or another sequence of rows.
        length_column: Column with lengths that are known already, where there is one.

    Returns:
        `np.ndarray` of shape `(len(rows),)` int64.

    Raises:
        ValueError: If rows have neither edges nor nodes, as images do.
    """
    rows = rows.dataset if isinstance(rows, ArrowRows) else rows
    names = rows.column_names if isinstance(rows, Dataset) else list(rows[0]) if len(rows) else []
    column = next((name for name in (length_column, *_LENGTH_COLUMNS) if name in names), None)
    if column is None:
        wanted = ", ".join(map(repr, (length_column, *_LENGTH_COLUMNS)))
        raise ValueError(f"rows: expected one of the columns {wanted} to tell their length, got {', '.join(names) or 'no row'}.")
    if isinstance(rows, Dataset):
        rows = with_fast_rows(rows.with_format(None).select_columns([column]))
        batches = (rows.__getitems__(range(start, min(start + 1000, len(rows)))) for start in range(0, len(rows), 1000))
        lengths = [_length_of(row, column) for batch in batches for row in batch]
    else:
        lengths = [_length_of(rows[number], column) for number in range(len(rows))]
    return np.array(lengths, dtype=np.int64)


class SimilarLengthSampler(torch.utils.data.Sampler[int]):
    """Every row once in each epoch, in a random order in which `batch_size` rows after each other are of similar length.

    Rows are shuffled and cut into pools of `pool_size` batches; each pool is sorted by length and cut into batches, and the
    batches of all pools are shuffled. So batches still differ from epoch to epoch, and longer ones do not all come at one time.
    The order depends on seed and epoch alone, and a resumed run goes on where it stopped.

    The rows of a batch are no longer independent of each other: gradients are noisier where labels depend on the length, and the
    batch norm of an interface sees graphs of one size only.

    Args:
        lengths: Length of each row; see `row_lengths`.
        batch_size: Number of rows that should have similar lengths.
        seed: Seed of the order.
        pool_size: Number of batches of a pool: the more, the less padding, and the more alike are the batches of two epochs.

    Raises:
        ValueError: If `batch_size` or `pool_size` is below 1.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int = 0, pool_size: int = 50) -> None:
        for name, value in (("batch_size", batch_size), ("pool_size", pool_size)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}.")
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.pool_size = pool_size
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        # Both numbers are the seed: their sum would give seed 1 the second epoch of seed 0 as its first.
        generator = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        order = generator.permutation(len(self))
        # What fills no batch comes last, as it is: whatever is dropped or seen last is then no matter of length.
        full, rest = np.split(order, [len(self) // self.batch_size * self.batch_size])
        pools = _cut(full, self.batch_size * self.pool_size)
        batches = [batch for pool in pools for batch in _cut(pool[self.lengths[pool].argsort(kind="stable")], self.batch_size)]
        places = generator.permutation(len(batches))
        return iter([number for batch in (*(batches[place] for place in places), rest) for number in batch.tolist()])

    def set_epoch(self, epoch: int) -> None:
        """Give the next pass the order of this epoch; `Trainer` does it at the start of each."""
        self.epoch = epoch


def _cut(numbers: np.ndarray, size: int) -> list[np.ndarray]:
    """Parts of one size, the last of which may be smaller."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _length_of(row: Mapping[str, Any], column: str) -> int:
    value = row.get(column)
    if value is None:
        return 0  # the processor tells what is missing
    if column == "edge_index":
        return len(value[0]) if len(value) else 0
    return len(value) if column in ("positions", "node_feat") else int(value)
