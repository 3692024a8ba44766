"""The shared core of the training scripts: model, processor, data and metrics of a task, made from arguments."""

import json
import math
import time
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import DatasetDict
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, TrainingArguments
from transformers.trainer_utils import EvalPrediction
from transformers.utils import logging

from lps_hf.data.recorded_rows import evaluated_rows
from lps_hf.data.rows import fold_splits, infer_config, load_dataset_for
from lps_hf.data.schema import check_dataset
from lps_hf.data.streams import streamed_splits
from lps_hf.evaluation.baselines import baseline_of
from lps_hf.evaluation.environment import environment
from lps_hf.evaluation.json_text import json_text
from lps_hf.evaluation.metrics import compute_metrics_for, metric_of
from lps_hf.evaluation.report_plan import plan_report, seconds_per_output
from lps_hf.evaluation.sampling_report import sampling_report
from lps_hf.hub.checkpoints import save_checkpoint, write_report
from lps_hf.hub.publishing import publish
from lps_hf.hub.results_files import RESULTS_FILE
from lps_hf.models import modeling_heads_lps as heads
from lps_hf.models.backbones import vision_tower_config
from lps_hf.models.configuration_lps import LPSConfig, make_backbone_config
from lps_hf.models.processing_lps import LPSProcessor

from .arguments import LPSTrainingArguments
from .task_arguments import DataArguments, ModelArguments

logger = logging.get_logger(__name__)

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

# What the task's baseline is, in words, where it is not a prediction without the graph.
BASELINE_NAMES = {
    "particle-dynamics": "last position",
    "molecule-regression": "training mean",
    "point-cloud-classification": "prediction without points",
    "image-classification": "prediction without image",
}

# What results tell of the second run with a random backbone.
SCRATCH_KEYS = ("task", "metric", "test", "train_loss_first", "train_loss_last", "num_train", "num_test", "steps", "seed")


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
    dataset: dict[str, Any] = field(default_factory=dict)
    """Where the test rows are from; see `recorded_rows`."""
    backbone: str | None = None
    """Hub id, or folder's name, of the pretrained weights; `None` for random ones."""

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
    streaming = data_arguments.streaming
    where = (name, data_arguments.dataset_config_name, data_arguments.dataset_revision)
    splits = load_dataset_for(task_name, *where, streaming=streaming)
    for split in ("train", "test") if data_arguments.fold is None else ("train",):
        if split not in splits:
            hint = " Give --fold to cut one." if split == "test" else ""
            raise ValueError(f"dataset {name!r}: expected a split {split!r}, got {', '.join(splits)}.{hint}")
    if data_arguments.fold is not None:
        splits = fold_splits(splits["train"], data_arguments.fold, data_arguments.num_folds, seed)
    known = splits
    if streaming:
        limits = (data_arguments.num_first_rows, data_arguments.max_train_samples)
        splits, known = streamed_splits(splits, *limits, seed=seed)
    inferred = infer_config(task_name, known, data_arguments.problem_type)
    if training_arguments.num_eval_samples is not None:
        inferred["num_eval_samples"] = training_arguments.num_eval_samples
    train_rows = known["train"]
    for split in splits:
        most = data_arguments.max_train_samples if split == "train" else data_arguments.max_eval_samples
        is_cut = split == "test" or (streaming and split == "train")  # below, and above
        if not is_cut and most is not None and most < len(splits[split]):
            splits[split] = splits[split].shuffle(seed=seed).select(range(most))
    splits["test"] = evaluated_rows(task_name, splits["test"], data_arguments.max_eval_samples, seed)
    is_random = model_arguments.from_scratch if from_scratch is None else from_scratch
    model = _load_model(task_name, model_arguments, inferred, is_random)
    if model_arguments.freeze_backbone:
        model.freeze_backbone()
    processor = _make_processor(model.config, model_arguments)
    if model_arguments.model_name_or_path is not None and task_name != "image-classification":
        # A new model fits its data; of another one it is told now which row does not, and not in the middle of an epoch.
        for split, rows in (known if streaming else splits).items():
            check_dataset(rows, processor, name=f"dataset {name!r}, split {split!r}")
    return Task(
        name=task_name,
        model=model,
        processor=processor,
        splits=splits,
        metric=metric_of(task_name, model.config.problem_type),
        baseline=baseline_of(task_name, model.config.problem_type, train_rows, splits["test"]),
        dataset=_dataset_facts(data_arguments, seed),
        backbone=None if is_random else _shown_name(model_arguments.model_name_or_path or model_arguments.backbone_name_or_path),
    )


