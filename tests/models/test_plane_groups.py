"""C_n and D_n: the group axioms, the Haar measure, exact and interpolated action on images, and the gradient to the scores."""

import math

import pytest
import torch
from torch import Tensor

from lps_hf.models.elements import FiniteElement
from lps_hf.models.plane_groups import CyclicGroup, DihedralGroup, PlaneGroup
from lps_hf.models.representations import EdgeField, Representation

GROUPS = [*map(CyclicGroup, (1, 2, 3, 4, 8)), *map(DihedralGroup, (1, 2, 3, 4, 6))]
EXACT = [*map(CyclicGroup, (1, 2, 4)), *map(DihedralGroup, (1, 2, 4))]
IMAGE = Representation.parse("h w")
every_group = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
every_exact_group = pytest.mark.parametrize("group", EXACT, ids=lambda group: group.name)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def elements(*numbers: list[int]) -> FiniteElement:
    """One row of element numbers for every image."""
    return FiniteElement(torch.tensor(numbers))


def mask(batch: int) -> Tensor:
    return torch.ones(batch, 0, dtype=torch.bool)


def random_field(text: str, group: PlaneGroup, batch: int = 1, num_samples: int = 1, size: tuple[int, int] = (6, 6)) -> Tensor:
    lengths = {"h": size[0], "w": size[1], "g": group.order}
    shape = [lengths.get(axis, axis) for axis in Representation.parse(text).axes]
    return torch.randn(batch, num_samples, *shape, generator=seeded(3), dtype=torch.float64)


