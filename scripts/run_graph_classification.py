#!/usr/bin/env python
"""Fine-tune a symmetrized backbone on a graph data set with `LPSTrainer`.

Flags, or one YAML recipe and flags that override it:

    python scripts/run_graph_classification.py scripts/recipes/mutag.yaml --fold 3
"""

import json
from pathlib import Path

from transformers import set_seed

from lps_hf import LPSTrainer
from lps_hf.hub import publish, save_checkpoint
from lps_hf.training.graph_classification import ModelArguments, parse_arguments, prepare_task


def main() -> None:
    model_arguments, data_arguments, training_arguments = parse_arguments()
    results = train(model_arguments, data_arguments, training_arguments)
    if data_arguments.compare_with_scratch:
        output_dir = training_arguments.output_dir
        training_arguments.output_dir = str(Path(output_dir) / "scratch")
        training_arguments.push_to_hub, training_arguments.resume_from_checkpoint = False, None
        scratch = train(model_arguments, data_arguments, training_arguments, from_scratch=True)
        results["scratch"] = {key: value for key, value in scratch.items() if key != "baseline"}
        if training_arguments.process_index == 0:
            _write_results(Path(output_dir), results)
    metric = results["metric"]
    print(f"\n{'test ' + metric:<28}{results['test'][metric]:.4f}")
    if "scratch" in results:
        print(f"{'  random weights':<28}{results['scratch']['test'][metric]:.4f}")
    print(f"{'  prediction without graph':<28}{results['baseline'][metric]:.4f}")


def train(model_arguments: ModelArguments, data_arguments, training_arguments, from_scratch: bool | None = None) -> dict:
    set_seed(training_arguments.seed)
    task = prepare_task(model_arguments, data_arguments, training_arguments, from_scratch)
    trainer = LPSTrainer(
        model=task.model,
        args=training_arguments,
        processing_class=task.processor,
        train_dataset=task.splits["train"],
        eval_dataset=task.splits.get("validation"),
        compute_metrics=task.compute_metrics,
    )
    trainer.train(resume_from_checkpoint=training_arguments.resume_from_checkpoint)
    metrics = trainer.evaluate(task.splits["test"], metric_key_prefix="test")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    results = {
        "metric": task.metric,
        "test": {key.removeprefix("test_"): value for key, value in metrics.items()},
        "baseline": task.baseline,
        "train_loss_first": losses[0] if losses else None,
        "train_loss_last": losses[-1] if losses else None,
        "num_train": len(task.splits["train"]),
        "num_test": len(task.splits["test"]),
        "steps": trainer.state.global_step,
        "seed": training_arguments.seed,
    }
    if trainer.is_world_process_zero():
        save_checkpoint(trainer.model, task.processor, training_arguments.output_dir)
        _write_results(Path(training_arguments.output_dir), results)
        if training_arguments.push_to_hub:
            # Trainer.push_to_hub would leave out the code that the checkpoint needs.
            repo_id = training_arguments.hub_model_id or Path(training_arguments.output_dir).name
            private, token = training_arguments.hub_private_repo, training_arguments.hub_token
            publish(trainer.model, task.processor, repo_id, private=private, token=token)
    return results


def _write_results(output_dir: Path, results: dict) -> None:
    temporary = output_dir / ".results.json"
    temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    temporary.replace(output_dir / "results.json")


if __name__ == "__main__":
    main()
