"""Error bars: Student's quantiles, moderated variances, and intervals that hold what they say they hold."""

import pytest
import torch
from torch import Tensor

from lps_hf.models.distributions import EquivariantDistribution
from lps_hf.models.elements import Permutation
from lps_hf.models.error_bars import (
    NO_PRIOR,
    PRIOR_WEIGHTS,
    UNSEEN,
    VariancePrior,
    all_agree,
    confidence_interval,
    fit_variance_prior,
    moderated_error,
    probability_interval,
    student_quantile,
)
from lps_hf.models.groups import get_group
from lps_hf.models.representations import Representation
from lps_hf.models.symmetrization import Estimate, RunningEstimate, Symmetrization, entries_of
from tests.models.graph_cases import seeded


# From the tables of Student's distribution.
@pytest.mark.parametrize(
    ("degrees", "level", "expected"),
    [(1, 0.95, 12.7062047), (2, 0.95, 4.3026527), (9, 0.95, 2.2621572), (9, 0.99, 3.2498355), (49, 0.9, 1.6765509)],
)
def test_student_quantiles_are_those_of_the_tables(degrees, level, expected):
    found = student_quantile(level, torch.tensor([[degrees, degrees]]))
    assert found.shape == (1, 2)
    torch.testing.assert_close(found, torch.full((1, 2), expected, dtype=torch.float64), rtol=1e-7, atol=0)


def test_many_degrees_of_freedom_are_the_normal_distribution():
    normal = torch.special.ndtri(torch.tensor(0.975, dtype=torch.float64))
    torch.testing.assert_close(student_quantile(0.95, torch.tensor(torch.inf)), normal, rtol=1e-5, atol=0)
    falling = student_quantile(0.95, torch.tensor([1.0, 1.5, 3.7, 20.0, 1e4]))
    assert (falling.diff() < 0).all()


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, True, "0.95", float("nan")], ids=str)
def test_what_is_no_level_is_refused(level):
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        student_quantile(level, torch.tensor([3.0]))


def test_an_estimate_without_error_bar_has_no_interval():
    with pytest.raises(ValueError, match="confidence_interval: expected an estimate with an error bar"):
        confidence_interval(torch.zeros(2, 3), None, None, 0.95)


def test_the_moderated_error_of_known_numbers():
    # d₀ = 3 draws of variance 4 and 5 of variance 1 (sum of squares 4): (12 + 4) / (3 + 4), over 5.
    found = moderated_error(torch.tensor([4.0]), 5, 1, 4.0, 3.0)
    torch.testing.assert_close(found, torch.tensor([(16 / 7 / 5) ** 0.5]))
    # The mean of a block of two has half the variance of a draw.
    torch.testing.assert_close(moderated_error(torch.tensor([4.0]), 5, 2, 8.0, 3.0), found)
    torch.testing.assert_close(moderated_error(torch.tensor([4.0]), 5, 1, 4.0, 0.0), torch.tensor([(1 / 5) ** 0.5]))


def coverage(samples: Tensor, truth: Tensor | float, block_size: int = 1, prior: VariancePrior = NO_PRIOR) -> float:
    running = RunningEstimate(block_size)
    running.add(samples)
    low, high = running.result(prior).confidence_interval(0.95)
    return ((low <= truth) & (truth <= high)).double().mean().item()


@pytest.mark.parametrize("num_blocks", [2, 3, 5])
def test_intervals_from_few_blocks_of_dependent_draws_cover(num_blocks):
    block_size = 4
    common = torch.randn(4_000, num_blocks, 1, generator=seeded(0)).repeat_interleave(block_size, dim=1)
    samples = common + 0.5 * torch.randn(common.shape, generator=seeded(1))
    assert 0.94 < coverage(samples, 0.0, block_size) < 0.96
    running = RunningEstimate(block_size)
    running.add(samples)
    normal = (running.mean.abs() <= 1.96 * running.result().standard_error).double().mean()
    assert normal < 0.89  # what 1.96 standard errors cover


