"""Fields to backbone tokens and back, on a grid of t × t tokens (section 3.2 and appendix of arXiv 2306.02866).

A field with two node axes is an image of n_max × n_max pixels, cut into patches; one with one node axis is a sequence, cut
likewise; one without is added to all tokens. Sizes that the grid does not divide are padded with zeros or copies.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import initialization as init

from .representations import EdgeField, Field, Representation
from .soft_permutations import SoftPermutation, pull_back_matrix
from .sparse import SparseMatrix

# A matrix product with a dense image takes about as long per pixel as one with a sparse image per 1/16 entry.
DENSE_SIZE_PER_ENTRY = 16


def padding_sources(size: int, padded_size: int, mode: str, centered: bool) -> Tensor:
    """For every place of a padded axis, the place of the axis that it copies, or -1 for a zero.

    Args:
        size: Length of the axis.
        padded_size: Length after padding, at least `size`.
        mode: `"zero"`, `"reflect"`, `"replicate"` or `"circular"`. Padding longer than the axis repeats the pattern.
        centered: Pad on both sides (the smaller half first) instead of at the end.

    Returns:
        `torch.Tensor` of shape `(padded_size,)` int64.

    Raises:
        ValueError: If `mode` is none of these.
    """
    # On the CPU also while a model is built on the meta device: the number of copies below depends on the values.
    place = torch.arange(padded_size, device="cpu") - ((padded_size - size) // 2 if centered else 0)
    if mode == "zero":
        return torch.where((place >= 0) & (place < size), place, -1)
    if mode == "replicate":
        return place.clamp(0, size - 1)
    if mode == "circular":
        return place % size
    if mode != "reflect":
        raise ValueError(f"mode: expected 'zero', 'reflect', 'replicate' or 'circular', got {mode!r}.")
    period = max(2 * (size - 1), 1)
    place = place % period
    return torch.minimum(place, period - place) if size > 1 else torch.zeros_like(place)


def copies_of_each(sources: Tensor, size: int) -> Tensor:
    """Invert `padding_sources`: all padded places of each place, (size, most copies), filled up with -1."""
    places = [(sources == place).nonzero().flatten() for place in range(size)]
    return nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1)


class _StraightThroughPatches(torch.autograd.Function):
    """The identity on tokens made of PᵀAP, whose backward pass also hands the gradient with respect to P to the soft matrix."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, projection: "PairProjection", weight: Tensor, *others: Tensor) -> Tensor:
        ctx.projection = projection
        ctx.save_for_backward(weight, *others)
        return tokens.view_as(tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, values, graph, channel, ends, rank, *soft = ctx.saved_tensors
        gradients = []
        # One sample at a time: the gradient of an image is dense.
        for sample, ranks in enumerate(rank.unbind(1)):
            pixels = ctx.projection.pixel_gradient(gradient[:, sample], weight, ranks.shape[-1])
            source, target = (ranks[graph, end] for end in ends)
            to_permutation = _permutation_gradient(pixels, values, graph, source, target, channel)
            here = SoftPermutation(*(vector[:, sample : sample + 1] for vector in soft))
            gradients.append(pull_back_matrix(here, to_permutation.unsqueeze(1)))
        to_soft = [torch.cat(parts, dim=1) for parts in zip(*gradients, strict=True)]
        return gradient, None, *[None] * 6, *to_soft, *[None] * (len(soft) - len(to_soft))


def _permutation_gradient(
    pixels: Tensor, values: Tensor, graph: Tensor, source: Tensor, target: Tensor, channel: Tensor
) -> Tensor:
    """Gradient of a function of Y = PᵀAP with respect to P, from its gradient G: Y Gᵀ + Yᵀ G, summed over channels.

    Args:
        pixels (`torch.Tensor` of shape `(batch, ranks, ranks, channels)`): G.
        values (`torch.Tensor` of shape `(entries,)`): The entries of Y.
        graph (`torch.Tensor` of shape `(entries,)`): The graph of each entry.
        source (`torch.Tensor` of shape `(entries,)`): Its row.
        target (`torch.Tensor` of shape `(entries,)`): Its column.
        channel (`torch.Tensor` of shape `(entries,)`): Its channel.

    Returns:
        `torch.Tensor` of shape `(batch, ranks, ranks)`: Rows, which belong to nodes, are counted by their ranks too.
    """
    batch, ranks, _, channels = pixels.shape
    shape = (batch * ranks, batch * ranks * channels)
    source, target = graph * ranks + source, graph * ranks + target
    by_row = SparseMatrix(source, target * channels + channel, values, shape)
    by_column = SparseMatrix(target, source * channels + channel, values, shape)
    seen_by_row = pixels.permute(0, 2, 3, 1).reshape(-1, ranks)
    seen_by_column = pixels.transpose(2, 3).reshape(-1, ranks)
    return (by_row @ seen_by_row + by_column @ seen_by_column).view(batch, ranks, ranks)


class PaddedAxis(nn.Module):
    """The padding of a node axis to a multiple of the patch: shared by the projections and read-outs below."""

    def __init__(self, max_nodes: int, num_patches: int, mode: str, centered: bool) -> None:
        super().__init__()
        self.max_nodes, self.num_patches, self.mode, self.centered = max_nodes, num_patches, mode, centered
        self.patch_size = -(-max_nodes // num_patches)
        self.register_buffer("sources", self.make_sources(), persistent=False)

    def make_sources(self) -> Tensor:
        """What the buffer holds; loading a checkpoint calls it again, because it is not stored."""
        return padding_sources(self.max_nodes, self.num_patches * self.patch_size, self.mode, self.centered)

    def pad(self, tensor: Tensor, dim: int) -> Tensor:
        """Bring axis `dim` (ranks, any length) to `max_nodes` and pad it to `num_patches * patch_size`."""
        tensor = resize_axis(tensor, dim, self.max_nodes)
        padded = tensor.index_select(dim, self.sources.clamp(min=0))
        shape = [-1 if axis == dim % tensor.dim() else 1 for axis in range(tensor.dim())]
        return padded * (self.sources >= 0).view(shape).to(padded.dtype)

    def crop(self, tensor: Tensor, dim: int) -> Tensor:
        """Cut axis `dim` from `num_patches * patch_size` back to `max_nodes`."""
        pad = self.num_patches * self.patch_size - self.max_nodes
        return tensor.narrow(dim, pad // 2 if self.centered else 0, self.max_nodes)


def resize_axis(tensor: Tensor, dim: int, size: int) -> Tensor:
    """Crop an axis, or fill it up with zeros."""
    missing = size - tensor.shape[dim]
    if missing <= 0:
        return tensor.narrow(dim, 0, size)
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)


class InvariantProjection(nn.Module):
    """Tokens from "c": a linear layer, the same for every token."""

    def __init__(self, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, hidden_size)

    def forward(self, field: Tensor) -> Tensor:
        """Project (batch, num_samples, channels) to (batch, num_samples, 1, hidden), to be broadcast over tokens."""
        return self.linear(field).unsqueeze(2)


class NodeProjection(nn.Module):
    """Tokens from "n c": a convolution along the node axis whose kernel is its stride."""

    def __init__(self, channels: int, hidden_size: int, max_nodes: int, grid_size: int, mode: str, centered: bool) -> None:
        super().__init__()
        self.axis = PaddedAxis(max_nodes, grid_size**2, mode, centered)
        self.conv = nn.Conv1d(channels, hidden_size, self.axis.patch_size, stride=self.axis.patch_size)

    def forward(self, field: Tensor) -> Tensor:
        """Project (batch, num_samples, ranks, channels) to (batch, num_samples, tokens, hidden)."""
        padded = self.axis.pad(field, dim=2).to(self.conv.weight.dtype)
        return self.conv(padded.flatten(0, 1).transpose(1, 2)).transpose(1, 2).unflatten(0, field.shape[:2])


class PairProjection(nn.Module):
    """Tokens from "n n c": a patch embedding with c channels, on dense tensors or, equal to it and cheaper, on edge lists.

    Every entry of an edge list adds one row of the weight to one token, so that the image is made only where that is cheaper.
    The weight (channels, patch, patch, hidden) holds these rows in one piece; a convolution's would have them scattered.
    """

    def __init__(self, channels: int, hidden_size: int, max_nodes: int, grid_size: int, mode: str, centered: bool) -> None:
        super().__init__()
        self.axis = PaddedAxis(max_nodes, grid_size, mode, centered)
        self.channels, self.grid_size, self.patch_size = channels, grid_size, self.axis.patch_size
        self.weight = nn.Parameter(torch.empty(channels, self.patch_size, self.patch_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(hidden_size))
        copies = self.make_copies()
        self.has_gaps = bool((copies < 0).any())
        self.register_buffer("copies", copies, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters as a convolution's are by default."""
        bound = 1 / math.sqrt(self.channels * self.patch_size**2)
        init.uniform_(self.weight, -bound, bound)
        init.uniform_(self.bias, -bound, bound)

    def make_copies(self) -> Tensor:
        """Padded places of each node place; not stored, so made again when a checkpoint is loaded."""
        return copies_of_each(self.axis.make_sources(), self.axis.max_nodes)

    def forward(self, field: Field) -> Tensor:
        """Project an `EdgeField`, or (batch, num_samples, ranks, ranks, channels), to (batch, num_samples, tokens, hidden)."""
        if isinstance(field, EdgeField):
            # Sparse products exist in single and double precision only, and sums over many edges want it.
            with torch.autocast(self.weight.device.type, enabled=False):
                tokens = self._project_edges(field, self.weight.to(torch.promote_types(self.weight.dtype, torch.float32)))
            return tokens.to(self.weight.dtype) + self.bias
        padded = self.axis.pad(self.axis.pad(field, dim=2), dim=3).to(self.weight.dtype)
        patches = padded.unflatten(3, (self.grid_size, -1)).unflatten(2, (self.grid_size, -1))
        patches = patches.permute(0, 1, 2, 4, 6, 3, 5).flatten(4).flatten(2, 3)
        return patches @ self.weight.flatten(0, 2) + self.bias

    def _project_edges(self, field: EdgeField, weight: Tensor) -> Tensor:
        permutation = field.permutation
        assert permutation is not None  # fields reach a base function through a group element
        rank = permutation.rank
        batch, num_samples, nodes = rank.shape
        features = field.features.to(weight.dtype)
        graph, edge, entry = _entries(features)
        values, channel = features[graph, edge, entry], field.entry_channels[graph, edge, entry]
        ends = field.index[graph, :, edge].unbind(-1)

        # The image as a matrix with a row for each token and a column for each pixel of a patch. What an end adds to the place
        # of an entry, (num_samples, entries, copies), is looked up by node: copies on the padded axis, and of each its patch.
        inside = rank.clamp(max=self.axis.max_nodes - 1)  # padding, where there are no edges, may be longer
        copies = self.copies[inside].transpose(0, 1).flatten(1, 2)
        patch, pixel = copies // self.patch_size, copies % self.patch_size
        width = self.channels * self.patch_size**2
        flat = [graph * nodes + end for end in ends]
        rows = (patch * self.grid_size * width + pixel * self.patch_size)[:, flat[0]]
        columns = (patch * width + pixel)[:, flat[1]]
        sample = torch.arange(num_samples, device=rank.device).unsqueeze(-1)
        corner = (graph * num_samples + sample) * self.grid_size**2 * width + channel * self.patch_size**2
        place = corner[..., None, None] + rows.unsqueeze(-1) + columns.unsqueeze(-2)
        entries = values[:, None, None].expand(place.shape)
        if self.has_gaps:
            visible = (copies[:, flat[0]].unsqueeze(-1) >= 0) & (copies[:, flat[1]].unsqueeze(-2) >= 0)
            place, entries = place.masked_fill(~visible, 0), entries.masked_fill(~visible, 0.0)

        shape = (batch * num_samples * self.grid_size**2, width)
        tokens = _matrix(place.flatten(), entries.flatten(), shape) @ weight.flatten(0, 2)
        tokens = tokens.view(batch, num_samples, self.grid_size**2, -1)
        if permutation.soft is not None:
            others = (values.detach(), graph, channel, torch.stack(ends), rank, *permutation.soft.tensors)
            tokens = _StraightThroughPatches.apply(tokens, self, weight.detach(), *others)
        return tokens

    def pixel_gradient(self, gradient: Tensor, weight: Tensor, num_ranks: int) -> Tensor:
        """Gradient with respect to the image, from that with respect to the tokens: a transposed convolution, unpadded.

        Args:
            gradient (`torch.Tensor` of shape `(batch, tokens, hidden)`): Gradient of the tokens.
            weight (`torch.Tensor` of shape `(channels, patch, patch, hidden)`): The projection's weight.
            num_ranks: Length of the batch's node axis.

        Returns:
            `torch.Tensor` of shape `(batch, num_ranks, num_ranks, channels)`.
        """
        grid = self.grid_size
        padded = (gradient @ weight.flatten(0, 2).t()).view(-1, grid, grid, *weight.shape[:3])
        pixels = padded.permute(0, 1, 4, 2, 5, 3).flatten(3, 4).flatten(1, 2)
        sources, size = self.axis.sources, self.axis.max_nodes
        for dim in (1, 2):
            # One place more, for what was padded with zeros, which is then cut off with the surplus of `max_nodes`.
            place = torch.where(sources >= 0, sources, size)
            shape = [*pixels.shape[:dim], size + 1, *pixels.shape[dim + 1 :]]
            pixels = pixels.new_zeros(shape).index_add(dim, place, pixels).narrow(dim, 0, size)
            pixels = resize_axis(pixels, dim, num_ranks)
        return pixels


def _entries(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Graph, edge and entry of what is to be summed, each of shape (entries,)."""
    if features.device.type == "cpu" and not features.requires_grad and not torch.compiler.is_compiling():
        graph, edge, entry = features.nonzero(as_tuple=True)
        return graph, edge, entry
    # Zeros add nothing, but somebody asks for their gradient, or looking for them would make the device wait.
    axes = (torch.arange(size, device=features.device) for size in features.shape)
    graph, edge, entry = (axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij"))
    return graph, edge, entry


def _matrix(place: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor | SparseMatrix:
    """The matrix of given shape by entries at flat places, which add up: dense where that makes products cheaper."""
    if shape[0] * shape[1] <= DENSE_SIZE_PER_ENTRY * len(place):
        return values.new_zeros(shape[0] * shape[1]).index_add(0, place, values).view(shape)
    return SparseMatrix(place // shape[1], place % shape[1], values, shape)


class InvariantReadout(nn.Module):
    """The read-out "c": a linear layer on the pooled output."""

    def __init__(self, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, channels)

    def forward(self, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Read (..., channels) from the pooled output (..., hidden)."""
        return self.linear(pooled)


class NodeReadout(nn.Module):
    """The read-out "n c": the transposed counterpart of `NodeProjection`."""

    def __init__(self, channels: int, hidden_size: int, max_nodes: int, grid_size: int, mode: str, centered: bool) -> None:
        super().__init__()
        self.axis = PaddedAxis(max_nodes, grid_size**2, mode, centered)
        self.conv = nn.ConvTranspose1d(hidden_size, channels, self.axis.patch_size, stride=self.axis.patch_size)

    def forward(self, tokens: Tensor, pooled: Tensor | None) -> Tensor:
        """Read (rows, max_nodes, channels) from the tokens (rows, tokens, hidden)."""
        return self.axis.crop(self.conv(tokens.transpose(1, 2)), dim=2).transpose(1, 2)


class PairReadout(nn.Module):
    """The read-out "n n c": the transposed counterpart of `PairProjection`."""

    def __init__(self, channels: int, hidden_size: int, max_nodes: int, grid_size: int, mode: str, centered: bool) -> None:
        super().__init__()
        self.axis = PaddedAxis(max_nodes, grid_size, mode, centered)
        self.conv = nn.ConvTranspose2d(hidden_size, channels, self.axis.patch_size, stride=self.axis.patch_size)

    def forward(self, tokens: Tensor, pooled: Tensor | None) -> Tensor:
        """Read (rows, max_nodes, max_nodes, channels) from the tokens (rows, tokens, hidden)."""
        grid = self.axis.num_patches
        image = self.conv(tokens.transpose(1, 2).unflatten(2, (grid, grid)))
        return self.axis.crop(self.axis.crop(image, dim=2), dim=3).permute(0, 2, 3, 1)


PROJECTIONS = {(): InvariantProjection, ("n",): NodeProjection, ("n", "n"): PairProjection}
READOUTS = {(): InvariantReadout, ("n",): NodeReadout, ("n", "n"): PairReadout}


def make_projection(
    representation: Representation,
    table: dict,
    width: int,
    hidden_size: int,
    max_nodes: int,
    grid_size: int,
    mode: str,
    centered: bool,
) -> nn.Module:
    """Make the projection or read-out of a representation; the numbers of a vector are channels to it.

    Args:
        representation: The field's axes.
        table: `PROJECTIONS` or `READOUTS`.
        width: How many numbers stand at each place of the node axes.
        hidden_size: Width of the tokens.
        max_nodes: n_max.
        grid_size: t.
        mode: Padding mode.
        centered: Pad on both sides.

    Raises:
        ValueError: If there is none for these axes.
    """
    axes = ("n",) * representation.count("n")
    kinds = ["c" if isinstance(axis, int) else axis.replace("p", "v") for axis in representation.axes]
    if axes not in table or kinds not in ([*axes, "c"], [*axes, "v"], [*axes, "v", "c"]):
        known = ", ".join(repr(" ".join([*known_axes, "c"])) for known_axes in table)
        raise ValueError(
            f"axis string {str(representation)!r}: no token projection for it. Expected one of {known}, or with an axis 'v' or "
            "'p' before c or in its place."
        )
    if not axes:
        return table[axes](width, hidden_size)
    return table[axes](width, hidden_size, max_nodes, grid_size, mode, centered)
