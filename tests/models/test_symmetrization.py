"""The law: averages over the group are equivariant for any base function, and the error bar says what it claims."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lps_hf.models.distributions import DistributionSample, EquivariantDistribution
from lps_hf.models.elements import Permutation
from lps_hf.models.links import LINKS, apply_link
from lps_hf.models.representations import Batch, EdgeField, Representation
from lps_hf.models.symmetric_group import SymmetricGroup
from lps_hf.models.symmetrization import (
    Estimate,
    RunningEstimate,
    StoppingRule,
    Symmetrization,
)
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
    return average(base, [DistributionSample(elements)], fields, output, mask)


def symmetrization(output: str, **options) -> Symmetrization:
    return Symmetrization(EquivariantDistribution(GROUP, "haar", INPUTS), Representation.parse(output), **options)


def average(base: nn.Module, draws: list[DistributionSample], fields: dict, output: str, mask: Tensor) -> Estimate:
    batch = Batch(fields, mask, *empty_edges(len(mask)))
    return symmetrization(output).estimate(lambda turned, _: base(turned), draws, batch)[0]


def estimate(samples: Tensor, block_size: int = 1) -> Estimate:
    running = RunningEstimate(block_size)
    running.add(samples)
    return running.result()


def link_errors(samples: Tensor, link: str, block_size: int = 1) -> Tensor:
    found = estimate(samples, block_size)
    rows = torch.zeros(len(samples), dtype=torch.bool)
    spread = torch.zeros_like(found.mean) if found.standard_error is None else found.standard_error
    return symmetrization("10", link=link).link_errors(samples, spread, rows, block_size)


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
    mask = torch.ones(1, 4, dtype=torch.bool)
    weights = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    alone = [run(base, elements.map(lambda index, k=k: index[:, k : k + 1]), fields, "n 2").mean for k in range(3)]
    draw = DistributionSample(elements, weights=weights)
    result = average(base, [draw], fields, "n 2", mask)
    torch.testing.assert_close(result.mean, 0.5 * alone[0] + 0.25 * alone[1] + 0.25 * alone[2], rtol=0, atol=1e-12)
    assert result.standard_error is None


@pytest.mark.parametrize("output", ["n 2", "n n 1"])
def test_padding_goes_out_as_zero(output):
    base, fields, mask = OrderedBase(output), random_fields(), torch.tensor([[True, True, True, False]])
    elements = GROUP.haar(mask, 3, seeded(0))
    plain = run(base, elements, fields, output)
    result = average(base, [DistributionSample(elements)], fields, output, mask)
    inside = (slice(None), *[slice(0, 3)] * output.count("n"))
    for name in ("mean", "standard_error"):
        expected = torch.zeros_like(getattr(plain, name))
        expected[inside] = getattr(plain, name)[inside]
        assert torch.equal(getattr(result, name), expected)


@pytest.mark.parametrize("group_size", [1, 4])
@pytest.mark.parametrize("sizes", [(12,), (4, 8), (4, 4, 4), (8, 4)])
def test_parts_give_the_estimate_of_the_whole(group_size, sizes):
    samples = 5 + torch.randn(3, 12, 2, generator=seeded(0), dtype=torch.float64)
    running = RunningEstimate(group_size)
    for part in samples.split(sizes, dim=1):
        running.add(part)
    groups = samples.unflatten(1, (-1, group_size)).mean(2)
    result = running.result()
    torch.testing.assert_close(result.mean, samples.mean(1), rtol=1e-14, atol=0)
    torch.testing.assert_close(result.standard_error, groups.std(1) / groups.shape[1] ** 0.5, rtol=1e-12, atol=0)


def test_one_group_of_dependent_samples_has_no_error_bar():
    assert estimate(torch.randn(3, 4, 2), block_size=4).standard_error is None
    assert estimate(torch.randn(3, 3, 2), block_size=4).standard_error is None  # a part of one
    assert link_errors(torch.randn(3, 4, 2), "identity", 4).isinf().all()


def test_the_terms_of_an_exact_average_may_come_in_parts():
    samples, weights = torch.randn(3, 5, 2, dtype=torch.float64), torch.rand(3, 5, dtype=torch.float64)
    running = RunningEstimate()
    for part in (slice(0, 2), slice(2, 5)):
        running.add(samples[:, part], weights[:, part])
    torch.testing.assert_close(running.result().mean, (samples * weights.unsqueeze(-1)).sum(1))
    assert running.result().standard_error is None


@pytest.mark.parametrize("link", LINKS)
def test_the_error_of_a_link_is_its_spread_over_repeated_estimates(link):
    center = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    mixing = torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.5, 0.2], [0.0, 0.0, 0.9]], dtype=torch.float64)
    samples = center + torch.randn(2_000, 100, 3, generator=seeded(1), dtype=torch.float64) @ mixing
    claimed = link_errors(samples, link).amax(dim=1).square().mean().sqrt()
    means = samples.mean(dim=1)
    linked = {"identity": means, "sigmoid": means.sigmoid(), "softmax": means.softmax(-1)}[link]
    assert 0.9 < claimed / linked.std(dim=0).max() < 1.1


def test_what_all_classes_have_in_common_does_not_move_a_softmax():
    shift = torch.randn(2, 50, 4, 1, generator=seeded(2), dtype=torch.float64)
    samples = shift + torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    errors = link_errors(samples, "softmax")
    assert errors.shape == (2, 4, 3)
    assert errors.max() < 1e-14
    assert link_errors(samples, "sigmoid").min() > 1e-3
    torch.testing.assert_close(link_errors(samples, "identity"), estimate(samples).standard_error)


def test_an_unknown_link_is_refused():
    with pytest.raises(ValueError, match="link: expected one of 'identity', 'sigmoid', 'softmax', got 'exp'"):
        link_errors(torch.randn(1, 2, 3), "exp")
    with pytest.raises(ValueError, match="link: expected one of 'identity', 'sigmoid', 'softmax', got 'exp'"):
        apply_link(torch.randn(1, 3), "exp")


def noisy_estimate(tolerance: float, max_samples: int = 100, sampler: str = "independent", chunk_size: int = 10):
    """Estimates of inputs whose samples spread differently: not at all, by 0.1, and by 1."""
    mask = torch.ones(3, 4, dtype=torch.bool)
    scale = torch.tensor([0.0, 0.1, 1.0], dtype=torch.float64)
    batch = Batch({"nodes": scale.view(3, 1, 1) * torch.randn(1, 4, 1, dtype=torch.float64)}, mask, *empty_edges(3))
    distribution = EquivariantDistribution(GROUP, "haar", {"nodes": Representation.parse("n 1")}, sampler=sampler)
    calls: list[int] = []

    def base(fields, part):
        calls.append(len(part.node_mask))
        return fields["nodes"][:, :, :2, 0]  # two nodes in random order

    law = Symmetrization(distribution, Representation.parse("2"))
    rule = StoppingRule(tolerance, 10, max_samples, chunk_size)
    return law.estimate_to_tolerance(base, batch, rule), calls, batch.fields["nodes"].mean(dim=(1, 2))


def empty_edges(batch: int) -> tuple:
    return torch.zeros(batch, 2, 0, dtype=torch.int64), torch.ones(batch, 0, dtype=torch.bool)


@pytest.mark.parametrize("sampler", ["independent", "antithetic", "stratified"])
def test_every_input_gets_the_samples_that_it_needs(sampler):
    result, calls, exact = noisy_estimate(0.02, 100_000, sampler)
    few, some, many = result.num_samples.tolist()
    assert few <= 32  # the first chunk: there is nothing to be sure of
    assert few <= some < many
    assert (result.standard_error <= 0.02).all()
    assert result.standard_error[2].max() > 0.015  # and it does not go on for much longer
    assert ((result.mean - exact.unsqueeze(1)).abs() <= 4 * result.standard_error + 1e-12).all()
    assert calls[0] == 3
    assert calls[-1] == 1  # inputs that are done are not computed again


def test_it_stops_at_the_largest_number_of_samples():
    result, _, _ = noisy_estimate(1e-6, max_samples=47)
    assert result.num_samples.tolist() == [10, 47, 47]
    assert result.standard_error[2].max() > 1e-3


def test_one_sample_at_most_is_one_sample():
    result, _, _ = noisy_estimate(1e-6, max_samples=1)
    assert result.num_samples.tolist() == [1, 1, 1]
    assert result.standard_error.isinf().all()
