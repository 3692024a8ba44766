"""Graphs with labels on nodes or pairs of nodes: PATTERN, folded chains, and graphs with inner symmetries.

Rows have the Hub's graph-row format (see `lps_hf.data.generators`). All depend on `seed` alone: a larger `num_graphs`
continues the same sequence. Take another seed for another split.
"""

from collections.abc import Sequence

import numpy as np

from .generators import GraphRow, check_count, check_range, edge_lists

# The six directions of a bond in the plane, anticlockwise.
_ANGLES = np.pi / 3 * np.arange(6)
_STEPS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def pattern_graphs(
    num_graphs: int,
    num_communities: int = 5,
    sizes: tuple[int, int] = (5, 34),
    intra: float = 0.5,
    inter: float = 0.35,
    pattern_to_rest: float = 0.5,
    num_colors: int = 3,
    max_nodes: int = 188,
    seed: int = 0,
) -> list[GraphRow]:
    """PATTERN: find the nodes of a planted random graph among communities; node classification.

    Dwivedi et al., "Benchmarking Graph Neural Networks" (arXiv 2003.00982); the defaults are theirs. A stochastic block model is
    drawn, a further random graph (the pattern, class 1) is joined to all its nodes, and every node has a random colour.
    The published graphs have 44 to 188 nodes.

    Args:
        num_graphs: Number of rows.
        num_communities: Communities beside the pattern.
        sizes: Least and largest size of a community and of the pattern, both inclusive, uniform.
        intra: Probability of an edge within a community, and within the pattern.
        inter: Probability of an edge between communities.
        pattern_to_rest: Probability of an edge between a node of the pattern and one of the rest.
        num_colors: Number of node categories.
        max_nodes: Larger graphs are drawn again.
        seed: Seed of the graphs.

    Returns:
        `list[dict]`: rows with `y` a list of one class per node.

    Raises:
        ValueError: If a probability, a size or a number is out of range.
    """
    check_count("num_graphs", num_graphs, 1)
    check_count("num_communities", num_communities, 1)
    check_count("num_colors", num_colors, 1)
    least, largest = check_range("sizes", sizes, 1)
    for name, value in (("intra", intra), ("inter", inter), ("pattern_to_rest", pattern_to_rest)):
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be a probability, got {value!r}. Pass a number from 0 to 1.")
    # At least half of the graphs are then small enough.
    check_count("max_nodes", max_nodes, (num_communities + 1) * (least + largest) // 2)
    rng = np.random.default_rng(seed)
    # Edge probability between two blocks; the last block is the pattern.
    blocks = np.full((num_communities + 1, num_communities + 1), inter)
    blocks[-1], blocks[:, -1] = pattern_to_rest, pattern_to_rest
    np.fill_diagonal(blocks, intra)
    rows = []
    for _ in range(num_graphs):
        counts = rng.integers(least, largest, size=num_communities + 1, endpoint=True)
        while counts.sum() > max_nodes:
            counts = rng.integers(least, largest, size=num_communities + 1, endpoint=True)
        block = np.repeat(np.arange(num_communities + 1), counts)
        is_edge = np.triu(rng.random((len(block), len(block))) < blocks[block[:, None], block], k=1)
        order = rng.permutation(len(block))
        labels = np.empty(len(block), dtype=np.int64)
        labels[order] = block == num_communities
        rows.append(
            {
                "edge_index": edge_lists(np.argwhere(is_edge), order),
                "num_nodes": len(block),
                "node_feat": rng.integers(num_colors, size=(len(block), 1)).tolist(),
                "y": labels.tolist(),
            }
        )
    return rows


def folded_chains(num_graphs: int, num_nodes: tuple[int, int] = (8, 16), cutoff: float = 2.1, seed: int = 0) -> list[GraphRow]:
    """Which atoms of a folded chain touch? Pairs that are far in the graph and near in space; link prediction.

    A small sister of PCQM-Contact (Dwivedi et al., arXiv 2206.08164), with a fold that can be told from the row: a chain in
    the plane with bonds of length 1 turns by 60° to one side at nodes of category 1 and to the other at nodes of category 2
    (the ends have category 0), and never meets itself. Reading it backwards, or in a mirror, gives the same distances. A pair at
    least 3 bonds apart has label 1 if it is closer than `cutoff`; nearer pairs are not asked for.

    Args:
        num_graphs: Number of rows.
        num_nodes: Least and largest number of nodes, both inclusive, uniform.
        cutoff: Distance in bond lengths; at 2.1 the ends of three bonds touch if both turns go to one side.
        seed: Seed of the chains.

    Returns:
        `list[dict]`: rows with `edge_label_index`, every ordered pair at least 3 bonds apart, and `edge_label`.

    Raises:
        ValueError: If there are fewer than 4 nodes, or the cutoff is not positive.
    """
    check_count("num_graphs", num_graphs, 1)
    least, largest = check_range("num_nodes", num_nodes, 4)
    if not cutoff > 0:
        raise ValueError(f"`cutoff` must be positive, got {cutoff!r}. Pass a distance in bond lengths, such as 2.1.")
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_graphs):
        count = int(rng.integers(least, largest, endpoint=True))
        turns, positions = _fold(count, rng)
        places = np.arange(count)
        order = rng.permutation(count)
        pairs = np.argwhere(np.abs(places[:, None] - places) >= 3)
        touching = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1) < cutoff
        pairs = order[pairs]
        by_name = np.lexsort((pairs[:, 1], pairs[:, 0]))
        categories = np.zeros((count, 1), dtype=np.int64)
        categories[order[1:-1], 0] = turns
        rows.append(
            {
                "edge_index": edge_lists(np.stack([places[:-1], places[1:]], axis=1), order),
                "num_nodes": count,
                "node_feat": categories.tolist(),
                "edge_label_index": pairs[by_name].T.tolist(),
                "edge_label": touching[by_name].astype(int).tolist(),
            }
        )
    return rows


