"""The task made from the arguments of a script: data, model, processor and metrics."""

import math
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from transformers import ViTModel

from lps_hf.evaluation.report_plan import ReportPlan, plan_report
from lps_hf.hub import save_checkpoint
from lps_hf.hub.loading import load_checkpoint
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training import tasks
from lps_hf.training.task_arguments import parse_arguments
from lps_hf.training.tasks import Task, prepare_task
from tests.tiny import random_rows, save_dataset, save_tiny_vit, tiny_classifier

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A backbone and a data set with three splits."""
    folder = tmp_path_factory.mktemp("task")
    save_tiny_vit(folder / "vit")
    save_dataset(folder / "graphs", train=random_rows(30), validation=random_rows(9, 1), test=random_rows(12, 2))
    return folder


def parse(folder, *flags):
    """The arguments for the data set and the backbone of `folder`."""
    needed = ["--dataset_name", str(folder / "graphs"), "--output_dir", str(folder / "out")]
    model = [] if "--model_name_or_path" in flags else ["--backbone_name_or_path", str(folder / "vit")]
    return parse_arguments([*needed, *model, "--report_to", "none", "--use_cpu", *flags])


def prepare(folder, *flags, **options) -> Task:
    return prepare_task("graph-classification", *parse(folder, *flags), **options)


# -------------------------------------------------------------------------------------------------------------- the model


def test_the_model_has_the_pretrained_backbone_and_fits_the_data(folder):
    task = prepare(folder)
    config = task.model.config
    assert (config.max_nodes, config.node_categories, config.edge_categories) == (8, [3, 2], [2])
    assert (config.num_labels, config.problem_type) == (3, SINGLE)
    pretrained = ViTModel.from_pretrained(folder / "vit", add_pooling_layer=False).state_dict()
    backbone = task.model.lps.base.backbone.model.state_dict()
    layers = [name for name in pretrained if name.startswith("layers.")]
    assert len(layers) > 20
    for name in layers:
        assert torch.equal(backbone[name], pretrained[name]), name
    assert task.processor.to_dict() == LPSProcessor.from_config(config).to_dict()
    batch = task.processor(task.splits["test"], return_tensors="pt")
    assert task.model(**batch).loss.isfinite()


def test_every_flag_of_the_model_reaches_its_configuration(folder):
    flags = {
        "distribution": "canonical",
        "num_samples": 3,
        "noise_scale": 0.5,
        "temperature": 0.1,
        "entropy_loss_coef": 0.25,
        "grid_size": 3,
        "padding_mode": "reflect",
        "centered_padding": True,
        "patch_dropout": 0.5,
        "num_eval_samples": 7,
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    model = prepare(folder, *words, "--interface_dropout", "0.2").model
    assert {name: getattr(model.config, name) for name in flags} == flags
    assert model.config.interface_config["dropout"] == 0.2
    assert {module.p for module in model.lps.distribution.modules() if isinstance(module, torch.nn.Dropout)} <= {0.2}


@pytest.mark.parametrize("how", ["flag", "argument"])
def test_from_scratch_gives_the_same_model_with_random_weights(folder, how):
    pretrained = prepare(folder).model
    scratch = (prepare(folder, "--from_scratch") if how == "flag" else prepare(folder, from_scratch=True)).model
    assert scratch.config.to_dict() | {"dtype": None} == pretrained.config.to_dict() | {"dtype": None}
    weight = "lps.base.backbone.model.layers.0.mlp.fc1.weight"
    assert not torch.equal(scratch.state_dict()[weight], pretrained.state_dict()[weight])
    assert scratch.state_dict().keys() == pretrained.state_dict().keys()


@pytest.mark.parametrize("flag", [(), ("--from_scratch",)])
def test_a_backbone_in_half_precision_makes_a_model_in_single_precision(folder, tmp_path, flag):
    ViTModel.from_pretrained(folder / "vit").half().save_pretrained(tmp_path / "half")
    arguments = parse(folder, *flag)
    arguments[0].backbone_name_or_path = str(tmp_path / "half")
    model = prepare_task("graph-classification", *arguments).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_training_can_go_on_from_a_symmetrized_checkpoint(folder, tmp_path):
    model = tiny_classifier(noise_scale=0.3)
    path = save_checkpoint(model, LPSProcessor.from_config(model.config), tmp_path / "lps")
    again = prepare(folder, "--model_name_or_path", str(path), "--noise_scale", "0.9").model
    assert (again.config.noise_scale, again.config.num_eval_samples) == (0.3, 2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    again = prepare(folder, "--model_name_or_path", str(path), "--num_eval_samples", "5").model
    assert again.config.num_eval_samples == 5
    scratch = prepare(folder, "--model_name_or_path", str(path), from_scratch=True).model
    assert scratch.config.noise_scale == 0.3
    differing = [name for name, parameter in scratch.named_parameters() if not torch.equal(parameter, model.state_dict()[name])]
    assert any("backbone" in name for name in differing)


# --------------------------------------------------------------------------------------------------------------- the data


def test_splits_are_those_of_the_data_set(folder):
    task = prepare(folder)
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 30, "validation": 9, "test": 12}


def test_subsets_are_drawn_by_the_seed(folder):
    def numbers(*flags):
        splits = prepare(folder, *flags).splits
        return {split: [row["edge_index"] for row in rows] for split, rows in splits.items()}

    small = numbers("--max_train_samples", "10", "--max_eval_samples", "4")
    assert {split: len(rows) for split, rows in small.items()} == {"train": 10, "validation": 4, "test": 4}
    everything = numbers()
    assert all(row in everything[split] for split, rows in small.items() for row in rows)
    assert small == numbers("--max_train_samples", "10", "--max_eval_samples", "4")
    assert small != numbers("--max_train_samples", "10", "--max_eval_samples", "4", "--seed", "7")
    assert everything == numbers("--max_train_samples", "1000", "--max_eval_samples", "1000")


def test_a_fold_is_cut_from_the_train_split(folder):
    task = prepare(folder, "--fold", "2", "--num_folds", "5")
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 18, "validation": 6, "test": 6}
    other = prepare(folder, "--fold", "3", "--num_folds", "5")
    assert list(other.splits["test"]) == list(task.splits["validation"])
    reseeded = prepare(folder, "--fold", "2", "--num_folds", "5", "--seed", "1")
    assert list(reseeded.splits["test"]) != list(task.splits["test"])
    with pytest.raises(ValueError, match=r"^fold: expected 0 to num_folds - 1 with num_folds at least 3, got 10 of 10\.$"):
        prepare(folder, "--fold", "10")


def test_a_missing_split_is_named(folder, tmp_path):
    for split, missing, hint in (("train", "test", " Give --fold to cut one."), ("test", "train", "")):
        path = save_dataset(tmp_path / split, **{split: random_rows(10)})
        with pytest.raises(ValueError, match="expected a split") as caught:
            prepare(folder, "--dataset_name", path)
        assert str(caught.value) == f"dataset {path!r}: expected a split {missing!r}, got {split}.{hint}"


# ------------------------------------------------------------------------------------------------------------ the metrics


def test_the_baseline_is_that_of_the_rows_evaluated(folder, tmp_path):
    train, test = random_rows(20, num_labels=2), random_rows(10, 1)
    for number, row in enumerate(train):
        row["y"] = [int(number < 14)]
    for number, row in enumerate(test):
        row["y"] = [number % 2]
    path = save_dataset(tmp_path / "graphs", train=train, test=test)
    task = prepare(folder, "--dataset_name", path, "--max_eval_samples", "7", "--max_train_samples", "3")
    assert len(task.splits["test"]) == 7
    assert (task.metric, task.model.config.num_labels) == ("accuracy", 2)
    assert task.baseline["accuracy"] == pytest.approx(np.mean(np.ravel(task.splits["test"]["y"]) == 1))


@pytest.mark.parametrize(
    ("labels", "problem_type", "num_labels", "metric"),
    [
        (
            lambda number: [number % 2, int(number % 3 == 0), None if number == 4 else int(number > 5)],
            MULTI,
            3,
            "average_precision",
        ),
        (lambda number: [number / 4], REGRESSION, 1, "mae"),
        (lambda number: [number / 4, None if number == 3 else -1.0 * number], REGRESSION, 2, "mae"),
    ],
)
def test_the_metric_follows_from_the_labels(folder, tmp_path, labels, problem_type, num_labels, metric):
    parts = {}
    for seed, split in enumerate(("train", "test")):
        parts[split] = [{**row, "y": labels(number)} for number, row in enumerate(random_rows(12, seed))]
    task = prepare(folder, "--dataset_name", save_dataset(tmp_path / "graphs", **parts))
    assert (task.model.config.problem_type, task.model.config.num_labels, task.metric) == (problem_type, num_labels, metric)
    assert np.isfinite(task.baseline[metric])
    batch = task.processor(task.splits["test"], return_tensors="pt")
    outputs = task.model(**batch)
    assert outputs.loss.isfinite()
    from transformers.trainer_utils import EvalPrediction

    metrics = task.metrics_of("test")(EvalPrediction(outputs.logits.detach().numpy(), batch["labels"].numpy()))
    assert metrics.keys() == task.baseline.keys()
    assert np.isfinite(metrics[metric])


def test_real_features_make_a_model_of_real_features(folder, tmp_path):
    rows = random_rows(12)
    for row in rows:
        row["node_feat"] = [[0.5 * number] for number in range(row["num_nodes"])]
        row["edge_attr"] = [[0.1, 2.0] for _ in row["edge_index"][0]]
    task = prepare(folder, "--dataset_name", save_dataset(tmp_path / "graphs", train=rows, test=rows))
    assert task.model.config.inputs == {"node_features": "n 1", "edge_features": "n n 2"}
    batch = task.processor(task.splits["test"], return_tensors="pt")
    assert {"node_features", "edge_features"} <= set(batch)
    assert task.model(**batch).loss.isfinite()


def test_a_data_set_without_the_needed_columns_is_refused(folder, tmp_path):
    rows = [{"graph": row["edge_index"], "num_nodes": row["num_nodes"], "y": row["y"]} for row in random_rows(3)]
    path = save_dataset(tmp_path / "graphs", train=rows, test=rows)
    with pytest.raises(ValueError, match="expected the columns edge_index, num_nodes and y, got graph, num_nodes, y;"):
        prepare(folder, "--dataset_name", path)


def test_a_checkpoint_that_names_no_problem_takes_that_of_the_data(folder, tmp_path):
    model = tiny_classifier(problem_type=None)
    save_checkpoint(model, LPSProcessor.from_config(model.config), tmp_path / "model")
    task = prepare(folder, "--model_name_or_path", str(tmp_path / "model"))
    assert (task.metric, task.model.config.problem_type) == ("accuracy", SINGLE)


def test_a_checkpoint_with_too_few_labels_is_refused(folder, tmp_path):
    model = tiny_classifier(num_labels=2)
    save_checkpoint(model, LPSProcessor.from_config(model.config), tmp_path / "model")
    with pytest.raises(ValueError, match="model_name_or_path: expected a model with 3 labels for this data set, got one with 2"):
        prepare(folder, "--model_name_or_path", str(tmp_path / "model"))


def test_a_checkpoint_that_the_data_do_not_fit_is_refused_before_the_training(folder, tmp_path):
    model = tiny_classifier(max_nodes=7)
    save_checkpoint(model, LPSProcessor.from_config(model.config), tmp_path / "model")
    first = next(number for number, row in enumerate(random_rows(30)) if row["num_nodes"] == 8)
    with pytest.raises(ValueError, match=rf"split 'train', row {first}: num_nodes: expected at most max_nodes=7, got 8"):
        prepare(folder, "--model_name_or_path", str(tmp_path / "model"))


def test_whole_numbers_that_are_quantities(folder):
    task = prepare(folder, "--problem_type", "regression")
    assert (task.metric, task.model.config.num_labels) == ("mae", 1)
    assert set(task.baseline) == {"mae", "rmse"}


# ------------------------------------------------------------------------------------------------------------ the results


def test_a_report_that_fails_does_not_cost_the_training(folder, monkeypatch):
    task, (_, data_arguments, arguments) = prepare(folder), parse(folder)
    told = []
    monkeypatch.setattr(tasks.logger, "warning", told.append)
    data_arguments.report_rows = 0
    assert tasks.measure_sampling(task, data_arguments, arguments, 100.0) == {}
    monkeypatch.setattr(tasks, "sampling_report", lambda *rest, **options: torch.zeros(2) @ torch.zeros(3))
    data_arguments.report_rows = 4
    assert tasks.measure_sampling(task, data_arguments, arguments, 100.0) == {}
    assert len(told) == 1
    assert told[0].startswith("results.json: no figures against the number of samples, which could not be measured.")


def test_every_process_draws_with_the_same_variance_prior(folder, monkeypatch):
    prior, sent = {"variance": [0.5], "degrees_of_freedom": 3.0}, []
    monkeypatch.setattr(tasks, "sampling_report", lambda *rest, **options: {"samples": [], "variance_prior": prior})

    def broadcast(values):
        sent.append(values[0])
        values[:] = [prior]

    monkeypatch.setattr(tasks, "broadcast_object_list", broadcast)
    for process_index in (0, 1):
        task, (_, data_arguments, _) = prepare(folder), parse(folder, "--report_time_share", "inf")
        arguments = SimpleNamespace(process_index=process_index, seed=0, disable_tqdm=True)
        report = tasks.measure_sampling(task, data_arguments, arguments, 100.0)
        assert bool(report) == (process_index == 0)
        assert task.model.config.variance_prior == prior
    assert sent == [prior, None]


@pytest.mark.parametrize(
    ("flags", "train", "most"),
    [
        ((), 1000.0, 100.0),
        (("--report_time_share", "0.5"), 100.0, 50.0),
        (("--report_time_share", "inf"), 0.0, math.inf),
        ((), 10.0, 1.0),
        ((), 1e9, math.inf),
    ],
)
def test_a_report_takes_a_tenth_of_the_training_or_what_is_asked_for(folder, monkeypatch, flags, train, most):
    task, (_, data_arguments, arguments) = prepare(folder), parse(folder, *flags)
    asked = []
    monkeypatch.setattr(tasks, "sampling_report", lambda *rest, **options: asked.append(options) or {"samples": []})
    seconds_per_output = 0.1
    monkeypatch.setattr(tasks, "seconds_per_output", lambda *rest: seconds_per_output)
    monkeypatch.setattr(tasks.time, "perf_counter", lambda: 0.0)
    report = tasks.measure_sampling(task, data_arguments, arguments, train)
    (options,) = asked
    plan = ReportPlan(*(options[name] for name in ("num_rows", "num_draws", "counts", "backbone_elements")))
    whole = math.isinf(most)
    assert (plan.num_rows == 12) == whole == ("report_time_share" not in report)
    if not whole:
        smallest = plan_report(task.model.config, 12, 1.0, 0.0).num_outputs()
        assert plan.num_outputs() * seconds_per_output <= max(most, smallest * seconds_per_output)
        assert report["report_time_share"] == data_arguments.report_time_share


@pytest.mark.parametrize(
    ("flags", "backbone"),
    [((), "vit"), (("--from_scratch",), None)],
)
def test_results_name_folders_and_not_where_they_lie(folder, flags, backbone):
    task = prepare(folder, *flags)
    results = tasks.make_results(task, {"accuracy": 0.5}, [], 0, parse(folder)[2])
    assert (results["backbone"], results["dataset"]["name"], results["dataset"]["local"]) == (backbone, "graphs", True)
    assert str(folder) not in str(results)
    assert (results["train_loss_first"], results["num_train"], results["num_test"]) == (None, 30, 12)


def test_a_card_that_fails_does_not_cost_the_weights(folder, tmp_path, monkeypatch):
    task, arguments = prepare(folder), parse(folder, "--output_dir", str(tmp_path / "out"))[2]

    def fail(*arguments, **options):
        raise KeyError("a mistake in the card")

    monkeypatch.setattr("lps_hf.hub.checkpoints.make_model_card", fail)
    with pytest.raises(KeyError, match="a mistake in the card"):
        tasks.save_run(task, task.model, arguments, {"task": task.name})
    again, _ = load_checkpoint(tmp_path / "out")
    assert all(map(torch.equal, again.state_dict().values(), task.model.state_dict().values()))
