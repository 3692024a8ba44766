"""Samplers: the law of every draw, what the draws of a group have in common, and that estimates stay unbiased and equivariant."""

import itertools
import re

import pytest
import torch
from torch import Tensor, nn

import lps_hf
from lps_hf.models import samplers
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.elements import FiniteElement
from lps_hf.models.groups import get_group
from lps_hf.models.modeling_heads_lps import PARTICLE_DEFAULTS, LPSForParticleDynamics
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.samplers import SAMPLERS
from lps_hf.testing import assert_equivariant
from tests.models.graph_cases import random_batch, seeded, tiny_config, tiny_model

CPU = torch.device("cpu")
# Every sampler with some sizes of its groups.
CASES = [("independent", 1), ("antithetic", 2), ("stratified", 4), ("stratified", 5), ("orthogonal", 4), ("orthogonal", 12)]
DEPENDENT = [case for case in CASES if case[1] > 1]
every_case = pytest.mark.parametrize(("name", "size"), CASES)
every_dependent_case = pytest.mark.parametrize(("name", "size"), DEPENDENT)


def kolmogorov(probabilities: Tensor) -> float:
    """√n times the largest distance between the distribution function of values and that of Uniform(0, 1), over columns.

    Args:
        probabilities: (n, columns), the values' own distribution function at each of them.
    """
    ordered = probabilities.sort(dim=0).values
    steps = torch.arange(len(ordered), dtype=torch.float64).unsqueeze(-1) / len(ordered)
    distance = torch.maximum((ordered - steps).abs(), (ordered - steps - 1 / len(ordered)).abs())
    return float(distance.max() * len(ordered) ** 0.5)


def assert_law(draws: Tensor, distribution_function, bound: float = 2.6) -> None:
    """Each draw of a group (batch, m, numbers) has the law, and its numbers are uncorrelated. P(exceeded) < 3e-6 a column."""
    for draw in draws.unbind(1):
        probabilities = distribution_function(draw.double())
        assert kolmogorov(probabilities) < bound
        correlations = torch.corrcoef(probabilities.T) - torch.eye(probabilities.shape[1], dtype=torch.float64)
        assert correlations.abs().max() < 5 / len(draw) ** 0.5


def normal_probability(values: Tensor) -> Tensor:
    return torch.special.ndtr(values)


# ------------------------------------------------------------------------------------------------------------------ the law


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_uniform_draw_is_uniform(name, size, dtype):
    draws = SAMPLERS[name].uniform((4000, size, 3, 2), seeded(0), CPU, dtype)
    assert draws.dtype == dtype
    assert draws.shape == (4000, size, 3, 2)
    assert draws.min() >= 0
    assert draws.max() <= 1
    assert_law(draws.flatten(2), lambda values: values)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_normal_draw_is_normal(name, size, dtype):
    draws = SAMPLERS[name].normal((4000, size, 2, 3, 2), seeded(0), CPU, dtype)
    assert draws.dtype == dtype
    assert draws.shape == (4000, size, 2, 3, 2)
    assert_law(draws.flatten(2), normal_probability)


@every_case
@pytest.mark.parametrize("group", ["SO(3)", "O(3)"])
def test_scores_of_matrices_are_normal_and_their_elements_haar(name, size, group):
    group, mask = get_group(group), torch.ones(4000, 1, dtype=torch.bool)
    scores = group.draw_scores(mask, size, seeded(1), SAMPLERS[name])
    assert scores.shape == (4000, size, 3, 3)
    assert_law(scores.flatten(2), normal_probability)
    matrices = group.project(scores, mask, scores).matrix
    for drawn in matrices.unbind(1):
        # An entry of a Haar matrix is uniform in [-1, 1], and so is each coordinate of a vector that it turns.
        turned = drawn @ torch.tensor([0.36, 0.48, 0.8], dtype=torch.float64)
        assert kolmogorov((torch.cat([drawn.flatten(1), turned], dim=1) + 1) / 2) < 2.6
        assert (drawn.mean(dim=0).abs() < 5 / (3 * len(drawn)) ** 0.5).all()


@every_case
def test_unitary_scores_are_complex_normal(name, size):
    size = {5: 5, 12: 8}.get(size, size)
    group, mask = get_group("U(2)"), torch.ones(4000, 1, dtype=torch.bool)
    scores = group.draw_scores(mask, size, seeded(2), SAMPLERS[name])
    assert scores.dtype == torch.complex128
    assert_law(2**0.5 * torch.view_as_real(scores).flatten(2), normal_probability)


