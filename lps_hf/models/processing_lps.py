"""The processor: rows in the Hub's graph-row format to the model's batch."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from .configuration_lps import LPSConfig
from .frames import laplacian_frame_ranks

# Row key, batch key of categories, batch key of real numbers.
_NODE_KEYS = ("node_feat", "node_categories", "node_features")
_EDGE_KEYS = ("edge_attr", "edge_categories", "edge_features")


@lru_cache(maxsize=8192)
def _cached_frame_ranks(edge_bytes: bytes, num_nodes: int) -> np.ndarray:
    """The frame of a graph that has been seen before is not computed again; `add_frame` keeps it with larger data sets."""
    ranks = laplacian_frame_ranks(np.frombuffer(edge_bytes, dtype=np.int64).reshape(2, -1), num_nodes)
    ranks.flags.writeable = False
    return ranks


class LPSProcessor(ProcessorMixin):
    r"""Turns rows of a graph data set into the batch of `LPSModel` and its heads.

    A row is a dictionary: `edge_index` (two lists of node numbers), `num_nodes`, `node_feat` (one list per node), `edge_attr`
    (one list per edge) and, where known, the label `y`. Keys that say nothing of the graph itself (`smiles`, `id`, …) are left
    alone. Every row is checked, so that a model never sees an impossible graph. Labels become `labels`, which `LPSModel`, having
    no loss, does not take: pop them from its batch.

    Args:
        max_nodes (`int`): Largest graph that the model takes.
        node_categories (`list[int]`, *optional*): As in `LPSConfig`.
        edge_categories (`list[int]`, *optional*): As in `LPSConfig`.
        num_node_channels (`int`, *optional*): Number of real node features; `None` for none. With one channel rows may have real
            features or none at all: the model then puts its constant, as for a plain graph.
        num_edge_channels (`int`, *optional*): The same for edges.
        num_labels (`int`): Width of the output, for checking labels.
        problem_type (`str`, *optional*): As in `LPSConfig`; `None` infers it from the labels.
        frame (`bool`): Add `frame_ranks`, once per graph, for distribution `"frame"`.
    """

    # transformers' Trainer asks the tokenizer of every processor for its special tokens; a graph has none.
    tokenizer = SimpleNamespace(eos_token_id=None, bos_token_id=None, pad_token_id=None)

    def __init__(
        self,
        max_nodes: int = 64,
        node_categories: Sequence[int] | None = None,
        edge_categories: Sequence[int] | None = None,
        num_node_channels: int | None = None,
        num_edge_channels: int | None = None,
        num_labels: int = 2,
        problem_type: str | None = None,
        frame: bool = False,
    ) -> None:
        super().__init__()
        self.max_nodes = max_nodes
        self.node_categories = list(node_categories) if node_categories else None
        self.edge_categories = list(edge_categories) if edge_categories else None
        self.num_node_channels = num_node_channels
        self.num_edge_channels = num_edge_channels
        self.num_labels = num_labels
        self.problem_type = problem_type
        self.frame = frame

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read what was saved, as `ProcessorMixin.from_args_and_dict`, but do not take defaults for a file that is missing.

        Args:
            args: See there.
            processor_dict: The content of `processor_config.json`.
            kwargs: See there.

        Returns:
            The processor, or with `return_unused_kwargs=True` a tuple of it and the arguments it has no field for.

        Raises:
            OSError: If there was no such file.
        """
        if "max_nodes" not in processor_dict and "max_nodes" not in kwargs:
            raise OSError(
                "processor_config.json: expected the file of an LPSProcessor, found none. Save it beside the model with "
                "processor.save_pretrained, or make it with LPSProcessor.from_config(model.config)."
            )
        return super().from_args_and_dict(args, processor_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The settings, without the code that a loaded checkpoint came with: a plain save does not copy it."""
        settings = super().to_dict()
        if self._auto_class is None:
            settings.pop("auto_map", None)
        return settings

    @classmethod
    def from_config(cls, config: LPSConfig) -> "LPSProcessor":
        """Make the processor that fits a model."""
        channels = {name: representation.num_channels for name, representation in config.input_representations.items()}
        return cls(
            max_nodes=config.max_nodes,
            node_categories=config.node_categories,
            edge_categories=config.edge_categories,
            num_node_channels=None if config.node_categories else channels.get("node_features"),
            num_edge_channels=None if config.edge_categories else channels.get("edge_features"),
            num_labels=config.num_labels,
            problem_type=config.problem_type,
            frame=config.distribution == "frame",
        )

    @property
    def model_input_names(self) -> list[str]:
        """The keys that a batch can have, without labels."""
        names = ["edge_index", "node_mask", "edge_mask"]
        for (_, categories_key, features_key), categories, channels in self._feature_kinds():
            names += [categories_key] if categories else [features_key] if channels else []
        return names + (["frame_ranks"] if self.frame else [])

    def _feature_kinds(self) -> list[tuple[tuple[str, str, str], list[int] | None, int | None]]:
        return [
            (_NODE_KEYS, self.node_categories, self.num_node_channels),
            (_EDGE_KEYS, self.edge_categories, self.num_edge_channels),
        ]

    def __call__(
        self,
        rows: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        return_tensors: str | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> BatchFeature:
        """Check rows and pad them to one batch.

        Args:
            rows: A list of rows, one row, or a dictionary of columns as data sets give them.
            return_tensors: `"pt"` for tensors, `"np"` or `None` for arrays.
            pad_to_multiple_of: Round the numbers of nodes and edges of the batch up, to compile few shapes.

        Returns:
            `BatchFeature` with the keys of `model_input_names`, and `labels` where every row has `y`.

        Raises:
            ValueError: If a row is impossible: says which row and key, what was expected, what was given.
            TypeError: If a row has the wrong type.
        """
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ValueError(f"pad_to_multiple_of: expected at least 1, got {pad_to_multiple_of}.")
        checked = [self._check_row(row, f"row {number}") for number, row in enumerate(_as_rows(rows))]
        if not checked:
            raise ValueError("rows: expected at least one graph, got an empty batch.")
        multiple = pad_to_multiple_of or 1
        batch: dict[str, np.ndarray] = {}
        sizes = np.array([row["num_nodes"] for row in checked])
        num_edges = np.array([row["edge_index"].shape[1] for row in checked])
        nodes, edges = (-(-int(count.max()) // multiple) * multiple for count in (sizes, num_edges))
        batch["edge_index"] = _pad([row["edge_index"].T for row in checked], edges).transpose(0, 2, 1)
        batch["node_mask"] = np.arange(nodes) < sizes[:, None]
        batch["edge_mask"] = np.arange(edges) < num_edges[:, None]
        for key, length in (
            ("node_categories", nodes),
            ("node_features", nodes),
            ("edge_categories", edges),
            ("edge_features", edges),
            ("frame_ranks", nodes),
        ):
            if any(key in row for row in checked):
                batch[key] = _pad([_feature_of(row, key, number) for number, row in enumerate(checked)], length)
        labelled = ["labels" in row for row in checked]
        if all(labelled):
            batch["labels"] = np.stack([row["labels"] for row in checked])
        elif any(labelled):
            raise ValueError(f"row {labelled.index(False)}: expected a label 'y' as the other rows have, got none.")
        return BatchFeature({key: np.ascontiguousarray(array) for key, array in batch.items()}, return_tensors)

    def add_frame(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Add the column `frame_ranks` to a row, for `dataset.map`: the frame is then stored with the data."""
        checked = self._check_graph(row, "row")
        return {**row, "frame_ranks": laplacian_frame_ranks(checked["edge_index"], checked["num_nodes"]).tolist()}

    def _check_row(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        checked = self._check_graph(row, where)
        counts = {"node_feat": checked["num_nodes"], "edge_attr": checked["edge_index"].shape[1]}
        for (row_key, categories_key, features_key), categories, channels in self._feature_kinds():
            place, given = f"{where}: {row_key}", row.get(row_key)
            if given is None and not categories and channels in (None, 1):
                continue
            if given is None:
                raise ValueError(f"{where}: expected the key {row_key!r}, got only {sorted(row)}.")
            array = _as_array(given, place)
            # One channel is the constant that the model puts where a data set has no features, or one real number.
            constant = channels is None or (channels == 1 and (array.size == 0 or array.dtype.kind != "f"))
            if not categories and constant:
                if array.size and not (row_key == "node_feat" and _is_constant(array)):
                    kind = "features" if channels is None else "categories"
                    raise ValueError(
                        f"{place}: this model reads no such {kind}. Remove the column, or build the model with {categories_key}."
                    )
                continue
            width = len(categories) if categories else channels
            # A graph without edges has an empty list of features, whose width cannot be seen.
            array = array.reshape(0, width) if array.size == 0 and counts[row_key] == 0 else array
            if array.shape != (counts[row_key], width):
                raise ValueError(f"{place}: expected shape {(counts[row_key], width)}, got {array.shape}.")
            if categories:
                checked[categories_key] = self._check_categories(array, categories, place)
            else:
                checked[features_key] = _as_float32(array)
                if not np.isfinite(checked[features_key]).all():
                    raise ValueError(f"{place}: expected finite float32 numbers, got NaN, infinity or larger ones.")
        if self.frame:
            ranks = row.get("frame_ranks")
            if ranks is None:
                ranks = _cached_frame_ranks(checked["edge_index"].tobytes(), checked["num_nodes"])
            ranks = _as_array(ranks, f"{where}: frame_ranks")
            if ranks.dtype.kind not in "iu":
                raise TypeError(f"{where}: frame_ranks: expected whole numbers, got {ranks.dtype}. Make them with add_frame.")
            checked["frame_ranks"] = ranks.astype(np.int64)
            if checked["frame_ranks"].shape != (checked["num_nodes"],):
                got = checked["frame_ranks"].shape
                raise ValueError(f"{where}: frame_ranks: expected shape ({checked['num_nodes']},), got {got}.")
        if row.get("y") is not None:
            checked["labels"] = self._check_label(row["y"], f"{where}: y")
        return checked

    def _check_graph(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        if not isinstance(row, Mapping):
            raise TypeError(f"{where}: expected a dictionary with 'edge_index' and 'num_nodes', got {type(row).__name__}.")
        if row.get("edge_index") is None:
            raise ValueError(f"{where}: expected the key 'edge_index', got only {sorted(row)}.")
        edge_index = _as_array(row["edge_index"], f"{where}: edge_index")
        if edge_index.shape == (0,):
            edge_index = edge_index.reshape(2, 0)
        if edge_index.ndim != 2 or edge_index.shape[0] != 2:
            raise ValueError(f"{where}: edge_index: expected two lists of equal length, got shape {edge_index.shape}.")
        if edge_index.size and edge_index.dtype.kind not in "iu":
            raise TypeError(f"{where}: edge_index: expected whole numbers, got {edge_index.dtype}.")
        edge_index = np.ascontiguousarray(edge_index, dtype=np.int64)
        num_nodes = row.get("num_nodes")
        if num_nodes is None:
            if row.get("node_feat") is None:
                raise ValueError(
                    f"{where}: expected the key 'num_nodes' or 'node_feat', got only {sorted(row)}. If a Trainer dropped it, set "
                    "remove_unused_columns=False."
                )
            num_nodes = len(np.atleast_1d(_as_array(row["node_feat"], f"{where}: node_feat")))
        count = _as_array(num_nodes, f"{where}: num_nodes")
        if count.ndim or count.dtype.kind == "b" or not np.isfinite(count) or count != count.round():
            raise TypeError(f"{where}: num_nodes: expected a whole number, got {num_nodes!r}.")
        num_nodes = int(count)
        if num_nodes < 1:
            raise ValueError(f"{where}: num_nodes: expected at least 1, got {num_nodes}.")
        if num_nodes > self.max_nodes:
            raise ValueError(
                f"{where}: num_nodes: expected at most max_nodes={self.max_nodes}, got {num_nodes}. Leave the graph out, or "
                "build the model with a larger max_nodes."
            )
        if edge_index.size and (edge_index.min() < 0 or edge_index.max() >= num_nodes):
            raise ValueError(
                f"{where}: edge_index: expected node numbers 0 to {num_nodes - 1} (num_nodes is {num_nodes}), got "
                f"{edge_index.min()} to {edge_index.max()}."
            )
        return {"edge_index": edge_index, "num_nodes": num_nodes}

    @staticmethod
    def _check_categories(array: np.ndarray, sizes: list[int], where: str) -> np.ndarray:
        if array.size and array.dtype.kind not in "iub":
            raise TypeError(f"{where}: expected whole numbers (categories), got {array.dtype}.")
        array = array.astype(np.int64)
        wrong = (array < 0) | (array >= np.array(sizes))
        if wrong.any():
            place, feature = np.argwhere(wrong)[0]
            raise ValueError(
                f"{where}: feature {feature} has categories 0 to {sizes[feature] - 1}, got {array[place, feature]} at place "
                f"{place}. Check the data, or build the model with more categories."
            )
        return array

    def _check_label(self, label: Any, where: str) -> np.ndarray:
        values = np.atleast_1d(np.asarray(label, dtype=object))
        # Data sets made with PyG keep the labels of a graph as a matrix of one row.
        values = values[0] if values.ndim == 2 and len(values) == 1 else values
        array = _as_array([np.nan if value is None else value for value in values], where)
        several = self.problem_type in ("multi_label_classification", "regression") or (
            self.problem_type is None and (self.num_labels == 1 or array.dtype.kind == "f")
        )
        expected = self.num_labels if several else 1
        if array.shape != (expected,):
            kind = self.problem_type or "this model; problem_type in its config is not set"
            raise ValueError(f"{where}: expected {expected} number(s) for {kind}, got shape {array.shape}.")
        if several:
            array = _as_float32(array)
            if np.isinf(array).any():
                raise ValueError(f"{where}: expected finite float32 numbers, or NaN for missing, got infinity or larger ones.")
            known = array[~np.isnan(array)]
            if self.problem_type == "multi_label_classification" and not np.isin(known, (0, 1)).all():
                raise ValueError(f"{where}: expected 0, 1 or NaN for missing, got {known.tolist()}.")
            return array
        number = -100.0 if np.isnan(array[0]) else float(array[0])
        if not number.is_integer():
            raise TypeError(f"{where}: expected a class number, got {label!r}.")
        if not (0 <= number < self.num_labels or number == -100):
            raise ValueError(f"{where}: expected 0 to {self.num_labels - 1}, or -100 for missing, got {int(number)}.")
        return np.array(int(number), dtype=np.int64)


def _as_rows(rows: Any) -> list[Mapping[str, Any]]:
    """One row, a list of rows or a dictionary of columns, as a list of rows."""
    if not isinstance(rows, Mapping):
        if not isinstance(rows, Iterable):
            raise TypeError(f"rows: expected a list of rows, one row or a dictionary of columns, got {type(rows).__name__}.")
        return list(rows)
    given = rows.get("num_nodes") is not None
    is_one_row = np.ndim(rows["num_nodes"]) == 0 if given else _depth(rows.get("edge_index")) <= 2
    if is_one_row:
        return [rows]
    lengths = {key: len(values) if isinstance(values, Sized) else 0 for key, values in rows.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"rows: expected columns of one length, got {lengths}.")
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def _depth(value: Any) -> int:
    """Number of axes of nested lists, which may be ragged."""
    if hasattr(value, "ndim") and value.dtype != object:
        return value.ndim
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list | tuple | np.ndarray) else 0


def _as_array(value: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{where}: expected lists of equal length, got ragged ones.") from error
    if array.dtype.kind not in "iubf":
        raise TypeError(f"{where}: expected numbers, got {array.dtype}.")
    return array


def _as_float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a number too large becomes infinity, which the caller refuses
        return array.astype(np.float32)


def _is_constant(node_feat: np.ndarray) -> bool:
    """Whether node features say nothing: data sets without any often hold one zero for every node."""
    return bool((node_feat == node_feat.flat[0]).all())


def _feature_of(row: dict[str, Any], key: str, number: int) -> np.ndarray:
    """A feature that other rows of the batch have."""
    if key in row:
        return row[key]
    if key == "edge_features" and not row["edge_index"].size:
        return np.zeros((0, 1), dtype=np.float32)
    raise ValueError(f"row {number}: expected real features {key!r} as the other rows have, got none.")


def _pad(arrays: list[np.ndarray], length: int) -> np.ndarray:
    """Stack arrays (rows, ...) of different lengths with zeros at the end."""
    padded = np.zeros((len(arrays), length, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for target, array in zip(padded, arrays, strict=True):
        target[: len(array)] = array
    return padded
