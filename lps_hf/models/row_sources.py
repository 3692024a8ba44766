"""Rows from what people have: PyTorch Geometric, networkx, SMILES strings, images, files and data sets."""

import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from .row_batches import as_rows
from .row_files import check_not_url, is_file_name, read_file
from .row_graphs import Row, from_networkx, from_pyg, is_networkx, is_pyg
from .row_labels import is_missing
from .row_molecules import from_atoms, from_molecule, from_smiles, is_atoms, is_molecule, is_smiles_column
from .row_names import check_split, labels_of_split
from .row_pictures import is_picture, is_picture_file, read_picture
from .row_structures import CONTENT_KEYS, NODE_LINK_KEYS, graph_of_node_link, is_node_link
from .row_tables import Record

# What is wrong with a single row; anything else, such as a package that is missing, ends the reading of all.
FAULTS = (TypeError, ValueError, FileNotFoundError)
# How many of the rows that cannot be read are named.
_MOST_NAMED = 5


class SkippedRow(NamedTuple):
    """A row that could not be read."""

    number: int
    """Its place among all rows of the source, from 0."""
    where: str
    """Its place in words, such as "molecules.csv, row 3"; nothing for a source of one row."""
    error: Exception
    """What was wrong with it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.error}" if self.where else str(self.error)


class Rows(list[Row]):
    """Rows that know which of a source they are: a list, with what was left out of it."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        super().__init__(rows)
        self.numbers: list[int] = []
        """The place of each row among all rows of the source, from 0."""
        self.skipped: list[SkippedRow] = []
        """The rows that are not there, in order."""

    def accepted(self, check: Callable[[Row], Any], most: int | None = None) -> "Rows":
        """The first rows that a check takes; those that it refuses are skipped too.

        Args:
            check: Raises where a model cannot take a row.
            most: How many rows. Those skipped are then the ones before the last of them.
        """
        rows = Rows()
        refused = []
        for number, row in zip(self.numbers, self, strict=True):
            if len(rows) == most:
                break
            try:
                check(row)
            except FAULTS as error:
                text = re.sub(r"^row 0: ", "", str(error))
                refused.append(SkippedRow(number, f"row {number}", ValueError(text)))
                continue
            rows.append(row)
            rows.numbers.append(number)
        end = rows.numbers[-1] if len(rows) == most else math.inf
        rows.skipped = sorted((row for row in [*self.skipped, *refused] if row.number < end), key=lambda row: row.number)
        return rows

    def in_place(self, results: Sequence[Any]) -> list[Any]:
        """Results of the rows in the places that these have in the source, `None` for those skipped."""
        result_of = dict(zip(self.numbers, results, strict=True))
        return [result_of.get(number) for number in range(len(self) + len(self.skipped))]


def to_rows(source: Any, on_error: Literal["raise", "skip"] = "raise", split: str | None = None) -> Rows:
    """Turn anything that holds graphs, molecules, points or images into rows for `LPSProcessor`.

    | source | rows |
    | --- | --- |
    | a row, rows, a dictionary of columns, a `datasets.Dataset`, a table of pandas or pyarrow | as they are |
    | PyTorch Geometric `Data`, `Batch` | see `from_pyg` |
    | a networkx graph, or what `networkx.node_link_data` makes of it | see `from_networkx` |
    | a SMILES string, an rdkit molecule; a row with a column `smiles`, `SMILES`, `canonical_smiles`, `mol`, … and no graph | see
      `from_smiles`; the column becomes `smiles` |
    | atoms of ase | see `from_atoms` |
    | an array of real numbers (points, 2 or 3) | one row with `positions` |
    | a PIL image, the bytes of an image file | one row with `image`, see `check_image_row` |
    | the path of a file, gzipped or not: .jsonl, .ndjson, .json, .parquet | the rows in it |
    | .csv, .tsv | one row per line under a heading; cells that are JSON, such as numbers and lists, are read as such |
    | .smi | one SMILES string per line, and after a space a name, which becomes `id` |
    | .png, .jpg, … | one row with `image`, turned upright as its EXIF data say |
    | .sdf, .mol, .xyz, .extxyz, .ply, .off, .npy, .npz, .g6, .graphml, .gml; the path of a folder of the TU data sets | see
      `row_structures` |
    | a list, or anything else to go through, of any of these | the rows of all |

    A string that is both a SMILES string and the name of a file is the SMILES string, unless it ends as a file does: pass a
    `pathlib.Path` for the file. All rows of a data set are read into memory: go through a large one in parts.

    Args:
        source: Any of these.
        on_error: What becomes of rows that cannot be read. `"raise"`: an error that names the first of them. `"skip"`: they are
            left out, and named in a warning.
        split: `"train"`, `"validation"` or `"test"`: of graphs with masks (`train_mask`, `val_mask`, `test_mask`) keep the labels
            of the nodes of this split; all others become -100, which losses and metrics leave out. With `None` rows keep labels
            and masks, and `LPSProcessor` refuses to learn or measure them together.

    Returns:
        `Rows`: A list of at least one row, which knows the numbers of its rows in the source, and those skipped. What a model
        needs of a row is for the processor to check.

    Raises:
        ValueError: If an item is impossible, saying which, or there is none.
        TypeError: If an item is none of these.
        FileNotFoundError: If there is no such file.
        ImportError: If a package that reads it is missing.
    """
    check_on_error(on_error)
    if split is not None:
        check_split(split)
    rows = collect_rows(source)
    if on_error == "raise" and rows.skipped:
        raise _joined(rows) from rows.skipped[0].error
    warn_of_skipped(rows)
    if split is not None:
        for number, row in enumerate(rows):
            try:
                rows[number] = labels_of_split(row, split)
            except (TypeError, ValueError) as error:
                raise fault_with(f"row {number}: {error}", error) from error
    return rows


