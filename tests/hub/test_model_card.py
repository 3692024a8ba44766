"""The model card: whole sections of a tiny model's, every kind of model, and the header as the Hub reads it."""

import re

import pytest
import torch
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

from lps_hf.hub.checkpoints import save_checkpoint
from lps_hf.hub.model_card import LPSModelCardData, complete_card, make_model_card
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.processing_lps import LPSProcessor
from tests.task_cases import CASES, task_case
from tests.tiny import tiny_classifier, tiny_vit

RESULTS = {
    "task": "graph-classification",
    "dataset": {"name": "graphs-datasets/MUTAG", "split": "test", "fold": 2, "num_folds": 10, "config_name": None},
    "backbone": "facebook/dinov2-small",
    "metric": "accuracy",
    "test": {"loss": 0.46, "accuracy": 15 / 19, "roc_auc": 0.87179},
    "test_deviation": {"accuracy": 0.0213},
    "baseline": {"accuracy": 13 / 19, "roc_auc": 0.5},
    "baseline_name": "prediction without graph",
    "num_train": 150,
    "num_test": 19,
    "steps": 120,
    "seed": 0,
    "train_loss_first": 0.97833,
    "train_loss_last": 0.62960,
    "num_eval_samples": 10,
    "training": {"learning_rate": 1e-4, "backbone_learning_rate": 2e-5, "weight_decay": None, "num_train_epochs": 12.0},
    "equivariance": {
        "num_rows": 32,
        "num_group_elements": 4,
        "num_samples": 10,
        "relative_error": 0.15612,
        "standard_error": 0.00519,
        "backbone_relative_error": 0.46531,
        "backbone_standard_error": 0.0203,
        "coupled_relative_error": 3.21e-16,
    },
    "samples": [
        {"num_samples": 1, "metric": 0.776, "metric_deviation": 0.031, "equivariance_error": 0.4512},
        {"num_samples": 10, "metric": 0.789, "metric_deviation": None, "equivariance_error": 0.156},
    ],
    "samples_rows": 19,
    "samples_draws": 4,
    "environment": {"lps_hf": "0.1.0", "torch": "2.13.0", "device": "cpu"},
}


PARAMETERS = f"{sum(parameter.numel() for parameter in tiny_classifier().parameters()):,}"


def section(card: ModelCard | str, title: str) -> str:
    """What stands under a heading, up to the next of the same level."""
    return re.search(rf"^## {title}\n\n(.*?)(?=^## |\Z)", str(card), re.MULTILINE | re.DOTALL)[1].strip()


def summary(card: ModelCard) -> str:
    return card.text.split("## ")[0].strip()


@pytest.fixture(scope="module")
def card():
    with torch.random.fork_rng():
        return make_model_card(tiny_classifier(), RESULTS, model_id="me/tiny", figure="samples.png", tags="molecules")


def test_the_summary_says_what_it_is_and_how_far_its_figure_may_be_trusted(card):
    mutag = "[graphs-datasets/MUTAG](https://huggingface.co/datasets/graphs-datasets/MUTAG)"
    dino = "[facebook/dinov2-small](https://huggingface.co/facebook/dinov2-small)"
    method = "[probabilistic symmetrization](https://arxiv.org/abs/2306.02866)"
    assert summary(card) == (
        "# tiny\n\n"
        f"A ViT of {PARAMETERS} parameters, pretrained as {dino}, made equivariant to permutations of the nodes (`S_n`) by "
        f"{method}, for graph classification on {mutag}.\n"
        "Its accuracy is 0.789 ± 0.094 (binomial standard error) on 19 test rows, with 10 samples for each; prediction without "
        "graph: 0.684."
    )


def test_inputs_and_outputs_by_key_shape_and_representation(card):
    assert section(card, "Inputs and outputs").split("\n\n", 1)[1] == (
        "| input | shape and type | representation | key of a row |\n"
        "| --- | --- | --- | --- |\n"
        "| `node_categories` | (batch, nodes, 2) int64 | `n 5`, one-hot inside the model | node_feat |\n"
        "| `edge_index` | (batch, 2, edges) int64 | the ends of every edge | edge_index |\n"
        "| `edge_categories` | (batch, edges, 1) int64 | `n n 3`, a channel that marks edges and one-hot categories "
        "| edge_attr |\n"
        "| `edge_mask` | (batch, edges) bool | true on edges | made by the processor |\n"
        "| `node_mask` | (batch, nodes) bool | true on nodes, which come before padding | made by the processor |\n\n"
        "| output | shape | representation | meaning |\n"
        "| --- | --- | --- | --- |\n"
        "| `logits` | (batch, 3) | `3` | a score for every class |\n"
        "| `standard_error` | (batch, 3) | of the same | Monte-Carlo error of the average; `None` for one sample |"
    )


