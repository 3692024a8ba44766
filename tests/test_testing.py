"""The measure of equivariance: zero where it has to be, large where it has to be, and falling at the right rate."""

import numpy as np
import pytest
import torch
from torch import nn

from lps_hf import symmetrize
from lps_hf.models.elements import Permutation
from lps_hf.models.groups import get_group
from lps_hf.models.modeling_lps import LPSModel
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.testing import act_on_batch, assert_equivariant, equivariance_error
from tests.tiny import random_rows, tiny_classifier, tiny_config

EQUIVARIANT = ("learned", "canonical", "frame", "haar")
S_N = get_group("S_n")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_batch(count=5, **options):
    processor = LPSProcessor.from_config(tiny_config(distribution="frame", **options))
    return dict(processor(random_rows(count), return_tensors="pt"))


def make_case(distribution, output=None):
    """A model in float64 and a batch for it."""
    if output is None:
        model = tiny_classifier(distribution=distribution)
    else:
        torch.manual_seed(0)
        model = LPSModel(tiny_config(distribution=distribution, output=output)).eval()
    batch = make_batch()
    if distribution != "frame":
        del batch["frame_ranks"]
    return model.double(), batch


def haar(batch, seed):
    return S_N.haar(batch["node_mask"], 1, seeded(seed))


def assert_same(left, right):
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype, key
        assert torch.equal(left[key], right[key]), key


# ------------------------------------------------------------------------------------------------------------ the action


def test_nodes_are_renamed_as_a_data_set_would_have_stored_them():
    batch = {
        "edge_index": torch.tensor([[[0, 1, 0], [1, 2, 0]]]),
        "edge_mask": torch.tensor([[True, True, False]]),
        "edge_categories": torch.tensor([[[5], [6], [0]]]),
        "node_mask": torch.tensor([[True, True, True, False]]),
        "node_categories": torch.tensor([[[7], [8], [9], [0]]]),
        "node_features": torch.tensor([[[0.5, 1.0], [0.25, 2.0], [0.125, 3.0], [0.0, 0.0]]]),
        "frame_ranks": torch.tensor([[0, 2, 1, 0]]),
        "labels": torch.tensor([1]),
    }
    before = {key: tensor.clone() for key, tensor in batch.items()}
    moved = act_on_batch(S_N, Permutation(torch.tensor([[[2, 0, 1, 3]]])), batch)
    assert_same(batch, before)
    assert moved["edge_index"][:, :, :2].tolist() == [[[2, 0], [0, 1]]]
    assert moved["node_categories"].tolist() == [[[8], [9], [7], [0]]]
    assert moved["node_features"][0, :, 1].tolist() == [2.0, 3.0, 1.0, 0.0]
    assert moved["frame_ranks"].tolist() == [[2, 1, 0, 0]]
    for key in ("edge_mask", "edge_categories", "node_mask", "labels"):
        assert torch.equal(moved[key], batch[key])


def test_renaming_is_a_group_action():
    batch = make_batch()
    batch["node_features"] = torch.rand(*batch["node_mask"].shape, 3) * batch["node_mask"].unsqueeze(-1)
    for seed in range(10):
        left, right = haar(batch, seed), haar(batch, seed + 100)
        both = S_N.compose(left, right)
        assert_same(act_on_batch(S_N, both, batch), act_on_batch(S_N, left, act_on_batch(S_N, right, batch)))
        assert_same(act_on_batch(S_N, S_N.inverse(left), act_on_batch(S_N, left, batch)), batch)
    assert_same(act_on_batch(S_N, S_N.identity(batch["node_mask"], 1), batch), batch)
    assert not torch.equal(act_on_batch(S_N, left, batch)["node_categories"], batch["node_categories"])


def test_a_renamed_batch_is_that_of_the_renamed_rows():
    rows, moved_rows = random_rows(4), []
    processor = LPSProcessor.from_config(tiny_config(distribution="frame"))
    batch = dict(processor(rows, return_tensors="pt"))
    elements = haar(batch, 1)
    for row, element in zip(rows, elements.index[:, 0].numpy(), strict=True):
        features = np.empty_like(row["node_feat"])
        features[element[: row["num_nodes"]]] = row["node_feat"]
        moved_rows.append({**row, "edge_index": element[np.array(row["edge_index"])], "node_feat": features})
    moved, expected = act_on_batch(S_N, elements, batch), dict(processor(moved_rows, return_tensors="pt"))
    masked = moved["edge_mask"].unsqueeze(1)
    moved["edge_index"] = moved["edge_index"] * masked
    assert_same(moved, expected)


# ----------------------------------------------------------------------------------------------------------- the measure


@pytest.mark.parametrize("output", [None, "n 2", "n n 1"])
@pytest.mark.parametrize("distribution", EQUIVARIANT)
def test_with_coupled_noise_only_rounding_is_left(distribution, output):
    model, batch = make_case(distribution, output)
    measured = equivariance_error(model, batch, num_samples=3, coupled=True, generator=seeded())
    assert measured.relative_error < 1e-9
    assert measured.error < 1e-9


