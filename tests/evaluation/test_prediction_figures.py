"""Figures of one prediction: what they show, and what does not fit together."""

import io

import numpy as np
import pytest

from lps_hf.data.generators import circular_skip_links

pytest.importorskip("matplotlib")
from lps_hf.evaluation.prediction_figures import SHOWN_OUTPUTS, orders_figure, settling_figure

(ROW,) = circular_skip_links(1, 13, (2, 3))
ORDERS = np.stack([np.random.default_rng(seed).permutation(13) for seed in range(2)])


def test_every_order_has_its_matrix():
    figure = orders_figure(ROW, ORDERS)
    graph, matrices = figure.subfigs
    assert len(graph.axes) == 1
    assert len(matrices.axes) == 2
    adjacency = np.zeros((13, 13), dtype=bool)
    adjacency[tuple(ROW["edge_index"])] = True
    for axes, order in zip(matrices.axes, ORDERS, strict=True):
        picture = axes.images[0].get_array()
        cells = picture[-4 * 13 :, -4 * 13 :][::4, ::4].sum(axis=2) < 1.5  # dark where there is an edge
        assert np.array_equal(cells, adjacency[np.ix_(order, order)])


def test_nodes_can_be_placed_and_named():
    positions = np.random.default_rng(0).normal(size=(13, 2))
    axes = orders_figure(ROW, ORDERS, positions=positions, symbols=list("ABCDEFGHIJKLM")).subfigs[0].axes[0]
    assert [text.get_text() for text in axes.texts] == list("ABCDEFGHIJKLM")
    assert np.allclose(axes.collections[1].get_offsets(), positions)


@pytest.mark.parametrize("orders", [ORDERS[:, :-1], ORDERS[0], np.zeros((2, 13)), np.zeros((0, 13))])
def test_orders_that_are_none_are_refused(orders):
    with pytest.raises(ValueError, match="node_orders: expected permutations of 0 to 12"):
        orders_figure(ROW, orders)


def test_bars_curves_and_error_bars_are_those_given():
    means = np.array([[0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.1, 0.7, 0.2]])
    errors = np.array([[np.nan] * 3, [0.1, 0.2, 0.05], [0.05, 0.1, 0.02]])
    bars, curves, tightness = settling_figure(means, errors, [1, 2, 8], ["a", "b", "c"], label="probability", bounded=True).axes
    assert [bar.get_width() for bar in bars.patches] == [0.1, 0.7, 0.2]
    assert [line.get_label() for line in curves.lines] == ["b", "c", "a"]  # the largest first
    assert curves.lines[0].get_ydata().tolist() == [0.5, 0.6, 0.7]
    shown, guide = tightness.lines
    assert (shown.get_xdata().tolist(), shown.get_ydata().tolist()) == ([2, 8], [0.2, 0.1])
    assert np.allclose(guide.get_ydata(), [0.2, 0.1])


def test_many_outputs_and_no_error_bar_at_all():
    figure = settling_figure(np.arange(6.0)[None], np.full((1, 6), np.nan), [1], list("abcdef"))
    bars, curves, tightness = figure.axes
    assert len(bars.patches) == 6
    assert [line.get_label() for line in curves.lines] == list("fedc")[:SHOWN_OUTPUTS]
    assert [text.get_text() for text in tightness.texts] == ["none"]
    tightness = settling_figure(np.ones((1, 2)), np.zeros((1, 2)), [4], ["a", "b"]).axes[2]
    assert [text.get_text() for text in tightness.texts] == ["zero: every draw\ngave the same"]
    figure.savefig(io.BytesIO(), format="png")


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"means, errors: expected shape \(1, 2\), as counts and names say, got \(1, 3\)"):
        settling_figure(np.zeros((1, 3)), np.zeros((1, 3)), [1], ["a", "b"])
