"""Error bars that are honest from few draws on: the spread of draws, measured on rows and kept with a model."""

from collections.abc import Iterable, Mapping, Sized
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.models.configuration_lps import check_num_samples
from lps_hf.models.error_bars import VariancePrior, calibration_draws, fit_variance_prior
from lps_hf.models.evaluation_mode import evaluation_mode
from lps_hf.models.modeling_heads_lps import LPSForLinkPrediction, LPSTaskModel
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.models.representations import Representation
from lps_hf.models.symmetrization import entries_of
from lps_hf.random_state import unchanged_random_state
from lps_hf.testing import output_axes

from .prediction import on_device

ROWS_PER_BATCH = 16


@unchanged_random_state()
@torch.no_grad()
def calibrate_error_bars(
    model: LPSTaskModel,
    processor: LPSProcessor,
    rows: Iterable[Mapping[str, Any]],
    *,
    num_rows: int = 64,
    num_samples: int = 128,
    seed: int = 0,
    progress: bool = False,
) -> VariancePrior:
    """Measure how the draws of a model spread, and give it to its configuration, which keeps it with the checkpoint.

    Error bars of few draws are then shrunk towards what is typical of these rows, and 95 % intervals of 10 draws hold the mean of
    many in about 95 % of cases, also where one draw in many decides; see `lps_hf.models.error_bars`.

    Args:
        model: A head; its configuration gets a `variance_prior`.
        processor: Its processor.
        rows: Rows such as the model will see; labels are not looked at.
        num_rows: The first so many are used.
        num_samples: Draws of each, rounded to whole blocks of the sampler, of which at least 32 are drawn.
        seed: Of the draws.
        progress: Show a progress bar on stderr.

    Returns:
        `VariancePrior`.

    Raises:
        ValueError: If there is no row, or the distribution draws nothing.
        TypeError: If an argument has the wrong type.
    """
    for name, value in (("num_rows", num_rows), ("num_samples", num_samples)):
        check_num_samples(name, value)
    distribution = model.lps.distribution
    if distribution.kind in ("exact", "none"):
        raise ValueError(f"model: expected a distribution that draws, got {distribution.kind!r}, which has no error bar.")
    num_samples = calibration_draws(num_samples, distribution.sampler_group_size)
    generator = torch.Generator(model.device).manual_seed(seed)
    collator, iterator = DataCollatorForGraphs(processor), islice(iter(rows), num_rows)
    total = min(num_rows, len(rows)) if isinstance(rows, Sized) else num_rows
    entries = []
    bar = tqdm(total=total, desc="Calibrating error bars", unit="row", disable=not progress)
    with evaluation_mode(model), bar:
        for part in iter(lambda: list(islice(iterator, ROWS_PER_BATCH)), []):
            batch = on_device(collator(part), model.device)
            inputs = {key: value for key, value in batch.items() if key != "labels"}
            outputs = model(**inputs, num_samples=num_samples, generator=generator, output_samples=True)
            entries.append(draws_of(model, batch, outputs.samples))
            bar.update(len(part))
    if not entries:
        raise ValueError("rows: expected at least one row, got none.")
    prior = prior_of(model, torch.cat(entries, dim=1))
    model.config.variance_prior = prior.to_dict()
    return prior


def draws_of(model: LPSTaskModel, batch: Mapping[str, Tensor], samples: Tensor) -> Tensor:
    """Single draws of the logits, (rows, draws, *axes), as entries of channels, (draws, entries, channels), without padding."""
    axes = output_axes(model, batch)
    node_mask = batch.get("node_mask")
    if isinstance(model, LPSForLinkPrediction) and "pair_index" in batch:
        # A pair is an entry of one channel; those that fill a row up are copies of others.
        samples = samples.flatten(2).unsqueeze(-1)
        axes, node_mask = Representation(("n", 1)), None
    if node_mask is None:
        node_mask = torch.ones(len(samples), samples.shape[2], dtype=torch.bool, device=samples.device)
    return entries_of(samples, axes, node_mask).cpu()


def prior_of(model: LPSTaskModel, draws: Tensor) -> VariancePrior:
    """The prior of draws of logits, in the unit of the network's own output."""
    prior = fit_variance_prior(draws, model.lps.distribution.sampler_group_size)
    if model.config.label_std is None:
        return prior
    pairs = zip(prior.variance, model.config.label_std, strict=True)
    return prior._replace(variance=tuple(variance / std**2 for variance, std in pairs))
