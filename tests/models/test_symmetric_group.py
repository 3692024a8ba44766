"""S_n: the group axioms, the Haar measure, and the action on dense tensors and edge lists."""

import itertools

import pytest
import torch
from torch import Tensor

from lps_hf.models.elements import Permutation
from lps_hf.models.representations import EdgeField, Representation
from lps_hf.models.symmetric_group import SymmetricGroup
from tests.models.graph_cases import chi_square, count_orders, densify, seeded

GROUP = SymmetricGroup()
SIZES = [5, 1, 7, 4]
MASK = torch.arange(7) < torch.tensor(SIZES).unsqueeze(1)
REPRESENTATIONS = ["10", "n 3", "n n 2"]
every_representation = pytest.mark.parametrize("text", REPRESENTATIONS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def random_field(text: str, dtype: torch.dtype = torch.float64, num_samples: int = 1) -> Tensor:
    shape = [7 if axis == "n" else axis for axis in Representation.parse(text).axes]
    return torch.randn(len(SIZES), num_samples, *shape, generator=seeded(5), dtype=dtype)


def random_edges(dtype: torch.dtype = torch.float64) -> EdgeField:
    """Twelve edges per graph with repetitions and self-loops; the last three are padding."""
    ends = torch.rand(len(SIZES), 2, 12, generator=seeded(6)) * torch.tensor(SIZES)[:, None, None]
    features = torch.randn(len(SIZES), 12, 2, generator=seeded(7), dtype=dtype)
    features[:, 9:] = 0
    return EdgeField(ends.long().index_fill(2, torch.arange(9, 12), 0), features)


def draw(num_samples: int = 3, seed: int = 0) -> Permutation:
    return GROUP.haar(MASK, num_samples, seeded(seed))


def test_group_axioms_hold_for_all_of_s4():
    elements = GROUP.enumerate(4).index[0]
    places = {tuple(element.tolist()): number for number, element in enumerate(elements)}
    assert len(places) == 24

    def pair(left: int, right: int) -> int:
        product = GROUP.compose(Permutation(elements[None, None, left]), Permutation(elements[None, None, right]))
        return places[tuple(product.index[0, 0].tolist())]

    table = torch.tensor([[pair(left, right) for right in range(24)] for left in range(24)])
    # Every row and column of a Cayley table is a permutation; associativity is (ab)c = a(bc) for all 24³ triples.
    assert torch.equal(table.sort(0).values, torch.arange(24).unsqueeze(1).expand(24, 24))
    assert torch.equal(table.sort(1).values, torch.arange(24).expand(24, 24))
    assert torch.equal(table[table], table[:, table])
    identity = places[0, 1, 2, 3]
    assert torch.equal(table[identity], torch.arange(24))
    assert torch.equal(table[:, identity], torch.arange(24))
    inverses = [places[tuple(element.tolist())] for element in GROUP.inverse(Permutation(elements[None])).index[0]]
    assert (table[torch.arange(24), inverses] == identity).all()
    assert (table != table.T).any()


def test_compose_applies_the_right_element_first():
    left, right = draw(seed=1), draw(seed=2)
    field = random_field("n 3")
    representation = Representation.parse("n 3")
    inner = GROUP.act(right, field, representation)
    both = GROUP.act(GROUP.compose(left, right), field, representation)
    torch.testing.assert_close(both, GROUP.act(left, inner, representation), rtol=0, atol=0)
    assert not torch.equal(both, GROUP.act(right, GROUP.act(left, field, representation), representation))


def test_identity():
    identity = GROUP.identity(MASK, 3)
    assert identity.index.shape == (len(SIZES), 3, 7)
    elements = draw()
    assert torch.equal(GROUP.compose(elements, identity).index, elements.index)
    assert torch.equal(GROUP.compose(identity, elements).index, elements.index)
    assert torch.equal(GROUP.compose(elements, GROUP.inverse(elements)).index, identity.index)


def test_one_element_is_composed_with_many():
    many, one = draw(3, seed=1), draw(1, seed=2)
    repeated = Permutation(one.index.expand(-1, 3, -1))
    assert torch.equal(GROUP.compose(many, one).index, GROUP.compose(many, repeated).index)
    assert torch.equal(GROUP.compose(one, many).index, GROUP.compose(repeated, many).index)


@every_dtype
@every_representation
def test_action_moves_node_i_to_place_g_of_i(text, dtype):
    elements, field = draw(), random_field(text, dtype)
    moved = GROUP.act(elements, field, Representation.parse(text))
    assert moved.shape == (len(SIZES), 3, *field.shape[2:])
    for graph, sample in itertools.product(range(len(SIZES)), range(3)):
        g = elements.index[graph, sample].tolist()
        if text == "10":
            assert torch.equal(moved[graph, sample], field[graph, 0])
        elif text == "n 3":
            for node in range(7):
                assert torch.equal(moved[graph, sample, g[node]], field[graph, 0, node])
        else:
            for source, target in itertools.product(range(7), repeat=2):
                assert torch.equal(moved[graph, sample, g[source], g[target]], field[graph, 0, source, target])


@every_representation
@pytest.mark.parametrize("num_samples", [1, 3])
def test_action_is_a_homomorphism(text, num_samples):
    representation = Representation.parse(text)
    left, right, field = draw(seed=1), draw(seed=2), random_field(text, num_samples=num_samples)
    both = GROUP.act(GROUP.compose(left, right), field, representation)
    assert torch.equal(both, GROUP.act(left, GROUP.act(right, field, representation), representation))
    identity = GROUP.identity(MASK, 3)
    assert torch.equal(GROUP.act(identity, field, representation), field.expand_as(both))


@every_representation
def test_act_and_act_inverse_undo_each_other(text):
    representation = Representation.parse(text)
    elements, field = draw(), random_field(text, num_samples=3)
    forth = GROUP.act(elements, field, representation)
    assert torch.equal(GROUP.act_inverse(elements, forth, representation), field)
    assert torch.equal(GROUP.act(elements, GROUP.act_inverse(elements, field, representation), representation), field)
    assert torch.equal(GROUP.act_inverse(GROUP.inverse(elements), field, representation), forth)
    assert text == "10" or not torch.equal(forth, field)


@every_dtype
def test_edge_fields_are_acted_on_as_their_dense_tensor(dtype):
    representation, edges = Representation.parse("n n 2"), random_edges(dtype)
    dense = densify(edges, 7)
    assert dense.abs().sum(-1).count_nonzero() > 12
    left, right = draw(seed=1), draw(seed=2)
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-14, "atol": 1e-14}
    for method in (GROUP.act, GROUP.act_inverse):
        once, dense_once = method(left, edges, representation), method(left, dense, representation)
        torch.testing.assert_close(densify(once, 7), dense_once, **tolerance)
        for second in (GROUP.act, GROUP.act_inverse):
            twice = second(right, once, representation)
            torch.testing.assert_close(densify(twice, 7), second(right, dense_once, representation), **tolerance)
    both = GROUP.act(GROUP.compose(left, right), edges, representation)
    one_by_one = GROUP.act(left, GROUP.act(right, edges, representation), representation)
    assert torch.equal(both.permutation.index, one_by_one.permutation.index)
    assert torch.equal(both.index, edges.index)
    back = GROUP.act_inverse(left, GROUP.act(left, edges, representation), representation)
    assert torch.equal(back.permutation.index, GROUP.identity(MASK, 3).index)


