"""Soft permutation matrices in O(n): SoftSort and Sinkhorn by prefix sums; the matrix itself is never made.

SoftSort's kernel exp(-|s_i - s_(r)| / τ) (Prillo and Eisenschlos 2020), with rows and columns in the order of the scores, is

    K_ij = exp(-|t_i - t_j|)     with t = sorted scores / τ,

a Laplace kernel on a line, whose product with a vector is two prefix sums. Sinkhorn rounds are such products:

    P̂ = diag(u) K diag(v),  u ← 1 / K v,  v ← 1 / K u,

and so are the entropy of P̂ and every gradient. K has a unit diagonal, so plain scaling vectors neither under- nor overflow.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# exp(±600) fits in double precision with room for the weights; where t may span more, sums are taken block by block.
LARGEST_SPAN = 1200.0
BLOCK_SIZE = 16
# exp(-36) is below the resolution of 1 in double precision: larger gaps are as good as this one, and 16 of them fit in a block.
LARGEST_GAP = 36.0
ROWS_AT_ONCE = 1024


class _RefusedDerivative(torch.autograd.Function):
    """The identity on its first argument, which depends on the others in a way that is not differentiable."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, *sources: Tensor) -> Tensor:
        return result.view_as(result)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError(
            "second derivative: expected a first one, as the straight-through gradient of permutations and finite elements is "
            "once_differentiable. Use distribution 'frame', 'exact' or 'haar', or call requires_grad_(False) on the distribution."
        )


