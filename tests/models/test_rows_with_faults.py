"""Strings that might be paths, columns of molecules under their many names, and rows that cannot be read among others."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lps_hf.data import from_molecule, from_smiles, to_rows
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.models.row_sources import collect_rows, skipped_text

ROW = {"edge_index": [[0, 1], [1, 0]], "num_nodes": 2}
PEPTIDE = "NC(C)C(=O)" * 30 + "O"


@pytest.mark.parametrize("text", [PEPTIDE, "C~C", "CCO", " CCO\n", "CCO\u2028", "[Na+].[Cl-]", "C/C=C/C"])
def test_a_smiles_string_is_never_a_path(text, tmp_path, monkeypatch):
    pytest.importorskip("rdkit")
    monkeypatch.chdir(tmp_path)
    Path("CCO").write_text("a file of that name")
    Path("C~C").mkdir()
    row = {**from_smiles(text.strip()), "smiles": text}
    assert to_rows(text) == to_rows([text]) == to_rows({"smiles": text}) == [row]
    with pytest.raises(ValueError, match=r"expected a file ending in .*, got CCO\."):
        to_rows(Path("CCO"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"got ''\. Check it for typing errors\. A path would end in \.jsonl"),
        ("  ", r"got '  '\."),
        ("C\0O", r"got 'C\\x00O'\."),
        ("CC\0", r"got 'CC\\x00'\."),
        ("C\udc80", r"got 'C\\udc80'\."),
        ("CC\u00e9", r"got 'CC\u00e9'\."),
        ("CC O", r"one SMILES string, got 'CC O'\. Leave out what comes after the space"),
        ("CC\nO", r"one SMILES string, got 'CC\\nO'\."),
        ("~", r"got '~'\."),
        ("C" * 5000 + "x", r"got 'C{100}'\.\.\. of 5001 characters\. Check"),
        ("CN(C)(C)(C)C", r"got 'CN\(C\)\(C\)\(C\)C'\. Explicit valence for atom # 1 N, 5, is greater than permitted\."),
        ("c1cccc1", r"got 'c1cccc1'\. Can't kekulize mol"),
        ("x" * 300, r"of 300 characters"),
    ],
)
def test_strings_that_are_neither_say_so(text, message, capfd):
    pytest.importorskip("rdkit")
    for source, where in ((text, ""), ([{"smiles": "C"}, text], "item 1: ")):
        with pytest.raises(ValueError, match=f"^{where}smiles: expected .*{message}"):
            to_rows(source)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "no\0.csv", "nothing.png"])
def test_paths_of_no_file(name):
    for source in (name, Path(name)):
        with pytest.raises(FileNotFoundError, match="expected a file, got .*, which does not exist"):
            to_rows(source)


@pytest.mark.parametrize(
    "name", ["SMILES", "Smiles", "canonical_smiles", "Canonical SMILES", "isomeric_smiles", "smi", "mol", "IsomericSMILES"]
)
def test_columns_of_smiles_under_their_many_names(name, tmp_path):
    pytest.importorskip("rdkit")
    pandas = pytest.importorskip("pandas")
    expected = {**from_smiles("CCO"), "y": 1}
    table = pandas.DataFrame({name: ["CCO"], "y": [1]})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "a.parquet")
    for source in (table, {name: "CCO", "y": 1}, {name: ["CCO"], "y": [1]}, [{name: "CCO", "y": 1}]):
        assert to_rows(source) == [expected]
    for suffix in ("csv", "tsv", "parquet"):
        assert to_rows(tmp_path / f"a.{suffix}") == [expected]
    for wrong, got in (
        ("xyz", "got 'xyz'"),
        (None, "expected a string, got NoneType"),
        (float("nan"), "expected a string, got float"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"item 0: column '{name}': smiles: .*{got}"):
            to_rows([{name: wrong}])


def test_columns_that_are_not_read_as_smiles():
    chem = pytest.importorskip("rdkit.Chem")
    methane = chem.MolFromSmiles("C")
    assert to_rows({"mol": methane, "y": 1}) == [{"y": 1, **from_molecule(methane)}]
    assert to_rows([{"mol": 3, "y": 1}]) == [{"mol": 3, "y": 1}]  # a number of a molecule
    assert to_rows([{**ROW, "SMILES": "not one"}]) == [{**ROW, "SMILES": "not one"}]  # there is a graph already
    with pytest.raises(ValueError, match="expected one column of molecules, got canonical_smiles, isomeric_smiles. Rename"):
        to_rows([{"canonical_smiles": "C", "isomeric_smiles": "C"}])
    assert to_rows([{"canonical_smiles": None, "isomeric_smiles": "C"}])[0]["smiles"] == "C"
    with pytest.raises(ValueError, match="item 1: molecule: expected a sanitized one, .*SanitizeMol"):
        to_rows([methane, chem.MolFromSmiles("C", sanitize=False)])
    with pytest.raises(ValueError, match="molecule: expected at least one atom"):
        to_rows(chem.Mol())


def test_a_model_without_categories_says_where_those_of_molecules_are():
    pytest.importorskip("rdkit")
    with pytest.raises(ValueError, match="Those of the column 'smiles' are lps_hf.data.MOLECULE_NODE_CATEGORIES"):
        LPSProcessor(8)(to_rows([{"SMILES": "CCO"}]))
    with pytest.raises(ValueError, match=r"build the model with node_categories\.$"):
        LPSProcessor(8)([{**ROW, "node_feat": [[1], [2]]}])


@pytest.fixture
def table(tmp_path):
    pytest.importorskip("rdkit")
    path = tmp_path / "a.csv"
    path.write_text("smiles,y\nC,1\nxyz,2\nN,3\nC1,4\n,5\nO\nCN(C)(C)(C)C,7\nfoo,8\nbar,9\n")
    return path


def test_all_rows_that_cannot_be_read_are_told_at_the_end(table):
    with pytest.raises(ValueError, match="^") as caught:
        to_rows(table)
    text = str(caught.value)
    assert text.startswith(f"{table}, row 1: smiles: expected the SMILES string of a molecule, such as 'CCO', got 'xyz'.")
    assert "7 of 9 rows cannot be read; on_error='skip' leaves them out. The others: " in text
    assert f"{table}, row 5: expected as many cells as the heading has, 2, got 1" in text
    assert "row 6: " in text
    assert text.endswith("; 2 more.")
    assert "row 7" not in text


def test_the_others_keep_their_numbers(table):
    with pytest.warns(UserWarning, match="7 of 9 rows were left out. .*row 1: smiles: .*; 2 more.$") as caught:
        rows = to_rows(table, on_error="skip")
    assert len(caught) == 1
    assert rows == [{**from_smiles("C"), "y": 1}, {**from_smiles("N"), "y": 3}]
    assert rows.numbers == [0, 2]
    assert [row.number for row in rows.skipped] == [1, 3, 4, 5, 6, 7, 8]
    assert rows.skipped[3].where == f"{table}, row 5"
    assert "Explicit valence" in str(rows.skipped[4])
    again = pickle.loads(pickle.dumps(rows))
    assert (again, again.numbers) == (rows, rows.numbers)
    assert again.skipped[0].where == rows.skipped[0].where
    assert skipped_text(rows) == str(caught[0].message)
    assert rows.in_place(["C", "N"]) == ["C", None, "N", *[None] * 6]
    few = rows.accepted(lambda row: None, 1)
    assert (few, few.numbers, few.skipped) == (rows[:1], [0], [])


def test_a_broken_file_of_several_is_one_of_the_faults(table, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    sources = [table, str(tmp_path / "broken.json"), "CC", ROW, 3, str(tmp_path / "missing.csv")]
    rows = collect_rows(sources)
    assert rows.numbers == [0, 2, 10, 11]
    reasons = [str(row) for row in rows.skipped]
    assert reasons[0].startswith(f"item 0: {table}, row 1: ")
    assert reasons[7].startswith(f"item 1: {tmp_path}/broken.json: expected JSON")
    assert reasons[8].startswith("item 4: item: expected a row")
    assert reasons[9] == f"item 5: source: expected a file, got {tmp_path}/missing.csv, which does not exist."
    for on_error in ("raise", "skip"):
        with pytest.raises(ValueError, match=r"^.*broken\.json: expected JSON"):
            to_rows(tmp_path / "broken.json", on_error)
        with pytest.raises(FileNotFoundError):
            to_rows("missing.csv", on_error)


def test_nothing_is_left():
    pytest.importorskip("rdkit")
    with pytest.raises(ValueError, match="^item 0: smiles: .* 2 of 2 rows cannot be read. The others: item 1: smiles: "):
        to_rows(["xyz", "foo"], on_error="skip")
    with pytest.raises(ValueError, match="on_error: expected 'raise' or 'skip', got 'ignore'"):
        to_rows([ROW], on_error="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = to_rows([ROW, ROW], on_error="skip")
    assert (rows.numbers, rows.skipped) == ([0, 1], [])


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff"])
def test_a_broken_picture_says_which(suffix, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole, broken = tmp_path / f"whole.{suffix}", tmp_path / f"broken.{suffix}"
    Image.fromarray(pixels).save(whole)
    content = whole.read_bytes()
    for part in (content[: len(content) // 2], b"", b"no picture"):
        broken.write_bytes(part)
        for source in ([whole, broken], [{"image": str(whole)}, {"image": str(broken)}], {"image": [str(whole), str(broken)]}):
            with pytest.raises(ValueError, match=rf"^(item|row) 1: .*image: expected a picture, got .*broken\.{suffix}, which"):
                to_rows(source)
    with pytest.raises(ValueError, match="^item 1: image: expected a picture, got bytes, which"):
        to_rows([{"image": {"bytes": content}}, {"image": {"bytes": b"no picture"}}])
    with pytest.raises(
        FileNotFoundError, match=r"^item 1: image: expected the path of a file, got 'none\.png', where there is none"
    ):
        to_rows([{"image": str(whole)}, {"image": "none.png"}])


def test_a_broken_picture_of_a_data_set_says_which(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    datasets = pytest.importorskip("datasets")
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    columns = {"image": [str(tmp_path / "a.png"), str(tmp_path / "b.png")]}
    rows = datasets.Dataset.from_dict(columns, datasets.Features(image=datasets.Image()))
    for source in (rows, rows.to_iterable_dataset()):
        with pytest.raises(OSError, match="^item 1: expected one that can be read, got an error: "):
            to_rows(source)


def test_pictures_of_several_frames_are_named(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    first = Image.new("RGB", (2, 2), "red")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (2, 2), "blue")])
    with pytest.warns(UserWarning, match=r"image: .*a\.gif: one of 2 frames is read"):
        (row,) = to_rows(tmp_path / "a.gif")
    assert row["image"].convert("RGB").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_bare_array_is_a_cloud_of_points(dimension):
    points = np.arange(4.0 * dimension).reshape(4, dimension)
    expected = [{"positions": points.tolist()}]
    for source in (points, points.astype(np.float32), torch.tensor(points, requires_grad=True), [points], list(points[None])):
        assert to_rows(source) == expected
    batch = LPSProcessor(8, inputs={"positions": "n p"}, dimension=dimension)(to_rows([points, points[:2]]))
    assert batch["positions"].shape == (2, 4, dimension)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4)),
        np.zeros(3),
        np.zeros((2, 4, 3)),
        np.zeros((4, 3), dtype=int),
        np.zeros((8, 8, 3), np.uint8),
        torch.ones(2, 3, 4),
    ],
)
def test_other_arrays_are_not_guessed_at(array):
    for source, where in ((array, ""), ([array], "item 0: ")):
        with pytest.raises(
            ValueError, match=rf"^{where}source: expected an array of real numbers .*'edge_index'.* list\(array\)"
        ):
            to_rows(source)


def test_arrays_with_a_mask_or_of_strings():
    pytest.importorskip("rdkit")
    points = np.ma.masked_array(np.zeros((2, 3)), mask=[[True, False, False], [False] * 3])
    with pytest.raises(ValueError, match="positions: expected an array without a mask"):
        to_rows(points)
    assert to_rows(np.array(["C", "CC"])) == [from_smiles("C"), from_smiles("CC")]
