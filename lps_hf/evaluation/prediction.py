"""Predictions for rows of any task, their error bars, and the metrics of a whole split, without a Trainer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lps_hf.data.arrow_rows import with_fast_rows
from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.data.rows import TASK_COLUMNS, check_task
from lps_hf.models.configuration_lps import LPSConfig, check_num_samples, check_tolerance
from lps_hf.models.evaluation_mode import evaluation_mode
from lps_hf.models.modeling_heads_lps import LPSTaskModel
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.models.row_labels import is_known, label_kind
from lps_hf.random_state import unchanged_random_state

from .metrics import IGNORED, compute_metrics_for

# The tasks whose labels are of a kind of their own; those of a graph also belong to molecules and point clouds.
_TASK_OF_KIND = {
    "node": "node-classification",
    "link": "link-prediction",
    "position": "particle-dynamics",
    "image": "image-classification",
}


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for rows, each cut to the row's own nodes or pairs."""

    logits: list[np.ndarray]
    """One array for each row: `(num_labels,)` of graphs, molecules, point clouds and images; `(nodes, num_labels)` of nodes;
    `(pairs,)` of given pairs and `(nodes, nodes)` of all; `(nodes, d)` of particles."""
    standard_error: list[np.ndarray] | None
    """Of the logits, same shapes; `None` for one sample, and for exact averages."""
    num_samples: np.ndarray
    """How many group elements were drawn for each row, (rows,) int64."""
    labels: list[np.ndarray] | None
    """As the processor gives them; `None` unless every row has a label."""
    loss: float | None
    """Mean over the rows of the loss of their batch; `None` without labels."""

    def __len__(self) -> int:
        return len(self.logits)


@dataclass
class Joined:
    """`EvalPrediction` itself would take seconds to import."""

    predictions: np.ndarray
    label_ids: np.ndarray


def task_of(model_or_config: LPSTaskModel | LPSConfig) -> str:
    """The task that a head is for, by its inputs and output.

    Args:
        model_or_config: A head, or its configuration.

    Returns:
        `str`: A key of `lps_hf.data.rows.TASK_COLUMNS`. Invariant numbers of positions are a regression of molecules, or a
        classification of point clouds.

    Raises:
        ValueError: If no task has such an output, or the model has no head.
    """
    config = getattr(model_or_config, "config", model_or_config)
    if not isinstance(config, LPSConfig):
        raise TypeError(f"model_or_config: expected a head of lps_hf or its LPSConfig, got {type(model_or_config).__name__}.")
    if config is not model_or_config and not isinstance(model_or_config, LPSTaskModel):
        raise ValueError(f"model: expected a head such as LPSForGraphClassification, got {type(model_or_config).__name__}.")
    kind = label_kind(config.output_representation, config.input_representations)
    if kind is None:
        raise ValueError(f"output: expected that of one of the tasks {', '.join(TASK_COLUMNS)}, got {config.output!r}.")
    if kind != "graph":
        return _TASK_OF_KIND[kind]
    if "positions" not in config.input_representations:
        return "graph-classification"
    return "molecule-regression" if config.problem_type == "regression" else "point-cloud-classification"


def check_task_of(task: str, model: LPSTaskModel) -> None:
    """Refuse a task that a model was not made for.

    Raises:
        ValueError: Naming both.
    """
    check_task(task)
    expected, own_kinds = task_of(model), _TASK_OF_KIND.values()
    if task != expected and (task in own_kinds or expected in own_kinds):
        raise ValueError(f"task: expected {expected!r}, which {type(model).__name__} was made for, got {task!r}.")


