"""The configuration of a symmetrized model."""

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import logging

from .configuration_base_networks import BASE_NETWORK_CONFIGS
from .error_bars import NO_PRIOR, VariancePrior
from .field_types import check_fields, checked_value
from .frames import FRAMES
from .group import Group, check_relaxation
from .groups import get_group
from .interfaces import check_output, check_symmetry, complete_interface_options, interface_class, vector_inputs
from .representations import Representation
from .samplers import check_whole_groups

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
SAMPLE_LOSSES = ("loss_of_mean", "mean_of_losses")
PADDING_MODES = ("zero", "reflect", "replicate", "circular")
# The batch keys that are fields, and their axes; c is a number of channels.
FIELD_AXES = {
    "node_features": "n c",
    "edge_features": "n n c",
    "positions": "n p",
    "velocities": "n v",
    "charges": "n c",
    "pair_features": "n n c",
    "pixel_values": "c h w",
}

# What transformers itself passes to, or stores in, any configuration beside the dataclass fields.
_LIBRARY_KEYS = {
    *("name_or_path", "attn_implementation", "experts_implementation", "torch_dtype", "num_labels", "auto_map"),
    *("model_type", "_commit_hash", "_name_or_path", "output_attentions", "_attn_implementation_autoset"),
    *("torchscript", "use_return_dict", "gradient_checkpointing", "use_cache", "custom_pipelines"),
}

# What transformers passes on to `from_dict` while it loads.
_LOADING_KEYS = {"return_unused_kwargs", "_from_auto", "_from_pipeline", "trust_remote_code", "code_revision", "subfolder"}

logger = logging.get_logger(__name__)


