"""Automorphic nodes get outputs equal within the error bar under the learned distribution, and not under canonicalization."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lps_hf import LPSProcessor
from lps_hf.data import inner_symmetric_graphs
from lps_hf.evaluation.experiment_figures import inner_symmetry_figure

SCRIPT = Path(__file__).parents[2] / "scripts" / "inner_symmetry.py"
COUNTS = [1, 20, 200]
SYMMETRIC = ("star", "double_star", "cycle", "grid")


def load_script():
    spec = importlib.util.spec_from_file_location("script_inner_symmetry", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the script writes in a quick run."""
    folder = tmp_path_factory.mktemp("inner_symmetry")
    script.main(["--output_dir", str(folder), "--num_models", "3", "--num_samples", *map(str, COUNTS)])
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "inner_symmetry.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("graph", SYMMETRIC)
@pytest.mark.parametrize("distribution", ["learned", "haar"])
def test_equivariant_distributions_differ_within_orbits_by_their_noise_alone(results, graph, distribution):
    table = results["graphs"][graph]["within"][distribution]
    assert max(table["largest_z"]) < results["z_bound"]
    assert 0.6 < table["rms_z"][-1] < 1.5
    assert 0 < table["mean"][-1] < 0.25 * table["mean"][0]


@pytest.mark.parametrize("graph", SYMMETRIC)
def test_canonicalization_differs_within_orbits_at_every_number_of_samples(results, graph):
    table = results["graphs"][graph]["within"]["canonical"]
    assert table["largest_z"] == [None] * len(COUNTS)
    for name in ("mean", "least", "greatest"):
        np.testing.assert_allclose(table[name], table[name][0], rtol=1e-9)
    assert table["least"][-1] > 2 * results["graphs"][graph]["within"]["learned"]["greatest"][-1]
    assert table["mean"][-1] > 1


@pytest.mark.parametrize("graph", ["asymmetric", "star", "double_star", "grid"])
def test_the_learned_distribution_tells_orbits_apart(results, graph):
    table = results["graphs"][graph]["between"]["learned"]
    assert table["largest_z"][-1] is None or table["largest_z"][-1] > 2 * results["z_bound"]
    assert table["mean"][-1] > 0.5


def test_graphs_without_pairs_have_nothing_to_show(results):
    graphs = results["graphs"]
    assert set(graphs["asymmetric"]["within"].values()) == {None}
    assert set(graphs["cycle"]["between"].values()) == {None}
    assert [graphs[name]["within_orbit_pairs"] for name in SYMMETRIC] == [15, 4, 21, 52]
    # 92 pairs, 3 models, 3 numbers of samples, at 1 %.
    assert results["within_orbit_comparisons"] == 828
    # Normal noise is above the bound with probability 1 % in any of them.
    assert 828 * math.erfc(results["z_bound"] / 2**0.5) == pytest.approx(0.01)


def test_a_model_that_ignores_the_noise_is_found_out(monkeypatch):
    model, row = script.make_models(0)["learned"], inner_symmetric_graphs()["grid"]
    draw_noise = model.draw_noise

    def one_for_all(*arguments):
        return {name: part[:1].expand_as(part) for name, part in draw_noise(*arguments).items()}

    monkeypatch.setattr(model, "draw_noise", one_for_all)
    outputs = script.draw_outputs(model, row, 50, False, torch.Generator().manual_seed(0)).numpy()[None]
    _, z = script.differences(outputs, script.node_pairs(row["orbits"], within=True), 50)
    assert z.max() > 1000


