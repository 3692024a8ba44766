"""The published n-body numbers through the model class: its weights, its noise, and every array that was recorded.

The recordings (`../shared/golden`, see the README there) are no part of the project: where they are not, this is skipped.
"""

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lps_hf.hub.conversion import Conversion, convert_published
from lps_hf.hub.published_names import PAIR_TRANSFORMER_COLUMNS
from lps_hf.models import symmetric_group
from lps_hf.models.modeling_heads_lps import LPSForParticleDynamics
from lps_hf.models.soft_permutations import SoftPermutation
from tests.models.graph_cases import permutation_gradients

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
if not GOLDEN.is_dir():
    pytest.skip("needs the recordings of the published implementation in ../shared/golden", allow_module_level=True)

EVERY_RUN = [(case, variant) for case in ("nbody_transformer", "nbody_gnn") for variant in ("k1", "k3")]
every_run = pytest.mark.parametrize(("name", "variant"), EVERY_RUN)

TOKENS = {"nbody_transformer": "projection", "nbody_gnn": "embedding"}
# Without S_n the published network still scores the nodes, and nothing reads the scores.
NEVER_READ = {"nbody_transformer": set(), "nbody_gnn": {"scores_raw", "scores", "perm_index", "perm_soft"}}


class Case(NamedTuple):
    """What was recorded in one folder."""

    name: str
    facts: dict
    arrays: dict[str, Tensor]

    def below(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): array for key, array in self.arrays.items() if key.startswith(prefix)}

    def recorded(self, variant: str, double: bool = False) -> dict[str, Tensor]:
        """Every result of a variant, gradients (`grad/…`) included."""
        arrays = self.below(f"{variant}/fp64/" if double else f"{variant}/")
        unwanted = NEVER_READ[self.name] | {"noise"}
        return {key: array for key, array in arrays.items() if key not in unwanted and not key.startswith("fp64/")}


@lru_cache
def load_case(name: str) -> Case:
    folder = GOLDEN / name
    return Case(name, json.loads((folder / "case.json").read_text()), load_file(folder / f"{name}.safetensors"))


@lru_cache
def convert(name: str) -> Conversion:
    return convert_published(GOLDEN / name / f"{name}.safetensors")


def our_names(name: str) -> dict[str, tuple[str, ...]]:
    """The tensors that each published one is cut into."""
    return {key.published: key.ours for key in convert(name).report.keys if key.shape is not None}


def make_model(case: Case) -> LPSForParticleDynamics:
    return copy.deepcopy(convert(case.name).model)


def make_inputs(case: Case, variant: str, dtype: torch.dtype) -> dict[str, Any]:
    arrays = case.arrays
    noise = {"interface": arrays[f"{variant}/noise"]}
    num_systems, num_samples, num_nodes = noise["interface"].shape[:3]
    factors = {"E(3)": (3, 3)} | ({"S_n": (num_nodes,)} if case.name == "nbody_transformer" else {})
    # The recordings were made without noise that breaks ties.
    noise |= {name: torch.zeros(num_systems, num_samples, *shape, dtype=torch.float64) for name, shape in factors.items()}
    return {
        "positions": arrays["input/loc"].to(dtype),
        "velocities": arrays["input/vel"].to(dtype),
        "charges": arrays["input/charges"].to(dtype).unsqueeze(-1),
        "noise": noise,
    }


def watch(case: Case, model: LPSForParticleDynamics, seen: dict[str, Any]) -> None:
    """Write down what modules read and return, under the recordings' names."""
    lps = model.lps
    network = lps.base.backbone

    def see_fields(module: Any, args: tuple) -> None:
        positions, velocities, pairs = args[0].values()
        seen["node_features_transformed"] = torch.stack([positions, velocities], dim=-1)
        seen["edge_features_transformed"] = pairs

    def see_result(module: Any, args: tuple, result: tuple) -> None:
        output, (hidden,) = result
        seen["backbone_output"], seen["backbone_unpooled"] = output.flatten(0, 1), hidden.flatten(0, 1)

    def see_tokens(module: Any, args: tuple, tokens: Tensor) -> None:
        seen["tokens"] = tokens.flatten(2, -2).flatten(0, 1)

    lps.distribution.register_forward_hook(lambda module, args, sample: seen.update(elements=sample.elements))
    lps.distribution.interface.register_forward_hook(
        lambda module, args, result: seen.update(scores_raw=result[0], frame_raw=result[1])
    )
    network.register_forward_pre_hook(see_fields)
    network.register_forward_hook(see_result)
    network.get_submodule(TOKENS[case.name]).register_forward_hook(see_tokens)


class Run(NamedTuple):
    """What our model makes of a case."""

    arrays: dict[str, Tensor]
    """By the recordings' names."""
    gradient_norms: dict[str, float]
    output_at_inference: Tensor
    output_of_elements: Tensor
    """With the same group elements given instead of noise."""


def published_gradient(key: str, ours: tuple[str, ...], gradients: dict[str, Tensor]) -> Tensor:
    """The gradient of a published tensor, put together from those of ours."""
    gradient = torch.cat([gradients[name] for name in ours])
    return gradient[:, torch.tensor(PAIR_TRANSFORMER_COLUMNS).argsort()] if key == "backbone.input.0.weight" else gradient


