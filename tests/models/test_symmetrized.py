"""Modules of the user's own, made equivariant by `symmetrize`, without a configuration or the Hub."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lps_hf
from lps_hf.models.elements import Element
from lps_hf.models.groups import get_group
from lps_hf.models.representations import Representation
from lps_hf.models.symmetrized import Symmetrized


class TwoInputs(nn.Module):
    """A module with keyword arguments, which reads a set of points and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * 3 + 16, 12)

    def forward(self, points: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.cat([points.flatten(1), pairs.flatten(1)], dim=1)).unflatten(1, (4, 3))


def flat_network(inputs: int, *output: int) -> nn.Module:
    size = int(torch.tensor(output).prod())
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, size), nn.Unflatten(1, output))


# Group, inputs, output, a network that knows nothing of the group, and a batch of three inputs for it.
CASES = {
    "SO(3) on vectors": ("SO(3)", "5 v", "v", lambda: flat_network(15, 3), (3, 5, 3)),
    "O(2) on vectors": ("O(2)", "v 3", "2", lambda: flat_network(6, 2), (3, 2, 3)),
    "E(3) on points": ("E(3)", "n p", "n p", lambda: flat_network(12, 4, 3), (3, 4, 3)),
    "S_n on sets": ("S_n", "n 3", "n 2", lambda: flat_network(12, 4, 2), (3, 4, 3)),
    "S_n on graphs": ("S_n", "n n 1", "2", lambda: flat_network(16, 2), (3, 4, 4, 1)),
    "S_n x SO(3)": ("S_n x SO(3)", "n v", "n v", lambda: flat_network(12, 4, 3), (3, 4, 3)),
    "C_4 on images": ("C_4", "2 h w", "3", lambda: flat_network(72, 3), (3, 2, 6, 6)),
    "D_4, images to images": ("D_4", "h w", "h w", lambda: flat_network(36, 6, 6), (3, 6, 6)),
}
ROWS = [
    (case, kind)
    for case, (group, *_) in CASES.items()
    for kind in ("learned", "canonical", "haar", "exact", "frame")
    if kind in get_group(group).factors[0].distributions
]


def make(case: str, kind: str, **options) -> tuple[Symmetrized, torch.Tensor]:
    group, inputs, output, network, shape = CASES[case]
    torch.manual_seed(1)
    model = lps_hf.symmetrize(network(), group=group, inputs=inputs, output=output, distribution=kind, **options)
    x = torch.randn(shape, dtype=torch.float64)
    return model.double().eval(), (x > 0).double() if inputs == "n n 1" else x


def act(element: Element, tensor: torch.Tensor, group: str, axes: str) -> torch.Tensor:
    return get_group(group).act(element, tensor.unsqueeze(1), Representation.parse(axes)).squeeze(1)


@pytest.mark.parametrize(("case", "kind"), ROWS)
def test_exactly_equivariant_with_noise_that_moves_along(case, kind):
    model, x = make(case, kind)
    group, inputs, output, *_ = CASES[case]
    batch = model.encode(x)
    noise = {name: part.double() for name, part in model.distribution.draw_noise(batch, 3).items()}
    h = get_group(group).haar(batch.node_mask, 1)
    everywhere = h.map(lambda tensor: tensor.expand(-1, 3, *tensor.shape[2:]))
    axes = model.distribution.noise_axes
    moved_noise = {name: get_group(group).act(everywhere, part, axes[name]) for name, part in noise.items()}
    here = act(h, model.estimate(x, noise=noise).mean, group, output)
    there = model.estimate(act(h, x, group, inputs), noise=moved_noise).mean
    torch.testing.assert_close(there, here, rtol=1e-9, atol=1e-9)


