"""`torch.compile`: one graph, the same outputs, whatever the group and the distribution."""

import pytest
import torch

from lps_hf.testing import assert_equivariant
from tests.models.test_equivariance_matrix import draw_noise, inputs_of, make_model

# Of the compiler itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("graphs", "canonical"),  # computes in double precision, and leaves its weights as they are
        ("numbered points", "learned"),
        pytest.param("dynamics", "canonical", marks=pytest.mark.slow),
        pytest.param("images, D_4", "canonical", marks=pytest.mark.slow),
        pytest.param("molecules", "frame", marks=pytest.mark.slow),
        pytest.param("images, C_4", "exact", marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_model_is_one_graph(name, kind):
    model = make_model(name, kind).float()
    batch = {key: part.float() if part.is_floating_point() else part for key, part in inputs_of(name, kind).items()}
    batch["noise"] = draw_noise(model, batch, 2, seed=0)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    try:
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)
        assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
    finally:
        torch.compiler.reset()
        make_model.cache_clear()


def test_a_compiled_model_is_measured_as_the_one_inside():
    model = make_model("graphs", "haar")
    assert_equivariant(torch.compile(model, backend="eager"), inputs_of("graphs", "haar"), num_group_elements=1)
    torch.compiler.reset()
