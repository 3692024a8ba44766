#!/usr/bin/env python
"""Which temperature trains the interface better: the published one, or one relative to the gaps between the scores?

    python scripts/compare_temperatures.py --json temperatures.json --figure temperatures.png
    python scripts/compare_temperatures.py --dataset_name ../shared/data/hub/exp --epochs 20

The published rule divides scores of unit L2 norm by τ = 0.01, so that the gap between neighbours falls from 12 τ at 8 nodes to
0.06 τ at 444; `relative:t` makes τ t times the mean gap at every size. Each setting trains the same model with the same seeds,
rows and steps. What the interface's gradient is good for is shown by `frozen`, an interface that stays as it was drawn, and
what the interface itself is good for by `haar`, without any.

Without a data set: PATTERN-like graphs, whose communities grow with the number of nodes; nodes are classified, logits are read on
the diagonal. A data set with a column `pair` (EXP) is cut as published (rows 200 to 399 test, 400 and more train), any other into
seeded folds, the first of which tests. Gradients are those of the task loss alone, before and after training, at fixed
batches of training rows: `signal` is the length of their mean over batches and draws in units of their root mean square length,
1 / sqrt(number of draws) for pure noise and 1 without any.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import concatenate_datasets
from transformers import set_seed

from lps_hf import LPSConfig, LPSForGraphClassification, LPSForNodeClassification, LPSProcessor
from lps_hf.data.rows import fold_splits, infer_config, load_dataset_for
from lps_hf.data.structured_graphs import pattern_graphs
from lps_hf.evaluation.benchmarks import write_json
from lps_hf.evaluation.metrics import compute_metrics_for, metric_of
from lps_hf.evaluation.speed_figures import temperatures_figure
from lps_hf.models.modeling_heads_lps import LPSTaskModel
from lps_hf.training.short_runs import as_text, fit, mean_and_deviation, small_vit

# The published communities have 5 to 34 nodes in graphs of at most 188.
PUBLISHED_NODES, PUBLISHED_SIZES = 188, (5, 34)
SETTINGS = ("haar", "frozen", "published:0.01", "relative:1", "relative:8")
NUM_DRAWS = 8
Rows = list[dict[str, Any]]


def main(flags: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", help="Graph rows with one class each: a Hub id or a folder.")
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 188, 444], help="Largest PATTERN-like graphs.")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), help="`haar`, `frozen`, `published:τ` or `relative:t`.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--num_train", type=int, default=256, help="PATTERN-like graphs to train on (default: %(default)s).")
    parser.add_argument("--num_test", type=int, default=64, help="PATTERN-like graphs to test on (default: %(default)s).")
    parser.add_argument("--max_train_samples", type=int, help="Train on the first so many rows of the data set.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--grid_size", type=int, default=14)
    parser.add_argument("--num_eval_samples", type=int, default=4)
    parser.add_argument("--gather", nargs="+", help="Train nothing: join earlier results (--json) of other seeds into one.")
    parser.add_argument("--json", help="Write the result here; - prints it.")
    parser.add_argument("--figure", help="Draw the result here.")
    arguments = parser.parse_args(flags)
    budget, runs = earlier_runs(arguments.gather) if arguments.gather else new_runs(arguments)
    result = {"metric": runs[0]["metric"], "budget": budget, "table": tabulate(runs), "runs": runs}
    print_table(result)
    write_json(result, arguments.json)
    if arguments.figure:
        label = f"test {result['metric'].replace('_', ' ')} in %"
        temperatures_figure(result["table"], label).savefig(arguments.figure, dpi=150)


def earlier_runs(files: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The budget of several results, and the runs of all, by task."""
    results = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
    runs = [run for result in results for run in result["runs"]]
    budget = results[0]["budget"]
    for key in ("seeds", "sizes"):
        budget[key] = sorted({value for result in results for value in result["budget"][key]})
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    return budget, sorted(runs, key=lambda run: tasks.index(run["task"]))


