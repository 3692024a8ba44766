"""Run transformers' own common model tests on `LPSModel` and `LPSForGraphClassification`.

transformers checks each of its models with one mixin, `ModelTesterMixin`: saving and loading, initialization from the
meta device, dtypes, gradient checkpointing, attention switches, output formats and more. The mixin is not in the wheel
but in the source distribution, so this script takes it from there. The tests run unchanged but for those in the two
dicts below.

    python scripts/run_common_model_tests.py                         # gets the sdist of the installed version with pip
    python scripts/run_common_model_tests.py --sdist transformers-5.23.0    # an unpacked one
    python scripts/run_common_model_tests.py -k save_load -x         # all other arguments go to pytest

It needs pytest and parameterized. The exit code is pytest's: 0 when nothing failed.
"""

import argparse
import collections
import functools
import importlib
import inspect
import os
import subprocess
import sys
import tarfile
import tempfile
import types
import unittest
import unittest.mock
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel, ViTConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto import modeling_auto
from transformers.testing_utils import torch_device

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.groups import get_group
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from lps_hf.models.modeling_lps import LPSModel, LPSPreTrainedModel

SDIST_VARIABLE = "TRANSFORMERS_SDIST"
"""Environment variable with the unpacked sdist, through which `main` speaks to the test module that pytest imports."""

PACKAGE = "transformers_tests"
"""Name under which the sdist's `tests` is imported."""

SKIPPED_TESTS = {
    "test_model_get_set_embeddings": "The inputs are graphs: there is no table of input embeddings to get or to set.",
    "test_load_with_mismatched_shapes": "Half of it resizes a vocabulary, which a graph model does not have, and the "
    "other half is in the overridden test_can_load_ignoring_mismatched_shapes.",
    "test_sdpa_can_dispatch_non_composite_models": "The configuration is a composite one, and what is tested here is "
    "in the overridden test_sdpa_can_dispatch_composite_models.",
}
"""Tests that are not run, and why. What the mixin itself skips is in the summary, with its reason."""

OVERRIDDEN_TESTS = {
    "test_internal_model_config_and_subconfig_are_same": "The backbone reads tokens as pixels, so it has a copy of "
    "its configuration with the geometry of the token grid; all else has to be the same.",
    "test_sdpa_can_dispatch_composite_models": "The mixin looks for a language model and a vision tower; here there "
    "is one backbone, and its layers have to use the requested attention.",
    "test_can_set_attention_dynamically_composite_model": "The mixin looks at configurations only; here the layers of "
    "the backbone, which has its own, have to follow too, and without warnings.",
    "test_can_load_ignoring_mismatched_shapes": "The mixin looks for the classification layer among the direct "
    "children; here it is the read-out of the base function.",
    "test_enable_input_require_grads_with_gradient_checkpointing": "The mixin looks for a gradient on input "
    "embeddings; here one has to reach the first layer through reentrant checkpoints, with all before it frozen.",
    "test_batching_equivalence": "The mixin takes single rows of tensors, and noise is a dict of them; here the group "
    "elements are given instead.",
    "test_model_main_input_name": "The mixin expects the main input as first argument; a task head has its labels there "
    "and hands the inputs on to LPSModel, whose argument it has to be.",
    "test_reverse_loading_mapping": "The mixin expects the older names of a backbone's weights by default; here they are "
    "written on request, because Trainer reads a checkpoint without renaming.",
}
"""Tests that run in another form, written in `CommonTests`, and why."""


