"""PATTERN, folded chains and graphs with inner symmetries: structure, labels, orbits, seeds."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from networkx.algorithms.isomorphism import GraphMatcher

from lps_hf.data import folded_chains, inner_symmetric_graphs, pattern_graphs


def adjacency_of(row):
    matrix = np.zeros((row["num_nodes"], row["num_nodes"]), dtype=int)
    matrix[tuple(row["edge_index"])] = 1
    return matrix


def to_networkx(row):
    return nx.from_numpy_array(adjacency_of(row))


GENERATORS = [
    lambda count, seed: pattern_graphs(count, sizes=(2, 4), seed=seed),
    lambda count, seed: folded_chains(count, seed=seed),
]


@pytest.mark.parametrize("generate", GENERATORS)
def test_seed_decides_and_a_longer_run_continues_the_shorter(generate):
    rows = generate(12, 5)
    assert generate(4, 5) == rows[:4]
    assert generate(4, 6) != rows[:4]


@pytest.mark.parametrize("generate", GENERATORS)
def test_rows_are_simple_graphs_with_sorted_edges(generate):
    for row in generate(6, 0):
        edges = list(zip(*row["edge_index"], strict=True))
        assert edges == sorted(set(edges))
        assert all(source != target and (target, source) in set(edges) for source, target in edges)
        assert len(row["node_feat"]) == row["num_nodes"]
        assert type(row["num_nodes"]) is int
        assert {type(number) for column in row["edge_index"] for number in column} == {int}


def test_pattern_graphs_have_the_published_distribution():
    rows = pattern_graphs(150, seed=1)
    sizes = [row["num_nodes"] for row in rows]
    assert max(sizes) <= 188
    # Six blocks of 19.5 nodes on average; 188 cuts off next to nothing. Four standard errors.
    assert abs(np.mean(sizes) - 117) < 4 * np.sqrt(6 * (30**2 - 1) / 12 / 150)
    labels = [np.array(row["y"]) for row in rows]
    assert {*np.concatenate(labels).tolist()} == {0, 1}
    assert {label.sum() for label in labels} <= set(range(5, 35))
    assert min(label.sum() for label in labels) < 8
    assert max(label.sum() for label in labels) > 31
    colors = np.concatenate([row["node_feat"] for row in rows]).ravel()
    np.testing.assert_allclose(np.bincount(colors) / len(colors), [1 / 3] * 3, atol=4 * np.sqrt(2 / 9 / len(colors)))
    inside, across, among = [], [], []
    for row, label in zip(rows, labels, strict=True):
        matrix, is_pattern = adjacency_of(row), label == 1
        pairs = np.triu(np.ones_like(matrix), k=1) == 1
        inside.append(matrix[pairs & np.outer(is_pattern, is_pattern)])
        across.append(matrix[np.ix_(is_pattern, ~is_pattern)].ravel())
        among.append(matrix[pairs & np.outer(~is_pattern, ~is_pattern)])
    assert np.concatenate(inside).mean() == pytest.approx(0.5, abs=0.01)
    assert np.concatenate(across).mean() == pytest.approx(0.5, abs=0.01)
    # About a fifth and a bit of the other pairs are in one community.
    assert 0.37 < np.concatenate(among).mean() < 0.40


def test_the_blocks_of_a_pattern_graph_are_those_asked_for():
    # With probabilities of 0 and 1 the graph says which block each node is in.
    for row in pattern_graphs(20, 3, (2, 5), intra=1, inter=0, pattern_to_rest=0, seed=2):
        parts = list(nx.connected_components(to_networkx(row)))
        assert len(parts) == 4
        assert all(2 <= len(part) <= 5 for part in parts)
        assert sorted({row["y"][node] for node in part} == {1} for part in parts) == [False, False, False, True]
    for row in pattern_graphs(20, 3, (2, 5), intra=0, inter=0, pattern_to_rest=1, seed=2):
        is_pattern = np.array(row["y"]) == 1
        np.testing.assert_array_equal(adjacency_of(row), is_pattern[:, None] != is_pattern)
    assert max(row["num_nodes"] for row in pattern_graphs(50, 3, (2, 5), max_nodes=14, seed=2)) == 14


def fold_of(row):
    """The chain's positions, read from one end by the categories of its nodes alone, by complex numbers."""
    graph = to_networkx(row)
    assert sorted(degree for _, degree in graph.degree()) == [1, 1] + [2] * (row["num_nodes"] - 2)
    start = min(node for node, degree in graph.degree() if degree == 1)
    walk = list(nx.dfs_preorder_nodes(graph, start))
    places, direction = {walk[0]: 0j, walk[1]: 1 + 0j}, 1 + 0j
    for node, following in pairwise(walk[1:]):
        direction *= np.exp(1j * np.pi / 3 * {1: 1, 2: -1}[row["node_feat"][node][0]])
        places[following] = places[node] + direction
    return walk, places


