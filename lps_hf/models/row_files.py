"""Files of rows: one table says which ending is read by what; what else is known is refused with the call that reads it."""

import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .row_structures import (
    is_tu_folder,
    read_gml,
    read_graph6,
    read_graphml,
    read_mol,
    read_npy,
    read_npz,
    read_off_file,
    read_ply,
    read_sdf,
    read_tu_folder,
    read_xyz,
)
from .row_tables import Record, read_csv, read_json, read_json_lines, read_parquet, read_smiles, read_tsv

# The letters of a drive are one, and no SMILES string has a colon before a slash.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")


class FileFormat(NamedTuple):
    """What is known of the files of one ending."""

    read: Callable[[bytes, str], Iterable[Record]]
    """Takes the content and the name of a file. What is wrong with the whole of it is raised before its first record."""
    holds_one: bool = False
    """Whether such a file always is one row."""


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The ending that says what a file holds, in small letters; `.gz` only says that it is compressed."""
    return Path(os.fsdecode(path).lower().removesuffix(".gz")).suffix


def check_not_url(name: str, what: str) -> None:
    """Refuse what would have to be fetched.

    Raises:
        ValueError: Showing it as it was given.
    """
    if _URL.match(name):
        raise ValueError(f"{what}: expected a file on this machine, got {name}, which is not fetched. Download it first.")


def is_file_name(path: str | os.PathLike[str]) -> bool:
    """Whether it ends as files do that are read, or that are known and refused."""
    return suffix_of(path) in FORMATS or suffix_of(path) in _ADVICE


def holds_several(path: str | os.PathLike[str]) -> bool:
    """Whether a list of rows is expected of it, even of length one."""
    suffix = suffix_of(path)
    return not FORMATS[suffix].holds_one if suffix in FORMATS else is_tu_folder(path)


def read_file(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Go through the records of a file, or of a folder of the TU data sets.

    Args:
        path: A file whose ending is in `FORMATS`, gzipped or not.

    Yields:
        `tuple[str, Any]`: See `Record`; the place begins with the path.

    Raises:
        ValueError: If it is not what its ending says, or no file that is read: says what reads it.
        FileNotFoundError: If there is no such file.
        ImportError: If the package that reads it is missing.
    """
    name = os.fsdecode(path)
    place, suffix = os.path.expanduser(name), suffix_of(name)
    if is_tu_folder(place):
        records: Iterable[Record] = read_tu_folder(place)
    elif os.path.isdir(place):
        raise ValueError(f"source: expected a file, got the folder {name}. Read a folder with datasets.load_dataset.")
    elif not os.path.isfile(place):
        raise FileNotFoundError(f"source: expected a file, got {name}, which does not exist.")
    elif suffix in FORMATS:
        records = FORMATS[suffix].read(_content_of(place), name)
    else:
        advice = _ADVICE.get(suffix, "Convert it, or pass what it holds.")
        raise ValueError(f"source: expected a file ending in {KNOWN_SUFFIXES}, got {name}. {advice}")
    is_empty = True
    try:
        for where, item in records:
            is_empty = False
            yield f"{name}, {where}" if where else name, item
        if is_empty:
            raise ValueError("expected at least one row, got an empty file.")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _content_of(path: str) -> bytes:
    content = Path(path).read_bytes()
    if not content.startswith(b"\x1f\x8b"):  # some programs decompress on the way, and keep the name
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: expected a file compressed by gzip, got a broken one: {error}.") from error


def _read_image(content: bytes, name: str) -> Iterator[Record]:
    file = io.BytesIO(content)
    file.name = name  # for messages
    yield "", {"image": file}


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS: dict[str, FileFormat] = {
    ".jsonl": FileFormat(read_json_lines),
    ".ndjson": FileFormat(read_json_lines),
    ".json": FileFormat(read_json),
    ".parquet": FileFormat(read_parquet),
    ".csv": FileFormat(read_csv),
    ".tsv": FileFormat(read_tsv),
    ".smi": FileFormat(read_smiles),
    ".smiles": FileFormat(read_smiles),
    ".sdf": FileFormat(read_sdf),
    ".mol": FileFormat(read_mol, holds_one=True),
    ".xyz": FileFormat(read_xyz),
    ".extxyz": FileFormat(read_xyz),
    ".npy": FileFormat(read_npy, holds_one=True),
    ".npz": FileFormat(read_npz),
    ".ply": FileFormat(read_ply, holds_one=True),
    ".off": FileFormat(read_off_file, holds_one=True),
    ".g6": FileFormat(read_graph6),
    ".s6": FileFormat(read_graph6),
    ".graphml": FileFormat(read_graphml),
    ".gml": FileFormat(read_gml, holds_one=True),
    **{suffix: FileFormat(_read_image, holds_one=True) for suffix in IMAGE_SUFFIXES},
}
"""What is read, by the ending of the name; each may be gzipped."""
KNOWN_SUFFIXES = ", ".join(FORMATS)

_MESH = "Read it with meshio.read, and pass {'positions': mesh.points}."
_PACKED = "Unpack it first."
_PICKLE = "A pickle can run code: load one that you trust with pickle.load, and pass the rows or graphs in it."
_ADVICE = {
    ".arrow": "Read it with datasets.Dataset.from_file.",
    ".cif": "Read it with ase.io.read; to_rows takes its atoms where they are not periodic.",
    ".edgelist": "Read it with networkx.read_edgelist, whose graph to_rows takes.",
    ".feather": "Read it with pandas.read_feather, whose table to_rows takes.",
    ".gexf": "Read it with networkx.read_gexf, whose graph to_rows takes.",
    ".h5": "Read it with h5py, and pass rows such as {'positions': file['positions'][0]}.",
    ".hdf5": "Read it with h5py, and pass rows such as {'positions': file['positions'][0]}.",
    ".mol2": "Read it with rdkit.Chem.MolFromMol2File, whose molecule to_rows takes.",
    ".obj": _MESH,
    ".pdb": "Read it with rdkit.Chem.MolFromPDBFile, whose molecule to_rows takes.",
    ".pickle": _PICKLE,
    ".pkl": _PICKLE,
    ".pt": "Read it with torch.load, and pass the graphs of PyTorch Geometric in it.",
    ".stl": _MESH,
    ".xlsx": "Read it with pandas.read_excel, whose table to_rows takes.",
    ".zip": _PACKED,
    ".bz2": _PACKED,
    ".tar": _PACKED,
    ".xz": _PACKED,
}
"""Files that are known and not read, and what reads them."""
