"""The training script and its twin without a Trainer: the same flags, the same files, the same figures."""

import json
import runpy
import sys
import textwrap
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoProcessor

from lps_hf.hub.loading import load_checkpoint
from lps_hf.hub.measurement import measure
from lps_hf.hub.verification import compare
from lps_hf.training import accelerate_run, task_arguments, tasks, trainer_run
from tests.loopback_hub import run_client
from tests.results_keys import COMMON, REPORT
from tests.tiny import random_rows, save_dataset, save_tiny_vit

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = ("run_graph_classification", "run_graph_classification_no_trainer")
BOTH = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A backbone, a data set with splits, one of regression, and one to be cut into folds."""
    folder = tmp_path_factory.mktemp("job")
    save_tiny_vit(folder / "vit")
    train, validation, test = random_rows(24), random_rows(6, 1), random_rows(10, 2)
    save_dataset(folder / "graphs", train=train, validation=validation, test=test)
    save_dataset(folder / "uncut", train=random_rows(30))
    for rows in (train, validation, test):
        for number, row in enumerate(rows):
            row["y"] = [number / 4]
    save_dataset(folder / "regression", train=train, validation=validation, test=test)
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Runs a script in this process; returns what it wrote to results.json."""

    def run(name, *flags, out="out", data="graphs", recipe=None):
        arguments = [] if recipe is None else [str(recipe)]
        arguments += ["--dataset_name", str(folder / data), "--output_dir", str(tmp_path / out)]
        if "--model_name_or_path" not in flags:
            arguments += ["--backbone_name_or_path", str(folder / "vit")]
        if recipe is None:
            arguments += ["--max_steps", "4", "--per_device_train_batch_size", "8", "--logging_steps", "1"]
            arguments += ["--report_to", "none", "--save_strategy", "no", "--learning_rate", "1e-3"]
        arguments += ["--use_cpu", "--disable_tqdm", "True", "--report_rows", "0", "--report_time_share", "inf", *flags]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return json.loads((tmp_path / out / "results.json").read_text())

    return run


def weights_in(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(left, right):
    left, right = weights_in(left), weights_in(right)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


@BOTH
def test_a_run_writes_its_figures_and_a_checkpoint_that_loads(run, tmp_path, capsys, name):
    results = run(name, "--num_eval_samples", "3", "--report_rows", "6")
    assert results.keys() == COMMON | REPORT
    assert results["samples_rows"] == results["equivariance"]["num_rows"] == 6
    assert results["equivariance"]["num_samples"] == results["num_eval_samples"] == 3
    assert results["equivariance"]["coupled_relative_error"] < 1e-8
    assert (results["metric"], results["num_train"], results["num_test"], results["steps"]) == ("accuracy", 24, 10, 4)
    assert results["baseline"]["accuracy"] == 0.4
    assert 0 <= results["test"]["accuracy"] <= 1
    assert results["train_loss_first"] != results["train_loss_last"]
    assert results["seed"] == 42
    output = capsys.readouterr().out
    assert f"test accuracy               {results['test']['accuracy']:.4f}" in output
    assert "  prediction without graph  0.4000" in output

    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "modeling_lps.py", "results.json"} <= files
    assert not [file for file in files if file.startswith((".", "checkpoint-"))]
    model, processor = (auto.from_pretrained(tmp_path / "out") for auto in (AutoModelForSequenceClassification, AutoProcessor))
    assert (model.config.num_eval_samples, model.config.num_labels) == (3, 3)
    assert model(**processor(random_rows(4), return_tensors="pt")).loss.isfinite()


@BOTH
def test_the_figures_of_a_run_can_be_measured_again(run, folder, tmp_path, name):
    flags = ("--report_rows", "5", "--max_eval_samples", "7", "--per_device_eval_batch_size", "3")
    results = run(name, *flags, "--distribution", "haar", "--num_eval_samples", "2")
    assert results["dataset"] == {
        **{"name": "graphs", "local": True, "config_name": None, "revision": None, "split": "test"},
        **{"fold": None, "num_folds": None, "seed": 42, "max_eval_samples": 7},
    }
    assert str(folder) not in json.dumps(results)  # nobody's business
    again = compare("the run", results, measure(tmp_path / "out", results, str(folder / "graphs")))
    assert again.ok
    assert all(row.is_equal for row in again.rows)
    assert {"test accuracy", "accuracy, 2 samples", "equivariance error, 2 samples"} <= {row.what for row in again.rows}
    assert not again.notes


@BOTH
def test_an_evaluation_that_fails_does_not_cost_the_weights(run, tmp_path, monkeypatch, name):
    metrics_of = tasks.Task.metrics_of

    def fails_on_test(task, split):
        if split == "test":
            raise RuntimeError("no figures")
        return metrics_of(task, split)

    monkeypatch.setattr(tasks.Task, "metrics_of", fails_on_test)
    with pytest.raises(RuntimeError, match="no figures"):
        run(name)
    assert load_checkpoint(tmp_path / "out")[0].num_parameters() > 0


