"""A configuration is checked when it is made, and survives JSON."""

import json

import pytest
from transformers import AutoConfig, BertConfig, ViTConfig

from lps_hf.models.configuration_lps import PADDING_MODES, LPSConfig
from lps_hf.models.group import DISTRIBUTIONS
from lps_hf.models.groups import get_group
from lps_hf.models.interfaces import interface_class
from tests.models.graph_cases import tiny_config


def test_defaults():
    config = LPSConfig()
    assert config.backbone_config.model_type == "vit"
    assert (config.group, config.distribution) == ("S_n", "learned")
    assert config.interface_config == {"num_layers": 3, "hidden_size": 64, "dropout": 0.0}
    assert config.inputs == {"node_features": "n 1", "edge_features": "n n 1"}
    assert str(config.output_representation) == "2"
    assert (config.num_samples, config.num_eval_samples) == (1, 10)


def test_channels_are_counted_from_the_categories():
    config = LPSConfig(node_categories=[119, 5, 12], edge_categories=[5, 6, 2], num_labels=10)
    assert config.inputs == {"node_features": "n 136", "edge_features": "n n 14"}
    assert {name: x.num_channels for name, x in config.input_representations.items()} == {
        "node_features": 136,
        "edge_features": 14,
    }
    assert str(config.output_representation) == "10"
    assert str(LPSConfig(output="n n 1").output_representation) == "n n 1"


def test_a_given_interface_keeps_the_other_defaults():
    given = {"hidden_size": 8}
    assert LPSConfig(interface_config=given).interface_config == {"num_layers": 3, "hidden_size": 8, "dropout": 0.0}
    assert given == {"hidden_size": 8}


GROUPS = {
    "S_n": ({"node_features": "n 1", "edge_features": "n n 1"}, 0.01),
    "O(3)": ({"positions": "n p"}, 0.1),
    "S_n x E(3)": ({"positions": "n p"}, 0.1),
    "C_4": ({"pixel_values": "3 h w"}, 1.0),
}


@pytest.mark.parametrize("name", GROUPS)
def test_inputs_temperature_and_interface_follow_the_group(name):
    inputs, temperature = GROUPS[name]
    group = get_group(name)
    config = LPSConfig(group=name)
    assert config.inputs == inputs
    assert config.temperature == temperature
    assert config.interface_config == interface_class(group).options
    assert LPSConfig(group=name, temperature=0.3).temperature == 0.3


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_json_round_trip(distribution, mode, tmp_path):
    config = tiny_config(
        distribution=distribution,
        padding_mode=mode,
        centered_padding=True,
        noise_scale=0.5,
        temperature=0.1,
        grid_size=5,
        patch_dropout=0.25,
        problem_type="multi_label_classification",
        label2id={"a": 0, "b": 1, "c": 2},
        id2label={0: "a", 1: "b", 2: "c"},
    )
    config.save_pretrained(tmp_path)
    again = LPSConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.backbone_config, ViTConfig)
    assert again.backbone_config.hidden_size == 8
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["distribution"], stored["padding_mode"], stored["max_nodes"]) == (distribution, mode, 8)


def test_a_backbone_may_be_a_dict_of_any_family():
    config = LPSConfig(backbone_config={"model_type": "bert", "hidden_size": 24})
    assert isinstance(config.backbone_config, BertConfig)
    assert config.backbone_config.hidden_size == 24
    backbone = AutoConfig.for_model("vit", hidden_size=24)
    assert LPSConfig(backbone_config=backbone).backbone_config is backbone


def test_what_transformers_adds_is_accepted():
    config = LPSConfig(id2label={0: "x"}, name_or_path="somewhere", problem_type="regression", attn_implementation="eager")
    assert config.num_labels == 1
    assert config.problem_type == "regression"


def test_two_configurations_share_nothing():
    first, second = LPSConfig(), LPSConfig()
    first.interface_config["hidden_size"] = 5
    first.inputs["node_features"] = "n 7"
    assert second.interface_config["hidden_size"] == LPSConfig().interface_config["hidden_size"] == 64
    assert second.inputs["node_features"] == "n 1"


