"""Fields to tokens and back, against F.pad and dense convolutions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lps_hf.models.elements import Permutation
from lps_hf.models.groups import SymmetricGroup
from lps_hf.models.projections import (
    PROJECTIONS,
    READOUTS,
    InvariantProjection,
    InvariantReadout,
    NodeProjection,
    NodeReadout,
    PaddedAxis,
    PairProjection,
    PairReadout,
    copies_of_each,
    make_projection,
    padding_sources,
    resize_axis,
)
from lps_hf.models.representations import EdgeField, Representation
from lps_hf.models.soft_permutations import soft_permutation
from tests.models.graph_cases import NUMPY_PADDING, PADDING_MODES, densify, pad_to_grid, seeded, tiny_config

GRID = 3
# Below the grid, the grid, beside it, and beside the nine parts of a sequence; 1 is padded to more than it holds.
MAX_NODES = [1, 2, 3, 4, 7, 8, 9, 10]
every_mode = pytest.mark.parametrize("mode", PADDING_MODES)
every_side = pytest.mark.parametrize("centered", [False, True], ids=["end", "centred"])
every_size = pytest.mark.parametrize("max_nodes", MAX_NODES)


def sides(size: int, padded: int, centered: bool) -> tuple[int, int]:
    left = (padded - size) // 2 if centered else 0
    return left, padded - size - left


@every_mode
@every_side
def test_padding_sources_agree_with_torch_wherever_it_pads(mode, centered):
    tried = 0
    for size, padded in itertools.product(range(1, 12), range(1, 24)):
        left, right = sides(size, padded, centered)
        longest = {"reflect": size - 1, "circular": size}.get(mode, 99)
        if padded < size or max(left, right) > longest:
            continue
        values = torch.arange(1.0, size + 1)
        torch_mode = "constant" if mode == "zero" else mode
        expected = F.pad(values[None, None], (left, right), mode=torch_mode)[0, 0]
        sources = padding_sources(size, padded, mode, centered)
        assert sources.shape == (padded,)
        assert torch.equal(torch.where(sources >= 0, values[sources.clamp(min=0)], 0.0), expected)
        tried += 1
    assert tried > 60


@every_mode
@every_side
def test_padding_sources_repeat_the_pattern_where_torch_refuses(mode, centered):
    for size, padded in itertools.product(range(1, 5), range(5, 24)):
        expected = np.pad(np.arange(1, size + 1), sides(size, padded, centered), mode=NUMPY_PADDING[mode]) - 1
        np.testing.assert_array_equal(padding_sources(size, padded, mode, centered).numpy(), expected)


@every_mode
@every_side
def test_copies_are_the_inverse_of_sources(mode, centered):
    for size, padded in itertools.product(range(1, 6), range(6, 13)):
        sources = padding_sources(size, padded, mode, centered)
        copies = copies_of_each(sources, size)
        for place in range(size):
            found = [copy for copy in copies[place].tolist() if copy >= 0]
            assert found == [copy for copy in range(padded) if sources[copy] == place]


@every_mode
@every_side
@every_size
def test_padding_and_cropping_undo_each_other(max_nodes, mode, centered):
    axis = PaddedAxis(max_nodes, GRID, mode, centered)
    tensor = torch.randn(2, max_nodes, 3)
    padded = axis.pad(tensor, dim=1)
    assert padded.shape == (2, GRID * axis.patch_size, 3)
    assert axis.patch_size == -(-max_nodes // GRID)
    assert torch.equal(axis.crop(padded, dim=1), tensor)
    # A batch's node axis may be shorter or longer than max_nodes.
    longer = torch.cat([tensor, torch.zeros(2, 4, 3)], dim=1)
    assert torch.equal(axis.pad(longer, dim=1), padded)
    shorter = axis.pad(tensor[:, :1], dim=1)
    assert torch.equal(shorter, axis.pad(torch.cat([tensor[:, :1], torch.zeros(2, max_nodes - 1, 3)], dim=1), dim=1))


def test_resize_axis():
    tensor = torch.arange(1, 7).view(2, 3)
    assert resize_axis(tensor, 1, 3) is not None
    assert resize_axis(tensor, 1, 2).tolist() == [[1, 2], [4, 5]]
    assert resize_axis(tensor, 1, 5).tolist() == [[1, 2, 3, 0, 0], [4, 5, 6, 0, 0]]
    assert resize_axis(tensor, 0, 3).tolist() == [[1, 2, 3], [4, 5, 6], [0, 0, 0]]


def make(module_class, max_nodes: int, mode: str, centered: bool, channels: int = 2, dtype=torch.float64):
    return module_class(channels, 5, max_nodes, GRID, mode, centered).to(dtype)


def config_for(mode: str, centered: bool):
    return tiny_config(padding_mode=mode, centered_padding=centered)


@every_mode
@every_side
@every_size
def test_node_projection_is_a_convolution_of_the_padded_sequence(max_nodes, mode, centered):
    # The published zero padding gives an empty tensor where nothing has to be padded.
    projection = make(NodeProjection, max_nodes, mode, centered)
    field = torch.randn(2, 3, max_nodes, 2, dtype=torch.float64)
    tokens = projection(field)
    assert tokens.shape == (2, 3, GRID**2, 5)
    padded = pad_to_grid(field.flatten(0, 1), max_nodes, GRID**2, config_for(mode, centered), dim=1)
    kernel = projection.weight.permute(2, 1, 0)
    expected = F.conv1d(padded.mT, kernel, projection.bias, stride=kernel.shape[-1]).mT.view(2, 3, GRID**2, 5)
    torch.testing.assert_close(tokens, expected, rtol=1e-12, atol=1e-12)
    assert (tokens - projection.bias).abs().max() > 0.01


def dense_pair_tokens(projection: PairProjection, images: Tensor, mode: str, centered: bool) -> Tensor:
    """Tokens of (batch, num_samples, ranks, ranks, channels) by F.pad and a convolution."""
    size, kernel = projection.axis.max_nodes, projection.weight.permute(3, 0, 1, 2)
    padded = images.flatten(0, 1)
    for dim in (1, 2):
        padded = pad_to_grid(padded, size, GRID, config_for(mode, centered), dim=dim)
    tokens = F.conv2d(padded.permute(0, 3, 1, 2), kernel, projection.bias, stride=kernel.shape[-1])
    return tokens.flatten(2).mT.unflatten(0, images.shape[:2])


def random_edges(nodes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> EdgeField:
    """Two graphs with repeated edges, loops, zero entries in single channels, and padding."""
    source = seeded(seed)
    index = torch.randint(nodes, (2, 2, 14), generator=source)
    features = torch.randn(2, 14, 2, generator=source, dtype=dtype)
    features[:, :4, 0] = 0
    features[1, 10:] = 0
    index[1, :, 10:] = 0
    return EdgeField(index, features)


@every_mode
@every_side
@every_size
def test_pair_projection_is_a_convolution_of_the_padded_image(max_nodes, mode, centered):
    projection, group = make(PairProjection, max_nodes, mode, centered), SymmetricGroup()
    elements = group.haar(torch.ones(2, max_nodes, dtype=torch.bool), 3, seeded(1))
    edges = group.act_inverse(elements, random_edges(max_nodes), Representation.parse("n n 2"))
    images = densify(edges, max_nodes)
    expected = dense_pair_tokens(projection, images, mode, centered)
    for field in (edges, images):
        tokens = projection(field)
        assert tokens.shape == (2, 3, GRID**2, 5)
        torch.testing.assert_close(tokens, expected, rtol=1e-12, atol=1e-12)
    assert (expected - projection.bias).abs().max() > 0.01


@pytest.mark.parametrize("ranks", ["fewer", "equal", "more"])
@every_mode
@every_side
@pytest.mark.parametrize("max_nodes", [1, 2, 3, 7])
def test_edge_lists_have_the_gradients_of_the_dense_image(max_nodes, mode, centered, ranks):
    # For weight, bias, entries and, through P in PᵀAP, the soft matrix. The batch's axis may have any length.
    nodes = {"fewer": max(1, max_nodes - 1), "equal": max_nodes, "more": max_nodes + 2}[ranks]
    size = min(nodes, max_nodes)
    projection = make(PairProjection, max_nodes, mode, centered)
    mask = (torch.arange(nodes) < size).expand(2, nodes)
    index = SymmetricGroup().haar(mask, 3, seeded(1)).index
    scores = torch.randn(2, 3, nodes, dtype=torch.float64)
    edges = random_edges(size)
    weights = torch.randn(2, 3, GRID**2, 5, dtype=torch.float64)
    gradients = []
    for dense in (False, True):
        leaves = [edges.features.clone().requires_grad_(), scores.clone().requires_grad_()]
        field = replace(edges, features=leaves[0])
        if dense:
            soft = soft_permutation(leaves[1], index, mask, 1.0).matrix(index)
            matrix = F.one_hot(index, nodes).mT.double() + soft - soft.detach()
            images = torch.einsum("bkir,bijc,bkjs->bkrsc", matrix, densify(field, nodes)[:, 0], matrix)
            tokens = dense_pair_tokens(projection, images[:, :, :size, :size], mode, centered)
        else:
            soft = soft_permutation(leaves[1], index, mask, 1.0)
            tokens = projection(replace(field, permutation=Permutation(index, soft)))
        leaves += projection.parameters()
        gradients.append(torch.autograd.grad((tokens * weights).sum(), leaves))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)
    assert gradients[0][1].abs().max() > 1e-3 or size == 1


def test_entries_that_are_zero_still_have_a_gradient():
    projection = make(PairProjection, 4, "zero", False)
    features = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    field = EdgeField(torch.tensor([[[0], [1]]]), features, Permutation(torch.arange(4).view(1, 1, 4)))
    projection(field).sum().backward()
    assert (features.grad != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edge_lists_keep_the_type_of_the_weights(dtype):
    projection = make(PairProjection, 7, "reflect", True, dtype=dtype)
    edges = replace(random_edges(7, dtype=torch.float32), permutation=Permutation(torch.arange(7).expand(2, 3, 7)))
    tokens, dense = projection(edges), projection(densify(edges, 7))
    assert tokens.dtype == dense.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(tokens, dense, rtol=tolerance, atol=tolerance)
    tokens.float().sum().backward()
    assert projection.weight.grad.dtype == dtype


def test_an_image_of_no_edges_is_the_bias():
    projection = make(PairProjection, 7, "zero", False)
    empty = EdgeField(torch.zeros(2, 2, 0, dtype=torch.int64), torch.zeros(2, 0, 2, dtype=torch.float64))
    tokens = projection(replace(empty, permutation=Permutation(torch.arange(7).expand(2, 3, 7))))
    assert torch.equal(tokens, projection.bias.expand(2, 3, GRID**2, 5))
    tokens.sum().backward()


def test_invariant_field_is_added_to_every_token():
    projection = InvariantProjection(4, 5)
    field = torch.randn(2, 3, 4)
    tokens = projection(field)
    assert tokens.shape == (2, 3, 1, 5)
    torch.testing.assert_close(tokens[:, :, 0], field @ projection.linear.weight.T + projection.linear.bias)


@every_side
@every_size
def test_readouts_are_transposed_convolutions(max_nodes, centered):
    tokens = torch.randn(4, GRID**2, 5, dtype=torch.float64)
    sequence, image = (make(module, max_nodes, "zero", centered) for module in (NodeReadout, PairReadout))
    result, left = sequence(tokens, None), sides(max_nodes, GRID**2 * sequence.axis.patch_size, centered)[0]
    assert result.shape == (4, max_nodes, 2)
    patch, weight = sequence.axis.patch_size, sequence.conv.weight
    for place in range(max_nodes):
        token, offset = divmod(place + left, patch)
        expected = tokens[:, token] @ weight[:, :, offset] + sequence.conv.bias
        torch.testing.assert_close(result[:, place], expected, rtol=1e-12, atol=1e-12)
    result, left = image(tokens, None), sides(max_nodes, GRID * image.axis.patch_size, centered)[0]
    assert result.shape == (4, max_nodes, max_nodes, 2)
    patch, weight = image.axis.patch_size, image.conv.weight
    for row, column in itertools.product(range(max_nodes), repeat=2):
        (down, i), (right, j) = divmod(row + left, patch), divmod(column + left, patch)
        expected = tokens[:, down * GRID + right] @ weight[:, :, i, j] + image.conv.bias
        torch.testing.assert_close(result[:, row, column], expected, rtol=1e-12, atol=1e-12)


def test_invariant_readout_reads_the_pooled_output():
    readout, pooled = InvariantReadout(3, 5), torch.randn(4, 5)
    expected = pooled @ readout.linear.weight.T + readout.linear.bias
    torch.testing.assert_close(readout(torch.randn(4, 9, 5), pooled), expected)


OPTIONS = {"hidden_size": 5, "max_nodes": 7, "grid_size": GRID, "mode": "zero", "centered": False}


@pytest.mark.parametrize("ending", ["4", "v", "p", "v 4", "p 4"])
def test_modules_are_chosen_by_the_axes(ending):
    for table, classes in (
        (PROJECTIONS, (InvariantProjection, NodeProjection, PairProjection)),
        (READOUTS, (InvariantReadout, NodeReadout, PairReadout)),
    ):
        for nodes, expected in zip(("", "n ", "n n "), classes, strict=True):
            assert type(make_projection(Representation.parse(nodes + ending), table, width=4, **OPTIONS)) is expected


def test_the_numbers_of_a_vector_are_channels():
    axes = Representation.parse("n v 2")
    projection = make_projection(axes, PROJECTIONS, axes.width(3), **OPTIONS)
    readout = make_projection(axes, READOUTS, axes.width(3), **OPTIONS)
    assert projection.weight.shape[1] == readout.conv.out_channels == 6


@pytest.mark.parametrize("text", ["n", "n n", "n n n 3", "3 n", "3 v", "v n", "3 h w", "g"])
def test_axes_without_a_projection_are_refused(text):
    for table in (PROJECTIONS, READOUTS):
        with pytest.raises(ValueError, match=f"axis string '{text}': no token projection.*'c', 'n c', 'n n c'"):
            make_projection(Representation.parse(text), table, width=3, **OPTIONS)
