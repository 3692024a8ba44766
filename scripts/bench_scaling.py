#!/usr/bin/env python
"""How the cost of everything but the backbone grows with the graph: random graphs, exponents, and one large graph.

    python scripts/bench_scaling.py --figure scaling.png --json scaling.json
    python scripts/bench_scaling.py --mode train --nodes 16 64 256 1024 --edges 100 1000 10000

Two sweeps: `edges` at a fixed number of nodes, and `nodes` at a fixed number of edges per node. An edge is an entry of
`edge_index`, so that a line between two nodes counts twice. A point's cost is the sum of the times of all parts but the backbone
(by hooks; see `symmetrization_parts`), in bare backbones, which are timed in the same rounds. Exponents are fitted to the upper
half of the logarithmic range, where fixed costs no longer dominate. `large_graph` is the whole model against the bare backbone.
`relaxation` times the sort, the soft permutation and its entropy alone, forward and backward, up to 65,536 nodes, and at
--dense_nodes against the published way, dense matrices in the log domain.

A sweep without sizes is left out, as in `--nodes --relaxation_nodes`.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from lps_hf import LPSConfig, LPSForGraphClassification, LPSProcessor
from lps_hf.evaluation.benchmark_figures import scaling_figure
from lps_hf.evaluation.benchmarks import elapsed, interleave, overhead, power_law, spread, write_json
from lps_hf.evaluation.symmetrization_cost import CostComparison, added_seconds, bare_backbone, vit_config
from lps_hf.models.groups import get_group

# What is asked of the default run: exponent in edges, the large graph against the bare backbone, and the relaxation against a
# dense one.
EXPONENT_BAR, LARGE_GRAPH_BAR, DENSE_BAR = 1.1, 2.0, 20.0
DENSE_BATCH = 8
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def main() -> None:
    options = parse_options()
    result = {
        "mode": options.mode,
        "num_samples": options.num_samples,
        "batch_size": options.batch_size,
        "backbone": options.backbone,
        "max_nodes": options.max_nodes or "nodes",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else options.device,
        "dtype": options.dtype,
        "threads": torch.get_num_threads(),
        **measure(options),
    }
    if options.relaxation_nodes:
        result["relaxation"] = measure_relaxation(options)
    print(describe(result), file=sys.stderr if options.json == "-" else sys.stdout)
    write_json(result, options.json)
    if options.figure:
        scaling_figure(result).savefig(options.figure)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    edges = [first * 10**power for power in range(2, 6) for first in (1, 3)] + [10**6]
    parser.add_argument("--edges", nargs="*", type=int, default=edges, help="sweep of edges (default: 100 to 1,000,000)")
    parser.add_argument("--nodes_of_edges", type=int, default=4096, help="nodes in the sweep of edges")
    parser.add_argument("--nodes", nargs="*", type=int, default=[2**power for power in range(4, 13)], help="sweep of nodes")
    parser.add_argument("--edges_per_node", type=int, default=12, help="edges per node in the sweep of nodes")
    parser.add_argument("--large_graph", nargs=2, type=int, default=[4096, 50_000], metavar=("NODES", "EDGES"))
    relaxation = [4**power for power in range(3, 9)]
    parser.add_argument("--relaxation_nodes", nargs="*", type=int, default=relaxation, help="sweep of the relaxation alone")
    parser.add_argument("--dense_nodes", type=int, default=444, help="size at which to compare with dense matrices")
    parser.add_argument("--max_nodes", type=int, help="n_max of the model (default: the nodes of each graph)")
    parser.add_argument("--mode", choices=["eval", "train"], default="eval", help="forward, or also backward")
    parser.add_argument("--num_samples", type=int, default=1, help="group elements per graph")
    parser.add_argument("--batch_size", type=int, default=1, help="graphs")
    parser.add_argument("--backbone", default="tiny", help="ViT: tiny, small, base or <hidden>x<layers>x<heads>")
    parser.add_argument("--grid_size", type=int, help="side of the token grid (default: 14)")
    parser.add_argument("--repeats", type=int, help="rounds (default: as many as fit in --seconds, 3 to 50)")
    parser.add_argument("--seconds", type=float, default=60, help="for the rounds of the sweeps, and again for the relaxation")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="bfloat16: by autocast")
    parser.add_argument("--json", help="file for the result, - for standard output")
    parser.add_argument("--figure", help="file for a picture of the result")
    options = parser.parse_args()
    for name, sizes in (("edges", options.edges), ("nodes", options.nodes), ("relaxation_nodes", options.relaxation_nodes)):
        if len(sizes) == 1 or sizes != sorted(set(sizes)):
            parser.error(f"--{name}: expected none, or at least two sizes in ascending order, got {sizes}.")
    return options


def measure(options: argparse.Namespace) -> dict:
    """All points of both sweeps and the large graph, in turn with the bare backbone."""
    torch.manual_seed(0)
    sweeps = {
        "edges": [(options.nodes_of_edges, edges) for edges in options.edges],
        "nodes": [(nodes, options.edges_per_node * nodes) for nodes in options.nodes],
    }
    make_point = PointMaker(options)
    large_graph = make_point(*options.large_graph)
    points = {size: make_point(*size) for sizes in sweeps.values() for size in sizes}
    measures: dict[str | tuple[int, int], Callable] = {
        "backbone": large_graph.elapsed_backbone,
        "large_graph": large_graph.elapsed_model,
        "large_graph_parts": large_graph.part_seconds,
        # By size: a graph that follows a much larger one finds cold caches, and memory to give back.
        **{size: points[size].part_seconds for size in sorted(points, key=lambda size: size[1])},
    }
    interleave(measures, 1, description="warm-up")
    rounds = interleave(measures, options.repeats, options.seconds, "sweeps")
    floor = [one.wall for one in rounds["backbone"]]
    titles = {
        "edges": f"{options.nodes_of_edges:,} nodes",
        "nodes": f"{options.edges_per_node} edges per node",
    }
    nodes, edges = options.large_graph
    return {
        "rounds": len(floor),
        "backbone_seconds": spread(floor),
        "large_graph": {
            **overhead(rounds["large_graph"], rounds["backbone"]),
            **summarize_point(nodes, edges, rounds["large_graph_parts"], floor),
        },
        "sweeps": {
            name: summarize_sweep(name, titles[name], {size: rounds[size] for size in sizes}, floor)
            for name, sizes in sweeps.items()
            if sizes
        },
    }


class PointMaker:
    """Makes the measurement of a size; models of one size are made once, and all share one bare backbone."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.models, self.backbone = options, {}, None
        self.rng = np.random.default_rng(0)

    def __call__(self, nodes: int, edges: int) -> CostComparison:
        options = self.options
        max_nodes = options.max_nodes or nodes
        if max_nodes not in self.models:
            backbone = vit_config(options.backbone)
            config = LPSConfig(
                backbone_config=backbone, grid_size=options.grid_size, max_nodes=max_nodes, node_categories=[3], num_labels=2
            )
            self.models[max_nodes] = LPSForGraphClassification(config)
        model = self.models[max_nodes]
        self.backbone = self.backbone or bare_backbone(model.config)
        rows = [random_row(nodes, edges, self.rng) for _ in range(options.batch_size)]
        batch = LPSProcessor.from_config(model.config)(rows, return_tensors="pt")
        return CostComparison(
            model,
            {name: tensor.to(options.device) for name, tensor in batch.items()},
            options.num_samples,
            train=options.mode == "train",
            dtype=DTYPES[options.dtype],
            backbone=self.backbone,
        )


