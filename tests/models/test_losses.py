"""The losses are those of torch on the labels that are there."""

import pytest
import torch
from torch.nn import functional as F

from lps_hf.models.losses import check_pairs, invariant_loss, node_loss, pair_loss, position_loss


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


def node_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, classes of which the last graph's padding holds rubbish, and the mask."""
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    labels = torch.tensor([[0, 2, -100, 0], [1, 0, 2, 2]])
    return torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True), labels, mask


def test_node_loss_is_that_of_the_labelled_nodes():
    logits, labels, mask = node_case()
    known = mask & (labels != -100)
    loss = node_loss(logits, labels, mask)
    torch.testing.assert_close(loss, F.cross_entropy(logits[known], labels[known]))
    loss.backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, known)
    padding_too = labels != -100
    torch.testing.assert_close(node_loss(logits, labels), F.cross_entropy(logits[padding_too], labels[padding_too]))


def test_weighted_node_loss_weighs_classes_by_their_absence():
    logits, labels, mask = node_case()
    known = mask & (labels != -100)
    # Five labelled nodes, of the classes 0, 2, 0, 1, 0.
    weights = torch.tensor([1 - 3 / 5, 1 - 1 / 5, 1 - 1 / 5])
    expected = F.cross_entropy(logits[known], labels[known], weight=weights)
    torch.testing.assert_close(node_loss(logits, labels, mask, class_weighted=True), expected)
    assert (expected - node_loss(logits, labels, mask)).abs() > 1e-3


@pytest.mark.parametrize("class_weighted", [False, True])
def test_the_loss_of_no_labelled_node_is_zero_and_has_a_gradient(class_weighted):
    logits, labels, mask = node_case()
    loss = node_loss(logits, torch.full_like(labels, -100), mask, class_weighted)
    assert loss.item() == 0
    loss.backward()
    assert not logits.grad.any()


@pytest.mark.parametrize("class_weighted", [False, True])
def test_wrong_classes_of_nodes_are_refused(class_weighted):
    logits, labels, mask = node_case()
    for wrong, got in ((3, 3), (-1, -1)):
        with pytest.raises(ValueError, match=f"labels: expected 0 to 2, or -100 for missing, got {got}"):
            node_loss(logits, labels.masked_fill(labels == 1, wrong), mask, class_weighted)
    with pytest.raises(ValueError, match=r"labels: expected shape \(2, 4\), one per node, got \(2, 3\)"):
        node_loss(logits, labels[:, :3], mask, class_weighted)
    with pytest.raises(TypeError, match="labels: expected class numbers of type int64, got torch.float32"):
        node_loss(logits, labels.float(), mask, class_weighted)


def test_pair_loss_is_binary_and_leaves_missing_labels_out():
    logits = torch.randn(2, 3, requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, torch.nan], [0.0, torch.nan, torch.nan]])
    known = ~labels.isnan()
    expected = F.binary_cross_entropy_with_logits(logits[known], labels[known])
    torch.testing.assert_close(pair_loss(logits, labels), expected)


def test_pairs_that_are_no_pairs_of_nodes_are_refused():
    pairs, mask = torch.tensor([[[0, 3], [1, 2]], [[0, 1], [1, 1]]]), torch.arange(4) < torch.tensor([[4], [2]])
    check_pairs(pairs, (2, 4, 4), mask)
    for place, value, message in (
        ((1, 0, 1), 2, "pair_index: graph 1 has 2 nodes, expected node numbers 0 to 1, got 0 to 2"),
        ((0, 1, 0), -1, "pair_index: graph 0 has 4 nodes, expected node numbers 0 to 3, got -1 to"),
    ):
        wrong = pairs.clone()
        wrong[place] = value
        with pytest.raises(ValueError, match=message):
            check_pairs(wrong, (2, 4, 4), mask)
    with pytest.raises(ValueError, match=r"pair_index: expected shape \(2, 2, pairs\), got \(2, 2\)"):
        check_pairs(pairs[0], (2, 4, 4), None)
    with pytest.raises(TypeError, match="pair_index: expected int64, got torch.int32"):
        check_pairs(pairs.int(), (2, 4, 4), None)


def test_position_loss_is_the_mean_over_the_coordinates_of_all_nodes():
    positions, labels = torch.randn(2, 3, 3, requires_grad=True), torch.randn(2, 3, 3)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    loss = position_loss(positions, labels, mask)
    torch.testing.assert_close(loss, F.mse_loss(positions[mask], labels[mask]))
    loss.backward()
    assert torch.equal(positions.grad.abs().sum(-1) > 0, mask)
    torch.testing.assert_close(position_loss(positions, labels), F.mse_loss(positions, labels))
    with pytest.raises(ValueError, match=r"labels: expected shape \(2, 3, 3\), got \(2, 3, 2\)"):
        position_loss(positions, labels[..., :2], mask)


def test_position_loss_leaves_padding_out_for_whole_numbers_too():
    labels, mask = torch.tensor([[[1, 2], [70, 80]]]), torch.tensor([[True, False]])
    assert position_loss(torch.zeros(1, 2, 2), labels, mask) == 2.5
