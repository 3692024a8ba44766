"""The figure of the sampling benchmark, drawn from plain results; matplotlib is imported when a figure is asked for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import GREY, INK, PALE, WHEEL, _frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A hue for each kind of sampler, darker for larger groups.
COLOURS = {
    "independent": (GREY,),
    "antithetic": (WHEEL[2],),
    "stratified": ("#eda06f", "#c9541a", "#7d3008"),
    "orthogonal": ("#8fbbe8", "#4a8bd0", "#1f5596", "#0c2749"),
}
MARKERS = "oDs^"


def sampling_figure(result: Mapping[str, Any]) -> "Figure":
    """Error against samples, error against seconds, and the ratio to plain Monte-Carlo; one row for each model.

    Args:
        result: What `scripts/bench_sampling.py` writes: `bar` and `models`, each with `name`, `group`, `distribution`,
            `additive_share` and `samplers`; these with `sampler`, `group_size` and `points`, which hold `num_samples`,
            `squared_error`, `seconds`, `ratio` and its `interval`.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If there is no model.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = result["models"]
    if not models:
        raise ValueError("result: expected at least one model, got none.")
    figure = Figure(figsize=(13.5, 0.4 + 3.9 * len(models)), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for row, (axes, model) in enumerate(zip(figure.subplots(len(models), 3, squeeze=False), models, strict=True)):
        is_last = row == len(models) - 1
        _draw_errors(axes[0], model, "num_samples")
        _draw_errors(axes[1], model, "seconds")
        _draw_ratios(axes[2], model, result["bar"])
        _frame(axes[0], "number of samples $k$" if is_last else "", "mean squared error")
        _frame(axes[1], "milliseconds for an input" if is_last else "", "")
        _frame(axes[2], "number of samples $k$" if is_last else "", "error / plain Monte-Carlo")
        title = f"{model['name']}: {model['distribution']} on {model['group']}"
        if model["additive_share"]:
            title += f"; {max(0.0, model['additive_share']['share']):.0%} additive in the noise"
        axes[0].set_title(title, loc="left", fontsize=11, color=INK)
        axes[2].legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _styled(model: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Each sampler with the colour, marker and label of its lines."""
    seen: dict[str, int] = {}
    styled = []
    for row in model["samplers"]:
        colours, number = COLOURS[row["sampler"]], seen.get(row["sampler"], 0)
        seen[row["sampler"]] = number + 1
        label = row["sampler"] + (f", m = {row['group_size']}" if row["group_size"] > 1 else "")
        place = min(number, len(colours) - 1)
        styled.append((row, {"color": colours[place], "marker": MARKERS[place], "label": label, "ms": 5, "lw": 1.2}))
    return styled


def _draw_errors(axes: "Axes", model: Mapping[str, Any], x: str) -> None:
    from matplotlib.ticker import NullFormatter

    unit = 1e3 if x == "seconds" else 1.0
    for row, style in _styled(model):
        # An error within the reference's own uncertainty has no place on a logarithmic axis.
        points = sorted((point for point in row["points"] if point["squared_error"] > 0), key=lambda point: point[x])
        style["ls"] = "--" if row["sampler"] == "independent" else "-"
        axes.plot([unit * point[x] for point in points], [point["squared_error"] for point in points], **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(color=PALE, lw=0.5)
    if x == "num_samples":
        _mark_counts(axes, model)
    else:
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _mark_counts(axes: "Axes", model: Mapping[str, Any]) -> None:
    """Ticks at the numbers of samples of plain Monte-Carlo, which are the ones that were asked for."""
    counts = [point["num_samples"] for point in model["samplers"][0]["points"]]
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()


def _draw_ratios(axes: "Axes", model: Mapping[str, Any], bar: float) -> None:
    rows = _styled(model)
    for place, (row, style) in enumerate(rows):
        counts = np.array([point["num_samples"] for point in row["points"]], dtype=float)
        # Side by side, as many samplers have the same error.
        counts *= 2 ** (0.3 * (place / max(1, len(rows) - 1) - 0.5))
        ratios = np.array([point["ratio"] for point in row["points"]])
        low, high = np.array([point["interval"] for point in row["points"]]).T
        spread = np.maximum([ratios - low, high - ratios], 0.0)
        axes.errorbar(counts, ratios, yerr=spread, elinewidth=1.0, **style)
    axes.axhline(1.0, color=INK, lw=0.8)
    axes.axhline(bar, color=INK, lw=0.8, ls=":")
    axes.annotate("half of the samples", (0.02, bar), xycoords=("axes fraction", "data"), xytext=(0, -11),
                  textcoords="offset points", fontsize=8.5, color=INK)  # fmt: skip
    axes.set_xscale("log")
    _mark_counts(axes, model)
    axes.set_ylim(bottom=0.0)
    axes.grid(axis="y", color=PALE, lw=0.5)
