"""What figures were measured with."""

import json
import platform

import torch
import transformers

import lps_hf
from lps_hf.evaluation.environment import environment


def test_versions_and_device_in_plain_values():
    facts = environment("cpu")
    assert (facts["lps_hf"], facts["transformers"]) == (lps_hf.__version__, transformers.__version__)
    assert facts["torch"] == torch.__version__
    assert {type(value) for value in facts.values()} == {str, int}  # weights-only files take nothing else
    assert facts["device"] == "cpu"
    assert facts["num_threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(facts)) == facts == environment(torch.device("cpu"))
    assert platform.node() not in json.dumps(facts)


def test_the_accelerator_is_the_default(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    facts = environment()
    assert facts["device"] == "cuda, Some GPU"
    assert "num_threads" not in facts
