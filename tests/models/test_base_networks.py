"""The paper's base networks: against references, padding, and the numbers of the published implementation."""

from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from lps_hf.hub.published_names import apply_rules, mlp_rules, pair_transformer_rules, particle_gnn_rules
from lps_hf.models.base_networks import BASE_NETWORKS, BaseNetwork
from lps_hf.models.configuration_base_networks import (
    BASE_NETWORK_CONFIGS,
    GINIDBaseConfig,
    MLPBaseConfig,
    PairTransformerBaseConfig,
    ParticleGNNBaseConfig,
)
from lps_hf.models.representations import Representation

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
with_recordings = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="needs the recordings of the published implementation in ../shared/golden"
)

CONFIGS = {
    "lps_mlp": MLPBaseConfig(hidden_sizes=[24, 12]),
    "lps_gin_id": GINIDBaseConfig(hidden_size=8, num_layers=2),
    "lps_pair_transformer": PairTransformerBaseConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12
    ),
    "lps_particle_gnn": ParticleGNNBaseConfig(hidden_size=8, num_hidden_layers=2),
}
INPUTS = {"box": "2", "positions": "n p", "velocities": "n v", "pair_features": "n n 2", "charges": "n 1", "bonds": "n n"}
OUTPUTS = {"4": (4,), "v": (3,), "n": (6,), "n 2": (6, 2), "n v": (6, 3), "n p": (6, 3), "n 2 v": (6, 2, 3)}
PAIR_OUTPUTS = {"n n": (6, 6), "n n 2": (6, 6, 2)}
PAIR_NETWORKS = ("lps_mlp", "lps_pair_transformer")
EVERY_OUTPUT = [(kind, output) for kind in CONFIGS for output in (OUTPUTS | PAIR_OUTPUTS if kind in PAIR_NETWORKS else OUTPUTS)]
SIZES = [4, 1, 6]
NODE_MASK = torch.arange(6) < torch.tensor(SIZES).unsqueeze(1)
every_network = pytest.mark.parametrize("kind", CONFIGS)
every_output = pytest.mark.parametrize(("kind", "output"), EVERY_OUTPUT)


def parse(inputs: dict[str, str]) -> dict[str, Representation]:
    return {name: Representation.parse(text) for name, text in inputs.items()}


def make_network(
    kind: str,
    output: str = "n v",
    inputs: dict[str, str] = INPUTS,
    max_nodes: int = 7,
    dimension: int | None = 3,
    config: PreTrainedConfig | None = None,
) -> BaseNetwork:
    """A network in double precision in which every parameter and statistic matters."""
    torch.manual_seed(1)
    representation = Representation.parse(output)
    network = BASE_NETWORKS[kind](config or CONFIGS[kind], parse(inputs), representation, max_nodes, dimension)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if "norm" in name or name.endswith("eps") or "positions" in name:
                tensor.add_(0.5 * torch.rand(tensor.shape)) if tensor.is_floating_point() else None
    return network.double().eval()


def make_fields(num_nodes: int = 6, num_samples: int = 2, inputs: dict[str, str] = INPUTS) -> dict[str, Tensor]:
    sizes = {"n": num_nodes, "v": 3, "p": 3}
    return {
        name: torch.randn(3, num_samples, *(sizes.get(axis, axis) for axis in axes.axes), dtype=torch.float64)
        for name, axes in parse(inputs).items()
    }


def resize(field: Tensor, axes: Representation, num_nodes: int, value: float = 0.0) -> Tensor:
    """Crop or pad the node axes."""
    for dim in range(2, 2 + axes.count("n")):
        length = field.shape[dim]
        shape = list(field.shape)
        shape[dim] = max(num_nodes - length, 0)
        field = torch.cat([field.narrow(dim, 0, min(length, num_nodes)), field.new_full(shape, value)], dim=dim)
    return field


def select(fields: dict[str, Tensor], system: int, num_nodes: int) -> dict[str, Tensor]:
    axes = parse(INPUTS)
    return {name: resize(field[system : system + 1], axes[name], num_nodes) for name, field in fields.items()}