def test_results_with_baseline_spread_and_error_against_samples(card):
    mutag = "[graphs-datasets/MUTAG](https://huggingface.co/datasets/graphs-datasets/MUTAG)"
    assert section(card, "Results") == (
        "| metric | this model | prediction without graph |\n"
        "| --- | --- | --- |\n"
        "| accuracy ↑ | 0.789 ± 0.021 | 0.684 |\n"
        "| area under the ROC curve ↑ | 0.872 | 0.500 |\n\n"
        f"Measured on 19 test rows of {mutag}, fold 2 of 10 in a seeded cut, with 10 samples for each. Behind ± stands the "
        "standard deviation over draws of group elements.\n"
        "The number of rows alone gives this accuracy a binomial standard error of 0.0935, computed from the two and not "
        "measured.\n\n"
        "### Equivariance\n\n"
        "The relative equivariance error is the root mean square of φ(g · x) − g · φ(x) over random g, divided by that of φ(x). "
        "Zero is perfect.\n\n"
        "| | relative equivariance error |\n"
        "| --- | --- |\n"
        "| this model, 10 samples | 0.156 ± 0.005 |\n"
        "| its backbone alone, same weights | 0.465 ± 0.020 |\n"
        "| this model in float64, noise moved along with the input | 3.2e-16 |\n\n"
        "Measured on 32 rows with 4 group elements each; behind ± stands the standard error over group elements and draws, for "
        "these rows.\n\n"
        "More samples bring the average closer to φ, and the error down as 1/√samples.\n\n"
        "| samples | accuracy | relative equivariance error |\n"
        "| --- | --- | --- |\n"
        "| 1 | 0.776 ± 0.031 | 0.451 |\n"
        "| 10 | 0.789 | 0.156 |\n"
        "| backbone alone | | 0.465 ± 0.020 |\n\n"
        "The accuracy in this table is that of all 19 rows: mean ± standard deviation over independent estimates from 4 sets of "
        "draws.\n\n"
        "![accuracy and equivariance error against the number of samples](samples.png)"
    )


def test_training_tells_settings_budget_and_data(card):
    assert section(card, "Training") == (
        "| setting | value |\n"
        "| --- | --- |\n"
        "| learning rate | 0.0001 |\n"
        "| learning rate of the backbone | 2e-05 |\n"
        "| epochs | 12 |\n"
        "| training rows | 150 |\n"
        "| optimizer steps | 120 |\n"
        "| seed | 0 |\n"
        "| training loss, first and last logged | 0.978 → 0.630 |\n"
        "| data | [graphs-datasets/MUTAG](https://huggingface.co/datasets/graphs-datasets/MUTAG), fold 2 of 10 in a seeded cut |"
    )
    assert section(card, "Environment") == "- lps_hf: 0.1.0\n- PyTorch: 2.13.0\n- device: cpu"


def test_the_header_survives_the_hubs_own_reading(card, tmp_path):
    card.save(tmp_path / "README.md")
    header = metadata_load(tmp_path / "README.md")
    assert {key: header[key] for key in header if key != "model-index"} == {
        "base_model": "facebook/dinov2-small",
        "datasets": ["graphs-datasets/MUTAG"],
        "library_name": "transformers",
        "metrics": ["accuracy"],
        "pipeline_tag": "graph-ml",
        "tags": ["lps_hf", "probabilistic-symmetrization", "equivariance", "S_n", "molecules"],
    }
    name, entries = model_index_to_eval_results(header["model-index"])
    assert name == "tiny"
    assert {(entry.task_type, entry.dataset_type, entry.dataset_split) for entry in entries} == {
        ("graph-ml", "graphs-datasets/MUTAG", "test")
    }
    assert [(entry.metric_type, entry.metric_value, entry.metric_args) for entry in entries] == [
        ("accuracy", 0.789474, {"num_samples": 10}),
        ("roc_auc", 0.87179, {"num_samples": 10}),
        ("equivariance_error", 0.15612, {"num_samples": 10}),
        ("accuracy", 0.776, {"num_samples": 1, "num_rows": 19}),
        ("equivariance_error", 0.4512, {"num_samples": 1}),
        ("accuracy", 0.789, {"num_samples": 10, "num_rows": 19}),
    ]
    assert str(ModelCard.load(tmp_path / "README.md")) == str(card)


