"""The processor makes the model's batch from rows, and says what is wrong with a row that it refuses."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import Dataset

from lps_hf.models import processing_lps
from lps_hf.models.frames import laplacian_frame_ranks
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.models.row_batches import Padding
from tests.models.processing_cases import (
    DROP,
    LONELY,
    MULTI,
    NAN,
    PATH,
    REAL_EDGES,
    REAL_NODES,
    REGRESSION,
    SINGLE,
    assert_same_batch,
    categorical,
    changed,
    refusal,
)
from tests.tiny import EDGE_CATEGORIES, MAX_NODES, NODE_CATEGORIES, random_rows, tiny_classifier, tiny_config

# --------------------------------------------------------------------------------------------------------------- batches


def test_a_batch_has_the_documented_keys_shapes_types_and_padding():
    batch = categorical()([PATH, LONELY])
    assert set(batch) == {"edge_index", "node_mask", "edge_mask", "node_categories", "edge_categories", "labels"}
    assert {key: (array.shape, array.dtype.name) for key, array in batch.items()} == {
        "edge_index": ((2, 2, 4), "int64"),
        "node_mask": ((2, 3), "bool"),
        "edge_mask": ((2, 4), "bool"),
        "node_categories": ((2, 3, 2), "int64"),
        "edge_categories": ((2, 4, 1), "int64"),
        "labels": ((2,), "int64"),
    }
    np.testing.assert_array_equal(batch["edge_index"][0], PATH["edge_index"])
    np.testing.assert_array_equal(batch["node_categories"][0], PATH["node_feat"])
    np.testing.assert_array_equal(batch["edge_categories"][0], PATH["edge_attr"])
    np.testing.assert_array_equal(batch["node_categories"][1], [[2, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(batch["node_mask"], [[True, True, True], [True, False, False]])
    np.testing.assert_array_equal(batch["edge_mask"], [[True] * 4, [False] * 4])
    np.testing.assert_array_equal(batch["edge_index"][1], 0)
    np.testing.assert_array_equal(batch["labels"], [2, 0])


def test_the_batch_keys_are_the_model_input_names():
    for processor in (categorical(), categorical(frame=True), LPSProcessor(num_node_channels=2, num_edge_channels=3)):
        real = not processor.node_categories
        row = changed(PATH, node_feat=[[0.5, 1.0]] * 3, edge_attr=[[0] * 3] * 4) if real else PATH
        batch = processor([changed(row, y=DROP)])
        assert set(batch) == set(processor.model_input_names)


def test_tensors_are_contiguous_and_hold_what_the_arrays_hold():
    arrays, tensors = (categorical()([PATH, LONELY], return_tensors=kind) for kind in ("np", "pt"))
    assert_same_batch(arrays, categorical()([PATH, LONELY]))
    assert arrays.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert isinstance(tensor, torch.Tensor)
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy(), arrays[key])


def test_one_row_is_a_batch_of_one():
    for row in (PATH, LONELY, changed(PATH, num_nodes=DROP), changed(LONELY, num_nodes=DROP)):
        assert_same_batch(categorical()(row), categorical()([row]))


@pytest.mark.parametrize("dataset_format", [None, "numpy", "torch"])
def test_rows_and_columns_of_a_data_set_make_the_same_batch(dataset_format):
    rows = random_rows(5)
    expected = categorical()(rows)
    dataset = Dataset.from_list(rows).with_format(dataset_format)
    assert_same_batch(categorical()(dataset[:]), expected)
    assert_same_batch(categorical()([dataset[i] for i in range(5)]), expected)
    assert_same_batch(categorical()(dataset), expected)
    assert_same_batch(categorical()(dataset[0]), categorical()([rows[0]]))


def test_columns_without_num_nodes_are_told_from_one_row():
    rows = [changed(row, num_nodes=DROP) for row in (PATH, LONELY, PATH)]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    expected = categorical()([PATH, LONELY, PATH])
    assert_same_batch(categorical()(columns), expected)
    arrays = {**columns, "edge_index": [np.array(edges, dtype=np.int64).reshape(2, -1) for edges in columns["edge_index"]]}
    assert_same_batch(categorical()(arrays), expected)


def test_the_number_of_nodes_is_that_of_the_node_features_where_it_is_not_given():
    for without in (DROP, None):
        batch = categorical()([changed(PATH, num_nodes=without), changed(LONELY, num_nodes=without)])
        assert_same_batch(batch, categorical()([PATH, LONELY]))


@pytest.mark.parametrize("num_nodes", [np.int32(3), torch.tensor(3), 3.0])
def test_a_whole_number_of_nodes_may_come_in_any_type(num_nodes):
    assert_same_batch(categorical()(changed(PATH, num_nodes=num_nodes)), categorical()(PATH))


def test_other_columns_and_the_caller_s_rows_are_left_alone():
    row = changed(PATH, smiles="CCO", id=None)
    before = copy.deepcopy(row)
    assert_same_batch(categorical()([row]), categorical()([PATH]))
    assert row == before


@pytest.mark.parametrize(("multiple", "nodes", "edges"), [(1, 3, 4), (2, 4, 4), (8, 8, 8), (16, 16, 16)])
def test_padding_to_a_multiple_keeps_the_content(multiple, nodes, edges):
    processor = categorical()
    batch, tight = processor([PATH, LONELY], pad_to_multiple_of=multiple), processor([PATH, LONELY])
    assert batch["node_categories"].shape[1] == batch["node_mask"].shape[1] == nodes
    assert batch["edge_index"].shape[2] == batch["edge_categories"].shape[1] == batch["edge_mask"].shape[1] == edges
    assert batch["node_mask"].sum() == 4
    assert batch["edge_mask"].sum() == 4
    np.testing.assert_array_equal(batch["node_categories"][:, :3], tight["node_categories"])
    np.testing.assert_array_equal(batch["edge_index"][..., :4], tight["edge_index"])
    for key, mask in (("node_categories", "node_mask"), ("edge_categories", "edge_mask")):
        np.testing.assert_array_equal(batch[key][~batch[mask]], 0)


@pytest.mark.parametrize(("power", "nodes", "edges"), [(2, 4, 4), (3, 3, 9), (10, 10, 10), (1.25, 3, 4)])
def test_padding_to_a_power_keeps_the_content(power, nodes, edges):
    processor = categorical()
    batch, tight = processor([PATH, LONELY], pad_to_power_of=power), processor([PATH, LONELY])
    assert batch["node_categories"].shape[1] == batch["node_mask"].shape[1] == nodes
    assert batch["edge_index"].shape[2] == batch["edge_categories"].shape[1] == batch["edge_mask"].shape[1] == edges
    np.testing.assert_array_equal(batch["node_categories"][:, :3], tight["node_categories"])
    np.testing.assert_array_equal(batch["edge_index"][..., :4], tight["edge_index"])
    for key, mask in (("node_categories", "node_mask"), ("edge_categories", "edge_mask")):
        np.testing.assert_array_equal(batch[key][~batch[mask]], 0)
    # Nothing to pad stays nothing.
    assert processor([LONELY], pad_to_power_of=power)["edge_index"].shape == (1, 2, 0)


def test_powers_leave_few_lengths():
    lengths = {power: {Padding(power_of=power).length(longest) for longest in range(1, 1001)} for power in (2, 1.25)}
    assert lengths[2] == {2**exponent for exponent in range(11)}
    assert len(lengths[1.25]) == 29  # powers up to 1.25 ** 31 = 1009.7; some of the first ones round up to the same number
    for power, few in lengths.items():
        for longest in range(1, 1001):
            padded = Padding(power_of=power).length(longest)
            assert longest <= padded == min(length for length in few if length >= longest)
            assert padded <= power * longest + 1


def test_padding_beyond_max_nodes_does_not_change_the_logits():
    model, processor = tiny_classifier(), categorical()
    tight = processor([PATH, LONELY], return_tensors="pt")
    padded = processor([PATH, LONELY], return_tensors="pt", pad_to_multiple_of=3 * MAX_NODES)
    noise = model.lps.draw_noise(model.lps.encode(**{key: padded[key] for key in padded if key != "labels"}), 3)
    with torch.no_grad():
        expected = model(**tight, noise={name: part[:, :, :3] for name, part in noise.items()}).logits
        torch.testing.assert_close(model(**padded, noise=noise).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("edge_index", [[], [[], []], np.zeros((2, 0)), np.zeros((2, 0), dtype=np.int64)])
def test_a_graph_without_edges_is_a_graph(edge_index):
    row = changed(LONELY, edge_index=edge_index)
    batch = categorical()([row, row], return_tensors="pt")
    assert batch["edge_index"].shape == (2, 2, 0)
    assert batch["edge_categories"].shape == (2, 0, 1)
    assert tiny_classifier()(**batch).logits.isfinite().all()
    assert_same_batch(categorical()([PATH, row]), categorical()([PATH, LONELY]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frame": True, "problem_type": None},
        {"node_categories": None, "num_node_channels": 4, "edge_categories": None, "num_edge_channels": 2},
    ],
)
def test_a_saved_processor_is_equal_to_the_one_loaded(tmp_path, options):
    processor = categorical(**options)
    processor.save_pretrained(tmp_path)
    again = LPSProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert vars(again) == vars(processor)
    assert [path.name for path in tmp_path.iterdir()] == ["processor_config.json"]


def test_a_saved_processor_is_loaded_by_its_auto_class(tmp_path):
    from transformers import AutoProcessor

    categorical().save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is LPSProcessor
    assert_same_batch(again([PATH, LONELY]), categorical()([PATH, LONELY]))


# ----------------------------------------------------------------------------------------------------------- from_config

CONFIGS = {
    "categories": ({}, PATH, {"node_categories", "edge_categories"}),
    "node categories alone": ({"edge_categories": None}, changed(PATH, edge_attr=DROP), {"node_categories"}),
    "edge categories alone": ({"node_categories": None}, changed(PATH, node_feat=DROP), {"edge_categories"}),
    "plain graph": (
        {"node_categories": None, "edge_categories": None},
        changed(PATH, node_feat=DROP, edge_attr=DROP),
        set(),
    ),
    "plain graph, one constant on every node": (
        {"node_categories": None, "edge_categories": None},
        changed(PATH, node_feat=[[0]] * 3, edge_attr=None),
        set(),
    ),
    "real features": (
        {"node_categories": None, "edge_categories": None, "inputs": {"node_features": "n 3", "edge_features": "n n 2"}},
        changed(PATH, node_feat=REAL_NODES, edge_attr=REAL_EDGES),
        {"node_features", "edge_features"},
    ),
    "one real feature": (
        {"node_categories": None, "edge_categories": None, "inputs": {"node_features": "n 1", "edge_features": "n n 1"}},
        changed(PATH, node_feat=[[0.5], [0.25], [-1.0]], edge_attr=[[0.1], [0.2], [0.3], [0.4]]),
        {"node_features", "edge_features"},
    ),
    "one real feature, the same on all nodes": (
        {"node_categories": None, "edge_categories": None},
        changed(PATH, node_feat=[[0.5]] * 3, edge_attr=DROP),
        {"node_features"},
    ),
    "categories and real features": (
        {"edge_categories": None, "inputs": {"node_features": "n 5", "edge_features": "n n 2"}},
        changed(PATH, edge_attr=REAL_EDGES),
        {"node_categories", "edge_features"},
    ),
    "edges alone": (
        {"node_categories": None, "edge_categories": None, "inputs": {"edge_features": "n n 1"}, "distribution": "haar"},
        changed(PATH, node_feat=DROP, edge_attr=DROP),
        set(),
    ),
    "nodes alone": (
        {"node_categories": None, "edge_categories": None, "inputs": {"node_features": "n 3"}, "distribution": "frame"},
        changed(PATH, node_feat=REAL_NODES, edge_attr=DROP),
        {"node_features", "frame_ranks"},
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_from_config_makes_the_processor_that_fits_the_model(name):
    options, row, features = CONFIGS[name]
    model = tiny_classifier(**options)
    processor = LPSProcessor.from_config(model.config)
    with pytest.warns(UserWarning, match="does not see edges") if name == "nodes alone" else nullcontext():
        batch = processor([row, row], return_tensors="pt")
    assert set(batch) == {"edge_index", "node_mask", "edge_mask", "labels"} | features
    for key, source in (("node_features", "node_feat"), ("edge_features", "edge_attr")):
        if key in features:
            assert batch[key].dtype == torch.float32
            torch.testing.assert_close(batch[key][1], torch.tensor(row[source]))
    outputs = model(**batch)
    assert outputs.logits.shape == (2, 3)
    assert outputs.loss.isfinite()


def test_one_real_feature_reaches_the_model():
    plain = {"node_categories": None, "edge_categories": None}
    model = tiny_classifier(**plain)
    processor = LPSProcessor.from_config(model.config)
    row = changed(PATH, node_feat=[[0.5], [0.25], [-1.0]], edge_attr=DROP)
    rows = [row, changed(row, node_feat=[[2.0], [0.25], [-1.0]])]
    elements = torch.arange(3).expand(2, 1, 3)
    logits = model(**processor(rows, return_tensors="pt"), group_elements=elements).logits
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)


def test_a_graph_without_edges_stands_beside_graphs_with_one_real_edge_feature():
    processor = LPSProcessor(num_node_channels=1, num_edge_channels=1, num_labels=3)
    row = changed(PATH, node_feat=DROP, edge_attr=[[0.1], [0.2], [0.3], [0.4]])
    for edge_attr in ([], DROP):
        batch = processor([changed(LONELY, node_feat=DROP, edge_attr=edge_attr), row])
        assert batch["edge_features"].shape == (2, 4, 1)
        np.testing.assert_array_equal(batch["edge_features"][0], 0)


@pytest.mark.parametrize("channels", [{"edge_categories": [3, 2]}, {"num_edge_channels": 2}], ids=str)
def test_a_graph_without_edges_may_leave_their_features_out(channels):
    processor = LPSProcessor(num_node_channels=1, num_labels=3, **channels)
    alone, row = (changed(graph, node_feat=DROP) for graph in (LONELY, PATH))
    row = changed(row, edge_attr=[[0, 1]] * 4 if "edge_categories" in channels else [[0.1, 0.2]] * 4)
    for rows in ([alone, row], [alone]):
        expected, found = processor(rows), processor([changed(alone, edge_attr=DROP), *rows[1:]])
        assert expected.keys() == found.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array)
    with pytest.raises(ValueError, match="row 0: expected the key 'edge_attr'"):
        processor([changed(row, edge_attr=DROP)])


def test_from_config_takes_over_sizes_labels_and_the_frame():
    processor = LPSProcessor.from_config(tiny_config(distribution="frame", problem_type=MULTI, num_labels=5, max_nodes=6))
    assert (processor.max_nodes, processor.num_labels, processor.problem_type, processor.frame) == (6, 5, MULTI, "laplacian")
    assert (processor.node_categories, processor.edge_categories) == (NODE_CATEGORIES, EDGE_CATEGORIES)
    assert processor.inputs == {"node_features": "n 5", "edge_features": "n n 3"}


# ---------------------------------------------------------------------------------------------------------------- frames


def test_the_frame_is_that_of_each_graph():
    rows = random_rows(6)
    batch = categorical(frame=True)(rows)
    assert batch["frame_ranks"].dtype == np.int64
    for row, ranks in zip(rows, batch["frame_ranks"], strict=True):
        expected = laplacian_frame_ranks(np.array(row["edge_index"]), row["num_nodes"])
        np.testing.assert_array_equal(ranks[: row["num_nodes"]], expected)
        np.testing.assert_array_equal(ranks[row["num_nodes"] :], 0)


def test_the_frame_of_a_graph_is_computed_once(monkeypatch):
    seen = []

    def counted(edge_index, num_nodes):
        seen.append(num_nodes)
        return laplacian_frame_ranks(edge_index, num_nodes)

    monkeypatch.setattr(processing_lps, "laplacian_frame_ranks", counted)
    processing_lps._cached_frame_ranks.cache_clear()
    batches = [categorical(frame=True)(rows) for rows in ([PATH, LONELY], [LONELY, PATH], [PATH])]
    assert seen == [3, 1]
    np.testing.assert_array_equal(batches[1]["frame_ranks"][1], batches[0]["frame_ranks"][0])
    batches[0]["frame_ranks"][:] = 77  # what a caller does to a batch does not reach the cache
    assert_same_batch(categorical(frame=True)([PATH]), batches[2])
    # The same edges on another number of nodes are another graph.
    wider = changed(PATH, num_nodes=4, node_feat=[[0, 0]] * 4)
    assert categorical(frame=True)([wider])["frame_ranks"].shape == (1, 4)
    assert seen == [3, 1, 4]


def test_the_frame_that_a_row_carries_is_used(monkeypatch):
    stored = categorical(frame=True).add_frame(PATH)
    assert stored == {**PATH, "frame_ranks": stored["frame_ranks"]}
    assert isinstance(stored["frame_ranks"], list)
    mapped = Dataset.from_list([PATH, LONELY]).map(categorical().add_frame)
    expected = categorical(frame=True)([PATH, LONELY])
    monkeypatch.setattr(processing_lps, "_cached_frame_ranks", None)
    assert_same_batch(categorical(frame=True)(mapped), expected)
    given = categorical(frame=True)([changed(PATH, frame_ranks=[5, 3, 4])])
    np.testing.assert_array_equal(given["frame_ranks"], [[5, 3, 4]])
    assert "frame_ranks" not in categorical()([stored])


def test_a_frame_of_the_wrong_length_is_refused():
    message = refusal(ValueError, categorical(frame=True), [PATH, changed(PATH, frame_ranks=[0, 1])])
    assert message == "row 1: frame_ranks: expected shape (3,), got (2,)."


def test_frame_averaging_from_rows_is_invariant():
    model = tiny_classifier(distribution="frame").double()
    processor = LPSProcessor.from_config(model.config)
    # A path with a triangle at one end has no symmetry but the exchange of two nodes of the triangle: two orders.
    edges = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 2)]).T
    row = {"num_nodes": 5, "node_feat": [[0, 0], [1, 0], [2, 1], [1, 1], [0, 1]], "edge_attr": [[0]] * 10}
    row["edge_index"] = np.concatenate([edges, edges[::-1]], axis=1)
    ranks = laplacian_frame_ranks(row["edge_index"], 5)
    assert len(set(ranks.tolist())) == 4
    order = np.array([3, 0, 4, 2, 1])
    moved = {**row, "edge_index": np.argsort(order)[row["edge_index"]], "node_feat": [row["node_feat"][i] for i in order]}
    batch = processor([row, moved], return_tensors="pt")
    assert sorted(batch["frame_ranks"][0].tolist()) == sorted(batch["frame_ranks"][1].tolist())
    with torch.no_grad():
        noise = model.lps.draw_noise(model.lps.encode(**{key: batch[key] for key in batch}), 64)["S_n"]
        samples = [model(**batch, noise={"S_n": noise[:, i : i + 1]}).logits.unsqueeze(1) for i in range(64)]
        samples = torch.cat(samples, dim=1)
    values = [{tuple(row) for row in graph.mul(1e6).round().tolist()} for graph in samples]
    assert values[0] == values[1]
    assert len(values[0]) == 2


# ---------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        *((label, 1) for label in (1, [1], [[1]], np.array([1]), torch.tensor([1]), [True], 1.0, [1.0])),
        *((label, -100) for label in (-100, [-100], [None], [float("nan")], float("nan"))),
    ],
)
def test_one_class_in_every_form(label, expected):
    batch = categorical()([changed(PATH, y=label)])
    assert batch["labels"].dtype == np.int64
    np.testing.assert_array_equal(batch["labels"], [expected])


@pytest.mark.parametrize("problem_type", [MULTI, REGRESSION, None])
@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ([1.0, None, 0.0], [1, NAN, 0]),
        ([NAN, 0, 1], [NAN, 0, 1]),
        ([[1.0, 0.0, 1.0]], [1, 0, 1]),
        (torch.tensor([1.0, NAN, 0.0]), [1, NAN, 0]),
        ([None, None, None], [NAN] * 3),
    ],
)
def test_several_labels_may_be_missing(problem_type, label, expected):
    batch = categorical(problem_type=problem_type)([changed(PATH, y=label)] * 2)
    assert batch["labels"].dtype == np.float32
    np.testing.assert_array_equal(batch["labels"], np.array([expected, expected], dtype=np.float32))


def test_one_target_is_regression_also_where_the_problem_type_is_not_set():
    for problem_type in (REGRESSION, None):
        batch = categorical(problem_type=problem_type, num_labels=1)([changed(PATH, y=y) for y in (2, [0.5], [None])])
        np.testing.assert_array_equal(batch["labels"], np.array([[2], [0.5], [NAN]], dtype=np.float32))


def test_without_labels_there_are_none():
    assert "labels" not in categorical()([changed(PATH, y=DROP), changed(PATH, y=None)])


NO_NAMES = (
    "Build the model with label2id, which tells the number of each name, and make its processor with LPSProcessor.from_config."
)
BAD_LABELS = {
    "two classes": (SINGLE, [1, 2], ValueError, f"expected 1 number(s) for {SINGLE}, got shape (2,)."),
    "no class": (SINGLE, [], ValueError, f"expected 1 number(s) for {SINGLE}, got shape (0,)."),
    "class too large": (SINGLE, [3], ValueError, "expected 0 to 2, or -100 for missing, got 3."),
    "negative class": (SINGLE, -1, ValueError, "expected 0 to 2, or -100 for missing, got -1."),
    "half a class": (SINGLE, [0.5], TypeError, "expected a class number, got [0.5]."),
    "infinite class": (SINGLE, [float("inf")], TypeError, "expected a class number, got [inf]."),
    "a word": (SINGLE, "toxic", TypeError, f"expected numbers, got the text 'toxic'. {NO_NAMES}"),
    "words": (MULTI, ["a", "b", "c"], TypeError, f"expected numbers, got the text 'a'. {NO_NAMES}"),
    "words for numbers": (REGRESSION, ["a", "b", "c"], TypeError, "expected numbers, got <U1."),
    "too few labels": (MULTI, [1, 0], ValueError, f"expected 3 number(s) for {MULTI}, got shape (2,)."),
    "one label of three": (MULTI, 1, ValueError, f"expected 3 number(s) for {MULTI}, got shape (1,)."),
    "not binary": (MULTI, [1, 0.5, None], ValueError, "expected 0, 1 or NaN for missing, got [1.0, 0.5]."),
    "missing as for classes": (MULTI, [1, -100, 0], ValueError, "expected 0, 1 or NaN for missing, got [1.0, -100.0, 0.0]."),
    "ragged": (MULTI, [[1], [0, 1]], ValueError, "expected lists of equal length, got ragged ones."),
    "too many targets": (REGRESSION, [1.0] * 4, ValueError, f"expected 3 number(s) for {REGRESSION}, got shape (4,)."),
    "infinite target": (
        REGRESSION,
        [1.0, float("inf"), 0.0],
        ValueError,
        "expected finite float32 numbers, or NaN for missing, got infinity or larger ones.",
    ),
    "target beyond float32": (
        REGRESSION,
        [1.0, 1e300, 0.0],
        ValueError,
        "expected finite float32 numbers, or NaN for missing, got infinity or larger ones.",
    ),
    "several classes, problem type not set": (
        None,
        [1, 0, 1],
        ValueError,
        "expected 1 number(s) for this model; problem_type in its config is not set, got shape (3,).",
    ),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_a_wrong_label_is_refused(name):
    problem_type, label, kind, message = BAD_LABELS[name]
    good = changed(PATH, y=[0] if problem_type in (SINGLE, None) else [0, 1, 0])
    assert refusal(kind, categorical(problem_type=problem_type), [good, changed(PATH, y=label)]) == f"row 1: y: {message}"


def test_labels_in_some_rows_only_are_refused():
    message = refusal(ValueError, categorical(), [PATH, changed(PATH, y=DROP), PATH])
    assert message == "row 1: expected a label 'y' as the other rows have, got none. None stands for one that is not known."
