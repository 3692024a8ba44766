"""Arguments of `LPSTrainer`."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from lps_hf.models.configuration_lps import check_num_samples
from lps_hf.models.field_types import check_fields


@dataclass
class LPSTrainingArguments(TrainingArguments):
    """`TrainingArguments` with what symmetrized models need on top.

    Args:
        backbone_learning_rate (`float`, *optional*): Learning rate of the pretrained backbone; the projections, the interface
            and the read-out are new and train at `learning_rate`. `None`: the same for all (the paper's setting).
        num_eval_samples (`int` or `str`, *optional*): Group elements per input at evaluation, or `"auto"`: as many as the error
            bar asks for. `None`: as in the model's config.
        pad_to_power_of (`float`, *optional*): Round the lengths of a batch up to a power of this, so that a compiled model meets
            few shapes; see `DataCollatorForGraphs`.
    """

    backbone_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the pretrained backbone; by default that of the new parameters."}
    )
    num_eval_samples: int | str | None = field(
        default=None, metadata={"help": "Group elements per input at evaluation, or 'auto'; by default as in the model's config."}
    )
    pad_to_power_of: float | None = field(
        default=None, metadata={"help": "Round the lengths of a batch up to a power of this, to compile few shapes."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop columns before the collator. The processor reads raw rows, so keep this off."}
    )

    def __post_init__(self) -> None:
        if isinstance(self.num_eval_samples, str) and self.num_eval_samples.isdecimal():
            self.num_eval_samples = int(self.num_eval_samples)  # from a command line
        check_fields(self, LPSTrainingArguments)
        super().__post_init__()
        # Memory is pinned for copies to an accelerator; without one PyTorch only warns.
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"
        if self.backbone_learning_rate is not None and not self.backbone_learning_rate >= 0:
            raise ValueError(f"backbone_learning_rate: expected a number of at least 0, got {self.backbone_learning_rate}.")
        if self.num_eval_samples not in (None, "auto"):
            check_num_samples("num_eval_samples", self.num_eval_samples)
