"""The types of a data set's columns, and whether a data set fits a model."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, Features, Image, List, Value

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.representations import Representation
from lps_hf.models.row_checks import present_keys
from lps_hf.models.row_labels import LABEL_KEYS, is_known, label_kind

from .arrow_rows import with_fast_rows
from .rows import TASK_COLUMNS, check_task

_WHOLE, _CLASS = "int32", "int64"

# How many lists there are around the numbers of a column; labels of whole rows are lists too.
_DEPTHS = {
    "edge_index": 2,
    "num_nodes": 0,
    "node_feat": 2,
    "edge_attr": 2,
    "y": 1,
    "edge_label_index": 2,
    "edge_label": 1,
    "positions": 2,
    "velocities": 2,
    "charges": 1,
    "target_positions": 2,
    "label": 0,
}
# Real numbers always; features and labels are so where a data set or a model says it.
_REAL = ("positions", "velocities", "charges", "target_positions")
_LABELS = tuple(key for keys in LABEL_KEYS.values() for key in keys)


def features_for(
    source: LPSConfig | str,
    *,
    real: Collection[str] = (),
    class_names: Sequence[str] | None = None,
    real_type: str = "float32",
) -> Features:
    """The columns of a data set, with types: `Dataset.from_list(rows, features=features_for(config))`.

    Whole numbers are int32, and classes int64. Lists have no fixed length, which would make them slow to read.

    Args:
        source: A model's configuration, or a task: a key of `TASK_COLUMNS`.
        real: Which of `node_feat`, `edge_attr` and `y` hold real numbers. Default: what the model reads; of a task, targets of
            molecules only.
        class_names: Names of the classes of images. Default: those of the model.
        real_type: Type of real numbers. Models compute in float32.

    Returns:
        `datasets.Features`: Of a model, what it reads and its label; of a task, all that it may have.

    Raises:
        ValueError: If there is no such task, or a name in `real` is none of the three.
    """
    wrong = sorted(set(real) - {"node_feat", "edge_attr", "y"})
    if wrong:
        raise ValueError(f"real: expected some of 'node_feat', 'edge_attr' and 'y', got {wrong[0]!r}.")
    if isinstance(source, str):
        columns, is_real = _columns_of_task(source), {*_REAL, *real}
        is_real |= {"y"} if source == "molecule-regression" else set()
    else:
        columns, is_real = _columns_of_model(source)
        is_real |= set(real)
        names = list((source.id2label or {}).values())
        class_names = class_names or (None if names == [f"LABEL_{number}" for number in range(len(names))] else names)
    features: dict[str, Any] = {}
    for column in columns:
        if column == "image":
            features[column] = Image()
        elif column == "label" and class_names is not None:
            features[column] = ClassLabel(names=list(class_names))
        else:
            kind = real_type if column in is_real else _CLASS if column in _LABELS else _WHOLE
            features[column] = _nested(Value(kind), _DEPTHS[column])
    return Features(features)


def with_features(rows: Dataset, source: LPSConfig | str, class_names: Sequence[str] | None = None) -> Dataset:
    """Give the columns of a data set the types that `features_for` has for them, before it is pushed.

    Lists keep their depth, and real numbers their precision. Other columns are left alone.

    Args:
        rows: The data set.
        source: See `features_for`.
        class_names: See `features_for`.

    Returns:
        `datasets.Dataset`: The same rows.

    Raises:
        ValueError: If a number does not fit into its type.
    """
    wanted = features_for(source, class_names=class_names)
    features = {name: _typed(feature, wanted[name]) if name in wanted else feature for name, feature in rows.features.items()}
    if features == rows.features:
        return rows
    try:
        return rows.cast(Features(features))
    except (TypeError, ValueError) as error:
        raise ValueError(f"rows: expected columns of the types {features}, got {rows.features}: {error}") from error


def check_dataset(rows: Iterable[Mapping[str, Any]], processor: Any, *, name: str = "dataset", labels: bool = True) -> int:
    """Check that every row of a data set fits a model, in one pass, before hours are spent on a part of it.

    Args:
        rows: A data set of any kind.
        processor (`LPSProcessor`): The model's, which decides.
        name: What to call the data set in messages.
        labels: Whether every row needs its label, as for training and metrics; `None` or NaN where it is missing.

    Returns:
        `int`: Number of rows.

    Raises:
        ValueError: Naming the first row that does not fit, the key, what was expected and what it has; or if there is no row, or
            no label in any row that has the key for one.
        TypeError: The same for a value of a wrong type.
    """
    number, is_labelled = -1, False
    for number, row in enumerate(_each(with_fast_rows(rows))):
        try:
            batch = processor([row])
        except (TypeError, ValueError) as error:
            # The processor counts within its batch.
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{name}, row {number}: {str(error).removeprefix('row 0: ')}") from error
        if labels and "labels" not in batch:
            raise ValueError(f"{name}, row {number}: expected a label for this model's task, got only {present_keys(row)}.")
        is_labelled = is_labelled or "labels" not in batch or is_known(batch["labels"])
    if number < 0:
        raise ValueError(f"{name}: expected at least one row, got none.")
    if labels and not is_labelled:
        raise ValueError(f"{name}: expected a label in one row at least, got None, NaN or -100 in all of them.")
    return number + 1


def _each(rows: Any) -> Iterable[Mapping[str, Any]]:
    """Rows one after the other, read many at once where that is faster."""
    if not hasattr(rows, "__getitems__"):
        yield from rows
        return
    for start in range(0, len(rows), 100):
        yield from rows.__getitems__(range(start, min(start + 100, len(rows))))


def _columns_of_task(task: str) -> list[str]:
    check_task(task)
    columns = list(TASK_COLUMNS[task])
    if "edge_index" in columns:
        columns[2:2] = ["node_feat", "edge_attr"]
    return columns


def _columns_of_model(config: LPSConfig) -> tuple[list[str], set[str]]:
    """What the model reads and its label, and which of these are real numbers."""
    axes = config.input_representations
    columns, is_real = [], set(_REAL)
    if "pixel_values" in axes:
        return ["image", "label"], {"label"} if config.problem_type == "regression" else set()
    points: list[str] = [key for key in ("positions", "velocities", "charges") if key in axes]
    if "pair_features" in axes:
        points = [*dict.fromkeys(["positions", *points, *(["charges"] if axes["pair_features"].num_channels == 2 else [])])]
    if "edge_features" in axes or not points:
        columns += ["edge_index"]
    columns += [*points] if points else ["num_nodes"]
    for column, field, categories in (
        ("node_feat", "node_features", config.node_categories),
        ("edge_attr", "edge_features", config.edge_categories),
    ):
        if categories:
            columns.append(column)
        elif field in axes and axes[field].num_channels > 1:
            columns.append(column)
            is_real.add(column)
    kind = label_kind(Representation.parse(config.output_representation), axes)
    columns += ["edge_label_index"] if kind == "link" else []
    columns += [LABEL_KEYS[kind][0]] if kind else []
    if kind == "graph" and config.problem_type in ("regression", "multi_label_classification"):
        is_real.add("y")
    return columns, is_real


def _nested(feature: Any, depth: int) -> Any:
    return List(_nested(feature, depth - 1)) if depth else feature


def _typed(feature: Any, wanted: Any) -> Any:
    """The lists of a column around the type that is wanted; of whole numbers only, and where the column holds nothing at all."""
    if isinstance(feature, List):
        return List(_typed(feature.feature, wanted.feature if isinstance(wanted, List) else wanted))
    if getattr(feature, "dtype", None) == "null":
        return wanted
    while isinstance(wanted, List):
        wanted = wanted.feature
    is_whole = isinstance(feature, Value) and feature.dtype.startswith(("int", "uint"))
    return wanted if is_whole and not wanted.dtype.startswith("float") else feature