@BOTH
def test_a_recipe_with_overrides_cuts_folds(run, tmp_path, name):
    recipe = {
        "dataset_name": "nowhere",
        "backbone_name_or_path": "nothing",
        "fold": 1,
        "num_folds": 5,
        "max_train_samples": 8,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": "1e-3",
        "save_strategy": "no",
        "report_to": "none",
        "seed": 3,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    results = run(name, "--max_train_samples", "6", data="uncut", recipe=tmp_path / "recipe.yaml")
    assert (results["num_train"], results["num_test"], results["steps"], results["seed"]) == (6, 6, 2, 3)
    results = run(name, "--fold", "2", "--max_eval_samples", "4", data="uncut", recipe=tmp_path / "recipe.yaml")
    assert (results["num_train"], results["num_test"]) == (8, 4)


@BOTH
def test_steps_are_those_of_the_epochs(run, name):
    # 24 rows in batches of 5, two of which make a step: three steps an epoch.
    flags = ("--max_steps", "-1", "--num_train_epochs", "2", "--per_device_train_batch_size", "5")
    results = run(name, *flags, "--gradient_accumulation_steps", "2")
    assert results["steps"] == 6


def test_both_read_the_same_arguments():
    for module in (trainer_run, accelerate_run):
        assert module.parse_arguments is task_arguments.parse_arguments
        assert module.prepare_task is tasks.prepare_task


def test_without_training_both_give_the_same_figures(run):
    # Nothing learns in the Haar distribution at rate 0, and both evaluate with the same draws.
    flags = ("--distribution", "haar", "--learning_rate", "0", "--max_steps", "1")
    results = [run(name, *flags, out=name, data="regression") for name in NAMES]
    assert results[0]["metric"] == "mae"
    for metric in ("mae", "rmse"):
        assert results[0]["test"][metric] == pytest.approx(results[1]["test"][metric], rel=1e-6)
    assert results[0]["baseline"] == results[1]["baseline"]


@BOTH
def test_both_learn(run, name):
    flags = ("--max_steps", "50", "--logging_steps", "5", "--per_device_train_batch_size", "24", "--learning_rate", "3e-3")
    results = run(name, *flags, "--backbone_learning_rate", "1e-3", "--weight_decay", "0.01", data="regression")
    assert results["train_loss_last"] < 0.8 * results["train_loss_first"]


@BOTH
@pytest.mark.parametrize("accumulated", [1, 2])
def test_an_interrupted_run_is_resumed(run, tmp_path, name, accumulated):
    flags = ("--max_steps", "5", "--save_strategy", "steps", "--save_steps", "2", "--patch_dropout", "0.3")
    flags += ("--backbone_learning_rate", "1e-4", "--interface_dropout", "0.1")
    flags += ("--gradient_accumulation_steps", str(accumulated), "--per_device_train_batch_size", str(10 // accumulated))
    whole = run(name, *flags, out="whole")
    # 24 rows are three batches of 10, or three steps of two batches of 5: the second checkpoint lies in the second epoch.
    for step in (2, 4):
        checkpoint = str(tmp_path / "whole" / f"checkpoint-{step}")
        resumed = run(name, *flags, "--resume_from_checkpoint", checkpoint, out=f"resumed-{step}")
        assert resumed["steps"] == 5
        assert resumed["test"]["accuracy"] == whole["test"]["accuracy"]
        assert resumed["train_loss_last"] == whole["train_loss_last"]
        assert_same_weights(tmp_path / "whole", tmp_path / f"resumed-{step}")


@BOTH
def test_the_comparison_trains_a_random_backbone_on_the_same_budget(run, tmp_path, capsys, name):
    results = run(name, "--compare_with_scratch", "--save_strategy", "steps", "--save_steps", "2", "--report_rows", "2")
    assert results.keys() == COMMON | REPORT | {"scratch"}
    scratch = results["scratch"]
    assert scratch.keys() == set(tasks.SCRATCH_KEYS)
    assert (scratch["steps"], scratch["num_train"], scratch["metric"]) == (4, 24, "accuracy")
    assert scratch["train_loss_first"] != results["train_loss_first"]
    assert "  random weights" in capsys.readouterr().out
    folder = tmp_path / "out"
    weight = "lps.base.backbone.model.encoder.layer.0.layernorm_before.weight"
    assert weight in weights_in(folder)
    assert not torch.equal(weights_in(folder)[weight], weights_in(folder / "scratch")[weight])
    alone = json.loads((folder / "scratch" / "results.json").read_text())
    assert {key: alone[key] for key in scratch} == scratch
    assert alone.keys() == COMMON
    assert (results["backbone"], alone["backbone"]) == ("vit", None)
    assert json.loads((folder / "results.json").read_text()) == results
    assert "random backbone, same budget" in (folder / "README.md").read_text(), "the card tells of both runs"

    # The checkpoint to go on from is the pretrained run's; the other one starts from nothing.
    again = run(name, "--compare_with_scratch", "--resume_from_checkpoint", str(folder / "checkpoint-2"), out="again")
    assert again["test"]["accuracy"] == results["test"]["accuracy"]
    assert again["scratch"]["train_loss_first"] == scratch["train_loss_first"]
    assert_same_weights(folder / "scratch", tmp_path / "again" / "scratch")


@BOTH
def test_a_symmetrized_checkpoint_is_trained_further(run, tmp_path, name):
    run(name, out="first")
    flags = ("--model_name_or_path", str(tmp_path / "first"), "--learning_rate", "0", "--num_eval_samples", "4")
    results = run(name, *flags, out="second")
    assert results["steps"] == 4
    assert json.loads((tmp_path / "second" / "config.json").read_text())["num_eval_samples"] == 4
    first, second = weights_in(tmp_path / "first"), weights_in(tmp_path / "second")
    moved = [key for key in first if not torch.equal(first[key], second[key])]
    assert not [key for key in moved if "running" not in key and "num_batches" not in key]


def test_the_best_checkpoint_is_the_result(run, tmp_path):
    flags = ("--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "steps", "--save_steps", "2")
    flags += ("--load_best_model_at_end", "--metric_for_best_model", "loss", "--greater_is_better", "True")
    run("run_graph_classification", *flags, "--learning_rate", "3e-3")
    state = json.loads((tmp_path / "out" / "checkpoint-4" / "trainer_state.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    assert losses[2] > losses[4]
    load = AutoModelForSequenceClassification.from_pretrained
    best, final = (load(tmp_path / "out" / part).state_dict() for part in ("checkpoint-2", ""))
    assert [name for name in best if not torch.equal(best[name], final[name])] == []


PUSH = """
    import os, runpy, sys
    del os.environ["HF_HUB_DISABLE_PROGRESS_BARS"]  # Trainer switches the bars off and on itself
    for script in SCRIPTS:
        sys.argv = [script, *FLAGS, "--output_dir", script[-4:-3], "--hub_model_id", "tester/" + script.split("/")[-1][:-3]]
        runpy.run_path(script, run_name="__main__")
"""


def test_a_model_that_is_pushed_carries_its_code(folder, tmp_path, loopback_hub):
    flags = ["--dataset_name", str(folder / "graphs"), "--backbone_name_or_path", str(folder / "vit"), "--max_steps", "2"]
    flags += ["--save_strategy", "steps", "--save_steps", "1", "--report_to", "none", "--use_cpu", "--push_to_hub"]
    flags += ["--report_rows", "2"]
    known = f"SCRIPTS, FLAGS = {[str(SCRIPTS / f'{name}.py') for name in NAMES]!r}, {flags!r}\n"
    run_client(loopback_hub, tmp_path, known + textwrap.dedent(PUSH))
    for name in NAMES:
        files = loopback_hub.repos["models", f"tester/{name}"].find("main").files
        assert {"modeling_lps.py", "processor_config.json", "README.md"} <= files.keys()
        assert json.loads(files["results.json"].content) == json.loads((tmp_path / name[-1] / "results.json").read_text())
        assert json.loads(files["config.json"].content)["auto_map"]["AutoConfig"] == "configuration_lps.LPSConfig"
        assert files["model.safetensors"].content == (tmp_path / name[-1] / "model.safetensors").read_bytes()
        assert "auto_map" in json.loads((tmp_path / name[-1] / "config.json").read_text())


@BOTH
def test_wrong_arguments_are_refused_before_any_work(run, tmp_path, name):
    with pytest.raises(ValueError, match="exactly one of them, got model_name_or_path, backbone_name_or_path"):
        run(name, "--backbone_name_or_path", "vit", "--model_name_or_path", "lps")
    with pytest.raises(ValueError, match="expected a split 'test'"):
        run(name, data="uncut")
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("flags", [("--eval_strategy", "steps"), ("--save_strategy", "epoch")])
def test_the_twin_refuses_what_it_does_not_do(run, flags):
    with pytest.raises(ValueError, match=f"{flags[0][2:]}.*Use the script without _no_trainer"):
        run(NAMES[1], *flags)


def test_the_twin_takes_shares_of_the_run_for_steps(run, tmp_path):
    run(NAMES[1], "--save_strategy", "steps", "--save_steps", "0.5", "--logging_steps", "0.25")
    assert sorted(folder.name for folder in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