def rare_events(num_rows: int, num_draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws (rows, draws, 1) of which a share, another one in each row, gives 1 in place of 0; and their expectation."""
    share = 0.3 * torch.rand(num_rows, 1, 1, generator=seeded(seed))
    noise = 0.05 * torch.randn(num_rows, num_draws, 1, generator=seeded(seed + 1))
    return (torch.rand(num_rows, num_draws, 1, generator=seeded(seed + 2)) < share) + noise, share.squeeze(1)


def spread_normally(num_rows: int, num_draws: int, seed: int) -> tuple[Tensor, Tensor]:
    return torch.randn(num_rows, num_draws, 1, generator=seeded(seed)), torch.zeros(num_rows, 1)


def spread_differently(num_rows: int, num_draws: int, seed: int) -> tuple[Tensor, Tensor]:
    scale = torch.randn(num_rows, 1, 1, generator=seeded(seed + 9)).mul(0.5).exp()
    return scale * torch.randn(num_rows, num_draws, 1, generator=seeded(seed)), torch.zeros(num_rows, 1)


@pytest.mark.parametrize("num_draws", [10, 20, 50])
@pytest.mark.parametrize("law", [rare_events, spread_normally, spread_differently])
def test_a_prior_measured_on_other_rows_makes_intervals_cover(law, num_draws):
    calibration, _ = law(64, 128, seed=10)
    prior = fit_variance_prior(calibration.transpose(0, 1))
    samples, truth = law(4_000, num_draws, seed=20)
    assert 0.93 < coverage(samples, truth, prior=prior) < 0.98


def test_without_a_prior_rare_events_are_missed():
    samples, truth = rare_events(4_000, 10, seed=20)
    assert coverage(samples, truth) < 0.85
    calibration, _ = rare_events(64, 128, seed=10)
    assert fit_variance_prior(calibration.transpose(0, 1)).degrees_of_freedom >= 4


def test_a_prior_has_the_variance_of_a_draw_for_every_channel():
    scale = torch.tensor([1.0, 3.0])
    draws = scale * torch.randn(256, 40, 2, generator=seeded(0))
    prior = fit_variance_prior(draws)
    torch.testing.assert_close(torch.tensor(prior.variance), scale**2, rtol=0.1, atol=0)
    assert prior.degrees_of_freedom in PRIOR_WEIGHTS
    # Of blocks whose draws are all the same, a draw counts as much as the block.
    blocks = draws.repeat_interleave(4, dim=0)
    torch.testing.assert_close(torch.tensor(fit_variance_prior(blocks, 4).variance), 4 * torch.tensor(prior.variance))


@pytest.mark.parametrize("shape", [(31, 5, 2), (64, 0, 2)], ids=str)
def test_too_little_to_measure_a_prior_on_is_refused(shape):
    with pytest.raises(ValueError, match="draws: expected at least 32 independent blocks of draws of at least one row"):
        fit_variance_prior(torch.randn(shape))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ([1.0], TypeError),
        ({"variance": [1.0]}, ValueError),
        ({"variance": [1.0], "degrees_of_freedom": 2, "rows": 3}, ValueError),
        ({"variance": [], "degrees_of_freedom": 2}, ValueError),
        ({"variance": 1.0, "degrees_of_freedom": 2}, ValueError),
        ({"variance": [-1.0], "degrees_of_freedom": 2}, ValueError),
        ({"variance": [float("nan")], "degrees_of_freedom": 2}, ValueError),
        ({"variance": [True], "degrees_of_freedom": 2}, ValueError),
        ({"variance": [1.0], "degrees_of_freedom": "2"}, ValueError),
    ],
    ids=str,
)
def test_what_is_no_prior_is_refused(values, error):
    with pytest.raises(error, match="variance_prior: expected"):
        VariancePrior.from_dict(values)


def test_a_prior_survives_its_own_form():
    prior = VariancePrior((0.5, 2.0), 4.0)
    assert VariancePrior.from_dict(prior.to_dict()) == prior


def law_of(kind: str, output: str, prior: VariancePrior = NO_PRIOR, group: str = "S_n") -> Symmetrization:
    inputs = {"node_features": Representation.parse("n 1"), "positions": Representation.parse("n p")}
    inputs = {name: axes for name, axes in inputs.items() if axes.letters <= get_group(group).letters | {"n"}}
    distribution = EquivariantDistribution(get_group(group), kind, inputs)
    return Symmetrization(distribution, Representation.parse(output), prior)


def agreeing(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Node outputs (batch, draws, nodes, channels) of three inputs: draws that agree up to rounding, that do not, of one node."""
    mask = torch.tensor([[True, True, True], [True, True, True], [True, False, False]])
    samples = torch.tensor([0.5, -3.0], dtype=dtype).expand(3, 8, 3, 2).clone()
    samples *= 1 + torch.finfo(dtype).eps * torch.randint(-2, 3, samples.shape, generator=seeded(0))
    samples[1, 0] += 0.1
    return samples * mask[:, None, :, None], mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_draws_that_agree_get_the_error_of_one_more_with_the_opposite_answer(dtype):
    samples, mask = agreeing(dtype)
    result = law_of("learned", "n 2").estimate_of(samples, mask)
    assert result.draws_agree.tolist() == [True, False, True]
    torch.testing.assert_close(result.standard_error[0], torch.full((3, 2), UNSEEN * 3 / 8, dtype=dtype))
    torch.testing.assert_close(result.standard_error[1], (samples[1].var(dim=0) / 8).sqrt())
    assert not result.standard_error[2].any()  # of one node there is one order, and padding is certain


@pytest.mark.parametrize("kind", ["frame", "canonical"])
def test_draws_of_a_frame_are_certain_only_where_they_are_one_element(kind):
    samples, mask = agreeing(torch.float64)
    one, other = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 2])
    law = law_of(kind, "n 2")
    for last, certain in ((one, True), (other, False)):
        elements = Permutation(torch.stack([one] * 7 + [last]).expand(3, 8, 3))
        result = law.estimate_of(samples, mask, elements=elements)
        assert result.draws_agree[0]
        assert (not result.standard_error[0].any()) is certain
    # All elements of a frame that is small are drawn; that of a graph whose nodes all tie is not.
    assert law.estimate_of(samples, mask).standard_error[0].any()