VALUE_ERRORS = {
    "unknown key": ({"nonsense": 1}, r"LPSConfig: unknown key 'nonsense'.*max_nodes"),
    "unknown interface key": (
        {"interface_config": {"width": 3}},
        r"interface_config: unknown key 'width'.*num_layers",
    ),
    "backbone without a type": (
        {"backbone_config": {"hidden_size": 3}},
        r"backbone_config: expected a 'model_type' key",
    ),
    "distribution": ({"distribution": "uniform"}, r"distribution: expected one of 'learned'.*got 'uniform'"),
    "padding mode": ({"padding_mode": "mirror"}, r"padding_mode: expected one of 'zero'.*got 'mirror'"),
    "max_nodes": ({"max_nodes": 0}, r"max_nodes: expected at least 1, got 0"),
    "num_samples": ({"num_samples": 0}, r"num_samples: expected at least 1, got 0"),
    "num_eval_samples": ({"num_eval_samples": -1}, r"num_eval_samples: expected at least 1, got -1"),
    "sinkhorn_iterations": ({"sinkhorn_iterations": -1}, r"sinkhorn_iterations: expected at least 0, got -1"),
    "noise_scale": ({"noise_scale": -0.1}, r"noise_scale: expected a number of at least 0, got -0.1"),
    "noise_scale not a number": (
        {"noise_scale": float("nan")},
        r"noise_scale: expected a number of at least 0, got nan",
    ),
    "entropy_loss_coef": ({"entropy_loss_coef": -1}, r"entropy_loss_coef: expected a number of at least 0, got -1"),
    "patch_dropout": ({"patch_dropout": 1.0}, r"patch_dropout: expected a number of at least 0 and below 1, got 1.0"),
    "patch_dropout negative": ({"patch_dropout": -0.5}, r"patch_dropout: .* got -0.5"),
    "temperature": ({"temperature": 0.0}, r"temperature: expected a positive number, got 0.0"),
    "temperature not a number": ({"temperature": float("nan")}, r"temperature: expected a positive number, got nan"),
    "no node categories": ({"node_categories": []}, r"node_categories: expected a list of positive category counts"),
    "empty category": ({"node_categories": [3, 0]}, r"node_categories: expected a list .*got \[3, 0\]"),
    "group": ({"group": "O(n)"}, r"group: expected one of 'S_n', .*got 'O\(n\)'"),
    "input axis": (
        {"inputs": {"node_features": "n v"}},
        r"inputs\['node_features'\] 'n v': the group S_n does not act on",
    ),
    "input nonsense": ({"inputs": {"node_features": "n q"}}, r"axis string 'n q': unknown axis 'q'"),
    "output axis": ({"output": "n p"}, r"output 'n p': the group S_n does not act on axis 'p'"),
    "output nonsense": ({"output": "n x"}, r"axis string 'n x': unknown axis 'x'"),
    "channels of nodes": (
        {"inputs": {"node_features": "n 4", "edge_features": "n n 3"}, "node_categories": [3, 2]},
        r"inputs\['node_features'\]: expected 5 channels for the categories \[3, 2\], got 4",
    ),
    "channels of edges": (
        {"inputs": {"node_features": "n 5", "edge_features": "n n 2"}, "edge_categories": [2]},
        r"inputs\['edge_features'\]: expected 3 channels for the categories \[2\], got 2",
    ),
    "learned without nodes": (
        {"inputs": {"edge_features": "n n 1"}},
        r"inputs: the learned distribution of S_n reads 'node_features', got only \['edge_features'\]",
    ),
    "canonical without nodes": (
        {"inputs": {"edge_features": "n n 1"}, "distribution": "canonical"},
        r"inputs: the canonical distribution of S_n reads 'node_features'",
    ),
    "prior_loss_coef": ({"prior_loss_coef": -1}, r"prior_loss_coef: expected a number of at least 0, got -1"),
    "translations without points": (
        {"group": "S_n x E(3)", "inputs": {"velocities": "n v"}},
        r"inputs: the group S_n x E\(3\) moves points, so expected a point axis such as positions 'n p'",
    ),
    "positions of a group that turns vectors only": (
        {"group": "O(3)", "inputs": {"node_features": "n 1"}},
        r"inputs: the group O\(3\) acts on axes 'v' \(vector\), 'p' \(point\), so expected an input with one, as 'n v' has",
    ),
    "frame without vectors": (
        {"group": "O(3)", "inputs": {"node_features": "n 1"}, "distribution": "frame"},
        r"inputs: the group O\(3\) acts on axes 'v' \(vector\)",
    ),
    "turns without images": (
        {"group": "C_4", "inputs": {"node_features": "n 1"}},
        r"inputs: the group C_4 acts on axes 'h' \(image height\), .* as '3 h w' has, got node_features 'n 1'",
    ),
    "charges of vectors": (
        {"group": "S_n x E(3)", "inputs": {"positions": "n p", "charges": "n v"}},
        r"inputs\['charges'\]: expected 'n c' with a number of channels c, got 'n v'",
    ),
    "residual that is no input": (
        {"group": "S_n x E(3)", "output": "n p", "residual": "velocities"},
        r"residual: expected an input with the axes of the output 'n p', got 'velocities' with inputs",
    ),
    "residual of other axes": (
        {"group": "S_n x E(3)", "output": "n v", "residual": "positions"},
        r"residual: expected an input with the axes of the output 'n v', got 'positions'",
    ),
    "mean without deviation": ({"label_mean": [0.0, 0.0]}, r"label_std: expected 2 finite numbers, one per label, got None"),
    "mean of other labels": (
        {"label_mean": [0.0], "label_std": [1.0]},
        r"label_mean: expected 2 finite numbers, one per label, got \[0.0\]",
    ),
    "deviation of zero": (
        {"label_mean": [0.0, 0.0], "label_std": [1.0, 0.0]},
        r"label_std: expected positive numbers, got \[1.0, 0.0\]",
    ),
    "mean of classes": (
        {"label_mean": [0.0, 0.0], "label_std": [1.0, 1.0], "problem_type": "single_label_classification"},
        r"label_mean: expected problem_type='regression', got 'single_label_classification'",
    ),
}


