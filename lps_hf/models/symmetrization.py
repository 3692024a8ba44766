"""The law of the method, its Monte-Carlo estimate and the estimate's error bar.

    φ(x) = E_{g ~ p(g|x)} [ ρ_out(g) · f( ρ_in(g)⁻¹ · x ) ]                      (section 2.1 of arXiv 2306.02866)

If p(g|x) = p(g'g|g'x) for every g', then φ is equivariant for any f. The mean over k independent draws is unbiased for φ at
every k, and its distribution is equivariant at every k.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .group import Group
from .representations import Field, Representation


class Estimate(NamedTuple):
    """An estimate of φ(x)."""

    mean: Tensor
    """(batch, *axes): unbiased for φ(x)."""
    standard_error: Tensor | None
    """(batch, *axes): standard deviation of `mean` over draws, from the spread of the samples; `None` for one sample, and for
    an exact average."""


def average_over_group(
    base: Callable[[dict[str, Field]], Tensor],
    group: Group,
    elements: Any,
    fields: Mapping[str, Field],
    inputs: Mapping[str, Representation],
    output: Representation,
    node_mask: Tensor,
    weights: Tensor | None = None,
) -> Estimate:
    """Symmetrize a base function over given group elements.

    Args:
        base: The function f. It gets fields with leading shape `(batch, num_samples)` and returns a tensor with that shape.
        group: The group.
        elements: Draws g of p(g|x), leading shape `(batch, num_samples)`.
        fields: The input x by name; dense fields have leading shape `(batch,)`.
        inputs: Representation of each field.
        output: Representation of what `base` returns.
        node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes; padding comes in and goes out as zero.
        weights (`torch.Tensor` of shape `(batch, num_samples)`): Of an exact average; `None` for independent draws.

    Returns:
        `Estimate`: of shape `(batch, *axes of output)`.
    """
    turned: dict[str, Field] = {}
    for name, field in fields.items():
        if not isinstance(field, Tensor):
            turned[name] = group.act_inverse(elements, field, inputs[name])
            continue
        moved = group.act_inverse(elements, field.unsqueeze(1), inputs[name])
        # Translations move padding away from zero.
        turned[name] = mask_nodes(moved, inputs[name], node_mask, leading=2) if inputs[name].count("p") else moved
    samples = base(turned)
    # Half precision would leave the group, and lose what is small beside a translation or in a mean.
    samples = group.act(elements, samples.to(torch.promote_types(samples.dtype, torch.float32)), output)
    if weights is None:
        mean, error = estimate(samples)
    else:
        mean, error = (samples * weights.to(samples.dtype).view(*weights.shape, *[1] * (samples.dim() - 2))).sum(dim=1), None
    return Estimate(mask_nodes(mean, output, node_mask), None if error is None else mask_nodes(error, output, node_mask))


def mask_nodes(tensor: Tensor, representation: Representation, node_mask: Tensor, leading: int = 1) -> Tensor:
    """Zero what a field (batch, …, *axes) with `leading` axes before its own holds for padding."""
    for position, axis in enumerate(representation.axes):
        if axis == "n":
            shape = [1] * tensor.dim()
            shape[0], shape[leading + position] = node_mask.shape
            tensor = tensor.masked_fill(~node_mask.view(shape), 0.0)
    return tensor


def estimate(samples: Tensor) -> Estimate:
    """Average independent samples (batch, num_samples, ...) and say how well the average is known.

    The standard error is s / √k with the unbiased sample variance s², so it falls as 1 / √k. No gradient flows through it.
    """
    num_samples = samples.shape[1]
    if num_samples == 1:
        return Estimate(samples.squeeze(1), None)
    return Estimate(samples.mean(dim=1), samples.detach().std(dim=1) / num_samples**0.5)
