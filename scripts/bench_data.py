#!/usr/bin/env python
"""Rows per second from a data set to the model's batch: does a ViT-small ever wait for data?

    python scripts/bench_data.py --preset peptides --workers 0 1 2 --streaming --json data.json --figure data.png

Timed are the processor in its collator alone, on rows that are in memory as lists or arrays, and whole data loaders: over the
data set as it is (`datasets` makes lists), over `ArrowRows` (arrays; what `LPSTrainer` does) and, with `--streaming`, over an
`IterableDataset` of the same rows, as it is and with the format "arrow". Beside rows per second on the clock stand those per
second of processor time, which others on the machine disturb less and which the bar of "on one core" is about. The other side is
a forward and backward pass of a bare ViT-small with 14 x 14 tokens, on all the cores that torch uses.

Then batches in random order are compared with batches of similar lengths (`SimilarLengthSampler`): how much of the edges is
padding, how many shapes `torch.compile` meets, how long the interface network takes. All is measured in turn; figures are medians
and ranges.

Rows are those of `--dataset_name`; without it those of ../shared/data/hub beside the project, and without that random molecules.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets, load_dataset
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTModel

from lps_hf import LPSConfig, LPSForGraphClassification, LPSProcessor
from lps_hf.data import DataCollatorForGraphs
from lps_hf.data.arrow_rows import ArrowRows
from lps_hf.data.rows import infer_config
from lps_hf.data.similar_lengths import SimilarLengthSampler, row_lengths
from lps_hf.evaluation.benchmarks import Elapsed, interleave, spread, write_json
from lps_hf.evaluation.data_figures import data_figure
from lps_hf.models.configuration_base_networks import MLPBaseConfig
from lps_hf.models.row_batches import Padding

HUB = Path(__file__).parents[2] / "shared" / "data" / "hub"
# Folder of the data set, rows of a batch, the least number of rows a second (the bar); for random rows: range, mean and deviation
# of the number of nodes, categories of nodes and edges, number of labels.
PRESETS: dict[str, dict[str, Any]] = {
    "mutag": {
        "folder": "mutag", "batch_size": 128, "bar": 5000, "nodes": (10, 28, 18, 5),
        "node_categories": [7], "edge_categories": [4], "num_labels": 1,
    },
    "peptides": {
        "folder": "peptides-func", "batch_size": 32, "bar": 500, "nodes": (8, 444, 151, 84),
        "node_categories": [17, 3, 7, 7, 5, 1, 6, 2, 2], "edge_categories": [4, 1, 2], "num_labels": 10,
    },
}  # fmt: skip
VIT_SMALL = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
VIT_ROWS = 8
PADDINGS = {"longest row": Padding(), "power of 1.25": Padding(power_of=1.25), "power of 2": Padding(power_of=2)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="peptides", help="sizes of which data set")
    parser.add_argument("--dataset_name", help="graph rows: a Hub id or a folder")
    parser.add_argument("--rows", type=int, default=2048, help="rows of a timed pass (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, help="default: 128 for mutag, 32 for peptides")
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="numbers of worker processes of data loaders")
    parser.add_argument("--streaming", action="store_true", help="also time an IterableDataset of the same rows")
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds (default: %(default)s)")
    parser.add_argument("--json", help="file for the result, - for standard output")
    parser.add_argument("--figure", help="file for the figure")
    options = parser.parse_args(arguments)
    batch_size = options.batch_size or PRESETS[options.preset]["batch_size"]
    if options.rows < batch_size or batch_size < 1:
        parser.error(f"--rows: expected at least one batch of {batch_size} rows, got {options.rows}.")
    result = measure(
        options.preset, options.dataset_name, options.rows, batch_size, options.workers, options.streaming, options.repeats
    )
    if options.json != "-":
        print_report(result)
    write_json(result, options.json)
    if options.figure:
        data_figure(result).savefig(options.figure, dpi=150)


def measure(
    preset: str, dataset_name: str | None, num_rows: int, batch_size: int, workers: list[int], streaming: bool, repeats: int
) -> dict[str, Any]:
    """All that is measured, as plain numbers."""
    rows, source = load_rows(preset, dataset_name, num_rows)
    config = LPSConfig(backbone_config=MLPBaseConfig(hidden_sizes=[8]), **infer_config("graph-classification", {"train": rows}))
    processor = LPSProcessor.from_config(config)
    rates = measure_rates(rows, DataCollatorForGraphs(processor), batch_size, workers, streaming, repeats)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    consumed = interleave({"vit": vit_small_step(device)}, max(2, repeats // 2), description="ViT-small")["vit"][1:]
    vit = spread([VIT_ROWS / seconds for seconds in consumed])
    for one in rates.values():
        one["bar_factor"] = (one["per_processor_second"] or one["median"]) / PRESETS[preset]["bar"]
        one["vit_small_factor"] = one["median"] / vit["median"]
    return {
        "preset": preset,
        "source": source,
        "num_rows": num_rows,
        "batch_size": batch_size,
        "mean_nodes": float(np.mean(rows["num_nodes"])),
        "mean_edges": float(row_lengths(rows).mean()),
        "bar": PRESETS[preset]["bar"],
        "rows_per_second": rates,
        "vit_small_rows_per_second": vit,
        "vit_small_device": device.type,
        "orders": measure_orders(rows, config, processor, batch_size, repeats),
        "repeats": repeats,
        "threads": torch.get_num_threads(),
    }


def load_rows(preset: str, dataset_name: str | None, num_rows: int) -> tuple[Dataset, str]:
    """`num_rows` rows, and where they are from; those of a smaller data set come several times."""
    folder = HUB / PRESETS[preset]["folder"]
    if dataset_name is None and not folder.is_dir():
        rng = np.random.default_rng(0)
        return Dataset.from_list([random_molecule(preset, rng) for _ in range(num_rows)]), "random molecules"
    rows = concatenate_datasets(list(load_dataset(dataset_name or str(folder)).values()))
    order = np.random.default_rng(0).permutation(np.arange(num_rows) % len(rows) if num_rows > len(rows) else len(rows))
    return rows.select(order[:num_rows]).flatten_indices(keep_in_memory=True), dataset_name or folder.name


def random_molecule(preset: str, rng: np.random.Generator) -> dict[str, Any]:
    """A chain with short branches and a few rings, of the sizes and categories of the preset."""
    settings = PRESETS[preset]
    least, most, mean, deviation = settings["nodes"]
    num_nodes = int(np.clip(rng.normal(mean, deviation), least, most))
    targets = np.arange(1, num_nodes)
    sources = np.maximum(targets - rng.integers(1, 4, size=num_nodes - 1), 0)
    ring_ends = rng.choice(num_nodes - 5, size=1 + num_nodes // 40, replace=False)
    sources, targets = np.append(sources, ring_ends), np.append(targets, ring_ends + 5)
    edges = np.stack([np.append(sources, targets), np.append(targets, sources)])
    several = settings["num_labels"] > 1
    return {
        "edge_index": edges.tolist(),
        "num_nodes": num_nodes,
        "node_feat": rng.integers(settings["node_categories"], size=(num_nodes, len(settings["node_categories"]))).tolist(),
        "edge_attr": rng.integers(settings["edge_categories"], size=(edges.shape[1], len(settings["edge_categories"]))).tolist(),
        "y": rng.integers(2, size=settings["num_labels"]).astype(float if several else int).tolist(),
    }


def measure_rates(
    rows: Dataset, collator: DataCollatorForGraphs, batch_size: int, workers: list[int], streaming: bool, repeats: int
) -> dict[str, dict[str, Any]]:
    """Rows per second of each way from a row to a batch."""
    starts = range(0, len(rows), batch_size)
    arrays = ArrowRows(rows)
    # Rows in memory: enough batches for a figure, few enough for any memory.
    numbers = [list(range(start, min(start + batch_size, len(rows)))) for start in starts][: max(1, 2048 // batch_size)]
    in_memory = {
        "lists": [rows.__getitems__(part) for part in numbers],
        "arrays": [arrays.__getitems__(part) for part in numbers],
    }

    measures: dict[str, Callable[[], Elapsed]]
    measures = {f"processor, {kind}": lambda parts=parts: pass_over(map(collator, parts)) for kind, parts in in_memory.items()}
    for count in workers:
        # Workers are started once and kept, as in a training run.
        settings = {"collate_fn": collator, "num_workers": count, "persistent_workers": count > 0}
        name = "no worker" if count == 0 else "1 worker" if count == 1 else f"{count} workers"
        for kind, source in (("lists", rows), ("arrays", arrays)):
            loader = DataLoader(source, batch_size, shuffle=True, **settings)
            measures[f"data loader, {kind}, {name}"] = lambda loader=loader: pass_over(loader)
        stream = rows.to_iterable_dataset(num_shards=max(1, count))
        for kind, source in (("lists", stream), ("arrays", stream.with_format("arrow"))) if streaming else ():
            loader = DataLoader(source, batch_size, **settings)
            measures[f"stream, {kind}, {name}"] = lambda loader=loader: pass_over(loader)
    for run in measures.values():
        run()  # workers start, caches fill
    result = {}
    for name, passes in interleave(measures, repeats, description="rows").items():
        result[name] = spread([1 / one.wall for one in passes])
        in_workers = name.endswith(("worker", "workers")) and not name.endswith("no worker")
        result[name]["per_processor_second"] = None if in_workers else statistics.median(1 / one.processor for one in passes)
    return result


def pass_over(batches: Iterable[Any]) -> Elapsed:
    """Seconds for each row."""
    wall, processor, count = time.perf_counter(), time.process_time(), 0
    for batch in batches:
        count += len(batch["node_mask"])
    return Elapsed((time.perf_counter() - wall) / count, (time.process_time() - processor) / count)


def vit_small_step(device: torch.device) -> Callable[[], float]:
    """A forward and backward pass of a bare ViT-small on so many images, as seconds; bfloat16 on a GPU."""
    torch.manual_seed(0)
    vit = ViTModel(VIT_SMALL, add_pooling_layer=False).to(device).train()
    pixel_values = torch.randn(VIT_ROWS, 3, VIT_SMALL.image_size, VIT_SMALL.image_size, device=device)

    def step() -> float:
        vit.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            vit(pixel_values).last_hidden_state.float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return step


def measure_orders(
    rows: Dataset, config: LPSConfig, processor: LPSProcessor, batch_size: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Batches in random order against batches of similar lengths: padding, shapes, and time of the interface network."""
    num_nodes, num_edges = np.array(rows["num_nodes"]), row_lengths(rows)
    sampler = SimilarLengthSampler(num_edges, batch_size)
    orders = {"random": np.random.default_rng(0).permutation(len(rows)), "similar lengths": np.array(list(sampler))}
    distribution = LPSForGraphClassification(config).eval().lps
    arrays, result, measures = ArrowRows(rows), {}, {}
    for name, order in orders.items():
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        result[name] = {"paddings": {}}
        for padding_name, padding in PADDINGS.items():
            lengths = [(padding.length(num_nodes[part].max()), padding.length(num_edges[part].max())) for part in batches]
            held = sum(len(part) * edges for part, (_, edges) in zip(batches, lengths, strict=True))
            result[name]["paddings"][padding_name] = {
                "padded_edges": 1 - float(num_edges.sum()) / held,
                "shapes": len(set(lengths)),
            }
        # Every so many of the batches, so that there are long ones and short ones in both orders.
        timed = batches[:: -(-len(batches) // 16)]
        encoded = [encode(distribution, processor(arrays.__getitems__(part.tolist()), return_tensors="pt")) for part in timed]
        count = int(sum(batch.edge_mask.sum() for batch in encoded))
        measures[name] = lambda encoded=encoded, count=count: time_interface(distribution, encoded) / count
    for name, seconds in interleave(measures, repeats, description="interface").items():
        result[name]["interface_microseconds_per_edge"] = spread([1e6 * value for value in seconds])
    return result


def encode(lps: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
    return lps.encode(**{key: tensor for key, tensor in batch.items() if key != "labels"})


@torch.no_grad()
def time_interface(lps: torch.nn.Module, batches: list[Any]) -> float:
    """Seconds in which group elements are drawn, one for each row."""
    generator = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    for batch in batches:
        lps.distribution(batch, lps.draw_noise(batch, 1, generator))
    return time.perf_counter() - start


def print_report(result: dict[str, Any]) -> None:
    vit = result["vit_small_rows_per_second"]
    print(
        f"{result['preset']}: {result['source']}, {result['num_rows']} rows of {result['mean_nodes']:.0f} nodes and "
        f"{result['mean_edges']:.0f} edges, batches of {result['batch_size']}"
    )
    print(f"{'rows per second':<34}{'median':>10}{'range':>20}{'processor':>12}{'/ bar':>9}{'/ ViT-small':>13}")
    for name, one in result["rows_per_second"].items():
        low, high = one["range"]
        bounds = f"{low:,.0f} to {high:,.0f}"
        alone = "" if one["per_processor_second"] is None else f"{one['per_processor_second']:,.0f}"
        factors = f"{one['bar_factor']:>9.1f}{one['vit_small_factor']:>13,.0f}"
        print(f"{name:<34}{one['median']:>10,.0f}{bounds:>20}{alone:>12}{factors}")
    low, high = vit["range"]
    print(f"{'bar':<34}{result['bar']:>10,}")
    consumer = f"ViT-small on {result['vit_small_device']}, {result['threads']} thread{'s' * (result['threads'] > 1)}"
    print(f"{consumer:<34}{vit['median']:>10,.1f}{f'{low:,.1f} to {high:,.1f}':>20}")
    print(f"\n{'order':<18}{'padded to':<16}{'padded edges':>14}{'shapes':>9}{'interface, µs an edge':>24}")
    for order, one in result["orders"].items():
        low, high = one["interface_microseconds_per_edge"]["range"]
        cost = f"{one['interface_microseconds_per_edge']['median']:.2f} ({low:.2f} to {high:.2f})"
        for number, (padding, figures) in enumerate(one["paddings"].items()):
            share = f"{100 * figures['padded_edges']:.1f} %"
            print(f"{order:<18}{padding:<16}{share:>14}{figures['shapes']:>9}{'' if number else cost:>24}")


if __name__ == "__main__":
    main()
