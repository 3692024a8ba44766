"""Models and data sets travel through a Hub: published, pulled, pulled without the package, and from the cache.

Every client is a process of its own, with the real libraries. The first one publishes, the others use what it left.
"""

import json
import socket
from types import SimpleNamespace

import pytest
import torch

from lps_hf.hub import save_checkpoint
from lps_hf.models.processing_lps import LPSProcessor
from tests.loopback_hub import run_client
from tests.tiny import random_rows, tiny_classifier

# What every client begins with; `FOLDERS`, `INPUTS` and `ROWS` come before it.
COMMON = """
import builtins
import json
import sys
import time
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor

torch.manual_seed(0)
torch.set_num_threads(1)  # the same sums, in the same order, as in the process that recorded the logits
inputs, repo, seen = torch.load(INPUTS), "tester/journey", {}

def logits(name=repo, auto_class=AutoModelForSequenceClassification, **options):
    model = auto_class.from_pretrained(name, **options)
    with torch.no_grad():
        return model(**inputs)[0].tolist()

def batch_of(name, **options):
    batch = AutoProcessor.from_pretrained(name, **options)(ROWS, return_tensors="pt")
    return all(torch.equal(batch[key], inputs[key]) for key in inputs if key != "noise")

def error_of(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return f"{'OSError' if isinstance(error, OSError) else type(error).__name__}: {error}"
"""

PUBLISH = """
from datasets import Dataset, DatasetDict
from huggingface_hub import HfApi
from lps_hf import AutoModelForGraphClassification, LPSTrainer, LPSTrainingArguments
from lps_hf.data.rows import load_dataset_for
from lps_hf.hub import publish

def pull(name=repo, **options):
    return AutoModelForSequenceClassification.from_pretrained(name, **options)

def arrived_at(name):
    return [logits(name), batch_of(name), api.list_repo_files(name)]

api, closed, graphs = HfApi(), "tester/journey-closed", "tester/journey-graphs"
models = [pull(folder) for folder in FOLDERS]
processor = AutoProcessor.from_pretrained(FOLDERS[0])

first = publish(models[0], processor, repo, commit_message="First").oid
api.create_tag(repo, tag="v1")
second = publish(models[1], processor, repo).oid
third = publish(models[2], processor, repo, revision="experiment").oid
seen["the same again"] = publish(models[1], processor, repo).oid == second
seen["commits"] = [commit.title for commit in api.list_repo_commits(repo)]
seen["commits of the branch"] = [commit.title for commit in api.list_repo_commits(repo, revision="experiment")]
seen["files"] = api.list_repo_files(repo)
seen["by revision"] = [logits(revision=name) for name in ("main", "v1", first, second, "experiment", third)]
seen["by class"] = [logits(auto_class=name) for name in (AutoModel, AutoModelForGraphClassification)]
weights, pulled = models[1].state_dict(), pull().state_dict()
seen["weights"] = weights.keys() == pulled.keys() and all(torch.equal(weights[key], pulled[key]) for key in weights)
seen["processor"] = batch_of(repo)

publish(models[0], processor, closed, private=True)
seen["private"] = [api.model_info(closed).private, api.model_info(repo).private, logits(closed)]
publish(models[0], processor, "guest/journey", token=GUEST)
seen["another token"] = logits("guest/journey")
seen["refused"] = {
    "publish with a wrong token": error_of(publish, models[0], processor, repo, token="hf_wrong"),
    "publish for somebody else": error_of(publish, models[0], processor, "guest/model"),
    "publish what cannot be shared": error_of(publish, torch.nn.Linear(1, 1), processor, "tester/never"),
    "publish under an impossible name": error_of(publish, models[0], processor, "tester/a b"),
    "pull with a wrong token": error_of(pull, closed, token="hf_wrong", cache_dir="fresh"),
    "pull as a stranger": error_of(pull, closed, token=GUEST, cache_dir="fresh"),
    "pull as nobody": error_of(pull, closed, token=False, cache_dir="fresh"),
    "processor for nobody": error_of(batch_of, closed, token=False, cache_dir="fresh"),
    "no such repository": error_of(pull, "tester/nothing"),
    "no such revision": error_of(pull, revision="v9"),
    "no such data set": error_of(load_dataset_for, "graph-classification", "tester/nothing"),
}
seen["made in vain"] = [api.repo_exists(name) for name in ("tester/never", "guest/model")]

models[0].push_to_hub("tester/journey-plain")
processor.push_to_hub("tester/journey-plain")
seen["plain push"] = arrived_at("tester/journey-plain")
arguments = LPSTrainingArguments("trained", hub_model_id="tester/journey-trained", report_to="none", use_cpu=True)
LPSTrainer(models[1], arguments, processing_class=processor).push_to_hub()
seen["Trainer's push"] = arrived_at("tester/journey-trained")

shards = models[0].push_to_hub("tester/journey-shards", max_shard_size="20KB").oid
publish(models[1], processor, "tester/journey-shards")
seen["over shards"] = [logits("tester/journey-shards"), logits("tester/journey-shards", revision=shards)]
seen["files over shards"] = [name for name in api.list_repo_files("tester/journey-shards") if "safetensors" in name]
seen["commits over shards"] = len(api.list_repo_commits("tester/journey-shards"))

rows = Dataset.from_list(ROWS)
DatasetDict(train=rows, test=rows.select([0])).push_to_hub(graphs)
old = api.dataset_info(graphs).sha
DatasetDict(train=rows.select([1]), test=rows.select([0])).push_to_hub(graphs)
rows.rename_column("y", "label").push_to_hub("tester/journey-renamed")
splits = load_dataset_for("graph-classification", graphs, revision=old)
seen["data set"] = [splits["train"].to_list() == ROWS, splits["test"].to_list() == ROWS[:1]]
seen["new data set"] = load_dataset_for("graph-classification", graphs)["train"].to_list() == ROWS[1:2]
seen["refused"]["a column is missing"] = error_of(load_dataset_for, "graph-classification", "tester/journey-renamed")
print(json.dumps(seen | {"first": first}))
"""