@pytest.mark.parametrize(("name", "size"), [("antithetic", 2), ("stratified", 4), ("orthogonal", 4), ("orthogonal", 8)])
@pytest.mark.parametrize("group", ["C_8", "D_4"])
def test_scores_of_finite_groups_are_gumbel(name, size, group):
    scores = get_group(group).draw_scores(torch.ones(4000, 1, dtype=torch.bool), size, seeded(3), SAMPLERS[name])
    assert_law(scores, lambda values: (-(-values).exp()).exp())


def test_noise_is_finite_at_the_ends_of_the_unit_interval(monkeypatch):
    for edge in (0.0, 1 - 2**-53, 1.0):
        monkeypatch.setattr(
            torch, "rand", lambda shape, edge=edge, **options: torch.full(shape, edge, dtype=options.get("dtype"))
        )
        for sampler in SAMPLERS.values():
            size = sampler.group_size or 4
            assert sampler.gumbel((2, size, 8), None, CPU, get_group("C_8").design).isfinite().all()
            assert sampler.normal((2, size, 3, 2), None, CPU).isfinite().all()


# ----------------------------------------------------------------------------------------------------------- the dependence


def test_antithetic_draws_are_opposite():
    sampler = SAMPLERS["antithetic"]
    uniform = sampler.uniform((5, 2, 4), seeded(0), CPU)
    torch.testing.assert_close(uniform.sum(dim=1), torch.ones(5, 4, dtype=torch.float64))
    normal = sampler.normal((5, 2, 4, 3, 1), seeded(0), CPU)
    assert torch.equal(normal[:, 0], -normal[:, 1])
    # As uniform numbers the two Gumbel draws of an element sum to 1.
    gumbel = sampler.gumbel((5, 2, 4), seeded(0), CPU, get_group("C_4").design)
    torch.testing.assert_close((-(-gumbel).exp()).exp().sum(dim=1), torch.ones(5, 4, dtype=torch.float64))


def test_antithetic_permutations_are_each_others_reverse():
    mask = torch.ones(6, 7, dtype=torch.bool)
    group = get_group("S_n")
    scores = group.draw_scores(mask, 2, seeded(0), SAMPLERS["antithetic"])
    index = group.project(scores, mask, scores).index
    assert torch.equal(index[:, 0], index[:, 1].flip(-1))


@pytest.mark.parametrize("name", ["stratified", "orthogonal"])
@pytest.mark.parametrize("size", [2, 4, 7])
def test_every_part_of_the_unit_interval_is_drawn_from_once_in_an_order_of_its_own(name, size):
    draws = SAMPLERS[name].uniform((200, size, 6), seeded(0), CPU)
    parts = (draws * size).floor()
    assert torch.equal(parts.sort(dim=1).values, torch.arange(size).double().view(1, -1, 1).expand_as(parts))
    # The orders of two coordinates are independent: they agree in one draw of `size` on average.
    agree = (parts[..., 0] == parts[..., 1]).double().mean(dim=1)
    assert abs(float(agree.mean()) - 1 / size) < 5 * float(agree.std()) / 200**0.5
    if name == "orthogonal":  # one number, shifted
        rest = draws * size - parts
        torch.testing.assert_close(rest, rest[:, :1].expand_as(rest), rtol=0, atol=1e-10)


def test_normal_numbers_are_stratified_before_one_turn_hides_the_axes(monkeypatch):
    sampler, shape = SAMPLERS["stratified"], (3000, 4, 1, 2, 1)

    def spread_of_halves(draws: Tensor) -> list[float]:
        """Variance over groups of the number of draws in half-planes, whose borders are at 0° and 45° to the axes."""
        vectors = draws[:, :, 0, :, 0]
        return [float((vectors @ v > 0).double().sum(dim=1).var()) for v in torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double()]

    turned = spread_of_halves(sampler.normal(shape, seeded(0), CPU))
    monkeypatch.setattr(samplers, "_orthonormal", lambda seed: torch.eye(2, dtype=seed.dtype).expand_as(seed))
    unturned = spread_of_halves(sampler.normal(shape, seeded(0), CPU))
    assert unturned[0] == 0  # two of four on each side of the axis, always
    assert unturned[1] > 0.3
    # No direction is special: the same spread but for chance, and below that of independent draws, 1.
    assert turned[0] == pytest.approx(turned[1], abs=0.05)
    assert 0.1 < turned[0] < 0.8


