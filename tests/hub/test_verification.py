"""A checkpoint loaded in a fresh process, as somebody else will."""

import pytest
import torch

from lps_hf.hub import save_checkpoint
from lps_hf.hub.verification import logits_in_fresh_process


def test_a_fresh_process_gives_the_same_logits(model, processor, inputs, tmp_path, monkeypatch):
    save_checkpoint(model, processor, tmp_path / "my checkpoint")
    monkeypatch.chdir(tmp_path)
    with torch.no_grad():
        logits = model(**inputs).logits
    # Not contiguous, and a view of a larger tensor: there are formats that cannot write either.
    inputs["noise"] = {name: torch.stack([part] * 2, dim=-1)[..., 0] for name, part in inputs["noise"].items()}
    assert torch.equal(logits_in_fresh_process("my checkpoint", inputs), logits)


def test_what_goes_wrong_there_is_shown(inputs, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"(?s)ckpt could not be loaded in a fresh process:.*no torch here"):
        logits_in_fresh_process("ckpt", inputs)


def test_a_folder_that_is_missing_is_not_looked_for_on_the_hub(inputs, tmp_path, monkeypatch):
    seen = []

    def run(command, **options):
        seen.extend(command)
        raise OSError("stop here")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="stop here"):
        logits_in_fresh_process("user/model", inputs)
    assert str(tmp_path / "user" / "model") in seen
