"""Whole models: exactly equivariant, equal to the dense reference, blind to padding, honest about their error."""

import copy
import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lps_hf.models.distributions import Noise
from lps_hf.models.groups import get_group
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.models.modeling_lps import LPSModel
from tests.models.graph_cases import (
    EQUIVARIANT_KINDS,
    KINDS,
    PADDING_MODES,
    Batch,
    kwargs_for,
    place_nodes,
    place_noise,
    random_batch,
    reference_forward,
    relabel,
    seeded,
    select_graph,
    tiny_model,
)

SIZES = [5, 1, 7, 4]
OUTPUTS = ("10", "n 2", "n n 1")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_equivariant_kind = pytest.mark.parametrize("kind", EQUIVARIANT_KINDS)
every_output = pytest.mark.parametrize("output", OUTPUTS)
every_mode = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def draw_noise(model: LPSModel, batch: Batch, num_samples: int, seed: int = 0) -> Noise:
    """Noise of which nothing is lost in the model's precision."""
    return model.draw_noise(model.encode(**batch), num_samples, seeded(seed))


def part_of(noise: Noise, *place: slice | int) -> Noise:
    return {name: part[place] for name, part in noise.items()}


def relabelling(batch: Batch, seed: int = 3) -> Tensor:
    elements = torch.arange(batch["node_mask"].shape[1]).repeat(len(batch["node_mask"]), 1)
    for graph, size in enumerate(batch["node_mask"].sum(1).tolist()):
        elements[graph, :size] = torch.randperm(size, generator=seeded(seed + graph))
    return elements


def act(elements: Tensor, result: Tensor, output: str) -> Tensor:
    for dim in range(1, 1 + output.count("n")):
        result = place_nodes(result, elements, dim=dim)
    return result


@every_equivariant_kind
@every_output
def test_coupled_noise_is_exactly_equivariant(kind, output):
    model, batch = tiny_model(distribution=kind, output=output), random_batch(SIZES)
    h, noise = relabelling(batch), draw_noise(model, batch, 3)
    with torch.no_grad():
        stayed = model(**kwargs_for(kind, batch), noise=noise)
        moved = model(**kwargs_for(kind, relabel(batch, h)), noise=place_noise(noise, h))
        uncoupled = model(**kwargs_for(kind, relabel(batch, h)), group_elements=stayed.group_elements)
    expected = torch.stack([element[index] for element, index in zip(h, stayed.group_elements, strict=True)])
    assert torch.equal(moved.group_elements, expected)
    torch.testing.assert_close(moved.output, act(h, stayed.output, output), rtol=0, atol=1e-10)
    torch.testing.assert_close(moved.standard_error, act(h, stayed.standard_error, output), rtol=0, atol=1e-10)
    assert (uncoupled.output - act(h, stayed.output, output)).abs().max() > 1e-3


@every_output
def test_group_elements_that_move_with_the_input_are_exactly_equivariant(output):
    model, batch = tiny_model(output=output), random_batch(SIZES)
    h, g = relabelling(batch), get_group("S_n").haar(batch["node_mask"], 3, seeded(0)).index
    moved_elements = torch.stack([element[index] for element, index in zip(h, g, strict=True)])
    with torch.no_grad():
        stayed = model(**batch, group_elements=g).output
        moved = model(**relabel(batch, h), group_elements=moved_elements).output
    torch.testing.assert_close(moved, act(h, stayed, output), rtol=0, atol=1e-10)


@every_output
def test_the_average_over_all_of_s4_is_equivariant_under_every_element(output):
    model, batch = tiny_model(output=output), random_batch([4])
    everything = get_group("S_n").enumerate(4).index
    with torch.no_grad():
        mean = model(**batch, group_elements=everything).output
        for h in everything[0].unsqueeze(1):
            result = model(**relabel(batch, h), group_elements=everything).output
            torch.testing.assert_close(result, act(h, mean, output), rtol=0, atol=1e-10)


def test_without_symmetrization_the_stored_order_matters():
    model, batch = tiny_model(distribution="none"), random_batch([7])
    with torch.no_grad():
        assert (model(**batch).output - model(**relabel(batch, relabelling(batch))).output).abs().max() > 1e-3


