"""What every group knows: Haar measure, composition, inverse, action, and how scores are turned into its elements."""

import math
from abc import ABC, abstractmethod
from typing import Any, Generic

import torch
from torch import Tensor

from .elements import Element, ElementType
from .field_types import checked_value, field_types
from .interface_networks import SMALLEST_TOLERANCE
from .representations import AXIS_MEANINGS, EXAMPLE_GROUPS, FieldType, Representation
from .samplers import INDEPENDENT, SAMPLERS, Sampler

DISTRIBUTIONS = ("learned", "canonical", "frame", "haar", "exact", "none")
# τ as it is, on scores of unit L2 norm; or in units of the mean gap between neighbouring scores.
TEMPERATURE_RULES = ("published", "relative")


def check_relaxation(noise_scale: float, temperature: float | None, temperature_rule: str, sinkhorn_iterations: int) -> None:
    """Refuse impossible settings of what a distribution learns with.

    Args:
        noise_scale: η.
        temperature: τ.
        temperature_rule: What τ is measured in.
        sinkhorn_iterations: Rounds of the soft matrix.

    Raises:
        ValueError: If one is out of range.
        TypeError: If one has the wrong type.
    """
    types = field_types(check_relaxation)
    for name, value in (
        ("noise_scale", noise_scale),
        ("temperature", temperature),
        ("temperature_rule", temperature_rule),
        ("sinkhorn_iterations", sinkhorn_iterations),
    ):
        checked_value(name, value, types[name])
    if not 0 <= noise_scale < math.inf:
        raise ValueError(f"noise_scale: expected a number of at least 0, got {noise_scale!r}.")
    if temperature is None or not 0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a positive number, got {temperature!r}.")
    if temperature_rule not in TEMPERATURE_RULES:
        known = ", ".join(map(repr, TEMPERATURE_RULES))
        raise ValueError(f"temperature_rule: expected one of {known}, got {temperature_rule!r}.")
    if sinkhorn_iterations < 0:
        raise ValueError(f"sinkhorn_iterations: expected at least 0, got {sinkhorn_iterations}.")


