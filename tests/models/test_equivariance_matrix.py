"""One matrix over groups, distributions and tasks: exact, statistical and missing equivariance, and systems that are symmetric.

A new task is one more row of `CASES`. The action on inputs, noise and outputs is written here once more, by hand, so that
`lps_hf.testing` is not tested by itself.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import ViTConfig

from lps_hf.models.configuration_base_networks import (
    GINIDBaseConfig,
    MLPBaseConfig,
    PairTransformerBaseConfig,
    ParticleGNNBaseConfig,
)
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.interface_networks import GINInterface
from lps_hf.models.modeling_heads_lps import (
    PARTICLE_DEFAULTS,
    LPSForGraphClassification,
    LPSForImageClassification,
    LPSForLinkPrediction,
    LPSForNodeClassification,
    LPSForParticleDynamics,
    LPSForPointCloudClassification,
)
from lps_hf.testing import equivariance_error
from tests.models.graph_cases import (
    EDGE_CATEGORIES,
    NODE_CATEGORIES,
    calibrate,
    place_nodes,
    random_batch,
    seeded,
    with_frame_ranks,
)

VIT = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, image_size=2, patch_size=1)
MLP = MLPBaseConfig(hidden_sizes=[16, 12], activation="tanh")
GIN_ID = GINIDBaseConfig(hidden_size=8, num_layers=2)
PAIRS = PairTransformerBaseConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
GNN = ParticleGNNBaseConfig(hidden_size=8, num_hidden_layers=1)
GRAPH = {"node_categories": NODE_CATEGORIES, "edge_categories": EDGE_CATEGORIES}
VECTORS = {"positions": "n p", "velocities": "n v"}
PLANE = {**PARTICLE_DEFAULTS, "inputs": {**VECTORS, "pair_features": "n n 1"}}
KINDS = ("learned", "canonical", "frame", "haar", "exact")
SIZES = (4, 1, 3)

Inputs = dict[str, Tensor]


def graphs() -> Inputs:
    return with_frame_ranks(random_batch(list(SIZES), seed=3))


def systems(*keys: str, dimension: int = 3, sizes: tuple[int, ...] = SIZES, num_nodes: int | None = None) -> Inputs:
    """Particles at random places away from the origin; what stands on padding is rubbish."""
    nodes = num_nodes or max(sizes)
    mask = torch.arange(nodes) < torch.tensor(sizes).unsqueeze(1)
    batch = {"node_mask": mask}
    for number, (key, width) in enumerate((("positions", dimension), ("velocities", dimension), ("charges", 1))):
        batch[key] = torch.full((len(sizes), nodes, width), 55.0, dtype=torch.float64)
        for row, size in enumerate(sizes):
            batch[key][row, :size] = torch.randn(size, width, generator=seeded(10 * row + number), dtype=torch.float64)
    batch["positions"] += torch.arange(1.0, dimension + 1)
    batch["node_categories"] = torch.randint(2, (len(sizes), nodes, 2), generator=seeded(5)).masked_fill(~mask.unsqueeze(-1), 44)
    return {key: batch[key] for key in ("node_mask", *keys)}


def images(height: int, width: int) -> Inputs:
    return {"pixel_values": torch.randn(3, 2, height, width, generator=seeded(0), dtype=torch.float64)}


def image_classifier(height: int, width: int) -> ViTConfig:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    return ViTConfig(**sizes, image_size=(height, width), patch_size=4, num_channels=2, num_labels=3)


class Case(NamedTuple):
    """A task on a group."""

    head: Any
    group: str
    backbone: Any
    batch: Callable[[], Inputs]
    options: dict[str, Any] = {}
    kinds: tuple[str, ...] = KINDS


ALL = ("positions", "velocities", "charges")
PLANE_KINDS = tuple(kind for kind in KINDS if kind != "frame")
CASES = {
    "graphs": Case(LPSForGraphClassification, "S_n", VIT, graphs, GRAPH),
    "nodes": Case(LPSForNodeClassification, "S_n", GIN_ID, graphs, {**GRAPH, "output": "n 3"}),
    "nodes on the diagonal": Case(LPSForNodeClassification, "S_n", VIT, graphs, {**GRAPH, "output": "n n 3"}),
    "links": Case(LPSForLinkPrediction, "S_n", MLP, graphs, {**GRAPH, "output": "n n 1", "num_labels": 1}),
    "dynamics": Case(LPSForParticleDynamics, "S_n x E(3)", PAIRS, lambda: systems(*ALL), PARTICLE_DEFAULTS),
    "turning dynamics": Case(LPSForParticleDynamics, "S_n x SE(3)", GNN, lambda: systems(*ALL), PARTICLE_DEFAULTS),
    "plane dynamics": Case(LPSForParticleDynamics, "S_n x E(2)", GNN, lambda: systems(*ALL[:2], dimension=2), PLANE),
    "dynamics without residual": Case(
        LPSForParticleDynamics, "S_n x E(3)", VIT, lambda: systems(*ALL[:2]), {"inputs": VECTORS, "output": "n p"}
    ),
    "velocities": Case(
        LPSForParticleDynamics, "S_n x O(3)", PAIRS, lambda: systems(*ALL[:2]), {"inputs": VECTORS, "output": "n v"}
    ),
    "molecules": Case(
        LPSForGraphClassification,
        "S_n x E(3)",
        VIT,
        lambda: systems("positions", "node_categories"),
        {"node_categories": NODE_CATEGORIES},
    ),
    "point clouds": Case(LPSForPointCloudClassification, "S_n x SO(3)", MLP, lambda: systems("positions")),
    "numbered points": Case(LPSForGraphClassification, "E(3)", MLP, lambda: systems("positions")),
    "numbered arrows": Case(LPSForGraphClassification, "SO(3)", VIT, lambda: systems(*ALL[:2]), {"inputs": VECTORS}),
    "images, C_4": Case(LPSForImageClassification, "C_4", image_classifier(8, 8), lambda: images(8, 8), {}, PLANE_KINDS),
    "images, D_4": Case(LPSForImageClassification, "D_4", image_classifier(8, 8), lambda: images(8, 8), {}, PLANE_KINDS),
    "images, C_2": Case(LPSForImageClassification, "C_2", image_classifier(8, 12), lambda: images(8, 12), {}, PLANE_KINDS),
}
every_case = pytest.mark.parametrize("name", CASES)
every_kind_of_every_case = pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, case in CASES.items() for kind in case.kinds]
)
every_particle_kind = pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, case in CASES.items() for kind in case.kinds if "E(" in case.group or "O(" in case.group],
)
RANDOM = ("learned", "frame", "haar")


@lru_cache(maxsize=None)
def make_model(name: str, kind: str) -> Any:
    """A model in float64 in which every parameter matters; weights are the same for all kinds but for the interface."""
    case = CASES[name]
    options = {"num_labels": 3, "max_nodes": 9, "interface_config": None, **case.options}
    if kind in ("learned", "canonical"):
        options["interface_config"] = {"hidden_size": 12}
    torch.manual_seed(0)
    model = case.head(LPSConfig(backbone_config=case.backbone, group=case.group, distribution=kind, **options))
    with torch.no_grad():
        for part in (model.lps.base, model.lps.distribution):
            torch.manual_seed(1)
            for parameter in part.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.double()
    if isinstance(model.lps.distribution.interface, GINInterface):
        calibrate(model.lps.distribution.interface)
    return model.eval()


def inputs_of(name: str, kind: str) -> Inputs:
    batch = CASES[name].batch()
    return batch if kind in ("frame", "exact") else {key: tensor for key, tensor in batch.items() if key != "frame_ranks"}


def draw_noise(model: Any, batch: Inputs, num_samples: int, seed: int) -> Inputs:
    noise = model.lps.draw_noise(model.lps.encode(**batch), num_samples, seeded(seed))
    return {name: part.double() for name, part in noise.items()}


# ------------------------------------------------------------------------------------------------- the action, by hand


class Motion(NamedTuple):
    """An element h of any of the groups: nodes i go to `order[i]`, vectors v to Qv, points x to Qx + t, images are turned."""

    order: Tensor | None = None
    matrix: Tensor | None = None
    translation: Tensor | float = 0.0
    turns: int = 0
    flips: bool = False
    num_rotations: int = 1


def motion_for(name: str, batch: Inputs, seed: int, along_axes: bool = False) -> Motion:
    """A random element; with `along_axes` it sends coordinate axes to coordinate axes. Those of O(d) and E(d) reflect."""
    group = CASES[name].group
    if "pixel_values" in batch:
        rotations = int(group[2:])
        return Motion(turns=1 + seed % (rotations - 1), flips="D" in group, num_rotations=rotations)
    matrix = order = None
    translation: Any = 0.0
    if "(" in group:
        dimension = int(group[-2])
        matrix = torch.linalg.qr(torch.randn(dimension, dimension, generator=seeded(seed), dtype=torch.float64))[0]
        if along_axes:
            matrix = torch.eye(dimension, dtype=torch.float64).roll(1, 0)
        wanted = 1.0 if "SO(" in group or "SE(" in group else -1.0
        matrix[0] *= wanted * torch.linalg.det(matrix).sign()
        if "E(" in group:
            translation = torch.randn(dimension, generator=seeded(seed), dtype=torch.float64)
    if "S_n" in group:
        order = torch.arange(batch["node_mask"].shape[1]).repeat(len(batch["node_mask"]), 1)
        for row, size in enumerate(batch["node_mask"].sum(1).tolist()):
            order[row, :size] = torch.randperm(size, generator=seeded(seed + row))
    return Motion(order, matrix, translation)


def place(tensor: Tensor, h: Motion, dim: int = 1) -> Tensor:
    return tensor if h.order is None else place_nodes(tensor, h.order, dim)


def turned(vectors: Tensor, h: Motion) -> Tensor:
    return vectors if h.matrix is None else vectors @ h.matrix.T


def move_batch(batch: Inputs, h: Motion) -> Inputs:
    moved = dict(batch)
    if "pixel_values" in batch:
        image = batch["pixel_values"].flip(-1) if h.flips else batch["pixel_values"]
        moved["pixel_values"] = torch.rot90(image, 4 * h.turns // h.num_rotations, (-2, -1))
        return moved
    for key in ("positions", "velocities"):
        if key in batch:
            moved[key] = place(turned(batch[key], h) + (h.translation if key == "positions" else 0.0), h)
    for key in ("charges", "node_categories", "frame_ranks"):
        if key in batch:
            moved[key] = place(batch[key], h)
    if "edge_index" in batch:
        moved["edge_index"] = batch["edge_index"].clone()
        for row, valid in enumerate(batch["edge_mask"]):
            moved["edge_index"][row][:, valid] = h.order[row][batch["edge_index"][row][:, valid]]
    return moved


def move_noise(noise: Inputs, h: Motion) -> Inputs:
    moved = {}
    for name, part in noise.items():
        if name == "S_n":
            moved[name] = place(part, h, dim=2)
        elif name == "interface":
            moved[name] = place(part if part.dim() == 4 else turned(part.mT, h).mT, h, dim=2)
        elif name[0] in "CD":
            moved[name] = torch.empty_like(part)
            for number in range(part.shape[-1]):
                turns, flips = number % h.num_rotations, number >= h.num_rotations
                product = (h.turns + (-turns if h.flips else turns)) % h.num_rotations
                moved[name][..., product + h.num_rotations * (flips ^ h.flips)] = part[..., number]
        else:
            moved[name] = h.matrix @ part
    return moved


def move_output(name: str, output: Tensor, h: Motion, mask: Tensor | None) -> Tensor:
    """h on the logits of a head; padding stays zero."""
    axes = CASES[name].options.get("output", "3").split()
    if axes[0] != "n":
        return output
    if axes[-1] in ("v", "p"):
        output = turned(output, h) + (h.translation if axes[-1] == "p" else 0.0)
    output = place(output, h)
    if CASES[name].head is LPSForLinkPrediction:
        return place(output, h, dim=2)
    return output * mask.unsqueeze(-1)


# --------------------------------------------------------------------------------------------------- exact equivariance


@torch.no_grad()
@every_kind_of_every_case
def test_models_are_equivariant_under_coupled_noise(name, kind):
    """q(h·x, h·ε) = h·q(x, ε), so that φ(h·x) and h·φ(x) differ by rounding only."""
    model, batch = make_model(name, kind), inputs_of(name, kind)
    noise = draw_noise(model, batch, 1 if kind == "exact" else 3, seed=1)
    output = model(**batch, noise=noise).logits
    assert output.isfinite().all()
    for seed in (1, 2):
        h = motion_for(name, batch, seed)
        there = model(**move_batch(batch, h), noise=move_noise(noise, h)).logits
        expected = move_output(name, output, h, batch.get("node_mask"))
        assert (there - expected).abs().max() < 1e-10 * (1 + output.abs().max())


@every_kind_of_every_case
def test_the_package_measures_the_same(name, kind):
    if name == "nodes on the diagonal":
        return  # its logits do not have the axes of the output
    measured = equivariance_error(make_model(name, kind), inputs_of(name, kind), 2, 2, coupled=True, generator=seeded(2))
    assert measured.relative_error < 1e-10


@torch.no_grad()
@every_case
def test_exact_averages_need_no_coupling(name):
    """The frames of these inputs are finite: two evaluations with independent noise are equal."""
    model, batch = make_model(name, "exact"), inputs_of(name, "exact")
    output, again = (model(**batch, generator=seeded(seed)) for seed in (1, 2))
    assert (output.logits - again.logits).abs().max() < 1e-10
    assert output.standard_error is None
    for seed in (1, 2):
        h = motion_for(name, batch, seed)
        there = model(**move_batch(batch, h), generator=seeded(3 + seed)).logits
        expected = move_output(name, output.logits, h, batch.get("node_mask"))
        assert (there - expected).abs().max() < 1e-10 * (1 + expected.abs().max())


# --------------------------------------------------------------------------------------------- statistical equivariance

NUM_SAMPLES = 100


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, case in CASES.items() for kind in case.kinds if kind in RANDOM]
)
def test_independent_estimates_agree_within_their_standard_errors(name, kind):
    """φ(h·x) and h·φ(x) from independent draws; the stored order or pose alone is many standard errors off."""
    model, plain = make_model(name, kind), make_model(name, "none")
    batch = inputs_of(name, kind)
    # Along the axes, so that the standard errors of coordinates are those of other coordinates.
    h = motion_for(name, batch, 2, along_axes=True)
    moved, mask = move_batch(batch, h), batch.get("node_mask")
    here, there = (model(**x, num_samples=NUM_SAMPLES, generator=seeded(s)) for x, s in ((batch, 1), (moved, 2)))
    unsigned = h._replace(matrix=None if h.matrix is None else h.matrix.abs(), translation=0.0)
    error = torch.hypot(there.standard_error, move_output(name, here.standard_error, unsigned, mask))
    difference = there.logits - move_output(name, here.logits, h, mask)
    assert (difference.abs() <= 4 * error + 1e-10).all()
    assert (difference.square().sum() / error.square().sum().clamp(min=1e-20)) < 3
    without = plain(**moved).logits - move_output(name, plain(**batch).logits, h, mask)
    assert without.square().mean() > 16 * error.square().mean()
    assert without.square().mean().sqrt() > 0.02 * here.logits.square().mean().sqrt()


@every_case
def test_without_symmetrization_nothing_is_equivariant(name):
    if name == "nodes on the diagonal":
        return
    model, batch = make_model(name, "none"), inputs_of(name, "none")
    for coupled in (False, True):
        assert equivariance_error(model, batch, 3, 2, coupled=coupled, generator=seeded(2)).relative_error > 0.02