class LPSModelTester:
    """What the mixin asks for: a tiny configuration and a batch of graphs for it.

    Args:
        parent: The test case.
    """

    is_training = True
    batch_size = 7  # the attention tests fill smaller batches up with random numbers, which are no graphs
    num_nodes = 6
    num_edges = 9
    num_samples = 2
    num_labels = 3
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 2
    image_size = 32
    patch_size = 8
    seq_length = (image_size // patch_size) ** 2 + 1

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent

    def get_config(self) -> LPSConfig:
        """Return the configuration."""
        backbone_config = ViTConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=64,
            image_size=self.image_size,
            patch_size=self.patch_size,
        )
        return LPSConfig(
            backbone_config=backbone_config,
            max_nodes=10,
            node_categories=[5, 3],
            edge_categories=[2],
            num_labels=self.num_labels,
            num_eval_samples=self.num_samples,
            interface_config={"hidden_size": 16},
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[LPSConfig, dict[str, Any]]:
        """Return the configuration and graphs of different sizes."""
        config = self.get_config()
        sizes = torch.arange(self.batch_size) % 4 + self.num_nodes - 3
        edge_counts = torch.arange(self.batch_size) % 3 + self.num_edges - 2
        ends = torch.rand(self.batch_size, 2, self.num_edges) * sizes.view(-1, 1, 1)
        categories = {
            "node_categories": (self.num_nodes, config.node_categories),
            "edge_categories": (self.num_edges, config.edge_categories),
        }
        inputs = {
            name: torch.stack([torch.randint(size, (self.batch_size, length)) for size in sizes_of_one], dim=-1)
            for name, (length, sizes_of_one) in categories.items()
        }
        inputs["edge_index"] = ends.long()
        inputs["node_mask"] = torch.arange(self.num_nodes) < sizes.unsqueeze(1)
        inputs["edge_mask"] = torch.arange(self.num_edges) < edge_counts.unsqueeze(1)
        return config, {name: tensor.to(torch_device) for name, tensor in inputs.items()}

    def make_noise(self, config: LPSConfig) -> dict[str, Tensor]:
        """Return noise of the shapes that `LPSModel.draw_noise` gives, always the same: it makes the model deterministic."""
        channels = config.input_representations["node_features"].num_channels
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, self.num_samples, self.num_nodes)
        noise = {"S_n": torch.rand(shape, generator=generator), "interface": torch.rand(*shape, channels, generator=generator)}
        return {name: part.to(torch_device) for name, part in noise.items()}


