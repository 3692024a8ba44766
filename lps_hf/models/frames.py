"""Predefined equivariant frames: sets F(x) of group elements with F(g·x) = g·F(x)."""

import numpy as np

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
