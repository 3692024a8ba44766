"""The loopback Hub, proved with the real clients: huggingface_hub, transformers and datasets.

Each client is a process of its own (it reads its environment at import) and prints what it saw as one line of JSON.
"""

import http.client
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.limits import HANGS_AFTER
from tests.loopback_hub import Fault, LoopbackHub, Repo, run_client


@pytest.fixture(scope="module")
def hub():
    with LoopbackHub() as hub:
        yield hub


def seen_by(process):
    return json.loads(process.stdout.splitlines()[-1])


HISTORY = """
    import json
    from pathlib import Path
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    def status(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except HfHubHTTPError as error:
            return error.response.status_code

    def text(revision, kind=None):
        return Path(api.hf_hub_download(repo, "notes/a.txt", revision=revision, repo_type=kind)).read_text()

    api, repo, seen = HfApi(), "tester/history", {}
    seen["user"] = api.whoami()["name"]
    seen["url"] = api.create_repo(repo).url
    seen["create again"] = [status(api.create_repo, repo), api.create_repo(repo, exist_ok=True).repo_id]

    notes = Path("folder/notes")
    notes.mkdir(parents=True)
    (notes / "a.txt").write_text("one")
    (notes / "é b.bin").write_bytes(bytes(range(256)))
    first = api.upload_folder(repo_id=repo, folder_path="folder", commit_message="Add the notes").oid
    info = api.model_info(repo, files_metadata=True)
    seen["sha is head"] = info.sha == first
    seen["siblings"] = {s.rfilename: [s.size, s.lfs is not None] for s in info.siblings if s.rfilename[0] != "."}
    seen["top"] = sorted(entry.path for entry in api.list_repo_tree(repo))
    seen["notes"] = sorted(entry.path for entry in api.list_repo_tree(repo, "notes", revision=first))
    seen["no folder"] = status(lambda: list(api.list_repo_tree(repo, "nothing")))

    api.create_tag(repo, tag="v1")
    api.create_branch(repo, branch="feature/x", revision="v1")
    second = api.upload_file(path_or_fileobj=b"two", path_in_repo="notes/a.txt", repo_id=repo).oid
    third = api.upload_file(path_or_fileobj=b"x", path_in_repo="notes/a.txt", repo_id=repo, revision="feature/x").oid
    seen["texts"] = [text(revision) for revision in (None, second, "v1", first, "feature/x", third)]
    seen["unchanged"] = api.upload_file(path_or_fileobj=b"two", path_in_repo="notes/a.txt", repo_id=repo).oid == second
    refs = api.list_repo_refs(repo)
    seen["heads"] = {ref.name: ref.target_commit for ref in refs.branches} == {"main": second, "feature/x": third}
    seen["tags"] = {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first}
    seen["same name"] = [status(api.create_tag, repo, tag="v1"), status(api.create_branch, repo, branch="feature/x")]
    seen["titles"] = [commit.title for commit in api.list_repo_commits(repo)]
    folder, a = api.get_paths_info(repo, ["notes", "notes/a.txt", "nothing"], expand=True)
    b = api.get_paths_info(repo, "notes/é b.bin", expand=True)[0]
    seen["changed by"] = [entry.last_commit.oid for entry in (folder, a, b)] == [second, second, first]

    late = [CommitOperationAdd("late.txt", b"late")]
    seen["late"] = status(api.create_commit, repo, late, commit_message="Late", parent_commit=first)
    snapshot = Path(api.snapshot_download(repo, revision="feature/x"))
    seen["snapshot"] = [snapshot.name == third, len((snapshot / "notes/é b.bin").read_bytes())]
    api.delete_file("notes/a.txt", repo)
    seen["file deleted"] = api.list_repo_files(repo)[1:]
    api.delete_folder("notes", repo)
    seen["folder deleted"] = [api.list_repo_files(repo)[1:], len(api.list_repo_files(repo, revision="v1"))]
    api.delete_branch(repo, branch="feature/x")
    api.delete_tag(repo, tag="v1")
    refs = api.list_repo_refs(repo)
    seen["refs left"] = [[ref.name for ref in refs.branches], len(refs.tags), text(third)]

    for kind, more in (("dataset", {}), ("space", {"space_sdk": "gradio"})):
        api.create_repo(repo, repo_type=kind, **more)
        api.upload_file(path_or_fileobj=kind.encode(), path_in_repo="notes/a.txt", repo_id=repo, repo_type=kind)
        seen[kind] = [text("main", kind), api.repo_info(repo, repo_type=kind).sha != second]
        api.delete_repo(repo, repo_type=kind)
        seen[kind] += [api.repo_exists(repo, repo_type=kind), api.repo_exists(repo)]
    print(json.dumps(seen))
"""


