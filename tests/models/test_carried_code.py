"""Models that came with their code, saved again: pipeline and all go along."""

import json
import sys

import pytest
from transformers import Trainer, TrainingArguments
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.hub.checkpoints import save_checkpoint
from tests.task_cases import task_case


@pytest.fixture
def from_code(tmp_path, monkeypatch):
    """Loads a checkpoint by its own code, as where lps_hf is not installed."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)  # of another folder

    def load(folder):
        settings = json.loads((folder / "config.json").read_text())
        auto_class = next(name for name in settings["auto_map"] if name not in ("AutoConfig", "AutoModel"))
        model = get_class_from_dynamic_module(settings["auto_map"][auto_class], str(folder))
        model.register_for_auto_class(auto_class)
        model.config_class.register_for_auto_class()
        processor = get_class_from_dynamic_module("processing_lps.LPSProcessor", str(folder))
        processor.register_for_auto_class()
        pipeline = get_class_from_dynamic_module(next(iter(settings["custom_pipelines"].values()))["impl"], str(folder))
        return model, processor, pipeline

    return load


def names_in(folder):
    return {file.name for file in folder.iterdir()}


def settings_in(folder):
    settings = [json.loads((folder / name).read_text()) for name in ("config.json", "processor_config.json")]
    return [{name: part.get(name) for name in ("auto_map", "custom_pipelines")} for part in settings]


def test_what_came_with_its_code_is_saved_whole(tmp_path, from_code):
    model, processor, _ = task_case("node-classification")
    folder = save_checkpoint(model, processor, tmp_path / "first")
    model_class, processor_class, pipeline_class = from_code(folder)
    assert model_class.__module__.startswith("transformers_modules")
    loaded, own = model_class.from_pretrained(folder), processor_class.from_pretrained(folder)
    (folder / "pipeline_lps.py").unlink()  # what is needed has come along
    for name in ("second", "third"):
        again = tmp_path / name
        loaded.save_pretrained(again)
        own.save_pretrained(again)
        assert names_in(again) == names_in(folder) | {"pipeline_lps.py"}
        assert settings_in(again) == settings_in(folder)
        model_class, processor_class, _ = from_code(again)
        loaded, own = model_class.from_pretrained(again), processor_class.from_pretrained(again)
    pipeline_class(model=loaded, processor=own, task="mine").save_pretrained(tmp_path / "fourth")
    assert names_in(tmp_path / "fourth") == names_in(again)
    assert settings_in(tmp_path / "fourth") == settings_in(folder)


def test_checkpoints_of_a_trainer_are_whole(tmp_path, from_code):
    model, processor, rows = task_case("graph-classification")
    folder = save_checkpoint(model, processor, tmp_path / "first")
    model_class, processor_class, _ = from_code(folder)
    own = processor_class.from_pretrained(folder)
    arguments = TrainingArguments(
        str(tmp_path / "run"), max_steps=1, save_steps=1, report_to="none", use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    collator = DataCollatorForGraphs(own)
    Trainer(
        model_class.from_pretrained(folder), arguments, data_collator=collator, train_dataset=rows, processing_class=own
    ).train()
    saved = tmp_path / "run" / "checkpoint-1"
    assert names_in(folder) <= names_in(saved)
    assert settings_in(saved) == settings_in(folder)


def test_the_bare_function_keeps_the_pipeline_too(tmp_path, from_code):
    model, processor, _ = task_case("graph-classification")
    folder = save_checkpoint(model, processor, tmp_path / "first")
    from_code(folder)
    bare = get_class_from_dynamic_module("modeling_lps.LPSModel", str(folder))
    bare.register_for_auto_class("AutoModel")
    bare.config_class.register_for_auto_class()
    bare.from_pretrained(folder).save_pretrained(tmp_path / "second")
    settings = json.loads((tmp_path / "second" / "config.json").read_text())
    assert settings["custom_pipelines"].keys() == {"graph-classification"}
    assert settings["auto_map"] == settings_in(folder)[0]["auto_map"]
    assert names_in(tmp_path / "second") == names_in(folder) - {"processor_config.json"}


def test_nothing_is_added_where_there_is_no_code(tmp_path):
    model, _, _ = task_case("graph-classification")
    model.save_pretrained(tmp_path)
    assert names_in(tmp_path) == {"config.json", "model.safetensors"}
