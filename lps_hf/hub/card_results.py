"""What a results file says of a model, as the tables and the `model-index` of its card."""

import math
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult

from lps_hf.evaluation.metrics import LOWER_IS_BETTER
from lps_hf.models.configuration_lps import LPSConfig

from .card_facts import is_random

METRIC_NAMES = {
    "average_precision": "average precision",
    "balanced_accuracy": "class-balanced accuracy",
    "mae": "mean absolute error",
    "mrr": "mean reciprocal rank",
    "mse": "mean squared error",
    "rmse": "root mean squared error",
    "roc_auc": "area under the ROC curve",
}
EQUIVARIANCE = "relative equivariance error"
# Tasks whose rows are answered one by one and right or wrong.
_CLASSIFIES_ROWS = ("graph-classification", "point-cloud-classification", "image-classification")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TRAINING_NAMES = {
    "learning_rate": "learning rate",
    "backbone_learning_rate": "learning rate of the backbone",
    "weight_decay": "weight decay",
    "lr_scheduler_type": "schedule",
    "warmup_steps": "warm-up steps",
    "num_train_epochs": "epochs",
    "train_batch_size": "batch size",
    "num_processes": "processes",
    "pad_to_power_of": "lengths rounded up to powers of",
}
_ENVIRONMENT_NAMES = {"python": "Python", "torch": "PyTorch", "cpu_capability": "vector unit", "num_threads": "threads"}


def is_hub_id(name: Any) -> bool:
    """Whether a name looks like the id of a repository, `user/name`, and not like a folder or a description."""
    return isinstance(name, str) and _HUB_ID.fullmatch(name) is not None


def number(value: Any, error: Any = None) -> str:
    """A figure to read: three significant digits, or as many decimals as its error tells apart, with the error behind it."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    if value == 0 and error is None:
        return "0"
    if not is_figure(error) or error <= 1e-12 * abs(value):  # of equal values, but for rounding
        return _plain(value, _decimals(value, 3))
    # Two digits of the error, but no fourth decimal for the second of them.
    decimals = min(_decimals(error, 2), max(3, _decimals(error, 1)))
    return f"{_plain(value, decimals)} ± {_plain(error, decimals)}"


def is_figure(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _decimals(value: float, digits: int) -> int:
    return digits - 1 - math.floor(math.log10(abs(value))) if value else digits


def _plain(value: float, decimals: int) -> str:
    if decimals > 7 or (value and abs(value) < 1e-4):
        return f"{value:.2g}"
    return f"{value:.{max(decimals, 0)}f}"


def metric_name(key: str) -> str:
    """A metric's name in words."""
    return METRIC_NAMES.get(key, key.replace("_at_", "@").replace("_", " "))


def metric_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table of test metrics, the headline first, with those of the baseline and a random backbone where they are known."""
    test, baseline = results.get("test") or {}, results.get("baseline") or {}
    # Over the draws for the rows of the report: more rows than those vary less.
    deviations = (results.get("test_deviation") or {}) if deviates_on_all_rows(results) else {}
    scratch = (results.get("scratch") or {}).get("test") or {}
    keys = sorted((key for key in test if key != "loss" and is_figure(test[key])), key=lambda key: key != results.get("metric"))
    return [
        {
            "name": metric_name(key),
            "better": "↓" if key in LOWER_IS_BETTER else "↑",
            "model": number(test[key], deviations.get(key)),
            "baseline": number(baseline[key]) if is_figure(baseline.get(key)) else "",
            "scratch": number(scratch[key]) if is_figure(scratch.get(key)) else "",
        }
        for key in keys
        if key != "labels_without_both_classes"
    ]


def deviates_on_all_rows(results: Mapping[str, Any]) -> bool:
    """Whether deviations over draws were measured on all test rows."""
    return bool(results.get("test_deviation")) and results.get("samples_rows") == results.get("num_test")


def headline(results: Mapping[str, Any]) -> str:
    """The one figure of the summary and how far it may be trusted, or nothing."""
    key = results.get("metric")
    value = (results.get("test") or {}).get(key)
    if not is_figure(value):
        return ""
    name, spread = metric_name(str(key)), spread_of(results)
    if spread is None or spread["kind"] != "binomial":
        return f"{name} is {number(value)}"
    return f"{name} is {number(value, spread['error'])} (binomial standard error)"


def spread_of(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """How far the headline metric may be off, as far as the number of test rows tells.

    Args:
        results: As in `results.json`.

    Returns:
        `None` where nothing is known; or `kind` "binomial" with the standard error √(p(1 - p)/n) of an accuracy p on n rows; or
        `kind` "all right" or "all wrong", where that is zero and says nothing, with `bound`, 3/n: rates of mistakes (or of
        right answers) above it would have shown one with 95 % probability.
    """
    value: Any = (results.get("test") or {}).get("accuracy")
    count: Any = results.get("num_test")
    is_known = is_figure(value) and 0 <= value <= 1 and type(count) is int and count > 0
    if results.get("metric") != "accuracy" or results.get("task") not in _CLASSIFIES_ROWS or not is_known:
        return None
    if value in (0, 1):
        return {"kind": "all right" if value else "all wrong", "bound": 3 / count, "count": count}
    return {"kind": "binomial", "error": math.sqrt(value * (1 - value) / count), "count": count}


def sample_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """Metric and equivariance error for each number of samples."""
    return [
        {
            "num_samples": str(row["num_samples"]),
            "metric": number(row["metric"], row.get("metric_deviation")) if is_figure(row.get("metric")) else "",
            "error": number(row["equivariance_error"], row.get("equivariance_standard_error"))
            if is_figure(row.get("equivariance_error"))
            else "",
        }
        for row in results.get("samples") or []
    ]


def starts_above_backbone(results: Mapping[str, Any]) -> bool:
    """Whether the fewest samples have a larger equivariance error than the backbone, as draws differ for equal inputs too."""
    backbone = (results.get("equivariance") or {}).get("backbone_relative_error")
    errors = [row.get("equivariance_error") for row in results.get("samples") or []]
    return is_figure(backbone) and bool(errors) and is_figure(errors[0]) and errors[0] > backbone


def equivariance_facts(results: Mapping[str, Any]) -> dict[str, str]:
    """The equivariance errors that were measured, to read; a missing one is an empty text."""
    facts = results.get("equivariance") or {}
    names = (
        ("model", "relative_error", "standard_error"),
        ("backbone", "backbone_relative_error", "backbone_standard_error"),
        ("coupled", "coupled_relative_error", None),
    )
    return {name: number(facts[key], facts.get(error)) if is_figure(facts.get(key)) else "" for name, key, error in names}


def training_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Hyper-parameters and budget of the training."""
    training = dict(results.get("training") or {})
    if training.get("num_processes") == 1:
        del training["num_processes"]
    rows = [(name, _setting(training[key])) for key, name in _TRAINING_NAMES.items() if training.get(key) is not None]
    if isinstance(training.get("warmup_steps"), float) and training["warmup_steps"] < 1:
        rows = [(f"{name}, as a share" if name == _TRAINING_NAMES["warmup_steps"] else name, value) for name, value in rows]
    others = [key for key in training if key not in _TRAINING_NAMES and training[key] is not None]
    rows += [(key.replace("_", " "), _setting(training[key])) for key in others]
    budget = (("num_train", "training rows"), ("steps", "optimizer steps"), ("seed", "seed"))
    rows += [(name, str(results[key])) for key, name in budget if results.get(key) is not None]
    losses = (results.get("train_loss_first"), results.get("train_loss_last"))
    if all(map(is_figure, losses)):
        rows.append(("training loss, first and last logged", " → ".join(map(number, losses))))
    return rows


