"""Measuring: the order of runs, what a clock is switched by, what memory is counted, what is made of the numbers."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lps_hf.evaluation import benchmarks
from lps_hf.evaluation.benchmarks import (
    Elapsed,
    Part,
    breakdown,
    elapsed,
    interleave,
    overhead,
    part_seconds,
    peak_memory,
    power_law,
    spread,
)

CPU = torch.device("cpu")
MEBIBYTE = 2**20


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless somebody turns it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(benchmarks, "_now", lambda device: clock.now)
    return clock


def test_runs_take_turns_and_every_other_round_goes_backwards():
    calls = []
    measures = {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}
    results = interleave(measures, rounds=3)
    assert "".join(calls) == "abccbaabc"
    assert results == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


@pytest.mark.parametrize(("pace", "expected"), [(1.0, 11), (30.0, 3), (0.01, 50)])
def test_without_a_number_rounds_begin_until_time_is_up_within_limits(monkeypatch, pace, expected):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(benchmarks.time, "perf_counter", lambda: now.seconds)

    def measure():
        now.seconds += pace

    assert len(interleave({"one": measure}, seconds=10)["one"]) == expected


def test_elapsed_is_the_time_of_the_run_alone(clock):
    def run():
        clock.now += 2.5

    assert elapsed(run, CPU).wall == 2.5
    assert elapsed(lambda: math.factorial(40_000), CPU).processor > elapsed(lambda: None, CPU).processor


class _Work(torch.autograd.Function):
    """Turns the clock, forward and backward."""

    @staticmethod
    def forward(ctx, tensor, clock, seconds):
        clock.now += seconds
        ctx.clock, ctx.seconds = clock, seconds
        return tensor.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.clock.now += 10 * ctx.seconds
        return gradient, None, None


class _Worker(nn.Module):
    """Works, calls another module, works again; what it returns is wrapped as models wrap it."""

    def __init__(self, clock, seconds, inner=None):
        super().__init__()
        self.clock, self.seconds, self.inner = clock, seconds, inner

    def forward(self, fields):
        tensor = _Work.apply(fields["x"], self.clock, self.seconds)
        if self.inner is not None:
            tensor = self.inner({"x": tensor})["list"][0]
            tensor = _Work.apply(tensor, self.clock, 4.0)
        return {"list": [tensor], "nothing": None}


def test_each_part_gets_its_time_forward_and_backward(clock):
    inner = _Worker(clock, 2.0)
    outer = _Worker(clock, 1.0, inner)
    parts = [Part(outer, "first", "end"), Part(inner, "inner", "last")]
    x = torch.ones(3, requires_grad=True)

    def run():
        output = outer({"x": x})["list"][0]
        clock.now += 8
        output.sum().backward()

    seconds = part_seconds(run, parts, CPU)
    assert {name: value for name, value in seconds.items() if value} == {
        "first": 1, "inner": 2, "last": 4, "end": 8, "last_backward": 40, "inner_backward": 20, "first_backward": 10,
    }  # fmt: skip
    assert sum(seconds.values()) == clock.now - 100
    with torch.no_grad():
        assert part_seconds(lambda: outer({"x": x}), parts, CPU) == {"first": 1, "inner": 2, "last": 4, "end": 0}
    assert not outer._forward_hooks
    assert not inner._forward_pre_hooks


def test_a_part_that_is_called_several_times_is_summed_up(clock):
    inner = _Worker(clock, 2.0)
    parts = [Part(inner, "inner", "between")]

    def run():
        for _ in range(3):
            inner({"x": torch.ones(1)})
            clock.now += 0.5

    assert part_seconds(run, parts, CPU) == {"inner": 6, "between": 1.5}


def test_a_tensor_handed_through_belongs_to_the_part_that_made_it(clock):
    inner = _Worker(clock, 2.0)

    class Handing(nn.Module):
        def forward(self, x):
            return inner({"x": x})

    outer = Handing()
    x = torch.ones(3, requires_grad=True) * 1
    seconds = part_seconds(
        lambda: outer(x)["list"][0].sum().backward(), [Part(outer, "outer", "end"), Part(inner, "inner", "after")], CPU
    )
    assert (seconds["inner"], seconds["inner_backward"]) == (2, 20)
    assert sum(seconds.values()) == 22


def test_hooks_are_gone_after_a_run_that_fails(clock):
    module = nn.Linear(2, 2)
    with pytest.raises(RuntimeError):
        part_seconds(lambda: module(torch.ones(3)), [Part(module, "one", "two")], CPU)
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_memory_counts_what_is_alive_at_once():
    def one_after_another():
        for _ in range(3):
            torch.empty(MEBIBYTE, dtype=torch.uint8)

    def at_once():
        first = torch.empty(MEBIBYTE, dtype=torch.uint8)
        second = torch.empty(2 * MEBIBYTE, dtype=torch.uint8)
        del first
        third = torch.empty(MEBIBYTE // 2, dtype=torch.uint8)
        return second, third

    assert peak_memory(one_after_another, CPU) == MEBIBYTE
    assert peak_memory(at_once, CPU) == 3 * MEBIBYTE
    assert peak_memory(lambda: None, CPU) == 0


def test_memory_held_before_does_not_count_also_when_it_is_freed():
    held = [torch.empty(5 * MEBIBYTE, dtype=torch.uint8)]

    def run():
        first = torch.empty(MEBIBYTE, dtype=torch.uint8)
        held.clear()
        return first, torch.empty(MEBIBYTE, dtype=torch.uint8)

    assert peak_memory(run, CPU) == 2 * MEBIBYTE


def test_memory_sees_inside_operations_and_what_the_backward_pass_keeps():
    x = torch.ones(MEBIBYTE // 4, requires_grad=True)
    with torch.no_grad():
        assert peak_memory(lambda: x.exp().exp().exp(), CPU) == 2 * MEBIBYTE
    # Three saved results and the first gradient; the sum and its gradient are a number each.
    assert peak_memory(lambda: x.exp().exp().exp().sum().backward(), CPU) == 4 * MEBIBYTE + 8


def test_spread_and_overhead_are_of_medians_with_ratios_within_rounds():
    assert spread([4.0, 1.0, 2.0, 3.0, 10.0]) == {"median": 3, "quartiles": [2, 4], "range": [1, 10]}
    model = [Elapsed(2.0, 1.0), Elapsed(30.0, 3.0), Elapsed(3.0, 9.0)]
    backbone = [Elapsed(1.0, 1.0), Elapsed(20.0, 2.0), Elapsed(2.0, 4.0)]
    assert overhead(model, backbone) == {
        "overhead_ratio": 1.5,
        "overhead_ratio_quartiles": [1.5, 1.75],
        "overhead_ratio_range": [1.5, 2.0],
        "overhead_ratio_of_fastest": 2.0,
        "overhead_ratio_of_processor_time": 1.5,
    }


def test_a_breakdown_takes_medians_and_sums_up_to_the_cost():
    runs = [{"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 3.0, "rare": 1.0}, {"a": 50.0, "b": 3.0}]
    assert breakdown(runs, total=1.2) == pytest.approx({"a": 0.3, "b": 0.9, "rare": 0.0})


def test_the_exponent_is_that_of_the_upper_half_of_the_range():
    sizes = [10, 100, 1000, 10_000, 100_000]
    law = power_law(sizes, [2 * size**1.5 for size in sizes])
    assert (law["exponent"], law["factor"], law["fitted_from"]) == pytest.approx((1.5, 2.0, 1000))
    assert law["local_exponents"] == pytest.approx([1.5] * 4)

    with_fixed_cost = power_law(sizes, [1e4 + size**1.5 for size in sizes])
    assert with_fixed_cost["local_exponents"][0] < 0.1
    assert 1.4 < with_fixed_cost["exponent"] < 1.5
    # Two points are needed for a line, however the sizes are spread.
    assert power_law([1, 2, 1000], [1, 2, 4])["fitted_from"] == 2


@pytest.mark.parametrize(("sizes", "costs"), [([1], [1]), ([1, 2], [1]), ([2, 1], [1, 1]), ([1, 2], [0, 1]), ([], [])])
def test_no_exponent_without_ascending_sizes_and_positive_costs(sizes, costs):
    with pytest.raises(ValueError, match="at least two positive ascending sizes"):
        power_law(sizes, costs)