def test_what_is_given_stands_in_the_header_and_the_licence_is_no_longer_missing():
    given = {"license": "cc-by-nc-4.0", "language": "en", "base_model": "me/other", "datasets": ["me/rows"]}
    card = make_model_card(tiny_classifier(), RESULTS, **given, notes="Trained on a **Tuesday**.")
    assert {key: card.data.to_dict()[key] for key in given} == given
    assert "licence" not in card.text
    assert "\n\nTrained on a **Tuesday**.\n\n" in card.text


def test_nothing_is_said_of_what_is_not_known():
    card = make_model_card(tiny_classifier())
    assert summary(card) == (
        "# Symmetrized ViT for graph classification\n\n"
        f"A ViT of {PARAMETERS} parameters, made equivariant to permutations of the nodes (`S_n`) by [probabilistic "
        "symmetrization](https://arxiv.org/abs/2306.02866), for graph classification."
    )
    assert set(card.data.to_dict()) == {"library_name", "pipeline_tag", "tags"}
    titles = re.findall("^## (.*)", card.text, re.MULTILINE)
    assert titles == ["What it computes", "Inputs and outputs", "How to use", "Limitations", "Citation"]
    limitations = section(card, "Limitations")
    assert "No evaluation is reported" in limitations
    assert "No licence was given" in limitations
    assert not re.search(r"None|null|nan|undefined", card.text.replace("`None` for one sample", ""))


def test_folders_and_generated_data_are_no_hub_ids():
    results = {**RESULTS, "backbone": "vit-small", "dataset": {"name": "circular skip links, 13 nodes", "generated": True}}
    card = make_model_card(tiny_classifier(), results)
    assert {"base_model", "datasets"}.isdisjoint(card.data.to_dict())
    assert card.data.eval_results[0].dataset_type == "circular-skip-links-13-nodes"
    assert "graph classification on generated data (circular skip links, 13 nodes).\n" in card.text
    assert "pretrained as `vit-small`" in card.text
    assert "huggingface.co" not in card.text


def test_a_folder_is_told_by_the_hub_id_that_is_given_for_it():
    results = {**RESULTS, "dataset": {"name": "data/mutag", "local": True, "split": "test"}}
    given = make_model_card(tiny_classifier(), results, datasets="graphs-datasets/MUTAG")
    assert given.data.eval_results[0].dataset_type == "graphs-datasets/MUTAG"
    assert "of [graphs-datasets/MUTAG](" in section(given, "Results")
    unknown = make_model_card(tiny_classifier(), results)
    assert unknown.data.eval_results[0].dataset_type == "data-mutag"
    assert "datasets" not in unknown.data.to_dict()
    assert "of `data/mutag`, with" in section(unknown, "Results")


@pytest.mark.parametrize(
    ("accuracy", "text"), [(1.0, "all right, the true rate of mistakes"), (0.0, "all wrong, the true rate of")]
)
def test_no_spread_of_zero_is_claimed(accuracy, text):
    results = {**RESULTS, "test": {"accuracy": accuracy}, "test_deviation": None, "num_test": 600}
    shown = section(make_model_card(tiny_classifier(), results), "Results")
    assert f"With 600 rows {text}" in shown
    assert "is below 0.00500 with 95 % probability (the rule of three)" in shown
    assert "binomial" not in shown


def test_deviations_of_a_part_of_the_rows_are_not_told_of_all():
    shown = section(make_model_card(tiny_classifier(), {**RESULTS, "samples_rows": 10}), "Results")
    assert "| accuracy ↑ | 0.789 | 0.684 |" in shown
    assert "is that of the first 10 rows, and not of as many as above: mean ±" in shown
    assert "standard deviation over draws of group elements" not in shown


def test_a_report_that_was_cut_is_said_to_be():
    text = "fewer rows, draws and numbers of samples than usual, to take no more than about 10% of the training's time."
    cards = [str(make_model_card(tiny_classifier(), {**RESULTS, **more})) for more in ({}, {"report_time_share": 0.1})]
    assert [text in card for card in cards] == [False, True]


def test_a_metric_of_a_few_rows_is_no_figure_of_the_model_index():
    more = {"samples_rows": 2, "samples": [{"num_samples": 1, "metric": 1.0, "equivariance_error": 0.5}]}
    cards = [make_model_card(tiny_classifier(), {**RESULTS, **more, **cut}) for cut in ({}, {"report_time_share": 0.1})]
    names = [[entry.metric_name for entry in card.data.eval_results] for card in cards]
    assert "accuracy, 1 sample" in names[0]
    assert names[1] == [name for name in names[0] if name != "accuracy, 1 sample"]


