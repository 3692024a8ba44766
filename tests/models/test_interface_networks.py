"""The equivariant network q(x, ε), against dense matrices and against PyTorch's own batch norm."""

import pytest
import torch
from torch import Tensor, nn

from lps_hf.models.interface_networks import GINInterface, MaskedBatchNorm
from tests.models.graph_cases import place_nodes, random_batch, reference_scores, relabel, seeded

SIZES = [5, 1, 7]
MASK = torch.arange(7) < torch.tensor(SIZES).unsqueeze(1)
every_mode = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
every_dtype = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])


def make_interface(dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> GINInterface:
    """A network in which every parameter and running statistic matters."""
    interface = GINInterface(4, hidden_size=6, num_layers=3, dropout=dropout)
    with torch.no_grad():
        for tensor in (*interface.parameters(), *interface.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.5 * torch.rand_like(tensor))
    return interface.to(dtype)


def make_inputs(dtype: torch.dtype = torch.float64, num_nodes: int = 7, num_edges: int = 21) -> dict[str, Tensor]:
    """Three graphs, two samples; rubbish on the padding of features, edges and masks."""
    batch = random_batch(SIZES, num_nodes=num_nodes, num_edges=num_edges)
    features = torch.full((3, 2, num_nodes, 4), 1e3, dtype=dtype)
    for graph, size in enumerate(SIZES):
        features[graph, :, :size] = torch.rand(2, size, 4, generator=seeded(graph), dtype=dtype)
    edge_index = batch["edge_index"].masked_fill(~batch["edge_mask"].unsqueeze(1), 0)
    masks = {name: batch[name] for name in ("node_mask", "edge_mask")}
    return {"node_features": features, "edge_index": edge_index, **masks}


def reference(interface: GINInterface, inputs: dict[str, Tensor]) -> list[Tensor]:
    edges = [inputs["edge_index"][graph, :, : 3 * size] for graph, size in enumerate(SIZES)]
    features = [inputs["node_features"][graph, :, :size] for graph, size in enumerate(SIZES)]
    return reference_scores(interface, features, edges)


@every_dtype
@every_mode
def test_batch_norm_is_pytorchs_on_the_valid_nodes(training, dtype, tolerance):
    ours, theirs = MaskedBatchNorm(3).to(dtype).train(training), nn.BatchNorm1d(3).to(dtype).train(training)
    with torch.no_grad():
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            getattr(ours, tensor).add_(torch.rand(3))
    theirs.load_state_dict(ours.state_dict())
    for step in range(3):
        hidden = 5 * torch.randn(3, 7, 2, 3, generator=seeded(step), dtype=dtype) + 2
        rubbish = torch.where(MASK[:, :, None, None], hidden, torch.tensor(1e4, dtype=dtype))
        result = ours(rubbish, MASK)
        torch.testing.assert_close(result[MASK].flatten(0, 1), theirs(hidden[MASK].flatten(0, 1)), rtol=tolerance, atol=tolerance)
        for name, buffer in theirs.named_buffers():
            torch.testing.assert_close(getattr(ours, name), buffer, rtol=tolerance, atol=tolerance)
    assert int(ours.num_batches_tracked) == (3 if training else 0)


@every_mode
def test_batch_norm_has_pytorchs_gradient(training):
    gradients = []
    hidden = torch.randn(3, 7, 2, 3, dtype=torch.float64)
    weights = torch.randn(3, 7, 2, 3, dtype=torch.float64)
    for norm in (MaskedBatchNorm(3), nn.BatchNorm1d(3)):
        norm = norm.double().train(training)
        leaf = hidden.clone().requires_grad_()
        masked = isinstance(norm, MaskedBatchNorm)
        result = norm(leaf, MASK)[MASK] if masked else norm(leaf[MASK].flatten(0, 1)).unflatten(0, (-1, 2))
        gradients.append(torch.autograd.grad((result * weights[MASK]).sum(), [leaf, norm.weight, norm.bias]))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_batch_norm_of_a_single_node_is_finite():
    norm = MaskedBatchNorm(3)
    result = norm(torch.randn(1, 1, 1, 3), torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(result, torch.zeros(1, 1, 1, 3))
    assert norm.running_var.isfinite().all()


@every_dtype
@every_mode
def test_scores_agree_with_dense_matrices_graph_by_graph(training, dtype, tolerance):
    interface, inputs = make_interface(dtype).train(training), make_inputs(dtype)
    expected = reference(interface, inputs)
    scores = interface(**inputs)
    assert scores.shape == (3, 2, 7)
    assert scores.dtype == torch.float64
    for graph, size in enumerate(SIZES):
        torch.testing.assert_close(scores[graph, :, :size], expected[graph].double(), rtol=tolerance, atol=tolerance)
    assert torch.cat([score.flatten() for score in expected]).std() > 0.01


@every_mode
def test_gradients_agree_with_dense_matrices(training):
    interface, inputs = make_interface().train(training), make_inputs()
    inputs["node_features"].requires_grad_()
    leaves = [*interface.parameters(), inputs["node_features"]]
    weights = torch.randn(3, 2, 7, dtype=torch.float64)
    scores = reference(interface, inputs)
    parts = [(score * weights[graph, :, : score.shape[1]]).sum() for graph, score in enumerate(scores)]
    theirs = torch.autograd.grad(sum(parts), leaves)
    ours = torch.autograd.grad((interface(**inputs) * weights)[MASK.unsqueeze(1).expand(-1, 2, -1)].sum(), leaves)
    for (name, _), our, their in zip([*interface.named_parameters(), ("features", None)], ours, theirs, strict=True):
        bias_before_a_norm = training and name.endswith(("linear_in.bias", "linear_out.bias"))
        assert bias_before_a_norm or their.abs().max() > 1e-6, name
        torch.testing.assert_close(our, their, rtol=1e-8, atol=1e-9)
    assert not ours[-1].masked_select(~MASK[:, None, :, None]).any()


@every_mode
def test_padding_changes_neither_scores_nor_statistics(training):
    # The published batch norm sees padding rows.
    results = []
    for num_nodes, num_edges in ((7, 21), (12, 40)):
        torch.manual_seed(0)
        interface = make_interface().train(training)
        scores = interface(**make_inputs(num_nodes=num_nodes, num_edges=num_edges))
        results.append((scores[:, :, :7][MASK.unsqueeze(1).expand(-1, 2, -1)], dict(interface.named_buffers())))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-10, atol=1e-10)
    for name, buffer in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], buffer, rtol=1e-10, atol=1e-10)