def summarize_sweep(
    name: str, title: str, rounds: Mapping[tuple[int, int], Sequence[Mapping[str, float]]], floor: Sequence[float]
) -> dict:
    """All points of a sweep, and the exponent."""
    points = [summarize_point(nodes, edges, runs, floor) for (nodes, edges), runs in rounds.items()]
    fit = power_law([point[name] for point in points], [point["ratio"] for point in points])
    return {"x": name, "title": title, "points": points, "fit": fit}


def summarize_point(nodes: int, edges: int, runs: Sequence[Mapping[str, float]], floor: Sequence[float]) -> dict:
    """What everything but the backbone costs, in bare backbones; `floor` holds their seconds in the same rounds."""
    unit = statistics.median(floor)
    added = [added_seconds(run) for run in runs]
    return {
        "nodes": nodes,
        "edges": edges,
        "seconds": statistics.median(added),
        "ratio": statistics.median(added) / unit,
        "ratio_quartiles": spread([one / other for one, other in zip(added, floor, strict=True)])["quartiles"],
        "parts": {part: statistics.median(run.get(part, 0.0) for run in runs) / unit for part in runs[0]},
    }


def measure_relaxation(options: argparse.Namespace) -> dict:
    """Sort, soft permutation and entropy of one graph alone, forward and backward, through the group's public methods."""
    group, device = get_group("S_n"), torch.device(options.device)
    config = LPSConfig(backbone_config=vit_config(options.backbone))
    axes = config.input_representations["node_features"]

    def make(nodes: int, batch: int = 1, dense: bool = False) -> Callable[[], float]:
        generator = torch.Generator().manual_seed(nodes)
        node_mask = torch.ones(batch, nodes, dtype=torch.bool, device=device)
        scores = torch.randn(batch, options.num_samples, nodes, generator=generator).to(device).requires_grad_()
        ties = group.draw_scores(node_mask, options.num_samples)
        features, gradient = torch.randn(2, batch, options.num_samples, nodes, 1, generator=generator).to(device)

        def run() -> None:
            elements = group.project(scores, node_mask, ties)
            elements, entropy = group.relax(elements, scores, node_mask, config.temperature, config.sinkhorn_iterations)
            ((group.act_inverse(elements, features, axes) * gradient).sum() + entropy).backward()

        def run_dense() -> None:
            index = group.project(scores, node_mask, ties).index
            soft, entropy = dense_relaxation(scores, index, config.temperature, config.sinkhorn_iterations)
            hard = torch.nn.functional.one_hot(index, nodes).mT.to(soft.dtype)
            (((hard + soft - soft.detach()).mT @ features * gradient).sum() + entropy).backward()

        def measure_run() -> float:
            scores.grad = None
            return elapsed(run_dense if dense else run, device).wall

        return measure_run

    measures: dict[int | str, Callable] = {nodes: make(nodes) for nodes in options.relaxation_nodes}
    if options.dense_nodes:
        measures |= {name: make(options.dense_nodes, DENSE_BATCH, name == "dense") for name in ("ours", "dense")}
    interleave(measures, 1, description="warm-up")
    rounds = interleave(measures, options.repeats, options.seconds, "relaxation")
    ours, dense = rounds.pop("ours", []), rounds.pop("dense", [])
    points = []
    for nodes, seconds in rounds.items():
        summary = spread(seconds)
        points.append({"nodes": nodes, "seconds": summary["median"], "seconds_quartiles": summary["quartiles"]})
    fit = power_law([point["nodes"] for point in points], [point["seconds"] for point in points])
    result = {"points": points, "fit": fit, "rounds": len(seconds)}
    if options.dense_nodes:
        ratios = spread([slow / fast for slow, fast in zip(dense, ours, strict=True)])
        speed_up = statistics.median(dense) / statistics.median(ours)
        size = {"nodes": options.dense_nodes, "batch_size": DENSE_BATCH}
        result["dense"] = {**size, "speed_up": speed_up, "speed_up_quartiles": ratios["quartiles"]}
    return result


