"""Checks of a checkpoint folder as somebody else will load it: by its Auto class, in a fresh process."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_RELOAD = """
import sys
import torch
from transformers import AutoModelForSequenceClassification
import lps_hf
from transformers.utils import logging
logging.disable_progress_bar()
folder, inputs, outputs, num_threads = sys.argv[1:]
torch.set_num_threads(int(num_threads))
model = AutoModelForSequenceClassification.from_pretrained(folder)
with torch.no_grad():  # as evaluation is: in passes, whose means round in another way than that of all samples at once
    torch.save(model(**torch.load(inputs)).logits, outputs)
"""


def logits_in_fresh_process(folder: str | Path, inputs: Mapping[str, Any]) -> Tensor:
    """Load a checkpoint folder by its Auto class in a new Python process and run it without gradient.

    Args:
        folder: The checkpoint.
        inputs: Arguments of the model's `forward`, tensors and dicts of tensors; with `noise` or `group_elements` the result is
            deterministic.

    Returns:
        `torch.Tensor` of shape `(batch, num_labels)`: The logits there.

    Raises:
        RuntimeError: If the process fails; the message holds what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="lps-hf-") as temporary:
        files = [str(Path(temporary) / name) for name in ("inputs.pt", "outputs.pt")]
        torch.save(dict(inputs), files[0])
        # An absolute path is never taken for a Hub id, and another number of threads would round otherwise.
        arguments = [str(Path(folder).absolute()), *files, str(torch.get_num_threads())]
        command = [sys.executable, "-c", _RELOAD, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{folder} could not be loaded in a fresh process:\n{done.stderr}")
        return torch.load(files[1])
