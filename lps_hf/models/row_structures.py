"""Readers of molecules, points, meshes and graphs, through the libraries made for them, record by record; see `row_files`.

| files | library | what is read |
| --- | --- | --- |
| .sdf, .mol | rdkit | atoms with all hydrogens that the file has, bonds, coordinates in space, properties |
| .xyz, .extxyz, files of QM9 | ase | every frame with its elements and positions, and what else is named |
| .ply | meshio | vertices |
| .off | | vertices |
| .npy, .npz | numpy | points; the columns of rows |
| .g6, .s6, .graphml, .gml | networkx | every graph |
| folders of the TU data sets | torch_geometric | every graph |

What is left of a file is named in a warning.
"""

import io
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .row_batches import as_rows
from .row_molecules import molecule_of_block
from .row_tables import Record, library, lines_of, text_of

# One of these makes a dictionary a row with something to predict for.
CONTENT_KEYS = ("edge_index", "positions", "image", "pixel_values")
# What networkx.node_link_data writes.
NODE_LINK_KEYS = ("directed", "multigraph", "graph", "nodes", "links", "edges")
# What QM9's files say of a molecule behind its number, and how many lines they have behind its atoms.
_QM9_PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
_QM9_LINES_AFTER = 3
# Only folders of the TU data sets have a file that ends so.
_TU_FILE = "_graph_indicator.txt"


def read_sdf(content: bytes, name: str) -> Iterator[Record]:
    """One molecule per record, with its properties as columns and its title as `id`."""
    blocks = re.split(r"^\$\$\$\$[^\n]*\n?", _unix_lines(content), flags=re.MULTILINE)
    with_hydrogens = flat = 0
    for number, block in enumerate(block for block in blocks if block.strip()):
        try:
            record = molecule_of_block(block)
            with_hydrogens += any(atom.GetAtomicNum() == 1 for atom in record.GetAtoms())
            flat += any(not conformer.Is3D() and conformer.GetPositions().any() for conformer in record.GetConformers())
        except ValueError as error:
            record = error
        yield f"molecule {number}", record
    if with_hydrogens:
        _warn(
            f"{name}: hydrogens are nodes, as the file has them ({with_hydrogens} molecules); those of SMILES strings are none. "
            "For a model that was trained on SMILES strings take them out with rdkit.Chem.RemoveHs."
        )
    if flat:
        _warn(f"{name}: coordinates of drawings, in the plane, are not read ({flat} molecules).")


def read_mol(content: bytes, name: str) -> Iterator[Record]:
    """One molecule."""
    records = list(read_sdf(content, name))
    if len(records) != 1:
        raise ValueError(f"expected one molecule, got {len(records)}. A file of several ends in .sdf.")
    yield "", records[0][1]


def read_xyz(content: bytes, name: str) -> Iterator[Record]:
    """One frame after the other, with all that has a name; the comment of a plain one is `comment`."""
    lines = _unix_lines(content).replace("*^", "e").split("\n")
    frames, unnamed, place = [], 0, 0
    while place < len(lines):
        if not lines[place].strip():
            place += 1
            continue
        if not lines[place].strip().isdecimal():
            raise ValueError(f"line {place + 1}: expected the number of atoms of the next frame, got {lines[place][:60]!r}.")
        end = place + 2 + int(lines[place])
        is_qm9 = "".join(lines[place + 1 : place + 2]).startswith("gdb")
        end += _QM9_LINES_AFTER if is_qm9 else 0
        frames.append((lines[place:end], is_qm9))
        place = end
    for number, (frame, is_qm9) in enumerate(frames):
        try:
            record = _qm9_atoms(frame) if is_qm9 else _atoms_of_frame(frame)
            unnamed += not is_qm9 and "Properties=" not in frame[1] and any(len(line.split()) > 4 for line in frame[2:])
        except ValueError as error:
            record = error
        yield f"frame {number}", record
    if unnamed:
        _warn(f"{name}: the columns after the coordinates have no name, and are not read ({unnamed} frames).")


def read_npy(content: bytes, name: str) -> Iterator[Record]:
    """An array of points."""
    with _reading("an array of numpy without objects"):
        array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"expected an array of numbers, got {array.dtype}. Load it with numpy.load, and pass what it holds.")
    yield "", array