def with_rubbish(fields: dict[str, Tensor], value: float) -> dict[str, Tensor]:
    """Padding that is not zero."""
    axes = parse(INPUTS)
    rows = {
        name: [resize(resize(field[i : i + 1], axes[name], size), axes[name], 6, value) for i, size in enumerate(SIZES)]
        for name, field in fields.items()
    }
    return {name: torch.cat(row) for name, row in rows.items()}


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@every_output
def test_output_has_the_axes_of_its_representation(kind, output):
    result, hidden = make_network(kind, output)(make_fields(), NODE_MASK)
    assert result.shape == (3, 2, *(OUTPUTS | PAIR_OUTPUTS)[output])
    assert len(hidden) == 1
    assert hidden[0].shape[:2] == (3, 2)


@every_output
def test_padding_never_changes_a_result(kind, output):
    """Alone or in a batch of other sizes, padded further, and whatever stands on the padding."""
    network, axes, fields = make_network(kind, output), Representation.parse(output), make_fields()
    result, _ = network(with_rubbish(fields, float("nan")), NODE_MASK)
    longer = {name: resize(field, parse(INPUTS)[name], 7, 1e3) for name, field in with_rubbish(fields, -3.0).items()}
    padded_further, _ = network(longer, F.pad(NODE_MASK, (0, 1)))
    for system, size in enumerate(SIZES):
        alone, _ = network(select(fields, system, size), torch.ones(1, size, dtype=torch.bool))
        assert alone.isfinite().all()
        assert_equal(resize(result[system : system + 1], axes, size), alone)
        assert_equal(resize(padded_further[system : system + 1], axes, size), alone)


@every_network
@pytest.mark.parametrize("output", ["2", "n 2"])
def test_padding_changes_neither_gradients_nor_training(kind, output):
    gradients = []
    axes, fields = Representation.parse(output), make_fields()
    weights = torch.randn(3, 2, 6, 2, dtype=torch.float64)
    for num_nodes, value in ((6, float("nan")), (7, 5.0)):
        network = make_network(kind, output).train()
        given = {
            name: resize(field, parse(INPUTS)[name], num_nodes, value) for name, field in with_rubbish(fields, value).items()
        }
        mask = F.pad(NODE_MASK, (0, num_nodes - 6))
        result, _ = network(given, mask)
        if axes.count("n"):
            loss = (result[:, :, :6] * weights).transpose(1, 2)[NODE_MASK].sum()
        else:
            loss = (result * weights[:, :, 0]).sum()
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.isfinite().all(), name
        assert_equal(gradients[1][name], gradient)


@every_network
def test_samples_do_not_see_each_other(kind):
    network, fields = make_network(kind), make_fields(num_samples=3)
    result, _ = network(fields, NODE_MASK)
    for sample in range(3):
        alone, _ = network({name: field[:, sample : sample + 1] for name, field in fields.items()}, NODE_MASK)
        assert_equal(result[:, sample : sample + 1], alone)


@every_output
def test_every_parameter_gets_a_gradient(kind, output):
    network = make_network(kind, output, max_nodes=6)
    result, _ = network(make_fields(), NODE_MASK)
    (result * torch.randn_like(result)).sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


@every_network
def test_every_field_has_an_influence(kind):
    network, fields = make_network(kind), {name: field.requires_grad_() for name, field in make_fields().items()}
    network(fields, NODE_MASK)[0].square().sum().backward()
    assert [name for name, field in fields.items() if not field.grad.any()] == []


@every_network
def test_fields_are_told_apart_by_axes_and_place_not_by_name(kind):
    fields = make_fields()
    expected, _ = make_network(kind)(fields, NODE_MASK)
    renamed = {f"field_{i}": text for i, text in enumerate(INPUTS.values())}
    given = dict(zip(renamed, fields.values(), strict=True))
    backwards = {name: given[name] for name in reversed(given)}
    assert_equal(make_network(kind, inputs=renamed)(backwards, NODE_MASK)[0], expected)


@every_network
def test_nodes_in_another_order(kind):
    """The particle GNN gives the same in the same order; the others see the order, which is why they are symmetrized."""
    network, fields, order = make_network(kind), make_fields(), torch.tensor([1, 2, 3, 4, 5, 0])
    every_node = torch.ones(3, 6, dtype=torch.bool)
    reordered = {}
    for name, axes in parse(INPUTS).items():
        reordered[name] = fields[name]
        for dim in range(2, 2 + axes.count("n")):
            reordered[name] = reordered[name].index_select(dim, order)
    difference = network(reordered, every_node)[0] - network(fields, every_node)[0][:, :, order]
    assert (difference.abs().max() < 1e-12) == (kind == "lps_particle_gnn")