def check_on_error(on_error: str) -> None:
    """Refuse what `on_error` cannot be.

    Raises:
        ValueError: Naming what it can be.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}.")


def warn_of_skipped(rows: Rows) -> None:
    """Name in a warning the rows that were left out.

    Raises:
        ValueError: If they are all.
    """
    if not rows:
        raise _joined(rows) from rows.skipped[0].error
    if rows.skipped:
        warnings.warn(skipped_text(rows), UserWarning, stacklevel=3)


def collect_rows(source: Any) -> Rows:
    """As `to_rows`, but without a word of the rows that could not be read: they are all in `skipped`.

    Raises:
        ValueError: If a file cannot be read as a whole, or there is no row in it.
        TypeError: If the source is none that `to_rows` reads.
        FileNotFoundError: If there is no such file.
        ImportError: If a package that reads it is missing.
    """
    rows = Rows()
    for number, (where, item) in enumerate(_records_of(source)):
        try:
            rows.append(_row_of(item))
            rows.numbers.append(number)
        except FAULTS as error:
            rows.skipped.append(SkippedRow(number, where, error))
    if not rows and not rows.skipped:
        raise ValueError("source: expected at least one row, got none.")
    return rows


def skipped_text(rows: Rows) -> str:
    """Which rows were left out, and why: the first few of them."""
    total = len(rows) + len(rows.skipped)
    return f"{len(rows.skipped)} of {total} rows were left out. {_named(rows.skipped, _MOST_NAMED)}"


def is_table(source: Any) -> bool:
    """Whether it is a table of pandas, or a table or column of pyarrow."""
    return hasattr(source, "iterrows") or (hasattr(source, "to_pylist") and hasattr(source, "slice"))


def numbered(source: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """As `enumerate`, but says which item a data set cannot read, such as a broken picture that it decodes.

    Raises:
        OSError: In the place of one that does not say it.
    """
    items = iter(source)
    for number in count():
        try:
            item = next(items)
        except StopIteration:
            return
        except (OSError, SyntaxError) as error:  # of a broken .png file
            raise OSError(f"item {number}: expected one that can be read, got an error: {error}") from error
        yield number, item


def is_one_row(source: Any) -> bool:
    """Whether it is one graph, molecule, image or array of points, which is no row yet."""
    return _converter_of(source) is not None


def fault_with(text: str, error: Exception) -> Exception:
    """An error of the same kind of `FAULTS` with another text."""
    return next(kind for kind in FAULTS if isinstance(error, kind))(text)


def _named(skipped: Sequence[SkippedRow], most: int) -> str:
    more = [f"{len(skipped) - most} more"] if len(skipped) > most else []
    return "; ".join([*(str(row).removesuffix(".") for row in skipped[:most]), *more]) + "."


def _joined(rows: Rows) -> Exception:
    """The error of the first row that cannot be read, which names some others."""
    first, *others = rows.skipped
    text, total = str(first), len(rows) + len(rows.skipped)
    if total > 1:
        advice = "; on_error='skip' leaves them out" if rows else ""
        text += f" {len(rows.skipped)} of {total} rows cannot be read{advice}."
    if others:
        text += f" The others: {_named(others, _MOST_NAMED - 1)}"
    return fault_with(text, first.error)


def _records_of(source: Any) -> Iterator[Record]:
    """What rows are made of, one by one; errors of single ones are among them."""
    if is_table(source):
        source = _rows_of_table(source)
    if isinstance(source, Mapping):
        yield from ((f"row {number}", row) for number, row in enumerate(as_rows(source)))
        return
    records = _records_of_item(source)
    if records is not None:
        yield from records
        return
    if not isinstance(source, Iterable):
        raise TypeError(_unknown("source", source))
    for number, item in numbered(source):
        try:
            records = _records_of_item(item)
            if records is None and not isinstance(item, Mapping):
                raise TypeError(_unknown("item", item))
            for where, part in records or [("", item)]:
                yield f"item {number}: {where}" if where else f"item {number}", part
        except FAULTS as error:  # of a file as a whole
            yield f"item {number}", error


def _records_of_item(item: Any) -> Iterable[Record] | None:
    """The records of anything but dictionaries and lists; `None` for those."""
    if isinstance(item, str | os.PathLike):
        return _records_of_text(item)
    if hasattr(item, "columns") and is_table(item):  # data sets with the formats "pandas" and "arrow" have tables for rows
        return [("", row) for row in _rows_of_table(item)]
    if is_pyg(item) and hasattr(item, "to_data_list"):
        return [(f"graph {number}", part) for number, part in enumerate(item.to_data_list())]
    return None if _converter_of(item) is None else [("", item)]


def _records_of_text(text: str | os.PathLike[str]) -> Iterable[Record]:
    """The records of a file, or of a SMILES string."""
    name = os.fsdecode(text)
    check_not_url(name, "source")
    if not isinstance(text, str) or is_file_name(text):
        return read_file(text)
    try:
        return [("", from_smiles(text))]
    except (ValueError, ImportError) as error:
        if os.path.exists(text):
            return read_file(text)
        raise type(error)(f"{error} A path would end in .jsonl, .csv, .smi, .png or the like.") from None


def _rows_of_table(table: Any) -> list[Any]:
    """The rows of a table. In those of pandas lists of lists have become arrays of arrays, and the index may be a column."""
    if hasattr(table, "to_pylist"):
        return table.to_pylist()
    index = [name for name in table.index.names if name is not None and name not in table.columns]
    if index:
        table = table.reset_index(level=index)
    if not table.columns.is_unique:
        raise ValueError(f"source: expected each column once, got {', '.join(map(str, table.columns))}. Rename one of them.")
    rows = table.to_dict("records")
    return [{key: value.tolist() if hasattr(value, "tolist") else value for key, value in row.items()} for row in rows]


def _row_of(item: Any) -> Row:
    """The row of a record."""
    if isinstance(item, Exception):
        raise item
    if isinstance(item, Mapping):
        return _complete(item)
    converter = _converter_of(item)
    if converter is None:
        raise TypeError(f"expected a row, a dictionary, got {type(item).__name__}.")
    return converter(item)


def _converter_of(source: Any) -> Callable[[Any], Row] | None:
    return next((convert for is_such, convert in _CONVERTERS if is_such(source)), None)


def _complete(row: Mapping[str, Any]) -> Row:
    """A row whose content is a SMILES string, a graph of nodes and links, or the bytes or path of an image gets what it means."""
    if is_picture_file(row.get("image")):
        return {**row, "image": read_picture(row["image"])}
    if any(row.get(key) is not None for key in CONTENT_KEYS):
        return dict(row)
    if is_node_link(row):
        others = {key: value for key, value in row.items() if key not in NODE_LINK_KEYS}
        return {**others, **from_networkx(graph_of_node_link(row))}
    name = _smiles_column(row)
    if name is None:
        return dict(row)
    try:
        made = from_molecule(row[name]) if is_molecule(row[name]) else from_smiles(row[name])
    except (TypeError, ValueError) as error:
        raise fault_with(f"column {name!r}: {error}" if name != "smiles" else str(error), error) from error
    return {**{key: value for key, value in row.items() if key != name}, **made}


def _smiles_column(row: Mapping[str, Any]) -> str | None:
    """The column with the SMILES string, or the molecule of rdkit, of a row; `None` where there is none."""
    if "smiles" in row:
        return "smiles"
    names = [name for name, value in row.items() if is_molecule(value) or (is_smiles_column(name) and _is_text_or_none(value))]
    filled = [name for name in names if not is_missing(row[name])]
    if len(filled) > 1:
        raise ValueError(f"expected one column of molecules, got {', '.join(filled)}. Rename that to be read to 'smiles'.")
    return next(iter(filled or names), None)


def _is_text_or_none(value: Any) -> bool:
    return isinstance(value, str) or is_missing(value)


def _row_of_points(array: Any) -> Row:
    """The row of a bare array."""
    if np.ma.is_masked(array):
        raise ValueError("positions: expected an array without a mask, got a masked one. Leave out the points that are masked.")
    points = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or points.dtype.kind != "f":
        raise ValueError(
            f"source: expected an array of real numbers of shape (points, 2) or (points, 3), got {points.dtype} of shape "
            f"{points.shape}. Say what it is: {{'positions': array}}, {{'image': array}} or {{'edge_index': array, 'num_nodes': "
            "n}; several clouds of points are list(array)."
        )
    return {"positions": points.tolist()}


def _is_array(source: Any) -> bool:
    """Whether it is an array of numbers; one of strings is a list of them."""
    return isinstance(source, torch.Tensor) or (isinstance(source, np.ndarray) and source.dtype.kind in "biufc")


def _is_bytes(source: Any) -> bool:
    """Whether it is the content of an image file."""
    return isinstance(source, bytes | bytearray)


_CONVERTERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Row]], ...] = (
    (is_pyg, from_pyg),
    (is_networkx, from_networkx),
    (is_molecule, from_molecule),
    (is_atoms, from_atoms),
    (is_picture, lambda image: {"image": image}),
    (_is_bytes, lambda data: {"image": read_picture(data)}),
    (_is_array, _row_of_points),
)


def _unknown(name: str, value: Any) -> str:
    return (
        f"{name}: expected a row, a graph of PyTorch Geometric or networkx, a SMILES string, an image, points or a path, got "
        f"{type(value).__name__}."
    )