def moved_by_hand(group: PlaneGroup, number: int, image: Tensor) -> Tensor:
    """Element e = r + n·m where its turns are quarter turns: m reflections, then r turns."""
    turns, reflections = number % group.num_rotations, number // group.num_rotations
    return torch.rot90(image.flip(-1) if reflections else image, 4 * turns // group.num_rotations, (-2, -1))


def matrices(group: PlaneGroup) -> Tensor:
    """The elements as (order, 2, 2) matrices on x to the right and y upwards, another faithful representation."""
    n = group.num_rotations
    angle = 2 * math.pi * torch.arange(group.order, dtype=torch.float64) / n
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).view(-1, 2, 2)
    flip = torch.diag(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    return torch.where((torch.arange(group.order) < n)[:, None, None], turn, turn @ flip)


def centred(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """x to the right and y upwards of every pixel's centre, (height, width) each."""
    y = (size[0] - 1) / 2 - torch.arange(size[0], dtype=torch.float64)
    x = torch.arange(size[1], dtype=torch.float64) - (size[1] - 1) / 2
    return x.expand(size), y.unsqueeze(-1).expand(size)


@every_group
def test_group_axioms_hold_for_all_elements(group):
    all_elements = group.enumerate(mask(1))
    order = group.order
    assert order == group.num_rotations * (2 if isinstance(group, DihedralGroup) else 1)
    rows, columns = (FiniteElement(index) for index in torch.meshgrid(*[torch.arange(order)] * 2, indexing="ij"))
    table = group.compose(rows, columns).index
    assert torch.equal(table.sort(0).values, torch.arange(order).unsqueeze(1).expand(order, order))
    assert torch.equal(table.sort(1).values, torch.arange(order).expand(order, order))
    assert torch.equal(table[table], table[:, table])
    (identity,) = group.identity(mask(1), 1).index[0].tolist()
    assert torch.equal(table[identity], torch.arange(order))
    assert torch.equal(table[:, identity], torch.arange(order))
    inverses = group.inverse(all_elements).index[0]
    assert (table[torch.arange(order), inverses] == identity).all()
    assert (table[inverses, torch.arange(order)] == identity).all()
    assert bool((table == table.T).all()) == (isinstance(group, CyclicGroup) or group.num_rotations <= 2)


@every_group
def test_products_are_those_of_the_matrices(group):
    matrix = matrices(group)
    rows, columns = torch.meshgrid(*[torch.arange(group.order)] * 2, indexing="ij")
    product = group.compose(FiniteElement(rows), FiniteElement(columns)).index
    torch.testing.assert_close(matrix[product], matrix[rows] @ matrix[columns], atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("group", "size"),
    [(group, size) for group in EXACT for size in [(6, 6), (7, 7), (5, 8)] if size != (5, 8) or group.num_rotations < 4],
    ids=lambda value: getattr(value, "name", None),
)
def test_reflections_and_quarter_turns_move_pixels_as_rot90_and_flip(group, size, dtype):
    image = random_field("3 h w", group, size=size).to(dtype)
    moved = group.act(group.enumerate(mask(1)), image, Representation.parse("3 h w"))
    assert moved.dtype == dtype
    for number in range(group.order):
        assert torch.equal(moved[0, number], moved_by_hand(group, number, image[0, 0]))


@every_exact_group
@pytest.mark.parametrize("text", ["h w", "3 h w", "h w 2", "g", "g 3", "g h w"])
def test_action_is_a_homomorphism_bit_for_bit(group, text):
    order, representation = group.order, Representation.parse(text)
    left = FiniteElement(torch.arange(order).repeat_interleave(order).expand(2, -1))
    right = FiniteElement(torch.arange(order).repeat(order).expand(2, -1))
    field = random_field(text, group, batch=2, size=(6, 6) if group.num_rotations == 4 else (5, 6))
    one_by_one = group.act(left, group.act(right, field, representation), representation)
    assert torch.equal(one_by_one, group.act(group.compose(left, right), field, representation))
    back = group.act_inverse(left, group.act(left, field, representation), representation)
    assert torch.equal(back, field.expand_as(back))
    assert torch.equal(group.act_inverse(left, field, representation), group.act(group.inverse(left), field, representation))


@every_group
def test_regular_representation_multiplies_places_from_the_left(group):
    scores = random_field("g", group)
    everything = group.enumerate(mask(1))
    moved = group.act(everything, scores, group.score)
    for h in range(group.order):
        for g in range(group.order):
            assert moved[0, h, group.compose(elements([h]), elements([g])).index.item()] == scores[0, 0, g]


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(("name", "size"), [("C_3", (15, 11)), ("D_6", (11, 15)), ("C_8", (15, 15)), ("D_8", (14, 14))])
def test_other_turns_are_exact_on_linear_images_which_bilinear_reading_keeps(name, size, invert):
    group = (CyclicGroup if name[0] == "C" else DihedralGroup)(int(name[2:]))
    x, y = centred(size)
    moved = group.transform(group.enumerate(mask(1)), (2 * x + 3 * y)[None, None], IMAGE, invert)
    inside = torch.hypot(x, y) <= (min(size) - 1) / 2
    for number, matrix in enumerate(matrices(group)):
        # (ρ(e)·f)(p) = f(e⁻¹·p), and the inverse of an orthogonal matrix is its transpose.
        source = matrix if invert else matrix.T
        expected = 2 * (source[0, 0] * x + source[0, 1] * y) + 3 * (source[1, 0] * x + source[1, 1] * y)
        torch.testing.assert_close(moved[0, number][inside], expected[inside], atol=1e-12, rtol=0)


@pytest.mark.parametrize("group", [CyclicGroup(8), DihedralGroup(8), DihedralGroup(6)], ids=lambda group: group.name)
def test_quarter_and_half_turns_are_exact_in_groups_with_other_turns_too(group):
    image = random_field("h w", group)
    moved = group.act(group.enumerate(mask(1)), image, IMAGE)
    exact = [number for number in range(group.order) if 4 * number % group.num_rotations == 0]
    assert len(exact) in (4, 8)
    for number in exact:
        assert torch.equal(moved[0, number], moved_by_hand(group, number, image[0, 0]))


@pytest.mark.parametrize(("period", "error"), [(16, 0.026), (8, 0.100), (4, 0.344)])
def test_two_turns_by_45_degrees_differ_from_a_quarter_turn_by_the_documented_error(period, error):
    group = CyclicGroup(8)
    x, y = centred((64, 64))
    directions = [0.0, 0.3, 0.7, 1.1]
    waves = [torch.sin(2 * math.pi / period * (math.cos(a) * x - math.sin(a) * y) + a) for a in directions]
    image = torch.stack(waves).unsqueeze(1)
    once = elements([1]).map(lambda index: index.expand(4, 1))
    twice = elements([2]).map(lambda index: index.expand(4, 1))
    difference = group.act(once, group.act(once, image, IMAGE), IMAGE) - group.act(twice, image, IMAGE)
    inside = torch.hypot(x, y) < 31
    relative = difference[..., inside].norm() / image[..., inside].norm()
    assert relative.item() == pytest.approx(error, rel=0.02)


def test_outside_of_the_image_is_zero():
    image = torch.ones(1, 1, 16, 16)
    moved = CyclicGroup(8).act(elements([1]), image, IMAGE)[0, 0]
    assert moved[0, 0] == moved[0, -1] == moved[-1, 0] == 0
    torch.testing.assert_close(moved[5:11, 5:11], torch.ones(6, 6))


@pytest.mark.parametrize("group", [DihedralGroup(4), DihedralGroup(8)], ids=lambda group: group.name)
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("text", ["h w", "2 h w", "g h w", "h w 2"])
def test_every_image_and_sample_is_moved_by_its_own_element(group, num_samples, text):
    representation = Representation.parse(text)
    field = random_field(text, group, batch=2, num_samples=num_samples)
    drawn = elements([1, 6, 3], [7, 0, 5])
    moved = group.act(drawn, field, representation)
    assert moved.shape == (2, 3, *field.shape[2:])
    for image in range(2):
        for sample in range(3):
            alone = field[image : image + 1, min(sample, num_samples - 1)].unsqueeze(1)
            one = group.act(elements([int(drawn.index[image, sample])]), alone, representation)
            assert torch.equal(moved[image, sample], one[0, 0])


def test_low_precision_images_are_interpolated_in_float32():
    image = random_field("h w", CyclicGroup(8)).bfloat16()
    moved = CyclicGroup(8).act(elements([1]), image, IMAGE)
    assert moved.dtype == torch.bfloat16
    assert torch.equal(moved, CyclicGroup(8).act(elements([1]), image.float(), IMAGE).bfloat16())


@every_group
def test_haar_measure_is_uniform_and_draws_are_independent(group):
    index = group.haar(mask(2), 4000, seeded(0)).index
    assert index.shape == (2, 4000)
    pairs = torch.bincount(index[0] * group.order + index[1], minlength=group.order**2).double()
    freedom = max(pairs.numel() - 1, 1)
    statistic = ((pairs - pairs.mean()) ** 2 / pairs.mean()).sum()
    assert abs(statistic - (pairs.numel() - 1)) < 4 * math.sqrt(2 * freedom)


def test_noise_is_gumbel_so_that_projected_logits_are_drawn_from_their_softmax():
    group = DihedralGroup(2)
    noise = group.draw_scores(mask(1), 20000, seeded(1))
    assert noise.shape == (1, 20000, 4)
    assert noise.dtype == torch.float64
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, rel=0.03)
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5], dtype=torch.float64)
    counts = torch.bincount(group.project(logits + noise, mask(1), noise).index[0], minlength=4).double()
    expected = 20000 * logits.softmax(-1)
    assert ((counts - expected) ** 2 / expected).sum() < 16  # chi-square with 3 degrees of freedom, p = 0.001


