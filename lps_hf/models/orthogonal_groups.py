"""O(d), SO(d), E(d), SE(d) and U(d), acting on vector and point axes, and the projection of vectors onto them."""

from typing import Any

import torch
from torch import Tensor

from .elements import LinearMap, RigidMotion
from .group import DISTRIBUTIONS, Group, check_tensor, expand_samples
from .orthogonal_designs import design_sizes, orthogonal_design
from .representations import FieldType, Representation
from .samplers import INDEPENDENT, Sampler

# Vectors of which less than this is left beside the others are rounding error, and point nowhere.
TOLERANCE = {torch.float32: 1e-5, torch.complex64: 1e-5}


def orthonormalize(vectors: Tensor, noise: Tensor, tolerance: Tensor | None = None) -> Tensor:
    """Gram-Schmidt on the columns, in double precision, with random directions where the columns leave them open.

    A column that depends on those before it, or is zero, is replaced by its column of noise, made orthogonal to them. So the
    result is orthogonal for every input, and turns with vectors and noise: `orthonormalize(R v, R ε) = R orthonormalize(v, ε)`.

    Args:
        vectors (`torch.Tensor` of shape `(..., d, d)`): Columns in the last axis; real or complex. Differentiable.
        noise (`torch.Tensor` of the same shape): Normal random numbers.
        tolerance (`torch.Tensor`, broadcastable to `(..., 1)`): The largest length that is none. Default: a share of the length
            of all columns, by their type.

    Returns:
        `torch.Tensor` of shape `(..., d, d)` in double precision: Q with QᴴQ = 1.
    """
    if tolerance is None:
        tolerance = TOLERANCE.get(vectors.dtype, 1e-10) * frame_length(vectors).unsqueeze(-1)
    vectors, noise = (tensor.to(torch.promote_types(tensor.dtype, torch.float64)) for tensor in (vectors, noise))
    basis = vectors[..., :0]
    for column, direction in zip(vectors.unbind(-1), noise.unbind(-1), strict=True):
        rest = _reject(column, basis)
        is_open = torch.linalg.vector_norm(rest.detach(), dim=-1, keepdim=True) <= tolerance
        unit = _normalize(torch.where(is_open, _reject(direction, basis), rest))
        # Once more: what is left of a nearly dependent column still leans on the others by rounding error.
        unit = _normalize(_reject(unit, basis))
        basis = torch.cat([basis, unit.unsqueeze(-1)], dim=-1)
    return basis


def frame_length(vectors: Tensor) -> Tensor:
    """The length of all columns of vectors (..., d, d) together, (...) in double precision: that of those that point somewhere.

    At least 1e-2, in the unit of networks that normalise: all may be the rounding error of zero.
    """
    return torch.linalg.matrix_norm(vectors.detach()).double().clamp(min=1e-2)


def _reject(vector: Tensor, basis: Tensor) -> Tensor:
    """The part of `vector` (..., d) orthogonal to the columns of `basis` (..., d, m)."""
    return vector - (basis @ (basis.mH @ vector.unsqueeze(-1))).squeeze(-1)


def _normalize(vector: Tensor) -> Tensor:
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)


def apply_matrix(matrix: Tensor, field: Tensor, representation: Representation, invert: bool) -> Tensor:
    """Multiply the vector or point axis of a field (batch, num_samples or 1, *axes) by matrices Q, or by Qᴴ = Q⁻¹."""
    position = 2 + next(place for place, axis in enumerate(representation.axes) if axis in ("v", "p"))
    matrix = (matrix.mH if invert else matrix).to(field.dtype)
    moved = field.movedim(position, -1)
    # Half precision would leave the group: a turned vector keeps its length to three digits only.
    with torch.autocast(field.device.type, enabled=False):
        turned = moved.flatten(2, -2) @ matrix.mT if moved.dim() > 3 else (matrix @ moved.unsqueeze(-1)).squeeze(-1)
    return turned.reshape(*turned.shape[:2], *moved.shape[2:]).movedim(-1, position)


