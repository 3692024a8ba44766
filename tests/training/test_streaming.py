"""Training on a stream: the same flags, the model's sizes from the first rows, the test split whole."""

import datasets
import pytest
import torch
from datasets import IterableDataset

from lps_hf.training.accelerate_run import run_with_accelerate
from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.task_arguments import parse_arguments
from lps_hf.training.tasks import make_results, prepare_task
from lps_hf.training.trainer import LPSTrainer
from tests.tiny import random_rows, save_dataset, save_tiny_vit, tiny_classifier


@pytest.fixture(autouse=True)
def _datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    # It waits five seconds for its threads at the end of each shuffled pass.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


@pytest.fixture
def flags(tmp_path):
    save_tiny_vit(tmp_path / "vit")
    save_dataset(tmp_path / "graphs", train=random_rows(30), test=random_rows(12, 2))
    flags = ["--dataset_name", tmp_path / "graphs", "--backbone_name_or_path", tmp_path / "vit", "--output_dir", tmp_path / "out"]
    return [*map(str, flags), "--report_to", "none", "--use_cpu", "--streaming", "--disable_tqdm", "True"]


def prepare(flags, *more):
    return prepare_task("graph-classification", *parse_arguments([*flags, "--max_steps", "9", *more]))


def test_a_model_trains_on_a_stream_for_several_epochs(flags):
    task = prepare(flags, "--num_first_rows", "10", "--per_device_train_batch_size", "8", "--logging_steps", "1")
    assert isinstance(task.splits["train"], IterableDataset)
    assert (task.model.config.max_nodes, task.model.config.num_labels) == (8, 3)
    assert task.baseline["accuracy"] == pytest.approx(1 / 3)
    arguments = parse_arguments([*flags, "--max_steps", "9", "--per_device_train_batch_size", "8"])[2]
    trainer = LPSTrainer(task.model, arguments, processing_class=task.processor, train_dataset=task.splits["train"])
    weights = {name: parameter.detach().clone() for name, parameter in task.model.named_parameters()}
    trainer.train()
    assert trainer.state.global_step == 9  # the stream has four batches
    assert [name for name, value in task.model.named_parameters() if not torch.equal(value, weights[name])]
    trainer.compute_metrics = task.metrics_of("test")
    assert 0 <= trainer.evaluate(task.splits["test"])["eval_accuracy"] <= 1
    results = make_results(task, {}, [], 9, arguments)
    assert "num_train" not in results
    assert results["num_test"] == 12


def test_sizes_that_are_given_count(flags):
    config = prepare(flags, "--max_nodes", "20", "--node_categories", "5", "6", "--edge_categories", "4").model.config
    assert (config.max_nodes, config.node_categories, config.edge_categories) == (20, [5, 6], [4])


def test_the_rows_that_are_evaluated_are_those_without_a_stream(flags):
    plain = [flag for flag in flags if flag != "--streaming"]
    streamed, whole = (prepare(given, "--max_eval_samples", "5").splits["test"] for given in (flags, plain))
    assert list(streamed) == list(whole)


def test_what_a_stream_cannot_do_is_refused(flags):
    with pytest.raises(ValueError, match=r"max_steps: expected the number of steps of a streamed run.*Give --max_steps"):
        parse_arguments(flags)
    with pytest.raises(ValueError, match="fold: expected none with --streaming"):
        parse_arguments([*flags, "--max_steps", "2", "--fold", "1"])
    with pytest.raises(ValueError, match="num_first_rows: expected at least 1, got 0"):
        parse_arguments([*flags, "--max_steps", "2", "--num_first_rows", "0"])
    with pytest.raises(ValueError, match=r"streaming: .* Use the script without _no_trainer"):
        run_with_accelerate("graph-classification", [*flags, "--max_steps", "2"])


def test_grouping_by_length_leaves_a_stream_as_it_is(tmp_path):
    model = tiny_classifier()
    from lps_hf.models.processing_lps import LPSProcessor

    arguments = LPSTrainingArguments(
        str(tmp_path), max_steps=2, report_to="none", use_cpu=True, train_sampling_strategy="group_by_length", disable_tqdm=True
    )
    stream = datasets.Dataset.from_list(random_rows(20)).to_iterable_dataset().with_format("arrow")
    trainer = LPSTrainer(model, arguments, processing_class=LPSProcessor.from_config(model.config), train_dataset=stream)
    assert trainer.train().global_step == 2
