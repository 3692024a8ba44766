"""Pipelines: graphs, molecules, points and images in, labels with scores and the standard errors of these scores out."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers.pipelines.base import Pipeline

from .column_mapping import rename_columns
from .configuration_lps import LPSConfig, check_num_samples, check_tolerance
from .error_bars import check_level, probability_interval, student_quantile
from .links import apply_link
from .modeling_heads_lps import (
    LPSForGraphClassification,
    LPSForImageClassification,
    LPSForLinkPrediction,
    LPSForNodeClassification,
    LPSForParticleDynamics,
    LPSTaskModel,
)
from .processing_lps import LPSProcessor
from .push_verbs import PUSHERS, split_push_options
from .row_batches import as_rows
from .row_checks import check_index
from .row_files import holds_several
from .row_labels import LABEL_KEYS, label_kind
from .row_sources import (
    FAULTS,
    check_on_error,
    collect_rows,
    fault_with,
    is_one_row,
    is_table,
    numbered,
    to_rows,
    warn_of_skipped,
)

_LABELS = {key for keys in LABEL_KEYS.values() for key in keys}
_SAMPLING = ("num_samples", "tolerance", "seed")
_SHOWING = ("top_k", "confidence_level")
ALL_AGREED = "all draws agreed: the error bar is a bound for what they may have missed"


class LPSPipeline(Pipeline):
    r"""What all pipelines share; `transformers.pipeline(task, model=...)` makes them.

    | task | result of a row |
    | --- | --- |
    | graph-classification, point-cloud-classification | a dict for every label: `label`, `score`, `standard_error`; best first |
    | graph-regression, molecule-regression | a dict for every target: `label`, `value` in data units, `standard_error` |
    | node-classification | a list of such labels for every node |
    | link-prediction | a dict for every pair: `source`, `target`, `score`, `standard_error` |
    | particle-dynamics | `positions` and their `standard_error`, d numbers per node |
    | symmetrized-image-classification | as for graphs, the five best |

    Call it with anything that `to_rows` reads. One row, graph, SMILES string or image has one result; a list, dictionary of
    columns, batch or file of rows has a list of them. Data sets, generators and other iterables are read as results are taken
    from the iterator that is returned, without being held in memory. Labels of rows are not looked at.

    A score is the softmax, or with several labels the sigmoid, of the averaged logits. Its standard error is that of the draws of
    p(g|x), to first order: the samples are put through the derivative of the link at their mean (`link_errors`). It says nothing
    of how far the model itself is from the truth. It is `None` for one sample, one block of dependent draws, and exact averages.
    With `confidence_level` a result also has a `confidence_interval`, lower and upper end by Student's quantile. Where all draws
    of a row gave the same output, its results have a `note` that says so.

    Equal rows have equal results for the same seed, wherever they stand, in any batch and on any device (up to rounding), as the
    draws of a row follow from the seed and its content. With `num_samples="auto"` the rows of a batch are drawn together, on the
    device: only with a `batch_size` of 1, which is the default, a result does not depend on the other rows.

    Args:
        model (`PreTrainedModel`): A head, or its `LPSModel`; put into evaluation mode.
        processor (`LPSProcessor`, *optional*): Its processor. Default: `LPSProcessor.from_config`, except for images.
        image_processor (*optional*): Of images, instead of a processor.
        num_samples (`int` or `"auto"`, *optional*): Here or in a call: draws per row. Default: the model's `num_eval_samples`.
        tolerance (`float`, *optional*): Here or in a call: largest standard error of a score; it makes `num_samples="auto"`.
        confidence_level (`float`, *optional*): Here or in a call: such as 0.95, for confidence intervals.
        seed (`int`, *optional*): Here or in a call: seed of the draws, 0 by default; `None` for other draws at each call.
        top_k (`int`, *optional*): Here or in a call: how many labels, or pairs, of each result to return.
        kwargs: As for every `Pipeline`: `device`, `batch_size`, …

    Raises:
        ValueError: If the model is of another task, an argument is out of range, or a row is impossible: says which row and key.
        TypeError: If something has the wrong type.
    """

    # `None`: where there is one. A model that is no path comes without.
    _load_processor = None
    _load_image_processor = _load_video_processor = _load_feature_extractor = _load_tokenizer = False  # type: ignore[assignment]

    model: Any
    processor: Any
    kind: str
    """A key of `LABEL_KEYS`."""
    head: type[LPSTaskModel]
    """What makes an `LPSModel` a model of the task."""

    def __init__(self, model: Any, *, processor: Any = None, image_processor: Any = None, **kwargs: Any) -> None:
        config = model.config
        if getattr(config, "model_type", None) != LPSConfig.model_type:
            raise TypeError(
                f"model: expected a symmetrized model such as {self.head.__name__}, got {type(model).__name__}. Make one of a "
                f"plain backbone with {self.head.__name__}.from_backbone_pretrained."
            )
        if label_kind(config.output_representation, config.inputs) != self.kind:
            raise ValueError(
                f"model: expected {self.head.__name__} or the like, got {type(model).__name__} with the inputs "
                f"{', '.join(config.inputs)} and the output {str(config.output_representation)!r}. Choose its own pipeline."
            )
        if processor is None and self.kind == "image" and image_processor is None:
            raise ValueError(
                "processor: expected the LPSProcessor of the model, which knows how its images were prepared, got none. Load it "
                "with AutoProcessor.from_pretrained, which says why if there is none, or make it with "
                "LPSProcessor.from_backbone_pretrained."
            )
        processor = LPSProcessor.from_config(config, image_processor) if processor is None else processor
        if type(processor).__name__ != LPSProcessor.__name__:
            raise TypeError(f"processor: expected an {LPSProcessor.__name__}, got {type(processor).__name__}.")
        model = _with_head(model, self.head).eval()
        super().__init__(model=model, processor=processor, **kwargs)
        self.model.lps.link = self.link  # a tolerance is about scores

    def __call__(self, inputs: Any, *args: Any, on_error: str = "raise", **parameters: Any) -> Any:
        """Predict; see the class.

        Args:
            inputs: One or several rows, in any form.
            args: None.
            on_error: As in `to_rows`; with `"skip"` inputs are read whole, and rows that cannot be read, or that the model cannot
                take, have `None` for a result.
            parameters: `batch_size`, `num_workers`, and those of the class.

        Returns:
            The result of one, a list of results, or an iterator over them.
        """
        check_on_error(on_error)
        if isinstance(inputs, list | tuple) and not inputs:
            return []
        if on_error == "skip" and (_is_stream(inputs) or _holds_several(inputs)):
            # The number of draws does not matter here, and without it none are made.
            rows = collect_rows(inputs).accepted(partial(self.preprocess, num_samples="auto"))
            warn_of_skipped(rows)
            return rows.in_place(super().__call__(rows, *args, **parameters))
        if _is_stream(inputs):
            return super().__call__(_rows_in(inputs), *args, **parameters)
        results = super().__call__(to_rows(inputs), *args, **parameters)
        return results if _holds_several(inputs) else results[0]

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """Go through rows in batches; the base class pads texts only."""
        rows: Any = list(enumerate(inputs)) if isinstance(inputs, list) else _Stream(enumerate(inputs))
        workers = num_workers if isinstance(inputs, list) else min(num_workers, 1)  # several would all read the same rows
        prepare = partial(self._prepare, **preprocess_params)
        # A generator of its own: the loader would draw the seed of its workers from the state that all share.
        options: dict[str, Any] = {"num_workers": workers, "collate_fn": prepare, "generator": torch.Generator()}
        for batch in DataLoader(rows, batch_size=batch_size, **options):
            outputs = self.forward(batch, **forward_params)
            for number in range(len(batch["seeds"])):
                result = {key: None if part is None else part[number] for key, part in outputs.items()}
                yield self.postprocess(result, **postprocess_params)

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> None:
        """Write model and processor, and the pipeline's code where the model's code goes along.

        That is so for models that came with their code, and for classes marked by `register_for_auto_class`; with the package,
        `lps_hf.hub.save_checkpoint` writes checkpoints that carry their code.

        Args:
            save_directory: A folder.
            kwargs: As for `PreTrainedModel.save_pretrained`; with `push_to_hub=True` the options of `push_to_hub`, too.

        Raises:
            ValueError: If there is a file of that name.
        """
        if Path(save_directory).is_file():
            raise ValueError(f"save_directory: expected a folder, got the file {save_directory}. Choose another name.")
        push_to_hub = kwargs.pop("push_to_hub", False)
        repo_id, pushing = split_push_options(save_directory, kwargs) if push_to_hub else ("", {})
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)
        if push_to_hub:
            self.push_to_hub(repo_id, **pushing)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Publish model and processor; see `LPSPreTrainedModel.push_to_hub`.

        Args:
            repo_id: `user/name`, or `name` for the user of the token.
            kwargs: As there.

        Returns:
            `huggingface_hub.CommitInfo`.
        """
        if "pipeline" in PUSHERS:
            return PUSHERS["pipeline"](self, repo_id, **kwargs)
        return super().push_to_hub(repo_id, **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = sorted(set(parameters) - {*_SAMPLING, *_SHOWING, "local_files_only"})  # which `pipeline()` hands on
        if unknown:
            raise TypeError(f"{unknown[0]}: expected one of {', '.join(_SAMPLING + _SHOWING)}, batch_size and num_workers.")
        drawing: dict[str, Any] = {}
        num_samples, tolerance = parameters.get("num_samples"), parameters.get("tolerance")
        if num_samples not in (None, "auto"):
            check_num_samples("num_samples", num_samples)
        if tolerance is not None:
            check_tolerance(tolerance)
            if num_samples not in (None, "auto"):
                raise ValueError(f"tolerance: expected num_samples='auto' beside it, or none, got {num_samples}.")
            num_samples = "auto"
        if {"num_samples", "tolerance"} & set(parameters):
            drawing = {"num_samples": num_samples, "tolerance": tolerance}
        preparing = {"num_samples": num_samples} if drawing else {}
        if "seed" in parameters:
            seed = parameters["seed"]
            if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
                raise TypeError(f"seed: expected an int or None, got {seed!r}.")
            preparing["seed"] = seed
        if parameters.get("top_k") is not None:
            check_num_samples("top_k", parameters["top_k"])
        if parameters.get("confidence_level") is not None:
            check_level("confidence_level", parameters["confidence_level"])
        return preparing, drawing, {key: parameters[key] for key in _SHOWING if key in parameters}

    def _prepare(self, numbered_rows: list[tuple[int, Mapping[str, Any]]], **parameters: Any) -> dict[str, Any]:
        """Rows with their numbers as one batch."""
        prepared = []
        for number, row in numbered_rows:
            with _naming(number):
                prepared.append(self.preprocess(row, **parameters))
        return _join(prepared, [number for number, _ in numbered_rows])

    def preprocess(self, input_: Mapping[str, Any], **parameters: Any) -> dict[str, Any]:
        """Check a row, make tensors of it, and draw its noise where its number of samples is known."""
        row, seed = rename_columns(input_, self.processor.column_mapping or {}), parameters.get("seed", 0)
        unlabelled = {key: value for key, value in row.items() if key not in _LABELS and key != "edge_label_index"}
        inputs = dict(self.processor([unlabelled], return_tensors="pt"))
        pairs = None
        if self.kind == "link" and row.get("edge_label_index") is not None:
            pairs = torch.from_numpy(check_index(row, "edge_label_index", "row 0", inputs["node_mask"].shape[1]))
        own_seed = None if seed is None else _seed_of(inputs, seed)
        noise = self._draw_noise(inputs, parameters.get("num_samples"), own_seed)
        return {"inputs": inputs, "noise": noise, "seed": own_seed, "pairs": pairs}

    def _draw_noise(self, inputs: dict[str, Tensor], num_samples: Any, seed: int | None) -> dict[str, Tensor] | None:
        """The noise ε of one row; `None` where the model draws."""
        config, function = self.model.config, self.model.lps
        num_samples = config.num_eval_samples if num_samples is None else num_samples
        if config.distribution == "exact" and num_samples == "auto":
            num_samples = config.min_eval_samples  # of axes, where a frame is infinite
        if config.distribution == "none":
            num_samples = 1
        if seed is None or num_samples == "auto":
            return None
        return function.draw_noise(function.encode(**inputs), num_samples, torch.Generator().manual_seed(seed))

    def _forward(self, input_tensors: dict[str, Any], **parameters: Any) -> Any:
        """Scores, their errors, and what else belongs to each row of a batch."""
        inputs, noise, link = input_tensors["inputs"], input_tensors["noise"], self.link
        drawing = {"noise": noise} if noise is not None else {**parameters, "generator": self._generator(input_tensors["seeds"])}
        outputs = self.model(**inputs, **drawing, output_samples=link != "identity")
        errors = outputs.standard_error
        if errors is not None and link != "identity":
            errors = self._score_errors(outputs)
        mask = inputs.get("node_mask")
        return {
            "scores": apply_link(outputs.logits, link),
            "errors": None if errors is None or errors.isinf().any() else errors,
            "degrees_of_freedom": outputs.degrees_of_freedom,
            "draws_agree": outputs.draws_agree,
            "num_nodes": None if mask is None else mask.sum(dim=1),
            "pairs": input_tensors["pairs"],
        }

    def _score_errors(self, outputs: Any) -> Tensor:
        """The standard errors of scores; rows may have different numbers of samples."""
        counts = [outputs.samples.shape[1]] * len(outputs.logits) if outputs.num_samples is None else outputs.num_samples.tolist()
        function = self.model.lps
        errors = []
        for number, count in enumerate(counts):
            row = slice(number, number + 1)
            given = outputs.samples[row, :count], outputs.standard_error[row], outputs.draws_agree[row]
            num_blocks = outputs.degrees_of_freedom[number] - function.symmetrization.prior.degrees_of_freedom + 1
            errors.append(function.symmetrization.link_errors(*given, round(count / float(num_blocks))))
        return torch.cat(errors)

    def postprocess(self, model_outputs: Any, **parameters: Any) -> Any:
        """What `_forward` says of one row, as numbers and texts."""
        bars = ErrorBars.of(model_outputs, parameters.get("confidence_level"), self.link != "identity")
        return self.result_of({**model_outputs, "bars": bars}, parameters.get("top_k"))

    def result_of(self, outputs: Mapping[str, Any], top_k: int | None) -> Any:
        """The result of one row; tasks define it."""
        raise NotImplementedError

    def _generator(self, seeds: list[int | None]) -> torch.Generator | None:
        if seeds[0] is None:
            return None
        return torch.Generator(self.device).manual_seed(sum(seed for seed in seeds if seed is not None) % 2**63)

    @property
    def link(self) -> str:
        """What makes scores of logits."""
        config = self.model.config
        if config.problem_type is not None:
            known = {"regression": "identity", "multi_label_classification": "sigmoid", "single_label_classification": "softmax"}
            return known[config.problem_type]
        return "identity" if config.label_mean is not None or config.num_labels == 1 else "softmax"

    def _labels(self, scores: Tensor, bars: "ErrorBars", top_k: int | None) -> list[dict[str, Any]]:
        """The labels of one graph, node or image (num_labels,), best first; the targets of a regression in their own order."""
        key = "value" if self.link == "identity" else "score"
        if key == "value" and top_k is not None:
            raise ValueError(f"top_k: expected None for a regression, got {top_k}.")
        found = [
            {"label": self.model.config.id2label[number], key: score, **bar}
            for number, (score, bar) in enumerate(zip(scores.tolist(), bars.texts(scores), strict=True))
        ]
        return found if key == "value" else sorted(found, key=lambda label: -label["score"])[:top_k]


class GraphClassificationPipeline(LPSPipeline):
    """Classes, labels or targets of graphs, molecules and point clouds; see `LPSPipeline`."""

    kind, head = "graph", LPSForGraphClassification

    def result_of(self, outputs: Mapping[str, Any], top_k: int | None) -> list[dict[str, Any]]:
        """The labels of one row."""
        return self._labels(outputs["scores"], outputs["bars"], top_k)


class SymmetrizedImageClassificationPipeline(LPSPipeline):
    """Classes of images; see `LPSPipeline`.

    transformers' own task "image-classification" takes these models too, and returns scores without standard errors.
    """

    kind, head = "image", LPSForImageClassification

    @property
    def link(self) -> str:
        """What makes scores of logits."""
        return "sigmoid" if self.model.config.problem_type == "multi_label_classification" else "softmax"

    def result_of(self, outputs: Mapping[str, Any], top_k: int | None) -> list[dict[str, Any]]:
        """The labels of one image."""
        return self._labels(outputs["scores"], outputs["bars"], 5 if top_k is None else top_k)


class NodeClassificationPipeline(LPSPipeline):
    """Classes of nodes; see `LPSPipeline`."""

    kind, head, link = "node", LPSForNodeClassification, "softmax"

    def result_of(self, outputs: Mapping[str, Any], top_k: int | None) -> list[list[dict[str, Any]]]:
        """The labels of each node of one graph."""
        scores, bars = outputs["scores"], outputs["bars"]
        return [self._labels(scores[node], bars.at(node), top_k) for node in range(int(outputs["num_nodes"]))]


class LinkPredictionPipeline(LPSPipeline):
    """Scores of pairs of nodes: those of `edge_label_index` in its order, or without it the ten best of all ordered pairs.

    With `top_k` the best so many of these; see `LPSPipeline`.
    """

    kind, head, link = "link", LPSForLinkPrediction, "sigmoid"

    def result_of(self, outputs: Mapping[str, Any], top_k: int | None) -> list[dict[str, Any]]:
        """The pairs of one graph."""
        pairs, nodes = outputs["pairs"], int(outputs["num_nodes"])
        if pairs is None:
            top_k = 10 if top_k is None else top_k
            pairs = (~torch.eye(nodes, dtype=torch.bool)).nonzero().T
        scores = outputs["scores"][tuple(pairs)]
        if top_k is not None:  # before lists are made of what may be millions of pairs
            best = scores.argsort(descending=True, stable=True)[:top_k]
            pairs, scores = pairs[:, best], scores[best]
        bars = outputs["bars"].at(tuple(pairs)).texts(scores)
        return [
            {**dict(zip(("source", "target", "score"), values, strict=True)), **bar}
            for values, bar in zip(zip(*pairs.tolist(), scores.tolist(), strict=True), bars, strict=True)
        ]


class ParticleDynamicsPipeline(LPSPipeline):
    """Later positions of particles, in the unit of the data; see `LPSPipeline`."""

    kind, head, link = "position", LPSForParticleDynamics, "identity"

    def result_of(self, outputs: Mapping[str, Any], top_k: int | None) -> dict[str, Any]:
        """The positions of the particles of one row."""
        if top_k is not None:
            raise ValueError(f"top_k: expected None for positions, got {top_k}.")
        nodes = slice(int(outputs["num_nodes"]))
        positions, bars = outputs["scores"][nodes], outputs["bars"].at(nodes)
        return {"positions": positions.tolist(), **bars.text(positions)}


class ErrorBars(NamedTuple):
    """What a result says of the uncertainty of one row's scores."""

    errors: Tensor | None
    """Standard errors; `None` where there are none."""
    quantile: float | None
    """Half the width of the interval in standard errors; `None` where none is asked for."""
    is_probability: bool
    is_bound: bool
    """Whether the errors are a bound, as all draws agreed."""

    @classmethod
    def of(cls, outputs: Mapping[str, Any], level: float | None, is_probability: bool) -> "ErrorBars":
        """Those of one row of what `LPSPipeline._forward` returns."""
        errors = outputs["errors"]
        if errors is None:
            return cls(None, None, is_probability, False)
        quantile = None if level is None else student_quantile(level, outputs["degrees_of_freedom"]).item()
        # Where draws agree and nothing else could be drawn, the error is zero and no bound.
        is_bound = bool(outputs["draws_agree"]) and bool(errors.any())
        return cls(errors, quantile, is_probability, is_bound)

    def at(self, place: Any) -> "ErrorBars":
        """Those of a part of the scores."""
        return self if self.errors is None else self._replace(errors=self.errors[place])

    def text(self, scores: Tensor) -> dict[str, Any]:
        """The entries of a result that holds all scores."""
        if self.errors is None:
            return {"standard_error": None}
        entries: dict[str, Any] = {"standard_error": self.errors.tolist()}
        if self.quantile is not None:
            half = self.quantile * self.errors
            ends = (scores - half, scores + half)
            if self.is_probability:
                ends = probability_interval(scores, self.errors, self.quantile)
            entries["confidence_interval"] = [end.tolist() for end in ends]
        return {**entries, "note": ALL_AGREED} if self.is_bound else entries

    def texts(self, scores: Tensor) -> list[dict[str, Any]]:
        """The entries of results that hold one score each."""
        return [self.at(place).text(score) for place, score in enumerate(scores)]


class _Stream(IterableDataset):
    """Rows that are read when they are needed."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


def _with_head(model: Any, head: type[LPSTaskModel]) -> Any:
    """An `LPSModel`, which is what `AutoModel` loads for heads that have no Auto class, as such a head."""
    if hasattr(model, "lps"):
        return model
    with torch.device("meta"):
        whole = head(model.config)
    model.link, whole.lps = whole.lps.link, model
    if model._auto_class is not None:  # its code goes along when it is saved, and so must that of the head
        head.register_for_auto_class(model._auto_class)
    return whole


def _is_stream(inputs: Any) -> bool:
    """Whether it is read bit by bit: what can be gone through, and is neither a row nor a graph nor in memory anyway."""
    if isinstance(inputs, Iterator | Dataset):
        return True
    in_memory = isinstance(inputs, Mapping | str | bytes | PathLike | list | tuple) or is_one_row(inputs)
    return isinstance(inputs, Iterable) and not in_memory and not is_table(inputs)


def _holds_several(inputs: Any) -> bool:
    """Whether a list of results is expected, even of length one."""
    if isinstance(inputs, Mapping):
        return as_rows(inputs)[0] is not inputs
    if isinstance(inputs, str | PathLike):
        return holds_several(inputs)
    return isinstance(inputs, list | tuple) or hasattr(inputs, "to_data_list") or is_table(inputs)


def _rows_in(items: Any) -> Iterator[Mapping[str, Any]]:
    for number, item in numbered(items):
        with _naming(number, "item"):
            rows = to_rows(item)
        yield from rows


@contextmanager
def _naming(number: int, noun: str = "row") -> Iterator[None]:
    """Say in errors which row it was; those of a single one call it row 0."""
    try:
        yield
    except FAULTS as error:
        text = re.sub(r"^row 0: ", "", str(error))
        raise fault_with(f"{noun} {number}: {text}", error) from error


def _seed_of(inputs: Mapping[str, Tensor], seed: int) -> int:
    """A seed for a row: the same for equal ones, and as good as independent for different ones."""
    digest = blake2b(str(seed).encode(), digest_size=7)
    for key in sorted(inputs):
        digest.update(f"{key}{tuple(inputs[key].shape)}".encode())
        digest.update(inputs[key].numpy().tobytes())
    return int.from_bytes(digest.digest(), "big")


def _join(rows: list[dict[str, Any]], numbers: list[int]) -> dict[str, Any]:
    """Prepared rows as one batch, padded with zeros, which mean nothing on padding."""
    for row, number in zip(rows, numbers, strict=True):
        _check_alike(row["inputs"], rows[0]["inputs"], number, numbers[0])
    noise = rows[0]["noise"]
    return {
        "inputs": {key: _stack([row["inputs"][key] for row in rows]) for key in rows[0]["inputs"]},
        "noise": None if noise is None else {key: _stack([row["noise"][key] for row in rows]) for key in noise},
        "seeds": [row["seed"] for row in rows],
        "pairs": [row["pairs"] for row in rows],
    }


def _check_alike(inputs: Mapping[str, Tensor], first: Mapping[str, Tensor], number: int, first_number: int) -> None:
    if inputs.keys() != first.keys():
        differing = sorted(inputs.keys() ^ first.keys())
        raise ValueError(
            f"row {number}: expected the same features as row {first_number} of its batch has, got a difference in "
            f"{', '.join(differing)}. Set batch_size=1, or give all rows the same."
        )
    if "pixel_values" in inputs and inputs["pixel_values"].shape != first["pixel_values"].shape:
        expected, got = (tuple(tensors["pixel_values"].shape[2:]) for tensors in (first, inputs))
        raise ValueError(
            f"row {number}: expected an image of height and width {expected}, as row {first_number} of its batch has, got {got}. "
            "Set batch_size=1, or resize the images."
        )


def _stack(tensors: list[Tensor]) -> Tensor:
    """Tensors (1, ...) as one (batch, ...), filled up with zeros at the end of each axis."""
    shape = torch.tensor([tensor.shape for tensor in tensors]).amax(dim=0).tolist()
    stacked = tensors[0].new_zeros(len(tensors), *shape[1:])
    for target, tensor in zip(stacked, tensors, strict=True):
        target[tuple(map(slice, tensor.shape[1:]))] = tensor[0]
    return stacked