def test_a_repository_keeps_its_history(hub, tmp_path):
    assert seen_by(run_client(hub, tmp_path, HISTORY)) == {
        "user": "tester",
        "url": f"{hub.url}/tester/history",
        "create again": [409, "tester/history"],
        "sha is head": True,
        "siblings": {"notes/a.txt": [3, False], "notes/é b.bin": [256, True]},
        "top": [".gitattributes", "notes"],
        "notes": ["notes/a.txt", "notes/é b.bin"],
        "no folder": 404,
        "texts": ["two", "two", "one", "one", "x", "x"],
        "unchanged": True,
        "heads": True,
        "tags": True,
        "same name": [409, 409],
        "titles": ["Upload notes/a.txt with huggingface_hub", "Add the notes", "initial commit"],
        "changed by": True,
        "late": 412,
        "snapshot": [True, 256],
        "file deleted": ["notes/é b.bin"],
        "folder deleted": [[], 3],
        "refs left": [["main"], 0, "x"],
        "dataset": ["dataset", True, False, True],
        "space": ["space", True, False, True],
    }


REFUSALS = """
    import json
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    def refused(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except HfHubHTTPError as error:
            return [type(error).__name__, error.response.status_code]

    api, seen = HfApi(), {}
    for repo, private in (("tester/closed", True), ("tester/open", False)):
        api.create_repo(repo, private=private)
        api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=repo)
    seen["owner"] = [api.model_info("tester/closed").private, api.model_info("tester/open").private]
    seen["stranger"] = refused(api.model_info, "tester/closed", token=GUEST)
    seen["nobody"] = refused(api.model_info, "tester/closed", token=False)
    seen["wrong token"] = refused(api.model_info, "tester/closed", token="hf_wrong")
    seen["file for nobody"] = refused(api.get_hf_file_metadata, url=FILE, token=False)
    seen["open for nobody"] = refused(api.model_info, "tester/open", token=False)
    seen["stranger writes"] = refused(api.create_tag, "tester/open", tag="v1", token=GUEST)
    seen["stranger creates"] = refused(api.create_repo, "tester/new", token=GUEST)
    seen["no repository"] = refused(api.model_info, "tester/nothing")
    seen["delete nothing"] = refused(api.delete_repo, "tester/nothing")
    seen["no revision"] = refused(api.hf_hub_download, "tester/open", "config.json", revision="v9")
    seen["no branch"] = refused(
        api.upload_file, path_or_fileobj=b"", path_in_repo="a", repo_id="tester/open", revision="v9"
    )
    seen["no file"] = refused(api.hf_hub_download, "tester/open", "nothing.txt")
    cached = try_to_load_from_cache("tester/open", "nothing.txt")
    seen["absence is cached"] = cached is not None and not isinstance(cached, str)
    print(json.dumps(seen))
"""


def test_refusals_become_the_right_exceptions(hub, tmp_path):
    known = f"    GUEST, FILE = {hub.guest_token!r}, '{hub.url}/tester/closed/resolve/main/config.json'"
    assert seen_by(run_client(hub, tmp_path, known + REFUSALS)) == {
        "owner": [True, False],
        "stranger": ["RepositoryNotFoundError", 404],
        "nobody": ["RepositoryNotFoundError", 401],
        "wrong token": ["HfHubHTTPError", 401],
        "file for nobody": ["RepositoryNotFoundError", 401],
        "open for nobody": None,
        "stranger writes": ["HfHubHTTPError", 403],
        "stranger creates": ["HfHubHTTPError", 403],
        "no repository": ["RepositoryNotFoundError", 404],
        "delete nothing": ["RepositoryNotFoundError", 404],
        "no revision": ["RevisionNotFoundError", 404],
        "no branch": ["RevisionNotFoundError", 404],
        "no file": ["RemoteEntryNotFoundError", 404],
        "absence is cached": True,
    }