@pytest.mark.parametrize("output", [None, "n 2"])
def test_the_backbone_alone_is_far_from_equivariant(output):
    model, batch = make_case("learned", output)
    plain = equivariance_error(model, batch, symmetrized=False, generator=seeded())
    assert plain.relative_error > 0.02
    stored, batch = make_case("none", output)
    stored.load_state_dict(model.state_dict(), strict=False)
    for coupled in (False, True):
        again = equivariance_error(stored, batch, coupled=coupled, generator=seeded())
        assert again.relative_error > 0.02
    # Without symmetrization the number of samples does not matter: it is always the same draw.
    assert equivariance_error(stored, batch, num_samples=50, generator=seeded()).error == pytest.approx(
        equivariance_error(stored, batch, num_samples=1, generator=seeded()).error
    )


@pytest.mark.parametrize("output", [None, "n 2"])
def test_with_independent_draws_the_error_falls_as_one_over_the_root_of_the_samples(output):
    model, batch = make_case("haar", output)
    errors = {samples: equivariance_error(model, batch, 32, samples, generator=seeded(samples)) for samples in (1, 4, 16)}
    for samples, measured in errors.items():
        bar = np.hypot(measured.relative_standard_error * samples**0.5, errors[1].relative_standard_error)
        assert bar < 0.1 * errors[1].relative_error
        assert abs(measured.relative_error * samples**0.5 - errors[1].relative_error) <= 4 * bar
    plain = equivariance_error(model, batch, 8, symmetrized=False, generator=seeded())
    assert plain.relative_error > 3 * errors[16].relative_error


def test_the_standard_error_is_the_spread_of_the_measurement():
    model, batch = make_case("haar")
    measured = [equivariance_error(model, batch, 5, 1, generator=seeded(seed)) for seed in range(25)]
    spread = np.std([one.error for one in measured], ddof=1)
    assert 0.6 < spread / np.mean([one.standard_error for one in measured]) < 1.7
    for one in measured:
        assert one.relative_error / one.error == pytest.approx(one.relative_standard_error / one.standard_error)
    assert equivariance_error(model, batch, 1, 2).standard_error == 0.0


def test_relative_errors_are_in_units_of_the_output():
    model, batch = make_case("learned", "n 2")
    measured = equivariance_error(model, batch, 4, symmetrized=False, generator=seeded())
    identity = S_N.identity(batch["node_mask"], 1).index
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    size = model(**inputs, group_elements=identity).output.square().mean().sqrt().item()
    assert measured.error / measured.relative_error == pytest.approx(size)


def test_a_measurement_can_be_repeated():
    model, batch = make_case("learned")
    first, again, other = (equivariance_error(model, batch, 3, 2, generator=seeded(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_number_of_samples_is_that_of_evaluation_unless_it_is_given():
    model, batch = make_case("learned")
    seen = []
    model.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs.group_elements.shape[1]))
    equivariance_error(model, batch, 1)
    equivariance_error(model, batch, 1, num_samples=5)
    assert seen == [2, 2, 5, 5]


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_measured_in_evaluation_mode_and_given_back_as_it_was(training):
    model, batch = make_case("learned")
    model.train(training)
    modes = []
    model.register_forward_hook(lambda module, inputs, outputs: modes.append(module.training))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    equivariance_error(model, batch, 1)
    assert modes == [False, False]
    assert model.training is training
    assert_same(dict(model.state_dict()), before)
    with pytest.raises(ValueError, match="node_categories: expected shape"):
        equivariance_error(model, {**batch, "node_categories": batch["node_categories"][..., :1]}, 1)
    assert model.training is training


def test_no_group_elements_and_no_samples_are_refused():
    model, batch = make_case("haar")
    for coupled in (False, True):
        with pytest.raises(ValueError, match=r"^num_samples: expected at least 1, got 0\.$"):
            equivariance_error(model, batch, num_samples=0, coupled=coupled)
    with pytest.raises(ValueError, match=r"^num_group_elements: expected at least 1, got 0\.$"):
        equivariance_error(model, batch, num_group_elements=0)


# --------------------------------------------------------------------------------------------------------- the assertion


@pytest.mark.parametrize("distribution", EQUIVARIANT)
def test_symmetrized_models_pass(distribution):
    model, batch = make_case(distribution)
    model.float().train()
    assert_equivariant(model, batch)
    assert model.dtype == torch.float32
    assert model.training


def test_the_plain_backbone_does_not_pass():
    model, batch = make_case("none")
    with pytest.raises(AssertionError) as caught:
        assert_equivariant(model, batch)
    message = str(caught.value)
    assert message.startswith("LPSForGraphClassification is not equivariant to S_n: relative error ")
    assert message.endswith(" under coupled noise, expected at most 1e-08.")
    assert_equivariant(model, batch, tolerance=100.0)


def test_a_model_that_gives_no_numbers_does_not_pass():
    model, batch = make_case("haar")
    torch.nn.init.constant_(next(parameter for name, parameter in model.named_parameters() if "readout" in name), float("nan"))
    with pytest.raises(AssertionError, match="relative error nan"):
        assert_equivariant(model, batch)


def test_a_batch_without_a_mask_has_no_padding():
    model, rows = tiny_classifier(), [row for row in random_rows(20) if row["num_nodes"] == 5][:2]
    batch = dict(LPSProcessor.from_config(model.config)(rows, return_tensors="pt"))
    with_mask = equivariance_error(model, batch, 2, 3, generator=torch.Generator().manual_seed(0))
    del batch["node_mask"]
    assert equivariance_error(model, batch, 2, 3, generator=torch.Generator().manual_seed(0)) == with_mask
    with pytest.raises(ValueError, match="node_categories: expected a tensor of shape .batch, nodes, ...., got None"):
        equivariance_error(model, {"edge_index": batch["edge_index"]})


def test_only_symmetrized_models_are_measured():
    with pytest.raises(TypeError, match="model: expected a symmetrized model such as LPSModel, got Linear"):
        equivariance_error(torch.nn.Linear(2, 2), {})


def test_a_symmetrized_module_is_measured_as_a_model_is():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(15, 16), nn.Tanh(), nn.Linear(16, 3))
    model, vectors = symmetrize(network, group="SO(3)", inputs="5 v", output="v").eval(), torch.randn(4, 5, 3)
    assert_equivariant(model, vectors)
    few, many = (equivariance_error(model, vectors, num_samples=count, generator=seeded()) for count in (10, 250))
    assert 3 < few.relative_error / many.relative_error < 8  # of √25
    alone = equivariance_error(model, vectors, symmetrized=False, generator=seeded())
    assert alone.relative_error > 4 * many.relative_error


