"""Commands that use a checkpoint print what the package's functions return, seeded and with error bars."""

import csv
import json
from pathlib import Path

import pytest
from datasets import load_dataset
from transformers import pipeline

from lps_hf.cli.prediction_tables import lines_of, table_of
from lps_hf.evaluation.prediction import evaluate
from lps_hf.hub import save_checkpoint
from lps_hf.hub.loading import load_checkpoint
from tests.task_cases import task_case
from tests.tiny import random_rows


def test_evaluate_prints_the_metrics_of_a_split(run, checkpoint, dataset):
    said = run("evaluate", checkpoint, dataset, "--num_samples", 3, "--batch_size", 4, "--seed", 5, "--json")
    rows = load_dataset(dataset)["test"]
    expected = evaluate(*load_checkpoint(checkpoint), rows, "graph-classification", num_samples=3, batch_size=4, seed=5)
    assert said["metrics"] == expected
    assert said["num_rows"] == 6
    lines = run("evaluate", checkpoint, dataset, "--num_samples", 3, "--batch_size", 4, "--seed", 5).splitlines()
    assert dict(line.split() for line in lines)["accuracy"] == f"{expected['accuracy']:.4f}"
    assert "accuracy" in run("evaluate", checkpoint, dataset, "--num_samples", "auto")


def test_evaluate_ranks_links_among_all_pairs(run, tmp_path):
    model, processor, rows = task_case("link-prediction")
    save_checkpoint(model, processor, tmp_path / "links")
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    metrics = run("evaluate", tmp_path / "links", file, "--json")["metrics"]
    assert "mrr_filtered" in metrics


def test_predict_prints_a_table(run, checkpoint, rows_file):
    lines = run("predict", checkpoint, rows_file, "--num_samples", 4, "--max_rows", 2, "--top_k", 1).splitlines()
    assert lines[0].split() == ["row", "label", "score", "standard_error"]
    model, processor = load_checkpoint(checkpoint)
    expected = pipeline("graph-classification", model=model, processor=processor)(random_rows(2), num_samples=4, top_k=1)
    for number, (line, (best,)) in enumerate(zip(lines[1:], expected, strict=True)):
        assert line.split() == [str(number), best["label"], f"{best['score']:.4f}", f"{best['standard_error']:.4f}"]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_predict_writes_a_file(run, checkpoint, rows_file, tmp_path, name):
    text = run("predict", checkpoint, rows_file, "--tolerance", 0.5, "--output", tmp_path / name)
    assert text == f"6 rows written to {tmp_path / name}\n"
    written = (tmp_path / name).read_text()
    if name.endswith("csv"):
        table = list(csv.DictReader(written.splitlines()))
        assert [line["row"] for line in table] == [str(row) for row in range(6) for _ in range(3)]
        assert all(0 <= float(line["score"]) <= 1 for line in table)
    else:
        assert [len(json.loads(line)) for line in written.splitlines()] == [3] * 6
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {"rows.jsonl", name}


def test_predict_does_not_write_over_its_rows(refusal, checkpoint, rows_file):
    content = Path(rows_file).read_text()
    assert "--output: expected another file than the source" in refusal("predict", checkpoint, rows_file, "--output", rows_file)
    assert Path(rows_file).read_text() == content
    assert "source: expected a data set or a file, got an empty text" in refusal("predict", checkpoint, "")


@pytest.mark.parametrize("task", ["node-classification", "link-prediction", "particle-dynamics", "molecule-regression"])
def test_predict_knows_every_kind_of_result(run, tmp_path, task):
    model, processor, rows = task_case(task)
    save_checkpoint(model, processor, tmp_path / "made")
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows[:2]))
    results = run("predict", tmp_path / "made", file, "--json", "--num_samples", 4, "--confidence_level", 0.9)["results"]
    lines = lines_of(results)
    assert {line["row"] for line in lines} == {0, 1}
    for line in lines:
        for low in (key for key in line if key.startswith("low")):
            assert line[low] < line[low.replace("low", "high")]
    assert any(key.startswith("low") for key in lines[0])
    table = table_of(results).splitlines()
    assert len(table) == 1 + len(lines)
    assert len({len(line) for line in table}) == 1, "columns are straight"


def test_equivariance_prints_errors_that_fall_and_draws_them(run, checkpoint, dataset, tmp_path):
    figure = tmp_path / "figure.png"
    options = ("--max_rows", 4, "--max_samples", 4)
    said = run("equivariance", checkpoint, dataset, *options, "--figure", figure, "--json")
    assert [point["num_samples"] for point in said["samples"]] == [1, 2, 4]
    assert said["equivariance"]["coupled_relative_error"] < 1e-8
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "noise moved along, float64" in run("equivariance", checkpoint, dataset, *options)


def test_a_model_that_is_not_equivariant_ends_with_3(run, checkpoint, dataset, monkeypatch):
    from lps_hf.evaluation import sampling_report as module

    monkeypatch.setattr(module, "coupled_error", lambda *arguments: 0.1)
    assert "1.0e-01" in run("equivariance", checkpoint, dataset, "--max_rows", 2, "--max_samples", 2, code=3)


def test_what_is_not_symmetrized_has_no_exactness_to_check(run, refusal, dataset, tmp_path):
    model, processor, _ = task_case("graph-classification", distribution="none")
    save_checkpoint(model, processor, tmp_path / "plain")
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(task_case("graph-classification")[2]))
    said = run("equivariance", tmp_path / "plain", rows, "--max_rows", 2)
    assert "plain backbone" in said
    assert "noise moved along" not in said
    wrong = tmp_path / "nowhere" / "figure.png"
    assert "--figure: expected a folder that exists" in refusal("equivariance", tmp_path, rows, "--figure", wrong)


def test_wrong_sources_are_refused(refusal, checkpoint, dataset, tmp_path):
    assert "does not exist" in refusal("predict", checkpoint, tmp_path / "nothing.smi")
    assert "--split: expected one of train, test, got 'dev'" in refusal("predict", checkpoint, dataset, "--split", "dev")
    assert "--max_rows: expected at least 1" in refusal("evaluate", checkpoint, dataset, "--max_rows", "0")
    assert "--output: expected a file ending in .csv or .jsonl" in refusal("predict", checkpoint, dataset, "--output", "x.txt")
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps([{"edge_index": [[0], [9]], "num_nodes": 2, "node_feat": [[0, 0]] * 2, "edge_attr": [[0]]}]))
    assert "row 0" in refusal("predict", checkpoint, wrong)


def test_a_folder_that_is_no_checkpoint_is_refused(refusal, dataset):
    assert "expected a checkpoint folder with config.json" in refusal("evaluate", dataset, dataset)
