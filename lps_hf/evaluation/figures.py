"""Figures of a finished run, drawn from plain arrays; matplotlib is imported when a figure is asked for."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BLUE, ORANGE, INK, GREY, PALE, PAPER = "#2563a8", "#d9692b", "#22303c", "#7a8793", "#c9d0d6", "#eef1f4"
# Hues of the nodes, once around; equally dark, so that no node looks more important than another.
WHEEL = ("#d1495b", "#e0803c", "#d8b13a", "#74a94f", "#2a9d8f", "#3b7dd8", "#7b5cc4", "#b8508f")
SHOWN_SAMPLES = 3


def quickstart_figure(
    graph: Mapping[str, Any],
    node_orders: Any,
    losses: Any,
    equivariance: Mapping[str, Any],
    accuracies: Mapping[str, float],
    *,
    loss_steps: Any = None,
    title: str | None = None,
) -> "Figure":
    """One picture of a run: what the backbone sees, how it was trained, how equivariant and how good it became.

    (a) a graph and its adjacency matrix in three sampled node orders, with the colour of each node along the matrix;
    (b) the training loss; (c) the equivariance error against the number of samples; (d) accuracies.

    Args:
        graph: A row in the Hub's graph-row format: `edge_index`, `num_nodes`.
        node_orders (array of ints of shape `(num_samples, num_nodes)`): Sampled permutations, the node of each rank;
            the backbone sees node `node_orders[s, i]` in place `i`. The first three are shown.
        losses (array of shape `(num_steps,)`): Training loss.
        equivariance: `num_samples` and `error`, arrays of shape `(num_points,)`, the error of the symmetrized model;
            optional `spread`, same shape, its error bar; `backbone`, a number, the error of the plain backbone.
        accuracies: Accuracy in [0, 1] by name, drawn from left to right. The first bar, the model's, is highlighted;
            for example `{"this model": 0.98, "best 1-WL": 0.5, "chance": 0.5}`.
        loss_steps (array of shape `(num_steps,)`, *optional*): Step of each loss; 1, 2, ... by default.
        title: A line above the panels.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; no state of pyplot is touched. Save it with `.savefig(path)`.

    Raises:
        ValueError: If a node order is no permutation of the nodes, arrays differ in length, errors are not positive
            (they go on a logarithmic axis) or an accuracy is outside [0, 1].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    num_nodes = int(graph["num_nodes"])
    orders = np.asarray(node_orders)[:SHOWN_SAMPLES]
    fits = orders.ndim == 2 and len(orders) and orders.shape[1] == num_nodes
    if not fits or (np.sort(orders, axis=1) != np.arange(num_nodes)).any():
        raise ValueError(
            f"`node_orders` must hold permutations of 0 ... {num_nodes - 1} in shape (num_samples, {num_nodes}), got "
            f"shape {np.shape(node_orders)}. Cut padding off: `index[:num_nodes]` of one graph."
        )
    losses = np.asarray(losses, dtype=float)
    steps = np.arange(1, len(losses) + 1) if loss_steps is None else np.asarray(loss_steps)
    counts = np.asarray(equivariance["num_samples"], dtype=float)
    errors = np.asarray(equivariance["error"], dtype=float)
    spread = np.asarray(equivariance.get("spread", np.zeros_like(errors)), dtype=float)
    for name, left, right in (
        ("loss_steps", steps, losses),
        ("equivariance['error']", errors, counts),
        ("equivariance['spread']", spread, errors),
    ):
        if left.shape != right.shape or left.ndim != 1 or not len(left):
            raise ValueError(f"`{name}` must have shape {right.shape}, not empty, got {left.shape}. Give one per point.")
    if not (errors > 0).all() or not equivariance["backbone"] > 0:
        raise ValueError(
            f"`equivariance` must have positive errors for a logarithmic axis, got {errors.tolist()} and "
            f"{equivariance['backbone']} for the backbone. Leave points without an error out."
        )
    if not accuracies or not all(0 <= value <= 1 for value in accuracies.values()):
        raise ValueError(f"`accuracies` must be in [0, 1], got {dict(accuracies)}. Divide percentages by 100.")

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(13, 8.2), dpi=120, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=16, fontweight="bold", color=INK)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.05))[:, 0]
    left, right = top.subfigures(1, 2, width_ratios=(1.15, len(orders)))
    # Titles of sub-figures stay on one line where those of axes would follow the shape of the drawing.
    left.suptitle(r"$\bf{a}$   One test graph …", x=0.04, ha="left", fontsize=14, color=INK)
    right.suptitle("… as the backbone sees it, in sampled node orders", x=0.08 / len(orders), ha="left", fontsize=14, color=INK)
    graph_axes, matrix_axes = left.subplots(), right.subplots(1, len(orders), squeeze=False)[0]
    loss_axes, error_axes, accuracy_axes = bottom.subplots(1, 3, width_ratios=(1, 1.15, 0.95))
    _draw_graph(graph_axes, matrix_axes, graph, orders)
    _draw_loss(loss_axes, steps, losses)
    _draw_equivariance(error_axes, counts, errors, spread, float(equivariance["backbone"]))
    _draw_accuracies(accuracy_axes, accuracies)
    return figure


