"""The numbers of the published implementation: its weights in our modules, its noise, and every array it recorded.

The recordings (`../shared/golden`, see the README there) are no part of the project: where they are not, this is
skipped. Molecules go through `LPSModel`; PATTERN and EXP, whose inputs are made up differently, through its parts.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import ViTConfig

from lps_hf.models import symmetric_group
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.distributions import DistributionSample, EquivariantDistribution, Noise
from lps_hf.models.groups import get_group
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.representations import Batch as FieldBatch
from lps_hf.models.representations import EdgeField, Field, Representation
from lps_hf.models.symmetrization import average_over_group
from tests.models.graph_cases import permutation_gradients

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
if not GOLDEN.is_dir():
    pytest.skip("needs the recordings of the published implementation in ../shared/golden", allow_module_level=True)

CASES = ("peptides_small", "pcqm_small", "pcqm_directed", "pattern_small", "exp_mlp")
EVERY_RUN = [(case, variant) for case in CASES for variant in ("k1", "k3")]

# Published modules and parameters, and what they are called here. Where there are several, they are the published
# tensor cut into equal parts.
INTERFACE = {
    "virtual_node": ("virtual_node",),
    "gin_interface.eps": ("layers.0.eps", "layers.1.eps", "layers.2.eps"),
    "gin_interface.head": ("head",),
}
GIN_LAYER = {
    "mlps.{i}.linear_layers.0": "linear_in",
    "mlps.{i}.norms.0": "norm_in",
    "mlps.{i}.linear_layers.1": "linear_out",
    "norms.{i}": "norm_out",
}
VIT = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings", "norm": "layernorm"}
VIT_BLOCK = {
    "norm1": ("layernorm_before",),
    "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attn.proj": ("attention.o_proj",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}
OTHERS = {
    "input_proj.proj.0.proj": "base.projections.node_features",
    "input_proj.proj.1.proj": "base.projections.edge_features",
    "output_proj.proj.0.proj": "base.readout.conv",
    "output_proj.proj.0": "base.readout.linear",
    **{f"backbone.{name}": f"base.{name}" for name in ("conv1", "conv2", "conv3", "fc1", "fc2")},
}


def name_table() -> dict[str, tuple[str, ...]]:
    table = {published: (ours,) for published, ours in OTHERS.items()}
    for prefix in ("distribution.prob_interface_net.", "interface."):
        for published, ours in INTERFACE.items():
            table[prefix + published] = tuple(f"distribution.interface.{name}" for name in ours)
        for i in range(3):
            for published, name in GIN_LAYER.items():
                key = f"{prefix}gin_interface.{published.format(i=i)}"
                table[key] = (f"distribution.interface.layers.{i}.{name}",)
    for published, name in VIT.items():
        table[f"backbone.backbone.{published}"] = (f"base.backbone.model.{name}",)
    for i in range(2):
        for published, ours in VIT_BLOCK.items():
            names = tuple(f"base.backbone.model.layers.{i}.{name}" for name in ours)
            table[f"backbone.backbone.blocks.{i}.{published}"] = names
    return table


NAMES = name_table()


def our_names(published_key: str) -> tuple[str, ...]:
    """The tensors that a published one becomes; none where the published forward pass never reads it."""
    if published_key in NAMES:
        return NAMES[published_key]
    module, _, leaf = published_key.rpartition(".")
    return tuple(f"{name}.{leaf}" for name in NAMES.get(module, ()))


class Case(NamedTuple):
    """What was recorded in one folder."""

    name: str
    facts: dict
    arrays: dict[str, Tensor]

    @property
    def config(self) -> dict:
        return self.facts["config"]

    @property
    def sizes(self) -> list[int]:
        return self.arrays["input/num_nodes"].tolist()

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.below("state_dict/")

    def below(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def per_graph(self, name: str) -> list[Tensor]:
        return [self.arrays[name.format(i)] for i in range(len(self.sizes))]

    def recorded(self, variant: str, double: bool = False) -> dict[str, Tensor]:
        """Every result of a variant, gradients (`grad/…`) included."""
        arrays = self.below(f"{variant}/fp64/" if double else f"{variant}/")
        return {name: array for name, array in arrays.items() if not name.startswith(("noise/", "fp64/"))}


@lru_cache
def load_case(name: str) -> Case:
    folder = GOLDEN / name
    return Case(name, json.loads((folder / "case.json").read_text()), load_file(folder / f"{name}.safetensors"))


class FlatMLP(nn.Module):
    """The base function of the published EXP model: five linear layers on the flattened [X, A]."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        for name, width, next_width in zip(("conv1", "conv2", "conv3", "fc1", "fc2"), widths[:-1], widths[1:], strict=True):
            self.add_module(name, nn.Linear(width, next_width))

    def forward(self, fields: dict[str, Tensor]) -> Tensor:
        hidden = torch.cat([field.flatten(2) for field in fields.values()], dim=-1)
        for name, layer in self.named_children():
            hidden = layer(hidden if name == "conv1" else hidden.relu())
        return hidden


