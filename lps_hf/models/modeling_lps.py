"""Symmetrized models: a pretrained backbone made equivariant by probabilistic symmetrization (arXiv 2306.02866)."""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.integrations.accelerate import _get_device_map, accelerate_dispatch, check_and_set_device_map
from transformers.modeling_outputs import ModelOutput
from transformers.utils.generic import can_return_tuple

from .backbones import vision_tower_config
from .base_functions import BaseFunction, inner_output, make_base_function
from .batches import encode_batch, main_input
from .carried_code import add_pipeline
from .configuration_lps import LPSConfig, check_is_symmetrized, check_num_samples, check_tolerance
from .distributions import EquivariantDistribution, Noise
from .error_bars import confidence_interval
from .groups import get_group
from .interface_networks import GINInterface
from .projections import PaddedAxis, PairProjection, PatchProjection
from .push_verbs import PUSHERS, split_push_options
from .representations import Batch, EdgeField, Field
from .symmetrization import BaseCall, Estimate, StoppingRule, Symmetrization, mask_nodes

# At evaluation. A ViT-tiny on 16 rows stays in the caches of a CPU, and takes three quarters of the time per row.
CPU_ROWS_PER_PASS, SAMPLES_PER_PASS = 16, 10
LEARNED, INTERFACE = ("learned", "canonical"), "distribution.interface."


