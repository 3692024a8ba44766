"""What is measured of a checkpoint: the recorded figures of every task, on the recorded rows."""

import json

import datasets
import pytest
import torch
from transformers import ViTImageProcessorPil

from lps_hf.data.recorded_rows import recorded_rows
from lps_hf.evaluation.environment import environment
from lps_hf.evaluation.metrics import metric_of
from lps_hf.evaluation.prediction import evaluate
from lps_hf.evaluation.sampling_report import sampling_report
from lps_hf.hub import save_checkpoint
from lps_hf.hub.loading import load_by_auto_class, load_checkpoint
from lps_hf.hub.measurement import measure
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification, LPSForPointCloudClassification
from lps_hf.models.processing_lps import LPSProcessor
from tests.task_cases import CASES, task_case
from tests.tiny import save_dataset

TASK = "graph-classification"
FACTS = {"name": "cycles", "generated": True, "kind": "cycle-pairs", "options": {}, "split": "test", "num_rows": 6, "seed": 0}


def generated_rows():
    return recorded_rows(TASK, FACTS)


def recorded_checkpoint(folder, task=TASK, rows=None, facts=FACTS, **report):
    """A checkpoint of a random model with its figures."""
    model, processor, _ = task_case(task, distribution="haar")
    rows = generated_rows() if rows is None else rows
    results = {
        "task": task,
        "dataset": facts,
        "metric": metric_of(task, model.config.problem_type),
        "test": evaluate(model, processor, rows, task, batch_size=4, seed=5),
        "num_test": len(rows),
        "seed": 5,
        "eval_batch_size": 4,
        **sampling_report(model, processor, rows, task, **(report or {"num_rows": 5, "num_draws": 2, "max_samples": 4}), seed=5),
        "environment": environment("cpu"),
    }
    save_checkpoint(model, processor, folder)
    (folder / "results.json").write_text(json.dumps(results))
    return folder, results


@pytest.mark.parametrize("task", CASES)
def test_every_task_is_measured_by_its_auto_class(task, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    kind, options = CASES[task]
    facts = {**FACTS, "kind": kind, "options": options}
    if task == "image-classification":  # cut from a file, and so not drawn again
        *_, rows = task_case(task)
        rows = [{"image": row["image"].tolist(), "label": row["label"]} for row in rows]
        where = save_dataset(tmp_path / "digits", test=rows)
        facts = {"name": "digits", "local": True, "split": "test", "max_eval_samples": 7, "seed": 2}
        rows = recorded_rows(task, facts, where)
        assert len(rows) == 7
    else:
        where, rows = None, recorded_rows(task, facts)
    folder, results = recorded_checkpoint(tmp_path / "model", task, rows, facts)
    found = measure(folder, results, where)
    assert found == {key: results[key] for key in found}
    assert found.keys() == {
        *("environment", "num_test", "test", "equivariance", "samples", "samples_rows", "samples_draws", "test_deviation"),
    }


def test_a_report_that_was_cut_is_measured_as_it_was(tmp_path):
    plan = {"num_rows": 3, "num_draws": 2, "counts": [1, 2], "backbone_elements": 2}
    folder, results = recorded_checkpoint(tmp_path, **plan)
    results["report_time_share"] = 0.1
    found = measure(folder, results)
    assert found == {key: results[key] for key in found}
    assert [point["num_samples"] for point in found["samples"]] == [1, 2]  # and not the configuration's three


def test_other_weights_give_other_figures(tmp_path):
    folder, results = recorded_checkpoint(tmp_path)
    model = load_by_auto_class(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    _, processor, _ = task_case(TASK)
    save_checkpoint(model, processor, folder)
    found = measure(folder, results)
    assert found["test"]["loss"] != results["test"]["loss"]
    assert found["samples"] != results["samples"]


def test_without_rows_exactness_is_measured_on_random_ones(tmp_path):
    folder, results = recorded_checkpoint(tmp_path)
    for facts, said in (
        ({}, "its results file names no data set"),
        ({"name": "graphs", "local": True}, "dataset: 'graphs' was a folder where the model was made. Say where it is now."),
        ({"name": "../secrets"}, "Repo id must"),
        ({**FACTS, "kind": "nbody"}, "dataset: expected a generated kind for graph-classification, got 'nbody'."),
        ({**FACTS, "num_rows": 10**9}, "dataset: expected 1 to 100000 rows, got 1000000000."),
        ({**FACTS, "options": {"cycle_lengths": "abc"}}, "`cycle_lengths` must"),
        ({"name": "somebody/graphs"}, ""),  # the tests are offline
    ):
        found = measure(folder, {**results, "dataset": facts})
        assert found.keys() == {"environment", "problem", "coupled_relative_error"}
        assert found["problem"].startswith(said)
        assert found["problem"]
        assert found["coupled_relative_error"] < 1e-12


def test_what_is_not_symmetrized_is_not_exact(tmp_path):
    model, processor, _ = task_case(TASK, distribution="none")
    save_checkpoint(model, processor, tmp_path)
    assert measure(tmp_path, {"task": "of an older file"}).keys() == {"environment", "problem"}


def test_a_data_set_that_is_given_has_to_be_there(tmp_path):
    folder, results = recorded_checkpoint(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        measure(folder, results, str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("samples_rows", 10**6),
        ("samples_draws", "many"),
        ("samples_draws", -3),
        ("samples", [{"num_samples": None}]),
        ("eval_batch_size", 10**9),
    ],
)
def test_a_file_that_asks_for_too_much_is_refused(tmp_path, key, value):
    folder, results = recorded_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"^results\.json: expected 1 to 10000 for (num_|eval_batch_size)"):
        measure(folder, {**results, key: value})


def test_the_code_in_a_checkpoint_is_never_run(tmp_path):
    folder, results = recorded_checkpoint(tmp_path)
    for file in folder.glob("*.py"):
        file.write_text("raise RuntimeError('remote code ran')\n")
    assert measure(folder, results)["test"] == results["test"]
    assert type(load_by_auto_class(folder)) is LPSForGraphClassification


def test_an_image_processor_with_code_of_its_own_is_refused_and_nobody_asked(tmp_path):
    pytest.importorskip("PIL")
    model, *_ = task_case("image-classification")
    save_checkpoint(model, LPSProcessor.from_config(model.config, ViTImageProcessorPil()), tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    settings["image_processor"] |= {"auto_map": {"AutoImageProcessor": "theirs.Theirs"}, "image_processor_type": "Theirs"}
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    (tmp_path / "theirs.py").write_text("raise RuntimeError('remote code ran')\n")
    with pytest.raises(ValueError, match="contains custom code"):
        load_checkpoint(tmp_path)


def test_a_folder_that_is_not_there_is_no_hub_id(tmp_path):
    for name in (tmp_path / "none", str(tmp_path / "none"), "./none"):
        with pytest.raises(FileNotFoundError, match="none: expected a checkpoint folder, found none"):
            load_checkpoint(name)


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path):
    for settings in ({"model_type": "vit", "architectures": ["ViTModel"]}, {"model_type": "lps"}):
        (tmp_path / "config.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match="expected a checkpoint of lps_hf, got model type"):
            load_by_auto_class(tmp_path)


def test_point_clouds_load_as_what_stands_for_them(tmp_path):
    model, processor, rows = task_case("point-cloud-classification")
    assert type(model) is LPSForPointCloudClassification
    save_checkpoint(model, processor, tmp_path)
    again = load_by_auto_class(tmp_path)
    arguments = processor, rows, "point-cloud-classification"
    assert evaluate(again, *arguments) == evaluate(model, *arguments)
