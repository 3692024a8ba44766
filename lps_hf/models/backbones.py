"""Pretrained backbones fed with ready-made tokens: one row of a table per family.

A backbone is the base function f of the paper. Its inputs here are `grid * grid` tokens of the backbone's own width,
made by the projections, instead of pixels or words. Everything behind the first layer stays the family's own code
and weights: class and register tokens, position embeddings, blocks, norms, attention masks.

How pixels are avoided: the family's model is built with `image_size=grid`, `patch_size=1` and
`num_channels=hidden_size`, so that one pixel *is* one token, and its patch convolution is replaced by an identity.
Text encoders take tokens as `inputs_embeds`. Modules that nothing reads are not kept (poolers, mask tokens, the patch
convolution, the word table): an unused parameter breaks data-parallel training.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .last_block import BlockNames, return_first_token_only

DEFAULT_TEXT_GRID = 14  # as many tokens as a ViT sees at 224 pixels and patches of 16


@dataclass(frozen=True)
class BackboneFamily:
    """What has to be known about a family of pretrained models to feed it with tokens; the defaults are ViT's.

    Args:
        input_path: Module that turns pixels or words into tokens; it is replaced by `TokenInput`.
        is_text: Whether tokens enter as `inputs_embeds`; otherwise as an image of tokens.
        num_class_tokens: Tokens the family puts before the patches, register tokens not counted.
        pooling: The pooled vector: the first token after the final norm (`"class"`), the family's own pooling layer
            (`"own"`, the mean where a checkpoint has none), or the mean of the tokens (`"mean"`).
        pooling_modules: Modules that only make the family's pooled vector; an identity where nobody reads it.
        position_path: Table of absolute positions of the grid, interpolated when the grid differs.
        num_reserved_positions: Rows of a text position table that no token uses; `None`: `config.pad_token_id + 1`.
        masks_patches: Whether the family drops and shuffles patches unless it is told not to.
        block_names: Where the last block is and what its parts are called, in families whose pooled vector is made from
            the first token: then nothing else has to leave that block. `None`: every token leaves it.
    """

    input_path: str = "embeddings.patch_embeddings.projection"
    is_text: bool = False
    num_class_tokens: int = 1
    pooling: Literal["class", "own", "mean"] = "class"
    pooling_modules: tuple[str, ...] = ("pooler",)
    position_path: str | None = "embeddings.position_embeddings"
    num_reserved_positions: int | None = 0
    masks_patches: bool = False
    block_names: BlockNames | None = None


_DINO_BLOCK = BlockNames("encoder.layer", norm="norm1")
_VIT = BackboneFamily(block_names=BlockNames())
_DINO = replace(_VIT, block_names=_DINO_BLOCK)
_TEXT = BackboneFamily("embeddings.word_embeddings", True, 0, pooling="mean", position_path=None)
_TEXT_AFTER_PADDING = replace(_TEXT, num_reserved_positions=None)
_CLIP = BackboneFamily(
    "embeddings.patch_embedding",
    pooling="own",
    pooling_modules=("post_layernorm",),
    position_path="embeddings.position_embedding.weight",
    block_names=BlockNames("encoder.layers", "layer_norm1", "self_attn", "out_proj", "scale", "dropout"),
)

# Keyed by `model_type`, not by class: after a load with remote code the classes are other ones, the strings are not.
BACKBONE_FAMILIES: dict[str, BackboneFamily] = {
    "vit": _VIT,
    "deit": replace(_VIT, num_class_tokens=2),  # class and distillation token
    "vit_mae": replace(_VIT, masks_patches=True),
    "beit": BackboneFamily(pooling="own"),  # the mean of all tokens, but for `use_mean_pooling=False`
    "dinov2": _DINO,
    "dinov2_with_registers": _DINO,
    "dinov3_vit": replace(
        _DINO,
        input_path="embeddings.patch_embeddings",
        position_path=None,
        block_names=replace(_DINO_BLOCK, blocks="model.layer", dropout="dropout"),
    ),
    "clip_vision_model": _CLIP,
    "siglip_vision_model": replace(_CLIP, num_class_tokens=0, pooling_modules=("head",), block_names=None),
    **dict.fromkeys(("albert", "bert", "deberta-v2", "distilbert", "electra", "ernie", "nomic_bert"), _TEXT),
    **dict.fromkeys(("camembert", "data2vec-text", "roberta", "xlm-roberta", "xlm-roberta-xl"), _TEXT_AFTER_PADDING),
    "eurobert": replace(_TEXT, input_path="embed_tokens"),
    "modernbert": replace(_TEXT, input_path="embeddings.tok_embeddings"),
    "mpnet": replace(_TEXT, num_reserved_positions=2),
}


def supported_families() -> tuple[str, ...]:
    """Return the `model_type` strings that `Backbone` takes, sorted."""
    return tuple(sorted(BACKBONE_FAMILIES))


def vision_tower_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the vision configuration of a composite one (CLIP, SigLIP), any other configuration as it is."""
    return getattr(config, "vision_config", None) or config


