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
Generator = torch.Generator | None


class Sampler:
    """Independent draws; subclasses make those of one group depend on each other.

    Every method returns a tensor of the given shape `(batch, m, *axes)`, whose second axis holds the m draws of one group.
    """

    name = "independent"
    group_size: int | None = 1
    """m, where there is no choice."""
    uses_design = False
    """Whether m must fit the symmetry group; see `Group.has_design`."""

    def uniform(self, shape: Shape, generator: Generator, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
        """Uniform(0, 1) for every number.

        Args:
            shape: `(batch, m, *axes)`.
            generator: Random source on `device`.
            device: Where to draw.
            dtype: Of the result.
        """
        return _draw(torch.rand, shape, generator, device, dtype)

    def normal(self, shape: Shape, generator: Generator, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
        """Normal(0, 1) for every number of vectors, which stand in the last axis but one.

        Args:
            shape: `(batch, m, *axes, d, number of vectors)`.
            generator: Random source on `device`.
            device: Where to draw.
            dtype: Of the result, real or complex.
        """
        return _draw(torch.randn, shape, generator, device, dtype)

    def matrices(
        self,
        shape: Shape,
        generator: Generator,
        device: torch.device,
        design: Callable[[int], Tensor],
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Normal(0, 1) for the d vectors that a group of matrices is drawn from.

        Args:
            shape: `(batch, m, d, d)`.
            generator: Random source on `device`.
            device: Where to draw.
            design: Gives the m matrices (m, d, d) that the elements of one group may differ by.
            dtype: Of the result, real or complex.
        """
        return self.normal(shape, generator, device, dtype)

    def gumbel(self, shape: Shape, generator: Generator, device: torch.device, design: Callable[[int], Tensor]) -> Tensor:
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

    def uniform(self, shape: Shape, generator: Generator, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
        """See `Sampler.uniform`."""
        first = super().uniform(_one_draw(shape), generator, device, dtype)
        return torch.cat([first, 1 - first], dim=1)

    def normal(self, shape: Shape, generator: Generator, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
        """See `Sampler.normal`."""
        first = super().normal(_one_draw(shape), generator, device, dtype)
        return torch.cat([first, -first], dim=1)


class StratifiedSampler(Sampler):
    """Latin hypercubes: in every coordinate each of m equally likely parts is drawn from once, in an order of its own.

    McKay, Beckman and Conover, "A Comparison of Three Methods for Selecting Values of Input Variables" (Technometrics 1979).
    Removes most of the variance that is a sum over single coordinates, and leaves the rest (Stein, Technometrics 1987). At worst
    the variance is m / (m - 1) times that of independent draws (Owen, Annals of Statistics 1997).
    """

    name = "stratified"
    group_size = None

    def uniform(self, shape: Shape, generator: Generator, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
        """See `Sampler.uniform`."""
        order = _random_order(shape, generator, device)
        place = _draw(torch.rand, shape, generator, device, torch.float64)
        return ((order + place) / shape[1]).to(dtype)

    def normal(self, shape: Shape, generator: Generator, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
        """See `Sampler.normal`; one random turn of all draws of a group, so that no axes of space are special."""
        parts = (*shape, 2) if dtype.is_complex else shape
        draws = torch.special.ndtri(_inside(self.uniform(parts, generator, device)))
        draws = torch.view_as_complex(draws / 2**0.5) if dtype.is_complex else draws
        seed = _draw(torch.randn, (shape[0], 1, shape[-2], shape[-2]), generator, device, draws.dtype)
        turn = _orthonormal(seed).view(shape[0], 1, *[1] * (len(shape) - 4), shape[-2], shape[-2])
        return (turn @ draws).to(dtype)


class OrthogonalSampler(StratifiedSampler):
    """Where noise alone decides, elements g·h_1, …, g·h_m with one g from the Haar measure and a finite subgroup {h_j}.

    For O(d), SO(d), their Euclidean groups, C_n and D_n; see `Group.design`. The mean over a coset g·{h_j} of a function that
    varies slowly over the group is far better than that of m independent draws. What has no such subgroup is a Latin hypercube:
    scores of nodes and the noise of networks. (Turning all vectors of the noise by h_j, or shifting all scores by j/m, keeps
    their laws as well, but leaves too much of a draw the same: on trained models the variance was up to three times that of
    independent draws.)
    """

    name = "orthogonal"
    uses_design = True

    def uniform(self, shape: Shape, generator: Generator, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
        """See `Sampler.uniform`; one number shifted by all multiples of 1/m modulo 1, in a random order for each coordinate."""
        order = _random_order(shape, generator, device)
        first = _draw(torch.rand, _one_draw(shape), generator, device, torch.float64)
        return ((order / shape[1] + first) % 1).to(dtype)

    def matrices(
        self,
        shape: Shape,
        generator: Generator,
        device: torch.device,
        design: Callable[[int], Tensor],
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """See `Sampler.matrices`; F·h_j·Fᴴ·A for one draw A = F·R with R triangular, of which Gram-Schmidt makes F·h_j."""
        first = _draw(torch.randn, _one_draw(shape), generator, device, dtype)
        frame = _orthonormal(first)
        return frame @ design(shape[1]).to(frame) @ frame.mH @ first

    def gumbel(self, shape: Shape, generator: Generator, device: torch.device, design: Callable[[int], Tensor]) -> Tensor:
        """See `Sampler.gumbel`; where noise alone decides, the draws are m different elements."""
        uniform = _draw(torch.rand, (shape[0], shape[2]), generator, device, torch.float64)
        return -(-_inside(uniform).log()).log()[:, design(shape[1]).to(device)]


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


def _draw(
    function: Callable[..., Tensor], shape: Shape, generator: Generator, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """`torch.rand` or `torch.randn`; without a generator, in the form that compiles for shapes that vary."""
    options = {} if generator is None else {"generator": generator}
    return function(shape, device=device, dtype=dtype, **options)


def _random_order(shape: Shape, generator: Generator, device: torch.device) -> Tensor:
    """The numbers 0 to m - 1 along the second axis, in an order of its own for every coordinate, in double precision."""
    return _draw(torch.rand, shape, generator, device, torch.float64).argsort(dim=1).double()


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
