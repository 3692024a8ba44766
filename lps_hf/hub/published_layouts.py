"""What the tensors of a published checkpoint tell: which experiment they are of, and the sizes of its networks."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from transformers import PreTrainedConfig, ViTConfig

from lps_hf.models.configuration_base_networks import MLPBaseConfig, PairTransformerBaseConfig, ParticleGNNBaseConfig

from .published_cases import PUBLISHED_CASES
from .published_names import (
    Rules,
    gin_rules,
    mlp_rules,
    pair_transformer_rules,
    particle_gnn_rules,
    prefixed,
    projection_rules,
    vector_neuron_rules,
    vit_rules,
)

HEAD_SIZE = 64  # of all ViTs of timm that the published code takes
INTERFACE, BASE = "lps.distribution.interface.", "lps.base."


def some_of(names: list[str]) -> str:
    """The first five, for messages."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def find_case(tensors: Mapping[str, Tensor]) -> str:
    """Find the experiment that a state dict belongs to.

    Args:
        tensors: Tensors by published name.

    Returns:
        `str`: A key of `PUBLISHED_CASES`.

    Raises:
        ValueError: If it is of none of them.
    """
    if "backbone.encoder.norm.weight" in tensors:
        return "nbody-transformer"
    if "backbone.embedding.weight" in tensors:
        return "nbody-gnn"
    if "backbone.conv1.weight" in tensors and "backbone.fc2.weight" in tensors:
        return "exp-classify"
    if "backbone.conv1.nn.0.weight" in tensors:
        raise ValueError(
            "file: this is a GIN-ID of the graph separation code, with one linear map per layer and a sum over nodes; GINIDBase "
            "here has other layers, so its weights have no place. Only the MLP can be converted."
        )
    if "backbone.conv1.weight" in tensors:
        raise ValueError(
            "file: this is an MLP of GRAPH8c, EXP or the automorphism study, which the published code draws at random and never "
            "trains. Only that of EXP-classify can be converted."
        )
    node_channels, edge_channels, pair_outputs, outputs = (
        (tensors[key].shape[axis] if key in tensors and tensors[key].dim() > axis else None)
        for key, axis in (
            ("input_proj.proj.0.proj.weight", 1),
            ("input_proj.proj.1.proj.weight", 1),
            ("output_proj.proj.0.proj.weight", 1),
            ("output_proj.proj.0.weight", 0),
        )
    )
    sizes = node_channels, edge_channels, pair_outputs, outputs
    known: dict[tuple[int | None, ...], str] = {
        (3, 4, 2, None): "pattern",
        (50, 8, None, 10): "peptides-func",
        (50, 8, None, 11): "peptides-struct",
        (68, 7, 1, None): "pcqm-contact",
    }
    if sizes not in known:
        raise ValueError(
            "file: expected the tensors of a published experiment, got "
            + (
                f"{some_of(sorted(tensors))}. "
                if node_channels is None
                else f"{node_channels} node channels, {edge_channels} edge channels and {pair_outputs or outputs} outputs. "
            )
            + f"Say which one it is like by case=, one of {', '.join(PUBLISHED_CASES)}, and what differs by fields of LPSConfig."
        )
    return known[sizes]


class Layout(NamedTuple):
    """What the tensors tell of a base function and of the interface network beside it."""

    backbone: PreTrainedConfig
    fields: dict[str, Any]
    rules: Rules
    interface_prefix: str


class Shapes(NamedTuple):
    """Shapes by published name."""

    tensors: Mapping[str, Tensor]

    def size(self, key: str, axis: int) -> int:
        """Length of an axis."""
        if key not in self.tensors:
            raise ValueError(f"{key}: expected this tensor, the file lacks it. Is it a checkpoint of another experiment (case=)?")
        if self.tensors[key].dim() <= axis:
            raise ValueError(f"{key}: expected at least {axis + 1} axes, got the shape {tuple(self.tensors[key].shape)}.")
        return self.tensors[key].shape[axis]

    def count(self, prefix: str) -> int:
        """Number of layers, which have numbers behind the prefix."""
        numbers = [key.removeprefix(prefix).split(".")[0] for key in self.tensors if key.startswith(prefix)]
        count = 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)
        if count > len(self.tensors):  # of which every layer has one at least
            raise ValueError(f"{prefix}{count - 1}: expected no more layers than the {len(self.tensors)} tensors of the file.")
        return count

    def has(self, prefix: str) -> bool:
        """Whether there is any tensor with this prefix."""
        return any(key.startswith(prefix) for key in self.tensors)