def new_runs(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The budget, and a run for every task, seed and setting."""
    settings = {text: options_of(text) for text in arguments.settings}
    tasks: list[str | int] = [arguments.dataset_name] if arguments.dataset_name else list(arguments.sizes)
    runs = []
    for task in tasks:
        name = f"PATTERN, n = {task}" if isinstance(task, int) else Path(task).name
        for seed in arguments.seeds:
            for text, options in settings.items():
                runs.append({"task": name, "setting": text, "seed": seed, **train(task, options, seed, arguments)})
                metric = runs[-1]["metric"]
                print(f"{name}, {text}, seed {seed}: {metric} {runs[-1]['test_metric']:.3f}", file=sys.stderr, flush=True)
    others = ("json", "figure", "gather", "dataset_name", "settings")
    budget = {key: value for key, value in vars(arguments).items() if key not in others}
    budget.update(steps=runs[0]["steps"], num_train=runs[0]["num_train"], num_test=runs[0]["num_test"])
    return {**budget, "num_samples": 1, "gradient_draws": NUM_DRAWS, "threads": torch.get_num_threads()}, runs


def options_of(text: str) -> dict[str, Any]:
    """Fields of `LPSConfig` for `haar`, `frozen`, `published:τ` or `relative:t`, and whether the interface is frozen."""
    rule, _, number = text.partition(":")
    if text in ("haar", "frozen"):
        return {"distribution": "haar" if text == "haar" else "learned", "is_frozen": text == "frozen"}
    try:
        temperature = float(number)
    except ValueError:
        temperature = 0.0
    if rule not in ("published", "relative") or temperature <= 0:
        raise SystemExit(f"--settings: expected haar, frozen, published:τ or relative:t with a positive number, got {text!r}.")
    return {"distribution": "learned", "temperature_rule": rule, "temperature": temperature, "is_frozen": False}


def sizes_of(max_nodes: int) -> tuple[int, int]:
    """Least and largest size of a community, in proportion to the published ones."""
    least, largest = (max(1, round(size * max_nodes / PUBLISHED_NODES)) for size in PUBLISHED_SIZES)
    return least, largest


def load_task(task: str | int, seed: int, arguments: argparse.Namespace) -> tuple[str, Rows, Rows, dict[str, Any]]:
    """Name of the task, training rows, test rows, and the fields of `LPSConfig` that they decide."""
    if isinstance(task, int):
        # New graphs for every seed.
        options = {"max_nodes": task, "sizes": sizes_of(task)}
        training = pattern_graphs(arguments.num_train, **options, seed=2 * seed)
        test = pattern_graphs(arguments.num_test, **options, seed=2 * seed + 1)
        config = {"max_nodes": task, "node_categories": [3], "num_labels": 2, "output": "n n 2", "class_weighted": True}
        return "node-classification", training, test, config
    splits = load_dataset_for("graph-classification", task)
    rows = concatenate_datasets(list(splits.values()))
    config = infer_config("graph-classification", {"all": rows})
    if "pair" in rows.column_names:
        training, test = rows.select(range(400, len(rows))), rows.select(range(200, 400))
    else:
        folds = fold_splits(rows, 0, 5, seed)
        training, test = concatenate_datasets([folds["train"], folds["validation"]]), folds["test"]
    return "graph-classification", list(training)[: arguments.max_train_samples], list(test), config


def train(task: str | int, options: dict[str, Any], seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One training: losses, test metric, entropy and gradients."""
    name, training, test, inferred = load_task(task, seed, arguments)
    set_seed(seed)
    config = LPSConfig(
        backbone_config=small_vit(),
        group="S_n",
        grid_size=arguments.grid_size,
        num_eval_samples=arguments.num_eval_samples,
        **inferred,
        **{key: value for key, value in options.items() if key != "is_frozen"},
    )
    head = LPSForNodeClassification if name == "node-classification" else LPSForGraphClassification
    model, processor = head(config), LPSProcessor.from_config(config)
    model.lps.distribution.requires_grad_(not options["is_frozen"])
    first = gradients(model, processor, training, arguments.batch_size)
    problem_type = config.problem_type or "single_label_classification"
    metrics = compute_metrics_for(name, problem_type, config.num_labels)
    budget = {key: getattr(arguments, key) for key in ("epochs", "learning_rate", "batch_size")}
    trainer = fit(model, processor, training, seed=seed, compute_metrics=metrics, **budget)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    # The task's loss alone: the entropy differs between temperatures by itself.
    losses = [entry["loss"] - config.entropy_loss_coef * entry.get("entropy_loss", 0.0) for entry in logged]
    evaluated = trainer.evaluate(test)
    metric = metric_of(name, problem_type)
    return {
        "metric": metric,
        "test_metric": evaluated[f"eval_{metric}"],
        "test_loss": evaluated["eval_loss"],
        "train_loss": losses[-1],
        "train_losses": losses,
        "entropy": [entry["entropy_loss"] for entry in logged if "entropy_loss" in entry] or None,
        "gradient_at_start": first,
        "gradient_at_end": gradients(model, processor, training, arguments.batch_size),
        "steps": trainer.state.global_step,
        "num_train": len(training),
        "num_test": len(test),
    }


def gradients(model: LPSTaskModel, processor: LPSProcessor, rows: Rows, batch_size: int) -> dict[str, float] | None:
    """What the task loss tells the interface: root mean square length of its gradient, and how much of it is no noise.

    Args:
        model: The model; its batch statistics are put back.
        processor: Makes batches of rows.
        rows: The first `NUM_DRAWS` batches are taken, again from the start where there are fewer.
        batch_size: Rows of a batch.

    Returns:
        `dict`: `interface`, the length, `entropy`, that of the entropy loss with its weight, `backbone`, that of all other
        parameters, and `signal`; `None` where no interface is trained.
    """
    interface = [parameter for parameter in model.lps.distribution.parameters() if parameter.requires_grad]
    if not interface:
        return None
    own = {id(parameter) for parameter in interface}
    others = [parameter for parameter in model.parameters() if id(parameter) not in own]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    drawn: dict[str, list[torch.Tensor]] = {"interface": [], "entropy": [], "backbone": []}
    for draw in range(NUM_DRAWS):
        start = draw * batch_size % max(1, len(rows) - batch_size + 1)
        output = model(**processor(rows[start : start + batch_size], return_tensors="pt"))
        entropy = model.config.entropy_loss_coef * output.entropy_loss
        for name, loss, parameters in (
            ("entropy", entropy, interface),
            ("interface", output.loss - entropy, interface),
            ("backbone", output.loss, others),
        ):
            parts = torch.autograd.grad(loss, parameters, retain_graph=name != "backbone", allow_unused=True)
            drawn[name].append(torch.cat([part.flatten() for part in parts if part is not None]))
    model.load_state_dict(state)
    lengths = {name: torch.stack(vectors).square().sum(dim=1).mean().sqrt().item() for name, vectors in drawn.items()}
    mean = torch.stack(drawn["interface"]).mean(dim=0).norm().item()
    return {**lengths, "signal": mean / max(lengths["interface"], 1e-30)}


def tabulate(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and spread of all seeds, by task and setting."""
    table: dict[str, dict[str, Any]] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        table[task] = {}
        for setting in dict.fromkeys(run["setting"] for run in runs):
            same = [run for run in runs if (run["task"], run["setting"]) == (task, setting)]
            row = {key: mean_and_deviation([run[key] for run in same]) for key in ("test_metric", "test_loss", "train_loss")}
            if same[0]["gradient_at_start"]:
                row["entropy"] = mean_and_deviation([run["entropy"][-1] for run in same])
                for when in ("gradient_at_start", "gradient_at_end"):
                    row[when] = {part: mean_and_deviation([run[when][part] for run in same]) for part in same[0][when]}
            table[task][setting] = row
    return table


def print_table(result: dict[str, Any]) -> None:
    metric = result["metric"].replace("_", " ")
    for task, rows in result["table"].items():
        seeds = len({run["seed"] for run in result["runs"] if run["task"] == task})
        print(f"\n{task}: {seeds} seeds, {result['budget']['steps']} steps, gradients at start and end")
        print(f"{'':<18}{metric + ' %':>22}{'train loss':>18}{'entropy':>10}{'gradient':>20}{'of entropy':>20}{'signal':>14}")
        for setting, row in rows.items():
            cells = f"{as_text(row['test_metric'], 100):>22}{as_text(row['train_loss'], 1, 3):>18}"
            if "entropy" in row:
                ends = [row[when] for when in ("gradient_at_start", "gradient_at_end")]
                cells += f"{row['entropy']['mean']:>10.2f}"
                for part, width, form in (("interface", 20, ".1e"), ("entropy", 20, ".1e"), ("signal", 14, ".2f")):
                    cells += f"{', '.join(format(end[part]['mean'], form) for end in ends):>{width}}"
            print(f"{setting:<18}{cells}")


if __name__ == "__main__":
    main()
