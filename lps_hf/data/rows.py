"""Data sets of rows, for every task: loading, checking their columns, reading off the configuration, seeded folds.

| task | columns |
| --- | --- |
| `graph-classification` (and regression) | `edge_index`, `num_nodes`, `y`; `node_feat` and `edge_attr` where there are any |
| `node-classification` | the same, `y` with one class per node |
| `link-prediction` | graph columns, `edge_label_index` (two lists: sources, targets), `edge_label` (0 or 1 per pair) |
| `particle-dynamics` | `positions`, `velocities`, `charges`, `target_positions` |
| `molecule-regression` | `positions`, `node_feat`, `y` |
| `point-cloud-classification` | `positions`, `y` |
| `image-classification` | `image`, `label` |

Missing labels are -100 or None for classes, None or NaN for numbers.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, load_dataset

from lps_hf.models.modeling_heads_lps import PARTICLE_DEFAULTS

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


def load_dataset_for(
    task: str, name_or_path: str, config_name: str | None = None, revision: str | None = None, *, streaming: bool = False
) -> DatasetDict:
    """Load a data set of rows by Hub id or from a local folder, and check that it has the columns of the task.

    Args:
        task: A key of `TASK_COLUMNS`.
        name_or_path: Hub id or folder.
        config_name: Configuration of the data set, where it has several.
        revision: Branch, tag or commit.
        streaming: Read rows when they are asked for, and keep none; see `lps_hf.data.streams`.

    Returns:
        `DatasetDict`: Its splits; streamed ones are an `IterableDatasetDict`.

    Raises:
        ValueError: If there is no such task, or a column is missing: says which there are.
        FileNotFoundError: If there is no such data set.
    """
    check_task(task)
    splits = load_dataset(name_or_path, config_name, revision=revision, streaming=streaming)
    for split, rows in splits.items():
        columns = rows.column_names or list(next(iter(rows), {}))  # a stream of text has to be looked into
        missing = [column for column in TASK_COLUMNS[task] if column not in columns]
        if missing:
            *others, last = TASK_COLUMNS[task]
            raise ValueError(
                f"dataset {name_or_path!r}, split {split!r}: expected the columns {', '.join(others)} and {last}, got "
                f"{', '.join(columns)}; {missing[0]!r} is missing. Rename yours with dataset.rename_column."
            )
    return splits


def check_task(task: str) -> None:
    """Refuse a name that is no task.

    Raises:
        ValueError: Naming the tasks there are.
    """
    if task not in TASK_COLUMNS:
        raise ValueError(f"task: expected one of {', '.join(map(repr, TASK_COLUMNS))}, got {task!r}.")


def infer_config(task: str, splits: Mapping[str, Dataset], problem_type: str | None = None) -> dict[str, Any]:
    """Read the data-dependent fields of `LPSConfig` off all splits of a data set.

    Whole-numbered features become categories; others are real numbers with an axis string of their width. One whole number
    per graph is a class (-100, None or NaN where it is missing), and so are several zeros and ones; other labels are regression.

    Args:
        task: A key of `TASK_COLUMNS`.
        splits: Every split, so that a category seen in one only is not out of range later. Means and standard deviations of
            targets are those of `train` alone: cut folds first.
        problem_type: As in `LPSConfig`, for graph classification; `None` infers it. Whole numbers that are quantities want
            `"regression"`.

    Returns:
        `dict`: Of `max_nodes`, `node_categories`, `edge_categories`, `group`, `inputs`, `output`, `residual`, `num_labels`,
        `id2label`, `label2id`, `problem_type`, `label_mean`, `label_std` those that the task decides.

    Raises:
        ValueError: If there is no such task, a column has rows of different widths, or there is no label at all.
    """
    check_task(task)
    rows = list(splits.values())
    if task == "image-classification":
        return _image_config(rows)
    if task == "particle-dynamics":
        max_nodes, dimension = _sizes_of_points(rows)
        return {"max_nodes": max_nodes, "group": f"S_n x E({dimension})", **copy.deepcopy(PARTICLE_DEFAULTS)}
    if task == "point-cloud-classification":
        max_nodes, dimension = _sizes_of_points(rows)
        group = {"group": f"S_n x SO({dimension})", "inputs": {"positions": "n p"}}
        return {"max_nodes": max_nodes, **group, **_label_config(rows, "single_label_classification")}
    if task == "molecule-regression":
        return _molecule_config(splits)
    config = {"max_nodes": max(max(part["num_nodes"]) for part in rows), **_feature_config(rows)}
    if task == "link-prediction":
        return {**config, "num_labels": 1, "output": "n n 1"}
    if task == "node-classification":
        num_labels = _num_classes("y", np.concatenate([_as_numbers(label) for part in rows for label in part["y"]]))
        labels = {"num_labels": num_labels, "problem_type": "single_label_classification", "output": f"n {num_labels}"}
        return {**config, **labels}
    return {**config, **_label_config(rows, problem_type)}


def labels_of(task: str, rows: Dataset, problem_type: str | None = None) -> np.ndarray:
    """The labels of a split, as `Trainer` joins those of its batches: what metrics and baselines take.

    Args:
        task: A key of `TASK_COLUMNS`.
        rows: The split.
        problem_type: As in `LPSConfig`; needed for graph classification.

    Returns:
        `np.ndarray`: Classes int64, -100 where missing: `(rows,)`, or `(rows, nodes)` of nodes. Numbers float64, NaN where
        missing: `(rows, num_labels)` of graphs and molecules, `(rows, pairs)` of links, `(rows, nodes, d)` of particles. Rows
        with fewer nodes or pairs are filled up at the end.

    Raises:
        ValueError: If there is no such task, or graphs have different numbers of labels.
    """
    check_task(task)
    if task == "image-classification":
        return _as_classes(_as_numbers(rows["label"]))
    if task == "particle-dynamics":
        return _pad([np.array(positions, dtype=np.float64) for positions in rows["target_positions"]])
    if task == "link-prediction":
        return _pad([_as_numbers(label) for label in rows["edge_label"]])
    if task == "node-classification":
        return _as_classes(_pad([_as_numbers(label) for label in rows["y"]]))
    table = _label_table(rows["y"])
    if task == "point-cloud-classification" or (task != "molecule-regression" and problem_type == "single_label_classification"):
        return _as_classes(table[:, 0])
    return table


def with_all_pairs(row: Mapping[str, Any]) -> dict[str, Any]:
    """A link prediction row with every ordered pair of its nodes to score, for `dataset.map`: what ranking metrics want.

    Args:
        row: A row with `num_nodes`, `edge_label_index` and `edge_label`.

    Returns:
        `dict`: The row with `num_nodes ** 2` pairs, `(0, 0), (0, 1), ...`; `edge_label` is as it was, and None (missing) for
        new pairs: they are ranked among the others, while average precision and loss are those of the pairs asked for.
    """
    num_nodes = row["num_nodes"]
    sources, targets = np.divmod(np.arange(num_nodes**2), num_nodes)
    pairs = np.asarray(row["edge_label_index"], dtype=np.int64).reshape(2, -1)
    label = np.full((num_nodes, num_nodes), None)
    for value in (0, 1):
        label[tuple(pairs[:, _as_numbers(row["edge_label"]) == value])] = value
    return {**row, "edge_label_index": [sources.tolist(), targets.tolist()], "edge_label": label.ravel().tolist()}


def fold_splits(rows: Dataset, fold: int, num_folds: int = 10, seed: int = 0) -> DatasetDict:
    """Cut rows into seeded folds, for data sets without an official split; stratified by the first label, if it is a class.

    Args:
        rows: All rows.
        fold: The fold to test on, 0 to `num_folds - 1`. The next one validates and the others train.
        num_folds: Number of folds, at least 3.
        seed: Seed of the cut.

    Returns:
        `DatasetDict`: `train`, `validation` and `test`.

    Raises:
        ValueError: If there is no such fold.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    if num_folds < 3 or not 0 <= fold < num_folds:
        raise ValueError(f"fold: expected 0 to num_folds - 1 with num_folds at least 3, got {fold} of {num_folds}.")
    column = next((name for name in ("y", "label") if name in rows.column_names), None)
    labels = [_as_numbers(label) for label in rows[column]] if column else [np.array([np.nan])] * len(rows)
    # Labels of nodes say nothing of the row as a whole.
    first = np.array([label[0] if len(label) else np.nan for label in labels])
    are_classes = len({len(label) for label in labels}) == 1 and _are_classes(first[~np.isnan(first)])
    first = np.nan_to_num(first, nan=-100)
    folds = StratifiedKFold if are_classes else KFold
    parts = [part for _, part in folds(num_folds, shuffle=True, random_state=seed).split(first, first)]
    test, validation = parts[fold], parts[(fold + 1) % num_folds]
    train = np.setdiff1d(np.arange(len(rows)), np.concatenate([test, validation]))
    return DatasetDict(train=rows.select(train), validation=rows.select(validation), test=rows.select(test))


