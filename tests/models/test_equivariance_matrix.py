"""One matrix over groups, distributions and tasks: exact, statistical and missing equivariance, and systems that are symmetric.

A new task is one more row of `CASES`. The action on inputs, noise and outputs is written here once more, by hand, so that
`lps_hf.testing` is not tested by itself.
"""

import copy
from collections.abc import Callable
from functools import cache
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
RANDOM = ("learned", "frame", "haar")
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
        batch[key] = torch.full((len(sizes), nodes, width), torch.nan, dtype=torch.float64)
        for row, size in enumerate(sizes):
            batch[key][row, :size] = torch.randn(size, width, generator=seeded(10 * row + number), dtype=torch.float64)
    batch["positions"] += torch.arange(1.0, dimension + 1)
    batch["node_categories"] = torch.full((len(sizes), nodes, 2), 44)
    for row, size in enumerate(sizes):
        batch["node_categories"][row, :size] = torch.randint(2, (size, 2), generator=seeded(row))
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
every_random_kind_of_every_case = pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, case in CASES.items() for kind in case.kinds if kind in RANDOM]
)
every_particle_kind = pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, case in CASES.items() for kind in case.kinds if "E(" in case.group or "O(" in case.group],
)


@cache
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
    measured = equivariance_error(make_model(name, kind), inputs_of(name, kind), 2, 2, coupled=True, generator=seeded(2))
    assert measured.relative_error < 1e-10


def test_the_package_measures_scores_of_pairs():
    """Renamed nodes and renamed pairs: the same scores."""
    batch = {**inputs_of("links", "haar"), "pair_index": torch.tensor([[[0, 3], [1, 2]], [[0, 0], [0, 0]], [[2, 1], [0, 1]]])}
    for kind, equivariant in (("haar", True), ("none", False)):
        measured = equivariance_error(make_model("links", kind), batch, 3, 2, coupled=True, generator=seeded(2))
        assert (measured.relative_error < 1e-10) == equivariant


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


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, case in CASES.items() for kind in case.kinds if {"positions", "pixel_values"} & case.batch().keys()],
)
def test_gradients_with_respect_to_inputs_are_those_of_finite_differences(name, kind):
    """With the noise held fixed; also where the parameters have a straight-through gradient."""
    model, batch = make_model(name, kind), inputs_of(name, kind)
    noise = draw_noise(model, batch, 1 if kind == "exact" else 2, seed=1)
    keys = [key for key in ("positions", "velocities", "pixel_values") if key in batch]
    leaves = {key: batch[key].nan_to_num().requires_grad_() for key in keys}
    gradients = torch.autograd.grad(model(**{**batch, **leaves}, noise=noise).logits.sum(), list(leaves.values()))
    for seed in (1, 2):
        steps = {key: 1e-5 * torch.randn(leaf.shape, generator=seeded(seed), dtype=leaf.dtype) for key, leaf in leaves.items()}
        with torch.no_grad():
            ends = [model(**{**batch, **{k: x + sign * steps[k] for k, x in leaves.items()}}, noise=noise) for sign in (1, -1)]
        slope = sum((gradient * steps[key]).sum() for key, gradient in zip(keys, gradients, strict=True))
        largest = sum(gradient.norm() * steps[key].norm() for key, gradient in zip(keys, gradients, strict=True))
        assert abs((ends[0].logits - ends[1].logits).sum() / 2 - slope) < 1e-6 * largest


# --------------------------------------------------------------------------------------------- statistical equivariance

NUM_SAMPLES = 300


@torch.no_grad()
@every_random_kind_of_every_case
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
    without = plain(**moved).logits - move_output(name, plain(**batch).logits, h, mask)
    assert without.square().mean() > 16 * error.square().mean()
    assert without.square().mean().sqrt() > 0.02 * here.logits.square().mean().sqrt()