def test_noise_is_finite_where_the_random_source_gives_zero(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, device, dtype: torch.zeros(shape, device=device, dtype=dtype))
    assert CyclicGroup(4).draw_scores(mask(1), 2).isfinite().all()


@every_group
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_is_equivariant_and_takes_the_largest_score(group, dtype):
    everything = group.enumerate(mask(3))
    scores = torch.randn(3, 1, group.order, generator=seeded(2), dtype=dtype)
    noise = group.draw_scores(mask(3), 1, seeded(3))
    chosen = group.project(scores, mask(3), noise)
    assert torch.equal(chosen.index, scores.argmax(dim=-1))
    moved = [group.act(everything, field, group.score) for field in (scores, noise)]
    assert torch.equal(group.project(moved[0], mask(3), moved[1]).index, group.compose(everything, chosen).index)


@pytest.mark.parametrize("level", [0.0, -1e30, 1.0])
def test_ties_up_to_rounding_are_broken_at_random_and_equivariantly(level):
    group = CyclicGroup(4)
    noise = group.draw_scores(mask(1), 4000, seeded(4))
    scores = torch.full((1, 4000, 4), level)
    scores[..., 2] *= 1 + 1e-7  # one float32 rounding error apart
    counts = torch.bincount(group.project(scores, mask(1), noise).index[0], minlength=4).double()
    assert ((counts - 1000) ** 2 / 1000).sum() < 16
    by_number = group.project(torch.tensor([[[0.0, 0.0, 0.01, 0.0]]]).expand(1, 4000, 4), mask(1), noise)
    assert (by_number.index == 2).all()


