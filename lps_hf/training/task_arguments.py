"""Arguments of the training scripts: flags, or one YAML recipe and flags that override it."""

import json
import sys
from argparse import Action
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import CONFIG_MAPPING, HfArgumentParser

from lps_hf.models.configuration_base_networks import BASE_NETWORK_CONFIGS
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.field_types import check_fields, field_types, value_from_file

from .arguments import LPSTrainingArguments

# What to symmetrize comes in one of these forms.
MODEL_FLAGS = ("model_name_or_path", "backbone_name_or_path", "backbone_config")


@dataclass
class ModelArguments:
    """What to symmetrize, and how."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A symmetrized checkpoint to go on from; the fields below are then its own."}
    )
    backbone_name_or_path: str | None = field(
        default=None, metadata={"help": "Pretrained backbone to symmetrize: a Hub id or a folder."}
    )
    backbone_config: str | None = field(
        default=None,
        metadata={"help": 'Or a backbone with random weights: its configuration as JSON, such as \'{"model_type": "lps_mlp"}\'.'},
    )
    backbone_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the backbone."})
    from_scratch: bool = field(default=False, metadata={"help": "Give the backbone random weights instead of pretrained ones."})
    freeze_backbone: bool = field(default=False, metadata={"help": "Train the new parts only."})
    max_nodes: int | None = field(default=None, metadata={"help": "Size of the largest graph; default: that in the data."})
    node_categories: list[int] | None = field(
        default=None, metadata={"help": "Size of each category of nodes; default: by the data."}
    )
    edge_categories: list[int] | None = field(
        default=None, metadata={"help": "Size of each category of edges; default: by the data."}
    )
    group: str | None = field(default=None, metadata={"help": "Symmetry group; default: the task's own, as S_n for graphs."})
    distribution: str = field(default="learned", metadata={"help": "learned, canonical, frame, haar, exact or none."})
    num_samples: int = field(default=1, metadata={"help": "Group elements per input in training."})
    noise_scale: float = field(default=1.0, metadata={"help": "Factor on the noise of the learned distribution."})
    temperature: float | None = field(
        default=None, metadata={"help": "Temperature of the relaxation; default: 0.01 for S_n, 0.1 in products, 1 for images."}
    )
    entropy_loss_coef: float = field(default=0.1, metadata={"help": "Weight of the entropy of the soft permutation."})
    prior_loss_coef: float = field(default=0.0, metadata={"help": "Weight of -log p(identity|x), for images."})
    interface_dropout: float = field(default=0.0, metadata={"help": "Dropout of the interface network."})
    grid_size: int | None = field(default=None, metadata={"help": "The backbone sees grid_size² tokens; default: its own grid."})
    padding_mode: str = field(default="zero", metadata={"help": "zero, reflect, replicate or circular."})
    centered_padding: bool = field(default=False, metadata={"help": "Pad on both sides."})
    patch_dropout: float = field(default=0.0, metadata={"help": "Share of tokens dropped in training."})
    class_weighted: bool = field(default=False, metadata={"help": "Weigh the classes of nodes by their absence in the batch."})

    def __post_init__(self) -> None:
        check_fields(self)

    def config_fields(self) -> dict[str, Any]:
        """The fields that `LPSConfig` has too, without those that the task decides."""
        names = ({f.name for f in fields(LPSConfig)} & {f.name for f in fields(self)}) - {"backbone_config"}
        values = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.interface_dropout:
            values["interface_config"] = {"dropout": self.interface_dropout}
        return values


@dataclass
class DataArguments:
    """What to train and evaluate on."""

    dataset_name: str | None = field(default=None, metadata={"help": "Data set of rows: a Hub id or a folder."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration, where it has several."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the data set."})
    problem_type: str | None = field(
        default=None,
        metadata={"help": "single_label_classification, multi_label_classification or regression; default: by the labels."},
    )
    fold: int | None = field(default=None, metadata={"help": "Test fold of a seeded stratified cut of the train split."})
    num_folds: int = field(default=10, metadata={"help": "Number of folds."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on this many rows, drawn by the seed."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on this many rows of each split."})
    report_rows: int = field(
        default=64,
        metadata={
            "help": "Measure metric and equivariance error against the number of samples on at most so many test rows; 0: do not."
        },
    )
    report_time_share: float = field(
        default=0.1,
        metadata={
            "help": "Let that take about this share of the training's time at most, with fewer rows, draws and sample counts "
            "where it would take longer; inf: as long as it takes."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read training rows while training, without a copy of the data set; needs --max_steps. Sizes of the model "
            "that are not given are read off the first rows."
        },
    )
    num_first_rows: int = field(default=1000, metadata={"help": "With --streaming, how many training rows to read beforehand."})
    compare_with_scratch: bool = field(
        default=False, metadata={"help": "Train a second model with a random backbone on the same budget, and print both."}
    )

    def __post_init__(self) -> None:
        check_fields(self)


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[ModelArguments, DataArguments, LPSTrainingArguments]:
    """Read flags, or one YAML recipe and flags that override it.

    Args:
        arguments: Command-line arguments; those of the process by default.

    Returns:
        The three groups of arguments.

    Raises:
        ValueError: If the recipe has a key that is no flag, or a needed argument is missing.
        TypeError: If a value of the recipe is not of the flag's type.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    groups: Any = (ModelArguments, DataArguments, LPSTrainingArguments)
    # The whole list of flags would bury what is wrong with one of them.
    parser = HfArgumentParser(groups, usage="%(prog)s [RECIPE.yaml] [--FLAG VALUE ...]")
    if arguments and not arguments[0].startswith("-"):
        if not arguments[0].lower().endswith((".yaml", ".yml")):
            raise ValueError(f"recipe: expected a file ending in .yaml or .yml, got {arguments[0]}. Flags begin with --.")
        recipe_file = arguments.pop(0)
        types = {name: annotation for group in groups for name, annotation in field_types(group).items()}
        recipe = _read_recipe(recipe_file, {action.dest: action for action in parser._actions}, types)
        # A model on the command line takes the place of the recipe's, in whichever of the three forms it is.
        if any(argument.split("=")[0] in [f"--{name}" for name in MODEL_FLAGS] for argument in arguments):
            recipe = {name: value for name, value in recipe.items() if name not in MODEL_FLAGS}
        parser.set_defaults(**recipe)
    model_arguments, data_arguments, training_arguments = parser.parse_args_into_dataclasses(arguments)
    if data_arguments.dataset_name is None:
        raise ValueError("dataset_name: expected a Hub id or a folder, got nothing. Give --dataset_name.")
    given = [name for name in MODEL_FLAGS if getattr(model_arguments, name) is not None]
    if len(given) != 1:
        raise ValueError(f"{', '.join(MODEL_FLAGS)}: expected exactly one of them, got {', '.join(given) or 'none'}.")
    for name in ("max_train_samples", "max_eval_samples", "num_first_rows"):
        if (most := getattr(data_arguments, name)) is not None and most < 1:
            raise ValueError(f"{name}: expected at least 1, got {most}.")
    if training_arguments.max_steps <= 0 and not training_arguments.num_train_epochs > 0:
        raise ValueError(f"num_train_epochs: expected a number above 0, got {training_arguments.num_train_epochs}.")
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if getattr(training_arguments, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(training_arguments, name)}.")
    if not training_arguments.learning_rate >= 0:
        raise ValueError(f"learning_rate: expected a number of at least 0, got {training_arguments.learning_rate}.")
    if data_arguments.report_rows < 0:
        raise ValueError(f"report_rows: expected at least 0, got {data_arguments.report_rows}.")
    if not data_arguments.report_time_share >= 0:
        raise ValueError(
            f"report_time_share: expected a share of the training's time of at least 0, or inf, got "
            f"{data_arguments.report_time_share}. For no report set report_rows to 0."
        )
    if data_arguments.streaming and training_arguments.max_steps <= 0:
        raise ValueError("max_steps: expected the number of steps of a streamed run, whose length is unknown. Give --max_steps.")
    if data_arguments.streaming and data_arguments.fold is not None:
        raise ValueError("fold: expected none with --streaming, which cannot cut folds. Leave one of them out.")
    return model_arguments, data_arguments, training_arguments


