"""The base function f of a symmetrized model: fields in, a tensor with the axes of the output out. Any network will do.

| base function | backbone | reads |
| --- | --- | --- |
| `TokenBase` | a pretrained transformer (`supported_families()`) | fields projected to its tokens |
| `ImageBase` | any image classifier of transformers, with its classifier | `pixel_values` |
| `NetworkBase` | the small networks of the paper (`BASE_NETWORKS`) | the fields themselves |
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoModel,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ModelOutput
from transformers.utils import logging

from .backbones import Backbone
from .base_networks import BASE_NETWORKS
from .configuration_lps import LPSConfig
from .groups import get_group
from .permutations import permute
from .plane_groups import PlaneGroup
from .projections import PROJECTIONS, READOUTS, make_projection, resize_axis
from .representations import EdgeField, Field


class BaseFunction(nn.Module):
    """What all base functions share.

    Subclasses set `backbone`, whose parameters may come from a checkpoint.
    """

    backbone: nn.Module
    frozen = False

    def freeze(self) -> None:
        """Leave the backbone as it is: no gradient, and no new statistics or dropout in training mode."""
        self.frozen = True
        self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "BaseFunction":
        """Set training mode, of everything but a frozen backbone."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    @property
    def pretrained_model(self) -> PreTrainedModel | None:
        """The transformers model in the backbone, where there is one."""
        return None

    def forward(self, fields: dict[str, Field], node_mask: Tensor, **kwargs: Any) -> tuple[Tensor, ModelOutput]:
        """Apply f to every sample.

        Args:
            fields: Fields in rank order, leading shape `(batch, num_samples)`.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes, which come before padding.
            kwargs: Passed to the backbone.

        Returns:
            `torch.Tensor` of shape `(batch, num_samples, *axes)`, node axes as long as the batch's, and the backbone's output.
        """
        raise NotImplementedError

    def load_pretrained(self, pretrained: str | PreTrainedModel, **hub: Any) -> None:
        """Copy the weights of a pretrained model into the backbone.

        Args:
            pretrained: Hub id, folder, or the loaded model.
            hub: `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            ValueError: If there are no checkpoints of this backbone, or this one lacks weights.
            OSError: If it cannot be found.
        """
        raise ValueError(
            f"{type(self.backbone).__name__}: expected a backbone with pretrained checkpoints. Build it from a config."
        )


class TokenBase(BaseFunction):
    """Input projections, summed; a pretrained transformer; the read-out.

    Args:
        config: The model's configuration.
    """

    backbone: Backbone

    def __init__(self, config: LPSConfig) -> None:
        super().__init__()
        self.output = output = inner_output(config)
        self.dimension = get_group(config.group).dimension
        backbone_config = config.backbone_config
        assert isinstance(backbone_config, PreTrainedConfig)  # LPSConfig has made it one
        self.backbone = Backbone(
            backbone_config,
            grid_size=config.grid_size,
            patch_dropout=config.patch_dropout,
            pooled=output.count("n") == 0,
            attn_implementation=backbone_config._attn_implementation,
        )
        geometry = config.max_nodes, self.backbone.grid_size, config.padding_mode, config.centered_padding
        self.projections = nn.ModuleDict(
            {
                name: make_projection(axes, PROJECTIONS, axes.width(self.dimension), self.backbone.token_size, *geometry)
                for name, axes in config.base_representations.items()
            }
        )
        width = output.width(self.dimension)
        self.readout = make_projection(output, READOUTS, width, self.backbone.hidden_size, *geometry)

    @property
    def pretrained_model(self) -> PreTrainedModel:
        """The transformer in the backbone."""
        return self.backbone.model

    def forward(self, fields: dict[str, Field], node_mask: Tensor, **kwargs: Any) -> tuple[Tensor, ModelOutput]:
        """Apply f to every sample; see `BaseFunction.forward`."""
        tokens = sum(projection(fields[name]) for name, projection in self.projections.items())
        batch, num_samples, _, hidden = tokens.shape
        tokens = tokens.expand(batch, num_samples, self.backbone.num_tokens, hidden).flatten(0, 1)
        backbone_output = self.backbone(tokens, **kwargs)
        result = self.readout(backbone_output.last_hidden_state, backbone_output.pooler_output)
        result = result.unflatten(0, (batch, num_samples))
        for dim in range(2, 2 + self.output.count("n")):
            result = resize_axis(result, dim, node_mask.shape[1])
        if self.output.letters & {"v", "p"} and len(self.output.axes) > 1 + self.output.count("n"):
            result = result.unflatten(-1, (self.dimension, -1))
        return result, backbone_output

    def load_pretrained(self, pretrained: str | PreTrainedModel, **hub: Any) -> None:
        """Copy the weights of a pretrained transformer; see `BaseFunction.load_pretrained`."""
        if isinstance(pretrained, PreTrainedModel):
            # Of a model with a head, what is below it.
            self.backbone.load_weights_from(getattr(pretrained, pretrained.base_model_prefix, pretrained))
            return
        name_or_path = pretrained
        pretrained, missing, _ = _load_quietly(AutoModel, name_or_path, hub)
        missing = {key.removeprefix("vision_model.") for key in missing} & set(self.backbone.model.state_dict())
        _refuse_missing(name_or_path, self.backbone.model.config.model_type, missing)
        self.backbone.load_weights_from(pretrained)


