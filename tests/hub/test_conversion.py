"""Conversion of small drawn checkpoints in the published layouts; the recorded ones are in test_published_conversion."""

import json
import os
import pickle
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from lps_hf.hub import save_checkpoint
from lps_hf.hub.conversion import convert_published
from lps_hf.hub.published_cases import PUBLISHED_CASES
from lps_hf.models.base_networks import BASE_NETWORKS
from lps_hf.models.representations import Representation
from tests.hub.published_checkpoints import (
    RUN_NAME,
    exp_tensors,
    lightning_checkpoint,
    nbody_gnn_tensors,
    nbody_transformer_tensors,
    pattern_tensors,
    pcqm_tensors,
    peptides_tensors,
)

MAKERS = {
    "pattern": pattern_tensors,
    "peptides-func": peptides_tensors,
    "peptides-struct": lambda: peptides_tensors(11),
    "pcqm-contact": pcqm_tensors,
    "nbody-transformer": nbody_transformer_tensors,
    "nbody-gnn": nbody_gnn_tensors,
    "exp-classify": exp_tensors,
}
every_case = pytest.mark.parametrize("case", MAKERS)


def write(folder: Path, case: str, **changes) -> Path:
    """A file of a case; a tensor given as `None` is left out."""
    tensors = {key: tensor for key, tensor in (MAKERS[case]() | changes).items() if tensor is not None}
    file = folder / "best.ckpt"
    if PUBLISHED_CASES[case].network == "vit":
        return lightning_checkpoint(file, tensors, run_name=None)
    torch.save(tensors, file)
    return file


def test_every_case_is_tested():
    assert set(MAKERS) == set(PUBLISHED_CASES)


@every_case
def test_every_key_is_reported_and_every_parameter_filled(case, tmp_path):
    conversion = convert_published(write(tmp_path, case))
    report, tensors = conversion.report, MAKERS[case]()
    assert report.case == case
    assert {key.published for key in report.keys if key.shape is not None} == set(tensors)
    filled = [name for key in report.keys for name in key.ours]
    shared = {"lps.base.projections.edge_features.bias"} if case == "pattern" else set()  # two biases are added up
    assert sorted(set(filled)) == sorted(conversion.model.state_dict())
    assert len(filled) - len(set(filled)) == len(shared)
    assert report.num_converted + report.num_dropped == len(tensors)
    text = str(report)
    assert all(key in text for key in tensors)
    assert json.loads(json.dumps(report.to_dict()))["case"] == case
    assert type(conversion.model).__name__ == PUBLISHED_CASES[case].head
    assert not conversion.model.training


def test_tensors_are_cut_transposed_and_padded_as_their_layers_need(tmp_path):
    published = peptides_tensors(grid=7)
    conversion = convert_published(lightning_checkpoint(tmp_path / "a.ckpt", published))
    assert (conversion.model.config.centered_padding, conversion.model.config.padding_mode) == (True, "reflect")
    own, hidden = conversion.model.state_dict(), 64
    joint = published["backbone.backbone.blocks.1.attn.qkv.weight"]
    for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
        ours = own[f"lps.base.backbone.model.layers.1.attention.{name}.weight"]
        assert torch.equal(ours, joint[part * hidden : (part + 1) * hidden])
    # Centred reflect padding as PyTorch does it, to 49 · 10 and 7 · 64, then the published convolutions.
    projections = conversion.model.lps.base.projections
    nodes, pairs = torch.randn(1, 1, 444, 50), torch.randn(1, 1, 444, 444, 8)
    weight, bias = (published[f"input_proj.proj.0.proj.{leaf}"] for leaf in ("weight", "bias"))
    expected = F.conv1d(F.pad(nodes[:, 0].mT, (23, 23), mode="reflect"), weight, bias, stride=10)
    torch.testing.assert_close(projections["node_features"](nodes)[0], expected.mT, rtol=1e-4, atol=1e-4)
    weight, bias = (published[f"input_proj.proj.1.proj.{leaf}"] for leaf in ("weight", "bias"))
    expected = F.conv2d(F.pad(pairs[:, 0].permute(0, 3, 1, 2), (2, 2, 2, 2), mode="reflect"), weight, bias, stride=64)
    torch.testing.assert_close(projections["edge_features"](pairs)[0], expected.flatten(2).mT, rtol=1e-4, atol=1e-4)


