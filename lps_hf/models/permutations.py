"""Permutations as index tensors: sorting, composing, and moving an axis with a straight-through gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .elements import Permutation
from .soft_permutations import SoftPermutation, differentiable_once, pull_back_products


def inverse(index: Tensor) -> Tensor:
    """Invert permutations `index` (..., n): the rank of each node."""
    return index.argsort(dim=-1)


def compose(left: Tensor, right: Tensor) -> Tensor:
    """Compose permutations (..., n): `compose(g, h)(i) = g(h(i))`, h acts first."""
    return torch.take_along_dim(left, right, dim=-1)


def sort_nodes(scores: Tensor, node_mask: Tensor) -> Tensor:
    """Turn node scores into permutations by sorting them in descending order.

    Args:
        scores (`torch.Tensor` of shape `(batch, num_samples, nodes)`): At least float32; padding is ignored.
        node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes, false on padding.

    Returns:
        `torch.Tensor` of shape `(batch, num_samples, nodes)`: The node of each rank. Padding keeps the last ranks, in order.
    """
    masked = scores.detach().masked_fill(~node_mask.unsqueeze(1), -torch.inf)
    if torch.compiler.is_exporting():
        # ONNX has no stable sort, but its top k, which takes the lower number among equals: padding stays in order there, too.
        return masked.topk(masked.shape[-1]).indices
    return masked.sort(dim=-1, descending=True, stable=True).indices


def number_levels(ordered: Tensor, tolerance: Tensor) -> Tensor:
    """Number sorted values, equal ones alike.

    Values are equal where no step between neighbours is larger than the tolerance. So equality is transitive, and does not depend
    on the order in which the values were stored.

    Args:
        ordered (`torch.Tensor` of shape `(..., n)`): Ascending or descending.
        tolerance (`torch.Tensor`, broadcastable to `(..., n - 1)`): Largest step between equal values.

    Returns:
        `torch.Tensor` of shape `(..., n)` int64: Ascending, from 0.
    """
    steps = (ordered[..., 1:] - ordered[..., :-1]).abs() > tolerance
    return F.pad(steps.long().cumsum(dim=-1), (1, 0))


class _StraightThrough(torch.autograd.Function):
    """The identity on Pᵀx or Px, whose backward pass also hands the product's gradient with respect to P to the soft matrix."""

    @staticmethod
    def forward(ctx: Any, moved: Tensor, tensor: Tensor, place: Tensor, transpose: bool, *soft: Tensor) -> Tensor:
        # Rows of P, counted by rank, meet Pᵀx itself, or the gradient of Px brought to ranks.
        ctx.save_for_backward(moved if transpose else tensor, place, *soft)
        ctx.transpose = transpose
        return moved.view_as(moved)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, place, *soft = ctx.saved_tensors
        left, right = kept, gradient
        if not ctx.transpose:
            left, right = gather_rows(gradient, place.argsort(dim=-1)), kept.expand(gradient.shape)
        to_soft = pull_back_products(SoftPermutation(*soft), left, right)
        return gradient, None, None, None, *to_soft, *[None] * (len(soft) - len(to_soft))


def gather_rows(tensor: Tensor, place: Tensor) -> Tensor:
    """Take rows by number.

    Args:
        tensor (`torch.Tensor` of shape `(batch, num_samples or 1, nodes, channels)`): The rows.
        place (`torch.Tensor` of shape `(batch, num_samples, nodes)` int64): Which row comes to each place.

    Returns:
        `torch.Tensor` of shape `(batch, num_samples, nodes, channels)`.
    """
    batch, samples, nodes, channels = tensor.shape
    first = torch.arange(batch * samples, device=place.device).view(batch, samples, 1) * nodes
    return tensor.reshape(-1, channels).index_select(0, (place + first).flatten()).view(*place.shape, channels)


def permute(tensor: Tensor, permutation: Permutation, dim: int, transpose: bool = False) -> Tensor:
    """Multiply one axis by permutation matrices P (or Pᵀ), as a gather.

    The gradient reaches `permutation.soft` as if the forward pass had used it (straight-through estimator).

    Args:
        tensor (`torch.Tensor` of shape `(batch, num_samples or 1, ...)`): Axis `dim` has the permutations' length.
        permutation: The elements g, leading shape `(batch, num_samples)`.
        dim: The axis to permute, at least 2.
        transpose: False applies g (nodes come out in the axis), true applies g⁻¹ (ranks come out).

    Returns:
        `torch.Tensor` of shape `(batch, num_samples, ...)`.
    """
    moved = tensor.movedim(dim, 2)
    flat = moved.flatten(3) if moved.dim() > 3 else moved.unsqueeze(3)
    place = permutation.index if transpose else permutation.rank
    result = gather_rows(flat, place)
    if permutation.soft is not None:
        result = _StraightThrough.apply(result, flat.detach(), place, transpose, *permutation.soft.tensors)
    return result.reshape(*result.shape[:3], *moved.shape[3:]).movedim(2, dim)
