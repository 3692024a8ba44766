#!/usr/bin/env python
"""Fewer tokens for small graphs: the same training with 14 × 14, 7 × 7 and 4 × 4 tokens, test accuracy beside cost.

    python scripts/compare_grids.py --json grids.json --figure grids.png
    python scripts/compare_grids.py --dataset_name graphs-datasets/MUTAG --batch_size 32
    python scripts/compare_grids.py --dataset_name ../shared/data/hub/exp --distribution frame

Without a data set: circular skip links (10 classes of 4-regular graphs that 1-WL cannot tell apart, 41 nodes). A data set with
a column `pair` (EXP) is cut as published: rows 200 to 399 test, 400 and more train. Any other is cut into folds, seeded by the
seed, and every seed tests on all of them; nothing is selected, so all other folds train. Accuracies are those of one seed's whole
test set, the spread is over seeds. Costs are measured in turn, for the model that is trained and for one of ViT-tiny's size.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from transformers import ViTConfig, set_seed

from lps_hf import LPSConfig, LPSForGraphClassification, LPSProcessor
from lps_hf.data.generators import circular_skip_links
from lps_hf.data.rows import fold_splits, infer_config, labels_of, load_dataset_for
from lps_hf.evaluation.benchmarks import write_json
from lps_hf.evaluation.metrics import compute_metrics_for
from lps_hf.evaluation.speed_figures import grids_figure
from lps_hf.training.short_runs import (
    as_text,
    costs_in_turn,
    fit,
    forward_pass,
    losses_of,
    mean_and_deviation,
    small_vit,
    training_pass,
)

NUM_TRAIN, NUM_TEST = 2000, 500
VIT_TINY = ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768)
# Rows of the pass that is timed.
TIMED_ROWS = 8


def main(flags: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", help="Graph rows: a Hub id or a folder; without it, circular skip links.")
    parser.add_argument("--num_folds", type=int, default=5, help="Of a data set without a published cut (default: %(default)s).")
    parser.add_argument(
        "--grids", nargs="+", type=int, default=[14, 7, 4], help="Tokens per side; costs are in units of the first."
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--distribution", default="learned", choices=["learned", "canonical", "frame", "haar"])
    parser.add_argument("--hidden_size", type=int, default=64, help="Of the ViT (default: %(default)s).")
    parser.add_argument("--num_layers", type=int, default=4, help="Of the ViT (default: %(default)s).")
    parser.add_argument("--num_eval_samples", type=int, default=10)
    parser.add_argument("--max_train_samples", type=int, help="Train on the first so many rows of every cut.")
    parser.add_argument("--timing_rounds", type=int, default=7, help="Timed passes of every grid (default: %(default)s).")
    parser.add_argument("--json", help="Write the result here; - prints it.")
    parser.add_argument("--figure", help="Draw the result here.")
    parser.add_argument("--beside", nargs="+", default=[], help="Earlier results (--json) to draw in the same figure.")
    arguments = parser.parse_args(flags)
    rows, name = load_rows(arguments.dataset_name)
    result = {"data": name, "num_rows": len(rows), **compare(rows, arguments)}
    print_table(result)
    write_json(result, arguments.json)
    if arguments.figure:
        results = [*(json.loads(Path(file).read_text(encoding="utf-8")) for file in arguments.beside), result]
        grids_figure({one["data"]: one["table"] for one in results}).savefig(arguments.figure, dpi=150)


def load_rows(dataset_name: str | None) -> tuple[Dataset, str]:
    """All rows of a data set, and its name; without one, circular skip links: test rows after the training rows."""
    if dataset_name is None:
        rows = circular_skip_links(NUM_TRAIN, seed=0) + circular_skip_links(NUM_TEST, seed=1)
        return Dataset.from_list(rows), "circular skip links"
    splits = load_dataset_for("graph-classification", dataset_name)
    return concatenate_datasets(list(splits.values())), Path(dataset_name).name


def cuts_of(rows: Dataset, num_folds: int, seed: int, is_generated: bool) -> list[tuple[Dataset, Dataset]]:
    """Pairs of training and test rows; the test rows of all pairs are the test set of one seed."""
    if is_generated:
        return [(rows.select(range(NUM_TRAIN)), rows.select(range(NUM_TRAIN, len(rows))))]
    if "pair" in rows.column_names:
        return [(rows.select(range(400, len(rows))), rows.select(range(200, 400)))]
    cuts = []
    for fold in range(num_folds):
        splits = fold_splits(rows, fold, num_folds, seed)
        cuts.append((concatenate_datasets([splits["train"], splits["validation"]]), splits["test"]))
    return cuts


def compare(rows: Dataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train every grid with every seed, and time all of them in turn."""
    inferred = infer_config("graph-classification", {"all": rows})
    options = {"distribution": arguments.distribution, "num_eval_samples": arguments.num_eval_samples, **inferred}
    backbone = small_vit(arguments.hidden_size, arguments.num_layers)
    runs: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        cuts = cuts_of(rows, arguments.num_folds, seed, arguments.dataset_name is None)
        for grid in arguments.grids:
            runs.append(train(grid, seed, cuts, backbone, options, arguments))
            print(f"{grid} x {grid}, seed {seed}: test accuracy {runs[-1]['test_accuracy']:.3f}", file=sys.stderr)
    shown = rows.select(range(min(TIMED_ROWS, len(rows))))
    costs = {
        "trained": measure_costs(shown, backbone, options, arguments),
        "vit_tiny": measure_costs(shown, VIT_TINY, options, arguments),
    }
    table = {}
    for grid in arguments.grids:
        same = [run for run in runs if run["grid_size"] == grid]
        table[str(grid)] = {
            **{key: mean_and_deviation([run[key] for run in same]) for key in ("test_accuracy", "train_accuracy", "train_loss")},
            "cost": {size: {mode: ratios[str(grid)] for mode, ratios in modes.items()} for size, modes in costs.items()},
        }
    classes = labels_of("graph-classification", rows, "single_label_classification")
    return {
        "model": {
            "backbone": {"hidden_size": arguments.hidden_size, "num_hidden_layers": arguments.num_layers},
            "distribution": arguments.distribution,
            "parameters": {str(run["grid_size"]): run["parameters"] for run in runs},
        },
        "budget": {
            "epochs": arguments.epochs,
            "batch_size": arguments.batch_size,
            "learning_rate": arguments.learning_rate,
            "num_train": runs[0]["num_train"],
            "num_test": runs[0]["num_test"],
            "num_cuts": runs[0]["num_cuts"],
            "num_samples": 1,
            "num_eval_samples": arguments.num_eval_samples,
            "threads": torch.get_num_threads(),
        },
        "majority_accuracy": float(np.bincount(classes).max() / len(classes)),
        "seeds": arguments.seeds,
        "table": table,
        "runs": runs,
    }


