"""Figures of the experiments, drawn from plain arrays; matplotlib is imported when a figure is asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import BLUE, GREY, INK, ORANGE, PALE, WHEEL, _frame, _layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


def inner_symmetry_figure(
    graphs: Mapping[str, Mapping[str, Any]],
    outputs: Mapping[str, Mapping[str, Sequence[float]]],
    differences: Mapping[str, Mapping[str, Any]],
    num_samples: Sequence[int],
) -> "Figure":
    """Outputs on graphs with inner symmetries, as colours of nodes, and how far they differ within an orbit.

    One column for each graph: its nodes under canonicalization and under the learned distribution, where equal colours are equal
    outputs, and below the largest difference within an orbit against the number of samples k, on logarithmic axes.

    Args:
        graphs: Rows in the Hub's graph-row format by name: `edge_index`, `num_nodes`.
        outputs: For each graph one output per node under `"canonical"` and `"learned"`, of one model.
        differences: For each graph, under `"canonical"`, `"learned"` and `"haar"`, the largest difference for each k in units of
            the base network's spread: `mean`, `least` and `greatest` over models. `None` where no two nodes share an orbit.
        num_samples: The numbers k, ascending.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If a graph's outputs are not one per node.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FuncFormatter

    for name, graph in graphs.items():
        for kind in ("canonical", "learned"):
            if np.shape(outputs[name][kind]) != (graph["num_nodes"],):
                raise ValueError(
                    f"outputs[{name!r}][{kind!r}]: expected {graph['num_nodes']} numbers, one per node, got shape "
                    f"{np.shape(outputs[name][kind])}."
                )
    layout = ConstrainedLayoutEngine(h_pad=0.12)
    figure = Figure(figsize=(2.7 * len(graphs) + 0.6, 8.6), dpi=120, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(graphs), squeeze=False, height_ratios=(1, 1, 1.15))
    colours = LinearSegmentedColormap.from_list("outputs", [BLUE, "#f4efe6", ORANGE])
    for column, (name, graph) in enumerate(graphs.items()):
        # One scale for both pictures of a graph: equal outputs have equal colours across them, too.
        both = np.concatenate([outputs[name]["canonical"], outputs[name]["learned"]])
        norm = Normalize(both.min(), both.max())
        for row, kind in enumerate(("canonical", "learned")):
            _draw_outputs(axes[row, column], graph, colours(norm(np.asarray(outputs[name][kind]))))
        axes[0, column].set_title(name.replace("_", " "), fontsize=13, color=INK)
        _draw_differences(axes[2, column], differences[name], np.asarray(num_samples, dtype=float))
    for row, text in enumerate(("canonicalization", f"learned, k = {num_samples[-1]}")):
        axes[row, 0].annotate(
            text, (0, 0.5), xycoords="axes fraction", xytext=(-14, 0), textcoords="offset points",
            rotation=90, ha="right", va="center", fontsize=12, color=(ORANGE, BLUE)[row], fontweight="bold",
        )  # fmt: skip
    drawn = [panel for panel in axes[2] if panel.lines]
    limits = np.array([panel.get_ylim() for panel in drawn])
    for panel in drawn:
        panel.set_ylim(limits[:, 0].min(), limits[:, 1].max())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _frame(panel, "number of samples $k$", "largest difference in an orbit" if panel is drawn[0] else "")
        panel.tick_params(labelleft=panel is drawn[0])
    handles, labels = drawn[0].get_legend_handles_labels()
    silent = next((panel for panel in axes[2] if not panel.lines), None)
    (silent or drawn[0]).legend(handles, labels, frameon=False, fontsize=11, labelcolor=INK, loc="center")
    if silent:
        silent.annotate(
            "no two nodes alike:\nnothing to compare", (0.5, 0.85), xycoords="axes fraction", ha="center", va="center",
            fontsize=10, color=GREY,
        )  # fmt: skip
    figure.supxlabel(
        "Colour of a node: its output in one model, one scale for each graph. Lines: mean over models, in units of the base "
        "network's spread; bands: all models.",
        fontsize=10, color=GREY,
    )  # fmt: skip
    return figure


