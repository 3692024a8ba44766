#!/usr/bin/env python
"""Train the paper's n-body transformer under several distributions with the same budget, and compare their test errors.

    python scripts/compare_nbody_distributions.py --dataset_name nbody-charged5 --output_dir nbody

Every run (one distribution, one seed) writes its own JSON file, and a run whose file is there is not repeated. So the work can be
spread over processes with `--seeds`; `--report` gathers whatever runs there are into one table, `nbody.json` and a figure.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from tqdm.auto import tqdm
from transformers import get_scheduler

from lps_hf import LPSConfig, LPSForParticleDynamics
from lps_hf.evaluation.baselines import motion_baselines
from lps_hf.evaluation.experiment_figures import training_curves_figure
from lps_hf.models.configuration_base_networks import PairTransformerBaseConfig
from lps_hf.models.modeling_heads_lps import PARTICLE_DEFAULTS

DISTRIBUTIONS = ("learned", "canonical", "haar", "none")
Split = dict[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True, help="Particle rows: a Hub id or a folder.")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--distributions", nargs="+", default=list(DISTRIBUTIONS), choices=[*DISTRIBUTIONS, "frame", "exact"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--num_samples", type=int, default=2, help="Group elements per system in training (published: 20).")
    parser.add_argument("--num_test_samples", type=int, default=20, help="At the test (published: 200).")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--max_train_samples", type=int, help="Train on the first so many systems.")
    parser.add_argument("--max_eval_samples", type=int, help="Evaluate on the first so many systems of each split.")
    parser.add_argument("--report", action="store_true", help="Only gather the runs that there are.")
    arguments = parser.parse_args()
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rows = load_dataset(arguments.dataset_name)
    if not arguments.report:
        splits = {
            split: load_split(part, arguments.max_train_samples if split == "train" else arguments.max_eval_samples)
            for split, part in rows.items()
        }
        for seed in arguments.seeds:
            for distribution in arguments.distributions:
                target = folder / f"{distribution}-{seed}.json"
                if not target.exists():
                    result = train(distribution, seed, splits, arguments)
                    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    report(folder, rows)


def load_split(rows, most: int | None) -> Split:
    """One split as tensors: systems are small and all of one size, so that it fits into memory."""
    rows = rows.select(range(min(most or len(rows), len(rows))))
    columns = {name: torch.tensor(np.array(rows[name]), dtype=torch.float32) for name in rows.column_names}
    columns["charges"] = columns["charges"].unsqueeze(-1)
    columns["labels"] = columns.pop("target_positions")
    return columns


def train(distribution: str, seed: int, splits: dict[str, Split], arguments) -> dict:
    torch.manual_seed(seed)
    # Without noise every sample is the same, so one will do.
    num_samples = arguments.num_samples if distribution in ("learned", "haar", "frame") else 1
    num_test_samples = arguments.num_test_samples if num_samples > 1 else 1
    config = LPSConfig(
        backbone_config=PairTransformerBaseConfig(),
        group="S_n x E(3)",
        distribution=distribution,
        max_nodes=splits["train"]["positions"].shape[1],
        num_samples=num_samples,
        interface_config={"dropout": 0.08} if distribution in ("learned", "canonical") else None,
        **PARTICLE_DEFAULTS,
    )
    model = LPSForParticleDynamics(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.learning_rate)
    count = len(splits["train"]["labels"])
    num_steps = arguments.epochs * -(-count // 100)
    scheduler = get_scheduler("cosine", optimizer, num_steps // 20, num_steps)
    curve = []
    started = time.perf_counter()
    progress = tqdm(range(arguments.epochs), desc=f"{distribution}, seed {seed}")
    for epoch in progress:
        model.train()
        losses = []
        for rows in torch.randperm(count).split(100):
            loss = model(**{name: column[rows] for name, column in splits["train"].items()}).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            losses.append(loss.item())
        if (epoch + 1) % 5 == 0 or epoch + 1 == arguments.epochs:
            some = {name: column[:500] for name, column in splits["validation"].items()}
            validation = evaluate(model, some, min(4, num_test_samples))
            curve.append({"epoch": epoch + 1, "train_loss": float(np.mean(losses)), "validation_mse": validation})
            progress.set_postfix(train=f"{np.mean(losses):.4f}", validation=f"{validation:.4f}")
    seconds = time.perf_counter() - started
    test = splits["test"]
    return {
        "distribution": distribution,
        "seed": seed,
        "test_mse": evaluate(model, test, num_test_samples),
        "test_mse_one_sample": evaluate(model, test, 1),
        "curve": curve,
        "epochs": arguments.epochs,
        "batch_size": 100,
        "learning_rate": arguments.learning_rate,
        "num_samples": num_samples,
        "num_test_samples": num_test_samples,
        "num_train": count,
        "num_test": len(test["labels"]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training_seconds": round(seconds),
        "threads": torch.get_num_threads(),
    }


@torch.no_grad()
def evaluate(model: LPSForParticleDynamics, split: Split, num_samples: int) -> float:
    """Mean squared error over all coordinates, with draws that are the same at every call."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    squares = []
    for rows in torch.arange(len(split["labels"])).split(100):
        batch = {name: column[rows] for name, column in split.items() if name != "labels"}
        positions = model(**batch, num_samples=num_samples, generator=generator).logits
        squares.append((positions - split["labels"][rows]).square().mean(dim=(1, 2)))
    return torch.cat(squares).double().mean().item()


def report(folder: Path, splits) -> None:
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-*.json"))]
    if not runs:
        raise SystemExit(f"{folder}: no runs yet. Run without --report first.")
    table = {}
    for distribution in dict.fromkeys(run["distribution"] for run in runs):
        same = [run for run in runs if run["distribution"] == distribution]
        errors = np.array([run["test_mse"] for run in same])
        table[distribution] = {
            "test_mse": errors.mean(),
            "standard_deviation": errors.std(ddof=1) if len(same) > 1 else None,
            "seeds": [run["seed"] for run in same],
            "training_seconds": [run["training_seconds"] for run in same],
        }
    print(f"{'distribution':<14}{'test MSE':<12}{'± sd':<12}{'seeds':<8}epochs")
    for distribution, row in table.items():
        spread = "" if row["standard_deviation"] is None else f"{row['standard_deviation']:.5f}"
        print(f"{distribution:<14}{row['test_mse']:<12.5f}{spread:<12}{len(row['seeds']):<8}{runs[0]['epochs']}")
    errors = motion_baselines(splits["train"], splits["test"])
    naive = {"last position": errors["last_position"], "position + velocity": errors["constant_velocity"]}
    for name, error in naive.items():
        print(f"{name:<26}{error:.5f}")
    (folder / "nbody.json").write_text(
        json.dumps({"table": table, "naive": naive, "runs": runs}, indent=2) + "\n", encoding="utf-8"
    )
    curves = {
        distribution: [
            [(point["epoch"], point["validation_mse"]) for point in run["curve"]]
            for run in runs
            if run["distribution"] == distribution
        ]
        for distribution in table
    }
    figure = training_curves_figure(curves, naive, "validation MSE of positions", "n-body, the same number of epochs for all")
    figure.savefig(folder / "nbody.png", dpi=150)


if __name__ == "__main__":
    main()
