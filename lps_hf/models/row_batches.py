"""Rows in every form, and checked rows padded to one batch."""

import math
from collections.abc import Iterable, Mapping, Sized
from typing import Any, NamedTuple

import numpy as np

from .row_labels import LABEL_KEYS, LABEL_PADDING, is_known
from .row_molecules import is_smiles_column

# Which axis the arrays of a batch key are padded on.
_PADDED_KEYS = {
    "node_categories": "nodes",
    "node_features": "nodes",
    "positions": "nodes",
    "velocities": "nodes",
    "charges": "nodes",
    "frame_ranks": "nodes",
    "edge_categories": "edges",
    "edge_features": "edges",
}
# Number of axes of what one row has; a column of rows has one more.
_ROW_AXES = {"edge_index": 2, "positions": 2, "pos": 2, "velocities": 2, "vel": 2, "pixel_values": 3, "image": 3}


class Padding(NamedTuple):
    """To what lengths batches are padded; without arguments, to their longest row."""

    multiple_of: int | None = None
    """Round lengths up to a multiple of this."""
    power_of: float | None = None
    """Round lengths up to a power of this, before that."""

    def check(self) -> None:
        """Refuse what no length can be rounded to.

        Raises:
            ValueError: Naming the argument of `LPSProcessor.__call__`.
        """
        if self.multiple_of is not None and self.multiple_of < 1:
            raise ValueError(f"pad_to_multiple_of: expected at least 1, got {self.multiple_of}.")
        if self.power_of is not None and not 1 < self.power_of < math.inf:
            raise ValueError(f"pad_to_power_of: expected a number above 1, such as 2 or 1.25, got {self.power_of}.")

    def length(self, longest: int) -> int:
        """The length of a batch whose longest row has this one; an empty one stays empty."""
        length = int(longest)
        if self.power_of is not None and length:
            power = 1.0
            while math.ceil(power) < length:
                power *= self.power_of
            length = math.ceil(power)
        return length if self.multiple_of is None else -(-length // self.multiple_of) * self.multiple_of


def as_rows(rows: Any) -> list[Mapping[str, Any]]:
    """One row, a list of rows or a dictionary of columns, as a list of rows.

    Args:
        rows: Any of these.

    Returns:
        `list`: The rows.

    Raises:
        ValueError: If columns have different lengths, or there is no row.
        TypeError: If it is something else.
    """
    if not isinstance(rows, Mapping):
        if not isinstance(rows, Iterable):
            raise TypeError(f"rows: expected a list of rows, one row or a dictionary of columns, got {type(rows).__name__}.")
        rows = list(rows)
    elif any(hasattr(value, "column_names") for value in rows.values()):
        raise ValueError(f"rows: expected one data set, got the splits {', '.join(map(str, rows))}. Pass one of them.")
    elif _is_one_row(rows):
        rows = [rows]
    else:
        rows = {key: values.to_pylist() if hasattr(values, "to_pylist") else values for key, values in rows.items()}  # of pyarrow
        lengths = {key: len(values) if isinstance(values, Sized) else 0 for key, values in rows.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"rows: expected columns of one length, got {lengths}.")
        rows = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    if not rows:
        raise ValueError("rows: expected at least one row, got an empty batch.")
    return rows


def pad_nodes(rows: list[dict[str, Any]], label_kind: str | None, padding: Padding) -> dict[str, np.ndarray]:
    """Pad checked rows of graphs or points to one batch.

    Args:
        rows: Checked rows, by batch key, with `num_nodes`.
        label_kind: A key of `LABEL_KEYS`; see `label_kind`.
        padding: How many nodes, edges and pairs the batch gets.

    Returns:
        `dict`: The batch.

    Raises:
        ValueError: If rows do not have the same keys.
    """
    sizes = np.array([row["num_nodes"] for row in rows])
    lengths = {"nodes": padding.length(sizes.max())}
    batch = {"node_mask": np.arange(lengths["nodes"]) < sizes[:, None]}
    if "edge_index" in rows[0]:
        num_edges = np.array([row["edge_index"].shape[1] for row in rows])
        lengths["edges"] = padding.length(num_edges.max())
        batch["edge_mask"] = np.arange(lengths["edges"]) < num_edges[:, None]
        batch["edge_index"] = _pad([row["edge_index"].T for row in rows], lengths["edges"]).transpose(0, 2, 1)
    present: set[str] = set().union(*rows)
    for key, axis in _PADDED_KEYS.items():
        if key in present:
            batch[key] = _pad([_feature_of(row, key, number) for number, row in enumerate(rows)], lengths[axis])
    if "pair_index" in present:
        _check_all_have("pair_index", "the pairs 'edge_label_index'", rows)
        lengths["pairs"] = padding.length(max(row["pair_index"].shape[1] for row in rows))
        batch["pair_index"] = _pad([row["pair_index"].T for row in rows], lengths["pairs"]).transpose(0, 2, 1)
    labels = _labels_of(rows, label_kind)
    if labels and label_kind in LABEL_PADDING:
        length = lengths["pairs" if label_kind == "link" else "nodes"]
        batch["labels"] = _pad(labels, length, LABEL_PADDING[label_kind])
    elif labels:
        batch["labels"] = np.stack(labels)
    return batch


def stack_images(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Stack checked rows of images to one batch.

    Args:
        rows: With `pixel_values` (channels, height, width), and `labels` where known.

    Returns:
        `dict`: The batch.

    Raises:
        ValueError: If images have different sizes, or some rows only have a label.
    """
    first = rows[0]["pixel_values"].shape
    for number, row in enumerate(rows):
        shape = row["pixel_values"].shape
        if shape != first:
            raise ValueError(
                f"row {number}: expected an image of height and width {first[1:]}, as row 0 has, got {shape[1:]}. Resize the "
                "images, or make the processor with an image_processor that does."
            )
    batch = {"pixel_values": np.stack([row["pixel_values"] for row in rows])}
    labels = _labels_of(rows, "image")
    if labels:
        batch["labels"] = np.stack(labels)
    return batch


def _is_one_row(rows: Mapping[str, Any]) -> bool:
    num_nodes = rows.get("num_nodes")
    if num_nodes is not None and np.ndim(num_nodes) == 0:
        return True
    key = next((key for key in _ROW_AXES if rows.get(key) is not None), None)
    if key is None:  # columns of numbers of nodes, or of SMILES strings, are the only content that is left
        is_column = any(is_smiles_column(name) and _is_column(value) for name, value in rows.items())
        return num_nodes is None and not is_column
    value = rows[key]
    if key == "image" and isinstance(value, list | tuple) and value and not isinstance(value[0], list | tuple):
        return False  # several pictures: a single one is no list, or lists of lists
    if _depth(value) > _ROW_AXES[key]:
        return False
    # One graph's number of nodes in a list is no column: it has not as many entries. Graphs without edges may be empty lists.
    return num_nodes is None or len(num_nodes) != len(value)


def _is_column(value: Any) -> bool:
    """Whether it holds one text, or molecule, of each row."""
    return isinstance(value, Sized) and not isinstance(value, str | bytes)


def _depth(value: Any) -> int:
    """Number of axes of nested lists, which may be ragged."""
    value = value.to_pylist() if hasattr(value, "to_pylist") else value
    if hasattr(value, "ndim") and value.dtype != object:
        return value.ndim
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list | tuple | np.ndarray) else 0


def _labels_of(rows: list[dict[str, Any]], label_kind: str | None) -> list[np.ndarray]:
    """The labels of all rows, as arrays that stand in one batch; none where rows without a label are beside unknown ones."""
    labels = [row["labels"] for row in rows if "labels" in row]
    if label_kind is None or (len(labels) < len(rows) and not any(map(is_known, labels))):
        return []
    _check_all_have("labels", f"a label {LABEL_KEYS[label_kind][0]!r}", rows)
    if label_kind in LABEL_PADDING or len({label.shape for label in labels}) < 2:
        return labels
    # Where nothing says whether labels are classes or numbers, an unknown one is what the others are.
    first = next((label for label in labels if is_known(label)), labels[0])
    labels = [label if is_known(label) else np.full_like(first, -100 if first.dtype.kind == "i" else np.nan) for label in labels]
    wrong = next((number for number, label in enumerate(labels) if label.shape != first.shape), None)
    if wrong is not None:
        raise ValueError(
            f"row {wrong}: expected a label of shape {first.shape}, like those of the other rows, got {labels[wrong].shape}. Set "
            "problem_type in the model's config, which says what labels are."
        )
    return labels


def _check_all_have(key: str, meaning: str, rows: list[dict[str, Any]]) -> None:
    missing = next((number for number, row in enumerate(rows) if key not in row), None)
    if missing is not None:
        advice = " None stands for one that is not known." if key == "labels" else ""
        raise ValueError(f"row {missing}: expected {meaning} as the other rows have, got none.{advice}")


def _feature_of(row: dict[str, Any], key: str, number: int) -> np.ndarray:
    """A feature that other rows of the batch have."""
    if key in row:
        return row[key]
    if key == "edge_features" and not row["edge_index"].size:
        return np.zeros((0, 1), dtype=np.float32)
    raise ValueError(f"row {number}: expected real features {key!r} as the other rows have, got none.")


def _pad(arrays: list[np.ndarray], length: int, fill: float = 0) -> np.ndarray:
    """Stack arrays (rows, ...) of different lengths, filled up at the end."""
    padded = np.full((len(arrays), length, *arrays[0].shape[1:]), fill, dtype=arrays[0].dtype)
    for target, array in zip(padded, arrays, strict=True):
        target[: len(array)] = array
    return padded
