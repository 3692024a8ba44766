"""Results of pipelines as tables: one line for each label, node, pair or particle."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lps_hf.evaluation.json_text import json_text

_SUFFIXES = (".csv", ".jsonl")


def check_output(output: str | None, source: str) -> None:
    """Refuse a file that no table can be written to, before anything is computed.

    Args:
        output: The file; `None` for none.
        source: Where the rows are read from.

    Raises:
        ValueError: If its name has another ending, or it holds the rows.
        FileNotFoundError: If its folder does not exist.
    """
    if output is None:
        return
    if Path(output).suffix not in _SUFFIXES:
        raise ValueError(f"--output: expected a file ending in {' or '.join(_SUFFIXES)}, got {output}.")
    if not Path(output).absolute().parent.is_dir():
        raise FileNotFoundError(f"--output: expected a folder that exists, got {Path(output).parent}.")
    if os.path.exists(output) and os.path.exists(source) and os.path.samefile(output, source):
        raise ValueError(f"--output: expected another file than the source, got {output}, which holds the rows. Rename one.")


def lines_of(results: Sequence[Any]) -> list[dict[str, Any]]:
    """One dictionary per line of the table.

    Args:
        results: What a pipeline returns, in the order of the rows; `None` for those left out.

    Returns:
        `list[dict]`: `row`, for nodes and particles `node`, and what the pipeline tells.
    """
    lines = [{"row": row, **_flat(line)} for row, result in enumerate(results) for line in _lines_of_row(result or ())]
    columns = dict.fromkeys(key for line in lines for key in line)  # a note stands in some of them
    return [{key: line.get(key) for key in columns} for line in lines]


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """A line with a column for each end of its interval."""
    if "confidence_interval" not in line:
        return line
    low, high = line["confidence_interval"]
    rest = {key: value for key, value in line.items() if key not in ("confidence_interval", "note")}
    notes = {key: value for key, value in line.items() if key == "note"}
    return {**rest, "low": low, "high": high, **notes}


def _lines_of_row(result: Any) -> Iterator[dict[str, Any]]:
    if isinstance(result, dict):  # of particles
        errors = result["standard_error"] or [None] * len(result["positions"])
        for node, (position, error) in enumerate(zip(result["positions"], errors, strict=True)):
            places = {f"x{axis}": value for axis, value in enumerate(position)}
            bars = {f"standard_error_{axis}": value for axis, value in enumerate(error or [None] * len(position))}
            for name, end in zip(("low", "high"), result.get("confidence_interval", ()), strict=False):
                bars |= {f"{name}_{axis}": value for axis, value in enumerate(end[node])}
            yield {"node": node, **places, **bars, **({"note": result["note"]} if "note" in result else {})}
        return
    for number, part in enumerate(result):
        if isinstance(part, list):  # the labels of a node
            yield from ({"node": number, **label} for label in part)
        else:
            yield part


def table_of(results: Sequence[Any]) -> str:
    """The table in columns, for people."""
    lines = lines_of(results)
    if not lines:
        return ""
    cells = [tuple(lines[0]), *(tuple(map(_shown, line.values())) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def write_results(results: Sequence[Any], file: Path) -> None:
    """Write results in one piece: a .csv table, or .jsonl with the results as they are, one row per line.

    Args:
        results: What a pipeline returns; `None` for rows left out, which is `null` in .jsonl.
        file: Where to; its ending chooses the format.
    """
    if file.suffix == ".jsonl":
        text = "".join(json_text(result, indent=None) + "\n" for result in results)
    else:
        lines, buffer = lines_of(results), io.StringIO()
        writer = csv.DictWriter(buffer, list(lines[0]) if lines else ["row"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        text = buffer.getvalue()
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)  # of a full disk
