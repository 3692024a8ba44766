"""Keys of rows: other words for them, those that say which labels belong to which split, and those that a model does not read."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from .column_mapping import ROW_KEYS
from .row_checks import as_array, present_keys
from .row_labels import LABEL_KEYS

# Other words for the keys of a row, as PyTorch Geometric has them. They are read where a row has not the key itself.
OTHER_NAMES = {"x": "node_feat", "pos": "positions", "vel": "velocities", "edge_weight": "edge_attr"}
# Which nodes of one large graph are labelled in which split, as PyTorch Geometric says it.
SPLIT_MASKS = {
    "train": ("train_mask",),
    "validation": ("val_mask", "valid_mask", "validation_mask"),
    "test": ("test_mask",),
}
MASK_KEYS = frozenset(key for keys in SPLIT_MASKS.values() for key in keys)

# What some task reads. A model of another task names it, whatever it is but a single text.
_FIELDS = {
    *ROW_KEYS,
    *OTHER_NAMES,
    *MASK_KEYS,
    *("adj", "adj_t"),
}
# Numbers that rows are known by, and what is made of the graph, so that nothing is lost without it.
_HARMLESS = {"id", "idx", "index", "num_nodes", "num_edges", "frame_ranks", "orbits"}


def other_names_in(row: Mapping[str, Any]) -> list[str]:
    """The keys of `OTHER_NAMES` that hold something which the row has not under the name of `LPSProcessor`."""
    return [name for name, key in OTHER_NAMES.items() if row.get(name) is not None and row.get(key) is None]


def with_known_names(row: Mapping[str, Any], names: Collection[str], where: str) -> dict[str, Any]:
    """Add what has another name under the name of `LPSProcessor`.

    Args:
        row: Any row.
        names: Some of `other_names_in`.
        where: Which row, for messages.

    Returns:
        `dict`: A copy with more keys. Weights of edges become one real number per edge.

    Raises:
        ValueError: If weights are ragged.
        TypeError: If weights are no numbers.
    """
    added = {OTHER_NAMES[name]: row[name] for name in names}
    if "edge_weight" in names:
        # Real numbers even where all of them are whole, which would be taken for categories.
        added["edge_attr"] = as_array(row["edge_weight"], f"{where}: edge_weight").astype(np.float64)
    return {**row, **added}


def unread_keys(row: Mapping[str, Any], read: Collection[str]) -> list[str]:
    """The keys of a row that hold something which a model does not read.

    These are fields and labels of other tasks, real numbers, and lists or arrays of numbers. Texts, single whole numbers and
    truth values (`smiles`, `id`, `fold`, …) are no input of any model, and are left alone.

    Args:
        row: The row.
        read: The keys that are read.

    Returns:
        `list[str]`: In the order of the row.
    """
    return [key for key, value in row.items() if key not in read and key not in _HARMLESS and _says_something(key, value)]


def labels_of_split(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Keep the labels of the nodes of one split: all others become -100, which losses and metrics leave out.

    Args:
        row: With a label for every node, and the masks of PyTorch Geometric: `train_mask`, `val_mask`, `test_mask`.
        split: A key of `SPLIT_MASKS`.

    Returns:
        `dict`: The row without masks. Labels that are texts become `None` instead.

    Raises:
        ValueError: If there is no such split, or its mask is missing or is not one truth value for each label.
    """
    check_split(split)
    mask_key = next((key for key in SPLIT_MASKS[split] if row.get(key) is not None), None)
    if mask_key is None:
        wanted = " or ".join(map(repr, SPLIT_MASKS[split]))
        raise ValueError(f"split: expected the key {wanted} for the split {split!r}, got only {present_keys(row)}.")
    mask = as_array(row[mask_key], mask_key)
    if mask.ndim == 2:
        raise ValueError(
            f"{mask_key}: expected one truth value per node, got shape {mask.shape}, several ways to split. Choose one of its "
            "columns."
        )
    if mask.ndim != 1 or not np.isin(mask, (0, 1)).all():
        raise ValueError(f"{mask_key}: expected one truth value per node, got {mask.dtype} of shape {mask.shape}.")
    kept = {key: value for key, value in row.items() if key not in MASK_KEYS}
    for key in LABEL_KEYS["node"]:
        if kept.get(key) is None:
            continue
        labels = kept[key].tolist() if hasattr(kept[key], "tolist") else kept[key]
        if not isinstance(labels, list | tuple) or len(labels) != len(mask):
            got = f"{len(labels)} labels" if isinstance(labels, list | tuple) else "one label"
            raise ValueError(f"{mask_key}: expected one truth value for each label in {key!r}, got {len(mask)} for {got}.")
        kept[key] = [label if known else _unknown(label) for label, known in zip(labels, mask.tolist(), strict=True)]
    return kept


def _unknown(label: Any) -> int | None:
    return -100 if isinstance(label, int | float) else None


def check_split(split: str) -> None:
    """Refuse a name that is no split.

    Raises:
        ValueError: Naming those there are.
    """
    if split not in SPLIT_MASKS:
        raise ValueError(f"split: expected one of {', '.join(map(repr, SPLIT_MASKS))} or None, got {split!r}.")


def _says_something(key: str, value: Any) -> bool:
    """Whether what a key holds could matter for an answer."""
    if isinstance(value, list | tuple):
        first = _first_item(value)
        return first is not None and (key in _FIELDS or not isinstance(first, str | bytes | Mapping))
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:  # an array or a tensor
        return math.prod(shape) > 0 and (key in _FIELDS or getattr(getattr(value, "dtype", None), "kind", "f") not in "USO")
    if value is None or isinstance(value, str):
        return False
    if isinstance(value, float):
        return value == value  # tables of pandas have NaN where there is nothing
    return key in _FIELDS or "float" in str(getattr(value, "dtype", ""))


def _first_item(value: Any) -> Any:
    """The first thing in nested lists that is no list and no empty array; `None` where there is none."""
    if isinstance(value, list | tuple):
        return next((item for item in map(_first_item, value) if item is not None), None)
    shape = getattr(value, "shape", None)
    return None if isinstance(shape, tuple) and 0 in shape else value
