"""The figure of the rotated digits shows the numbers and the images that it was given."""

import numpy as np
import pytest

from lps_hf.evaluation.experiment_figures import turned_images_figure

TABLE = {
    "alone": {"upright": 0.98, "turned": 0.4, "cost_factor": 1.0},
    "canonical": {"upright": 0.95, "turned": 0.94, "cost_factor": 1.13, "upright_deviation": 0.01, "turned_deviation": None},
}


def test_images_stand_above_what_the_classifier_sees_and_rows_below_in_order():
    images = np.arange(3 * 16).reshape(3, 4, 4) / 48
    figure = turned_images_figure(images, images[:, ::-1], [7, 1, 9], TABLE, title="A title")
    pictures, chart = figure.axes[:-1], figure.axes[-1]
    shown = [np.asarray(axes.images[0].get_array()) for axes in pictures]
    np.testing.assert_array_equal(shown, [*images, *images[:, ::-1]])
    assert [axes.get_xlabel() for axes in pictures[3:]] == ["“7”", "“1”", "“9”"]

    assert [label.get_text() for label in chart.get_yticklabels()] == list(TABLE)
    assert chart.yaxis_inverted()
    upright, turned = (container.lines[0] for container in chart.containers)
    np.testing.assert_allclose(upright.get_xdata(), [98, 95])
    np.testing.assert_allclose(turned.get_xdata(), [40, 94])
    # Only the row with a spread has a bar of any length.
    lengths = [np.ptp(segment[:, 0]) for segment in chart.containers[0].lines[2][0].get_segments()]
    np.testing.assert_allclose(lengths, [0, 2])
    assert [text.get_text() for text in chart.texts] == ["1.0 ×", "1.1 ×", "cost"]
    assert [text.get_text() for text in chart.get_legend().get_texts()] == ["as stored", "under random quarter turns"]
    assert figure.get_suptitle() == "A title"


def test_arguments_that_do_not_fit_are_refused():
    images = np.zeros((2, 4, 4))
    for canonical, predictions in ((images[:1], [1, 2]), (images, [1]), (images, [])):
        with pytest.raises(ValueError, match="one for each of the 2 images"):
            turned_images_figure(images, canonical, predictions, TABLE, title="")
    for table in ({}, {"alone": {**TABLE["alone"], "turned": 40.0}}):
        with pytest.raises(ValueError, match="in \\[0, 1\\]"):
            turned_images_figure(images, images, [1, 2], table, title="")
