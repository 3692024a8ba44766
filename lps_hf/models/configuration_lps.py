"""The configuration of a symmetrized model."""

import math
from dataclasses import fields
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import logging

from .groups import get_group
from .representations import Representation

DISTRIBUTIONS = ("learned", "canonical", "frame", "haar", "none")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
PADDING_MODES = ("zero", "reflect", "replicate", "circular")
# The batch keys that are fields, and their node axes.
FIELD_AXES = {"node_features": ("n",), "edge_features": ("n", "n")}
INTERFACE_DEFAULTS = {"num_layers": 3, "hidden_size": 64, "dropout": 0.0}

# What transformers itself passes to, or stores in, any configuration beside the dataclass fields.
_LIBRARY_KEYS = {
    *("name_or_path", "attn_implementation", "experts_implementation", "torch_dtype", "num_labels", "auto_map"),
    *("model_type", "_commit_hash", "_name_or_path", "output_attentions", "_attn_implementation_autoset"),
    *("torchscript", "use_return_dict", "gradient_checkpointing", "use_cache"),
}

# What transformers passes on to `from_dict` while it loads.
_LOADING_KEYS = {"return_unused_kwargs", "_from_auto", "_from_pipeline", "trust_remote_code", "code_revision", "subfolder"}

logger = logging.get_logger(__name__)


