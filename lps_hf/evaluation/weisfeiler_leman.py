"""Colour refinement (1-WL): the limit of message-passing networks, and what it costs on a given data set.

Two graphs whose colour histograms stay equal get the same output from every 1-WL-bounded network (Xu et al. 2019,
Morris et al. 2019). The best such a network can do is to answer each class of equal histograms with its majority
label.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Histogram = tuple[tuple[int, int], ...]


def color_histograms(rows: Sequence[Mapping[str, Any]], num_rounds: int | None = None) -> list[Histogram]:
    """Refine the node colours of all graphs together and count them per graph.

    A round replaces the colour of node v by the pair of its colour and the multiset, over the edges u → v, of
    (colour of the edge, colour of u). Round 0 are the node features. Colours are numbered in the order of what they
    stand for, never of where they appear, so the result does not depend on the order of nodes, edges or rows.

    Args:
        rows: Rows in the Hub's graph-row format: `edge_index`, `num_nodes`, optional `node_feat`, `edge_attr`.
        num_rounds: Number of rounds; by default until no graph of `rows` is refined any further.

    Returns:
        `list[tuple[tuple[int, int], ...]]`: per row its (colour, number of nodes) pairs, sorted by colour. A colour
        means the same in all rows of one call; equal tuples mean that 1-WL does not tell the graphs apart.

    Raises:
        ValueError: If `num_rounds` is negative or features are not given alike in all rows.
    """
    if num_rounds is not None and num_rounds < 0:
        raise ValueError(f"`num_rounds` must be at least 0, got {num_rounds}. Pass None to refine until stable.")
    # One disjoint union of all graphs: colours are shared for free, and a round is a few array operations.
    sizes = np.array([int(row["num_nodes"]) for row in rows], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    edges = [np.asarray(row["edge_index"], dtype=np.int64).reshape(2, -1) for row in rows]
    edge_counts = np.array([index.shape[1] for index in edges], dtype=np.int64)
    for i, index in enumerate(edges):
        if index.size and not 0 <= index.min() <= index.max() < sizes[i]:
            raise ValueError(
                f"`edge_index` of row {i} must name nodes 0 ... {sizes[i] - 1}, got {index.min()} ... {index.max()}. "
                "Number the nodes of each graph from 0."
            )
    source, target = np.concatenate([np.zeros((2, 0), np.int64), *edges], axis=1) + np.repeat(starts[:-1], edge_counts)
    colors = _feature_colors("node_feat", rows, sizes)
    edge_colors = _feature_colors("edge_attr", rows, edge_counts)

    by_target = np.argsort(target, kind="stable")
    source, target, edge_colors = source[by_target], target[by_target], edge_colors[by_target]
    degrees = np.bincount(target, minlength=starts[-1])
    first_edge = np.cumsum(degrees) - degrees
    nodes_of_degree = [(degree, np.flatnonzero(degrees == degree)) for degree in np.unique(degrees)]

    rounds_done, num_colors = 0, len(np.unique(colors))
    while num_rounds is None or rounds_done < num_rounds:
        # One number per (edge colour, source colour), then the sorted numbers around each node: its multiset.
        messages = edge_colors * num_colors + colors[source]
        messages = messages[np.lexsort((messages, target))]
        refined, new_num_colors = np.empty_like(colors), 0
        for degree, nodes in nodes_of_degree:
            around = messages[first_edge[nodes, None] + np.arange(degree)]
            numbers = _rank_rows(np.column_stack([colors[nodes], around]))
            refined[nodes] = new_num_colors + numbers
            new_num_colors += numbers.max() + 1
        # A round can only split colours; one that splits none is the last.
        if new_num_colors == num_colors:
            break
        colors, num_colors, rounds_done = refined, new_num_colors, rounds_done + 1
    return [tuple(sorted(Counter(part.tolist()).items())) for part in np.split(colors, starts[1:-1])][: len(rows)]


def wl1_accuracy(rows: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> float:
    """The best accuracy that any 1-WL-bounded network can reach on these very rows.

    Each class of equal colour histograms is answered with its majority label. The majority is taken on the rows that
    are scored, so this is an upper bound: a network trained on other rows can only be worse.

    Args:
        rows: Rows in the Hub's graph-row format.
        labels: One class per row, as numbers or as the lists of one number of column `y`.

    Returns:
        `float`: accuracy in [0, 1].

    Raises:
        ValueError: If there are no rows, or not exactly one label per row.
    """
    answers = np.asarray(labels)
    if len(rows) == 0 or answers.size != len(rows):
        raise ValueError(
            f"`labels` must hold one class for each of the {len(rows)} rows (at least one row), got shape "
            f'{answers.shape}. Pass `[row["y"] for row in rows]` of a single-label data set.'
        )
    votes: dict[Histogram, Counter] = defaultdict(Counter)
    for histogram, label in zip(color_histograms(rows), answers.reshape(-1).tolist(), strict=True):
        votes[histogram][label] += 1
    return sum(max(counter.values()) for counter in votes.values()) / len(rows)


def _feature_colors(name: str, rows: Sequence[Mapping[str, Any]], counts: np.ndarray) -> np.ndarray:
    """Number the distinct feature vectors of all graphs; shape `(counts.sum(),)`, all 0 without features."""
    given = [row.get(name) is not None for row in rows]
    if not any(given):
        return np.zeros(counts.sum(), dtype=np.int64)
    if not all(given):
        raise ValueError(
            f"`{name}` must be given in all rows or in none, got it in {sum(given)} of {len(rows)}. "
            "Add a constant column to the others, or drop it."
        )
    features: list[np.ndarray] = []
    for i, row in enumerate(rows):
        # A graph without edges has an empty list here: no entry, and no width either.
        if counts[i] == 0:
            continue
        feature = np.asarray(row[name])
        feature = feature[:, None] if feature.ndim == 1 else feature
        if len(feature) != counts[i] or (features and feature.shape[1] != features[0].shape[1]):
            width = features[0].shape[1] if features else feature.shape[1]
            raise ValueError(
                f"`{name}` of row {i} must have shape ({counts[i]}, {width}), got {feature.shape}. "
                "Give one list per node or edge, with equally many features in every row."
            )
        features.append(feature)
    if not features:
        return np.zeros(0, dtype=np.int64)
    return _rank_rows(np.concatenate(features))


def _rank_rows(table: np.ndarray) -> np.ndarray:
    """Number the distinct rows of a `(rows, columns)` table, at least one row, in lexicographic order."""
    if table.shape[1] == 0:
        return np.zeros(len(table), dtype=np.int64)
    # What np.unique(axis=0) gives, an order of magnitude faster: it compares rows as opaque bytes.
    order = np.lexsort(table.T[::-1])
    new = np.concatenate([[False], (table[order[1:]] != table[order[:-1]]).any(axis=1)])
    numbers = np.empty(len(table), dtype=np.int64)
    numbers[order] = np.cumsum(new)
    return numbers
