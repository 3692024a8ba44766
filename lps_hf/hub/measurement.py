"""What `verify` measures, in a process of its own that runs `main`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HTTPError
from transformers import AutoProcessor
from transformers.utils import logging

from lps_hf.data.random_rows import random_rows
from lps_hf.data.recorded_rows import recorded_rows
from lps_hf.data.rows import TASK_COLUMNS
from lps_hf.evaluation.environment import environment
from lps_hf.evaluation.prediction import evaluate, task_of
from lps_hf.evaluation.sampling_report import BACKBONE_ELEMENTS, coupled_error, sampling_report
from lps_hf.models.modeling_heads_lps import LPSTaskModel

from .loading import load_by_auto_class

RANDOM_ROWS = 8
# Somebody else's file asks for no more than this; what it asks for decides how long a verification takes.
MOST_ROWS, MOST_SAMPLES = 10_000, 10_000


def measure(folder: str | Path, results: Mapping[str, Any], dataset: str | None = None, progress: bool = False) -> dict[str, Any]:
    """Measure a checkpoint again, as its results file says that it was.

    Args:
        folder: The checkpoint.
        results: What was recorded.
        dataset: Where the data set is now, if not where `results` say.
        progress: Show progress bars on stderr.

    Returns:
        `dict`: `environment`; `num_test`, `test` and the keys of `sampling_report`, where there are rows; or `problem`, why there
        are none, and `coupled_relative_error` on random ones.
    """
    model: Any = load_by_auto_class(folder)
    recorded_device = str((results.get("environment") or {}).get("device", "cpu"))
    if recorded_device.startswith("cuda") and torch.cuda.is_available():
        model.to("cuda")
    found: dict[str, Any] = {"environment": environment(model.device)}
    if not isinstance(model, LPSTaskModel):
        return {**found, "problem": "it has no head, and so no task"}
    task = results["task"] if results.get("task") in TASK_COLUMNS else task_of(model)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    rows, problem = _rows(task, results, dataset)
    if rows is None:
        found["problem"] = problem
        if model.config.distribution != "none":
            generated = processor(random_rows(model.config, RANDOM_ROWS), return_tensors="pt").to(model.device)
            found["coupled_relative_error"] = coupled_error(model, generated)
        return found
    found["num_test"] = len(rows)
    if results.get("test"):
        batch_size = _count("eval_batch_size", results.get("eval_batch_size") or 32, MOST_ROWS)
        options: Any = {"batch_size": batch_size, "seed": _seed(results), "progress": progress}
        found["test"] = evaluate(model, processor, rows, task, **options)
    if results.get("equivariance"):
        found |= sampling_report(model, processor, rows, task, **_report_options(results), progress=progress)
    return found


def _rows(task: str, results: Mapping[str, Any], dataset: str | None) -> tuple[Any, str]:
    """The recorded test rows, or why there are none."""
    facts = results.get("dataset") or {}
    if dataset is None and not facts:
        return None, "its results file names no data set"
    try:
        return recorded_rows(task, facts, dataset), ""
    except (OSError, ValueError, TypeError, KeyError, HTTPError) as error:
        if dataset is not None:
            raise
        return None, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _report_options(results: Mapping[str, Any]) -> dict[str, Any]:
    equivariance, counts = results["equivariance"], [point.get("num_samples") for point in results.get("samples") or []]
    elements = equivariance.get("num_backbone_elements", BACKBONE_ELEMENTS)
    return {
        "num_rows": _count("num_rows", results.get("samples_rows") or equivariance.get("num_rows"), MOST_ROWS),
        "num_draws": _count("num_draws", results.get("samples_draws") or equivariance.get("num_group_elements"), MOST_ROWS),
        "counts": [_count("num_samples", count, MOST_SAMPLES) for count in counts] or None,
        "max_samples": 1,
        "backbone_elements": _count("num_backbone_elements", elements, MOST_ROWS),
        "seed": _seed(equivariance),
    }


def _count(name: str, value: Any, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"results.json: expected 1 to {most} for {name}, got {value!r}.")
    return value


def _seed(facts: Mapping[str, Any]) -> int:
    seed = facts.get("seed") or 0
    if type(seed) is not int:
        raise ValueError(f"results.json: expected a whole number as seed, got {seed!r}.")
    return seed


def logits_of(folder: str | Path, inputs: Mapping[str, Any]) -> torch.Tensor:
    """What a checkpoint predicts without gradient, as evaluation does: in passes, whose means round in a way of their own."""
    with torch.no_grad():
        return load_by_auto_class(folder)(**inputs).logits


def main(arguments: list[str]) -> None:
    """Answer a request: a file of `torch.save` with `num_threads`, `folder`, and the arguments of `measure` or `logits_of`.

    What they refuse is an answer too: their message by the key `wrong_value` or `not_found`.

    Args:
        arguments: File of the request, file for the answer.
    """
    request = torch.load(arguments[0], weights_only=True)
    torch.set_num_threads(min(request.pop("num_threads"), os.cpu_count() or 1))
    logging.disable_progress_bar()
    answer: Any
    try:
        answer = (logits_of if "inputs" in request else measure)(**request)
    except ValueError as error:
        answer = {"wrong_value": str(error)}
    except OSError as error:
        answer = {"not_found": str(error)}
    torch.save(answer, arguments[1])
