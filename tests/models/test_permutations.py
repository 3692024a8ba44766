"""Index permutations, soft permutations and the straight-through gather, against dense matrices and naive loops."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lps_hf.models.elements import Permutation
from lps_hf.models.permutations import compose, inverse, permutation_entropy, permute, soft_permutation, sort_nodes
from tests.models.graph_cases import reference_soft_permutation, seeded

SIZES = [5, 1, 8, 3]
MASK = torch.arange(9) < torch.tensor(SIZES).unsqueeze(1)
every_dtype = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])


def random_scores(dtype: torch.dtype = torch.float64, num_samples: int = 2, seed: int = 0) -> Tensor:
    """Scores of unit norm on the valid nodes, zero on padding."""
    scores = torch.randn(len(SIZES), num_samples, 9, generator=seeded(seed), dtype=dtype)
    return F.normalize(scores * MASK.unsqueeze(1), dim=-1)


def to_matrix(index: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """The matrices P of (..., n): a one at (node, rank)."""
    return F.one_hot(index, index.shape[-1]).mT.to(dtype)


def random_permutations(*shape: int) -> Tensor:
    return torch.rand(shape, generator=seeded(1)).argsort(-1)


def test_inverse_and_compose_follow_their_definitions():
    left, right = random_permutations(2, 3, 6), random_permutations(2, 3, 6).flip(-1)
    places = torch.arange(6).expand(2, 3, 6)
    assert torch.equal(compose(left, inverse(left)), places)
    assert torch.equal(compose(inverse(left), left), places)
    for graph, sample, node in itertools.product(range(2), range(3), range(6)):
        assert compose(left, right)[graph, sample, node] == left[graph, sample, right[graph, sample, node]]
    assert not torch.equal(compose(left, right), compose(right, left))


def test_compose_takes_one_element_for_many():
    many, one = random_permutations(2, 3, 6), random_permutations(2, 3, 6)[:, :1].flip(-1)
    expected = torch.stack([compose(many[:, sample], one[:, 0]) for sample in range(3)], dim=1)
    assert torch.equal(compose(many, one), expected)
    expected = torch.stack([compose(one[:, 0], many[:, sample]) for sample in range(3)], dim=1)
    assert torch.equal(compose(one, many), expected)


@every_dtype
def test_sort_is_descending_and_leaves_padding_in_place(dtype, tolerance):
    scores = random_scores(dtype)
    scores = scores + torch.where(MASK, 0.0, 100.0).unsqueeze(1).to(dtype)
    index = sort_nodes(scores, MASK)
    for graph, size in enumerate(SIZES):
        for sample in range(2):
            assert index[graph, sample, size:].tolist() == list(range(size, 9))
            expected = sorted(range(size), key=lambda node: -float(scores[graph, sample, node]))
            assert index[graph, sample, :size].tolist() == expected


def test_padding_stays_in_place_also_below_minus_infinity():
    # Scores of -inf tie with the padding: a stable sort still keeps nodes in front.
    scores = torch.full((1, 1, 4), -torch.inf)
    mask = torch.tensor([[True, True, True, False]])
    assert sort_nodes(scores, mask)[0, 0].tolist() == [0, 1, 2, 3]


@every_dtype
@pytest.mark.parametrize("temperature", [0.01, 0.3])
@pytest.mark.parametrize("rounds", [0, 1, 20])
def test_soft_permutation_agrees_with_one_dense_matrix_per_graph(dtype, tolerance, temperature, rounds):
    scores = random_scores(dtype)
    soft = soft_permutation(scores, sort_nodes(scores, MASK), MASK, temperature, rounds)
    assert soft.dtype == dtype
    for graph, size in enumerate(SIZES):
        for sample in range(2):
            expected = reference_soft_permutation(scores[graph, sample, :size], temperature, rounds)
            torch.testing.assert_close(soft[graph, sample, :size, :size], expected, rtol=tolerance, atol=tolerance)
            assert not soft[graph, sample, size:].any()
            assert not soft[graph, sample, :, size:].any()


def test_soft_permutation_has_the_gradient_of_the_dense_matrices():
    scores, weights = random_scores(), torch.randn(4, 2, 9, 9, generator=seeded(3), dtype=torch.float64)
    ours, theirs = (scores.clone().requires_grad_() for _ in range(2))
    soft = soft_permutation(ours, sort_nodes(ours, MASK), MASK, 0.1)
    (soft * weights).sum().backward()
    total = 0.0
    for graph, size in enumerate(SIZES):
        for sample in range(2):
            expected = reference_soft_permutation(theirs[graph, sample, :size], 0.1, 20)
            total = total + (expected * weights[graph, sample, :size, :size]).sum()
    total.backward()
    assert ours.grad.isfinite().all()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10)


def test_soft_permutation_is_doubly_stochastic_after_many_rounds():
    scores = random_scores()
    soft = soft_permutation(scores, sort_nodes(scores, MASK), MASK, 0.3, 2000)
    for axis in (-1, -2):
        torch.testing.assert_close(soft.sum(axis), MASK.unsqueeze(1).expand(-1, 2, -1).double(), rtol=0, atol=1e-10)
    # Not so after one round: the rounds do something.
    once = soft_permutation(scores, sort_nodes(scores, MASK), MASK, 0.3, 1)
    assert (once.sum(-1) - MASK.unsqueeze(1).double()).abs().max() > 1e-3


def test_soft_permutation_tends_to_the_sort():
    scores = random_scores()
    index = sort_nodes(scores, MASK)
    soft = soft_permutation(scores, index, MASK, 1e-6)
    hard = to_matrix(index) * (MASK.unsqueeze(-1) & MASK.unsqueeze(-2)).unsqueeze(1)
    torch.testing.assert_close(soft, hard, rtol=0, atol=1e-10)


def test_soft_permutation_of_tied_scores_is_finite():
    scores = (MASK / MASK.sum(-1, keepdim=True).sqrt()).unsqueeze(1).double().requires_grad_()
    soft = soft_permutation(scores, sort_nodes(scores, MASK), MASK, 0.01)
    soft.square().sum().backward()
    assert scores.grad.isfinite().all()
    for graph, size in enumerate(SIZES):
        torch.testing.assert_close(soft[graph, 0, :size, :size], torch.full((size, size), 1 / size).double())


def naive_entropy(soft: list[list[float]]) -> float:
    """Row plus column entropy of one graph, in loops."""
    total = 0.0
    for lines in (soft, list(zip(*soft, strict=True))):
        for line in lines:
            for value in line:
                probability = value / sum(line)
                total -= probability * math.log(probability) if probability > 0 else 0.0
    return total / len(soft)


@pytest.mark.parametrize("rounds", [0, 20])
def test_entropy_agrees_with_a_loop(rounds):
    scores = random_scores(num_samples=3)
    soft = soft_permutation(scores, sort_nodes(scores, MASK), MASK, 0.1, rounds)
    expected = [
        naive_entropy(soft[graph, sample, :size, :size].tolist()) for graph, size in enumerate(SIZES) for sample in range(3)
    ]
    assert float(permutation_entropy(soft, MASK)) == pytest.approx(sum(expected) / len(expected), rel=1e-9)


def test_entropy_of_extreme_matrices():
    uniform = (MASK.unsqueeze(-1) & MASK.unsqueeze(-2)).double() / MASK.sum(-1)[:, None, None]
    expected = sum(2 * math.log(size) for size in SIZES) / len(SIZES)
    assert float(permutation_entropy(uniform.unsqueeze(1), MASK)) == pytest.approx(expected, rel=1e-9)
    hard = torch.eye(9).double() * MASK.unsqueeze(-1)
    hard.requires_grad_()
    entropy = permutation_entropy(hard.unsqueeze(1), MASK)
    assert float(entropy.detach()) == pytest.approx(0, abs=1e-9)
    entropy.backward()
    assert hard.grad.isfinite().all()


@every_dtype
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("with_soft", [False, True])
def test_permute_is_a_product_with_the_matrix(dtype, tolerance, num_samples, transpose, dim, with_soft):
    index = random_permutations(2, 3, 6)
    tensor = torch.randn(2, num_samples, 6, 6, 4, generator=seeded(2), dtype=dtype)
    soft = torch.rand(2, 3, 6, 6, generator=seeded(3)) if with_soft else None
    matrix = to_matrix(index, dtype)
    matrix = matrix.mT if transpose else matrix
    product = "bkrn,bknmc->bkrmc" if dim == 2 else "bkrm,bknmc->bknrc"
    expected = torch.einsum(product, matrix, tensor.expand(2, 3, 6, 6, 4))
    result = permute(tensor, Permutation(index, soft), dim, transpose)
    assert result.dtype == dtype
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_permute_has_the_straight_through_gradient(num_samples, transpose, dim):
    index = random_permutations(2, 3, 6)
    tensor = torch.randn(2, num_samples, 6, 6, 4, generator=seeded(2), dtype=torch.float64)
    soft = torch.rand(2, 3, 6, 6, generator=seeded(3), dtype=torch.float64)
    weights = torch.randn(2, 3, 6, 6, 4, generator=seeded(4), dtype=torch.float64)
    gradients = []
    for reference in (False, True):
        leaves = [tensor.clone().requires_grad_(), soft.clone().requires_grad_()]
        if reference:
            matrix = to_matrix(index) + leaves[1] - leaves[1].detach()
            matrix = matrix.mT if transpose else matrix
            product = "bkrn,bknmc->bkrmc" if dim == 2 else "bkrm,bknmc->bknrc"
            result = torch.einsum(product, matrix, leaves[0].expand(2, 3, 6, 6, 4))
        else:
            result = permute(leaves[0], Permutation(index, leaves[1]), dim, transpose)
        gradients.append(torch.autograd.grad((result * weights).sum(), leaves))
    for ours, expected in zip(*gradients, strict=True):
        assert ours.abs().max() > 0.1
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_permute_gives_half_precision_fields_their_own_type():
    soft = torch.rand(2, 3, 6, 6, requires_grad=True)
    tensor = torch.randn(2, 3, 6, 4, dtype=torch.bfloat16, requires_grad=True)
    result = permute(tensor, Permutation(random_permutations(2, 3, 6), soft), 2)
    result.float().square().sum().backward()
    assert result.dtype == tensor.grad.dtype == torch.bfloat16
    assert soft.grad.dtype == torch.float32


def test_a_second_derivative_is_refused_and_not_wrong():
    soft = torch.rand(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    tensor = torch.randn(1, 1, 4, 2, dtype=torch.float64, requires_grad=True)
    result = permute(tensor, Permutation(random_permutations(1, 1, 4), soft), 2)
    (gradient,) = torch.autograd.grad(result.square().sum(), soft, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