def seen_by(process):
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def journey(loopback_hub, tmp_path_factory):
    """Three checkpoints, their logits, and what the client that published them saw."""
    home = tmp_path_factory.mktemp("home")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    models, rows = [tiny_classifier(seed) for seed in range(3)], random_rows(3)
    processor = LPSProcessor.from_config(models[0].config)
    inputs = dict(processor(rows, return_tensors="pt"))
    del inputs["labels"]
    inputs["noise"] = models[0].lps.draw_noise(models[0].lps.encode(**inputs), 2)
    torch.save(inputs, home / "inputs.pt")
    with torch.no_grad():
        logits = [model(**inputs).logits.tolist() for model in models]
    torch.set_num_threads(threads)
    folders = [save_checkpoint(model, processor, home / f"checkpoint-{number}") for number, model in enumerate(models)]
    known = f"FOLDERS, INPUTS = {[str(folder) for folder in folders]!r}, {str(home / 'inputs.pt')!r}\n"
    known += f"ROWS, GUEST = {rows!r}, {loopback_hub.guest_token!r}\n{COMMON}"
    seen = seen_by(run_client(loopback_hub, home, known + PUBLISH))
    return SimpleNamespace(home=home, folders=folders, logits=logits, known=known, seen=seen)


def test_every_state_can_be_pulled_by_branch_tag_and_hash(journey):
    zero, one, two = journey.logits
    assert journey.seen["by revision"] == [one, zero, zero, one, two, two]
    assert journey.seen["by class"] == [one, one]
    assert journey.seen["weights"] is True
    assert journey.seen["processor"] is True


def test_a_publication_is_one_commit(journey, loopback_hub):
    assert journey.seen["commits"] == ["Upload symmetrized model", "First", "initial commit"]
    assert journey.seen["commits of the branch"] == ["Upload symmetrized model", *journey.seen["commits"]]
    assert journey.seen["the same again"] is True, "without a change there is no commit"
    sent = {path.name for path in journey.folders[0].iterdir()}
    assert set(journey.seen["files"]) - {".gitattributes"} == sent | {"README.md"}
    head = loopback_hub.repos["models", "tester/journey"].find("main")
    for name in sent - {"config.json"}:
        assert head.files[name].content == (journey.folders[1] / name).read_bytes()


