"""The comparison of token grids: what it trains on, what it tests on, and what its table says."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset
from transformers import ViTConfig

from lps_hf.evaluation.speed_figures import grids_figure
from tests.tiny import random_rows, save_dataset

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_grids.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("script_compare_grids", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # ViT-tiny takes seconds.
    module.VIT_TINY = ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    return module


@pytest.fixture(scope="module")
def result(script, tmp_path_factory):
    """A quick run on rows of one split, two grids and two seeds."""
    folder = tmp_path_factory.mktemp("grids")
    data = save_dataset(folder / "few", train=random_rows(30, num_labels=2))
    flags = ["--dataset_name", data, "--num_folds", "3", "--grids", "8", "2", "--seeds", "0", "5", "--epochs", "1"]
    flags += ["--hidden_size", "16", "--num_layers", "2", "--batch_size", "10", "--num_eval_samples", "3", "--timing_rounds", "5"]
    script.main([*flags, "--json", str(folder / "grids.json"), "--figure", str(folder / "grids.png")])
    assert (folder / "grids.png").stat().st_size > 10_000
    return json.loads((folder / "grids.json").read_text(encoding="utf-8"))


def test_every_grid_is_trained_with_every_seed_on_the_same_budget(result):
    assert [(run["grid_size"], run["seed"]) for run in result["runs"]] == [(8, 0), (2, 0), (8, 5), (2, 5)]
    assert {run["num_train"] for run in result["runs"]} == {20}
    # All folds together test every row once.
    assert {run["num_test"] for run in result["runs"]} == {30}
    assert all(len(run["train_losses"]) == 2 for run in result["runs"])
    assert (result["budget"]["epochs"], result["budget"]["num_cuts"]) == (1, 3)
    assert result["majority_accuracy"] == 0.5


def test_the_table_holds_mean_and_spread_over_seeds(result):
    for grid in (8, 2):
        values = [run["test_accuracy"] for run in result["runs"] if run["grid_size"] == grid]
        row = result["table"][str(grid)]["test_accuracy"]
        assert row["values"] == values
        assert row["mean"] == pytest.approx(sum(values) / 2)
        assert row["deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        # Shares of 30 rows, so nothing was lost between the folds.
        assert 30 * values[0] == pytest.approx(round(30 * values[0]))


def test_costs_are_in_units_of_the_first_grid(result):
    for size in ("trained", "vit_tiny"):
        for mode in ("eval", "train"):
            first, second = (result["table"][grid]["cost"][size][mode] for grid in ("8", "2"))
            assert first == {"ratio": 1, "least": 1, "greatest": 1}
            assert second["least"] <= second["greatest"]


def test_fewer_tokens_cost_less(script):
    # Large enough that the backbone is what costs: 256 tokens against 4.
    arguments = SimpleNamespace(grids=[16, 2], num_eval_samples=4, timing_rounds=3)
    rows = random_rows(8)
    options = {"max_nodes": 8, "node_categories": [3, 2], "edge_categories": [2], "num_labels": 3}
    costs = script.measure_costs(rows, script.small_vit(64, 4), options, arguments)
    for mode in ("eval", "train"):
        assert costs[mode]["16"]["ratio"] == 1
        assert costs[mode]["2"]["ratio"] < 0.7


def test_earlier_results_are_drawn_beside(script, result, tmp_path, monkeypatch):
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps({**result, "data": "earlier"}), encoding="utf-8")
    data = save_dataset(tmp_path / "now", train=random_rows(3))
    monkeypatch.setattr(script, "compare", lambda rows, arguments: {key: result[key] for key in result if key != "data"})
    drawn = []
    monkeypatch.setattr(script, "grids_figure", lambda results: drawn.append(results) or grids_figure(results))
    script.main(["--dataset_name", data, "--beside", str(earlier), "--figure", str(tmp_path / "both.png")])
    assert [list(results) for results in drawn] == [["earlier", "now"]]
    assert drawn[0]["now"] == drawn[0]["earlier"] == result["table"]


def test_rows_in_pairs_are_cut_as_published_and_skip_links_as_generated(script):
    rows = Dataset.from_dict({"y": [[number % 2] for number in range(420)], "pair": [number // 2 for number in range(420)]})
    ((training, test),) = script.cuts_of(rows, 10, 0, False)
    assert training["pair"][:] == [number // 2 for number in range(400, 420)]
    assert test["pair"][:] == [number // 2 for number in range(200, 400)]

    rows, name = script.load_rows(None)
    ((training, test),) = script.cuts_of(rows, 10, 0, True)
    assert (name, len(training), len(test)) == ("circular skip links", 2000, 500)
    # The same graphs in other orders.
    assert test[0]["y"] == training[0]["y"] == [0]
    assert test[0]["edge_index"] != training[0]["edge_index"]


def test_folds_never_train_on_what_they_test(script):
    rows = Dataset.from_dict({"y": [[number % 2] for number in range(20)], "row": list(range(20))})
    for seed in (0, 1):
        cuts = script.cuts_of(rows, 4, seed, False)
        assert sorted(row for _, test in cuts for row in test["row"]) == list(range(20))
        for training, test in cuts:
            assert sorted([*training["row"], *test["row"]]) == list(range(20))