@every_network
def test_turned_vectors_are_seen(kind):
    """No network is equivariant to O(3): here, to the point reflection."""
    network, fields = make_network(kind), make_fields()
    reflected = {name: -field if parse(INPUTS)[name].letters & {"v", "p"} else field for name, field in fields.items()}
    difference = network(reflected, NODE_MASK)[0] + network(fields, NODE_MASK)[0]
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_mlp_reads_padded_fields_one_after_the_other(activation):
    config = MLPBaseConfig(hidden_sizes=[9, 8], activation=activation)
    inputs = {"edges": "n n 2", "nodes": "n v", "whole": "2"}
    network = make_network("lps_mlp", "n 2", inputs, max_nodes=5, config=config)
    fields = make_fields(4, inputs=inputs)
    result, (hidden,) = network(fields, torch.ones(3, 4, dtype=torch.bool))
    edges = torch.zeros(3, 2, 5, 5, 2, dtype=torch.float64)
    nodes = torch.zeros(3, 2, 5, 3, dtype=torch.float64)
    edges[:, :, :4, :4], nodes[:, :, :4] = fields["edges"], fields["nodes"]
    expected = torch.cat([edges.flatten(2), nodes.flatten(2), fields["whole"]], dim=2)
    first, second, last = network.layers
    for layer in (first, second):
        expected = getattr(torch, activation)(layer(expected))
    assert_equal(hidden, expected)
    assert_equal(result, last(expected).view(3, 2, 5, 2)[:, :, :4])


def test_gin_sums_over_incoming_edges_with_identifiers():
    """One graph with directed edges, node by node, in evaluation mode."""
    inputs = {"edges": "n n 2", "nodes": "n 3", "whole": "2"}
    network = make_network("lps_gin_id", "2", inputs, max_nodes=5)
    fields = {name: field[:1, :1] for name, field in make_fields(4, inputs=inputs).items()}
    fields["edges"][..., 0] = (fields["edges"][..., 0] > 0).double()
    result, _ = network(fields, torch.ones(1, 4, dtype=torch.bool))
    edges, whole = fields["edges"][0, 0], fields["whole"][0, 0]
    hidden = [torch.cat([fields["nodes"][0, 0, node], whole, F.one_hot(torch.tensor(node), 5)]) for node in range(4)]
    for layer in network.layers:

        def normalize(tensor, norm):
            return F.batch_norm(tensor.unsqueeze(0), norm.running_mean, norm.running_var, norm.weight, norm.bias)[0]

        updated = []
        for target in range(4):
            first = (1 + layer.eps) * hidden[target] + sum(edges[source, target, 0] * hidden[source] for source in range(4))
            second = sum(edges[source, target, 1] * hidden[source] for source in range(4))
            inner = normalize(layer.linear_in(torch.cat([first, second])), layer.norm_in).relu()
            updated.append(normalize(layer.linear_out(inner), layer.norm_out).relu())
        hidden = updated
    torch.testing.assert_close(result[0, 0], network.readout(torch.stack(hidden).mean(0)), rtol=1e-10, atol=1e-10)