def test_named_inputs_and_padding_of_a_symmetrized_module():
    network = _SumOfRows().double()
    model = symmetrize(network, group="S_n", inputs={"nodes": "n 2", "pairs": "n n 1"}, output="n 2").double().eval()
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    inputs = {"nodes": torch.randn(2, 4, 2).double(), "pairs": (torch.rand(2, 4, 4, 1) < 0.5).double(), "node_mask": mask}
    assert_equivariant(model, inputs)


def test_a_module_that_only_says_it_is_symmetrized_is_found_out():
    model = symmetrize(
        nn.Sequential(nn.Flatten(), nn.Linear(15, 3)), group="SO(3)", inputs="5 v", output="v", distribution="none"
    )
    with pytest.raises(AssertionError, match=r"Symmetrized is not equivariant to SO\(3\)"):
        assert_equivariant(model.eval(), torch.randn(4, 5, 3))


class _SumOfRows(nn.Module):
    """Weighs nodes by their places, and adds the rows of the pairs."""

    def forward(self, nodes, pairs):
        places = torch.arange(nodes.shape[1], dtype=nodes.dtype).view(1, -1, 1)
        return torch.tanh(nodes * places) + pairs.sum(dim=2)


class ComplexModule(nn.Module):
    """Knows nothing of the unitary group; its weights are complex."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))

    def forward(self, vectors):
        return torch.complex(vectors.real.tanh(), vectors.imag) * self.weight


def test_complex_modules_are_measured():
    model = symmetrize(ComplexModule(), group="U(2)", inputs="n v", output="n v", distribution="haar")
    vectors = torch.randn(3, 4, 2, dtype=torch.complex64, generator=seeded())
    assert_equivariant(model, vectors)
    assert 1e-3 < equivariance_error(model, vectors).relative_error < 1
    with pytest.raises(AssertionError):
        assert_equivariant(symmetrize(ComplexModule(), group="U(2)", inputs="n v", output="n v", distribution="none"), vectors)


def test_a_number_of_samples_that_is_auto_is_measured_in_whole_blocks():
    model = symmetrize(
        nn.Tanh(), group="S_n", inputs="n 2", output="n 2", num_eval_samples="auto", sampler="stratified", sampler_group_size=3
    )
    equivariance_error(model, torch.randn(2, 3, 2, generator=seeded()), num_group_elements=1)


def test_a_wrapped_module_is_measured():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs)

    assert_equivariant(Wrapper(symmetrize(nn.Tanh(), group="O(2)", inputs="n v", output="n v")), torch.randn(2, 3, 2))


def test_parts_in_another_mode_are_given_back_in_it():
    model = symmetrize(nn.Sequential(nn.Tanh(), nn.Dropout()), group="O(2)", inputs="n v", output="n v").train()
    model.module[1].eval()
    equivariance_error(model, torch.randn(2, 3, 2), num_group_elements=1)
    assert model.training
    assert model.module[0].training
    assert not model.module[1].training