class TokenInput(nn.Module):
    """Stands where a family's patch convolution or word table was and hands tokens on unchanged.

    The buffer `weight` carries the dtype, which several families read there before their first layer, and gives their
    weight initialization something to take. It has no values: nothing to save, and nothing that could stay unfilled.
    """

    # Never true: once it is, ViT-MAE (transformers 5.23) leaves its class token and positions uninitialized.
    _is_hf_initialized = property(lambda self: False, lambda self, value: None)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(1, 0), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return `tokens`."""
        return tokens


class PatchDropout:
    """Forward hook of the embeddings; an object and not a closure, so that a model with it can be pickled."""

    def __init__(self, probability: float, num_prefix_tokens: int) -> None:
        self.probability = probability
        self.num_prefix_tokens = num_prefix_tokens

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the embeddings; in training with `max(1, round((1 - probability) * T))` random patches of `T`."""
        if not module.training:
            return output
        embeddings = output[0] if isinstance(output, tuple) else output
        prefix, patches = embeddings.tensor_split([self.num_prefix_tokens], dim=1)
        num_kept = max(1, round((1 - self.probability) * patches.shape[1]))
        order = torch.rand(patches.shape[:2], device=patches.device).argsort(dim=1)
        kept = order[:, :num_kept].sort(dim=1).values.unsqueeze(-1).expand(-1, -1, patches.shape[-1])
        embeddings = torch.cat((prefix, patches.gather(1, kept)), dim=1)
        return (embeddings, *output[1:]) if isinstance(output, tuple) else embeddings


