"""The comparison with the bare backbone: that the floor is the whole, unmodified backbone, and that both do what is timed."""

import pytest
import torch
from transformers import ViTModel

from lps_hf import LPSProcessor
from lps_hf.evaluation.symmetrization_cost import (
    ADDED_PARTS,
    CostComparison,
    added_seconds,
    added_share,
    bare_backbone,
    vit_config,
)
from tests.tiny import random_rows, tiny_classifier, tiny_config

FORWARD_PARTS = {*ADDED_PARTS, "backbone"}


@pytest.fixture
def batch():
    return LPSProcessor.from_config(tiny_config())(random_rows(3), return_tensors="pt")


def test_sizes_of_the_backbone_by_name_and_by_number():
    tiny = vit_config("tiny")
    assert (tiny.hidden_size, tiny.num_hidden_layers, tiny.num_attention_heads, tiny.intermediate_size) == (192, 12, 3, 768)
    assert tiny.image_size // tiny.patch_size == 14
    assert vit_config("32x3x2").num_hidden_layers == 3
    for size in ("huge", "32x3", "32x3xb"):
        with pytest.raises(ValueError, match="three numbers such as '192x12x3', got"):
            vit_config(size)


def test_the_floor_is_the_unmodified_model_of_the_family_on_ready_made_tokens():
    floor = bare_backbone(tiny_config(grid_size=3)).eval()
    assert type(floor.model) is ViTModel
    assert floor.num_tokens == 9
    # A block that computed less than all tokens would be of a class of this package.
    for block in floor.model.layers.modules():
        assert type(block).__module__.startswith(("torch.", "transformers."))
    tokens = torch.randn(2, 9, 32)
    with torch.no_grad():
        embedded = torch.cat([floor.model.embeddings.cls_token.expand(2, -1, -1), tokens], dim=1)
        hidden = embedded + floor.model.embeddings.position_embeddings
        for layer in floor.model.layers:
            hidden = layer(hidden)
        expected = floor.model.layernorm(hidden)[:, 1:]
        torch.testing.assert_close(floor(tokens).last_hidden_state, expected)


def test_both_do_the_same_passes_and_only_training_makes_gradients(batch):
    rows = {}
    for train in (False, True):
        comparison = CostComparison(tiny_classifier(), batch, num_samples=2, train=train)
        for name, backbone in (("model", comparison.model.lps.base.backbone), ("backbone", comparison.backbone)):
            backbone.register_forward_pre_hook(lambda _, args, name=name: rows.setdefault(name, []).append(args[0].shape))
        comparison.run_model()
        comparison.run_backbone()
        assert comparison.model_rows() == 6
        for module in (comparison.model, comparison.backbone):
            assert module.training is train
            assert any(parameter.grad is not None for parameter in module.parameters()) is train
        comparison.forget_gradients()
        assert all(parameter.grad is None for parameter in [*comparison.model.parameters(), comparison.tokens])
    assert {name: sum(shape[0] for shape in shapes) for name, shapes in rows.items()} == {"model": 24, "backbone": 12}
    assert {shape[1:] for shapes in rows.values() for shape in shapes} == {(16, 32)}


def test_the_floor_in_pieces_computes_the_same(batch):
    backbone = bare_backbone(tiny_config())
    gradients = []
    for floor_rows in (None, 4):
        torch.manual_seed(0)
        comparison = CostComparison(tiny_classifier(), batch, num_samples=3, train=True, floor_rows=floor_rows, backbone=backbone)
        torch.manual_seed(1)
        comparison.tokens = torch.randn_like(comparison.tokens).requires_grad_()
        comparison.gradient = torch.randn_like(comparison.gradient)
        comparison.run_backbone()
        gradients.append(comparison.tokens.grad)
        comparison.forget_gradients()
    torch.testing.assert_close(*gradients)


def test_parts_cover_the_forward_and_the_backward_pass(batch):
    parts = CostComparison(tiny_classifier(), batch, num_samples=2).part_seconds()
    assert set(parts) == FORWARD_PARTS
    assert all(seconds > 0 for seconds in parts.values())
    parts = CostComparison(tiny_classifier(), batch, num_samples=2, train=True).part_seconds()
    assert parts.keys() >= FORWARD_PARTS | {"readout_backward", "backbone_backward", "projections_backward"}


def test_everything_but_the_backbone_is_what_was_added():
    parts = {"encoding": 1.0, "backbone": 4.0, "readout": 2.0, "backbone_backward": 8.0, "readout_backward": 3.0}
    assert added_seconds(parts) == 6
    assert added_share(parts) == 0.5


def test_autocast_reaches_both(batch):
    comparison = CostComparison(tiny_classifier(), batch, num_samples=1, train=True, dtype=torch.bfloat16)
    seen = []
    for backbone in (comparison.model.lps.base.backbone, comparison.backbone):
        layer = backbone.model.layers[0].mlp.fc1
        layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    comparison.run_model()
    comparison.run_backbone()
    assert seen == [torch.bfloat16] * 2


def test_memory_of_the_floor_grows_with_its_rows_and_is_less_in_pieces(batch):
    def floor(num_samples, floor_rows=None):
        comparison = CostComparison(tiny_classifier(), batch, num_samples, floor_rows=floor_rows)
        peaks = comparison.peak_memory()
        assert set(peaks) == {"model", "backbone"}
        return peaks["backbone"]

    assert floor(8) == pytest.approx(8 * floor(1), rel=0.02)
    assert floor(8, floor_rows=3) < 0.5 * floor(8)
