"""What a data set tells of the model that fits it: sizes, categories, labels and their names, group and inputs."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from .column_mapping import ROW_KEYS, check_column_mapping, rename_columns
from .row_labels import LABEL_KEYS
from .row_names import OTHER_NAMES

_GRAPH_COLUMNS = ("edge_index", "num_nodes")
TASK_COLUMNS: dict[str, tuple[str, ...]] = {
    "graph-classification": (*_GRAPH_COLUMNS, "y"),
    "node-classification": (*_GRAPH_COLUMNS, "y"),
    "link-prediction": (*_GRAPH_COLUMNS, "edge_label_index", "edge_label"),
    "particle-dynamics": ("positions", "velocities", "charges", "target_positions"),
    "molecule-regression": ("positions", "node_feat", "y"),
    "point-cloud-classification": ("positions", "y"),
    "image-classification": ("image", "label"),
}
PARTICLE_DEFAULTS = {
    "inputs": {"positions": "n p", "velocities": "n v", "pair_features": "n n 2"},
    "output": "n p",
    "residual": "positions",
}


class Columns:
    """The columns of one split, by the keys of a row.

    Args:
        rows: A data set of the package `datasets`, or a list of rows.
        mapping: By column of the data set the key; see `check_column_mapping`.

    Raises:
        TypeError: If it is neither, such as a stream, whose rows cannot be counted.
    """

    def __init__(self, rows: Any, mapping: Mapping[str, str]) -> None:
        self._rows = rows
        if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
            names, self._features = list(dict.fromkeys(name for row in rows for name in row)), {}
        elif hasattr(rows, "column_names") and hasattr(rows, "__len__"):
            names, self._features = rows.column_names, dict(rows.features)
        else:
            raise TypeError(
                f"dataset: expected a Dataset, a DatasetDict or a list of rows, got {type(rows).__name__}. Make rows of graphs "
                "and molecules with lps_hf.data.to_rows; of a stream take the first ones, list(stream.take(1000))."
            )
        self._column_of = dict(rename_columns({name: name for name in names}, mapping))
        for name, key in OTHER_NAMES.items():
            if name in self._column_of:
                self._column_of.setdefault(key, self._column_of[name])

    def __contains__(self, key: str) -> bool:
        return key in self._column_of

    def __getitem__(self, key: str) -> Any:
        column = self._column_of[key]
        return [row.get(column) for row in self._rows] if isinstance(self._rows, list | tuple) else self._rows[column]

    @property
    def keys(self) -> list[str]:
        """The keys that there are."""
        return list(self._column_of)

    def class_names(self, key: str) -> list[str] | None:
        """The names that the type of a column has for its classes, in the order of their numbers."""
        feature = self._features.get(self._column_of[key])
        for kind in (feature, getattr(feature, "feature", None)):
            names = getattr(kind, "names", None)
            if isinstance(names, list):
                return names
        return None


def as_splits(dataset: Any, column_mapping: Mapping[str, str] | None = None) -> dict[str, Columns]:
    """The splits of a data set by name; what has none is `train`.

    Args:
        dataset: A `DatasetDict` or another mapping of splits, a `Dataset`, or a list of rows.
        column_mapping: By column of the data set the key of a row.

    Returns:
        `dict[str, Columns]`: The splits.

    Raises:
        ValueError: If it is empty, or the mapping names a column that is not there.
        TypeError: If it is something else.
    """
    mapping = check_column_mapping(column_mapping)
    splits = dict(dataset) if isinstance(dataset, Mapping) else {"train": dataset}
    if not splits or not all(len(rows) for rows in splits.values() if hasattr(rows, "__len__")):
        raise ValueError("dataset: expected at least one row in every split, got none.")
    for rows in splits.values():
        known = Columns(rows, {})
        missing = next((column for column in mapping if column not in known), None)
        if missing is not None:
            raise ValueError(f"column_mapping: expected columns of the data set, {', '.join(known.keys)}, got {missing!r}.")
    return {name: Columns(rows, mapping) for name, rows in splits.items()}


def infer_config(
    task: str, dataset: Any, problem_type: str | None = None, column_mapping: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Read the data-dependent fields of `LPSConfig` off all splits of a data set.

    Whole-numbered features become categories; others are real numbers with an axis string of their width. One whole number
    per graph is a class (-100, None or NaN where it is missing), and so are several zeros and ones; other labels are regression.
    Texts are names of classes, and so are those of a `ClassLabel`.

    Args:
        task: Name of a task, such as `"graph-classification"`.
        dataset: Every split, so that a category seen in one only is not out of range later: a `DatasetDict`, or a `Dataset` or
            list of rows for one alone. Means and standard deviations of targets are those of `train` alone: cut folds first.
        problem_type: As in `LPSConfig`, for graph classification; `None` infers it. Whole numbers that are quantities want
            `"regression"`.
        column_mapping: By column of the data set the key of a row, such as `{"target": "y"}`; the processor takes it too.

    Returns:
        `dict`: Of `max_nodes`, `node_categories`, `edge_categories`, `group`, `inputs`, `output`, `residual`, `num_labels`,
        `id2label`, `label2id`, `problem_type`, `label_mean`, `label_std` those that the task decides.

    Raises:
        ValueError: If there is no such task, a column is missing or has rows of different widths, or there is no label at all.
        TypeError: If the data set is none.
    """
    check_task(task)
    splits = as_splits(dataset, column_mapping)
    rows = list(splits.values())
    if task == "image-classification":
        return _class_config(rows, "image")
    if task == "particle-dynamics":
        max_nodes, dimension = _sizes_of_points(rows)
        return {"max_nodes": max_nodes, "group": f"S_n x E({dimension})", **copy.deepcopy(PARTICLE_DEFAULTS)}
    if task == "point-cloud-classification":
        max_nodes, dimension = _sizes_of_points(rows)
        group = {"group": f"S_n x SO({dimension})", "inputs": {"positions": "n p"}}
        return {"max_nodes": max_nodes, **group, **_label_config(rows, "single_label_classification")}
    if task == "molecule-regression":
        return _molecule_config(splits)
    config = {"max_nodes": max(map(_most_nodes, rows)), **_feature_config(rows)}
    if task == "link-prediction":
        return {**config, "num_labels": 1, "output": "n n 1"}
    if task == "node-classification":
        classes = _class_config(rows, "node")
        labels = {"problem_type": "single_label_classification", "output": f"n {classes['num_labels']}"}
        return {**config, **classes, **labels}
    return {**config, **_label_config(rows, problem_type)}


