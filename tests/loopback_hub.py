"""A small Hugging Face Hub on 127.0.0.1: tests push to it and pull from it with the real client.

```python
with LoopbackHub() as hub:
    run_client(hub, tmp_path, "from huggingface_hub import create_repo; create_repo('tester/model')")
```

Repositories live in memory and work as in git: a commit is an immutable snapshot, a branch or a tag is a name for a
commit, a revision is any of the three. Large files travel by git LFS (batch, PUT, verify), without Xet. Left out: pull
requests, gated repositories, search, listings in pages. What the client relies on, beyond the bodies: 409 of an
existing repository carries its `url`; 404 of a missing file carries `X-Error-Code: EntryNotFound` *and*
`X-Repo-Commit`; what a token may not see answers `RepoNotFound`, like what does not exist.
"""

import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote

LFS_SUFFIXES = (".arrow", ".bin", ".gz", ".npy", ".npz", ".parquet", ".pt", ".safetensors", ".zip")
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


class HubError(Exception):
    """An answer that the client turns into one of its own exceptions; `code` says into which."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] = {}, **body: Any):
        super().__init__(message)
        self.status, self.body = status, {"error": message, **body}
        self.headers = {"X-Error-Message": message.encode("ascii", "replace").decode(), **headers}
        self.headers |= {"X-Error-Code": code} if code else {}


@dataclass
class Fault:
    """What goes wrong with the next requests whose `"METHOD /path?query"` contains `match`, a regular expression."""

    match: str
    times: int = 1  # how many requests are met
    status: int | None = None  # do nothing and answer with this status and `headers`; None: handle as usual
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # close the connection after so many bytes of the body; what was done stays done
    delay: float = 0.0  # seconds to wait before handling, 10 at most


@dataclass(frozen=True)
class Blob:
    """The content of a file, in git itself or as an LFS object."""

    content: bytes
    is_lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def oid(self) -> str:
        in_git = LFS_POINTER.format(self.sha256, len(self.content)).encode() if self.is_lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(in_git) + in_git).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.oid

    def describe(self, oid_key: str, sha256_key: str) -> dict[str, Any]:
        size = {"size": len(self.content)}
        lfs = {"lfs": {sha256_key: self.sha256, "pointerSize": 134, **size}} if self.is_lfs else {}
        return {oid_key: self.oid, **size, **lfs}


@dataclass(frozen=True)
class Commit:
    """A snapshot of all files, and the commit before it."""

    parent: "Commit | None"
    files: Mapping[str, Blob]
    author: str
    title: str
    message: str = ""
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))

    @cached_property
    def oid(self) -> str:
        parts = [self.parent and self.parent.oid, self.oid_of(""), self.author, self.title, self.message, self.date]
        return hashlib.sha1(json.dumps(parts).encode()).hexdigest()

    def below(self, path: str) -> list[str]:
        """The file of that path, or the files below that folder."""
        return [name for name in sorted(self.files) if name == path or name.startswith(path and f"{path}/")]

    def oid_of(self, path: str) -> str:
        if path in self.files:
            return self.files[path].oid
        listing = "".join(f"{name} {self.files[name].oid}\n" for name in self.below(path))
        return hashlib.sha1(listing.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        authors = [{"user": self.author}]
        return {"id": self.oid, "authors": authors, "date": self.date, "title": self.title, "message": self.message}

    def history(self) -> list["Commit"]:
        commits = [self]
        while commits[-1].parent is not None:
            commits.append(commits[-1].parent)
        return commits

    def tree(self, folder: str = "", recursive: bool = True) -> list[str]:
        """The paths of the files and folders in a folder; none if there is no such folder."""
        prefix = folder and f"{folder}/"
        folders = {name[: slash.start()] for name in self.files for slash in re.finditer("/", name)}
        paths = sorted(path for path in folders.union(self.files) if path.startswith(prefix))
        return [path for path in paths if recursive or "/" not in path.removeprefix(prefix)]

    def entry(self, path: str, expand: bool) -> dict[str, Any]:
        """One file or folder; `expand` adds the commit that changed it last."""
        entry = {"type": "directory", "path": path, "oid": self.oid_of(path), "size": 0}
        if path in self.files:
            entry |= {"type": "file"} | self.files[path].describe("oid", "oid")
        if expand:
            last = next(c for c in self.history() if not c.parent or c.parent.oid_of(path) != entry["oid"])
            entry["lastCommit"] = last.describe()
        return entry


class Repo:
    """A model, data set or space; whoever changes `refs` holds `lock`."""

    def __init__(self, name: str, private: bool, sdk: str | None):
        self.name, self.owner, self.private, self.sdk = name, name.split("/")[0], private, sdk
        first = Commit(None, {".gitattributes": Blob(GIT_ATTRIBUTES.encode())}, self.owner, "initial commit")
        self.commits, self.refs = {first.oid: first}, {"heads/main": first}
        self.lock = threading.Lock()

    def find(self, revision: str) -> Commit:
        found = self.refs.get(f"heads/{revision}") or self.refs.get(f"tags/{revision}") or self.commits.get(revision)
        if found is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def info(self, commit: Commit, with_blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in sorted(commit.files)]
        for sibling in siblings if with_blobs else []:
            sibling |= commit.files[sibling["rfilename"]].describe("blobId", "sha256")
        info = {"id": self.name, "author": self.owner, "sha": commit.oid, "lastModified": commit.date, "sdk": self.sdk}
        info |= {"private": self.private, "gated": False, "siblings": siblings, "tags": []}
        card = commit.files.get("README.md", Blob(b"")).content.decode()
        header = re.match(r"---\n.*?\n---", card, re.DOTALL)  # two of its fields let a client choose a pipeline
        fields = re.findall(r"^(pipeline_tag|library_name): *(\S+)$", header[0], re.MULTILINE) if header else []
        return info | dict(fields)

    def list_refs(self) -> dict[str, list[dict[str, str]]]:
        lists = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        with self.lock:
            for ref, commit in self.refs.items():
                kind, name = ref.split("/", 1)
                found = {"name": name, "ref": f"refs/{ref}", "targetCommit": commit.oid}
                lists["branches" if kind == "heads" else "tags"].append(found)
        return lists

    def create_ref(self, ref: str, commit: Commit) -> None:
        with self.lock:
            if ref in self.refs:
                raise HubError(409, f"{ref} exists already")
            self.refs[ref] = commit

    def delete_ref(self, ref: str) -> None:
        with self.lock:
            if ref == "heads/main" or self.refs.pop(ref, None) is None:
                raise HubError(404, f"There is no {ref} that could be deleted", "RevisionNotFound")

    def commit(self, branch: str, lines: list[dict[str, Any]], author: str, objects: Mapping[str, bytes]) -> Commit:
        """Apply the lines of a commit: a header, then one operation each."""
        header = lines[0]["value"]
        with self.lock:
            head = self.refs.get(f"heads/{branch}")
            if head is None:
                raise HubError(404, f"{branch} is not a branch", "RevisionNotFound")
            if not head.oid.startswith(header.get("parentCommit", "")):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(head.files)
            for key, value in ((line["key"], line["value"]) for line in lines[1:]):
                path = value["path"].rstrip("/")
                if key == "file":
                    files[path] = Blob(b64decode(value["content"]))
                elif key == "lfsFile" and value["oid"] in objects:
                    files[path] = Blob(objects[value["oid"]], is_lfs=True)
                elif key in ("deletedFile", "deletedFolder"):
                    gone = head.below(path)
                    if not gone or (path in files) != (key == "deletedFile"):
                        raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                    files = {name: blob for name, blob in files.items() if name not in gone}
                else:
                    raise HubError(400, f"Cannot apply {key} to {path}: unknown operation, or content never uploaded")
            commit = Commit(head, files, author, header["summary"], header.get("description", ""))
            self.commits[commit.oid] = self.refs[f"heads/{branch}"] = commit
        return commit


class LoopbackHub:
    """The server, as a context manager.

    Attributes:
        url: Endpoint of the server.
        token: Token of the user `tester`, who reads and writes `tester/*`.
        guest_token: Token of the user `guest`, a stranger to `tester`.
        requests: `(method, path, status)` of every request so far.
        faults: What `inject` was given and no request has met yet.
    """

    def __init__(self):
        self.token, self.guest_token, self.upload_secret = (f"hf_{secrets.token_hex(16)}" for _ in range(3))
        self.users = {self.token: "tester", self.guest_token: "guest"}
        self.repos: dict[tuple[str, str], Repo] = {}  # by ("models" | "datasets" | "spaces", "owner/name")
        self.objects: dict[str, bytes] = {}  # LFS content by SHA-256
        self.requests: list[tuple[str, str, int]] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "LoopbackHub":
        self._server = _Server(("127.0.0.1", 0), type("BoundHandler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def inject(self, fault: Fault) -> None:
        """Spoil the next requests that match; of two faults that match, the older one comes first."""
        with self._lock:
            self.faults.append(fault)

    def take_fault(self, request: str) -> Fault:
        with self._lock:
            fault = next((f for f in self.faults if re.search(f.match, request)), Fault(""))
            fault.times -= 1
            self.faults = [f for f in self.faults if f.times > 0]
        return fault

    def environment(self, home: Path, *, token: str | None = None, offline: bool = False) -> dict[str, str]:
        """Variables of a new process whose Hub is this one and whose caches are in `home`; `token=""` is no token."""
        foreign = re.compile(r"HF_|HUGGING|TRANSFORMERS_|.*_proxy$", re.IGNORECASE)
        kept = {name: value for name, value in os.environ.items() if not foreign.match(name)}
        switches = ["XET", "TELEMETRY", "UPDATE_CHECK", "PROGRESS_BARS"]
        kept |= {f"HF_HUB_DISABLE_{switch}": "1" for switch in switches} | {"HF_HUB_OFFLINE": str(int(offline))}
        kept |= {"HF_TOKEN": self.token if token is None else token, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        kept |= {"HF_UPDATE_DOWNLOAD_COUNTS": "0"}  # else `datasets` counts every load at a server of its own
        return kept | {"HF_ENDPOINT": self.url, "HF_HOME": str(home)}

    def create(self, kind: str, name: str, user: str | None, request: dict[str, Any]) -> dict[str, Any]:
        if user != name.split("/")[0]:
            raise HubError(403 if user else 401, f"{user or 'Nobody'} may not create {name}")
        url = f"{self.url}/{name}" if kind == "models" else f"{self.url}/{kind}/{name}"
        with self._lock:
            if (kind, name) in self.repos:
                raise HubError(409, f"You already created this {kind[:-1]} repo: {name}", url=url)
            private = request.get("private") or request.get("visibility") == "private"
            self.repos[kind, name] = Repo(name, bool(private), request.get("sdk"))
        return {"url": url, "name": name}

    def delete(self, kind: str, name: str, user: str | None) -> None:
        self.repo(kind, name, user, write=True)
        with self._lock:
            self.repos.pop((kind, name), None)

    def repo(self, kind: str, name: str, user: str | None, write: bool) -> Repo:
        found = self.repos.get((kind, name))
        if found is None or (found.private and user != found.owner):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and user != found.owner:
            raise HubError(403 if user else 401, f"{user or 'Nobody'} may not write to {name}")
        return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks the network for the name of this machine

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may leave in the middle
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60.0

    def log_message(self, *args: Any) -> None:
        """Say nothing: the log is `LoopbackHub.requests`."""

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.hub.take_fault(f"{self.command} {self.path}")
        time.sleep(min(fault.delay, 10.0))
        self.status, self.extra_headers = 200, {}
        try:
            if fault.status is not None:
                raise HubError(fault.status, "Injected fault", headers=fault.headers)
            body = self._answer()
        except Exception as error:
            if not isinstance(error, HubError):
                error = HubError(500, "The loopback Hub failed", traceback=traceback.format_exc())
            self.status, self.extra_headers, body = error.status, error.headers, error.body
        self.hub.requests.append((self.command, self.path, self.status))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(self.status)
        for name, value in {"Content-Length": str(len(content)), **self.extra_headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: fault.cut_after])
        self.close_connection |= fault.cut_after is not None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _answer(self) -> Any:
        """Do what is asked; returns the body of the answer: bytes, or what JSON can hold."""
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise HubError(411, "The loopback Hub needs a Content-Length")
        path, _, query = self.path.partition("?")
        self.query = {key: values[-1] for key, values in parse_qs(query).items()}
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = self.hub.users.get(token)
        if token and user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        method = self.command.replace("HEAD", "GET")
        match method, [unquote(part) for part in path.strip("/").split("/")]:
            case "GET", ["api", "whoami-v2"]:
                if user is None:
                    raise HubError(401, "A token is required")
                access = {"accessToken": {"displayName": "loopback", "role": "write"}}
                return {"type": "user", "name": user, "fullname": user, "orgs": [], "auth": access}
            case "POST", ["api", "validate-yaml"]:
                found = re.match(r"---\n.*?\w.*?\n---", self._json()["content"], re.DOTALL)
                return {"errors": [], "warnings": [] if found else [{"message": "empty or missing yaml metadata"}]}
            case "POST" | "DELETE", ["api", "repos", "create" | "delete" as action]:
                request = self._json()
                kind, owner = f"{request.get('type') or 'model'}s", request.get("organization") or user
                name = f"{owner}/{request['name']}"
                if action == "create":
                    return self.hub.create(kind, name, user, request)
                return self.hub.delete(kind, name, user)
            case "PUT", ["lfs", self.hub.upload_secret, sha256]:
                if hashlib.sha256(self.body).hexdigest() != sha256:
                    raise HubError(400, f"The SHA-256 of the content is not {sha256}")
                self.hub.objects[sha256] = self.body
                return b""
            case _, ["api", kind, owner, name, *rest] | ["datasets" | "spaces" as kind, owner, name, *rest]:
                pass
            case _, [owner, name, *rest]:
                kind = "models"
            case _:
                raise HubError(404, f"The loopback Hub has no {method} {path}")
        write = method != "GET" and rest[:1] != ["paths-info"]
        repo = self.hub.repo(kind, f"{owner}/{name.removesuffix('.git')}", user, write)
        return self._answer_about(repo, user, method, rest)

    def _answer_about(self, repo: Repo, user: str | None, method: str, rest: list[str]) -> Any:
        """Answer a request about one repository; `rest` is what follows its name in the path."""
        match [method, *rest]:
            case ["GET"] | ["GET", "revision", _]:
                return repo.info(repo.find(rest[1] if rest else "main"), with_blobs="blobs" in self.query)
            case ["GET", "refs"]:
                return repo.list_refs()
            case ["GET", "commits", revision]:
                return [commit.describe() for commit in repo.find(revision).history()]
            case ["GET", "tree", revision, *folder]:
                commit, recursive = repo.find(revision), self.query.get("recursive") == "true"
                paths = commit.tree("/".join(folder), recursive)
                if folder and not paths:
                    raise HubError(404, f"{folder} does not exist", "EntryNotFound", {"X-Repo-Commit": commit.oid})
                return [commit.entry(path, self.query.get("expand") == "true") for path in paths]
            case ["POST", "paths-info", revision]:
                form, commit = parse_qs(self.body.decode()), repo.find(revision)
                paths = [path for path in form.get("paths", []) if path in commit.tree()]
                return [commit.entry(path, form.get("expand") == ["true"]) for path in paths]
            case ["POST", "branch", name]:
                return repo.create_ref(f"heads/{name}", repo.find(self._json().get("startingPoint", "main")))
            case ["POST", "tag", revision]:
                return repo.create_ref(f"tags/{self._json()['tag']}", repo.find(revision))
            case ["DELETE", "branch" | "tag" as kind, name]:
                return repo.delete_ref(f"heads/{name}" if kind == "branch" else f"tags/{name}")
            case ["POST", "preupload", revision]:
                return {"files": [self._upload_mode(repo.find(revision), file) for file in self._json()["files"]]}
            case ["POST", "info", "lfs", "objects", "batch"]:
                verify = {"href": f"{self.hub.url}{self.path.removesuffix('batch')}verify"}
                objects = [{"oid": o["oid"], "size": o["size"]} for o in self._json()["objects"]]
                for new in (o for o in objects if o["oid"] not in self.hub.objects):
                    upload = {"href": f"{self.hub.url}/lfs/{self.hub.upload_secret}/{new['oid']}"}
                    new["actions"] = {"upload": upload, "verify": verify}
                return {"transfer": "basic", "objects": objects}
            case ["POST", "info", "lfs", "objects", "verify"]:
                if len(self.hub.objects.get(self._json()["oid"], b"")) != self._json()["size"]:
                    raise HubError(422, "The object was not uploaded, or has another size")
                return {}
            case ["POST", "commit", branch] if "create_pr" not in self.query:
                lines = [json.loads(line) for line in self.body.splitlines()]
                commit = repo.commit(branch, lines, user, self.hub.objects)
                return {"commitOid": commit.oid, "commitUrl": f"{self.hub.url}/{repo.name}/commit/{commit.oid}"}
            case ["GET", "resolve", revision, *path]:
                return self._file(repo.find(revision), "/".join(path))
        raise HubError(501, f"The loopback Hub cannot answer {self.command} {self.path}")

    def _json(self) -> dict[str, Any]:
        return json.loads(self.body)

    def _upload_mode(self, commit: Commit, file: dict[str, Any]) -> dict[str, Any]:
        path = file["path"]
        is_lfs = path.endswith(LFS_SUFFIXES) or b"\0" in b64decode(file["sample"])
        known = {"oid": commit.files[path].etag} if path in commit.files else {}
        return {"path": path, "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False, **known}

    def _file(self, commit: Commit, path: str) -> bytes:
        self.extra_headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", self.extra_headers)
        blob = commit.files[path]
        self.extra_headers |= {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if blob.is_lfs:
            self.extra_headers |= {"X-Linked-ETag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
        size = len(blob.content)
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            return blob.content
        first, last = int(part[1]), min(int(part[2] or size), size - 1)
        if first > last:
            raise HubError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
        self.status, self.extra_headers["Content-Range"] = 206, f"bytes {first}-{last}/{size}"
        return blob.content[first : last + 1]


# Warnings are errors, but for what the LFS upload of huggingface_hub 2.4 itself does.
WARNINGS = ("-W", "error", "-W", "ignore:Use 'content=:DeprecationWarning")
# Runs before the code of a client: nothing that Python opens may lead away from this machine. `datasets` asks for a
# viewer beside every Hub and lives without one.
STAY_HOME = """
import sys
def stay_home(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0] if event.startswith("socket.get") else args[1][0] if isinstance(args[1], tuple) else None
        if host not in (None, "", "127.0.0.1", "localhost"):
            if host != "datasets-server.127.0.0.1":
                print("LEFT LOOPBACK:", event, host, file=sys.stderr)
            raise PermissionError(f"Only 127.0.0.1 may be reached from here, not {host}")
