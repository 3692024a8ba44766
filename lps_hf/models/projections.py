"""Fields to backbone tokens and back, on a grid of t × t tokens (section 3.2 and appendix of arXiv 2306.02866).

A field with two node axes is an image of n_max × n_max pixels, cut into patches; one with one node axis is a sequence, cut
likewise; one without is added to all tokens. Sizes that the grid does not divide are padded with zeros or copies.
"""

import math
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .representations import EdgeField, Field, Representation
from .soft_permutations import SoftPermutation, differentiable_once, pull_back_matrix
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
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, values, graph, channel, ends, rank, sizes, *soft = ctx.saved_tensors
        to_soft = [torch.zeros_like(vector) for vector in soft[:3]]
        # The gradient of an image is dense, so not that of all images at once: those of one graph, cut to its size, or, where
        # sizes cannot be read without waiting, those of one sample.
        whole, num_samples = slice(None), rank.shape[1]
        if rank.device.type == "cpu" and not torch.compiler.is_compiling():
            bounds = torch.searchsorted(graph, torch.arange(len(rank) + 1)).tolist()
            parts = [
                (slice(number, number + 1), whole, slice(*bounds[number : number + 2]), size)
                for number, size in enumerate(sizes.tolist())
            ]
        else:
            parts = [(whole, slice(number, number + 1), whole, rank.shape[2]) for number in range(num_samples)]
        for graphs, samples, entries, size in parts:
            ranks, first = rank[graphs, samples], graphs.start or 0
            here = SoftPermutation(*(vector[graphs, samples, :size] for vector in soft))
            seen = ctx.projection.seen_gradients(gradient[graphs, samples].flatten(0, 1), weight, size)
            image = (graph[entries] - first) * ranks.shape[1] + torch.arange(ranks.shape[1], device=rank.device).unsqueeze(-1)
            source, target = (ranks[graph[entries] - first, :, end[entries]].t() for end in ends)
            product = _permutation_gradient(seen, values[entries], image, source, target, channel[entries])
            to_permutation = product.view(*ranks.shape[:2], size, size)
            for whole_gradient, part in zip(to_soft, pull_back_matrix(here, to_permutation), strict=True):
                whole_gradient[graphs, samples, :size] = part
        return gradient, None, *[None] * 7, *to_soft, *[None] * (len(soft) - len(to_soft))


def _permutation_gradient(
    seen: tuple[Tensor, Tensor], values: Tensor, image: Tensor, source: Tensor, target: Tensor, channel: Tensor
) -> Tensor:
    """Gradient of a function of images Y = PᵀAP with respect to P, from its gradient G: Y Gᵀ + Yᵀ G, summed over channels.

    Args:
        seen: Gᵀ and G, each of shape `(images, ranks, channels, ranks)`.
        values (`torch.Tensor` of shape `(entries,)`): The entries of Y.
        image (`torch.Tensor` of shape `(num_samples, entries)`): The image of each entry.
        source (`torch.Tensor` of shape `(num_samples, entries)`): Its row.
        target (`torch.Tensor` of shape `(num_samples, entries)`): Its column.
        channel (`torch.Tensor` of shape `(entries,)`): Its channel.

    Returns:
        `torch.Tensor` of shape `(images * ranks, ranks)`: Rows, which belong to nodes, are counted by their ranks too.
    """
    images, ranks, channels, _ = seen[0].shape
    source, target = image * ranks + source, image * ranks + target
    values = values.expand(image.shape).flatten()
    shape = (images * ranks, images * ranks * channels)
    by_row = SparseMatrix(source.flatten(), (target * channels + channel).flatten(), values, shape)
    by_column = SparseMatrix(target.flatten(), (source * channels + channel).flatten(), values, shape)
    return by_row.product(seen[0].view(-1, ranks)) + by_column.product(seen[1].view(-1, ranks))


