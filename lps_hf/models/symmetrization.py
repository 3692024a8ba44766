"""The law of the method, its Monte-Carlo estimate and the estimate's error bar.

    φ(x) = E_{g ~ p(g|x)} [ ρ_out(g) · f( ρ_in(g)⁻¹ · x ) ]                      (section 2.1 of arXiv 2306.02866)

If p(g|x) = p(g'g|g'x) for every g', then φ is equivariant for any f. The mean over k independent draws is unbiased for φ at
every k, and its distribution is equivariant at every k. What its error bar is made of is said in `error_bars`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .distributions import DistributionSample, EquivariantDistribution
from .elements import Element
from .error_bars import (
    FEWEST,
    NO_PRIOR,
    UNSEEN,
    VariancePrior,
    all_agree,
    block_means,
    confidence_interval,
    moderated_error,
)
from .group import Group
from .links import link_slope, link_variance
from .representations import Batch, Field, Representation

BaseCall = Callable[[dict[str, Field], Batch], Tensor]
"""The function f: transformed fields with leading shape `(batch, num_samples)`, and the batch that they were, to a tensor."""


class Estimate(NamedTuple):
    """An estimate of φ(x)."""

    mean: Tensor
    """(batch, *axes): unbiased for φ(x)."""
    standard_error: Tensor | None
    """(batch, *axes): standard deviation of `mean` over draws; `None` for one sample, for one block of dependent ones, and for an
    exact average."""
    degrees_of_freedom: Tensor | None = None
    """(batch,) float64: those of `standard_error`, for Student's quantiles."""
    draws_agree: Tensor | None = None
    """(batch,) bool: whether all draws of an input gave the same output up to rounding; its error bar is then a bound, or zero
    where nothing else could be drawn."""
    samples: Tensor | None = None
    """(batch, num_samples, *axes): what was averaged, where it was made at once."""
    num_samples: Tensor | None = None
    """(batch,) int64: how many were drawn, where that was decided on the way."""

    def confidence_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The interval that holds φ(x) with probability `level`; see `error_bars.confidence_interval`."""
        return confidence_interval(self.mean, self.standard_error, self.degrees_of_freedom, level)


class StoppingRule(NamedTuple):
    """When the error bar of an input is small enough, and how to get there."""

    tolerance: float
    """Largest standard error of an entry of the output, after the link."""
    min_samples: int
    """Draws before an error bar is believed: that of a few is too small wherever rare draws matter."""
    max_samples: int
    """Where to stop all the same."""
    chunk_size: int
    """Draws at once after the first."""


def sample_outputs(
    base: BaseCall,
    group: Group,
    elements: Any,
    batch: Batch,
    inputs: Mapping[str, Representation],
    output: Representation,
) -> Tensor:
    """The terms of the average: ρ_out(g) · f(ρ_in(g)⁻¹ · x) for given g.

    Args:
        base: The function f. It gets fields with leading shape `(batch, num_samples)` and returns a tensor with that shape.
        group: The group.
        elements: Draws g of p(g|x), leading shape `(batch, num_samples)`.
        batch: The input x; padding comes in and goes out as zero.
        inputs: Representation of each field.
        output: Representation of what `base` returns.

    Returns:
        `torch.Tensor` of shape `(batch, num_samples, *axes of output)`.
    """
    turned: dict[str, Field] = {}
    for name, field in batch.fields.items():
        if not isinstance(field, Tensor):
            turned[name] = group.act_inverse(elements, field, inputs[name])
            continue
        moved = group.act_inverse(elements, field.unsqueeze(1), inputs[name])
        # Translations move padding away from zero.
        turned[name] = mask_nodes(moved, inputs[name], batch.node_mask, leading=2) if inputs[name].count("p") else moved
    samples = base(turned, batch)
    # Half precision would leave the group, and lose what is small beside a translation or in a mean.
    samples = group.act(elements, samples.to(torch.promote_types(samples.dtype, torch.float32)), output)
    return mask_nodes(samples, output, batch.node_mask, leading=2)


def mask_nodes(tensor: Tensor, representation: Representation, node_mask: Tensor, leading: int = 1) -> Tensor:
    """Zero what a field (batch, …, *axes) with `leading` axes before its own holds for padding."""
    for position, axis in enumerate(representation.axes):
        if axis == "n":
            shape = [1] * tensor.dim()
            shape[0], shape[leading + position] = node_mask.shape
            tensor = tensor.masked_fill(~node_mask.view(shape), 0.0)
    return tensor


def squared_size(numbers: Tensor) -> Tensor:
    """|x|², which of complex numbers is not x²."""
    return numbers.abs().square() if numbers.is_complex() else numbers.square()


class RunningEstimate:
    """A mean over draws that come in parts, and the spread of its blocks: the same as of all at once (Chan et al. 1979).

    No gradient flows through the spread.

    Args:
        block_size: Number of draws that depend on each other; a part has whole blocks, or is all there is.
    """

    def __init__(self, block_size: int = 1) -> None:
        self.block_size, self.num_blocks, self.num_samples = block_size, 0, 0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None
        self.is_exact = False

    def add(self, samples: Tensor, weights: Tensor | None = None) -> None:
        """Take in samples (batch, num_samples, ...); with weights (batch, num_samples) they are the terms of an exact average."""
        self.num_samples += samples.shape[1]
        if weights is not None:
            self.is_exact = True
            part = (samples * weights.to(samples.dtype).view(*weights.shape, *[1] * (samples.dim() - 2))).sum(dim=1)
            self.mean = part if self.mean is None else self.mean + part
            return
        blocks = block_means(samples.detach(), self.block_size)
        mean, count = samples.mean(dim=1), blocks.shape[1]
        squares = squared_size(blocks - mean.detach().unsqueeze(1)).sum(dim=1)
        if self.mean is None or self.squares is None:
            self.mean, self.squares, self.num_blocks = mean, squares, count
            return
        total, difference = self.num_blocks + count, mean - self.mean
        self.squares = self.squares + squares + squared_size(difference.detach()) * (self.num_blocks * count / total)
        self.mean, self.num_blocks = self.mean + difference * (count / total), total

    def result(self, prior: VariancePrior = NO_PRIOR, opposite: Tensor | None = None) -> Estimate:
        """The estimate so far.

        Args:
            prior: What is known of the variance.
            opposite (`torch.Tensor` of shape `(batch,)`): The distance to an answer that draws which agree may not have seen;
                used where there is no prior.
        """
        assert self.mean is not None
        if self.is_exact or self.num_blocks < 2 or self.squares is None:
            return Estimate(self.mean, None)
        variance = self.squares.new_tensor(prior.variance)
        error = moderated_error(self.squares, self.num_blocks, self.block_size, variance, prior.degrees_of_freedom)
        agree = all_agree(self.squares, self.mean, self.num_blocks)
        if opposite is not None and not prior.degrees_of_freedom:
            shape = (-1, *[1] * (error.dim() - 1))
            error = torch.where(agree.view(shape), (opposite / self.num_samples).view(shape).to(error.dtype), error)
        degrees = prior.degrees_of_freedom + self.num_blocks - 1
        return Estimate(self.mean, error, torch.full(agree.shape, degrees, dtype=torch.float64, device=agree.device), agree)


class Symmetrization:
    """The function φ that a distribution makes of a base function: everything about it but the base function itself.

    Args:
        distribution: p(g|x), with the group and the representations of the inputs.
        output: Representation of what the base function returns.
        prior: What is known of the variance of draws, from `lps_hf.evaluation.error_bars.calibrate_error_bars`.
        link: What a tolerance is about: the output itself (`"identity"`), or its `"sigmoid"` or `"softmax"`, to first order.
    """

    def __init__(
        self,
        distribution: EquivariantDistribution,
        output: Representation,
        prior: VariancePrior = NO_PRIOR,
        link: str = "identity",
    ) -> None:
        self.distribution, self.output, self.prior, self.link = distribution, output, prior, link

    def estimate(
        self, base: BaseCall, draws: Iterable[DistributionSample], batch: Batch, keeps_samples: bool = False
    ) -> tuple[Estimate, DistributionSample]:
        """Average the base function over draws of p(g|x), which may come in parts, so that memory does not grow with them.

        Args:
            base: The function f.
            draws: Elements, with weights where they are the terms of an exact average; see `EquivariantDistribution.draws`.
            batch: The inputs.
            keeps_samples: Return what was averaged, also of draws in parts, at the cost of its memory.

        Returns:
            `Estimate` of shape `(batch, *axes of the output)`, and all draws as one.
        """
        running: RunningEstimate | None = None
        parts, kept = [], []
        for draw in draws:
            samples = self.samples(base, draw.elements, batch)
            running = RunningEstimate(draw.block_size) if running is None else running
            running.add(samples, draw.weights)
            parts.append(draw)
            if keeps_samples:
                kept.append(samples)
        assert running is not None
        drawn = DistributionSample.join(parts)
        result = self._result(running, batch.node_mask, drawn.elements)
        if len(parts) == 1:
            result = result._replace(samples=samples)
        elif keeps_samples:
            result = result._replace(samples=torch.cat(kept, dim=1))
        return result, drawn

    def estimate_to_tolerance(
        self,
        base: BaseCall,
        batch: Batch,
        rule: StoppingRule,
        generator: torch.Generator | None = None,
        keeps_samples: bool = False,
    ) -> Estimate:
        """Draw until the error bar of each input is small enough; inputs that have got there are not computed any further.

        Args:
            base: The function f.
            batch: The inputs.
            rule: When that is.
            generator: Random source of the noise.
            keeps_samples: Return what was averaged, NaN behind the samples of inputs that had enough of them earlier.

        Returns:
            `Estimate` with `num_samples` of each input.
        """
        block_size = self.distribution.sampler_group_size
        active = torch.arange(len(batch.node_mask), device=batch.node_mask.device)
        kept: Tensor | None = None
        drawn: Element | None = None
        result: Estimate | None = None
        all_samples: list[Tensor] = []
        while len(active):
            part = batch if len(active) == len(batch.node_mask) else batch.select(active)
            done = 0 if kept is None else kept.shape[1]
            wanted = rule.chunk_size if done else max(rule.min_samples, FEWEST * block_size)
            wanted = max(block_size, min(wanted, rule.max_samples - done) // block_size * block_size)
            elements = self.distribution(part, self.distribution.draw_noise(part, wanted, generator)).elements
            samples = self.samples(base, elements, part)
            kept = samples if kept is None else torch.cat([kept, samples], dim=1)
            drawn = elements if drawn is None else drawn.concatenate([elements])
            if keeps_samples:
                missing = samples.new_full((len(batch.node_mask), *samples.shape[1:]), torch.nan)
                all_samples.append(missing.index_copy(0, active, samples))
            current = self._estimate_with_bar(kept, part.node_mask, block_size, drawn)
            result = current if result is None else _with_rows(result, active, current)
            assert current.standard_error is not None
            assert current.draws_agree is not None
            errors = self.link_errors(kept, current.standard_error, current.draws_agree, block_size)
            unsure = errors.flatten(1).amax(dim=1) > rule.tolerance
            unsure &= kept.shape[1] + block_size <= rule.max_samples
            active, kept, drawn = active[unsure], kept[unsure], drawn.select(unsure)
        assert result is not None
        return result._replace(samples=torch.cat(all_samples, dim=1)) if all_samples else result

    def estimate_of(self, samples: Tensor, node_mask: Tensor, block_size: int = 1, elements: Element | None = None) -> Estimate:
        """Average outputs that have been computed already.

        Args:
            samples (`torch.Tensor` of shape `(batch, num_samples, *axes of the output)`): Outputs, turned back.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
            block_size: Number of draws that depend on each other.
            elements: What was drawn, where it is known; see `EquivariantDistribution.is_certain`.
        """
        running = RunningEstimate(block_size)
        running.add(samples)
        return self._result(running, node_mask, elements)

    def _estimate_with_bar(self, samples: Tensor, node_mask: Tensor, block_size: int, elements: Element) -> Estimate:
        """As `estimate_of`, with an infinite error bar where there is none, and the number of samples."""
        result = self.estimate_of(samples, node_mask, block_size, elements)
        if result.standard_error is None:
            batch, device = len(samples), samples.device
            result = result._replace(
                standard_error=torch.full_like(result.mean, torch.inf),
                degrees_of_freedom=torch.ones(batch, dtype=torch.float64, device=device),
                draws_agree=torch.zeros(batch, dtype=torch.bool, device=device),
            )
        return result._replace(num_samples=torch.full(samples.shape[:1], samples.shape[1], device=samples.device))

    def samples(self, base: BaseCall, elements: Any, batch: Batch) -> Tensor:
        """The terms of the average for given elements, (batch, num_samples, *axes of the output); see `sample_outputs`."""
        group, inputs = self.distribution.group, self.distribution.inputs
        return sample_outputs(base, group, elements, batch, inputs, self.output)

    def link_errors(self, samples: Tensor, standard_error: Tensor, draws_agree: Tensor, block_size: int = 1) -> Tensor:
        """The standard error of every entry of link(mean), to first order (the delta method).

        It is that of the samples put through the derivative of the link at their mean, so that what the classes of one sample
        have to do with each other counts. What is known otherwise, a prior or a bound, goes the same way entry by entry.

        Args:
            samples (`torch.Tensor` of shape `(batch, num_samples, *axes)`): What was averaged. A softmax is over the last axis.
            standard_error (`torch.Tensor` of shape `(batch, *axes)`): Of the mean itself.
            draws_agree (`torch.Tensor` of shape `(batch,)`): See `Estimate`.
            block_size: Number of draws that depend on each other.

        Returns:
            `torch.Tensor` of shape `(batch, *axes)`; infinite for one block of draws.
        """
        blocks, mean = block_means(samples, block_size), samples.mean(dim=1)
        count = blocks.shape[1]
        if count < 2:
            return torch.full_like(mean, torch.inf)
        squares = link_slope(blocks, mean.unsqueeze(1), self.link).var(dim=1) * (count - 1)
        factor = self.prior.softmax_factor if self.link == "softmax" else 1.0
        variance = factor * link_variance(mean.new_tensor(self.prior.variance).expand_as(mean), mean, self.link)
        error = moderated_error(squares, count, block_size, variance, self.prior.degrees_of_freedom)
        agree = draws_agree.view(-1, *[1] * (mean.dim() - 1))
        bound = (factor * link_variance(standard_error.square(), mean, self.link)).sqrt()
        return torch.where(agree, bound, error)

    def _result(self, running: RunningEstimate, node_mask: Tensor, elements: Element | None) -> Estimate:
        assert running.mean is not None
        result = running.result(self.prior, UNSEEN * self._size(running.mean.detach(), node_mask))
        if result.standard_error is None or result.draws_agree is None:
            return result
        # Nothing is uncertain on padding, and where there is nothing else to draw.
        certain = self.distribution.is_certain(elements, node_mask) & result.draws_agree
        error = result.standard_error.masked_fill(certain.view(-1, *[1] * (result.mean.dim() - 1)), 0.0)
        return result._replace(standard_error=mask_nodes(error, self.output, node_mask))

    def _size(self, mean: Tensor, node_mask: Tensor) -> Tensor:
        """How large the answer to each input is, (batch,): its largest entry, of points the distance from their centroid."""
        if self.output.axes == ("n", "p"):
            weights = node_mask.unsqueeze(-1) / node_mask.sum(dim=1).clamp(min=1)[:, None, None]
            mean = mask_nodes(mean - (mean * weights).sum(dim=1, keepdim=True), self.output, node_mask)
        return mean.flatten(1).abs().amax(dim=1)


def entries_of(samples: Tensor, output: Representation, node_mask: Tensor) -> Tensor:
    """Samples (batch, num_samples, *axes) as `fit_variance_prior` wants them: (num_samples, entries, channels), without padding.

    The axes of a vector are entries of one channel, so that a prior does not know the axes of space.
    """
    inside = torch.ones_like(samples[:, :1])
    inside = mask_nodes(inside, output, node_mask, leading=2)[:, 0] != 0
    draws = samples.movedim(1, 0)
    if isinstance(output.axes[-1], int):
        return draws.flatten(1, -2)[:, inside.flatten(0, -2)[:, 0]]
    return draws.flatten(1)[:, inside.flatten()].unsqueeze(-1)


def _with_rows(whole: Estimate, rows: Tensor, new: Estimate) -> Estimate:
    """An estimate with some of its rows replaced."""
    fields = ("mean", "standard_error", "degrees_of_freedom", "draws_agree", "num_samples")
    replaced = {name: getattr(whole, name).index_copy(0, rows, getattr(new, name)) for name in fields}
    return whole._replace(**replaced)
