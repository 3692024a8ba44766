"""Any module made equivariant, without a configuration or the Hub: `symmetrize(module, group=…, inputs=…, output=…)`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, Self

import torch
from huggingface_hub import load_torch_model, parse_local_safetensors_file_metadata, save_torch_model
from huggingface_hub.errors import SafetensorsParsingError
from torch import Tensor, nn

from .batches import check_finite
from .configuration_lps import check_num_samples, check_tolerance
from .distributions import EquivariantDistribution, Noise
from .error_bars import NO_PRIOR, VariancePrior, calibration_draws, confidence_interval, fit_variance_prior
from .evaluation_mode import evaluation_mode
from .frames import laplacian_frame_ranks
from .groups import get_group
from .interfaces import check_output
from .representations import Batch, Field, Representation
from .samplers import check_whole_groups
from .symmetrization import StoppingRule, Symmetrization, entries_of, mask_nodes

SETTINGS = "lps_hf"
"""The entry of a weights file's metadata that holds the settings of a `Symmetrized`."""


class SymmetrizedOutput(NamedTuple):
    """What `Symmetrized.estimate` returns."""

    mean: Tensor
    """(batch, *axes of the output): the estimate of φ(x)."""
    standard_error: Tensor | None
    """Of the estimate; `None` for one sample and for exact averages."""
    degrees_of_freedom: Tensor | None
    """(batch,): those of `standard_error`."""
    draws_agree: Tensor | None
    """(batch,) bool: whether all draws of an input gave the same output; see `Estimate`."""
    num_samples: Tensor | None
    """(batch,): samples drawn for each input, where `num_samples="auto"`."""
    regularizer: Tensor | None
    """Entropy of the soft permutations, shape `()`, to be added to a loss with a small weight; `None` without gradient or S_n."""
    prior_loss: Tensor | None
    """-log p(identity|x), shape `()`; for learned distributions of finite groups."""
    group_elements: Any
    """The elements drawn, as tensors; see `LPSModelOutput`. `None` where `num_samples="auto"`."""

    def confidence_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper end of the interval that holds φ(x) with probability `level`; see `error_bars`."""
        return confidence_interval(self.mean, self.standard_error, self.degrees_of_freedom, level)


class Symmetrized(nn.Module):
    """φ(x) = E_{g ~ p(g|x)}[g · f(g⁻¹ · x)] for a module f of your own (section 2.1 of arXiv 2306.02866).

    It is called as the module itself: with one tensor where `inputs` is one axis string, with keyword arguments where it is a
    dictionary. Tensors have the shape `(batch, *axes)`, dense; the module sees `(batch * num_samples, *axes)`.

    Args:
        module: The base function f.
        group: Name of the group, such as `"SO(3)"`.
        inputs: Axis string of the input, or of each input by name.
        output: Axis string of the module's output.
        distribution: p(g|x); see `EquivariantDistribution`.
        num_samples: Group elements per input in training.
        num_eval_samples: Group elements per input at evaluation, or `"auto"`: as many as each needs for an error bar of at most
            `tolerance`.
        tolerance: Of `"auto"`: the largest standard error of an entry of the output.
        min_eval_samples: How many `"auto"` draws before it believes an error bar.
        max_eval_samples: Where `"auto"` stops in any case.
        samples_per_pass: Group elements per input that the module sees at once where no gradient is needed; `None` for all.
        options: `noise_scale`, `temperature`, `sinkhorn_iterations`, `interface_config`, `sampler`, `sampler_group_size` of
            `EquivariantDistribution`.

    Raises:
        ValueError: If the group does not act on an axis, or there is no such distribution.
        TypeError: If an argument has the wrong type.
    """

    def __init__(
        self,
        module: nn.Module,
        group: str,
        inputs: str | Mapping[str, str],
        output: str,
        distribution: str = "learned",
        num_samples: int = 1,
        num_eval_samples: int | Literal["auto"] = 10,
        tolerance: float = 0.01,
        min_eval_samples: int = 20,
        max_eval_samples: int = 100,
        samples_per_pass: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}.")
        counts = {"num_samples": num_samples, "min_eval_samples": min_eval_samples, "max_eval_samples": max_eval_samples}
        if num_eval_samples != "auto":
            counts["num_eval_samples"] = num_eval_samples
        if samples_per_pass is not None:
            counts["samples_per_pass"] = samples_per_pass
        for name, count in counts.items():
            check_num_samples(name, count)
        check_tolerance(tolerance)
        self.module, self.group = module, get_group(group)
        self.input_name = None if isinstance(inputs, Mapping) else "input"
        given = inputs if isinstance(inputs, Mapping) else {"input": inputs}
        if not given:
            raise ValueError("inputs: expected at least one axis string, got none.")
        self.inputs = {name: Representation.parse(axes) for name, axes in given.items()}
        self.output = Representation.parse(output)
        for name, axes in (*self.inputs.items(), ("output", self.output)):
            self.group.check_acts_on(axes, name if name == "output" else f"inputs[{name!r}]")
        check_output(self.output, self.inputs)
        self.num_samples, self.num_eval_samples, self.tolerance = num_samples, num_eval_samples, tolerance
        self.min_eval_samples, self.max_eval_samples = min_eval_samples, max_eval_samples
        self.samples_per_pass = samples_per_pass
        self.prior = NO_PRIOR
        self._settings = {
            "group": group,
            "inputs": dict(inputs) if isinstance(inputs, Mapping) else str(inputs),
            "output": str(output),
            "distribution": distribution,
            **counts,
            "num_eval_samples": num_eval_samples,
            "tolerance": tolerance,
            **options,
        }
        if "temperature" not in options:
            options["temperature"] = self.group.temperature_by(options.get("temperature_rule", "published"))
        self.distribution = EquivariantDistribution(self.group, distribution, self.inputs, **options)
        for name in counts.keys() & {"num_samples", "num_eval_samples"}:
            check_whole_groups(name, counts[name], self.distribution.sampler_group_size)

    @property
    def symmetrization(self) -> Symmetrization:
        """How outputs of the module are averaged, and what is known of their spread."""
        return Symmetrization(self.distribution, self.output, self.prior)

    def forward(self, *args: Tensor, num_samples: int | Literal["auto"] | None = None, **kwargs: Any) -> Tensor:
        """Estimate φ(x); arguments as `estimate`.

        Returns:
            `torch.Tensor` of shape `(batch, *axes of the output)`.
        """
        return self.estimate(*args, num_samples=num_samples, **kwargs).mean

    def estimate(
        self,
        *args: Tensor,
        num_samples: int | Literal["auto"] | None = None,
        tolerance: float | None = None,
        noise: Noise | None = None,
        group_elements: Any = None,
        generator: torch.Generator | None = None,
        node_mask: Tensor | None = None,
        **kwargs: Tensor,
    ) -> SymmetrizedOutput:
        """Estimate φ(x), with its error bar.

        Args:
            args: The input, where `inputs` is one axis string.
            num_samples: Default: `num_samples` in training, `num_eval_samples` at evaluation. `"auto"`, at evaluation: draw for
                each input until its error bar is at most `tolerance`.
            tolerance: Of `"auto"`. Default: that of the class.
            noise: ε of `distribution.draw_noise`, for a deterministic result.
            group_elements: Elements to use instead of drawing, as tensors.
            generator: Random source on the input's device.
            node_mask (`torch.Tensor` of shape `(batch, nodes)` bool): True on nodes, padding last; `None` where all are nodes.
            kwargs: The inputs by name, where `inputs` is a dictionary.

        Returns:
            `SymmetrizedOutput`.

        Raises:
            ValueError: If an input is missing, has the wrong shape or no nodes, or holds NaN (on the CPU).
            TypeError: If it is no floating point tensor.
        """
        batch = self.encode(*args, node_mask=node_mask, **kwargs)
        if num_samples is None and noise is None and group_elements is None:
            num_samples = self.num_samples if self.training else self.num_eval_samples
        if tolerance is not None:
            check_tolerance(tolerance)
        if num_samples == "auto" and self.distribution.kind in ("exact", "none"):
            num_samples = self.min_eval_samples  # which have a number of their own, and no error bar to wait for
        if num_samples == "auto":
            if self.training or noise is not None or group_elements is not None:
                raise ValueError(
                    "num_samples: expected a number in training, and with noise or group_elements, got 'auto'. Call eval() and "
                    "leave them out, or give a number."
                )
            tolerance = self.tolerance if tolerance is None else tolerance
            at_once = self.samples_per_pass or self.min_eval_samples
            rule = StoppingRule(tolerance, self.min_eval_samples, self.max_eval_samples, at_once)
            result = self.symmetrization.estimate_to_tolerance(self._call_module, batch, rule, generator)
            return SymmetrizedOutput(*result[:4], result.num_samples, None, None, None)
        if num_samples is not None:
            check_num_samples("num_samples", num_samples)
        chunk_size = None if torch.is_grad_enabled() or torch.compiler.is_compiling() else self.samples_per_pass
        draws = self.distribution.draws(batch, num_samples, noise, group_elements, generator, chunk_size)
        result, sample = self.symmetrization.estimate(self._call_module, draws, batch)
        return SymmetrizedOutput(*result[:4], None, sample.entropy, sample.prior_loss, sample.elements.tensors)

    @torch.no_grad()
    def calibrate(
        self, *args: Tensor, num_samples: int = 128, generator: torch.Generator | None = None, **kwargs: Any
    ) -> VariancePrior:
        """Measure on some inputs how draws spread, so that error bars of few draws are honest; see `error_bars`.

        Args:
            args: A few dozen inputs, as of `estimate`.
            num_samples: Draws of each, rounded to whole blocks of the sampler, of which at least 32 are drawn.
            generator: Random source on the input's device. Default: one with a fixed seed.
            kwargs: Inputs by name, and `node_mask`, as of `estimate`.

        Returns:
            `VariancePrior`: It is used from now on, and saved with the weights.

        Raises:
            ValueError: If the distribution draws nothing.
        """
        if self.distribution.kind in ("exact", "none"):
            raise ValueError(f"distribution {self.distribution.kind!r}: expected one that draws, and has an error bar.")
        check_num_samples("num_samples", num_samples)
        block_size = self.distribution.sampler_group_size
        num_samples = calibration_draws(num_samples, block_size)
        batch = self.encode(*args, **kwargs)
        if generator is None:
            generator = torch.Generator(batch.node_mask.device).manual_seed(0)
        draws = self.distribution.draws(batch, num_samples, generator=generator, chunk_size=self.samples_per_pass)
        with evaluation_mode(self):
            parts = [self.symmetrization.samples(self._call_module, draw.elements, batch) for draw in draws]
        self.prior = fit_variance_prior(entries_of(torch.cat(parts, dim=1), self.output, batch.node_mask), block_size)
        return self.prior

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and settings to one safetensors file, which holds the old content or the new at every instant.

        Args:
            path: The file, such as `"runs/model.safetensors"`. A path without this suffix is a folder, which gets a file
                `model.safetensors`. Folders are made where they are missing.
        """
        path = _weights_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = {**self._settings, "prior": self.prior.to_dict()}
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            save_torch_model(self, folder, max_shard_size="1TB", metadata={SETTINGS: json.dumps(settings)})
            (file,) = Path(folder).iterdir()
            os.replace(file, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], module: nn.Module) -> Self:
        """Read what `save` wrote.

        Args:
            path: The file, or the folder with its `model.safetensors`.
            module: A module of the same architecture; it gets the weights of the file.

        Returns:
            The symmetrized module, in evaluation mode.

        Raises:
            ValueError: If the file is of something else, or the weights do not fit the module.
            FileNotFoundError: If there is no such file.
        """
        path = _weights_file(path)
        try:
            metadata = parse_local_safetensors_file_metadata(path).metadata
        except SafetensorsParsingError as error:
            raise ValueError(f"{path}: expected a file that Symmetrized.save wrote, got no safetensors file. {error}") from error
        text = metadata.get(SETTINGS)
        if text is None:
            raise ValueError(f"{path}: expected a file that Symmetrized.save wrote, got one without its settings.")
        settings = json.loads(text)
        prior = VariancePrior.from_dict(settings.pop("prior"))
        model = cls(module, **settings)
        model.prior = prior
        try:
            missing, unexpected = load_torch_model(model, path, strict=False)
        except RuntimeError as error:
            raise ValueError(f"{path}: expected the weights of this module, got others. {error}") from error
        # Tied weights are in the file once; the metadata has the name of the one for the other.
        state = model.state_dict()
        missing = [name for name in missing if not _is_tied(state, name, metadata.get(name))]
        if missing or unexpected:
            names = ", ".join([*missing, *unexpected][:5])
            raise ValueError(
                f"{path}: expected the weights of this module, got others: {len(missing)} are missing and {len(unexpected)} are "
                f"left over, such as {names}. Give a module of the architecture that was saved."
            )
        return model.eval()

    def _call_module(self, fields: dict[str, Field], _: Batch) -> Tensor:
        tensors = {name: field for name, field in fields.items() if isinstance(field, Tensor)}
        shape = next(iter(tensors.values())).shape[:2]
        flat = {name: tensor.flatten(0, 1) for name, tensor in tensors.items()}
        result = self.module(flat[self.input_name]) if self.input_name else self.module(**flat)
        expected = len(self.output.axes)
        if not isinstance(result, Tensor) or result.dim() != 1 + expected or result.shape[0] != shape[0] * shape[1]:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(
                f"module: expected it to return a tensor with the axes (batch, {', '.join(map(str, self.output.axes))}) and "
                f"{shape[0] * shape[1]} rows, got {got}. Correct output={str(self.output)!r}, or wrap the module."
            )
        return result.unflatten(0, shape)

    def encode(self, *args: Tensor, node_mask: Tensor | None = None, **kwargs: Tensor) -> Batch:
        """Check the inputs and put them in a batch; edges are the non-zero entries of fields with two node axes.

        Args:
            args: See `estimate`.
            node_mask: See `estimate`.
            kwargs: See `estimate`.

        Returns:
            `Batch`.
        """
        if self.input_name is not None and len(args) == 1:
            kwargs = {**kwargs, self.input_name: args[0]}
        elif args:
            names = ", ".join(self.inputs)
            wanted = "one tensor" if self.input_name else f"the keyword arguments {names}"
            raise ValueError(f"inputs: expected {wanted}, got {len(args)} positional arguments.")
        return self.encode_named(kwargs, node_mask)

    def encode_named(self, kwargs: Mapping[str, Tensor], node_mask: Tensor | None = None) -> Batch:
        """As `encode`, of inputs by name; a single one is called "input"."""
        if set(kwargs) != set(self.inputs):
            raise ValueError(f"inputs: expected {', '.join(self.inputs)}, got {', '.join(kwargs) or 'nothing'}.")
        sizes: dict[str, int] = {}
        for name, axes in self.inputs.items():
            self._check_tensor(name, kwargs[name], axes, sizes)
        first = next(iter(kwargs.values()))
        shape = (first.shape[0], sizes.get("n", 0))
        if node_mask is None:
            node_mask = torch.ones(shape, dtype=torch.bool, device=first.device)
        elif tuple(node_mask.shape) != shape or node_mask.dtype != torch.bool:
            raise ValueError(
                f"node_mask: expected a bool tensor of shape {shape}, got {node_mask.dtype} {tuple(node_mask.shape)}."
            )
        pairs = [kwargs[name] for name, axes in self.inputs.items() if axes.count("n") == 2]
        edge_index, edge_mask = _edges_of(pairs, node_mask)
        ranks = _frame_ranks(edge_index, edge_mask, node_mask) if self.distribution.reads_frame_ranks else None
        fields: dict[str, Field] = {name: mask_nodes(kwargs[name], axes, node_mask) for name, axes in self.inputs.items()}
        return Batch(fields, node_mask, edge_index, edge_mask, ranks)

    def _check_tensor(self, name: str, tensor: Any, axes: Representation, sizes: dict[str, int]) -> None:
        if not isinstance(tensor, Tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name}: expected a tensor of floating point numbers, got {got}.")
        fixed = {"v": self.group.dimension, "p": self.group.dimension, "g": getattr(self.group, "order", None)}
        wanted = [axis if isinstance(axis, int) else fixed.get(axis) or sizes.get(axis) for axis in axes.axes]
        wanted = [sizes.get("batch"), *wanted]
        if tensor.dim() != len(wanted) or any(size not in (None, got) for size, got in zip(wanted, tensor.shape, strict=True)):
            expected = ", ".join(["batch", *(str(want or axis) for want, axis in zip(wanted[1:], axes.axes, strict=True))])
            raise ValueError(f"{name}: expected shape ({expected}), got {tuple(tensor.shape)}.")
        for axis, size in zip(("batch", *axes.axes), tensor.shape, strict=True):
            if axis == "n" and not size:
                raise ValueError(f"{name}: expected at least one node, got shape {tuple(tensor.shape)}.")
            if axis in ("batch", "n"):
                sizes[str(axis)] = size
        check_finite(name, tensor)


