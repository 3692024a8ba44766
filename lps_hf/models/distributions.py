"""The equivariant distributions p(g|x), by noise outsourcing: scores from (x, ε), projected onto the group.

All are one mechanism: noise ε with a law that the group leaves unchanged, scores that depend on x and ε equivariantly, and an
equivariant projection of scores onto the group. So q(g·x, g·ε) = g·q(x, ε) holds for each of them, and p(g|x) = p(g'g|g'x)
follows (section 2 of arXiv 2306.02866).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .elements import Element, Permutation
from .frames import has_infinite_frame, orders_of_frame, principal_axes, sign_choices
from .group import Group, check_relaxation, check_sample_count, check_tensor
from .image_interface import identity_prior_loss
from .interfaces import (
    VectorInterface,
    centroid,
    check_symmetry,
    complete_interface_options,
    interface_class,
    vector_channels,
    vector_errors,
    vector_inputs,
)
from .permutations import number_levels
from .plane_groups import PlaneGroup
from .representations import Batch, Representation
from .samplers import SAMPLERS, check_whole_groups

Noise = dict[str, Tensor]
# The kinds that `EquivariantDistribution.forward` knows; another one does not become one of them.
_DRAWN = ("learned", "canonical", "frame", "haar", "exact", "none")


class DistributionSample(NamedTuple):
    """What a distribution draws."""

    elements: Element
    entropy: Tensor | None = None
    """Entropy of the soft permutations, shape `()`; `None` where they are not made (no gradient, or nothing learned)."""
    prior_loss: Tensor | None = None
    """-log p(identity|x) averaged over the batch, shape `()`; for learned distributions of finite groups."""
    weights: Tensor | None = None
    """(batch, num_samples), sums to 1: of every element in an exact average; `None` for independent draws."""
    block_size: int = 1
    """Number of draws that depend on each other."""

    def split(self, size: int | None) -> "list[DistributionSample]":
        """Parts of at most `size` elements; `None` for all in one."""
        count = self.elements.num_samples
        if size is None or size >= count:
            return [self]
        parts = [slice(start, start + size) for start in range(0, count, size)]
        weights = [None if self.weights is None else self.weights[:, part] for part in parts]
        elements = [_select_samples(self.elements, part) for part in parts]
        return [self._replace(elements=one, weights=two) for one, two in zip(elements, weights, strict=True)]

    @staticmethod
    def join(parts: "Sequence[DistributionSample]") -> "DistributionSample":
        """Parts as one, with the entropy and the prior loss of the first."""
        if len(parts) == 1:
            return parts[0]
        weights = [part.weights for part in parts if part.weights is not None]
        elements = parts[0].elements.concatenate([part.elements for part in parts[1:]])
        return parts[0]._replace(elements=elements, weights=torch.cat(weights, dim=1) if weights else None)


class EquivariantDistribution(nn.Module):
    """p(g|x) over a group.

    | kind | scores |
    | --- | --- |
    | learned | the interface network on x with noise: the paper's probabilistic symmetrization |
    | canonical | the same network without noise, ties broken at random: canonicalization |
    | frame | a predefined frame, at random among its elements: frame averaging |
    | haar | noise alone: group averaging |
    | exact | every element of a finite frame or group: no randomness |
    | none | the identity: no symmetrization |

    Of "exact" the precondition is a finite frame. Where variances are equal, as of a square, it is infinite: axes are drawn in
    the spaces of equal variance (other than zero), and their signs enumerated for each draw. Then there is an error bar, as of
    other draws. The sum over C_n or D_n is exact, and equivariant as far as the turns are: those that read between pixels are
    not exact.

    Args:
        group: The group.
        kind: One of the above.
        inputs: Axes of the input fields.
        noise_scale: η: factor on the noise of the interface network.
        temperature: τ of the relaxation that carries the gradient.
        sinkhorn_iterations: Rounds of the soft permutation matrix.
        temperature_rule: What τ of a permutation is measured in; see `LPSConfig`.
        interface_config: Arguments of the interface network.
        sampler: How the draws of one input depend on each other: `"independent"`, `"antithetic"`, `"stratified"` or
            `"orthogonal"`; see `samplers`.
        sampler_group_size: m, the number of draws that depend on each other; see `Group.sampler_group_size`.

    Raises:
        ValueError: If there is no such distribution on the group, or no such sampler.
    """

    def __init__(
        self,
        group: Group,
        kind: str,
        inputs: Mapping[str, Representation],
        noise_scale: float = 1.0,
        temperature: float = 0.01,
        sinkhorn_iterations: int = 20,
        temperature_rule: str = "published",
        interface_config: dict | None = None,
        sampler: str = "independent",
        sampler_group_size: int | None = None,
    ) -> None:
        super().__init__()
        self.group, self.kind, self.inputs = group, kind, dict(inputs)
        self.noise_scale = noise_scale if kind == "learned" else 0.0
        self.temperature = temperature
        self.sinkhorn_iterations = sinkhorn_iterations
        self.temperature_rule = temperature_rule
        self.set_sampler(sampler, sampler_group_size)
        check_relaxation(noise_scale, temperature, temperature_rule, sinkhorn_iterations)
        check_symmetry(group, inputs, kind)
        if kind not in _DRAWN:
            raise ValueError(f"distribution: expected one of {', '.join(map(repr, _DRAWN))}, which are drawn here, got {kind!r}.")
        reads_points = group.has_translations and kind != "none"
        if reads_points and not any(axes.count("p") for axes in self._vector_inputs.values()):
            raise ValueError(
                f"inputs: the group {group.name} moves points, so expected a field such as 'n p' with at most one node axis, got "
                f"{', '.join(map(repr, map(str, inputs.values())))}."
            )
        self.interface: Any = None
        if kind in ("learned", "canonical"):
            network = interface_class(group)
            self.interface = network(group, inputs, **complete_interface_options(interface_config or {}, network.options))

    def set_sampler(self, sampler: str, sampler_group_size: int | None = None) -> None:
        """Draw in another way from now on; the law of each draw, and so what is estimated, stays the same.

        Args:
            sampler: As for the class.
            sampler_group_size: As for the class.

        Raises:
            ValueError: If there is no such sampler, or not with groups of this size for this group.
            TypeError: If the size is no whole number.
        """
        self.sampler_group_size = self.group.sampler_group_size(sampler, sampler_group_size)
        self.sampler = SAMPLERS[sampler]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EquivariantDistribution":
        """Stay in single precision where a model is converted to half: `model.to(torch.bfloat16)` or `bf16_full_eval`."""

        def spare(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved

        return super()._apply(spare, recurse)

    def is_certain(self, elements: Element | None, node_mask: Tensor) -> Tensor:
        """For which inputs outputs that agree leave nothing that was not drawn, (batch,) bool.

        That is so where the group has one element, in an exact average, and where every draw of a frame or of a canonical law,
        whose elements are equally likely, gave the same element: then there is no other.

        Args:
            elements: What was drawn, where it is known.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
        """
        certain = self.group.is_trivial(node_mask)
        if self.kind in ("exact", "none"):
            return torch.ones_like(certain)
        if self.kind in ("canonical", "frame") and elements is not None:
            return certain | elements.all_equal()
        return certain

    @property
    def reads_frame_ranks(self) -> bool:
        """Whether `Batch.frame_ranks` decides: in frames of graphs, where no vectors tell the nodes apart."""
        permutes = any(factor.score_letter == "n" for factor in self.group.factors)
        return self.kind in ("frame", "exact") and permutes and not self._vector_inputs

    @property
    def _vector_inputs(self) -> dict[str, Representation]:
        return vector_inputs(self.inputs)

    @property
    def noise_axes(self) -> dict[str, Representation]:
        """The noise ε by name, each part with the axes by which the group acts on it."""
        axes = {factor.name: factor.score for factor in self.group.factors}
        if self.kind == "learned" and self.interface.noise_axes is not None:
            axes["interface"] = self.interface.noise_axes
        return axes

    def noise_shapes(self, node_mask: Tensor) -> dict[str, tuple[int | None, ...]]:
        """The shape of each part of the noise, with `None` for the number of samples."""
        batch, nodes = node_mask.shape
        orders = [factor.order for factor in self.group.factors if isinstance(factor, PlaneGroup)]
        sizes = {"n": nodes, "v": self.group.dimension, "g": orders[0] if orders else None}
        return {
            name: (batch, None, *(axis if isinstance(axis, int) else sizes[axis] for axis in axes.axes))
            for name, axes in self.noise_axes.items()
        }

    def check_noise(self, noise: Any, node_mask: Tensor, num_samples: int | None = None) -> None:
        """Refuse noise that is not what `draw_noise` returns.

        Args:
            noise: What a user gives.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
            num_samples: The number of samples asked for; `None` where the noise decides.

        Raises:
            ValueError: If a part is missing or has the wrong shape or number of samples.
            TypeError: If a part is no tensor.
        """
        expected = self.noise_shapes(node_mask)
        if not isinstance(noise, dict) or set(noise) != set(expected):
            got = sorted(noise) if isinstance(noise, dict) else type(noise).__name__
            raise ValueError(f"noise: expected a dict with the keys {', '.join(expected)}, got {got}. See draw_noise.")
        for name, shape in expected.items():
            part = check_tensor(f"noise[{name!r}]", noise[name], shape)
            num_samples = num_samples or part.shape[1]
            check_sample_count(f"noise[{name!r}]", part.shape[1], num_samples)

    def draw_noise(self, batch: Batch, num_samples: int, generator: torch.Generator | None = None) -> Noise:
        """Draw ε, one group of dependent draws after another.

        So the first draws of many are the draws of few from the same seed, and draws in chunks those at once.

        Args:
            batch: The inputs; only their shapes matter.
            num_samples: Number of samples: whole groups of `sampler_group_size`, or a part of one.
            generator: Random source on the batch's device.

        Returns:
            `dict[str, torch.Tensor]`: For every name of `noise_axes` a tensor (batch, num_samples, *axes): `interface` for the
            network, and one for each factor of the group, which decides where scores tie.

        Raises:
            ValueError: If the number of samples is larger than a group and no multiple of it.
        """
        check_whole_groups("num_samples", num_samples, self.sampler_group_size)
        groups = [self._draw_group(batch, generator) for _ in range(0, num_samples, self.sampler_group_size)]
        return {name: torch.cat([group[name] for group in groups], dim=1)[:, :num_samples] for name in groups[0]}

    def _draw_group(self, batch: Batch, generator: torch.Generator | None) -> Noise:
        size, sampler = self.sampler_group_size, self.sampler
        noise = {f.name: f.draw_scores(batch.node_mask, size, generator, sampler) for f in self.group.factors}
        if "interface" in self.noise_axes:
            noise["interface"] = self.interface.draw_noise(batch, size, generator, sampler)
        return noise

    def draws(
        self,
        batch: Batch,
        num_samples: int | None = None,
        noise: Noise | None = None,
        group_elements: Any = None,
        generator: torch.Generator | None = None,
        chunk_size: int | None = None,
    ) -> Iterator[DistributionSample]:
        """Draw from p(g|x) in parts: from fresh noise, from given noise, or given elements.

        Args:
            batch: The inputs.
            num_samples: Number of samples; `None` where noise or elements are given, and tell it. Distributions `"exact"` and
                `"none"` have a number of their own; where a frame is infinite, this is the number of its axes drawn, at least 2.
            noise: ε of `draw_noise`.
            group_elements: Elements as tensors.
            generator: Random source of fresh noise.
            chunk_size: Most samples of a part, rounded to whole groups of dependent draws; `None` for all at once.

        Yields:
            `DistributionSample`: The parts in order.

        Raises:
            ValueError: If noise or elements do not fit the batch or each other.
            TypeError: If they have the wrong type.
        """
        if group_elements is not None:
            if noise is not None:
                raise ValueError("group_elements and noise: expected one of them, got both.")
            elements = self.group.from_tensors(group_elements, batch.node_mask)
            check_sample_count("group_elements", elements.num_samples, num_samples)
            yield from DistributionSample(elements).split(chunk_size)
            return
        if noise is not None:
            self.check_noise(noise, batch.node_mask, num_samples)
            num_samples = next(iter(noise.values())).shape[1]
        assert num_samples is not None  # whoever gives nothing has a default
        if self.kind == "exact" and self._may_be_infinite(batch):
            yield from self._draw_blocks(batch, num_samples, noise, generator, in_parts=chunk_size is not None)
            return
        if self.kind in ("exact", "none"):
            # The stored order is always the same, and an exact average takes every element once.
            yield from self(batch, noise or self.draw_noise(batch, 1, generator)).split(chunk_size)
            return
        check_whole_groups("num_samples", num_samples, self.sampler_group_size)
        if chunk_size is None:  # no loop, which would fix the number of samples of an exported program
            yield self(batch, noise or self.draw_noise(batch, num_samples, generator))
            return
        size = self.sampler_group_size
        step = max(size, chunk_size // size * size)
        for start in range(0, num_samples, step):
            count = min(step, num_samples - start)
            if noise is None:
                part = self.draw_noise(batch, count, generator)
            else:
                part = {name: values[:, start : start + count] for name, values in noise.items()}
            yield self(batch, part)

    def forward(self, batch: Batch, noise: Noise) -> DistributionSample:
        """Turn noise into group elements.

        Args:
            batch: The inputs x.
            noise: ε of `draw_noise`.

        Returns:
            `DistributionSample`: elements with leading shape `(batch, num_samples)`.

        Raises:
            ValueError: If a frame needs something that the batch lacks, or is too large for an exact average.
        """
        # Scores need every digit: in half precision they tie, and ties fall back to the stored order and leak it.
        with torch.autocast(batch.node_mask.device.type, enabled=False):
            if self.kind == "none":
                num_samples = next(iter(noise.values())).shape[1]
                return DistributionSample(self.group.identity(batch.node_mask, num_samples))
            if self.kind == "exact":
                sample = self._enumerate(batch, noise)
            elif self.interface is not None:
                sample = self._draw_learned(batch, noise)
            elif self.kind in ("frame", "haar"):
                parts = []
                for factor in self.group.factors:
                    own = noise[factor.name]
                    scores = self._frame_scores(factor, batch, own) if self.kind == "frame" else own
                    parts.append(factor.project(scores, batch.node_mask, own))
                sample = DistributionSample(self.group.join(parts))
            else:
                raise NotImplementedError(f"distribution {self.kind!r}: nothing here says how to draw from it.")
            if self.group.has_translations:
                moved = self.group.move_to(sample.elements, centroid(batch, self.inputs))
                sample = sample._replace(elements=moved)
        return sample if self.kind == "exact" else sample._replace(block_size=self.sampler_group_size)

    def _draw_learned(self, batch: Batch, noise: Noise) -> DistributionSample:
        interface, dtype = self.interface, next(self.interface.parameters()).dtype
        options: dict[str, Any] = {}
        scaled = None
        if self.noise_scale:
            scaled = self.noise_scale * noise["interface"] if "interface" in noise else None
        else:
            # Where nothing but rounding tells nodes apart, and the terms of their scores cancel, rounding would break the ties.
            # In double precision only the rounding of the data is left.
            options["dtype"] = torch.float64
        if isinstance(interface, VectorInterface):
            options["ties"] = noise.get("S_n")
        raw = interface.scores(batch, scaled, **options)
        tolerances = {} if self.noise_scale else interface.tolerances(batch, raw, noise)
        parts: list[Element] = []
        entropy = prior_loss = None
        for factor in self.group.factors:
            own = noise[factor.name]
            # Without noise all samples have the same scores: they are computed once.
            scores = raw[factor.name].expand(-1, own.shape[1], *raw[factor.name].shape[2:])
            if factor.score_letter == "g":
                prior_loss = identity_prior_loss(raw[factor.name].flatten(0, 1))
                scores = scores + self.noise_scale * own if self.noise_scale else scores
            element = factor.project(scores, batch.node_mask, own, tolerances.get(factor.name))
            if torch.is_grad_enabled() and scores.requires_grad:
                scores = scores.to(torch.promote_types(dtype, torch.float32))
                element, entropy_here = factor.relax(
                    element, scores, batch.node_mask, self.temperature, self.sinkhorn_iterations, self.temperature_rule
                )
                entropy = entropy if entropy_here is None else entropy_here
            parts.append(element)
        return DistributionSample(self.group.join(parts), entropy, prior_loss)

    def _frame_scores(self, factor: Group, batch: Batch, noise: Tensor) -> Tensor:
        """Scores whose projection is a random element of the frame."""
        if factor.score_letter == "n":
            return noise.double() - self._frame_ranks(batch).unsqueeze(1)
        return self._principal_axes(batch, noise)

    def _frame_ranks(self, batch: Batch) -> Tensor:
        """Ranks of the nodes in the frame of a graph, or, in systems of points, by their distance from the centroid."""
        if self._vector_inputs:
            distance = torch.linalg.vector_norm(self._centred_vectors(batch).detach().double(), dim=-1)
            distance = distance.unflatten(1, (batch.node_mask.shape[1], -1)).sum(dim=-1)
            values, order = distance.sort(dim=-1)
            channels = [axes.num_channels for axes in self._vector_inputs.values()]
            error = (vector_errors(batch, self.inputs) * distance.new_tensor(channels)).sum(dim=-1, keepdim=True)
            # Of a vector and of the centroid, and of both of two distances.
            error = 4 * self._dimension**0.5 * error
            return torch.empty_like(order).scatter(-1, order, number_levels(values, error))
        ranks = batch.frame_ranks
        if ranks is None:
            raise ValueError(
                f"frame_ranks: expected an int64 tensor of shape (batch, nodes) for distribution {self.kind!r}, got None. "
                f"LPSProcessor adds it when its config says distribution={self.kind!r}."
            )
        if ranks.shape != batch.node_mask.shape:
            raise ValueError(f"frame_ranks: expected shape {tuple(batch.node_mask.shape)}, got {tuple(ranks.shape)}.")
        return ranks

    @property
    def _dimension(self) -> int:
        assert self.group.dimension is not None  # groups with vectors have one
        return self.group.dimension

    def _principal_axes(self, batch: Batch, noise: Tensor) -> Tensor:
        return principal_axes(self._centred_vectors(batch), noise, self._vector_error(batch))

    def _vector_error(self, batch: Batch) -> Tensor:
        """How far all vectors of an input together may be from the true ones, (batch,)."""
        sizes = [axes.num_channels * self._dimension for axes in self._vector_inputs.values()]
        errors = vector_errors(batch, self.inputs)
        rows = batch.node_mask.sum(dim=1).clamp(min=1)
        return ((errors.square() * errors.new_tensor(sizes)).sum(dim=1) * rows).sqrt()

    def _centred_vectors(self, batch: Batch) -> Tensor:
        """All vectors of all nodes, points centred where the group moves them, (batch, nodes * channels, d), zero on padding."""
        middle = centroid(batch, self.inputs)[:, None, :, None] if self.group.has_translations else 0.0
        columns = []
        for name, axes in self._vector_inputs.items():
            vectors = vector_channels(batch.fields[name], axes)
            vectors = vectors - middle if axes.count("p") else vectors
            if batch.node_mask.shape[1]:
                vectors = vectors.expand(-1, batch.node_mask.shape[1], -1, -1)
                vectors = vectors.masked_fill(~batch.node_mask[:, :, None, None], 0.0)
            columns.append(vectors)
        return torch.cat(columns, dim=-1).mT.flatten(1, 2)

    def _may_be_infinite(self, batch: Batch) -> bool:
        """Whether the frame of an input is infinite; in a compiled graph, which cannot ask for it, whether it may be."""
        if not any(factor.score_letter == "v" for factor in self.group.factors):
            return False
        return torch.compiler.is_compiling() or bool(self._infinite_rows(batch).any())

    def _infinite_rows(self, batch: Batch) -> Tensor:
        vectors = self._centred_vectors(batch)
        reads_all = len(self._vector_inputs) == sum(bool(axes.letters & {"v", "p"}) for axes in self.inputs.values())
        return has_infinite_frame(vectors, self._vector_error(batch), spans_input=reads_all)

    def _draw_blocks(
        self, batch: Batch, num_samples: int, noise: Noise | None, generator: torch.Generator | None, in_parts: bool
    ) -> Iterator[DistributionSample]:
        """Axes of infinite frames, drawn at least twice for the sake of an error bar; all at once or one after another."""
        size = self.sampler_group_size
        if noise is None:
            noise = self.draw_noise(batch, max(2 * size, -(-num_samples // size) * size), generator)
        count = next(iter(noise.values())).shape[1]
        step = min(size, count) if in_parts else count
        for start in range(0, count, step):
            yield self(batch, {name: values[:, start : start + step] for name, values in noise.items()})

    def _enumerate(self, batch: Batch, noise: Noise) -> DistributionSample:
        """Every element of the frame, or a block of elements for every sample of the noise where a frame is infinite."""
        if not self._may_be_infinite(batch):
            return self._combine(batch, {name: values[:, :1] for name, values in noise.items()})
        sample = self._combine(batch, noise, self._infinite_rows(batch))
        num_blocks = next(iter(noise.values())).shape[1]
        # Dependent noise makes dependent blocks.
        dependent = sample.elements.num_samples // num_blocks * min(self.sampler_group_size, num_blocks)
        return sample._replace(weights=None, block_size=dependent)

    def _combine(self, batch: Batch, noise: Noise, infinite: Tensor | None = None) -> DistributionSample:
        """Every element of the frame of every factor, and every combination of them in a product, for every sample of the noise.

        With `infinite` (batch,), which says where frames are, all weights are equal.
        """
        parts: list[Element] = []
        weights = torch.ones(batch.node_mask.shape[0], 1, dtype=torch.float64, device=batch.node_mask.device)
        block = torch.arange(next(iter(noise.values())).shape[1], device=weights.device)
        for factor in self.group.factors:
            part, own = self._enumerate_factor(factor, batch, noise[factor.name], infinite)
            sizes = weights.shape[1], own.shape[1]
            weights = (weights.unsqueeze(2) * own.unsqueeze(1)).flatten(1)
            places = (torch.arange(size, device=weights.device) for size in sizes)
            number, before, after = torch.cartesian_prod(block, *places).unbind(-1)
            parts = [*(_select_samples(one, number * sizes[0] + before) for one in parts)]
            parts.append(_select_samples(part, number * sizes[1] + after))
        return DistributionSample(self.group.join(parts), weights=weights)

    def _enumerate_factor(self, factor: Group, batch: Batch, noise: Tensor, infinite: Tensor | None) -> tuple[Element, Tensor]:
        """The elements of a factor's frame for every sample of the noise, one sample after another, and the weights of one."""
        kind, num_blocks = factor.score_letter, noise.shape[1]
        if kind == "n":
            ranks = self._frame_ranks(batch)
            if infinite is None:
                index, weights = orders_of_frame(ranks, batch.node_mask)
                return Permutation(index), weights
            # What is drawn anyway needs no more than one of its orders, which are often too many.
            drawn = factor.project(noise.double() - ranks.unsqueeze(1), batch.node_mask, noise).index
            single = torch.arange(ranks.shape[1], device=ranks.device)
            ranks = torch.where(infinite.unsqueeze(-1), single, ranks)
            index, weights = orders_of_frame(ranks, batch.node_mask, equally_often=True)
            index = torch.where(infinite.view(-1, 1, 1, 1), drawn.unsqueeze(2), index.unsqueeze(1))
            return Permutation(index.flatten(1, 2)), weights
        if kind == "g":
            assert isinstance(factor, PlaneGroup)
            elements: Element = factor.enumerate(batch.node_mask)
            size = elements.num_samples
            elements = _select_samples(elements, torch.arange(size, device=noise.device).repeat(num_blocks))
        else:
            signs = sign_choices(self._dimension, noise.device).unsqueeze(-2)
            signed = (self._principal_axes(batch, noise).unsqueeze(2) * signs).flatten(1, 2)
            size = len(signs)
            # A group without reflections meets every rotation twice, which the average does not notice.
            elements = factor.project(signed, batch.node_mask, signed)
        return elements, torch.full((batch.node_mask.shape[0], size), 1 / size, dtype=torch.float64, device=noise.device)


def _select_samples(elements: Element, samples: Tensor | slice) -> Element:
    return elements.map(lambda tensor: tensor[:, samples])
