"""The model's batch: checks the tensors of a call and encodes them into fields."""

import math
from collections.abc import Iterable, Mapping
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from .configuration_lps import LPSConfig
from .groups import get_group
from .representations import Batch, EdgeField, Field
from .row_checks import LARGEST, largest_number, too_large

NODE_KEYS = ("node_categories", "node_features", "positions", "velocities", "charges")


def encode_batch(config: LPSConfig, dtype: torch.dtype, tensors: Mapping[str, Tensor | None]) -> Batch:
    """Check the tensors of `LPSModel.forward` and make the input fields of them.

    Shapes and types are always checked. Values are checked on the CPU only: reading them on an accelerator would make it wait,
    and `LPSProcessor` has checked them already.

    Args:
        config: Says which fields there are.
        dtype: Type of the encoded fields.
        tensors: The arguments of `LPSModel.forward` by name; `None` where nothing is given.

    Returns:
        `Batch`.

    Raises:
        ValueError: If a tensor is missing or not wanted, of the wrong shape, or (on the CPU) holds impossible values.
        TypeError: If a tensor has the wrong type.
    """
    for name, tensor in tensors.items():
        if tensor is not None and not isinstance(tensor, Tensor):
            got = type(tensor).__name__
            raise TypeError(f"{name}: expected a tensor, got {got}. Call the processor with return_tensors='pt'.")
    _refuse_unread(config, tensors)
    if "pixel_values" in config.inputs:
        return _encode_images(config, dtype, tensors["pixel_values"])
    first = _first_node_tensor(config, tensors)
    batch, nodes = first.shape[:2]
    node_mask = _check_mask("node_mask", tensors.get("node_mask"), (batch, nodes), first.device)
    edge_index, edge_mask = _check_edges(config, tensors, batch, first.device)
    if first.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_values(config, node_mask, edge_index, edge_mask)
    edge_index = edge_index.masked_fill(~edge_mask.unsqueeze(1), 0)
    fields: dict[str, Field] = {}
    for field, representation in config.input_representations.items():
        if field == "node_features":
            fields[field] = _encode(config, field, tensors, node_mask, representation.num_channels, dtype)
        elif field == "edge_features" and config.edge_categories:
            values, channels = _edge_entries(config.edge_categories, tensors, edge_mask, dtype)
            fields[field] = EdgeField(edge_index, values, channels=channels)
        elif field == "edge_features":
            fields[field] = EdgeField(edge_index, _encode(config, field, tensors, edge_mask, representation.num_channels, dtype))
        elif field == "pair_features":
            fields[field] = _pair_features(config, dtype, tensors, node_mask)
        else:
            width = representation.width(get_group(config.group).dimension)
            fields[field] = _check_numbers(field, tensors.get(field), (*node_mask.shape, width), node_mask, dtype, config.inputs)
    return Batch(fields, node_mask, edge_index, edge_mask, tensors.get("frame_ranks"), _coarsest_type(tensors))


def main_input(config: LPSConfig) -> str:
    """Batch key of the input that a Trainer counts, and hands on to metrics.

    It is in every batch, and batches of graphs differ along its second axis only, so that a Trainer can join them. That is not so
    for `edge_index`, and features of one channel may be missing.

    Args:
        config: Says which fields there are.

    Returns:
        `str`: An argument of `LPSModel.forward`.
    """
    fields = config.input_representations
    if "pixel_values" in fields:
        return "pixel_values"
    if "positions" in fields or "pair_features" in fields:
        return "positions"
    for name, categories in (("node_features", config.node_categories), ("edge_features", config.edge_categories)):
        if name in fields and categories:
            return name.replace("features", "categories")
        if name in fields and fields[name].num_channels > 1:
            return name
    return next((name for name in ("velocities", "charges") if name in fields), "node_mask")


def _refuse_unread(config: LPSConfig, tensors: Mapping[str, Tensor | None]) -> None:
    """Refuse a field that the model would ignore: its answer would not depend on what the user believes it does."""
    read = set(config.inputs) | ({"charges", "positions"} if "pair_features" in config.inputs else set())
    for name in (*NODE_KEYS, "edge_categories", "edge_features", "pixel_values"):
        field = name.replace("categories", "features")
        if tensors.get(name) is not None and field not in read:
            raise ValueError(f"{name}: this model has the inputs {', '.join(config.inputs)}, so expected None.")