MATRIX_GROUPS = [(name, size) for name in ("O(2)", "SO(3)", "O(3)", "SO(4)", "U(2)") for size in (2, 4, 8, 12, 60, 120)]
MATRIX_GROUPS = [(name, size) for name, size in MATRIX_GROUPS if get_group(name).has_design(size)]


@pytest.mark.parametrize(("name", "size"), MATRIX_GROUPS)
def test_orthogonal_matrices_are_one_times_the_elements_of_a_finite_subgroup(name, size):
    group, mask = get_group(name), torch.ones(5, 1, dtype=torch.bool)
    scores = group.draw_scores(mask, size, seeded(0), SAMPLERS["orthogonal"])
    matrices = group.project(scores, mask, scores).matrix
    between = (matrices[:, :1].mH @ matrices).flatten(2)
    subgroup = group.design(size).to(matrices.dtype).flatten(1)
    # The first is g itself; each of the others is met once, in whatever order.
    nearest = (between.unsqueeze(2) - subgroup).abs().amax(dim=-1).min(dim=2)
    assert nearest.values.max() < 1e-8
    assert torch.equal(nearest.indices.sort(dim=1).values, torch.arange(size).expand(5, -1))


@pytest.mark.parametrize(("name", "size"), [("C_8", 4), ("C_6", 3), ("C_5", 5), ("D_4", 4), ("D_3", 2), ("D_3", 6)])
def test_orthogonal_elements_of_finite_groups_are_a_coset(name, size):
    group, mask = get_group(name), torch.ones(50, 1, dtype=torch.bool)
    scores = group.draw_scores(mask, size, seeded(0), SAMPLERS["orthogonal"])
    drawn = group.project(scores, mask, scores)
    first = FiniteElement(drawn.index[:, :1].expand(-1, size))
    between = group.compose(group.inverse(first), drawn).index
    assert torch.equal(between.sort(dim=1).values, between[:1].sort(dim=1).values.expand(50, -1))
    assert len(between[0].unique()) == size
    subgroup = set(between[0].tolist())
    for pair in itertools.product(subgroup, repeat=2):
        product = group.compose(*(FiniteElement(torch.tensor([[number]])) for number in pair))
        assert int(product.index) in subgroup


def test_nodes_visit_the_parts_of_the_order():
    # 40 nodes in 4 draws: each is once in about every quarter of the ranks; the borders move by the spread of the scores.
    mask = torch.ones(30, 40, dtype=torch.bool)
    group = get_group("S_n")
    for name in ("stratified", "orthogonal"):
        scores = group.draw_scores(mask, 4, seeded(0), SAMPLERS[name])
        rank = group.project(scores, mask, scores).rank.double()
        mean_rank = rank.mean(dim=1)  # 19.5 for all nodes if they were spread evenly
        independent = 40 / 12**0.5 / 2
        assert float(mean_rank.std()) < 0.65 * independent


# --------------------------------------------------------------------------------------------------------------- estimates


