"""Colour refinement against networkx, against known pairs, and its invariances."""

import networkx as nx
import numpy as np
import pytest

from lps_hf.evaluation import color_histograms, wl1_accuracy


def to_row(graph, node_attr=None, edge_attr=None):
    edges = [(u, v) for u, v in graph.edges] + [(v, u) for u, v in graph.edges if u != v]
    row = {"edge_index": [[u for u, _ in edges], [v for _, v in edges]], "num_nodes": graph.number_of_nodes()}
    if node_attr:
        row["node_feat"] = [[graph.nodes[v][node_attr]] for v in graph]
    if edge_attr:
        row["edge_attr"] = [[graph.edges[e][edge_attr]] for e in edges]
    return row


def relabelled(row, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(row["num_nodes"])
    shuffle = rng.permutation(len(row["edge_index"][0]))
    new = {
        "num_nodes": row["num_nodes"],
        "edge_index": order[np.asarray(row["edge_index"], dtype=int)][:, shuffle].tolist(),
    }
    if "node_feat" in row:
        new["node_feat"] = np.asarray(row["node_feat"])[np.argsort(order)].tolist()
    if "edge_attr" in row:
        new["edge_attr"] = np.asarray(row["edge_attr"])[shuffle].tolist()
    return new


def random_graphs(num_graphs, seed, categories=2):
    """Small sparse graphs, among which many are equal or equivalent."""
    rng = np.random.default_rng(seed)
    graphs = []
    for _ in range(num_graphs):
        graph = nx.gnp_random_graph(int(rng.integers(3, 7)), 0.4, seed=int(rng.integers(2**31)))
        for v in graph:
            graph.nodes[v]["kind"] = int(rng.integers(categories))
        for edge in graph.edges:
            graph.edges[edge]["kind"] = int(rng.integers(categories))
        graphs.append(graph)
    return graphs


def partition(keys):
    """Which items have equal keys, whatever the keys are."""
    first = {}
    return [first.setdefault(key, i) for i, key in enumerate(keys)]


@pytest.mark.parametrize("edge_attr", [None, "kind"])
@pytest.mark.parametrize("num_rounds", [1, 2, 3])
def test_same_partition_as_networkx(num_rounds, edge_attr):
    graphs = random_graphs(250, seed=num_rounds)
    hashes = [
        nx.weisfeiler_lehman_graph_hash(g, node_attr="kind", edge_attr=edge_attr, iterations=num_rounds, digest_size=16)
        for g in graphs
    ]
    ours = partition(color_histograms([to_row(g, "kind", edge_attr) for g in graphs], num_rounds=num_rounds))
    assert ours == partition(hashes)
    assert 20 < len(set(ours)) < 250, "the sample must have both equal and different graphs"


def test_stable_colours_are_the_limit_of_the_rounds():
    # Two ends of a path tell themselves apart from the middle one step further with every round.
    rows = [to_row(nx.path_graph(12)), to_row(nx.path_graph(13)), to_row(nx.cycle_graph(12))]
    stable = color_histograms(rows)
    assert stable == color_histograms(rows, num_rounds=50)
    assert len(color_histograms(rows, num_rounds=0)[0]) == 1
    assert [len(color_histograms(rows[:1], num_rounds=k)[0]) for k in range(7)] == [1, 2, 3, 4, 5, 6, 6]
    assert len(set(stable)) == 3


def test_known_pairs_that_1_wl_cannot_tell_apart():
    hexagon, triangles = nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    decalin = nx.Graph([*nx.cycle_graph(10).edges, (0, 5)])
    bicyclopentyl = nx.Graph([*((i, (i + 1) % 5) for i in range(5)), *((5 + i, 5 + (i + 1) % 5) for i in range(5)), (0, 5)])
    rows = [to_row(g) for g in (hexagon, triangles, decalin, bicyclopentyl)]
    a, b, c, d = color_histograms(rows)
    assert a == b == ((a[0][0], 6),)
    assert c == d
    assert a != c
    assert wl1_accuracy(rows, [0, 1, 2, 3]) == 0.5
    assert wl1_accuracy(rows, [[0], [0], [1], [1]]) == 1.0


def test_node_edge_and_row_order_do_not_matter():
    rows = [to_row(g, "kind", "kind") for g in random_graphs(30, seed=9)]
    expected = color_histograms(rows)
    assert color_histograms([relabelled(row, i) for i, row in enumerate(rows)]) == expected
    assert color_histograms(rows[::-1]) == expected[::-1]


def test_features_and_direction_are_seen():
    plain = to_row(nx.path_graph(2))
    assert len(set(color_histograms([plain, dict(plain, edge_index=[[0], [1]])]))) == 2
    middle, end = dict(to_row(nx.path_graph(3))), dict(to_row(nx.path_graph(3)))
    middle["node_feat"], end["node_feat"] = [[0, 0], [0, 1], [0, 0]], [[0, 0], [0, 0], [0, 1]]
    assert color_histograms([middle, end], 0)[0] == color_histograms([middle, end], 0)[1]
    assert len(set(color_histograms([middle, end], 1))) == 2
    # Edge features may be plain numbers; equal counts of each, but at the same or at different nodes.
    path = to_row(nx.path_graph(5))
    ways = [(0, 1, 0, 1), (0, 0, 1, 1)]
    assert len(set(color_histograms([dict(path, edge_attr=list(way * 2)) for way in ways]))) == 2


def test_graphs_without_edges_or_nodes():
    empty = {"edge_index": [[], []], "num_nodes": 0, "node_feat": [], "edge_attr": []}
    single = {"edge_index": [[], []], "num_nodes": 1, "node_feat": [[4]], "edge_attr": []}
    pair = {"edge_index": [[0, 1], [1, 0]], "num_nodes": 2, "node_feat": [[4], [4]], "edge_attr": [[1], [1]]}
    none, one, two = color_histograms([empty, single, pair])
    assert none == ()
    assert [count for _, count in one] == [1]
    assert [count for _, count in two] == [2]
    assert one[0][0] != two[0][0]
    assert color_histograms([]) == []
    assert color_histograms([empty]) == [()]


def test_accuracy_is_the_majority_within_each_class():
    cycles = [to_row(nx.cycle_graph(4))] * 3 + [to_row(nx.cycle_graph(5))] * 2
    assert wl1_accuracy(cycles, [0, 0, 1, 1, 0]) == pytest.approx(3 / 5)
    assert wl1_accuracy(cycles, ["a", "a", "a", "b", "b"]) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda row: color_histograms([row], num_rounds=-1), "num_rounds"),
        (lambda row: color_histograms([row, dict(row, node_feat=[[0]] * 4)]), "node_feat"),
        (lambda row: color_histograms([dict(row, node_feat=[[0]] * 3)]), "node_feat"),
        (lambda row: color_histograms([dict(row, edge_attr=[[0]] * 3)]), "edge_attr"),
        (lambda row: color_histograms([dict(row, edge_index=[[0], [4]])]), "edge_index"),
        (lambda row: wl1_accuracy([row], [0, 1]), "labels"),
        (lambda row: wl1_accuracy([], []), "labels"),
    ],
)
def test_wrong_rows_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(to_row(nx.cycle_graph(4)))
