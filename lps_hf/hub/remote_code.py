"""The code that travels with a checkpoint, so that it loads with `trust_remote_code=True` where lps_hf is not installed."""

import inspect
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_imports

from lps_hf.auto import MODEL_AUTO_CLASSES
from lps_hf.models.modeling_lps import LPSPreTrainedModel
from lps_hf.models.processing_lps import LPSProcessor

SETTINGS_FILES = ("config.json", "processor_config.json")
# Code lies beside the settings: a name that somebody else wrote is no path to another file of this machine.
_CODE_FILE = re.compile(r"[\w-]+\.py")


def add_code(folder: Path, model: LPSPreTrainedModel, processor: LPSProcessor) -> None:
    """Add the code to a folder that `save_pretrained` has written, and name its classes in the settings.

    Marking the classes with `register_for_auto_class` would do the same at every save, and is inherited; here nothing is marked,
    so that no other checkpoint carries code, or claims to.

    Args:
        folder: Holds config.json and processor_config.json.
        model: What was saved; its class and that of its configuration are named.
        processor: Its processor.

    Raises:
        OSError: If a file cannot be read or written.
    """
    classes: dict[str, type] = {"AutoConfig": type(model.config), MODEL_AUTO_CLASSES[type(model).__name__]: type(model)}
    names = {auto_class: _reference(cls) for auto_class, cls in classes.items()}
    # `AutoModel` finds the symmetrized function of a task checkpoint, as it does where the package is installed.
    names["AutoModel"] = "modeling_lps.LPSModel"
    pipelines = dict(getattr(model.config, "custom_pipelines", {}))
    _write_settings(folder / "config.json", auto_map=names, **({"custom_pipelines": pipelines} if pipelines else {}))
    _write_settings(folder / "processor_config.json", auto_map={"AutoProcessor": _reference(type(processor))})
    # From where the classes come: the package, or the checkpoint whose own code they were loaded from.
    rooms = [Path(inspect.getfile(cls)).parent for cls in (type(model), type(model.config), type(processor))]
    for name in _reachable(_named_in(folder), rooms):
        shutil.copyfile(_find(name, rooms), folder / name)


def add_processor_code(folder: Path, processor: LPSProcessor, named: Mapping[str, Any]) -> None:
    """Add the code of a processor to a folder that its `save_pretrained` has written.

    Args:
        folder: Holds processor_config.json.
        processor: What was saved.
        named: The settings of the model that it is put beside, whose code is to be of the same version; empty if there is none.

    Raises:
        OSError: If a file cannot be read or written.
    """
    _write_settings(folder / "processor_config.json", auto_map={"AutoProcessor": _reference(type(processor))})
    rooms = [Path(inspect.getfile(type(processor))).parent]
    theirs = {name for name in _files_named(named) if _find(name, rooms).is_file()}
    for name in _reachable({Path(inspect.getfile(type(processor))).name, *theirs}, rooms):
        shutil.copyfile(_find(name, rooms), folder / name)


def code_files(folder: Path) -> set[str]:
    """Names of the files that loading a checkpoint with remote code takes, whether they are there or not.

    Args:
        folder: The checkpoint.

    Returns:
        `set[str]`: Those that the settings name, and those that they import. None where the settings name no classes.

    Raises:
        ValueError: If a name is that of a file elsewhere.
    """
    if not all("auto_map" in json.loads((folder / name).read_text(encoding="utf-8")) for name in SETTINGS_FILES):
        return set()
    return _reachable(_named_in(folder), [folder])


def _named_in(folder: Path) -> set[str]:
    """Files of the classes that the settings of a checkpoint name."""
    found = [_files_named(json.loads((folder / name).read_text(encoding="utf-8"))) for name in SETTINGS_FILES]
    return set().union(*found)


def _files_named(settings: Mapping[str, Any]) -> set[str]:
    references = [*settings.get("auto_map", {}).values()]
    references += [pipeline["impl"] for pipeline in settings.get("custom_pipelines", {}).values()]
    return {f"{reference.split('.')[0]}.py" for reference in references}


def _reachable(names: set[str], folders: list[Path]) -> set[str]:
    """These files, and all that they import from beside them."""
    reached, pending = set(names), sorted(names)
    while pending:
        name = pending.pop()
        if not _CODE_FILE.fullmatch(name):
            raise ValueError(f"auto_map: expected code that lies beside the settings, got {name!r}.")
        file = _find(name, folders)
        imported = {f"{module}.py" for module in get_relative_imports(file)} if file.is_file() else set()
        pending += sorted(imported - reached)
        reached |= imported
    return reached


def _find(name: str, folders: list[Path]) -> Path:
    """The file of that name in the first folder that has it."""
    return next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)


def _reference(cls: type) -> str:
    return f"{cls.__module__.rsplit('.', 1)[-1]}.{cls.__name__}"


def _write_settings(file: Path, **values: Any) -> None:
    settings = json.loads(file.read_text(encoding="utf-8")) | values
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
