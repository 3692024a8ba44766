"""The model's batch: checks the tensors of a call and encodes them into fields."""

from typing import NamedTuple

import torch
from torch import Tensor

from .configuration_lps import LPSConfig
from .representations import EdgeField, Field


class GraphBatch(NamedTuple):
    """A batch of graphs as the method sees it."""

    fields: dict[str, Field]
    """The input fields by name; dense ones of shape (batch, nodes, channels), edges as an `EdgeField`."""
    edge_index: Tensor
    """(batch, 2, edges) int64, zero on padding."""
    node_mask: Tensor
    """(batch, nodes) bool."""
    edge_mask: Tensor
    """(batch, edges) bool."""


def encode_batch(
    config: LPSConfig,
    dtype: torch.dtype,
    edge_index: Tensor,
    node_mask: Tensor | None,
    edge_mask: Tensor | None,
    node_features: Tensor | None,
    node_categories: Tensor | None,
    edge_features: Tensor | None,
    edge_categories: Tensor | None,
) -> GraphBatch:
    """Check the tensors of `LPSModel.forward` and encode categories as one-hot vectors.

    Shapes and types are always checked. Values are checked on the CPU only: reading them on an accelerator would make it wait,
    and `LPSProcessor` has checked them already.

    Args:
        config: Says which fields there are.
        dtype: Type of the encoded fields.
        edge_index (`torch.Tensor` of shape `(batch, 2, edges)` int64): Source and target.
        node_mask (`torch.Tensor` of shape `(batch, nodes)` bool): `None` where all are nodes.
        edge_mask (`torch.Tensor` of shape `(batch, edges)` bool): `None` where all are edges.
        node_features (`torch.Tensor` of shape `(batch, nodes, channels)`): Real node features.
        node_categories (`torch.Tensor` of shape `(batch, nodes, features)` int64): Categorical node features.
        edge_features (`torch.Tensor` of shape `(batch, edges, channels)`): Real edge features.
        edge_categories (`torch.Tensor` of shape `(batch, edges, features)` int64): Categorical edge features.

    Returns:
        `GraphBatch`.

    Raises:
        ValueError: If a tensor is missing, of the wrong shape, or (on the CPU) holds impossible values.
        TypeError: If a tensor has the wrong type.
    """
    nodes_given = node_categories if config.node_categories else node_features
    name = "node_categories" if config.node_categories else "node_features"
    if nodes_given is None and node_mask is None:
        raise ValueError(f"{name}: expected a tensor of shape (batch, nodes, ...), got None. LPSProcessor makes it from rows.")
    first = nodes_given if nodes_given is not None else node_mask
    if first.dim() < 2:
        name = name if nodes_given is not None else "node_mask"
        raise ValueError(f"{name}: expected shape (batch, nodes, ...), got {tuple(first.shape)}. Put graphs in a batch.")
    batch, nodes = first.shape[:2]
    if batch == 0 or nodes == 0:
        raise ValueError(f"{name}: expected at least one graph and one node, got shape ({batch}, {nodes}, ...).")
    if edge_index is None or edge_index.dim() != 3 or edge_index.shape[:2] != (batch, 2):
        got = None if edge_index is None else tuple(edge_index.shape)
        raise ValueError(f"edge_index: expected shape ({batch}, 2, edges), got {got}.")
    if edge_index.dtype != torch.int64:
        raise TypeError(f"edge_index: expected int64, got {edge_index.dtype}. Call .long().")
    edges = edge_index.shape[2]
    node_mask = _check_mask("node_mask", node_mask, (batch, nodes), edge_index.device)
    edge_mask = _check_mask("edge_mask", edge_mask, (batch, edges), edge_index.device)
    if edge_index.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_values(config, node_mask, edge_index, edge_mask)
    edge_index = edge_index.masked_fill(~edge_mask.unsqueeze(1), 0)
    fields: dict[str, Field] = {}
    for field, representation in config.input_representations.items():
        channels = representation.num_channels
        if field == "node_features":
            encoded = _encode(field, node_features, node_categories, config.node_categories, node_mask, channels, dtype)
            fields[field] = encoded
        else:
            encoded = _encode(field, edge_features, edge_categories, config.edge_categories, edge_mask, channels, dtype)
            fields[field] = EdgeField(edge_index, encoded)
    return GraphBatch(fields, edge_index, node_mask, edge_mask)


