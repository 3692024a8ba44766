"""The numbers of the published implementation: its weights in our modules, its noise, and every array it recorded.

The recordings (`../shared/golden`, see the README there) are no part of the project: where they are not, this is
skipped. The models are converted from the recorded weights by `lps_hf.hub.conversion`.
"""

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from lps_hf.hub.conversion import Conversion, convert_published
from lps_hf.models import symmetric_group
from lps_hf.models.distributions import Noise
from lps_hf.models.modeling_lps import LPSModel
from tests.models.graph_cases import permutation_gradients

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
if not GOLDEN.is_dir():
    pytest.skip("needs the recordings of the published implementation in ../shared/golden", allow_module_level=True)

CASES = ("peptides_small", "pcqm_small", "pcqm_directed", "pattern_small", "exp_mlp")
EVERY_RUN = [(case, variant) for case in CASES for variant in ("k1", "k3")]


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


@lru_cache
def convert(name: str) -> Conversion:
    heads = {} if name == "exp_mlp" else {"num_attention_heads": load_case(name).config["backbone"]["num_heads"]}
    return convert_published(GOLDEN / name / f"{name}.safetensors", **heads)


def our_names(name: str) -> dict[str, tuple[str, ...]]:
    """The tensors of `LPSModel` that each published one becomes; none where the published forward pass never reads it."""
    keys = (key for key in convert(name).report.keys if key.shape is not None)
    return {key.published: tuple(ours.removeprefix("lps.") for ours in key.ours) for key in keys}


def make_model(case: Case, dtype: torch.dtype) -> LPSModel:
    model = copy.deepcopy(convert(case.name).model.lps).to(dtype)
    if case.name == "pattern_small":
        # The sum of two biases, which conversion rounds to single precision.
        biases = [case.arrays[f"state_dict/input_proj.proj.{i}.proj.bias"].to(dtype) for i in (0, 1)]
        model.base.projections["edge_features"].bias.data.copy_(biases[0] + biases[1])
    return model.eval()


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
    num_nodes = int(sizes.max())
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


def model_output(model: LPSModel, batch: Batch) -> Tensor:
    key = "node_features" if batch.nodes.is_floating_point() else "node_categories"
    return model(
        **{key: batch.nodes},
        edge_index=batch.edge_index,
        edge_categories=batch.edge_attributes,
        node_mask=batch.node_mask,
        edge_mask=batch.edge_mask,
        noise=batch.noise,
    ).output


def published_output(case: Case, model: LPSModel, batch: Batch) -> Tensor:
    """The output in the published shape."""
    output = model_output(model, batch)
    if case.name == "pattern_small":
        return output.diagonal(dim1=1, dim2=2).mT[batch.node_mask]
    if output.dim() == 2:
        return output
    missing = case.config["rep_dim"] - output.shape[1]
    return F.pad(output.squeeze(-1), (0, missing, 0, missing))


def hook_modules(case: Case, model: LPSModel, seen: dict[str, Tensor]) -> None:
    """Write down what modules read and return, under the recordings' names."""

    def see_output(name):
        return lambda module, args, output: seen.update({name: output})

    model.distribution.register_forward_hook(see_output("sample"))
    model.distribution.interface.register_forward_hook(see_output("scores_raw"))
    model.register_forward_hook(see_output("model_output"))
    base = model.base
    if case.name == "exp_mlp":
        layers = base.backbone.layers
        layers[0].register_forward_pre_hook(lambda module, args: seen.update(backbone_input=args[0]))
        for layer, name in ((0, "tokens"), (3, "backbone_unpooled"), (4, "output_samples")):
            layers[layer].register_forward_hook(see_output(name))
        return
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
    model = make_model(case, dtype)
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
    for key, ours in our_names(name).items():
        parts = [gradients[part] for part in ours if part in gradients]
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


@pytest.mark.parametrize(("name", "variant"), EVERY_RUN)
def test_single_precision(name, variant):
    case, found = load_case(name), run(name, variant, torch.float32)
    recorded = case.recorded(variant)
    deviations = {key: deviation(found.arrays[key], array) for key, array in recorded.items()}
    assert {key: value for key, value in deviations.items() if not value <= tolerance_in_single_precision(key)} == {}
    assert deviation(found.output_at_inference, recorded["output"]) <= 1e-5
    # Of the base function's parameters the gradients' norms are recorded.
    norms = {key: norm for key, norm in case.facts["variants"][variant]["grad_norms"].items() if norm}
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