FIRST_SESSION = """
    import json
    import torch
    from datasets import Dataset, load_dataset
    from huggingface_hub import create_repo, create_tag, upload_file, upload_folder
    from transformers import AutoConfig, AutoModel, BertConfig, BertModel, ViTConfig, ViTModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}

    def bert(value):
        model = BertModel(BertConfig(vocab_size=11, **sizes))
        torch.nn.init.constant_(model.embeddings.word_embeddings.weight, value)
        return model

    def value(revision):
        return AutoModel.from_pretrained(repo, revision=revision).embeddings.word_embeddings.weight.mean().item()

    repo, seen = "tester/bert", {}
    create_repo(repo, private=True)
    bert(1.0).save_pretrained("checkpoint")
    first = upload_folder(repo_id=repo, folder_path="checkpoint").oid
    create_tag(repo, tag="v1")
    second = bert(2.0).push_to_hub(repo).oid
    third = bert(3.0).push_to_hub(repo, revision="experiment").oid
    seen["values"] = [value(revision) for revision in (first, "v1", "main", second, "experiment", third)]

    ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes)).push_to_hub("tester/vit")
    config = AutoConfig.from_pretrained("tester/vit")
    model = AutoModel.from_pretrained("tester/vit")
    seen["vit"] = [config.model_type, config.image_size, model(torch.zeros(1, 3, 16, 16)).last_hidden_state.shape]

    Dataset.from_dict({"x": [1.5, 2.5], "y": [[1], [2, 3]]}).push_to_hub("tester/parquet", private=True)
    create_repo("tester/lines", repo_type="dataset")
    rows = "".join(json.dumps({"x": i}) + chr(10) for i in range(3)).encode()
    lines = {"path_in_repo": "train.jsonl", "repo_id": "tester/lines", "repo_type": "dataset"}
    old = upload_file(path_or_fileobj=rows, **lines).oid
    upload_file(path_or_fileobj=rows * 2, **lines)
    seen["parquet"] = load_dataset("tester/parquet", split="train").to_list()
    seen["streamed"] = list(load_dataset("tester/parquet", split="train", streaming=True))
    seen["lines"] = [load_dataset("tester/lines", split="train", revision=r).num_rows for r in (old, "main")]
    print(json.dumps(seen | {"first": first}))
"""

OFFLINE_SESSION = """
    import json
    from datasets import load_dataset
    from transformers import AutoModel

    def value(revision):
        model = AutoModel.from_pretrained("tester/bert", revision=revision)
        return model.embeddings.word_embeddings.weight.mean().item()

    seen = {"values": [value(revision) for revision in (FIRST, "v1", "main", "experiment")]}
    seen["parquet"] = load_dataset("tester/parquet", split="train").to_list()
    try:
        AutoModel.from_pretrained("tester/nothing")
    except OSError as error:
        seen["never seen"] = type(error).__name__
    print(json.dumps(seen))
"""


def test_models_and_data_sets_travel(hub, tmp_path):
    rows = [{"x": 1.5, "y": [1]}, {"x": 2.5, "y": [2, 3]}]
    seen = seen_by(run_client(hub, tmp_path, FIRST_SESSION))
    first = seen.pop("first")
    assert seen == {
        "values": [1.0, 1.0, 2.0, 2.0, 3.0, 3.0],
        "vit": ["vit", 16, [1, 5, 8]],
        "parquet": rows,
        "streamed": rows,
        "lines": [3, 6],
    }
    # The same machine without a network works from its cache and asks nobody.
    asked = len(hub.requests)
    offline = seen_by(run_client(hub, tmp_path, f"    FIRST = {first!r}\n{OFFLINE_SESSION}", offline=True))
    assert offline == {"values": [1.0, 1.0, 2.0, 3.0], "parquet": rows, "never seen": "OSError"}
    assert len(hub.requests) == asked


def test_two_pushes_at_once_both_arrive(hub, tmp_path):
    run_client(hub, tmp_path, "from huggingface_hub import create_repo; create_repo('tester/busy')")
    hub.inject(Fault("POST .*/busy/commit/", times=2, delay=0.5))
    push = """
    from huggingface_hub import upload_file
    upload_file(path_or_fileobj=b"x", path_in_repo="{0}.txt", repo_id="tester/busy", commit_message="{0}")
    """
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: run_client(hub, tmp_path / name, push.format(name)), "ab"))
    head = hub.repos["models", "tester/busy"].find("main")
    assert sorted(head.files) == [".gitattributes", "a.txt", "b.txt"]
    assert sorted(commit.title for commit in head.history()) == ["a", "b", "initial commit"]


def test_no_push_is_lost():
    repo = Repo("tester/busy", private=False, sdk=None)

    def push(number):
        added = {"key": "file", "value": {"path": f"{number}.txt", "content": ""}}
        repo.commit("main", [{"key": "header", "value": {"summary": "Add"}}, added], "tester", {})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(push, range(200)))
    finally:
        sys.setswitchinterval(interval)
    assert len(repo.find("main").files) == len(repo.find("main").history()) == 201


