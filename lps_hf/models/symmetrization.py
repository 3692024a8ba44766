"""The law of the method, its Monte-Carlo estimate and the estimate's error bar.

    φ(x) = E_{g ~ p(g|x)} [ ρ_out(g) · f( ρ_in(g)⁻¹ · x ) ]                      (section 2.1 of arXiv 2306.02866)

If p(g|x) = p(g'g|g'x) for every g', then φ is equivariant for any f. The mean over k independent draws is unbiased for φ at
every k, and its distribution is equivariant at every k.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from .groups import Group
from .representations import Field, Permutation, Representation


class Estimate(NamedTuple):
    """A Monte-Carlo estimate of φ(x)."""

    mean: Tensor
    """(batch, *axes): unbiased for φ(x)."""
    standard_error: Tensor | None
    """(batch, *axes): standard deviation of `mean` over draws, from the spread of the samples; `None` for one sample."""


def symmetrize(
    base: Callable[[dict[str, Field]], Tensor],
    group: Group,
    elements: Permutation,
    fields: Mapping[str, Field],
    inputs: Mapping[str, Representation],
    output: Representation,
) -> Estimate:
    """Symmetrize a base function over given group elements.

    Args:
        base: The function f. It gets fields with leading shape `(batch, num_samples)` and returns a tensor with that shape.
        group: The group.
        elements: Draws g of p(g|x), leading shape `(batch, num_samples)`.
        fields: The input x by name; dense fields have leading shape `(batch,)`.
        inputs: Representation of each field.
        output: Representation of what `base` returns.

    Returns:
        `Estimate`: of shape `(batch, *axes of output)`.
    """
    turned: dict[str, Field] = {}
    for name, field in fields.items():
        if isinstance(field, Tensor):
            turned[name] = group.act_inverse(elements, field.unsqueeze(1), inputs[name])
        else:
            turned[name] = group.act_inverse(elements, field, inputs[name])
    return estimate(group.act(elements, base(turned), output))


def estimate(samples: Tensor) -> Estimate:
    """Average independent samples (batch, num_samples, ...) and say how well the average is known.

    The standard error is s / √k with the unbiased sample variance s², so it falls as 1 / √k. No gradient flows through it.
    """
    num_samples = samples.shape[1]
    if num_samples == 1:
        return Estimate(samples.squeeze(1), None)
    return Estimate(samples.mean(dim=1), samples.detach().std(dim=1) / num_samples**0.5)
