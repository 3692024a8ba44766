"""Symmetrized models: a pretrained backbone made equivariant by probabilistic symmetrization (arXiv 2306.02866)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from .backbones import Backbone, vision_tower_config
from .batches import encode_batch
from .configuration_lps import LPSConfig
from .distributions import PermutationDistribution
from .groups import get_group
from .interface_networks import GINInterface
from .losses import invariant_loss
from .projections import PaddedAxis, PairProjection
from .representations import Field, Permutation, Representation
from .symmetrization import symmetrize
from .token_base import TokenBase


@dataclass
class LPSModelOutput(ModelOutput):
    """What `LPSModel` returns.

    Args:
        output (`torch.FloatTensor` of shape `(batch, *axes of config.output)`): The estimate of φ(x).
        standard_error (`torch.FloatTensor` of the same shape): Of the estimate; `None` for one sample.
        entropy_loss (`torch.FloatTensor` of shape `()`): Entropy of the soft permutations, unweighted; `None` without gradient.
        group_elements (`torch.LongTensor` of shape `(batch, num_samples, nodes)`): The permutations g drawn, rank to node.
        hidden_states (`tuple(torch.FloatTensor)`): The backbone's, shape `(batch * num_samples, tokens, hidden)`.
        attentions (`tuple(torch.FloatTensor)`): The backbone's, shape `(batch * num_samples, heads, tokens, tokens)`.
    """

    output: Tensor | None = None
    standard_error: Tensor | None = None
    entropy_loss: Tensor | None = None
    group_elements: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class LPSGraphClassifierOutput(ModelOutput):
    """What `LPSForGraphClassification` returns.

    Args:
        loss (`torch.FloatTensor` of shape `()`): Task loss of the mean output, plus `entropy_loss_coef * entropy_loss`.
        logits (`torch.FloatTensor` of shape `(batch, num_labels)`): Class scores, or predictions for regression.
        standard_error (`torch.FloatTensor` of shape `(batch, num_labels)`): Of the logits; `None` for one sample.
        entropy_loss (`torch.FloatTensor` of shape `()`): See `LPSModelOutput`.
        group_elements (`torch.LongTensor` of shape `(batch, num_samples, nodes)`): See `LPSModelOutput`.
        hidden_states (`tuple(torch.FloatTensor)`): See `LPSModelOutput`.
        attentions (`tuple(torch.FloatTensor)`): See `LPSModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    standard_error: Tensor | None = None
    entropy_loss: Tensor | None = None
    group_elements: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class LPSPreTrainedModel(PreTrainedModel):
    """Weight initialisation, loading and saving of symmetrized models."""

    config_class = LPSConfig
    config: LPSConfig
    base_model_prefix = "lps"
    main_input_name = "edge_index"
    supports_gradient_checkpointing = True
    _no_split_modules = ["PermutationDistribution", "NodeProjection", "PairProjection"]
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Sorting needs every digit, whatever the backbone's precision.
    _keep_in_fp32_modules_strict = ["distribution"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d):
            # PyTorch's own default, as the published code has it; 0.02 would drown sparse graphs in position embeddings.
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = 1 / math.sqrt(nn.init._calculate_fan_in_and_fan_out(module.weight)[0])
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, GINInterface):
            init.normal_(module.virtual_node)
            for layer in module.layers:
                init.uniform_(layer.eps, 0.0, 1.0)
        elif isinstance(module, PaddedAxis):
            init.copy_(module.sources, module.make_sources())
        elif isinstance(module, PairProjection):
            init.copy_(module.copies, module.make_copies())
        else:
            super()._init_weights(module)

    def set_attn_implementation(self, attn_implementation: str | dict[str, str], **kwargs: Any) -> None:
        """Switch the attention of the backbone; see `PreTrainedModel.set_attn_implementation`.

        Args:
            attn_implementation: `"sdpa"`, `"eager"`, …, or a dict with the key `backbone_config`.
            kwargs: See there.
        """
        # The base class looks sub-models up by their configuration object, and the backbone has a copy with its own grid.
        backbone = getattr(self, self.base_model_prefix, self).base.backbone.model
        own = wanted = attn_implementation
        if isinstance(attn_implementation, dict):
            own = attn_implementation.get("", self.config._attn_implementation)
            wanted = attn_implementation.get("backbone_config", backbone.config._attn_implementation)
        backbone.set_attn_implementation(wanted, **kwargs)
        chosen = backbone.config._attn_implementation
        own = own if isinstance(attn_implementation, dict) else chosen
        self.config._attn_implementation = {"": own, "backbone_config": chosen}

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load a checkpoint, as `PreTrainedModel.from_pretrained`, but refuse one whose weights do not fit its configuration.

        transformers fills missing weights with random ones and logs it; a model with a random part gives wrong answers.

        Args:
            args: See there.
            output_loading_info: See there; whoever asks for the report judges it, so nothing is refused.
            kwargs: See there; with `state_dict` of your own or `ignore_mismatched_sizes=True` nothing is refused either.

        Returns:
            The model in evaluation mode, or with `output_loading_info=True` a tuple of it and the loading report.

        Raises:
            ValueError: If weights are missing or left over: names them.
        """
        model, report = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        judged_by_caller = output_loading_info or kwargs.get("ignore_mismatched_sizes")
        if kwargs.get("state_dict") is None and not judged_by_caller:
            for kind, meaning in (("missing_keys", "lacks weights"), ("unexpected_keys", "has weights too many")):
                keys = sorted(report[kind])
                if keys:
                    raise ValueError(
                        f"{args[0] if args else 'checkpoint'}: expected the weights that config.json describes, but the file "
                        f"{meaning}: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}. Config and weights are of different "
                        "models; save both again with save_pretrained."
                    )
        return (model, report) if output_loading_info else model

    def save_pretrained(self, *args: Any, save_original_format: bool = False, **kwargs: Any) -> None:
        """Write a checkpoint, as `PreTrainedModel.save_pretrained`, with the names that the parameters have.

        transformers would rename the backbone's parameters to those of its first release, and Trainer, which reads a checkpoint
        without renaming, would go on from it or end with it (`load_best_model_at_end`) without the weights of any layer.

        Args:
            args: See there.
            save_original_format: Use the older names, which every version of transformers can read.
            kwargs: See there.
        """
        super().save_pretrained(*args, save_original_format=save_original_format, **kwargs)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that came with the backbone; all others are new."""
        for module in self.modules():
            if isinstance(module, Backbone):
                yield from module.parameters()

    @classmethod
    def from_backbone_pretrained(
        cls,
        backbone_name_or_path: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
        **config_kwargs: Any,
    ) -> "LPSPreTrainedModel":
        """Symmetrize a pretrained backbone: its weights are loaded, projections, interface and read-out are new.

        Args:
            backbone_name_or_path: Hub id or folder of any supported backbone.
            revision: Branch, tag or commit.
            token: Hub token.
            cache_dir: Where downloads are kept.
            local_files_only: Use the cache only.
            dtype: Type of the weights; float32 by default, also for checkpoints in half precision.
            attn_implementation: `"sdpa"`, `"eager"`, …
            config_kwargs: Fields of `LPSConfig`, such as `group`, `max_nodes`, `node_categories`, `num_labels`.

        Returns:
            The symmetrized model, in evaluation mode.

        Raises:
            ValueError: If the backbone's family is not supported, its checkpoint lacks weights, or a config value is wrong.
            OSError: If the backbone cannot be found.
        """
        dtype = dtype or config_kwargs.pop("torch_dtype", None)
        dtype = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f"dtype: expected a floating point type such as torch.bfloat16, got {dtype!r}.")
        hub = {"revision": revision or "main", "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        # The configuration first: a mistake in it should not cost a download.
        backbone_config = vision_tower_config(AutoConfig.from_pretrained(backbone_name_or_path, **hub))
        backbone_config.dtype = None  # a checkpoint in half precision does not make the new parts so
        config = LPSConfig(backbone_config=backbone_config, **config_kwargs)
        config._attn_implementation = attn_implementation
        model = cls(config)
        adapter = getattr(model, cls.base_model_prefix, model).base.backbone
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # the report names poolers that a checkpoint lacks and nobody here reads
        try:
            backbone, report = AutoModel.from_pretrained(
                backbone_name_or_path, dtype=torch.float32, output_loading_info=True, **hub
            )
        finally:
            logging.set_verbosity(verbosity)
        missing = {key.removeprefix("vision_model.") for key in report["missing_keys"]} & set(adapter.model.state_dict())
        if missing:
            raise ValueError(
                f"{backbone_name_or_path}: expected the weights of a {backbone_config.model_type} backbone, but the checkpoint "
                f"lacks {', '.join(sorted(missing)[:5])}{' …' if len(missing) > 5 else ''}."
            )
        adapter.load_weights_from(backbone)
        if dtype is not None:
            model.to(dtype)
            getattr(model, cls.base_model_prefix, model).distribution.to(torch.promote_types(dtype, torch.float32))
        return model.eval()


class LPSModel(LPSPreTrainedModel):
    """The symmetrized function φ itself: fields in, the representation of `config.output` out.

    Args:
        config: The configuration.
    """

    def __init__(self, config: LPSConfig) -> None:
        super().__init__(config)
        self.group = get_group(config.group)
        # First, so that `dtype`, which is that of the first parameter, is the backbone's and not always float32.
        self.base = TokenBase(config)
        node_features = config.input_representations.get("node_features")
        self.distribution = PermutationDistribution(
            config.distribution,
            input_size=node_features.num_channels if node_features else 0,
            noise_scale=config.noise_scale,
            temperature=config.temperature,
            sinkhorn_iterations=config.sinkhorn_iterations,
            interface_config=config.interface_config,
        )
        # transformers asks direct children only, and the backbone lies deeper.
        self._no_split_modules = [*self._no_split_modules, *(self.base.backbone.model._no_split_modules or ())]
        self.post_init()

    def draw_noise(self, node_mask: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the noise ε of `forward`, to use it again; see `PermutationDistribution.draw_noise`."""
        return self.distribution.draw_noise(node_mask, num_samples, generator)

    @can_return_tuple
    def forward(
        self,
        edge_index: Tensor | None = None,
        node_features: Tensor | None = None,
        node_categories: Tensor | None = None,
        edge_features: Tensor | None = None,
        edge_categories: Tensor | None = None,
        node_mask: Tensor | None = None,
        edge_mask: Tensor | None = None,
        frame_ranks: Tensor | None = None,
        num_samples: int | None = None,
        noise: Tensor | None = None,
        group_elements: Tensor | None = None,
        generator: torch.Generator | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> LPSModelOutput:
        """Estimate φ(x) from `num_samples` draws of p(g|x).

        Args:
            edge_index (`torch.Tensor` of shape `(batch, 2, edges)` int64): Source and target.
            node_features (`torch.Tensor` of shape `(batch, nodes, channels)`): Real node features.
            node_categories (`torch.Tensor` of shape `(batch, nodes, features)` int64): Or categorical ones.
            edge_features (`torch.Tensor` of shape `(batch, edges, channels)`): Real edge features.
            edge_categories (`torch.Tensor` of shape `(batch, edges, features)` int64): Or categorical ones.
            node_mask (`torch.Tensor` of shape `(batch, nodes)` bool): True on nodes, which come before padding.
            edge_mask (`torch.Tensor` of shape `(batch, edges)` bool): True on edges.
            frame_ranks (`torch.Tensor` of shape `(batch, nodes)` int64): For distribution `"frame"`.
            num_samples: Default: `config.num_samples` in training, `config.num_eval_samples` at evaluation.
            noise (`torch.Tensor` as `draw_noise` returns): Makes the result deterministic; q(g·x, g·ε) = g·q(x, ε).
            group_elements (`torch.Tensor` of shape `(batch, num_samples, nodes)` int64): Use these permutations.
            generator: Random source of the noise, on the batch's device.
            output_attentions: Return the backbone's attentions.
            output_hidden_states: Return the backbone's hidden states.

        Returns:
            `LPSModelOutput`.

        Raises:
            ValueError: If a tensor is missing, has the wrong shape, or holds impossible values.
            TypeError: If a tensor has the wrong type.
        """
        dtype = torch.promote_types(self.dtype, torch.float32)
        batch = encode_batch(
            *(self.config, dtype, edge_index, node_mask, edge_mask),
            *(node_features, node_categories, edge_features, edge_categories),
        )
        if group_elements is not None:
            self._check_group_elements(group_elements, batch.node_mask, num_samples, noise)
            elements, entropy = Permutation(group_elements), None
        else:
            if noise is None:
                num_samples = self._resolve_num_samples(num_samples)
                noise = self.draw_noise(batch.node_mask, num_samples, generator)
            self._check_noise(noise, batch.node_mask, num_samples)
            elements, entropy = self.distribution(
                batch.node_mask,
                noise,
                batch.fields.get("node_features"),
                batch.edge_index,
                batch.edge_mask,
                frame_ranks,
            )
        backbone_output: dict[str, Any] = {}

        def base(fields: dict[str, Field]) -> Tensor:
            flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
            # Where neither the call nor our configuration asks, the backbone's own configuration may.
            flags = {name: getattr(self.config, name) or None if flag is None else flag for name, flag in flags.items()}
            flags = {name: flag for name, flag in flags.items() if flag is not None}
            result, backbone = self.base(fields, num_nodes=batch.node_mask.shape[1], **flags)
            backbone_output.update(backbone)
            return result

        output = self.config.output_representation
        estimate = symmetrize(base, self.group, elements, batch.fields, self.config.input_representations, output)
        return LPSModelOutput(
            output=_mask_nodes(estimate.mean, output, batch.node_mask),
            standard_error=_mask_nodes(estimate.standard_error, output, batch.node_mask),
            entropy_loss=entropy,
            group_elements=elements.index,
            hidden_states=backbone_output.get("hidden_states"),
            attentions=backbone_output.get("attentions"),
        )

    def _resolve_num_samples(self, num_samples: int | None) -> int:
        if num_samples is None:
            num_samples = self.config.num_samples if self.training else self.config.num_eval_samples
        if isinstance(num_samples, bool) or not isinstance(num_samples, int):
            raise TypeError(f"num_samples: expected an int, got {type(num_samples).__name__} {num_samples!r}.")
        if num_samples < 1:
            raise ValueError(f"num_samples: expected at least 1, got {num_samples}.")
        # The stored order is always the same: more samples of it would only cost time.
        return 1 if self.config.distribution == "none" else num_samples

    def _check_noise(self, noise: Tensor, node_mask: Tensor, num_samples: int | None) -> None:
        batch, nodes = node_mask.shape
        channels = self.distribution.num_noise_channels
        if noise.dim() != 4 or (noise.shape[0], *noise.shape[2:]) != (batch, nodes, channels):
            raise ValueError(f"noise: expected shape ({batch}, num_samples, {nodes}, {channels}), got {tuple(noise.shape)}.")
        self._check_sample_count("noise", noise, num_samples)

    def _check_group_elements(self, index: Tensor, node_mask: Tensor, num_samples: int | None, noise: Tensor | None) -> None:
        batch, nodes = node_mask.shape
        if noise is not None:
            raise ValueError("group_elements and noise: expected one of them, got both.")
        if index.dim() != 3 or (index.shape[0], index.shape[2]) != (batch, nodes):
            raise ValueError(f"group_elements: expected shape ({batch}, num_samples, {nodes}), got {tuple(index.shape)}.")
        if index.dtype != torch.int64:
            raise TypeError(f"group_elements: expected int64, got {index.dtype}. Call .long().")
        self._check_sample_count("group_elements", index, num_samples)
        if index.device.type == "cpu" and not torch.compiler.is_compiling():
            place = torch.arange(nodes)
            moves_padding = (index != place) & ~node_mask.unsqueeze(1)
            if not torch.equal(index.sort(dim=-1).values, place.expand_as(index)) or bool(moves_padding.any()):
                raise ValueError(
                    "group_elements: expected permutations of 0 to nodes - 1 that leave padding in its place, got something "
                    "else. Draw them with get_group('S_n').haar(node_mask, num_samples).index."
                )

    @staticmethod
    def _check_sample_count(name: str, tensor: Tensor, num_samples: int | None) -> None:
        if tensor.shape[1] < 1 or num_samples not in (None, tensor.shape[1]):
            raise ValueError(f"{name}: expected num_samples={num_samples or 'at least 1'}, got {tensor.shape[1]} samples.")


def _mask_nodes(tensor: Tensor | None, output: Representation, node_mask: Tensor) -> Tensor | None:
    """Zero what an output (batch, *axes) holds for padding."""
    for dim in range(output.count("n") if tensor is not None else 0):
        shape = [1] * tensor.dim()
        shape[0], shape[1 + dim] = node_mask.shape
        tensor = tensor.masked_fill(~node_mask.view(shape), 0.0)
    return tensor


class LPSForGraphClassification(LPSPreTrainedModel):
    """Symmetrized backbone with an invariant output: graph classification, multi-label classification and regression.

    The task loss is taken on the mean output of the samples, so it estimates the loss of φ.

    Args:
        config: The configuration. `problem_type` is inferred from the labels where it is not set.
    """

    def __init__(self, config: LPSConfig) -> None:
        super().__init__(config)
        output = config.output_representation
        if output.letters:
            raise ValueError(
                f"output: LPSForGraphClassification expects invariant numbers such as '10', got {config.output!r}. Use LPSModel."
            )
        if output.num_channels != config.num_labels:
            raise ValueError(
                f"output: expected num_labels={config.num_labels} numbers, got {config.output!r}. Leave output out, or set "
                "num_labels."
            )
        self.lps = LPSModel(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        edge_index: Tensor | None = None,
        node_features: Tensor | None = None,
        node_categories: Tensor | None = None,
        edge_features: Tensor | None = None,
        edge_categories: Tensor | None = None,
        node_mask: Tensor | None = None,
        edge_mask: Tensor | None = None,
        frame_ranks: Tensor | None = None,
        labels: Tensor | None = None,
        num_samples: int | None = None,
        noise: Tensor | None = None,
        group_elements: Tensor | None = None,
        generator: torch.Generator | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> LPSGraphClassifierOutput:
        """Classify graphs; arguments as `LPSModel.forward`, and labels.

        Args:
            edge_index: See `LPSModel.forward`.
            node_features: See `LPSModel.forward`.
            node_categories: See `LPSModel.forward`.
            edge_features: See `LPSModel.forward`.
            edge_categories: See `LPSModel.forward`.
            node_mask: See `LPSModel.forward`.
            edge_mask: See `LPSModel.forward`.
            frame_ranks: See `LPSModel.forward`.
            labels (`torch.Tensor`): `(batch,)` int64 for one label, -100 ignored; `(batch, num_labels)` float for several labels
                or regression, NaN ignored.
            num_samples: See `LPSModel.forward`.
            noise: See `LPSModel.forward`.
            group_elements: See `LPSModel.forward`.
            generator: See `LPSModel.forward`.
            output_attentions: See `LPSModel.forward`.
            output_hidden_states: See `LPSModel.forward`.

        Returns:
            `LPSGraphClassifierOutput`.

        Raises:
            ValueError: If an input or the labels have the wrong shape or range.
            TypeError: If they have the wrong type.
        """
        outputs = self.lps(
            edge_index=edge_index,
            node_features=node_features,
            node_categories=node_categories,
            edge_features=edge_features,
            edge_categories=edge_categories,
            node_mask=node_mask,
            edge_mask=edge_mask,
            frame_ranks=frame_ranks,
            num_samples=num_samples,
            noise=noise,
            group_elements=group_elements,
            generator=generator,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits, loss = outputs.output, None
        if labels is not None:
            loss = invariant_loss(logits, labels, self.config.problem_type)
            if outputs.entropy_loss is not None:
                loss = loss + self.config.entropy_loss_coef * outputs.entropy_loss.to(loss.dtype)
        return LPSGraphClassifierOutput(
            loss=loss,
            logits=logits,
            standard_error=outputs.standard_error,
            entropy_loss=outputs.entropy_loss,
            group_elements=outputs.group_elements,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
