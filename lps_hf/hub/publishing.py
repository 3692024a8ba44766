"""Uploading checkpoints: one commit with all that a model needs, or none."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, constants
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSPreTrainedModel
from lps_hf.models.processing_lps import LPSProcessor

from .checkpoints import check_parts, is_outdated, save_checkpoint
from .errors import hub_errors, persistently
from .fetching import fetch
from .model_card import complete_card, is_own_card, make_model_card
from .origins import card_fields_of
from .remote_code import SETTINGS_FILES, code_files
from .results_files import CARD_FILE, FIGURE_FILE, RESULTS_FILE, WEIGHTS_FILE, read_results

logger = logging.get_logger(__name__)

_MESSAGE = "Upload symmetrized model"
_COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
# Pictures of a card that lie beside it: ![what it shows](name.png)
_PICTURE = re.compile(r"!\[[^\]]*\]\((?:\./)?([\w-]+\.png)\)")


@dataclass(frozen=True)
class PublishPlan:
    """What a publication would send; `str()` of it is a table."""

    repo_id: str
    files: dict[str, int]
    """Sizes in bytes, by name."""
    revision: str | None = None
    create_pr: bool = False
    private: bool | None = None
    tag: str | None = None
    commit_message: str = _MESSAGE

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON can hold it."""
        return {**asdict(self), "size": self.size}

    def __str__(self) -> str:
        place = "a pull request to" if self.create_pr else f"branch {self.revision or constants.DEFAULT_REVISION} of"
        private = " (private, if it is new)" if self.private else ""
        lines = [f"One commit, {self.commit_message!r}, on {place} {self.repo_id}{private} at {constants.ENDPOINT}:"]
        lines += [f"{size:>14,}  {name}" for name, size in self.files.items()]
        lines += [f"{self.size:>14,}  bytes in {len(self.files)} files"]
        lines += [f"Tag: {self.tag}"] if self.tag else []
        return "\n".join([*lines, "Nothing has been sent."])


def publish(
    model: LPSPreTrainedModel,
    processor: LPSProcessor,
    repo_id: str,
    *,
    results: Mapping[str, Any] | None = None,
    card: ModelCard | str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    tags: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    token: str | bool | None = None,
    commit_message: str = _MESSAGE,
    commit_description: str | None = None,
    max_shard_size: int | str | None = None,
    dry_run: bool = False,
) -> CommitInfo | PublishPlan:
    """Upload model, processor, code, card and figures to the Hub as one commit.

    Other files of the repository stay, and README.md is replaced. What somebody else commits at the same time is never mixed with
    it: the commit is made for the state of the repository that it was compared with, and compared again where that has changed,
    so that the last one to arrive stands as a whole. A push that is interrupted leaves the branch as it was; push again.

    Args:
        model: The model.
        processor: Its processor.
        repo_id: `user/name`, or `name` for the user of the token; created if it does not exist.
        results: What was measured, as in results.json of a run. Default: the results of the checkpoint that the model was loaded
            from, with the licence and the like of its card, if model and processor are still what they were there.
        card: The model card, if not the one made from `results`.
        license: Licence of the weights, as the Hub writes it, such as `"apache-2.0"`.
        base_model: Hub id of the pretrained backbone; by default as `results` say.
        tags: Tags beside the package's own.
        datasets: Hub ids of the data sets; by default as `results` say.
        private: Whether a new repository is private.
        revision: Branch; created if it does not exist.
        create_pr: Open a pull request against the main branch, of a repository that exists.
        tag: Name for this commit, such as `"v1.0"`.
        token: Hub token.
        commit_message: Message of the commit.
        commit_description: More of it.
        max_shard_size: Largest size of a file of weights, such as `"5GB"`.
        dry_run: Send nothing, and return what would be sent.

    Returns:
        `CommitInfo`: with the commit's hash (`oid`), to load this very state later with `revision=`; with `dry_run` a
        `PublishPlan`.

    Raises:
        ValueError: As `save_checkpoint`, or where options exclude each other; nothing has then been sent.
        FileExistsError: If the tag is there already; nothing has then been sent.
        OSError: If the Hub refuses or cannot be reached; see `hub_errors`.
    """
    check_parts(model, processor)
    send = Sending(repo_id, revision, create_pr, private, tag, token, commit_message, dry_run, commit_description)
    fields: dict[str, Any] = {"license": license, "base_model": base_model, "tags": tags, "datasets": datasets}
    origin = None if results is not None else _origin_of(model, token)
    with tempfile.TemporaryDirectory(prefix="lps-hf-") as temporary:
        folder = Path(temporary) / "checkpoint"
        save_checkpoint(model, processor, folder, results=results, max_shard_size=max_shard_size, origin=origin)
        if card is None and origin is not None and (folder / RESULTS_FILE).is_file():
            fields = card_fields_of(origin) | {name: value for name, value in fields.items() if value is not None}
            if (origin / CARD_FILE).is_file() and not is_own_card(origin / CARD_FILE):
                card = (origin / CARD_FILE).read_text(encoding="utf-8")  # somebody wrote it
        if card is not None:
            return send(folder, card=str(complete_card(card, **fields)))
        return send(folder, card=str(card_of_folder(folder, model_id=send.full_name(), **fields)))


