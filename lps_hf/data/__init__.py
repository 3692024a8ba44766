"""Rows of data sets: generators, converters of raw data, and the collator; fast reading and batches are in files of their own."""

from .collator import DataCollatorForGraphs
from .converters import cifar10_rows, digit_rows, mesh_clouds, qm9_rows
from .generators import circular_skip_links, cycle_pairs, triangle_regular
from .geometric_rows import atom_clusters, charged_particles, shape_clouds
from .structured_graphs import folded_chains, inner_symmetric_graphs, pattern_graphs

__all__ = [
    "DataCollatorForGraphs",
    "atom_clusters",
    "charged_particles",
    "cifar10_rows",
    "circular_skip_links",
    "cycle_pairs",
    "digit_rows",
    "folded_chains",
    "inner_symmetric_graphs",
    "mesh_clouds",
    "pattern_graphs",
    "qm9_rows",
    "shape_clouds",
    "triangle_regular",
]
