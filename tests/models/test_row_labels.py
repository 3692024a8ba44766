"""Labels that are missing, that have names, and that stand under other keys, for every kind of task."""

import numpy as np
import pandas
import pyarrow
import pytest
import torch
from datasets import Dataset
from transformers import AutoProcessor

from lps_hf.data.arrow_rows import ArrowRows
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification, LPSForNodeClassification
from lps_hf.models.processing_lps import LPSProcessor
from tests.models.processing_cases import DROP, MULTI, NAN, PATH, REGRESSION, SINGLE, categorical, changed, refusal
from tests.tiny import tiny_config

NAMES = {"cat": 0, "dog": 1, "owl": 2}
GRAPH = changed(PATH, y=DROP)
POINTS = {"positions": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]}
PAIRS = {**GRAPH, "edge_label_index": [[0, 1], [1, 2]]}
PICTURE = {"image": np.zeros((4, 4, 3), np.uint8)}
# A processor of each kind of task, a row without its label, the label's key, a label, and what stands for a missing one.
KINDS = {
    "class": (lambda **more: categorical(**more), GRAPH, "y", 1, -100),
    "several labels": (lambda **more: categorical(problem_type=MULTI, **more), GRAPH, "y", [1, 0, 1], [NAN] * 3),
    "targets": (lambda **more: categorical(problem_type=REGRESSION, **more), GRAPH, "y", [0.5, 1.0, 2.0], [NAN] * 3),
    "class, by the labels": (lambda **more: categorical(problem_type=None, **more), GRAPH, "y", 1, -100),
    "targets, by the labels": (lambda **more: categorical(problem_type=None, **more), GRAPH, "y", [0.5, 1.0, 2.0], [NAN] * 3),
    "one target": (lambda **more: categorical(problem_type=None, num_labels=1), GRAPH, "y", [0.5], [NAN]),
    "nodes": (lambda **more: categorical(output="n 3", **more), GRAPH, "y", [2, 0, 1], [-100] * 3),
    "links": (lambda **more: categorical(output="n n 1", **more), PAIRS, "edge_label", [1, 0], [NAN] * 2),
    "positions": (
        lambda **more: LPSProcessor(inputs={"positions": "n p"}, output="n p", **more),
        POINTS,
        "target_positions",
        POINTS["positions"],
        [[NAN] * 3] * 2,
    ),
    "images": (
        lambda **more: LPSProcessor(inputs={"pixel_values": "3 h w"}, num_labels=3, **more), PICTURE, "label", 2, -100
    ),
}  # fmt: skip
MISSING = {
    "None": None,
    "NaN": NAN,
    "numpy NaN": np.float32("nan"),
    "tensor NaN": torch.tensor(NAN),
    "pandas NA": pandas.NA,
    "pandas NaT": pandas.NaT,
    "masked": np.ma.masked,
    "pyarrow null": pyarrow.scalar(None),
}


