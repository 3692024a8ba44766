"""Metric and equivariance error against the number of samples."""

import json

import numpy as np
import pytest
import torch

from lps_hf.evaluation.metrics import metric_of
from lps_hf.evaluation.prediction import evaluate
from lps_hf.evaluation.sampling_report import sample_counts, sampling_report
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.testing import equivariance_error
from tests.task_cases import CASES, task_case
from tests.tiny import random_rows, tiny_classifier, tiny_config

TASK = "graph-classification"


def report_of(rows=None, options=None, **model_options):
    model = tiny_classifier(**{"distribution": "haar", **model_options})
    processor = LPSProcessor.from_config(model.config)
    return sampling_report(model, processor, rows or random_rows(20), TASK, **(options or {}))


@pytest.mark.parametrize("task", CASES)
def test_every_task_has_a_report(task):
    model, processor, rows = task_case(task, distribution="haar")
    report = sampling_report(model, processor, rows, task, num_rows=6, num_draws=3, max_samples=4)
    assert report.keys() == {"equivariance", "samples", "samples_rows", "samples_draws", "test_deviation"}
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["samples_rows"], report["samples_draws"]) == (6, 3)
    assert [point["num_samples"] for point in report["samples"]] == [1, 2, 3, 4]
    assert [point["num_estimates"] for point in report["samples"]] == [12, 6, 3, 3]
    errors = [point["equivariance_error"] for point in report["samples"]]
    assert errors[0] > errors[3] > 0
    equivariance = report["equivariance"]
    assert {key: equivariance[key] for key in ("num_rows", "num_group_elements", "num_samples", "seed")} == {
        "num_rows": 6,
        "num_group_elements": 3,
        "num_samples": 3,
        "seed": 0,
    }
    # At the model's own number it is the figure of the table.
    assert (equivariance["relative_error"], equivariance["standard_error"]) == (
        report["samples"][2]["equivariance_error"],
        report["samples"][2]["equivariance_standard_error"],
    )
    assert equivariance["coupled_relative_error"] < 1e-8
    assert equivariance["backbone_relative_error"] > 0
    assert metric_of(task, model.config.problem_type) in report["test_deviation"]


def test_the_same_seed_gives_the_same_report_and_leaves_the_model_alone():
    first, again, other = (report_of(random_rows(6), {"seed": seed, "max_samples": 4}) for seed in (1, 1, 2))
    assert first == again
    assert first["samples"] != other["samples"]
    model = tiny_classifier().train()
    state = torch.random.get_rng_state()
    sampling_report(model, LPSProcessor.from_config(model.config), random_rows(3), TASK, num_draws=2, max_samples=2)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_errors_are_those_of_other_draws_within_their_error_bars():
    model = tiny_classifier(distribution="haar", num_eval_samples=4)
    rows, processor = random_rows(16), LPSProcessor.from_config(model.config)
    report = sampling_report(model, processor, rows, TASK, num_draws=6, max_samples=8)
    batch = processor(rows, return_tensors="pt")
    for point in report["samples"]:
        other = equivariance_error(model, batch, 10, point["num_samples"], generator=torch.Generator().manual_seed(7))
        spread = np.hypot(point["equivariance_standard_error"], other.relative_standard_error)
        assert abs(point["equivariance_error"] - other.relative_error) < 4 * spread
        assert 0 < point["equivariance_standard_error"] < 0.2 * point["equivariance_error"]
    plain = equivariance_error(model, batch, 16, symmetrized=False, generator=torch.Generator().manual_seed(7))
    found = report["equivariance"]
    spread = np.hypot(found["backbone_standard_error"], plain.relative_standard_error)
    assert abs(found["backbone_relative_error"] - plain.relative_error) < 4 * spread


def test_the_error_bars_are_those_of_repeated_reports():
    options = {"num_draws": 4, "max_samples": 2}
    reports = [report_of(random_rows(8), {**options, "seed": seed}) for seed in range(12)]
    for place in range(2):
        errors = [report["samples"][place]["equivariance_error"] for report in reports]
        told = np.mean([report["samples"][place]["equivariance_standard_error"] for report in reports])
        assert 0.5 < np.std(errors, ddof=1) / told < 2


