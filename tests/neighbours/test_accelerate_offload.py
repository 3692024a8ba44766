"""Accelerate: weights that wait elsewhere until the forward of their module asks for them."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload

from tests.models.test_equivariance_matrix import draw_noise, inputs_of, make_model


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "kind"),
    [("dynamics", "learned"), ("turning dynamics", "haar"), ("nodes", "learned"), ("links", "learned"), ("graphs", "learned")],
    ids=["pair transformer", "particle GNN", "GIN-ID", "MLP", "ViT"],
)
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_model_runs_while_its_weights_are_elsewhere(name, kind, place, tmp_path):
    model, batch = make_model(name, kind), inputs_of(name, kind)
    batch["noise"] = draw_noise(model, batch, 2, seed=0)
    expected = model(**batch).logits
    make_model.cache_clear()  # the hooks stay on this one
    if place == "memory":
        cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(model(**batch).logits, expected)


@torch.no_grad()
def test_a_canonical_model_loads_its_distribution_as_a_whole():
    """It computes with its weights in double precision, so they have to be there before the first of its layers."""
    model, batch = make_model("graphs", "canonical").float(), inputs_of("graphs", "canonical")
    make_model.cache_clear()
    batch["noise"] = draw_noise(model, batch, 2, seed=0)
    expected = model(**batch).logits
    cpu_offload(model, execution_device=torch.device("cpu"), preload_module_classes=["EquivariantDistribution"])
    assert torch.equal(model(**batch).logits, expected)
