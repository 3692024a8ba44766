"""The image interface: its logits move with the image, and the prior that keeps images upright."""

import math

import pytest
import torch
from torch import Tensor

from lps_hf.models.elements import FiniteElement
from lps_hf.models.image_interface import ImageInterface, identity_prior_loss
from lps_hf.models.plane_groups import CyclicGroup, DihedralGroup, PlaneGroup
from lps_hf.models.representations import Representation

PIXELS = Representation.parse("3 h w")


def build(group: PlaneGroup, dtype: torch.dtype = torch.float64, **options: float) -> ImageInterface:
    torch.manual_seed(1)
    return ImageInterface(group, channels=3, resolution=8, **options).to(dtype).eval()


def random_images(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2), dtype=dtype)


def equivariance_errors(interface: ImageInterface, images: Tensor) -> list[float]:
    """For every element h, how far logits(ρ(h)·x) are from ρ(h)·logits(x), relative to the spread of the logits."""
    group, logits = interface.group, interface(images)
    errors = []
    for number in range(group.order):
        h = FiniteElement(torch.full((len(images), 1), number))
        moved = interface(group.act(h, images.unsqueeze(1), PIXELS)[:, 0])
        expected = group.act(h, logits.unsqueeze(1), group.score)[:, 0]
        errors.append(((moved - expected).norm() / (logits - logits.mean(dim=-1, keepdim=True)).norm()).item())
    return errors


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize(
    ("group", "size"),
    [
        (CyclicGroup(4), (16, 16)),  # a multiple of the resolution
        (CyclicGroup(4), (19, 19)),
        (DihedralGroup(4), (21, 21)),
        (DihedralGroup(4), (5, 5)),  # smaller than the resolution
        (DihedralGroup(2), (30, 17)),
        (CyclicGroup(2), (9, 40)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_logits_move_with_the_image(group, size, dtype, tolerance):
    errors = equivariance_errors(build(group, dtype), random_images(*size, dtype=dtype))
    assert max(errors) < tolerance


def test_logits_of_other_turns_move_with_smooth_images_up_to_interpolation():
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 24, dtype=torch.float64)] * 2, indexing="ij")
    bumps = [torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.1) for a, b in [(0.4, 0.1), (-0.3, 0.3), (0.0, -0.5)]]
    images = torch.stack(bumps).expand(2, 3, 24, 24) * torch.tensor([1.0, -1.0], dtype=torch.float64).view(2, 1, 1, 1)
    torch.manual_seed(1)
    interface = ImageInterface(CyclicGroup(8), channels=3, resolution=24).double()
    errors = equivariance_errors(interface, images + 1)  # not zero in the corners
    assert max(errors[::2]) < 1e-12
    assert max(errors[1::2]) < 0.15


def test_every_logit_is_the_score_of_the_image_turned_back():
    group = DihedralGroup(4)
    interface, images = build(group), random_images(16, 16)
    logits = interface(images)
    assert logits.shape == (2, 8)
    assert logits.std(dim=-1).min() > 1e-3
    for number in range(group.order):
        e = FiniteElement(torch.full((2, 1), number))
        turned_back = group.act_inverse(e, images.unsqueeze(1), PIXELS)[:, 0]
        torch.testing.assert_close(interface(turned_back)[:, 0], logits[:, number])


@pytest.mark.parametrize(
    ("size", "reduced"), [((16, 16), (8, 8)), ((19, 19), (8, 8)), ((7, 7), (7, 7)), ((30, 15), (8, 4)), ((99, 2), (8, 1))]
)
def test_copies_are_of_an_image_reduced_to_the_resolution(size, reduced):
    interface = build(DihedralGroup(2))
    seen = []
    interface.layers.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    images = random_images(*size) * 0 + 2.5
    interface(images)
    assert seen[0].shape == (2 * 4, 3, *reduced)
    torch.testing.assert_close(seen[0], torch.full_like(seen[0], 2.5))


def test_logits_of_an_image_do_not_depend_on_its_batch():
    interface, images = build(CyclicGroup(4)), random_images(16, 16)
    torch.testing.assert_close(interface(images[1:]), interface(images)[1:], atol=1e-12, rtol=0)


def test_sizes_dropout_and_gradients():
    interface = build(CyclicGroup(4), hidden_size=6, num_layers=2, dropout=0.5)
    convolutions = [layer for layer in interface.layers if isinstance(layer, torch.nn.Conv2d)]
    assert [tuple(layer.weight.shape) for layer in convolutions] == [(6, 3, 3, 3), (6, 6, 3, 3)]
    images = random_images(16, 16)
    assert torch.equal(interface(images), interface(images))
    interface.train()
    logits = interface(images)
    assert not torch.equal(logits, interface(images))
    identity_prior_loss(logits).backward()
    for name, parameter in interface.named_parameters():
        # A bias of the head shifts all logits alike, which a softmax does not see.
        assert (parameter.grad.abs().max() > 1e-12) == (name != "head.bias"), name


def test_symmetric_images_leave_their_elements_tied():
    image = random_images(16, 16)
    logits = build(CyclicGroup(4))(image + torch.rot90(image, 2, (-2, -1)))
    torch.testing.assert_close(logits[:, :2], logits[:, 2:], atol=1e-12, rtol=0)
    assert (logits[:, 0] - logits[:, 1]).abs().min() > 1e-3


def test_identity_prior_loss_is_the_surprise_of_the_identity():
    assert identity_prior_loss(torch.zeros(3, 8)).item() == pytest.approx(math.log(8))
    assert identity_prior_loss(torch.tensor([[50.0, 0.0, 0.0, 0.0]])).item() == pytest.approx(0.0, abs=1e-6)
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]], requires_grad=True)
    loss = identity_prior_loss(logits)
    probability = [math.e / (math.e + math.e**2 + 1), 1 / (2 + math.e**3)]
    assert loss.item() == pytest.approx(-sum(map(math.log, probability)) / 2)
    loss.backward()
    assert (logits.grad[:, 0] < 0).all()
    assert (logits.grad[:, 1:] > 0).all()
    assert identity_prior_loss(torch.tensor([[-1e4, 1e4]])).isfinite()


def test_other_images_are_refused():
    interface = build(CyclicGroup(4))
    with pytest.raises(ValueError, match=r"image: expected shape \(batch, 3, height, width\), got \(2, 1, 16, 16\)"):
        interface(random_images(16, 16)[:, :1])
    with pytest.raises(ValueError, match=r"got \(3, 16, 16\)"):
        interface(random_images(16, 16)[0])
    with pytest.raises(ValueError, match="group C_4 has quarter turns and expects square images"):
        interface(random_images(16, 12))
