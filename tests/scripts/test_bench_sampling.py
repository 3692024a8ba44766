"""The benchmark of the samplers, end to end on tiny models: what it measures, writes and draws."""

import json
import sys
from pathlib import Path

import pytest

from lps_hf import LPSConfig, LPSForParticleDynamics, LPSProcessor
from lps_hf.data import charged_particles
from lps_hf.models.configuration_base_networks import PairTransformerBaseConfig
from lps_hf.models.modeling_heads_lps import PARTICLE_DEFAULTS
from tests.tiny import random_rows, save_dataset, tiny_classifier

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_sampling.py"
FEW = ["--num_inputs", "3", "--num_draws", "48", "--num_reference_draws", "200", "--num_samples", "2", "8"]


@pytest.fixture
def run(script, monkeypatch, capsys):
    """Run the script with some flags on presets that train in a moment; returns what it prints on standard output."""

    def tiny_particles(number, seed):
        return charged_particles(number, first_step=1, num_steps=1, seed=seed)

    def tiny_model():
        backbone = PairTransformerBaseConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        config = LPSConfig(backbone_config=backbone, group="S_n x E(3)", distribution="haar", max_nodes=5, **PARTICLE_DEFAULTS)
        return LPSForParticleDynamics(config)

    monkeypatch.setitem(script.PRESETS, "nbody-haar", script.Preset(tiny_model, tiny_particles, 20, 1, 1e-3, 10))

    def run(*flags):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *FEW, *flags])
        script.main()
        return capsys.readouterr().out

    return run


def test_a_preset_is_trained_and_every_sampler_of_its_group_measured(run, tmp_path):
    flags = ["--preset", "nbody-haar", "--save_dir", str(tmp_path), "--figure", str(tmp_path / "sampling.png")]
    result = json.loads(run(*flags, "--json", "-"))
    (model,) = result["models"]
    assert (model["group"], model["distribution"], model["num_inputs"], model["num_outputs"]) == ("S_n x E(3)", "haar", 3, 15)
    found = {(row["sampler"], row["group_size"]): [point["num_samples"] for point in row["points"]] for row in model["samplers"]}
    assert found == {
        ("independent", 1): [2, 8],
        ("antithetic", 2): [2, 8],
        ("stratified", 4): [2, 4, 8],
        ("stratified", 16): [2, 8, 16],
        ("orthogonal", 4): [2, 4, 8],
        ("orthogonal", 12): [2, 8, 12],
        ("orthogonal", 24): [2, 8, 24],
        ("orthogonal", 120): [2, 8, 120],
    }
    for row in model["samplers"]:
        for point in row["points"]:
            assert point["interval"][0] <= point["interval"][1]
            assert point["seconds"] > 0
            # An untrained network is smooth over the group: a whole orthogonal group is far better than independent draws.
            if row["group_size"] in (24, 120) and point["num_samples"] == row["group_size"]:
                assert point["ratio"] < 0.5
    plain = model["samplers"][0]["points"]
    for point in plain:
        assert point["squared_error"] == pytest.approx(model["variance"] / point["num_samples"], rel=0.5)
        assert point["ratio"] == pytest.approx(1, abs=0.5)
    assert (tmp_path / "sampling.png").read_bytes().startswith(b"\x89PNG")
    # The saved model is measured again without training, and gives the same figures.
    again = json.loads(run(*flags, "--epochs", "1000", "--samplers", "antithetic", "--json", "-"))["models"][0]
    assert [row["sampler"] for row in again["samplers"]] == ["independent", "antithetic"]
    assert again["samplers"][0]["points"][0]["ratio"] == plain[0]["ratio"]


def test_a_checkpoint_is_measured_on_rows_of_a_data_set(run, tmp_path):
    model = tiny_classifier()
    model.save_pretrained(tmp_path / "model")
    LPSProcessor.from_config(model.config).save_pretrained(tmp_path / "model")
    rows = save_dataset(tmp_path / "rows", train=random_rows(4), test=random_rows(5, seed=1))
    flags = ["--model", str(tmp_path / "model"), "--dataset", rows, "--samplers", "stratified:8"]
    text = run(*flags, "--json", str(tmp_path / "result.json"))
    assert "model: learned on S_n" in text
    assert "additive in the noise" in text
    assert "stratified:8" in text
    (measured,) = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["models"]
    assert measured["num_outputs"] == 3
    assert [row["group_size"] for row in measured["samplers"]] == [1, 8]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "folder"], "--model and --dataset: expected both or none"),
        (["--num_samples", "64"], "--num_samples: expected numbers from 1 to --num_draws 48, got"),
        (["--preset", "nobody"], "invalid choice: 'nobody'"),
    ],
)
def test_flags_that_do_not_fit_are_refused(run, flags, message, capsys):
    with pytest.raises(SystemExit):
        run(*flags)
    assert message in capsys.readouterr().err


def test_a_sampler_that_the_group_does_not_have_is_refused_where_it_was_asked_for(script):
    model = tiny_classifier()
    assert ("orthogonal", 4) in script.sampler_list(model, None)
    with pytest.raises(ValueError, match="sampler: expected one of"):
        script.sampler_list(model, ["sobol"])
    with pytest.raises(ValueError, match="sampler_group_size: expected 2"):
        script.sampler_list(model, ["antithetic:3"])


def test_numbers_of_samples_fit_the_groups(script):
    assert script.counts_for(1, [4, 8]) == [4, 8]
    assert script.counts_for(2, [4, 8]) == [4, 8]
    assert script.counts_for(12, [4, 8, 16, 32, 64]) == [4, 8, 12, 36, 60]
    assert script.counts_for(120, [4, 64]) == [4, 64, 120]
