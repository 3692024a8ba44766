"""The equivariant interface q(x, ε): networks that turn an input and noise into what is projected onto the group."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sparse import SparseMatrix

# Relative differences of what a network computes in double precision that may be rounding error.
SMALLEST_TOLERANCE = 1e-10


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose statistics leave padding out, so that padding never changes a result."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Normalise the last axis.

        Args:
            hidden (`torch.Tensor` of shape `(batch, nodes, num_samples, channels)`): Features.
            mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.

        Returns:
            `torch.Tensor`: Same shape as `hidden`.
        """
        if not self.training:
            scale = torch.rsqrt(self.running_var + self.eps) * self.weight
            return torch.addcmul(self.bias - self.running_mean * scale, hidden, scale)
        weights = mask[:, :, None, None].to(hidden.dtype)
        count = weights.sum() * hidden.shape[2]
        mean = (hidden * weights).sum(dim=(0, 1, 2)) / count
        centred = hidden - mean
        variance = (centred.square() * weights).sum(dim=(0, 1, 2)) / count
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp(min=1))
            means = self.running_mean.lerp(mean.to(self.running_mean.dtype), self.momentum)
            variances = self.running_var.lerp(unbiased.to(self.running_var.dtype), self.momentum)
            # One batch that overflows would leave them NaN or infinite for good. Without a question, which waits for a GPU.
            is_finite = (means.isfinite() & variances.isfinite()).all()
            self.running_mean.copy_(torch.where(is_finite, means, self.running_mean))
            self.running_var.copy_(torch.where(is_finite, variances, self.running_var))
            self.num_batches_tracked.add_(1)
        return torch.addcmul(self.bias, centred, torch.rsqrt(variance + self.eps) * self.weight)


class ScoreHead(nn.Linear):
    """A linear map to one score, in double precision.

    Nodes are sorted by their scores. In single precision a large bias, which no order depends on, would take their last digits,
    and different nodes would tie.

    Args:
        input_size: Channels.
    """

    def __init__(self, input_size: int) -> None:
        super().__init__(input_size, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Score (..., channels) as (..., 1) float64."""
        return F.linear(hidden.double(), self.weight.double(), self.bias.double())


class GINLayer(nn.Module):
    """One graph isomorphism network layer: ReLU(BN(MLP((1 + eps) h_v + Σ_{u→v} h_u))) (Xu et al. 2019)."""

    def __init__(self, input_size: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        self.linear_in = nn.Linear(input_size, hidden_size)
        self.norm_in = MaskedBatchNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.linear_out = nn.Linear(hidden_size, hidden_size)
        self.norm_out = MaskedBatchNorm(hidden_size)

    def forward(self, hidden: Tensor, messages: Tensor, mask: Tensor) -> Tensor:
        """Update nodes (batch, nodes, num_samples, channels) from the sum of their neighbours' features."""
        hidden = self.linear_in(messages + (1 + self.eps) * hidden)
        hidden = self.dropout(F.relu(self.norm_in(hidden, mask)))
        return F.relu(self.norm_out(self.linear_out(hidden), mask))


class GINInterface(nn.Module):
    """The S_n-equivariant network of the paper: GIN on the edge list with a learned virtual node joined to all nodes.

    It gives one score to every node. Edge lists are used as they are: nothing is padded to n² and all samples share them.

    Args:
        input_size: Channels of the node features.
        hidden_size: Width of the hidden layers.
        num_layers: Number of GIN layers.
        dropout: Dropout inside the MLPs, in training.
    """

    def __init__(self, input_size: int, hidden_size: int = 64, num_layers: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.virtual_node = nn.Parameter(torch.zeros(input_size))
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList([GINLayer(size, hidden_size, dropout) for size in sizes])
        self.head = ScoreHead(hidden_size)

    def forward(self, node_features: Tensor, edge_index: Tensor, edge_mask: Tensor, node_mask: Tensor) -> Tensor:
        """Score the nodes.

        Args:
            node_features (`torch.Tensor` of shape `(batch, num_samples, nodes, channels)`): Features with noise added.
            edge_index (`torch.Tensor` of shape `(batch, 2, edges)`): Messages go from the first row to the second.
            edge_mask (`torch.Tensor` of shape `(batch, edges)`): True on edges.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.

        Returns:
            `torch.Tensor` of shape `(batch, num_samples, nodes)`: Scores in double precision; meaningless on padding.
        """
        batch, num_samples, nodes, _ = node_features.shape
        adjacency = self._adjacency(edge_index, edge_mask, node_mask, node_features.dtype)
        mask = F.pad(node_mask, (1, 0), value=True)
        # Samples beside each other, so that one sparse product serves all of them; the virtual node first.
        virtual = self.virtual_node.expand(batch, 1, num_samples, -1)
        hidden = torch.cat([virtual, node_features.transpose(1, 2)], dim=1)
        for layer in self.layers:
            messages = adjacency.product(hidden.reshape(batch * (nodes + 1), -1)).view_as(hidden)
            hidden = layer(hidden, messages, mask)
        return self.head(hidden[:, 1:]).squeeze(-1).transpose(1, 2)

    @staticmethod
    def _adjacency(edge_index: Tensor, edge_mask: Tensor, node_mask: Tensor, dtype: torch.dtype) -> SparseMatrix:
        """The batch's block-diagonal adjacency matrix, rows are targets; number 0 of each graph is the virtual node."""
        batch, nodes = node_mask.shape
        numbers = torch.arange(nodes + 1, device=edge_index.device)
        ones, zeros = F.pad(node_mask, (1, 0), value=True), torch.zeros_like(numbers).expand(batch, -1)
        # Edges, then from all nodes to the virtual one, itself too, then from it to the nodes.
        source = torch.cat([edge_index[:, 0] + 1, numbers.expand(batch, -1), zeros[:, 1:]], dim=1)
        target = torch.cat([edge_index[:, 1] + 1, zeros, numbers[1:].expand(batch, -1)], dim=1)
        values = torch.cat([edge_mask, ones, node_mask], dim=1).to(dtype)
        first = torch.arange(batch, device=edge_index.device).unsqueeze(-1) * (nodes + 1)
        size = batch * (nodes + 1)
        return SparseMatrix((target + first).flatten(), (source + first).flatten(), values.flatten(), (size, size))
