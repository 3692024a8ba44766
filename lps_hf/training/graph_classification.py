"""The shared core of graph classification scripts: their arguments, and model, processor, data and metrics made from them."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from datasets import DatasetDict
from transformers import AutoConfig, HfArgumentParser
from transformers.trainer_utils import EvalPrediction

from lps_hf.data.rows import fold_splits, infer_config, labels_of, load_dataset_for
from lps_hf.evaluation.metrics import compute_metrics_for, prior_baseline
from lps_hf.hub.checkpoints import publish, save_checkpoint
from lps_hf.models.backbones import vision_tower_config
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.models.processing_lps import LPSProcessor

from .arguments import LPSTrainingArguments

METRIC_FOR = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "average_precision",
    "regression": "mae",
}


@dataclass
class ModelArguments:
    """What to symmetrize, and how."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A symmetrized checkpoint to go on from; the fields below are then its own."}
    )
    backbone_name_or_path: str | None = field(
        default=None, metadata={"help": "Pretrained backbone to symmetrize: a Hub id or a folder."}
    )
    backbone_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the backbone."})
    from_scratch: bool = field(default=False, metadata={"help": "Give the backbone random weights instead of pretrained ones."})
    group: str = field(default="S_n", metadata={"help": "Symmetry group."})
    distribution: str = field(default="learned", metadata={"help": "learned, canonical, frame, haar or none."})
    num_samples: int = field(default=1, metadata={"help": "Group elements per graph in training."})
    noise_scale: float = field(default=1.0, metadata={"help": "Noise of the learned distribution is Uniform(0, this)."})
    temperature: float = field(default=0.01, metadata={"help": "Temperature of the soft permutation."})
    entropy_loss_coef: float = field(default=0.1, metadata={"help": "Weight of the entropy of the soft permutation."})
    interface_dropout: float = field(default=0.0, metadata={"help": "Dropout of the interface network."})
    grid_size: int | None = field(default=None, metadata={"help": "The backbone sees grid_size² tokens; default: its own grid."})
    padding_mode: str = field(default="zero", metadata={"help": "zero, reflect, replicate or circular."})
    centered_padding: bool = field(default=False, metadata={"help": "Pad on both sides."})
    patch_dropout: float = field(default=0.0, metadata={"help": "Share of tokens dropped in training."})

    def config_fields(self) -> dict[str, Any]:
        """The fields that `LPSConfig` has too."""
        names = {f.name for f in fields(LPSConfig)} & {f.name for f in fields(self)}
        return {**{name: getattr(self, name) for name in names}, "interface_config": {"dropout": self.interface_dropout}}


@dataclass
class DataArguments:
    """What to train and evaluate on."""

    dataset_name: str | None = field(default=None, metadata={"help": "Data set of graph rows: a Hub id or a folder."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration, where it has several."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the data set."})
    problem_type: str | None = field(
        default=None,
        metadata={"help": "single_label_classification, multi_label_classification or regression; default: by the labels."},
    )
    fold: int | None = field(default=None, metadata={"help": "Test fold of a seeded stratified cut of the train split."})
    num_folds: int = field(default=10, metadata={"help": "Number of folds."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on this many graphs, drawn by the seed."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on this many graphs of each split."})
    compare_with_scratch: bool = field(
        default=False, metadata={"help": "Train a second model with a random backbone on the same budget, and print both."}
    )


