"""Rows of data sets: generators, converters, and the collator; fast reading and batches are in files of their own."""

from lps_hf.models.inferred_config import infer_config
from lps_hf.models.row_graphs import from_networkx, from_pyg, to_networkx
from lps_hf.models.row_molecules import MOLECULE_EDGE_CATEGORIES, MOLECULE_NODE_CATEGORIES, from_atoms, from_molecule, from_smiles
from lps_hf.models.row_sources import to_rows

from .collator import DataCollatorForGraphs
from .converters import cifar10_rows, digit_rows, mesh_clouds, qm9_rows
from .generators import circular_skip_links, cycle_pairs, triangle_regular
from .geometric_rows import atom_clusters, charged_particles, shape_clouds
from .structured_graphs import folded_chains, inner_symmetric_graphs, pattern_graphs

__all__ = [
    "MOLECULE_EDGE_CATEGORIES",
    "MOLECULE_NODE_CATEGORIES",
    "DataCollatorForGraphs",
    "atom_clusters",
    "charged_particles",
    "cifar10_rows",
    "circular_skip_links",
    "cycle_pairs",
    "digit_rows",
    "folded_chains",
    "from_atoms",
    "from_molecule",
    "from_networkx",
    "from_pyg",
    "from_smiles",
    "infer_config",
    "inner_symmetric_graphs",
    "mesh_clouds",
    "pattern_graphs",
    "qm9_rows",
    "shape_clouds",
    "to_networkx",
    "to_rows",
    "triangle_regular",
]