def differentiable_once(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """Refuse the derivative of a backward pass.

    PyTorch's own decorator cuts its results off: `torch.autograd.grad` with respect to given inputs does not come by the node
    that would refuse, and its second derivatives are wrong without a word.
    """

    @wraps(backward)
    def first_derivative(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            results = backward(ctx, *gradients)
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return results
        sources = [tensor for tensor in (*gradients, *ctx.saved_tensors) if tensor is not None and tensor.requires_grad]
        return tuple(None if result is None else _RefusedDerivative.apply(result, *sources) for result in results)

    return first_derivative


@dataclass(frozen=True)
class SoftPermutation:
    """P̂ = diag(u) K diag(v) by its vectors, all of shape `(batch, num_samples, nodes)`, in the order of the scores.

    Rows are nodes and columns are ranks; both are counted by rank here, so that a hard permutation is the identity. The hard
    sort may break ties, and orders that only rounding decides, in another way: `rank` says where it put each.
    """

    position: Tensor
    """t, float64: sorted scores over τ, descending; that of the last node on padding."""
    row_scale: Tensor
    """u, float64, zero on padding."""
    column_scale: Tensor
    """v, float64, zero on padding."""
    rank: Tensor
    """The rank of each in the hard sort, int64."""
    tied_first: Tensor
    """The first place with the same position, int64."""
    tied_last: Tensor
    """The last place with the same position, int64."""
    decay: Tensor | None = None
    """exp(t) up to a factor, where it is known to stay in range."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The vectors in order, as autograd functions save them."""
        vectors = (self.position, self.row_scale, self.column_scale, self.rank, self.tied_first, self.tied_last)
        return vectors if self.decay is None else (*vectors, self.decay)

    @property
    def line(self) -> tuple[Tensor, ...]:
        """What products with K read."""
        return self.position, *self.tensors[4:]

    def map(self, function: Callable[[Tensor], Tensor]) -> "SoftPermutation":
        """The same with `function` applied to each vector."""
        return SoftPermutation(*map(function, self.tensors))

    def matrix(self, index: Tensor) -> Tensor:
        """Make P̂, to look at it.

        Args:
            index (`torch.Tensor` of shape `(batch, num_samples, nodes)`): The hard sort, the node of each rank.

        Returns:
            `torch.Tensor` of shape `(batch, num_samples, nodes, ranks)` float64; zero on padding.
        """
        columns = self.rank.argsort(dim=-1)
        rows = columns.gather(-1, index.argsort(dim=-1))
        position_of_rows, row_scale = self.position.gather(-1, rows), self.row_scale.gather(-1, rows)
        position_of_columns, column_scale = self.position.gather(-1, columns), self.column_scale.gather(-1, columns)
        kernel = torch.exp(-(position_of_rows.unsqueeze(-1) - position_of_columns.unsqueeze(-2)).abs())
        return row_scale.unsqueeze(-1) * kernel * column_scale.unsqueeze(-2)

    def entropy(self, node_mask: Tensor) -> Tensor:
        """Mean row entropy plus mean column entropy, the method's regulariser.

        Args:
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.

        Returns:
            `torch.Tensor` of shape `()`: In nats, averaged over nodes, samples and batch.
        """
        padding = ~node_mask.unsqueeze(1)
        line = [part.unsqueeze(2) for part in self.line]
        total = torch.zeros_like(self.position)
        for scale, other in ((self.row_scale, self.column_scale), (self.column_scale, self.row_scale)):
            log_scale, log_other = (vector.masked_fill(padding, 1.0).log() for vector in (scale, other))
            vectors = torch.stack([other, other * log_other, other * self.position], dim=2)
            products, differences = _LaplaceSums.apply(vectors, *line)
            # Σ_j P_ij log P_ij with P_ij = u_i K_ij v_j and log K_ij = -|t_i - t_j|.
            distances = differences[:, :, 2] - self.position * differences[:, :, 0]
            sums = (scale * products[:, :, 0]).masked_fill(padding, 1.0)
            negative = scale * (log_scale * products[:, :, 0] + products[:, :, 1] - distances)
            total = total + sums.log() - negative / sums
        per_graph = total.masked_fill(padding, 0.0).sum(dim=-1).mean(dim=1)
        return (per_graph / node_mask.sum(dim=-1).clamp(min=1)).mean()


def soft_permutation(
    scores: Tensor,
    index: Tensor,
    node_mask: Tensor,
    temperature: float | Tensor,
    num_iterations: int = 20,
    largest_span: float = math.inf,
) -> SoftPermutation:
    """Relax a sort to a nearly doubly stochastic matrix: SoftSort, then Sinkhorn rounds, rows first (appendix of 2306.02866).

    The same numbers as the published rounds in the log domain, in O(nodes) time and memory for each round.

    Args:
        scores (`torch.Tensor` of shape `(batch, num_samples, nodes)`): Node scores.
        index (`torch.Tensor` of shape `(batch, num_samples, nodes)`): The hard sort, the node of each rank; padding last.
        node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
        temperature (`float` or `torch.Tensor` that broadcasts to `scores`): τ > 0; small values are close to the sort.
        num_iterations: Number of Sinkhorn rounds.
        largest_span: A bound on the range of the scores over τ, where the caller knows one: sums are cheaper below 1200.

    Returns:
        `SoftPermutation`.
    """
    mask = node_mask.unsqueeze(1).expand(index.shape)
    by_rank = (scores.double() / temperature).gather(-1, index).masked_fill(~mask, -torch.inf)
    position, rank = by_rank.sort(dim=-1, descending=True, stable=True)
    position = torch.cummin(position.masked_fill(~mask, torch.inf), dim=-1).values
    in_blocks = largest_span > LARGEST_SPAN
    if in_blocks:
        position = _closed_gaps(position)
    line: tuple[Tensor, ...] = _tied_places(position.detach())
    if not in_blocks:
        line = (*line, _decays(position.detach()))
    scales = (mask.to(position.dtype),) * 2
    if num_iterations:
        scales = _Sinkhorn.apply(position, scales[0], num_iterations, *line)
    return SoftPermutation(position, *scales, rank, *line)


def _tied_places(position: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last place with the same position."""
    place = torch.arange(position.shape[-1], device=position.device).expand(position.shape)
    starts = F.pad(position.diff(dim=-1) != 0, (1, 0), value=True)
    ends = starts.roll(-1, dims=-1)
    first = torch.where(starts, place, 0).cummax(dim=-1).values
    last = torch.where(ends, place, position.shape[-1]).flip(-1).cummin(dim=-1).values.flip(-1)
    return first, last


class _Sinkhorn(torch.autograd.Function):
    """u and v after some rounds of x_i = ones / K x_(i-1); one function, as its many small steps would drown in bookkeeping."""

    @staticmethod
    def forward(ctx: Any, position: Tensor, ones: Tensor, num_rounds: int, *line: Tensor) -> tuple[Tensor, Tensor]:
        scales, differences = [ones], []
        for _ in range(2 * num_rounds):
            product, higher, lower = _laplace_sums(scales[-1], position, *line)
            differences.append(higher - lower)
            scales.append(ones / product)
        ctx.save_for_backward(position, *line, *scales, *differences)
        ctx.num_rounds = num_rounds
        return scales[-2], scales[-1]

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad_row: Tensor, grad_column: Tensor) -> tuple[Tensor | None, ...]:
        steps = 2 * ctx.num_rounds
        line, scales, differences = (
            ctx.saved_tensors[: -2 * steps - 1],
            ctx.saved_tensors[-2 * steps - 1 : -steps],
            ctx.saved_tensors[-steps:],
        )
        gradients, grad_position = [grad_row, grad_column], torch.zeros_like(line[0])
        for before, after, difference in zip(scales[-2::-1], scales[:0:-1], differences[::-1], strict=True):
            of_product = gradients.pop() * after.square()  # with the sign turned
            product, higher, lower = _laplace_sums(of_product, *line)
            grad_position -= of_product * difference
            grad_position -= before * (higher - lower)
            gradients = [gradients.pop() - product] if gradients else [-product]
        return grad_position, *[None] * (1 + len(line))


class _LaplaceSums(torch.autograd.Function):
    """K x and D x along the last axis, with D_ij = sign(t_j - t_i) K_ij, which is K's derivative: ∂K_ij / ∂t_i = D_ij."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, position: Tensor, *line: Tensor) -> tuple[Tensor, Tensor]:
        product, higher, lower = _laplace_sums(x, position, *line)
        ctx.save_for_backward(x, position, *line, higher, lower)
        ctx.set_materialize_grads(False)
        return product, higher - lower

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad_product: Tensor | None, grad_difference: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *line, higher, lower = ctx.saved_tensors
        grad_x = grad_position = torch.zeros_like(x)
        if grad_product is not None:
            grad_x, above, below = _laplace_sums(grad_product, *line)
            grad_position = grad_product * (higher - lower) + x * (above - below)
        if grad_difference is not None:
            _, above, below = _laplace_sums(grad_difference, *line)
            grad_x = grad_x - (above - below)
            grad_position = grad_position + grad_difference * (higher + lower) - x * (above + below)
        return grad_x, grad_position.sum_to_size(line[0].shape), *[None] * (len(line) - 1)


def _laplace_sums(x: Tensor, position: Tensor, first: Tensor, last: Tensor, *decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """K x, and the parts of it from strictly higher and strictly lower positions."""
    before, after = _sums(x, position, decay)
    higher = (before - x).gather(-1, first.expand(x.shape))
    lower = (after - x).gather(-1, last.expand(x.shape))
    return before + after - x, higher, lower


def _sums(x: Tensor, position: Tensor, decay: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The parts of K x from places before and from places behind, both with the place itself."""
    if decay:
        before = (x / decay[0]).cumsum(dim=-1).mul_(decay[0])
        return before, (x * decay[0]).flip(-1).cumsum(dim=-1).flip(-1).div_(decay[0])
    return _decaying_sum(x, position), _decaying_sum(x.flip(-1), -position.flip(-1)).flip(-1)


def _decays(position: Tensor) -> Tensor:
    """exp(t), up to a factor that keeps it in range."""
    return torch.exp(position - (position[..., :1] + position[..., -1:]) / 2)


def _closed_gaps(position: Tensor) -> Tensor:
    """The same positions from 0 on, with no gap so large that nothing is seen across it."""
    return F.pad(position.diff(dim=-1).clamp(min=-LARGEST_GAP).cumsum(dim=-1), (1, 0))


def _decaying_sum(x: Tensor, position: Tensor) -> Tensor:
    """Σ_{j <= i} exp(t_i - t_j) x_j for descending positions t of any span: block by block."""
    nodes = x.shape[-1]
    if nodes <= BLOCK_SIZE:
        decay = _decays(position)
        return (x / decay).cumsum(dim=-1) * decay
    missing = -nodes % BLOCK_SIZE
    position = torch.cat([position, position[..., -1:].expand(*position.shape[:-1], missing)], dim=-1)
    position = position.unflatten(-1, (-1, BLOCK_SIZE))
    within = _decaying_sum(F.pad(x, (0, missing)).unflatten(-1, (-1, BLOCK_SIZE)), position)
    # What earlier blocks hand on: the same sum over their totals.
    ends = position[..., -1]
    totals = _decaying_sum(within[..., -1], _closed_gaps(ends))[..., :-1, None]
    handed_on = totals * torch.exp(position[..., 1:, :] - ends[..., :-1, None])
    return (within + F.pad(handed_on, (0, 0, 1, 0))).flatten(-2)[..., :nodes]


def pull_back_products(soft: SoftPermutation, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of Σ_c left_cᵀ P̂ right_c, the part of a loss that reads P̂ in products with vectors.

    Args:
        soft: P̂.
        left (`torch.Tensor` of shape `(batch, num_samples, nodes, channels)`): What meets rows, by rank of the hard sort.
        right (`torch.Tensor` of the same shape): What meets columns, by rank.

    Returns:
        `tuple[torch.Tensor, ...]`: With respect to `position`, `row_scale` and `column_scale`.
    """
    if left.shape[-1] > left.shape[-2]:
        return pull_back_matrix(soft, left @ right.mT)
    line = [part.unsqueeze(2) for part in soft.line]
    place = soft.rank.unsqueeze(2).expand(-1, -1, left.shape[-1], -1)
    left, right = (side.double().mT.gather(-1, place) for side in (left, right))
    from_left, from_right = soft.row_scale.unsqueeze(2) * left, soft.column_scale.unsqueeze(2) * right
    product, higher, lower = _laplace_sums(from_right, *line)
    grad_row = (left * product).sum(dim=2)
    grad_position = from_left * (higher - lower)
    product, higher, lower = _laplace_sums(from_left, *line)
    grad_column = (right * product).sum(dim=2)
    grad_position = grad_position + from_right * (higher - lower)
    return grad_position.sum(dim=2), grad_row, grad_column


def pull_back_matrix(soft: SoftPermutation, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of Σ_ij G_ij P̂_ij for a given matrix G, some rows at a time.

    Args:
        soft: P̂.
        gradient (`torch.Tensor` of shape `(batch, num_samples, nodes, ranks)`): G, rows too by rank of the hard sort.

    Returns:
        `tuple[torch.Tensor, ...]`: With respect to `position`, `row_scale` and `column_scale`.
    """
    place = soft.rank.argsort(dim=-1)
    position, row_scale, column_scale = (part.gather(-1, place) for part in soft.tensors[:3])
    grad_row, grad_position, grad_column = (torch.zeros_like(position) for _ in range(3))
    for start in range(0, position.shape[-1], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        distance = position[..., rows].unsqueeze(-1) - position.unsqueeze(-2)
        weighted = gradient[..., rows, :] * torch.exp(-distance.abs()).to(gradient.dtype)
        by_row = weighted * column_scale.unsqueeze(-2).to(gradient.dtype)
        grad_row[..., rows] = by_row.sum(dim=-1, dtype=position.dtype)
        by_row = by_row * row_scale[..., rows].unsqueeze(-1).to(gradient.dtype)
        grad_column += (weighted * row_scale[..., rows].unsqueeze(-1).to(gradient.dtype)).sum(dim=-2, dtype=position.dtype)
        towards = -distance.sign().to(gradient.dtype) * by_row
        grad_position[..., rows] += towards.sum(dim=-1, dtype=position.dtype)
        grad_position -= towards.sum(dim=-2, dtype=position.dtype)
    grads = (grad_position, grad_row, grad_column)
    first, second, third = (part.gather(-1, soft.rank) for part in grads)
    return first, second, third