@pytest.mark.parametrize("distribution", ["learned", "canonical", "haar"])
def test_draws_average_to_the_estimate_of_the_model(distribution):
    model, row, count = script.make_models(1)[distribution], inner_symmetric_graphs()["double_star"], 7
    one_element = distribution == "canonical"
    drawn = script.draw_outputs(model, row, count, one_element, torch.Generator().manual_seed(3))
    assert drawn.shape == (count, 7)
    processor = LPSProcessor.from_config(model.config)
    copies = processor([row] * (1 if one_element else count), return_tensors="pt")
    noise = model.draw_noise(model.encode(**copies), 1, torch.Generator().manual_seed(3))
    noise = {name: part.transpose(0, 1).expand(1, count, *part.shape[2:]) for name, part in noise.items()}
    with torch.no_grad():
        output = model(**processor([row], return_tensors="pt"), noise=noise)
    torch.testing.assert_close(output.output[0, :, 0].double(), drawn.mean(dim=0), rtol=0, atol=1e-6)
    torch.testing.assert_close(output.standard_error[0, :, 0].double(), drawn.std(dim=0) / count**0.5, rtol=0, atol=1e-6)
    assert (output.standard_error.max() < 1e-6) == one_element


def test_distributions_share_their_weights_and_models_differ():
    models = script.make_models(0)
    learned = models["learned"].state_dict()
    for name, weight in models["canonical"].state_dict().items():
        torch.testing.assert_close(weight, learned[name], rtol=0, atol=0)
    for name, weight in models["haar"].state_dict().items():
        torch.testing.assert_close(weight, learned[name], rtol=0, atol=0)
    other = script.make_models(1)["learned"].state_dict()
    assert not torch.equal(other["base.backbone.layers.0.weight"], learned["base.backbone.layers.0.weight"])


def test_differences_are_compared_with_their_paired_standard_error():
    # Node 1 is node 0 plus 1, then plus 3: the difference has mean 2 and standard deviation √2, however both vary together.
    # Node 2 is always 0.25 above node 0, and node 3 equals it.
    first = np.array([100.0, -50.0])
    outputs = np.stack([first, first + np.array([1, 3]), first + 0.25, first], axis=-1)[None]
    pairs = np.array([[0, 0, 0], [1, 2, 3]])
    size, z = script.differences(outputs, pairs, 2)
    np.testing.assert_allclose(size, [[2, 0.25, 0]])
    np.testing.assert_allclose(z, [[2, np.inf, 0]])
    size, z = script.differences(outputs, pairs, 1)
    np.testing.assert_allclose(size, [[1, 0.25, 0]])
    np.testing.assert_allclose(z, [[0.5**0.5, np.inf, 0]])


def test_figure_shows_outputs_as_colours_and_mean_differences(folder, results):
    assert (folder / "inner_symmetry.png").read_bytes().startswith(b"\x89PNG")
    rows = inner_symmetric_graphs()
    outputs = {name: dict(graph["outputs"]) for name, graph in results["graphs"].items()}
    outputs["star"]["learned"] = [1.0, *[0.5] * 6]
    within = {name: graph["within"] for name, graph in results["graphs"].items()}
    figure = inner_symmetry_figure(rows, outputs, within, COUNTS)
    axes = np.array(figure.axes).reshape(3, 5)
    assert [panel.get_title() for panel in axes[0]] == ["asymmetric", "star", "double star", "cycle", "grid"]
    for column, row in enumerate(rows.values()):
        assert len(axes[0, column].collections[0].get_segments()) == len(row["edge_index"][0])
    canonical, learned = (panel.collections[1].get_facecolors() for panel in axes[:2, 1])
    assert len(np.unique(canonical, axis=0)) > 3
    assert len(np.unique(learned[1:], axis=0)) == 1
    assert (learned[0] != learned[1]).any()
    assert not axes[2, 0].lines
    for panel, name in zip(axes[2, 1:], SYMMETRIC, strict=True):
        for line, kind in zip(panel.lines, ("canonical", "haar", "learned"), strict=True):
            np.testing.assert_allclose(line.get_xdata(), COUNTS)
            np.testing.assert_allclose(line.get_ydata(), within[name][kind]["mean"])


def test_figure_refuses_outputs_of_another_graph(results):
    outputs = {name: dict(graph["outputs"]) for name, graph in results["graphs"].items()}
    outputs["cycle"]["learned"] = [0.0] * 6
    within = {name: graph["within"] for name, graph in results["graphs"].items()}
    with pytest.raises(ValueError, match=r"outputs\['cycle'\]\['learned'\]: expected 7 numbers"):
        inner_symmetry_figure(inner_symmetric_graphs(), outputs, within, COUNTS)
