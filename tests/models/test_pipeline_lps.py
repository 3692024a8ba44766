"""Pipelines: what they return for every task and every kind of input, how sure they say they are, and what they refuse."""

import json
import subprocess
import sys
from itertools import count, islice

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoProcessor, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import KeyDataset

from lps_hf import LPSModel, LPSProcessor, auto
from lps_hf.hub import save_checkpoint
from lps_hf.models.pipeline_lps import GraphClassificationPipeline, LPSPipeline
from tests.limits import HANGS_AFTER
from tests.task_cases import CASES, task_case
from tests.tiny import random_rows, tiny_classifier

IMAGES = "symmetrized-image-classification"
TASKS = {task: IMAGES if task == "image-classification" else task for task in CASES}


def pipe_of(task, **options):
    model, processor, rows = task_case(task, **options)
    return pipeline(TASKS[task], model=model, processor=processor), rows


def numbers_in(result):
    """All numbers of a result, in order."""
    if isinstance(result, dict):
        result = [result[key] for key in result if key not in ("label", "note")]
    if isinstance(result, list):
        return [number for part in result for number in numbers_in(part)]
    return [] if result is None else [float(result)]


def assert_close(result, expected):
    assert json.dumps(result).count('"label"') == json.dumps(expected).count('"label"')
    np.testing.assert_allclose(numbers_in(result), numbers_in(expected), rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def graphs():
    """A pipeline of graphs, and rows for it."""
    return pipe_of("graph-classification")


# What comes out


@pytest.mark.parametrize("task", CASES)
def test_numbers_are_those_of_the_model(task):
    pipe, rows = pipe_of(task, distribution="none")
    assert pipe.task == TASKS[task]
    result = pipe(rows[1])
    with torch.no_grad():
        batch = pipe.processor(rows[1], return_tensors="pt")
        logits = pipe.model(**batch).logits[0]
    if task == "particle-dynamics":
        assert result == {"positions": logits.tolist(), "standard_error": None}
    elif task == "link-prediction":
        pairs = torch.tensor([[pair["source"], pair["target"]] for pair in result]).T
        assert torch.equal(pairs, batch["pair_index"][0])
        assert [pair["score"] for pair in result] == logits.sigmoid().tolist()
    elif task == "molecule-regression":
        assert result == [{"label": "LABEL_0", "value": logits.item(), "standard_error": None}]
    else:
        scores = logits.softmax(dim=-1)
        nodes = result if task == "node-classification" else [result]
        assert len(nodes) == (len(rows[1]["y"]) if task == "node-classification" else 1)
        for labels, expected in zip(nodes, scores.view(len(nodes), -1), strict=True):
            best = expected.sort(descending=True, stable=True)
            best = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            best = best[:5] if task == "image-classification" else best
            assert labels == [{"label": f"LABEL_{n}", "score": score, "standard_error": None} for n, score in best]


@pytest.mark.parametrize("task", CASES)
def test_a_row_has_one_result_alone_in_a_batch_and_in_a_stream(task):
    pipe, rows = pipe_of(task)
    alone = [pipe(row) for row in rows[:5]]
    assert pipe(rows[:5]) == alone
    assert_close(pipe(rows[:5], batch_size=3), alone)
    assert_close(list(pipe(iter(rows[:5]), batch_size=2)), alone)
    assert_close(pipe(rows[4::-1], batch_size=5)[::-1], alone)


def test_several_labels_have_a_sigmoid_each():
    model = tiny_classifier(problem_type="multi_label_classification", id2label={0: "toxic", 1: "soluble", 2: "red"})
    pipe, row = pipeline("graph-classification", model=model), random_rows(1)[0]
    result = pipe(row, num_samples=4)
    assert {label["label"] for label in result} == {"toxic", "soluble", "red"}
    assert sum(label["score"] for label in result) != pytest.approx(1, abs=1e-3)
    assert all(0 < label["standard_error"] < 0.5 for label in result)
    assert pipe(row, num_samples=4, top_k=2) == result[:2]


def test_a_regression_is_in_the_unit_of_the_data():
    options = {"problem_type": "regression", "num_labels": 2, "num_eval_samples": 4}
    row = random_rows(1)[0]
    plain = pipeline("graph-regression", model=tiny_classifier(**options))(row)
    scaled = pipeline("graph-regression", model=tiny_classifier(**options, label_mean=[5.0, 0.0], label_std=[1.0, 3.0]))(row)
    assert [target["label"] for target in plain] == ["LABEL_0", "LABEL_1"]
    assert scaled[0]["value"] == pytest.approx(plain[0]["value"] + 5, rel=1e-5)
    for key in ("value", "standard_error"):
        assert scaled[1][key] == pytest.approx(3 * plain[1][key], rel=1e-5)


def test_links_of_all_pairs():
    pipe, rows = pipe_of("link-prediction")
    given = pipe(rows[0])
    without = {key: value for key, value in rows[0].items() if not key.startswith("edge_label")}
    nodes = rows[0]["num_nodes"]
    every = pipe(without, top_k=nodes**2)
    assert len(every) == nodes * (nodes - 1)
    assert all(pair["source"] != pair["target"] for pair in every)
    assert [pair["score"] for pair in every] == sorted((pair["score"] for pair in every), reverse=True)
    assert pipe(without) == every[:10]
    for pair in given:
        (same,) = (other for other in every if (other["source"], other["target"]) == (pair["source"], pair["target"]))
        assert_close(pair, same)
    assert pipe(rows[0], top_k=1) == [max(given, key=lambda pair: pair["score"])]
    assert_close(pipe([rows[0], without], batch_size=2), [given, every[:10]])


# How sure it is


def scores_and_errors(result):
    """Every number of a result with its standard error, in an order that does not depend on which label is best."""
    if isinstance(result, dict) and "positions" in result:
        return list(zip(numbers_in(result["positions"]), numbers_in(result["standard_error"]), strict=True))
    if isinstance(result, list):
        labels = sorted(result, key=lambda part: part["label"]) if "label" in result[0] else result
        return [pair for part in labels for pair in scores_and_errors(part)]
    return [(result["score"], result["standard_error"])]


@pytest.mark.parametrize("task", ["graph-classification", "node-classification", "link-prediction", "particle-dynamics"])
def test_standard_errors_are_the_spread_over_seeds(task):
    pipe, rows = pipe_of(task, distribution="haar")
    results = np.array([scores_and_errors(pipe(rows[0], num_samples=16, seed=seed)) for seed in range(150)])
    spread = results[..., 0].std(axis=0, ddof=1)
    claimed = (results[..., 1] ** 2).mean(axis=0) ** 0.5
    assert (spread > 0).all()
    ratios = claimed / spread
    assert 0.9 < np.median(ratios) < 1.1
    assert (ratios > 0.75).all()
    assert (ratios < 1.3).all()


@pytest.mark.parametrize("options", [{"distribution": "exact"}, {"num_eval_samples": 1}], ids=str)
def test_no_error_bar(options):
    pipe, rows = pipe_of("image-classification", **options)
    assert {label["standard_error"] for row in pipe(rows[:2]) for label in row} == {None}


def entries_in(result):
    """The dictionaries of a result: of labels, targets, pairs or all positions."""
    if isinstance(result, dict):
        return [result]
    return [entry for part in result for entry in entries_in(part)]


@pytest.mark.parametrize("task", CASES)
def test_a_result_tells_its_confidence_interval(task):
    pipe, rows = pipe_of(task, distribution="haar")
    plain = entries_in(pipe(rows[0], num_samples=8))
    assert not any("confidence_interval" in entry for entry in plain)
    for level, quantile in ((0.95, 2.364624), (0.5, 0.711142)):  # Student's with 7 degrees of freedom
        entries = entries_in(pipe(rows[0], num_samples=8, confidence_level=level))
        for entry, other in zip(entries, plain, strict=True):
            low, high = map(np.array, entry.pop("confidence_interval"))
            assert entry == other
            key = next(key for key in ("score", "value", "positions") if key in entry)
            middle, half = np.array(entry[key]), quantile * np.array(entry["standard_error"])
            ends = (middle - half, middle + half)
            if key == "score":  # of the log-odds
                odds = np.log(middle / (1 - middle)) + np.array([-1, 1]) * half / (middle * (1 - middle))
                ends = 1 / (1 + np.exp(-odds))
            np.testing.assert_allclose((low, high), ends, rtol=1e-4)


def test_draws_that_all_agree_are_said_to():
    pipe = pipeline("graph-classification", model=tiny_classifier(noise_scale=1e-3))
    features = [[node % 3, node % 2] for node in range(6)]  # so that all nodes differ
    row = {"edge_index": [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]], "num_nodes": 6, "node_feat": features, "edge_attr": [[0]] * 5}
    labels = pipe(row, num_samples=8)
    assert all(label["note"].startswith("all draws agreed") for label in labels)
    assert all(label["standard_error"] > 1e-3 for label in labels)
    haar = pipeline("graph-classification", model=tiny_classifier(distribution="haar"))
    assert not any("note" in label for label in haar(row, num_samples=8))
    assert not any("note" in label for label in haar(row, num_samples=1, confidence_level=0.9))  # one draw agrees with nobody


