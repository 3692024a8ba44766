"""The processor: rows of a data set, for every task, to the model's batch."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from os import PathLike
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info
from transformers import AutoImageProcessor, BatchFeature, ProcessorMixin

from .column_mapping import check_column_mapping, rename_columns
from .configuration_lps import LPSConfig, check_is_symmetrized
from .field_types import checked_value, field_types
from .frames import FRAMES, canonical_labelling_ranks, laplacian_frame_ranks
from .groups import get_group
from .push_verbs import PUSHERS, split_push_options
from .representations import Representation
from .row_batches import Padding, as_rows, pad_nodes, stack_images
from .row_checks import FeatureSpec, as_array, check_features, check_graph, check_index, check_points
from .row_images import check_image_row, check_pillow, make_image_processor, process_images
from .row_labels import LABEL_KEYS, LabelSpec, check_labels, is_missing, label_keys_in, label_kind
from .row_names import MASK_KEYS, OTHER_NAMES, other_names_in, unread_keys, with_known_names


@lru_cache(maxsize=8192)
def _cached_frame_ranks(frame: str, num_nodes: int, edges: bytes, node_colors: bytes, edge_colors: bytes) -> np.ndarray:
    """The frame of a graph that has been seen before is not computed again; `add_frame` keeps it with larger data sets."""
    edge_index = np.frombuffer(edges, dtype=np.int64).reshape(2, -1)
    if frame == "laplacian":
        ranks = laplacian_frame_ranks(edge_index, num_nodes)
    else:
        colors = (np.frombuffer(part, dtype=np.int64) if part else None for part in (node_colors, edge_colors))
        ranks = canonical_labelling_ranks(edge_index, num_nodes, *colors)
    ranks.flags.writeable = False
    return ranks


class LPSProcessor(ProcessorMixin):
    r"""Turns rows of a data set into the batch of `LPSModel` and its heads; `from_config` makes the one that fits a model.

    A row is a dictionary. What it has to hold follows from the model's inputs, and its label from the model's output:

    | inputs | keys of a row |
    | --- | --- |
    | node and edge features | `edge_index` (two lists of node numbers), `num_nodes`, `node_feat`, `edge_attr` (a list per edge) |
    | positions, velocities, charges | the same (d numbers per node, one for charges); the keys of graphs where they are read |
    | pixel_values | `image` (a picture or whole numbers, see `check_image_row`), or `pixel_values` |

    | output | label of a row | `labels` of the batch |
    | --- | --- | --- |
    | "c" | `y`, of an image `label` | one class (batch,) int64, or targets (batch, num_labels) float32 |
    | "n c", "n n c" | `y`: a class per node | (batch, nodes) int64, -100 on padding |
    | "n n 1" | `edge_label`: 0 or 1 for each pair of `edge_label_index` | (batch, pairs) float32, NaN on padding |
    | "n p", "n v" | `target_positions` (d numbers per node) | (batch, nodes, d) float32, NaN on padding |

    The other keys of the batch are those of `LPSModel.forward`, with zeros on padding; the pairs become `pair_index` (batch, 2,
    pairs). Every row is checked, so that a model never sees an impossible one. `LPSModel`, having no loss, takes neither `labels`
    nor `pair_index`: pop them from its batch.

    - Other names: `x`, `pos`, `vel` and `edge_weight` are read as `node_feat`, `positions`, `velocities` and `edge_attr` where
      these are not there, and labels under `y`, `label`, `labels` or `target`. Two labels that differ are refused.
    - A missing label is `None` or NaN, and for classes also -100. A row without the key is refused beside rows with labels.
    - Labels that are texts get the numbers that `label2id` has for them; of several labels, the list of those that hold.
    - Features may be plain lists where there is one of each node or edge, and categories one-hot encoded.
    - Labels of nodes with masks of splits (`train_mask`, …) are refused: `to_rows(data, split="train")` keeps those of one split.
    - What is not read is named in a warning, once per processor (in a `DataLoader` by its first worker): fields and labels of
      other tasks, real numbers, and lists of numbers. Texts and single whole numbers (`smiles`, `id`, …) are left alone.

    Args:
        max_nodes (`int`): Largest graph that the model takes.
        node_categories (`list[int]`, *optional*): As in `LPSConfig`.
        edge_categories (`list[int]`, *optional*): As in `LPSConfig`.
        num_node_channels (`int`, *optional*): Short for `inputs` with `"node_features"` of so many real numbers. With one channel
            rows may have real features or none at all: the model then puts its constant, as for a plain graph.
        num_edge_channels (`int`, *optional*): The same for edges.
        num_labels (`int`): Number of classes or targets, for checking labels.
        problem_type (`str`, *optional*): As in `LPSConfig`; `None` infers it from the labels.
        frame (`str`, *optional*): Add `frame_ranks`, once per graph, for distributions `"frame"` and `"exact"`; one of `FRAMES`,
            and `True` is `"laplacian"`.
        inputs (`dict[str, str]`, *optional*): As in `LPSConfig`. Default: graphs with the features named above.
        output (`str`, *optional*): As in `LPSConfig`.
        dimension (`int`): d, the number of coordinates of points and vectors.
        image_processor (image processor of transformers or its `dict`, *optional*): For images; the one that the classifier was
            pretrained with. It is saved with this one. `None` divides by 255 and does nothing else: no resizing, and the images
            of a batch must have one size.
        column_mapping (`dict[str, str]`, *optional*): By column of a data set the key of a row that it is, such as
            `{"target": "y"}`, as for `infer_config`. It is saved, and applied to every row.
        label2id (`dict[str, int]`, *optional*): As in `LPSConfig`: the number of each class, for labels that are texts.

    Raises:
        ValueError: If arguments contradict each other or are unknown.
        ImportError: If an image processor is given and Pillow is missing.
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
        frame: str | bool | None = None,
        inputs: Mapping[str, str] | None = None,
        output: str | None = None,
        dimension: int = 3,
        image_processor: Any = None,
        column_mapping: Mapping[str, str] | None = None,
        label2id: Mapping[str, int] | None = None,
    ) -> None:
        types, given = field_types(type(self).__init__), locals()
        for name in types:
            if name not in ("return", "column_mapping"):
                checked_value(name, given[name], types[name])
        super().__init__()
        self.column_mapping = check_column_mapping(column_mapping) or None
        self.max_nodes = max_nodes
        self.node_categories = list(node_categories) if node_categories else None
        self.edge_categories = list(edge_categories) if edge_categories else None
        self.num_labels = num_labels
        self.problem_type = problem_type
        self.label2id = {str(name): int(number) for name, number in label2id.items()} if label2id else None
        self.frame = {True: "laplacian", False: None}.get(frame, frame)
        if self.frame not in (None, *FRAMES):
            raise ValueError(f"frame: expected one of {', '.join(map(repr, FRAMES))} or None, got {frame!r}.")
        # Where no inputs are given, a model has edges among them.
        self._backbone_sees_edges = not inputs or "edge_features" in inputs
        if inputs is None:
            node_channels = sum(self.node_categories) if self.node_categories else num_node_channels
            edge_channels = 1 + sum(self.edge_categories) if self.edge_categories else num_edge_channels
            nodes = {"node_features": f"n {node_channels}"} if node_channels else {}
            inputs = {**nodes, **({"edge_features": f"n n {edge_channels}"} if edge_channels else {})}
        elif num_node_channels or num_edge_channels:
            raise ValueError(
                "num_node_channels, num_edge_channels: expected None beside inputs, which tell the numbers of channels."
            )
        self.inputs = dict(inputs)
        self.output = output
        self.dimension = dimension
        self.image_processor = make_image_processor(image_processor) if isinstance(image_processor, Mapping) else image_processor
        self._derive_specs()
        if image_processor is not None and self._image_channels is None:
            raise ValueError(f"image_processor: expected None for the inputs {', '.join(self.inputs)}, which are no images.")
        if self.frame and not self._reads_graphs:
            raise ValueError(
                f"frame: expected None for the inputs {', '.join(self.inputs)}, got {frame!r}. It is that of a graph."
            )

    def _derive_specs(self) -> None:
        """Read off the axis strings what rows have to hold."""
        axes = {name: Representation.parse(text) for name, text in self.inputs.items()}
        channels = {name: axes[name].num_channels for name in axes}
        self._image_channels = channels.get("pixel_values")
        widths = {name: axes[name].width(self.dimension) for name in ("positions", "velocities", "charges") if name in axes}
        if "pair_features" in axes:
            # They are made of positions, and with two channels of charges too.
            widths = {"positions": self.dimension, **({"charges": 1} if channels["pair_features"] == 2 else {}), **widths}
        self._point_widths = widths
        # What else has edges; points and images have them only where the model reads their features.
        self._reads_graphs = not widths and self._image_channels is None
        self._reads_edges = self._reads_graphs or "edge_features" in axes
        self._node_spec, self._edge_spec = (
            FeatureSpec(row_key, f"{kind}_categories", field, categories if field in axes else None, channels.get(field))
            for row_key, kind, field, categories in (
                ("node_feat", "node", "node_features", self.node_categories),
                ("edge_attr", "edge", "edge_features", self.edge_categories),
            )
        )
        output = Representation.parse(self.output or str(self.num_labels))
        kind = label_kind(output, axes)
        self._label_spec = LabelSpec(kind, self.num_labels, self.problem_type, self.dimension, self.label2id)
        read = {"image", "pixel_values"} if self._image_channels is not None else {"num_nodes", "node_feat", *widths}
        read |= {"edge_index", "edge_attr"} if self._reads_edges else set()
        # Keys of its own are the label of links and positions, whatever else there is.
        read |= {"edge_label", "edge_label_index"} if kind == "link" else {"target_positions"} if kind == "position" else set()
        self._read_keys = read | set(LABEL_KEYS[kind] if kind in ("graph", "node", "image") else ())
        self._said: set[str] = set()

    @classmethod
    def get_attributes(cls) -> list[str]:
        """No parts that have to be there: transformers would insist on an image processor. Ours is saved as its dictionary."""
        return []

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
                "processor.save_pretrained, or make it with LPSProcessor.from_config(model.config). A plain backbone has none: "
                "make a model of it first, with from_backbone_pretrained."
            )
        return super().from_args_and_dict(args, processor_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The settings, without the code that a loaded checkpoint came with: a plain save does not copy it."""
        settings = super().to_dict()
        if self._auto_class is None:
            settings.pop("auto_map", None)
        if self.column_mapping is None:
            settings.pop("column_mapping", None)
        if self.image_processor is None:
            del settings["image_processor"]  # AutoImageProcessor would take the key for an image processor
        return settings

    def save_pretrained(self, save_directory: str | PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write processor_config.json.

        Args:
            save_directory: A folder.
            push_to_hub: Push it afterwards; see `push_to_hub`.
            kwargs: With `push_to_hub` its options.

        Returns:
            Names of the files.
        """
        repo_id, pushing = split_push_options(save_directory, kwargs)
        files = super().save_pretrained(str(save_directory), **kwargs)
        if push_to_hub:
            self.push_to_hub(repo_id, **pushing)
        return files

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Put the processor into a repository, with the code that loads it; a model that is there stays as it is.

        Args:
            repo_id: `user/name`, or `name` for the user of the token.
            kwargs: `commit_message`, `commit_description`, `private`, `token`, `revision`, `create_pr`.

        Returns:
            `huggingface_hub.CommitInfo`.
        """
        if "processor" in PUSHERS:
            return PUSHERS["processor"](self, repo_id, **kwargs)
        return super().push_to_hub(repo_id, **kwargs)

    @classmethod
    def from_config(
        cls, config: LPSConfig, image_processor: Any = None, column_mapping: Mapping[str, str] | None = None
    ) -> "LPSProcessor":
        """Make the processor that fits a model.

        Args:
            config: The model's configuration.
            image_processor: As in the class; see `from_backbone_pretrained`.
            column_mapping: As in the class.

        Returns:
            `LPSProcessor`.
        """
        check_is_symmetrized("config", config)
        group, axes = get_group(config.group), config.input_representations.values()
        # Nodes with positions have a frame that the model computes.
        permutes_graphs = any(factor.score_letter == "n" for factor in group.factors) and not any(
            field.letters & {"v", "p"} for field in axes
        )
        return cls(
            max_nodes=config.max_nodes,
            node_categories=config.node_categories,
            edge_categories=config.edge_categories,
            num_labels=config.num_labels,
            problem_type=config.problem_type,
            frame=config.frame if permutes_graphs and config.distribution in ("frame", "exact") else None,
            inputs=config.inputs,
            output=config.output,
            dimension=group.dimension or 3,
            image_processor=image_processor,
            column_mapping=column_mapping,
            label2id=_names_of_classes(config),
        )

    @classmethod
    def from_backbone_pretrained(
        cls,
        backbone_name_or_path: str,
        config: LPSConfig,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        column_mapping: Mapping[str, str] | None = None,
    ) -> "LPSProcessor":
        """Make the processor that fits a model of images, with the image processor that its backbone was pretrained with.

        Args:
            backbone_name_or_path: Hub id or folder of the backbone.
            config: The model's configuration.
            revision: Branch, tag or commit.
            token: Hub token.
            cache_dir: Where downloads are kept.
            local_files_only: Use the cache only.
            column_mapping: As in the class.

        Returns:
            `LPSProcessor`.

        Raises:
            ImportError: If Pillow is missing.
            OSError: If the backbone, or its image processor, cannot be found.
        """
        check_pillow()
        hub = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        return cls.from_config(config, AutoImageProcessor.from_pretrained(backbone_name_or_path, **hub), column_mapping)

    @property
    def model_input_names(self) -> list[str]:
        """The keys that a batch can have, without labels."""
        if self._image_channels is not None:
            return ["pixel_values"]
        names = ["edge_index", "node_mask", "edge_mask"] if self._reads_edges else ["node_mask"]
        names += self._point_widths
        for spec in (self._node_spec, self._edge_spec) if self._reads_edges else (self._node_spec,):
            names += [spec.categories_key] if spec.categories else [spec.features_key] if spec.channels else []
        names += ["pair_index"] if self._label_spec.kind == "link" else []
        return names + (["frame_ranks"] if self.frame else [])

    def __call__(
        self,
        rows: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        return_tensors: str | None = None,
        pad_to_multiple_of: int | None = None,
        pad_to_power_of: float | None = None,
    ) -> BatchFeature:
        """Check rows and pad them to one batch.

        Args:
            rows: A list of rows, one row, or a dictionary of columns as data sets give them.
            return_tensors: `"pt"` for tensors, `"np"` or `None` for arrays.
            pad_to_multiple_of: Round the numbers of nodes, edges and pairs of the batch up to a multiple of this.
            pad_to_power_of: Round them up to a power of this, a number above 1, so that `torch.compile` meets few shapes: with 2
                they are 1, 2, 4, 8, …, and less than half of a batch's longest row is padding; with 1.25 less than a fifth, and
                three times as many shapes.

        Returns:
            `BatchFeature` with the keys of `model_input_names`, and `labels` where every row has its label.

        Raises:
            ValueError: If a row is impossible: says which row and key, what was expected, what was given.
            TypeError: If a row has the wrong type.
        """
        padding = Padding(pad_to_multiple_of, pad_to_power_of)
        padding.check()
        mapping = self.column_mapping or {}
        given = [rename_columns(row, mapping) for row in as_rows(rename_columns(rows, mapping))]
        checked = [self._check_row(row, f"row {number}") for number, row in enumerate(given)]
        if self._image_channels is None:
            batch = pad_nodes(checked, self._label_spec.kind, padding)
        else:
            batch = stack_images(process_images(checked, self.image_processor))
        return BatchFeature({key: np.ascontiguousarray(array) for key, array in batch.items()}, return_tensors)

    def add_frame(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Add the column `frame_ranks` to the row of a graph, for `dataset.map`: the frame is then stored with the data."""
        if not self._reads_graphs:
            raise ValueError(f"add_frame: expected a processor of graphs, got one of {', '.join(self.inputs)}.")
        row_in_words = rename_columns(row, self.column_mapping or {})
        structure = self._check_structure(with_known_names(row_in_words, other_names_in(row_in_words), "row"), "row")
        return {**row, "frame_ranks": self._frame_ranks(structure, self.frame or "laplacian").tolist()}

    def _check_row(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        if isinstance(row, (dict, Mapping)) and not self._read_keys.issuperset(row):
            row = self._with_known_names(row, where)
        if self._image_channels is not None:
            checked = check_image_row(row, where, self._image_channels)
        else:
            checked = self._check_structure(row, where)
            if self.frame:
                checked["frame_ranks"] = self._given_frame_ranks(row, where, checked["num_nodes"])
                if checked["frame_ranks"] is None:
                    checked["frame_ranks"] = self._frame_ranks(checked, self.frame)
            if self._label_spec.kind == "link" and row.get("edge_label_index") is not None:
                checked["pair_index"] = check_index(row, "edge_label_index", where, checked["num_nodes"])
        labels = check_labels(row, where, self._label_spec, checked)
        if labels is not None:
            checked["labels"] = labels
        return checked

    def _with_known_names(self, row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """The row in the words of this class; refuses masks of labels that are used, and names what is not read."""
        if not any(key not in self._read_keys and value is not None and type(value) is not str for key, value in row.items()):
            return row  # texts, as most rows have them
        kind = self._label_spec.kind
        names = [name for name in other_names_in(row) if OTHER_NAMES[name] in self._read_keys]
        if self._edge_spec.categories and "edge_weight" in names:
            names.remove("edge_weight")  # weights are no categories
        label_keys = label_keys_in(row, kind)
        read = self._read_keys | {*label_keys, *names}
        if kind == "node":
            mask = next((key for key in row if key in MASK_KEYS and row[key] is not None), None)
            if mask is not None and not all(is_missing(row[key]) for key in label_keys):
                raise ValueError(
                    f"{where}: {mask}: expected the labels of one split, got masks that say which label belongs to which, beside "
                    "the labels of all. Choose with to_rows(data, split='train'), 'validation' or 'test', or remove the masks."
                )
        # Without labels masks have nothing to say.
        unread = [key for key in unread_keys(row, read | (MASK_KEYS if kind == "node" else set())) if key not in self._said]
        if unread:
            self._say(
                f"{where}: this model does not read {', '.join(map(repr, unread))}. It reads "
                f"{', '.join(map(repr, sorted(read)))}. Nothing is wrong if that is meant; it is named once.",
                *unread,
            )
        return with_known_names(row, names, where) if names else row

    def _say(self, text: str, *keys: str) -> None:
        """Warn of row keys, each once: not of every row, nor in each of the workers that load data."""
        self._said.update(keys)
        worker = get_worker_info()
        if worker is None or worker.id == 0:
            warnings.warn(text, stacklevel=2)

    def _check_structure(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Nodes, edges and what they carry, by batch key."""
        if self._point_widths:
            checked = check_points(row, where, self._point_widths, self.max_nodes, self.inputs)
            if self._reads_edges:
                checked["edge_index"] = check_index(row, "edge_index", where, checked["num_nodes"])
        else:
            checked = check_graph(row, where, self.max_nodes)
            if not self._backbone_sees_edges and checked["edge_index"].size and "edge_index" not in self._said:
                self._say(
                    f"{where}: edge_index: the backbone of this model does not see edges, as its inputs are "
                    f"{', '.join(self.inputs)}. They only have an influence on the order in which it sees the nodes. Build the "
                    "model with edge_features among its inputs if that is not meant; it is named once.",
                    "edge_index",
                )
        checked.update(check_features(row, where, self._node_spec, checked["num_nodes"]))
        if self._reads_edges:
            checked.update(check_features(row, where, self._edge_spec, checked["edge_index"].shape[1]))
        for spec in (self._node_spec, self._edge_spec):
            if spec.channels == 1 and spec.features_key in checked and spec.row_key not in self._said:
                is_weight = spec is self._edge_spec and "edge_weight" in row
                if not is_weight:
                    self._name_whole_quantities(checked[spec.features_key], spec, where)
        return checked

    def _name_whole_quantities(self, features: np.ndarray, spec: FeatureSpec, where: str) -> None:
        """Say that a model reads real numbers as quantities, where they look like categories and it was built without any."""
        if features.size and (features % 1 == 0).all() and (features != features[0]).any():
            kind = "node" if spec.row_key == "node_feat" else "edge"
            self._say(
                f"{where}: {spec.row_key}: whole numbers that are given as real ones are read as one quantity. If they are "
                f"categories, give them as whole numbers and build the model with {kind}_categories; it is named once.",
                spec.row_key,
            )

    @staticmethod
    def _given_frame_ranks(row: Mapping[str, Any], where: str, num_nodes: int) -> np.ndarray | None:
        if row.get("frame_ranks") is None:
            return None
        ranks = as_array(row["frame_ranks"], f"{where}: frame_ranks")
        if ranks.dtype.kind not in "iu":
            raise TypeError(f"{where}: frame_ranks: expected whole numbers, got {ranks.dtype}. Make them with add_frame.")
        if ranks.shape != (num_nodes,):
            raise ValueError(f"{where}: frame_ranks: expected shape ({num_nodes},), got {ranks.shape}.")
        return ranks.astype(np.int64)

    @staticmethod
    def _frame_ranks(checked: Mapping[str, Any], frame: str) -> np.ndarray:
        colors = (b"", b"")
        if frame == "canonical_labelling":
            colors = (_colors(checked, "node"), _colors(checked, "edge"))
        return _cached_frame_ranks(frame, checked["num_nodes"], checked["edge_index"].tobytes(), *colors)


def _names_of_classes(config: LPSConfig) -> dict[str, int] | None:
    """The number of each class by its name; `None` where there are only the names that transformers makes up."""
    unnamed = {f"LABEL_{number}" for number in range(config.num_labels)}
    by_number = {name: number for number, name in (config.id2label or {}).items()}  # either may be given alone
    return next((names for names in (config.label2id, by_number) if names and set(names) != unnamed), None)


def _colors(checked: Mapping[str, Any], kind: str) -> bytes:
    """Nodes, or edges, of different features in numbers that do not depend on their order; nothing where they have none."""
    features = next((checked[key] for key in (f"{kind}_categories", f"{kind}_features") if key in checked), None)
    if features is None or not features.size:
        return b""
    return np.unique(features, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64).tobytes()
