"""Figures of cheaper settings beside their accuracy, drawn from plain numbers; matplotlib is imported when one is asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import BLUE, GREY, INK, ORANGE, PALE, WHEEL, _frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, WHEEL[3], WHEEL[6], WHEEL[2], WHEEL[0])


def grids_figure(
    results: Mapping[str, Mapping[str, Mapping[str, Any]]], bar: float = 0.35, size: str = "trained", mode: str = "eval"
) -> "Figure":
    """Test accuracy against cost for several token grids, one line for each data set.

    Args:
        results: For each data set its rows by grid: `test_accuracy` with `mean` and `deviation` (`None` for one seed), in [0, 1],
            and `cost[size][mode]["ratio"]`, in units of the first grid.
        bar: The cost that small grids are to keep below, drawn as a line.
        size: Which model's cost.
        mode: Cost of what.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If there is no row, or an accuracy is outside [0, 1].
    """
    accuracies = [row["test_accuracy"]["mean"] for rows in results.values() for row in rows.values()]
    if not accuracies or not all(0 <= value <= 1 for value in accuracies):
        raise ValueError("results: expected at least one row, with accuracies in [0, 1]. Divide percentages by 100.")
    figure, axes = _new_figure((6.4, 4.2))
    for (name, rows), colour in zip(results.items(), COLOURS, strict=False):
        costs = [row["cost"][size][mode]["ratio"] for row in rows.values()]
        _error_bars(axes, costs, [row["test_accuracy"] for row in rows.values()], colour, name, line="-")
        for grid, cost, row in zip(rows, costs, rows.values(), strict=True):
            place = (cost, 100 * row["test_accuracy"]["mean"])
            axes.annotate(f"{grid} × {grid}", place, xytext=(5, 6), textcoords="offset points", fontsize=8, color=colour)
    axes.axvline(bar, color=GREY, lw=1, ls="--")
    axes.annotate(
        f"{bar:g}", (bar, 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points", color=GREY
    )
    _logarithmic(axes, [0.05, 0.1, 0.2, 0.5, 1.0])
    _frame(axes, "cost of a prediction, in units of the first grid", "test accuracy in %")
    axes.margins(0.12)
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, loc="best")
    return figure


def error_bars_figure(rows: Mapping[str, Mapping[str, Any]], title: str) -> "Figure":
    """Test accuracy against the mean number of samples: fixed numbers, and as many as each graph needs for a tolerance.

    Args:
        rows: By name; `accuracy` with `mean` and `deviation`, `mean_samples`, and `tolerance` where the number was not fixed.
        title: What the rows are of.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.
    """
    figure, axes = _new_figure((6.4, 4.2))
    kinds = {"fixed number": BLUE, "until the error bar is small enough": ORANGE}
    for (label, colour), adaptive in zip(kinds.items(), (False, True), strict=True):
        kept = {name: row for name, row in rows.items() if ("tolerance" in row) is adaptive}
        counts = [row["mean_samples"] for row in kept.values()]
        _error_bars(axes, counts, [row["accuracy"] for row in kept.values()], colour, label, line="-")
        for name, row in kept.items():
            place = (row["mean_samples"], 100 * row["accuracy"]["mean"])
            offset = (5, -12) if adaptive else (5, 6)
            axes.annotate(name, place, xytext=offset, textcoords="offset points", fontsize=8, color=colour)
    _logarithmic(axes, [1, 3, 10, 30, 100])
    _frame(axes, "mean samples of a prediction", f"{title}: test accuracy in %")
    axes.margins(0.12)
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, loc="lower right")
    return figure


def distillation_figure(table: Mapping[str, Mapping[str, Any]], title: str, metric: str = "accuracy") -> "Figure":
    """Test scores against cost: the teacher at several numbers of samples, and canonical students at one.

    Args:
        table: Rows `teacher, k = …` and `canonical, …`; of each `score`, in [0, 1], and `cost` with `mean` and `deviation`.
        title: A line above the figure.
        metric: What the score is.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If there is no teacher or no student.
    """
    teachers = {name: row for name, row in table.items() if name.startswith("teacher")}
    students = {name: row for name, row in table.items() if name.startswith("canonical")}
    if not teachers or not students:
        raise ValueError(f"table: expected rows 'teacher, k = …' and 'canonical, …', got {', '.join(table) or 'none'}.")
    figure, axes = _new_figure((6.8, 4.2))
    costs = [row["cost"]["mean"] for row in teachers.values()]
    _error_bars(axes, costs, [row["score"] for row in teachers.values()], BLUE, "teacher", line="-")
    for name, cost, row in zip(teachers, costs, teachers.values(), strict=True):
        place = (cost, 100 * row["score"]["mean"])
        axes.annotate(name.split(", ")[1], place, xytext=(-5, 6), textcoords="offset points", ha="right", fontsize=9, color=BLUE)
    # Side by side: all students cost the same.
    shifts = np.linspace(-0.06, 0.06, len(students))
    for (name, row), shift, colour, marker in zip(
        students.items(), shifts, (GREY, WHEEL[3], ORANGE, WHEEL[6]), "vsDo", strict=False
    ):
        _error_bars(axes, [row["cost"]["mean"] * 10**shift], [row["score"]], colour, name, marker=marker)
    ticks = [1, 2, 5, 10, 20, 50, 100]
    _logarithmic(axes, [tick for tick in ticks if tick <= 1.5 * max(costs)])
    _frame(axes, "cost of a prediction, in units of one sample of the teacher", f"test {metric} in %")
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.margins(0.12)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    return figure


def temperatures_figure(table: Mapping[str, Mapping[str, Mapping[str, Any]]], y_label: str = "test score in %") -> "Figure":
    """What each temperature leads to: the test score of every seed, and the length of the interface's gradient.

    Args:
        table: For each task its rows by setting: `test_metric` with `mean`, `deviation` and `values`, in [0, 1], and, where there
            is an interface, `gradient_at_start` and `gradient_at_end`, of which `interface` is drawn.
        y_label: What the score is.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If there is no task.
    """
    from matplotlib.ticker import NullFormatter

    if not table:
        raise ValueError("table: expected at least one task, got none.")
    figure, panels = _new_figure((3.2 * len(table) + 0.8, 5.6), (2, len(table)))
    for column, (task, rows) in enumerate(table.items()):
        scores, lengths = panels[:, column]
        places = np.arange(len(rows))
        _error_bars(scores, places, [row["test_metric"] for row in rows.values()], BLUE, "mean over seeds")
        for place, row in zip(places, rows.values(), strict=True):
            values = 100 * np.asarray(row["test_metric"]["values"])
            scores.plot(np.full(len(values), place + 0.18), values, ".", color=GREY, ms=5)
        scores.set_title(task, loc="left", fontsize=11, color=INK)
        learned = [place for place, row in zip(places, rows.values(), strict=True) if "gradient_at_start" in row]
        for when, label, colour, marker in (
            ("gradient_at_start", "before training", GREY, "o"),
            ("gradient_at_end", "after", ORANGE, "D"),
        ):
            means = [row[when]["interface"]["mean"] for row in rows.values() if when in row]
            lengths.plot(learned, means, marker, color=colour, ms=6, label=label)
        lengths.set_yscale("log")
        lengths.yaxis.set_minor_formatter(NullFormatter())
        _frame(scores, "", y_label if column == 0 else "")
        _frame(lengths, "", "gradient of the task loss\nat the interface" if column == 0 else "")
        scores.set_xticks(places, [])
        lengths.set_xticks(places, [name.replace(":", "\n") for name in rows], fontsize=8)
        lengths.set_xlim(scores.get_xlim())
    panels[1, 0].legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _new_figure(size: tuple[float, float], shape: tuple[int, int] | None = None) -> tuple["Figure", Any]:
    """A figure with one panel, or a grid (rows, columns) of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots() if shape is None else figure.subplots(*shape, squeeze=False)


def _error_bars(
    axes: "Axes",
    places: Sequence[float] | np.ndarray,
    figures: Sequence[Mapping[str, Any]],
    colour: str,
    label: str,
    line: str = "none",
    marker: str = "o",
) -> None:
    """Means in percent with their standard deviations."""
    means = [100 * figure["mean"] for figure in figures]
    spread = [100 * (figure["deviation"] or 0.0) for figure in figures]
    axes.errorbar(places, means, yerr=spread, color=colour, fmt=marker, ls=line, lw=1.6, ms=6, capsize=3, label=label)


def _logarithmic(axes: "Axes", ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(color=PALE, lw=0.6)
    axes.set_axisbelow(True)
