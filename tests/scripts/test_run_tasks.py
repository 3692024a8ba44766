"""The scripts of every task and their twins: same figures, files that load again, wrong inputs refused."""

import json
import runpy
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, ViTConfig, ViTForImageClassification, ViTImageProcessorPil

import lps_hf
from lps_hf.data.converters import digit_rows
from lps_hf.data.dataset_folders import DATASET_KINDS, make_splits, save_splits
from lps_hf.data.geometric_rows import charged_particles
from lps_hf.training.tasks import TASKS
from tests.tiny import save_dataset, save_tiny_vit

SCRIPTS = Path(__file__).parents[2] / "scripts"
VIT = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
PAIRS = {"model_type": "lps_pair_transformer", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES = {"train": 12, "validation": 4, "test": 7}
# Kind and options of the data, the backbone, the main metric, and the class (or Auto class) that loads the checkpoint.
CASES = {
    "graph-classification": ("cycle-pairs", {}, VIT, "accuracy", "AutoModelForGraphClassification"),
    "node-classification": (
        "pattern",
        {"sizes": [1, 3], "num_communities": 2},
        VIT,
        "balanced_accuracy",
        "AutoModelForNodeClassification",
    ),
    "link-prediction": ("contacts", {"num_nodes": [5, 9]}, VIT, "average_precision", "AutoModelForLinkPrediction"),
    "particle-dynamics": ("nbody", {"first_step": 5, "num_steps": 5}, PAIRS, "mse", "AutoModelForParticleDynamics"),
    "molecule-regression": ("clusters", {}, VIT, "mae", "AutoModelForGraphClassification"),
    "point-cloud-classification": ("shapes", {"num_points": 9}, VIT, "accuracy", "LPSForPointCloudClassification"),
    "image-classification": ("digits", {"scale": 2}, {**VIT, "image_size": 16, "patch_size": 8}, "accuracy", None),
}
GRID = ("--grid_size", "4")
NAMED = {"node-classification": "accuracy", "link-prediction": "mrr_filtered", "molecule-regression": "rmse"}
BOTH = pytest.mark.parametrize("twin", [False, True], ids=["trainer", "accelerate"])
EACH_TASK = pytest.mark.parametrize("task", CASES)


def script_of(task, twin=False):
    return f"run_{task.replace('-', '_')}{'_no_trainer' if twin else ''}"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The data set of every task."""
    folder = tmp_path_factory.mktemp("data")
    for task, (kind, options, *_) in CASES.items():
        save_splits(make_splits(kind, SIZES, options=options), folder / task, DATASET_KINDS[kind].class_names)
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Runs a script in this process; returns what it wrote to results.json."""

    def run(task, *flags, twin=False, data=None, out="out", backbone=None):
        if not {"--backbone_name_or_path", "--model_name_or_path"} & set(flags) or backbone is not None:
            flags = ("--backbone_config", json.dumps(backbone or CASES[task][2]), *flags)
        if "vit" in flags[1] and "image" not in task:
            flags += GRID
        arguments = ["--dataset_name", str(data or folder / task), "--output_dir", str(tmp_path / out), "--use_cpu"]
        arguments += ["--max_steps", "3", "--logging_steps", "1", "--per_device_train_batch_size", "4"]
        # Three batches of test rows of different sizes, which are joined again.
        arguments += ["--per_device_eval_batch_size", "3", "--num_eval_samples", "2", "--disable_tqdm", "True"]
        arguments += ["--report_to", "none", "--save_strategy", "no", "--report_rows", "0"]
        monkeypatch.setattr(sys, "argv", [script_of(task, twin), *arguments, *flags])
        runpy.run_path(str(SCRIPTS / f"{script_of(task, twin)}.py"), run_name="__main__")
        return json.loads((tmp_path / out / "results.json").read_text())

    return run


def test_every_task_is_tested_and_has_its_scripts():
    assert CASES.keys() == TASKS.keys()
    assert {DATASET_KINDS[kind].task for kind, *_ in CASES.values()} == TASKS.keys()
    for task in TASKS:
        for twin in (False, True):
            text = (SCRIPTS / f"{script_of(task, twin)}.py").read_text()
            assert f'("{task}")' in text
            recipe = next(word for word in text.split() if word.startswith("scripts/recipes/"))
            assert (SCRIPTS.parent / recipe).is_file()


@EACH_TASK
def test_script_and_twin_write_the_same_figures_and_a_model_that_loads(run, folder, tmp_path, capsys, task):
    # Nothing learns at rate 0, and both draw the same group elements for the test rows.
    flags = ("--learning_rate", "0", "--distribution", "haar")
    results = [run(task, *flags, twin=twin, out=f"{twin}") for twin in (False, True)]
    metric = CASES[task][3]
    for one in results:
        assert (one["task"], one["metric"], one["steps"], one["seed"]) == (task, metric, 3, 42)
        assert (one["num_train"], one["num_test"]) == (12, 7)
        assert {metric, NAMED.get(task, metric)} <= one["test"].keys()
        assert one["test"].keys() & one["baseline"].keys() >= {metric, NAMED.get(task, metric)}
        assert np.isfinite([one["test"][metric], one["baseline"][metric], one["train_loss_first"]]).all()
    assert results[0]["baseline"] == results[1]["baseline"]
    twins_metrics = results[1]["test"]
    assert {name: results[0]["test"][name] for name in twins_metrics} == pytest.approx(twins_metrics, rel=1e-5, nan_ok=True)
    output = capsys.readouterr().out
    assert output.count(f"test {metric}") == 2
    assert f"{results[0]['baseline'][metric]:.4f}" in output

    path = tmp_path / "True"
    assert {"config.json", "model.safetensors", "processor_config.json", "modeling_lps.py"} <= {p.name for p in path.iterdir()}
    head = TASKS[task].from_pretrained(path)
    auto_name = CASES[task][4]
    again = getattr(lps_hf, auto_name or type(head).__name__).from_pretrained(path)
    assert type(again) is type(head) is TASKS[task]
    processor = AutoProcessor.from_pretrained(path)
    rows = list(datasets.load_dataset(str(folder / task))["test"])
    batch = dict(processor(rows[:3], return_tensors="pt"))
    logits = [model(**batch, generator=torch.Generator().manual_seed(1)).logits for model in (head, again)]
    assert torch.equal(*logits)
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "pair_index")}
    function = AutoModel.from_pretrained(path)
    outputs = [model(**inputs, generator=torch.Generator().manual_seed(1)).output for model in (function, head.lps)]
    assert torch.equal(*outputs)


