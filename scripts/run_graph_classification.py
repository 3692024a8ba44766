#!/usr/bin/env python
"""Fine-tune a symmetrized backbone on a graph data set with `LPSTrainer`.

Flags, or one YAML recipe and flags that override it:

    python scripts/run_graph_classification.py scripts/recipes/mutag.yaml --fold 3
"""

from functools import partial

from transformers import set_seed

from lps_hf import LPSTrainer
from lps_hf.training.graph_classification import make_results, parse_arguments, prepare_task, run_and_report, save_run


def main() -> None:
    model_arguments, data_arguments, arguments = parse_arguments()
    run = partial(train, model_arguments, data_arguments, arguments)
    run_and_report(run, data_arguments, arguments, is_main=arguments.process_index == 0)


def train(model_arguments, data_arguments, arguments, from_scratch: bool | None) -> dict:
    set_seed(arguments.seed)
    task = prepare_task(model_arguments, data_arguments, arguments, from_scratch)
    trainer = LPSTrainer(
        model=task.model,
        args=arguments,
        processing_class=task.processor,
        train_dataset=task.splits["train"],
        eval_dataset=task.splits.get("validation"),
        compute_metrics=task.compute_metrics,
    )
    trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    metrics = trainer.evaluate(task.splits["test"], metric_key_prefix="test")
    metrics = {key.removeprefix("test_"): value for key, value in metrics.items()}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    results = make_results(task, metrics, losses, trainer.state.global_step, arguments.seed)
    if trainer.is_world_process_zero():
        save_run(task, trainer.model, arguments, results)
    return results


if __name__ == "__main__":
    main()
