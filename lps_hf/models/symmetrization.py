"""The law of the method, its Monte-Carlo estimate and the estimate's error bar.

    φ(x) = E_{g ~ p(g|x)} [ ρ_out(g) · f( ρ_in(g)⁻¹ · x ) ]                      (section 2.1 of arXiv 2306.02866)

If p(g|x) = p(g'g|g'x) for every g', then φ is equivariant for any f. The mean over k independent draws is unbiased for φ at
every k, and its distribution is equivariant at every k.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .distributions import DistributionSample, EquivariantDistribution
from .group import Group
from .representations import Batch, Field, Representation

BaseCall = Callable[[dict[str, Field]], Tensor]
LINKS = ("identity", "sigmoid", "softmax")
FEWEST_GROUPS = 8
"""Independent groups of draws before an error bar is believed, however many draws they have."""


class Estimate(NamedTuple):
    """An estimate of φ(x)."""

    mean: Tensor
    """(batch, *axes): unbiased for φ(x)."""
    standard_error: Tensor | None
    """(batch, *axes): standard deviation of `mean` over draws, from the spread of the samples; `None` for one sample, for one
    group of dependent ones, and for an exact average."""
    samples: Tensor | None = None
    """(batch, num_samples, *axes): what was averaged, where it was made at once."""
    num_samples: Tensor | None = None
    """(batch,) int64: how many were drawn, where that was decided on the way."""


def sample_outputs(
    base: BaseCall,
    group: Group,
    elements: Any,
    fields: Mapping[str, Field],
    inputs: Mapping[str, Representation],
    output: Representation,
    node_mask: Tensor,
) -> Tensor:
    """The terms of the average: ρ_out(g) · f(ρ_in(g)⁻¹ · x) for given g.

    Args:
        base: The function f. It gets fields with leading shape `(batch, num_samples)` and returns a tensor with that shape.
        group: The group.
        elements: Draws g of p(g|x), leading shape `(batch, num_samples)`.
        fields: The input x by name; dense fields have leading shape `(batch,)`.
        inputs: Representation of each field.
        output: Representation of what `base` returns.
        node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes; padding comes in and goes out as zero.

    Returns:
        `torch.Tensor` of shape `(batch, num_samples, *axes of output)`.
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
    return mask_nodes(samples, output, node_mask, leading=2)


def mask_nodes(tensor: Tensor, representation: Representation, node_mask: Tensor, leading: int = 1) -> Tensor:
    """Zero what a field (batch, …, *axes) with `leading` axes before its own holds for padding."""
    for position, axis in enumerate(representation.axes):
        if axis == "n":
            shape = [1] * tensor.dim()
            shape[0], shape[leading + position] = node_mask.shape
            tensor = tensor.masked_fill(~node_mask.view(shape), 0.0)
    return tensor


class RunningEstimate:
    """A mean over draws that come in parts, with its error bar: the same as that of all at once (Chan et al. 1979).

    The standard error is s / √groups with the unbiased variance s² of the means of independent groups of draws, so it falls as
    1 / √num_samples. No gradient flows through it.

    Args:
        group_size: Number of draws that depend on each other; a part has whole groups, or is all there is.
    """

    def __init__(self, group_size: int = 1) -> None:
        self.group_size, self.num_groups = group_size, 0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None
        self.is_exact = False

    def add(self, samples: Tensor, weights: Tensor | None = None) -> None:
        """Take in samples (batch, num_samples, ...); with weights (batch, num_samples) they are the terms of an exact average."""
        if weights is not None:
            self.is_exact = True
            part = (samples * weights.to(samples.dtype).view(*weights.shape, *[1] * (samples.dim() - 2))).sum(dim=1)
            self.mean = part if self.mean is None else self.mean + part
            return
        groups = samples.detach().unflatten(1, (-1, min(self.group_size, samples.shape[1]))).mean(dim=2)
        mean, count = samples.mean(dim=1), groups.shape[1]
        squares = (groups - mean.detach().unsqueeze(1)).square().sum(dim=1)
        if self.mean is None or self.squares is None:
            self.mean, self.squares, self.num_groups = mean, squares, count
            return
        total, difference = self.num_groups + count, mean - self.mean
        self.squares = self.squares + squares + difference.detach().square() * (self.num_groups * count / total)
        self.mean, self.num_groups = self.mean + difference * (count / total), total

    def result(self) -> Estimate:
        """The estimate so far."""
        assert self.mean is not None
        if self.is_exact or self.num_groups < 2 or self.squares is None:
            return Estimate(self.mean, None)
        return Estimate(self.mean, (self.squares / (self.num_groups - 1) / self.num_groups).sqrt())


def estimate(samples: Tensor, group_size: int = 1) -> Estimate:
    """Average samples (batch, num_samples, ...), of which each `group_size` depend on each other; see `RunningEstimate`."""
    running = RunningEstimate(group_size)
    running.add(samples)
    return running.result()


def average_over_group(
    base: BaseCall,
    group: Group,
    draws: Iterable[DistributionSample],
    fields: Mapping[str, Field],
    inputs: Mapping[str, Representation],
    output: Representation,
    node_mask: Tensor,
    group_size: int = 1,
    keeps_samples: bool = False,
) -> tuple[Estimate, DistributionSample]:
    """Symmetrize a base function over draws of p(g|x), which may come in parts, so that memory does not grow with their number.

    Args:
        base: See `sample_outputs`, as the following.
        group: The group.
        draws: Elements, with weights where they are the terms of an exact average; see `EquivariantDistribution.draws`.
        fields: The input.
        inputs: Representation of each field.
        output: Representation of what `base` returns.
        node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
        group_size: Number of draws that depend on each other.
        keeps_samples: Return what was averaged, also of draws in parts, at the cost of its memory.

    Returns:
        `Estimate` of shape `(batch, *axes of output)`, and all draws as one.
    """
    running, parts, kept = RunningEstimate(group_size), [], []
    for draw in draws:
        samples = sample_outputs(base, group, draw.elements, fields, inputs, output, node_mask)
        running.add(samples, draw.weights)
        parts.append(draw)
        if keeps_samples:
            kept.append(samples)
    result = running.result()
    if len(parts) == 1:
        result = result._replace(samples=samples)
    elif keeps_samples:
        result = result._replace(samples=torch.cat(kept, dim=1))
    return result, DistributionSample.join(parts)


