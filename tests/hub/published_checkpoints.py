"""Checkpoint files as the published code writes them: Lightning's of the ViT experiments, state dicts of the others."""

import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

RUN_NAME = (
    "pt_True,k_1,eval_k_10,z_1.0,tau_0.01,hard,l_3,d_64,drop_0.1,b_128,es_validation_loss_main_epoch_min_100,"
    "lr_1e-05_1e-05,steps_25000,wu_5000,wd_0.01,seed_42,"
)
ATOMS, BONDS = 50, 8
Tensors = dict[str, Tensor]


def lightning_checkpoint(file: Path, tensors: Tensors, run_name: str | None = RUN_NAME, **more: Any) -> Path:
    """Write what Lightning writes of the published module: objects among the hyper-parameters, the optimizer, callbacks."""
    package, optim, scheduler = (ModuleType(f"src.{name}") for name in ("optim", "optim.optim", "optim.lr_scheduler"))
    optim.OptimizerConfig = type("OptimizerConfig", (), {"__module__": optim.__name__})  # type: ignore[attr-defined]
    scheduler.LRSchedulerConfig = type("LRSchedulerConfig", (), {"__module__": scheduler.__name__})  # type: ignore[attr-defined]
    objects = [optim.OptimizerConfig(), scheduler.LRSchedulerConfig()]
    for thing in objects:
        thing.lr, thing.lr_pretrained = 1e-5, 1e-5
    folder = f"experiments/checkpoints/some_data/{run_name}"
    content = {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "2.0.2",
        "state_dict": OrderedDict((f"model.{key}", tensor) for key, tensor in tensors.items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4, "completed": 3}}}},
        "callbacks": {
            "EarlyStopping{'monitor': 'validation/loss_main_epoch'}": {"wait_count": 0, "best_score": torch.tensor(0.5)},
            "ModelCheckpoint{'monitor': 'epoch'}": {"best_model_path": f"{folder}/last.ckpt", "dirpath": folder},
        },
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"optimizer_config": objects[0], "lr_scheduler_config": objects[1], "verbose": True},
    }
    if run_name is None:
        del content["callbacks"]
    modules = {"src": ModuleType("src"), package.__name__: package, optim.__name__: optim, scheduler.__name__: scheduler}
    with mock.patch.dict(sys.modules, modules):
        torch.save({**content, **more}, file)
    return file


def _drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            tensors[key] = torch.tensor(7)
        else:
            drawn = torch.randn(shape, generator=generator) / max(1, shape[-1] if shape else 1) ** 0.5
            tensors[key] = drawn.square() + 0.5 if key.endswith("running_var") else drawn
    return tensors