def measure_sampling(
    task: Task, data_arguments: DataArguments, arguments: LPSTrainingArguments, train_seconds: float
) -> dict[str, Any]:
    """Metric and equivariance error of the trained model against the number of samples, on the first test rows.

    The model's configuration gets the variance prior of these draws, so this comes before what depends on error bars. Every
    process calls it: the first one measures, and all get its prior, without which `"auto"` would draw differently on each.

    Args:
        task: The task.
        data_arguments: Says on how many rows at most, and what share of the training's time it may take.
        arguments: Gives the seed, and whether there is a progress bar.
        train_seconds: How long the training took.

    Returns:
        `dict`: See `sampling_report`, and with `report_time_share` that share where rows, draws or numbers of samples were left
        out for it; empty on other processes than the first, if there are none to measure, or it could not be made: a training
        that is done is not lost for that.
    """
    report = _measure(task, data_arguments, arguments, train_seconds) if arguments.process_index == 0 else {}
    config = task.model.config
    priors = [report.get("variance_prior", config.variance_prior)]
    broadcast_object_list(priors)  # fills the list of every other process
    config.variance_prior = priors[0]
    return report


def _measure(task: Task, data_arguments: DataArguments, arguments: LPSTrainingArguments, train_seconds: float) -> dict[str, Any]:
    test_rows, config = task.splits["test"], task.model.config
    num_rows = min(data_arguments.report_rows, len(test_rows))
    if num_rows == 0:
        return {}
    share, whole = data_arguments.report_time_share, plan_report(config, num_rows)
    try:
        plan = whole
        if math.isfinite(share):
            start = time.perf_counter()
            per_output = seconds_per_output(task.model, task.processor, test_rows)
            plan = plan_report(config, num_rows, per_output, share * train_seconds - (time.perf_counter() - start))
        options = {**plan.options(), "seed": arguments.seed, "progress": not arguments.disable_tqdm}
        report = sampling_report(task.model, task.processor, test_rows, task.name, **options)
    except (RuntimeError, ValueError) as error:  # such as a full memory
        logger.warning(f"results.json: no figures against the number of samples, which could not be measured. {error}")
        return {}
    return report if plan == whole else {**report, "report_time_share": share}


def make_results(
    task: Task,
    metrics: dict[str, float],
    losses: list[float],
    num_steps: int,
    arguments: LPSTrainingArguments,
    report: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What `results.json` holds of one run.

    Args:
        task: The task.
        metrics: Metrics of the test split.
        losses: Training losses in order.
        num_steps: Optimizer steps.
        arguments: What it was trained and evaluated with.
        report: What `measure_sampling` found.

    Returns:
        `dict`: Figures with their budget, and all that `lps_hf.hub.verification.verify` needs to get them again.
    """
    train = task.splits["train"]
    return {
        "task": task.name,
        "dataset": task.dataset,
        "backbone": task.backbone,
        "metric": task.metric,
        "test": metrics,
        "baseline": task.baseline,
        "baseline_name": BASELINE_NAMES.get(task.name, "prediction without graph"),
        "train_loss_first": losses[0] if losses else None,
        "train_loss_last": losses[-1] if losses else None,
        **({"num_train": len(train)} if isinstance(train, Sized) else {}),  # a stream has no length
        "num_test": len(task.splits["test"]),
        "steps": num_steps,
        "seed": arguments.seed,
        "num_eval_samples": task.model.config.num_eval_samples,
        "eval_batch_size": arguments.eval_batch_size,
        "training": training_facts(arguments),
        **(report or {}),
        "environment": environment(task.model.device),
    }


def figures_of(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    """Of what `Trainer.evaluate` returns the loss and metrics, without times.

    Args:
        metrics: What it returned.
        prefix: Its `metric_key_prefix`.

    Returns:
        `dict[str, float]`: By name, without the prefix.
    """
    times = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    named = {key.removeprefix(f"{prefix}_"): value for key, value in metrics.items() if key.startswith(f"{prefix}_")}
    return {key: value for key, value in named.items() if key not in times}


def _dataset_facts(arguments: DataArguments, seed: int) -> dict[str, Any]:
    name = str(arguments.dataset_name)
    return {
        "name": _shown_name(name),
        **({"local": True} if Path(name).exists() else {}),
        "config_name": arguments.dataset_config_name,
        "revision": arguments.dataset_revision,
        "split": "test",
        "fold": arguments.fold,
        "num_folds": None if arguments.fold is None else arguments.num_folds,
        "seed": seed,
        "max_eval_samples": arguments.max_eval_samples,
    }


def _shown_name(name_or_path: str | None) -> str | None:
    """A Hub id, or the name of a folder: where it lies is nobody's business."""
    path = Path(name_or_path or "")
    return path.absolute().name if name_or_path is not None and path.exists() else name_or_path


def training_facts(arguments: TrainingArguments) -> dict[str, Any]:
    """What results tell of the settings of a training.

    Args:
        arguments: Of `LPSTrainer`, or of transformers' own `Trainer`.

    Returns:
        `dict`: Settings by name; `None` where there is none.
    """
    batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    epochs = {} if arguments.max_steps > 0 else {"num_train_epochs": arguments.num_train_epochs}
    return {
        "learning_rate": arguments.learning_rate,
        "backbone_learning_rate": getattr(arguments, "backbone_learning_rate", None),
        "weight_decay": arguments.weight_decay,
        "lr_scheduler_type": str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)),
        "warmup_steps": arguments.warmup_steps,
        **epochs,
        "train_batch_size": batch_size,
        "precision": "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32",
        "num_processes": arguments.world_size,
        "pad_to_power_of": getattr(arguments, "pad_to_power_of", None),
    }