def average_to_tolerance(
    base_of: Callable[[Batch], BaseCall],
    distribution: EquivariantDistribution,
    batch: Batch,
    output: Representation,
    tolerance: float,
    min_samples: int,
    max_samples: int,
    chunk_size: int,
    link: str = "identity",
    generator: torch.Generator | None = None,
    keeps_samples: bool = False,
) -> Estimate:
    """Draw until the error bar of each input is small enough; inputs that have got there are not computed any further.

    Args:
        base_of: The function f for a part of the batch.
        distribution: p(g|x), with its group and the inputs' representations.
        batch: The inputs.
        output: Representation of what f returns.
        tolerance: Largest standard error of an entry of the output, after the link.
        min_samples: Draws before an error bar is believed: that of a few is too small wherever rare draws matter.
        max_samples: Where to stop all the same.
        chunk_size: Draws at once after that.
        link: What the tolerance is about: the output itself (`"identity"`), or its `"sigmoid"` or `"softmax"`, to first order.
        generator: Random source of the noise.
        keeps_samples: Return what was averaged, NaN behind the samples of inputs that had enough of them earlier.

    Returns:
        `Estimate` with `num_samples` of each input.
    """
    group_size = distribution.sampler_group_size
    active = torch.arange(len(batch.node_mask), device=batch.node_mask.device)
    kept: Tensor | None = None
    result: Estimate | None = None
    all_samples: list[Tensor] = []
    while len(active):
        part = batch if len(active) == len(batch.node_mask) else batch.select(active)
        done = 0 if kept is None else kept.shape[1]
        wanted = chunk_size if done else max(min_samples, FEWEST_GROUPS * group_size)
        wanted = max(group_size, min(wanted, max_samples - done) // group_size * group_size)
        elements = distribution(part, distribution.draw_noise(part, wanted, generator)).elements
        arguments = part.fields, distribution.inputs, output, part.node_mask
        samples = sample_outputs(base_of(part), distribution.group, elements, *arguments)
        kept = samples if kept is None else torch.cat([kept, samples], dim=1)
        if keeps_samples:
            missing = samples.new_full((len(batch.node_mask), *samples.shape[1:]), torch.nan)
            all_samples.append(missing.index_copy(0, active, samples))
        here = estimate(kept, group_size)
        error = here.standard_error if here.standard_error is not None else torch.full_like(here.mean, torch.inf)
        count = torch.full_like(active, kept.shape[1])
        if result is None:
            result = Estimate(here.mean, error, num_samples=count)
        else:
            assert result.standard_error is not None
            assert result.num_samples is not None
            for whole, new in zip(
                (result.mean, result.standard_error, result.num_samples), (here.mean, error, count), strict=True
            ):
                whole[active] = new
        unsure = largest_error(kept, link, group_size) > tolerance
        unsure &= kept.shape[1] + group_size <= max_samples
        active, kept = active[unsure], kept[unsure]
    assert result is not None
    return result._replace(samples=torch.cat(all_samples, dim=1)) if all_samples else result


def apply_link(mean: Tensor, link: str) -> Tensor:
    """What an averaged output means: itself (`"identity"`), its `"sigmoid"`, or its `"softmax"` over the last axis.

    Raises:
        ValueError: If there is no such link.
    """
    if link not in LINKS:
        raise ValueError(f"link: expected one of {', '.join(map(repr, LINKS))}, got {link!r}.")
    return mean if link == "identity" else mean.sigmoid() if link == "sigmoid" else mean.softmax(dim=-1)


def link_errors(samples: Tensor, link: str, group_size: int = 1) -> Tensor:
    """The standard error of every entry of link(mean), to first order (the delta method).

    It is that of the samples put through the derivative of the link at their mean, so that what the classes of one sample have
    to do with each other counts.

    Args:
        samples (`torch.Tensor` of shape `(batch, num_samples, *axes)`): A softmax is over the last axis.
        link: See `apply_link`.
        group_size: Number of draws that depend on each other.

    Returns:
        `torch.Tensor` of shape `(batch, *axes)`; infinite for one group of draws.

    Raises:
        ValueError: If there is no such link.
    """
    groups = samples.unflatten(1, (-1, min(group_size, samples.shape[1]))).mean(dim=2)
    mean = samples.mean(dim=1, keepdim=True)
    probability = apply_link(mean, link)
    if groups.shape[1] < 2:
        return torch.full_like(probability.squeeze(1), torch.inf)
    if link == "sigmoid":
        groups = groups * (probability * (-mean).sigmoid())
    elif link == "softmax":
        groups = probability * (groups - (probability * groups).sum(dim=-1, keepdim=True))
    return groups.std(dim=1) / groups.shape[1] ** 0.5


def largest_error(samples: Tensor, link: str, group_size: int = 1) -> Tensor:
    """The largest standard error among the entries of link(mean), shape `(batch,)`; see `link_errors`."""
    return link_errors(samples, link, group_size).flatten(1).amax(dim=1)
