"""What Trainers hand on: the logits alone, inputs that can be joined, and counts of tokens."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.evaluation.metrics import compute_metrics_for
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import LPSTaskOutput
from lps_hf.models.modeling_lps import LPSModelOutput
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.trainer import LPSTrainer
from tests.task_cases import CASES, task_case
from tests.tiny import random_rows, tiny_classifier

TRAINERS = pytest.mark.parametrize("trainer_class", [Trainer, LPSTrainer])
TASKS = pytest.mark.parametrize("task", CASES)
MAIN_INPUTS = {
    "graph-classification": "node_categories",
    "node-classification": "node_categories",
    "link-prediction": "node_categories",
    "particle-dynamics": "positions",
    "molecule-regression": "positions",
    "point-cloud-classification": "positions",
    "image-classification": "pixel_values",
}


def make(trainer_class, folder, model, rows, compute_metrics=None, processor=None, **options):
    arguments = LPSTrainingArguments if trainer_class is LPSTrainer else TrainingArguments
    own = {"processing_class": LPSProcessor.from_config(model.config)} if trainer_class is LPSTrainer else {}
    return trainer_class(
        model=model,
        args=arguments(
            str(folder),
            per_device_eval_batch_size=3,
            per_device_train_batch_size=3,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            **{"remove_unused_columns": False, "dataloader_pin_memory": False, **options},
        ),
        data_collator=DataCollatorForGraphs(processor or LPSProcessor.from_config(model.config)),
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=compute_metrics,
        **own,
    )


def seen_by_metrics(trainer_class, folder, model, rows, **options):
    seen = []
    trainer = make(trainer_class, folder, model, rows, lambda prediction: seen.append(prediction) or {"a": 0.0}, **options)
    output = trainer.predict(rows)
    trainer.evaluate()
    return seen, output


@pytest.mark.parametrize(("output", "kept"), [(LPSTaskOutput, {"loss", "logits"}), (LPSModelOutput, {"output"})])
def test_all_of_an_output_but_loss_and_prediction_is_left_behind(output, kept):
    names = {field.name for field in fields(output)}
    assert names - set(LPSConfig.keys_to_ignore_at_inference) == kept


@TRAINERS
@TASKS
def test_predictions_are_the_logits_alone_and_line_up_with_the_labels(tmp_path, task, trainer_class):
    model, processor, rows = task_case(task)
    seen, output = seen_by_metrics(trainer_class, tmp_path, model, rows, processor=processor)
    assert len(seen) == 2
    for predictions, labels in [*((one.predictions, one.label_ids) for one in seen), (output.predictions, output.label_ids)]:
        assert isinstance(predictions, np.ndarray)
        assert len(predictions) == len(labels) == len(rows)
        if task in ("node-classification", "link-prediction", "particle-dynamics"):
            assert predictions.shape[:2] == labels.shape[:2]
    assert make(trainer_class, tmp_path, model, rows, prediction_loss_only=True).predict(rows).predictions is None


@TRAINERS
def test_the_usual_code_masks_nodes_that_are_not_there(tmp_path, trainer_class):
    model, processor, rows = task_case("node-classification")
    sizes = [row["num_nodes"] for row in rows]
    assert len(set(sizes)) > 1
    _, output = seen_by_metrics(trainer_class, tmp_path, model, rows, processor=processor)
    known = output.label_ids != -100
    assert known.sum(axis=1).tolist() == sizes
    share = (np.argmax(output.predictions, axis=-1) == output.label_ids)[known].mean()
    metrics = compute_metrics_for("node-classification", None, model.config.num_labels)(output)
    assert metrics["accuracy"] == pytest.approx(share)


@TRAINERS
@TASKS
def test_inputs_of_different_sizes_are_joined(tmp_path, task, trainer_class):
    model, processor, rows = task_case(task)
    assert model.main_input_name == model.lps.main_input_name == MAIN_INPUTS[task]
    seen, _ = seen_by_metrics(trainer_class, tmp_path, model, rows, processor=processor, include_for_metrics=["inputs"])
    inputs = seen[0].inputs
    assert len(inputs) == len(rows)
    if task != "image-classification":
        whole = processor(rows, return_tensors="np")[MAIN_INPUTS[task]]
        assert inputs.shape == whole.shape
        mask = processor(rows, return_tensors="np")["node_mask"]
        np.testing.assert_array_equal(inputs[mask], whole[mask])
        assert set(np.unique(inputs[~mask])) <= {-100, 0}


def test_nodes_without_features_are_told_by_their_mask(tmp_path):
    model = tiny_classifier(node_categories=None, edge_categories=None)
    rows = [{"edge_index": [[0], [1]], "num_nodes": size, "y": 0} for size in (2, 2, 3, 4, 5)]
    seen, _ = seen_by_metrics(LPSTrainer, tmp_path, model, rows, include_for_metrics=["inputs"])
    assert (seen[0].inputs == 1).sum(axis=1).tolist() == [2, 2, 3, 4, 5]
    assert set(np.unique(seen[0].inputs)) == {-100, 0, 1}
    seen, _ = seen_by_metrics(Trainer, tmp_path, model, rows, include_for_metrics=["inputs"])
    assert seen[0].inputs.shape == (5, 5)


@TRAINERS
@TASKS
def test_tokens_are_counted(tmp_path, task, trainer_class):
    model, processor, rows = task_case(task)
    trainer = make(trainer_class, tmp_path, model, rows, processor=processor, include_num_input_tokens_seen="all")
    trainer._track_num_input_tokens(trainer.data_collator(rows))
    seen = trainer.state.num_input_tokens_seen
    assert seen > 0
    if trainer_class is LPSTrainer and task != "image-classification":
        sizes = [row.get("num_nodes") or len(row["positions"]) for row in rows]
        assert seen == len(rows) * max(sizes)
        trainer.args.include_num_input_tokens_seen = "non_padding"
        trainer._track_num_input_tokens(trainer.data_collator(rows))
        assert trainer.state.num_input_tokens_seen - seen == sum(sizes)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"node_categories": [3]}, "node_categories"),
        ({"inputs": {"node_features": "n 4", "edge_features": "n n 1"}}, "node_features"),
        ({"inputs": {"node_features": "n 1", "edge_features": "n n 3"}}, "edge_features"),
        ({"edge_categories": [3]}, "edge_categories"),
        ({"inputs": {"edge_features": "n n 1"}, "distribution": "haar"}, "node_mask"),
        ({"group": "O(3)", "inputs": {"velocities": "n v"}}, "velocities"),
        ({"inputs": {"node_features": "n 1", "charges": "n 1"}}, "charges"),
    ],
)
def test_the_main_input_follows_from_the_inputs(options, name):
    assert tiny_classifier(**{"node_categories": None, "edge_categories": None, **options}).main_input_name == name


def test_the_error_bar_is_behind_an_option(tmp_path):
    model, rows = tiny_classifier(num_eval_samples=4), random_rows(7)
    seen = []
    trainer = make(LPSTrainer, tmp_path, model, rows, lambda prediction: seen.append(prediction.predictions) or {"a": 0.0})
    plain = trainer.predict(rows)
    logits, errors = trainer.predict(rows, with_standard_error=True).predictions
    np.testing.assert_array_equal(logits, plain.predictions)
    np.testing.assert_array_equal(seen[1], plain.predictions)
    assert errors.shape == logits.shape
    assert (errors >= 0).all()
    assert (errors > 0).any()
    assert isinstance(trainer.predict(rows).predictions, np.ndarray)
    assert trainer.compute_metrics(plain) == {"a": 0.0}


def test_a_wrapped_model_hands_on_its_logits_alone(tmp_path):
    model, rows = tiny_classifier(), random_rows(4)
    trainer = make(LPSTrainer, tmp_path, model, rows)
    plain = trainer.predict(rows).predictions
    trainer.model = trainer.model_wrapped = torch.nn.DataParallel(model)
    np.testing.assert_array_equal(trainer.predict(rows).predictions, plain)


def test_where_there_is_no_error_bar_it_is_nan(tmp_path):
    trainer = make(LPSTrainer, tmp_path, tiny_classifier(num_eval_samples=1), random_rows(4))
    trainer.preprocess_logits_for_metrics = lambda logits, labels: logits.argmax(-1)
    classes, errors = trainer.predict(random_rows(4), with_standard_error=True).predictions
    assert classes.shape == (4,)
    assert np.isnan(errors).all()


def test_more_keys_can_be_ignored_and_none_comes_back(tmp_path):
    trainer = make(LPSTrainer, tmp_path, tiny_classifier(), random_rows(4))
    assert isinstance(trainer.predict(random_rows(4), ["hidden_states"]).predictions, np.ndarray)


def test_scores_of_all_pairs_of_graphs_of_different_sizes_are_joined(tmp_path):
    model, processor, rows = task_case("link-prediction")
    rows = [{key: value for key, value in row.items() if not key.startswith("edge_label")} for row in rows]
    most = model.config.max_nodes
    trainer = make(LPSTrainer, tmp_path, model, rows, processor=processor)
    logits, errors = trainer.predict(rows, with_standard_error=True).predictions
    assert logits.shape == errors.shape == (len(rows), max(row["num_nodes"] for row in rows), most)
    for scores, row in zip(logits, rows, strict=True):
        assert (scores[: row["num_nodes"], : row["num_nodes"]] != -100).all()
    collator = DataCollatorForGraphs(processor, pad_to_multiple_of=most)
    plain = make(Trainer, tmp_path, model, rows)
    plain.data_collator = collator
    assert plain.predict(rows).predictions.shape == (len(rows), most, most)


def test_what_a_trainer_reads_survives_saving(tmp_path):
    model = tiny_classifier()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config.keys_to_ignore_at_inference == LPSConfig.keys_to_ignore_at_inference
    assert again.main_input_name == "node_categories"


@pytest.mark.parametrize("task", ["particle-dynamics", "graph-classification", "image-classification"])
def test_our_trainer_never_drops_columns(tmp_path, task):
    model, processor, rows = task_case(task)
    trainer = make(LPSTrainer, tmp_path, model, Dataset.from_list(rows), remove_unused_columns=True, processor=processor)
    trainer.args.max_steps = 1
    trainer.train()
    assert "eval_loss" in trainer.evaluate()
    assert trainer.args.remove_unused_columns is False
    bare = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    assert LPSTrainer(model, bare, processing_class=processor).args.remove_unused_columns is False
    assert LPSTrainer(model, bare.__class__(str(tmp_path), report_to="none", use_cpu=True)).args.remove_unused_columns is True


@pytest.mark.parametrize("task", [task for task in CASES if task not in ("particle-dynamics", "point-cloud-classification")])
def test_what_a_plain_trainer_drops_is_named(tmp_path, task):
    model, processor, rows = task_case(task)
    trainer = make(Trainer, tmp_path, model, Dataset.from_list(rows), processor=processor, remove_unused_columns=True)
    with pytest.raises(ValueError, match=r"expected the key .*If a Trainer dropped it, set remove_unused_columns=False\.$"):
        trainer.evaluate()


@pytest.mark.parametrize("task", ["particle-dynamics", "point-cloud-classification"])
def test_labels_that_a_plain_trainer_drops_are_missed(tmp_path, task, monkeypatch):
    said = []
    monkeypatch.setattr("lps_hf.data.collator.logger.warning_once", said.append)
    model, processor, rows = task_case(task)
    make(Trainer, tmp_path, model, Dataset.from_list(rows), processor=processor).evaluate()
    assert not said
    make(Trainer, tmp_path, model, Dataset.from_list(rows), processor=processor, remove_unused_columns=True).evaluate()
    assert "set remove_unused_columns=False" in said[0]


def test_masks_stay_masks_where_inputs_are_not_asked_for(tmp_path):
    model, processor, rows = task_case("graph-classification")
    trainer = make(LPSTrainer, tmp_path, model, rows, processor=processor)
    batch = trainer.data_collator(rows[:3])
    trainer.prediction_step(model, batch, False)
    assert batch["node_mask"].dtype == torch.bool
