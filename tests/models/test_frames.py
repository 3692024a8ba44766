"""Frames are equivariant: F(g·x) = g·F(x), whatever the graph."""

import itertools

import numpy as np
import pytest
import torch

from lps_hf.models.frames import laplacian_frame_ranks, orders_of_frame


def random_graph(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A graph of 1 to 20 nodes and any density, often disconnected, with loops and repeated edges."""
    nodes = int(rng.integers(1, 21))
    adjacency = rng.random((nodes, nodes)) < rng.choice([0.0, 0.05, 0.15, 0.4, 0.9])
    edges = np.stack(np.nonzero(adjacency))
    return np.concatenate([edges, edges[:, : edges.shape[1] // 3]], axis=1), nodes


def undirected(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


CYCLE = undirected([(i, (i + 1) % 6) for i in range(6)])
PETERSEN = undirected([e for i in range(5) for e in ((i, (i + 1) % 5), (i, i + 5), (5 + i, 5 + (i + 2) % 5))])
NAMED = {
    "cycle": (CYCLE, 6, 1),
    "complete": (undirected(list(itertools.combinations(range(5), 2))), 5, 1),
    "star": (undirected([(0, i) for i in range(1, 6)]), 6, 2),
    "empty": (undirected([]), 4, 1),
    "one node": (undirected([]), 1, 1),
    "two triangles": (undirected([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)]), 6, 1),
    "path": (undirected([(i, i + 1) for i in range(4)]), 5, 3),
    "cube": (undirected([(a, a ^ (1 << bit)) for a in range(8) for bit in range(3) if a < a ^ (1 << bit)]), 8, 1),
    "petersen": (PETERSEN, 10, 1),
    "disconnected path and star": (undirected([(0, 1), (1, 2), (3, 4), (3, 5), (3, 6)]), 8, 5),
}


def assert_equivariant(edges: np.ndarray, nodes: int, rng: np.random.Generator) -> np.ndarray:
    ranks = laplacian_frame_ranks(edges, nodes)
    assert ranks.shape == (nodes,)
    assert ranks.dtype == np.int64
    element = rng.permutation(nodes)
    order = rng.permutation(edges.shape[1])
    moved = laplacian_frame_ranks(element[edges][:, order], nodes)
    np.testing.assert_array_equal(moved[element], ranks)
    return ranks


def test_ranks_of_200_random_graphs_are_equivariant():
    rng = np.random.default_rng(0)
    told_apart = 0
    for _ in range(200):
        edges, nodes = random_graph(rng)
        ranks = assert_equivariant(edges, nodes, rng)
        told_apart += len(set(ranks)) > nodes / 2 > 1
    assert told_apart > 50


@pytest.mark.parametrize("name", NAMED)
def test_nodes_that_a_symmetry_exchanges_have_one_rank(name):
    edges, nodes, num_ranks = NAMED[name]
    for seed in range(5):
        ranks = assert_equivariant(edges, nodes, np.random.default_rng(seed))
        assert sorted(set(ranks)) == list(range(num_ranks))


def test_a_star_ranks_its_centre_apart():
    ranks = laplacian_frame_ranks(NAMED["star"][0], 6)
    assert (ranks[1:] == ranks[1]).all()
    assert ranks[0] != ranks[1]


@pytest.mark.parametrize("nodes", [127, 128])
def test_connected_graphs_of_any_size_are_equivariant(nodes):
    # The constant eigenvector gives every node 1 / nodes: 1 / 128 = 0.0078125 lies between two rounded numbers.
    rng = np.random.default_rng(nodes)
    edges = rng.integers(nodes, size=(2, 2 * nodes))
    path = np.stack([np.arange(nodes - 1), np.arange(1, nodes)])
    ranks = assert_equivariant(np.concatenate([path, edges], axis=1), nodes, rng)
    assert len(set(ranks)) == nodes


def test_direction_repetition_and_loops_do_not_matter():
    edges = NAMED["path"][0]
    ranks = laplacian_frame_ranks(edges, 5)
    loops = np.array([[0, 3], [0, 3]])
    for other in (edges[::-1], np.concatenate([edges, edges[::-1]], axis=1), np.concatenate([edges, loops], axis=1)):
        np.testing.assert_array_equal(laplacian_frame_ranks(other, 5), ranks)


def test_the_orders_of_a_frame_are_all_that_sort_the_ranks_and_only_those():
    ranks = torch.tensor([[1, 0, 1, 0, 2], [0, 0, 0, 7, 7], [3, 1, 2, 0, 0]])
    mask = torch.arange(5) < torch.tensor([[5], [3], [3]])
    orders, weights = orders_of_frame(ranks, mask)
    assert orders.shape == (3, 6, 5)
    for graph, (size, frame) in enumerate(((5, 4), (3, 6), (3, 1))):
        places = ranks[graph, :size].tolist()
        every = [order for order in itertools.permutations(range(size)) if [places[i] for i in order] == sorted(places)]
        assert len(every) == frame
        assert sorted(map(tuple, orders[graph, :frame, :size].tolist())) == every
        assert (orders[graph, :, size:] == torch.arange(size, 5)).all()
        assert weights[graph].tolist() == [1 / frame] * frame + [0.0] * (6 - frame)


def test_frames_too_large_for_an_exact_average_are_refused():
    ranks, mask = torch.zeros(2, 5, dtype=torch.int64), torch.arange(5) < torch.tensor([[4], [5]])
    with pytest.raises(ValueError, match="distribution 'exact': expected frames of at most 24 group elements, graph 1 has more"):
        orders_of_frame(ranks, mask, most=24)
    assert orders_of_frame(ranks, mask, most=120)[0].shape == (2, 120, 5)