class FlatModel(nn.Module):
    """What `LPSModel` is made of, with `FlatMLP` as base function."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        inputs = {"node_features": Representation(("n", config["d"]))}
        self.distribution = EquivariantDistribution(get_group("S_n"), "learned", inputs, temperature=config["tau"])
        self.base = FlatMLP(config["mlp_widths"])


def make_model(case: Case) -> nn.Module:
    config = case.config
    if case.name == "exp_mlp":
        return FlatModel(config)
    backbone = config["backbone"]
    backbone_config = ViTConfig(
        hidden_size=backbone["embed_dim"],
        num_hidden_layers=backbone["depth"],
        num_attention_heads=backbone["num_heads"],
        intermediate_size=4 * backbone["embed_dim"],
        image_size=backbone["img_size"],
        patch_size=backbone["patch_size"],
        layer_norm_eps=1e-6,
    )
    ((order, channels),) = config["rep_out"].items()
    inputs = None
    if config["node_num_classes"] is None:
        inputs = {"node_features": f"n {config['rep_in']['1']}", "edge_features": f"n n {config['rep_in']['2']}"}
    return LPSModel(
        LPSConfig(
            backbone_config=backbone_config,
            inputs=inputs,
            output=" ".join(["n"] * int(order) + [str(channels)]),
            max_nodes=config["rep_dim"],
            node_categories=config["node_num_classes"],
            edge_categories=config["edge_num_classes"],
            temperature=config["tau"],
            sinkhorn_iterations=config["sinkhorn_iterations"],
            entropy_loss_coef=config["entropy_loss_scale"],
            interface_config={
                "num_layers": config["interface_num_layers"],
                "hidden_size": config["interface_hidden_dim"],
                "dropout": config["interface_dropout"],
            },
            padding_mode=config["pad_mode"],
            centered_padding=config["centering"],
        )
    )


def load_published_weights(model: nn.Module, case: Case) -> None:
    own, weights = model.state_dict(), {}
    for key, tensor in case.weights.items():
        if key.startswith("input_proj.proj.") and tensor.dim() > 1:
            # A patch convolution; our weight has the tokens' width last, and that of nodes their channels before it.
            tensor = tensor.permute(1, 2, 3, 0) if tensor.dim() == 4 else tensor.permute(2, 1, 0)
        if names := our_names(key):
            for name, part in zip(names, tensor.reshape(len(names), -1), strict=True):
                weights[name] = part.reshape(own[name].shape)
    model.load_state_dict(weights)


class Batch(NamedTuple):
    """The graphs of a case, padded."""

    nodes: Tensor
    node_mask: Tensor
    edge_index: Tensor
    edge_attributes: Tensor | None
    edge_mask: Tensor
    noise: Noise


def pad_nodes(tensors: list[Tensor], num_nodes: int) -> Tensor:
    return torch.stack([F.pad(tensor, (0, 0, 0, num_nodes - tensor.shape[-2])) for tensor in tensors])


def make_batch(case: Case, variant: str, dtype: torch.dtype) -> Batch:
    sizes = case.arrays["input/num_nodes"].long()
    num_nodes = case.config["n"] if case.name == "exp_mlp" else int(sizes.max())
    edges = [index.long().T for index in case.per_graph("input/g{}/edge_index")]
    num_edges = torch.tensor([len(edge) for edge in edges])
    nodes = pad_nodes(case.per_graph("input/g{}/x"), num_nodes)
    has_attributes = "input/g0/edge_attr" in case.arrays
    noise = pad_nodes(case.per_graph(variant + "/noise/g{}"), num_nodes)
    return Batch(
        nodes=nodes.to(dtype) if nodes.is_floating_point() else nodes.long(),
        node_mask=torch.arange(num_nodes) < sizes.unsqueeze(1),
        edge_index=pad_sequence(edges, batch_first=True).mT,
        edge_attributes=pad_sequence(case.per_graph("input/g{}/edge_attr"), True).long() if has_attributes else None,
        edge_mask=torch.arange(int(num_edges.max())) < num_edges.unsqueeze(1),
        # Noise for ties is zero: the recordings were made without.
        noise={"S_n": torch.zeros(noise.shape[:-1], dtype=torch.float64), "interface": noise.to(dtype)},
    )


def molecule_output(model: LPSModel, batch: Batch) -> Tensor:
    return model(
        node_categories=batch.nodes,
        edge_index=batch.edge_index,
        edge_categories=batch.edge_attributes,
        node_mask=batch.node_mask,
        edge_mask=batch.edge_mask,
        noise=batch.noise,
    ).output


def draws(model: nn.Module, batch: Batch) -> list[DistributionSample]:
    fields: dict[str, Field] = {"node_features": batch.nodes}
    return [model.distribution(FieldBatch(fields, batch.node_mask, batch.edge_index, batch.edge_mask), batch.noise)]


def pattern_output(model: LPSModel, batch: Batch) -> Tensor:
    """PATTERN: node features are the diagonal of the edge tensor, and the nodes' labels that of the output."""
    num_graphs, num_nodes, _ = batch.nodes.shape
    diagonal = torch.arange(num_nodes).expand(num_graphs, 2, -1)
    adjacency = F.pad(batch.edge_mask.to(batch.nodes.dtype).unsqueeze(-1), (0, 3))
    entries = torch.cat([adjacency, F.pad(batch.nodes, (1, 0))], dim=1)
    edges = EdgeField(torch.cat([batch.edge_index, diagonal], dim=2), entries)
    fields: dict[str, Field] = {"node_features": torch.zeros_like(batch.nodes), "edge_features": edges}
    config = model.config
    return average_over_group(
        lambda turned: model.base(turned, batch.node_mask)[0],
        *(model.group, draws(model, batch)),
        *(fields, config.input_representations, config.output_representation, batch.node_mask),
    )[0].mean.diagonal(dim1=1, dim2=2)