sys.addaudithook(stay_home)
"""


def run_client(
    hub: LoopbackHub,
    home: Path,
    code: str,
    *,
    token: str | None = None,
    offline: bool = False,
    timeout: float = 120.0,
    **variables: str,
) -> subprocess.CompletedProcess:
    """Run Python code in a new process whose Hub is `hub`; warnings are errors there.

    Args:
        hub: The server.
        home: Folder of the caches, and the working directory.
        code: What to run; indented code is fine.
        token: Another token than `tester`'s; `""` is none.
        offline: Whether the client is told that there is no network.
        timeout: Seconds after which the process is stopped.
        variables: Further environment variables, e.g. `PYTHONPATH` for a package that is not installed.

    Returns:
        The finished process, with `stdout` and `stderr` as text.

    Raises:
        AssertionError: If it fails, takes too long or reaches out of 127.0.0.1; shows all its output.
    """
    command = [sys.executable, *WARNINGS, "-c", f"exec({STAY_HOME!r})\n{textwrap.dedent(code)}"]
    environment = hub.environment(home, token=token, offline=offline) | variables
    home.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as stopped:
        raise AssertionError(f"No end after {timeout} s.\n{stopped.stdout}\n{stopped.stderr}") from None
    left = "LEFT LOOPBACK" in done.stderr
    if done.returncode or left:
        problem = "tried to leave 127.0.0.1" if left else f"ended with exit status {done.returncode}"
        raise AssertionError(f"The client {problem}.\n-- stdout\n{done.stdout}\n-- stderr\n{done.stderr}")
    return done
