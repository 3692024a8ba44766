"""Every block of code in README runs as it is written, against a Hub whose models and data sets are small doubles.

The two blocks of set-up commands (sh) install the package and are run by CI in a fresh environment.
"""

import json
import os
import re
import runpy
import sys
from base64 import b64encode
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from tests.hub.published_checkpoints import lightning_checkpoint, pattern_tensors
from tests.loopback_hub import LoopbackHub, run_client
from tests.tiny import random_rows

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
# What the blocks run in: those that make no model of their own go on with the first one's.
CLIENT = """
import json
import runpy
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
import numpy as np
import torch
from lps_hf import cli

warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)  # of PEFT
warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # of PyTorch's exporter

torch.set_num_threads(1)
image = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
names = {"image": image}
for kind, block in json.loads(Path("blocks.json").read_text()):
    print("---", kind, block, sep="\\n", flush=True)
    if kind == "python":
        own = {**names, "rows": [names.get("row")] * 3}
        exec(compile(block, "README", "exec"), own)
        if "model" not in names or "model =" not in block:
            names = own
        continue
    for line in block.replace("\\\\\\n", "").splitlines():
        command, *arguments = shlex.split(line, comments=True)
        if command == "lps-hf":
            assert cli.main(arguments) == 0, line
        elif command == "python":
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            subprocess.run(line, shell=True, check=True)
"""


def put(hub: LoopbackHub, kind: str, name: str, folder: Path) -> None:
    """Put a folder into a repository of the Hub, whoever owns it."""
    owner = name.split("/")[0]
    hub.create(kind, name, owner, {})
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    lines = [{"value": {"summary": "double"}}]
    for file in files:
        content = b64encode(file.read_bytes()).decode()
        lines.append({"key": "file", "value": {"path": str(file.relative_to(folder)), "content": content}})
    hub.repos[kind, name].commit("main", lines, owner, {})


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doubles")
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(**SMALL, image_size=56, patch_size=14)).save_pretrained(folder / "dino")
    ViTForImageClassification(ViTConfig(**SMALL, image_size=32, patch_size=8, num_labels=3)).save_pretrained(folder / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")
    rows = [{**row, "node_feat": [[kind] for kind, _ in row["node_feat"]]} for row in random_rows(40, num_labels=2)]
    (folder / "mutag").mkdir()
    Dataset.from_list(rows).to_parquet(folder / "mutag" / "train-00000-of-00001.parquet")
    with LoopbackHub() as hub:
        hub.users[hub.token] = "me"
        put(hub, "models", "facebook/dinov2-small", folder / "dino")
        put(hub, "models", "google/vit-base-patch16-224", folder / "vit")
        put(hub, "datasets", "graphs-datasets/MUTAG", folder / "mutag")
        yield hub


def test_every_block_runs_as_written(hub, tmp_path):
    for package in ("rdkit", "peft", "onnxscript"):
        pytest.importorskip(package)
    blocks = [(kind, block) for kind, block in BLOCKS if kind != "sh"]
    assert {kind for kind, _ in blocks} == {"bash", "python"}
    (tmp_path / "blocks.json").write_text(json.dumps(blocks))
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    lightning_checkpoint(tmp_path / "best.ckpt", pattern_tensors())
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = run_client(hub, tmp_path, CLIENT, PATH=path)
    assert "verified" in done.stdout


def test_there_are_two_set_up_commands_and_ci_runs_them():
    (first, second) = [block for kind, block in BLOCKS if kind == "sh"]
    assert "lps-hf quickstart" in first
    assert "make test" in second
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_every_script_and_file_that_is_named_exists():
    named = set(re.findall(r"(?:scripts|tests|lps_hf|model_cards)/[\w/]+\.\w+", README))
    named |= {f"scripts/recipes/{name}" for name in re.findall(r"`(\w+\.yaml)`", README)}
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`((?:python scripts/\w+\.py|lps-hf \w+)[^`]*)`", README))))
def test_commands_in_the_text_have_options_that_exist(command, monkeypatch, capsys):
    """Experiments and benchmarks take minutes to hours; their tests run them with small settings."""
    program, name, *arguments = command.split()
    options = [argument for argument in arguments if argument.startswith("--")]
    if program == "lps-hf":
        from lps_hf.cli.main import make_parser

        (commands,) = (action for action in make_parser()._actions if action.dest == "command")
        known = commands.choices[name].format_help()
    elif options:
        monkeypatch.setattr("sys.argv", [name, "--help"])
        monkeypatch.syspath_prepend((ROOT / name).parent)
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / name), run_name="__main__")
        known = capsys.readouterr().out
    assert all(option in known for option in options)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("random 3-regular", "regular"),
        ("the quickstart's model", "quickstart"),
        ("NCI1 |", "nci1"),
        ("untrained, NCI1", "untrained"),
    ],
)
def test_the_coverage_of_error_bars_is_that_of_the_result_files(row, name):
    found = json.loads((ROOT / "scripts" / "recipes" / "results" / f"error_bars_{name}.json").read_text(encoding="utf-8"))["rows"]
    cells = []
    for count in ("10", "20", "50"):
        own, alone = (100 * found[count][key]["mean"] for key in ("coverage", "coverage_of_1.96_errors"))
        cells.append(f"{own:.1f} % ({alone:.1f})")
    auto = found["auto 0.02"]
    cells.append(f"{100 * auto['coverage']['mean']:.1f} %, {auto['mean_samples']:.1f} samples")
    (line,) = (line for line in README.splitlines() if line.startswith(f"| {row}") and "samples |" in line)
    assert line.split(" | ")[1:] == [*cells[:-1], f"{cells[-1]} |"]
