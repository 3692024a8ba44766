"""The canonical labelling of graphs as a frame: isomorphic graphs become one graph, and models on them exactly invariant."""

import numpy as np
import pytest
import torch

from lps_hf.models import frames, processing_lps
from lps_hf.models.frames import canonical_labelling_ranks
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import random_rows, tiny_classifier, tiny_config

pytest.importorskip("canonaut")


def ordered(edge_index, num_nodes, node_colors=None, edge_colors=None):
    """The graph with its nodes in the order of their ranks: arcs with colours, and colours of nodes."""
    ranks = canonical_labelling_ranks(edge_index, num_nodes, node_colors, edge_colors)
    assert ranks.dtype == np.int64
    assert sorted(ranks.tolist()) == list(range(num_nodes))
    arc_colors = np.zeros(edge_index.shape[1], dtype=np.int64) if edge_colors is None else edge_colors
    arcs = sorted(zip(*ranks[edge_index].tolist(), arc_colors.tolist(), strict=True))
    return arcs, None if node_colors is None else node_colors[np.argsort(ranks)].tolist()


def relabelled(rng, edge_index, num_nodes, node_colors=None, edge_colors=None):
    """The same graph with its nodes and its list of edges in another order."""
    order, edge_order = rng.permutation(num_nodes), rng.permutation(edge_index.shape[1])
    moved = np.argsort(order)[edge_index][:, edge_order]
    return (
        moved,
        num_nodes,
        node_colors if node_colors is None else node_colors[order],
        (edge_colors if edge_colors is None else edge_colors[edge_order]),
    )


@pytest.mark.parametrize("colored", [False, True])
@pytest.mark.parametrize("directed", [False, True])
def test_isomorphic_graphs_become_one_graph(directed, colored):
    rng = np.random.default_rng(0)
    for _ in range(60):
        nodes, edges = int(rng.integers(1, 8)), int(rng.integers(0, 14))
        edge_index = rng.integers(nodes, size=(2, edges))  # with loops and repeated edges
        node_colors, edge_colors = (rng.integers(2, size=size) if colored else None for size in (nodes, edges))
        if not directed:
            edge_index = np.concatenate([edge_index, edge_index[::-1]], axis=1)
            edge_colors = None if edge_colors is None else np.tile(edge_colors, 2)
        graph = edge_index, nodes, node_colors, edge_colors
        expected = ordered(*graph)
        for _ in range(3):
            assert ordered(*relabelled(rng, *graph)) == expected


# Graphs in which all nodes look alike to colour refinement, so that the search has to branch.
def test_regular_graphs_with_many_automorphisms_become_one_graph():
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(1)
    for graph in (
        networkx.petersen_graph(),
        networkx.hypercube_graph(4),
        networkx.circulant_graph(41, [1, 9]),
        networkx.disjoint_union(networkx.cycle_graph(3), networkx.cycle_graph(3)),
    ):
        graph = networkx.convert_node_labels_to_integers(graph)
        edges = np.array(graph.edges).T
        edge_index = np.concatenate([edges, edges[::-1]], axis=1)
        expected = ordered(edge_index, len(graph))
        for _ in range(5):
            assert ordered(*relabelled(rng, edge_index, len(graph))) == expected


def test_a_graph_without_edges_is_ordered_by_its_colors():
    for colors in ([2, 0, 1, 0], [0, 0, 2, 1]):
        ranks = canonical_labelling_ranks(np.zeros((2, 0), dtype=np.int64), 4, np.array(colors))
        assert np.array(colors)[np.argsort(ranks)].tolist() == [0, 0, 1, 2]


def test_without_the_package_the_frame_says_what_to_install(monkeypatch):
    monkeypatch.setattr(frames, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="canonaut, which is not installed. Run 'pip install canonaut', or use frame='lap"):
        canonical_labelling_ranks(np.zeros((2, 0), dtype=np.int64), 1)


# --------------------------------------------------------------------------------------------------- processor and model


