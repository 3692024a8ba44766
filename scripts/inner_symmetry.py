#!/usr/bin/env python
"""Do nodes that an automorphism maps to each other get equal outputs? Learned distribution against canonicalization.

    python scripts/inner_symmetry.py --output_dir inner_symmetry

Random base networks f are symmetrized over S_n on graphs with inner symmetries. φ(x) is equivariant only if it is equal on the
nodes of an orbit. The mean over k draws of an equivariant distribution is so up to an error that falls as 1/√k;
canonicalization, which puts such nodes into one order for good, is not, at any k (the experiment on inner symmetries of
arXiv 2306.02866).

Every within-orbit difference of outputs is compared with its paired standard error s/√k, s the standard deviation of the
difference over all draws. Differences are in units of the base network's own spread: the standard deviation of its output over
random models, nodes and orders of the graph. The table, `inner_symmetry.json` and a figure are written.
"""

import argparse
import json
from itertools import combinations
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from lps_hf import LPSConfig, LPSModel, LPSProcessor
from lps_hf.data import inner_symmetric_graphs
from lps_hf.evaluation.experiment_figures import inner_symmetry_figure
from lps_hf.models.configuration_base_networks import MLPBaseConfig

# By name: the distribution, and whether all draws for an input are one and the same element. Canonical orders with ties redrawn
# are frames, so equivariant, up to rounding: where the terms of float32 scores cancel, rounding decides a share of the ties.
SYMMETRIZATIONS = {
    "learned": ("learned", False),
    "canonical": ("canonical", True),
    "canonical, ties redrawn": ("canonical", False),
    "haar": ("haar", False),
}
COUNTS = (1, 10, 100, 1000)
LEVEL = 0.01


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--num_models", type=int, default=20, help="Random networks, seeds 0, 1, ...")
    parser.add_argument("--num_samples", nargs="+", type=int, default=list(COUNTS), help="Numbers k of draws, ascending.")
    options = parser.parse_args(arguments)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    outputs = draw_all(options.num_models, options.num_samples[-1])
    results = report(outputs, options.num_samples)
    print_table(results)
    (folder / "inner_symmetry.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    figure = inner_symmetry_figure(
        inner_symmetric_graphs(),
        {name: graph["outputs"] for name, graph in results["graphs"].items()},
        {name: graph["within"] for name, graph in results["graphs"].items()},
        options.num_samples,
    )
    figure.savefig(folder / "inner_symmetry.png", dpi=150)


def make_models(seed: int) -> dict[str, LPSModel]:
    """One random network under every distribution: base and interface weights are the same."""
    graphs = inner_symmetric_graphs().values()
    torch.manual_seed(seed)
    models: dict[str, LPSModel] = {}
    for name in ("learned", "canonical", "haar"):
        config = LPSConfig(
            backbone_config=MLPBaseConfig(hidden_sizes=[64, 64]),
            group="S_n",
            distribution=name,
            inputs={"node_features": "n 1", "edge_features": "n n 1"},
            output="n 1",
            max_nodes=max(graph["num_nodes"] for graph in graphs),
        )
        models[name] = LPSModel(config).eval()
    weights = models["learned"].state_dict()
    models["canonical"].load_state_dict(weights)
    models["haar"].base.load_state_dict(models["learned"].base.state_dict())
    return models


@torch.no_grad()
def draw_outputs(model: LPSModel, row: dict, num_samples: int, one_element: bool, generator: torch.Generator) -> torch.Tensor:
    """The outputs g·f(g⁻¹·x) of single draws g, (num_samples, nodes): those whose mean `LPSModel` gives."""
    # Canonicalization has one group element per input, also where nodes tie. Ours would break ties anew in every draw, which
    # is a random choice among canonical orders; with one noise for all draws, the outputs are those of one draw, repeated.
    num_copies = 1 if one_element else num_samples
    batch = LPSProcessor.from_config(model.config)([row] * num_copies, return_tensors="pt")
    noise = model.draw_noise(model.encode(**batch), 1, generator)
    return model(**batch, noise=noise).output.squeeze(-1).double().expand(num_samples, -1)


def draw_all(num_models: int, num_samples: int) -> dict[str, dict[str, np.ndarray]]:
    """Outputs by graph and symmetrization, each `(num_models, num_samples, nodes)`."""
    outputs: dict[str, dict[str, list]] = {}
    for seed in range(num_models):
        models = make_models(seed)
        generator = torch.Generator().manual_seed(seed)
        for graph, row in inner_symmetric_graphs().items():
            for name, (distribution, one_element) in SYMMETRIZATIONS.items():
                drawn = draw_outputs(models[distribution], row, num_samples, one_element, generator)
                outputs.setdefault(graph, {}).setdefault(name, []).append(drawn.numpy())
    return {graph: {name: np.stack(drawn) for name, drawn in by_name.items()} for graph, by_name in outputs.items()}


