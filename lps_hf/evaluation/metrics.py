"""Metrics of a whole split, and what a prediction that ignores the input reaches on them.

Ranking metrics do not decompose over batches: the average precision of a split is not the mean of its batches'.
Everything here therefore takes all predictions at once, as `Trainer` hands them to `compute_metrics`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from .link_ranking import link_ranking_metrics

# Missing class labels, and what Trainer pads with when it joins batches of different width.
IGNORED = -100
# Metrics that are errors.
LOWER_IS_BETTER = ("mae", "mse", "rmse")


class Predictions(Protocol):
    """What is read of transformers' `EvalPrediction`; arrays over all rows of a split, or tuples that start with them."""

    predictions: Any
    label_ids: Any


def compute_metrics_for(
    task: str, problem_type: str | None = None, num_labels: int | None = None, rows: Iterable[Mapping[str, Any]] | None = None
) -> Callable[[Predictions], dict[str, float]]:
    """Make the `compute_metrics` of a `Trainer` for a task.

    Graph and molecule tasks, point clouds and images, by their problem type:

    - `single_label_classification`: `accuracy`; with two classes also `roc_auc`, `average_precision`. Labels of -100
      are missing.
    - `multi_label_classification`: `average_precision` and `roc_auc`, means of the binary metric over the labels that
      have both classes in the split, and `labels_without_both_classes`, the number of the others. Entries of NaN or
      -100 are missing.
    - `regression`: `mae` and `rmse` over all entries, in the data's unit. Targets of NaN are missing.

    Other tasks, where rows of different length are filled up with -100 (as `Trainer` does) or NaN:

    - `node-classification`: `accuracy`, and `balanced_accuracy`, the mean over classes of the share of its nodes that are
      recognised (PATTERN's metric, Dwivedi et al. 2020), over the nodes of the whole split and not as a mean over batches.
    - `link-prediction`: `average_precision` and `roc_auc` over all labelled pairs; with `rows` also the ranking metrics of
      `link_ranking_metrics`.
    - `particle-dynamics`: `mse`, the mean squared error over all coordinates, in the square of the positions' unit.

    A metric without a single valid entry is NaN, so that its key is always there.

    Args:
        task: A key of `lps_hf.data.rows.TASK_COLUMNS`.
        problem_type: As in `config.problem_type`; needed for `graph-classification` and left alone by tasks that have one only.
        num_labels: As in `config.num_labels`, for checking classification; taken from the logits if not given.
        rows: For `link-prediction`: the rows that are evaluated, in their order.

    Returns:
        A function from `EvalPrediction` to metrics. `predictions` are the logits, or a tuple that starts with them
        (`standard_error` and others may follow); `label_ids` are as `lps_hf.data.rows.labels_of` gives them. The shapes are
        `(..., num_labels)` and `(...)` for classes, and otherwise those of the labels for both.

    Raises:
        ValueError: If `task` or `problem_type` is unknown. The function returned raises it if shapes do not fit, if logits are
            not finite or if a label is out of range.
    """
    metrics = _metrics_of(task, problem_type)
    if metrics not in _WITH_LABEL_AXIS:
        num_labels = None
    rows = None if rows is None or task != "link-prediction" else list(rows)

    def compute_metrics(prediction: Predictions) -> dict[str, float]:
        logits = np.asarray(_first(prediction.predictions), dtype=np.float64)
        labels = np.asarray(_first(prediction.label_ids))
        if num_labels is not None and (logits.ndim == 0 or logits.shape[-1] != num_labels):
            raise ValueError(
                f"`predictions` must have num_labels = {num_labels} logits on the last axis, got {logits.shape}. "
                "Return the logits first from the model."
            )
        if not np.isfinite(logits).all():
            raise ValueError(
                f"`predictions` must be finite, got {int((~np.isfinite(logits)).sum())} NaN or infinite of "
                f"{logits.size} logits. Training diverged: lower the learning rate or clip gradients."
            )
        ranking = {} if rows is None else link_ranking_metrics(logits, rows)
        return metrics(logits, labels) | ranking

    return compute_metrics


