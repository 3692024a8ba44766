"""How far an estimate of φ(x) is from φ(x) under each way to draw, at the same number of samples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lps_hf.models.distributions import Noise
from lps_hf.models.modeling_heads_lps import LPSTaskModel
from lps_hf.models.representations import Representation

# Orthogonal polynomials of degree 1 to 3 of a Uniform(0, 1) and of a Normal(0, 1) number.
_LEGENDRE = (lambda x: 2 * x - 1, lambda x: 6 * x * (x - 1) + 1, lambda x: (2 * x - 1) * (10 * x * (x - 1) + 1))
_HERMITE = (lambda x: x, lambda x: x**2 - 1, lambda x: x * (x**2 - 3))


@torch.no_grad()
def outputs_of_draws(model: LPSTaskModel, batch: Mapping[str, Tensor], noise: Noise, rows_per_pass: int = 512) -> Tensor:
    """The output of a model under each single draw: what an estimate is the mean of.

    Args:
        model: The model, in evaluation mode.
        batch: A batch of the processor, without labels.
        noise: ε of `draw_noise`, with all the draws.
        rows_per_pass: Largest number of inputs times draws in one pass.

    Returns:
        `torch.Tensor` of shape `(draws, inputs, *axes of the logits)` float64.
    """
    num_inputs, num_draws = next(iter(noise.values())).shape[:2]
    step = max(1, rows_per_pass // num_inputs)
    outputs = []
    for start in range(0, num_draws, step):
        part = {name: values[:, start : start + step] for name, values in noise.items()}
        count = next(iter(part.values())).shape[1]
        repeated = {name: values.repeat_interleave(count, dim=0) for name, values in batch.items()}
        alone = {name: values.flatten(0, 1).unsqueeze(1) for name, values in part.items()}
        logits = model(**repeated, noise=alone).logits
        outputs.append(logits.unflatten(0, (num_inputs, count)).transpose(0, 1).double())
    return torch.cat(outputs)


def squared_errors(outputs: Tensor, group_size: int, num_samples: int, reference: Tensor) -> Tensor:
    """Mean squared error of the mean of `num_samples` draws, for each input, by many means of separate draws.

    Args:
        outputs (`torch.Tensor` of shape `(draws, inputs, numbers)`): Whole groups of dependent draws, one after another.
        group_size: m, the size of a group.
        num_samples: At most m, or a multiple of it.
        reference (`torch.Tensor` of shape `(reference draws, inputs, numbers)`): Independent draws for φ(x); the variance of
            their mean is taken off.

    Returns:
        `torch.Tensor` of shape `(inputs,)`: unbiased, so for errors near zero it may come out negative.

    Raises:
        ValueError: If `num_samples` does not fit the groups, or there are too few draws.
    """
    if num_samples > group_size and num_samples % group_size:
        raise ValueError(f"num_samples: expected at most {group_size} or a multiple of it, got {num_samples}.")
    block = max(num_samples, group_size)
    if len(outputs) < block:
        raise ValueError(f"outputs: expected at least {block} draws, got {len(outputs)}.")
    whole = outputs[: len(outputs) // block * block].unflatten(0, (-1, block))
    means = whole[:, :num_samples].mean(dim=1)
    error = (means - reference.mean(dim=0)).square().mean(dim=0) - reference.var(dim=0) / len(reference)
    return error.mean(dim=-1)


def ratio_of_errors(errors: Tensor, others: Tensor, num_resamples: int = 500, seed: int = 0) -> dict[str, Any]:
    """The ratio of two mean squared errors over the same inputs, with a bootstrap over the inputs.

    Args:
        errors (`torch.Tensor` of shape `(inputs,)`): The numerator.
        others (`torch.Tensor` of shape `(inputs,)`): The denominator.
        num_resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        `ratio`, its standard error `deviation`, and `interval`, the 2.5 % and 97.5 % quantiles.
    """
    rng = np.random.default_rng(seed)
    above, below = errors.numpy(), others.numpy()
    chosen = rng.integers(len(above), size=(num_resamples, len(above)))
    ratios = above[chosen].sum(axis=1) / below[chosen].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "ratio": float(above.sum() / below.sum()),
        "deviation": float(ratios.std(ddof=1)),
        "interval": [float(low), float(high)],
    }


def additive_share(outputs: Tensor, noise: Noise, axes: Mapping[str, Representation], node_mask: Tensor) -> dict[str, Any] | None:
    """The share of the variance of single draws that is a sum of functions of one number of the noise each.

    That is what a Latin hypercube can remove (Stein 1987). Estimated by regression on polynomials of every number, with the R²
    adjusted for their count, so that zero is expected where nothing is additive.

    Args:
        outputs (`torch.Tensor` of shape `(draws, inputs, numbers)`): Of independent draws.
        noise: The parts of the noise that decide, each (inputs, draws, *axes), uniform or normal.
        axes: The axes of each part.
        node_mask (`torch.Tensor` of shape `(inputs, nodes)`): True on nodes; the noise of padding is left out.

    Returns:
        `share`, its standard error over the inputs `deviation`, and the `degree` of the polynomials: 3, or less where there would
        be more than half as many of them as draws. `None` where there are too many even of degree 1.
    """
    numbers = [_numbers_of(noise, axes, node_mask, place) for place in range(outputs.shape[1])]
    degree = min(3, len(outputs) // (2 * max(values.shape[1] for values in numbers)))
    if not degree:
        return None
    explained, total = [], []
    for place, values in enumerate(numbers):
        is_uniform = (values.min(dim=0).values >= 0) & (values.max(dim=0).values <= 1)
        terms = [
            torch.where(is_uniform, legendre(values), hermite(values))
            for legendre, hermite in zip(_LEGENDRE[:degree], _HERMITE[:degree], strict=True)
        ]
        design = torch.cat(terms, dim=1)
        design, centred = design - design.mean(dim=0), outputs[:, place] - outputs[:, place].mean(dim=0)
        rest = centred - design @ torch.linalg.lstsq(design, centred).solution
        freedom = len(outputs) - 1
        total.append(centred.square().sum() / freedom)
        explained.append(total[-1] - rest.square().sum() / (freedom - design.shape[1]))
    found = ratio_of_errors(torch.stack(explained), torch.stack(total))
    return {"share": found["ratio"], "deviation": found["deviation"], "degree": degree}


def _numbers_of(noise: Noise, axes: Mapping[str, Representation], node_mask: Tensor, place: int) -> Tensor:
    """All noise of one input, (draws, numbers) float64."""
    columns = []
    for name, part in noise.items():
        values = part[place].double()
        columns.append((values[:, node_mask[place]] if axes[name].axes[0] == "n" else values).flatten(1))
    return torch.cat(columns, dim=1)