def test_metrics_are_means_over_draws():
    rows = [{**row, "y": [0.1 * number]} for number, row in enumerate(random_rows(12))]
    options = {"distribution": "haar", "num_labels": 1, "problem_type": "regression"}
    model = tiny_classifier(**options)
    processor = LPSProcessor.from_config(model.config)
    report = sampling_report(model, processor, rows, TASK, num_draws=4, max_samples=8)
    for point in report["samples"]:
        seeds = range(10, 18)
        others = [evaluate(model, processor, rows, TASK, num_samples=point["num_samples"], seed=seed)["mae"] for seed in seeds]
        spread = np.hypot(np.std(others, ddof=1), point["metric_deviation"])
        assert abs(point["metric"] - np.mean(others)) < 2 * spread
        assert 0.2 < point["metric_deviation"] / np.std(others, ddof=1) < 5
    assert report["test_deviation"].keys() == {"mae", "rmse"}
    deviations = {point["num_samples"]: point["metric_deviation"] for point in report["samples"]}
    assert report["test_deviation"]["mae"] == deviations[2]
    assert deviations[1] > deviations[8]


def test_rows_without_labels_have_errors_only():
    rows = [{key: value for key, value in row.items() if key != "y"} for row in random_rows(4)]
    report = report_of(rows, {"num_draws": 2, "max_samples": 2})
    assert [point.keys() for point in report["samples"]] == [
        {"num_samples", "equivariance_error", "equivariance_standard_error"},
    ] * 2
    assert "test_deviation" not in report
    # Nor is there a metric where nobody knows what the labels are.
    assert "metric" not in report_of(random_rows(4), {"num_draws": 2, "max_samples": 1}, problem_type=None)["samples"][0]


def test_the_first_rows_are_measured():
    rows = random_rows(70)
    report = report_of(iter(rows), {"num_draws": 2, "max_samples": 1, "num_rows": 50})
    assert report["samples_rows"] == 50
    assert report["equivariance"]["num_rows"] == 32
    assert report == report_of(rows[:50], {"num_draws": 2, "max_samples": 1})


@pytest.mark.parametrize("distribution", ["none", "exact"])
def test_without_randomness_there_is_one_point(distribution):
    options = {"frame": "canonical_labelling"} if distribution == "exact" else {}
    if distribution == "exact":
        pytest.importorskip("canonaut")
    report = report_of(distribution=distribution, options={"num_draws": 2}, **options)
    (point,) = report["samples"]
    assert point["num_samples"] == 1
    assert point["metric_deviation"] == 0
    if distribution == "none":
        assert "coupled_relative_error" not in report["equivariance"]
        assert point["equivariance_error"] > 0
    else:
        assert report["equivariance"]["coupled_relative_error"] < 1e-8
        assert point["equivariance_error"] < 1e-5 < report["equivariance"]["backbone_relative_error"]


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, [1, 2, 4, 8, 16, 32]),
        ({"num_eval_samples": 10}, [1, 2, 4, 8, 10, 16, 32]),
        ({"num_eval_samples": 100}, [1, 2, 4, 8, 16, 32, 64, 100]),
        ({"num_eval_samples": "auto"}, [1, 2, 4, 8, 16, 32]),
        ({"sampler": "antithetic"}, [1, 2, 4, 8, 16, 32]),
        ({"sampler": "stratified", "sampler_group_size": 3, "num_eval_samples": 6}, [1, 2, 6]),
        ({"distribution": "none"}, [1]),
    ],
)
def test_the_numbers_of_samples(options, counts):
    assert sample_counts(tiny_config(**options)) == counts


def test_groups_of_dependent_draws_stay_whole():
    report = report_of(sampler="stratified", sampler_group_size=4, options={"num_draws": 2, "max_samples": 8})
    # Of each group of four only one estimate with one or two draws: the others would depend on it.
    assert [point["num_estimates"] for point in report["samples"]] == [4, 4, 4, 2]


def test_bad_arguments_get_a_sentence():
    for options, message in (
        ({"num_rows": 0}, "^num_rows: expected at least 1, got 0"),
        ({"num_draws": 1}, r"^num_draws: expected at least 2, or there would be no error bar, got 1\."),
        ({"max_samples": 0}, "^max_samples: expected at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            report_of(options=options)
    with pytest.raises(ValueError, match=r"^rows: expected at least one row, got none\."):
        report_of(iter([]))
    model = tiny_classifier()
    with pytest.raises(ValueError, match=r"^task: expected 'graph-classification'"):
        sampling_report(model, LPSProcessor.from_config(model.config), random_rows(2), "link-prediction")
