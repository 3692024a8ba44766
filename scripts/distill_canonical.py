#!/usr/bin/env python
"""The accuracy of k samples at the cost of one: distil a trained model into the canonical mode of its own interface.

    python scripts/distill_canonical.py --json distilled.json --figure distilled.png
    python scripts/distill_canonical.py --dataset_name graphs-datasets/NCI1
    python scripts/distill_canonical.py --dataset_name graphs-datasets/NCI1 --teacher my-checkpoint --seeds 0

Per seed: a teacher with a learned distribution is trained (or loaded with --teacher; it must not have seen the test rows, so pass
the seed and the folds it was trained with). Students are the teacher's weights with `distribution="canonical"` and one sample,
not trained further, trained further on labels, and on labels and the teacher's outputs, with the same budget, rows in the same
order. Test rows are one fold of the data set, seeded by the seed; the others train; nothing is selected. Without a data set:
random 3-regular graphs with and without triangles, which 1-WL cannot tell apart.
"""

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from torch.nn import functional as F
from transformers import set_seed

from lps_hf import LPSConfig, LPSForGraphClassification, LPSProcessor
from lps_hf.data.rows import fold_splits, infer_config, labels_of
from lps_hf.evaluation.speed_figures import distillation_figure
from lps_hf.training.distillation import DistillationTrainer, canonical_student, sampled_outputs, with_teacher
from lps_hf.training.short_runs import (
    as_text,
    classification_rows,
    costs_in_turn,
    fit,
    forward_pass,
    losses_of,
    mean_and_deviation,
    small_vit,
)

STUDENTS = ("not trained further", "labels", "distilled")
TIMED_ROWS = 32


def main(flags: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", help="Graph rows with one class each: a Hub id or a folder.")
    parser.add_argument("--teacher", help="A checkpoint folder instead of a training.")
    parser.add_argument("--num_folds", type=int, default=5, help="One of them tests (default: %(default)s).")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10, help="Of the teacher (default: %(default)s).")
    parser.add_argument("--student_epochs", type=int, default=5, help="Of every student (default: %(default)s).")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="Of the teacher (default: %(default)s).")
    parser.add_argument("--student_learning_rate", type=float, default=3e-4)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--grid_size", type=int, default=7)
    parser.add_argument("--distillation_weight", type=float, default=0.5, help="The rest is that of the labels.")
    parser.add_argument("--softening", type=float, default=2.0, help="Temperature of the soft targets (default: %(default)s).")
    parser.add_argument("--num_teacher_samples", type=int, default=10, help="Averaged for the soft targets.")
    parser.add_argument("--num_test_samples", nargs="+", type=int, default=[1, 10, 50], help="Ascending; each divides the last.")
    parser.add_argument("--max_samples", type=int, help="Use the first so many rows of the data set, after a seeded shuffle.")
    parser.add_argument("--timing_rounds", type=int, default=9)
    parser.add_argument("--json", help="Write the result here; - prints it.")
    parser.add_argument("--figure", help="Draw the result here.")
    arguments = parser.parse_args(flags)
    if any(max(arguments.num_test_samples) % count for count in arguments.num_test_samples):
        parser.error(f"--num_test_samples: expected divisors of the largest, got {arguments.num_test_samples}.")
    rows, name = classification_rows(arguments.dataset_name, arguments.max_samples)
    runs = [run_seed(seed, rows, arguments) for seed in arguments.seeds]
    result = gather(name, rows, runs, arguments)
    print_table(result)
    if arguments.json:
        text = json.dumps(result, indent=2) + "\n"
        sys.stdout.write(text) if arguments.json == "-" else Path(arguments.json).write_text(text, encoding="utf-8")
    if arguments.figure:
        distillation_figure(result["table"], result["data"]).savefig(arguments.figure, dpi=150)


