"""PEFT: adapters on the backbone, and the new parts trained and saved with them."""

import pytest
import torch

from lps_hf.models.modeling_heads_lps import (
    LPSForGraphClassification,
    LPSForImageClassification,
    LPSForLinkPrediction,
    LPSForParticleDynamics,
)
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.testing import assert_equivariant
from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.trainer import LPSTrainer
from tests.tiny import random_rows, tiny_classifier, tiny_config, tiny_vit

peft = pytest.importorskip("peft")
# PEFT 0.21 asks transformers 5 by a name that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ADAPTED = ["q_proj", "v_proj"]


def with_adapters(model):
    config = peft.LoraConfig(r=4, target_modules=ADAPTED, modules_to_save=model.new_module_names())
    torch.manual_seed(0)
    return peft.get_peft_model(model, config)


def batch_with_noise(model, count=4, seed=0):
    is_link = isinstance(model, LPSForLinkPrediction)
    rows = [{key: value for key, value in row.items() if key != "y" or not is_link} for row in random_rows(count, seed)]
    batch = dict(LPSProcessor.from_config(model.config)(rows, return_tensors="pt"))
    lps = model.lps
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return {**batch, "noise": lps.draw_noise(lps.encode(**inputs), 2, torch.Generator().manual_seed(seed))}


def train_step(model, batch):
    """One step on the parameters that want one; returns the names of those that it changed."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.5)
    model.train()
    for _ in range(2):  # one factor of each adapter starts at zero, and the other gets no gradient before it has moved
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


@torch.no_grad()
def logits_of(model, batch):
    return model(**{key: value for key, value in batch.items() if key != "labels"}).logits


@pytest.mark.parametrize(
    ("head", "options", "names"),
    [
        (
            LPSForGraphClassification,
            {},
            ["lps.base.projections.node_features", "lps.base.projections.edge_features", "lps.base.readout", "lps.distribution"],
        ),
        (
            LPSForGraphClassification,
            {"distribution": "haar", "inputs": {"edge_features": "n n 3"}, "node_categories": None},
            ["lps.base.projections.edge_features", "lps.base.readout"],
        ),
        (
            LPSForParticleDynamics,
            {
                "backbone_config": {"model_type": "lps_particle_gnn"},
                "group": "S_n x E(3)",
                "inputs": {"positions": "n p"},
                "output": "n p",
                "node_categories": None,
                "edge_categories": None,
            },
            ["lps.distribution"],
        ),
        (
            LPSForImageClassification,
            {
                "backbone_config": tiny_vit().to_dict() | {"num_labels": 3},
                "group": "C_4",
                "inputs": {"pixel_values": "3 h w"},
                "node_categories": None,
                "edge_categories": None,
            },
            ["lps.distribution"],
        ),
    ],
    ids=["graphs", "haar", "particles", "images"],
)
def test_new_modules_are_all_that_is_no_backbone(head, options, names):
    model = head(tiny_config(**options))
    assert model.new_module_names() == names
    new = {id(parameter) for name in names for parameter in model.get_submodule(name).parameters()}
    pretrained = {id(parameter) for parameter in model.backbone_parameters()}
    assert new | pretrained == {id(parameter) for parameter in model.parameters()}
    assert not new & pretrained


def test_adapters_and_new_parts_are_trained_and_nothing_else():
    model = with_adapters(tiny_classifier())
    changed = train_step(model, batch_with_noise(model))
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert changed == wanted
    assert all("lora_" in name or "modules_to_save" in name for name in wanted)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in wanted if "lora_" in name} == set(ADAPTED)
    assert sum("modules_to_save" in name for name in wanted) == sum(
        1 for name in model.get_base_model().new_module_names() for _ in tiny_classifier().get_submodule(name).parameters()
    )


def test_saved_loaded_merged(tmp_path):
    model = with_adapters(tiny_classifier())
    batch = batch_with_noise(model)
    untrained = logits_of(tiny_classifier(), batch)
    train_step(model, batch)
    trained = logits_of(model, batch)
    assert not torch.allclose(trained, untrained)

    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(tiny_classifier(), tmp_path / "adapter").eval()
    assert torch.equal(logits_of(loaded, batch), trained)
    with loaded.disable_adapter():
        assert torch.equal(logits_of(loaded, batch), untrained)

    merged = loaded.merge_and_unload()
    assert type(merged) is LPSForGraphClassification
    assert merged.state_dict().keys() == tiny_classifier().state_dict().keys()
    torch.testing.assert_close(logits_of(merged, batch), trained, rtol=1e-5, atol=1e-6)
    merged.save_pretrained(tmp_path / "merged")
    again = LPSForGraphClassification.from_pretrained(tmp_path / "merged")
    assert torch.equal(logits_of(again, batch), logits_of(merged, batch))


def test_with_adapters_a_model_is_equivariant():
    model = with_adapters(tiny_classifier())
    batch = batch_with_noise(model)
    train_step(model, batch)
    del batch["noise"]
    assert_equivariant(model, batch)


def test_a_wrapped_head_is_measured_by_its_own_axes():
    """Of pairs of nodes the scores lose the axis of channels: what wraps the head must not hide which head it is."""
    model = LPSForLinkPrediction(tiny_config(output="n n 1", num_labels=1, problem_type=None)).eval()
    batch = batch_with_noise(model)
    del batch["noise"]
    assert_equivariant(with_adapters(model), batch)


def test_the_trainer_trains_adapters(tmp_path):
    model = with_adapters(tiny_classifier())
    processor = LPSProcessor.from_config(model.config)
    arguments = LPSTrainingArguments(
        str(tmp_path), max_steps=2, learning_rate=1e-2, logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True
    )
    trainer = LPSTrainer(model, arguments, processing_class=processor, train_dataset=random_rows(16), eval_dataset=random_rows(6))
    trainer.train()
    assert all("entropy_loss" in logged for logged in trainer.state.log_history if "loss" in logged)
    measured = trainer.evaluate()
    assert measured["eval_loss"] == trainer.evaluate()["eval_loss"]

    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert (checkpoint / "adapter_model.safetensors").exists()
    assert not (checkpoint / "model.safetensors").exists()
    loaded = peft.PeftModel.from_pretrained(tiny_classifier(), checkpoint)
    again = LPSTrainer(loaded, arguments, processing_class=processor, eval_dataset=random_rows(6))
    assert again.evaluate()["eval_loss"] == measured["eval_loss"]


def test_predictions_of_a_trainer_are_the_logits_alone(tmp_path):
    model = with_adapters(tiny_classifier())
    arguments = LPSTrainingArguments(
        str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True, include_for_metrics=["inputs"], seed=3
    )
    seen = []
    trainer = LPSTrainer(
        model,
        arguments,
        processing_class=LPSProcessor.from_config(model.config),
        compute_metrics=lambda prediction: seen.append(prediction.inputs.shape) or {},
    )
    assert trainer.predict(random_rows(5)).predictions.shape == (5, 3)
    assert [len(part) for part in trainer.predict(random_rows(5), with_standard_error=True).predictions] == [5, 5]
    assert seen[0] == (5, max(row["num_nodes"] for row in random_rows(5)), 2)
