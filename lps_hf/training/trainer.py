"""A Trainer for symmetrized models; the plain `transformers.Trainer` works too."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import Sampler, SequentialSampler
from transformers.trainer_utils import EvalPrediction, PredictionOutput, has_length

from lps_hf.auto import MODEL_AUTO_CLASSES
from lps_hf.data.arrow_rows import with_fast_rows
from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.data.similar_lengths import SimilarLengthSampler, row_lengths
from lps_hf.evaluation.metrics import IGNORED
from lps_hf.hub.model_card import LPSModelCardData
from lps_hf.hub.results_files import CARD_FILE
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSPreTrainedModel
from lps_hf.models.row_labels import label_kind
from lps_hf.random_state import unchanged_random_state

from .callbacks import ModelCardCallback
from .hub_pushes import PublishingTrainer


def set_backbone_learning_rate(
    optimizer: torch.optim.Optimizer, model: LPSPreTrainedModel, learning_rate: float
) -> torch.optim.Optimizer:
    """Give the backbone's parameters a learning rate of their own, in parameter groups of their own.

    Args:
        optimizer: An optimizer over the model's parameters; it is changed, before a scheduler is made for it.
        model: The symmetrized model.
        learning_rate: Of the backbone; the other parameters keep theirs.

    Returns:
        The same optimizer.
    """
    pretrained = {id(parameter) for parameter in model.backbone_parameters()}
    for group in list(optimizer.param_groups):
        backbone = [parameter for parameter in group["params"] if id(parameter) in pretrained]
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in pretrained]
        if backbone:
            optimizer.add_param_group({**group, "params": backbone, "lr": learning_rate})
    return optimizer


class LPSTrainer(PublishingTrainer):
    """`Trainer` with separate learning rates, the entropy loss in the logs, and repeatable evaluation.

    With a processor as `processing_class`, data sets hold raw rows and the collator makes the batches. A collator that is not
    one of transformers' own gets the rows with all their columns, whatever `args.remove_unused_columns` says. Evaluation draws
    its group elements from a generator seeded by `args.seed`, so that evaluating the same weights again gives the same figures.

    What is handed on as predictions is the logits; `predict(..., with_standard_error=True)` gives their error bars too. Of rows
    without given pairs link prediction has logits `(rows, nodes, max_nodes)`. Tokens that are counted are nodes.

    `train_sampling_strategy="group_by_length"` makes batches of graphs of similar size; see `SimilarLengthSampler`. Lengths are
    read off the rows, or off the column `args.length_column_name`. Evaluation keeps the order of the rows.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) < 3 and kwargs.get("data_collator") is None and kwargs.get("processing_class") is not None:
            given = kwargs.get("args") or (args[1] if len(args) > 1 else None)
            padding = getattr(given, "pad_to_power_of", None)
            kwargs["data_collator"] = DataCollatorForGraphs(kwargs["processing_class"], pad_to_power_of=padding)
        super().__init__(*args, **kwargs)
        if not getattr(self.data_collator, "__module__", "").startswith("transformers."):
            self.args.remove_unused_columns = False  # its rows have columns that are no arguments of the model
        if self._card_callback is None:
            self.add_callback(ModelCardCallback())
        self._entropy_losses: list[torch.Tensor] = []
        self._generator: torch.Generator | None = None
        self._with_standard_error = False

    @property
    def _card_callback(self) -> ModelCardCallback | None:
        return next((one for one in self.callback_handler.callbacks if isinstance(one, ModelCardCallback)), None)

    @property
    def card_data(self) -> LPSModelCardData:
        """What the model card will say: give it a licence, notes, or the results of a report in `results`."""
        callback = self._card_callback
        if callback is None:
            raise ValueError("card_data: expected a ModelCardCallback, which has been removed. Add one with add_callback.")
        return callback.data

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write README.md to the output folder: the card of what `card_data` knows by now.

        Args:
            language: Language of the data.
            license: Licence of the weights.
            tags: More tags.
            model_name: Name of the model, if it is not that of the repository.
            finetuned_from: Hub id of the pretrained backbone.
            tasks: Not used: the task follows from the model.
            dataset_tags: Hub ids of the data.
            dataset: Not used: names of data that are no Hub ids belong in the results.
            dataset_args: Not used.
        """
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if type(model).__name__ not in MODEL_AUTO_CLASSES:  # adapters of PEFT, for example
            super().create_model_card(
                language, license, tags, model_name, finetuned_from, tasks, dataset_tags, dataset, dataset_args
            )
        elif self.is_world_process_zero():
            given = {"language": language, "license": license, "tags": tags, "base_model": finetuned_from}
            given |= {"datasets": dataset_tags, "model_id": self.hub_model_id or self.args.hub_model_id or model_name}
            data = replace(self.card_data, **{name: value for name, value in given.items() if value is not None})
            data.compute(model).render().save(Path(str(self.args.output_dir)) / CARD_FILE)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        learning_rate = getattr(self.args, "backbone_learning_rate", None)
        if is_new and learning_rate is not None:
            set_backbone_learning_rate(optimizer, self.model, learning_rate)
        return optimizer

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._get_dataloader(with_fast_rows(dataset), *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        train_dataset = self.train_dataset if train_dataset is None else train_dataset
        strategy, column = self.args.train_sampling_strategy, self.args.length_column_name
        if strategy not in ("group_by_length", "batch_rebalance") or not has_length(train_dataset):
            return super()._get_train_sampler(train_dataset)
        lengths = row_lengths(train_dataset, column)
        if strategy == "batch_rebalance":
            # Trainer's own sampler, which would take the length of `edge_index`, 2, for that of every row.
            return super()._get_train_sampler(Dataset.from_dict({column: lengths}))
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        # Batches go to the processes one after the other, and processes wait for each other.
        return SimilarLengthSampler(lengths, self._train_batch_size * self.args.world_size, seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler | None:
        # Trainer would group these too, and predictions would no longer be in the order of the rows.
        if self.args.train_sampling_strategy == "group_by_length" and has_length(eval_dataset):
            return SequentialSampler(eval_dataset)
        return super()._get_eval_sampler(eval_dataset)

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, **kwargs: Any) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if model.training and outputs.entropy_loss is not None:
            self._entropy_losses.append(outputs.entropy_loss.detach())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._entropy_losses:
            logs["entropy_loss"] = torch.stack(self._entropy_losses).mean().item()
            self._entropy_losses.clear()
        super().log(logs, *args, **kwargs)

    def predict(  # type: ignore[override]
        self,
        test_dataset: Any,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
        *,
        with_standard_error: bool = False,
    ) -> PredictionOutput:
        """Predict, and with labels compute metrics; see `Trainer.predict`.

        Args:
            test_dataset: Rows.
            ignore_keys: More keys of the model's output that are not gathered, beside those of its configuration.
            metric_key_prefix: Prefix of the metrics' names.
            with_standard_error: Return the error bars beside the logits. Metrics are computed of the logits alone.

        Returns:
            `PredictionOutput`: `predictions` are the logits, or with `with_standard_error` a tuple of logits and standard errors
            of the same shape, NaN where the model has none, as for one sample. Rows of different sizes are filled up with -100.
        """
        compute_metrics, preprocess = self.compute_metrics, self.preprocess_logits_for_metrics
        if with_standard_error:
            self._with_standard_error = True
            if compute_metrics is not None:
                self.compute_metrics = lambda prediction, **options: compute_metrics(_with_logits_alone(prediction), **options)
            if preprocess is not None:
                self.preprocess_logits_for_metrics = lambda pair, labels: (preprocess(pair[0], labels), pair[1])
        try:
            return super().predict(test_dataset, ignore_keys, metric_key_prefix)
        finally:
            self._with_standard_error = False
            self.compute_metrics, self.preprocess_logits_for_metrics = compute_metrics, preprocess

    @unchanged_random_state()
    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._generator = torch.Generator(self.args.device).manual_seed(self.args.seed)
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self._generator = None

    def prediction_step(
        self, model: nn.Module, inputs: dict, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        num_samples = getattr(self.args, "num_eval_samples", None)
        drawing = {"generator": self._generator, **({} if num_samples is None else {"num_samples": num_samples})}
        unwrapped = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)  # DataParallel has no configuration
        config = getattr(unwrapped, "config", None)
        ignored = {*(ignore_keys or ()), *getattr(config, "keys_to_ignore_at_inference", ())}
        if self._with_standard_error:
            ignored.discard("standard_error")
        loss, logits, labels = super().prediction_step(model, {**inputs, **drawing}, prediction_loss_only, sorted(ignored))
        if self._with_standard_error and isinstance(logits, torch.Tensor):
            logits = (logits, torch.full_like(logits, torch.nan))
        if "inputs" in self.args.include_for_metrics and getattr(unwrapped, "main_input_name", "") == "node_mask":
            inputs["node_mask"] = inputs["node_mask"].long()  # what Trainer fills up with would be true in a mask
        if getattr(config, "model_type", None) == LPSConfig.model_type and _scores_all_pairs(config, inputs):
            logits = _filled_up(logits, config.max_nodes)
        return loss, logits, labels

    def _track_num_input_tokens(self, inputs: dict) -> None:
        if "node_mask" in inputs and hasattr(self.model, "main_input_name"):
            inputs = {self.model.main_input_name: inputs["node_mask"], "attention_mask": inputs["node_mask"]}
        super()._track_num_input_tokens(inputs)


def _with_logits_alone(prediction: EvalPrediction) -> EvalPrediction:
    """What metrics are computed of."""
    others = {"inputs": prediction.inputs, "losses": prediction.losses}
    return EvalPrediction(prediction.predictions[0], prediction.label_ids, **others)


def _scores_all_pairs(config: LPSConfig, inputs: Mapping[str, Any]) -> bool:
    return label_kind(config.output_representation, config.inputs) == "link" and "pair_index" not in inputs


def _filled_up(logits: Any, size: int) -> Any:
    """Scores (rows, nodes, nodes), or a tuple of them and their errors, in a size that Trainer can join: it fills up one axis."""
    if isinstance(logits, tuple):
        return tuple(_filled_up(part, size) for part in logits)
    return None if logits is None else nn.functional.pad(logits, (0, size - logits.shape[2]), value=IGNORED)
