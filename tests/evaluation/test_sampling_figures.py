"""The figure of the sampling benchmark shows the numbers that it was given."""

import numpy as np
import pytest

from lps_hf.evaluation.sampling_figures import sampling_figure


def row(sampler: str, size: int, counts: tuple[int, ...], factor: float) -> dict:
    points = [
        {
            "num_samples": count,
            "squared_error": factor / count,
            "seconds": 0.001 * count,
            "ratio": factor,
            "interval": [0.9 * factor, 1.2 * factor],
        }
        for count in counts
    ]
    return {"sampler": sampler, "group_size": size, "points": points}


RESULT = {
    "bar": 0.5,
    "models": [
        {
            "name": name,
            "group": "O(3)",
            "distribution": "haar",
            "additive_share": {"share": 0.19, "deviation": 0.01},
            "samplers": [
                row("independent", 1, (4, 8), 1.0),
                row("orthogonal", 4, (4, 8), 0.8),
                row("orthogonal", 12, (12,), 0.3),
            ],
        }
        for name in ("first", "second")
    ],
}


def test_each_model_has_errors_by_samples_and_by_time_and_ratios():
    figure = sampling_figure(RESULT)
    assert len(figure.axes) == 6
    for errors, times, ratios in (figure.axes[:3], figure.axes[3:]):
        for axes, x in ((errors, [4, 8]), (times, [4, 8])):  # milliseconds
            np.testing.assert_allclose(axes.lines[1].get_xdata(), x)
            np.testing.assert_allclose(axes.lines[1].get_ydata(), [0.2, 0.1])
            assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        bars = ratios.containers
        assert [bar.get_label() for bar in bars] == ["independent", "orthogonal, m = 4", "orthogonal, m = 12"]
        np.testing.assert_allclose(bars[2].lines[0].get_ydata(), [0.3])
        (segment,) = bars[2].lines[2][0].get_segments()
        np.testing.assert_allclose(segment[:, 1], [0.27, 0.36])
        assert any(np.allclose(line.get_ydata(), 0.5) for line in ratios.lines)
    assert figure.axes[0].get_title(loc="left") == "first: haar on O(3); 19% additive in the noise"


def test_errors_within_the_references_own_uncertainty_are_left_out():
    model = {**RESULT["models"][0], "additive_share": None, "samplers": [row("orthogonal", 4, (4, 8), 0.1)]}
    model["samplers"][0]["points"][1]["squared_error"] = -1e-9
    axes = sampling_figure({**RESULT, "models": [model]}).axes
    assert axes[0].get_title(loc="left") == "first: haar on O(3)"
    assert list(axes[0].lines[0].get_xdata()) == [4]


def test_no_model_is_refused():
    with pytest.raises(ValueError, match="at least one model, got none"):
        sampling_figure({"bar": 0.5, "models": []})