def flat_output(model: FlatModel, batch: Batch) -> Tensor:
    num_graphs, num_nodes, _ = batch.nodes.shape
    graph = torch.arange(num_graphs).unsqueeze(1).expand_as(batch.edge_mask)[batch.edge_mask]
    source, target = batch.edge_index.transpose(0, 1)[:, batch.edge_mask]
    adjacency = torch.zeros(num_graphs, num_nodes, num_nodes, 1, dtype=batch.nodes.dtype)
    adjacency[graph, source, target] = 1
    return average_over_group(
        model.base,
        *(get_group("S_n"), draws(model, batch)),
        {"nodes": batch.nodes, "adjacency": adjacency},
        {"nodes": Representation.parse("n 2"), "adjacency": Representation.parse("n n 1")},
        Representation.parse("1"),
        batch.node_mask,
    )[0].mean


def published_output(case: Case, model: nn.Module, batch: Batch) -> Tensor:
    """The output in the published shape."""
    if case.name == "exp_mlp":
        return flat_output(model, batch)
    if case.name == "pattern_small":
        return pattern_output(model, batch).mT[batch.node_mask]
    output = molecule_output(model, batch)
    if output.dim() == 2:
        return output
    missing = case.config["rep_dim"] - output.shape[1]
    return F.pad(output.squeeze(-1), (0, missing, 0, missing))


