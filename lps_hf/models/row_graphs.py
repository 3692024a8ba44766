"""Graphs of PyTorch Geometric and networkx as rows, and rows as graphs of networkx; neither package is needed to import this."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .row_labels import LABEL_KEYS
from .row_names import MASK_KEYS, OTHER_NAMES

Row = dict[str, Any]

# What graphs, nodes and edges are called, or what networkx keeps of the file that it read a graph from.
_NAMES = {"id", "idx", "index", "name", "node_default", "edge_default"}
# The weights of edges in networkx.
_WEIGHTS = ("weight", "edge_weight")


def from_pyg(data: Any) -> Row:
    """Turn a graph of PyTorch Geometric into a row.

    `x` becomes `node_feat`, `pos` `positions` and `vel` `velocities`; whole numbers stay whole numbers, which are categories, and
    `LPSProcessor` says where a model wants the others. `edge_weight` becomes `edge_attr`, one real number per edge, where there
    is none. `edge_index`, `edge_attr`, `y`, `edge_label_index`, `edge_label` and all that is not named here keep their names;
    `LPSProcessor` names what a model does not read. Of masks (`train_mask`, …) see `to_rows`.

    Args:
        data (`torch_geometric.data.Data`): One graph; of a batch, `to_rows` makes one row each.

    Returns:
        `dict`: The row, as lists of numbers.

    Raises:
        ValueError: If it is no single homogeneous graph with an edge list, or does not tell its number of nodes.
        TypeError: If it is something else.
    """
    if not is_pyg(data):
        raise TypeError(f"data: expected a Data object of PyTorch Geometric, got {type(data).__name__}.")
    if hasattr(data, "node_types"):
        raise ValueError(
            "data: expected one kind of nodes and edges, got HeteroData. Make it one graph with data.to_homogeneous()."
        )
    if hasattr(data, "to_data_list"):
        raise ValueError("data: expected one graph, got a batch of them. Pass it to to_rows.")
    values = {key: value for key, value in data.to_dict().items() if value is not None}
    graphs = set(_in_list(_as_list(values.pop("batch", 0))))
    if len(graphs) > 1:
        raise ValueError(
            f"data: expected one graph, got a batch vector of {len(graphs)}. Pass a list of graphs, or a Batch, to to_rows."
        )
    if "edge_index" not in values and "adj_t" in values:
        raise ValueError("data: expected the edge list 'edge_index', got a sparse adjacency matrix. Leave ToSparseTensor out.")
    if "edge_weight" in values and "edge_attr" not in values:
        values["edge_attr"] = [float(weight) for weight in np.ravel(values.pop("edge_weight"))]
    # What has the name of a row's key already keeps it.
    names = {name: key for name, key in OTHER_NAMES.items() if key not in values}
    row = {names.get(key, key): _as_list(value) for key, value in values.items()}
    counted = next((key for key in ("node_feat", "positions") if key in row), None)
    if "num_nodes" not in row and counted is None:
        raise ValueError(
            "data: expected x, pos or num_nodes, which tell the number of nodes, got none of them. Set data.num_nodes: the last "
            "nodes may have no edge."
        )
    if counted is not None:
        row.setdefault("num_nodes", len(row[counted]))
    for key in ("node_feat", "edge_attr"):
        if key in row:
            row[key] = [_in_list(value) for value in row[key]]
    if "y" in row:
        row["y"] = _flat_label(row["y"])
    return row


def from_networkx(
    graph: Any,
    node_feat: str | Sequence[str] | None = None,
    edge_attr: str | Sequence[str] | None = None,
    positions: str | None = None,
    y: str | None = None,
) -> Row:
    """Turn a networkx graph into a row; nodes are numbered in the order in which the graph has them.

    An undirected edge is there in both directions. Parallel edges of a multigraph are all there. Attributes that do not come
    along are named in a warning, but for names of graphs, nodes and edges.

    Args:
        graph (`networkx.Graph`): Directed or not.
        node_feat: Name of the node attribute with the features (a number or a list), or of several attributes, one feature
            each. Default: `"node_feat"` or `"x"`, where all nodes have it.
        edge_attr: The same for edges. Default: `"edge_attr"`, or else `"weight"` or `"edge_weight"` as a real number, where all
            edges have it.
        positions: Name of the node attribute with the coordinates. Default: `"positions"` or `"pos"`, where all nodes have it.
        y: Name of the label, which the graph has in `graph.graph`, or its nodes have: `None` for those without. Default: the
            first of `"y"`, `"label"`, `"labels"` and `"target"` that is there; of nodes only `"y"` may be a text, as names of
            nodes stand in `"label"` too.

    Returns:
        `dict`: `edge_index`, `num_nodes`, and of `node_feat`, `edge_attr`, `positions`, `y` and masks (`train_mask`, …) of nodes
        those that are there.

    Raises:
        ValueError: If there is no node, some nodes or edges lack an attribute that others have or that is named, or weights are
            no numbers.
        TypeError: If it is no graph of networkx.
    """
    if not is_networkx(graph):
        raise TypeError(f"graph: expected a graph of networkx, got {type(graph).__name__}.")
    places = {node: place for place, node in enumerate(graph.nodes)}
    if not places:
        raise ValueError("graph: expected at least one node, got an empty graph.")
    nodes = [attributes for _, attributes in graph.nodes(data=True)]
    sources, targets, edges = [], [], []
    for source, target, attributes in graph.edges(data=True):
        ends = [places[source], places[target]]
        directions = 1 if graph.is_directed() or source == target else 2
        sources += ends[:directions]
        targets += ends[::-1][:directions]
        edges += [attributes] * directions
    row: Row = {"edge_index": [sources, targets], "num_nodes": len(places)}
    used: dict[str, set[str]] = {}
    for key, noun, holders, given, defaults in (
        ("node_feat", "nodes", nodes, node_feat, ("node_feat", "x")),
        ("edge_attr", "edges", edges, edge_attr, ("edge_attr", *_WEIGHTS)),
        ("positions", "nodes", nodes, positions, ("positions", "pos")),
    ):
        names = _attribute_names(holders, given, defaults)
        if names:
            row[key] = _attributes(key, holders, noun, names)
            used.setdefault(noun, set()).update(names)
    if edge_attr is None and row.get("edge_attr") and not used["edges"] - set(_WEIGHTS):
        row["edge_attr"] = [[_as_weight(weight) for weight in weights] for weights in row["edge_attr"]]
    for key in MASK_KEYS:
        if all(key in attributes for attributes in nodes):
            row[key] = [bool(attributes[key]) for attributes in nodes]
            used.setdefault("nodes", set()).add(key)
    row |= _networkx_labels(graph, nodes, y, used)
    others = {name: value for name, value in graph.graph.items() if name not in used.get("graph", set()) | _NAMES}
    # Texts describe a graph, and None says nothing.
    unread = [f"{name!r} of the graph" for name, value in others.items() if value is not None and not isinstance(value, str)]
    for noun, holders in (("nodes", nodes), ("edges", edges)):
        found = dict.fromkeys(name for attributes in holders for name in attributes)
        unread += [f"{name!r} of {noun}" for name in found if name not in used.get(noun, set()) | _NAMES]
    if unread:
        warnings.warn(
            f"from_networkx: attributes that do not come along: {', '.join(unread)}. Name those that matter in "
            "node_feat, edge_attr, positions or y.",
            stacklevel=2,
        )
    return row


def to_networkx(row: Mapping[str, Any]) -> Any:
    """Turn a row into a networkx graph, for drawing and for what networkx computes; `from_networkx` reads it back.

    Args:
        row: With `edge_index` and `num_nodes` or `node_feat`.

    Returns:
        `networkx.Graph`, or `networkx.DiGraph` where an edge is not the same in both directions; nodes are numbers from 0.
        Repeated edges are one.

    Raises:
        ImportError: If networkx is missing.
        ValueError: If the row is no graph.
    """
    try:
        import networkx
    except ImportError as error:
        raise ImportError(
            "to_networkx: expected the package networkx, which is not installed. Run 'pip install networkx'."
        ) from error
    if row.get("edge_index") is None or (row.get("num_nodes") is None and row.get("node_feat") is None):
        raise ValueError(f"row: expected the keys 'edge_index' and 'num_nodes' or 'node_feat', got only {sorted(row)}.")
    sources, targets = map(_as_list, row["edge_index"])
    edges = list(zip(sources, targets, _as_list(row.get("edge_attr")) or [None] * len(sources), strict=True))
    known = {(source, target, str(value)) for source, target, value in edges}
    is_symmetric = all((target, source, value) in known for source, target, value in known)
    graph = networkx.Graph() if is_symmetric else networkx.DiGraph()
    graph.add_nodes_from(range(row["num_nodes"] if row.get("num_nodes") is not None else len(row["node_feat"])))
    for source, target, value in edges:
        graph.add_edge(source, target, **({} if value is None else {"edge_attr": value}))
    for key in ("node_feat", "positions"):
        if row.get(key) is not None:
            networkx.set_node_attributes(graph, dict(enumerate(_as_list(row[key]))), key)
    if row.get("y") is not None:
        graph.graph["y"] = _as_list(row["y"])
    return graph


def is_pyg(source: Any) -> bool:
    """Whether it is a graph, or a batch of graphs, of PyTorch Geometric."""
    return hasattr(source, "stores") and (hasattr(source, "edge_index") or hasattr(source, "node_types"))


def is_networkx(source: Any) -> bool:
    """Whether it is a graph of networkx."""
    return all(hasattr(source, name) for name in ("nodes", "edges", "is_directed", "adj"))


def _attribute_names(
    holders: Sequence[Mapping[str, Any]], given: str | Sequence[str] | None, defaults: Sequence[str]
) -> list[str]:
    """The names of the attributes to read; none where no name is given and no node or edge has one of the default names."""
    if given is None:
        return [name for name in defaults if any(name in attributes for attributes in holders)][:1]
    return [given] if isinstance(given, str) else list(given)


def _attributes(key: str, holders: Sequence[Mapping[str, Any]], noun: str, names: Sequence[str]) -> list[list[Any]]:
    """The features of all nodes or edges."""
    for name in names:
        missing = sum(name not in attributes for attributes in holders)
        if missing:
            raise ValueError(f"{key}: expected the attribute {name!r} on all {len(holders)} {noun}, got {missing} without it.")
    return [[number for name in names for number in _in_list(_as_list(attributes[name]))] for attributes in holders]


def _as_weight(weight: Any) -> float:
    """A weight is a quantity, even where all of them are whole numbers."""
    try:
        return float(weight)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"edge_attr: expected numbers as weights of edges, got {weight!r}. Name an attribute of numbers."
        ) from error


def _networkx_labels(graph: Any, nodes: Sequence[Mapping[str, Any]], y: str | None, used: dict[str, set[str]]) -> Row:
    """The labels of a graph, or of its nodes; notes their names as used."""
    names = LABEL_KEYS["graph"] if y is None else (y,)
    found = [name for name in names if graph.graph.get(name) is not None]
    if found:
        used["graph"] = set(found)
        # Others keep their names: the processor says whether they differ.
        return {"y" if name == found[0] else name: _in_list(_as_list(graph.graph[name])) for name in found}
    for name in names:
        labels = [_as_list(attributes.get(name)) for attributes in nodes]
        are_names = y is None and name != "y" and any(isinstance(label, str) for label in labels)
        if not are_names and any(label is not None for label in labels):
            used.setdefault("nodes", set()).add(name)
            return {"y": labels}
    if y is not None:
        raise ValueError(f"y: expected {y!r} in graph.graph or on its nodes, got neither.")
    return {}


def _as_list(value: Any) -> Any:
    """Tensors and arrays as lists of numbers; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, tuple) else value


def _in_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _flat_label(label: Any) -> list[Any]:
    """Labels that PyTorch Geometric keeps as a matrix of one row (of a graph) or one column (of nodes)."""
    values = _in_list(label)
    if len(values) == 1 and isinstance(values[0], list):
        return values[0]
    is_column = all(isinstance(value, list) and len(value) == 1 for value in values)
    return [value[0] for value in values] if is_column else values
