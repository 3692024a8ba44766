"""Columns of a data set under other names than those of a row."""

from collections.abc import Mapping
from typing import Any

from .row_labels import LABEL_KEYS

# Every key of a row that something here reads.
ROW_KEYS = (
    *("edge_index", "num_nodes", "node_feat", "edge_attr", "frame_ranks", "positions", "velocities", "charges", "image"),
    *("pixel_values", "edge_label_index", *dict.fromkeys(key for keys in LABEL_KEYS.values() for key in keys)),
)


def check_column_mapping(mapping: Any) -> dict[str, str]:
    """Check which column of a data set is which key of a row.

    Args:
        mapping: By column the key; `None` for none.

    Returns:
        `dict`: A copy.

    Raises:
        ValueError: If there is no such key, two columns are to be the same, or one takes the name of another.
        TypeError: If it is no dictionary of texts.
    """
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping) or not all(isinstance(name, str) for pair in mapping.items() for name in pair):
        raise TypeError(
            "column_mapping: expected a dict from the columns of the data set to the keys of a row, such as {'target': 'y'}, got "
            f"{mapping!r}."
        )
    for column, key in mapping.items():
        if key not in ROW_KEYS:
            raise ValueError(f"column_mapping[{column!r}]: expected one of {', '.join(map(repr, ROW_KEYS))}, got {key!r}.")
        if key != column and key in mapping:
            raise ValueError(
                f"column_mapping[{column!r}]: expected a key that is no column to be renamed, got {key!r}. Rename that column of "
                "the data set first, with dataset.rename_column."
            )
    keys = list(mapping.values())
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        columns = ", ".join(repr(column) for column, key in mapping.items() if key == twice)
        raise ValueError(f"column_mapping: expected one column for {twice!r}, got {columns}.")
    return dict(mapping)


def rename_columns(row: Mapping[str, Any], mapping: Mapping[str, str]) -> Mapping[str, Any]:
    """A row, or columns by name, in the words of this package: what has a key of its own by the mapping takes its place.

    Args:
        row: Values by column.
        mapping: By column the key.

    Returns:
        The same values by key.
    """
    if not mapping or not isinstance(row, Mapping):
        return row
    renamed = {key: row[column] for column, key in mapping.items() if column in row}
    return {**{column: value for column, value in row.items() if column not in mapping}, **renamed}