def hook_modules(case: Case, model: nn.Module, seen: dict[str, Tensor]) -> None:
    """Write down what modules read and return, under the recordings' names."""

    def see_output(name):
        return lambda module, args, output: seen.update({name: output})

    model.distribution.register_forward_hook(see_output("sample"))
    model.distribution.interface.register_forward_hook(see_output("scores_raw"))
    base = model.base
    if case.name == "exp_mlp":
        base.conv1.register_forward_pre_hook(lambda module, args: seen.update(backbone_input=args[0]))
        for layer, name in (("conv1", "tokens"), ("fc1", "backbone_unpooled"), ("fc2", "output_samples")):
            base.get_submodule(layer).register_forward_hook(see_output(name))
        return
    model.register_forward_hook(see_output("model_output"))
    base.backbone.register_forward_pre_hook(lambda module, args: seen.update(tokens=args[0]))
    base.backbone.model.layernorm.register_forward_hook(see_output("normalized"))
    base.backbone.register_forward_hook(see_output("backbone"))
    base.readout.register_forward_hook(see_output("output_proj"))


class Run(NamedTuple):
    """What our modules make of a case."""

    arrays: dict[str, Tensor]
    """By the recordings' names; more than were recorded."""
    gradient_norms: dict[str, float]
    output_at_inference: Tensor


