"""Data sets in the Hub's graph-row format: loading, checking their columns, reading off sizes, seeded folds."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset

REQUIRED_COLUMNS = ("edge_index", "num_nodes")


def load_graph_dataset(name_or_path: str, config_name: str | None = None, revision: str | None = None) -> DatasetDict:
    """Load a data set of graph rows by Hub id or from a local folder, and check its columns.

    Args:
        name_or_path: Hub id or folder.
        config_name: Configuration of the data set, where it has several.
        revision: Branch, tag or commit.

    Returns:
        `DatasetDict`: Its splits.

    Raises:
        ValueError: If a column is missing: says which there are.
        FileNotFoundError: If there is no such data set.
    """
    splits = load_dataset(name_or_path, config_name, revision=revision)
    for split, rows in splits.items():
        missing = [column for column in (*REQUIRED_COLUMNS, "y") if column not in rows.column_names]
        if missing:
            raise ValueError(
                f"dataset {name_or_path!r}, split {split!r}: expected the columns {', '.join(REQUIRED_COLUMNS)} and y, got "
                f"{', '.join(rows.column_names)}; {missing[0]!r} is missing. Rename yours with dataset.rename_column."
            )
    return splits


def infer_graph_config(splits: DatasetDict, problem_type: str | None = None) -> dict[str, Any]:
    """Read the data-dependent fields of `LPSConfig` off all splits of a data set.

    Whole-numbered features become categories; others are real numbers with an axis string of their width. One whole number
    per graph is a class (-100, None or NaN where it is missing), and so are several zeros and ones; other labels are regression.

    Args:
        splits: Every split, so that a category seen in one only is not out of range later.
        problem_type: As in `LPSConfig`; `None` infers it. Whole numbers that are quantities want `"regression"`.

    Returns:
        `dict`: `max_nodes`, `node_categories`, `edge_categories`, `num_labels`, `problem_type`, and `inputs` where some
        features are real numbers.

    Raises:
        ValueError: If a column has rows of different widths, or there is no label at all.
    """
    config: dict[str, Any] = {"max_nodes": max(max(rows["num_nodes"]) for rows in splits.values())}
    channels = {}
    for column, categories, field in (
        ("node_feat", "node_categories", "node_features"),
        ("edge_attr", "edge_categories", "edge_features"),
    ):
        table = _stack(column, chain(*(rows[column] for rows in splits.values() if column in rows.column_names)))
        if table.size and table.dtype.kind in "iub":
            config[categories] = [int(most) + 1 for most in table.max(axis=0)]
        elif table.size:
            channels[field] = table.shape[1]
    if channels:
        node_channels = channels.get("node_features", sum(config.get("node_categories", [1])))
        edge_channels = channels.get("edge_features", 1 + sum(config.get("edge_categories", [])))
        config["inputs"] = {"node_features": f"n {node_channels}", "edge_features": f"n n {edge_channels}"}
    labels = _label_table(chain(*(rows["y"] for rows in splits.values())))
    known = labels[~np.isnan(labels)]
    if not known.size:
        raise ValueError("column 'y': expected labels, got none in any row.")
    if problem_type is not None:
        classes = problem_type == "single_label_classification"
        config["problem_type"], config["num_labels"] = problem_type, int(known.max()) + 1 if classes else labels.shape[1]
    elif labels.shape[1] > 1:
        binary = bool(np.isin(known, (0, 1)).all())
        config["problem_type"] = "multi_label_classification" if binary else "regression"
        config["num_labels"] = labels.shape[1]
    elif _are_classes(known):
        config["problem_type"], config["num_labels"] = "single_label_classification", int(known.max()) + 1
    else:
        config["problem_type"], config["num_labels"] = "regression", 1
    return config


def labels_of(rows: Dataset, problem_type: str) -> np.ndarray:
    """The labels of a split: `(rows,)` int64 with -100 for missing classes, otherwise `(rows, num_labels)` float with NaN."""
    table = _label_table(rows["y"])
    if problem_type == "single_label_classification":
        return np.nan_to_num(table[:, 0], nan=-100).astype(np.int64)
    return table


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
    labels = np.nan_to_num(_label_table(rows["y"])[:, 0], nan=-100)
    folds = StratifiedKFold if _are_classes(labels) else KFold
    cut = folds(num_folds, shuffle=True, random_state=seed).split(labels, labels)
    parts = [part for _, part in cut]
    test, validation = parts[fold], parts[(fold + 1) % num_folds]
    train = np.setdiff1d(np.arange(len(rows)), np.concatenate([test, validation]))
    return DatasetDict(train=rows.select(train), validation=rows.select(validation), test=rows.select(test))


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
    """Labels as (rows, labels) float64, NaN where missing."""
    table = [np.ravel(np.asarray(label, dtype=object)) for label in labels]
    widths = {len(row) for row in table}
    if len(widths) > 1:
        raise ValueError(f"column 'y': expected one number of labels for all graphs, got {min(widths)} to {max(widths)}.")
    return np.array([[np.nan if value is None else float(value) for value in row] for row in table], dtype=np.float64)


def _are_classes(labels: np.ndarray) -> bool:
    known = labels[labels != -100]
    return bool(known.size and (known == known.round()).all() and known.min() >= 0)
