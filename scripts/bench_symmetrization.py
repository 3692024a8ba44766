#!/usr/bin/env python
"""What symmetrization costs: the symmetrized model against k passes of its bare backbone on the same number of tokens.

Both are timed in turn in one process; the figure is the ratio of the medians. The backbone has the size of ViT-tiny.

Example: `python scripts/bench_symmetrization.py --preset pattern --num_samples 10 --mode train --json -`
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import ViTConfig

from lps_hf import LPSConfig, LPSForGraphClassification, LPSProcessor

# Largest graph, and the node and edge categories of the data set.
PRESETS = {
    "pattern": (188, [3], None),
    "pcqm": (53, [17, 3, 7, 7, 5, 1, 6, 2, 2], [4, 1, 2]),
    "peptides": (444, [17, 3, 7, 7, 5, 1, 6, 2, 2], [4, 1, 2]),
}


def random_row(preset: str, rng: np.random.Generator) -> dict:
    """A random graph with the sizes of the preset's data set: two-block communities, or chains with branches and rings."""
    max_nodes, node_categories, edge_categories = PRESETS[preset]
    if preset == "pattern":
        sizes = rng.integers(5, 35, size=6)
        block = np.repeat(np.arange(6), sizes)[:max_nodes]
        nodes = len(block)
        same, pattern = block[:, None] == block, (block[:, None] == 5) | (block == 5)
        chance = np.where(same | pattern, 0.5, 0.35)
        source, target = np.nonzero(np.triu(rng.random((nodes, nodes)) < chance, 1))
    else:
        nodes = int(rng.integers(20, max_nodes + 1)) if preset == "pcqm" else int(np.clip(rng.normal(151, 84), 8, max_nodes))
        target = np.arange(1, nodes)
        source = np.maximum(target - rng.integers(1, 4, size=nodes - 1), 0)
    edges = np.stack([np.concatenate([source, target]), np.concatenate([target, source])])
    row = {"edge_index": edges, "num_nodes": nodes, "y": [0]}
    row["node_feat"] = np.stack([rng.integers(size, size=nodes) for size in node_categories], axis=1)
    if edge_categories:
        row["edge_attr"] = np.stack([rng.integers(size, size=edges.shape[1]) for size in edge_categories], axis=1)
    return row


def measure(preset: str, num_samples: int, mode: str, batch_size: int, repeats: int) -> dict:
    """Time the symmetrized model, its bare backbone and its parts in turn."""
    torch.manual_seed(0)
    max_nodes, node_categories, edge_categories = PRESETS[preset]
    backbone = ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768)
    config = LPSConfig(
        backbone_config=backbone, max_nodes=max_nodes, node_categories=node_categories, edge_categories=edge_categories
    )
    model = LPSForGraphClassification(config).train(mode == "train")
    rng = np.random.default_rng(0)
    batch = LPSProcessor.from_config(config)([random_row(preset, rng) for _ in range(batch_size)], return_tensors="pt")
    base = model.lps.base
    shape = batch_size * num_samples, base.backbone.num_tokens, base.backbone.hidden_size
    tokens = torch.randn(shape, requires_grad=mode == "train")

    def run_model() -> None:
        outputs = model(**batch, num_samples=num_samples)
        if mode == "train":
            outputs.loss.backward()

    def run_backbone() -> None:
        pooled = base.backbone(tokens).pooler_output
        if mode == "train":
            pooled.sum().backward()

    seconds: dict[str, list[float]] = {"model": [], "backbone": []}
    with torch.set_grad_enabled(mode == "train"):
        for repeat in tqdm(range(repeats + 1), desc=f"{preset} k={num_samples} {mode}", file=sys.stderr):
            for name, run in (("model", run_model), ("backbone", run_backbone)):
                model.zero_grad(set_to_none=True)
                elapsed = _time(run)
                if repeat:  # the first round warms up
                    seconds[name].append(elapsed)
        breakdown = {"distribution": _time_module(model.lps.distribution, run_model)}
        breakdown["projections"] = sum(_time_module(module, run_model) for module in base.projections.values())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [model_s / backbone_s for model_s, backbone_s in zip(*seconds.values(), strict=True)]
    return {
        "preset": preset,
        "num_samples": num_samples,
        "mode": mode,
        "batch_size": batch_size,
        "overhead_ratio": medians["model"] / medians["backbone"],
        "overhead_ratio_range": [min(ratios), max(ratios)],
        "breakdown": {f"{name}_forward": value / medians["backbone"] for name, value in breakdown.items()},
        "repeats": repeats,
        "threads": torch.get_num_threads(),
    }


def _time(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _time_module(module: torch.nn.Module, run: Callable[[], None]) -> float:
    """Seconds that one module's forward takes inside a run."""
    times: list[float] = []
    before = module.register_forward_pre_hook(lambda *_: times.append(-time.perf_counter()))
    after = module.register_forward_hook(lambda *_: times.append(time.perf_counter()))
    run()
    before.remove()
    after.remove()
    return sum(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=list(PRESETS), default="pcqm", help="sizes of which data set (default: %(default)s)")
    parser.add_argument("--num_samples", type=int, default=1, help="group elements per graph (default: %(default)s)")
    parser.add_argument("--mode", choices=["eval", "train"], default="eval", help="forward, or forward and backward")
    parser.add_argument("--batch_size", type=int, default=8, help="graphs (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default: %(default)s)")
    parser.add_argument("--json", help="file for the result, - for standard output")
    options = parser.parse_args()
    result = measure(options.preset, options.num_samples, options.mode, options.batch_size, options.repeats)
    text = json.dumps(result, indent=2)
    if options.json == "-":
        print(text)
    else:
        print(f"overhead ratio {result['overhead_ratio']:.3f}")
        print(*(f"  {name} {share:.3f} of the backbone" for name, share in result["breakdown"].items()), sep="\n")
        if options.json:
            Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
