"""Importing lps_hf: what it registers, what it does not load, and that the Hub room can travel without it."""

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
)
from transformers.dynamic_module_utils import get_imports

import lps_hf
import lps_hf.models
from lps_hf import auto
from lps_hf.hub import save_checkpoint
from tests.limits import HANGS_AFTER
from tests.tiny import tiny_classifier, tiny_config, tiny_vit

PUBLIC = {
    "AutoModelForGraphClassification": "lps_hf.auto",
    "AutoModelForLinkPrediction": "lps_hf.auto",
    "AutoModelForNodeClassification": "lps_hf.auto",
    "AutoModelForParticleDynamics": "lps_hf.auto",
    "DataCollatorForGraphs": "lps_hf.data.collator",
    "LPSConfig": "lps_hf.models.configuration_lps",
    "LPSForGraphClassification": "lps_hf.models.modeling_heads_lps",
    "LPSForImageClassification": "lps_hf.models.modeling_heads_lps",
    "LPSForLinkPrediction": "lps_hf.models.modeling_heads_lps",
    "LPSForNodeClassification": "lps_hf.models.modeling_heads_lps",
    "LPSForParticleDynamics": "lps_hf.models.modeling_heads_lps",
    "LPSForPointCloudClassification": "lps_hf.models.modeling_heads_lps",
    "LPSModel": "lps_hf.models.modeling_lps",
    "LPSPreTrainedModel": "lps_hf.models.modeling_lps",
    "LPSProcessor": "lps_hf.models.processing_lps",
    "LPSTrainer": "lps_hf.training.trainer",
    "LPSTrainingArguments": "lps_hf.training.arguments",
    "symmetrize": "lps_hf.models.symmetrized",
}
SLOW = {
    "accelerate",
    "datasets",
    "matplotlib",
    "pandas",
    "rdkit",
    "scipy",
    "sklearn",
    "torch_geometric",
    "torchvision",
}

FRESH_PROCESS = """
import importlib, json, sys
import torch, transformers
print("== lps_hf", file=sys.stderr, flush=True)
import lps_hf
print("== end", file=sys.stderr, flush=True)
seen = {"loaded": sorted(sys.modules), "meta_path": [type(finder).__name__ for finder in sys.meta_path]}

# The Auto classes come after the package, and register themselves.
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor
from transformers.models.auto import modeling_auto, processing_auto
from transformers.utils import logging

logging.disable_progress_bar()
folder = sys.argv[1]
auto_classes = [AutoConfig, AutoModel, AutoModelForSequenceClassification, lps_hf.AutoModelForGraphClassification]
seen["classes"] = [type(auto.from_pretrained(folder)).__name__ for auto in (*auto_classes, AutoProcessor)]
seen["loaders"] = [type(module.__spec__.loader).__name__ for module in (modeling_auto, processing_auto)]
seen["same loader"] = all(module.__loader__ is module.__spec__.loader for module in (modeling_auto, processing_auto))
reloaded = importlib.reload(processing_auto)
seen["after a reload"] = type(reloaded.AutoProcessor.from_pretrained(folder)).__name__
seen["public"] = {name: getattr(lps_hf, name).__module__ for name in lps_hf.__all__ if name != "__version__"}
names = {}
exec("from lps_hf import *", names)
from transformers import pipeline
seen["pipeline"] = type(pipeline(model=folder)).__name__
seen["starred"] = sorted(set(names) - {"__builtins__"})
print(json.dumps(seen))
"""


def test_a_fresh_process_loads_little_and_finds_everything(tmp_path):
    model = tiny_classifier()
    save_checkpoint(model, lps_hf.LPSProcessor.from_config(model.config), tmp_path)
    command = [sys.executable, "-W", "error", "-X", "importtime", "-c", FRESH_PROCESS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER)
    assert done.returncode == 0, done.stderr.replace("import time:", "")[-3000:]
    seen = json.loads(done.stdout)

    by_us = done.stderr.partition("== lps_hf\n")[2].partition("== end\n")[0]
    imported = {line.rpartition("|")[2].strip() for line in by_us.splitlines() if line.startswith("import time:")}
    assert "lps_hf" in imported
    assert not {name.partition(".")[0] for name in imported} & SLOW
    assert not {name.partition(".")[0] for name in seen["loaded"]} & SLOW
    for slow in (
        "lps_hf.models.modeling_lps",
        "transformers.modeling_utils",
        "transformers.models.auto.modeling_auto",
        "transformers.pipelines",
    ):
        assert slow not in seen["loaded"]
    assert seen["meta_path"].count("_RegisterAfterImport") == 1

    classifier = "LPSForGraphClassification"
    assert seen["classes"] == ["LPSConfig", "LPSModel", classifier, classifier, "LPSProcessor"]
    assert seen["loaders"] == ["SourceFileLoader"] * 2
    assert seen["same loader"] is True
    assert seen["after a reload"] == "LPSProcessor"
    assert seen["public"] == PUBLIC
    assert seen["starred"] == sorted([*PUBLIC, "__version__"])
    assert seen["pipeline"] == "GraphClassificationPipeline"


