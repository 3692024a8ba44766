"""O(d), SO(d), E(d), SE(d), U(d): orthonormal columns from any input, and what the matrix of all groups does not show."""

import re

import pytest
import torch
from torch import Tensor

from lps_hf.models.elements import LinearMap, RigidMotion
from lps_hf.models.groups import get_group
from lps_hf.models.orthogonal_groups import orthonormalize
from lps_hf.models.representations import Representation
from tests.models.graph_cases import chi_square, seeded

MASK = torch.ones(2, 3, dtype=torch.bool)
PRECISIONS = [torch.float32, torch.float64, torch.complex64, torch.complex128]
every_precision = pytest.mark.parametrize("dtype", PRECISIONS, ids=lambda dtype: str(dtype).removeprefix("torch."))


def random_matrices(count: int, dtype: torch.dtype, seed: int = 0, dimension: int = 3) -> Tensor:
    return torch.randn(count, dimension, dimension, generator=seeded(seed), dtype=dtype)


def double(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float64)


def inputs_of_all_kinds(dtype: torch.dtype) -> dict[str, Tensor]:
    """Columns that are generic, that depend on each other, or nearly so, at scales from 1e-30 to 1e30."""
    generic, other = random_matrices(20, dtype), random_matrices(20, dtype, seed=1)
    first, planar, mixed = generic[..., :1].expand(-1, -1, 3), generic.clone(), generic.clone()
    planar[..., 2] = planar[..., 0] + 2 * planar[..., 1]
    mixed[..., 0] *= 1e30
    mixed[..., 1] *= 1e-30
    axes = torch.eye(3, dtype=dtype).expand(20, 3, 3)
    kinds = {"generic": generic, "zero": 0 * generic, "repeated": first, "planar": planar, "scales mixed": mixed, "axes": axes}
    kinds |= {"collinear": first * other[..., :1, :], "first zero": torch.cat([0 * first[..., :1], generic[..., 1:]], dim=-1)}
    kinds |= {f"nearly collinear, 1e-{digits}": first + 10.0**-digits * other for digits in range(3, 10)}
    kinds |= {f"nearly planar, 1e-{digits}": planar + 10.0**-digits * other for digits in range(3, 10)}
    kinds |= {f"planar at scale 1e{power}": planar * 10.0**power for power in (-30, -12, -6, 6, 30)}
    return kinds | {f"scale 1e{power}": generic * 10.0**power for power in (-30, -12, -8, -6, -3, 6, 30)}


def gram_schmidt_by_qr(vectors: Tensor) -> Tensor:
    """The Q of QR with a positive diagonal of R, by Householder reflections: another algorithm for the same matrix."""
    q, r = torch.linalg.qr(vectors)
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    return q * (diagonal / diagonal.abs()).unsqueeze(-2)


# ---------------------------------------------------------------------------------------------------------- orthonormalize


@every_precision
def test_columns_are_orthonormal_and_gradients_finite_for_every_input(dtype):
    noise, weights = random_matrices(20, double(dtype), seed=2), random_matrices(20, double(dtype), seed=3)
    for kind, vectors in inputs_of_all_kinds(dtype).items():
        vectors = vectors.detach().clone().requires_grad_()
        basis = orthonormalize(vectors, noise)
        assert basis.dtype == double(dtype)
        assert (basis.mH @ basis - torch.eye(3)).abs().max() < 1e-14, kind
        (basis * weights).real.sum().backward()
        assert vectors.grad.isfinite().all(), kind


@pytest.mark.parametrize("dimension", [2, 3, 5])
@every_precision
def test_generic_columns_are_those_of_a_qr_decomposition(dtype, dimension):
    vectors = random_matrices(50, dtype, dimension=dimension)
    found = orthonormalize(vectors, torch.zeros(50, dimension, dimension, dtype=double(dtype)))
    assert (found - gram_schmidt_by_qr(vectors.to(double(dtype)))).abs().max() < 1e-11


