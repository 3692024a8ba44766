"""A checkpoint loaded in a fresh process, as somebody else will, and its figures measured again."""

import copy
import json

import pytest
import torch

from lps_hf.evaluation.environment import environment
from lps_hf.evaluation.prediction import evaluate
from lps_hf.evaluation.sampling_report import sampling_report
from lps_hf.hub import save_checkpoint
from lps_hf.hub.measurement import logits_of, measure
from lps_hf.hub.publishing import publish_folder
from lps_hf.hub.verification import Verification, compare, logits_in_fresh_process, verify
from tests.hub.test_measurement import FACTS, TASK, generated_rows, recorded_checkpoint
from tests.task_cases import task_case


def test_a_fresh_process_gives_the_same_logits(model, processor, inputs, tmp_path, monkeypatch):
    save_checkpoint(model, processor, tmp_path / "my checkpoint")
    monkeypatch.chdir(tmp_path)
    with torch.no_grad():
        logits = model(**inputs).logits
    # Not contiguous, and a view of a larger tensor: there are formats that cannot write either.
    inputs["noise"] = {name: torch.stack([part] * 2, dim=-1)[..., 0] for name, part in inputs["noise"].items()}
    assert torch.equal(logits_in_fresh_process("my checkpoint", inputs), logits)


def test_a_head_without_an_auto_class_gives_the_same_logits_too(tmp_path):
    model, processor, rows = task_case("particle-dynamics")
    save_checkpoint(model, processor, tmp_path)
    inputs = dict(processor(rows, return_tensors="pt"))
    del inputs["labels"]
    inputs["noise"] = model.lps.draw_noise(model.lps.encode(**inputs), 2)
    with torch.no_grad():
        assert torch.equal(logits_of(tmp_path, inputs), model(**inputs).logits)  # what a fresh process runs


def test_what_goes_wrong_there_is_shown(inputs, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"(?s)ckpt could not be loaded in a fresh process:.*no torch here"):
        logits_in_fresh_process("ckpt", inputs)


def test_nothing_is_imported_from_the_working_folder(model, processor, inputs, tmp_path, monkeypatch):
    save_checkpoint(model, processor, tmp_path)
    for name in ("torch.py", "json.py"):
        (tmp_path / name).write_text("raise ImportError('code of the checkpoint ran')\n")
    monkeypatch.chdir(tmp_path)
    assert logits_in_fresh_process(".", inputs).isfinite().all()
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json: expected the settings of a model, got something else"):
        logits_in_fresh_process(".", inputs)


def test_a_folder_that_is_missing_is_not_looked_for_on_the_hub(inputs, tmp_path, monkeypatch):
    seen = []

    def run(command, **options):
        seen.extend(torch.load(command[-2])["folder"].split("\n"))
        raise OSError("stop here")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="stop here"):
        logits_in_fresh_process("user/model", inputs)
    assert seen == [str(tmp_path / "user" / "model")]


# --------------------------------------------------------------------------------------------------------------- verify


def test_every_figure_of_a_checkpoint_comes_out_equal_in_a_fresh_process(tmp_path, capfd):
    folder, _ = recorded_checkpoint(tmp_path)
    capfd.readouterr()
    found = verify(folder)
    assert found.ok
    assert [row.what for row in found.rows] == [
        *("test loss", "test accuracy", "test roc_auc", "test average_precision"),
        *(f"accuracy, {count} samples" for count in (1, 2, 3, 4)),
        *(f"equivariance error, {count} samples" for count in (1, 2, 3, 4)),
        *("equivariance error of the plain backbone", "error under coupled noise, float64"),
    ]
    for row in found.rows:
        assert row.now == row.recorded, row
    assert found.notes == []
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True
    assert "verified" in str(found)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the LFS upload of huggingface_hub 2.4 itself
def test_a_published_checkpoint_is_verified_by_its_id_and_bars_go_to_stderr(hub, tmp_path, capfd):
    folder, _ = recorded_checkpoint(tmp_path / "here")
    commit = publish_folder(folder, "tester/verified")
    capfd.readouterr()
    found = verify("tester/verified", revision=commit.oid, progress=True)
    assert (found.name, found.ok) == ("tester/verified", True)
    output = capfd.readouterr()
    assert output.out == ""
    assert "Measuring samples" in output.err


def test_an_unknown_checkpoint_and_a_damaged_file_are_refused(tmp_path):
    for text, said in (
        ("{", "expected JSON, got something else"),
        ("[1]", "expected a JSON object of figures, got list"),
        ('{"test": 1}', "expected a JSON object in 'test', got int"),
        ('{"samples": [1]}', "expected a list of objects with 'num_samples'"),
    ):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            verify(tmp_path)
    (tmp_path / "results.json").unlink()
    with pytest.raises(OSError, match=r"^\S+: expected a checkpoint folder with config\.json, found none\.$"):
        verify(tmp_path)


