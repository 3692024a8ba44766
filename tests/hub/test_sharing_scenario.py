"""The life of a checkpoint on a Hub: published, loaded elsewhere, fine-tuned on a shared data set, published again.

Author, stranger and tuner are machines with caches of their own, and every step is a process. The stranger does not have lps_hf.
The same pulls then go through olah, a mirror of the Hub that others wrote: `pip install olah`, in an environment of its own, and
`OLAH_CLI=…/bin/olah-cli pytest -m slow tests/hub/test_sharing_scenario.py`.
"""

import json
import os
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.limits import HANGS_AFTER
from tests.loopback_hub import run_client

PROJECT = str(Path(__file__).parents[2])
MODEL, GRAPHS = "tester/story", "tester/story-graphs"
OLAH_CLI = os.environ.get("OLAH_CLI") or shutil.which("olah-cli")

COMMON = f"""
import json
import sys
from pathlib import Path
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor

torch.set_num_threads(1)  # the same sums, in the same order, on every machine
given, model_id, data_id = Path("../given.pt"), {MODEL!r}, {GRAPHS!r}

def logits_of(model, processor):
    known = torch.load(given)
    batch = processor(known["rows"], return_tensors="pt")
    with torch.no_grad():
        return [model(**batch, **{{key: known[key]}}).logits.tolist() for key in ("noise", "group_elements")]
"""

AUTHOR = """
from datasets import Dataset, DatasetDict
from lps_hf.hub import publish
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import random_rows, tiny_classifier

model, rows = tiny_classifier(), random_rows(27)
processor = LPSProcessor.from_config(model.config)
batch = processor(rows[:3], return_tensors="pt")
noise = model.lps.draw_noise(model.lps.encode(**batch), 2)
torch.save({"rows": rows[:3], "noise": noise, "group_elements": model(**batch).group_elements}, given)
seen = {"logits": logits_of(model, processor)}
seen["commit"] = publish(model, processor, model_id, commit_message="First", tag="v1").oid
DatasetDict(train=Dataset.from_list(rows[3:]), test=Dataset.from_list(rows[:3])).push_to_hub(data_id)
print(json.dumps(seen))
"""

TUNER = """
from lps_hf import LPSTrainer, LPSTrainingArguments
from lps_hf.data.rows import load_dataset_for
from lps_hf.hub import publish
from lps_hf.hub.loading import load_checkpoint

model, processor = load_checkpoint(model_id)
splits = load_dataset_for("graph-classification", data_id)
seen = {"before": logits_of(model, processor), "rows": splits["test"].to_list() == torch.load(given)["rows"]}
arguments = LPSTrainingArguments(
    "run", max_steps=6, per_device_train_batch_size=8, learning_rate=3e-3, save_strategy="no", report_to="none", use_cpu=True
)
trainer = LPSTrainer(model, arguments, train_dataset=splits["train"], processing_class=processor)
losses = [trainer.evaluate(splits["train"])["eval_loss"]]
trainer.train()
losses.append(trainer.evaluate(splits["train"])["eval_loss"])
commit = publish(model.eval(), processor, model_id, commit_message="Fine-tune", datasets=[data_id]).oid
print(json.dumps(seen | {"losses": losses, "logits": logits_of(model, processor), "commit": commit}))
"""

WITHOUT_THE_PACKAGE = """
import sys
sys.modules["lps_hf"] = None
room, options = "transformers_modules", {"trust_remote_code": True}
"""
WITH_THE_PACKAGE = """
from lps_hf.hub import fetch
room, options = "lps_hf", {}
"""

# Loads these revisions by the Auto classes.
READER = """
def load(auto_class, revision):
    loaded = auto_class.from_pretrained(model_id, revision=revision, **options)
    assert type(loaded).__module__.split(".")[0] == room, type(loaded)
    return loaded

seen = {"logits": []}
for name in REVISIONS:
    seen["logits"].append(logits_of(*(load(auto, name) for auto in (AutoModelForSequenceClassification, AutoProcessor))))
assert room == "lps_hf" or not [name for name in sys.modules if name.startswith("lps_hf.")]
"""


def seen_by(process):
    return json.loads(process.stdout.splitlines()[-1])


def read(hub, home, package, revisions, more="", **variables):
    """What the machine whose caches are in `home` sees of these revisions."""
    code = f"{package}\nREVISIONS = {revisions!r}\n{COMMON}{READER}{more}\nprint(json.dumps(seen))"
    return seen_by(run_client(hub, home, code, token="", **variables))


@pytest.fixture(scope="module")
def story(loopback_hub, tmp_path_factory):
    """What each machine saw, in turn."""
    homes = tmp_path_factory.mktemp("machines")
    author = seen_by(run_client(loopback_hub, homes / "author", COMMON + AUTHOR, PYTHONPATH=PROJECT))
    first_look = read(loopback_hub, homes / "stranger", WITHOUT_THE_PACKAGE, ["main"])
    tuner = seen_by(run_client(loopback_hub, homes / "tuner", COMMON + TUNER))
    revisions = [author["commit"], "v1", tuner["commit"], "main"]
    with ThreadPoolExecutor(2) as pool:
        readers = {"stranger": WITHOUT_THE_PACKAGE, "author": WITH_THE_PACKAGE}
        later = pool.map(lambda name: read(loopback_hub, homes / name, readers[name], revisions), readers)
        later = dict(zip(readers, later, strict=True))
    return SimpleNamespace(homes=homes, author=author, first_look=first_look, tuner=tuner, revisions=revisions, later=later)