def _check_dimension(pattern: str, dimension: int) -> None:
    if dimension < 2:
        name, example = pattern.format(dimension), pattern.format(3)
        raise ValueError(f"group {name!r}: expected a dimension of at least 2, as in {example!r}.")


def _acts_on(field: FieldType, representation: Representation) -> bool:
    return isinstance(field, Tensor) and bool(representation.letters & {"v", "p"})


class _MatrixGroup(Group[LinearMap]):
    """Groups of matrices Q with Q⁻¹ = Qᴴ."""

    letters = frozenset({"v", "p"})
    pattern: str
    dtype = torch.float64
    has_reflections = True

    def __init__(self, dimension: int) -> None:
        _check_dimension(self.pattern, dimension)
        self.dimension: int = dimension
        self.name = self.pattern.format(dimension)
        self.score = Representation(("v", dimension))

    def identity(self, node_mask: Tensor, num_samples: int) -> LinearMap:
        """The identity, as a `LinearMap` of shape `(batch, num_samples, d, d)`."""
        eye = torch.eye(self.dimension, dtype=self.dtype, device=node_mask.device)
        return LinearMap(eye.expand(node_mask.shape[0], num_samples, -1, -1))

    def draw_scores(
        self,
        node_mask: Tensor,
        num_samples: int,
        generator: torch.Generator | None = None,
        sampler: Sampler = INDEPENDENT,
    ) -> Tensor:
        """Normal(0, 1) for d vectors, (batch, num_samples, d, d); complex for U(d)."""
        shape = (node_mask.shape[0], num_samples, self.dimension, self.dimension)
        return sampler.matrices(shape, generator, node_mask.device, self.design, self.dtype)

    def has_design(self, size: int) -> bool:
        """Whether there is a finite subgroup of this order; see `orthogonal_designs`."""
        return size in design_sizes(self.dimension, self.has_reflections)

    def design(self, size: int) -> Tensor:
        """The elements h of a finite subgroup, (size, d, d): orthogonal draws are g·h. See `orthogonal_design`."""
        return orthogonal_design(self.dimension, size, self.has_reflections)

    def project(self, scores: Tensor, node_mask: Tensor, noise: Tensor, tolerance: Tensor | None = None) -> LinearMap:
        """Orthonormalize the columns of `scores` (batch, num_samples, d, d); see `orthonormalize`. Differentiable."""
        return LinearMap(orthonormalize(scores, noise, tolerance))

    def compose(self, left: LinearMap, right: LinearMap) -> LinearMap:
        """Compose elements: the matrix product."""
        return LinearMap(left.matrix @ right.matrix)

    def inverse(self, elements: LinearMap) -> LinearMap:
        """Invert elements: the adjoint matrices."""
        return LinearMap(elements.matrix.mH)

    def from_tensors(self, tensors: Any, node_mask: Tensor) -> LinearMap:
        """Check matrices (batch, num_samples, d, d)."""
        matrix = check_tensor("group_elements", tensors, (node_mask.shape[0], None, self.dimension, self.dimension))
        if matrix.is_complex() != self.dtype.is_complex or not (matrix.is_floating_point() or matrix.is_complex()):
            expected = "complex" if self.dtype.is_complex else "real floating point"
            raise TypeError(f"group_elements: expected {expected} numbers for {self.name}, got {matrix.dtype}.")
        if matrix.device.type == "cpu" and not torch.compiler.is_compiling():
            self._check_matrix(matrix.to(self.dtype))
        return LinearMap(matrix)

    def _check_matrix(self, matrix: Tensor) -> None:
        error = (matrix.mH @ matrix - torch.eye(self.dimension, dtype=matrix.dtype)).abs().amax() if matrix.numel() else 0.0
        if not error <= 1e-4:
            raise ValueError(
                f"group_elements: expected matrices of {self.name}, got some that differ from Q⁻¹ = Qᴴ by {float(error):.2g}. "
                f"Draw them with get_group({self.name!r}).haar(node_mask, num_samples)."
            )

    def transform(self, elements: LinearMap, field: FieldType, representation: Representation, invert: bool) -> FieldType:
        """Turn vectors and points about the origin."""
        if isinstance(field, Tensor) and _acts_on(field, representation):
            return apply_matrix(elements.matrix, field, representation, invert)
        return expand_samples(field, elements.num_samples)


