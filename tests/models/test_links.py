"""Inverse links: their derivative, and what becomes of variances."""

import pytest
import torch

from lps_hf.models.links import LINKS, apply_link, link_slope, link_variance
from tests.models.graph_cases import seeded


@pytest.mark.parametrize("link", LINKS)
def test_changes_and_variances_go_through_a_link_as_through_its_jacobian(link):
    mean = torch.randn(5, 4, generator=seeded(0), dtype=torch.float64)
    variance = torch.rand(5, 4, generator=seeded(1), dtype=torch.float64)
    for row in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda x: apply_link(x, link), mean[row])
        torch.testing.assert_close(link_variance(variance, mean, link)[row], jacobian.square() @ variance[row])
        torch.testing.assert_close(link_slope(variance, mean, link)[row], jacobian @ variance[row])


def test_a_saturated_softmax_has_no_negative_variance():
    found = link_variance(torch.ones(1, 2), torch.tensor([[60.0, -60.0]]), "softmax")
    assert (found >= 0).all()


@pytest.mark.parametrize("function", [apply_link, link_slope, link_variance])
def test_an_unknown_link_is_refused(function):
    arguments = [torch.zeros(1, 2)] * (1 if function is apply_link else 2)
    with pytest.raises(ValueError, match="link: expected one of 'identity', 'sigmoid', 'softmax', got 'exp'"):
        function(*arguments, "exp")
