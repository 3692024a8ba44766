"""The figures of the benchmarks show the numbers that they were given."""

import numpy as np
import pytest

from lps_hf.evaluation.benchmark_figures import overhead_figure, scaling_figure

RESULT = {
    "preset": "pattern",
    "mode": "eval",
    "num_samples": 10,
    "overhead_ratio": 1.02,
    "overhead_ratio_quartiles": [1.01, 1.03],
    "overhead_ratio_range": [0.9, 40.0],
    "bar": 1.05,
    "breakdown": {"encoding": 0.01, "interface": 0.02, "projections": 0.04, "backbone": 0.95},
    "peak_memory_ratio": 1.25,
    "backbone": "tiny",
    "grid_size": 14,
    "batch_size": 8,
    "dtype": "float32",
    "device": "cpu",
}
TRAINING = {
    **RESULT,
    "mode": "train",
    "num_samples": 1,
    "bar": None,
    "breakdown": {"readout": 0.03, "backbone": 0.3, "backbone_backward": 0.6, "readout_backward": 0.05},
}


def point(nodes, edges, ratio):
    parts = {"projections": ratio / 4, "projections_backward": ratio / 4, "encoding": ratio / 2, "backbone": 1.0}
    return {"nodes": nodes, "edges": edges, "ratio": ratio, "ratio_quartiles": [ratio / 2, ratio * 2], "parts": parts}


SCALING = {
    "mode": "eval",
    "num_samples": 1,
    "batch_size": 1,
    "backbone": "tiny",
    "large_graph": {**point(64, 5000, 0.3), "overhead_ratio": 1.31},
    "sweeps": {
        "edges": {
            "x": "edges",
            "title": "64 nodes",
            "points": [point(64, edges, 0.1 * edges / 100) for edges in (100, 1000, 10_000)],
            "fit": {"exponent": 1.0, "factor": 0.001, "fitted_from": 1000.0},
        },
        "nodes": {
            "x": "nodes",
            "title": "12 edges per node",
            "points": [point(nodes, 12 * nodes, 0.2) for nodes in (16, 64)],
            "fit": {"exponent": 0.0, "factor": 0.2, "fitted_from": 16.0},
        },
    },
}


def test_ratios_stand_in_order_with_their_spread_and_their_bar():
    figure = overhead_figure([RESULT, TRAINING])
    ratios = figure.axes[0]
    assert [label.get_text() for label in ratios.get_yticklabels()] == ["pattern  eval  k = 10", "pattern  train  k = 1"]
    assert ratios.yaxis_inverted()
    lines = [np.asarray(line.get_xdata()).tolist() for line in ratios.lines]
    assert lines[:4] == [[0.9, 40.0], [1.01, 1.03], [1.02], [1.05, 1.05]]
    assert lines[4:7] == [[0.9, 40.0], [1.01, 1.03], [1.02]]
    # One round far out does not shrink all others.
    assert ratios.get_xlim()[1] < 1.2
    assert [text.get_text() for text in ratios.texts] == ["1.020", "1.020"]
    assert [text.get_text() for text in ratios.get_legend().get_texts()] == ["evaluation", "training", "to stay below"]
    assert "ViT tiny, 14 × 14 tokens, batch 8, float32, cpu" in figure.get_suptitle()


def test_parts_are_stacked_without_the_backbone_and_backward_beside_forward():
    axes = overhead_figure([RESULT, TRAINING]).axes[1]
    drawn = [(bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in axes.patches if bar.get_width()]
    expected = [(0, 0, 1), (0, 1, 2), (0, 3, 4), (1, 0, 3), (1, 3, 5)]
    np.testing.assert_allclose(drawn, expected, atol=1e-12)
    assert [text.get_text() for text in axes.texts][:4] == ["0.950", "1.25", "0.900", "1.25"]


def test_without_a_breakdown_there_are_no_bars():
    axes = overhead_figure([{**RESULT, "breakdown": {}}]).axes[1]
    assert not any(bar.get_width() for bar in axes.patches)
    assert [text.get_text() for text in axes.texts][:2] == ["", "1.25"]


def test_costs_are_drawn_against_what_grows_with_their_fit_and_the_large_graph():
    figure = scaling_figure(SCALING)
    edges, nodes = figure.axes
    assert [axes.get_title(loc="left") for axes in (edges, nodes)] == ["64 nodes", "12 edges per node"]
    assert [axes.get_xlabel() for axes in (edges, nodes)] == ["edges", "nodes"]
    lines = {line.get_label(): line for line in edges.lines}
    np.testing.assert_allclose(lines["everything but the backbone"].get_xydata(), [(100, 0.1), (1000, 1), (10_000, 10)])
    # Forward and backward together.
    np.testing.assert_allclose(lines["action and projections"].get_ydata(), [0.05, 0.5, 5])
    np.testing.assert_allclose(lines["fit, upper half"].get_xydata(), [(1000, 1), (10_000, 10)])
    star = next(line for line in edges.lines if line.get_marker() == "*")
    np.testing.assert_allclose(star.get_xydata(), [(5000, 0.3)])
    words = " ".join(text.get_text() for text in edges.texts)
    assert "1.00" in words
    assert "64 nodes, 5,000 edges:\nthe model costs 1.31 bare backbones" in words
    assert not any(line.get_marker() == "*" for line in nodes.lines)


def test_the_relaxation_has_a_panel_of_its_own_where_it_was_measured():
    points = [{"nodes": 10**power, "seconds": 10.0**power} for power in (1, 2, 3)]
    relaxation = {"points": points, "fit": {"exponent": 1.0, "factor": 1.0, "fitted_from": 100.0}}
    figure = scaling_figure({**SCALING, "relaxation": relaxation})
    axes = figure.axes[-1]
    assert len(figure.axes) == 3
    assert axes.get_ylabel() == "seconds"
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(10, 10), (100, 100), (1000, 1000)])
    alone = scaling_figure({**SCALING, "sweeps": {}, "relaxation": relaxation})
    assert len(alone.axes) == 1


def test_nothing_cannot_be_drawn():
    with pytest.raises(ValueError, match="at least one, got none"):
        overhead_figure([])
    with pytest.raises(ValueError, match="at least one sweep, got none"):
        scaling_figure({**SCALING, "sweeps": {}})
