"""How much of a sampling report fits into a time: rows, numbers of samples and draws are chosen before anything is measured."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, product
from typing import Any

import torch

from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.evaluation_mode import evaluation_mode
from lps_hf.models.modeling_heads_lps import LPSTaskModel
from lps_hf.models.processing_lps import LPSProcessor

from .prediction import on_device
from .sampling_error import outputs_of_draws
from .sampling_report import (
    BACKBONE_ELEMENTS,
    COUPLED_ROWS,
    COUPLED_SAMPLES,
    ROWS_PER_BATCH,
    coupled_elements,
    sample_counts,
)

# What is tried, the most telling first: parts of the rows, sets of draws, largest number of samples, elements for the backbone.
_STEPS = (
    *product((1,), (4,), (32,), (BACKBONE_ELEMENTS,)),
    *product((1 / 2,), (4,), (32, 16), (BACKBONE_ELEMENTS,)),
    *product((1 / 4,), (4, 2), (16, 8), (8,)),
    *product((1 / 8,), (2,), (8, 4), (4,)),
    *product((1 / 16,), (2,), (4, 2, 1), (4, 2)),
)
_FEWEST_ROWS = 2
# Passes in double precision take longer.
_COST_OF_DOUBLE = 3


@dataclass(frozen=True)
class ReportPlan:
    """What to measure."""

    num_rows: int
    num_draws: int
    counts: Sequence[int]
    """Numbers of samples."""
    backbone_elements: int

    def num_outputs(self) -> int:
        """About how many outputs of the model the report takes; both sides of an equivariance error are one each."""
        moved = min(self.num_rows, ROWS_PER_BATCH)
        drawn = (self.num_rows + moved) * self.num_draws * max(self.counts)
        coupled = coupled_elements(self.backbone_elements) * COUPLED_SAMPLES * min(moved, COUPLED_ROWS)
        return drawn + 2 * self.backbone_elements * moved + 2 * _COST_OF_DOUBLE * coupled

    def options(self) -> dict[str, Any]:
        """Arguments of `sampling_report`."""
        return asdict(self)


@torch.no_grad()
def seconds_per_output(model: LPSTaskModel, processor: LPSProcessor, rows: Iterable[Mapping[str, Any]]) -> float:
    """Measure what one output of a model for one draw takes, in a pass as large as a report makes them.

    Args:
        model: A head.
        processor: Its processor.
        rows: Rows of the test split.

    Returns:
        Wall-clock seconds.
    """
    num_rows, num_draws = (4, 2) if model.device.type == "cpu" else (32, 16)
    with evaluation_mode(model):
        batch = on_device(DataCollatorForGraphs(processor)(list(islice(iter(rows), num_rows))), model.device)
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        encoded = model.lps.encode(**{key: value for key, value in inputs.items() if key != "pair_index"})
        seconds = 0.0
        for draws in (1, num_draws):  # the first warms up
            start = time.perf_counter()
            noise = model.lps.draw_noise(encoded, draws, torch.Generator(model.device).manual_seed(0))
            outputs = outputs_of_draws(model, inputs, noise)
            outputs.sum().item()  # an accelerator has finished
            seconds = time.perf_counter() - start
        return seconds / (outputs.shape[0] * outputs.shape[1])


def plan_report(config: LPSConfig, num_rows: int, seconds_per_output: float = 0.0, seconds: float = math.inf) -> ReportPlan:
    """Choose the largest report that takes no longer than `seconds`; if even the smallest takes longer, that one.

    Args:
        config: The model's configuration.
        num_rows: The rows that there are to measure.
        seconds_per_output: What one output of the model for one draw takes.
        seconds: How long the report may take.

    Returns:
        `ReportPlan`.
    """
    counts = sample_counts(config)
    for share, num_draws, most, elements in _STEPS:
        rows = min(num_rows, max(_FEWEST_ROWS, int(num_rows * share)))
        # The first step is the whole report, and so has the configuration's own number, too.
        kept = counts if share == 1 else [count for count in counts if count <= most] or counts[:1]
        plan = ReportPlan(rows, num_draws, kept, elements)
        if plan.num_outputs() * seconds_per_output <= seconds:
            break
    return plan
