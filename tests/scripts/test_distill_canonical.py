"""The distillation experiment: what it compares, on which rows, and what its table says."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from lps_hf import LPSProcessor
from tests.tiny import random_rows, save_dataset, tiny_classifier

SCRIPT = Path(__file__).parents[2] / "scripts" / "distill_canonical.py"
ROWS = ["teacher, k = 1", "teacher, k = 2", "teacher, k = 4", "canonical, not trained further", "canonical, labels"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("script_distill_canonical", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return save_dataset(tmp_path_factory.mktemp("distill") / "few", train=random_rows(30))


QUICK = ["--num_folds", "3", "--student_epochs", "1", "--batch_size", "10", "--num_test_samples", "1", "2", "4"]
QUICK += ["--num_teacher_samples", "2", "--timing_rounds", "3"]


def test_a_run_trains_a_teacher_and_its_students_and_draws_them(script, data, tmp_path):
    flags = ["--dataset_name", data, "--seeds", "0", "1", "--epochs", "1", "--grid_size", "2", *QUICK]
    script.main([*flags, "--json", str(tmp_path / "result.json"), "--figure", str(tmp_path / "result.png")])
    assert (tmp_path / "result.png").stat().st_size > 10_000
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert list(result["table"]) == [*ROWS, "canonical, distilled"]
    assert (result["num_train"], result["num_test"], result["data"]) == (20, 10, "few")
    assert result["metric"] == "accuracy"
    values = result["table"]["canonical, distilled"]["score"]["values"]
    assert values == [run["rows"]["canonical, distilled"]["accuracy"] for run in result["runs"]]
    labels = result["table"]["canonical, labels"]["score"]["values"]
    assert result["distilled_minus_labels"]["values"] == pytest.approx([a - b for a, b in zip(values, labels, strict=True)])
    costs = {name: row["cost"]["mean"] for name, row in result["table"].items()}
    assert costs["teacher, k = 1"] == 1 < costs["teacher, k = 4"]
    assert len({cost for name, cost in costs.items() if name.startswith("canonical")}) == 1


def test_results_of_seeds_are_gathered_as_if_they_had_been_run_at_once(script, data, tmp_path):
    flags = ["--dataset_name", data, "--epochs", "1", "--grid_size", "2", *QUICK]
    files = [str(tmp_path / f"{seed}.json") for seed in (4, 1)]
    for seed, file in zip((4, 1), files, strict=True):
        script.main([*flags, "--seeds", str(seed), "--json", file])
    script.main(["--gather", *files, "--json", str(tmp_path / "both.json")])
    first, second, both = (json.loads(Path(file).read_text(encoding="utf-8")) for file in (*files, tmp_path / "both.json"))
    assert both["runs"] == first["runs"] + second["runs"]
    assert both["budget"] == {**first["budget"], "seeds": [4, 1]}
    row = "canonical, distilled"
    values = [result["table"][row]["score"]["mean"] for result in (first, second)]
    assert both["table"][row]["score"]["values"] == values
    assert list(both) == list(first)


def test_a_checkpoint_may_be_the_teacher(script, data, tmp_path):
    model = tiny_classifier()
    model.save_pretrained(tmp_path / "teacher")
    LPSProcessor.from_config(model.config).save_pretrained(tmp_path / "teacher")
    flags = ["--dataset_name", data, "--seeds", "0", "--teacher", str(tmp_path / "teacher"), *QUICK]
    script.main([*flags, "--json", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert set(result["runs"][0]["train_losses"]) == {"labels", "distilled"}
    assert result["distilled_minus_labels"]["deviation"] is None


def test_scores_average_over_disjoint_groups_of_samples(script):
    # Right, right, wrong, wrong by one sample each; the means of pairs are right and wrong, that of all is a little right.
    draws = torch.tensor([[[2.0, 0.0]], [[2.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    labels = torch.tensor([0])
    assert [script.scores(draws, count, labels)["accuracy"] for count in (1, 2, 4)] == [0.5, 0.5, 1.0]
    expected = torch.tensor([[1.0, 0.5]]).log_softmax(-1)[0, 0].neg().item()
    assert script.scores(draws, 4, labels)["cross_entropy"] == pytest.approx(expected)


def test_scores_of_nodes_leave_padding_out_and_balance_the_classes(script):
    logits = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0], [torch.nan, torch.nan]]])
    labels = torch.tensor([[0, 0, 0], [1, 1, -100]])
    scores = script.scores(logits.unsqueeze(0), 1, labels)
    assert scores["accuracy"] == pytest.approx(4 / 5)
    assert scores["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert scores["cross_entropy"] > 0


def test_without_a_data_set_nodes_of_pattern_graphs_are_classified(script, tmp_path, monkeypatch):
    small = script.pattern_graphs
    monkeypatch.setattr(script, "pattern_graphs", lambda count: small(count, sizes=(1, 3), max_nodes=18))
    flags = ["--max_samples", "12", "--epochs", "1", "--grid_size", "2", "--seeds", "0", *QUICK]
    script.main([*flags, "--json", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (result["metric"], result["num_train"], result["num_test"]) == ("balanced_accuracy", 8, 4)
    row = result["table"]["canonical, distilled"]
    assert row["score"] == row["balanced_accuracy"]


def test_numbers_of_samples_that_share_no_draws_are_refused(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--num_test_samples", "3", "10"])
    assert "expected divisors of the largest" in capsys.readouterr().err
