"""How the draws of one input depend on each other: independent, antithetic, stratified, orthogonal.

All randomness of the method is noise. A sampler draws it in groups of m dependent draws; different groups are independent. Every
single draw keeps exactly its law, so that every estimate stays unbiased; only the variance of the mean of a group changes. The
joint law of a group is left unchanged by the symmetry group as that of one draw is, so that estimates stay equivariant in
distribution: no sampler knows the numbers of the nodes or the axes of space.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Shape = tuple[int, ...]


class Sampler:
    """Independent draws; subclasses make those of one group depend on each other.

    Every method returns a tensor of the given shape `(batch, m, *axes)`, whose second axis holds the m draws of one group.
    """

    name = "independent"
    group_size: int | None = 1
    """m, where there is no choice."""
    uses_design = False
    """Whether m must fit the symmetry group; see `Group.has_design`."""

    def uniform(
        self, shape: Shape, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Uniform(0, 1) for every number.

        Args:
            shape: `(batch, m, *axes)`.
            generator: Random source on `device`.
            device: Where to draw.
            dtype: Of the result.
        """
        return torch.rand(shape, generator=generator, device=device, dtype=dtype)

    def normal(
        self,
        shape: Shape,
        generator: torch.Generator | None,
        device: torch.device,
        design: Callable[[int], Tensor],
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Normal(0, 1) for every number of vectors, which stand in the last axis but one.

        Args:
            shape: `(batch, m, *axes, d, number of vectors)`.
            generator: Random source on `device`.
            device: Where to draw.
            design: Gives the m matrices (m, d, d) that draws of one group may differ by.
            dtype: Of the result, real or complex.
        """
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    def gumbel(
        self,
        shape: Shape,
        generator: torch.Generator | None,
        device: torch.device,
        design: Callable[[int], Tensor],
    ) -> Tensor:
        """Gumbel(0, 1) for every element of a finite group, in double precision.

        Args:
            shape: `(batch, m, group order)`.
            generator: Random source on `device`.
            device: Where to draw.
            design: Gives (m, group order) int64: for each draw of one group the places at which it may read the first.
        """
        return -(-_inside(self.uniform(shape, generator, device)).log()).log()


class AntitheticSampler(Sampler):
    """Pairs of opposite draws: ε and 1 - ε, or ε and -ε. Removes what is odd in the noise, and doubles what is even."""

    name = "antithetic"
    group_size = 2

    def uniform(
        self, shape: Shape, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """See `Sampler.uniform`."""
        first = super().uniform(_one_draw(shape), generator, device, dtype)
        return torch.cat([first, 1 - first], dim=1)

    def normal(
        self,
        shape: Shape,
        generator: torch.Generator | None,
        device: torch.device,
        design: Callable[[int], Tensor],
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """See `Sampler.normal`."""
        first = super().normal(_one_draw(shape), generator, device, design, dtype)
        return torch.cat([first, -first], dim=1)


class StratifiedSampler(Sampler):
    """Latin hypercubes: in every coordinate each of m equally likely parts is drawn from once, in an order of its own.

    McKay, Beckman and Conover, "A Comparison of Three Methods for Selecting Values of Input Variables" (Technometrics 1979).
    Removes most of the variance that is a sum over single coordinates, and leaves the rest (Stein, Technometrics 1987).
    """

    name = "stratified"
    group_size = None

    def uniform(
        self, shape: Shape, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """See `Sampler.uniform`."""
        part, place = (torch.rand(shape, generator=generator, device=device, dtype=torch.float64) for _ in range(2))
        return ((part.argsort(dim=1) + place) / shape[1]).to(dtype)

    def normal(
        self,
        shape: Shape,
        generator: torch.Generator | None,
        device: torch.device,
        design: Callable[[int], Tensor],
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """See `Sampler.normal`; one random turn of all draws of a group, so that no axes of space are special."""
        parts = (*shape, 2) if dtype.is_complex else shape
        draws = torch.special.ndtri(_inside(self.uniform(parts, generator, device)))
        draws = torch.view_as_complex(draws / 2**0.5) if dtype.is_complex else draws
        return _turn(_random_frame(shape, generator, draws), draws).to(dtype)


class OrthogonalSampler(Sampler):
    """One draw and its images under maps that keep its law: turns of vectors, shifts of uniform numbers, translates.

    Noise alone then gives elements g·h_1, …, g·h_m, with g from the Haar measure and h_j those of a fixed finite subgroup.
    """

    name = "orthogonal"
    group_size = None
    uses_design = True

    def uniform(
        self, shape: Shape, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """See `Sampler.uniform`; shifts by j/m modulo 1, so that every number visits m equal parts of its law."""
        first = super().uniform(_one_draw(shape), generator, device)
        shifts = torch.arange(shape[1], device=device, dtype=torch.float64) / shape[1]
        return ((first + shifts.view(-1, *[1] * (len(shape) - 2))) % 1).to(dtype)

    def normal(
        self,
        shape: Shape,
        generator: torch.Generator | None,
        device: torch.device,
        design: Callable[[int], Tensor],
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """See `Sampler.normal`; turns by F·h_j·Fᴴ in a random frame F, which for d vectors alone is their own.

        Then F·h_j is what Gram-Schmidt makes of draw j: with A = F·R, R triangular, it is F·h_j·Fᴴ·A = F·h_j·R.
        """
        first = super().normal(_one_draw(shape), generator, device, design, torch.promote_types(dtype, torch.float64))
        own = len(shape) == 4 and shape[-1] == shape[-2]
        frame = _orthonormal(first) if own else _random_frame(shape, generator, first)
        return _turn(frame @ design(shape[1]).to(frame) @ frame.mH, first).to(dtype)

    def gumbel(
        self,
        shape: Shape,
        generator: torch.Generator | None,
        device: torch.device,
        design: Callable[[int], Tensor],
    ) -> Tensor:
        """See `Sampler.gumbel`; where noise alone decides, the draws are m different elements."""
        first = super().gumbel(_one_draw(shape), generator, device, design)
        return first[:, 0, design(shape[1]).to(device)]


INDEPENDENT = Sampler()
SAMPLERS = {sampler.name: sampler for sampler in (INDEPENDENT, AntitheticSampler(), StratifiedSampler(), OrthogonalSampler())}


def check_whole_groups(name: str, num_samples: int, group_size: int) -> None:
    """Refuse a number of draws that is larger than a group of dependent draws and no multiple of it."""
    if num_samples > group_size and num_samples % group_size:
        below = num_samples - num_samples % group_size
        raise ValueError(
            f"{name}: expected at most {group_size} or a multiple of it, as the sampler draws groups of {group_size}, got "
            f"{num_samples}. Take {below} or {below + group_size}, or another sampler_group_size."
        )


def _one_draw(shape: Shape) -> Shape:
    return (shape[0], 1, *shape[2:])


def _inside(uniform: Tensor) -> Tensor:
    """Without 0 and 1, where an inverse distribution function is infinite."""
    limits = torch.finfo(uniform.dtype)
    return uniform.clamp(limits.tiny, 1 - limits.eps / 2)


def _orthonormal(vectors: Tensor) -> Tensor:
    """Gram-Schmidt on the columns (..., d, d): of normal random numbers, a Haar matrix."""
    matrix, triangle = torch.linalg.qr(vectors)
    return matrix * torch.sgn(triangle.diagonal(dim1=-2, dim2=-1)).unsqueeze(-2)


def _random_frame(shape: Shape, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """One Haar matrix (batch, 1, d, d) for every group of draws of vectors."""
    size = (shape[0], 1, shape[-2], shape[-2])
    return _orthonormal(torch.randn(size, generator=generator, device=like.device, dtype=like.dtype))


def _turn(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Multiply vectors (batch, m or 1, *axes, d, number of vectors) by matrices (batch, m or 1, d, d)."""
    return matrix.view(*matrix.shape[:2], *[1] * (vectors.dim() - 4), *matrix.shape[2:]) @ vectors