def test_a_deviation_of_rounding_is_none():
    shown = section(make_model_card(tiny_classifier(), {**RESULTS, "test_deviation": {"accuracy": 1.2e-16}}), "Results")
    assert "| accuracy ↑ | 0.789 | 0.684 |" in shown


def test_more_error_than_the_backbone_is_explained():
    samples = [{"num_samples": 1, "equivariance_error": 0.5}, {"num_samples": 2, "equivariance_error": 0.4}]
    explanation = "With few samples it is above the backbone's"
    assert explanation in make_model_card(tiny_classifier(), {**RESULTS, "samples": samples}).text
    assert explanation not in make_model_card(tiny_classifier(), RESULTS).text


@pytest.mark.parametrize(("warmup", "row"), [(0.1, "warm-up steps, as a share | 0.1"), (500, "warm-up steps | 500")])
def test_warm_up_in_steps_or_as_a_share_of_them(warmup, row):
    training = {"warmup_steps": warmup, "num_processes": 1}
    assert section(make_model_card(tiny_classifier(), {"training": training}), "Training").splitlines()[2:] == [f"| {row} |"]


def test_an_exact_zero_has_no_digits():
    results = {**RESULTS, "equivariance": {"relative_error": 0.1, "coupled_relative_error": 0.0}}
    assert "noise moved along with the input | 0 |" in make_model_card(tiny_classifier(), results).text


def test_a_second_run_on_the_same_budget_is_a_column():
    results = {**RESULTS, "scratch": {"test": {"accuracy": 0.7368}}}
    shown = section(make_model_card(tiny_classifier(), results), "Results")
    assert "| accuracy ↑ | 0.789 ± 0.021 | 0.684 | 0.737 |\n| area under the ROC curve ↑ | 0.872 | 0.500 |  |" in shown


@pytest.mark.parametrize(
    ("distribution", "says", "says_not"),
    [
        ("learned", "p(g | x) is learned", "canonical"),
        ("canonical", "one learned pose for every input", "num_samples=50"),
        ("haar", "plain group averaging", "p(g | x) is learned"),
        ("frame", "uniform on a predefined frame: the Laplacian's eigenvectors", "learned"),
        ("exact", "every element of a predefined frame", "standard_error"),
        ("none", "**not symmetrized**", "standard_error"),
    ],
)
def test_every_distribution_is_described_by_what_it_does(distribution, says, says_not):
    card = make_model_card(tiny_classifier(distribution=distribution), RESULTS)
    assert says in card.text
    assert says_not not in card.text
    is_random = distribution in ("learned", "haar", "frame")
    assert ("1/√samples" in card.text) == is_random
    assert ("What a call returns is an estimate" in card.text) == is_random
    assert ("made equivariant" in card.text) == (distribution != "none")
    assert ("equivariance" in card.data.tags) == (distribution != "none")
    assert "this model, 10 samples" in card.text if is_random else "this model |" in card.text


