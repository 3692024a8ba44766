"""What is published: one commit with all that a model needs, whoever else pushes meanwhile."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from huggingface_hub import HfApi, ModelCard

from lps_hf.hub import PublishPlan, publish, publish_folder, save_checkpoint
from lps_hf.hub.model_card import PLACEHOLDER
from tests.loopback_hub import Fault
from tests.tiny import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
RESULTS = {"task": "graph-classification", "metric": "accuracy", "test": {"accuracy": 0.75}, "num_test": 20}
_numbers = count()


@pytest.fixture
def repo():
    return f"tester/published-{next(_numbers)}"


def files_at(hub, repo, revision="main"):
    """Content by name of what is there, but for what every repository has."""
    files = hub.repos["models", repo].find(revision).files
    return {name: blob.content for name, blob in files.items() if name != ".gitattributes"}


def titles(hub, repo, revision="main"):
    return [commit.title for commit in hub.repos["models", repo].find(revision).history()]


def contents_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# What goes up


def test_a_publication_holds_the_checkpoint_its_card_and_its_results(hub, model, processor, repo, tmp_path):
    commit = publish(model, processor, repo, results=RESULTS, license="mit", tags=["tiny"], datasets=["me/graphs"])
    sent = files_at(hub, repo)
    checkpoint = contents_of(save_checkpoint(model, processor, tmp_path / "checkpoint"))
    assert {name: sent[name] for name in checkpoint} == checkpoint
    assert sent.keys() - checkpoint.keys() == {"README.md", "results.json"}
    assert json.loads(sent["results.json"]) == RESULTS
    card = ModelCard(sent["README.md"].decode())
    assert card.data.license == "mit"
    assert card.data.datasets == ["me/graphs"]
    assert "tiny" in card.data.tags
    assert f'from_pretrained("{repo}"' in card.text
    assert titles(hub, repo) == ["Upload symmetrized model", "initial commit"]
    assert hub.repos["models", repo].find("main").oid == commit.oid
    assert not hub.repos["models", repo].private


def test_the_figure_goes_up_where_there_is_something_to_draw(hub, model, processor, repo):
    pytest.importorskip("matplotlib")
    points = [{"num_samples": number, "metric": 0.5 + 0.01 * number, "metric_deviation": 0.1} for number in (1, 2, 4)]
    publish(model, processor, repo, results={**RESULTS, "samples": points})
    sent = files_at(hub, repo)
    assert sent["samples.png"].startswith(b"\x89PNG")
    assert "(samples.png)" in sent["README.md"].decode()


def test_the_same_again_is_no_commit(hub, model, processor, repo):
    first, second = (publish(model, processor, repo, results=RESULTS) for _ in range(2))
    assert first.oid == second.oid
    assert len(titles(hub, repo)) == 2


def test_the_card_may_be_ones_own(hub, model, processor, repo):
    publish(
        model, processor, repo, results=RESULTS, card="---\ntags:\n- mine\n---\n# Mine\n", tags=["tiny", "mine"], license="mit"
    )
    card = ModelCard(files_at(hub, repo)["README.md"].decode())
    assert card.text == "# Mine\n"
    assert card.data.to_dict() == {"tags": ["mine", "tiny"], "license": "mit"}


def test_figures_of_other_weights_do_not_stay_and_other_files_do(hub, processor, repo):
    publish(tiny_classifier(0), processor, repo, results=RESULTS)
    for name in ("samples.png", "notes.txt", "model-00001-of-00002.safetensors"):
        HfApi().upload_file(path_or_fileobj=b"by hand", path_in_repo=name, repo_id=repo)
    publish(tiny_classifier(1), processor, repo)
    names = files_at(hub, repo).keys()
    assert "notes.txt" in names
    assert not names & {"results.json", "samples.png", "model-00001-of-00002.safetensors"}
    assert len(titles(hub, repo)) == 6


def test_a_name_without_an_owner_is_the_users(hub, model, processor):
    publish(model, processor, "published-nameless")
    card = files_at(hub, "tester/published-nameless")["README.md"].decode()
    assert 'from_pretrained("tester/published-nameless"' in card


def test_private_tagged_and_on_a_branch(hub, model, processor, repo):
    commit = publish(model, processor, repo, private=True, revision="trial", tag="v1", commit_message="Try")
    stored = hub.repos["models", repo]
    assert stored.private
    assert stored.find("v1") is stored.find("trial")
    assert stored.find("trial").oid == commit.oid
    assert (titles(hub, repo), titles(hub, repo, "trial")) == (["initial commit"], ["Try", "initial commit"])
    with pytest.raises(FileExistsError, match=f"tag: {repo} has 'v1' already"):
        publish(tiny_classifier(1), processor, repo, tag="v1")
    assert titles(hub, repo) == ["initial commit"]


def test_a_pull_request_leaves_the_branch_alone(hub, model, processor, repo):
    publish(tiny_classifier(1), processor, repo)
    before = files_at(hub, repo)
    commit = publish(model, processor, repo, create_pr=True, token=hub.guest_token)
    assert commit.pr_revision == "refs/pr/1"
    assert commit.pr_url == f"{hub.url}/{repo}/discussions/1"
    assert files_at(hub, repo) == before
    proposed = files_at(hub, repo, "refs/pr/1")
    assert proposed.keys() == before.keys()
    assert proposed["model.safetensors"] != before["model.safetensors"]
    publish(tiny_classifier(2), processor, repo, revision="refs/pr/1")
    assert len(titles(hub, repo, "refs/pr/1")) == 4
    assert files_at(hub, repo) == before


def test_a_dry_run_asks_nobody(hub, model, processor, tmp_path):
    asked, folder = len(hub.requests), save_checkpoint(model, processor, tmp_path / "checkpoint", results=RESULTS)
    plan = publish(model, processor, "tester/never", results=RESULTS, private=True, tag="v1", dry_run=True)
    plans = [plan, publish_folder(folder, "tester/never", revision="trial", dry_run=True)]
    assert len(hub.requests) == asked
    for plan in plans:
        assert isinstance(plan, PublishPlan)
        assert plan.files.keys() == contents_of(folder).keys()
        assert plan.size == sum(plan.files.values())
        assert json.loads(json.dumps(plan.to_dict()))["files"] == plan.files
        for name, size in plan.files.items():
            assert f"{size:,}  {name}\n" in str(plan)
            if name != "README.md":
                assert size == (folder / name).stat().st_size
    assert "branch main of tester/never (private, if it is new)" in str(plans[0])
    assert "Tag: v1" in str(plans[0])
    assert "branch trial of tester/never" in str(plans[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repo_id": "tester/a b"}, "'tester/a b'"),
        ({"create_pr": True, "revision": "trial"}, "revision: a pull request is opened against the main branch, got 'trial'"),
        ({"create_pr": True, "tag": "v1"}, "tag: expected none with create_pr, got 'v1'"),
        ({"revision": "0" * 40}, "revision: expected a branch, got the commit 0000"),
    ],
)
def test_options_that_exclude_each_other(hub, model, processor, options, message):
    asked = len(hub.requests)
    with pytest.raises(ValueError, match=message):
        publish(model, processor, **{"repo_id": "tester/never", **options})
    assert len(hub.requests) == asked


# Folders


@pytest.fixture
def folder(model, processor, tmp_path):
    return save_checkpoint(model, processor, tmp_path / "checkpoint", results=RESULTS)


def test_only_the_checkpoint_leaves_a_folder(hub, folder, repo):
    sent = contents_of(folder)
    sent["README.md"] = sent["README.md"].replace(PLACEHOLDER.encode(), repo.encode())  # how to load it from where it is now
    for name in ("optimizer.pt", "training_args.bin", "train.py", "notes.txt", "more.png", "model-00001-of-00002.safetensors"):
        (folder / name).write_bytes(b"private")
    for name in ("checkpoint-10", "scratch", "runs"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(b"private")
    publish_folder(str(folder), repo)
    assert files_at(hub, repo) == sent


def test_a_card_in_the_folder_goes_up_with_its_pictures(hub, folder, repo):
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n![curve](./curve.png) ![all](https://a.b/c.png)\n")
    (folder / "curve.png").write_bytes(b"a picture")
    publish_folder(folder, repo, base_model="me/vit")
    sent = files_at(hub, repo)
    assert sent["curve.png"] == b"a picture"
    card = ModelCard(sent["README.md"].decode())
    assert card.data.to_dict() == {"license": "mit", "base_model": "me/vit"}
    assert card.text.startswith("# Mine\n")
    assert "base_model" not in (folder / "README.md").read_text()


def test_a_folder_without_a_card_gets_one(hub, folder, repo):
    (folder / "README.md").unlink()
    publish_folder(folder, repo, license="mit")
    card = ModelCard(files_at(hub, repo)["README.md"].decode())
    assert card.data.license == "mit"
    assert "0.75" in card.text
    assert not (folder / "README.md").exists()


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def plainly_saved(folder):
    for name in ("config.json", "processor_config.json"):
        settings = json.loads((folder / name).read_text())
        del settings["auto_map"]
        (folder / name).write_text(json.dumps(settings))


def rewritten(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def named(reference):
    def change(folder):
        settings = json.loads((folder / "config.json").read_text())
        settings["auto_map"]["AutoModel"] = reference
        (folder / "config.json").write_text(json.dumps(settings))

    return change


def sharded(index):
    def change(folder):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("config.json"), "expected a checkpoint with config.json, found no such file"),
        (without("config.json", "processor_config.json"), "with config.json and processor_config.json, found"),
        (without("model.safetensors"), "expected a checkpoint with model.safetensors, found none"),
        (without("projections.py", "groups.py"), "does not carry the code that loads it: it lacks groups.py, projections.py"),
        (named("/etc/secret.Model"), "expected code that lies beside the settings, got '/etc/secret.py'"),
        (named("../secret.Model"), "expected code that lies beside the settings"),
        (rewritten("groups.py", b"from ./../../secret import x"), "beside the settings, got '/../../secret.py'"),
        (sharded({}), "holds a model.safetensors.index.json that names no weights"),
        (sharded({"weight_map": {"a": "../../secret.safetensors"}}), "is no name of weights"),
        (plainly_saved, "does not carry the code that loads it: its settings name none. .*save_checkpoint"),
        (rewritten("config.json", b"{"), "holds settings that cannot be read"),
        (rewritten("model.safetensors", b"no weights"), "holds weights that cannot be read, model.safetensors"),
    ],
)
def test_a_folder_that_is_no_checkpoint(hub, folder, change, message):
    change(folder)
    asked = len(hub.requests)
    with pytest.raises(ValueError, match=message):
        publish_folder(folder, "tester/never")
    assert len(hub.requests) == asked


def test_a_folder_that_is_not_there(hub, tmp_path):
    with pytest.raises(ValueError, match="expected a checkpoint folder, found none at"):
        publish_folder(tmp_path / "nothing", "tester/never")


# Who else pushes meanwhile


def whole(hub, repo, processor, folder, models):
    """Which of the models is there as a whole; `None` if it is a mixture."""
    there = files_at(hub, repo)
    for number, model in enumerate(models):
        own = contents_of(save_checkpoint(model, processor, folder / str(number)))
        if {name: there[name] for name in own} == own:
            return number
    return None


def test_a_push_that_another_one_overtakes_is_made_again(hub, processor, repo, tmp_path):
    # The first model has the settings that are there already, so that only its weights are sent; the second has other settings.
    models = [tiny_classifier(1), tiny_classifier(2, temperature=0.5)]
    publish(tiny_classifier(0), processor, repo)
    overtaken = threading.Event()
    hub.inject(Fault(f"POST .*{repo}/commit/", until=overtaken))
    start = len(hub.requests)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(publish, models[0], processor, repo, commit_message="Slow")
        while hub.faults and not slow.done():  # until the first is about to be committed
            time.sleep(0.01)
        fast = publish(models[1], processor, repo, commit_message="Fast")
        assert hub.repos["models", repo].find("main").oid == fast.oid
        overtaken.set()
        assert slow.result().oid == hub.repos["models", repo].find("main").oid
    assert whole(hub, repo, processor, tmp_path, models) == 0
    assert titles(hub, repo)[:2] == ["Slow", "Fast"]
    statuses = [status for _, path, status in hub.requests[start:] if f"{repo}/commit/" in path]
    assert statuses == [200, 412, 200]


def test_pushes_at_once_all_arrive_and_the_last_is_whole(hub, processor, repo, tmp_path):
    models = [tiny_classifier(seed, temperature=0.1 * (seed + 1)) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        pushes = [pool.submit(publish, model, processor, repo, commit_message=str(number)) for number, model in enumerate(models)]
        oids = {push.result().oid for push in pushes}
    assert len(oids) == 4
    assert sorted(titles(hub, repo)) == ["0", "1", "2", "3", "initial commit"]
    last = int(titles(hub, repo)[0])
    assert whole(hub, repo, processor, tmp_path, models) == last
