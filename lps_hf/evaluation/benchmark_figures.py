"""Figures of the benchmarks, drawn from the JSON that their scripts write; matplotlib is imported when a figure is asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import BLUE, GREY, INK, ORANGE, PALE, WHEEL, _frame
from .symmetrization_cost import ADDED_PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PART_COLOURS = dict(zip(ADDED_PARTS, (GREY, BLUE, WHEEL[4], ORANGE, WHEEL[2]), strict=True))
PART_NAMES = {
    "encoding": "encoding",
    "interface": "interface q(x, ε)",
    "distribution": "sort and relaxation",
    "projections": "action and projections",
    "readout": "read-out and mean",
}
MODE_COLOURS = {"eval": BLUE, "train": ORANGE}


def overhead_figure(results: Sequence[Mapping[str, Any]]) -> "Figure":
    """The cost of symmetrized models in bare backbones, one line for each, and what it is made of.

    Left: the overhead ratio with the quartiles and the range of its rounds, and the bar it is to stay below. Right: the parts
    that the bare backbone does not have, forward and, paler, backward; numbers for the backbone inside and for memory.

    Args:
        results: What `scripts/bench_symmetrization.py` writes: `preset`, `mode`, `num_samples`, `overhead_ratio`,
            `overhead_ratio_quartiles`, `overhead_ratio_range`, `bar`, `breakdown`, `peak_memory_ratio`, `batch_size`, `backbone`,
            `grid_size`, `dtype`, `device`.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If there are no results.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not results:
        raise ValueError("results: expected at least one, got none.")
    figure = Figure(figsize=(12, 2.3 + 0.42 * len(results)), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    first = results[0]
    figure.suptitle(
        f"Symmetrization in bare backbones: ViT {first['backbone']}, {first['grid_size']} × {first['grid_size']} tokens, "
        f"batch {first['batch_size']}, {first['dtype']}, {first['device']}",
        fontsize=13, color=INK,
    )  # fmt: skip
    ratio_axes, part_axes = figure.subplots(1, 2, sharey=True, width_ratios=(1.1, 1))
    places = np.arange(len(results))
    _draw_ratios(ratio_axes, results)
    _draw_parts(part_axes, results)
    for axes in (ratio_axes, part_axes):
        axes.grid(axis="x", color=PALE, lw=0.7)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(results) - 0.4, -0.6)
    ratio_axes.set_yticks(places, [f"{one['preset']}  {one['mode']}  k = {one['num_samples']}" for one in results])
    return figure