class OrthogonalGroup(_MatrixGroup):
    """O(d): rotations and reflections about the origin."""

    pattern = "O({})"
    distributions = DISTRIBUTIONS


class SpecialOrthogonalGroup(_MatrixGroup):
    """SO(d): rotations about the origin."""

    pattern = "SO({})"
    distributions = DISTRIBUTIONS
    has_reflections = False

    def project(self, scores: Tensor, node_mask: Tensor, noise: Tensor, tolerance: Tensor | None = None) -> LinearMap:
        """Orthonormalize the columns of `scores`, and multiply the first by the determinant."""
        matrix = orthonormalize(scores, noise, tolerance)
        handedness = torch.linalg.det(matrix.detach()).sign()[..., None, None]
        return LinearMap(torch.cat([matrix[..., :1] * handedness, matrix[..., 1:]], dim=-1))

    def _check_matrix(self, matrix: Tensor) -> None:
        super()._check_matrix(matrix)
        if bool((torch.linalg.det(matrix) < 0).any()):
            raise ValueError(f"group_elements: expected rotations for {self.name}, got a reflection (determinant -1).")


class UnitaryGroup(_MatrixGroup):
    """U(d) on complex vectors: Haar measure, arithmetic and action; no interface network reads complex fields."""

    pattern = "U({})"
    letters = frozenset({"v"})
    acts_on_complex = True
    dtype = torch.complex128

    def transform(self, elements: LinearMap, field: FieldType, representation: Representation, invert: bool) -> FieldType:
        """Turn complex vectors.

        Raises:
            TypeError: If vectors are real: most elements have no real vector to send them to.
        """
        if isinstance(field, Tensor) and _acts_on(field, representation) and not field.is_complex():
            raise TypeError(f"field: expected complex vectors for {self.name}, got {field.dtype}. Call .to(torch.complex64).")
        return super().transform(elements, field, representation, invert)