@pytest.mark.parametrize("name", VALUE_ERRORS)
def test_wrong_values_are_refused(name):
    options, message = VALUE_ERRORS[name]
    with pytest.raises(ValueError, match=message):
        LPSConfig(**options)


@pytest.mark.parametrize("name", ["max_nodes", "num_samples", "num_eval_samples", "sinkhorn_iterations"])
@pytest.mark.parametrize("value", [2.0, True, "3", None])
def test_counts_are_whole_numbers(name, value):
    with pytest.raises(TypeError, match=f"{name}: expected an int.* got {type(value).__name__}"):
        LPSConfig(**{name: value})


def test_an_output_is_a_string():
    with pytest.raises(TypeError, match="output: expected a str or None, got int 3"):
        LPSConfig(output=3)


@pytest.mark.parametrize("distribution", ["haar", "frame", "none"])
def test_only_what_is_learned_reads_nodes(distribution):
    assert LPSConfig(inputs={"edge_features": "n n 1"}, distribution=distribution).inputs == {"edge_features": "n n 1"}


CANNOT_WORK = {
    "unknown field": ({"inputs": {"node_features": "n 1", "pixels": "n 3"}}, "inputs"),
    "edges with one node axis": ({"inputs": {"node_features": "n 1", "edge_features": "n 1"}}, "inputs"),
    "nodes with two node axes": ({"inputs": {"node_features": "n n 1"}}, "inputs"),
    "nodes without channels": ({"inputs": {"node_features": "n n"}}, "inputs"),
    "edges without channels": ({"inputs": {"node_features": "n 1", "edge_features": "n n n"}}, "inputs"),
    "grid of truth": ({"grid_size": True}, "grid_size"),
    "inputs in a list": ({"inputs": ["n 1"]}, "inputs"),
    "categories in no list": ({"node_categories": 3}, "node_categories"),
    "categories of text": ({"node_categories": ["3"]}, "node_categories"),
    "backbone of text": ({"backbone_config": "vit"}, "backbone_config"),
    "interface without layers": ({"interface_config": {"num_layers": 0}}, "interface_config"),
    "interface without width": ({"interface_config": {"hidden_size": 0}}, "interface_config"),
    "interface dropout": ({"interface_config": {"dropout": 1.5}}, "interface_config"),
    "infinite noise": ({"noise_scale": float("inf")}, "noise_scale"),
    "infinite temperature": ({"temperature": float("inf")}, "temperature"),
    "grid": ({"grid_size": 0}, "grid_size"),
    "problem type": ({"problem_type": "clustering"}, "problem_type"),
    "no labels": ({"num_labels": 0}, "num_labels"),
}


