"""The synthetic benchmarks: format, structure of each class, node order, seeds, refused arguments."""

import networkx as nx
import numpy as np
import pytest

from lps_hf.data import DataCollatorForGraphs, circular_skip_links, cycle_pairs, generators, triangle_regular
from lps_hf.evaluation import wl1_accuracy
from lps_hf.models.processing_lps import LPSProcessor

# Generator, number of classes, degree.
BENCHMARKS = [(circular_skip_links, 10, 4), (cycle_pairs, 2, 2), (triangle_regular, 2, 3)]


def to_networkx(row):
    graph = nx.Graph()
    graph.add_nodes_from(range(row["num_nodes"]))
    graph.add_edges_from(zip(*row["edge_index"], strict=True))
    return graph


@pytest.mark.parametrize(("generate", "num_classes", "degree"), BENCHMARKS)
def test_rows_are_simple_regular_graphs_in_the_hub_format(generate, num_classes, degree):
    rows = generate(20, seed=3)
    assert [row["y"] for row in rows] == [[i % num_classes] for i in range(20)]
    for row in rows:
        assert set(row) == {"edge_index", "num_nodes", "node_feat", "y"}
        assert type(row["num_nodes"]) is int
        assert type(row["y"][0]) is int
        assert type(row["edge_index"][0][0]) is int
        assert row["node_feat"] == [[0]] * row["num_nodes"]
        edges = list(zip(*row["edge_index"], strict=True))
        assert len(set(edges)) == len(edges) == degree * row["num_nodes"]
        assert {(target, source) for source, target in edges} == set(edges)
        assert edges == sorted(edges), "the order of the edges must not tell how the graph was built"
        assert all(source != target for source, target in edges)
        assert {d for _, d in to_networkx(row).degree()} == {degree}


@pytest.mark.parametrize(("generate", "num_classes", "degree"), BENCHMARKS)
def test_1_wl_can_only_guess(generate, num_classes, degree):
    rows = generate(60, seed=1)
    assert wl1_accuracy(rows, [row["y"] for row in rows]) == pytest.approx(1 / num_classes)


@pytest.mark.parametrize(("generate", "num_classes", "degree"), BENCHMARKS)
def test_seed_decides_and_a_longer_run_continues_the_shorter(generate, num_classes, degree):
    rows = generate(600, seed=5)
    assert generate(12, seed=5) == rows[:12]
    assert generate(12, seed=6) != rows[:12]
    # The global generator is neither read nor advanced.
    before = np.random.get_state()[1].copy()
    generate(2)
    assert (np.random.get_state()[1] == before).all()


def test_csl_classes_are_the_skips():
    rows = circular_skip_links(20, seed=2)
    skips = (2, 3, 4, 5, 6, 9, 11, 12, 13, 16)
    spectra = []
    for row, skip in zip(rows, skips * 2, strict=True):
        spectra.append(np.sort(np.linalg.eigvalsh(nx.to_numpy_array(to_networkx(row)))))
        # The eigenvalues of a circulant graph are known in closed form.
        turns = 2 * np.pi * np.arange(41) / 41
        np.testing.assert_allclose(spectra[-1], np.sort(2 * np.cos(turns) + 2 * np.cos(skip * turns)), atol=1e-9)
    # Different spectra: no two classes are isomorphic.
    assert min(np.abs(spectra[i] - spectra[j]).max() for i in range(10) for j in range(i)) > 0.01


