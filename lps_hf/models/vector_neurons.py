"""The O(d)- and S_n-equivariant interface q(x, ε) for vectors: a vector-neuron DGCNN (Deng et al. 2021, arXiv 2104.12229).

Features are lists of vectors, `(..., d, channels)`. Linear maps mix the channels and leave the axis d alone, nonlinearities
are built from inner products: whatever turns the input vectors turns all features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .interface_networks import SMALLEST_TOLERANCE, MaskedBatchNorm, ScoreHead
from .permutations import gather_rows, inverse, sort_nodes

NEGATIVE_SLOPE = 0.2
EPSILON = 1e-6  # added to lengths and squared lengths before dividing by them; trained weights depend on it


def prefer_first(
    values: Tensor, position: Tensor, valid: Tensor, dim: int, tolerance: Tensor, scale: Tensor, count: int = 1
) -> Tensor:
    """Prepare values for the choice of the largest ones: among equal ones, those of the first positions are to win.

    In symmetric systems equal values belong to different vectors, and after a rotation they are equal only up to rounding. So
    what cannot be told from the last value that is chosen is chosen by its position, and nothing else is.

    Args:
        values (`torch.Tensor` of shape `(batch, ...)`): What is compared along `dim`.
        position (`torch.Tensor`, broadcastable to `values`): Numbers in [0, 1).
        valid (`torch.Tensor`, bool, broadcastable to `values`): False on what must not be chosen.
        dim: The axis of the choice.
        tolerance (`torch.Tensor` of shape `(batch,)`): Differences relative to the largest scale that are none.
        scale (`torch.Tensor`, broadcastable to `values`): Their size before terms cancel.
        count: How many are chosen.

    Returns:
        `torch.Tensor`: Same shape as `values`, to be sorted; minus infinity on what cannot be chosen.
    """
    values = values.masked_fill(~valid, -torch.inf)
    last = values.amax(dim=dim, keepdim=True)
    if count > 1:
        last = values.topk(count, dim=dim).values.narrow(dim, count - 1, 1)
    largest = scale.masked_fill(~valid, 0.0).amax(dim=dim, keepdim=True)
    margin = tolerance.to(values.dtype).view(-1, *[1] * (values.dim() - 1)) * largest
    keys = torch.where(values > last + margin, 2 - position, -position)
    return keys.masked_fill(~valid | (values < last - margin), -torch.inf)


def nudge_to_first(values: Tensor, position: Tensor, valid: Tensor, dim: int) -> Tensor:
    """What `prefer_first` does where noise leaves no ties but by rounding: in one step, and cheaply.

    Args:
        values (`torch.Tensor`): As for `prefer_first`, as the following.
        position: See there.
        valid: See there.
        dim: See there.
    """
    margin = max(4 * torch.finfo(values.dtype).eps, SMALLEST_TOLERANCE)
    largest = values.abs().masked_fill(~valid, 0.0).amax(dim=dim, keepdim=True)
    return (values - margin * largest * position).masked_fill(~valid, -torch.inf)


def vector_length(vectors: Tensor) -> Tensor:
    """Lengths of vectors (..., d, channels), (..., channels). The gradient of a zero vector's length is zero.

    `torch.linalg.vector_norm` takes twenty times as long along an axis that is not the last.
    """
    squared = vectors.square().sum(dim=-2)
    is_zero = squared == 0
    return squared.masked_fill(is_zero, 1.0).sqrt().masked_fill(is_zero, 0.0)


class FixedLinear(nn.Linear):
    """A random square linear map whose weight is a buffer: saved with the model and never trained.

    The directions of the published max pools stay as they were drawn, for an argmax passes no gradient to what it compares. A
    parameter without gradient would stop distributed training and count as trainable.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, bias=False)
        weight = self.weight.detach()
        del self.weight
        self.register_buffer("weight", weight)


