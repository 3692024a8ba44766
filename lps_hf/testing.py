"""Equivariance, measured and asserted; for this package's tests and for yours."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lps_hf.models.distributions import EquivariantDistribution
from lps_hf.models.elements import Element, Permutation, ProductElement
from lps_hf.models.evaluation_mode import evaluation_mode
from lps_hf.models.group import Group
from lps_hf.models.modeling_heads_lps import LPSForLinkPrediction, LPSForNodeClassification
from lps_hf.models.modeling_lps import LPSModel, LPSPreTrainedModel
from lps_hf.models.representations import Representation
from lps_hf.models.symmetrization import mask_nodes, squared_size
from lps_hf.models.symmetrized import Symmetrized
from lps_hf.random_state import unchanged_random_state

# How a group acts on the tensors of a batch; what is not named is left alone, and edges are relabelled.
_BATCH_AXES = {
    **dict.fromkeys(("node_features", "node_categories", "charges"), "n 1"),
    **dict.fromkeys(("frame_ranks", "node_mask"), "n"),
    "positions": "n p",
    "velocities": "n v",
    "pixel_values": "1 h w",
}


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


def act_on_batch(group: Group, elements: Element, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Apply group elements to the tensors of a batch: h·x as the data set would have stored it.

    Args:
        group: The group.
        elements: One element h for every input, leading shape `(batch, 1)`. A permutation sends node i to number h(i).
        batch: The model's batch.

    Returns:
        The batch with nodes renamed, positions and velocities moved, or images turned.
    """
    moved = dict(batch)
    for key, axes in _BATCH_AXES.items():
        representation = Representation.parse(axes)
        if moved.get(key) is not None and representation.letters & group.letters:
            moved[key] = group.transform(elements, moved[key].unsqueeze(1), representation, invert=False).squeeze(1)
    parts = elements.factors if isinstance(elements, ProductElement) else (elements,)
    for part in parts:
        if isinstance(part, Permutation):
            for key, mask in (("edge_index", moved.get("edge_mask")), ("pair_index", None)):
                if moved.get(key) is not None:
                    ends = moved[key]
                    # Padding may point anywhere, and stays as it is.
                    valid = torch.ones_like(ends[:, 0], dtype=torch.bool) if mask is None else mask
                    valid = valid.unsqueeze(1)
                    renamed = part.index[:, 0].gather(1, ends.masked_fill(~valid, 0).flatten(1)).view_as(ends)
                    moved[key] = torch.where(valid, renamed, ends)
    return moved


def output_axes(model: LPSPreTrainedModel, batch: Mapping[str, Tensor]) -> Representation:
    """The axes of what a model or head returns for a batch, by which the group acts on it.

    Args:
        model: A model or head.
        batch: A batch of the processor.

    Returns:
        `Representation`: of `logits` or `output` without the batch's axis.
    """
    output = model.config.output_representation
    if isinstance(model, LPSForNodeClassification):
        return Representation(output.axes[-2:])  # of pairs of nodes, the head reads the diagonal
    if isinstance(model, LPSForLinkPrediction):
        pairs = batch.get("pair_index")
        return Representation(("n", "n")) if pairs is None else Representation((pairs.shape[-1],))
    return output


class _Subject:
    """What is measured of a model: its group, how the group acts on its inputs and output, and its answers."""

    def __init__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> None:
        # The model may be wrapped, by PEFT or `torch.compile`.
        head = next((module for module in model.modules() if isinstance(module, LPSPreTrainedModel)), None)
        if head is None:
            raise TypeError(f"model: expected a symmetrized model such as LPSModel, got {type(model).__name__}.")
        if not isinstance(batch, Mapping):
            raise TypeError(f"batch: expected a batch of the processor, got {type(batch).__name__}.")
        function: LPSModel = head if isinstance(head, LPSModel) else getattr(head, head.base_model_prefix)
        inputs = {key: value for key, value in batch.items() if key not in ("labels", "pair_index")}
        self.model, self.group, self.distribution = model, function.group, function.distribution
        self.output = output_axes(head, batch)
        self.encoded = function.encode(**inputs)
        self.inputs = {key: value for key, value in batch.items() if key != "labels"}
        if self.encoded.node_mask.shape[1]:
            self.inputs["node_mask"] = self.encoded.node_mask
        config = function.config
        self.num_samples = _number_of_samples(config.num_eval_samples, config.max_eval_samples, self.distribution)

    def moved(self, element: Element) -> dict[str, Tensor]:
        """The inputs h·x."""
        return act_on_batch(self.group, element, self.inputs)

    def answer(self, inputs: Mapping[str, Tensor], **options: Any) -> Tensor:
        """The estimate of φ."""
        outputs = self.model(**inputs, **options)
        return outputs.output if "output" in outputs else outputs.logits


