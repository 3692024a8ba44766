"""The losses are those of torch on the labels that are there."""

import pytest
import torch
from torch.nn import functional as F

from lps_hf.models.losses import invariant_loss


def test_single_label_loss_leaves_missing_labels_out():
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([2, -100, 0, -100])
    loss = invariant_loss(logits, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits[[0, 2]], labels[[0, 2]]))
    loss.backward()
    assert not logits.grad[[1, 3]].any()
    torch.testing.assert_close(invariant_loss(logits, labels.int()), loss)


def test_multi_label_loss_leaves_missing_labels_out():
    logits = torch.randn(3, 4, requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, torch.nan, 1.0], [torch.nan] * 4, [0.0, torch.nan, 1.0, 1.0]])
    known = ~labels.isnan()
    loss = invariant_loss(logits, labels)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[known], labels[known]))
    loss.backward()
    assert logits.grad.isfinite().all()
    assert torch.equal(logits.grad != 0, known)
    whole = torch.tensor([[1, 0, 1, 1]])
    expected = F.binary_cross_entropy_with_logits(logits[:1], whole.float())
    torch.testing.assert_close(invariant_loss(logits[:1], whole, "multi_label_classification"), expected)


def test_regression_loss_leaves_missing_labels_out():
    predictions = torch.randn(3, 2, requires_grad=True)
    labels = torch.tensor([[1.5, torch.nan], [-2.0, 0.25], [torch.nan, torch.nan]])
    known = ~labels.isnan()
    loss = invariant_loss(predictions, labels, "regression")
    torch.testing.assert_close(loss, F.mse_loss(predictions[known], labels[known]))
    loss.backward()
    assert torch.equal(predictions.grad != 0, known)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_one_number_per_graph_is_regression(shape, dtype):
    predictions, labels = torch.randn(3, 1), torch.tensor([1, 4, -2], dtype=dtype)
    torch.testing.assert_close(invariant_loss(predictions, labels.view(shape)), F.mse_loss(predictions[:, 0], labels.float()))


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("single_label_classification", torch.full((3,), -100)),
        ("multi_label_classification", torch.full((3, 2), torch.nan)),
        ("regression", torch.full((3, 2), torch.nan)),
    ],
)
def test_the_loss_of_no_labels_is_zero_and_has_a_gradient(problem_type, labels):
    logits = torch.randn(3, 2, requires_grad=True)
    loss = invariant_loss(logits, labels, problem_type)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros(3, 2))


def test_losses_are_taken_in_float32():
    logits = (30 * torch.randn(3, 2)).bfloat16()
    labels = torch.tensor([0, 1, 1])
    loss = invariant_loss(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(logits.float(), labels))
    assert invariant_loss(logits.double(), labels).dtype == torch.float64


LABEL_VALUE_ERRORS = {
    "class too large": (torch.tensor([0, 1, 2]), "single_label_classification", r"labels: expected 0 to 1, .*got 2"),
    "negative class": (torch.tensor([0, -1, 1]), None, r"labels: expected 0 to 1, or -100 for missing, got -1"),
    "classes of another batch": (torch.tensor([0, 1]), None, r"labels: expected shape \(3,\), got \(2,\)"),
    "classes in columns": (torch.zeros(3, 2, dtype=torch.int64), None, r"labels: expected shape \(3,\), got \(3, 2\)"),
    "too few columns": (torch.zeros(3, 1), None, r"labels: expected shape \(3, 2\) for multi_label_classification"),
    "flat targets": (torch.zeros(3), "regression", r"labels: expected shape \(3, 2\) for regression, got \(3,\)"),
    "no probability": (torch.tensor([[0.0, 1.0], [0.5, 0.0], [1.0, 1.0]]), None, r"labels: expected 0, 1 or NaN"),
}


@pytest.mark.parametrize("name", LABEL_VALUE_ERRORS)
def test_wrong_labels_are_refused(name):
    labels, problem_type, message = LABEL_VALUE_ERRORS[name]
    with pytest.raises(ValueError, match=message):
        invariant_loss(torch.randn(3, 2), labels, problem_type)


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(3, dtype=torch.bool)])
def test_class_numbers_are_whole(labels):
    with pytest.raises(TypeError, match="labels: expected class numbers of type int64, got"):
        invariant_loss(torch.randn(3, 2), labels, "single_label_classification")


def test_infinite_targets_are_refused():
    with pytest.raises(ValueError, match="labels: expected finite numbers"):
        invariant_loss(torch.zeros(2, 1), torch.tensor([[1.0], [torch.inf]]), "regression")
