"""The benchmark of the overhead, end to end with a tiny backbone: what it measures and what it writes."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_symmetrization.py"
TINY = ["--backbone", "16x1x1", "--grid_size", "2", "--batch_size", "2", "--repeats", "2"]


def test_one_combination_prints_one_object_and_nothing_else(run):
    result = json.loads(run("--preset", "pattern", "--num_samples", "2", "--mode", "eval", "--json", "-"))
    low, high = result["overhead_ratio_range"]
    assert low <= result["overhead_ratio_quartiles"][0] <= result["overhead_ratio_quartiles"][1] <= high
    assert low <= result["overhead_ratio"] <= high
    assert set(result["breakdown"]) == {"encoding", "interface", "distribution", "projections", "backbone", "readout"}
    assert sum(result["breakdown"].values()) == pytest.approx(result["overhead_ratio"])
    seconds = result["seconds"]
    assert result["overhead_ratio"] == pytest.approx(seconds["model"]["median"] / seconds["backbone"]["median"])
    peaks = result["peak_memory_bytes"]
    assert result["peak_memory_ratio"] == pytest.approx(peaks["model"] / peaks["backbone"])
    assert (result["rounds"], result["task"], result["grid_size"], result["batch_size"]) == (2, "graph", 2, 2)
    assert result["bar"] is None  # there is none for this backbone
    assert result["model_rows"] == result["floor_rows"] == 4
    assert result["overhead_ratio_same_rows"] == result["overhead_ratio"]


def test_a_model_that_takes_fewer_rows_at_a_time_is_also_compared_with_equal_pieces(run):
    flags = ["--preset", "pcqm", "--num_samples", "6", "--samples_per_pass", "2"]
    result = json.loads(run(*flags, "--json", "-"))
    assert (result["model_rows"], result["floor_rows"]) == (4, 12)
    same = result["seconds"]["backbone_same_rows"]["median"]
    assert result["overhead_ratio_same_rows"] == pytest.approx(result["seconds"]["model"]["median"] / same)
    assert "with 4 rows at a time in both" in run(*flags)


def test_several_combinations_give_a_list_and_a_figure(run, tmp_path):
    flags = ["--preset", "pcqm", "peptides", "--num_samples", "1", "3", "--mode", "train", "--task", "own"]
    text = run(*flags, "--json", str(tmp_path / "cost.json"), "--figure", str(tmp_path / "cost.png"))
    results = json.loads((tmp_path / "cost.json").read_text(encoding="utf-8"))
    assert [(one["preset"], one["num_samples"], one["task"]) for one in results] == [
        ("pcqm", 1, "link"), ("pcqm", 3, "link"), ("peptides", 1, "graph"), ("peptides", 3, "graph"),
    ]  # fmt: skip
    for first, second in (results[:2], results[2:]):
        assert "backbone_backward" in first["breakdown"]
        assert first["peak_memory_growth"] == {"from_num_samples": 1, "ratio": 1.0}
        growth = second["peak_memory_bytes"]["model"] / first["peak_memory_bytes"]["model"]
        assert second["peak_memory_growth"] == {"from_num_samples": 1, "ratio": growth}
        assert growth > 1
    assert "peptides train k=3\n  overhead ratio" in text
    assert (tmp_path / "cost.png").stat().st_size > 10_000


def test_memory_alone_is_the_same_every_time_and_takes_no_time(run):
    flags = ["--preset", "pattern", "--num_samples", "1", "2", "--memory_only", "--task", "own", "--json", "-"]
    first, again = (json.loads(run(*flags)) for _ in range(2))
    assert first == again
    assert not {"overhead_ratio", "seconds", "breakdown"} & set(first[0])
    assert first[1]["peak_memory_bytes"]["backbone"] > 1.9 * first[0]["peak_memory_bytes"]["backbone"]
    assert first[0]["task"] == "node"


def test_flags_that_do_not_fit_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("--memory_only", "--figure", "cost.png")
    assert "--memory_only" in capsys.readouterr().err
    with pytest.raises(ValueError, match="got 'huge'"):
        run("--backbone", "huge")


def test_bars_are_those_of_the_default_run(script):
    usual = {"backbone": "tiny", "grid_size": None, "batch_size": 8, "floor_rows": None, "samples_per_pass": None}
    usual = SimpleNamespace(**usual, device="cpu", dtype="float32")
    wanted = [("pcqm", "eval", 10), ("pcqm", "eval", 1), ("pcqm", "train", 10), ("peptides", "train", 10), ("pcqm", "train", 3)]
    assert [script.bar_of(*one, usual) for one in wanted] == [1.05, 1.10, 1.10, 1.20, None]
    for other in ({"backbone": "small"}, {"grid_size": 7}, {"batch_size": 4}, {"floor_rows": 8}, {"dtype": "bfloat16"}):
        assert script.bar_of("pcqm", "eval", 10, SimpleNamespace(**{**vars(usual), **other})) is None


@pytest.mark.parametrize("preset", ["pattern", "pcqm", "peptides"])
def test_graphs_have_the_sizes_of_the_data_set_and_are_always_the_same(script, preset):
    rows, again = script.random_rows(preset, "graph", 20), script.random_rows(preset, "graph", 20)
    sizes = np.array([row["num_nodes"] for row in rows])
    assert sizes.max() <= script.PRESETS[preset]["max_nodes"]
    mean_nodes, mean_edges = {"pattern": (120, 6500), "pcqm": (37, 72), "peptides": (155, 310)}[preset]
    assert sizes.mean() == pytest.approx(mean_nodes, rel=0.25)
    assert np.mean([row["edge_index"].shape[1] for row in rows]) == pytest.approx(mean_edges, rel=0.35)
    for row, other in zip(rows, again, strict=True):
        assert np.array_equal(row["edge_index"], other["edge_index"])
        assert np.array_equal(row["node_feat"], other["node_feat"])
