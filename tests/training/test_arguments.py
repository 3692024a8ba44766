"""Training arguments: what differs from transformers' own, and what is refused."""

import json

import pytest
import torch
from transformers import HfArgumentParser, TrainingArguments

from lps_hf.training.arguments import LPSTrainingArguments


def arguments(tmp_path, **options):
    return LPSTrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True, **options)


def test_defaults_are_those_of_transformers_but_for_the_raw_rows(tmp_path):
    ours = arguments(tmp_path)
    theirs = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    ours, theirs = ours.to_dict(), theirs.to_dict()
    different = {name: value for name, value in ours.items() if name not in theirs or theirs[name] != value}
    assert different == {
        "backbone_learning_rate": None,
        "num_eval_samples": None,
        "pad_to_power_of": None,
        "remove_unused_columns": False,
    }


@pytest.mark.parametrize(("device", "asked", "expected"), [("cpu", True, False), ("cuda", True, True), ("cuda", False, False)])
def test_memory_is_pinned_for_an_accelerator_alone(tmp_path, monkeypatch, device, asked, expected):
    monkeypatch.setattr(LPSTrainingArguments, "device", torch.device(device))
    arguments = LPSTrainingArguments(output_dir=str(tmp_path), report_to="none", dataloader_pin_memory=asked)
    assert arguments.dataloader_pin_memory is expected


@pytest.mark.parametrize("rate", [0, 0.0, 2e-5])
def test_a_backbone_may_learn_slowly_or_not_at_all(tmp_path, rate):
    assert arguments(tmp_path, backbone_learning_rate=rate).backbone_learning_rate == rate


@pytest.mark.parametrize("rate", [-1e-5, float("nan"), -float("inf")])
def test_a_negative_learning_rate_is_refused(tmp_path, rate):
    with pytest.raises(ValueError, match="backbone") as caught:
        arguments(tmp_path, backbone_learning_rate=rate)
    assert str(caught.value) == f"backbone_learning_rate: expected a number of at least 0, got {rate}."


@pytest.mark.parametrize("num_samples", [0, -1])
def test_no_samples_at_evaluation_are_refused(tmp_path, num_samples):
    with pytest.raises(ValueError, match="num_eval_samples") as caught:
        arguments(tmp_path, num_eval_samples=num_samples)
    assert str(caught.value) == f"num_eval_samples: expected at least 1, got {num_samples}."


def test_as_many_samples_as_needed_may_be_asked_for(tmp_path):
    assert arguments(tmp_path, num_eval_samples="auto").num_eval_samples == "auto"
    with pytest.raises(TypeError, match="num_eval_samples: expected an int, got str 'many'"):
        arguments(tmp_path, num_eval_samples="many")


def test_they_are_read_from_flags_and_written_as_json(tmp_path):
    flags = ["--output_dir", str(tmp_path), "--use_cpu", "--report_to", "none"]
    flags += ["--backbone_learning_rate", "2e-5", "--num_eval_samples", "7"]
    (parsed,) = HfArgumentParser(LPSTrainingArguments).parse_args_into_dataclasses(flags)
    assert (parsed.backbone_learning_rate, parsed.num_eval_samples) == (2e-5, 7)
    assert json.loads(parsed.to_json_string())["backbone_learning_rate"] == 2e-5
