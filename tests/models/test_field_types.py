"""Values have the type that their field's annotation declares, from code, from text and from files."""

from dataclasses import fields
from typing import Any, Literal

import numpy as np
import pytest

from lps_hf.models.configuration_base_networks import BASE_NETWORK_CONFIGS
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.field_types import checked_value, field_types, value_from_file, value_from_text
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.processing_lps import LPSProcessor

WRONG = {bool: "False", int: True, float: "1e-3", str: 3, list: "3", dict: ["a"]}
CONFIGS = {"lps": LPSConfig, **BASE_NETWORK_CONFIGS}


def wrong_value(annotation: Any) -> Any:
    """A value that is not of the type, but that Python would take for one."""
    text = str(annotation)
    kind = next(kind for kind in (list, dict, bool, int, float, str) if kind.__name__ in text)
    return WRONG[kind]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, config in CONFIGS.items() for name in config.__annotations__ if name != "model_type"],
)
def test_every_field_of_every_configuration_refuses_another_type(kind, name):
    config = CONFIGS[kind]
    value = wrong_value(config.__annotations__[name])
    with pytest.raises(TypeError, match=f"^{name}: expected .*got {type(value).__name__} "):
        config(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_labels", "3"), ("num_labels", True), ("id2label", ["a"]), ("output_hidden_states", "False"), ("return_dict", "no")],
)
def test_so_do_the_fields_that_come_from_transformers(name, value):
    with pytest.raises(TypeError, match=f"^{name}: expected "):
        LPSConfig(**{name: value})


def test_a_value_that_is_set_later_is_checked_when_a_model_is_made():
    config = LPSConfig()
    config.centered_padding = "False"
    with pytest.raises(TypeError, match="centered_padding: expected a bool, got str 'False'"):
        LPSModel(config)


def test_options_of_the_interface_and_of_the_backbone_have_types_too():
    with pytest.raises(TypeError, match=r"interface_config\['hidden_size'\]: expected an int, got str '8'"):
        LPSConfig(interface_config={"hidden_size": "8"})
    with pytest.raises(TypeError, match=r"interface_config\['dropout'\]: expected a number, got bool True"):
        LPSConfig(interface_config={"dropout": True})
    with pytest.raises(TypeError, match=r"backbone_config: .*'hidden_size'.*expected int, got str"):
        LPSConfig(backbone_config={"model_type": "vit", "hidden_size": "32"})
    with pytest.raises(ValueError, match="backbone_config: expected a model_type of transformers, such as 'vit', or 'lps_mlp'"):
        LPSConfig(backbone_config={"model_type": "nope"})


@pytest.mark.parametrize(
    ("name", "value"), [("max_nodes", "64"), ("num_labels", True), ("node_categories", "3"), ("dimension", 2.5)]
)
def test_arguments_of_the_processor_have_types_too(name, value):
    with pytest.raises(TypeError, match=f"^{name}: expected .*got {type(value).__name__} "):
        LPSProcessor(**{name: value})


def test_numbers_of_numpy_become_those_of_python():
    config = LPSConfig(
        max_nodes=np.int64(5),
        noise_scale=np.float32(0.5),
        centered_padding=np.bool_(True),
        node_categories=np.array([3, 2]),
        edge_categories=(4,),
        interface_config={"hidden_size": np.int64(8)},
        num_labels=np.int64(3),
    )
    assert (config.max_nodes, config.noise_scale, config.centered_padding) == (5, 0.5, True)
    assert (config.node_categories, config.edge_categories, config.interface_config["hidden_size"]) == ([3, 2], [4], 8)
    kinds = [type(getattr(config, name)) for name in ("max_nodes", "noise_scale", "centered_padding", "node_categories")]
    assert kinds == [int, float, bool, list]
    assert LPSConfig(**{**config.to_dict(), "transformers_version": None}).to_json_string()


def test_the_defaults_have_their_declared_types():
    for config in CONFIGS.values():
        made, types = config(), field_types(config)
        for field in fields(config):
            value = getattr(made, field.name)
            assert checked_value(field.name, value, types[field.name]) == value


READ = {
    bool: {"False": False, "no": False, "0": False, "true": True, "YES": True},
    int: {"3": 3, "-1": -1},
    float: {"1e-3": 1e-3, "2": 2.0},
    str: {"S_n": "S_n", "none": "none", "3": "3", '"n 3"': "n 3"},
    int | None: {"None": None, "null": None, "4": 4},
    float | None: {"none": None, "0.5": 0.5},
    int | Literal["auto"]: {"auto": "auto", "12": 12},
    list[int] | None: {"[3, 2]": [3, 2], "3,2": [3, 2], "3 2": [3, 2], "3": [3], "null": None},
    list[float]: {"[1, 0.5]": [1, 0.5], "1e-1": [0.1]},
    dict[str, str]: {'{"positions": "n p"}': {"positions": "n p"}, "{'positions': 'n p'}": {"positions": "n p"}},
    Any: {"[1]": [1], "word": "word"},
}


@pytest.mark.parametrize(("annotation", "text"), [(kind, text) for kind, texts in READ.items() for text in texts])
def test_text_is_read_by_the_declared_type(annotation, text):
    value, expected = value_from_text("field", text, annotation), READ[annotation][text]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (bool, "maybe"),
        (int, "3.5"),
        (int, "True"),
        (int, "None"),
        (float, "half"),
        (list[int], "[true]"),
        (dict, "n p"),
        (dict, "["),
    ],
)
def test_text_of_another_type_is_refused(annotation, text):
    with pytest.raises(TypeError, match="^field: expected .*, got the text "):
        value_from_text("field", text, annotation)


def test_a_file_may_write_numbers_as_text_but_texts_stay_texts():
    assert value_from_file("learning_rate", "1e-3", float) == 1e-3
    assert value_from_file("max_nodes", "None", int | None) is None
    assert value_from_file("report_to", "none", None | str | list[str]) == "none"
    with pytest.raises(TypeError, match="max_nodes: expected an int or None, got float 3.5"):
        value_from_file("max_nodes", 3.5, int | None)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_nodes": 2**63},
        {"num_samples": 10**30},
        {"noise_scale": 10**400},
        {"entropy_loss_coef": 10**400},
        {"interface_config": {"hidden_size": 10**30}},
    ],
)
def test_whole_numbers_that_no_tensor_holds_are_refused(fields):
    name = next(iter(fields))
    with pytest.raises(TypeError, match=f"^{name}.*: expected an? (int|number) of at most 64 bits, got int 1?9?"):
        LPSConfig(**fields)


def test_a_variance_larger_than_any_number_is_refused():
    with pytest.raises(ValueError, match=r"^variance_prior: expected finite numbers"):
        LPSConfig(variance_prior={"variance": [10**400], "degrees_of_freedom": 3})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id2label": {5: "a", 7: "b"}}, r"^id2label: expected every number from 0 to 1 once, got 5, 7\."),
        ({"id2label": {"x": "a"}}, r"^id2label: expected every number from 0 to 0 once, got x\."),
        ({"label2id": {"a": 1}}, r"^label2id: expected every number from 0 to 0 once, got 1\."),
        ({"label2id": {"a": 0, "b": 0}}, r"^label2id: expected every number from 0 to 1 once, got 0, 0\."),
    ],
)
def test_names_of_classes_leave_out_no_number(fields, message):
    with pytest.raises(ValueError, match=message):
        LPSConfig(**fields)
    names = {str(number): f"class {number}" for number in range(11)}  # as JSON writes them
    assert LPSConfig(id2label=names, num_labels=None).num_labels == 11