@pytest.mark.parametrize("level", [0, 1, 95, "0.9", True], ids=str)
def test_what_is_no_confidence_level_is_refused(graphs, level):
    pipe, rows = graphs
    with pytest.raises(ValueError, match="confidence_level: expected a number between 0 and 1"):
        pipe(rows[0], confidence_level=level)


def test_one_group_of_dependent_draws_has_no_error_bar():
    pipe, rows = pipe_of("graph-classification", sampler="antithetic", num_eval_samples=2)
    assert pipe(rows[0], num_samples=2)[0]["standard_error"] is None
    assert pipe(rows[0], num_samples=4)[0]["standard_error"] > 0
    with pytest.raises(ValueError, match="num_samples: expected"):
        pipe(rows[0], num_samples=3)


@pytest.mark.parametrize("tolerance", [{"tolerance": 1e-3}, {"num_samples": "auto"}], ids=str)
def test_as_many_samples_as_the_error_bar_asks_for(tolerance):
    pipe, rows = pipe_of("graph-classification", min_eval_samples=4, max_eval_samples=40, tolerance=1e-3)
    few, many = pipe(rows[:4], **tolerance), pipe(rows[:4], num_samples=4)
    errors, unbounded = ([row[0]["standard_error"] for row in result] for result in (few, many))
    assert max(errors) <= 1e-3 < max(unbounded)
    assert few == [pipe(row, **tolerance) for row in rows[:4]]
    together = pipe(rows[:4], batch_size=4, **tolerance)
    assert together == pipe(rows[:4], batch_size=4, **tolerance)
    assert max(row[0]["standard_error"] for row in together) <= 1e-3


