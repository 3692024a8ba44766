"""The quickstart figure shows the numbers it was given, and nothing of it overlaps."""

import io
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from lps_hf.data import circular_skip_links, cycle_pairs
from lps_hf.evaluation import quickstart_figure
from lps_hf.evaluation.figures import INK, _layout

COUNTS = np.array([1, 2, 5, 10, 20, 50, 100])
ACCURACIES = {"this model": 0.984, "plain backbone": 0.31, "best 1-WL": 0.5, "chance": 0.5}


def arguments(row=None, **changes):
    generator = np.random.default_rng(7)
    row = cycle_pairs(2)[1] if row is None else row
    error = 0.4 / np.sqrt(COUNTS)
    given = {
        "graph": row,
        "node_orders": np.stack([generator.permutation(row["num_nodes"]) for _ in range(4)]),
        "losses": np.linspace(0.7, 0.1, 100) + 0.05 * generator.random(100),
        "equivariance": {"num_samples": COUNTS, "error": error, "spread": 0.2 * error, "backbone": 0.9},
        "accuracies": ACCURACIES,
    }
    return given | changes


def panels(figure):
    """The graph, the matrices, then loss, equivariance error and accuracy."""
    graph, *rest = figure.axes
    return graph, rest[:-3], *rest[-3:]


def test_panels_show_what_was_given():
    given = arguments(title="A title")
    figure = quickstart_figure(**given)
    graph_axes, matrix_axes, loss_axes, error_axes, accuracy_axes = panels(figure)
    num_nodes = given["graph"]["num_nodes"]

    assert len(graph_axes.collections[1].get_offsets()) == num_nodes
    assert len(graph_axes.collections[0].get_segments()) == 2 * num_nodes
    adjacency = np.zeros((num_nodes, num_nodes), dtype=bool)
    adjacency[tuple(given["graph"]["edge_index"])] = True
    assert len(matrix_axes) == 3
    for axes, order in zip(matrix_axes, given["node_orders"], strict=False):
        # The lower right part of the image is the matrix, 4 pixels a cell; cell (i, j) is edge order[i], order[j].
        shown = np.asarray(axes.images[0].get_array())[-4 * num_nodes :: 4, -4 * num_nodes :: 4]
        assert ((shown == to_rgb(INK)).all(axis=-1) == adjacency[order][:, order]).all()

    np.testing.assert_allclose(loss_axes.lines[0].get_ydata(), given["losses"])
    assert loss_axes.lines[0].get_xdata()[[0, -1]].tolist() == [1, 100]
    smooth = loss_axes.lines[1].get_ydata()
    assert smooth.shape == (100,)
    assert smooth[0] > 0.65
    assert np.diff(smooth).std() < np.diff(given["losses"]).std()

    assert error_axes.get_xscale() == error_axes.get_yscale() == "log"
    backbone, guide, measured = error_axes.lines[:3]
    assert set(backbone.get_ydata()) == {0.9}
    np.testing.assert_allclose(guide.get_ydata(), 0.4 / np.sqrt(COUNTS))
    np.testing.assert_allclose(measured.get_ydata(), given["equivariance"]["error"])
    (bars,) = error_axes.collections
    np.testing.assert_allclose([np.ptp(bar[:, 1]) for bar in bars.get_segments()], 0.16 / np.sqrt(COUNTS))

    assert [bar.get_height() for bar in accuracy_axes.patches] == list(ACCURACIES.values())
    names = [label.get_text().replace("\n", " ") for label in accuracy_axes.get_xticklabels()]
    assert names == list(ACCURACIES)
    assert [text.get_text() for text in accuracy_axes.texts] == ["98.4 %", "31.0 %", "50.0 %", "50.0 %"]


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "Cycle pairs: a plain ViT, made permutation equivariant"},
        {"row": circular_skip_links(1)[0], "accuracies": {"this model": 1.0, "best 1-WL": 0.1, "chance": 0.1}},
        {"losses": [0.7, 0.5, 0.4], "loss_steps": [100, 200, 300]},
        {"equivariance": {"num_samples": COUNTS, "error": 0.05 / np.sqrt(COUNTS), "backbone": 5.0}},
    ],
    ids=["title", "csl", "short", "far-backbone"],
)
def test_no_text_overlaps_another_or_leaves_the_figure(changes, monkeypatch):
    drawn, draw = [], Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, *args, **kwargs: (drawn.append(self), draw(self, *args, **kwargs)))
    figure = quickstart_figure(**arguments(**changes))
    figure.canvas.draw()
    boxes = [(text, text.get_window_extent()) for text in drawn if text.get_visible() and text.get_text().strip()]
    assert len(boxes) > 25
    for i, (text, box) in enumerate(boxes):
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert 0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
        for other, other_box in boxes[:i]:
            assert not box.overlaps(other_box), (text, other)


def test_legend_is_clear_of_the_curve():
    for backbone, first in ((5.0, 0.05), (0.41, 0.4)):
        error = first / np.sqrt(COUNTS)
        equivariance = {"num_samples": COUNTS, "error": error, "spread": 1.2 * error, "backbone": backbone}
        figure = quickstart_figure(**arguments(equivariance=equivariance))
        figure.canvas.draw()
        axes = panels(figure)[3]
        legend = axes.get_legend().get_window_extent()
        for bar in axes.collections[0].get_segments():
            assert axes.transData.transform(bar)[:, 1].min() > legend.y1


def test_saves_as_png_without_pyplot():
    loaded = "matplotlib.pyplot" in sys.modules
    figure = quickstart_figure(**arguments())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_layout_draws_rings_round_and_components_apart():
    def adjacency(row):
        matrix = np.zeros((row["num_nodes"],) * 2, dtype=bool)
        matrix[tuple(row["edge_index"])] = True
        return matrix

    one, two = cycle_pairs(2, cycle_lengths=(8,))
    positions, hues = _layout(adjacency(one))
    radii = np.linalg.norm(positions, axis=1)
    assert np.ptp(radii) < 0.05 * radii.mean()
    assert len(np.unique(hues.round(3))) == 16
    assert 0 <= hues.min() <= hues.max() < 1
    positions, _ = _layout(adjacency(two))
    sides = positions[:, 0] > positions[:, 0].mean()
    assert not adjacency(two)[sides][:, ~sides].any()
    assert sides.sum() == 8
    # Single nodes and single edges, too.
    positions, _ = _layout(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool))
    assert np.isfinite(positions).all()
    assert len(np.unique(positions.round(6), axis=0)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"node_orders": np.zeros((3, 16), dtype=int)}, "node_orders"),
        ({"node_orders": np.arange(17)[None]}, "node_orders"),
        ({"losses": []}, "loss_steps"),
        ({"loss_steps": [1, 2]}, "loss_steps"),
        ({"equivariance": {"num_samples": [1, 2], "error": [0.1], "backbone": 1.0}}, r"equivariance\['error'\]"),
        ({"equivariance": {"num_samples": [1, 2], "error": [0.1, 0.0], "backbone": 1.0}}, "positive"),
        ({"equivariance": {"num_samples": [1, 2], "error": [0.1, 0.1], "backbone": 0.0}}, "positive"),
        ({"accuracies": {"this model": 98.4}}, "accuracies"),
    ],
)
def test_wrong_arguments_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        quickstart_figure(**arguments(**changes))
