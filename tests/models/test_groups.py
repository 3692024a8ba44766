"""The registry of groups by name."""

import re

import pytest
import torch

from lps_hf.models.elements import Permutation, RigidMotion
from lps_hf.models.groups import GROUPS, ProductGroup, get_group
from lps_hf.models.orthogonal_groups import (
    EuclideanGroup,
    OrthogonalGroup,
    SpecialEuclideanGroup,
    SpecialOrthogonalGroup,
    UnitaryGroup,
)
from lps_hf.models.plane_groups import CyclicGroup, DihedralGroup
from lps_hf.models.representations import Representation
from lps_hf.models.soft_permutations import soft_permutation
from lps_hf.models.symmetric_group import SymmetricGroup


def test_groups_are_found_by_name():
    group = get_group("S_n")
    assert type(group) is GROUPS["S_n"]
    assert get_group("S_n") is group
    assert repr(group) == "Group('S_n')"


@pytest.mark.parametrize(
    ("name", "kind", "dimension", "letters"),
    [
        ("S_n", SymmetricGroup, None, "n"),
        ("O(2)", OrthogonalGroup, 2, "vp"),
        ("SO(3)", SpecialOrthogonalGroup, 3, "vp"),
        ("E(12)", EuclideanGroup, 12, "vp"),
        ("SE(3)", SpecialEuclideanGroup, 3, "vp"),
        ("U(2)", UnitaryGroup, 2, "v"),
        ("C_8", CyclicGroup, None, "hwg"),
        ("D_12", DihedralGroup, None, "hwg"),
    ],
)
def test_every_name_has_its_group(name, kind, dimension, letters):
    group = get_group(name)
    assert type(group) is kind
    assert kind in GROUPS.values()
    assert (group.name, group.dimension, group.letters) == (name, dimension, frozenset(letters))
    assert group.factors == (group,)
    assert group.has_translations == ("E(" in name)


@pytest.mark.parametrize("name", ["S_n x E(3)", "S_n × E(3)", "  S_n  x  E(3) "])
def test_products_are_found_by_the_names_of_their_factors(name):
    group = get_group(name)
    assert isinstance(group, ProductGroup)
    assert group.name == "S_n x E(3)"
    assert list(map(type, group.factors)) == [SymmetricGroup, EuclideanGroup]
    assert (group.dimension, group.letters, group.has_translations) == (3, frozenset("nvp"), True)
    assert get_group(name) is group


def test_products_may_have_any_number_of_factors():
    group = get_group("C_4 x S_n x SO(2)")
    assert [factor.name for factor in group.factors] == ["C_4", "S_n", "SO(2)"]
    assert (group.dimension, group.letters, group.has_translations) == (2, frozenset("nvphwg"), False)


@pytest.mark.parametrize("name", ["S_n x S_n", "O(3) x E(3)", "O(2) x O(3)", "C_4 x D_4", "S_n x O(3) x S_n", "O(2) x U(2)"])
def test_factors_that_act_on_the_same_axes_are_refused(name):
    with pytest.raises(ValueError, match=rf"group '{re.escape(name)}': expected factors that act on different axes, got two"):
        get_group(name)


def test_products_have_no_scores_of_their_own():
    group, mask = get_group("S_n x O(3)"), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(NotImplementedError, match="S_n x O.3.: draw scores of its factors"):
        group.draw_scores(mask, 1)
    with pytest.raises(NotImplementedError, match="S_n x O.3.: project scores onto its factors"):
        group.project(torch.zeros(1, 1, 2), mask, torch.zeros(1, 1, 2))


def test_elements_of_a_product_are_one_of_every_factor_for_every_sample():
    group, mask = get_group("S_n x O(2)"), torch.ones(1, 3, dtype=torch.bool)
    permutation, matrix = group.haar(mask, 4).tensors
    for given, got in ((permutation, "Tensor"), ((permutation,), "tuple of 1"), (None, "NoneType"), ([matrix] * 3, "list of 3")):
        with pytest.raises(ValueError, match=rf"expected a tuple with one entry for each of S_n, O\(2\), got {got}"):
            group.from_tensors(given, mask)
    with pytest.raises(ValueError, match=r"expected the same number of samples of every factor, got \[3, 4\]"):
        group.from_tensors((permutation, matrix[:, :3]), mask)
    with pytest.raises(TypeError, match="expected int64"):
        group.from_tensors((permutation.int(), matrix), mask)


NO_GROUPS = [
    "S_m",
    "S_3",
    "O(n)",
    "O(-3)",
    "O(3.0)",
    "C_",
    "C_-4",
    "SO3",
    "so(3)",
    "S_n*O(3)",
    "S_nxO(3)",
    "S_n x",
    "x S_n",
    "x",
    "",
]


@pytest.mark.parametrize("name", NO_GROUPS)
def test_names_of_no_group_are_refused(name):
    with pytest.raises(ValueError, match=rf"group: expected one of 'S_n'.*got {re.escape(repr(name))}"):
        get_group(name)


@pytest.mark.parametrize("name", [3, None, ["S_n"]])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(TypeError, match=f"group: expected a str such as 'S_n', got {type(name).__name__}"):
        get_group(name)


@pytest.mark.parametrize("name", ["S_n x E(3)", "E(3) x S_n"])
@pytest.mark.parametrize("invert", [True, False])
def test_the_gradient_of_a_permutation_does_not_depend_on_the_origin(name, invert):
    """It is a product of the points and their gradient, so the points must be centred when they are permuted."""
    group, axes = get_group(name), Representation.parse("n p")
    generator = torch.Generator().manual_seed(0)
    points, weights = torch.randn(2, 2, 3, 5, 3, generator=generator, dtype=torch.float64)
    node_mask = torch.ones(2, 5, dtype=torch.bool)
    index, motion = get_group("S_n").haar(node_mask, 3, generator).index, get_group("E(3)").haar(node_mask, 3, generator)
    gradients = []
    for shift in (0.0, 100.0):
        scores = torch.linspace(0, 1, 5, dtype=torch.float64).expand(2, 3, 5).requires_grad_()
        soft = soft_permutation(scores, index, node_mask, 1.0)
        parts = {"S_n": Permutation(index, soft), "E(3)": RigidMotion(motion.matrix, motion.translation + shift)}
        elements = group.join([parts[factor.name] for factor in group.factors])
        act = group.act_inverse if invert else group.act
        # Acting on points in space gives points in g's frame, whose origin stays; and the other way round.
        result = act(elements, points + shift if invert else points, axes)
        gradients += torch.autograd.grad((result * weights).sum(), scores)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-11, atol=1e-11)
    assert gradients[0].abs().max() > 0.01