def test_a_tolerance_is_about_scores_also_where_the_kind_of_labels_is_not_set():
    options = {"min_eval_samples": 4, "max_eval_samples": 40, "tolerance": 1e-3}
    inferred, said = (
        pipeline("graph-classification", model=tiny_classifier(problem_type=kind, **options), num_samples="auto")
        for kind in (None, "single_label_classification")
    )
    rows = random_rows(4)
    assert inferred(rows) == said(rows)
    assert inferred(rows) != inferred(rows, num_samples=40)


def test_a_seed_and_a_row_decide(graphs):
    pipe, rows = graphs
    first = pipe(rows[0])
    assert pipe(rows[0], seed=0) == first
    assert pipe(rows[0], seed=1) != first
    assert pipe([rows[1], rows[0], rows[0]])[1:] == [first, first]
    assert pipe({**rows[0], "id": "another", "y": [0]}) == first
    torch.manual_seed(0)
    at_random = [pipe(rows[0], seed=None) for _ in range(2)]
    assert at_random[0] != at_random[1]
    torch.manual_seed(0)
    assert [pipe(rows[0], seed=None) for _ in range(2)] == at_random
    fixed = pipeline("graph-classification", model=pipe.model, seed=1, num_samples=5)
    assert fixed(rows[0]) == pipe(rows[0], seed=1, num_samples=5)
    assert fixed(rows[0], seed=0, num_samples=None) == first


