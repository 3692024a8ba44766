"""Small graphs, small models and a slow second implementation of everything, for the tests of this folder.

The reference uses dense matrices, one graph at a time and without padding, so nothing of the package's sparse, batched
and padded arithmetic is shared with it; only the parameters and the backbone are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ViTConfig

from lps_hf.models import permutations, projections
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.distributions import Noise
from lps_hf.models.frames import laplacian_frame_ranks
from lps_hf.models.interface_networks import GINInterface, MaskedBatchNorm
from lps_hf.models.modeling_lps import LPSModel, LPSPreTrainedModel
from lps_hf.models.representations import EdgeField
from lps_hf.models.soft_permutations import pull_back_matrix, pull_back_products

NODE_CATEGORIES = [3, 2]
EDGE_CATEGORIES = [2]
KINDS = ("learned", "canonical", "frame", "haar", "none")
EQUIVARIANT_KINDS = KINDS[:-1]
PADDING_MODES = ("zero", "reflect", "replicate", "circular")
NUMPY_PADDING = {"zero": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}

Batch = dict[str, Tensor]


def seeded(seed: int) -> torch.Generator:
    """A random source of its own."""
    return torch.Generator().manual_seed(seed)


def tiny_config(grid: int = 2, **options: Any) -> LPSConfig:
    """A configuration whose backbone is a ViT of one narrow layer on `grid * grid` tokens."""
    backbone = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=grid,
        patch_size=1,
    )
    defaults = {
        "backbone_config": backbone,
        "max_nodes": 8,
        "num_labels": 3,
        "node_categories": NODE_CATEGORIES,
        "edge_categories": EDGE_CATEGORIES,
        "interface_config": {"hidden_size": 12},
    }
    return LPSConfig(**{**defaults, **options})


def tiny_model(
    model_class: type[LPSPreTrainedModel] = LPSModel, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any
) -> Any:
    """A model in evaluation mode in which every parameter and every running statistic matters."""
    torch.manual_seed(seed)
    model = model_class(tiny_config(**options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.to(dtype)
    interface = getattr(model, model.base_model_prefix, model).distribution.interface
    if interface is not None:
        calibrate(interface)
    return model.eval()


@torch.no_grad()
def calibrate(interface: GINInterface) -> None:
    """Set the running statistics to those of random graphs: with foreign ones a small network is dead."""
    batch, parameter = random_batch([3, 5, 8]), interface.head.weight
    norms = [module for module in interface.modules() if isinstance(module, MaskedBatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    features = torch.rand(3, 4, 8, interface.virtual_node.shape[0], generator=seeded(0)).to(parameter.dtype)
    edge_index = batch["edge_index"].masked_fill(~batch["edge_mask"].unsqueeze(1), 0)
    interface.train()(1.5 * features, edge_index, batch["edge_mask"], batch["node_mask"])
    for norm in norms:
        norm.momentum = 0.1


def random_batch(sizes: list[int], seed: int = 0, num_nodes: int | None = None, num_edges: int | None = None) -> Batch:
    """Directed graphs with self-loops and repeated edges; what stands on padding is rubbish.

    Args:
        sizes: Number of nodes of each graph; a graph of n nodes has 3 n edges.
        seed: Of the content, which does not depend on the padding.
        num_nodes: Length of the node axis, by default that of the largest graph.
        num_edges: Length of the edge axis, by default that of the largest graph.
    """
    nodes, edges = num_nodes or max(sizes), num_edges or 3 * max(sizes)
    batch = {
        "node_categories": torch.full((len(sizes), nodes, len(NODE_CATEGORIES)), 77),
        "edge_index": torch.full((len(sizes), 2, edges), 99),
        "edge_categories": torch.full((len(sizes), edges, len(EDGE_CATEGORIES)), -5),
        "node_mask": torch.arange(nodes) < torch.tensor(sizes).unsqueeze(1),
        "edge_mask": torch.arange(edges) < 3 * torch.tensor(sizes).unsqueeze(1),
    }
    for graph, size in enumerate(sizes):
        source = seeded(1000 * seed + graph)
        for column, categories in enumerate(NODE_CATEGORIES):
            batch["node_categories"][graph, :size, column] = torch.randint(categories, (size,), generator=source)
        batch["edge_index"][graph, :, : 3 * size] = torch.randint(size, (2, 3 * size), generator=source)
        for column, categories in enumerate(EDGE_CATEGORIES):
            drawn = torch.randint(categories, (3 * size,), generator=source)
            batch["edge_categories"][graph, : 3 * size, column] = drawn
    return batch


def select_graph(batch: Batch, graph: int) -> Batch:
    """One graph of a batch, alone and without any padding."""
    nodes, edges = int(batch["node_mask"][graph].sum()), int(batch["edge_mask"][graph].sum())
    return {
        "node_categories": batch["node_categories"][graph : graph + 1, :nodes],
        "edge_index": batch["edge_index"][graph : graph + 1, :, :edges],
        "edge_categories": batch["edge_categories"][graph : graph + 1, :edges],
        "node_mask": batch["node_mask"][graph : graph + 1, :nodes],
        "edge_mask": batch["edge_mask"][graph : graph + 1, :edges],
    }


def with_frame_ranks(batch: Batch) -> Batch:
    """The batch with what distribution `"frame"` reads; -1 on padding."""
    ranks = torch.full(batch["node_mask"].shape, -1)
    for graph, (nodes, edges) in enumerate(zip(batch["node_mask"].sum(1), batch["edge_mask"].sum(1), strict=True)):
        index = batch["edge_index"][graph, :, :edges].numpy()
        ranks[graph, :nodes] = torch.from_numpy(laplacian_frame_ranks(index, int(nodes)))
    return {**batch, "frame_ranks": ranks}


def place_nodes(tensor: Tensor, elements: Tensor, dim: int) -> Tensor:
    """Move entry i of axis `dim` (at least 1) of graph b to place `elements[b, i]`."""
    result = torch.empty_like(tensor)
    for graph, element in enumerate(elements):
        result[graph].index_copy_(dim - 1, element, tensor[graph])
    return result


def place_noise(noise: Noise, elements: Tensor) -> Noise:
    """The action ρ(g)ε on noise: that of node i goes to place g(i)."""
    return {name: place_nodes(part, elements, dim=2) for name, part in noise.items()}


def relabel(batch: Batch, elements: Tensor) -> Batch:
    """The action ρ(g)x on a batch, g of shape (batch, nodes): node i gets number g(i). Frame ranks are made anew."""
    result = dict(batch)
    result["node_categories"] = place_nodes(batch["node_categories"], elements, dim=1)
    result["edge_index"] = batch["edge_index"].clone()
    for graph, element in enumerate(elements):
        valid = batch["edge_mask"][graph]
        result["edge_index"][graph][:, valid] = element[batch["edge_index"][graph][:, valid]]
    return with_frame_ranks(result) if "frame_ranks" in batch else result


def kwargs_for(kind: str, batch: Batch) -> Batch:
    """The batch as a model of this kind takes it."""
    return with_frame_ranks(batch) if kind == "frame" else batch


def complete_graph(size: int, copies: int = 1) -> Batch:
    """`copies` complete graphs whose nodes nothing but noise can tell apart."""
    ends = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    ends = ends[ends[:, 0] != ends[:, 1]].T
    return {
        "node_categories": torch.ones(copies, size, 2, dtype=torch.int64),
        "edge_index": ends.expand(copies, 2, -1),
        "edge_categories": torch.zeros(copies, ends.shape[1], 1, dtype=torch.int64),
        "node_mask": torch.ones(copies, size, dtype=torch.bool),
        "edge_mask": torch.ones(copies, ends.shape[1], dtype=torch.bool),
    }


def densify(field: EdgeField, nodes: int) -> Tensor:
    """The tensor (batch, num_samples, nodes, nodes, channels) that an edge field stands for, entry by entry."""
    batch, _, channels = field.features.shape
    if field.permutation is None:
        ranks = torch.arange(nodes).expand(batch, 1, nodes)
    else:
        ranks = torch.empty_like(field.permutation.index)
        places = torch.arange(nodes).expand_as(ranks)
        ranks.scatter_(-1, field.permutation.index, places)
    dense = torch.zeros(batch, ranks.shape[1], nodes, nodes, channels, dtype=field.features.dtype)
    for graph in range(batch):
        for sample in range(ranks.shape[1]):
            source, target = ranks[graph, sample][field.index[graph]]
            dense[graph, sample].index_put_((source, target), field.features[graph], accumulate=True)
    return dense


def chi_square(counts: Tensor) -> float:
    """Pearson's statistic against the uniform distribution, in standard deviations from its mean."""
    counts = counts.double()
    expected = counts.sum() / counts.numel()
    freedom = counts.numel() - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5)


