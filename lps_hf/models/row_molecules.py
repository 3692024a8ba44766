"""Molecules as rows: SMILES strings with the categories that the molecule data sets of the Hub use; needs rdkit.

Categories and their order are those of `smiles2graph` of the Open Graph Benchmark (Hu et al., arXiv 2005.00687), which made
ogbg-mol*, PCQM4Mv2 and Peptides. The last place of each table stands for everything else, except where it is named.

| `node_feat` | places | `edge_attr` | places |
| --- | --- | --- | --- |
| atomic number 1 to 118 | 119 | single, double, triple, aromatic | 5 |
| chirality: none, clockwise, anticlockwise, other | 5 | stereo: none, Z, E, cis, trans, any | 6 |
| number of neighbours 0 to 10, with hydrogens | 12 | conjugated | 2 |
| charge -5 to 5 | 12 | | |
| hydrogens 0 to 8 | 10 | | |
| radical electrons 0 to 4 | 6 | | |
| hybridization sp, sp2, sp3, sp3d, sp3d2 | 6 | | |
| aromatic | 2 | | |
| in a ring | 2 | | |
"""

from collections.abc import Sequence
from typing import Any

_ATOM_TABLES: tuple[Sequence[Any], ...] = (
    range(1, 119),
    ("CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER"),
    range(11),
    range(-5, 6),
    range(9),
    range(5),
    ("SP", "SP2", "SP3", "SP3D", "SP3D2"),
)
_BOND_TYPES = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
# Nothing else than these six: what is neither stands with "any".
_BOND_STEREO = ("STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS")

MOLECULE_NODE_CATEGORIES = [*(len(table) + 1 for table in _ATOM_TABLES), 2, 2]
"""`node_categories` of a model that reads these rows: [119, 5, 12, 12, 10, 6, 6, 2, 2]."""
MOLECULE_EDGE_CATEGORIES = [len(_BOND_TYPES) + 1, len(_BOND_STEREO) + 1, 2]
"""`edge_categories` of a model that reads these rows: [5, 6, 2]."""


def from_smiles(text: str) -> dict[str, Any]:
    """Turn a SMILES string into a row; atoms keep its order, hydrogens are counted and are no nodes.

    Args:
        text: The string.

    Returns:
        `dict`: `edge_index` (each bond in both directions, one after the other), `num_nodes`, `node_feat` (9 categories per
        atom), `edge_attr` (3 categories per edge) and `smiles`, the string.

    Raises:
        ImportError: If rdkit is missing.
        TypeError: If it is no string.
        ValueError: If it is no molecule.
    """
    if not isinstance(text, str):
        raise TypeError(f"smiles: expected a string, got {type(text).__name__}.")
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise ImportError(
            "smiles: expected the package rdkit to read SMILES strings, which is not installed. Run 'pip install rdkit'."
        ) from error
    with rdBase.BlockLogs():  # the sentence below takes the place of its lines on stderr
        molecule = Chem.MolFromSmiles(text)
    if molecule is None or not molecule.GetNumAtoms():
        raise ValueError(
            f"smiles: expected the SMILES string of a molecule, such as 'CCO', got {text!r}. Check it for typing errors."
        )
    return {**from_molecule(molecule), "smiles": text}


def from_molecule(molecule: Any) -> dict[str, Any]:
    """Turn a molecule of rdkit into a row, as `from_smiles` does.

    Args:
        molecule (`rdkit.Chem.Mol`): The molecule, sanitized. Explicit hydrogens, where it has them, are nodes.

    Returns:
        `dict`: See `from_smiles`; without `smiles`.
    """
    sources: list[int] = []
    targets: list[int] = []
    edge_attr = []
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        sources += ends
        targets += reversed(ends)
        kind, stereo = _place(_BOND_TYPES, str(bond.GetBondType())), _place(_BOND_STEREO, str(bond.GetStereo()))
        edge_attr += [[kind, stereo, int(bond.GetIsConjugated())] for _ in ends]
    return {
        "edge_index": [sources, targets],
        "num_nodes": molecule.GetNumAtoms(),
        "node_feat": [_atom_categories(atom) for atom in molecule.GetAtoms()],
        "edge_attr": edge_attr,
    }


def _atom_categories(atom: Any) -> list[int]:
    values = (
        atom.GetAtomicNum(),
        str(atom.GetChiralTag()),
        atom.GetTotalDegree(),
        atom.GetFormalCharge(),
        atom.GetTotalNumHs(),
        atom.GetNumRadicalElectrons(),
        str(atom.GetHybridization()),
    )
    places = [_place(table, value) for table, value in zip(_ATOM_TABLES, values, strict=True)]
    return [*places, int(atom.GetIsAromatic()), int(atom.IsInRing())]


def _place(table: Sequence[Any], value: Any) -> int:
    """Where a value stands in its table; after all of it where it does not."""
    return table.index(value) if value in table else len(table)