class Rough(nn.Module):
    """A base function without any symmetry."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        weights = torch.randn(3, numbers, generator=seeded(0), dtype=torch.float64)
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = (x.flatten(1) @ self.weights.T).unbind(1)
        return torch.stack([first.sin() + second * third, (first - third).tanh() * second.exp()], dim=1)


def symmetrized(group: str, inputs: str, shape: tuple[int, ...], **options) -> tuple[nn.Module, Tensor]:
    x = torch.randn(1, *shape, generator=seeded(1), dtype=torch.float64)
    torch.manual_seed(0)
    model = lps_hf.symmetrize(Rough(x[0].numel()), group=group, inputs=inputs, output="2", num_eval_samples=1, **options)
    return model.double().eval(), x


def group_means(model: nn.Module, x: Tensor, num_groups: int, seed: int = 0) -> Tensor:
    """Estimates from single groups of draws, (num_groups, 2)."""
    many = x.expand(num_groups, *x.shape[1:])
    with torch.no_grad():
        return model(many, num_samples=model.distribution.sampler_group_size, generator=seeded(seed))


def assert_unbiased(means: Tensor, expected: Tensor, variance: Tensor | float = 0.0) -> None:
    """The mean of independent estimates is within 4.5 standard errors of what is expected, whose own variance may be given."""
    error = (means.var(dim=0) / len(means) + variance).sqrt()
    assert (error > 0).all()
    assert ((means.mean(dim=0) - expected).abs() / error).max() < 4.5


@every_dependent_case
def test_the_mean_over_all_orders_of_four_nodes_is_met(name, size):
    model, x = symmetrized("S_n", "n 2", (4, 2), distribution="haar", sampler=name, sampler_group_size=size)
    orders = get_group("S_n").enumerate(4).index
    exact = model.estimate(x, group_elements=orders).mean[0]
    assert_unbiased(group_means(model, x, 5000), exact)


@pytest.mark.parametrize(("name", "size"), [("antithetic", 2), ("stratified", 4), ("orthogonal", 2), ("orthogonal", 4)])
@pytest.mark.parametrize("distribution", ["haar", "learned"])
def test_the_mean_over_the_turns_of_an_image_is_met(name, size, distribution):
    model, x = symmetrized("C_8", "1 h w", (1, 6, 6), distribution=distribution, sampler=name, sampler_group_size=size)
    every = model.estimate(x, group_elements=torch.arange(8).unsqueeze(0)).mean
    if distribution == "haar":
        exact = every[0]
    else:
        probabilities = model.distribution.interface.scores(model.encode(x), None)["C_8"].softmax(dim=-1).flatten()
        values = [model.estimate(x, group_elements=torch.tensor([[number]])).mean[0] for number in range(8)]
        exact = (probabilities.detach().unsqueeze(-1) * torch.stack(values)).sum(dim=0)
        assert (exact - every[0]).abs().max() > 1e-3
    assert_unbiased(group_means(model, x, 4000), exact)


def test_all_turns_without_replacement_are_the_exact_mean():
    model, x = symmetrized("D_4", "1 h w", (1, 6, 6), distribution="haar", sampler="orthogonal", sampler_group_size=8)
    exact = model.estimate(x, group_elements=torch.arange(8).unsqueeze(0)).mean
    torch.testing.assert_close(group_means(model, x, 3), exact.expand(3, -1))


@pytest.fixture(scope="module")
def many_draws():
    """Models, their inputs and the outputs of many independent draws, made once."""
    made = {}
    for group, inputs, shape, kind in (
        ("O(3)", "v 4", (3, 4), "haar"),
        ("SE(3)", "n p", (4, 3), "learned"),
        ("S_n x O(3)", "n v", (4, 3), "learned"),
    ):
        interface = {"interface_config": {"hidden_size": 6, "num_layers": 2}} if kind == "learned" else {}
        model, x = symmetrized(group, inputs, shape, distribution=kind, **interface)
        made[group] = model, x, group_means(model, x, 4000, seed=1)
    return made


@every_dependent_case
@pytest.mark.parametrize("group", ["O(3)", "SE(3)", "S_n x O(3)"])
def test_the_mean_of_many_independent_draws_is_met(many_draws, name, size, group):
    model, x, plain = many_draws[group]
    model.distribution.set_sampler(name, size)
    means = group_means(model, x, 4000 // size)
    assert_unbiased(means, plain.mean(dim=0), plain.var(dim=0) / len(plain))


def test_a_linear_function_of_the_turn_is_averaged_without_error():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    for name, size in (("antithetic", 2), ("orthogonal", 4), ("orthogonal", 24)):
        model = lps_hf.symmetrize(
            network, "O(3)", "v 4", "2", "haar", num_eval_samples=1, sampler=name, sampler_group_size=size
        ).double()
        means = group_means(model, torch.randn(1, 3, 4, dtype=torch.float64), 5)
        torch.testing.assert_close(means, network[1].bias.expand(5, -1))


def test_strata_remove_what_is_additive_in_the_noise():
    # f adds up numbers of single places, so the estimate of all of it is nearly exact.
    class Places(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[..., 0] * torch.arange(8.0, dtype=x.dtype)).sum(dim=1, keepdim=True)

    variances = {}
    for name, size in (("independent", 1), ("stratified", 8), ("orthogonal", 8)):
        model = lps_hf.symmetrize(
            Places(), "S_n", "n 1", "1", "haar", num_eval_samples=1, sampler=name, sampler_group_size=size
        ).double()
        means = group_means(model, torch.randn(1, 8, 1, generator=seeded(0), dtype=torch.float64), 800)
        variances[name] = size * float(means.var())
    assert variances["stratified"] < 0.3 * variances["independent"]
    assert variances["orthogonal"] < 0.3 * variances["independent"]


# ------------------------------------------------------------------------------------------------------------- in the model


def particle_model(**options) -> LPSForParticleDynamics:
    torch.manual_seed(0)
    config = LPSConfig(
        backbone_config={
            "model_type": "lps_pair_transformer",
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        group="S_n x E(3)",
        max_nodes=4,
        interface_config={"hidden_size": 6, "num_layers": 2, "num_neighbors": 2}
        if options.get("distribution") != "haar"
        else None,
        **PARTICLE_DEFAULTS,
        **options,
    )
    return LPSForParticleDynamics(config).eval()


def particles(batch: int = 3) -> dict[str, Tensor]:
    columns = torch.randn(2, batch, 4, 3, generator=seeded(5))
    charges = torch.randint(2, (batch, 4, 1), generator=seeded(6)) * 2.0 - 1
    return {"positions": columns[0], "velocities": columns[1], "charges": charges}


@every_case
def test_few_draws_are_the_first_of_many(name, size):
    model = particle_model(sampler=name, sampler_group_size=size, num_eval_samples=size).lps
    batch = model.encode(**particles())
    many = model.draw_noise(batch, 5 * size, seeded(0))
    source = seeded(0)
    parts = [model.draw_noise(batch, count * size, source) for count in (2, 1, 2)]
    for key, expected in many.items():
        assert torch.equal(torch.cat([part[key] for part in parts], dim=1), expected)
    for count in range(1, size):  # a part of a group
        part = model.draw_noise(batch, count, seeded(0))
        assert all(torch.equal(part[key], many[key][:, :count]) for key in many)


@every_case
def test_groups_are_independent(name, size):
    model = particle_model(sampler=name, sampler_group_size=size, num_eval_samples=size).lps
    batch = model.encode(**particles(batch=600))
    for part in model.draw_noise(batch, 2 * size, seeded(0)).values():
        groups = part.double().flatten(2).unflatten(1, (2, size))
        one, other = (group.flatten(1) - group.flatten(1).mean(dim=0) for group in groups.unbind(1))
        correlation = (one * other).mean(dim=0) / (one.std(dim=0) * other.std(dim=0))
        assert correlation.abs().max() < 5 / 600**0.5


@every_case
@pytest.mark.parametrize("distribution", ["learned", "haar"])
def test_coupled_noise_is_exactly_equivariant(name, size, distribution):
    options = {"distribution": distribution, "sampler": name, "sampler_group_size": size, "num_eval_samples": size}
    assert_equivariant(particle_model(**options), particles())
    model = tiny_model(**options)
    assert_equivariant(model, random_batch([5, 3, 7]))


class Side(nn.Module):
    """On which side of a plane a vector is."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, :1] > 0).to(x.dtype)


