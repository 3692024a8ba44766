"""Index permutations and the straight-through gather, against dense matrices and naive loops."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lps_hf.models.elements import Permutation
from lps_hf.models.permutations import compose, inverse, permute, sort_nodes
from lps_hf.models.soft_permutations import SoftPermutation, soft_permutation
from tests.models.graph_cases import reference_soft_matrix, seeded

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


def soft_of(scores: Tensor, index: Tensor) -> SoftPermutation:
    """A relaxation of any permutations: of these scores, not sorted."""
    return soft_permutation(scores, index, torch.ones(len(scores), index.shape[-1], dtype=torch.bool), 1.0)


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
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("with_soft", [False, True])
def test_permute_is_a_product_with_the_matrix(dtype, tolerance, num_samples, transpose, dim, with_soft):
    index = random_permutations(2, 3, 6)
    tensor = torch.randn(2, num_samples, 6, 6, 4, generator=seeded(2), dtype=dtype)
    soft = soft_of(torch.randn(2, 3, 6, generator=seeded(3)), index) if with_soft else None
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
@pytest.mark.parametrize("channels", [(), (1,), (4,)], ids=str)  # fewer products than ranks, or more
def test_permute_has_the_straight_through_gradient(num_samples, transpose, dim, channels):
    index = random_permutations(2, 3, 6)
    shape = (6, 6, *channels) if channels else ((6, 1) if dim == 2 else (1, 6))
    tensor = torch.randn(2, num_samples, *shape, generator=seeded(2), dtype=torch.float64)
    scores = torch.randn(2, 3, 6, generator=seeded(3), dtype=torch.float64)
    weights = torch.randn(2, 3, *shape, generator=seeded(4), dtype=torch.float64)
    gradients = []
    for reference in (False, True):
        leaves = [tensor.clone().requires_grad_(), scores.clone().requires_grad_()]
        if reference:
            soft = reference_soft_matrix(leaves[1], index, 1.0, 20)
            matrix = to_matrix(index) + soft - soft.detach()
            matrix = matrix.mT if transpose else matrix
            product = "bkrn,bknm...->bkrm..." if dim == 2 else "bkrm,bknm...->bknr..."
            result = torch.einsum(product, matrix, leaves[0].expand(2, 3, *shape))
        else:
            result = permute(leaves[0], Permutation(index, soft_of(leaves[1], index)), dim, transpose)
        gradients.append(torch.autograd.grad((result * weights).sum(), leaves))
    for ours, expected in zip(*gradients, strict=True):
        assert ours.abs().max() > 0.01
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_permute_gives_half_precision_fields_their_own_type():
    scores, index = torch.randn(2, 3, 6, requires_grad=True), random_permutations(2, 3, 6)
    tensor = torch.randn(2, 3, 6, 4, dtype=torch.bfloat16, requires_grad=True)
    result = permute(tensor, Permutation(index, soft_of(scores, index)), 2)
    result.float().square().sum().backward()
    assert result.dtype == tensor.grad.dtype == torch.bfloat16
    assert scores.grad.dtype == torch.float32


def test_a_second_derivative_is_refused_and_not_wrong():
    scores, index = torch.randn(1, 1, 4, dtype=torch.float64, requires_grad=True), random_permutations(1, 1, 4)
    tensor = torch.randn(1, 1, 4, 2, dtype=torch.float64, requires_grad=True)
    result = permute(tensor, Permutation(index, soft_of(scores, index)), 2)
    (gradient,) = torch.autograd.grad(result.square().sum(), scores, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