def test_a_stranger_without_the_package_gets_the_logits_of_the_author(story):
    assert story.first_look["logits"] == [story.author["logits"]]


def test_the_published_model_is_fine_tuned_on_the_published_rows(story):
    assert story.tuner["before"] == story.author["logits"]
    assert story.tuner["rows"] is True
    before, after = story.tuner["losses"]
    assert after < 0.98 * before
    for tuned, published in zip(story.tuner["logits"], story.author["logits"], strict=True):
        assert (torch.tensor(tuned) - torch.tensor(published)).abs().max() > 1e-2


@pytest.mark.parametrize("machine", ["stranger", "author"])
def test_old_and_new_state_stay_apart(story, machine):
    old, new = story.author["logits"], story.tuner["logits"]
    assert story.later[machine]["logits"] == [old, old, new, new], "by hash, by tag, by hash, by branch"


def test_each_state_is_one_commit(story, loopback_hub):
    repo = loopback_hub.repos["models", MODEL]
    assert [commit.title for commit in repo.find("main").history()] == ["Fine-tune", "First", "initial commit"]
    old, new = (repo.find(name).files for name in ("v1", "main"))
    changed = {name for name in new if name not in old or new[name].oid != old[name].oid}
    assert {"README.md", "model.safetensors"} <= changed
    assert not [name for name in changed if name.endswith(".py")], "the code is what it was"
    assert GRAPHS in new["README.md"].content.decode()


# What a machine pulls besides, file by file.
SNAPSHOTS = """
import hashlib
from datasets import load_dataset
from huggingface_hub import snapshot_download

def digests(name, **where):
    folder = Path(snapshot_download(name, **where))
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

seen["files"] = [digests(model_id, revision=name) for name in REVISIONS]
seen["files of the rows"] = digests(data_id, repo_type="dataset")
seen["rows"] = load_dataset(data_id)["test"].to_list() == torch.load(given)["rows"]
if room == "lps_hf":  # its own download, which checks every file against its hash
    assert all(fetch(model_id, revision=name) == Path(snapshot_download(model_id, revision=name)) for name in REVISIONS)
"""


@contextmanager
def mirror(hub, folder, is_offline=False):
    """olah in front of the Hub, its cache in `folder`; offline, the cache is all it has."""
    netloc, settings, log = hub.url.removeprefix("http://"), folder / "olah.toml", folder / "output.txt"
    settings.write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = 0\nrepos-path = "{folder / "cache"}"\nhf-scheme = "http"\n'
        f'hf-netloc = "{netloc}"\nhf-lfs-netloc = "{netloc}"\n[accessibility]\noffline = {json.dumps(is_offline)}\n'
    )
    with log.open("w") as output:
        process = subprocess.Popen(
            [OLAH_CLI, "--config", settings, "--log-path", folder / "logs"],
            env=hub.environment(folder, token=""),
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(int(HANGS_AFTER / 0.1)):
            started = re.search(r"running on (http://\S+)", log.read_text())
            if started or process.poll() is not None:
                break
            time.sleep(0.1)
        assert started, f"The mirror does not start.\n{log.read_text()}"
        yield started[1]
    finally:
        process.terminate()
        process.wait(HANGS_AFTER)


@pytest.mark.slow
@pytest.mark.skipif(OLAH_CLI is None, reason="needs olah-cli, of `pip install olah`: on the PATH, or named by OLAH_CLI")
@pytest.mark.parametrize("package", [WITHOUT_THE_PACKAGE, WITH_THE_PACKAGE], ids=["without lps_hf", "with lps_hf"])
def test_an_independent_mirror_passes_on_the_same(story, loopback_hub, tmp_path, package):
    commits = [loopback_hub.repos["models", MODEL].find(name) for name in story.revisions]
    expected = {
        "logits": story.later["author"]["logits"],
        "files": [{name: blob.sha256 for name, blob in commit.files.items()} for commit in commits],
        "files of the rows": {
            name: blob.sha256 for name, blob in loopback_hub.repos["datasets", GRAPHS].find("main").files.items()
        },
        "rows": True,
    }

    def pull(machine, url, states=(0, 1, 2, 3)):
        """What a machine with nothing in its caches sees through the mirror, and what the Hub is asked for meanwhile."""
        asked, home = len(loopback_hub.requests), story.homes / f"{tmp_path.name}-{machine}"
        revisions = [story.revisions[state] for state in states]
        seen = read(loopback_hub, home, package, revisions, SNAPSHOTS, HF_ENDPOINT=url)
        assert seen == expected | {key: [expected[key][state] for state in states] for key in ("logits", "files")}
        return [f"{method} {path}" for method, path, _ in loopback_hub.requests[asked:]]

    with mirror(loopback_hub, tmp_path) as url:
        # One machine for each state: who has a file of the same content already does not ask the mirror for it.
        requests = pull("old", url, states=(0, 1)) + pull("new", url, states=(2, 3))
        contents = [request for request in requests if re.match("GET .*/resolve/", request)]
        assert len(contents) == len(set(contents)) > 0, "the mirror fetches every file once"
        requests = pull("both", url)
        assert requests
        assert not [request for request in requests if re.match("GET .*/resolve/", request)], "and then has it"
    with mirror(loopback_hub, tmp_path, is_offline=True) as url:
        assert pull("offline", url) == [], "also without a Hub behind it"