def test_columns_of_particles_are_reordered(tmp_path):
    published = nbody_transformer_tensors()
    model = convert_published(write(tmp_path, "nbody-transformer"), num_attention_heads=2).model
    positions, velocities, pairs = torch.randn(1, 1, 5, 3), torch.randn(1, 1, 5, 3), torch.randn(1, 1, 5, 5, 2)
    tokens = torch.zeros(5, 5, 8)
    # The published tokens: x, v_x, y, v_y, z, v_z of the node on the diagonal, then the pair.
    tokens[range(5), range(5), :6] = torch.stack([positions[0, 0], velocities[0, 0]], dim=-1).flatten(1)
    tokens[..., 6:] = pairs[0, 0]
    expected = F.linear(tokens, published["backbone.input.0.weight"], published["backbone.input.0.bias"])
    network = model.lps.base.backbone
    seen = network.projection(
        network.pair_channels(
            {"positions": positions, "velocities": velocities, "pair_features": pairs}, torch.ones(1, 5, dtype=torch.bool)
        )
    )
    torch.testing.assert_close(seen[0, 0], expected)


def test_the_mlp_reads_nodes_then_the_matrix(tmp_path):
    published = exp_tensors(num_nodes=6)
    conversion = convert_published(write(tmp_path, "exp-classify"))
    assert conversion.model.config.max_nodes == 6
    assert type(conversion.model.lps.base.backbone) is BASE_NETWORKS["lps_mlp"]
    hidden = torch.cat([torch.arange(12.0), torch.arange(36.0)])
    fields = {"node_features": torch.arange(12.0).view(1, 1, 6, 2), "edge_features": torch.arange(36.0).view(1, 1, 6, 6, 1)}
    for name in ("conv1", "conv2", "conv3", "fc1", "fc2"):
        hidden = F.linear(
            hidden if name == "conv1" else hidden.relu(), *(published[f"backbone.{name}.{k}"] for k in ("weight", "bias"))
        )
    found, _ = conversion.model.lps.base.backbone(fields, torch.ones(1, 6, dtype=torch.bool))
    torch.testing.assert_close(found[0, 0], hidden)


def test_what_a_group_without_permutations_never_reads_is_dropped_and_named(tmp_path):
    report = convert_published(write(tmp_path, "nbody-gnn")).report
    dropped = {key.published.removeprefix("interface.vnn_interface.").split(".")[0] for key in report.keys if not key.ours}
    assert dropped == {"conv2", "conv3", "pool2", "std_feature", "head1"}
    assert "never read: it scores nodes, and E(3) does not permute them" in str(report)


def test_the_name_of_the_runs_folder_and_hyper_parameters_and_arguments_count_in_this_order(tmp_path):
    tensors = pattern_tensors()
    canonical = RUN_NAME.replace("z_1.0", "z_0.0").replace("tau_0.01", "tau_0.02").replace("drop_0.1", "drop_0.2")
    file = lightning_checkpoint(tmp_path / "a.ckpt", tensors, canonical, hyper_parameters={"sample_size": 3, "tau": 0.03})
    conversion = convert_published(file, temperature=0.04)
    config, settings = conversion.model.config, conversion.report.settings
    assert config.distribution == "canonical"
    assert config.interface_config["dropout"] == 0.2
    assert (config.num_samples, config.num_eval_samples, config.temperature) == (3, 1, 0.04)
    assert settings["distribution"] == ("canonical", "name of the run's folder")
    assert settings["num_samples"] == (3, "hyper-parameters in the file")
    assert settings["temperature"] == (0.04, "your argument")
    assert settings["entropy_loss_coef"] == (0.1, "published configuration")


