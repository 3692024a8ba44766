"""Checkpoint files of the published implementation, read without running anything that is in them."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


class PlainRecord:
    """Stands for a class of the published code while a file is read: it keeps the attributes and does nothing."""

    __slots__ = ("attributes",)

    def __init__(self, *args: Any) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


# Lightning stores the arguments of the published module, and two of them are objects. None of these names is looked up: what a
# file calls so becomes a `PlainRecord`.
RECORDS = (
    *("src.optim.optim.OptimizerConfig", "src.optim.lr_scheduler.LRSchedulerConfig"),
    *("argparse.Namespace", "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath"),
)


class PublishedFile(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    """By published name, without the prefix that Lightning puts before it."""
    others: dict[str, str]
    """Further entries of the file, and what they are."""
    hyper_parameters: dict[str, Any]
    """Those that are plain values."""
    run_name: str | None
    """Name of the folder that the run was saved in, which lists its options; `None` where neither file nor path tells."""


def read_published(file: str | Path) -> PublishedFile:
    """Read a Lightning checkpoint, a state dict or a safetensors file.

    Pickles are read by `torch.load(weights_only=True)`: tensors and plain values. Nothing in a file is ever run.

    Args:
        file: Path of the file.

    Returns:
        `PublishedFile`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else, among it objects that would have to be run to be read.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: expected a checkpoint file of the published implementation, found none.")
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{file}: expected a dictionary of tensors, got {type(content).__name__}.")
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping):
        raise ValueError(f"{file}: expected a dictionary of tensors in 'state_dict', got {type(state).__name__}.")
    others = {} if state is content else {key: _meaning(key) for key in content if key != "state_dict"}
    wrong = [key for key, tensor in state.items() if not (isinstance(key, str) and isinstance(tensor, Tensor))]
    if wrong or not state:
        raise ValueError(
            f"{file}: expected tensors by name, as in a Lightning checkpoint's 'state_dict' or what "
            f"torch.save(model.state_dict(), …) writes, got {f'something else in {wrong[0]!r}' if wrong else 'none'}."
        )
    # In a safetensors file, which is flat, tensors of a state dict may stand beside others.
    outside = [key for key in state if not key.startswith("state_dict/")]
    if len(outside) < len(state):
        others |= {f"{key.split('/')[0]}/…": "no part of the state dict" for key in outside}
        state = {key.removeprefix("state_dict/"): tensor for key, tensor in state.items() if key.startswith("state_dict/")}
    if all(key.startswith("model.") for key in state):
        state = {key.removeprefix("model."): tensor for key, tensor in state.items()}
    given = content.get("hyper_parameters") if state is not content else None
    given = given.attributes if isinstance(given, PlainRecord) else given
    plain = {key: value for key, value in given.items() if _is_plain(value)} if isinstance(given, Mapping) else {}
    return PublishedFile(dict(state), others, plain, _run_name(file, content))


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: expected a safetensors file, but it cannot be read. {error}") from error


def _read_pickle(file: Path) -> Any:
    # Mapped into memory, the optimizer's state, twice the size of the weights, is never read.
    mapped = zipfile.is_zipfile(file)
    try:
        with torch.serialization.safe_globals([(PlainRecord, name) for name in RECORDS]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other formats of pickles, which are read or refused here
            return torch.load(str(file), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(file, error)) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, OSError) as error:
        raise ValueError(f"{file}: expected a checkpoint that torch.save wrote, but it cannot be read. {error}") from error


def _refusal(file: Path, error: Exception) -> str:
    try:
        names = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(file)) - set(RECORDS))
    except Exception:  # an old format; torch's own words name the first
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    what = ", ".join(names[:5]) + (" …" if len(names) > 5 else "") if names else "of no name"
    return (
        f"{file}: expected tensors and plain values only, got objects that would have to be run to be read: {what}. Nothing was "
        "run. If you trust the file, write its tensors alone, where the code that made it is installed: "
        "torch.save({'state_dict': torch.load(file, weights_only=False)['state_dict']}, 'weights.ckpt')."
    )


def _meaning(key: str) -> str:
    known = {
        "optimizer_states": "state of the optimizer",
        "lr_schedulers": "state of the schedule",
        "hyper_parameters": "options of the run: plain values are read",
        "callbacks": "state of training: the run's name is read",
    }
    return known.get(key, "state of training")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _run_name(file: Path, content: Mapping[str, Any]) -> str | None:
    """The name that the published code gives to a run's folder, as in `k_1,eval_k_10,z_1.0,tau_0.01,hard,…`."""
    callbacks = content.get("callbacks")
    states = [state for state in callbacks.values() if isinstance(state, Mapping)] if isinstance(callbacks, Mapping) else []
    paths = [state[key] for state in states for key in ("dirpath", "best_model_path") if isinstance(state.get(key), str)]
    parts = [part for path in (file.absolute().as_posix(), *paths) for part in reversed(Path(path).parts)]
    return next((part for part in parts if {"k", "lr"} <= {option.split("_")[0] for option in part.split(",")}), None)
