"""What the tensors of the published base networks are called in `base_networks`, without the prefix `backbone.`."""

from collections.abc import Mapping

from torch import Tensor


def _tensors(modules: dict[str, tuple[str, ...]], prefix: str = "", our_prefix: str = "") -> dict[str, tuple[str, ...]]:
    leaves = ("weight", "bias")
    return {
        f"{prefix}{key}.{leaf}": tuple(f"{our_prefix}{name}.{leaf}" for name in ours)
        for key, ours in modules.items()
        for leaf in leaves
    }


def _block(index: int) -> dict[str, tuple[str, ...]]:
    prefix, our_prefix = f"encoder.layers.{index}.", f"blocks.{index}."
    modules = {
        "self_attn.out_proj": ("attention_out",),
        "linear1": ("mlp_in",),
        "linear2": ("mlp_out",),
        "norm1": ("attention_norm",),
        "norm2": ("mlp_norm",),
    }
    joint = {
        f"{prefix}self_attn.in_proj_{leaf}": tuple(f"{our_prefix}{name}.{leaf}" for name in ("query", "key", "value"))
        for leaf in ("weight", "bias")
    }
    return joint | _tensors(modules, prefix, our_prefix)


def _layer(index: int) -> dict[str, tuple[str, ...]]:
    modules = {
        "edge_mlp.0": ("message_in",),
        "edge_mlp.2": ("message_out",),
        "node_mlp.0": ("update_in",),
        "node_mlp.2": ("update_out",),
    }
    return _tensors(modules, f"layer_{index}.", f"layers.{index}.")


MLP_TENSORS = _tensors({name: (f"layers.{i}",) for i, name in enumerate(("conv1", "conv2", "conv3", "fc1", "fc2"))})
"""Published tensors and ours; where there are several, they are the published one cut into equal parts."""

PAIR_TRANSFORMER_TENSORS = {
    "pos_encoder.pe": ("positions.weight",),
    **_tensors({"input.0": ("projection",), "encoder.norm": ("norm",)}),
    **_tensors({"output.2": ("readout_in",), "output.5": ("readout_out",)}),
    **{key: ours for i in range(8) for key, ours in _block(i).items()},
}
"""Likewise."""

PARTICLE_GNN_TENSORS = {
    **_tensors({"embedding": ("embedding",), "decoder.0": ("readout_in",), "decoder.2": ("readout_out",)}),
    **{key: ours for i in range(4) for key, ours in _layer(i).items()},
}
"""Likewise."""

PAIR_TRANSFORMER_COLUMNS = [0, 2, 4, 1, 3, 5, 6, 7]
"""Columns of the published `input.0.weight` in our order: positions, velocities, pair features.

The published one has x, v_x, y, v_y, z, v_z and then the pair features."""


def convert(tensors: Mapping[str, tuple[str, ...]], published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under our names and in our order of columns; `tensors` is one of the tables above."""
    converted = {}
    for key, ours in tensors.items():
        tensor = published[key]
        if key == "input.0.weight":
            tensor = tensor[:, PAIR_TRANSFORMER_COLUMNS]
        if key == "pos_encoder.pe":
            tensor = tensor.squeeze(1)
        converted |= dict(zip(ours, tensor.chunk(len(ours)), strict=True))
    return converted
