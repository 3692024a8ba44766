"""Whole-split metrics against figures worked out by hand, and the baselines on the same metrics."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lps_hf.evaluation import compute_metrics_for, prior_baseline

NAN = float("nan")
ROOT = Path(__file__).resolve().parents[2]


def evaluate(problem_type, logits, labels, num_labels=None):
    """What `Trainer` hands over has these two attributes."""
    prediction = SimpleNamespace(predictions=logits, label_ids=np.asarray(labels))
    return compute_metrics_for(problem_type, num_labels)(prediction)


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


def test_trainer_prediction_type_is_understood():
    transformers = pytest.importorskip("transformers")
    prediction = transformers.EvalPrediction(predictions=np.array([[0.0, 1, 0]]), label_ids=np.array([1]))
    assert compute_metrics_for("single_label_classification", 3)(prediction) == {"accuracy": 1.0}


def test_importing_the_room_is_light():
    code = (
        "import sys, types; package = types.ModuleType('lps_hf'); package.__path__ = ['lps_hf']; "
        "sys.modules['lps_hf'] = package; import lps_hf.evaluation, lps_hf.data; "
        "heavy = {'sklearn', 'matplotlib', 'torch', 'transformers', 'networkx'} & set(sys.modules); "
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
