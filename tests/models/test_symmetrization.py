"""The law: averages over the group are equivariant for any base function, and the error bar says what it claims."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lps_hf.models.elements import Permutation
from lps_hf.models.representations import EdgeField, Representation
from lps_hf.models.symmetric_group import SymmetricGroup
from lps_hf.models.symmetrization import average_over_group, estimate
from tests.models.graph_cases import densify, place_nodes, seeded

GROUP = SymmetricGroup()
INPUTS = {
    "graph": Representation.parse("2"),
    "nodes": Representation.parse("n 3"),
    "edges": Representation.parse("n n 2"),
}
OUTPUTS = {"10": (10,), "n 2": (4, 2), "n n 1": (4, 4, 1)}
every_output = pytest.mark.parametrize("output", OUTPUTS)


class OrderedBase(nn.Module):
    """A function of four nodes that knows nothing of symmetry."""

    def __init__(self, output: str, num_nodes: int = 4) -> None:
        super().__init__()
        self.shape = tuple(num_nodes if axis == "n" else axis for axis in Representation.parse(output).axes)
        size = 2 + 3 * num_nodes + 2 * num_nodes**2
        self.layers = nn.Sequential(nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, int(torch.tensor(self.shape).prod())))
        self.double()

    def forward(self, fields: dict[str, Tensor | EdgeField]) -> Tensor:
        edges = densify(fields["edges"], fields["nodes"].shape[2])
        flat = torch.cat([fields["graph"], fields["nodes"].flatten(2), edges.flatten(2)], dim=-1)
        return self.layers(flat).unflatten(-1, self.shape)


def random_fields() -> dict[str, Tensor | EdgeField]:
    source = seeded(0)
    edges = EdgeField(torch.randint(4, (1, 2, 7), generator=source), torch.randn(1, 7, 2, generator=source, dtype=torch.float64))
    nodes = torch.randn(1, 4, 3, generator=source, dtype=torch.float64)
    return {"graph": torch.randn(1, 2, generator=source, dtype=torch.float64), "nodes": nodes, "edges": edges}


def moved(fields: dict[str, Tensor | EdgeField], h: Tensor) -> dict[str, Tensor | EdgeField]:
    """h·x as a data set would store it."""
    edges = replace(fields["edges"], index=h[fields["edges"].index])
    return {"graph": fields["graph"], "nodes": place_nodes(fields["nodes"], h.unsqueeze(0), dim=1), "edges": edges}


def act(h: Tensor, tensor: Tensor, output: str) -> Tensor:
    for dim in range(1, 1 + output.count("n")):
        tensor = place_nodes(tensor, h.expand(len(tensor), -1), dim=dim)
    return tensor


def run(base: nn.Module, elements: Permutation, fields: dict[str, Tensor | EdgeField], output: str):
    mask = torch.ones(fields["nodes"].shape[:2], dtype=torch.bool)
    return average_over_group(base, GROUP, elements, fields, INPUTS, Representation.parse(output), mask)


@every_output
def test_the_average_over_all_of_s4_is_equivariant_under_every_element(output):
    base, fields, everything = OrderedBase(output), random_fields(), GROUP.enumerate(4)
    mean = run(base, everything, fields, output).mean
    assert mean.shape == (1, *OUTPUTS[output])
    identity = GROUP.identity(torch.ones(1, 4, dtype=torch.bool), 1)
    for h in everything.index[0]:
        result = run(base, everything, moved(fields, h), output).mean
        torch.testing.assert_close(result, act(h, mean, output), rtol=0, atol=1e-10)
    h = torch.tensor([2, 0, 3, 1])
    alone, turned = (run(base, identity, x, output).mean for x in (fields, moved(fields, h)))
    assert (turned - act(h, alone, output)).abs().max() > 1e-3  # the base function itself is not equivariant


@every_output
def test_one_element_that_moves_with_the_input_is_exactly_equivariant(output):
    base, fields = OrderedBase(output), random_fields()
    g, h = Permutation(torch.tensor([[[1, 3, 0, 2]]])), torch.tensor([2, 0, 3, 1])
    moved_element = GROUP.compose(Permutation(h.view(1, 1, 4)), g)
    expected = act(h, run(base, g, fields, output).mean, output)
    torch.testing.assert_close(run(base, moved_element, moved(fields, h), output).mean, expected, rtol=0, atol=1e-12)
    unmoved = run(base, g, moved(fields, h), output).mean
    assert (unmoved - expected).abs().max() > 1e-3


@every_output
def test_the_estimate_follows_its_definition(output):
    base, fields, elements = OrderedBase(output), random_fields(), GROUP.haar(torch.ones(1, 4, dtype=torch.bool), 5)
    samples = []
    for index in elements.index[0]:
        # g⁻¹·x: node g(r) comes to place r.
        inverse = torch.empty_like(index)
        inverse[index] = torch.arange(4)
        unturned = {name: field if name == "edges" else field.unsqueeze(1) for name, field in moved(fields, inverse).items()}
        samples.append(act(index, base(unturned)[:, 0], output))
    result = run(base, elements, fields, output)
    torch.testing.assert_close(result.mean, torch.stack(samples).mean(0), rtol=0, atol=1e-12)
    error = torch.stack(samples).std(0) / 5**0.5
    torch.testing.assert_close(result.standard_error, error, rtol=0, atol=1e-12)


def test_the_estimate_is_unbiased():
    base, fields = OrderedBase("10"), random_fields()
    exact = run(base, GROUP.enumerate(4), fields, "10").mean
    drawn = run(base, GROUP.haar(torch.ones(1, 4, dtype=torch.bool), 4_000, seeded(1)), fields, "10")
    assert ((drawn.mean - exact).abs() < 4 * drawn.standard_error).all()
    assert drawn.standard_error.max() < 0.02


def test_one_sample_has_no_error_bar():
    samples = torch.randn(3, 1, 4)
    result = estimate(samples)
    assert torch.equal(result.mean, samples[:, 0])
    assert result.standard_error is None


def test_the_error_bar_is_detached_and_the_mean_is_not():
    samples = torch.randn(3, 6, 4, dtype=torch.float64, requires_grad=True)
    result = estimate(samples)
    assert not result.standard_error.requires_grad
    result.mean.sum().backward()
    torch.testing.assert_close(samples.grad, torch.full_like(samples, 1 / 6))


def test_the_error_bar_of_known_numbers():
    result = estimate(torch.tensor([[[1.0], [2.0], [3.0], [6.0]]]))
    assert result.mean.tolist() == [[3.0]]
    # Squared deviations 4, 1, 0, 9: variance 14 / 3, of the mean 14 / 12.
    torch.testing.assert_close(result.standard_error, torch.tensor([[(14 / 12) ** 0.5]]))


@pytest.mark.parametrize("num_samples", [2, 4, 16, 64])
def test_the_error_bar_is_the_spread_of_repeated_estimates(num_samples):
    base, fields = OrderedBase("10"), random_fields()
    elements = GROUP.haar(torch.ones(1, 4, dtype=torch.bool), 200 * num_samples, seeded(num_samples))
    turned = {
        name: GROUP.act_inverse(elements, field if name == "edges" else field.unsqueeze(1), INPUTS[name])
        for name, field in fields.items()
    }
    samples = GROUP.act(elements, base(turned), Representation.parse("10")).detach()
    repeated = estimate(samples.unflatten(1, (200, num_samples))[0])
    claimed = repeated.standard_error.square().mean().sqrt()
    spread = repeated.mean.var(dim=0).mean().sqrt()
    assert 0.8 < claimed / spread < 1.25
    everything = run(base, GROUP.enumerate(4), fields, "10").standard_error * 24**0.5
    population = everything.square().mean().mul(23 / 24).sqrt()
    assert 0.8 < claimed * num_samples**0.5 / population < 1.25


def test_samples_are_not_mixed_up_between_graphs():
    base = OrderedBase("n 2")
    fields = random_fields()
    twice = {
        "graph": fields["graph"].repeat(2, 1),
        "nodes": fields["nodes"].repeat(2, 1, 1),
        "edges": EdgeField(fields["edges"].index.repeat(2, 1, 1), fields["edges"].features.repeat(2, 1, 1)),
    }
    twice["nodes"][1] += 1
    elements = GROUP.haar(torch.ones(2, 4, dtype=torch.bool), 3, seeded(2))
    together = run(base, elements, twice, "n 2").mean
    for graph in range(2):
        row = slice(graph, graph + 1)
        alone = {name: field[row] for name, field in twice.items() if name != "edges"}
        alone["edges"] = EdgeField(twice["edges"].index[row], twice["edges"].features[row])
        result = run(base, Permutation(elements.index[row]), alone, "n 2")
        torch.testing.assert_close(result.mean[0], together[graph])


def test_an_exact_average_weighs_its_elements_and_has_no_error_bar():
    base, fields, elements = OrderedBase("n 2"), random_fields(), GROUP.enumerate(4).map(lambda index: index[:, :3])
    mask, output = torch.ones(1, 4, dtype=torch.bool), Representation.parse("n 2")
    weights = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    alone = [run(base, elements.map(lambda index, k=k: index[:, k : k + 1]), fields, "n 2").mean for k in range(3)]
    result = average_over_group(base, GROUP, elements, fields, INPUTS, output, mask, weights)
    torch.testing.assert_close(result.mean, 0.5 * alone[0] + 0.25 * alone[1] + 0.25 * alone[2], rtol=0, atol=1e-12)
    assert result.standard_error is None


@pytest.mark.parametrize("output", ["n 2", "n n 1"])
def test_padding_goes_out_as_zero(output):
    base, fields, mask = OrderedBase(output), random_fields(), torch.tensor([[True, True, True, False]])
    elements = GROUP.haar(mask, 3, seeded(0))
    plain = run(base, elements, fields, output)
    result = average_over_group(base, GROUP, elements, fields, INPUTS, Representation.parse(output), mask)
    inside = (slice(None), *[slice(0, 3)] * output.count("n"))
    for name in ("mean", "standard_error"):
        expected = torch.zeros_like(getattr(plain, name))
        expected[inside] = getattr(plain, name)[inside]
        assert torch.equal(getattr(result, name), expected)