class ImageBase(BaseFunction):
    """An image classifier of transformers as it is, from pixels to logits.

    Args:
        config: The model's configuration; `backbone_config` is the classifier's.
    """

    backbone: PreTrainedModel

    def __init__(self, config: LPSConfig) -> None:
        super().__init__()
        backbone_config = config.backbone_config
        assert isinstance(backbone_config, PreTrainedConfig)
        _check_reads_images(config, backbone_config)
        output = config.output_representation
        if output.letters or output.num_channels != backbone_config.num_labels:
            raise ValueError(
                f"output: expected {str(backbone_config.num_labels)!r}, the number of classes of the image classifier, got "
                f"{str(output)!r}. Set num_labels in both configurations."
            )
        self.backbone = AutoModelForImageClassification.from_config(backbone_config, dtype=torch.get_default_dtype())

    @property
    def pretrained_model(self) -> PreTrainedModel:
        """The classifier."""
        return self.backbone

    def forward(self, fields: dict[str, Field], node_mask: Tensor, **kwargs: Any) -> tuple[Tensor, ModelOutput]:
        """Apply f to every sample; see `BaseFunction.forward`."""
        images = fields["pixel_values"]
        assert isinstance(images, Tensor)  # edge lists are fields of graphs
        weight = next(self.backbone.parameters())
        try:
            output = self.backbone(pixel_values=images.flatten(0, 1).to(weight.dtype), return_dict=True, **kwargs)
        except RuntimeError as error:
            # torch tells the size of an inner image, between two layers of the classifier.
            if "Kernel size can't be greater than actual input size" not in str(error):
                raise
            height, width = images.shape[-2:]
            raise ValueError(
                f"pixel_values: expected images that are large enough for {type(self.backbone).__name__}, got height {height} "
                f"and width {width}. Resize them, or make the processor with an image_processor that does."
            ) from error
        return output.logits.unflatten(0, images.shape[:2]), output

    def load_pretrained(self, pretrained: str | PreTrainedModel, **hub: Any) -> None:
        """Copy the weights of a pretrained classifier, its last layer too where the number of classes is the same."""
        if isinstance(pretrained, PreTrainedModel):
            self._copy_weights(pretrained)
            return
        name_or_path = pretrained
        options = {"num_labels": self.backbone.config.num_labels, "ignore_mismatched_sizes": True, **hub}
        pretrained, missing, mismatched = _load_quietly(AutoModelForImageClassification, name_or_path, options)
        # A last layer that the checkpoint has not, or has for other classes, is new; everything before it must be there.
        prefix = f"{pretrained.base_model_prefix}."
        missing |= mismatched
        _refuse_missing(name_or_path, self.backbone.config.model_type, {key for key in missing if key.startswith(prefix)})
        self.backbone.load_state_dict(pretrained.state_dict())

    def _copy_weights(self, pretrained: PreTrainedModel) -> None:
        """Copy the weights of a loaded model: all but those of a last layer that it has not, or has for other classes."""
        prefix, own = f"{self.backbone.base_model_prefix}.", self.backbone.state_dict()
        given = pretrained.state_dict()
        if not any(key.startswith(prefix) for key in given):  # a model without a head
            given = {f"{prefix}{key}": weight for key, weight in given.items()}
        fitting = {key: weight for key, weight in given.items() if key in own and weight.shape == own[key].shape}
        missing = {key for key in own if key.startswith(prefix) and key not in fitting}
        _refuse_missing(type(pretrained).__name__, self.backbone.config.model_type, missing)
        self.backbone.load_state_dict(fitting, strict=False)


