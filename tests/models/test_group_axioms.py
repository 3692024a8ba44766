"""One matrix over all groups: axioms, action, Haar measure and projection. A new group is one more row of `ROWS`."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lps_hf.models.elements import Element, FiniteElement, Permutation, RigidMotion
from lps_hf.models.group import Group
from lps_hf.models.groups import get_group
from lps_hf.models.representations import AXIS_MEANINGS, EdgeField, Field, Representation
from lps_hf.models.symmetrization import mask_nodes
from tests.models.graph_cases import chi_square, densify, seeded

EDGES = "n n 3 as a list"
NODES = ("2", "n", "n 2", "n n", "n n 3", EDGES)
VECTORS = ("2", "v", "v 2", "n v", "n v 2", "n n v")
POINTS = ("p", "p 2", "n p", "n p 2")
IMAGES = ("g", "3 g", "h w", "3 h w", "h w 2", "n h w")


class Moments(NamedTuple):
    """What the theory of compact groups says of Haar distributed matrices: dimensions of spaces of invariants."""

    trace2: float
    """E[|tr Q|²]: 1 for irreducible real and complex vectors, 2 for SO(2)."""
    trace4: float
    """E[|tr Q|⁴]: invariants in four factors."""
    determinant: float
    """E[det Q]."""


class Row(NamedTuple):
    """A group's fields, and the moments of its matrices where it has them."""

    fields: tuple[str, ...]
    moments: Moments | None = None


REFLECTING, TURNING, TURNING_PLANE = Moments(1, 3, 0), Moments(1, 3, 1), Moments(2, 6, 1)
ROWS = {
    "S_n": Row(NODES),
    "O(2)": Row((*VECTORS, *POINTS), REFLECTING),
    "O(3)": Row((*VECTORS, *POINTS), REFLECTING),
    "O(4)": Row((*VECTORS, *POINTS), REFLECTING),
    "SO(2)": Row((*VECTORS, *POINTS), TURNING_PLANE),
    "SO(3)": Row((*VECTORS, *POINTS), TURNING),
    "E(2)": Row((*VECTORS, *POINTS), REFLECTING),
    "E(3)": Row((*VECTORS, *POINTS), REFLECTING),
    "SE(3)": Row((*VECTORS, *POINTS), TURNING),
    "U(2)": Row(VECTORS, Moments(1, 2, 0)),
    "U(3)": Row(VECTORS, Moments(1, 2, 0)),
    "C_1": Row(IMAGES),
    "C_4": Row(IMAGES),
    "C_8": Row(("g", "3 g")),
    "D_3": Row(("g", "3 g")),
    "D_4": Row(IMAGES),
    "S_n x O(3)": Row((*NODES, *VECTORS, *POINTS), REFLECTING),
    "S_n x E(3)": Row((*NODES, *VECTORS, *POINTS), REFLECTING),
    "S_n x SE(2)": Row((*NODES, *VECTORS, *POINTS), TURNING_PLANE),
    "S_n x C_4": Row((*NODES, *IMAGES, "n g 2")),
}
every_group = pytest.mark.parametrize("name", ROWS)
every_simple_group = pytest.mark.parametrize("name", [name for name in ROWS if " x " not in name])
every_matrix_group = pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.moments])
CASES = [(name, text) for name, row in ROWS.items() for text in row.fields]
every_field = pytest.mark.parametrize(("name", "text"), CASES)
every_dense_field = pytest.mark.parametrize(("name", "text"), [(name, text) for name, text in CASES if text != EDGES])
every_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
SIZES = (5, 3, 1)
MASK = torch.arange(5) < torch.tensor(SIZES).unsqueeze(1)
NUM_SAMPLES = 4


def cast(element: Any, dtype: torch.dtype) -> Any:
    """An element with real or complex numbers of the precision of `dtype`."""
    return element.map(lambda tensor: tensor.to(precision_of(tensor, dtype)))


