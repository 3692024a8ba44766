"""`from_backbone_pretrained`: which weights come along, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, CLIPConfig, CLIPModel, ViTConfig, ViTModel

from lps_hf import LPSForGraphClassification

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32}


@pytest.fixture
def vit_folder(tmp_path):
    ViTModel(ViTConfig(**SIZES, patch_size=8), add_pooling_layer=False).save_pretrained(tmp_path, save_original_format=False)
    return tmp_path


def test_pretrained_weights_arrive_and_nothing_is_reported(vit_folder, capfd, caplog):
    model = LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, num_labels=3)
    pretrained = AutoModel.from_pretrained(vit_folder, add_pooling_layer=False).state_dict()
    loaded = model.lps.base.backbone.model.state_dict()
    assert all(torch.equal(loaded[key], pretrained[key]) for key in loaded if "patch_embeddings" not in key)
    assert "MISSING" not in capfd.readouterr().err + caplog.text
    assert not model.training


def test_a_backbone_without_some_of_its_weights_is_refused(vit_folder):
    weights = load_file(vit_folder / "model.safetensors")
    dropped = next(key for key in weights if "fc1.weight" in key)
    save_file(
        {key: value for key, value in weights.items() if key != dropped}, vit_folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"expected the weights of a vit backbone, but the checkpoint lacks .*fc1\.weight"):
        LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9)


def test_the_vision_tower_of_a_composite_checkpoint(tmp_path):
    text = {**SIZES, "vocab_size": 50, "max_position_embeddings": 16}
    del text["image_size"]
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config={**SIZES, "patch_size": 8}))
    clip.save_pretrained(tmp_path)
    model = LPSForGraphClassification.from_backbone_pretrained(str(tmp_path), max_nodes=9, num_labels=3)
    ours, theirs = model.lps.base.backbone.model.state_dict(), clip.vision_model.state_dict()
    assert torch.equal(ours["pre_layrnorm.weight"], theirs["pre_layrnorm.weight"])
    assert torch.equal(ours["encoder.layers.1.mlp.fc1.weight"], theirs["encoder.layers.1.mlp.fc1.weight"])


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_the_distribution_keeps_its_digits(vit_folder, dtype, expected):
    model = LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, dtype=dtype)
    assert {parameter.dtype for parameter in model.lps.distribution.parameters()} == {expected}
    assert {parameter.dtype for parameter in model.lps.base.parameters()} == {dtype}


def test_a_mistake_is_found_before_the_weights_are_loaded(vit_folder):
    (vit_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="distribution: expected one of"):
        LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, distribution="learnt")


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"torch_dtype": torch.bfloat16}])
def test_types_as_transformers_users_write_them(vit_folder, options):
    model = LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, **options)
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["auto", "int8", torch.int32])
def test_types_that_no_weights_have_are_refused(vit_folder, dtype):
    with pytest.raises(ValueError, match="dtype: expected a floating point type"):
        LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, dtype=dtype)
