"""How high a model ranks the true links of a node: mean reciprocal rank and Hits@k, as on PCQM-Contact."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

HITS = (1, 3, 10)
# Suffix of the metrics: whether other true targets, and the source itself, are left out of the ranking.
_FILTERS = {"": (False, False), "_filtered": (True, False), "_filtered_noself": (True, True)}


def link_ranking_metrics(scores: Any, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Rank each true target j of a source i among all scored targets of i.

    The protocol of PCQM-Contact (Dwivedi et al., "Long Range Graph Benchmark", arXiv 2206.08164) wants every node of the graph
    among the targets: evaluate rows that `lps_hf.data.rows.with_all_pairs` has filled up. Figures are means over the true
    pairs of a graph and then over the graphs that have any. "Filtered" leaves the other true targets of i out of the ranking,
    "filtered_noself" i itself too (Tönshoff et al., "Where did the gap go?", arXiv 2309.00367). Among equal scores the pair
    has their mean rank: a constant prediction does not come first.

    Args:
        scores (`np.ndarray` of shape `(rows, pairs)`): Score of each pair of `edge_label_index`, filled up at the end.
        rows: The rows that were scored, with `num_nodes`, `edge_label_index` and `edge_label`.

    Returns:
        `dict[str, float]`: `mrr`, `hits@1`, `hits@3`, `hits@10`, and each of them with `_filtered` and `_filtered_noself`; NaN
        if no graph has a true pair.

    Raises:
        ValueError: If there are not as many scores as rows and pairs.
    """
    rows = list(rows)
    if len(scores) != len(rows):
        raise ValueError(
            f"`scores` must have one row per graph, got {len(scores)} for {len(rows)} rows. Pass the rows evaluated."
        )
    per_graph: dict[str, list[float]] = {f"{name}{suffix}": [] for suffix in _FILTERS for name in ("mrr", *_hit_names())}
    for number, (row, row_scores) in enumerate(zip(rows, scores, strict=True)):
        pairs = np.asarray(row["edge_label_index"], dtype=np.int64).reshape(2, -1)
        labels = np.array(row["edge_label"], dtype=np.float64)
        if len(row_scores) < len(labels):
            raise ValueError(
                f"`scores` of row {number} must have one number per pair, got {len(row_scores)} for {len(labels)} pairs. "
                "Let the model score `edge_label_index`."
            )
        if not (labels == 1).any():
            continue
        for suffix, (filtered, no_self) in _FILTERS.items():
            ranks = _ranks(row_scores[: len(labels)], pairs, labels == 1, int(row["num_nodes"]), filtered, no_self)
            per_graph[f"mrr{suffix}"].append(float(np.mean(1 / ranks)))
            for name, count in zip(_hit_names(), HITS, strict=True):
                per_graph[f"{name}{suffix}"].append(float(np.mean(ranks <= count)))
    return {name: float(np.mean(values)) if values else float("nan") for name, values in per_graph.items()}


def _hit_names() -> list[str]:
    return [f"hits@{count}" for count in HITS]


def _ranks(
    scores: np.ndarray, pairs: np.ndarray, is_true: np.ndarray, num_nodes: int, filtered: bool, no_self: bool
) -> np.ndarray:
    """Rank of each true pair among the other candidates of its source, from 1, shape `(true pairs,)`."""
    # NaN is neither above nor equal to anything: a pair that was not scored is no candidate.
    candidates = np.full((num_nodes, num_nodes), np.nan)
    candidates[pairs[0], pairs[1]] = scores
    sources, targets = pairs[:, is_true]
    own = candidates[sources, targets][:, None]
    if filtered:
        candidates[sources, targets] = np.nan
    if no_self:
        np.fill_diagonal(candidates, np.nan)
    others = candidates[sources]
    others[np.arange(len(sources)), targets] = np.nan
    return 1 + (others > own).sum(axis=1) + 0.5 * (others == own).sum(axis=1)
