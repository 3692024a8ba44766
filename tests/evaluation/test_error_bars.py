"""Error bars calibrated on rows: for every task, kept with the checkpoint, and honest afterwards."""

import pytest
import torch

from lps_hf.evaluation.error_bars import calibrate_error_bars, draws_of
from lps_hf.evaluation.sampling_report import sampling_report
from lps_hf.models.error_bars import VariancePrior
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.models.processing_lps import LPSProcessor
from tests.task_cases import CASES, task_case
from tests.tiny import random_rows, tiny_classifier


@pytest.mark.parametrize("task", CASES)
def test_every_task_is_calibrated(task):
    model, processor, rows = task_case(task, distribution="haar")
    prior = calibrate_error_bars(model, processor, rows[:4], num_samples=40)
    channels = {"particle-dynamics": 1, "link-prediction": 1}.get(task, model.config.num_labels)
    assert len(prior.variance) == channels
    assert min(prior.variance) > 0
    assert model.config.variance_prior == prior.to_dict()
    batch = {key: value for key, value in processor(rows[:2], return_tensors="pt").items() if key != "labels"}
    with torch.no_grad():
        plain = model(**batch, num_samples=40, generator=torch.Generator().manual_seed(0), output_samples=True)
    assert plain.degrees_of_freedom.tolist() == [39 + prior.degrees_of_freedom] * 2


def test_padding_is_no_entry_of_links_between_all_nodes():
    model, processor, rows = task_case("link-prediction", distribution="haar")
    whole = [{key: value for key, value in row.items() if not key.startswith("edge_label")} for row in rows[:3]]
    batch = processor(whole, return_tensors="pt")
    sizes = batch["node_mask"].sum(dim=1)
    assert sizes.min() < sizes.max()
    with torch.no_grad():
        samples = model(**batch, num_samples=4, output_samples=True).samples
    assert draws_of(model, batch, samples).shape == (4, int(sizes.square().sum()), 1)


def test_the_prior_is_the_variance_of_a_draw_in_the_unit_of_the_network():
    options = {"problem_type": "regression", "num_labels": 1, "distribution": "haar"}
    rows = random_rows(12)
    found = []
    for scaling in ({}, {"label_mean": [5.0], "label_std": [3.0]}):
        model = tiny_classifier(**options, **scaling)
        processor = LPSProcessor.from_config(model.config)
        found.append(calibrate_error_bars(model, processor, rows, num_rows=10, num_samples=64, seed=3).variance[0])
    batch = processor(rows[:10], return_tensors="pt")
    del batch["labels"]
    with torch.no_grad():
        samples = model.lps(**batch, num_samples=400, output_samples=True, generator=torch.Generator().manual_seed(0)).samples
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[0] == pytest.approx(samples.var(dim=1).mean().item(), rel=0.3)


def test_a_calibrated_checkpoint_keeps_its_prior_and_its_mode(tmp_path):
    model, processor, rows = task_case("graph-classification")
    model.train()
    prior = calibrate_error_bars(model, processor, iter(rows), num_rows=3, num_samples=1)  # as many as are needed
    assert model.training
    model.save_pretrained(tmp_path)
    assert LPSForGraphClassification.from_pretrained(tmp_path).config.variance_prior == prior.to_dict()


def test_the_report_has_the_prior_of_its_own_draws():
    model, processor, rows = task_case("graph-classification", distribution="haar")
    report = sampling_report(model, processor, rows[:4], "graph-classification", num_draws=4, max_samples=16)
    assert VariancePrior.from_dict(report["variance_prior"]).degrees_of_freedom >= 0
    assert "variance_prior" not in sampling_report(model, processor, rows[:4], "graph-classification", num_draws=2, max_samples=8)
    assert model.config.variance_prior is None  # whoever asked for the report decides


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_rows": 0}, "num_rows: expected at least 1, got 0"),
        ({"num_samples": 0}, "num_samples: expected at least 1, got 0"),
        ({"rows": []}, "rows: expected at least one row, got none"),
        ({"distribution": "none"}, "model: expected a distribution that draws, got 'none'"),
    ],
    ids=str,
)
def test_what_cannot_be_calibrated_is_refused(options, message):
    model, processor, rows = task_case("graph-classification", distribution=options.pop("distribution", "learned"))
    with pytest.raises(ValueError, match=message):
        calibrate_error_bars(model, processor, options.pop("rows", rows[:2]), **options)
