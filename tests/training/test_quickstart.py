"""The main job from end to end, in small: what it writes, and that the figures belong to what it wrote."""

import json
import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor

from lps_hf.data import circular_skip_links
from lps_hf.data.dataset_folders import make_splits
from lps_hf.data.recorded_rows import recorded_rows
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.training import quickstart
from lps_hf.training.quickstart import run_quickstart
from tests.results_keys import COMMON, REPORT
from tests.tiny import tiny_vit

KEYS = {
    *("test_accuracy", "wl1_accuracy", "chance_accuracy", "equivariance_error", "equivariance_error_standard_error"),
    *("backbone_equivariance_error", "backbone_equivariance_error_standard_error"),
    *("reloaded_logits_difference", "train_steps", "seconds"),
}


@pytest.fixture
def small(monkeypatch):
    """The same job on less data, with a smaller backbone."""
    monkeypatch.setattr(quickstart, "NUM_TRAIN", 192)
    monkeypatch.setattr(quickstart, "NUM_TEST", 60)
    monkeypatch.setattr(quickstart, "REPORT_ROWS", 16)
    monkeypatch.setattr(quickstart, "MAX_SAMPLES", 4)
    monkeypatch.setattr(quickstart, "GRID_SIZE", 4)
    monkeypatch.setattr(quickstart, "ViTConfig", lambda **options: tiny_vit())


def test_three_steps_write_a_checkpoint_the_figures_and_a_picture(small, tmp_path, capsys):
    folder = tmp_path / "new" / "quickstart"
    results = run_quickstart(folder, num_steps=3, seed=1)
    assert results.keys() == KEYS | COMMON | REPORT
    assert json.loads((folder / "results.json").read_text()) == results
    assert (results["task"], results["metric"], results["steps"], results["num_test"]) == (
        "graph-classification",
        "accuracy",
        3,
        60,
    )
    assert results["test"].keys() == {"loss", "accuracy"}
    assert (
        recorded_rows("graph-classification", results["dataset"])
        == make_splits("circular-skip-links", {"test": 60}, seed=1, options={"num_nodes": 13, "skips": [2, 3, 5]})["test"]
    )
    assert {"config.json", "model.safetensors", "processor_config.json", "modeling_lps.py", "quickstart.png", "README.md"} <= {
        path.name for path in folder.iterdir()
    }
    assert not [path.name for path in folder.parent.iterdir() if path != folder]
    assert (folder / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    assert results["train_steps"] == 3
    assert results["seed"] == 1
    assert results["reloaded_logits_difference"] == 0.0
    assert results["wl1_accuracy"] == pytest.approx(results["chance_accuracy"]) == 1 / 3
    assert 0 <= results["test_accuracy"] <= 1
    assert all(math.isfinite(value) for value in results.values() if isinstance(value, float))
    assert "Task: 3 classes" in capsys.readouterr().out

    model, processor = AutoModelForSequenceClassification.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model) is LPSForGraphClassification
    rows = circular_skip_links(6, quickstart.NUM_NODES, quickstart.SKIPS)
    outputs = model(**processor(rows, return_tensors="pt"), generator=torch.Generator().manual_seed(0))
    assert outputs.logits.shape == (6, 3)
    assert outputs.loss.isfinite()


def test_no_steps_are_refused_before_anything_is_written(tmp_path):
    for num_steps in (0, -1):
        with pytest.raises(ValueError, match=rf"^num_steps: expected at least 1, got {num_steps}\.$"):
            run_quickstart(tmp_path / "quickstart", num_steps)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_noticed_before_training(small, tmp_path, monkeypatch):
    (tmp_path / "quickstart").write_text("mine")
    monkeypatch.setattr(quickstart.LPSTrainer, "train", lambda self: pytest.fail("trained in vain"))
    with pytest.raises((OSError, ValueError), match="quickstart"):
        run_quickstart(tmp_path / "quickstart", 1)
    assert (tmp_path / "quickstart").read_text() == "mine"


@pytest.mark.parametrize("number", [0.0, float("nan")])
def test_a_checkpoint_that_comes_back_different_is_not_passed_off(small, tmp_path, monkeypatch, number):
    monkeypatch.setattr(quickstart, "logits_in_fresh_process", lambda folder, inputs: torch.full((32, 3), number))
    with pytest.raises(RuntimeError, match=r"the reloaded model's logits differ by (\d.*|nan), expected none\.$"):
        run_quickstart(tmp_path, 1)
    assert not (tmp_path / "results.json").exists()


@pytest.mark.slow
def test_the_whole_job_beats_every_1_wl_network(tmp_path):
    results = run_quickstart(tmp_path)
    assert results["test_accuracy"] > 0.9
    assert results["train_loss_last"] < 0.5 * results["train_loss_first"]
    assert results["equivariance_error"] < results["backbone_equivariance_error"]