class Group(ABC, Generic[ElementType]):
    """A group and its action on the axes of a field. Elements are values; nothing is stored here.

    Every distribution over the group is made from *scores*: a field with the axes `score`, projected onto the group by an
    equivariant map, `project(ρ(h)·s) = h·project(s)`. Scores of pure noise give the Haar measure, scores of an equivariant
    network the learned distribution.

    Subclasses define `name`, the axis `letters` they act on, `score`, the `dimension` of vector axes where they have one, and
    the abstract methods. `compose(g, h)` applies h first.
    """

    name: str
    letters: frozenset[str]
    score: Representation
    dimension: int | None = None
    has_translations = False
    default_temperature = 0.1
    acts_on_complex = False
    distributions: tuple[str, ...] = ("haar", "none")
    """What is possible for any group; the others need a network or a frame that is made for it."""

    @property
    def score_letter(self) -> str:
        """The first axis of the scores: "n" for permutations, "v" for matrices, "g" for finite groups."""
        return str(self.score.axes[0])

    @property
    def factors(self) -> "tuple[Group, ...]":
        """The groups that this one is a product of."""
        return (self,)

    def temperature_by(self, rule: str) -> float:
        """The default of τ: in units of the mean gap 8 of them, whatever the group; that trained best of 1 and 8."""
        return 8.0 if rule == "relative" else self.default_temperature

    def is_trivial(self, node_mask: Tensor) -> Tensor:
        """For which inputs the identity is the only element, (batch,) bool: S_n of a single node."""
        return node_mask.new_zeros(node_mask.shape[0])  # and not its length, which a compiled program would fix

    def join(self, parts: list[Element]) -> Any:
        """Put elements of the factors together."""
        (only,) = parts
        return only

    @abstractmethod
    def identity(self, node_mask: Tensor, num_samples: int) -> ElementType:
        """The identity, with leading shape `(batch, num_samples)`.

        Args:
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes; groups that do not permute read its batch only.
            num_samples: Number of copies.
        """

    @abstractmethod
    def draw_scores(
        self,
        node_mask: Tensor,
        num_samples: int,
        generator: torch.Generator | None = None,
        sampler: Sampler = INDEPENDENT,
    ) -> Tensor:
        """Draw noise with the axes `score` from a law that the group leaves unchanged, in double precision.

        Args:
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): As for `identity`.
            num_samples: Number of draws: independent ones, or those of one group of the sampler.
            generator: Random source on the mask's device.
            sampler: How the draws depend on each other.

        Returns:
            `torch.Tensor` of shape `(batch, num_samples, *axes of score)`.
        """

    @abstractmethod
    def project(self, scores: Tensor, node_mask: Tensor, noise: Tensor, tolerance: Tensor | None = None) -> ElementType:
        """Turn scores into elements, equivariantly in scores and noise together.

        Args:
            scores (`torch.Tensor` of shape `(batch, num_samples, *axes of score)`): At least float32.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): As for `identity`.
            noise (`torch.Tensor` as `draw_scores` returns): Decides where the scores leave several elements open.
            tolerance (`torch.Tensor` of shape `(batch, num_samples or 1, 1)`): Differences of scores that are none: what the
                error of the data becomes. Default: the rounding error of the scores' type.
        """

    def haar(self, node_mask: Tensor, num_samples: int, generator: torch.Generator | None = None) -> ElementType:
        """Draw from the Haar measure.

        Args:
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes; padding is left in place.
            num_samples: Number of independent draws per input.
            generator: Random source on the mask's device.

        Returns:
            Elements with leading shape `(batch, num_samples)`.
        """
        noise = self.draw_scores(node_mask, num_samples, generator)
        return self.project(noise, node_mask, noise)

    def relax(
        self,
        elements: ElementType,
        scores: Tensor,
        node_mask: Tensor,
        temperature: float,
        num_iterations: int,
        temperature_rule: str = "published",
    ) -> tuple[ElementType, Tensor | None]:
        """Attach what carries the gradient from elements to scores; where the projection is differentiable, nothing.

        Args:
            elements: The projection of `scores`.
            scores (`torch.Tensor` of shape `(batch, num_samples, *axes of score)`): With a gradient.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
            temperature: τ > 0.
            num_iterations: Sinkhorn rounds.
            temperature_rule: What τ of a permutation is measured in; one of `TEMPERATURE_RULES`.

        Returns:
            The elements, and the entropy of the relaxation, shape `()`, where the method's regulariser has one.
        """
        return elements, None

    def move_to(self, elements: ElementType, centroid: Tensor) -> ElementType:
        """Give elements of groups with translations that of the centroid, (batch, d); of other groups, leave them."""
        return elements

    @abstractmethod
    def compose(self, left: ElementType, right: ElementType) -> ElementType:
        """Compose elements, `right` acts first."""

    @abstractmethod
    def inverse(self, elements: ElementType) -> ElementType:
        """Invert elements."""

    @abstractmethod
    def from_tensors(self, tensors: Any, node_mask: Tensor) -> ElementType:
        """Check `Element.tensors` that a user gives, and make the elements.

        Raises:
            ValueError: If they have the wrong shape or (on the CPU) are no elements of the group.
            TypeError: If they have the wrong type.
        """

    @abstractmethod
    def transform(self, elements: ElementType, field: FieldType, representation: Representation, invert: bool) -> FieldType:
        """Apply the action to the axes that this group acts on, and leave the others; see `act`."""

    def act(self, elements: ElementType, field: FieldType, representation: Representation) -> FieldType:
        """Apply the action ρ(g).

        Args:
            elements: Group elements, leading shape `(batch, num_samples)`.
            field (`torch.Tensor` of shape `(batch, num_samples or 1, *axes)` or `EdgeField`): The field.
            representation: What each axis is.

        Returns:
            The field ρ(g)·x, of shape `(batch, num_samples, *axes)` or an `EdgeField`.

        Raises:
            ValueError: If the group does not act on an axis.
        """
        self.check_acts_on(representation, "representation")
        return self.transform(elements, field, representation, invert=False)

    def act_inverse(self, elements: ElementType, field: FieldType, representation: Representation) -> FieldType:
        """Apply ρ(g)⁻¹; same arguments as `act`. A gradient reaches the elements."""
        self.check_acts_on(representation, "representation")
        return self.transform(elements, field, representation, invert=True)

    def check_distribution(self, kind: str) -> None:
        """Refuse a distribution that does not exist, or not on this group.

        Raises:
            ValueError: Naming those that there are.
        """
        known = [kind for kind in DISTRIBUTIONS if all(kind in factor.distributions for factor in self.factors)]
        if kind not in known:
            group = f" for the group {self.name}" if kind in DISTRIBUTIONS else ""
            raise ValueError(f"distribution: expected one of {', '.join(map(repr, known))}{group}, got {kind!r}.")

    def has_design(self, size: int) -> bool:
        """Whether the orthogonal sampler can make groups of this many draws."""
        return True

    def sampler_group_size(self, sampler: str, size: int | None = None) -> int:
        """The number m of dependent draws in a group of a sampler.

        Args:
            sampler: Name of the sampler.
            size: The number asked for. Default: 4, or what comes next to it where there is no 4.

        Raises:
            ValueError: If there is no such sampler, or not with groups of this size for this group.
            TypeError: If the size is no whole number.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler: expected one of {', '.join(map(repr, SAMPLERS))}, got {sampler!r}.")
        fixed, uses_design = SAMPLERS[sampler].group_size, SAMPLERS[sampler].uses_design

        def is_possible(number: int) -> bool:
            return number == fixed if fixed else not uses_design or all(factor.has_design(number) for factor in self.factors)

        if size is None:
            return next((number for number in (4, 3, 2, *range(5, 65)) if is_possible(number)), 1)
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"sampler_group_size: expected an int or None, got {type(size).__name__} {size!r}.")
        if size < 1 or not is_possible(size):
            known = [str(number) for number in range(1, 129) if is_possible(number)]
            expected = "at least 1" if len(known) == 128 else " or ".join(known)
            raise ValueError(
                f"sampler_group_size: expected {expected} for sampler {sampler!r} and group {self.name}, got {size}. Leave it "
                "out for the default."
            )
        return size

    def check_acts_on(self, representation: Representation, argument: str) -> None:
        """Refuse a representation with an axis that this group does not act on.

        Args:
            representation: The parsed axis string.
            argument: Where the string was given, for the message.

        Raises:
            ValueError: If there is such an axis.
        """
        # A node axis is left alone by groups that do not permute it: the base function may do what it likes with it.
        unknown = sorted(representation.letters - self.letters - {"n"})
        if unknown:
            letter = unknown[0]
            raise ValueError(
                f"{argument} {str(representation)!r}: the group {self.name} does not act on axis {letter!r} "
                f"({AXIS_MEANINGS[letter]}), only on {', '.join(map(repr, sorted(self.letters)))}. Choose another group, such as "
                f"{EXAMPLE_GROUPS[letter]!r}, or describe the axis as channels."
            )

    def __repr__(self) -> str:
        return f"Group({self.name!r})"


def tie_margin(scores: Tensor, lowest: Tensor, highest: Tensor, tolerance: Tensor | None) -> Tensor:
    """How far scores may lie apart that are equal.

    Args:
        scores (`torch.Tensor` of shape `(batch, num_samples, n)`): Of any type.
        lowest (`torch.Tensor` of shape `(batch, num_samples, 1)` float64): Of them.
        highest (`torch.Tensor` of shape `(batch, num_samples, 1)` float64): Of them.
        tolerance: As for `Group.project`. Default: a share of their range, to which what is added to all of them does not count.

    Returns:
        `torch.Tensor` of shape `(batch, num_samples, 1)` float64.
    """
    eps = torch.finfo(scores.dtype).eps
    margin = max(8 * eps, SMALLEST_TOLERANCE) * (highest - lowest) if tolerance is None else tolerance
    # The scores themselves are rounded, too, and the larger they are, the more.
    return margin + 8 * eps * torch.maximum(highest.abs(), lowest.abs())


def check_tensor(name: str, tensor: Any, shape: tuple[int | None, ...]) -> Tensor:
    """Check one tensor that a user gives as group elements; `None` in `shape` stands for any number of samples."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}.")
    if tensor.dim() != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)):
        expected = ", ".join("num_samples" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({expected}), got {tuple(tensor.shape)}.")
    return tensor


def check_sample_count(name: str, given: int, num_samples: int | None) -> None:
    """Refuse a number of samples that is zero, or not the one asked for (`None`: any)."""
    if given < 1 or num_samples not in (None, given):
        raise ValueError(f"{name}: expected num_samples={num_samples or 'at least 1'}, got {given} samples.")


def expand_samples(field: FieldType, num_samples: int) -> FieldType:
    """Give a field that the group leaves unchanged the group elements' number of samples."""
    return field.expand(-1, num_samples, *field.shape[2:]) if isinstance(field, Tensor) else field