def test_a_private_repository_is_for_its_owner(journey):
    assert journey.seen["private"] == [True, False, journey.logits[0]]
    assert journey.seen["another token"] == journey.logits[0]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("publish with a wrong token", "OSError", "the Hub wants to know who asks. The token that was sent is not valid"),
        ("publish for somebody else", "OSError", "the token may not do this; take one with write access there"),
        ("publish what cannot be shared", "ValueError", "model: expected one of LPSModel, LPSForGraphClassification"),
        ("publish under an impossible name", "HFValidationError", "'tester/a b'"),
        ("pull with a wrong token", "OSError", "Invalid credentials in Authorization header"),
        ("pull as a stranger", "OSError", "make sure to pass a token having permission"),
        ("pull as nobody", "OSError", "make sure to pass a token having permission"),
        ("processor for nobody", "OSError", "make sure to pass a token having permission"),
        ("no such repository", "OSError", "tester/nothing is not a local folder and is not a valid model identifier"),
        ("no such revision", "OSError", "v9 is not a valid git identifier"),
        ("no such data set", "OSError", "'tester/nothing' doesn't exist on the Hub"),
        ("a column is missing", "ValueError", "'y' is missing. Rename yours with dataset.rename_column"),
    ],
)
def test_what_is_refused_says_why(journey, what, error, message):
    said = journey.seen["refused"][what]
    assert said.startswith(f"{error}: ")
    assert message in said


def test_a_publication_that_fails_leaves_no_empty_repository(journey):
    assert journey.seen["made in vain"] == [False, False]


def test_a_plain_push_is_a_publication_and_so_is_that_of_the_trainer(journey):
    for number, push in enumerate(("plain push", "Trainer's push")):
        logits, processor, files = journey.seen[push]
        assert logits == journey.logits[number]
        assert processor is True
        assert {"config.json", "model.safetensors", "processor_config.json"} <= set(files)
        assert {"README.md", "modeling_heads_lps.py", "processing_lps.py", "pipeline_lps.py"} <= set(files)


def test_weights_in_shards_are_replaced(journey):
    assert journey.seen["over shards"] == [journey.logits[1], journey.logits[0]]
    assert journey.seen["files over shards"] == ["model.safetensors"]
    assert journey.seen["commits over shards"] == 3


def test_a_data_set_travels(journey):
    assert journey.seen["data set"] == [True, True]
    assert journey.seen["new data set"] is True


OFFLINE = """
from lps_hf.data.rows import load_dataset_for
from lps_hf.hub import publish

model, processor = AutoModelForSequenceClassification.from_pretrained(repo), AutoProcessor.from_pretrained(repo)
seen["by revision"] = [logits(revision=name) for name in ("main", "v1", FIRST, "experiment")]
seen["by class"] = logits(auto_class=AutoModel)
seen["processor"] = batch_of(repo)
seen["data set"] = load_dataset_for("graph-classification", "tester/journey-graphs")["train"].to_list() == ROWS[1:2]
seen["never seen"] = error_of(logits, "tester/unseen")
seen["data set never seen"] = error_of(load_dataset_for, "graph-classification", "tester/unseen")
seen["publish"] = error_of(publish, model, processor, repo)
print(json.dumps(seen))
"""


def test_the_cache_is_enough_without_a_network(journey, loopback_hub):
    asked = len(loopback_hub.requests)
    known = f"FIRST = {journey.seen['first']!r}\n{journey.known}"
    seen = seen_by(run_client(loopback_hub, journey.home, known + OFFLINE, offline=True))
    assert len(loopback_hub.requests) == asked
    zero, one, two = journey.logits
    assert seen["by revision"] == [one, zero, zero, two]
    assert seen["by class"] == one
    assert seen["processor"] is True
    assert seen["data set"] is True
    assert seen["never seen"].startswith("OSError: We couldn't connect to")
    assert seen["data set never seen"].startswith("OSError: Couldn't reach 'tester/unseen'")
    assert seen["publish"].startswith("OSError: tester/journey: offline mode is on. Unset HF_HUB_OFFLINE to ask")


UNREACHABLE = """
from lps_hf.data.rows import load_dataset_for
from lps_hf.hub import publish

waits = []
time.sleep = waits.append  # the client tries again, and waits longer each time
model, processor = (auto.from_pretrained(FOLDERS[0]) for auto in (AutoModelForSequenceClassification, AutoProcessor))
seen["from the cache"] = logits()
seen["nothing in the cache"] = error_of(logits, cache_dir="empty")
seen["class by name"] = error_of(logits, auto_class=type(model), cache_dir="empty")
seen["data set"] = error_of(load_dataset_for, "graph-classification", "tester/unseen")
seen["publish"] = error_of(publish, model, processor, repo)
print(json.dumps(seen))
"""