def save_run(task: Task, model: heads.LPSTaskModel, arguments: LPSTrainingArguments, results: dict[str, Any]) -> None:
    """Save a trained model with its code and figures to `arguments.output_dir`, and to the Hub with `push_to_hub`.

    Args:
        task: Gives the processor.
        model: The trained model, on one process.
        arguments: Where to.
        results: For `results.json`.
    """
    folder = Path(str(arguments.output_dir))
    try:
        save_checkpoint(model, task.processor, folder, results=results)
    except Exception:
        # What a card or figure trips over must cost neither weights nor figures.
        save_checkpoint(model, task.processor, folder)
        (folder / RESULTS_FILE).write_text(json_text(results) + "\n", encoding="utf-8")
        raise
    if arguments.push_to_hub:
        publish(
            model,
            task.processor,
            arguments.hub_model_id or folder.absolute().name,
            results=results,
            private=arguments.hub_private_repo,
            revision=arguments.hub_revision,
            token=arguments.hub_token,
        )


def run_and_report(
    train: Callable[[bool | None], dict[str, Any]], data_arguments: DataArguments, arguments: LPSTrainingArguments, is_main: bool
) -> dict[str, Any]:
    """Train, and with `compare_with_scratch` train a random backbone on the same budget; print both.

    Args:
        train: Runs the loop of a script; its argument says whether the backbone is random (`None`: as the flags say).
        data_arguments: Says whether to compare; the second run has no report.
        arguments: Where to write; changed for the second run.
        is_main: Whether this process writes and prints.

    Returns:
        `dict`: What `results.json` holds.
    """
    results = train(None)
    if data_arguments.compare_with_scratch:
        output_dir = Path(str(arguments.output_dir))
        arguments.output_dir = str(output_dir / "scratch")
        arguments.push_to_hub, arguments.resume_from_checkpoint, data_arguments.report_rows = False, None, 0
        scratch = train(True)
        results["scratch"] = {key: scratch[key] for key in SCRATCH_KEYS if key in scratch}
        if is_main:
            write_report(output_dir, results)
    if is_main:
        metric = results["metric"]
        print(f"\n{'test ' + metric:<28}{results['test'][metric]:.4f}")
        if "scratch" in results:
            print(f"{'  random weights':<28}{results['scratch']['test'][metric]:.4f}")
        print(f"{'  ' + results['baseline_name']:<28}{results['baseline'][metric]:.4f}")
    return results


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
        if from_scratch:
            return head(config)
        try:
            return head.from_pretrained(arguments.model_name_or_path, config=config)
        except SafetensorError as error:
            raise ValueError(f"model_name_or_path: the weights of {arguments.model_name_or_path} are damaged. {error}") from error
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
    except ValueError:
        values = None
    if not isinstance(values, dict) or "model_type" not in values:
        raise ValueError(
            f"backbone_config: expected JSON with the key 'model_type', such as '{{\"model_type\": \"lps_mlp\"}}', got {text!r}."
        )
    return make_backbone_config(values)


def _make_processor(config: LPSConfig, arguments: ModelArguments) -> LPSProcessor:
    if arguments.model_name_or_path is not None:
        return LPSProcessor.from_pretrained(arguments.model_name_or_path)
    if "pixel_values" in (config.inputs or {}) and arguments.backbone_name_or_path is not None:
        revision = arguments.backbone_revision or "main"
        return LPSProcessor.from_backbone_pretrained(arguments.backbone_name_or_path, config, revision=revision)
    return LPSProcessor.from_config(config)
