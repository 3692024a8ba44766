"""Trainer callbacks."""

from typing import Any

from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments


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