def _vit(tensors: Shapes, values: Mapping[str, Any], config: Mapping[str, Any]) -> Layout:
    prefix = "backbone.backbone."
    hidden, positions = tensors.size(f"{prefix}cls_token", 2), tensors.size(f"{prefix}pos_embed", 1)
    grid, num_layers = math.isqrt(positions - 1), tensors.count(f"{prefix}blocks.")
    if grid**2 != positions - 1:
        raise ValueError(f"{prefix}pos_embed: expected a class token and a square grid of positions, got {positions} positions.")
    heads = values.get("num_attention_heads")
    if heads is None and hidden % HEAD_SIZE:
        raise ValueError(
            f"num_attention_heads: no tensor tells it, and a width of {hidden} is no multiple of {HEAD_SIZE}, the size of the "
            "heads of published ViTs. Give num_attention_heads=."
        )
    patch = tensors.size(f"{prefix}patch_embed.proj.weight", 3) if tensors.has(f"{prefix}patch_embed.") else 16
    backbone = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden // HEAD_SIZE if heads is None else heads,
        intermediate_size=tensors.size(f"{prefix}blocks.0.mlp.fc1.weight", 0),
        image_size=grid * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,  # timm's; transformers' default is another
        qkv_bias=any(key.endswith(".attn.qkv.bias") for key in tensors.tensors),
    )
    rules = prefixed(vit_rules(num_layers), prefix, f"{BASE}backbone.model.")
    rules |= prefixed(projection_rules(bool(config.get("node_features_on_diagonal"))), "", BASE)
    interface_prefix = "distribution.prob_interface_net."
    fields, interface_rules = _gin(tensors, values, interface_prefix)
    return Layout(backbone, fields, rules | interface_rules, interface_prefix)


def _gin(tensors: Shapes, values: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], Rules]:
    if not tensors.has(prefix):
        return {}, {}
    num_layers = tensors.size(f"{prefix}gin_interface.eps", 0)
    options = {
        "num_layers": num_layers,
        "hidden_size": tensors.size(f"{prefix}gin_interface.head.weight", 1),
        "dropout": values.get("interface_dropout", 0.0),
    }
    return {"interface_config": options}, prefixed(gin_rules(num_layers), prefix, INTERFACE)


def _mlp(tensors: Shapes, values: Mapping[str, Any], config: Mapping[str, Any]) -> Layout:
    names = [*(f"backbone.conv{i}" for i in (1, 2, 3)), "backbone.fc1"]
    hidden = [tensors.size(f"{name}.weight", 0) for name in names]
    channels, width = tensors.size("interface.virtual_node", 0), tensors.size("backbone.conv1.weight", 1)
    # The width is that of n nodes with c channels and of an n × n matrix.
    num_nodes = (math.isqrt(channels**2 + 4 * width) - channels) // 2
    if num_nodes * (num_nodes + channels) != width:
        raise ValueError(
            f"backbone.conv1.weight: expected n·{channels} + n² columns, for n nodes with {channels} features, got {width}."
        )
    fields, interface_rules = _gin(tensors, values, "interface.")
    inputs = {"node_features": f"n {channels}", "edge_features": "n n 1"}
    rules = prefixed(mlp_rules(), "backbone.", f"{BASE}backbone.") | interface_rules
    return Layout(MLPBaseConfig(hidden_sizes=hidden), {**fields, "inputs": inputs, "max_nodes": num_nodes}, rules, "interface.")


def _transformer(tensors: Shapes, values: Mapping[str, Any], config: Mapping[str, Any]) -> Layout:
    num_layers = tensors.count("backbone.encoder.layers.")
    backbone = PairTransformerBaseConfig(
        hidden_size=tensors.size("backbone.input.0.weight", 0),
        num_hidden_layers=num_layers,
        num_attention_heads=values.get("num_attention_heads") or values["transformer_n_head"],
        intermediate_size=tensors.size("backbone.encoder.layers.0.linear1.weight", 0),
        dropout=values["transformer_dropout"],
    )
    return _particles(tensors, values, backbone, pair_transformer_rules(num_layers))


def _gnn(tensors: Shapes, values: Mapping[str, Any], config: Mapping[str, Any]) -> Layout:
    num_layers = tensors.count("backbone.layer_")
    backbone = ParticleGNNBaseConfig(hidden_size=tensors.size("backbone.embedding.weight", 0), num_hidden_layers=num_layers)
    return _particles(tensors, values, backbone, particle_gnn_rules(num_layers))


def _particles(tensors: Shapes, values: Mapping[str, Any], backbone: PreTrainedConfig, rules: Rules) -> Layout:
    prefix = "interface.vnn_interface."
    rules = prefixed(rules, "backbone.", f"{BASE}backbone.")
    if not tensors.has(prefix):
        return Layout(backbone, {}, rules, prefix)
    vectors, hidden = tensors.size(f"{prefix}conv1.map_to_feat.weight", 0), values["vnn_hidden_dim"]
    options = {
        # A width is rounded down to whole vectors; of those that give the same number the one told is taken.
        "hidden_size": hidden if hidden // 3 == vectors else 3 * vectors,
        "num_neighbors": values["vnn_k_nearest_neighbors"],
        "dropout": values["vnn_dropout"],
    }
    rules |= prefixed(vector_neuron_rules(), prefix, INTERFACE)
    return Layout(backbone, {"interface_config": options}, rules, prefix)


LAYOUTS: dict[str, Callable[[Shapes, Mapping[str, Any], Mapping[str, Any]], Layout]] = {
    "vit": _vit,
    "transformer": _transformer,
    "gnn": _gnn,
    "mlp": _mlp,
}
"""By `PublishedCase.network`: functions of the shapes, the published options, and the fields of `LPSConfig` known so far."""
