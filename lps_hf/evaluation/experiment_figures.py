"""Figures of the experiments on distributions, drawn from plain arrays; matplotlib is imported when a figure is asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .figures import BLUE, GREY, INK, ORANGE, WHEEL

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves_figure(
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    references: Mapping[str, float],
    y_label: str,
    title: str,
) -> "Figure":
    """Error against epochs: one colour for each method, one line for each seed.

    Args:
        curves: For each method its runs, each a list of (epoch, error).
        references: Errors of predictions that are not trained, drawn as dashed lines.
        y_label: What the error is.
        title: A line above the figure.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If there is no curve, or an error is not positive (they go on a logarithmic axis).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    errors = [error for runs in curves.values() for run in runs for _, error in run] + list(references.values())
    if not any(runs for runs in curves.values()) or min(errors) <= 0:
        raise ValueError("curves: expected at least one run, with positive errors.")
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = [BLUE, ORANGE, WHEEL[3], WHEEL[6], WHEEL[2], WHEEL[0]]
    right = max(epoch for runs in curves.values() for run in runs for epoch, _ in run)
    for (name, runs), colour in zip(curves.items(), colours, strict=False):
        for number, run in enumerate(runs):
            steps, values = np.array(run, dtype=float).T
            axes.plot(steps, values, color=colour, lw=1.8, alpha=0.9, label=name if number == 0 else None)
            axes.plot(steps[-1:], values[-1:], "o", color=colour, ms=4)
    for name, value in references.items():
        axes.axhline(value, color=GREY, lw=1, ls="--")
        axes.annotate(name, (right, value), xytext=(0, 3), textcoords="offset points", ha="right", color=GREY, fontsize=8)
    axes.set_yscale("log")
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return figure
