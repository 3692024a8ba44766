"""Axis strings: what each axis of a field is, and so how a group acts on it.

A field is described by its axes, separated by spaces: `n` is a node axis (S_n permutes it), `v` a vector axis (O(d) rotates
it), `p` a point axis (E(d) rotates and translates it), `h w` an image plane (C_n and D_n turn it), `g` an axis with one place
for every element of a finite group (which moves them by left multiplication: the regular representation), and a whole number
counts invariant channels. `"n n 3"` is a tensor with three channels for every ordered pair of nodes, `"10"` is ten invariants.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .elements import Permutation

AXIS_MEANINGS = {
    "n": "node",
    "v": "vector",
    "p": "point",
    "h": "image height",
    "w": "image width",
    "g": "group element",
}
# A field with each axis, and a group that acts on it, for messages.
EXAMPLE_FIELDS = {"n": "n 3", "v": "n v", "p": "n p", "h": "3 h w", "w": "3 h w", "g": "g"}
EXAMPLE_GROUPS = {"n": "S_n", "v": "O(3)", "p": "E(3)", "h": "C_4", "w": "C_4", "g": "C_4"}


@dataclass(frozen=True)
class Representation:
    """The parsed form of an axis string; immutable, compares by value, prints as the string itself.

    Args:
        axes: One entry per axis in order: a letter of `AXIS_MEANINGS`, or the number of invariant channels.

    Raises:
        ValueError: If an axis is unknown or the combination has no meaning.
    """

    axes: tuple[str | int, ...]

    def __post_init__(self) -> None:
        text = " ".join(map(str, self.axes))
        for axis in self.axes:
            if isinstance(axis, int) and axis < 1:
                raise ValueError(f"axis string {text!r}: expected at least 1 channel, got {axis}.")
            if isinstance(axis, str) and axis not in AXIS_MEANINGS:
                known = ", ".join(f"{letter!r} ({meaning})" for letter, meaning in AXIS_MEANINGS.items())
                raise ValueError(
                    f"axis string {text!r}: unknown axis {axis!r}. Expected axes separated by spaces, each one of {known} "
                    "or a number of channels, as in 'n n 3'."
                )
        if not self.axes:
            raise ValueError("axis string is empty. Expected for example '10', 'n 9' or 'n n 3'.")
        if sum(isinstance(axis, int) for axis in self.axes) > 1:
            raise ValueError(f"axis string {text!r}: expected at most one number of channels. Multiply them into one.")
        if self.count("v") + self.count("p") > 1:
            raise ValueError(f"axis string {text!r}: expected at most one vector or point axis.")
        if (self.count("h") or self.count("w")) and (self.count("h"), self.count("w"), "h w" in text) != (1, 1, True):
            raise ValueError(f"axis string {text!r}: an image plane is written 'h w', as in '3 h w'.")

    @classmethod
    def parse(cls, text: "str | Representation") -> "Representation":
        """Parse an axis string such as `"n n 3"`.

        Args:
            text: The axis string; an already parsed one is returned as it is.

        Returns:
            `Representation`: The parsed value.

        Raises:
            TypeError: If `text` is not a string.
            ValueError: If the string has no meaning.
        """
        if isinstance(text, Representation):
            return text
        if not isinstance(text, str):
            raise TypeError(f"axis string: expected a str such as 'n n 3', got {type(text).__name__} {text!r}.")
        return cls(tuple(int(axis) if axis.removeprefix("-").isdecimal() else axis for axis in text.split()))

    def count(self, letter: str) -> int:
        """Number of axes with this letter."""
        return sum(axis == letter for axis in self.axes)

    @property
    def letters(self) -> frozenset[str]:
        """The letters that occur: what a group has to know how to act on."""
        return frozenset(axis for axis in self.axes if isinstance(axis, str))

    @property
    def num_channels(self) -> int:
        """The number of invariant channels; 1 when the string names none."""
        return next((axis for axis in self.axes if isinstance(axis, int)), 1)

    def width(self, dimension: int | None) -> int:
        """How many numbers stand at each place of the node axes: channels times the `dimension` of a vector or point axis."""
        return self.num_channels * (dimension or 1) ** (self.count("v") + self.count("p"))

    def __str__(self) -> str:
        return " ".join(map(str, self.axes))

    def __repr__(self) -> str:
        return f"Representation({str(self)!r})"


@dataclass(frozen=True)
class EdgeField:
    """A field with two node axes ("n n c"), given by its non-zero entries, and the permutation it is to be seen through.

    Acting on it costs nothing: the permutation is kept beside the list, and whoever reads an end i reads its rank g⁻¹(i).
    """

    index: Tensor
    """(batch, 2, edges) int64: source and target of each edge, local to its graph."""
    features: Tensor
    """(batch, edges, entries): the entries of each edge; repeated edges add up. Zero on padding."""
    permutation: Permutation | None = None
    channels: Tensor | None = None
    """(batch, edges, entries) int64: the channel of each entry; `None` where every edge lists all channels in order."""

    @property
    def entry_channels(self) -> Tensor:
        """The channel of each entry, (batch, edges, entries)."""
        if self.channels is not None:
            return self.channels
        return torch.arange(self.features.shape[-1], device=self.features.device).expand(self.features.shape)

    def with_diagonal(self, nodes: Tensor, first_channel: int) -> "EdgeField":
        """Put features of nodes on the diagonal, seen through the same permutation.

        Args:
            nodes (`torch.Tensor` of shape `(batch, nodes, channels)`): Zero on padding.
            first_channel: The channel of the edge tensor that holds the first of them.

        Returns:
            `EdgeField`: With an entry list that is longer by the nodes.
        """
        batch, num_nodes, width = nodes.shape
        places = torch.arange(num_nodes, device=nodes.device).expand(batch, 2, num_nodes)
        channels = torch.arange(first_channel, first_channel + width, device=nodes.device).expand(nodes.shape)
        entries = max(width, self.features.shape[2])
        features = [F.pad(part, (0, entries - part.shape[2])) for part in (self.features, nodes)]
        numbers = [F.pad(part, (0, entries - part.shape[2])) for part in (self.entry_channels, channels)]
        return replace(
            self,
            index=torch.cat([self.index, places], dim=2),
            features=torch.cat(features, dim=1),
            channels=torch.cat(numbers, dim=1),
        )


Field = Tensor | EdgeField
FieldType = TypeVar("FieldType", Tensor, EdgeField)
"""Acting on a field gives a field of the same kind."""


class Batch(NamedTuple):
    """A batch of inputs x as the method sees it."""

    fields: dict[str, Field]
    """The input fields by name; dense ones of shape (batch, *axes), edges as an `EdgeField`."""
    node_mask: Tensor
    """(batch, nodes) bool: true on nodes. No nodes at all where no field has a node axis."""
    edge_index: Tensor
    """(batch, 2, edges) int64, zero on padding."""
    edge_mask: Tensor
    """(batch, edges) bool."""
    frame_ranks: Tensor | None = None
    """(batch, nodes) int64: rank of each node in the predefined frame of a graph."""
    precision: torch.dtype | None = None
    """The coarsest type that numbers came in, before they were converted; `None` where the fields still have it."""

    def select(self, rows: Tensor) -> "Batch":
        """The inputs of some rows, (rows,) int64."""
        fields: dict[str, Field] = {}
        for name, field in self.fields.items():
            if isinstance(field, EdgeField):
                channels = None if field.channels is None else field.channels[rows]
                fields[name] = replace(field, index=field.index[rows], features=field.features[rows], channels=channels)
            else:
                fields[name] = field[rows]
        ranks = None if self.frame_ranks is None else self.frame_ranks[rows]
        return self._replace(
            fields=fields,
            node_mask=self.node_mask[rows],
            edge_index=self.edge_index[rows],
            edge_mask=self.edge_mask[rows],
            frame_ranks=ranks,
        )

    @property
    def rounding(self) -> float:
        """The relative error of the numbers: that of the coarsest type that they came in."""
        features = [field.features if isinstance(field, EdgeField) else field for field in self.fields.values()]
        types = [field.dtype for field in features] if self.precision is None else [self.precision]
        return max([0.0, *(torch.finfo(one).eps for one in types)])