def _read_backbone_config(values: dict[str, Any]) -> dict[str, Any]:
    """The backbone's configuration of a recipe, with the types that its family declares."""
    family = str(values.get("model_type"))
    if family not in BASE_NETWORK_CONFIGS and family not in CONFIG_MAPPING:
        return values  # whoever makes the configuration says which there are
    types = field_types(BASE_NETWORK_CONFIGS[family] if family in BASE_NETWORK_CONFIGS else CONFIG_MAPPING[family])
    return {name: value_from_file(f"backbone_config[{name!r}]", value, types.get(name, Any)) for name, value in values.items()}


def _read_recipe(file: str, actions: Mapping[str, Action], types: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a recipe, in the form of defaults of a parser."""
    try:
        text = Path(file).read_text(encoding="utf-8")
        recipe = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {file}: expected YAML, got something else. {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"recipe {file}: expected lines of the form 'flag: value', got {type(recipe).__name__}.")
    names = [key.value for key, _ in yaml.compose(text, yaml.SafeLoader).value]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:  # YAML itself would keep the last of them
        raise ValueError(f"recipe {file}: expected each flag once, got {twice!r} twice.")
    unknown = sorted(map(str, set(recipe) - set(actions)))
    if unknown:
        raise ValueError(f"recipe: unknown key {unknown[0]!r}. Expected flag names; see --help.")
    if isinstance(recipe.get("backbone_config"), dict):
        recipe["backbone_config"] = json.dumps(_read_backbone_config(recipe["backbone_config"]))
    values = {}
    for name, value in recipe.items():
        values[name] = value_from_file(f"recipe: {name}", value, types.get(name, Any))
        choices = actions[name].choices
        if choices is not None and values[name] is not None and values[name] not in choices:
            raise ValueError(f"recipe: {name}: expected one of {', '.join(map(repr, choices))}, got {value!r}.")
    return values
