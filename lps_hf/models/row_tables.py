"""Readers of tables: JSON, JSON lines, CSV, TSV, parquet and SMILES files, record by record; see `row_files`."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from .row_batches import as_rows
from .row_molecules import is_smiles_column

Record = tuple[str, Any]
"""Where it stands in its file, such as "line 3", and a row, graph, molecule or array, or the error that reading it gave."""

_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")
# How other programs write what JSON has in another way.
_WORDS = {"nan": float("nan"), "true": True, "false": False}


def library(module: str, what: str) -> Any:
    """An optional package that reads files.

    Args:
        module: Name of the module to import.
        what: What it reads, for the message.

    Raises:
        ImportError: If it is missing.
    """
    package = module.split(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what}: expected the package {package} to read it, which is not installed. Run 'pip install {package}'."
        ) from error


def text_of(content: bytes, first_line: int = 1) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: If it is in another encoding: says in which line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = first_line + content.count(b"\n", 0, error.start)
        raise ValueError(
            f"line {line}: expected text in UTF-8, got the byte 0x{content[error.start]:02x}. Save the file as UTF-8."
        ) from error


def lines_of(content: bytes) -> Iterator[tuple[int, str | ValueError]]:
    """Lines that are not empty, stripped, with their numbers from 1; an error for those that are not in UTF-8.

    A line ends where a file's lines do: `str.splitlines` would also cut texts at U+2028, U+0085 and others.
    """
    for number, line in enumerate(re.split(rb"\r\n|\n|\r", content), start=1):
        try:
            text = text_of(line, number).strip(" \t")
        except ValueError as error:
            yield number, ValueError(str(error).removeprefix(f"line {number}: "))
            continue
        if text:
            yield number, text


def read_json(content: bytes, name: str) -> Iterator[Record]:
    """A list of rows, one row, or a dictionary of columns."""
    parsed = _parse_json(text_of(content))
    rows = parsed if isinstance(parsed, list) else as_rows(parsed)
    for number, row in enumerate(rows):
        yield f"row {number}", row


def read_json_lines(content: bytes, name: str) -> Iterator[Record]:
    """One row per line."""
    for number, line in lines_of(content):
        try:
            row = _parse_json(line) if isinstance(line, str) else line
        except ValueError as error:
            row = error
        yield f"line {number}", row


def read_parquet(content: bytes, name: str) -> Iterator[Record]:
    """One row per row."""
    parquet, arrow = library("pyarrow.parquet", name), library("pyarrow", name)
    try:
        table = parquet.read_table(io.BytesIO(content))
    except arrow.ArrowException as error:
        raise ValueError(f"expected a parquet file, got another: {error}") from error
    for number, row in enumerate(table.to_pylist()):
        yield f"row {number}", row


def read_csv(content: bytes, name: str) -> Iterator[Record]:
    """One row per line under a heading, cells between commas."""
    return _read_table(content, ",")


def read_tsv(content: bytes, name: str) -> Iterator[Record]:
    """One row per line under a heading, cells between tabs."""
    return _read_table(content, "\t")


def read_smiles(content: bytes, name: str) -> Iterator[Record]:
    """One SMILES string per line, and after a space or tab a name, which becomes `id`."""
    for number, line in lines_of(content):
        row: Any = line
        if isinstance(line, str):
            text, *rest = re.split(r"[ \t]+", line, maxsplit=1)
            row = {"smiles": text, **({"id": rest[0]} if rest else {})}
        yield f"line {number}", row


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_with_each_key_once)
    except (json.JSONDecodeError, RecursionError) as error:
        hint = " One value per line is a file ending in .jsonl." if str(error).startswith("Extra data") else ""
        raise ValueError(f"expected JSON, got something else: {error}.{hint}") from error


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"expected each key once, got {_most_common(key for key, _ in pairs)!r} twice.")
    return row


def _most_common(names: Iterable[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def _read_table(content: bytes, delimiter: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(text_of(content), newline=""), delimiter=delimiter, strict=True)
    try:
        lines = list(reader)
    except csv.Error as error:  # a cell that is too long, for one
        noun = "tabs" if delimiter == "\t" else "commas"
        raise ValueError(
            f"line {reader.line_num}: expected a table with {noun}, got another: {error}. Try .jsonl or .parquet."
        ) from error
    lines = [line for line in lines if len(line) > 1 or "".join(line).strip()]
    heading = [name.strip() for name in lines[0]] if lines else []
    if len(set(heading)) < len(heading):
        raise ValueError(f"expected each column once, got {_most_common(heading)!r} twice. Rename one of them.")
    if len(heading) == 1 and any(mark in heading[0] for mark in ",;\t"):
        raise ValueError(
            f"expected columns with {delimiter!r} between them, got the heading {heading[0]!r}. A file with tabs ends in "
            ".tsv, one with commas in .csv. Others are read by pandas.read_csv with sep; to_rows takes its table."
        )
    for number, line in enumerate(lines[1:]):
        row: Any = {key: cell if is_smiles_column(key) else _cell(cell) for key, cell in zip(heading, line, strict=False)}
        if len(line) != len(heading):
            row = ValueError(f"expected as many cells as the heading has, {len(heading)}, got {len(line)}.")
        yield f"row {number}", row


def _cell(text: str) -> Any:
    """A number, truth value or list where the cell is one, `None` for nothing, else the text."""
    word = text.strip()
    if not word:
        return None
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if _DECIMAL.fullmatch(word):  # .5 and 1. are no JSON
        return float(word)
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return text