def _weights_file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    is_file = path.is_file() or (path.suffix == ".safetensors" and not path.is_dir())
    return path if is_file else path / "model.safetensors"


def _is_tied(state: Mapping[str, Tensor], name: str, other: str | None) -> bool:
    """Whether two names are of one tensor."""
    return other is not None and other in state and state[name].data_ptr() == state[other].data_ptr()


def symmetrize(
    module: nn.Module,
    group: str,
    inputs: str | Mapping[str, str],
    output: str,
    distribution: str = "learned",
    **options: Any,
) -> Symmetrized:
    """Make a module equivariant in one line; see `Symmetrized`, whose arguments these are.

    Args:
        module: Any module that maps tensors to a tensor.
        group: Name of the group, such as `"SO(3)"`, `"C_4"` or `"S_n x E(3)"`.
        inputs: Axis string of the input, or of each input by name.
        output: Axis string of the module's output.
        distribution: p(g|x).
        options: Further arguments of `Symmetrized`.

    Returns:
        `Symmetrized`: A module that is called as `module` is.
    """
    return Symmetrized(module, group, inputs, output, distribution, **options)


def _edges_of(pairs: list[Tensor], node_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Edge list (batch, 2, edges) and its mask: the node pairs at which any of the fields is not zero."""
    batch, nodes = node_mask.shape
    if not pairs:
        return torch.zeros(batch, 2, 0, dtype=torch.int64, device=node_mask.device), node_mask.new_zeros(batch, 0)
    present = torch.stack([(pair.reshape(batch, nodes, nodes, -1) != 0).any(dim=-1) for pair in pairs]).any(dim=0)
    valid = present & node_mask.unsqueeze(1) & node_mask.unsqueeze(2)
    places = torch.arange(nodes, device=node_mask.device)
    ends = torch.cartesian_prod(places, places).T.expand(batch, 2, -1)
    return ends, valid.flatten(1)


def _frame_ranks(edge_index: Tensor, edge_mask: Tensor, node_mask: Tensor) -> Tensor:
    """Ranks of the nodes in the Laplacian frame of each graph, (batch, nodes); computed on the CPU."""
    ranks = torch.zeros(node_mask.shape, dtype=torch.int64)
    for graph, nodes in enumerate(node_mask.sum(dim=1).tolist()):
        edges = edge_index[graph][:, edge_mask[graph]].cpu().numpy()
        ranks[graph, :nodes] = torch.from_numpy(laplacian_frame_ranks(edges, nodes))
    return ranks.to(node_mask.device)