@EACH_TASK
def test_the_figure_is_that_of_the_saved_model(run, tmp_path, task):
    results = run(task, "--distribution", "haar", "--learning_rate", "1e-2")
    again = run(task, "--model_name_or_path", str(tmp_path / "out"), "--learning_rate", "0", "--max_steps", "1", out="again")
    assert results["train_loss_first"] != results["train_loss_last"]
    assert again["test"][results["metric"]] == pytest.approx(results["test"][results["metric"]], rel=1e-5)


@BOTH
def test_a_frozen_backbone_stays_as_it_was(run, tmp_path, twin):
    task = "molecule-regression"
    run(task, twin=twin)
    flags = ("--model_name_or_path", str(tmp_path / "out"), "--freeze_backbone", "--learning_rate", "1e-2")
    run(task, *flags, twin=twin, out="again")
    before, after = (TASKS[task].from_pretrained(tmp_path / name) for name in ("out", "again"))
    assert all(map(torch.equal, before.backbone_parameters(), after.backbone_parameters()))
    moved = [name for name, weight in before.named_parameters() if not torch.equal(weight, after.get_parameter(name))]
    assert moved


@BOTH
def test_figures_do_not_depend_on_how_rows_of_different_sizes_are_joined(run, tmp_path, twin):
    # Systems of 2 and of 4 particles, one after the other.
    mixed = [row for pair in zip(*(charged_particles(4, n, 3, 3) for n in (2, 4)), strict=True) for row in pair]
    data = {"link-prediction": None, "particle-dynamics": save_dataset(tmp_path / "data", train=mixed, test=mixed[:7])}
    flags = ("--learning_rate", "0", "--distribution", "none", "--max_steps", "1")
    for task, name in data.items():
        each, at_once = (
            run(task, *flags, "--per_device_eval_batch_size", size, twin=twin, data=name, out=f"{task}-{size}")
            for size in ("1", "7")
        )
        for metric in at_once["test"].keys() & at_once["baseline"].keys():
            assert each["test"][metric] == pytest.approx(at_once["test"][metric], rel=1e-5), metric


@BOTH
@pytest.mark.parametrize("task", ["link-prediction", "particle-dynamics"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_stopped(run, tmp_path, task, twin):
    flags = ("--save_strategy", "steps", "--save_steps", "2", "--learning_rate", "1e-3")
    whole = run(task, *flags, twin=twin, out="whole")
    resumed = run(task, *flags, "--resume_from_checkpoint", str(tmp_path / "whole" / "checkpoint-2"), twin=twin, out="resumed")
    assert resumed["test"][CASES[task][3]] == whole["test"][CASES[task][3]]
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_a_pretrained_classifier_is_compared_with_a_random_one(run, tmp_path):
    names = {number: str(number) for number in range(10)}
    config = ViTConfig(**{**CASES["image-classification"][2], "image_size": 24}, id2label=names)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 24, "width": 24}).save_pretrained(tmp_path / "vit")
    flags = ("--backbone_name_or_path", str(tmp_path / "vit"), "--compare_with_scratch", "--freeze_backbone")
    results = run("image-classification", *flags)
    assert results["scratch"]["train_loss_first"] != results["train_loss_first"]
    # The frozen backbone is still the one that was loaded, last layer and all.
    loaded, saved = (load_file(tmp_path / name / "model.safetensors") for name in ("vit", "out"))
    kept = {name.rpartition("classifier.")[2]: tensor for name, tensor in saved.items() if "classifier." in name}
    assert torch.equal(kept["weight"], loaded["classifier.weight"])
    # 16 × 16 pixels become the 24 × 24 that it was made for, by its own image processor.
    batch = AutoProcessor.from_pretrained(tmp_path / "out")(digit_rows(2)[:2], return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 3, 24, 24)


@EACH_TASK
def test_a_data_set_of_another_task_is_refused(run, folder, tmp_path, task):
    other = "image-classification" if task != "image-classification" else "particle-dynamics"
    for twin in (False, True):
        with pytest.raises(ValueError, match=r"expected the columns .*, got .*; '\w+' is missing"):
            run(task, twin=twin, data=folder / other)
    assert not (tmp_path / "out" / "results.json").exists()


@BOTH
def test_backbones_that_cannot_be_made_are_refused(run, tmp_path, twin):
    task = "graph-classification"
    with pytest.raises(
        ValueError, match="backbone_config: expected a model_type of transformers, .* or 'lps_mlp', .*; got 'resnext'"
    ):
        run(task, twin=twin, backbone={"model_type": "resnext"})
    with pytest.raises(ValueError, match="backbone_config: expected JSON with the key 'model_type'"):
        run(task, twin=twin, backbone={"hidden_size": 8})
    save_tiny_vit(tmp_path / "vit")
    with pytest.raises(ValueError, match="exactly one of them, got backbone_name_or_path, backbone_config"):
        run(task, "--backbone_name_or_path", str(tmp_path / "vit"), twin=twin, backbone=VIT)
