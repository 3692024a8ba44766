"""Rows of a data set as arrays, read straight from its Arrow columns: many times faster than as Python lists."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, List, Value


class ArrowRows:
    """A view of a `datasets.Dataset` whose rows hold arrays in place of lists of numbers; the processor takes both alike.

    `datasets` makes a Python object of every number, which for large graphs takes longer than all the rest. Here a row is a few
    slices of the columns, for lists of numbers and lists of such lists; all other values, and lists with missing numbers or of
    different lengths, are as `datasets` gives them. Arrays may not be written to. See `with_fast_rows` for data sets that can be
    read so; a streamed data set has `.with_format("arrow")` in its place, and the collator takes its rows.

    Args:
        dataset: Data set whose columns are plain values and lists.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._tables = dataset.with_format("arrow", columns=dataset.format["columns"])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once, as `torch.utils.data.DataLoader` asks for a batch."""
        return rows_of_table(self._tables[list(numbers)])


def rows_of_table(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of an Arrow table, with arrays in place of lists of numbers.

    Args:
        table: As a data set with the format `"arrow"` gives it.

    Returns:
        `list[dict]`: The rows; see `ArrowRows`. Arrays may not be written to.
    """
    columns = [_values_of(column.combine_chunks()) for column in table.columns]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def with_fast_rows(rows: Any) -> Any:
    """Make rows as fast to read as can be.

    Args:
        rows: A data set of any kind.

    Returns:
        `ArrowRows` of a `datasets.Dataset` of plain values and lists without a format or transform of its own; anything else,
        such as a data set of images, as it is.
    """
    plain = isinstance(rows, Dataset) and rows.format["type"] is None and all(map(is_plain, rows.features.values()))
    return ArrowRows(rows) if plain else rows


def is_plain(feature: Any) -> bool:
    """Whether a column, given by its feature, holds plain values and lists, with nothing to decode."""
    while isinstance(feature, List):
        feature = feature.feature
    return type(feature) is Value


def _values_of(column: pa.Array) -> Sequence[Any]:
    """One value per row: an array for a list of numbers or a list of lists of numbers, else what Python has for it."""
    levels, values = [], column
    while pa.types.is_list(values.type) and not values.null_count:
        offsets = values.offsets.to_numpy()
        levels.append(offsets - offsets[0])
        values = values.flatten()  # of a slice only what belongs to it, unlike `values.values`
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if not is_number or values.null_count or len(levels) not in (1, 2):
        return column.to_pylist()
    numbers = values.to_numpy()
    if len(levels) == 1:
        return [numbers[start:end] for start, end in pairwise(levels[0].tolist())]
    widths = np.diff(levels[1])
    # How often the width of a list differs from that of the one before, up to each list: not at all within a matrix.
    changes = np.append(0, (widths[1:] != widths[:-1]).cumsum())
    ends, rows = levels[1], []
    for number, (start, end) in enumerate(pairwise(levels[0].tolist())):
        if start == end:
            rows.append(numbers[:0])
        elif changes[start] == changes[end - 1]:
            rows.append(numbers[ends[start] : ends[end]].reshape(end - start, widths[start]))
        else:
            rows.append(column[number].as_py())
    return rows