def test_contacts_are_the_near_pairs_of_the_fold():
    rows = folded_chains(60, seed=3)
    num_contacts = 0
    for row in rows:
        walk, places = fold_of(row)
        assert row["node_feat"][walk[0]] == row["node_feat"][walk[-1]] == [0]
        rank = {node: place for place, node in enumerate(walk)}
        expected = {(i, j): int(abs(places[i] - places[j]) < 2.1) for i in rank for j in rank if abs(rank[i] - rank[j]) >= 3}
        pairs = list(zip(*row["edge_label_index"], strict=True))
        assert pairs == sorted(pairs)
        assert dict(zip(pairs, row["edge_label"], strict=True)) == expected
        num_contacts += sum(expected.values())
        distances = [abs(places[i] - places[j]) for i in rank for j in rank if i != j]
        assert min(distances) > 0.9, "a chain must not meet itself"
    assert 0.05 < num_contacts / sum(len(row["edge_label"]) for row in rows) < 0.3
    # Some contacts are far in the graph.
    assert {row["num_nodes"] for row in rows} == set(range(8, 17))


@pytest.mark.parametrize(
    ("name", "num_nodes", "num_orbits", "num_automorphisms"),
    [("asymmetric", 7, 7, 1), ("star", 7, 2, 720), ("double_star", 7, 4, 12), ("cycle", 7, 1, 14), ("grid", 25, 6, 8)],
)
def test_orbits_are_those_of_all_automorphisms(name, num_nodes, num_orbits, num_automorphisms):
    row = inner_symmetric_graphs()[name]
    graph = to_networkx(row)
    assert row["num_nodes"] == num_nodes
    assert nx.is_connected(graph)
    automorphisms = list(GraphMatcher(graph, graph).isomorphisms_iter())
    assert len(automorphisms) == num_automorphisms
    orbits = [frozenset(automorphism[node] for automorphism in automorphisms) for node in range(num_nodes)]
    assert len(set(orbits)) == num_orbits == max(row["orbits"]) + 1
    for node, orbit in enumerate(orbits):
        assert orbit == {other for other in range(num_nodes) if row["orbits"][other] == row["orbits"][node]}


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: pattern_graphs(0), "num_graphs"),
        (lambda: pattern_graphs(1, 0), "num_communities"),
        (lambda: pattern_graphs(1, sizes=(5, 4)), r"sizes\[1\]"),
        (lambda: pattern_graphs(1, sizes=(0, 4)), r"sizes\[0\]"),
        (lambda: pattern_graphs(1, inter=1.5), "inter"),
        (lambda: pattern_graphs(1, max_nodes=100), "max_nodes"),
        (lambda: folded_chains(1, num_nodes=(3, 8)), r"num_nodes\[0\]"),
        (lambda: folded_chains(1, cutoff=0), "cutoff"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, argument):
    with pytest.raises(ValueError, match=argument):
        call()
