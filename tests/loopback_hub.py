"""A small Hugging Face Hub on 127.0.0.1: tests push to it and pull from it with the real client.

```python
with LoopbackHub() as hub:
    run_client(hub, tmp_path, "from huggingface_hub import create_repo; create_repo('tester/model')")
```

Repositories live in memory (`loopback_repos.py`). Large files travel by git LFS (batch, PUT, verify), without Xet. Left out:
merging pull requests, search, listings in pages. What the client relies on, beyond the bodies: 409 of an
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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.limits import HANGS_AFTER
from tests.loopback_repos import LFS_SUFFIXES, Commit, HubError, Repo


@dataclass
class Fault:
    """What goes wrong with the next requests whose `"METHOD /path?query"` contains `match`, a regular expression."""

    match: str
    times: int = 1  # how many requests are met
    status: int | None = None  # do nothing and answer with this status and `headers`; None: handle as usual
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # close the connection after so many bytes of the body; what was done stays done
    delay: float = 0.0  # seconds to wait before handling, 10 at most
    until: threading.Event | None = None  # wait for this before handling
    drip: float = 0.0  # seconds to wait in the middle of the body, 10 at most
    corrupt: bool = False  # flip the bits of the last byte of the body


class LoopbackHub:
    """The server, as a context manager.

    Attributes:
        url: Endpoint of the server.
        token: Token of the user `tester`, who reads and writes `tester/*`.
        guest_token: Token of the user `guest`, a stranger to `tester`.
        requests: `(method, path, status)` of every request so far.
        faults: What `inject` was given and no request has met yet.
        room: Bytes of large files that users may still store; `None` is no limit.
    """

    def __init__(self):
        self.token, self.guest_token, self.upload_secret = (f"hf_{secrets.token_hex(16)}" for _ in range(3))
        self.users = {self.token: "tester", self.guest_token: "guest"}
        self.repos: dict[tuple[str, str], Repo] = {}  # by ("models" | "datasets" | "spaces", "owner/name")
        self.objects: dict[str, bytes] = {}  # LFS content by SHA-256
        self.requests: list[tuple[str, str, int]] = []
        self.faults: list[Fault] = []
        self.room: int | None = None
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
        kept |= {f"HF_HUB_{what}_TIMEOUT": str(int(HANGS_AFTER)) for what in ("DOWNLOAD", "ETAG")}
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

    def store(self, sha256: str, content: bytes) -> None:
        with self._lock:
            if self.room is not None:
                self.room -= len(content)
            self.objects[sha256] = content


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
    timeout = HANGS_AFTER

    def log_message(self, *args: Any) -> None:
        """Say nothing: the log is `LoopbackHub.requests`."""

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.hub.take_fault(f"{self.command} {self.path}")
        time.sleep(min(fault.delay, 10.0))
        if fault.until is not None:
            fault.until.wait(HANGS_AFTER)
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
        if fault.corrupt and content:
            content = content[:-1] + bytes([content[-1] ^ 0xFF])
        self.send_response(self.status)
        for name, value in {"Content-Length": str(len(content)), **self.extra_headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            content = content[: fault.cut_after]
            half = len(content) // 2 if fault.drip else 0
            self.wfile.write(content[:half])
            time.sleep(min(fault.drip, 10.0))
            self.wfile.write(content[half:])
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
                self.hub.store(sha256, self.body)
                return b""
            case _, ["api", kind, owner, name, *rest] | ["datasets" | "spaces" as kind, owner, name, *rest]:
                pass
            case _, [owner, name, *rest]:
                kind = "models"
            case _:
                raise HubError(404, f"The loopback Hub has no {method} {path}")
        write = method != "GET" and rest[:1] != ["paths-info"]
        if user is not None and (rest[:2] == ["info", "lfs"] or "create_pr" in self.query):
            write = False  # whoever may read may propose, with files that are in no branch yet
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
                wanted = sum(o["size"] for o in objects if o["oid"] not in self.hub.objects)
                if self.hub.room is not None and wanted > self.hub.room:
                    raise HubError(403, "Private repository storage limit reached, please upgrade your plan.")
                for new in (o for o in objects if o["oid"] not in self.hub.objects):
                    upload = {"href": f"{self.hub.url}/lfs/{self.hub.upload_secret}/{new['oid']}"}
                    new["actions"] = {"upload": upload, "verify": verify}
                return {"transfer": "basic", "objects": objects}
            case ["POST", "info", "lfs", "objects", "verify"]:
                if len(self.hub.objects.get(self._json()["oid"], b"")) != self._json()["size"]:
                    raise HubError(422, "The object was not uploaded, or has another size")
                return {}
            case ["POST", "commit", branch]:
                lines = [json.loads(line) for line in self.body.splitlines()]
                create_pr = "create_pr" in self.query
                commit = repo.commit(branch, lines, user, self.hub.objects, create_pr)
                answer = {"commitOid": commit.oid, "commitUrl": f"{self.hub.url}/{repo.name}/commit/{commit.oid}"}
                if create_pr:
                    number = next(ref.split("/")[1] for ref, last in repo.refs.items() if last is commit)
                    answer["pullRequestUrl"] = f"{self.hub.url}/{repo.name}/discussions/{number}"
                return answer
            case ["GET", "resolve", revision, *path]:
                if repo.readers is not None and user not in {repo.owner, *repo.readers}:
                    message = f"Access to model {repo.name} is restricted and you are not in the authorized list."
                    raise HubError(403 if user else 401, message, "GatedRepo")
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
    timeout: float = HANGS_AFTER,
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