def test_relaxation_is_a_softmax_of_the_scores_and_has_no_entropy():
    group = DihedralGroup(4)
    scores = random_field("g", group, batch=2, num_samples=3).requires_grad_()
    chosen = group.project(scores, mask(2), group.draw_scores(mask(2), 3, seeded(5)))
    relaxed, entropy = group.relax(chosen, scores, mask(2), temperature=0.5, num_iterations=20)
    assert entropy is None
    assert torch.equal(relaxed.index, chosen.index)
    weights = (2 * scores).exp()
    torch.testing.assert_close(relaxed.soft, weights / weights.sum(-1, keepdim=True))
    assert relaxed.soft.requires_grad


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize(
    ("group", "text", "size"),
    [
        (DihedralGroup(4), "2 h w", (6, 6)),
        (DihedralGroup(2), "h w 2", (4, 5)),
        (CyclicGroup(8), "2 h w", (6, 6)),
        (DihedralGroup(3), "g", (1, 1)),
        (CyclicGroup(4), "g h w", (5, 5)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_straight_through_gradient_is_that_of_the_weighted_sum_over_the_group(group, text, size, num_samples, invert):
    representation = Representation.parse(text)
    field = random_field(text, group, batch=2, num_samples=num_samples, size=size).requires_grad_()
    scores = torch.randn(2, 3, group.order, generator=seeded(6), dtype=torch.float64, requires_grad=True)
    chosen, _ = group.relax(FiniteElement(scores.argmax(-1)), scores, mask(2), temperature=0.7, num_iterations=0)
    hard = group.transform(FiniteElement(chosen.index), field, representation, invert)
    moved = group.transform(chosen, field, representation, invert)
    assert torch.equal(moved, hard)
    upstream = torch.randn(moved.shape, generator=seeded(7), dtype=torch.float64)
    to_scores, to_field = torch.autograd.grad((moved * upstream).sum(), [scores, field])

    soft = (scores / 0.7).softmax(-1)
    dense = torch.zeros_like(moved)
    for number in range(group.order):
        element = FiniteElement(torch.full((2, 3), number))
        weight = soft[..., number].reshape(2, 3, *[1] * (moved.dim() - 2))
        dense = dense + weight * group.transform(element, field.detach(), representation, invert)
    (expected,) = torch.autograd.grad((dense * upstream).sum(), [scores])
    torch.testing.assert_close(to_scores, expected, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(to_field, torch.autograd.grad((hard * upstream).sum(), [field])[0])


def test_gradient_reaches_float32_scores_through_bfloat16_images():
    group = CyclicGroup(4)
    scores = torch.zeros(1, 1, 4, requires_grad=True)
    chosen, _ = group.relax(elements([0]), scores, mask(1), temperature=1.0, num_iterations=0)
    group.act(chosen, random_field("h w", group).bfloat16(), IMAGE)[..., 0, 0].sum().backward()
    assert scores.grad.dtype == torch.float32
    assert scores.grad.abs().sum() > 0


@pytest.mark.parametrize("group", [DihedralGroup(4), CyclicGroup(8)], ids=lambda group: group.name)
def test_nothing_waits_for_the_values_of_a_device(group):
    # Tensors on the meta device have no values: reading one would raise.
    images = torch.empty(2, 1, 3, 6, 6, device="meta")
    drawn = group.haar(mask(2).to("meta"), 3)
    checked = group.from_tensors(group.compose(drawn, group.inverse(drawn)).tensors, mask(2).to("meta"))
    assert group.act(checked, images, Representation.parse("3 h w")).shape == (2, 3, 3, 6, 6)


def test_fields_without_a_plane_are_left_alone():
    group = CyclicGroup(4)
    field = random_field("10", group, batch=2)
    drawn = elements([1, 2, 3], [0, 1, 2])
    assert torch.equal(group.act(drawn, field, Representation.parse("10")), field.expand(2, 3, 10))
    edges = EdgeField(torch.zeros(2, 2, 4, dtype=torch.int64), torch.ones(2, 4, 1))
    assert group.transform(drawn, edges, Representation.parse("n n 1"), invert=False) is edges


def test_given_elements_are_checked():
    group = DihedralGroup(4)
    assert torch.equal(group.from_tensors(torch.tensor([[0, 7]]), mask(1)).index, torch.tensor([[0, 7]]))
    for wrong in (-1, 8):
        with pytest.raises(ValueError, match=f"group_elements: expected numbers from 0 to 7 .* of D_4, got {min(wrong, 3)} to"):
            group.from_tensors(torch.tensor([[3, wrong]]), mask(1))
    with pytest.raises(TypeError, match="expected int64, got torch.int32"):
        group.from_tensors(torch.zeros(1, 2, dtype=torch.int32), mask(1))
    with pytest.raises(ValueError, match=r"expected shape \(2, num_samples\), got \(1, 2\)"):
        group.from_tensors(torch.zeros(1, 2, dtype=torch.int64), mask(2))


@pytest.mark.parametrize("group", [CyclicGroup(4), DihedralGroup(8)], ids=lambda group: group.name)
def test_quarter_turns_refuse_images_that_are_no_squares(group):
    with pytest.raises(ValueError, match=f"group {group.name} has quarter turns .* got height 4 and width 6"):
        group.act(elements([0]), random_field("3 h w", group, size=(4, 6)), Representation.parse("3 h w"))


def test_unknown_axes_and_empty_groups_are_refused():
    with pytest.raises(ValueError, match="the group C_4 does not act on axis 'v'"):
        CyclicGroup(4).act(elements([0]), torch.zeros(1, 1, 3), Representation.parse("v"))
    for kind in (CyclicGroup, DihedralGroup):
        with pytest.raises(ValueError, match="_0': expected at least 1 rotation, got 0"):
            kind(0)