def test_the_module_alone_is_not_equivariant():
    for case, (group, inputs, output, *_) in CASES.items():
        model, x = make(case, "none")
        h = get_group(group).haar(model.encode(x).node_mask, 1)
        difference = model(act(h, x, group, inputs)) - act(h, model(x), group, output)
        assert difference.abs().max() > 1e-3, case
        torch.testing.assert_close(model(x), model.module(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("case", list(CASES))
def test_the_learned_distribution_trains(case):
    model, x = make(case, "learned")
    model.train()
    result = model.estimate(x, num_samples=2)
    loss = result.mean.square().sum()
    if result.regularizer is not None:
        loss = loss + 0.1 * result.regularizer
    loss.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing
    interface = [parameter.grad for parameter in model.distribution.interface.parameters()]
    assert max(float(gradient.abs().max()) for gradient in interface) > 0


def test_an_exact_average_over_a_finite_group_is_the_sum_over_its_elements():
    model, x = make("C_4 on images", "exact")
    expected = torch.stack([model.module(torch.rot90(x, turns, (-2, -1))) for turns in range(4)]).mean(dim=0)
    result = model.estimate(x)
    torch.testing.assert_close(result.mean, expected, rtol=1e-12, atol=1e-12)
    assert result.standard_error is None
    assert result.group_elements.shape == (3, 4)


def test_named_inputs_reach_the_module_by_name():
    model = lps_hf.symmetrize(TwoInputs(), group="S_n x E(3)", inputs={"points": "n p", "pairs": "n n 1"}, output="n p")
    points, pairs = torch.randn(2, 4, 3), torch.rand(2, 4, 4, 1)
    assert model(points=points, pairs=pairs).shape == (2, 4, 3)
    with pytest.raises(ValueError, match=r"inputs: expected the keyword arguments points, pairs, got 2 positional"):
        model(points, pairs)
    with pytest.raises(ValueError, match=r"inputs: expected points, pairs, got points\."):
        model(points=points)


def test_number_of_samples_follows_the_mode():
    model, x = make("S_n on sets", "learned", num_samples=2, num_eval_samples=5)
    assert model.estimate(x).group_elements.shape == (3, 5, 4)
    assert model.train().estimate(x).group_elements.shape == (3, 2, 4)
    assert model.estimate(x, num_samples=7).group_elements.shape == (3, 7, 4)


def test_the_standard_error_is_that_of_independent_repetitions():
    model, x = make("S_n x SO(3)", "learned")
    with torch.no_grad():
        many = torch.stack([model(x, num_samples=8) for _ in range(200)])
        reported = torch.stack([model.estimate(x, num_samples=8).standard_error for _ in range(200)]).square().mean(dim=0).sqrt()
    ratio = reported / many.std(dim=0)
    assert ((ratio > 0.85) & (ratio < 1.18)).all(), ratio


def test_padding_comes_in_and_goes_out_as_zero():
    model = lps_hf.symmetrize(
        nn.Sequential(nn.Flatten(), nn.Linear(15, 15), nn.Unflatten(1, (5, 3))), "E(3)", inputs="n p", output="n p"
    ).double()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    noise = model.distribution.draw_noise(model.encode(x, node_mask=mask), 2)
    first = model.estimate(x, node_mask=mask, noise=noise).mean
    second = model.estimate(torch.where(mask.unsqueeze(-1), x, 77.0), node_mask=mask, noise=noise).mean
    assert torch.equal(first, second)
    assert not first[1, 3:].any()


def test_a_symmetrized_module_is_saved_and_loaded_as_any_other(tmp_path):
    model, x = make("S_n x SO(3)", "learned")
    other, _ = make("S_n x SO(3)", "learned")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    noise = model.distribution.draw_noise(model.encode(x), 2)
    assert torch.equal(model.estimate(x, noise=noise).mean, other.estimate(x, noise=noise).mean)


NETWORK = flat_network(12, 4, 3)
REFUSED = {
    "module": (lambda: lps_hf.symmetrize(torch.relu, "S_n", "n 3", "n 3"), TypeError, "module: expected a torch.nn.Module"),
    "group": (lambda: lps_hf.symmetrize(NETWORK, "S_m", "n 3", "n 3"), ValueError, "group: expected one of 'S_n'"),
    "axis": (lambda: lps_hf.symmetrize(NETWORK, "S_n", "n v", "n 3"), ValueError, "does not act on axis 'v'"),
    "output axis": (lambda: lps_hf.symmetrize(NETWORK, "S_n", "n 3", "n v"), ValueError, "output 'n v': the group S_n does not"),
    "no inputs": (lambda: lps_hf.symmetrize(NETWORK, "S_n", {}, "n 3"), ValueError, "inputs: expected at least one"),
    "kind": (lambda: lps_hf.symmetrize(NETWORK, "S_n", "n 3", "n 3", "best"), ValueError, "distribution: expected one of"),
    "frame of images": (
        lambda: lps_hf.symmetrize(NETWORK, "C_4", "h w", "2", "frame"),
        ValueError,
        "for the group C_4, got 'frame'",
    ),
    "count": (lambda: lps_hf.symmetrize(NETWORK, "S_n", "n 3", "n 3", num_samples=0), ValueError, "num_samples: expected at"),
    "count type": (
        lambda: lps_hf.symmetrize(NETWORK, "S_n", "n 3", "n 3", num_samples=1.5),
        TypeError,
        "num_samples: expected an",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_wrong_arguments_are_refused(name):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)


WRONG_INPUTS = {
    "channels": (torch.randn(2, 4, 2), ValueError, "input: expected shape (batch, n, 3), got (2, 4, 2)"),
    "axes": (torch.randn(4, 3), ValueError, "input: expected shape (batch, n, 3), got (4, 3)"),
    "type": (torch.ones(2, 4, 3, dtype=torch.int64), TypeError, "input: expected a tensor of floating point numbers"),
    "NaN": (torch.full((2, 4, 3), torch.nan), ValueError, "input: expected finite numbers"),
}


@pytest.mark.parametrize("name", list(WRONG_INPUTS))
def test_wrong_inputs_are_refused(name):
    tensor, kind, message = WRONG_INPUTS[name]
    with pytest.raises(kind) as caught:
        lps_hf.symmetrize(NETWORK, "S_n", "n 3", "n 3")(tensor)
    assert message in str(caught.value)


def test_a_module_that_returns_something_else_is_refused():
    model = lps_hf.symmetrize(NETWORK, "S_n", "n 3", "n n 1")
    with pytest.raises(ValueError, match=r"module: expected it to return a tensor with the axes \(batch, n, n, 1\)"):
        model(torch.randn(2, 4, 3))


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="num_samples: expected at least 1, got 0"):
        lps_hf.symmetrize(nn.Linear(3, 3), group="SO(3)", inputs="v", output="v")(torch.zeros(1, 3), num_samples=0)


def test_frames_do_not_weigh_vectors_of_the_whole_input_by_the_padding():
    class Directed(nn.Module):
        def forward(self, points: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
            return (torch.cat([points.sum(dim=1), field], dim=1) + 1).tanh()

    model = lps_hf.symmetrize(Directed(), group="SO(3)", inputs={"points": "n v", "field": "v"}, output="6", distribution="exact")
    generator = torch.Generator().manual_seed(0)
    points, field = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((1, 2, 3), (1, 3)))
    padded, mask = torch.cat([points, torch.zeros(1, 5, 3)], dim=1), torch.arange(7).unsqueeze(0) < 2
    torch.testing.assert_close(model(points=padded, field=field, node_mask=mask), model(points=points, field=field))


@pytest.mark.parametrize("kind", ["learned", "canonical"])
def test_images_that_are_symmetric_up_to_rounding_come_to_every_pose(kind):
    torch.manual_seed(0)
    model = lps_hf.symmetrize(nn.Identity(), group="C_4", inputs="3 h w", output="3 h w", distribution=kind, noise_scale=0.0)
    image = torch.randn(1, 3, 8, 8)
    image = sum(torch.rot90(image, turns, (2, 3)) for turns in range(4)) / 4
    elements = model.estimate(image, num_samples=200).group_elements
    assert torch.bincount(elements[0], minlength=4).min() > 20


def test_half_precision_spares_the_distribution_wherever_it_is_converted():
    model = lps_hf.symmetrize(nn.Linear(3, 3), group="S_n x E(3)", inputs="n p", output="n p")
    for converted in (model.to(torch.bfloat16), model.half()):
        assert {tensor.dtype for tensor in converted.distribution.parameters()} == {torch.float32}
        assert converted.module.weight.dtype in (torch.bfloat16, torch.float16)
    assert {tensor.dtype for tensor in model.double().distribution.parameters()} == {torch.float64}


def test_rubbish_on_padding_does_not_reach_the_module():
    model = lps_hf.symmetrize(flat_network(15, 2), "SO(3)", inputs="n v", output="2", distribution="haar").double().eval()
    mask = torch.tensor([[True] * 3 + [False] * 2])
    x = torch.randn(1, 5, 3, dtype=torch.float64)
    noise = model.distribution.draw_noise(model.encode(x, node_mask=mask), 2)
    first = model.estimate(x, node_mask=mask, noise=noise).mean
    assert torch.equal(first, model.estimate(torch.where(mask.unsqueeze(-1), x, 77.0), node_mask=mask, noise=noise).mean)


def test_points_of_pairs_alone_have_no_centroid():
    with pytest.raises(ValueError, match=r"inputs: the group E\(3\) moves points, so expected a field such as 'n p'"):
        lps_hf.symmetrize(NETWORK, "E(3)", "n n p", "n n p", "haar")


def test_noise_of_another_batch_is_refused():
    model, x = make("S_n on sets", "learned")
    noise = model.distribution.draw_noise(model.encode(x[:1]), 2)
    with pytest.raises(ValueError, match=r"noise\['S_n'\]: expected shape \(3, num_samples, 4\), got \(1, 2, 4\)"):
        model.estimate(x, noise=noise)
    with pytest.raises(ValueError, match=r"noise: expected a dict with the keys S_n, interface, got Tensor"):
        model.estimate(x, noise=torch.rand(3, 2, 4))
    with pytest.raises(ValueError, match="group_elements and noise: expected one of them, got both"):
        model.estimate(x, noise=noise, group_elements=torch.zeros(3, 1, 4))


def test_passes_do_not_change_the_estimate():
    results = []
    for samples_per_pass in (None, 4, 5):
        model, x = make("E(3) on points", "haar", samples_per_pass=samples_per_pass, num_eval_samples=12)
        calls = []
        model.module.register_forward_pre_hook(lambda module, args, calls=calls: calls.append(len(args[0])))
        with torch.no_grad():
            results.append(model.estimate(x, generator=torch.Generator().manual_seed(0)))
        assert calls == {None: [36], 4: [12, 12, 12], 5: [15, 15, 6]}[samples_per_pass]
    for result in results[1:]:
        torch.testing.assert_close(result.mean, results[0].mean)
        torch.testing.assert_close(result.standard_error, results[0].standard_error)


@torch.no_grad()
def test_auto_draws_as_many_as_the_error_bar_asks_for():
    model, x = make("SO(3) on vectors", "haar", num_eval_samples="auto", tolerance=0.05, max_eval_samples=5_000)
    result = model.estimate(x)
    assert (result.standard_error <= 0.05).all()
    assert 20 <= result.num_samples.min() <= result.num_samples.max() < 5_000
    assert result.degrees_of_freedom.tolist() == [count - 1 for count in result.num_samples.tolist()]
    assert (model.estimate(x, tolerance=0.02).num_samples > result.num_samples).all()
    low, high = result.confidence_interval(0.9999)
    truth = model.estimate(x, num_samples=2_000).mean
    assert ((low <= truth) & (truth <= high)).all()
    exact, images = make("C_4 on images", "exact", num_eval_samples="auto")
    torch.testing.assert_close(exact(images), exact(images, num_samples=1))
    with pytest.raises(ValueError, match="num_samples: expected a number in training"):
        model.train()(x, num_samples="auto")


def test_calibrated_error_bars_are_saved_with_weights_and_settings(tmp_path):
    options = {"noise_scale": 0.5, "sampler": "antithetic", "interface_config": {"hidden_size": 8}}
    model, x = make("S_n x SO(3)", "learned", **options)
    prior = model.calibrate(x)
    assert len(prior.variance) == 1  # a vector has no channels of its own
    file = tmp_path / "model.safetensors"
    model.save(file)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    again = Symmetrized.load(file, CASES["S_n x SO(3)"][3]()).double()
    assert again.prior == prior
    noise = model.distribution.draw_noise(model.encode(x), 4)
    one, other = (each.estimate(x, noise=noise) for each in (model, again))
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.standard_error, other.standard_error)


def test_what_cannot_be_loaded_or_calibrated_is_refused(tmp_path):
    model, _ = make("SO(3) on vectors", "learned")
    file = tmp_path / "model.safetensors"
    model.save(file)
    with pytest.raises(ValueError, match="expected the weights of this module, got others"):
        Symmetrized.load(file, flat_network(15, 4))
    save_file({"weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match=r"expected a file that Symmetrized\.save wrote"):
        Symmetrized.load(file, nn.Linear(2, 2))
    exact, images = make("C_4 on images", "exact")
    with pytest.raises(ValueError, match="distribution 'exact': expected one that draws"):
        exact.calibrate(images)


def test_the_error_bar_of_complex_vectors_is_a_real_number():
    torch.manual_seed(0)
    module = lps_hf.symmetrize(
        torch.nn.Linear(2, 2, dtype=torch.complex64), "U(2)", "v", "v", "haar", num_eval_samples=400
    ).eval()
    x = torch.randn(3, 2, dtype=torch.complex64)
    estimate = module.estimate(x, generator=torch.Generator().manual_seed(0))
    again = [module(x, generator=torch.Generator().manual_seed(seed)) for seed in range(1, 101)]
    spread = torch.stack(again).sub(torch.stack(again).mean(dim=0)).abs().square().mean(dim=0).sqrt()
    assert estimate.standard_error.dtype == torch.float32
    torch.testing.assert_close(estimate.standard_error, spread, rtol=0.3, atol=0.0)


def test_weights_go_into_a_folder_and_folders_are_made(tmp_path):
    model, x = make("SO(3) on vectors", "frame")
    cases = (tmp_path, tmp_path / "model.safetensors"), (tmp_path / "a", tmp_path / "a" / "model.safetensors")
    for path, file in (*cases, (tmp_path / "b" / "c.safetensors",) * 2):
        model.save(path)
        assert file.is_file()
        loaded = Symmetrized.load(path, flat_network(15, 3).double())
        assert torch.equal(loaded(x, num_samples=8).isfinite(), torch.ones(3, 3, dtype=torch.bool))


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"no weights are in here")
    with pytest.raises(ValueError, match=r"model\.safetensors: expected a file that Symmetrized\.save wrote, got no safetensors"):
        Symmetrized.load(tmp_path, nn.Linear(3, 3))
    with pytest.raises(FileNotFoundError):
        Symmetrized.load(tmp_path / "other.safetensors", nn.Linear(3, 3))


class TwoLayers(nn.Sequential):
    def __init__(self, is_tied: bool) -> None:
        super().__init__(nn.Linear(3, 3), nn.Linear(3, 3))
        if is_tied:
            self[1].weight = self[0].weight


def test_tied_weights_are_saved_and_loaded(tmp_path):
    saved, loaded = (lps_hf.symmetrize(TwoLayers(True), "SO(3)", "n v", "n v", "haar").eval() for _ in range(2))
    saved.save(tmp_path)
    loaded = Symmetrized.load(tmp_path, TwoLayers(True))
    assert torch.equal(loaded.module[1].weight, saved.module[0].weight)
    with pytest.raises(ValueError, match=r"1 are missing and 0 are left over, such as module\.1\.weight"):
        Symmetrized.load(tmp_path, TwoLayers(False))


def test_calibrating_takes_whole_blocks_in_evaluation_mode():
    network = nn.Sequential(flat_network(12, 2), nn.Dropout(0.5))
    model = lps_hf.symmetrize(
        network, "S_n", "n 3", "2", "haar", num_eval_samples=3, sampler="stratified", sampler_group_size=3
    ).train()
    network[0].eval()
    x = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0))
    assert model.calibrate(x, num_samples=1) == model.calibrate(x, num_samples=96)
    assert model.training
    assert network[1].training
    assert not network[0].training


@pytest.mark.parametrize(("axes", "shape"), [("n 3", (2, 0, 3)), ("n n 1", (2, 0, 0, 1))])
def test_inputs_without_nodes_are_refused(axes, shape):
    with pytest.raises(ValueError, match="input: expected at least one node, got shape"):
        lps_hf.symmetrize(nn.Identity(), "S_n", axes, axes)(torch.zeros(shape))


@pytest.mark.parametrize("kind", ["haar", "exact"])
def test_a_tolerance_is_checked_whether_or_not_there_is_an_error_bar(kind):
    model, x = make("SO(3) on vectors", kind)
    with pytest.raises(ValueError, match="tolerance: expected a positive number, got -1"):
        model.estimate(x, num_samples="auto", tolerance=-1)
