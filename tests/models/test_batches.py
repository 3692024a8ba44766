"""What goes into a model is checked and encoded; padding is never read."""

import pytest
import torch
from torch import Tensor

from lps_hf.models.batches import check_categories, encode_batch
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.representations import Batch, EdgeField
from tests.models.graph_cases import NODE_CATEGORIES, random_batch, tiny_config

SIZES = [5, 1, 7]
CATEGORICAL = tiny_config()
REAL = tiny_config(node_categories=None, edge_categories=None, inputs={"node_features": "n 4", "edge_features": "n n 2"})
CONSTANT = tiny_config(node_categories=None, edge_categories=None)


def encode(config, dtype: torch.dtype = torch.float64, **tensors: Tensor | None) -> Batch:
    return encode_batch(config, dtype, tensors)


def real_batch() -> dict[str, Tensor]:
    batch = random_batch(SIZES)
    structure = {key: batch[key] for key in ("edge_index", "node_mask", "edge_mask")}
    return {**structure, "node_features": torch.randn(3, 7, 4), "edge_features": torch.randn(3, 21, 2)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_categories_become_one_hot_vectors(dtype):
    batch = random_batch(SIZES)
    encoded = encode(CATEGORICAL, dtype, **batch)
    nodes, edges = encoded.fields["node_features"], encoded.fields["edge_features"]
    assert list(encoded.fields) == ["node_features", "edge_features"]
    assert nodes.shape == (3, 7, 5)
    assert nodes.dtype == edges.features.dtype == dtype
    assert isinstance(edges, EdgeField)
    assert edges.permutation is None
    for graph, size in enumerate(SIZES):
        for node in range(7):
            first, second = batch["node_categories"][graph, node].tolist()
            expected = [0.0] * 5
            if node < size:
                expected[first] = expected[NODE_CATEGORIES[0] + second] = 1.0
            assert nodes[graph, node].tolist() == expected
        for edge in range(21):
            expected = [0.0] * 3
            if edge < 3 * size:
                expected[0] = expected[1 + int(batch["edge_categories"][graph, edge, 0])] = 1.0
            found = torch.zeros(3, dtype=dtype).index_add(0, edges.channels[graph, edge], edges.features[graph, edge])
            assert found.tolist() == expected


def test_padded_edges_end_in_node_zero():
    batch = random_batch(SIZES)
    encoded = encode(CATEGORICAL, **batch)
    for index in (encoded.edge_index, encoded.fields["edge_features"].index):
        for graph, size in enumerate(SIZES):
            assert torch.equal(index[graph, :, : 3 * size], batch["edge_index"][graph, :, : 3 * size])
            assert not index[graph, :, 3 * size :].any()
    assert torch.equal(encoded.node_mask, batch["node_mask"])
    assert torch.equal(encoded.edge_mask, batch["edge_mask"])


def test_real_features_are_taken_as_they_are_and_zero_on_padding():
    batch = real_batch()
    encoded = encode(REAL, **batch)
    for field, key, mask in (
        (encoded.fields["node_features"], "node_features", batch["node_mask"]),
        (encoded.fields["edge_features"].features, "edge_features", batch["edge_mask"]),
    ):
        assert torch.equal(field[mask], batch[key][mask].double())
        assert not field[~mask].any()


def test_without_features_there_is_a_constant():
    structure = {key: value for key, value in random_batch(SIZES).items() if not key.endswith("categories")}
    encoded = encode(CONSTANT, **structure)
    assert torch.equal(encoded.fields["node_features"], structure["node_mask"].unsqueeze(-1).double())
    assert torch.equal(encoded.fields["edge_features"].features, structure["edge_mask"].unsqueeze(-1).double())


def test_without_masks_everything_is_valid():
    batch = random_batch([4, 4])
    expected = encode(CATEGORICAL, **batch)
    encoded = encode(CATEGORICAL, **{**batch, "node_mask": None, "edge_mask": None})
    assert encoded.node_mask.all()
    assert encoded.edge_mask.all()
    assert torch.equal(encoded.fields["node_features"], expected.fields["node_features"])


def test_inputs_are_not_changed_in_place():
    batch = random_batch(SIZES)
    before = {key: value.clone() for key, value in batch.items()}
    encode(CATEGORICAL, **batch)
    assert all(torch.equal(batch[key], before[key]) for key in batch)


def test_gradients_reach_real_features():
    batch = real_batch()
    for key in ("node_features", "edge_features"):
        batch[key].requires_grad_()
    encoded = encode(REAL, **batch)
    (encoded.fields["node_features"].sum() + encoded.fields["edge_features"].features.sum()).backward()
    assert torch.equal(batch["node_features"].grad[..., 0].bool(), batch["node_mask"])
    assert torch.equal(batch["edge_features"].grad[..., 0].bool(), batch["edge_mask"])


def changed(batch: dict[str, Tensor], key: str, place: tuple, value: float) -> dict[str, Tensor]:
    tensor = batch[key].clone()
    tensor[place] = value
    return {**batch, key: tensor}


CATEGORIES, FEATURES = random_batch(SIZES), real_batch()
VALUE_ERRORS = {
    "nothing": (
        CATEGORICAL,
        {"edge_index": CATEGORIES["edge_index"]},
        r"node_categories: expected a tensor.*got None",
    ),
    "no real nodes": (REAL, {"edge_index": FEATURES["edge_index"]}, r"node_features: expected a tensor.*got None"),
    "no graphs": (
        CATEGORICAL,
        {key: x[:0] for key, x in CATEGORIES.items()},
        r"node_categories: expected at least one",
    ),
    "no nodes": (
        CATEGORICAL,
        {**CATEGORIES, "node_categories": CATEGORIES["node_categories"][:, :0]},
        r"node_categories: expected at least one graph and one node, got shape \(3, 0",
    ),
    "no edge list": (
        CATEGORICAL,
        {**CATEGORIES, "edge_index": None},
        r"edge_index: expected shape \(3, 2, .*got None",
    ),
    "flat edge list": (
        CATEGORICAL,
        {**CATEGORIES, "edge_index": CATEGORIES["edge_index"][0]},
        r"edge_index: expected shape",
    ),
    "edge list of other graphs": (
        CATEGORICAL,
        {**CATEGORIES, "edge_index": CATEGORIES["edge_index"][:2]},
        r"edge_index: expected shape \(3, 2, edges\), got \(2, 2, 21\)",
    ),
    "transposed edge list": (
        CATEGORICAL,
        {**CATEGORIES, "edge_index": CATEGORIES["edge_index"].mT},
        r"edge_index: expected",
    ),
    "node mask of another shape": (
        CATEGORICAL,
        {**CATEGORIES, "node_mask": CATEGORIES["node_mask"][:, :3]},
        r"node_mask: expected shape \(3, 7\), got \(3, 3\)",
    ),
    "edge mask of another shape": (
        CATEGORICAL,
        {**CATEGORIES, "edge_mask": CATEGORIES["edge_mask"][:, :3]},
        r"edge_mask: expected shape \(3, 21\), got \(3, 3\)",
    ),
    "padding between nodes": (
        CATEGORICAL,
        changed(CATEGORIES, "node_mask", (0, 2), False),
        r"node_mask: .*padding last",
    ),
    "graph without nodes": (
        CATEGORICAL,
        changed(CATEGORIES, "node_mask", (1, 0), False),
        r"node_mask: .*graph 1 has none",
    ),
    "too many nodes": (
        tiny_config(max_nodes=6),
        CATEGORIES,
        r"node_mask: expected at most max_nodes=6 nodes, graph 2 has 7",
    ),
    "end too large": (
        CATEGORICAL,
        changed(CATEGORIES, "edge_index", (0, 1, 3), 5),
        r"edge_index: graph 0 has 5 nodes, expected node numbers 0 to 4, got 0 to 5",
    ),
    "negative end": (
        CATEGORICAL,
        changed(CATEGORIES, "edge_index", (2, 0, 3), -1),
        r"edge_index: graph 2 has 7 .*got -1 to",
    ),
    "features beside categories": (
        CATEGORICAL,
        {**CATEGORIES, "node_features": FEATURES["node_features"]},
        r"node_features: this model has node_categories=\[3, 2\] in its config",
    ),
    "edge features beside categories": (
        CATEGORICAL,
        {**CATEGORIES, "edge_features": FEATURES["edge_features"]},
        r"edge_features: this model has edge_categories=\[2\] in its config",
    ),
    "categories beside features": (
        REAL,
        {**FEATURES, "node_categories": CATEGORIES["node_categories"]},
        r"node_categories: this model has node_categories=None in its config",
    ),
    "no categories": (
        CATEGORICAL,
        {**CATEGORIES, "edge_categories": None},
        r"edge_categories: expected shape \(3, 21, 1\), got None",
    ),
    "too few categories": (
        CATEGORICAL,
        {**CATEGORIES, "node_categories": CATEGORIES["node_categories"][..., :1]},
        r"node_categories: expected shape \(3, 7, 2\), got \(3, 7, 1\)",
    ),
    "category too large": (
        CATEGORICAL,
        changed(CATEGORIES, "node_categories", (2, 6, 1), 2),
        r"node_categories: feature 1 has categories 0 to 1, got 2.*larger node_categories\[1\]",
    ),
    "negative category": (
        CATEGORICAL,
        changed(CATEGORIES, "edge_categories", (0, 0, 0), -1),
        r"edge_categories: feature 0 has categories 0 to 1, got -1",
    ),
    "no features": (
        REAL,
        {**FEATURES, "edge_features": None},
        r"edge_features: expected shape \(3, 21, 2\), got None",
    ),
    "too few features": (
        REAL,
        {**FEATURES, "node_features": FEATURES["node_features"][..., :3]},
        r"node_features: expected shape \(3, 7, 4\), got \(3, 7, 3\)",
    ),
    "not a number": (
        REAL,
        changed(FEATURES, "node_features", (0, 0, 0), float("nan")),
        r"node_features: expected finite",
    ),
    "infinite": (REAL, changed(FEATURES, "edge_features", (0, 0, 0), float("inf")), r"edge_features: expected finite"),
}
TYPE_ERRORS = {
    "edge list": (
        {**CATEGORIES, "edge_index": CATEGORIES["edge_index"].int()},
        r"edge_index: expected int64, got torch.int32",
    ),
    "node mask": (
        {**CATEGORIES, "node_mask": CATEGORIES["node_mask"].long()},
        r"node_mask: expected bool, got torch.int64",
    ),
    "edge mask": (
        {**CATEGORIES, "edge_mask": CATEGORIES["edge_mask"].float()},
        r"edge_mask: expected bool, got torch.float32",
    ),
    "categories": (
        {**CATEGORIES, "node_categories": CATEGORIES["node_categories"].float()},
        r"node_categories: expected int64, got torch.float32",
    ),
}


@pytest.mark.parametrize("name", VALUE_ERRORS)
def test_wrong_values_are_refused(name):
    config, batch, message = VALUE_ERRORS[name]
    with pytest.raises(ValueError, match=message):
        encode(config, **batch)


@pytest.mark.parametrize("name", TYPE_ERRORS)
def test_wrong_types_are_refused(name):
    batch, message = TYPE_ERRORS[name]
    with pytest.raises(TypeError, match=message):
        encode(CATEGORICAL, **batch)


def test_arrays_are_told_how_to_become_tensors():
    with pytest.raises(TypeError, match="edge_index: expected a tensor, got ndarray. Call the processor with return_tensors="):
        encode(CATEGORICAL, **{**CATEGORIES, "edge_index": CATEGORIES["edge_index"].numpy()})


def test_whole_numbers_are_no_real_features():
    with pytest.raises(TypeError, match=r"edge_features: expected floating point numbers, got torch.int64"):
        encode(REAL, **{**FEATURES, "edge_features": FEATURES["edge_features"].long()})


def test_the_batches_above_are_right_as_they_stand():
    encode(CATEGORICAL, **CATEGORIES)
    encode(REAL, **FEATURES)


def test_rubbish_on_padding_is_no_mistake():
    # Also not on edges of a graph without any, where nothing is left to check.
    batch = random_batch(SIZES)
    batch["edge_mask"][1] = False
    encode(CATEGORICAL, **batch)
    check_categories("edge_categories", torch.zeros(2, 0, 1, dtype=torch.int64), [2])
    real = changed(FEATURES, "node_features", (1, 6, 0), float("nan"))
    assert not encode(REAL, **real).fields["node_features"][1, 6].any()


@pytest.mark.parametrize("name", ["node_features", "node_mask"])
def test_a_tensor_without_a_batch_axis_is_named(name):
    value = torch.ones(3) if name == "node_features" else torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=rf"{name}: expected shape \(batch, nodes, ...\), got \(3,\)"):
        LPSModel(tiny_config(node_categories=None, edge_categories=None))(
            **{name: value}, edge_index=torch.zeros(1, 2, 0, dtype=torch.int64)
        )