@lru_cache
def run(name: str, variant: str, dtype: torch.dtype) -> Run:
    case = load_case(name)
    model = make_model(case)
    load_published_weights(model, case)
    model.to(dtype).eval()
    batch = make_batch(case, variant, dtype)
    with torch.no_grad():
        output_at_inference = published_output(case, model, batch)

    seen: dict = {}
    hook_modules(case, model, seen)
    relax = symmetric_group.soft_permutation

    def soft_permutation(scores, *args):
        seen["scores"] = scores
        return relax(scores, *args)

    with mock.patch.object(symmetric_group, "soft_permutation", soft_permutation):
        output = published_output(case, model, batch)
    elements, entropy, *_ = seen.pop("sample")
    task_loss = (output * case.arrays["input/loss_weights"].to(dtype)).sum()
    loss = task_loss + case.config["entropy_loss_scale"] * entropy
    parameters = dict(model.named_parameters())
    wanted = [seen["scores_raw"], seen["scores"], *parameters.values()]
    with permutation_gradients(elements.rank) as found:
        torch.autograd.grad(task_loss, elements.soft.position, retain_graph=True)
    (soft_gradient,) = found
    raw_gradient, score_gradient, *gradients = torch.autograd.grad(loss, wanted)
    gradients = dict(zip(parameters, gradients, strict=True))

    if "model_output" in seen:
        reported = seen.pop("model_output")
        assert torch.equal(reported.entropy_loss, entropy)
        assert torch.equal(reported.group_elements, elements.index)
    arrays = {"output": output, "entropy": entropy, "loss": loss}
    if "normalized" in seen:
        pooled = seen["backbone"].pooler_output
        if pooled is not None:
            # Only the class token left the last block; every token was recorded, and is asked for here.
            assert seen["backbone"].last_hidden_state is None
            assert torch.equal(seen["normalized"], pooled.unsqueeze(1))
            model.base.backbone(seen["tokens"], output_hidden_states=True)
        normalized = seen["normalized"]
        arrays["backbone_pooled"], arrays["backbone_unpooled"] = normalized[:, 0] if pooled is None else pooled, normalized[:, 1:]
        assert torch.equal(seen.pop("backbone").last_hidden_state, arrays["backbone_unpooled"])
    for key in ("tokens", "backbone_unpooled", "backbone_input", "output_samples", "output_proj"):
        if key in seen:
            arrays[key] = seen[key]
    by_node = {"scores_raw": seen["scores_raw"], "scores": seen["scores"], "perm_index": elements.index}
    by_node |= {"grad/scores_raw": raw_gradient, "grad/scores": score_gradient}
    by_pair = {"perm_soft": elements.soft.matrix(elements.index), "grad/perm": soft_gradient}
    if name == "pattern_small":
        by_pair["output_proj"] = arrays.pop("output_proj").unflatten(0, elements.index.shape[:2])
    for graph, size in enumerate(case.sizes):
        arrays |= {f"{key}/g{graph}": array[graph, :, :size] for key, array in by_node.items()}
        arrays |= {f"{key}/g{graph}": array[graph, :, :size, :size] for key, array in by_pair.items()}
    norms = {}
    for key in case.weights:
        parts = [gradients[part] for part in our_names(key) if part in gradients]
        if parts:
            arrays[f"grad/param/{key}"] = torch.stack(parts) if parts[0].dim() == 0 else torch.cat(parts)
            norms[key] = float(arrays[f"grad/param/{key}"].norm())
    return Run({key: array.detach() for key, array in arrays.items()}, norms, output_at_inference)


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected entry; of indices 0 where all are equal."""
    assert found.shape == expected.shape
    if not expected.is_floating_point():
        return float((found != expected).any())
    difference = (found.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max().clamp(min=1e-30))


def tolerance_in_single_precision(key: str) -> float:
    if key.startswith("grad/"):
        return 1e-3
    # The soft matrix's logits are score differences over τ = 0.01: the rounding of the scores counts a hundredfold.
    return 1e-4 if key.startswith("perm_soft/") else 1e-5


def tolerance_in_double_precision(key: str) -> float:
    # The published entropy takes probabilities below 1e-12 for 1e-12, and nearly all are; they add up in its gradients.
    reads_entropy = key in ("entropy", "loss") or (key.startswith("grad/") and not key.startswith("grad/perm/"))
    return 1e-8 if reads_entropy else 1e-11


@pytest.mark.parametrize("name", CASES)
def test_every_published_weight_that_is_read_has_a_place(name):
    case = load_case(name)
    norms = case.facts["variants"]["k1"]["grad_norms"]
    never_read = {key for key, norm in norms.items() if norm is None}
    assert {key for key in case.weights if not our_names(key)} == never_read
    ours = [part for key in case.weights for part in our_names(key)]
    assert sorted(ours) == sorted(make_model(case).state_dict())


@pytest.mark.parametrize(("name", "variant"), EVERY_RUN)
def test_single_precision(name, variant):
    case, found = load_case(name), run(name, variant, torch.float32)
    recorded = case.recorded(variant)
    deviations = {key: deviation(found.arrays[key], array) for key, array in recorded.items()}
    assert {key: value for key, value in deviations.items() if not value <= tolerance_in_single_precision(key)} == {}
    assert deviation(found.output_at_inference, recorded["output"]) <= 1e-5
    # Of the base function's parameters the gradients' norms are recorded.
    norms = {key: norm for key, norm in case.facts["variants"][variant]["grad_norms"].items() if norm is not None}
    assert found.gradient_norms == pytest.approx(norms, rel=1e-3)


@pytest.mark.parametrize(("name", "variant"), EVERY_RUN)
def test_double_precision(name, variant):
    found = run(name, variant, torch.float64)
    recorded = load_case(name).recorded(variant, double=True)
    deviations = {key: deviation(found.arrays[key], array) for key, array in recorded.items()}
    assert {key: value for key, value in deviations.items() if not value <= tolerance_in_double_precision(key)} == {}
    assert deviation(found.output_at_inference, recorded["output"]) <= 1e-11


@pytest.mark.parametrize(("name", "variant"), EVERY_RUN)
def test_double_precision_where_only_single_was_recorded(name, variant):
    """Known of every array: its largest entry in double precision, and how far the recorded single precision is off.

    So this must be our distance from the recording: for tokens, soft matrices and the gradient that reaches them too.
    """
    case, found = load_case(name), run(name, variant, torch.float64).arrays
    single, facts = case.recorded(variant), case.facts["variants"][variant]["fp32_vs_fp64"]
    for key, fact in facts.items():
        tolerance = tolerance_in_double_precision(key)
        assert float(found[key].abs().max()) == pytest.approx(fact["scale"], rel=tolerance), key
        if key in single:
            distance = float((found[key] - single[key].double()).abs().max())
            assert distance == pytest.approx(fact["max_abs"], rel=0, abs=tolerance * fact["scale"]), key
    indices = {key for key in single if key.startswith("perm_index/")}
    assert single.keys() - facts.keys() == indices
    assert all(torch.equal(found[key], single[key].long()) for key in indices)
