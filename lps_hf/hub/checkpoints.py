"""Checkpoint folders that carry their code, written in one piece and uploaded as one commit."""

import json
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from safetensors import SafetensorError

from lps_hf.auto import AUTO_CLASSES, OTHER_HEADS
from lps_hf.models.modeling_lps import LPSPreTrainedModel
from lps_hf.models.processing_lps import LPSProcessor

_MODEL_AUTO_CLASSES = {
    **{name: auto_class for name, room, auto_class, _ in AUTO_CLASSES if room.startswith("modeling")},
    **OTHER_HEADS,
}
_WEIGHTS_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
_MARKING = threading.Lock()


@contextmanager
def _carrying_code(model: LPSPreTrainedModel, processor: LPSProcessor) -> Iterator[None]:
    """Mark the classes, so that saving copies the Hub room; only here, or every Trainer checkpoint would copy it."""
    marks: dict[Any, str] = {
        type(model): _MODEL_AUTO_CLASSES[type(model).__name__],
        type(model.config): "AutoConfig",
        type(processor): "AutoProcessor",
    }
    with _MARKING:
        marks_before = {cls: cls._auto_class for cls in marks}
        # Saving notes the mark in the object: what is written later, without code, must not claim to carry some.
        maps_before = [(vars(holder), vars(holder).pop("auto_map", None)) for holder in (model.config, processor)]
        try:
            for cls, auto_class in marks.items():
                cls._auto_class = auto_class
            yield
        finally:
            for cls, auto_class in marks_before.items():
                cls._auto_class = auto_class
            for attributes, auto_map in maps_before:
                attributes.pop("auto_map", None)
                if auto_map is not None:
                    attributes["auto_map"] = auto_map


def save_checkpoint(model: LPSPreTrainedModel, processor: LPSProcessor, folder: str | Path) -> Path:
    """Write model, processor and the code they need to a folder, all of it or nothing.

    It loads with `trust_remote_code=True` where lps_hf is not installed, and without any flag where it is imported.

    Args:
        model: The model.
        processor: Its processor.
        folder: Where to write. Files of other names that are there already stay, unless they are weights of a model.

    Returns:
        `pathlib.Path`: The folder.

    Raises:
        ValueError: If `folder` is a file, the model's class has no Auto class, or the processor is of another kind.
        OSError: If it cannot be written; the folder is then as it was.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"folder: expected a folder, got the file {folder}. Choose another name.")
    if type(model).__name__ not in _MODEL_AUTO_CLASSES:
        raise ValueError(f"model: expected one of {', '.join(_MODEL_AUTO_CLASSES)}, got {type(model).__name__}.")
    if type(processor).__name__ != LPSProcessor.__name__:
        raise ValueError(f"processor: expected an {LPSProcessor.__name__}, got {type(processor).__name__}.")
    there_already = folder.exists()
    # On the disk of the folder, so that files can be moved: a folder that exists may be a disk of its own.
    nearby = folder if there_already else folder.parent
    nearby.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=nearby, prefix=".lps-hf-") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        try:
            with _carrying_code(model, processor):
                # With names that later versions of transformers read too.
                model.save_pretrained(new, save_original_format=True)
                processor.save_pretrained(new)
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(f"{folder}: the weights cannot be written. {error}") from error
        _add_base_model_to_auto_map(new / "config.json")
        if there_already:
            _exchange(new, folder, old)
        else:
            new.rename(folder)
    return folder


def _exchange(new: Path, folder: Path, old: Path) -> None:
    """Move all files of `new` to `folder`, and what they replace to `old`; if one move fails, undo those before it."""
    old.mkdir()
    # The weights last: nobody finds new weights beside an old configuration.
    names = sorted((file.name for file in new.iterdir()), key=lambda name: (bool(_WEIGHTS_FILE.fullmatch(name)), name))
    # Weights in another number of shards would be found before the new ones.
    replaced = {file.name for file in folder.iterdir() if file.name in names or _WEIGHTS_FILE.fullmatch(file.name)}
    moves = [(folder / name, old / name) for name in replaced] + [(new / name, folder / name) for name in names]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise


def _add_base_model_to_auto_map(config_file: Path) -> None:
    """Let `AutoModel` find the symmetrized function of a task checkpoint without the package, as it does with it."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["auto_map"]["AutoModel"] = "modeling_lps.LPSModel"
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def publish(
    model: LPSPreTrainedModel,
    processor: LPSProcessor,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload symmetrized model",
) -> CommitInfo:
    """Upload model, processor and code to the Hub as one commit.

    Args:
        model: The model.
        processor: Its processor.
        repo_id: `user/name`; created if it does not exist.
        private: Whether a new repository is private.
        revision: Branch; created if it does not exist.
        token: Hub token.
        commit_message: Message of the commit.

    Returns:
        `CommitInfo`: with the commit's hash (`oid`), to load this very state later with `revision=`.

    Raises:
        ValueError: As `save_checkpoint`; nothing has then been sent.
        huggingface_hub.errors.HfHubHTTPError: If the Hub refuses.
        ConnectionError: If it cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="lps-hf-") as temporary:
        folder = save_checkpoint(model, processor, Path(temporary) / "checkpoint")
        api = HfApi(token=token)
        try:
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            return api.upload_folder(
                folder_path=folder,
                repo_id=repo_id,
                revision=revision,
                commit_message=commit_message,
                # Weights in another number of shards; what is uploaded now is not deleted.
                delete_patterns=["model.safetensors*", "model-*-of-*.safetensors"],
            )
        except HfHubHTTPError:
            raise
        except HTTPError as error:  # no answer, and no OSError
            raise ConnectionError(f"{api.endpoint}: expected a Hub there, got no answer. {error}") from error
