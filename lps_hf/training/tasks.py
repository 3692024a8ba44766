"""The shared core of the training scripts: model, processor, data and metrics of a task, made from arguments."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import AutoConfig, PreTrainedConfig
from transformers.trainer_utils import EvalPrediction

from lps_hf.data.rows import fold_splits, infer_config, labels_of, load_dataset_for
from lps_hf.evaluation.metrics import compute_metrics_for, prior_baseline
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


@dataclass
class Task:
    """All that a training loop needs."""

    name: str
    model: heads.LPSTaskModel
    processor: LPSProcessor
    splits: DatasetDict
    """`train`, `test` and, where there is one, `validation`."""
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    metric: str
    """Name of the figure to report."""
    baseline: dict[str, float]
    """The test split's metrics of a prediction that ignores the input, or of a naive one."""


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
    inferred = infer_config(task_name, splits, data_arguments.problem_type)
    if training_arguments.num_eval_samples is not None:
        inferred["num_eval_samples"] = training_arguments.num_eval_samples
    for split in ("train", "test") if data_arguments.fold is None else ("train",):
        if split not in splits:
            hint = " Give --fold to cut one." if split == "test" else ""
            raise ValueError(f"dataset {name!r}: expected a split {split!r}, got {', '.join(splits)}.{hint}")
    if data_arguments.fold is not None:
        splits = fold_splits(splits["train"], data_arguments.fold, data_arguments.num_folds, seed)
    for split in splits:
        most = data_arguments.max_train_samples if split == "train" else data_arguments.max_eval_samples
        if most is not None and most < len(splits[split]):
            splits[split] = splits[split].shuffle(seed=seed).select(range(most))
    is_random = model_arguments.from_scratch if from_scratch is None else from_scratch
    model = _load_model(task_name, model_arguments, inferred, is_random)
    if model_arguments.freeze_backbone:
        for parameter in model.backbone_parameters():
            parameter.requires_grad_(False)
    metrics = compute_metrics_for(task_name, model.config.problem_type, model.config.num_labels)
    return Task(
        name=task_name,
        model=model,
        processor=_make_processor(model.config, model_arguments),
        splits=splits,
        compute_metrics=metrics,
        metric=metric_of(task_name, model.config.problem_type),
        baseline=baseline_of(task_name, model.config.problem_type, splits["train"], splits["test"]),
    )