def make_torch_encoder(network: BaseNetwork) -> nn.TransformerEncoder:
    """PyTorch's own transformer with the weights of ours."""
    config = network.config
    layer = nn.TransformerEncoderLayer(
        *(config.hidden_size, config.num_attention_heads, config.intermediate_size, config.dropout),
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    norm = nn.LayerNorm(config.hidden_size)
    encoder = nn.TransformerEncoder(layer, config.num_hidden_layers, norm, enable_nested_tensor=False).double().eval()
    own, rules = network.state_dict(), pair_transformer_rules(config.num_hidden_layers)
    for theirs, tensor in encoder.state_dict().items():
        tensor.copy_(torch.cat([own[name] for name in rules[f"encoder.{theirs}"].names]))
    return encoder


@pytest.mark.parametrize("output", ["n v", "n n 3", "3"])
def test_pair_transformer_is_pytorchs_on_pair_tokens(output):
    network, fields = make_network("lps_pair_transformer", output), make_fields()
    result, (hidden,) = network(fields, NODE_MASK)
    encoder = make_torch_encoder(network)
    positions = network.positions.weight.view(7, 7, -1)
    for system, size in enumerate(SIZES):
        box, x, v, pair, charge, bond = (field[0] for field in select(fields, system, size).values())
        node = torch.cat([x, v], dim=-1)
        on_diagonal = torch.eye(size, dtype=torch.float64).view(1, size, size, 1)
        columns = [
            box[:, None, None].expand(-1, size, size, -1),
            node[:, :, None] * on_diagonal,
            pair,
            charge[:, :, None] * on_diagonal,
            bond.unsqueeze(-1),
        ]
        tokens = network.projection(torch.cat(columns, dim=-1)) + positions[:size, :size]
        expected = encoder(tokens.flatten(1, 2)).view(2, size, size, -1)
        if output == "n v":
            expected = expected.diagonal(dim1=1, dim2=2).mT
            assert_equal(hidden[system, :, :size], expected)
        if output == "3":
            expected = expected.mean(dim=(1, 2))
        expected = network.readout_out(network.readout_in(expected.relu()).relu())
        found = resize(result[system : system + 1], Representation.parse(output), size)[0]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_attention_without_padding_needs_no_mask(monkeypatch):
    """A compiled model, which cannot look at the mask, gives the same."""
    network, fields = make_network("lps_pair_transformer"), make_fields()
    every_node = torch.ones(3, 6, dtype=torch.bool)
    masks = []
    network.blocks[0].register_forward_pre_hook(lambda module, args: masks.append(args[1]))
    result, _ = network(fields, every_node)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_equal(network(fields, every_node)[0], result)
    without, with_mask = masks
    assert without is None
    assert with_mask.all()


def test_particle_gnn_sums_messages_of_the_others():
    """One system, pair by pair."""
    inputs = {"x": "n p", "pairs": "n n 2", "whole": "2"}
    network = make_network("lps_particle_gnn", "n 2", inputs)
    fields = {name: field[:1, :1] for name, field in make_fields(4, inputs=inputs).items()}
    result, _ = network(fields, torch.ones(1, 4, dtype=torch.bool))
    x, pairs, whole = (field[0, 0] for field in fields.values())
    hidden = [network.embedding(torch.cat([x[node], whole])) for node in range(4)]
    for layer in network.layers:
        updated = []
        for i in range(4):
            others = [torch.cat([hidden[i], hidden[j], pairs[i, j]]) for j in range(4) if j != i]
            first = layer.message_in
            messages = sum(F.silu(layer.message_out(F.silu(F.linear(other, first.weight, first.bias)))) for other in others)
            updated.append(layer.update_out(F.silu(layer.update_in(torch.cat([hidden[i], messages])))))
        hidden = updated
    expected = network.readout_out(F.silu(network.readout_in(torch.stack(hidden))))
    torch.testing.assert_close(result[0, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["lps_gin_id", "lps_pair_transformer"])
def test_dropout_is_for_training(kind):
    values = CONFIGS[kind].to_dict() | {"dropout": 0.5}
    network, fields = make_network(kind, config=type(CONFIGS[kind]).from_dict(values)), make_fields()
    assert torch.equal(network(fields, NODE_MASK)[0], network(fields, NODE_MASK)[0])
    assert_equal(network(fields, NODE_MASK)[0], make_network(kind)(fields, NODE_MASK)[0])
    network.train()
    assert not torch.equal(network(fields, NODE_MASK)[0], network(fields, NODE_MASK)[0])


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("lps_gin_id", {"output": "n n 2"}, "output: GINIDBase gives 0, 1 node axes.*MLPBase and PairTransformerBase"),
        ("lps_particle_gnn", {"output": "n n 2"}, "output: ParticleGNNBase gives 0, 1 node axes"),
        ("lps_mlp", {"output": "n n n 2"}, "output: expected up to two node axes.*got 'n n n 2'"),
        ("lps_mlp", {"inputs": {"pixel_values": "3 h w"}}, r"inputs\['pixel_values'\]: expected up to two node axes"),
        ("lps_mlp", {"inputs": {"x": "3 n"}}, r"inputs\['x'\]: expected up to two node axes"),
        ("lps_mlp", {"inputs": {}}, "inputs: MLPBase needs a field"),
        ("lps_mlp", {"dimension": None}, r"dimension: expected a number for the axes 'n p' of inputs\['positions'\]"),
        ("lps_gin_id", {"inputs": {"x": "n 3"}}, "inputs: GINIDBase needs a field with 2 node axes"),
        ("lps_particle_gnn", {"inputs": {"x": "n n 3"}}, "inputs: ParticleGNNBase needs a field with 1 node axes"),
        ("lps_pair_transformer", {"inputs": {"x": "3"}}, "inputs: PairTransformerBase needs a field with 1 or 2 node axes"),
    ],
)
def test_what_a_network_cannot_do_is_refused(kind, change, message):
    with pytest.raises(ValueError, match=message):
        make_network(kind, **change)