# -------------------------------------------------------------------------------------------------------------- compare


@pytest.fixture(scope="module")
def measured():
    """Results, and what comes out when they are measured again."""
    model, processor, _ = task_case(TASK, distribution="haar")
    rows = generated_rows()
    report = sampling_report(model, processor, rows, TASK, num_rows=6, num_draws=2, max_samples=2)
    found = {"environment": environment("cpu"), "test": evaluate(model, processor, rows, TASK), **report}
    return {"task": TASK, "dataset": FACTS, "num_test": 6, "seed": 0, **copy.deepcopy(found)}, found


def rows_of(verification: Verification):
    return {row.what: row for row in verification.rows}


def test_a_figure_may_differ_by_its_error_bar_and_no_more(measured):
    results, now = measured
    assert compare("mine", results, now).ok
    key = "equivariance error, 2 samples"
    spread = results["samples"][1]["equivariance_standard_error"]
    for factor, agrees in ((1.0, True), (5.6, True), (5.7, False)):  # four standard errors of a difference: 4 · √2
        other = copy.deepcopy(now)
        other["samples"][1]["equivariance_error"] += factor * spread
        found = compare("mine", results, other)
        assert rows_of(found)[key].agrees is agrees
        assert found.ok is agrees
        assert ("DIFFERS" in str(found)) is not agrees
        assert key in found.notes[0]


def test_a_headline_that_the_table_does_not_bear_out_is_found(measured):
    results, now = copy.deepcopy(measured)
    results["equivariance"]["relative_error"] *= 10
    found = compare("mine", results, now)
    assert [row.what for row in found.rows if row.agrees is False] == ["equivariance error, 3 samples, as told"]


def test_metrics_may_differ_by_the_deviation_of_draws_or_one_row(measured):
    results, now = copy.deepcopy(measured)
    results["test"]["accuracy"] = now["test"]["accuracy"] = 0.5
    for deviation, change, agrees in ((0.0, 1 / 6, True), (0.0, 2 / 6, False), (0.1, 0.5, True), (0.1, -0.6, False)):
        results["test_deviation"]["accuracy"] = now["test_deviation"]["accuracy"] = deviation
        now["test"]["accuracy"] = 0.5 + change
        assert rows_of(compare("mine", results, now))["test accuracy"].agrees is agrees


def test_exactness_is_exact(measured):
    results, now = copy.deepcopy(measured)
    key = "error under coupled noise, float64"
    for value, agrees in ((9e-9, True), (2e-8, False)):
        now["equivariance"]["coupled_relative_error"] = value
        assert rows_of(compare("mine", results, now))[key].agrees is agrees
    # Pixels that are interpolated are never exact.
    results["equivariance"]["coupled_relative_error"] = 0.1
    now["equivariance"]["coupled_relative_error"] = 0.12
    assert rows_of(compare("mine", results, now))[key].agrees


def test_a_figure_without_an_error_bar_is_not_judged_unless_it_is_equal(measured):
    results, now = copy.deepcopy(measured)
    now["test"]["loss"] += 0.01
    found = compare("mine", results, now)
    assert rows_of(found)["test loss"].agrees is None
    assert found.ok
    assert "not compared" in str(found)
    assert "no recorded error bar" in found.notes[-1]
    nothing = compare("mine", {}, {"environment": environment("cpu"), "problem": "none"})
    assert not nothing.rows
    assert not nothing.ok


def test_other_rows_are_told(measured):
    results, now = copy.deepcopy(measured)
    assert "other test rows" not in str(compare("mine", results, now))
    assert "These are other test rows: 6 were recorded, and there are 7." in str(compare("mine", results, {**now, "num_test": 7}))


def test_another_environment_is_told(measured):
    results, now = copy.deepcopy(measured)
    results["environment"]["torch"] = "1.0"
    results["training"] = {"precision": "bf16"}
    now["test"]["accuracy"] += 1e-3
    found = compare("mine", results, now)
    assert found.notes == [
        f"Another environment: torch 1.0 → {torch.__version__}.",
        "The metrics were recorded in bf16, and measured in single precision now.",
    ]


def test_rows_that_cannot_be_reached_leave_exactness(tmp_path):
    folder, results = recorded_checkpoint(tmp_path)
    results["dataset"] = {"name": "graphs", "local": True}
    found = compare("mine", results, measure(folder, results))
    assert [row.agrees for row in found.rows] == [None] * (len(found.rows) - 1) + [True]
    assert found.rows[-1].what == "error under coupled noise, float64, on random rows"
    assert found.ok
    assert found.notes[0].startswith("The test rows were not reached: dataset: 'graphs' was a folder where the model was made.")
