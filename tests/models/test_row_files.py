"""What is read and refused by the ending of a name: folders, unknown files, addresses, packages that are missing."""

import gzip
import os
from pathlib import Path

import pytest

from lps_hf.data import to_rows
from lps_hf.models import row_files, row_tables


def test_every_ending_is_read_or_advised_on_not_both():
    assert not set(row_files.FORMATS) & set(row_files._ADVICE)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in (*row_files.FORMATS, *row_files._ADVICE))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.csv", ".csv"), ("a.CSV.GZ", ".csv"), ("b.c/a.tar.gz", ".tar"), ("a", ""), (".csv", ""), ("CC.[Na+]", ".[na+]")],
)
def test_the_ending_that_says_what_a_file_holds(name, suffix):
    assert row_files.suffix_of(name) == row_files.suffix_of(Path(name)) == suffix


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.pdb", "rdkit.Chem.MolFromPDBFile"),
        ("a.mol2.gz", "rdkit.Chem.MolFromMol2File"),
        ("a.cif", "ase.io.read"),
        ("a.stl", "meshio.read"),
        ("a.xlsx", "pandas.read_excel"),
        ("a.pt", "torch.load"),
        ("a.pkl", "pickle.load"),
        ("a.h5", "h5py"),
        ("a.edgelist", "networkx.read_edgelist"),
        ("a.csv.bz2", "Unpack it first"),
    ],
)
def test_what_is_not_read_is_refused_with_the_call_that_reads_it(tmp_path, name, advice):
    (tmp_path / name).write_text("x")
    for source in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(ValueError, match=rf"expected a file ending in \.jsonl, .*\.gml, .*, got .*{name}\. .*{advice}"):
            to_rows(source)


def test_an_unknown_ending_is_refused_with_those_that_are_read(tmp_path):
    (tmp_path / "notes.txt").write_text("C")
    with pytest.raises(ValueError, match=r"expected a file ending in \.jsonl, \.ndjson, .*notes\.txt\. Convert it"):
        to_rows(tmp_path / "notes.txt")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "parts.csv").mkdir()
    for source in (tmp_path, str(tmp_path), tmp_path / "parts.csv", str(tmp_path / "parts.csv")):
        with pytest.raises(ValueError, match=r"expected a file, got the folder .*\. Read a folder with datasets\.load_dataset"):
            to_rows(source)


@pytest.mark.parametrize(
    "address", ["https://example.com/a.png", "http://a/b", "hf://datasets/a/b.csv", "s3://a/b.smi", "data:image/png;base64,AA"]
)
def test_an_address_is_shown_as_given_and_not_fetched(address):
    for source, where in ((address, "source"), ([address], "item 0: source"), ([{"image": address}], "item 0: image")):
        with pytest.raises(ValueError, match="is not fetched") as caught:
            to_rows(source)
        assert (
            str(caught.value)
            == f"{where}: expected a file on this machine, got {address}, which is not fetched. Download it first."
        )
    with pytest.raises(ValueError, match=r"got https:/example\.com/a\.csv, which is not fetched"):
        to_rows(Path("https://example.com/a.csv"))


def test_a_file_of_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.csv").write_text("num_nodes\n2\n")
    assert to_rows("~/a.csv") == to_rows(Path("~/a.csv")) == [{"num_nodes": 2}]
    with pytest.raises(FileNotFoundError, match=r"got ~/b\.csv, which does not exist"):
        to_rows("~/b.csv")


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(row_tables, "import_module", missing)
    for name, package in (
        ("a.xyz", "ase"),
        ("a.ply", "meshio"),
        ("a.g6", "networkx"),
        ("a.gml", "networkx"),
        ("a.parquet", "pyarrow"),
    ):
        (tmp_path / name).write_text("1\n\nH 0 0 0\n")
        with pytest.raises(ImportError, match=f"expected the package {package} to read it, .* 'pip install {package}'"):
            to_rows(tmp_path / name, on_error="skip")


def test_pictures_may_be_gzipped(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    Image.new("RGB", (2, 3)).save(tmp_path / "a.png")
    (tmp_path / "b.png.gz").write_bytes(gzip.compress((tmp_path / "a.png").read_bytes()))
    (row,) = to_rows(tmp_path / "b.png.gz")
    assert row["image"].size == (2, 3)


def test_how_many_rows_a_file_holds(tmp_path):
    assert not any(map(row_files.holds_several, ("a.png", "a.mol", "a.ply.gz", "CCO", "x" * 500, "C\0", "")))
    assert all(map(row_files.holds_several, ("a.csv", "a.sdf", "a.jsonl.gz", "a.npz")))
    (tmp_path / "A_graph_indicator.txt").write_text("1\n")
    assert row_files.holds_several(tmp_path)
    assert row_files.holds_several(os.fspath(tmp_path))
