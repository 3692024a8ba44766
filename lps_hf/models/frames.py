"""Predefined equivariant frames: sets F(x) of group elements with F(g·x) = g·F(x)."""

from itertools import permutations as all_orders
from itertools import product

import numpy as np
import torch
from torch import Tensor

from .orthogonal_groups import orthonormalize

TOLERANCE = 1e-6


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


def orders_of_frame(ranks: Tensor, node_mask: Tensor, most: int = 5040) -> tuple[Tensor, Tensor]:
    """All orders of the nodes that sort their ranks: the whole frame, for exact averages over it.

    Args:
        ranks (`torch.Tensor` of shape `(batch, nodes)` int64): Nodes of equal rank may be exchanged.
        node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
        most: Largest frame allowed.

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
    weights = np.array([[1 / len(frame)] * len(frame) + [0.0] * (largest - len(frame)) for frame in frames])
    index = np.stack([np.concatenate([frame, frame[:1].repeat(largest - len(frame), axis=0)]) for frame in frames])
    return torch.from_numpy(index).to(ranks.device), torch.from_numpy(weights).to(ranks.device)


def principal_axes(vectors: Tensor, noise: Tensor) -> Tensor:
    """Principal axes of vectors, each with a random sign, turned at random where several variances are equal (Puny et al. 2022).

    With U the eigenvectors of the covariance matrix, the axes are U·Q, where Q orthonormalizes the noise seen in that basis, one
    eigenspace at a time. So every choice of eigenvectors gives the same law: `principal_axes(R x, R ε) = R principal_axes(x, ε)`.

    Args:
        vectors (`torch.Tensor` of shape `(batch, vectors, d)`): Centred; zero on padding.
        noise (`torch.Tensor` of shape `(batch, num_samples, d, d)`): Normal random numbers.

    Returns:
        `torch.Tensor` of shape `(batch, num_samples, d, d)` float64: axes as columns, in order of descending variance.
    """
    vectors, noise = vectors.detach().double(), noise.double()
    values, axes = torch.linalg.eigh(vectors.mT @ vectors)
    values, axes = values.flip(-1), axes.flip(-1).unsqueeze(1)
    scale = values[..., :1].clamp(min=1e-30)
    # Variances that differ by rounding error are equal; the space of an axis is the number of steps before it.
    space = (values[..., :-1] - values[..., 1:] > TOLERANCE * scale).cumsum(dim=-1)
    space = torch.cat([torch.zeros_like(space[..., :1]), space], dim=-1)
    same_space = (space.unsqueeze(-1) == space.unsqueeze(-2)).unsqueeze(1)
    in_basis = (axes.mT @ noise) * same_space
    return axes @ orthonormalize(in_basis, in_basis)


def sign_choices(dimension: int, device: torch.device) -> Tensor:
    """All signs of d axes, (2^d, d) float64."""
    return torch.tensor(list(product((1.0, -1.0), repeat=dimension)), dtype=torch.float64, device=device)
