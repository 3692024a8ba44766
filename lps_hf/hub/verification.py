"""Checks of a checkpoint as somebody else will load it: by its Auto class, in a fresh process."""

import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lps_hf

from .fetching import fetch
from .results_files import read_results

# Not `-m`, which would import from the working folder first: that may be the checkpoint, with a torch.py of its own.
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from lps_hf.hub.measurement import main; main(sys.argv[2:])"
# A figure agrees if it differs by no more than so many standard errors of the difference.
STANDARD_ERRORS = 4
# What rounding may leave of an error that is zero in exact arithmetic, in double precision.
COUPLED_TOLERANCE = 1e-8
# Relative difference of figures that are the same but for the order in which numbers were added up.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Figure:
    """One figure, as recorded and as it is now."""

    what: str
    recorded: float
    now: float | None
    tolerance: float | None
    """Largest difference that still agrees; `None` where the results file tells no error bar, and only equality would."""

    @property
    def is_equal(self) -> bool:
        """Whether they are the same but for rounding."""
        if self.now is None:
            return False
        both_nan = math.isnan(self.now) and math.isnan(self.recorded)
        return both_nan or abs(self.now - self.recorded) <= ROUNDING * abs(self.recorded)

    @property
    def agrees(self) -> bool | None:
        """Whether they agree; `None` where that cannot be told."""
        if self.now is None:
            return None
        if self.is_equal:
            return True
        return None if self.tolerance is None else abs(self.now - self.recorded) <= self.tolerance


