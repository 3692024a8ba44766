"""The equivariant interface q(x, ε): networks that turn an input and noise into what is projected onto the group."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        if self.training:
            weights = mask[:, :, None, None].to(hidden.dtype)
            count = weights.sum() * hidden.shape[2]
            mean = (hidden * weights).sum(dim=(0, 1, 2)) / count
            variance = ((hidden - mean).square() * weights).sum(dim=(0, 1, 2)) / count
            with torch.no_grad():
                unbiased = variance * (count / (count - 1).clamp(min=1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
                self.num_batches_tracked.add_(1)
        else:
            mean, variance = self.running_mean, self.running_var
        return (hidden - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


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
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, node_features: Tensor, edge_index: Tensor, edge_mask: Tensor, node_mask: Tensor) -> Tensor:
        """Score the nodes.

        Args:
            node_features (`torch.Tensor` of shape `(batch, num_samples, nodes, channels)`): Features with noise added.
            edge_index (`torch.Tensor` of shape `(batch, 2, edges)`): Messages go from the first row to the second.
            edge_mask (`torch.Tensor` of shape `(batch, edges)`): True on edges.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes.

        Returns:
            `torch.Tensor` of shape `(batch, num_samples, nodes)`: Scores; meaningless on padding.
        """
        batch, num_samples, nodes, _ = node_features.shape
        valid = node_mask[:, :, None, None]
        adjacency = self._adjacency(edge_index, edge_mask, nodes, node_features.dtype)
        # Samples beside each other, so that one sparse product serves all of them.
        hidden = node_features.transpose(1, 2)
        virtual = self.virtual_node.expand(batch, 1, num_samples, -1)
        mask_with_virtual = F.pad(node_mask, (1, 0), value=True)
        for layer in self.layers:
            hidden = hidden.masked_fill(~valid, 0.0)
            messages = torch.sparse.mm(adjacency, hidden.reshape(batch * nodes, -1)).view_as(hidden) + virtual
            messages = torch.cat([hidden.sum(dim=1, keepdim=True) + virtual, messages], dim=1)
            joint = layer(torch.cat([virtual, hidden], dim=1), messages, mask_with_virtual)
            virtual, hidden = joint[:, :1], joint[:, 1:]
        return self.head(hidden).squeeze(-1).transpose(1, 2)

    @staticmethod
    def _adjacency(edge_index: Tensor, edge_mask: Tensor, nodes: int, dtype: torch.dtype) -> Tensor:
        """The batch's block-diagonal adjacency matrix, (batch * nodes, batch * nodes), rows are targets."""
        batch = edge_index.shape[0]
        first = torch.arange(batch, device=edge_index.device).view(-1, 1, 1) * nodes
        source, target = (edge_index + first).transpose(0, 1).flatten(1)
        values = edge_mask.flatten().to(dtype)
        size = (batch * nodes, batch * nodes)
        return torch.sparse_coo_tensor(torch.stack([target, source]), values, size, check_invariants=False)
