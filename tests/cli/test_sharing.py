"""Commands around sharing: card, publish, verify, info."""

import json
from pathlib import Path

import pytest

from lps_hf import __version__
from lps_hf.hub import save_checkpoint
from lps_hf.hub.loading import load_checkpoint
from lps_hf.hub.measurement import measure
from tests.tiny import save_tiny_vit

RESULTS = {"task": "graph-classification", "metric": "accuracy", "test": {"accuracy": 0.75}, "num_test": 20}


@pytest.fixture
def reported(checkpoint):
    return str(save_checkpoint(*load_checkpoint(checkpoint), checkpoint, results=RESULTS))


def test_card_is_made_of_the_results(run, reported):
    (Path(reported) / "README.md").unlink()
    run("card", reported, "--license", "mit", "--model_id", "me/model", "--tags", "tiny")
    card = (Path(reported) / "README.md").read_text()
    assert "license: mit" in card
    assert "- tiny" in card
    assert "0.75" in card
    assert 'from_pretrained("me/model"' in card
    assert run("card", reported, "--license", "mit", "--model_id", "me/model", "--tags", "tiny", "--output", "-") == card + "\n"


def test_card_without_a_checkpoint_is_refused(refusal, tmp_path):
    assert "expected a checkpoint folder with config.json" in refusal("card", tmp_path)


def test_card_of_a_damaged_results_file_is_refused(refusal, reported):
    (Path(reported) / "results.json").write_text('{"samples": 5}')
    assert "results.json: expected a list of objects with 'num_samples' in 'samples'" in refusal("card", reported)


def test_publish_tells_what_would_go_up_and_sends_nothing(run, reported, hub):
    plan = run("publish", reported, "tester/planned", "--dry_run", "--json")
    assert {"model.safetensors", "config.json", "README.md", "results.json"} <= plan["files"].keys()
    assert "Nothing has been sent." in run("publish", reported, "tester/planned", "--dry_run")
    assert ("models", "tester/planned") not in hub.repos


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_publish_commits_and_tags(run, reported, hub):
    said = run("publish", reported, "tester/by-command", "--private", "--license", "mit", "--tag", "v1", "--json")
    repo = hub.repos["models", "tester/by-command"]
    assert repo.private
    assert repo.find("v1").oid == said["commit"]
    assert "license: mit" in repo.find("main").files["README.md"].content.decode()
    assert "commit" in run("publish", reported, "tester/by-command", "--revision", "other")


def test_publish_refuses_what_is_no_checkpoint(refusal, tmp_path):
    assert "config.json" in refusal("publish", tmp_path, "tester/nothing")


def test_verify_ends_with_3_where_a_figure_differs(run, dataset, tmp_path, monkeypatch):
    # The fresh process takes seconds, and has its own tests.
    monkeypatch.setattr("lps_hf.hub.verification._in_fresh_process", lambda request, *_, **__: measure(**request))
    folder, flags = tmp_path / "run", ("--max_steps", 1, "--report_rows", 4, "--disable_tqdm", "true", "--report_to", "none")
    backbone = save_tiny_vit(tmp_path / "vit")
    names = ("--backbone_name_or_path", backbone, "--dataset_name", dataset, "--output_dir", folder)
    run("train", "graph-classification", *names, *flags)
    assert "verified" in run("verify", folder, "--dataset_name", dataset)
    results = json.loads((folder / "results.json").read_text())
    results["equivariance"]["relative_error"] += 10.0
    (folder / "results.json").write_text(json.dumps(results))
    said = run("verify", folder, "--dataset_name", dataset, "--json", code=3)
    assert not said["ok"]


def test_info_tells_versions_and_what_is_missing(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = run("info", "--json")
    assert said["lps_hf"] == __version__
    assert said["device"]
    assert set(said["optional"].values()) == {None}
    assert "not installed; pip install 'lps_hf[chem]'" in run("info")