def check_task(task: str) -> None:
    """Refuse a name that is no task.

    Raises:
        ValueError: Naming the tasks there are.
    """
    if task not in TASK_COLUMNS:
        raise ValueError(f"task: expected one of {', '.join(map(repr, TASK_COLUMNS))}, got {task!r}.")


def label_table(labels: Iterable[Any]) -> np.ndarray:
    """Labels of whole rows as (rows, labels) float64, NaN where missing.

    Raises:
        ValueError: If rows have different numbers of labels, or one is no number.
    """
    table = [None if label is None else as_numbers(label) for label in labels]
    widths = {len(row) for row in table if row is not None} or {1}
    if len(widths) > 1:
        raise ValueError(f"column 'y': expected one number of labels for all graphs, got {min(widths)} to {max(widths)}.")
    unknown = np.full(widths.pop(), np.nan)
    return np.array([unknown if row is None else row for row in table], dtype=np.float64)


def as_numbers(label: Any) -> np.ndarray:
    """The numbers of one label, flat, float64, NaN where they are None.

    Raises:
        ValueError: If it is no number.
    """
    values = np.ravel(np.asarray(label, dtype=object))
    try:
        return np.array([np.nan if value is None else float(value) for value in values])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"labels: expected numbers, or in every row names of classes, got {label!r}. Quantities are numbers in all rows."
        ) from error


