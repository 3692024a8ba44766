"""Whatever is combined works, or is refused in a sentence when it is built: nothing fails later, or with a raw error.

A new group, distribution, input, output or head is one more entry of a list.
"""

import re
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from transformers import ViTConfig

from lps_hf.data.random_rows import random_rows
from lps_hf.models import group as group_module
from lps_hf.models import groups, interfaces
from lps_hf.models.configuration_base_networks import (
    GINIDBaseConfig,
    MLPBaseConfig,
    PairTransformerBaseConfig,
    ParticleGNNBaseConfig,
)
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.distributions import EquivariantDistribution
from lps_hf.models.group import DISTRIBUTIONS
from lps_hf.models.groups import get_group
from lps_hf.models.interfaces import interface_class
from lps_hf.models.modeling_heads_lps import (
    LPSForGraphClassification,
    LPSForImageClassification,
    LPSForLinkPrediction,
    LPSForNodeClassification,
    LPSForParticleDynamics,
    LPSTaskModel,
)
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.orthogonal_groups import OrthogonalGroup
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.models.representations import Representation
from lps_hf.models.symmetrized import symmetrize

SIZES = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
BACKBONES = {
    "vit": ViTConfig(**SIZES, image_size=8, patch_size=4),
    "mlp": MLPBaseConfig(hidden_sizes=[4]),
    "gin_id": GINIDBaseConfig(hidden_size=4, num_layers=1),
    "pairs": PairTransformerBaseConfig(hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4),
    "gnn": ParticleGNNBaseConfig(hidden_size=4, num_hidden_layers=1),
}
GROUPS = ("S_n", "O(3)", "SE(2)", "U(2)", "C_4", "D_3", "S_n x E(3)", "S_n x SO(2)", "S_n x C_4", "O(3) x C_4", "SO(4)")
INPUTS = (
    None,
    {"node_features": "n 2", "edge_features": "n n 2"},
    {"edge_features": "n n 1"},
    {"positions": "n p"},
    {"velocities": "n v", "node_features": "n 1", "edge_features": "n n 1"},
    {"charges": "n 1"},
    {"pair_features": "n n 2"},
    {"positions": "n p", "pair_features": "n n 3"},
    {"positions": "n p", "charges": "n 3", "pair_features": "n n 2"},
    {"pixel_values": "3 h w"},
    {"pixel_values": "1 h w"},
    {"pixel_values": "3 h w", "positions": "n p"},
)
HEADS = {
    LPSModel: ("n v", "v 2", "g"),
    LPSForGraphClassification: (None, "n 2"),
    LPSForNodeClassification: (None, "n n 2"),
    LPSForLinkPrediction: (None, "2"),
    LPSForParticleDynamics: (None, "n v"),
    LPSForImageClassification: (None, "h w"),
}
# What takes turns, so that each entry meets every group; a step that shares no factor with the lengths of the lists.
STEP = 17
REST = list(product(((head, output) for head, outputs in HEADS.items() for output in outputs), BACKBONES))


def build_and_run(make: Callable[[], nn.Module], run: Callable[[nn.Module], list[Tensor]]) -> bool:
    """Whether it was built, and then ran; False where it was refused in one sentence or two."""
    try:
        model = make()
    except (ValueError, TypeError) as error:
        message = str(error)
    else:
        assert all(output.isfinite().all() for output in run(model))
        return True
    assert re.match(r"(group|inputs|output|distribution|backbone_config|node_categories)\b", message), message
    assert "\n" not in message
    return False


def run_model(model: LPSModel | LPSTaskModel) -> list[Tensor]:
    batch = LPSProcessor.from_config(model.config)(random_rows(model.config, 2, max_nodes=4), return_tensors="pt")
    outputs = []
    for module in (model.eval(), model.train()):
        result = module(**batch)
        outputs.append(result.output if "output" in result else result.logits)
    outputs[1].sum().backward()
    return outputs


@pytest.mark.parametrize("group", GROUPS)
def test_every_model_works_or_is_refused(group):
    built = 0
    for number, (inputs, distribution) in enumerate(product(INPUTS, DISTRIBUTIONS)):
        for (head, output), backbone in REST[number % STEP :: STEP]:

            def make(inputs=inputs, distribution=distribution, head=head, output=output, backbone=backbone):
                fields = {"group": group, "inputs": inputs, "distribution": distribution, "output": output}
                sizes = {"max_nodes": 4, "num_eval_samples": 2, "grid_size": 2 if backbone == "vit" else None}
                return head(LPSConfig(backbone_config=BACKBONES[backbone], **fields, **sizes))

            built += build_and_run(make, run_model)
    assert (built == 0) == ("U(" in group or group.endswith(" x C_4"))