def _draw_outputs(axes: "Axes", graph: Mapping[str, Any], colours: np.ndarray) -> None:
    from matplotlib.collections import LineCollection

    num_nodes = int(graph["num_nodes"])
    edges = np.asarray(graph["edge_index"], dtype=int).reshape(2, -1)
    adjacency = np.zeros((num_nodes, num_nodes), dtype=bool)
    adjacency[edges[0], edges[1]] = True
    positions, _ = _layout(adjacency | adjacency.T)
    axes.add_collection(LineCollection(positions[edges.T], colors=GREY, linewidths=1.4, zorder=1))
    size = np.clip(3600 / num_nodes, 130, 330)
    axes.scatter(positions[:, 0], positions[:, 1], s=size, c=colours, edgecolors=INK, linewidths=1.0, zorder=2, clip_on=False)
    axes.margins(0.18)
    axes.set_aspect("equal", adjustable="datalim")
    axes.axis("off")


def _draw_differences(axes: "Axes", differences: Mapping[str, Any], counts: np.ndarray) -> None:
    styles = {"canonical": ("canonicalization", ORANGE), "haar": ("Haar", GREY), "learned": ("learned", BLUE)}
    if any(differences[kind] is None for kind in styles):
        axes.axis("off")
        return
    for kind, (label, colour) in styles.items():
        table = differences[kind]
        if kind == "haar":
            axes.plot(counts, table["mean"], color=colour, label=label, lw=1.6, ls=(0, (4, 3)))
        else:
            axes.plot(counts, table["mean"], color=colour, label=label, lw=2.4, marker="o", ms=5)
            axes.fill_between(counts, table["least"], table["greatest"], color=colour, alpha=0.13, lw=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(counts, [f"{count:g}" for count in counts])
    axes.minorticks_off()


def turned_images_figure(
    images: Any,
    canonical: Any,
    predictions: Sequence[int],
    table: Mapping[str, Mapping[str, float | None]],
    title: str,
) -> "Figure":
    """What canonicalization shows the classifier, and accuracies upright and turned.

    Args:
        images (array of shape `(num_images, height, width)`): Turned images, in [0, 1].
        canonical (array of the same shape): What the classifier is shown of each.
        predictions: Predicted class of each image.
        table: For each model `upright`, `turned` and `cost_factor`, and optionally `upright_deviation` and
            `turned_deviation`, the length of the error bars; drawn from top to bottom.
        title: A line above the figure.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If the images differ in number, or an accuracy is outside [0, 1].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images, canonical = np.asarray(images), np.asarray(canonical)
    if not len(images) == len(canonical) == len(predictions) or not len(images):
        raise ValueError(
            f"canonical, predictions: expected one for each of the {len(images)} images, got {len(canonical)} and "
            f"{len(predictions)}."
        )
    if not table or not all(0 <= float(row[pose] or 0) <= 1 for row in table.values() for pose in ("upright", "turned")):
        raise ValueError("table: expected at least one row, with accuracies in [0, 1]. Divide percentages by 100.")
    figure = Figure(figsize=(9.6, 2.4 + 0.36 * len(table)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.0, 0.4 + 0.36 * len(table)))[:, 0]
    for line, (name, pictures) in enumerate((("turned input", images), ("what the\nclassifier sees", canonical))):
        for column, picture in enumerate(pictures):
            axes = top.add_subplot(2, len(images), line * len(images) + column + 1)
            axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(PALE)
            if column == 0:
                axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, color=INK)
            if line == 1:
                axes.set_xlabel(f"“{predictions[column]}”", fontsize=9, color=INK)

    axes = bottom.subplots()
    places = np.arange(len(table))
    for pose, colour, marker in (("upright", BLUE, "o"), ("turned", ORANGE, "D")):
        values = np.array([row[pose] for row in table.values()], dtype=float)
        spread = np.array([row.get(f"{pose}_deviation") or 0.0 for row in table.values()])
        # Side by side, as an invariant model has both at the same place.
        shift = -0.13 if pose == "upright" else 0.13
        axes.errorbar(
            100 * values, places + shift, xerr=100 * spread, color=colour, fmt=marker, ms=5, capsize=2, lw=1.2,
            label="as stored" if pose == "upright" else "under random quarter turns",
        )  # fmt: skip
    for place, row in zip(places, table.values(), strict=True):
        axes.annotate(
            f"{row['cost_factor']:.1f} ×", (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=INK
        )
    axes.annotate("cost", (1.02, 1.01), xycoords="axes fraction", va="bottom", fontsize=9, color=GREY)
    axes.set_yticks(places, list(table), fontsize=9, color=INK)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlabel("test accuracy in %", color=INK)
    axes.grid(axis="both", color=PALE, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure
