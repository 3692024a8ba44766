"""Predefined equivariant frames: sets F(x) of group elements with F(g·x) = g·F(x)."""

import math
from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise, product
from itertools import permutations as all_orders
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .orthogonal_groups import orthonormalize
from .permutations import number_levels

# Of eigenvalues and eigenvectors of graphs, whose edges are exact.
TOLERANCE = 1e-6
# Predefined frames of graphs.
FRAMES = ("laplacian", "canonical_labelling")


def laplacian_frame_ranks(edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
    """Rank the nodes of a graph by its Laplacian eigenvectors; nodes of equal rank may be exchanged (Puny et al. 2022).

    Each node's signature is the diagonal of the projection onto every eigenspace, in order of the eigenvalues: it does not
    depend on the choice of eigenvectors. The frame is the set of all orders that sort the signatures. Everything is float64:
    in float32 the signatures of a relabelled graph differ for a quarter of all small graphs.

    Args:
        edge_index (`np.ndarray` of shape `(2, edges)`): Edges; direction is ignored.
        num_nodes: Number of nodes.

    Returns:
        `np.ndarray` of shape `(num_nodes,)` int64: Equal numbers for nodes that the frame does not tell apart.
    """
    adjacency = np.zeros((num_nodes, num_nodes))
    adjacency[edge_index[0], edge_index[1]] = 1.0
    adjacency = np.maximum(adjacency, adjacency.T)
    values, vectors = np.linalg.eigh(np.diag(adjacency.sum(axis=1)) - adjacency)
    first_of_space = np.flatnonzero(np.diff(values, prepend=-np.inf) > TOLERANCE)
    signature = np.add.reduceat(vectors**2, first_of_space, axis=1)
    # Steps between sorted values, and not rounded values: 1/128 lies between two numbers of six decimals and would go either way.
    order = np.argsort(signature, axis=0)
    steps = np.diff(np.take_along_axis(signature, order, axis=0), axis=0, prepend=-np.inf) > TOLERANCE
    levels = np.empty(signature.shape, dtype=np.int64)
    np.put_along_axis(levels, order, np.cumsum(steps, axis=0), axis=0)
    return np.unique(levels, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def canonical_labelling_ranks(
    edge_index: np.ndarray,
    num_nodes: int,
    node_colors: np.ndarray | None = None,
    edge_colors: np.ndarray | None = None,
) -> np.ndarray:
    """Rank the nodes of a graph by a canonical labelling (McKay and Piperno 2014), found by the package canonaut.

    Isomorphic graphs, colours included, become one and the same graph when their nodes are put in this order. So an invariant
    function of the ordered graph is exactly invariant, with one element in the frame. Nodes that an automorphism exchanges are
    told apart all the same, as the search happens to: the order is equivariant up to automorphisms, and so is what a model says
    of single nodes.

    canonaut 1.0 labels simple undirected graphs with coloured nodes canonically (with directed edges its results depend on the
    order of the nodes). Directions, repetitions and colours of edges are therefore written as further nodes, and loops as
    colours: the coloured graph of a graph, which has the same automorphisms.

    Args:
        edge_index (`np.ndarray` of shape `(2, edges)`): Directed edges; loops and repeated ones count.
        num_nodes: Number of nodes.
        node_colors (`np.ndarray` of shape `(num_nodes,)` int64): Nodes of different colours are never exchanged.
        edge_colors (`np.ndarray` of shape `(edges,)` int64): The same for edges.

    Returns:
        `np.ndarray` of shape `(num_nodes,)` int64: 0 to `num_nodes - 1`, each once.

    Raises:
        ImportError: If canonaut is not installed.
    """
    if find_spec("canonaut") is None:
        raise ImportError(
            "frame 'canonical_labelling': expected the package canonaut, which is not installed. Run 'pip install canonaut', or "
            "use frame='laplacian'."
        )
    arcs: dict[tuple[int, int], list[int]] = defaultdict(list)
    arc_colors = np.zeros(edge_index.shape[1], dtype=np.int64) if edge_colors is None else edge_colors
    for source, target, color in zip(*edge_index.tolist(), arc_colors.tolist(), strict=True):
        arcs[source, target].append(color)
    kinds = {ends: tuple(sorted(colors)) for ends, colors in arcs.items()}
    own_colors = [0] * num_nodes if node_colors is None else node_colors.tolist()
    colors = _numbered([(color, kinds.get((node, node), ())) for node, color in enumerate(own_colors)])
    pairs = sorted({(min(ends), max(ends)) for ends in kinds if ends[0] != ends[1]})
    both = [(kinds.get((low, high), ()), kinds.get((high, low), ())) for low, high in pairs]
    # The least kind of undirected edge stays an edge; of the others each becomes a node between its ends, a directed one two.
    plain = min((forth for forth, back in both if forth == back), default=None)
    number = {kind: num_nodes + place for place, kind in enumerate(sorted({kind for pair in both for kind in pair}))}
    edges = []
    for (low, high), (forth, back) in zip(pairs, both, strict=True):
        middle = [] if forth == back == plain else [forth] if forth == back else [forth, back]
        walk = [low, *range(len(colors), len(colors) + len(middle)), high]
        colors += [number[kind] for kind in middle]
        edges += list(pairwise(walk))
    order = np.array(import_module("canonaut").raw.canonize(len(colors), edges, colors=colors).labeling)
    ranks = np.empty(num_nodes, dtype=np.int64)
    ranks[order[order < num_nodes]] = np.arange(num_nodes)
    return ranks


def _numbered(values: list) -> list[int]:
    """The place of each value among all different ones in order."""
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    return [places[value] for value in values]


def orders_of_frame(ranks: Tensor, node_mask: Tensor, most: int = 5040, equally_often: bool = False) -> tuple[Tensor, Tensor]:
    """All orders of the nodes that sort their ranks: the whole frame, for exact averages over it.

    Args:
        ranks (`torch.Tensor` of shape `(batch, nodes)` int64): Nodes of equal rank may be exchanged.
        node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
        most: Largest frame allowed.
        equally_often: Repeat the orders of smaller frames until all orders of a graph come equally often, with equal weights.

    Returns:
        Permutations (batch, size of the largest frame, nodes) int64, and their weights (batch, size): those of a graph sum to 1,
        and are zero beyond the size of its own frame.

    Raises:
        ValueError: If a frame is larger than `most`.
    """
    frames = []
    for graph, (row, mask) in enumerate(zip(ranks.cpu().numpy(), node_mask.cpu().numpy(), strict=True)):
        nodes = np.flatnonzero(mask)
        classes = [nodes[row[nodes] == rank] for rank in np.unique(row[nodes])]
        size = 1
        for members in classes:
            for factor in range(2, len(members) + 1):
                size *= factor
                if size > most:
                    raise ValueError(
                        f"distribution 'exact': expected frames of at most {most} group elements, graph {graph} has more. Use "
                        "distribution 'frame', which draws from the frame."
                    )
        padding = tuple(np.flatnonzero(~mask))
        orders = product(*(all_orders(members) for members in classes))
        frames.append(np.array([sum(order, ()) + padding for order in orders], dtype=np.int64).reshape(size, -1))
    largest = max(map(len, frames))
    if equally_often:
        largest = math.lcm(*map(len, frames))
        if largest > most:
            raise ValueError(
                f"distribution 'exact': expected frames that fit into {most} group elements together, got sizes "
                f"{', '.join(map(str, sorted(set(map(len, frames)))))}. Use distribution 'frame', or give the graphs one by one."
            )
        frames = [np.tile(frame, (largest // len(frame), 1)) for frame in frames]
    weights = np.array([[1 / len(frame)] * len(frame) + [0.0] * (largest - len(frame)) for frame in frames])
    index = np.stack([np.concatenate([frame, frame[:1].repeat(largest - len(frame), axis=0)]) for frame in frames])
    return torch.from_numpy(index).to(ranks.device), torch.from_numpy(weights).to(ranks.device)


class _Eigenvectors(torch.autograd.Function):
    """Eigenvalues and eigenvectors of symmetric matrices, in ascending order, differentiable where eigenvalues are equal.

    The derivative of an eigenvector along another one is 1 / (λ_j - λ_i). Inside of an eigenspace any basis will do, and the one
    that comes out stays as it is: nothing is divided by differences that are rounding error.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
        return torch.linalg.eigh(matrix)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*output, inputs[1])

    @staticmethod
    def backward(ctx: Any, to_values: Tensor, to_vectors: Tensor) -> tuple[Tensor, None]:
        values, vectors, tolerance = ctx.saved_tensors
        space = number_levels(values, tolerance)
        is_same = space.unsqueeze(-1) == space.unsqueeze(-2)
        gap = values.unsqueeze(-2) - values.unsqueeze(-1)
        along = (vectors.mT @ to_vectors) / gap.masked_fill(is_same, torch.inf)
        return vectors @ (torch.diag_embed(to_values) + along) @ vectors.mT, None


def principal_axes(vectors: Tensor, noise: Tensor, error: Tensor) -> Tensor:
    """Principal axes of vectors, each with a random sign, turned at random where several variances are equal (Puny et al. 2022).

    With U the eigenvectors of the covariance matrix, the axes are U·Q, where Q orthonormalizes the noise seen in that basis, one
    eigenspace at a time. So every choice of eigenvectors gives the same law: `principal_axes(R x, R ε) = R principal_axes(x, ε)`.
    Differentiable, with the noise held fixed; once and again.

    Args:
        vectors (`torch.Tensor` of shape `(batch, vectors, d)`): Centred; zero on padding.
        noise (`torch.Tensor` of shape `(batch, num_samples, d, d)`): Normal random numbers.
        error (`torch.Tensor` of shape `(batch,)`): How far all vectors together may be from the true ones, in the Frobenius norm.

    Returns:
        `torch.Tensor` of shape `(batch, num_samples, d, d)` float64: axes as columns, in order of descending variance.
    """
    vectors, noise = vectors.double(), noise.double()
    covariance = vectors.mT @ vectors
    values, axes = _Eigenvectors.apply(covariance, _variance_tolerance(covariance, error))
    values, axes = values.flip(-1), axes.flip(-1).unsqueeze(1)
    space = number_levels(values.detach(), _variance_tolerance(covariance, error))
    same_space = (space.unsqueeze(-1) == space.unsqueeze(-2)).unsqueeze(1)
    in_basis = (axes.mT @ noise) * same_space
    return axes @ orthonormalize(in_basis, in_basis)


def has_infinite_frame(vectors: Tensor, error: Tensor, spans_input: bool = True) -> Tensor:
    """Whether several variances are equal and not zero, so that an average depends on the axes chosen, (batch,) bool.

    In a space without variance any axes will do: they turn none of the vectors, and what a function gives along them cancels
    when their signs are enumerated.

    Args:
        vectors (`torch.Tensor` of shape `(batch, vectors, d)`): As for `principal_axes`.
        error (`torch.Tensor` of shape `(batch,)`): As for `principal_axes`.
        spans_input: Whether the function that is averaged sees no other vectors.
    """
    vectors = vectors.detach().double()
    covariance = vectors.mT @ vectors
    values, tolerance = torch.linalg.eigvalsh(covariance), _variance_tolerance(covariance, error)
    space = number_levels(values, tolerance)
    has_variance = (space[:, 1:] > 0) | (values[:, :1] > tolerance) | (not spans_input)
    return ((space[:, 1:] == space[:, :-1]) & has_variance).any(dim=-1)


def _variance_tolerance(covariance: Tensor, error: Tensor) -> Tensor:
    """The largest difference of two eigenvalues of VᵀV that an error E of V may make, (batch, 1): 2 (2 |V| |E| + |E|²) (Weyl)."""
    error = error.double().unsqueeze(-1)
    length = torch.linalg.matrix_norm(covariance.detach()).sqrt().unsqueeze(-1)
    return 2 * (2 * length + error) * error


def sign_choices(dimension: int, device: torch.device) -> Tensor:
    """All signs of d axes, (2^d, d) float64."""
    return torch.tensor(list(product((1.0, -1.0), repeat=dimension)), dtype=torch.float64, device=device)
