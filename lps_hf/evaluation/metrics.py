"""Metrics of a whole split, and what a prediction that ignores the input reaches on them.

Ranking metrics do not decompose over batches: the average precision of a split is not the mean of its batches'.
Everything here therefore takes all predictions at once, as `Trainer` hands them to `compute_metrics`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import EvalPrediction


# Missing class labels, and what Trainer pads with when it joins batches of different width.
IGNORED = -100


def compute_metrics_for(problem_type: str, num_labels: int | None = None) -> "Callable[[EvalPrediction], dict[str, float]]":
    """Make the `compute_metrics` of a `Trainer` for one problem type.

    - `single_label_classification`: `accuracy`; with two classes also `roc_auc`, `average_precision`. Labels of -100
      are missing.
    - `multi_label_classification`: `average_precision` and `roc_auc`, means of the binary metric over the labels that
      have both classes in the split, and `labels_without_both_classes`, the number of the others. Entries of NaN or
      -100 are missing.
    - `regression`: `mae` and `rmse` over all entries. Targets of NaN are missing.

    A metric without a single valid entry is NaN, so that its key is always there.

    Args:
        problem_type: As in `config.problem_type`.
        num_labels: As in `config.num_labels`; taken from the logits if not given.

    Returns:
        A function from `EvalPrediction` to metrics. `predictions` are the logits, or a tuple that starts with them
        (`standard_error` and others may follow), of shape `(..., num_labels)`; `label_ids` have shape `(...)` for
        `single_label_classification` and the shape of the logits otherwise.

    Raises:
        ValueError: If `problem_type` is unknown. The function returned raises it if shapes do not fit, if logits are
            not finite or if a label is out of range.
    """
    if problem_type not in _METRICS:
        raise ValueError(f"`problem_type` must be one of {sorted(_METRICS)}, got {problem_type!r}. Set `config.problem_type`.")

    def compute_metrics(prediction: "EvalPrediction") -> dict[str, float]:
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
        return _METRICS[problem_type](logits, labels)

    return compute_metrics


def prior_baseline(problem_type: str, train_labels: Any, eval_labels: Any) -> dict[str, float]:
    """The same metrics for a prediction that never looks at its input: what a model has to beat.

    Classification predicts the class frequencies of the training split (so its accuracy is that of the majority
    class, its average precision the share of positives), regression the training mean of each target.

    Args:
        problem_type: As in `config.problem_type`.
        train_labels: Labels of the training split, as for `compute_metrics_for`; missing ones as there.
        eval_labels: Labels of the split that is evaluated, same form.

    Returns:
        `dict[str, float]`: the keys of `compute_metrics_for(problem_type)`.

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
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    _check_same_size("regression", logits.size, logits, labels)
    logits, labels = logits.reshape(-1), labels.reshape(-1).astype(np.float64)
    # Trainer pads predictions and labels alike with -100: such an entry would count as an error of exactly zero.
    known = ~np.isnan(labels) & ~((labels == IGNORED) & (logits == IGNORED))
    if not known.any():
        return {"mae": float("nan"), "rmse": float("nan")}
    return {
        "mae": float(mean_absolute_error(labels[known], logits[known])),
        "rmse": float(root_mean_squared_error(labels[known], logits[known])),
    }


_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, float]]] = {
    "single_label_classification": _single_label,
    "multi_label_classification": _multi_label,
    "regression": _regression,
}


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
