"""Arguments of `LPSTrainer`."""

from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class LPSTrainingArguments(TrainingArguments):
    """`TrainingArguments` with what symmetrized models need on top.

    Args:
        backbone_learning_rate (`float`, *optional*): Learning rate of the pretrained backbone; the projections, the interface
            and the read-out are new and train at `learning_rate`. `None`: the same for all (the paper's setting).
        num_eval_samples (`int`, *optional*): Group elements per input at evaluation. `None`: as in the model's config.
    """

    backbone_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the pretrained backbone; by default that of the new parameters."}
    )
    num_eval_samples: int | None = field(
        default=None, metadata={"help": "Group elements per input at evaluation; by default as in the model's config."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop columns before the collator. The processor reads raw rows, so keep this off."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # Memory is pinned for copies to an accelerator; without one PyTorch only warns.
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"
        if self.backbone_learning_rate is not None and not self.backbone_learning_rate >= 0:
            raise ValueError(f"backbone_learning_rate: expected a number of at least 0, got {self.backbone_learning_rate}.")
        if self.num_eval_samples is not None and self.num_eval_samples < 1:
            raise ValueError(f"num_eval_samples: expected at least 1, got {self.num_eval_samples}.")
