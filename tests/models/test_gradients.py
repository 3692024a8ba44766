"""Gradients with respect to the inputs: of finite differences with the noise held fixed, and forces without net torque."""

import itertools

import pytest
import torch
from torch import Tensor, nn

import lps_hf
from lps_hf.models.frames import principal_axes
from lps_hf.models.symmetrized import Symmetrized
from tests.models.graph_cases import seeded

ROTATIONS = ["O(2)", "SO(2)", "E(2)", "SE(2)", "O(3)", "SO(3)", "E(3)", "SE(3)"]
KINDS = ["learned", "canonical", "frame", "haar", "exact", "none"]
POINT_CASES = [
    (f"{nodes}{group}", kind) for group, nodes, kind in itertools.product(ROTATIONS, ("", "S_n x "), KINDS) if kind != "none"
]
IMAGE_CASES = list(itertools.product(["C_4", "D_4", "C_8"], ["learned", "canonical", "haar", "exact"]))


class Energy(nn.Module):
    """A smooth function of positions (batch, 4, d) that no group leaves unchanged."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4 * dimension, 16), nn.Tanh(), nn.Linear(16, 1)).double()

    def forward(self, points: Tensor) -> Tensor:
        return self.layers(points)


def make_model(group: str, kind: str, **options) -> tuple[Symmetrized, Tensor]:
    dimension = int(group[-2])
    torch.manual_seed(0)
    model = lps_hf.symmetrize(
        Energy(dimension), group, "n p" if "E" in group else "n v", "1", kind, interface_config=options.get("interface_config")
    )
    points = 2 + torch.randn(2, 4, dimension, generator=seeded(3), dtype=torch.float64)
    return model.double().eval(), points


def energy_of(model: Symmetrized, x: Tensor, num_samples: int = 3):
    """The output as a function of x with the noise held fixed."""
    noise = model.distribution.draw_noise(model.encode(x), num_samples, seeded(1))
    return lambda y: model.estimate(y, noise=noise).mean.sum()


def relative_error_along_a_step(energy, x: Tensor, size: float = 1e-5) -> float:
    """How far the gradient is from finite differences along random directions, relative to its norm."""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(leaf), leaf)
    errors = []
    for seed in range(4):
        step = torch.randn(x.shape, generator=seeded(10 + seed), dtype=x.dtype)
        with torch.no_grad():
            difference = (energy(x + size * step) - energy(x - size * step)) / (2 * size)
        errors.append(float((difference - (gradient * step).sum()).abs() / gradient.norm() / step.norm()))
    return max(errors)


@pytest.mark.parametrize(("group", "kind"), POINT_CASES)
def test_gradients_are_those_of_finite_differences(group, kind):
    model, x = make_model(group, kind)
    assert relative_error_along_a_step(energy_of(model, x), x) < 1e-7


@pytest.mark.parametrize(("group", "kind"), IMAGE_CASES)
def test_gradients_of_images_are_those_of_finite_differences(group, kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(50, 8), nn.Tanh(), nn.Linear(8, 1))
    model = lps_hf.symmetrize(net, group, "2 h w", "1", kind).double().eval()
    x = torch.randn(2, 2, 5, 5, generator=seeded(3), dtype=torch.float64)
    assert relative_error_along_a_step(energy_of(model, x), x) < 1e-7


# Other noise draws other elements: of these laws the mean over all noise has no torque, of those above each sample has none.
TORQUE_FREE = ["frame", "exact", "canonical"]


@pytest.mark.parametrize(("group", "kind"), [case for case in POINT_CASES if case[1] in TORQUE_FREE])
def test_an_invariant_energy_has_no_net_torque_and_no_net_force(group, kind):
    model, x = make_model(group, kind)
    leaf = x.clone().requires_grad_()
    (force,) = torch.autograd.grad(energy_of(model, x)(leaf), leaf)
    torque = torch.einsum("bni,bnj->bij", x, force)
    assert (torque - torque.mT).norm() < 1e-8 * force.norm() * x.norm()
    if "E" in group:
        assert force.sum(dim=1).norm() < 1e-8 * force.norm()


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_moving_all_points_has_no_force(kind):
    model, x = make_model("S_n x SE(3)", kind)
    leaf = x.clone().requires_grad_()
    (force,) = torch.autograd.grad(energy_of(model, x)(leaf), leaf)
    assert force.sum(dim=1).norm() < 1e-8 * force.norm()


@pytest.mark.parametrize("kind", ["frame", "exact"])
@pytest.mark.parametrize("group", ["O(3)", "SE(3)", "S_n x E(2)"])
def test_forces_can_be_trained_on(group, kind):
    model, x = make_model(group, kind)
    energy = energy_of(model, x)
    weight = model.module.layers[1].weight

    def loss(y: Tensor) -> Tensor:
        (force,) = torch.autograd.grad(energy(y), y, create_graph=True)
        return force.square().sum()

    leaf = x.clone().requires_grad_()
    to_x, to_weight = torch.autograd.grad(loss(leaf), [leaf, weight])
    step = torch.randn(x.shape, generator=seeded(5), dtype=torch.float64)
    losses = [float(loss((x + size * step).requires_grad_()).detach()) for size in (1e-5, -1e-5)]
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(float((to_x * step).sum()), rel=1e-5, abs=1e-8)
    with torch.no_grad():
        losses = []
        for sign in (1, -1):
            weight[0, 0] += sign * 1e-5
            with torch.enable_grad():
                losses.append(float(loss(x.clone().requires_grad_()).detach()))
            weight[0, 0] -= sign * 1e-5
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(float(to_weight[0, 0]), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(("group", "kind"), [("S_n x E(3)", "learned"), ("S_n x O(2)", "canonical")])
def test_second_derivatives_of_learned_orders_are_refused_and_not_wrong(group, kind):
    model, x = make_model(group, kind)
    leaf = x.clone().requires_grad_()
    (force,) = torch.autograd.grad(energy_of(model, x)(leaf), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"second derivative: .*call requires_grad_\(False\) on the distribution"):
        torch.autograd.grad(force.square().sum(), leaf)


@pytest.mark.parametrize("kind", ["learned", "canonical", "haar"])
def test_forces_can_be_trained_on_where_the_distribution_is_frozen(kind):
    model, x = make_model("S_n x E(3)", kind)
    model.distribution.requires_grad_(False)
    energy = energy_of(model, x)

    def loss(y: Tensor) -> Tensor:
        (force,) = torch.autograd.grad(energy(y), y, create_graph=True)
        return force.square().sum()

    leaf = x.clone().requires_grad_()
    (to_x,) = torch.autograd.grad(loss(leaf), leaf)
    step = torch.randn(x.shape, generator=seeded(5), dtype=torch.float64)
    losses = [float(loss((x + size * step).requires_grad_()).detach()) for size in (1e-5, -1e-5)]
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(float((to_x * step).sum()), rel=1e-5, abs=1e-8)


def axes_of(x: Tensor, noise: Tensor, error: float = 1e-12) -> Tensor:
    return principal_axes(x, noise, torch.full((len(x),), error, dtype=torch.float64))


@pytest.mark.parametrize("gap", [1.0, 1e-3, 1e-6])
def test_axes_are_differentiable_where_variances_are_close(gap):
    scales = torch.tensor([3.0, 1.0 + gap, 1.0], dtype=torch.float64).sqrt()
    x = torch.linalg.qr(torch.randn(1, 6, 3, generator=seeded(0), dtype=torch.float64))[0] * scales
    noise = torch.randn(1, 2, 3, 3, generator=seeded(1), dtype=torch.float64)
    weights = torch.randn(1, 2, 3, 3, generator=seeded(2), dtype=torch.float64)
    error = relative_error_along_a_step(lambda y: (axes_of(y, noise) * weights).sum(), x, size=1e-4 * gap)
    assert error < 1e-5


@pytest.mark.parametrize("name", ["square", "cube", "zero", "line", "one point"])
def test_gradients_are_finite_where_variances_are_equal(name):
    points = {
        "square": torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]]),
        "cube": torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3))),
        "zero": torch.zeros(4, 3),
        "line": torch.tensor([[-1.0, 0, 0], [1, 0, 0]]),
        "one point": torch.tensor([[0.3, -2.0, 1.0]]),
    }[name].double()
    x = points.unsqueeze(0).requires_grad_()
    noise = torch.randn(1, 5, 3, 3, generator=seeded(1), dtype=torch.float64)
    axes = axes_of(x, noise)
    torch.testing.assert_close(axes.mT @ axes, torch.eye(3, dtype=torch.float64).expand(1, 5, 3, 3))
    (gradient,) = torch.autograd.grad(axes.square().sum() + (axes * noise).sum(), x)
    assert gradient.isfinite().all()
    assert gradient.norm() < 100


def test_functional_gradients_agree():
    x = torch.randn(2, 4, 3, generator=seeded(3), dtype=torch.float64)
    noise = torch.randn(2, 2, 3, 3, generator=seeded(1), dtype=torch.float64)

    def total(y: Tensor) -> Tensor:
        return (axes_of(y, noise) * noise).sum()

    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(torch.func.grad(total)(x), torch.autograd.grad(total(leaf), leaf)[0])
    torch.testing.assert_close(torch.func.jacrev(total)(x), torch.func.grad(total)(x))


@pytest.mark.parametrize("kind", ["learned", "canonical"])
def test_statistics_follow_a_batch_once(kind):
    # Also where the gradient with respect to the input asks for another pass of the network.
    counts = []
    for needs_gradient in (False, True):
        model, x = make_model("S_n x E(3)", kind)
        model.train()(x.requires_grad_(needs_gradient))
        counts.append({name: tensor.clone() for name, tensor in model.distribution.named_buffers() if "norm" in name})
    for name, tensor in counts[0].items():
        torch.testing.assert_close(counts[1][name], tensor)
        assert "num_batches" not in name or tensor == 1


def test_axes_of_a_plane_of_equal_variances_turn_with_the_plane():
    # What moves the eigenspace as a whole moves the axes that were drawn in it, as finite differences do.
    square = torch.tensor([[[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]]], dtype=torch.float64)
    noise = torch.randn(1, 3, 3, 3, generator=seeded(1), dtype=torch.float64)
    weights = torch.randn(1, 3, 3, 3, generator=seeded(2), dtype=torch.float64)
    tilt = torch.zeros(3, 3, dtype=torch.float64)
    tilt[0, 2], tilt[2, 0] = -1.0, 1.0

    def turned(angle: Tensor) -> Tensor:
        return (axes_of(square @ torch.matrix_exp(angle * tilt), noise) * weights).sum()

    angle = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(turned(angle), angle)
    difference = (turned(angle.detach() + 1e-5) - turned(angle.detach() - 1e-5)) / 2e-5
    assert float(slope) == pytest.approx(float(difference), rel=1e-6)
    assert abs(float(slope)) > 0.1
