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
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise TypeError(f"labels: expected class numbers of type int64, got {labels.dtype}. Call .long().")
        if labels.shape != (batch,):
            raise ValueError(f"labels: expected shape ({batch},), got {tuple(labels.shape)}.")
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = ((labels < 0) | (labels >= num_labels)) & (labels != -100)
            if bool(wrong.any()):
                raise ValueError(f"labels: expected 0 to {num_labels - 1}, or -100 for missing, got {int(labels[wrong][0])}.")
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
