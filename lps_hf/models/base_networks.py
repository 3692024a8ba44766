"""The small base networks f of arXiv 2306.02866, which read the fields themselves: MLP, GIN-ID, pair transformer, particle GNN.

None of them is meant to be equivariant: f may be any function, symmetrization makes it one that is. They tell fields apart by
their axes and their place in `inputs`, not by name.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import check_finite
from .configuration_base_networks import GINIDBaseConfig, MLPBaseConfig, PairTransformerBaseConfig, ParticleGNNBaseConfig
from .interface_networks import GINLayer
from .representations import Representation


class BaseNetwork(nn.Module):
    """What the networks share: checks, and fields as plain channels.

    Args:
        config: The network's configuration.
        inputs: Representation of each input field; node axes come first.
        output: Representation of the output.
        max_nodes: Largest number of nodes.
        dimension: Length d of vector and point axes; `None` where the group has none.

    Raises:
        ValueError: If the network cannot read the inputs or give the output.
    """

    reads: tuple[int, ...] = (0, 1, 2)
    """At least one field has one of these numbers of node axes."""
    gives: tuple[int, ...] = (0, 1)
    """Numbers of node axes that an output may have."""

    def __init__(
        self, config: Any, inputs: Mapping[str, Representation], output: Representation, max_nodes: int, dimension: int | None
    ) -> None:
        super().__init__()
        self.inner = {name: _inner_shape(f"inputs[{name!r}]", axes, dimension) for name, axes in inputs.items()}
        self.output_inner = _inner_shape("output", output, dimension)
        if not {axes.count("n") for axes in inputs.values()} & set(self.reads):
            wanted = " or ".join(map(str, self.reads))
            given = {name: str(axes) for name, axes in inputs.items()}
            raise ValueError(f"inputs: {type(self).__name__} needs a field with {wanted} node axes ('n'), got {given}.")
        if output.count("n") not in self.gives:
            able = " and ".join(network.__name__ for network in BASE_NETWORKS.values() if output.count("n") in network.gives)
            raise ValueError(
                f"output: {type(self).__name__} gives {', '.join(map(str, self.gives))} node axes ('n'), got {str(output)!r}. "
                f"Use {able} for that."
            )
        self.config, self.inputs, self.output, self.max_nodes = config, dict(inputs), output, max_nodes
        self.widths = {name: prod(shape) for name, shape in self.inner.items()}
        self.output_width = prod(self.output_inner)
        self.build(config)

    def build(self, config: Any) -> None:
        """Make the layers, after `__init__` has checked inputs and output."""
        raise NotImplementedError

    def width_of(self, *node_axes: int) -> int:
        """Number of channels of all fields with these numbers of node axes."""
        return sum(width for name, width in self.widths.items() if self.inputs[name].count("n") in node_axes)

    def channels(self, fields: Mapping[str, Tensor], node_mask: Tensor) -> list[Tensor]:
        """Check fields and flatten what stands at each place of their node axes.

        Args:
            fields: Dense fields, leading shape `(batch, num_samples)`.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes, which come before padding.

        Returns:
            `list[torch.Tensor]`: `(batch, num_samples, *node axes, width)` for every field of `inputs` in order, zero on padding.
        """
        num_nodes = node_mask.shape[1]
        if num_nodes > self.max_nodes:
            raise ValueError(f"node_mask: expected at most max_nodes={self.max_nodes} nodes, got {num_nodes}.")
        if missing := sorted(set(self.inputs) - set(fields)):
            raise ValueError(f"fields: expected {', '.join(self.inputs)}, got no {missing[0]!r}.")
        result = []
        for name, axes in self.inputs.items():
            field, count = fields[name], axes.count("n")
            expected = (*[num_nodes] * count, *self.inner[name])
            if tuple(field.shape[2:]) != expected or field.shape[0] != node_mask.shape[0]:
                shape = ", ".join(map(str, (node_mask.shape[0], "num_samples", *expected)))
                raise ValueError(f"fields[{name!r}]: expected shape ({shape}) for {str(axes)!r}, got {tuple(field.shape)}.")
            field = field.reshape(*field.shape[: 2 + count], self.widths[name])
            if count:
                valid = node_mask if count == 1 else node_mask.unsqueeze(-1) & node_mask.unsqueeze(-2)
                field = field.masked_fill(~valid.unsqueeze(1).unsqueeze(-1), 0.0)
            result.append(field)
        return result

    def nodes_and_pairs(self, fields: Mapping[str, Tensor], node_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The channels of nodes, `(batch, num_samples, nodes, width_of(0, 1))`, and of pairs, `(…, nodes, nodes, width_of(2))`.

        What belongs to the whole input is given to every node.
        """
        channels = self.channels(fields, node_mask)
        lead, num_nodes = channels[0].shape[:2], node_mask.shape[1]
        nodes = [channels[0].new_zeros(*lead, num_nodes, 0)]
        pairs = [channels[0].new_zeros(*lead, num_nodes, num_nodes, 0)]
        for axes, field in zip(self.inputs.values(), channels, strict=True):
            if axes.count("n") == 2:
                pairs.append(field)
            else:
                nodes.append(field if axes.count("n") else field.unsqueeze(2).expand(-1, -1, num_nodes, -1))
        return torch.cat(nodes, dim=-1), torch.cat(pairs, dim=-1)

    def shape_output(self, result: Tensor) -> Tensor:
        """Give `(batch, num_samples, *node axes, output_width)` the axes of the output."""
        return result.reshape(*result.shape[:-1], *self.output_inner)

    def forward(self, fields: Mapping[str, Tensor], node_mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Apply f to every sample.

        Args:
            fields: Dense fields in rank order, leading shape `(batch, num_samples)`.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`): True on nodes, which come before padding.

        Returns:
            `torch.Tensor` of shape `(batch, num_samples, *axes of the output)`, meaningless on padding, and what the read-out
            reads: a tuple of one tensor of shape `(batch, num_samples, ..., hidden)`.

        Raises:
            ValueError: If a field is missing or has another shape, or there are more than `max_nodes` nodes.
        """
        raise NotImplementedError


class MLPBase(BaseNetwork):
    """MLP on all fields, padded to `max_nodes`, flattened and joined in the order of `inputs`."""

    gives = (0, 1, 2)

    def build(self, config: MLPBaseConfig) -> None:
        input_size = sum(self.widths[name] * self.max_nodes ** axes.count("n") for name, axes in self.inputs.items())
        sizes = [input_size, *config.hidden_sizes, self.output_width * self.max_nodes ** self.output.count("n")]
        self.layers = nn.ModuleList([nn.Linear(size, next_size) for size, next_size in pairwise(sizes)])
        self.activation = {"relu": torch.relu, "tanh": torch.tanh}[config.activation]

    def forward(self, fields: Mapping[str, Tensor], node_mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        num_nodes = node_mask.shape[1]
        padding = (0, self.max_nodes - num_nodes)
        parts = [F.pad(field, (0, 0, *padding * (field.dim() - 3))).flatten(2) for field in self.channels(fields, node_mask)]
        hidden = torch.cat(parts, dim=-1)
        *layers, last = self.layers
        for layer in layers:
            hidden = self.activation(layer(hidden))
        count = self.output.count("n")
        result = last(hidden).unflatten(-1, (*[self.max_nodes] * count, self.output_width))
        for dim in range(2, 2 + count):
            result = result.narrow(dim, 0, num_nodes)
        return self.shape_output(result), (hidden,)


class GINIDBase(BaseNetwork):
    """Graph isomorphism network whose nodes carry their rank r as the one-hot vector e_r of length `max_nodes`.

    The first channel of the pairs is the adjacency matrix, [source, target]; every further one adds a weighted sum of its own.
    Batch norm leaves padding out. Outputs without a node axis are read from the mean over nodes.
    """

    reads = (2,)

    def build(self, config: GINIDBaseConfig) -> None:
        self.num_relations = self.width_of(2)
        sizes = [self.width_of(0, 1) + self.max_nodes] + [config.hidden_size] * (config.num_layers - 1)
        self.layers = nn.ModuleList([GINLayer(size * self.num_relations, config.hidden_size, config.dropout) for size in sizes])
        self.readout = nn.Linear(config.hidden_size, self.output_width)

    def forward(self, fields: Mapping[str, Tensor], node_mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        nodes, pairs = self.nodes_and_pairs(fields, node_mask)
        # Every layer multiplies by the weights of edges, so that what is no large number elsewhere overflows here.
        check_finite("fields with one node axis", nodes, largest=1e6)
        check_finite("fields with two node axes", pairs, largest=1e9)
        num_nodes = node_mask.shape[1]
        identifiers = torch.eye(num_nodes, self.max_nodes, dtype=nodes.dtype, device=nodes.device)
        hidden = torch.cat([nodes, identifiers.expand(*nodes.shape[:2], -1, -1)], dim=-1)
        # (batch, num_samples, relations * targets, sources), zero where padding is a source: one product serves all relations.
        adjacency = pairs.permute(0, 1, 4, 3, 2).flatten(2, 3)
        for layer in self.layers:
            sums = (adjacency @ hidden).unflatten(2, (self.num_relations, num_nodes))
            messages = sums.permute(0, 3, 1, 2, 4).flatten(3)
            own = F.pad(hidden.transpose(1, 2), (0, messages.shape[-1] - hidden.shape[-1]))
            hidden = layer(own, messages, node_mask).transpose(1, 2)
        if self.output.count("n") == 0:
            hidden = _masked_mean(hidden, node_mask)
        return self.shape_output(self.readout(hidden)), (hidden,)


class PreNormBlock(nn.Module):
    """A transformer block, norm first: attention, then an MLP with GELU."""

    def __init__(self, config: PairTransformerBaseConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_norm = nn.LayerNorm(size)
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.attention_out = nn.Linear(size, size)
        self.mlp_norm = nn.LayerNorm(size)
        self.mlp_in = nn.Linear(size, config.intermediate_size)
        self.mlp_out = nn.Linear(config.intermediate_size, size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None, step: int = 1) -> Tensor:
        """Update every `step`-th token.

        Args:
            hidden (`torch.Tensor` of shape `(batch, tokens, size)`): All tokens.
            mask (`torch.Tensor` of shape `(batch, 1, 1, tokens)`, *optional*): True on tokens to attend to.
            step: Distance of the tokens that are updated.

        Returns:
            `torch.Tensor` of shape `(batch, updated tokens, size)`.
        """
        normed = self.attention_norm(hidden)
        query, key, value = (
            layer(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, normed[:, ::step]), (self.key, normed), (self.value, normed))
        )
        dropout = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        hidden = hidden[:, ::step] + self.dropout(self.attention_out(attended.transpose(1, 2).flatten(2)))
        inner = self.dropout(F.gelu(self.mlp_in(self.mlp_norm(hidden))))
        return hidden + self.dropout(self.mlp_out(inner))


class PairTransformerBase(BaseNetwork):
    """Transformer with one token for every ordered pair of nodes, the paper's base function for n-body systems.

    Token (i, j) has the channels of the pair, those of the whole input, and on the diagonal those of node i, in the order of
    `inputs`, and a learned position encoding. Outputs with one node axis are read from the diagonal, with two from all tokens,
    without from their mean.
    """

    reads = (1, 2)
    gives = (0, 1, 2)

    def build(self, config: PairTransformerBaseConfig) -> None:
        size = config.hidden_size
        self.projection = nn.Linear(self.width_of(0, 1, 2), size)
        self.positions = nn.Embedding(self.max_nodes**2, size)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.blocks = nn.ModuleList([PreNormBlock(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(size)
        self.readout_in = nn.Linear(size, size)
        self.readout_out = nn.Linear(size, self.output_width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, fields: Mapping[str, Tensor], node_mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        num_nodes, count = node_mask.shape[1], self.output.count("n")
        tokens = self.projection(self.pair_channels(fields, node_mask))
        place = torch.arange(num_nodes, device=tokens.device)
        positions = self.positions(place.unsqueeze(-1) * self.max_nodes + place)
        hidden = self.dropout(tokens + positions).flatten(0, 1).flatten(1, 2)
        pair_mask = (node_mask.unsqueeze(-1) & node_mask.unsqueeze(-2)).flatten(1)
        mask = None
        # Without padding there is nothing to hide; but looking for it would make an accelerator wait.
        can_look = node_mask.device.type == "cpu" and not torch.compiler.is_compiling()
        if not (can_look and bool(node_mask.all())):
            mask = pair_mask.unsqueeze(1).expand(-1, tokens.shape[1], -1).flatten(0, 1)[:, None, None]
        *blocks, last = self.blocks
        for block in blocks:
            hidden = block(hidden, mask)
        # In the row-major order of pairs every (nodes + 1)-th is on the diagonal; the last block updates what is read only.
        hidden = self.norm(last(hidden, mask, step=num_nodes + 1 if count == 1 else 1)).unflatten(0, tokens.shape[:2])
        if count == 0:
            hidden = _masked_mean(hidden, pair_mask)
        inner = self.readout_in(self.dropout(hidden.relu()))
        result = self.readout_out(self.dropout(inner.relu()))
        if count == 2:
            result = result.unflatten(2, (num_nodes, num_nodes))
        return self.shape_output(result), (hidden,)

    def pair_channels(self, fields: Mapping[str, Tensor], node_mask: Tensor) -> Tensor:
        """All fields as channels of pairs, (batch, num_samples, nodes, nodes, channels)."""
        num_nodes = node_mask.shape[1]
        parts = []
        for axes, field in zip(self.inputs.values(), self.channels(fields, node_mask), strict=True):
            if axes.count("n") == 0:
                field = field[:, :, None, None].expand(-1, -1, num_nodes, num_nodes, -1)
            elif axes.count("n") == 1:
                field = torch.diag_embed(field.mT).movedim(2, -1)
            parts.append(field)
        return torch.cat(parts, dim=-1)


class PairLinear(nn.Linear):
    """A linear layer on [h_i, h_j, e_ij] for all pairs of nodes.

    A linear map of a concatenation is a sum of linear maps: those of the nodes are computed once per node, not per pair.
    """

    def forward(self, hidden: Tensor, pairs: Tensor) -> Tensor:  # type: ignore[override]
        """Map nodes (..., nodes, hidden) and pairs (..., nodes, nodes, channels) to (..., nodes, nodes, out_features)."""
        receiver, sender, pair = self.weight.split((hidden.shape[-1], hidden.shape[-1], pairs.shape[-1]), dim=1)
        mapped = F.linear(pairs, pair, self.bias)
        return mapped + F.linear(hidden, receiver).unsqueeze(-2) + F.linear(hidden, sender).unsqueeze(-3)


class ParticleGNNLayer(nn.Module):
    """One round of messages between all particles: h_i ← MLP(h_i, Σ_{j≠i} MLP(h_i, h_j, e_ij)), with SiLU."""

    def __init__(self, hidden_size: int, pair_width: int) -> None:
        super().__init__()
        self.message_in = PairLinear(2 * hidden_size + pair_width, hidden_size)
        self.message_out = nn.Linear(hidden_size, hidden_size)
        self.update_in = nn.Linear(2 * hidden_size, hidden_size)
        self.update_out = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, pairs: Tensor, ignored: Tensor) -> Tensor:
        """Update the nodes.

        Args:
            hidden (`torch.Tensor` of shape `(batch, num_samples, nodes, hidden)`): Nodes.
            pairs (`torch.Tensor` of shape `(batch, num_samples, nodes, nodes, channels)`): e_ij, receiver first.
            ignored (`torch.Tensor` of shape `(batch, 1, nodes, nodes, 1)`): True where j sends nothing to i.
        """
        messages = self.message_in(hidden, pairs)
        messages = F.silu(self.message_out(F.silu(messages))).masked_fill(ignored, 0.0).sum(dim=3)
        return self.update_out(F.silu(self.update_in(torch.cat([hidden, messages], dim=-1))))


class ParticleGNNBase(BaseNetwork):
    """Message passing between all particles, the paper's base function for n-body systems.

    It does not see the order of the particles, but directions. Pairs [i, i] are not read. Outputs without a node axis are read
    from the mean over nodes.
    """

    reads = (1,)

    def build(self, config: ParticleGNNBaseConfig) -> None:
        size = config.hidden_size
        self.embedding = nn.Linear(self.width_of(0, 1), size)
        self.layers = nn.ModuleList([ParticleGNNLayer(size, self.width_of(2)) for _ in range(config.num_hidden_layers)])
        self.readout_in = nn.Linear(size, size)
        self.readout_out = nn.Linear(size, self.output_width)

    def forward(self, fields: Mapping[str, Tensor], node_mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        nodes, pairs = self.nodes_and_pairs(fields, node_mask)
        itself = torch.eye(node_mask.shape[1], dtype=torch.bool, device=node_mask.device)
        ignored = (~node_mask.unsqueeze(1) | itself)[:, None, :, :, None]
        hidden = self.embedding(nodes)
        for layer in self.layers:
            hidden = layer(hidden, pairs, ignored)
        if self.output.count("n") == 0:
            hidden = _masked_mean(hidden, node_mask)
        return self.shape_output(self.readout_out(F.silu(self.readout_in(hidden)))), (hidden,)


BASE_NETWORKS: dict[str, type[BaseNetwork]] = {
    "lps_mlp": MLPBase,
    "lps_gin_id": GINIDBase,
    "lps_pair_transformer": PairTransformerBase,
    "lps_particle_gnn": ParticleGNNBase,
}
"""Networks by the `model_type` of their configuration."""


def _inner_shape(argument: str, representation: Representation, dimension: int | None) -> tuple[int, ...]:
    """Lengths of the axes behind the node axes, checked."""
    count = representation.count("n")
    if count > 2 or representation.axes[:count] != ("n",) * count or representation.letters - {"n", "v", "p"}:
        raise ValueError(
            f"{argument}: expected up to two node axes, then channels, a vector or a point, as in 'n n 3', 'n p' or '10', "
            f"got {str(representation)!r}."
        )
    if representation.letters & {"v", "p"} and dimension is None:
        raise ValueError(f"dimension: expected a number for the axes {str(representation)!r} of {argument}, got None.")
    return tuple(axis if isinstance(axis, int) else dimension or 1 for axis in representation.axes[count:])


def _masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of (batch, num_samples, places, channels) over the places where `mask` (batch, places) is true."""
    weights = mask.to(hidden.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("bp,bkpc->bkc", weights, hidden)
