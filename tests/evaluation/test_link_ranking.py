"""Ranking metrics of links against cases worked out by hand and a reference that sorts."""

import numpy as np
import pytest

from lps_hf.data.rows import with_all_pairs
from lps_hf.evaluation import link_ranking_metrics


def row_of(num_nodes, true_pairs):
    pairs = np.array(true_pairs).reshape(-1, 2)
    row = {"num_nodes": num_nodes, "edge_label_index": pairs.T.tolist(), "edge_label": [1] * len(pairs)}
    return with_all_pairs(row)


def test_a_case_by_hand():
    # Source 0 scores its targets 0 to 3 with 9, 5, 7, 6; the true ones are 1 and 3.
    scores = np.zeros((4, 4))
    scores[0] = [9, 5, 7, 6]
    metrics = link_ranking_metrics(scores.reshape(1, -1), [row_of(4, [(0, 1), (0, 3)])])
    expected = {
        **{"mrr": (1 / 4 + 1 / 3) / 2, "hits@1": 0, "hits@3": 1 / 2, "hits@10": 1},
        # Without the other true target: 1 comes after 0 and 2, and so does 3.
        **{"mrr_filtered": 1 / 3, "hits@1_filtered": 0, "hits@3_filtered": 1, "hits@10_filtered": 1},
        # Without the source itself only 2 is better.
        **{"mrr_filtered_noself": 1 / 2, "hits@1_filtered_noself": 0, "hits@3_filtered_noself": 1, "hits@10_filtered_noself": 1},
    }
    assert metrics == pytest.approx(expected)


def test_graphs_count_alike_however_many_links_they_have():
    best, worst = np.zeros((3, 3)), np.zeros((3, 3))
    best[0, 1] = 1
    worst[:, 2] = -1
    rows = [row_of(3, [(0, 1)]), row_of(3, [(0, 2), (1, 2)]), row_of(2, [])]
    # The third graph has no link and is left out; it is filled up to the size of the others.
    metrics = link_ranking_metrics(np.stack([best.ravel(), worst.ravel(), np.full(9, -100.0)]), rows)
    assert metrics["mrr"] == pytest.approx((1 + 1 / 3) / 2)
    assert metrics["hits@1"] == 1 / 2


def test_equal_scores_have_their_mean_rank():
    metrics = link_ranking_metrics(np.zeros((1, 25)), [row_of(5, [(0, 1)])])
    assert metrics["mrr"] == pytest.approx(1 / 3)
    assert metrics["hits@1"] == 0


def test_pairs_that_were_not_scored_are_no_candidates():
    row = {"num_nodes": 50, "edge_label_index": [[0, 0, 1], [1, 2, 3]], "edge_label": [1, 0, 0]}
    assert link_ranking_metrics([[0.0, 1.0, 5.0]], [row])["mrr"] == 1 / 2


def test_no_link_at_all_is_nan_and_keeps_the_keys():
    metrics = link_ranking_metrics(np.zeros((1, 4)), [row_of(2, [])])
    assert len(metrics) == 12
    assert np.isnan(list(metrics.values())).all()


def test_random_graphs_agree_with_sorting():
    rng = np.random.default_rng(0)
    rows, scores, reference = [], np.full((20, 144), -100.0), {}
    for number in range(20):
        size = int(rng.integers(4, 13))
        is_true = rng.random((size, size)) < 0.3
        is_true[0, 1] = True
        rows.append(row_of(size, np.argwhere(is_true)))
        matrix = rng.standard_normal((size, size))
        scores[number, : size**2] = matrix.ravel()
        for suffix in ("", "_filtered", "_filtered_noself"):
            ranks = []
            for source, target in np.argwhere(is_true):
                ranking = [int(node) for node in np.argsort(-matrix[source])]
                if suffix:
                    ranking = [node for node in ranking if node == target or not is_true[source, node]]
                if suffix == "_filtered_noself":
                    ranking = [node for node in ranking if node == target or node != source]
                ranks.append(ranking.index(target) + 1)
            reference.setdefault(f"mrr{suffix}", []).append(np.mean([1 / rank for rank in ranks]))
            for most in (1, 3, 10):
                reference.setdefault(f"hits@{most}{suffix}", []).append(np.mean([rank <= most for rank in ranks]))
    assert link_ranking_metrics(scores, rows) == pytest.approx({name: np.mean(values) for name, values in reference.items()})


def test_scores_that_do_not_fit_the_rows_are_refused():
    row = row_of(3, [(0, 1)])
    with pytest.raises(ValueError, match="got 2 for 1 rows"):
        link_ranking_metrics(np.zeros((2, 9)), [row])
    with pytest.raises(ValueError, match="row 0 must have one number per pair, got 8 for 9 pairs"):
        link_ranking_metrics(np.zeros((1, 8)), [row])
