"""Groups and their elements: Haar measure, composition, inverse and action; the registry of group names."""

from abc import ABC, abstractmethod
from dataclasses import replace
from itertools import permutations as all_orders

import torch
from torch import Tensor

from .permutations import compose, inverse, permute, sort_nodes
from .representations import EdgeField, FieldType, Permutation, Representation


class Group(ABC):
    """What every group knows. Elements are values with leading shape `(batch, num_samples)`; nothing is stored here.

    Subclasses define `name`, the axis `letters` they act on, and the abstract methods. `compose(g, h)` applies h first.
    """

    name: str
    letters: frozenset[str]

    @abstractmethod
    def identity(self, batch: int, num_samples: int, num_nodes: int, device: torch.device | None = None) -> Permutation:
        """The identity, with leading shape `(batch, num_samples)`."""

    @abstractmethod
    def haar(self, node_mask: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Permutation:
        """Draw from the Haar measure, with leading shape `(batch, num_samples)`."""

    @abstractmethod
    def compose(self, left: Permutation, right: Permutation) -> Permutation:
        """Compose elements, `right` acts first."""

    @abstractmethod
    def inverse(self, elements: Permutation) -> Permutation:
        """Invert elements."""

    @abstractmethod
    def act(self, elements: Permutation, field: FieldType, representation: Representation) -> FieldType:
        """Apply the action ρ(g)."""

    @abstractmethod
    def act_inverse(self, elements: Permutation, field: FieldType, representation: Representation) -> FieldType:
        """Apply ρ(g)⁻¹."""

    def check_acts_on(self, representation: Representation, argument: str) -> None:
        """Refuse a representation with an axis that this group does not act on.

        Args:
            representation: The parsed axis string.
            argument: Where the string was given, for the message.

        Raises:
            ValueError: If there is such an axis.
        """
        unknown = sorted(representation.letters - self.letters)
        if unknown:
            raise ValueError(
                f"{argument} {str(representation)!r}: the group {self.name} does not act on axis {unknown[0]!r}, only on "
                f"{', '.join(map(repr, sorted(self.letters)))}. Choose another group or describe the axis as channels."
            )

    def __repr__(self) -> str:
        return f"Group({self.name!r})"


class SymmetricGroup(Group):
    """S_n, the permutations of n nodes, for graphs of different sizes in one batch: padding stays where it is."""

    name = "S_n"
    letters = frozenset({"n"})

    def identity(self, batch: int, num_samples: int, num_nodes: int, device: torch.device | None = None) -> Permutation:
        """The identity, as a `Permutation` of shape `(batch, num_samples, num_nodes)`."""
        return Permutation(torch.arange(num_nodes, device=device).expand(batch, num_samples, num_nodes))

    def haar(self, node_mask: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Permutation:
        """Draw from the Haar measure: every order of the nodes is equally likely.

        Args:
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes; padding is left in place.
            num_samples: Number of independent draws per graph.
            generator: Random source on the mask's device.

        Returns:
            `Permutation` with index of shape `(batch, num_samples, nodes)`.
        """
        shape = (node_mask.shape[0], num_samples, node_mask.shape[1])
        # float64: two equal float32 numbers among a thousand nodes are common enough to favour the stored order.
        scores = torch.rand(shape, generator=generator, device=node_mask.device, dtype=torch.float64)
        return Permutation(sort_nodes(scores, node_mask))

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

    def act(self, elements: Permutation, field: FieldType, representation: Representation) -> FieldType:
        """Apply the action ρ(g): node i moves to place g(i) on every node axis.

        Args:
            elements: Group elements, leading shape `(batch, num_samples)`.
            field (`torch.Tensor` of shape `(batch, num_samples or 1, *axes)` or `EdgeField`): The field.
            representation: What each axis is.

        Returns:
            The field ρ(g)·x, of shape `(batch, num_samples, *axes)` or an `EdgeField`.

        Raises:
            ValueError: If S_n does not act on an axis.
        """
        if isinstance(field, EdgeField):
            return self.act_inverse(self.inverse(elements), field, representation)
        return self._permute_axes(elements, field, representation, transpose=False)

    def act_inverse(self, elements: Permutation, field: FieldType, representation: Representation) -> FieldType:
        """Apply ρ(g)⁻¹; same arguments as `act`. A gradient reaches the elements' soft matrix."""
        if isinstance(field, EdgeField):
            self.check_acts_on(representation, "representation")
            if field.permutation is not None:
                elements = self.compose(field.permutation, elements)
            return replace(field, permutation=elements)
        return self._permute_axes(elements, field, representation, transpose=True)

    def _permute_axes(self, elements: Permutation, field: Tensor, representation: Representation, transpose: bool) -> Tensor:
        self.check_acts_on(representation, "representation")
        for position, axis in enumerate(representation.axes):
            if axis == "n":
                field = permute(field, elements, dim=2 + position, transpose=transpose)
        if not representation.count("n"):
            field = field.expand(-1, elements.index.shape[1], *field.shape[2:])
        return field


GROUPS: dict[str, Group] = {"S_n": SymmetricGroup()}


def get_group(name: str) -> Group:
    """Look a group up by its name, such as `"S_n"`.

    Raises:
        ValueError: If there is no such group.
    """
    if name not in GROUPS:
        raise ValueError(f"group: expected one of {', '.join(map(repr, GROUPS))}, got {name!r}.")
    return GROUPS[name]
