"""Losses of symmetrized models; missing labels are left out of the mean."""

import torch
from torch import Tensor
from torch.nn import functional as F


def invariant_loss(logits: Tensor, labels: Tensor, problem_type: str | None = None) -> Tensor:
    """Loss of invariant outputs, in float32 or better; missing labels are left out of the mean.

    Args:
        logits (`torch.Tensor` of shape `(batch, num_labels)`): The outputs.
        labels (`torch.Tensor`): `(batch,)` int64 with -100 for missing, or `(batch, num_labels)` float with NaN for missing.
        problem_type: `"single_label_classification"` (cross-entropy), `"multi_label_classification"` (binary cross-entropy) or
            `"regression"` (mean squared error). `None`: by the labels, one number per graph without classes is regression.

    Returns:
        `torch.Tensor` of shape `()`; zero, with a gradient, where every label is missing.

    Raises:
        ValueError: If the labels have the wrong shape or are out of range.
        TypeError: If they have the wrong type.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    batch, num_labels = logits.shape
    if problem_type is None:
        integer = not labels.is_floating_point()
        by_type = "single_label_classification" if integer else "multi_label_classification"
        problem_type = "regression" if num_labels == 1 else by_type
    if problem_type == "single_label_classification":
        _check_classes(labels, batch, num_labels)
        # Not the mean that cross_entropy takes: it is NaN where every label is missing.
        total = F.cross_entropy(logits, labels.long(), ignore_index=-100, reduction="sum")
        return total / (labels != -100).sum().clamp(min=1)
    if labels.dim() == 1 and num_labels == 1:
        labels = labels.unsqueeze(-1)
    if labels.shape != logits.shape:
        raise ValueError(f"labels: expected shape {tuple(logits.shape)} for {problem_type}, got {tuple(labels.shape)}.")
    labels = labels.to(logits.dtype)
    if labels.device.type == "cpu" and not torch.compiler.is_compiling() and bool(labels.isinf().any()):
        raise ValueError("labels: expected finite numbers, or NaN for missing, got infinity.")
    known = ~labels.isnan()
    labels = labels.masked_fill(~known, 0.0)
    if problem_type == "multi_label_classification":
        checked = labels.device.type == "cpu" and not torch.compiler.is_compiling()
        if checked and bool(((labels != 0) & (labels != 1)).any()):
            raise ValueError("labels: expected 0, 1 or NaN for missing, got another number.")
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    else:
        losses = (logits - labels).square()
    return losses.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)


def _check_classes(labels: Tensor, batch: int, num_labels: int) -> None:
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels: expected class numbers of type int64, got {labels.dtype}. Call .long().")
    if labels.shape != (batch,):
        raise ValueError(f"labels: expected shape ({batch},), got {tuple(labels.shape)}.")
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = ((labels < 0) | (labels >= num_labels)) & (labels != -100)
        if bool(wrong.any()):
            raise ValueError(f"labels: expected 0 to {num_labels - 1}, or -100 for missing, got {int(labels[wrong][0])}.")


def node_loss(logits: Tensor, labels: Tensor, node_mask: Tensor | None = None, class_weighted: bool = False) -> Tensor:
    """Cross-entropy of nodes, in float32 or better.

    Args:
        logits (`torch.Tensor` of shape `(batch, nodes, num_labels)`): Class scores.
        labels (`torch.Tensor` of shape `(batch, nodes)` int64): Classes, -100 for missing.
        node_mask (`torch.Tensor` of shape `(batch, nodes)` bool): Labels of padding are left out.
        class_weighted: Weigh each class with 1 minus its share of the labelled nodes of the batch (Dwivedi et al. 2020).

    Returns:
        `torch.Tensor` of shape `()`; zero, with a gradient, where every label is missing.

    Raises:
        ValueError: If the labels have the wrong shape or are out of range.
        TypeError: If they have the wrong type.
    """
    if labels.shape != logits.shape[:2]:
        raise ValueError(f"labels: expected shape {tuple(logits.shape[:2])}, one per node, got {tuple(labels.shape)}.")
    if node_mask is not None and labels.dtype == torch.int64:
        labels = labels.masked_fill(~node_mask, -100)
    flat, labels = logits.flatten(0, 1), labels.flatten()
    if not class_weighted:
        return invariant_loss(flat, labels, "single_label_classification")
    _check_classes(labels, *flat.shape)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    known = (labels >= 0).to(flat.dtype)
    counts = torch.zeros_like(flat[0]).scatter_add(0, labels.clamp(min=0), known)
    weights = 1 - counts / counts.sum().clamp(min=1)
    per_node = F.cross_entropy(flat, labels, ignore_index=-100, reduction="none") * weights[labels.clamp(min=0)]
    total = (weights * counts).sum()
    return (per_node * known).sum() / total.clamp(min=torch.finfo(flat.dtype).tiny)


def check_pairs(pair_index: Tensor, shape: tuple[int, ...], node_mask: Tensor | None) -> None:
    """Refuse pairs that are no pairs of nodes.

    Args:
        pair_index (`torch.Tensor` of shape `(batch, 2, pairs)` int64): Source and target.
        shape: (batch, nodes, nodes).
        node_mask (`torch.Tensor` of shape `(batch, nodes)` bool): `None` where all are nodes.

    Raises:
        ValueError: If the shape is wrong, or (on the CPU) a pair is out of range.
        TypeError: If the numbers are not int64.
    """
    if pair_index.dim() != 3 or pair_index.shape[:2] != (shape[0], 2):
        raise ValueError(f"pair_index: expected shape ({shape[0]}, 2, pairs), got {tuple(pair_index.shape)}.")
    if pair_index.dtype != torch.int64:
        raise TypeError(f"pair_index: expected int64, got {pair_index.dtype}. Call .long().")
    if pair_index.device.type != "cpu" or torch.compiler.is_compiling() or not pair_index.numel():
        return
    sizes = torch.full((shape[0],), shape[1]) if node_mask is None else node_mask.sum(dim=1)
    wrong = ((pair_index < 0) | (pair_index >= sizes.view(-1, 1, 1))).flatten(1).any(dim=1)
    if bool(wrong.any()):
        graph = int(wrong.int().argmax())
        raise ValueError(
            f"pair_index: graph {graph} has {int(sizes[graph])} nodes, expected node numbers 0 to {int(sizes[graph]) - 1}, got "
            f"{int(pair_index[graph].min())} to {int(pair_index[graph].max())}."
        )


def pair_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of pairs, each pair with the same weight.

    Args:
        logits (`torch.Tensor` of shape `(batch, pairs)`): Scores.
        labels (`torch.Tensor` of shape `(batch, pairs)` float): 1 for a link, 0 for none, NaN for missing.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    return invariant_loss(logits, labels, "multi_label_classification")


def position_loss(positions: Tensor, labels: Tensor, node_mask: Tensor | None = None) -> Tensor:
    """Mean squared error of positions, over all coordinates of all nodes.

    Args:
        positions (`torch.Tensor` of shape `(batch, nodes, d)`): Predictions.
        labels (`torch.Tensor` of shape `(batch, nodes, d)` float): True positions, NaN for missing.
        node_mask (`torch.Tensor` of shape `(batch, nodes)` bool): Padding is left out.

    Returns:
        `torch.Tensor` of shape `()`, in the square of the positions' unit.
    """
    if labels.shape != positions.shape:
        raise ValueError(f"labels: expected shape {tuple(positions.shape)}, got {tuple(labels.shape)}.")
    if node_mask is not None:
        labels = labels.to(torch.promote_types(labels.dtype, torch.float32))
        labels = labels.masked_fill(~node_mask.unsqueeze(-1), torch.nan)
    return invariant_loss(positions.flatten(1), labels.flatten(1), "regression")