def _origin_of(model: LPSPreTrainedModel, token: str | bool | None) -> Path | None:
    """The checkpoint that a model was loaded from; `None` if it was not, or cannot be reached."""
    if not model.name_or_path or Path(model.name_or_path).is_dir():
        return Path(model.name_or_path) if model.name_or_path else None
    try:
        return fetch(model.name_or_path, revision=getattr(model.config, "_commit_hash", None), token=token)
    except (OSError, ValueError) as error:
        logger.warning(f"What was measured of {model.name_or_path}, where this model is from, is not kept. {error}")
        return None


def publish_folder(
    folder: str | Path,
    repo_id: str,
    *,
    license: str | None = None,
    base_model: str | None = None,
    tags: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    token: str | bool | None = None,
    commit_message: str = _MESSAGE,
    dry_run: bool = False,
) -> CommitInfo | PublishPlan:
    """Upload a folder that `save_checkpoint` wrote to the Hub as one commit; what else lies there stays at home.

    Args:
        folder: The checkpoint. Its README.md goes up with the repository's name and the fields given here; without one, a card
            is made from its results.json.
        repo_id: `user/name`, or `name` for the user of the token; created if it does not exist.
        license: Licence of the weights.
        base_model: Hub id of the pretrained backbone.
        tags: More tags.
        datasets: Hub ids of the data sets.
        private: Whether a new repository is private.
        revision: Branch; created if it does not exist.
        create_pr: Open a pull request against the main branch, of a repository that exists.
        tag: Name for this commit.
        token: Hub token.
        commit_message: Message of the commit.
        dry_run: Send nothing, and return what would be sent.

    Returns:
        `CommitInfo`, or with `dry_run` a `PublishPlan`.

    Raises:
        ValueError: If it is no such folder, or as `publish`.
        OSError: As `publish`.
    """
    folder = Path(folder)
    send = Sending(repo_id, revision, create_pr, private, tag, token, commit_message, dry_run)
    fields: dict[str, Any] = {"license": license, "base_model": base_model, "tags": tags, "datasets": datasets}
    checkpoint_files(folder)
    if (folder / CARD_FILE).is_file():
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        return send(folder, card=str(complete_card(text, model_id=send.full_name(), **fields)))
    return send(folder, card=str(card_of_folder(folder, model_id=send.full_name(), **fields)))