# ---------------------------------------------------------------------------------------------------------------- missing


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_label_is_none_in_every_way(kind, missing):
    make, row, key, label, padding = KINDS[kind]
    rows = [{**row, key: MISSING[missing]}, {**row, key: label}]
    labels = make()(rows)["labels"]
    np.testing.assert_array_equal(labels, np.array([padding, label], dtype=labels.dtype))
    alone = make()([{**row, key: MISSING[missing]}] * 2)["labels"]
    if kind != "targets, by the labels":  # where nothing tells that these are targets
        np.testing.assert_array_equal(alone, np.array([padding, padding], dtype=labels.dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_the_key_is_refused_beside_labels_only(kind):
    make, row, key, label, _ = KINDS[kind]
    message = refusal(ValueError, make(), [{**row, key: label}, row])
    assert message == f"row 1: expected a label {key!r} as the other rows have, got none. None stands for one that is not known."
    assert "labels" not in make()([row, {**row, key: None}])
    assert "labels" not in make()([row])


ENTRIES = {
    "class": ([None], -100),
    "several labels": ([1, None, 0], [1, NAN, 0]),
    "targets": ([1.5, None, NAN], [1.5, NAN, NAN]),
    "one target": ([None], [NAN]),
    "nodes": ([None, pandas.NA, 2], [-100, -100, 2]),
    "links": ([None, 1], [NAN, 1]),
    "positions": ([[None, 1.0, 2.0], [NAN, 0.0, 0.0]], [[NAN, 1, 2], [NAN, 0, 0]]),
    "images": ([NAN], -100),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_parts_of_a_label_may_be_missing(kind):
    make, row, key, _, padding = KINDS[kind]
    label, expected = ENTRIES[kind]
    labels = make()([{**row, key: label}])["labels"]
    np.testing.assert_array_equal(labels, np.array([expected], dtype=labels.dtype))
    if np.ndim(label) == 1:
        known = [0 if number is None or number is pandas.NA else number for number in label]
        masked = np.ma.array(known, mask=[number is not known[i] for i, number in enumerate(label)])
        np.testing.assert_array_equal(make()([{**row, key: masked}])["labels"], labels)
    if kind in ("several labels", "targets"):  # a list of nothing
        np.testing.assert_array_equal(make()([{**row, key: [None]}])["labels"], [padding])


@pytest.mark.parametrize("column", [[1, None, 2], [[1], None, [2]], [1.0, NAN, 2.0], [[1], [None], [2]], [[1.0], [NAN], [2.0]]])
def test_columns_of_a_data_set_hold_missing_labels(column):
    dataset = Dataset.from_list([{**GRAPH, "y": label} for label in column])
    table = pandas.DataFrame([{**GRAPH, "y": label} for label in column])
    for problem_type in (SINGLE, None):
        for rows in (list(dataset), list(ArrowRows(dataset)), dataset[:], table.to_dict("records")):
            np.testing.assert_array_equal(categorical(problem_type=problem_type)(rows)["labels"], [1, -100, 2])


def test_labels_of_different_kinds_in_one_batch_are_refused():
    message = refusal(ValueError, categorical(problem_type=None), [changed(PATH, y=1), changed(PATH, y=[0.5, 1.0, 2.0])])
    assert message.startswith("row 1: expected a label of shape (), like those of the other rows, got (3,). Set problem_type")


def test_a_batch_without_any_label_has_a_loss_of_zero():
    model = LPSForGraphClassification(tiny_config(entropy_loss_coef=0.0)).train()
    outputs = model(**LPSProcessor.from_config(model.config)([changed(PATH, y=None)] * 2, return_tensors="pt"))
    assert outputs.loss == 0
    outputs.loss.backward()


# ------------------------------------------------------------------------------------------------------------- other keys


@pytest.mark.parametrize("name", ["y", "label", "labels", "target"])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_stand_under_other_keys_too(kind, name):
    make, row, key, label, _ = KINDS[kind]
    if name == "y" and kind in ("links", "positions"):
        return  # classes of nodes, or an energy
    expected = make()([{**row, key: label}])["labels"]
    np.testing.assert_array_equal(make()([{**row, name: label}])["labels"], expected)
    if name != key:
        np.testing.assert_array_equal(make()([{**row, key: None, name: label}])["labels"], expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("links", "positions")])
def test_two_labels_have_to_agree(kind):
    make, row, key, label, _ = KINDS[kind]
    other = "label" if key == "y" else "y"
    np.testing.assert_array_equal(make()([{**row, key: label, other: label}])["labels"], make()([{**row, key: label}])["labels"])
    for wrong in (np.zeros_like(label), [[3], [4]], "cat"):
        message = refusal(ValueError, make(), [{**row, key: label, other: wrong}])
        assert message.startswith(f"row 0: expected one label, got {key!r} and {other!r}, which differ.")


@pytest.mark.parametrize("kind", ["links", "positions"])
def test_a_key_of_its_own_is_the_label(kind):
    make, row, key, label, _ = KINDS[kind]
    with pytest.warns(UserWarning, match="does not read 'target'"):
        batch = make()([{**row, key: label, "target": [0.5]}])
    np.testing.assert_array_equal(batch["labels"], make()([{**row, key: label}])["labels"])
    # What has no pairs has no labels of pairs.
    if kind == "links":
        with pytest.warns(UserWarning, match="does not read 'label'"):
            assert "labels" not in make()([{**GRAPH, "label": 1}])


# ------------------------------------------------------------------------------------------------------------------ names

NAMED = {
    "class": ("owl", 2),
    "class, by the labels": (["dog"], 1),
    "several labels": (["owl", "cat"], [1, 0, 1]),
    "nodes": (["owl", None, "cat"], [2, -100, 0]),
    "images": (np.str_("dog"), 1),
}


@pytest.mark.parametrize("kind", NAMED)
def test_texts_get_the_numbers_of_their_classes(kind):
    make, row, key, _, _ = KINDS[kind]
    label, expected = NAMED[kind]
    labels = make(label2id=NAMES)([{**row, key: label}])["labels"]
    np.testing.assert_array_equal(labels, np.array([expected], dtype=labels.dtype))
    unknown = ["cat", "emu", "owl"] if kind == "nodes" else "emu"
    message = refusal(ValueError, make(label2id=NAMES), [{**row, key: unknown}])
    assert message == f"row 0: {key}: expected one of the names in label2id, 'cat', 'dog', 'owl', got 'emu'."
    message = refusal(TypeError, make(), [{**row, key: label}])
    assert message.startswith(f"row 0: {key}: expected numbers, got the text ")
    assert "Build the model with label2id" in message


@pytest.mark.parametrize("kind", ["targets", "links", "positions"])
def test_numbers_have_no_names(kind):
    make, row, key, _, _ = KINDS[kind]
    message = refusal(TypeError, make(label2id=NAMES), [{**row, key: ["cat", "dog"]}])
    assert message == f"row 0: {key}: expected numbers, got <U3."


def test_a_single_name_is_one_of_several_labels():
    processor = categorical(problem_type=MULTI, label2id=NAMES)
    np.testing.assert_array_equal(processor([changed(PATH, y="dog")])["labels"], [[0, 1, 0]])


def test_many_names_are_not_all_listed():
    names = {f"class {number}": number for number in range(30)}
    message = refusal(ValueError, categorical(num_labels=30, label2id=names), [changed(PATH, y="emu")])
    assert "'class 19' and 10 more, got 'emu'." in message


def test_names_of_a_data_set_are_read_alike():
    dataset = Dataset.from_list([{**GRAPH, "label": label} for label in ("owl", None, "cat")])
    for rows in (list(dataset), list(ArrowRows(dataset)), dataset[:]):
        np.testing.assert_array_equal(categorical(label2id=NAMES)(rows)["labels"], [2, -100, 0])
    nodes = Dataset.from_list([{**GRAPH, "y": ["owl", None, "cat"]}])
    for rows in (list(nodes), list(ArrowRows(nodes)), [{**GRAPH, "y": ["owl", NAN, "cat"]}]):
        np.testing.assert_array_equal(categorical(output="n 3", label2id=NAMES)(rows)["labels"], [[2, -100, 0]])


def test_the_names_of_the_model_are_those_of_its_processor(tmp_path):
    config = tiny_config(label2id=NAMES, id2label={number: name for name, number in NAMES.items()})
    processor = LPSProcessor.from_config(config)
    processor.save_pretrained(tmp_path)
    for again in (LPSProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert again.label2id == NAMES
        assert vars(again) == vars(processor)
        np.testing.assert_array_equal(again([changed(PATH, y="dog")])["labels"], [1])
    assert LPSProcessor.from_config(tiny_config()).label2id is None  # LABEL_0 is no name
    numbers = {number: name for name, number in NAMES.items()}
    for names in ({"id2label": numbers}, {"label2id": NAMES}):
        assert LPSProcessor.from_config(tiny_config(**names)).label2id == NAMES
    changed_later = tiny_config()
    changed_later.id2label = numbers
    assert LPSProcessor.from_config(changed_later).label2id == NAMES


def test_a_model_of_nodes_learns_from_names():
    config = tiny_config(output="n 3", problem_type=None, label2id=NAMES, id2label={i: name for name, i in NAMES.items()})
    model = LPSForNodeClassification(config)
    batch = LPSProcessor.from_config(config)([{**GRAPH, "y": ["owl", "cat", None]}], return_tensors="pt")
    assert model(**batch).loss.isfinite()


def test_texts_and_numbers_of_pyarrow():
    processor = categorical(num_labels=3, label2id=NAMES)
    rows = [changed(GRAPH, y=pyarrow.scalar(label)) for label in ("a", "owl", 1, None)]
    assert processor(rows[1:])["labels"].tolist() == [2, 1, -100]
    with pytest.raises(ValueError, match="expected one of the names in label2id, .* got 'a'"):
        processor(rows[0])


def test_a_one_hot_label_is_refused_with_its_class():
    with pytest.raises(ValueError, match=r"got shape \(3,\). A one-hot label is the class 2."):
        categorical(num_labels=3)(changed(GRAPH, y=[0, 0, 1]))
