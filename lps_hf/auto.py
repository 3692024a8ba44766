"""The registration table: every class of the package that a transformers Auto class can find.

The Auto classes of models and processors take seconds to import, and bring accelerate and SciPy with them. Whoever imports
lps_hf does not wait for that: each row of the table is registered as soon as its Auto class is imported, and the registered
class itself is imported when it is first used. Pipelines likewise.
"""

import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from transformers import AutoConfig

from lps_hf.models.configuration_lps import LPSConfig, check_is_symmetrized

_MODELS, _PROCESSORS = "transformers.models.auto.modeling_auto", "transformers.models.auto.processing_auto"
_PIPELINES = "transformers.pipelines"

# Arguments of `from_pretrained` that say where a configuration lies.
_WHERE = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder", "proxies")

# Class, the room it is defined in, its Auto class, and the module of that.
AUTO_CLASSES = (
    ("LPSProcessor", "processing_lps", "AutoProcessor", _PROCESSORS),
    ("LPSModel", "modeling_lps", "AutoModel", _MODELS),
    ("LPSForGraphClassification", "modeling_heads_lps", "AutoModelForSequenceClassification", _MODELS),
    ("LPSForNodeClassification", "modeling_heads_lps", "AutoModelForTokenClassification", _MODELS),
    ("LPSForImageClassification", "modeling_heads_lps", "AutoModelForImageClassification", _MODELS),
)

# Heads that no Auto class of transformers fits, or that another head stands for in theirs. Their checkpoints name this one;
# `AutoModel` finds the symmetrized function φ itself in all of them, with the package and with remote code alike.
OTHER_HEADS = {
    "LPSForPointCloudClassification": "AutoModelForSequenceClassification",
    "LPSForLinkPrediction": "AutoModel",
    "LPSForParticleDynamics": "AutoModel",
}

# Readable names: of an Auto class of transformers, or of a head that none of them covers.
ALIASES = {
    "AutoModelForGraphClassification": "AutoModelForSequenceClassification",
    "AutoModelForNodeClassification": "AutoModelForTokenClassification",
    "AutoModelForLinkPrediction": "LPSForLinkPrediction",
    "AutoModelForParticleDynamics": "LPSForParticleDynamics",
}

# What loads a head: an Auto class of transformers, and where the package is the readable name, if no Auto class fits.
MODEL_AUTO_CLASSES = {
    **{name: auto_class for name, _, auto_class, module in AUTO_CLASSES if module == _MODELS},
    **OTHER_HEADS,
}
OWN_AUTO_CLASSES = {**MODEL_AUTO_CLASSES, **{meaning: alias for alias, meaning in ALIASES.items() if meaning.startswith("LPS")}}

# Task of `transformers.pipeline`, the pipeline's class, and the head that it is for.
PIPELINES = (
    ("graph-classification", "GraphClassificationPipeline", "LPSForGraphClassification"),
    ("graph-regression", "GraphClassificationPipeline", "LPSForGraphClassification"),
    ("molecule-regression", "GraphClassificationPipeline", "LPSForGraphClassification"),
    ("point-cloud-classification", "GraphClassificationPipeline", "LPSForPointCloudClassification"),
    ("node-classification", "NodeClassificationPipeline", "LPSForNodeClassification"),
    ("link-prediction", "LinkPredictionPipeline", "LPSForLinkPrediction"),
    ("particle-dynamics", "ParticleDynamicsPipeline", "LPSForParticleDynamics"),
    # transformers' own "image-classification" is left alone; it takes our models too.
    ("symmetrized-image-classification", "SymmetrizedImageClassificationPipeline", "LPSForImageClassification"),
)


class LazyClass:
    """Stands for a class in a registration until somebody uses it.

    Args:
        module: Name of the module that defines the class.
        name: Name of the class.
    """

    config_class = LPSConfig

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__name__, self.__qualname__ = module, name, name

    def _resolve(self) -> type:
        return getattr(import_module(self.__module__), self.__name__)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._resolve(), attribute)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._resolve()(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._resolve(),)


class _OwnPipelines(dict[str, Any]):
    """What `pipeline()` finds as the `custom_pipelines` of a configuration: the name of the task, if none is given.

    It finds no task *in* them, so that it takes the registered pipeline, where it would ask to run the code of the checkpoint.
    """

    def __contains__(self, task: object) -> bool:
        return False


