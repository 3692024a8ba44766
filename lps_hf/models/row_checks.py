"""Checks of the structure and features of a row: arrays of it, or which row and key, what was expected, what was given."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Networks square what they read, and single precision ends at 3e38; sums and weights need room too.
LARGEST = 1e15
# Pair features are squares and products already.
LARGEST_FACTOR = 1e9


class FeatureSpec(NamedTuple):
    """What a model reads of nodes or of edges."""

    row_key: str
    categories_key: str
    """Batch key of categories."""
    features_key: str
    """Batch key of real numbers."""
    categories: Sequence[int] | None
    """Size of each category; `None` for real numbers."""
    channels: int | None
    """Real numbers per node or edge; one may be missing, as the model then puts a constant. `None` for none at all."""


def as_array(value: Any, where: str) -> np.ndarray:
    """Numbers in any form as an array.

    Args:
        value: A number, nested lists, an array or a CPU tensor.
        where: Row and key, for messages.

    Returns:
        `np.ndarray` of whole, truth or floating point numbers.

    Raises:
        ValueError: If lists are ragged, or numbers are masked.
        TypeError: If there is something else than numbers.
    """
    if type(value) is not np.ndarray and hides_numbers(value):
        raise ValueError(f"{where}: expected numbers, got a masked array in which some are missing. Fill or remove them.")
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()  # tables of pandas keep numbers, and arrays of them, as objects
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{where}: expected lists of equal length, got ragged ones.") from error
    except (RuntimeError, TypeError) as error:  # a tensor on a GPU, or one with a gradient
        raise TypeError(f"{where}: expected numbers, got what is no array: {error}") from error
    if array.dtype.kind == "O":
        others = [type(item).__name__ for item in array.flat if not isinstance(item, int | float)]
        got = others[0].removesuffix("Type") if others else "whole numbers beyond 64 bits"
        raise TypeError(f"{where}: expected numbers, got {got}.")
    if array.dtype.kind not in "iubf":
        raise TypeError(f"{where}: expected numbers, got {array.dtype}.")
    return array


def hides_numbers(value: Any) -> bool:
    """Whether it is a masked array of numpy, or a list of them, in which numbers are missing: `np.asarray` shows these."""
    if type(value) in (list, tuple):
        # The first one tells: rows of a masked array are all masked arrays, and this is asked of every list.
        return len(value) > 0 and isinstance(value[0], np.ma.MaskedArray) and any(map(np.ma.is_masked, value))
    return isinstance(value, np.ma.MaskedArray) and bool(np.ma.is_masked(value))


def as_float32(array: np.ndarray) -> np.ndarray:
    """The array as float32; a number too large becomes infinity, without a warning."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def largest_number(key: str, inputs: Iterable[str]) -> float:
    """How large the numbers of a key may be, so that no network overflows.

    Args:
        key: A key of a row or batch.
        inputs: The model's input fields.
    """
    return LARGEST_FACTOR if key in ("positions", "charges") and "pair_features" in inputs else LARGEST


def as_finite_float32(array: np.ndarray, where: str, largest: float = LARGEST) -> np.ndarray:
    """The array as float32.

    Args:
        array: Numbers.
        where: Row and key, for messages.
        largest: How large they may be; see `largest_number`.

    Raises:
        ValueError: If a number is not finite in float32, or larger.
    """
    array = as_float32(array)
    size = np.abs(array).max(initial=0.0)
    if not np.isfinite(size):
        raise ValueError(f"{where}: expected finite float32 numbers, got NaN, infinity or larger ones.")
    if size > largest:
        raise ValueError(too_large(where, size, largest))
    return array


def too_large(where: str, size: float, largest: float) -> str:
    """What is said of numbers that are finite and would overflow."""
    return (
        f"{where}: expected numbers of at most {largest:g} in size, got {size:g}, which overflows where networks square it. "
        "Check the data, or give it in another unit."
    )


def require(row: Mapping[str, Any], key: str, where: str) -> Any:
    """The value of a key that has to be there.

    Raises:
        ValueError: If it is missing or `None`.
    """
    value = row.get(key)
    if value is None:
        # Data sets put None where a row has nothing, so that the key is there all the same.
        got = f"{key}=None beside" if key in row else "only"
        raise ValueError(f"{where}: expected the key {key!r}, got {got} {present_keys(row)}.")
    return value


def present_keys(row: Mapping[str, Any]) -> list[str]:
    """The keys that hold something, for messages."""
    return sorted(str(key) for key, value in row.items() if value is not None)


def check_mapping(row: Any, where: str, keys: str) -> None:
    """Refuse a row that is no dictionary.

    Raises:
        TypeError: Naming the keys that it needs.
    """
    if not isinstance(row, (dict, Mapping)):  # the check of a dict is faster
        raise TypeError(
            f"{where}: expected a dictionary with {keys}, got {type(row).__name__}. Tables, graphs of libraries, SMILES strings "
            "and pictures become such rows by lps_hf.data.to_rows."
        )