class Sum(nn.Module):
    """A module that returns a number in the shape of the output."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes, self.scale = sizes, nn.Parameter(torch.ones(()))

    def forward(self, tensor: Tensor) -> Tensor:
        total = tensor.flatten(1).sum(dim=1) * self.scale
        return total.view(-1, *(1 for _ in self.sizes)).expand(-1, *self.sizes)


MODULE_INPUTS = (
    *("3", "n", "n 3", "3 n", "n n", "3 n n", "n n n", "v", "3 v", "p n", "n p 2", "n v n", "h w", "3 h w", "h w 3"),
    *("n h w", "g 3", "v g", "v h w"),
)
MODULE_OUTPUTS = ("2", "n 2", "n v", "p", "3 h w", "g")


@pytest.mark.parametrize("group", GROUPS)
def test_every_module_works_or_is_refused(group):
    parsed = get_group(group)
    orders = [factor.order for factor in parsed.factors if hasattr(factor, "order")]
    sizes = {"n": 3, "v": parsed.dimension, "p": parsed.dimension, "h": 4, "w": 4, "g": orders[0] if orders else None}
    dtype = torch.complex64 if "U(" in group else torch.float32

    def shape(axes: str) -> list[int]:
        return [axis if isinstance(axis, int) else sizes[axis] or 2 for axis in Representation.parse(axes).axes]

    built = 0
    for number, (inputs, distribution) in enumerate(product(MODULE_INPUTS, DISTRIBUTIONS)):
        output = MODULE_OUTPUTS[(number + number // 6) % 6]
        for axes in ("2", output):

            def make(inputs=inputs, distribution=distribution, axes=axes):
                return symmetrize(Sum(shape(axes)), group, inputs, axes, distribution, num_samples=2, num_eval_samples=2)

            def run(module, inputs=inputs):
                outputs = [part(torch.randn(2, *shape(inputs), dtype=dtype)) for part in (module.eval(), module.train())]
                outputs[1].abs().sum().backward()
                return outputs

            built += build_and_run(make, run)
    assert built


class HyperbolicGroup(OrthogonalGroup):
    """Stands for a group that somebody adds: its scores look like those of O(d), but it acts in another way."""

    pattern = "H({})"


class OtherGroup(interfaces.PlaneGroup):
    distributions = ("learned", "haar", "frame")


@pytest.mark.parametrize("distribution", ["learned", "canonical", "frame", "exact"])
def test_a_new_group_gets_no_network_and_no_frame_that_was_made_for_another(monkeypatch, distribution):
    monkeypatch.setitem(groups.GROUPS, "H({})", HyperbolicGroup)
    monkeypatch.setattr(groups, "_PARSED", {})
    assert LPSConfig(group="H(3)", distribution="haar").inputs == {"positions": "n p"}
    with pytest.raises(ValueError, match=r"H\(3\)"):
        LPSConfig(group="H(3)", distribution=distribution)
    with pytest.raises(ValueError, match=r"H\(3\)"):
        symmetrize(Sum([2]), "H(3)", "n v", "2", distribution)
    with pytest.raises(ValueError, match=r"S_n x H\(3\)"):
        LPSConfig(group="S_n x H(3)", distribution=distribution)


def test_a_new_finite_group_gets_no_network_either():
    with pytest.raises(ValueError, match="no interface network scores it"):
        interface_class(OtherGroup("T", 4, 1))


def test_a_distribution_that_nothing_draws_from_does_not_draw_as_haar(monkeypatch):
    group, inputs = get_group("S_n"), {"x": Representation.parse("n 3")}
    with pytest.raises(ValueError, match="distribution: expected one of .*got 'weighted_frames'"):
        EquivariantDistribution(group, "weighted_frames", inputs)
    # Nor does one that a group is said to have, and that was forgotten where it is drawn.
    monkeypatch.setattr(group_module, "DISTRIBUTIONS", (*DISTRIBUTIONS, "weighted_frames"))
    monkeypatch.setattr(type(group), "distributions", (*DISTRIBUTIONS, "weighted_frames"))
    with pytest.raises(ValueError, match="distribution: expected one of .* which are drawn here, got 'weighted_frames'"):
        symmetrize(Sum([2]), "S_n", "n 3", "2", "weighted_frames")
    module = symmetrize(Sum([2]), "S_n", "n 3", "2", "haar")
    module.distribution.kind = "weighted_frames"
    with pytest.raises(NotImplementedError, match="weighted_frames"):
        module(torch.randn(2, 4, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature_rule": "warm"}, "temperature_rule: expected one of 'published', 'relative', got 'warm'"),
        ({"noise_scale": -1.0}, "noise_scale: expected a number of at least 0, got -1.0"),
        ({"noise_scale": "1"}, "noise_scale: expected a number, got str '1'"),
        ({"temperature": 0.0}, "temperature: expected a positive number, got 0.0"),
        ({"sinkhorn_iterations": True}, "sinkhorn_iterations: expected an int, got bool True"),
        ({"interface_config": {"width": 3}}, "interface_config: unknown key 'width', expected num_layers"),
        ({"interface_config": {"hidden_size": "8"}}, r"interface_config\['hidden_size'\]: expected an int, got str '8'"),
    ],
)
def test_options_of_a_module_are_checked_as_those_of_a_model(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        symmetrize(Sum([2]), "S_n", "n 3", "2", **options)


CONTRADICTIONS = {
    "graph head with turns": (LPSForGraphClassification, {"group": "C_4"}, "C_4.*LPSForImageClassification"),
    "image head of graphs": (LPSForImageClassification, {"group": "S_n"}, "'C_4' or 'D_4', got 'S_n'"),
    "image head of the plane": (LPSForImageClassification, {"group": "SO(2)"}, r"'C_4' or 'D_4', got 'SO\(2\)'"),
    "complex vectors": (LPSModel, {"group": "U(2)", "distribution": "haar"}, r"U\(2\).*symmetrize"),
    "images and points": (LPSModel, {"group": "C_4", "inputs": {"pixel_values": "3 h w", "node_features": "n 1"}}, "alone"),
    "categories that nothing reads": (
        LPSModel,
        {"group": "S_n x E(3)", "edge_categories": [3]},
        "edge_categories: expected None",
    ),
    "regression of nodes": (LPSForNodeClassification, {"problem_type": "regression"}, "problem_type: LPSForNode.*'regression'"),
    "channels": (LPSForImageClassification, {"group": "C_4", "inputs": {"pixel_values": "1 h w"}}, "expected '3 h w'"),
    "a rectangle": (
        LPSForImageClassification,
        {"group": "C_4", "backbone_config": ViTConfig(**SIZES, image_size=(8, 16), patch_size=4)},
        "square images, .* 8 x 16",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_the_refusal_names_what_contradicts(name):
    head, options, message = CONTRADICTIONS[name]
    with pytest.raises(ValueError, match=message):
        head(LPSConfig(**{"backbone_config": BACKBONES["vit"], **options}))


def test_channels_may_stand_before_the_nodes():
    torch.manual_seed(0)
    first = symmetrize(Sum([2]), "S_n", "3 n", "2", num_eval_samples=1).eval()
    last = symmetrize(Sum([2]), "S_n", "n 3", "2", num_eval_samples=1).eval()
    last.load_state_dict(first.state_dict())
    x = torch.randn(2, 3, 5)
    noise = first.distribution.draw_noise(first.encode(x), 1)
    assert torch.equal(first.estimate(x, noise=noise).group_elements, last.estimate(x.mT, noise=noise).group_elements)


@pytest.mark.parametrize(
    ("head", "output", "num_labels"),
    [
        (LPSForGraphClassification, "5", 5),
        (LPSForNodeClassification, "n 5", 5),
        (LPSForLinkPrediction, "n n 1", 1),
    ],
)
def test_a_head_takes_its_output_from_the_number_of_labels(head, output, num_labels):
    options = {} if head is LPSForLinkPrediction else {"num_labels": num_labels}
    config = LPSConfig(backbone_config=BACKBONES["vit"], **options)
    model = head(config)
    assert (str(model.config.output_representation), model.config.num_labels) == (output, num_labels)
    assert config.output is None  # another head can be made of it
    assert str(LPSModel(config).config.output_representation) == str(config.num_labels)


def test_the_head_of_particles_predicts_displacements():
    config = LPSForParticleDynamics(LPSConfig(backbone_config=BACKBONES["mlp"], group="S_n x E(3)")).config
    assert (config.output, config.residual) == ("n p", "positions")
    with pytest.raises(ValueError, match=r"output 'n p': the group S_n does not act on axis 'p'.*'E\(3\)'"):
        LPSForParticleDynamics(LPSConfig(backbone_config=BACKBONES["mlp"]))