# The table


def test_public_names():
    assert set(lps_hf.__all__) == {*PUBLIC, "__version__"}
    assert {name: getattr(lps_hf, name).__module__ for name in PUBLIC} == PUBLIC
    assert all(getattr(lps_hf, name).__name__ == name for name in PUBLIC)
    assert dir(lps_hf) == sorted(lps_hf.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", lps_hf.__version__)
    with pytest.raises(AttributeError, match="module 'lps_hf' has no attribute 'LPSTrainr'"):
        _ = lps_hf.LPSTrainr


@pytest.mark.parametrize(("name", "room", "auto_name", "auto_module"), auto.AUTO_CLASSES)
def test_every_row_of_the_table(name, room, auto_name, auto_module):
    cls = getattr(importlib.import_module(f"lps_hf.models.{room}"), name)
    assert cls is getattr(lps_hf, name)
    assert getattr(transformers, auto_name) is getattr(sys.modules[auto_module], auto_name)
    assert auto_name == "AutoProcessor" or cls.config_class is lps_hf.LPSConfig


def test_auto_classes_make_models_from_a_configuration():
    config = AutoConfig.for_model("lps", backbone_config=tiny_vit().to_dict(), max_nodes=8)
    assert type(config) is lps_hf.LPSConfig
    assert type(AutoModel.from_config(config)) is lps_hf.LPSModel
    for auto_class in (AutoModelForSequenceClassification, lps_hf.AutoModelForGraphClassification):
        assert type(auto_class.from_config(config)) is lps_hf.LPSForGraphClassification
    nodes = tiny_config(output="n 3")
    for auto_class in (AutoModelForTokenClassification, lps_hf.AutoModelForNodeClassification):
        assert type(auto_class.from_config(nodes)) is lps_hf.LPSForNodeClassification
    images = lps_hf.LPSConfig(backbone_config=tiny_vit(), group="C_4")
    assert type(AutoModelForImageClassification.from_config(images)) is lps_hf.LPSForImageClassification


OTHER_HEADS = {
    "AutoModelForLinkPrediction": ("LPSForLinkPrediction", {"output": "n n 1", "num_labels": 1, "problem_type": None}),
    "AutoModelForParticleDynamics": (
        "LPSForParticleDynamics",
        {
            "group": "S_n x E(3)",
            "inputs": {"positions": "n p"},
            "output": "n p",
            "residual": "positions",
            "node_categories": None,
            "edge_categories": None,
        },
    ),
}


@pytest.mark.parametrize("alias", OTHER_HEADS)
def test_heads_that_transformers_has_no_auto_class_for(alias, tmp_path):
    name, options = OTHER_HEADS[alias]
    head, auto_class = getattr(lps_hf, name), getattr(lps_hf, alias)
    assert auto_class is getattr(lps_hf, alias)
    config = tiny_config(**{**options, "interface_config": {}})
    model = auto_class.from_config(config)
    assert type(model) is head
    save_checkpoint(model, lps_hf.LPSProcessor.from_config(config), tmp_path)
    loaded, body = auto_class.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)
    assert (type(loaded), type(body)) == (head, lps_hf.LPSModel)
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
        assert torch.equal(body.state_dict()[key.removeprefix("lps.")], tensor), key


def test_registering_again_changes_nothing():
    def finders():
        return [finder for finder in sys.meta_path if isinstance(finder, auto._RegisterAfterImport)]

    before = finders()
    auto.register()
    assert finders() == before
    assert len(before) == 1
    assert type(AutoModel.from_config(tiny_config())) is lps_hf.LPSModel


