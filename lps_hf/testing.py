"""Equivariance, measured and asserted; for this package's tests and for yours."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lps_hf.models.groups import get_group
from lps_hf.models.modeling_lps import LPSModel, LPSPreTrainedModel
from lps_hf.models.representations import Permutation, Representation

_NODE_AXIS = Representation.parse("n 1")


class EquivarianceError(NamedTuple):
    """How far φ(h·x) is from h·φ(x), over random h."""

    error: float
    """Root mean square of φ(h·x) - h·φ(x), in units of the output."""
    standard_error: float
    """Of `error`, over the group elements drawn."""
    relative_error: float
    """`error` divided by the root mean square of φ(x)."""
    relative_standard_error: float
    """Of `relative_error`."""


def act_on_batch(elements: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the nodes of a batch: h·x as the data set would have stored it.

    Args:
        elements (`torch.Tensor` of shape `(batch, nodes)` int64): Permutations h, h(i) is the new name of node i.
        batch: The model's batch.

    Returns:
        The batch with node tensors moved and edge ends renamed.
    """
    permutation = Permutation(elements.unsqueeze(1))
    moved = dict(batch)
    for key in ("node_features", "node_categories", "frame_ranks", "node_mask"):
        if moved.get(key) is not None:
            tensor = moved[key].reshape(*moved[key].shape[:2], -1)
            acted = get_group("S_n").act(permutation, tensor.unsqueeze(1), _NODE_AXIS).squeeze(1)
            moved[key] = acted.reshape(moved[key].shape)
    ends = moved["edge_index"].flatten(1)
    moved["edge_index"] = elements.gather(1, ends).view_as(moved["edge_index"])
    return moved


def _output_of(model: LPSPreTrainedModel, batch: Mapping[str, Any], **kwargs: Any) -> Tensor:
    outputs = model(**{key: value for key, value in batch.items() if key != "labels"}, **kwargs)
    return outputs.output if "output" in outputs else outputs.logits


@torch.no_grad()
def equivariance_error(
    model: LPSPreTrainedModel,
    batch: Mapping[str, Tensor],
    num_group_elements: int = 8,
    num_samples: int | None = None,
    symmetrized: bool = True,
    coupled: bool = False,
    generator: torch.Generator | None = None,
) -> EquivarianceError:
    """Measure the equivariance error of a model on a batch.

    With independent draws on both sides the error of an equivariant φ is Monte-Carlo error alone and falls as 1/√num_samples;
    that of the plain backbone stays. With coupled noise, q(h·x, h·ε) = h·q(x, ε), only rounding is left.

    Args:
        model: The model; it is measured in evaluation mode.
        batch: A batch of the processor; labels are ignored.
        num_group_elements: Number of random h.
        num_samples: Samples of the estimate of φ. Default: the model's `num_eval_samples`.
        symmetrized: False measures the backbone on the stored order, with the same weights.
        coupled: Move the noise along with the nodes.
        generator: Random source, on the batch's device.

    Returns:
        `EquivarianceError`.

    Raises:
        ValueError: If `num_group_elements` or `num_samples` is less than 1, or the batch has no nodes.
    """
    base: LPSModel = model if isinstance(model, LPSModel) else getattr(model, model.base_model_prefix)
    group, output = base.group, base.config.output_representation
    if batch.get("node_mask") is None:
        nodes = next((batch[key] for key in ("node_categories", "node_features") if batch.get(key) is not None), None)
        if nodes is None:
            raise ValueError(f"batch: expected the key 'node_mask', 'node_categories' or 'node_features', got {sorted(batch)}.")
        batch = {**batch, "node_mask": torch.ones(nodes.shape[:2], dtype=torch.bool, device=nodes.device)}
    node_mask = batch["node_mask"]
    num_samples = base.config.num_eval_samples if num_samples is None else num_samples
    for name, count in (("num_group_elements", num_group_elements), ("num_samples", num_samples)):
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}.")
    squares, scale = [], 0.0
    was_training = model.training
    model.eval()
    try:
        for _ in range(num_group_elements):
            here: dict[str, Any]
            there: dict[str, Any]
            element = group.haar(node_mask, 1, generator)
            moved = act_on_batch(element.index.squeeze(1), batch)
            if not symmetrized:
                identity = group.identity(node_mask.shape[0], 1, node_mask.shape[1], device=node_mask.device).index
                here, there = {"group_elements": identity}, {"group_elements": identity}
            elif coupled:
                noise = base.draw_noise(node_mask, num_samples, generator)
                # The element of each graph acts on all samples of its noise.
                moved_noise = group.act(Permutation(element.index.expand(-1, num_samples, -1)), noise, _NODE_AXIS)
                here, there = {"noise": noise}, {"noise": moved_noise}
            else:
                here = there = {"num_samples": num_samples, "generator": generator}
            value = _output_of(model, batch, **here)
            expected = group.act(element, value.unsqueeze(1), output).squeeze(1)
            squares.append((_output_of(model, moved, **there) - expected).square().mean())
            scale += value.square().mean().item() / num_group_elements
    finally:
        model.train(was_training)
    spread = torch.stack(squares).double()
    error = spread.mean().sqrt().item()
    # Delta method: the standard deviation of √m is that of m divided by 2√m.
    deviation = spread.std().item() / len(squares) ** 0.5 / (2 * error) if len(squares) > 1 and error > 0 else 0.0
    size = scale**0.5 if scale > 0 else float("nan")
    return EquivarianceError(error, deviation, error / size, deviation / size)


def assert_equivariant(
    model: LPSPreTrainedModel, batch: Mapping[str, Tensor], tolerance: float = 1e-8, num_group_elements: int = 4
) -> None:
    """Assert φ(h·x) = h·φ(x) under coupled noise, in float64.

    Args:
        model: The model; a copy in float64 is tested.
        batch: A batch of the processor.
        tolerance: Largest relative error allowed.
        num_group_elements: Number of random h.

    Raises:
        AssertionError: If the error is larger.
    """
    double = copy.deepcopy(model).double()
    batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    measured = equivariance_error(double, batch, num_group_elements, coupled=True)
    if not measured.relative_error <= tolerance:
        raise AssertionError(
            f"{type(model).__name__} is not equivariant to {model.config.group}: relative error {measured.relative_error:.3g} "
            f"under coupled noise, expected at most {tolerance:.3g}."
        )
