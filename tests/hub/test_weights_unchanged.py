"""Weights come back bit for bit: of every head, in single and half precision, in one file and in shards, from disk and a Hub."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lps_hf
from lps_hf.models.modeling_lps import LPSModel
from tests.loopback_hub import run_client
from tests.models.test_equivariance_matrix import make_model

HEADS = ("graphs", "nodes on the diagonal", "links", "dynamics", "turning dynamics", "point clouds", "images, C_4", "LPSModel")
every_model = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["single", "half"])


def model_of(head, dtype):
    """A model with numbers among its weights that only a copy bit by bit preserves."""
    model = copy.deepcopy(make_model("graphs" if head == "LPSModel" else head, "learned"))
    model = (model.lps if head == "LPSModel" else model).float().to(dtype)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.view(-1)[0] = (-0.0, 1e-40, 1 / 3)[number % 3]
    return model


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).tolist()


def assert_same_bits(tensors, others):
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert bits(tensor) == bits(others[name]), name


def files_in(folder):
    return {name: tensor for file in Path(folder).glob("*.safetensors") for name, tensor in load_file(file).items()}


def config_in(file):
    config = json.loads(file.read_text())
    config["backbone_config"].pop("dtype")  # transformers notes there what it has loaded the whole model in
    return config


@every_model
@pytest.mark.parametrize("head", HEADS)
def test_saved_and_loaded(head, dtype, tmp_path):
    model = model_of(head, dtype)
    weights = model.state_dict()
    assert {tensor.dtype for name, tensor in weights.items() if "distribution." in name} <= {torch.float32, torch.int64}
    assert {tensor.dtype for name, tensor in weights.items() if "distribution." not in name} == {dtype}
    for folder, size in (("whole", "5GB"), ("shards", "1KB")):
        model.save_pretrained(tmp_path / folder, max_shard_size=size)
        assert_same_bits(files_in(tmp_path / folder), weights)
        loaded = type(model).from_pretrained(tmp_path / folder)
        assert_same_bits(loaded.state_dict(), weights)
        loaded.save_pretrained(tmp_path / f"{folder} again", max_shard_size=size)
        for file in (tmp_path / folder).iterdir():
            again = tmp_path / f"{folder} again" / file.name
            if file.name == "config.json":
                assert config_in(again) == config_in(file)
            else:
                assert again.read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1


PUSH_AND_PULL = """
import json
from pathlib import Path
import torch
from safetensors.torch import load_file
import lps_hf

def bits(tensors):
    return {name: [str(t.dtype), list(t.shape), t.reshape(-1).view(torch.uint8).tolist()] for name, t in tensors.items()}

seen = []
for number, (folder, kind) in enumerate(FOLDERS):
    written, repo, model_class = load_file(Path(folder) / "model.safetensors"), f"tester/bits-{number}", getattr(lps_hf, kind)
    options = {"max_shard_size": "3KB"} if number % 2 else {}
    model_class.from_pretrained(folder).push_to_hub(repo, **options)
    pulled = model_class.from_pretrained(repo)
    config = model_class.from_pretrained(folder).config.to_diff_dict() == pulled.config.to_diff_dict()
    seen.append([bits(pulled.state_dict()) == bits(written), config])
print(json.dumps(seen))
"""


def test_pushed_and_pulled(loopback_hub, tmp_path):
    folders = []
    for head in HEADS:
        for dtype in (torch.float32, torch.bfloat16):
            model = model_of(head, dtype)
            folders.append((str(tmp_path / f"{head} {dtype}"), type(model).__name__))
            model.save_pretrained(folders[-1][0])
    process = run_client(loopback_hub, tmp_path / "home", f"FOLDERS = {folders!r}\n{PUSH_AND_PULL}")
    assert json.loads(process.stdout.splitlines()[-1]) == [[True, True]] * len(folders)
    assert {kind for _, kind in folders} >= {name for name in lps_hf.__all__ if name.startswith("LPSFor")} | {LPSModel.__name__}
