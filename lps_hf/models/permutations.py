"""Permutations as index tensors: SoftSort with Sinkhorn, its entropy, and the straight-through gather."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .elements import Permutation


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
    return masked.sort(dim=-1, descending=True, stable=True).indices


def soft_permutation(scores: Tensor, index: Tensor, node_mask: Tensor, temperature: float, num_iterations: int = 20) -> Tensor:
    """Relax a sort to a doubly stochastic matrix: SoftSort logits, then Sinkhorn rounds in the log domain.

    The logits are -|s_i - s_(r)| / τ with s_(r) the score at rank r (Prillo and Eisenschlos 2020); each round divides the
    rows and then the columns by their sums (section 3 and appendix of arXiv 2306.02866).

    Args:
        scores (`torch.Tensor` of shape `(batch, num_samples, nodes)`): Normalised scores, zero on padding.
        index (`torch.Tensor` of shape `(batch, num_samples, nodes)`): The sort of `scores`.
        node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
        temperature: τ > 0; small values are close to the sort.
        num_iterations: Number of Sinkhorn rounds.

    Returns:
        `torch.Tensor` of shape `(batch, num_samples, nodes, ranks)`: P̂, exactly zero on padding.
    """
    log_soft = -(scores.unsqueeze(-1) - scores.gather(-1, index).unsqueeze(-2)).abs() / temperature
    valid = (node_mask.unsqueeze(-1) & node_mask.unsqueeze(-2)).unsqueeze(1)
    # A large negative number instead of -inf: rows of padding would be inf - inf, and their NaN would reach the gradient.
    log_soft = log_soft.masked_fill(~valid, -1e9)
    for _ in range(num_iterations):
        log_soft = log_soft - log_soft.logsumexp(dim=-1, keepdim=True).masked_fill(~node_mask[:, None, :, None], 0.0)
        log_soft = log_soft - log_soft.logsumexp(dim=-2, keepdim=True).masked_fill(~node_mask[:, None, None, :], 0.0)
    return log_soft.exp().masked_fill(~valid, 0.0)


def permutation_entropy(soft: Tensor, node_mask: Tensor) -> Tensor:
    """Mean row entropy plus mean column entropy of soft permutation matrices, the method's regulariser.

    Args:
        soft (`torch.Tensor` of shape `(batch, num_samples, nodes, ranks)`): P̂, zero on padding.
        node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.

    Returns:
        `torch.Tensor` of shape `()`: In nats, averaged over nodes, samples and batch.
    """
    valid = (node_mask.unsqueeze(-1) & node_mask.unsqueeze(-2)).unsqueeze(1)
    clamped = soft.clamp(min=1e-12).masked_fill(~valid, 0.0)
    total = torch.zeros_like(soft)
    for axis in (-1, -2):
        probability = clamped / clamped.sum(dim=axis, keepdim=True).clamp(min=1e-12)
        # log of 1 on padding: 0 * log(0) would be NaN.
        total = total - probability * probability.masked_fill(~valid, 1.0).log()
    return (total.sum(dim=(-1, -2)).mean(dim=1) / node_mask.sum(dim=-1).clamp(min=1)).mean()


class _StraightThroughGather(torch.autograd.Function):
    """Forward: a gather. Backward: the gradient of the product with the permutation matrix, handed to the soft matrix."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, place: Tensor, soft: Tensor, transpose: bool) -> Tensor:
        ctx.save_for_backward(tensor, place)
        ctx.transpose = transpose
        return tensor.expand(place.shape).gather(2, place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        tensor, place = ctx.saved_tensors
        grad_tensor = grad_soft = None
        if ctx.needs_input_grad[0]:
            grad_tensor = torch.zeros_like(gradient).scatter(2, place, gradient).sum_to_size(tensor.shape)
        if ctx.needs_input_grad[2]:
            # Rows of P are nodes and columns are ranks: Pᵀx has nodes on the input side, Px on the output side.
            by_node, by_rank = (tensor, gradient) if ctx.transpose else (gradient, tensor)
            grad_soft = by_node @ by_rank.transpose(-1, -2)
        return grad_tensor, None, grad_soft, None


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
    flat = moved.reshape(*moved.shape[:3], -1)
    place = permutation.index if transpose else permutation.rank
    place = place.unsqueeze(-1).expand(*place.shape, flat.shape[-1])
    if permutation.soft is None:
        result = flat.expand(place.shape).gather(2, place)
    else:
        result = _StraightThroughGather.apply(flat, place, permutation.soft.to(flat.dtype), transpose)
    return result.reshape(*result.shape[:3], *moved.shape[3:]).movedim(2, dim)
