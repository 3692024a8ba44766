"""`from_backbone_pretrained`: which weights come along, and what is refused."""

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from lps_hf import (
    LPSConfig,
    LPSForGraphClassification,
    LPSForImageClassification,
    LPSForLinkPrediction,
    LPSForNodeClassification,
    LPSForParticleDynamics,
    LPSForPointCloudClassification,
    LPSModel,
    LPSProcessor,
)
from lps_hf.data import DataCollatorForGraphs, infer_config
from tests.task_cases import task_case

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32}


@pytest.fixture
def vit_folder(tmp_path):
    ViTModel(ViTConfig(**SIZES, patch_size=8), add_pooling_layer=False).save_pretrained(tmp_path, save_original_format=False)
    return tmp_path


def test_pretrained_weights_arrive_and_nothing_is_reported(vit_folder, capfd, caplog):
    model = LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, num_labels=3)
    pretrained = AutoModel.from_pretrained(vit_folder, add_pooling_layer=False).state_dict()
    loaded = model.lps.base.backbone.model.state_dict()
    assert all(torch.equal(loaded[key], pretrained[key]) for key in loaded if "patch_embeddings" not in key)
    assert "MISSING" not in capfd.readouterr().err + caplog.text
    assert not model.training


def test_a_backbone_without_some_of_its_weights_is_refused(vit_folder):
    weights = load_file(vit_folder / "model.safetensors")
    dropped = next(key for key in weights if "fc1.weight" in key)
    save_file(
        {key: value for key, value in weights.items() if key != dropped}, vit_folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"expected the weights of a vit backbone, but the checkpoint lacks .*fc1\.weight"):
        LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9)


def test_the_vision_tower_of_a_composite_checkpoint(tmp_path):
    text = {**SIZES, "vocab_size": 50, "max_position_embeddings": 16}
    del text["image_size"]
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config={**SIZES, "patch_size": 8}))
    clip.save_pretrained(tmp_path)
    model = LPSForGraphClassification.from_backbone_pretrained(str(tmp_path), max_nodes=9, num_labels=3)
    ours, theirs = model.lps.base.backbone.model.state_dict(), clip.vision_model.state_dict()
    assert torch.equal(ours["pre_layrnorm.weight"], theirs["pre_layrnorm.weight"])
    assert torch.equal(ours["encoder.layers.1.mlp.fc1.weight"], theirs["encoder.layers.1.mlp.fc1.weight"])


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_the_distribution_keeps_its_digits(vit_folder, dtype, expected):
    model = LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, dtype=dtype)
    assert {parameter.dtype for parameter in model.lps.distribution.parameters()} == {expected}
    assert {parameter.dtype for parameter in model.lps.base.parameters()} == {dtype}


def test_a_mistake_is_found_before_the_weights_are_loaded(vit_folder):
    (vit_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="distribution: expected one of"):
        LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, distribution="learnt")


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"torch_dtype": torch.bfloat16}])
def test_types_as_transformers_users_write_them(vit_folder, options):
    model = LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, **options)
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["auto", "int8", torch.int32])
def test_types_that_no_weights_have_are_refused(vit_folder, dtype):
    with pytest.raises(ValueError, match="dtype: expected a floating point type"):
        LPSForGraphClassification.from_backbone_pretrained(str(vit_folder), max_nodes=9, dtype=dtype)


# What is no symmetrized model, or is one already.
EVERY_CLASS = (LPSConfig, LPSModel, LPSForGraphClassification, LPSForNodeClassification, LPSForImageClassification)


@pytest.mark.parametrize("loaded", EVERY_CLASS)
def test_a_plain_backbone_is_no_checkpoint(vit_folder, loaded):
    with pytest.raises(ValueError, match=r"got a plain 'vit'\. To make it equivariant, use from_backbone_pretrained"):
        loaded.from_pretrained(vit_folder)