def test_the_finder_leaves_other_modules_alone():
    (finder,) = (finder for finder in sys.meta_path if isinstance(finder, auto._RegisterAfterImport))
    assert finder.find_spec("transformers.models.auto.tokenization_auto", transformers.__path__) is None
    assert finder.find_spec("json", None) is None
    assert finder.find_spec("transformers.models.auto.modeling_auto", []) is None, "a module that is nowhere"
    assert importlib.util.find_spec("transformers.models.auto.processing_auto").origin.endswith("processing_auto.py")


def test_the_alias_is_an_auto_class():
    alias = lps_hf.AutoModelForGraphClassification
    assert alias is lps_hf.AutoModelForGraphClassification
    assert issubclass(alias, AutoModelForSequenceClassification)
    assert alias.__doc__
    with pytest.raises(OSError, match=r"is designed to be instantiated using the `AutoModelForGraphClassification\.from"):
        alias()


REGRESSION = {"problem_type": "regression", "num_labels": 1}
MOLECULES = OTHER_HEADS["AutoModelForParticleDynamics"][1] | REGRESSION | {"output": None, "residual": None}


@pytest.mark.parametrize(
    ("architecture", "options", "task", "loaded_by"),
    [
        ("LPSForGraphClassification", {}, "graph-classification", "AutoModelForSequenceClassification"),
        ("LPSForGraphClassification", REGRESSION, "graph-regression", "AutoModelForSequenceClassification"),
        ("LPSForGraphClassification", MOLECULES, "molecule-regression", "AutoModelForSequenceClassification"),
        ("LPSForPointCloudClassification", {}, "point-cloud-classification", "AutoModelForSequenceClassification"),
        ("LPSForNodeClassification", {"output": "n 3"}, "node-classification", "AutoModelForTokenClassification"),
        ("LPSForLinkPrediction", OTHER_HEADS["AutoModelForLinkPrediction"][1], "link-prediction", "AutoModel"),
    ],
)
def test_the_pipeline_of_a_checkpoint(architecture, options, task, loaded_by):
    config = tiny_config(**{"interface_config": {}, **options}, architectures=[architecture])
    ((found, pipeline),) = auto.pipelines_of(config).items()
    assert found == task
    assert pipeline["pt"] == [loaded_by]
    assert hasattr(importlib.import_module("lps_hf.models.pipeline_lps"), pipeline["impl"].removeprefix("pipeline_lps."))
    config.custom_pipelines = {"text-generation": {}}  # as a file may say
    assert config.custom_pipelines == auto.pipelines_of(config)
    assert task not in config.custom_pipelines, "transformers would ask to run the code of the checkpoint"
    assert "custom_pipelines" not in config.to_dict()


def test_a_model_without_a_head_has_no_pipeline():
    assert auto.pipelines_of(tiny_config()) == {}
    assert auto.pipelines_of(tiny_config(architectures=["LPSModel"])) == {}


def test_a_lazy_class_passes_for_the_class():
    lazy = auto.LazyClass("lps_hf.models.modeling_lps", "LPSModel")
    assert (lazy.__module__, lazy.__name__, lazy.__qualname__) == (
        "lps_hf.models.modeling_lps",
        "LPSModel",
        "LPSModel",
    )
    assert lazy.base_model_prefix == "lps"
    assert lazy.from_pretrained == lps_hf.LPSModel.from_pretrained
    assert type(lazy(tiny_config())) is lps_hf.LPSModel
    with pytest.raises(AttributeError, match="nothing"):
        _ = lazy.nothing
    with pytest.raises(ImportError):
        _ = auto.LazyClass("lps_hf.models.nothing", "LPSModel").base_model_prefix


def test_a_processor_is_found_by_name_and_by_configuration(tmp_path):
    model = tiny_classifier()
    processor = lps_hf.LPSProcessor.from_config(model.config)
    save_checkpoint(model, processor, tmp_path)
    file = tmp_path / "processor_config.json"
    settings = json.loads(file.read_text())
    assert settings.pop("processor_class") == "LPSProcessor"
    for kept in ({**settings, "processor_class": "LPSProcessor"}, settings):
        file.write_text(json.dumps(kept))
        loaded = AutoProcessor.from_pretrained(tmp_path)
        assert type(loaded) is lps_hf.LPSProcessor
        assert loaded.node_categories == processor.node_categories


# The Hub room is closed: what travels with a checkpoint runs where lps_hf is not installed.

