"""Arguments of the scripts: flags, recipes, and what is refused before any work."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.task_arguments import DataArguments, ModelArguments, parse_arguments

RECIPES = Path(__file__).parents[2] / "scripts" / "recipes"
NEEDED = ["--dataset_name", "data", "--backbone_name_or_path", "vit", "--report_to", "none", "--use_cpu"]


def refusal(*flags, kind=ValueError):
    with pytest.raises(kind) as caught:
        parse_arguments(flags)
    return str(caught.value)


def write_recipe(tmp_path, content):
    (tmp_path / "recipe.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(tmp_path / "recipe.yaml")


def test_flags_are_sorted_into_three_groups(monkeypatch):
    flags = [*NEEDED, "--noise_scale", "0.5", "--fold", "3", "--backbone_learning_rate", "2e-5", "--centered_padding"]
    groups = parse_arguments(flags)
    assert [type(group) for group in groups] == [ModelArguments, DataArguments, LPSTrainingArguments]
    model_arguments, data_arguments, training_arguments = groups
    assert (model_arguments.backbone_name_or_path, model_arguments.noise_scale) == ("vit", 0.5)
    assert model_arguments.centered_padding is True
    assert (data_arguments.dataset_name, data_arguments.fold) == ("data", 3)
    assert training_arguments.backbone_learning_rate == 2e-5
    monkeypatch.setattr("sys.argv", ["script.py", *flags])
    assert parse_arguments()[:2] == groups[:2]


def test_a_recipe_gives_values_and_flags_override_them(tmp_path):
    recipe = {
        "dataset_name": "data",
        "backbone_name_or_path": "vit",
        "learning_rate": "1e-4",  # as YAML reads 1e-4 without a point
        "num_samples": 4,
        "from_scratch": True,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "fold": 2,
    }
    path = write_recipe(tmp_path, recipe)
    model_arguments, data_arguments, training_arguments = parse_arguments([path])
    assert (model_arguments.num_samples, model_arguments.from_scratch, data_arguments.fold) == (4, True, 2)
    assert training_arguments.learning_rate == 1e-4
    assert training_arguments.save_strategy == "no"
    flags = ["--num_samples", "2", "--from_scratch", "False", "--fold", "5", "--dataset_name", "other"]
    model_arguments, data_arguments, training_arguments = parse_arguments([path, *flags])
    assert (model_arguments.num_samples, model_arguments.from_scratch) == (2, False)
    assert (data_arguments.fold, data_arguments.dataset_name) == (5, "other")
    assert training_arguments.learning_rate == 1e-4


def test_a_model_on_the_command_line_takes_the_place_of_the_recipes(tmp_path):
    recipe = write_recipe(tmp_path, {"backbone_config": {"model_type": "vit"}, "dataset_name": "data", "report_to": "none"})
    for flags in (["--backbone_name_or_path", "vit"], ["--backbone_name_or_path=vit"]):
        model_arguments, data_arguments, _ = parse_arguments([recipe, *flags, "--use_cpu"])
        assert (model_arguments.backbone_name_or_path, model_arguments.backbone_config) == ("vit", None)
        assert data_arguments.dataset_name == "data"
    assert parse_arguments([recipe, "--backbone_revision", "dev", "--use_cpu"])[0].backbone_config == '{"model_type": "vit"}'
    message = refusal(recipe, "--backbone_name_or_path", "vit", "--model_name_or_path", "lps", "--use_cpu")
    assert message.endswith("expected exactly one of them, got model_name_or_path, backbone_name_or_path.")


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.yaml")))
def test_every_recipe_is_one_for_these_scripts(name):
    recipe = yaml.safe_load((RECIPES / name).read_text())
    # Data sets that are nowhere on the Hub are named on the command line.
    data = [] if "dataset_name" in recipe else ["--dataset_name", "data"]
    groups = parse_arguments([str(RECIPES / name), *data, "--use_cpu"])
    given = {key: value for group in groups for key, value in dataclasses.asdict(group).items()}
    for key, value in recipe.items():
        if key == "backbone_config":
            assert json.loads(given[key]) == value
        elif key != "report_to":
            assert given[key] == value, key


def test_what_is_missing_or_unknown_is_refused(tmp_path):
    model, data = NEEDED[2:], [*NEEDED[:2], *NEEDED[4:]]
    assert refusal(*model) == "dataset_name: expected a Hub id or a folder, got nothing. Give --dataset_name."
    exactly_one = "model_name_or_path, backbone_name_or_path, backbone_config: expected exactly one of them, got "
    assert refusal(*data) == f"{exactly_one}none."
    assert refusal(*NEEDED, "--model_name_or_path", "lps") == f"{exactly_one}model_name_or_path, backbone_name_or_path."
    flags = ("--backbone_config", "{}", "--model_name_or_path", "lps")
    assert refusal(*data, *flags) == f"{exactly_one}model_name_or_path, backbone_config."
    assert "--colour" in refusal(*NEEDED, "--colour", "red")
    recipe = write_recipe(tmp_path, {"learning_rat": 1e-4, "dataset_name": "data"})
    assert refusal(recipe, *NEEDED) == "recipe: unknown key 'learning_rat'. Expected flag names; see --help."
    for content, kind in (("", "NoneType"), ("- fold", "list"), ("fold", "str")):
        recipe = write_recipe(tmp_path, content)
        assert refusal(recipe, *NEEDED) == f"recipe {recipe}: expected lines of the form 'flag: value', got {kind}."
    recipe = write_recipe(tmp_path, "fold: 1\nfold: 2")
    assert refusal(recipe, *NEEDED) == f"recipe {recipe}: expected each flag once, got 'fold' twice."
    assert refusal("recipe.json", *NEEDED).startswith("recipe: expected a file ending in .yaml or .yml, got recipe.json.")
    assert "recipe.yml" in refusal(str(tmp_path / "recipe.yml"), *NEEDED, kind=FileNotFoundError)


@pytest.mark.parametrize("name", ["max_train_samples", "max_eval_samples", "num_eval_samples"])
def test_nothing_to_train_or_to_evaluate_on_is_refused(name):
    assert refusal(*NEEDED, f"--{name}", "0") == f"{name}: expected at least 1, got 0."


@pytest.mark.parametrize("share", ["-0.1", "nan"])
def test_a_report_of_no_share_is_refused(share):
    assert "report_time_share: expected a share of the training's time" in refusal(*NEEDED, "--report_time_share", share)


def test_a_value_of_the_wrong_type_ends_the_program(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments([*NEEDED, "--fold", "first"])
    assert caught.value.code == 2
    assert "argument --fold: invalid int value: 'first'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("centered_padding", "no", False),
        ("max_nodes", "None", None),
        ("node_categories", "3, 2", [3, 2]),
        ("noise_scale", "5e-1", 0.5),
    ],
)
def test_text_in_a_recipe_is_read_by_the_type_of_its_flag(tmp_path, name, value, expected):
    path = write_recipe(tmp_path, {name: value})
    assert getattr(parse_arguments([path, *NEEDED])[0], name) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_nodes", 3.5), ("max_nodes", True), ("from_scratch", "perhaps"), ("fold", [1]), ("learning_rate", True)],
)
def test_a_recipe_with_another_type_is_refused(tmp_path, name, value):
    path = write_recipe(tmp_path, {name: value})
    assert f"{name}: expected" in refusal(path, *NEEDED, kind=TypeError)


def test_numbers_of_a_backbone_in_a_recipe_are_read_too(tmp_path):
    path = write_recipe(tmp_path, {"backbone_config": {"model_type": "vit", "initializer_range": "1e-2"}, "dataset_name": "data"})
    config = json.loads(parse_arguments([path, "--report_to", "none", "--use_cpu"])[0].backbone_config)
    assert config == {"model_type": "vit", "initializer_range": 0.01}
    path = write_recipe(tmp_path, {"backbone_config": {"model_type": "lps_gin_id", "num_layers": "few"}, "dataset_name": "data"})
    assert "backbone_config['num_layers']: expected an int" in refusal(path, kind=TypeError)


def test_arguments_made_in_code_are_checked():
    with pytest.raises(TypeError, match="class_weighted: expected a bool, got str 'False'"):
        ModelArguments(class_weighted="False")
    with pytest.raises(TypeError, match="streaming: expected a bool, got str 'no'"):
        DataArguments(streaming="no")
    with pytest.raises(TypeError, match="backbone_learning_rate: expected a number or None, got str '1e-3'"):
        LPSTrainingArguments("out", report_to="none", backbone_learning_rate="1e-3")
