"""What was measured of the checkpoint that a model was loaded from, while the model is still that one."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from lps_hf.models.configuration_lps import LPSConfig

from .model_card import is_own_card
from .results_files import CARD_FILE, WEIGHTS_FILE, read_results

logger = logging.get_logger(__name__)

# Fields that what was measured does not depend on: of training, of computing, or told by the results themselves.
_FREE_FIELDS = {
    *("num_samples", "num_eval_samples", "tolerance", "min_eval_samples", "max_eval_samples", "samples_per_pass"),
    *("sample_loss", "entropy_loss_coef", "prior_loss_coef", "patch_dropout", "class_weighted"),
    "variance_prior",  # of error bars
    "backbone_config",  # libraries write their versions and types into it, and the weights tell the rest
}
_KEPT_FIELDS = ("license", "license_name", "license_link", "language", "base_model", "datasets")


def results_of_origin(origin: Path, folder: Path) -> dict[str, Any] | None:
    """The results of a checkpoint, if they hold for another one, which was written of the model that was loaded from it.

    Args:
        origin: The checkpoint that the model was loaded from; it need not exist.
        folder: Holds what has been saved of the model now.

    Returns:
        `dict`: What results.json holds; `None` where there is none, or weights, settings or processor are no longer the same.
    """
    try:
        results = read_results(origin)
        return results if results and _is_same_model(origin, folder) else None
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        logger.warning(f"The results of {origin} are not kept, as they or its weights cannot be read. {error}")
        return None


def card_fields_of(folder: Path) -> dict[str, Any]:
    """What was given for the card of a checkpoint that this package made.

    Args:
        folder: The checkpoint.

    Returns:
        `dict`: Arguments of `make_model_card`, such as the licence.
    """
    if not is_own_card(folder / CARD_FILE):
        return {}
    header = ModelCard((folder / CARD_FILE).read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
    return {name: header[name] for name in _KEPT_FIELDS if header.get(name)}


def _is_same_model(origin: Path, folder: Path) -> bool:
    config, own = (_read(place / "config.json") for place in (origin, folder))
    fields = {*LPSConfig.__annotations__, "architectures", "num_labels", "problem_type"} - _FREE_FIELDS
    processor, own_processor = (_read(place / "processor_config.json") for place in (origin, folder))
    shared = (processor.keys() & own_processor.keys()) - {"auto_map"}
    return (
        all(config.get(name) == own.get(name) for name in fields)
        and all(processor[name] == own_processor[name] for name in shared)
        and _has_same_weights(origin, folder)
    )


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def _has_same_weights(origin: Path, folder: Path) -> bool:
    with ExitStack() as stack:
        weights, own_weights = (_open_weights(place, stack) for place in (origin, folder))
        return weights.keys() == own_weights.keys() and all(
            _is_same(file.get_tensor(name), own_weights[name].get_tensor(name)) for name, file in weights.items()
        )


def _open_weights(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """The open file of each tensor."""
    found: dict[str, Any] = {}
    for file in folder.iterdir():
        if WEIGHTS_FILE.fullmatch(file.name) and file.suffix == ".safetensors":
            weights = stack.enter_context(safe_open(file, framework="pt"))
            found |= dict.fromkeys(weights.keys(), weights)
    return found


def _is_same(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    return tensor.dtype == other.dtype and torch.equal(tensor, other)