class VectorMaxPool(nn.Module):
    """Channel by channel, choose the vector that is largest along its direction: argmax ⟨x, W x⟩."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.direction = FixedLinear(channels)

    def forward(self, vectors: Tensor, position: Tensor, valid: Tensor, tolerance: Tensor | None = None) -> Tensor:
        """Pool vectors (..., candidates, d, channels) to (..., d, channels); `position` and `valid` are (..., candidates)."""
        with torch.no_grad():
            direction = self.direction(vectors)
            lengths = (vectors * direction).sum(dim=-2)
            choice = lengths, position.unsqueeze(-1), valid.unsqueeze(-1), -2
            if tolerance is None:
                lengths = nudge_to_first(*choice)
            else:
                # Linear maps mix the channels, so that short vectors have the error of long ones.
                here, there = vector_length(vectors), vector_length(direction)
                scale = here.amax(dim=-1, keepdim=True) * there + here * there.amax(dim=-1, keepdim=True)
                lengths = prefer_first(*choice, tolerance, scale=scale)
            # Not argmax, which takes eight times as long along an axis that is not the last.
            chosen = lengths.max(dim=-2, keepdim=True).indices.unsqueeze(-2)
        return vectors.gather(-3, chosen.expand(*chosen.shape[:-2], *vectors.shape[-2:])).squeeze(-3)


class VectorNeuronLayer(nn.Module):
    """Linear map, batch normalisation of the lengths and leaky ReLU along learned directions.

    Args:
        input_channels: Vectors per row.
        channels: Vectors per row afterwards.
        shared_direction: One direction for all channels.
    """

    def __init__(self, input_channels: int, channels: int, shared_direction: bool = False) -> None:
        super().__init__()
        self.feature = nn.Linear(input_channels, channels, bias=False)
        self.norm = MaskedBatchNorm(channels)
        self.direction = nn.Linear(input_channels, 1 if shared_direction else channels, bias=False)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Update vectors.

        Args:
            vectors (`torch.Tensor` of shape `(batch, num_samples, rows, d, input_channels)`): Rows are nodes or edges.
            mask (`torch.Tensor` of shape `(batch, rows)`): True where the row counts.

        Returns:
            `torch.Tensor` of shape `(batch, num_samples, rows, d, channels)`.
        """
        feature, direction = self.feature(vectors), self.direction(vectors)
        length = vector_length(feature)
        wanted = self.norm((length + EPSILON).transpose(1, 2), mask).transpose(1, 2)
        # Zero vectors have no direction, and dividing by ε would multiply their gradients by a million in every layer.
        scale = (wanted / (length + EPSILON)).masked_fill(length == 0, 0.0)
        feature = feature * scale.unsqueeze(-2)
        # What points against the direction is cut off, but for the slope.
        against = F.relu(-(feature * direction).sum(dim=-2, keepdim=True))
        return feature + (1 - NEGATIVE_SLOPE) * against / (direction.square().sum(dim=-2, keepdim=True) + EPSILON) * direction


class VectorEdgeConvolution(nn.Module):
    """Edge convolution: every node pools a `VectorNeuronLayer` of [x_j - x_i, x_i] over its nearest neighbours j.

    Neighbours are nearest in the features that come in, and a node is its own neighbour, as published.
    """

    def __init__(self, input_channels: int, channels: int, num_neighbors: int) -> None:
        super().__init__()
        self.num_neighbors = num_neighbors
        self.layer = VectorNeuronLayer(2 * input_channels, channels)
        self.pool = VectorMaxPool(channels)

    def forward(self, vectors: Tensor, mask: Tensor, tolerance: Tensor | None = None) -> Tensor:
        """Update vectors (batch, num_samples, nodes, d, channels) with mask (batch, nodes); padding comes last.

        `tolerance` (batch,) is as for `prefer_first`; `None` where noise leaves no ties.
        """
        nodes = vectors.shape[2]
        size = mask.sum(dim=1).clamp(min=1).view(-1, 1, 1, 1)
        with torch.no_grad():
            points = vectors.flatten(3)
            # Not by matrix products: they lose the distances between nodes that are far from the origin.
            if torch.compiler.is_exporting():  # ONNX knows no distances
                distance = (points.unsqueeze(-2) - points.unsqueeze(-3)).square().sum(dim=-1).sqrt()
            else:
                distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
            place = torch.arange(nodes, device=mask.device)
            choice, count = (-distance, place / size, mask[:, None, None], -1), min(self.num_neighbors, nodes)
            if tolerance is None:
                nearness = nudge_to_first(*choice)
            else:
                length = torch.linalg.vector_norm(points, dim=-1).unsqueeze(-2)
                nearness = prefer_first(*choice, tolerance, scale=length, count=count)
            neighbors = nearness.topk(count, dim=-1).indices
        # Systems smaller than the number of neighbours leave the last places empty: the same ones for all nodes.
        filled = torch.arange(neighbors.shape[-1], device=mask.device) < size
        place = neighbors.flatten(2)[..., None, None].expand(-1, -1, -1, *vectors.shape[3:])
        neighbor = vectors.gather(2, place).unflatten(2, neighbors.shape[2:])
        center = vectors.unsqueeze(3).expand_as(neighbor)
        edges = torch.cat([neighbor - center, center], dim=-1).flatten(2, 3)
        edges = self.layer(edges, (filled.squeeze(1) & mask.unsqueeze(-1)).flatten(1))
        return self.pool(edges.unflatten(2, neighbors.shape[2:]), neighbors / size, filled, tolerance)


