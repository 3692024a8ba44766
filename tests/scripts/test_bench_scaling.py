"""The benchmark of the scaling, end to end with a tiny backbone: its points, exponents and graphs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lps_hf.models.groups import get_group

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_scaling.py"
TINY = ["--backbone", "16x1x1", "--grid_size", "2", "--repeats", "2", "--large_graph", "20", "60"]


def test_both_sweeps_and_the_large_graph_are_measured_against_the_bare_backbone(run, tmp_path):
    sizes = ["--edges", "10", "40", "160", "--nodes_of_edges", "20", "--nodes", "8", "16", "--edges_per_node", "4"]
    files = ["--json", str(tmp_path / "s.json"), "--figure", str(tmp_path / "s.png")]
    text = run(*sizes, "--relaxation_nodes", "8", "16", "--dense_nodes", "12", *files)
    result = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    points = {name: [(point["nodes"], point["edges"]) for point in sweep["points"]] for name, sweep in result["sweeps"].items()}
    assert points == {"edges": [(20, 10), (20, 40), (20, 160)], "nodes": [(8, 32), (16, 64)]}
    unit = result["backbone_seconds"]["median"]
    for point in [*result["sweeps"]["edges"]["points"], *result["sweeps"]["nodes"]["points"], result["large_graph"]]:
        assert point["ratio"] == pytest.approx(point["seconds"] / unit)
        assert {"encoding", "interface", "distribution", "projections", "backbone", "readout"} == set(point["parts"])
    fit = result["sweeps"]["edges"]["fit"]
    ratios = np.array([point["ratio"] for point in result["sweeps"]["edges"]["points"]])
    assert fit["fitted_from"] == 40
    assert fit["exponent"] == pytest.approx(np.log(ratios[2] / ratios[1]) / np.log(4))
    assert len(fit["local_exponents"]) == 2
    assert result["large_graph"]["nodes"] == 20
    assert result["large_graph"]["overhead_ratio"] > 0
    assert [point["nodes"] for point in result["relaxation"]["points"]] == [8, 16]
    assert result["relaxation"]["dense"]["nodes"] == 12
    assert result["relaxation"]["dense"]["speed_up"] > 0
    assert f"edges (20 nodes): exponent {fit['exponent']:.2f} from 40, bar 1.1" in text
    assert (tmp_path / "s.png").stat().st_size > 10_000


def test_training_counts_the_backward_pass_and_a_sweep_may_be_left_out(run):
    flags = ["--nodes", "8", "16", "--edges_per_node", "4", "--edges", "--relaxation_nodes"]
    result = json.loads(run("--mode", "train", *flags, "--json", "-"))
    assert set(result["sweeps"]) == {"nodes"}
    assert "relaxation" not in result
    for point in result["sweeps"]["nodes"]["points"]:
        added = sum(share for part, share in point["parts"].items() if not part.startswith("backbone"))
        assert "projections_backward" in point["parts"]
        assert point["ratio"] == pytest.approx(added)  # as medians of two rounds are means


def test_models_are_as_large_as_the_graph_unless_told(script, monkeypatch):
    for flags, expected in (([], {8, 16}), (["--max_nodes", "32"], {32})):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *TINY, *flags])
        make_point = script.PointMaker(script.parse_options())
        first, second, third = make_point(8, 20), make_point(16, 20), make_point(16, 40)
        assert set(make_point.models) == expected
        assert second.model is third.model
        assert first.backbone is third.backbone
        assert first.model.config.max_nodes == min(expected)


def test_sizes_that_do_not_ascend_or_do_not_fit_are_refused(run, capsys):
    for flags in (["--edges", "100"], ["--nodes", "16", "8"]):
        with pytest.raises(SystemExit):
            run(*flags)
        assert f"{flags[0]}: expected none, or at least two sizes in ascending order" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="even number up to 56 for 8 nodes"):
        run("--edges", "10", "60", "--nodes_of_edges", "8")


@pytest.mark.parametrize(("nodes", "edges"), [(5, 20), (40, 78), (4096, 10_000)])
def test_random_graphs_are_simple_and_have_exactly_so_many_edges(script, nodes, edges):
    row = script.random_row(nodes, edges, np.random.default_rng(0))
    source, target = row["edge_index"]
    assert row["num_nodes"] == nodes
    assert len({*zip(source.tolist(), target.tolist(), strict=True)}) == edges
    assert (source != target).all()
    assert 0 <= row["edge_index"].min() <= row["edge_index"].max() < nodes
    assert {*zip(target.tolist(), source.tolist(), strict=True)} == {*zip(source.tolist(), target.tolist(), strict=True)}


def test_the_dense_relaxation_to_compare_with_is_the_same_function(script):
    # Also the matrix and its entropy, of which the package makes neither.
    torch.manual_seed(0)
    scores, node_mask = torch.randn(2, 3, 9), torch.ones(2, 9, dtype=torch.bool)
    group = get_group("S_n")
    elements = group.project(scores, node_mask, group.draw_scores(node_mask, 3))
    elements, entropy = group.relax(elements, scores, node_mask, 0.05, 20)
    soft, dense_entropy = script.dense_relaxation(scores, elements.index, 0.05, 20)
    torch.testing.assert_close(soft, elements.soft.matrix(elements.index).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dense_entropy, entropy, rtol=1e-4, atol=1e-5)