@every_network
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields | {"charges": fields["charges"][..., 0]}, r"fields\['charges'\]: .*\(3, num_samples, 6, 1\)"),
        (lambda fields: fields | {"charges": fields["charges"][:2]}, r"fields\['charges'\]: .*got \(2, 2, 6, 1\)"),
        (lambda fields: fields | {"positions": fields["positions"][..., :2]}, r"fields\['positions'\]: .*for 'n p'"),
        (lambda fields: fields | {"bonds": fields["bonds"][:, :, :5]}, r"fields\['bonds'\]: .*\(3, num_samples, 6, 6\)"),
        (lambda fields: {name: field for name, field in fields.items() if name != "box"}, "fields: expected .*no 'box'"),
    ],
)
def test_fields_that_do_not_fit_are_refused(kind, change, message):
    with pytest.raises(ValueError, match=message):
        make_network(kind)(change(make_fields()), NODE_MASK)


@every_network
def test_more_nodes_than_there_is_room_for_are_refused(kind):
    with pytest.raises(ValueError, match="expected at most max_nodes=7 nodes, got 8"):
        make_network(kind)(make_fields(8), torch.ones(3, 8, dtype=torch.bool))


def test_networks_and_configurations_share_their_keys():
    assert list(BASE_NETWORKS) == list(BASE_NETWORK_CONFIGS) == list(CONFIGS)
    assert {key: config.model_type for key, config in BASE_NETWORK_CONFIGS.items()} == {key: key for key in BASE_NETWORKS}


def test_defaults_are_the_papers():
    mlp, gin, transformer, gnn = (config() for config in BASE_NETWORK_CONFIGS.values())
    assert (mlp.hidden_sizes, mlp.activation) == ([2048, 4096, 2048, 10], "relu")
    assert (gin.hidden_size, gin.num_layers, gin.dropout) == (64, 3, 0.0)
    assert (transformer.hidden_size, transformer.num_hidden_layers, transformer.num_attention_heads) == (64, 8, 4)
    assert (transformer.intermediate_size, transformer.dropout) == (64, 0.0)
    assert (gnn.hidden_size, gnn.num_hidden_layers) == (60, 4)


@every_network
def test_configurations_survive_json(kind, tmp_path):
    config = CONFIGS[kind]
    again = type(config).from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict()
    config.save_pretrained(tmp_path)
    loaded = type(config).from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.to_dict() != type(config)().to_dict()
    assert BASE_NETWORK_CONFIGS[kind](**config.to_dict()).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (MLPBaseConfig, {"hidden_sizes": []}, r"hidden_sizes: expected a list of positive widths.*got \[\]"),
        (MLPBaseConfig, {"hidden_sizes": [8, 0]}, r"hidden_sizes: .*got \[8, 0\]"),
        (MLPBaseConfig, {"hidden_sizes": [8.0]}, "hidden_sizes: "),
        (MLPBaseConfig, {"hidden_sizes": 8}, "hidden_sizes: .*got int 8"),
        (MLPBaseConfig, {"activation": "gelu"}, "activation: expected 'relu' or 'tanh', got 'gelu'"),
        (GINIDBaseConfig, {"hidden_size": 0}, "hidden_size: expected a whole number of at least 1, got 0"),
        (GINIDBaseConfig, {"num_layers": True}, "num_layers: .*got bool True"),
        (GINIDBaseConfig, {"dropout": 1.0}, "dropout: expected a number from 0 to below 1, got 1.0"),
        (GINIDBaseConfig, {"dropout": "0.1"}, "dropout: .*got str '0.1'"),
        (
            PairTransformerBaseConfig,
            {"num_attention_heads": 3},
            "num_attention_heads: expected a divisor of hidden_size = 64, got 3",
        ),
        (PairTransformerBaseConfig, {"num_hidden_layers": 0}, "num_hidden_layers: "),
        (PairTransformerBaseConfig, {"num_attention_heads": 0}, "num_attention_heads: .*at least 1"),
        (PairTransformerBaseConfig, {"intermediate_size": 1.5}, "intermediate_size: "),
        (PairTransformerBaseConfig, {"dropout": -0.1}, "dropout: "),
        (ParticleGNNBaseConfig, {"hidden_size": None}, "hidden_size: .*got NoneType None"),
        (ParticleGNNBaseConfig, {"num_hidden_layers": 0}, "num_hidden_layers: "),
    ],
)
def test_wrong_values_are_refused(config, values, message):
    with pytest.raises((ValueError, TypeError), match=message):
        config(**values)


