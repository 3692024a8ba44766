"""Half precision and 8-bit integers: what they do to the outputs, and that they do nothing to the draws or the equivariance."""

import copy

import pytest
import torch

from lps_hf.testing import equivariance_error
from tests.models.graph_cases import seeded
from tests.models.test_equivariance_matrix import draw_noise, inputs_of, make_model


def half(model, folder):
    return model.to(torch.bfloat16)


def half_when_loaded(model, folder):
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder, dtype=torch.bfloat16)


def eight_bits(model, folder):
    by_channel = {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}  # by tensor the error is eight times larger
    model.lps.base.backbone = torch.ao.quantization.quantize_dynamic(model.lps.base.backbone, by_channel)
    return model


def unchanged(model, folder):
    return model


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.ao.*:DeprecationWarning", "ignore:.*quantiz.*")  # torchao takes its place
@pytest.mark.parametrize(
    ("convert", "autocast", "tolerance"),
    [
        (half, False, 0.03),
        (half_when_loaded, False, 0.03),
        (unchanged, True, 0.03),
        (eight_bits, False, 0.1),
    ],
    ids=["bfloat16", "loaded in bfloat16", "autocast", "int8"],
)
def test_less_precision_in_the_backbone(convert, autocast, tolerance, tmp_path):
    model, batch = copy.deepcopy(make_model("graphs", "learned")).float(), inputs_of("graphs", "learned")
    noise = draw_noise(model, batch, 4, seed=0)
    expected = model(**batch, noise=noise)
    model = convert(copy.deepcopy(model), tmp_path)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = model(**batch, noise=noise)
        error = equivariance_error(model, batch, 4, 4, coupled=True, generator=seeded(0))
    assert torch.equal(found.group_elements, expected.group_elements)
    assert {parameter.dtype for parameter in model.lps.distribution.parameters()} == {torch.float32}
    difference = ((found.logits - expected.logits).norm() / expected.logits.norm()).item()
    assert 1e-5 < difference < tolerance
    assert found.logits.dtype == torch.float32
    assert error.relative_error < 1e-6, "the same draws make the same input of the backbone"