@dataclass(frozen=True)
class Verification:
    """What a checkpoint's results file says, and what comes out now. `str()` is a report to read."""

    name: str
    rows: list[Figure]
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether something could be compared, and nothing differs by more than its error bar."""
        found = [row.agrees for row in self.rows]
        return True in found and False not in found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [{**asdict(row), "agrees": row.agrees} for row in self.rows]
        return {"name": self.name, "ok": self.ok, "rows": rows, "notes": self.notes}

    def __str__(self) -> str:
        table: list[tuple[str, ...]] = [("figure", "recorded", "now", "allowed", "")]
        for row in self.rows:
            verdict = {True: "equal" if row.is_equal else "agrees", False: "DIFFERS", None: "not compared"}[row.agrees]
            table.append((row.what, *map(_shown, (row.recorded, row.now, row.tolerance)), verdict))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
        conclusion = "verified" if self.ok else "NOT verified"
        return "\n".join([f"{self.name}: {conclusion}", "", *lines, *([""] if self.notes else []), *self.notes])


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def verify(
    repo_id_or_folder: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    dataset: str | None = None,
    progress: bool = False,
) -> Verification:
    """Reload a checkpoint in a fresh process and measure again what its results file says.

    The equivariance errors are measured on the recorded test rows with the recorded seed, and so are the metrics. On the same
    kind of machine with the same versions the figures come out equal but for rounding. Otherwise a figure agrees if it differs
    by at most 4 standard errors of the difference, which the file tells and the new measurement too: those of an equivariance
    error over draws and group elements, of a metric over draws (and at least one row). Equivariance under noise that moves along
    is exact and must stay below 1e-8, unless it was recorded above, as for images whose pixels are interpolated.

    Where the test rows cannot be reached, the other figures are not comparable, as they depend on the rows: exactness is then
    measured on random rows that fit the model.

    Only classes of this package are loaded, never the code of the checkpoint.

    Args:
        repo_id_or_folder: Hub id, or a folder.
        revision: Branch, tag or commit.
        token: Hub token.
        dataset: Hub id or folder of the data set, if it is not where the results file says.
        progress: Show progress bars on stderr.

    Returns:
        `Verification`.

    Raises:
        ValueError: If there is no checkpoint of this package, `results.json` is damaged, or `dataset` does not fit.
        OSError: If the repository, a file of it or `dataset` cannot be found.
        RuntimeError: If the fresh process fails; the message holds what it printed.
    """
    folder = Path(repo_id_or_folder)
    if not folder.is_dir():
        folder = fetch(str(repo_id_or_folder), revision=revision, token=token)
    results = read_results(folder)
    threads = (results.get("environment") or {}).get("num_threads")
    request = {"folder": str(folder.absolute()), "results": results, "dataset": dataset, "progress": progress}
    now = _in_fresh_process(request, threads if type(threads) is int and threads > 0 else None, shown=progress)
    return compare(str(repo_id_or_folder), results, now)


def compare(name: str, results: Mapping[str, Any], now: Mapping[str, Any]) -> Verification:
    """Set recorded figures beside those of `measure`.

    Args:
        name: Name of the checkpoint.
        results: What `results.json` holds.
        now: What `lps_hf.hub.measurement.measure` returns.

    Returns:
        `Verification`.
    """
    rows = _test_rows(results, now) + _metric_rows(results, now) + _equivariance_rows(results, now)
    notes = []
    if "problem" in now:
        notes.append(f"The test rows were not reached: {now['problem']}")
        notes.append("Metrics and sampling errors depend on the rows, and were not measured.")
    counts = results.get("num_test"), now.get("num_test")
    if None not in counts and counts[0] != counts[1]:
        notes.append(f"These are other test rows: {counts[0]} were recorded, and there are {counts[1]}.")
    before, here = results.get("environment") or {}, now["environment"]
    changed = sorted(key for key in {*before, *here} if before and before.get(key) != here.get(key))
    unequal = [row.what for row in rows if row.now is not None and not row.is_equal]
    if changed:
        notes.append("Another environment: " + "; ".join(f"{key} {before.get(key)} → {here.get(key)}" for key in changed) + ".")
    elif unequal:
        notes.append(f"Same versions and kind of machine, and yet not equal: {', '.join(unequal)}.")
    precision = (results.get("training") or {}).get("precision", "fp32")
    if precision != "fp32" and unequal:
        notes.append(f"The metrics were recorded in {precision}, and measured in single precision now.")
    if any(row.agrees is None and row.now is not None for row in rows):
        notes.append("A figure that is not equal and has no recorded error bar is not compared.")
    return Verification(name, rows, notes)


def logits_in_fresh_process(folder: str | Path, inputs: Mapping[str, Any]) -> Tensor:
    """Load a checkpoint folder by its Auto class in a new Python process and run it without gradient.

    Args:
        folder: The checkpoint of any head.
        inputs: Arguments of the model's `forward`, tensors and dicts of tensors; with `noise` or `group_elements` the result is
            deterministic.

    Returns:
        `torch.Tensor`: The logits there.

    Raises:
        RuntimeError: If the process fails; the message holds what it printed.
    """
    # An absolute path is never taken for a Hub id.
    return _in_fresh_process({"folder": str(Path(folder).absolute()), "inputs": dict(inputs)})


def _in_fresh_process(request: dict[str, Any], num_threads: int | None = None, shown: bool = False) -> Any:
    """The answer of `lps_hf.hub.measurement`."""
    with tempfile.TemporaryDirectory(prefix="lps-hf-") as temporary:
        files = [str(Path(temporary) / name) for name in ("request.pt", "answer.pt")]
        # Another number of threads would round otherwise.
        torch.save({**request, "num_threads": num_threads or torch.get_num_threads()}, files[0])
        command = [sys.executable, "-P", "-c", _PROGRAM, str(Path(lps_hf.__file__).absolute().parents[1]), *files]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=None if shown else subprocess.PIPE, text=True)
        if done.returncode:
            said = f":\n{done.stderr}" if done.stderr else "; see above."
            raise RuntimeError(f"{request['folder']} could not be loaded in a fresh process{said}")
        answer = torch.load(files[1], weights_only=True)
    if isinstance(answer, dict) and "wrong_value" in answer:
        raise ValueError(answer["wrong_value"])
    if isinstance(answer, dict) and "not_found" in answer:
        raise OSError(answer["not_found"])
    return answer


def _test_rows(results: Mapping[str, Any], now: Mapping[str, Any]) -> list[Figure]:
    recorded, found = results.get("test") or {}, now.get("test") or {}
    deviations = results.get("test_deviation") or {}
    rows = []
    for name, value in recorded.items():
        if not _is_number(value):
            continue
        tolerance = None
        if _is_number(deviations.get(name)):
            # The deviation of draws is that of few rows: of all rows it is smaller.
            spread = math.hypot(deviations[name], (now.get("test_deviation") or {}).get(name) or 0.0)
            tolerance = max(STANDARD_ERRORS * spread, _one_row(value, results.get("num_test")))
        rows.append(Figure(f"test {name}", value, found.get(name), tolerance))
    return rows


def _metric_rows(results: Mapping[str, Any], now: Mapping[str, Any]) -> list[Figure]:
    """The headline metric at each number of samples, a mean over estimates."""
    rows, points = [], _points(now)
    for point in results.get("samples") or []:
        here: Mapping[str, Any] = points.get(point.get("num_samples"), {})
        value: Any = point.get("metric")
        if _is_number(value):
            spread = math.hypot(point.get("metric_deviation") or 0.0, here.get("metric_deviation") or 0.0)
            spread /= math.sqrt(point.get("num_estimates") or 1)
            tolerance = max(STANDARD_ERRORS * spread, _one_row(value, results.get("samples_rows")))
            what = f"{results.get('metric') or 'metric'}, {point.get('num_samples')} samples"
            rows.append(Figure(what, value, here.get("metric"), tolerance))
    return rows


def _one_row(value: float, num_rows: Any) -> float:
    """What a share changes by where one row flips, as it always may; nothing for other metrics."""
    return 1 / num_rows if 0 <= value <= 1 and _is_number(num_rows) and num_rows > 0 else 0.0


def _points(measured: Mapping[str, Any]) -> dict[Any, Mapping[str, Any]]:
    return {point.get("num_samples"): point for point in measured.get("samples") or []}


def _equivariance_rows(results: Mapping[str, Any], now: Mapping[str, Any]) -> list[Figure]:
    recorded, found = results.get("equivariance") or {}, now.get("equivariance") or {}
    rows, points = [], _points(now)
    for point in results.get("samples") or []:
        what = f"equivariance error, {point.get('num_samples')} samples"
        known = points.get(point.get("num_samples"), {})
        rows += _with_error_bar(what, "equivariance_error", "equivariance_standard_error", point, known)
    if recorded.get("relative_error") not in [row.recorded for row in rows]:  # else it is the headline that says it again
        what = f"equivariance error, {recorded.get('num_samples')} samples, as told"
        rows += _with_error_bar(what, "relative_error", "standard_error", recorded, found)
    names = ("backbone_relative_error", "backbone_standard_error")
    rows += _with_error_bar("equivariance error of the plain backbone", *names, recorded, found)
    exact: Any = recorded.get("coupled_relative_error")
    here = found.get("coupled_relative_error", now.get("coupled_relative_error"))
    if _is_number(exact) or _is_number(here):
        # Exactness needs no record to be checked.
        value = exact if _is_number(exact) else 0.0
        on = ", on random rows" if "problem" in now else ""
        rows.append(Figure(f"error under coupled noise, float64{on}", value, here, max(COUPLED_TOLERANCE, value / 2)))
    return rows


def _with_error_bar(what: str, key: str, error_key: str, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[Figure]:
    value: Any = recorded.get(key)
    if not _is_number(value):
        return []
    spread = math.hypot(recorded.get(error_key) or 0.0, now.get(error_key) or 0.0)
    return [Figure(what, value, now.get(key), STANDARD_ERRORS * spread)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