def test_the_folder_of_a_state_dict_names_the_run_too(tmp_path):
    name = "seed_1,backbone_transformer,l_2,d_16,h_2,drop_0.1,g_SnxSO3,prob,z_scale_0.5,tau_0.2,hard,vnn_d63_knn3_drop0.05,"
    name += "epo_10000,b_100,lr_0.001,k_20,eval_k_200,decay_1e-12,entropy_0.3,"
    (tmp_path / name).mkdir()
    config = convert_published(write(tmp_path / name, "nbody-transformer")).model.config
    assert config.group == "S_n x SE(3)"
    assert config.noise_scale == 0.5
    assert (config.num_samples, config.num_eval_samples, config.entropy_loss_coef) == (20, 200, 0.3)
    assert config.interface_config == {"num_layers": 3, "hidden_size": 63, "num_neighbors": 3, "dropout": 0.05}
    assert (config.backbone_config.num_attention_heads, config.backbone_config.dropout) == (2, 0.1)


@pytest.mark.parametrize(("names", "distribution"), [("ga", "haar"), ("fa", "frame")])
def test_models_without_interface_network(names, distribution, tmp_path):
    tensors = pattern_tensors(interface=False)
    file = lightning_checkpoint(tmp_path / "a.ckpt", tensors, f"pt_True,k_1,{names},b_128,lr_1e-05_1e-05,")
    conversion = convert_published(file)
    assert conversion.model.config.distribution == distribution
    assert (conversion.processor.frame == "laplacian") == (distribution == "frame")
    file = lightning_checkpoint(tmp_path / "b.ckpt", tensors, run_name=None)
    with pytest.raises(ValueError, match="nothing tells which. Give distribution='haar' or distribution='frame'"):
        convert_published(file)
    assert convert_published(file, distribution="haar").model.config.distribution == "haar"


def test_group_averaging_leaves_an_interface_network_that_is_there_out(tmp_path):
    report = convert_published(write(tmp_path, "exp-classify"), distribution="haar").report
    assert all(not key.ours for key in report.keys if key.published.startswith("interface."))
    assert "never read: the distribution 'haar' has no network" in str(report)


@pytest.mark.parametrize(("left_out", "option"), [("hard,", "hard"), ("", "fixed_noise")])
def test_options_that_there_is_nothing_like_here_are_refused(left_out, option, tmp_path):
    name = "seed_1,backbone_mlp,z_scale_1,tau_0.01,hard,fix,epo_2000,b_100,lr_0.001,k_10,"
    name = name.replace(left_out, "") if left_out else name
    (tmp_path / name).mkdir()
    file = write(tmp_path / name, "exp-classify")
    with pytest.raises(ValueError, match=f"{option}: expected .*name of the run's folder"):
        convert_published(file)
    assert convert_published(file, distribution="learned").model.config.distribution == "learned"


@pytest.mark.parametrize("value", ["0.1", True, [0.1]])
def test_hyper_parameters_of_another_kind_are_refused(value, tmp_path):
    file = lightning_checkpoint(tmp_path / "a.ckpt", pcqm_tensors(), hyper_parameters={"tau": value, "other": "x"})
    if isinstance(value, list):  # no plain value, so none that is read
        assert convert_published(file).model.config.temperature == 0.01
        return
    with pytest.raises(ValueError, match="hyper_parameters: expected a float in 'tau'"):
        convert_published(file)


def test_groups_that_there_is_nothing_like_here_are_refused(tmp_path):
    name = "seed_1,backbone_transformer,l_2,d_16,h_2,drop_0,g_Sn,prob,z_scale_1,tau_0.1,hard,lr_0.001,k_20,"
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="symmetry: expected one of SnxO3, SnxSO3, O3, SO3, got 'Sn'"):
        convert_published(write(tmp_path / name, "nbody-transformer"))


