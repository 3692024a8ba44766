"""The comparison of temperature rules: what it trains, what it measures, and what its table says."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from lps_hf import LPSProcessor
from lps_hf.training.short_runs import fit
from tests.tiny import random_rows, save_dataset, tiny_classifier

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_temperatures.py"
SETTINGS = ["haar", "frozen", "published:0.01", "relative:2"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("script_compare_temperatures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.NUM_DRAWS = 3
    return module


def run(script, folder, *flags):
    quick = ["--settings", *SETTINGS, "--epochs", "1", "--batch_size", "4", "--grid_size", "2", "--num_eval_samples", "1"]
    script.main([*quick, *flags, "--json", str(folder / "result.json"), "--figure", str(folder / "result.png")])
    assert (folder / "result.png").stat().st_size > 10_000
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def test_every_setting_is_trained_at_every_size(script, tmp_path):
    flags = ["--sizes", "20", "24", "--seeds", "3", "--num_train", "8", "--num_test", "4"]
    result = run(script, tmp_path, *flags)
    # Results of parts give the whole again.
    script.main(["--gather", str(tmp_path / "result.json"), "--json", str(tmp_path / "gathered.json")])
    assert json.loads((tmp_path / "gathered.json").read_text(encoding="utf-8")) == result
    tasks = ["PATTERN, n = 20", "PATTERN, n = 24"]
    expected = [(task, setting, seed) for task in tasks for seed in (3,) for setting in SETTINGS]
    assert [(run["task"], run["setting"], run["seed"]) for run in result["runs"]] == expected
    assert {(run["steps"], run["num_train"], run["num_test"], run["metric"]) for run in result["runs"]} == {
        (2, 8, 4, "balanced_accuracy")
    }
    for task in tasks:
        rows = result["table"][task]
        values = [run["test_metric"] for run in result["runs"] if (run["task"], run["setting"]) == (task, "haar")]
        assert rows["haar"]["test_metric"]["values"] == values
        assert not {"entropy", "gradient_at_start"} & (set(rows["haar"]) | set(rows["frozen"]))
        for setting in SETTINGS[2:]:
            for when in ("gradient_at_start", "gradient_at_end"):
                assert all(figure["mean"] > 0 for figure in rows[setting][when].values())
                assert rows[setting][when]["signal"]["mean"] <= 1


def test_a_data_set_of_graphs_is_classified_as_a_whole(script, tmp_path):
    data = save_dataset(tmp_path / "few", train=random_rows(15))
    flags = ["--seeds", "0", "--max_train_samples", "8", "--settings", "haar", "relative:2"]
    result = run(script, tmp_path, "--dataset_name", data, *flags)
    assert list(result["table"]) == ["few"]
    assert {(run["num_train"], run["num_test"], run["metric"]) for run in result["runs"]} == {(8, 3, "accuracy")}


def test_a_frozen_interface_stays_as_it_was_and_the_rest_is_trained(script, monkeypatch):
    models = []
    monkeypatch.setattr(script, "fit", lambda model, *args, **options: models.append(model) or fit(model, *args, **options))
    flags = ["--epochs", "1", "--batch_size", "4", "--grid_size", "2", "--num_eval_samples", "1", "--seeds", "0"]
    flags += ["--sizes", "20", "--num_train", "8", "--num_test", "4"]
    script.main([*flags, "--settings", "frozen", "relative:2"])
    frozen, trained = (dict(model.named_parameters()) for model in models)
    # Both began with the same weights.
    same = [name for name in frozen if torch.equal(frozen[name], trained[name])]
    assert same == []
    assert {name for name, parameter in frozen.items() if parameter.requires_grad} == {
        name for name in frozen if ".distribution." not in name
    }


def test_settings_are_read_and_mistakes_refused(script):
    assert script.options_of("haar") == {"distribution": "haar", "is_frozen": False}
    assert script.options_of("frozen") == {"distribution": "learned", "is_frozen": True}
    relative = {"distribution": "learned", "temperature_rule": "relative", "temperature": 0.5, "is_frozen": False}
    assert script.options_of("relative:0.5") == relative
    for text in ("relative", "relative:-1", "published:warm", "learned:1"):
        with pytest.raises(SystemExit, match="expected haar, frozen, published:τ or relative:t"):
            script.options_of(text)


def test_communities_grow_with_the_graphs(script):
    assert script.sizes_of(188) == (5, 34)
    assert script.sizes_of(444) == (12, 80)
    least, largest = script.sizes_of(64)
    assert 6 * (least + largest) // 2 <= 64


def test_gradients_are_measured_without_a_trace_and_signal_is_one_without_noise(script):
    rows = random_rows(4)
    model = tiny_classifier(noise_scale=0.0)
    processor = LPSProcessor.from_config(model.config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measured = script.gradients(model, processor, rows, 4)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    # Always the same batch, and no noise but that which breaks ties: all draws point the same way.
    assert measured["signal"] > 0.9
    noisy = script.gradients(tiny_classifier(), processor, rows, 4)
    assert noisy["signal"] < measured["signal"]
    assert script.gradients(tiny_classifier(distribution="haar"), processor, rows, 4) is None


def test_the_entropys_gradient_is_not_counted_as_the_tasks(script):
    rows = random_rows(4)
    processor = LPSProcessor.from_config(tiny_classifier().config)
    measured = []
    for weight in (0.0, 0.1, 10.0):
        torch.manual_seed(1)
        measured.append(script.gradients(tiny_classifier(entropy_loss_coef=weight), processor, rows, 4))
    assert measured[0]["interface"] == pytest.approx(measured[1]["interface"], rel=1e-3)
    assert measured[0]["interface"] == pytest.approx(measured[2]["interface"], rel=1e-2)
    assert measured[0]["entropy"] == 0
    assert measured[2]["entropy"] == pytest.approx(100 * measured[1]["entropy"], rel=1e-2)