def count_orders(index: Tensor) -> Tensor:
    """How often each of the n! permutations occurs among the rows of (draws, n)."""
    nodes = index.shape[-1]
    codes = (index * nodes ** torch.arange(nodes)).sum(-1)
    counts = codes.unique(return_counts=True)[1]
    factorial = int(torch.arange(1, nodes + 1).prod())
    return F.pad(counts, (0, factorial - counts.numel()))


def reference_pad(tensor: Tensor, left: int, right: int, mode: str, dim: int) -> Tensor:
    """`F.pad` on one axis where it is defined, `np.pad`, which repeats the pattern, where it is not."""
    size = tensor.shape[dim]
    if mode == "zero":
        moved = F.pad(tensor.movedim(dim, -1), (left, right))
    elif max(left, right) < size:
        flat = tensor.movedim(dim, -1)
        moved = F.pad(flat.reshape(1, -1, size), (left, right), mode=mode).reshape(*flat.shape[:-1], -1)
    else:
        places = np.pad(np.arange(size), (left, right), mode=NUMPY_PADDING[mode])
        moved = tensor.movedim(dim, -1)[..., torch.from_numpy(places)]
    return moved.movedim(-1, dim)


def pad_to_grid(tensor: Tensor, max_nodes: int, parts: int, config: LPSConfig, dim: int) -> Tensor:
    """Zeros up to `max_nodes`, then the configured padding up to a multiple of `parts`."""
    tensor = reference_pad(tensor, 0, max_nodes - tensor.shape[dim], "zero", dim)
    missing = -max_nodes % parts
    left = missing // 2 if config.centered_padding else 0
    return reference_pad(tensor, left, missing - left, config.padding_mode, dim)


