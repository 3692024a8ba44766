"""The callback that fills a model card while a model trains, with LPSTrainer and with transformers' own Trainer."""

import pytest
from huggingface_hub import ModelCard
from transformers import Trainer, TrainingArguments

from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.evaluation.metrics import compute_metrics_for
from lps_hf.hub.model_card import LPSModelCardData
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.callbacks import ModelCardCallback
from lps_hf.training.trainer import LPSTrainer
from tests.tiny import random_rows, tiny_classifier

compute_metrics = compute_metrics_for("graph-classification", "single_label_classification", 3)


def settings(folder, arguments_class=LPSTrainingArguments, **options):
    defaults = {"max_steps": 4, "logging_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no", "use_cpu": True}
    return arguments_class(output_dir=str(folder), report_to="none", disable_tqdm=True, seed=3, **{**defaults, **options})


def trainer(folder, kind=LPSTrainer, callbacks=None, **options):
    model = tiny_classifier()
    processor = LPSProcessor.from_config(model.config)
    given = {"processing_class": processor} if kind is LPSTrainer else {"data_collator": DataCollatorForGraphs(processor)}
    return kind(
        model=model,
        train_dataset=random_rows(6),
        eval_dataset=random_rows(5, seed=1),
        compute_metrics=compute_metrics,
        callbacks=callbacks,
        args=settings(folder, **options),
        **given,
    )


def test_training_fills_settings_budget_losses_and_metrics(tmp_path):
    training = trainer(tmp_path, learning_rate=1e-3, backbone_learning_rate=1e-4)
    training.train()
    metrics = training.evaluate(random_rows(7, seed=2), metric_key_prefix="test")
    results, losses = training.card_data.results, [e["loss"] for e in training.state.log_history if "loss" in e]
    assert results["training"]["learning_rate"] == 1e-3
    assert results["training"]["backbone_learning_rate"] == 1e-4
    assert results["training"]["train_batch_size"] == 2
    assert results["environment"]["device"] == "cpu"
    expected = {"num_train": 6, "num_test": 7, "steps": 4, "seed": 3, "num_eval_samples": 2, "dataset": {"split": "test"}}
    expected |= {"task": "graph-classification", "metric": "accuracy"}
    expected |= {"train_loss_first": losses[0], "train_loss_last": losses[-1]}
    assert {key: results[key] for key in expected} == expected
    assert len(losses) == 4
    assert results["test"] == {"loss": metrics["test_loss"], "accuracy": metrics["test_accuracy"]}


def test_create_model_card_writes_the_card_of_what_is_known(tmp_path):
    training = trainer(tmp_path)
    training.train()
    training.evaluate()
    training.card_data.license = "mit"
    training.create_model_card(model_name="mine", dataset_tags=["me/rows"], finetuned_from="me/vit", tags="molecules")
    card = ModelCard.load(tmp_path / "README.md")
    header = card.data.to_dict()
    assert (header["license"], header["base_model"], header["datasets"]) == ("mit", "me/vit", ["me/rows"])
    assert header["tags"][-1] == "molecules"
    accuracy = training.card_data.results["test"]["accuracy"]
    assert 0 < accuracy < 1
    assert card.text.strip().startswith("# mine\n\nA ViT of")
    assert f"Its accuracy is {accuracy:.2f} ± " in card.text
    assert "on 5 evaluation rows, with 2 samples for each" in card.text
    assert "| optimizer steps | 4 |" in card.text
    assert training.card_data.base_model is None  # given for this card only


def test_what_is_given_to_the_callback_stays(tmp_path):
    callback = ModelCardCallback(LPSModelCardData(license="mit", results={"dataset": {"name": "me/rows"}}))
    training = trainer(tmp_path, callbacks=[callback])
    assert sum(isinstance(one, ModelCardCallback) for one in training.callback_handler.callbacks) == 1
    assert training.card_data is callback.data
    training.evaluate()
    assert callback.data.results["dataset"] == {"name": "me/rows", "split": "evaluation"}
    assert callback.make_card(training.model).data.to_dict()["datasets"] == ["me/rows"]


def test_figures_of_a_report_do_not_outlive_the_weights_they_are_of(tmp_path):
    training = trainer(tmp_path)
    report = {"equivariance": {"relative_error": 0.123}, "samples": [{"num_samples": 1, "equivariance_error": 0.4}]}
    training.card_data.results.update(report)
    training.train()
    training.evaluate()
    training.create_model_card()
    assert "0.123" not in (tmp_path / "README.md").read_text()


def test_the_metrics_are_those_of_the_best_weights_where_these_are_loaded(tmp_path):
    # A learning rate that does harm: the first evaluation is the best one.
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1.0}
    training = trainer(tmp_path, load_best_model_at_end=True, metric_for_best_model="loss", max_steps=3, **options)
    training.train()
    losses = {e["step"]: e["eval_loss"] for e in training.state.log_history if "eval_loss" in e}
    assert min(losses, key=losses.get) != 3
    assert training.card_data.results["test"]["loss"] == min(losses.values())
    assert training.card_data.results["steps"] == 3


def test_a_resumed_training_tells_the_first_loss_of_all(tmp_path):
    first = trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=2)
    first.train()
    resumed = trainer(tmp_path, save_strategy="no", max_steps=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.card_data.results["train_loss_first"] == first.state.log_history[0]["loss"]
    assert resumed.card_data.results["train_loss_last"] != first.card_data.results["train_loss_last"]


def test_transformers_own_trainer_fills_the_same_card(tmp_path):
    callback = ModelCardCallback()
    options = {"arguments_class": TrainingArguments, "remove_unused_columns": False, "dataloader_pin_memory": False}
    training = trainer(tmp_path, Trainer, callbacks=[callback], **options)
    training.train()
    training.evaluate()
    card = callback.make_card(training.model)
    accuracy = callback.data.results["test"]["accuracy"]
    assert f"| accuracy ↑ | {accuracy:.3f} |" in card.text
    assert "| training rows | 6 |" in card.text
    assert "learning rate of the backbone" not in card.text


def test_before_a_push_the_card_lies_in_the_output_folder(tmp_path):
    callback = ModelCardCallback()
    training = trainer(tmp_path, callbacks=[callback])
    callback.on_push_begin(training.args, training.state, training.control, model=training.model)
    assert "# Symmetrized ViT for graph classification" in (tmp_path / "README.md").read_text()


def test_without_the_callback_the_trainer_says_what_is_missing(tmp_path):
    training = trainer(tmp_path)
    training.remove_callback(ModelCardCallback)
    with pytest.raises(ValueError, match=r"expected a ModelCardCallback, which has been removed. Add one with add_callback."):
        _ = training.card_data