def metric_of(task: str, problem_type: str | None = None) -> str:
    """Name of the one figure by which models for a task are compared.

    Args:
        task: As for `compute_metrics_for`.
        problem_type: Likewise.

    Returns:
        `str`: A key of what `compute_metrics_for(task, problem_type)` returns.

    Raises:
        ValueError: If `task` or `problem_type` is unknown.
    """
    return _MAIN_METRIC[_metrics_of(task, problem_type)]


def prior_baseline(problem_type: str, train_labels: Any, eval_labels: Any) -> dict[str, float]:
    """The same metrics for a prediction that never looks at its input: what a model has to beat.

    Classification predicts the class frequencies of the training split (so its accuracy is that of the majority
    class, its average precision the share of positives), regression the training mean of each target.

    Args:
        problem_type: As in `config.problem_type`.
        train_labels: Labels of the training split, as for `compute_metrics_for`; missing ones as there.
        eval_labels: Labels of the split that is evaluated, same form.

    Returns:
        `dict[str, float]`: the keys of `compute_metrics_for` for this problem type.

    Raises:
        ValueError: If `problem_type` is unknown, or a label or target has no value at all in the training split.
    """
    if problem_type not in _METRICS:
        raise ValueError(f"`problem_type` must be one of {sorted(_METRICS)}, got {problem_type!r}. Set `config.problem_type`.")
    train_labels, eval_labels = np.asarray(train_labels), np.asarray(eval_labels)
    if problem_type == "single_label_classification":
        train_labels, eval_labels = train_labels.reshape(-1).astype(int), eval_labels.reshape(-1).astype(int)
        known = train_labels[train_labels != IGNORED]
        if not len(known):
            raise ValueError(
                f"`train_labels` must hold at least one class, got {len(train_labels)} labels, all {IGNORED}. "
                "Pass the labels of the training split."
            )
        num_classes = int(max(known.max(), eval_labels.max(initial=0))) + 1
        scores = np.bincount(known, minlength=num_classes) / len(known)
    else:
        width = train_labels.shape[-1] if train_labels.ndim > 1 else 1
        train_labels, eval_labels = train_labels.reshape(-1, width), eval_labels.reshape(-1, width)
        known = ~_missing(train_labels) if problem_type == "multi_label_classification" else ~np.isnan(train_labels)
        if not known.any(axis=0).all():
            raise ValueError(
                f"`train_labels` must have at least one value per label, got none in columns "
                f"{np.flatnonzero(~known.any(axis=0)).tolist()}. Drop these columns from both splits."
            )
        scores = np.where(known, train_labels, 0).sum(axis=0) / known.sum(axis=0)
    return _METRICS[problem_type](np.broadcast_to(scores, (len(eval_labels), len(scores))), eval_labels)


