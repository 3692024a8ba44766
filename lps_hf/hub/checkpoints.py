"""Checkpoint folders that carry their code, written in one piece."""

import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from safetensors import SafetensorError

from lps_hf.auto import MODEL_AUTO_CLASSES
from lps_hf.evaluation.json_text import json_text
from lps_hf.evaluation.samples_figure import samples_figure
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSPreTrainedModel
from lps_hf.models.processing_lps import LPSProcessor

from .model_card import is_own_card, make_model_card
from .origins import card_fields_of, results_of_origin
from .remote_code import add_code
from .results_files import CARD_FILE, FIGURE_FILE, RESULTS_FILE, WEIGHTS_FILE


def save_checkpoint(
    model: LPSPreTrainedModel,
    processor: LPSProcessor,
    folder: str | Path,
    *,
    results: Mapping[str, Any] | None = None,
    card: ModelCard | str | None = None,
    max_shard_size: int | str | None = None,
    origin: Path | None = None,
) -> Path:
    """Write model, processor and the code they need to a folder, and what was measured; all of it or nothing.

    It loads with `trust_remote_code=True` where lps_hf is not installed, and without any flag where it is imported.

    Args:
        model: The model.
        processor: Its processor.
        folder: Where to write. Files of other names that are there already stay, unless they are weights of a model, or figures
            that were measured of these weights (results.json, samples.png). A card that was made by this package is made anew.
        results: What was measured, for results.json, the model card (README.md) and, where matplotlib is installed, the figure
            of metric and equivariance error against the number of samples (samples.png). Default: the results of `origin`, if
            the model and its processor are still what they were there.
        card: The model card, if not the one made from `results`. Without both, none is written.
        max_shard_size: Largest size of a file of weights, such as `"5GB"`.
        origin: The checkpoint folder that the model was loaded from. Default: as the model says, if that is a folder.

    Returns:
        `pathlib.Path`: The folder.

    Raises:
        ValueError: If `folder` is a file, the model's class has no Auto class, or the processor is of another kind.
        TypeError: If `results` holds what JSON cannot.
        OSError: If it cannot be written; the folder is then as it was.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"folder: expected a folder, got the file {folder}. Choose another name.")
    check_parts(model, processor)
    there_already = folder.exists()
    # On the disk of the folder, so that files can be moved: a folder that exists may be a disk of its own.
    nearby = folder if there_already else folder.parent
    nearby.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=nearby, prefix=".lps-hf-") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        try:
            # With names that later versions of transformers read too.
            sharding: dict[str, Any] = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
            model.save_pretrained(new, save_original_format=True, **sharding)
            processor.save_pretrained(new)
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(f"{folder}: the weights cannot be written. {error}") from error
        add_code(new, model, processor)
        if results is None:
            origin = origin or Path(model.name_or_path or new)
            results = results_of_origin(origin, new)
            if results is not None and card is None:
                card = make_model_card(model, results, figure=figure_name(results), **card_fields_of(origin))
        if results is None and card is None and is_own_card(folder / CARD_FILE):
            card = make_model_card(model)  # the one that is there tells figures of other weights
        _write_report(new, model, results, card)
        if there_already:
            _exchange(new, folder, old)
        else:
            new.rename(folder)
    return folder


def check_parts(model: LPSPreTrainedModel, processor: LPSProcessor) -> None:
    """Refuse what cannot be shared.

    Raises:
        ValueError: If the model's class has no Auto class, or the processor is of another kind.
    """
    if type(model).__name__ not in MODEL_AUTO_CLASSES:
        raise ValueError(f"model: expected one of {', '.join(MODEL_AUTO_CLASSES)}, got {type(model).__name__}.")
    if type(processor).__name__ != LPSProcessor.__name__:
        raise ValueError(f"processor: expected an {LPSProcessor.__name__}, got {type(processor).__name__}.")


def figure_name(results: Mapping[str, Any] | None) -> str | None:
    """Name of the figure that `save_checkpoint` draws of these results, or `None` where it draws none."""
    points = (results or {}).get("samples") or []
    is_drawn = find_spec("matplotlib") is not None and any(point.get("metric") is not None for point in points)
    return FIGURE_FILE if is_drawn else None


def write_report(folder: str | Path, results: Mapping[str, Any]) -> None:
    """Write results.json, card and figure anew, beside a checkpoint that is there; each file is replaced in one piece.

    Args:
        folder: The checkpoint.
        results: What was measured, as for `save_checkpoint`.

    Raises:
        OSError: If there is no checkpoint, or it cannot be written.
        TypeError: If `results` holds what JSON cannot.
    """
    config = LPSConfig.from_pretrained(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".lps-hf-") as temporary:
        _write_report(Path(temporary), config, results, card=None)
        # The card last: it tells of what is there.
        for file in sorted(Path(temporary).iterdir(), key=lambda file: file.name == CARD_FILE):
            file.replace(Path(folder) / file.name)


def _write_report(
    folder: Path, model: LPSPreTrainedModel | LPSConfig, results: Mapping[str, Any] | None, card: ModelCard | str | None
) -> None:
    if results is not None:
        (folder / RESULTS_FILE).write_text(json_text(results) + "\n", encoding="utf-8")
        figure = figure_name(results)
        if figure is not None:
            samples_figure(results).savefig(folder / figure)
        if card is None:
            card = make_model_card(model, results, figure=figure)
    if card is not None:
        (folder / CARD_FILE).write_text(str(card), encoding="utf-8")


def _exchange(new: Path, folder: Path, old: Path) -> None:
    """Move all files of `new` to `folder`, and what they replace to `old`; if one move fails, undo those before it."""
    old.mkdir()
    # The weights last: nobody finds new weights beside an old configuration.
    names = sorted((file.name for file in new.iterdir()), key=lambda name: (bool(WEIGHTS_FILE.fullmatch(name)), name))
    replaced = {file.name for file in folder.iterdir() if file.name in names or is_outdated(file.name)}
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


def is_outdated(name: str) -> bool:
    """Whether a file says something of the weights that a new checkpoint replaces, and must not stay beside it."""
    # Weights in another number of shards would be found before the new ones.
    return bool(WEIGHTS_FILE.fullmatch(name)) or name in (RESULTS_FILE, FIGURE_FILE)
