#!/usr/bin/env python
"""What "auto" saves, and whether its error bars are true: fixed numbers of samples against as many as each graph needs.

    python scripts/measure_error_bars.py --json error_bars.json --figure error_bars.png
    python scripts/measure_error_bars.py --dataset_name graphs-datasets/NCI1 --model my-checkpoint

A classifier with a learned distribution is trained, or with --epochs 0 left as it is drawn, or loaded with --model (then pass
the seed and the folds that it was trained with). Its error bars are calibrated on training rows. Test rows are one fold. The
reference is the average over --num_reference_samples samples of every row; its own error, which is known, is taken into account.
The 95 % intervals of the model are compared with those of the draws alone, by Student's quantile and by 1.96 standard errors.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import concatenate_datasets
from torch import Tensor
from tqdm.auto import tqdm
from transformers import set_seed

from lps_hf import LPSConfig, LPSForGraphClassification, LPSProcessor
from lps_hf.data.rows import fold_splits, infer_config, labels_of
from lps_hf.evaluation.benchmarks import write_json
from lps_hf.evaluation.error_bars import calibrate_error_bars
from lps_hf.evaluation.speed_figures import error_bars_figure
from lps_hf.models.error_bars import confidence_interval
from lps_hf.training.distillation import sampled_outputs
from lps_hf.training.short_runs import classification_rows, fit, mean_and_deviation, small_vit

BATCH_SIZE = 100


def main(flags: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", help="Graph rows with one class each; default: generated 3-regular graphs.")
    parser.add_argument("--model", help="A checkpoint folder instead of a training.")
    parser.add_argument("--max_samples", type=int, help="Use the first so many rows of the data set, after a seeded shuffle.")
    parser.add_argument("--num_folds", type=int, default=5, help="One of them tests (default: %(default)s).")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--grid_size", type=int, default=7)
    parser.add_argument(
        "--num_samples", nargs="+", type=int, default=[1, 10, 100], help="Fixed numbers; divisors of the reference."
    )
    parser.add_argument("--tolerances", nargs="+", type=float, default=[0.1, 0.05, 0.03])
    parser.add_argument("--max_eval_samples", type=int, default=100, help='Where "auto" stops (default: %(default)s).')
    parser.add_argument("--num_reference_samples", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5, help='Runs of "auto" (default: %(default)s).')
    parser.add_argument("--save", help="Keep the trained checkpoint in this folder.")
    parser.add_argument("--json", help="Write the result here; - prints it.")
    parser.add_argument("--figure", help="Draw the result here.")
    arguments = parser.parse_args(flags)
    if any(arguments.num_reference_samples % count for count in arguments.num_samples):
        parser.error(f"--num_samples: expected divisors of {arguments.num_reference_samples}, got {arguments.num_samples}.")
    result = measure(arguments)
    print_table(result)
    write_json(result, arguments.json)
    if arguments.figure:
        error_bars_figure(result["rows"], result["data"]).savefig(arguments.figure, dpi=150)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Accuracy, mean number of samples and coverage of every setting."""
    rows, name = classification_rows(arguments.dataset_name, arguments.max_samples)
    inferred = infer_config("graph-classification", {"all": rows})
    splits = fold_splits(rows, 0, arguments.num_folds, arguments.seed)
    training, test = list(concatenate_datasets([splits["train"], splits["validation"]])), list(splits["test"])
    labels = torch.tensor(labels_of("graph-classification", splits["test"], inferred["problem_type"]))
    set_seed(arguments.seed)
    model, processor = make_model(training, inferred, arguments)
    reference = sampled_outputs(
        model, processor, test, arguments.num_reference_samples, seed=arguments.seed, label="reference", batch_size=BATCH_SIZE
    )
    exact, own_error = reference.mean(dim=0), reference.std(dim=0) / len(reference) ** 0.5
    table: dict[str, dict[str, Any]] = {}
    for count in arguments.num_samples:
        parts = reference.unflatten(0, (-1, count))
        right = (parts.mean(dim=1).argmax(dim=-1) == labels).double().mean(dim=1)
        table[f"{count}"] = {"accuracy": summary(right.tolist()), "mean_samples": count}
        if count > 1:
            # Each part against the mean of the others, of which it is independent.
            others = (exact * len(reference) - parts.sum(dim=1)) / (len(reference) - count)
            for key, interval in intervals(model, parts).items():
                covered = covers(*interval, others, own_error)
                table[f"{count}"][key] = summary(covered.double().flatten(1).mean(dim=1).tolist())
    for tolerance in arguments.tolerances:
        runs = [auto_run(model, processor, test, labels, exact, own_error, tolerance, seed) for seed in range(arguments.repeats)]
        table[f"auto {tolerance:g}"] = {
            "accuracy": summary([run["accuracy"] for run in runs]),
            "mean_samples": float(np.mean([run["mean_samples"] for run in runs])),
            "coverage": summary([run["coverage"] for run in runs]),
            "tolerance": tolerance,
        }
    places = ("json", "figure", "dataset_name", "model", "save")
    budget = {key: value for key, value in vars(arguments).items() if key not in places}
    return {
        "data": name,
        "num_train": len(training),
        "num_test": len(test),
        "budget": budget,
        "variance_prior": model.config.variance_prior,
        "reference_accuracy": (exact.argmax(dim=-1) == labels).double().mean().item(),
        "rows": table,
    }


