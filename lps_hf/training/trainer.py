"""A Trainer for symmetrized models; the plain `transformers.Trainer` works too."""

from typing import Any

import torch
from torch import nn
from transformers import Trainer

from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.models.modeling_lps import LPSPreTrainedModel


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


class LPSTrainer(Trainer):
    """`Trainer` with separate learning rates, the entropy loss in the logs, and repeatable evaluation.

    With a processor as `processing_class`, data sets hold raw rows and the collator makes the batches. Evaluation draws its group
    elements from a generator seeded by `args.seed`, so that evaluating the same weights again gives the same figures.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("data_collator") is None and kwargs.get("processing_class") is not None:
            kwargs["data_collator"] = DataCollatorForGraphs(kwargs["processing_class"])
        super().__init__(*args, **kwargs)
        self._entropy_losses: list[torch.Tensor] = []
        self._generator: torch.Generator | None = None

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        learning_rate = getattr(self.args, "backbone_learning_rate", None)
        if is_new and learning_rate is not None:
            set_backbone_learning_rate(optimizer, self.model, learning_rate)
        return optimizer

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

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._generator = torch.Generator(self.args.device).manual_seed(self.args.seed)
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self._generator = None

    def prediction_step(self, model: nn.Module, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        num_samples = getattr(self.args, "num_eval_samples", None)
        inputs = {**inputs, "generator": self._generator}
        if num_samples is not None:
            inputs["num_samples"] = num_samples
        return super().prediction_step(model, inputs, *args, **kwargs)
