"""Small graph classification benchmarks that no 1-WL-bounded network can solve.

Within one benchmark all graphs of one size are regular of one degree and carry one node category, so colour
refinement (1-WL), and with it every message-passing network, gives all their nodes the same colour: it can do no
better than guess. A model above chance has used more than 1-WL.

Rows have the Hub's graph-row format:

| key | type | meaning |
| --- | --- | --- |
| `edge_index` | two lists of `2 * num_edges` ints | sources, targets; each edge in both directions |
| `num_nodes` | int | number of nodes |
| `node_feat` | `num_nodes` lists of one int | category 0 on every node |
| `y` | list of one int | class |

Classes follow each other in turn (0, 1, ..., 0, 1, ...), so a slice of whole turns is balanced. The rows depend on
`seed` alone: a larger `num_graphs` continues the same sequence. Take another seed for another split.
"""

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np

GraphRow = dict[str, Any]


def circular_skip_links(
    num_graphs: int,
    num_nodes: int = 41,
    skips: Sequence[int] = (2, 3, 4, 5, 6, 9, 11, 12, 13, 16),
    seed: int = 0,
) -> list[GraphRow]:
    """Circular skip links (CSL): a cycle plus links to the node `skip` steps further; the class is the skip.

    Murphy, Srinivasan, Rao, Ribeiro, "Relational Pooling for Graph Representations" (ICML 2019); the default sizes
    and skips are theirs. There is one graph per class up to isomorphism: the benchmark asks whether a model tells the
    classes apart in every node order, not whether it generalises to new graphs.

    Args:
        num_graphs: Number of rows; row `i` has class `i % len(skips)`.
        num_nodes: Length of the cycle.
        skips: One skip per class, each in `2 <= skip < num_nodes / 2`.
        seed: Seed of the node orders.

    Returns:
        `list[dict]`: rows of 4-regular graphs, `y` from 0 to `len(skips) - 1`.

    Raises:
        ValueError: If a skip is out of range, or two skips give isomorphic graphs and so contradictory labels.
    """
    check_count("num_graphs", num_graphs, 1)
    check_count("num_nodes", num_nodes, 5)
    skips = list(skips)
    if len(skips) < 2:
        raise ValueError(f"`skips` must name at least two classes, got {skips}. Add a skip.")
    for i, skip in enumerate(skips):
        # A skip of exactly half the cycle would give degree 3, which 1-WL does see.
        if not isinstance(skip, Integral) or not 2 <= skip < num_nodes / 2:
            raise ValueError(
                f"`skips` must hold integers in 2 <= skip < num_nodes / 2 = {num_nodes / 2:g}, got {skip!r}. "
                "Remove it or use more nodes."
            )
        for other in skips[:i]:
            # Multiplication by a unit u of Z_n maps the links {1, s} to {u, us}: the same graph if s = t or st = ±1.
            if skip == other or (skip * other) % num_nodes in (1, num_nodes - 1):
                raise ValueError(
                    f"`skips` must give pairwise different graphs, got {other} and {skip}, which are isomorphic on "
                    f"{num_nodes} nodes. Remove one of them."
                )
    rng = np.random.default_rng(seed)
    nodes = np.arange(num_nodes)
    cycle = np.stack([nodes, (nodes + 1) % num_nodes], axis=1)
    rows = []
    for i in range(num_graphs):
        label = i % len(skips)
        links = np.stack([nodes, (nodes + skips[label]) % num_nodes], axis=1)
        rows.append(_row(num_nodes, np.concatenate([cycle, links]), label, rng))
    return rows


def cycle_pairs(num_graphs: int, cycle_lengths: Sequence[int] = (3, 4, 5, 6, 7, 8), seed: int = 0) -> list[GraphRow]:
    """One cycle of 2n nodes (class 0) against two cycles of n nodes (class 1): is the graph connected?

    The textbook pair that 1-WL cannot separate (hexagon and two triangles for n = 3), here for several n. Rows `2i`
    and `2i + 1` share one n, so that the size says nothing about the class.

    Args:
        num_graphs: Number of rows; odd numbers leave the last row without its partner.
        cycle_lengths: The values of n, each at least 3; one is drawn uniformly per pair of rows.
        seed: Seed of the lengths and node orders.

    Returns:
        `list[dict]`: rows of 2-regular graphs with 2n nodes, `y` 0 or 1.

    Raises:
        ValueError: If `cycle_lengths` is empty or holds anything but integers of at least 3.
    """
    check_count("num_graphs", num_graphs, 1)
    cycle_lengths = list(cycle_lengths)
    if not cycle_lengths or not all(isinstance(length, Integral) and length >= 3 for length in cycle_lengths):
        raise ValueError(
            f"`cycle_lengths` must hold integers of at least 3, got {cycle_lengths}. Shorter cycles are no simple "
            "graphs: remove them, or pass for example (3, 4, 5)."
        )
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num_graphs):
        if i % 2 == 0:
            length = int(rng.choice(cycle_lengths))
        nodes = np.arange(2 * length)
        # Walk round all 2n nodes, or round each half on its own.
        period = length * (2 - i % 2)
        successors = nodes // period * period + (nodes + 1) % period
        rows.append(_row(2 * length, np.stack([nodes, successors], axis=1), i % 2, rng))
    return rows


