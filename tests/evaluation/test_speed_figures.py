"""Figures of cheaper settings show the numbers that they were given."""

import numpy as np
import pytest

from lps_hf.evaluation.speed_figures import distillation_figure, grids_figure, temperatures_figure


def figures(mean, deviation=None, values=()):
    return {"mean": mean, "deviation": deviation, "values": list(values)}


def grid_row(accuracy, cost, deviation=0.01):
    return {"test_accuracy": figures(accuracy, deviation), "cost": {"trained": {"eval": {"ratio": cost}}}}


def test_grids_are_drawn_by_cost_and_named():
    table = {"14": grid_row(0.9, 1.0), "7": grid_row(0.89, 0.2, None)}
    figure = grids_figure({"mutag": table, "exp": {"14": grid_row(0.5, 1.0)}}, bar=0.3)
    (axes,) = figure.axes
    first, second = axes.containers
    np.testing.assert_allclose(first.lines[0].get_xydata(), [[1, 90], [0.2, 89]])
    lengths = [np.ptp(segment[:, 1]) for segment in first.lines[2][0].get_segments()]
    np.testing.assert_allclose(lengths, [2, 0], atol=1e-12)
    np.testing.assert_allclose(second.lines[0].get_xydata(), [[1, 50]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mutag", "exp"]
    assert [text.get_text() for text in axes.texts] == ["14 × 14", "7 × 7", "14 × 14", "0.3"]
    assert axes.get_xscale() == "log"


def test_teacher_and_students_are_drawn_by_cost():
    table = {
        "teacher, k = 1": {"score": figures(0.7, 0.02), "cost": figures(1.0)},
        "teacher, k = 10": {"score": figures(0.8, 0.02), "cost": figures(9.5)},
        "canonical, labels": {"score": figures(0.72, None), "cost": figures(1.2)},
        "canonical, distilled": {"score": figures(0.78, 0.01), "cost": figures(1.2)},
    }
    figure = distillation_figure(table, "A set", "balanced accuracy")
    (axes,) = figure.axes
    teacher, *students = axes.containers
    np.testing.assert_allclose(teacher.lines[0].get_xydata(), [[1, 70], [9.5, 80]])
    # Side by side about their cost.
    np.testing.assert_allclose([container.lines[0].get_xdata()[0] for container in students], [1.2, 1.2], rtol=0.2)
    np.testing.assert_allclose([container.lines[0].get_ydata()[0] for container in students], [72, 78])
    assert [text.get_text() for text in axes.texts] == ["k = 1", "k = 10"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["teacher", *list(table)[2:]]
    assert axes.get_title(loc="left") == "A set"
    assert axes.get_ylabel() == "test balanced accuracy in %"


def test_temperatures_have_a_column_for_each_task():
    gradient = {"interface": figures(1e-3), "signal": figures(0.5)}
    learned = {"gradient_at_start": gradient, "gradient_at_end": {"interface": figures(2e-2)}}
    rows = {"haar": {"test_metric": figures(0.6, 0.1, [0.5, 0.7])}, "relative:1": {"test_metric": figures(0.8), **learned}}
    figure = temperatures_figure({"one": rows, "two": rows}, "accuracy in %")
    assert len(figure.axes) == 4
    scores, _, lengths, _ = figure.axes
    np.testing.assert_allclose(scores.containers[0].lines[0].get_xydata(), [[0, 60], [1, 80]])
    single = [line for line in scores.lines if line.get_marker() == "."]
    np.testing.assert_allclose(single[0].get_ydata(), [50, 70])
    before, after = lengths.lines
    # Beside the second setting: the first has no interface.
    np.testing.assert_allclose([*before.get_xydata()[0], *after.get_xydata()[0]], [1, 1e-3, 1, 2e-2])
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["one", "two"]
    assert scores.get_ylabel() == "accuracy in %"


def test_what_cannot_be_drawn_is_refused():
    for results in ({}, {"mutag": {"14": grid_row(90.0, 1.0)}}):
        with pytest.raises(ValueError, match=r"accuracies in \[0, 1\]"):
            grids_figure(results)
    with pytest.raises(ValueError, match="expected rows 'teacher, k = …' and 'canonical, …', got none"):
        distillation_figure({}, "")
    with pytest.raises(ValueError, match="at least one task"):
        temperatures_figure({})