def card_of_folder(folder: str | Path, **fields: Any) -> ModelCard:
    """Make the card of a checkpoint folder from its config.json, results.json and samples.png.

    Args:
        folder: The checkpoint.
        fields: What is given, as for `make_model_card`: `model_id`, `license`, …

    Returns:
        `huggingface_hub.ModelCard`.

    Raises:
        FileNotFoundError: If it is no checkpoint.
        ValueError: If config.json or results.json is damaged.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: expected a checkpoint folder with config.json, found none.")
    figure = FIGURE_FILE if (folder / FIGURE_FILE).is_file() else None
    return make_model_card(LPSConfig.from_pretrained(folder), read_results(folder), figure=figure, **fields)


def checkpoint_files(folder: Path) -> list[str]:
    """Names of the files of a checkpoint folder that go to the Hub.

    Args:
        folder: A folder that `save_checkpoint` wrote.

    Returns:
        `list[str]`: Sorted: weights, settings, code, and where they are there card, results and pictures of the card. Nothing
        else that lies there, such as states of an optimizer.

    Raises:
        ValueError: If something is missing or broken, so that nobody could load it.
    """
    if not folder.is_dir():
        raise ValueError(f"folder: expected a checkpoint folder, found none at {folder}.")
    with suppress(OSError):  # of which more is said below
        LPSConfig.get_config_dict(folder)
    missing = [name for name in SETTINGS_FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"folder: expected a checkpoint with {' and '.join(missing)}, found no such file in {folder}.")
    try:
        code = code_files(folder)
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"folder: {folder} holds settings that cannot be read. {error}") from error
    lacking = sorted(name for name in code if not (folder / name).is_file())
    if lacking or not code:
        problem = f"it lacks {', '.join(lacking)}" if lacking else "its settings name none"
        raise ValueError(
            f"folder: {folder} does not carry the code that loads it: {problem}. Load the model and write it with "
            "lps_hf.hub.save_checkpoint, or give it to lps_hf.hub.publish."
        )
    report = {name for name in (CARD_FILE, RESULTS_FILE, FIGURE_FILE) if (folder / name).is_file()}
    if CARD_FILE in report:
        report |= {name for name in pictures_in(folder / CARD_FILE) if (folder / name).is_file()}
    return sorted({*SETTINGS_FILES, *_weights(folder), *code, *report})


def pictures_in(card_file: Path) -> set[str]:
    """Names of the PNG files beside a card that it shows."""
    return set(_PICTURE.findall(card_file.read_text(encoding="utf-8")))


def _weights(folder: Path) -> set[str]:
    """Files of the weights, all there and whole."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        shards, names = {"model.safetensors"}, {"model.safetensors"}
    elif index.is_file():
        try:
            shards = set(map(str, json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"folder: {folder} holds a {index.name} that names no weights. {error}") from error
        names = {index.name, *shards}
    else:
        raise ValueError(f"folder: expected a checkpoint with model.safetensors, found none in {folder}.")
    for shard in shards:
        try:
            if not WEIGHTS_FILE.fullmatch(shard):
                raise OSError(f"{shard} is no name of weights")
            with safe_open(folder / shard, framework="pt") as weights:
                weights.keys()
        except (OSError, SafetensorError) as error:
            raise ValueError(f"folder: {folder} holds weights that cannot be read, {shard}. {error}") from error
    return names


@dataclass(frozen=True)
class Sending:
    """Where a checkpoint goes to, and how."""

    repo_id: str
    revision: str | None
    create_pr: bool
    private: bool | None
    tag: str | None
    token: str | bool | None
    commit_message: str
    dry_run: bool = False
    commit_description: str | None = None

    def __post_init__(self) -> None:
        validate_repo_id(self.repo_id)
        if self.create_pr and self.revision not in (None, constants.DEFAULT_REVISION):
            raise ValueError(f"revision: a pull request is opened against the main branch, got {self.revision!r}. Leave one out.")
        if self.create_pr and self.tag is not None:
            raise ValueError(f"tag: expected none with create_pr, got {self.tag!r}. Tag the commit when it has been merged.")
        if self.revision is not None and _COMMIT_HASH.fullmatch(self.revision):
            raise ValueError(f"revision: expected a branch, got the commit {self.revision}. Nothing can be added to a commit.")

    def full_name(self) -> str:
        """The repository with its owner; who that is has to be asked, and is not in a dry run."""
        if "/" in self.repo_id or self.dry_run:
            return self.repo_id
        with hub_errors(self.repo_id):
            return f"{persistently(HfApi(token=self.token).whoami)['name']}/{self.repo_id}"

    def __call__(self, folder: Path, card: str | None = None) -> CommitInfo | PublishPlan:
        """Send a checkpoint folder; `card` stands for its README.md."""
        contents: dict[str, Path | bytes] = {name: folder / name for name in checkpoint_files(folder)}
        if card is not None:
            contents[CARD_FILE] = card.encode()
        if self.dry_run:
            sizes = {
                name: len(content) if isinstance(content, bytes) else content.stat().st_size
                for name, content in sorted(contents.items())
            }
            return PublishPlan(self.repo_id, sizes, self.revision, self.create_pr, self.private, self.tag, self.commit_message)
        return self.send(contents)

    def send(self, contents: Mapping[str, Path | bytes], replaces_model: bool = True) -> CommitInfo:
        """Make one commit of these files.

        Args:
            contents: Content, or a file with it, by name.
            replaces_model: Whether files that tell of the weights that were there before are removed.

        Returns:
            `CommitInfo`.
        """
        with hub_errors(self.repo_id, self.revision):
            api = HfApi(token=self.token)
            repo_id = self._prepare(api)
            # A lost answer to a pull request does not say that there is none.
            send = partial(self._commit, api, repo_id, contents, replaces_model)
            commit = persistently(send, is_repeatable=not self.create_pr)
            if self.tag is not None:
                persistently(partial(api.create_tag, repo_id, tag=self.tag, revision=commit.oid, exist_ok=True))
            return commit

    def _prepare(self, api: HfApi) -> str:
        """Make the repository and the branch; returns the repository's full name."""
        repo_id = self.repo_id
        if not self.create_pr:
            new = persistently(partial(api.create_repo, repo_id, private=self.private, exist_ok=True))
            repo_id = new.repo_id
        if self.tag is not None and any(tag.name == self.tag for tag in persistently(partial(api.list_repo_refs, repo_id)).tags):
            raise FileExistsError(f"tag: {repo_id} has {self.tag!r} already. Choose another name.")
        if self.revision not in (None, constants.DEFAULT_REVISION) and not str(self.revision).startswith("refs/"):
            persistently(partial(api.create_branch, repo_id, branch=str(self.revision), exist_ok=True))
        return repo_id

    def _commit(self, api: HfApi, repo_id: str, contents: Mapping[str, Path | bytes], replaces_model: bool) -> CommitInfo:
        while True:
            # Files that are there already are not sent again. That comparison holds for this commit only, so the new one is made
            # for no other: or a file that somebody changes meanwhile would be left out of ours, and two models be mixed.
            before = api.model_info(repo_id, revision=self.revision)
            there = [sibling.rfilename for sibling in before.siblings or []]
            old = [name for name in there if replaces_model and is_outdated(name) and name not in contents]
            changes: list[Any] = [CommitOperationDelete(name) for name in old]
            changes += [CommitOperationAdd(name, content) for name, content in contents.items()]
            # Not upload_folder, which may make several commits of one folder.
            commit = api.create_commit(
                repo_id,
                changes,
                commit_message=self.commit_message,
                commit_description=self.commit_description,
                revision=self.revision,
                create_pr=self.create_pr,
                parent_commit=before.sha,
            )
            # Without a difference there is no commit, and the hash is that of the branch now: somebody else's, if it has moved.
            if changes[-1]._is_committed or commit.oid == before.sha:
                return commit