CONTEST = """
    import json
    from concurrent.futures import ThreadPoolExecutor
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    def push(name):
        try:
            operations = [CommitOperationAdd(name, b"x")]
            api.create_commit("tester/contest", operations, commit_message=name, parent_commit=head)
            return 200
        except HfHubHTTPError as error:
            return error.response.status_code

    api = HfApi()
    api.create_repo("tester/contest")
    head = api.model_info("tester/contest").sha
    with ThreadPoolExecutor(2) as pool:
        print(json.dumps(sorted(pool.map(push, ("a.txt", "b.txt")))))
"""


def test_of_two_pushes_onto_one_parent_one_is_refused(hub, tmp_path):
    assert seen_by(run_client(hub, tmp_path, CONTEST)) == [200, 412]


WEATHER = """
    import json
    from pathlib import Path
    from huggingface_hub import HfApi

    def download():
        return Path(api.hf_hub_download("tester/frail", "weights.bin")).read_bytes() == content

    api, content = HfApi(), bytes(range(256)) * 44 * 1024  # 11 MiB: the client keeps what came in pieces of 10 MiB
    api.create_repo("tester/frail")
    api.upload_file(path_or_fileobj=content, path_in_repo="weights.bin", repo_id="tester/frail")
    print(json.dumps([download(), download()]))
"""


def test_faults_meet_the_client(hub, tmp_path):
    hub.inject(Fault("PUT /lfs/", status=503))
    hub.inject(Fault("GET .*/frail/resolve/", cut_after=10 * 2**20 + 100))
    start = len(hub.requests)
    assert seen_by(run_client(hub, tmp_path, WEATHER)) == [True, True]
    requests = hub.requests[start:]
    assert [status for method, _, status in requests if method == "PUT"] == [503, 200], "repeats a failed upload"
    downloads = [status for method, path, status in requests if method == "GET" and "/frail/resolve/" in path]
    assert downloads == [200, 206], "resumes a download that was cut, and takes the next one from its cache"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("print('said'); raise SystemExit('no such thing')", r"(?s)exit status 1.*said.*no such thing"),
        ("import warnings; warnings.warn('mind the step')", "UserWarning: mind the step"),
        (
            "import socket\ntry: socket.create_connection(('192.0.2.1', 9))\nexcept OSError: pass",
            r"tried to leave 127\.0\.0\.1(?s:.*)192\.0\.2\.1",
        ),
    ],
    ids=["exit status", "warning", "network"],
)
def test_a_failing_client_is_shown(hub, tmp_path, code, complaint):
    with pytest.raises(AssertionError, match=complaint):
        run_client(hub, tmp_path, code)


def test_a_client_that_hangs_is_stopped_and_shown(hub, tmp_path, monkeypatch):
    def hang(command, *, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout, output="slow")

    monkeypatch.setattr("subprocess.run", hang)
    with pytest.raises(AssertionError, match=rf"No end after {HANGS_AFTER} s\.\nslow"):
        run_client(hub, tmp_path, "pass")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "body"),
    [
        ("GET", "/tester/plain/resolve/main/a.txt", {}, 200, b"0123456789"),
        ("HEAD", "/tester/plain/resolve/main/a.txt", {}, 200, b""),
        ("GET", "/tester/plain/resolve/main/a.txt", {"Range": "bytes=2-4"}, 206, b"234"),
        ("GET", "/tester/plain/resolve/main/a.txt", {"Range": "bytes=7-"}, 206, b"789"),
        ("GET", "/tester/plain/resolve/main/a.txt", {"Range": "bytes=10-"}, 416, None),
        ("HEAD", "/api/models/tester/plain", {}, 200, b""),
        ("GET", "/api/models/gpt2", {}, 401, None),
        ("GET", "/api/models/tester/plain/discussions", {}, 501, None),
        ("GET", "/robots.txt", {}, 404, None),
        ("PUT", "/lfs/" + "0" * 64 + "/" + "0" * 64, {"Content-Length": "0"}, 401, None),
        ("GET", "/api/whoami-v2", {"Authorization": "Bearer wrong"}, 401, None),
    ],
)
def test_plain_http(method, path, headers, status, body):
    with LoopbackHub() as hub:
        hub.create("models", "tester/plain", "tester", {})
        lines = [{"key": "header", "value": {"summary": "Add a file"}}]
        lines += [{"key": "file", "value": {"path": "a.txt", "content": "MDEyMzQ1Njc4OQ=="}}]
        hub.repos["models", "tester/plain"].commit("main", lines, "tester", {})
        connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=HANGS_AFTER)
        for _ in range(2):  # the connection stays usable after any answer
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            content = response.read()
            assert response.status == status
            assert body is None or content == body
        connection.close()