class PaddedAxis(nn.Module):
    """The padding of a node axis to a multiple of the patch: shared by the projections and read-outs below."""

    def __init__(self, max_nodes: int, num_patches: int, mode: str, centered: bool) -> None:
        super().__init__()
        self.max_nodes, self.num_patches, self.mode, self.centered = max_nodes, num_patches, mode, centered
        self.patch_size = -(-max_nodes // num_patches)
        self.left = (num_patches * self.patch_size - max_nodes) // 2 if centered else 0
        sources = self.make_sources()
        self.register_buffer("sources", sources, persistent=False)
        # How many patches it takes to see the first n places, for each n.
        shown = [(source, place) for place, source in enumerate(sources.tolist()) if source >= 0]
        last = dict(sorted(shown))
        self.reach = [place // self.patch_size + 1 for place in accumulate((last[n] for n in range(max_nodes)), max)]

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
        return tensor.narrow(dim, self.left, self.max_nodes)

    def gather_back(self, tensor: Tensor, dim: int, size: int) -> Tensor:
        """The transposed map of `pad`: cut axis `dim` to the first `size` places, and add their copies to them.

        Args:
            tensor: With an axis of `reach[size - 1] * patch_size` places.
            dim: The axis.
            size: At most `max_nodes`.

        Returns:
            `torch.Tensor`: With an axis of `size` places.
        """
        result = tensor.narrow(dim, self.left, size)
        if self.mode == "zero":
            return result
        for start, stop in ((0, self.left), (self.left + self.max_nodes, tensor.shape[dim])):
            if start < stop:
                sources = self.sources[start:stop]
                kept = (sources < size).view([-1 if axis == dim else 1 for axis in range(tensor.dim())])
                copies = tensor.narrow(dim, start, stop - start) * kept
                result = result.index_add(dim, sources.clamp(max=size - 1), copies)
        return result


def resize_axis(tensor: Tensor, dim: int, size: int) -> Tensor:
    """Crop an axis, or fill it up with zeros."""
    if torch.compiler.is_exporting():
        # Without a question about the length, which the exported program would keep the answer to.
        place = torch.arange(size, device=tensor.device)
        shape = [-1 if axis == dim % tensor.dim() else 1 for axis in range(tensor.dim())]
        missing = (place >= tensor.shape[dim]).view(shape)
        return tensor.index_select(dim, place.clamp(max=tensor.shape[dim] - 1)).masked_fill(missing, 0.0)
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


class PatchProjection(nn.Module):
    """A linear map of patches to tokens, with the weight (*patch, hidden): the rows that one entry adds lie in one piece.

    Args:
        patch: Shape of a patch, channels among it.
        hidden_size: Width of the tokens.
    """

    def __init__(self, patch: tuple[int, ...], hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*patch, hidden_size))
        self.bias = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters as a convolution's are by default."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[:-1]))
        init.uniform_(self.weight, -bound, bound)
        init.uniform_(self.bias, -bound, bound)

    def project(self, patches: Tensor) -> Tensor:
        """Project (..., size of a patch) to (..., hidden)."""
        return F.linear(patches.to(self.weight.dtype), self.weight.flatten(0, -2).t(), self.bias)


class NodeProjection(PatchProjection):
    """Tokens from "n c": a convolution along the node axis whose kernel is its stride; weight (patch, channels, hidden)."""

    def __init__(self, channels: int, hidden_size: int, max_nodes: int, grid_size: int, mode: str, centered: bool) -> None:
        axis = PaddedAxis(max_nodes, grid_size**2, mode, centered)
        super().__init__((axis.patch_size, channels), hidden_size)
        self.axis = axis

    def forward(self, field: Tensor) -> Tensor:
        """Project (batch, num_samples, ranks, channels) to (batch, num_samples, tokens, hidden)."""
        return self.project(self.axis.pad(field, dim=2).unflatten(2, (-1, self.axis.patch_size)).flatten(3))


class PairProjection(PatchProjection):
    """Tokens from "n n c": a patch embedding with c channels, on dense tensors or, equal to it and cheaper, on edge lists.

    The weight is (channels, patch, patch, hidden). Every entry of an edge list adds one row of it to one token, so that the
    image is made only where that is cheaper.
    """

    def __init__(self, channels: int, hidden_size: int, max_nodes: int, grid_size: int, mode: str, centered: bool) -> None:
        axis = PaddedAxis(max_nodes, grid_size, mode, centered)
        super().__init__((channels, axis.patch_size, axis.patch_size), hidden_size)
        self.axis = axis
        self.channels, self.grid_size, self.patch_size = channels, grid_size, axis.patch_size
        copies = self.make_copies()
        self.has_gaps = bool((copies < 0).any())
        self.register_buffer("copies", copies, persistent=False)

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
        padded = self.axis.pad(self.axis.pad(field, dim=2), dim=3)
        patches = padded.unflatten(3, (self.grid_size, -1)).unflatten(2, (self.grid_size, -1))
        return self.project(patches.permute(0, 1, 2, 4, 6, 3, 5).flatten(4).flatten(2, 3))

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
        tokens = _image_product(place.flatten(), entries.flatten(), shape, weight.flatten(0, 2))
        tokens = tokens.view(batch, num_samples, self.grid_size**2, -1)
        if permutation.soft is not None:
            sizes = (permutation.soft.row_scale.detach()[:, 0] > 0).sum(dim=-1)
            others = (values.detach(), graph, channel, torch.stack(ends), rank, sizes, *permutation.soft.tensors)
            tokens = _StraightThroughPatches.apply(tokens, self, weight.detach(), *others)
        return tokens

    def seen_gradients(self, gradient: Tensor, weight: Tensor, num_ranks: int) -> tuple[Tensor, Tensor]:
        """Gradient G with respect to the image, from that with respect to the tokens: a transposed convolution, unpadded.

        Args:
            gradient (`torch.Tensor` of shape `(images, tokens, hidden)`): Gradient of the tokens.
            weight (`torch.Tensor` of shape `(channels, patch, patch, hidden)`): The projection's weight.
            num_ranks: Side of the image that is wanted.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Gᵀ and G, each of shape `(images, num_ranks, channels, num_ranks)`.
        """
        size = min(num_ranks, self.axis.max_nodes)
        tokens, grid = self.axis.reach[size - 1], self.grid_size
        gradient = gradient.unflatten(1, (grid, grid))[:, :tokens, :tokens]
        pixels = (gradient.reshape(-1, gradient.shape[-1]) @ weight.flatten(0, 2).t()).view(
            *gradient.shape[:3], *weight.shape[:3]
        )
        seen = []
        for order in ((0, 2, 5, 3, 1, 4), (0, 1, 4, 3, 2, 5)):
            image = pixels.permute(order).flatten(4).flatten(1, 2)
            for dim in (1, 3):
                image = resize_axis(self.axis.gather_back(image, dim, size), dim, num_ranks)
            seen.append(image.contiguous())
        return seen[0], seen[1]


def _entries(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Graph, edge and entry of what is to be summed, each of shape (entries,)."""
    if features.device.type == "cpu" and not features.requires_grad and not torch.compiler.is_compiling():
        graph, edge, entry = features.nonzero(as_tuple=True)
        return graph, edge, entry
    # Zeros add nothing, but somebody asks for their gradient, or looking for them would make the device wait.
    axes = (torch.arange(size, device=features.device) for size in features.shape)
    graph, edge, entry = (axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij"))
    return graph, edge, entry


def _image_product(place: Tensor, values: Tensor, shape: tuple[int, int], dense: Tensor) -> Tensor:
    """The product of a matrix of given shape, by entries at flat places, which add up, with a dense one."""
    # An exported program has to fit any sizes.
    if not torch.compiler.is_exporting() and shape[0] * shape[1] <= DENSE_SIZE_PER_ENTRY * len(place):
        return values.new_zeros(shape[0] * shape[1]).index_add(0, place, values).view(shape) @ dense
    return SparseMatrix(place // shape[1], place % shape[1], values, shape).product(dense)


class InvariantReadout(nn.Module):
    """The read-out "c": a linear layer on the pooled output."""

    def __init__(self, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, channels)

    def forward(self, tokens: Tensor | None, pooled: Tensor) -> Tensor:
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