def are_classes(labels: np.ndarray) -> bool:
    """Whether numbers, of which none is NaN, are numbers of classes; -100 stands for a missing one."""
    known = labels[labels != -100]
    return bool(known.size and (known == known.round()).all() and known.min() >= 0)


def _column(splits: Sequence[Columns], key: str) -> Iterable[Any]:
    """A column of all splits, one after the other."""
    for rows in splits:
        if key not in rows:
            other = next((name for name in rows.keys if name not in ROW_KEYS), None)
            hint = "" if other is None else f" Say which it is with column_mapping, such as {{{other!r}: {key!r}}}."
            raise ValueError(f"dataset: expected a column {key!r}, got {', '.join(rows.keys)}.{hint}")
    return chain(*(rows[key] for rows in splits))


def _label_key(splits: Sequence[Columns], kind: str) -> str:
    """The key that labels have in these splits; the first there is for this kind, where there is none."""
    return next((key for key in LABEL_KEYS[kind] if all(key in rows for rows in splits)), LABEL_KEYS[kind][0])


def _most_nodes(rows: Columns) -> int:
    if "num_nodes" in rows:
        sizes = list(rows["num_nodes"])
        for wrong in (size for size in sizes if not isinstance(size, int | np.integer)):
            raise TypeError(f"column 'num_nodes': expected whole numbers, got {type(wrong).__name__} {wrong!r}.")
        return int(max(sizes))
    return max(map(len, _column([rows], "node_feat")))


def _feature_config(splits: Sequence[Columns]) -> dict[str, Any]:
    """`node_categories` and `edge_categories`, and `inputs` where some features are real numbers."""
    config: dict[str, Any] = {}
    channels = {}
    for column, categories, field in (
        ("node_feat", "node_categories", "node_features"),
        ("edge_attr", "edge_categories", "edge_features"),
    ):
        table = _stack(column, chain(*(rows[column] for rows in splits if column in rows)))
        if table.size and table.dtype.kind in "iub":
            config[categories] = [int(most) + 1 for most in table.max(axis=0)]
        elif table.size:
            channels[field] = table.shape[1]
    if channels:
        node_channels = channels.get("node_features", sum(config.get("node_categories", [1])))
        edge_channels = channels.get("edge_features", 1 + sum(config.get("edge_categories", [])))
        config["inputs"] = {"node_features": f"n {node_channels}", "edge_features": f"n n {edge_channels}"}
    return config


def _class_config(splits: Sequence[Columns], kind: str) -> dict[str, Any]:
    """`num_labels` of classes, and their names where they have any."""
    key = _label_key(splits, kind)
    names = _names_of(splits, key)
    if names:
        return _named(names)
    return {"num_labels": _num_classes(key, np.concatenate([as_numbers(label) for label in _column(splits, key)]))}


def _label_config(splits: Sequence[Columns], problem_type: str | None) -> dict[str, Any]:
    """`num_labels`, `problem_type` and names of labels of whole rows."""
    key = _label_key(splits, "graph")
    names = None if problem_type == "regression" else _names_of(splits, key)
    if names:
        several = any(len(np.ravel(label)) != 1 for label in _column(splits, key) if label is not None)
        kind = "multi_label_classification" if several else "single_label_classification"
        return {**_named(names), "problem_type": problem_type or kind}
    labels = label_table(_column(splits, key))
    known = labels[~np.isnan(labels)]
    if not known.size:
        raise ValueError(f"column {key!r}: expected labels, got none in any row.")
    if problem_type is None and labels.shape[1] > 1:
        problem_type = "multi_label_classification" if np.isin(known, (0, 1)).all() else "regression"
    elif problem_type is None:
        problem_type = "single_label_classification" if are_classes(known) else "regression"
    classes = problem_type == "single_label_classification"
    return {"num_labels": _num_classes(key, known) if classes else labels.shape[1], "problem_type": problem_type}


