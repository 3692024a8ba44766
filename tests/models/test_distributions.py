"""The distributions p(g|x) on S_n: equivariance by coupled noise, ties, padding, and what is not computed."""

import itertools
import math

import pytest
import torch
from torch import Tensor

import lps_hf
from lps_hf.data.structured_graphs import inner_symmetric_graphs
from lps_hf.models import symmetric_group
from lps_hf.models.batches import encode_batch
from lps_hf.models.configuration_base_networks import MLPBaseConfig
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.distributions import DistributionSample, EquivariantDistribution, Noise
from lps_hf.models.frames import orders_of_frame
from lps_hf.models.groups import get_group
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.representations import Batch as FieldBatch
from lps_hf.models.representations import Representation
from lps_hf.models.symmetric_group import SymmetricGroup
from lps_hf.models.symmetrized import Symmetrized
from tests.models.graph_cases import (
    EQUIVARIANT_KINDS,
    KINDS,
    Batch,
    calibrate,
    chi_square,
    complete_graph,
    count_orders,
    kwargs_for,
    place_noise,
    random_batch,
    relabel,
    seeded,
    tiny_config,
    tiny_model,
    with_frame_ranks,
)

SIZES = [5, 1, 7, 4]
CORNERS = {
    "square": [[1.0, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]],
    "tetrahedron": [[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]],
    "triangle": [[0.0, 0, 1], [1, 0, 0], [-0.5, 3**0.5 / 2, 0], [-0.5, -(3**0.5) / 2, 0]],
}
GENERIC = torch.tensor([[1.0, 0, 0.3], [0, 2, 0], [0.5, -1, 0], [-2, 0.2, 1]])
every_kind = pytest.mark.parametrize("kind", KINDS)
every_equivariant_kind = pytest.mark.parametrize("kind", EQUIVARIANT_KINDS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def make_distribution(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0, **options) -> EquivariantDistribution:
    return tiny_model(dtype=dtype, seed=seed, distribution=kind, **options).distribution


def encode(distribution: EquivariantDistribution, batch: Batch) -> FieldBatch:
    return encode_batch(tiny_config(distribution=distribution.kind, max_nodes=1000), torch.float64, batch)


def draw_noise(distribution: EquivariantDistribution, batch: Batch, num_samples: int, seed: int | None = None) -> Noise:
    return distribution.draw_noise(encode(distribution, batch), num_samples, None if seed is None else seeded(seed))


def sample(distribution: EquivariantDistribution, batch: Batch, noise: Noise) -> DistributionSample:
    return distribution(encode(distribution, batch), noise)


def draw(distribution: EquivariantDistribution, batch: Batch, num_samples: int, seed: int = 0) -> Tensor:
    noise = draw_noise(distribution, batch, num_samples, seed)
    with torch.no_grad():
        return sample(distribution, batch, noise).elements.index


def random_relabelling(batch: Batch, seed: int = 5) -> Tensor:
    elements = torch.arange(batch["node_mask"].shape[1]).repeat(len(batch["node_mask"]), 1)
    for graph, size in enumerate(batch["node_mask"].sum(1).tolist()):
        elements[graph, :size] = torch.randperm(size, generator=seeded(seed + graph))
    return elements


def tied_batch(copies: int = 1) -> Batch:
    """A path of three nodes and one on its own: only the two ends of the path are tied."""
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    return {
        "node_categories": torch.zeros(copies, 4, 2, dtype=torch.int64),
        "edge_index": edges.expand(copies, 2, 4),
        "edge_categories": torch.zeros(copies, 4, 1, dtype=torch.int64),
        "node_mask": torch.ones(copies, 4, dtype=torch.bool),
        "edge_mask": torch.ones(copies, 4, dtype=torch.bool),
    }


@every_equivariant_kind
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_coupled_noise_is_exactly_equivariant(kind, training):
    distribution = make_distribution(kind).train(training)
    batch = random_batch(SIZES)
    for seed in range(20):
        h = random_relabelling(batch, seed=10 * seed)
        noise = draw_noise(distribution, batch, 3, seed)
        moved = sample(distribution, kwargs_for(kind, relabel(batch, h)), place_noise(noise, h))
        stayed = sample(distribution, kwargs_for(kind, batch), noise)
        expected = torch.stack([element[index] for element, index in zip(h, stayed.elements.index, strict=True)])
        assert torch.equal(moved.elements.index, expected)


@every_equivariant_kind
def test_noise_that_does_not_move_with_the_nodes_breaks_equivariance(kind):
    # So noise must not be tied to node numbers, as it is where it is drawn once and kept.
    distribution = make_distribution(kind, noise_scale=50.0)
    batch = complete_graph(7)
    h = random_relabelling(batch)
    noise = draw_noise(distribution, batch, 3)
    moved = sample(distribution, kwargs_for(kind, relabel(batch, h)), noise)
    stayed = sample(distribution, kwargs_for(kind, batch), noise)
    assert not torch.equal(moved.elements.index, h[0][stayed.elements.index])


@every_equivariant_kind
def test_every_call_draws_new_noise(kind):
    distribution, batch = make_distribution(kind, noise_scale=50.0), complete_graph(7)
    noise = [draw_noise(distribution, batch, 4) for _ in range(2)]
    assert not any(torch.equal(noise[0][name], noise[1][name]) for name in distribution.noise_axes)
    drawn = [sample(distribution, kwargs_for(kind, batch), one).elements.index for one in noise]
    assert not torch.equal(*drawn)
    assert len(drawn[0][0].unique(dim=0)) == 4
    again = [draw_noise(distribution, batch, 4, seed=3) for _ in range(2)]
    assert all(torch.equal(again[0][name], again[1][name]) for name in distribution.noise_axes)


@every_kind
@every_dtype
@pytest.mark.parametrize("num_samples", [1, 2, 7])
def test_every_permutation_fixes_padding_and_moves_only_nodes(kind, dtype, num_samples):
    # The published sampler tiles sizes sample by sample while the batch goes graph by graph.
    batch = kwargs_for(kind, random_batch(SIZES, num_nodes=9))
    index = draw(make_distribution(kind, dtype), batch, num_samples)
    assert index.shape == (4, num_samples, 9)
    for graph, size in enumerate(SIZES):
        assert (index[graph, :, size:] == torch.arange(size, 9)).all()
        assert (index[graph, :, :size].sort(-1).values == torch.arange(size)).all()


def test_noise_is_uniform_on_every_feature_and_once_more_for_ties():
    for kind in KINDS:
        distribution = make_distribution(kind, torch.float32)
        noise = draw_noise(distribution, random_batch([6, 6]), 500, seed=0)
        expected = {"S_n": ((2, 500, 6), torch.float64), "interface": ((2, 500, 6, 5), torch.float32)}
        if kind != "learned":
            del expected["interface"]
        assert {name: (part.shape, part.dtype) for name, part in noise.items()} == expected
        assert {name: str(axes) for name, axes in distribution.noise_axes.items()} == (
            {"S_n": "n", "interface": "n 5"} if kind == "learned" else {"S_n": "n"}
        )
        for part in noise.values():
            assert 0 <= part.min() < 0.01 < 0.99 < part.max() < 1
            assert abs(float(part.mean()) - 0.5) < 0.01


def test_noise_of_the_network_is_independent_of_that_for_ties():
    noise = draw_noise(make_distribution("learned"), random_batch([6]), 5_000, seed=0)
    columns = torch.cat([noise["S_n"].unsqueeze(-1), noise["interface"].double()], dim=-1).flatten(0, 2)
    correlations = torch.corrcoef(columns.T) - torch.eye(6, dtype=torch.float64)
    assert correlations.abs().max() < 5 / len(columns) ** 0.5


def test_haar_ignores_the_graph_and_is_uniform():
    distribution = make_distribution("haar")
    index = draw(distribution, random_batch([4]), 20_000)
    assert abs(chi_square(count_orders(index[0]))) < 4
    assert torch.equal(draw(distribution, random_batch([4], seed=9), 20_000), index)


def test_none_keeps_the_stored_order():
    index = draw(make_distribution("none"), random_batch(SIZES), 3)
    assert torch.equal(index, torch.arange(7).expand(4, 3, 7))


def test_frame_is_uniform_over_the_orders_that_sort_the_ranks():
    batch = {**random_batch([4, 3]), "frame_ranks": torch.tensor([[1, 0, 1, 1], [2, 0, 1, -1]])}
    index = draw(make_distribution("frame"), batch, 12_000)
    assert (index[0, :, 0] == 1).all()
    rest = torch.tensor([0, -1, 1, 2])[index[0, :, 1:]]
    assert abs(chi_square(count_orders(rest))) < 4
    assert (index[1] == torch.tensor([1, 2, 0, 3])).all()


def test_exact_lists_the_orders_that_sort_the_ranks_with_equal_weights():
    batch = {**random_batch([4, 3]), "frame_ranks": torch.tensor([[1, 0, 1, 1], [2, 0, 1, -1]])}
    distribution = make_distribution("exact")
    drawn = sample(distribution, batch, draw_noise(distribution, batch, 1))
    assert drawn.entropy is None
    index, weights = drawn.elements.index, drawn.weights
    assert {tuple(order) for order in index[0].tolist()} == {(1, *rest) for rest in itertools.permutations((0, 2, 3))}
    assert index[0].shape == (6, 4)
    torch.testing.assert_close(weights[0], torch.full((6,), 1 / 6, dtype=torch.float64))
    # A smaller frame is filled up with elements that do not count.
    assert index[1, 0].tolist() == [1, 2, 0, 3]
    assert weights[1].tolist() == [1, 0, 0, 0, 0, 0]


def test_learned_is_uniform_over_the_places_of_nodes_that_a_symmetry_exchanges():
    distribution = make_distribution("learned", torch.float32, max_nodes=4)
    batch = complete_graph(4, copies=2)
    batch["edge_mask"] = torch.zeros_like(batch["edge_mask"])
    entropy = sample(distribution, batch, draw_noise(distribution, batch, 10)).entropy
    assert entropy.detach() < 0.75 * 2 * math.log(4)  # that of tied nodes is 2 log 4
    index = draw(distribution, batch, 6_000)
    for graph in range(2):
        assert abs(chi_square(count_orders(index[graph]))) < 4


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16 autocast"])
@every_dtype
def test_tied_nodes_come_in_random_order(autocast, dtype):
    # Noise of 1e-6 vanishes in bfloat16, and ties then fall back to the stored order.
    distribution = make_distribution("canonical", dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        complete = draw(distribution, complete_graph(4), 4_000)[0]
        path = draw(distribution, tied_batch(), 4_000)[0]
    assert abs(chi_square(count_orders(complete))) < 4
    orders, counts = path.unique(dim=0, return_counts=True)
    assert len(orders) == 2
    assert abs(chi_square(counts)) < 4
    assert torch.equal(orders[0][orders[0] % 2 == 1], orders[1][orders[1] % 2 == 1])


def share_of_pairs_in_stored_order(index: Tensor) -> float:
    """How often a node comes before one that is stored behind it; a half on average if the stored order is hidden."""
    ranks = index.argsort(-1)
    first, second = torch.triu_indices(ranks.shape[-1], ranks.shape[-1], 1)
    return float((ranks[..., first] < ranks[..., second]).double().mean())


@pytest.mark.parametrize("kind", ["canonical", "frame", "haar"])
@every_dtype
def test_many_tied_nodes_do_not_leak_the_stored_order(kind, dtype):
    # Where the noise that breaks ties has few different values, it ties itself now and then.
    index = draw(make_distribution(kind, dtype, max_nodes=24), kwargs_for(kind, complete_graph(24)), 12_000)[0]
    nodes, draws = 24, 12_000
    deviation = ((2 * nodes + 5) / (18 * nodes * (nodes - 1)) / draws) ** 0.5
    assert abs(share_of_pairs_in_stored_order(index) - 0.5) < 4 * deviation


@pytest.mark.parametrize("kind", ["learned", "canonical"])
def test_autocast_does_not_change_the_permutations(kind):
    # The interface is a network like the backbone, but a sort needs every digit of its scores.
    distribution, batch = make_distribution(kind, torch.float32), random_batch([40, 33, 7], num_nodes=40)
    noise = draw_noise(distribution, batch, 5)
    plain = sample(distribution, batch, noise)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = sample(distribution, batch, noise)
    assert torch.equal(plain.elements.index, mixed.elements.index)
    for one, other in zip(plain.elements.soft.tensors, mixed.elements.soft.tensors, strict=True):
        assert torch.equal(one, other)
    assert mixed.entropy.dtype == torch.float32


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_tied_nodes_whose_sums_round_differently_come_in_random_order(training):
    # Two copies of one graph, stored in other orders: the scores of a node and its copy differ by rounding alone.
    size, draws = 40, 4_000
    torch.manual_seed(1)
    config = tiny_config(distribution="canonical", node_categories=[9], interface_config={"hidden_size": 64})
    distribution = LPSModel(config).distribution
    calibrate(distribution.interface)
    distribution.train(training)
    element, edges = torch.randperm(size), torch.randint(size, (2, 2 * size))
    categories = torch.randint(9, (size,))
    copied = torch.cat([categories, torch.empty_like(categories).index_copy_(0, element, categories)])
    ends = torch.cat([edges, element[edges][:, torch.randperm(2 * size)] + size], dim=1).unsqueeze(0)
    masks = torch.ones(1, 2 * size, dtype=torch.bool), torch.ones(1, 4 * size, dtype=torch.bool)
    features = torch.nn.functional.one_hot(copied, 9).float().unsqueeze(0)
    batch = FieldBatch({"node_features": features}, masks[0], ends, masks[1])
    with torch.no_grad():
        rank = distribution(batch, distribution.draw_noise(batch, draws)).elements.rank[0]
    deviations = ((rank[:, :size] < rank[:, size:][:, element]).double().mean(0) - 0.5) * 2 * draws**0.5
    assert deviations.square().mean() < 1 + 4 * (2 / size) ** 0.5


@every_dtype
def test_scores_in_double_precision_leave_the_statistics_of_batches_as_they_are(dtype):
    distribution, batch = make_distribution("canonical", dtype).train(), random_batch(SIZES)
    before = {name: tensor.clone() for name, tensor in distribution.state_dict().items()}
    assert any("num_batches_tracked" in name for name in before)
    with torch.no_grad():
        sample(distribution, batch, draw_noise(distribution, batch, 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in distribution.state_dict().items())


@pytest.mark.parametrize("kind", ["learned", "canonical"])
def test_a_network_that_scores_nothing_leaves_the_order_to_chance(kind):
    distribution = make_distribution(kind)
    torch.nn.init.zeros_(distribution.interface.head.weight)
    torch.nn.init.zeros_(distribution.interface.head.bias)
    batch = random_batch([4])
    assert abs(chi_square(count_orders(draw(distribution, batch, 4_000)[0]))) < 4
    noise = draw_noise(distribution, batch, 2)
    drawn = sample(distribution, batch, noise)
    drawn.entropy.backward()
    assert all(parameter.grad.isfinite().all() for parameter in distribution.parameters())


def test_noise_scale_multiplies_the_noise():
    batch = random_batch(SIZES)
    half, full = (make_distribution("learned", noise_scale=scale) for scale in (0.5, 1.0))
    noise = draw_noise(half, batch, 3, seed=0)
    scaled = {**noise, "interface": 0.5 * noise["interface"]}
    assert torch.equal(sample(half, batch, noise).elements.index, sample(full, batch, scaled).elements.index)
    silent, canonical = make_distribution("learned", noise_scale=0.0), make_distribution("canonical")
    canonical.load_state_dict(silent.state_dict())
    expected = sample(canonical, batch, {"S_n": noise["S_n"]}).elements.index
    assert torch.equal(sample(silent, batch, noise).elements.index, expected)
    assert not torch.equal(sample(full, batch, noise).elements.index, expected)


@pytest.mark.parametrize("kind", ["learned", "canonical"])
def test_soft_permutations_and_entropy_come_with_the_gradient(kind):
    distribution, batch = make_distribution(kind), random_batch(SIZES)
    noise = draw_noise(distribution, batch, 3)
    drawn = sample(distribution, batch, noise)
    soft = drawn.elements.soft.matrix(drawn.elements.index)
    assert soft.shape == (4, 3, 7, 7)
    assert drawn.entropy == drawn.elements.soft.entropy(batch["node_mask"]).to(drawn.entropy.dtype)
    # The node of each rank is also the likeliest one in the soft matrix wherever one is clearly ahead.
    clear = soft > 0.9
    hard = torch.nn.functional.one_hot(drawn.elements.index, 7).mT.bool()
    assert clear.any()
    assert hard[clear].all()
    drawn.entropy.backward()
    assert all(parameter.grad.isfinite().all() for parameter in distribution.parameters())


@every_kind
def test_nothing_soft_is_computed_where_only_a_sort_is_needed(kind, monkeypatch):
    distribution, batch = make_distribution(kind), kwargs_for(kind, random_batch(SIZES))
    monkeypatch.setattr(symmetric_group, "soft_permutation", lambda *_: pytest.fail("not needed"))
    noise = draw_noise(distribution, batch, 3)
    with torch.no_grad():
        quiet = sample(distribution, batch, noise)
    assert quiet.elements.soft is None
    assert quiet.entropy is None
    frozen = sample(distribution.requires_grad_(False), batch, noise)
    assert frozen.elements.soft is None
    assert torch.equal(frozen.elements.index, quiet.elements.index)


def test_only_what_is_learned_has_parameters():
    for kind in KINDS:
        has_interface = kind in ("learned", "canonical")
        assert bool(list(make_distribution(kind).parameters())) == has_interface


def test_temperature_and_rounds_reach_the_soft_matrix():
    batch, entropies = random_batch(SIZES), []
    noise = draw_noise(make_distribution("learned"), batch, 2)
    for options in ({"temperature": 0.001}, {"temperature": 0.1}, {"temperature": 0.1, "sinkhorn_iterations": 0}):
        distribution = make_distribution("learned", **options)
        entropies.append(float(sample(distribution, batch, noise).entropy.detach()))
    assert entropies[0] < entropies[1]
    assert entropies[1] != entropies[2]
    assert all(abs(left - right) > 1e-4 for left, right in itertools.pairwise(entropies))


def test_a_frame_needs_ranks():
    distribution, batch = make_distribution("frame"), random_batch(SIZES)
    noise = draw_noise(distribution, batch, 2)
    with pytest.raises(ValueError, match=r"frame_ranks: expected an int64 tensor of shape \(batch, nodes\).*got None"):
        sample(distribution, batch, noise)
    assert sample(distribution, with_frame_ranks(batch), noise).entropy is None


@pytest.mark.parametrize("place", [(slice(0, 1),), (slice(None), slice(0, 5))])
def test_ranks_of_another_shape_are_refused(place):
    distribution, batch = make_distribution("frame"), with_frame_ranks(random_batch(SIZES))
    noise = draw_noise(distribution, batch, 2)
    with pytest.raises(ValueError, match=r"frame_ranks: expected shape \(4, 7\)"):
        sample(distribution, {**batch, "frame_ranks": batch["frame_ranks"][place]}, noise)


def test_canonical_scores_of_nodes_that_symmetry_exchanges_are_equal_to_the_last_digit(monkeypatch):
    # With networks whose terms cancel, single precision would differ by far more than ties may.
    seen, project = [], SymmetricGroup.project
    monkeypatch.setattr(
        SymmetricGroup, "project", lambda self, scores, *rest: seen.append(scores) or project(self, scores, *rest)
    )
    row = inner_symmetric_graphs()["grid"]
    batch = {"edge_index": torch.tensor(row["edge_index"]).unsqueeze(0), "node_features": torch.ones(1, row["num_nodes"], 1)}
    orbits = torch.tensor(row["orbits"])
    for seed in range(20):
        torch.manual_seed(seed)
        backbone = MLPBaseConfig(hidden_sizes=[2])
        model = LPSModel(LPSConfig(backbone_config=backbone, distribution="canonical", max_nodes=25)).eval()
        with torch.no_grad():
            model(**batch, num_samples=1)
        scores = seen.pop().flatten()
        assert scores.dtype == torch.float64
        for orbit in orbits.unique():
            members = scores[orbits == orbit]
            assert members.max() - members.min() <= 1e-12 * scores.abs().max()


def ranks_changed_by_ties(distribution: EquivariantDistribution, nodes: int, training: bool = False) -> float:
    """The share of ranks that other noise for ties changes."""
    edges = torch.randint(nodes, (1, 2, 3 * nodes), generator=seeded(1))
    masks = torch.ones(1, nodes, dtype=torch.bool), torch.ones(1, 3 * nodes, dtype=torch.bool)
    batch = FieldBatch({"node_features": torch.randn(1, nodes, 5, generator=seeded(2))}, masks[0], edges, masks[1])
    noise, other = (distribution.train(training).draw_noise(batch, 2, seeded(seed)) for seed in (3, 4))
    with torch.set_grad_enabled(training):
        ranks = [distribution(batch, {**noise, "S_n": one["S_n"]}).elements.rank for one in (noise, other)]
    return float((ranks[0] != ranks[1]).double().mean())


@pytest.mark.parametrize("bias", [0.0, 1000.0])
@pytest.mark.parametrize(("nodes", "most"), [(444, 0.001), (2000, 0.005)])
def test_ties_do_not_overrule_the_learned_order(nodes, most, bias):
    distribution = make_distribution("learned", torch.float32, max_nodes=nodes)
    torch.nn.init.constant_(distribution.interface.head.bias, bias)
    assert ranks_changed_by_ties(distribution, nodes) <= most


@pytest.mark.parametrize("bias", [0.0, 1000.0])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_bias_of_the_head_does_not_count(bias, training):
    # Two copies of a path: scores of a node and its copy are equal up to rounding, those of others are not.
    distribution = make_distribution("canonical", torch.float32).train(training)
    torch.nn.init.constant_(distribution.interface.head.bias, bias)
    batch = tied_batch()
    rank = sample(distribution, batch, draw_noise(distribution, batch, 2000, seed=0)).elements.rank[0]
    first = (rank[:, 0] < rank[:, 2]).double().mean()
    assert abs(first - 0.5) < 4 * 0.5 / 2000**0.5
    assert len(rank[:, 1].unique()) == len(rank[:, 3].unique()) == 1


def exact_model(group: str, **options) -> Symmetrized:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    return lps_hf.symmetrize(net, group, "n p" if "E" in group else "n v", "1", "exact", **options).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("group", ["E(3)", "SO(3)", "S_n x E(3)", "S_n x O(3)"])
def test_an_exact_average_over_an_infinite_frame_has_an_error_bar(group, name):
    # Three calls gave three answers and no error bar.
    model, x = exact_model(group), torch.tensor([CORNERS[name]])
    few = [model.estimate(x, generator=seeded(seed)) for seed in range(40)]
    many = model.estimate(x, num_samples=1000, generator=seeded(99))
    assert all(output.standard_error.shape == output.mean.shape for output in few)
    assert all((output.degrees_of_freedom == 9).all() for output in few)
    assert torch.stack([output.mean for output in few]).std() > 1e-5
    inside = [low <= many.mean <= high for low, high in (output.confidence_interval(0.95) for output in few)]
    assert sum(map(bool, inside)) >= 34


@torch.no_grad()
@pytest.mark.parametrize(
    "points", [[[1.0, 2, 3]] * 3, [[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]], [[0.0, 0, 0], [1, 2, 3], [0.5, 1, 1.5]]]
)
@pytest.mark.parametrize("output", ["3", "v", "3 p"])
@pytest.mark.parametrize("group", ["E(3)", "SE(3)"])
def test_axes_without_variance_leave_an_average_exact(group, output, points):
    # What turns about a line is as it was, and vectors across it cancel.
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 16), torch.nn.Tanh(), torch.nn.Linear(16, 9))
    shape = (3, 3) if output == "3 p" else (3,)
    net.append(torch.nn.Sequential(torch.nn.Unflatten(1, (3, 3)), PickRows(len(shape))))
    model, x = lps_hf.symmetrize(net, group, "3 p", output, "exact").eval(), torch.tensor([points])
    first, second = (model.estimate(x, generator=seeded(seed)) for seed in (1, 2))
    assert first.standard_error is None
    torch.testing.assert_close(first.mean, second.mean, rtol=1e-5, atol=1e-5)


class PickRows(torch.nn.Module):
    """All rows of (batch, 3, 3), or the first."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, rows: Tensor) -> Tensor:
        return rows if self.axes == 2 else rows[:, 0]


def test_vectors_that_no_frame_reads_are_not_left_to_chance():
    # Arrows between nodes may point across the line of the nodes.
    distribution = EquivariantDistribution(
        get_group("O(3)"), "exact", {"x": Representation.parse("n v"), "arrows": Representation.parse("n n v")}
    )
    line = torch.tensor([[[1.0, 0, 0], [-2, 0, 0]]])
    batch = FieldBatch({"x": line, "arrows": torch.randn(1, 2, 2, 3)}, torch.ones(1, 2, dtype=torch.bool), None, None)
    (drawn,) = distribution.draws(batch, 3, generator=seeded(0))
    assert drawn.weights is None
    assert drawn.elements.matrix.shape == (1, 24, 3, 3)


@torch.no_grad()
@pytest.mark.parametrize("group", ["E(3)", "S_n x O(3)"])
def test_finite_frames_beside_infinite_ones_stay_exact(group):
    # One of them with a frame of orders of its own: two nodes are equally far from the centroid.
    model = exact_model(group)
    kite = torch.tensor([[2.0, 0, 0], [-1, 0, 0], [-0.5, 1, 0.3], [-0.5, -1, -0.3]])
    x = torch.stack([GENERIC, torch.tensor(CORNERS["square"]), kite])
    alone = model.estimate(x[[0, 2]])
    assert alone.standard_error is None
    together = [model.estimate(x, generator=seeded(seed)) for seed in range(2)]
    for output in together:
        torch.testing.assert_close(output.mean[[0, 2]], alone.mean, rtol=1e-5, atol=1e-6)
        assert output.standard_error[[0, 2]].max() < 1e-6 < output.standard_error[1]
    assert (together[0].mean[1] - together[1].mean[1]).abs() > 1e-6


@torch.no_grad()
def test_axes_of_infinite_frames_come_one_after_another_too():
    model, x = exact_model("S_n x E(3)"), torch.tensor([CORNERS["square"]])
    batch = model.encode(x)
    for sampler, block in (("independent", 8), ("antithetic", 16)):
        model.distribution.set_sampler(sampler)
        at_once = list(model.distribution.draws(batch, 6, generator=seeded(1)))
        parts = list(model.distribution.draws(batch, 6, generator=seeded(1), chunk_size=3))
        assert [len(part.split(block)) for part in parts] == [1] * (48 // block)
        assert {part.block_size for part in (*at_once, *parts)} == {block}
        joined = DistributionSample.join(parts).elements
        for one, other in zip(at_once[0].elements.factors, joined.factors, strict=True):
            assert torch.equal(torch.as_tensor(one.tensors[0]), torch.as_tensor(other.tensors[0]))


def test_a_single_axis_would_have_no_error_bar_so_two_are_drawn():
    model, x = exact_model("E(3)", num_samples=1), torch.tensor([CORNERS["square"]])
    for output in (model.estimate(x, num_samples=1), model.train().estimate(x)):
        assert output.group_elements[0].shape == (1, 16, 3, 3)
        assert output.standard_error is not None


def test_frames_of_different_sizes_are_repeated_until_they_fit():
    ranks = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]])
    mask = torch.ones(2, 4, dtype=torch.bool)
    index, weights = orders_of_frame(ranks, mask, equally_often=True)
    assert index.shape == (2, 12, 4)
    torch.testing.assert_close(weights, torch.full((2, 12), 1 / 12, dtype=torch.float64))
    for row, size in ((0, 4), (1, 6)):
        orders, counts = index[row].unique(dim=0, return_counts=True)
        assert (len(orders), set(counts.tolist())) == (size, {12 // size})
    with pytest.raises(ValueError, match=r"fit into 10 group elements together, got sizes 4, 6\."):
        orders_of_frame(ranks, mask, most=10, equally_often=True)