def check_graph(row: Mapping[str, Any], where: str, max_nodes: int) -> dict[str, Any]:
    """Check the structure of a graph.

    Args:
        row: With `edge_index`, and `num_nodes` or `node_feat`.
        where: Which row, for messages.
        max_nodes: Largest graph allowed.

    Returns:
        `edge_index` (2, edges) int64 and `num_nodes`.

    Raises:
        ValueError: If there is no such graph.
        TypeError: If a value has the wrong type.
    """
    check_mapping(row, where, "'edge_index' and 'num_nodes'")
    edge_index = _check_index(row, "edge_index", where)
    num_nodes = row.get("num_nodes")
    if num_nodes is None:
        if row.get("node_feat") is None:
            raise ValueError(
                f"{where}: expected the key 'num_nodes' or 'node_feat', got only {present_keys(row)}. If a Trainer dropped it, "
                "set remove_unused_columns=False."
            )
        num_nodes = len(np.atleast_1d(as_array(row["node_feat"], f"{where}: node_feat")))
    count = _check_count(num_nodes, f"{where}: num_nodes", max_nodes)
    _check_ends(edge_index, count, f"{where}: edge_index")
    return {"edge_index": edge_index, "num_nodes": count}


def check_index(row: Mapping[str, Any], key: str, where: str, num_nodes: int) -> np.ndarray:
    """Check two lists of node numbers, as edges and pairs to score are.

    Args:
        row: The row.
        key: Their key.
        where: Which row, for messages.
        num_nodes: Number of nodes.

    Returns:
        `np.ndarray` of shape `(2, edges)` int64.

    Raises:
        ValueError: If the key is missing, the shape is wrong, or there is no such node.
        TypeError: If there is something else than whole numbers.
    """
    index = _check_index(row, key, where)
    _check_ends(index, num_nodes, f"{where}: {key}")
    return index


def check_points(
    row: Mapping[str, Any], where: str, widths: Mapping[str, int], max_nodes: int, inputs: Iterable[str] = ()
) -> dict[str, Any]:
    """Check what a system of points has per node: positions, velocities, charges.

    Args:
        row: The row.
        where: Which row, for messages.
        widths: How many numbers each of these keys has per node. With one number, a plain list will do.
        max_nodes: Largest system allowed.
        inputs: The model's input fields, which say how large numbers may be.

    Returns:
        The keys (num_nodes, width) float32 and `num_nodes`.

    Raises:
        ValueError: If a key is missing, has the wrong shape or a number that is not finite, or there are no or too many nodes.
        TypeError: If there is something else than numbers.
    """
    check_mapping(row, where, " and ".join(map(repr, widths)))
    checked: dict[str, Any] = {}
    # Who says how many nodes there are: the row itself where it does, otherwise its first field.
    counted_by, num_nodes = "num_nodes", None
    if row.get("num_nodes") is not None:
        num_nodes = _check_count(row["num_nodes"], f"{where}: num_nodes", max_nodes)
    for key, width in widths.items():
        place = f"{where}: {key}"
        array = as_array(require(row, key, where), place)
        if num_nodes is None:
            counted_by, num_nodes = key, _check_count(len(array) if array.ndim else 0, place, max_nodes, " nodes")
        if width == 1 and array.ndim == 1:
            array = array[:, None]
        if array.shape != (num_nodes, width):
            raise ValueError(
                f"{place}: expected shape {(num_nodes, width)}, {num_nodes} nodes as {counted_by} says with {width} "
                f"number{'s' * (width > 1)} each, got {array.shape}."
            )
        checked[key] = as_finite_float32(array, place, largest_number(key, inputs))
    return {"num_nodes": num_nodes, **checked}


def check_features(row: Mapping[str, Any], where: str, spec: FeatureSpec, count: int) -> dict[str, np.ndarray]:
    """Check the features of nodes or of edges.

    Args:
        row: The row.
        where: Which row, for messages.
        spec: What the model reads.
        count: Number of nodes or edges.

    Returns:
        Nothing where the model puts a constant; otherwise the batch key and its array, (count, features) int64 or (count,
        channels) float32.

    Raises:
        ValueError: If features are missing, not read by the model, out of range or of the wrong shape. Plain lists of numbers
            will do for one feature, and a one-hot encoding for categories.
        TypeError: If they have the wrong type.
    """
    row_key, categories_key, features_key, categories, channels = spec
    place, given = f"{where}: {row_key}", row.get(row_key)
    if given is None and not categories and channels in (None, 1):
        return {}
    # A graph without edges may leave their features out.
    array = as_array([] if given is None and not count else require(row, row_key, where), place)
    # One channel is the constant that the model puts where a data set has no features, or one real number.
    constant = channels is None or (channels == 1 and (array.size == 0 or array.dtype.kind != "f"))
    if not categories and constant:
        if array.size and not (row_key == "node_feat" and _is_constant(array)):
            kind = "features" if channels is None else "categories"
            raise ValueError(
                f"{place}: this model reads no such {kind}. Remove the column, or build the model with {categories_key}."
                f"{_molecule_hint(row, row_key)}"
            )
        return {}
    width = len(categories) if categories else int(channels or 0)
    if array.size == 0 and count == 0:
        # A graph without edges has an empty list of features, whose width cannot be seen.
        array = array.reshape(0, width)
    elif array.ndim == 1 and width == 1:
        array = array[:, None]
    elif categories and array.shape == (count, sum(categories)) and sum(categories) != width:
        array = _from_one_hot(array, categories, place)
    if array.shape != (count, width):
        raise ValueError(f"{place}: expected shape {(count, width)}, got {array.shape}.")
    if categories:
        return {categories_key: _check_categories(array, categories, place)}
    return {features_key: as_finite_float32(array, place)}


