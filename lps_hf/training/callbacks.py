"""Trainer callbacks."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from lps_hf.auto import MODEL_AUTO_CLASSES
from lps_hf.evaluation.environment import environment
from lps_hf.evaluation.metrics import metric_of
from lps_hf.evaluation.prediction import task_of
from lps_hf.hub.model_card import LPSModelCardData
from lps_hf.hub.results_files import CARD_FILE
from lps_hf.models.modeling_heads_lps import LPSTaskModel
from lps_hf.models.modeling_lps import LPSPreTrainedModel

from .tasks import figures_of, training_facts


class LossProgressCallback(ProgressCallback):
    """The Trainer's progress bar with the latest loss beside it, in place of a printed line for every log."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix({name: f"{logs[name]:.3f}" for name in ("loss", "entropy_loss") if name in logs})


class ModelCardCallback(TrainerCallback):
    """Fills the data of a model card while a model trains: settings, losses, budget, versions, and metrics as they come.

    `LPSTrainer` has one. With transformers' own `Trainer`, whose `push_to_hub` writes a card of its own, add one and publish with
    `lps_hf.hub.publish(model, processor, repo_id, card=callback.make_card(model))`.

    Args:
        data: What is given, such as the licence; its `results` are filled.
    """

    def __init__(self, data: LPSModelCardData | None = None) -> None:
        self.data = data or LPSModelCardData()
        self._evaluations: dict[int, dict[str, Any]] = {}

    def make_card(self, model: LPSPreTrainedModel) -> ModelCard:
        """The card of what is known by now.

        Args:
            model: The model that was trained.

        Returns:
            `huggingface_hub.ModelCard`.
        """
        return self.data.compute(model).render()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        results, rows = self.data.results, getattr(kwargs.get("train_dataloader"), "dataset", None)
        results.update(training=training_facts(args), seed=args.seed, environment=environment(args.device))
        if has_length(rows):
            results["num_train"] = len(rows)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        if losses:
            self.data.results.update(train_loss_first=losses[0], train_loss_last=losses[-1], steps=state.global_step)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        prefix = next((key.removesuffix("_runtime") for key in metrics or {} if key.endswith("_runtime")), None)
        if prefix is None or metrics is None:
            return
        results = self.data.results
        known = results.get("dataset") or {}
        rows = getattr(kwargs.get("eval_dataloader"), "dataset", None)
        evaluation: dict[str, Any] = {
            "test": figures_of(metrics, prefix),
            "dataset": {**known, "split": "evaluation" if prefix == "eval" else prefix},
            "num_test": len(rows) if has_length(rows) else None,
            # Figures of the weights before, which are no longer those of the model.
            **{name: None for name in ("baseline", "equivariance", "samples", "test_deviation") if name in results},
        }
        if isinstance(model, LPSTaskModel):
            evaluation["task"] = task = results.get("task") or task_of(model)
            if model.config.problem_type is not None or task != "graph-classification":  # else the labels decide, batch by batch
                evaluation["metric"] = metric_of(task, model.config.problem_type)
            evaluation["num_eval_samples"] = getattr(args, "num_eval_samples", None) or model.config.num_eval_samples
        results.update(evaluation)
        self._evaluations[state.global_step] = evaluation

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.data.results["steps"] = state.global_step
        if args.load_best_model_at_end:
            # These are the weights of an earlier step now.
            self.data.results.update(self._evaluations.get(state.best_global_step or 0, {}))

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and type(model).__name__ in MODEL_AUTO_CLASSES:
            self.make_card(model).save(Path(str(args.output_dir)) / CARD_FILE)