@unchanged_random_state()
def predict(
    model: LPSTaskModel,
    processor: LPSProcessor,
    rows: Iterable[Mapping[str, Any]],
    *,
    batch_size: int = 32,
    num_samples: int | Literal["auto"] | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Predictions:
    """Predict for rows, in batches, with group elements drawn from a seed.

    Args:
        model: A head; it predicts in evaluation mode, on the device that it is on.
        processor: Its processor.
        rows: A list of rows, a data set, or anything to iterate over once.
        batch_size: Rows of a batch. Other sizes draw other group elements.
        num_samples: Group elements per row, or `"auto"`: as many as the error bar asks for. Default: the model's
            `num_eval_samples`.
        tolerance: Of `"auto"`. Default: the model's.
        seed: Seed of the group elements.
        progress: Show a progress bar on stderr.

    Returns:
        `Predictions`: In the order of the rows.

    Raises:
        ValueError: If an argument is out of range, there is no row, or a row is impossible.
        TypeError: If the model has no head, or an argument has the wrong type.
    """
    if not isinstance(model, LPSTaskModel):
        raise TypeError(f"model: expected a head such as LPSForGraphClassification, got {type(model).__name__}.")
    check_num_samples("batch_size", batch_size)
    if num_samples not in (None, "auto"):
        check_num_samples("num_samples", num_samples)
    if tolerance is not None:
        check_tolerance(tolerance)
    sampling = {"num_samples": num_samples, "tolerance": tolerance, "generator": torch.Generator(model.device).manual_seed(seed)}
    collator = DataCollatorForGraphs(processor)
    kind = label_kind(model.config.output_representation, model.config.input_representations)
    kept: dict[str, list[np.ndarray]] = {"logits": [], "standard_error": [], "labels": []}
    counts, losses = [], []
    with evaluation_mode(model):
        for chunk in _batches(rows, batch_size, progress):
            batch = on_device(collator(chunk), model.device)
            with torch.no_grad():
                outputs = model(**batch, **sampling)
            sizes = row_sizes(model.config, chunk, batch)
            for name, tensor in (*outputs.items(), ("labels", batch.get("labels"))):
                if name in kept and tensor is not None:
                    of_all_pairs = kind == "link" and name != "labels" and "pair_index" not in batch
                    kept[name] += cropped(tensor, sizes, 2 if of_all_pairs else 1)
            counts.append(_sample_counts(outputs, len(chunk)))
            if outputs.loss is not None:
                losses.append(np.full(len(chunk), outputs.loss.float().cpu().numpy()))
    count = len(kept["logits"])
    if not count:
        raise ValueError("rows: expected at least one row, got none.")
    # A part of the rows without labels, or of the batches without an error bar, would shift the others.
    whole = {name: values if len(values) == count else None for name, values in kept.items()}
    return Predictions(
        logits=kept["logits"],
        standard_error=whole["standard_error"],
        num_samples=np.concatenate(counts),
        labels=whole["labels"],
        loss=np.concatenate(losses).mean().item() if whole["labels"] is not None else None,
    )


@unchanged_random_state()
def evaluate(
    model: LPSTaskModel,
    processor: LPSProcessor,
    rows: Iterable[Mapping[str, Any]],
    task: str,
    *,
    batch_size: int = 32,
    num_samples: int | Literal["auto"] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, float]:
    """The metrics of a split: bit for bit those of `LPSTrainer.evaluate` with the same batch size and seed on the same device.

    Args:
        model: A head.
        processor: Its processor.
        rows: Rows with labels; of links those of `with_all_pairs`, if the ranking metrics shall be those of all pairs.
        task: A key of `lps_hf.data.rows.TASK_COLUMNS`; see `task_of`.
        batch_size: As for `predict`; the Trainer's is `per_device_eval_batch_size`.
        num_samples: As for `predict`.
        seed: Seed of the group elements.
        progress: Show a progress bar on stderr.

    Returns:
        `dict[str, float]`: `loss`, and what `compute_metrics_for` says.

    Raises:
        ValueError: If the task is not the model's, a row has no label, or as `predict`.
        TypeError: As `predict`.
    """
    check_task_of(task, model)
    if task == "link-prediction" and not isinstance(rows, Sequence):
        rows = list(rows)  # they are read twice
    compute_metrics = compute_metrics_for(task, model.config.problem_type, model.config.num_labels, rows=rows)
    predictions = predict(model, processor, rows, batch_size=batch_size, num_samples=num_samples, seed=seed, progress=progress)
    if predictions.labels is None or predictions.loss is None:
        raise ValueError(f"rows: expected a label in each of them ({TASK_COLUMNS[task][-1]!r}), got rows without. Use predict.")
    labels = padded(predictions.labels)
    if not is_known(labels):
        raise ValueError(
            f"rows: expected a label ({TASK_COLUMNS[task][-1]!r}) in some of them, got missing ones alone. Use predict."
        )
    metrics = compute_metrics(Joined(padded(predictions.logits), labels))
    return {"loss": predictions.loss, **metrics}


def _batches(rows: Any, batch_size: int, progress: bool) -> Iterator[list[Any]]:
    rows = with_fast_rows(rows)
    count: Any = len(rows) if hasattr(rows, "__len__") else None
    with tqdm(total=count, desc="Predicting", unit="row", disable=not progress) as bar:
        if hasattr(rows, "__getitems__"):  # a data set reads a whole batch at once
            chunks: Iterator[list[Any]] = (
                rows.__getitems__(list(range(s, min(s + batch_size, count)))) for s in range(0, count, batch_size)
            )
        else:
            iterator = iter(rows)
            chunks = iter(lambda: list(islice(iterator, batch_size)), [])
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def on_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on the device of a model."""
    return {key: value.to(device) for key, value in batch.items()}


def row_sizes(config: LPSConfig, rows: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> list[int] | None:
    """The number of nodes, or of given pairs, of each row of a batch; `None` where outputs are of whole rows."""
    if label_kind(config.output_representation, config.input_representations) in (None, "graph", "image"):
        return None
    if "pair_index" in batch:
        return [np.asarray(row["edge_label_index"]).reshape(2, -1).shape[1] for row in rows]
    return batch["node_mask"].sum(dim=1).tolist()


def cropped(tensor: Tensor, sizes: list[int] | None, num_axes: int = 1) -> list[np.ndarray]:
    """The arrays of single rows, with the first axes cut to the row's size."""
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    arrays = list(tensor.cpu().numpy())
    if sizes is None:
        return arrays
    return [array[(slice(size),) * num_axes] for array, size in zip(arrays, sizes, strict=True)]


def _sample_counts(outputs: Any, num_rows: int) -> np.ndarray:
    """How many group elements each row of a batch got."""
    if outputs.num_samples is not None:
        return outputs.num_samples.cpu().numpy()
    elements = outputs.group_elements
    while isinstance(elements, tuple):
        elements = elements[0]
    # An exact average with a tolerance tells no elements, and has no error bar that more of them would make smaller.
    return np.full(num_rows, 1 if elements is None else elements.shape[1])


def padded(arrays: list[np.ndarray]) -> np.ndarray:
    """One array of all rows, as Trainer joins them: those of different length are filled up with -100."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    joined = np.full((len(arrays), max(map(len, arrays)), *arrays[0].shape[1:]), IGNORED, dtype=arrays[0].dtype)
    for target, array in zip(joined, arrays, strict=True):
        target[: len(array)] = array
    return joined
