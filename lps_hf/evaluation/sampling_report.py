"""How the headline metric and the equivariance error of a model depend on the number of samples."""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.models.configuration_lps import LPSConfig, check_num_samples
from lps_hf.models.error_bars import FEWEST
from lps_hf.models.evaluation_mode import evaluation_mode
from lps_hf.models.groups import get_group
from lps_hf.models.modeling_heads_lps import LPSTaskModel
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.models.symmetrization import mask_nodes
from lps_hf.random_state import unchanged_random_state
from lps_hf.testing import act_on_batch, equivariance_error, output_axes

from .error_bars import draws_of, prior_of
from .metrics import compute_metrics_for, metric_of
from .prediction import Joined, check_task_of, cropped, on_device, padded, row_sizes
from .sampling_error import outputs_of_draws

# The rows of a batch, and those of the first batch whose group elements are drawn: 32 rows, each moved by elements of its own.
ROWS_PER_BATCH = 32
# Rows times draws of one pass; more would leave the caches of a CPU.
CPU_ROWS_PER_PASS, ROWS_PER_PASS = 32, 512
BACKBONE_ELEMENTS, COUPLED_ELEMENTS, COUPLED_SAMPLES, COUPLED_ROWS = 16, 4, 2, 8
# Estimates of one metric at one number of samples; more would cost more than they tell.
MAX_METRIC_ESTIMATES = 16


@dataclass
class _Draws:
    """All single draws of one batch: what estimates are means of."""

    logits: list[Tensor]
    """For each set of draws, (draws, rows, *axes) float64."""
    moved: list[tuple[Any, Tensor]]
    """For each set, where it is measured: a group element h for each row, and the draws for h·x."""
    batch: dict[str, Tensor]
    rows: list[Mapping[str, Any]]


def sample_counts(config: LPSConfig, max_samples: int = 32) -> list[int]:
    """The numbers of samples of a report: 1, 2, 4, … and that of the configuration.

    Args:
        config: The model's configuration. Distributions `"exact"` and `"none"` have a single number of their own, told as 1.
        max_samples: The largest, unless the configuration's is larger.

    Returns:
        `list[int]`: In order, those only that the sampler can draw.
    """
    if config.distribution in ("exact", "none"):
        return [1]
    own = config.num_eval_samples if isinstance(config.num_eval_samples, int) else 1
    largest = max(own, max_samples)
    counts = {own, *(2**power for power in range(largest.bit_length()))}
    size = get_group(config.group).sampler_group_size(config.sampler, config.sampler_group_size)
    return sorted(count for count in counts if count <= size or count % size == 0)


