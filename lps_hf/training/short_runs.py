"""What the experiments of `scripts/` share: a short training on rows, costs measured in turn, and figures of several seeds."""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from transformers import ProgressCallback, TrainerCallback, ViTConfig

from lps_hf.data.generators import triangle_regular
from lps_hf.data.rows import infer_config, load_dataset_for
from lps_hf.evaluation.benchmarks import elapsed, interleave
from lps_hf.models.modeling_heads_lps import LPSTaskModel
from lps_hf.models.processing_lps import LPSProcessor

from .arguments import LPSTrainingArguments
from .callbacks import LossProgressCallback
from .trainer import LPSTrainer


def classification_rows(dataset_name: str | None = None, max_samples: int | None = None) -> tuple[Dataset, str]:
    """Graphs with one class each: all splits of a data set as one, or generated 3-regular graphs with and without triangles.

    Args:
        dataset_name: Hub id or folder; `None` generates 3,000 graphs, which 1-WL cannot tell apart.
        max_samples: Keep so many, after a seeded shuffle.

    Returns:
        The rows, and what to call them.

    Raises:
        ValueError: If rows have something else than one class each.
    """
    if dataset_name is None:
        rows, name = Dataset.from_list(triangle_regular(3000)), "3-regular graphs"
    else:
        splits = load_dataset_for("graph-classification", dataset_name)
        rows, name = concatenate_datasets(list(splits.values())), Path(dataset_name).name
    problem_type = infer_config("graph-classification", {"all": rows})["problem_type"]
    if problem_type != "single_label_classification":
        raise ValueError(f"dataset_name {dataset_name!r}: expected one class per graph, got {problem_type}.")
    if max_samples and max_samples < len(rows):
        rows = rows.shuffle(seed=0).select(range(max_samples))
    return rows, name


def small_vit(hidden_size: int = 64, num_layers: int = 4, num_heads: int = 4) -> ViTConfig:
    """A ViT that trains on a CPU: MLPs twice as wide as the tokens, no dropout."""
    return ViTConfig(
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=2 * hidden_size,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def fit(
    model: LPSTaskModel,
    processor: LPSProcessor,
    rows: Sequence[Mapping[str, Any]],
    epochs: float,
    learning_rate: float,
    batch_size: int,
    seed: int,
    callbacks: Sequence[TrainerCallback] = (),
    trainer_class: type[LPSTrainer] = LPSTrainer,
    **trainer_options: Any,
) -> LPSTrainer:
    """Train a model on rows: AdamW, weight decay 0.01, a tenth of the steps as warm-up, then cosine decay. Nothing is saved.

    Args:
        model: The model; it is changed.
        processor: Makes batches of rows.
        rows: Training rows.
        epochs: Passes over `rows`.
        learning_rate: The largest.
        batch_size: Rows per step.
        seed: Of the order of the rows, and of the draws at evaluation.
        callbacks: Of the Trainer.
        trainer_class: The Trainer.
        trainer_options: Further arguments of it, such as `compute_metrics`.

    Returns:
        `LPSTrainer`: after training; `trainer.state.log_history` has the loss of ten stretches.
    """
    num_steps = int(epochs * -(-len(rows) // batch_size))
    with tempfile.TemporaryDirectory() as folder:
        arguments = LPSTrainingArguments(
            output_dir=folder,
            max_steps=num_steps,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=100,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            weight_decay=0.01,
            logging_steps=max(1, num_steps // 10),
            save_strategy="no",
            report_to="none",
            seed=seed,
        )
        trainer = trainer_class(
            model=model,
            args=arguments,
            processing_class=processor,
            train_dataset=rows,
            callbacks=list(callbacks),
            **trainer_options,
        )
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(LossProgressCallback)
        trainer.train()
    return trainer


def losses_of(trainer: LPSTrainer) -> list[float]:
    """The mean training loss of each stretch, in order."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def costs_in_turn(passes: Mapping[str, Callable[[], Any]], rounds: int, label: str = "timing") -> dict[str, dict[str, float]]:
    """Costs of functions in units of the first, in processor time, measured in turn after a run of each that warms up.

    Args:
        passes: Functions by name.
        rounds: How often each is timed.
        label: Of the progress bar.

    Returns:
        `dict`: For each name the `ratio` of the medians, and the `least` and `greatest` ratio within a round.
    """
    for run in passes.values():
        run()
    measures = {name: partial(elapsed, run, torch.device("cpu")) for name, run in passes.items()}
    seconds = {name: [one.processor for one in times] for name, times in interleave(measures, rounds, description=label).items()}
    reference = next(iter(seconds.values()))
    table = {}
    for name, times in seconds.items():
        within_rounds = [time / other for time, other in zip(times, reference, strict=True)]
        ratio = statistics.median(times) / statistics.median(reference)
        table[name] = {"ratio": ratio, "least": min(within_rounds), "greatest": max(within_rounds)}
    return table


def forward_pass(model: LPSTaskModel, batch: Mapping[str, Any], num_samples: int) -> Callable[[], None]:
    """An evaluation pass without gradient, for `costs_in_turn`."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}

    def run() -> None:
        model.eval()
        with torch.no_grad():
            model(**inputs, num_samples=num_samples)

    return run


def training_pass(model: LPSTaskModel, batch: Mapping[str, Any]) -> Callable[[], None]:
    """A training pass with its gradient, for `costs_in_turn`."""

    def run() -> None:
        model.train()
        model(**batch).loss.backward()
        model.zero_grad()

    return run


def mean_and_deviation(values: Sequence[float]) -> dict[str, Any]:
    """Figures of several seeds: `mean`, `deviation` (standard deviation with n - 1; `None` for one seed) and `values`."""
    return {
        "mean": statistics.mean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }


def as_text(figures: Mapping[str, Any], factor: float = 1.0, digits: int = 1) -> str:
    """What `mean_and_deviation` gives, as "mean ± deviation"."""
    spread = "" if figures["deviation"] is None else f" ± {factor * figures['deviation']:.{digits}f}"
    return f"{factor * figures['mean']:.{digits}f}{spread}"