@pytest.mark.parametrize("make", [LPSModel, LPSForGraphClassification, LPSProcessor.from_config])
def test_nor_is_its_configuration(make):
    with pytest.raises(ValueError, match="config: expected a symmetrized model .* got a plain 'bert'"):
        make(BertConfig())


def test_a_plain_backbone_has_no_processor(vit_folder):
    with pytest.raises(OSError, match="A plain backbone has none: make a model of it first, with from_backbone_pretrained"):
        LPSProcessor.from_pretrained(vit_folder)


def test_what_is_symmetrized_is_no_backbone(vit_folder, tmp_path):
    model = LPSForGraphClassification.from_backbone_pretrained(vit_folder, max_nodes=4)
    with pytest.raises(ValueError, match="expected a plain backbone, got a symmetrized model. Load it with from_pretrained"):
        LPSForGraphClassification.from_backbone_pretrained(model, max_nodes=4)
    with pytest.raises(TypeError, match="got a ViTConfig, which has no weights"):
        LPSForGraphClassification.from_backbone_pretrained(ViTConfig(), max_nodes=4)
    with pytest.raises(ValueError, match="revision: expected None for a backbone that is loaded already"):
        LPSForGraphClassification.from_backbone_pretrained(ViTModel(ViTConfig(**SIZES, patch_size=8)), revision="x")


@pytest.mark.parametrize("backbone_class", [ViTModel, ViTForImageClassification])
def test_a_loaded_backbone_gives_its_weights_and_stays_as_it_is(backbone_class):
    backbone = backbone_class(ViTConfig(**SIZES, patch_size=8, dtype="float32")).bfloat16()
    before = backbone.config.to_dict()
    model = LPSForGraphClassification.from_backbone_pretrained(backbone, max_nodes=9, num_labels=3)
    theirs = getattr(backbone, "vit", backbone).state_dict()
    ours = model.lps.base.backbone.model.state_dict()
    key = "layers.1.mlp.fc1.weight"
    assert torch.equal(ours[key], theirs[key].float())
    assert ours[key].data_ptr() != theirs[key].data_ptr()
    assert (model.dtype, backbone.dtype, backbone.config.to_dict()) == (torch.float32, torch.bfloat16, before)


@pytest.mark.parametrize(("backbone_class", "keeps"), [(ViTModel, False), (ViTForImageClassification, True)])
def test_a_loaded_classifier_gives_its_last_layer_too(backbone_class, keeps):
    backbone = backbone_class(ViTConfig(**SIZES, patch_size=8, num_labels=3))
    same, other = (LPSForImageClassification.from_backbone_pretrained(backbone, num_labels=count) for count in (3, 5))
    for model in (same, other):
        ours = model.lps.base.backbone.state_dict()
        assert torch.equal(ours["vit.layernorm.weight"], getattr(backbone, "vit", backbone).state_dict()["layernorm.weight"])
    assert other.lps.base.backbone.classifier.weight.shape[0] == 5
    if keeps:
        assert torch.equal(same.lps.base.backbone.classifier.weight, backbone.classifier.weight)


@pytest.mark.parametrize("device_map", ["cpu", torch.device("cpu"), {"": "cpu"}, "auto"])
def test_a_model_is_put_where_the_map_says(vit_folder, device_map):
    model = LPSForGraphClassification.from_backbone_pretrained(vit_folder, max_nodes=4, device_map=device_map)
    assert model.device.type in ("cpu", "cuda")


HEADS = {
    "graph-classification": LPSForGraphClassification,
    "node-classification": LPSForNodeClassification,
    "link-prediction": LPSForLinkPrediction,
    "particle-dynamics": LPSForParticleDynamics,
    "molecule-regression": LPSForGraphClassification,
    "point-cloud-classification": LPSForPointCloudClassification,
    "image-classification": LPSForImageClassification,
}


