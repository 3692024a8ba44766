"""Rows from other libraries and files: round trips, what the processor takes, and what is refused."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.dynamic_module_utils import get_imports

from lps_hf.data import (
    MOLECULE_EDGE_CATEGORIES,
    MOLECULE_NODE_CATEGORIES,
    from_molecule,
    from_networkx,
    from_pyg,
    from_smiles,
    to_networkx,
    to_rows,
)
from lps_hf.models import row_files, row_graphs, row_molecules, row_sources, row_structures, row_tables
from lps_hf.models.processing_lps import LPSProcessor

SHARED = Path(__file__).parents[3] / "shared" / "data"
ROW = {
    "edge_index": [[0, 1, 1, 2], [1, 0, 2, 1]],
    "num_nodes": 4,
    "node_feat": [[0], [3], [0], [1]],
    "edge_attr": [[1], [1], [2], [2]],
    "y": [1],
}


def pyg_data(**values):
    return pytest.importorskip("torch_geometric.data").Data(**values)


def test_pyg_round_trip():
    data = pyg_data(
        x=torch.tensor(ROW["node_feat"]),
        edge_index=torch.tensor(ROW["edge_index"]),
        edge_attr=torch.tensor(ROW["edge_attr"]),
        y=torch.tensor(ROW["y"]),
    )
    assert from_pyg(data) == ROW
    assert to_rows(data) == [ROW]
    from torch_geometric.data import Batch

    other = pyg_data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    assert to_rows([data, other, data]) == [ROW, {"edge_index": [[0], [1]], "num_nodes": 2}, ROW]
    assert to_rows(Batch.from_data_list([data, data])) == [ROW, ROW]


def test_pyg_names_and_shapes():
    data = pyg_data(
        x=torch.tensor([0.5, 1.5]),
        pos=torch.eye(2, 3),
        vel=torch.ones(2, 3),
        edge_index=torch.zeros(2, 0, dtype=torch.long),
        edge_label_index=torch.tensor([[0], [1]]),
        edge_label=torch.tensor([1]),
        y=torch.tensor([[1.0, float("nan")]]),
        smiles="CC",
    )
    row = from_pyg(data)
    assert row.pop("y")[0] == 1.0
    assert row == {
        "node_feat": [[0.5], [1.5]],  # one feature each, still real numbers
        "positions": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        "velocities": [[1.0] * 3] * 2,
        "edge_index": [[], []],
        "edge_label_index": [[0], [1]],
        "edge_label": [1],
        "smiles": "CC",
        "num_nodes": 2,
    }
    # Classes of nodes, which some data sets keep as one column.
    assert from_pyg(pyg_data(x=torch.zeros(3, 1), y=torch.tensor([[2], [0], [1]])))["y"] == [2, 0, 1]


def test_pyg_that_is_refused():
    with pytest.raises(ValueError, match=r"expected x, pos or num_nodes.*Set data\.num_nodes"):
        from_pyg(pyg_data(edge_index=torch.tensor([[0], [1]])))
    from torch_geometric.data import Batch, HeteroData

    with pytest.raises(ValueError, match=r"got HeteroData.*to_homogeneous"):
        to_rows(HeteroData())
    with pytest.raises(ValueError, match="Pass it to to_rows"):
        from_pyg(Batch.from_data_list([pyg_data(num_nodes=1)]))
    with pytest.raises(TypeError, match="expected a Data object of PyTorch Geometric, got dict"):
        from_pyg(ROW)


def test_networkx_round_trip():
    pytest.importorskip("networkx")
    graph = to_networkx(ROW)
    assert not graph.is_directed()
    assert from_networkx(graph) == ROW
    directed = {**ROW, "edge_attr": [[1], [2], [2], [2]], "positions": [[0.0, float(node)] for node in range(4)]}
    assert to_networkx(directed).is_directed()
    assert from_networkx(to_networkx(directed)) == directed
    assert to_rows([graph, graph]) == [ROW, ROW]


def test_networkx_attributes_and_names():
    networkx = pytest.importorskip("networkx")
    graph = networkx.MultiGraph(group=2)
    graph.add_node("b", charge=0.5, kind=(1, 2), y=0)
    graph.add_node("a", charge=-0.5, kind=(3, 4), y=1)
    graph.add_edge("a", "b", weight=2.0)
    graph.add_edge("a", "b", weight=3.0)
    graph.add_edge("a", "a", weight=4.0)
    weights = [[2.0], [2.0], [3.0], [3.0], [4.0]]
    with pytest.warns(UserWarning, match="attributes that do not come along: 'group' of the graph, 'charge' of nodes, 'kind' of"):
        plain = from_networkx(graph)
    assert plain == {"edge_index": [[0, 1, 0, 1, 1], [1, 0, 1, 0, 1]], "num_nodes": 2, "edge_attr": weights, "y": [0, 1]}
    with pytest.warns(UserWarning, match="attributes that do not come along: 'y' of nodes"):
        named = from_networkx(graph, node_feat=["charge", "kind"], edge_attr="weight", y="group")
    assert named["node_feat"] == [[0.5, 1, 2], [-0.5, 3, 4]]
    assert named["edge_attr"] == weights
    assert named["y"] == [2]
    with pytest.raises(ValueError, match="edge_attr: expected the attribute 'length' on all 5 edges, got 5 without it"):
        from_networkx(graph, edge_attr="length")
    graph.add_node("c", x=1)
    with pytest.raises(ValueError, match="node_feat: expected the attribute 'x' on all 3 nodes, got 2 without it"):
        from_networkx(graph)
    with pytest.raises(ValueError, match="y: expected 'target'"):
        from_networkx(networkx.path_graph(2), y="target")
    with pytest.raises(ValueError, match="at least one node"):
        to_rows([networkx.Graph()])


@pytest.mark.parametrize("kind", ["Graph", "DiGraph", "MultiDiGraph"])
@pytest.mark.parametrize("name", ["weight", "edge_weight"])
def test_networkx_weights_come_along_as_real_numbers(kind, name):
    graph = getattr(pytest.importorskip("networkx"), kind)()
    graph.add_edge(0, 1, **{name: 2})
    graph.add_edge(1, 2, **{name: 0.5})
    expected = [[2.0], [2.0], [0.5], [0.5]] if kind == "Graph" else [[2.0], [0.5]]
    row = from_networkx(graph)
    assert row["edge_attr"] == expected
    assert all(isinstance(number, float) for weights in row["edge_attr"] for number in weights)
    batch = LPSProcessor(num_node_channels=1, num_edge_channels=1)(to_rows(graph))
    assert batch["edge_features"][0].tolist() == expected
    graph.add_edge(2, 0)
    with pytest.raises(ValueError, match=f"edge_attr: expected the attribute '{name}' on all"):
        from_networkx(graph)
    graph.add_edge(2, 0, **{name: "heavy"})
    with pytest.raises(ValueError, match="edge_attr: expected"):
        from_networkx(graph)


def test_networkx_labels_come_along_or_are_named():
    networkx = pytest.importorskip("networkx")
    for name in ("y", "label", "labels", "target"):
        graph = networkx.path_graph(3)
        graph.graph.update({name: 1, "name": "path", "node_default": {"a": 1}})
        assert from_networkx(graph)["y"] == [1]
        graph = networkx.path_graph(3)
        networkx.set_node_attributes(graph, {0: 2, 2: 1}, name)
        assert from_networkx(graph)["y"] == [2, None, 1]  # of some nodes
    graph = networkx.path_graph(3, create_using=networkx.DiGraph)
    graph.graph.update(y=1, label=0, temperature=0.5)
    networkx.set_node_attributes(graph, {0: True, 1: False, 2: True}, "train_mask")
    with pytest.warns(UserWarning, match="do not come along: 'temperature' of the graph"):
        row = from_networkx(graph)
    assert (row["y"], row["label"], row["train_mask"]) == ([1], [0], [True, False, True])
    # Names of nodes are no classes, unless somebody says so.
    graph = networkx.path_graph(2)
    networkx.set_node_attributes(graph, {0: "a", 1: "b"}, "label")
    with pytest.warns(UserWarning, match="do not come along: 'label' of nodes"):
        assert "y" not in from_networkx(graph)
    assert from_networkx(graph, y="label")["y"] == ["a", "b"]
    networkx.set_edge_attributes(graph, 1, "edge_attr")
    networkx.set_edge_attributes(graph, 0.5, "weight")
    with pytest.warns(UserWarning, match="'label' of nodes, 'weight' of edges"):
        assert from_networkx(graph)["edge_attr"] == [[1], [1]]


def test_pyg_weights_and_what_stands_beside_them():
    edges = torch.tensor([[0, 1], [1, 0]])
    row = from_pyg(
        pyg_data(edge_index=edges, edge_weight=torch.tensor([1, 2]), num_nodes=2, batch=torch.zeros(2, dtype=torch.long))
    )
    assert row == {"edge_index": edges.tolist(), "edge_attr": [[1.0], [2.0]], "num_nodes": 2}
    both = from_pyg(pyg_data(edge_index=edges, edge_weight=torch.ones(2), edge_attr=torch.zeros(2, 1), num_nodes=2))
    assert (both["edge_attr"], both["edge_weight"]) == ([[0.0], [0.0]], [1.0, 1.0])
    # A key that is there already is not overwritten.
    row = from_pyg(pyg_data(edge_index=edges, x=torch.ones(2, 1), node_feat=torch.zeros(2, 1)))
    assert (row["node_feat"], row["x"]) == ([[0.0], [0.0]], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="data: expected one graph, got a batch vector of 2. Pass a list of graphs, or a Batch"):
        from_pyg(pyg_data(edge_index=edges, num_nodes=2, batch=torch.tensor([0, 1])))


def test_smiles_by_hand():
    pytest.importorskip("rdkit")
    assert MOLECULE_NODE_CATEGORIES == [119, 5, 12, 12, 10, 6, 6, 2, 2]
    assert MOLECULE_EDGE_CATEGORIES == [5, 6, 2]
    row = from_smiles("C[NH3+]")  # C with 4 neighbours and 3 hydrogens; N with 4, charge 1, 3 hydrogens; both sp3
    assert row == {
        "edge_index": [[0, 1], [1, 0]],
        "num_nodes": 2,
        "node_feat": [[5, 0, 4, 5, 3, 0, 2, 0, 0], [6, 0, 4, 6, 3, 0, 2, 0, 0]],
        "edge_attr": [[0, 0, 0], [0, 0, 0]],
        "smiles": "C[NH3+]",
    }
    benzene = from_smiles("c1ccccc1")
    assert benzene["node_feat"] == [[5, 0, 3, 5, 1, 0, 1, 1, 1]] * 6
    assert benzene["edge_attr"] == [[3, 0, 1]] * 12
    assert from_smiles("C/C=C/C")["edge_attr"][2] == [1, 2, 0]  # double, E
    assert [atom[1] for atom in from_smiles("C[C@H](N)O")["node_feat"]] == [0, 2, 0, 0]
    # No bond and no hydrogen; a charge and an element beyond the tables.
    assert from_smiles("[U+6]")["node_feat"][0][:5] == [91, 0, 0, 11, 0]
    assert from_smiles("*")["node_feat"][0][0] == 118
    from rdkit import Chem

    assert to_rows(Chem.MolFromSmiles("CO"))[0] == from_molecule(Chem.MolFromSmiles("CO"))


def test_smiles_that_are_refused(capfd):
    pytest.importorskip("rdkit")
    with pytest.raises(ValueError, match="smiles: expected the SMILES string of a molecule, such as 'CCO', got 'C1CC'"):
        from_smiles("C1CC")
    with pytest.raises(ValueError, match=r"item 1: smiles: .* got 'xyz'\. Check .* A path would end in \.jsonl"):
        to_rows(["CCO", "xyz"])
    with pytest.raises(ValueError, match="got ''"):
        from_smiles("")
    with pytest.raises(TypeError, match="expected a string, got int"):
        from_smiles(3)
    assert capfd.readouterr().err == ""  # rdkit has nothing to add


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_smiles_agree_with_real_rows():
    """Every 100th test peptide; its row in the data set has been made by others."""
    pytest.importorskip("rdkit")
    parquet = pytest.importorskip("pyarrow.parquet")
    known = parquet.read_table(next((SHARED / "hub/peptides-func/data").glob("test-*")))
    with gzip.open(SHARED / "peptides-func/peptide_multi_class_dataset.csv.gz", "rt") as file:
        smiles = [line["smiles"] for line in csv.DictReader(file)]
    places = np.load(SHARED / "peptides-func/splits.npz")["test"]
    for number in range(0, len(places), 100):
        expected = known.slice(number, 1).to_pylist()[0]
        row = from_smiles(smiles[places[number]])
        assert {key: expected[key] for key in row} == row


def test_molecules_reach_the_processor():
    pytest.importorskip("rdkit")
    processor = LPSProcessor(12, MOLECULE_NODE_CATEGORIES, MOLECULE_EDGE_CATEGORIES)
    batch = processor(to_rows(["CCO", {"smiles": "C", "y": [1]}])[:1], return_tensors="pt")
    assert batch["node_categories"].shape == (1, 3, 9)
    assert batch["edge_categories"].shape == (1, 4, 3)


def test_files(tmp_path):
    pytest.importorskip("rdkit")
    from datasets import Dataset

    rows = [ROW, {**ROW, "y": [0]}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "columns.json").write_text(json.dumps({key: [row[key] for row in rows] for key in ROW}))
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerows(rows)
    for name in ("rows.jsonl", "rows.json", "columns.json", "rows.parquet", "rows.csv"):
        assert to_rows(tmp_path / name) == rows == to_rows(str(tmp_path / name)), name
    assert to_rows(Dataset.from_list(rows)) == to_rows({key: [row[key] for row in rows] for key in ROW}) == to_rows(rows) == rows
    assert to_rows(ROW) == [ROW]
    pandas = pytest.importorskip("pandas")
    assert to_rows(pandas.DataFrame({"smiles": ["C"], "y": [0.5]})) == [{**from_smiles("C"), "y": 0.5}]
    (tmp_path / "molecules.smi").write_text("CCO ethanol 1\n\nC\n")
    assert to_rows(tmp_path / "molecules.smi") == [{**from_smiles("CCO"), "id": "ethanol 1"}, from_smiles("C")]
    (tmp_path / "molecules.csv").write_text("smiles,y,name\nC,0.5,methane\nCC,,001\n")
    methane, ethane = to_rows(tmp_path / "molecules.csv")
    assert methane == {**from_smiles("C"), "y": 0.5, "name": "methane"}
    assert (ethane["y"], ethane["name"]) == (None, "001")
    pandas.DataFrame({"smiles": ["C"], "y": [1]}).to_csv(tmp_path / "numbered.csv")  # its first column has no name
    assert to_rows(tmp_path / "numbered.csv") == [{"": 0, **from_smiles("C"), "y": 1}]


def test_images(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    from datasets import Dataset, Features
    from datasets import Image as ImageColumn

    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    image = Image.fromarray(array)
    assert to_rows(image) == [{"image": image}]
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side: a quarter turn clockwise makes it upright
    image.save(tmp_path / "turned.png", exif=exif)
    (turned,) = to_rows(tmp_path / "turned.png")
    assert np.array_equal(np.asarray(turned["image"]), np.rot90(array, -1))
    image.save(tmp_path / "plain.png")
    dataset = Dataset.from_dict({"image": [str(tmp_path / "plain.png")]}, Features(image=ImageColumn()))
    dataset.to_parquet(tmp_path / "images.parquet")
    embedded = {"image": {"bytes": (tmp_path / "plain.png").read_bytes(), "path": None}}
    data = embedded["image"]["bytes"]
    for source in (dataset, tmp_path / "images.parquet", embedded, [str(tmp_path / "plain.png")], data, {"image": data}):
        (row,) = to_rows(source)
        assert np.array_equal(np.asarray(row["image"]), array)


def test_what_is_refused_says_where(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n{broken\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: expected JSON"):
        to_rows(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text("3\n")
    with pytest.raises(TypeError, match=r"rows\.jsonl, line 1: expected a row, a dictionary, got int"):
        to_rows(tmp_path / "rows.jsonl")
    (tmp_path / "rows.parquet").write_text("none")
    with pytest.raises(ValueError, match=r"rows\.parquet: expected a parquet file"):
        to_rows(tmp_path / "rows.parquet")
    for line in ("3", "3,4,5"):
        (tmp_path / "rows.csv").write_text(f"a,b\n1,2\n{line}\n")
        with pytest.raises(ValueError, match=r"rows\.csv, row 1: expected as many cells"):
            to_rows(tmp_path / "rows.csv")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"empty\.jsonl: expected at least one row, got an empty file"):
        to_rows(tmp_path / "empty.jsonl")
    with pytest.raises(ValueError, match=r"^item 1: .*empty\.jsonl: expected at least one row"):
        to_rows([ROW, tmp_path / "empty.jsonl"])
    (tmp_path / "notes.txt").write_text("C")
    with pytest.raises(ValueError, match=r"expected a file ending in \.jsonl.*got .*notes\.txt"):
        to_rows(str(tmp_path / "notes.txt"))
    with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
        to_rows("missing.jsonl")
    with pytest.raises(TypeError, match="item 1: item: expected a row, .* got int"):
        to_rows([ROW, 3])
    from datasets import Dataset, DatasetDict

    with pytest.raises(ValueError, match="rows: expected one data set, got the splits train. Pass one of them"):
        to_rows(DatasetDict(train=Dataset.from_list([ROW])))
    with pytest.raises(TypeError, match="source: expected a row, .* got int"):
        to_rows(3)
    (tmp_path / "cat.png").write_text("no picture")
    pytest.importorskip("PIL")
    with pytest.raises(ValueError, match="image: expected a picture"):
        to_rows(tmp_path / "cat.png")


def test_optional_packages_are_no_requirement_of_remote_code():
    modules = (row_sources, row_files, row_tables, row_structures, row_graphs, row_molecules)
    needed = {name for module in modules for name in get_imports(module.__file__)}
    assert needed.isdisjoint({"rdkit", "networkx", "PIL", "pyarrow", "torch_geometric", "ase", "meshio"})


def test_tables_and_columns_of_other_packages():
    import pandas
    import pyarrow
    from datasets import Dataset

    rows = [{**ROW, "y": [number]} for number in range(2)]
    arrow, table, dataset = pyarrow.Table.from_pylist(rows), pandas.DataFrame(rows), Dataset.from_list(rows)
    for source in (arrow, *arrow.to_batches(), dataset.with_format("arrow"), dataset.with_format("pandas")):
        assert LPSProcessor(node_categories=[4], edge_categories=[3])(to_rows(source))["labels"].tolist() == [0, 1]
    columns = {"arrow": {name: arrow[name] for name in arrow.column_names}, "pandas": {name: table[name] for name in table}}
    for source in columns.values():
        assert LPSProcessor(node_categories=[4], edge_categories=[3])(source)["labels"].tolist() == [0, 1]


def test_columns_of_molecules_of_other_packages():
    pytest.importorskip("rdkit")
    import pandas
    import pyarrow
    from datasets import Dataset
    from rdkit import Chem

    texts = ["C", "CC"]
    by_name = pandas.DataFrame({"smiles": texts, "y": [0, 1]}).set_index("smiles")
    several = {"smiles": Dataset.from_dict({"smiles": texts})["smiles"]}, {"smiles": pandas.Series(texts)}
    for source in (pyarrow.array(texts), by_name, {"smiles": pyarrow.array(texts)}, *several):
        assert [row["smiles"] for row in to_rows(source)] == texts
    assert to_rows([{"ROMol": Chem.MolFromSmiles("CC"), "y": 1}])[0]["num_nodes"] == 2
    with pytest.raises(TypeError, match="column 'SMILES': smiles: expected a string, got NAType"):
        to_rows([{"SMILES": pandas.NA}])


def test_splits_are_no_row_for_the_processor_either():
    from datasets import Dataset, DatasetDict

    with pytest.raises(ValueError, match="rows: expected one data set, got the splits train. Pass one of them"):
        LPSProcessor()(DatasetDict(train=Dataset.from_list([ROW])))


def test_attributes_of_a_graph_that_networkx_keeps_are_named():
    networkx = pytest.importorskip("networkx")
    graph = networkx.path_graph(2)
    graph.graph.update({"class": 1, "name": "path"})
    with pytest.warns(UserWarning, match="do not come along: 'class' of the graph. Name"):
        from_networkx(graph)