@dataclass
class GraphClassificationTask:
    """All that a training loop needs."""

    model: LPSForGraphClassification
    processor: LPSProcessor
    splits: DatasetDict
    """`train`, `test` and, where there is one, `validation`."""
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    metric: str
    """Name of the figure to report."""
    baseline: dict[str, float]
    """The test split's metrics of a prediction that ignores the graph."""


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[ModelArguments, DataArguments, LPSTrainingArguments]:
    """Read flags, or one YAML recipe and flags that override it.

    Args:
        arguments: Command-line arguments; those of the process by default.

    Returns:
        The three groups of arguments.

    Raises:
        ValueError: If the recipe has a key that is no flag, or a needed argument is missing.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = HfArgumentParser((ModelArguments, DataArguments, LPSTrainingArguments))
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        recipe_file = arguments.pop(0)
        recipe = yaml.safe_load(Path(recipe_file).read_text(encoding="utf-8"))
        if not isinstance(recipe, dict):
            raise ValueError(f"recipe {recipe_file}: expected lines of the form 'flag: value', got {type(recipe).__name__}.")
        known = {action.dest for action in parser._actions}
        unknown = sorted(set(recipe) - known)
        if unknown:
            raise ValueError(f"recipe: unknown key {unknown[0]!r}. Expected flag names; see --help.")
        parser.set_defaults(**recipe)
    model_arguments, data_arguments, training_arguments = parser.parse_args_into_dataclasses(arguments)
    if data_arguments.dataset_name is None:
        raise ValueError("dataset_name: expected a Hub id or a folder, got nothing. Give --dataset_name.")
    if (model_arguments.model_name_or_path is None) == (model_arguments.backbone_name_or_path is None):
        got = "none" if model_arguments.model_name_or_path is None else "both"
        raise ValueError(f"model_name_or_path and backbone_name_or_path: expected exactly one of them, got {got}.")
    for name in ("max_train_samples", "max_eval_samples"):
        if (most := getattr(data_arguments, name)) is not None and most < 1:
            raise ValueError(f"{name}: expected at least 1, got {most}.")
    return model_arguments, data_arguments, training_arguments


def prepare_task(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    training_arguments: LPSTrainingArguments,
    from_scratch: bool | None = None,
) -> GraphClassificationTask:
    """Load the data, make the model that fits them, its processor and metrics.

    Args:
        model_arguments: What to symmetrize.
        data_arguments: What to train on.
        training_arguments: Gives the seed of folds and subsets, and the number of samples at evaluation.
        from_scratch: Overrides `model_arguments.from_scratch`.

    Returns:
        `GraphClassificationTask`.

    Raises:
        ValueError: If an argument does not fit the data.
    """
    seed = training_arguments.seed
    splits = load_dataset_for(
        "graph-classification",
        data_arguments.dataset_name,
        data_arguments.dataset_config_name,
        data_arguments.dataset_revision,
    )
    inferred = infer_config("graph-classification", splits, data_arguments.problem_type)
    if training_arguments.num_eval_samples is not None:
        inferred["num_eval_samples"] = training_arguments.num_eval_samples
    for split in ("train", "test") if data_arguments.fold is None else ("train",):
        if split not in splits:
            hint = " Give --fold to cut one." if split == "test" else ""
            raise ValueError(
                f"dataset {data_arguments.dataset_name!r}: expected a split {split!r}, got {', '.join(splits)}.{hint}"
            )
    if data_arguments.fold is not None:
        splits = fold_splits(splits["train"], data_arguments.fold, data_arguments.num_folds, seed)
    model = _load_model(model_arguments, inferred, model_arguments.from_scratch if from_scratch is None else from_scratch)
    problem_type = model.config.problem_type
    train_labels = labels_of("graph-classification", splits["train"], problem_type)
    for split in splits:
        most = data_arguments.max_train_samples if split == "train" else data_arguments.max_eval_samples
        if most is not None and most < len(splits[split]):
            splits[split] = splits[split].shuffle(seed=seed).select(range(most))
    test_labels = labels_of("graph-classification", splits["test"], problem_type)
    return GraphClassificationTask(
        model=model,
        processor=LPSProcessor.from_config(model.config),
        splits=splits,
        compute_metrics=compute_metrics_for("graph-classification", problem_type, model.config.num_labels),
        metric=METRIC_FOR[problem_type],
        baseline=prior_baseline(problem_type, train_labels, test_labels),
    )


def make_results(
    task: GraphClassificationTask, metrics: dict[str, float], losses: list[float], num_steps: int, seed: int
) -> dict[str, Any]:
    """What `results.json` holds of one run.

    Args:
        task: The task.
        metrics: Metrics of the test split.
        losses: Training losses in order.
        num_steps: Optimizer steps.
        seed: The seed.

    Returns:
        `dict`: Figures with their budget.
    """
    return {
        "metric": task.metric,
        "test": metrics,
        "baseline": task.baseline,
        "train_loss_first": losses[0] if losses else None,
        "train_loss_last": losses[-1] if losses else None,
        "num_train": len(task.splits["train"]),
        "num_test": len(task.splits["test"]),
        "steps": num_steps,
        "seed": seed,
    }


def write_results(folder: str | Path, results: dict[str, Any]) -> None:
    """Write `results.json`, in one piece."""
    folder = Path(folder)
    temporary = folder / ".results.json"
    temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / "results.json")


def save_run(
    task: GraphClassificationTask, model: LPSForGraphClassification, arguments: LPSTrainingArguments, results: dict[str, Any]
) -> None:
    """Save a trained model with its code and figures to `arguments.output_dir`, and to the Hub with `push_to_hub`.

    Args:
        task: Gives the processor.
        model: The trained model, on one process.
        arguments: Where to.
        results: For `results.json`.
    """
    save_checkpoint(model, task.processor, arguments.output_dir)
    write_results(arguments.output_dir, results)
    if arguments.push_to_hub:
        # Trainer.push_to_hub would leave out the code that the checkpoint needs.
        repo_id = arguments.hub_model_id or Path(arguments.output_dir).name
        publish(model, task.processor, repo_id, private=arguments.hub_private_repo, token=arguments.hub_token)


def run_and_report(
    train: Callable[[bool | None], dict[str, Any]], data_arguments: DataArguments, arguments: LPSTrainingArguments, is_main: bool
) -> None:
    """Train, and with `compare_with_scratch` train a random backbone on the same budget; print both.

    Args:
        train: Runs the loop of a script; its argument says whether the backbone is random (`None`: as the flags say).
        data_arguments: Says whether to compare.
        arguments: Where to write; changed for the second run.
        is_main: Whether this process writes and prints.
    """
    results = train(None)
    if data_arguments.compare_with_scratch:
        output_dir = arguments.output_dir
        arguments.output_dir = str(Path(output_dir) / "scratch")
        arguments.push_to_hub, arguments.resume_from_checkpoint = False, None
        scratch = train(True)
        results["scratch"] = {key: value for key, value in scratch.items() if key != "baseline"}
        if is_main:
            write_results(output_dir, results)
    if not is_main:
        return
    metric = results["metric"]
    print(f"\n{'test ' + metric:<28}{results['test'][metric]:.4f}")
    if "scratch" in results:
        print(f"{'  random weights':<28}{results['scratch']['test'][metric]:.4f}")
    print(f"{'  prediction without graph':<28}{results['baseline'][metric]:.4f}")


def _load_model(arguments: ModelArguments, inferred: dict[str, Any], from_scratch: bool) -> LPSForGraphClassification:
    if arguments.model_name_or_path is not None:
        own = {key: value for key, value in inferred.items() if key == "num_eval_samples"}
        config = LPSConfig.from_pretrained(arguments.model_name_or_path, **own)
        config.problem_type = config.problem_type or inferred["problem_type"]
        if config.num_labels < inferred["num_labels"]:
            raise ValueError(
                f"model_name_or_path: expected a model with {inferred['num_labels']} labels for this data set, got one with "
                f"{config.num_labels}."
            )
        if from_scratch:
            return LPSForGraphClassification(config)
        return LPSForGraphClassification.from_pretrained(arguments.model_name_or_path, config=config)
    config_fields = {**inferred, **arguments.config_fields()}
    revision = arguments.backbone_revision
    if not from_scratch:
        return LPSForGraphClassification.from_backbone_pretrained(
            arguments.backbone_name_or_path, revision=revision, **config_fields
        )
    backbone_config = AutoConfig.from_pretrained(arguments.backbone_name_or_path, revision=revision or "main")
    backbone_config = vision_tower_config(backbone_config)
    backbone_config.dtype = None  # a checkpoint in half precision does not make a new model so
    return LPSForGraphClassification(LPSConfig(backbone_config=backbone_config, **config_fields))
