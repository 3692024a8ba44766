"""Rows of data sets: generators, converters of raw data, fast reading, batches of similar lengths, and the collator."""

from .arrow_rows import ArrowRows, with_fast_rows
from .collator import DataCollatorForGraphs
from .converters import cifar10_rows, digit_rows, mesh_clouds, qm9_rows
from .generators import circular_skip_links, cycle_pairs, triangle_regular
from .geometric_rows import atom_clusters, charged_particles, shape_clouds
from .similar_lengths import SimilarLengthSampler, row_lengths
from .structured_graphs import folded_chains, inner_symmetric_graphs, pattern_graphs

__all__ = [
    "ArrowRows",
    "DataCollatorForGraphs",
    "SimilarLengthSampler",
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
    "row_lengths",
    "shape_clouds",
    "triangle_regular",
    "with_fast_rows",
]