class Backbone(nn.Module):
    """A pretrained model of a supported family that reads tokens of shape `(batch, grid_size ** 2, token_size)`.

    Attributes: `model` (the family's `PreTrainedModel`), `family` (its row of the table), `grid_size`, `num_tokens`
    (`grid_size ** 2`), `hidden_size` (width of what goes out), `token_size` (width of the tokens that come in: other
    than `hidden_size` only in text families with a narrow embedding, as ALBERT), `num_prefix_tokens`.

    Args:
        config: Configuration of the pretrained family; of a composite CLIP or SigLIP its vision tower is taken.
        grid_size: Side of the token grid; by default the pretrained one (`image_size // patch_size`), 14 for text.
        patch_dropout: Probability with which a patch token is dropped in training.
        pooled: Whether the pooled vector is read, and only it; if not, the parameters that make it do not exist.
        attn_implementation: Handed on to transformers; by default what `config` says.

    Raises:
        ValueError: If the family is not supported, the grid does not fit it, or patches cannot be dropped in it.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        grid_size: int | None = None,
        patch_dropout: float = 0.0,
        pooled: bool = True,
        attn_implementation: str | None = None,
    ) -> None:
        super().__init__()
        config = copy.deepcopy(vision_tower_config(config))
        model_type = getattr(config, "model_type", type(config).__name__)
        if model_type not in BACKBONE_FAMILIES:
            raise ValueError(
                f"`config`: expected a backbone of one of the families {', '.join(supported_families())}; got "
                f"{model_type!r}. Choose a checkpoint of a supported family."
            )
        self.family = BACKBONE_FAMILIES[model_type]
        self.pooled = pooled
        self.grid_size = _checked_grid_size(config, self.family, grid_size)
        self.num_tokens = self.grid_size**2
        self.hidden_size = self.token_size = config.hidden_size
        self.num_prefix_tokens = self.family.num_class_tokens + (getattr(config, "num_register_tokens", None) or 0)
        _check_patch_dropout(config, self.family, patch_dropout, pooled)

        if self.family.is_text:
            self.token_size = getattr(config, "embedding_size", self.hidden_size)
        else:
            config.image_size, config.patch_size, config.num_channels = self.grid_size, 1, self.hidden_size
        if self.family.masks_patches:
            config.mask_ratio = 0.0
        # A checkpoint's configuration remembers the dtype it was saved in. Inside a larger model the default dtype
        # counts (from_pretrained sets it while it builds): otherwise the two would differ.
        options = {"attn_implementation": attn_implementation} if attn_implementation is not None else {}
        self.model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.get_default_dtype(), **options)
        self._remove_unread_modules()
        if pooled and self.family.block_names is not None:
            return_first_token_only(self.model, self.family.block_names)
        if patch_dropout > 0:
            hook = PatchDropout(patch_dropout, self.num_prefix_tokens)
            # The handle is kept: pickled along, it reserves the hook's number in the process that loads it.
            self._patch_dropout_handle = self.model.embeddings.register_forward_hook(hook)

    def _remove_unread_modules(self) -> None:
        """Replace what no forward pass reads, now that tokens come ready-made."""
        self.model.set_submodule(self.family.input_path, TokenInput())
        if not (self.pooled and self.family.pooling == "own"):
            for name in self.family.pooling_modules:
                if getattr(self.model, name, None) is not None:
                    setattr(self.model, name, nn.Identity())
        embeddings: Any = getattr(self.model, "embeddings", None)
        mask_token = getattr(embeddings, "mask_token", None)
        if mask_token is not None:
            # A buffer and not None, since the weight initialization of some families fills it unasked.
            del embeddings.mask_token
            embeddings.register_buffer("mask_token", mask_token.detach(), persistent=False)
        if self.family.masks_patches:
            embeddings.initialize_weights()  # done in vain before, for the reason that `TokenInput` gives

    def forward(self, tokens: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Run the backbone on tokens.

        Args:
            tokens (`torch.Tensor` of shape `(batch, num_tokens, token_size)`): row by row of the grid.
            kwargs: Handed on, e.g. `output_hidden_states=True`, `output_attentions=True`.

        Returns:
            `BaseModelOutputWithPooling`: `last_hidden_state` of shape `(batch, num_tokens, hidden_size)` without
            prefix tokens (fewer tokens while patches are dropped), or `None` where only the first token left the last
            block: the pooled vector is made from it, and neither hidden states nor attentions are asked for;
            `pooler_output` of shape `(batch, hidden_size)`, or `None` with `pooled=False`; `hidden_states` and
            `attentions` as the family gives them, if asked for.

        Raises:
            ValueError: If `tokens` has another shape.
        """
        if tokens.ndim != 3 or tokens.shape[1:] != (self.num_tokens, self.token_size):
            raise ValueError(
                f"`tokens`: expected shape (batch, {self.num_tokens}, {self.token_size}), got {tuple(tokens.shape)}. "
                f"Project to `num_tokens` tokens of width `token_size`, or build the backbone with another grid."
            )
        kwargs["return_dict"] = True
        if self.family.is_text:
            output = self.model(inputs_embeds=tokens, **kwargs)
        else:
            if self.family.masks_patches:
                kwargs["noise"] = torch.arange(self.num_tokens, device=tokens.device).expand(len(tokens), -1)
            output = self.model(tokens.mT.unflatten(2, (self.grid_size, self.grid_size)), **kwargs)
        states, patches, pooled = output.last_hidden_state, None, None
        # Every image has a class token and a patch, so a lone token means that the last block has left the others out.
        if self.family.block_names is None or states.shape[1] > 1:
            patches = states[:, self.num_prefix_tokens :]
        if self.pooled and self.family.pooling == "class":
            pooled = states[:, 0]
        elif self.pooled and self.family.pooling == "own" and output.pooler_output is not None:
            pooled = output.pooler_output
        elif self.pooled and patches is not None:
            pooled = patches.mean(dim=1)
        return BaseModelOutputWithPooling(patches, pooled, output.hidden_states, output.attentions)

    @torch.no_grad()
    def load_weights_from(self, pretrained: PreTrainedModel) -> None:
        """Copy the weights of a full pretrained backbone; positions are interpolated, once, if the grid differs.

        Args:
            pretrained: What `AutoModel.from_pretrained` returns; of a composite CLIP or SigLIP its vision tower is
                taken. What the adapter does not have (patch convolution, word table, mask token, unread pooling
                modules) is left out.

        Raises:
            ValueError: If the families differ, or a weight is missing, unexpected or of a shape that does not fit.
        """
        source = getattr(pretrained, "vision_model", pretrained)
        given, expected = (getattr(model.config, "model_type", None) for model in (source, self.model))
        if given != expected:
            raise ValueError(f"`pretrained`: expected a {expected!r} model, got {given!r}. Build the backbone with its `config`.")
        own = self.model.state_dict()
        left_out = tuple(f"{name}." for name in (self.family.input_path, *self.family.pooling_modules))
        weights, problems = {}, []
        for key, weight in source.state_dict().items():
            if key in own:
                weights[key] = self._fitted(key, weight, own[key])
                if weights[key].shape != own[key].shape:
                    problems.append(f"{key} has the shape {tuple(weight.shape)}, not {tuple(own[key].shape)}")
            elif not key.startswith(left_out) and key != "embeddings.mask_token":
                problems.append(f"{key} is unexpected")
        problems.extend(f"{key} is missing" for key in own if key not in weights)
        if problems:
            raise ValueError(
                f"`pretrained`: expected the weights of the configuration this backbone was built from, but "
                f"{'; '.join(problems)}. Build the backbone with `pretrained.config`."
            )
        self.model.load_state_dict(weights)

    def _fitted(self, key: str, weight: Tensor, target: Tensor) -> Tensor:
        """Return `weight` in the dtype of `target`, and on its grid if it is a table of positions of another one."""
        if weight.shape != target.shape and weight.shape[-1] == target.shape[-1]:
            weight = weight.to(torch.promote_types(target.dtype, torch.float32))  # half precision blurs positions
            if key == self.family.position_path:
                weight = self._interpolate_positions(key, weight, target.shape)
            elif key.endswith("relative_position_bias_table"):
                weight = _interpolate_bias_table(weight, target.shape)
        return weight.to(target.dtype)

    def _interpolate_positions(self, key: str, positions: Tensor, shape: torch.Size) -> Tensor:
        """Return `(..., old_grid ** 2 + prefix, hidden_size)` positions on this grid, by the family's own method."""
        num_patches = positions.shape[-2] - (shape[-2] - self.num_tokens)
        if math.isqrt(num_patches) ** 2 != num_patches:  # not a square grid: reported as a shape that does not fit
            return positions
        # The method reads the table from its module, so a copy of the embeddings holds it for the moment.
        holder: Any = copy.deepcopy(self.model.embeddings)
        owner, _, name = key.removeprefix("embeddings.").rpartition(".")
        setattr(holder.get_submodule(owner), name, nn.Parameter(positions))
        only_shape_is_read = torch.empty(1, *shape[-2:], device="meta")
        return holder.interpolate_pos_encoding(only_shape_is_read, self.grid_size, self.grid_size).reshape(shape)


