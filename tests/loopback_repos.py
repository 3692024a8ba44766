"""The repositories of the loopback Hub: git as far as the Hub shows it, in memory.

A commit is an immutable snapshot, a branch, a tag or a pull request is a name for a commit, a revision is any of the four.
"""

import hashlib
import json
import re
import threading
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

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
        self.readers: set[str] | None = None  # of a gated repository: who was let in beside its owner
        first = Commit(None, {".gitattributes": Blob(GIT_ATTRIBUTES.encode())}, self.owner, "initial commit")
        self.commits, self.refs = {first.oid: first}, {"heads/main": first}
        self.lock = threading.Lock()

    def find(self, revision: str) -> Commit:
        names = (f"heads/{revision}", f"tags/{revision}", revision.removeprefix("refs/"))
        found = next((self.refs[name] for name in names if name in self.refs), self.commits.get(revision))
        if found is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def info(self, commit: Commit, with_blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in sorted(commit.files)]
        for sibling in siblings if with_blobs else []:
            sibling |= commit.files[sibling["rfilename"]].describe("blobId", "sha256")
        info = {"id": self.name, "author": self.owner, "sha": commit.oid, "lastModified": commit.date, "sdk": self.sdk}
        info |= {"private": self.private, "gated": self.readers is not None and "manual", "siblings": siblings, "tags": []}
        card = commit.files.get("README.md", Blob(b"")).content.decode()
        header = re.match(r"---\n.*?\n---", card, re.DOTALL)  # two of its fields let a client choose a pipeline
        fields = re.findall(r"^(pipeline_tag|library_name): *(\S+)$", header[0], re.MULTILINE) if header else []
        return info | dict(fields)

    def list_refs(self) -> dict[str, list[dict[str, str]]]:
        lists = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        kinds = {"heads": "branches", "tags": "tags", "pr": "pullRequests"}
        with self.lock:
            for ref, commit in self.refs.items():
                kind, name = ref.split("/", 1)
                lists[kinds[kind]].append({"name": name, "ref": f"refs/{ref}", "targetCommit": commit.oid})
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

    def commit(
        self, branch: str, lines: list[dict[str, Any]], author: str, objects: Mapping[str, bytes], create_pr: bool = False
    ) -> Commit:
        """Apply the lines of a commit, a header and then one operation each, to a branch or as a new pull request."""
        header = lines[0]["value"]
        with self.lock:
            ref = branch.removeprefix("refs/") if branch.startswith("refs/pr/") else f"heads/{branch}"
            head = self.refs.get(ref)
            if head is None:
                raise HubError(404, f"{branch} is not a branch", "RevisionNotFound")
            if create_pr:
                head = self.commits[header.get("parentCommit", head.oid)]
                ref = f"pr/{1 + sum(name.startswith('pr/') for name in self.refs)}"
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
            self.commits[commit.oid] = self.refs[ref] = commit
        return commit