class CommonTests:
    """What both model classes share beside the mixin: the tester, and the overridden tests."""

    additional_model_inputs = ("node_categories", "edge_categories", "node_mask", "edge_mask")
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True  # the file has no copyright year, but the model is a new one
    _is_composite = True

    def setUp(self) -> None:
        """Make the tester."""
        self.model_tester = LPSModelTester(self)

    def _prepare_for_class(self, inputs_dict: dict, model_class: type, return_labels: bool = False) -> dict:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if "group_elements" not in inputs:
            # Not before: the mixin takes all inputs for tensors, and noise is a dict of them.
            inputs["noise"] = self.model_tester.make_noise(self.model_tester.get_config())
        return inputs

    def test_config(self) -> None:
        """Run the tests that transformers has for configurations."""
        options = {"has_text_modality": False, "common_properties": ["max_nodes", "num_labels"]}
        arguments = {"max_nodes": 12, "node_categories": [5, 3], "num_eval_samples": 2}
        load_config_tester()(self, config_class=LPSConfig, **options, **arguments).run_common_tests()

    def test_internal_model_config_and_subconfig_are_same(self) -> None:
        config = self.model_tester.get_config()
        backbone = self._make_model(config).base_model.base.backbone
        given, own = config.backbone_config.to_dict(), backbone.model.config.to_dict()
        geometry = {"image_size": backbone.grid_size, "patch_size": 1, "num_channels": backbone.hidden_size}
        assert own | {"dtype": None} == given | geometry | {"dtype": None}

    def test_batching_equivalence(self, **options: Any) -> None:
        def prepare() -> tuple[LPSConfig, dict[str, Any]]:
            config, inputs = LPSModelTester(self).prepare_config_and_inputs_for_common()
            elements = get_group(config.group).haar(inputs["node_mask"], self.model_tester.num_samples)
            return config, {**inputs, "group_elements": elements.tensors}

        with unittest.mock.patch.object(self.model_tester, "prepare_config_and_inputs_for_common", prepare):
            super().test_batching_equivalence(**options)

    def test_model_main_input_name(self) -> None:
        assert self._model_class.main_input_name in inspect.signature(LPSModel.forward).parameters

    def test_sdpa_can_dispatch_composite_models(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self._make_model().save_pretrained(folder)
            requests = ((None, "sdpa"), ("sdpa", "sdpa"), ("eager", "eager"), ({"backbone_config": "eager"}, "eager"))
            for request, expected in requests:
                with self.subTest(request):
                    model = self._model_class.from_pretrained(folder, attn_implementation=request)
                    assert attention_implementations(model) == {expected}

    def test_can_set_attention_dynamically_composite_model(self) -> None:
        super().test_can_set_attention_dynamically_composite_model()
        model = self._make_model()
        for request, expected in (("eager", "eager"), ({"backbone_config": "sdpa"}, "sdpa"), ({"": "eager"}, "sdpa")):
            with self.subTest(request), self.assertNoLogs("transformers.modeling_utils", "WARNING"):
                model.set_attn_implementation(request)
                assert attention_implementations(model) == {expected}

    def test_reverse_loading_mapping(self, **options: Any) -> None:
        save_with_older_names = functools.partialmethod(LPSPreTrainedModel.save_pretrained, save_original_format=True)
        with unittest.mock.patch.object(LPSPreTrainedModel, "save_pretrained", save_with_older_names):
            super().test_reverse_loading_mapping(**options)

    def test_can_load_ignoring_mismatched_shapes(self) -> None:
        model = self._make_model()
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            for model_class in (self._model_class, AutoModelForSequenceClassification):
                with pytest.raises(RuntimeError):
                    model_class.from_pretrained(folder, num_labels=42)
                loaded = model_class.from_pretrained(folder, num_labels=42, ignore_mismatched_sizes=True)
                saved = model.base_model.state_dict()
                for name, tensor in loaded.base_model.state_dict().items():
                    if name.startswith("base.readout"):
                        assert tensor.shape[0] == 42, name
                    else:
                        torch.testing.assert_close(tensor, saved[name], rtol=0, atol=0, msg=f"{name} differs")

    def test_enable_input_require_grads_with_gradient_checkpointing(self) -> None:
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = self._make_model(config).requires_grad_(False).to(torch_device).train()
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        assert len(layers) == self.model_tester.num_hidden_layers
        layers[0].requires_grad_(True)
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": True})
        model.enable_input_require_grads()
        model(**self._prepare_for_class(inputs, self._model_class))[0].square().sum().backward()
        for name, parameter in layers[0].named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
        assert sum(float(parameter.grad.abs().sum()) for parameter in layers[0].parameters()) > 0

    @property
    def _model_class(self) -> type[PreTrainedModel]:
        return self.all_model_classes[0]

    def _make_model(self, config: LPSConfig | None = None) -> PreTrainedModel:
        return self._model_class(config or self.model_tester.get_config())


def attention_implementations(model: PreTrainedModel) -> set[str]:
    """Return which attentions the layers of a model use."""
    modules = [module for module in model.modules() if type(module).__name__.endswith("Attention")]
    return {module.config._attn_implementation for module in modules}


def register() -> None:
    """Make the classes known where the mixin looks them up: the Auto classes and their static tables of names."""
    AutoConfig.register("lps", LPSConfig, exist_ok=True)
    AutoModel.register(LPSConfig, LPSModel, exist_ok=True)
    AutoModelForSequenceClassification.register(LPSConfig, LPSForGraphClassification, exist_ok=True)
    modeling_auto.MODEL_MAPPING_NAMES["lps"] = "LPSModel"
    modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["lps"] = "LPSForGraphClassification"


def load_mixin(sdist: Path) -> type:
    """Import `ModelTesterMixin` from an unpacked sdist.

    The sdist's `tests` is imported under another name, beside this project's own. Modules that its files import but
    that the sdist lacks are replaced by ones that hold no more than the names asked for.

    Args:
        sdist: The folder that has `tests/test_modeling_common.py`.

    Returns:
        The mixin.
    """
    missing = {
        "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
        "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
        "utils.test_configuration_utils": {"config_common_kwargs": {}},
    }
    packages = {PACKAGE: [str(sdist / "tests")], **{f"{PACKAGE}.{name.split('.')[0]}": [] for name in missing}}
    for name, path in packages.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = path
    for name, content in missing.items():
        module = sys.modules[f"{PACKAGE}.{name}"] = types.ModuleType(f"{PACKAGE}.{name}")
        vars(module).update(content)
    return importlib.import_module(f"{PACKAGE}.test_modeling_common").ModelTesterMixin


def load_config_tester() -> type:
    """Import `ConfigTester` from the sdist of `load_mixin`."""
    # It would import transformers once more, from the folder above, which only a checkout of its repository has.
    with unittest.mock.patch("transformers.utils.direct_transformers_import"):
        return importlib.import_module(f"{PACKAGE}.test_configuration_common").ConfigTester


def make_test_cases(mixin: type) -> dict[str, type]:
    """Return one test case for each model class, by name: a test that skips one class must not skip the other."""
    own = {name for name in vars(CommonTests) if name.startswith("test_")}
    overridden = {name for name in own if callable(getattr(mixin, name, None))}
    missing = [name for name in SKIPPED_TESTS if not hasattr(mixin, name)]
    if missing or overridden != set(OVERRIDDEN_TESTS):
        differing = sorted(overridden.symmetric_difference(OVERRIDDEN_TESTS))
        raise ValueError(f"SKIPPED_TESTS: not in the mixin: {missing}; OVERRIDDEN_TESTS: not as in code: {differing}.")
    cases = {}
    for model_class in (LPSModel, LPSForGraphClassification):
        attributes: dict[str, Any] = {"all_model_classes": (model_class,), "__module__": __name__}
        for name, reason in SKIPPED_TESTS.items():
            attributes[name] = unittest.skip(reason)(getattr(mixin, name))
        case = f"{model_class.__name__}Test"
        cases[case] = type(case, (CommonTests, mixin, unittest.TestCase), attributes)
    return cases


def download_sdist(folder: Path) -> Path:
    """Get the sdist of the installed transformers with pip and unpack it.

    Args:
        folder: Where to.

    Returns:
        The unpacked sdist.
    """
    requirement = f"transformers=={transformers.__version__}"
    options = ["--no-deps", "--no-build-isolation", "--no-binary", "transformers", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *options, requirement], check=True)
    with tarfile.open(next(folder.glob("transformers-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.glob("transformers-*") if path.is_dir())


class Summary:
    """A pytest plugin that counts the tests and keeps the reasons."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in one report; a failure anywhere in a test, in a subtest too, is a failure of the test."""
        if report.when != "call" and report.passed:
            return
        previous = self.outcomes.get(report.nodeid)
        if previous == "failed" or (previous is not None and report.passed):
            return
        self.outcomes[report.nodeid] = report.outcome
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reasons[report.nodeid] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            self.reasons[report.nodeid] = str(report.longrepr).strip().rsplit("\n", 1)[-1]

    def print(self) -> None:
        """Print the numbers, for each reason the tests that were skipped for it, and the failures."""
        for outcome in ("skipped", "failed"):
            by_reason = collections.defaultdict(list)
            for nodeid, reason in self.reasons.items():
                if self.outcomes[nodeid] == outcome:
                    by_reason[reason].append("::".join(nodeid.split("::")[1:]))
            for reason, tests in sorted(by_reason.items()):
                print(f"{outcome} ({len(tests)}): {reason}")
                for test in tests:
                    print(f"    {test}")
        for name, reason in OVERRIDDEN_TESTS.items():
            print(f"overridden: {name}: {reason}")
        counts = collections.Counter(self.outcomes.values())
        print(", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped")))


def main() -> int:
    """Run the tests and print what came of them.

    Returns:
        pytest's exit code.
    """
    description = "Run transformers' own common model tests on this package's models. Other arguments go to pytest."
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--sdist", type=Path, help="folder of the unpacked transformers sdist; default: pip downloads it")
    arguments, pytest_arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        sdist = (arguments.sdist or download_sdist(Path(folder))).resolve()
        if not (sdist / "tests" / "test_modeling_common.py").is_file():
            parser.error(f"sdist: expected a folder with tests/test_modeling_common.py, got {sdist}.")
        os.environ[SDIST_VARIABLE] = str(sdist)
        summary = Summary()
        # Without this project's pytest settings, which are made for its own tests.
        options = ["-c", os.devnull, "--rootdir", str(Path(__file__).parent), "-p", "no:cacheprovider", "-W", "ignore"]
        code = pytest.main([*options, "-q", "--no-header", *pytest_arguments, __file__], plugins=[summary])
    summary.print()
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
elif SDIST_VARIABLE in os.environ:
    register()
    globals().update(make_test_cases(load_mixin(Path(os.environ[SDIST_VARIABLE]))))