@pytest.mark.parametrize("name", CANNOT_WORK)
def test_what_cannot_work_is_refused_by_name(name):
    options, argument = CANNOT_WORK[name]
    with pytest.raises((ValueError, TypeError), match=argument):
        LPSConfig(**options)


@pytest.fixture
def folder(tmp_path):
    LPSConfig(node_categories=[3], num_labels=2).save_pretrained(tmp_path)
    return tmp_path


OVERRIDES = {
    "padding mode": ({"padding_mode": "refelct"}, "padding_mode"),
    "temperature": ({"temperature": -1.0}, "temperature"),
    "samples": ({"num_eval_samples": 0}, "num_eval_samples"),
    "nodes": ({"max_nodes": -1}, "max_nodes"),
    "interface": ({"interface_config": {"hiden": 3}}, "interface_config"),
    "distribution": ({"distribution": "bogus"}, "distribution"),
    "misspelt": ({"num_sample": 4}, "num_sample"),
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_values_given_while_loading_are_checked_too(folder, name):
    options, argument = OVERRIDES[name]
    with pytest.raises((ValueError, TypeError), match=argument):
        LPSConfig.from_pretrained(folder, **options)


def test_values_given_while_loading_replace_those_in_the_file(folder):
    config = LPSConfig.from_pretrained(folder, node_categories=[2, 2], num_eval_samples=7, num_labels=5)
    assert config.inputs["node_features"] == "n 4"
    assert (config.num_eval_samples, config.num_labels, config.temperature) == (7, 5, 0.01)
    config, unused = LPSConfig.from_pretrained(folder, num_samples=3, foo=1, return_unused_kwargs=True)
    assert (config.num_samples, unused) == (3, {"foo": 1})


@pytest.mark.parametrize("output", ["n n n 1", "2 n", "n n"])
def test_outputs_without_a_readout_are_refused(output):
    with pytest.raises(ValueError, match="output: expected 'c', 'n c', 'n n c', 'n v' or 'n p' with a number of channels c, got"):
        LPSConfig(output=output)


def test_no_input_is_refused():
    with pytest.raises(ValueError, match="inputs: expected at least one field"):
        LPSConfig(inputs={}, distribution="haar")


def test_inputs_are_in_the_same_order_before_and_after_json(tmp_path):
    given = {"pair_features": "n n 2", "velocities": "n v", "charges": "n 1", "positions": "n p"}
    config = LPSConfig(group="S_n x E(3)", inputs=given)
    assert list(config.inputs) == ["positions", "velocities", "charges", "pair_features"]
    config.save_pretrained(tmp_path)
    assert list(LPSConfig.from_pretrained(tmp_path).inputs) == list(config.inputs)
    assert list(LPSConfig().inputs) == ["node_features", "edge_features"]


def test_another_group_brings_its_own_defaults(tmp_path):
    LPSConfig(group="S_n x E(3)", interface_config={"num_neighbors": 7}).save_pretrained(tmp_path)
    config = LPSConfig.from_pretrained(tmp_path, group="C_4")
    assert config.inputs == {"pixel_values": "3 h w"}
    assert config.temperature == 1.0
    assert "num_neighbors" not in config.interface_config
    assert LPSConfig.from_pretrained(tmp_path, distribution="haar").interface_config["num_neighbors"] == 7
