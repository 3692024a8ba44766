"""Base functions: which one a configuration gets, what they load, and what they refuse."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from lps_hf.models.base_functions import ImageBase, NetworkBase, TokenBase, make_base_function
from lps_hf.models.configuration_base_networks import MLPBaseConfig, PairTransformerBaseConfig
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import PARTICLE_DEFAULTS, LPSForImageClassification, LPSForParticleDynamics
from lps_hf.models.modeling_lps import LPSModel


def tiny_vit(num_labels: int = 3) -> ViTConfig:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=num_labels)


@pytest.fixture
def classifier(tmp_path):
    """The folder of an image classifier with names for its classes."""
    config = tiny_vit(num_labels=8)
    config.id2label = dict(enumerate("abcdefgh"))
    config.label2id = {name: number for number, name in config.id2label.items()}
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_configuration_gets_the_base_function_for_its_backbone():
    assert isinstance(make_base_function(LPSConfig(backbone_config=tiny_vit())), TokenBase)
    assert isinstance(make_base_function(LPSConfig(backbone_config=tiny_vit(), group="C_4", num_labels=3)), ImageBase)
    assert isinstance(make_base_function(LPSConfig(backbone_config=MLPBaseConfig(hidden_sizes=[4]))), NetworkBase)


def test_a_pretrained_classifier_keeps_its_answers_and_names(classifier):
    model = LPSForImageClassification.from_backbone_pretrained(str(classifier), group="C_4", distribution="none")
    pixels = torch.randn(2, 3, 8, 8)
    expected = ViTForImageClassification.from_pretrained(classifier).eval()(pixels).logits
    torch.testing.assert_close(model(pixel_values=pixels).logits, expected)
    assert model.config.id2label[3] == "d"


def test_other_classes_get_a_new_last_layer(classifier):
    model = LPSForImageClassification.from_backbone_pretrained(str(classifier), group="C_4", num_labels=5)
    assert model(pixel_values=torch.randn(2, 3, 8, 8)).logits.shape == (2, 5)
    pretrained = ViTForImageClassification.from_pretrained(classifier)
    own = model.lps.base.backbone
    assert torch.equal(own.vit.embeddings.cls_token, pretrained.vit.embeddings.cls_token)


def test_a_classifier_without_the_weights_of_a_layer_is_refused(classifier):
    # The width and the number of classes are the same: a shape says nothing about which layer a weight belongs to.
    path = classifier / "model.safetensors"
    weights = load_file(path)
    lost = next(key for key in weights if "attention" in key and key.endswith("bias"))
    save_file({key: weight for key, weight in weights.items() if key != lost}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"expected the weights of a vit backbone, but the checkpoint lacks .*attention"):
        LPSForImageClassification.from_backbone_pretrained(str(classifier), group="C_4")


def test_small_networks_have_no_pretrained_checkpoints_and_no_gradient_checkpointing():
    config = LPSConfig(backbone_config=PairTransformerBaseConfig(num_hidden_layers=1), group="S_n x E(3)", **PARTICLE_DEFAULTS)
    model = LPSForParticleDynamics(config)
    with pytest.raises(ValueError, match=r"expected a backbone with pretrained checkpoints"):
        model.lps.base.load_pretrained("some-model")
    with pytest.raises(ValueError, match=r"LPSForParticleDynamics does not support activation checkpointing"):
        model.activation_checkpointing_enable()


def test_number_of_classes_must_be_that_of_the_classifier():
    with pytest.raises(ValueError, match=r"output: expected '3', the number of classes of the image classifier, got '4'"):
        make_base_function(LPSConfig(backbone_config=tiny_vit(), group="C_4", num_labels=4))


def test_outputs_turn_and_move_back_in_single_precision():
    # Far from the origin, half precision has steps of several units.
    config = LPSConfig(
        backbone_config=PairTransformerBaseConfig(num_hidden_layers=1),
        group="S_n x E(3)",
        distribution="haar",
        inputs={"positions": "n p"},
        output="n p",
    )
    model = LPSForParticleDynamics(config).eval()
    positions = torch.randn(2, 5, 3)
    noise = model.lps.draw_noise(model.lps.encode(positions=positions), 4)
    with torch.autocast("cpu", torch.bfloat16):
        far = model(positions=positions + 1000, noise=noise).logits
    near = model(positions=positions, noise=noise).logits
    assert far.dtype == torch.float32
    torch.testing.assert_close(far - 1000, near, rtol=0.0, atol=0.02)


def test_error_bar_of_a_canonical_model_counts_the_ties_that_its_network_breaks():
    octahedron = torch.cat([torch.eye(3), -torch.eye(3)]).unsqueeze(0).double()
    config = LPSConfig(
        backbone_config=MLPBaseConfig(hidden_sizes=[16]),
        group="S_n x SO(3)",
        distribution="canonical",
        inputs={"positions": "n p"},
        max_nodes=6,
        num_labels=1,
    )
    torch.manual_seed(0)
    model = LPSModel(config).double().eval()
    with torch.no_grad():
        results = [model(positions=octahedron, num_samples=20) for _ in range(60)]
    means = torch.stack([result.output for result in results])
    claimed = torch.stack([result.standard_error for result in results]).square().mean(dim=0).sqrt()
    assert 0.7 < float(claimed / means.std(dim=0)) < 1.4


def test_a_frozen_base_function_leaves_its_other_parts_in_training_mode():
    base = make_base_function(LPSConfig(backbone_config=tiny_vit()))
    base.freeze()
    base.train()
    assert isinstance(base, nn.Module)
    assert base.training
    assert base.readout.training
    assert not base.backbone.training
