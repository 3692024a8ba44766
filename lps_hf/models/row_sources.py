"""Rows from what people have: PyTorch Geometric, networkx, SMILES strings, images, files and data sets."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .row_batches import as_rows
from .row_graphs import Row, from_networkx, from_pyg, is_networkx, is_pyg
from .row_molecules import from_molecule, from_smiles

# One of these makes a dictionary with `smiles` a row already.
_CONTENT_KEYS = ("edge_index", "positions", "image", "pixel_values")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def to_rows(source: Any) -> list[Row]:
    """Turn anything that holds graphs, molecules, points or images into rows for `LPSProcessor`.

    | source | rows |
    | --- | --- |
    | a row, rows, a dictionary of columns, a `datasets.Dataset`, a table of pandas | as they are |
    | PyTorch Geometric `Data`, `Batch` | see `from_pyg` |
    | a networkx graph | see `from_networkx` |
    | a SMILES string, an rdkit molecule; a row with `smiles` and no graph | see `from_smiles` |
    | a PIL image, the path of an image file | one row with `image`, turned upright as its EXIF data say |
    | a path ending in .jsonl, .json or .parquet | the rows in it |
    | a path ending in .csv | one row per line under a heading; cells that are JSON, such as numbers and lists, are read as such |
    | a path ending in .smi | one SMILES string per line, and after a space a name, which becomes `id` |
    | a list, or anything else to go through, of any of these | the rows of all |

    All rows of a data set are read into memory: go through a large one in parts.

    Args:
        source: Any of these.

    Returns:
        `list[dict]`: At least one row. What a model needs of it is for the processor to check.

    Raises:
        ValueError: If an item is impossible, saying which, or there is none.
        TypeError: If an item is none of these.
        FileNotFoundError: If there is no such file.
        ImportError: If a package that reads it is missing.
    """
    if is_table(source):
        # Lists of lists have become arrays of arrays.
        rows = source.to_dict("records")
        source = [{key: value.tolist() if hasattr(value, "tolist") else value for key, value in row.items()} for row in rows]
    if isinstance(source, Mapping):
        if any(hasattr(value, "column_names") for value in source.values()):
            raise ValueError(f"source: expected one data set, got the splits {', '.join(source)}. Pass one of them.")
        return [_in_place(f"row {number}", _complete, row) for number, row in enumerate(as_rows(source))]
    rows = _rows_of_one(source)
    if rows is None:
        if not isinstance(source, Iterable):
            raise TypeError(_unknown("source", source))
        rows = []
        for number, item in enumerate(source):
            rows += _in_place(f"item {number}", _rows_of_item, item)
    if not rows:
        raise ValueError("source: expected at least one row, got none.")
    return rows


def is_table(source: Any) -> bool:
    """Whether it is a table of pandas."""
    return hasattr(source, "iterrows")


def _rows_of_one(source: Any) -> list[Row] | None:
    """The rows of anything but dictionaries and lists; `None` for those."""
    if isinstance(source, str | os.PathLike):
        return _rows_of_text(source)
    if is_pyg(source):
        parts = source.to_data_list() if hasattr(source, "to_data_list") else [source]
        return [from_pyg(part) for part in parts]
    if is_networkx(source):
        return [from_networkx(source)]
    if hasattr(source, "GetAtoms") and hasattr(source, "GetBonds"):
        return [from_molecule(source)]
    if hasattr(source, "convert") and hasattr(source, "mode"):
        return [{"image": source}]
    return None


def _rows_of_item(item: Any) -> list[Row]:
    """The rows of one item of a list."""
    if isinstance(item, Mapping):
        return [_complete(item)]
    rows = _rows_of_one(item)
    if rows is None:
        raise TypeError(_unknown("item", item))
    return rows


def _rows_of_text(text: str | os.PathLike[str]) -> list[Row]:
    """The rows of a file, or of a SMILES string."""
    path = Path(text)
    suffix = path.suffix.lower()
    if suffix in FILE_SUFFIXES:
        if not path.is_file():
            raise FileNotFoundError(f"source: expected a file, got {path}, which does not exist.")
        return [{"image": _open_image(path)}] if suffix in IMAGE_SUFFIXES else _READERS[suffix](path)
    known = ", ".join(FILE_SUFFIXES)
    if not isinstance(text, str) or os.path.isfile(text):
        raise ValueError(f"source: expected a file ending in {known}, got {path}. Read a folder with datasets.load_dataset.")
    try:
        return [from_smiles(text)]
    except ValueError as error:
        raise ValueError(f"{error} A path would end in {known}.") from None


def _read_json(path: Path) -> list[Row]:
    content = _parse_json(path.read_text(encoding="utf-8"), str(path))
    rows = content if isinstance(content, list) else as_rows(content)
    return _complete_all(rows, path, "row", 0)


def _read_json_lines(path: Path) -> list[Row]:
    lines = _lines_of(path)
    return [
        row
        for number, line in lines
        for row in _complete_all([_parse_json(line, f"{path}, line {number}")], path, "line", number)
    ]


def _read_parquet(path: Path) -> list[Row]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{path}: expected the package pyarrow, which is not installed. Run 'pip install pyarrow'.") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.lib.ArrowInvalid as error:
        raise ValueError(f"{path}: expected a parquet file, got another: {error}") from error
    return _complete_all(table.to_pylist(), path, "row", 0)


def _read_csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            lines: list[dict[Any, Any]] = list(csv.DictReader(file, strict=True))
        except csv.Error as error:  # a cell that is too long, for one
            raise ValueError(f"{path}: expected a table with commas, got another: {error}. Try .jsonl or .parquet.") from error
    for number, line in enumerate(lines):
        if None in line or None in line.values():
            raise ValueError(f"{path}, row {number}: expected as many cells as the heading has, got more or fewer.")
    rows = [{key: cell if key == "smiles" else _cell(cell) for key, cell in line.items()} for line in lines]
    return _complete_all(rows, path, "row", 0)


def _read_smiles(path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in _lines_of(path):
        text, *name = line.split(maxsplit=1)
        row = {"smiles": text, **({"id": name[0]} if name else {})}
        rows += _complete_all([row], path, "line", number)
    return rows


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".smi": _read_smiles,
}
FILE_SUFFIXES = (*_READERS, *IMAGE_SUFFIXES)


def _lines_of(path: Path) -> list[tuple[int, str]]:
    """Lines that are not empty, stripped, with their numbers from 1."""
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: expected JSON, got something else: {error}.") from error


def _cell(text: str) -> Any:
    """A number or list where the cell is one, `None` for nothing, else the text."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _complete_all(rows: Iterable[Any], path: Path, noun: str, first: int) -> list[Row]:
    return [_in_place(f"{path}, {noun} {number}", _complete, row) for number, row in enumerate(rows, start=first)]