def _check_mask(name: str, mask: Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if tuple(mask.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(mask.shape)}.")
    if mask.dtype != torch.bool:
        raise TypeError(f"{name}: expected bool, got {mask.dtype}. Call .bool().")
    return mask


def _check_values(config: LPSConfig, node_mask: Tensor, edge_index: Tensor, edge_mask: Tensor) -> None:
    sizes = node_mask.sum(dim=1)
    if not torch.equal(node_mask, torch.arange(node_mask.shape[1]) < sizes.unsqueeze(1)):
        raise ValueError("node_mask: expected the nodes of each graph first and its padding last, got padding between nodes.")
    if int(sizes.min()) < 1:
        raise ValueError(f"node_mask: expected at least one node in every graph, graph {int(sizes.argmin())} has none.")
    if int(sizes.max()) > config.max_nodes:
        raise ValueError(
            f"node_mask: expected at most max_nodes={config.max_nodes} nodes, graph {int(sizes.argmax())} has "
            f"{int(sizes.max())}. Leave it out, or build the model with a larger max_nodes."
        )
    ends = edge_index.masked_fill(~edge_mask.unsqueeze(1), 0)
    wrong = ((ends < 0) | (ends >= sizes.view(-1, 1, 1))).flatten(1).any(dim=1)
    if bool(wrong.any()):
        graph = int(wrong.int().argmax())
        raise ValueError(
            f"edge_index: graph {graph} has {int(sizes[graph])} nodes, expected node numbers 0 to {int(sizes[graph]) - 1}, got "
            f"{int(ends[graph].min())} to {int(ends[graph].max())}."
        )


def _encode(
    field: str,
    features: Tensor | None,
    categories: Tensor | None,
    sizes: list[int] | None,
    mask: Tensor,
    channels: int,
    dtype: torch.dtype,
) -> Tensor:
    """One field as real numbers, (batch, nodes or edges, channels), zero on padding."""
    category_key = field.replace("features", "categories")
    unused, unused_key = (features, field) if sizes else (categories, category_key)
    if unused is not None:
        raise ValueError(f"{unused_key}: this model has {category_key}={sizes} in its config, so expected None.")
    if sizes:
        if categories is None or tuple(categories.shape) != (*mask.shape, len(sizes)):
            got = None if categories is None else tuple(categories.shape)
            raise ValueError(f"{category_key}: expected shape {(*mask.shape, len(sizes))}, got {got}.")
        if categories.dtype != torch.int64:
            raise TypeError(f"{category_key}: expected int64, got {categories.dtype}. Call .long().")
        categories = categories.masked_fill(~mask.unsqueeze(-1), 0)
        if categories.device.type == "cpu" and not torch.compiler.is_compiling():
            check_categories(category_key, categories, sizes)
        # A comparison and not torch's one_hot, which reads the values and so makes an accelerator wait.
        columns = [
            column.unsqueeze(-1) == torch.arange(size, device=mask.device)
            for column, size in zip(categories.unbind(-1), sizes, strict=True)
        ]
        if field == "edge_features":
            columns.insert(0, torch.ones_like(columns[0][..., :1]))
        encoded = torch.cat(columns, dim=-1).to(dtype)
    elif features is None:
        if channels != 1:
            raise ValueError(f"{field}: expected shape {(*mask.shape, channels)}, got None.")
        encoded = torch.ones(*mask.shape, 1, dtype=dtype, device=mask.device)
    else:
        if tuple(features.shape) != (*mask.shape, channels):
            raise ValueError(f"{field}: expected shape {(*mask.shape, channels)}, got {tuple(features.shape)}.")
        if not features.is_floating_point():
            raise TypeError(f"{field}: expected floating point numbers, got {features.dtype}. Call .float().")
        if features.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(features[mask].isfinite().all()):
            raise ValueError(f"{field}: expected finite numbers, got NaN or infinity. Clean or impute the data.")
        encoded = features.to(dtype)
    return encoded.masked_fill(~mask.unsqueeze(-1), 0.0)


def check_categories(name: str, categories: Tensor, sizes: list[int]) -> None:
    """Refuse categories (..., features) outside 0 to size - 1.

    Raises:
        ValueError: Naming the feature, its range and what it holds.
    """
    flat = categories.flatten(0, -2)
    if flat.shape[0] == 0:
        return
    for column, size in enumerate(sizes):
        least, most = int(flat[:, column].min()), int(flat[:, column].max())
        if least < 0 or most >= size:
            raise ValueError(
                f"{name}: feature {column} has categories 0 to {size - 1}, got {least if least < 0 else most}. Check the data, "
                f"or build the model with a larger {name}[{column}]."
            )
