"""Finite numbers that overflow are refused with row and key; what is taken neither overflows nor spoils statistics."""

import copy
import re
from itertools import product

import numpy as np
import pytest
import torch
from transformers import ViTConfig

from lps_hf import symmetrize
from lps_hf.models.configuration_base_networks import (
    GINIDBaseConfig,
    MLPBaseConfig,
    PairTransformerBaseConfig,
    ParticleGNNBaseConfig,
)
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.interface_networks import MaskedBatchNorm
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.models.row_checks import LARGEST, LARGEST_FACTOR

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
BACKBONES = {
    "vit": ViTConfig(**SIZES, intermediate_size=8, image_size=4, patch_size=2),
    "mlp": MLPBaseConfig(hidden_sizes=[8]),
    "gin_id": GINIDBaseConfig(hidden_size=8, num_layers=2),
    "pairs": PairTransformerBaseConfig(**SIZES, intermediate_size=8),
    "gnn": ParticleGNNBaseConfig(hidden_size=8, num_hidden_layers=2),
}
GRAPHS = {"inputs": {"node_features": "n 2", "edge_features": "n n 2"}}
POINTS = {"group": "S_n x E(3)", "inputs": {"positions": "n p", "velocities": "n v", "charges": "n 1", "edge_features": "n n 2"}}
SYSTEMS = {
    "group": "S_n x E(3)",
    "inputs": {"positions": "n p", "charges": "n 1", "pair_features": "n n 2", "edge_features": "n n 2"},
}
CASES = {"graphs": GRAPHS, "points": POINTS, "systems": SYSTEMS}
# Row key, batch key.
FIELDS = {
    "node_feat": "node_features",
    "edge_attr": "edge_features",
    "positions": "positions",
    "velocities": "velocities",
    "charges": "charges",
}
EVERY_FIELD = [(case, row_key) for case, row_key in product(CASES, FIELDS) if FIELDS[row_key] in CASES[case]["inputs"]]


def make_model(case: str, backbone: str = "gin_id", **options) -> LPSForGraphClassification:
    torch.manual_seed(0)
    fields = {**CASES[case], "interface_config": {"hidden_size": 8}, "max_nodes": 4, "num_labels": 1, **options}
    return LPSForGraphClassification(LPSConfig(backbone_config=BACKBONES[backbone], problem_type="regression", **fields))


def make_rows(model: LPSForGraphClassification) -> list[dict]:
    rng = np.random.default_rng(0)
    widths = {"node_feat": 2, "positions": 3, "velocities": 3, "charges": 1}
    return [
        {
            "edge_index": np.array([[0, 1, 2], [1, 2, 3]]),
            "num_nodes": 4,
            "edge_attr": rng.uniform(-1, 1, (3, 2)),
            **{key: rng.uniform(-1, 1, (4, width)) for key, width in widths.items() if FIELDS[key] in model.config.inputs},
            "y": [0.5],
        }
        for _ in range(3)
    ]


def limit_of(case: str, row_key: str) -> float:
    return LARGEST_FACTOR if case == "systems" and row_key in ("positions", "charges") else LARGEST


@pytest.mark.parametrize(("case", "row_key"), EVERY_FIELD)
def test_what_overflows_is_refused_with_row_and_key(case, row_key):
    model, limit = make_model(case), limit_of(case, row_key)
    processor, rows = LPSProcessor.from_config(model.config), make_rows(model)
    shown = re.escape(f"{limit:g}")
    for size in (2 * limit, 1e20, 2.0**64, 1e38):
        bad = copy.deepcopy(rows)
        bad[1][row_key][2, 0] = -size
        with pytest.raises(ValueError, match=rf"^row 1: {row_key}: expected numbers of at most {shown} in size, got "):
            processor(bad)
        batch = processor(rows, return_tensors="pt")
        batch[FIELDS[row_key]][1, 2, 0] = -size
        with pytest.raises(ValueError, match=rf"^{FIELDS[row_key]}: row 1: expected numbers of at most {shown} in size, got "):
            model(**batch)


@pytest.mark.parametrize(("case", "backbone"), [(case, name) for case in CASES for name in BACKBONES if name != "gin_id"])
@pytest.mark.parametrize("scale", [1.0, 1e-38])
def test_what_is_taken_overflows_nowhere(case, backbone, scale):
    model = make_model(case, backbone)
    processor = LPSProcessor.from_config(model.config)
    rows = make_rows(model)
    for row in rows:
        for key in set(row) & set(FIELDS):
            row[key] = np.sign(row[key]) * limit_of(case, key) if scale == 1.0 else row[key] * scale
    batch = processor(rows, return_tensors="pt")
    for module in (model.train(), model.eval()):
        output = module(**batch)
        assert output.logits.isfinite().all()
        assert output.loss.isfinite()
        output.loss.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_a_network_that_multiplies_its_inputs_takes_smaller_ones():
    model, rows = make_model("graphs", "gin_id"), make_rows(make_model("graphs"))
    processor = LPSProcessor.from_config(model.config)
    for row in rows:
        row["node_feat"], row["edge_attr"] = np.sign(row["node_feat"]) * 1e6, np.sign(row["edge_attr"]) * 1e9
    for module in (model.train(), model.eval()):
        assert module(**processor(rows, return_tensors="pt")).logits.isfinite().all()
    rows[1]["edge_attr"] = rows[1]["edge_attr"] * 1e3
    with pytest.raises(
        ValueError, match="fields with two node axes: row 1: expected numbers of at most 1e[+]09 in size, got 1e[+]12"
    ):
        model(**processor(rows, return_tensors="pt"))


def test_labels_that_overflow_are_refused():
    model = make_model("graphs")
    rows = make_rows(model)
    rows[2]["y"] = [1e20]
    with pytest.raises(ValueError, match="row 2: y: expected numbers of at most 1e[+]15 in size, got 1e[+]20"):
        LPSProcessor.from_config(model.config)(rows)


def test_numbers_on_padding_do_not_count():
    model = make_model("graphs").eval()
    rows = make_rows(model)
    rows[0] |= {
        "num_nodes": 3,
        "node_feat": rows[0]["node_feat"][:3],
        "edge_index": [[0], [1]],
        "edge_attr": rows[0]["edge_attr"][:1],
    }
    batch = LPSProcessor.from_config(model.config)(rows, return_tensors="pt")
    batch["node_features"][0, 3], batch["edge_features"][0, 1:] = 1e30, torch.nan
    assert model(**batch).logits.isfinite().all()


def test_a_module_refuses_them_too():
    module = symmetrize(torch.nn.Linear(3, 3), "SO(3)", "v", "v")
    with pytest.raises(ValueError, match=r"^input: row 1: expected numbers of at most 1e[+]15 in size, got 1e[+]20"):
        module(torch.tensor([[1.0, 2.0, 3.0], [1e20, 0.0, 0.0]]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e25])
def test_statistics_outlive_a_batch_that_overflows(value):
    norm, mask = MaskedBatchNorm(3), torch.ones(2, 4, dtype=torch.bool)
    hidden = torch.randn(2, 4, 1, 3)
    norm(hidden, mask)
    before = copy.deepcopy(norm.state_dict())
    hidden[1, 2, 0, 1] = value
    norm(hidden, mask)
    assert torch.equal(norm.running_mean, before["running_mean"])
    assert torch.equal(norm.running_var, before["running_var"])