def _complete(row: Any) -> Row:
    """A row whose content is a SMILES string, or the bytes or path of an image, gets the graph or the image."""
    if not isinstance(row, Mapping):
        raise TypeError(f"expected a row, a dictionary, got {type(row).__name__}.")
    image = row.get("image")
    if isinstance(image, Mapping):  # as parquet files have it
        image = io.BytesIO(image["bytes"]) if image.get("bytes") is not None else image.get("path")
    if isinstance(image, str | os.PathLike | io.BytesIO):
        return {**row, "image": _open_image(image)}
    if row.get("smiles") is not None and all(row.get(key) is None for key in _CONTENT_KEYS):
        return {**row, **from_smiles(row["smiles"])}
    return dict(row)


def _open_image(file: Any) -> Any:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("image: expected the package Pillow, which is not installed. Run 'pip install pillow'.") from error
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"image: expected a picture, got something else: {error}.") from error


def _in_place(where: str, convert: Callable[[Any], Any], item: Any) -> Any:
    """Convert one of several, and say in errors which it was."""
    try:
        return convert(item)
    except (TypeError, ValueError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{where}: {error}") from error


def _unknown(name: str, value: Any) -> str:
    return (
        f"{name}: expected a row, a graph of PyTorch Geometric or networkx, a SMILES string, an image or a path, got "
        f"{type(value).__name__}."
    )