class LPSConfig(PreTrainedConfig):
    r"""Configuration of `LPSModel` and its task heads: a backbone, a group, a distribution p(g|x) and two axis strings.

    Args:
        backbone_config (`PreTrainedConfig` or `dict`): Configuration of the base network f; see `supported_families()`.
        group (`str`): Symmetry group, `"S_n"`.
        distribution (`str`): p(g|x): `"learned"` (the paper's), `"canonical"`, `"frame"`, `"haar"` or `"none"`.
        inputs (`dict[str, str]`, *optional*): Axis string of each input field, in the order in which they are projected.
            Default: `node_features` "n c" and `edge_features` "n n c" with the channel numbers below.
        output (`str`, *optional*): Axis string of the output. Default: `num_labels` invariant numbers.
        max_nodes (`int`): Largest number of nodes; it fixes the size of the token projections.
        node_categories (`list[int]`, *optional*): Size of every categorical node feature; they are one-hot encoded inside the
            model. `None`: node features are real numbers (or, where `inputs` is not given either, a constant).
        edge_categories (`list[int]`, *optional*): The same for edges. The semantic tensor has one more channel, first, that
            is 1 where there is an edge. `None`: edge features are real numbers, or a constant 1 for a plain adjacency matrix.
        num_samples (`int`): Group elements drawn per input in training.
        num_eval_samples (`int`): Group elements drawn per input at evaluation. The canonical distribution draws the same one
            again wherever no nodes tie: 1 is then enough.
        noise_scale (`float`): η, the noise of the learned distribution is Uniform(0, η).
        temperature (`float`): τ of SoftSort, on scores of unit L2 norm (the published rule).
        sinkhorn_iterations (`int`): Sinkhorn rounds of the soft matrix.
        entropy_loss_coef (`float`): Weight of the entropy of the soft matrix in the loss.
        interface_config (`dict`): `num_layers`, `hidden_size` and `dropout` of the equivariant network q(x, ε).
        grid_size (`int`, *optional*): t, the backbone sees t × t tokens. Default: the backbone's own grid.
        padding_mode (`str`): How n_max is padded to the grid: `"zero"`, `"reflect"`, `"replicate"` or `"circular"`.
        centered_padding (`bool`): Pad on both sides instead of at the end.
        patch_dropout (`float`): Share of tokens dropped in training; off at evaluation.

    Raises:
        ValueError: If a value is out of range, unknown, or does not fit the others.
        TypeError: If a value has the wrong type.
    """

    model_type = "lps"
    keys_to_ignore_at_inference = ["entropy_loss", "group_elements", "hidden_states", "attentions"]
    sub_configs_defaults = {"backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="vit")}

    backbone_config: dict | PreTrainedConfig | None = None
    group: str = "S_n"
    distribution: str = "learned"
    inputs: dict[str, str] | None = None
    output: str | None = None
    max_nodes: int = 64
    node_categories: list[int] | None = None
    edge_categories: list[int] | None = None
    num_samples: int = 1
    num_eval_samples: int = 10
    noise_scale: float = 1.0
    temperature: float = 0.01
    sinkhorn_iterations: int = 20
    entropy_loss_coef: float = 0.1
    interface_config: dict | None = None
    grid_size: int | None = None
    padding_mode: str = "zero"
    centered_padding: bool = False
    patch_dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        unknown = sorted(key for key in kwargs if key not in _LIBRARY_KEYS)
        if unknown:
            raise ValueError(_unknown_key(unknown[0]))
        if self.backbone_config is not None and not isinstance(self.backbone_config, dict | PreTrainedConfig):
            raise TypeError(f"backbone_config: expected a configuration or a dict, got {self.backbone_config!r}.")
        if isinstance(self.backbone_config, dict):
            if "model_type" not in self.backbone_config:
                raise ValueError(f"backbone_config: expected a 'model_type' key such as 'vit', got {self.backbone_config}.")
            self.backbone_config = AutoConfig.for_model(**self.backbone_config)
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(f"problem_type: expected one of {', '.join(map(repr, PROBLEM_TYPES))}, got {self.problem_type!r}.")
        super().__post_init__(**kwargs)
        unknown = sorted(set(self.interface_config or {}) - set(INTERFACE_DEFAULTS))
        if unknown:
            raise ValueError(f"interface_config: unknown key {unknown[0]!r}, expected {', '.join(INTERFACE_DEFAULTS)}.")
        self.interface_config = {**INTERFACE_DEFAULTS, **(self.interface_config or {})}
        self._check_categories()
        if self.inputs is None:
            node_channels = sum(self.node_categories) if self.node_categories else 1
            edge_channels = 1 + (sum(self.edge_categories) if self.edge_categories else 0)
            self.inputs = {"node_features": f"n {node_channels}", "edge_features": f"n n {edge_channels}"}
        self.validate_lps()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "LPSConfig":
        """Read what was saved, as `PreTrainedConfig.from_dict` does: keys that nobody here knows become attributes.

        Only arguments are checked for typing mistakes. Other libraries and later versions write keys of their own into
        a file, which must stay readable.

        Args:
            config_dict: The content of `config.json`.
            kwargs: Values that take the place of those in the file.

        Returns:
            The configuration, or with `return_unused_kwargs=True` a tuple of it and the arguments it has no field for.
        """
        known = {field.name for field in fields(cls)} | _LIBRARY_KEYS
        unknown = sorted(set(kwargs) - known - _LOADING_KEYS)
        if unknown and not kwargs.get("return_unused_kwargs"):
            raise ValueError(_unknown_key(unknown[0]))
        # Into the dict, so that they are checked as arguments are; the base class would set them afterwards.
        changed = {key: kwargs.pop(key) for key in set(kwargs) & (set(LPSConfig.__annotations__) - {"backbone_config"})}
        if {"node_categories", "edge_categories"} & set(changed) and "inputs" not in changed:
            changed["inputs"] = None
        config_dict = {**config_dict, **changed}
        others = {key: value for key, value in config_dict.items() if key not in known}
        if others:
            logger.warning(f"LPSConfig: keys that this version does not know nor use: {', '.join(sorted(others))}.")
        result = super().from_dict({key: value for key, value in config_dict.items() if key in known}, **kwargs)
        config = result[0] if isinstance(result, tuple) else result
        for key, value in others.items():
            setattr(config, key, value)
        return result

    def to_dict(self) -> dict[str, Any]:
        """The fields, without the code that a loaded checkpoint came with: a plain save does not copy it."""
        values = super().to_dict()
        if self._auto_class is None:
            values.pop("auto_map", None)
        return values

    def validate_lps(self) -> None:
        """Check every value, and that they fit each other.

        Raises:
            ValueError: Saying which argument, what was expected, what was given.
            TypeError: Likewise.
        """
        for name, choices in (("distribution", DISTRIBUTIONS), ("padding_mode", PADDING_MODES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {getattr(self, name)!r}.")
        for name, least in (("max_nodes", 1), ("num_samples", 1), ("num_eval_samples", 1), ("sinkhorn_iterations", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: expected an int, got {type(value).__name__} {value!r}.")
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}.")
        for name, least, most in (("noise_scale", 0, None), ("entropy_loss_coef", 0, None), ("patch_dropout", 0, 1)):
            value = getattr(self, name)
            finite = isinstance(value, int | float) and math.isfinite(value)
            if not finite or value < least or (most is not None and value >= most):
                bound = f"at least {least}" + (f" and below {most}" if most is not None else "")
                raise ValueError(f"{name}: expected a number of {bound}, got {value!r}.")
        if not isinstance(self.temperature, int | float) or not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature!r}.")
        if self.grid_size is not None and (type(self.grid_size) is not int or self.grid_size < 1):
            raise ValueError(f"grid_size: expected a whole number of at least 1 or None, got {self.grid_size!r}.")
        if self.num_labels < 1:
            raise ValueError(f"num_labels: expected at least 1, got {self.num_labels}.")
        self._check_interface()
        group = get_group(self.group)
        if not isinstance(self.inputs, dict):
            raise TypeError(f"inputs: expected a dict of axis strings by field, got {self.inputs!r}.")
        if not self.inputs:
            raise ValueError("inputs: expected at least one field, got none. Leave inputs out for the default.")
        for name, text in self.inputs.items():
            if name not in FIELD_AXES:
                raise ValueError(f"inputs: unknown field {name!r}, expected {' or '.join(map(repr, FIELD_AXES))}.")
            representation = Representation.parse(text)
            group.check_acts_on(representation, f"inputs[{name!r}]")
            if representation.axes != (*FIELD_AXES[name], representation.num_channels):
                expected = " ".join([*FIELD_AXES[name], "c"])
                raise ValueError(f"inputs[{name!r}]: expected {expected!r} with a number of channels c, got {text!r}.")
        output = self.output_representation
        group.check_acts_on(output, "output")
        if output.axes != ("n",) * output.count("n") + (output.num_channels,) or output.count("n") > 2:
            raise ValueError(f"output: expected 'c', 'n c' or 'n n c' with a number of channels c, got {str(output)!r}.")
        self._check_encoded_channels("node_features", self.node_categories, extra=0)
        self._check_encoded_channels("edge_features", self.edge_categories, extra=1)
        if self.distribution in ("learned", "canonical") and "node_features" not in self.inputs:
            raise ValueError(
                f"inputs: the {self.distribution} distribution of S_n reads 'node_features', got only {list(self.inputs)}. Add "
                "it (a constant channel will do), or choose distribution 'haar', 'frame' or 'none'."
            )

    def _check_categories(self) -> None:
        for name in ("node_categories", "edge_categories"):
            sizes = getattr(self, name)
            if sizes is None:
                continue
            if not isinstance(sizes, list | tuple) or not sizes or any(not isinstance(s, int) or s < 1 for s in sizes):
                raise ValueError(f"{name}: expected a list of positive category counts such as [5, 6, 2], got {sizes!r}.")

    def _check_interface(self) -> None:
        for name in ("num_layers", "hidden_size"):
            value = self.interface_config[name]
            if type(value) is not int or value < 1:
                raise ValueError(f"interface_config[{name!r}]: expected a whole number of at least 1, got {value!r}.")
        dropout = self.interface_config["dropout"]
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"interface_config['dropout']: expected a number from 0 to below 1, got {dropout!r}.")

    def _check_encoded_channels(self, field: str, categories: list[int] | None, extra: int) -> None:
        if categories and field in self.inputs:
            channels, expected = self.input_representations[field].num_channels, sum(categories) + extra
            if channels != expected:
                raise ValueError(
                    f"inputs[{field!r}]: expected {expected} channels for the categories {categories}, got {channels}. Leave "
                    "inputs out and they are counted for you."
                )

    @property
    def input_representations(self) -> dict[str, Representation]:
        """The parsed axis string of each input field."""
        return {name: Representation.parse(text) for name, text in self.inputs.items()}

    @property
    def output_representation(self) -> Representation:
        """The parsed axis string of the output; `num_labels` invariant numbers unless `output` says otherwise."""
        return Representation.parse(self.output if self.output is not None else str(self.num_labels))


def _unknown_key(key: str) -> str:
    names = ", ".join(sorted(set(LPSConfig.__annotations__)))
    return f"LPSConfig: unknown key {key!r}. Expected one of {names}, or a transformers option."