@pytest.mark.parametrize(("name", "size"), [("stratified", 4), ("orthogonal", 2), ("antithetic", 2)])
def test_estimates_for_turned_inputs_have_the_same_spread(name, size, monkeypatch):
    # So that not only the mean is equivariant: no axis of space is special to the sampler.
    model = lps_hf.symmetrize(Side(), "O(3)", "v", "1", "haar", num_eval_samples=1, sampler=name, sampler_group_size=size)

    def spreads() -> list[float]:
        places = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.48, 0.64]], dtype=torch.float64)
        return [float(group_means(model, place.unsqueeze(0), 3000).var()) for place in places]

    along, across = spreads()
    assert along == pytest.approx(across, abs=0.02)
    if name == "stratified":
        monkeypatch.setattr(samplers, "_orthonormal", lambda seed: torch.eye(3, dtype=seed.dtype).expand_as(seed))
        along, across = spreads()
        assert across > along + 0.02


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_draws_compile_to_one_graph(name):
    for model in (particle_model(distribution="haar"), tiny_model()):
        distribution = getattr(model, "lps", model).distribution
        distribution.set_sampler(name)
        size = distribution.sampler_group_size
        inputs = particles() if model.config.group != "S_n" else random_batch([4, 4])
        batch = getattr(model, "lps", model).encode(**inputs)
        draw = torch.compile(
            lambda distribution=distribution, batch=batch: distribution.draw_noise(batch, 2 * distribution.sampler_group_size),
            fullgraph=True,
            backend="eager",
        )
        assert all(part.shape[1] == 2 * size for part in draw().values())


# ---------------------------------------------------------------------------------------------------- choice of the sampler