def moved_row(row, rng):
    """A row with its nodes in another order."""
    order = rng.permutation(row["num_nodes"])
    edge_index = np.argsort(order)[np.array(row["edge_index"])]
    return {**row, "edge_index": edge_index.tolist(), "node_feat": [row["node_feat"][node] for node in order]}


@pytest.mark.parametrize("distribution", ["frame", "exact"])
@pytest.mark.parametrize("options", [{}, {"node_categories": None, "edge_categories": None}], ids=["features", "plain"])
def test_logits_do_not_depend_on_the_order_of_the_nodes(distribution, options):
    model = tiny_classifier(distribution=distribution, frame="canonical_labelling", num_eval_samples=1, **options).double()
    processor = LPSProcessor.from_config(model.config)
    assert processor.frame == "canonical_labelling"
    rng = np.random.default_rng(0)
    rows = random_rows(6, seed=3)
    if options:
        rows = [
            {key: row[key] for key in ("edge_index", "num_nodes", "y")} | {"node_feat": [[0]] * row["num_nodes"]} for row in rows
        ]
    moved = [moved_row(row, rng) for row in rows]
    with torch.no_grad():
        logits = [model(**processor(part, return_tensors="pt")).logits for part in (rows, moved)]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-10)
    ranks = processor(rows)["frame_ranks"]
    for row, own in zip(rows, ranks, strict=True):
        assert sorted(own[: row["num_nodes"]].tolist()) == list(range(row["num_nodes"]))


def test_features_tell_nodes_apart():
    """The ends of a path are alike, but for what they carry: the ends swap places with their features."""
    processor = LPSProcessor(node_categories=[2], edge_categories=[2], num_labels=2, frame="canonical_labelling")
    path = {"edge_index": [[0, 1, 1, 2], [1, 0, 2, 1]], "num_nodes": 3, "node_feat": [[0]] * 3, "edge_attr": [[0]] * 4}
    for key, values in (("node_feat", [[1], [0], [0]]), ("edge_attr", [[1], [1], [0], [0]])):
        left, right = {**path, key: values}, {**path, key: values[::-1]}
        ranks = processor([left, right])["frame_ranks"]
        assert ranks[0].tolist() == ranks[1][::-1].tolist()


def test_a_labelling_is_searched_once_per_graph(monkeypatch):
    seen = []

    def counted(edge_index, num_nodes, *colors):
        seen.append(num_nodes)
        return canonical_labelling_ranks(edge_index, num_nodes, *colors)

    monkeypatch.setattr(processing_lps, "canonical_labelling_ranks", counted)
    processing_lps._cached_frame_ranks.cache_clear()
    processor = LPSProcessor(num_labels=3, node_categories=[3, 2], edge_categories=[2], frame="canonical_labelling")
    row = random_rows(1)[0]
    batches = [processor([row]) for _ in range(2)]
    assert len(seen) == 1
    np.testing.assert_array_equal(batches[0]["frame_ranks"], batches[1]["frame_ranks"])
    processor([{**row, "node_feat": [[0, 0]] * row["num_nodes"]}])
    assert len(seen) == 2
    stored = processor.add_frame(row)
    assert stored["frame_ranks"] == batches[0]["frame_ranks"][0].tolist()
    assert len(seen) == 2


def test_the_frame_is_saved_with_configuration_and_processor(tmp_path):
    config = tiny_config(distribution="frame", frame="canonical_labelling")
    config.save_pretrained(tmp_path)
    assert type(config).from_pretrained(tmp_path).frame == "canonical_labelling"
    LPSProcessor.from_config(config).save_pretrained(tmp_path)
    assert LPSProcessor.from_pretrained(tmp_path).frame == "canonical_labelling"


def test_the_frame_is_added_where_the_distribution_reads_it():
    expected = {"frame": "laplacian", "exact": "laplacian", "haar": None, "learned": None, "canonical": None, "none": None}
    for distribution, frame in expected.items():
        assert LPSProcessor.from_config(tiny_config(distribution=distribution)).frame == frame


def test_an_unknown_frame_is_refused():
    with pytest.raises(ValueError, match="frame: expected one of 'laplacian', 'canonical_labelling', got 'spectral'"):
        tiny_config(frame="spectral")
