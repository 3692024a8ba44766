"""The data benchmark runs end to end, on random molecules and on a data set folder, and its figures are those of its rows."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from transformers import ViTConfig

from lps_hf import LPSConfig, LPSProcessor
from lps_hf.data.rows import infer_config
from lps_hf.models.configuration_base_networks import MLPBaseConfig
from tests.tiny import random_rows, save_dataset

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_data.py"
PADDINGS = ["longest row", "power of 1.25", "power of 2"]


def load_script():
    spec = importlib.util.spec_from_file_location("script_bench_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script with a tiny ViT, and without data beside the project."""
    script = load_script()
    tiny = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    monkeypatch.setattr(script, "VIT_SMALL", tiny)
    monkeypatch.setattr(script, "HUB", tmp_path / "nothing")
    return script


def assert_ordered(figures):
    low, high = figures["range"]
    assert 0 < low <= figures["median"] <= high


def test_random_molecules_end_to_end(script, tmp_path, capsys):
    paths = {"json": tmp_path / "data.json", "figure": tmp_path / "data.png"}
    flags = ["--preset", "mutag", "--rows", "40", "--batch_size", "8", "--workers", "0", "1", "--streaming", "--repeats", "3"]
    script.main([*flags, "--json", str(paths["json"]), "--figure", str(paths["figure"])])
    result = json.loads(paths["json"].read_text(encoding="utf-8"))
    assert result["source"] == "random molecules"
    assert (result["num_rows"], result["batch_size"], result["bar"], result["repeats"]) == (40, 8, 5000, 3)
    ways = [f"{way}, {kind}, {worker}" for worker in ("no worker", "1 worker") for way, kind in (
        ("data loader", "lists"), ("data loader", "arrays"), ("stream", "lists"), ("stream", "arrays"))]  # fmt: skip
    assert list(result["rows_per_second"]) == ["processor, lists", "processor, arrays", *ways]
    vit = result["vit_small_rows_per_second"]
    assert_ordered(vit)
    for name, one in result["rows_per_second"].items():
        assert_ordered(one)
        assert (one["per_processor_second"] is None) == name.endswith("1 worker")
        assert one["bar_factor"] == pytest.approx((one["per_processor_second"] or one["median"]) / 5000)
        assert one["vit_small_factor"] == pytest.approx(one["median"] / vit["median"])
    for order in ("random", "similar lengths"):
        figures = result["orders"][order]
        assert list(figures["paddings"]) == PADDINGS
        assert_ordered(figures["interface_microseconds_per_edge"])
    random, similar = (result["orders"][order]["paddings"]["longest row"] for order in ("random", "similar lengths"))
    assert 0 < similar["padded_edges"] < random["padded_edges"] < 1
    printed = capsys.readouterr().out
    assert printed.startswith("mutag: random molecules, 40 rows of ")
    assert "ViT-small on " in printed
    assert all(name in printed for name in (*result["rows_per_second"], *PADDINGS))
    assert paths["figure"].read_bytes().startswith(b"\x89PNG")


def test_rows_of_a_folder_come_as_often_as_asked_for(script, tmp_path, capsys):
    rows = random_rows(10)
    folder = save_dataset(tmp_path / "graphs", train=rows[:6], test=rows[6:])
    script.main(
        ["--preset", "mutag", "--dataset_name", folder, "--rows", "20", "--batch_size", "5", "--repeats", "1", "--json", "-"]
    )
    result = json.loads(capsys.readouterr().out)
    assert result["source"] == folder
    assert result["mean_nodes"] == pytest.approx(np.mean([row["num_nodes"] for row in rows]))
    assert result["mean_edges"] == pytest.approx(np.mean([len(row["edge_index"][0]) for row in rows]))
    assert len(result["rows_per_second"]) == 4
    few, _ = script.load_rows("mutag", folder, 4)
    assert len({tuple(row["edge_index"][0]) for row in few}) == 4


def test_padding_is_that_of_the_batches(script):
    rows, _ = script.load_rows("mutag", None, 24)
    config = LPSConfig(backbone_config=MLPBaseConfig(hidden_sizes=[8]), **infer_config("graph-classification", {"train": rows}))
    processor = LPSProcessor.from_config(config)
    figures = script.measure_orders(rows, config, processor, 8, 1)["random"]["paddings"]
    order = np.random.default_rng(0).permutation(24)
    for name, options in zip(PADDINGS, ({}, {"pad_to_power_of": 1.25}, {"pad_to_power_of": 2}), strict=True):
        batches = [processor([rows[int(i)] for i in order[start : start + 8]], **options) for start in (0, 8, 16)]
        masks = [batch["edge_mask"] for batch in batches]
        assert figures[name]["padded_edges"] == pytest.approx(1 - sum(m.sum() for m in masks) / sum(m.size for m in masks))
        assert figures[name]["shapes"] == len({(batch["node_mask"].shape, batch["edge_mask"].shape) for batch in batches})


@pytest.mark.parametrize("preset", ["mutag", "peptides"])
def test_random_molecules_have_the_sizes_of_the_data_set(script, preset):
    least, most, mean, deviation = script.PRESETS[preset]["nodes"]
    rows, _ = script.load_rows(preset, None, 200)
    sizes = np.array(rows["num_nodes"])
    assert least <= sizes.min()
    assert sizes.max() <= most
    assert abs(sizes.mean() - mean) < deviation / 2
    edges = np.array([len(row[0]) for row in rows["edge_index"]])
    np.testing.assert_allclose(edges.mean() / sizes.mean(), 2.05, atol=0.1)
    config = infer_config("graph-classification", {"train": rows})
    assert config["node_categories"] == script.PRESETS[preset]["node_categories"]
    assert config["edge_categories"] == script.PRESETS[preset]["edge_categories"]


def test_fewer_rows_than_a_batch_are_refused(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--preset", "mutag", "--rows", "100"])
    assert "--rows: expected at least one batch of 128 rows, got 100." in capsys.readouterr().err
