"""Rows with labels of nodes and of pairs of nodes: what they become, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset

from lps_hf.models.modeling_heads_lps import LPSForLinkPrediction, LPSForNodeClassification
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import EDGE_CATEGORIES, MAX_NODES, NODE_CATEGORIES, tiny_config

NAN = float("nan")
DROP = object()
PATH = {
    "edge_index": [[0, 1, 1, 2], [1, 0, 2, 1]],
    "num_nodes": 3,
    "node_feat": [[0, 1], [2, 0], [1, 1]],
    "edge_attr": [[0], [0], [1], [1]],
}
LONELY = {"edge_index": [[], []], "num_nodes": 1, "node_feat": [[2, 1]], "edge_attr": []}
NODES = [{**PATH, "y": [2, None, 0]}, {**LONELY, "y": [1]}]
LINKS = [
    {**PATH, "edge_label_index": [[0, 2, 1], [2, 0, 1]], "edge_label": [1, 0, None]},
    {**LONELY, "edge_label_index": [[0], [0]], "edge_label": [0]},
]


def processor_of(output, **options):
    sizes = {"max_nodes": MAX_NODES, "node_categories": NODE_CATEGORIES, "edge_categories": EDGE_CATEGORIES}
    return LPSProcessor(**{**sizes, "num_labels": 3, "output": output, **options})


def changed(row, **changes):
    return {key: value for key, value in {**copy.deepcopy(row), **changes}.items() if value is not DROP}


def refusal(kind, processor, rows):
    with pytest.raises(kind) as caught:
        processor(rows)
    assert type(caught.value) is kind
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------------ nodes


@pytest.mark.parametrize("output", ["n 3", "n n 3"])
def test_classes_of_nodes_are_padded_with_those_that_are_ignored(output):
    batch = processor_of(output)(NODES)
    assert batch["labels"].dtype == np.int64
    np.testing.assert_array_equal(batch["labels"], [[2, -100, 0], [1, -100, -100]])
    graph = processor_of("3")([changed(row, y=DROP) for row in NODES])
    for key in graph:
        np.testing.assert_array_equal(batch[key], graph[key])
    assert processor_of(output)(NODES, pad_to_multiple_of=4)["labels"].shape == (2, 4)


@pytest.mark.parametrize(
    "classes",
    [[2, -100, 0], [2, NAN, 0], np.array([2, -100, 0]), torch.tensor([2.0, NAN, 0.0]), [2.0, None, 0.0]],
)
def test_classes_of_nodes_in_every_form(classes):
    np.testing.assert_array_equal(processor_of("n 3")([{**PATH, "y": classes}])["labels"], [[2, -100, 0]])


def test_rows_without_classes_have_no_labels():
    assert "labels" not in processor_of("n 3")([changed(row, y=DROP) for row in NODES])
    message = refusal(ValueError, processor_of("n 3"), [changed(NODES[0], y=DROP), NODES[1]])
    assert message == "row 0: expected a label 'y' as the other rows have, got none. None stands for one that is not known."


@pytest.mark.parametrize("output", ["n 2", "n n 2"])
def test_a_model_of_nodes_takes_what_its_processor_makes(output):
    model = LPSForNodeClassification(tiny_config(output=output, num_labels=2, problem_type=None)).eval()
    processor = LPSProcessor.from_config(model.config)
    batch = processor([{**PATH, "y": [0, None, 1]}, {**LONELY, "y": [1]}], return_tensors="pt")
    outputs = model(**batch)
    assert outputs.logits.shape == (2, 3, 2)
    # The loss counts the three labelled nodes and nothing else.
    logits = outputs.logits[[0, 0, 1], [0, 2, 0]]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1]))
    entropy = 0 if outputs.entropy_loss is None else model.config.entropy_loss_coef * outputs.entropy_loss
    torch.testing.assert_close(outputs.loss - entropy, expected)


BAD_CLASSES = {
    "too few": ([1, 0], ValueError, "expected shape (3,), one class per node, got (2,)."),
    "one": (1, ValueError, "expected shape (3,), one class per node, got ()."),
    "columns": ([[1], [0], [2]], ValueError, "expected shape (3,), one class per node, got (3, 1)."),
    "too large": (
        [0, 1, 3],
        ValueError,
        "expected 0 to 2, or -100 for missing, got 3 at node 2. Check the data, or build the model with a larger num_labels.",
    ),
    "negative": (
        [0, -1, 1],
        ValueError,
        "expected 0 to 2, or -100 for missing, got -1 at node 1. Check the data, or build the model with a larger num_labels.",
    ),
    "half": ([0, 0.5, 1], TypeError, "expected class numbers, got 0.5."),
    "infinite": ([0, float("inf"), 1], TypeError, "expected class numbers, got inf."),
    "words": (
        ["a", "b", "c"],
        TypeError,
        "expected numbers, got the text 'a'. Build the model with label2id, which tells the number of each name, and make its "
        "processor with LPSProcessor.from_config.",
    ),
    "ragged": ([[0], [1, 2], [0]], ValueError, "expected lists of equal length, got ragged ones."),
}


@pytest.mark.parametrize("name", BAD_CLASSES)
def test_wrong_classes_of_nodes_are_refused(name):
    classes, kind, message = BAD_CLASSES[name]
    assert refusal(kind, processor_of("n 3"), [NODES[1], {**PATH, "y": classes}]) == f"row 1: y: {message}"


# ------------------------------------------------------------------------------------------------------------------ links


def test_pairs_and_their_labels_are_padded():
    batch = processor_of("n n 1")(LINKS)
    assert batch["pair_index"].dtype == np.int64
    assert batch["labels"].dtype == np.float32
    np.testing.assert_array_equal(batch["pair_index"], [[[0, 2, 1], [2, 0, 1]], [[0, 0, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(batch["labels"], [[1, 0, NAN], [0, NAN, NAN]])
    padded = processor_of("n n 1")(LINKS, pad_to_multiple_of=4)
    assert padded["pair_index"].shape == (2, 2, 4)
    np.testing.assert_array_equal(padded["labels"][:, :3], batch["labels"])
    assert np.isnan(padded["labels"][:, 3]).all()


@pytest.mark.parametrize("dataset_format", [None, "numpy", "torch"])
def test_links_of_a_data_set(dataset_format):
    rows = [changed(row, edge_label=[float(label or 0) for label in row["edge_label"]]) for row in (LINKS[0], LINKS[0])]
    dataset = Dataset.from_list(rows).with_format(dataset_format)
    expected = processor_of("n n 1")(rows)
    for given in (dataset, dataset[:]):
        batch = processor_of("n n 1")(given)
        assert batch.keys() == expected.keys()
        for key in expected:
            np.testing.assert_array_equal(batch[key], expected[key])


def test_at_prediction_there_are_pairs_without_labels_or_neither():
    batch = processor_of("n n 1")([changed(row, edge_label=DROP) for row in LINKS])
    assert "labels" not in batch
    assert set(batch) == set(processor_of("n n 1").model_input_names)
    alone = processor_of("n n 1")([changed(row, edge_label=None, edge_label_index=None) for row in LINKS])
    assert not {"labels", "pair_index"} & set(alone)


def test_a_graph_may_have_no_pairs():
    batch = processor_of("n n 1")([LINKS[0], changed(LINKS[1], edge_label_index=[[], []], edge_label=[])])
    assert batch["pair_index"].shape == (2, 2, 3)
    assert np.isnan(batch["labels"][1]).all()


def test_a_model_of_links_takes_what_its_processor_makes():
    model = LPSForLinkPrediction(tiny_config(output="n n 1", num_labels=1, problem_type=None)).eval()
    processor = LPSProcessor.from_config(model.config)
    batch = processor(LINKS, return_tensors="pt")
    noise = model.lps.draw_noise(model.lps.encode(**{key: batch[key] for key in batch if key not in ("labels", "pair_index")}), 1)
    outputs = model(**batch, noise=noise)
    assert outputs.loss.isfinite()
    every = model(**{key: batch[key] for key in batch if key not in ("labels", "pair_index")}, noise=noise).logits
    assert torch.equal(outputs.logits[0], torch.stack([every[0, 0, 2], every[0, 2, 0], every[0, 1, 1]]))


BAD_LINKS = {
    "no such node": (
        {"edge_label_index": [[0, 2, 1], [2, 0, 3]]},
        ValueError,
        "edge_label_index: expected node numbers 0 to 2 (num_nodes is 3), got 0 to 3.",
    ),
    "negative node": (
        {"edge_label_index": [[0, 2, 1], [2, 0, -1]]},
        ValueError,
        "edge_label_index: expected node numbers 0 to 2 (num_nodes is 3), got -1 to 2.",
    ),
    "pairs in place of two lists": (
        {"edge_label_index": [[0, 2], [2, 0], [1, 1]]},
        ValueError,
        "edge_label_index: expected two lists of equal length, got shape (3, 2).",
    ),
    "ragged": (
        {"edge_label_index": [[0, 2, 1], [2, 0]]},
        ValueError,
        "edge_label_index: expected lists of equal length, got ragged ones.",
    ),
    "real numbers": (
        {"edge_label_index": [[0.0, 2.0, 1.0], [2.0, 0.0, 1.0]]},
        TypeError,
        "edge_label_index: expected whole numbers, got float64.",
    ),
    "labels of other pairs": (
        {"edge_label": [1, 0]},
        ValueError,
        "edge_label: expected shape (3,), one number per pair of edge_label_index, got (2,).",
    ),
    "no link and no non-link": (
        {"edge_label": [1, 0.5, 0]},
        ValueError,
        "edge_label: expected 0, 1 or NaN for missing, got 0.5 at pair 1.",
    ),
    "missing as for classes": (
        {"edge_label": [1, 0, -100]},
        ValueError,
        "edge_label: expected 0, 1 or NaN for missing, got -100.0 at pair 2.",
    ),
    "words": ({"edge_label": ["yes", "no", "no"]}, TypeError, "edge_label: expected numbers, got <U3."),
    "labels without pairs": (
        {"edge_label_index": DROP},
        ValueError,
        "edge_label: expected the pairs it belongs to in edge_label_index, got none.",
    ),
}


@pytest.mark.parametrize("name", BAD_LINKS)
def test_wrong_links_are_refused(name):
    changes, kind, message = BAD_LINKS[name]
    assert refusal(kind, processor_of("n n 1"), [LINKS[1], changed(LINKS[0], **changes)]) == f"row 1: {message}"


def test_pairs_in_some_rows_only_are_refused():
    message = refusal(ValueError, processor_of("n n 1"), [LINKS[0], changed(LINKS[1], edge_label=DROP, edge_label_index=DROP)])
    assert message == "row 1: expected the pairs 'edge_label_index' as the other rows have, got none."
    message = refusal(ValueError, processor_of("n n 1"), [LINKS[0], changed(LINKS[1], edge_label=DROP)])
    assert (
        message == "row 1: expected a label 'edge_label' as the other rows have, got none. None stands for one that is not known."
    )


@pytest.mark.parametrize("output", ["n 3", "n n 1", None])
def test_what_labels_there_are_is_saved(tmp_path, output):
    processor = processor_of(output)
    processor.save_pretrained(tmp_path)
    again = LPSProcessor.from_pretrained(tmp_path)
    assert vars(again) == vars(processor)
    rows = {"n 3": NODES, "n n 1": LINKS, None: [changed(row, y=[1]) for row in NODES]}[output]
    for key, array in processor(rows).items():
        np.testing.assert_array_equal(again(rows)[key], array)
