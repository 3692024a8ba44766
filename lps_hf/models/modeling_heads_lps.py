"""Task heads: a symmetrized model with the loss and the output type of a task."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.modeling_outputs import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_lps import LPSConfig, check_is_symmetrized
from .error_bars import confidence_interval
from .inferred_config import PARTICLE_DEFAULTS, Columns, as_splits, infer_config
from .losses import check_pairs, invariant_loss, node_loss, pair_loss, position_loss
from .modeling_lps import LPSModel, LPSModelOutput, LPSPreTrainedModel


@dataclass
class LPSTaskOutput(ModelOutput):
    """What a task head returns.

    Args:
        loss (`torch.FloatTensor` of shape `()`): Task loss of the mean output, plus `entropy_loss_coef * entropy_loss` and
            `prior_loss_coef * prior_loss`.
        logits (`torch.FloatTensor`): The prediction; its shape is in the head's documentation.
        standard_error (`torch.FloatTensor` of the same shape): Of the logits; `None` for one sample.
        degrees_of_freedom (`torch.DoubleTensor` of shape `(batch,)`): See `LPSModelOutput`.
        draws_agree (`torch.BoolTensor` of shape `(batch,)`): See `LPSModelOutput`.
        entropy_loss (`torch.FloatTensor` of shape `()`): See `LPSModelOutput`.
        prior_loss (`torch.FloatTensor` of shape `()`): See `LPSModelOutput`.
        num_samples (`torch.LongTensor` of shape `(batch,)`): See `LPSModelOutput`.
        group_elements (`torch.Tensor` or tuple): See `LPSModelOutput`.
        hidden_states (`tuple(torch.FloatTensor)`): See `LPSModelOutput`.
        attentions (`tuple(torch.FloatTensor)`): See `LPSModelOutput`.
        samples (`torch.FloatTensor` of shape `(batch, num_samples, *logits)`): What `logits` are the mean of, with
            `output_samples=True`; see `LPSModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    standard_error: Tensor | None = None
    degrees_of_freedom: Tensor | None = None
    draws_agree: Tensor | None = None
    entropy_loss: Tensor | None = None
    prior_loss: Tensor | None = None
    num_samples: Tensor | None = None
    group_elements: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    samples: Tensor | None = None

    def confidence_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper end of the interval that holds the logits of φ with probability `level`; see `error_bars`."""
        return confidence_interval(self.logits, self.standard_error, self.degrees_of_freedom, level)


def shows_inputs(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Show the arguments of `LPSModel.forward` in a head's signature: Trainer keeps the columns that it finds there."""
    own = inspect.signature(forward).parameters.values()
    inherited = inspect.signature(LPSModel.forward).parameters.values()
    named = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
    known = {parameter.name for parameter in named}
    named += [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in inherited if parameter.name not in known]
    forward.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    return forward


class LPSTaskModel(LPSPreTrainedModel):
    """What all heads share. The task loss is taken on the mean output of the samples, so it estimates the loss of φ.

    Subclasses define `output_axes`, what `config.output` may look like, `default_output` where it is not `num_labels` numbers,
    `read` where the prediction is a part of the output, and `task_loss`. With `config.sample_loss="mean_of_losses"` the loss in
    training is that of every sample, averaged.

    Args:
        config: The configuration.

    Raises:
        ValueError: If the configuration's inputs, output or problem type do not fit the task.
    """

    task: str
    """The task whose rows `infer_config` reads."""
    output_axes: tuple[str, ...]
    reads_images = False
    problem_types: tuple[str, ...] = ("single_label_classification", "multi_label_classification", "regression")
    loss_inputs: tuple[str, ...] = ("node_mask",)
    """The inputs that `read` and `task_loss` need."""

    def __init__(self, config: LPSConfig) -> None:
        self._check_inputs(config)
        if config.output is None and (fields := self.default_output(config)):
            # A copy: another head may be made of the same configuration.
            config = copy.deepcopy(config)
            for name, value in fields.items():
                setattr(config, name, value)
            config.validate_lps()
        super().__init__(config)
        output = config.output_representation
        axes = " ".join("c" if isinstance(axis, int) else axis for axis in output.axes)
        if axes not in self.output_axes:
            expected = " or ".join(map(repr, self.output_axes))
            raise ValueError(
                f"output: {type(self).__name__} expects {expected} with channels c, got {config.output!r}. Use LPSModel."
            )
        if "c" in axes and not output.count("v") and output.num_channels != config.num_labels:
            raise ValueError(
                f"output: expected num_labels={config.num_labels} numbers, got {config.output!r}. Leave output out, or set "
                "num_labels."
            )
        self.lps = LPSModel(config)
        self.supports_gradient_checkpointing = self.lps.supports_gradient_checkpointing
        self.post_init()

    @classmethod
    def infer_config(
        cls, dataset: Any, problem_type: str | None = None, column_mapping: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """See `LPSPreTrainedModel.infer_config`."""
        return infer_config(cls.task_of(as_splits(dataset, column_mapping)), dataset, problem_type, column_mapping)

    @classmethod
    def task_of(cls, splits: Mapping[str, Columns]) -> str:
        """The task of rows that this head is made for.

        Args:
            splits: The splits of a data set.

        Returns:
            `str`: A key of `TASK_COLUMNS`.
        """
        return cls.task

    @classmethod
    def default_output(cls, config: LPSConfig) -> dict[str, Any]:
        """The fields of a configuration that follow from `num_labels` where `output` is not given.

        Args:
            config: The configuration.

        Returns:
            `dict`: `output`, and what belongs to it; nothing where it is `num_labels` invariant numbers.
        """
        return {}

    @classmethod
    def _check_inputs(cls, config: LPSConfig) -> None:
        check_is_symmetrized("config", config)
        inputs, reads_images = config.input_representations, "pixel_values" in config.input_representations
        if reads_images and not cls.reads_images:
            raise ValueError(
                f"group: {cls.__name__} reads graphs or points, so expected a group such as 'S_n' or 'S_n x E(3)', got "
                f"{config.group!r}, which turns images. Use LPSForImageClassification for those."
            )
        if cls.reads_images and not reads_images:
            raise ValueError(
                f"group: {cls.__name__} reads images, so expected one that turns them, such as 'C_4' or 'D_4', got "
                f"{config.group!r} with the inputs {', '.join(inputs)}."
            )
        if config.problem_type not in (None, *cls.problem_types):
            expected = " or ".join(map(repr, cls.problem_types))
            raise ValueError(f"problem_type: {cls.__name__} expects {expected}, got {config.problem_type!r}.")

    @shows_inputs
    @can_return_tuple
    def forward(self, *, labels: Tensor | None = None, **inputs: Any) -> LPSTaskOutput:
        """Predict, and compare with labels.

        Args:
            labels (`torch.Tensor`): As the head's documentation says.
            inputs: See `LPSModel.forward`.

        Returns:
            `LPSTaskOutput`.

        Raises:
            ValueError: If an input or the labels have the wrong shape or range.
            TypeError: If they have the wrong type.
        """
        outputs = self.lps(**{**inputs, "return_dict": True})
        return self._task_output(outputs, labels, inputs)

    def read(self, output: Tensor, inputs: dict[str, Any]) -> Tensor:
        """What of the model's output (rows, *axes), or of its error, is the prediction; `inputs` have as many rows."""
        return output

    def task_loss(self, logits: Tensor, labels: Tensor, inputs: dict[str, Any]) -> Tensor:
        """The loss of the task, without regularisers, shape `()`."""
        raise NotImplementedError

    def _task_output(self, outputs: LPSModelOutput, labels: Tensor | None, inputs: dict[str, Any]) -> LPSTaskOutput:
        assert outputs.output is not None
        logits = self.read(outputs.output, inputs)
        standard_error = None if outputs.standard_error is None else self.read(outputs.standard_error, inputs)
        loss = samples = None
        if outputs.samples is not None:
            # Every sample of an input as an input of its own, which also gives the mean of their losses.
            count = outputs.samples.shape[1]
            rows = {key: inputs[key].repeat_interleave(count, dim=0) for key in self.loss_inputs if inputs.get(key) is not None}
            each = self.read(outputs.samples.flatten(0, 1), rows)
            samples = each.unflatten(0, (-1, count)) if inputs.get("output_samples") else None
        if labels is not None and self.lps.keeps_samples:
            loss = self.task_loss(each, labels.repeat_interleave(count, dim=0), rows)
        elif labels is not None:
            loss = self.task_loss(logits, labels, inputs)
        regularisers = (
            (self.config.entropy_loss_coef, outputs.entropy_loss),
            (self.config.prior_loss_coef, outputs.prior_loss),
        )
        for coefficient, term in regularisers:
            if loss is not None and term is not None:
                loss = loss + coefficient * term.to(loss.dtype)
        return LPSTaskOutput(
            loss=loss,
            logits=logits,
            standard_error=standard_error,
            degrees_of_freedom=outputs.degrees_of_freedom,
            draws_agree=outputs.draws_agree,
            entropy_loss=outputs.entropy_loss,
            prior_loss=outputs.prior_loss,
            num_samples=outputs.num_samples,
            group_elements=outputs.group_elements,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            samples=samples,
        )


class LPSForGraphClassification(LPSTaskModel):
    """Invariant outputs: classification, multi-label classification and regression of graphs, molecules and point clouds.

    `logits` has the shape `(batch, num_labels)`; labels are `(batch,)` int64 for one class, -100 ignored, or
    `(batch, num_labels)` float for several labels or regression, NaN ignored. `problem_type` is inferred from the labels where it
    is not set. With `label_mean` and `label_std` in the configuration the network predicts normalised targets: the loss is taken
    on those, `logits` and labels are in the data's unit.
    """

    task = "graph-classification"
    output_axes = ("c",)

    @classmethod
    def task_of(cls, splits: Mapping[str, Columns]) -> str:
        """See `LPSTaskModel.task_of`: rows with positions and no edges are molecules, or point clouds without features."""
        rows = next(iter(splits.values()))
        if cls.task != "graph-classification" or "positions" not in rows or "edge_index" in rows:
            return cls.task
        return "molecule-regression" if "node_feat" in rows else "point-cloud-classification"

    def _task_output(self, outputs: LPSModelOutput, labels: Tensor | None, inputs: dict[str, Any]) -> LPSTaskOutput:
        mean, std = (getattr(self.config, name) for name in ("label_mean", "label_std"))
        if mean is None:
            return super()._task_output(outputs, labels, inputs)
        output = outputs.output
        assert output is not None
        mean, std = (output.new_tensor(values) for values in (mean, std))
        if labels is not None:
            labels = labels.unsqueeze(-1) if labels.dim() == 1 and output.shape[1] == 1 else labels
            labels = (labels - mean) / std if labels.shape == output.shape else labels
        result = super()._task_output(outputs, labels, inputs)
        result.logits = mean + std * output
        result.standard_error = None if result.standard_error is None else std * result.standard_error
        result.samples = None if result.samples is None else mean + std * result.samples
        return result

    def task_loss(self, logits: Tensor, labels: Tensor, inputs: dict[str, Any]) -> Tensor:
        """See `invariant_loss`."""
        return invariant_loss(logits, labels, self.config.problem_type)


class LPSForPointCloudClassification(LPSForGraphClassification):
    """`LPSForGraphClassification` for sets of points, with `S_n x SO(3)` unless the configuration says otherwise."""

    task = "point-cloud-classification"

    @classmethod
    def config_defaults(cls, backbone_config: PreTrainedConfig, config_kwargs: dict[str, Any]) -> dict[str, Any]:
        """See `LPSPreTrainedModel.config_defaults`."""
        return {"group": "S_n x SO(3)", "problem_type": "single_label_classification", **config_kwargs}


class LPSForNodeClassification(LPSTaskModel):
    """Classification of nodes.

    `logits` has the shape `(batch, nodes, num_labels)`; labels are `(batch, nodes)` int64, -100 ignored.
    With the output `"n n c"` the logits are read on the diagonal, as the paper does for PATTERN. `class_weighted` in the
    configuration weighs classes by their absence in the batch.
    """

    task = "node-classification"
    output_axes = ("n c", "n n c")
    problem_types = ("single_label_classification",)

    def __init__(self, config: LPSConfig) -> None:
        super().__init__(config)
        self.lps.link = "softmax"

    def read(self, output: Tensor, inputs: dict[str, Any]) -> Tensor:
        """The output of nodes, (rows, nodes, num_labels): of pairs, the diagonal."""
        return output if output.dim() == 3 else output.diagonal(dim1=1, dim2=2).mT

    def task_loss(self, logits: Tensor, labels: Tensor, inputs: dict[str, Any]) -> Tensor:
        """See `node_loss`."""
        return node_loss(logits, labels, inputs.get("node_mask"), self.config.class_weighted)

    @classmethod
    def config_defaults(cls, backbone_config: PreTrainedConfig, config_kwargs: dict[str, Any]) -> dict[str, Any]:
        """See `LPSPreTrainedModel.config_defaults`."""
        return {"output": f"n {config_kwargs.get('num_labels', 2)}", **config_kwargs}

    @classmethod
    def default_output(cls, config: LPSConfig) -> dict[str, Any]:
        """See `LPSTaskModel.default_output`: `num_labels` numbers per node."""
        return {"output": f"n {config.num_labels}"}


class LPSForLinkPrediction(LPSTaskModel):
    """Prediction of links between nodes.

    `logits` has the shape `(batch, pairs)` for given `pair_index`, and otherwise `(batch, nodes, nodes)`: a score of every
    ordered pair. Labels are `(batch, pairs)` float, 1 for a link and 0 for none, NaN ignored.
    """

    task = "link-prediction"
    output_axes = ("n n c",)
    loss_inputs = ("node_mask", "pair_index")

    def __init__(self, config: LPSConfig) -> None:
        super().__init__(config)
        self.lps.link = "sigmoid"

    @shows_inputs
    @can_return_tuple
    def forward(self, *, labels: Tensor | None = None, pair_index: Tensor | None = None, **inputs: Any) -> LPSTaskOutput:
        """Score pairs of nodes; see `LPSTaskModel.forward`.

        Args:
            labels: See the class.
            pair_index (`torch.Tensor` of shape `(batch, 2, pairs)` int64): Source and target of the pairs to score; padding
                points to any node and has a NaN label.
            inputs: See `LPSModel.forward`.

        Returns:
            `LPSTaskOutput`.

        Raises:
            ValueError: If an input has the wrong shape or range, or there are labels and no pairs.
            TypeError: If it has the wrong type.
        """
        outputs = self.lps(**{**inputs, "return_dict": True})
        if pair_index is not None:
            check_pairs(pair_index, outputs.output.shape[:3], inputs.get("node_mask"))
        elif labels is not None:
            raise ValueError("pair_index: expected the pairs that the labels belong to, got None.")
        return self._task_output(outputs, labels, {**inputs, "pair_index": pair_index})

    def read(self, output: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Scores of the given pairs, (rows, pairs), or of all, (rows, nodes, nodes)."""
        scores, pair_index = output.squeeze(-1), inputs.get("pair_index")
        if pair_index is None:
            return scores
        source, target = pair_index.unbind(1)
        return scores.flatten(1).gather(1, source * scores.shape[2] + target)

    def task_loss(self, logits: Tensor, labels: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Binary cross-entropy; see `pair_loss`."""
        return pair_loss(logits, labels)

    @classmethod
    def config_defaults(cls, backbone_config: PreTrainedConfig, config_kwargs: dict[str, Any]) -> dict[str, Any]:
        """See `LPSPreTrainedModel.config_defaults`."""
        return {"output": "n n 1", "num_labels": 1, **config_kwargs}

    @classmethod
    def default_output(cls, config: LPSConfig) -> dict[str, Any]:
        """See `LPSTaskModel.default_output`: one number per pair, whatever transformers' own default of `num_labels` is."""
        return {"output": "n n 1", "num_labels": 1} if config.num_labels in (1, 2) else {"output": f"n n {config.num_labels}"}


class LPSForParticleDynamics(LPSTaskModel):
    """Prediction of the later positions of particles.

    `logits` are positions `(batch, nodes, d)` in the unit of the input; labels are the true ones, NaN ignored. By default the
    base function predicts displacements, which are added to the input positions (`residual="positions"`).
    """

    task = "particle-dynamics"
    output_axes = ("n p", "n v")

    def task_loss(self, logits: Tensor, labels: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Mean squared error over the coordinates of all particles; see `position_loss`."""
        return position_loss(logits, labels, inputs.get("node_mask"))

    @classmethod
    def config_defaults(cls, backbone_config: PreTrainedConfig, config_kwargs: dict[str, Any]) -> dict[str, Any]:
        """See `LPSPreTrainedModel.config_defaults`."""
        return {"group": "S_n x E(3)", **PARTICLE_DEFAULTS, **config_kwargs}

    @classmethod
    def default_output(cls, config: LPSConfig) -> dict[str, Any]:
        """See `LPSTaskModel.default_output`: positions, as a displacement from those of the input where it has them."""
        residual = config.residual or ("positions" if "positions" in config.input_representations else None)
        return {"output": "n p", "residual": residual}


class LPSForImageClassification(LPSTaskModel):
    """Image classification by any classifier of transformers, made invariant to turns, and reflections, of the image.

    `from_backbone_pretrained` keeps the classifier's last layer. `logits` has the shape `(batch, num_labels)`; labels are
    `(batch,)` int64, -100 ignored.
    """

    task = "image-classification"
    output_axes = ("c",)
    reads_images = True

    def __init__(self, config: LPSConfig) -> None:
        super().__init__(config)
        self.lps.link = "sigmoid" if config.problem_type == "multi_label_classification" else "softmax"

    def task_loss(self, logits: Tensor, labels: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Cross-entropy; see `invariant_loss`."""
        return invariant_loss(logits, labels, self.config.problem_type or "single_label_classification")

    @classmethod
    def config_defaults(cls, backbone_config: PreTrainedConfig, config_kwargs: dict[str, Any]) -> dict[str, Any]:
        """See `LPSPreTrainedModel.config_defaults`."""
        config_kwargs = {"group": "C_4", **config_kwargs}
        num_labels = config_kwargs.get("num_labels")
        if num_labels is None or num_labels == backbone_config.num_labels:
            names = {"id2label": backbone_config.id2label, "label2id": backbone_config.label2id}
            return {"num_labels": backbone_config.num_labels, **names, **config_kwargs}
        backbone_config.num_labels = num_labels
        return config_kwargs