@every_case
def test_without_symmetrization_nothing_is_equivariant(name):
    model, batch = make_model(name, "none"), inputs_of(name, "none")
    for coupled in (False, True):
        assert equivariance_error(model, batch, 3, 2, coupled=coupled, generator=seeded(2)).relative_error > 0.02


# ----------------------------------------------------------------------------------------------------- symmetric systems

SQUARE = [[1.0, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]]
TETRAHEDRON = [[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
CUBE = [[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
SYSTEMS = {
    "one particle": [[1.0, 2, 3]],
    "one particle at the origin": [[0.0, 0, 0]],
    "two particles": [[1.0, 2, 3], [0, 1, 0]],
    "two at one point": [[1.0, 2, 3]] * 2,
    "two of three at one point": [[1.0, 2, 3], [1, 2, 3], [0, 0, 1]],
    "all at one point": [[1.0, 2, 3]] * 5,
    "collinear": [[t, 2 * t, -t] for t in (0.0, 1.0, 3.0, -2.0)],
    "collinear and even": [[t, t, t] for t in (-1.0, 0.0, 1.0)],
    "planar": [[1.0, 0, 2], [0.5, 3, 2], [-1, 1, 2], [2, 2, 2]],
    "square": SQUARE,
    "tetrahedron": TETRAHEDRON,
    "cube": CUBE,
}


def symmetric_systems(case: Case) -> Inputs:
    """All of `SYSTEMS` in one batch, at rest or moving away from the origin, with equal charges and categories."""
    sizes = torch.tensor([len(points) for points in SYSTEMS.values()])
    positions = torch.zeros(len(sizes), int(sizes.max()), 3, dtype=torch.float64)
    for row, points in enumerate(SYSTEMS.values()):
        positions[row, : len(points)] = torch.tensor(points)
    velocities = positions * (torch.arange(len(sizes)) % 2).view(-1, 1, 1)
    mask = torch.arange(positions.shape[1]) < sizes.unsqueeze(1)
    batch = {"positions": positions, "velocities": velocities, "charges": torch.ones_like(positions[..., :1])}
    batch["node_categories"] = torch.ones(*mask.shape, 2, dtype=torch.int64)
    return {"node_mask": mask, **{key: tensor for key, tensor in batch.items() if key in case.batch()}}


SPATIAL = [name for name, case in CASES.items() if case.group[-2:] == "3)"]


@torch.no_grad()
@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("name", SPATIAL)
def test_symmetric_systems_are_equivariant_under_coupled_noise(name, kind):
    model, batch = make_model(name, kind), symmetric_systems(CASES[name])
    noise = draw_noise(model, batch, 3, seed=1)
    output = model(**batch, noise=noise).logits
    assert output.isfinite().all()
    for seed in (1, 2, 3):
        h = motion_for(name, batch, seed)
        there = model(**move_batch(batch, h), noise=move_noise(noise, h)).logits
        difference = (there - move_output(name, output, h, batch["node_mask"])).abs().flatten(1).amax(dim=1)
        wrong = {system: float(error) for system, error in zip(SYSTEMS, difference, strict=True) if not error < 1e-10}
        assert not wrong


@pytest.mark.parametrize("kind", ["learned", "canonical", "frame", "haar"])
@pytest.mark.parametrize("name", SPATIAL)
def test_gradients_of_symmetric_systems_are_finite(name, kind):
    model, batch = copy.deepcopy(make_model(name, kind)).train(), symmetric_systems(CASES[name])
    for key in ("positions", "velocities"):
        if key in batch:
            batch[key].requires_grad_()
    outputs = model(**batch, num_samples=2, generator=seeded(1))
    assert outputs.logits.isfinite().all()
    (outputs.logits.square().sum() + sum(term for term in (outputs.entropy_loss,) if term is not None)).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    gradients |= {key: tensor.grad for key, tensor in batch.items() if tensor.requires_grad}
    assert {name for name, gradient in gradients.items() if not gradient.isfinite().all()} == set()
    assert any("interface" in name and gradient.abs().max() > 0 for name, gradient in gradients.items()) == (
        kind in ("learned", "canonical")
    )


# --------------------------------------------------------------------------------------------------------------- padding


@torch.no_grad()
@every_particle_kind
def test_padding_changes_nothing(name, kind):
    """Alone, beside larger systems or padded further: the same output for the same noise."""
    case, model = CASES[name], make_model(name, kind)
    keys, dimension = [key for key in case.batch() if key != "node_mask"], int(case.group[-2])
    batch, longer = (systems(*keys, dimension=dimension, num_nodes=nodes) for nodes in (None, 7))
    count = 1 if kind == "exact" else 3
    noise = draw_noise(model, longer, count, seed=1)
    axes = model.lps.distribution.noise_axes

    def first(row: slice, nodes: int) -> Inputs:
        return {key: part[row][:, :, :nodes] if axes[key].count("n") else part[row] for key, part in noise.items()}

    mixed = model(**batch, noise=first(slice(None), max(SIZES))).logits
    padded = model(**longer, noise=noise).logits
    for row, size in enumerate(SIZES):
        alone = {key: tensor[row : row + 1, :size] for key, tensor in batch.items()}
        expected = model(**alone, noise=first(slice(row, row + 1), size)).logits[0]
        for output in (mixed[row], padded[row]):
            kept = output[:size] if case.options.get("output", "3")[0] == "n" else output
            assert (kept - expected).abs().max() < 1e-12 * (1 + expected.abs().max())
            assert len(kept) == len(output) or output[size:].abs().max() == 0


# -------------------------------------------------------------------------------------------------------------- bad input


def changed(name: str, **changes: Any) -> Inputs:
    batch = inputs_of(name, "haar")
    return {**batch, **{key: change(batch.get(key)) for key, change in changes.items()}}


def with_nan(tensor: Tensor) -> Tensor:
    return tensor.index_fill(1, torch.tensor([0]), torch.nan)


BAD_INPUTS = [
    ("dynamics", {"positions": with_nan}, ValueError, r"^positions: expected finite numbers, got NaN or infinity"),
    ("dynamics", {"velocities": with_nan}, ValueError, r"^velocities: expected finite numbers, got NaN or infinity"),
    ("dynamics", {"charges": lambda x: x * torch.inf}, ValueError, r"^charges: expected finite numbers, got NaN or infinity"),
    ("dynamics", {"positions": lambda x: x[..., :2]}, ValueError, r"^positions: expected shape \(3, 4, 3\), got \(3, 4, 2\)"),
    (
        "plane dynamics",
        {"velocities": lambda x: x[:, :2]},
        ValueError,
        r"^velocities: expected shape \(3, 4, 2\), got \(3, 2, 2\)",
    ),
    ("dynamics", {"positions": lambda x: None}, ValueError, r"^positions: expected shape \(3, 4, 3\), got None"),
    ("dynamics", {"charges": lambda x: x.squeeze(-1)}, ValueError, r"^charges: expected shape \(3, 4, 1\), got \(3, 4\)"),
    (
        "dynamics",
        {"charges": lambda x: x.expand(-1, -1, 2)},
        ValueError,
        r"^charges: expected shape \(3, 4, 1\), got \(3, 4, 2\)",
    ),
    ("dynamics", {"charges": lambda x: None}, ValueError, r"^charges: expected shape \(3, 4, 1\), got None"),
    ("dynamics", {"positions": lambda x: x.long()}, TypeError, r"^positions: expected floating point numbers, got torch.int64"),
    (
        "dynamics",
        {"node_mask": lambda x: x & False},
        ValueError,
        r"^node_mask: expected at least one node in every graph, graph 0",
    ),
    ("dynamics", {"node_mask": lambda x: x.flip(1)}, ValueError, r"^node_mask: expected the nodes of each graph first"),
    ("dynamics", {"node_mask": lambda x: x.float()}, TypeError, r"^node_mask: expected bool, got torch.float32"),
    (
        "molecules",
        {"charges": lambda x: torch.ones(3, 4, 1)},
        ValueError,
        r"^charges: this model has the inputs node_features, pos",
    ),
    ("molecules", {"node_categories": lambda x: x + 2}, ValueError, r"^node_categories: feature 0 has categories 0 to 2, got 3"),
    (
        "graphs",
        {"edge_index": lambda x: x + 4},
        ValueError,
        r"^edge_index: graph 0 has 4 nodes, expected node numbers 0 to 3, got 4",
    ),
    ("links", {"pair_index": lambda x: torch.full((3, 2, 1), 4)}, ValueError, r"^pair_index: .*graph"),
    ("links", {"pair_index": lambda x: torch.full((3, 2, 1), -1)}, ValueError, r"^pair_index: .*graph"),
    ("links", {"pair_index": lambda x: torch.zeros(3, 1, 1).long()}, ValueError, r"^pair_index: expected shape"),
    ("links", {"pair_index": lambda x: torch.zeros(3, 2, 1)}, TypeError, r"^pair_index: expected int64, got torch.float32"),
    ("images, C_4", {"pixel_values": lambda x: x[..., :6]}, ValueError, r"group C_4 has quarter turns and expects square images"),
    ("images, D_4", {"pixel_values": lambda x: x[..., :6, :]}, ValueError, r"group D_4 .*got height 6 and width 8"),
    (
        "images, C_2",
        {"pixel_values": lambda x: x[:, :1]},
        ValueError,
        r"^pixel_values: expected shape \(batch, 2, height, width\)",
    ),
    ("images, C_4", {"pixel_values": lambda x: x * torch.nan}, ValueError, r"^pixel_values: expected finite numbers"),
    ("images, C_4", {"pixel_values": lambda x: x.byte()}, TypeError, r"^pixel_values: expected floating point numbers"),
    (
        "dynamics",
        {"group_elements": lambda x: torch.arange(4)},
        ValueError,
        r"^group_elements: expected a tuple with one entry for",
    ),
    (
        "images, C_4",
        {"group_elements": lambda x: torch.full((3, 2), 4)},
        ValueError,
        r"^group_elements: expected numbers from 0 to 3",
    ),
    ("dynamics", {"noise": lambda x: {}}, ValueError, r"^noise: expected a dict with the keys S_n, E\(3\), got \[\]"),
    ("dynamics", {"num_samples": lambda x: 0}, ValueError, r"^num_samples: expected at least 1, got 0"),
]


@pytest.mark.parametrize(("name", "changes", "error", "message"), BAD_INPUTS)
def test_bad_input_is_refused_with_a_reason(name, changes, error, message):
    with pytest.raises(error, match=message):
        make_model(name, "haar")(**changed(name, **changes))


@pytest.mark.parametrize("kind", PLANE_KINDS)
def test_images_that_are_not_square_are_refused_by_every_distribution(kind):
    with pytest.raises(ValueError, match="group C_4 has quarter turns and expects square images"):
        make_model("images, C_4", kind)(pixel_values=torch.zeros(1, 2, 8, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"group": "S_n", "inputs": {"positions": "n p"}},
            r"inputs\['positions'\] 'n p': the group S_n does not act on axis 'p'",
        ),
        ({"group": "E(3)", "inputs": {"pixel_values": "3 h w"}}, r"'3 h w': the group E\(3\) does not act on axis 'h'"),
        ({"group": "S_n", "output": "n v"}, r"output 'n v': the group S_n does not act on axis 'v'"),
        ({"group": "S_n x S_n"}, "group 'S_n x S_n': expected factors that act on different axes"),
        ({"group": "O(3) x SO(3)"}, r"group 'O\(3\) x SO\(3\)': expected factors that act on different axes"),
        ({"group": "C_4", "distribution": "frame"}, "distribution: expected one of .* for the group C_4, got 'frame'"),
        ({"group": "S_n x C_4"}, "group 'S_n x C_4': no interface network scores it"),
    ],
)
def test_groups_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LPSConfig(backbone_config=VIT, **options)
