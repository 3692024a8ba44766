"""The recorded numbers of the published implementation through a converted folder alone: from its checkpoint to our logits.

The recordings (`../shared/golden`, see the README there) are no part of the project: where they are not, this is skipped.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoProcessor

import lps_hf
from lps_hf.hub import save_checkpoint
from lps_hf.hub.conversion import Conversion, convert_published
from tests.hub.published_checkpoints import RUN_NAME, lightning_checkpoint

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="needs the recordings of the published implementation in ../shared/golden"
)

# Recording: the experiment, the class that loads the folder, and what no tensor tells of the small backbones.
HEADS = {"num_attention_heads": 3}
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "pattern_small": ("pattern", AutoModelForTokenClassification, HEADS),
    "peptides_small": ("peptides-func", AutoModelForSequenceClassification, HEADS),
    "pcqm_small": ("pcqm-contact", lps_hf.AutoModelForLinkPrediction, HEADS),
    "pcqm_directed": ("pcqm-contact", lps_hf.AutoModelForLinkPrediction, HEADS),
    "nbody_transformer": ("nbody-transformer", lps_hf.AutoModelForParticleDynamics, {}),
    "nbody_gnn": ("nbody-gnn", lps_hf.AutoModelForParticleDynamics, {}),
    "exp_mlp": ("exp-classify", AutoModelForSequenceClassification, {}),
}
every_case = pytest.mark.parametrize("name", CASES)


def state_dict(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("state_dict/"): array for key, array in arrays.items() if key.startswith("state_dict/")}


def convert(name: str, folder: Path) -> Conversion:
    """Convert a recording from a file as the published code writes it."""
    tensors = state_dict(load_file(GOLDEN / name / f"{name}.safetensors"))
    file = folder / "best.ckpt"
    if "backbone.backbone.cls_token" in tensors:
        lightning_checkpoint(file, tensors, RUN_NAME)
    else:
        torch.save(tensors, file)
    return convert_published(file, **CASES[name][2])


def rows_of(name: str, arrays: dict[str, Tensor]) -> list[dict[str, Any]]:
    """The recorded inputs as rows of a data set."""
    if name.startswith("nbody"):
        keys = {"positions": "loc", "velocities": "vel", "charges": "charges"}
        columns = {key: arrays[f"input/{recorded}"].tolist() for key, recorded in keys.items()}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = []
    for graph, size in enumerate(arrays["input/num_nodes"].tolist()):
        prefix = f"input/g{graph}/"
        row = {"num_nodes": size, "edge_index": arrays[f"{prefix}edge_index"], "node_feat": arrays[f"{prefix}x"]}
        row |= {"edge_attr": arrays[f"{prefix}edge_attr"]} if f"{prefix}edge_attr" in arrays else {}
        rows.append({key: value.tolist() if isinstance(value, Tensor) else value for key, value in row.items()})
    return rows


def noise_of(name: str, arrays: dict[str, Tensor], variant: str, num_nodes: int) -> dict[str, Tensor]:
    """The recorded noise; that which breaks ties was left out of the recordings."""
    if name.startswith("nbody"):
        interface = arrays[f"{variant}/noise"]
        shapes = {"E(3)": (3, 3)} | ({"S_n": (num_nodes,)} if name == "nbody_transformer" else {})
    else:
        parts = [arrays[f"{variant}/noise/g{graph}"] for graph in range(len(arrays["input/num_nodes"]))]
        interface = torch.stack([F.pad(part, (0, 0, 0, num_nodes - part.shape[-2])) for part in parts])
        shapes = {"S_n": (num_nodes,)}
    zeros = {key: torch.zeros(*interface.shape[:2], *shape, dtype=torch.float64) for key, shape in shapes.items()}
    return {**zeros, "interface": interface}


def in_published_shape(name: str, logits: Tensor, node_mask: Tensor, expected: Tensor) -> Tensor:
    if name == "pattern_small":
        return logits[node_mask]
    if name.startswith("pcqm"):  # always 53 × 53
        missing = expected.shape[1] - logits.shape[1]
        return F.pad(logits, (0, missing, 0, missing))
    return logits


@every_case
def test_the_converted_folder_alone_gives_the_recorded_outputs(name, tmp_path):
    conversion = convert(name, tmp_path)
    case, auto_class, _ = CASES[name]
    assert conversion.report.case == case
    folder = save_checkpoint(conversion.model, conversion.processor, tmp_path / "converted")
    del conversion

    model, processor = auto_class.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    arrays = load_file(GOLDEN / name / f"{name}.safetensors")
    batch = processor(rows_of(name, arrays), return_tensors="pt")
    for variant in ("k1", "k3"):
        expected = arrays[f"{variant}/output"]
        noise = noise_of(name, arrays, variant, batch["node_mask"].shape[1])
        with torch.no_grad():
            logits = model(**batch, noise=noise).logits
        found = in_published_shape(name, logits, batch["node_mask"], expected)
        assert found.shape == expected.shape
        deviation = float((found - expected).abs().max() / expected.abs().max())
        assert deviation <= 1e-5, (variant, deviation)


@every_case
def test_the_report_accounts_for_every_key(name, tmp_path):
    report = convert(name, tmp_path).report
    facts = json.loads((GOLDEN / name / "case.json").read_text())
    tensors = state_dict(load_file(GOLDEN / name / f"{name}.safetensors"))
    reported = {key.published: key for key in report.keys if key.shape is not None}
    assert reported.keys() == tensors.keys()
    assert all(reported[key].shape == tuple(tensors[key].shape) for key in tensors)
    # Dropped is what the published code never reads, and no more: it has no gradient, or one that is always zero.
    unread = {key for key, norm in facts["variants"]["k1"]["grad_norms"].items() if not norm}
    dropped = {key for key, row in reported.items() if not row.ours}
    parameters = set(facts["variants"]["k1"]["grad_norms"])
    directions = {key for key in unread if "pool" in key and reported[key].ours}  # drawn once, read, never trained
    assert dropped & parameters == unread - directions
    assert all(key.startswith(tuple(unread)) or "batchnorm" in key for key in dropped - unread)
    if name.endswith(("small", "directed")):
        others = {key.published for key in report.keys if key.shape is None}
        assert {"optimizer_states", "hyper_parameters", "callbacks", "loops", "epoch"} <= others


@every_case
def test_the_settings_are_those_of_the_recorded_run(name, tmp_path):
    config, recorded = convert(name, tmp_path).model.config, json.loads((GOLDEN / name / "case.json").read_text())["config"]
    assert config.distribution == "learned"
    assert config.noise_scale == recorded["noise_scale"]["k3"]
    assert config.temperature == recorded["tau"]
    assert config.sinkhorn_iterations == recorded["sinkhorn_iterations"]
    assert config.entropy_loss_coef == recorded["entropy_loss_scale"]
    options = config.interface_config
    if name.startswith("nbody"):
        assert config.group == {"SnxO3": "S_n x E(3)", "O3": "E(3)"}[recorded["symmetry"]]
        names = {"hidden_size": "vnn_hidden_dim", "num_neighbors": "vnn_k_nearest_neighbors", "dropout": "vnn_dropout"}
        assert {key: options[key] for key in names} == {key: recorded[theirs] for key, theirs in names.items()}
    elif name == "exp_mlp":
        assert config.max_nodes == recorded["n"]
        assert config.backbone_config.hidden_sizes == recorded["mlp_widths"][1:-1]
        assert options["hidden_size"] == recorded["interface_hidden_dim"]
    else:
        assert config.max_nodes == recorded["rep_dim"]
        assert (config.node_categories, config.edge_categories) == (recorded["node_num_classes"], recorded["edge_num_classes"])
        assert (config.centered_padding, config.padding_mode) == (recorded["centering"], recorded["pad_mode"])
        names = {"num_layers": "interface_num_layers", "hidden_size": "interface_hidden_dim"}
        assert {key: options[key] for key in names} == {key: recorded[theirs] for key, theirs in names.items()}
        assert options["dropout"] == 0.1  # the run's name, made up here, says so
