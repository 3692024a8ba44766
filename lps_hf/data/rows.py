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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset

from lps_hf.models.inferred_config import TASK_COLUMNS, are_classes, as_numbers, check_task, infer_config, label_table

__all__ = ["TASK_COLUMNS", "check_task", "fold_splits", "infer_config", "labels_of", "load_dataset_for", "with_all_pairs"]


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
    label = next((column for column in ("y", "label") if column in TASK_COLUMNS[task]), None)
    first = next(iter(splits.values()))
    if label is not None and not streaming and getattr(first.features[label], "dtype", None) == "string":
        splits = splits.class_encode_column(label)  # names of classes, in the order of the alphabet
    return splits


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
        return _as_classes(as_numbers(rows["label"]))
    if task == "particle-dynamics":
        both = zip(rows["target_positions"], rows["positions"], strict=True)
        targets = [np.full(np.shape(now), np.nan) if later is None else later for later, now in both]
        return _pad([np.array(target, dtype=np.float64) for target in targets])
    if task == "link-prediction":
        return _pad([as_numbers(label) for label in rows["edge_label"]])
    if task == "node-classification":
        return _as_classes(_pad([as_numbers(label) for label in rows["y"]]))
    table = label_table(rows["y"])
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
    if row["edge_label"] is None:
        row = {**row, "edge_label": [None] * pairs.shape[1]}
    label = np.full((num_nodes, num_nodes), None)
    for value in (0, 1):
        label[tuple(pairs[:, as_numbers(row["edge_label"]) == value])] = value
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
    labels = [as_numbers(label) for label in rows[column]] if column else [np.array([np.nan])] * len(rows)
    # Labels of nodes say nothing of the row as a whole.
    first = np.array([label[0] if len(label) else np.nan for label in labels])
    is_class = len({len(label) for label in labels}) == 1 and are_classes(first[~np.isnan(first)])
    first = np.nan_to_num(first, nan=-100)
    folds = StratifiedKFold if is_class else KFold
    parts = [part for _, part in folds(num_folds, shuffle=True, random_state=seed).split(first, first)]
    test, validation = parts[fold], parts[(fold + 1) % num_folds]
    train = np.setdiff1d(np.arange(len(rows)), np.concatenate([test, validation]))
    return DatasetDict(train=rows.select(train), validation=rows.select(validation), test=rows.select(test))


def _as_classes(labels: np.ndarray) -> np.ndarray:
    return np.nan_to_num(labels, nan=-100).astype(np.int64)


def _pad(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of different lengths, with NaN at the end."""
    padded = np.full((len(arrays), max(map(len, arrays), default=0), *arrays[0].shape[1:]), np.nan)
    for target, array in zip(padded, arrays, strict=True):
        target[: len(array)] = array
    return padded
