"""The rows that a subcommand is given: those of a file or of a data set, and those that were left out of it."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

    from lps_hf.models.row_sources import Rows, SkippedRow


@dataclass
class SourceRows:
    """The rows of a source."""

    rows: "Dataset | Rows"
    """A data set is as it is, with every row; the rows of a file may have columns of any type."""

    def in_place(self, results: list[Any]) -> list[Any]:
        """Results of the rows in the places that these have in the source, `None` for those left out."""
        return self.rows.in_place(results) if self._skipped else results

    def facts(self) -> dict[str, Any]:
        """What `--json` says of the rows that were left out."""
        return {"skipped": [{"row": row.number, "reason": str(row)} for row in self._skipped]}

    def report(self) -> None:
        """Say on stderr, at the end, which rows were left out."""
        from lps_hf.models.row_sources import skipped_text

        if self._skipped:
            print(f"lps-hf: {skipped_text(self.rows)}", file=sys.stderr)

    @property
    def _skipped(self) -> "list[SkippedRow]":
        return getattr(self.rows, "skipped", [])


def add_source_arguments(parser: ArgumentParser, max_rows: int | None = None) -> None:
    """The arguments that `read_source` reads."""
    parser.add_argument("source", help="data set of rows (Hub id or folder), or a file that to_rows reads, such as .csv or .sdf")
    parser.add_argument("--dataset_config_name", help="configuration of the data set, where it has several")
    parser.add_argument("--dataset_revision", help="branch, tag or commit of the data set")
    parser.add_argument("--split", default="test", help="split of the data set (default: %(default)s)")
    help_on_rows = f"use the first so many rows (default: {max_rows or 'all'})"
    parser.add_argument("--max_rows", type=int, default=max_rows, help=help_on_rows)
    parser.add_argument(
        "--on_error",
        choices=("raise", "skip"),
        default="raise",
        help="rows that cannot be read: stop, or leave them out and name them at the end (default: %(default)s)",
    )


def read_source(options: Namespace, check: Callable[[Mapping[str, Any]], Any]) -> SourceRows:
    """Rows of the source: all those of a file, or one split of a data set.

    Args:
        options: What `add_source_arguments` has added.
        check: Raises where the model cannot take a row; such rows are left out with `--on_error skip`.

    Returns:
        `SourceRows`: The first `--max_rows` of them.

    Raises:
        ValueError: If there is no such split, a row cannot be read, or none can.
        OSError: If there is no such source.
    """
    if options.max_rows is not None and options.max_rows < 1:
        raise ValueError(f"--max_rows: expected at least 1, got {options.max_rows}.")
    from lps_hf.models.row_files import FORMATS, check_not_url, suffix_of
    from lps_hf.models.row_sources import collect_rows, skipped_text, to_rows
    from lps_hf.models.row_structures import is_tu_folder

    if not options.source:
        raise ValueError("source: expected a data set or a file, got an empty text.")
    check_not_url(options.source, "source")
    is_file = os.path.isfile(options.source) or suffix_of(options.source) in FORMATS or is_tu_folder(options.source)
    # A file is named like one of rows, or refused with what reads it; a path is no SMILES string.
    source = Path(options.source) if is_file else _read_split(options)
    if options.on_error == "skip":
        rows = collect_rows(source).accepted(check, options.max_rows)
        if not rows:
            raise ValueError(skipped_text(rows))
        return SourceRows(rows)
    if isinstance(source, Path):
        return SourceRows(to_rows(source).accepted(lambda row: None, options.max_rows))
    return SourceRows(source if options.max_rows is None else source.select(range(min(options.max_rows, len(source)))))


def _read_split(options: Namespace) -> "Dataset":
    from datasets import load_dataset

    splits = load_dataset(options.source, options.dataset_config_name, revision=options.dataset_revision)
    if options.split not in splits:
        raise ValueError(f"--split: expected one of {', '.join(splits)}, got {options.split!r}.")
    return splits[options.split]
