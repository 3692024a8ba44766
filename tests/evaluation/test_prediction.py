"""Predictions of rows and metrics of a split, without a Trainer."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from lps_hf.data.rows import TASK_COLUMNS, with_all_pairs
from lps_hf.evaluation.metrics import compute_metrics_for
from lps_hf.evaluation.prediction import evaluate, predict, task_of
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.trainer import LPSTrainer
from tests.task_cases import CASES, task_case
from tests.tiny import random_rows, tiny_classifier

EACH_TASK = pytest.mark.parametrize("task", CASES)


@EACH_TASK
def test_the_figures_are_those_of_the_trainer_bit_for_bit(task, tmp_path):
    model, processor, rows = task_case(task, distribution="haar")
    config = model.config
    if task == "link-prediction":
        rows = list(map(with_all_pairs, rows))
    arguments = LPSTrainingArguments(
        str(tmp_path), per_device_eval_batch_size=4, seed=3, use_cpu=True, disable_tqdm=True, report_to="none"
    )
    trainer = LPSTrainer(
        model=model,
        args=arguments,
        processing_class=processor,
        compute_metrics=compute_metrics_for(task, config.problem_type, config.num_labels, rows=rows),
    )
    data = rows if task == "image-classification" else Dataset.from_list(rows)
    expected = trainer.evaluate(data)
    found = evaluate(model, processor, data, task, batch_size=4, seed=3)
    assert found == {key: expected[f"eval_{key}"] for key in found}
    assert evaluate(model, processor, data, task, batch_size=4, seed=4)["loss"] != found["loss"]  # another draw
    assert found.keys() >= {key.removeprefix("eval_") for key in expected} - {
        *("epoch", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time"),
    }
    assert evaluate(model, processor, data, task, batch_size=4, seed=4)["loss"] != found["loss"]
    assert evaluate(model, processor, iter(rows), task, batch_size=4, seed=3) == found


@EACH_TASK
def test_predictions_have_the_rows_own_sizes(task):
    model, processor, rows = task_case(task, distribution="haar")
    found = predict(model, processor, rows, batch_size=4)
    assert len(found) == len(rows) == len(found.standard_error) == len(found.labels)
    assert found.num_samples.tolist() == [3] * len(rows)
    alone = processor(rows[:1], return_tensors="pt")
    outputs = model(**alone, generator=torch.Generator().manual_seed(0))
    for number, row in enumerate(rows):
        expected = {
            "node-classification": lambda row: (row["num_nodes"], 2),
            "link-prediction": lambda row: (len(row["edge_label"]),),
            "particle-dynamics": lambda row: np.shape(row["positions"]),
        }.get(task, lambda row: tuple(outputs.logits.shape[1:]))(row)
        assert found.logits[number].shape == found.standard_error[number].shape == expected
        assert (found.standard_error[number] > 0).all()
    first = predict(model, processor, rows[:1])
    np.testing.assert_array_equal(first.logits[0], outputs.logits[0].detach().numpy())
    np.testing.assert_array_equal(first.labels[0], alone["labels"][0].numpy())


@EACH_TASK
def test_a_head_knows_its_task(task):
    model, *_ = task_case(task)
    assert task_of(model) == task_of(model.config) == task
    assert task in TASK_COLUMNS


def test_links_of_all_pairs_are_cut_in_both_directions():
    model, processor, rows = task_case("link-prediction")
    plain = [{key: value for key, value in row.items() if not key.startswith("edge_label")} for row in rows]
    found = predict(model, processor, plain, batch_size=10)
    assert [logits.shape for logits in found.logits] == [(row["num_nodes"],) * 2 for row in rows]
    assert found.labels is None
    assert found.loss is None
    given = predict(model, processor, rows, batch_size=10)
    for row, pairs, scores in zip(rows, given.logits, found.logits, strict=True):
        np.testing.assert_allclose(scores[tuple(row["edge_label_index"])], pairs, rtol=1e-5, atol=1e-6)


def test_as_many_samples_as_the_error_bar_asks_for():
    model = tiny_classifier(distribution="haar", max_eval_samples=60, min_eval_samples=20)
    processor, rows = LPSProcessor.from_config(model.config), random_rows(12)
    loose = predict(model, processor, rows, num_samples="auto", tolerance=0.5)
    assert set(loose.num_samples) == {20}
    tight = predict(model, processor, rows, num_samples="auto", tolerance=1e-9)
    assert set(tight.num_samples) == {60}
    middle = float(np.median([np.max(error) for error in loose.standard_error])) / 4
    some = predict(model, processor, rows, num_samples="auto", tolerance=middle)
    assert 20 <= some.num_samples.min() < some.num_samples.max() <= 60
    assert evaluate(model, processor, rows, "graph-classification", num_samples="auto")["accuracy"] <= 1


def test_the_number_of_samples_of_an_exact_average_is_its_own():
    model = tiny_classifier(distribution="none", num_eval_samples=5)
    found = predict(model, LPSProcessor.from_config(model.config), random_rows(3))
    assert found.num_samples.tolist() == [1, 1, 1]
    assert found.standard_error is None


def test_the_model_is_left_as_it_was():
    model, processor = tiny_classifier(), LPSProcessor.from_config(tiny_classifier().config)
    for training in (True, False):
        model.train(training)
        before = torch.random.get_rng_state()
        predict(model, processor, random_rows(3))
        assert model.training is training
        assert torch.equal(torch.random.get_rng_state(), before)


def test_progress_is_shown_on_stderr_on_demand(capsys):
    model = tiny_classifier()
    processor = LPSProcessor.from_config(model.config)
    predict(model, processor, random_rows(3))
    assert capsys.readouterr() == ("", "")
    predict(model, processor, random_rows(3), progress=True)
    output = capsys.readouterr()
    assert output.out == ""
    assert "Predicting" in output.err
    assert "3/3" in output.err


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rows": []}, ValueError, r"^rows: expected at least one row, got none\.$"),
        ({"rows": iter([])}, ValueError, r"^rows: expected at least one row, got none\.$"),
        ({"batch_size": 0}, ValueError, "^batch_size: expected at least 1, got 0"),
        ({"batch_size": 2.5}, TypeError, "^batch_size: expected an int, got float"),
        ({"num_samples": 0}, ValueError, "^num_samples: expected at least 1, got 0"),
        ({"num_samples": "many"}, TypeError, "^num_samples: expected an int, got str"),
        ({"tolerance": -1.0, "num_samples": "auto"}, ValueError, "^tolerance: expected a positive number"),
        ({"model": torch.nn.Linear(1, 1)}, TypeError, "^model: expected a head such as LPSForGraphClassification, got Linear"),
    ],
)
def test_bad_arguments_of_predictions_get_a_sentence(change, error, message):
    model = tiny_classifier()
    arguments = {"model": model, "processor": LPSProcessor.from_config(model.config), "rows": random_rows(2), **change}
    with pytest.raises(error, match=message):
        predict(arguments.pop("model"), arguments.pop("processor"), arguments.pop("rows"), **arguments)


def test_bad_arguments_of_evaluations_get_a_sentence():
    model = tiny_classifier()
    processor, rows = LPSProcessor.from_config(model.config), random_rows(4)
    with pytest.raises(ValueError, match=r"^task: expected 'graph-classification', which LPSForGraphClassification was made for"):
        evaluate(model, processor, rows, "node-classification")
    with pytest.raises(ValueError, match="^task: expected one of .* got 'graphs'"):
        evaluate(model, processor, rows, "graphs")
    unlabelled = [{key: value for key, value in row.items() if key != "y"} for row in rows]
    with pytest.raises(ValueError, match=r"^rows: expected a label in each of them \('y'\), got rows without"):
        evaluate(model, processor, unlabelled, "graph-classification")
    with pytest.raises(ValueError, match=r"^rows: expected a label in each of them"):
        evaluate(model, processor, rows + unlabelled, "graph-classification", batch_size=4)
    with pytest.raises(ValueError, match=r"^rows: expected a label \('y'\) in some of them, got missing ones alone"):
        evaluate(model, processor, [{**row, "y": None} for row in rows], "graph-classification")
    with pytest.raises(TypeError, match="^model_or_config: expected a head of lps_hf or its LPSConfig, got int"):
        task_of(3)
    with pytest.raises(ValueError, match="^model: expected a head such as LPSForGraphClassification, got LPSModel"):
        task_of(LPSModel(model.config))
