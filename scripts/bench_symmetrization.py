#!/usr/bin/env python
"""What symmetrization costs: the symmetrized model against as many passes of its bare backbone, on random graphs.

    python scripts/bench_symmetrization.py --preset pattern --num_samples 10 --mode eval --json -
    python scripts/bench_symmetrization.py --preset pattern pcqm peptides --num_samples 1 10 --mode eval train --figure cost.png
    python scripts/bench_symmetrization.py --preset peptides --num_samples 10 100 --memory_only

Both run in turn in one process; `overhead_ratio` is the ratio of the medians. The bare backbone is the family's unmodified model
on ready-made tokens, built apart: it computes every token up to the final norm, whatever the symmetrized model saves in its own.

A batch that fits the processor's cache is faster: where the model gives its backbone fewer rows at a time than the bare one gets,
`overhead_ratio_same_rows` compares it with the bare backbone in equal pieces.

One combination of preset, number of samples and mode gives one JSON object, several give a list. `breakdown` holds what each part
costs in bare backbones, from extra runs with hooks, scaled so that it sums up to the ratio; `added_share` is everything but the
backbone over the backbone inside the same pass, which a restless machine disturbs least. `peak_memory_bytes` counts live tensors
beyond weights and batch; `peak_memory_growth` compares with the first number of samples of the same preset and mode.
"""

import argparse
import itertools
import sys

import numpy as np
import torch

from lps_hf import LPSConfig, LPSForGraphClassification, LPSForLinkPrediction, LPSForNodeClassification, LPSProcessor
from lps_hf.evaluation.benchmark_figures import overhead_figure
from lps_hf.evaluation.benchmarks import breakdown, interleave, overhead, spread, write_json
from lps_hf.evaluation.symmetrization_cost import CostComparison, added_share, vit_config