def _feature_config(splits: Sequence[Dataset]) -> dict[str, Any]:
    """`node_categories` and `edge_categories`, and `inputs` where some features are real numbers."""
    config: dict[str, Any] = {}
    channels = {}
    for column, categories, field in (
        ("node_feat", "node_categories", "node_features"),
        ("edge_attr", "edge_categories", "edge_features"),
    ):
        table = _stack(column, chain(*(rows[column] for rows in splits if column in rows.column_names)))
        if table.size and table.dtype.kind in "iub":
            config[categories] = [int(most) + 1 for most in table.max(axis=0)]
        elif table.size:
            channels[field] = table.shape[1]
    if channels:
        node_channels = channels.get("node_features", sum(config.get("node_categories", [1])))
        edge_channels = channels.get("edge_features", 1 + sum(config.get("edge_categories", [])))
        config["inputs"] = {"node_features": f"n {node_channels}", "edge_features": f"n n {edge_channels}"}
    return config


def _label_config(splits: Sequence[Dataset], problem_type: str | None) -> dict[str, Any]:
    """`num_labels` and `problem_type` of labels of whole rows."""
    labels = _label_table(chain(*(rows["y"] for rows in splits)))
    known = labels[~np.isnan(labels)]
    if not known.size:
        raise ValueError("column 'y': expected labels, got none in any row.")
    if problem_type is None and labels.shape[1] > 1:
        problem_type = "multi_label_classification" if np.isin(known, (0, 1)).all() else "regression"
    elif problem_type is None:
        problem_type = "single_label_classification" if _are_classes(known) else "regression"
    classes = problem_type == "single_label_classification"
    return {"num_labels": _num_classes("y", known) if classes else labels.shape[1], "problem_type": problem_type}