def test_different_rows_draw_different_noise(graphs):
    pipe, rows = graphs
    same_size = [row for row in rows if row["num_nodes"] == rows[0]["num_nodes"]][:2]
    one, two = (pipe.preprocess(row)["noise"] for row in same_size)
    assert same_size[0]["edge_index"] != same_size[1]["edge_index"]
    assert all(one[key].shape == two[key].shape and not torch.equal(one[key], two[key]) for key in one)


def test_half_precision():
    half = pipeline("graph-classification", model=tiny_classifier().to(torch.bfloat16))
    whole = pipeline("graph-classification", model=tiny_classifier())
    row = random_rows(1)[0]
    expected = {label["label"]: label["score"] for label in whole(row)}
    assert all(label["score"] == pytest.approx(expected[label["label"]], abs=0.05) for label in half(row))


# What goes in


def test_rows_in_every_form(graphs, tmp_path):
    pipe, rows = graphs
    expected = pipe(rows[:3])
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    columns = {key: [row[key] for row in rows[:3]] for key in rows[0]}
    for several in (tuple(rows[:3]), columns, str(file), file, [file]):
        assert pipe(several) == expected
    dataset = Dataset.from_list(rows[:3])
    for stream in (dataset, dataset.to_iterable_dataset(), iter(rows[:3]), KeyDataset([{"row": row} for row in rows[:3]], "row")):
        results = pipe(stream)
        assert not isinstance(results, list)
        assert list(results) == expected
    assert pipe(dataset[:2]) == expected[:2]
    assert pipe(dataset.to_pandas()) == expected
    assert pipe([]) == list(pipe(iter([]))) == []
    file.write_text(json.dumps(rows[0]))
    assert pipe(file) == expected[:1]


def test_graphs_of_networkx(graphs):
    networkx = pytest.importorskip("networkx")
    pipe, _ = graphs
    graph = networkx.cycle_graph(6)
    networkx.set_node_attributes(graph, 0, "x")
    ends = [*graph.edges, *((target, source) for source, target in graph.edges)]
    row = {"edge_index": [list(ends) for ends in zip(*sorted(ends), strict=True)], "node_feat": [[0]] * 6}
    result = pipe(graph)
    assert {label["label"] for label in result} == {label["label"] for label in pipe(row)}
    assert pipe([graph, graph]) == [result, result]
    assert list(pipe(iter([graph]))) == [result]
    alone = networkx.empty_graph(1)  # has no edge that could have attributes
    networkx.set_node_attributes(alone, 0, "x")
    model = tiny_classifier(node_categories=[3])
    assert len(pipeline("graph-classification", model=model)(alone)) == model.config.num_labels


def test_graphs_of_pytorch_geometric(graphs):
    data = pytest.importorskip("torch_geometric.data")
    pipe, rows = graphs
    made = [data.Data(torch.tensor(row["node_feat"]), torch.tensor(row["edge_index"])) for row in rows[:2]]
    assert pipe(made[0]) == pipe(rows[0])
    assert pipe(made) == pipe(data.Batch.from_data_list(made)) == pipe(rows[:2])