def test_a_graph_has_the_same_scores_alone():
    interface, inputs = make_interface().eval(), make_inputs()
    together = interface(**inputs)
    for graph, size in enumerate(SIZES):
        cut = {"node_features": inputs["node_features"][graph : graph + 1, :, :size]}
        cut["edge_index"] = inputs["edge_index"][graph : graph + 1, :, : 3 * size]
        cut["node_mask"], cut["edge_mask"] = MASK[graph : graph + 1, :size], torch.ones(1, 3 * size, dtype=torch.bool)
        torch.testing.assert_close(interface(**cut)[0], together[graph, :, :size], rtol=1e-10, atol=1e-10)


def test_samples_do_not_see_each_other_at_evaluation():
    interface, inputs = make_interface().eval(), make_inputs()
    together = interface(**inputs)
    for sample in range(2):
        alone = interface(**{**inputs, "node_features": inputs["node_features"][:, sample : sample + 1]})
        torch.testing.assert_close(alone[:, 0], together[:, sample], rtol=1e-10, atol=1e-10)


@every_mode
def test_it_is_equivariant(training):
    interface, inputs = make_interface().train(training), make_inputs()
    batch = random_batch(SIZES)
    elements = torch.stack([torch.cat([torch.randperm(size), torch.arange(size, 7)]) for size in SIZES])
    moved = dict(inputs)
    moved["node_features"] = place_nodes(inputs["node_features"], elements, dim=2)
    moved["edge_index"] = relabel(batch, elements)["edge_index"].masked_fill(~batch["edge_mask"].unsqueeze(1), 0)
    scores, expected = interface(**moved), place_nodes(interface(**inputs), elements, dim=2)
    valid = MASK.unsqueeze(1).expand(-1, 2, -1)
    torch.testing.assert_close(scores[valid], expected[valid], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(scores[valid], interface(**inputs)[valid])


def test_messages_go_from_source_to_target_along_valid_edges():
    interface = make_interface().eval()
    features = torch.rand(1, 1, 3, 4, dtype=torch.float64)
    everything = {"node_features": features, "node_mask": torch.ones(1, 3, dtype=torch.bool)}

    def scores(edges: list[list[int]], mask: list[bool]) -> Tensor:
        return interface(edge_index=torch.tensor([edges]), edge_mask=torch.tensor([mask]), **everything)[0, 0]

    without = scores([[0], [1]], [False])
    one = scores([[0], [1]], [True])
    torch.testing.assert_close(scores([[0, 2], [1, 1]], [True, False]), one)
    assert (scores([[0, 0], [1, 1]], [True, True]) - one).abs().max() > 1e-6
    assert (scores([[1], [0]], [True]) - one).abs().max() > 1e-6
    assert (one - without).abs().max() > 1e-6
    changed = dict(everything, node_features=features.clone())
    changed["node_features"][0, 0, 2] += 1
    assert interface(edge_index=torch.tensor([[[0], [1]]]), edge_mask=torch.tensor([[True]]), **changed)[0, 0, 2] != one[2]


def test_a_graph_without_edges_has_scores():
    inputs = make_inputs()
    inputs["edge_index"], inputs["edge_mask"] = inputs["edge_index"][:, :, :0], inputs["edge_mask"][:, :0]
    assert make_interface().eval()(**inputs)[MASK.unsqueeze(1).expand(-1, 2, -1)].isfinite().all()


def test_dropout_is_off_at_evaluation():
    interface, inputs = make_interface(dropout=0.5), make_inputs()
    assert not torch.equal(interface.train()(**inputs), interface(**inputs))
    assert torch.equal(interface.eval()(**inputs), interface(**inputs))


def test_it_has_the_layers_it_was_asked_for():
    interface = GINInterface(5, hidden_size=7, num_layers=4)
    assert [layer.linear_in.in_features for layer in interface.layers] == [5, 7, 7, 7]
    assert [tuple(layer.linear_out.weight.shape) for layer in interface.layers] == [(7, 7)] * 4
    assert interface.virtual_node.shape == (5,)