def test_unknown_tensors_are_refused_or_left_out(tmp_path):
    file = write(tmp_path, "nbody-gnn", **{"backbone.extra.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"unknown names for 'nbody-gnn': backbone.extra.weight. .*strict=False"):
        convert_published(file)
    report = convert_published(file, strict=False).report
    assert ("backbone.extra.weight", (2,), (), "unknown name") in report.keys


def test_a_missing_tensor_is_named(tmp_path):
    file = write(tmp_path, "peptides-func", **{"backbone.backbone.blocks.0.attn.qkv.bias": None})
    with pytest.raises(ValueError, match=r"nothing to fill .*k_proj.bias.* it lacks backbone.backbone.blocks.0.attn.qkv.bias"):
        convert_published(file)


def test_a_layer_of_an_absurd_number_is_refused_at_once(tmp_path):
    file = write(tmp_path, "peptides-func", **{"backbone.backbone.blocks.999999999999.norm1.bias": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"blocks\.999999999999: expected no more layers than the \d+ tensors"):
        convert_published(file)


def test_a_tensor_of_wrong_shape_is_named_with_both_shapes(tmp_path):
    file = write(tmp_path, "pcqm-contact")
    with pytest.raises(
        ValueError, match=r"input_proj.proj.1.proj.weight: it becomes .* expected shape \(7, 16, 16, 64\), got \(7, 14, 14, 64\)"
    ):
        convert_published(file, max_nodes=61)
    file = write(tmp_path, "pcqm-contact", **{"backbone.backbone.blocks.0.attn.qkv.bias": torch.zeros(64)})
    with pytest.raises(ValueError, match=r"qkv.bias: expected a first axis of 3 equal parts, got the shape \(64,\)"):
        convert_published(file)
    file = write(tmp_path, "nbody-transformer", **{"backbone.input.0.weight": torch.zeros(16)})
    with pytest.raises(ValueError, match=r"backbone.input.0.weight: its shape \(16,\) does not fit .* columns reordered"):
        convert_published(file)


def test_not_finite_weights_are_refused(tmp_path):
    file = write(tmp_path, "nbody-gnn", **{"backbone.decoder.2.bias": torch.tensor([0.0, torch.nan, 0.0])})
    with pytest.raises(ValueError, match="backbone.decoder.2.bias: expected finite numbers"):
        convert_published(file)


def test_the_number_of_heads_is_asked_for_where_nothing_tells_it(tmp_path):
    file = lightning_checkpoint(tmp_path / "a.ckpt", pcqm_tensors(hidden=48))
    with pytest.raises(ValueError, match="num_attention_heads: no tensor tells it, and a width of 48 is no multiple of 64"):
        convert_published(file)
    assert convert_published(file, num_attention_heads=3).model.config.backbone_config.num_attention_heads == 3
    file = lightning_checkpoint(tmp_path / "b.ckpt", pcqm_tensors(hidden=128, num_layers=1))
    conversion = convert_published(file)
    assert conversion.model.config.backbone_config.num_attention_heads == 2
    assert conversion.report.settings["num_attention_heads"] == (2, "heads of 64, as in all of timm's ViTs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"case": "zinc"}, "case: expected one of pattern, .*, got 'zinc'"),
        ({"case": "nbody-gnn"}, "backbone.embedding.weight: expected this tensor, the file lacks it"),
        ({"backbone_config": {}}, "backbone_config: expected nothing"),
        ({"tau": 0.1}, "LPSConfig: unknown key 'tau'"),
    ],
)
def test_wrong_arguments(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert_published(write(tmp_path, "exp-classify"), **options)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("backbone.conv1.nn.0.weight", "GIN-ID of the graph separation code"),
        ("backbone.conv1.weight", "draws at random and never trains"),
        ("layer.weight", "expected the tensors of a published experiment, got layer.weight"),
        ("input_proj.proj.0.proj.weight", "got 4 node channels, None edge channels and None outputs"),
    ],
)
def test_what_is_of_no_experiment_is_refused(key, message, tmp_path):
    torch.save({key: torch.zeros(2, 4)}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=message):
        convert_published(tmp_path / "a.ckpt")


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_not_run(new_format, tmp_path):
    trace, file = tmp_path / "trace", tmp_path / "a.ckpt"
    content = {"state_dict": nbody_gnn_tensors(), "hyper_parameters": {"model": Malicious(trace)}}
    torch.save(content, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match="objects that would have to be run to be read: .*mkdir.*Nothing was run"):
        convert_published(file)
    assert not trace.exists()
    with open(file, "wb") as stream:
        pickle.dump(content, stream)
    with pytest.raises(ValueError, match="a.ckpt: expected"):
        convert_published(file)
    assert not trace.exists()
    pickle.loads(pickle.dumps(content["hyper_parameters"]))
    assert trace.exists()  # it would have


def test_the_names_of_published_classes_run_nothing_either(tmp_path):
    trace, file = tmp_path / "trace", tmp_path / "a.ckpt"
    lightning_checkpoint(file, pcqm_tensors(), hyper_parameters={"namespace": SimpleNamespace(model=Malicious(trace))})
    with pytest.raises(ValueError, match="Nothing was run"):
        convert_published(file)
    assert not trace.exists()


def test_plain_options_are_read_from_objects_of_harmless_classes(tmp_path):
    file = lightning_checkpoint(
        tmp_path / "a.ckpt", pcqm_tensors(), hyper_parameters=Namespace(sample_size=5, data_dir=Path("data"))
    )
    assert convert_published(file).model.config.num_samples == 5


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {"state_dict": {"a": 3}}, {}, {3: torch.zeros(1)}])
def test_files_without_tensors_by_name_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="a.ckpt: expected"):
        convert_published(tmp_path / "a.ckpt")


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a checkpoint file of the published implementation, found none"):
        convert_published(tmp_path / "none.ckpt")
    for name in ("a.ckpt", "a.safetensors"):
        (tmp_path / name).write_bytes(b"no checkpoint")
        with pytest.raises(ValueError, match=f"{name}: expected"):
            convert_published(tmp_path / name)
    whole = write(tmp_path, "nbody-gnn").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut.ckpt: expected"):
        convert_published(tmp_path / "cut.ckpt")