def precision_of(tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype.to_complex() if tensor.is_complex() else dtype if tensor.is_floating_point() else tensor.dtype


def draw(group: Group, seed: int, dtype: torch.dtype = torch.float64) -> Any:
    """Elements for three inputs of different sizes."""
    return cast(group.haar(MASK, NUM_SAMPLES, seeded(seed)), dtype)


def axes_of(text: str) -> Representation:
    return Representation.parse(text.removesuffix(" as a list"))


def make_field(group: Group, text: str, dtype: torch.dtype = torch.float64, seed: int = 7) -> Field:
    """A random field of three inputs, zero on padding, with one sample; an edge list has none."""
    if text == EDGES:
        index = torch.stack([torch.randint(size, (2, 9), generator=seeded(seed + size)) for size in SIZES])
        return EdgeField(index, torch.randn(3, 9, 3, generator=seeded(seed), dtype=dtype))
    axes = axes_of(text)
    lengths = {"n": 5, "v": group.dimension, "p": group.dimension, "h": 4, "w": 4}
    lengths["g"] = next((factor.order for factor in group.factors if hasattr(factor, "order")), 0)
    shape = [lengths.get(axis, axis) for axis in axes.axes]
    number = dtype.to_complex() if group.name.startswith("U") else dtype
    return mask_nodes(torch.randn(3, 1, *shape, generator=seeded(seed), dtype=number), axes, MASK, leading=2)


def dense(field: Field) -> Tensor:
    return densify(field, 5) if isinstance(field, EdgeField) else field


def parts_of(element: Any) -> tuple[Any, ...]:
    return getattr(element, "factors", (element,))


def tensors_of(element: Element) -> list[Tensor]:
    """All tensors of an element in order."""
    found: list[Tensor] = []
    element.map(lambda tensor: found.append(tensor) or tensor)
    return found


def assert_near(left: Any, right: Any, dtype: torch.dtype = torch.float64) -> None:
    """Compare elements or fields; entries are of order 1, so that the tolerance is absolute."""
    pairs = zip(*(tensors_of(side) if isinstance(side, Element) else [dense(side)] for side in (left, right)), strict=True)
    for one, other in pairs:
        assert one.shape == other.shape
        assert (one - other).abs().max() <= TOLERANCE[dtype]


# --------------------------------------------------------------------------------------------------------------- elements


@every_dtype
@every_group
def test_elements_satisfy_the_group_axioms(name, dtype):
    group = get_group(name)
    left, middle, right = (draw(group, seed, dtype) for seed in (1, 2, 3))
    identity = cast(group.identity(MASK, NUM_SAMPLES), dtype)
    compose, inverse = group.compose, group.inverse
    assert_near(compose(compose(left, middle), right), compose(left, compose(middle, right)), dtype)
    assert_near(compose(identity, left), left, dtype)
    assert_near(compose(left, identity), left, dtype)
    assert_near(compose(left, inverse(left)), identity, dtype)
    assert_near(compose(inverse(left), left), identity, dtype)
    assert_near(inverse(compose(left, right)), compose(inverse(right), inverse(left)), dtype)
    for tensor in tensors_of(left):
        assert tensor.shape[:2] == (3, NUM_SAMPLES)
        assert tensor.dtype == precision_of(tensor, dtype)


@every_group
def test_elements_survive_as_plain_tensors(name):
    group = get_group(name)
    element = draw(group, 1)
    again = group.from_tensors(element.tensors, MASK)
    assert type(again) is type(element)
    for one, other in zip(tensors_of(again), tensors_of(element), strict=True):
        assert torch.equal(one, other)
    with pytest.raises((TypeError, ValueError), match="group_elements"):
        group.from_tensors("g", MASK)
    with pytest.raises((TypeError, ValueError), match="group_elements"):
        group.from_tensors(element.map(lambda tensor: tensor[:2]).tensors, MASK)


# ----------------------------------------------------------------------------------------------------------------- action


def moved_by_hand(factor: Group, part: Any, field: Tensor, axes: Representation) -> Tensor:
    """The action of one element of one factor on the axes of one field, in the words of their definitions."""
    for dim, axis in enumerate(axes.axes):
        if axis not in factor.letters:
            continue
        if axis == "n":
            field = torch.stack([field.select(dim, list(part.index).index(place)) for place in range(len(part.index))], dim)
        elif axis in ("v", "p"):
            field = torch.einsum("ij,...j->...i", part.matrix.to(field.dtype), field.movedim(dim, -1))
            field = (field + part.translation if axis == "p" and isinstance(part, RigidMotion) else field).movedim(-1, dim)
        elif axis == "g":
            n, result = factor.num_rotations, torch.empty_like(field)
            turns, reflected = int(part.index) % n, int(part.index) // n
            for number in range(factor.order):
                # RᵃF · Rᵇ = Rᵃ⁻ᵇF: a reflection turns the turns around.
                place = (turns + (-number if reflected else number)) % n + n * (reflected ^ (number // n))
                result.select(dim, place).copy_(field.select(dim, number))
            field = result
        elif axis == "h":
            turns, reflected = int(part.index) % factor.num_rotations, int(part.index) // factor.num_rotations
            field = torch.rot90(field.flip(dim + 1) if reflected else field, 4 * turns // factor.num_rotations, (dim, dim + 1))
    return field


@every_field
def test_the_action_is_what_the_axes_say(name, text):
    group = get_group(name)
    element, field, axes = draw(group, 1), make_field(group, text), axes_of(text)
    expected = []
    for graph in range(3):
        for sample in range(NUM_SAMPLES):
            moved = dense(field)[graph, 0]
            for factor, part in zip(group.factors, parts_of(element), strict=True):
                one = part.map(lambda tensor, place=(graph, sample): tensor[place])
                moved = moved_by_hand(factor, one, moved, axes)
            expected.append(moved)
    moved = group.act(element, field, axes)
    assert_near(moved, torch.stack(expected).unflatten(0, (3, NUM_SAMPLES)))
    if axes.letters & group.letters and name != "C_1":
        assert (dense(moved) - dense(field)).abs().max() > 0.1


@every_field
def test_the_action_is_a_homomorphism(name, text):
    group, axes = get_group(name), axes_of(text)
    act, act_inverse = group.act, group.act_inverse
    for dtype in TOLERANCE:
        left, right, field = draw(group, 1, dtype), draw(group, 2, dtype), make_field(group, text, dtype)
        assert_near(act(group.compose(left, right), field, axes), act(left, act(right, field, axes), axes), dtype)
        several = act(cast(group.identity(MASK, NUM_SAMPLES), dtype), field, axes)
        assert dense(several).dtype == dense(field).dtype
        assert torch.equal(dense(several), dense(field).expand(-1, NUM_SAMPLES, *dense(field).shape[2:]))
        assert_near(act_inverse(left, act(left, field, axes), axes), several, dtype)
        assert_near(act(left, act_inverse(left, field, axes), axes), several, dtype)
        assert_near(act_inverse(left, field, axes), act(group.inverse(left), field, axes), dtype)


@every_field
def test_the_action_keeps_distances(name, text):
    """Unitarity where the action is linear; points move, and the distance of any two stays."""
    group, axes = get_group(name), axes_of(text)
    for dtype in TOLERANCE:
        element, field, other = draw(group, 1, dtype), *(make_field(group, text, dtype, seed) for seed in (7, 8))
        if isinstance(field, EdgeField):
            other = EdgeField(field.index, other.features)
        before, after = (
            torch.linalg.vector_norm((dense(one) - dense(two)).flatten(2), dim=-1)
            for one, two in ((field, other), (group.act(element, field, axes), group.act(element, other, axes)))
        )
        assert (after / before - 1).abs().max() <= TOLERANCE[dtype]


@every_group
def test_axes_of_other_groups_are_refused(name):
    group = get_group(name)
    strings = {"h": "h w", "w": "h w"}
    for letter in sorted(AXIS_MEANINGS.keys() - group.letters - {"n"}):
        axes = Representation.parse(strings.get(letter, letter))
        for act in (group.act, group.act_inverse):
            with pytest.raises(ValueError, match=rf"representation '{axes}': the group .* does not act on axis"):
                act(draw(group, 1), torch.zeros(3, 1, *[2] * len(axes.axes)), axes)


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("S_n")])
def test_padding_stays_in_its_place(name):
    group = get_group(name)
    element = draw(group, 1)
    index = parts_of(element)[0].index
    assert torch.equal(
        index.masked_select(~MASK.unsqueeze(1)), torch.arange(5).expand_as(index)[~MASK.unsqueeze(1).expand_as(index)]
    )
    rubbish = torch.randn(3, 1, 5, 2, generator=seeded(4), dtype=torch.float64)
    for act in (group.act, group.act_inverse):
        moved = act(element, rubbish, Representation.parse("n 2"))
        assert torch.equal(
            moved[~MASK.unsqueeze(1).expand_as(index)], rubbish.expand_as(moved)[~MASK.unsqueeze(1).expand_as(index)]
        )
        assert (moved[0] != rubbish[0]).any()


# ----------------------------------------------------------------------------------------------------------- Haar measure

HAAR_SIZES = (4, 4, 3)
HAAR_MASK = torch.arange(4) < torch.tensor(HAAR_SIZES).unsqueeze(1)
DRAWS = 6000


def cells(element: Any, graph: int, group: Group) -> tuple[Tensor, int]:
    """The number of the cell of equal Haar measure in which each draw for one input lies, and the number of cells.

    Orders of S_n, elements of finite groups, and orthants of the first column of a matrix, jointly with that of a translation.
    """
    codes, count = torch.zeros(parts_of(element)[0].num_samples, dtype=torch.int64), 1
    for factor, part in zip(group.factors, parts_of(element), strict=True):
        if isinstance(part, Permutation):
            order = part.index[graph]
            smaller = (order.unsqueeze(-1) > order.unsqueeze(-2)).triu(1).sum(-1)  # digits of the order's number
            code, size = torch.zeros_like(codes), HAAR_SIZES[graph]
            for place in range(size):
                code = code * (size - place) + smaller[:, place]
            number = int(torch.arange(1, size + 1).prod())
        elif isinstance(part, FiniteElement):
            code, number = part.index[graph], factor.order
        else:
            column = part.matrix[graph, :, :, 0]
            column = torch.cat([column.real, column.imag], dim=-1) if column.is_complex() else column
            numbers = torch.cat([column, part.translation[graph]], dim=-1) if isinstance(part, RigidMotion) else column
            code, number = ((numbers > 0) * 2 ** torch.arange(numbers.shape[-1])).sum(-1), 2 ** numbers.shape[-1]
        codes, count = codes * number + code, count * number
    return codes, count


def assert_uniform(codes: Tensor, count: int) -> None:
    assert int(codes.max()) < count
    assert count == 1 or chi_square(codes.bincount(minlength=count)) < 5


@every_group
def test_haar_is_uniform_and_invariant_from_both_sides(name):
    group = get_group(name)
    drawn = group.haar(HAAR_MASK, DRAWS, seeded(1))
    # Of E(d) the turns alone are compact: translations stay those of the draw, or are turned.
    fixed = group.move_to(group.haar(HAAR_MASK, 1, seeded(2)), torch.zeros(3, group.dimension or 1, dtype=torch.float64))
    fixed = fixed.map(lambda tensor: tensor.expand(-1, DRAWS, *tensor.shape[2:]))
    for element in (drawn, group.compose(fixed, drawn), group.compose(drawn, fixed), group.inverse(drawn)):
        for graph in range(3):
            assert_uniform(*cells(element, graph, group))


@every_group
def test_inputs_and_samples_are_independent(name):
    group = get_group(name)
    drawn = group.haar(HAAR_MASK, DRAWS, seeded(3))
    (first, count), (second, _), (third, _) = (cells(drawn, graph, group) for graph in range(3))
    if count % 2 == 0:
        for one, other in ((first, second), (first, third), (first[1:], first[:-1])):
            assert_uniform(2 * (one % 2) + other % 2, 4)
    again = group.haar(HAAR_MASK, DRAWS, seeded(3))
    assert all(map(torch.equal, tensors_of(again), tensors_of(drawn)))


def invariant_part(field: Tensor, axes: Representation, group: Group) -> Tensor:
    """E[ρ(g)·x] of the theory: the projection onto what the group leaves alone. Fields are zero on padding."""
    if axes.letters & {"v", "p"} & group.letters:
        return torch.zeros_like(field)
    if axes.count("g") and "g" in group.letters:
        field = field.mean(dim=2 + axes.axes.index("g"), keepdim=True).expand_as(field)
    if axes.count("h"):
        planes, (plane,) = (2 + axes.axes.index("h"), 3 + axes.axes.index("h")), [f for f in group.factors if "h" in f.letters]
        turned = [torch.rot90(field, 4 * turn // plane.num_rotations, planes) for turn in range(plane.num_rotations)]
        if plane.order > plane.num_rotations:
            turned += [image.flip(planes[0]) for image in turned]
        field = torch.stack(turned).mean(dim=0)
    if axes.count("n") and "n" in group.letters:
        field = field.clone()
        for graph, size in enumerate(SIZES):
            valid = field[graph, 0, :size]
            if axes.count("n") == 1:
                valid[:] = valid.mean(dim=0, keepdim=True).clone()
            else:
                pairs = valid[:, :size]
                same = torch.eye(size, dtype=torch.bool)
                means = [pairs[where].mean(dim=0) for where in (same, ~same) if where.any()]
                for where, mean in zip((same, ~same), means, strict=False):
                    pairs[where] = mean
    return field


@every_dense_field
def test_fields_turned_at_random_have_the_mean_of_the_theory(name, text):
    group, axes = get_group(name), axes_of(text)
    field = make_field(group, text)
    moved = group.act(group.haar(MASK, 1500, seeded(5)), field, axes)
    expected = invariant_part(field, axes, group)
    deviation = (moved.mean(dim=1, keepdim=True) - expected).abs()
    assert (deviation <= 5 * moved.std(dim=1, keepdim=True) / 1500**0.5 + 1e-12).all()


@every_matrix_group
def test_haar_matrices_have_the_moments_of_the_theory(name):
    row, group = ROWS[name].moments, get_group(name)
    part = parts_of(group.haar(MASK[:1], DRAWS, seeded(6)))[-1]
    matrix, d = part.matrix[0], group.dimension

    def assert_mean(samples: Tensor, expected: Tensor | float) -> None:
        parts = (
            ((samples.real, torch.as_tensor(expected).real), (samples.imag, 0.0))
            if samples.is_complex()
            else ((samples, expected),)
        )
        for numbers, mean in parts:
            assert ((numbers.mean(dim=0) - mean).abs() <= 5 * numbers.std(dim=0) / DRAWS**0.5 + 1e-12).all()

    eye = torch.eye(d, dtype=torch.float64)
    second = torch.einsum("ik,jl->ijkl", eye, eye) / d
    if row == TURNING_PLANE:  # Q = cos + J sin
        quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
        second = (torch.einsum("ij,kl->ijkl", eye, eye) + torch.einsum("ij,kl->ijkl", quarter, quarter)) / 2
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert_mean(matrix, 0.0)
    assert_mean(torch.einsum("sij,skl->sijkl", matrix, matrix.conj()), second)
    assert_mean(matrix.abs().square(), 1 / d)
    assert_mean(trace, 0.0)
    assert_mean(trace.abs() ** 2, row.trace2)
    assert_mean(trace.abs() ** 4, row.trace4)
    assert_mean(torch.linalg.det(matrix), row.determinant)
    if isinstance(part, RigidMotion):
        moved = part.translation[0]
        assert_mean(moved, 0.0)
        assert_mean(torch.einsum("si,sj->sij", moved, moved), eye)
        assert_mean(torch.einsum("si,sjk->sijk", moved, matrix), 0.0)


def test_orders_of_four_nodes_have_the_moments_of_the_theory():
    matrices = torch.nn.functional.one_hot(get_group("S_n").haar(HAAR_MASK, DRAWS, seeded(7)).index[0]).double()
    same, other = torch.eye(4, dtype=torch.float64), 1 - torch.eye(4, dtype=torch.float64)
    both = torch.einsum("sij,skl->sijkl", matrices, matrices)
    second = torch.einsum("ik,jl->ijkl", same, same) / 4 + torch.einsum("ik,jl->ijkl", other, other) / 12
    assert ((both.mean(dim=0) - second).abs() <= 5 * both.std(dim=0) / DRAWS**0.5).all()


# ------------------------------------------------------------------------------------------------------------- projection


def tied(scores: Tensor) -> Tensor:
    """Scores that leave a choice: vectors of which one is a multiple of another or zero, or equal numbers."""
    if scores.dim() == 3:
        return scores.round()
    tied = scores.clone()
    tied[0] = scores[0, :, :, :1]
    tied[1, ..., 1] = -2 * scores[1, ..., 0]
    tied[2, ..., 0] = 0
    return tied


@every_dtype
@every_simple_group
def test_the_projection_is_equivariant(name, dtype):
    """project(ρ(h)·s, ρ(h)·ε) = h·project(s, ε), for scores that decide and for scores that leave the choice to the noise."""
    group = get_group(name)
    noise, drawn = (group.draw_scores(MASK, NUM_SAMPLES, seeded(seed)) for seed in (1, 2))
    drawn = drawn.to(precision_of(drawn, dtype))
    element = group.haar(MASK, 1, seeded(3))
    centroid = torch.randn(3, group.dimension or 1, generator=seeded(4), dtype=torch.float64)
    moved_centroid = centroid
    if group.has_translations:
        moved_centroid = group.act(element, centroid.unsqueeze(1), Representation.parse("p")).squeeze(1)
    element = element.map(lambda tensor: tensor.expand(-1, NUM_SAMPLES, *tensor.shape[2:]))
    for scores in (drawn, tied(drawn), torch.zeros_like(drawn)):
        projected = group.move_to(group.project(scores, MASK, noise), centroid)
        moved_scores, moved_noise = (group.act(cast(element, dtype), scores, group.score), group.act(element, noise, group.score))
        moved = group.move_to(group.project(moved_scores, MASK, moved_noise), moved_centroid)
        assert_near(moved, group.compose(element, projected), dtype)


@every_simple_group
def test_noise_decides_where_scores_leave_a_choice_and_only_there(name):
    group = get_group(name)
    noises = [group.draw_scores(MASK, NUM_SAMPLES, seeded(seed)) for seed in (1, 2)]
    scores = group.draw_scores(MASK, NUM_SAMPLES, seeded(3))
    for here, same in ((scores, True), (torch.zeros_like(scores), name == "C_1")):
        one, other = (tensors_of(group.project(here, MASK, noise))[0] for noise in noises)
        assert torch.equal(one, other) == same
