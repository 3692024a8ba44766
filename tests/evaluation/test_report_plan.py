"""How much of a report fits into a time."""

import math

import pytest

from lps_hf.evaluation import sampling_report as module
from lps_hf.evaluation.report_plan import ReportPlan, plan_report, seconds_per_output
from lps_hf.evaluation.sampling_report import sampling_report
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import random_rows, tiny_classifier, tiny_config


def test_with_time_the_report_is_whole():
    config = tiny_config(num_eval_samples=10)
    whole = ReportPlan(64, 4, [1, 2, 4, 8, 10, 16, 32], 16)
    assert plan_report(config, 64, 1.0, math.inf) == whole
    assert plan_report(config, 64, 1.0, whole.num_outputs()) == whole
    assert plan_report(config, 64, 1.0, whole.num_outputs() - 1) != whole


@pytest.mark.parametrize(
    "options", [{}, {"num_eval_samples": 50}, {"num_eval_samples": "auto"}, {"distribution": "none"}, {"sampler": "antithetic"}]
)
@pytest.mark.parametrize("rows", [1, 19, 64])
def test_it_takes_no_longer_than_it_may_and_less_time_means_less(options, rows):
    config, before = tiny_config(**options), math.inf
    smallest = plan_report(config, rows, 1.0, 0.0).num_outputs()
    assert smallest <= 150
    for seconds in (10**6, 10**4, 3000, 1000, 500, 200, 150):
        plan = plan_report(config, rows, 1.0, seconds)
        assert plan.num_outputs() <= min(seconds, before)
        assert 1 <= plan.num_rows <= rows
        assert set(plan.counts) <= set(module.sample_counts(config))
        before = plan.num_outputs()


def test_what_was_slow_stays_small():
    # A ViT-S on MUTAG: 12 s for 0.086 s an output, where the whole report took seven minutes.
    plan = plan_report(tiny_config(num_eval_samples=10), 19, 0.086, 12.0)
    assert plan.num_outputs() * 0.086 <= 12.0
    assert plan.num_draws >= 2


@pytest.mark.parametrize("seconds", [120, 800, 10**6])
def test_the_number_of_outputs_is_about_right(monkeypatch, seconds):
    model = tiny_classifier(num_eval_samples=4)
    plan = plan_report(model.config, 12, 1.0, seconds)
    seen = []

    def count(module, arguments, outputs):
        double = outputs.output.dtype.itemsize > 4 and next(module.parameters()).dtype.itemsize > 4
        draws = 1 if outputs.group_elements is None else outputs.group_elements.shape[1]
        seen.append(len(outputs.output) * draws * (3 if double else 1))

    hooks = [model.lps.register_forward_hook(count)]
    sampling_report(model, LPSProcessor.from_config(model.config), random_rows(12), "graph-classification", **plan.options())
    assert hooks
    assert isinstance(model.lps, LPSModel)
    assert sum(seen) == pytest.approx(plan.num_outputs(), rel=0.1)


@pytest.mark.parametrize("options", [{}, {"distribution": "none"}, {"distribution": "haar"}])
def test_what_an_output_takes_is_measured(monkeypatch, options):
    model = tiny_classifier(**options)
    processor = LPSProcessor.from_config(model.config)
    seconds = iter((0.0, 5.0, 10.0, 14.0))
    monkeypatch.setattr("lps_hf.evaluation.report_plan.time.perf_counter", lambda: next(seconds))
    assert seconds_per_output(model.train(), processor, random_rows(9)) == 4.0 / 8
    assert model.training


def test_one_bar_for_the_whole_report(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **options):
            self.total, self.number, self.is_closed = total, 0, False
            bars.append(self)

        def update(self, number=1):
            self.number += number

        def close(self):
            self.is_closed = True

    monkeypatch.setattr(module, "tqdm", Bar)
    model = tiny_classifier()
    options = {"num_rows": 40, "num_draws": 2, "counts": [1, 2], "backbone_elements": 2, "progress": True}
    report = sampling_report(model, LPSProcessor.from_config(model.config), random_rows(40), "graph-classification", **options)
    (bar,) = bars
    assert bar.number == bar.total == 2 * 3 + 2
    assert bar.is_closed
    assert [point["num_samples"] for point in report["samples"]] == [1, 2]
    assert report["equivariance"]["num_backbone_elements"] == 2
