"""The experiment on turned digits: what it trains, what it freezes, and what its table says."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lps_hf import LPSForImageClassification
from lps_hf.models.elements import FiniteElement
from lps_hf.models.groups import get_group
from lps_hf.models.representations import Representation

SCRIPT = Path(__file__).parents[2] / "scripts" / "rotated_digits.py"


@pytest.fixture(scope="module")
def script():
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    """What a run of a few steps leaves behind."""
    folder = tmp_path_factory.mktemp("rotated_digits")
    flags = ["--max_train_samples", "128", "--max_test_samples", "40", "--pretraining_epochs", "1", "--epochs", "1"]
    flags += ["--timing_rounds", "1", "--seeds", "3", "--output_dir", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *flags])
        script.main()
    return folder


def test_a_run_writes_its_figures_and_draws_them(folder):
    result = json.loads((folder / "rotated_digits.json").read_text(encoding="utf-8"))
    assert result["splits"] == {"train": 128, "test": 40}
    (run,) = result["runs"]
    assert run["seed"] == 3
    assert len(run["rows"]) == 15
    for name, row in result["table"].items():
        assert (row["turned"], row["turned_deviation"]) == (run["rows"][name]["turned"], None)
    assert result["table"]["classifier alone"]["cost_factor"] == 1
    assert (folder / "rotated_digits.png").stat().st_size > 10_000


def test_the_table_holds_mean_and_spread_over_seeds_and_the_error_bar_of_the_test_set(script):
    runs = [{"rows": {"a": {"upright": u, "turned": 0.5, "shown_upright_by_class": [1.0]}}} for u in (0.7, 0.8, 0.9)]
    row = script.summarize(runs, num_test=100)["a"]
    assert (row["upright"], row["upright_deviation"]) == pytest.approx((0.8, 0.1))
    assert (row["upright_binomial_error"], row["turned_binomial_error"]) == pytest.approx((0.04, 0.05))
    assert "shown_upright_by_class" not in row


def test_one_pass_or_the_whole_group_is_exactly_invariant_and_the_classifier_is_not(folder):
    table = json.loads((folder / "rotated_digits.json").read_text(encoding="utf-8"))["table"]
    for name, row in table.items():
        # Untrained scores nearly tie, and ties are broken at random.
        if name.startswith(("exact", "canonical")) and name != "canonical, untrained":
            assert row["equivariance_error"] < 1e-5
            assert row["upright"] == row["turned"]
    for name in ("classifier alone", "haar k=1, untrained", "learned k=1, untrained"):
        assert table[name]["equivariance_error"] > 0.01


def test_the_classifier_alone_is_the_one_that_was_saved(script, folder):
    saved = script.ResNetForImageClassification.from_pretrained(folder / "classifier-3")
    wrapped = LPSForImageClassification.from_backbone_pretrained(folder / "classifier-3", distribution="none")
    images = script.load_splits()[1]["pixel_values"][:8]
    assert torch.equal(script.Row("", wrapped)(images).logits, saved(images).logits)


def test_turns_are_the_actions_of_the_group_and_canonicalization_follows_them(script, folder):
    images = script.load_splits()[1]["pixel_values"][:8]
    turns = torch.arange(8) % 4
    turned = script.turn(images, turns)
    elements = FiniteElement(turns.unsqueeze(1))
    expected = get_group("C_4").transform(elements, images.unsqueeze(1), Representation.parse("1 h w"), invert=False)
    assert torch.equal(turned, expected.squeeze(1))

    trained = folder / "classifier-3" / "interface trained"
    model = LPSForImageClassification.from_pretrained(trained, distribution="canonical")
    row = script.Row("", model)
    upright, moved = row(images), row(turned)
    assert torch.equal(moved.group_elements, (upright.group_elements + turns.unsqueeze(1)) % 4)
    # So the classifier is shown the same picture, whichever way the image came.
    shown = [script.turn(x, -output.group_elements.squeeze(1)) for x, output in ((images, upright), (turned, moved))]
    assert torch.equal(*shown)


def test_training_the_interface_leaves_the_backbone_as_it_was_and_training_all_does_not(folder):
    def parts(name):
        state = LPSForImageClassification.from_pretrained(folder / "classifier-3" / name).state_dict()
        backbone = {key: value for key, value in state.items() if ".backbone." in key}
        return backbone, {key: value for key, value in state.items() if ".distribution." in key}

    before, frozen, trained = (parts(name) for name in ("untrained", "interface trained", "all trained"))
    # Batch norm statistics too, which move without a gradient.
    assert any("running_mean" in key for key in before[0])
    assert [key for key in before[0] if not torch.equal(before[0][key], frozen[0][key])] == []
    assert [key for key in before[0] if torch.equal(before[0][key], trained[0][key])] == []
    for later in (frozen, trained):
        assert [key for key in before[1] if torch.equal(before[1][key], later[1][key])] == []
