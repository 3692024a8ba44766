"""S_n: permutations of nodes."""

from dataclasses import replace
from itertools import permutations as all_orders
from typing import Any

import torch
from torch import Tensor

from .elements import Permutation
from .group import DISTRIBUTIONS, Group, check_tensor, expand_samples, tie_margin
from .permutations import compose, inverse, number_levels, permute, sort_nodes
from .representations import EdgeField, FieldType, Representation
from .samplers import INDEPENDENT, Sampler
from .soft_permutations import soft_permutation


class SymmetricGroup(Group[Permutation]):
    """S_n, the permutations of n nodes, for inputs of different sizes in one batch: padding stays where it is."""

    name = "S_n"
    letters = frozenset({"n"})
    score = Representation.parse("n")
    default_temperature = 0.01
    distributions = DISTRIBUTIONS

    def is_trivial(self, node_mask: Tensor) -> Tensor:
        """True where there is one node, or none."""
        return node_mask.sum(dim=1) <= 1

    def identity(self, node_mask: Tensor, num_samples: int) -> Permutation:
        """The identity, as a `Permutation` of shape `(batch, num_samples, nodes)`."""
        batch, nodes = node_mask.shape
        return Permutation(torch.arange(nodes, device=node_mask.device).expand(batch, num_samples, nodes))

    def draw_scores(
        self,
        node_mask: Tensor,
        num_samples: int,
        generator: torch.Generator | None = None,
        sampler: Sampler = INDEPENDENT,
    ) -> Tensor:
        """Uniform(0, 1) for every node, (batch, num_samples, nodes)."""
        shape = (node_mask.shape[0], num_samples, node_mask.shape[1])
        # float64: two equal float32 numbers among a thousand nodes are common enough to favour the stored order.
        return sampler.uniform(shape, generator, node_mask.device, torch.float64)

    def project(self, scores: Tensor, node_mask: Tensor, noise: Tensor, tolerance: Tensor | None = None) -> Permutation:
        """Sort the nodes by their scores (batch, num_samples, nodes), in descending order.

        Nodes whose scores are equal up to rounding come in the order of the noise, Uniform(0, 1), and not in that of the rows.
        Noise decides nothing else.
        """
        order = sort_nodes(scores, node_mask)
        ordered = scores.detach().gather(-1, order).double()
        lowest, highest = _range(scores.detach().double(), node_mask)
        keys = noise.gather(-1, order) - number_levels(ordered, tie_margin(scores, lowest, highest, tolerance))
        # Stable: where noise ties as well, the scores decide.
        is_node = torch.arange(node_mask.shape[1], device=node_mask.device) < node_mask.sum(dim=1, keepdim=True)
        return Permutation(order.gather(-1, sort_nodes(keys, is_node)))

    def relax(
        self,
        elements: Permutation,
        scores: Tensor,
        node_mask: Tensor,
        temperature: float,
        num_iterations: int,
        temperature_rule: str = "published",
    ) -> tuple[Permutation, Tensor | None]:
        """Attach the soft matrix of SoftSort and Sinkhorn on scores of unit L2 norm, and give its entropy; see `Group.relax`."""
        scores = scores.masked_fill(~node_mask.unsqueeze(1), 0.0)
        scores = scores / torch.linalg.vector_norm(scores, dim=-1, keepdim=True).clamp(min=1e-6)
        tau: float | Tensor = temperature
        largest_span = 2**0.5 / temperature  # of numbers with unit norm
        if temperature_rule == "relative":
            gap = _mean_gap(scores.detach(), node_mask)
            tau, largest_span = temperature * gap.clamp(min=1e-12), node_mask.shape[1] / temperature
        soft = soft_permutation(scores, elements.index, node_mask, tau, num_iterations, largest_span)
        return Permutation(elements.index, soft), soft.entropy(node_mask).to(scores.dtype)

    def enumerate(self, num_nodes: int, device: torch.device | None = None) -> Permutation:
        """All n! elements, as one graph with n! samples: index of shape `(1, n!, num_nodes)`."""
        if not 1 <= num_nodes <= 8:
            raise ValueError(f"num_nodes: expected 1 to 8 (8! = 40320 elements), got {num_nodes}. Draw from haar() instead.")
        return Permutation(torch.tensor(list(all_orders(range(num_nodes))), device=device).unsqueeze(0))

    def compose(self, left: Permutation, right: Permutation) -> Permutation:
        """Compose elements: the result maps i to left(right(i))."""
        return Permutation(compose(left.index, right.index))

    def inverse(self, elements: Permutation) -> Permutation:
        """Invert elements."""
        return Permutation(inverse(elements.index))

    def from_tensors(self, tensors: Any, node_mask: Tensor) -> Permutation:
        """Check permutations (batch, num_samples, nodes) int64, rank to node."""
        batch, nodes = node_mask.shape
        index = check_tensor("group_elements", tensors, (batch, None, nodes))
        if index.dtype != torch.int64:
            raise TypeError(f"group_elements: expected int64, got {index.dtype}. Call .long().")
        if index.device.type == "cpu" and not torch.compiler.is_compiling():
            place = torch.arange(nodes)
            moves_padding = (index != place) & ~node_mask.unsqueeze(1)
            if not torch.equal(index.sort(dim=-1).values, place.expand_as(index)) or bool(moves_padding.any()):
                raise ValueError(
                    "group_elements: expected permutations of 0 to nodes - 1 that leave padding in its place, got something "
                    "else. Draw them with get_group('S_n').haar(node_mask, num_samples).tensors."
                )
        return Permutation(index)

    def transform(self, elements: Permutation, field: FieldType, representation: Representation, invert: bool) -> FieldType:
        """Move node i to place g(i) on every node axis, or back. An `EdgeField` keeps the permutation beside its list."""
        if isinstance(field, EdgeField):
            if not invert:
                elements = self.inverse(elements)
            if field.permutation is not None:
                elements = self.compose(field.permutation, elements)
            return replace(field, permutation=elements)
        for position, axis in enumerate(representation.axes):
            if axis == "n":
                field = permute(field, elements, dim=2 + position, transpose=invert)
        return field if representation.count("n") else expand_samples(field, elements.num_samples)


def _mean_gap(scores: Tensor, node_mask: Tensor) -> Tensor:
    """The mean gap between neighbouring scores (batch, num_samples, nodes), of shape (batch, num_samples, 1)."""
    lowest, highest = _range(scores, node_mask)
    return (highest - lowest) / (node_mask.sum(dim=-1)[:, None, None] - 1).clamp(min=1)


def _range(scores: Tensor, node_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest of the scores (batch, num_samples, nodes), of shape (batch, num_samples, 1)."""
    padding = ~node_mask.unsqueeze(1)
    lowest = scores.masked_fill(padding, torch.inf).amin(dim=-1, keepdim=True)
    return lowest, scores.masked_fill(padding, -torch.inf).amax(dim=-1, keepdim=True)