def test_smiles():
    pytest.importorskip("rdkit")
    from lps_hf.data import from_smiles
    from lps_hf.models.row_molecules import MOLECULE_EDGE_CATEGORIES, MOLECULE_NODE_CATEGORIES

    categories = {"node_categories": MOLECULE_NODE_CATEGORIES, "edge_categories": MOLECULE_EDGE_CATEGORIES}
    pipe = pipeline("graph-classification", model=tiny_classifier(**categories))
    assert pipe("CCO") == pipe(from_smiles("CCO"))
    assert pipe(["CCO", "CN"]) == list(pipe(iter(["CCO", "CN"]))) == [pipe("CCO"), pipe("CN")]
    assert pipe({"SMILES": ["CCO", "CN"]}) == pipe(["CCO", "CN"])
    assert pipe({"SMILES": "CCO"}) == pipe("CCO")
    with pytest.raises(ValueError, match=r"item 1: smiles: .*'C1C'"):
        pipe(["CCO", "C1C"])


def test_strings_that_no_file_can_be_named_like(tmp_path, monkeypatch):
    pytest.importorskip("rdkit")
    from lps_hf.models.row_molecules import MOLECULE_EDGE_CATEGORIES, MOLECULE_NODE_CATEGORIES

    categories = {"node_categories": MOLECULE_NODE_CATEGORIES, "edge_categories": MOLECULE_EDGE_CATEGORIES}
    pipe = pipeline("graph-classification", model=tiny_classifier(**categories, max_nodes=200))
    peptide = "NC(C)C(=O)" * 30 + "O"
    assert pipe([peptide]) == [pipe(peptide)]
    monkeypatch.chdir(tmp_path)
    expected = pipe("CCO")
    (tmp_path / "CCO").mkdir()
    assert pipe("CCO") == expected
    for text in ("", "C\0", "~", "x" * 5000):
        with pytest.raises(ValueError, match="^smiles: expected the SMILES string of a molecule"):
            pipe(text)


def test_points_and_files_of_one_row_have_one_result(tmp_path):
    pipe, rows = pipe_of("point-cloud-classification")
    points = np.array(rows[0]["positions"])
    expected = pipe({"positions": points})
    np.save(tmp_path / "a.npy", points)
    np.savez(tmp_path / "a.npz", points)
    assert pipe(points) == pipe(torch.tensor(points)) == pipe(tmp_path / "a.npy") == expected
    assert pipe([points]) == pipe(tmp_path / "a.npz") == [expected]


def test_pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pipe, rows = pipe_of("image-classification")
    pixels = np.asarray(rows[0]["image"], dtype=np.uint8)
    picture = image.fromarray(pixels)
    picture.save(tmp_path / "digit.png")
    expected = pipe({"image": pixels})
    assert len(expected) == 5
    assert pipe(picture) == pipe(str(tmp_path / "digit.png")) == expected
    assert pipe([picture, tmp_path / "digit.png"]) == [expected] * 2
    assert len(pipe(picture, top_k=20)) == 10
    (tmp_path / "broken.png").write_bytes((tmp_path / "digit.png").read_bytes()[:60])
    for many in (list, iter):
        with pytest.raises(ValueError, match=r"^item 1: .*image: expected a picture, got .*broken\.png, which"):
            list(pipe(many([picture, tmp_path / "broken.png"])))
        with pytest.raises(FileNotFoundError, match=r"^item 1: .*expected a file, got none\.png"):
            list(pipe(many([picture, "none.png"])))


def test_a_stream_is_read_when_it_is_needed(graphs):
    pipe, rows = graphs
    read = []
    endless = (read.append(number) or rows[number % 3] for number in count())
    results = list(islice(pipe(endless, batch_size=2), 3))
    assert_close(results, pipe(rows[:3]))
    assert len(read) <= 6


def test_rows_prepared_by_another_process(graphs):
    pipe, rows = graphs
    assert pipe(rows[:4], num_workers=1, batch_size=2) == pipe(rows[:4], batch_size=2)


# What is refused