def node_pairs(orbits: list[int], within: bool) -> np.ndarray:
    """Pairs of nodes (2, pairs) of one orbit, or of two."""
    pairs = [pair for pair in combinations(range(len(orbits)), 2) if (orbits[pair[0]] == orbits[pair[1]]) == within]
    return np.array(pairs, dtype=int).reshape(-1, 2).T


def differences(outputs: np.ndarray, pairs: np.ndarray, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences of outputs between paired nodes, and how many standard errors they are.

    Args:
        outputs: Of single draws, `(num_models, num_draws, nodes)`.
        pairs: `(2, pairs)`.
        num_samples: k: the mean of the first k draws is compared.

    Returns:
        |difference| and |z|, both `(num_models, pairs)`; z is infinite for a difference without an error bar.
    """
    by_draw = outputs[:, :, pairs[0]] - outputs[:, :, pairs[1]]
    size = np.abs(by_draw[:, :num_samples].mean(axis=1))
    # s of all draws: a few draws alone do not know it well, and one does not know it at all. Draws that are copies of each
    # other have none, whatever the rounding error of their mean.
    constant = (by_draw == by_draw[:, :1]).all(axis=1)
    deviation = np.where(constant, 0.0, by_draw.std(axis=1, ddof=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = size / (deviation / num_samples**0.5)
    return size, np.where(size == 0, 0.0, z)


def report(outputs: dict[str, dict[str, np.ndarray]], counts: list[int]) -> dict:
    """Everything that is told of the outputs, as plain numbers; see `summarize`."""
    rows = inner_symmetric_graphs()
    num_models = len(outputs["star"]["haar"])
    num_pairs = {name: node_pairs(row["orbits"], within=True).shape[1] for name, row in rows.items()}
    num_comparisons = sum(num_pairs.values()) * num_models * len(counts)
    results: dict = {
        "base": "MLP 64-64, random weights; S_n; GIN interface, random weights",
        "num_models": num_models,
        "num_samples": counts,
        "within_orbit_comparisons": num_comparisons,
        # No |z| above this is expected (Bonferroni), where all differences are noise.
        "z_bound": NormalDist().inv_cdf(1 - LEVEL / (2 * num_comparisons)),
        "level": LEVEL,
        "graphs": {},
    }
    for name, row in rows.items():
        # Under Haar every node gets every place of the base function: its natural spread, the same unit for all.
        unit = float(outputs[name]["haar"].std())
        results["graphs"][name] = {
            "orbits": row["orbits"],
            "within_orbit_pairs": num_pairs[name],
            "unit": unit,
            "outputs": {kind: drawn[0].mean(axis=0).tolist() for kind, drawn in outputs[name].items()},
            **{
                where: {
                    kind: summarize(drawn, node_pairs(row["orbits"], where == "within"), counts, unit)
                    for kind, drawn in outputs[name].items()
                }
                for where in ("within", "between")
            },
        }
    return results


def summarize(outputs: np.ndarray, pairs: np.ndarray, counts: list[int], unit: float) -> dict | None:
    """By number of draws: the largest difference over pairs (its mean, least and greatest over models), and z over all.

    The root mean square of z is 1 where differences are pure noise. z is `None` (JSON has no infinity) where a difference has no
    error bar, and all is `None` without pairs.
    """
    if pairs.shape[1] == 0:
        return None
    table: dict = {"mean": [], "least": [], "greatest": [], "largest_z": [], "rms_z": []}
    for count in counts:
        size, z = differences(outputs, pairs, count)
        finite = bool(np.isfinite(z).all())
        largest = size.max(axis=1) / unit
        for name, value in (("mean", largest.mean()), ("least", largest.min()), ("greatest", largest.max())):
            table[name].append(float(value))
        table["largest_z"].append(float(z.max()) if finite else None)
        table["rms_z"].append(float(np.sqrt(np.square(z).mean())) if finite else None)
    return table


def print_table(results: dict) -> None:
    counts = results["num_samples"]
    print(f"Largest difference in units of f's spread, mean over {results['num_models']} models (largest |z|, rms z)")
    print(f"noise alone stays below |z| = {results['z_bound']:.2f}; ∞: no error bar")
    for where in ("within", "between"):
        print(f"\n{where} orbits".ljust(41) + "".join(f"k = {count}".ljust(24) for count in counts))
        for graph, entry in results["graphs"].items():
            for kind, table in entry[where].items():
                if table is not None:
                    print(
                        f"{graph:<14}{kind:<26}"
                        + "".join(_cell(*column).ljust(24) for column in zip(*table.values(), strict=True))
                    )


def _cell(mean: float, _least: float, _greatest: float, largest_z: float | None, rms_z: float | None) -> str:
    z = "∞" if largest_z is None else f"{largest_z:.1f}, {rms_z:.2f}"
    return f"{mean:.4f} ({z})"


if __name__ == "__main__":
    main()