def environment_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Versions and device."""
    environment = results.get("environment") or {}
    return [(_ENVIRONMENT_NAMES.get(key, key), str(value)) for key, value in environment.items() if value]


def eval_results(
    results: Mapping[str, Any], config: LPSConfig, task_type: str, task_name: str, dataset_id: str | None = None
) -> list[EvalResult]:
    """The entries of `model-index`: test metrics, and metric and equivariance error for each number of samples.

    Args:
        results: As in `results.json`.
        config: The model's configuration.
        task_type: The Hub's name of the task.
        task_name: Ours.
        dataset_id: Hub id of the data.

    Returns:
        Nothing where it is not known which data set the figures are of.
    """
    dataset = results.get("dataset") or {}
    name = dataset_id or dataset.get("name")
    if not name:
        return []
    shared: dict[str, Any] = {
        "task_type": task_type,
        "task_name": task_name,
        "dataset_name": name,
        "dataset_type": dataset_id or re.sub(r"[^\w.-]+", "-", name).strip("-"),
        "dataset_config": dataset.get("config_name"),
        "dataset_split": dataset.get("split"),
        "dataset_revision": dataset.get("revision"),
    }
    count = results.get("num_eval_samples")
    main = {"num_samples": count} if is_random(config) and count is not None else None
    test = results.get("test") or {}
    entries = [(key, metric_name(key), test[key], main) for key in test if key != "loss" and is_figure(test[key])]
    equivariance = results.get("equivariance") or {}
    if is_figure(equivariance.get("relative_error")):
        measured = equivariance.get("num_samples")
        arguments = {"num_samples": measured} if is_random(config) and measured is not None else None
        entries.append(("equivariance_error", EQUIVARIANCE, equivariance["relative_error"], arguments))
    # A report that was cut short tells the metric of a few rows, which is no figure to rank models by.
    metric = results.get("metric") if results.get("report_time_share") is None else None
    for row in (results.get("samples") or []) if is_random(config) else []:
        many = {"num_samples": row["num_samples"]}
        samples = f", {row['num_samples']} sample" + "s" * (row["num_samples"] != 1)
        if metric and is_figure(row.get("metric")):
            rows = {"num_rows": results["samples_rows"]} if results.get("samples_rows") else {}
            entries.append((metric, metric_name(metric) + samples, row["metric"], {**many, **rows}))
        if is_figure(row.get("equivariance_error")) and row["num_samples"] != equivariance.get("num_samples"):
            entries.append(("equivariance_error", EQUIVARIANCE + samples, row["equivariance_error"], many))
    return [
        EvalResult(metric_type=key, metric_name=name, metric_value=_rounded(value), metric_args=arguments, **shared)
        for key, name, value, arguments in entries
    ]


def _setting(value: Any) -> str:
    """What somebody has set is told as it was set."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(value: float) -> float:
    """Six significant digits: no header line is longer for digits that nobody reads."""
    return value if isinstance(value, int) else float(f"{value:.6g}")