class VectorScoreHead(nn.Module):
    """O(d)-invariant scores of the nodes: a `VectorNeuronLayer`, then inner products with d vectors learned at every node.

    The products xᵀz of the node's last features joined with their mean over the nodes are pooled by their maximum over the
    nodes; those of the features of all edge convolutions stay with the node. A linear map reads both.
    """

    def __init__(self, channels: int, num_convolutions: int, dimension: int, dropout: float) -> None:
        super().__init__()
        self.joint = VectorNeuronLayer(num_convolutions * channels, channels, shared_direction=True)
        narrow = max(1, channels // 2)
        self.invariant_in = VectorNeuronLayer(2 * channels, channels)
        self.invariant_hidden = VectorNeuronLayer(channels, narrow)
        self.invariant_out = nn.Linear(narrow, dimension, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.linear = ScoreHead((2 + num_convolutions) * channels * dimension)

    def forward(self, local: Tensor, mask: Tensor) -> Tensor:
        """Score nodes (batch, num_samples, nodes) from the features of all convolutions (..., d, channels)."""
        joint, valid = self.joint(local, mask), mask[:, None, :, None]
        size = mask.sum(dim=1).clamp(min=1).view(-1, 1, 1, 1, 1)
        mean = joint.masked_fill(~valid.unsqueeze(-1), 0.0).sum(dim=2, keepdim=True) / size
        joint = torch.cat([joint, mean.expand_as(joint)], dim=-1)
        frame = self.invariant_out(self.invariant_hidden(self.invariant_in(joint, mask), mask))
        pooled = (joint.mT @ frame).flatten(3).masked_fill(~valid, -torch.inf).amax(dim=2, keepdim=True)
        pooled = pooled.masked_fill(pooled.isneginf(), 0.0)  # systems without nodes
        own = (local.mT @ frame).flatten(3)
        invariants = torch.cat([pooled.expand(-1, -1, own.shape[2], -1), own], dim=-1)
        return self.linear(self.dropout(invariants)).squeeze(-1)


class VectorFrameHead(nn.Module):
    """d vectors for the whole system: a `VectorMaxPool` over the nodes, then a linear map of the channels."""

    def __init__(self, channels: int, dimension: int, dropout: float) -> None:
        super().__init__()
        self.pool = VectorMaxPool(channels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, dimension, bias=False)

    def forward(self, vectors: Tensor, mask: Tensor, tolerance: Tensor | None = None) -> Tensor:
        """Read the frame (batch, num_samples, d, d) off vectors (batch, num_samples, nodes, d, channels); see `prefer_first`."""
        position = torch.arange(mask.shape[1], device=mask.device) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        pooled = self.pool(vectors, position.unsqueeze(1), mask.unsqueeze(1), tolerance)
        # Whole vectors are dropped: single coordinates would break the equivariance.
        return self.linear(pooled * self.dropout(torch.ones_like(pooled[..., :1, :])))


class VectorNeuronInterface(nn.Module):
    """The S_n × O(d)-equivariant network of the paper: a vector-neuron DGCNN with an invariant and an equivariant head.

    `num_layers - 1` edge convolutions are followed by the layer that joins their features for the scores. The frame is read
    after the first convolution, as published; without `node_scores` the network ends there. Only what serves the heads asked
    for exists.

    Args:
        num_vectors: Vectors per node, such as 2 for position and velocity.
        dimension: d, at least 2.
        hidden_size: Numbers per node in the hidden layers: `hidden_size // dimension` vectors, and no fewer than d, for from
            fewer the frame's d vectors would always be dependent.
        num_layers: At least 2, see above.
        num_neighbors: Neighbours of every node, itself counted.
        dropout: Dropout of what the heads read, in training: of the invariants, and of whole vectors.
        node_scores: Whether there is a score for every node.
        frame: Whether there are d vectors for the whole system.

    Raises:
        ValueError: If a size is too small, `dropout` is not in [0, 1), or no head is asked for.
    """

    def __init__(
        self,
        num_vectors: int,
        dimension: int = 3,
        hidden_size: int = 64,
        num_layers: int = 3,
        num_neighbors: int = 4,
        dropout: float = 0.0,
        node_scores: bool = True,
        frame: bool = True,
    ) -> None:
        super().__init__()
        smallest = {"num_vectors": 1, "dimension": 2, "hidden_size": 1, "num_layers": 2, "num_neighbors": 1}
        given = (num_vectors, dimension, hidden_size, num_layers, num_neighbors)
        for (name, least), value in zip(smallest.items(), given, strict=True):
            if value < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {value}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a number in [0, 1), got {dropout}.")
        if not (node_scores or frame):
            raise ValueError("node_scores, frame: expected at least one True, got two False. A network without heads is no use.")
        self.num_vectors, self.dimension = num_vectors, dimension
        channels = max(hidden_size // dimension, dimension)
        inputs = [num_vectors] + [channels] * (num_layers - 2 if node_scores else 0)
        self.convolutions = nn.ModuleList([VectorEdgeConvolution(size, channels, num_neighbors) for size in inputs])
        self.score_head = VectorScoreHead(channels, len(inputs), dimension, dropout) if node_scores else None
        self.frame_head = VectorFrameHead(channels, dimension, dropout) if frame else None

    def forward(
        self, vectors: Tensor, node_mask: Tensor, ties: Tensor | None = None, tolerance: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Score the nodes and read the frame.

        Args:
            vectors (`torch.Tensor` of shape `(batch, num_samples, nodes, d, num_vectors)`): Centred positions, velocities, …
                with noise added.
            node_mask (`torch.Tensor` of shape `(batch, nodes)`, bool): True on nodes.
            ties (`torch.Tensor` of shape `(batch, num_samples, nodes)`): Random numbers that decide between nodes which are
                equally near or equally long; they move with the nodes. Without, the stored order decides, and symmetric
                systems depend on it.
            tolerance (`torch.Tensor` of shape `(batch,)`): Relative differences with which vectors are still equally near or
                equally long. Default: by their type, which is enough where noise leaves no ties.

        Returns:
            Scores (`torch.Tensor` of shape `(batch, num_samples, nodes)`): O(d)-invariant and S_n-equivariant, in double
            precision; meaningless on padding. `None` without `node_scores`.
            Frame (`torch.Tensor` of shape `(batch, num_samples, d, d)`): Its columns are d vectors, O(d)-equivariant and
            S_n-invariant. `None` without `frame`.

        Raises:
            ValueError: If a shape does not fit.
        """
        self._check_shapes(vectors, node_mask, ties)
        # From here on nodes are in the order of the ties, padding last: whatever is chosen among them, how sums are rounded and
        # where padding stood cannot depend on the stored order.
        order = sort_nodes(vectors.new_zeros(vectors.shape[:3]) if ties is None else ties, node_mask)
        mask = torch.arange(vectors.shape[2], device=node_mask.device) < node_mask.sum(dim=1, keepdim=True)
        hidden = gather_rows(vectors.flatten(3), order).unflatten(3, vectors.shape[3:])
        hidden = hidden.masked_fill(~mask[:, None, :, None, None], 0.0)
        features = []
        for convolution in self.convolutions:
            hidden = convolution(hidden, mask, tolerance)
            features.append(hidden)
        scores = frame = None
        if self.score_head is not None:
            scores = self.score_head(torch.cat(features, dim=-1), mask).gather(-1, inverse(order))
        if self.frame_head is not None:
            frame = self.frame_head(features[0], mask, tolerance)
        return scores, frame

    def _check_shapes(self, vectors: Tensor, node_mask: Tensor, ties: Tensor | None) -> None:
        last = (self.dimension, self.num_vectors)
        if vectors.dim() != 5 or vectors.shape[3:] != last or vectors.shape[2] == 0:
            raise ValueError(
                f"vectors: expected shape (batch, num_samples, nodes, {last[0]}, {last[1]}) with at least one node, got "
                f"{tuple(vectors.shape)}. The network was made for dimension={last[0]} and num_vectors={last[1]}."
            )
        if node_mask.shape != (vectors.shape[0], vectors.shape[2]) or node_mask.dtype != torch.bool:
            raise ValueError(
                f"node_mask: expected bool of shape {(vectors.shape[0], vectors.shape[2])}, the batch and nodes of vectors, got "
                f"{node_mask.dtype} of shape {tuple(node_mask.shape)}."
            )
        if ties is not None and ties.shape != vectors.shape[:3]:
            raise ValueError(f"ties: expected shape {tuple(vectors.shape[:3])}, one for every node, got {tuple(ties.shape)}.")
