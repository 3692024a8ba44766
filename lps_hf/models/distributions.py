"""The equivariant distributions p(g|x), by noise outsourcing: node scores from (x, ε), sorted into a permutation.

All five are one mechanism: noise ε that moves with the nodes, a score for every node that depends on x and ε equivariantly,
and a sort. So q(g·x, g·ε) = g·q(x, ε) holds for each of them, and p(g|x) = p(g'g|g'x) follows (section 2 of arXiv 2306.02866).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .interface_networks import GINInterface
from .permutations import permutation_entropy, soft_permutation, sort_nodes
from .representations import Permutation


class DistributionSample(NamedTuple):
    """What a distribution draws."""

    elements: Permutation
    entropy: Tensor | None
    """Entropy of the soft permutations, shape `()`; `None` where they are not made (no gradient, or nothing learned)."""


class PermutationDistribution(nn.Module):
    """p(g|x) over S_n.

    | kind | score of a node |
    | --- | --- |
    | learned | GIN of the graph with Uniform(0, η) noise on every node feature: the paper's probabilistic symmetrization |
    | canonical | the same network without noise: canonicalization, equivariant in mean only where no nodes tie |
    | frame | rank by the predefined frame, ties at random: frame averaging |
    | haar | noise alone: group averaging |
    | none | the stored order: no symmetrization |

    Args:
        kind: One of the above.
        input_size: Channels of the node features; read by `learned` and `canonical`.
        noise_scale: η.
        temperature: τ of the soft matrix.
        sinkhorn_iterations: Rounds of the soft matrix.
        interface_config: Arguments of `GINInterface`.
    """

    def __init__(
        self,
        kind: str,
        input_size: int,
        noise_scale: float = 1.0,
        temperature: float = 0.01,
        sinkhorn_iterations: int = 20,
        interface_config: dict | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.noise_scale = noise_scale if kind == "learned" else 0.0
        self.temperature = temperature
        self.sinkhorn_iterations = sinkhorn_iterations
        self.interface = None
        if kind in ("learned", "canonical"):
            self.interface = GINInterface(input_size, **(interface_config or {}))
        self.num_noise_channels = 1 + (input_size if kind == "learned" else 0)

    def draw_noise(self, node_mask: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ε, Uniform(0, 1), for every node and sample.

        Args:
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
            num_samples: Number of samples.
            generator: Random source on the mask's device.

        Returns:
            `torch.Tensor` of shape `(batch, num_samples, nodes, channels)`: the last channel breaks ties, the others are
            scaled by η and added to the node features.
        """
        shape = (node_mask.shape[0], num_samples, node_mask.shape[1], self.num_noise_channels)
        # Where noise alone decides, equal float32 numbers among hundreds of nodes would now and then leak the stored order.
        dtype = torch.float32 if self.interface is not None else torch.float64
        return torch.rand(shape, generator=generator, device=node_mask.device, dtype=dtype)

    def forward(
        self,
        node_mask: Tensor,
        noise: Tensor,
        node_features: Tensor | None = None,
        edge_index: Tensor | None = None,
        edge_mask: Tensor | None = None,
        frame_ranks: Tensor | None = None,
    ) -> DistributionSample:
        """Turn noise into group elements.

        Args:
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.
            noise (`torch.Tensor` of shape `(batch, num_samples, nodes, channels)`): ε of `draw_noise`.
            node_features (`torch.Tensor` of shape `(batch, nodes, channels)`): Read by `learned` and `canonical`.
            edge_index (`torch.Tensor` of shape `(batch, 2, edges)`): Read by `learned` and `canonical`.
            edge_mask (`torch.Tensor` of shape `(batch, edges)`): True on edges.
            frame_ranks (`torch.Tensor` of shape `(batch, nodes)` int64): Read by `frame`.

        Returns:
            `DistributionSample`: elements of shape `(batch, num_samples, nodes)`.

        Raises:
            ValueError: If `frame` gets no `frame_ranks`, or ones of another shape.
        """
        tie_breaker = noise[..., -1]
        if self.kind == "none":
            order = torch.arange(node_mask.shape[1], device=node_mask.device)
            return DistributionSample(Permutation(order.expand(tie_breaker.shape)), None)
        if self.kind == "haar":
            return DistributionSample(Permutation(sort_nodes(tie_breaker, node_mask)), None)
        if self.kind == "frame":
            if frame_ranks is None:
                raise ValueError(
                    "frame_ranks: expected an int64 tensor of shape (batch, nodes) for distribution 'frame', got None. "
                    "LPSProcessor adds it when its config says distribution='frame'."
                )
            if frame_ranks.shape != node_mask.shape:
                raise ValueError(f"frame_ranks: expected shape {tuple(node_mask.shape)}, got {tuple(frame_ranks.shape)}.")
            scores = tie_breaker.double() - frame_ranks.unsqueeze(1)
            return DistributionSample(Permutation(sort_nodes(scores, node_mask)), None)
        # Sorting needs every digit: in half precision ties fall back to the stored order and leak it.
        with torch.autocast(node_mask.device.type, enabled=False):
            return self._sort_learned_scores(node_mask, noise, node_features, edge_index, edge_mask)

    def _sort_learned_scores(self, node_mask, noise, node_features, edge_index, edge_mask) -> DistributionSample:
        assert self.interface is not None  # `learned` and `canonical` have one
        dtype = self.interface.head.weight.dtype
        features = node_features.to(dtype).unsqueeze(1)
        if self.kind == "learned":
            features = features + self.noise_scale * noise[..., :-1].to(dtype)
        # Without noise all samples have the same scores: they are computed once.
        scores = self.interface(features, edge_index, edge_mask, node_mask).expand(-1, noise.shape[1], -1)
        scores = scores.to(torch.promote_types(dtype, torch.float32)).masked_fill(~node_mask.unsqueeze(1), 0.0)
        # Far above the rounding error of the scores, so that tied nodes come in random order and not in that of the rows; added
        # in double precision, where the noise keeps its digits.
        margin = 1e-9 if scores.dtype == torch.float64 else 1e-4
        largest = scores.detach().abs().amax(dim=-1, keepdim=True).double().clamp(min=1e-30)
        index = sort_nodes(scores.detach().double() + margin * largest * noise[..., -1].double(), node_mask)
        if not (torch.is_grad_enabled() and scores.requires_grad):
            return DistributionSample(Permutation(index), None)
        scores = scores / torch.linalg.vector_norm(scores, dim=-1, keepdim=True).clamp(min=1e-6)
        soft = soft_permutation(scores, index, node_mask, self.temperature, self.sinkhorn_iterations)
        return DistributionSample(Permutation(index, soft), permutation_entropy(soft, node_mask))