def reference_soft_permutation(scores: Tensor, temperature: float, rounds: int) -> Tensor:
    """P̂ of one graph without padding, from scores (nodes,), rows and columns normalised by themselves in turn."""
    return reference_soft_matrix(scores, scores.argsort(descending=True), temperature, rounds)


def reference_soft_matrix(scores: Tensor, index: Tensor, temperature: float, rounds: int) -> Tensor:
    """P̂ (..., nodes, ranks) of scores (..., nodes) and their hard sort, in the log domain, as it was published."""
    log_soft = -(scores.unsqueeze(-1) - scores.gather(-1, index).unsqueeze(-2)).abs() / temperature
    for _ in range(rounds):
        log_soft = log_soft.log_softmax(dim=-1)
        log_soft = log_soft.log_softmax(dim=-2)
    return log_soft.exp()


def reference_entropy(soft: Tensor) -> Tensor:
    """Row plus column entropy of one matrix, divided by its size."""
    rows, columns = soft / soft.sum(1, keepdim=True), soft / soft.sum(0, keepdim=True)
    return -(torch.xlogy(rows, rows) + torch.xlogy(columns, columns)).sum() / len(soft)


def reference_scores(interface: GINInterface, features: list[Tensor], edges: list[Tensor]) -> list[Tensor]:
    """Scores (num_samples, nodes) of each graph by dense matrices, with batch statistics over all nodes of all graphs.

    Args:
        interface: The network whose parameters are used.
        features: Node features with noise of each graph, (num_samples, nodes, channels).
        edges: Edge list of each graph, (2, edges).
    """
    matrices = []
    for feature, edge_index in zip(features, edges, strict=True):
        matrix = feature.new_zeros(feature.shape[1] + 1, feature.shape[1] + 1)
        for source, target in edge_index.T.tolist():
            matrix[target + 1, source + 1] += 1
        matrix[0, :] = matrix[:, 0] = 1
        matrices.append(matrix)

    def normalise(norm: Any, states: list[Tensor]) -> list[Tensor]:
        rows = torch.cat([state.flatten(0, 1) for state in states])
        mean, variance = norm.running_mean.clone(), norm.running_var.clone()
        rows = F.batch_norm(rows, mean, variance, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps)
        lengths = [state.shape[0] * state.shape[1] for state in states]
        return [row.view(*state.shape[:2], -1) for row, state in zip(rows.split(lengths), states, strict=True)]

    states = [torch.cat([interface.virtual_node.expand(feature.shape[0], 1, -1), feature], dim=1) for feature in features]
    for layer in interface.layers:
        states = [
            F.linear(matrix @ state + (1 + layer.eps) * state, layer.linear_in.weight, layer.linear_in.bias)
            for matrix, state in zip(matrices, states, strict=True)
        ]
        states = [state.relu() for state in normalise(layer.norm_in, states)]
        states = [F.linear(state, layer.linear_out.weight, layer.linear_out.bias) for state in states]
        states = [state.relu() for state in normalise(layer.norm_out, states)]
    return [F.linear(state[:, 1:], interface.head.weight, interface.head.bias).squeeze(-1) for state in states]


