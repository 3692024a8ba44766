"""Rows of particles, molecules and point clouds: what they become, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import (
    PARTICLE_DEFAULTS,
    LPSForGraphClassification,
    LPSForParticleDynamics,
    LPSForPointCloudClassification,
)
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import tiny_vit

NAN = float("nan")
DROP = object()
PARTICLE_INPUTS = {**PARTICLE_DEFAULTS["inputs"], "charges": "n 1"}
THREE = {
    "positions": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [-1.0, 0.5, 2.5]],
    "velocities": [[0.1, 0.2, 0.3], [0.0, -0.5, 1.0], [1.0, 1.0, 1.0]],
    "charges": [1.0, -1.0, 1.0],
    "target_positions": [[0.5, 1.5, 2.5], [3.0, 3.0, 3.0], [0.0, 0.0, 1.0]],
}
TWO = {key: values[:2] for key, values in THREE.items()}


def config(**options):
    defaults = {"backbone_config": tiny_vit(), "group": "S_n x E(3)", "max_nodes": 4, "num_eval_samples": 1}
    return LPSConfig(**{**defaults, **options})


def particles(**options):
    return LPSProcessor(
        **{"inputs": PARTICLE_INPUTS, "output": "n p", "dimension": 3, "max_nodes": 4, "num_labels": 2, **options}
    )


def changed(row, **changes):
    return {key: value for key, value in {**copy.deepcopy(row), **changes}.items() if value is not DROP}


def refusal(kind, processor, rows):
    with pytest.raises(kind) as caught:
        processor(rows)
    assert type(caught.value) is kind
    return str(caught.value)


def test_particles_become_padded_tensors_of_the_documented_shapes():
    batch = particles()([THREE, TWO])
    assert {key: (array.shape, array.dtype.name) for key, array in batch.items()} == {
        "positions": ((2, 3, 3), "float32"),
        "velocities": ((2, 3, 3), "float32"),
        "charges": ((2, 3, 1), "float32"),
        "node_mask": ((2, 3), "bool"),
        "labels": ((2, 3, 3), "float32"),
    }
    for key, name in (("positions", "positions"), ("velocities", "velocities"), ("labels", "target_positions")):
        np.testing.assert_array_equal(batch[key][0], np.float32(THREE[name]))
        np.testing.assert_array_equal(batch[key][1, :2], np.float32(TWO[name]))
    np.testing.assert_array_equal(batch["charges"][..., 0], [[1, -1, 1], [1, -1, 0]])
    np.testing.assert_array_equal(batch["node_mask"], [[True, True, True], [True, True, False]])
    assert not batch["positions"][1, 2].any()
    assert not batch["velocities"][1, 2].any()
    assert np.isnan(batch["labels"][1, 2]).all()


def test_charges_may_be_numbers_or_lists_of_one():
    expected = particles()([THREE])["charges"]
    for charges in ([[1.0], [-1.0], [1.0]], [1, -1, 1], torch.tensor([1.0, -1.0, 1.0])):
        np.testing.assert_array_equal(particles()([changed(THREE, charges=charges)])["charges"], expected)


def test_the_number_of_nodes_may_be_given_and_has_to_be_right():
    np.testing.assert_array_equal(particles()([changed(THREE, num_nodes=3)])["positions"], particles()([THREE])["positions"])
    message = refusal(ValueError, particles(), [THREE, changed(THREE, num_nodes=2)])
    assert message == ("row 1: positions: expected shape (2, 3), 2 nodes as num_nodes says with 3 numbers each, got (3, 3).")


@pytest.mark.parametrize("dataset_format", [None, "numpy", "torch"])
def test_rows_columns_and_one_row_make_the_same_batch(dataset_format):
    dataset = Dataset.from_list([THREE, changed(THREE, charges=[2.0, 0.0, 1.0])]).with_format(dataset_format)
    expected = particles()([dataset[0], dataset[1]])
    for rows in (dataset, dataset[:]):
        batch = particles()(rows)
        for key in expected:
            np.testing.assert_array_equal(batch[key], expected[key])
    np.testing.assert_array_equal(particles()(dataset[0])["positions"], expected["positions"][:1])
    columns = {key: [THREE[key], TWO[key]] for key in THREE}
    np.testing.assert_array_equal(particles()(columns)["labels"], particles()([THREE, TWO])["labels"])


def test_padding_to_a_multiple_leaves_the_loss_unchanged():
    model = LPSForParticleDynamics(config(**{**PARTICLE_DEFAULTS, "inputs": PARTICLE_INPUTS}, distribution="frame")).eval()
    processor = LPSProcessor.from_config(model.config)
    tight, padded = (processor([THREE, TWO], return_tensors="pt", pad_to_multiple_of=multiple) for multiple in (None, 8))
    assert padded["positions"].shape == padded["labels"].shape == (2, 8, 3)
    noise = model.lps.draw_noise(model.lps.encode(**{key: padded[key] for key in padded if key != "labels"}), 1)
    cut = {name: part[:, :, :3] for name, part in noise.items()}
    with torch.no_grad():
        loss, expected = model(**padded, noise=noise).loss, model(**tight, noise=cut).loss
    assert expected.isfinite()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


def test_a_missing_target_is_nan_and_rows_without_any_have_no_labels():
    targets = [[0.5, None, 2.5], [NAN, 3.0, 3.0], [0.0, 0.0, 1.0]]
    labels = particles()([changed(THREE, target_positions=targets)])["labels"]
    np.testing.assert_array_equal(labels, np.float32([[[0.5, NAN, 2.5], [NAN, 3.0, 3.0], [0.0, 0.0, 1.0]]]))
    assert "labels" not in particles()([changed(THREE, target_positions=DROP), changed(TWO, target_positions=None)])
    labels = particles()([THREE, changed(TWO, target_positions=None)])["labels"]
    assert not np.isnan(labels[0]).any()
    assert np.isnan(labels[1]).all()
    message = refusal(ValueError, particles(), [THREE, changed(TWO, target_positions=DROP)])
    assert (
        message
        == "row 1: expected a label 'target_positions' as the other rows have, got none. None stands for one that is not known."
    )


CONFIGS = {
    "particles": (LPSForParticleDynamics, {**PARTICLE_DEFAULTS, "distribution": "learned"}, {"charges"}, ()),
    "particles that predict vectors": (
        LPSForParticleDynamics,
        {"inputs": {"positions": "n p", "velocities": "n v"}, "output": "n v"},
        set(),
        ("charges",),
    ),
    "point cloud": (
        LPSForPointCloudClassification,
        {"group": "S_n x SO(3)", "num_labels": 3, "problem_type": "single_label_classification"},
        set(),
        ("velocities", "charges"),
    ),
    "molecule": (
        LPSForGraphClassification,
        {"num_labels": 1, "node_categories": [4, 2], "distribution": "frame", "max_nodes": 3},
        {"node_categories"},
        ("velocities", "charges"),
    ),
    "molecule with real features and bonds": (
        LPSForGraphClassification,
        {
            "num_labels": 1,
            "inputs": {"positions": "n p", "node_features": "n 2", "edge_features": "n n 3"},
            "edge_categories": [2],
        },
        {"node_features", "edge_index", "edge_mask", "edge_categories"},
        ("velocities", "charges"),
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_from_config_makes_the_processor_that_fits_the_model(name):
    head, options, keys, unread = CONFIGS[name]
    model = head(config(**options)).eval()
    processor = LPSProcessor.from_config(model.config)
    row = changed(THREE, **dict.fromkeys(unread, DROP), node_feat=[[1, 0], [3, 1], [0, 0]])
    row |= {"edge_index": [[0, 1, 1, 2], [1, 0, 2, 1]], "edge_attr": [[0], [0], [1], [1]]} if "edge_index" in keys else {}
    row = changed(row, target_positions=DROP, y=[1]) if head is not LPSForParticleDynamics else row
    row = changed(row, node_feat=row["node_feat"] if keys & {"node_categories", "node_features"} else DROP)
    read = {key for key in ("positions", "velocities") if key in model.config.inputs}
    batch = processor([row, row], return_tensors="pt")
    assert set(batch) == {"node_mask", "labels"} | read | keys
    assert set(processor.model_input_names) == set(batch) - {"labels"}
    outputs = model(**batch)
    assert outputs.loss.isfinite()
    if head is LPSForParticleDynamics:
        assert torch.equal(batch["labels"], torch.tensor([row["target_positions"]] * 2))


def test_positions_of_nodes_make_their_own_frame():
    assert LPSProcessor.from_config(config(distribution="exact", num_labels=1)).frame is None
    with pytest.raises(ValueError, match="frame: expected None for the inputs positions, got 'laplacian'"):
        LPSProcessor(inputs={"positions": "n p"}, frame="laplacian")
    with pytest.raises(ValueError, match="add_frame: expected a processor of graphs, got one of positions"):
        LPSProcessor(inputs={"positions": "n p"}).add_frame(THREE)


def test_the_dimension_is_the_group_s():
    processor = LPSProcessor.from_config(config(group="S_n x E(2)", inputs={"positions": "n p"}, output="n p"))
    flat = [[0.0, 1.0], [2.0, 3.0]]
    batch = processor([{"positions": flat, "target_positions": flat}])
    assert batch["positions"].shape == batch["labels"].shape == (1, 2, 2)
    message = refusal(ValueError, processor, [{"positions": THREE["positions"]}])
    assert message == "row 0: positions: expected shape (3, 2), 3 nodes as positions says with 2 numbers each, got (3, 3)."


@pytest.mark.parametrize("channels", [1, 2])
def test_pair_features_are_made_of_positions_and_charges(channels):
    processor = LPSProcessor.from_config(
        config(group="S_n x O(3)", inputs={"pair_features": f"n n {channels}", "velocities": "n v"}, output="n v")
    )
    assert processor.model_input_names == ["node_mask", "positions", *["charges"] * (channels == 2), "velocities"]
    row = changed(THREE, charges=THREE["charges"] if channels == 2 else DROP)
    assert set(processor([row])) == {*processor.model_input_names, "labels"}


def test_a_saved_processor_is_equal_to_the_one_loaded(tmp_path):
    processor = LPSProcessor.from_config(config(**PARTICLE_DEFAULTS))
    processor.save_pretrained(tmp_path)
    again = LPSProcessor.from_pretrained(tmp_path)
    assert vars(again) == vars(processor)
    for key, array in processor([THREE, TWO]).items():
        np.testing.assert_array_equal(again([THREE, TWO])[key], array)


FINITE = "expected finite float32 numbers, got NaN, infinity or larger ones."
BAD_ROWS = {
    "no particles": ({"positions": []}, ValueError, "positions: expected at least 1 node, got 0."),
    "positions of nothing": ({"positions": 1.0}, ValueError, "positions: expected at least 1 node, got 0."),
    "too many": (
        {"positions": [[0.0] * 3] * 5},
        ValueError,
        "positions: expected at most max_nodes=4 nodes, got 5. Leave the graph out, or build the model with a larger max_nodes.",
    ),
    "NaN": ({"positions": [[NAN, 0, 0], [0, 0, 0], [1, 1, 1]]}, ValueError, f"positions: {FINITE}"),
    "infinity": ({"velocities": [[0, 0, 0], [0, float("inf"), 0], [1, 1, 1]]}, ValueError, f"velocities: {FINITE}"),
    "beyond float32": ({"charges": [1.0, 1e300, 1.0]}, ValueError, f"charges: {FINITE}"),
    "missing number": (
        {"positions": [[None, 0, 0], [0, 0, 0], [1, 1, 1]]},
        TypeError,
        "positions: expected numbers, got None.",
    ),
    "text": ({"positions": [["0", "1", "2"]] * 3}, TypeError, "positions: expected numbers, got <U1."),
    "two coordinates": (
        {"positions": [[0.0, 1.0]] * 3},
        ValueError,
        "positions: expected shape (3, 3), 3 nodes as positions says with 3 numbers each, got (3, 2).",
    ),
    "one list": (
        {"positions": [0.0, 1.0, 2.0]},
        ValueError,
        "positions: expected shape (3, 3), 3 nodes as positions says with 3 numbers each, got (3,).",
    ),
    "ragged": (
        {"velocities": [[0.0, 1.0, 2.0], [0.0, 1.0], [0.0]]},
        ValueError,
        "velocities: expected lists of equal length, got ragged ones.",
    ),
    "velocities of others": (
        {"velocities": [[0.0] * 3] * 2},
        ValueError,
        "velocities: expected shape (3, 3), 3 nodes as positions says with 3 numbers each, got (2, 3).",
    ),
    "charges of others": (
        {"charges": [1.0, 1.0]},
        ValueError,
        "charges: expected shape (3, 1), 3 nodes as positions says with 1 number each, got (2, 1).",
    ),
    "two charges": (
        {"charges": [[1.0, 1.0]] * 3},
        ValueError,
        "charges: expected shape (3, 1), 3 nodes as positions says with 1 number each, got (3, 2).",
    ),
    "no velocities": (
        {"velocities": DROP},
        ValueError,
        "expected the key 'velocities', got only ['charges', 'positions', 'target_positions'].",
    ),
    "targets of others": (
        {"target_positions": [[0.0] * 3] * 2},
        ValueError,
        "target_positions: expected shape (3, 3), as positions, got (2, 3).",
    ),
    "infinite target": (
        {"target_positions": [[float("inf")] * 3] * 3},
        ValueError,
        "target_positions: expected finite float32 numbers, or NaN for missing, got infinity or larger ones.",
    ),
    "targets in words": ({"target_positions": [["a"] * 3] * 3}, TypeError, "target_positions: expected numbers, got <U1."),
    "ragged targets": (
        {"target_positions": [[0.0] * 3, [0.0], None]},
        ValueError,
        "target_positions: expected lists of equal length, got ragged ones.",
    ),
    "features that are not read": (
        {"node_feat": [[1, 0], [3, 1], [0, 0]]},
        ValueError,
        "node_feat: this model reads no such features. Remove the column, or build the model with node_categories.",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_an_impossible_row_is_refused(name):
    changes, kind, message = BAD_ROWS[name]
    assert refusal(kind, particles(), [TWO, changed(THREE, **changes)]) == f"row 1: {message}"


def test_a_row_that_is_no_dictionary_is_refused():
    message = refusal(TypeError, particles(), [THREE["positions"]])
    assert message.startswith("row 0: expected a dictionary with 'positions' and 'charges' and 'velocities', got list. Tables, ")


def test_bonds_between_atoms_that_are_not_there_are_refused():
    processor = LPSProcessor(inputs={"positions": "n p", "edge_features": "n n 1"}, num_labels=1)
    row = {"positions": THREE["positions"], "edge_index": [[0, 3], [1, 0]]}
    message = refusal(ValueError, processor, [row])
    assert message == "row 0: edge_index: expected node numbers 0 to 2 (num_nodes is 3), got 0 to 3."
    message = refusal(ValueError, processor, [changed(row, edge_index=DROP)])
    assert message == "row 0: expected the key 'edge_index', got only ['positions']."


def test_contradicting_arguments_are_refused():
    with pytest.raises(ValueError, match="num_node_channels, num_edge_channels: expected None beside inputs"):
        LPSProcessor(inputs={"positions": "n p"}, num_node_channels=3)
    with pytest.raises(ValueError, match="frame: expected one of 'laplacian', 'canonical_labelling' or None, got 'spectral'"):
        LPSProcessor(frame="spectral")
