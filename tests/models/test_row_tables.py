"""Tables in the shapes that other programs write them: encodings, line ends, marks, words for what is missing."""

import csv
import gzip
import json
import math

import pytest

from lps_hf.data import from_smiles, to_rows

ROW = {"edge_index": [[0, 1], [1, 0]], "num_nodes": 2}
LINE = json.dumps(ROW)


@pytest.fixture
def file(tmp_path):
    """Writes a file; returns its path."""

    def file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return file


# What `str.splitlines` takes for the end of a line, and a file does not.
@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.tsv", "a.smi"])
def test_a_line_ends_where_those_of_files_do(file, name, mark):
    text = f"a{mark}b"
    row = {**ROW, "name": text}
    if name == "a.json":
        content = json.dumps([row], ensure_ascii=False)
    elif name.endswith("smi"):
        pytest.importorskip("rdkit")
        content = f"C {text}\n"
    elif name.endswith("sv"):
        mark = "," if name.endswith("csv") else "\t"
        content = f'num_nodes{mark}name\n2{mark}"{text}"\n'
    else:
        # Of control characters JSON has only escapes.
        content = json.dumps(row, ensure_ascii=text.isprintable()) + "\n"
    (read,) = to_rows(file(name, content))
    assert read.get("name", read.get("id")) == text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n  \n", "\r\n\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_marks_and_line_ends(file, end, mark):
    assert to_rows(file("a.jsonl", mark + LINE + end + mark + LINE + end)) == [ROW, ROW]  # also of files put together
    assert to_rows(file("a.json", mark + LINE + end)) == [ROW]
    assert to_rows(file("a.csv", f'{mark}num_nodes,edge_index{end}2,"[[0,1],[1,0]]"{end}')) == [ROW]
    assert to_rows(file("a.tsv", f"{mark}num_nodes\tedge_index{end}2\t[[0,1],[1,0]]{end}")) == [ROW]


def test_a_byte_order_mark_before_smiles(file):
    pytest.importorskip("rdkit")
    assert to_rows(file("a.smi", "\ufeffCC\r\nC\tmethane 1\r\n\r\n")) == [
        from_smiles("CC"),
        {**from_smiles("C"), "id": "methane 1"},
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.tsv", "a.json"])
def test_gzipped(file, name):
    contents = {
        "a.csv": "num_nodes,y\n2,1\n",
        "a.tsv": "num_nodes\ty\n2\t1\n",
        "a.json": '[{"num_nodes": 2, "y": 1}]',
        "a.jsonl": '{"num_nodes": 2, "y": 1}\n',
    }
    content = contents[name].encode()
    assert to_rows(file(f"{name}.gz", gzip.compress(content))) == [{"num_nodes": 2, "y": 1}]
    assert to_rows(file(f"{name}.gz", content)) == [{"num_nodes": 2, "y": 1}]  # decompressed on the way
    with pytest.raises(ValueError, match=r"a\..*\.gz: expected a file compressed by gzip, got a broken one"):
        to_rows(file(f"{name}.gz", gzip.compress(content)[:-5]))


def test_cells_as_others_write_them(file):
    heading = "a,b,c,d,e,f,g,h"
    (row,) = to_rows(file("a.csv", f'{heading}\n.5,-1.,True,FALSE,007,,"[1, 2]",1e-3\n'))
    assert row == {"a": 0.5, "b": -1.0, "c": True, "d": False, "e": "007", "f": None, "g": [1, 2], "h": 0.001}
    (row,) = to_rows(file("a.csv", "a,b,c\nnan,NaN,Na\n"))
    assert math.isnan(row["a"])
    assert math.isnan(row["b"])
    assert row["c"] == "Na"


def test_numbers_that_are_none_are_kept(file):
    (row,) = to_rows(file("a.jsonl", '{"num_nodes": 2, "y": NaN, "z": -Infinity}'))
    assert math.isnan(row["y"])
    assert row["z"] == -math.inf


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", LINE.encode() + b'\n{"name": "caf\xe9"}\n', r"a\.jsonl, line 2: expected text in UTF-8, got the byte 0xe9"),
        ("a.smi", b"C\nC caf\xe9\n", r"a\.smi, line 2: expected text in UTF-8, got the byte 0xe9"),
        ("a.csv", b"a,b\r\n1,2\r\n1,caf\xe9\r\n", r"a\.csv: line 3: expected text in UTF-8, got the byte 0xe9"),
        ("a.json", b'[{"a": 1},\n{"a": "\xe9"}]', r"a\.json: line 2: expected text in UTF-8"),
        ("a.json", LINE.encode("utf-16"), r"a\.json: line 1: expected text in UTF-8, got the byte 0xff"),
        ("a.jsonl", LINE + '\n{"y": 1, "y": 2}\n', r"a\.jsonl, line 2: expected each key once, got 'y' twice"),
        ("a.json", '{"num_nodes": 2, "a": {"b": 1, "b": 1}}', r"a\.json: expected each key once, got 'b' twice"),
        ("a.csv", "y,a,y\n1,2,3\n", r"a\.csv: expected each column once, got 'y' twice"),
        ("a.csv", "smiles;y\nC;1\n", r"a\.csv: expected columns with ',' between them, got the heading 'smiles;y'"),
        ("a.tsv", "smiles,y\nC,1\n", r"a\.tsv: expected columns with '\\t' between them, got the heading 'smiles,y'"),
        ("a.csv", 'a,b\n1,2\n"1,2\n', r"a\.csv: line \d: expected a table with commas, got another: unexpected end of data"),
        ("a.json", LINE + "\n" + LINE, r"a\.json: expected JSON, got .*Extra data.* a file ending in \.jsonl"),
        ("a.json", "[" * 100_000, r"a\.json: expected JSON, got something else"),
        ("a.json", "", r"a\.json: expected JSON, got something else"),
        ("a.json", '{"edge_index": [[[0], [1]]], "num_nodes": [2, 2]}', r"a\.json: rows: expected columns of one length"),
        ("a.json", "3", r"a\.json: rows: expected a list of rows.*got int"),
    ],
)
def test_what_is_refused_says_the_file_and_the_line(file, name, content, message):
    if name.endswith("smi"):
        pytest.importorskip("rdkit")
    with pytest.raises(ValueError, match=message):
        to_rows(file(name, content))


def test_a_file_of_one_row_or_of_columns(file):
    assert to_rows(file("a.json", json.dumps(ROW, indent=2))) == [ROW]
    assert to_rows(file("a.json", json.dumps({key: [value, value] for key, value in ROW.items()}))) == [ROW, ROW]
    pytest.importorskip("rdkit")
    assert to_rows(file("a.json", '{"SMILES": ["C", "CC"], "y": [1, 2]}')) == [
        {**from_smiles(text), "y": len(text)} for text in ("C", "CC")
    ]


def test_long_tables_are_read_whole(file, tmp_path):
    with (tmp_path / "a.tsv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["num_nodes", "y"], delimiter="\t")
        writer.writeheader()
        writer.writerows({"num_nodes": number, "y": -number} for number in range(1000))
    assert to_rows(tmp_path / "a.tsv") == [{"num_nodes": number, "y": -number} for number in range(1000)]


def test_a_heading_with_spaces(file):
    assert to_rows(file("a.csv", "smiles , y\nCC, 1\n"))[0]["y"] == 1


def test_a_heading_without_rows_says_which_file(file):
    with pytest.raises(ValueError, match=r"a\.csv: expected at least one row, got an empty file"):
        to_rows(file("a.csv", "smiles,y\n"))
