"""Commands that make a checkpoint: what they write loads again, and says what was asked for."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from lps_hf.data.rows import infer_config, load_dataset_for
from lps_hf.hub.loading import load_checkpoint
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification, LPSForParticleDynamics
from tests.hub.published_checkpoints import lightning_checkpoint, pattern_tensors
from tests.tiny import EDGE_CATEGORIES, NODE_CATEGORIES, save_tiny_vit


def test_symmetrize_reads_the_sizes_off_a_data_set(run, dataset, tmp_path):
    backbone, folder = save_tiny_vit(tmp_path / "vit"), tmp_path / "made"
    said = run("symmetrize", backbone, folder, "--dataset_name", dataset, "--grid_size", 3, "--set", "noise_scale=0.5", "--json")
    model, processor = load_checkpoint(folder)
    inferred = infer_config("graph-classification", load_dataset_for("graph-classification", dataset))
    assert {name: getattr(model.config, name) for name in inferred} == inferred
    assert (model.config.grid_size, model.config.noise_scale) == (3, 0.5)
    assert processor.max_nodes == inferred["max_nodes"]
    backbone_weights = load_file(Path(backbone) / "model.safetensors")
    pretrained = {id(parameter): parameter for parameter in model.backbone_parameters()}.values()
    assert said["pretrained_parameters"] == sum(parameter.numel() for parameter in pretrained)
    assert said["new_parameters"] > 0
    assert any(torch.equal(parameter, backbone_weights["layernorm.weight"]) for parameter in pretrained)


def test_symmetrize_takes_options_for_what_no_data_set_tells(run, tmp_path):
    backbone, folder = save_tiny_vit(tmp_path / "vit"), tmp_path / "made"
    options = ("--max_nodes", 9, "--node_categories", *NODE_CATEGORIES, "--edge_categories", *EDGE_CATEGORIES, "--num_labels", 4)
    text = run("symmetrize", backbone, folder, *options, "--distribution", "haar", "--set", "centered_padding=False")
    assert "LPSForGraphClassification, S_n, haar" in text
    model, _ = load_checkpoint(folder)
    assert isinstance(model, LPSForGraphClassification)
    assert (model.config.max_nodes, model.config.num_labels, model.config.distribution) == (9, 4, "haar")
    assert model.config.node_categories == NODE_CATEGORIES


def test_symmetrize_knows_other_tasks(run, tmp_path):
    options = ("--task", "particle-dynamics", "--max_nodes", 5, "--group", "S_n x E(3)")
    run("symmetrize", save_tiny_vit(tmp_path / "vit"), tmp_path / "made", *options)
    model, _ = load_checkpoint(tmp_path / "made")
    assert isinstance(model, LPSForParticleDynamics)


def test_symmetrize_refuses_wrong_settings(refusal, tmp_path):
    backbone = save_tiny_vit(tmp_path / "vit")
    assert "--set: expected FIELD=VALUE" in refusal("symmetrize", backbone, tmp_path / "made", "--set", "noise_scale")
    assert "warmth" in refusal("symmetrize", backbone, tmp_path / "made", "--set", "warmth=1")
    wrong_type = refusal("symmetrize", backbone, tmp_path / "made", "--set", "centered_padding=maybe")
    assert "centered_padding: expected a bool, got the text 'maybe'" in wrong_type
    assert "backbone: expected a Hub id or a folder" in refusal("symmetrize", tmp_path / "nowhere", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_train_hands_its_flags_on_and_returns_the_results(run, dataset, tmp_path):
    backbone, folder = save_tiny_vit(tmp_path / "vit"), tmp_path / "run"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"backbone_name_or_path: {backbone}\ndataset_name: {dataset}\nmax_steps: 9\nreport_to: none\n")
    flags = ("--max_steps", 2, "--output_dir", folder, "--report_rows", 4, "--disable_tqdm", "true")
    results = run("train", "graph-classification", recipe, *flags, "--json")
    assert results == json.loads((folder / "results.json").read_text())
    assert results["steps"] == 2
    assert (folder / "README.md").is_file()


def test_train_lists_its_flags(run):
    text = run("train", "node-classification", "--list_flags")
    assert "--backbone_name_or_path" in text
    assert "--learning_rate" in text


def test_train_refuses_an_unknown_flag_by_its_name(refusal, dataset, tmp_path):
    options = ("--dataset_name", dataset, "--model_name_or_path", "x", "--output_dir", tmp_path / "run", "--warmth", "1")
    assert "--warmth" in refusal("train", "graph-classification", *options)


def test_convert_writes_a_folder_and_reports_every_tensor(run, tmp_path):
    file = lightning_checkpoint(tmp_path / "best.ckpt", pattern_tensors())
    said = run("convert", file, tmp_path / "made", "--json")
    assert said["case"] == "pattern"
    assert len(said["keys"]) >= len(pattern_tensors())
    model, _ = load_checkpoint(tmp_path / "made")
    assert type(model).__name__ == "LPSForNodeClassification"
    assert f"Written to {tmp_path / 'again'}" in run("convert", file, tmp_path / "again", "--case", "pattern")


def test_convert_refuses_unknown_tensors_unless_allowed(run, refusal, tmp_path):
    tensors = {**pattern_tensors(), "warmth": torch.zeros(1)}
    file = lightning_checkpoint(tmp_path / "best.ckpt", tensors)
    assert "warmth" in refusal("convert", file, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert "unknown name" in run("convert", file, tmp_path / "made", "--allow_unknown")
