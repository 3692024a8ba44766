"""Typed columns, and whether a data set fits a model."""

import datasets
import pytest
from datasets import ClassLabel, Dataset, Image, List, Value

from lps_hf.data.dataset_folders import DATASET_KINDS, make_splits
from lps_hf.data.generators import circular_skip_links, cycle_pairs
from lps_hf.data.rows import TASK_COLUMNS, infer_config
from lps_hf.data.schema import check_dataset, features_for, with_features
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.processing_lps import LPSProcessor

VIT = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
WHOLE, CLASS, REAL = Value("int32"), Value("int64"), Value("float32")


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def config_for(**fields):
    return LPSConfig(**{"backbone_config": VIT, "group": "S_n", "max_nodes": 9, **fields})


def test_a_model_tells_the_types():
    assert features_for(config_for(node_categories=[7], edge_categories=[3])) == {
        "edge_index": List(List(WHOLE)),
        "num_nodes": WHOLE,
        "node_feat": List(List(WHOLE)),
        "edge_attr": List(List(WHOLE)),
        "y": List(CLASS),
    }
    real = config_for(inputs={"node_features": "n 4", "edge_features": "n n 1"}, problem_type="regression")
    assert features_for(real, real_type="float64") == {
        "edge_index": List(List(WHOLE)),
        "num_nodes": WHOLE,
        "node_feat": List(List(Value("float64"))),
        "y": List(Value("float64")),
    }
    links = features_for(config_for(output="n n 1", num_labels=1))
    assert {name: links[name] for name in ("edge_label_index", "edge_label")} == {
        "edge_label_index": List(List(WHOLE)),
        "edge_label": List(CLASS),
    }


@pytest.mark.parametrize("kind", [name for name, kind in DATASET_KINDS.items() if not kind.source and not kind.class_names])
def test_generated_rows_fit_their_task_and_their_model(kind):
    options = {"nbody": {"first_step": 2, "num_steps": 2}, "pattern": {"sizes": (2, 4)}}
    task = DATASET_KINDS[kind].task
    rows = Dataset.from_list(make_splits(kind, {"train": 20}, options=options.get(kind))["train"])
    typed = with_features(rows, task)
    assert list(typed) == list(rows)  # the same numbers, whatever their types
    config = LPSConfig(backbone_config=VIT, **infer_config(task, {"train": typed}))
    assert set(TASK_COLUMNS[task]) | set(features_for(config)) <= set(typed.column_names)
    assert check_dataset(typed, LPSProcessor.from_config(config)) == 20


def test_types_keep_every_number():
    rows = Dataset.from_list([{**row, "edge_attr": [], "id": "a", "weight": 0.1} for row in cycle_pairs(4)])
    typed = with_features(rows, "graph-classification")
    assert list(typed) == list(rows)
    assert typed.features["edge_attr"] == List(List(WHOLE))  # of an empty column nothing could be told
    assert typed.features["edge_index"] == List(List(WHOLE))
    assert typed.features["id"] == rows.features["id"]
    assert typed.features["weight"] == Value("float64")
    real = Dataset.from_dict({"node_feat": [[[0.5]]], "positions": [[[1.0, 2.0]]], "y": [[0.25]]})
    assert with_features(real, "molecule-regression").features == real.features
    with pytest.raises(ValueError, match="rows: expected columns of the types"):
        with_features(Dataset.from_dict({"num_nodes": [2**40]}), "graph-classification")


def test_images_and_classes():
    features = features_for("image-classification", class_names=["cat", "dog"])
    assert features == {"image": Image(), "label": ClassLabel(names=["cat", "dog"])}
    fields = {"group": "C_4", "inputs": {"pixel_values": "3 h w"}, "id2label": {0: "cat", 1: "dog"}}
    assert features_for(config_for(**fields)) == features
    assert features_for("image-classification")["label"] == Value("int64")


def test_what_is_unknown_is_refused():
    with pytest.raises(ValueError, match="task: expected one of 'graph-classification'"):
        features_for("graphs")
    with pytest.raises(ValueError, match="real: expected some of 'node_feat', 'edge_attr' and 'y', got 'positions'"):
        features_for("graph-classification", real=["positions"])


def test_the_first_row_that_does_not_fit_is_named():
    rows = [{**row, "node_feat": [[0]] * row["num_nodes"]} for row in circular_skip_links(250, 9, (2, 3))]
    rows[207]["node_feat"] = [[0]] * 8 + [[5]]
    processor = LPSProcessor(max_nodes=9, node_categories=[2])
    with pytest.raises(ValueError, match=r"^train, row 207: node_feat: feature 0 has categories 0 to 1, got 5 at place 8"):
        check_dataset(Dataset.from_list(rows), processor, name="train")
    with pytest.raises(ValueError, match="dataset, row 207: node_feat"):
        check_dataset(iter(rows), processor)
    assert check_dataset(rows[:207], processor) == 207
    del rows[3]["y"]
    with pytest.raises(ValueError, match=r"dataset, row 3: expected a label for this model's task, got only \['edge_index', "):
        check_dataset(rows, processor)
    assert check_dataset(rows[:5], processor, labels=False) == 5
    some, none = [{**row, "y": None if number else [1]} for number, row in enumerate(rows[:3])], {**rows[0], "y": None}
    assert check_dataset(Dataset.from_list(some), processor) == 3
    assert check_dataset([none], processor, labels=False) == 1
    with pytest.raises(ValueError, match="train: expected a label in one row at least, got None, NaN or -100 in all of them"):
        check_dataset([none, none], processor, name="train")
    with pytest.raises(ValueError, match="dataset: expected at least one row"):
        check_dataset([], processor)
    with pytest.raises(TypeError, match="dataset, row 0: expected a dictionary"):
        check_dataset([3], processor)