@pytest.mark.parametrize("many", [list, iter], ids=["list", "stream"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_bad_row_is_named(graphs, many, batch_size):
    pipe, rows = graphs
    bad = [*rows[:5], {**rows[5], "edge_index": [[0], [99]]}]
    with pytest.raises(ValueError, match=r"^row 5: edge_index: expected node numbers 0 to"):
        list(pipe(many(bad), batch_size=batch_size))
    with pytest.raises(ValueError, match=r"^row 0: edge_index"):
        pipe(bad[5])


def test_bad_rows_can_be_skipped_and_the_others_keep_their_places(graphs, tmp_path):
    pipe, rows = graphs
    bad = {**rows[1], "edge_index": [[0], [99]]}
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([json.dumps(rows[0]), json.dumps(bad), "{broken", json.dumps(rows[2])]))
    expected = pipe(rows[:3])
    with pytest.warns(
        UserWarning, match="2 of 4 rows were left out. row 1: edge_index: expected .*rows.jsonl, line 3: expected JSON"
    ):
        assert pipe(file, on_error="skip") == [expected[0], None, None, expected[2]]
    with pytest.warns(UserWarning, match="1 of 2 rows were left out"):
        assert pipe([bad, rows[0]], on_error="skip", num_samples=3) == [None, pipe(rows[0], num_samples=3)]
    assert pipe(rows[0], on_error="skip") == expected[0]
    assert pipe(rows[:3], on_error="skip") == expected
    with pytest.warns(UserWarning, match="1 of 3 rows were left out. row 1: "):
        assert pipe(iter([rows[0], bad, rows[2]]), on_error="skip") == [expected[0], None, expected[2]]
    assert pipe([], on_error="skip") == []
    with pytest.raises(ValueError, match="^row 0: edge_index: "):
        pipe([bad], on_error="skip")
    with pytest.raises(ValueError, match="on_error: expected 'raise' or 'skip', got None"):
        pipe(rows, on_error=None)


def test_things_that_are_no_rows(graphs):
    pipe, rows = graphs
    with pytest.raises(TypeError, match=r"source: expected a row, a graph .* got int"):
        pipe(3)
    with pytest.raises(TypeError, match=r"item 1: .*expected a row, a graph .* got int"):
        pipe([rows[0], 3])
    with pytest.raises(TypeError, match=r"item 1: .*expected a row, a graph .* got int"):
        list(pipe(iter([rows[0], 3])))
    with pytest.raises(FileNotFoundError, match=r"nothing\.jsonl"):
        pipe("nothing.jsonl")


def test_pairs_that_are_none():
    pipe, rows = pipe_of("link-prediction")
    with pytest.raises(ValueError, match=r"^row 1: edge_label_index: expected node numbers 0 to"):
        pipe([rows[0], {**rows[1], "edge_label_index": [[0], [50]]}])


def test_rows_of_a_batch_that_do_not_go_together():
    pipe, rows = pipe_of("image-classification")
    small = {"image": np.zeros((8, 16, 3), dtype=np.uint8)}
    with pytest.raises(ValueError, match=r"row 2: expected an image of height and width \(16, 16\), as row 0 of its batch has"):
        pipe([*rows[:2], small], batch_size=3)
    row = {"edge_index": [[0], [1]], "num_nodes": 2}
    pipe = pipeline("graph-classification", model=tiny_classifier(node_categories=None, edge_categories=None))
    with pytest.raises(ValueError, match="row 1: expected the same features as row 0 of its batch has, .* node_features"):
        pipe([row, {**row, "node_feat": [[0.5], [1.0]]}], batch_size=2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_sample": 3}, TypeError, "num_sample: expected one of num_samples, tolerance, seed, top_k"),
        ({"num_samples": 0}, ValueError, "num_samples: expected at least 1, got 0"),
        ({"num_samples": 2.5}, TypeError, "num_samples: expected an int, got float"),
        ({"tolerance": 0}, ValueError, "tolerance: expected a positive number, got 0"),
        ({"num_samples": 5, "tolerance": 0.1}, ValueError, "tolerance: expected num_samples='auto' beside it, or none, got 5"),
        ({"seed": "1"}, TypeError, "seed: expected an int or None, got '1'"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1, got 0"),
    ],
    ids=str,
)
def test_arguments(graphs, options, error, message):
    pipe, rows = graphs
    with pytest.raises(error, match=message):
        pipe(rows[0], **options)
    with pytest.raises(error, match=message):
        pipeline("graph-classification", model=pipe.model, **options)


def test_the_best_of_what_has_no_order():
    for task in ("molecule-regression", "particle-dynamics"):
        pipe, rows = pipe_of(task)
        with pytest.raises(ValueError, match="top_k: expected None for"):
            pipe(rows[0], top_k=1)


def test_models_and_processors_of_something_else(graphs):
    pipe, _ = graphs
    nodes, _, _ = task_case("node-classification")
    with pytest.raises(ValueError, match=r"model: expected LPSForGraphClassification or the like, got LPSForNode.* output 'n 2'"):
        pipeline("graph-classification", model=nodes)
    with pytest.raises(TypeError, match="model: expected a symmetrized model such as LPSForGraphClassification, got ViTModel"):
        pipeline("graph-classification", model=pipe.model.lps.base.pretrained_model)
    with pytest.raises(TypeError, match="processor: expected an LPSProcessor, got dict"):
        pipeline("graph-classification", model=pipe.model, processor={})
    images, _, _ = task_case("image-classification")
    with pytest.raises(ValueError, match="processor: expected the LPSProcessor of the model"):
        pipeline(IMAGES, model=images)


# Where it comes from and goes to


def test_every_task_is_registered_and_those_of_transformers_are_left_alone():
    supported = PIPELINE_REGISTRY.supported_tasks
    for task, name, _ in auto.PIPELINES:
        assert supported[task]["impl"].__name__ == name
    assert supported["image-classification"]["impl"] == "transformers.pipelines.image_classification.ImageClassificationPipeline"
    before = {task: supported[task]["impl"] for task in supported}
    auto.register()
    assert {task: supported[task]["impl"] for task in supported} == before


@pytest.mark.parametrize("task", CASES)
def test_a_folder_tells_its_task(task, tmp_path):
    pipe, rows = pipe_of(task)
    save_checkpoint(pipe.model, pipe.processor, tmp_path / "published")
    pipe.save_pretrained(tmp_path / "plain")
    expected = pipe(rows[:2])
    for folder in ("published", "plain"):
        for options in ({"task": TASKS[task]}, {}, {"trust_remote_code": True}):
            again = pipeline(model=tmp_path / folder, **options)
            assert type(again) is type(pipe)
            assert again.task == TASKS[task]
            assert_close(again(rows[:2]), expected)
    settings = json.loads((tmp_path / "published" / "config.json").read_text())
    assert settings["custom_pipelines"].keys() == {TASKS[task]}
    assert not list((tmp_path / "plain").glob("*.py"))
    assert "custom_pipelines" not in json.loads((tmp_path / "plain" / "config.json").read_text())


def test_saving_keeps_the_processor(tmp_path):
    pytest.importorskip("PIL")
    model, _, rows = task_case("image-classification")
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "image_mean": [0.1, 0.2, 0.3]}
    processor = LPSProcessor.from_config(model.config, settings)
    pipe = pipeline(IMAGES, model=model, processor=processor, seed=3)
    pipe.save_pretrained(tmp_path / "saved", max_shard_size="5GB")  # as push_to_hub does
    again = pipeline(model=tmp_path / "saved", seed=3)
    assert list(again.processor.image_processor.image_mean) == [0.1, 0.2, 0.3]
    assert_close(again(rows[0]), pipe(rows[0]))
    assert_close(pipeline(IMAGES, model=model, image_processor=processor.image_processor, seed=3)(rows[0]), pipe(rows[0]))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="save_directory: expected a folder, got the file"):
        pipe.save_pretrained(tmp_path / "file")