def test_the_soft_matrix_is_kept_for_the_gradient():
    elements = draw()
    scores = torch.randn(len(SIZES), 3, 7, requires_grad=True)
    elements, _ = GROUP.relax(elements, scores, MASK, 0.1, 20)
    soft = elements.soft
    assert GROUP.act_inverse(elements, random_edges(), Representation.parse("n n 2")).permutation.soft is soft
    result = GROUP.act_inverse(elements, random_field("n 3"), Representation.parse("n 3"))
    assert result.requires_grad


@pytest.mark.parametrize("num_samples", [1, 2, 50])
def test_haar_fixes_padding_and_moves_only_nodes(num_samples):
    # The published sampler gives graphs the sizes of other graphs once there is more than one sample.
    index = GROUP.haar(MASK, num_samples, seeded(0)).index
    assert index.shape == (len(SIZES), num_samples, 7)
    assert index.dtype == torch.int64
    for graph, size in enumerate(SIZES):
        assert (index[graph, :, size:] == torch.arange(size, 7)).all()
        assert (index[graph, :, :size].sort(-1).values == torch.arange(size)).all()
        if num_samples == 50 and size > 1:
            assert (index[graph, :, :size] != torch.arange(size)).any(0).all()


@pytest.mark.parametrize("size", [4, 5])
def test_haar_draws_every_element_equally_often(size):
    mask = torch.arange(9) < torch.tensor([size, 9, size, 1]).unsqueeze(1)
    index = GROUP.haar(mask, 20_000, seeded(size)).index
    for graph in (0, 2):
        assert abs(chi_square(count_orders(index[graph, :, :size]))) < 4
    assert not torch.equal(index[0], index[2])