@pytest.mark.parametrize("task", HEADS)
def test_a_model_is_fitted_to_a_data_set_of_any_form(task):
    rows = task_case(task)[2]
    backbone = ViTModel(ViTConfig(**{**SIZES, "image_size": 16}, patch_size=8))
    configs = []
    for dataset in (rows, Dataset.from_list(rows), DatasetDict(train=Dataset.from_list(rows))):
        model = HEADS[task].from_backbone_pretrained(backbone, dataset=dataset, interface_config={"hidden_size": 4})
        configs.append(model.config.to_dict())
        expected = infer_config(task, dataset)
        assert {name: getattr(model.config, name) for name in expected} == expected
    assert configs[0] == configs[1] == configs[2]
    output = model(**LPSProcessor.from_config(model.config)(rows[:2], return_tensors="pt"))
    assert output.loss.isfinite()


GRAPH = {"edge_index": [[0, 1], [1, 0]], "num_nodes": 2, "node_feat": [[0], [1]]}


def test_labels_that_are_texts_become_names():
    backbone = ViTModel(ViTConfig(**SIZES, patch_size=8))
    rows = [{**GRAPH, "y": name} for name in ("toxic", "harmless", "toxic", "odd")]
    model = LPSForGraphClassification.from_backbone_pretrained(backbone, dataset=rows)
    assert model.config.id2label == {0: "harmless", 1: "odd", 2: "toxic"}
    assert model.config.label2id == {"harmless": 0, "odd": 1, "toxic": 2}
    assert model.config.problem_type == "single_label_classification"
    several = infer_config("graph-classification", [{**GRAPH, "y": names} for names in (["a", "b"], [], ["b"])])
    assert (several["num_labels"], several["problem_type"]) == (2, "multi_label_classification")
    nodes = infer_config("node-classification", [{**GRAPH, "y": ["user", "item"]}, {**GRAPH, "y": ["user", None]}])
    assert (nodes["id2label"], nodes["output"]) == ({0: "item", 1: "user"}, "n 2")


@pytest.mark.parametrize(
    ("task", "wrap"), [("graph-classification", lambda label: label), ("node-classification", lambda label: [label])]
)
def test_names_of_a_column_of_classes_are_kept(task, wrap):
    rows = Dataset.from_list([{**GRAPH, "num_nodes": 1, "edge_index": [[], []], "node_feat": [[0]], "y": wrap(0)}] * 2)
    feature = ClassLabel(names=["no", "yes", "unseen"])
    rows = rows.cast_column("y", feature if task == "graph-classification" else type(rows.features["y"])(feature))
    inferred = infer_config(task, rows)
    assert (inferred["num_labels"], inferred["id2label"][2]) == (3, "unseen")


def test_what_is_given_comes_before_what_is_read_off():
    backbone, rows = ViTModel(ViTConfig(**SIZES, patch_size=8)), [{**GRAPH, "y": name} for name in "ab"]
    model = LPSForGraphClassification.from_backbone_pretrained(backbone, dataset=rows, num_labels=5, max_nodes=7)
    assert (model.config.num_labels, model.config.max_nodes, model.config.node_categories) == (5, 7, [2])
    assert model.config.id2label[4] == "LABEL_4"


def test_columns_of_other_names_are_mapped_for_model_and_processor(tmp_path):
    rows = [{"edges": [[0], [1]], "size": 2, "atoms": [[1], [0]], "toxicity": number % 2, "name": "x"} for number in range(4)]
    mapping = {"edges": "edge_index", "size": "num_nodes", "atoms": "node_feat", "toxicity": "y"}
    backbone = ViTModel(ViTConfig(**SIZES, patch_size=8))
    model = LPSForGraphClassification.from_backbone_pretrained(backbone, dataset=Dataset.from_list(rows), column_mapping=mapping)
    assert (model.config.max_nodes, model.config.node_categories, model.config.num_labels) == (2, [2], 2)
    processor = LPSProcessor.from_config(model.config, column_mapping=mapping)
    processor.save_pretrained(tmp_path)
    processor = LPSProcessor.from_pretrained(tmp_path)
    assert processor.column_mapping == mapping
    plain = LPSProcessor.from_config(model.config)([{mapping.get(key, key): row[key] for key in row} for row in rows])
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    for batch in (processor(rows), processor(columns), DataCollatorForGraphs(processor)(rows)):
        assert all(torch.equal(torch.as_tensor(batch[key]), torch.as_tensor(plain[key])) for key in plain)
    assert model(**processor(rows[0], return_tensors="pt")).loss.isfinite()


