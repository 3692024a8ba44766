"""What symmetrization costs: a symmetrized model beside its bare backbone, below whose k passes it cannot go.

Costs are told as ratios to the bare backbone, same k, same process, measured in turn; absolute times mean little on a shared
machine.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, ViTConfig

from lps_hf.models.backbones import Backbone
from lps_hf.models.configuration_lps import LPSConfig

from .benchmarks import Elapsed, Part, elapsed, part_seconds, peak_memory

BACKBONES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
# The parts of `symmetrization_parts` that a bare backbone does not have.
ADDED_PARTS = ("encoding", "interface", "distribution", "projections", "readout")


def vit_config(size: str) -> ViTConfig:
    """The configuration of a ViT with 14 × 14 tokens.

    Args:
        size: `"tiny"`, `"small"`, `"base"` or the numbers `"<hidden size>x<layers>x<heads>"`.

    Returns:
        `ViTConfig`: with an MLP four times as wide as its tokens.

    Raises:
        ValueError: If `size` is neither a name nor three numbers.
    """
    try:
        hidden_size, num_layers, num_heads = BACKBONES.get(size) or (int(number) for number in size.split("x"))
    except ValueError:
        names = ", ".join(map(repr, BACKBONES))
        raise ValueError(f"size: expected {names} or three numbers such as '192x12x3', got {size!r}.") from None
    return ViTConfig(
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=4 * hidden_size,
    )


def bare_backbone(config: LPSConfig) -> Backbone:
    """The floor: the family's unmodified model on ready-made tokens, every token computed up to the final norm.

    It is not the model's own backbone, whose last block may compute no more than the read-out reads.

    Args:
        config: The symmetrized model's configuration.

    Returns:
        `Backbone`: with random weights, on as many tokens as the model's own.
    """
    backbone = config.backbone_config
    assert isinstance(backbone, PreTrainedConfig)  # LPSConfig has made it one
    return Backbone(backbone, config.grid_size, pooled=False, attn_implementation=backbone._attn_implementation)


def symmetrization_parts(model: Any) -> list[Part]:
    """The parts of a symmetrized model on pretrained tokens, for `part_seconds`.

    | part | what is in it |
    | --- | --- |
    | encoding | checks of the batch, one-hot fields, noise |
    | interface | the network q(x, ε), where its forward is called; otherwise it is in `distribution` |
    | distribution | the sort, Sinkhorn rounds, entropy |
    | projections | the action of the group on the inputs, and the projections to tokens |
    | backbone | the backbone |
    | readout | the read-out, the action on outputs, mean and standard error, the loss |

    Args:
        model: A task head.

    Returns:
        Parts in the order of the forward pass.
    """
    lps = model.lps
    parts = [Part(lps, "encoding", "readout"), Part(lps.distribution, "distribution", "projections")]
    interface = getattr(lps.distribution, "interface", None)
    if isinstance(interface, nn.Module):
        parts.append(Part(interface, "interface", "distribution"))
    parts.append(Part(lps.base, "projections", "readout"))
    parts.append(Part(lps.base.backbone, "backbone", "readout"))
    return parts


def added_seconds(parts: Mapping[str, float]) -> float:
    """Seconds of everything but the backbone, of what `part_seconds` returns."""
    return sum(seconds for name, seconds in parts.items() if not name.startswith("backbone"))


def added_share(parts: Mapping[str, float]) -> float:
    """Everything but the backbone over the backbone in the same pass."""
    added = added_seconds(parts)
    return added / (sum(parts.values()) - added)


class CostComparison:
    """A symmetrized model and its bare backbone, which does the same k passes on ready-made tokens.

    Args:
        model: A task head on a backbone that reads tokens.
        batch: Its inputs, with labels.
        num_samples: k.
        train: Forward and backward in training mode; otherwise forward in evaluation mode without gradient.
        dtype: Type of autocast; `None` for none.
        compiled: Whether both are compiled.
        floor_rows: Rows of the bare backbone's batch at a time; by default all at once.
        backbone: The bare backbone, where several models of one configuration share it; see `bare_backbone`.
    """

    def __init__(
        self,
        model: Any,
        batch: Mapping[str, Tensor],
        num_samples: int,
        train: bool = False,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
        floor_rows: int | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        self.batch, self.num_samples, self.train, self.dtype = dict(batch), num_samples, train, dtype
        self.device = self.batch["node_mask"].device
        self.model = model.to(self.device).train(train)
        self.backbone = (backbone or bare_backbone(model.config)).to(self.device).train(train)
        rows = len(self.batch["node_mask"]) * num_samples
        shape = rows, self.backbone.num_tokens, self.backbone.token_size
        generator = torch.Generator(self.device).manual_seed(0)
        self.tokens = torch.randn(shape, device=self.device, generator=generator, requires_grad=train)
        # Not ones: the gradient of a sum over normalised tokens is rounding error, which gets slow as it gets denormal.
        sizes = 1, self.backbone.num_tokens, self.backbone.hidden_size
        self.gradient = torch.randn(sizes, device=self.device, generator=generator)
        self.floor_rows = floor_rows or rows
        self._call_model: Any = torch.compile(self.model) if compiled else self.model
        self._call_backbone: Any = torch.compile(self.backbone) if compiled else self.backbone

    def run_model(self) -> None:
        """One pass of the symmetrized model."""
        with torch.set_grad_enabled(self.train):
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                outputs = self._call_model(**self.batch, num_samples=self.num_samples)
            if self.train:
                outputs.loss.backward()

    def run_backbone(self, tokens: Tensor | None = None, floor_rows: int | None = None) -> None:
        """One pass of the bare backbone on as many rows.

        Args:
            tokens (`torch.Tensor` of shape `(rows, tokens, token size)`): By default those made beforehand.
            floor_rows: Rows at a time; by default those of the class.
        """
        tokens = self.tokens if tokens is None else tokens
        with torch.set_grad_enabled(self.train):
            for rows in tokens.split(floor_rows or self.floor_rows):
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                    hidden = self._call_backbone(rows).last_hidden_state
                if self.train:
                    hidden.backward(self.gradient.to(hidden.dtype).expand_as(hidden))

    def model_rows(self) -> int:
        """Rows that the symmetrized model gives its backbone at a time, from one pass."""
        rows = [0]
        count = self.model.lps.base.backbone.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
        try:
            self.run_model()
        finally:
            count.remove()
        return max(rows)

    def forget_gradients(self) -> None:
        """Free the gradients of the last pass, so that every pass starts alike."""
        self.model.zero_grad(set_to_none=True)
        self.backbone.zero_grad(set_to_none=True)
        self.tokens.grad = None

    def elapsed_model(self) -> Elapsed:
        """Time a pass of the symmetrized model."""
        self.forget_gradients()
        return elapsed(self.run_model, self.device)

    def elapsed_backbone(self, floor_rows: int | None = None) -> Elapsed:
        """Time a pass of the bare backbone; see `run_backbone`."""
        self.forget_gradients()
        return elapsed(lambda: self.run_backbone(floor_rows=floor_rows), self.device)

    def part_seconds(self) -> dict[str, float]:
        """Time the parts of a pass of the symmetrized model; see `symmetrization_parts`."""
        self.forget_gradients()
        return part_seconds(self.run_model, symmetrization_parts(self.model), self.device)

    def peak_memory(self) -> dict[str, int]:
        """Peak of live tensor memory of a pass, in bytes beyond weights and batch; tokens and gradients are counted for both."""
        peaks = {}
        for name, run in (("model", self.run_model), ("backbone", lambda: self.run_backbone(self.tokens.clone()))):
            self.forget_gradients()
            peaks[name] = peak_memory(run, self.device)
        self.forget_gradients()
        return peaks
