"""Group elements as values: batches of them with leading shape `(batch, num_samples)`, stored nowhere between two calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from .soft_permutations import SoftPermutation


@dataclass(frozen=True)
class Element:
    """What all kinds of group elements share."""

    def map(self: "ElementType", function: Callable[[Tensor], Tensor]) -> "ElementType":
        """The same kind of element with `function` applied to each of its tensors, for indexing, expanding or moving them."""
        mapped: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                mapped[field.name] = tuple(part.map(function) for part in value)
            elif isinstance(value, SoftPermutation):
                mapped[field.name] = value.map(function)
            else:
                mapped[field.name] = None if value is None else function(value)
        return type(self)(**mapped)

    def concatenate(self: "ElementType", others: "Sequence[ElementType]") -> "ElementType":
        """More samples of the same kind, hard ones, one after another."""
        joined: dict[str, Any] = {}
        for field in fields(self):
            values = [getattr(element, field.name) for element in (self, *others)]
            if field.name == "soft":
                joined[field.name] = None
            elif isinstance(values[0], tuple):
                joined[field.name] = tuple(first.concatenate(rest) for first, *rest in zip(*values, strict=True))
            else:
                joined[field.name] = torch.cat(values, dim=1)
        return type(self)(**joined)

    def select(self: "ElementType", rows: Tensor) -> "ElementType":
        """The elements of some inputs, by number or mask."""
        return self.map(lambda tensor: tensor[rows])

    def all_equal(self) -> Tensor:
        """For which inputs all samples are one and the same element, (batch,) bool."""
        equal: list[Tensor] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                equal += [part.all_equal() for part in value]
            elif field.name != "soft":
                equal.append((value == value[:, :1]).flatten(1).all(dim=1))
        return torch.stack(equal).all(dim=0)

    @property
    def tensors(self) -> Any:
        """The element as plain tensors, as `group_elements` of a model has it: one tensor, or a tuple of those of its parts."""
        first, *others = (getattr(self, field.name) for field in fields(self) if field.name != "soft")
        if isinstance(first, tuple):
            return tuple(part.tensors for part in first)
        return (first, *others) if others else first

    @property
    def num_samples(self) -> int:
        """Number of elements per input."""
        tensors = self.tensors
        while isinstance(tensors, tuple):
            tensors = tensors[0]
        return tensors.shape[1]


ElementType = TypeVar("ElementType", bound=Element)


@dataclass(frozen=True)
class Permutation(Element):
    """Permutations g, stored as ranks to nodes, with the soft matrix that carries the gradient.

    `index[..., r] = g(r)` is the node that comes to rank r, so `g⁻¹·x = x[index]`.
    """

    index: Tensor
    """(batch, num_samples, nodes) int64."""
    soft: SoftPermutation | None = None
    """The doubly stochastic relaxation P̂, or `None` where no gradient is wanted."""

    @property
    def rank(self) -> Tensor:
        """(batch, num_samples, nodes) int64: g⁻¹, the rank of each node."""
        return self.index.argsort(dim=-1)


@dataclass(frozen=True)
class LinearMap(Element):
    """Orthogonal or unitary matrices Q: a vector x goes to Q x."""

    matrix: Tensor
    """(batch, num_samples, d, d)."""


@dataclass(frozen=True)
class RigidMotion(Element):
    """Elements of E(d): a vector v goes to Q v, a point x to Q x + t."""

    matrix: Tensor
    """(batch, num_samples, d, d): Q."""
    translation: Tensor
    """(batch, num_samples, d): t, in the unit of the positions."""


@dataclass(frozen=True)
class FiniteElement(Element):
    """Elements of a finite group by their number, with the probabilities that carry the gradient."""

    index: Tensor
    """(batch, num_samples) int64."""
    soft: Tensor | None = None
    """(batch, num_samples, group order) probabilities, or `None` where no gradient is wanted."""


@dataclass(frozen=True)
class ProductElement(Element):
    """One element of every factor of a product of groups, in the factors' order."""

    factors: tuple[Element, ...]
