"""The figure of the data side: rows per second, and padding. matplotlib is imported when the figure is asked for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import BLUE, GREY, INK, ORANGE, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def data_figure(result: Mapping[str, Any]) -> "Figure":
    """Rows per second of every way from a row to a batch, and how much of a batch is padding.

    Args:
        result: What `scripts/bench_data.py` writes as JSON: `rows_per_second` and `vit_small_rows_per_second` with `median` and
            `range`, `bar`, and `orders` with `paddings`, each with `padded_edges` in [0, 1) and `shapes`.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rates, orders = result["rows_per_second"], result["orders"]
    figure = Figure(figsize=(11.5, 1.7 + 0.3 * max(len(rates), 7)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    _draw_rates(left, rates, result["vit_small_rows_per_second"]["median"], result["bar"])
    left.set_title(
        f"{result['preset']}: {result['mean_nodes']:.0f} nodes, {result['mean_edges']:.0f} edges, batches of "
        f"{result['batch_size']}", loc="left", fontsize=11, color=INK,
    )  # fmt: skip
    _draw_padding(right, orders)
    right.set_title("padding among edges", loc="left", fontsize=11, color=INK)
    return figure


def _draw_rates(axes: "Axes", rates: Mapping[str, Any], consumed: float, bar: float) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_xscale("log")
    for place, (name, one) in enumerate(rates.items()):
        (low, high), median = one["range"], one["median"]
        colour = BLUE if "arrays" in name else GREY
        axes.plot([low, high], [place, place], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(median, place, "o", color=colour, ms=7)
        axes.annotate(
            f"{median:,.0f}", (high, place), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9, color=INK
        )
    axes.set_xlim(min(consumed, bar) / 2, max(one["range"][1] for one in rates.values()) * 5)
    for value, text, colour in ((consumed, "ViT-small needs", ORANGE), (bar, "bar", INK)):
        axes.axvline(value, color=colour, lw=1.6, ls=(0, (4, 3)))
        axes.annotate(
            f"{text} {value:,.2g}" if value < 10 else f"{text} {value:,.0f}", (value, 0), xycoords=("data", "axes fraction"),
            xytext=(4, 4), textcoords="offset points", color=colour, fontsize=9, fontweight="bold",
        )  # fmt: skip
    axes.set_yticks(np.arange(len(rates)), list(rates), fontsize=9, color=INK)
    axes.set_ylim(len(rates) + 0.2, -0.6)  # room for the names of the lines
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.set_xlabel("rows per second: median and range", color=INK)
    _tidy(axes)


def _draw_padding(axes: "Axes", orders: Mapping[str, Any]) -> None:
    labels, place = [], 0.0
    places = []
    for (order, one), colour in zip(orders.items(), (ORANGE, BLUE), strict=False):
        for padding, figures in one["paddings"].items():
            share, shapes = 100 * figures["padded_edges"], figures["shapes"]
            axes.barh(place, share, height=0.62, color=colour)
            axes.annotate(
                f"{share:.1f} %, {shapes} shape{'s' * (shapes != 1)}", (share, place), xytext=(5, 0), textcoords="offset points",
                va="center", fontsize=9, color=INK,
            )  # fmt: skip
            labels.append(f"{order}, to {'the ' if padding.startswith('longest') else 'a '}{padding}")
            places.append(place)
            place += 1
        place += 0.5
    axes.set_yticks(places, labels, fontsize=9, color=INK)
    axes.set_ylim(place - 0.5, -0.6)
    axes.set_xlim(0, 140)
    axes.set_xticks(range(0, 101, 25), [f"{tick} %" for tick in range(0, 101, 25)])
    _tidy(axes)


def _tidy(axes: "Axes") -> None:
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.grid(axis="x", color=PALE, lw=0.6)
    axes.set_axisbelow(True)