class NetworkBase(BaseFunction):
    """One of the small networks of the paper, which read the fields themselves.

    Args:
        config: The model's configuration; `backbone_config` is one of `BASE_NETWORK_CONFIGS`.
    """

    def __init__(self, config: LPSConfig) -> None:
        super().__init__()
        backbone_config, self.inputs = config.backbone_config, config.base_representations
        assert isinstance(backbone_config, PreTrainedConfig)
        self.backbone = BASE_NETWORKS[backbone_config.model_type](
            backbone_config,
            inputs=self.inputs,
            output=inner_output(config),
            max_nodes=config.max_nodes,
            dimension=get_group(config.group).dimension,
        )

    def forward(self, fields: dict[str, Field], node_mask: Tensor, **kwargs: Any) -> tuple[Tensor, ModelOutput]:
        """Apply f to every sample; see `BaseFunction.forward`."""
        dtype = next(self.parameters()).dtype
        dense = {
            name: _dense(field, node_mask.shape[1], self.inputs[name].num_channels).to(dtype) for name, field in fields.items()
        }
        result, hidden_states = self.backbone(dense, node_mask)
        return result, ModelOutput(hidden_states=hidden_states if kwargs.get("output_hidden_states") else None)


def inner_output(config: LPSConfig) -> Any:
    """What the base function returns: the output, or where a residual is added to it, the difference."""
    output = config.output_representation
    if config.residual is None or not output.count("p"):
        return output
    return type(output)(tuple("v" if axis == "p" else axis for axis in output.axes))


def make_base_function(config: LPSConfig) -> BaseFunction:
    """Make the base function that fits a configuration."""
    if "pixel_values" in config.input_representations:
        return ImageBase(config)
    if getattr(config.backbone_config, "model_type", None) in BASE_NETWORKS:
        return NetworkBase(config)
    return TokenBase(config)


def _check_reads_images(config: LPSConfig, backbone_config: PreTrainedConfig) -> None:
    """Refuse a backbone that is no classifier of the images that the group turns."""
    if type(backbone_config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"backbone_config: expected an image classifier of transformers, such as 'vit', for the input pixel_values, got "
            f"{backbone_config.model_type!r}."
        )
    channels = config.input_representations["pixel_values"].num_channels
    expected = getattr(backbone_config, "num_channels", channels)
    if channels != expected:
        raise ValueError(
            f"inputs['pixel_values']: expected '{expected} h w', the channels of the image classifier, got "
            f"{str(config.input_representations['pixel_values'])!r}. Leave inputs out, or set num_channels of the backbone."
        )
    size = getattr(backbone_config, "image_size", None)
    turns = [factor.num_rotations for factor in get_group(config.group).factors if isinstance(factor, PlaneGroup)]
    if isinstance(size, list | tuple) and len(set(size)) > 1 and any(number % 4 == 0 for number in turns):
        raise ValueError(
            f"group: {config.group} has quarter turns and expects square images, but the image classifier reads {size[0]} x "
            f"{size[1]}. Choose C_2 or D_2, or a classifier of squares."
        )


def _dense(field: Field, num_nodes: int, num_channels: int) -> Tensor:
    """A field as a tensor (batch, num_samples, *axes); an `EdgeField` as the matrix that it lists, in rank order."""
    if not isinstance(field, EdgeField):
        return field
    batch = field.features.shape[0]
    source, target = field.index.unbind(1)
    place = (source * num_nodes + target).unsqueeze(-1) * num_channels + field.entry_channels
    matrix = field.features.new_zeros(batch, num_nodes**2 * num_channels)
    matrix = matrix.scatter_add(1, place.flatten(1), field.features.flatten(1))
    matrix = matrix.view(batch, 1, num_nodes, num_nodes, num_channels)
    if field.permutation is None:
        return matrix
    rows = permute(matrix, field.permutation, dim=2, transpose=True)
    return permute(rows, field.permutation, dim=3, transpose=True)


def _load_quietly(auto_class: Any, name_or_path: str, options: dict[str, Any]) -> tuple[PreTrainedModel, set[str], set[str]]:
    """A pretrained model, and the names of weights that its checkpoint lacks or has in another shape."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the report names poolers that a checkpoint lacks and nobody here reads
    try:
        model, report = auto_class.from_pretrained(name_or_path, dtype=torch.float32, output_loading_info=True, **options)
    finally:
        logging.set_verbosity(verbosity)
    return model, set(report["missing_keys"]), {key for key, *_ in report.get("mismatched_keys", ())}


def _refuse_missing(name_or_path: str, model_type: str, missing: set[str]) -> None:
    if missing:
        raise ValueError(
            f"{name_or_path}: expected the weights of a {model_type} backbone, but the checkpoint lacks "
            f"{', '.join(sorted(missing)[:5])}{' …' if len(missing) > 5 else ''}."
        )
