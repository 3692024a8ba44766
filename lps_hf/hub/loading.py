"""Loading checkpoints of every head, by Hub id or folder; only code of this package runs."""

import json
from pathlib import Path

import transformers
from safetensors import SafetensorError

import lps_hf
from lps_hf.auto import ALIASES, OWN_AUTO_CLASSES
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSPreTrainedModel
from lps_hf.models.processing_lps import LPSProcessor

from .fetching import fetch


def load_checkpoint(
    repo_id_or_folder: str | Path, *, revision: str | None = None, token: str | bool | None = None
) -> tuple[LPSPreTrainedModel, LPSProcessor]:
    """Load a checkpoint with the class it was saved from, and its processor.

    Args:
        repo_id_or_folder: Hub id or folder.
        revision: Branch, tag or commit.
        token: Hub token.

    Returns:
        The model in evaluation mode, and the processor.

    Raises:
        ValueError: If it is no checkpoint of this package, or its weights do not fit its configuration.
        OSError: If it cannot be found, or as `fetch`.
    """
    folder = Path(repo_id_or_folder)
    if not folder.is_dir():
        # No id begins like a path.
        if isinstance(repo_id_or_folder, Path) or repo_id_or_folder.startswith(("/", ".", "~")):
            raise FileNotFoundError(f"{folder}: expected a checkpoint folder, found none.")
        folder = fetch(repo_id_or_folder, revision=revision, token=token)
    model = load_by_auto_class(folder)
    try:
        return model, LPSProcessor.from_pretrained(folder, trust_remote_code=False)
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{folder}: expected the settings of a processor in processor_config.json. {error}") from error


def load_by_auto_class(folder: str | Path) -> LPSPreTrainedModel:
    """Load a checkpoint folder as its users do: by the Auto class of its head, or the readable one where there is no other.

    Args:
        folder: The folder.

    Returns:
        The model in evaluation mode. Only classes of this package are used, never the code in the folder.

    Raises:
        ValueError: If it is no checkpoint of this package.
        OSError: If there is none.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: expected a checkpoint folder with config.json, found none.")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        architecture = str((settings.get("architectures") or [""])[0])
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{file}: expected the settings of a model, got something else. {error}") from error
    name = OWN_AUTO_CLASSES.get(architecture)
    if settings.get("model_type") != LPSConfig.model_type or name is None:
        raise ValueError(
            f"{folder}: expected a checkpoint of lps_hf, got model type {settings.get('model_type')!r} and class "
            f"{architecture!r}. To make a backbone equivariant, use from_backbone_pretrained or `lps-hf symmetrize`."
        )
    auto_class = getattr(lps_hf if name in ALIASES else transformers, name)
    try:
        model = auto_class.from_pretrained(Path(folder).absolute(), trust_remote_code=False).eval()
    except SafetensorError as error:
        raise ValueError(f"{folder}: expected weights, got a file that is damaged or not whole. {error}") from error
    except (AttributeError, KeyError) as error:  # of settings that are not what they should be
        raise ValueError(f"{folder}: expected the settings of a model in config.json. {error}") from error
    # Weights stay where they lie in the file, at any address, and a CPU adds up in another order where it is not a round one.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model
