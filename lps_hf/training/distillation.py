"""Distillation of a model that averages many samples into one that needs a single pass: the canonical student.

The teacher φ is estimated with k samples of p(g|x), which costs k passes of the backbone. The student has the teacher's weights,
draws its one group element from the interface without noise, q(x, 0), and is trained on labels and on the teacher's softened
outputs (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531). Graphs and nodes.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.models.configuration_lps import PROBLEM_TYPES
from lps_hf.models.modeling_heads_lps import LPSTaskModel
from lps_hf.models.processing_lps import LPSProcessor

from .trainer import LPSTrainer

TEACHER = "teacher_output"
"""Column of a row, and key of a batch: the teacher's output for it."""


def canonical_student(teacher: LPSTaskModel) -> LPSTaskModel:
    """A copy of a model that takes the single group element of its interface without noise.

    Args:
        teacher: A model with a learned distribution; it is left as it is.

    Returns:
        The student: same class and weights, `distribution="canonical"`, one sample in training and at evaluation.

    Raises:
        ValueError: If the teacher has no interface to take the element from.
    """
    if teacher.config.distribution != "learned":
        raise ValueError(f"teacher: expected distribution='learned', got {teacher.config.distribution!r}.")
    config = copy.deepcopy(teacher.config)
    config.distribution, config.num_samples, config.num_eval_samples = "canonical", 1, 1
    student = type(teacher)(config)
    student.load_state_dict(teacher.state_dict())
    nn.Module.to(student, teacher.device)
    return student


@torch.no_grad()
def sampled_outputs(
    model: LPSTaskModel,
    processor: LPSProcessor,
    rows: Sequence[Mapping[str, Any]],
    num_samples: int,
    batch_size: int = 100,
    seed: int = 0,
    label: str = "samples",
) -> Tensor:
    """The output of every single sample, from which averages over any smaller number of samples can be made.

    Args:
        model: The model; it is put in evaluation mode.
        processor: Makes batches of rows.
        rows: The rows.
        num_samples: Draws of p(g|x) for each row.
        batch_size: Rows in a pass, which takes one sample of each.
        seed: Of the draws.
        label: Of the progress bar.

    Returns:
        `torch.Tensor` of shape `(num_samples, rows, num_labels)`, or `(num_samples, rows, nodes, num_labels)` with NaN on
        padding, on the CPU: independent along its first axis.
    """
    model.eval()
    generator = torch.Generator(model.device).manual_seed(seed)
    parts = []
    for start in tqdm(range(0, len(rows), batch_size), desc=label):
        batch = processor(list(rows[start : start + batch_size]), return_tensors="pt")
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
        draws = torch.stack([model(**inputs, num_samples=1, generator=generator).logits.cpu() for _ in range(num_samples)])
        if draws.dim() == 4:
            draws = draws.masked_fill(~batch["node_mask"][None, :, :, None], torch.nan)
        parts.append(draws)
    if parts[0].dim() == 4:
        nodes = max(part.shape[2] for part in parts)
        parts = [_pad_nodes(part, nodes) for part in parts]
    return torch.cat(parts, dim=1)


def _pad_nodes(outputs: Tensor, nodes: int) -> Tensor:
    """Outputs (…, nodes, num_labels) with more nodes, NaN on the new ones."""
    return F.pad(outputs, (0, 0, 0, nodes - outputs.shape[-2]), value=torch.nan)


def distillation_loss(student: Tensor, teacher: Tensor, problem_type: str, softening: float = 2.0) -> Tensor:
    """How far a student's outputs are from its teacher's; zero where they are equal.

    Args:
        student (`torch.Tensor` of shape `(batch, num_labels)` or `(batch, nodes, num_labels)`): Logits, or predictions of a
            regression.
        teacher (`torch.Tensor` of the same shape): Those of the teacher's average, NaN where there are none; no gradient reaches
            them.
        problem_type: `"single_label_classification"`: KL divergence of the classes' softened probabilities, times
            `softening ** 2`, so that its gradient does not fade with it; `"multi_label_classification"`: the same for each label,
            averaged over labels; `"regression"`: mean squared error.
        softening: The temperature T that logits are divided by; not used in regression.

    Returns:
        `torch.Tensor` of shape `()`.

    Raises:
        ValueError: If the shapes differ, the problem type is unknown or `softening` is not positive.
    """
    if student.shape != teacher.shape or student.dim() not in (2, 3):
        raise ValueError(
            "student, teacher: expected one shape (batch, num_labels) or (batch, nodes, num_labels), got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}."
        )
    if softening <= 0:
        raise ValueError(f"softening: expected a positive number, got {softening}.")
    known = ~teacher.isnan().any(dim=-1)
    student, teacher = student[known], teacher[known].detach().to(student.dtype)
    if problem_type == "regression":
        return F.mse_loss(student, teacher)
    if problem_type == "single_label_classification":
        divergence = _divergence((teacher / softening).log_softmax(-1), (student / softening).log_softmax(-1))
        return softening**2 * divergence.mean()
    if problem_type == "multi_label_classification":
        # Of each label the two outcomes: on and off.
        outcomes = [torch.stack([F.logsigmoid(x / softening), F.logsigmoid(-x / softening)], -1) for x in (teacher, student)]
        return softening**2 * _divergence(*outcomes).mean()
    raise ValueError(f"problem_type: expected one of {', '.join(map(repr, PROBLEM_TYPES))}, got {problem_type!r}.")