class _SymmetrizedSubject:
    """The same of a module made by `symmetrize`; see `_Subject`."""

    def __init__(self, model: nn.Module, function: Symmetrized, batch: Tensor | Mapping[str, Tensor]) -> None:
        inputs = dict(batch) if isinstance(batch, Mapping) else {function.input_name or "input": batch}
        node_mask = inputs.pop("node_mask", None)
        self.model, self.function, self.group, self.output = model, function, function.group, function.output
        self.distribution = function.distribution
        self.encoded = function.encode_named(inputs, node_mask)
        self.inputs = {**inputs, "node_mask": self.encoded.node_mask}
        self.num_samples = _number_of_samples(function.num_eval_samples, function.max_eval_samples, self.distribution)

    def moved(self, element: Element) -> dict[str, Tensor]:
        """The inputs h·x."""
        moved = dict(self.inputs)
        for name, axes in {**self.function.inputs, "node_mask": Representation(("n",))}.items():
            if axes.letters & self.group.letters:
                moved[name] = self.group.transform(element, moved[name].unsqueeze(1), axes, invert=False).squeeze(1)
        return moved

    def answer(self, inputs: Mapping[str, Tensor], **options: Any) -> Tensor:
        """The estimate of φ."""
        given = dict(inputs)
        node_mask = given.pop("node_mask")
        first = (given.pop(self.function.input_name),) if self.function.input_name else ()
        return self.model(*first, **given, node_mask=node_mask, **options)


def _subject(model: nn.Module, batch: Any) -> Any:
    # The module may be wrapped, by `torch.compile`.
    function = next((module for module in model.modules() if isinstance(module, Symmetrized)), None)
    return _Subject(model, batch) if function is None else _SymmetrizedSubject(model, function, batch)


def _number_of_samples(configured: int | str, most: int, distribution: EquivariantDistribution) -> int:
    """How many are drawn at evaluation; `"auto"` would draw other numbers on both sides, so the most, in whole blocks."""
    if not isinstance(configured, str):
        return configured
    size = distribution.sampler_group_size
    return max(most // size, 1) * size


@unchanged_random_state()
@torch.no_grad()
def equivariance_error(
    model: LPSPreTrainedModel | Symmetrized,
    batch: Mapping[str, Tensor] | Tensor,
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
        batch: A batch of the processor; labels are ignored. Of a symmetrized module its input, or a dict of its inputs by name.
        num_group_elements: Number of random h.
        num_samples: Samples of the estimate of φ. Default: the model's `num_eval_samples`.
        symmetrized: False measures the backbone on the stored order, with the same weights.
        coupled: Move the noise along with the nodes.
        generator: Random source, on the batch's device. Default: one with a fixed seed, so that the same is measured again.

    Returns:
        `EquivarianceError`.

    Raises:
        ValueError: If `num_group_elements` or `num_samples` is less than 1, or the batch has no nodes.
        TypeError: If it is no symmetrized model.
    """
    subject = _subject(model, batch)
    group, output, node_mask = subject.group, subject.output, subject.encoded.node_mask
    num_samples = subject.num_samples if num_samples is None else num_samples
    for name, count in (("num_group_elements", num_group_elements), ("num_samples", num_samples)):
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}.")
    if generator is None:
        generator = torch.Generator(node_mask.device).manual_seed(0)
    squares, scale = [], 0.0
    with evaluation_mode(model):
        for _ in range(num_group_elements):
            here: dict[str, Any]
            there: dict[str, Any]
            element = group.haar(node_mask, 1, generator)
            moved = subject.moved(element)
            if not symmetrized:
                here = there = {"group_elements": group.identity(node_mask, 1).tensors}
            elif coupled:
                # Turned in double precision: rounding the noise differently would show as an error of the model.
                drawn = subject.distribution.draw_noise(subject.encoded, num_samples, generator)
                noise = {name: _in_double(part) for name, part in drawn.items()}
                # The element of each input acts on all samples of its noise.
                everywhere = element.map(lambda tensor: tensor.expand(-1, num_samples, *tensor.shape[2:]))
                axes = subject.distribution.noise_axes
                here = {"noise": noise}
                there = {"noise": {name: group.act(everywhere, part, axes[name]) for name, part in noise.items()}}
            else:
                here = there = {"num_samples": num_samples, "generator": generator}
            value = subject.answer(subject.inputs, **here)
            expected = mask_nodes(group.act(element, value.unsqueeze(1), output).squeeze(1), output, node_mask)
            squares.append(squared_size(subject.answer(moved, **there) - expected).mean())
            scale += squared_size(value).mean().item() / num_group_elements
    spread = torch.stack(squares).double()
    error = spread.mean().sqrt().item()
    # Delta method: the standard deviation of √m is that of m divided by 2√m.
    deviation = spread.std().item() / len(squares) ** 0.5 / (2 * error) if len(squares) > 1 and error > 0 else 0.0
    size = scale**0.5 if scale > 0 else float("nan")
    return EquivarianceError(error, deviation, error / size, deviation / size)


def assert_equivariant(
    model: LPSPreTrainedModel | Symmetrized,
    batch: Mapping[str, Tensor] | Tensor,
    tolerance: float = 1e-8,
    num_group_elements: int = 4,
) -> None:
    """Assert φ(h·x) = h·φ(x) under coupled noise, in float64.

    Args:
        model: The model; a copy in float64 is tested.
        batch: As for `equivariance_error`.
        tolerance: Largest relative error allowed.
        num_group_elements: Number of random h.

    Raises:
        AssertionError: If the error is larger.
    """
    double = copy.deepcopy(model)._apply(_in_double)
    measured = equivariance_error(double, _in_double(batch), num_group_elements, coupled=True)
    if not measured.relative_error <= tolerance:
        raise AssertionError(
            f"{type(model).__name__} is not equivariant to {_subject(model, batch).group.name}: relative error "
            f"{measured.relative_error:.3g} under coupled noise, expected at most {tolerance:.3g}."
        )


def _in_double(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return {key: _in_double(value) for key, value in batch.items()}
    is_number = batch.is_floating_point() or batch.is_complex()
    return batch.to(torch.promote_types(batch.dtype, torch.float64)) if is_number else batch
