"""The finite subgroups of O(d) and SO(d): that they are subgroups, and which polynomials they average exactly."""

import pytest
import torch

from lps_hf.models.groups import get_group
from lps_hf.models.orthogonal_designs import balanced_signs, design_sizes, orthogonal_design

CASES = [(d, m, mirrored) for d in (2, 3, 4, 5) for mirrored in (False, True) for m in design_sizes(d, mirrored)]


@pytest.mark.parametrize(("dimension", "size", "has_reflections"), CASES)
def test_a_design_is_a_subgroup_with_the_identity_first(dimension, size, has_reflections):
    h = orthogonal_design(dimension, size, has_reflections)
    eye = torch.eye(dimension, dtype=torch.float64)
    assert h.shape == (size, dimension, dimension)
    assert torch.equal(h[0], eye)
    torch.testing.assert_close(h @ h.mT, eye.expand_as(h), rtol=0, atol=1e-12)
    if not has_reflections:
        torch.testing.assert_close(torch.linalg.det(h), torch.ones(size, dtype=torch.float64))

    def codes(matrices):  # rounding must not tell -0.0 from 0.0
        return {tuple(row) for row in (1e6 * matrices.flatten(-2)).round().long().tolist()}

    assert len(codes(h)) == size
    assert codes((h.unsqueeze(1) @ h).flatten(0, 1)) == codes(h)


def trace_moments(matrices: torch.Tensor) -> list[float]:
    """Mean of tr(h)^t for t = 1 to 5: the number of invariants of degree t in the matrix."""
    traces = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
    return [float((traces**degree).mean()) for degree in range(1, 6)]


# ∫ tr(h)^t over SO(3) is 0, 1, 1, 3, 6: the number of invariants of t vectors. Over O(3) odd ones vanish.
@pytest.mark.parametrize(
    ("name", "size", "moments", "exact"),
    [
        ("SO(3)", 4, [0, 1, 1, 3, 6], 1),
        ("SO(3)", 12, [0, 1, 1, 3, 6], 2),
        ("SO(3)", 60, [0, 1, 1, 3, 6], 5),
        ("O(3)", 2, [0, 1, 0, 3, 0], 1),
        ("O(3)", 24, [0, 1, 0, 3, 0], 3),
        ("E(3)", 120, [0, 1, 0, 3, 0], 5),
    ],
)
def test_polynomials_up_to_a_degree_have_the_mean_of_the_whole_group(name, size, moments, exact):
    found = trace_moments(get_group(name).design(size))
    assert found[:exact] == pytest.approx(moments[:exact], abs=1e-12)
    if exact < 5:
        assert found[exact] > moments[exact] + 0.5


@pytest.mark.parametrize("has_reflections", [False, True])
@pytest.mark.parametrize("dimension", [2, 3, 4, 5, 6, 8])
def test_signs_are_balanced_and_as_independent_as_they_can_be(dimension, has_reflections):
    for size in (4, 8):
        if size > 2 ** (dimension - 1 + has_reflections):
            continue
        signs = balanced_signs(dimension, size, rotations=not has_reflections)
        assert signs.mean(dim=0).abs().max() == 0
        # Signs that go together are shared out among the size - 1 that there are.
        together = (signs.T @ signs / size).abs()
        assert together.sum(dim=0).max() <= -(-dimension // (size - 1)) + (not has_reflections)
        assert has_reflections or signs.prod(dim=1).eq(1).all()


def test_smaller_subgroups_come_first():
    icosahedron = orthogonal_design(3, 120, has_reflections=True)
    for size in (12, 60):
        torch.testing.assert_close(icosahedron[:size], orthogonal_design(3, size, has_reflections=False))
    assert torch.equal(icosahedron[:4], torch.diag_embed(balanced_signs(3, 4, rotations=True)))
