"""Trainers: transformers' own with our collator, and `LPSTrainer` with all that it adds."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainingArguments

from lps_hf.data import DataCollatorForGraphs
from lps_hf.evaluation.metrics import compute_metrics_for
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.trainer import LPSTrainer, set_backbone_learning_rate
from tests.tiny import random_rows, tiny_classifier

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
TRAIN, TEST = random_rows(24), random_rows(10, seed=1)


def make_trainer(folder, model=None, train_dataset=TRAIN, eval_dataset=TEST, compute_metrics=None, **options):
    """An `LPSTrainer` of four steps on the CPU; the model is always the same one, unless it is given."""
    defaults = {
        "max_steps": 4,
        "per_device_train_batch_size": 6,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    arguments = LPSTrainingArguments(
        output_dir=str(folder), report_to="none", use_cpu=True, disable_tqdm=True, **{**defaults, **options}
    )
    model = tiny_classifier() if model is None else model
    return LPSTrainer(
        model=model,
        args=arguments,
        processing_class=LPSProcessor.from_config(model.config),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        compute_metrics=compute_metrics
        or compute_metrics_for("graph-classification", model.config.problem_type, model.config.num_labels),
    )


def weights_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same_weights(left, right, atol=0.0):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def logged(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


# -------------------------------------------------------------------------------------------------- the plain Trainer


def test_transformers_own_trainer_trains_and_evaluates(tmp_path):
    model = tiny_classifier()
    before = weights_of(model)
    processor = LPSProcessor.from_config(model.config)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        max_steps=30,
        per_device_train_batch_size=12,
        learning_rate=3e-3,
        logging_steps=10,
        eval_strategy="steps",
        eval_steps=15,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=DataCollatorForGraphs(processor),
        train_dataset=Dataset.from_list(TRAIN),
        eval_dataset=Dataset.from_list(TEST),
        compute_metrics=compute_metrics_for("graph-classification", SINGLE, 3),
    )
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[-1] < losses[0]
    assert len(logged(trainer, "eval_accuracy")) == len(logged(trainer, "eval_loss")) == 2
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} <= changed


def test_the_collator_is_made_from_the_processor_unless_it_is_given(tmp_path):
    trainer = make_trainer(tmp_path)
    assert isinstance(trainer.data_collator, DataCollatorForGraphs)
    assert trainer.data_collator.processor is trainer.processing_class
    collator = DataCollatorForGraphs(trainer.processing_class, pad_to_multiple_of=4)
    again = LPSTrainer(trainer.model, trainer.args, data_collator=collator, processing_class=trainer.processing_class)
    assert again.data_collator is collator


def test_a_collator_in_third_place_is_taken(tmp_path):
    model = tiny_classifier()
    processor = LPSProcessor.from_config(model.config)
    arguments, collator = LPSTrainingArguments(str(tmp_path), report_to="none", use_cpu=True), DataCollatorForGraphs(processor)
    assert LPSTrainer(model, arguments, collator, processing_class=processor).data_collator is collator


def test_transformers_own_arguments_will_do(tmp_path):
    arguments = TrainingArguments(
        output_dir=str(tmp_path), remove_unused_columns=False, max_steps=1, report_to="none", use_cpu=True, disable_tqdm=True
    )
    model = tiny_classifier()
    processor = LPSProcessor.from_config(model.config)
    trainer = LPSTrainer(model, arguments, processing_class=processor, train_dataset=TRAIN, eval_dataset=TEST)
    trainer.train()
    assert len(trainer.optimizer.param_groups) == 2
    assert trainer.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"]


# ------------------------------------------------------------------------------------------------------ learning rates


def test_every_parameter_has_its_learning_rate_and_its_decay(tmp_path):
    trainer = make_trainer(tmp_path, backbone_learning_rate=2e-5, weight_decay=0.1)
    optimizer = trainer.create_optimizer()
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    backbone = {id(parameter) for parameter in trainer.model.backbone_parameters()}
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(groups)
    kinds = set()
    for name, parameter in trainer.model.named_parameters():
        group = groups.pop(id(parameter))
        assert group["lr"] == (2e-5 if id(parameter) in backbone else 1e-3), name
        assert group["weight_decay"] == (0.1 if name in decayed else 0.0), name
        assert (id(parameter) in backbone) == ("backbone" in name), name
        kinds.add((group["lr"], group["weight_decay"]))
    assert not groups
    assert len(kinds) == len(optimizer.param_groups) == 4
    assert trainer.create_optimizer() is optimizer
    assert len(optimizer.param_groups) == 4


def test_without_a_rate_of_its_own_the_backbone_learns_like_the_rest(tmp_path):
    optimizer = make_trainer(tmp_path).create_optimizer()
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}


def test_a_schedule_moves_both_learning_rates(tmp_path):
    trainer = make_trainer(tmp_path, backbone_learning_rate=1e-4, lr_scheduler_type="linear", max_steps=4)
    rates = []

    def record(optimizer, arguments, keywords):
        rates.append({group["lr"] for group in optimizer.param_groups})

    trainer.create_optimizer().register_step_pre_hook(record)
    trainer.train()
    for step, both in enumerate(rates):
        np.testing.assert_allclose(sorted(both), [1e-4 * (1 - step / 4), 1e-3 * (1 - step / 4)])
    assert len(rates) == 4


def test_a_backbone_of_rate_zero_stays_as_it_is(tmp_path):
    trainer = make_trainer(tmp_path, backbone_learning_rate=0.0, weight_decay=0.1)
    before = weights_of(trainer.model)
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("backbone" in name), name


def test_any_optimizer_can_get_a_rate_for_the_backbone():
    model = tiny_classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    assert set_backbone_learning_rate(optimizer, model, 0.1) is optimizer
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.9]
    backbone = list(model.backbone_parameters())
    assert {id(parameter) for parameter in optimizer.param_groups[1]["params"]} == {id(parameter) for parameter in backbone}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


# ---------------------------------------------------------------------------------------------------------------- logs


def test_the_entropy_loss_of_the_steps_since_the_last_log_is_logged(tmp_path):
    trainer = make_trainer(tmp_path, logging_steps=2, eval_strategy="steps", eval_steps=2)
    seen = []
    trainer.model.register_forward_hook(
        lambda model, inputs, outputs: seen.append(outputs.entropy_loss.item()) if model.training else None
    )
    trainer.train()
    assert len(seen) == 4
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in entries] == [2, 4]
    for entry, pair in zip(entries, (seen[:2], seen[2:]), strict=True):
        assert entry["entropy_loss"] == pytest.approx(np.mean(pair), rel=1e-6)
    assert not any("entropy_loss" in entry for entry in trainer.state.log_history if "loss" not in entry)


def test_nothing_learned_has_no_entropy(tmp_path):
    trainer = make_trainer(tmp_path, tiny_classifier(distribution="haar"))
    trainer.train()
    assert len(logged(trainer, "loss")) == 4
    assert not logged(trainer, "entropy_loss")


# ---------------------------------------------------------------------------------------------------------- evaluation


def group_elements_of(trainer):
    """Collects the permutations that the model draws, without the gradient that training needs."""
    seen = []
    trainer.model.register_forward_hook(lambda model, inputs, outputs: seen.append(outputs.group_elements))
    return seen


def test_evaluating_again_gives_the_same_figures(tmp_path):
    trainer = make_trainer(tmp_path)
    first = trainer.predict(TEST)
    torch.manual_seed(77)
    again = trainer.predict(TEST)
    np.testing.assert_array_equal(first.predictions, again.predictions)
    assert trainer.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"] == first.metrics["test_loss"]
    other = make_trainer(tmp_path, seed=43).predict(TEST)
    assert np.abs(first.predictions - other.predictions).max() > 1e-4


def test_different_batches_get_different_draws(tmp_path):
    trainer = make_trainer(tmp_path, tiny_classifier(distribution="haar"), eval_dataset=[TEST[0]] * 8)
    seen = group_elements_of(trainer)
    trainer.evaluate()
    assert len(seen) == 2
    assert not torch.equal(*seen)


def test_training_after_an_evaluation_draws_afresh(tmp_path):
    trainer = make_trainer(tmp_path, train_dataset=[TEST[0]] * 6, max_steps=2)
    trainer.evaluate()
    assert trainer._generator is None
    seen = group_elements_of(trainer)
    trainer.train()
    assert not torch.equal(*seen)


@pytest.mark.parametrize(("num_eval_samples", "expected"), [(None, 2), (1, 1), (5, 5)])
def test_evaluation_draws_the_number_of_samples_asked_for(tmp_path, num_eval_samples, expected):
    trainer = make_trainer(tmp_path, num_eval_samples=num_eval_samples, max_steps=1)
    seen = group_elements_of(trainer)
    trainer.train()
    assert [elements.shape[1] for elements in seen] == [1]
    seen.clear()
    metrics = trainer.evaluate()
    assert {elements.shape[1] for elements in seen} == {expected}
    assert math.isfinite(metrics["eval_accuracy"])


def average_precision(scores, labels):
    """Mean over the positives of the share of positives among the scores that are as high."""
    return np.mean([labels[scores >= score].mean() for score in scores[labels == 1]])


def test_metrics_are_those_of_the_whole_split(tmp_path):
    trainer = make_trainer(tmp_path)
    metrics, output = trainer.evaluate(), trainer.predict(TEST)
    logits = output.predictions
    assert logits.shape == (10, 3)
    assert output.label_ids.tolist() == [row["y"][0] for row in TEST]
    assert metrics["eval_accuracy"] == pytest.approx(np.mean(logits.argmax(1) == output.label_ids))

    rows = [{**row, "y": np.random.default_rng(i).integers(2, size=4).tolist()} for i, row in enumerate(TEST)]
    model = tiny_classifier(num_labels=4, problem_type=MULTI)
    trainer = make_trainer(tmp_path, model, eval_dataset=rows)
    metrics, logits = trainer.evaluate(), trainer.predict(rows).predictions
    labels = np.array([row["y"] for row in rows])
    expected = np.mean([average_precision(logits[:, i], labels[:, i]) for i in range(4)])
    assert metrics["eval_average_precision"] == pytest.approx(expected)
    # The mean over batches is another number.
    parts = [slice(0, 5), slice(5, 10)]
    of_batches = np.nanmean([[average_precision(logits[p, i], labels[p, i]) for i in range(4)] for p in parts])
    assert abs(of_batches - expected) > 1e-3


def test_missing_labels_count_neither_in_the_loss_nor_in_the_metrics(tmp_path):
    rows = [{**row, "y": [number / 2 if number % 3 else None]} for number, row in enumerate(TEST)]
    model = tiny_classifier(num_labels=1, problem_type=REGRESSION)
    trainer = make_trainer(tmp_path, model, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert np.isfinite(logged(trainer, "loss")).all()
    metrics, predicted = trainer.evaluate(), trainer.predict(rows).predictions
    expected = np.mean([abs(predicted[number, 0] - number / 2) for number in range(10) if number % 3])
    assert metrics["eval_mae"] == pytest.approx(expected, rel=1e-5)


def test_graphs_without_labels_can_be_predicted(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "y"} for row in TEST]
    output = make_trainer(tmp_path).predict(rows)
    assert output.predictions.shape == (10, 3)
    assert output.label_ids is None


# ----------------------------------------------------------------------------------------------------------- checkpoints


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    # All that is random in training: the noise, both dropouts, the order of the rows.
    options = {"patch_dropout": 0.5, "interface_config": {"hidden_size": 8, "dropout": 0.2}}
    settings = {"max_steps": 7, "save_strategy": "steps", "save_steps": 3, "backbone_learning_rate": 1e-4}
    whole = make_trainer(tmp_path, tiny_classifier(**options), **settings)
    whole.train()
    resumed = make_trainer(tmp_path, tiny_classifier(seed=1, **options), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 7
    assert_same_weights(weights_of(resumed.model), weights_of(whole.model))
    assert logged(resumed, "loss") == logged(whole, "loss")
    assert logged(resumed, "entropy_loss")[3:] == logged(whole, "entropy_loss")[3:]


def test_a_checkpoint_is_weights_configuration_and_processor_and_no_code(tmp_path):
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2)
    trainer.train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    for folder in tmp_path.iterdir():
        assert {"config.json", "model.safetensors", "processor_config.json"} <= {path.name for path in folder.iterdir()}
        assert not list(folder.rglob("*.py"))
        for name in ("config.json", "processor_config.json"):
            assert "auto_map" not in json.loads((folder / name).read_text())
    folder = tmp_path / "checkpoint-4"
    for again in (AutoModelForSequenceClassification, LPSForGraphClassification):
        assert_same_weights(weights_of(again.from_pretrained(folder)), weights_of(trainer.model))
    assert LPSProcessor.from_pretrained(folder).to_dict() == trainer.processing_class.to_dict()


@pytest.mark.parametrize("family", ["vit", "beit", "dinov2", "dinov3_vit", "clip_vision_model", "nomic_bert", "bert"])
def test_the_names_in_a_checkpoint_are_those_that_trainer_reads(tmp_path, family):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    extra = {"dinov2": {"use_swiglu_ffn": True}}.get(family, {})  # two matrices that older files have as one
    model = tiny_classifier(backbone_config=AutoConfig.for_model(family, **sizes, **extra), grid_size=2)
    expected = weights_of(model)
    for older_names in (False, True):
        folder = tmp_path / str(older_names)
        model.save_pretrained(folder, save_original_format=older_names)
        if not older_names:
            assert load_file(folder / "model.safetensors").keys() == expected.keys()
        assert_same_weights(weights_of(LPSForGraphClassification.from_pretrained(folder)), expected)


def test_the_best_checkpoint_is_loaded_at_the_end(tmp_path):
    # Training makes the loss smaller; with the largest one as the best, the best weights are not the last ones.
    trainer = make_trainer(
        tmp_path,
        max_steps=6,
        learning_rate=3e-3,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    trainer.train()
    losses = logged(trainer, "eval_loss")
    best = tmp_path / f"checkpoint-{2 * (int(np.argmax(losses)) + 1)}"
    assert best.name != "checkpoint-6", losses
    assert Path(trainer.state.best_model_checkpoint) == best
    assert_same_weights(weights_of(trainer.model), weights_of(LPSForGraphClassification.from_pretrained(best)))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(max(losses))


# ------------------------------------------------------------------------------------------------- scale of the gradient


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    # Without randomness, and with as many labels in each part, the mean of the parts' losses is that of the whole.
    runs = []
    for size, steps in ((12, 1), (4, 3)):
        model = tiny_classifier(distribution="none")
        trainer = make_trainer(
            tmp_path,
            model,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            optim="sgd",
            learning_rate=0.1,
            max_steps=4,
        )
        assert trainer.model_accepts_loss_kwargs is False
        trainer.train()
        assert trainer.state.global_step == 4
        runs.append((weights_of(model), logged(trainer, "loss"), logged(trainer, "grad_norm")))
    assert_same_weights(runs[0][0], runs[1][0], atol=1e-5)
    np.testing.assert_allclose(runs[0][1], runs[1][1], rtol=1e-4)
    np.testing.assert_allclose(runs[0][2], runs[1][2], rtol=1e-3)


def gradients_of(model, batch, noise):
    model.zero_grad()
    loss = model(**batch, noise=noise).loss
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_does_not_change_the_gradients(use_reentrant):
    model = tiny_classifier(distribution="learned").double().train()
    for module in model.modules():  # running statistics would move with every pass
        if hasattr(module, "momentum"):
            module.momentum = 0.0
    batch = LPSProcessor.from_config(model.config)(TRAIN[:6], return_tensors="pt")
    noise = model.lps.draw_noise(model.lps.encode(**{key: value for key, value in batch.items() if key != "labels"}), 2)
    loss, expected = gradients_of(model, batch, noise)
    calls = []
    layer = next(module for module in model.modules() if type(module).__name__ == "ViTLayer")
    layer.attention.register_forward_hook(lambda *_: calls.append(1))
    gradients_of(model, batch, noise)
    assert len(calls) == 1
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    again, gradients = gradients_of(model, batch, noise)
    assert len(calls) == 3, "the layer was not computed again in the backward pass"
    assert again == pytest.approx(loss, rel=1e-12)
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name], rtol=1e-9, atol=1e-12, msg=name)


def test_activation_checkpointing_does_not_change_training(tmp_path):
    runs = []
    for checkpointing in (False, True):
        model = tiny_classifier(patch_dropout=0.5)
        trainer = make_trainer(tmp_path, model, activation_checkpointing=checkpointing)
        trainer.train()
        runs.append((weights_of(model), logged(trainer, "loss")))
    assert_same_weights(runs[0][0], runs[1][0], atol=1e-6)
    np.testing.assert_allclose(runs[0][1], runs[1][1], rtol=1e-5)


def test_mixed_precision_trains(tmp_path):
    trainer = make_trainer(tmp_path, bf16=True, eval_strategy="steps", eval_steps=4)
    before = weights_of(trainer.model)
    trainer.train()
    assert np.isfinite([*logged(trainer, "loss"), *logged(trainer, "entropy_loss"), *logged(trainer, "eval_loss")]).all()
    for name, parameter in trainer.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert not torch.equal(parameter, before[name]), name


def test_no_samples_are_refused():
    model = tiny_classifier()
    batch = LPSProcessor.from_config(model.config)(TEST[:2], return_tensors="pt")
    with pytest.raises(ValueError, match=r"^num_samples: expected at least 1, got 0\.$"):
        model(**batch, num_samples=0)
    for name in ("num_samples", "num_eval_samples"):
        with pytest.raises(ValueError, match=rf"{name}: expected at least 1, got 0\."):
            tiny_classifier(**{name: 0})


def test_the_callers_rows_stay_as_they_are(tmp_path):
    rows = copy.deepcopy(TRAIN)
    make_trainer(tmp_path, train_dataset=rows, max_steps=2).train()
    assert rows == TRAIN
