"""The vector-neuron network against loops over nodes, against published numbers, under the group, on symmetric systems."""

import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from lps_hf.hub.published_names import apply_rules, vector_neuron_rules
from lps_hf.models.vector_neurons import VectorEdgeConvolution, VectorMaxPool, VectorNeuronInterface, VectorNeuronLayer
from tests.models.graph_cases import seeded

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
PUBLISHED = "interface.vnn_interface."
SIZES = [5, 1, 7, 2]
MASK = torch.arange(7) < torch.tensor(SIZES).unsqueeze(1)
every_mode = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
every_dimension = pytest.mark.parametrize("dimension", [2, 3, 4])
every_recording = pytest.mark.parametrize(
    ("case", "variant"), [(case, variant) for case in ("nbody_transformer", "nbody_gnn") for variant in ("k1", "k3")]
)
needs_recordings = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="needs the recordings of the published implementation in ../shared/golden"
)


def make_interface(dimension: int = 3, dtype: torch.dtype = torch.float64, **options) -> VectorNeuronInterface:
    """A network in which every parameter and running statistic matters."""
    torch.manual_seed(1)
    interface = VectorNeuronInterface(2, **{"dimension": dimension, "hidden_size": 20, "num_neighbors": 3, **options})
    with torch.no_grad():
        for name, tensor in interface.state_dict().items():
            if ".norm." in name and tensor.is_floating_point():
                tensor.add_(0.5 * torch.rand_like(tensor))
            elif "linear" in name:
                tensor.mul_(4)
    return interface.to(dtype)


def make_inputs(dimension: int = 3, num_samples: int = 2, num_nodes: int = 7, first: int = 0) -> dict[str, Tensor]:
    """Systems of `SIZES` nodes, the first of them in row `first`; rubbish on the padding."""
    vectors = torch.full((len(SIZES), num_samples, num_nodes, dimension, 2), torch.nan, dtype=torch.float64)
    mask = torch.zeros(len(SIZES), num_nodes, dtype=torch.bool)
    ties = torch.full(vectors.shape[:3], torch.nan, dtype=torch.float64)
    for system, size in enumerate(SIZES):
        drawn = torch.randn(num_samples, 7, dimension + 1, 2, generator=seeded(system), dtype=torch.float64)
        mask[system, first : first + size] = True
        vectors[system, :, first : first + size] = drawn[:, :size, :-1]
        ties[system, :, first : first + size] = drawn[:, :size, -1, 0]
    return {"vectors": vectors, "node_mask": mask, "ties": ties}


def orthogonal(dimension: int, seed: int) -> Tensor:
    """A rotation or reflection."""
    return torch.linalg.qr(torch.randn(dimension, dimension, generator=seeded(seed), dtype=torch.float64))[0]


def valid(scores: Tensor, mask: Tensor = MASK) -> Tensor:
    return scores[mask.unsqueeze(1).expand_as(scores)]


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def reference_layer(layer: VectorNeuronLayer, rows: Tensor) -> Tensor:
    """All rows (rows, d, channels) of a batch, padding left out."""
    feature, direction = rows @ layer.feature.weight.T, rows @ layer.direction.weight.T
    length, norm = feature.norm(dim=1) + 1e-6, layer.norm
    statistics = norm.running_mean.clone(), norm.running_var.clone()
    wanted = F.batch_norm(length, *statistics, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps)
    feature = feature / length.unsqueeze(1) * wanted.unsqueeze(1)
    product = (feature * direction).sum(dim=1, keepdim=True)
    inside = feature - product / ((direction**2).sum(dim=1, keepdim=True) + 1e-6) * direction
    return 0.2 * feature + 0.8 * torch.where(product >= 0, feature, inside)


def reference_pool(pool: VectorMaxPool, candidates: Tensor) -> Tensor:
    """Choose among candidates (candidates, d, channels)."""
    product = (candidates * (candidates @ pool.direction.weight.T)).sum(dim=1)
    return torch.stack([candidates[best, :, channel] for channel, best in enumerate(product.argmax(dim=0))], dim=-1)