@pytest.mark.parametrize(
    ("group", "action", "interpolates"),
    [
        ("C_4", "quarter turns of images", False),
        ("D_4", "reflections and quarter turns of images", False),
        ("C_8", "turns of images by 1/8 of a circle", True),
    ],
)
def test_turns_of_images(group, action, interpolates):
    config = LPSConfig(backbone_config=tiny_vit(), group=group, distribution="exact")
    config.architectures = ["LPSForImageClassification"]
    card = make_model_card(config)
    assert f"made equivariant to {action} (`{group}`)" in card.text
    assert "The average is taken over every element of the group" in card.text
    assert ("up to that interpolation" in card.text) == interpolates
    assert "nodes" not in section(card, "Limitations")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["cycle", "path", "star"], "Classes, in the order of the scores: cycle, path, star."),
        (["0", "1", "2"], None),
        (None, None),
    ],
)
def test_names_of_classes_where_they_say_something(names, shown):
    labels = {} if names is None else {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    text = make_model_card(tiny_classifier(**labels)).text
    assert shown in text if shown else "Classes, in" not in text


def test_auto_is_described_with_its_caveat():
    card = make_model_card(tiny_classifier(num_eval_samples="auto"), {**RESULTS, "num_eval_samples": "auto"})
    assert "as many draws of g as each input needs" in card.text
    assert "with as many samples as each needs" in summary(card)
    assert '`num_samples="auto"` stops too early' in card.text


def test_the_function_itself_without_a_head():
    backbone, fields = {"model_type": "lps_mlp", "hidden_sizes": [4]}, {"inputs": {"velocities": "n v"}, "output": "v"}
    model = LPSModel(LPSConfig(backbone_config=backbone, group="O(3)", max_nodes=4, **fields))
    assert "\n# vectors\n" in make_model_card(model, model_id="me/vectors").text
    card = make_model_card(model)
    assert "\n# Symmetrized MLP\n" in card.text
    assert "for any task" not in card.text
    assert "| `output` | (batch, 3) | `v` | the output of φ |" in card.text
    assert "The output is equivariant, it turns with the input: φ(g · x) = g · φ(x)." in card.text
    assert "LPSTrainer" not in card.text


def test_velocities_alone_make_an_example_too():
    fields = {"inputs": {"velocities": "n v"}, "output": "n v", "group": "S_n x O(3)", "max_nodes": 4}
    config = LPSConfig(backbone_config={"model_type": "lps_mlp", "hidden_sizes": [4]}, **fields)
    config.architectures = ["LPSForParticleDynamics"]
    code = section(make_model_card(config), "How to use")
    assert '"velocities": [[0.0, 0.0, 0.0]] * 3,\n}' in code
    assert '"target_positions": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]' in code


@pytest.mark.parametrize("task", CASES)
def test_the_code_of_every_kind_of_card_runs(task, tmp_path, monkeypatch):
    """The package's block, and then that for fine-tuning, as a reader would paste them, on the model that the card is of."""
    model, processor, _ = task_case(task)
    save_checkpoint(model, processor, tmp_path / "model", card=(card := make_model_card(model, {"task": task}, model_id="model")))
    assert f"for {task.replace('-', ' ')}.\n" in card.text
    monkeypatch.chdir(tmp_path)
    if task == "image-classification":
        pillow = pytest.importorskip("PIL.Image")
        pillow.new("RGB", (16, 16)).save("picture.png")
    blocks = re.findall("```python\n(.*?)```", card.text, re.DOTALL)
    scope: dict = {}
    exec(blocks[0], scope)
    assert torch.isfinite(scope["out"].logits).all()
    assert isinstance(scope["processor"], LPSProcessor)
    exec(next(block for block in blocks if "pipeline(" in block), scope)
    training = next(block for block in blocks if "LPSTrainer" in block)
    exec(training.replace("num_train_epochs=10", "max_steps=1, save_strategy='no'"), scope)


def test_a_finished_card_learns_where_it_is_published():
    card = make_model_card(tiny_classifier(), RESULTS)
    given = {"license": "mit", "tags": ["molecules"], "datasets": "me/rows"}
    published = complete_card(f"{card}\nWritten by hand: 1 + 1 = 2.\n", model_id="me/tiny", **given)
    assert {name: published.data[name] for name in ("license", "datasets")} == {"license": "mit", "datasets": "me/rows"}
    assert published.data.tags == [*card.data.tags, "molecules"]
    expected = make_model_card(tiny_classifier(), RESULTS, model_id="me/tiny", **given).text.split("\n", 2)[2]
    assert published.text.split("\n", 2)[2] == f"{expected}\nWritten by hand: 1 + 1 = 2.\n"
    assert str(complete_card(card)) == str(card)


def test_a_configuration_gives_the_card_of_its_model():
    model = tiny_classifier()
    model.config.architectures = ["LPSForGraphClassification"]
    assert str(make_model_card(model.config, RESULTS)) == str(make_model_card(model, RESULTS))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"license": 3}, "license: expected a str, got int 3."),
        ({"tags": {"a": 1}}, "tags: expected a str or a list of them, got {'a': 1}."),
        ({"results": [1]}, "results: expected a dict as in results.json, got list."),
    ],
)
def test_a_wrong_argument_is_named(given, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        LPSModelCardData(**given)


def test_only_models_of_the_package_have_such_a_card():
    with pytest.raises(TypeError, match="expected a model of lps_hf or its LPSConfig, got ViTConfig"):
        make_model_card(tiny_vit())
    config = tiny_classifier().config
    config.architectures = ["ViTModel"]
    with pytest.raises(ValueError, match="expected a class of lps_hf such as LPSForGraphClassification, got 'ViTModel'"):
        make_model_card(config)
    with pytest.raises(ValueError, match=re.escape("Call compute(model) first.")):
        LPSModelCardData().render()