def train(
    grid: int,
    seed: int,
    cuts: list[tuple[Dataset, Dataset]],
    backbone: ViTConfig,
    options: dict[str, Any],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Train one grid on every cut with one seed; accuracies are shares of all rows tested."""
    right = {"test": 0.0, "train": 0.0}
    counts = {"test": 0, "train": 0}
    losses = []
    for training, test in cuts:
        set_seed(seed)
        model, processor = make_model(grid, backbone, options)
        metrics = compute_metrics_for("graph-classification", "single_label_classification", options["num_labels"])
        training = list(training)[: arguments.max_train_samples]
        budget = {name: getattr(arguments, name) for name in ("epochs", "learning_rate", "batch_size")}
        trainer = fit(model, processor, training, seed=seed, compute_metrics=metrics, **budget)
        losses.append(losses_of(trainer))
        for split, part in (("test", list(test)), ("train", training)):
            right[split] += trainer.evaluate(part)["eval_accuracy"] * len(part)
            counts[split] += len(part)
    return {
        "grid_size": grid,
        "seed": seed,
        "test_accuracy": right["test"] / counts["test"],
        "train_accuracy": right["train"] / counts["train"],
        "train_loss": float(np.mean([curve[-1] for curve in losses])),
        "train_losses": np.mean(losses, axis=0).round(4).tolist(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_train": len(training),
        "num_test": counts["test"],
        "num_cuts": len(cuts),
    }


def make_model(grid: int, backbone: ViTConfig, options: dict[str, Any]) -> tuple[LPSForGraphClassification, LPSProcessor]:
    config = LPSConfig(backbone_config=backbone.to_dict(), grid_size=grid, **options)
    return LPSForGraphClassification(config), LPSProcessor.from_config(config)


def measure_costs(rows: Dataset, backbone: ViTConfig, options: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """CPU time of evaluation with `num_eval_samples`, and of a training pass with one sample, relative to the first grid."""
    passes: dict[str, dict[str, Any]] = {"eval": {}, "train": {}}
    for grid in arguments.grids:
        model, processor = make_model(grid, backbone, options)
        batch = processor(list(rows), return_tensors="pt")
        passes["eval"][str(grid)] = forward_pass(model, batch, arguments.num_eval_samples)
        passes["train"][str(grid)] = training_pass(model, batch)
    label = f"hidden size {backbone.hidden_size}"
    return {mode: costs_in_turn(by_grid, arguments.timing_rounds, f"{label}, {mode}") for mode, by_grid in passes.items()}


def print_table(result: dict[str, Any]) -> None:
    budget = result["budget"]
    print(
        f"{result['data']}: {budget['num_train']} training rows, {budget['epochs']} epochs, {budget['num_test']} test rows, "
        f"{len(result['seeds'])} seeds; distribution {result['model']['distribution']}, {budget['num_eval_samples']} samples at "
        f"the test; majority {100 * result['majority_accuracy']:.1f} %"
    )
    titles = ("tokens", "test %", "train %", "cost eval", "cost train", "ViT-tiny eval", "ViT-tiny train")
    print("".join(f"{title:>16}" for title in titles))
    for grid, row in result["table"].items():
        costs = [f"{row['cost'][size][mode]['ratio']:.3f}" for size in ("trained", "vit_tiny") for mode in ("eval", "train")]
        accuracies = [as_text(row[key], 100) for key in ("test_accuracy", "train_accuracy")]
        print("".join(f"{cell:>16}" for cell in (f"{grid} x {grid}", *accuracies, *costs)))


if __name__ == "__main__":
    main()