def test_an_exact_average_that_agrees_is_certain():
    samples, mask = agreeing(torch.float64)
    assert not law_of("exact", "n 2").estimate_of(samples, mask).standard_error[0].any()


def test_draws_that_agree_fall_back_on_the_prior_where_there_is_one():
    samples, mask = agreeing()
    result = law_of("learned", "n 2", VariancePrior((4.0, 9.0), 2.0)).estimate_of(samples, mask)
    expected = (2 * torch.tensor([4.0, 9.0]) / (2 + 7) / 8).sqrt().expand(3, 2)
    torch.testing.assert_close(result.standard_error[0], expected)
    assert not result.standard_error[2].any()
    assert result.degrees_of_freedom.tolist() == [9.0, 9.0, 9.0]


def test_how_large_an_answer_in_points_is_does_not_depend_on_where_the_origin_is():
    law, mask = law_of("haar", "n p", group="E(3)"), torch.ones(1, 4, dtype=torch.bool)
    points = torch.randn(1, 1, 4, 3, generator=seeded(0), dtype=torch.float64).expand(1, 6, 4, 3)
    here, there = (law.estimate_of(points + shift, mask).standard_error for shift in (0.0, 5.0))
    assert here.min() > 0.01
    torch.testing.assert_close(here, there)


@pytest.mark.parametrize("factor", [1.0, 1e-9, 1e9])
def test_whether_draws_agree_does_not_depend_on_the_unit(factor):
    mean = factor * torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
    squares = (factor * torch.tensor([[1e-6, 0.0], [1e-3, 0.0], [0.0, 0.0]])) ** 2
    assert all_agree(squares.double(), mean, 10).tolist() == [True, False, True]


def test_the_interval_of_a_probability_stays_between_0_and_1():
    score, error = torch.tensor([0.0, 1e-6, 0.02, 0.5, 0.999, 1.0]), torch.tensor([0.0, 1e-6, 0.05, 0.1, 0.01, 0.0])
    low, high = probability_interval(score, error, 2.0)
    assert ((low <= score + 1e-9) & (score <= high + 1e-9)).all()
    assert (low >= 0).all()
    assert (high <= 1).all()
    torch.testing.assert_close((low[3], high[3]), ((torch.tensor(-0.8)).sigmoid(), (torch.tensor(0.8)).sigmoid()))
    # A small error moves a probability as much as without the detour.
    low, high = probability_interval(torch.tensor([0.3]), torch.tensor([1e-4]), 2.0)
    torch.testing.assert_close(high - low, torch.tensor([4e-4]), rtol=1e-3, atol=0)


def two_classes(num_rows: int, num_draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits (rows, draws, 2), the second the negative of the first, of which some say something else; their expectation."""
    rare, share = rare_events(num_rows, num_draws, seed)
    opposite = torch.tensor([1.0, -1.0])
    return (1.0 - 2.5 * rare) * opposite, (1.0 - 2.5 * share) * opposite


@pytest.mark.parametrize("num_draws", [10, 20, 50])
def test_intervals_of_probabilities_cover(num_draws):
    prior = fit_variance_prior(two_classes(64, 128, 1)[0].transpose(0, 1))
    assert prior.softmax_factor == pytest.approx(2, rel=1e-3)
    law, (samples, logits) = law_of("haar", "2", prior), two_classes(2_000, num_draws, 5)
    law.link = "softmax"
    estimate = law.estimate_of(samples, torch.ones(2_000, 2, dtype=torch.bool))
    errors = law.link_errors(samples, estimate.standard_error, estimate.draws_agree)
    quantile = student_quantile(0.95, estimate.degrees_of_freedom[:1]).item()
    low, high = probability_interval(estimate.mean.softmax(-1), errors, quantile)
    truth = logits.softmax(-1)
    assert 0.93 < ((low <= truth) & (truth <= high)).double().mean() < 0.98


def test_entries_leave_padding_and_the_axes_of_space_out():
    samples, mask = agreeing()
    entries = entries_of(samples, Representation.parse("n 2"), mask)
    assert entries.shape == (8, 7, 2)
    torch.testing.assert_close(entries[:, :3], samples[0])
    vectors = torch.randn(2, 8, 3, 3) * mask[1:, None, :, None]
    assert entries_of(vectors, Representation.parse("n v"), mask[1:]).shape == (8, 4 * 3, 1)
    assert entries_of(torch.randn(2, 8, 5), Representation.parse("5"), mask[1:, :0]).shape == (8, 2, 5)
    pairs = torch.randn(2, 8, 3, 3, 1)
    assert entries_of(pairs, Representation.parse("n n 1"), mask[1:]).shape == (8, 9 + 1, 1)


def test_an_estimate_tells_its_interval():
    estimate = Estimate(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([9.0, 1.0]))
    low, high = estimate.confidence_interval()
    torch.testing.assert_close(high, torch.tensor([2.2621572, 12.7062047]).unsqueeze(1).expand(2, 3))
    torch.testing.assert_close(low, -high)
