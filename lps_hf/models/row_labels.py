"""Checks of the labels of a row, one function for each kind of task."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .representations import Representation
from .row_checks import LARGEST, as_array, as_float32, hides_numbers, too_large

_GENERAL = ("label", "labels", "target")
# The row keys of each kind of label. Where several are there they have to agree, but for links and positions: what stands under
# their own key, the first one, is the label whatever else there is.
LABEL_KEYS = {
    "graph": ("y", *_GENERAL),
    "node": ("y", *_GENERAL),
    "link": ("edge_label", *_GENERAL),
    "position": ("target_positions", *_GENERAL),
    "image": ("label", "labels", "y", "target"),
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
    label2id: Mapping[str, int] | None = None
    """Numbers of the classes by name; `None` where the classes have no names."""


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


def label_keys_in(row: Mapping[str, Any], kind: str | None) -> list[str]:
    """The keys of a row under which its label stands, the first of them that counts first; none where there is no label.

    Args:
        row: The row.
        kind: A key of `LABEL_KEYS`, or `None`.
    """
    if kind is None:
        return []
    keys = LABEL_KEYS[kind]
    if kind in ("link", "position") and row.get(keys[0]) is not None:
        return [keys[0]]
    if kind == "link" and row.get("edge_label_index") is None:
        return []  # what has no pairs has no labels of pairs
    return [key for key in keys if key in row]


def check_labels(row: Mapping[str, Any], where: str, spec: LabelSpec, checked: Mapping[str, Any]) -> np.ndarray | None:
    """Check the label of a row; missing ones and missing parts are `None` or NaN, for classes also -100.

    Args:
        row: The row.
        where: Which row, for messages.
        spec: What labels there are.
        checked: The row's other content by batch key, with `num_nodes` and `pair_index` where there are any.

    Returns:
        `None` where the row has no key for a label; one class `()` int64 or targets (num_labels,) float32 of a graph or image;
        classes (num_nodes,) int64 of nodes; (pairs,) float32 of links; (num_nodes, d) float32 of positions.

    Raises:
        ValueError: If there are too many or too few numbers, one is out of range, a name is unknown, or two keys do not agree.
        TypeError: If there is something else than numbers and names, or half a class.
    """
    keys = label_keys_in(row, spec.kind)
    if len(keys) == 1 and type(row[keys[0]]) in (int, list, np.ndarray):  # as nearly all rows have it
        return _check_label_of(row[keys[0]], f"{where}: {keys[0]}", spec, checked)
    given = [key for key in keys if not is_missing(row[key])]
    if not given:
        return _missing_label(spec, checked) if keys else None
    label = _check_label_of(row[given[0]], f"{where}: {given[0]}", spec, checked)
    for key in given[1:]:
        try:
            is_same = np.array_equal(label, _check_label_of(row[key], f"{where}: {key}", spec, checked), equal_nan=True)
        except (TypeError, ValueError):
            is_same = False
        if not is_same:
            raise ValueError(
                f"{where}: expected one label, got {given[0]!r} and {key!r}, which differ. Leave out the one that is none, with "
                "dataset.remove_columns."
            )
    return label


def is_missing(label: Any) -> bool:
    """Whether it stands for a label that is not known: `None`, NaN, or what numpy, pandas and pyarrow have for them."""
    if label is None or label is np.ma.masked:
        return True
    if isinstance(label, float) or getattr(label, "ndim", 1) == 0:
        return bool(label != label)
    return type(label).__name__ in ("NAType", "NaTType") or getattr(label, "is_valid", True) is False


def is_known(label: np.ndarray) -> bool:
    """Whether there is anything to learn from a checked label."""
    return bool((label != -100).any()) if label.dtype.kind == "i" else not np.isnan(label).all()


def _check_label_of(label: Any, where: str, spec: LabelSpec, checked: Mapping[str, Any]) -> np.ndarray:
    """The label of one row that has one."""
    if spec.kind == "graph":
        return _check_label(label, where, spec, spec.problem_type)
    if spec.kind == "image":
        return _check_label(label, where, spec, spec.problem_type or "single_label_classification")
    if spec.kind == "node":
        return _check_node_labels(label, where, spec, checked["num_nodes"])
    if spec.kind == "position":
        return _check_positions(label, where, (checked["num_nodes"], spec.dimension))
    if "pair_index" not in checked:
        raise ValueError(f"{where}: expected the pairs it belongs to in edge_label_index, got none.")
    return _check_pair_labels(label, where, checked["pair_index"].shape[1])


def _missing_label(spec: LabelSpec, checked: Mapping[str, Any]) -> np.ndarray | None:
    """What stands for the label of a row that has the key for it and no label."""
    if spec.kind == "node":
        return np.full(checked["num_nodes"], -100, dtype=np.int64)
    if spec.kind == "position":
        return np.full((checked["num_nodes"], spec.dimension), np.nan, dtype=np.float32)
    if spec.kind == "link":
        # Without pairs there is nothing to be missing.
        return np.full(checked["pair_index"].shape[1], np.nan, dtype=np.float32) if "pair_index" in checked else None
    is_number = spec.problem_type is None and spec.num_labels == 1 and spec.kind == "graph"
    if is_number or spec.problem_type in ("multi_label_classification", "regression"):
        return np.full(spec.num_labels, np.nan, dtype=np.float32)
    return np.array(-100, dtype=np.int64)


def _check_label(label: Any, where: str, spec: LabelSpec, problem_type: str | None) -> np.ndarray:
    """One class, or a number for each target, of a graph or an image."""
    num_labels = spec.num_labels
    if problem_type == "multi_label_classification" and _are_names(label):
        names = [label] if isinstance(label, str) else label
        label = np.isin(np.arange(num_labels), [_class_of(name, where, spec) for name in names]).astype(np.float32)
    array = np.atleast_1d(_numbers_or_missing(label, where, None if problem_type == "regression" else spec))
    # Data sets made with PyG keep the labels of a graph as a matrix of one row.
    array = array[0] if array.ndim == 2 and len(array) == 1 else array
    several = problem_type in ("multi_label_classification", "regression") or (
        problem_type is None and (num_labels == 1 or (array.dtype.kind == "f" and array.shape != (1,)))
    )
    expected = num_labels if several else 1
    if several and expected > 1 and array.shape == (1,) and np.isnan(array[0]):
        array = np.full(expected, np.nan)  # a list of nothing but None or NaN
    if array.shape != (expected,):
        kind = problem_type or "this model; problem_type in its config is not set"
        is_one_hot = not several and array.shape == (num_labels,) and np.isin(array, (0, 1)).all() and array.sum() == 1
        advice = f" A one-hot label is the class {int(array.argmax())}." if is_one_hot else ""
        raise ValueError(f"{where}: expected {expected} number(s) for {kind}, got shape {array.shape}.{advice}")
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


def _check_node_labels(labels: Any, where: str, spec: LabelSpec, num_nodes: int) -> np.ndarray:
    """One class per node."""
    num_labels = spec.num_labels
    array = _numbers_or_missing(labels, where, spec)
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


def _numbers_or_missing(value: Any, where: str, spec: LabelSpec | None = None) -> np.ndarray:
    """Numbers with NaN for what is missing, and where classes have names, their numbers for these."""
    value = value.as_py() if hasattr(value, "as_py") else value  # numpy would read a text of pyarrow as numbers
    if type(value) is not np.ndarray and hides_numbers(value):
        masked = np.ma.asarray(value)
        value = np.array(masked.data, dtype=object)
        value[np.ma.getmaskarray(masked)] = None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        return as_array(value, where)  # which says why
    if array.dtype.kind in "US" and spec is not None:
        array = np.asarray(value, dtype=object)  # NaN among names is no name
    if array.dtype.kind != "O":
        return as_array(array, where)
    numbers: list[Any] = []
    for item in array.flat:
        if is_missing(item):
            numbers.append(np.nan)
        elif isinstance(item, str) and spec is not None:
            numbers.append(_class_of(item, where, spec))
        else:
            numbers.append(item.as_py() if hasattr(item, "as_py") else item)  # a number of pyarrow
    return as_array(numbers, where).reshape(array.shape)


def _are_names(label: Any) -> bool:
    """Whether it is a text, or a list of texts and nothing else."""
    if isinstance(label, list | tuple | np.ndarray) and np.ndim(label[:1]) == 1 and len(label):
        return all(isinstance(name, str) for name in label)
    return isinstance(label, str)


def _class_of(name: str, where: str, spec: LabelSpec) -> int:
    """The number of a class."""
    if spec.label2id is None:
        raise TypeError(
            f"{where}: expected numbers, got the text {name!r}. Build the model with label2id, which tells the number of each "
            "name, and make its processor with LPSProcessor.from_config."
        )
    if name not in spec.label2id:
        names = list(map(repr, spec.label2id))
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise ValueError(f"{where}: expected one of the names in label2id, {shown}, got {name!r}.")
    return spec.label2id[name]


def _check_no_infinity(array: np.ndarray, where: str) -> np.ndarray:
    array = as_float32(array)
    if np.isinf(array).any():
        raise ValueError(f"{where}: expected finite float32 numbers, or NaN for missing, got infinity or larger ones.")
    size = np.abs(array[~np.isnan(array)]).max(initial=0.0)
    if size > LARGEST:
        raise ValueError(too_large(where, size, LARGEST))
    return array
