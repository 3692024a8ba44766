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

import re
import warnings
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

# Of a SMILES string in messages.
_MOST_SHOWN = 100


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
    chem, base = _rdkit()
    shown = repr(text) if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]!r}... of {len(text)} characters"
    word = text.strip()
    if len(word.split()) > 1:
        # rdkit would read the first word, and nothing of the others.
        raise ValueError(f"smiles: expected one SMILES string, got {shown}. Leave out what comes after the space.")
    molecule, problems = None, ""
    if word.isascii() and word.isprintable():  # rdkit would stop at a NUL
        with base.BlockLogs():  # the sentence below takes the place of its lines on stderr
            molecule = chem.MolFromSmiles(word)
            problems = "" if molecule is not None else _problems(chem, chem.MolFromSmiles(word, sanitize=False))
    if molecule is None or not molecule.GetNumAtoms():
        advice = problems or "Check it for typing errors."
        raise ValueError(f"smiles: expected the SMILES string of a molecule, such as 'CCO', got {shown}. {advice}")
    return {**from_molecule(molecule), "smiles": str(text)}


def from_molecule(molecule: Any) -> dict[str, Any]:
    """Turn a molecule of rdkit into a row, as `from_smiles` does.

    Args:
        molecule (`rdkit.Chem.Mol`): The molecule, sanitized. Explicit hydrogens, where it has them, are nodes.

    Returns:
        `dict`: See `from_smiles`; without `smiles`. Besides `positions` (Å) where the molecule has coordinates in space, its
        properties under their names, and its title as `id`. Coordinates of a drawing, in the plane, are not read.

    Raises:
        ValueError: If it has no atom, or has not been sanitized.
    """
    if not molecule.GetNumAtoms():
        raise ValueError("molecule: expected at least one atom, got none.")
    _, base = _rdkit()
    try:
        with base.BlockLogs():
            node_feat = [_atom_categories(atom) for atom in molecule.GetAtoms()]
    except RuntimeError as error:  # rdkit says which of its functions was not called before
        raise ValueError("molecule: expected a sanitized one, got one that is not. Call rdkit.Chem.SanitizeMol on it.") from error
    sources: list[int] = []
    targets: list[int] = []
    edge_attr = []
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        sources += ends
        targets += reversed(ends)
        kind, stereo = _place(_BOND_TYPES, str(bond.GetBondType())), _place(_BOND_STEREO, str(bond.GetStereo()))
        edge_attr += [[kind, stereo, int(bond.GetIsConjugated())] for _ in ends]
    title = molecule.GetProp("_Name") if molecule.HasProp("_Name") else ""
    return {
        **({"id": title} if title else {}),
        **molecule.GetPropsAsDict(),
        "edge_index": [sources, targets],
        "num_nodes": molecule.GetNumAtoms(),
        "node_feat": node_feat,
        "edge_attr": edge_attr,
        **_positions(molecule),
    }


def molecule_of_block(block: str) -> Any:
    """A molecule of rdkit from one record of an SDF file, or from a MOL file, with the hydrogens and properties that it has.

    Args:
        block: The text of the record.

    Raises:
        ImportError: If rdkit is missing.
        ValueError: If it is no molecule.
    """
    chem, base = _rdkit()
    molecules = chem.SDMolSupplier()
    with base.BlockLogs():
        for sanitize in (True, False):
            molecules.SetData(block, sanitize=sanitize, removeHs=False)
            molecule = next(molecules, None)
            if molecule is not None and sanitize:
                return molecule
        problems = _problems(chem, molecule)
    raise ValueError(f"molecule: expected one in the format of MOL files, got another. {problems or 'rdkit cannot read it.'}")


def from_atoms(atoms: Any) -> dict[str, Any]:
    """Turn the atoms of ase into a row.

    Args:
        atoms (`ase.Atoms`): A molecule, without periodic directions.

    Returns:
        `dict`: `positions` (Å), `node_feat` (the element of each atom, the first of the categories of `from_smiles`: its number
        less 1), and under their names what is known of molecule and atoms: `atoms.info`, `atoms.arrays` and computed results.

    Raises:
        ValueError: If it is periodic.
    """
    if any(atoms.pbc):
        raise ValueError(
            "atoms: expected a molecule, got a periodic cell, which no row holds. If the cell means nothing, set "
            "atoms.pbc = False, or write pbc='F F F' into the file."
        )
    arrays = {key: array for key, array in atoms.arrays.items() if key not in ("numbers", "positions")}
    known = {**atoms.info, **arrays, **(atoms.calc.results if atoms.calc is not None else {})}
    return {
        **{key: value.tolist() if hasattr(value, "tolist") else value for key, value in known.items()},
        "positions": atoms.positions.tolist(),
        "node_feat": [[_place(_ATOM_TABLES[0], number)] for number in atoms.numbers.tolist()],
    }


def is_molecule(source: Any) -> bool:
    """Whether it is a molecule of rdkit."""
    return hasattr(source, "GetAtoms") and hasattr(source, "GetBonds")


def is_atoms(source: Any) -> bool:
    """Whether it is the atoms of ase."""
    return all(hasattr(source, name) for name in ("get_atomic_numbers", "positions", "pbc", "info"))


def is_smiles_column(name: Any) -> bool:
    """Whether a column is named like one of SMILES strings: smiles, SMILES, canonical_smiles, smi, mol, ..."""
    plain = re.sub(r"[^a-z]", "", str(name).lower())
    return plain.endswith("smiles") or plain in ("smi", "mol")


def _rdkit() -> Any:
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise ImportError(
            "smiles: expected the package rdkit to read molecules, which is not installed. Run 'pip install rdkit'."
        ) from error
    return Chem, rdBase


def _problems(chem: Any, molecule: Any) -> str:
    """What is wrong with the chemistry of a molecule that is not sanitized; nothing where its text could not be read at all."""
    return "" if molecule is None else " ".join(f"{problem.Message()}." for problem in chem.DetectChemistryProblems(molecule))


def _positions(molecule: Any) -> dict[str, Any]:
    conformers = [conformer for conformer in molecule.GetConformers() if conformer.Is3D()]
    if len(conformers) > 1:
        warnings.warn(
            f"molecule: the first of {len(conformers)} conformers is read. Pass one molecule per conformer for all of them.",
            UserWarning,
            stacklevel=3,
        )
    return {"positions": conformers[0].GetPositions().tolist()} if conformers else {}


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