def summary(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation over repetitions, of which there may be hundreds."""
    found = mean_and_deviation(values)
    return {"mean": found["mean"], "deviation": found["deviation"]}


def make_model(
    training: list[dict], inferred: dict[str, Any], arguments: argparse.Namespace
) -> tuple[LPSForGraphClassification, LPSProcessor]:
    """A classifier with a learned distribution, at evaluation."""
    if arguments.model:
        model = LPSForGraphClassification.from_pretrained(arguments.model)
        processor = LPSProcessor.from_pretrained(arguments.model)
    else:
        config = LPSConfig(backbone_config=small_vit(), group="S_n", grid_size=arguments.grid_size, **inferred)
        model, processor = LPSForGraphClassification(config), LPSProcessor.from_config(config)
        if arguments.epochs:
            fit(model, processor, training, arguments.epochs, arguments.learning_rate, arguments.batch_size, arguments.seed)
    if not arguments.model or model.config.variance_prior is None:
        calibrate_error_bars(model, processor, training, seed=arguments.seed, progress=True)
    if arguments.save:
        model.save_pretrained(arguments.save)
        processor.save_pretrained(arguments.save)
    model.config.max_eval_samples = arguments.max_eval_samples
    return model.eval(), processor


@torch.no_grad()
def auto_run(
    model: LPSForGraphClassification,
    processor: LPSProcessor,
    test: list[dict],
    labels: Tensor,
    exact: Tensor,
    own_error: Tensor,
    tolerance: float,
    seed: int,
) -> dict[str, float]:
    """One evaluation of the test rows with `num_samples="auto"`."""
    generator = torch.Generator().manual_seed(1000 + seed)
    logits, lows, highs, counts = [], [], [], []
    for start in tqdm(range(0, len(test), BATCH_SIZE), desc=f"auto {tolerance:g}, run {seed}", file=sys.stderr):
        batch = processor(test[start : start + BATCH_SIZE], return_tensors="pt")
        batch.pop("labels")
        outputs = model(**batch, num_samples="auto", tolerance=tolerance, generator=generator)
        logits.append(outputs.logits)
        low, high = outputs.confidence_interval()
        lows.append(low)
        highs.append(high)
        counts.append(outputs.num_samples)
    return {
        "accuracy": (torch.cat(logits).argmax(dim=-1) == labels).double().mean().item(),
        "mean_samples": torch.cat(counts).double().mean().item(),
        "coverage": covers(torch.cat(lows), torch.cat(highs), exact, own_error).double().mean().item(),
    }


def intervals(model: LPSForGraphClassification, parts: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """95 % intervals of logits from parts (parts, samples, rows, labels): of the model, and of the draws alone in two ways."""
    samples = parts.transpose(1, 2).flatten(0, 1)
    several_nodes = torch.ones(len(samples), 2, dtype=torch.bool)
    estimate = model.lps.symmetrization.estimate_of(samples, several_nodes)
    found = {"coverage": estimate.confidence_interval()}
    mean, error = estimate.mean, samples.std(dim=1) / samples.shape[1] ** 0.5
    degrees = torch.full((len(samples),), samples.shape[1] - 1.0)
    found["coverage_of_draws_alone"] = confidence_interval(mean, error, degrees, 0.95)
    found["coverage_of_1.96_errors"] = mean - 1.96 * error, mean + 1.96 * error
    shape = (len(parts), parts.shape[2], -1)
    return {name: (low.view(shape), high.view(shape)) for name, (low, high) in found.items()}


def covers(low: Tensor, high: Tensor, exact: Tensor, own_error: Tensor) -> Tensor:
    """Whether an interval holds the reference, which has an error of its own."""
    return ((low + high) / 2 - exact).abs() <= torch.hypot((high - low) / 2, 1.96 * own_error) + 1e-6 * exact.abs()


def print_table(result: dict[str, Any]) -> None:
    """Rows of the table, one line each."""
    accuracy = f"{100 * result['reference_accuracy']:.2f} %"
    print(f"{result['data']}, {result['num_test']} test graphs: the reference is right on {accuracy}")
    print("Covered by 95 % intervals: the model's, Student's of the draws alone, 1.96 standard errors of the draws alone")
    for name, row in result["rows"].items():
        spread = row["accuracy"]["deviation"] or 0.0
        keys = [key for key in ("coverage", "coverage_of_draws_alone", "coverage_of_1.96_errors") if key in row]
        shares = ", ".join(f"{100 * row[key]['mean']:.1f} %" for key in keys)
        coverage = f"{shares} covered" if shares else ""
        accuracy = f"{100 * row['accuracy']['mean']:.2f} ± {100 * spread:.2f} %"
        print(f"  {name:<12} {row['mean_samples']:>8.1f} samples  {accuracy:>18}  {coverage}")


if __name__ == "__main__":
    main()
