#!/usr/bin/env python
r"""The accuracy of k samples at the cost of one: distil a trained model into the canonical mode of its own interface.

    python scripts/distill_canonical.py --json distilled.json --figure distilled.png
    python scripts/distill_canonical.py --dataset_name graphs-datasets/NCI1 --max_nodes 30 --grid_size 7 --epochs 20 \
        --student_epochs 8 --batch_size 32
    python scripts/distill_canonical.py --dataset_name graphs-datasets/NCI1 --teacher my-checkpoint --seeds 0

Per seed: a teacher with a learned distribution is trained (or loaded with --teacher; it must not have seen the test rows, so pass
the seed and the folds it was trained with). Students are the teacher's weights with `distribution="canonical"` and one sample,
not trained further, trained further on labels, and on labels and the teacher's outputs, with the same budget, rows in the same
order. Test rows are one fold of the data set, seeded by the seed; the others train; nothing is selected. Without a data set:
classification of the nodes of PATTERN-like graphs, scored by balanced accuracy.
"""

import argparse
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

from lps_hf import LPSConfig, LPSProcessor
from lps_hf.data.rows import fold_splits, infer_config, labels_of
from lps_hf.data.structured_graphs import pattern_graphs
from lps_hf.evaluation.benchmarks import write_json
from lps_hf.evaluation.speed_figures import distillation_figure
from lps_hf.models.modeling_heads_lps import LPSTaskModel
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
from lps_hf.training.tasks import TASKS

STUDENTS = ("not trained further", "labels", "distilled")
NUM_PATTERN_GRAPHS = 400
TIMED_ROWS = 8


def main(flags: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", help="Graph rows with one class each: a Hub id or a folder; without it, PATTERN.")
    parser.add_argument("--teacher", help="A checkpoint folder instead of a training.")
    parser.add_argument("--num_folds", type=int, default=5, help="One of them tests (default: %(default)s).")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6, help="Of the teacher (default: %(default)s).")
    parser.add_argument("--student_epochs", type=int, default=3, help="Of every student (default: %(default)s).")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="Of the teacher (default: %(default)s).")
    parser.add_argument("--student_learning_rate", type=float, default=3e-4)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--grid_size", type=int, default=14)
    parser.add_argument("--distillation_weight", type=float, default=0.5, help="The rest is that of the labels.")
    parser.add_argument("--softening", type=float, default=2.0, help="Temperature of the soft targets (default: %(default)s).")
    parser.add_argument("--num_teacher_samples", type=int, default=10, help="Averaged for the soft targets.")
    parser.add_argument("--num_test_samples", nargs="+", type=int, default=[1, 10, 50], help="Ascending; each divides the last.")
    parser.add_argument("--max_samples", type=int, help="Use the first so many rows of the data set, after a seeded shuffle.")
    parser.add_argument("--max_nodes", type=int, help="Leave larger graphs out.")
    parser.add_argument("--timing_rounds", type=int, default=9)
    parser.add_argument("--gather", nargs="+", help="Train nothing: join earlier results (--json) of other seeds into one.")
    parser.add_argument("--json", help="Write the result here; - prints it.")
    parser.add_argument("--figure", help="Draw the result here.")
    arguments = parser.parse_args(flags)
    if any(max(arguments.num_test_samples) % count for count in arguments.num_test_samples):
        parser.error(f"--num_test_samples: expected divisors of the largest, got {arguments.num_test_samples}.")
    facts, runs = earlier_runs(arguments.gather) if arguments.gather else new_runs(arguments)
    result = {**facts, **tabulate(runs, facts["metric"])}
    print_table(result)
    write_json(result, arguments.json)
    if arguments.figure:
        figure = distillation_figure(result["table"], result["data"], result["metric"].replace("_", " "))
        figure.savefig(arguments.figure, dpi=150)