def _fold(num_nodes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random chain that does not meet itself: turns (1 or 2) at its inner nodes, and positions `(num_nodes, 2)`."""
    while True:
        turns = rng.integers(1, 2, size=num_nodes - 2, endpoint=True)
        directions = np.concatenate([[0], np.cumsum(np.where(turns == 1, 1, -1))]) % 6
        positions = np.concatenate([np.zeros((1, 2)), np.cumsum(_STEPS[directions], axis=0)])
        distances = np.linalg.norm(positions[:, None] - positions, axis=-1) + np.eye(num_nodes)
        if distances.min() > 0.5:
            return turns, positions


def inner_symmetric_graphs() -> dict[str, GraphRow]:
    """Five graphs with inner symmetries, on which the paper compares the outputs of automorphic nodes (arXiv 2306.02866).

    An equivariant model gives the nodes of one orbit, which an automorphism maps to each other, equal outputs;
    canonicalization, which has to number them, does not.

    Returns:
        `dict[str, dict]`: `asymmetric` (the smallest asymmetric tree, 7 nodes), `star` (S_6), `double_star` (a tree with
        S_3 × S_2), `cycle` (7 nodes) and `grid` (5 × 5), rows with `orbits`: the number of each node's orbit, from 0.
    """
    cells = np.arange(25).reshape(5, 5)
    grid = [*zip(cells[:, :-1].ravel().tolist(), cells[:, 1:].ravel().tolist(), strict=True)]
    grid += [*zip(cells[:-1].ravel().tolist(), cells[1:].ravel().tolist(), strict=True)]
    # A symmetry of the square keeps the distances of a cell from the two middle lines, up to their order.
    from_middle = [tuple(sorted((abs(row - 2), abs(column - 2)))) for row in range(5) for column in range(5)]
    kinds = sorted(set(from_middle))
    return {
        "asymmetric": _symmetric_row([(0, 1), (0, 2), (2, 3), (0, 4), (4, 5), (5, 6)], range(7)),
        "star": _symmetric_row([(0, leaf) for leaf in range(1, 7)], [0, 1, 1, 1, 1, 1, 1]),
        "double_star": _symmetric_row([(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6)], [0, 1, 2, 2, 2, 3, 3]),
        "cycle": _symmetric_row([(node, (node + 1) % 7) for node in range(7)], [0] * 7),
        "grid": _symmetric_row(grid, [kinds.index(kind) for kind in from_middle]),
    }


def _symmetric_row(edges: Sequence[tuple[int, int]], orbits: Sequence[int]) -> GraphRow:
    return {
        "edge_index": edge_lists(np.array(edges), np.arange(len(orbits))),
        "num_nodes": len(orbits),
        "node_feat": [[0] for _ in orbits],
        "orbits": list(orbits),
    }