def _names_of(splits: Sequence[Columns], key: str) -> list[str] | None:
    """The names of classes, in the order of their numbers: those of the column's type, or the texts in it, sorted."""
    given = [rows.class_names(key) for rows in splits if key in rows]
    if given and given[0] is not None:
        if any(names != given[0] for names in given):
            raise ValueError(f"column {key!r}: expected the same class names in every split, got different ones.")
        return given[0]
    found: set[str] = set()
    for label in _column(splits, key):
        values = [value for value in np.ravel(np.asarray(label, dtype=object)) if value is not None and value == value]
        if values and not isinstance(values[0], str):
            return None  # numbers, as in all rows
        found.update(map(str, values))
    return sorted(found) or None


def _named(names: Sequence[str]) -> dict[str, Any]:
    id2label = dict(enumerate(names))
    return {"num_labels": len(names), "id2label": id2label, "label2id": {name: number for number, name in id2label.items()}}


def _molecule_config(splits: Mapping[str, Columns]) -> dict[str, Any]:
    if "train" not in splits:
        raise ValueError(f"splits: expected 'train', whose targets are normalised, got {', '.join(splits)}.")
    rows = list(splits.values())
    max_nodes, dimension = _sizes_of_points(rows)
    _column(rows, "node_feat")  # says if it is missing
    features = _feature_config(rows)
    categories = features.get("node_categories")
    width = sum(categories) if categories else int(features["inputs"]["node_features"].split()[1])
    targets = label_table(_column([splits["train"]], _label_key(rows, "graph")))
    if not (~np.isnan(targets)).any(axis=0).all():
        raise ValueError("column 'y': expected every target to be known somewhere in 'train', got one that never is.")
    deviation = np.nanstd(targets, axis=0)
    return {
        **({"node_categories": categories} if categories else {}),
        "max_nodes": max_nodes,
        "group": f"S_n x E({dimension})",
        "inputs": {"positions": "n p", "node_features": f"n {width}"},
        "num_labels": targets.shape[1],
        "problem_type": "regression",
        "label_mean": np.nanmean(targets, axis=0).tolist(),
        # A target that is always the same has nothing to be divided by.
        "label_std": np.where(deviation > 0, deviation, 1.0).tolist(),
    }


def _sizes_of_points(splits: Sequence[Columns]) -> tuple[int, int]:
    """Largest number of points in a row, and their dimension."""
    largest = 0
    dimensions: set[int] = set()
    for points in _column(splits, "positions"):
        largest = max(largest, len(points))
        dimensions.update(map(len, points))
    if len(dimensions) != 1:
        got = ", ".join(map(str, sorted(dimensions))) or "no points"
        raise ValueError(f"column 'positions': expected points of one dimension in all rows, got {got}.")
    return largest, dimensions.pop()


def _stack(column: str, lists: Iterable[Sequence[Sequence[float]] | None]) -> np.ndarray:
    """Rows of all graphs of one feature column, (rows, features); plain lists hold one feature each."""
    try:
        filled = [np.asarray(rows) for rows in lists if rows is not None and len(rows)]
        filled = [rows[:, None] if rows.ndim == 1 else rows for rows in filled]
        table = np.concatenate(filled) if filled else np.zeros((0, 0), dtype=np.int64)
    except ValueError as error:
        raise ValueError(f"column {column!r}: expected lists of one width, got different ones.") from error
    if table.ndim != 2:
        raise ValueError(f"column {column!r}: expected a list of features per node or edge, got nested lists.")
    return table


def _num_classes(column: str, labels: np.ndarray) -> int:
    known = labels[~np.isnan(labels) & (labels != -100)]
    if not known.size:
        raise ValueError(f"column {column!r}: expected labels, got none in any row.")
    if not are_classes(known):
        raise ValueError(f"column {column!r}: expected class numbers from 0, got {known.min():g} to {known.max():g}.")
    return int(known.max()) + 1