def _check_index(row: Mapping[str, Any], key: str, where: str) -> np.ndarray:
    index = as_array(require(row, key, where), f"{where}: {key}")
    if index.shape == (0,):
        index = index.reshape(2, 0)
    if index.ndim != 2 or index.shape[0] != 2:
        raise ValueError(f"{where}: {key}: expected two lists of equal length, got shape {index.shape}.")
    if index.size and index.dtype.kind not in "iu":
        raise TypeError(f"{where}: {key}: expected whole numbers, got {index.dtype}.")
    return np.ascontiguousarray(index, dtype=np.int64)


def _check_ends(index: np.ndarray, num_nodes: int, where: str) -> None:
    if index.size and (index.min() < 0 or index.max() >= num_nodes):
        raise ValueError(
            f"{where}: expected node numbers 0 to {num_nodes - 1} (num_nodes is {num_nodes}), got {index.min()} to {index.max()}."
        )


def _check_count(given: Any, where: str, max_nodes: int, noun: str = "") -> int:
    """A number of nodes; `noun` follows it in messages where the key does not say what is counted."""
    if type(given) is not int:  # as it nearly always is, and then there is nothing to check
        count = as_array(given, where)
        if count.ndim or count.dtype.kind == "b" or not np.isfinite(count) or count != count.round():
            raise TypeError(f"{where}: expected a whole number, got {given!r}.")
    num_nodes = int(given)
    if num_nodes < 1:
        raise ValueError(f"{where}: expected at least 1{noun.removesuffix('s')}, got {num_nodes}.")
    if num_nodes > max_nodes:
        raise ValueError(
            f"{where}: expected at most max_nodes={max_nodes}{noun}, got {num_nodes}. Leave the graph out, or "
            "build the model with a larger max_nodes."
        )
    return num_nodes


def _check_categories(array: np.ndarray, sizes: Sequence[int], where: str) -> np.ndarray:
    if array.size and array.dtype.kind not in "iub":
        raise TypeError(f"{where}: expected whole numbers (categories), got {array.dtype}. Make them int64.")
    array = array.astype(np.int64)
    wrong = (array < 0) | (array >= np.array(sizes))
    if wrong.any():
        place, feature = np.argwhere(wrong)[0]
        raise ValueError(
            f"{where}: feature {feature} has categories 0 to {sizes[feature] - 1}, got {array[place, feature]} at place "
            f"{place}. Check the data, or build the model with more categories."
        )
    return array


def _molecule_hint(row: Mapping[str, Any], row_key: str) -> str:
    """Where the features of molecules come from, which nobody has put into the row."""
    name = {"node_feat": "MOLECULE_NODE_CATEGORIES", "edge_attr": "MOLECULE_EDGE_CATEGORIES"}[row_key]
    return f" Those of the column 'smiles' are lps_hf.data.{name}." if row.get("smiles") is not None else ""


def _from_one_hot(array: np.ndarray, sizes: Sequence[int], where: str) -> np.ndarray:
    """The categories (rows, features) of their one-hot encoding (rows, sum of sizes), one feature after the other."""
    parts = np.split(array, np.cumsum(sizes)[:-1], axis=1)
    is_encoded = np.stack([((part == 0) | (part == 1)).all(axis=1) & (part.sum(axis=1) == 1) for part in parts], axis=1)
    if not is_encoded.all():
        place, feature = np.argwhere(~is_encoded)[0]
        raise ValueError(
            f"{where}: expected shape {(len(array), len(sizes))}, a category per feature, or their one-hot encoding, got shape "
            f"{array.shape} with {parts[feature][place].tolist()} for feature {feature} at place {place}, which is none."
        )
    return np.stack([part.argmax(axis=1) for part in parts], axis=1)


def _is_constant(node_feat: np.ndarray) -> bool:
    """Whether node features say nothing: data sets without any often hold one zero for every node."""
    return bool((node_feat == node_feat.flat[0]).all())