def reference_encoding(batch: Batch, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Per graph: one-hot node features (nodes, channels), dense edge tensor (nodes, nodes, channels), edge list."""
    features, tensors, edges = [], [], []
    for graph in range(len(batch["node_mask"])):
        alone = select_graph(batch, graph)
        columns = zip(alone["node_categories"][0].unbind(-1), NODE_CATEGORIES, strict=True)
        features.append(torch.cat([F.one_hot(column, size) for column, size in columns], dim=-1).to(dtype))
        nodes = len(features[-1])
        tensor = torch.zeros(nodes, nodes, 1 + sum(EDGE_CATEGORIES), dtype=dtype)
        for edge, (source, target) in enumerate(alone["edge_index"][0].T.tolist()):
            tensor[source, target, 0] += 1
            tensor[source, target, 1 + alone["edge_categories"][0, edge, 0]] += 1
        tensors.append(tensor)
        edges.append(alone["edge_index"][0])
    return features, tensors, edges


def reference_tokens(model: LPSModel, nodes: Tensor, pairs: Tensor) -> Tensor:
    """Tokens (tokens, hidden) of one permuted graph: pad, then convolve."""
    config, grid = model.config, model.base.backbone.grid_size
    by_node, by_pair = (model.base.projections[name] for name in ("node_features", "edge_features"))
    sequence = pad_to_grid(nodes, config.max_nodes, grid**2, config, dim=0).T.unsqueeze(0)
    kernel = by_node.weight.permute(2, 1, 0)
    tokens = F.conv1d(sequence, kernel, by_node.bias, stride=kernel.shape[-1])[0].T
    image = pad_to_grid(pairs, config.max_nodes, grid, config, dim=0)
    image = pad_to_grid(image, config.max_nodes, grid, config, dim=1).permute(2, 0, 1).unsqueeze(0)
    kernel = by_pair.weight.permute(3, 0, 1, 2)
    patches = F.conv2d(image, kernel, by_pair.bias, stride=kernel.shape[-1])
    return tokens + patches[0].flatten(1).T


def reference_readout(model: LPSModel, tokens: Tensor | None, pooled: Tensor | None, matrix: Tensor) -> Tensor:
    """ρ_out(g) of the read-out of one sample, with g given as a matrix (nodes, ranks)."""
    config, grid, nodes = model.config, model.base.backbone.grid_size, len(matrix)
    axes = config.output_representation.count("n")
    if axes == 0:
        return F.linear(pooled, model.base.readout.linear.weight, model.base.readout.linear.bias)
    conv = model.base.readout.conv
    parts = grid**2 if axes == 1 else grid
    missing = -config.max_nodes % parts
    start = missing // 2 if config.centered_padding else 0
    kept = slice(start, start + config.max_nodes)
    if axes == 1:
        sequence = F.conv_transpose1d(tokens.T.unsqueeze(0), conv.weight, conv.bias, stride=conv.weight.shape[-1])
        return matrix @ sequence[0, :, kept].T[:nodes]
    image = tokens.T.reshape(1, -1, grid, grid)
    image = F.conv_transpose2d(image, conv.weight, conv.bias, stride=conv.weight.shape[-1])
    image = image[0, :, kept, kept].permute(1, 2, 0)[:nodes, :nodes]
    return torch.einsum("ir,rsc,js->ijc", matrix, image, matrix)


def reference_forward(model: LPSModel, batch: Batch, noise: Noise) -> tuple[list[Tensor], Tensor]:
    """φ's estimate of a learned or canonical model by dense products with P = hard + soft - soft.detach().

    Returns:
        The mean output of each graph, (nodes, nodes or nothing, channels), and the entropy of the soft permutations.
    """
    config, dtype = model.config, model.dtype
    features, tensors, edges = reference_encoding(batch, dtype)
    scale = config.noise_scale if config.distribution == "learned" else 0.0
    noisy = []
    for graph, feature in enumerate(features):
        added = noise["interface"] if scale else noise["S_n"].unsqueeze(-1)
        noisy.append(feature + scale * added[graph, :, : len(feature)].to(dtype))
    scores = reference_scores(model.distribution.interface, noisy, edges)
    outputs, entropies = [], []
    for feature, tensor, score in zip(features, tensors, scores, strict=True):
        samples, entropy = [], []
        for one in score:
            one = one / one.norm()
            soft = reference_soft_permutation(one, config.temperature, config.sinkhorn_iterations)
            hard = F.one_hot(one.argsort(descending=True), len(one)).T.to(dtype)
            matrix = hard + soft - soft.detach()
            pairs = torch.einsum("ir,ijc,js->rsc", matrix, tensor, matrix)
            tokens = reference_tokens(model, matrix.T @ feature, pairs)
            backbone = model.base.backbone(tokens.unsqueeze(0))
            states = (backbone.last_hidden_state, backbone.pooler_output)  # one of them: what the read-out needs
            samples.append(reference_readout(model, *(None if state is None else state[0] for state in states), matrix))
            entropy.append(reference_entropy(soft))
        outputs.append(torch.stack(samples).mean(0))
        entropies.append(torch.stack(entropy).mean())
    return outputs, torch.stack(entropies).mean()


@contextmanager
def permutation_gradients(rank: Tensor) -> Iterator[list[Tensor]]:
    """Collect what a backward pass hands to soft permutations: the gradient with respect to P, once the pass is over.

    The library hands it on in factors, or one graph at a time, with rows counted by rank, and never has the whole of it.

    Args:
        rank: The rank of each node, (batch, num_samples, nodes).

    Yields:
        A list that gets one tensor (batch, num_samples, nodes, ranks).
    """
    whole: list[Tensor] = []
    by_graph: list[Tensor] = []
    found: list[Tensor] = []

    def products(soft: Any, left: Tensor, right: Tensor) -> Any:
        whole.append(left @ right.mT)
        return pull_back_products(soft, left, right)

    def matrix(soft: Any, gradient: Tensor) -> Any:
        missing = rank.shape[2] - gradient.shape[2]
        by_graph.append(F.pad(gradient, (0, missing, 0, missing)))
        return pull_back_matrix(soft, gradient)

    with (
        mock.patch.object(permutations, "pull_back_products", products),
        mock.patch.object(projections, "pull_back_matrix", matrix),
    ):
        yield found
    total = torch.stack(whole + ([torch.cat(by_graph)] if by_graph else [])).sum(dim=0)
    found.append(total.gather(2, rank.unsqueeze(-1).expand_as(total)))