@pytest.mark.parametrize("digits", [3, 4])
def test_vectors_that_are_close_together_are_told_apart_to_the_last_digit(digits):
    """Classical Gram-Schmidt without the second round loses twice as many digits as the vectors are close."""
    vectors = random_matrices(50, torch.float64)[..., :1] + 10.0**-digits * random_matrices(50, torch.float64, seed=1)
    found = orthonormalize(vectors, torch.zeros_like(vectors))
    assert (found - gram_schmidt_by_qr(vectors)).abs().max() < 1e-13 * 10 ** (2 * digits)
    assert (found.mT @ found - torch.eye(3)).abs().max() < 1e-14


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_are_those_of_finite_differences(dtype):
    vectors = random_matrices(3, dtype).requires_grad_()
    assert torch.autograd.gradcheck(orthonormalize, (vectors, random_matrices(3, dtype, seed=1)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_are_those_of_the_cholesky_factor(dtype):
    """Q = V L⁻ᴴ with L Lᴴ = VᴴV, differentiated by torch."""
    vectors, weights = random_matrices(10, dtype).requires_grad_(), random_matrices(10, dtype, seed=1)
    found = orthonormalize(vectors, torch.zeros(10, 3, 3, dtype=dtype))
    factor = torch.linalg.cholesky(vectors.mH @ vectors)
    expected = torch.linalg.solve_triangular(factor.mH, vectors, upper=True, left=False)
    gradients = [torch.autograd.grad((basis * weights).real.sum(), vectors)[0] for basis in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-9)


def test_columns_that_are_kept_have_a_gradient_beside_columns_that_are_not():
    vectors = random_matrices(5, torch.float64)
    vectors[..., 1] = 2 * vectors[..., 0]
    vectors.requires_grad_()
    basis = orthonormalize(vectors, random_matrices(5, torch.float64, seed=1))
    (basis[..., 0] * torch.arange(3)).sum().backward()
    assert vectors.grad[..., 0].abs().min() > 0
    assert vectors.grad[..., 1].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_rounding_error_points_nowhere(dtype):
    """A direction below the precision of the vectors is drawn anew; one above it is read."""
    below, above = (1e-7, 1e-3) if dtype == torch.float32 else (1e-12, 1e-8)
    first, other = random_matrices(10, dtype)[..., :1], random_matrices(10, dtype, seed=1)
    noises = [random_matrices(10, torch.float64, seed=seed) for seed in (2, 3)]
    for size, read in ((below, False), (above, True)):
        one, two = (orthonormalize(first + size * other, noise) for noise in noises)
        assert ((one - two).abs().amax(dim=(-1, -2)) < 1e-12).all() == read
        assert torch.equal(one[..., 0], two[..., 0])


def test_the_completion_is_uniform_in_the_space_that_is_left_open():
    """With one direction given the second column is uniform on the circle about it; the third has both its signs."""
    given = torch.tensor([[2.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
    count = 8000
    basis = orthonormalize(given.expand(count, 3, 3), random_matrices(count, torch.float64))
    direction = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3
    assert (basis[..., 0] - direction).abs().max() < 1e-14
    across = torch.tensor([[1.0, 2.0, 0.0], [4.0, -2.0, -5.0]], dtype=torch.float64)
    across = across / across.norm(dim=-1, keepdim=True)
    angle = torch.atan2(*(basis[..., 1] @ across.T).unbind(-1))
    sector = ((angle / (2 * torch.pi) + 0.5) * 12).long().clamp(max=11)
    assert chi_square((2 * sector + (torch.linalg.det(basis) > 0)).bincount(minlength=24)) < 5


def test_orthonormal_columns_keep_their_precision_under_autocast():
    vectors, noise = random_matrices(20, torch.float32), random_matrices(20, torch.float64, seed=1)
    expected = orthonormalize(vectors, noise)
    element = LinearMap(expected.unsqueeze(0).float())
    field = torch.randn(1, 20, 5, 3, generator=seeded(2))
    with torch.autocast("cpu", torch.bfloat16):
        basis = orthonormalize(vectors, noise)
        turned = get_group("O(3)").act(element, field, Representation.parse("n v"))
    assert torch.equal(basis, expected)
    assert turned.dtype == torch.float32
    lengths = [torch.linalg.vector_norm(vector, dim=-1) for vector in (turned, field)]
    assert (lengths[0] / lengths[1] - 1).abs().max() < 1e-6


# ------------------------------------------------------------------------------------------------------------------ groups


@pytest.mark.parametrize("name", ["SO(3)", "SE(3)"])
def test_rotations_have_determinant_one_for_every_input(name):
    mask, noise = torch.ones(20, 1, dtype=torch.bool), random_matrices(20, torch.float64, seed=4).unsqueeze(1)
    for kind, vectors in inputs_of_all_kinds(torch.float32).items():
        matrix = get_group(name).project(vectors.unsqueeze(1), mask, noise).matrix
        assert (torch.linalg.det(matrix) - 1).abs().max() < 1e-14, kind


@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_reflections_become_rotations_by_the_sign_of_their_first_column(dimension):
    mask, vectors = torch.ones(1, 1, dtype=torch.bool), random_matrices(20, torch.float64, dimension=dimension).unsqueeze(0)
    any_turn, rotation = (get_group(f"{name}({dimension})").project(vectors, mask, vectors).matrix for name in ("O", "SO"))
    sign = torch.linalg.det(any_turn).sign()
    assert {-1.0, 1.0} == set(sign.flatten().tolist())
    assert torch.equal(rotation[..., 1:], any_turn[..., 1:])
    assert torch.equal(rotation[..., 0], any_turn[..., 0] * sign.unsqueeze(-1))


@pytest.mark.parametrize("name", ["O(1)", "O(0)", "SO(1)", "SO(0)", "E(1)", "SE(0)", "U(1)"])
def test_dimensions_below_two_are_refused(name):
    message = f"group '{name}': expected a dimension of at least 2, as in '{name[:-2]}3)'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        get_group(name)


def test_matrices_of_other_groups_are_refused():
    rotation = get_group("SO(3)").haar(MASK, 2, seeded(0)).matrix
    for name, matrix, error, message in (
        ("O(3)", rotation[:1], ValueError, r"group_elements: expected shape \(2, num_samples, 3, 3\), got \(1, 2, 3, 3\)"),
        ("O(3)", rotation[..., :2, :2], ValueError, r"group_elements: expected shape \(2, num_samples, 3, 3\)"),
        ("O(3)", rotation[:, 0], ValueError, r"group_elements: expected shape \(2, num_samples, 3, 3\)"),
        ("O(3)", 1.001 * rotation, ValueError, r"expected matrices of O\(3\), got some that differ from Q⁻¹ = Qᴴ by 0.002"),
        ("O(3)", torch.nan * rotation, ValueError, r"expected matrices of O\(3\)"),
        ("SO(3)", -rotation, ValueError, r"expected rotations for SO\(3\), got a reflection"),
        ("O(3)", rotation.round().long(), TypeError, r"expected real floating point numbers for O\(3\), got torch.int64"),
        ("O(3)", rotation.to(torch.complex64), TypeError, r"expected real floating point numbers for O\(3\)"),
        ("U(3)", rotation, TypeError, r"expected complex numbers for U\(3\), got torch.float64"),
        ("O(3)", rotation.tolist(), TypeError, r"group_elements: expected a tensor, got list"),
    ):
        with pytest.raises(error, match=message):
            get_group(name).from_tensors(matrix, MASK)
    assert torch.equal(get_group("O(3)").from_tensors(-rotation.float(), MASK).matrix, -rotation.float())
    assert get_group("U(3)").from_tensors(1j * rotation, MASK).matrix.is_complex()


def test_motions_are_pairs_of_a_turn_and_a_finite_translation():
    motion = get_group("SE(3)").haar(MASK, 2, seeded(0))
    matrix, translation = motion.tensors
    for tensors, error, message in (
        (matrix, ValueError, r"group_elements: expected a pair \(matrix, translation\) for SE\(3\), got Tensor"),
        ((matrix,), ValueError, "expected a pair"),
        ((-matrix, translation), ValueError, "got a reflection"),
        ((matrix, translation[:, :1]), ValueError, r"group_elements: translation: expected shape \(2, 2, 3\), got \(2, 1, 3\)"),
        (
            (matrix, translation.long()),
            TypeError,
            "group_elements: translation: expected floating point numbers, got torch.int64",
        ),
        ((matrix, translation * torch.inf), ValueError, "group_elements: translation: expected finite numbers"),
        ((matrix, None), TypeError, "group_elements: translation: expected a tensor, got NoneType"),
    ):
        with pytest.raises(error, match=message):
            get_group("SE(3)").from_tensors(tensors, MASK)
    assert isinstance(get_group("E(3)").from_tensors([-matrix, translation], MASK), RigidMotion)


def test_unitary_matrices_do_not_act_on_real_vectors():
    group = get_group("U(2)")
    element, field = group.haar(MASK, 2, seeded(0)), torch.randn(2, 1, 3, 2, generator=seeded(1))
    for act in (group.act, group.act_inverse):
        with pytest.raises(TypeError, match=r"field: expected complex vectors for U\(2\), got torch.float32"):
            act(element, field, Representation.parse("n v"))
        assert act(element, field.to(torch.complex64), Representation.parse("n v")).dtype == torch.complex64
        assert torch.equal(act(element, field, Representation.parse("n 2")), field.expand(-1, 2, -1, -1))


def test_the_group_of_motions_has_the_product_of_its_matrices():
    """x ↦ Qx + t as the (d+1, d+1) matrix [[Q, t], [0, 1]], another representation of E(d)."""
    group = get_group("E(2)")

    def homogeneous(motion: RigidMotion) -> Tensor:
        top = torch.cat([motion.matrix, motion.translation.unsqueeze(-1)], dim=-1)
        bottom = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(2, 4, 1, 3)
        return torch.cat([top, bottom], dim=-2)

    left, right = (group.haar(MASK, 4, seeded(seed)) for seed in (0, 1))
    product, inverse = homogeneous(group.compose(left, right)), homogeneous(group.inverse(left))
    torch.testing.assert_close(product, homogeneous(left) @ homogeneous(right), rtol=0, atol=1e-14)
    torch.testing.assert_close(inverse, torch.linalg.inv(homogeneous(left)), rtol=0, atol=1e-14)


def test_distributions_of_motions_are_centred_until_they_are_moved():
    group = get_group("E(3)")
    scores, noise = (group.draw_scores(MASK, 4, seeded(seed)) for seed in (0, 1))
    motion = group.project(scores, MASK, noise)
    assert torch.equal(motion.matrix, get_group("O(3)").project(scores, MASK, noise).matrix)
    assert motion.translation.abs().max() == 0
    centroid = torch.randn(2, 3, generator=seeded(2))
    moved = group.move_to(motion, centroid)
    assert torch.equal(moved.translation, centroid.double().unsqueeze(1).expand(2, 4, 3))
    assert moved.matrix is motion.matrix
    # g⁻¹ takes the centroid to the origin, and vectors do not feel translations.
    points, axes = centroid.double().view(2, 1, 1, 3), Representation.parse("n p")
    assert group.act_inverse(moved, points, axes).abs().max() == 0
    vectors = Representation.parse("n v")
    assert torch.equal(group.act(moved, points, vectors), group.act(motion, points, vectors))
