"""Checkpoint folders that carry their code, written in one piece and uploaded as one commit."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi

from lps_hf.auto import AUTO_CLASSES
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSPreTrainedModel
from lps_hf.models.processing_lps import LPSProcessor

_MODEL_AUTO_CLASSES = {name: auto_class for name, _, auto_class, _ in AUTO_CLASSES}


@contextmanager
def _carrying_code(model_class: type[LPSPreTrainedModel]) -> Iterator[None]:
    """Mark the classes, so that saving copies the Hub room; only here, or every Trainer checkpoint would copy it too."""
    marks = {
        LPSConfig: "AutoConfig",
        LPSProcessor: "AutoProcessor",
        model_class: _MODEL_AUTO_CLASSES[model_class.__name__],
    }
    try:
        for cls, auto_class in marks.items():
            cls._auto_class = auto_class
        yield
    finally:
        for cls in marks:
            cls._auto_class = None


def save_checkpoint(model: LPSPreTrainedModel, processor: LPSProcessor, folder: str | Path) -> Path:
    """Write model, processor and the code they need to a folder, all of it or nothing.

    The folder loads with `trust_remote_code=True` where lps_hf is not installed, and without any flag where it is imported.

    Args:
        model: The model.
        processor: Its processor.
        folder: Where to write. Files of other names that are there already stay.

    Returns:
        `pathlib.Path`: The folder.

    Raises:
        ValueError: If `folder` is a file, or the model's class has no Auto class.
        OSError: If it cannot be written; the folder is then as it was.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"folder: expected a folder, got the file {folder}. Choose another name.")
    if type(model).__name__ not in _MODEL_AUTO_CLASSES:
        raise ValueError(f"model: expected one of {', '.join(_MODEL_AUTO_CLASSES)}, got {type(model).__name__}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        new = Path(temporary) / folder.name
        with _carrying_code(type(model)):
            model.save_pretrained(new)
            processor.save_pretrained(new)
        _add_base_model_to_auto_map(new / "config.json")
        if not folder.exists():
            new.rename(folder)
            return folder
        names = {file.name for file in new.iterdir()}
        # The weights last: whoever sees new weights sees the configuration that belongs to them.
        for name in sorted(names, key=lambda name: name.endswith(".safetensors")):
            (new / name).replace(folder / name)
        # Weights in another number of shards would be found before the new ones.
        for file in folder.glob("model*.safetensors*"):
            if file.name not in names:
                file.unlink()
    return folder


def _add_base_model_to_auto_map(config_file: Path) -> None:
    """Let `AutoModel` find the symmetrized function of a task checkpoint without the package, as it does with it."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["auto_map"].setdefault("AutoModel", "modeling_lps.LPSModel")
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
        huggingface_hub.errors.HfHubHTTPError: If the Hub refuses.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lps-hf-") as temporary:
        folder = save_checkpoint(model, processor, Path(temporary) / "checkpoint")
        return api.upload_folder(folder_path=folder, repo_id=repo_id, revision=revision, commit_message=commit_message)
