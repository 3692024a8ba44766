"""`torch.export` and ONNX: models that leave Python, with their distribution or with group elements from outside."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import ViTConfig

from lps_hf.data.geometric_rows import charged_particles
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import (
    PARTICLE_DEFAULTS,
    LPSForImageClassification,
    LPSForParticleDynamics,
)
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import random_rows, tiny_classifier

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
# What the exporter of torch 2.13 says of itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 8}
SMALL = {"hidden_size": 6, "num_layers": 2}


def graphs(distribution="learned"):
    backbone = ViTConfig(**VIT, image_size=16)
    model = tiny_classifier(distribution=distribution, backbone_config=backbone, interface_config=SMALL)
    processor = LPSProcessor.from_config(model.config)

    def batch_of(count, seed):
        rows = [{key: value for key, value in row.items() if key != "y"} for row in random_rows(count, seed)]
        return dict(processor(rows, return_tensors="pt"))

    return model, batch_of


def particles(distribution="learned"):
    transformer = {"model_type": "lps_pair_transformer", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    task = {"group": "S_n x E(3)", **PARTICLE_DEFAULTS, "distribution": distribution}
    torch.manual_seed(0)
    config = LPSConfig(backbone_config={**transformer, "intermediate_size": 8}, max_nodes=8, interface_config=SMALL, **task)
    processor = LPSProcessor.from_config(config)

    def batch_of(count, seed):
        rows = charged_particles(count, num_particles=3 + seed, seed=seed)
        return {key: value for key, value in processor(rows, return_tensors="pt").items() if key != "labels"}

    return LPSForParticleDynamics(config).eval(), batch_of


def images(distribution="learned"):
    torch.manual_seed(0)
    backbone = ViTConfig(**VIT, image_size=16, num_labels=3)
    config = LPSConfig(
        backbone_config=backbone, group="D_4", num_labels=3, distribution=distribution, interface_config={"hidden_size": 4}
    )

    def batch_of(count, seed):
        return {"pixel_values": torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))}

    return LPSForImageClassification(config).eval(), batch_of


def with_given(model: Any, batch: dict[str, Any], given: str, num_samples: int) -> dict[str, Any]:
    """The batch with noise, or with the elements that come of it: what makes the outputs a function of the inputs."""
    noise = model.lps.draw_noise(model.lps.encode(**batch), num_samples, torch.Generator().manual_seed(0))
    if given == "noise":
        return {**batch, "noise": noise}
    return {**batch, "group_elements": model(**batch, noise=noise).group_elements}


def tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in (value.values() if isinstance(value, dict) else value) for tensor in tensors_in(part)]


def any_sizes(inputs: dict[str, Any]) -> torch.export.ShapesCollection:
    """Every axis as long as it comes, where the model allows it."""
    shapes = torch.export.ShapesCollection()
    for tensor in tensors_in(inputs):
        shapes[tensor] = dict.fromkeys(range(tensor.dim()), torch.export.Dim.AUTO)
    return shapes


def run_onnx(session: Any, inputs: dict[str, Any]) -> list[np.ndarray]:
    names = [node.name for node in session.get_inputs()]
    return session.run(None, {name: tensor.numpy() for name, tensor in zip(names, tensors_in(inputs), strict=True)})


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "distribution", "given"),
    [
        (graphs, "learned", "group_elements"),
        pytest.param(images, "learned", "group_elements", marks=pytest.mark.slow),
        pytest.param(images, "learned", "noise", marks=pytest.mark.slow),
        pytest.param(graphs, "learned", "noise", marks=pytest.mark.slow),
        pytest.param(graphs, "canonical", "noise", marks=pytest.mark.slow),
        pytest.param(particles, "learned", "group_elements", marks=pytest.mark.slow),
        pytest.param(particles, "learned", "noise", marks=pytest.mark.slow),
        pytest.param(particles, "canonical", "noise", marks=pytest.mark.slow),
    ],
)
def test_onnx_runtime_gives_the_same_for_any_sizes(case, distribution, given, tmp_path):
    model, batch_of = case(distribution)
    inputs = with_given(model, batch_of(3, seed=1), given, 2)
    names = {"output_names": ["logits", "standard_error"], "verbose": False}
    torch.onnx.export(model, (), tmp_path / "model.onnx", kwargs=inputs, dynamic_shapes=any_sizes(inputs), dynamo=True, **names)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for count, seed, num_samples in ((3, 1, 2), (5, 3, 4)):
        inputs = with_given(model, batch_of(count, seed), given, num_samples)
        expected = model(**inputs)
        logits, error = run_onnx(session, inputs)[:2]
        np.testing.assert_allclose(logits, expected.logits, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(error, expected.standard_error, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_exported_program_fits_all_sizes_of_graphs():
    model, batch_of = graphs()
    inputs = with_given(model, batch_of(3, seed=1), "noise", 2)
    assert inputs["node_mask"].shape[1] < model.config.max_nodes
    program = torch.export.export(model, (), inputs, dynamic_shapes=any_sizes(inputs)).module()
    for count, seed, num_samples in ((1, 2, 1), (3, 1, 2), (20, 3, 3)):
        inputs = with_given(model, batch_of(count, seed), "noise", num_samples)
        torch.testing.assert_close(program(**inputs).logits, model(**inputs).logits, rtol=1e-5, atol=1e-6)
    assert inputs["node_mask"].shape[1] == model.config.max_nodes, "the longest axis there can be was among them"
