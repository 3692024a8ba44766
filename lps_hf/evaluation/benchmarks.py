"""Measuring on machines that others use too: runs in turn, medians with their spread, parts of a run, memory held at once."""

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from tqdm.auto import tqdm

FEWEST_ROUNDS, MOST_ROUNDS = 3, 50
Result = TypeVar("Result")


class Elapsed(NamedTuple):
    """How long a run took."""

    wall: float
    """Seconds on the clock."""
    processor: float
    """Processor seconds of this process: what others do on the machine disturbs them less."""


class Part(NamedTuple):
    """A module whose forward pass is a part of a run."""

    module: nn.Module
    name: str
    """The part that begins when the module is called."""
    then: str
    """The part that begins when it returns."""


def interleave(
    measures: Mapping[str, Callable[[], Result]],
    rounds: int | None = None,
    seconds: float = 60.0,
    description: str | None = None,
) -> dict[str, list[Result]]:
    """Measure several things in turn, in rounds, so that a slow minute of the machine falls on all of them.

    Every other round goes backwards (A B B A …): a machine that slows down steadily then favours none.

    Args:
        measures: What to measure, by name; each call is one measurement.
        rounds: Number of rounds. Default: as many as begin within `seconds`, but at least 3 and at most 50.
        seconds: See `rounds`.
        description: Of the progress bar; none is shown without it.

    Returns:
        For each name its measurements, one of each round.
    """
    results: dict[str, list[Result]] = {name: [] for name in measures}
    most = rounds or MOST_ROUNDS
    started = time.perf_counter()
    for number in tqdm(range(most), desc=description, disable=description is None, leave=False):
        if rounds is None and number >= FEWEST_ROUNDS and time.perf_counter() - started > seconds:
            break
        for name in list(measures)[:: -1 if number % 2 else 1]:
            results[name].append(measures[name]())
    return results


def elapsed(run: Callable[[], object], device: torch.device) -> Elapsed:
    """Time one run, on an accelerator until it has done everything.

    Args:
        run: What to time.
        device: Where it computes.

    Returns:
        `Elapsed`.
    """
    wall, processor = _now(device), time.process_time()
    run()
    return Elapsed(_now(device) - wall, time.process_time() - processor)


def part_seconds(run: Callable[[], object], parts: Sequence[Part], device: torch.device) -> dict[str, float]:
    """Split the time of a run among parts, by hooks on the modules where parts begin and end.

    There is one clock, which always runs for one part: calling a module switches it to the module's part, returning from it to
    the part that comes then. The backward pass goes through the same places in reverse: when the gradient of a module's output
    is there, the clock is switched to the part that ended at the output, with `_backward` behind its name, and when the
    gradient of its input is there, to the part before.

    Args:
        run: What to time.
        parts: In any order; the first to be called should begin with the run.
        device: Where it computes; an accelerator is waited for at every switch.

    Returns:
        Seconds by name of the part, of those that occurred; they sum up to the time of the run.
    """
    seconds: dict[str, float] = {}
    followed: list[Tensor] = []
    current, since = parts[0].name, _now(device)

    def switch(name: str) -> None:
        nonlocal current, since
        now = _now(device)
        seconds[current] = seconds.get(current, 0.0) + now - since
        current, since = name, now

    def follow_gradients(value: Any) -> None:
        name = f"{current}_backward"
        for tensor in _tensors(value):
            # A tensor that passes through several modules belongs to the part that made it.
            if tensor.requires_grad and not any(tensor is other for other in followed):
                followed.append(tensor)
                tensor.register_hook(lambda _: switch(name))

    def watch(part: Part) -> list[RemovableHandle]:
        def begin(_: nn.Module, args: Any, kwargs: Any) -> None:
            follow_gradients((args, kwargs))
            switch(part.name)

        def end(_: nn.Module, args: Any, outputs: Any) -> None:
            follow_gradients(outputs)
            switch(part.then)

        module = part.module
        return [module.register_forward_pre_hook(begin, with_kwargs=True), module.register_forward_hook(end)]

    handles = [handle for part in parts for handle in watch(part)]
    try:
        run()
        switch("")
    finally:
        for handle in handles:
            handle.remove()
    return seconds


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """Peak of the memory that tensors made during a run hold at once, in bytes.

    On the CPU every allocation and release of torch's allocator is recorded, so that the figure is exact and the same every
    time; scratch space inside BLAS libraries is not seen.

    Args:
        run: What to measure.
        device: Where it computes.

    Returns:
        Bytes beyond what was held before.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # The tracing library inside torch reports each start and stop on standard error unless it is told not to.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    recorded = profiler.profiler.kineto_results.events()
    changes = sorted((event for event in recorded if event.name() == "[memory]"), key=lambda event: event.start_ns())
    held = np.cumsum([event.nbytes() for event in changes], dtype=np.int64)
    return int(max(held, default=0))


def write_json(result: Any, where: str | None) -> None:
    """Write a result where a script's `--json` says.

    Args:
        result: What JSON can hold.
        where: A file, `"-"` for standard output, `None` for nowhere.
    """
    text = json.dumps(result, indent=2)
    if where == "-":
        print(text)
    elif where:
        Path(where).write_text(text + "\n", encoding="utf-8")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and range of measurements.

    Args:
        values: At least one.

    Returns:
        `median`, `quartiles` and `range`, the last two as lists of two.
    """
    low, high = np.quantile(values, [0.25, 0.75])
    return {
        "median": statistics.median(values),
        "quartiles": [float(low), float(high)],
        "range": [min(values), max(values)],
    }