PUBLISHED_CONFIGS = {
    "exp_mlp": MLPBaseConfig(hidden_sizes=[64, 128, 64, 10]),
    "nbody_transformer": PairTransformerBaseConfig(),
    "nbody_gnn": ParticleGNNBaseConfig(),
}
PUBLISHED_RULES = {
    "exp_mlp": mlp_rules(),
    "nbody_transformer": pair_transformer_rules(8),
    "nbody_gnn": particle_gnn_rules(4),
}
PARTICLES = {"positions": "n p", "velocities": "n v", "pair_features": "n n 2"}
GRAPHS = {"node_features": "n 2", "edge_features": "n n 1"}
every_case = pytest.mark.parametrize("case", PUBLISHED_CONFIGS)
every_variant = pytest.mark.parametrize("variant", ["k1", "k3"])


@lru_cache
def load_case(case: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / case / f"{case}.safetensors")


def make_published(case: str, output: str | None = None) -> BaseNetwork:
    """A network with the published weights, in double precision."""
    inputs, max_nodes = (GRAPHS, 64) if case == "exp_mlp" else (PARTICLES, 5)
    output = output or ("1" if case == "exp_mlp" else "n v")
    config = PUBLISHED_CONFIGS[case]
    network = BASE_NETWORKS[config.model_type](config, parse(inputs), Representation.parse(output), max_nodes, 3)
    prefix = "state_dict/backbone."
    published = {key.removeprefix(prefix): value for key, value in load_case(case).items() if key.startswith(prefix)}
    assert published.keys() == PUBLISHED_RULES[case].keys()
    network.load_state_dict(apply_rules(PUBLISHED_RULES[case], published))
    return network.double().eval().requires_grad_(False)


def transformed_graphs(variant: str) -> dict[str, Tensor]:
    """The graphs of the EXP case, padded and sorted."""
    arrays = load_case("exp_mlp")
    nodes, edges = [], []
    for graph, size in enumerate(arrays["input/num_nodes"].tolist()):
        source, target = arrays[f"input/g{graph}/edge_index"].long()
        adjacency = torch.zeros(64, 64, dtype=torch.float64)
        adjacency[source, target] = 1
        features = F.pad(arrays[f"input/g{graph}/x"].double(), (0, 0, 0, 64 - size))
        ranks = arrays[f"{variant}/perm_index/g{graph}"].long()
        orders = torch.cat([ranks, torch.arange(size, 64).expand(len(ranks), -1)], dim=1)
        nodes.append(torch.stack([features[order] for order in orders]))
        edges.append(torch.stack([adjacency[order][:, order] for order in orders]))
    return {"node_features": torch.stack(nodes), "edge_features": torch.stack(edges).unsqueeze(-1)}