def triangle_regular(num_graphs: int, num_nodes: int = 20, seed: int = 0) -> list[GraphRow]:
    """Random 3-regular graphs; the class is whether the graph contains a triangle (1) or none (0).

    The graph-level form of the TRIANGLE task of Sato, Yamada, Kashima, "Random Features Strengthen Graph Neural
    Networks" (SDM 2021), who label nodes of random 3-regular graphs. Test graphs are new graphs, so this benchmark
    also asks for generalisation. Graphs are uniform over the labelled 3-regular graphs of their class: the pairing
    model of Bollobás (1980), rejecting loops and double edges. They need not be connected.

    Args:
        num_graphs: Number of rows; row `i` has class `i % 2`.
        num_nodes: Number of nodes, even and at least 6.
        seed: Seed of the graphs.

    Returns:
        `list[dict]`: rows of 3-regular graphs, `y` 0 or 1.

    Raises:
        ValueError: If `num_nodes` is odd (no 3-regular graph) or below 6 (none without a triangle).
    """
    check_count("num_graphs", num_graphs, 1)
    check_count("num_nodes", num_nodes, 6)
    if num_nodes % 2:
        raise ValueError(f"`num_nodes` must be even for a 3-regular graph, got {num_nodes}. Use {num_nodes + 1}.")
    # Two streams, so that the batch size below is a matter of speed alone: no row depends on it.
    graph_rng, order_rng = np.random.default_rng(seed).spawn(2)
    candidates = _cubic_graphs(num_nodes, graph_rng)
    waiting: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    rows = []
    for i in range(num_graphs):
        while not waiting[i % 2]:
            edges, has_triangle = next(candidates)
            waiting[int(has_triangle)].append(edges)
        rows.append(_row(num_nodes, waiting[i % 2].pop(0), i % 2, order_rng))
    return rows


def _cubic_graphs(num_nodes: int, rng: np.random.Generator, batch_size: int = 256) -> Iterator[tuple[np.ndarray, bool]]:
    """Draw uniform simple 3-regular graphs without end: (edges of shape `(1.5 * num_nodes, 2)`, has a triangle)."""
    stubs = np.tile(np.repeat(np.arange(num_nodes), 3), (batch_size, 1))
    while True:
        pairs = np.sort(rng.permuted(stubs, axis=1).reshape(batch_size, -1, 2), axis=2)
        codes = np.sort(pairs[..., 0] * num_nodes + pairs[..., 1], axis=1)
        simple = (pairs[..., 0] != pairs[..., 1]).all(axis=1) & (np.diff(codes, axis=1) > 0).all(axis=1)
        for edges in pairs[simple]:
            adjacency = np.zeros((num_nodes, num_nodes))
            adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1
            yield edges, bool(((adjacency @ adjacency) * adjacency).any())


def edge_lists(edges: np.ndarray, order: np.ndarray) -> list[list[int]]:
    """Undirected edges as the two lists of `edge_index`, sorted.

    Args:
        edges (`np.ndarray` of shape `(num_edges, 2)` int): Each edge in one direction.
        order (`np.ndarray` of shape `(num_nodes,)` int): New number of each node.

    Returns:
        `list[list[int]]`: sources and targets, each edge in both directions.
    """
    edges = order[edges.reshape(-1, 2)]
    edges = np.concatenate([edges, edges[:, ::-1]])
    # The order in which a graph was built would give its structure away to a model that reads edges as a sequence.
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    return edges.T.tolist()


def _row(num_nodes: int, edges: np.ndarray, label: int, rng: np.random.Generator) -> GraphRow:
    """Relabel the nodes uniformly at random and write the row; `edges` has shape `(num_edges, 2)`, one direction."""
    return {
        "edge_index": edge_lists(edges, rng.permutation(num_nodes)),
        "num_nodes": int(num_nodes),
        "node_feat": [[0] for _ in range(num_nodes)],
        "y": [int(label)],
    }


def check_count(name: str, value: int, minimum: int) -> None:
    """Refuse a number that is no whole number or too small.

    Raises:
        ValueError: Naming the argument.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}, got {value!r}. Pass {minimum} or more.")


def check_range(name: str, bounds: tuple[int, int], minimum: int) -> tuple[int, int]:
    """Refuse bounds that are no whole numbers, too small or in the wrong order.

    Raises:
        ValueError: Naming the argument.
    """
    least, largest = bounds
    check_count(f"{name}[0]", least, minimum)
    check_count(f"{name}[1]", largest, least)
    return least, largest