def _with_bias(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {
        f"{key}.{leaf}": shape if leaf == "weight" else shape[:1] for key, shape in shapes.items() for leaf in ("weight", "bias")
    }


def _norms(sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    shapes: dict[str, tuple[int, ...]] = {f"{key}.{leaf}": (size,) for key, size in sizes.items() for leaf in leaves}
    return shapes | {f"{key}.num_batches_tracked": () for key in sizes}


def gin_shapes(prefix: str, channels: int, hidden: int = 8, num_layers: int = 3) -> dict[str, tuple[int, ...]]:
    linear, norms = {"head": (1, hidden)}, {}
    for i in range(num_layers):
        linear[f"mlps.{i}.linear_layers.0"] = (hidden, hidden if i else channels)
        linear[f"mlps.{i}.linear_layers.1"] = (hidden, hidden)
        norms |= {f"mlps.{i}.norms.0": hidden, f"norms.{i}": hidden}
    shapes = {"eps": (num_layers,), **_with_bias(linear), **_norms(norms)}
    return {f"{prefix}virtual_node": (channels,), **{f"{prefix}gin_interface.{key}": shape for key, shape in shapes.items()}}


def vit_tensors(
    *,
    nodes: int,
    edges: int,
    max_nodes: int,
    output: tuple[int, int],
    hidden: int = 64,
    num_layers: int = 2,
    grid: int = 4,
    interface: bool = True,
    gin_hidden: int = 8,
) -> Tensors:
    """A ViT experiment; `output` is the number of node axes, 0 or 2, and of channels."""
    patch, node_patch = -(-max_nodes // grid), -(-max_nodes // grid**2)
    linear: dict[str, tuple[int, ...]] = {
        "backbone.backbone.patch_embed.proj": (hidden, 3, 16, 16),
        "backbone.backbone.head": (5, hidden),
        "backbone.backbone.norm": (hidden,),
        "input_proj.proj.0.proj": (hidden, nodes, node_patch),
        "input_proj.proj.1.proj": (hidden, edges, patch, patch),
    }
    for i in range(num_layers):
        sizes = {"norm1": (hidden,), "attn.qkv": (3 * hidden, hidden), "attn.proj": (hidden, hidden), "norm2": (hidden,)}
        sizes |= {"mlp.fc1": (4 * hidden, hidden), "mlp.fc2": (hidden, 4 * hidden)}
        linear |= {f"backbone.backbone.blocks.{i}.{key}": shape for key, shape in sizes.items()}
    shapes = _with_bias(linear)
    shapes |= {"backbone.backbone.cls_token": (1, 1, hidden), "backbone.backbone.pos_embed": (1, grid**2 + 1, hidden)}
    axes, channels = output
    if axes:
        shapes |= {
            "output_proj.proj.0.proj.weight": (hidden, channels, patch, patch),
            "output_proj.proj.0.proj.bias": (channels,),
        }
    else:
        shapes |= _with_bias({"output_proj.proj.0": (channels, hidden)})
    if interface:
        shapes |= gin_shapes("distribution.prob_interface_net.", nodes, gin_hidden)
    return _drawn(shapes)


def exp_tensors(num_nodes: int = 6) -> Tensors:
    widths = (num_nodes * (num_nodes + 2), 12, 16, 12, 5, 1)
    names = ("conv1", "conv2", "conv3", "fc1", "fc2")
    shapes = _with_bias(
        {f"backbone.{name}": (after, before) for name, before, after in zip(names, widths, widths[1:], strict=False)}
    )
    shapes |= gin_shapes("interface.", 2) | _with_bias({"interface.gin_interface.input": (8, 2)})
    return _drawn(shapes)


def _vector_shapes(vectors: int = 21) -> dict[str, tuple[int, ...]]:
    narrow = vectors // 2
    layers = {
        "conv1": (vectors, 4),
        "conv2": (vectors, 2 * vectors),
        "conv3": (vectors, 2 * vectors),
        "std_feature.vn1": (vectors, 2 * vectors),
        "std_feature.vn2": (narrow, vectors),
    }
    shapes = {f"{key}.map_to_{part}.weight": shape for key, shape in layers.items() for part in ("feat", "dir")}
    shapes |= _norms({f"{key}.batchnorm.bn": shape[0] for key, shape in layers.items()})
    shapes |= {f"pool{i}.map_to_dir.weight": (vectors, vectors) for i in (1, 2, 3)}
    shapes |= {"conv3.map_to_dir.weight": (1, 2 * vectors), "head2.map_to_feat.weight": (3, vectors)}
    shapes |= {"std_feature.vn_lin.weight": (3, narrow), **_with_bias({"head1": (1, 12 * vectors)})}
    return {f"interface.vnn_interface.{key}": shape for key, shape in shapes.items()}


def nbody_transformer_tensors(hidden: int = 16, num_layers: int = 2) -> Tensors:
    linear: dict[str, tuple[int, ...]] = {
        "input.0": (hidden, 8),
        "output.2": (hidden, hidden),
        "output.5": (3, hidden),
        "encoder.norm": (hidden,),
    }
    shapes = {"pos_encoder.pe": (25, 1, hidden)}
    for i in range(num_layers):
        layer = f"encoder.layers.{i}."
        linear |= {f"{layer}{key}": (hidden, hidden) for key in ("self_attn.out_proj", "linear1", "linear2")}
        linear |= {f"{layer}norm1": (hidden,), f"{layer}norm2": (hidden,)}
        shapes |= {f"{layer}self_attn.in_proj_weight": (3 * hidden, hidden), f"{layer}self_attn.in_proj_bias": (3 * hidden,)}
    shapes |= _with_bias(linear)
    return _drawn({f"backbone.{key}": shape for key, shape in shapes.items()} | _vector_shapes())


def nbody_gnn_tensors(hidden: int = 12, num_layers: int = 2) -> Tensors:
    linear = {"embedding": (hidden, 6), "decoder.0": (hidden, hidden), "decoder.2": (3, hidden)}
    for i in range(num_layers):
        linear[f"layer_{i}.edge_mlp.0"] = (hidden, 2 * hidden + 2)
        linear[f"layer_{i}.node_mlp.0"] = (hidden, 2 * hidden)
        linear |= {f"layer_{i}.{key}": (hidden, hidden) for key in ("edge_mlp.2", "node_mlp.2")}
    return _drawn({f"backbone.{key}": shape for key, shape in _with_bias(linear).items()} | _vector_shapes())


def pattern_tensors(**options: Any) -> Tensors:
    return vit_tensors(nodes=3, edges=4, max_nodes=188, output=(2, 2), **options)


def peptides_tensors(num_labels: int = 10, **options: Any) -> Tensors:
    return vit_tensors(nodes=ATOMS, edges=BONDS, max_nodes=444, output=(0, num_labels), **options)


def pcqm_tensors(**options: Any) -> Tensors:
    return vit_tensors(nodes=68, edges=7, max_nodes=53, output=(2, 1), **options)