def read_npz(content: bytes, name: str) -> Iterator[Record]:
    """Arrays that are named like the columns of rows, of one or of several; or one array of points."""
    with _reading("arrays of numpy without objects"), np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    if len(arrays) == 1 and not set(arrays) & set(CONTENT_KEYS):
        yield from (("", array) for array in arrays.values())
        return
    if not set(arrays) & set(CONTENT_KEYS):
        raise ValueError(
            f"expected arrays named as columns of rows, {', '.join(CONTENT_KEYS)} among them, got {', '.join(arrays) or 'none'}. "
            "Load them and pass {'positions': ...}. Of QM9, lps_hf.data.qm9_rows makes rows."
        )
    for number, row in enumerate(as_rows({key: array.tolist() for key, array in arrays.items()})):
        yield f"row {number}", row


def read_ply(content: bytes, name: str) -> Iterator[Record]:
    """The vertices of a mesh or a point cloud."""
    meshio = library("meshio", name)
    with _reading("a mesh or points in the Polygon File Format"):
        if b"end_header" not in content:  # meshio would look for it forever
            raise ValueError("no line 'end_header'. Is the file cut off?")
        mesh = meshio.read(io.BytesIO(content), file_format="ply")
    _warn_of_vertices(name, sum(len(block.data) for block in mesh.cells), mesh.point_data)
    yield "", np.asarray(mesh.points, dtype=np.float64)


def read_off_file(content: bytes, name: str) -> Iterator[Record]:
    """The vertices of a mesh."""
    with _reading("a mesh in the Object File Format"):
        vertices, triangles = read_off(text_of(content))
    _warn_of_vertices(name, len(triangles))
    yield "", vertices