@unchanged_random_state()
def sampling_report(
    model: LPSTaskModel,
    processor: LPSProcessor,
    rows: Iterable[Mapping[str, Any]],
    task: str,
    *,
    num_rows: int = 64,
    num_draws: int = 4,
    max_samples: int = 32,
    counts: Sequence[int] | None = None,
    backbone_elements: int = BACKBONE_ELEMENTS,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure metric and equivariance error against the number of samples.

    For every row `num_draws` independent sets of K draws are made, K being the largest number of samples, and as many for the
    row moved by a random h. An estimate with k samples is the mean of k draws; a set has ⌊K/k⌋ of them that share no draw. So
    all numbers of samples cost as much as the largest one alone, the estimates of one k are independent, and those of
    different k are not. Error bars are over draws and group elements, for these rows.

    Args:
        model: A head; it is measured in evaluation mode, on the device that it is on.
        processor: Its processor.
        rows: Rows of the test split; without labels, or a `problem_type` that says what they are, there is no metric.
        task: A key of `lps_hf.data.rows.TASK_COLUMNS`; see `task_of`.
        num_rows: The first so many rows are measured, and the equivariance error on the first 32 of them.
        num_draws: Independent sets of draws, and group elements of each row.
        max_samples: See `sample_counts`.
        counts: The numbers of samples, if not those of `sample_counts`.
        backbone_elements: Group elements for the error of the plain backbone, and a quarter as many for that with coupled noise.
        seed: Seed of draws and group elements. The same seed on the same machine gives the same report.
        progress: Show a progress bar on stderr.

    Returns:
        `dict`:

        - `equivariance`: `relative_error` and its `standard_error` at `num_samples`, the configuration's number (the largest
          one for `"auto"`); `backbone_relative_error` and `backbone_standard_error` of the backbone on the stored order;
          `coupled_relative_error`, with noise that moves along, in double precision; `num_rows`, `num_group_elements` of each
          row, `num_backbone_elements`, `seed`. The definition is that of `lps_hf.testing.equivariance_error`.
        - `samples`: for each number of samples `num_samples`, `metric` and `metric_deviation` (mean and standard deviation of
          the headline metric over `num_estimates` estimates), `equivariance_error`, `equivariance_standard_error`.
        - `samples_rows`, `samples_draws`: the numbers of rows and of sets.
        - `variance_prior`: what error bars of few draws may be shrunk towards, from the same draws; see `calibrate_error_bars`.
          Only where there are enough of them, and they differ.
        - `test_deviation`: the standard deviation over draws of every metric on these rows, at the configuration's number.

    Raises:
        ValueError: If an argument is out of range, the task is not the model's, or there is no row.
        TypeError: If an argument has the wrong type.
    """
    check_task_of(task, model)
    numbers = {"num_rows": num_rows, "num_draws": num_draws, "max_samples": max_samples, "backbone_elements": backbone_elements}
    for name, value in numbers.items():
        check_num_samples(name, value)
    if num_draws < 2:
        raise ValueError(f"num_draws: expected at least 2, or there would be no error bar, got {num_draws}.")
    counts = sample_counts(model.config, max_samples) if counts is None else sorted(counts)
    num_rows = min(num_rows, len(rows)) if isinstance(rows, Sized) else num_rows
    # The sets of draws, those of moved rows, and the two errors of reference.
    total = num_draws * (1 - (-num_rows // ROWS_PER_BATCH)) + 2
    bar = tqdm(total=total, desc="Measuring samples", unit="set", disable=not progress)
    with evaluation_mode(model), closing(bar):
        draws = list(_draw(model, processor, rows, num_rows, num_draws, counts[-1], seed, bar))
        if not draws:
            raise ValueError("rows: expected at least one row, got none.")
        errors = {count: _equivariance(model, draws[0], count) for count in counts}
        metrics = {count: _metrics(model, task, draws, count, num_draws) for count in counts}
        headline = _headline(model.config, counts)
        equivariance = {
            "num_rows": len(draws[0].rows),
            "num_group_elements": num_draws,
            "num_samples": headline,
            "num_backbone_elements": backbone_elements,
            "seed": seed,
            **dict(zip(("relative_error", "standard_error"), errors[headline], strict=True)),
            **_reference_errors(model, draws[0].batch, seed, backbone_elements, bar),
        }
    name = metric_of(task, model.config.problem_type) if metrics[headline] else ""
    points = []
    for count in counts:
        point: dict[str, Any] = {"num_samples": count}
        if metrics[count]:
            point["num_estimates"] = len(metrics[count])
            point["metric"], point["metric_deviation"] = _mean_and_deviation([one[name] for one in metrics[count]])
        point["equivariance_error"], point["equivariance_standard_error"] = errors[count]
        points.append(point)
    report = {
        "equivariance": equivariance,
        "samples": points,
        "samples_rows": sum(len(part.rows) for part in draws),
        "samples_draws": num_draws,
    }
    blocks = counts[-1] * num_draws // model.lps.distribution.sampler_group_size
    if model.config.distribution not in ("exact", "none") and blocks >= 4 * FEWEST:
        entries = [draws_of(model, part.batch, torch.cat(part.logits).transpose(0, 1)) for part in draws]
        report["variance_prior"] = prior_of(model, torch.cat(entries, dim=1)).to_dict()
    if metrics[headline]:
        # "auto" draws at least so many: fewer have a larger error bar.
        auto = [count for count in counts if count <= model.config.min_eval_samples]
        chosen = metrics[auto[-1] if model.config.num_eval_samples == "auto" else headline]
        report["test_deviation"] = {key: _mean_and_deviation([one[key] for one in chosen])[1] for key in chosen[0]}
    return report


def _headline(config: LPSConfig, counts: Sequence[int]) -> int:
    own = config.num_eval_samples
    return own if isinstance(own, int) and own in counts else counts[-1]


def _draw(
    model: LPSTaskModel,
    processor: LPSProcessor,
    rows: Iterable[Mapping[str, Any]],
    num_rows: int,
    num_draws: int,
    num_samples: int,
    seed: int,
    bar: tqdm,
) -> Iterator[_Draws]:
    generator = torch.Generator(model.device).manual_seed(seed)
    collator = DataCollatorForGraphs(processor)
    group, iterator = model.lps.group, islice(iter(rows), num_rows)
    rows_per_pass = CPU_ROWS_PER_PASS if model.device.type == "cpu" else ROWS_PER_PASS
    for number, chunk in enumerate(iter(lambda: list(islice(iterator, ROWS_PER_BATCH)), [])):
        batch = on_device(collator(chunk), model.device)
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        encoded = model.lps.encode(**{key: value for key, value in inputs.items() if key != "pair_index"})
        part = _Draws([], [], batch, chunk)
        for _ in range(num_draws):
            noise = model.lps.draw_noise(encoded, num_samples, generator)
            part.logits.append(outputs_of_draws(model, inputs, noise, rows_per_pass))
            bar.update()
            if number == 0:
                element = group.haar(encoded.node_mask, 1, generator)
                noise = model.lps.draw_noise(encoded, num_samples, generator)
                moved = outputs_of_draws(model, act_on_batch(group, element, inputs), noise, rows_per_pass)
                part.moved.append((element, moved))
                bar.update()
        yield part


def _estimates(draws: Tensor, num_samples: int, group_size: int) -> Tensor:
    """Means of `num_samples` draws that share none, (estimates, rows, *axes); of a group of dependent draws only one."""
    block = max(num_samples, group_size)
    whole = draws[: len(draws) // block * block] if len(draws) >= block else draws
    return whole.unflatten(0, (-1, min(block, len(whole))))[:, :num_samples].mean(dim=1)


def _equivariance(model: LPSTaskModel, draws: _Draws, num_samples: int) -> tuple[float | None, float | None]:
    """Relative equivariance error of estimates, and its standard error over draws and group elements."""
    group, axes = model.lps.group, output_axes(model, draws.batch)
    inputs = {key: value for key, value in draws.batch.items() if key not in ("labels", "pair_index")}
    node_mask = model.lps.encode(**inputs).node_mask
    size = model.lps.distribution.sampler_group_size
    squares, scales = [], []
    for logits, (element, moved) in zip(draws.logits, draws.moved, strict=True):
        here, there = (_estimates(part, num_samples, size).transpose(0, 1) for part in (logits, moved))
        everywhere = element.map(lambda tensor, count=here.shape[1]: tensor.expand(-1, count, *tensor.shape[2:]))
        expected = mask_nodes(group.act(everywhere, here, axes), axes, node_mask, leading=2)
        squares.append((there - expected).square().flatten(1).mean(dim=1))
        scales.append(here.square().flatten(1).mean(dim=1))
    square, scale = torch.stack(squares), torch.stack(scales).mean().item()
    total = square.mean().item()
    if not (math.isfinite(total) and scale > 0):
        return None, None
    error = (total / scale) ** 0.5
    # The elements of one row are independent given the row; the delta method as in `equivariance_error`.
    variance = (square.var(dim=0) / len(square)).sum().item() / square.shape[1] ** 2
    return error, error * variance**0.5 / (2 * total) if total > 0 else 0.0


def _metrics(model: LPSTaskModel, task: str, draws: list[_Draws], num_samples: int, num_draws: int) -> list[dict[str, float]]:
    """The metrics of each estimate on all rows; none where a row has no label, or it is not known of what kind."""
    is_unknown = task == "graph-classification" and model.config.problem_type is None
    if is_unknown or not all("labels" in part.batch for part in draws):
        return []
    compute_metrics = compute_metrics_for(task, model.config.problem_type, model.config.num_labels)
    size = model.lps.distribution.sampler_group_size
    sizes = [row_sizes(model.config, part.rows, part.batch) for part in draws]
    labels = padded([row for part, own in zip(draws, sizes, strict=True) for row in cropped(part.batch["labels"], own)])
    most = max(1, MAX_METRIC_ESTIMATES // num_draws)
    found = []
    for number in range(num_draws):
        for estimate in zip(*(_estimates(part.logits[number], num_samples, size)[:most] for part in draws), strict=True):
            logits = [row for batch, own in zip(estimate, sizes, strict=True) for row in cropped(batch, own)]
            found.append(compute_metrics(Joined(padded(logits), labels)))
    return found


def _reference_errors(
    model: LPSTaskModel, batch: dict[str, Tensor], seed: int, num_elements: int, bar: tqdm
) -> dict[str, float | None]:
    """What the error is without symmetrization, and what is left of it when the noise moves along."""
    generator = torch.Generator(model.device).manual_seed(seed)
    backbone = equivariance_error(model, batch, num_elements, symmetrized=False, generator=generator)
    bar.update()
    found = {
        "backbone_relative_error": _finite(backbone.relative_error),
        "backbone_standard_error": _finite(backbone.relative_standard_error),
    }
    if model.config.distribution != "none":  # where nothing is symmetrized, and no noise decides
        found["coupled_relative_error"] = coupled_error(model, batch, seed, coupled_elements(num_elements))
    bar.update()
    return found


def coupled_elements(backbone_elements: int) -> int:
    """How many group elements the error with coupled noise is measured with."""
    return max(1, COUPLED_ELEMENTS * backbone_elements // BACKBONE_ELEMENTS)


def coupled_error(
    model: LPSTaskModel, batch: Mapping[str, Tensor], seed: int = 0, num_elements: int = COUPLED_ELEMENTS
) -> float | None:
    """What is left of the relative equivariance error when the noise moves along, q(h·x, h·ε) = h·q(x, ε), in double precision.

    Args:
        model: A head; a copy is measured.
        batch: A batch of the processor; its first 8 rows are measured.
        seed: Of group elements and noise.
        num_elements: Group elements.

    Returns:
        The error; `None` where the output is zero.
    """
    device = torch.device("cpu") if model.device.type == "mps" else model.device  # which has no double precision
    double: Any = copy.deepcopy(model)
    double = double.to(device).double()
    few = {key: value[:COUPLED_ROWS].to(device) for key, value in batch.items()}
    few = {key: value.double() if value.is_floating_point() else value for key, value in few.items()}
    generator = torch.Generator(device).manual_seed(seed)
    coupled = equivariance_error(double, few, num_elements, COUPLED_SAMPLES, coupled=True, generator=generator)
    return _finite(coupled.relative_error)


def _mean_and_deviation(values: list[float]) -> tuple[float | None, float | None]:
    return _finite(np.mean(values)), _finite(np.std(values, ddof=1)) if len(values) > 1 else None


def _finite(value: Any) -> float | None:
    """JSON has no NaN."""
    return float(value) if math.isfinite(value) else None