def earlier_runs(files: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is known of the first of several results, and the runs of all."""
    results = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
    runs = [run for result in results for run in result["runs"]]
    facts = {key: value for key, value in results[0].items() if key not in ("table", "distilled_minus_labels", "runs")}
    facts["budget"]["seeds"] = [run["seed"] for run in runs]
    return facts, runs


def new_runs(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Data and budget, and a run for every seed."""
    if arguments.dataset_name is None:
        task, name = "node-classification", "PATTERN-like graphs"
        rows = Dataset.from_list(pattern_graphs(arguments.max_samples or NUM_PATTERN_GRAPHS))
    else:
        task = "graph-classification"
        rows, name = classification_rows(arguments.dataset_name, arguments.max_samples)
    if arguments.max_nodes:
        rows = rows.filter(lambda row: row["num_nodes"] <= arguments.max_nodes)
    runs = [run_seed(seed, task, rows, arguments) for seed in arguments.seeds]
    others = ("json", "figure", "gather", "dataset_name", "teacher")
    budget = {key: value for key, value in vars(arguments).items() if key not in others}
    facts = {
        "data": name,
        "metric": "balanced_accuracy" if task == "node-classification" else "accuracy",
        "num_rows": len(rows),
        "num_train": runs[0]["num_train"],
        "num_test": runs[0]["num_test"],
        "teacher": arguments.teacher or "trained here",
        "budget": {**budget, "threads": torch.get_num_threads()},
    }
    return facts, runs


def run_seed(seed: int, task: str, rows: Dataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Teacher and students of one seed: test score and cross-entropy of each, and what a prediction costs."""
    inferred = infer_config(task, {"all": rows})
    if task == "node-classification":
        # As the paper does for PATTERN.
        inferred |= {"output": f"n n {inferred['num_labels']}", "class_weighted": True}
    splits = fold_splits(rows, 0, arguments.num_folds, seed)
    training = list(concatenate_datasets([splits["train"], splits["validation"]]))
    test = list(splits["test"])
    labels = torch.tensor(labels_of(task, splits["test"], inferred["problem_type"]))
    set_seed(seed)
    teacher, processor, losses = make_teacher(seed, task, training, inferred, arguments)

    counts = arguments.num_test_samples
    draws = sampled_outputs(teacher, processor, test, max(counts), seed=seed, label=f"seed {seed}: teacher, test rows")
    table = {f"teacher, k = {count}": scores(draws, count, labels) for count in counts}
    targets = sampled_outputs(
        teacher, processor, training, arguments.num_teacher_samples, seed=seed, label=f"seed {seed}: teacher, training rows"
    )
    training = with_teacher(training, targets.mean(dim=0))
    teacher_choice = draws.mean(dim=0).argmax(dim=-1)[labels >= 0]
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
        agreement = (outputs[0].argmax(dim=-1)[labels >= 0] == teacher_choice).float().mean().item()
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
    seed: int, task: str, training: list[dict], inferred: dict[str, Any], arguments: argparse.Namespace
) -> tuple[LPSTaskModel, LPSProcessor, dict[str, list[float]]]:
    """A trained model with a learned distribution, its processor and training losses."""
    if arguments.teacher:
        return TASKS[task].from_pretrained(arguments.teacher), LPSProcessor.from_pretrained(arguments.teacher), {}
    config = LPSConfig(backbone_config=small_vit(), group="S_n", grid_size=arguments.grid_size, **inferred)
    model, processor = TASKS[task](config), LPSProcessor.from_config(config)
    trainer = fit(model, processor, training, arguments.epochs, arguments.learning_rate, arguments.batch_size, seed)
    return model, processor, {"teacher": losses_of(trainer)}


def scores(draws: Tensor, count: int, labels: Tensor) -> dict[str, float]:
    """Scores of averages over `count` samples, themselves averaged over the disjoint averages that there are.

    Args:
        draws (`torch.Tensor` of shape `(num_samples, rows, classes)` or `(num_samples, rows, nodes, classes)`): Outputs of single
            samples.
        count: Samples of an average; divides `num_samples`.
        labels (`torch.Tensor` of shape `(rows,)` or `(rows, nodes)`): Classes, negative on padding.

    Returns:
        `dict`: `accuracy`, `balanced_accuracy` (the mean over classes) and `cross_entropy`.
    """
    means, known = draws[:, labels >= 0].unflatten(0, (-1, count)).mean(dim=1), labels[labels >= 0]
    right = (means.argmax(dim=-1) == known).float()
    return {
        "accuracy": right.mean().item(),
        "balanced_accuracy": torch.stack([right[:, known == label].mean() for label in known.unique()]).mean().item(),
        "cross_entropy": F.cross_entropy(means.flatten(0, 1), known.repeat(len(means))).item(),
    }


def tabulate(runs: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Mean and spread of all seeds."""
    table: dict[str, dict[str, Any]] = {}
    for row, first in runs[0]["rows"].items():
        table[row] = {key: mean_and_deviation([run["rows"][row][key] for run in runs]) for key in first}
        cost = "canonical" if row.startswith("canonical") else row
        table[row]["score"] = table[row][metric]
        table[row]["cost"] = mean_and_deviation([run["cost"][cost]["ratio"] for run in runs])
    distilled, by_labels = (table[f"canonical, {kind}"]["score"]["values"] for kind in ("distilled", "labels"))
    differences = [a - b for a, b in zip(distilled, by_labels, strict=True)]
    return {"table": table, "distilled_minus_labels": mean_and_deviation(differences), "runs": runs}


def print_table(result: dict[str, Any]) -> None:
    print(f"{result['data']}: {result['num_train']} training rows, {result['num_test']} test rows, {len(result['runs'])} seeds")
    print(f"{'':<34}{result['metric'].replace('_', ' ') + ' %':>20}{'cross-entropy':>18}{'as teacher %':>14}{'cost':>14}")
    for name, row in result["table"].items():
        agreement = as_text(row["agreement_with_teacher"], 100) if "agreement_with_teacher" in row else ""
        cells = f"{as_text(row['score'], 100):>20}{as_text(row['cross_entropy'], 1, 3):>18}{agreement:>14}"
        print(f"{name:<34}{cells}{as_text(row['cost'], 1, 2):>14}")
    print(f"distilled minus labels, by seed: {as_text(result['distilled_minus_labels'], 100)} points")


if __name__ == "__main__":
    main()