def run_seed(seed: int, rows: Dataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Teacher and students of one seed: test accuracy and cross-entropy of each, and what a prediction costs."""
    inferred = infer_config("graph-classification", {"all": rows})
    splits = fold_splits(rows, 0, arguments.num_folds, seed)
    training = list(concatenate_datasets([splits["train"], splits["validation"]]))
    test = list(splits["test"])
    labels = torch.tensor(labels_of("graph-classification", splits["test"], inferred["problem_type"]))
    set_seed(seed)
    teacher, processor, losses = make_teacher(seed, training, inferred, arguments)

    counts = arguments.num_test_samples
    draws = sampled_outputs(teacher, processor, test, max(counts), seed=seed, label=f"seed {seed}: teacher, test rows")
    table = {f"teacher, k = {count}": scores(draws, count, labels) for count in counts}
    targets = sampled_outputs(
        teacher, processor, training, arguments.num_teacher_samples, seed=seed, label=f"seed {seed}: teacher, training rows"
    )
    training = with_teacher(training, targets.mean(dim=0))
    teacher_choice = draws.mean(dim=0).argmax(dim=-1)
    for kind in STUDENTS:
        student = canonical_student(teacher)
        if kind != "not trained further":
            set_seed(seed)
            weight = arguments.distillation_weight if kind == "distilled" else 0.0
            trainer = fit(
                student,
                processor,
                training,
                arguments.student_epochs,
                arguments.student_learning_rate,
                arguments.batch_size,
                seed,
                trainer_class=DistillationTrainer,
                distillation_weight=weight,
                softening=arguments.softening,
            )
            losses[kind] = losses_of(trainer)
        outputs = sampled_outputs(student, processor, test, 1, seed=seed, label=f"seed {seed}: student, {kind}")
        agreement = (outputs[0].argmax(dim=-1) == teacher_choice).float().mean().item()
        table[f"canonical, {kind}"] = {**scores(outputs, 1, labels), "agreement_with_teacher": agreement}
        print(f"seed {seed}, canonical, {kind}: {table[f'canonical, {kind}']}", file=sys.stderr)
    batch = processor(test[:TIMED_ROWS], return_tensors="pt")
    passes = {f"teacher, k = {count}": forward_pass(teacher, batch, count) for count in counts}
    passes["canonical"] = forward_pass(student, batch, 1)
    return {
        "seed": seed,
        "num_train": len(training),
        "num_test": len(test),
        "rows": table,
        "cost": costs_in_turn(passes, arguments.timing_rounds),
        "train_losses": losses,
    }


def make_teacher(
    seed: int, training: list[dict], inferred: dict[str, Any], arguments: argparse.Namespace
) -> tuple[LPSForGraphClassification, LPSProcessor, dict[str, list[float]]]:
    """A trained model with a learned distribution, its processor and training losses."""
    if arguments.teacher:
        return (
            LPSForGraphClassification.from_pretrained(arguments.teacher),
            LPSProcessor.from_pretrained(arguments.teacher),
            {},
        )
    config = LPSConfig(backbone_config=small_vit(), group="S_n", grid_size=arguments.grid_size, **inferred)
    model, processor = LPSForGraphClassification(config), LPSProcessor.from_config(config)
    trainer = fit(model, processor, training, arguments.epochs, arguments.learning_rate, arguments.batch_size, seed)
    return model, processor, {"teacher": losses_of(trainer)}


def scores(draws: Tensor, count: int, labels: Tensor) -> dict[str, float]:
    """Accuracy and cross-entropy of averages over `count` samples, themselves averaged over the disjoint averages that there are.

    Args:
        draws (`torch.Tensor` of shape `(num_samples, rows, classes)`): Outputs of single samples.
        count: Samples of an average; divides `num_samples`.
        labels (`torch.Tensor` of shape `(rows,)`): Classes.

    Returns:
        `dict`: `accuracy` and `cross_entropy`.
    """
    means = draws.unflatten(0, (-1, count)).mean(dim=1)
    right = (means.argmax(dim=-1) == labels).float().mean().item()
    return {"accuracy": right, "cross_entropy": F.cross_entropy(means.flatten(0, 1), labels.repeat(len(means))).item()}


def gather(name: str, rows: Dataset, runs: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """The table of all seeds, with budget."""
    table: dict[str, dict[str, Any]] = {}
    for row, first in runs[0]["rows"].items():
        table[row] = {key: mean_and_deviation([run["rows"][row][key] for run in runs]) for key in first}
        cost = "canonical" if row.startswith("canonical") else row
        table[row]["cost"] = mean_and_deviation([run["cost"][cost]["ratio"] for run in runs])
    distilled, by_labels = (table[f"canonical, {kind}"]["accuracy"]["values"] for kind in ("distilled", "labels"))
    budget = copy.copy(vars(arguments))
    for key in ("json", "figure", "dataset_name", "teacher"):
        budget.pop(key)
    return {
        "data": name,
        "num_rows": len(rows),
        "num_train": runs[0]["num_train"],
        "num_test": runs[0]["num_test"],
        "teacher": arguments.teacher or "trained here",
        "budget": {**budget, "threads": torch.get_num_threads()},
        "table": table,
        "distilled_minus_labels": mean_and_deviation([a - b for a, b in zip(distilled, by_labels, strict=True)]),
        "runs": runs,
    }


def print_table(result: dict[str, Any]) -> None:
    print(f"{result['data']}: {result['num_train']} training rows, {result['num_test']} test rows, {len(result['runs'])} seeds")
    print(f"{'':<34}{'accuracy %':>14}{'cross-entropy':>18}{'as teacher %':>14}{'cost':>14}")
    for name, row in result["table"].items():
        agreement = as_text(row["agreement_with_teacher"], 100) if "agreement_with_teacher" in row else ""
        cells = f"{as_text(row['accuracy'], 100):>14}{as_text(row['cross_entropy'], 1, 3):>18}{agreement:>14}"
        print(f"{name:<34}{cells}{as_text(row['cost'], 1, 2):>14}")
    print(f"distilled minus labels, by seed: {as_text(result['distilled_minus_labels'], 100)} points")


if __name__ == "__main__":
    main()
