"""Figures of one prediction: what the backbone was shown, what came out, and how the average settled."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import BLUE, GREY, INK, ORANGE, PALE, WHEEL, _draw_graph, _frame, _title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Curves of the outputs with the largest values; more would be a tangle.
SHOWN_OUTPUTS = 4
_CURVES = (BLUE, ORANGE, WHEEL[4], WHEEL[6])


def orders_figure(
    graph: Mapping[str, Any],
    node_orders: Any,
    *,
    positions: Any = None,
    symbols: Sequence[str] | None = None,
    edge_widths: Any = 1.3,
) -> "Figure":
    """Draw a graph, and its adjacency matrix in the node orders in which the backbone saw it.

    Args:
        graph: A row with `edge_index` and `num_nodes`.
        node_orders (array of ints of shape `(num_samples, num_nodes)`): The node of each rank; all are drawn.
        positions (array of shape `(num_nodes, 2)`, *optional*): Where to draw the nodes. Default: by distances in the graph.
        symbols: What to write on each node.
        edge_widths (number, or array of shape `(num_edges,)`): Line width of each entry of `edge_index`.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas.

    Raises:
        ValueError: If a node order is no permutation of the nodes.
    """
    num_nodes = int(graph["num_nodes"])
    orders = np.asarray(node_orders)
    fits = orders.ndim == 2 and len(orders) and orders.shape[1] == num_nodes
    if not fits or (np.sort(orders, axis=1) != np.arange(num_nodes)).any():
        raise ValueError(f"node_orders: expected permutations of 0 to {num_nodes - 1}, one or more, got shape {orders.shape}.")
    figure = _new_figure((3.3 * (len(orders) + 1.25), 3.9))
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.25, len(orders)))[0]
    left.suptitle("The input …", x=0.04, ha="left", fontsize=13, color=INK)
    right.suptitle("… as the backbone sees it, draw by draw", x=0.08 / len(orders), ha="left", fontsize=13, color=INK)
    matrix_axes = right.subplots(1, len(orders), squeeze=False)[0]
    places = None if positions is None else np.asarray(positions, dtype=float)
    _draw_graph(left.subplots(), matrix_axes, graph, orders, places, symbols, edge_widths)
    return figure


def settling_figure(
    means: Any, errors: Any, counts: Sequence[int], names: Sequence[str], *, label: str = "output", bounded: bool = False
) -> "Figure":
    """Draw the outputs with their error bars, and how both settled as more samples were taken.

    Args:
        means (array of shape `(num_counts, num_outputs)`): Outputs after so many samples.
        errors (array of the same shape): Their standard errors; NaN where there is none.
        counts: Numbers of samples, rising; the last one is that of the bars.
        names: Name of each output.
        label: What the outputs are, for the axes.
        bounded: Whether they lie between 0 and 1.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas.

    Raises:
        ValueError: If arrays do not fit together.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    means, errors, counts = np.asarray(means, float), np.asarray(errors, float), list(counts)
    if means.shape != errors.shape or means.shape != (len(counts), len(names)) or not means.size:
        raise ValueError(
            f"means, errors: expected shape {(len(counts), len(names))}, as counts and names say, got {means.shape} and "
            f"{errors.shape}."
        )
    figure = _new_figure((13, 3.9))
    bar_axes, mean_axes, error_axes = figure.subplots(1, 3, width_ratios=(1, 1.1, 1))
    order = np.argsort(-means[-1], kind="stable")[:SHOWN_OUTPUTS]
    colors = dict(zip(order.tolist(), _CURVES, strict=False))

    _title(bar_axes, "a", f"After {counts[-1]} samples" if counts[-1] > 1 else "Prediction")
    places = np.arange(len(names))
    bars = {"xerr": np.nan_to_num(errors[-1]), "error_kw": {"ecolor": INK, "capsize": 4, "elinewidth": 1.4}}
    bar_axes.barh(places, means[-1], height=0.62, color=[colors.get(place, PALE) for place in range(len(names))], **bars)
    bar_axes.axvline(0, color=GREY, linewidth=0.8)
    bar_axes.set_yticks(places, list(names), fontsize=11)
    _frame(bar_axes, label, "")
    bar_axes.grid(axis="y", visible=False)
    bar_axes.grid(axis="x", color=PALE, linewidth=0.7, alpha=0.7)
    bar_axes.set_ylim(len(names) - 0.5, -0.5)

    _title(mean_axes, "b", "How it settles")
    for place, color in colors.items():
        center, spread = means[:, place], errors[:, place]
        mean_axes.fill_between(counts, center - spread, center + spread, color=color, alpha=0.2, linewidth=0)
        mean_axes.plot(counts, center, color=color, linewidth=2, marker="o", markersize=3.5, label=names[place])
    _count_axis(mean_axes, counts)
    _frame(mean_axes, "number of samples", label)
    mean_axes.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize=10, labelcolor=INK)
    if bounded:
        bar_axes.set_xlim(0, 1.05)
        mean_axes.set_ylim(-0.03, 1.05)

    _title(error_axes, "c", "Its error bar")
    # An error of exactly zero has no place on a logarithmic axis.
    largest = np.nanmax(np.where(errors[:, list(colors)] > 0, errors[:, list(colors)], np.nan), axis=1, initial=0)
    known = np.flatnonzero(largest > 0)
    if len(known):
        shown, values = np.asarray(counts)[known], largest[known]
        error_axes.plot(shown, values, color=INK, linewidth=2, marker="o", markersize=4, label="largest standard error")
        guide = values[-1] * np.sqrt(shown[-1] / shown)
        error_axes.plot(shown, guide, color=GREY, linewidth=1.6, linestyle=(0, (4, 3)), label=r"$1/\sqrt{k}$", zorder=1)
        error_axes.set_yscale("log")
        error_axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        error_axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        error_axes.yaxis.set_minor_locator(NullLocator())
        error_axes.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize=10, labelcolor=INK)
        _count_axis(error_axes, shown.tolist())
        _frame(error_axes, "number of samples $k$", "standard error")
    else:
        text = "zero: every draw\ngave the same" if (errors == 0).any() else "none"
        error_axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, fontsize=12)
        error_axes.axis("off")
    return figure


def _count_axis(axes: "Axes", counts: Sequence[int]) -> None:
    """Numbers of samples on a logarithmic axis, with a tick at powers of two."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    powers = [2**power for power in range(20) if counts[0] <= 2**power <= counts[-1]]
    axes.xaxis.set_major_locator(FixedLocator(powers or list(counts)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    if counts[0] == counts[-1]:
        axes.set_xlim(counts[0] / 2, counts[0] * 2)


def _new_figure(size: tuple[float, float]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=size, dpi=110, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    return figure
