"""Symmetric systems turned in single precision: their law is that of the systems as they were, whatever broke their ties.

Margins follow the precision of the data. A turned system in single precision is symmetric to seven digits, and double precision
in the computation would take the eighth for a difference.
"""

import itertools
import math
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import lps_hf
from lps_hf.models.batches import encode_batch
from lps_hf.models.configuration_base_networks import ParticleGNNBaseConfig
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.symmetrized import Symmetrized
from tests.models.graph_cases import seeded

CUBE = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)


def polygon(corners: int) -> Tensor:
    angle = 2 * math.pi * torch.arange(corners, dtype=torch.float64) / corners
    return torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=-1)


SYSTEMS = {
    "square": polygon(4),
    "pentagon": polygon(5),
    "tetrahedron": CUBE[[0, 3, 5, 6]],
    "cube": CUBE,
    "octahedron": torch.cat([torch.eye(3), -torch.eye(3)]).double(),
    "line": torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=torch.float64),
    "one point": torch.tensor([[0.3, 1, -2]], dtype=torch.float64),
    "one place": torch.tensor([[0.3, 1, -2]] * 4, dtype=torch.float64),
}
GROUPS = ["O(3)", "SO(3)", "E(3)", "SE(3)", "S_n x O(3)", "S_n x E(3)"]


@cache
def make_model(group: str, kind: str, nodes: int, dtype: torch.dtype) -> Symmetrized:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * nodes, 16), nn.Tanh(), nn.Linear(16, 1))
    model = lps_hf.symmetrize(net, group, "n p" if "E" in group else "n v", "1", kind, interface_config=None)
    return model.to(dtype).eval()


def rotation(seed: int) -> Tensor:
    q = torch.linalg.qr(torch.randn(3, 3, generator=seeded(seed), dtype=torch.float64))[0]
    return q * torch.linalg.det(q).sign()


@torch.no_grad()
def samples(model: Symmetrized, x: Tensor, noise: dict[str, Tensor]) -> Tensor:
    batch = model.encode(x)
    elements = model.distribution(batch, noise).elements
    dtype = next(model.module.parameters()).dtype
    converted = batch._replace(fields={name: field.to(dtype) for name, field in batch.fields.items()})
    return model.symmetrization.samples(model._call_module, elements, converted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", ["canonical", "frame"])
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("group", GROUPS)
def test_turned_systems_have_the_same_law(group, name, kind, dtype):
    # Stronger than equal laws: with the noise turned too, every draw gives what it gave. The model may be in double precision.
    system = SYSTEMS[name]
    model = make_model(group, kind, len(system), dtype)
    x = system.float().unsqueeze(0)
    noise = model.distribution.draw_noise(model.encode(x), 40, seeded(1))
    here = samples(model, x, noise)
    for seed in (1, 2):
        turn = rotation(seed)
        turned = {name: part if name == "S_n" else turn @ part for name, part in noise.items()}
        there = samples(model, (system @ turn.T).float().unsqueeze(0), turned)
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["square", "cube", "line", "one place"])
@pytest.mark.parametrize(("group", "kind"), [("E(3)", "frame"), ("S_n x E(3)", "frame"), ("E(3)", "canonical")])
def test_systems_far_from_the_origin_have_the_same_law(group, kind, name):
    # What is left of their digits when they are centred are errors of 1e-5, and symmetric to that they are.
    system = SYSTEMS[name]
    model, x = make_model(group, kind, len(system), torch.float32), system.float().unsqueeze(0)
    noise = model.distribution.draw_noise(model.encode(x), 40, seeded(1))
    turn = rotation(1)
    turned = {name: part if name == "S_n" else turn @ part for name, part in noise.items()}
    there = samples(model, (system @ turn.T + torch.tensor([50.0, -80.0, 30.0])).float().unsqueeze(0), turned)
    torch.testing.assert_close(there, samples(model, x, noise), rtol=1e-2, atol=1e-2)


def test_differences_that_the_data_have_are_seen():
    # A rectangle of which one side is longer by 1e-5 is none to 1e-7, and has a frame of its own.
    rectangle = SYSTEMS["square"] * torch.tensor([1 + 1e-5, 1, 1])
    model = make_model("E(3)", "frame", 4, torch.float32)
    noise = model.distribution.draw_noise(model.encode(rectangle.float().unsqueeze(0)), 20, seeded(1))
    axes = [
        model.distribution(model.encode(x.float().unsqueeze(0)), noise).elements.matrix for x in (rectangle, SYSTEMS["square"])
    ]
    assert (axes[0].abs() - axes[0].abs()[:, :1]).abs().max() < 1e-3
    assert (axes[1].abs() - axes[1].abs()[:, :1]).abs().max() > 0.1


def test_the_precision_is_that_in_which_numbers_came():
    backbone = ParticleGNNBaseConfig(hidden_size=8, num_hidden_layers=1)
    config = LPSConfig(backbone_config=backbone, group="S_n x E(3)", inputs={"positions": "n p"}, output="n p", max_nodes=4)
    for dtype in (torch.float16, torch.float32, torch.float64):
        batch = encode_batch(config, torch.float64, {"positions": polygon(4).to(dtype).unsqueeze(0)})
        assert batch.fields["positions"].dtype == torch.float64
        assert batch.rounding == batch.select(torch.tensor([0])).rounding == torch.finfo(dtype).eps
