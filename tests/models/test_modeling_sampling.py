"""How models sample: evaluation in passes, as many samples as an error bar asks for, and losses of single samples."""

import pytest
import torch

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification, LPSForLinkPrediction, LPSForNodeClassification
from lps_hf.models.modeling_lps import LPSModel
from tests.models.graph_cases import random_batch, seeded, tiny_config, tiny_model, with_frame_ranks

SIZES = [7, 4, 6]
every_sampler = pytest.mark.parametrize("sampler", ["independent", "antithetic", "stratified", "orthogonal"])


def make(head=None, seed: int = 0, **options):
    """A model, or a head, at evaluation."""
    torch.manual_seed(seed)
    if head is None:
        return tiny_model(**options).eval()
    return head(tiny_config(**options)).eval()


@pytest.mark.parametrize("given", ["generator", "noise", "group_elements"])
@every_sampler
@torch.no_grad()
def test_passes_do_not_change_the_estimate(sampler, given):
    # In passes of 4, and of all 12 at once: mean, error bar and the elements drawn.
    batch, results = random_batch(SIZES), []
    for samples_per_pass in (4, 12):
        model = make(sampler=sampler, samples_per_pass=samples_per_pass, num_eval_samples=12)
        source = {"num_samples": 12, "generator": seeded(3)}
        if given != "generator":
            noise = model.draw_noise(model.encode(**batch), 12, seeded(3))
            source = {"noise": noise}
        if given == "group_elements":
            source = {given: model(**batch, noise=noise).group_elements}
        results.append(model(**batch, **source))
    in_passes, at_once = results
    assert torch.equal(in_passes.group_elements, at_once.group_elements)
    assert in_passes.group_elements.shape == (3, 12, 7)
    torch.testing.assert_close(in_passes.output, at_once.output, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(in_passes.standard_error, at_once.standard_error, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_the_backbone_sees_no_more_samples_at_once_than_configured():
    model, rows = make(samples_per_pass=4), []
    model.base.backbone.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    model(**random_batch(SIZES), num_samples=10)
    assert rows == [12, 12, 6]
    rows.clear()
    states = model(**random_batch(SIZES), num_samples=10, output_hidden_states=True).hidden_states
    assert rows == [30]  # the states of all samples are asked for
    assert len(states[0]) == 30
    model.base.pretrained_model.config.output_hidden_states = True  # or by the backbone itself
    assert len(model(**random_batch(SIZES), num_samples=10).hidden_states[0]) == 30
    model.base.pretrained_model.config.output_hidden_states = False
    assert rows == [30, 30]
    with torch.enable_grad():
        model(**random_batch(SIZES), num_samples=10)
    assert rows == [30, 30, 30]  # and so they are where there is a gradient


@torch.no_grad()
def test_passes_are_small_on_a_cpu_by_default():
    model, rows = make(), []
    model.base.backbone.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    model(**random_batch(SIZES), num_samples=12)
    assert rows == [15, 15, 6]
    rows.clear()
    model(**random_batch([4] * 40), num_samples=2)
    assert rows == [40, 40]


@torch.no_grad()
def test_exact_averages_come_in_passes_too():
    batch = random_batch([5, 4])
    batch["frame_ranks"] = torch.zeros(2, 5, dtype=torch.int64)  # every order is in the frame
    results = [make(distribution="exact", samples_per_pass=size)(**batch) for size in (7, 1000)]
    assert results[0].group_elements.shape == (2, 120, 5)
    assert torch.equal(results[0].group_elements, results[1].group_elements)
    torch.testing.assert_close(results[0].output, results[1].output, rtol=1e-5, atol=1e-6)
    assert results[0].standard_error is None


def test_samples_of_one_group_give_no_error_bar():
    model = make(sampler="antithetic")
    assert model(**random_batch(SIZES), num_samples=2).standard_error is None
    assert model(**random_batch(SIZES), num_samples=4).standard_error is not None
    with pytest.raises(ValueError, match="num_samples: expected"):
        model(**random_batch(SIZES), num_samples=5)


@torch.no_grad()
def test_auto_draws_until_the_error_bar_is_small_enough():
    batch, model = random_batch(SIZES), make(max_eval_samples=2_000, num_eval_samples="auto", tolerance=0.02)
    result = model(**batch, generator=seeded(0))
    assert result.group_elements is None
    assert (result.standard_error <= 0.02).all()
    assert result.num_samples.min() < result.num_samples.max() < 2_000
    exact = model(**batch, num_samples=2_000, generator=seeded(1))
    error = torch.hypot(result.standard_error, exact.standard_error)
    assert ((result.output - exact.output).abs() < 4 * error).all()
    finer = model(**batch, tolerance=0.01, generator=seeded(0))
    assert (finer.num_samples > result.num_samples).all()
    capped = model(**batch, num_samples="auto", tolerance=1e-9, generator=seeded(0)).num_samples
    assert capped.tolist() == [2_000] * 3


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
@torch.no_grad()
def test_the_tolerance_is_about_probabilities_where_the_output_is_their_logits(problem_type):
    batch = random_batch(SIZES)
    options = {"distribution": "haar", "num_labels": 2, "max_eval_samples": 10_000}
    model = make(LPSForGraphClassification, problem_type=problem_type, **options)
    model.lps.base.readout.linear.weight.mul_(100)  # sure of its classes, whatever the order: logits spread, probabilities less
    model.lps.base.readout.linear.bias.copy_(torch.tensor([1e3, -1e3]))
    result = model(**batch, num_samples="auto", tolerance=0.05, generator=seeded(0))
    if problem_type == "regression":
        assert (result.standard_error <= 0.05).all()
        assert result.num_samples.min() > 100
    else:
        assert result.standard_error.max() > 0.05
        assert result.num_samples.tolist() == [20] * 3  # as few as there may be


@pytest.mark.parametrize("kind", ["none", "exact"])
@torch.no_grad()
def test_auto_where_there_is_nothing_to_draw(kind):
    model, batch = make(distribution=kind), with_frame_ranks(random_batch(SIZES))
    torch.testing.assert_close(model(**batch, num_samples="auto").output, model(**batch).output)


@pytest.mark.parametrize("head", [LPSForGraphClassification, LPSForNodeClassification, LPSForLinkPrediction])
@torch.no_grad()
def test_what_was_averaged_is_returned(head):
    options = {"output": {"N": "n 2", "L": "n n 1"}.get(head.__name__[6])}
    options |= {"num_labels": 1} if head is LPSForLinkPrediction else {"num_labels": 2}
    model, batch = make(head, samples_per_pass=4, **options), random_batch(SIZES)
    if head is LPSForLinkPrediction:
        batch["pair_index"] = torch.zeros(3, 2, 2, dtype=torch.int64)
    with_samples = model(**batch, num_samples=10, generator=seeded(3), output_samples=True)
    assert with_samples.samples.shape == (3, 10, *with_samples.logits.shape[1:])
    torch.testing.assert_close(with_samples.samples.mean(1), with_samples.logits)
    spread, differ = with_samples.samples.std(1) / 10**0.5, ~with_samples.draws_agree
    assert differ.any()
    torch.testing.assert_close(spread[differ], with_samples.standard_error[differ], rtol=1e-4, atol=1e-6)
    without = model(**batch, num_samples=10, generator=seeded(3))
    assert without.samples is None
    assert torch.equal(without.logits, with_samples.logits)


@pytest.mark.parametrize("head", [None, LPSForGraphClassification, LPSForNodeClassification])
@torch.no_grad()
def test_outputs_tell_the_interval_that_holds_what_many_draws_give(head):
    options = {"distribution": "haar", "output": "n 3" if head is LPSForNodeClassification else None}
    model, batch = make(head, **options), random_batch(SIZES)
    many, few = (model(**batch, num_samples=count, generator=seeded(count)) for count in (1_000, 10))
    low, high = few.confidence_interval(0.9999)
    truth = many.output if head is None else many.logits
    assert ((low <= truth) & (truth <= high)).all()
    narrow = few.confidence_interval(0.5)
    inside = high > low  # but on padding
    assert (low < narrow[0])[inside].all()
    assert few.degrees_of_freedom.tolist() == [9.0] * 3
    with pytest.raises(ValueError, match="confidence_interval: expected an estimate with an error bar"):
        model(**batch, num_samples=1).confidence_interval()


@torch.no_grad()
def test_a_prior_is_part_of_the_model(tmp_path):
    prior = {"variance": [1.0, 4.0, 9.0], "degrees_of_freedom": 6.0}
    model, batch = make(), random_batch(SIZES)
    plain = model(**batch, num_samples=4, generator=seeded(0), output_samples=True)
    model.config.variance_prior = prior
    model.save_pretrained(tmp_path)
    again = LPSModel.from_pretrained(tmp_path)
    assert again.config.variance_prior == prior
    result = again(**batch, num_samples=4, generator=seeded(0))
    assert torch.equal(result.output, plain.output)
    variance = (6 * torch.tensor(prior["variance"]) + 3 * plain.samples.var(1)) / (6 + 3)
    torch.testing.assert_close(result.standard_error, (variance / 4).sqrt())
    assert result.degrees_of_freedom.tolist() == [9.0] * 3
    # "auto" believes the same error bar.
    wanted = again(**batch, num_samples="auto", tolerance=0.3, generator=seeded(0))
    assert (wanted.standard_error <= 0.3).all()
    assert wanted.num_samples.min() > 20  # where the draws alone would have been sure
    model.config.variance_prior = None
    assert model(**batch, num_samples="auto", tolerance=0.3, generator=seeded(0)).num_samples.tolist() == [20] * 3


def test_a_prior_of_another_output_is_refused():
    with pytest.raises(ValueError, match="variance_prior: expected 1 or 3 numbers as variance, got 2"):
        tiny_config(variance_prior={"variance": [1.0, 2.0], "degrees_of_freedom": 1})
    with pytest.raises(TypeError, match="variance_prior: expected a dict"):
        tiny_config(variance_prior=0.5)


@torch.no_grad()
def test_the_error_bar_of_a_regression_is_in_data_units_also_with_a_prior():
    options = {"problem_type": "regression", "num_labels": 1, "variance_prior": {"variance": [1.0], "degrees_of_freedom": 5}}
    batch, bars = random_batch(SIZES), []
    for scaling in ({}, {"label_mean": [5.0], "label_std": [3.0]}):
        model = make(LPSForGraphClassification, **options, **scaling)
        bars.append(model(**batch, num_samples=10, generator=seeded(0)).standard_error)
    torch.testing.assert_close(bars[1], 3 * bars[0])


@torch.no_grad()
def test_auto_returns_as_many_samples_as_each_input_has():
    model, batch = make(min_eval_samples=4, max_eval_samples=60, samples_per_pass=4), random_batch(SIZES)
    tolerance = model(**batch, num_samples=20, generator=seeded(0)).standard_error.flatten(1).amax(1).median().item()
    result = model(**batch, num_samples="auto", tolerance=tolerance, generator=seeded(0), output_samples=True)
    assert len(set(result.num_samples.tolist())) > 1
    assert result.samples.shape[:2] == (3, result.num_samples.max())
    for row, count in enumerate(result.num_samples.tolist()):
        torch.testing.assert_close(result.samples[row, :count].mean(0), result.output[row])
        assert result.samples[row, count:].isnan().all()
    assert model(**batch, num_samples="auto", generator=seeded(0)).samples is None


@torch.no_grad()
def test_samples_of_a_regression_are_in_data_units():
    options = {"problem_type": "regression", "num_labels": 1, "label_mean": [5.0], "label_std": [3.0]}
    result = make(LPSForGraphClassification, **options)(**random_batch(SIZES), num_samples=4, output_samples=True)
    torch.testing.assert_close(result.samples.mean(1), result.logits)


def test_auto_is_for_evaluation():
    model, batch = make(), random_batch(SIZES)
    noise = model.draw_noise(model.encode(**batch), 2)
    for refused in ({"noise": noise}, {"output_hidden_states": True}):
        with pytest.raises(ValueError, match="num_samples: expected a number in training, and with noise"):
            model(**batch, num_samples="auto", **refused)
    with pytest.raises(ValueError, match="num_samples: expected a number in training"):
        model.train()(**batch, num_samples="auto")
    for tolerance in (0, -1.0, float("nan"), "small"):
        with pytest.raises(ValueError, match="tolerance: expected a positive number"):
            make()(**batch, num_samples="auto", tolerance=tolerance)
    with pytest.raises(TypeError, match="num_samples: expected an int, got str 'many'"):
        make()(**batch, num_samples="many")


def test_padding_does_not_change_what_passes_give():
    model = make(samples_per_pass=1)
    batch, padded = random_batch(SIZES), random_batch(SIZES, num_nodes=9)
    with torch.no_grad():
        noise = model.draw_noise(model.encode(**padded), 3, seeded(0))
        cut = {name: part[:, :, :7] for name, part in noise.items()}
        torch.testing.assert_close(model(**padded, noise=noise).output, model(**batch, noise=cut).output)


HEADS = {
    "graph": (LPSForGraphClassification, {"num_labels": 3, "problem_type": "single_label_classification"}),
    "regression": (
        LPSForGraphClassification,
        {"num_labels": 2, "problem_type": "regression", "label_mean": [1.0, -1.0], "label_std": [2.0, 3.0]},
    ),
    "node": (LPSForNodeClassification, {"output": "n 3", "num_labels": 3}),
    "node of pairs": (LPSForNodeClassification, {"output": "n n 3", "num_labels": 3}),
    "link": (LPSForLinkPrediction, {"output": "n n 1", "num_labels": 1}),
}


def labels_for(name: str, batch: dict) -> dict:
    source = seeded(5)
    if name == "graph":
        return {"labels": torch.tensor([0, 2, -100])}
    if name == "regression":
        return {"labels": torch.randn(3, 2, generator=source)}
    if name.startswith("node"):
        return {"labels": torch.randint(3, (3, 7), generator=source).masked_fill(~batch["node_mask"], -100)}
    pairs = torch.randint(min(SIZES), (3, 2, 5), generator=source)
    return {"labels": torch.randint(2, (3, 5), generator=source).float(), "pair_index": pairs}


@pytest.mark.parametrize("name", HEADS)
def test_the_mean_of_losses_is_that_of_the_samples(name):
    # Each sample on its own, with the same elements, in a model whose one-sample loss is the published one.
    head, options = HEADS[name]
    batch = random_batch(SIZES)
    batch |= labels_for(name, batch)
    options |= {"entropy_loss_coef": 0.0}
    model = make(head, sample_loss="mean_of_losses", **options).train()
    published = make(head, **options).train()
    inputs = {key: value for key, value in batch.items() if key not in ("labels", "pair_index")}
    noise = model.lps.draw_noise(model.lps.encode(**inputs), 4, seeded(0))
    with torch.no_grad():
        elements = model.lps(**inputs, noise=noise).group_elements
    result = model(**batch, group_elements=elements)
    alone = [published(**batch, group_elements=elements[:, k : k + 1]).loss for k in range(4)]
    torch.testing.assert_close(result.loss, torch.stack(alone).mean())
    of_mean = published(**batch, group_elements=elements).loss
    assert result.loss.detach() > of_mean.detach() + 1e-6  # Jensen
    result.loss.backward()
    model.zero_grad()
    model.eval()
    torch.testing.assert_close(model(**batch, group_elements=elements).loss, of_mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_loss": "both"}, "sample_loss: expected one of 'loss_of_mean', 'mean_of_losses', got 'both'"),
        ({"tolerance": 0.0}, "tolerance: expected a positive number, got 0.0"),
        ({"min_eval_samples": 0}, "min_eval_samples: expected at least 1, got 0"),
        ({"max_eval_samples": 0}, "max_eval_samples: expected at least 1, got 0"),
        ({"samples_per_pass": 0}, "samples_per_pass: expected at least 1, got 0"),
        ({"num_eval_samples": 0}, "num_eval_samples: expected at least 1, got 0"),
        ({"temperature_rule": "hot"}, "temperature_rule: expected one of 'published', 'relative', got 'hot'"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**options)


def test_settings_survive_saving(tmp_path):
    options = {"num_eval_samples": "auto", "tolerance": 0.05, "max_eval_samples": 64, "samples_per_pass": 3}
    tiny_config(**options, sample_loss="mean_of_losses", temperature_rule="relative").save_pretrained(tmp_path)
    config = LPSConfig.from_pretrained(tmp_path)
    assert {name: getattr(config, name) for name in options} == options
    assert config.sample_loss == "mean_of_losses"
    assert (config.temperature_rule, config.temperature) == ("relative", 8.0)
    # The temperature of the other rule is in another unit.
    assert LPSConfig.from_pretrained(tmp_path, temperature_rule="published").temperature == 0.01
    assert LPSConfig.from_pretrained(tmp_path, temperature_rule="published", temperature=0.5).temperature == 0.5
