"""What every `scripts/run_<task>.py` does: train and evaluate a task with `LPSTrainer`."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from transformers import set_seed

from lps_hf.hub.checkpoints import save_checkpoint

from .arguments import LPSTrainingArguments
from .task_arguments import DataArguments, ModelArguments, parse_arguments
from .tasks import figures_of, make_results, measure_sampling, prepare_task, run_and_report, save_run
from .trainer import LPSTrainer


def run_with_trainer(task_name: str, arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run a task from flags or a recipe, print its figures and save the model.

    Args:
        task_name: A key of `TASKS`.
        arguments: Command-line arguments; those of the process by default.

    Returns:
        `dict`: What `results.json` holds.
    """
    model_arguments, data_arguments, training_arguments = parse_arguments(arguments)
    run = partial(_train, task_name, model_arguments, data_arguments, training_arguments)
    return run_and_report(run, data_arguments, training_arguments, is_main=training_arguments.process_index == 0)


def _train(
    task_name: str,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: LPSTrainingArguments,
    from_scratch: bool | None,
) -> dict[str, Any]:
    set_seed(arguments.seed)
    task = prepare_task(task_name, model_arguments, data_arguments, arguments, from_scratch)
    trainer = LPSTrainer(
        model=task.model,
        args=arguments,
        processing_class=task.processor,
        train_dataset=task.splits["train"],
        eval_dataset=task.splits.get("validation"),
        compute_metrics=task.metrics_of("validation") if "validation" in task.splits else None,
    )
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    train_seconds = time.perf_counter() - start
    is_main = trainer.is_world_process_zero()
    if is_main:
        save_checkpoint(task.model, task.processor, str(arguments.output_dir))  # an evaluation that fails costs no weights
    report = measure_sampling(task, data_arguments, arguments, train_seconds)
    trainer.compute_metrics = task.metrics_of("test")
    metrics = figures_of(trainer.evaluate(task.splits["test"], metric_key_prefix="test"), "test")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    results = make_results(task, metrics, losses, trainer.state.global_step, arguments, report)
    if is_main:
        save_run(task, task.model, arguments, results)
    return results