def _draw_ratios(axes: "Axes", results: Sequence[Mapping[str, Any]]) -> None:
    for place, one in enumerate(results):
        colour = MODE_COLOURS[one["mode"]]
        axes.plot(one["overhead_ratio_range"], [place] * 2, color=colour, lw=1.2, alpha=0.7)
        axes.plot(one["overhead_ratio_quartiles"], [place] * 2, color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(one["overhead_ratio"], place, "o", color=colour, ms=7, mec="white", mew=1)
        axes.annotate(
            f"{one['overhead_ratio']:.3f}", (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=11, color=INK
        )
        if one["bar"]:
            axes.plot([one["bar"]] * 2, [place - 0.32, place + 0.32], color=INK, lw=2)
    axes.axvline(1, color=GREY, lw=1, ls="--", zorder=0)
    axes.set_xlim(*_limits(results))
    for mode in dict.fromkeys(one["mode"] for one in results):
        axes.plot([], [], "o", color=MODE_COLOURS[mode], label={"eval": "evaluation", "train": "training"}[mode])
    if any(one["bar"] for one in results):
        axes.plot([], [], "|", color=INK, ms=13, mew=2, label="to stay below")
    _frame(axes, "symmetrized / bare backbone\n(dot: of medians; line: range of rounds, thick: quartiles)", "")
    axes.legend(frameon=False, fontsize=10, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handletextpad=0.3)


def _limits(results: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Ends of the axis of ratios: everything is in sight but single rounds far out, which would shrink all others."""
    left, right = [1.0], [1.0]
    for one in results:
        (low, high), (least, most) = one["overhead_ratio_quartiles"], one["overhead_ratio_range"]
        reach = 2 * (high - low)
        left += [max(least, low - reach), one["overhead_ratio"]]
        right += [min(most, high + reach), one["overhead_ratio"], one["bar"] or 1.0]
    margin = 0.05 * (max(right) - min(left)) + 0.005
    return min(left) - margin, max(right) + margin


def _draw_parts(axes: "Axes", results: Sequence[Mapping[str, Any]]) -> None:
    for place, one in enumerate(results):
        left = 0.0
        for name, colour in PART_COLOURS.items():
            for key, alpha in ((name, 1.0), (f"{name}_backward", 0.45)):
                width = 100 * one["breakdown"].get(key, 0.0)
                axes.barh(place, width, left=left, height=0.62, color=colour, alpha=alpha, lw=0)
                left += width
        backbone = sum(share for name, share in one["breakdown"].items() if name.startswith("backbone"))
        numbers = (f"{backbone:.3f}" if one["breakdown"] else "", f"{one['peak_memory_ratio']:.2f}")
        for x, text in zip((1.1, 1.29), numbers, strict=True):
            axes.annotate(text, (x, place), xycoords=("axes fraction", "data"), va="center", ha="center", fontsize=11, color=INK)
    for x, text in ((1.1, "backbone\ninside"), (1.29, "memory\nratio")):
        axes.annotate(text, (x, 1.01), xycoords="axes fraction", va="bottom", ha="center", fontsize=10, color=GREY)
    for name in PART_COLOURS:
        axes.barh(0, 0, color=PART_COLOURS[name], label=PART_NAMES[name])
    axes.set_xlim(left=0)
    _frame(axes, "what the bare backbone does not have, % of it\n(paler: backward)", "")
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, handlelength=1, columnspacing=1)


def scaling_figure(result: Mapping[str, Any]) -> "Figure":
    """Everything but the backbone against the size of the graph, on logarithmic axes, with fitted exponents.

    Args:
        result: What `scripts/bench_scaling.py` writes: `sweeps` by name with `x` (what grows), `title`, `points` and `fit`;
            `large_graph`, `mode`, `num_samples`, `batch_size`, `backbone`; optionally `relaxation` with `points` and `fit`.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sweeps, relaxation = list(result["sweeps"].values()), result.get("relaxation")
    if not sweeps and not relaxation:
        raise ValueError("result: expected at least one sweep, got none.")
    count = len(sweeps) + bool(relaxation)
    figure = Figure(figsize=(5.6 * count, 5.6), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    mode = {"eval": "evaluation", "train": "training"}[result["mode"]]
    figure.suptitle(
        f"Cost of everything but the backbone: {mode}, k = {result['num_samples']}, batch {result['batch_size']}, "
        f"ViT {result['backbone']}",
        fontsize=13, color=INK,
    )  # fmt: skip
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, sweep in zip(panels, sweeps, strict=False):
        _draw_sweep(axes, sweep)
    for axes in panels[1 : len(sweeps)]:
        axes.sharey(panels[0])
        axes.set_ylabel("")
    if sweeps:
        _draw_large_graph(panels[0], sweeps[0], result["large_graph"])
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=10, loc="outside lower center", ncols=4)
    if relaxation:
        _draw_relaxation(panels[-1], relaxation)
    return figure


def _draw_sweep(axes: "Axes", sweep: Mapping[str, Any]) -> None:
    x = np.array([point[sweep["x"]] for point in sweep["points"]], dtype=float)
    ratios = np.array([point["ratio"] for point in sweep["points"]])
    quartiles = np.array([point["ratio_quartiles"] for point in sweep["points"]])
    for name, colour in PART_COLOURS.items():
        shares = [point["parts"].get(name, 0.0) + point["parts"].get(f"{name}_backward", 0.0) for point in sweep["points"]]
        axes.plot(x, [share or np.nan for share in shares], color=colour, lw=1.2, alpha=0.9, label=PART_NAMES[name])
    axes.fill_between(x, *quartiles.T, color=INK, alpha=0.15, lw=0)
    axes.plot(x, ratios, "o-", color=INK, ms=5, lw=1.6, label="everything but the backbone")
    axes.axhline(1, color=GREY, lw=1, ls="--", label="the bare backbone")
    _draw_fit(axes, x, sweep["fit"], sweep["x"])
    _log_frame(axes, sweep["x"], "bare backbones")
    axes.set_title(sweep["title"], fontsize=11, color=INK, loc="left")


def _draw_fit(axes: "Axes", x: np.ndarray, fit: Mapping[str, Any], name: str) -> None:
    ends = np.array([fit["fitted_from"], x[-1]])
    line = fit["factor"] * ends ** fit["exponent"]
    axes.plot(ends, line, color=WHEEL[0], lw=5, alpha=0.35, label="fit, upper half", solid_capstyle="round")
    axes.annotate(
        f"∝ {name}$^{{\\;{fit['exponent']:.2f}}}$", (np.sqrt(ends.prod()), np.sqrt(line.prod())), xytext=(12, -14),
        textcoords="offset points", ha="left", va="top", fontsize=13, color=WHEEL[0],
        bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1},
    )  # fmt: skip


def _draw_large_graph(axes: "Axes", sweep: Mapping[str, Any], large: Mapping[str, Any]) -> None:
    spot = large[sweep["x"]], large["ratio"]
    axes.plot(*spot, "*", color=INK, ms=16, mec="white", mew=1, zorder=5)
    axes.set_ylim(top=4 * axes.get_ylim()[1])  # room for the words
    axes.annotate(
        f"{large['nodes']:,} nodes, {large['edges']:,} edges:\nthe model costs {large['overhead_ratio']:.2f} bare backbones",
        spot, xytext=(0.03, 0.97), textcoords="axes fraction", ha="left", va="top", fontsize=10, color=INK,
        arrowprops={"arrowstyle": "-", "color": GREY},
    )  # fmt: skip


def _draw_relaxation(axes: "Axes", relaxation: Mapping[str, Any]) -> None:
    x = np.array([point["nodes"] for point in relaxation["points"]], dtype=float)
    axes.plot(x, [point["seconds"] for point in relaxation["points"]], "o-", color=WHEEL[4], ms=5, lw=1.6)
    _draw_fit(axes, x, relaxation["fit"], "nodes")
    _log_frame(axes, "nodes", "seconds")
    axes.set_title("sort and relaxation alone, forward and backward", fontsize=11, color=INK, loc="left")


def _log_frame(axes: "Axes", x_label: str, y_label: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    _frame(axes, x_label, y_label)
    axes.grid(axis="x", which="major", color=PALE, linewidth=0.7, alpha=0.7)