def read_off(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a mesh in the Object File Format; faces with more than three corners are cut into triangles.

    Args:
        text: Content of the file.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Vertices `(vertices, 3)` float64 and triangles `(triangles, 3)` int64.

    Raises:
        ValueError: If the text is no such mesh.
    """
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    lines = [words for words in lines if words]
    # Some files of ModelNet have the counts on the first line, without a space.
    if not lines or not lines[0][0].startswith("OFF"):
        raise ValueError(f"`text` must begin with 'OFF', got {text[:20]!r}. Convert the mesh.")
    head = [word for word in [lines[0][0][3:], *lines[0][1:]] if word]
    head, body = (head, lines[1:]) if head else (lines[1], lines[2:])
    num_vertices, num_faces = int(head[0]), int(head[1])
    if len(body) < num_vertices + num_faces:
        raise ValueError(f"`text` must have {num_vertices} vertices and {num_faces} faces, got {len(body)} lines. Is it cut off?")
    vertices = np.array([words[:3] for words in body[:num_vertices]], dtype=np.float64)
    triangles = []
    for words in body[num_vertices : num_vertices + num_faces]:
        corners = [int(word) for word in words[1 : 1 + int(words[0])]]
        triangles += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    return vertices, np.array(triangles, dtype=np.int64).reshape(-1, 3)


def read_graph6(content: bytes, name: str) -> Iterator[Record]:
    """One graph per line, in graph6 or sparse6."""
    networkx = library("networkx", name)
    for number, line in lines_of(content):
        try:
            record = _graph_of_line(networkx, line) if isinstance(line, str) else line
        except ValueError as error:
            record = error
        if record is not None:
            yield f"line {number}", record


def read_graphml(content: bytes, name: str) -> Iterator[Record]:
    """Every graph of a file; networkx.read_graphml would take the first alone."""
    graphml = library("networkx.readwrite.graphml", name)
    with _reading("GraphML"):
        graphs = list(graphml.GraphMLReader()(path=io.BytesIO(content)))
    for number, graph in enumerate(graphs):
        yield f"graph {number}", graph


def read_gml(content: bytes, name: str) -> Iterator[Record]:
    """One graph."""
    networkx, text = library("networkx", name), text_of(content)
    with _reading("a graph in the Graph Modelling Language"):
        try:
            graph = networkx.parse_gml(text)
        except networkx.NetworkXError:  # names are missing, or there twice
            graph = networkx.parse_gml(text, label="id")
    yield "", graph


def is_node_link(value: Mapping[str, Any]) -> bool:
    """Whether it is a graph as `networkx.node_link_data` writes it."""
    return all(isinstance(value.get(key), list) for key in ("nodes", "links" if "links" in value else "edges"))


def graph_of_node_link(value: Mapping[str, Any]) -> Any:
    """The graph of networkx that `is_node_link`.

    Raises:
        ValueError: If it is broken.
        ImportError: If networkx is missing.
    """
    networkx = library("networkx", "a graph of nodes and links")
    with _reading("a graph as networkx.node_link_data writes it"):
        graph = networkx.node_link_graph(dict(value), edges="links" if "links" in value else "edges")
    if len(graph) != len(value["nodes"]):
        raise ValueError(f"expected links between its {len(value['nodes'])} nodes, each there once, got {len(graph)} nodes.")
    return graph


def is_tu_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder in the format of the TU data sets, with `NAME_A.txt` and `NAME_graph_indicator.txt`."""
    return os.path.isdir(path) and any(Path(path).glob(f"*{_TU_FILE}"))


def read_tu_folder(folder: str) -> Iterator[Record]:
    """Every graph, with features as PyTorch Geometric has them: attributes, and labels of nodes and edges one-hot."""
    files = sorted(Path(folder).glob(f"*{_TU_FILE}"))
    name, *others = (file.name.removesuffix(_TU_FILE) for file in files)
    if others:
        raise ValueError(f"expected one data set in the folder, got {', '.join([name, *others])}.")
    reader, data, separate = (library(f"torch_geometric.{module}", folder) for module in ("io", "data", "data.separate"))
    with _reading(f"the data set {name} in the format of TU"):
        graphs, slices, _ = reader.read_tu_data(folder, name)
        num_lines = len((Path(folder) / f"{name}_A.txt").read_text(encoding="utf-8").split("\n")) - 1
    if num_lines > graphs.edge_index.shape[1]:
        _warn(f"{folder}: {num_lines - graphs.edge_index.shape[1]} repeated edges and loops are left out by torch_geometric.")
    for number in range(len(slices["edge_index"]) - 1):
        yield f"graph {number}", separate.separate(data.Data, graphs, number, slices, decrement=False)


def _unix_lines(content: bytes) -> str:
    return re.sub(r"\r\n?", "\n", text_of(content))


def _atoms_of_frame(frame: list[str]) -> Any:
    """The atoms of ase, with what a plain frame says of itself as `comment`."""
    ase = library("ase.io", "a frame of an .xyz file")
    count, comment = int(frame[0]), "".join(frame[1:2]).strip()
    if len(frame) < 2 + count:
        raise ValueError(f"expected {count} atoms, got {max(len(frame) - 2, 0)} lines of them. Is the file cut off?")
    is_extended = "=" in comment
    with _reading("a frame of symbols of elements and numbers"):
        atoms = ase.read(io.StringIO("\n".join([*frame, ""])), format="extxyz" if is_extended else "xyz")
    if comment and not is_extended:
        atoms.info["comment"] = comment
    return atoms


def _qm9_atoms(frame: list[str]) -> Any:
    """The atoms of a molecule of QM9 with all that is known of it; Ramakrishnan et al. (2014) tell the lines of the files."""
    lines = [line.split() for line in frame]
    count = int(frame[0])
    if len(lines) < 2 + count + _QM9_LINES_AFTER:
        raise ValueError(f"expected {count} atoms and {_QM9_LINES_AFTER} lines behind them, as QM9 has, got {len(lines) - 2}.")
    atoms = _atoms_of_frame([frame[0], "", *(" ".join(words[:4]) for words in lines[2 : 2 + count])])
    frequencies, smiles, inchi = lines[2 + count :]
    with _reading("a molecule of QM9"):
        properties = zip(_QM9_PROPERTIES, map(float, lines[1][2:]), strict=True)
        charges = [float(words[4]) for words in lines[2 : 2 + count]]
        atoms.info |= {"id": " ".join(lines[1][:2]), "smiles": smiles[0], "inchi": inchi[0], **dict(properties)}
        atoms.info |= {"charges": charges, "frequencies": list(map(float, frequencies))}
    return atoms


def _graph_of_line(networkx: Any, line: str) -> Any:
    """A graph of networkx; `None` for a line with a heading alone."""
    line = line.removeprefix(">>graph6<<").removeprefix(">>sparse6<<")
    if line.startswith(("&", ">>")):
        raise ValueError("expected graph6 or sparse6, got another, such as digraph6. Convert the file.")
    if not line:
        return None
    with _reading("a graph in graph6 or sparse6"):
        read = networkx.from_sparse6_bytes if line.startswith(":") else networkx.from_graph6_bytes
        return read(line.encode())


def _warn_of_vertices(name: str, num_faces: int, others: Iterable[str] = ()) -> None:
    rest = [*([f"{num_faces} faces"] if num_faces else []), *others]
    advice = " lps_hf.data.converters.sample_surface draws points on faces." if num_faces else ""
    if rest:
        _warn(f"{name}: the vertices are the positions; not read: {', '.join(rest)}.{advice}")


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=2)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Say in one sentence what was expected, whatever a library raises of what it cannot read."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"expected {what}, got another: {type(error).__name__}: {error}") from error
