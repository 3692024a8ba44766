"""`push_to_hub` of models, processors and pipelines: the same as `publish`."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import PreTrainedModel
from transformers.utils import logging

from lps_hf.auto import MODEL_AUTO_CLASSES
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSPreTrainedModel
from lps_hf.models.pipeline_lps import LPSPipeline
from lps_hf.models.processing_lps import LPSProcessor

from .errors import hub_errors
from .publishing import Sending, publish
from .remote_code import add_processor_code

logger = logging.get_logger(__name__)

_PROCESSOR_FILE = "processor_config.json"


def push_model(model: LPSPreTrainedModel, repo_id: str, **options: Any) -> Any:
    """What `LPSPreTrainedModel.push_to_hub` does.

    Args:
        model: The model.
        repo_id: The repository.
        options: Those of `push_to_hub`.

    Returns:
        `CommitInfo`.

    Raises:
        OSError: As `publish`.
    """
    if type(model).__name__ not in MODEL_AUTO_CLASSES:  # a class of somebody's own, whose code we do not have
        return PreTrainedModel.push_to_hub(model, repo_id, **options)
    return _publish(model, _processor_of(model, repo_id, options), repo_id, options)


def push_pipeline(pipeline: LPSPipeline, repo_id: str, **options: Any) -> Any:
    """What `LPSPipeline.push_to_hub` does.

    Args:
        pipeline: The pipeline.
        repo_id: The repository.
        options: Those of `push_to_hub`.

    Returns:
        `CommitInfo`.
    """
    return _publish(pipeline.model, pipeline.processor, repo_id, options)


def push_processor(processor: LPSProcessor, repo_id: str, *, tags: Any = None, max_shard_size: Any = None, **options: Any) -> Any:
    """What `LPSProcessor.push_to_hub` does: one commit of its settings and code, and nothing else is touched.

    Args:
        processor: The processor.
        repo_id: The repository.
        tags: Not used: the card is the model's.
        max_shard_size: Not used.
        options: Those of `push_to_hub`.

    Returns:
        `CommitInfo`.

    Raises:
        OSError: As `publish`.
    """
    message = options.pop("commit_message", None) or "Upload processor"
    send = _sending(repo_id, options, message)
    with tempfile.TemporaryDirectory(prefix="lps-hf-") as temporary:
        folder = Path(temporary)
        processor.save_pretrained(folder)
        config = _file_of(repo_id, "config.json", options)
        settings = json.loads(config.read_text(encoding="utf-8")) if config is not None else {}
        add_processor_code(folder, processor, settings if settings.get("model_type") == LPSConfig.model_type else {})
        return send.send({file.name: file for file in sorted(folder.iterdir())}, replaces_model=False)


def _sending(repo_id: str, options: dict[str, Any], message: str) -> Sending:
    known = {"commit_description", "private", "token", "revision", "create_pr"}
    if unknown := sorted(set(options) - known):
        raise TypeError(f"{unknown[0]}: expected one of commit_message, {', '.join(sorted(known))}.")
    return Sending(
        repo_id,
        revision=options.get("revision"),
        create_pr=options.get("create_pr", False),
        private=options.get("private"),
        tag=None,
        token=options.get("token"),
        commit_message=message,
        commit_description=options.get("commit_description"),
    )


def _publish(model: LPSPreTrainedModel, processor: LPSProcessor, repo_id: str, options: dict[str, Any]) -> CommitInfo:
    options = {name: value for name, value in options.items() if value is not None}
    tags = options.pop("tags", [])
    tags = [*(model.model_tags or []), *([tags] if isinstance(tags, str) else tags)]
    return publish(model, processor, repo_id, tags=list(dict.fromkeys(tags)) or None, **options)  # type: ignore[return-value]


def _processor_of(model: LPSPreTrainedModel, repo_id: str, options: dict[str, Any]) -> LPSProcessor:
    """The processor that fits the model; how images are prepared, only one that is there already can tell."""
    if "pixel_values" not in (model.config.inputs or {}):
        return LPSProcessor.from_config(model.config)
    for file in _processor_files(model, repo_id, options):
        known = LPSProcessor.from_pretrained(file.parent, trust_remote_code=False)
        if known.inputs == model.config.inputs:
            return LPSProcessor.from_config(model.config, known.image_processor)
    logger.warning(
        f"{repo_id}: no processor is known that says how images are prepared, so they will only be divided by 255. "
        "Push the model's own processor too, or give both to lps_hf.hub.publish."
    )
    return LPSProcessor.from_config(model.config)


def _processor_files(model: LPSPreTrainedModel, repo_id: str, options: dict[str, Any]) -> Iterator[Path]:
    """Of the repository, and of where the model was loaded from."""
    origin = model.name_or_path
    if (file := _file_of(repo_id, _PROCESSOR_FILE, options)) is not None:
        yield file
    if origin and Path(origin).is_dir() and (Path(origin) / _PROCESSOR_FILE).is_file():
        yield Path(origin) / _PROCESSOR_FILE
    elif origin and not Path(origin).is_dir():
        commit = getattr(model.config, "_commit_hash", None)
        if (file := _file_of(origin, _PROCESSOR_FILE, {**options, "revision": commit})) is not None:
            yield file


def _file_of(repo_id: str, name: str, options: dict[str, Any]) -> Path | None:
    """A file of a repository; `None` where there is none."""
    api = HfApi(token=options.get("token"))
    with hub_errors(repo_id):
        try:
            repo_id = repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}"
            return Path(api.hf_hub_download(repo_id, name, revision=options.get("revision")))
        except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
            return None