class EuclideanGroup(Group[RigidMotion]):
    """E(d): rotations, reflections and translations. Vectors turn, points turn and move.

    E(d) is not compact, so there is no uniform law on it. Distributions draw the turn, and take the centroid of the positions as
    translation: g⁻¹·x is then centred, and the output is moved back (section 2.2 of arXiv 2306.02866).
    """

    letters = frozenset({"v", "p"})
    pattern = "E({})"
    has_translations = True
    distributions = DISTRIBUTIONS
    turns: type[_MatrixGroup] = OrthogonalGroup

    def __init__(self, dimension: int) -> None:
        _check_dimension(self.pattern, dimension)
        self.name = self.pattern.format(dimension)
        self.rotations = self.turns(dimension)
        self.dimension: int = dimension
        self.score = self.rotations.score

    def identity(self, node_mask: Tensor, num_samples: int) -> RigidMotion:
        """The identity, as a `RigidMotion` with leading shape `(batch, num_samples)`."""
        return _without_translation(self.rotations.identity(node_mask, num_samples))

    def draw_scores(
        self,
        node_mask: Tensor,
        num_samples: int,
        generator: torch.Generator | None = None,
        sampler: Sampler = INDEPENDENT,
    ) -> Tensor:
        """Normal(0, 1) for d vectors, (batch, num_samples, d, d)."""
        return self.rotations.draw_scores(node_mask, num_samples, generator, sampler)

    def has_design(self, size: int) -> bool:
        """As for the turns alone."""
        return self.rotations.has_design(size)

    def design(self, size: int) -> Tensor:
        """As for the turns alone."""
        return self.rotations.design(size)

    def project(self, scores: Tensor, node_mask: Tensor, noise: Tensor, tolerance: Tensor | None = None) -> RigidMotion:
        """Project onto the turns; the translation is zero until `move_to` sets it."""
        return _without_translation(self.rotations.project(scores, node_mask, noise, tolerance))

    def haar(self, node_mask: Tensor, num_samples: int, generator: torch.Generator | None = None) -> RigidMotion:
        """Draw turns from the Haar measure of O(d) or SO(d), and translations from Normal(0, 1), in units of the positions."""
        matrix = self.rotations.haar(node_mask, num_samples, generator).matrix
        shape = matrix.shape[:-1]
        translation = torch.randn(shape, generator=generator, device=matrix.device, dtype=matrix.dtype)
        return RigidMotion(matrix, translation)

    def move_to(self, elements: RigidMotion, centroid: Tensor) -> RigidMotion:
        """Set the translation to the centroid, (batch, d)."""
        return RigidMotion(elements.matrix, centroid.to(elements.matrix.dtype).unsqueeze(1).expand(elements.translation.shape))

    def compose(self, left: RigidMotion, right: RigidMotion) -> RigidMotion:
        """Compose elements: x goes to Q₁(Q₂x + t₂) + t₁."""
        moved = (left.matrix @ right.translation.unsqueeze(-1)).squeeze(-1)
        return RigidMotion(left.matrix @ right.matrix, moved + left.translation)

    def inverse(self, elements: RigidMotion) -> RigidMotion:
        """Invert elements: x goes to Qᵀx - Qᵀt."""
        matrix = elements.matrix.mT
        return RigidMotion(matrix, -(matrix @ elements.translation.unsqueeze(-1)).squeeze(-1))

    def from_tensors(self, tensors: Any, node_mask: Tensor) -> RigidMotion:
        """Check a pair of matrices (batch, num_samples, d, d) and translations (batch, num_samples, d)."""
        if not isinstance(tensors, tuple | list) or len(tensors) != 2:
            raise ValueError(
                f"group_elements: expected a pair (matrix, translation) for {self.name}, got {type(tensors).__name__}."
            )
        matrix = self.rotations.from_tensors(tensors[0], node_mask).matrix
        translation = check_tensor("group_elements: translation", tensors[1], matrix.shape[:-1])
        if not translation.is_floating_point():
            raise TypeError(f"group_elements: translation: expected floating point numbers, got {translation.dtype}.")
        if translation.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(translation.isfinite().all()):
            raise ValueError("group_elements: translation: expected finite numbers, got NaN or infinity.")
        return RigidMotion(matrix, translation)

    def transform(self, elements: RigidMotion, field: FieldType, representation: Representation, invert: bool) -> FieldType:
        """Turn vectors; turn and move points."""
        if not (isinstance(field, Tensor) and _acts_on(field, representation)):
            return expand_samples(field, elements.num_samples)
        if not representation.count("p"):
            return apply_matrix(elements.matrix, field, representation, invert)
        shape = [1] * field.dim()
        shape[2 + representation.axes.index("p")] = self.dimension
        translation = elements.translation.to(field.dtype)
        translation = translation.view(*translation.shape[:2], *shape[2:])
        if invert:
            return apply_matrix(elements.matrix, field - translation, representation, invert)
        return apply_matrix(elements.matrix, field, representation, invert) + translation


class SpecialEuclideanGroup(EuclideanGroup):
    """SE(d): rotations and translations; see `EuclideanGroup`."""

    pattern = "SE({})"
    turns = SpecialOrthogonalGroup


def _without_translation(turns: LinearMap) -> RigidMotion:
    return RigidMotion(turns.matrix, torch.zeros_like(turns.matrix[..., 0]))