def _first_node_tensor(config: LPSConfig, tensors: Mapping[str, Tensor | None]) -> Tensor:
    """A tensor that tells the numbers of graphs and nodes."""
    wanted = [name for name in config.inputs if name in NODE_KEYS]
    if "node_features" in wanted and config.node_categories:
        wanted[wanted.index("node_features")] = "node_categories"
    name = next((name for name in [*wanted, "positions", "node_mask"] if tensors.get(name) is not None), None)
    if name is None:
        missing = wanted[0] if wanted else "node_mask"
        raise ValueError(f"{missing}: expected a tensor of shape (batch, nodes, ...), got None. LPSProcessor makes it from rows.")
    first = tensors[name]
    assert first is not None
    if first.dim() < 2:
        raise ValueError(f"{name}: expected shape (batch, nodes, ...), got {tuple(first.shape)}. Put graphs in a batch.")
    if 0 in first.shape[:2]:
        raise ValueError(f"{name}: expected at least one graph and one node, got shape {tuple(first.shape)}.")
    return first


def _check_edges(
    config: LPSConfig, tensors: Mapping[str, Tensor | None], batch: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    edge_index = tensors.get("edge_index")
    if edge_index is None and "edge_features" not in config.inputs:
        edge_index = torch.zeros(batch, 2, 0, dtype=torch.int64, device=device)
    if edge_index is None or edge_index.dim() != 3 or edge_index.shape[:2] != (batch, 2):
        got = None if edge_index is None else tuple(edge_index.shape)
        raise ValueError(f"edge_index: expected shape ({batch}, 2, edges), got {got}.")
    if edge_index.dtype != torch.int64:
        raise TypeError(f"edge_index: expected int64, got {edge_index.dtype}. Call .long().")
    edge_mask = _check_mask("edge_mask", tensors.get("edge_mask"), (batch, edge_index.shape[2]), edge_index.device)
    return edge_index, edge_mask


def _encode_images(config: LPSConfig, dtype: torch.dtype, pixel_values: Tensor | None) -> Batch:
    channels = config.input_representations["pixel_values"].num_channels
    if pixel_values is None or pixel_values.dim() != 4 or pixel_values.shape[1] != channels or 0 in pixel_values.shape:
        got = None if pixel_values is None else tuple(pixel_values.shape)
        raise ValueError(f"pixel_values: expected shape (batch, {channels}, height, width), got {got}.")
    if not pixel_values.is_floating_point():
        raise TypeError(f"pixel_values: expected floating point numbers, got {pixel_values.dtype}. LPSProcessor makes them.")
    check_finite("pixel_values", pixel_values)
    batch, device = pixel_values.shape[0], pixel_values.device
    no_nodes = torch.ones(batch, 0, dtype=torch.bool, device=device)
    no_edges = torch.zeros(batch, 2, 0, dtype=torch.int64, device=device)
    fields: dict[str, Field] = {"pixel_values": pixel_values.to(dtype)}
    return Batch(fields, no_nodes, no_edges, no_nodes, precision=pixel_values.dtype)


def _coarsest_type(tensors: Mapping[str, Tensor | None]) -> torch.dtype:
    """The type in which numbers were rounded most; categories are exact."""
    types = {tensor.dtype for tensor in tensors.values() if tensor is not None and tensor.is_floating_point()}
    return max(types, key=lambda one: torch.finfo(one).eps, default=torch.float64)


def _pair_features(config: LPSConfig, dtype: torch.dtype, tensors: Mapping[str, Tensor | None], mask: Tensor) -> Tensor:
    """Charge product and squared distance of every two nodes, (batch, nodes, nodes, 2), or the distance alone; zero diagonal."""
    channels = config.input_representations["pair_features"].num_channels
    dimension = get_group(config.group).dimension
    positions = _check_numbers("positions", tensors.get("positions"), (*mask.shape, dimension), mask, dtype, config.inputs)
    pairs = [(positions.unsqueeze(1) - positions.unsqueeze(2)).square().sum(dim=-1)]
    if channels == 2:
        charges = _check_numbers("charges", tensors.get("charges"), (*mask.shape, 1), mask, dtype, config.inputs)
        pairs.insert(0, charges * charges.mT)
    different = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    valid = different & mask.unsqueeze(1) & mask.unsqueeze(2)
    return torch.stack(pairs, dim=-1).masked_fill(~valid.unsqueeze(-1), 0.0)


def _check_numbers(
    name: str,
    tensor: Tensor | None,
    shape: tuple[int | None, ...],
    mask: Tensor,
    dtype: torch.dtype,
    inputs: Iterable[str] = (),
) -> Tensor:
    """A field of real numbers, checked, zero on padding."""
    if tensor is None or tuple(tensor.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {None if tensor is None else tuple(tensor.shape)}.")
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: expected floating point numbers, got {tensor.dtype}. Call .float().")
    check_finite(name, tensor, mask, largest_number(name, inputs))
    return tensor.to(dtype).masked_fill(~mask.unsqueeze(-1), 0.0)


def check_finite(name: str, tensor: Tensor, mask: Tensor | None = None, largest: float = LARGEST) -> None:
    """Refuse numbers that are not finite, or that overflow where networks square them; on the CPU, where looking is free.

    Args:
        name: The argument.
        tensor (`torch.Tensor` of shape `(batch, ...)`): Real or complex numbers.
        mask (`torch.Tensor` of shape `(batch, nodes)` or `(batch, edges)`): True where they count; `None` for everywhere.
        largest: How large they may be.

    Raises:
        ValueError: Naming the argument and the row.
    """
    if tensor.device.type != "cpu" or torch.compiler.is_compiling() or not tensor.numel():
        return
    sizes = tensor.detach().abs()
    if mask is not None:
        sizes = sizes.masked_fill(~mask.view(*mask.shape, *(1,) * (sizes.dim() - mask.dim())), 0.0)
    size = sizes.flatten(1).amax(dim=1)
    if bool((size <= largest).all()):  # NaN is no number that is at most another
        return
    row = int((~(size <= largest)).int().argmax())
    if not math.isfinite(size[row]):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity in row {row}. Clean or impute the data.")
    raise ValueError(too_large(f"{name}: row {row}", float(size[row]), largest))


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
    config: LPSConfig, field: str, tensors: Mapping[str, Tensor | None], mask: Tensor, channels: int, dtype: torch.dtype
) -> Tensor:
    """One field as real numbers, (batch, nodes or edges, channels), zero on padding."""
    category_key = field.replace("features", "categories")
    sizes, features = getattr(config, category_key), tensors.get(field)
    if sizes:
        categories = _check_category_tensor(category_key, tensors, sizes, mask)
        # A comparison and not torch's one_hot, which reads the values and so makes an accelerator wait.
        columns = [
            column.unsqueeze(-1) == torch.arange(size, device=mask.device)
            for column, size in zip(categories.unbind(-1), sizes, strict=True)
        ]
        encoded = torch.cat(columns, dim=-1).to(dtype)
    else:
        _refuse_other(category_key, tensors.get(category_key), category_key, sizes)
        if features is None and channels != 1:
            raise ValueError(f"{field}: expected shape {(*mask.shape, channels)}, got None.")
        if features is None:
            encoded = torch.ones(*mask.shape, 1, dtype=dtype, device=mask.device)
        else:
            encoded = _check_numbers(field, features, (*mask.shape, channels), mask, dtype)
    return encoded.masked_fill(~mask.unsqueeze(-1), 0.0)


def _edge_entries(
    sizes: list[int], tensors: Mapping[str, Tensor | None], mask: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The ones of one-hot edges, (batch, edges, 1 + features), zero on padding, and their channels; the first says: an edge."""
    categories = _check_category_tensor("edge_categories", tensors, sizes, mask)
    firsts = accumulate([1, *sizes[:-1]])
    channels = torch.stack([column + first for column, first in zip(categories.unbind(-1), firsts, strict=True)], dim=-1)
    channels = F.pad(channels, (1, 0))
    return mask.unsqueeze(-1).expand(channels.shape).to(dtype), channels


def _check_category_tensor(name: str, tensors: Mapping[str, Tensor | None], sizes: list[int], mask: Tensor) -> Tensor:
    """Categories, checked, zero on padding."""
    field = name.replace("categories", "features")
    _refuse_other(field, tensors.get(field), name, sizes)
    categories = tensors.get(name)
    if categories is None or tuple(categories.shape) != (*mask.shape, len(sizes)):
        got = None if categories is None else tuple(categories.shape)
        raise ValueError(f"{name}: expected shape {(*mask.shape, len(sizes))}, got {got}.")
    if categories.dtype != torch.int64:
        raise TypeError(f"{name}: expected int64, got {categories.dtype}. Call .long().")
    categories = categories.masked_fill(~mask.unsqueeze(-1), 0)
    if categories.device.type == "cpu" and not torch.compiler.is_compiling():
        check_categories(name, categories, sizes)
    return categories


def _refuse_other(name: str, tensor: Tensor | None, category_key: str, sizes: list[int] | None) -> None:
    """Refuse real features where the model has categories, and categories where it has none."""
    if tensor is not None:
        raise ValueError(f"{name}: this model has {category_key}={sizes} in its config, so expected None.")


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