def test_chi_square_would_notice_a_bias():
    index = GROUP.haar(torch.ones(1, 4, dtype=torch.bool), 20_000, seeded(0)).index[0]
    index[:600] = torch.arange(4)
    assert chi_square(count_orders(index)) > 4


def test_haar_has_the_first_and_second_moments_of_the_group():
    index = GROUP.haar(torch.arange(6) < torch.tensor([[4], [6]]), 20_000, seeded(3)).index[0, :, :4]
    drawn, every = (torch.nn.functional.one_hot(x, 4).double().flatten(1) for x in (index, GROUP.enumerate(4).index[0]))
    assert (drawn.mean(0) - 0.25).abs().max() < 5 * (0.25 * 0.75 / 20_000) ** 0.5
    second, exact = drawn.T @ drawn / 20_000, every.T @ every / 24
    assert ((second - exact).abs() <= 5 * (exact * (1 - exact) / 20_000).sqrt()).all()


def test_haar_samples_of_one_graph_and_graphs_of_one_batch_are_independent():
    index = GROUP.haar(torch.ones(2, 4, dtype=torch.bool), 20_000, seeded(4)).index
    for first, second in ((index[0], index[1]), (index[0, :-1], index[0, 1:])):
        table = torch.zeros(4, 4).index_put_((first[:, 0], second[:, 0]), torch.ones(len(first)), accumulate=True)
        assert abs(chi_square(table.flatten())) < 4


def test_haar_sorts_numbers_of_double_precision(monkeypatch):
    # Equal float32 numbers among a thousand nodes are common, and would keep the stored order.
    drawn, rand = [], torch.rand
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: drawn.append(rand(*args, **kwargs)) or drawn[-1])
    index = GROUP.haar(MASK, 3, seeded(0)).index
    (scores,) = drawn
    assert scores.dtype == torch.float64
    sorted_scores = scores.gather(-1, index)[1:]
    assert (sorted_scores[1, :, 1:7] <= sorted_scores[1, :, :6]).all()


def test_haar_can_be_repeated_and_is_not_repeated_by_itself():
    assert torch.equal(draw(seed=9).index, draw(seed=9).index)
    assert not torch.equal(GROUP.haar(MASK, 3).index, GROUP.haar(MASK, 3).index)


def test_enumerate_lists_every_element_once():
    for size, count in ((1, 1), (2, 2), (3, 6), (5, 120)):
        elements = GROUP.enumerate(size).index
        assert elements.shape == (1, count, size)
        assert elements.unique(dim=1).shape[1] == count
        assert (elements.sort(-1).values == torch.arange(size)).all()


@pytest.mark.parametrize("size", [0, 9, -1])
def test_enumerate_refuses_sizes_out_of_reach(size):
    with pytest.raises(ValueError, match=f"num_nodes: expected 1 to 8 .*got {size}"):
        GROUP.enumerate(size)


