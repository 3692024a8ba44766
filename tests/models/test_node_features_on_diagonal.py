"""Node features that the base function reads on the diagonal of the edge tensor, as the paper has it for PATTERN."""

import pytest
import torch
from torch import Tensor

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import LPSForNodeClassification
from lps_hf.models.representations import EdgeField, Representation
from lps_hf.testing import assert_equivariant
from tests.models.graph_cases import EDGE_CATEGORIES, random_batch, reference_encoding, seeded, select_graph, tiny_model

WIDTHS = {"nodes": 5, "edges": 3}  # of graph_cases' categories, encoded
MLP = {"model_type": "lps_mlp", "hidden_sizes": [16]}


def edge_lists_of_pairs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same graphs given by real features of all pairs, those of nodes on the diagonal."""
    nodes, pairs, _ = reference_encoding(batch, torch.float64)
    size = batch["node_mask"].shape[1]
    dense = torch.zeros(len(nodes), size, size, sum(WIDTHS.values()), dtype=torch.float64)
    for graph, (node, pair) in enumerate(zip(nodes, pairs, strict=True)):
        count = len(node)
        dense[graph, :count, :count, : WIDTHS["edges"]] = pair
        dense[graph, range(count), range(count), WIDTHS["edges"] :] = node
    places = torch.cartesian_prod(torch.arange(size), torch.arange(size)).T.expand(len(nodes), 2, -1)
    mask = batch["node_mask"]
    edge_mask = (mask.unsqueeze(1) & mask.unsqueeze(2)).flatten(1)
    return {"edge_index": places, "edge_features": dense.flatten(1, 2), "node_mask": mask, "edge_mask": edge_mask}


@pytest.mark.parametrize("backbone", [{}, {"backbone_config": MLP}], ids=["vit", "mlp"])
@pytest.mark.parametrize("edge_categories", [EDGE_CATEGORIES, None], ids=["categories", "plain"])
def test_it_is_an_edge_tensor_with_nodes_on_its_diagonal(backbone, edge_categories):
    batch = random_batch([3, 8, 1])
    options = {"distribution": "haar", "output": "n n 2", "num_labels": 2, **backbone}
    model = tiny_model(node_features_on_diagonal=True, edge_categories=edge_categories, **options)
    pairs = edge_lists_of_pairs(batch)
    width = sum(WIDTHS.values())
    if edge_categories is None:
        del batch["edge_categories"]
        pairs["edge_features"], width = torch.cat([pairs["edge_features"][..., :1], pairs["edge_features"][..., 3:]], dim=-1), 6
    inputs = {"edge_features": f"n n {width}"}
    plain = tiny_model(inputs=inputs, node_categories=None, edge_categories=None, **options)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        found = model(**batch, num_samples=3, generator=seeded(0))
        expected = plain(**pairs, group_elements=found.group_elements)
    torch.testing.assert_close(found.output, expected.output)


def test_nothing_else_reads_nodes_and_every_parameter_is_used():
    batch = random_batch([3, 6])
    model = tiny_model(LPSForNodeClassification, node_features_on_diagonal=True, output="n n 2", num_labels=2)
    assert list(model.lps.base.projections) == ["edge_features"]
    assert model.config.base_representations == {"edge_features": Representation.parse("n n 8")}
    output = model(**batch, num_samples=2, generator=seeded(0))
    output.logits.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    moved = {**batch, "node_categories": (batch["node_categories"] + 1) % torch.tensor([3, 2])}
    again = model(**moved, group_elements=output.group_elements)
    assert not torch.allclose(again.logits[0, :3], output.logits[0, :3])


@pytest.mark.parametrize("distribution", ["learned", "canonical", "haar"])
def test_equivariance_and_padding(distribution):
    batch = random_batch([3, 6])
    options = {"output": "n n 2", "num_labels": 2, "distribution": distribution}
    model = tiny_model(LPSForNodeClassification, node_features_on_diagonal=True, **options)
    assert_equivariant(model, batch)
    noise = model.lps.draw_noise(model.lps.encode(**batch), 2, seeded(0))
    with torch.no_grad():
        whole = model(**batch, noise=noise).logits
        alone = model(**select_graph(batch, 0), noise={name: part[:1, :, :3] for name, part in noise.items()}).logits
    torch.testing.assert_close(alone[0], whole[0, :3])


def test_entries_of_edges_and_nodes_of_different_numbers():
    edges = EdgeField(torch.tensor([[[0], [1]]]), torch.tensor([[[2.0]]]))
    field = edges.with_diagonal(torch.tensor([[[3.0, 4.0], [5.0, 6.0]]]), first_channel=1)
    assert field.index.tolist() == [[[0, 0, 1], [1, 0, 1]]]
    assert field.features.tolist() == [[[2.0, 0.0], [3.0, 4.0], [5.0, 6.0]]]
    assert field.entry_channels.tolist() == [[[0, 0], [1, 2], [1, 2]]]


def test_models_without_nodes_or_edges_refuse_it():
    with pytest.raises(ValueError, match="node_features_on_diagonal: expected the inputs 'node_features' and 'edge_features'"):
        LPSConfig(inputs={"node_features": "n 3"}, node_features_on_diagonal=True)
