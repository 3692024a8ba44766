"""The figure of a model card: metric and equivariance error against the number of samples."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import BLUE, GREY, INK, _draw_equivariance, _frame, _title
from .metrics import LOWER_IS_BETTER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def samples_figure(results: Mapping[str, Any]) -> "Figure":
    """Draw metric and equivariance error against the number of samples, with error bars.

    The baseline and the plain backbone's error are lines. A panel whose figures are missing is left out.

    Args:
        results: What `results.json` holds: `samples`, and where they are known `metric`, `baseline`, `baseline_name`,
            `num_eval_samples` and `equivariance`.

    Returns:
        `matplotlib.figure.Figure`: with an Agg canvas; save it with `.savefig(path)`.

    Raises:
        ValueError: If there is no figure to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = results.get("samples") or []
    metrics = [point for point in points if point.get("metric") is not None]
    # An error of exactly zero has no place on a logarithmic axis.
    errors = [point for point in points if point.get("equivariance_error")]
    backbone: Any = (results.get("equivariance") or {}).get("backbone_relative_error")
    panels = (["metric"] if metrics else []) + (["error"] if errors else [])
    if not panels:
        raise ValueError(
            "results: expected figures for some number of samples, got none. Make them with sampling_report, or train with "
            "report_rows above 0."
        )
    figure = Figure(figsize=(5.4 * len(panels) + 0.4, 4.2), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for letter, panel, axes in zip("ab", panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=False):
        if panel == "metric":
            _draw_metric(axes, metrics, results, letter)
        else:
            counts, values, spread = _columns(errors, "equivariance_error", "equivariance_standard_error")
            _draw_equivariance(axes, counts, values, spread, backbone or None, letter)
    return figure


def _columns(points: Sequence[Mapping[str, Any]], value: str, spread: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # An error bar that is not known is not drawn; points without a value have been left out.
    counts, values, bars = (np.array([point.get(name) or 0.0 for point in points]) for name in ("num_samples", value, spread))
    return counts, values, bars


def _draw_metric(axes: "Axes", points: Sequence[Mapping[str, Any]], results: Mapping[str, Any], letter: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    name = str(results.get("metric") or "metric")
    is_error = name in LOWER_IS_BETTER
    words = name.upper() if is_error else name.replace("_", " ")
    counts, values, spread = _columns(points, "metric", "metric_deviation")
    _title(axes, letter, f"Test {words}")
    axes.set_xscale("log")
    label = f"{results['samples_rows']} rows, ± deviation of draws" if results.get("samples_rows") else "± deviation of draws"
    style: dict[str, Any] = {"linewidth": 2.2, "marker": "o", "markersize": 6, "capsize": 3.5, "elinewidth": 1.4, "zorder": 3}
    axes.errorbar(counts, values, yerr=spread, color=BLUE, label=label, **style)
    low, high = (values - spread).min(), (values + spread).max()
    baseline = (results.get("baseline") or {}).get(name)
    if baseline is not None and np.isfinite(baseline):
        axes.axhline(baseline, color=GREY, linewidth=2.2, label=str(results.get("baseline_name") or "baseline"))
        low, high = min(low, baseline), max(high, baseline)
    own: Any = results.get("num_eval_samples")
    if own in counts and len(counts) > 1:
        axes.axvline(own, color=INK, linewidth=0.9, linestyle=":", label=f"{own} samples, as configured")
    # A strip at the bottom is the legend's, so that no line can run through it.
    height = (high - low) or max(abs(high), 1e-9)
    axes.set_ylim(low - 0.5 * height, high + 0.1 * height)
    axes.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize=10.5, labelcolor=INK, loc="lower left")
    shown = counts if len(counts) <= 8 else counts[:: -(-len(counts) // 8)]
    axes.xaxis.set_major_locator(FixedLocator(shown.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _frame(axes, "number of samples $k$", f"{words}, {'lower' if is_error else 'higher'} is better")