def _interpolate_bias_table(table: Tensor, shape: torch.Size) -> Tensor:
    """Return `((2 * grid - 1) ** 2 + 3, heads)` BEiT biases for another grid, bilinear as BEiT's own forward does."""
    old_side, new_side = math.isqrt(len(table) - 3), math.isqrt(shape[0] - 3)
    if old_side**2 != len(table) - 3:  # not a square grid: reported as a shape that does not fit
        return table
    offsets = table[:-3].T.reshape(1, -1, old_side, old_side)  # the last three rows belong to the class token
    offsets = nn.functional.interpolate(offsets, size=(new_side, new_side), mode="bilinear", align_corners=False)
    return torch.cat((offsets.flatten(2).squeeze(0).T, table[-3:]))


def _checked_grid_size(config: PreTrainedConfig, family: BackboneFamily, grid_size: int | None) -> int:
    """Return the side of the token grid, the pretrained one if none is asked for."""
    if grid_size is None and family.is_text:
        grid_size = DEFAULT_TEXT_GRID
    elif grid_size is None:
        image, patch = ((x, x) if isinstance(x, int) else x for x in (config.image_size, config.patch_size))
        grid_size, width = image[0] // patch[0], image[1] // patch[1]
        if grid_size != width:
            raise ValueError(
                f"`grid_size`: expected an integer, since the pretrained grid of {grid_size} x {width} patches is not "
                f"square; got None. Pass the side of the square grid of tokens."
            )
    if isinstance(grid_size, bool) or not isinstance(grid_size, int) or grid_size < 1:
        raise ValueError(f"`grid_size`: expected an integer of at least 1, got {grid_size!r}. Pass e.g. grid_size=14.")
    if family.is_text:
        reserved = config.pad_token_id + 1 if family.num_reserved_positions is None else family.num_reserved_positions
        capacity = max(0, config.max_position_embeddings - reserved)
        if grid_size**2 > capacity:
            raise ValueError(
                f"`grid_size`: expected at most {math.isqrt(capacity)}, since this {config.model_type} model has "
                f"{capacity} positions; got {grid_size} ({grid_size**2} tokens). Pass a smaller `grid_size`."
            )
    return grid_size


def _check_patch_dropout(config: PreTrainedConfig, family: BackboneFamily, patch_dropout: float, pooled: bool) -> None:
    """Raise a `ValueError` if patches cannot be dropped with this probability."""
    if isinstance(patch_dropout, bool) or not isinstance(patch_dropout, (int, float)) or not 0 <= patch_dropout < 1:
        raise ValueError(
            f"`patch_dropout`: expected a probability of at least 0 and below 1, got {patch_dropout!r}. Pass e.g. 0.5."
        )
    relative = ("use_relative_position_bias", "use_shared_relative_position_bias")
    movable = family.position_path is not None and not any(getattr(config, name, False) for name in relative)
    if patch_dropout > 0 and not (pooled and movable):
        in_attention = f"this {config.model_type} model finds a token's position by its place in the sequence"
        reason = in_attention if pooled else "a read-out of tokens (`pooled=False`) needs every token"
        raise ValueError(
            f"`patch_dropout`: expected 0, since {reason}; got {patch_dropout}. Set it to 0, or read the pooled "
            f"vector of a family that adds positions to patches (e.g. vit, dinov2)."
        )
