"""Fields to backbone tokens and back, on a grid of t × t tokens (section 3.2 and appendix of arXiv 2306.02866).

A field with two node axes is an image of n_max × n_max pixels, cut into patches; one with one node axis is a sequence, cut
likewise; one without is added to all tokens. Sizes that the grid does not divide are padded with zeros or copies.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .representations import EdgeField, Field, Representation


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


class _EdgePatchProjection(torch.autograd.Function):
    """Patch embedding of an image given by its non-zero pixels: a sparse matrix product, so the image is never made.

    The backward pass hands the dense formulation's gradient with respect to P in PᵀAP to the soft matrix.
    """

    @staticmethod
    def forward(ctx, features, weight, soft, edge_index, rank, projection):
        batch, num_samples, _ = rank.shape
        # Zero pixels add nothing, unless somebody asks for their gradient.
        chosen = torch.ones_like(features, dtype=torch.bool) if ctx.needs_input_grad[0] else features != 0
        entries = graph, edge, channel = chosen.nonzero(as_tuple=True)
        ends = edge_index[graph, :, edge]
        sample = graph.unsqueeze(-1) * num_samples + torch.arange(num_samples, device=graph.device)
        # (entries, num_samples, ends): where each end lands, then all its copies on the padded axis.
        places = rank.flatten(0, 1)[sample.unsqueeze(-1), ends.unsqueeze(1)]
        copies = projection.copies[places]
        rows, columns = copies[:, :, 0, :, None], copies[:, :, 1, None, :]
        patch, grid = projection.patch_size, projection.grid_size
        token = sample[..., None, None] * grid**2 + (rows // patch) * grid + columns // patch
        pixel = channel.view(-1, 1, 1, 1) * patch**2 + (rows % patch) * patch + columns % patch
        visible = (rows >= 0) & (columns >= 0)
        which = torch.arange(graph.shape[0], device=graph.device).view(-1, 1, 1, 1).expand_as(visible)[visible]
        token, pixel, values = token[visible], pixel[visible], features[entries]
        size = (batch * num_samples * grid**2, features.shape[-1] * patch**2)
        image = _sparse_matrix(token, pixel, values[which], size)
        ctx.save_for_backward(weight, rank, ends, image, token, pixel, which, values, *entries)
        ctx.projection, ctx.features_shape = projection, features.shape
        return torch.sparse.mm(image, weight.flatten(1).t()).view(batch, num_samples, grid**2, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        weight, rank, ends, image, token, pixel, which, values, *entries = ctx.saved_tensors
        grad_features = grad_weight = grad_soft = None
        flat = gradient.flatten(0, 2)
        if ctx.needs_input_grad[0]:
            seen = (flat[token] * weight.flatten(1).t()[pixel]).sum(dim=-1)
            per_entry = torch.zeros_like(values).index_add(0, which, seen)
            grad_features = values.new_zeros(ctx.features_shape).index_put(tuple(entries), per_entry)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.sparse.mm(image.t(), flat).t().reshape(weight.shape)
        if ctx.needs_input_grad[2]:
            graph, _, channel = entries
            entry = (values, graph, *ends.unbind(-1), channel)
            # One sample at a time: the image's gradient is dense.
            per_sample = []
            for sample, ranks in enumerate(rank.unbind(1)):
                pixels = ctx.projection.pixel_gradient(gradient[:, sample], weight, ranks.shape[-1])
                per_sample.append(_soft_gradient(pixels, ranks, entry))
            grad_soft = torch.stack(per_sample, dim=1)
        return grad_features, grad_weight, grad_soft, None, None, None


def _sparse_matrix(row: Tensor, column: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(torch.stack([row, column]), values, size, check_invariants=False)


def _soft_gradient(pixels: Tensor, rank: Tensor, entries: tuple[Tensor, ...]) -> Tensor:
    """Gradient of a function of PᵀAP with respect to P, from its gradient G: A P Gᵀ + Aᵀ P G, summed over channels.

    Args:
        pixels (`torch.Tensor` of shape `(batch, ranks, ranks, channels)`): G.
        rank (`torch.Tensor` of shape `(batch, nodes)`): The rank of each node, which is P.
        entries: Values of A, and of each its graph, source, target and channel.

    Returns:
        `torch.Tensor` of shape `(batch, nodes, ranks)`.
    """
    values, graph, source, target, channel = entries
    batch, nodes = rank.shape
    channels = pixels.shape[-1]
    size = (batch * nodes, batch * nodes * channels)
    place = rank.view(batch, nodes, 1, 1).expand(-1, -1, nodes, channels)
    source, target = graph * nodes + source, graph * nodes + target
    by_source = _sparse_matrix(source, target * channels + channel, values, size)
    by_target = _sparse_matrix(target, source * channels + channel, values, size)
    # Rows of both products: node j at its rank, every channel; columns: every rank.
    columns = pixels.transpose(1, 2).gather(1, place).transpose(2, 3).reshape(-1, nodes)
    rows = pixels.gather(1, place).transpose(2, 3).reshape(-1, nodes)
    return (torch.sparse.mm(by_source, columns) + torch.sparse.mm(by_target, rows)).view(batch, nodes, nodes)


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


class _PatchConvolution(nn.Conv2d):
    """A patch convolution that also takes edge lists; in its own forward, where offloading and adapters expect the weight."""

    def forward(self, image: Tensor | EdgeField, projection: "PairProjection | None" = None) -> Tensor:
        if not isinstance(image, EdgeField):
            return super().forward(image)
        permutation = image.permutation
        # Sparse products exist in single and double precision only, and sums over many edges want it.
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        soft = None if permutation.soft is None else permutation.soft.to(dtype)
        with torch.autocast(self.weight.device.type, enabled=False):
            tokens = _EdgePatchProjection.apply(
                image.features.to(dtype), self.weight.to(dtype), soft, image.index, permutation.rank, projection
            )
        return tokens.to(self.weight.dtype) + self.bias


class PairProjection(nn.Module):
    """Tokens from "n n c": a patch embedding with c channels, on dense tensors or, equal to it and cheaper, on edge lists."""

    def __init__(self, channels: int, hidden_size: int, max_nodes: int, grid_size: int, mode: str, centered: bool) -> None:
        super().__init__()
        self.axis = PaddedAxis(max_nodes, grid_size, mode, centered)
        self.grid_size, self.patch_size = grid_size, self.axis.patch_size
        self.conv = _PatchConvolution(channels, hidden_size, self.patch_size, stride=self.patch_size)
        self.register_buffer("copies", self.make_copies(), persistent=False)

    def make_copies(self) -> Tensor:
        """Padded places of each node place; not stored, so made again when a checkpoint is loaded."""
        return copies_of_each(self.axis.make_sources(), self.axis.max_nodes)

    def forward(self, field: Field) -> Tensor:
        """Project an `EdgeField`, or (batch, num_samples, ranks, ranks, channels), to (batch, num_samples, tokens, hidden)."""
        if isinstance(field, EdgeField):
            return self.conv(field, self)
        padded = self.axis.pad(self.axis.pad(field, dim=2), dim=3).to(self.conv.weight.dtype)
        return self.conv(padded.flatten(0, 1).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2).unflatten(0, field.shape[:2])

    def pixel_gradient(self, gradient: Tensor, weight: Tensor, num_ranks: int) -> Tensor:
        """Gradient with respect to the image, from that with respect to the tokens: a transposed convolution, unpadded.

        Args:
            gradient (`torch.Tensor` of shape `(batch, tokens, hidden)`): Gradient of the tokens.
            weight (`torch.Tensor` of shape `(hidden, channels, patch, patch)`): The projection's weight.
            num_ranks: Length of the batch's node axis.

        Returns:
            `torch.Tensor` of shape `(batch, num_ranks, num_ranks, channels)`.
        """
        grid = self.grid_size
        padded = (gradient @ weight.flatten(1)).view(-1, grid, grid, weight.shape[1], self.patch_size, self.patch_size)
        pixels = padded.permute(0, 1, 4, 2, 5, 3).flatten(3, 4).flatten(1, 2)
        sources, size = self.axis.sources, self.axis.max_nodes
        for dim in (1, 2):
            # One place more, for what was padded with zeros, which is then cut off with the surplus of `max_nodes`.
            place = torch.where(sources >= 0, sources, size)
            shape = [*pixels.shape[:dim], size + 1, *pixels.shape[dim + 1 :]]
            pixels = pixels.new_zeros(shape).index_add(dim, place, pixels).narrow(dim, 0, size)
            pixels = resize_axis(pixels, dim, num_ranks)
        return pixels


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
