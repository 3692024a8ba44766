"""The card of a data set that `scripts/make_dataset.py` made: what a row is, how it was made, what can be reached on it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from datasets import Dataset, DatasetInfo, Image, SplitDict, SplitInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData

import lps_hf
from lps_hf.data.dataset_folders import DATASET_KINDS, SPLITS
from lps_hf.data.rows import labels_of
from lps_hf.evaluation.weisfeiler_leman import wl1_accuracy

from .dataset_texts import GENERATED_LICENSE, KIND_TEXTS, KindText

_COLUMNS = {
    "edge_index": "sources and targets of the edges, each edge in both directions",
    "num_nodes": "number of nodes",
    "node_feat": "categories of each node, from 0",
    "edge_attr": "categories of each edge, from 0",
    "edge_label_index": "sources and targets of the pairs to be scored",
    "edge_label": "1 where the pair is linked, else 0",
    "positions": "coordinates of each point",
    "velocities": "velocity of each particle",
    "charges": "charge of each particle",
    "target_positions": "where each particle is later: the target",
    "image": "the picture",
    "label": "its class",
}
_LABEL_MEANINGS = {"node-classification": "class of each node", "molecule-regression": "targets of the molecule"}
_TASK_CATEGORIES = {"image-classification": "image-classification", "point-cloud-classification": "other"}


def make_dataset_card(
    kind: str,
    splits: Mapping[str, Dataset],
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    license: str | None = None,
) -> DatasetCard:
    """Write the card of a data set that `make_splits` made.

    Args:
        kind: A key of `DATASET_KINDS`.
        splits: The data set, with the types that it is stored with.
        seed: The seed that it was made with.
        options: The options that it was made with.
        license: Its licence. Default: CC0 for generated rows, that of the source for others, or `"unknown"`.

    Returns:
        `huggingface_hub.DatasetCard`: `.save(path)` writes it; `str(card)` is the text.
    """
    task, text = DATASET_KINDS[kind].task, KIND_TEXTS[kind]
    is_generated = DATASET_KINDS[kind].source is None and text.license == GENERATED_LICENSE
    parts = [
        f"# {text.title}",
        text.what,
        "## Splits",
        _splits_table(task, splits),
        "## Columns",
        _columns_table(task, next(iter(splits.values()))),
        "## How it was made",
        _making(kind, splits, seed, options or {}),
        "## What can be reached" if is_generated else "",
        _reached(kind, text, splits) if is_generated else "",
        "## Use",
        _use(task),
        f"## Citation\n\n{text.cite}" if text.cite else "",
    ]
    header = DatasetCardData(
        license=license or text.license,
        task_categories=[_TASK_CATEGORIES.get(task, "graph-ml")],
        size_categories=[_size_category(sum(map(len, splits.values())))],
        pretty_name=text.title,
        tags=["lps_hf", "equivariance", *(["synthetic"] if is_generated else [])],
        configs=[
            {"config_name": "default", "data_files": [{"split": split, "path": f"data/{split}-*"} for split in splits]},
        ],
    )
    info = DatasetInfo(features=next(iter(splits.values())).features)
    info.splits = SplitDict(
        {split: SplitInfo(split, num_bytes=int(rows.data.nbytes), num_examples=len(rows)) for split, rows in splits.items()}
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(header)
    body = "\n\n".join(part for part in parts if part)
    return DatasetCard(f"---\n{header.to_yaml()}\n---\n\n{body}\n")


def _splits_table(task: str, splits: Mapping[str, Dataset]) -> str:
    lines = ["| split | rows | size of a row | labels |", "| --- | --- | --- | --- |"]
    lines += [f"| {split} | {len(rows):,} | {_sizes(rows)} | {_labels(task, rows)} |" for split, rows in splits.items()]
    return "\n".join(lines)


def _sizes(rows: Dataset) -> str:
    if "image" in rows.column_names:
        width, height = rows[0]["image"].size
        return f"{width} × {height} pixels"
    sizes = rows["num_nodes"][:] if "num_nodes" in rows.column_names else [len(points) for points in rows["positions"]]
    noun = "nodes" if "num_nodes" in rows.column_names else "points"
    return f"{min(sizes)} {noun}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)} {noun}"


def _labels(task: str, rows: Dataset) -> str:
    """Share of each class, or range of the numbers."""
    if task in ("molecule-regression", "particle-dynamics"):
        values = labels_of(task, rows)
        return f"{np.nanmin(values):.3g} to {np.nanmax(values):.3g}"
    labels = labels_of(task, rows, "single_label_classification")
    known = labels[~np.isnan(labels) & (labels >= 0)].astype(int)
    shares = np.bincount(known) / known.size
    if len(shares) > 4:
        return f"{len(shares)} classes, each {100 * shares.min():.1f} to {100 * shares.max():.1f} %"
    return ", ".join(f"{number}: {100 * share:.1f} %" for number, share in enumerate(shares))


def _columns_table(task: str, rows: Dataset) -> str:
    meanings = {**_COLUMNS, "y": _LABEL_MEANINGS.get(task, "class of the row, a list of one")}
    lines = ["| column | type | meaning |", "| --- | --- | --- |"]
    for name, feature in rows.features.items():
        lines.append(f"| `{name}` | {_type(feature)} | {meanings.get(name, '')} |")
    return "\n".join(lines)


def _type(feature: Any) -> str:
    if isinstance(feature, Image):
        return "image"
    inner = getattr(feature, "feature", None)
    return f"list of {_type(inner)}" if inner is not None else getattr(feature, "dtype", str(feature))


def _making(kind: str, splits: Mapping[str, Dataset], seed: int, options: Mapping[str, Any]) -> str:
    source = DATASET_KINDS[kind].source
    words = ["python", "scripts/make_dataset.py", kind, *(["--source", "SOURCE"] if source else []), "--output_dir", "FOLDER"]
    for split in SPLITS:
        words += [f"--num_{split}", str(len(splits[split]) if split in splits else 0)]
    words += ["--seed", str(seed)]
    for name, value in options.items():
        words += ["--option", f"{name}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}"]
    more = (
        f"SOURCE is {source}. The seed decides which rows are in which split, and their order."
        if source
        else "The same seed gives the same rows; each split has one of its own, and a larger split continues a smaller one."
    )
    return f"By lps_hf {lps_hf.__version__} and numpy {np.__version__}:\n\n```sh\n{shlex.join(words)}\n```\n\n{more}"


def _reached(kind: str, text: KindText, splits: Mapping[str, Dataset]) -> str:
    if DATASET_KINDS[kind].task != "graph-classification":
        return text.reached
    bounds = [f"{100 * wl1_accuracy(list(rows), _firsts(rows)):.1f} % on {split}" for split, rows in splits.items()]
    return f"{text.reached}\n\nThe best that any 1-WL network can do, computed on these very rows: {', '.join(bounds)}."


def _firsts(rows: Dataset) -> Sequence[int]:
    return [label[0] for label in rows["y"]]


def _use(task: str) -> str:
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        'splits = load_dataset("FOLDER_OR_HUB_ID")\n```\n\n'
        f"`lps_hf` trains on it with `scripts/run_{task.replace('-', '_')}.py --dataset_name "
        "FOLDER_OR_HUB_ID`."
    )


def _size_category(num_rows: int) -> str:
    """The Hub's names of sizes."""
    names = (
        "n<1K",
        "1K<n<10K",
        "10K<n<100K",
        "100K<n<1M",
        "1M<n<10M",
        "10M<n<100M",
        "100M<n<1B",
        "1B<n<10B",
        "10B<n<100B",
        "n>1T",
    )
    return names[min(max(len(str(num_rows)) - 3, 0), len(names) - 1)]