def dense_relaxation(
    scores: torch.Tensor, index: torch.Tensor, temperature: float, num_rounds: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The published way, for graphs without padding: a dense matrix per sample, Sinkhorn in the log domain, and its entropy."""
    scores = scores / torch.linalg.vector_norm(scores, dim=-1, keepdim=True)
    log_soft = -(scores.unsqueeze(-1) - scores.gather(-1, index).unsqueeze(-2)).abs() / temperature
    for _ in range(num_rounds):
        log_soft = log_soft - log_soft.logsumexp(dim=-1, keepdim=True)
        log_soft = log_soft - log_soft.logsumexp(dim=-2, keepdim=True)
    soft, entropy = log_soft.exp(), torch.zeros((), device=scores.device)
    for axis in (-1, -2):
        share = soft.clamp(min=1e-12)
        share = share / share.sum(dim=axis, keepdim=True)
        entropy = entropy - (share * share.log()).sum(dim=(-1, -2)).mean() / scores.shape[-1]
    return soft, entropy


def describe(result: dict) -> str:
    """The result in a few lines."""
    large = result["large_graph"]
    extremes = "{:.3f} to {:.3f}".format(*large["overhead_ratio_range"])
    lines = [
        f"{result['mode']} k={result['num_samples']}, {result['rounds']} rounds; costs of everything but the backbone in bare "
        "backbones",
        f"{large['nodes']:,} nodes, {large['edges']:,} edges: the whole model costs {large['overhead_ratio']:.3f} bare backbones "
        f"(range {extremes}), bar {LARGE_GRAPH_BAR}",
    ]
    for name, sweep in result["sweeps"].items():
        bar = f", bar {EXPONENT_BAR}" if name == "edges" else ""
        lines.append(
            f"{name} ({sweep['title']}): exponent {sweep['fit']['exponent']:.2f} from {sweep['fit']['fitted_from']:,.0f}{bar}"
        )
        slopes = ["", *(f"local exponent {slope:.2f}" for slope in sweep["fit"]["local_exponents"])]
        for point, slope in zip(sweep["points"], slopes, strict=True):
            quartiles = "{:.3f} to {:.3f}".format(*point["ratio_quartiles"])
            lines.append(f"  {point[name]:>9,}  {point['ratio']:.3f} (quartiles {quartiles})  {slope}")
    if "relaxation" in result:
        fit = result["relaxation"]["fit"]
        lines.append(f"relaxation, forward and backward: exponent {fit['exponent']:.2f} from {fit['fitted_from']:,.0f} nodes")
        lines.extend(f"  {point['nodes']:>9,}  {1000 * point['seconds']:.2f} ms" for point in result["relaxation"]["points"])
        if "dense" in result["relaxation"]:
            dense = result["relaxation"]["dense"]
            quartiles = "{:.1f} to {:.1f}".format(*dense["speed_up_quartiles"])
            lines.append(
                f"  {dense['batch_size']} graphs of {dense['nodes']} nodes: {dense['speed_up']:.1f} times as fast as dense "
                f"matrices (quartiles {quartiles}), bar {DENSE_BAR:g}"
            )
    return "\n".join(lines)


def random_row(nodes: int, edges: int, rng: np.random.Generator) -> dict:
    """A random graph with exactly so many entries of `edge_index`: lines between distinct nodes, each in both directions."""
    pairs = nodes * (nodes - 1) // 2
    if edges % 2 or edges > 2 * pairs:
        raise SystemExit(f"{edges} edges: expected an even number up to {2 * pairs} for {nodes} nodes. Choose other sizes.")
    chosen = rng.choice(pairs, size=edges // 2, replace=False)
    # Pair number p of the lower triangle: row r holds the numbers from r (r - 1) / 2 on.
    source = ((1 + np.sqrt(1 + 8 * chosen.astype(np.float64))) / 2).astype(np.int64)
    target = chosen - source * (source - 1) // 2
    return {
        "edge_index": np.stack([np.concatenate([source, target]), np.concatenate([target, source])]),
        "num_nodes": nodes,
        "node_feat": rng.integers(3, size=(nodes, 1)),
        "y": [0],
    }


if __name__ == "__main__":
    main()