class LPSConfig(PreTrainedConfig):
    r"""Configuration of `LPSModel` and its task heads: a backbone, a group, a distribution p(g|x) and two axis strings.

    Args:
        backbone_config (`PreTrainedConfig` or `dict`): Configuration of the base network f; see `supported_families()`.
        group (`str`): Symmetry group: `"S_n"`, `"O(3)"`, `"SO(3)"`, `"E(3)"`, `"SE(3)"` (any dimension), `"C_4"`, `"D_4"` (any
            order) or a product such as `"S_n x E(3)"`.
        distribution (`str`): p(g|x): `"learned"` (the paper's), `"canonical"`, `"frame"`, `"haar"`, `"exact"` (every element of
            a finite group or frame) or `"none"`.
        frame (`str`): The frame of a graph that distributions `"frame"` and `"exact"` of S_n take: `"laplacian"`
            (eigenvectors, Puny et al. 2022) or `"canonical_labelling"` (one order of the nodes, by the package canonaut).
        inputs (`dict[str, str]`, *optional*): Axis string of each input field, in any order: the model reads them in that of
            `FIELD_AXES`. `pair_features` are computed from positions: the charge product (where it has two channels) and the
            squared distance. Default for S_n: `node_features` "n c" and `edge_features` "n n c" with the channel numbers below;
            with an orthogonal factor `positions` "n p" (and `node_features` where there are `node_categories`); for C_n and D_n
            `pixel_values` "c h w" with the backbone's channels.
        output (`str`, *optional*): Axis string of the output. Default: `num_labels` invariant numbers.
        residual (`str`, *optional*): Input field that is added to the output; the base function then predicts the difference, a
            vector where the output is a point. The particle experiments of the paper do so with `"positions"`.
        node_features_on_diagonal (`bool`): The base function reads node features on the diagonal of the edge tensor, in channels
            of their own behind those of edges, and nowhere else. The paper does so for PATTERN.
        max_nodes (`int`): Largest number of nodes; it fixes the size of the token projections.
        node_categories (`list[int]`, *optional*): Size of every categorical node feature; they are one-hot encoded inside the
            model. `None`: node features are real numbers (or, where `inputs` is not given either, a constant).
        edge_categories (`list[int]`, *optional*): The same for edges. The semantic tensor has one more channel, first, that
            is 1 where there is an edge. `None`: edge features are real numbers, or a constant 1 for a plain adjacency matrix.
        num_samples (`int`): Group elements drawn per input in training.
        num_eval_samples (`int` or `str`): Group elements drawn per input at evaluation. The canonical distribution draws the same
            one again wherever no nodes tie: 1 is then enough. `"auto"`: as many as each input needs for an error bar of at most
            `tolerance`.
        tolerance (`float`): Of `"auto"`: the largest standard error of a probability (with a `problem_type` of classification,
            and in heads that only classify), and otherwise of the network's output, which `label_std` normalises.
        min_eval_samples (`int`): How many `"auto"` draws before it believes an error bar: that of a few is too small wherever
            rare draws matter.
        max_eval_samples (`int`): Where `"auto"` stops in any case.
        samples_per_pass (`int`, *optional*): Group elements per input that the backbone sees at once at evaluation without
            gradient: the memory of more of them is that of so many. Default: on a CPU as many as make 16 rows with the batch,
            which stay in its caches; elsewhere 10.
        sample_loss (`str`): `"loss_of_mean"`: the loss of the averaged output, as published; `"mean_of_losses"`: in training,
            that of every sample, averaged, which is an upper bound where the loss is convex.
        sampler (`str`): How the draws of one input depend on each other: `"independent"`, `"antithetic"` (opposite pairs),
            `"stratified"` (Latin hypercubes) or `"orthogonal"` (elements g·h with h in a finite subgroup; Latin hypercubes for
            what has none). The estimate is unbiased with each. For distribution `"haar"` in three dimensions orthogonal groups
            of 12 need less than half of the samples, and of 120 less than a quarter; with learned distributions none was seen
            to help (`scripts/bench_sampling.py`).
        sampler_group_size (`int`, *optional*): m, the number of draws that depend on each other. Numbers of samples above it
            must be multiples of it, and below it they are a part of one group, for which there is no error bar. Default: 1 for
            independent, 2 for antithetic, otherwise 4 where the group allows.
        noise_scale (`float`): η, factor on the noise of the learned distribution: Uniform(0, 1) on node features, Normal(0, 1) on
            vectors, Gumbel(0, 1) on the scores of a finite group.
        temperature (`float`, *optional*): τ of the relaxation that carries the gradient: SoftSort on scores of unit L2 norm (the
            published rule) for S_n, a softmax for finite groups. Default: 0.01 for S_n, 0.1 in products, 1 for finite groups.
        temperature_rule (`str`): `"published"`: τ of permutations is `temperature` itself, so that the relaxation gets flatter
            with the number of nodes; `"relative"`: it is `temperature` times the mean gap between neighbouring scores, alike for
            all sizes, with the default 8.
        sinkhorn_iterations (`int`): Sinkhorn rounds of the soft matrix.
        entropy_loss_coef (`float`): Weight of the entropy of the soft matrix in the loss.
        prior_loss_coef (`float`): Weight of -log p(identity|x), which keeps a finite group's distribution at the pose that the
            backbone was pretrained on (Mondal et al. 2023).
        interface_config (`dict`): Options of the equivariant network q(x, ε): `num_layers`, `hidden_size` and `dropout`;
            `num_neighbors` of vector neurons; `resolution` of the image network.
        grid_size (`int`, *optional*): t, the backbone sees t × t tokens. Default: the backbone's own grid.
        padding_mode (`str`): How n_max is padded to the grid: `"zero"`, `"reflect"`, `"replicate"` or `"circular"`.
        centered_padding (`bool`): Pad on both sides instead of at the end.
        patch_dropout (`float`): Share of tokens dropped in training; off at evaluation.
        class_weighted (`bool`): Weigh the classes of nodes by their absence in the batch.
        label_mean (`list[float]`, *optional*): Mean of each target of a regression, in the data's unit.
        label_std (`list[float]`, *optional*): Standard deviation of each; the network then predicts normalised targets.
        variance_prior (`dict`, *optional*): What is known of the variance of draws, so that the error bars of few of them are
            honest: `variance`, a list with one number for every output channel or a single one for all, and
            `degrees_of_freedom`. `lps_hf.evaluation.error_bars.calibrate_error_bars` measures it; see `error_bars`.

    Raises:
        ValueError: If a value is out of range, unknown, or does not fit the others.
        TypeError: If a value has the wrong type.
    """

    model_type = "lps"
    # Of an output all but loss and logits: what a Trainer gathers as predictions is the logits alone.
    keys_to_ignore_at_inference = [
        *("standard_error", "degrees_of_freedom", "draws_agree", "entropy_loss", "prior_loss", "samples", "num_samples"),
        *("group_elements", "hidden_states", "attentions"),
    ]
    sub_configs_defaults = {"backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="vit")}

    backbone_config: dict | PreTrainedConfig | None = None
    group: str = "S_n"
    distribution: str = "learned"
    frame: str = "laplacian"
    inputs: dict[str, str] | None = None
    output: str | None = None
    residual: str | None = None
    node_features_on_diagonal: bool = False
    max_nodes: int = 64
    node_categories: list[int] | None = None
    edge_categories: list[int] | None = None
    num_samples: int = 1
    num_eval_samples: int | Literal["auto"] = 10
    tolerance: float = 0.01
    min_eval_samples: int = 20
    max_eval_samples: int = 100
    samples_per_pass: int | None = None
    sample_loss: str = "loss_of_mean"
    sampler: str = "independent"
    sampler_group_size: int | None = None
    noise_scale: float = 1.0
    temperature: float | None = None
    temperature_rule: str = "published"
    sinkhorn_iterations: int = 20
    entropy_loss_coef: float = 0.1
    prior_loss_coef: float = 0.0
    interface_config: dict | None = None
    grid_size: int | None = None
    padding_mode: str = "zero"
    centered_padding: bool = False
    patch_dropout: float = 0.0
    class_weighted: bool = False
    label_mean: list[float] | None = None
    label_std: list[float] | None = None
    variance_prior: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        unknown = sorted(key for key in kwargs if key not in _LIBRARY_KEYS)
        if unknown:
            raise ValueError(_unknown_key(unknown[0]))
        check_fields(self)
        if kwargs.get("num_labels") is None:
            kwargs.pop("num_labels", None)  # as if it were left out
        else:
            kwargs["num_labels"] = checked_value("num_labels", kwargs["num_labels"], int)
        if isinstance(self.backbone_config, dict):
            self.backbone_config = make_backbone_config(self.backbone_config)
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(f"problem_type: expected one of {', '.join(map(repr, PROBLEM_TYPES))}, got {self.problem_type!r}.")
        if self.label2id and not self.id2label:
            # The base class makes up names where there are no numbers of them, and drops these.
            self.id2label = {number: name for name, number in self.label2id.items()}
            _check_class_numbers("label2id", self.label2id.values())
        elif self.id2label:
            _check_class_numbers("id2label", self.id2label)
        super().__post_init__(**kwargs)
        group = self._real_group()
        self._check_categories()
        if self.inputs is None:
            self.inputs = self._default_inputs(group)
        if isinstance(self.inputs, dict):
            # Always in one order: JSON is written sorted, and networks tell fields apart by their place.
            self.inputs = dict(sorted(self.inputs.items(), key=lambda item: [*FIELD_AXES, item[0]].index(item[0])))
        self._fill_interface_config(group)
        if self.temperature is None:
            self.temperature = group.temperature_by(self.temperature_rule)
        self.validate_lps()

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read `config.json`, as `PreTrainedConfig.get_config_dict`, but refuse that of another model.

        Args:
            pretrained_model_name_or_path: Hub id or folder.
            kwargs: See there.

        Returns:
            Its content, and the arguments that were not used.

        Raises:
            ValueError: If it is the configuration of a plain backbone.
        """
        config_dict, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        check_is_symmetrized(str(pretrained_model_name_or_path), config_dict.get("model_type", cls.model_type))
        return config_dict, unused

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
        check_is_symmetrized("config_dict", config_dict.get("model_type", cls.model_type))
        known = {field.name for field in fields(cls)} | _LIBRARY_KEYS
        unknown = sorted(set(kwargs) - known - _LOADING_KEYS)
        if unknown and not kwargs.get("return_unused_kwargs"):
            raise ValueError(_unknown_key(unknown[0]))
        # Into the dict, so that they are checked as arguments are; the base class would set them afterwards.
        changed = {key: kwargs.pop(key) for key in set(kwargs) & (set(LPSConfig.__annotations__) - {"backbone_config"})}
        if {"node_categories", "edge_categories"} & set(changed) and "inputs" not in changed:
            changed["inputs"] = None
        if changed.get("group", config_dict.get("group")) != config_dict.get("group"):
            # What belongs to the old group is not asked of the new one.
            changed = {"inputs": None, "interface_config": None, "temperature": None, **changed}
        if changed.get("temperature_rule", config_dict.get("temperature_rule")) != config_dict.get("temperature_rule"):
            changed = {"temperature": None, **changed}  # that of the old rule is in another unit
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
        values.pop("custom_pipelines", None)  # whoever saves the code of a pipeline writes it
        return values

    def validate_lps(self) -> None:
        """Check every value, and that they fit each other.

        Raises:
            ValueError: Saying which argument, what was expected, what was given.
            TypeError: Likewise.
        """
        check_fields(self)
        group = self._real_group()
        group.check_distribution(self.distribution)
        for name, choices in (
            ("frame", FRAMES),
            ("padding_mode", PADDING_MODES),
            ("sample_loss", SAMPLE_LOSSES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {getattr(self, name)!r}.")
        if self.num_eval_samples != "auto":
            check_num_samples("num_eval_samples", self.num_eval_samples)
        check_tolerance(self.tolerance)
        counts = ["max_nodes", "num_samples", "min_eval_samples", "max_eval_samples"] + (
            ["samples_per_pass"] if self.samples_per_pass is not None else []
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        size = group.sampler_group_size(self.sampler, self.sampler_group_size)
        for name in ("num_samples", "num_eval_samples"):
            if getattr(self, name) != "auto":
                check_whole_groups(name, getattr(self, name), size)
        check_relaxation(self.noise_scale, self.temperature, self.temperature_rule, self.sinkhorn_iterations)
        coefficients = ("entropy_loss_coef", "prior_loss_coef")
        for name, least, most in (*((name, 0, None) for name in coefficients), ("patch_dropout", 0, 1)):
            value = getattr(self, name)
            if not math.isfinite(value) or value < least or (most is not None and value >= most):
                bound = f"at least {least}" + (f" and below {most}" if most is not None else "")
                raise ValueError(f"{name}: expected a number of {bound}, got {value!r}.")
        if self.grid_size is not None and self.grid_size < 1:
            raise ValueError(f"grid_size: expected a whole number of at least 1 or None, got {self.grid_size!r}.")
        if self.num_labels < 1:
            raise ValueError(f"num_labels: expected at least 1, got {self.num_labels}.")
        self._fill_interface_config(group)
        if not isinstance(self.inputs, dict):
            raise TypeError(f"inputs: expected a dict of axis strings by field, got {self.inputs!r}.")
        if not self.inputs:
            raise ValueError("inputs: expected at least one field, got none. Leave inputs out for the default.")
        for name, text in self.inputs.items():
            if name not in FIELD_AXES:
                raise ValueError(f"inputs: unknown field {name!r}, expected {' or '.join(map(repr, FIELD_AXES))}.")
            representation = Representation.parse(text)
            group.check_acts_on(representation, f"inputs[{name!r}]")
            if _pattern(representation) != FIELD_AXES[name]:
                meaning = " with a number of channels c" if "c" in FIELD_AXES[name].split() else ""
                raise ValueError(f"inputs[{name!r}]: expected {FIELD_AXES[name]!r}{meaning}, got {text!r}.")
        self._check_output(group)
        self._check_normalisation()
        self._check_variance_prior()
        self._check_encoded_channels("node_features", self.node_categories, extra=0)
        self._check_encoded_channels("edge_features", self.edge_categories, extra=1)
        self._check_group_inputs(group)
        if self.node_features_on_diagonal and not {"node_features", "edge_features"} <= set(self.inputs):
            raise ValueError(
                "node_features_on_diagonal: expected the inputs 'node_features' and 'edge_features', got only "
                f"{', '.join(self.inputs)}. Add the missing one, or leave it False."
            )

    def _real_group(self) -> Group:
        group = get_group(self.group)
        if any(factor.acts_on_complex for factor in group.factors):
            raise ValueError(
                f"group: expected one that acts on real fields, such as 'O(3)', got {self.group!r}, which acts on complex "
                f"vectors. A model has none: symmetrize(module, group={self.group!r}, …) takes complex tensors."
            )
        return group

    def _check_output(self, group: Group) -> None:
        output = self.output_representation
        group.check_acts_on(output, "output")
        check_output(output, self.input_representations)
        allowed = ("c", "n c", "n n c", "n v", "n p", "v", "p", "n v c", "v c")
        if _pattern(output) not in allowed:
            raise ValueError(
                f"output: expected 'c', 'n c', 'n n c', 'n v' or 'n p' with a number of channels c, got {str(output)!r}."
            )
        if self.residual is not None and self.input_representations.get(self.residual) != output:
            raise ValueError(
                f"residual: expected an input with the axes of the output {str(output)!r}, got {self.residual!r} with inputs "
                f"{self.inputs}."
            )

    def _check_normalisation(self) -> None:
        given = {name: getattr(self, name) for name in ("label_mean", "label_std")}
        if given == {"label_mean": None, "label_std": None}:
            return
        for name, values in given.items():
            valid = isinstance(values, list | tuple) and len(values) == self.num_labels
            if not (valid and all(isinstance(value, int | float) and math.isfinite(value) for value in values)):
                raise ValueError(f"{name}: expected {self.num_labels} finite numbers, one per label, got {values!r}.")
        if min(self.label_std) <= 0:
            raise ValueError(f"label_std: expected positive numbers, got {self.label_std}.")
        if self.problem_type not in (None, "regression"):
            raise ValueError(f"label_mean: expected problem_type='regression', got {self.problem_type!r}.")

    def _check_variance_prior(self) -> None:
        count, channels = len(self.variance_prior_value.variance), self.output_representation.num_channels
        if count not in (1, channels):
            raise ValueError(f"variance_prior: expected 1 or {channels} numbers as variance, got {count}.")

    def _check_group_inputs(self, group: Group) -> None:
        self._check_fields_fit(group)
        fields = self.input_representations.values()
        if group.has_translations and not any(axes.count("p") for axes in fields):
            raise ValueError(
                f"inputs: the group {group.name} moves points, so expected a point axis such as positions 'n p', got "
                f"{self.inputs}."
            )
        scores = {factor.score_letter for factor in group.factors}
        reads_scores = self.distribution in ("learned", "canonical")
        if scores == {"n"} and reads_scores and "node_features" not in self.inputs:
            raise ValueError(
                f"inputs: the {self.distribution} distribution of S_n reads 'node_features', got only {list(self.inputs)}. Add "
                "it (a constant channel will do), or choose distribution 'haar', 'frame' or 'none'."
            )
        check_symmetry(group, self.input_representations, self.distribution)
        if "edge_features" in self.inputs and "n" not in scores:
            raise ValueError(
                f"inputs: edge_features are read through a permutation of the nodes, so expected a group with S_n, got "
                f"{self.group!r}. Choose 'S_n x {self.group}', or leave edge_features out."
            )
        reads_ranks = "n" in scores and self.distribution in ("frame", "exact") and not vector_inputs(self.input_representations)
        without_frame = [name for name in ("charges", "pair_features") if name in self.inputs]
        if reads_ranks and without_frame:
            raise ValueError(
                f"inputs: the {self.distribution} distribution of S_n takes the frame of a graph, whose inputs are node_features "
                f"and edge_features, got {without_frame[0]}. Choose distribution 'haar'."
            )

    def _check_fields_fit(self, group: Group) -> None:
        """Check what single fields need beside them."""
        fields = self.input_representations
        for categories, field in (("node_categories", "node_features"), ("edge_categories", "edge_features")):
            if getattr(self, categories) and field not in fields:
                raise ValueError(
                    f"{categories}: expected None, as the inputs {', '.join(fields)} have no {field}, got "
                    f"{getattr(self, categories)}. Add {field} to inputs, or leave {categories} out."
                )
        if "pixel_values" in fields and len(fields) > 1:
            raise ValueError(f"inputs: expected pixel_values alone, got {', '.join(fields)}. Leave the others out.")
        if "pair_features" not in fields:
            return
        channels = fields["pair_features"].num_channels
        if channels not in (1, 2):
            raise ValueError(
                "inputs['pair_features']: expected 'n n 1' (the squared distance) or 'n n 2' (and the product of the charges), "
                f"got {self.inputs['pair_features']!r}."
            )
        if group.dimension is None:
            raise ValueError(
                f"inputs: pair_features are made of positions, so expected a group that acts on points, such as "
                f"'{self.group} x E(3)', got {self.group!r}."
            )
        if channels == 2 and "charges" in fields and fields["charges"].num_channels != 1:
            raise ValueError(
                f"inputs['charges']: expected 'n 1' beside pair_features 'n n 2', which are made of one charge per node, got "
                f"{self.inputs['charges']!r}."
            )

    def _default_inputs(self, group: Group) -> dict[str, str]:
        node_features = {"node_features": f"n {sum(self.node_categories) if self.node_categories else 1}"}
        if "p" in group.letters:
            return {"positions": "n p", **(node_features if self.node_categories else {})}
        if "h" in group.letters:
            return {"pixel_values": f"{getattr(self.backbone_config, 'num_channels', None) or 3} h w"}
        edge_channels = 1 + (sum(self.edge_categories) if self.edge_categories else 0)
        return {**node_features, "edge_features": f"n n {edge_channels}"}

    def _fill_interface_config(self, group: Group) -> None:
        """Put the defaults of the network that scores the group."""
        try:
            defaults = interface_class(group).options
        except ValueError:
            if self.distribution in ("learned", "canonical"):
                raise
            defaults = {}
        self.interface_config = complete_interface_options(self.interface_config or {}, defaults)

    def _check_categories(self) -> None:
        for name in ("node_categories", "edge_categories"):
            sizes = getattr(self, name)
            if sizes is None:
                continue
            if not sizes or min(sizes) < 1:
                raise ValueError(f"{name}: expected a list of positive category counts such as [5, 6, 2], got {sizes!r}.")

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
    def variance_prior_value(self) -> VariancePrior:
        """The checked `variance_prior`; one without weight where there is none."""
        return NO_PRIOR if self.variance_prior is None else VariancePrior.from_dict(self.variance_prior)

    @property
    def base_representations(self) -> dict[str, Representation]:
        """The fields that the base function reads: the inputs, or with `node_features_on_diagonal` one field for both."""
        fields = self.input_representations
        if self.node_features_on_diagonal:
            nodes = fields.pop("node_features").num_channels
            fields["edge_features"] = Representation(("n", "n", fields["edge_features"].num_channels + nodes))
        return fields

    @property
    def output_representation(self) -> Representation:
        """The parsed axis string of the output; `num_labels` invariant numbers unless `output` says otherwise."""
        return Representation.parse(self.output if self.output is not None else str(self.num_labels))


def check_is_symmetrized(argument: str, config: Any) -> None:
    """Refuse a plain backbone where a symmetrized model is wanted.

    Args:
        argument: What was given, for the message: an argument, or where a model lies.
        config: Its configuration, or the `model_type` of that.

    Raises:
        ValueError: Saying how to symmetrize it.
    """
    # By the string and not by the class: that of a checkpoint that came with its code is another one.
    model_type = config if isinstance(config, str) else getattr(config, "model_type", type(config).__name__)
    if model_type != LPSConfig.model_type:
        raise ValueError(
            f"{argument}: expected a symmetrized model (model_type {LPSConfig.model_type!r}), got a plain {model_type!r}. To "
            "make it equivariant, use from_backbone_pretrained, as in LPSForGraphClassification.from_backbone_pretrained, or "
            "`lps-hf symmetrize`."
        )


def make_backbone_config(values: dict[str, Any]) -> PreTrainedConfig:
    """Make the configuration of a backbone.

    Args:
        values: Its fields, `model_type` among them.

    Returns:
        The configuration.

    Raises:
        ValueError: If there is no such family, or a value is out of range.
        TypeError: If a value has the wrong type.
    """
    if "model_type" not in values:
        raise ValueError(f"backbone_config: expected a 'model_type' key such as 'vit', got {values}.")
    model_type = values["model_type"]
    if model_type in BASE_NETWORK_CONFIGS:
        return BASE_NETWORK_CONFIGS[model_type](**values)
    if model_type not in CONFIG_MAPPING:
        own = ", ".join(map(repr, BASE_NETWORK_CONFIGS))
        raise ValueError(f"backbone_config: expected a model_type of transformers, such as 'vit', or {own}; got {model_type!r}.")
    try:
        return AutoConfig.for_model(**values)
    except StrictDataclassError as error:  # which is no TypeError
        raise TypeError(f"backbone_config: {' '.join(str(error).split())}") from error


def check_num_samples(name: str, value: Any) -> None:
    """Refuse what is no number of samples.

    Raises:
        ValueError: If it is less than 1.
        TypeError: If it is no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__} {value!r}.")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}.")


def check_tolerance(value: Any) -> None:
    """Refuse what is no standard error.

    Raises:
        ValueError: If it is no positive number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"tolerance: expected a positive number, got {value!r}.")


def _pattern(representation: Representation) -> str:
    """The axis string with c for its number of channels."""
    return " ".join("c" if isinstance(axis, int) else axis for axis in representation.axes)


def _check_class_numbers(argument: str, numbers: Iterable[Any]) -> None:
    numbers = sorted(map(str, numbers))  # JSON makes text of them
    if numbers != sorted(map(str, range(len(numbers)))):
        raise ValueError(f"{argument}: expected every number from 0 to {len(numbers) - 1} once, got {', '.join(numbers)}.")


def _unknown_key(key: str) -> str:
    names = ", ".join(sorted(set(LPSConfig.__annotations__)))
    return f"LPSConfig: unknown key {key!r}. Expected one of {names}, or a transformers option."