def _divergence(log_target: Tensor, log_probability: Tensor) -> Tensor:
    """KL(target ‖ probability) over the last axis."""
    return F.kl_div(log_probability, log_target, reduction="none", log_target=True).sum(dim=-1)


def with_teacher(rows: Sequence[Mapping[str, Any]], outputs: Tensor) -> list[dict[str, Any]]:
    """Rows with the teacher's output, (rows, num_labels) or (rows, nodes, num_labels), beside what they hold.

    Raises:
        ValueError: If there is not one output for each row.
    """
    if len(rows) != len(outputs):
        raise ValueError(f"outputs: expected one for each of the {len(rows)} rows, got {len(outputs)}.")
    of_nodes = outputs.dim() == 3
    own = [output[: row["num_nodes"]] if of_nodes else output for row, output in zip(rows, outputs, strict=True)]
    return [{**row, TEACHER: output.tolist()} for row, output in zip(rows, own, strict=True)]


@dataclass
class DataCollatorForDistillation(DataCollatorForGraphs):
    """`DataCollatorForGraphs` for rows of `with_teacher`: adds `teacher_output` with the shape of the logits, NaN on padding."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Collate one batch.

        Args:
            rows: Rows with or without the teacher's output.

        Returns:
            The batch as tensors.
        """
        batch = dict(super().__call__([{key: value for key, value in row.items() if key != TEACHER} for row in rows]))
        if all(TEACHER in row for row in rows):
            outputs = [torch.tensor(row[TEACHER], dtype=torch.float32) for row in rows]
            nodes = batch["node_mask"].shape[1] if "node_mask" in batch else 0
            batch[TEACHER] = torch.stack([_pad_nodes(output, nodes) if output.dim() == 2 else output for output in outputs])
        return batch


class DistillationTrainer(LPSTrainer):
    """`LPSTrainer` whose loss is `(1 - w) * loss of the labels + w * distillation_loss`; evaluation looks at labels only.

    Args:
        args: As of `Trainer`; rows are those of `with_teacher`, and a processor is the `processing_class`.
        distillation_weight: w, from 0 (labels only) to 1 (teacher only).
        softening: The temperature T of `distillation_loss`.
        kwargs: As of `Trainer`.

    Raises:
        ValueError: If the weight is not between 0 and 1.
    """

    def __init__(self, *args: Any, distillation_weight: float = 0.5, softening: float = 2.0, **kwargs: Any) -> None:
        if not 0 <= distillation_weight <= 1:
            raise ValueError(f"distillation_weight: expected a number from 0 to 1, got {distillation_weight}.")
        self.distillation_weight, self.softening = distillation_weight, softening
        if kwargs.get("data_collator") is None and kwargs.get("processing_class") is not None:
            kwargs["data_collator"] = DataCollatorForDistillation(kwargs["processing_class"])
        super().__init__(*args, **kwargs)

    def compute_loss(
        self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        inputs = dict(inputs)
        teacher = inputs.pop(TEACHER, None)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch, **kwargs)
        if teacher is not None and model.training:
            config = self.accelerator.unwrap_model(model).config
            student = outputs.logits
            if config.label_std is not None:
                # As the loss of the labels: in units of each target's spread.
                scale = student.new_tensor(config.label_std)
                student, teacher = student / scale, teacher / scale
            # Nodes have one kind of label only.
            problem_type = "single_label_classification" if student.dim() == 3 else config.problem_type
            distance = distillation_loss(student, teacher, problem_type, self.softening)
            loss = (1 - self.distillation_weight) * loss + self.distillation_weight * distance
        return (loss, outputs) if return_outputs else loss