def test_the_pipeline_of_transformers_for_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    model, _, rows = task_case("image-classification", distribution="none")
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    save_checkpoint(model, LPSProcessor.from_config(model.config, settings), tmp_path)
    picture = image.fromarray(np.asarray(rows[0]["image"], dtype=np.uint8))
    stock, ours = pipeline("image-classification", model=tmp_path)(picture), pipeline(model=tmp_path)(picture)
    assert [label["label"] for label in stock] == [label["label"] for label in ours]
    assert [label["score"] for label in stock] == pytest.approx([label["score"] for label in ours], rel=1e-5)


def test_a_model_without_its_head():
    model, processor, rows = task_case("link-prediction")
    expected = pipeline("link-prediction", model=model, processor=processor)(rows[0])
    bare = LPSModel(model.config).eval()
    bare.load_state_dict(model.lps.state_dict())
    pipe = pipeline("link-prediction", model=bare)
    assert type(pipe.model) is type(model)
    assert pipe.model.lps.link == "sigmoid"
    assert_close(pipe(rows[0]), expected)


def test_a_folder_without_a_processor(graphs, tmp_path):
    pipe, rows = graphs
    pipe.model.save_pretrained(tmp_path)
    assert_close(pipeline("graph-classification", model=tmp_path)(rows[0]), pipe(rows[0]))


