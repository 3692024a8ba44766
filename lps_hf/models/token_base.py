"""The base function f of a symmetrized model: fields to tokens, a pretrained backbone, and the read-out."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import ModelOutput

from .backbones import Backbone
from .configuration_lps import LPSConfig
from .projections import PROJECTIONS, READOUTS, make_projection, resize_axis
from .representations import Field


class TokenBase(nn.Module):
    """The base function f: input projections, summed; the backbone; the read-out.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: LPSConfig) -> None:
        super().__init__()
        output = config.output_representation
        self.output = output
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
                name: make_projection(representation, PROJECTIONS, self.backbone.token_size, *geometry)
                for name, representation in config.input_representations.items()
            }
        )
        self.readout = make_projection(output, READOUTS, self.backbone.hidden_size, *geometry)

    def forward(self, fields: dict[str, Field], num_nodes: int, **kwargs: Any) -> tuple[Tensor, ModelOutput]:
        """Apply f to every sample.

        Args:
            fields: Fields in rank order, leading shape `(batch, num_samples)`.
            num_nodes: Length of the batch's node axis, to which node axes of the output are brought.
            kwargs: Passed to the backbone.

        Returns:
            `torch.Tensor` of shape `(batch, num_samples, *axes)` and the backbone's output.
        """
        tokens = sum(projection(fields[name]) for name, projection in self.projections.items())
        batch, num_samples, _, hidden = tokens.shape
        tokens = tokens.expand(batch, num_samples, self.backbone.num_tokens, hidden).flatten(0, 1)
        backbone_output = self.backbone(tokens, **kwargs)
        result = self.readout(backbone_output.last_hidden_state, backbone_output.pooler_output)
        result = result.unflatten(0, (batch, num_samples))
        for dim in range(2, 2 + self.output.count("n")):
            result = resize_axis(result, dim, num_nodes)
        return result, backbone_output
