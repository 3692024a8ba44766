"""What a prediction reaches that ignores its input, or hardly looks at it: what a model has to beat."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .link_ranking import link_ranking_metrics
from .metrics import compute_metrics_for, prior_baseline

if TYPE_CHECKING:
    from datasets import Dataset


def baseline_of(task: str, problem_type: str | None, train_rows: "Dataset", eval_rows: "Dataset") -> dict[str, float]:
    """The metrics of a task for a prediction without a model.

    Classes get their frequencies in the training split, regression targets their training mean, pairs of nodes all the same
    score. Particles stay where they are; `mse_constant_velocity` and `mse_fitted_velocity` are those of `motion_baselines`.

    Args:
        task: A key of `lps_hf.data.rows.TASK_COLUMNS`.
        problem_type: As in `config.problem_type`; needed for `graph-classification`.
        train_rows: The training split.
        eval_rows: The split that is evaluated.

    Returns:
        `dict[str, float]`: The keys of `compute_metrics_for(task, problem_type)`, and the ranking metrics of links.

    Raises:
        ValueError: If the task or the problem type is unknown, or a label has no value at all in the training split.
    """
    from lps_hf.data.rows import labels_of

    if task == "particle-dynamics":
        errors = motion_baselines(train_rows, eval_rows)
        return {
            "mse": errors["last_position"],
            "mse_constant_velocity": errors["constant_velocity"],
            "mse_fitted_velocity": errors["fitted_velocity"],
        }
    compute_metrics = compute_metrics_for(task, problem_type)
    labels = labels_of(task, eval_rows, problem_type)
    if task == "link-prediction":
        scores = np.zeros(labels.shape)
        return compute_metrics(_Predictions(scores, labels)) | link_ranking_metrics(scores, eval_rows)
    train_labels = labels_of(task, train_rows, problem_type)
    if task == "node-classification":
        known = train_labels[train_labels >= 0]
        # The softmax of these logits are the frequencies; their argmax is the majority class.
        frequencies = np.bincount(known, minlength=int(labels.max(initial=0)) + 1) / max(1, len(known))
        return compute_metrics(_Predictions(np.broadcast_to(frequencies, (*labels.shape, len(frequencies))), labels))
    if task == "molecule-regression":
        problem_type = "regression"
    elif task != "graph-classification":
        problem_type = "single_label_classification"
    assert problem_type is not None  # compute_metrics_for has seen to it
    return prior_baseline(problem_type, train_labels, labels)


def motion_baselines(train_rows: "Dataset", eval_rows: "Dataset", time: float = 1.0) -> dict[str, float]:
    """Mean squared error of positions predicted without forces: x(t) = x(0) + t · v(0).

    On the charged particles of Satorras et al. ("E(n) Equivariant Graph Neural Networks", arXiv 2102.09844), of which
    targets are 1000 steps of 0.001 time units later, the time is 1. Their "linear" baseline fits it to the training split.

    Args:
        train_rows: Rows with `positions`, `velocities`, `target_positions`; they fit the time of `fitted_velocity`.
        eval_rows: The rows that are predicted.
        time: Time between positions and targets, in the velocities' unit of time.

    Returns:
        `dict[str, float]`: `last_position` (t = 0), `constant_velocity` (t = `time`), `fitted_velocity` (t of least squares on
        the training split) in the square of the positions' unit, and `fitted_time`, that t.
    """
    displacements, velocities = _motion(train_rows)
    fitted_time = float((displacements * velocities).sum() / np.square(velocities).sum())
    displacements, velocities = _motion(eval_rows)
    times = {"last_position": 0.0, "constant_velocity": time, "fitted_velocity": fitted_time}
    errors = {name: float(np.square(displacements - t * velocities).mean()) for name, t in times.items()}
    return {**errors, "fitted_time": fitted_time}


@dataclass
class _Predictions:
    """`EvalPrediction` itself would take seconds to import."""

    predictions: np.ndarray
    label_ids: np.ndarray


def _motion(rows: "Dataset") -> tuple[np.ndarray, np.ndarray]:
    """Displacements and velocities of all particles of all rows with a known target, (particles, d) float64."""
    columns = ("positions", "velocities", "target_positions")
    positions, velocities, targets = (
        np.concatenate([np.array(row, dtype=np.float64) for row in rows[column]]) for column in columns
    )
    known = ~np.isnan(targets).any(axis=1)
    return (targets - positions)[known], velocities[known]