@pytest.mark.parametrize(
    ("mapping", "kind", "message"),
    [
        ({"target": "why"}, ValueError, r"column_mapping\['target'\]: expected one of 'edge_index'.*got 'why'"),
        ({"a": "y", "b": "y"}, ValueError, "column_mapping: expected one column for 'y', got 'a', 'b'"),
        ({"a": "y", "y": "label"}, ValueError, "Rename that column"),
        ({"a": 3}, TypeError, "column_mapping: expected a dict"),
        ("y", TypeError, "column_mapping: expected a dict"),
    ],
)
def test_a_wrong_mapping_is_refused(mapping, kind, message):
    with pytest.raises(kind, match=message):
        infer_config("graph-classification", [GRAPH], column_mapping=mapping)
    with pytest.raises(kind, match=message):
        LPSProcessor(column_mapping=mapping)


def test_a_backbone_without_weights_is_refused():
    with torch.device("meta"):
        backbone = ViTModel(ViTConfig(**SIZES, patch_size=8))
    with pytest.raises(ValueError, match="backbone: expected a model with its weights, got one on the meta device"):
        LPSForGraphClassification.from_backbone_pretrained(backbone, num_labels=2)
    with pytest.raises(TypeError, match="backbone_config: expected none beside a backbone"):
        LPSForGraphClassification.from_backbone_pretrained(backbone, backbone_config=backbone.config)


def test_data_that_does_not_tell_is_refused():
    backbone = ViTModel(ViTConfig(**SIZES, patch_size=8))
    make = LPSForGraphClassification.from_backbone_pretrained
    with pytest.raises(ValueError, match=r"column_mapping: expected columns of the data set, edge_index, .*, got 'target'"):
        make(backbone, dataset=[GRAPH], column_mapping={"target": "y"})
    with pytest.raises(ValueError, match=r"dataset: expected a column 'y', got edge_index, num_nodes, node_feat\.$"):
        make(backbone, dataset=[GRAPH])
    with pytest.raises(ValueError, match=r"dataset: expected a column 'y', .* with column_mapping, such as \{'class': 'y'\}\.$"):
        make(backbone, dataset=[{**GRAPH, "class": 1}])
    with pytest.raises(ValueError, match="labels: expected numbers, or in every row names of classes, got 'a'"):
        make(backbone, dataset=[{**GRAPH, "y": 0}, {**GRAPH, "y": "a"}])
    for size in (None, "3"):
        with pytest.raises(TypeError, match=f"column 'num_nodes': expected whole numbers, got {type(size).__name__} {size!r}"):
            make(backbone, dataset=[{**GRAPH, "y": 0}, {**GRAPH, "y": 0, "num_nodes": size}])
    with pytest.raises(ValueError, match="dataset: expected at least one row"):
        make(backbone, dataset=[])
    with pytest.raises(TypeError, match="dataset: expected a Dataset, a DatasetDict or a list of rows, got IterableDataset"):
        make(backbone, dataset=Dataset.from_list([GRAPH]).to_iterable_dataset())
    with pytest.raises(ValueError, match="dataset: LPSModel has no task"):
        LPSModel.from_backbone_pretrained(backbone, dataset=[GRAPH])
    with pytest.raises(ValueError, match="column_mapping: expected None without a dataset"):
        make(backbone, column_mapping={"target": "y"})