def test_the_default_size_is_the_nearest_to_four_that_there_is():
    assert {name: get_group("S_n").sampler_group_size(name) for name in SAMPLERS} == {
        "independent": 1,
        "antithetic": 2,
        "stratified": 4,
        "orthogonal": 4,
    }
    sizes = {
        name: get_group(name).sampler_group_size("orthogonal") for name in ("O(3)", "SE(3)", "C_8", "C_6", "C_5", "C_1", "D_2")
    }
    assert sizes == {"O(3)": 4, "SE(3)": 4, "C_8": 4, "C_6": 3, "C_5": 5, "C_1": 1, "D_2": 4}
    # All factors of a product must have a subgroup.
    assert get_group("S_n x C_6").sampler_group_size("orthogonal") == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "sobol"}, "sampler: expected one of 'independent', 'antithetic', 'stratified', 'orthogonal', got 'sobol'."),
        (
            {"sampler": "antithetic", "sampler_group_size": 4},
            "sampler_group_size: expected 2 for sampler 'antithetic' and group O(3), got 4. Leave it out for the default.",
        ),
        (
            {"sampler_group_size": 4},
            "sampler_group_size: expected 1 for sampler 'independent' and group O(3), got 4. Leave it out for the default.",
        ),
        (
            {"sampler": "stratified", "sampler_group_size": 0},
            "sampler_group_size: expected at least 1 for sampler 'stratified' and group O(3), got 0. Leave it out for the "
            "default.",
        ),
        (
            {"sampler": "orthogonal", "sampler_group_size": 6},
            "sampler_group_size: expected 1 or 2 or 4 or 8 or 12 or 24 or 60 or 120 for sampler 'orthogonal' and group O(3), got "
            "6. Leave it out for the default.",
        ),
        (
            {"sampler": "stratified", "sampler_group_size": 4, "num_eval_samples": 10},
            "num_eval_samples: expected at most 4 or a multiple of it, as the sampler draws groups of 4, got 10. Take 8 or 12, "
            "or another sampler_group_size.",
        ),
        (
            {"sampler": "stratified", "num_samples": 5, "num_eval_samples": 8},
            "num_samples: expected at most 4 or a multiple of it, as the sampler draws groups of 4, got 5. Take 4 or 8, or "
            "another sampler_group_size.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    config = {"group": "O(3)", "inputs": {"velocities": "n v"}, "distribution": "haar", "interface_config": None}
    config |= {"node_categories": None, "edge_categories": None}
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny_config(**config, **options)
    with pytest.raises(ValueError, match=re.escape(message)):
        lps_hf.symmetrize(nn.Flatten(), "O(3)", "v 2", "6", "haar", **options)


def test_a_size_that_is_no_number_is_refused():
    for size in (4.0, True, "4"):
        message = rf"sampler_group_size: expected an int or None, got {type(size).__name__} {size!r}\."
        with pytest.raises(TypeError, match=message):
            tiny_config(sampler="stratified", sampler_group_size=size, num_eval_samples=4)


def test_a_call_for_a_part_of_the_second_group_is_refused():
    model = tiny_model(sampler="stratified", num_eval_samples=4)
    message = "num_samples: expected at most 4 or a multiple of it, as the sampler draws groups of 4, got 6. Take 4 or 8"
    with pytest.raises(ValueError, match=message):
        model(**random_batch([4]), num_samples=6)
    with pytest.raises(ValueError, match=message):
        model.draw_noise(model.encode(**random_batch([4])), 6)


def test_the_sampler_is_saved_and_may_be_changed_at_loading(tmp_path):
    model = tiny_model(dtype=torch.float32, sampler="stratified", sampler_group_size=6, num_eval_samples=12)
    model.save_pretrained(tmp_path)
    again = LPSModel.from_pretrained(tmp_path)
    assert (again.config.sampler, again.config.sampler_group_size) == ("stratified", 6)
    batch = random_batch([5, 3])
    outputs = [one(**batch, generator=seeded(0)).output for one in (model, again)]
    assert torch.equal(*outputs)
    other = LPSModel.from_pretrained(tmp_path, sampler="antithetic", sampler_group_size=None)
    assert other.distribution.sampler_group_size == 2
    assert not torch.equal(other(**batch, generator=seeded(0)).output, outputs[0])


def test_changing_the_sampler_changes_the_draws_and_not_their_law():
    model = tiny_model(distribution="haar", num_eval_samples=4)
    batch = model.encode(**random_batch([4]))
    plain = model.draw_noise(batch, 4, seeded(0))["S_n"]
    model.distribution.set_sampler("orthogonal")
    assert model.distribution.sampler_group_size == 4
    assert not torch.equal(model.draw_noise(batch, 4, seeded(0))["S_n"], plain)
    model.distribution.set_sampler("independent")
    assert torch.equal(model.draw_noise(batch, 4, seeded(0))["S_n"], plain)
