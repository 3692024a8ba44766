"""What the demo computes: a model to show, rows from what a visitor types, and a prediction with all of its draws."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lps_hf import AutoModelForGraphClassification, LPSConfig, LPSForGraphClassification, LPSProcessor
from lps_hf.data import MOLECULE_EDGE_CATEGORIES, MOLECULE_NODE_CATEGORIES, circular_skip_links, from_smiles
from lps_hf.evaluation.prediction import task_of
from lps_hf.evaluation.prediction_figures import orders_figure, settling_figure
from lps_hf.models.links import apply_link

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_DRAWS = 3
_BOND_WIDTHS = (1.6, 3.4, 5.2, 2.5, 1.6)  # single, double, triple, aromatic, other


@dataclass(frozen=True)
class Demo:
    """A model and what the page says of it."""

    model: LPSForGraphClassification
    processor: LPSProcessor
    names: Sequence[str]
    """Of the outputs."""
    about: str

    @property
    def reads_molecules(self) -> bool:
        """Whether it has the categories of `from_smiles`, or those of them that its data set has."""
        config = self.model.config
        widths = len(config.node_categories or ()), len(config.edge_categories or ())
        return widths == (len(MOLECULE_NODE_CATEGORIES), len(MOLECULE_EDGE_CATEGORIES))


@dataclass(frozen=True)
class Analysis:
    """A prediction after more and more samples."""

    counts: list[int]
    means: np.ndarray
    """(counts, outputs): probabilities of a classifier, otherwise the outputs themselves."""
    errors: np.ndarray
    """(counts, outputs): standard errors; NaN where there is none."""
    orders: np.ndarray
    """(draws, nodes): the node of each rank in the first draws."""
    draws_agree: bool = False
    """Whether all draws gave the same output, so that the error is a bound."""


def load_demo(name_or_path: str) -> Demo:
    """Load a checkpoint of graph or molecule classification or regression; code that comes with it is not run.

    Raises:
        ValueError: If it is for another task.
        OSError: If there is no such checkpoint.
    """
    model = AutoModelForGraphClassification.from_pretrained(name_or_path).eval()
    task = task_of(model)
    if task != "graph-classification":
        raise ValueError(f"model: expected one of graphs, got {name_or_path}, which is for {task}.")
    config = model.config
    about = f"**{Path(name_or_path).name}**: {config.backbone_config.model_type}, group `{config.group}`, {config.distribution}."
    return Demo(model, LPSProcessor.from_pretrained(name_or_path), _output_names(config), about)


def quickstart_demo(folder: str | Path, num_steps: int) -> Demo:
    """The model of the quickstart: loaded from the folder, or trained into it, one to two minutes on two cores."""
    from lps_hf.training.quickstart import NUM_NODES, SKIPS, run_quickstart

    if not (Path(folder) / "results.json").exists():
        run_quickstart(folder, num_steps)
    demo = load_demo(str(folder))
    results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
    skips = f"{', '.join(map(str, SKIPS[:-1]))} or {SKIPS[-1]}"
    about = (
        f"**A small ViT, trained on this machine** in {results['steps']} steps on circular skip links: {NUM_NODES} nodes in a "
        f"ring, and a link from each to the node {skips} steps further. It gets {100 * results['test']['accuracy']:.1f} % of "
        f"{results['num_test']} test graphs right. It knows these {len(SKIPS)} graphs, in every node order, and nothing else: "
        "any other graph gets one of their names too."
    )
    return Demo(demo.model, demo.processor, [f"skip {skip}" for skip in SKIPS], about)


def untrained_molecule_demo(seed: int = 0) -> Demo:
    """A model of molecules with random weights, to look at draws and error bars where no checkpoint is given."""
    backbone = {
        "model_type": "vit",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    config = LPSConfig(
        backbone_config=backbone,
        group="S_n",
        max_nodes=64,
        grid_size=8,
        node_categories=MOLECULE_NODE_CATEGORIES,
        edge_categories=MOLECULE_EDGE_CATEGORIES,
        num_labels=2,
        problem_type="single_label_classification",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LPSForGraphClassification(config).eval()
    with torch.no_grad():
        for name, parameter in model.lps.base.named_parameters():
            if "proj" in name:  # of tokens and of attention: a new network hardly looks at its input
                parameter.mul_(30)
    about = (
        "**A small ViT with random weights.** What it says of a molecule means nothing; that it says the same in every order of "
        "the atoms, within its error bar, is what there is to see. Start the app with `--model` for a trained one."
    )
    return Demo(model, LPSProcessor.from_config(config), ["class 0", "class 1"], about)


def graph_row(text: str, demo: Demo) -> dict[str, Any]:
    """Read a graph that was typed in.

    Args:
        text: A line for each undirected edge, `0 1`, with its categories behind it where the model reads some; and where it reads
            categories of nodes, lines like `node 0: 3 1`. Those that are not given are 0.
        demo: The model.

    Returns:
        `dict`: The row.

    Raises:
        ValueError: If a line is neither, or there is no edge and no node.
    """
    config = demo.model.config
    node_width, edge_width = len(config.node_categories or [1]), len(config.edge_categories or ())
    edges: list[tuple[int, int]] = []
    edge_attr: list[list[int]] = []
    nodes: dict[int, list[int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.replace(",", " ").replace(":", " ").split()
        is_node = bool(words) and words[0] == "node"
        numbers = [int(word) for word in words[is_node:] if word.isdecimal()]
        width = node_width if is_node else edge_width
        ends = numbers[: 1 if is_node else 2]
        if not words:
            continue
        if len(numbers) != len(words) - is_node or len(ends) < 2 - is_node or len(numbers) - len(ends) not in (0, width):
            expected = "two node numbers, such as '0 4'" + (f", and {edge_width} categories or none" if edge_width else "")
            expected = f"a node number and {node_width} categories" if is_node else expected
            raise ValueError(f"line {number}: expected {expected}, got {line.strip()!r}.")
        if is_node:
            nodes[ends[0]] = numbers[1:]
        else:
            edges.append((ends[0], ends[1]))
            edge_attr.append(numbers[2:] or [0] * edge_width)
    largest = max([*nodes, *(end for edge in edges for end in edge)], default=-1)
    if largest < 0:
        raise ValueError("expected a line with two node numbers for each edge, such as '0 4', got none.")
    if largest >= config.max_nodes:
        raise ValueError(f"expected node numbers 0 to {config.max_nodes - 1}, as many as this model takes, got {largest}.")
    both = [
        (pair, attr)
        for edge, attr in zip(edges, edge_attr, strict=True)
        for pair in dict.fromkeys((edge, edge[::-1]))  # a loop is there once
    ]
    row: dict[str, Any] = {
        "edge_index": [[pair[end] for pair, _ in both] for end in (0, 1)],
        "num_nodes": largest + 1,
        "node_feat": [(nodes.get(node) or [0] * node_width) for node in range(largest + 1)],
    }
    return {**row, "edge_attr": [attr for _, attr in both]} if edge_width else row


def renumbered(text: str, seed: int) -> str:
    """The same graph with its nodes in another order, as text."""
    lines = [line.replace(",", " ").replace(":", " ").split() for line in text.splitlines() if line.strip()]
    # Where the node numbers of a line are.
    places = [slice(1, 2) if words[0] == "node" else slice(0, 2) for words in lines]
    numbers = sorted({int(word) for words, place in zip(lines, places, strict=True) for word in words[place]})
    order = dict(zip(numbers, np.random.default_rng(seed).permutation(numbers).tolist(), strict=True))
    for words, place in zip(lines, places, strict=True):
        words[place] = [str(order[int(word)]) for word in words[place]]
    return "\n".join(map(" ".join, lines))


@torch.no_grad()
def analyse(demo: Demo, row: dict[str, Any], num_samples: int, seed: int = 0) -> Analysis:
    """Predict from so many draws, and see what the prediction was after each power of two of them.

    Args:
        demo: The model.
        row: The graph or molecule.
        num_samples: Number of draws; an exact average has its own.
        seed: Their seed.

    Returns:
        `Analysis`.

    Raises:
        ValueError: If the model cannot take the row; the sentence says why.
    """
    model = demo.model
    batch = dict(demo.processor([row], return_tensors="pt"))
    batch.pop("labels", None)
    generator = torch.Generator().manual_seed(seed)
    out = model(**batch, num_samples=num_samples, output_samples=True, generator=generator)
    link, group_size = model.lps.link, model.lps.distribution.sampler_group_size
    orders = out.group_elements[0, :SHOWN_DRAWS, : row["num_nodes"]].numpy()
    if model.config.distribution in ("exact", "none"):
        means = apply_link(out.logits, link).numpy()
        return Analysis([1], means, np.full_like(means, np.nan), orders)
    drawn = out.samples.shape[1]
    counts = [count for count in (2**power for power in range(12)) if count < drawn and count % group_size == 0]
    counts.append(drawn)
    law = model.lps.symmetrization
    # Priors know the network's own unit, not that of the data.
    scaled = model.config.label_std is not None
    scale, shift = (torch.tensor(model.config.label_std), torch.tensor(model.config.label_mean)) if scaled else (1.0, 0.0)
    means, errors = [], []
    for count in counts:
        samples = (out.samples[:, :count] - shift) / scale
        estimate = law.estimate_of(samples, batch["node_mask"], group_size)
        means.append(apply_link(shift + scale * estimate.mean, link))
        error = torch.full_like(estimate.mean, torch.nan)  # of a single block of draws
        if estimate.standard_error is not None:
            error = scale * law.link_errors(samples, estimate.standard_error, estimate.draws_agree, group_size)
        errors.append(error)
    agree = estimate.draws_agree is not None and bool(estimate.draws_agree) and bool(errors[-1].any())
    return Analysis(counts, torch.cat(means).numpy(), torch.cat(errors).numpy(), orders, agree)


def summary(demo: Demo, analysis: Analysis) -> str:
    """The prediction in one sentence of Markdown."""
    mean, error = analysis.means[-1], analysis.errors[-1]
    is_class, best = demo.model.lps.link == "softmax", int(np.argmax(mean))

    def value(place: int) -> str:
        bar = "" if np.isnan(error[place]) else f" ± {error[place]:.2g}"
        return f"{mean[place]:.3f}{bar}"

    count = analysis.counts[-1]
    draws = "an exact average" if np.isnan(error).all() and count == 1 else f"{count} draws"
    if analysis.draws_agree:
        draws += ", which all agree: ± is a bound for what they may have missed"
    if is_class:
        return f"### {demo.names[best]}: {value(best)}\nProbability, from {draws}. "
    listed = ", ".join(f"{name}: {value(place)}" for place, name in enumerate(demo.names))
    return f"### {listed}\nFrom {draws}."


def draw(demo: Demo, row: dict[str, Any], analysis: Analysis) -> tuple["Figure", "Figure"]:
    """The orders that the backbone saw, and how the prediction settled."""
    labels = {"softmax": "probability", "sigmoid": "probability"}
    label = labels.get(demo.model.lps.link, "output")
    orders = orders_figure(row, analysis.orders, **_molecule_drawing(row))
    bounded = label == "probability"
    return orders, settling_figure(analysis.means, analysis.errors, analysis.counts, demo.names, label=label, bounded=bounded)


def example_graphs(demo: Demo) -> dict[str, str]:
    """Graphs to begin with, by name, as text; only those that the model takes."""
    rings = circular_skip_links(3, 13, (2, 3, 5))
    examples = {f"skip {skip}": _edge_text(row) for skip, row in zip((2, 3, 5), rings, strict=True)}
    examples["two rings"] = "\n".join(f"{6 * ring + i} {6 * ring + (i + 1) % 6}" for ring in (0, 1) for i in range(6))
    examples["star"] = "\n".join(f"0 {leaf}" for leaf in range(1, 9))
    largest = demo.model.config.max_nodes
    return {name: text for name, text in examples.items() if max(map(int, text.split())) < largest}


EXAMPLE_MOLECULES = {
    "aspirin": "CC(=O)OC1=CC=CC=C1C(=O)O",
    "caffeine": "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "ethanol": "CCO",
    "glycylglycine": "NCC(=O)NCC(=O)O",
}


def molecule_row(text: str) -> dict[str, Any]:
    """Read a SMILES string that was typed in."""
    return from_smiles(text.strip())


def _molecule_drawing(row: dict[str, Any]) -> dict[str, Any]:
    """Where to draw atoms, what to write on them, and how wide bonds are; nothing for other graphs."""
    if "smiles" not in row:
        return {}
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.MolFromSmiles(row["smiles"])
    AllChem.Compute2DCoords(molecule)
    return {
        "positions": molecule.GetConformer().GetPositions()[:, :2],
        "symbols": [atom.GetSymbol() for atom in molecule.GetAtoms()],
        "edge_widths": [_BOND_WIDTHS[kind] for kind, *_ in row["edge_attr"]],
    }


def _output_names(config: LPSConfig) -> list[str]:
    names = [str(name) for name in (config.id2label or {}).values()]
    if names == [f"LABEL_{number}" for number in range(len(names))]:
        kind = "output" if config.problem_type == "regression" else "class"
        return [f"{kind} {number}" for number in range(config.num_labels)]
    return names


def _edge_text(row: dict[str, Any]) -> str:
    pairs = zip(*row["edge_index"], strict=True)
    return "\n".join(f"{source} {target}" for source, target in pairs if source <= target)
