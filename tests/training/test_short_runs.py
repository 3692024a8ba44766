"""What the experiments share: the training, costs measured in turn, and the table of several seeds."""

import time

import pytest
import torch

from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training.short_runs import as_text, costs_in_turn, fit, forward_pass, losses_of, mean_and_deviation, training_pass
from tests.tiny import random_rows, tiny_classifier


def test_a_fit_trains_and_depends_on_its_seed_alone():
    rows = random_rows(20)
    losses = []
    for seed in (0, 0, 1):
        model = tiny_classifier()
        before = {name: tensor.clone() for name, tensor in model.named_parameters()}
        trainer = fit(model, LPSProcessor.from_config(model.config), rows, 3, 1e-2, 8, seed)
        assert trainer.state.global_step == 9
        assert all(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
        losses.append(losses_of(trainer))
    assert len(losses[0]) == 9
    assert losses[0] == losses[1] != losses[2]
    assert losses[0][-1] < losses[0][0]


def test_costs_are_ratios_to_the_first(monkeypatch):
    def burn(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    costs = costs_in_turn({"one": lambda: burn(0.01), "three": lambda: burn(0.03)}, rounds=4)
    assert costs["one"] == {"ratio": 1, "least": 1, "greatest": 1}
    # The clock of this process alone: others on the machine do not matter.
    assert 2.4 < costs["three"]["ratio"] < 3.6
    assert costs["three"]["least"] <= costs["three"]["ratio"] * 1.1
    assert costs["three"]["greatest"] >= costs["three"]["ratio"] / 1.1


def test_timed_passes_are_an_evaluation_and_a_training_step():
    model = tiny_classifier()
    batch = LPSProcessor.from_config(model.config)(random_rows(3), return_tensors="pt")
    seen = []
    model.lps.base.register_forward_hook(lambda *_: seen.append((model.training, torch.is_grad_enabled())))
    forward_pass(model, batch, 2)()
    training_pass(model, batch)()
    assert seen == [(False, False), (True, True)]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_means_come_with_the_sample_deviation():
    figures = mean_and_deviation([0.7, 0.8, 0.9])
    assert figures["mean"] == pytest.approx(0.8)
    assert figures["deviation"] == pytest.approx(0.1)
    assert as_text(figures, 100) == "80.0 ± 10.0"
    assert as_text(mean_and_deviation([0.5]), 1, 2) == "0.50"
