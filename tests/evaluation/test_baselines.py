"""Baselines of every task against figures worked out by hand, and the known ones of the n-body benchmark."""

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from lps_hf.data.rows import TASK_COLUMNS
from lps_hf.evaluation import baseline_of, compute_metrics_for, motion_baselines

NBODY = Path(__file__).resolve().parents[3] / "shared" / "data" / "hub" / "nbody-charged5"
NAN = float("nan")


def moving(velocity, time, targets=None):
    """Two particles on a line, of which the first moves."""
    return {
        "positions": [[0.0], [5.0]],
        "velocities": [[velocity], [0.0]],
        "charges": [1.0, 1.0],
        "target_positions": targets or [[velocity * time], [5.0]],
    }


def test_motion_baselines_by_hand():
    train, test = Dataset.from_list([moving(2.0, 0.5)]), Dataset.from_list([moving(2.0, 1.0), moving(4.0, 1.0)])
    errors = motion_baselines(train, test)
    # Displacements 2 and 4 of two out of four particles; at time 0.5 half of them is missing.
    assert errors == pytest.approx(
        {"last_position": (4 + 16) / 4, "constant_velocity": 0, "fitted_velocity": (1 + 4) / 4, "fitted_time": 0.5}
    )
    assert motion_baselines(train, test, time=2.0)["constant_velocity"] == pytest.approx((4 + 16) / 4)


def test_particles_without_a_known_target_are_left_out():
    test = Dataset.from_list([moving(2.0, 1.0, [[3.0], [None]])])
    assert motion_baselines(Dataset.from_list([moving(1.0, 1.0)]), test)["constant_velocity"] == 1


def test_the_figures_of_the_charged_particles(tmp_path):
    if not NBODY.is_dir():
        pytest.skip("needs the n-body data beside the project")
    splits = load_dataset(str(NBODY), cache_dir=str(tmp_path))
    errors = motion_baselines(splits["train"], splits["test"])
    assert errors["last_position"] == pytest.approx(0.27157, abs=1e-5)
    assert errors["constant_velocity"] == pytest.approx(0.10987, abs=1e-5)
    assert errors["fitted_velocity"] == pytest.approx(0.08453, abs=1e-5)
    assert errors["fitted_time"] == pytest.approx(0.7241, abs=1e-4)


GRAPH = {"edge_index": [[0], [1]], "num_nodes": 2}
CASES = {
    # Class 1 is the majority of the training nodes; it has 1 of 3 nodes here, and 1 of 2 classes is recognised.
    "node-classification": (
        [{**GRAPH, "y": [1, 1]}, {**GRAPH, "y": [0, -100]}],
        [{**GRAPH, "y": [0, 1]}, {**GRAPH, "y": [None, 0]}],
        {"accuracy": 1 / 3, "balanced_accuracy": 1 / 2},
    ),
    "link-prediction": (
        [{**GRAPH, "edge_label_index": [[0], [1]], "edge_label": [1]}],
        [{**GRAPH, "edge_label_index": [[0, 0, 1, 1], [0, 1, 0, 1]], "edge_label": [0, 1, 0, 0]}],
        {"average_precision": 1 / 4, "roc_auc": 1 / 2, "mrr": 1 / 1.5, "mrr_filtered_noself": 1.0, "hits@1": 0, "hits@3": 1},
    ),
    "particle-dynamics": (
        [moving(2.0, 0.5)],
        [moving(2.0, 1.0)],
        {"mse": 2, "mse_constant_velocity": 0, "mse_fitted_velocity": 1 / 2},
    ),
    "molecule-regression": (
        [{"y": [1.0, 4.0]}, {"y": [3.0, None]}],
        [{"y": [2.0, 1.0]}, {"y": [0.0, 5.0]}],
        {"mae": (0 + 2 + 3 + 1) / 4, "rmse": np.sqrt((0 + 4 + 9 + 1) / 4)},
    ),
    "point-cloud-classification": ([{"y": [2]}, {"y": [2]}, {"y": [0]}], [{"y": [2]}, {"y": [1]}], {"accuracy": 1 / 2}),
    "image-classification": ([{"label": 2}, {"label": 2}, {"label": 0}], [{"label": 2}, {"label": 1}], {"accuracy": 1 / 2}),
}


@pytest.mark.parametrize("task", CASES)
def test_every_task_has_a_baseline(task):
    train, test, expected = CASES[task]
    metrics = baseline_of(task, None, Dataset.from_list(train), Dataset.from_list(test))
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    if task != "link-prediction":
        assert set(metrics) == set(expected)


def test_graphs_have_the_baseline_of_their_problem_type():
    train = Dataset.from_list([{"y": [1.0]}, {"y": [0.0]}, {"y": [0.0]}])
    test = Dataset.from_list([{"y": [1.0]}, {"y": [0.0]}])
    metrics = baseline_of("graph-classification", "single_label_classification", train, test)
    assert metrics == pytest.approx({"accuracy": 1 / 2, "roc_auc": 1 / 2, "average_precision": 1 / 2})
    metrics = baseline_of("graph-classification", "regression", train, test)
    assert metrics == pytest.approx({"mae": 1 / 2, "rmse": np.sqrt((4 / 9 + 1 / 9) / 2)})


def test_no_task_is_forgotten():
    assert set(CASES) | {"graph-classification"} == set(TASK_COLUMNS)
    with pytest.raises(ValueError, match="`problem_type` must be one of"):
        baseline_of("graph-classification", None, Dataset.from_list([]), Dataset.from_list([]))
    with pytest.raises(ValueError, match="`task` must be one of .*, got 'sorting'"):
        compute_metrics_for("sorting")