def _draw_graph(
    axes: "Axes",
    matrix_axes: Sequence["Axes"],
    graph: Mapping[str, Any],
    orders: np.ndarray,
    positions: np.ndarray | None = None,
    symbols: Sequence[str] | None = None,
    widths: np.ndarray | float = 1.3,
) -> None:
    """The graph, with nodes at given positions or where its distances put them, and its adjacency matrix in some node orders."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    num_nodes = int(graph["num_nodes"])
    edges = np.asarray(graph["edge_index"], dtype=int).reshape(2, -1)
    adjacency = np.zeros((num_nodes, num_nodes), dtype=bool)
    adjacency[edges[0], edges[1]] = True
    # The hue turns once around the drawing, so that neighbours are alike and a shuffled order shows.
    if positions is None:
        positions, hues = _layout(adjacency | adjacency.T)
    else:
        offsets = positions - positions.mean(axis=0)
        hues = np.arctan2(offsets[:, 1], offsets[:, 0]) / (2 * np.pi) % 1
    colors = LinearSegmentedColormap.from_list("wheel", WHEEL + WHEEL[:1])(hues)[:, :3]

    axes.add_collection(LineCollection(positions[edges.T], colors=GREY, linewidths=widths, alpha=0.6, zorder=1))
    size = np.clip(3600 / num_nodes, 18, 190) * (1 if symbols is None else 1.6)
    axes.scatter(positions[:, 0], positions[:, 1], s=size, c=colors, edgecolors="white", linewidths=1.2, zorder=2, clip_on=False)
    for (x, y), symbol in zip(positions, symbols or (), strict=False):
        axes.text(x, y, symbol, fontsize=0.58 * size**0.5, ha="center", va="center", color="white", fontweight="bold", zorder=3)
    axes.margins(0.06)
    axes.set_aspect("equal", adjustable="datalim")
    axes.axis("off")

    # Strips of node colours on top and on the left of the matrix, in proportion to it: so cells are 4 pixels wide.
    strip, gap = max(1, round(4 * num_nodes / 18)), max(1, round(4 * num_nodes / 45))
    start, side = strip + gap, strip + gap + 4 * num_nodes
    for i, (axes, order) in enumerate(zip(matrix_axes, orders, strict=True)):
        cells = np.where(adjacency[np.ix_(order, order)][..., None], to_rgb(INK), to_rgb(PAPER))
        image = np.ones((side, side, 3))
        image[:strip, start:] = colors[order].repeat(4, axis=0)
        image[start:, :strip] = colors[order].repeat(4, axis=0)[:, None]
        image[start:, start:] = cells.repeat(4, axis=0).repeat(4, axis=1)
        axes.imshow(image, interpolation="nearest")
        axes.axis("off")
        axes.set_title(f"sample {i + 1}", y=-0.1, fontsize=11, color=GREY)


def _draw_loss(axes: "Axes", steps: np.ndarray, losses: np.ndarray) -> None:
    _title(axes, "b", "Training loss")
    window = max(1, len(losses) // 25)
    if window > 1:
        axes.plot(steps, losses, color=BLUE, alpha=0.28, linewidth=1.0, label="as logged")
        # Normalised by the weights inside the record, so that the ends are not drawn towards zero.
        kernel = np.ones(2 * window + 1)
        smooth = np.convolve(losses, kernel)[window:-window] / np.convolve(np.ones_like(losses), kernel)[window:-window]
        axes.plot(steps, smooth, color=BLUE, linewidth=2.4, label="running mean")
        axes.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize=11, labelcolor=INK)
    else:
        axes.plot(steps, losses, color=BLUE, linewidth=2.4, marker="o", markersize=4)
    axes.set_ylim(bottom=min(0.0, float(np.nanmin(losses))))
    _frame(axes, "step", "loss")


def _draw_equivariance(
    axes: "Axes", counts: np.ndarray, errors: np.ndarray, spread: np.ndarray, backbone: float | None, letter: str = "c"
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    _title(axes, letter, "Equivariance error")
    axes.set_xscale("log")
    axes.set_yscale("log")
    if backbone is not None:
        axes.axhline(backbone, color=ORANGE, linewidth=2.2)
    guide = errors[0] * np.sqrt(counts[0] / counts)
    if len(counts) > 1:
        axes.plot(counts, guide, color=GREY, linewidth=1.6, linestyle=(0, (4, 3)), label=r"$1/\sqrt{k}$ guide", zorder=1)
    else:
        axes.set_xlim(counts[0] / 2, counts[0] * 2)  # a line across the panel would set its own limits
    # An error bar that reaches zero has no end on a logarithmic axis: cut it at a tenth of the error.
    bars = np.stack([np.minimum(spread, 0.9 * errors), spread])
    axes.errorbar(
        counts, errors, yerr=bars, color=BLUE, linewidth=2.2, marker="o", markersize=6, capsize=3.5, elinewidth=1.4,
        label="symmetrized, $k$ samples", zorder=3,
    )  # fmt: skip
    low, high = min((errors - bars[0]).min(), guide.min()), (errors + bars[1]).max()
    if backbone is not None:
        low, high = min(low, backbone), max(high, backbone)
        axes.annotate(
            "plain backbone", (1, backbone), xycoords=("axes fraction", "data"), xytext=(-4, 5),
            textcoords="offset points", ha="right", va="bottom", fontsize=11, color=ORANGE, fontweight="bold",
        )  # fmt: skip
    high = max(high, 1.01 * low)
    # The lower fifth of the panel is the legend's, so that no curve can run through it.
    axes.set_ylim(low / (high / low) ** 0.3, high * (high / low) ** 0.16)
    axes.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize=11, labelcolor=INK, loc="lower left")
    shown = counts if len(counts) <= 8 else counts[:: -(-len(counts) // 8)]
    axes.xaxis.set_major_locator(FixedLocator(shown.tolist()))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    _frame(axes, "number of samples $k$", "relative error")


def _draw_accuracies(axes: "Axes", accuracies: Mapping[str, float]) -> None:
    from matplotlib.ticker import PercentFormatter

    _title(axes, "d", "Test accuracy")
    values = list(accuracies.values())
    places = np.arange(len(values))
    axes.bar(places, values, width=0.62, color=[BLUE] + [PALE] * (len(values) - 1))
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f"{100 * value:.1f} %", (place, value), xytext=(0, 4), textcoords="offset points", ha="center",
            fontsize=12, fontweight="bold", color=INK,
        )  # fmt: skip
    _frame(axes, "", "")
    width = max(8, 33 // len(values))
    axes.set_xticks(places, [fill(name, width) for name in accuracies], fontsize=12)
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 5))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(axis="x", length=0)


def _title(axes: "Axes", letter: str, text: str) -> None:
    axes.set_title(rf"$\bf{{{letter}}}$   {text}", loc="left", fontsize=14, color=INK, pad=12)


def _frame(axes: "Axes", x_label: str, y_label: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=11)
    axes.set_xlabel(x_label, fontsize=12, color=INK)
    axes.set_ylabel(y_label, fontsize=12, color=INK)
    axes.grid(axis="y", which="major", color=PALE, linewidth=0.7, alpha=0.7)
    axes.set_axisbelow(True)


def _layout(adjacency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place the nodes of each connected component, components side by side in a square grid.

    Args:
        adjacency: `(num_nodes, num_nodes)`, symmetric.

    Returns:
        Positions `(num_nodes, 2)`, and hues `(num_nodes,)` in [0, 1) that turn with the angle around the centre of
        the component, each component having a share of the turn.
    """
    num_nodes = len(adjacency)
    hops = np.where(np.eye(num_nodes, dtype=bool), 0.0, np.where(adjacency, 1.0, np.inf))
    for middle in range(num_nodes):
        hops = np.minimum(hops, hops[:, middle, None] + hops[None, middle])
    first_reached = np.isfinite(hops).argmax(axis=1)
    components = [np.flatnonzero(first_reached == first) for first in np.unique(first_reached)]
    placed = [_stress_majorization(hops[np.ix_(nodes, nodes)]) for nodes in components]

    positions, hues = np.zeros((num_nodes, 2)), np.zeros(num_nodes)
    columns = int(np.ceil(np.sqrt(len(components))))
    cell = 2 * max(np.abs(points).max() for points in placed) + 1
    done = 0
    for i, (nodes, points) in enumerate(zip(components, placed, strict=True)):
        positions[nodes] = points + cell * np.array([i % columns, -(i // columns)])
        turn = np.arctan2(points[:, 1], points[:, 0]) / (2 * np.pi) % 1
        hues[nodes] = (done + turn * len(nodes)) / num_nodes
        done += len(nodes)
    return positions, hues


def _stress_majorization(hops: np.ndarray, num_iterations: int = 300) -> np.ndarray:
    """Draw a connected graph so that lengths are distances in the graph (SMACOF; Gansner, Koren, North 2004).

    Deterministic, and a ring comes out round, which force-directed layouts do not promise.

    Args:
        hops: Distances in the graph, `(num_nodes, num_nodes)`, finite.
        num_iterations: Number of Guttman transforms.

    Returns:
        Positions `(num_nodes, 2)`, centred at 0.
    """
    if len(hops) < 3:
        return np.arange(len(hops))[:, None] * np.array([1.0, 0.0]) - np.array([(len(hops) - 1) / 2, 0.0])
    # Start from classical scaling: the two main axes of the doubly centred squared distances.
    centred = hops**2 - (hops**2).mean(axis=0)
    centred = -0.5 * (centred - centred.mean(axis=1, keepdims=True))
    scales, vectors = np.linalg.eigh(centred)
    positions = vectors[:, -2:] * np.sqrt(np.maximum(scales[-2:], 1e-9))
    weights = 1 / np.maximum(hops, 1) ** 2
    np.fill_diagonal(weights, 0)
    inverse = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights)
    for _ in range(num_iterations):
        drawn = np.linalg.norm(positions[:, None] - positions[None], axis=2)
        ratio = -weights * hops / np.maximum(drawn, 1e-9)
        np.fill_diagonal(ratio, 0)
        np.fill_diagonal(ratio, -ratio.sum(axis=1))
        positions = inverse @ (ratio @ positions)
    return positions - positions.mean(axis=0)
