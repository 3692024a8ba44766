"""What goes wrong between here and the Hub: success after another try or one clear sentence, and nothing half-written."""

import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, product

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi

from lps_hf.hub import fetch, publish_folder, save_checkpoint
from lps_hf.hub.publishing import checkpoint_files
from lps_hf.models.processing_lps import LPSProcessor
from tests.limits import HANGS_AFTER
from tests.loopback_hub import Fault, run_client
from tests.tiny import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
RESULTS = {"task": "graph-classification", "metric": "accuracy", "test": {"accuracy": 0.75}}
_numbers = count()


@pytest.fixture
def repo(hub):
    """A repository that holds files already."""
    repo = f"tester/frail-{next(_numbers)}"
    hub.create("models", repo, "tester", {})
    old = {"path": "config.json", "content": b64encode(b"{}").decode()}
    lines = [{"key": "header", "value": {"summary": "Old"}}, {"key": "file", "value": old}]
    hub.repos["models", repo].commit("main", lines, "tester", {})
    hub.objects.clear()  # so that weights have to be sent again
    yield repo
    hub.faults.clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with its card."""
    model = tiny_classifier()
    processor = LPSProcessor.from_config(model.config)
    return save_checkpoint(model, processor, tmp_path_factory.mktemp("faults") / "checkpoint", results=RESULTS)


def head_of(hub, repo):
    return hub.repos["models", repo].find("main")


def is_whole(hub, repo, folder):
    """Whether the branch holds this checkpoint and nothing of another one."""
    files = head_of(hub, repo).files
    return all(files[file.name].content == file.read_bytes() for file in folder.iterdir() if file.name != "README.md")


# Pushes

REQUESTS = {
    "repository": r"POST /api/repos/create",
    "state": r"GET /api/models/{repo}(/revision/main)?$",
    "card": r"POST /api/validate-yaml",
    "comparison": r"POST /api/models/{repo}/preupload/",
    "batch": r"POST /{repo}\.git/info/lfs/objects/batch",
    "upload": r"PUT /lfs/",
    "verification": r"POST .*{repo}\.git/info/lfs/objects/verify",
    "commit": r"POST /api/models/{repo}/commit/",
}
PASSING = {
    "500": {"status": 500},
    "429": {"status": 429, "headers": {"Retry-After": "7"}},
    "cut": {"cut_after": 1},
    "slow": {"drip": 0.2},
}


@pytest.mark.parametrize(
    ("request_name", "fault"),
    [
        *zip(REQUESTS, ["cut", "500"] * 4, strict=True),
        ("upload", "429"),
        ("upload", "slow"),
        *product(["commit"], ("cut", "429", "slow")),
    ],
)
def test_a_push_gets_over_what_passes(hub, repo, folder, waits, request_name, fault):
    hub.inject(Fault(REQUESTS[request_name].format(repo=repo), **PASSING[fault]))
    commit = publish_folder(folder, repo)
    assert not hub.faults
    assert commit.oid == head_of(hub, repo).oid
    assert is_whole(hub, repo, folder)
    assert [one.title for one in head_of(hub, repo).history()] == ["Upload symmetrized model", "Old", "initial commit"]
    assert (min(waits, default=0) >= 7) == (fault == "429")
    assert bool(waits) != (fault == "slow")


LASTING = [
    ("repository", {"status": 500}, ConnectionError, "out of order"),
    ("batch", {"status": 413}, OSError, "there is no room for this on the Hub. It says: Injected fault"),
    ("batch", {"status": 500}, ConnectionError, r"http://\S+ is out of order \(HTTP 500\)\. Try again later"),
    ("batch", {"cut_after": 1}, ConnectionError, "expected a Hub there, got no answer"),
    ("upload", {"status": 403}, PermissionError, "the token may not do this; take one with write access there"),
    ("commit", {"status": 402}, OSError, "there is no room for this on the Hub"),
    ("commit", {"status": 409}, OSError, r"the Hub refused \(HTTP 409\)"),
    ("commit", {"status": 412}, OSError, "others kept committing at the same time"),
    ("commit", {"status": 429}, ConnectionError, r"asks for fewer requests \(HTTP 429\)"),
    ("commit", {"status": 429, "headers": {"Retry-After": "3600"}}, ConnectionError, "asks for fewer requests"),
    ("commit", {"status": 503}, ConnectionError, r"out of order \(HTTP 503\)"),
]


@pytest.mark.parametrize(("request_name", "fault", "error", "message"), LASTING)
def test_a_push_that_fails_says_why_and_changes_nothing(hub, repo, folder, waits, request_name, fault, error, message):
    before = head_of(hub, repo)
    hub.inject(Fault(REQUESTS[request_name].format(repo=repo), times=1000, **fault))
    with pytest.raises(error, match=message) as raised:
        publish_folder(folder, repo)
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is not None
    assert sum(waits) < 120
    assert head_of(hub, repo) is before
    hub.faults.clear()
    publish_folder(folder, repo)
    assert is_whole(hub, repo, folder)


def test_a_pull_request_whose_answer_is_lost_is_not_opened_twice(hub, repo, folder, waits):
    hub.inject(Fault(REQUESTS["commit"].format(repo=repo), cut_after=1))
    with pytest.raises(ConnectionError, match="got no answer"):
        publish_folder(folder, repo, create_pr=True)
    assert [ref for ref in hub.repos["models", repo].refs if ref.startswith("pr/")] == ["pr/1"]
    assert not waits


def test_a_push_that_is_stopped_leaves_the_branch_as_it_was(hub, repo, folder, monkeypatch):
    before = head_of(hub, repo)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub._commit_api._send_commit", stop)
        with pytest.raises(KeyboardInterrupt):
            publish_folder(folder, repo)
    assert head_of(hub, repo) is before
    publish_folder(folder, repo)
    assert is_whole(hub, repo, folder)


def test_a_full_quota(hub, repo, folder):
    before = head_of(hub, repo)
    hub.room = 10_000
    try:
        with pytest.raises(OSError, match="there is no room for this .* It says: Private repository storage limit reached"):
            publish_folder(folder, repo)
    finally:
        hub.room = None
    assert head_of(hub, repo) is before


# Who may do what


@pytest.mark.parametrize(
    ("do", "token", "error", "message"),
    [
        ("push", "guest", PermissionError, "the token may not do this"),
        ("push", "wrong", PermissionError, "the Hub wants to know who asks. The token that was sent is not valid there"),
        ("push", "none", PermissionError, "the Hub wants to know who asks. No token was sent: give token=, set HF_TOKEN"),
        ("propose", "none", PermissionError, "No token was sent"),
        ("propose to nothing", "own", FileNotFoundError, "there is no such repository at http://.* or it is private"),
        (
            "fetch nothing",
            "own",
            FileNotFoundError,
            "there is no such repository at .* or it is private. The token that was",
        ),
        ("fetch nothing", "none", FileNotFoundError, "there is no such repository .* or it is private. No token was sent"),
        ("fetch private", "guest", FileNotFoundError, "there is no such repository .* may not see it"),
        ("fetch gated", "guest", PermissionError, r"tester/\S+ is gated: ask for access at http://"),
        ("fetch gated", "none", PermissionError, r"tester/\S+ is gated"),
        ("fetch gated", "wrong", PermissionError, "The token that was sent is not valid there"),
        ("fetch v9", "own", FileNotFoundError, "revision: .* has no branch, tag or commit 'v9'"),
        ("fetch hash", "own", FileNotFoundError, "revision: .* has no branch, tag or commit '0123456789"),
    ],
)
def test_who_may_not_is_told_why(hub, repo, folder, waits, tmp_path, do, token, error, message):
    token = {"guest": hub.guest_token, "wrong": "hf_wrong", "none": False, "own": None}[token]
    stored, (what, _, which) = hub.repos["models", repo], do.partition(" ")
    stored.private, before = which == "private", stored.find("main")
    stored.readers = set() if which == "gated" else None
    if "nothing" in which:
        repo = "tester/nothing"
    asked = partial(fetch, repo, revision={"v9": "v9", "hash": "0123456789" * 4}.get(which))
    if what != "fetch":
        asked = partial(publish_folder, folder, repo, create_pr=what == "propose")
    with pytest.raises(error, match=message) as raised:
        asked(token=token)
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is not None
    assert stored.find("main") is before
    assert not waits
    assert not list(tmp_path.glob("cache/*/snapshots/*/*"))


def test_a_gated_repository_opens_for_whom_it_lets_in(hub, repo):
    hub.repos["models", repo].readers = {"guest"}
    assert (fetch(repo, token=hub.guest_token) / "config.json").read_bytes() == b"{}"


# Fetches


@pytest.fixture
def published(hub, repo, folder):
    publish_folder(folder, repo)
    return repo


DOWNLOADS = {
    "state": r"GET /api/models/{repo}(/revision/main)?$",
    "list": "GET .*/tree/",
    "file": "(GET|HEAD) .*/model.safetensors",
}


@pytest.mark.parametrize(("request_name", "fault"), [("state", "500"), ("list", "cut"), *product(["file"], PASSING)])
def test_a_fetch_gets_over_what_passes(hub, published, waits, request_name, fault):
    hub.inject(Fault(DOWNLOADS[request_name].format(repo=published), **PASSING[fault]))
    folder = fetch(published)
    assert not hub.faults
    files = head_of(hub, published).files
    assert set(checkpoint_files(folder)) == files.keys() - {".gitattributes"}
    assert all(path.read_bytes() == files[path.name].content for path in folder.iterdir())


@pytest.mark.parametrize(
    ("request_name", "fault"),
    [("state", {"status": 500}), ("list", {"status": 429}), ("file", {"status": 500}), ("file", {"cut_after": 1000})],
    ids=str,
)
def test_a_fetch_that_fails_says_why_and_leaves_only_whole_files(hub, published, waits, tmp_path, request_name, fault):
    hub.inject(Fault(DOWNLOADS[request_name].format(repo=published), times=10_000, **fault))
    with pytest.raises((ConnectionError, OSError)) as raised:
        fetch(published)
    assert "\n" not in str(raised.value)
    files = head_of(hub, published).files
    for path in tmp_path.glob("cache/*/snapshots/*/*"):
        assert path.read_bytes() == files[path.name].content
    hub.faults.clear()
    folder = fetch(published)
    assert all(path.read_bytes() == files[path.name].content for path in folder.iterdir())


def test_a_file_that_stops_coming_is_asked_for_again(hub, published, waits, monkeypatch):
    def wait(seconds):
        waits.append(seconds)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", HANGS_AFTER)  # it may be slow again

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", wait)
    hub.inject(Fault("GET .*/model.safetensors", drip=3.0))
    folder = fetch(published)
    assert waits
    assert (folder / "model.safetensors").read_bytes() == head_of(hub, published).files["model.safetensors"].content


def test_nobody_is_there(hub, repo, folder, waits, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets the port
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        for do in (lambda: publish_folder(folder, repo), lambda: fetch(repo)):
            with pytest.raises(ConnectionError, match=f"^{url}: expected a Hub there, got no answer"):
                do()
    assert not waits


def test_offline(hub, repo, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=rf"^{repo}: offline mode is on\. Unset HF_HUB_OFFLINE to ask {hub.url}"):
        publish_folder(folder, repo)
    assert HfApi().endpoint == hub.url


# Processes

PUBLISH = "from lps_hf.hub import publish_folder; publish_folder({folder!r}, {repo!r}, commit_message={message!r})"


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_uploads_leaves_the_branch_as_it_was(hub, repo, folder, tmp_path):
    before, killed = head_of(hub, repo), threading.Event()
    hub.inject(Fault("PUT /lfs/", until=killed))
    code = PUBLISH.format(folder=str(folder), repo=repo, message="Killed")
    process = subprocess.Popen([sys.executable, "-c", code], env=hub.environment(tmp_path / "home"))
    while hub.faults and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed.set()
    assert head_of(hub, repo) is before
    publish_folder(folder, repo)
    assert is_whole(hub, repo, folder)


@pytest.mark.slow
def test_two_processes_push_at_once(hub, repo, folder, tmp_path):
    model = tiny_classifier(1, temperature=0.5)
    other = save_checkpoint(model, LPSProcessor.from_config(model.config), tmp_path / "other", results=RESULTS)
    folders = {"One": folder, "Other": other}
    both = threading.Event()
    hub.inject(Fault(f"POST .*{repo}/commit/", times=2, until=both))

    def push(name):
        run_client(hub, tmp_path / name, PUBLISH.format(folder=str(folders[name]), repo=repo, message=name))

    with ThreadPoolExecutor(2) as pool:
        pushes = [pool.submit(push, name) for name in folders]
        while hub.faults and not any(push.done() for push in pushes):  # until both have compared theirs with what is there
            time.sleep(0.05)
        both.set()
        for push in pushes:
            push.result()
    titles = [commit.title for commit in head_of(hub, repo).history()]
    assert sorted(titles[:2]) == ["One", "Other"]
    assert is_whole(hub, repo, folders[titles[0]])
    assert [status for _, path, status in hub.requests if f"{repo}/commit/" in path] == [200, 412, 200]