def transformed_particles(case: str, variant: str) -> dict[str, Tensor]:
    """The particles of a case in the recorded order and frame, in double precision."""
    arrays = load_case(case)
    positions, velocities, charges = (arrays[f"input/{name}"].double() for name in ("loc", "vel", "charges"))
    # Recorded pair features are rounded; in double precision the published code made them from the positions.
    distances = (positions.unsqueeze(2) - positions.unsqueeze(1)).square().sum(dim=-1)
    products = (charges.unsqueeze(2) * charges.unsqueeze(1)) * (1 - torch.eye(5, dtype=torch.float64))
    pairs = torch.stack([products, distances], dim=-1)
    torch.testing.assert_close(pairs.float(), arrays["input/edge_features"])
    positions = positions - positions.mean(dim=1, keepdim=True)
    index = arrays[f"{variant}/perm_index"].long()
    if case == "nbody_gnn":  # O(3) only: the recorded order is not used
        index = torch.arange(5).expand_as(index)
    system = torch.arange(4).view(4, 1, 1)
    turned = [vectors[system, index] @ arrays[f"{variant}/fp64/rotation"] for vectors in (positions, velocities)]
    pairs = pairs[system.unsqueeze(-1), index.unsqueeze(-1), index.unsqueeze(-2)]
    return dict(zip(PARTICLES, [*turned, pairs], strict=True))


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected entry."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@with_recordings
@every_variant
@every_case
def test_published_output_in_double_precision(case, variant):
    network = make_published(case)
    fields = transformed_graphs(variant) if case == "exp_mlp" else transformed_particles(case, variant)
    num_nodes = 64 if case == "exp_mlp" else 5
    result, _ = network(fields, torch.ones(4, num_nodes, dtype=torch.bool))
    recorded = load_case(case)
    if case == "exp_mlp":
        assert deviation(result, recorded[f"{variant}/fp64/output_samples"]) < 1e-12
    else:
        assert deviation(result.flatten(0, 1), recorded[f"{variant}/fp64/backbone_output"]) < 1e-12


@with_recordings
@every_variant
def test_published_graphs_need_no_padding_by_the_caller(variant):
    """Cropped to the batch's largest graph, and with a mask, they give the same."""
    arrays, fields = load_case("exp_mlp"), transformed_graphs(variant)
    sizes = arrays["input/num_nodes"]
    longest = int(sizes.max())
    assert longest < 64
    cropped = {"node_features": fields["node_features"][:, :, :longest]}
    cropped["edge_features"] = fields["edge_features"][:, :, :longest, :longest]
    result, _ = make_published("exp_mlp")(cropped, torch.arange(longest) < sizes.unsqueeze(1))
    assert deviation(result, arrays[f"{variant}/fp64/output_samples"]) < 1e-12


@with_recordings
@every_variant
@every_case
def test_published_layers_in_single_precision(case, variant):
    """Of tokens and hidden layers only single precision was recorded."""
    recorded, seen = load_case(case), []
    # With a read-out of pairs, the transformer's last layer gives all tokens.
    network = make_published(case, "n n 3" if case == "nbody_transformer" else None).float()
    first = {"exp_mlp": "layers.0", "nbody_transformer": "projection", "nbody_gnn": "embedding"}[case]
    network.get_submodule(first).register_forward_hook(lambda module, args, output: seen.append(output))
    if case == "exp_mlp":
        fields = {name: field.float() for name, field in transformed_graphs(variant).items()}
        if variant == "k1":
            flat = torch.cat([field.flatten(2) for field in fields.values()], dim=2)
            assert torch.equal(flat, recorded["k1/backbone_input"])
    else:
        nodes, pairs = (recorded[f"{variant}/{name}_features_transformed"] for name in ("node", "edge"))
        fields = dict(zip(PARTICLES, [*nodes.unbind(-1), pairs], strict=True))
    num_nodes = 64 if case == "exp_mlp" else 5
    result, (hidden,) = network(fields, torch.ones(4, num_nodes, dtype=torch.bool))
    tokens, unpooled = (recorded[f"{variant}/{name}"] for name in ("tokens", "backbone_unpooled"))
    if case == "exp_mlp":
        assert deviation(seen[0], tokens) < 1e-5
        assert deviation(hidden, unpooled.relu()) < 1e-5
        assert deviation(result, recorded[f"{variant}/output_samples"]) < 1e-5
        return
    if case == "nbody_transformer":
        result = result.diagonal(dim1=2, dim2=3).movedim(-1, 2)
    assert deviation(seen[0].reshape(tokens.shape), tokens) < 1e-5
    assert deviation(hidden.flatten(0, 1), unpooled) < 1e-5
    assert deviation(result.flatten(0, 1), recorded[f"{variant}/backbone_output"]) < 1e-5
