"""Soft permutations by prefix sums, against dense matrices in the log domain, one graph at a time."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lps_hf.models.permutations import sort_nodes
from lps_hf.models.soft_permutations import (
    LARGEST_SPAN,
    SoftPermutation,
    pull_back_matrix,
    pull_back_products,
    soft_permutation,
)
from tests.models.graph_cases import reference_entropy, reference_soft_matrix, seeded

SIZES = [5, 1, 60, 3]
NODES = 61
MASK = torch.arange(NODES) < torch.tensor(SIZES).unsqueeze(1)
PAIRS = (MASK.unsqueeze(-1) & MASK.unsqueeze(-2)).unsqueeze(1)
# The short way and that of blocks, which takes any span.
every_way = pytest.mark.parametrize("largest_span", [LARGEST_SPAN, math.inf], ids=["at once", "in blocks"])
every_kind = pytest.mark.parametrize("kind", ["distinct", "ties", "near ties", "wide gaps"])


def make_scores(kind: str = "distinct", num_samples: int = 2, seed: int = 0) -> Tensor:
    """Scores of unit norm on the valid nodes, zero on padding."""
    scores = torch.randn(len(SIZES), num_samples, NODES, generator=seeded(seed), dtype=torch.float64)
    if kind == "ties":
        scores = (2 * scores).round()
    if kind == "near ties":
        scores = (2 * scores).round() + 1e-9 * torch.rand(scores.shape, generator=seeded(seed + 1), dtype=torch.float64)
    if kind == "wide gaps":
        scores = scores.sign() * scores.abs().pow(4)
    return F.normalize(scores * MASK.unsqueeze(1), dim=-1)


def hard_sort(scores: Tensor, kind: str) -> Tensor:
    """As a group does it: nearly equal scores in random order."""
    margin = 1e-4 * torch.rand(scores.shape, generator=seeded(9), dtype=torch.float64) if "ties" in kind else 0.0
    return sort_nodes(scores + margin * MASK.unsqueeze(1), MASK)


def relax(scores: Tensor, kind: str, temperature: float, rounds: int, largest_span: float) -> tuple[SoftPermutation, Tensor]:
    index = hard_sort(scores.detach(), kind)
    return soft_permutation(scores, index, MASK, temperature, rounds, largest_span), index


def in_each_graph(function, scores: Tensor, index: Tensor) -> list[Tensor]:
    """Something of the scores and the sort of one graph without padding, for each graph."""
    return [function(scores[graph, :, :size], index[graph, :, :size], graph) for graph, size in enumerate(SIZES)]


@every_way
@every_kind
@pytest.mark.parametrize("temperature", [0.01, 0.3])
@pytest.mark.parametrize("rounds", [0, 1, 20])
def test_the_matrix_is_that_of_the_log_domain(largest_span, kind, temperature, rounds):
    scores = make_scores(kind)
    soft, index = relax(scores, kind, temperature, rounds, largest_span)
    matrix = soft.matrix(index)
    assert matrix.dtype == torch.float64
    assert not matrix.masked_select(~PAIRS).any()
    expected = in_each_graph(lambda s, i, _: reference_soft_matrix(s, i, temperature, rounds), scores, index)
    for graph, size in enumerate(SIZES):
        torch.testing.assert_close(matrix[graph, :, :size, :size], expected[graph], rtol=1e-9, atol=1e-13)


def test_scores_in_single_precision_are_only_read_so():
    scores = make_scores().float()
    soft, index = relax(scores, "distinct", 0.01, 20, LARGEST_SPAN)
    again, _ = relax(scores.double(), "distinct", 0.01, 20, LARGEST_SPAN)
    assert torch.equal(soft.matrix(index), again.matrix(index))


@every_way
@every_kind
@pytest.mark.parametrize("temperature", [0.01, 0.3])
@pytest.mark.parametrize("pull_back", ["products", "matrix"])
def test_gradients_are_those_of_the_dense_matrix(largest_span, kind, temperature, pull_back):
    # Of a loss that reads the matrix and of the entropy, to the scores; where scores tie, |s_i - s_j| has the derivative 0.
    ours, theirs = (make_scores(kind).requires_grad_() for _ in range(2))
    left, right = (torch.randn(len(SIZES), 2, NODES, 3, generator=seeded(n), dtype=torch.float64) for n in (3, 4))
    left, right = left * MASK[:, None, :, None], right * MASK[:, None, :, None]
    soft, index = relax(ours, kind, temperature, 20, largest_span)
    gradient = pull_back_products(soft, left, right) if pull_back == "products" else pull_back_matrix(soft, left @ right.mT)
    vectors = (soft.position, soft.row_scale, soft.column_scale)
    total = sum((one * other.detach()).sum() for one, other in zip(vectors, gradient, strict=True)) + 3 * soft.entropy(MASK)
    total.backward()

    def loss(scores: Tensor, order: Tensor, graph: int) -> Tensor:
        matrix = reference_soft_matrix(scores, order, temperature, 20)
        by_rank = matrix.gather(1, order.unsqueeze(-1).expand_as(matrix))  # rows counted by rank, as `left` is
        size = SIZES[graph]
        product = torch.einsum("kic,kij,kjc->", left[graph, :, :size], by_rank, right[graph, :, :size])
        return product + 3 * sum(reference_entropy(one) for one in matrix) / len(matrix) / len(SIZES)

    torch.stack(in_each_graph(loss, theirs, index)).sum().backward()
    scale = float(theirs.grad.abs().max())
    assert scale > 0.01
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-9 * scale)


def test_many_products_are_pulled_back_as_one_matrix():
    soft, _ = relax(make_scores(), "distinct", 0.1, 20, LARGEST_SPAN)
    left, right = (torch.randn(len(SIZES), 2, NODES, 2 * NODES, generator=seeded(n), dtype=torch.float64) for n in (3, 4))
    halves = [
        pull_back_products(soft, *(side[..., part] for side in (left, right))) for part in (slice(NODES), slice(NODES, None))
    ]
    for whole, first, second in zip(pull_back_products(soft, left, right), *halves, strict=True):
        torch.testing.assert_close(whole, first + second, rtol=1e-9, atol=1e-9)


@every_way
def test_many_rounds_make_it_doubly_stochastic(largest_span):
    scores = make_scores()
    soft, index = relax(scores, "distinct", 0.3, 2000, largest_span)
    for axis in (-1, -2):
        torch.testing.assert_close(soft.matrix(index).sum(axis), MASK.unsqueeze(1).expand(-1, 2, -1).double(), rtol=0, atol=1e-10)
    # Not so after one round: the rounds do something.
    once, _ = relax(scores, "distinct", 0.3, 1, largest_span)
    assert (once.matrix(index).sum(-1) - MASK.unsqueeze(1).double()).abs().max() > 1e-3


def test_low_temperatures_give_the_sort():
    scores = make_scores()
    soft, index = relax(scores, "distinct", 1e-7, 20, math.inf)
    hard = F.one_hot(index, NODES).mT.double() * PAIRS
    torch.testing.assert_close(soft.matrix(index), hard, rtol=0, atol=1e-10)


@every_way
def test_equal_scores_are_uniform_and_their_gradient_finite(largest_span):
    scores = (MASK / MASK.sum(-1, keepdim=True).sqrt()).unsqueeze(1).double().requires_grad_()
    soft, index = relax(scores, "ties", 0.01, 20, largest_span)
    for graph, size in enumerate(SIZES):
        torch.testing.assert_close(soft.matrix(index)[graph, 0, :size, :size], torch.full((size, size), 1 / size).double())
    expected = sum(2 * math.log(size) for size in SIZES) / len(SIZES)
    assert float(soft.entropy(MASK).detach()) == pytest.approx(expected, rel=1e-12)
    soft.entropy(MASK).backward()
    assert scores.grad.isfinite().all()


@every_kind
@pytest.mark.parametrize("rounds", [0, 20])
def test_entropy_agrees_with_the_dense_matrix(kind, rounds):
    scores = make_scores(kind, num_samples=3)
    soft, index = relax(scores, kind, 0.1, rounds, LARGEST_SPAN)

    def entropy(scores: Tensor, order: Tensor, graph: int) -> Tensor:
        return torch.stack([reference_entropy(one) for one in reference_soft_matrix(scores, order, 0.1, rounds)]).mean()

    expected = torch.stack(in_each_graph(entropy, scores, index)).mean()
    assert float(soft.entropy(MASK)) == pytest.approx(float(expected), rel=1e-10)


def test_memory_and_time_grow_with_the_nodes_and_not_with_their_square():
    # 65,536 nodes: the matrix would have 34 GB.
    nodes = 2**16
    scores = F.normalize(torch.randn(1, 1, nodes, generator=seeded(0)), dim=-1).requires_grad_()
    mask = torch.ones(1, nodes, dtype=torch.bool)
    soft = soft_permutation(scores, sort_nodes(scores, mask), mask, 0.01, 20, 2**0.5 / 0.01)
    sides = (torch.randn(1, 1, nodes, 2, generator=seeded(n)) for n in (1, 2))
    torch.autograd.backward([soft.position, soft.row_scale, soft.column_scale], pull_back_products(soft, *sides))
    assert scores.grad.isfinite().all()
    assert scores.grad.abs().max() > 0


def test_a_value_that_can_be_mapped():
    soft, index = relax(make_scores(), "distinct", 0.1, 20, LARGEST_SPAN)
    second = soft.map(lambda vector: vector[:, 1:])
    assert torch.equal(second.matrix(index[:, 1:]), soft.matrix(index)[:, 1:])
