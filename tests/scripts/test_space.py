"""The demo without its page: what it reads, computes, draws and says."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lps_hf.data import MOLECULE_EDGE_CATEGORIES, MOLECULE_NODE_CATEGORIES
from lps_hf.hub.checkpoints import save_checkpoint
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import tiny_classifier, tiny_config

pytest.importorskip("matplotlib")
SPACE = Path(__file__).parents[2] / "scripts" / "space"


def load():
    spec = importlib.util.spec_from_file_location("space_demo", SPACE / "demo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["space_demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


space = load()


@pytest.fixture(scope="module")
def demo():
    """A random model of graphs with two categories on nodes and one on edges."""
    model = tiny_classifier(max_nodes=8)
    with torch.no_grad():
        for parameter in model.parameters():  # new ones hardly look at their input
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return space.Demo(model, LPSProcessor.from_config(model.config), ["a", "b", "c"], "random")


def test_a_graph_is_read_from_lines(demo):
    row = space.graph_row("0 1 1\n\n1, 3\nnode 3: 2 1\n2 2", demo)
    assert row == {
        "edge_index": [[0, 1, 1, 3, 2], [1, 0, 3, 1, 2]],
        "num_nodes": 4,
        "node_feat": [[0, 0], [0, 0], [0, 0], [2, 1]],
        "edge_attr": [[1], [1], [0], [0], [0]],
    }
    assert demo.processor([row])["node_mask"].shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n0 x", r"line 2: expected two node numbers, such as '0 4', and 1 categories or none, got '0 x'"),
        ("0 1 1 1", "line 1: expected two node numbers"),
        ("-1 0", "line 1: expected two node numbers"),
        ("node 1: 3", "line 1: expected a node number and 2 categories, got 'node 1: 3'"),
        ("0 8", "expected node numbers 0 to 7, as many as this model takes, got 8"),
        (" \n", "expected a line with two node numbers for each edge"),
    ],
)
def test_what_is_no_graph_is_refused(demo, text, message):
    with pytest.raises(ValueError, match=message):
        space.graph_row(text, demo)


def test_renumbering_gives_the_same_graph(demo):
    text = "0 1 1\n1 2\n5 2\nnode 2: 1 1"
    moved = space.renumbered(text, seed=3)
    before, after = (space.graph_row(graph, demo) for graph in (text, moved))
    assert before != after
    assert space.renumbered(text, seed=3) == moved

    def degrees(row):
        counts = np.bincount(row["edge_index"][0], minlength=row["num_nodes"])
        return sorted((int(count), tuple(node)) for count, node in zip(counts, row["node_feat"], strict=True) if count)

    assert degrees(before) == degrees(after)


def test_the_analysis_is_that_of_the_model(demo):
    row = space.graph_row("0 1\n1 2\n2 3", demo)
    analysis = space.analyse(demo, row, 20, seed=4)
    assert analysis.counts == [1, 2, 4, 8, 16, 20]
    batch = demo.processor([row], return_tensors="pt")
    with torch.no_grad():
        out = demo.model(**batch, num_samples=20, generator=torch.Generator().manual_seed(4))
    assert np.allclose(analysis.means[-1], out.logits.softmax(dim=-1)[0].numpy(), atol=1e-6)
    assert np.allclose(analysis.means.sum(axis=1), 1, atol=1e-6)
    assert np.isnan(analysis.errors[0]).all()
    assert (analysis.errors[-1] > 0).all()
    assert np.array_equal(np.sort(analysis.orders, axis=1), np.tile(np.arange(4), (3, 1)))
    # A renumbered graph has the same limit: after many draws both are within their error bars of it.
    other = space.analyse(demo, space.graph_row("3 0\n0 2\n2 1", demo), 400, seed=5)
    many = space.analyse(demo, row, 400, seed=6)
    assert (np.abs(other.means[-1] - many.means[-1]) < 4 * np.hypot(other.errors[-1], many.errors[-1])).all()


def test_the_sentence_says_the_best_class_and_its_error(demo):
    analysis = space.Analysis([1, 8], np.array([[0.3, 0.3, 0.4], [0.2, 0.7, 0.1]]), np.full((2, 3), 0.0123), np.zeros((1, 1)))
    assert space.summary(demo, analysis).startswith("### b: 0.700 ± 0.012\nProbability, from 8 draws.")


@pytest.mark.parametrize("options", [{"problem_type": "regression"}, {"problem_type": "multi_label_classification"}])
def test_other_outputs_are_listed(options):
    model = tiny_classifier(distribution="haar", **options)
    demo = space.Demo(model, LPSProcessor.from_config(model.config), ["a", "b", "c"], "random")
    row = space.graph_row("0 1\n1 2", demo)
    text = space.summary(demo, space.analyse(demo, row, 8))
    assert re.match(r"### a: -?\d\.\d{3} ± [\d.e-]+, b: .*, c: .*\nFrom 8 draws\.", text)


def test_draws_that_all_agree_are_said_to():
    model = tiny_classifier(problem_type="regression", label_mean=[9.0] * 3, label_std=[2.0] * 3)
    demo = space.Demo(model, LPSProcessor.from_config(model.config), ["a", "b", "c"], "random")
    row = space.graph_row("0 1", demo)
    analysis = space.analyse(demo, row, 8)
    assert space.summary(demo, analysis).endswith("8 draws, which all agree: ± is a bound for what they may have missed.")
    batch = demo.processor([{key: value for key, value in row.items() if key != "y"}], return_tensors="pt")
    with torch.no_grad():
        assert analysis.errors[-1] == pytest.approx(model(**batch, num_samples=8).standard_error[0].numpy(), rel=1e-4)


def test_an_exact_average_has_no_error_bar():
    model = tiny_classifier(distribution="none")
    demo = space.Demo(model, LPSProcessor.from_config(model.config), ["a", "b", "c"], "random")
    row = space.graph_row("0 1\n1 2", demo)
    analysis = space.analyse(demo, row, 8)
    assert analysis.counts == [1]
    assert "±" not in space.summary(demo, analysis)
    assert space.draw(demo, row, analysis)[1].axes


def test_a_checkpoint_is_loaded_and_another_task_refused(tmp_path):
    config = tiny_config(id2label={0: "cat", 1: "dog", 2: "cow"})
    from lps_hf.models.modeling_heads_lps import LPSForGraphClassification, LPSForNodeClassification

    save_checkpoint(LPSForGraphClassification(config), LPSProcessor.from_config(config), tmp_path / "graphs")
    demo = space.load_demo(str(tmp_path / "graphs"))
    assert list(demo.names) == ["cat", "dog", "cow"]
    assert not demo.reads_molecules
    assert "graphs" in demo.about
    config = tiny_config(output="n 3")
    save_checkpoint(LPSForNodeClassification(config), LPSProcessor.from_config(config), tmp_path / "nodes")
    with pytest.raises(ValueError, match="node-classification|expects"):
        space.load_demo(str(tmp_path / "nodes"))


def test_molecules_are_drawn_with_their_atoms():
    pytest.importorskip("rdkit")
    demo = space.untrained_molecule_demo()
    assert demo.reads_molecules
    assert "random weights" in demo.about
    assert (demo.model.config.node_categories, demo.model.config.edge_categories) == (
        MOLECULE_NODE_CATEGORIES,
        MOLECULE_EDGE_CATEGORIES,
    )
    row = space.molecule_row(" CC(=O)O \n")
    orders, settling = space.draw(demo, row, space.analyse(demo, row, 4))
    texts = [text.get_text() for axes in orders.subfigs[0].axes for text in axes.texts]
    assert texts == ["C", "C", "O", "O"]
    assert len(orders.subfigs[1].axes) == space.SHOWN_DRAWS
    assert [axes.get_xlabel() for axes in settling.axes] == ["probability", "number of samples", "number of samples $k$"]
    with pytest.raises(ValueError, match="max_nodes=64"):
        space.analyse(demo, space.molecule_row("C" * 65), 2)


def test_examples_are_those_that_the_model_takes(demo):
    assert list(space.example_graphs(demo)) == []  # its largest graph has 8 nodes, the smallest example 9
    larger = tiny_classifier(max_nodes=13)
    larger = space.Demo(larger, LPSProcessor.from_config(larger.config), ["a", "b", "c"], "random")
    for text in space.example_graphs(larger).values():
        larger.processor([space.graph_row(text, larger)])
    assert len(space.example_graphs(larger)) == 5


def test_header_and_requirements_are_those_of_the_package():
    header = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (SPACE / header["app_file"]).exists()
    assert header["sdk"] == "gradio"
    setup = (SPACE.parents[1] / "setup.py").read_text(encoding="utf-8")
    needed = set(re.findall(r'"([a-z\d-]+>=[\d.]+)"', setup[setup.index("INSTALL = [") : setup.index("]\nEXTRAS")]))
    needed |= {re.search(rf'"({name}>=[\d.]+)"', setup)[1] for name in ("matplotlib", "rdkit")}
    given = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in given if not line.startswith("#")} == needed