@pytest.mark.parametrize("method", ["act", "act_inverse"])
@pytest.mark.parametrize("text", ["n v", "3 h w", "n p"])
def test_axes_that_s_n_does_not_act_on_are_refused(method, text):
    for field in (torch.zeros(len(SIZES), 1, 7, 3), random_edges()):
        with pytest.raises(ValueError, match=f"representation '{text}': the group S_n does not act on axis"):
            getattr(GROUP, method)(draw(), field, Representation.parse(text))
    with pytest.raises(ValueError, match=f"output '{text}': the group S_n does not act on axis '.'.*only on 'n'"):
        GROUP.check_acts_on(Representation.parse(text), "output")


def test_a_relative_temperature_is_in_units_of_the_mean_gap():
    # So the scores of every graph span as many temperatures as it has gaps, whatever their scale, their number and the padding.
    scores = 1e3 * torch.randn(len(SIZES), 3, 7, generator=seeded(1), dtype=torch.float64)
    elements = GROUP.project(scores, MASK, GROUP.draw_scores(MASK, 3, seeded(2)))
    relaxed, _ = GROUP.relax(elements, scores, MASK, 0.5, 20, "relative")
    span = relaxed.soft.position.amax(-1) - relaxed.soft.position.amin(-1)
    expected = (torch.tensor(SIZES).double() - 1) / 0.5
    torch.testing.assert_close(span, expected.unsqueeze(1).expand(-1, 3))
    published, _ = GROUP.relax(elements, scores, MASK, 0.5, 20)
    assert ((published.soft.position.amax(-1) - published.soft.position.amin(-1)) <= 2**0.5 / 0.5).all()


def random_scores(spread: float, offset: float = 0.0) -> Tensor:
    return offset + spread * torch.randn(1, 8, 2000, generator=seeded(1), dtype=torch.float64)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e4])
def test_noise_decides_no_rank_where_scores_differ(spread, offset):
    # Noise of 1e-4 of the largest score decided a third of the ranks of 2,000 nodes, and all of them beside a large offset.
    scores, mask = random_scores(spread, offset), torch.ones(1, 2000, dtype=torch.bool)
    expected = scores.argsort(-1, descending=True)
    for seed in range(2):
        index = GROUP.project(scores, mask, GROUP.draw_scores(mask, 8, seeded(seed))).index
        assert (index != expected).double().mean() < 1e-3 * max(1, 1e-6 * offset / spread)


def test_a_tolerance_says_which_scores_are_equal():
    scores = torch.tensor([3.0, 3.1, 3.2, 1.0, 1.05, 9.0]).expand(1, 4000, 6)
    mask = torch.ones(1, 6, dtype=torch.bool)
    index = GROUP.project(scores, mask, GROUP.draw_scores(mask, 4000, seeded(0)), torch.full((1, 1, 1), 0.11)).index[0]
    assert (index[:, 0] == 5).all()
    # Equality is transitive: the first three are one class, of which all orders are equally likely.
    assert abs(chi_square(count_orders(index[:, 1:4]))) < 4
    assert abs(chi_square(torch.bincount(index[:, 4] - 3, minlength=2).double())) < 4
    assert (index[:, 4:].sort(-1).values == torch.tensor([3, 4])).all()


@every_dtype
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e6])
def test_scores_equal_to_their_last_digits_come_in_random_order(dtype, offset):
    scores = (offset + torch.tensor([0.5, 0.5, -1.0, 0.5])).to(dtype).expand(1, 4000, 4)
    scores = scores * (1 + torch.finfo(dtype).eps * torch.tensor([0, 1, 0, 2], dtype=dtype))
    mask = torch.ones(1, 4, dtype=torch.bool)
    index = GROUP.project(scores, mask, GROUP.draw_scores(mask, 4000, seeded(5))).index[0]
    assert (index[:, 3] == 2).all()
    assert abs(chi_square(count_orders(index[:, :3].clamp(max=2)))) < 4


def test_where_noise_ties_as_well_the_scores_decide():
    scores = torch.tensor([[[1.0, 1.0 + 1e-12, 0.0, 1.0 + 2e-12]]], dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert GROUP.project(scores, mask, torch.zeros(1, 1, 4, dtype=torch.float64)).index.tolist() == [[[3, 1, 0, 2]]]