def test_cycle_pairs_differ_in_connectivity_only():
    rows = cycle_pairs(40, cycle_lengths=(3, 5), seed=0)
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        assert one["num_nodes"] == two["num_nodes"]
        assert nx.number_connected_components(to_networkx(one)) == 1
        assert [len(part) for part in nx.connected_components(to_networkx(two))] == [two["num_nodes"] // 2] * 2
    assert {row["num_nodes"] for row in rows} == {6, 10}


def test_triangle_regular_labels_are_true_and_graphs_are_uniform():
    for row in triangle_regular(60, seed=4):
        assert (sum(nx.triangles(to_networkx(row)).values()) > 0) == bool(row["y"][0])
    # On 6 nodes there are 10 labelled triangle-free cubic graphs (K_3,3) and 60 with triangles (the prism).
    rows = triangle_regular(2000, num_nodes=6, seed=0)
    for label, count in ((0, 10), (1, 60)):
        seen = [str(row["edge_index"]) for row in rows if row["y"] == [label]]
        frequencies = np.unique(seen, return_counts=True)[1]
        assert len(frequencies) == count
        # Expected 1000 / count each; the bound is over 4 standard deviations away.
        assert np.abs(frequencies * count / 1000 - 1).max() < 4.5 * np.sqrt(count / 1000)


def test_rows_do_not_depend_on_the_batch_size_of_the_sampler(monkeypatch):
    expected = triangle_regular(10, seed=1)
    sampler = generators._cubic_graphs
    monkeypatch.setattr(generators, "_cubic_graphs", lambda num_nodes, rng: sampler(num_nodes, rng, batch_size=7))
    assert triangle_regular(10, seed=1) == expected


def test_node_order_is_uniform():
    rows = [row for row in cycle_pairs(4000, cycle_lengths=(3,), seed=0) if row["y"] == [0]]
    # A labelled hexagon has 5!/2 = 60 forms; all must come, about equally often.
    frequencies = np.unique([str(row["edge_index"]) for row in rows], return_counts=True)[1]
    assert len(frequencies) == 60
    assert np.abs(frequencies * 60 / len(rows) - 1).max() < 4.5 * np.sqrt(60 / len(rows))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: circular_skip_links(0), "num_graphs"),
        (lambda: circular_skip_links(2.0), "num_graphs"),
        (lambda: circular_skip_links(10, num_nodes=4, skips=(2, 3)), "num_nodes"),
        (lambda: circular_skip_links(10, skips=(2,)), "skips"),
        (lambda: circular_skip_links(10, skips=(2, 1)), "skips"),
        (lambda: circular_skip_links(10, num_nodes=8, skips=(2, 4)), "skips"),
        (lambda: circular_skip_links(10, skips=(2, 2)), "isomorphic"),
        (lambda: circular_skip_links(10, skips=(3, 14)), "isomorphic"),
        (lambda: cycle_pairs(4, cycle_lengths=(2, 3)), "cycle_lengths"),
        (lambda: cycle_pairs(4, cycle_lengths=()), "cycle_lengths"),
        (lambda: cycle_pairs(True), "num_graphs"),
        (lambda: triangle_regular(4, num_nodes=7), "num_nodes"),
        (lambda: triangle_regular(4, num_nodes=4), "num_nodes"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, argument):
    with pytest.raises(ValueError, match=argument):
        call()


@pytest.mark.parametrize("num_nodes", [11, 12, 13, 16])
def test_refused_skips_are_exactly_the_isomorphic_ones(num_nodes):
    skips = range(2, (num_nodes + 1) // 2)
    for a in skips:
        for b in skips:
            same = nx.is_isomorphic(nx.circulant_graph(num_nodes, [1, a]), nx.circulant_graph(num_nodes, [1, b]))
            try:
                circular_skip_links(2, num_nodes=num_nodes, skips=(a, b))
                refused = False
            except ValueError:
                refused = True
            assert refused == same, (a, b)


def test_collator_pads_rows_with_the_processor():
    processor = LPSProcessor(max_nodes=16)
    rows = cycle_pairs(3, cycle_lengths=(3, 5), seed=1)
    sizes = [row["num_nodes"] for row in rows]
    assert set(sizes) == {6, 10}
    batch = DataCollatorForGraphs(processor)(rows)
    assert batch["node_mask"].sum(1).tolist() == batch["edge_mask"].sum(1).div(2).tolist() == sizes
    assert batch["labels"].tolist() == [0, 1, 0]
    assert batch["node_mask"].shape == (3, 10)
    assert DataCollatorForGraphs(processor, pad_to_multiple_of=8)(rows)["node_mask"].shape == (3, 16)
