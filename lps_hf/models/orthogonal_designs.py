"""Finite subgroups of O(d) and SO(d): the turns that orthogonal draws of one group differ by.

With g from the Haar measure, the mean of F(g·h) over a subgroup {h} is unbiased for the mean of F, and free of error where F is
a polynomial in the matrix g of a degree that the subgroup averages exactly. In three dimensions these degrees are 1 for the half
turns about the axes (4 elements), 2 for the rotations of the tetrahedron (12) and 5 for those of the icosahedron (60). With -1
beside them every odd degree is averaged exactly, too.
"""

import math
from functools import reduce
from operator import xor

import torch
from torch import Tensor


def design_sizes(dimension: int, has_reflections: bool) -> list[int]:
    """The orders of the subgroups that `orthogonal_design` knows, ascending.

    Args:
        dimension: d.
        has_reflections: Whether they may have reflections: O(d), or SO(d).
    """
    rotations = [dimension * 2 ** (dimension - 1)] + [60] * (dimension == 3)
    doubled = [2 * size for size in rotations if has_reflections]
    return sorted({*_sign_counts(dimension, has_reflections), *rotations, *doubled})


def orthogonal_design(dimension: int, size: int, has_reflections: bool) -> Tensor:
    """The matrices of a finite subgroup, as spread as can be; those of smaller subgroups come first.

    Changes of sign, then these with all cyclic shifts of the axes (for d = 3 the rotations of the tetrahedron), then, for d = 3,
    the rotations of the icosahedron; each of the last two with its reflections, where they are allowed.

    Args:
        dimension: d, at least 2.
        size: One of `design_sizes(dimension, has_reflections)`.
        has_reflections: Whether the subgroup may have reflections.

    Returns:
        `torch.Tensor` of shape `(size, d, d)` float64, the identity first.
    """
    if size in _sign_counts(dimension, has_reflections):
        return torch.diag_embed(balanced_signs(dimension, size, not has_reflections))
    rotations = dimension * 2 ** (dimension - 1)
    if size not in (rotations, 60):
        half = orthogonal_design(dimension, size // 2, has_reflections=False)
        mirror = torch.ones(dimension, dtype=torch.float64)
        # In even dimensions -1 is a rotation.
        mirror[: dimension if dimension % 2 else 1] = -1.0
        return torch.cat([half, half * mirror])
    if size == rotations:
        # A cyclic shift of an even number of axes is a reflection, unless it changes a sign.
        shift = torch.eye(dimension, dtype=torch.float64).roll(1, dims=0)
        shift[0] *= (-1.0) ** (dimension - 1)
        return _powers(shift, dimension, orthogonal_design(dimension, rotations // dimension, has_reflections=False))
    return _powers(_fifth_turn(), 5, orthogonal_design(3, 12, has_reflections=False))


def balanced_signs(dimension: int, size: int, rotations: bool) -> Tensor:
    """A subgroup of the changes of sign (size, d) in which every sign is -1 in half of the elements, and no two go together.

    Sign i of element number j is the parity of the bits that j and the code of i have in common. Codes that differ and are not
    zero are wanted; they repeat where there are too few. Of rotations the product of all signs is 1: the codes sum to zero.

    Args:
        dimension: d.
        size: A power of 2.
        rotations: Without reflections.

    Returns:
        `torch.Tensor` of shape `(size, d)` float64.
    """
    basis = [1 << bit for bit in range(size.bit_length() - 1)]
    codes = basis + [code for code in range(1, size) if code not in basis]
    codes = [codes[place % len(codes)] for place in range(dimension)] if codes else [0] * dimension
    if rotations and size > 1:
        last = reduce(xor, codes[:-1])
        if last == 0:
            codes[-2], last = codes[0], codes[0] ^ codes[-2]
        codes[-1] = last
    parity = [[(number & code).bit_count() % 2 for code in codes] for number in range(size)]
    return 1.0 - 2.0 * torch.tensor(parity, dtype=torch.float64)


def _sign_counts(dimension: int, has_reflections: bool) -> list[int]:
    """The orders of the subgroups of the changes of sign: with reflections all d signs are free, without them d - 1."""
    return [2**power for power in range(dimension + has_reflections)]


def _powers(generator: Tensor, order: int, subgroup: Tensor) -> Tensor:
    """Products of the powers of a matrix and the elements of a subgroup, the subgroup first."""
    cosets = [subgroup]
    for _ in range(order - 1):
        cosets.append(generator @ cosets[-1])
    return torch.cat(cosets)


def _fifth_turn() -> Tensor:
    """The rotation by 2π/5 about a corner (0, 1, golden ratio) of the icosahedron, whose edges meet the axes."""
    golden = (1 + math.sqrt(5)) / 2
    # Rodrigues' formula comes out as halves of 1, φ and φ - 1.
    a, b, c = 0.5, golden / 2, (golden - 1) / 2
    return torch.tensor([[c, -b, a], [b, a, c], [-a, c, b]], dtype=torch.float64)