def _single_label(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import accuracy_score

    num_labels = logits.shape[-1]
    _check_same_size("single_label_classification", logits.size // num_labels, logits, labels)
    logits, labels = logits.reshape(-1, num_labels), labels.reshape(-1)
    logits, labels = logits[labels != IGNORED], labels[labels != IGNORED].astype(int)
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_labels:
        raise ValueError(
            f"`label_ids` must be in 0 ... {num_labels - 1} or {IGNORED}, got {labels.min()} ... {labels.max()}. "
            "Set `config.num_labels`, or number the classes from 0."
        )
    metrics = {"accuracy": float(accuracy_score(labels, logits.argmax(-1))) if len(labels) else float("nan")}
    if num_labels == 2:
        average_precision, roc_auc = _ranking(logits[:, 1] - logits[:, 0], labels)
        metrics |= {"roc_auc": roc_auc, "average_precision": average_precision}
    return metrics


def _multi_label(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    num_labels = logits.shape[-1]
    _check_same_size("multi_label_classification", logits.size, logits, labels)
    logits, labels = logits.reshape(-1, num_labels), labels.reshape(-1, num_labels)
    known = ~_missing(labels)
    if not np.isin(labels[known], (0, 1)).all():
        raise ValueError(
            f"`label_ids` must be 0, 1 or NaN (missing), got {np.unique(labels[known])[:8].tolist()}. "
            "Use one 0/1 column per label."
        )
    scores = np.array([_ranking(logits[known[:, i], i], labels[known[:, i], i]) for i in range(num_labels)])
    usable = ~np.isnan(scores[:, 0])
    average_precision, roc_auc = scores[usable].mean(axis=0) if usable.any() else (float("nan"), float("nan"))
    return {
        "average_precision": float(average_precision),
        "roc_auc": float(roc_auc),
        "labels_without_both_classes": float((~usable).sum()),
    }


def _regression(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    errors = _errors("regression", logits, labels)
    if not errors.size:
        return {"mae": float("nan"), "rmse": float("nan")}
    return {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt(np.square(errors).mean()))}


def _positions(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    errors = _errors("particle-dynamics", logits, labels)
    return {"mse": float(np.square(errors).mean()) if errors.size else float("nan")}


def _errors(kind: str, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Differences of all targets that are known, flat."""
    _check_same_size(kind, logits.size, logits, labels)
    logits, labels = logits.reshape(-1), labels.reshape(-1).astype(np.float64)
    # Trainer pads predictions and labels alike with -100: such an entry would count as an error of exactly zero.
    known = ~np.isnan(labels) & ~((labels == IGNORED) & (logits == IGNORED))
    return logits[known] - labels[known]


def _nodes(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    metrics = {"accuracy": _single_label(logits, labels)["accuracy"]}
    predicted, labels = logits.argmax(-1).reshape(-1), labels.reshape(-1)
    recalls = [np.mean(predicted[labels == label] == label) for label in np.unique(labels[labels != IGNORED])]
    return {**metrics, "balanced_accuracy": float(np.mean(recalls)) if recalls else float("nan")}


def _links(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    # A single label over all pairs of all graphs, each pair with the same weight.
    metrics = _multi_label(logits.reshape(-1, 1), labels.reshape(-1, 1))
    return {key: metrics[key] for key in ("average_precision", "roc_auc")}


_Metrics = Callable[[np.ndarray, np.ndarray], dict[str, float]]
_METRICS: dict[str, _Metrics] = {
    "single_label_classification": _single_label,
    "multi_label_classification": _multi_label,
    "regression": _regression,
}
# Tasks with one kind of label; graph classification has any of the three above.
_TASK_METRICS: dict[str, _Metrics] = {
    "node-classification": _nodes,
    "link-prediction": _links,
    "particle-dynamics": _positions,
    "molecule-regression": _regression,
    "point-cloud-classification": _single_label,
    "image-classification": _single_label,
}
_MAIN_METRIC: dict[_Metrics, str] = {
    _single_label: "accuracy",
    _multi_label: "average_precision",
    _regression: "mae",
    _nodes: "balanced_accuracy",
    _links: "average_precision",
    _positions: "mse",
}
_WITH_LABEL_AXIS = (_single_label, _multi_label, _regression, _nodes)


def _metrics_of(task: str, problem_type: str | None) -> _Metrics:
    if task in _TASK_METRICS:
        return _TASK_METRICS[task]
    if task != "graph-classification":
        raise ValueError(f"`task` must be one of {sorted((*_TASK_METRICS, 'graph-classification'))}, got {task!r}.")
    if problem_type not in _METRICS:
        raise ValueError(f"`problem_type` must be one of {sorted(_METRICS)}, got {problem_type!r}. Set `config.problem_type`.")
    return _METRICS[problem_type]


def _ranking(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Binary (average precision, area under the ROC curve), NaN where the labels do not have both classes."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if len(np.unique(labels)) < 2:
        return float("nan"), float("nan")
    return float(average_precision_score(labels, scores)), float(roc_auc_score(labels, scores))


def _missing(labels: np.ndarray) -> np.ndarray:
    return np.isnan(labels) | (labels == IGNORED)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) else value


def _check_same_size(problem_type: str, expected: int, logits: np.ndarray, labels: np.ndarray) -> None:
    if labels.size != expected:
        raise ValueError(
            f"`label_ids` must have {expected} entries for {problem_type} with logits of shape {logits.shape}, got "
            f"shape {labels.shape}. Check `problem_type` and `num_labels` in the config."
        )
