"""The figure of a model card, from results that may lack parts."""

import pytest

from lps_hf.evaluation.samples_figure import samples_figure

COUNTS = (1, 2, 4, 10)


def results_with(*left_out, **changes):
    """Results of a run, without some keys of its points."""
    points = [
        {
            "num_samples": count,
            "metric": 0.9 - 0.2 / count,
            "metric_deviation": 0.05,
            "equivariance_error": 0.5 / count**0.5,
            "equivariance_standard_error": 0.01,
        }
        for count in COUNTS
    ]
    return {
        "metric": "balanced_accuracy",
        "baseline": {"balanced_accuracy": 0.5},
        "baseline_name": "prediction without graph",
        "num_eval_samples": 10,
        "samples_rows": 64,
        "equivariance": {"backbone_relative_error": 0.47},
        "samples": [{key: value for key, value in point.items() if key not in left_out} for point in points],
        **changes,
    }


def texts_of(axes):
    return {text.get_text() for text in axes.get_legend().get_texts()}


def test_both_panels_show_points_bars_and_lines(tmp_path):
    figure = samples_figure(results_with())
    metric, error = figure.axes
    points, _, bars = metric.containers[0]
    assert points.get_xdata().tolist() == list(COUNTS)
    assert points.get_ydata() == pytest.approx([0.7, 0.8, 0.85, 0.88])
    low, high = bars[0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.65, 0.75))
    assert texts_of(metric) == {"64 rows, ± deviation of draws", "prediction without graph", "10 samples, as configured"}
    assert (metric.get_title(loc="left").split("$")[-1].strip(), metric.get_ylabel()) == (
        "Test balanced accuracy",
        "balanced accuracy, higher is better",
    )
    assert error.get_ylabel() == "relative error"
    assert error.containers[0][0].get_ydata() == pytest.approx([0.5 / count**0.5 for count in COUNTS])
    assert any(line.get_ydata()[0] == 0.47 for line in error.get_lines())
    figure.savefig(tmp_path / "samples.png")
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_left_out():
    (error,) = samples_figure(results_with("metric", "metric_deviation")).axes
    assert error.get_ylabel() == "relative error"
    (metric,) = samples_figure(results_with("equivariance_error")).axes
    assert metric.get_ylabel().startswith("balanced accuracy")
    *_, error = samples_figure(results_with(equivariance={})).axes
    assert not [text for text in error.texts if text.get_text() == "plain backbone"]
    bare = results_with("metric_deviation", baseline=None, baseline_name=None, samples_rows=None, num_eval_samples="auto")
    metric, _ = samples_figure(bare).axes
    assert texts_of(metric) == {"± deviation of draws"}


def test_an_exact_average_is_one_point(tmp_path):
    points = [{"num_samples": 1, "metric": 1.5, "metric_deviation": 0.0, "equivariance_error": 3e-7}]
    figure = samples_figure(results_with(metric="mae", baseline={"mae": 2.0}, samples=points))
    metric, error = figure.axes
    assert metric.get_ylabel() == "MAE, lower is better"
    assert texts_of(error) == {"symmetrized, $k$ samples"}
    figure.savefig(tmp_path / "samples.png")
    points[0]["equivariance_error"] = 0.0  # has no place on a logarithmic axis
    assert len(samples_figure(results_with(samples=points)).axes) == 1


@pytest.mark.parametrize("results", [{}, {"samples": []}, {"samples": [{"num_samples": 1, "metric": None}]}])
def test_no_figures_are_refused(results):
    with pytest.raises(ValueError, match="^results: expected figures for some number of samples, got none"):
        samples_figure(results)
