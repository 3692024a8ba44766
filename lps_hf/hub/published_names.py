"""What the tensors of the published implementation (jw9730/lps) are called here, and how they are stored differently.

Every table is of one module of that code, with that module's names, for so many layers as it has. `Rule.names` are names below
the corresponding module of ours; `prefixed` puts a table in its place in the whole model.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PAIR_TRANSFORMER_COLUMNS = [0, 2, 4, 1, 3, 5, 6, 7]
"""Columns of the published `input.0.weight` in our order, which is positions, velocities, pair features.

The published one has x, v_x, y, v_y, z, v_z and then the pair features."""


@dataclass(frozen=True)
class Rule:
    """Where a published tensor goes.

    Args:
        names: Our tensors; several are the published one cut into equal parts along its first axis. None: it is dropped.
        how: What is done with it, or why it is dropped, in words.
        change: What is done before it is cut.
        adds: It is added to what another published tensor has put there.
        unbinds: The parts are single entries of the first axis, without it.
    """

    names: tuple[str, ...]
    how: str = "copied"
    change: Callable[[Tensor], Tensor] | None = None
    adds: bool = False
    unbinds: bool = False

    def parts(self, tensor: Tensor) -> list[tuple[str, Tensor]]:
        """Our names, and what the published tensor gives each of them.

        Raises:
            ValueError: If the tensor has too few axes, or cannot be cut so.
        """
        count = len(self.names)
        if not count:
            return []
        try:
            changed = tensor if self.change is None else self.change(tensor)
            pieces = changed.unbind() if self.unbinds else changed.chunk(count) if count > 1 else (changed,)
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"its shape {tuple(tensor.shape)} does not fit what is done with it: {self.how}.") from error
        if len(pieces) != count or len({piece.shape for piece in pieces}) > 1:
            raise ValueError(f"expected a first axis of {count} equal parts, got the shape {tuple(tensor.shape)}.")
        return list(zip(self.names, pieces, strict=True))


Rules = dict[str, Rule]


def dropped(reason: str) -> Rule:
    """The rule of a tensor that nothing of ours corresponds to."""
    return Rule((), reason)


def prefixed(rules: Mapping[str, Rule], published: str, ours: str) -> Rules:
    """The rules of a module that has the prefix `published` there and `ours` here."""
    return {
        f"{published}{key}": replace(rule, names=tuple(f"{ours}{name}" for name in rule.names)) for key, rule in rules.items()
    }


def _modules(names: Mapping[str, str | tuple[str, ...]], leaves: Iterable[str] = ("weight", "bias")) -> Rules:
    """Rules for modules of weight and bias; where one has several names, it is cut."""
    rules = {}
    for published, ours in names.items():
        parts = (ours,) if isinstance(ours, str) else ours
        for leaf in leaves:
            how = "copied" if len(parts) == 1 else f"cut in {len(parts)}"
            rules[f"{published}.{leaf}"] = Rule(tuple(f"{name}.{leaf}" for name in parts), how)
    return rules


NORM_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
UNUSED_INPUT_LAYER = "never read: the published network starts with its first message passing layer"


def gin_rules(num_layers: int) -> Rules:
    """`EquivariantInterface` of graphs, ours `GINInterface`; with `gin_interface.input`, which only EXP has and never calls."""
    rules = _modules({"gin_interface.head": "head"})
    rules["virtual_node"] = Rule(("virtual_node",))
    rules["gin_interface.eps"] = Rule(tuple(f"layers.{i}.eps" for i in range(num_layers)), f"cut in {num_layers}", unbinds=True)
    for leaf in ("weight", "bias"):
        rules[f"gin_interface.input.{leaf}"] = dropped(UNUSED_INPUT_LAYER)
    for i in range(num_layers):
        linear = {f"mlps.{i}.linear_layers.0": "linear_in", f"mlps.{i}.linear_layers.1": "linear_out"}
        norms = {f"mlps.{i}.norms.0": "norm_in", f"norms.{i}": "norm_out"}
        rules |= prefixed(_modules(linear) | _modules(norms, NORM_LEAVES), "gin_interface.", f"layers.{i}.")
    return rules


SCORE_MODULES = ("conv2.", "conv3.", "pool2.", "std_feature.", "head1.")
"""What of the vector-neuron network makes scores of nodes; the published one computes them for groups without S_n, too."""


def vector_neuron_rules() -> Rules:
    """`VNN`, ours `VectorNeuronInterface`."""
    layers = {
        "conv1": "convolutions.0.layer",
        "conv2": "convolutions.1.layer",
        "conv3": "score_head.joint",
        "std_feature.vn1": "score_head.invariant_in",
        "std_feature.vn2": "score_head.invariant_hidden",
    }
    linear = {
        "pool1.map_to_dir": "convolutions.0.pool.direction",
        "pool2.map_to_dir": "convolutions.1.pool.direction",
        "std_feature.vn_lin": "score_head.invariant_out",
        "pool3.map_to_dir": "frame_head.pool.direction",
        "head2.map_to_feat": "frame_head.linear",
    }
    linear |= {f"{layer}.map_to_{part}": f"{ours}.{name}" for layer, ours in layers.items() for part, name in _VECTOR_PARTS}
    norms = {f"{layer}.batchnorm.bn": f"{ours}.norm" for layer, ours in layers.items()}
    return _modules(linear, ("weight",)) | _modules(norms, NORM_LEAVES) | _modules({"head1": "score_head.linear"})


_VECTOR_PARTS = (("feat", "feature"), ("dir", "direction"))


def vit_rules(num_layers: int) -> Rules:
    """A timm `VisionTransformer`, ours a `ViTModel` that is fed with tokens."""
    rules = _modules({"norm": "layernorm"})
    rules["cls_token"] = Rule(("embeddings.cls_token",))
    rules["pos_embed"] = Rule(("embeddings.position_embeddings",))
    for leaf in ("weight", "bias"):
        rules[f"patch_embed.proj.{leaf}"] = dropped("never read: tokens come from the projections of graphs, not from pixels")
        rules[f"head.{leaf}"] = dropped("never read: the classifier of images")
    for i in range(num_layers):
        block: dict[str, str | tuple[str, ...]] = {
            "norm1": "layernorm_before",
            "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
            "attn.proj": "attention.o_proj",
            "norm2": "layernorm_after",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }
        rules |= prefixed(_modules(block), f"blocks.{i}.", f"layers.{i}.")
    return rules


def projection_rules(nodes_on_diagonal: bool) -> Rules:
    """`ConvInputProj` (`input_proj.`) and `ConvOutputProj` (`output_proj.`), ours `projections` and `readout` of `TokenBase`.

    Args:
        nodes_on_diagonal: Node features are a part of the edge tensor. The published code then still projects nodes, all
            zero, so that only the bias of that counts.
    """
    rules = _modules({"output_proj.proj.0.proj": "readout.conv", "output_proj.proj.0": "readout.linear"})
    pairs = Rule(("projections.edge_features.weight",), "axes reordered", lambda tensor: tensor.permute(1, 2, 3, 0))
    rules["input_proj.proj.1.proj.weight"] = pairs
    rules["input_proj.proj.1.proj.bias"] = Rule(("projections.edge_features.bias",))
    weight, bias = "input_proj.proj.0.proj.weight", "input_proj.proj.0.proj.bias"
    if nodes_on_diagonal:
        rules[weight] = dropped("never matters: it is multiplied with node features that are set to zero")
        rules[bias] = Rule(("projections.edge_features.bias",), "added to the bias of edges", adds=True)
    else:
        nodes = Rule(("projections.node_features.weight",), "axes reordered", lambda tensor: tensor.permute(2, 1, 0))
        rules |= {weight: nodes, bias: Rule(("projections.node_features.bias",))}
    return rules


def mlp_rules() -> Rules:
    """`MLPNetEXPclassify`, ours `MLPBase`."""
    return _modules({name: f"layers.{i}" for i, name in enumerate(("conv1", "conv2", "conv3", "fc1", "fc2"))})


def pair_transformer_rules(num_layers: int) -> Rules:
    """`Transformer` of the n-body code, ours `PairTransformerBase`."""
    names = {"input.0": "projection", "encoder.norm": "norm", "output.2": "readout_in", "output.5": "readout_out"}
    rules = _modules(names)
    columns = torch.tensor(PAIR_TRANSFORMER_COLUMNS)
    rules["input.0.weight"] = Rule(("projection.weight",), "columns reordered", lambda tensor: tensor.index_select(1, columns))
    rules["pos_encoder.pe"] = Rule(("positions.weight",), "axis removed", lambda tensor: tensor.squeeze(1))
    block = {
        "self_attn.out_proj": "attention_out",
        "linear1": "mlp_in",
        "linear2": "mlp_out",
        "norm1": "attention_norm",
        "norm2": "mlp_norm",
    }
    for i in range(num_layers):
        rules |= prefixed(_modules(block), f"encoder.layers.{i}.", f"blocks.{i}.")
        for leaf in ("weight", "bias"):
            names_of_three = tuple(f"blocks.{i}.{name}.{leaf}" for name in ("query", "key", "value"))
            rules[f"encoder.layers.{i}.self_attn.in_proj_{leaf}"] = Rule(names_of_three, "cut in 3")
    return rules


def particle_gnn_rules(num_layers: int) -> Rules:
    """`GNN` of the n-body code, ours `ParticleGNNBase`."""
    rules = _modules({"embedding": "embedding", "decoder.0": "readout_in", "decoder.2": "readout_out"})
    layer = {
        "edge_mlp.0": "message_in",
        "edge_mlp.2": "message_out",
        "node_mlp.0": "update_in",
        "node_mlp.2": "update_out",
    }
    for i in range(num_layers):
        rules |= prefixed(_modules(layer), f"layer_{i}.", f"layers.{i}.")
    return rules


def apply_rules(rules: Mapping[str, Rule], published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under our names.

    Args:
        rules: Of every key in `published`.
        published: Tensors by their published name.

    Returns:
        `dict[str, torch.Tensor]`: Tensors of ours; those that are not changed share memory with the published ones.

    Raises:
        ValueError: If a tensor has a shape that its rule cannot handle: names it.
    """
    weights: dict[str, Tensor] = {}
    for key in sorted(published, key=lambda key: rules[key].adds):
        try:
            parts = rules[key].parts(published[key])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        for name, part in parts:
            added = weights[name] if rules[key].adds and name in weights else None
            if added is not None and added.shape != part.shape:
                raise ValueError(f"{key}: expected shape {tuple(added.shape)} to be added to {name}, got {tuple(part.shape)}.")
            weights[name] = part if added is None else added + part
    return weights