def reference_convolution(convolution: VectorEdgeConvolution, clouds: list[Tensor]) -> list[Tensor]:
    edges = []
    for cloud in clouds:
        for center in cloud:
            nearest = sorted(cloud, key=lambda node, center=center: float((node - center).norm()))
            edges += [torch.stack([torch.cat([node - center, center], dim=-1) for node in nearest[: convolution.num_neighbors]])]
    rows = reference_layer(convolution.layer, torch.cat(edges)).split([len(some) for some in edges])
    nodes = torch.stack([reference_pool(convolution.pool, candidates) for candidates in rows])
    return list(nodes.split([len(cloud) for cloud in clouds]))


@torch.no_grad()
def reference(interface: VectorNeuronInterface, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Scores of all nodes in a row, and a frame of every system and sample; node by node and without padding."""
    clouds = [cloud[mask] for system, mask in zip(inputs["vectors"], inputs["node_mask"], strict=True) for cloud in system]
    sizes, features = [len(cloud) for cloud in clouds], []
    for convolution in interface.convolutions:
        clouds = reference_convolution(convolution, clouds)
        features.append(clouds)
    pooled = torch.stack([reference_pool(interface.frame_head.pool, cloud) for cloud in features[0]])
    head = interface.score_head
    local = torch.cat([torch.cat(clouds) for clouds in features], dim=-1)
    joint = reference_layer(head.joint, local).split(sizes)
    joint = torch.cat([torch.cat([cloud, cloud.mean(dim=0).expand_as(cloud)], dim=-1) for cloud in joint])
    frame = reference_layer(head.invariant_hidden, reference_layer(head.invariant_in, joint)) @ head.invariant_out.weight.T
    of_joint = torch.einsum("ndc,nde->nce", joint, frame).flatten(1)
    largest = torch.cat([cloud.amax(dim=0).expand_as(cloud) for cloud in of_joint.split(sizes)])
    invariants = torch.cat([largest, torch.einsum("ndc,nde->nce", local, frame).flatten(1)], dim=-1)
    return head.linear(invariants).squeeze(-1), pooled @ interface.frame_head.linear.weight.T


@every_mode
@pytest.mark.parametrize(("dimension", "num_layers", "num_neighbors"), [(2, 2, 1), (3, 3, 4), (4, 4, 2), (3, 5, 9)])
def test_it_agrees_with_loops_over_nodes(dimension, num_layers, num_neighbors, training):
    interface = make_interface(dimension, num_layers=num_layers, num_neighbors=num_neighbors).train(training)
    inputs = make_inputs(dimension)
    expected_scores, expected_frame = reference(interface, inputs)
    scores, frame = interface(**inputs)
    assert scores.shape == (4, 2, 7)
    assert frame.shape == (4, 2, dimension, dimension)
    assert_near(valid(scores), expected_scores)
    assert_near(frame.flatten(0, 1), expected_frame)
    assert expected_scores.std() > 0.01


@lru_cache
def recording(case: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / case / f"{case}.safetensors")


def our_name(published: str) -> str:
    (name,) = vector_neuron_rules()[published].names
    return name


def published_interface(case: str, dtype: torch.dtype) -> VectorNeuronInterface:
    interface = VectorNeuronInterface(2, node_scores=case == "nbody_transformer").to(dtype).eval()
    prefix = f"state_dict/{PUBLISHED}"
    published = {key.removeprefix(prefix): array for key, array in recording(case).items() if key.startswith(prefix)}
    weights = apply_rules(vector_neuron_rules(), published)
    interface.load_state_dict({name: weights[name] for name in interface.state_dict()})
    return interface


def published_vectors(case: str, variant: str, dtype: torch.dtype) -> Tensor:
    """Positions centred, velocities as they are, noise on both."""
    vectors = recording(case)["input/node_features"].to(dtype)
    center = vectors.mean(dim=1, keepdim=True) * torch.tensor([1, 0])
    return (vectors - center).unsqueeze(1) + recording(case)[f"{variant}/noise"].to(dtype)


@needs_recordings
@pytest.mark.parametrize("case", ["nbody_transformer", "nbody_gnn"])
def test_every_published_weight_has_a_place(case):
    published = [key.split(PUBLISHED)[1] for key in recording(case) if key.startswith(f"state_dict/{PUBLISHED}")]
    assert sorted(map(our_name, published)) == sorted(VectorNeuronInterface(2).state_dict())


@needs_recordings
@every_recording
# In single precision the recordings themselves are 5e-6 off the scores and 4e-5 off the gradients.
@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance", "gradient_tolerance"),
    [(torch.float64, "/fp64", 1e-12, 1e-11), (torch.float32, "", 3e-5, 3e-4)],
    ids=["float64", "float32"],
)
def test_it_agrees_with_the_published_implementation(case, variant, dtype, prefix, tolerance, gradient_tolerance):
    interface = published_interface(case, dtype)
    recorded = {
        name.removeprefix(f"{variant}{prefix}/"): array
        for name, array in recording(case).items()
        if name.startswith(f"{variant}{prefix}/")
    }
    scores, frame = interface(published_vectors(case, variant, dtype), torch.ones(4, 5, dtype=torch.bool))
    results = {"frame_raw": frame} if scores is None else {"scores_raw": scores, "frame_raw": frame}
    torch.autograd.backward(list(results.values()), [recorded[f"grad/{name}"] for name in results])
    deviations = {name: deviation(result, recorded[name]) for name, result in results.items()}
    assert {name: value for name, value in deviations.items() if not value <= tolerance} == {}
    prefix = f"grad/param/{PUBLISHED}"
    gradients = {name.removeprefix(prefix): array for name, array in recorded.items() if name.startswith(prefix)}
    assert {our_name(name) for name in gradients} == {name for name, _ in interface.named_parameters()}
    found = {name: interface.get_parameter(our_name(name)).grad for name in gradients}
    deviations = {name: deviation(found[name], gradients[name]) for name in gradients}
    assert {name: value for name, value in deviations.items() if not value <= gradient_tolerance} == {}


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected entry."""
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


@every_mode
@every_dimension
def test_a_rotation_or_reflection_turns_the_frame_and_leaves_the_scores(dimension, training):
    inputs, interface = make_inputs(dimension), make_interface(dimension).train(training)
    scores, frame = interface(**inputs)
    for seed in range(3):
        element = orthogonal(dimension, seed)
        turned_scores, turned_frame = interface(**{**inputs, "vectors": element @ inputs["vectors"]})
        assert_near(valid(turned_scores), valid(scores))
        assert_near(turned_frame, element @ frame)
    assert torch.linalg.det(frame[0]).abs().min() > 1e-6


@every_mode
@pytest.mark.parametrize("with_ties", [True, False])
def test_a_permutation_moves_the_scores_and_leaves_the_frame(training, with_ties):
    inputs, interface = make_inputs(), make_interface().train(training)
    if not with_ties:
        del inputs["ties"]
    scores, frame = interface(**inputs)
    # Anywhere, so that padding comes between the nodes.
    index = torch.stack([torch.randperm(7, generator=seeded(system)) for system in range(4)])
    rows = torch.arange(4).unsqueeze(1)
    moved = {name: tensor.transpose(1, 2)[rows, index].transpose(1, 2) for name, tensor in inputs.items() if name != "node_mask"}
    moved_mask = MASK[rows, index]
    moved_scores, moved_frame = interface(**moved, node_mask=moved_mask)
    assert_near(valid(moved_scores, moved_mask), valid(scores.transpose(1, 2)[rows, index].transpose(1, 2), moved_mask))
    assert_near(moved_frame, frame)
    assert not torch.allclose(valid(moved_scores, moved_mask), valid(scores))


def cross_polytope(dimension: int) -> Tensor:
    return torch.cat([torch.eye(dimension, dtype=torch.float64), -torch.eye(dimension, dtype=torch.float64)])


def symmetric_system(name: str) -> Tensor:
    """Positions (nodes, d) of systems in which nodes are equally near and alike."""
    if name == "tetrahedron":
        return torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    if name == "coincident":
        points = torch.randn(3, 3, generator=seeded(0), dtype=torch.float64)
        return points[torch.tensor([0, 1, 1, 2, 0, 1])]
    return cross_polytope({"square": 2, "octahedron": 3, "16-cell": 4}[name])


@pytest.mark.parametrize("name", ["square", "tetrahedron", "octahedron", "16-cell", "coincident"])
def test_symmetric_systems_are_equivariant_where_the_ties_move_along(name):
    positions = symmetric_system(name)
    nodes, dimension = positions.shape
    interface = make_interface(dimension).eval()
    mask = torch.ones(1, nodes, dtype=torch.bool)
    vectors = torch.stack([positions, 0 * positions], dim=-1).expand(1, 8, -1, -1, -1)
    ties = torch.rand(1, 8, nodes, generator=seeded(3), dtype=torch.float64)
    scores, frame = interface(vectors, mask, ties)
    for seed in range(5):
        element, index = orthogonal(dimension, seed), torch.randperm(nodes, generator=seeded(seed))
        turned_scores, turned_frame = interface((element @ vectors)[:, :, index], mask, ties[:, :, index])
        assert_near(turned_scores, scores[:, :, index])
        assert_near(turned_frame, element @ frame)
    if name != "coincident":
        # Such a system has no equivariant frame of its own: it is the ties that choose one.
        assert (frame - frame[:, :1]).abs().max() > 0.01


def test_the_stored_order_leaks_into_symmetric_systems_without_ties():
    interface, positions = make_interface(2).eval(), symmetric_system("square")
    vectors = torch.stack([positions, 0 * positions], dim=-1).view(1, 1, 4, 2, 2)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert not torch.allclose(interface(vectors, mask)[1], interface(vectors[:, :, [1, 2, 3, 0]], mask)[1])


def test_ties_decide_nothing_in_systems_without_symmetry():
    interface, inputs = make_interface().eval(), make_inputs()
    scores, frame = interface(**inputs)
    other_scores, other_frame = interface(**{**inputs, "ties": inputs["ties"].flip(1)})
    assert_near(valid(other_scores), valid(scores))
    assert_near(other_frame, frame)


@every_mode
@pytest.mark.parametrize(("num_nodes", "first"), [(12, 0), (12, 5)], ids=["behind", "around"])
def test_more_padding_changes_nothing(num_nodes, first, training):
    results = []
    for inputs in (make_inputs(), make_inputs(num_nodes=num_nodes, first=first)):
        interface = make_interface().train(training)
        scores, frame = interface(**inputs)
        results.append({"scores": valid(scores, inputs["node_mask"]), "frame": frame, **dict(interface.named_buffers())})
    for name, result in results[0].items():
        assert_near(results[1][name], result, 1e-12)


def test_padding_behind_a_system_smaller_than_the_neighborhood_changes_nothing():
    vectors = torch.randn(1, 2, 2, 3, 2, dtype=torch.float64)
    padded = F.pad(vectors, (0, 0, 0, 0, 0, 4), value=torch.nan)
    results = []
    for system, mask in ((vectors, torch.ones(1, 2, dtype=torch.bool)), (padded, torch.arange(6).unsqueeze(0) < 2)):
        interface = make_interface().train()
        scores, frame = interface(system, mask)
        results.append((scores[:, :, :2], frame, *interface.buffers()))
    for alone, inside in zip(*results, strict=True):
        assert_near(inside, alone, 1e-12)


def test_padding_does_not_move_the_bound_below_which_distances_are_equal():
    # The first node's neighbors on either side are equally near by that bound, and only by a fifth of it.
    positions = torch.tensor([0.0, -1 - 2e-11, 1.0], dtype=torch.float64)
    vectors = torch.stack([positions, positions.square(), 0 * positions], dim=-1).view(1, 1, 3, 3, 1) * torch.ones(2)
    padded, mask = F.pad(vectors, (0, 0, 0, 0, 0, 9)), torch.arange(12).unsqueeze(0) < 3
    interface = make_interface(num_neighbors=2).eval()
    alone, inside = interface(vectors, mask[:, :3]), interface(padded, mask)
    assert_near(inside[0][:, :, :3], alone[0], 1e-12)
    assert_near(inside[1], alone[1], 1e-12)


def test_a_system_gives_the_same_alone():
    interface, inputs = make_interface().eval(), make_inputs()
    together = interface(**inputs)
    for system, size in enumerate(SIZES):
        for sample in range(2):
            here = (slice(system, system + 1), slice(sample, sample + 1), slice(size))
            mask = torch.ones(1, size, dtype=torch.bool)
            scores, frame = interface(inputs["vectors"][here], mask, inputs["ties"][here])
            assert_near(scores, together[0][here], 1e-12)
            assert_near(frame, together[1][here[:2]], 1e-12)


@every_mode
def test_a_system_without_nodes_disturbs_nobody(training):
    inputs = make_inputs()
    expected = make_interface().train(training)(**inputs)
    vectors = torch.cat([inputs["vectors"], torch.full_like(inputs["vectors"][:1], torch.nan)]).requires_grad_()
    interface = make_interface().train(training)
    scores, frame = interface(vectors, F.pad(MASK, (0, 0, 0, 1)), F.pad(inputs["ties"], (0, 0, 0, 0, 0, 1)))
    assert_near(valid(scores[:-1]), valid(expected[0]), 1e-12)
    assert_near(frame[:-1], expected[1], 1e-12)
    assert scores[-1].isfinite().all()
    assert not frame[-1].any()
    (valid(scores[:-1]).sum() + frame.sum()).backward()
    assert all(tensor.grad.isfinite().all() for tensor in (vectors, *interface.parameters()))


@every_mode
@pytest.mark.parametrize(("node_scores", "frame"), [(True, True), (True, False), (False, True)])
def test_gradients_reach_every_parameter_and_every_vector_but_no_padding(node_scores, frame, training):
    interface, inputs = make_interface(node_scores=node_scores, frame=frame).train(training), make_inputs()
    vectors = inputs["vectors"].requires_grad_()
    scores, frames = interface(**inputs)
    loss = sum(
        (result * torch.randn_like(result)).sum()
        for result in (None if scores is None else valid(scores), frames)
        if result is not None
    )
    loss.backward()
    for name, parameter in interface.named_parameters():
        assert parameter.grad.abs().max() > 1e-9, name
    per_node = vectors.grad.abs().amax(dim=(3, 4))
    assert not per_node.masked_select(~MASK.unsqueeze(1)).any()
    if node_scores:
        assert valid(per_node).min() > 0


def test_the_directions_of_the_pools_are_saved_and_not_trained():
    interface = VectorNeuronInterface(2)
    directions = {name for name in interface.state_dict() if name.endswith("pool.direction.weight")}
    assert len(directions) == 3
    assert directions.isdisjoint(name for name, _ in interface.named_parameters())
    assert all(parameter.requires_grad for parameter in interface.parameters())


def degenerate_systems(dtype: torch.dtype) -> Tensor:
    """Five nodes: all at rest in the center, coincident elsewhere, on a line, in pairs, and one that moves."""
    systems = torch.zeros(5, 1, 5, 3, 2, dtype=dtype)
    systems[1] = torch.tensor([1.0, 2.0]).to(dtype)
    systems[2, 0, :, 0, 0] = torch.arange(-2.0, 3.0, dtype=dtype)
    systems[3, 0, 1:3] = 1
    systems[4, 0, 0, 2, 1] = 1
    return systems


@every_mode
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_on_degenerate_systems(dtype, training):
    interface = make_interface(dtype=dtype, num_layers=8).train(training)
    vectors = degenerate_systems(dtype).requires_grad_()
    ones = torch.ones(5, 5, dtype=torch.bool)
    for mask in (ones, ones & (torch.arange(5) < 1)):
        scores, frame = interface(vectors, mask, torch.rand(5, 1, 5, dtype=dtype))
        assert scores.isfinite().all()
        assert frame.isfinite().all()
        gradients = torch.autograd.grad(scores.sum() + frame.sum(), [vectors, *interface.parameters()])
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_frame_of_nothing_is_zero():
    frame = make_interface().eval()(torch.zeros(1, 1, 1, 3, 2, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool))[1]
    assert not frame.any()


@every_mode
def test_single_precision_is_accurate(training):
    inputs = make_inputs()
    scores, frame = make_interface().train(training)(**inputs)
    single = make_interface(dtype=torch.float32).train(training)
    single_scores, single_frame = single(inputs["vectors"].float(), MASK, inputs["ties"])
    assert (single_scores.dtype, single_frame.dtype) == (torch.float64, torch.float32)
    assert deviation(valid(single_scores).double(), valid(scores)) < 1e-4
    assert deviation(single_frame.double(), frame) < 1e-5


def test_neighbors_far_from_the_origin_are_told_apart_in_single_precision():
    # Distances from matrix products, PyTorch's own choice for so many nodes, would be differences of numbers around 1e7.
    vectors = 1000 + torch.randn(1, 1, 40, 3, 2, generator=seeded(0), dtype=torch.float64)
    mask = torch.ones(1, 40, dtype=torch.bool)
    convolution = make_interface().convolutions[0].eval()
    with torch.no_grad():
        for linear in (convolution.layer.feature, convolution.layer.direction):
            linear.weight[:, 2:] = 0  # leaves the differences to the neighbors
    expected = convolution(vectors, mask)
    assert deviation(convolution.float()(vectors.float(), mask).double(), expected) < 0.01


@every_mode
def test_a_head_alone_gives_the_same_as_beside_the_other(training):
    inputs, both = make_inputs(), make_interface().train(training)
    weights = {name: tensor.clone() for name, tensor in both.state_dict().items()}
    scores, frame = both(**inputs)
    for index, options in ((0, {"frame": False}), (1, {"node_scores": False})):
        alone = make_interface(**options).train(training)
        assert set(alone.state_dict()) < set(weights)
        alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
        results = alone(**inputs)
        assert results[1 - index] is None
        expected = (scores, frame)[index]
        assert_near(results[index].nan_to_num(), expected.nan_to_num(), 1e-12)


def test_dropout_is_for_training_and_drops_whole_vectors():
    interface, inputs = make_interface(dropout=0.5), make_inputs()
    element = orthogonal(3, 0)
    turned = {**inputs, "vectors": element @ inputs["vectors"]}
    results = []
    for given in (inputs, turned, inputs):
        torch.manual_seed(min(len(results), 1))
        results.append(interface.train()(**given))
    assert not torch.allclose(valid(results[0][0]), valid(results[2][0]))
    assert not torch.allclose(results[0][1], results[2][1])
    assert_near(valid(results[1][0]), valid(results[2][0]))
    assert_near(results[1][1], element @ results[2][1])
    scores, frame = interface.eval()(**inputs)
    again = interface(**inputs)
    assert torch.equal(valid(scores), valid(again[0]))
    assert torch.equal(frame, again[1])


def test_sizes_are_as_published_and_never_too_small_for_a_frame():
    assert VectorNeuronInterface(2).frame_head.linear.weight.shape == (3, 21)
    assert VectorNeuronInterface(2).score_head.linear.in_features == 252
    small = VectorNeuronInterface(1, dimension=4, hidden_size=1, frame=True)
    assert small.frame_head.linear.weight.shape == (4, 4)
    vectors = torch.randn(1, 1, 6, 4, 1, generator=seeded(0))
    frame = small.eval()(vectors, torch.ones(1, 6, dtype=torch.bool))[1]
    assert torch.linalg.matrix_rank(frame).item() == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_vectors": 0}, "num_vectors: expected an integer of at least 1, got 0"),
        ({"dimension": 1}, "dimension: expected an integer of at least 2, got 1"),
        ({"hidden_size": 0}, "hidden_size: expected an integer of at least 1, got 0"),
        ({"num_layers": 1}, "num_layers: expected an integer of at least 2, got 1"),
        ({"num_neighbors": 0}, "num_neighbors: expected an integer of at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ({"dropout": math.nan}, r"dropout: expected a number in \[0, 1\), got nan"),
        ({"node_scores": False, "frame": False}, "node_scores, frame: expected at least one True"),
    ],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VectorNeuronInterface(**{"num_vectors": 2, **options})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": torch.zeros(4, 7, 3, 2)}, r"vectors: expected shape \(batch, num_samples, nodes, 3, 2\)"),
        ({"vectors": torch.zeros(4, 2, 7, 2, 2)}, r"got \(4, 2, 7, 2, 2\)"),
        ({"vectors": torch.zeros(4, 2, 7, 3, 1)}, r"got \(4, 2, 7, 3, 1\)"),
        ({"vectors": torch.zeros(4, 2, 0, 3, 2)}, "at least one node"),
        ({"node_mask": MASK[:, :6]}, r"node_mask: expected bool of shape \(4, 7\)"),
        ({"node_mask": MASK.float()}, "got torch.float32"),
        ({"ties": torch.zeros(4, 7)}, r"ties: expected shape \(4, 2, 7\), one for every node, got \(4, 7\)"),
    ],
)
def test_bad_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_interface()(**{**make_inputs(), **changes})