def test_old_pickles_and_safetensors_give_the_same_model(tmp_path):
    tensors = nbody_gnn_tensors()
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(
        {f"state_dict/{key}": tensor for key, tensor in tensors.items()} | {"k1/x": torch.ones(1)}, tmp_path / "a.safetensors"
    )
    save_file(tensors, tmp_path / "b.safetensors")
    expected = convert_published(write(tmp_path, "nbody-gnn")).model.state_dict()
    for name in ("old.pt", "a.safetensors", "b.safetensors"):
        found = convert_published(tmp_path / name).model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_converted_model_is_saved_and_read_like_any_other(tmp_path):
    conversion = convert_published(write(tmp_path, "pattern"), num_eval_samples=2)
    folder = save_checkpoint(conversion.model, conversion.processor, tmp_path / "converted")
    again = type(conversion.model).from_pretrained(folder)
    row = {"edge_index": [[0, 1, 1, 2], [1, 0, 2, 1]], "num_nodes": 3, "node_feat": [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]}
    batch = conversion.processor([row], return_tensors="pt")
    with torch.no_grad():
        logits = [model(**batch, generator=torch.Generator().manual_seed(0)).logits for model in (conversion.model, again)]
    assert torch.equal(*logits)
    assert logits[0].shape == (1, 3, 2)
    assert again.config.base_representations == {"edge_features": Representation.parse("n n 4")}
    # The file that was converted is not needed any more, nor changed by training.
    assert all(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.slow
def test_a_vit_base_at_full_size(tmp_path):
    tensors = peptides_tensors(hidden=768, num_layers=12, grid=14, gin_hidden=64)
    model = convert_published(lightning_checkpoint(tmp_path / "a.ckpt", tensors)).model
    backbone = model.config.backbone_config
    assert (backbone.num_attention_heads, backbone.image_size, backbone.patch_size) == (12, 224, 16)
    assert torch.equal(
        model.lps.base.backbone.model.layers[11].mlp.fc2.weight, tensors["backbone.backbone.blocks.11.mlp.fc2.weight"]
    )
