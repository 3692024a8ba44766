"""Downloading checkpoints: one commit, whole, checked, and without pickles."""

import hashlib
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError
from huggingface_hub.hf_api import RepoFile

from .errors import hub_errors, persistently

_SUFFIXES = (".safetensors", ".json", ".py", ".md", ".png")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


def fetch(repo_id: str, *, revision: str | None = None, token: str | bool | None = None) -> Path:
    """Download a checkpoint to the cache of the Hub client.

    Args:
        repo_id: `user/name`.
        revision: Branch, tag or commit; the main branch by default.
        token: Hub token.

    Returns:
        `pathlib.Path`: The folder of that commit; its name is the commit's hash, so that the same state can be asked for later.
        It holds weights (safetensors), settings, code, card and pictures of the repository's top folder; the code has not been
        run. Where the Hub cannot be reached, what is in the cache.

    Raises:
        ValueError: If `repo_id` is none, or the weights are there as pickles only.
        FileNotFoundError: If there is no such repository or revision.
        PermissionError: If the token may not see it.
        ConnectionError: If the Hub cannot be reached, and the cache does not hold it.
        OSError: If a file arrives damaged twice; it is not kept.
    """
    with hub_errors(repo_id, revision):
        folder = persistently(partial(_download, repo_id, revision, token))
        if _remove_damaged(repo_id, folder):
            folder = persistently(partial(_download, repo_id, folder.name, token))
            if damaged := _remove_damaged(repo_id, folder):
                raise OSError(f"{repo_id}: {', '.join(damaged)} arrived damaged twice. Nothing of it was kept; try again later.")
    return folder


def _download(repo_id: str, revision: str | None, token: str | bool | None) -> Path:
    api = HfApi(token=token)
    commit = api.resolve_revision(repo_id, revision=revision)
    patterns = [f"*{suffix}" for suffix in _SUFFIXES]
    folder = Path(api.snapshot_download(repo_id, revision=commit, allow_patterns=patterns, ignore_patterns=["*/*"]))
    names = {file.path for file in _files_of(repo_id, folder)}
    pickles = sorted(name for name in names if name.endswith(_PICKLES) and name != "training_args.bin")
    if pickles and not any(name.endswith(".safetensors") for name in names):
        raise ValueError(
            f"{repo_id}: expected weights as safetensors, found {', '.join(pickles)}. Pickles can run any code and are not read; "
            "ask the owner to convert them."
        )
    return folder


def _files_of(repo_id: str, folder: Path) -> list[RepoFile]:
    """What the Hub said of the files of a commit; nothing where the cache has forgotten that."""
    try:
        return [file for file in get_cached_repo_tree(repo_id, revision=folder.name) if "/" not in file.path]
    except CachedRepoTreeNotFoundError:
        return []


def _remove_damaged(repo_id: str, folder: Path) -> list[str]:
    """Delete the files whose content is not what its hash says: the client checks no more than the size."""
    damaged = []
    for file in _files_of(repo_id, folder):
        path = folder / file.path
        if path.is_file() and not _is_whole(path, file):
            path.resolve().unlink()  # where the cache keeps it
            path.unlink(missing_ok=True)
            damaged.append(file.path)
    return damaged


def _is_whole(path: Path, file: RepoFile) -> bool:
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    # Large files are in git as a pointer to their content, and in the cache by the hash of it.
    pointer = _LFS_POINTER.format(sha256, path.stat().st_size).encode()
    is_large = file.blob_id == _git_hash(pointer) or path.resolve().name == sha256
    return is_large or file.blob_id == _git_hash(path.read_bytes())


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