@every_equivariant_kind
def test_every_call_draws_anew_and_stores_nothing(kind):
    model, batch = tiny_model(distribution=kind, noise_scale=20.0), kwargs_for(kind, random_batch([7]))
    state, attributes = copy.deepcopy(model.state_dict()), set(vars(model)) | set(vars(model.distribution))
    with torch.no_grad():
        first, second = (model(**batch, num_samples=4) for _ in range(2))
        third, fourth = (model(**batch, num_samples=4, generator=seeded(1)) for _ in range(2))
    assert kind in ("canonical", "frame") or not torch.equal(first.group_elements, second.group_elements)
    assert torch.equal(third.output, fourth.output)
    assert set(vars(model)) | set(vars(model.distribution)) == attributes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


GEOMETRY = [(mode, centered) for mode in PADDING_MODES for centered in (False, True)]


@pytest.mark.parametrize("output", ["3", "n 3", "n n 3"])
@pytest.mark.parametrize(("mode", "centered"), GEOMETRY)
@pytest.mark.parametrize("max_nodes", [10, 9, 7, 3, 2, 1])
def test_output_and_gradients_agree_with_the_dense_reference(output, mode, centered, max_nodes):
    geometry = {"grid": 3, "max_nodes": max_nodes, "padding_mode": mode, "centered_padding": centered}
    model = tiny_model(output=output, temperature=0.1, **geometry).train()
    batch = random_batch(sorted({max_nodes, max(1, max_nodes - 3), 1}))
    noise = draw_noise(model, batch, 2)
    before = copy.deepcopy(model)
    result = model(**batch, noise=noise)
    expected, entropy = reference_forward(before, batch, noise)
    losses = []
    weights = torch.randn(result.output.shape, dtype=torch.float64)
    for graph, one in enumerate(expected):
        place = (graph, *[slice(0, len(one)) for _ in range(output.count("n"))])
        torch.testing.assert_close(result.output[place], one, rtol=1e-8, atol=1e-8)
        losses.append((weights[place] * one).sum())
    torch.testing.assert_close(result.entropy_loss, entropy, rtol=1e-8, atol=1e-8)
    ours = torch.autograd.grad((weights * result.output).sum() + 0.1 * result.entropy_loss, list(model.parameters()))
    theirs = torch.autograd.grad(sum(losses) + 0.1 * entropy, list(before.parameters()))
    for (name, _), our, their in zip(model.named_parameters(), ours, theirs, strict=True):
        scale = max(1.0, float(their.abs().max()))
        torch.testing.assert_close(our / scale, their / scale, rtol=0, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")
    if max_nodes > 2:
        assert before_gradient(model, theirs) > 1e-4


def before_gradient(model: LPSModel, gradients: tuple[Tensor, ...]) -> float:
    """Largest gradient inside the interface, in front of the permutation."""
    named = zip(model.named_parameters(), gradients, strict=True)
    return max(float(gradient.abs().max()) for (name, _), gradient in named if name.startswith("distribution"))


@pytest.mark.parametrize("kind", ["learned", "canonical"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-9)])
@every_mode
def test_published_temperature_agrees_with_the_dense_reference(kind, dtype, tolerance, training):
    model = tiny_model(dtype=dtype, distribution=kind, output="n 2").train(training)
    batch = random_batch(SIZES)
    noise = draw_noise(model, batch, 3)
    expected, entropy = reference_forward(copy.deepcopy(model), batch, noise)
    result = model(**batch, noise=noise)
    for graph, one in enumerate(expected):
        torch.testing.assert_close(result.output[graph, : len(one)], one, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(result.entropy_loss, entropy, rtol=tolerance, atol=tolerance)


@every_kind
@every_output
def test_every_parameter_has_a_finite_gradient(kind, output):
    model, batch = tiny_model(distribution=kind, output=output).train(), kwargs_for(kind, random_batch(SIZES))
    result = model(**batch)
    (result.output.square().sum() + (result.entropy_loss if result.entropy_loss is not None else 0)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@every_kind
@every_output
def test_padding_never_changes_a_result(kind, output):
    model = tiny_model(distribution=kind, output=output)
    mixed, padded = (kwargs_for(kind, random_batch(SIZES, num_nodes=n, num_edges=e)) for n, e in ((7, 21), (13, 40)))
    noise = draw_noise(model, padded, 3)
    with torch.no_grad():
        together = model(**mixed, noise=part_of(noise, slice(None), slice(None), slice(7)))
        further = model(**padded, noise=noise)
        for graph, size in enumerate(SIZES):
            alone = model(
                **kwargs_for(kind, select_graph(mixed, graph)),
                noise=part_of(noise, slice(graph, graph + 1), slice(None), slice(size)),
            )
            place = (slice(graph, graph + 1), *[slice(0, size)] * output.count("n"))
            for name in ("output", "standard_error"):
                if kind == "none" and name == "standard_error":
                    assert alone.standard_error is not None
                torch.testing.assert_close(together[name][place], alone[name], rtol=0, atol=1e-10)
                torch.testing.assert_close(further[name][place], alone[name], rtol=0, atol=1e-10)
    assert alone.output.abs().max() > 1e-2
    assert together.output[1].shape == tuple(7 if axis == "n" else int(axis) for axis in output.split())


@pytest.mark.parametrize("output", ["n 2", "n n 1"])
def test_outputs_are_zero_on_padding(output):
    result = tiny_model(output=output)(**random_batch(SIZES, num_nodes=9))
    for graph, size in enumerate(SIZES):
        for tensor in (result.output, result.standard_error):
            outside = tensor[graph].clone()
            outside[(slice(0, size),) * output.count("n")] = 0
            assert not outside.any()


def test_padding_changes_nothing_in_training():
    results = []
    for nodes, edges in ((7, 21), (12, 50)):
        model = tiny_model().train()
        batch = random_batch(SIZES, num_nodes=nodes, num_edges=edges)
        noise = part_of(draw_noise(model, random_batch(SIZES, num_nodes=12), 2), slice(None), slice(None), slice(nodes))
        result = model(**batch, noise=noise)
        (result.output.square().sum() + result.entropy_loss).backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append({"output": result.output, "entropy": result.entropy_loss, **gradients, **dict(model.named_buffers())})
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_the_mean_over_samples_is_the_mean_of_single_samples():
    model, batch = tiny_model(), random_batch(SIZES)
    noise = draw_noise(model, batch, 4)
    with torch.no_grad():
        together = model(**batch, noise=noise)
        single = torch.stack([model(**batch, noise=part_of(noise, slice(None), slice(k, k + 1))).output for k in range(4)])
    torch.testing.assert_close(together.output, single.mean(0), rtol=0, atol=1e-10)
    torch.testing.assert_close(together.standard_error, single.std(0) / 2, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["learned", "haar"])
def test_the_error_bar_is_the_spread_of_repeated_evaluations(kind):
    model, graph = tiny_model(dtype=torch.float32, distribution=kind, output="4"), random_batch([6])
    repeated = {key: value.expand(200, *value.shape[1:]) for key, value in graph.items()}
    claims = {}
    for num_samples in (4, 16, 64):
        with torch.no_grad():
            result = model(**repeated, num_samples=num_samples, generator=seeded(num_samples))
        claims[num_samples] = float(result.standard_error.square().mean().sqrt())
        spread = float(result.output.var(dim=0).mean().sqrt())
        assert spread > 1e-3
        assert 0.8 < claims[num_samples] / spread < 1.25
    assert 0.9 < claims[4] / (2 * claims[16]) < 1.1
    assert 0.9 < claims[16] / (2 * claims[64]) < 1.1


def test_number_of_samples():
    batch = random_batch(SIZES)
    model = tiny_model(num_samples=2, num_eval_samples=5)
    assert model(**batch).group_elements.shape == (4, 5, 7)
    assert model.train()(**batch).group_elements.shape == (4, 2, 7)
    assert model(**batch, num_samples=3).group_elements.shape == (4, 3, 7)
    one = model.eval()(**batch, num_samples=1)
    assert one.standard_error is None
    # The stored order has no spread: one sample of it is all there is to know.
    assert tiny_model(distribution="none")(**batch, num_samples=7).group_elements.shape == (4, 1, 7)


def test_patch_dropout_is_off_at_evaluation():
    # In the published implementation it stays on.
    model, batch = tiny_model(grid=3, patch_dropout=0.5), random_batch(SIZES)
    elements = get_group("S_n").haar(batch["node_mask"], 3).index
    with torch.no_grad():
        first, second = (model(**batch, group_elements=elements).output for _ in range(2))
        third, fourth = (model.train()(**batch, group_elements=elements).output for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(third, fourth)
    without = tiny_model(grid=3)
    without.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(without(**batch, group_elements=elements).output, first)


def test_autocast_keeps_the_permutations_and_lowers_only_the_backbone():
    model, batch = tiny_model(dtype=torch.float32), random_batch(SIZES)
    noise = draw_noise(model, batch, 3)
    plain = model(**batch, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**batch, noise=noise)
    assert torch.equal(plain.group_elements, mixed.group_elements)
    assert torch.equal(plain.entropy_loss, mixed.entropy_loss)
    torch.testing.assert_close(mixed.output.float(), plain.output, rtol=0.1, atol=0.1)
    assert not torch.equal(mixed.output.float(), plain.output)


class LargestDenseSquare(TorchDispatchMode):
    """Looks for dense tensors with two axes as long as the node axis."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.nodes, self.found = nodes, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.shape.count(self.nodes) > 1:
                self.found.append((str(function), tuple(tensor.shape)))
        return result


@every_kind
@pytest.mark.parametrize("with_gradient", [False, True])
def test_no_dense_square_of_nodes_is_made(kind, with_gradient):
    model, batch = tiny_model(distribution=kind, max_nodes=53), kwargs_for(kind, random_batch([53, 31]))
    with torch.set_grad_enabled(with_gradient), LargestDenseSquare(53) as watch:
        output = model(**batch)
    assert not watch.found
    if kind == "learned" and with_gradient:  # the watch sees what it is there for, in the backward pass
        with LargestDenseSquare(53) as watch:
            output.output.sum().backward()
        assert watch.found


def test_backbone_outputs_are_handed_on():
    model = tiny_model(grid=3, attn_implementation="eager")
    batch = random_batch(SIZES)
    result = model(**batch, num_samples=2, output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in result.hidden_states] == [(8, 10, 8)] * 2
    assert [attention.shape for attention in result.attentions] == [(8, 2, 10, 10)]
    assert model(**batch).hidden_states is None
    as_tuple = model(**batch, noise=draw_noise(model, batch, 2), return_dict=False)
    assert torch.equal(as_tuple[0], model(**batch, noise=draw_noise(model, batch, 2)).output)


def forward_errors() -> dict[str, tuple[type, dict, str]]:
    swapped = torch.tensor([0, 1, 2, 3, 4, 6, 5]).repeat(4, 3, 1)
    identity = torch.arange(7).repeat(4, 3, 1)
    ties, noise = torch.rand(4, 3, 7), torch.rand(4, 3, 7, 5)
    return {
        "num_samples of half": (TypeError, {"num_samples": 1.5}, r"num_samples: expected an int, got float 1.5"),
        "num_samples true": (TypeError, {"num_samples": True}, r"num_samples: expected an int, got bool"),
        "no samples": (ValueError, {"num_samples": 0}, r"num_samples: expected at least 1, got 0"),
        "noise of one tensor": (
            ValueError,
            {"noise": ties},
            r"noise: expected a dict with the keys S_n, interface, got Tensor. See draw_noise",
        ),
        "no ties": (ValueError, {"noise": {"interface": noise}}, r"noise: expected a dict with the keys .*got \['interface'\]"),
        "flat noise": (
            ValueError,
            {"noise": {"S_n": ties, "interface": noise[0]}},
            r"noise\['interface'\]: expected shape \(4, num_samples, 7, 5\), got \(3, 7, 5\)",
        ),
        "noise channels": (
            ValueError,
            {"noise": {"S_n": ties, "interface": noise[..., :1]}},
            r"noise\['interface'\]: expected shape .*got \(4, 3, 7, 1\)",
        ),
        "noise of other nodes": (
            ValueError,
            {"noise": {"S_n": ties[:, :, :5], "interface": noise}},
            r"noise\['S_n'\]: expected shape \(4, num_samples, 7\), got \(4, 3, 5\)",
        ),
        "noise of no sample": (
            ValueError,
            {"noise": {"S_n": ties[:, :0], "interface": noise[:, :0]}},
            r"noise\['S_n'\]: expected num_samples=at least 1, got 0 samples",
        ),
        "noise of other samples": (
            ValueError,
            {"noise": {"S_n": ties, "interface": noise}, "num_samples": 2},
            r"noise\['S_n'\]: expected num_samples=2, got 3",
        ),
        "noise of unequal samples": (
            ValueError,
            {"noise": {"S_n": ties, "interface": noise[:, :2]}},
            r"noise\['interface'\]: expected num_samples=3, got 2",
        ),
        "both": (
            ValueError,
            {"noise": {"S_n": ties, "interface": noise}, "group_elements": identity},
            r"group_elements and noise: expected one of them",
        ),
        "flat elements": (
            ValueError,
            {"group_elements": identity[0]},
            r"group_elements: expected shape .*got \(3, 7\)",
        ),
        "elements of other nodes": (
            ValueError,
            {"group_elements": identity[:, :, :5]},
            r"group_elements: expected shape \(4, num_samples, 7\), got \(4, 3, 5\)",
        ),
        "elements of other samples": (
            ValueError,
            {"group_elements": identity, "num_samples": 2},
            r"group_elements: expected num_samples=2, got 3 samples",
        ),
        "real elements": (
            TypeError,
            {"group_elements": identity.float()},
            r"group_elements: expected int64, got torch.float32",
        ),
        "no permutation": (
            ValueError,
            {"group_elements": identity * 0},
            r"group_elements: expected permutations of 0 to",
        ),
        "moved padding": (ValueError, {"group_elements": swapped}, r"group_elements: .*leave padding in its place"),
        "bad edges": (ValueError, {"edge_index": torch.full((4, 2, 21), 7)}, r"edge_index: graph 0 has 5 nodes"),
    }


@pytest.mark.parametrize("name", forward_errors())
@pytest.mark.parametrize("model_class", [LPSModel, LPSForGraphClassification])
def test_wrong_arguments_are_refused(name, model_class):
    error, arguments, message = forward_errors()[name]
    model = tiny_model(model_class, dtype=torch.float32)
    with pytest.raises(error, match=message):
        model(**{**random_batch(SIZES), **arguments})


def test_a_model_of_a_frame_asks_for_ranks():
    with pytest.raises(ValueError, match="frame_ranks: expected an int64 tensor"):
        tiny_model(distribution="frame")(**random_batch(SIZES))


def test_a_model_with_an_unknown_field_says_so():
    def make_and_call() -> None:
        model = tiny_model(node_categories=None, inputs={"node_features": "n 1", "pixels": "n 3"})
        model(**{**random_batch(SIZES), "node_categories": None})

    with pytest.raises(ValueError, match=r"inputs.*'pixels'.*'node_features'"):
        make_and_call()


@pytest.fixture
def saved(tmp_path):
    """A classifier, and a folder with it."""
    model = tiny_model(LPSForGraphClassification, dtype=torch.float32, max_nodes=7, padding_mode="reflect")
    model.save_pretrained(tmp_path)
    return model, tmp_path


@every_kind
def test_a_loaded_model_gives_the_same_numbers(kind, tmp_path):
    model = tiny_model(LPSForGraphClassification, dtype=torch.float32, distribution=kind, padding_mode="circular")
    model.save_pretrained(tmp_path)
    again, report = LPSForGraphClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert not again.training
    batch = kwargs_for(kind, random_batch(SIZES))
    noise = model.lps.draw_noise(model.lps.encode(**batch), 3)
    with torch.no_grad():
        expected, result = model(**batch, noise=noise), again(**batch, noise=noise)
        body = LPSModel.from_pretrained(tmp_path)(**batch, noise=noise)
    assert torch.equal(result.group_elements, expected.group_elements)
    for logits in (result.logits, body.output):
        torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-6)


def test_half_precision_spares_the_distribution(saved):
    model, folder = saved
    half = LPSForGraphClassification.from_pretrained(folder, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in half.lps.base.parameters()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in half.lps.distribution.parameters()} == {torch.float32}
    buffers = [tensor for tensor in half.lps.distribution.buffers() if tensor.is_floating_point()]
    assert buffers
    assert {tensor.dtype for tensor in buffers} == {torch.float32}
    batch = random_batch(SIZES)
    noise = model.lps.draw_noise(model.lps.encode(**batch), 3)
    expected, result = model(**batch, noise=noise), half(**batch, noise=noise)
    assert torch.equal(result.group_elements, expected.group_elements)
    torch.testing.assert_close(result.logits.float(), expected.logits, rtol=0.1, atol=0.2)
    half.save_pretrained(folder / "half")
    again = LPSForGraphClassification.from_pretrained(folder / "half")
    assert {tensor.dtype for tensor in again.lps.base.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        torch.testing.assert_close(again(**batch, noise=noise).logits, result.logits, rtol=0, atol=0)


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_truncated_file_is_refused(saved, share):
    path = saved[1] / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SafetensorError, match="incomplete metadata, file not fully covered"):
        LPSForGraphClassification.from_pretrained(saved[1])


def change_config(folder, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("values", [{"max_nodes": 40}, {"grid_size": 3}, {"interface_config": {"hidden_size": 13}}])
def test_weights_of_another_shape_are_refused(saved, values):
    change_config(saved[1], **values)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        LPSForGraphClassification.from_pretrained(saved[1])


def without_readout(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in weights.items() if "readout" not in key}


def with_a_stranger(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**weights, "lps.stranger": torch.zeros(2)}


@pytest.mark.parametrize("change", [without_readout, with_a_stranger])
def test_missing_and_unexpected_weights_are_refused(saved, change):
    # transformers fills what is missing with random numbers and says so in a log only.
    path = saved[1] / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"expected the weights that config.json describes.*(readout|stranger)"):
        LPSForGraphClassification.from_pretrained(saved[1])


@pytest.mark.parametrize("values", [{"interface_config": {"hidden_size": 12, "num_layers": 4}}, {"distribution": "haar"}])
def test_a_config_of_another_model_is_refused(saved, values):
    change_config(saved[1], **values)
    with pytest.raises(ValueError, match=r"distribution.*Config and weights are of different models"):
        LPSForGraphClassification.from_pretrained(saved[1])


def test_who_asks_for_the_report_judges_the_weights(saved):
    path = saved[1] / "model.safetensors"
    save_file(without_readout(load_file(path)), path, metadata={"format": "pt"})
    _, report = LPSForGraphClassification.from_pretrained(saved[1], output_loading_info=True)
    assert report["missing_keys"] == {"lps.base.readout.linear.weight", "lps.base.readout.linear.bias"}


def test_a_learned_checkpoint_is_loaded_with_another_distribution(saved):
    model = LPSForGraphClassification.from_pretrained(saved[1], distribution="haar")
    assert model.config.distribution == "haar"
    learned = LPSForGraphClassification.from_pretrained(saved[1])
    assert learned.lps.distribution.interface is not None
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, learned.get_parameter(name))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by the compiler itself
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_compiled_model_is_one_graph(training):
    # And so one that never waits for an accelerator: reading a value on the host would break the graph.
    model, batch = tiny_model().train(training), random_batch([5, 3])
    noise = model.draw_noise(model.encode(**batch), 2, seeded(0))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager" if training else "eager")
    results = []
    try:
        for function in (model, compiled):
            model.zero_grad()
            with torch.set_grad_enabled(training):
                result = function(**batch, noise=noise)
            if training:
                loss = result.output.square().sum()
                (loss if result.entropy_loss is None else loss + result.entropy_loss).backward()
            results.append([result.output.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    finally:
        torch.compiler.reset()
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