def overhead(model: Sequence[Elapsed], backbone: Sequence[Elapsed]) -> dict[str, Any]:
    """The overhead ratio: the ratio of the medians, and the spread of the ratios within rounds.

    Args:
        model: Times of the symmetrized model.
        backbone: Times of the bare backbone in the same rounds.

    Returns:
        `overhead_ratio`, `overhead_ratio_quartiles`, `overhead_ratio_range`, and to cross-check on a restless machine
        `overhead_ratio_of_fastest`, the ratio of the fastest runs, and `overhead_ratio_of_processor_time`.
    """
    within_rounds = spread([one.wall / other.wall for one, other in zip(model, backbone, strict=True)])

    def ratio(summary: Callable[[Iterable[float]], float], clock: str) -> float:
        one, other = (summary(getattr(run, clock) for run in runs) for runs in (model, backbone))
        return one / other

    return {
        "overhead_ratio": ratio(statistics.median, "wall"),
        "overhead_ratio_quartiles": within_rounds["quartiles"],
        "overhead_ratio_range": within_rounds["range"],
        "overhead_ratio_of_fastest": ratio(min, "wall"),
        "overhead_ratio_of_processor_time": ratio(statistics.median, "processor"),
    }


def breakdown(parts: Sequence[Mapping[str, float]], total: float) -> dict[str, float]:
    """The share of each part in a cost.

    Shares come from runs of their own, in other minutes of the machine and a little slowed down by hooks: so they are scaled to
    the cost that was measured without hooks.

    Args:
        parts: Seconds by part, as `part_seconds` returns them, of several runs.
        total: What the parts sum up to, such as an overhead ratio.

    Returns:
        The share of each part, from the medians over runs.
    """
    names = dict.fromkeys(name for run in parts for name in run)
    medians = {name: statistics.median(run.get(name, 0.0) for run in parts) for name in names}
    whole = sum(medians.values())
    return {name: total * value / whole for name, value in medians.items()}


def power_law(sizes: Sequence[float], costs: Sequence[float]) -> dict[str, Any]:
    """Fit cost = factor · size ** exponent to the upper half of the range of sizes, where fixed costs no longer dominate.

    Args:
        sizes: At least two, ascending, positive.
        costs: One for each, positive.

    Returns:
        `exponent` and `factor` of the least-squares line through the logarithms, `fitted_from`, the smallest size in the upper
        half of the logarithmic range, and `local_exponents` between neighbours.

    Raises:
        ValueError: If there are fewer than two sizes, or they do not ascend.
    """
    if len(sizes) < 2 or len(costs) != len(sizes) or min(*sizes, *costs) <= 0 or (np.diff(sizes) <= 0).any():
        raise ValueError(
            f"sizes, costs: expected at least two positive ascending sizes and a positive cost for each, got {list(sizes)} and "
            f"{list(costs)}."
        )
    x, y = np.log(sizes), np.log(costs)
    upper = x >= (x[0] + x[-1]) / 2 - 1e-9
    upper[-2:] = True  # a line needs two points
    exponent, constant = np.polyfit(x[upper], y[upper], 1)
    return {
        "exponent": float(exponent),
        "factor": float(np.exp(constant)),
        "fitted_from": float(np.asarray(sizes, dtype=float)[upper][0]),
        "local_exponents": (np.diff(y) / np.diff(x)).tolist(),
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, dictionaries and data classes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _tensors([getattr(value, field.name) for field in dataclasses.fields(value)])
