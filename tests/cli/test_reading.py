"""Files of rows on the command line: what cannot be read stops a command or is left out, and nothing is lost of the others."""

import csv
import json

import pytest

from lps_hf import cli
from lps_hf.cli.prediction_tables import lines_of, table_of, write_results
from tests.tiny import random_rows, save_dataset

FAULTS = {1: {"edge_index": [[0], [99]], "num_nodes": 2, "node_feat": [[0, 0]] * 2, "edge_attr": [[0]]}, 3: "{broken", 6: 7}


@pytest.fixture
def faulty_file(tmp_path):
    """Seven rows, of which the model refuses one and reading refuses two."""
    rows = random_rows(7)
    lines = [FAULTS.get(number, row) for number, row in enumerate(rows)]
    file = tmp_path / "faulty.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(file)


def test_results_keep_the_numbers_of_their_rows(run, checkpoint, faulty_file, rows_file):
    said = run("predict", checkpoint, faulty_file, "--on_error", "skip", "--json")
    assert [result is None for result in said["results"]] == [number in FAULTS for number in range(7)]
    whole = run("predict", checkpoint, rows_file, "--json")
    for number in (0, 2, 4, 5):
        expected = {label["label"]: pytest.approx(label["score"], abs=1e-6) for label in whole["results"][number]}
        assert {label["label"]: label["score"] for label in said["results"][number]} == expected
    assert [fault["row"] for fault in said["skipped"]] == [1, 3, 6]
    assert said["skipped"][0]["reason"].startswith("row 1: edge_index: expected node numbers 0 to 1")
    assert "faulty.jsonl, line 4: expected JSON" in said["skipped"][1]["reason"]
    assert whole["skipped"] == []


def test_those_left_out_are_named_at_the_end_of_stderr(checkpoint, faulty_file, capsys):
    assert cli.main(["predict", checkpoint, faulty_file, "--on_error", "skip", "--top_k", "1"]) == 0
    output = capsys.readouterr()
    assert [line.split()[0] for line in output.out.splitlines()] == ["row", "0", "2", "4", "5"]
    assert output.err.splitlines()[-1].startswith("lps-hf: 3 of 7 rows were left out. row 1: edge_index: ")


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_files_of_results_keep_the_numbers_too(run, checkpoint, faulty_file, tmp_path, name):
    said = run("predict", checkpoint, faulty_file, "--on_error", "skip", "--top_k", 1, "--output", tmp_path / name)
    assert said == f"4 rows written to {tmp_path / name}\n"
    lines = (tmp_path / name).read_text().splitlines()
    if name.endswith("csv"):
        assert [line["row"] for line in csv.DictReader(lines)] == ["0", "2", "4", "5"]
    else:
        assert [json.loads(line) is None for line in lines] == [number in FAULTS for number in range(7)]


def test_other_commands_leave_them_out_too(run, checkpoint, faulty_file):
    said = run("evaluate", checkpoint, faulty_file, "--on_error", "skip", "--json")
    assert said["num_rows"] == 4
    assert [fault["row"] for fault in said["skipped"]] == [1, 3, 6]
    said = run("equivariance", checkpoint, faulty_file, "--on_error", "skip", "--max_rows", 2, "--max_samples", 1, "--json")
    assert said["samples_rows"] == 2
    assert [fault["row"] for fault in said["skipped"]] == [1]  # before the last row that is used


def test_without_a_word_they_stop_the_command(refusal, checkpoint, faulty_file, tmp_path):
    line = refusal("predict", checkpoint, faulty_file)
    assert "faulty.jsonl, line 4: expected JSON" in line
    assert "2 of 7 rows cannot be read" in line
    assert "line 7: expected a row, a dictionary, got int" in line
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text("{broken\n7\n")
    assert "2 of 2 rows were left out" in refusal("predict", checkpoint, wrong, "--on_error", "skip")


def test_rows_of_a_data_set_can_be_left_out(run, checkpoint, tmp_path):
    rows = random_rows(3)
    rows[1] = {**rows[1], "node_feat": [[9, 9] for _ in rows[1]["node_feat"]]}
    folder = save_dataset(tmp_path / "faulty", test=rows)
    said = run("predict", checkpoint, folder, "--on_error", "skip", "--json")
    assert [result is None for result in said["results"]] == [False, True, False]


def test_labels_are_not_looked_at_in_predictions(run, checkpoint, tmp_path):
    """Nor what else no model reads, such as a column with numbers here and text there."""
    rows = random_rows(3)
    rows[0] = {key: value for key, value in rows[0].items() if key != "y"} | {"note": 1}
    rows[1] |= {"y": [99], "note": "text"}
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    said = run("predict", checkpoint, file, "--on_error", "skip", "--json")
    assert said["skipped"] == []
    assert said["results"] == run("predict", checkpoint, file, "--json")["results"]


def test_addresses_are_not_fetched_and_files_not_guessed_at(refusal, checkpoint, tmp_path):
    assert "got https://example.com/a.csv, which is not fetched" in refusal("predict", checkpoint, "https://example.com/a.csv")
    (tmp_path / "notes.txt").write_text("C")
    assert "expected a file ending in .jsonl" in refusal("predict", checkpoint, tmp_path / "notes.txt")


def test_a_note_of_some_rows_is_a_column_of_all(tmp_path):
    label, noted = {"label": "a", "score": 0.5}, {"label": "b", "score": 0.5, "note": "all draws agreed"}
    particles = {"positions": [[0.0, 1.0]], "standard_error": None, "note": "all draws agreed"}
    assert [line["note"] for line in lines_of([[label], None, [[noted], [label]]])] == [None, "all draws agreed", None]
    assert lines_of([particles])[0]["note"] == "all draws agreed"
    write_results([[label], [noted]], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "row,label,score,note\n0,a,0.5,\n1,b,0.5,all draws agreed\n"
    assert table_of([[label], [noted]]).splitlines()[0].split() == ["row", "label", "score", "note"]
