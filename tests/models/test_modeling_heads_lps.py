"""Task heads: the loss is that of the mean output with its regularisers, and the output must fit the task."""

import inspect

import pytest
import torch
from torch.nn import functional as F
from transformers import ResNetConfig

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.losses import node_loss
from lps_hf.models.modeling_heads_lps import (
    LPSForGraphClassification,
    LPSForImageClassification,
    LPSForLinkPrediction,
    LPSForNodeClassification,
    LPSTaskModel,
    LPSTaskOutput,
)
from tests.models.graph_cases import random_batch, seeded, tiny_config, tiny_model

SIZES = [5, 1, 7, 4]
every_mode = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@every_mode
def test_the_loss_is_that_of_the_mean_output_plus_the_entropy(training):
    model = tiny_model(LPSForGraphClassification, entropy_loss_coef=0.3).train(training)
    batch, labels = random_batch(SIZES), torch.tensor([0, 2, -100, 1])
    noise = model.lps.draw_noise(model.lps.encode(**batch), 3, seeded(0))
    result = model(**batch, noise=noise, labels=labels)
    known = labels != -100
    task = F.cross_entropy(result.logits[known], labels[known])
    torch.testing.assert_close(result.loss, task + 0.3 * result.entropy_loss)
    with torch.no_grad():
        quiet = model.eval()(**batch, noise=noise, labels=labels)
    torch.testing.assert_close(quiet.loss, F.cross_entropy(quiet.logits[known], labels[known]))
    assert quiet.entropy_loss is None
    assert model(**batch, noise=noise).loss is None
    torch.testing.assert_close(quiet.logits, model.lps(**batch, noise=noise).output)


@pytest.mark.parametrize("output", ["n 3", "n n 1"])
def test_a_graph_classifier_needs_an_invariant_output(output):
    with pytest.raises(ValueError, match=f"output: LPSForGraphClassification expects .*got '{output}'"):
        LPSForGraphClassification(tiny_config(output=output))


def test_a_graph_classifier_has_one_output_per_label():
    with pytest.raises(ValueError, match="num_labels"):
        LPSForGraphClassification(tiny_config(output="7", num_labels=3))


def call(model: LPSTaskModel, num_samples: int = 3, **arguments) -> tuple[LPSTaskOutput, torch.Tensor, torch.Tensor]:
    """What the head makes of a batch, and the output and error bar of the model in it."""
    batch = random_batch(SIZES)
    noise = model.lps.draw_noise(model.lps.encode(**batch), num_samples, seeded(0))
    with torch.no_grad():
        inner = model.lps(**batch, noise=noise)
        return model(**batch, noise=noise, **arguments), inner.output, inner.standard_error


def test_normalised_targets_are_predicted_in_the_unit_of_the_data():
    mean, std = [10.0, -1.0, 0.0], [2.0, 0.5, 1.0]
    model = tiny_model(LPSForGraphClassification, label_mean=mean, label_std=std, problem_type="regression")
    labels = torch.tensor([[12.0, -1.0, 0.0], [torch.nan] * 3, [9.0, torch.nan, 1.0], [10.0, 0.0, -1.0]], dtype=torch.float64)
    result, output, error = call(model, labels=labels)
    mean, std = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    torch.testing.assert_close(result.logits, mean + std * output)
    torch.testing.assert_close(result.standard_error, std * error)
    known = ~labels.isnan()
    torch.testing.assert_close(result.loss, F.mse_loss(output[known], ((labels - mean) / std)[known]))


def test_one_target_is_normalised_with_and_without_an_axis_of_its_own():
    model = tiny_model(LPSForGraphClassification, label_mean=[100.0], label_std=[5.0], problem_type="regression", num_labels=1)
    labels = torch.tensor([101.0, 99.0, torch.nan, 105.0], dtype=torch.float64)
    flat, column = (call(model, labels=given)[0].loss for given in (labels, labels.unsqueeze(-1)))
    assert torch.equal(flat, column)


@pytest.mark.parametrize("weighted", [False, True])
def test_nodes_are_read_from_their_own_axis_or_from_the_diagonal(weighted):
    labels = torch.randint(3, (4, 7), generator=seeded(1))
    for output in ("n 3", "n n 3"):
        model = tiny_model(LPSForNodeClassification, output=output, class_weighted=weighted)
        result, inner, error = call(model, labels=labels)
        node = range(7)
        expected, bar = (inner, error) if output == "n 3" else (inner[:, node, node], error[:, node, node])
        assert result.logits.shape == (4, 7, 3)
        assert torch.equal(result.logits, expected)
        assert torch.equal(result.standard_error, bar)
        torch.testing.assert_close(result.loss, node_loss(expected, labels, random_batch(SIZES)["node_mask"], weighted))


def test_links_are_scored_for_the_pairs_asked_for():
    model = tiny_model(LPSForLinkPrediction, output="n n 1", num_labels=1)
    pairs = torch.tensor([[[0, 4], [1, 2]], [[0, 0], [0, 0]], [[6, 2], [5, 6]], [[3, 1], [0, 3]]])
    labels = torch.tensor([[1.0, 0.0], [0.0, torch.nan], [1.0, 1.0], [0.0, 1.0]])
    result, inner, error = call(model, pair_index=pairs, labels=labels)
    everything = call(model)[0]
    assert torch.equal(everything.logits, inner[..., 0])
    for graph in range(4):
        for place, (source, target) in enumerate(pairs[graph].T.tolist()):
            assert result.logits[graph, place] == inner[graph, source, target, 0]
            assert result.standard_error[graph, place] == error[graph, source, target, 0]
    known = ~labels.isnan()
    expected = F.binary_cross_entropy_with_logits(result.logits[known], labels[known].double())
    torch.testing.assert_close(result.loss, expected)
    with pytest.raises(ValueError, match="pair_index: expected the pairs that the labels belong to, got None"):
        call(model, labels=labels)


@pytest.mark.parametrize("head", [LPSForGraphClassification, LPSForLinkPrediction, LPSForImageClassification])
def test_the_signature_names_every_column_that_a_model_reads(head):
    # Trainer drops the columns of a data set that it does not find there.
    names = set(inspect.signature(head.forward).parameters)
    assert {"labels", "edge_index", "positions", "pixel_values", "node_mask", "generator"} <= names
    assert ("pair_index" in names) == (head is LPSForLinkPrediction)


def test_a_frozen_backbone_stays_as_it_is():
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3, num_channels=1)
    torch.manual_seed(0)
    model = LPSForImageClassification(LPSConfig(backbone_config=backbone, group="C_4", num_labels=3))
    model.freeze_backbone()
    model.train()
    before = {name: tensor.clone() for name, tensor in model.lps.base.backbone.state_dict().items()}
    loss = model(pixel_values=torch.randn(4, 1, 16, 16), labels=torch.tensor([0, 1, 2, 0])).loss
    loss.backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.lps.base.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in model.backbone_parameters())
    assert all(parameter.grad is not None for parameter in model.lps.distribution.parameters())
    assert model.lps.distribution.training
