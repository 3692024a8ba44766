"""The figure of the data side shows every rate, the two bars and every share of padding."""

import pytest

from lps_hf.evaluation.data_figures import data_figure

pytest.importorskip("matplotlib")


def figures(median):
    return {"median": median, "range": [0.9 * median, 1.2 * median]}


RESULT = {
    "preset": "peptides",
    "mean_nodes": 151.2,
    "mean_edges": 307.4,
    "batch_size": 32,
    "bar": 500,
    "rows_per_second": {"processor, lists": figures(7000.0), "data loader, arrays, no worker": figures(15000.0)},
    "vit_small_rows_per_second": figures(1.64),
    "orders": {
        "random": {"paddings": {"longest row": {"padded_edges": 0.58, "shapes": 61}}},
        "similar lengths": {
            "paddings": {
                "longest row": {"padded_edges": 0.041, "shapes": 64},
                "power of 2": {"padded_edges": 0.326, "shapes": 5},
            }
        },
    },
}


def test_everything_is_in_the_figure(tmp_path):
    figure = data_figure(RESULT)
    left, right = figure.axes
    assert left.get_title(loc="left") == "peptides: 151 nodes, 307 edges, batches of 32"
    assert [label.get_text() for label in left.get_yticklabels()] == list(RESULT["rows_per_second"])
    points = [line for line in left.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == [7000.0, 15000.0]
    assert {"7,000", "15,000", "ViT-small needs 1.6", "bar 500"} == {text.get_text() for text in left.texts}
    low, high = left.get_xlim()
    assert low < 1.64
    assert high > 1.2 * 15000
    assert [bar.get_width() for bar in right.patches] == pytest.approx([58, 4.1, 32.6])
    assert [text.get_text() for text in right.texts] == ["58.0 %, 61 shapes", "4.1 %, 64 shapes", "32.6 %, 5 shapes"]
    assert [label.get_text() for label in right.get_yticklabels()] == [
        "random, to the longest row",
        "similar lengths, to the longest row",
        "similar lengths, to a power of 2",
    ]
    figure.savefig(tmp_path / "figure.png")
