"""Checks of the labels of a row, one function for each kind of task."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .representations import Representation
from .row_checks import LARGEST, as_array, as_float32, too_large

# The row keys of each kind of label; the first that is there counts.
LABEL_KEYS = {
    "graph": ("y",),
    "node": ("y",),
    "link": ("edge_label",),
    "position": ("target_positions",),
    "image": ("label", "labels"),
}
# What stands for a missing label where rows of different lengths are padded.
LABEL_PADDING = {"node": -100, "link": np.nan, "position": np.nan}


class LabelSpec(NamedTuple):
    """What labels a model is trained on."""

    kind: str | None
    """A key of `LABEL_KEYS`, or `None` for none."""
    num_labels: int
    problem_type: str | None
    dimension: int
    """Number of coordinates of a position."""


def label_kind(output: Representation, inputs: Mapping[str, Any]) -> str | None:
    """The kind of labels that belongs to an output.

    Args:
        output: Axes of the model's output.
        inputs: The input fields by name.

    Returns:
        A key of `LABEL_KEYS`; `None` where no task head has such an output.
    """
    letters = tuple(axis for axis in output.axes if isinstance(axis, str))
    if not letters:
        return "image" if "pixel_values" in inputs else "graph"
    if letters in (("n", "p"), ("n", "v")) and len(output.axes) == 2:
        return "position"
    if letters == ("n", "n") and output.num_channels == 1:
        return "link"
    # With two node axes the classes are read on the diagonal.
    return "node" if letters in (("n",), ("n", "n")) else None


def check_labels(row: Mapping[str, Any], where: str, spec: LabelSpec, checked: Mapping[str, Any]) -> np.ndarray | None:
    """Check the label of a row; missing parts are `None` or NaN, for classes also -100.

    Args:
        row: The row.
        where: Which row, for messages.
        spec: What labels there are.
        checked: The row's other content by batch key, with `num_nodes` and `pair_index` where there are any.

    Returns:
        `None` where the row has no label; one class `()` int64 or targets (num_labels,) float32 of a graph or image; classes
        (num_nodes,) int64 of nodes; (pairs,) float32 of links; (num_nodes, d) float32 of positions.

    Raises:
        ValueError: If there are too many or too few numbers, or one is out of range.
        TypeError: If there is something else than numbers, or half a class.
    """
    for key in LABEL_KEYS[spec.kind] if spec.kind else ():
        label = row.get(key)
        if label is not None:
            break
    else:
        return None
    place = f"{where}: {key}"
    if spec.kind == "graph":
        return _check_label(label, place, spec.num_labels, spec.problem_type)
    if spec.kind == "image":
        return _check_label(label, place, spec.num_labels, spec.problem_type or "single_label_classification")
    if spec.kind == "node":
        return _check_node_labels(label, place, spec.num_labels, checked["num_nodes"])
    if spec.kind == "position":
        return _check_positions(label, place, (checked["num_nodes"], spec.dimension))
    if "pair_index" not in checked:
        raise ValueError(f"{place}: expected the pairs it belongs to in edge_label_index, got none.")
    return _check_pair_labels(label, place, checked["pair_index"].shape[1])


def _check_label(label: Any, where: str, num_labels: int, problem_type: str | None) -> np.ndarray:
    """One class, or a number for each target, of a graph or an image."""
    array = np.atleast_1d(_numbers_or_missing(label, where))
    # Data sets made with PyG keep the labels of a graph as a matrix of one row.
    array = array[0] if array.ndim == 2 and len(array) == 1 else array
    several = problem_type in ("multi_label_classification", "regression") or (
        problem_type is None and (num_labels == 1 or array.dtype.kind == "f")
    )
    expected = num_labels if several else 1
    if array.shape != (expected,):
        kind = problem_type or "this model; problem_type in its config is not set"
        raise ValueError(f"{where}: expected {expected} number(s) for {kind}, got shape {array.shape}.")
    if several:
        array = _check_no_infinity(array, where)
        known = array[~np.isnan(array)]
        if problem_type == "multi_label_classification" and not ((known == 0) | (known == 1)).all():
            raise ValueError(f"{where}: expected 0, 1 or NaN for missing, got {known.tolist()}.")
        return array
    number = -100.0 if np.isnan(array[0]) else float(array[0])
    if not number.is_integer():
        raise TypeError(f"{where}: expected a class number, got {label!r}.")
    if not (0 <= number < num_labels or number == -100):
        raise ValueError(f"{where}: expected 0 to {num_labels - 1}, or -100 for missing, got {int(number)}.")
    return np.array(int(number), dtype=np.int64)


def _check_node_labels(labels: Any, where: str, num_labels: int, num_nodes: int) -> np.ndarray:
    """One class per node."""
    array = _numbers_or_missing(labels, where)
    if array.shape != (num_nodes,):
        raise ValueError(f"{where}: expected shape {(num_nodes,)}, one class per node, got {array.shape}.")
    array = np.where(np.isnan(array), -100, array)
    whole = array == np.floor(array)
    if not (whole & np.isfinite(array)).all():
        raise TypeError(f"{where}: expected class numbers, got {array[~whole | np.isinf(array)][0]}.")
    wrong = ((array < 0) | (array >= num_labels)) & (array != -100)
    if wrong.any():
        node = int(wrong.argmax())
        raise ValueError(
            f"{where}: expected 0 to {num_labels - 1}, or -100 for missing, got {int(array[node])} at node {node}. Check the "
            "data, or build the model with a larger num_labels."
        )
    return array.astype(np.int64)


def _check_pair_labels(labels: Any, where: str, num_pairs: int) -> np.ndarray:
    """0 or 1 for each pair."""
    array = _numbers_or_missing(labels, where)
    if array.shape != (num_pairs,):
        raise ValueError(f"{where}: expected shape {(num_pairs,)}, one number per pair of edge_label_index, got {array.shape}.")
    array = as_float32(array)
    wrong = ~np.isnan(array) & (array != 0) & (array != 1)
    if wrong.any():
        raise ValueError(f"{where}: expected 0, 1 or NaN for missing, got {array[wrong][0]} at pair {int(wrong.argmax())}.")
    return array


def _check_positions(positions: Any, where: str, shape: tuple[int, int]) -> np.ndarray:
    """The later position of every node."""
    array = _numbers_or_missing(positions, where)
    if array.shape != shape:
        raise ValueError(f"{where}: expected shape {shape}, as positions, got {array.shape}.")
    return _check_no_infinity(array, where)


def _numbers_or_missing(value: Any, where: str) -> np.ndarray:
    """Numbers with NaN for `None`."""
    try:
        array = np.asarray(value)
    except ValueError:
        return as_array(value, where)  # which says that it is ragged
    if array.dtype.kind != "O":
        return as_array(array, where)
    return as_array([np.nan if number is None else number for number in array.flat], where).reshape(array.shape)


def _check_no_infinity(array: np.ndarray, where: str) -> np.ndarray:
    array = as_float32(array)
    if np.isinf(array).any():
        raise ValueError(f"{where}: expected finite float32 numbers, or NaN for missing, got infinity or larger ones.")
    size = np.abs(array[~np.isnan(array)]).max(initial=0.0)
    if size > LARGEST:
        raise ValueError(too_large(where, size, LARGEST))
    return array