# Largest graph, node and edge categories of the data set, and its task.
MOLECULES = {"node_categories": [17, 3, 7, 7, 5, 1, 6, 2, 2], "edge_categories": [4, 1, 2]}
PRESETS = {
    "pattern": {"max_nodes": 188, "node_categories": [3], "task": "node"},
    "pcqm": {"max_nodes": 53, **MOLECULES, "task": "link"},
    "peptides": {"max_nodes": 444, **MOLECULES, "task": "graph"},
}
TASKS = {
    "graph": (LPSForGraphClassification, {"num_labels": 2}),
    "node": (LPSForNodeClassification, {"num_labels": 2, "output": "n n 2"}),
    "link": (LPSForLinkPrediction, {"num_labels": 1, "output": "n n 1"}),
}
# What the ratio is to stay below, by mode and number of samples, at the default backbone, grid and batch.
BARS = {("eval", 1): 1.10, ("eval", 10): 1.05, ("train", 10): 1.10}
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def main() -> None:
    options = parse_options()
    results = []
    for preset, mode, num_samples in itertools.product(options.preset, options.mode, options.num_samples):
        result = measure(preset, mode, num_samples, options)
        first = next((one for one in results if (one["preset"], one["mode"]) == (preset, mode)), result)
        growth = result["peak_memory_bytes"]["model"] / first["peak_memory_bytes"]["model"]
        result["peak_memory_growth"] = {"from_num_samples": first["num_samples"], "ratio": growth}
        results.append(result)
        print(describe(result), file=sys.stderr if options.json == "-" else sys.stdout, flush=True)
    write_json(results[0] if len(results) == 1 else results, options.json)
    if options.figure:
        overhead_figure(results).savefig(options.figure)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=["pcqm"], help="sizes of which data set")
    parser.add_argument("--num_samples", nargs="+", type=int, default=[1], help="group elements per graph")
    parser.add_argument("--mode", nargs="+", choices=["eval", "train"], default=["eval"], help="forward, or also backward")
    parser.add_argument(
        "--task", choices=["graph", "own"], default="graph", help="read out graphs, or what the data set asks for"
    )
    parser.add_argument("--backbone", default="tiny", help="ViT: tiny, small, base or <hidden>x<layers>x<heads>")
    parser.add_argument("--grid_size", type=int, help="side of the token grid (default: 14)")
    parser.add_argument("--batch_size", type=int, default=8, help="graphs")
    parser.add_argument("--repeats", type=int, help="timed rounds (default: as many as fit in --seconds, 3 to 50)")
    parser.add_argument("--seconds", type=float, default=60, help="for timed rounds, and a quarter of it for the breakdown")
    parser.add_argument("--memory_only", action="store_true", help="measure memory, not time")
    parser.add_argument(
        "--samples_per_pass", type=int, help="group elements that the model's backbone sees at once in evaluation"
    )
    parser.add_argument("--floor_rows", type=int, help="rows of the bare backbone's batch at a time (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="bfloat16: by autocast")
    parser.add_argument("--compile", action="store_true", help="compile both; without a breakdown")
    parser.add_argument("--json", help="file for the result, - for standard output")
    parser.add_argument("--figure", help="file for a picture of the result")
    options = parser.parse_args()
    if options.memory_only and options.figure:
        parser.error("--figure shows times; leave --memory_only out.")
    return options


def measure(preset: str, mode: str, num_samples: int, options: argparse.Namespace) -> dict:
    """Compare time and memory of one combination."""
    torch.manual_seed(0)
    task = PRESETS[preset]["task"] if options.task == "own" else "graph"
    rows = random_rows(preset, task, options.batch_size)
    comparison = make_comparison(preset, task, rows, mode, num_samples, options)
    if options.compile:  # the first passes compile, and have no part in memory
        comparison.run_model()
        comparison.run_backbone()
    peaks = comparison.peak_memory()  # this is the warm-up, too
    result = {
        "preset": preset,
        "mode": mode,
        "num_samples": num_samples,
        "peak_memory_ratio": peaks["model"] / peaks["backbone"],
        "peak_memory_bytes": peaks,
    }
    if not options.memory_only:
        result |= measure_time(comparison, f"{preset} {mode} k={num_samples}", options)
        result["bar"] = bar_of(preset, mode, num_samples, options)
    return result | {
        "task": task,
        "batch_size": options.batch_size,
        "mean_nodes": float(np.mean([row["num_nodes"] for row in rows])),
        "mean_edges": float(np.mean([row["edge_index"].shape[1] for row in rows])),
        "backbone": options.backbone,
        "grid_size": comparison.backbone.grid_size,
        "floor_rows": comparison.floor_rows,
        "device": torch.cuda.get_device_name() if comparison.device.type == "cuda" else "cpu",
        "dtype": options.dtype,
        "compiled": options.compile,
        "threads": torch.get_num_threads(),
    }


def make_comparison(
    preset: str, task: str, rows: list[dict], mode: str, num_samples: int, options: argparse.Namespace
) -> CostComparison:
    head, task_options = TASKS[task]
    fields = {name: value for name, value in PRESETS[preset].items() if name != "task"}
    if options.samples_per_pass:
        fields["samples_per_pass"] = options.samples_per_pass
    config = LPSConfig(backbone_config=vit_config(options.backbone), grid_size=options.grid_size, **fields, **task_options)
    batch = LPSProcessor.from_config(config)(rows, return_tensors="pt")
    return CostComparison(
        head(config),
        {name: tensor.to(options.device) for name, tensor in batch.items()},
        num_samples,
        train=mode == "train",
        dtype=DTYPES[options.dtype],
        compiled=options.compile,
        floor_rows=options.floor_rows,
    )


def measure_time(comparison: CostComparison, description: str, options: argparse.Namespace) -> dict:
    """The overhead ratio, then its parts in extra runs."""
    clocks = {"model": comparison.elapsed_model, "backbone": comparison.elapsed_backbone}
    # In training all rows have to go at once.
    rows = None if options.compile or comparison.train else comparison.model_rows()
    if rows and rows != comparison.floor_rows:
        clocks["backbone_same_rows"] = lambda: comparison.elapsed_backbone(rows)
    times = interleave(clocks, options.repeats, options.seconds, description)
    ratio = overhead(times["model"], times["backbone"])
    same_rows = overhead(times["model"], times.get("backbone_same_rows", times["backbone"]))["overhead_ratio"]
    parts, added = {}, None
    if not options.compile:
        count = options.repeats or max(1, min(len(times["model"]), int(options.seconds / 4 / times["model"][-1].wall)))
        runs = interleave({"parts": comparison.part_seconds}, count, description=f"{description} breakdown")["parts"]
        parts, added = breakdown(runs, ratio["overhead_ratio"]), spread([added_share(run) for run in runs])
    seconds = {name: spread([one.wall for one in values]) for name, values in times.items()}
    return {
        **ratio,
        "overhead_ratio_same_rows": same_rows,
        "model_rows": rows,
        "breakdown": parts,
        "added_share": added,
        "seconds": seconds,
        "rounds": len(times["model"]),
    }


def bar_of(preset: str, mode: str, num_samples: int, options: argparse.Namespace) -> float | None:
    usual = (options.backbone, options.grid_size or 14, options.batch_size) == ("tiny", 14, 8) and options.floor_rows is None
    usual = usual and options.samples_per_pass is None
    if not usual or options.device != "cpu" or options.dtype != "float32":
        return None
    return 1.20 if (preset, mode, num_samples) == ("peptides", "train", 10) else BARS.get((mode, num_samples))


def describe(result: dict) -> str:
    """The result in a few lines."""
    growth, peaks = result["peak_memory_growth"], result["peak_memory_bytes"]
    lines = [f"{result['preset']} {result['mode']} k={result['num_samples']}"]
    if "overhead_ratio" in result:
        quartiles, extremes = ("{:.3f} to {:.3f}".format(*result[f"overhead_ratio_{kind}"]) for kind in ("quartiles", "range"))
        bar = f", bar {result['bar']:.2f}" if result["bar"] else ""
        lines.append(
            f"  overhead ratio {result['overhead_ratio']:.3f}{bar} (quartiles {quartiles}, range {extremes}, {result['rounds']} "
            f"rounds; of the fastest {result['overhead_ratio_of_fastest']:.3f}, of processor times "
            f"{result['overhead_ratio_of_processor_time']:.3f})"
        )
        if result["model_rows"] not in (None, result["floor_rows"]):
            lines.append(f"  {result['overhead_ratio_same_rows']:.3f} with {result['model_rows']} rows at a time in both")
        lines.extend(f"    {name:<24}{share:.4f}" for name, share in result["breakdown"].items())
        if result["added_share"]:
            quartiles = "{:.3f} to {:.3f}".format(*result["added_share"]["quartiles"])
            lines.append(f"  beside the backbone {result['added_share']['median']:.3f} of it (quartiles {quartiles})")
    memory = f"  peak memory {peaks['model'] / 2**20:.1f} MiB, {result['peak_memory_ratio']:.3f} × the bare backbone's"
    if growth["from_num_samples"] != result["num_samples"]:
        memory += f", {growth['ratio']:.3f} × that of k={growth['from_num_samples']}"
    lines.append(memory)
    return "\n".join(lines)


def random_rows(preset: str, task: str, count: int) -> list[dict]:
    """Random graphs with the sizes of the preset's data set, always the same ones."""
    rng = np.random.default_rng(0)
    rows = [random_row(preset, rng) for _ in range(count)]
    for row in rows:
        if task == "link":
            row["edge_label_index"], row["edge_label"] = np.zeros((2, 1), dtype=np.int64), [1]
        else:
            row["y"] = [0] * (row["num_nodes"] if task == "node" else 1)
    return rows


def random_row(preset: str, rng: np.random.Generator) -> dict:
    """One graph: communities of random sizes, or a chain with branches and rings."""
    spec = PRESETS[preset]
    if preset == "pattern":
        sizes = rng.integers(5, 35, size=6)
        block = np.repeat(np.arange(6), sizes)[: spec["max_nodes"]]
        nodes = len(block)
        same, pattern = block[:, None] == block, (block[:, None] == 5) | (block == 5)
        chance = np.where(same | pattern, 0.5, 0.35)
        source, target = np.nonzero(np.triu(rng.random((nodes, nodes)) < chance, 1))
    else:
        most = spec["max_nodes"]
        nodes = int(rng.integers(20, most + 1)) if preset == "pcqm" else int(np.clip(rng.normal(151, 84), 8, most))
        target = np.arange(1, nodes)
        source = np.maximum(target - rng.integers(1, 4, size=nodes - 1), 0)
    edges = np.stack([np.concatenate([source, target]), np.concatenate([target, source])])
    row = {"edge_index": edges, "num_nodes": nodes}
    row["node_feat"] = np.stack([rng.integers(size, size=nodes) for size in spec["node_categories"]], axis=1)
    if "edge_categories" in spec:
        row["edge_attr"] = np.stack([rng.integers(size, size=edges.shape[1]) for size in spec["edge_categories"]], axis=1)
    return row


if __name__ == "__main__":
    main()