def pipelines_of(config: LPSConfig) -> dict[str, Any]:
    """The pipeline of a saved model, in the form of the key `custom_pipelines` of `config.json`.

    Args:
        config: With `architectures`, which saving sets.

    Returns:
        `dict`: Of one task, or of none where there is no head.
    """
    head, regression = (config.architectures or [""])[0], config.problem_type == "regression"
    rows = [row for row in PIPELINES if row[2] == head]
    if head == "LPSForGraphClassification":
        task = "molecule-regression" if "positions" in (config.inputs or {}) else "graph-regression"
        rows = [row for row in rows if row[0] == (task if regression else "graph-classification")]
    # A head that transformers has no Auto class for is made of what `AutoModel` loads.
    return _OwnPipelines({task: {"impl": f"pipeline_lps.{name}", "pt": [MODEL_AUTO_CLASSES[head]]} for task, name, head in rows})


class _RegisterAfterImport(MetaPathFinder, Loader):
    """Runs our registration right after an Auto module has been imported."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in (_MODELS, _PROCESSORS, _PIPELINES):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None:
            spec.loader_state, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        loader = spec.loader = module.__loader__ = spec.loader_state
        loader.exec_module(module)
        _register_in(module)


def _register_in(module: ModuleType) -> None:
    if module.__name__ == _PIPELINES:
        _register_pipelines_in(module.PIPELINE_REGISTRY)
    for name, room, auto_name, auto_module in AUTO_CLASSES:
        if auto_module == module.__name__:
            getattr(module, auto_name).register(LPSConfig, LazyClass(f"lps_hf.models.{room}", name), exist_ok=True)


def _register_pipelines_in(registry: Any) -> None:
    for task, name, head in PIPELINES:
        auto_name = OWN_AUTO_CLASSES[head]
        if not isinstance(registry.supported_tasks.get(task, {}).get("impl"), LazyClass):
            auto_class = make_alias(auto_name) if auto_name in ALIASES else getattr(import_module(_MODELS), auto_name)
            registry.register_pipeline(task, LazyClass("lps_hf.models.pipeline_lps", name), pt_model=auto_class)


def register() -> None:
    """Register every class of the tables, now or when transformers imports what it belongs to; again, it changes nothing."""
    AutoConfig.register(LPSConfig.model_type, LPSConfig, exist_ok=True)
    # Where the package is, its pipelines stand for those of a checkpoint, as its models do.
    LPSConfig.custom_pipelines = property(pipelines_of, lambda config, value: None)  # type: ignore[attr-defined]
    for name in (_MODELS, _PROCESSORS, _PIPELINES):
        if name in sys.modules:
            _register_in(sys.modules[name])
    if not any(isinstance(finder, _RegisterAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterAfterImport())


class _OnlyOurs:
    """Of a readable Auto class: refuses plain backbones, where transformers lists all models, or loads one of another kind."""

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Any:
        check_is_symmetrized("config", config)
        return super().from_config(config, **kwargs)  # type: ignore[misc]

    @classmethod
    def from_pretrained(cls, name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("config") is not None:
            check_is_symmetrized("config", kwargs["config"])
        else:
            where = {key: kwargs[key] for key in _WHERE if key in kwargs}
            with suppress(OSError):  # of which transformers says more, or knows more, as of adapters
                LPSConfig.get_config_dict(name_or_path, **where)
        return super().from_pretrained(name_or_path, *args, **kwargs)  # type: ignore[misc]


def make_alias(name: str) -> type:
    """Make a readable Auto class, such as `lps_hf.AutoModelForGraphClassification`; see `ALIASES`."""
    meaning = ALIASES[name]
    if not meaning.startswith("LPS"):
        parent = getattr(import_module(_MODELS), meaning)
        return type(name, (_OnlyOurs, parent), {"__doc__": f"`{meaning}` under a name that says what it is here."})
    factory = import_module("transformers.models.auto.auto_factory")
    mapping = factory._LazyAutoMapping(OrderedDict(), OrderedDict())
    alias = type(
        name, (_OnlyOurs, factory._BaseAutoModelClass), {"_model_mapping": mapping, "__doc__": f"Loads `{meaning}` checkpoints."}
    )
    alias.register(LPSConfig, LazyClass("lps_hf.models.modeling_heads_lps", meaning))  # type: ignore[attr-defined]
    return alias
