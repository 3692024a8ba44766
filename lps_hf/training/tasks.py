"""The shared core of the training scripts: model, processor, data and metrics of a task, made from arguments."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.trainer_utils import EvalPrediction

from lps_hf.data.rows import fold_splits, infer_config, load_dataset_for, with_all_pairs
from lps_hf.evaluation.baselines import baseline_of
from lps_hf.evaluation.metrics import compute_metrics_for, metric_of
from lps_hf.hub.checkpoints import publish, save_checkpoint
from lps_hf.models import modeling_heads_lps as heads
from lps_hf.models.backbones import vision_tower_config
from lps_hf.models.configuration_base_networks import BASE_NETWORK_CONFIGS
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.processing_lps import LPSProcessor

from .arguments import LPSTrainingArguments
from .task_arguments import DataArguments, ModelArguments

# Adding a task is one line: the head that it trains.
TASKS: dict[str, type[heads.LPSTaskModel]] = {
    "graph-classification": heads.LPSForGraphClassification,
    "node-classification": heads.LPSForNodeClassification,
    "link-prediction": heads.LPSForLinkPrediction,
    "particle-dynamics": heads.LPSForParticleDynamics,
    "molecule-regression": heads.LPSForGraphClassification,
    "point-cloud-classification": heads.LPSForPointCloudClassification,
    "image-classification": heads.LPSForImageClassification,
}

# What the task's baseline is, in words, where it is not a prediction that ignores the input.
BASELINE_NAMES = {
    "particle-dynamics": "last position",
    "molecule-regression": "training mean",
    "point-cloud-classification": "prediction without points",
    "image-classification": "prediction without image",
}


@dataclass
class Task:
    """All that a training loop needs."""

    name: str
    model: heads.LPSTaskModel
    processor: LPSProcessor
    splits: DatasetDict
    """`train`, `test` and, where there is one, `validation`."""
    metric: str
    """Name of the figure to report."""
    baseline: dict[str, float]
    """The test split's metrics of a prediction that ignores the input, or of a naive one."""

    def metrics_of(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """What turns the predictions for a split into metrics."""
        config = self.model.config
        return compute_metrics_for(self.name, config.problem_type, config.num_labels, rows=self.splits[split])


def prepare_task(
    task_name: str,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    training_arguments: LPSTrainingArguments,
    from_scratch: bool | None = None,
) -> Task:
    """Load the data, make the model that fits them, its processor and metrics.

    Args:
        task_name: A key of `TASKS`.
        model_arguments: What to symmetrize.
        data_arguments: What to train on.
        training_arguments: Gives the seed of folds and subsets, and the number of samples at evaluation.
        from_scratch: Overrides `model_arguments.from_scratch`.

    Returns:
        `Task`.

    Raises:
        ValueError: If an argument does not fit the data.
    """
    seed = training_arguments.seed
    name = data_arguments.dataset_name
    assert name is not None  # parse_arguments has seen to it
    splits = load_dataset_for(task_name, name, data_arguments.dataset_config_name, data_arguments.dataset_revision)
    for split in ("train", "test") if data_arguments.fold is None else ("train",):
        if split not in splits:
            hint = " Give --fold to cut one." if split == "test" else ""
            raise ValueError(f"dataset {name!r}: expected a split {split!r}, got {', '.join(splits)}.{hint}")
    if data_arguments.fold is not None:
        splits = fold_splits(splits["train"], data_arguments.fold, data_arguments.num_folds, seed)
    inferred = infer_config(task_name, splits, data_arguments.problem_type)
    if training_arguments.num_eval_samples is not None:
        inferred["num_eval_samples"] = training_arguments.num_eval_samples
    train_rows = splits["train"]
    for split in splits:
        most = data_arguments.max_train_samples if split == "train" else data_arguments.max_eval_samples
        if most is not None and most < len(splits[split]):
            splits[split] = splits[split].shuffle(seed=seed).select(range(most))
    if task_name == "link-prediction":
        splits["test"] = splits["test"].map(with_all_pairs)
    is_random = model_arguments.from_scratch if from_scratch is None else from_scratch
    model = _load_model(task_name, model_arguments, inferred, is_random)
    if model_arguments.freeze_backbone:
        model.freeze_backbone()
    return Task(
        name=task_name,
        model=model,
        processor=_make_processor(model.config, model_arguments),
        splits=splits,
        metric=metric_of(task_name, model.config.problem_type),
        baseline=baseline_of(task_name, model.config.problem_type, train_rows, splits["test"]),
    )


def make_results(task: Task, metrics: dict[str, float], losses: list[float], num_steps: int, seed: int) -> dict[str, Any]:
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
        "task": task.name,
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


def save_run(task: Task, model: heads.LPSTaskModel, arguments: LPSTrainingArguments, results: dict[str, Any]) -> None:
    """Save a trained model with its code and figures to `arguments.output_dir`, and to the Hub with `push_to_hub`.

    Args:
        task: Gives the processor.
        model: The trained model, on one process.
        arguments: Where to.
        results: For `results.json`.
    """
    folder = Path(str(arguments.output_dir))
    save_checkpoint(model, task.processor, folder)
    write_results(folder, results)
    if arguments.push_to_hub:
        # Trainer.push_to_hub would leave out the code that the checkpoint needs.
        repo_id = arguments.hub_model_id or folder.name
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
        output_dir = Path(str(arguments.output_dir))
        arguments.output_dir = str(output_dir / "scratch")
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
    print(f"{'  ' + BASELINE_NAMES.get(results['task'], 'prediction without graph'):<28}{results['baseline'][metric]:.4f}")


def _load_model(task_name: str, arguments: ModelArguments, inferred: dict[str, Any], from_scratch: bool) -> heads.LPSTaskModel:
    head = TASKS[task_name]
    if arguments.model_name_or_path is not None:
        own = {key: value for key, value in inferred.items() if key == "num_eval_samples"}
        config = LPSConfig.from_pretrained(arguments.model_name_or_path, **own)
        config.problem_type = config.problem_type or inferred.get("problem_type")
        if config.num_labels < inferred.get("num_labels", 0):
            raise ValueError(
                f"model_name_or_path: expected a model with {inferred['num_labels']} labels for this data set, got one with "
                f"{config.num_labels}."
            )
        return head(config) if from_scratch else head.from_pretrained(arguments.model_name_or_path, config=config)
    config_fields = {**inferred, **arguments.config_fields()}
    revision = arguments.backbone_revision
    if arguments.backbone_name_or_path is not None and not from_scratch:
        return head.from_backbone_pretrained(arguments.backbone_name_or_path, revision=revision, **config_fields)
    if arguments.backbone_name_or_path is not None:
        backbone_config = AutoConfig.from_pretrained(arguments.backbone_name_or_path, revision=revision or "main")
        backbone_config = vision_tower_config(backbone_config)
    else:
        backbone_config = _parse_backbone_config(arguments.backbone_config)
    backbone_config.dtype = None  # a checkpoint in half precision does not make a new model so
    return head(LPSConfig(backbone_config=backbone_config, **head.config_defaults(backbone_config, config_fields)))


def _parse_backbone_config(text: str | None) -> PreTrainedConfig:
    try:
        values = json.loads(text or "")
        model_type = values.pop("model_type")
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"backbone_config: expected JSON with the key 'model_type', such as '{{\"model_type\": \"lps_mlp\"}}', got {text!r}."
        ) from error
    if model_type in BASE_NETWORK_CONFIGS:
        return BASE_NETWORK_CONFIGS[model_type](**values)
    if model_type not in CONFIG_MAPPING:
        own = ", ".join(map(repr, BASE_NETWORK_CONFIGS))
        raise ValueError(f"backbone_config: expected a model_type of transformers, such as 'vit', or {own}; got {model_type!r}.")
    return AutoConfig.for_model(model_type, **values)


def _make_processor(config: LPSConfig, arguments: ModelArguments) -> LPSProcessor:
    if arguments.model_name_or_path is not None:
        return LPSProcessor.from_pretrained(arguments.model_name_or_path)
    if "pixel_values" in (config.inputs or {}) and arguments.backbone_name_or_path is not None:
        revision = arguments.backbone_revision or "main"
        return LPSProcessor.from_backbone_pretrained(arguments.backbone_name_or_path, config, revision=revision)
    return LPSProcessor.from_config(config)
