"""Whole-split metrics against figures worked out by hand, and the baselines on the same metrics."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lps_hf.data.rows import TASK_COLUMNS
from lps_hf.evaluation import compute_metrics_for, link_ranking_metrics, metric_of, prior_baseline

NAN = float("nan")
ROOT = Path(__file__).resolve().parents[2]


def evaluate(problem_type, logits, labels, num_labels=None):
    """What `Trainer` hands over has these two attributes."""
    prediction = SimpleNamespace(predictions=logits, label_ids=np.asarray(labels))
    return compute_metrics_for("graph-classification", problem_type, num_labels)(prediction)


def test_accuracy_skips_ignored_labels_and_flattens_nodes():
    logits = np.array([[[2.0, 1, 0], [0, 1, 0], [-100, -100, -100]], [[0, 0, 1], [1, 0, 0], [0, 3, 0]]])
    labels = np.array([[0, 2, -100], [2, 0, 1]])
    assert evaluate("single_label_classification", logits, labels, 3) == {"accuracy": 4 / 5}


def test_two_classes_have_ranking_metrics_too():
    # Scores 3, 2, 1, 0 for the labels 1, 0, 1, 0: AP = (1/1 + 2/3) / 2, and 3 of 4 pairs are in order.
    logits = np.array([[0.0, 3], [-1, 1], [5, 6], [4, 4]])
    metrics = evaluate("single_label_classification", logits, [1, 0, 1, 0], 2)
    assert metrics == pytest.approx({"accuracy": 3 / 4, "average_precision": 5 / 6, "roc_auc": 3 / 4})


def test_ranking_is_by_the_difference_of_the_two_logits():
    # By the second logit alone the order would be reversed.
    metrics = evaluate("single_label_classification", np.array([[0.0, 1.0], [9.0, 5.0]]), [1, 0])
    assert metrics["roc_auc"] == 1.0


def test_one_class_in_the_split_gives_nan_and_keeps_the_keys():
    metrics = evaluate("single_label_classification", np.array([[0.0, 1], [1, 0]]), [1, 1])
    assert metrics["accuracy"] == 0.5
    assert np.isnan(metrics["roc_auc"])
    assert np.isnan(metrics["average_precision"])


def test_multi_label_skips_missing_entries_and_one_sided_labels():
    logits = np.array([[3.0, 0, 7, 0], [2, 1, 7, 0], [1, 2, 7, 0], [0, 3, 7, 0]])
    labels = np.array([[1, 0, 1, NAN], [0, NAN, 1, NAN], [1, 0, 1, NAN], [0, 1, NAN, NAN]])
    metrics = evaluate("multi_label_classification", logits, labels, 4)
    expected = {"average_precision": (5 / 6 + 1) / 2, "roc_auc": (3 / 4 + 1) / 2, "labels_without_both_classes": 2.0}
    assert metrics == pytest.approx(expected)
    padded = np.where(np.isnan(labels), -100, labels)
    assert evaluate("multi_label_classification", logits, padded, 4) == metrics


def test_multi_label_without_any_usable_label_is_nan():
    metrics = evaluate("multi_label_classification", np.zeros((2, 1)), [[1.0], [1.0]])
    assert np.isnan(metrics["average_precision"])
    assert metrics["labels_without_both_classes"] == 1


def test_average_precision_of_the_split_is_not_the_mean_of_its_batches():
    generator = np.random.default_rng(0)
    labels = (generator.random((256, 3)) < 0.2).astype(float)
    # Each batch has an offset of its own: ranks within a batch say nothing about ranks across batches.
    logits = labels + generator.standard_normal((256, 3)) + np.repeat(3 * generator.standard_normal(8), 32)[:, None]
    whole = evaluate("multi_label_classification", logits, labels)["average_precision"]
    batches = [
        evaluate("multi_label_classification", logits[i : i + 32], labels[i : i + 32])["average_precision"]
        for i in range(0, 256, 32)
    ]
    assert np.mean(batches) - whole > 0.1
    # The whole-split figure from its definition: precision at the rank of each positive, averaged.
    by_hand = []
    for score, label in zip(logits.T, labels.T, strict=True):
        ranked = label[np.argsort(-score)]
        by_hand.append((np.cumsum(ranked) / np.arange(1, 257))[ranked == 1].mean())
    assert whole == pytest.approx(np.mean(by_hand))


def test_regression_ignores_nan_and_trainer_padding():
    logits = np.array([[1.0, 5], [2, 0], [-100, -100]])
    labels = np.array([[0.0, NAN], [5, 0], [-100, -100]])
    expected = {"mae": (1 + 3 + 0) / 3, "rmse": np.sqrt((1 + 9 + 0) / 3)}
    assert evaluate("regression", logits, labels, 2) == pytest.approx(expected)
    # A model that answers -100 on a real target, or a true target of -100, still counts.
    assert evaluate("regression", np.array([[-100.0]]), [[0.0]])["mae"] == 100
    assert evaluate("regression", np.array([[0.0]]), [[-100.0]])["mae"] == 100
    # One output per graph comes as (B, 1) against labels (B,): no broadcasting to (B, B).
    assert evaluate("regression", np.array([[1.0], [3.0]]), [1.0, 1.0], 1)["mae"] == 1.0
    assert np.isnan(evaluate("regression", np.zeros((1, 1)), [[NAN]])["rmse"])


def test_logits_may_come_first_in_a_tuple():
    logits, labels = np.array([[0.0, 1, 0], [1, 0, 0]]), [1, 1]
    metrics = evaluate("single_label_classification", (logits, np.full((2, 3), 9.0), np.ones(2)), labels, 3)
    assert metrics == evaluate("single_label_classification", logits, labels, 3) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("problem_type", "logits", "labels", "num_labels", "message"),
    [
        ("single_label_classification", np.zeros((2, 3)), [0, 1], 4, "num_labels = 4"),
        ("single_label_classification", np.zeros((2, 3)), [0, 3], 3, "0 ... 2"),
        ("single_label_classification", np.zeros((2, 3)), [0, 1, 2], 3, "2 entries"),
        ("single_label_classification", np.full((2, 3), NAN), [0, 1], 3, "diverged"),
        ("multi_label_classification", np.zeros((2, 3)), [[0, 1, 2], [0, 0, 0]], 3, "0, 1 or NaN"),
        ("multi_label_classification", np.zeros((2, 3)), [0, 1], 3, "6 entries"),
        ("regression", np.zeros((2, 3)), [0, 1], 3, "6 entries"),
        ("ranking", np.zeros((2, 3)), [0, 1], 3, "problem_type"),
    ],
)
def test_what_does_not_fit_is_refused(problem_type, logits, labels, num_labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate(problem_type, logits, labels, num_labels)


def test_prior_baseline_of_classes():
    # Majority of the training split is class 2, which has 1 of 4 in the other split.
    assert prior_baseline("single_label_classification", [2, 2, 0, -100], [0, 1, 2, 0]) == {"accuracy": 0.25}
    metrics = prior_baseline("single_label_classification", [[0], [0], [1]], [[0], [1], [1], [1]])
    assert metrics == pytest.approx({"accuracy": 0.25, "roc_auc": 0.5, "average_precision": 0.75})


def test_prior_baseline_of_labels_and_targets():
    train, test = [[1, 0], [NAN, 1]], [[1, 0], [0, 1], [0, NAN], [0, 0]]
    metrics = prior_baseline("multi_label_classification", train, test)
    expected = {"average_precision": (1 / 4 + 1 / 3) / 2, "roc_auc": 0.5, "labels_without_both_classes": 0}
    assert metrics == pytest.approx(expected)
    # Means of the training split are 2 and 10, not those of the split that is scored.
    metrics = prior_baseline("regression", [[1, 10], [3, NAN]], [[2.0, 13], [1, NAN]])
    assert metrics == pytest.approx({"mae": 4 / 3, "rmse": np.sqrt(10 / 3)})


def test_prior_baseline_refuses_what_it_cannot_know():
    with pytest.raises(ValueError, match="problem_type"):
        prior_baseline("ranking", [0], [0])
    with pytest.raises(ValueError, match="at least one class"):
        prior_baseline("single_label_classification", [-100], [0])
    with pytest.raises(ValueError, match=r"columns \[1\]"):
        prior_baseline("regression", [[1, NAN], [3, NAN]], [[2.0, 13]])


# ------------------------------------------------------------------------------------------------------------ other tasks


def evaluate_task(task, logits, labels, **options):
    prediction = SimpleNamespace(predictions=np.asarray(logits), label_ids=np.asarray(labels))
    return compute_metrics_for(task, **options)(prediction)


def test_classes_of_nodes_count_alike_and_padding_does_not():
    # Three of four nodes of class 0 and none of class 2 are recognised; class 1 does not occur.
    logits = np.array([[[2.0, 0, 0], [2, 0, 0], [0, 2, 0]], [[2, 0, 0], [2, 0, 0], [-100, -100, -100]]])
    labels = np.array([[0, 0, 0], [0, 2, -100]])
    assert evaluate_task("node-classification", logits, labels, num_labels=3) == {
        "accuracy": 3 / 5,
        "balanced_accuracy": (3 / 4 + 0) / 2,
    }


def test_balanced_accuracy_is_that_of_the_split_and_not_of_its_batches():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    shares = np.linspace(0.05, 0.95, 12)[:, None]
    labels = (rng.random((12, 9)) < shares).astype(int)
    # A model that leans to the class that is frequent in the graph is right about many nodes and few rare ones.
    logits = np.eye(2)[labels] + np.stack([-4 * shares, 4 * shares - 4], axis=-1) + rng.standard_normal((12, 9, 2))
    whole = evaluate_task("node-classification", logits, labels)["balanced_accuracy"]
    assert whole == pytest.approx(balanced_accuracy_score(labels.ravel(), logits.argmax(-1).ravel()))
    batches = [evaluate_task("node-classification", logits[i], labels[i])["balanced_accuracy"] for i in range(12)]
    assert abs(np.mean(batches) - whole) > 0.01


def test_no_labelled_node_is_nan():
    metrics = evaluate_task("node-classification", np.zeros((1, 2, 3)), [[-100, -100]])
    assert np.isnan([metrics["accuracy"], metrics["balanced_accuracy"]]).all()


def test_pairs_of_all_graphs_are_ranked_together():
    # Scores 4, 3, 2, 1 for the labels 0, 1, 0, 1: AP = (1/2 + 2/4) / 2, and 1 of 4 pairs is in order.
    logits = np.array([[4.0, 2, -100], [1, 3, 0]])
    labels = np.array([[0.0, 0, -100], [1, 1, NAN]])
    metrics = evaluate_task("link-prediction", logits, labels, num_labels=1)
    assert metrics == pytest.approx({"average_precision": 1 / 2, "roc_auc": 1 / 4})


def test_with_rows_the_targets_of_a_node_are_ranked_too():
    rows = [{"num_nodes": 3, "edge_label_index": [[0, 0, 1], [1, 2, 2]], "edge_label": [1, 0, 1]}]
    logits, labels = np.array([[1.0, 2, 3, -100]]), np.array([[1.0, 0, 1, -100]])
    metrics = evaluate_task("link-prediction", logits, labels, rows=iter(rows))
    assert metrics["mrr"] == (1 / 2 + 1) / 2
    ranking = link_ranking_metrics(logits, rows)
    assert metrics == {**evaluate_task("link-prediction", logits, labels), **ranking}
    # The function is called once per evaluation, so the rows may not be used up by the first.
    compute_metrics = compute_metrics_for("link-prediction", rows=iter(rows))
    prediction = SimpleNamespace(predictions=logits, label_ids=labels)
    assert compute_metrics(prediction) == compute_metrics(prediction) == metrics


def test_positions_are_compared_coordinate_by_coordinate():
    logits = np.array([[[1.0, 2], [0, 0]], [[3, 3], [-100, -100]]])
    labels = np.array([[[0.0, 0], [NAN, NAN]], [[3, 0], [-100, -100]]])
    assert evaluate_task("particle-dynamics", logits, labels, num_labels=2) == pytest.approx({"mse": (1 + 4 + 0 + 9) / 4})
    # A mean over the rows in which every row counts alike would be another one.
    assert evaluate_task("particle-dynamics", logits[:1], labels[:1]) == pytest.approx({"mse": 5 / 2})
    assert np.isnan(evaluate_task("particle-dynamics", [[[0.0]]], [[[NAN]]])["mse"])
    # Padding with NaN, as labels of one batch have it, beside a model that answers something there.
    assert evaluate_task("particle-dynamics", [[[1.0], [7.0]]], [[[0.0], [NAN]]]) == {"mse": 1.0}


@pytest.mark.parametrize(
    ("task", "channels", "missing"),
    [("node-classification", (3,), -100), ("link-prediction", (), NAN), ("particle-dynamics", (3,), NAN)],
)
def test_batches_that_trainer_joins_give_the_metrics_of_the_rows(task, channels, missing):
    from transformers.trainer_pt_utils import nested_concat

    rng = np.random.default_rng(0)
    joined, rows = None, []
    for width in (4, 7, 5):
        logits = rng.standard_normal((2, width, *channels))
        labels = rng.integers(2, size=(2, width)) if "dynamics" not in task else rng.standard_normal((2, width, 3))
        labels = labels.astype(int if missing == -100 else float)
        # The second row of each batch is shorter: what the model says of its padding does not count.
        labels[1, 2:] = missing
        rows += [(logits[0], labels[0]), (logits[1, :2], labels[1, :2])]
        joined = (logits, labels) if joined is None else nested_concat(joined, (logits, labels), padding_index=-100)
    assert joined[0].shape[:2] == joined[1].shape[:2] == (6, 7)
    logits, labels = (np.concatenate(parts)[None] for parts in zip(*rows, strict=True))
    assert evaluate_task(task, *joined) == pytest.approx(evaluate_task(task, logits, labels))


@pytest.mark.parametrize(
    ("task", "logits", "labels", "like"),
    [
        ("molecule-regression", [[1.0, 2.0]], [[0.0, NAN]], "regression"),
        ("point-cloud-classification", [[1.0, 2.0, 0.0]], [1], "single_label_classification"),
        ("image-classification", [[1.0, 2.0]], [0], "single_label_classification"),
    ],
)
def test_tasks_with_one_label_per_row_are_like_graphs(task, logits, labels, like):
    metrics = evaluate_task(task, logits, labels)
    np.testing.assert_equal(metrics, evaluate(like, np.asarray(logits), labels))


@pytest.mark.parametrize(
    ("task", "logits", "labels", "message"),
    [
        ("node-classification", np.zeros((1, 2, 3)), [[0, 3]], "0 ... 2"),
        ("node-classification", np.zeros((1, 2, 3)), [[0]], "2 entries"),
        ("link-prediction", np.zeros((1, 2)), [[0, 2]], "0, 1 or NaN"),
        ("link-prediction", np.zeros((1, 2)), [[0, 1, 0]], "2 entries"),
        ("particle-dynamics", np.full((1, 2, 3), NAN), np.zeros((1, 2, 3)), "diverged"),
        ("particle-dynamics", np.zeros((1, 2, 3)), np.zeros((1, 2)), "6 entries"),
    ],
)
def test_labels_of_other_tasks_that_do_not_fit_are_refused(task, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate_task(task, logits, labels)


PROBLEMS = [
    ("graph-classification", kind) for kind in ("single_label_classification", "multi_label_classification", "regression")
]


@pytest.mark.parametrize(("task", "problem_type"), PROBLEMS + [(task, None) for task in TASK_COLUMNS if "graph" not in task])
def test_the_figure_to_compare_models_by_is_one_of_the_metrics(task, problem_type):
    # One graph with one node and one class fits every task.
    prediction = SimpleNamespace(predictions=np.zeros((1, 1)), label_ids=np.zeros(1, dtype=int))
    assert metric_of(task, problem_type) in compute_metrics_for(task, problem_type)(prediction)


def test_the_figures_of_the_benchmarks():
    assert metric_of("node-classification") == "balanced_accuracy"
    assert metric_of("particle-dynamics") == "mse"
    assert metric_of("molecule-regression") == metric_of("graph-classification", "regression") == "mae"
    assert metric_of("graph-classification", "multi_label_classification") == "average_precision"
    with pytest.raises(ValueError, match="`task` must be one of"):
        metric_of("sorting")


def test_trainer_prediction_type_is_understood():
    transformers = pytest.importorskip("transformers")
    prediction = transformers.EvalPrediction(predictions=np.array([[0.0, 1, 0]]), label_ids=np.array([1]))
    assert compute_metrics_for("graph-classification", "single_label_classification", 3)(prediction) == {"accuracy": 1.0}


def test_importing_the_room_is_light():
    """PyTorch and transformers come with the package itself; the rest is imported where it is used."""
    code = (
        "import sys, lps_hf.evaluation, lps_hf.data; "
        "heavy = {'accelerate', 'matplotlib', 'networkx', 'rdkit', 'sklearn', 'torch_geometric'} & set(sys.modules); "
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
