"""What is fetched: one commit, whole, and nothing that runs where it is read."""

from itertools import count

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi

from lps_hf.hub import fetch, publish
from lps_hf.hub.loading import load_checkpoint
from tests.loopback_hub import Fault
from tests.tiny import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
_numbers = count()


@pytest.fixture
def published(hub, processor):
    """A repository of three commits, and their hashes."""
    repo = f"tester/fetched-{next(_numbers)}"
    first = publish(tiny_classifier(0), processor, repo, tag="v1").oid
    second = publish(tiny_classifier(1), processor, repo).oid
    third = publish(tiny_classifier(2), processor, repo, revision="trial").oid
    return repo, first, second, third


def weights_at(hub, repo, revision):
    return hub.repos["models", repo].find(revision).files["model.safetensors"].content


def test_every_revision_is_fetched_as_the_commit_it_means(hub, published):
    repo, first, second, third = published
    for revision, commit in ((None, second), ("main", second), ("v1", first), (first, first), ("trial", third)):
        folder = fetch(repo, revision=revision)
        assert folder.name == commit
        assert (folder / "model.safetensors").read_bytes() == weights_at(hub, repo, commit)
    model, _ = load_checkpoint(folder)
    assert type(model).__name__ == "LPSForGraphClassification"


def test_what_is_in_the_cache_is_not_asked_for_again(hub, published):
    repo, first, *_ = published
    folder = fetch(repo, revision="v1")
    asked = len(hub.requests)
    assert fetch(repo, revision=first) == folder
    assert len(hub.requests) == asked
    fetch(repo, revision="v1")
    assert [path for _, path, _ in hub.requests[asked:]] == [f"/api/models/{repo}/revision/v1"]


def test_only_files_of_known_kinds_come(hub, published):
    repo, *_ = published
    strays = ("optimizer.pt", "training_args.bin", "run.sh", "last-checkpoint/model.safetensors", "picture.png")
    for name in strays:
        HfApi().upload_file(path_or_fileobj=b"stray", path_in_repo=name, repo_id=repo)
    names = {path.name for path in fetch(repo).iterdir()}
    assert {"model.safetensors", "config.json", "modeling_lps.py", "README.md", "picture.png"} <= names
    assert not names & {"optimizer.pt", "training_args.bin", "run.sh", "last-checkpoint"}


def test_pickled_weights_are_refused(hub):
    repo = "tester/pickled"
    HfApi().create_repo(repo)
    for name in ("config.json", "pytorch_model.bin"):
        HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo=name, repo_id=repo)
    with pytest.raises(ValueError, match="tester/pickled: expected weights as safetensors, found pytorch_model.bin"):
        fetch(repo)


def test_a_file_that_arrives_damaged_is_fetched_again(hub, published):
    repo, *_ = published
    for name in ("model.safetensors", "groups.py"):
        hub.inject(Fault(f"GET .*{repo}/resolve/.*{name}", corrupt=True))
    folder = fetch(repo)
    head = hub.repos["models", repo].find("main")
    for path in folder.iterdir():
        assert path.read_bytes() == head.files[path.name].content


def test_a_file_that_arrives_damaged_twice_is_not_kept(hub, published, tmp_path):
    repo, *_ = published
    hub.inject(Fault(f"GET .*{repo}/resolve/.*/model.safetensors", times=2, corrupt=True))
    with pytest.raises(OSError, match=f"{repo}: model.safetensors arrived damaged twice. Nothing of it was kept"):
        fetch(repo)
    assert not list(tmp_path.glob("cache/**/model.safetensors"))
    kept = [path.read_bytes() for path in tmp_path.glob("cache/*/blobs/*")]
    assert weights_at(hub, repo, "main")[:-1] not in [content[:-1] for content in kept]
    assert (fetch(repo) / "model.safetensors").read_bytes() == weights_at(hub, repo, "main")


def test_without_a_network_the_cache_is_enough(hub, published, monkeypatch):
    repo, first, *_ = published
    folders = [fetch(repo), fetch(repo, revision="v1")]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert [fetch(repo), fetch(repo, revision="v1")] == folders
    assert fetch(repo, revision=first) == folders[1]
    for revision in ("trial", "v9"):
        with pytest.raises(
            ConnectionError, match=f"{repo}: offline mode is on, and it is not in the cache. Unset HF_HUB_OFFLINE"
        ):
            fetch(repo, revision=revision)
    assert len(hub.requests) == asked
