"""The main job on an embedded default: symmetrize, fine-tune, evaluate, save, reload, and show that it is equivariant."""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import ProgressCallback, ViTConfig, set_seed

from lps_hf.data.dataset_folders import make_splits
from lps_hf.evaluation.figures import quickstart_figure
from lps_hf.evaluation.metrics import compute_metrics_for
from lps_hf.evaluation.sampling_report import sampling_report
from lps_hf.evaluation.weisfeiler_leman import wl1_accuracy
from lps_hf.hub.checkpoints import save_checkpoint
from lps_hf.hub.verification import logits_in_fresh_process
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.models.processing_lps import LPSProcessor

from .arguments import LPSTrainingArguments
from .callbacks import LossProgressCallback
from .tasks import Task, figures_of, make_results
from .trainer import LPSTrainer

# Circular skip links: three 4-regular graphs of 13 nodes, in every node order. All nodes look alike to 1-WL.
KIND, NUM_NODES, SKIPS, GRID_SIZE = "circular-skip-links", 13, (2, 3, 5), 7
NUM_TRAIN, NUM_TEST = 2100, 600
REPORT_ROWS, MAX_SAMPLES = 64, 64
_DATA_OPTIONS = {"num_nodes": NUM_NODES, "skips": list(SKIPS)}


def run_quickstart(output_dir: str | Path, num_steps: int = 500, seed: int = 0) -> dict[str, Any]:
    """Run the main job end to end, without network, in under two minutes on two cores.

    Args:
        output_dir: Gets the checkpoint (config, weights, processor, code), its card, `results.json` and `quickstart.png`.
        num_steps: Training steps of 64 graphs.
        seed: Seed of data, weights and draws.

    Returns:
        `dict`: What `results.json` holds: what `make_results` says, and figures of this job by names of their own.

    Raises:
        ValueError: If `num_steps` is less than 1.
        RuntimeError: If the reloaded model gives other logits.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: expected at least 1, got {num_steps}.")
    start = time.perf_counter()
    set_seed(seed)
    output_dir = Path(output_dir)
    splits = make_splits(KIND, {"train": NUM_TRAIN, "test": NUM_TEST}, seed, options=_DATA_OPTIONS)
    test_rows = splits["test"]
    wl1 = wl1_accuracy(test_rows, [row["y"][0] for row in test_rows])

    backbone = ViTConfig(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128)
    config = LPSConfig(
        backbone_config=backbone,
        group="S_n",
        max_nodes=NUM_NODES,
        grid_size=GRID_SIZE,
        num_labels=len(SKIPS),
        problem_type="single_label_classification",
        num_eval_samples=10,
    )
    model, processor = LPSForGraphClassification(config), LPSProcessor.from_config(config)
    print(f"Task: {len(SKIPS)} classes of circular skip links; a 1-WL network can reach {wl1:.1%} at best.")
    print(f"Model: ViT with {sum(parameter.numel() for parameter in model.parameters()):,} parameters, made S_n-equivariant.")

    trainer = LPSTrainer(
        model=model,
        args=_training_arguments(output_dir, num_steps, seed),
        processing_class=processor,
        train_dataset=splits["train"],
        eval_dataset=test_rows,
        compute_metrics=compute_metrics_for("graph-classification", "single_label_classification", len(SKIPS)),
    )
    # One bar with the loss beside it, instead of a line of figures for every log.
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(LossProgressCallback)
    trainer.train()
    metrics = figures_of(trainer.evaluate(), "eval")

    model = trainer.model.cpu().eval()
    print("Measuring equivariance …")
    task = _task(model, processor, splits, seed)
    options = {"num_rows": REPORT_ROWS, "max_samples": MAX_SAMPLES, "seed": seed}
    report = sampling_report(model, processor, test_rows, task.name, **options)

    model.config.variance_prior = report["variance_prior"]

    save_checkpoint(model, processor, output_dir)
    print("Reloading in a fresh process …")
    inputs = dict(processor(test_rows[:32], return_tensors="pt"))
    del inputs["labels"]
    with torch.no_grad():
        inputs["noise"] = model.lps.draw_noise(model.lps.encode(**inputs), 4, torch.Generator().manual_seed(seed))
        outputs = model(**inputs)
    difference = (logits_in_fresh_process(output_dir, inputs) - outputs.logits).abs().max().item()
    if difference != 0:  # NaN is a difference too
        raise RuntimeError(f"{output_dir}: the reloaded model's logits differ by {difference:.3g}, expected none.")

    history = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    losses, error = [loss for _, loss in history], report["equivariance"]
    results = {
        **make_results(task, metrics, losses, num_steps, trainer.args, report),
        "test_accuracy": metrics["accuracy"],
        "wl1_accuracy": wl1,
        "chance_accuracy": 1 / len(SKIPS),
        "equivariance_error": error["relative_error"],
        "equivariance_error_standard_error": error["standard_error"],
        "backbone_equivariance_error": error["backbone_relative_error"],
        "backbone_equivariance_error_standard_error": error["backbone_standard_error"],
        "reloaded_logits_difference": difference,
        "train_steps": num_steps,
    }
    figure = quickstart_figure(
        test_rows[0],
        outputs.group_elements[0, :, :NUM_NODES],
        losses,
        {
            "num_samples": [point["num_samples"] for point in report["samples"]],
            "error": [point["equivariance_error"] for point in report["samples"]],
            "spread": [point["equivariance_standard_error"] for point in report["samples"]],
            "backbone": error["backbone_relative_error"],
        },
        {"this model": metrics["accuracy"], "best 1-WL": wl1, "chance": 1 / len(SKIPS)},
        loss_steps=[step for step, _ in history],
    )
    figure.savefig(output_dir / "quickstart.png")
    results["seconds"] = time.perf_counter() - start
    save_checkpoint(model, processor, output_dir, results=results)  # once more, with its card
    return results


def _task(model: LPSForGraphClassification, processor: LPSProcessor, splits: Any, seed: int) -> Task:
    name = f"circular skip links, {NUM_NODES} nodes, skips {', '.join(map(str, SKIPS))}"
    return Task(
        name="graph-classification",
        model=model,
        processor=processor,
        splits=splits,
        metric="accuracy",
        baseline={"accuracy": 1 / len(SKIPS)},
        dataset={
            "name": name,
            "generated": True,
            "kind": KIND,
            "options": _DATA_OPTIONS,
            "split": "test",
            "num_rows": len(splits["test"]),
            "seed": seed,
        },
    )


def _training_arguments(output_dir: Path, num_steps: int, seed: int) -> LPSTrainingArguments:
    return LPSTrainingArguments(
        output_dir=str(output_dir),
        max_steps=num_steps,
        per_device_train_batch_size=64,
        per_device_eval_batch_size=100,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.01,
        logging_steps=max(1, num_steps // 20),
        save_strategy="no",
        report_to="none",
        seed=seed,
    )
