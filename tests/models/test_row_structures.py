"""Files of molecules, points, meshes and graphs: what is read of them, what is named as not read, what is refused."""

import json

import numpy as np
import pytest

from lps_hf.data import from_atoms, from_molecule, from_networkx, from_pyg, from_smiles, to_rows

SQUARE = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.fixture
def file(tmp_path):
    """Writes a file; returns its path."""

    def file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return file


def block(name, atoms, bonds=(), dimension="3D"):
    """A MOL file of symbols with coordinates, and of bonds."""
    lines = [name, f"     RDKit          {dimension}", "", f"{len(atoms):3d}{len(bonds):3d}  0  0  0  0  0  0  0  0999 V2000"]
    lines += [f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0" for symbol, (x, y, z) in atoms]
    lines += [f"{source:3d}{target:3d}{order:3d}  0" for source, target, order in bonds]
    return "\n".join([*lines, "M  END", ""])


FORMALDEHYDE = block("CO", [("C", (0, 0, 0)), ("O", (0, 0, 1.13))], [(1, 2, 2)])
METHANOL = block("", [("C", (0, 0, 0)), ("O", (0, 0, 1.4)), ("H", (0, 1, 1.4))], [(1, 2, 1), (2, 3, 1)])
DRAWN = block("", [("C", (0, 0, 0)), ("C", (1, 0, 0))], [(1, 2, 1)], dimension="2D")


def test_molecules_with_properties(file):
    pytest.importorskip("rdkit")
    path = file(
        "a.sdf",
        f"{FORMALDEHYDE}> <y>\n1.5\n\n> <note>\nhello\n\n$$$$\n{block('', [('N', (0, 0, 0))], dimension='2D')}$$$$\n\n",
    )
    first, second = to_rows(path)
    assert (first["id"], first["y"], first["note"]) == ("CO", 1.5, "hello")
    assert first["positions"] == [[0, 0, 0], [0, 0, 1.13]]
    graph = from_smiles("C=O")
    assert first["edge_index"] == graph["edge_index"]
    assert first["edge_attr"] == graph["edge_attr"]
    assert second == {key: value for key, value in from_smiles("N").items() if key != "smiles"}
    assert to_rows(file("b.sdf", path.read_text().replace("\n", "\r\n"))) == [first, second]
    assert to_rows(file("c.mol", FORMALDEHYDE)) == [{key: first[key] for key in first if key not in ("y", "note")}]


def test_hydrogens_and_drawings_are_named_once(file):
    pytest.importorskip("rdkit")
    with pytest.warns(
        UserWarning, match=r"a\.sdf: hydrogens are nodes, as the file has them \(2 molecules\).*RemoveHs"
    ) as caught:
        first, _ = to_rows(file("a.sdf", f"{METHANOL}$$$$\n{METHANOL}$$$$\n"))
    assert len(caught) == 1
    assert [atom[0] for atom in first["node_feat"]] == [5, 7, 0]
    with pytest.warns(UserWarning, match=r"coordinates of drawings, in the plane, are not read \(1 molecules\)"):
        (row,) = to_rows(file("a.sdf", DRAWN))
    assert "positions" not in row


def test_a_broken_molecule_costs_no_other(file):
    """rdkit's own reader of SDF files would lose the molecule behind it."""
    pytest.importorskip("rdkit")
    five = block("", [("N", (0, 0, 0)), *[("C", (1, 0, place)) for place in range(5)]], [(1, place, 1) for place in range(2, 7)])
    path = file("a.sdf", f"{FORMALDEHYDE}$$$$\nbroken\n\n\n  9  9  0\n$$$$\n{five}$$$$\n{FORMALDEHYDE}$$$$\n")
    with pytest.warns(UserWarning, match="2 of 4 rows were left out") as caught:
        rows = to_rows(path, on_error="skip")
    assert "molecule 1: molecule: expected one in the format of MOL files, got another. rdkit cannot read it" in str(
        caught[0].message
    )
    assert "molecule 2: molecule: expected" in str(caught[0].message)
    assert "Explicit valence for atom # 0 N, 5, is greater than permitted" in str(caught[0].message)
    assert rows.numbers == [0, 3]
    assert rows[0] == rows[1]
    for content, message in (
        ("hello", r"a\.mol: molecule: expected one"),
        (f"{five}$$$$\n{five}", "expected one molecule, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            to_rows(file("a.mol", content))


def test_conformers_of_a_molecule():
    chem = pytest.importorskip("rdkit.Chem")
    molecule = chem.MolFromMolBlock(FORMALDEHYDE)
    assert from_molecule(molecule)["positions"][1] == [0, 0, 1.13]
    molecule.AddConformer(chem.Conformer(molecule.GetConformer()), assignId=True)
    with pytest.warns(UserWarning, match="the first of 2 conformers is read"):
        from_molecule(molecule)


def test_frames(file):
    pytest.importorskip("ase")
    plain = "2\nwater less one\nO 0 0 0\nH 0 0 1e0\n"
    extended = (
        '2\nProperties=species:S:1:pos:R:3:forces:R:3:charges:R:1 energy=-3.5 y=2 name="a b" pbc="F F F"\n'
        "O 0 0 0 1 2 3 0.5\nH 0 0 1 1 2 3 -0.5\n"
    )
    for name in ("a.xyz", "a.extxyz"):
        first, second = to_rows(file(name, plain + extended + "\n\n"))
        assert first == {"comment": "water less one", "positions": [[0, 0, 0], [0, 0, 1]], "node_feat": [[7], [0]]}
        assert second == {
            "positions": first["positions"],
            "node_feat": first["node_feat"],
            "energy": -3.5,
            "forces": [[1, 2, 3]] * 2,
            "charges": [0.5, -0.5],
            "y": 2,
            "name": "a b",
        }


def test_the_element_is_the_first_category_of_smiles(file):
    pytest.importorskip("ase")
    pytest.importorskip("rdkit")
    (row,) = to_rows(file("a.xyz", "3\n\nC 0 0 0\nCl 0 0 1\nX 0 0 2\n"))
    assert row["node_feat"] == [[from_smiles(text)["node_feat"][0][0]] for text in ("C", "Cl", "*")]


def test_columns_without_a_name_are_named_as_not_read(file):
    pytest.importorskip("ase")
    with pytest.warns(
        UserWarning, match=r"a\.xyz: the columns after the coordinates have no name, and are not read \(1 frames\)"
    ):
        to_rows(file("a.xyz", "1\n\nH 0 0 0 0.5\n1\n\nH 0 0 0\n"))


QM9 = """2
gdb 7\t1.5\t2.\t3.*^-6\t0.\t1\t-0.3\t0.1\t0.4\t35\t0.04\t-40\t-41\t-42\t-43\t6.469\t
C\t-0.0126\t 1.0858\t 8.0*^-6\t-0.5
O\t 0.0021\t-0.006\t 1.2\t 0.5
1341.3
C#O\t[C-]#[O+]\t
InChI=1S/CO/c1-2\tInChI=1S/CO/c1-2
"""


def test_files_of_qm9(file):
    pytest.importorskip("ase")
    for row in to_rows(file("dsgdb9nsd_000007.xyz", QM9)) + to_rows(file("two.xyz", QM9 + "\n" + QM9)):
        assert row["positions"] == [[-0.0126, 1.0858, 8e-6], [0.0021, -0.006, 1.2]]
        assert row["node_feat"] == [[5], [7]]
        assert (row["id"], row["smiles"], row["inchi"]) == ("gdb 7", "C#O", "InChI=1S/CO/c1-2")
        assert (row["A"], row["C"], row["mu"], row["U0"], row["Cv"]) == (1.5, 3e-6, 0.0, -40.0, 6.469)
        assert (row["charges"], row["frequencies"]) == ([-0.5, 0.5], [1341.3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('1\nLattice="5 0 0 0 5 0 0 0 5"\nH 0 0 0\n', r"frame 0: atoms: expected a molecule, got a periodic cell"),
        ("1\n\nH 0 0 0\n1\n\nQq 0 0 0\n", r"frame 1: expected a frame of symbols of elements and numbers, got another.*Qq"),
        ("3\n\nH 0 0 0\n", r"frame 0: expected 3 atoms, got 2 lines of them\. Is the file cut off"),
        ("H 0 0 0\n", r"line 1: expected the number of atoms of the next frame, got 'H 0 0 0'"),
        ("1\n\nH 0 x 0\n", r"frame 0: expected a frame"),
        (QM9[:-60], r"frame 0: expected"),
    ],
)
def test_frames_that_are_refused(file, content, message):
    pytest.importorskip("ase")
    with pytest.raises(ValueError, match=rf"a\.xyz(, |: ){message}"):
        to_rows(file("a.xyz", content))


def test_atoms_of_ase():
    ase = pytest.importorskip("ase")
    atoms = ase.Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"y": np.float64(2)})
    assert to_rows([atoms, atoms]) == [from_atoms(atoms)] * 2
    assert from_atoms(atoms) == {"y": 2.0, "positions": [[0, 0, 0], [0, 0, 1]], "node_feat": [[7], [0]]}
    atoms.pbc = (True, False, False)
    with pytest.raises(ValueError, match="item 0: atoms: expected a molecule, got a periodic cell"):
        to_rows([atoms])


PLY = "ply\nformat {}\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n{}end_header\n"


def test_points_and_meshes(file):
    pytest.importorskip("meshio")
    points = "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)
    assert to_rows(file("a.ply", PLY.format("ascii 1.0", "") + points)) == [{"positions": SQUARE}]
    binary = PLY.format("binary_little_endian 1.0", "").encode() + np.array(SQUARE, dtype="<f4").tobytes()
    assert to_rows(file("b.ply", binary)) == [{"positions": SQUARE}]
    faces = "element face 1\nproperty list uchar int vertex_indices\n"
    with pytest.warns(UserWarning, match=r"c\.ply: the vertices are the positions; not read: 1 faces\. .*sample_surface"):
        assert to_rows(file("c.ply", PLY.format("ascii 1.0", faces) + points + "3 0 1 2\n")) == [{"positions": SQUARE}]
    colors = PLY.format("ascii 1.0", "property uchar red\n") + points.replace("\n", " 255\n")
    with pytest.warns(UserWarning, match=r"d\.ply: the vertices are the positions; not read: red\.$"):
        assert to_rows(file("d.ply", colors)) == [{"positions": SQUARE}]
    with pytest.raises(ValueError, match=r"e\.ply: expected a mesh or points in the Polygon File Format"):
        to_rows(file("e.ply", "ply\nhello"))


@pytest.mark.parametrize("head", ["OFF\n4 1 0\n", "OFF4 1 0\n", "OFF # made by hand\n4 1 0\n"])
def test_meshes_in_the_object_file_format(file, head):
    points = "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)
    with pytest.warns(UserWarning, match="not read: 2 faces"):
        assert to_rows(file("a.off", f"{head}{points}4 0 1 2 3\n")) == [{"positions": SQUARE}]
    for content in ("OFF\n", head, "hello"):
        with pytest.raises(ValueError, match=r"a\.off: expected a mesh in the Object File Format, got another"):
            to_rows(file("a.off", content))


def test_arrays(tmp_path):
    points = np.array(SQUARE)
    np.save(tmp_path / "a.npy", points.astype(np.float32))
    np.savez(tmp_path / "a.npz", points)
    for source in (tmp_path / "a.npy", tmp_path / "a.npz"):
        assert to_rows(source) == [{"positions": SQUARE}]
    np.savez(tmp_path / "row.npz", positions=points, y=np.array(1))
    assert to_rows(tmp_path / "row.npz") == [{"positions": SQUARE, "y": 1}]
    np.savez(tmp_path / "columns.npz", positions=np.stack([points, points]), y=np.array([1, 2]))
    assert to_rows(tmp_path / "columns.npz") == [{"positions": SQUARE, "y": 1}, {"positions": SQUARE, "y": 2}]
    np.savez(tmp_path / "md17.npz", R=points, z=np.arange(4))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "letters.npy", np.array([b"DQc", b"C~"]))
    np.save(tmp_path / "clouds.npy", np.stack([points, points]))
    for name, message in (
        ("md17.npz", r"md17\.npz: expected arrays named as columns of rows, edge_index, positions, .*, got R, z\."),
        ("objects.npy", r"objects\.npy: expected an array of numpy without objects"),
        ("letters.npy", r"letters\.npy: expected an array of numbers, got \|S3\. Load it with numpy\.load"),
        ("clouds.npy", r"clouds\.npy: source: expected an array of real numbers of shape \(points, 2\) .* of shape \(2, 4, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            to_rows(tmp_path / name)


def test_graphs_in_letters(file):
    networkx = pytest.importorskip("networkx")
    path, complete = networkx.path_graph(4), networkx.complete_graph(5)
    lines = [networkx.to_graph6_bytes(path).strip(), networkx.to_sparse6_bytes(complete, header=False).strip()]
    lines += [networkx.to_graph6_bytes(complete, header=False).strip()]
    for end in (b"\n", b"\r\n", b"\n\n"):
        assert to_rows(file("a.g6", end.join(lines))) == [from_networkx(path), from_networkx(complete), from_networkx(complete)]
    for line, message in ((b"D?", "expected a graph in graph6 or sparse6"), (b"&AG", "such as digraph6"), (b"\xe9", "UTF-8")):
        with pytest.raises(ValueError, match=rf"a\.g6, line 2: .*{message}"):
            to_rows(file("a.g6", lines[0] + b"\n" + line))


def test_graphs_with_attributes(file, tmp_path):
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph(y=1)
    graph.add_node("a", x=1.5)
    graph.add_node("b", x=2.0)
    graph.add_edge("a", "b")
    row = from_networkx(graph)
    assert row["node_feat"] == [[1.5], [2.0]]
    networkx.write_graphml(graph, tmp_path / "a.graphml")
    text = (tmp_path / "a.graphml").read_text()
    start, end = text.index("<graph "), text.index("</graphml>")
    networkx.write_gml(graph, tmp_path / "a.gml")
    content = networkx.node_link_data(graph)
    old = {**content, "links": content["edges"]}
    del old["edges"]
    assert to_rows(tmp_path / "a.graphml") == to_rows(tmp_path / "a.gml") == [row]
    assert to_rows(file("two.graphml", text[:end] + text[start:end] + text[end:])) == [row, row]  # networkx reads the first alone
    assert to_rows(content) == to_rows(old) == to_rows(file("a.json", json.dumps(content))) == [row]
    assert to_rows({**content, "graph": {}, "y": 2, "name": "a"}) == [{**row, "y": 2, "name": "a"}]
    assert to_rows([content, old]) == to_rows(file("a.jsonl", f"{json.dumps(old)}\n{json.dumps(content)}\n")) == [row, row]
    unnamed = "graph [ node [ id 0 ] node [ id 1 ] edge [ source 0 target 1 ] ]"
    assert to_rows(file("b.gml", unnamed)) == [{"edge_index": [[0, 1], [1, 0]], "num_nodes": 2}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.graphml", "hello", r"a\.graphml: expected GraphML, got another"),
        ("a.gml", "hello", r"a\.gml: expected a graph in the Graph Modelling Language"),
        (
            "a.json",
            '{"nodes": [{"id": 1}], "links": [{"source": 1, "target": 2}]}',
            "expected links between its 1 nodes, .* got 2",
        ),
        ("a.json", '{"nodes": [{"id": 1}], "edges": [[1, 1]]}', "expected a graph as networkx.node_link_data writes it"),
    ],
)
def test_graphs_that_are_refused(file, name, content, message):
    pytest.importorskip("networkx")
    with pytest.raises(ValueError, match=message):
        to_rows(file(name, content))


def test_a_folder_of_the_tu_data_sets(tmp_path):
    pyg = pytest.importorskip("torch_geometric.data")
    import torch

    for name, lines in {
        "A": ("1, 2", "2, 1", "3, 4", "4, 3", "4, 5", "5, 4"),
        "graph_indicator": "11222",
        "graph_labels": ("1", "-1"),
        "node_labels": "01200",
        "edge_labels": "001100",
    }.items():
        (tmp_path / f"TOY_{name}.txt").write_text("\n".join(lines) + "\n")
    one_hot = torch.eye(3)
    first = pyg.Data(
        x=one_hot[[0, 1]], edge_index=torch.tensor([[0, 1], [1, 0]]), edge_attr=torch.eye(2)[[0, 0]], y=torch.tensor([1])
    )
    second = pyg.Data(
        x=one_hot[[2, 0, 0]],
        edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
        edge_attr=torch.eye(2)[[1, 1, 0, 0]],
        y=torch.tensor([0]),
    )
    assert to_rows(tmp_path) == to_rows(str(tmp_path)) == [from_pyg(first), from_pyg(second)]
    (tmp_path / "TOY_A.txt").write_text("1, 2\n2, 1\n3, 3\n3, 4\n4, 3\n5, 4\n")
    with pytest.warns(UserWarning, match="1 repeated edges and loops are left out by torch_geometric"):
        to_rows(tmp_path)
    (tmp_path / "OTHER_graph_indicator.txt").write_text("1\n")
    with pytest.raises(ValueError, match="expected one data set in the folder, got OTHER, TOY"):
        to_rows(tmp_path)


@pytest.mark.parametrize("content", ["ply\n", "ply\nformat ascii 1.0\nelement vertex 1\n"])
def test_a_mesh_whose_heading_is_cut_off_is_refused(file, content):
    pytest.importorskip("meshio")
    with pytest.raises(ValueError, match=r"a\.ply: expected a mesh .*no line 'end_header'. Is the file cut off"):  # not a hang
        to_rows(file("a.ply", content))