@lru_cache
def run(name: str, variant: str, dtype: torch.dtype) -> Run:
    case = load_case(name)
    model, inputs = make_model(case).to(dtype), make_inputs(case, variant, dtype)
    with torch.no_grad():
        at_inference = model(**inputs)
        given = {key: value for key, value in inputs.items() if key != "noise"}
        of_elements = model(**given, group_elements=at_inference.group_elements).logits

    seen: dict[str, Any] = {}
    watch(case, model, seen)
    relax = symmetric_group.soft_permutation

    def soft_permutation(scores: Tensor, index: Tensor, *args: Any) -> SoftPermutation:
        soft = relax(scores, index, *args)
        seen["scores"], seen["perm_soft"] = scores, soft.matrix(index)
        return soft

    with mock.patch.object(symmetric_group, "soft_permutation", soft_permutation):
        result = model(**inputs)
    arrays = {key: array for key, array in seen.items() if isinstance(array, Tensor)}
    task_loss = (result.logits * case.arrays["input/loss_weights"].to(dtype)).sum()
    entropy = torch.zeros((), dtype=dtype) if result.entropy_loss is None else result.entropy_loss
    arrays |= {"output": result.logits, "entropy": entropy}
    arrays["loss"] = task_loss + model.config.entropy_loss_coef * entropy

    motion = seen["elements"]
    if name == "nbody_transformer":
        permutation, motion = motion.factors
        arrays |= {"perm_index": permutation.index}
        with permutation_gradients(permutation.rank) as found:
            torch.autograd.grad(task_loss, permutation.soft.position, retain_graph=True)
        (arrays["grad/perm"],) = found
    arrays["rotation"] = motion.matrix
    parameters = dict(model.named_parameters())
    sources = {key: seen[key] for key in ("scores_raw", "frame_raw") if seen[key] is not None} | {"rotation": motion.matrix}
    gradients = torch.autograd.grad(arrays["loss"], [*sources.values(), *parameters.values()])
    arrays |= {f"grad/{key}": gradient for key, gradient in zip(sources, gradients, strict=False)}
    by_name = dict(zip(parameters, gradients[len(sources) :], strict=True))
    norms = {}
    for key, ours in our_names(name).items():
        if ours and all(part in by_name for part in ours):
            arrays[f"grad/param/{key}"] = published_gradient(key, ours, by_name)
            norms[key] = float(arrays[f"grad/param/{key}"].norm())
    arrays = {key: array.detach() for key, array in arrays.items()}
    return Run(arrays, norms, at_inference.logits, of_elements)


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected entry; of indices 0 where all are equal."""
    assert found.shape == expected.shape
    if not expected.is_floating_point():
        return float((found != expected).any())
    difference = (found.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max().clamp(min=1e-30))


def deviations(case: Case, found: Run, recorded: dict[str, Tensor]) -> dict[str, float]:
    expected = dict(recorded)
    if case.name == "nbody_transformer" and "backbone_unpooled" in expected:
        # Our last block updates the tokens on the diagonal only, which are all that is read.
        expected["backbone_unpooled"] = expected["backbone_unpooled"][:, :: 5 + 1]
    return {key: deviation(found.arrays[key], array) for key, array in expected.items()}


@every_run
def test_single_precision(name, variant):
    case, found = load_case(name), run(name, variant, torch.float32)
    recorded = case.recorded(variant)
    off = deviations(case, found, recorded)
    assert {key: value for key, value in off.items() if not value <= tolerance_in_single_precision(key)} == {}
    assert deviation(found.output_at_inference, recorded["output"]) <= 1e-5
    # Of the base function's parameters the gradients' norms are recorded.
    norms = {key: norm for key, norm in case.facts["variants"][variant]["grad_norms"].items() if norm is not None}
    assert found.gradient_norms == pytest.approx(norms, rel=1e-3)


def tolerance_in_single_precision(key: str) -> float:
    if key.startswith("grad/"):
        return 1e-3
    # The soft matrix's logits are score differences over τ = 0.1: the rounding of the scores counts tenfold.
    return 1e-4 if key == "perm_soft" else 1e-5


@every_run
def test_double_precision(name, variant):
    case, found = load_case(name), run(name, variant, torch.float64)
    recorded = case.recorded(variant, double=True)
    off = deviations(case, found, recorded)
    assert {key: value for key, value in off.items() if not value <= 1e-11} == {}
    for output in (found.output_at_inference, found.output_of_elements):
        assert deviation(output, recorded["output"]) <= 1e-11


@every_run
def test_double_precision_where_only_single_was_recorded(name, variant):
    """Known of every array: its largest entry in double precision, and how far the recorded single precision is off.

    So this must be our distance from the recording: for tokens, soft matrices and turned inputs too.
    """
    case, found = load_case(name), run(name, variant, torch.float64).arrays
    single, facts = case.recorded(variant), case.facts["variants"][variant]["fp32_vs_fp64"]
    # Of the transformer's last block we have a part only, see `deviations`.
    not_ours = NEVER_READ[name] | ({"backbone_unpooled"} if name == "nbody_transformer" else set())
    for key in facts.keys() - not_ours:
        scale = facts[key]["scale"]
        assert float(found[key].abs().max()) == pytest.approx(scale, rel=1e-11), key
        distance = float((found[key] - single[key].double()).abs().max())
        assert distance == pytest.approx(facts[key]["max_abs"], rel=0, abs=1e-11 * scale), key
    assert single.keys() - facts.keys() <= {"perm_index"}
