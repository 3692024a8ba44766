"""`scripts/measure_error_bars.py` from end to end, and its intervals on draws whose mean is known."""

import json

import pytest
import torch

from scripts.measure_error_bars import covers, intervals, main
from tests.tiny import tiny_classifier


def test_it_measures_fixed_and_adaptive_numbers_of_samples(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    small = ["--max_samples", "60", "--epochs", "1", "--grid_size", "2", "--repeats", "2"]
    samples = [
        "--num_reference_samples",
        "20",
        "--num_samples",
        "1",
        "10",
        "--max_eval_samples",
        "40",
        "--tolerances",
        "0.2",
        "1e-6",
    ]
    files = ["--json", str(tmp_path / "result.json"), "--figure", str(tmp_path / "figure.png"), "--save", str(tmp_path / "model")]
    main([*small, *samples, *files])
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["rows"]) == ["1", "10", "auto 0.2", "auto 1e-06"]
    assert result["rows"]["auto 1e-06"]["mean_samples"] == 40
    assert result["rows"]["auto 0.2"]["mean_samples"] < 40
    assert (result["num_train"], result["num_test"]) == (48, 12)
    assert all(0 <= row["accuracy"]["mean"] <= 1 for row in result["rows"].values())
    assert "% covered" in capsys.readouterr().out
    assert (tmp_path / "figure.png").stat().st_size > 1000
    main(["--model", str(tmp_path / "model"), *small, *samples, "--json", str(tmp_path / "again.json")])
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["rows"] == result["rows"]


def test_intervals_of_normal_draws_cover_as_they_should():
    draws = torch.randn(1, 12, 4_000, 3, generator=torch.Generator().manual_seed(0))
    exact, own_error = torch.zeros(3), torch.zeros(3)
    found = {name: covers(*ends, exact, own_error).double().mean() for name, ends in intervals(tiny_classifier(), draws).items()}
    assert found["coverage"] == found["coverage_of_draws_alone"] == pytest.approx(0.95, abs=0.01)
    assert 0.9 < found["coverage_of_1.96_errors"] < 0.94
    # The reference's own error is as much of the difference as the estimate's.
    other = torch.randn(1, 4_000, 3, generator=torch.Generator().manual_seed(1)) / 12**0.5
    low, high = intervals(tiny_classifier(), draws)["coverage"]
    assert covers(low, high, other, torch.full((3,), 12**-0.5)).double().mean() == pytest.approx(0.95, abs=0.015)
    assert covers(low, high, other, own_error).double().mean() < 0.87


def test_numbers_that_do_not_divide_the_reference_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--num_samples", "3", "--num_reference_samples", "20"])
    assert "--num_samples: expected divisors of 20, got [3]" in capsys.readouterr().err
