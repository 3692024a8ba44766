"""The registry of groups by name, and their products."""

import re
from typing import Any

import torch
from torch import Tensor

from .elements import Element, ProductElement
from .group import Group
from .orthogonal_groups import EuclideanGroup, OrthogonalGroup, SpecialEuclideanGroup, SpecialOrthogonalGroup, UnitaryGroup
from .plane_groups import CyclicGroup, DihedralGroup
from .representations import FieldType, Representation
from .samplers import INDEPENDENT, Sampler
from .symmetric_group import SymmetricGroup


class ProductGroup(Group[ProductElement]):
    """A direct product of groups that act on different axes, such as S_n x E(3).

    Args:
        factors: The groups.

    Raises:
        ValueError: If two factors act on the same axis.
    """

    def __init__(self, *factors: Group) -> None:
        self._factors = factors
        self.name = " x ".join(factor.name for factor in factors)
        self.letters = frozenset(letter for factor in factors for letter in factor.letters)
        self.dimension = next((factor.dimension for factor in factors if factor.dimension), None)
        self.default_temperature = max(factor.default_temperature for factor in factors)
        self.has_translations = any(factor.has_translations for factor in factors)
        if sum(len(factor.letters) for factor in factors) != len(self.letters):
            raise ValueError(f"group {self.name!r}: expected factors that act on different axes, got two that act on the same.")

    @property
    def factors(self) -> tuple[Group, ...]:
        """The groups that this one is a product of."""
        return self._factors

    def is_trivial(self, node_mask: Tensor) -> Tensor:
        """Where every factor is."""
        return torch.stack([factor.is_trivial(node_mask) for factor in self.factors]).all(dim=0)

    def join(self, parts: list[Element]) -> ProductElement:
        """Put elements of the factors together."""
        return ProductElement(tuple(parts))

    def identity(self, node_mask: Tensor, num_samples: int) -> ProductElement:
        """The identity of every factor."""
        return ProductElement(tuple(factor.identity(node_mask, num_samples) for factor in self.factors))

    def draw_scores(
        self,
        node_mask: Tensor,
        num_samples: int,
        generator: torch.Generator | None = None,
        sampler: Sampler = INDEPENDENT,
    ) -> Tensor:
        """A product has scores for every factor and none of its own."""
        raise NotImplementedError(f"group {self.name}: draw scores of its factors.")

    def project(self, scores: Tensor, node_mask: Tensor, noise: Tensor, tolerance: Tensor | None = None) -> ProductElement:
        """A product has scores for every factor and none of its own."""
        raise NotImplementedError(f"group {self.name}: project scores onto its factors, and join them.")

    def haar(self, node_mask: Tensor, num_samples: int, generator: torch.Generator | None = None) -> ProductElement:
        """Draw from the Haar measure of every factor; see `Group.haar`."""
        return ProductElement(tuple(factor.haar(node_mask, num_samples, generator) for factor in self.factors))

    def move_to(self, elements: ProductElement, centroid: Tensor) -> ProductElement:
        """Give the factors with translations that of the centroid, (batch, d)."""
        pairs = zip(self.factors, elements.factors, strict=True)
        return ProductElement(tuple(factor.move_to(part, centroid) for factor, part in pairs))

    def compose(self, left: ProductElement, right: ProductElement) -> ProductElement:
        """Compose elements factor by factor, `right` acts first."""
        triples = zip(self.factors, left.factors, right.factors, strict=True)
        return ProductElement(tuple(factor.compose(one, other) for factor, one, other in triples))

    def inverse(self, elements: ProductElement) -> ProductElement:
        """Invert elements factor by factor."""
        pairs = zip(self.factors, elements.factors, strict=True)
        return ProductElement(tuple(factor.inverse(part) for factor, part in pairs))

    def from_tensors(self, tensors: Any, node_mask: Tensor) -> ProductElement:
        """Check a tuple with the elements of every factor."""
        if not isinstance(tensors, tuple | list) or len(tensors) != len(self.factors):
            raise ValueError(
                f"group_elements: expected a tuple with one entry for each of {', '.join(f.name for f in self.factors)}, got "
                f"{type(tensors).__name__}{f' of {len(tensors)}' if isinstance(tensors, tuple | list) else ''}."
            )
        pairs = zip(self.factors, tensors, strict=True)
        elements = ProductElement(tuple(factor.from_tensors(part, node_mask) for factor, part in pairs))
        counts = [part.num_samples for part in elements.factors]
        if any(count != counts[0] for count in counts):
            raise ValueError(f"group_elements: expected the same number of samples of every factor, got {sorted(set(counts))}.")
        return elements

    def transform(self, elements: ProductElement, field: FieldType, representation: Representation, invert: bool) -> FieldType:
        """Apply the action of every factor to its own axes."""
        pairs = list(zip(self.factors, elements.factors, strict=True))
        # The factors commute. But translations come last in g, and so first in g⁻¹: what is permuted is then centred, and the
        # gradient of a soft permutation, a product with what it permutes, does not depend on where the origin is.
        pairs.sort(key=lambda pair: pair[0].has_translations, reverse=invert)
        for factor, part in pairs:
            field = factor.transform(part, field, representation, invert)
        return field


# Adding a group is one class and one line here. `{}` stands for its number.
GROUPS: dict[str, type[Group]] = {
    "S_n": SymmetricGroup,
    "O({})": OrthogonalGroup,
    "SO({})": SpecialOrthogonalGroup,
    "E({})": EuclideanGroup,
    "SE({})": SpecialEuclideanGroup,
    "U({})": UnitaryGroup,
    "C_{}": CyclicGroup,
    "D_{}": DihedralGroup,
}


def get_group(name: str) -> Group:
    """Look a group up by its name, such as `"S_n"`, `"SO(3)"`, `"D_4"` or a product `"S_n x E(3)"`.

    Raises:
        TypeError: If the name is not a string.
        ValueError: If there is no such group, or a product is impossible.
    """
    if not isinstance(name, str):
        raise TypeError(f"group: expected a str such as 'S_n', got {type(name).__name__} {name!r}.")
    # A table and not lru_cache, of which torch.compile warns.
    if name not in _PARSED:
        _PARSED[name] = _parse_group(name)
    return _PARSED[name]


_PARSED: dict[str, Group] = {}


def _parse_group(name: str) -> Group:
    factors = [_simple_group(part.strip(), name) for part in re.split(r"\s[x×]\s", name)]
    return factors[0] if len(factors) == 1 else ProductGroup(*factors)


def _simple_group(name: str, given: str) -> Group:
    for pattern, group in GROUPS.items():
        match = re.fullmatch(re.escape(pattern).replace(r"\{\}", r"(\d+)"), name)
        if match:
            return group(*map(int, match.groups()))
    known = ", ".join(repr(pattern.format("n" if "_" in pattern else 3)) for pattern in GROUPS)
    raise ValueError(
        f"group: expected one of {known} (3 and n for any number), or a product such as 'S_n x E(3)', got {given!r}."
    )