def _molecule_config(splits: Mapping[str, Dataset]) -> dict[str, Any]:
    if "train" not in splits:
        raise ValueError(f"splits: expected 'train', whose targets are normalised, got {', '.join(splits)}.")
    rows = list(splits.values())
    max_nodes, dimension = _sizes_of_points(rows)
    features = _feature_config([part.select_columns(["node_feat"]) for part in rows])
    width = sum(features["node_categories"]) if "node_categories" in features else features["inputs"]["node_features"].split()[1]
    targets = _label_table(splits["train"]["y"])
    if not (~np.isnan(targets)).any(axis=0).all():
        raise ValueError("column 'y': expected every target to be known somewhere in 'train', got one that never is.")
    deviation = np.nanstd(targets, axis=0)
    return {
        **features,
        "max_nodes": max_nodes,
        "group": f"S_n x E({dimension})",
        "inputs": {"positions": "n p", "node_features": f"n {width}"},
        "num_labels": targets.shape[1],
        "problem_type": "regression",
        "label_mean": np.nanmean(targets, axis=0).tolist(),
        # A target that is always the same has nothing to be divided by.
        "label_std": np.where(deviation > 0, deviation, 1.0).tolist(),
    }


def _image_config(splits: Sequence[Dataset]) -> dict[str, Any]:
    feature = splits[0].features["label"]
    if isinstance(feature, ClassLabel):
        names = dict(enumerate(feature.names))
        return {"num_labels": len(names), "id2label": names, "label2id": {name: number for number, name in names.items()}}
    return {"num_labels": _num_classes("label", np.concatenate([_as_numbers(rows["label"]) for rows in splits]))}


def _sizes_of_points(splits: Sequence[Dataset]) -> tuple[int, int]:
    """Largest number of points in a row, and their dimension."""
    largest = 0
    dimensions: set[int] = set()
    for points in chain(*(rows["positions"] for rows in splits)):
        largest = max(largest, len(points))
        dimensions.update(map(len, points))
    if len(dimensions) != 1:
        got = ", ".join(map(str, sorted(dimensions))) or "no points"
        raise ValueError(f"column 'positions': expected points of one dimension in all rows, got {got}.")
    return largest, dimensions.pop()


def _stack(column: str, lists: Iterable[Sequence[Sequence[float]] | None]) -> np.ndarray:
    """Rows of all graphs of one feature column, (rows, features)."""
    try:
        filled = [np.asarray(rows) for rows in lists if rows is not None and len(rows)]
        table = np.concatenate(filled) if filled else np.zeros((0, 0), dtype=np.int64)
    except ValueError as error:
        raise ValueError(f"column {column!r}: expected lists of one width, got different ones.") from error
    if table.ndim != 2:
        got = "a single number" if table.ndim == 1 else "nested lists"
        raise ValueError(f"column {column!r}: expected a list of features per node or edge, got {got}.")
    return table


def _label_table(labels: Iterable[Any]) -> np.ndarray:
    """Labels of whole rows as (rows, labels) float64, NaN where missing."""
    table = [_as_numbers(label) for label in labels]
    widths = {len(row) for row in table}
    if len(widths) > 1:
        raise ValueError(f"column 'y': expected one number of labels for all graphs, got {min(widths)} to {max(widths)}.")
    return np.array(table, dtype=np.float64)


def _as_numbers(label: Any) -> np.ndarray:
    """The numbers of one label, flat, float64, NaN where they are None."""
    return np.array([np.nan if value is None else float(value) for value in np.ravel(np.asarray(label, dtype=object))])


def _as_classes(labels: np.ndarray) -> np.ndarray:
    return np.nan_to_num(labels, nan=-100).astype(np.int64)


def _pad(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of different lengths, with NaN at the end."""
    padded = np.full((len(arrays), max(map(len, arrays), default=0), *arrays[0].shape[1:]), np.nan)
    for target, array in zip(padded, arrays, strict=True):
        target[: len(array)] = array
    return padded


def _num_classes(column: str, labels: np.ndarray) -> int:
    known = labels[~np.isnan(labels) & (labels != -100)]
    if not known.size:
        raise ValueError(f"column {column!r}: expected labels, got none in any row.")
    if not _are_classes(known):
        raise ValueError(f"column {column!r}: expected class numbers from 0, got {known.min():g} to {known.max():g}.")
    return int(known.max()) + 1


def _are_classes(labels: np.ndarray) -> bool:
    known = labels[labels != -100]
    return bool(known.size and (known == known.round()).all() and known.min() >= 0)