def test_a_pipeline_is_for_prediction():
    model = tiny_classifier().train()
    pipe = pipeline("graph-classification", model=model)
    assert isinstance(pipe, GraphClassificationPipeline)
    assert isinstance(pipe, LPSPipeline)
    assert not pipe.model.training
    assert repr(pipe).startswith("GraphClassificationPipeline: {'model': 'LPSForGraphClassification'")


WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["lps_hf"] = None
import torch
from transformers import AutoModel, pipeline
from transformers.utils import logging

logging.disable_progress_bar()
torch.set_num_threads(1)
rows, seen = json.loads(sys.argv[1]), {}
for task in sys.argv[2:]:
    found = []
    for options in ({"task": task}, {}):
        pipe = pipeline(model=f"{task}/published", trust_remote_code=True, **options)
        found.append([pipe.task, type(pipe).__name__, type(pipe).__module__.split(".")[0], type(pipe.model).__name__])
        found.append(pipe(rows[task]))
    pipe.save_pretrained(f"{task}/saved")
    again = pipeline(model=f"{task}/saved", trust_remote_code=True)
    found.append(again(rows[task]) == found[-1])
    found.append(type(AutoModel.from_pretrained(f"{task}/saved", trust_remote_code=True)).__name__)
    try:
        pipeline(task, model=f"{task}/published", trust_remote_code=False)
    except ValueError as error:
        found.append("trust_remote_code=True" in str(error))
    seen[task] = found
print(json.dumps(seen))
"""


def test_a_machine_without_the_package(tmp_path):
    rows, expected = {}, {}
    for task in ("graph-classification", "link-prediction"):
        pipe, rows[task] = pipe_of(task)
        rows[task] = rows[task][:2]
        save_checkpoint(pipe.model, pipe.processor, tmp_path / task / "published")
        expected[task] = pipe.model.__class__.__name__, type(pipe).__name__, pipe(rows[task])
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, json.dumps(rows), *rows]
    variables = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=HANGS_AFTER)
    assert done.returncode == 0, done.stderr[-3000:]
    for task, (by_task, results, by_config, again, saved_again, body, refused) in json.loads(done.stdout).items():
        model, name, local = expected[task]
        assert by_task == by_config == [task, name, "transformers_modules", model]
        for remote in (results, again):
            assert_close(remote, local)
        assert saved_again is True
        assert body == "LPSModel"
        assert refused is True


def test_the_processor_of_a_pipeline_is_the_published_one(graphs, tmp_path):
    pipe, _ = graphs
    save_checkpoint(pipe.model, pipe.processor, tmp_path)
    assert pipeline(model=tmp_path).processor.to_dict() == AutoProcessor.from_pretrained(tmp_path).to_dict()
