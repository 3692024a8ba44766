"""Errors of estimates against a reference, their ratio, and the additive share of the variance, on cases that are known."""

import pytest
import torch

from lps_hf.evaluation.sampling_error import additive_share, outputs_of_draws, ratio_of_errors, squared_errors
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.models.representations import Representation
from tests.models.graph_cases import random_batch, seeded, tiny_model

NODES = {"S_n": Representation.parse("n")}


def normal_draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def test_outputs_of_draws_are_the_terms_of_the_models_mean():
    model = tiny_model(LPSForGraphClassification)
    batch = random_batch([5, 3, 6])
    noise = model.lps.draw_noise(model.lps.encode(**batch), 7, seeded(0))
    outputs = outputs_of_draws(model, batch, noise, rows_per_pass=6)  # in passes of two draws
    assert outputs.shape == (7, 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(outputs.mean(dim=0), model(**batch, noise=noise).logits)
        third = {name: part[:, 2:3] for name, part in noise.items()}
        torch.testing.assert_close(outputs[2], model(**batch, noise=third).logits)


def test_the_error_of_independent_draws_is_their_variance_over_their_number():
    outputs, reference = 3 * normal_draws(4000, 5, 2), 3 * normal_draws(500, 5, 2, seed=1)
    for num_samples in (1, 4, 20):
        errors = squared_errors(outputs, 1, num_samples, reference)
        assert errors.shape == (5,)
        assert errors.mean() == pytest.approx(9 / num_samples, rel=0.1)
    # The reference's own variance, 9 / 500, is taken off: it would be twice the error here.
    assert squared_errors(outputs, 1, 1000, reference).mean() == pytest.approx(9 / 1000, abs=9 / 1000)


def test_groups_stay_whole_and_parts_are_their_first_draws():
    first = normal_draws(600, 4, 1)
    outputs = torch.stack([first, -first], dim=1).flatten(0, 1)
    reference = torch.cat([outputs, -outputs])  # the mean is exactly zero
    exact = reference.var(dim=0).mean(dim=-1) / len(reference)
    torch.testing.assert_close(squared_errors(outputs, 2, 2, reference), -exact)
    torch.testing.assert_close(squared_errors(outputs, 2, 6, reference), -exact)
    torch.testing.assert_close(squared_errors(outputs, 2, 1, reference), first.square().mean(dim=0).squeeze(-1) - exact)


def test_numbers_that_do_not_fit_are_refused():
    outputs = normal_draws(8, 2, 1)
    with pytest.raises(ValueError, match=r"num_samples: expected at most 4 or a multiple of it, got 6\."):
        squared_errors(outputs, 4, 6, outputs)
    with pytest.raises(ValueError, match=r"outputs: expected at least 12 draws, got 8\."):
        squared_errors(outputs, 4, 12, outputs)


def test_the_ratio_is_that_of_the_sums_with_a_spread_over_inputs():
    others = normal_draws(40).square() + 1
    same = ratio_of_errors(0.5 * others, others)
    assert (same["ratio"], same["deviation"]) == (pytest.approx(0.5), pytest.approx(0, abs=1e-12))
    noisy = ratio_of_errors(others * (1 + 0.4 * normal_draws(40, seed=1)), others)
    low, high = noisy["interval"]
    assert low < noisy["ratio"] < high
    assert high - low == pytest.approx(4 * noisy["deviation"], rel=0.2)
    assert 0.04 < noisy["deviation"] < 0.12  # 0.4 / √40 = 0.063 for equal weights


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_the_additive_share_tells_sums_from_products(law):
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    draw = torch.rand if law == "uniform" else torch.randn
    noise = draw((2, 3000, 4), generator=seeded(0), dtype=torch.float64)
    centred = (noise - (0.5 if law == "uniform" else 0.0)).transpose(0, 1)
    additive = (centred[..., :1] ** 3 + centred[..., 1:2] ** 2).contiguous()
    product = centred[..., :1] * centred[..., 1:2]
    cases = {
        "sum": (additive, 1.0),
        "product": (product, 0.0),
        "both": (additive / additive.std() + product / product.std(), 0.5),
        "padding": (additive / additive.std() + centred[..., 3:] / centred.std(), 0.75),  # all of one input, half of the other
    }
    for outputs, expected in cases.values():
        found = additive_share(outputs, {"S_n": noise}, NODES, mask)
        assert found["share"] == pytest.approx(expected, abs=0.06)
        assert found["degree"] == 3


def test_the_degree_falls_with_the_draws_and_then_there_is_no_share():
    noise = torch.rand((1, 40, 5), generator=seeded(0), dtype=torch.float64)
    linear = (2 * noise[..., :1] - 1).transpose(0, 1)
    degrees = {}
    for draws in (40, 20, 10, 9):
        found = additive_share(linear[:draws], {"S_n": noise[:, :draws]}, NODES, torch.ones(1, 5, dtype=torch.bool))
        degrees[draws] = found and found["degree"]
        assert found is None or found["share"] == pytest.approx(1)
    assert degrees == {40: 3, 20: 2, 10: 1, 9: None}