def test_a_hub_that_cannot_be_reached_gives_one_clear_error(journey, loopback_hub):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets the port
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        seen = seen_by(run_client(loopback_hub, journey.home, journey.known + UNREACHABLE, HF_ENDPOINT=url))
    assert seen["from the cache"] == journey.logits[1]
    for what in ("nothing in the cache", "class by name"):
        assert seen[what].startswith(f"OSError: We couldn't connect to '{url}' to load the files")
    assert seen["data set"].startswith("OSError: Couldn't reach 'tester/unseen'")
    assert seen["publish"].startswith(f"OSError: {url}: expected a Hub there, got no answer.")


WITHOUT_THE_PACKAGE = """
sys.modules["lps_hf"] = None
seen["import"] = [error_of(__import__, name) for name in ("lps_hf", "lps_hf.models.modeling_lps")]
builtins.input = lambda prompt: ""  # transformers asks before it runs code; nobody answers
auto_classes = (AutoModelForSequenceClassification, AutoModel, AutoConfig, AutoProcessor)
places = (FOLDERS[1], repo)
trusted = {"trust_remote_code": True}

seen["not trusted"] = [error_of(auto.from_pretrained, place) for place in places for auto in auto_classes]
loaded = [auto.from_pretrained(place, **trusted) for place in places for auto in auto_classes]
seen["classes"] = [[type(thing).__name__, type(thing).__module__.split(".")[0]] for thing in loaded]
seen["logits"] = [logits(place, auto, **trusted) for place in places for auto in auto_classes[:2]]
seen["older logits"] = logits(revision="v1", **trusted)
seen["of the Trainer"] = [logits("tester/journey-trained", **trusted), batch_of("tester/journey-trained", **trusted)]
seen["processor"] = [batch_of(place, **trusted) for place in places]
seen["fields"] = [[config.group, config.max_nodes, config.num_labels] for config in loaded[2::4]]

model, processor = loaded[4].train(), loaded[7]
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
loss = model(**processor(ROWS, return_tensors="pt")).loss
loss.backward()
optimizer.step()
seen["loss"] = loss.isfinite().item()
moved = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
seen["trained"] = sorted({name.rsplit(".", name.count(".") - 1)[0] for name in moved})
seen["without a gradient"] = [name for name, weight in model.named_parameters() if weight.grad is None]
model.eval().save_pretrained("trained")
processor.save_pretrained("trained")
with torch.no_grad():
    trained = model(**inputs).logits.tolist()
seen["saved again"] = [logits("trained", auto, **trusted) == trained for auto in auto_classes[:2]]
seen["saved processor"] = batch_of("trained", **trusted)
seen["of the package"] = [name for name in sys.modules if name.startswith("lps_hf.")]

del sys.modules["lps_hf"]  # as if it were installed now
import lps_hf
again = [auto.from_pretrained(repo, **options) for auto in auto_classes for options in ({}, trusted)]
seen["the package wins"] = [type(thing).__module__.split(".")[0] for thing in again]
seen["its logits"] = logits()
print(json.dumps(seen))
"""


def test_a_machine_without_the_package(journey, loopback_hub, tmp_path):
    seen = seen_by(run_client(loopback_hub, tmp_path, journey.known + WITHOUT_THE_PACKAGE, token=""))
    zero, one, _ = journey.logits
    assert all(error.startswith("ModuleNotFoundError: ") for error in seen["import"])
    assert len(seen["not trusted"]) == 8
    for error in seen["not trusted"]:
        assert error.startswith("ValueError: ")
        assert "contains custom code" in error
        assert "`trust_remote_code=True`" in error
    names = ["LPSForGraphClassification", "LPSModel", "LPSConfig", "LPSProcessor"]
    assert seen["classes"] == [[name, "transformers_modules"] for name in names * 2]
    assert seen["logits"] == [one] * 4
    assert seen["older logits"] == zero
    assert seen["of the Trainer"] == [one, True]
    assert seen["processor"] == [True, True]
    assert seen["fields"] == [["S_n", 8, 3]] * 2
    assert seen["loss"] is True
    assert seen["trained"] == ["lps.base", "lps.distribution"]
    assert seen["without a gradient"] == []
    assert seen["saved again"] == [True, True]
    assert seen["saved processor"] is True
    assert seen["of the package"] == []
    assert seen["the package wins"] == ["lps_hf"] * 8
    assert seen["its logits"] == one
