"""Predicting and measuring leave the random states that all share as they were, and say the same whatever these are."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from lps_hf import symmetrize
from lps_hf.cli.main import main
from lps_hf.evaluation.error_bars import calibrate_error_bars
from lps_hf.evaluation.prediction import evaluate, predict
from lps_hf.evaluation.sampling_report import sampling_report
from lps_hf.hub.loading import load_checkpoint
from lps_hf.models.pipeline_lps import GraphClassificationPipeline
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.random_state import unchanged_random_state
from lps_hf.testing import assert_equivariant, equivariance_error
from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.trainer import LPSTrainer
from tests.task_cases import task_case
from tests.tiny import random_rows, save_dataset, save_tiny_vit, tiny_classifier


def states() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), kind, keys.tolist(), rest, torch.get_rng_state().tolist()


@pytest.fixture(scope="module")
def parts():
    model = tiny_classifier()
    return model, LPSProcessor.from_config(model.config), random_rows(4)


def pipeline_of(parts) -> GraphClassificationPipeline:
    return GraphClassificationPipeline(model=parts[0], processor=parts[1])


def with_trainer(parts, method: str) -> Callable[[], Any]:
    model, processor, rows = parts
    arguments = LPSTrainingArguments("unused", report_to="none", use_cpu=True, disable_tqdm=True)
    trainer = LPSTrainer(model=model, args=arguments, processing_class=processor)
    if method == "predict":
        return lambda: trainer.predict(Dataset.from_list(rows)).metrics["test_loss"]
    return lambda: trainer.evaluate(Dataset.from_list(rows))["eval_loss"]


def equivariance_of_particles(parts) -> Callable[[], Any]:
    model, processor, rows = task_case("particle-dynamics")
    batch = processor(rows[:2], return_tensors="pt")
    return lambda: equivariance_error(model, batch, num_group_elements=2)


def calibration_of_a_module(parts) -> Callable[[], Any]:
    module, x = symmetrize(torch.nn.Linear(3, 3), "SO(3)", "v", "v"), torch.eye(3)
    return lambda: module.calibrate(x, num_samples=32).variance


ACTIONS = {
    "pipeline": lambda parts: lambda: pipeline_of(parts)(parts[2]),
    "pipeline, streamed": lambda parts: lambda: list(pipeline_of(parts)(iter(parts[2]))),
    "pipeline, auto": lambda parts: lambda: pipeline_of(parts)(parts[2], num_samples="auto", tolerance=1.0),
    "predict": lambda parts: lambda: predict(*parts).logits[0].tolist(),
    "evaluate": lambda parts: lambda: evaluate(*parts, "graph-classification"),
    "Trainer.predict": lambda parts: with_trainer(parts, "predict"),
    "Trainer.evaluate": lambda parts: with_trainer(parts, "evaluate"),
    "equivariance_error": lambda parts: lambda: equivariance_error(parts[0], parts[1](parts[2], return_tensors="pt"), 2),
    "equivariance_error, coupled": lambda parts: (
        lambda: equivariance_error(parts[0], parts[1](parts[2], return_tensors="pt"), 2, coupled=True)
    ),
    "equivariance_error, of particles": equivariance_of_particles,
    "assert_equivariant": lambda parts: lambda: assert_equivariant(parts[0], parts[1](parts[2], return_tensors="pt")),
    "calibrate_error_bars": lambda parts: (
        lambda: calibrate_error_bars(copy.deepcopy(parts[0]), *parts[1:], num_samples=16).variance
    ),
    "Symmetrized.calibrate": calibration_of_a_module,
    "sampling_report": lambda parts: (
        lambda: sampling_report(*parts, "graph-classification", num_rows=2, num_draws=2, max_samples=2)["equivariance"]
    ),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_no_state_is_changed_and_none_matters(parts, name):
    action = ACTIONS[name](parts)
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = states()
        results.append(action())
        assert states() == before
    assert results[0] == results[1]


def test_neither_loading_nor_the_command_line_changes_them(tmp_path, capsys):
    backbone = save_tiny_vit(tmp_path / "vit")
    dataset = save_dataset(tmp_path / "data", train=random_rows(6), test=random_rows(4))
    made = str(tmp_path / "made")
    before = states()
    assert main(["symmetrize", backbone, made, "--dataset_name", dataset, "--grid_size", "3", "--set", "num_eval_samples=2"]) == 0
    load_checkpoint(made)
    assert main(["evaluate", made, dataset, "--json"]) == 0
    first = capsys.readouterr().out
    assert states() == before
    torch.manual_seed(5)
    assert main(["evaluate", made, dataset, "--json"]) == 0
    assert capsys.readouterr().out == first[first.index("{") :]


def test_the_state_comes_back_after_an_error_too():
    before = states()
    draw = unchanged_random_state()(lambda: (torch.rand(1), np.random.rand(1), random.random(), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        draw()
    assert states() == before


def test_a_model_alone_draws_from_the_shared_state(parts):
    model, processor, rows = parts
    batch = processor(rows, return_tensors="pt")
    torch.manual_seed(0)
    first, second = model(**batch).logits, model(**batch).logits
    torch.manual_seed(0)
    assert torch.equal(first, model(**batch).logits)
    assert not torch.equal(first, second)