HUB_ROOM = sorted(Path(lps_hf.models.__file__).parent.glob("*.py"))
ALLOWED = {"huggingface_hub", "numpy", "torch", "transformers"} | sys.stdlib_module_names
# What comes along without being needed to load a model.
NOT_AT_THE_TOP = {"carried_code.py": ["not at the top of the file: from .pipeline_lps import LPSPipeline"]}


def packages_of(node):
    names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    return {name.partition(".")[0] for name in names}


def imports_that_do_not_travel(source, modules):
    """Say what a module of the Hub room imports, or seems to, that is not there after its files have been copied."""
    tree, siblings, wrong = ast.parse(source), set(), []
    tried = {line for node in ast.walk(tree) if isinstance(node, ast.Try) for line in node.body}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        text = ast.unparse(node)
        if node in tried and not getattr(node, "level", 0) and not packages_of(node) & (ALLOWED | {"lps_hf"}):
            continue  # what is not needed to load the module, and transformers does not ask for either
        if node not in tree.body:
            wrong.append(f"not at the top of the file: {text}")
        if isinstance(node, ast.ImportFrom) and node.level:
            siblings.add(node.module)
            if node.level != 1 or node.module not in modules or any(alias.name == "*" for alias in node.names):
                wrong.append(f"not `from .sibling import Name`: {text}")
        else:
            wrong += [f"not allowed: {text}" for _ in packages_of(node) - ALLOWED]
    # transformers looks for these lines with an expression of this kind, in texts as well.
    seeming = set(re.findall(r"^\s*(?:from\s+\.(\S*)\s+import|import\s+\.)", source, flags=re.MULTILINE))
    return wrong + [f"in a text, but taken for an import: {name}" for name in seeming - siblings]


@pytest.mark.parametrize("file", HUB_ROOM, ids=lambda file: file.name)
def test_the_hub_room_imports_nothing_that_does_not_travel(file):
    modules = {sibling.stem for sibling in HUB_ROOM if sibling.name != "__init__.py"}
    assert imports_that_do_not_travel(file.read_text(encoding="utf-8"), modules) == NOT_AT_THE_TOP.get(file.name, [])
    assert set(get_imports(file)) <= ALLOWED, "transformers would refuse to load the code where these are missing"


def test_the_hub_room_is_one_flat_folder():
    folder = HUB_ROOM[0].parent
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {file.name for file in HUB_ROOM}
    assert [type(node) for node in ast.parse((folder / "__init__.py").read_text()).body] == [ast.Expr], "a text only"


@pytest.mark.parametrize(
    "source",
    [
        "import scipy",
        "import numpy, scipy.sparse",
        "from safetensors.torch import load_file",
        "from lps_hf.models.groups import get_group",
        "from . import groups",
        "from .. import auto",
        "from ..auto import register",
        "from .groups import *",
        "from .nothing import Name",
        "from .groups.inner import Name",
        "def run():\n    import torch",
        "class Model:\n    from .groups import get_group",
        "try:\n    import torch\nexcept ImportError:\n    pass",
        "try:\n    import lps_hf\nexcept ImportError:\n    pass",
        "try:\n    from .groups import get_group\nexcept ImportError:\n    pass",
        "try:\n    if True:\n        import rdkit\nexcept ImportError:\n    pass",
        "try:\n    pass\nexcept ImportError:\n    import rdkit",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .groups import Group",
        "'''Use it so:\n\n    from .frames import laplacian_frame_ranks\n'''",
    ],
)
def test_what_does_not_travel_is_found(source):
    assert imports_that_do_not_travel(source, {"groups"})


def test_what_travels_is_allowed():
    source = "import math\nfrom torch.nn import functional as F\nfrom transformers import (\n    AutoModel,\n)\n"
    source += "def read():\n    try:\n        import pyarrow.parquet\n    except ImportError as error:\n        raise error\n"
    assert imports_that_do_not_travel(f"from .groups import get_group\n{source}", {"groups"}) == []


@pytest.mark.parametrize("name", lps_hf.auto.ALIASES)
def test_readable_auto_classes_refuse_plain_models(name, tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 10}
    config = transformers.BertConfig(**sizes)
    config.save_pretrained(tmp_path)
    for load in (
        lambda alias: alias.from_pretrained(tmp_path),
        lambda alias: alias.from_pretrained(tmp_path, config=config),
        lambda alias: alias.from_config(config),
    ):
        with pytest.raises(ValueError, match="expected a symmetrized model .* got a plain 'bert'.*from_backbone_pretrained"):
            load(getattr(lps_hf, name))