@dataclass
class LPSModelOutput(ModelOutput):
    """What `LPSModel` returns.

    Args:
        output (`torch.FloatTensor` of shape `(batch, *axes of config.output)`): The estimate of φ(x).
        standard_error (`torch.FloatTensor` of the same shape): Of the estimate; `None` for one sample.
        degrees_of_freedom (`torch.DoubleTensor` of shape `(batch,)`): Those of `standard_error`; see `confidence_interval`.
        draws_agree (`torch.BoolTensor` of shape `(batch,)`): Whether all draws of an input gave the same output; its error
            bar is then a bound for what they may have missed, or zero where nothing else could be drawn.
        entropy_loss (`torch.FloatTensor` of shape `()`): Entropy of the soft permutations, unweighted; `None` without gradient.
        prior_loss (`torch.FloatTensor` of shape `()`): -log p(identity|x), for learned distributions of finite groups.
        samples (`torch.FloatTensor` of shape `(batch, num_samples, *axes)`): What `output` is the mean of, or the weighted mean
            where an average is exact; with `output_samples=True`, and in training with `config.sample_loss="mean_of_losses"`.
            With `num_samples="auto"` NaN behind the samples of each input.
        num_samples (`torch.LongTensor` of shape `(batch,)`): Samples drawn for each input, where `num_samples="auto"`.
        group_elements (`torch.Tensor` or tuple): The elements g drawn: for S_n permutations (batch, num_samples, nodes) int64,
            rank to node; for O(d) and SO(d) matrices (batch, num_samples, d, d); for E(d) and SE(d) a pair of matrices and
            translations (batch, num_samples, d); for C_n and D_n numbers (batch, num_samples) int64; for a product a tuple.
            Those of an exact average have weights, which are not told: given back they are averaged evenly.
        hidden_states (`tuple(torch.FloatTensor)`): The backbone's, shape `(batch * num_samples, tokens, hidden)`.
        attentions (`tuple(torch.FloatTensor)`): The backbone's, shape `(batch * num_samples, heads, tokens, tokens)`.
    """

    output: Tensor | None = None
    standard_error: Tensor | None = None
    degrees_of_freedom: Tensor | None = None
    draws_agree: Tensor | None = None
    entropy_loss: Tensor | None = None
    prior_loss: Tensor | None = None
    samples: Tensor | None = None
    num_samples: Tensor | None = None
    group_elements: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None

    def confidence_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper end of the interval that holds φ(x) with probability `level`; see `error_bars`."""
        return confidence_interval(self.output, self.standard_error, self.degrees_of_freedom, level)


class LPSPreTrainedModel(PreTrainedModel):
    """Weight initialisation, loading and saving of symmetrized models."""

    config_class = LPSConfig
    config: LPSConfig
    base_model_prefix = "lps"
    main_input_name = "node_mask"  # of an instance that of its own inputs
    supports_gradient_checkpointing = True
    _no_split_modules = ["EquivariantDistribution", "NodeProjection", "PairProjection"]
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Sorting needs every digit, whatever the backbone's precision.
    _keep_in_fp32_modules_strict = ["distribution"]

    def __init__(self, config: LPSConfig) -> None:
        super().__init__(config)
        self.main_input_name = main_input(config)

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        is_main_process: bool = True,
        *,
        push_to_hub: bool = False,
        save_original_format: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a checkpoint, as `PreTrainedModel.save_pretrained`, with the names that the parameters have.

        transformers would rename the backbone's parameters to those of its first release, and Trainer, which reads a checkpoint
        without renaming, would go on from it or end with it (`load_best_model_at_end`) without the weights of any layer.

        The code of a model that came with its code goes along, and that of its pipeline.

        Args:
            save_directory: A folder.
            is_main_process: Whether this process writes.
            push_to_hub: Push the model afterwards; see `push_to_hub`.
            save_original_format: Use the older names, which every version of transformers can read.
            kwargs: See there; with `push_to_hub` its options, too.
        """
        repo_id, pushing = split_push_options(save_directory, kwargs) if push_to_hub else ("", {})
        super().save_pretrained(save_directory, is_main_process, save_original_format=save_original_format, **kwargs)
        if is_main_process and self._auto_class is not None and (Path(save_directory) / "config.json").is_file():
            add_pipeline(Path(save_directory), self.config)
        if push_to_hub and is_main_process:
            size = {name: kwargs[name] for name in ("max_shard_size",) if name in kwargs}
            self.push_to_hub(repo_id, **size, **pushing)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Publish the model as `lps_hf.hub.publish` does: with its processor, code, card and results in one commit.

        The processor is made from the configuration; how images are prepared is taken from the one in the repository, or where
        the model was loaded from. A model that runs by its own code, without lps_hf, is pushed as transformers does.

        Args:
            repo_id: `user/name`, or `name` for the user of the token.
            kwargs: `commit_message`, `commit_description`, `private`, `token`, `revision`, `create_pr`, `max_shard_size`, `tags`.

        Returns:
            `huggingface_hub.CommitInfo`.
        """
        if "model" in PUSHERS:
            return PUSHERS["model"](self, repo_id, **kwargs)
        return super().push_to_hub(repo_id, **kwargs)

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
        elif isinstance(module, PatchProjection):
            module.reset_parameters()
            if isinstance(module, PairProjection):
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
        backbone = getattr(self, self.base_model_prefix, self).base.pretrained_model
        if backbone is None:
            raise ValueError(f"attn_implementation: {self.config.backbone_config.model_type} has one kind of attention only.")
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
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                # transformers makes floating point numbers of all that is kept in single precision, counters too.
                module.num_batches_tracked = module.num_batches_tracked.long()
        # A learned checkpoint may be loaded with another distribution, which has no network to take its weights.
        drops_interface = "distribution" in kwargs and model.config.distribution not in LEARNED
        judged_by_caller = output_loading_info or kwargs.get("ignore_mismatched_sizes")
        if kwargs.get("state_dict") is None and not judged_by_caller:
            for kind, meaning in (("missing_keys", "lacks weights"), ("unexpected_keys", "has weights too many")):
                keys = sorted(key for key in report[kind] if not (drops_interface and INTERFACE in key))
                if keys:
                    raise ValueError(
                        f"{args[0] if args else 'checkpoint'}: expected the weights that config.json describes, but the file "
                        f"{meaning}: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}. Config and weights are of different "
                        "models; save both again with save_pretrained."
                    )
        return (model, report) if output_loading_info else model

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that came with the backbone; all others are new."""
        for module in self.modules():
            if isinstance(module, BaseFunction):
                yield from module.backbone.parameters()

    def new_module_names(self) -> list[str]:
        """The names of the modules that did not come with the backbone: what PEFT calls `modules_to_save`.

        With adapters on the backbone these are trained as a whole, and saved with the adapters.
        """
        pretrained = {id(parameter) for parameter in self.backbone_parameters()}

        def new_below(module: nn.Module, name: str) -> Iterator[str]:
            parameters = {id(parameter) for parameter in module.parameters()}
            if parameters and not parameters & pretrained and not isinstance(module, nn.ModuleDict | nn.ModuleList):
                yield name
            elif not parameters <= pretrained:
                for child, below in module.named_children():
                    yield from new_below(below, f"{name}.{child}".removeprefix("."))

        return list(new_below(self, ""))

    def freeze_backbone(self) -> None:
        """Train the new parts only: the backbone gets no gradient, and its batch statistics and dropout stay off."""
        getattr(self, self.base_model_prefix, self).base.freeze()

    @classmethod
    def from_backbone_pretrained(
        cls,
        backbone_name_or_path: str | PreTrainedModel,
        *,
        dataset: Any = None,
        column_mapping: Mapping[str, str] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
        device_map: str | int | torch.device | dict[str, Any] | None = None,
        **config_kwargs: Any,
    ) -> Self:
        """Symmetrize a pretrained backbone: its weights are loaded, projections, interface and read-out are new.

        Args:
            backbone_name_or_path: Hub id or folder of any supported backbone, or a loaded model, whose weights are copied.
            dataset (`DatasetDict`, `Dataset` or a list of rows): Read sizes, categories, labels and their names, group and inputs
                off it, as `infer_config` does; what is given beside it comes first. Give all splits: what a split has that the
                others have not is then known.
            column_mapping: By column of the data set the key of a row, such as `{"target": "y"}`. The processor needs it too:
                `LPSProcessor.from_config(model.config, column_mapping=…)`.
            revision: Branch, tag or commit.
            token: Hub token.
            cache_dir: Where downloads are kept.
            local_files_only: Use the cache only.
            dtype: Type of the weights; float32 by default, also for checkpoints in half precision.
            attn_implementation: `"sdpa"`, `"eager"`, …
            device_map: Where to put the model, as for `PreTrainedModel.from_pretrained`: a device, `"auto"` or devices by module.
            config_kwargs: Fields of `LPSConfig`, such as `group`, `max_nodes`, `node_categories`, `num_labels`.

        Returns:
            The symmetrized model, in evaluation mode.

        Raises:
            ValueError: If the backbone's family is not supported, its checkpoint lacks weights, a config value is wrong, or the
                data set does not tell what the task needs.
            TypeError: If an argument has the wrong type.
            OSError: If the backbone cannot be found.
        """
        dtype = dtype or config_kwargs.pop("torch_dtype", None)
        dtype = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f"dtype: expected a floating point type such as torch.bfloat16, got {dtype!r}.")
        if "backbone_config" in config_kwargs:
            raise TypeError("backbone_config: expected none beside a backbone, which has its own. Leave it out.")
        if column_mapping is not None and dataset is None:
            raise ValueError("column_mapping: expected None without a dataset. The processor takes it alone.")
        hub = {"revision": revision or "main", "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        # The configuration first: a mistake in it should not cost a download.
        backbone_config = vision_tower_config(_config_of(backbone_name_or_path, hub))
        backbone_config.dtype = None  # a checkpoint in half precision does not make the new parts so
        if dataset is not None:
            inferred = cls.infer_config(dataset, config_kwargs.get("problem_type"), column_mapping)
            if config_kwargs.get("num_labels", inferred.get("num_labels")) != inferred.get("num_labels"):
                inferred = {key: value for key, value in inferred.items() if key not in ("id2label", "label2id", "output")}
            config_kwargs = {**inferred, **config_kwargs}
        config = LPSConfig(backbone_config=backbone_config, **cls.config_defaults(backbone_config, config_kwargs))
        config._attn_implementation = attn_implementation
        model = cls(config)
        base = getattr(model, cls.base_model_prefix, model).base
        base.load_pretrained(backbone_name_or_path, **({} if isinstance(backbone_name_or_path, PreTrainedModel) else hub))
        if dtype is not None:
            model.to(dtype)
        return _placed(model.eval(), device_map)

    @classmethod
    def infer_config(
        cls, dataset: Any, problem_type: str | None = None, column_mapping: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Read the fields of `LPSConfig` that depend on the data off a data set; see `inferred_config.infer_config`.

        Args:
            dataset: See there.
            problem_type: See there.
            column_mapping: See there.

        Returns:
            `dict`: The fields.

        Raises:
            ValueError: If this class has no task, and as there.
        """
        raise ValueError(
            f"dataset: {cls.__name__} has no task. Use a head, such as LPSForGraphClassification, or give the fields."
        )

    @classmethod
    def config_defaults(cls, backbone_config: PreTrainedConfig, config_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Fields of `LPSConfig` for a new model of this class: those given, and the task's own where they are missing.

        Args:
            backbone_config: The backbone's configuration; a task may change it, as it changes its number of classes.
            config_kwargs: What the user gives.

        Returns:
            `dict`: Arguments of `LPSConfig`.
        """
        return config_kwargs


def _config_of(backbone: Any, hub: dict[str, Any]) -> PreTrainedConfig:
    """A configuration of a backbone that may be changed."""
    if isinstance(backbone, PreTrainedModel):
        given = {key: value for key, value in hub.items() if value not in (None, False, "main")}
        if given:
            raise ValueError(f"{next(iter(given))}: expected None for a backbone that is loaded already, got a value.")
        if any(parameter.is_meta for parameter in backbone.parameters()):
            raise ValueError(
                "backbone: expected a model with its weights, got one on the meta device, or offloaded. Give its name instead."
            )
        config = copy.deepcopy(backbone.config)
    elif isinstance(backbone, str | PathLike):
        config = AutoConfig.from_pretrained(backbone, **hub)
    elif isinstance(backbone, PreTrainedConfig):
        raise TypeError(
            f"backbone: expected a pretrained model or its name, got a {type(backbone).__name__}, which has no weights. For "
            "random ones make the model of a configuration: LPSForGraphClassification(LPSConfig(backbone_config=…))."
        )
    else:
        raise TypeError(f"backbone: expected a Hub id, a folder or a model of transformers, got {type(backbone).__name__}.")
    if config.model_type == LPSConfig.model_type:
        raise ValueError("backbone: expected a plain backbone, got a symmetrized model. Load it with from_pretrained.")
    return config


def _placed(model: Any, device_map: Any) -> Any:
    """Put a model where a map says, as transformers does while it loads one."""
    if device_map is None:
        return model
    device_map = check_and_set_device_map(device_map)
    if isinstance(device_map, dict) and set(device_map) == {""}:
        return model.to(device_map[""])
    model.hf_device_map = _get_device_map(model, device_map, None, None)
    accelerate_dispatch(model, None, model.hf_device_map, None, None, False)
    return model


class LPSModel(LPSPreTrainedModel):
    """The symmetrized function φ itself: fields in, the representation of `config.output` out.

    Args:
        config: The configuration.
    """

    def __init__(self, config: LPSConfig) -> None:
        check_is_symmetrized("config", config)
        super().__init__(config)
        config.validate_lps()  # a value may have been set since the configuration was made
        self.group = get_group(config.group)
        # First, so that `dtype`, which is that of the first parameter, is the backbone's and not always float32.
        self.base = make_base_function(config)
        self.distribution = EquivariantDistribution(
            self.group,
            config.distribution,
            config.input_representations,
            noise_scale=config.noise_scale,
            temperature=config.temperature,
            sinkhorn_iterations=config.sinkhorn_iterations,
            temperature_rule=config.temperature_rule,
            interface_config=config.interface_config,
            sampler=config.sampler,
            sampler_group_size=config.sampler_group_size,
        )
        # transformers asks direct children only, and the backbone lies deeper.
        pretrained = self.base.pretrained_model
        self.supports_gradient_checkpointing = pretrained is not None
        # What "auto" and its tolerance are about: probabilities where the output is their logits.
        self.link = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid"}.get(
            config.problem_type or "", "identity"
        )
        self._no_split_modules = [*self._no_split_modules, *(getattr(pretrained, "_no_split_modules", None) or ())]
        self.post_init()

    def encode(self, **tensors: Tensor | None) -> Batch:
        """Check the tensors of `forward` and make the input fields of them; see `encode_batch`."""
        return encode_batch(self.config, torch.promote_types(self.dtype, torch.float32), tensors)

    def draw_noise(self, batch: Batch, num_samples: int, generator: torch.Generator | None = None) -> Noise:
        """Draw the noise ε of `forward`, to use it again; see `EquivariantDistribution.draw_noise`."""
        return self.distribution.draw_noise(batch, num_samples, generator)

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
        positions: Tensor | None = None,
        velocities: Tensor | None = None,
        charges: Tensor | None = None,
        pixel_values: Tensor | None = None,
        num_samples: int | Literal["auto"] | None = None,
        tolerance: float | None = None,
        noise: Noise | None = None,
        group_elements: Any = None,
        generator: torch.Generator | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_samples: bool = False,
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
            frame_ranks (`torch.Tensor` of shape `(batch, nodes)` int64): For distributions `"frame"` and `"exact"`.
            positions (`torch.Tensor` of shape `(batch, nodes, d)`): In data units.
            velocities (`torch.Tensor` of shape `(batch, nodes, d)`): In data units.
            charges (`torch.Tensor` of shape `(batch, nodes, 1)`): One number per node.
            pixel_values (`torch.Tensor` of shape `(batch, channels, height, width)`): As the backbone's image processor gives it.
            num_samples: Default: `config.num_samples` in training, `config.num_eval_samples` at evaluation. Distributions
                `"exact"` and `"none"` have a number of their own. `"auto"`, at evaluation: draw for each input until its error
                bar is at most `tolerance`, or `config.max_eval_samples` are drawn; then no elements are returned.
            tolerance: Of `"auto"`. Default: `config.tolerance`.
            noise (`dict` as `draw_noise` returns): Makes the result deterministic; q(g·x, g·ε) = g·q(x, ε).
            group_elements (as in `LPSModelOutput`): Use these elements.
            generator: Random source of the noise, on the batch's device.
            output_attentions: Return the backbone's attentions.
            output_hidden_states: Return the backbone's hidden states.
            output_samples: Return what was averaged, too.

        Returns:
            `LPSModelOutput`.

        Raises:
            ValueError: If a tensor is missing, has the wrong shape, or holds impossible values.
            TypeError: If a tensor has the wrong type.
        """
        batch = self.encode(
            edge_index=edge_index,
            node_features=node_features,
            node_categories=node_categories,
            edge_features=edge_features,
            edge_categories=edge_categories,
            node_mask=node_mask,
            edge_mask=edge_mask,
            frame_ranks=frame_ranks,
            positions=positions,
            velocities=velocities,
            charges=charges,
            pixel_values=pixel_values,
        )
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        # Where neither the call nor our configuration asks, the backbone's own configuration may.
        flags = {name: getattr(self.config, name) or None if flag is None else flag for name, flag in flags.items()}
        flags = {name: flag for name, flag in flags.items() if flag is not None}
        own = getattr(self.base.pretrained_model, "config", None)
        returns_states = any(flags.get(name, getattr(own, name, False)) for name in ("output_attentions", "output_hidden_states"))
        backbone_output: dict[str, Any] = {}

        def base(fields: dict[str, Field], part: Batch) -> Tensor:
            result, states = self.base(self._base_fields(fields, part), part.node_mask, **flags)
            backbone_output.update(states)
            return result

        if num_samples is None and noise is None and group_elements is None:
            num_samples = self.config.num_samples if self.training else self.config.num_eval_samples
        keeps_samples = self.keeps_samples or output_samples
        if num_samples == "auto":
            if self.training or noise is not None or group_elements is not None or returns_states:
                raise ValueError(
                    "num_samples: expected a number in training, and with noise, group_elements, output_hidden_states or "
                    "output_attentions, got 'auto'. Call eval() and leave them out, or give a number."
                )
            estimate, sample = self._estimate_to_tolerance(base, batch, tolerance, generator, output_samples), None
        else:
            if num_samples is not None:
                check_num_samples("num_samples", num_samples)
            # A gradient, and the backbone's states, need all samples at once; and a compiled graph would repeat every pass.
            at_once = torch.is_grad_enabled() or returns_states or torch.compiler.is_compiling()
            chunk_size = None if at_once else self._samples_per_pass(batch)
            draws = self.distribution.draws(batch, num_samples, noise, group_elements, generator, chunk_size)
            estimate, sample = self.symmetrization.estimate(base, draws, batch, keeps_samples)
        output, samples = estimate.mean, estimate.samples if keeps_samples else None
        if self.config.residual is not None:
            field, axes = batch.fields[self.config.residual], self.config.input_representations[self.config.residual]
            residual = mask_nodes(field, axes, batch.node_mask)
            output = output + residual
            samples = None if samples is None else samples + residual.unsqueeze(1)
        return LPSModelOutput(
            output=output,
            standard_error=estimate.standard_error,
            degrees_of_freedom=estimate.degrees_of_freedom,
            draws_agree=estimate.draws_agree,
            entropy_loss=None if sample is None else sample.entropy,
            prior_loss=None if sample is None else sample.prior_loss,
            samples=samples,
            num_samples=estimate.num_samples,
            group_elements=None if sample is None else sample.elements.tensors,
            hidden_states=backbone_output.get("hidden_states"),
            attentions=backbone_output.get("attentions"),
        )

    @property
    def symmetrization(self) -> Symmetrization:
        """How outputs of the base function are averaged, and what is known of their spread."""
        return Symmetrization(self.distribution, inner_output(self.config), self.config.variance_prior_value, self.link)

    @property
    def keeps_samples(self) -> bool:
        """Whether the output of every sample is handed on: the loss of a head may be about each of them."""
        return self.training and self.config.sample_loss == "mean_of_losses"

    def _base_fields(self, fields: dict[str, Field], batch: Batch) -> dict[str, Field]:
        """The fields as `config.base_representations` names them; `fields` have been acted on, those of `batch` have not."""
        if not self.config.node_features_on_diagonal:
            return fields
        edges, nodes = fields["edge_features"], batch.fields["node_features"]
        assert isinstance(edges, EdgeField)
        assert isinstance(nodes, Tensor)
        first = self.config.input_representations["edge_features"].num_channels
        others = {name: field for name, field in fields.items() if name != "node_features"}
        return {**others, "edge_features": edges.with_diagonal(nodes, first)}

    def _samples_per_pass(self, batch: Batch) -> int:
        if self.config.samples_per_pass is not None:
            return self.config.samples_per_pass
        on_cpu = batch.node_mask.device.type == "cpu"
        return max(1, CPU_ROWS_PER_PASS // len(batch.node_mask)) if on_cpu else SAMPLES_PER_PASS

    def _estimate_to_tolerance(
        self, base: BaseCall, batch: Batch, tolerance: float | None, generator: torch.Generator | None, output_samples: bool
    ) -> Estimate:
        tolerance = self.config.tolerance if tolerance is None else tolerance
        check_tolerance(tolerance)
        if self.config.distribution in ("none", "exact"):  # no error bar to wait for
            chunk_size = self._samples_per_pass(batch)
            draws = self.distribution.draws(batch, self.config.min_eval_samples, generator=generator, chunk_size=chunk_size)
            return self.symmetrization.estimate(base, draws, batch, keeps_samples=output_samples)[0]
        rule = StoppingRule(
            tolerance,
            self.config.min_eval_samples,
            self.config.max_eval_samples,
            self.config.samples_per_pass or SAMPLES_PER_PASS,
        )
        return self.symmetrization.estimate_to_tolerance(base, batch, rule, generator, output_samples)
